"""Convolutions, 1-d to 3-d, and transposed convolutions."""

import math

from ... import _C
from .. import functional as F
from .. import init
from ..parameter import Parameter
from ._size import ntuple
from .module import Module

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]


class _ConvNd(Module):
    """What all convolutions share: checks, weights, printing. Subclasses set `_n` and the function."""

    _n = 0
    _transposed = False

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding,
        dilation,
        output_padding,
        groups,
        bias,
        padding_mode,
        device,
        dtype,
    ):
        super().__init__()
        name, n = type(self).__name__, self._n
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups:
            raise ValueError("out_channels must be divisible by groups")
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(
                f"padding_mode must be one of ('zeros', 'reflect', 'replicate', 'circular'), but got "
                f"padding_mode='{padding_mode}'"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = ntuple(kernel_size, n, name, "kernel_size")
        self.stride = ntuple(stride, n, name, "stride")
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string {padding!r}, should be one of ('same', 'valid')")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
            self.padding = padding
        else:
            self.padding = ntuple(padding, n, name, "padding")
        self.dilation = ntuple(dilation, n, name, "dilation")
        self.transposed = self._transposed
        self.output_padding = ntuple(output_padding, n, name, "output_padding")
        self.groups = groups
        self.padding_mode = padding_mode
        # For the modes that pad before convolving: (left, right) pairs, last dimension first.
        if self.padding == "valid":
            pairs = [(0, 0)] * n
        elif self.padding == "same":
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size)]
            pairs = [(t // 2, t - t // 2) for t in total]
        else:
            pairs = [(p, p) for p in self.padding]
        self._reversed_padding_repeated_twice = [v for pair in reversed(pairs) for v in pair]
        if self.transposed:
            shape = (in_channels, out_channels // groups, *self.kernel_size)
        else:
            shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(_C.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(_C.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draws new weights: uniform in +-1 / sqrt(fan_in)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._fans(self.weight)
            if fan_in:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def extra_repr(self):
        n = self._n
        s = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * n:
            s += f", padding={self.padding}"
        if self.dilation != (1,) * n:
            s += f", dilation={self.dilation}"
        if self.output_padding != (0,) * n:
            s += f", output_padding={self.output_padding}"
        if self.groups != 1:
            s += f", groups={self.groups}"
        if self.bias is None:
            s += ", bias=False"
        if self.padding_mode != "zeros":
            s += f", padding_mode={self.padding_mode}"
        return s


class _Conv(_ConvNd):
    _function = None

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        padding_mode="zeros",
        device=None,
        dtype=None,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias, padding_mode, device,
            dtype,
        )  # fmt: skip

    def forward(self, input):
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, self.padding_mode)
            padding = 0
        return self._function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Conv):
    """1-d convolution: (N, C, L) or (C, L) -> (N, K, L').

    ``L' = (L + 2 padding - dilation (kernel - 1) - 1) // stride + 1``. ``padding`` may be 'same' or 'valid'.

    >>> import pyrite as torch
    >>> torch.nn.Conv1d(4, 8, 3)(torch.randn(2, 4, 10)).shape
    torch.Size([2, 8, 8])
    """

    _n = 1
    _function = staticmethod(F.conv1d)


class Conv2d(_Conv):
    """2-d convolution: (N, C, H, W) or (C, H, W) -> (N, K, H', W').

    Sizes as in :class:`Conv1d`. ``weight`` is (out_channels, in_channels / groups, kH, kW).
    RuntimeError if the input's channels differ from ``in_channels``.

    >>> import pyrite as torch
    >>> torch.nn.Conv2d(1, 6, 5, padding=2)(torch.randn(2, 1, 28, 28)).shape
    torch.Size([2, 6, 28, 28])
    """

    _n = 2
    _function = staticmethod(F.conv2d)


class Conv3d(_Conv):
    """3-d convolution: (N, C, D, H, W) or (C, D, H, W) -> (N, K, D', H', W').

    >>> import pyrite as torch
    >>> torch.nn.Conv3d(1, 2, 3)(torch.randn(1, 1, 5, 5, 5)).shape
    torch.Size([1, 2, 3, 3, 3])
    """

    _n = 3
    _function = staticmethod(F.conv3d)


class _ConvTranspose(_ConvNd):
    _transposed = True
    _function = None

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        bias=True,
        dilation=1,
        padding_mode="zeros",
        device=None,
        dtype=None,
    ):
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input, output_size=None):
        extra = self.output_padding if output_size is None else self._output_padding(input, output_size)
        return self._function(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )

    def _output_padding(self, input, output_size):
        """The output padding that gives exactly ``output_size``; ValueError where none does."""
        n = self._n
        sizes = tuple(output_size)
        lead = input.dim() - n
        if len(sizes) == n + lead:
            sizes = sizes[lead:]
        if len(sizes) != n:
            raise ValueError(
                f"{type(self).__name__}: for {input.dim()}D input, output_size must have {n} or {n + lead} elements "
                f"(got {len(sizes)})"
            )
        smallest = [
            (input.shape[lead + i] - 1) * self.stride[i]
            - 2 * self.padding[i]
            + self.dilation[i] * (self.kernel_size[i] - 1)
            + 1
            for i in range(n)
        ]
        for want, low, stride in zip(sizes, smallest, self.stride):
            if not low <= want <= low + stride - 1:
                largest = [v + s - 1 for v, s in zip(smallest, self.stride)]
                raise ValueError(
                    f"requested an output size of {sizes}, but valid sizes range from {smallest} to {largest} "
                    f"(for an input of {tuple(input.shape)})"
                )
        return tuple(want - low for want, low in zip(sizes, smallest))


class ConvTranspose1d(_ConvTranspose):
    """Transposed 1-d convolution: (N, C, L) -> (N, K, L').

    ``L' = (L - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1``.

    >>> import pyrite as torch
    >>> torch.nn.ConvTranspose1d(2, 3, 4, stride=2)(torch.randn(1, 2, 5)).shape
    torch.Size([1, 3, 12])
    """

    _n = 1
    _function = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """Transposed 2-d convolution: (N, C, H, W) -> (N, K, H', W'); sizes as in :class:`ConvTranspose1d`.

    >>> import pyrite as torch
    >>> torch.nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1)(torch.randn(1, 8, 7, 7)).shape
    torch.Size([1, 4, 14, 14])
    """

    _n = 2
    _function = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """Transposed 3-d convolution: (N, C, D, H, W) -> (N, K, D', H', W'); sizes as in :class:`ConvTranspose1d`.

    >>> import pyrite as torch
    >>> torch.nn.ConvTranspose3d(2, 1, 2, stride=2)(torch.randn(1, 2, 3, 3, 3)).shape
    torch.Size([1, 1, 6, 6, 6])
    """

    _n = 3
    _function = staticmethod(F.conv_transpose3d)
