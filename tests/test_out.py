"""`out=` for every operator that takes it, overlap of what is read and written, and forms by mechanism."""

import warnings

import numpy as np
import pytest
from subject import IS_PYRITE, torch


def x(*shape):
    return torch.arange(1.0, 1 + int(np.prod(shape))).reshape(shape)


def spd(n):
    a = x(n, n) / n
    return a @ a.T + torch.eye(n)


# Calls of one result, each as a function of out= alone.
CALLS = {
    "add": lambda **k: torch.add(x(3), 1, **k),
    "mul": lambda **k: torch.mul(x(2, 3), x(3), **k),
    "exp": lambda **k: torch.exp(x(3), **k),
    "eq": lambda **k: torch.eq(x(3), 2, **k),
    "where": lambda **k: torch.where(x(3) > 1, x(3), 0.0, **k),
    "clamp": lambda **k: torch.clamp(x(3), 1.5, 2.5, **k),
    "round": lambda **k: torch.round(x(3) / 2, **k),
    "div": lambda **k: torch.div(x(3), 2, rounding_mode="floor", **k),
    "pow": lambda **k: torch.pow(2, x(3), **k),
    "sum": lambda **k: torch.sum(x(2, 3), 0, **k),
    "mean": lambda **k: torch.mean(x(2, 3), 1, **k),
    "amax": lambda **k: torch.amax(x(2, 3), 1, **k),
    "argmax": lambda **k: torch.argmax(x(2, 3), 1, **k),
    "all": lambda **k: torch.all(x(2, 3) > 1, 1, **k),
    "var": lambda **k: torch.var(x(2, 3), 1, **k),
    "norm": lambda **k: torch.norm(x(2, 3), dim=1, **k),
    "logsumexp": lambda **k: torch.logsumexp(x(2, 3), 1, **k),
    "cumsum": lambda **k: torch.cumsum(x(2, 3), 1, **k),
    "cat": lambda **k: torch.cat([x(2), x(3)], **k),
    "stack": lambda **k: torch.stack([x(2), x(2)], **k),
    "hstack": lambda **k: torch.hstack([x(2), x(2)], **k),
    "column_stack": lambda **k: torch.column_stack([x(2), x(2)], **k),
    "tril": lambda **k: torch.tril(x(3, 3), **k),
    "diag": lambda **k: torch.diag(x(3), **k),
    "diff": lambda **k: torch.diff(x(4), **k),
    "narrow_copy": lambda **k: torch.narrow_copy(x(4), 0, 1, 2, **k),
    "lcm": lambda **k: torch.lcm(torch.tensor([4, 6]), torch.tensor([6, 9]), **k),
    "float_power": lambda **k: torch.float_power(x(3), 2, **k),
    "ldexp": lambda **k: torch.ldexp(x(3), torch.tensor([1, 2, 3]), **k),
    "nanmean": lambda **k: torch.nanmean(x(2, 3), 1, **k),
    "mm": lambda **k: torch.mm(x(2, 3), x(3, 2), **k),
    "matmul": lambda **k: torch.matmul(x(2, 3), x(3), **k),
    "gather": lambda **k: torch.gather(x(2, 3), 1, torch.tensor([[0], [2]]), **k),
    "index_select": lambda **k: torch.index_select(x(3, 2), 0, torch.tensor([2, 0]), **k),
    "arange": lambda **k: torch.arange(4, **{"dtype": torch.float32} | k),
    "linspace": lambda **k: torch.linspace(0, 1, 5, **k),
    "eye": lambda **k: torch.eye(2, 3, **k),
    "full": lambda **k: torch.full((2, 2), 7.0, **k),
}


@pytest.mark.parametrize("name", CALLS)
def test_forms_of_out(name):
    call = CALLS[name]
    want = call()
    for out in (
        torch.empty(tuple(want.shape), dtype=want.dtype),
        torch.empty(0, dtype=want.dtype),
        torch.empty(tuple(want.shape) + (2,), dtype=want.dtype)[..., 0],
        torch.empty(tuple(want.shape)[::-1], dtype=want.dtype).permute(*range(want.dim() - 1, -1, -1)),
    ):
        kept = out.data_ptr() if out.numel() else None
        extra = {} if name != "arange" else {"dtype": want.dtype}
        assert call(out=out, **extra) is out
        np.testing.assert_array_equal(out.numpy(), want.numpy())
        assert kept is None or out.data_ptr() == kept


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"arange", "linspace", "eye", "full"}))
def test_a_result_that_does_not_fit(name):
    call = CALLS[name]
    want = call()
    with pytest.warns(UserWarning, match="was resized"):
        out = call(out=torch.empty(tuple(s + 1 for s in want.shape) or (2,), dtype=want.dtype))
    np.testing.assert_array_equal(out.numpy(), want.numpy())
    # (Sums are added up in the dtype of `out`, whatever it is.)
    if want.dtype.is_floating_point and name not in ("cumsum", "sum"):
        with pytest.raises((RuntimeError, TypeError), match=r"can't be cast|to have dtype|dtype|Expected"):
            call(out=torch.empty(tuple(want.shape), dtype=torch.int64))
        with pytest.raises(RuntimeError, match="automatic differentiation"):
            call(out=torch.empty(tuple(want.shape), dtype=want.dtype, requires_grad=True))
    if want.numel() > 1 and IS_PYRITE:
        with pytest.raises(RuntimeError, match="single memory location"):
            call(out=torch.empty((1,) * want.dim(), dtype=want.dtype).expand(tuple(want.shape)))


