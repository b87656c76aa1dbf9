"""Functions that take any number of tensors or shapes, or only compare: plain Python over the core."""

import sys as _sys

from . import _C

Tensor = _C.Tensor

__all__ = [
    "allclose",
    "as_strided_",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "block_diag",
    "broadcast_shapes",
    "broadcast_tensors",
    "cartesian_prod",
    "detach",
    "detach_",
    "equal",
    "get_device",
    "is_complex",
    "is_floating_point",
    "is_nonzero",
    "is_signed",
    "isclose",
    "meshgrid",
    "numel",
]


def _spread(args):
    """``f(a, b)`` and ``f([a, b])`` mean the same."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (list, tuple)) else args


def _tensor(name, input):
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")
    return input


def broadcast_tensors(*tensors):
    """All tensors expanded to their common shape.

    >>> import pyrite as torch
    >>> [t.shape for t in torch.broadcast_tensors(torch.ones(3, 1), torch.ones(2))]
    [torch.Size([3, 2]), torch.Size([3, 2])]
    """
    return _C.broadcast_tensors(list(_spread(tensors)))


def broadcast_shapes(*shapes):
    """The shape that the given shapes (tuples or ints) broadcast to; RuntimeError where they don't.

    >>> import pyrite as torch
    >>> torch.broadcast_shapes((3, 1), (2,), 2)
    torch.Size([3, 2])
    """
    result = []
    for shape in shapes:
        sizes = [shape] if isinstance(shape, int) else list(shape)
        if len(sizes) > len(result):
            result = [1] * (len(sizes) - len(result)) + result
        for i in range(1, len(sizes) + 1):
            if sizes[-i] < 0:
                raise ValueError(f"Trying to create tensor with negative dimension ({sizes[-i]}): {shape}")
            if result[-i] == 1:
                result[-i] = sizes[-i]
            elif sizes[-i] not in (1, result[-i]):
                raise RuntimeError(
                    f"Shape mismatch: objects cannot be broadcast to a single shape: {shapes} differ in dimension {-i}"
                )
    return _C.Size(result)


def _at_least(tensors, reshape):
    tensors = _spread(tensors)
    out = tuple(reshape(t) for t in tensors)
    return out[0] if len(tensors) == 1 else out


def atleast_1d(*tensors):
    """Views with at least one dimension.

    >>> import pyrite as torch
    >>> torch.atleast_1d(torch.tensor(2)).shape
    torch.Size([1])
    """
    return _at_least(tensors, lambda t: t.reshape(1) if t.dim() == 0 else t)


def atleast_2d(*tensors):
    """Views with at least two dimensions; a vector becomes a row.

    >>> import pyrite as torch
    >>> torch.atleast_2d(torch.ones(3)).shape
    torch.Size([1, 3])
    """
    return _at_least(tensors, lambda t: t.reshape(1, 1) if t.dim() == 0 else t.unsqueeze(0) if t.dim() == 1 else t)


def atleast_3d(*tensors):
    """Views with at least three dimensions; a vector becomes (1, n, 1), a matrix (m, n, 1).

    >>> import pyrite as torch
    >>> torch.atleast_3d(torch.ones(3)).shape
    torch.Size([1, 3, 1])
    """

    def reshape(t):
        if t.dim() == 0:
            return t.reshape(1, 1, 1)
        if t.dim() == 1:
            return t.unsqueeze(0).unsqueeze(-1)
        return t.unsqueeze(-1) if t.dim() == 2 else t

    return _at_least(tensors, reshape)


def meshgrid(*tensors, indexing=None):
    """Grids of coordinates from vectors: as many tensors, each of shape (len(t0), len(t1), ...).

    ``indexing='xy'`` swaps the first two dimensions; 'ij' (default) keeps them.

    >>> import pyrite as torch
    >>> [g.tolist() for g in torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")]
    [[[0, 0, 0], [1, 1, 1]], [[0, 1, 2], [0, 1, 2]]]
    """
    tensors = list(_spread(tensors))
    if not tensors:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError(
            f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}'
        )  # fmt: skip
    for t in tensors:
        if t.dim() > 1:
            raise RuntimeError(
                f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got shape {tuple(t.shape)}"
            )
        if t.dtype != tensors[0].dtype or t.device != tensors[0].device:
            raise RuntimeError(
                "torch.meshgrid expects all tensors to have the same dtype and device, but got "
                f"{tensors[0].dtype} on {tensors[0].device} and {t.dtype} on {t.device}"
            )
    swap = indexing == "xy" and len(tensors) > 1
    if swap:
        tensors[0], tensors[1] = tensors[1], tensors[0]
    sizes = [t.numel() for t in tensors]
    grids = []
    for i, t in enumerate(tensors):
        shape = [1] * len(sizes)
        shape[i] = sizes[i]
        grids.append(t.reshape(shape).expand(sizes))
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def block_diag(*tensors):
    """The matrices along the diagonal of a larger one that is 0 elsewhere; vectors and numbers are rows.

    >>> import pyrite as torch
    >>> torch.block_diag(torch.tensor([[1, 2]]), torch.tensor(3)).tolist()
    [[1, 2, 0], [0, 0, 3]]
    """
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise TypeError(f"block_diag(): expected Tensor as element {i}, but got {type(t).__name__}")
    return _C.block_diag(list(tensors))


def cartesian_prod(*tensors):
    """All combinations of the vectors' elements, one per row.

    >>> import pyrite as torch
    >>> torch.cartesian_prod(torch.tensor([1, 2]), torch.tensor([4, 5])).tolist()
    [[1, 4], [1, 5], [2, 4], [2, 5]]
    """
    tensors = _spread(tensors)
    for t in tensors:
        if t.dim() != 1:
            raise RuntimeError(f"cartesian_prod: Expect a 1D vector, but got shape {list(t.shape)}")
    if len(tensors) == 1:
        return tensors[0]
    return _C.stack([g.reshape(-1) for g in meshgrid(*tensors, indexing="ij")], 1)


def isclose(input, other, rtol=1e-05, atol=1e-08, equal_nan=False):
    """True where ``|input - other| <= atol + rtol |other|``; infinities equal themselves only.

    >>> import pyrite as torch
    >>> torch.isclose(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.1])).tolist()
    [True, False]
    """
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        raise TypeError(f"isclose(): arguments must be Tensors, got {type(input).__name__} and {type(other).__name__}")
    if input.dtype != other.dtype:
        raise RuntimeError(f"isclose: {input.dtype} did not match {other.dtype}")
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"isclose: rtol and atol must not be negative, but found {rtol} and {atol}")
    same = input == other
    if input.dtype == _C.bool or (rtol == 0 and atol == 0 and not equal_nan):
        return same
    if input.is_floating_point() or input.is_complex():
        gap = (input - other).abs()
        near = (gap <= atol + rtol * other.abs()) & gap.isfinite()
        if equal_nan:
            near = near | ((input != input) & (other != other))
    else:
        a, b = input.to(_C.float64), other.to(_C.float64)
        near = (a - b).abs() <= atol + rtol * b.abs()
    return same | near


def allclose(input, other, rtol=1e-05, atol=1e-08, equal_nan=False):
    """True if :func:`isclose` holds everywhere.

    >>> import pyrite as torch
    >>> torch.allclose(torch.ones(2), torch.ones(2) + 1e-7)
    True
    """
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input, other):
    """True if both tensors have the same shape and elements.

    >>> import pyrite as torch
    >>> torch.equal(torch.ones(2), torch.ones(2)), torch.equal(torch.ones(2), torch.ones(3))
    (True, False)
    """
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        raise TypeError(f"equal(): arguments must be Tensors, got {type(input).__name__} and {type(other).__name__}")
    return tuple(input.shape) == tuple(other.shape) and bool((input == other).all())


def numel(input):
    """The number of elements.

    >>> import pyrite as torch
    >>> torch.numel(torch.ones(2, 3))
    6
    """
    return _tensor("numel", input).numel()


def is_floating_point(input):
    """True for float dtypes.

    >>> import pyrite as torch
    >>> torch.is_floating_point(torch.ones(1))
    True
    """
    return _tensor("is_floating_point", input).is_floating_point()


def is_complex(input):
    """True for complex dtypes.

    >>> import pyrite as torch
    >>> torch.is_complex(torch.ones(1))
    False
    """
    return _tensor("is_complex", input).is_complex()


def is_nonzero(input):
    """The truth of a one-element tensor; RuntimeError for others.

    >>> import pyrite as torch
    >>> torch.is_nonzero(torch.tensor([2.0]))
    True
    """
    if input.numel() != 1:
        raise RuntimeError(f"Boolean value of Tensor with {input.numel()} values is ambiguous (is_nonzero)")
    return bool(input)


def detach(input):
    """The same memory without a graph.

    >>> import pyrite as torch
    >>> torch.detach(torch.ones(1, requires_grad=True)).requires_grad
    False
    """
    return _tensor("detach", input).detach()


def detach_(input):
    """Cuts ``input`` out of its graph and returns it.

    >>> import pyrite as torch
    >>> torch.detach_(torch.ones(1, requires_grad=True) * 2).requires_grad
    False
    """
    return _tensor("detach_", input).detach_()


def as_strided_(input, size, stride, storage_offset=None):
    """In-place :func:`as_strided`: the tensor looks at its memory with other sizes and strides.

    >>> import pyrite as torch
    >>> torch.as_strided_(torch.arange(4), (2,), (2,)).tolist()
    [0, 2]
    """
    return input.as_strided_(size, stride, storage_offset)


def get_device(input):
    """The index of the tensor's CUDA device, -1 on the CPU.

    >>> import pyrite as torch
    >>> torch.get_device(torch.ones(1))
    -1
    """
    return _tensor("get_device", input).get_device()


def is_signed(input):
    """True for dtypes that hold negative numbers.

    >>> import pyrite as torch
    >>> torch.is_signed(torch.ones(1))
    True
    """
    return _tensor("is_signed", input).is_signed()


def _share_memory_(self):
    """Moves the tensor into memory that processes share, in place; see :mod:`pyrite._shared`."""
    from ._shared import share_memory_

    return share_memory_(self)


def _is_shared(self):
    """True if the tensor's memory is shared with other processes (CUDA memory always can be)."""
    shared = _sys.modules.get("pyrite._shared")  # not loaded before the first tensor is shared
    return self.device.type != "cpu" or (shared is not None and shared.is_shared(self))


