"""Shapes, joining, indexing along an axis."""

import pyrite as torch

from ._dtypes import Tensor, promote


def _same_dtype(arrays):
    arrays = list(arrays)
    return list(promote(*arrays))


def broadcast_arrays(*arrays):
    """The arrays, expanded to one shape."""
    shape = torch.broadcast_shapes(*[x.shape for x in arrays])
    return [x.expand(shape) for x in arrays]


def broadcast_to(x, /, shape):
    """`x` expanded to `shape`."""
    return torch.broadcast_to(x, tuple(shape))


def concat(arrays, /, *, axis=0):
    """The arrays joined along `axis`; flattened first if it is None."""
    arrays = _same_dtype(arrays)
    if axis is None:
        return torch.cat([x.reshape(-1) for x in arrays], 0)
    return torch.cat(arrays, axis)


def stack(arrays, /, *, axis=0):
    """The arrays joined along a new axis."""
    return torch.stack(_same_dtype(arrays), axis)


def unstack(x, /, *, axis=0):
    """The slices along `axis`, as a tuple."""
    return torch.unbind(x, axis)


def expand_dims(x, /, axis):
    """An axis of length one, inserted at `axis` (or several, as numbered in the result)."""
    if isinstance(axis, int):
        return torch.unsqueeze(x, axis)
    n = x.ndim + len(axis)
    if any(not -n <= a < n for a in axis):
        raise IndexError(f"expand_dims: axis {tuple(axis)} is out of range for {n} axes")
    places = sorted(a % n for a in axis)
    if len(set(places)) != len(places):
        raise ValueError(f"expand_dims: axis {tuple(axis)} names an axis twice")
    for a in places:
        x = torch.unsqueeze(x, a)
    return x


def squeeze(x, /, axis):
    """`x` without the given axes, each of which must have length one (else ValueError)."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    for a in axes:
        if not -x.ndim <= a < x.ndim:
            raise IndexError(f"squeeze: axis {a} is out of range for {x.ndim} axes")
        if x.shape[a] != 1:
            raise ValueError(f"squeeze: axis {a} has length {x.shape[a]}, not 1")
    return torch.squeeze(x, axes)


def flip(x, /, *, axis=None):
    """The order of elements reversed along `axis`, or along all."""
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return torch.flip(x, tuple(axes))


def moveaxis(x, source, destination, /):
    """Axes moved to other positions."""
    return torch.moveaxis(x, source, destination)


def permute_dims(x, /, axes):
    """The axes in another order."""
    return torch.permute(x, tuple(axes))


def repeat(x, repeats, /, *, axis=None):
    """Each element repeated along `axis`, `repeats` times (a number or one per element)."""
    if isinstance(repeats, Tensor):
        repeats = repeats.to(torch.int64)
        n = x.numel() if axis is None else x.shape[axis]
        repeats = repeats.expand(n) if repeats.numel() == 1 else repeats
    return torch.repeat_interleave(x, repeats, axis)


def reshape(x, /, shape, *, copy=None):
    """The elements in another shape. ``copy=False`` raises ValueError where only a copy has it."""
    if copy:
        x = x.clone()
    if copy is False:
        try:
            return x.view(tuple(shape))
        except RuntimeError as error:
            raise ValueError(f"reshape: copy=False, but a copy is needed: {error}") from None
    return torch.reshape(x, tuple(shape))


def roll(x, /, shift, *, axis=None):
    """Elements moved round along `axis`, or along the flattened array."""
    return torch.roll(x, shift, () if axis is None else axis)


def tile(x, repetitions, /):
    """The whole array repeated along each axis."""
    return torch.tile(x, tuple(repetitions))


def _from_front(indices, n):
    return torch.where(indices < 0, indices + n, indices)


def take(x, indices, /, *, axis=None):
    """The elements of `x` at `indices` (one-dimensional) along `axis`, which only a vector may leave out."""
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"take: axis must be given for an array of {x.ndim} axes")
        axis = 0
    indices = indices.to(torch.int64)
    return torch.index_select(x, axis, _from_front(indices, x.shape[axis]))


def take_along_axis(x, indices, /, *, axis=-1):
    """The elements of `x` that `indices`, of as many axes as `x`, names along `axis`; other axes broadcast."""
    return torch.take_along_dim(x, _from_front(indices.to(torch.int64), x.shape[axis]), axis)
