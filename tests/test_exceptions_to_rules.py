"""Elementwise behaviour that a table of operators cannot say: powers by a number, bool operands, polygamma."""

import math

import numpy as np
import pytest
from numeric import check_gradients
from scipy import special
from subject import IS_PYRITE, torch

INF, NAN = math.inf, math.nan
EDGES = [-INF, -2.0, -0.0, 0.0, 4.0, INF, NAN]

# exponent: values at EDGES, gradients at EDGES (both as PyTorch gives them).
POWERS = {
    0.5: ([NAN, NAN, -0.0, 0, 2, INF, NAN], [NAN, NAN, -INF, INF, 0.25, 0, NAN]),
    -0.5: ([NAN, NAN, -INF, INF, 0.5, 0, NAN], None),
    -1: ([-0.0, -0.5, -INF, INF, 0.25, 0, NAN], [-0.0, -0.25, -INF, -INF, -0.0625, -0.0, NAN]),
    0: ([1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]),
    1: ([-INF, -2, -0.0, 0, 4, INF, NAN], [1, 1, 1, 1, 1, 1, 1]),
    2: ([INF, 4, 0, 0, 16, INF, NAN], [-INF, -4, -0.0, 0, 8, INF, NAN]),
    3: ([-INF, -8, -0.0, 0, 64, INF, NAN], [INF, 12, 0, 0, 48, INF, NAN]),
}


def same(a, b):
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    np.testing.assert_array_equal(a, b)
    kept = ~np.isnan(a)
    np.testing.assert_array_equal(np.signbit(a)[kept], np.signbit(b)[kept])


@pytest.mark.parametrize("exponent", POWERS, ids=str)
def test_power_by_a_number(exponent):
    values, slopes = POWERS[exponent]
    for dtype in (torch.float32, torch.float64):
        for e in (exponent, float(exponent)):
            x = torch.tensor(EDGES, dtype=dtype)
            for y in (x**e, torch.pow(x, e), x.pow(e), x.clone().pow_(e), torch.pow(x, e, out=torch.empty_like(x))):
                assert y.dtype == dtype
                same(y.tolist(), values)
            y = x.clone()
            y **= e
            same(y.tolist(), values)
            x.requires_grad_()
            (x**e).sum().backward()
            if slopes:
                same(x.grad.tolist(), slopes)
            z = torch.tensor(EDGES, dtype=dtype, requires_grad=True)
            (z * 1).pow_(e).sum().backward()
            same(z.grad.tolist(), x.grad.tolist())


@pytest.mark.parametrize("exponent", [*POWERS, 2.5, -2, 7])
def test_derivatives_of_powers(exponent):
    check_gradients(lambda x: x**exponent, torch.rand(5, dtype=torch.float64) + 0.5)


def test_powers_of_integers():
    i = torch.tensor([1, 2, -3, 0])
    for e in (0, 1, 2, 3, True):
        y = i**e
        assert y.dtype == torch.int64 and y.tolist() == [v**e for v in i.tolist()]
    for e in (0.5, 2.0, -1.0, -0.5):
        y = i**e
        assert y.dtype == torch.float32
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(y.numpy(), i.numpy().astype(np.float32) ** np.float32(e), rtol=1e-6)
        with pytest.raises(RuntimeError, match="can't be cast"):
            i.clone().pow_(e)
    with pytest.raises(RuntimeError, match="negative integer powers"):
        i**-1


def test_bool_operands():
    b = torch.tensor([True, False])
    for y, dtype, values in [
        (b**True, torch.bool, [True, False]),
        (b**False, torch.bool, [True, True]),
        (b**2, torch.int64, [1, 0]),
        (b**0, torch.int64, [1, 1]),
        (b**2.0, torch.float32, [1, 0]),
        (b**0.5, torch.float32, [1, 0]),
        (b.clone().pow_(True), torch.bool, [True, False]),
        (torch.square(b), torch.int64, [1, 0]),
        (torch.nan_to_num(b), torch.bool, [True, False]),
        (torch.nan_to_num(torch.tensor([3, -1]), nan=2.0, posinf=1.0), torch.int64, [3, -1]),
    ]:
        assert y.dtype == dtype and y.tolist() == values
    for f in (lambda: b**b, lambda: b**-1, lambda: b.clone().pow_(2), lambda: b.clone().square_()):
        with pytest.raises((RuntimeError, NotImplementedError)):
            f()
    for f in (b.argmax, b.argmin):
        with pytest.raises(RuntimeError, match="does not support bool input"):
            f()
    assert b.max(0).indices.item() == 0


def test_polygamma():
    x = np.concatenate([np.linspace(0.01, 60, 500), 10.0 ** np.arange(-8, 12)])
    for n in range(9):
        y = torch.polygamma(n, torch.from_numpy(x))
        np.testing.assert_allclose(y.numpy(), special.polygamma(n, x), rtol=1e-13 if IS_PYRITE else 1e-8)
    # Left of 0 by the recurrence psi(x) = psi(x + 1) - (-1)^n n! x^-(n+1).
    x = torch.tensor([-0.3, -1.6, -7.25], dtype=torch.float64)
    for n in (1, 2, 3, 4):
        step = (-1) ** n * math.factorial(n) * x ** (-n - 1)
        right = torch.polygamma(n, x + 1) - step
        np.testing.assert_allclose(x.polygamma(n).numpy(), right.numpy(), rtol=1e-12 if IS_PYRITE else 1e-8)
    assert torch.polygamma(1, torch.tensor([0.0, -2.0, INF])).tolist() == [INF, INF, 0]
    assert torch.polygamma(1, torch.tensor([2])).dtype == torch.float32
    with pytest.raises(RuntimeError, match="negative n"):
        torch.polygamma(-1, x)
    check_gradients(lambda v: torch.polygamma(1, v), torch.rand(4, dtype=torch.float64) + 0.5)
    check_gradients(torch.digamma, torch.rand(4, dtype=torch.float64) - 1.2)
