"""Operators with kernels of their own: products, convolution, pooling, rowwise functions, losses, gathering, joining."""

import itertools
import math

import numpy as np
import pytest
from numeric import check_gradients
from scipy import special
from subject import FLOATS, HALVES, F, torch

F64 = torch.float64


def rand(*shape, dtype=F64):
    return torch.randn(*shape, dtype=F64).to(dtype)


def close(got, expected, tol=1e-10):
    np.testing.assert_allclose(got.detach().to(F64).numpy(), expected, rtol=tol, atol=tol)


def tolerance(dtype):
    return {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]


# --- products ---------------------------------------------------------------------------------------------------------
SHAPES = [
    ((3,), (3,)), ((3, 4), (4,)), ((4,), (4, 3)), ((2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)), ((2, 1, 2, 3), (4, 3, 2)), ((3,), (2, 3, 4)), ((2, 4, 3), (3,)), ((0, 3), (3, 2)),
    ((2, 0), (0, 3)), ((1, 1), (1, 1)), ((65, 33), (33, 17)), ((130, 70), (70, 129)),
]  # fmt: skip


@pytest.mark.parametrize("a, b", SHAPES)
def test_matmul(a, b):
    x, y = rand(*a), rand(*b)
    close(torch.matmul(x, y), np.matmul(x.numpy(), y.numpy()))
    if 0 not in a and max(a) < 60:
        check_gradients(torch.matmul, x, y)


@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES, torch.int64], ids=lambda d: str(d).rpartition(".")[2])
@pytest.mark.parametrize("m, k, n", [(1, 7, 1), (4, 300, 5), (33, 65, 47), (128, 64, 96), (1, 513, 130), (257, 1, 3)])
def test_matmul_layouts(dtype, m, k, n):
    def make(rows, columns, layout):
        t = {
            "plain": lambda: rand(rows, columns),
            "transposed": lambda: rand(columns, rows).t(),
            "offset": lambda: rand(rows + 2, columns + 3)[1:-1, 2:-1],
            "stepped": lambda: rand(2 * rows, 2 * columns)[::2, ::2],
        }[layout]()
        return (t * 3).to(dtype) if dtype == torch.int64 else t.to(dtype)

    for one, two in itertools.product(["plain", "transposed", "offset", "stepped"], repeat=2):
        a, b = make(m, k, one), make(k, n, two)
        expected = a.to(F64).numpy() @ b.to(F64).numpy()
        got = (a @ b).to(F64).numpy()
        tol = 0 if dtype == torch.int64 else tolerance(dtype) * math.sqrt(k)
        np.testing.assert_allclose(got, expected, rtol=tol, atol=tol)


def test_products_by_name():
    a, b, c = rand(3, 4), rand(4, 5), rand(3, 5)
    close(torch.mm(a, b), a.numpy() @ b.numpy())
    close(torch.addmm(c, a, b, beta=0.5, alpha=2), 0.5 * c.numpy() + 2 * a.numpy() @ b.numpy())
    close(torch.mv(a, b[:, 0]), a.numpy() @ b.numpy()[:, 0])
    close(torch.dot(a[0], b[:, 0]), a.numpy()[0] @ b.numpy()[:, 0])
    close(torch.outer(a[0], b[0]), np.outer(a.numpy()[0], b.numpy()[0]))
    close(torch.bmm(rand(2, 3, 4), rand(2, 4, 5)).sum() * 0, 0.0)
    check_gradients(lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2), c, a, b)
    x, w, bias = rand(2, 6, 4), rand(5, 4), rand(5)
    close(F.linear(x, w, bias), x.numpy() @ w.numpy().T + bias.numpy())
    check_gradients(F.linear, x, w, bias)
    check_gradients(F.linear, rand(7, 4), w)


