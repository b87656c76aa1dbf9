"""Reductions, scans and normalisations that look only at the elements where a mask is true.

Masked-out elements take part as the operation's identity (0 in a sum, -inf in a maximum), so that the results are
those of the remaining elements, and gradients flow to these alone. ``mask`` is a bool tensor that broadcasts to the
input; None means that all elements count. Where everything is masked out, a result is the identity (or NaN, for means).
"""

import math

from .. import _C

__all__ = [
    "amax", "amin", "argmax", "argmin", "cumprod", "cumsum", "log_softmax", "logaddexp", "logsumexp", "mean", "median",
    "norm", "normalize", "prod", "softmax", "softmin", "std", "sum", "var",
]  # fmt: skip

_softmax, _log_softmax = _C.softmax, _C.log_softmax


def _is_float(dtype):
    return dtype.is_floating_point or dtype.is_complex


def _limit(dtype, sign):
    """The identity of maxima (-1) or minima (1)."""
    if _is_float(dtype):
        return sign * math.inf
    if dtype == _C.bool:
        return sign > 0
    info = _C.iinfo(dtype)
    return info.max if sign > 0 else info.min


def _mask(name, input, mask):
    if mask is None:
        return None
    if mask.dim() > input.dim():
        raise IndexError(
            f"masked.{name}: expected broadcastable mask "
            f"(got mask dimensionality higher than of the input: {mask.dim()} and {input.dim()})"
        )
    return mask.to(_C.bool).expand(input.shape)


def _fill(name, input, mask, identity):
    """The input with the identity where the mask is false."""
    mask = _mask(name, input, mask)
    return input if mask is None else input.masked_fill(~mask, identity)


def _dims(input, dim):
    return list(range(input.dim())) if dim is None else dim


def _accumulating(input, dtype):
    """The dtype sums and products are made in."""
    if dtype is not None:
        return dtype
    return input.dtype if _is_float(input.dtype) else _C.int64


def _floating(input, dtype):
    if dtype is not None:
        return dtype
    return input.dtype if _is_float(input.dtype) else _C.get_default_dtype()


