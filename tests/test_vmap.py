"""vmap: every operator against the loop over samples, for batches in several places; nesting, randomness, writes in
place, indexing, what is refused, and which operators run sample by sample."""

import itertools

import pytest
from opinfo import OPS, REDUCTIONS
from subject import IS_PYRITE, F, torch
from test_second_order import CASES as NN_CASES

vmap = torch.vmap
F64 = torch.float64
B = 3


def rand(*shape):
    return torch.randn(shape, dtype=F64)


def unit(*shape):
    return torch.rand(shape, dtype=F64) * 0.8 + 0.1


def ints(high, *shape):
    return torch.randint(0, high, shape)


def same(got, expected):
    if isinstance(expected, (tuple, list)):
        assert len(got) == len(expected)
        for g, e in zip(got, expected, strict=True):
            same(g, e)
        return
    assert got.shape == expected.shape and got.dtype == expected.dtype
    if expected.dtype.is_floating_point or expected.dtype.is_complex:
        assert torch.allclose(got, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
    else:
        assert torch.equal(got, expected)


def by_loop(f, args, dims):
    rows = [f(*[a if d is None else a.select(d, i) for a, d in zip(args, dims, strict=True)]) for i in range(B)]
    if isinstance(rows[0], (tuple, list)):
        return tuple(torch.stack(c) for c in zip(*rows, strict=True))
    return torch.stack(rows)


def batches(samples, dims):
    """Batches of arguments like the samples, in the dimensions asked for."""
    out = []
    for s, d in zip(samples, dims, strict=True):
        if d is None:
            out.append(s)
            continue
        many = [s, s.flip(0) if s.ndim else s, s.roll(1) if s.ndim else s]
        if s.dtype.is_floating_point and s.ndim == 0:
            many = [s, s * 0.9, s * 0.8]
        out.append(torch.stack(many, d))
    return out


def check(f, samples, places=(0, -1, None)):
    """vmap(f) equals the loop for every combination of places, at least one of them batched."""
    for dims in itertools.product(places, repeat=len(samples)):
        if all(d is None for d in dims):
            continue
        args = batches(samples, dims)
        same(vmap(f, in_dims=dims)(*args), by_loop(f, args, dims))


@pytest.mark.parametrize("op", [pytest.param(op, id=f"{op}-{op.inputs}") for op in OPS])
def test_operator(op):
    torch.manual_seed(2)
    low, high = op.sample
    f = lambda *a: op.function(*a, **op.kwargs)
    shapes = {1: [(2, 4)], 2: [(2, 4), (4,)], 3: [(2, 1), (4,), (2, 4)]}[op.inputs]
    if op.takes == "int":
        samples = [torch.randint(max(int(low), 0) + 1, int(high) + 1, s) for s in shapes]
    else:
        samples = [torch.rand(s, dtype=F64) * (high - low) * 0.9 + low + 0.05 * (high - low) for s in shapes]
    check(f, samples, (0, -1, None) if op.inputs < 3 else (0, None))
    if op.in_place is not None and not op.gives_bool:
        x = batches(samples[:1], [0])[0]
        args = [x, *samples[1:]]
        try:
            expected = by_loop(
                lambda a, *b: op.in_place(a.clone(), *b, **op.kwargs), args, (0, *[None] * (len(args) - 1))
            )
        except (RuntimeError, TypeError):
            return
        got = vmap(lambda a, *b: op.in_place(a.clone(), *b, **op.kwargs), (0, *[None] * (len(args) - 1)))(*args)
        same(got, expected)


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("op", REDUCTIONS, ids=str)
def test_reduction(op):
    for shape, kwargs in itertools.product(
        [(2, 4), (3,), ()], [{}, {"dim": 0}, {"dim": -1, "keepdim": True}, {"dim": (0, -1)}, {"keepdim": True}]
    ):
        if isinstance(kwargs.get("dim"), tuple) and len(shape) < 2:
            continue
        x = rand(*shape) if op.takes != "int" else ints(5, *shape)

        def f(a, kwargs=kwargs):
            return getattr(torch, op.name)(a, **op.kwargs, **kwargs)

        try:
            f(x)
        except (TypeError, RuntimeError, IndexError):
            continue
        check(f, [x], (0, -1) if shape else (0,))


ARGS = {"dropout"}


@pytest.mark.parametrize(
    "f, inputs", [pytest.param(*c, id=f"{n}-{i}") for n, cs in NN_CASES.items() for i, c in enumerate(cs)]
)
def test_function_of_nn(f, inputs):
    torch.manual_seed(3)
    samples = inputs()
    check(f, samples, (0, None) if len(samples) > 2 else (0, 1 if all(s.ndim for s in samples) else 0, None))


T = torch
IDX = torch.tensor([2, 0, 1])
# Name -> function, makers of sample arguments.
SHAPES = {
    "permute": (lambda x: x.permute(2, 0, 1), [(2, 3, 4)]),
    "transpose": (lambda x: x.transpose(0, -1), [(2, 3, 4)]),
    "t": (lambda x: x.t() + x.T, [(3, 3)]),
    "mT": (lambda x: x.mT, [(2, 3, 4)]),
    "swapaxes": (lambda x: T.swapaxes(x, 1, 0), [(2, 3)]),
    "expand": (lambda x: x.expand(5, -1, 3), [(2, 1)]),
    "expand_as": (lambda x, y: x.expand_as(y), [(1, 3), (2, 3)]),
    "broadcast_to": (lambda x: T.broadcast_to(x, (2, 3)), [(3,)]),
    "view": (lambda x: x.contiguous().view(3, -1), [(2, 3)]),
    "reshape": (lambda x: x.reshape(-1), [(2, 3)]),
    "flatten": (lambda x: x.flatten(1), [(2, 3, 4)]),
    "flatten_scalar": (lambda x: x.flatten(), [()]),
    "unflatten": (lambda x: x.unflatten(-1, (2, 2)), [(3, 4)]),
    "ravel": (lambda x: x.ravel(), [(2, 3)]),
    "narrow": (lambda x: x.narrow(-1, 1, 2), [(2, 3)]),
    "select": (lambda x: x.select(-1, 1), [(2, 3)]),
    "unsqueeze": (lambda x: x.unsqueeze(-1) + x.unsqueeze(0).sum(), [(2, 3)]),
    "squeeze": (lambda x: x.squeeze(), [(1, 3, 1)]),
    "squeeze_dim": (lambda x: x.squeeze(-1), [(1, 3, 1)]),
    "diagonal": (lambda x: x.diagonal(1, -1, 0), [(3, 4, 3)]),
    "unfold": (lambda x: x.unfold(-1, 2, 1), [(2, 4)]),
    "split": (lambda x: x.split(2, -1), [(2, 5)]),
    "chunk": (lambda x: x.chunk(2), [(4, 2)]),
    "unbind": (lambda x: x.unbind(-1), [(2, 3)]),
    "movedim": (lambda x: x.movedim(0, -1), [(2, 3, 4)]),
    "repeat": (lambda x: x.repeat(2, 1, 3), [(2, 3)]),
    "tile": (lambda x: x.tile(2), [(2, 3)]),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, -1), [(2, 3)]),
    "repeat_interleave_flat": (lambda x: x.repeat_interleave(2), [(2, 3)]),
    "tril": (lambda x: x.tril(1) + x.triu(-1), [(3, 3)]),
    "diag": (lambda x: T.diag(x, 1), [(3,)]),
    "diag_of": (lambda x: T.diag(x), [(3, 4)]),
    "cat": (lambda x, y: T.cat([x, y, x], -1), [(2, 3), (2, 1)]),
    "stack": (lambda x, y: T.stack([x, y], -1), [(2, 3), (2, 3)]),
    "hstack": (lambda x, y: T.hstack([x, y]), [(2, 3), (2, 1)]),
    "vstack": (lambda x, y: T.vstack([x, y]), [(3,), (2, 3)]),
    "dstack": (lambda x, y: T.dstack([x, y]), [(3,), (3,)]),
    "flip": (lambda x: x.flip(0, -1), [(2, 3)]),
    "fliplr": (lambda x: T.fliplr(x) + T.flipud(x), [(2, 3)]),
    "roll": (lambda x: x.roll(1), [(2, 3)]),
    "roll_dim": (lambda x: x.roll((1, 2), (0, 1)), [(2, 3)]),
    "cumsum": (lambda x: x.cumsum(-1) + x.cumprod(0), [(2, 3)]),
    "cumsum_scalar": (lambda x: x.cumsum(0), [()]),
    "cummax": (lambda x: T.cummax(x, 0), [(4, 2)]),
    "logcumsumexp": (lambda x: T.logcumsumexp(x, 0), [(4, 2)]),
    "sort": (lambda x: T.sort(x, -1, descending=True), [(2, 5)]),
    "argsort": (lambda x: T.argsort(x, 0), [(5, 2)]),
    "topk": (lambda x: x.topk(2), [(2, 5)]),
    "msort": (lambda x: T.msort(x), [(4, 2)]),
    "max_pair": (lambda x: x.max(0), [(4, 2)]),
    "max_all": (lambda x: x.max() + x.min(), [(4, 2)]),
    "max_other": (lambda x, y: T.max(x, y), [(4, 2), (2,)]),
    "argmax": (lambda x: (x.argmax(), x.argmin(-1, keepdim=True)), [(4, 2)]),
    "softmax": (lambda x: x.softmax(0) + T.log_softmax(x, -1), [(4, 2)]),
    "softmax_scalar": (lambda x: x.softmax(0), [()]),
    "matmul_1_1": (T.matmul, [(3,), (3,)]),
    "matmul_2_1": (T.matmul, [(2, 3), (3,)]),
    "matmul_1_2": (T.matmul, [(3,), (3, 2)]),
    "matmul_2_2": (T.matmul, [(2, 3), (3, 4)]),
    "matmul_3_2": (T.matmul, [(5, 2, 3), (3, 4)]),
    "matmul_2_3": (T.matmul, [(2, 3), (5, 3, 4)]),
    "matmul_1_3": (T.matmul, [(3,), (5, 3, 4)]),
    "matmul_3_1": (T.matmul, [(5, 2, 3), (3,)]),
    "matmul_4_3": (T.matmul, [(6, 1, 2, 3), (5, 3, 4)]),
    "mm": (T.mm, [(2, 3), (3, 4)]),
    "bmm": (T.bmm, [(5, 2, 3), (5, 3, 4)]),
    "mv": (T.mv, [(2, 3), (3,)]),
    "dot": (T.dot, [(3,), (3,)]),
    "outer": (T.outer, [(2,), (3,)]),
    "addmm": (lambda a, b, c: T.addmm(a, b, c, beta=0.5, alpha=2), [(4,), (2, 3), (3, 4)]),
    "addmv": (lambda a, b, c: T.addmv(a, b, c), [(2,), (2, 3), (3,)]),
    "addr": (lambda a, b, c: T.addr(a, b, c), [(2, 3), (2,), (3,)]),
    "baddbmm": (lambda a, b, c: T.baddbmm(a, b, c), [(2, 4), (5, 2, 3), (5, 3, 4)]),
    "addbmm": (lambda a, b, c: T.addbmm(a, b, c), [(2, 4), (5, 2, 3), (5, 3, 4)]),
    "operators": (lambda x, y: (1 - x) / (2 + y**2) + 3 * -x - abs(y) + (x > y) * x + 2**y, [(2, 3), (3,)]),
    "where": (lambda x, y: T.where(x > 0, x, y), [(2, 3), (3,)]),
    "where_number": (lambda x: T.where(x > 0, x, 0.0), [(2, 3)]),
    "clamp": (lambda x, y: x.clamp(y, 1.0), [(2, 3), (3,)]),
    "masked_fill": (lambda x, y: x.masked_fill(y > 0, 2.0), [(2, 3), (3,)]),
    "masked_fill_value": (lambda x, y: x.masked_fill(x > 0, y), [(2, 3), ()]),
    "div_mode": (lambda x, y: T.div(x, y, rounding_mode="floor"), [(2, 3), (3,)]),
    "index_select": (lambda x: x.index_select(-1, IDX), [(2, 3)]),
    "gather": (lambda x: x.gather(1, x.argsort(1)), [(2, 3)]),
    "scatter": (lambda x, y: x.scatter(0, x.argsort(0), y), [(3, 2), (3, 2)]),
    "scatter_add": (lambda x, y: x.scatter_add(1, IDX.expand(2, 3), y), [(2, 3), (2, 3)]),
    "index_add": (lambda x, y: x.index_add(0, IDX, y, alpha=2), [(3, 2), (3, 2)]),
    "index_copy": (lambda x, y: x.index_copy(-1, IDX, y), [(2, 3), (2, 3)]),
    "index_fill": (lambda x: x.index_fill(0, IDX[:1], 4.0), [(3, 2)]),
    "take": (lambda x: x.take(T.tensor([0, 5, 1])), [(2, 3)]),
    "take_along_dim": (lambda x: T.take_along_dim(x, x.argsort(1), 1), [(2, 3)]),
    "getitem": (lambda x: x[0] + x[-1:, 1] + x[..., 0].sum() + x[:, None].mean() + x[::2].sum(), [(3, 3)]),
    "getitem_tensor": (lambda x: x[IDX] + x[:, IDX] + x[IDX, IDX], [(3, 3)]),
    "getitem_list": (lambda x: x[[0, 2]], [(3, 3)]),
    "getitem_mask": (lambda x: x[T.tensor([True, False, True])], [(3, 3)]),
    "getitem_apart": (lambda x: x[IDX, :, IDX], [(3, 2, 3)]),
    "getitem_middle": (lambda x: x[:, IDX, 1], [(2, 3, 4)]),
    "getitem_sorted": (lambda x: x[x[:, 0].argsort()], [(4, 2)]),
    "getitem_own": (lambda x: x[:, x[0].argsort()] + x[1, x[0].argsort()], [(2, 3)]),
    "iterate": (lambda x: sum(row * i for i, row in enumerate(x)), [(3, 2)]),
    "unpack": (lambda x: (lambda a, b: a * b)(*x), [(2, 3)]),
    "len": (lambda x: x * len(x) + x.shape[1] + x.ndim + x.size(0), [(2, 3)]),
    "casts": (lambda x: x.float().to(T.int64).type_as(x) + x.to(x), [(2, 3)]),
    "new": (lambda x: x.new_zeros(2) + T.ones_like(x).sum() + x.new_full((2,), 3.0) + T.zeros_like(x)[0, 0], [(2, 3)]),
    "einsum": (lambda x, y: T.einsum("ij,jk->ik", x, y), [(2, 3), (3, 4)]),
    "tensordot": (lambda x, y: T.tensordot(x, y, 1), [(2, 3), (3, 4)]),
    "cdist": (lambda x, y: T.cdist(x, y), [(2, 3), (4, 3)]),
    "isclose": (lambda x, y: T.isclose(x, y), [(2, 3), (3,)]),
    "polygamma": (lambda x: T.polygamma(2, x.abs() + 1), [(3,)]),
    "clone": (lambda x: x.clone() + x.contiguous(), [(3, 2)]),
    "atleast": (lambda x: T.atleast_2d(x), [(3,)]),
    "meshgrid": (lambda x, y: T.meshgrid(x, y, indexing="ij"), [(2,), (3,)]),
    "broadcast_tensors": (lambda x, y: T.broadcast_tensors(x, y), [(2, 1), (3,)]),
    "one_hot": (lambda x: F.one_hot(x.argsort(), 5), [(3,)]),
    "embedding": (lambda x, w: F.embedding(x.argsort(), w), [(3,), (3, 2)]),
    "diag_embed": (lambda x: T.diag_embed(x, 1, 0, -1), [(2, 3)]),
    "rot90": (lambda x: T.rot90(x, 1, (1, 0)), [(2, 3)]),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2), [(1, 2, 3, 3)]),
    "grid_sample": (lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False), [(1, 2, 3, 3), (1, 2, 2, 2)]),
    "unfold_images": (lambda x: F.unfold(x, 2), [(2, 1, 3, 3)]),
    "unfold_image": (lambda x: F.unfold(x, 2), [(1, 3, 3)]),
    "fold_images": (lambda x: F.fold(x, (3, 3), 2), [(1, 4, 4)]),
    "lerp_scalar": (lambda x, y, w: T.lerp(x, y, w), [(2, 3), (3,), ()]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_function(name):
    f, shapes = SHAPES[name]
    root = name.split("_")[0]
    if not hasattr(torch, root) and root in ("einsum", "tensordot", "cdist"):
        pytest.skip(f"no {root} here")
    torch.manual_seed(4)
    samples = [rand(*s) for s in shapes]
    check(f, samples, (0, -1, None) if len(samples) < 3 else (0, None))


def test_zero_dim_operands_promote_as_in_a_sample():
    x, s = torch.randn(B, 4), torch.randn(B, dtype=F64)
    for f in (torch.mul, torch.add, lambda a, b: torch.where(a > 0, a, b)):
        same(vmap(f)(x, s), by_loop(f, [x, s], (0, 0)))
    n = torch.arange(B)
    same(vmap(torch.mul)(x, n), by_loop(torch.mul, [x, n], (0, 0)))
    same(vmap(lambda i: i / 2 + i * 2)(n), by_loop(lambda i: i / 2 + i * 2, [n], (0,)))


def test_writes_in_place():
    x, y = rand(B, 2, 3), rand(B, 3)

    def f(a, b):
        c = a.clone()
        c += b
        c[0] = b * 2
        c[:, 1] = 7.0
        c[1, torch.tensor([0, 2])] = b[:2]
        c.mul_(2).t_().unsqueeze_(0).squeeze_(0)
        c[0].fill_(b[0])
        c.copy_(c.exp())
        c.clamp_(max=5.0)
        d = a.new_empty(3).copy_(b)
        d[b.argmax()] = b.sum()
        d.cumsum_(0)
        return c, d

    same(vmap(f)(x, y), by_loop(f, [x, y], (0, 0)))
    z = x.clone()
    vmap(lambda a: a.add_(1))(z)
    assert torch.equal(z, x + 1)


@pytest.mark.pyrite
def test_writes_into_what_is_shared_are_refused():
    shared = torch.zeros(2)
    for f in (
        lambda a: shared.add_(a),
        lambda a: shared.copy_(a),
        lambda a: shared.__setitem__(0, a[0]),
        lambda a: shared.__iadd__(a),
        lambda a: torch.add(a, 1, out=shared),
        lambda a: shared.index_add_(0, torch.tensor([0]), a[:1]),
    ):
        with pytest.raises(RuntimeError, match=r"inplace arithmetic|vmap"):
            vmap(f)(torch.ones(3, 2))
    assert shared.tolist() == [0, 0]


def test_nesting():
    x, y = rand(3, 4, 5), rand(4, 5)
    f = lambda a, b: (a * b).sum() + a.sort()[0][0]
    expected = torch.stack([torch.stack([f(a, b) for a, b in zip(r, y, strict=True)]) for r in x])
    same(vmap(vmap(f), in_dims=(0, None))(x, y), expected)
    same(vmap(vmap(f, in_dims=(0, 0)), in_dims=(1, None), out_dims=1)(x.transpose(0, 1).contiguous(), y), expected.t())
    outer = vmap(lambda a: vmap(lambda b: a @ b)(y))(y)
    same(outer, y @ y.t())
    three = vmap(vmap(vmap(lambda a, b: a + b, (0, None)), (0, None)), (0, None))(x, torch.tensor(2.0, dtype=F64))
    same(three, x + 2)


def test_dims_and_structures():
    x, y = rand(3, 4), rand(5, 3)
    same(vmap(lambda a, b: a.sum() + b, in_dims=(0, 1), out_dims=1)(x, y), (x.sum(1)[:, None] + y.t()).t())
    out = vmap(lambda d: {"s": d["a"] + d["b"][0], "k": [d["a"] * 2]}, in_dims=({"a": 0, "b": (None,)},))(
        {"a": x, "b": (y[0, 0],)}
    )
    same(out["s"], x + y[0, 0])
    same(out["k"][0], x * 2)
    same(vmap(lambda a: (a, a.sum()), out_dims=(1, 0))(x), (x.t(), x.sum(1)))
    same(vmap(lambda a, k: a * k, in_dims=(0, None))(x, 3), x * 3)
    same(vmap(lambda a, *, k: a * k)(x, k=3), x * 3)
    same(vmap(lambda a: torch.ones(2, dtype=F64))(x), torch.ones(3, 2, dtype=F64))
    shared, mapped = vmap(lambda a: (y, a), out_dims=(None, 0))(x)
    assert shared is y and torch.equal(mapped, x)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_chunks(chunk):
    x, w = rand(5, 3), rand(3)
    same(vmap(torch.dot, in_dims=(0, None), chunk_size=chunk)(x, w), x @ w)
    same(vmap(lambda a: (a, a.sum()), out_dims=(1, 0), chunk_size=chunk)(x), (x.t(), x.sum(1)))


def test_refusals():
    x = torch.ones(3, 2)
    for call, error, words in [
        (lambda: vmap(lambda a: a if a.sum() > 0 else -a)(x), RuntimeError, "data-dependent control flow"),
        (lambda: vmap(lambda a: a.sum().item())(x), RuntimeError, r"\.item\(\)"),
        (lambda: vmap(torch.add, in_dims=(0, 0))(x, torch.ones(4, 2)), ValueError, "same size in the mapped dimension"),
        (lambda: vmap(torch.add, in_dims=(0, 0, 0))(x, x), ValueError, "not compatible with the structure"),
        (lambda: vmap(torch.sin, in_dims=2)(x), ValueError, "dimensionality 2"),
        (lambda: vmap(torch.sin, in_dims="a")(x), ValueError, "in_dims"),
        (lambda: vmap(torch.sin, in_dims=(None,))(x), ValueError, "at least one Tensor"),
        (lambda: vmap(lambda: 1)(), ValueError, "no inputs"),
        (lambda: vmap(lambda a: 3)(x), ValueError, "must only return Tensors"),
        (lambda: vmap(lambda a, b: a, in_dims=(0, 0))(x, 3), ValueError, "non-Tensor"),
        (lambda: vmap(lambda a: a, out_dims=(0, 1))(x), ValueError, "out_dims"),
        (lambda: vmap(lambda a: a, out_dims=None)(x), ValueError, "out_dim is None"),
        (lambda: vmap(torch.sin, randomness="x")(x), RuntimeError, "randomness"),
        (lambda: vmap(torch.sin, chunk_size=0)(x), ValueError, "chunk_size"),
        (lambda: vmap(lambda a: a.nonzero())(x), RuntimeError, "vmap"),
        (lambda: vmap(lambda a: a + torch.randn(2))(x), RuntimeError, "randomness error mode"),
        (lambda: vmap(lambda a: F.dropout(a))(x), RuntimeError, "randomness error mode"),
    ]:
        with pytest.raises(error, match=words):
            call()


@pytest.mark.pyrite
def test_more_refusals():
    x = torch.ones(3, 2)
    kept = []
    vmap(lambda a: kept.append(a) or a)(x)
    with pytest.raises(RuntimeError, match="finished vmap"):
        kept[0] + 1
    for f in (
        lambda a: a.tolist(), lambda a: a.numpy(), lambda a: float(a[0]), lambda a: int(a[0]), lambda a: torch.as_tensor([a]),
        lambda a: a.backward(), lambda a: a[a > 0], lambda a: a.data_ptr(), lambda a: [1, 2][a[0]],
        lambda a: torch.equal(a, a), lambda a: a.sum().requires_grad_().backward(),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="vmap"):
            vmap(f)(x)
    assert "BatchedTensor" in vmap(lambda a: (repr(a), a), out_dims=(None, 0))(x)[0]


def test_randomness():
    x = torch.zeros(4, 50)
    for draw in (
        lambda a: torch.rand(50), lambda a: torch.randn(50), lambda a: torch.rand_like(a), lambda a: torch.randn_like(a),
        lambda a: a.clone().uniform_(), lambda a: F.dropout(a + 1), lambda a: torch.bernoulli(a + 0.5),
        lambda a: torch.normal(a, 1.0), lambda a: torch.randperm(50).float(), lambda a: torch.randint(0, 99, (50,)).float(),
        lambda a: a.clone().normal_(),
    ):  # fmt: skip
        different = vmap(draw, randomness="different")(x)
        assert different.shape == (4, 50) and not torch.equal(different[0], different[1])
        alike = vmap(draw, randomness="same")(x)
        assert alike.shape == (4, 50) and torch.equal(alike[0], alike[1]) and torch.equal(alike[0], alike[3])
        with pytest.raises(RuntimeError, match="randomness error mode"):
            vmap(draw)(x)
    torch.manual_seed(0)
    same(vmap(lambda a: F.dropout(a, training=False))(x), x)
    nested = vmap(vmap(lambda a: a + torch.rand(()), randomness="different"), randomness="different")(x)
    assert nested.unique().numel() > 150 if hasattr(nested, "unique") else len(set(nested.reshape(-1).tolist())) > 150


def test_gradients_through_vmap():
    x, w = rand(B, 4).requires_grad_(), rand(4, 2).requires_grad_()
    out = vmap(lambda a: (a @ w).tanh().sum() * a[0])(x)
    got = torch.autograd.grad(out.sum(), (x, w))
    plain = ((x @ w).tanh().sum(1) * x[:, 0]).sum()
    same(got, torch.autograd.grad(plain, (x, w)))


@pytest.mark.pyrite
def test_batched_backward():
    x = rand(4).requires_grad_()
    y = x.exp() * x.sum()
    eye = torch.eye(4, dtype=F64)
    jac = vmap(lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0])(eye)
    same(jac, torch.autograd.grad(y, x, eye, is_grads_batched=True)[0])
    same(jac, torch.autograd.functional.jacobian(lambda a: a.exp() * a.sum(), x.detach()))
    # Gradients of what is shared, for each sample.
    b = rand(B, 4)
    w = rand(4).requires_grad_()
    got = vmap(lambda a: torch.autograd.grad((a * w).sin().sum(), w)[0])(b)
    same(got, torch.stack([a * (a * w).cos() for a in b]).detach())


