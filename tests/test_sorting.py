"""Sorts, runs of equal elements and writes by index on both sides of every border the kernels know, against NumPy.

Borders: one register (16), all registers (128, 256), a leaf (4096), a line that threads share (65536); ranges that are
counted, that fit a u32, that fit a u64 beside the position, that do not; keys that share their leading bits.
"""

import numpy as np
import pytest
from subject import torch

RNG = np.random.default_rng(11)
LENGTHS = [1, 2, 15, 16, 17, 127, 129, 255, 256, 257, 700, 4095, 4097, 20_000, 65_535, 65_537, 150_000]


def same(got, want):
    assert tuple(got.shape) == want.shape
    np.testing.assert_array_equal(got.numpy(), want)


def order(a, descending=False):
    """Stable, NaN greatest, zeros equal: positions by ranks, so that NumPy's order of NaN does not matter."""
    ranks = np.unique(a, return_inverse=True, equal_nan=True)[1].reshape(a.shape)
    return np.argsort(-ranks if descending else ranks, kind="stable")


# How keys lie: each asks for another way of sorting.
SPREADS = {
    "even": lambda n, top: RNG.integers(0, top, n, dtype=np.int64, endpoint=True),
    "whole": lambda n, top: RNG.integers(-top - 1, top, n, dtype=np.int64, endpoint=True),
    "few": lambda n, top: RNG.integers(0, 5, n),
    "counted": lambda n, top: RNG.integers(-50, min(top, 3000), n),
    "short": lambda n, top: RNG.integers(0, min(top, 60_000), n),
    "far": lambda n, top: np.where(RNG.random(n) < 0.001, top, RNG.integers(0, 1 + min(top, 500), n)),
    "crowded": lambda n, top: (top * RNG.random(n) ** 12).astype(np.int64),
    "leading": lambda n, top: RNG.integers(0, 3, n) * (top // 3) + RNG.integers(0, 4, n),
    "one": lambda n, top: np.full(n, top // 2),
    "up": lambda n, top: np.sort(RNG.integers(0, top, n, dtype=np.int64)),
    "down": lambda n, top: np.sort(RNG.integers(0, top, n, dtype=np.int64))[::-1],
}


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "uint8"])
@pytest.mark.parametrize("spread", SPREADS)
def test_integers(spread, dtype):
    top = int(np.iinfo(dtype).max)
    for n in LENGTHS:
        if n > 70_000 and dtype not in ("int64", "int32"):
            continue
        a = SPREADS[spread](n, top // 2 if dtype == "uint8" else top).astype(dtype)
        x = torch.tensor(a)
        for down in (False, True):
            values, at = x.sort(stable=True, descending=down)
            want = order(a, down)
            same(at, want)
            same(values, a[want])
        # Values without positions, and what is built on them.
        same(torch.unique(x), np.unique(a))
        same(torch.msort(x), np.sort(a))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("kind", ["normal", "uniform", "integers", "huge", "one"])
def test_floats(kind, dtype):
    make = {
        "normal": lambda n: RNG.standard_normal(n),
        "uniform": lambda n: RNG.random(n) * 1e-3 + 1,
        "integers": lambda n: RNG.integers(-3, 4, n) * 0.5,
        "huge": lambda n: RNG.standard_normal(n) * np.exp2(RNG.integers(-12, 12, n)),
        "one": lambda n: np.full(n, -2.5),
    }[kind]
    for n in LENGTHS:
        a = make(n).astype(dtype)
        if kind != "one":
            a[RNG.random(n) < 0.02] = np.nan
            a[RNG.random(n) < 0.02] = 0.0
            a[RNG.random(n) < 0.02] = -0.0
            a[RNG.random(n) < 0.01] = np.inf
            a[RNG.random(n) < 0.01] = -np.inf
        x = torch.tensor(a)
        for down in (False, True):
            values, at = x.sort(stable=True, descending=down)
            want = order(a, down)
            same(at, want)
            # Bit by bit but for NaN: zeros keep their signs.
            got, wanted = values.numpy(), a[want]
            np.testing.assert_array_equal(got, wanted)
            fine = ~np.isnan(wanted)
            np.testing.assert_array_equal(np.signbit(got[fine]), np.signbit(wanted[fine]))


@pytest.mark.parametrize("n", [3, 16, 20, 100, 256, 300, 5000, 70_000])
@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", "float64", "bool"])
def test_layouts(dtype, n):
    a = (RNG.standard_normal((n, 6)) * 1000).astype(dtype)
    x = torch.tensor(a)
    for name, view, array in [
        ("columns", x[:, ::2], a[:, ::2]),
        ("reversed", x.flip(0)[:, 1:3], a[::-1, 1:3]),
        ("rows", x.t()[1:4], a.T[1:4]),
        ("expanded", x[:, :1].expand(n, 3), np.broadcast_to(a[:, :1], (n, 3))),
    ]:
        dim = 1 if name == "rows" else 0
        values, at = view.sort(dim, stable=True)
        want = np.argsort(array, axis=dim, kind="stable")
        same(at, want)
        same(values, np.take_along_axis(array, want, dim))
    k = max(1, n // 2)
    values, at = x.topk(k, 0)
    same(values, np.sort(a, axis=0)[::-1][:k])
    same(x.gather(0, at), values.numpy())


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", "float64", "float16", "bool"])
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 129, 5000, 300_000])
def test_unique_consecutive(n, dtype):
    for repeat in (1, 3, 200):
        a = np.repeat(RNG.integers(0, 4, n), repeat)[:n].astype(dtype)
        starts = np.flatnonzero(np.r_[True, a[1:] != a[:-1]])
        values, inverse, counts = torch.unique_consecutive(torch.tensor(a), return_inverse=True, return_counts=True)
        same(values, a[starts])
        same(inverse, np.cumsum(np.r_[True, a[1:] != a[:-1]]) - 1)
        same(counts, np.diff(np.r_[starts, n]))
        same(torch.unique_consecutive(torch.tensor(a)), a[starts])
        # What it returns owns what it says it has.
        assert torch.unique_consecutive(torch.tensor(a)).is_contiguous()


