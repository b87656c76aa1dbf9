"""Special functions beyond the op table's lines: integer orders, several results, options, far ranges, known bounds."""

import math

import numpy as np
import pytest
from numeric import check_gradients
from scipy import special as ref
from subject import IS_PYRITE, torch

S = torch.special


def grid(lo, hi, n=41):
    return torch.linspace(lo, hi, n, dtype=torch.float64)


def close(got, want, rtol=1e-12, atol=0.0):
    np.testing.assert_allclose(got.numpy(), want, rtol=rtol, atol=atol)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7])
def test_polygamma(n):
    x = grid(0.1, 9.0)
    close(torch.polygamma(n, x), ref.polygamma(n, x.numpy()), 1e-11, 1e-11)
    assert torch.equal(x.polygamma(n), S.polygamma(n, x))
    y = x.clone()
    y.polygamma_(n)
    assert torch.equal(y, x.polygamma(n))
    # The recurrence, also below zero.
    z = grid(-4.8, -0.2, 12) + 0.05
    step = (-1.0) ** n * math.factorial(n) * z ** (-n - 1)
    close(torch.polygamma(n, z + 1), (torch.polygamma(n, z) + step).numpy(), 1e-9 if IS_PYRITE else 1e-2, 1e-9)
    check_gradients(lambda x: torch.polygamma(n, x), grid(0.5, 4.0, 7))
    with pytest.raises(RuntimeError, match="negative n"):
        torch.polygamma(-1, x)