# --- convolution ------------------------------------------------------------------------------------------------------
def conv2d_by_loops(x, w, b, stride, padding, dilation, groups):
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    n, _, h, width = x.shape
    out, per_group, kh, kw = w.shape
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    oh = (h + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    ow = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((n, out, oh, ow))
    for o in range(out):
        channels = slice((o // (out // groups)) * per_group, (o // (out // groups) + 1) * per_group)
        for i, j in itertools.product(range(oh), range(ow)):
            patch = x[:, channels, i * sh : i * sh + dh * kh : dh, j * sw : j * sw + dw * kw : dw]
            y[:, o, i, j] = (patch[:, :, :kh, :kw] * w[o]).sum((1, 2, 3))
    return y + (0 if b is None else b[:, None, None])


CONVOLUTIONS = [
    # x, weight, stride, padding, dilation, groups
    ((1, 1, 5, 5), (1, 1, 3, 3), 1, 0, 1, 1),
    ((2, 3, 8, 7), (4, 3, 3, 3), 1, 1, 1, 1),
    ((2, 3, 9, 9), (5, 3, 3, 2), 2, (1, 0), 1, 1),
    ((1, 4, 9, 8), (6, 2, 3, 3), 1, 2, 2, 2),
    ((2, 4, 6, 6), (4, 1, 3, 3), 1, 1, 1, 4),
    ((2, 4, 7, 7), (8, 1, 3, 3), 2, 1, 1, 4),
    ((2, 6, 5, 5), (7, 6, 1, 1), 1, 0, 1, 1),
    ((1, 16, 6, 10), (33, 16, 3, 3), 1, 1, 1, 1),
    ((2, 1, 14, 14), (6, 1, 5, 5), 1, 0, 1, 1),
    ((2, 6, 12, 12), (16, 6, 5, 5), 1, 0, 1, 1),
    ((1, 2, 6, 6), (3, 2, 4, 4), (2, 3), (3, 1), 1, 1),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_conv2d(case, bias):
    shape, kernel, stride, padding, dilation, groups = case
    x, w = rand(*shape), rand(*kernel)
    b = rand(kernel[0]) if bias else None
    pair = lambda v: v if isinstance(v, tuple) else (v, v)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    expected = conv2d_by_loops(
        x.numpy(), w.numpy(), None if b is None else b.numpy(), pair(stride), pair(padding), pair(dilation), groups
    )
    close(F.conv2d(x, w, b, **settings), expected)
    low = [t if t is None else t.float() for t in (x, w, b)]
    close(F.conv2d(*low, **settings), expected, 2e-4)
    # The same through channels-last strides and a transposed view.
    last = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    close(F.conv2d(last, w, b, **settings), expected)
    flipped = x.transpose(2, 3).contiguous().transpose(2, 3)
    close(F.conv2d(flipped, w, b, **settings), expected)
    inputs = [x, w, b] if bias else [x, w]
    check_gradients(lambda *a: F.conv2d(*a, **settings), *inputs, second=math.prod(shape) * kernel[0] < 3000)


def test_conv2d_padding_by_name_and_unbatched():
    x, w = rand(2, 3, 7, 8), rand(4, 3, 3, 3)
    close(F.conv2d(x, w, padding="same"), F.conv2d(x, w, padding=1).numpy())
    close(F.conv2d(x, w, padding="valid"), F.conv2d(x, w).numpy())
    close(F.conv2d(x[0], w), F.conv2d(x, w)[0].numpy())


@pytest.mark.parametrize("shape, kernel, settings", [
    ((2, 3, 8, 8), 2, {}),
    ((2, 3, 9, 7), 3, {"stride": 2}),
    ((1, 2, 7, 7), 3, {"stride": 1, "padding": 1}),
    ((1, 2, 8, 8), (2, 3), {"stride": (2, 1), "padding": (1, 0)}),
    ((1, 2, 9, 9), 2, {"dilation": 2}),
    ((1, 2, 7, 7), 2, {"ceil_mode": True}),
    ((64, 6, 24, 24), 2, {}),
])  # fmt: skip
def test_max_pool2d(shape, kernel, settings):
    x = rand(*shape)
    y, at = F.max_pool2d(x, kernel, return_indices=True, **settings)
    close(F.max_pool2d(x, kernel, **settings), y.numpy())
    a = x.numpy()
    # The places name the values, and each value is the greatest of its window.
    flat = a.reshape(*shape[:2], -1)
    np.testing.assert_array_equal(
        np.take_along_axis(flat, at.numpy().reshape(*shape[:2], -1), 2).reshape(y.shape), y.numpy()
    )
    kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    stride = settings.get("stride", kernel)
    sh, sw = stride if isinstance(stride, tuple) else (stride, stride)
    pad = settings.get("padding", 0)
    ph, pw = pad if isinstance(pad, tuple) else (pad, pad)
    d = settings.get("dilation", 1)
    padded = np.pad(a, ((0, 0), (0, 0), (ph, ph + kh), (pw, pw + kw)), constant_values=-np.inf)
    for i, j in itertools.product(range(y.shape[2]), range(y.shape[3])):
        window = padded[:, :, i * sh : i * sh + d * (kh - 1) + 1 : d, j * sw : j * sw + d * (kw - 1) + 1 : d]
        np.testing.assert_array_equal(window.max((2, 3)), y.numpy()[:, :, i, j])
    if x.numel() < 1000:
        check_gradients(lambda v: F.max_pool2d(v, kernel, **settings), x)


def test_avg_pool2d():
    x = rand(2, 3, 8, 6)
    close(F.avg_pool2d(x, 2), x.numpy().reshape(2, 3, 4, 2, 3, 2).mean((3, 5)))
    check_gradients(lambda v: F.avg_pool2d(v, 3, stride=2, padding=1), x)
    close(F.adaptive_avg_pool2d(x, 1)[..., 0, 0], x.numpy().mean((2, 3)))


def test_max_pool_of_nan():
    x = torch.zeros(1, 1, 2, 2)
    x[0, 0, 1, 0] = math.nan
    assert math.isnan(F.max_pool2d(x, 2).item())


# --- rowwise ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "shape, dim", [((5,), 0), ((3, 7), 1), ((3, 7), 0), ((2, 3, 70), -1), ((2, 65, 3), 1), ((4, 0), 0)]
)
def test_softmax_and_log_softmax(shape, dim):
    x = rand(*shape) * 3
    a = x.numpy()
    close(F.softmax(x, dim), special.softmax(a, dim))
    close(F.log_softmax(x, dim), special.log_softmax(a, dim))
    close(torch.softmax(x.float(), dim), special.softmax(a, dim), 1e-6)
    close(x.float().log_softmax(dim), special.log_softmax(a, dim), 1e-5)
    if x.numel() and x.numel() < 50:
        check_gradients(lambda v: F.softmax(v, dim), x)
        check_gradients(lambda v: F.log_softmax(v, dim), x)


def test_softmax_of_extremes():
    x = torch.tensor([[1e4, 0.0, -1e4], [-math.inf, 0.0, 0.0]])
    assert F.softmax(x, 1).tolist() == [[1, 0, 0], [0, 0.5, 0.5]]
    assert F.log_softmax(x, 1)[0].tolist() == [0, -1e4, -2e4]
    assert torch.isnan(F.softmax(torch.full((2,), -math.inf), 0)).all()
    assert F.softmax(torch.ones(2, dtype=torch.int64), 0, dtype=torch.float32).tolist() == [0.5, 0.5]


def test_layer_norm():
    x, w, b = rand(3, 4, 33), rand(33), rand(33)
    a = x.numpy()
    expected = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)
    close(F.layer_norm(x, (33,)), expected)
    close(F.layer_norm(x, (33,), w, b), expected * w.numpy() + b.numpy())
    both = (a - a.mean((1, 2), keepdims=True)) / np.sqrt(a.var((1, 2), keepdims=True) + 0.1)
    close(F.layer_norm(x, (4, 33), eps=0.1), both)
    check_gradients(lambda x, w, b: F.layer_norm(x, (5,), w, b), rand(2, 3, 5), rand(5), rand(5))


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 5, 6)])
def test_batch_norm(shape):
    x, w, b = rand(*shape), rand(3), rand(3)
    a, axes = x.numpy(), tuple(i for i in range(len(shape)) if i != 1)
    column = lambda t: t.reshape(1, 3, *[1] * (len(shape) - 2))
    mean, var = a.mean(axes), a.var(axes)
    expected = (a - column(mean)) / np.sqrt(column(var) + 1e-5) * column(w.numpy()) + column(b.numpy())
    running = [torch.zeros(3, dtype=F64), torch.ones(3, dtype=F64)]
    close(F.batch_norm(x, *running, w, b, training=True, momentum=0.25), expected)
    close(running[0], 0.25 * mean)
    close(running[1], 0.75 + 0.25 * a.var(axes, ddof=1))
    close(F.batch_norm(x, torch.from_numpy(mean), torch.from_numpy(var), w, b), expected)
    check_gradients(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), x, w, b)
    check_gradients(lambda x, w, b: F.batch_norm(x, *running, w, b), x, w, b)


