"""Pooling undone, and pooling over windows in random places."""

from ... import _C
from .. import functional as F
from ._size import ntuple
from .module import Module

__all__ = ["FractionalMaxPool2d", "FractionalMaxPool3d", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"]


class _MaxUnpoolNd(Module):
    _dims = 0

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        name = type(self).__name__
        self.kernel_size = ntuple(kernel_size, self._dims, name, "kernel_size")
        self.stride = self.kernel_size if stride is None else ntuple(stride, self._dims, name, "stride")
        self.padding = ntuple(padding, self._dims, name, "padding")

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"

    def forward(self, input, indices, output_size=None):
        unpool = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)[self._dims - 1]
        return unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool1d(_MaxUnpoolNd):
    """Puts the maxima of :class:`MaxPool1d` (with ``return_indices``) back; all else is zero.

    >>> import pyrite as torch
    >>> x = torch.tensor([[[1.0, 3.0, 2.0, 0.0]]])
    >>> torch.nn.MaxUnpool1d(2)(*torch.nn.MaxPool1d(2, return_indices=True)(x)).tolist()
    [[[0.0, 3.0, 2.0, 0.0]]]
    """

    _dims = 1


class MaxUnpool2d(_MaxUnpoolNd):
    """Puts the maxima of :class:`MaxPool2d` (with ``return_indices``) back; all else is zero.

    >>> import pyrite as torch
    >>> x = torch.randn(1, 2, 4, 4)
    >>> torch.nn.MaxUnpool2d(2)(*torch.nn.MaxPool2d(2, return_indices=True)(x)).shape
    torch.Size([1, 2, 4, 4])
    """

    _dims = 2


class MaxUnpool3d(_MaxUnpoolNd):
    """Puts the maxima of :class:`MaxPool3d` (with ``return_indices``) back; all else is zero.

    >>> import pyrite as torch
    >>> x = torch.randn(1, 2, 4, 4, 4)
    >>> torch.nn.MaxUnpool3d(2)(*torch.nn.MaxPool3d(2, return_indices=True)(x)).shape
    torch.Size([1, 2, 4, 4, 4])
    """

    _dims = 3


class _FractionalMaxPoolNd(Module):
    _dims = 0

    def __init__(
        self, kernel_size, output_size=None, output_ratio=None, return_indices=False, _random_samples=None
    ):  # fmt: skip
        super().__init__()
        name, n = type(self).__name__, self._dims
        self.kernel_size = ntuple(kernel_size, n, name, "kernel_size")
        self.output_size = None if output_size is None else ntuple(output_size, n, name, "output_size")
        self.output_ratio = None if output_ratio is None else ntuple(output_ratio, n, name, "output_ratio")
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        if (output_size is None) == (output_ratio is None):
            raise ValueError(f"{name} requires specifying either an output size, or a pooling ratio, not both or none")
        if output_ratio is not None and not all(0 < r < 1 for r in self.output_ratio):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def forward(self, input):
        pool = F.fractional_max_pool2d if self._dims == 2 else F.fractional_max_pool3d
        samples = self._random_samples
        if samples is not None and samples.dtype != input.dtype and isinstance(samples, _C.Tensor):
            samples = samples.to(input.dtype)
        return pool(input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, samples)


class FractionalMaxPool2d(_FractionalMaxPoolNd):
    """Maximum over windows in random places (Graham 2014): to ``output_size``, or ``output_ratio`` of the input.

    >>> import pyrite as torch
    >>> torch.nn.FractionalMaxPool2d(3, output_size=(13, 12))(torch.randn(2, 4, 50, 32)).shape
    torch.Size([2, 4, 13, 12])
    """

    _dims = 2


class FractionalMaxPool3d(_FractionalMaxPoolNd):
    """Three-dimensional :class:`FractionalMaxPool2d`.

    >>> import pyrite as torch
    >>> torch.nn.FractionalMaxPool3d(3, output_ratio=0.5)(torch.randn(2, 4, 10, 8, 8)).shape
    torch.Size([2, 4, 5, 4, 4])
    """

    _dims = 3