def test_results_of_several_tensors():
    a = x(2, 3)
    v, i = torch.empty(0), torch.empty(0, dtype=torch.int64)
    r = torch.max(a, 1, out=(v, i))
    assert r.values is v and r.indices is i
    assert v.tolist() == [3, 6] and i.tolist() == [2, 2]
    v, i = torch.empty(2, 3), torch.empty(2, 3, dtype=torch.int64)
    r = torch.sort(a, 1, True, out=(v, i))
    assert r[0] is v and v.tolist() == [[3, 2, 1], [6, 5, 4]] and i.tolist() == [[2, 1, 0]] * 2
    m, e = torch.empty(0), torch.empty(0, dtype=torch.int32)
    torch.frexp(torch.tensor([10.0]), out=(m, e))
    assert (m.item(), e.item()) == (0.625, 4)
    with pytest.raises(TypeError):
        torch.max(a, 1, out=(v,))
    with pytest.raises(TypeError):
        torch.add(a, 1, out=3)


def test_factories_take_dtype_from_out():
    out = torch.empty(3, dtype=torch.float64)
    assert torch.zeros(3, out=out) is out and out.tolist() == [0, 0, 0]
    assert torch.arange(3, out=torch.empty(0)).dtype == torch.float32
    assert torch.rand(3, out=out) is out and ((0 <= out) & (out < 1)).all()
    assert sorted(torch.randperm(3, out=torch.empty(0, dtype=torch.int32)).tolist()) == [0, 1, 2]
    assert torch.ones(2, out=torch.empty(0, dtype=torch.int64)).dtype == torch.int64
    with pytest.raises(RuntimeError, match="does not match dtype of out"):
        torch.zeros(3, dtype=torch.float32, out=out)


def test_out_among_the_inputs():
    a = x(3, 3)
    want = a + a.T
    b = a.clone()
    torch.add(b, a.T, out=b)
    np.testing.assert_array_equal(b.numpy(), want.numpy())
    with pytest.raises(RuntimeError, match="single memory location"):
        b = a.clone()
        torch.add(b, b.T, out=b)
    with pytest.raises(RuntimeError, match="single memory location"):
        v = x(5)
        torch.mul(v[1:], 2, out=v[:-1])


# What is written, what is read, and whether they may share memory: (view of a 6x6 matrix, view, allowed).
PAIRS = [
    (lambda m: m, lambda m: m, True),
    (lambda m: m[:3], lambda m: m[3:], True),
    (lambda m: m[:, :3], lambda m: m[:, 3:], True),
    (lambda m: m[::2], lambda m: m[1::2], True),
    (lambda m: m[:, ::2], lambda m: m[:, 1::2], True),
    (lambda m: m[:5], lambda m: m[1:], False),
    (lambda m: m[:, :4], lambda m: m[:, 2:], False),
    (lambda m: m, lambda m: m.T, False),
    (lambda m: m[0], lambda m: m[:, 0], False),
    (lambda m: m[0, 1:], lambda m: m[1:, 0], True),
]


@pytest.mark.parametrize("i", range(len(PAIRS)))
def test_in_place_overlap(i):
    write, read, allowed = PAIRS[i]
    m = x(6, 6)
    if not allowed:
        with pytest.raises(RuntimeError, match="single memory location"):
            write(m).mul_(read(m))
        np.testing.assert_array_equal(m.numpy(), x(6, 6).numpy())
        return
    want = (write(m) * read(m)).numpy()
    write(m).mul_(read(m))
    np.testing.assert_array_equal(write(m).numpy(), want)


def test_expanded_tensors_are_not_written_to():
    for f in (
        lambda t: t.add_(1),
        lambda t: t.copy_(torch.ones(3)),
        lambda t: t.random_(),
        lambda t: t.clamp_(0, 1),
        lambda t: torch.exp(torch.ones(3), out=t),
        lambda t: torch.cumsum(torch.ones(3), 0, out=t),
    ):
        with pytest.raises(RuntimeError, match="single memory location"):
            f(torch.ones(1).expand(3))


def test_resize_warning_may_be_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            torch.add(x(2), 1, out=torch.empty(3))
        torch.add(x(2), 1, out=torch.empty(0))


IN_PLACE = [
    ("ceil_", (), torch.tensor([3, 4])),
    ("floor_", (), torch.tensor([3, 4])),
    ("trunc_", (), torch.tensor([3, 4])),
    ("round_", (), torch.tensor([3, 4])),
]


@pytest.mark.parametrize("name,args,t", IN_PLACE, ids=[c[0] for c in IN_PLACE])
def test_rounding_integers_in_place(name, args, t):
    before = t.tolist()
    assert getattr(t, name)(*args) is t and t.tolist() == before


NUMBERS_ALONE = ["pow", "remainder", "bitwise_and", "bitwise_or", "bitwise_xor", "xlogy", "bitwise_left_shift"]


@pytest.mark.parametrize("name", NUMBERS_ALONE)
def test_one_of_two_operands_is_a_tensor(name):
    f = getattr(torch, name)
    assert f(3, torch.tensor([2])).shape == f(torch.tensor([3]), 2).shape == (1,)
    with pytest.raises(TypeError):
        f(3, 2)
