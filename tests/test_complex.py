"""Complex tensors: values against NumPy, gradients against finite differences, parts and views, errors.

Gradients follow PyTorch's convention (the conjugate Wirtinger derivative); `gradcheck` measures them along 1 and i.
"""

import copy
import math
import pickle

import numpy as np
import pytest
from subject import F, torch

DTYPES = [torch.complex64, torch.complex128]
TOLERANCE = {torch.complex64: 3e-6, torch.complex128: 2e-14}


def draw(shape, dtype=torch.complex128, seed=0, scale=1.0):
    rng = np.random.default_rng([seed, len(shape)])
    values = scale * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    return torch.from_numpy(np.asarray(values)).to(dtype)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def sgn(x):
    a = np.abs(x)
    return np.where(a == 0, 0, x / np.where(a == 0, 1, a))


# Name, reference, and where its inputs lie (a factor on the standard normal).
UNARY = {
    "neg": np.negative, "conj": np.conj, "conj_physical": np.conj, "square": np.square, "reciprocal": lambda x: 1 / x,
    "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1,
    "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "sinc": np.sinc, "sigmoid": sigmoid, "sgn": sgn,
    "abs": np.abs, "angle": np.angle, "real": np.real, "imag": np.imag, "positive": np.positive,
}  # fmt: skip
NN = {
    "silu": lambda x: x * sigmoid(x), "tanhshrink": lambda x: x - np.tanh(x), "softsign": lambda x: x / (1 + np.abs(x)),
}  # fmt: skip
PREDICATES = {
    "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "isreal": np.isreal, "logical_not": np.logical_not,
}  # fmt: skip
BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power,
    "logaddexp": lambda a, b: np.log(np.exp(a) + np.exp(b)),
}  # fmt: skip
COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}  # fmt: skip
LAYOUTS = {
    "contiguous": lambda make: make((4, 9)),
    "transposed": lambda make: make((9, 4)).t(),
    "stepped": lambda make: make((8, 18))[::2, ::2],
    "expanded": lambda make: make((1, 9)).expand(4, 9),
    "scalar": lambda make: make(()),
    "empty": lambda make: make((0, 3)),
}


def function(name):
    return getattr(torch, name, None) or getattr(F, name)


def close(got, expected, dtype, what=""):
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(got.numpy(), expected, rtol=tolerance, atol=tolerance, err_msg=what)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*UNARY, *NN])
def test_unary(name, layout, dtype):
    x = LAYOUTS[layout](lambda shape: draw(shape, dtype))
    reference = {**UNARY, **NN}[name]
    got = function(name)(x).resolve_conj()
    expected = reference(x.numpy().astype(np.complex128))
    assert got.dtype == (dtype if np.iscomplexobj(expected) else torch.empty(0, dtype=dtype).real.dtype)
    slack = 40 if name in ("tan", "sinc", "logaddexp") else 4
    np.testing.assert_allclose(got.numpy(), expected, rtol=slack * TOLERANCE[dtype], atol=slack * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*BINARY, *COMPARISONS])
def test_binary(name, dtype):
    reference = {**BINARY, **COMPARISONS}[name]
    for shapes in [((4, 9), (4, 9)), ((4, 1), (9,)), ((), (3,)), ((0, 2), (2,))]:
        a, b = draw(shapes[0], dtype), draw(shapes[1], dtype, 1)
        if name in COMPARISONS:
            a, b = (torch.complex(t.real.round(), t.imag.round()) for t in (a, b))
        got = getattr(torch, name)(a, b)
        expected = reference(a.numpy().astype(np.complex128), b.numpy().astype(np.complex128))
        assert got.dtype == (torch.bool if name in COMPARISONS else dtype)
        np.testing.assert_allclose(got.numpy(), expected, rtol=8 * TOLERANCE[dtype], atol=8 * TOLERANCE[dtype])
    for number in (2, -1.5, 0.5 + 2j, 3, 1j):
        if name in ("logaddexp", "logical_and", "logical_or", "logical_xor"):
            continue
        a = draw((5,), dtype)
        got = getattr(torch, name)(a, number)
        expected = reference(a.numpy().astype(np.complex128), number)
        np.testing.assert_allclose(got.numpy(), expected, rtol=8 * TOLERANCE[dtype], atol=8 * TOLERANCE[dtype])


