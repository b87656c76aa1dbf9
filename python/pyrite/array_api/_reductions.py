"""Reductions and running totals: any number of axes, `keepdims`, the standard's result dtypes."""

import pyrite as torch

from ._dtypes import UNSIGNED, Tensor


def _axes(name, x, axis):
    """The axes to reduce, as sorted non-negative numbers; all for None."""
    if axis is None:
        return tuple(range(x.ndim))
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    for a in axes:
        if not -x.ndim <= a < x.ndim:
            raise IndexError(f"{name}: axis {a} is out of range for an array of {x.ndim} axes")
    axes = tuple(sorted(a % x.ndim for a in axes))
    if len(set(axes)) != len(axes):
        raise ValueError(f"{name}: axis {axis} names an axis twice")
    return axes


def _total_dtype(x, dtype):
    """The dtype of a sum or product: integers widen to 64 bits and keep their signedness."""
    if dtype is not None:
        return dtype
    if x.dtype in UNSIGNED:
        return torch.uint64
    return x.dtype if x.dtype.is_floating_point or x.dtype.is_complex else torch.int64


def _last(x, axes):
    """`x` with the reduced axes joined into a last one."""
    kept = [d for d in range(x.ndim) if d not in axes]
    moved = x.permute([*kept, *axes])
    length = 1
    for a in axes:
        length *= x.shape[a]
    return moved.reshape([*(x.shape[d] for d in kept), length])


def _keep(y, x, axes, keepdims):
    if not keepdims:
        return y
    return y.reshape([1 if d in axes else n for d, n in enumerate(x.shape)])


def sum(x, /, *, axis=None, dtype=None, keepdims=False):
    """The sum over `axis`; integers are added up in 64 bits."""
    axes, dtype = _axes("sum", x, axis), _total_dtype(x, dtype)
    return torch.sum(x, axes, keepdim=keepdims, dtype=dtype) if axes else x.to(dtype, copy=True)


def prod(x, /, *, axis=None, dtype=None, keepdims=False):
    """The product over `axis`; integers are multiplied in 64 bits."""
    axes, dtype = _axes("prod", x, axis), _total_dtype(x, dtype)
    if not axes:
        return x.to(dtype, copy=True)
    return _keep(torch.prod(_last(x, axes), -1, dtype=dtype), x, axes, keepdims)


def max(x, /, *, axis=None, keepdims=False):
    """The greatest element over `axis`; NaN if there is one."""
    axes = _axes("max", x, axis)
    return torch.amax(x, axes, keepdim=keepdims) if axes else x.clone()


def min(x, /, *, axis=None, keepdims=False):
    """The least element over `axis`; NaN if there is one."""
    axes = _axes("min", x, axis)
    return torch.amin(x, axes, keepdim=keepdims) if axes else x.clone()


def mean(x, /, *, axis=None, keepdims=False):
    """The mean over `axis`."""
    axes = _axes("mean", x, axis)
    return torch.mean(x, axes, keepdim=keepdims) if axes else x.clone()


def var(x, /, *, axis=None, correction=0.0, keepdims=False):
    """The variance over `axis`: the squared deviations' sum over ``n - correction``; any real correction."""
    axes = _axes("var", x, axis)
    if not axes:
        return (x - x) / (1.0 - correction) if correction != 1 else torch.full_like(x, float("nan"))
    y = torch.var(x, axes, correction=0, keepdim=keepdims)
    if correction == 0:
        return y
    n = 1
    for a in axes:
        n *= x.shape[a]
    return y * (n / (n - correction)) if n > correction else torch.full_like(y, float("nan"))


def std(x, /, *, axis=None, correction=0.0, keepdims=False):
    """The standard deviation over `axis`, see :func:`var`."""
    return torch.sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


def any(x, /, *, axis=None, keepdims=False):
    """True where some element over `axis` is not zero."""
    axes, x = _axes("any", x, axis), x != 0
    return torch.any(x, axes, keepdim=keepdims) if axes else x


def all(x, /, *, axis=None, keepdims=False):
    """True where every element over `axis` is not zero."""
    axes, x = _axes("all", x, axis), x != 0
    return torch.all(x, axes, keepdim=keepdims) if axes else x


def count_nonzero(x, /, *, axis=None, keepdims=False):
    """The number of elements over `axis` that are not zero."""
    axes = _axes("count_nonzero", x, axis)
    x = (x != 0).to(torch.int64)
    return torch.sum(x, axes, keepdim=keepdims) if axes else x


def _arg(f, x, axis, keepdims):
    if axis is not None:
        return f(x, axis, keepdim=keepdims)
    return _keep(f(x), x, tuple(range(x.ndim)), keepdims)


def argmax(x, /, *, axis=None, keepdims=False):
    """The index of the first greatest element, along `axis` or in the flattened array."""
    return _arg(torch.argmax, x, axis, keepdims)


def argmin(x, /, *, axis=None, keepdims=False):
    """The index of the first least element, along `axis` or in the flattened array."""
    return _arg(torch.argmin, x, axis, keepdims)


def _running(name, f, start, x, axis, dtype, include_initial):
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"{name}: axis must be given for an array of {x.ndim} axes")
        axis = 0
    y = f(x, axis, dtype=_total_dtype(x, dtype))
    if not include_initial:
        return y
    shape = list(x.shape)
    shape[axis] = 1
    return torch.cat([torch.full(shape, start, dtype=y.dtype, device=y.device), y], axis)


def cumulative_sum(x, /, *, axis=None, dtype=None, include_initial=False):
    """The running sum along `axis`; with `include_initial` it begins with a zero."""
    return _running("cumulative_sum", torch.cumsum, 0, x, axis, dtype, include_initial)


def cumulative_prod(x, /, *, axis=None, dtype=None, include_initial=False):
    """The running product along `axis`; with `include_initial` it begins with a one."""
    return _running("cumulative_prod", torch.cumprod, 1, x, axis, dtype, include_initial)


def diff(x, /, *, axis=-1, n=1, prepend=None, append=None):
    """The n-th difference along `axis`, with arrays joined on before and after."""
    parts = [p for p in (prepend, x, append) if isinstance(p, Tensor)]
    if len(parts) > 1:
        x = torch.cat(parts, axis)
    for _ in range(n):
        k = x.shape[axis]
        if k == 0:
            break
        a, b = x.narrow(axis, 1, k - 1), x.narrow(axis, 0, k - 1)
        x = a != b if x.dtype == torch.bool else a - b
    return x
