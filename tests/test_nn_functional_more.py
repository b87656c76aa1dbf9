"""`nn.functional` beyond the common layers: values against NumPy, SciPy and brute force, layouts, dtypes, bad input.

Gradients of first and second order are in `test_second_order.py`.
"""

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import ndimage, spatial
from subject import F, torch

RNG = np.random.default_rng(0)


def near(got, want, tol=1e-10):
    got = got.detach()
    assert tuple(got.shape) == np.shape(want)
    np.testing.assert_allclose(got.double().numpy(), want, rtol=tol, atol=tol)


def rand(*shape):
    return RNG.standard_normal(shape)


def tensor(a):
    return torch.from_numpy(np.array(a))


# ---- interpolation -------------------------------------------------------------------------------


def matrix(n, out, mode, align, scale=None, antialias=False):
    """The dense matrix of one dimension, element by element from the definitions."""
    m = np.zeros((out, n))
    step = 1 / scale if scale else n / out
    if align and mode not in ("nearest", "nearest-exact"):
        step = (n - 1) / (out - 1) if out > 1 else 0.0
    for o in range(out):
        at = step * o if align else step * (o + 0.5) - 0.5
        if antialias:
            a, reach = -0.5, {"linear": 1, "cubic": 2, "lanczos": 3}[mode]
            wide, centre = max(step, 1.0), step * (o + 0.5)
            low, high = int(max(centre - reach * wide + 0.5, 0)), int(min(centre + reach * wide + 0.5, n))
            w = [kernel(mode, (i - centre + 0.5) / wide, a) for i in range(low, high)]
            m[o, low:high] = np.array(w) / sum(w)
        elif mode == "nearest":
            m[o, min(int(step * o), n - 1)] = 1
        elif mode == "nearest-exact":
            m[o, min(int(step * (o + 0.5)), n - 1)] = 1
        elif mode == "linear":
            at = min(max(at, 0), n - 1)
            i = int(at)
            m[o, i] += 1 - (at - i)
            m[o, min(i + 1, n - 1)] += at - i
        else:
            i = math.floor(at)
            for k in range(i - 1, i + 3):
                m[o, min(max(k, 0), n - 1)] += kernel("cubic", at - k, -0.75)
    return m


def kernel(mode, x, a):
    x = abs(x)
    if mode == "linear":
        return max(0.0, 1 - x)
    if mode == "lanczos":
        return float(np.sinc(x) * np.sinc(x / 3)) if x < 3 else 0.0
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resampled(x, sizes, mode, align=False, scales=None, antialias=False):
    for d, out in enumerate(sizes):
        m = matrix(x.shape[2 + d], out, mode, align, scales and scales[d], antialias)
        x = np.moveaxis(np.tensordot(m, x, (1, 2 + d)), 0, 2 + d)
    return x


MODES = [(1, "linear"), (2, "bilinear"), (3, "trilinear"), (2, "bicubic")]
MODES += [(n, m) for n in (1, 2, 3) for m in ("nearest", "nearest-exact")]


def plain(mode):
    return {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}.get(mode, mode)


@pytest.mark.parametrize("n, mode", MODES)
@pytest.mark.parametrize("size", [(3, 11, 2), (9, 4, 6), (1, 1, 1), (5, 7, 6)])
def test_interpolate_to_a_size(n, mode, size):
    x = rand(2, 3, 5, 7, 6)[(..., *[0] * (3 - n))]
    for align in (None,) if "nearest" in mode else (False, True):
        got = F.interpolate(tensor(x), size[:n], mode=mode, align_corners=align)
        near(got, resampled(x, size[:n], plain(mode), align))


@pytest.mark.parametrize("n, mode", MODES)
def test_interpolate_by_a_factor(n, mode):
    x = rand(1, 2, 5, 7, 6)[(..., *[0] * (3 - n))]
    scales = (1.7, 0.6, 2.0)[:n]
    sizes = [int(s * f) for s, f in zip(x.shape[2:], scales, strict=True)]
    got = F.interpolate(tensor(x), scale_factor=scales, mode=mode)
    near(got, resampled(x, sizes, plain(mode), scales=scales))
    got = F.interpolate(tensor(x), scale_factor=scales, mode=mode, recompute_scale_factor=True)
    near(got, resampled(x, sizes, plain(mode)))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(3, 4), (20, 5), (9, 8)])
def test_antialias(mode, size):
    x = rand(2, 2, 9, 8)
    got = F.interpolate(tensor(x), size, mode=mode, antialias=True)
    near(got, resampled(x, size, plain(mode), antialias=True))


@pytest.mark.pyrite
def test_lanczos():
    x = rand(1, 2, 11, 9)
    got = F.interpolate(tensor(x), (4, 13), mode="lanczos", antialias=True)
    near(got, resampled(x, (4, 13), "lanczos", antialias=True))