@pytest.mark.parametrize("name", PREDICATES)
def test_predicates(name):
    parts = [0.0, 1.5, math.inf, -math.inf, math.nan]
    x = np.array([complex(a, b) for a in parts for b in parts])
    assert getattr(torch, name)(torch.from_numpy(x)).tolist() == PREDICATES[name](x).tolist()


SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, math.inf, -math.inf, 1e-300, 1e300]
CUTS = ["sqrt", "log", "asin", "acos", "atan", "asinh", "acosh", "atanh", "exp", "sinh", "cosh", "tanh", "log1p"]


@pytest.mark.pyrite
@pytest.mark.parametrize("name", CUTS)
def test_branch_cuts_and_limits(name):
    """Every combination of special parts: values (signs of zero too) as the C library gives them to NumPy."""
    x = np.array([complex(a, b) for a in SPECIAL for b in SPECIAL])
    got = getattr(torch, name)(torch.from_numpy(x)).numpy()
    with np.errstate(all="ignore"):
        expected = UNARY[name](x)
    for value, g, e in zip(x, got, expected, strict=True):
        for part in ("real", "imag"):
            a, b = getattr(g, part), getattr(e, part)
            if np.isnan(b) or (np.isinf(b) and name in ("exp", "sinh", "cosh")):
                continue  # C leaves the sign, or the value, open
            assert a == pytest.approx(b, rel=1e-13, abs=1e-300), f"{name}({value}): {g}, expected {e}"
            assert (
                math.copysign(1, a) == math.copysign(1, b) or abs(b) > 0 or (name == "exp" and np.isinf(value.imag))
            ), f"{name}({value}): {g}, expected {e}"


@pytest.mark.parametrize("dim", [None, 0, 1, (0, 1)])
@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "prod", "any", "all", "count_nonzero", "norm"])
def test_reductions(name, dim):
    x = draw((5, 7))
    x[1, 2] = 0
    a = x.numpy()
    if name == "prod" and isinstance(dim, tuple):
        pytest.skip("prod takes one dimension")
    axis = dim
    kwargs = {} if dim is None else {"dim": dim}
    got = getattr(torch, name)(x, **kwargs)
    if name in ("var", "std"):
        expected = getattr(np, name)(a, axis=axis, ddof=1)
    elif name == "norm":
        expected = np.sqrt((np.abs(a) ** 2).sum(axis=axis))
    else:
        expected = getattr(np, name)(a, axis=axis)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-13, atol=1e-13)


def test_long_sums():
    x = draw((3, 40_001), torch.complex64)
    expected = x.numpy().astype(complex).sum(1)
    np.testing.assert_allclose(x.sum(1).numpy(), expected, atol=2e-3)
    np.testing.assert_allclose(x.t().sum(0).numpy(), expected, atol=2e-3)
    np.testing.assert_allclose((x * 2j).sum().item(), 2j * x.numpy().astype(complex).sum(), atol=5e-3)