# --- losses -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(reduction):
    x, t, w = rand(6, 4), torch.tensor([0, 3, 1, 2, 2, -100]), rand(4).abs() + 0.1
    log_p = special.log_softmax(x.numpy(), 1)
    for weight in (None, w):
        weights = np.array([(1.0 if weight is None else weight.numpy()[i]) if i >= 0 else 0.0 for i in t.tolist()])
        each = -log_p[np.arange(6), np.maximum(t.numpy(), 0)] * weights
        expected = {"none": each, "sum": each.sum(), "mean": each.sum() / weights.sum()}[reduction]
        close(F.cross_entropy(x, t, weight=weight, reduction=reduction), expected)
        close(F.nll_loss(F.log_softmax(x, 1), t, weight=weight, reduction=reduction), expected)
        check_gradients(lambda v, weight=weight: F.cross_entropy(v, t, weight=weight, reduction=reduction), x)
    soft = torch.softmax(rand(6, 4), 1)
    close(F.cross_entropy(x, soft, reduction="sum"), -(log_p * soft.numpy()).sum())
    smooth = F.cross_entropy(x[:5], t[:5], label_smoothing=0.2, reduction="sum")
    close(smooth, (-0.8 * log_p[np.arange(5), t.numpy()[:5]] - 0.2 * log_p[:5].mean(1)).sum())