def _histogram(self, bins, *, range=None, weight=None, density=False):
    """See :func:`pyrite.histogram`."""
    from ._histogram import histogram

    return histogram(self, bins, range=range, weight=weight, density=density)


def _new(self, *size, device=None):
    """A tensor of this one's dtype and device: empty of the given sizes, or with the given data (deprecated form).

    >>> import pyrite as torch
    >>> torch.zeros(2, dtype=torch.int64).new([1, 2, 3])
    tensor([1, 2, 3])
    """
    device = self.device if device is None else device
    if len(size) == 1 and not isinstance(size[0], (int, _C.Size)):
        if isinstance(size[0], Tensor):
            if size[0].dtype != self.dtype:
                raise TypeError(f"new(): expected {self.dtype} (got {size[0].dtype})")
            return size[0].detach().view_as(size[0])
        return _C.tensor(size[0], dtype=self.dtype, device=device)
    if len(size) == 1 and isinstance(size[0], _C.Size):
        size = tuple(size[0])
    return _C.empty(size or (0,), dtype=self.dtype, device=device)


Tensor.new = _new
Tensor.histogram = _histogram
Tensor.share_memory_ = _share_memory_
Tensor.is_shared = _is_shared

# Methods of the same meaning, where the core has none.
for _function in (allclose, equal, is_nonzero, isclose):
    if not hasattr(Tensor, _function.__name__):
        setattr(Tensor, _function.__name__, _function)
del _function