@pytest.mark.parametrize("p", [0, 1, 2, 3, 0.5, math.inf, -math.inf])
def test_norms(p):
    x = draw((4, 6))
    np.testing.assert_allclose(torch.norm(x, p, dim=1).numpy(), np.linalg.norm(x.numpy(), p, axis=1), rtol=1e-13)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_scans(dim):
    x = draw((4, 6), scale=0.7)
    a = x.numpy()
    np.testing.assert_allclose(torch.cumsum(x, dim).numpy(), np.cumsum(a, dim), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(torch.cumprod(x, dim).numpy(), np.cumprod(a, dim), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        np.exp(torch.logcumsumexp(x, dim).numpy()), np.cumsum(np.exp(a), dim), rtol=1e-12, atol=1e-13
    )
    long = draw((9001,), torch.complex64)
    np.testing.assert_allclose(torch.cumsum(long, 0).numpy(), np.cumsum(long.numpy().astype(complex)), rtol=1e-3)


def test_selection_and_weights():
    a, b, w = draw((3, 4)), draw((4,), seed=1), draw((3, 1), seed=2)
    m = torch.tensor([True, False, True, False])
    x, y, z = a.numpy(), b.numpy(), w.numpy()
    np.testing.assert_array_equal(torch.where(m, a, b).numpy(), np.where(m.numpy(), x, y))
    np.testing.assert_array_equal(a.masked_fill(m, 1 - 2j).numpy(), np.where(m.numpy(), 1 - 2j, x))
    np.testing.assert_allclose(torch.lerp(a, b, w).numpy(), x + z * (y - x), rtol=1e-13)
    np.testing.assert_allclose(torch.addcmul(a, b, w, value=2j).numpy(), x + 2j * y * z, rtol=1e-13)
    np.testing.assert_allclose(torch.addcdiv(a, b, w, value=1 - 1j).numpy(), x + (1 - 1j) * y / z, rtol=1e-12)
    np.testing.assert_allclose(torch.add(a, b, alpha=1j).numpy(), x + 1j * y, rtol=1e-13)
    np.testing.assert_allclose((a.clone().tril() + a.triu()).numpy(), np.tril(x) + np.triu(x), rtol=1e-13)


@pytest.mark.parametrize(
    "shapes", [((3, 4), (4, 5)), ((4,), (4,)), ((3, 4), (4,)), ((2, 3, 4), (2, 4, 2)), ((2, 3, 4), (4, 2))]
)
def test_products(shapes):
    a, b = draw(shapes[0]), draw(shapes[1], seed=1)
    np.testing.assert_allclose(torch.matmul(a, b).numpy(), np.matmul(a.numpy(), b.numpy()), rtol=1e-13)
    np.testing.assert_allclose(torch.matmul(a.to(torch.complex64), b.to(torch.complex64)).numpy(),
                               np.matmul(a.numpy(), b.numpy()), rtol=2e-5, atol=2e-6)  # fmt: skip


# --- promotion and numbers --------------------------------------------------------------------------------------------
def test_promotion_with_numbers():
    f32, f64, i64 = torch.ones(2), torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.int64)
    for t, expected in [(f32, torch.complex64), (f64, torch.complex128), (i64, torch.complex64)]:
        assert (t * 1j).dtype == expected
        assert (t + (1 + 0j)).dtype == expected
        assert (1j / t).dtype == expected
        assert torch.result_type(t, 1j) == expected
    assert (torch.ones(2, dtype=torch.complex64) + f64).dtype == torch.complex128
    assert (torch.ones(2, dtype=torch.complex64) + torch.tensor(1.0, dtype=torch.float64)).dtype == torch.complex64
    assert (torch.ones(2, dtype=torch.complex64) * 2.5).dtype == torch.complex64
    assert torch.full((2,), 1 + 2j).dtype == torch.complex64
    assert torch.tensor([1, 2.0, 3j]).dtype == torch.complex64
    assert torch.complex(f64, f64).dtype == torch.complex128


def test_creation():
    np.testing.assert_allclose(torch.linspace(0, 2 - 1j, 5).numpy(), np.linspace(0, 2 - 1j, 5), rtol=1e-6)
    assert torch.linspace(0, 1, 3, dtype=torch.complex128).tolist() == [0, 0.5, 1]
    assert torch.zeros(2).copy_(3).tolist() == [3, 3]
    assert torch.zeros(2, dtype=torch.complex64).copy_(1j).tolist() == [1j, 1j]
    for f in (lambda: torch.linspace(0, 1j, 3, dtype=torch.float32), lambda: torch.arange(1j)):
        with pytest.raises(RuntimeError):
            f()