def test_cross_entropy_of_images():
    x, t = rand(2, 3, 4, 5), torch.arange(40).reshape(2, 4, 5) % 3
    log_p = special.log_softmax(x.numpy(), 1)
    expected = -np.take_along_axis(log_p, t.numpy()[:, None], 1).mean()
    close(F.cross_entropy(x, t), expected)
    check_gradients(lambda v: F.cross_entropy(v, t), x)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_elementwise_losses(reduction):
    x, t = rand(4, 3), rand(4, 3)
    a, b = x.numpy(), t.numpy()
    p, q = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
    d = a - b
    finish = {"mean": np.mean, "sum": np.sum, "none": lambda v: v}[reduction]
    close(F.mse_loss(x, t, reduction=reduction), finish(d * d))
    close(F.l1_loss(x, t, reduction=reduction), finish(np.abs(d)))
    huber = np.where(np.abs(d) < 1, 0.5 * d * d, np.abs(d) - 0.5)
    close(F.smooth_l1_loss(x, t, reduction=reduction), finish(huber))
    close(F.huber_loss(x, t, reduction=reduction), finish(huber))
    bce = -(q * np.log(p) + (1 - q) * np.log(1 - p))
    close(F.binary_cross_entropy(torch.from_numpy(p), torch.from_numpy(q), reduction=reduction), finish(bce))
    close(F.binary_cross_entropy_with_logits(x, torch.from_numpy(q), reduction=reduction), finish(bce), 1e-9)
    close(F.kl_div(torch.from_numpy(np.log(p)), torch.from_numpy(q), reduction=reduction),
          finish(q * (np.log(q) - np.log(p))))  # fmt: skip
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss):
        check_gradients(lambda u, v, loss=loss: loss(u, v, reduction=reduction), x, t)
    check_gradients(lambda v: F.binary_cross_entropy_with_logits(v, torch.from_numpy(q), reduction=reduction), x)


# --- gathering and joining --------------------------------------------------------------------------------------------
def test_gather_and_select():
    x = rand(3, 4, 5)
    a = x.numpy()
    i = torch.tensor([2, 0, 2])
    close(x.index_select(1, i), a[:, [2, 0, 2]])
    check_gradients(lambda v: v.index_select(1, i), x)
    at = torch.arange(3 * 2 * 5).reshape(3, 2, 5) % 4
    close(torch.gather(x, 1, at), np.take_along_axis(a, at.numpy(), 1))
    check_gradients(lambda v: torch.gather(v, 1, at), x)
    mask = x > 0
    close(torch.masked_select(x, mask), a[a > 0])
    close(x.masked_fill(mask, 7.0), np.where(a > 0, 7, a))
    check_gradients(lambda v: v.masked_fill(mask, 7.0), x)
    y = rand(4, 1)
    close(torch.where(mask, x, y), np.where(a > 0, a, y.numpy()))
    check_gradients(lambda u, v: torch.where(mask, u, v), x, y)
    assert torch.nonzero(torch.tensor([[0, 1], [2, 0]])).tolist() == [[0, 1], [1, 0]]


