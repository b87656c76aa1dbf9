"""Making arrays, with the array API's arguments."""

import pyrite as torch

from ._dtypes import SCALARS, Tensor


def asarray(obj, /, *, dtype=None, device=None, copy=None):
    """An array from a number, nested sequences, a buffer or another array.

    ``copy=True`` always copies, ``None`` only where it must, ``False`` never: ValueError where a copy would be needed.
    """
    if isinstance(obj, Tensor):
        device = obj.device if device is None else torch.device(device)
        changes = (dtype is not None and dtype != obj.dtype) or device != obj.device
        if copy is False and changes:
            raise ValueError("asarray: copy=False, but another dtype or device needs a copy")
        return obj.to(device=device, dtype=dtype or obj.dtype, copy=bool(copy))
    if isinstance(obj, (*SCALARS, list, tuple)):
        if copy is False:
            raise ValueError("asarray: copy=False, but a Python object can only be copied")
        if isinstance(obj, (list, tuple)):
            obj = _lists(obj)
        return torch.tensor(obj, dtype=dtype, device=device)
    return torch.asarray(obj, dtype=dtype, device=device, copy=copy)


def _lists(obj):
    """Nested sequences with the arrays among them spelt out."""
    if isinstance(obj, (list, tuple)):
        return [_lists(x) for x in obj]
    return obj.tolist() if isinstance(obj, Tensor) else obj


def from_dlpack(x, /, *, device=None, copy=None):
    """An array over the memory of any object with `__dlpack__`; see :func:`pyrite.from_dlpack`."""
    return torch.from_dlpack(x, device=device, copy=copy)


def arange(start, /, stop=None, step=1, *, dtype=None, device=None):
    """``start, start + step, ...`` below `stop` (above it if `step` is negative); maybe empty."""
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ValueError("arange: step must not be zero")
    if dtype is None:
        whole = all(isinstance(v, int) for v in (start, stop, step))
        dtype = torch.int64 if whole else torch.get_default_dtype()
    if (stop <= start) if step > 0 else (stop >= start):
        return torch.empty(0, dtype=dtype, device=device)
    return torch.arange(start, stop, step, dtype=dtype, device=device)


def linspace(start, stop, /, num, *, dtype=None, device=None, endpoint=True):
    """`num` evenly spaced numbers from `start` to `stop`, which is left out if not `endpoint`."""
    if endpoint or num == 0:
        return torch.linspace(start, stop, num, dtype=dtype, device=device)
    return torch.linspace(start, stop, num + 1, dtype=dtype, device=device)[:-1]


def eye(n_rows, n_cols=None, /, *, k=0, dtype=None, device=None):
    """Ones on the k-th diagonal, zeros elsewhere."""
    y = torch.zeros(n_rows, n_rows if n_cols is None else n_cols, dtype=dtype, device=device)
    if -y.shape[0] < k < y.shape[1]:
        y.diagonal(k).fill_(1)
    return y


def _shape(shape):
    return (shape,) if isinstance(shape, int) else tuple(shape)


def empty(shape, *, dtype=None, device=None):
    """An array whose elements are not set."""
    return torch.empty(_shape(shape), dtype=dtype, device=device)


def zeros(shape, *, dtype=None, device=None):
    """An array of zeros."""
    return torch.zeros(_shape(shape), dtype=dtype, device=device)


def ones(shape, *, dtype=None, device=None):
    """An array of ones."""
    return torch.ones(_shape(shape), dtype=dtype, device=device)


def full(shape, fill_value, *, dtype=None, device=None):
    """An array of one value; without `dtype`, the default one of the value's kind."""
    return torch.full(_shape(shape), fill_value, dtype=dtype, device=device)


def empty_like(x, /, *, dtype=None, device=None):
    """`empty` with the shape, and unless given the dtype and device, of `x`."""
    return torch.empty_like(x, dtype=dtype, device=device)


def zeros_like(x, /, *, dtype=None, device=None):
    """`zeros` with the shape, and unless given the dtype and device, of `x`."""
    return torch.zeros_like(x, dtype=dtype, device=device)


def ones_like(x, /, *, dtype=None, device=None):
    """`ones` with the shape, and unless given the dtype and device, of `x`."""
    return torch.ones_like(x, dtype=dtype, device=device)


def full_like(x, /, fill_value, *, dtype=None, device=None):
    """`full` with the shape, and unless given the dtype and device, of `x`."""
    return torch.full_like(x, fill_value, dtype=dtype, device=device)


def meshgrid(*arrays, indexing="xy"):
    """Coordinate matrices of one-dimensional arrays, in Cartesian ('xy') or matrix ('ij') order."""
    return list(torch.meshgrid(*arrays, indexing=indexing)) if arrays else []


def tril(x, /, *, k=0):
    """The lower triangles of matrices: zeros above the k-th diagonal."""
    return torch.tril(x, k)


def triu(x, /, *, k=0):
    """The upper triangles of matrices: zeros below the k-th diagonal."""
    return torch.triu(x, k)