def test_large_products():
    a, b = draw((2, 40, 50)), draw((2, 50, 60), seed=1)
    np.testing.assert_allclose(torch.bmm(a, b).numpy(), np.matmul(a.numpy(), b.numpy()), rtol=1e-12, atol=1e-12)
    m, x, w = draw((40, 60), seed=2), a[0].mT.mT, b[0]
    got = torch.addmm(m, x, w.conj().mT.mT, beta=0.5j, alpha=2)
    np.testing.assert_allclose(got.numpy(), 0.5j * m.numpy() + 2 * x.numpy() @ w.numpy().conj(), atol=1e-11)
    bias = draw((60,), seed=3)
    got = F.linear(a[0], w.t(), bias)
    np.testing.assert_allclose(got.numpy(), a[0].numpy() @ w.numpy() + bias.numpy(), atol=1e-11)


def test_nan_is_not_lost():
    pairs = [(1, math.nan), (math.nan, 1), (0, math.nan), (math.nan, -1e200), (math.nan, 1e-300)]
    z = torch.tensor([complex(*p) for p in pairs], dtype=torch.complex128)
    for name in ("log", "log1p", "log2", "sqrt", "exp", "sin", "tanh", "asin", "acosh", "atanh"):
        got = getattr(torch, name)(z)
        assert got.isnan().all(), name
    assert torch.atanh(z[1:]).imag.isnan().all()
    inf = torch.tensor([complex(0, math.inf)], dtype=torch.complex128)
    assert (inf**1).imag.item() == math.inf and (inf**1).real.item() == 0


def test_as_python_numbers():
    z = torch.tensor([1 + 2j, -3j], dtype=torch.complex128)
    assert z.tolist() == [1 + 2j, -3j]
    assert z[0].item() == 1 + 2j and complex(z[1]) == -3j
    assert torch.tensor(2 + 0j).item() == 2
    assert float(torch.tensor(2 + 0j)) == 2.0
    with pytest.raises((RuntimeError, TypeError)):
        float(z[0])
    assert bool(torch.tensor(1j)) and not bool(torch.tensor(0j))
    np.testing.assert_array_equal(z.numpy(), [1 + 2j, -3j])


# --- parts and views --------------------------------------------------------------------------------------------------
def test_parts_share_memory():
    z = draw((3, 4))
    a = z.numpy().copy()
    z.real[0] = 5
    a.real[0] = 5
    z.imag = torch.zeros(3, 4, dtype=torch.float64)
    a.imag = 0
    np.testing.assert_array_equal(z.numpy(), a)
    r = torch.view_as_real(z)
    assert r.shape == (3, 4, 2) and r.data_ptr() == z.data_ptr() and r.stride() == (8, 2, 1)
    r[1, 1, 1] = 7
    assert z[1, 1].item() == complex(a[1, 1].real, 7)
    back = torch.view_as_complex(r)
    assert back.data_ptr() == z.data_ptr() and back.shape == (3, 4)
    t = z.t()[1:]
    np.testing.assert_array_equal(t.imag.numpy(), z.numpy().T[1:].imag)
    np.testing.assert_array_equal(torch.view_as_real(t)[..., 0].numpy(), z.numpy().T[1:].real)
    x = torch.ones(2)
    assert x.real is x or x.real.data_ptr() == x.data_ptr()


def test_building_from_parts():
    re, im = torch.rand(3, 1, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    np.testing.assert_allclose(torch.complex(re, im).numpy(), re.numpy() + 1j * im.numpy())
    np.testing.assert_allclose(torch.polar(re, im).numpy(), re.numpy() * np.exp(1j * im.numpy()), rtol=1e-14)
    with pytest.raises(RuntimeError):
        torch.complex(re, im.float())
    with pytest.raises(RuntimeError):
        torch.view_as_complex(torch.ones(3, 3))
    with pytest.raises(RuntimeError):
        torch.view_as_complex(torch.ones(4, 3)[:, ::2])
    with pytest.raises(RuntimeError):
        torch.view_as_real(torch.ones(3))
    with pytest.raises(RuntimeError):
        torch.ones(3).imag


def test_transposes():
    z = draw((2, 3))
    np.testing.assert_array_equal(z.H.resolve_conj().numpy(), z.numpy().conj().T)
    np.testing.assert_array_equal(z.mH.resolve_conj().numpy(), z.numpy().conj().T)
    np.testing.assert_array_equal(z.adjoint().resolve_conj().numpy(), z.numpy().conj().T)
    np.testing.assert_array_equal(torch.ones(2, 3).mH.numpy(), np.ones((3, 2)))


# --- gradients --------------------------------------------------------------------------------------------------------
def leaf(shape, seed=0, scale=1.0):
    return draw(shape, seed=seed, scale=scale).requires_grad_()


def real_leaf(shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.3, 1.5, shape)).requires_grad_()


