"""Gather, scatter, index and slice writes, order statistics, unique, search, counting: values against NumPy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numeric import check_gradients
from subject import FLOATS, HALVES, INTS, torch

F64, I64 = torch.float64, torch.int64
REAL = [*FLOATS, *HALVES, *INTS, torch.bool]


def short(d):
    return str(d).rpartition(".")[2]


def draw(*shape, dtype=F64, lo=-4, hi=5):
    """Few distinct values, so that equal ones meet, and exact in every dtype."""
    v = np.random.randint(0 if dtype in (torch.uint8, torch.bool) else lo, hi, shape)
    return torch.from_numpy(v).to(dtype)


def np64(t):
    t = t.detach()
    return t.numpy() if t.dtype in (torch.bool, I64) else t.to(F64).numpy()


LAYOUTS = {
    "plain": lambda t: t,
    "transposed": lambda t: t.mT.contiguous().mT if t.dim() > 1 else t,
    "stepped": lambda t: torch.stack([t, t], -1).flatten(-2)[..., ::2] if t.dim() else t,
    "offset": lambda t: torch.cat([t[:1], t])[1:] if t.dim() and t.numel() else t,
}


def laid(layout, *args):
    return [LAYOUTS[layout](a) if isinstance(a, torch.Tensor) else a for a in args]


def same(got, want, tol=0.0):
    got = np64(got) if isinstance(got, torch.Tensor) else got
    np.testing.assert_allclose(got, np.asarray(want), rtol=tol, atol=tol)


# --- values that meet -------------------------------------------------------------------------------------------------
MEET = {
    "sum": np.add, "prod": np.multiply, "amax": np.maximum, "amin": np.minimum, "mean": np.add,
}  # fmt: skip


def scatter_reduced(t, dim, idx, src, how, include_self):
    """One element at a time."""
    out = t.astype(np.float64).copy()
    count = np.zeros(t.shape)
    for at in np.ndindex(*idx.shape):
        to = (*at[:dim], idx[at], *at[dim + 1 :])
        first = count[to] == 0 and not include_self
        out[to] = src[at] if first else MEET[how](out[to], src[at])
        count[to] += 1
    if how == "mean":
        out = out / np.maximum(count + include_self, 1)
        out = np.floor(out) if np.issubdtype(t.dtype, np.integer) else out
    return out


SHAPES = [((4, 5), 0, (6, 3)), ((4, 5), 1, (4, 7)), ((6,), 0, (9,)), ((2, 3, 4), 1, (2, 5, 3)), ((3, 4), -1, (0, 4))]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", MEET)
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("shape, dim, picks", SHAPES, ids=str)
def test_scatter_reduce(shape, dim, picks, how, include_self, layout):
    for dtype in (torch.float32, F64, I64):
        t, src = draw(*shape, dtype=dtype), draw(*(n + 1 for n in picks), dtype=dtype)
        idx = torch.randint(0, shape[dim], picks)
        want = scatter_reduced(t.numpy(), dim % len(shape), idx.numpy(), src.numpy(), how, include_self)
        t, idx, src = laid(layout, t, idx, src)
        got = torch.scatter_reduce(t, dim, idx, src, how, include_self=include_self)
        same(got, want, 1e-6)
        same(t.scatter_reduce(dim, idx, src, reduce=how, include_self=include_self), want, 1e-6)
        written = t.clone()
        assert written.scatter_reduce_(dim, idx, src, how, include_self=include_self) is written
        same(written, want, 1e-6)
        out = torch.empty(0, dtype=dtype)
        torch.scatter_reduce(t, dim, idx, src, how, include_self=include_self, out=out)
        same(out, want, 1e-6)
        if how != "sum" and picks[0] and tuple(idx.shape) == tuple(src.shape):
            vector = idx.select(0, 0) if idx.dim() == 1 else idx[0]
            assert vector.dim() <= 2


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("how", ["prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("include_self", [True, False])
def test_index_reduce(dim, how, include_self):
    for dtype in (torch.float32, I64):
        t = draw(4, 5, dtype=dtype)
        idx = torch.randint(0, t.shape[dim], (6,))
        shape = [6, 5] if dim == 0 else [4, 6]
        src = draw(*shape, dtype=dtype)
        wide = np.broadcast_to(idx.numpy().reshape(-1, 1) if dim == 0 else idx.numpy(), shape)
        want = scatter_reduced(t.numpy(), dim % 2, wide, src.numpy(), how, include_self)
        same(torch.index_reduce(t, dim, idx, src, how, include_self=include_self), want, 1e-6)
        same(t.clone().index_reduce_(dim, idx.to(torch.int32), src, how, include_self=include_self), want, 1e-6)


@pytest.mark.parametrize("dtype", REAL, ids=short)
def test_gather_and_scatter_in_every_dtype(dtype):
    t, src, idx = draw(5, 4, dtype=dtype), draw(3, 4, dtype=dtype), torch.randint(0, 5, (3, 4))
    same(t.gather(0, idx), np.take_along_axis(np64(t), idx.numpy(), 0))
    same(t.gather(0, idx.to(torch.int32)), np.take_along_axis(np64(t), idx.numpy(), 0))
    unique = torch.stack([torch.randperm(5)[:3] for _ in range(4)], 1)
    want = np64(t).copy()
    np.put_along_axis(want, unique.numpy(), np64(src), 0)
    same(t.scatter(0, unique, src), want)
    same(t.clone().scatter_(0, unique, src), want)
    np.put_along_axis(want, unique.numpy(), 1, 0)
    same(t.scatter(0, unique, 1), want)
    flat, at = draw(7, dtype=dtype), torch.tensor([0, -1, 3])
    want = np64(flat).copy()
    want[[0, -1, 3]] = np64(src)[0, :3]
    same(flat.put(at, src[0, :3]), want)


def test_scatter_with_reduce():
    t, idx, src = draw(4, 3), torch.tensor([[0, 0, 1], [0, 2, 1]]), draw(2, 3)
    for how, f in (("add", np.add), ("multiply", np.multiply)):
        want = t.numpy().copy()
        for i, j in np.ndindex(2, 3):
            want[idx[i, j], j] = f(want[idx[i, j], j], src[i, j].item())
        same(t.scatter(0, idx, src, reduce=how), want)
        same(t.clone().scatter_(0, idx, src, reduce=how), want)
    assert t.scatter(0, idx, 2.0, reduce="add").sum().item() == pytest.approx(t.sum().item() + 12)


def test_take_and_put():
    t, at = draw(3, 4), torch.tensor([[0, -1], [5, 5]])
    same(t.take(at), t.numpy().reshape(-1)[at.numpy()])
    same(t.T.take(at), t.numpy().T.reshape(-1)[at.numpy()])
    src = draw(2, 2)
    for x in (t, draw(4, 3).T):
        want = x.numpy().copy()
        np.add.at(want.reshape(-1), at.numpy().reshape(-1), src.numpy().reshape(-1))
        same(torch.put(x, at, src, True), want)
        same(x.clone().put_(at, src, accumulate=True), want)
    view = torch.zeros(4, 6)[::2, ::3]
    view.put_(torch.tensor([0, 3]), torch.tensor([1.0, 2.0]))
    assert view.tolist() == [[1, 0], [0, 2]]


def test_take_along_dim():
    t = draw(4, 5)
    order = t.argsort(1)
    same(torch.take_along_dim(t, order, 1), np.sort(t.numpy(), 1))
    same(t.take_along_dim(order - 5, dim=1), np.sort(t.numpy(), 1))
    same(t.take_along_dim(torch.tensor([[1], [-1]]), 0), t.numpy()[[1, -1]][:, :5])
    same(t.take_along_dim(torch.tensor([7, 0])), t.numpy().reshape(-1)[[7, 0]])


# --- a part replaced --------------------------------------------------------------------------------------------------
def replaced(t, where, src):
    out = np64(t).copy()
    where(out)[...] = np64(src)
    return out


PARTS = {
    "select": (lambda t, s: torch.select_scatter(t, s, 1, -2), lambda a: a[:, -2], (4, 3)),
    "slice": (lambda t, s: torch.slice_scatter(t, s, 0, 1, None, 2), lambda a: a[1::2], (2, 5, 3)),
    "slice of nothing": (lambda t, s: t.slice_scatter(s, 1, 3, 3), lambda a: a[:, 3:3], (4, 0, 3)),
    "diagonal": (
        lambda t, s: torch.diagonal_scatter(t, s, 1, 0, 1),
        lambda a: np.lib.stride_tricks.as_strided(
            a[:, 1:], (3, 4), (a.strides[2], a.strides[0] + a.strides[1])
        ),
        (3, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PARTS)
def test_part_replaced(name, layout):
    f, where, shape = PARTS[name]
    for dtype in REAL:
        t, src = draw(4, 5, 3, dtype=dtype), draw(*shape, dtype=dtype)
        want = replaced(t.contiguous(), where, src)
        before = t.clone()
        same(f(*laid(layout, t, src)), want)
        assert torch.equal(t, before)
    if 0 not in shape:
        check_gradients(f, draw(4, 5, 3), draw(*shape))


def test_as_strided_scatter():
    t, src = draw(4, 4), draw(2, 3)
    want = t.numpy().copy()
    np.lib.stride_tricks.as_strided(want.reshape(-1)[1:], (2, 3), (64, 8))[...] = src.numpy()
    same(torch.as_strided_scatter(t, src, (2, 3), (8, 1), 1), want)


@pytest.mark.pyrite
def test_as_strided_scatter_has_the_gradient_of_writing():
    """PyTorch sends the gradient of self through the written part instead of through the rest."""
    check_gradients(lambda t, s: torch.as_strided_scatter(t, s, (2, 3), (8, 1), 1), draw(4, 4), draw(2, 3))


# --- order statistics -------------------------------------------------------------------------------------------------
def lower_median(a, axis):
    return np.take(np.sort(a, axis), (a.shape[axis] - 1) // 2, axis)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape, dim", [((7,), 0), ((4, 6), 0), ((4, 6), 1), ((3, 1, 5), -1), ((70001,), 0)], ids=str)
def test_kthvalue_and_median(shape, dim, layout):
    for dtype in [*FLOATS, *HALVES, *INTS]:
        x = draw(*shape, dtype=dtype, hi=100)
        a = np64(x)
        (x,) = laid(layout, x)
        for k in (1, (shape[dim] + 1) // 2, shape[dim]):
            for keepdim in (False, True):
                got = torch.kthvalue(x, k, dim, keepdim)
                want = np.take(np.sort(a, dim), [k - 1] if keepdim else k - 1, dim)
                same(got.values, want)
                index = got.indices if keepdim else got.indices.unsqueeze(dim)
                same(x.gather(dim, index).reshape(got.values.shape), want)
        same(x.median(dim).values, lower_median(a, dim))
        same(x.median(), lower_median(a.reshape(-1), 0))
        same(x.nanmedian(dim, keepdim=True).values, np.expand_dims(lower_median(a, dim), dim))


def test_medians_and_nan():
    x = torch.tensor([[3.0, math.nan, 1.0, 2.0], [4.0, 3.0, 2.0, 1.0], [math.nan] * 4])
    same(x.median(1).values, [math.nan, 2, math.nan])
    assert x.median(1).indices[0].item() == 1
    same(x.nanmedian(1).values, [2, 2, math.nan])
    assert math.isnan(x.median().item()) and x.nanmedian().item() == 2
    assert math.isnan(torch.zeros(0).median().item())
    big = torch.randn(100_001, dtype=F64)
    assert big.median().item() == np.median(big.numpy())
    big[77] = math.nan
    assert math.isnan(big.median().item())
    assert big.nanmedian().item() == lower_median(np.delete(big.numpy(), 77), 0)
    assert big.median(0).indices.item() == 77


def test_mode():
    x = draw(6, 40, hi=3)
    values, indices = torch.mode(x, 1)
    for row, value, index in zip(x.tolist(), values.tolist(), indices.tolist(), strict=True):
        kinds, counts = np.unique(row, return_counts=True)
        assert value == kinds[counts.argmax()] and row[index] == value
    same(x.mode(0, keepdim=True).values, torch.mode(x, 0).values.unsqueeze(0).numpy())
    assert torch.tensor([True, False, True]).mode().values.item() is True
    assert torch.tensor(5).mode() == (torch.tensor(5), torch.tensor(0))


METHODS = ["linear", "lower", "higher", "midpoint", "nearest"]


@pytest.mark.parametrize("how", METHODS)
def test_quantile(how):
    x = torch.randn(5, 9, 4, dtype=F64)
    for q in (0.0, 0.25, 0.6, 1.0):
        for dim in (None, 0, 1, -1):
            for keepdim in (False, True):
                want = np.quantile(x.numpy(), q, axis=dim, keepdims=keepdim, method=how)
                same(torch.quantile(x, q, dim, keepdim, interpolation=how), want, 1e-12)
    q = torch.tensor([0.1, 0.5, 0.77], dtype=F64)
    same(x.quantile(q, 1, interpolation=how), np.quantile(x.numpy(), q.numpy(), axis=1, method=how), 1e-12)
    y = x.clone()
    y[0, :3, 0] = math.nan
    same(y.nanquantile(q, 1, True, interpolation=how),
         np.nanquantile(y.numpy(), q.numpy(), axis=1, keepdims=True, method=how), 1e-12)  # fmt: skip
    assert y.quantile(0.5, 1).isnan().sum().item() == 1
    check_gradients(lambda a: a.quantile(q, 1, interpolation=how), x)


def test_nanmean_and_aminmax():
    x = torch.randn(4, 5, dtype=F64)
    x[1, 2] = x[2] = math.nan
    with pytest.warns(RuntimeWarning):
        want = np.nanmean(x.numpy(), 1)
    same(torch.nanmean(x, 1), want, 1e-12)
    same(x.nanmean(), np.nanmean(x.numpy()), 1e-12)
    y = draw(4, 5)
    low, high = torch.aminmax(y, dim=1, keepdim=True)
    same(low, y.numpy().min(1, keepdims=True))
    same(high, y.numpy().max(1, keepdims=True))
    assert [v.item() for v in y.aminmax()] == [y.min().item(), y.max().item()]


# --- sorting long lines -----------------------------------------------------------------------------------------------
def tricky(dtype, n):
    """Data that a radix sort may trip over."""
    info = torch.finfo(dtype) if dtype.is_floating_point else None
    if info is not None:
        x = torch.randn(n, dtype=F64)
        x[::97], x[1::89], x[2::83], x[3::79] = math.nan, -0.0, 0.0, math.inf
        x[4::73] = -math.inf
        yield (x * 3).to(dtype)
        yield torch.ones(n, dtype=dtype)
        yield (1 + torch.arange(n, 0, -1, dtype=F64) * info.eps).to(dtype)
    elif dtype == torch.bool:
        yield torch.rand(n) < 0.3
    else:
        i = torch.iinfo(dtype)
        yield torch.from_numpy(np.random.randint(i.min, i.max, n, dtype=short(dtype)))
        yield torch.from_numpy(np.random.randint(0, 100, n).astype(short(dtype)))
        # The bits that decide are below those that are kept with a position.
        yield torch.tensor([i.min, i.max] * (n // 2), dtype=dtype) + torch.arange(n // 2 * 2).flip(0).to(dtype) % 2


@pytest.mark.parametrize("n", [1, 9, 31, 33, 700, 5000, 70_001])
@pytest.mark.parametrize("dtype", REAL, ids=short)
def test_sort_of_every_length_and_dtype(dtype, n):
    for x in tricky(dtype, n):
        a = np64(x)
        order = np.argsort(a, kind="stable")
        values, at = torch.sort(x, stable=True)
        np.testing.assert_array_equal(at.numpy(), order)
        np.testing.assert_array_equal(np64(values), a[order])
        down, at = torch.sort(x, descending=True, stable=True)
        np.testing.assert_array_equal(np64(down), a[at.numpy()])
        same(down.flip(0), np64(values))
        assert sorted(at.tolist()) == list(range(len(a)))
        if not dtype.is_floating_point:
            np.testing.assert_array_equal(at.numpy(), np.argsort(~x.numpy(), kind="stable"))  # fmt: skip
        if dtype == torch.bool:
            continue
        k = min(7, len(a))
        same(x.topk(k).values, np64(down)[:k])
        same(x.topk(k, largest=False).values, a[order[:k]])


def test_sort_of_64_bit_keys_that_share_their_leading_bits():
    n = 70_000
    for base in (0, 1 << 62, -(1 << 62)):
        x = torch.from_numpy(np.random.randint(0, 1 << 50, n) * 8192 + np.random.randint(0, 4096, n))
        x[::2] = base // 2 + torch.randint(0, 9, (n // 2,))
        order = np.argsort(x.numpy(), kind="stable")
        np.testing.assert_array_equal(torch.argsort(x, stable=True).numpy(), order)


def test_sort_along_dimensions():
    for shape, dim in [((5, 800), 1), ((800, 5), 0), ((2, 70_000), 1), ((70_000, 2), 0), ((20, 3, 30), 1)]:
        x = torch.randn(*shape)
        values, at = x.sort(dim=dim, stable=True)
        np.testing.assert_array_equal(at.numpy(), np.argsort(x.numpy(), dim, kind="stable"))
        same(values, np.sort(x.numpy(), dim))
        same(x.topk(3, dim).values, np.flip(np.sort(x.numpy(), dim), dim).take(range(3), dim))
    same(torch.msort(torch.tensor([[3, 1], [2, 2]])), [[2, 1], [3, 2]])


# --- distinct elements ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", REAL, ids=short)
def test_unique(dtype, layout):
    for shape in [(30,), (6, 7), (0,), (1,), (70_001,)]:
        x = draw(*shape, dtype=dtype)
        want = np.unique(np64(x), return_inverse=True, return_counts=True)
        (x,) = laid(layout, x)
        values, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
        assert values.dtype == dtype and tuple(inverse.shape) == tuple(x.shape)
        for got, expected in zip((values, inverse.reshape(-1), counts), want, strict=True):
            same(got, np.asarray(expected).reshape(-1))
        same(x.unique(), want[0])
        if x.numel():
            same(x.unique(dim=0, return_counts=True)[0], np.unique(np64(x), axis=0))


def test_unique_slices():
    x = draw(8, 3, 2, hi=-2)
    for dim in (0, 1, 2):
        values, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True, dim=dim)
        want = np.unique(x.numpy(), return_inverse=True, return_counts=True, axis=dim)
        same(values, want[0])
        same(inverse, want[1].reshape(-1))
        same(counts, want[2])
        same(values.index_select(dim, inverse), x.numpy())


def test_unique_consecutive():
    x = torch.tensor([1, 1, 2, 2, 2, 1, 3])
    values, inverse, counts = torch.unique_consecutive(x, return_inverse=True, return_counts=True)
    assert (values.tolist(), inverse.tolist(), counts.tolist()) == (
        [1, 2, 1, 3], [0, 0, 1, 1, 1, 2, 3], [2, 3, 1, 1],
    )  # fmt: skip
    rows = torch.tensor([[1, 2], [1, 2], [0, 0], [1, 2]])
    assert rows.unique_consecutive(dim=0).tolist() == [[1, 2], [0, 0], [1, 2]]
    assert torch.tensor([math.nan, math.nan]).unique().numel() == 2


# --- search and counting ----------------------------------------------------------------------------------------------
@given(
    seq=st.lists(st.integers(-20, 20), max_size=30).map(sorted),
    values=st.lists(st.integers(-25, 25), max_size=40),
    right=st.booleans(),
)
def test_searchsorted_agrees_with_numpy(seq, values, right):
    a, v = np.array(seq, dtype=np.int64), np.array(values, dtype=np.int64)
    want = np.searchsorted(a, v, side="right" if right else "left")
    for dtype in (I64, torch.float32, torch.uint8) if not seq or seq[0] >= 0 else (I64, torch.float32):
        if dtype == torch.uint8 and (v < 0).any():
            continue
        s, x = torch.from_numpy(a).to(dtype), torch.from_numpy(v).to(dtype)
        same(torch.searchsorted(s, x, right=right), want)
        same(torch.bucketize(x, s, right=right), want)
        assert torch.searchsorted(s, x, out_int32=True).dtype == torch.int32


def test_searchsorted_by_lines():
    seq, x = torch.randn(4, 3, 50).sort(-1).values, torch.randn(4, 3, 9)
    got = torch.searchsorted(seq, x)
    for i, j in np.ndindex(4, 3):
        same(got[i, j], np.searchsorted(seq[i, j].numpy(), x[i, j].numpy()))
    mixed = torch.randn(4, 50)
    order, x = mixed.argsort(1), torch.randn(4, 6)
    same(torch.searchsorted(mixed, x, sorter=order, side="right"),
         torch.searchsorted(mixed.sort(1).values, x, right=True).numpy())  # fmt: skip
    assert torch.searchsorted(torch.tensor([1, 3, 5]), 4).item() == 2
    assert torch.bucketize(3.5, torch.tensor([1, 3, 5])).item() == 2
    back = torch.arange(10).flip(0)[torch.arange(9, -1, -1)]
    same(torch.searchsorted(back, torch.tensor([[4, -1], [99, 0]])), [[4, 0], [10, 0]])
    big = torch.randn(3000).sort().values
    same(torch.searchsorted(big, x), np.searchsorted(big.numpy(), x.numpy()))


def test_isin():
    for dtype in [*FLOATS, *HALVES, *INTS]:
        x, test = draw(5, 6, dtype=dtype), draw(4, dtype=dtype)
        same(torch.isin(x, test), np.isin(np64(x), np64(test)))
        same(torch.isin(x, test, invert=True), ~np.isin(np64(x), np64(test)))
    assert torch.isin(torch.tensor([1, 2]), 2).tolist() == [False, True]
    assert torch.isin(2, torch.tensor([1, 2])).item() is True
    assert torch.isin(torch.tensor([math.nan, 1.0]), torch.tensor([math.nan])).tolist() == [False, False]
    assert torch.isin(torch.tensor([1, 2]), torch.tensor([1.5, 2])).tolist() == [False, True]


def test_bincount():
    for dtype in INTS:
        x = draw(200, dtype=dtype, lo=0, hi=9)
        same(torch.bincount(x), np.bincount(np64(x).astype(int)))
        w = torch.randn(200, dtype=F64)
        same(x.bincount(w, 12), np.bincount(np64(x).astype(int), w.numpy(), 12), 1e-12)
    assert torch.bincount(torch.zeros(0, dtype=I64), minlength=2).tolist() == [0, 0]
    assert torch.bincount(torch.tensor([1]), torch.tensor([2.0])).dtype == torch.float32


def test_histograms():
    x, w = torch.randn(500, dtype=F64), torch.rand(500, dtype=F64)
    for bins, rng in ((7, None), (5, (-1.0, 2.0)), (torch.tensor([-2.0, -1, 0, 0.5, 2], dtype=F64), None)):
        for weight in (None, w):
            for density in (False, True):
                args = {} if rng is None else {"range": rng}
                got = torch.histogram(x, bins, weight=weight, density=density, **args)
                want, edges = np.histogram(
                    x.numpy(), bins if isinstance(bins, int) else bins.numpy(), rng,
                    weights=None if weight is None else w.numpy(), density=density,
                )  # fmt: skip
                same(got.hist, want, 1e-10)
                same(got.bin_edges, edges, 1e-12)
    same(torch.histc(x, 10, -2, 2), np.histogram(x.numpy(), 10, (-2, 2))[0])
    same(x.float().histc(), np.histogram(x.float().numpy(), 100)[0])
    points = torch.randn(300, 3, dtype=F64)
    got = torch.histogramdd(points, [3, 4, 5], weight=w[:300], density=True)
    want, edges = np.histogramdd(points.numpy(), [3, 4, 5], weights=w[:300].numpy(), density=True)
    same(got.hist, want, 1e-10)
    for a, b in zip(got.bin_edges, edges, strict=True):
        same(a, b, 1e-12)
    assert torch.histogramdd(points, 2, range=[-1.0, 1.0] * 3).hist.shape == (2, 2, 2)


def test_positions():
    x = draw(5, 6, dtype=I64, lo=-1, hi=2)
    same(x.nonzero(), np.argwhere(x.numpy()))
    same(x.T.nonzero(), np.argwhere(x.numpy().T))
    same(torch.stack(x.nonzero(as_tuple=True)), np.nonzero(x.numpy()))
    big = torch.rand(70_000) < 0.4
    same(big.nonzero(), np.argwhere(big.numpy()))
    same(big.reshape(70, 1000).nonzero(), np.argwhere(big.numpy().reshape(70, 1000)))
    n = len(np.argwhere(x.numpy()))
    same(torch.nonzero_static(x, size=n + 2, fill_value=-7)[n:], np.full((2, 2), -7))
    same(x.nonzero_static(size=2), np.argwhere(x.numpy())[:2])
    flat = torch.tensor([[0, 5], [23, 11]])
    same(torch.stack(torch.unravel_index(flat, (2, 3, 4))), np.stack(np.unravel_index(flat.numpy(), (2, 3, 4))))
    for rows, cols, k in ((3, 4, 0), (4, 3, -1), (3, 3, 2), (0, 3, 0), (5, 2, -9), (2, 5, 9)):
        same(torch.tril_indices(rows, cols, k), np.stack(np.tril_indices(rows, k, cols)))
        same(torch.triu_indices(rows, cols, k), np.stack(np.triu_indices(rows, k, cols)))


def test_repeat_interleave():
    x = draw(3, 4)
    same(x.repeat_interleave(2), np.repeat(x.numpy(), 2))
    same(torch.repeat_interleave(x, 3, 1), np.repeat(x.numpy(), 3, 1))
    times = torch.tensor([2, 0, 1])
    same(x.repeat_interleave(times, 0, output_size=3), np.repeat(x.numpy(), times.numpy(), 0))
    same(torch.repeat_interleave(times), np.repeat(np.arange(3), times.numpy()))
    assert torch.repeat_interleave(times).tolist() == [0, 0, 2]
    check_gradients(lambda a: a.repeat_interleave(2, 1), x)
    check_gradients(lambda a: a.repeat_interleave(times, 0), x)


def test_masks():
    x = torch.randn(300, 77)
    mask = x > 0.3
    same(x[mask], x.numpy()[mask.numpy()])
    same(x.T[mask.T], x.numpy().T[mask.numpy().T])
    same(x.masked_select(mask[0]), x.numpy()[np.broadcast_to(mask.numpy()[0], (300, 77))])
    src = torch.randn(300 * 77)
    want = x.numpy().copy()
    want[mask.numpy()] = src.numpy()[: mask.sum().item()]
    same(x.masked_scatter(mask, src), want)
    same(x.clone().masked_scatter_(mask, src), want)
    check_gradients(lambda a: a[a > 0], torch.randn(4, 5, dtype=F64))


def test_multinomial():
    w = torch.tensor([[1.0, 0.0, 3.0], [0.0, 2.0, 2.0]])
    got = torch.multinomial(w, 20_000, replacement=True)
    for row, p in zip(got, w, strict=True):
        share = torch.bincount(row, minlength=3).to(torch.float32) / 20_000
        same(share, (p / p.sum()).numpy(), 0.02)
    some = torch.stack([torch.multinomial(w, 2) for _ in range(50)])
    assert all(sorted(r.tolist()) == [0, 2] for r in some[:, 0]) and all(
        sorted(r.tolist()) == [1, 2] for r in some[:, 1]
    )
    assert torch.multinomial(torch.ones(5), 5).sort().values.tolist() == [0, 1, 2, 3, 4]
    a = torch.multinomial(w, 9, True, generator=torch.Generator().manual_seed(3))
    assert torch.equal(a, torch.multinomial(w, 9, True, generator=torch.Generator().manual_seed(3)))


# --- scans ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape, dim", [((9, 33), 1), ((33, 9), 0), ((50_000,), 0), ((3, 20_000), 1), ((2, 7, 3), 1)])
def test_cumulative(shape, dim):
    x = torch.randn(*shape, dtype=F64)
    for layout in LAYOUTS:
        (y,) = laid(layout, x)
        same(y.cumsum(dim), np.cumsum(x.numpy(), dim), 1e-10)
        z, a = y / 50 + 1, np.cumprod(x.numpy() / 50 + 1, dim)
        np.testing.assert_allclose(z.cumprod(dim).numpy(), a, rtol=1e-9)
    k = draw(*shape, dtype=torch.int32)
    same(k.cumsum(dim), np.cumsum(k.numpy(), dim))


# --- gradients --------------------------------------------------------------------------------------------------------
at = torch.tensor([[0, 2, 1], [1, 1, 0]])
distinct = torch.tensor([[0, 2, 1], [1, 0, 2]])
apart = torch.tensor([[8, 0, 3], [-2, 1, 2]])
vector = torch.tensor([2, 0, 2])
GRADIENTS = {
    **{
        f"scatter_reduce {how} {inc}": (
            lambda t, s, how=how, inc=inc: t.scatter_reduce(0, at, s, how, include_self=inc), [(3, 3), (2, 3)],
        )
        for how in MEET for inc in (True, False)
    },
    **{
        f"index_reduce {how} {inc}": (
            lambda t, s, how=how, inc=inc: t.index_reduce(1, vector, s, how, include_self=inc), [(2, 3), (2, 3)],
        )
        for how in MEET if how != "sum" for inc in (True, False)
    },
    "scatter": (lambda t, s: t.scatter(0, distinct, s), [(3, 3), (2, 3)]),
    "scatter_add": (lambda t, s: t.scatter_add(0, at, s), [(3, 3), (2, 3)]),
    "gather": (lambda t: t.gather(0, at), [(3, 4)]),
    "gather nothing": (lambda t: t.gather(0, torch.zeros(0, 4, dtype=I64)).sum() + t.sum(), [(3, 4)]),
    "take_along_dim": (lambda t: t.take_along_dim(at - 3, 0), [(3, 3)]),
    "take": (lambda t: t.take(at - 4), [(3, 3)]),
    "put": (lambda t, s: t.put(apart, s), [(3, 3), (2, 3)]),
    "put accumulate": (lambda t, s: t.put(at, s, True), [(3, 3), (2, 3)]),
    "narrow_copy": (lambda t: t.narrow_copy(1, 1, 2), [(3, 4)]),
    "kthvalue": (lambda t: t.kthvalue(2, 0).values, [(4, 3)]),
    "median": (lambda t: t.median(1).values, [(4, 3)]),
    "median of all": (lambda t: t.median(), [(4, 3)]),
    "nanmedian": (lambda t: t.nanmedian(1, True).values, [(4, 3)]),
    "mode": (lambda t: t.mode(1).values, [(4, 3)]),
    "nanmean": (lambda t: t.nanmean(1), [(4, 3)]),
    "aminmax": (lambda t: torch.cat(t.aminmax(dim=1)), [(4, 3)]),
    "sort": (lambda t: t.sort(0).values, [(5, 3)]),
    "topk": (lambda t: t.topk(2, 1).values, [(4, 3)]),
    "cumsum": (lambda t: t.cumsum(1), [(3, 11)]),
    "cumprod": (lambda t: t.cumprod(1), [(2, 9)]),
    "index_put": (lambda t, s: t.index_put((vector,), s, True), [(3, 2), (3, 2)]),
    "index_fill": (lambda t, s: t.index_fill(1, vector, s), [(2, 3), ()]),
    "masked_scatter": (lambda t, s: t.masked_scatter(torch.eye(3) > 0, s), [(3, 3), (4,)]),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name):
    f, shapes = GRADIENTS[name]
    check_gradients(f, *(torch.randn(s, dtype=F64) for s in shapes))
    if len(shapes[0]) == 2:
        check_gradients(
            f, torch.randn(*reversed(shapes[0]), dtype=F64).T, *(torch.randn(s, dtype=F64) for s in shapes[1:])
        )


@pytest.mark.pyrite
def test_gradient_of_a_source_that_is_larger_than_the_index():
    """PyTorch's has the index's shape, which its engine refuses."""
    check_gradients(lambda t, s: t.scatter(0, distinct, s), *(torch.randn(3, n, dtype=F64) for n in (3, 4)))


@pytest.mark.parametrize("inc", [True, False])
def test_product_gradients_at_zeros(inc):
    t, s = torch.tensor([[2.0, 3.0, 0.5]] * 3, dtype=F64), torch.tensor([[0.0, 2.0, 3.0], [5.0, 4.0, 0.0]], dtype=F64)
    check_gradients(lambda a, b: a.scatter_reduce(0, at, b, "prod", include_self=inc), t, s, second=False)


def test_gradients_in_place():
    for write in (
        lambda t, s: t.scatter_(0, distinct, s),
        lambda t, s: t.scatter_add_(0, at, s),
        lambda t, s: t.scatter_reduce_(0, at, s, "prod"),
        lambda t, s: t.index_reduce_(0, torch.tensor([1, 1]), s, "mean"),
        lambda t, s: t.put_(apart, s),
        lambda t, s: t.index_add_(0, torch.tensor([0, 0]), s),
        lambda t, s: t.index_copy_(0, torch.tensor([0, 2]), s),
        lambda t, s: t.index_fill_(1, torch.tensor([0, 2]), 7.0),
        lambda t, s: t.masked_scatter_(torch.eye(3) > 0, s),
    ):

        def f(t, s, write=write):
            copy = t * 1
            write(copy, s)
            return copy * copy + s.sum()

        check_gradients(f, torch.randn(3, 3, dtype=F64), torch.randn(2, 3, dtype=F64))


# --- bad input --------------------------------------------------------------------------------------------------------
ones = torch.ones
far = torch.tensor([0, 7])
ERRORS = {
    "gather": (lambda: ones(3).gather(0, far), RuntimeError, "7.*dimension 0.*size 3"),
    "gather negative": (lambda: ones(3).gather(0, -far), RuntimeError, "-7.*dimension 0.*size 3"),
    "gather along 1": (lambda: ones(2, 3).gather(1, torch.tensor([[3]])), RuntimeError, "3.*dimension 1.*size 3"),
    "gather rank": (lambda: ones(3).gather(0, far[None]), RuntimeError, "same number of dimensions"),
    "gather dtype": (lambda: ones(3).gather(0, far.float()), RuntimeError, "index"),
    "scatter": (lambda: ones(3).scatter(0, far, ones(2)), RuntimeError, "7.*dimension 0.*size 3"),
    "scatter_add": (lambda: ones(3).scatter_add(0, far, ones(2)), RuntimeError, "7.*dimension 0.*size 3"),
    "scatter dtype": (lambda: ones(3).scatter(0, far, ones(2).double()), RuntimeError, "dtype"),
    "scatter size": (lambda: ones(3).scatter(0, far, ones(1)), RuntimeError, "larger"),
    "scatter reduce": (lambda: ones(3).scatter(0, far, ones(2), reduce="x"), RuntimeError, "add or multiply"),
    "scatter_reduce": (lambda: ones(3).scatter_reduce(0, far, ones(2), "x"), RuntimeError, "amin"),
    "index_reduce": (lambda: ones(3).index_reduce(0, far, ones(2), "sum"), RuntimeError, "prod.*sum"),
    "index_select": (lambda: ones(3).index_select(0, far), IndexError, "out of (range|bounds)"),
    "index_add": (lambda: ones(3).index_add(0, far, ones(2)), IndexError, "out of (range|bounds)"),
    "index_fill": (lambda: ones(3).index_fill(0, far, 1.0), IndexError, "7"),
    "index_fill value": (lambda: ones(3).index_fill(0, far, ones(2)), RuntimeError, "0-dimension"),
    "index": (lambda: ones(3)[far], IndexError, "7.*dimension 0.*size 3"),
    "index behind": (lambda: ones(2, 3)[:, far], IndexError, "7.*size 3"),
    "index_put": (lambda: ones(3).index_put((far,), ones(2)), IndexError, "7.*dimension 0.*size 3"),
    "take": (lambda: ones(3).take(far), IndexError, "7"),
    "put": (lambda: ones(3).put(far, ones(2)), IndexError, "7"),
    "put sizes": (lambda: ones(3).put(far, ones(3)), IndexError, "same number of elements"),
    "put dtype": (lambda: ones(3).put(far, ones(2).double()), RuntimeError, "dtype"),
    "select_scatter": (lambda: ones(3, 4).select_scatter(ones(3), 0, 0), RuntimeError, "slice"),
    "slice step": (lambda: ones(3).slice_scatter(ones(3), step=0), RuntimeError, "positive"),
    "kthvalue": (lambda: ones(3).kthvalue(4), RuntimeError, "k out of range"),
    "median": (lambda: ones(2, 0).median(1), IndexError, "median.*1"),
    "mode": (lambda: ones(0).mode(), IndexError, "mode"),
    "quantile": (lambda: ones(3).quantile(1.5), RuntimeError, "1.5"),
    "quantile q": (lambda: ones(3).quantile(torch.tensor([2.0])), RuntimeError, "range"),
    "quantile dtype": (lambda: far.quantile(0.5), RuntimeError, "float"),
    "quantile empty": (lambda: ones(0).quantile(0.5), RuntimeError, "non-empty"),
    "interpolation": (lambda: ones(3).quantile(0.5, interpolation="cubic"), RuntimeError, "cubic"),
    "aminmax": (lambda: ones(0).aminmax(), RuntimeError, "aminmax"),
    "topk": (lambda: ones(3).topk(4), RuntimeError, "out of range"),
    "unique": (lambda: ones(0, 3).unique(dim=1), RuntimeError, "0 sized"),
    "bincount": (lambda: torch.bincount(-far), RuntimeError, "non-negative"),
    "bincount 2-d": (lambda: torch.bincount(far[None]), RuntimeError, "1-d"),
    "bincount weights": (lambda: torch.bincount(far, ones(3)), RuntimeError, "same length"),
    "bincount length": (lambda: torch.bincount(far, minlength=-1), RuntimeError, "minlength"),
    "histc": (lambda: torch.histc(ones(3), 0), RuntimeError, "bins"),
    "histc range": (lambda: torch.histc(ones(3), 3, 4, 2), RuntimeError, "max"),
    "histogram": (lambda: torch.histogram(ones(3), 0), RuntimeError, "bins"),
    "histogram nan": (lambda: torch.histogram(ones(3) / 0, 3), RuntimeError, "finite"),
    "histogramdd": (lambda: torch.histogramdd(ones(3, 2), [2]), RuntimeError, "innermost"),
    "searchsorted": (lambda: torch.searchsorted(ones(2, 3), ones(3)), RuntimeError, "boundaries"),
    "side": (lambda: torch.searchsorted(ones(3), 1, side="middle"), RuntimeError, "middle"),
    "sides": (lambda: torch.searchsorted(ones(3), 1, side="left", right=True), RuntimeError, "opposites"),
    "sorter": (lambda: torch.searchsorted(ones(3), ones(1), sorter=torch.tensor([0, 1, 9])), RuntimeError, "sorter"),
    "bucketize": (lambda: torch.bucketize(ones(1), ones(2, 2)), RuntimeError, "1 dim"),
    "repeat": (lambda: ones(2).repeat_interleave(-1), RuntimeError, "negative"),
    "repeats": (lambda: ones(2).repeat_interleave(torch.tensor([1, 2, 3])), RuntimeError, "3.*2"),
    "output_size": (lambda: ones(2).repeat_interleave(2, output_size=5), RuntimeError, "5"),
    "nonzero_static": (lambda: ones(2).nonzero_static(size=-1), RuntimeError, "size"),
    "unravel_index": (lambda: torch.unravel_index(ones(2), (2, 3)), TypeError, "integer"),
    "tril_indices": (lambda: torch.tril_indices(-1, 2), RuntimeError, "-1"),
    "multinomial": (lambda: torch.multinomial(torch.tensor([1.0, -1.0]), 1), RuntimeError, "< 0"),
    "multinomial zeros": (lambda: torch.multinomial(torch.zeros(3), 1), RuntimeError, "sum"),
    "multinomial count": (lambda: torch.multinomial(ones(3), 4), RuntimeError, "replacement"),
    "multinomial dtype": (lambda: torch.multinomial(far, 1), RuntimeError, "floating"),
    "masked_scatter": (lambda: ones(3).masked_scatter(ones(3) > 0, ones(2)), RuntimeError, "source"),
    "gather beyond": (lambda: ones(2, 2).gather(1, torch.zeros(3, 2, dtype=I64)), RuntimeError, "larger"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input(name):
    call, kind, words = ERRORS[name]
    with pytest.raises(kind, match=f"(?is){words}"):
        call()


def test_sizes_are_checked_before_memory():
    huge = 1 << 60
    for call in (
        lambda: torch.tril_indices(1 << 31, 1 << 31),
        lambda: ones(4).repeat_interleave(huge),
        lambda: ones(4).repeat_interleave(torch.tensor(huge)),
        lambda: torch.bincount(torch.tensor([huge])),
        lambda: torch.histc(ones(3), huge),
        lambda: ones(4).nonzero_static(size=huge),
    ):
        with pytest.raises((RuntimeError, MemoryError, ValueError)):
            call()


ZEROS = torch.zeros(3, dtype=I64)
OVERLAP = {
    "scatter_": lambda t: t.scatter_(0, ZEROS, ones(3)),
    "scatter_ number": lambda t: t.scatter_(0, ZEROS, 1.0),
    "scatter_add_": lambda t: t.scatter_add_(0, ZEROS, ones(3)),
    "scatter_reduce_": lambda t: t.scatter_reduce_(0, ZEROS, ones(3), "sum"),
    "index_add_": lambda t: t.index_add_(0, ZEROS, ones(3)),
    "index_copy_": lambda t: t.index_copy_(0, ZEROS, ones(3)),
    "index_reduce_": lambda t: t.index_reduce_(0, ZEROS, ones(3), "prod"),
    "put_": lambda t: t.put_(ZEROS, ones(3)),
    "masked_scatter_": lambda t: t.masked_scatter_(ones(3) > 0, ones(3)),
}


@pytest.mark.parametrize("name", OVERLAP)
def test_writing_to_overlapping_memory(name):
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        OVERLAP[name](torch.zeros(1).expand(3))


def test_writing_from_the_same_memory():
    base = ones(4)
    for call in (
        lambda: base[:3].scatter_(0, ZEROS, base[1:]),
        lambda: base[:3].scatter_add_(0, ZEROS, base[1:]),
        lambda: base[:3].index_add_(0, ZEROS, base[1:]),
        lambda: base[:3].index_copy_(0, ZEROS, base[1:]),
    ):
        with pytest.raises(RuntimeError, match="single memory location"):
            call()


# --- the same answer with any number of threads -----------------------------------------------------------------------
@pytest.mark.pyrite
def test_threads_do_not_show():
    x, i = torch.randn(200_000), torch.randint(0, 5000, (200_000,))
    rows = torch.randn(50, 4000)
    calls = [
        lambda: x.sort(stable=True)[1],
        lambda: torch.zeros(5000).scatter_add(0, i, x),
        lambda: torch.zeros(5000).index_add(0, i, x),
        lambda: torch.zeros(5000).index_put((i,), x, accumulate=True),
        lambda: torch.bincount(i, x),
        lambda: x.cumsum(0),
        lambda: rows.cumsum(1),
        lambda: x.topk(100)[1],
        lambda: i.unique(return_counts=True)[1],
        lambda: (x > 0).nonzero(),
        lambda: torch.histc(x, 50),
    ]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [c() for c in calls]
        torch.set_num_threads(3)
        for a, c in zip(alone, calls, strict=True):
            assert torch.equal(a, c())
    finally:
        torch.set_num_threads(before)