@pytest.mark.parametrize("p", [1, 3, 5])
def test_mvlgamma(p):
    x = grid((p - 1) / 2 + 0.1, 12.0)
    close(torch.mvlgamma(x, p), [ref.multigammaln(v, p) for v in x.numpy()], 1e-12, 1e-12)
    assert torch.equal(S.multigammaln(x, p), x.mvlgamma(p))
    assert torch.equal(x.clone().mvlgamma_(p), x.mvlgamma(p))
    assert torch.mvlgamma(torch.tensor([3, 9]), 2).dtype == torch.float32
    check_gradients(lambda x: torch.mvlgamma(x, p), grid((p - 1) / 2 + 0.5, 6.0, 5))
    with pytest.raises(RuntimeError, match="greater than or equal to 1"):
        torch.mvlgamma(x, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_frexp(dtype):
    x = torch.tensor([1.0, 0.0, -0.0, 3.5, -20.0, 1e-3, math.inf, -math.inf, math.nan], dtype=dtype)
    m, e = torch.frexp(x)
    mantissa, exponent = np.frexp(x.to(torch.float64).numpy())
    assert m.dtype == dtype and e.dtype == torch.int32
    np.testing.assert_array_equal(m.to(torch.float64).numpy(), mantissa)
    np.testing.assert_array_equal(e.numpy(), np.where(np.isfinite(mantissa), exponent, 0))
    assert torch.frexp(x).mantissa.shape == x.shape and torch.frexp(x).exponent.shape == x.shape
    y = x[:6].to(torch.float64)
    assert torch.equal(torch.ldexp(*torch.frexp(y)), y)
    out = (torch.empty(0, dtype=dtype), torch.empty(0, dtype=torch.int32))
    torch.frexp(x, out=out)
    assert torch.equal(out[1], e)
    with pytest.raises(RuntimeError, match="floating-point"):
        torch.frexp(torch.tensor([1]))


def test_frexp_gradient():
    check_gradients(lambda x: torch.frexp(x)[0], torch.tensor([0.7, 3.0, -9.0], dtype=torch.float64))


def test_logit_with_eps():
    x = torch.tensor([-1.0, 0.0, 0.3, 0.5, 1.0, 2.0], dtype=torch.float64)
    close(torch.logit(x, eps=0.1), ref.logit(np.clip(x.numpy(), 0.1, 0.9)), 1e-13, 1e-15)
    close(torch.logit(x), [math.nan, -math.inf, ref.logit(0.3), 0, math.inf, math.nan])
    assert torch.equal(x.clone().logit_(0.1), S.logit(x, eps=0.1))
    # Near 1/2, where the logarithm of the quotient would lose its digits.
    close(torch.logit(torch.tensor([0.5 + 1e-9], dtype=torch.float64)), [2 * math.atanh(2e-9)], 1e-7)
    check_gradients(lambda x: torch.logit(x, 0.1), torch.tensor([0.02, 0.3, 0.97], dtype=torch.float64))


def test_float_power():
    for dtype in (torch.int64, torch.float32, torch.uint8):
        x = torch.tensor([1, 2, 3]).to(dtype)
        assert torch.float_power(x, 2).dtype == torch.float64
        close(torch.float_power(x, 2), [1, 4, 9])
        close(x.float_power(torch.tensor([1.0, 2.0, 0.5])), [1, 4, math.sqrt(3)])
    close(torch.float_power(2, torch.tensor([3, -1])), [8, 0.5])
    y = torch.tensor([4.0], dtype=torch.float64)
    assert y.float_power_(0.5).item() == 2
    with pytest.raises(RuntimeError, match="requires dtype"):
        torch.ones(1).float_power_(2)
    z = torch.float_power(torch.tensor([1j]), 2)
    assert z.dtype == torch.complex128 and abs(z.item() + 1) < 1e-12
    check_gradients(lambda x: torch.float_power(x, 2.5), grid(0.5, 3.0, 5))


def test_incomplete_gamma_everywhere():
    rng = np.random.default_rng(0)
    a = np.exp(rng.uniform(-7, 9, 2000))
    x = a * np.exp(rng.normal(0, 1, 2000) / np.sqrt(1 + a / 9))
    for f, r in [(torch.igamma, ref.gammainc), (torch.igammac, ref.gammaincc)]:
        got, want = f(torch.from_numpy(a), torch.from_numpy(x)).numpy(), r(a, x)
        big = want > 1e-250
        # SciPy's own error is a few hundred ulps in the tails.
        np.testing.assert_allclose(got[big], want[big], rtol=3e-11 if IS_PYRITE else 1e-6)
    both = torch.igamma(torch.from_numpy(a), torch.from_numpy(x)) + torch.igammac(
        torch.from_numpy(a), torch.from_numpy(x)
    )
    close(both, np.ones(2000), 1e-13 if IS_PYRITE else 1e-9)
    inf, nan = math.inf, math.nan
    a = torch.tensor([0.0, 0.0, inf, inf, 1.0, 1.0, -1.0, 1.0])
    x = torch.tensor([0.0, 1.0, 1.0, inf, 0.0, inf, 1.0, -1.0])
    close(torch.igamma(a, x), [nan, 1, 0, nan, 0, 1, nan, nan])
    close(torch.igammac(a, x), [nan, 0, 1, nan, 1, 0, nan, nan])
    a = grid(0.5, 4.0, 6)
    check_gradients(lambda x: torch.igamma(a, x), grid(0.5, 5.0, 6))
    check_gradients(lambda x: torch.igammac(a, x), grid(0.5, 5.0, 6))
    with pytest.raises(NotImplementedError, match="derivative"):
        torch.igamma(a.requires_grad_(), a.detach()).sum().backward()


def test_zeta():
    s = torch.tensor([1.0, 0.5, 2.0, 2.0, 2.5, 3.0, 40.0])
    q = torch.tensor([1.0, 1.0, 0.0, -1.0, -1.5, 4.0, 0.5])
    want = [math.inf, math.nan, math.inf, math.inf, math.nan, ref.zeta(3, 4), 2.0**40]
    close(S.zeta(s, q), want, 1e-6)
    close(S.zeta(2.0, torch.tensor([1.0])), [math.pi**2 / 6], 1e-6)
    close(S.zeta(torch.tensor([2.0]), 1), [math.pi**2 / 6], 1e-6)
    if IS_PYRITE:
        check_gradients(lambda q: S.zeta(3.0, q), grid(0.5, 5.0, 6))


FAR = [
    ("i0e", [0.0, 7.99, 8.01, 700.0, 1e5], ref.i0e),
    ("i1e", [-1e5, -8.01, 1e-30, 7.99, 700.0], ref.i1e),
    ("i0", [8.0, 300.0, 700.0], ref.i0),
    ("modified_bessel_k0", [1e-300, 1e-5, 0.999, 1.001, 8.0, 500.0], ref.k0),
    ("modified_bessel_k1", [1e-300, 1e-5, 0.999, 1.001, 8.0, 500.0], ref.k1),
    ("erfcx", [-26.0, -3.0, 0.0, 5.0, 50.0, 1e10, 1e200], ref.erfcx),
    ("log_ndtr", [-1e10, -50.0, -1.0, 0.0, 3.0, 9.0], ref.log_ndtr),
    ("ndtr", [-37.5, -10.0, -1.0, 0.0, 8.0], ref.ndtr),
    ("ndtri", [1e-300, 1e-20, 1e-3, 0.1499, 0.1501, 0.8499, 0.8501, 0.999], ref.ndtri),
    ("airy_ai", [-200.0, -20.0, -2.6, -2.4, 0.0, 0.9, 1.1, 3.2, 3.4, 100.0], lambda x: ref.airy(x)[0]),
    ("bessel_j0", [-5.0, 100.0, 1000.0], ref.j0),
    ("bessel_y1", [1e-10, 3.0, 1e4], ref.y1),
]


@pytest.mark.parametrize("name, points, want", FAR, ids=lambda v: v if isinstance(v, str) else "")
def test_far_ranges(name, points, want):
    x = torch.tensor(points, dtype=torch.float64)
    close(getattr(S, name)(x), want(x.numpy()), 3e-13 if IS_PYRITE else 1e-4, 1e-300)


def test_polynomials_of_high_order():
    x = grid(-0.99, 0.99, 23)
    for n in [39, 40, 41, 200]:
        t = np.arccos(x.numpy())
        close(S.chebyshev_polynomial_t(x, n), np.cos(n * t), 0, 1e-12)
        close(S.chebyshev_polynomial_u(x, n), np.sin((n + 1) * t) / np.sin(t), 0, 1e-11)
    if not IS_PYRITE:
        return
    for n in [39, 41, 100]:
        t = np.arccos(x.numpy())
        close(S.chebyshev_polynomial_v(x, n), np.cos((n + 0.5) * t) / np.cos(t / 2), 0, 1e-10)
        close(S.chebyshev_polynomial_w(x, n), np.sin((n + 0.5) * t) / np.sin(t / 2), 0, 1e-10)
    big = S.chebyshev_polynomial_t(torch.tensor([3.0, -3.0], dtype=torch.float64), 501)
    assert big.tolist() == [math.inf, -math.inf]
    # No wait for an order that no recurrence reaches.
    assert math.isnan(S.legendre_polynomial_p(torch.tensor(0.5), 1e18).item())
    assert abs(S.chebyshev_polynomial_t(torch.tensor(0.5, dtype=torch.float64), 3e9).item()) <= 1


def test_aliases():
    x = torch.tensor([0.3, 0.6])
    for name, other in {"expit": "sigmoid", "psi": "digamma", "gammaln": "lgamma", "exp2": "exp2", "expm1": "expm1",
                        "log1p": "log1p", "erf": "erf", "sinc": "sinc", "round": "round", "i0": "i0"}.items():  # fmt: skip
        assert torch.equal(getattr(S, name)(x), getattr(torch, other)(x))
    assert torch.equal(S.softmax(x, 0), torch.softmax(x, 0))
    assert torch.equal(S.log_softmax(x, 0), torch.log_softmax(x, 0))
    assert torch.equal(S.logsumexp(x, 0), torch.logsumexp(x, 0))
    assert torch.equal(S.gammainc(x, x), torch.igamma(x, x)) and torch.equal(S.gammaincc(x, x), torch.igammac(x, x))
    assert torch.equal(S.xlogy(x, x), torch.xlogy(x, x))


@pytest.mark.pyrite  # PyTorch has no gradients of these
@pytest.mark.parametrize("name", ["bessel_j0", "bessel_j1", "modified_bessel_i0", "modified_bessel_i1"])
def test_gradients_at_zero(name):
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    getattr(S, name)(x).backward()
    assert x.grad.item() == (0.5 if name.endswith("1") else 0)


@pytest.mark.pyrite  # PyTorch and SciPy give NaN
def test_limits_at_infinity():
    x = torch.tensor([math.inf, -math.inf], dtype=torch.float64)
    for name in ["bessel_j0", "bessel_j1"]:
        assert getattr(S, name)(x).tolist() == [0, 0]
    for name in ["bessel_y0", "bessel_y1", "airy_ai"]:
        assert getattr(S, name)(x[:1]).tolist() == [0]
    assert S.i0(x).tolist() == [math.inf, math.inf] and S.i1(x).tolist() == [math.inf, -math.inf]
    assert S.zeta(x[:1], torch.tensor(2.5)).tolist() == [0]
    assert math.isnan(S.zeta(torch.tensor(math.nan), torch.tensor(1.0)).item())


@pytest.mark.parametrize("name", sorted(n for n in dir(S) if "_polynomial_" in n))
def test_polynomials_at_the_limits(name):
    """Order 0 is 1 everywhere, NaN comes through, no order takes long; orders below 0 and NaN give 0."""
    f = getattr(S, name)
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.3], dtype=torch.float64)
    assert f(x, 0).tolist() == [1, 1, 1, 1]
    assert f(x, -1).tolist() == f(x, math.nan).tolist() == [0, 0, 0, 0]
    for n in (1, 2, 39, 40, 2.0**60, math.inf):
        assert math.isnan(f(x, n)[0].item())
    sign = -1 if name.startswith("laguerre") else 1
    assert f(x, 1)[1:3].tolist() == [sign * math.inf, -sign * math.inf]
    if "chebyshev" in name:
        assert f(x, 3)[1:3].tolist() == f(x, 51)[1:3].tolist() == [math.inf, -math.inf]
        assert f(x, 50)[1:3].tolist() == [math.inf, math.inf]