@pytest.mark.parametrize("name", [*UNARY, *NN])
def test_unary_gradients(name):
    f = function(name)
    assert torch.autograd.gradcheck(f, (leaf((2, 3), scale=0.6),))
    assert torch.autograd.gradgradcheck(f, (leaf((2, 2), scale=0.6),))


@pytest.mark.parametrize("name", BINARY)
def test_binary_gradients(name):
    f = getattr(torch, name)
    assert torch.autograd.gradcheck(f, (leaf((2, 3)), leaf((3,), 1)))
    assert torch.autograd.gradgradcheck(f, (leaf((2,)), leaf((2,), 1)))
    if name != "logaddexp":
        # A real input of a complex result gets the real part.
        assert torch.autograd.gradcheck(f, (real_leaf((2, 3)), leaf((3,), 1)))
        assert torch.autograd.gradcheck(f, (leaf((2, 3)), real_leaf((2, 1))))
        assert torch.autograd.gradgradcheck(f, (real_leaf((2,)), leaf((2,), 1)))
        assert torch.autograd.gradcheck(lambda x: f(x, 0.5 - 1j), (real_leaf((3,)),))


MASK = torch.tensor([[True, False, True], [False, True, True]])
OTHERS = {
    "where": (lambda a, b: torch.where(MASK, a, b), (2, 3), (3,)),
    "masked_fill": (lambda a: a.masked_fill(MASK, 1j), (2, 3)),
    "lerp": (torch.lerp, (2, 3), (3,), (2, 1)),
    "addcmul": (lambda a, b, c: torch.addcmul(a, b, c, value=0.5 + 1j), (2, 3), (3,), (2, 1)),
    "addcdiv": (lambda a, b, c: torch.addcdiv(a, b, c, value=0.5 + 1j), (2, 3), (3,), (2, 1)),
    "add alpha": (lambda a, b: torch.add(a, b, alpha=2j), (2, 3), (3,)),
    "sub alpha": (lambda a, b: torch.sub(a, b, alpha=1 - 2j), (2, 3), (3,)),
    "pow number": (lambda a: a**2.5, (2, 3)),
    "pow complex": (lambda a: a ** (1 + 0.5j), (2, 3)),
    "number pow": (lambda a: (1.5 - 1j) ** a, (2, 3)),
    "sum": (lambda a: a.sum(1), (2, 3)),
    "mean": (lambda a: a.mean(), (2, 3)),
    "prod": (lambda a: a.prod(), (2, 2)),
    "prod dim": (lambda a: a.prod(1), (2, 3)),
    "var": (lambda a: a.var(1), (2, 3)),
    "std": (lambda a: a.std(), (2, 3)),
    "norm": (lambda a: a.norm(), (2, 3)),
    "norm 1": (lambda a: torch.norm(a, 1, dim=0), (2, 3)),
    "norm 3": (lambda a: torch.norm(a, 3), (2, 3)),
    "logsumexp": (lambda a: torch.logsumexp(a, 1), (2, 3)),
    "conv1d": (lambda a, b, c: F.conv1d(a, b, c, padding=1), (1, 2, 4), (3, 2, 3), (3,)),
    "conv2d": (lambda a, b: F.conv2d(a, b, stride=2), (1, 1, 4, 4), (2, 1, 2, 2)),
    "conv_transpose1d": (lambda a, b: F.conv_transpose1d(a, b), (1, 2, 3), (2, 1, 2)),
    "masked_select": (lambda a: a.masked_select(MASK), (2, 3)),
    "index_put": (lambda a, b: a.index_put((torch.tensor([0, 0]),), b, accumulate=True), (2, 3), (2, 3)),
    "scatter_add": (lambda a, b: a.scatter_add(1, torch.tensor([[0, 0, 1]]), b), (2, 3), (1, 3)),
    "pad": (lambda a: F.pad(a, (1, 2)), (2, 3)),
    "cumsum": (lambda a: a.cumsum(1), (2, 3)),
    "cumprod": (lambda a: a.cumprod(1), (2, 3)),
    "logcumsumexp": (lambda a: torch.logcumsumexp(a, 1), (2, 3)),
    "mm": (torch.mm, (2, 3), (3, 2)),
    "bmm": (torch.bmm, (2, 2, 3), (2, 3, 2)),
    "matmul": (torch.matmul, (2, 2, 3), (3,)),
    "dot": (torch.dot, (3,), (3,)),
    "addmm": (lambda a, b, c: torch.addmm(a, b, c, beta=0.5j, alpha=2 - 1j), (2, 2), (2, 3), (3, 2)),
    "linear": (F.linear, (2, 3), (2, 3), (2,)),
    "view_as_real": (torch.view_as_real, (2, 3)),
    "abs of parts": (lambda a: a.real * a.imag, (2, 3)),
    "adjoint": (lambda a: a.mH @ a, (2, 3)),
    "index": (lambda a: a[MASK] * a[0, 1], (2, 3)),
    "gather": (lambda a: a.gather(1, torch.tensor([[2, 0], [1, 1]])), (2, 3)),
    "flip": (lambda a: a.flip(0) * a, (2, 3)),
    "cat": (lambda a, b: torch.cat([a, b.conj()]), (2, 3), (1, 3)),
    "tril": (lambda a: a.tril() @ a.triu(), (3, 3)),
    "expand": (lambda a: a.expand(2, 3) * 1j, (3,)),
    "to real": (lambda a: (a * a.conj()).real, (2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_gradients(name):
    f, *shapes = OTHERS[name]
    inputs = tuple(leaf(shape, seed, 0.7) for seed, shape in enumerate(shapes))
    assert torch.autograd.gradcheck(f, inputs)
    assert torch.autograd.gradgradcheck(f, inputs)


def test_gradients_between_real_and_complex():
    x, y = real_leaf((2, 3)), real_leaf((2, 3), 1)
    for f in (
        torch.complex,
        torch.polar,
        lambda a, b: torch.view_as_complex(torch.stack([a, b], -1)),
        lambda a, b: (a + 1j * b).abs(),
        lambda a, b: torch.angle(a * 1j + b),
        lambda a, b: (a.to(torch.complex128) * b).real,
        lambda a, b: torch.where(MASK, a, 1j * b),
    ):
        assert torch.autograd.gradcheck(f, (x, y))
        assert torch.autograd.gradgradcheck(f, (x, y))


def test_gradient_at_zero_is_zero():
    z = torch.zeros(3, dtype=torch.complex128, requires_grad=True)
    for f in (torch.abs, torch.angle, torch.norm):
        (g,) = torch.autograd.grad(f(z).sum(), z)
        assert g.tolist() == [0, 0, 0]
    (g,) = torch.autograd.grad(torch.sgn(z).abs().sum(), z)
    assert g.tolist() == [0, 0, 0]


def test_convention_is_pytorchs():
    """L = |z|^2 has the gradient 2 z, the direction of steepest ascent."""
    z = torch.tensor([1 + 2j, -3j], dtype=torch.complex128, requires_grad=True)
    (z.abs() ** 2).sum().backward()
    assert z.grad.tolist() == [2 + 4j, -6j]
    w = torch.tensor([1 + 2j], dtype=torch.complex128, requires_grad=True)
    (g,) = torch.autograd.grad(w * w, w, torch.tensor([1 + 0j], dtype=torch.complex128))
    assert g.tolist() == [2 - 4j]  # conj(2 w)
    with pytest.raises(RuntimeError, match="real"):
        (w * w).sum().backward()


def test_comparing_in_place_ends_the_history():
    z = leaf((2, 3))
    y = z * 1
    y.eq_(z)
    (g,) = torch.autograd.grad(y.real.sum(), z)
    assert not g.any()


def test_in_place_through_parts():
    z = leaf((2, 3))
    y = z * 2
    y.real.mul_(3)
    y.imag[0] = 0
    v = torch.view_as_real(y)
    v[1, 1] += 1
    (y * y.conj()).real.sum().backward()
    w = z.detach().clone().requires_grad_()
    re, im = 6 * w.real, 2 * w.imag * torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    bump = torch.zeros(2, 3, dtype=torch.float64)
    bump[1, 1] = 1
    ((re + bump) ** 2 + (im + bump) ** 2).sum().backward()
    np.testing.assert_allclose(z.grad.numpy(), w.grad.numpy(), rtol=1e-13)


# --- what is refused --------------------------------------------------------------------------------------------------
REFUSED = [
    "floor", "ceil", "trunc", "sign", "erf", "lgamma", "relu", "signbit", "isposinf",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_real_functions_refuse(name):
    with pytest.raises(RuntimeError):
        getattr(torch, name)(draw((2,)))


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "maximum", "minimum", "fmod", "remainder", "atan2", "hypot"])
def test_order_refuses(name):
    with pytest.raises(RuntimeError):
        getattr(torch, name)(draw((2,)), draw((2,)))


def test_no_way_back_to_real():
    one = torch.ones(2)
    for f in (
        lambda: torch.full((2,), 1j, dtype=torch.int64),
        lambda: torch.full_like(one, 1j),
        lambda: one.masked_fill(torch.tensor([True, False]), 1j),
        lambda: torch.addcmul(one, one, one, value=1j),
        lambda: one.__setitem__(0, 1j),
        lambda: int(torch.tensor(1j)),
        lambda: draw((2,)).nansum(),
        lambda: torch.polygamma(1, draw((2,))),
    ):
        with pytest.raises(RuntimeError):
            f()
    assert torch.full((1,), 2 + 0j, dtype=torch.float32).tolist() == [2]
    with pytest.raises(RuntimeError):
        torch.ones(2).mul_(1j)
    with pytest.raises(RuntimeError):
        torch.ones(2).fill_(1j)
    with pytest.raises(RuntimeError):
        draw((2,)).abs_()
    with pytest.raises(RuntimeError):
        torch.ones(2).add_(torch.ones(2), alpha=1j)
    with pytest.raises(RuntimeError):
        torch.add(draw((2,)), 1, out=torch.empty(2))


def test_random():
    torch.manual_seed(0)
    z = torch.randn(20_000, dtype=torch.complex64)
    assert z.dtype == torch.complex64
    assert abs(z.abs().square().mean().item() - 1) < 0.05 and abs(z.mean().item()) < 0.05
    assert torch.rand(5, dtype=torch.complex128).real.min() >= 0


# --- conjugate views --------------------------------------------------------------------------------------------------
def test_conj_is_a_view():
    z = draw((2, 3))
    a = z.numpy().copy()
    c = z.conj()
    assert c.is_conj() and not z.is_conj() and c.data_ptr() == z.data_ptr()
    assert torch.is_conj(c.t()[1:]) and not c.conj().is_conj()
    np.testing.assert_array_equal(c.resolve_conj().numpy(), a.conj())
    assert c.resolve_conj().data_ptr() != z.data_ptr() and z.resolve_conj().data_ptr() == z.data_ptr()
    with pytest.raises(RuntimeError, match="resolve_conj"):
        c.numpy()
    with pytest.raises(RuntimeError, match="unresolved conjugated"):
        torch.view_as_real(c)
    c[0, 1] = 2 + 5j
    assert z[0, 1].item() == 2 - 5j and c[0, 1].item() == 2 + 5j
    c.mul_(1j)
    assert z[0, 1].item() == np.conj((2 + 5j) * 1j)
    c.fill_(1 + 2j)
    assert z.tolist() == [[1 - 2j] * 3] * 2
    c.copy_(draw((2, 3)))
    np.testing.assert_array_equal(z.numpy(), a.conj())
    assert c.tolist() == a.tolist() and repr(c) == repr(torch.from_numpy(a))
    assert z.H.is_conj() and z.mH.data_ptr() == z.data_ptr() and z.adjoint().H.tolist() == z.tolist()


def test_negative_views():
    z = draw((2, 3))
    n = z.conj().imag
    assert n.is_neg() and n.data_ptr() == z.imag.data_ptr() and not z.conj().real.is_neg()
    np.testing.assert_array_equal(n.resolve_neg().numpy(), -z.numpy().imag)
    np.testing.assert_array_equal((n * 2).numpy(), -2 * z.numpy().imag)
    n[0] = 3.0
    assert z[0].imag.tolist() == [-3.0] * 3
    n.add_(1)
    assert z[0].imag.tolist() == [-4.0] * 3
    with pytest.raises(RuntimeError, match="resolve_neg"):
        n.numpy()


def test_gradients_through_conjugate_views():
    for f in (
        lambda a: a.conj() * a.H.t(),
        lambda a: a.conj().imag * a.real,
        lambda a: a.mH @ a,
        lambda a: a.conj()[:, 1:].sum(0),
        lambda a: a.conj().t().reshape(-1)[torch.tensor([0, 3, 3])],
        lambda a: torch.cat([a.conj(), a]).abs(),
    ):
        assert torch.autograd.gradcheck(f, (leaf((2, 3)),))
        assert torch.autograd.gradgradcheck(f, (leaf((2, 2)),) if f is not None else ())

    def write(a):
        y = a * 2
        c = y.conj()
        c[0].mul_(1 + 1j)
        c.imag[1] = c.real[1] * 2
        return y * y

    def plain(a):
        c = (a * 2).conj().resolve_conj()
        top = c[0] * (1 + 1j)
        bottom = torch.complex(c[1].real, c[1].real * 2)
        y = torch.stack([top, bottom]).conj()
        return y * y

    z = leaf((2, 3))
    assert torch.autograd.gradcheck(write, (z,))
    u = draw((2, 3), seed=5)
    (g,) = torch.autograd.grad(write(z), z, u)
    (h,) = torch.autograd.grad(plain(z), z, u)
    np.testing.assert_allclose(g.numpy(), h.numpy(), rtol=1e-13)


def test_optimizer_takes_complex_parameters():
    p = torch.nn.Parameter(draw((3,)))
    before = p.detach().clone()
    loss = (p * p.conj()).real.sum()
    loss.backward()
    np.testing.assert_allclose(p.grad.numpy(), 2 * before.numpy(), rtol=1e-14)
    p.grad = p.grad.conj()
    assert p.grad.resolve_conj().tolist() == (2 * before.conj()).resolve_conj().tolist()


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam"])
def test_optimizers_step_the_parts(name):
    """A complex parameter moves as its parts would, taken as real parameters."""
    kwargs = {"momentum": 0.9} if name == "SGD" else {}
    z = draw((3,)).requires_grad_()
    r = torch.view_as_real(z.detach().clone()).clone().requires_grad_()
    a = getattr(torch.optim, name)([z], lr=0.05, **kwargs)
    b = getattr(torch.optim, name)([r], lr=0.05, **kwargs)
    for _ in range(3):
        for optimizer, value in ((a, z), (b, torch.view_as_complex(r))):
            optimizer.zero_grad()
            (value**3).abs().sum().backward()
            optimizer.step()
    np.testing.assert_allclose(z.detach().numpy(), torch.view_as_complex(r.detach()).numpy(), rtol=1e-10)
    if name == "Adam":
        assert a.state[z]["exp_avg"].dtype == torch.complex128


def test_saving_resolves_conjugates(tmp_path):
    z = draw((2, 3))
    torch.save({"c": z.conj(), "z": z}, tmp_path / "z.pt")
    back = torch.load(tmp_path / "z.pt")
    assert back["c"].tolist() == z.conj().tolist() and back["z"].tolist() == z.tolist()
    assert copy.deepcopy(z.conj()).tolist() == pickle.loads(pickle.dumps(z.conj())).tolist() == z.conj().tolist()
