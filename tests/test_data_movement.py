"""Kernels that move elements (casts, gathers, scatters, masks, short runs, rows past the caches) against NumPy.

Sizes lie on both sides of what the kernels treat apart: vectors' lengths, batches, tables that leave the nearest caches,
rows that are written past them.
"""

import numpy as np
import pytest

import pyrite as torch

RNG = np.random.default_rng(5)
HALVES = {"float16": np.float16}
KINDS = ["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def same(got, want):
    assert tuple(got.shape) == want.shape
    np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 1023, 1025, 3000])
@pytest.mark.parametrize("source", KINDS)
def test_casts_are_numpys(source, n):
    a = (RNG.random(n) * 100).astype(source)
    for to in KINDS:
        same(torch.tensor(a).to(getattr(torch, to)), a.astype(to))


def test_floats_out_of_range_become_the_smallest_integer():
    x = torch.tensor([3e9, float("nan"), -5e9, -1.5, 300.7, float("inf"), float("-inf")] * 5)
    low32, low64 = -(2**31), -(2**63)
    assert x.to(torch.int32).tolist() == [low32, low32, low32, -1, 300, low32, low32] * 5
    want = [3_000_000_000, low64, -5_000_000_000, -1, 300, low64, low64] * 5
    assert x.to(torch.int64).tolist() == want
    assert x.double().to(torch.int64).tolist() == want
    assert x.to(torch.uint8).tolist() == [0, 0, 0, 255, 44, 0, 0] * 5


@pytest.mark.parametrize("source", ["float64", "int64", "int32", "bool", "float16"])
def test_bfloat16_is_the_rounded_float32(source):
    a = (RNG.random(1030) * 200 - 50).astype(source)
    bits = a.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    x = torch.tensor(a).to(torch.bfloat16)
    same(x.float(), rounded)
    same(x.double(), rounded.astype(np.float64))
    same(x.to(torch.int16), rounded.astype(np.int16))
    same(x.half(), rounded.astype(np.float16))


@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("n", [5, 100_000])
def test_lines_of_indices(n, index_dtype):
    a, at = RNG.standard_normal(n).astype(np.float32), RNG.integers(0, n, n + 3)
    x, i = torch.tensor(a), torch.tensor(at).to(index_dtype)
    same(x.gather(0, i), a[at])
    same(x[i], a[at])
    same(x.index_select(0, i), a[at])
    same(x.gather(0, i.flip(0)), a[at[::-1]])
    base = np.zeros(n, np.int64)
    np.add.at(base, at, np.arange(n + 3))
    same(torch.zeros(n, dtype=torch.int64).scatter_add(0, i, torch.arange(n + 3)), base)
    last = np.zeros(n, np.int64)
    last[at] = np.arange(n + 3)
    same(torch.zeros(n, dtype=torch.int64).scatter(0, i, torch.arange(n + 3)), last)