def test_unique_consecutive_tells_nans_apart_and_not_zeros():
    x = torch.tensor([0.0, -0.0, 1.0, float("nan"), float("nan"), -0.0, 0.0, 0.0])
    values, counts = torch.unique_consecutive(x, return_counts=True)
    assert counts.tolist() == [2, 1, 1, 1, 3]
    assert np.signbit(values.numpy()[[0, 4]]).tolist() == [False, True]
    both = torch.tensor([[1, 1, 2], [2, 2, 2]])
    values, inverse = torch.unique_consecutive(both.t(), return_inverse=True)
    assert values.tolist() == [1, 2, 1, 2] and inverse.tolist() == [[0, 1], [2, 3], [3, 3]]


def test_unique_with_inverse_and_counts():
    for n in (50, 5000, 200_000):
        a = RNG.integers(-(10**12), 10**12, n) // 10**8
        values, inverse, counts = torch.unique(torch.tensor(a), return_inverse=True, return_counts=True)
        want = np.unique(a, return_inverse=True, return_counts=True)
        same(values, want[0])
        same(inverse, want[1])
        same(counts, want[2])


@pytest.mark.parametrize("size", [300, 65_536, 65_537])
def test_large_indices_are_checked_and_kept(size):
    """An index of more than 2^17 elements into a short dimension is read once for the check and the write."""
    rows, cols = 135, 1000
    at = np.stack([RNG.permutation(size)[:cols] if size >= cols else RNG.integers(0, size, cols) for _ in range(rows)])
    v = RNG.standard_normal((rows, cols))
    into = np.zeros((rows, size))
    np.add.at(into, (np.arange(rows)[:, None], at), v)
    x, i = torch.zeros(rows, size, dtype=torch.float64), torch.tensor(at)
    np.testing.assert_allclose(x.scatter_add(1, i, torch.tensor(v)).numpy(), into, rtol=1e-12)
    np.testing.assert_allclose(x.t().scatter_add(0, i.t(), torch.tensor(v).t()).numpy(), into.T, rtol=1e-12)
    for bad in (size, -1, size + 2**16, 2**40):
        wrong = i.clone()
        wrong[rows - 1, cols - 2] = bad
        with pytest.raises(RuntimeError, match="out of bounds"):
            x.scatter_(1, wrong, torch.tensor(v))
        with pytest.raises(RuntimeError, match="out of bounds"):
            x.scatter_add_(1, wrong, torch.tensor(v))


@pytest.mark.pyrite
def test_a_bad_index_leaves_the_tensor_alone():
    x, i = torch.zeros(200, 1000), torch.zeros(200, 1000, dtype=torch.int64)
    i[150, 3] = 1000
    with pytest.raises(RuntimeError, match="index 1000 is out of bounds for dimension 1 with size 1000"):
        x.scatter_(1, i, 1.0)
    assert not x.any()


def test_rolled_rows_past_the_caches():
    a = RNG.standard_normal((4600, 1031)).astype(np.float32)
    same(torch.tensor(a).roll(100, 1), np.roll(a, 100, 1))
    same(torch.tensor(a)[:, 3:1000].clone(), a[:, 3:1000])


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_halves_to_and_from_everything(half, n):
    a = RNG.integers(-100, 100, n)
    h = torch.tensor(a).to(getattr(torch, half))
    for to in ["int64", "int32", "int16", "int8", "float32", "float64", "bool"]:
        same(h.to(getattr(torch, to)), a.astype(to))
        back = torch.tensor(a.astype(to)).to(getattr(torch, half))
        same(back.float(), a.astype(to).astype(np.float32))
    other = torch.float16 if half == "bfloat16" else torch.bfloat16
    same(h.to(other).double(), a.astype(np.float64))
