"""uint16, uint32 and uint64: what NumPy computes with them, and what PyTorch makes of sums and promotion."""

import io

import numpy as np
import pytest
from subject import torch

pytestmark = pytest.mark.pyrite  # PyTorch has these dtypes for storage, and few operators for them.

DTYPES = {torch.uint16: np.uint16, torch.uint32: np.uint32, torch.uint64: np.uint64}


def draw(dtype, shape=(5, 7), seed=0):
    kind = DTYPES[dtype]
    top = np.iinfo(kind).max
    values = np.random.default_rng([seed, top % 97]).integers(0, top, shape, dtype=kind, endpoint=True)
    values.reshape(-1)[:3] = 0, 1, top
    return torch.from_numpy(values)


BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
    "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor, "eq": np.equal,
    "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "gcd": np.gcd,
    "fmax": np.fmax, "fmin": np.fmin, "logical_and": np.logical_and, "logical_or": np.logical_or,
}  # fmt: skip
DIVISIONS = {"floor_divide": np.floor_divide, "remainder": np.remainder, "fmod": np.fmod}
UNARY = {
    "abs": np.abs, "square": np.square, "neg": np.negative, "bitwise_not": np.invert, "sign": np.sign,
    "logical_not": np.logical_not, "floor": lambda x: x, "conj_physical": lambda x: x,
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*BINARY, *DIVISIONS])
def test_binary(name, dtype):
    a, b = draw(dtype), draw(dtype, seed=1)
    if name in DIVISIONS:
        b = torch.maximum(b, torch.ones_like(b))
    got = getattr(torch, name)(a, b.t().contiguous().t())
    expected = {**BINARY, **DIVISIONS}[name](a.numpy(), b.numpy())
    assert got.numpy().dtype == expected.dtype
    np.testing.assert_array_equal(got.numpy(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_unary(name, dtype):
    a = draw(dtype)
    np.testing.assert_array_equal(getattr(torch, name)(a[:, ::2]).numpy(), UNARY[name](a.numpy()[:, ::2]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_with_numbers(dtype):
    a = draw(dtype)
    x, kind = a.numpy(), DTYPES[dtype]
    for n in (0, 1, 3, np.iinfo(kind).max):
        n = int(n)
        np.testing.assert_array_equal((a + n).numpy(), x + kind(n))
        np.testing.assert_array_equal((a ^ n).numpy(), x ^ kind(n))
        np.testing.assert_array_equal((a > n).numpy(), x > kind(n))
        np.testing.assert_array_equal((a == n).numpy(), x == kind(n))
    np.testing.assert_array_equal((a << 3).numpy(), x << kind(3))
    np.testing.assert_array_equal((a >> 5).numpy(), x >> kind(5))
    np.testing.assert_array_equal((a**2).numpy(), x * x)
    np.testing.assert_array_equal(a.clamp(2, 60_000).numpy(), x.clip(2, 60_000))
    assert (a + 1).dtype == dtype and (a * 1.5).dtype == torch.float32 and (a / 2).dtype == torch.float32
    assert (a + True).dtype == dtype and (a * 1j).dtype == torch.complex64


@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions(dtype):
    a = draw(dtype)
    x = a.numpy()
    assert a.sum().dtype == torch.int64
    for dim in (0, 1):
        np.testing.assert_array_equal(a.sum(dim).numpy(), x.astype(np.int64).sum(dim))
        np.testing.assert_array_equal(a.sum(dim, dtype=dtype).numpy(), x.sum(dim, dtype=x.dtype))
        np.testing.assert_array_equal(a.amax(dim).numpy(), x.max(dim))
        np.testing.assert_array_equal(a.amin(dim).numpy(), x.min(dim))
        np.testing.assert_array_equal(a.argmax(dim).numpy(), x.argmax(dim))
        np.testing.assert_array_equal(a.argmin(dim).numpy(), x.argmin(dim))
        np.testing.assert_array_equal(a.cumsum(dim).numpy(), x.astype(np.int64).cumsum(dim))
        np.testing.assert_array_equal(a.count_nonzero(dim).numpy(), np.count_nonzero(x, dim))
        np.testing.assert_array_equal(a.any(dim).numpy(), x.any(dim))
        np.testing.assert_array_equal(a.max(dim).values.numpy(), x.max(dim))
    np.testing.assert_allclose(a.to(torch.float64).mean().item(), x.mean(), rtol=1e-12)
    np.testing.assert_allclose(a.mean(dtype=torch.float64).item(), x.mean(), rtol=1e-12)
    assert a.max().item() == int(x.max()) and a.min().item() == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_order_and_selection(dtype):
    a = draw(dtype)
    x = a.numpy()
    np.testing.assert_array_equal(a.sort(1).values.numpy(), np.sort(x, 1))
    np.testing.assert_array_equal(a.sort(1, descending=True).values.numpy(), np.sort(x, 1)[:, ::-1])
    np.testing.assert_array_equal(a.topk(3, 1).values.numpy(), np.sort(x, 1)[:, :-4:-1])
    np.testing.assert_array_equal(a.nonzero().numpy(), np.argwhere(x))
    np.testing.assert_array_equal(torch.where(a > 7, a, a * 0).numpy(), np.where(x > 7, x, 0))
    np.testing.assert_array_equal(a[a > 7].numpy(), x[x > 7])
    np.testing.assert_array_equal(a[[0, 2]].numpy(), x[[0, 2]])
    np.testing.assert_array_equal(torch.cat([a, a]).numpy(), np.concatenate([x, x]))
    np.testing.assert_array_equal(a.gather(1, torch.zeros(5, 2, dtype=torch.int64)).numpy(), x[:, [0, 0]])
    np.testing.assert_array_equal(a.index_select(0, torch.tensor([4, 0])).numpy(), x[[4, 0]])
    np.testing.assert_array_equal(a.flip(0).numpy(), x[::-1])
    np.testing.assert_array_equal((a.t() @ a).numpy(), x.T @ x)
    b = a.clone()
    b.masked_fill_(b > 7, 5)
    np.testing.assert_array_equal(b.numpy(), np.where(x > 7, 5, x))
    b[0] = 9
    b.index_add_(0, torch.tensor([1]), a[:1])
    assert b[0].tolist() == [9] * 7


@pytest.mark.parametrize("dtype", DTYPES)
def test_creation_and_conversion(dtype):
    kind = DTYPES[dtype]
    top = int(np.iinfo(kind).max)
    assert torch.tensor([1, top], dtype=dtype).tolist() == [1, top]
    assert torch.tensor(top, dtype=dtype).item() == top
    assert torch.full((2,), top, dtype=dtype).tolist() == [top, top]
    assert torch.arange(5, dtype=dtype).tolist() == [0, 1, 2, 3, 4]
    assert torch.zeros(2, dtype=dtype).fill_(top).tolist() == [top, top]
    assert str(top) in repr(torch.tensor([top], dtype=dtype)) and str(dtype) in repr(torch.tensor([top], dtype=dtype))
    assert int(torch.tensor(top, dtype=dtype)) == top and float(torch.tensor(top, dtype=dtype)) == float(top)
    assert bool(torch.tensor(top, dtype=dtype)) and range(10)[torch.tensor(3, dtype=dtype)] == 3
    info = torch.iinfo(dtype)
    assert (info.min, info.max, info.bits) == (0, top, np.iinfo(kind).bits)
    a = draw(dtype)
    for to in (torch.int64, torch.uint8, torch.float64, torch.float32, torch.uint64, torch.bool, torch.int16):
        np.testing.assert_array_equal(a.to(to).numpy(), a.numpy().astype(a.to(to).numpy().dtype))
    back = torch.from_numpy(a.numpy())
    assert back.dtype == dtype and back.data_ptr() == a.data_ptr()
    assert torch.from_dlpack(a).dtype == dtype
    np.testing.assert_array_equal(np.from_dlpack(a), a.numpy())
    file = io.BytesIO()
    torch.save([a, a.t()[1:]], file)
    file.seek(0)
    one, other = torch.load(file)
    assert one.dtype == dtype and one.tolist() == a.tolist() and other.tolist() == a.t()[1:].tolist()
    assert torch.randint(0, 9, (3,), dtype=dtype).dtype == dtype


def test_promotion_is_numpys_where_pytorch_has_none():
    names = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"]
    for a in names:
        for b in names:
            got = torch.promote_types(getattr(torch, a), getattr(torch, b))
            expected = np.promote_types(a, b).name
            both_old = not ({a, b} & {"uint16", "uint32", "uint64"})
            if "float32" in (a, b) and "float64" not in (a, b):
                expected = "float32"  # PyTorch: any float wins over any integer
            assert str(got) == f"torch.{expected}", (a, b)
            assert both_old or torch.promote_types(getattr(torch, b), getattr(torch, a)) == got


def test_refusals():
    with pytest.raises(OverflowError):
        torch.tensor(-1, dtype=torch.uint64)
    with pytest.raises((OverflowError, RuntimeError)):
        torch.tensor([2**63])
    with pytest.raises((OverflowError, RuntimeError)):
        torch.ones(2, dtype=torch.int64) + 2**63
    with pytest.raises(OverflowError):
        torch.tensor(2**64, dtype=torch.uint64)
    with pytest.raises(RuntimeError):
        torch.ones(2, dtype=torch.uint32) // 0