def sum(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The sum of the elements that count, of all or along ``dim``.

    >>> import pyrite as torch
    >>> torch.masked.sum(torch.tensor([1, 2, 4]), mask=torch.tensor([True, False, True])).item()
    5
    """
    x = _fill("sum", input, mask, 0)
    return _C.sum(x, _dims(input, dim), bool(keepdim), dtype=_accumulating(input, dtype))


def prod(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The product of the elements that count, of all or along ``dim``."""
    x = _fill("prod", input, mask, 1).to(_accumulating(input, dtype))
    dims = _dims(input, dim)
    dims = [dims] if isinstance(dims, int) else list(dims)
    if not dims and input.dim():
        dims = list(range(input.dim()))
    rank = max(input.dim(), 1)
    for d in sorted((d + rank if d < 0 else d for d in dims), reverse=True):
        x = x.prod(d, bool(keepdim))
    return x


def _running(input, dtype):
    """The dtype of running sums and products: integers stay what they are."""
    return input.dtype if dtype is None and input.dtype != _C.bool else _accumulating(input, dtype)


def cumsum(input, dim, *, dtype=None, mask=None):
    """The running sum of the elements that count."""
    return _C.cumsum(_fill("cumsum", input, mask, 0), dim, dtype=_running(input, dtype))


def cumprod(input, dim, *, dtype=None, mask=None):
    """The running product of the elements that count."""
    return _C.cumprod(_fill("cumprod", input, mask, 1), dim, dtype=_running(input, dtype))


def _extremum(name, input, dim, keepdim, dtype, mask, sign):
    x = input if dtype is None else input.to(dtype)
    x = _fill(name, x, mask, _limit(x.dtype, sign))
    return getattr(_C, name)(x, _dims(input, dim), bool(keepdim))


def amax(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The greatest of the elements that count, of all or along ``dim``.

    >>> import pyrite as torch
    >>> torch.masked.amax(torch.tensor([1.0, 9.0, 4.0]), mask=torch.tensor([True, False, True])).item()
    4.0
    """
    return _extremum("amax", input, dim, keepdim, dtype, mask, -1)


def amin(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The smallest of the elements that count, of all or along ``dim``."""
    return _extremum("amin", input, dim, keepdim, dtype, mask, 1)


def _position(name, input, dim, keepdim, dtype, mask, sign):
    x = input if dtype is None else input.to(dtype)
    # PyTorch gives positions the dtype of the input.
    return getattr(_C, name)(_fill(name, x, mask, _limit(x.dtype, sign)), dim, bool(keepdim)).to(x.dtype)


def argmax(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The index of the greatest of the elements that count, of the flattened input or along ``dim``."""
    return _position("argmax", input, dim, keepdim, dtype, mask, -1)


def argmin(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The index of the smallest of the elements that count, of the flattened input or along ``dim``."""
    return _position("argmin", input, dim, keepdim, dtype, mask, 1)


def _count(input, dim, keepdim, mask):
    ones = _C.ones((), dtype=_C.bool).expand(input.shape)
    mask = _mask("count", input, mask)
    return _C.sum(ones if mask is None else mask, _dims(input, dim), bool(keepdim), dtype=_C.int64)


def mean(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The mean of the elements that count, of all or along ``dim``; NaN where none does.

    >>> import pyrite as torch
    >>> torch.masked.mean(torch.tensor([1.0, 9.0, 4.0]), mask=torch.tensor([True, False, True])).item()
    2.5
    """
    dtype = _floating(input, dtype)
    return sum(input, dim, keepdim=keepdim, dtype=dtype, mask=mask) / _count(input, dim, keepdim, mask).to(dtype)


def median(input, dim=-1, *, keepdim=False, dtype=None, mask=None):
    """The lower median of the elements that count along ``dim``; NaN where none does."""
    dtype = input.dtype if dtype is None else dtype
    x = input.to(_floating(input, dtype if dtype.is_floating_point else None))
    y = _fill("median", x, mask, math.nan).nanmedian(dim, keepdim).values
    if not dtype.is_floating_point and bool(y.isnan().any()):
        raise ValueError("masked median expected no fully masked out rows if dtype is not floating point")
    return y.to(dtype)


def logsumexp(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """``log(sum(exp(x)))`` of the elements that count, of all or along ``dim``."""
    x = _fill("logsumexp", input.to(_floating(input, dtype)), mask, -math.inf)
    return _C.logsumexp(x, _dims(input, dim), bool(keepdim)).to(input.dtype if dtype is None else dtype)


def logaddexp(input, other, *, dtype=None, input_mask=None, other_mask=None):
    """``log(exp(input) + exp(other))``, each where its mask is true."""
    a, b = input.to(_floating(input, dtype)), other.to(_floating(other, dtype))
    return _C.logaddexp(_fill("logaddexp", a, input_mask, -math.inf), _fill("logaddexp", b, other_mask, -math.inf))


def norm(input, ord=2.0, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The vector norm of order ``ord`` of the elements that count, of all or along ``dim``."""
    ord = 2.0 if ord is None else float(ord)
    x = _fill("norm", input.to(_floating(input, dtype)), mask, math.inf if ord < 0 else 0)
    return _C.norm(x, ord, _dims(input, dim), bool(keepdim))


def _variance(name, input, dim, unbiased, correction, keepdim, dtype, mask):
    if unbiased is not None and correction is not None:
        raise ValueError(f"masked.{name}: only one of unbiased and correction may be given")
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    x = input.to(_floating(input, dtype))
    dims = _dims(input, dim)
    mask = _mask(name, x, mask)
    count = _count(x, dims, True, mask).to(x.real.dtype)
    center = sum(x, dims, keepdim=True, mask=mask) / count
    gap = x - center
    gap = gap if mask is None else gap.masked_fill(~mask, 0)
    total = _C.sum(gap * gap.conj(), dims, bool(keepdim))
    count = count.reshape(total.shape)
    return total / (count - correction).clamp(min=0)


def var(input, dim=None, unbiased=None, *, correction=None, keepdim=False, dtype=None, mask=None):
    """The variance of the elements that count; the divisor is their number less ``correction`` (default 1)."""
    return _variance("var", input, dim, unbiased, correction, keepdim, dtype, mask)


def std(input, dim=None, unbiased=None, *, correction=None, keepdim=False, dtype=None, mask=None):
    """The standard deviation of the elements that count; see :func:`var`."""
    return _variance("std", input, dim, unbiased, correction, keepdim, dtype, mask).sqrt()


def softmax(input, dim, *, dtype=None, mask=None):
    """Softmax over the elements that count; 0 at the others, NaN where none counts.

    >>> import pyrite as torch
    >>> torch.masked.softmax(torch.tensor([1.0, 9.0, 1.0]), 0, mask=torch.tensor([True, False, True])).tolist()
    [0.5, 0.0, 0.5]
    """
    return _softmax(_fill("softmax", input.to(_floating(input, dtype)), mask, -math.inf), dim)


def log_softmax(input, dim, *, dtype=None, mask=None):
    """The logarithm of :func:`softmax`."""
    return _log_softmax(_fill("log_softmax", input.to(_floating(input, dtype)), mask, -math.inf), dim)


def softmin(input, dim, *, dtype=None, mask=None):
    """Softmax of the negated elements that count."""
    return softmax(-input.to(_floating(input, dtype)), dim, mask=mask)


def normalize(input, ord, dim, *, eps=1e-12, dtype=None, mask=None):
    """The elements that count divided by their norm along ``dim`` (at least ``eps``); 0 at the others."""
    x = input.to(_floating(input, dtype))
    length = norm(x, ord, dim, keepdim=True, mask=mask)
    return _fill("normalize", x, mask, 0) / length.clamp(min=eps)