def test_custom_functions():
    class Generated(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x, k):
            return x.exp() * k, x > 0

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0], inputs[1])
            ctx.mark_non_differentiable(output[1])

        @staticmethod
        def backward(ctx, g, _):
            x, k = ctx.saved_tensors
            return g * x.exp() * k, (g * x.exp()).sum()

    class ByRule(torch.autograd.Function):
        @staticmethod
        def forward(x, k):
            return x * k

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g):
            x, k = ctx.saved_tensors
            return g * k, (g * x).sum()

        @staticmethod
        def vmap(info, in_dims, x, k):
            assert info.batch_size == B and in_dims == (0, None) and info.randomness == "error"
            return ByRule.apply(x, k), 0

    x, k = rand(B, 4), torch.tensor(3.0, dtype=F64)
    y, mask = vmap(Generated.apply, in_dims=(0, None))(x, k)
    same(y, x.exp() * 3)
    assert torch.equal(mask, x > 0)
    same(vmap(ByRule.apply, in_dims=(0, None))(x, k), x * 3)
    per_sample = torch.func.vmap(
        torch.func.grad(lambda a, c: Generated.apply(a, c)[0].sum(), argnums=(0, 1)), (0, None)
    )
    same(per_sample(x, k), (x.exp() * 3, x.exp().sum(1)))
    leaf, c = x.clone().requires_grad_(), k.clone().requires_grad_()
    out = vmap(lambda a: Generated.apply(a, c)[0])(leaf)
    same(torch.autograd.grad(out.sum(), (leaf, c)), (leaf.exp() * 3, leaf.exp().sum()))


