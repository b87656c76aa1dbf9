"""Every elementwise operator and reduction with an independent answer: NumPy's, SciPy's, or the formula spelt out.

`test_ops.py` turns each entry into tests over dtypes, layouts, forms and gradients. An operator of Pyrite's table that
has no entry here fails `test_every_row_has_an_entry`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import special
from subject import F, torch

FLOAT, NUM, INT, ANY = "float", "num", "int", "any"


@dataclass(frozen=True)
class Op:
    name: str
    ref: Callable
    inputs: int = 1
    # Which dtypes it takes. FLOAT: integers become the default float first. NUM: all numbers. INT: integers and bool.
    takes: str = FLOAT
    # Where inputs are drawn from.
    sample: tuple = (-3.0, 3.0)
    gives_bool: bool = False
    # Smooth enough at random points for numeric differentiation, once and twice.
    grad: bool = True
    kwargs: dict = field(default_factory=dict)
    # Relative error allowed beside the dtype's own, in units of it: for ill-conditioned functions.
    slack: float = 1.0
    note: str = ""
    # Of which order the gradient is not there yet in Pyrite, and why.
    pending: str = ""
    # The reference is right only in the dtype itself: what float64 computes is another function.
    own_dtype: bool = False

    @property
    def function(self):
        return getattr(torch, self.name, None) or getattr(F, self.name, None) or getattr(torch.special, self.name)

    @property
    def method(self):
        return getattr(torch.Tensor, self.name, None)

    @property
    def in_place(self):
        return getattr(torch.Tensor, self.name + "_", None)

    def __str__(self):
        return self.name + ("(" + ", ".join(f"{k}={v}" for k, v in self.kwargs.items()) + ")" if self.kwargs else "")


def sign(x):
    return np.where(np.isnan(x), 0, np.sign(x)).astype(x.dtype)  # NaN has no sign in PyTorch


def heaviside(a, b):
    return np.where(a == 0, b, (a > 0).astype(a.dtype))


def lgamma(x):
    return np.where(np.isinf(x), math.inf, special.gammaln(x))


def sigmoid(x):
    return special.expit(x)


def softplus(x, beta=1.0, threshold=20.0):
    return np.where(x * beta > threshold, x, np.log1p(np.exp(np.minimum(x * beta, threshold))) / beta)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def softshrink(x, lambd=0.5):
    return np.sign(x) * np.maximum(np.abs(x) - lambd, 0)


def trunc_divide(a, b):
    return np.trunc(a / b) if a.dtype.kind == "f" else np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))


def lerp(a, b, w):
    return a + w * (b - a)


def polynomial(f, scale=1):
    """Of the order cut to an integer, 0 below 0; ``scale`` 2 is the shifted one."""

    def ref(x, n):
        whole = np.where(np.isfinite(n), np.trunc(n), -1).astype(np.int64)
        x = np.asarray(x, dtype=np.float64)
        return np.where(whole < 0, 0.0, f(np.maximum(whole, 0), scale * x - (scale - 1)))

    return ref


def chebyshev_v(n, x):
    return special.eval_chebyu(n, x) - np.where(n > 0, special.eval_chebyu(np.maximum(n - 1, 0), x), 0)


def chebyshev_w(n, x):
    return special.eval_chebyu(n, x) + np.where(n > 0, special.eval_chebyu(np.maximum(n - 1, 0), x), 0)


UNARY = [
    Op("neg", np.negative, takes=NUM),
    Op("abs", np.abs, takes=NUM),
    Op("sign", sign, takes=NUM, grad=False),
    Op("sgn", sign, takes=NUM, grad=False),
    Op("conj_physical", np.conj, takes=NUM),
    Op("square", np.square, takes=NUM),
    Op("positive", np.positive, takes=NUM),
    Op("reciprocal", lambda x: 1 / x, sample=(0.4, 3.0)),
    Op("sqrt", np.sqrt, sample=(0.1, 4.0)),
    Op("rsqrt", lambda x: 1 / np.sqrt(x), sample=(0.2, 4.0)),
    Op("exp", np.exp),
    Op("exp2", np.exp2),
    Op("expm1", np.expm1),
    Op("log", np.log, sample=(0.1, 5.0)),
    Op("log2", np.log2, sample=(0.1, 5.0)),
    Op("log10", np.log10, sample=(0.1, 5.0)),
    Op("log1p", np.log1p, sample=(-0.7, 5.0)),
    Op("logit", special.logit, sample=(0.1, 0.9), slack=4),
    Op("sin", np.sin),
    Op("cos", np.cos),
    Op("tan", np.tan, sample=(-1.2, 1.2)),
    Op("asin", np.arcsin, sample=(-0.8, 0.8)),
    Op("acos", np.arccos, sample=(-0.8, 0.8)),
    Op("atan", np.arctan),
    Op("sinh", np.sinh),
    Op("cosh", np.cosh),
    Op("tanh", np.tanh),
    Op("asinh", np.arcsinh),
    Op("acosh", np.arccosh, sample=(1.2, 4.0), slack=2),
    Op("atanh", np.arctanh, sample=(-0.8, 0.8)),
    Op("sinc", np.sinc, slack=8),
    Op("deg2rad", np.deg2rad),
    Op("rad2deg", np.rad2deg),
    Op("floor", np.floor, takes=NUM, grad=False),
    Op("ceil", np.ceil, takes=NUM, grad=False),
    Op("trunc", np.trunc, takes=NUM, grad=False),
    Op("round", np.round, takes=NUM, grad=False),
    Op("frac", lambda x: x - np.trunc(x), takes="real"),
    Op("erf", special.erf),
    Op("erfc", special.erfc),
    Op("erfinv", special.erfinv, sample=(-0.8, 0.8), slack=4),
    Op("lgamma", lgamma, sample=(0.5, 4.0), slack=4),
    Op("digamma", special.digamma, sample=(0.5, 4.0), slack=8),
    Op("isnan", np.isnan, takes=NUM, gives_bool=True),
    Op("isinf", np.isinf, takes=NUM, gives_bool=True),
    Op("isfinite", np.isfinite, takes=NUM, gives_bool=True),
    Op("isposinf", np.isposinf, takes=NUM, gives_bool=True),
    Op("isneginf", np.isneginf, takes=NUM, gives_bool=True),
    Op("signbit", np.signbit, takes=NUM, gives_bool=True),
    Op("logical_not", np.logical_not, takes=ANY, gives_bool=True),
    Op("bitwise_not", np.invert, takes=INT, sample=(0, 100)),
    Op("sigmoid", sigmoid),
    Op("relu", lambda x: np.maximum(x, 0), takes=NUM),
    Op("relu6", lambda x: np.clip(x, 0, 6), takes="real", sample=(-3.0, 8.0)),
    Op("leaky_relu", lambda x: np.where(x > 0, x, 0.01 * x), takes="real"),
    Op("leaky_relu", lambda x: np.where(x > 0, x, 0.3 * x), takes="real", kwargs={"negative_slope": 0.3}),
    Op("elu", elu, takes="real"),
    Op("elu", lambda x: elu(x, 0.5), takes="real", kwargs={"alpha": 0.5}),
    Op("selu", lambda x: 1.0507009873554805 * elu(x, 1.6732632423543772), takes="real"),
    Op("celu", lambda x: np.maximum(x, 0) + np.minimum(0, np.expm1(np.minimum(x, 0))), takes="real"),
    Op("celu", lambda x: np.where(x > 0, x, 2 * np.expm1(np.minimum(x, 0) / 2)), takes="real", kwargs={"alpha": 2.0}),
    Op("gelu", lambda x: x * special.ndtr(x), takes="real", slack=2),
    Op("gelu", gelu_tanh, takes="real", kwargs={"approximate": "tanh"}, slack=2),
    Op("silu", lambda x: x * sigmoid(x), takes="real"),
    Op("mish", lambda x: x * np.tanh(softplus(x)), takes="real"),
    Op("softplus", softplus, takes="real"),
    Op("softplus", lambda x: softplus(x, 2.0, 3.0), takes="real", kwargs={"beta": 2.0, "threshold": 3.0}),
    Op("logsigmoid", lambda x: -softplus(-x), takes="real"),
    Op("softsign", lambda x: x / (1 + np.abs(x)), takes="real"),
    Op("tanhshrink", lambda x: x - np.tanh(x), takes="real", sample=(0.5, 3.0)),
    Op("hardtanh", lambda x: np.clip(x, -1, 1), takes="real"),
    Op("hardtanh", lambda x: np.clip(x, -2, 0.5), takes="real", kwargs={"min_val": -2.0, "max_val": 0.5}),
    Op("hardsigmoid", lambda x: np.clip(x + 3, 0, 6) / 6, takes="real", sample=(-5.0, 5.0)),
    Op("hardswish", lambda x: x * np.clip(x + 3, 0, 6) / 6, takes="real", sample=(-5.0, 5.0)),
    Op("hardshrink", lambda x: np.where(np.abs(x) <= 0.5, 0, x), takes="real"),
    Op("softshrink", softshrink, takes="real"),
    Op("threshold", lambda x: np.where(x <= 0.5, -1.0, x), takes="real", kwargs={"threshold": 0.5, "value": -1.0}),
    Op("nan_to_num", np.nan_to_num, takes=NUM, own_dtype=True),
    Op("clamp", lambda x: np.clip(x, 1, 2), takes=NUM, kwargs={"min": 1, "max": 2}),
    Op("clamp", lambda x: np.maximum(x, 1), takes=NUM, kwargs={"min": 1}),
    Op("clamp_min", lambda x: np.maximum(x, 1), takes=NUM, kwargs={"min": 1}),
    Op("clamp_max", lambda x: np.minimum(x, 1), takes=NUM, kwargs={"max": 1}),
    Op("pow", lambda x: x**2, takes=NUM, kwargs={"exponent": 2}),
    Op("pow", lambda x: x**3, takes=NUM, kwargs={"exponent": 3}),
    Op("pow", lambda x: x**-1.5, kwargs={"exponent": -1.5}, sample=(0.4, 3.0)),
    Op("pow", np.sqrt, kwargs={"exponent": 0.5}, sample=(0.1, 4.0)),
]  # fmt: skip

BESSEL = (0.5, 5.0)
SPECIAL = [
    Op("i0", special.i0),
    Op("i0e", special.i0e),
    Op("i1", special.i1),
    Op("i1e", special.i1e),
    Op("bessel_j0", special.j0, slack=4),
    Op("bessel_j1", special.j1, slack=4),
    Op("bessel_y0", special.y0, sample=BESSEL, slack=8),
    Op("bessel_y1", special.y1, sample=BESSEL, slack=8),
    Op("modified_bessel_i0", special.i0),
    Op("modified_bessel_i1", special.i1),
    Op("modified_bessel_k0", special.k0, sample=BESSEL),
    Op("modified_bessel_k1", special.k1, sample=BESSEL),
    Op("scaled_modified_bessel_k0", special.k0e, sample=BESSEL),
    Op("scaled_modified_bessel_k1", special.k1e, sample=BESSEL),
    Op("spherical_bessel_j0", lambda x: special.spherical_jn(0, x), slack=8),
    Op("airy_ai", lambda x: special.airy(x)[0], grad=False, slack=8),
    Op("erfcx", special.erfcx, sample=(-1.5, 3.0)),
    Op("ndtr", special.ndtr),
    Op("log_ndtr", special.log_ndtr),
    Op("ndtri", special.ndtri, sample=(0.05, 0.95), slack=4),
    Op("entr", special.entr, sample=(0.1, 3.0), slack=4),
    Op("xlog1py", special.xlog1py, 2, sample=(0.2, 3.0), slack=4),
    Op("zeta", special.zeta, 2, sample=(1.5, 6.0), grad=False),
    Op("igamma", special.gammainc, 2, sample=(0.5, 5.0), grad=False),
    Op("igammac", special.gammaincc, 2, sample=(0.5, 5.0), grad=False),
    Op("ldexp", lambda a, b: a * 2.0**b, 2),
    Op("chebyshev_polynomial_t", polynomial(special.eval_chebyt), 2, sample=(0, 4), grad=False, slack=8),
    Op("chebyshev_polynomial_u", polynomial(special.eval_chebyu), 2, sample=(0, 4), grad=False, slack=8),
    Op("chebyshev_polynomial_v", polynomial(chebyshev_v), 2, sample=(0, 4), grad=False, slack=8),
    Op("chebyshev_polynomial_w", polynomial(chebyshev_w), 2, sample=(0, 4), grad=False, slack=8),
    Op("shifted_chebyshev_polynomial_t", polynomial(special.eval_chebyt, 2), 2, sample=(0, 4), grad=False, slack=8),
    Op("shifted_chebyshev_polynomial_u", polynomial(special.eval_chebyu, 2), 2, sample=(0, 4), grad=False, slack=8),
    Op("shifted_chebyshev_polynomial_v", polynomial(chebyshev_v, 2), 2, sample=(0, 4), grad=False, slack=8),
    Op("shifted_chebyshev_polynomial_w", polynomial(chebyshev_w, 2), 2, sample=(0, 4), grad=False, slack=8),
    Op("hermite_polynomial_h", polynomial(special.eval_hermite), 2, sample=(0, 4), grad=False, slack=8),
    Op("hermite_polynomial_he", polynomial(special.eval_hermitenorm), 2, sample=(0, 4), grad=False, slack=8),
    Op("laguerre_polynomial_l", polynomial(special.eval_laguerre), 2, sample=(0, 4), grad=False, slack=8),
    Op("legendre_polynomial_p", polynomial(special.eval_legendre), 2, sample=(0, 4), grad=False, slack=8),
]  # fmt: skip

POSITIVE = (1.0, 9.0)
BINARY = [
    Op("add", np.add, 2, takes=NUM),
    Op("add", lambda a, b: a + 3 * b, 2, takes=NUM, kwargs={"alpha": 3}),
    Op("sub", np.subtract, 2, takes=NUM),
    Op("sub", lambda a, b: a - 2 * b, 2, takes=NUM, kwargs={"alpha": 2}),
    Op("mul", np.multiply, 2, takes=NUM),
    Op("div", np.true_divide, 2, sample=(0.5, 3.0)),
    Op("div", np.floor_divide, 2, takes=NUM, sample=POSITIVE, grad=False, kwargs={"rounding_mode": "floor"},
       note="no half"),
    Op("div", trunc_divide, 2, takes=NUM, sample=POSITIVE, grad=False, kwargs={"rounding_mode": "trunc"},
       note="no half"),
    Op("floor_divide", np.floor_divide, 2, takes=NUM, sample=POSITIVE, grad=False),
    Op("remainder", np.remainder, 2, takes=NUM, sample=POSITIVE, slack=8, own_dtype=True),
    Op("fmod", np.fmod, 2, takes=NUM, sample=POSITIVE, slack=8, own_dtype=True),
    Op("pow", np.power, 2, takes=NUM, sample=(0.3, 2.5), slack=4),
    Op("logaddexp", np.logaddexp, 2, takes="real", slack=2),
    Op("logaddexp2", np.logaddexp2, 2, takes="real", slack=2),
    Op("xlogy", special.xlogy, 2, sample=(0.2, 3.0), slack=4),
    Op("atan2", np.arctan2, 2, sample=(0.3, 2.0)),
    Op("hypot", np.hypot, 2, takes="real", sample=(0.3, 2.0)),
    Op("copysign", np.copysign, 2),
    Op("nextafter", np.nextafter, 2, takes="float32 and float64", grad=False, own_dtype=True),
    Op("maximum", np.maximum, 2, takes=NUM),
    Op("minimum", np.minimum, 2, takes=NUM),
    Op("fmax", np.fmax, 2, takes=NUM),
    Op("fmin", np.fmin, 2, takes=NUM),
    Op("clamp_min", np.maximum, 2, takes=NUM),
    Op("clamp_max", np.minimum, 2, takes=NUM),
    Op("heaviside", heaviside, 2, takes=NUM, grad=False),
    Op("eq", np.equal, 2, takes=ANY, gives_bool=True),
    Op("ne", np.not_equal, 2, takes=ANY, gives_bool=True),
    Op("lt", np.less, 2, takes=ANY, gives_bool=True),
    Op("le", np.less_equal, 2, takes=ANY, gives_bool=True),
    Op("gt", np.greater, 2, takes=ANY, gives_bool=True),
    Op("ge", np.greater_equal, 2, takes=ANY, gives_bool=True),
    Op("logical_and", np.logical_and, 2, takes=ANY, gives_bool=True),
    Op("logical_or", np.logical_or, 2, takes=ANY, gives_bool=True),
    Op("logical_xor", np.logical_xor, 2, takes=ANY, gives_bool=True),
    Op("bitwise_and", np.bitwise_and, 2, takes=INT, sample=(0, 100)),
    Op("bitwise_or", np.bitwise_or, 2, takes=INT, sample=(0, 100)),
    Op("bitwise_xor", np.bitwise_xor, 2, takes=INT, sample=(0, 100)),
    Op("bitwise_left_shift", np.left_shift, 2, takes=INT, sample=(0, 6), note="no bool"),
    Op("bitwise_right_shift", np.right_shift, 2, takes=INT, sample=(0, 6), note="no bool"),
    Op("gcd", np.gcd, 2, takes=INT, sample=(0, 100), note="no bool"),
    Op("lcm", np.lcm, 2, takes=INT, sample=(0, 10), note="no bool"),
]  # fmt: skip

TERNARY = [
    Op("lerp", lerp, 3, takes="real"),
    Op("addcmul", lambda a, b, c: a + 0.5 * b * c, 3, takes="real", kwargs={"value": 0.5}),
    Op("addcdiv", lambda a, b, c: a + 2 * b / c, 3, takes="real", sample=(0.5, 2.0), kwargs={"value": 2.0}),
    Op("clamp", lambda x, lo, hi: np.minimum(np.maximum(x, lo), hi), 3, takes=NUM),
]  # fmt: skip

# Rows of the table that have no function of their own name: what reaches them is tested under these names.
INTERNAL = {
    "trunc_divide": "div",
    "clamp_scalars": "clamp",
    "clamp_tensors": "clamp",
    "where": "where",
    "masked_fill_scalar": "masked_fill",
    "gelu_erf": "gelu",
    "gelu_tanh": "gelu",
    "nan_to_num_scalars": "nan_to_num",
    "prelu_kernel": "prelu",
    "polygamma": "polygamma",
    "frexp_mantissa": "frexp",
    "frexp_exponent": "frexp",
}

OPS = [*UNARY, *BINARY, *TERNARY, *SPECIAL]


@dataclass(frozen=True)
class Reduction:
    """`ref(array, axis, keepdims)`; axis is None, an int or a tuple."""

    name: str
    ref: Callable
    takes: str = FLOAT
    # Along all dimensions at once, along one, along several.
    dims: str = "all one many"
    sample: tuple = (-3.0, 3.0)
    # Does an empty slice have an answer?
    empty: bool = True
    grad: bool = True
    slack: float = 8.0
    kwargs: dict = field(default_factory=dict)

    def __str__(self):
        return self.name + ("(" + ", ".join(f"{k}={v}" for k, v in self.kwargs.items()) + ")" if self.kwargs else "")


def lp_norm(p):
    def ref(x, axis, keepdims):
        a = np.abs(x)
        if p == math.inf:
            return a.max(axis, keepdims=keepdims)
        if p == 0:
            return (a != 0).sum(axis, keepdims=keepdims).astype(a.dtype)
        return (a**p).sum(axis, keepdims=keepdims) ** (1 / p)

    return ref


def numpy(name, **fixed):
    return lambda x, axis, keepdims: getattr(np, name)(x, axis=axis, keepdims=keepdims, **fixed)


REDUCTIONS = [
    Reduction("sum", numpy("sum"), takes=ANY),
    Reduction("mean", numpy("mean"), takes="real"),
    Reduction("prod", numpy("prod"), takes=ANY, dims="all one", sample=(0.98, 1.02)),
    Reduction("amax", numpy("amax"), takes=ANY, empty=False),
    Reduction("amin", numpy("amin"), takes=ANY, empty=False),
    Reduction("nansum", numpy("nansum"), takes=NUM),
    Reduction("std", numpy("std", ddof=1), takes="real", empty=False),
    Reduction("var", numpy("var", ddof=0), takes="real", empty=False, kwargs={"correction": 0}),
    Reduction("var", numpy("var", ddof=1), takes="real", empty=False),
    Reduction("logsumexp", lambda x, axis, keepdims: special.logsumexp(x, axis=axis, keepdims=keepdims),
              takes="real", dims="one many", empty=False),
    Reduction("all", numpy("all"), takes=ANY, grad=False),
    Reduction("any", numpy("any"), takes=ANY, grad=False),
    Reduction("argmax", numpy("argmax"), takes=NUM, dims="all one", empty=False, grad=False),
    Reduction("argmin", numpy("argmin"), takes=NUM, dims="all one", empty=False, grad=False),
    Reduction("count_nonzero", lambda x, axis, keepdims: np.count_nonzero(x, axis=axis), takes=ANY,
              dims="all one many nokeep", grad=False),
    *[Reduction("norm", lp_norm(p), takes="real", kwargs={"p": p}, empty=False, sample=(0.2, 3.0), grad=p != 0)
      for p in (1, 2, 3.0, math.inf, 0)],
]  # fmt: skip