def test_scatter_and_add():
    x, src = rand(3, 4), rand(2, 4)
    i = torch.tensor([2, 0])
    expected = x.numpy().copy()
    np.add.at(expected, [2, 0], src.numpy())
    close(x.index_add(0, i, src), expected)
    check_gradients(lambda u, v: u.index_add(0, i, v), x, src)
    at = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2]])
    expected = x.numpy().copy()
    for r, c in itertools.product(range(2), range(4)):
        expected[at[r, c].item(), c] += src.numpy()[r, c]
    close(x.scatter_add(0, at, src), expected)
    check_gradients(lambda u, v: u.scatter_add(0, at, v), x, src)
    one_hot = torch.zeros(3, 4).scatter_(1, torch.tensor([[2], [0], [3]]), 1.0)
    assert one_hot.argmax(1).tolist() == [2, 0, 3]


def test_embedding():
    w, i = rand(5, 3), torch.tensor([[1, 4], [1, 0]])
    close(F.embedding(i, w), w.numpy()[i.numpy()])
    check_gradients(lambda v: F.embedding(i, v), w)


def test_cat_stack_split():
    a, b = rand(2, 3), rand(2, 1)
    close(torch.cat([a, b], 1), np.concatenate([a.numpy(), b.numpy()], 1))
    close(torch.stack([a, a + 1], -1), np.stack([a.numpy(), a.numpy() + 1], -1))
    check_gradients(lambda u, v: torch.cat([u, v, u], 1), a, b)
    check_gradients(lambda u: torch.stack([u, 2 * u], 1), a)
    assert [p.shape[1] for p in rand(2, 7).split(3, 1)] == [3, 3, 1]
    assert [p.shape[0] for p in rand(7, 2).chunk(3)] == [3, 3, 1]
    assert [p.tolist() for p in torch.arange(6).split([1, 2, 3])] == [[0], [1, 2], [3, 4, 5]]
    check_gradients(lambda u: sum(p.pow(i + 2).sum() for i, p in enumerate(u.split(2, 1))).reshape(1), rand(2, 5))
    assert torch.cat([torch.ones(2, dtype=torch.int32), torch.ones(1)]).dtype == torch.float32


@pytest.mark.parametrize("f", [
    lambda x: x.view(4, 6), lambda x: x.reshape(-1), lambda x: x.permute(2, 0, 1), lambda x: x.transpose(0, 2),
    lambda x: x.unsqueeze(1), lambda x: x[:, 1:, ::2], lambda x: x.expand(5, 2, 3, 4), lambda x: x.flatten(1),
    lambda x: x.narrow(2, 1, 2), lambda x: x.select(1, 2), lambda x: x.diagonal(0, 1, 2), lambda x: x.flip(0, 2),
    lambda x: x.roll(1, 2), lambda x: x.repeat(2, 1, 1), lambda x: x.tril(), lambda x: x.triu(1),
    lambda x: x.movedim(0, 2), lambda x: x.unflatten(2, (2, 2)), lambda x: x.contiguous().squeeze(), lambda x: x.clone(),
    lambda x: F.pad(x, (1, 2, 0, 1)), lambda x: x.cumsum(1), lambda x: x.sort(2).values, lambda x: x.topk(2).values,
    lambda x: x.unfold(2, 2, 1), lambda x: x.repeat_interleave(2, 1), lambda x: x.mean((0, 2)),
])  # fmt: skip
def test_gradient_of_shape_functions(f):
    check_gradients(f, rand(2, 3, 4), second=False)