@pytest.mark.pyrite
def test_custom_function_without_a_rule_runs_in_a_loop():
    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin() if x.sum() > 0 else x.cos()

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x.cos()

    x = rand(B, 2)
    same(vmap(Plain.apply)(x), torch.stack([a.sin() if a.sum() > 0 else a.cos() for a in x]))


def test_modules():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.GroupNorm(1, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 3),
        torch.nn.LayerNorm(3),
    ).double()  # fmt: skip
    x = rand(B, 2, 1, 4, 4)
    same(vmap(net)(x), torch.stack([net(a) for a in x]))
    bn = torch.func.replace_all_batch_norm_modules_(torch.nn.Sequential(torch.nn.BatchNorm1d(3))).double()
    x = rand(B, 5, 3)
    same(vmap(bn)(x), torch.stack([bn(a) for a in x]))


# Registry entries without a rule run one sample at a time: right, but slow. These are known to; others must not.
BY_LOOP = {
    "as_strided",  # strides of one sample say nothing about a batch
    "index_put", "index_put_", "masked_scatter", "masked_scatter_", "nn.max_unpool", "embedding",
}  # fmt: skip


@pytest.mark.skipif(not IS_PYRITE, reason="Pyrite's rules")
def test_which_operators_run_sample_by_sample():
    from pyrite._batching.core import by_loop as without_rule

    names = without_rule()
    print("run sample by sample:", ", ".join(sorted(names)))
    core = {
        "matmul", "linear", "sum", "mean", "softmax", "sort", "cat", "stack", "gather", "permute", "reshape", "where",
        "add", "exp", "nn.conv2d", "nn.layer_norm", "nn.cross_entropy", "nn.max_pool2d", "nn.embedding", "index_select",
        "cumsum", "var", "norm", "bmm", "clamp", "tril", "topk", "nn.scaled_dot_product_attention", "nn.batch_norm",
    }  # fmt: skip
    assert not names & core