def test_area_is_a_mean():
    x = rand(2, 3, 6, 8)
    near(F.interpolate(tensor(x), (3, 2), mode="area"), x.reshape(2, 3, 3, 2, 2, 4).mean((3, 5)))
    near(F.interpolate(tensor(x), scale_factor=0.5, mode="area"), x.reshape(2, 3, 3, 2, 4, 2).mean((3, 5)))


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_bytes(mode, antialias):
    if antialias and mode == "nearest":
        pytest.skip("has no filter")
    x = RNG.integers(0, 256, (2, 3, 9, 8), dtype=np.uint8)
    # Rounded after each dimension, the width first.
    want = x.astype(float)
    for d, out in ((3, 12), (2, 5)):
        m = matrix(want.shape[d], out, plain(mode), False, None, antialias)
        want = np.moveaxis(np.tensordot(m, want, (1, d)), 0, d).round().clip(0, 255)
    got = F.interpolate(tensor(x), (5, 12), mode=mode, antialias=antialias)
    assert got.dtype == torch.uint8
    assert np.abs(got.numpy().astype(int) - want).max() <= 2


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
def test_layouts_and_halves_of_interpolate(mode):
    x = tensor(rand(2, 4, 6, 10).astype(np.float32))
    want = F.interpolate(x, (9, 5), mode=mode)
    for same in (
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
        torch.stack([x, x], -1)[..., 1],
        x.flip(3).flip(3),
    ):
        got = F.interpolate(same, (9, 5), mode=mode)
        near(got, want.numpy(), 1e-6)
        if same.is_contiguous(memory_format=torch.channels_last):
            assert got.is_contiguous(memory_format=torch.channels_last)
    near(F.interpolate(x.half(), (9, 5), mode=mode), F.interpolate(x.half().float(), (9, 5), mode=mode).numpy(), 2e-3)
    one = F.interpolate(x[:1].expand(3, -1, -1, -1), (9, 5), mode=mode)
    near(one, np.repeat(want[:1].numpy(), 3, 0), 1e-6)
    assert F.interpolate(x[:0], (9, 5), mode=mode).shape == (0, 4, 9, 5)


def test_interpolate_in_pieces_equals_the_whole():
    """Large enough for several threads and chunks."""
    x = tensor(rand(3, 5, 60, 70))
    whole = F.interpolate(x, (130, 41), mode="bilinear")
    for n, c in itertools.product(range(3), range(5)):
        assert torch.equal(F.interpolate(x[n : n + 1, c : c + 1], (130, 41), mode="bilinear")[0, 0], whole[n, c])


