"""Pooling functions for `pyrite.nn.functional`: 1-d and 2-d, by the core's 2-d kernels."""

from .. import _C

_nn = _C._nn

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "lp_pool1d",
    "lp_pool2d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
]


def _one(v):
    return v[0] if isinstance(v, (tuple, list)) else v


def max_pool2d_with_indices(
    input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
):  # fmt: skip
    """Maximum over windows and the flat position of each maximum in its (H, W) plane."""
    stride = kernel_size if stride is None else stride
    return tuple(_nn.max_pool2d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode))


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Maximum over windows of (N, C, H, W) or (C, H, W)."""
    stride = kernel_size if stride is None else stride
    if return_indices:
        return tuple(_nn.max_pool2d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode))
    return _nn.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool1d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Maximum over windows of (N, C, L) or (C, L)."""
    k = _one(kernel_size)
    s = k if stride is None else _one(stride)
    args = (input.unsqueeze(-2), (1, k), (1, s), (0, _one(padding)), (1, _one(dilation)), ceil_mode)
    if return_indices:
        out, index = _nn.max_pool2d_with_indices(*args)
        return out.squeeze(-2), index.squeeze(-2)
    return _nn.max_pool2d(*args).squeeze(-2)


def max_pool1d_with_indices(
    input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
):  # fmt: skip
    """:func:`max_pool1d` that also returns the positions of the maxima."""
    return max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def avg_pool2d(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):  # fmt: skip
    """Mean over windows of (N, C, H, W) or (C, H, W)."""
    stride = kernel_size if stride is None else stride
    return _nn.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool1d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Mean over windows of (N, C, L) or (C, L)."""
    k = _one(kernel_size)
    s = k if stride is None else _one(stride)
    out = _nn.avg_pool2d(
        input.unsqueeze(-2), (1, k), (1, s), (0, _one(padding)), ceil_mode, count_include_pad, None
    )  # fmt: skip
    return out.squeeze(-2)


def adaptive_avg_pool2d(input, output_size):
    """Mean over as many nearly equal windows as ``output_size`` asks for; None keeps a size."""
    return _nn.adaptive_avg_pool2d(input, _sizes(input, output_size, 2))


def adaptive_avg_pool1d(input, output_size):
    """1-d :func:`adaptive_avg_pool2d`."""
    return _nn.adaptive_avg_pool2d(input.unsqueeze(-2), (1, *_sizes(input, output_size, 1))).squeeze(-2)


def _sizes(input, output_size, n):
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * n
    if len(sizes) != n:
        raise ValueError(f"adaptive pooling: output_size must have {n} values, but got {output_size!r}")
    if input.dim() < n + 1:
        raise ValueError(f"Input dimension should be at least {n + 1}, but got shape {tuple(input.shape)}")
    return tuple(input.shape[i - n] if s is None else s for i, s in enumerate(sizes))


def _adaptive_max(input, out, dim):
    """Maximum of each of ``out`` adaptive windows along one dimension, and its position there."""
    size = input.shape[dim]
    values, indices = [], []
    for i in range(out):
        start, end = (i * size) // out, -((-(i + 1) * size) // out)
        v, j = input.narrow(dim, start, end - start).max(dim, keepdim=True)
        values.append(v)
        indices.append(j + start)
    return _C.cat(values, dim), _C.cat(indices, dim)


def adaptive_max_pool1d(input, output_size, return_indices=False):
    """Maximum over ``output_size`` nearly equal windows of the last dimension."""
    (size,) = _sizes(input, output_size, 1)
    out, index = _adaptive_max(input, size, -1)
    return (out, index) if return_indices else out


def adaptive_max_pool2d(input, output_size, return_indices=False):
    """Maximum over nearly equal windows of the last two dimensions."""
    h, w = _sizes(input, output_size, 2)
    by_col, col = _adaptive_max(input, w, -1)
    out, row = _adaptive_max(by_col, h, -2)
    if not return_indices:
        return out
    return out, row * input.shape[-1] + col.gather(-2, row)


def lp_pool1d(input, norm_type, kernel_size, stride=None, ceil_mode=False):
    """p-norm over windows: (sum of x^p)^(1/p)."""
    out = avg_pool1d(input.pow(norm_type), kernel_size, stride, 0, ceil_mode)
    return out.mul(_one(kernel_size)).pow(1.0 / norm_type)


def lp_pool2d(input, norm_type, kernel_size, stride=None, ceil_mode=False):
    """p-norm over 2-d windows."""
    kh, kw = kernel_size if isinstance(kernel_size, (tuple, list)) else (kernel_size, kernel_size)
    out = avg_pool2d(input.pow(norm_type), kernel_size, stride, 0, ceil_mode)
    return out.mul(kh * kw).pow(1.0 / norm_type)
