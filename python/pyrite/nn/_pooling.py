"""Pooling functions for `pyrite.nn.functional`: 1-d to 3-d, thin over the core's kernels."""

from .. import _C

_nn = _C._nn

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
]


def _max_pool(n):
    """``max_pool<n>d`` and ``max_pool<n>d_with_indices``."""
    plain, both = getattr(_nn, f"max_pool{n}d"), getattr(_nn, f"max_pool{n}d_with_indices")

    def with_indices(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        return tuple(both(input, kernel_size, stride or None, padding, dilation, ceil_mode))

    def pool(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        if return_indices:
            return tuple(both(input, kernel_size, stride or None, padding, dilation, ceil_mode))
        return plain(input, kernel_size, stride or None, padding, dilation, ceil_mode)

    dims = ", ".join("DHW"[3 - n :]) if n > 1 else "L"
    pool.__name__ = pool.__qualname__ = f"max_pool{n}d"
    pool.__doc__ = f"""Maximum over windows of (N, C, {dims}) or (C, {dims}); the stride defaults to the window's size.

    With ``return_indices`` also the flat position of each maximum in its plane.
    """
    with_indices.__name__ = with_indices.__qualname__ = f"max_pool{n}d_with_indices"
    with_indices.__doc__ = f""":func:`max_pool{n}d` that also returns the positions of the maxima."""
    return pool, with_indices


max_pool1d, max_pool1d_with_indices = _max_pool(1)
max_pool2d, max_pool2d_with_indices = _max_pool(2)
max_pool3d, max_pool3d_with_indices = _max_pool(3)


def avg_pool1d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Mean over windows of (N, C, L) or (C, L)."""
    return _nn.avg_pool1d(input, kernel_size, stride or None, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """Mean over windows of (N, C, H, W) or (C, H, W)."""
    return _nn.avg_pool2d(input, kernel_size, stride or None, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """Mean over windows of (N, C, D, H, W) or (C, D, H, W)."""
    return _nn.avg_pool3d(input, kernel_size, stride or None, padding, ceil_mode, count_include_pad, divisor_override)


def adaptive_avg_pool1d(input, output_size):
    """1-d :func:`adaptive_avg_pool2d`."""
    return _nn.adaptive_avg_pool1d(input, _sizes(input, output_size, 1))


def adaptive_avg_pool2d(input, output_size):
    """Mean over as many nearly equal windows as ``output_size`` asks for; None keeps a size."""
    return _nn.adaptive_avg_pool2d(input, _sizes(input, output_size, 2))


def adaptive_avg_pool3d(input, output_size):
    """3-d :func:`adaptive_avg_pool2d`."""
    return _nn.adaptive_avg_pool3d(input, _sizes(input, output_size, 3))


def _one(v):
    return v[0] if isinstance(v, (tuple, list)) else v


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
    if out > max(1 << 16, 4 * size):
        # One kernel call per window: beyond this the loop would only fill memory.
        raise RuntimeError(f"adaptive_max_pool: output size {out} is too large for an input of {size}")
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