def test_upsample_names():
    x = tensor(rand(1, 2, 3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        near(F.upsample(x, scale_factor=2), F.interpolate(x, scale_factor=2).numpy())
        near(F.upsample_nearest(x, (5, 5)), F.interpolate(x, (5, 5)).numpy())
        want = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        near(F.upsample_bilinear(x, scale_factor=2), want.numpy())


# ---- sampling grids ------------------------------------------------------------------------------


def sampled(x, grid, mode, border, align):
    """SciPy's spline sampling, orders 0 and 1."""
    sizes = np.array(x.shape[2:])
    at = grid[..., ::-1]
    at = (at + 1) / 2 * (sizes - 1) if align else ((at + 1) * sizes - 1) / 2
    out = np.empty((*x.shape[:2], *grid.shape[1:-1]))
    kind = {"zeros": "grid-constant", "border": "nearest", "reflection": "mirror" if align else "reflect"}[border]
    for n, c in itertools.product(range(x.shape[0]), range(x.shape[1])):
        places = np.moveaxis(at[n], -1, 0)
        if mode == "nearest":
            # Ties are the one thing where conventions differ.
            places = np.round(places) if border == "zeros" else places
        order = 0 if mode == "nearest" else 1
        out[n, c] = ndimage.map_coordinates(x[n, c], places, order=order, mode=kind, cval=0.0)
    return out


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("border", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
def test_grid_sample(n, mode, border, align):
    x, grid = rand(2, 3, *(5, 6, 4)[:n]), rand(2, *(4, 3, 5)[:n], n) * 1.5
    near(F.grid_sample(tensor(x), tensor(grid), mode, border, align), sampled(x, grid, mode, border, align))


@pytest.mark.parametrize("border", ["zeros", "border", "reflection"])
def test_grid_sample_bicubic(border):
    x, grid = rand(1, 2, 5, 6), rand(1, 3, 4, 2) * 1.3
    pad = 60
    kind = {"zeros": "constant", "border": "edge", "reflection": "symmetric"}[border]
    wide = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), kind)
    want = np.zeros((1, 2, 3, 4))
    for i, j in itertools.product(range(3), range(4)):
        col, row = ((grid[0, i, j] + 1) * (6, 5) - 1) / 2
        r0, c0 = math.floor(row), math.floor(col)
        for r, c in itertools.product(range(r0 - 1, r0 + 3), range(c0 - 1, c0 + 3)):
            w = kernel("cubic", row - r, -0.75) * kernel("cubic", col - c, -0.75)
            want[0, :, i, j] += w * wide[0, :, r + pad, c + pad]
    near(F.grid_sample(tensor(x), tensor(grid), "bicubic", border, False), want)


def test_grid_sample_of_nothing_sensible():
    grid = torch.tensor([[[[float("nan"), 0.0], [float("inf"), 0.0], [-1e30, 5.0]]]])
    y = F.grid_sample(torch.ones(1, 1, 4, 4), grid, align_corners=False)
    assert y.shape == (1, 1, 1, 3)
    assert torch.equal(y[..., 1:], torch.zeros(1, 1, 1, 2))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("n", [2, 3])
def test_affine_grid_of_the_identity_reads_the_image(n, align):
    x = tensor(rand(2, 3, *(4, 5, 6)[:n]))
    eye = torch.eye(n, n + 1, dtype=torch.float64).expand(2, n, n + 1)
    near(F.grid_sample(x, F.affine_grid(eye, x.shape, align), align_corners=align), x.numpy())


def test_affine_grid():
    theta = rand(2, 2, 3)
    ys, xs = (np.arange(4) * 2 + 1) / 4 - 1, (np.arange(5) * 2 + 1) / 5 - 1
    base = np.stack([*np.meshgrid(xs, ys), np.ones((4, 5))], -1)
    near(F.affine_grid(tensor(theta), (2, 1, 4, 5), False), np.einsum("hwk,njk->nhwj", base, theta))


# ---- sliding windows -----------------------------------------------------------------------------


def windows(x, kernel, dilation, pad, stride):
    """(N, C, spatial...) -> (N, C, kernel..., positions...)"""
    n = len(kernel)
    x = np.pad(x, [(0, 0), (0, 0)] + [(p, p) for p in pad])
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    v = np.lib.stride_tricks.sliding_window_view(x, extent, tuple(range(2, 2 + n)))
    v = v[(slice(None), slice(None), *(slice(None, None, s) for s in stride))]
    v = v[(..., *(slice(None, None, d) for d in dilation))]
    return np.moveaxis(v, range(2 + n, 2 + 2 * n), range(2, 2 + n))


GEOMETRIES = [((2, 3), (1, 1), (0, 0), (1, 1)), ((3, 2), (2, 1), (1, 2), (2, 3)), ((1, 1), (1, 1), (0, 0), (2, 2))]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_unfold_and_fold(geometry):
    x = rand(2, 3, 6, 7)
    want = windows(x, *geometry)
    cols = F.unfold(tensor(x), *geometry)
    near(cols, want.reshape(2, 3 * math.prod(geometry[0]), -1))
    near(F.unfold(tensor(x[0]), *geometry), cols[0].numpy())
    # Folding counts how often each pixel is in a window.
    index = np.arange(42.0).reshape(1, 1, 6, 7) + 1
    total = np.zeros(43)
    np.add.at(total, windows(index, *geometry).astype(int).ravel(), windows(x[:1, :1], *geometry).ravel())
    near(F.fold(cols, (6, 7), *geometry)[0, 0], total[1:].reshape(6, 7))


@pytest.mark.parametrize("dtype", ["bool", "int64", "float16", "float32", "complex64"])
def test_dtypes_of_unfold(dtype):
    if dtype == "int64":
        pytest.importorskip("pyrite")
        if torch.__name__ != "pyrite":
            pytest.skip("floats only there")
    x = (rand(1, 2, 4, 5) * 4).astype(dtype)
    got = F.unfold(tensor(x), (2, 2), padding=1)
    want = windows(x, (2, 2), (1, 1), (1, 1), (1, 1)).reshape(1, 8, -1)
    assert np.array_equal(got.numpy(), want)


# ---- embeddings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 2, -1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_embedding_bag(mode, padding, dtype):
    w = rand(7, 4).astype(dtype)
    index = RNG.integers(0, 7, 10)
    starts = [0, 3, 3, 8]
    want = np.zeros((4, 4))
    for b, (s, e) in enumerate(zip(starts, [*starts[1:], 10], strict=True)):
        rows = [w[i] for i in index[s:e] if padding is None or i != padding % 7]
        if rows:
            want[b] = getattr(np, mode)(rows, 0)
    got = F.embedding_bag(tensor(index), tensor(w), torch.tensor(starts), mode=mode, padding_idx=padding)
    near(got, want, 1e-6)
    got = F.embedding_bag(
        tensor(index), tensor(w), torch.tensor([*starts, 10]), mode=mode, padding_idx=padding, include_last_offset=True
    )
    near(got, want, 1e-6)
    # int32 indices, a transposed weight, bags of one length
    got = F.embedding_bag(tensor(index.astype(np.int32)).reshape(2, 5), tensor(w.T.copy()).t(), mode=mode)
    near(got, getattr(np, mode)(w[index.reshape(2, 5)], 1), 1e-6)


def test_embedding_bag_weights_and_norm():
    w, p, index = rand(5, 3), rand(2, 4), RNG.integers(0, 5, (2, 4))
    got = F.embedding_bag(tensor(index), tensor(w), mode="sum", per_sample_weights=tensor(p))
    near(got, np.einsum("bl,bld->bd", p, w[index]))
    table = tensor(w)
    F.embedding_bag(torch.tensor([[0, 1]]), table, max_norm=0.5)
    norms = np.linalg.norm(table.numpy(), axis=1)
    assert (norms[:2] <= 0.5 + 1e-6).all() and np.array_equal(table.numpy()[2:], w[2:])


def test_frequency_scales_the_gradient():
    w = torch.ones(4, 2, dtype=torch.float64, requires_grad=True)
    F.embedding(torch.tensor([1, 1, 3]), w, scale_grad_by_freq=True).sum().backward()
    near(w.grad[:, 0], [0, 1, 0, 1])


# ---- pooling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
def test_max_unpool(n):
    x = tensor(rand(2, 3, *(6, 8, 4)[:n]))
    pool, unpool = getattr(F, f"max_pool{n}d"), getattr(F, f"max_unpool{n}d")
    y, at = pool(x, 2, return_indices=True)
    z = unpool(y, at, 2)
    assert z.shape == x.shape
    assert torch.equal(torch.where(z != 0, x, 0), z)
    assert (z != 0).sum().item() == y.numel()
    assert torch.equal(unpool(y[0], at[0], 2), z[0])
    near(unpool(y, at, 2, output_size=[s + 1 for s in x.shape[2:]]).sum(), y.sum().numpy())


def test_max_unpool_of_overlapping_windows_does_not_add():
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1] = 7.0
    y, at = F.max_pool2d(x, 2, 1, return_indices=True)
    assert torch.equal(F.max_unpool2d(y, at, 2, 1), x)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_adaptive_max_pool(n):
    x = rand(2, 2, *(5, 7, 6)[:n])
    sizes = (3, 2, 4)[:n]
    got, at = getattr(F, f"adaptive_max_pool{n}d")(tensor(x), sizes, return_indices=True)
    want = np.empty((2, 2, *sizes))
    for o in itertools.product(*map(range, sizes)):
        cut = tuple(slice(i * s // m, -(-(i + 1) * s // m)) for i, s, m in zip(o, x.shape[2:], sizes, strict=True))
        want[(..., *o)] = x[(..., *cut)].reshape(2, 2, -1).max(-1)
    near(got, want)
    near(tensor(x).flatten(2).gather(2, at.flatten(2)).reshape(got.shape), want)


@pytest.mark.parametrize("n", [2, 3])
def test_fractional_max_pool(n):
    shape, kernel, sizes = (2, 3, *(9, 8, 10)[:n]), (2, 3, 2)[:n], (4, 3, 5)[:n]
    x, u = rand(*shape), RNG.random((2, 3, n))
    pool = getattr(F, f"fractional_max_pool{n}d")
    got, at = pool(tensor(x), kernel, output_size=sizes, return_indices=True, _random_samples=tensor(u))
    for b, c in itertools.product(range(2), range(3)):
        starts = []
        for d in range(n):
            room, s = shape[2 + d] - kernel[d], u[b, c, 1 - d if n == 2 else d]
            alpha = room / (sizes[d] - 1)
            starts.append([int((i + s) * alpha) - int(s * alpha) for i in range(sizes[d] - 1)] + [room])
        for o in itertools.product(*map(range, sizes)):
            cut = tuple(slice(starts[d][i], starts[d][i] + kernel[d]) for d, i in enumerate(o))
            assert got[(b, c, *o)].item() == x[(b, c, *cut)].max()
    near(tensor(x).flatten(2).gather(2, at.flatten(2)).reshape(got.shape), got.numpy())
    assert pool(tensor(x), kernel, output_ratio=0.5).shape[2:] == tuple(s // 2 for s in shape[2:])


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("p", [1, 2, 3.0, float("inf")])
def test_lp_pool(n, p):
    x = np.abs(rand(2, 2, *(4, 6, 2)[:n]))
    got = getattr(F, f"lp_pool{n}d")(tensor(x), p, 2)
    v = windows(x, (2,) * n, (1,) * n, (0,) * n, (2,) * n)
    near(
        got,
        np.linalg.norm(v.reshape(2, 2, 2**n, *v.shape[2 + n :]), p, 2)
        if p != 3
        else (v**3).sum(tuple(range(2, 2 + n))) ** (1 / 3),
    )


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("stride, pad", [(None, 0), (1, 1), (2, 1)])
def test_pooling_of_integers(n, stride, pad):
    x = RNG.integers(-9, 9, (2, 3, *(5, 7, 6)[:n]))
    kernel, s = (3,) * n, (stride or 3,) * n
    low = np.pad(x, [(0, 0)] * 2 + [(pad, pad)] * n, constant_values=-100)
    v = windows(low, kernel, (1,) * n, (0,) * n, s)
    dims = tuple(range(2, 2 + n))
    got, at = getattr(F, f"max_pool{n}d")(tensor(x), 3, stride, pad, return_indices=True)
    assert np.array_equal(got.numpy(), v.max(dims))
    assert torch.equal(tensor(x).flatten(2).gather(2, at.flatten(2)).reshape(got.shape), got)
    sums = windows(x, kernel, (1,) * n, (pad,) * n, s).sum(dims)
    got = getattr(F, f"avg_pool{n}d")(tensor(x), 3, stride, pad)
    assert np.array_equal(got.numpy(), np.trunc(sums / 3**n).astype(int))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_of_integers(n, groups):
    x, w = RNG.integers(-5, 5, (2, 4, *(5, 6, 4)[:n])), RNG.integers(-3, 3, (6, 4 // groups, *(2, 3, 2)[:n]))
    b = RNG.integers(-9, 9, 6)
    v = windows(x, w.shape[2:], (1,) * n, (1,) * n, (2,) * n)
    want = []
    for g in range(groups):
        own = v[:, g * 4 // groups : (g + 1) * 4 // groups]
        axes = tuple(range(1, 2 + n))
        want.append(np.moveaxis(np.tensordot(own, w[g * 6 // groups : (g + 1) * 6 // groups], (axes, axes)), -1, 1))
    want = np.concatenate(want, 1) + b.reshape(-1, *[1] * n)
    got = getattr(F, f"conv{n}d")(tensor(x), tensor(w), tensor(b), 2, 1, 1, groups)
    assert np.array_equal(got.numpy(), want)
    # The transposed convolution is the adjoint.
    y = RNG.integers(-5, 5, want.shape)
    extra = tuple((s + 2 - k) % 2 for s, k in zip(x.shape[2:], w.shape[2:], strict=True))
    back = getattr(F, f"conv_transpose{n}d")(tensor(y), tensor(w), None, 2, 1, extra, groups)
    assert back.shape == x.shape
    assert (back.numpy() * x).sum() == (y * (want - b.reshape(-1, *[1] * n))).sum()


# ---- losses and distances ------------------------------------------------------------------------


def ctc_by_enumeration(lp, labels):
    """Minus the log of the sum over all paths that collapse to the labels."""
    total = -np.inf
    for path in itertools.product(range(lp.shape[1]), repeat=len(lp)):
        if [k for k, _ in itertools.groupby(path) if k != 0] == list(labels):
            total = np.logaddexp(total, sum(lp[t, k] for t, k in enumerate(path)))
    return -total


def test_ctc_loss():
    x = rand(5, 4, 3)
    lp = x - np.log(np.exp(x).sum(2, keepdims=True))
    labels = [[1, 2], [1, 1], [2], []]
    times = [5, 4, 3, 2]
    want = np.array([ctc_by_enumeration(lp[:t, n], l) for n, (t, l) in enumerate(zip(times, labels, strict=True))])
    padded = torch.tensor([l + [0] * (2 - len(l)) for l in labels])
    lengths = [len(l) for l in labels]
    near(F.ctc_loss(tensor(lp), padded, times, lengths, reduction="none"), want)
    joined = torch.tensor(list(itertools.chain(*labels)))
    near(F.ctc_loss(tensor(lp), joined, torch.tensor(times), torch.tensor(lengths), reduction="sum"), want.sum())
    near(F.ctc_loss(tensor(lp), padded, tuple(times), tuple(lengths)), (want / np.maximum(lengths, 1)).mean())
    near(F.ctc_loss(tensor(lp[:, 0]), padded[0], torch.tensor(5), torch.tensor(2), reduction="none"), want[0])
    # Another blank
    turned = tensor(lp[..., [1, 2, 0]])
    near(F.ctc_loss(turned, (padded - 1).clamp_min(0), times, lengths, blank=2, reduction="none"), want)


def test_ctc_of_impossible_alignments():
    x = torch.zeros(2, 1, 3, requires_grad=True)
    args = (torch.tensor([[1, 1]]), (2,), (2,))
    assert F.ctc_loss(x.log_softmax(2), *args).item() == float("inf")
    y = F.ctc_loss(x.log_softmax(2), *args, zero_infinity=True)
    y.backward()
    assert y.item() == 0 and torch.equal(x.grad, torch.zeros(2, 1, 3))


@pytest.mark.parametrize("p", [0.0, 1.0, 1.5, 2.0, float("inf")])
def test_pdist(p):
    x = rand(6, 3)
    want = {0: "hamming", 1: "cityblock", 2: "euclidean"}.get(p, "chebyshev")
    if p == 1.5:
        want = spatial.distance.pdist(x, "minkowski", p=1.5)
    else:
        want = spatial.distance.pdist(x, want) * (3 if p == 0 else 1)
    near(F.pdist(tensor(x), p), want)
    assert F.pdist(tensor(x[:1])).shape == (0,)


def test_linear_cross_entropy():
    x, w, b, t = rand(4, 3), rand(5, 3), rand(5), np.array([1, 0, 4, 2])
    logits = x @ w.T + b
    lse = np.log(np.exp(logits).sum(1))
    want = lse - logits[np.arange(4), t]
    args = (tensor(x), tensor(w), tensor(t))
    near(F.linear_cross_entropy(*args, linear_bias=tensor(b), reduction="none"), want)
    near(F.linear_cross_entropy(*args, linear_bias=tensor(b), ignore_index=4), want[[0, 1, 3]].mean())
    near(F.linear_cross_entropy(tensor(x[0]), tensor(w), torch.tensor(1), linear_bias=tensor(b)), want[0])
    wide = rand(5, 2, 3)
    t2 = RNG.integers(0, 5, (4, 2))
    logits = np.einsum("nf,cdf->ncd", x, wide)
    want = np.log(np.exp(logits).sum(1)) - np.take_along_axis(logits, t2[:, None], 1)[:, 0]
    near(F.linear_cross_entropy(tensor(x), tensor(wide), tensor(t2)), want.mean())


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_multi_margin_loss(p, reduction):
    x, y, w = rand(4, 5), RNG.integers(0, 5, 4), RNG.random(5)
    rows = []
    for r, t in zip(x, y, strict=True):
        rows.append(sum(w[t] * max(0.0, 0.7 - r[t] + r[j]) ** p for j in range(5) if j != t) / 5)
    want = {"none": np.array(rows), "mean": np.mean(rows), "sum": np.sum(rows)}[reduction]
    near(F.multi_margin_loss(tensor(x), tensor(y), p, 0.7, tensor(w), reduction=reduction), want)
    near(F.multi_margin_loss(tensor(x[0]), tensor(y[0]), p, 0.7, tensor(w)), rows[0])


def test_multilabel_margin_loss():
    x, y = rand(2, 4), np.array([[3, 0, -1, 1], [2, -1, 0, 1]])
    rows = []
    for r, own in zip(x, [[3, 0], [2]], strict=True):
        rows.append(sum(max(0.0, 1 - (r[j] - r[i])) for j in own for i in range(4) if i not in own) / 4)
    near(F.multilabel_margin_loss(tensor(x), tensor(y), reduction="none"), np.array(rows))
    near(F.multilabel_margin_loss(tensor(x[0]), tensor(y[0])), rows[0])


# ---- attention -----------------------------------------------------------------------------------


def attention(q, k, v, heads, w, b, wo, bo, mask):
    """(L, N, E) and (S, N, E) by loops over batch and heads."""
    e = q.shape[-1]
    d = e // heads
    pq, pk, pv = (t @ w[i * e : (i + 1) * e].T + b[i * e : (i + 1) * e] for i, t in enumerate((q, k, v)))
    out, weights = np.empty_like(pq), np.empty((q.shape[1], heads, q.shape[0], k.shape[0]))
    for n, h in itertools.product(range(q.shape[1]), range(heads)):
        cut = slice(h * d, (h + 1) * d)
        s = pq[:, n, cut] @ pk[:, n, cut].T / math.sqrt(d) + mask[n, h]
        p = np.exp(s - s.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        out[:, n, cut], weights[n, h] = p @ pv[:, n, cut], p
    return out @ wo.T + bo, weights


@pytest.mark.parametrize("masks", ["none", "causal", "padding", "both", "per head"])
@pytest.mark.parametrize("weights", [True, False])
def test_multi_head_attention(masks, weights):
    q, k, v = rand(4, 2, 6), rand(5, 2, 6), rand(5, 2, 6)
    w, b, wo, bo = rand(18, 6), rand(18), rand(6, 6), rand(6)
    mask = np.zeros((2, 3, 4, 5))
    attn = padding = None
    if masks in ("causal", "both"):
        attn = np.triu(np.ones((4, 5), bool), 1)
        mask[:, :, attn] = -np.inf
    if masks in ("padding", "both"):
        padding = np.array([[False] * 5, [False] * 3 + [True] * 2])
        mask[1, :, :, 3:] = -np.inf
    if masks == "per head":
        attn = rand(6, 4, 5)
        mask += attn.reshape(2, 3, 4, 5)
    want, shares = attention(q, k, v, 3, w, b, wo, bo, mask)
    args = [tensor(a) for a in (q, k, v)]
    rest = [tensor(w), tensor(b), None, None, False, 0.0, tensor(wo), tensor(bo)]
    kw = {"attn_mask": None if attn is None else tensor(attn), "need_weights": weights}
    kw["key_padding_mask"] = None if padding is None else tensor(padding)
    got, p = F.multi_head_attention_forward(*args, 6, 3, *rest, **kw)
    near(got, want)
    if not weights:
        assert p is None
        return
    near(p, shares.mean(1))
    _, p = F.multi_head_attention_forward(*args, 6, 3, *rest, **kw, average_attn_weights=False)
    near(p, shares)
    if masks in ("none", "causal"):
        one, p = F.multi_head_attention_forward(*[a[:, 0] for a in args], 6, 3, *rest, **kw)
        near(one, want[:, 0])
        near(p, shares.mean(1)[0])


def test_multi_head_attention_extras():
    q, k, v = rand(4, 2, 6), rand(5, 2, 3), rand(5, 2, 4)
    wq, wk, wv, b = rand(6, 6), rand(6, 3), rand(6, 4), rand(18)
    bk, bv, wo = rand(1, 1, 6), rand(1, 1, 6), rand(6, 6)
    pq, pk, pv = q @ wq.T + b[:6], k @ wk.T + b[6:12], v @ wv.T + b[12:]
    pk = np.concatenate([pk, bk.repeat(2, 1), np.zeros((1, 2, 6))])
    pv = np.concatenate([pv, bv.repeat(2, 1), np.zeros((1, 2, 6))])
    eye, zero = np.vstack([np.eye(6)] * 3), np.zeros(18)
    want, shares = attention(pq, pk, pv, 2, eye, zero, wo, 0, np.zeros((2, 2, 4, 7)))
    got, p = F.multi_head_attention_forward(
        *map(tensor, (q, k, v)), 6, 2, None, tensor(b), tensor(bk), tensor(bv), True, 0.0, tensor(wo), None,
        use_separate_proj_weight=True, q_proj_weight=tensor(wq), k_proj_weight=tensor(wk), v_proj_weight=tensor(wv),
    )  # fmt: skip
    near(got, want)
    near(p, shares.mean(1))


# ---- bad input -----------------------------------------------------------------------------------

X4 = torch.zeros(1, 2, 4, 4)
LP = torch.zeros(4, 2, 3)
LABELS = torch.ones(2, 2, dtype=torch.int64)
BAD = [
    (lambda: F.interpolate(X4), ValueError, "either size or scale_factor"),
    (lambda: F.interpolate(X4, 2, 2.0), ValueError, "only one of size or scale_factor"),
    (lambda: F.interpolate(X4, (2, 2, 2)), ValueError, "same number of spatial dimensions"),
    (lambda: F.interpolate(X4, 2, mode="linear"), NotImplementedError, "linear mode needs 3D"),
    (lambda: F.interpolate(X4, 2, mode="nearest", align_corners=True), ValueError, "align_corners"),
    (lambda: F.interpolate(X4, 2, mode="nearest", antialias=True), ValueError, "Anti-alias"),
    (lambda: F.interpolate(X4, (0, 2)), RuntimeError, "greater than 0"),
    (lambda: F.interpolate(X4, (1 << 40, 1 << 40)), RuntimeError, ""),
    (lambda: F.interpolate(X4.to(torch.int64), 2), NotImplementedError, "not implemented"),
    (lambda: F.grid_sample(X4, torch.zeros(2, 2, 2, 2)), RuntimeError, "same batch size"),
    (lambda: F.grid_sample(X4, torch.zeros(1, 2, 2, 3)), RuntimeError, "size 2 in last dimension"),
    (lambda: F.grid_sample(X4, torch.zeros(1, 2, 2, 2).double()), RuntimeError, "dtype"),
    (lambda: F.grid_sample(X4, torch.zeros(1, 2, 2, 2), mode="cubic"), ValueError, "mode"),
    (lambda: F.affine_grid(torch.zeros(1, 3, 3), (1, 1, 2, 2)), ValueError, "2D affine"),
    (lambda: F.unfold(X4, 5), RuntimeError, "at least one"),
    (lambda: F.fold(torch.zeros(1, 3, 9), (4, 4), 2), RuntimeError, "divisible"),
    (lambda: F.fold(torch.zeros(1, 4, 8), (4, 4), 2), RuntimeError, "sliding blocks"),
    (lambda: F.max_unpool2d(X4, torch.full((1, 2, 4, 4), 999), 2), RuntimeError, ""),
    (lambda: F.max_unpool2d(X4, torch.zeros(1, 2, 4, 4), 2), RuntimeError, "int64"),
    (lambda: F.max_unpool2d(X4, X4.to(torch.int64), 2, output_size=(20, 20)), ValueError, "invalid output_size"),
    (lambda: F.fractional_max_pool2d(X4, 2), ValueError, "output_size or an output_ratio"),
    (lambda: F.fractional_max_pool2d(X4, 3, output_size=4), RuntimeError, "too large"),
    (lambda: F.embedding_bag(torch.tensor([1, 2]), torch.zeros(3, 2)), ValueError, "offsets"),
    (lambda: F.embedding_bag(torch.tensor([[1, 5]]), torch.zeros(3, 2)), RuntimeError, "5"),
    (lambda: F.embedding_bag(LABELS, torch.zeros(3, 2), mode="min"), ValueError, "mode has to be"),
    (lambda: F.ctc_loss(LP, LABELS, (5, 4), (2, 2)), RuntimeError, "input_lengths"),
    (lambda: F.ctc_loss(LP, LABELS, (4, 4), (3, 2)), RuntimeError, "targets"),
    (lambda: F.ctc_loss(LP, LABELS, (4, 4), (2, 2), blank=3), RuntimeError, "blank"),
    (lambda: F.ctc_loss(LP, LABELS, (4,), (2, 2)), RuntimeError, "batch_size"),
    (lambda: F.pdist(torch.zeros(3)), RuntimeError, "2D"),
    (lambda: F.hardtanh(X4, 1.0, -1.0), ValueError, "min_val"),
    (lambda: F.softshrink(X4, -1.0), RuntimeError, "lambda"),
    (lambda: F.rrelu(X4, 0.5, 0.1), RuntimeError, "bound"),
    (lambda: F.multi_margin_loss(torch.zeros(2, 3), torch.tensor([0, 3])), RuntimeError, "out of range"),
    (lambda: F.linear_cross_entropy(X4, torch.zeros(3, 4), LABELS), RuntimeError, "dimensionality"),
    (lambda: F.adaptive_max_pool2d(X4, (-1, 2)), RuntimeError, ""),
]


@pytest.mark.parametrize("call, error, words", BAD)
def test_bad_input(call, error, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error) as e:
            call()
    assert words in str(e.value)


@pytest.mark.pyrite
def test_labels_out_of_range_are_an_error():
    with pytest.raises(RuntimeError, match="number of classes"):
        F.ctc_loss(LP, LABELS + 5, (4, 4), (2, 2))
    with pytest.raises(RuntimeError, match="offsets"):
        F.embedding_bag(torch.tensor([0, 1]), torch.zeros(3, 2), torch.tensor([0, 9]))


# ---- kernels with a way of their own through memory ----------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(
    "shape, dim", [((5, 40), 0), ((3, 7, 4, 9), 1), ((300, 33), 0), ((2, 5, 130), 1), ((4, 3, 2), 1)]
)
def test_softmax_along_other_dimensions(shape, dim, dtype):
    x = (rand(*shape) * 5).astype(dtype)
    wide = x.astype(float)
    e = np.exp(wide - wide.max(dim, keepdims=True))
    p = e / e.sum(dim, keepdims=True)
    tol = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-12}[dtype]
    t = tensor(x).requires_grad_()
    g = rand(*shape)
    for same in (
        t,
        t.transpose(0, -1).contiguous().transpose(0, -1),
        torch.stack([t, t], -1)[..., 0],
        t.flip(0).flip(0),
    ):
        near(F.softmax(same, dim), p, tol)
        near(F.log_softmax(same, dim), np.log(p), max(tol, 2e-5) if dtype == "float32" else tol * 10)
        if dtype == "float64":
            for f, want in (
                (F.softmax, p * (g - (g * p).sum(dim, keepdims=True))),
                (F.log_softmax, g - p * g.sum(dim, keepdims=True)),
            ):
                (got,) = torch.autograd.grad(f(same, dim), t, tensor(g))
                near(got, want)


def test_softmax_of_infinities_by_columns():
    x = torch.zeros(3, 32)
    x[0, 0], x[:, 1], x[1, 2], x[0, 3] = -math.inf, -math.inf, math.nan, math.inf
    y = F.softmax(x, 0)
    near(y[:, 0], [0, 0.5, 0.5], 1e-6)
    assert torch.isnan(y[:, 1:4]).all() and not torch.isnan(y[:, 4:]).any()


def plain_attention(q, k, v, scale, keep=None, add=0.0):
    s = q @ np.swapaxes(k, -1, -2) * scale + add
    if keep is not None:
        s = np.where(keep, s, -np.inf)
    with np.errstate(invalid="ignore"):
        e = np.exp(s - s.max(-1, keepdims=True))
        return np.nan_to_num(e / e.sum(-1, keepdims=True)) @ v


@pytest.mark.parametrize("lengths", [(3, 5), (5, 3), (200, 200), (1, 70), (520, 700)])
@pytest.mark.parametrize("kind", ["plain", "causal", "bool", "added", "row"])
def test_attention_in_blocks(lengths, kind):
    """The last lengths need several blocks of queries, the others several heads in one."""
    length, keys = lengths
    q, k, v = rand(2, 3, length, 8), rand(2, 3, keys, 8), rand(2, 3, keys, 4)
    kw, ref = {}, {}
    if kind == "causal":
        kw, ref = {"is_causal": True}, {"keep": np.tril(np.ones(lengths, bool))}
    elif kind == "bool":
        keep = RNG.random(lengths) < 0.7
        keep[0] = False
        kw, ref = {"attn_mask": tensor(keep)}, {"keep": keep}
    elif kind in ("added", "row"):
        add = rand(*lengths) if kind == "added" else rand(1, keys)
        kw, ref = {"attn_mask": tensor(add)}, {"add": add}
    ts = [tensor(a).requires_grad_() for a in (q, k, v)]
    y = F.scaled_dot_product_attention(*ts, **kw)
    near(y, plain_attention(q, k, v, 8**-0.5, **ref))
    if kind == "bool":
        return
    # The blocks' gradients against those of the formula in tensor operations.
    g = tensor(rand(*y.shape))
    got = torch.autograd.grad(y, ts, g)
    s = ts[0].matmul(ts[1].transpose(-1, -2)) * 8**-0.5
    if kind == "causal":
        s = s.masked_fill(~tensor(ref["keep"]), -math.inf)
    elif "add" in ref:
        s = s + tensor(ref["add"])
    for a, b in zip(got, torch.autograd.grad(s.softmax(-1).matmul(ts[2]), ts, g), strict=True):
        near(a, b.numpy(), 1e-9)


def test_attention_of_transposed_heads_and_halves():
    x = tensor(rand(2, 6, 3, 8).astype(np.float32))
    q = x.transpose(1, 2)
    want = plain_attention(*[q.double().numpy()] * 3, 0.5)
    near(F.scaled_dot_product_attention(q, q, q, scale=0.5), want, 1e-5)
    h = q.bfloat16()
    got = F.scaled_dot_product_attention(h, h, h, scale=0.5)
    assert got.dtype == torch.bfloat16
    near(got, want, 3e-2)


def test_attention_second_derivatives():
    q = tensor(rand(1, 4, 3)).requires_grad_()
    for kw in ({}, {"is_causal": True}, {"attn_mask": tensor(rand(4, 4))}):
        assert torch.autograd.gradgradcheck(lambda a, kw=kw: F.scaled_dot_product_attention(a, a, a * 2, **kw), (q,))


def test_soft_margin_loss_of_complex_numbers():
    rng = np.random.default_rng(0)
    x, t = (rng.normal(size=4) + 1j * rng.normal(size=4) for _ in range(2))
    got = F.soft_margin_loss(torch.from_numpy(x), torch.from_numpy(t), reduction="none")
    np.testing.assert_allclose(got.numpy(), np.log1p(np.exp(-t * x)), rtol=1e-12)


def test_bilinear_of_integers_stays_in_their_dtype():
    x, y, w = (torch.arange(n, dtype=torch.int32).reshape(s) for n, s in ((6, (2, 3)), (8, (2, 4)), (24, (2, 3, 4))))
    got = F.bilinear(x, y, w)
    assert got.dtype == torch.int32
    np.testing.assert_array_equal(got.numpy(), np.einsum("ni,oij,nj->no", x.numpy(), w.numpy(), y.numpy()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shape, kernel, options", [((2, 3, 9, 21), (3, 3), {"padding": 1}), ((1, 5, 8, 70), (2, 5), {"dilation": 2})]
)
def test_depthwise_gradients_of_expanded_and_dense_seeds(shape, kernel, options, dtype):
    c = shape[1]
    x, w = tensor(rand(*shape)).to(dtype), tensor(rand(c, 1, *kernel)).to(dtype)
    grads = []
    for expanded in (True, False):
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        y = F.conv2d(a, b, groups=c, **options)
        seed = torch.ones((), dtype=dtype).expand(y.shape) if expanded else torch.ones(y.shape, dtype=dtype)
        grads.append(torch.autograd.grad(y, (a, b), seed))
    dil = options.get("dilation", 1)
    pad = options.get("padding", 0)
    xp = np.pad(x.double().numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    oh, ow = y.shape[2:]
    want = np.empty(w.shape)
    for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
        want[:, 0, i, j] = xp[:, :, i * dil : i * dil + oh, j * dil : j * dil + ow].sum((0, 2, 3))
    tol = 1e-4 if dtype == torch.float32 else 1e-10
    for dx, dw in grads:
        near(dw, want, tol)
        near(dx, grads[1][0].double().numpy(), tol)


def test_padding_of_booleans_is_true_unless_it_is_zero():
    x = torch.zeros(2, dtype=torch.bool)
    assert F.pad(x, (1, 0), value=0.5).tolist() == [True, False, False]
    assert F.pad(~x, (1, 0), value=0.0).tolist() == [False, True, True]