@pytest.mark.parametrize("bad", [-1, 40, 2**40])
@pytest.mark.parametrize("n", [3, 40])
def test_bad_indices_are_errors_wherever_they_stand(n, bad):
    x = torch.arange(40 * 40).view(40, 40)
    for where in (0, n // 2, n - 1):
        at = torch.zeros(n, dtype=torch.int64)
        at[where] = bad
        for dim in (0, 1):
            with pytest.raises(IndexError, match=f"index {bad} is out of bounds for dimension {dim} with size 40"):
                x.index_select(dim, at)
            wide = at.expand(40, n) if dim == 1 else at[:, None].expand(n, 40)
            with pytest.raises(RuntimeError, match="out of bounds"):
                x.gather(dim, wide)
            with pytest.raises(RuntimeError, match="out of bounds"):
                x.scatter(dim, wide, 0)


@pytest.mark.parametrize("layout", ["dense", "transposed", "strided", "expanded"])
def test_index_select_of_single_elements(layout):
    a = RNG.integers(0, 9, (60, 70)).astype(np.int32)
    x = torch.tensor(a)
    if layout == "transposed":
        a, x = a.T, x.t()
    elif layout == "strided":
        a, x = a[::2, ::3], x[::2, ::3]
    elif layout == "expanded":
        a, x = np.broadcast_to(a[:, :1], (60, 70)), x[:, :1].expand(60, 70)
    at = RNG.integers(0, a.shape[1], 33)
    same(x.index_select(1, torch.tensor(at)), a[:, at])
    same(x.index_select(1, torch.tensor(at[::-1].copy()).flip(0)), a[:, at])
    same(x.index_select(0, torch.tensor(at % a.shape[0])), a[at % a.shape[0]])


def test_rows_written_past_the_caches():
    a = RNG.standard_normal((1100, 4096)).astype(np.float32)
    x, at = torch.tensor(a), RNG.integers(0, 1100, 1100)
    same(x.index_select(0, torch.tensor(at)), a[at])
    same(torch.cat([x, x], 1), np.concatenate([a, a], 1))
    same(torch.cat([x[:, 1:], x[:, :1]], 1), np.concatenate([a[:, 1:], a[:, :1]], 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 16, 17])
def test_copies_of_short_runs(n, dtype):
    a = (RNG.random((7, 50, 20)) * 100).astype(dtype)
    x = torch.tensor(a)
    same(x[:, :, :n].contiguous(), a[:, :, :n])
    same(x[:, ::3, 1 : n + 1].contiguous(), a[:, ::3, 1 : n + 1])
    same(x[:, :, ::2][:, :, :n].contiguous(), a[:, :, ::2][:, :, :n])
    same(x.repeat_interleave(n, 1), a.repeat(n, 1))
    same(x.flip(2)[:, :, :n].contiguous(), a[:, :, ::-1][:, :, :n])
    y = torch.zeros(7, 50, 40, dtype=x.dtype)
    y[:, :, 3 : 3 + n] = x[:, :, :n]
    want = np.zeros((7, 50, 40), dtype)
    want[:, :, 3 : 3 + n] = a[:, :, :n]
    same(y, want)


def test_repeat_interleave_of_a_tensor():
    for times in (RNG.integers(0, 3, 500), RNG.integers(0, 9, 500), np.zeros(500, int), np.array([5] * 499 + [0])):
        a = RNG.standard_normal(500).astype(np.float32)
        same(torch.tensor(a).repeat_interleave(torch.tensor(times)), a.repeat(times))
        same(torch.repeat_interleave(torch.tensor(times)), np.arange(500).repeat(times))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_masks(share, transposed):
    a, m = RNG.integers(0, 99, (70, 90)), RNG.random((70, 90)) < share
    x, mask = torch.tensor(a), torch.tensor(m)
    if transposed:
        a, m, x, mask = a.T, m.T, x.t(), mask.t()
    same(x[mask], a[m])
    want = a.copy()
    want[m] = np.arange(m.sum())
    same(x.masked_scatter(mask, torch.arange(a.size)), want)
    same(mask.nonzero(), np.argwhere(m))


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8", "uint8"])
@pytest.mark.parametrize("ends", [(0, 120), (-100, 100), (-5, -1), (7, 8)])
def test_unique_by_counting(dtype, ends):
    low, high = ends
    if dtype == "uint8":
        low, high = abs(low), abs(low) + 50
    a = RNG.integers(low, high, size=(100, 60)).astype(dtype)
    values, inverse, counts = torch.unique(torch.tensor(a), return_inverse=True, return_counts=True)
    want = np.unique(a, return_inverse=True, return_counts=True)
    assert values.numpy().dtype == a.dtype
    same(values, want[0])
    same(inverse, want[1].reshape(a.shape))
    same(counts, want[2])


def test_unique_at_the_ends_of_int64():
    for edge, step in ((2**63 - 1, -4), (-(2**63), 4)):
        a = np.full(5000, edge)
        a[3] = edge + step
        same(torch.unique(torch.tensor(a)), np.unique(a))


def test_histogram_counts_are_numpys():
    a = RNG.standard_normal(5000).astype(np.float32)
    got = torch.tensor(a).histc(64, -2, 2)
    same(got, np.histogram(a, 64, (-2, 2))[0].astype(np.float32))


def test_permutations_and_integers():
    torch.manual_seed(3)
    for n in (1, 2, 31, 32, 33, 1000, 70_000):
        assert torch.randperm(n).sort().values.tolist() == list(range(n))
    x = torch.randint(-3, 5, (80_000,))
    counts = np.bincount(x.numpy() + 3)
    assert len(counts) == 8 and abs(counts - 10_000).max() < 500
    wide = torch.randint(-(2**40), 2**41, (50_000,)).double() / 2**40
    assert -1 <= wide.min().item() and wide.max().item() < 2 and abs(wide.mean().item() - 0.5) < 0.02