# --- creation ---------------------------------------------------------------------------------------------------------
def test_creation():
    assert torch.arange(2, 11, 3).tolist() == [2, 5, 8]
    assert torch.arange(1.0, 0.0, -0.25).tolist() == [1.0, 0.75, 0.5, 0.25]
    close(torch.linspace(-1, 2, 7, dtype=F64), np.linspace(-1, 2, 7))
    close(torch.logspace(0, 2, 3, dtype=F64), [1, 10, 100])
    assert torch.full((2,), 3).dtype == torch.int64
    assert torch.empty(2, 3, dtype=torch.int8).dtype == torch.int8
    assert torch.ones_like(torch.zeros(2, dtype=F64)).dtype == F64
    assert torch.zeros(2).new_full((3,), 5).tolist() == [5, 5, 5]
    assert torch.tensor([[1, 2.5], [True, 4]]).dtype == torch.float32
    assert torch.tensor(np.arange(3)).dtype == torch.int64
    assert torch.as_tensor([1, 2]).tolist() == [1, 2]
    assert [t.tolist() for t in torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")] == [
        [[0, 0], [1, 1]], [[0, 1], [0, 1]],
    ]  # fmt: skip


# --- random numbers ---------------------------------------------------------------------------------------------------
def test_distributions():
    """Moments and quantiles of a million draws, within five standard errors."""
    n = 1_000_000
    u, z = torch.rand(n, dtype=F64), torch.randn(n, dtype=F64)
    assert u.mean().item() == pytest.approx(0.5, abs=5 * 0.289 / 1000)
    assert u.var().item() == pytest.approx(1 / 12, rel=0.005)
    assert z.mean().item() == pytest.approx(0, abs=5 / 1000)
    assert z.var().item() == pytest.approx(1, abs=5 * math.sqrt(2) / 1000)
    assert (z**4).mean().item() == pytest.approx(3, abs=5 * math.sqrt(96) / 1000)
    assert (z.abs() > 1.959964).double().mean().item() == pytest.approx(0.05, abs=5 * 0.000218)
    f = torch.rand(n)
    assert 0 <= f.min().item() and f.max().item() < 1
    k = torch.randint(3, 9, (n,))
    assert (k.min().item(), k.max().item()) == (3, 8)
    np.testing.assert_allclose(np.bincount(k.numpy())[3:] / n, 1 / 6, atol=5 * 0.00038)
    assert torch.randperm(1000).sort().values.tolist() == list(range(1000))
    assert torch.bernoulli(torch.full((n,), 0.3)).mean().item() == pytest.approx(0.3, abs=5 * 0.00046)
    x = torch.empty(n).uniform_(-2, 6)
    assert x.mean().item() == pytest.approx(2, abs=0.015)
    assert torch.empty(n).normal_(3, 0.5).std().item() == pytest.approx(0.5, rel=0.005)


def test_neighbours_are_uncorrelated():
    z = torch.randn(1_000_000, dtype=F64)
    for lag in (1, 2, 4, 16, 64, 256):
        assert abs((z[lag:] * z[:-lag]).mean().item()) < 5e-3


def test_seeds_and_generators():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    a = torch.randn(7)
    torch.set_rng_state(state)
    assert torch.equal(torch.randn(7), a)
    assert not torch.equal(torch.randn(7), a)
    g = torch.Generator().manual_seed(5)
    assert torch.equal(torch.randn(7, generator=g), a)
    assert torch.initial_seed() == 5


def test_dropout_gradient_uses_the_same_mask():
    x = torch.ones(1000, requires_grad=True)
    y = F.dropout(x, 0.3)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


# --- subclassing ------------------------------------------------------------------------------------------------------
def test_tensors_take_attributes_and_subclasses():
    class Named(torch.Tensor):
        def double_it(self):
            return self * 2

    x = torch.ones(2).as_subclass(Named)
    assert isinstance(x, torch.Tensor) and x.double_it().tolist() == [2, 2]
    y = torch.ones(2)
    y.label = "here"
    assert y.label == "here"
    torch.Tensor.triple = lambda self: self * 3
    try:
        assert y.triple().tolist() == [3, 3]
    finally:
        del torch.Tensor.triple
    p = torch.nn.Parameter(torch.ones(2)) if hasattr(torch, "nn") else None
    assert p is None or (p.requires_grad and type(p).__name__ == "Parameter")


def test_pickle_and_copy():
    import copy
    import pickle

    x = torch.arange(6.0).reshape(2, 3).t()
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), copy.copy(x)):
        assert y.tolist() == x.tolist() and y.dtype == x.dtype
    w = torch.ones(2, requires_grad=True)
    v = copy.deepcopy(w)
    assert v.requires_grad and v.is_leaf and v is not w
    with pytest.raises(RuntimeError):
        copy.deepcopy(w * 2)
