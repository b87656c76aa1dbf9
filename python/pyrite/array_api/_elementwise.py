"""Elementwise functions. Most are Pyrite's own; what is added is the standard's promotion and special values."""

import math

import pyrite as torch

from ._dtypes import Tensor, promote

# The standard's name -> the main namespace's.
_UNARY = {
    n: n
    for n in (
        "abs acos acosh asin asinh atan atanh ceil cos cosh exp floor imag isfinite isinf isnan log log10 log1p log2 "
        "logical_not negative positive real reciprocal signbit sin sinh sqrt square tan trunc"
    ).split()
} | {"bitwise_invert": "bitwise_not", "conj": "conj_physical"}

_BINARY = {
    n: n
    for n in (
        "add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign divide greater "
        "greater_equal hypot less less_equal logaddexp logical_and logical_or logical_xor maximum minimum multiply "
        "nextafter not_equal pow subtract"
    ).split()
} | {"equal": "eq"}


def _number(x, like):
    """A Python number as a 0-d array that promotes as the number would beside `like`."""
    from ._dtypes import result_type

    return torch.tensor(x, dtype=result_type(like, x), device=like.device)


def _operands(x1, x2):
    if not isinstance(x1, Tensor):
        return _number(x1, x2), x2
    if not isinstance(x2, Tensor):
        return x1, _number(x2, x1)
    return promote(x1, x2)


def _unary(name, target):
    f = getattr(torch, target)

    def function(x, /):
        return f(x)

    function.__doc__ = f"`{name}` of each element; see :func:`pyrite.{target}`."
    return function


def _binary(name, target):
    f = getattr(torch, target)

    def function(x1, x2, /):
        return f(*_operands(x1, x2))

    function.__doc__ = f"`{name}` of each pair of elements, broadcasting; see :func:`pyrite.{target}`."
    return function


for _table, _make in ((_UNARY, _unary), (_BINARY, _binary)):
    for _name, _target in _table.items():
        _f = _make(_name, _target)
        _f.__name__ = _f.__qualname__ = _name
        globals()[_name] = _f
del _table, _make, _name, _target, _f


def floor_divide(x1, x2, /):
    """The quotient rounded down. Integers divided by zero are unspecified by the standard, an error here."""
    x1, x2 = _operands(x1, x2)
    y = torch.floor_divide(x1, x2)
    if not y.dtype.is_floating_point:
        return y
    # The main namespace's rule is Python's (by the remainder); the standard's is `floor(x1 / x2)`.
    return torch.where(torch.isfinite(x1) & torch.isfinite(x2) & (x2 != 0), y, torch.floor(x1 / x2))


def remainder(x1, x2, /):
    """``x1 - x2 * floor(x1 / x2)``: the sign is the divisor's, also that of a zero."""
    x1, x2 = _operands(x1, x2)
    y = torch.remainder(x1, x2)
    if not y.dtype.is_floating_point:
        return y
    return torch.where(y == 0, torch.copysign(torch.zeros_like(y), x2), y)


def _zero_where(condition, y):
    """`y` with a zero, both parts positive, where `condition` holds: the standard asks for no other zero there."""
    return torch.where(condition, torch.zeros((), dtype=y.dtype, device=y.device), y)


def expm1(x, /):
    """``exp(x) - 1``, exact also near zero."""
    y = torch.expm1(x)
    return _zero_where(x == 0, y) if x.dtype.is_complex else y


def tanh(x, /):
    """The hyperbolic tangent."""
    y = torch.tanh(x)
    if x.dtype.is_complex:
        edge = torch.isinf(x.real) & (x.real > 0) & torch.isfinite(x.imag)
        y = torch.where(edge, torch.ones((), dtype=y.dtype, device=y.device), y)
    return y


def sign(x, /):
    """-1, 0 or 1; for complex numbers x / abs(x); NaN stays NaN."""
    if x.dtype.is_complex:
        return _zero_where(x == 0, torch.sgn(x))
    y = torch.sign(x)
    return torch.where(torch.isnan(x), x, y) if x.dtype.is_floating_point else y


def round(x, /):
    """The nearest integer, halves to the even one; of both parts of complex numbers."""
    if x.dtype.is_complex:
        return torch.complex(torch.round(x.real), torch.round(x.imag))
    return torch.round(x)


def clip(x, /, min=None, max=None):
    """`x` limited to [min, max]; either may be a number, an array or None. The dtype stays that of `x`."""
    y = x
    for bound, limit in ((min, torch.maximum), (max, torch.minimum)):
        if bound is None:
            continue
        if not isinstance(bound, Tensor):
            if not x.dtype.is_floating_point:
                if isinstance(bound, float) and math.isfinite(bound):
                    bound = math.ceil(bound) if limit is torch.maximum else math.floor(bound)
                info = torch.iinfo(x.dtype)
                bound = info.min if bound < info.min else info.max if bound > info.max else bound
            bound = torch.tensor(bound, dtype=x.dtype, device=x.device)
        y = limit(y, bound.to(x.dtype))
    return x.clone() if y is x else y


__all__ = ["clip", "expm1", "floor_divide", "remainder", "round", "sign", "tanh"]
__all__ += [*_UNARY, *_BINARY]  # noqa: PLE0604
