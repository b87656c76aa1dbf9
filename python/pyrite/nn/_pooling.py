"""Pooling functions for `pyrite.nn.functional`: 1-d to 3-d, thin over the core's kernels."""

from .. import _C

_nn = _C._nn

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]


def _max_pool(n):
    """``max_pool<n>d`` and ``max_pool<n>d_with_indices``."""
    plain, both = getattr(_nn, f"max_pool{n}d"), getattr(_nn, f"max_pool{n}d_with_indices")

    def with_indices(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        return tuple(both(input, kernel_size, stride, padding, dilation, ceil_mode))

    def pool(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        if return_indices:
            return tuple(both(input, kernel_size, stride, padding, dilation, ceil_mode))
        return plain(input, kernel_size, stride, padding, dilation, ceil_mode)

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
    return _nn.avg_pool1d(input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
    *,
    out=None,
):
    """Mean over windows of (N, C, H, W) or (C, H, W)."""
    args = (input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _nn.avg_pool2d(*args) if out is None else _nn.avg_pool2d(*args, out=out)


def avg_pool3d(
    input,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
    *,
    out=None,
):
    """Mean over windows of (N, C, D, H, W) or (C, D, H, W)."""
    args = (input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _nn.avg_pool3d(*args) if out is None else _nn.avg_pool3d(*args, out=out)


def adaptive_avg_pool1d(input, output_size):
    """1-d :func:`adaptive_avg_pool2d`."""
    return _nn.adaptive_avg_pool1d(input, _sizes(input, output_size, 1))


def adaptive_avg_pool2d(input, output_size):
    """Mean over as many nearly equal windows as ``output_size`` asks for; None keeps a size."""
    return _nn.adaptive_avg_pool2d(input, _sizes(input, output_size, 2))


def adaptive_avg_pool3d(input, output_size):
    """3-d :func:`adaptive_avg_pool2d`."""
    return _nn.adaptive_avg_pool3d(input, _sizes(input, output_size, 3))


def _sizes(input, output_size, n):
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * n
    if input.dim() < n + 1:
        raise ValueError(f"Input dimension should be at least {n + 1}, but got shape {tuple(input.shape)}")
    sizes = tuple(input.shape[i - n] if s is None else s for i, s in enumerate(sizes))
    if len(sizes) != n or any(s < 0 for s in sizes):
        raise RuntimeError(f"adaptive pooling: output_size must have {n} non-negative values, but got {output_size!r}")
    return sizes


def _even(input, sizes):
    """The window that halves, thirds, ... every dimension exactly, or None."""
    space = tuple(input.shape[-len(sizes) :])
    if not input.is_floating_point() or not all(s and n % s == 0 for n, s in zip(space, sizes, strict=True)):
        return None
    return tuple(n // s for n, s in zip(space, sizes, strict=True))


def _adaptive_max(input, out, dim):
    """Maximum of each of ``out`` adaptive windows along one dimension, and its position there."""
    size = input.shape[dim]
    if out > max(1 << 16, 4 * size):
        raise RuntimeError(f"adaptive_max_pool: output size {out} is too large for an input of {size}")
    if out == 0:
        empty = input.narrow(dim, 0, 0)
        return empty, empty.to(_C.int64)
    starts = [(i * size) // out for i in range(out)]
    ends = [-((-(i + 1) * size) // out) for i in range(out)]
    longest = max(e - s for s, e in zip(starts, ends, strict=True))
    # Windows of one length: a shorter one repeats its last element, which changes no maximum.
    index = [min(s + k, e - 1) for s, e in zip(starts, ends, strict=True) for k in range(longest)]
    index = _C.tensor(index, dtype=_C.int64, device=input.device)
    values, at = input.index_select(dim, index).unflatten(dim, (out, longest)).max(dim, keepdim=True)
    at = at.squeeze(dim)
    first = _C.tensor(starts, dtype=_C.int64, device=input.device)
    return values.squeeze(dim), at + first.reshape((out,) + (1,) * (-1 - dim))


def adaptive_max_pool1d(input, output_size, return_indices=False):
    """Maximum over ``output_size`` nearly equal windows of the last dimension."""
    (size,) = sizes = _sizes(input, output_size, 1)
    _check_pooled("adaptive_max_pool1d", input, 1)
    if (window := _even(input, sizes)) is not None:
        return max_pool1d(input, window, return_indices=return_indices)
    out, index = _adaptive_max(input, size, -1)
    return (out, index) if return_indices else out


def adaptive_max_pool2d(input, output_size, return_indices=False):
    """Maximum over nearly equal windows of the last two dimensions."""
    h, w = sizes = _sizes(input, output_size, 2)
    _check_pooled("adaptive_max_pool2d", input, 2)
    if (window := _even(input, sizes)) is not None:
        return max_pool2d(input, window, return_indices=return_indices)
    by_col, col = _adaptive_max(input, w, -1)
    out, row = _adaptive_max(by_col, h, -2)
    if not return_indices:
        return out
    return out, row * input.shape[-1] + col.gather(-2, row)


def adaptive_max_pool3d(input, output_size, return_indices=False):
    """Maximum over nearly equal windows of the last three dimensions."""
    d, h, w = sizes = _sizes(input, output_size, 3)
    _check_pooled("adaptive_max_pool3d", input, 3)
    if (window := _even(input, sizes)) is not None:
        return max_pool3d(input, window, return_indices=return_indices)
    by_col, col = _adaptive_max(input, w, -1)
    by_row, row = _adaptive_max(by_col, h, -2)
    out, depth = _adaptive_max(by_row, d, -3)
    if not return_indices:
        return out
    inside = row * input.shape[-1] + col.gather(-2, row)
    return out, depth * (input.shape[-1] * input.shape[-2]) + inside.gather(-3, depth)


def _check_pooled(name, input, n):
    shape = tuple(input.shape)
    if len(shape) not in (n + 1, n + 2):
        raise RuntimeError(f"{name}(): Expected {n + 1}D or {n + 2}D tensor, but got {shape}")
    if 0 in shape[len(shape) - n - 1 :]:
        raise RuntimeError(
            f"{name}(): Expected input to have non-zero size for non-batch dimensions, but input has sizes {shape}"
        )


def _lp_pool(n, avg_pool, max_pool):
    """``lp_pool<n>d``."""

    def lp_pool(input, norm_type, kernel_size, stride=None, ceil_mode=False):
        if norm_type == float("inf"):
            return max_pool(input.abs(), kernel_size, stride, 0, 1, ceil_mode)
        if norm_type == -float("inf"):
            return -max_pool(-input.abs(), kernel_size, stride, 0, 1, ceil_mode)
        out = avg_pool(input.pow(norm_type), kernel_size, stride, 0, ceil_mode)
        taps = 1
        for k in _repeated(kernel_size, n):
            taps *= k
        # Rounding may leave a sum of even powers a little below zero.
        out = out.sign() * out.abs().relu()
        return out.mul(taps).pow(1.0 / norm_type)

    lp_pool.__name__ = lp_pool.__qualname__ = f"lp_pool{n}d"
    lp_pool.__doc__ = "p-norm over windows: (sum of x^p)^(1/p); the maximum for an infinite ``norm_type``."
    return lp_pool


def _repeated(v, n):
    """``v`` as ``n`` values."""
    return tuple(v) * (n if len(v) == 1 else 1) if isinstance(v, (tuple, list)) else (v,) * n


lp_pool1d = _lp_pool(1, avg_pool1d, max_pool1d)
lp_pool2d = _lp_pool(2, avg_pool2d, max_pool2d)
lp_pool3d = _lp_pool(3, avg_pool3d, max_pool3d)


def _max_unpool(n):
    """``max_unpool<n>d``."""

    def max_unpool(input, indices, kernel_size, stride=None, padding=0, output_size=None):
        kernel = _repeated(kernel_size, n)
        stride = kernel if stride is None else _repeated(stride, n)
        padding = _repeated(padding, n)
        shape = tuple(input.shape)
        if tuple(indices.shape) != shape:
            raise RuntimeError(
                f"Expected shape of indices to be same as that of the input tensor ({shape}) but got indices tensor "
                f"with shape: {tuple(indices.shape)}"
            )
        if indices.dtype != _C.int64:
            raise RuntimeError(f"elements in indices should be type int64 but got: {indices.dtype}")
        if len(shape) not in (n + 1, n + 2):
            raise RuntimeError(
                f"Input to max_unpool{n}d should be a {n + 1}d or {n + 2}d Tensor, but got shape {shape}"
            )
        if 0 in shape[len(shape) - n - 1 :]:
            raise RuntimeError(
                f"max_unpool{n}d(): Expected input to have non-zero size for non-batch dimensions, but got {shape}"
            )
        default = [(shape[d - n] - 1) * stride[d] + kernel[d] - 2 * padding[d] for d in range(n)]
        if output_size is None:
            size = default
        else:
            size = list(output_size)
            if len(size) == n + 2:
                size = size[2:]
            if len(size) != n:
                raise ValueError(
                    f"output_size should be a sequence containing {n} or {n + 2} elements, but it has a length of "
                    f"'{len(size)}'"
                )
            for d in range(n):
                low, high = default[d] - stride[d], default[d] + stride[d]
                if not low < size[d] < high:
                    raise ValueError(f'invalid output_size "{size}" (dim {d} must be between {low} and {high})')
        if min(size) < 0:
            raise ValueError(f"max_unpooling: output_size must contain non-negative spatial dimensions, but got {size}")
        batched = len(shape) == n + 2
        if not batched:
            input, indices = input.unsqueeze(0), indices.unsqueeze(0)
        plane = 1
        for s in size:
            plane *= s
        values = indices
        while hasattr(values, "_batched_value"):  # of vmap: all samples at once
            values = values._batched_value
        if values.numel() and not (0 <= int(values.min()) and int(values.max()) < plane):
            raise RuntimeError(
                f"found an invalid max index: max_unpool{n}d got indices from {int(values.min())} to "
                f"{int(values.max())} for an output of {size}"
            )
        out = _nn.max_unpool(input, indices, [*input.shape[:2], *size])
        return out if batched else out.squeeze(0)

    max_unpool.__name__ = max_unpool.__qualname__ = f"max_unpool{n}d"
    max_unpool.__doc__ = f"""Puts the maxima of :func:`max_pool{n}d` back where ``indices`` say they came from.

    All else is zero; ``output_size`` chooses among the sizes that pool to that of ``input``.
    """
    return max_unpool


max_unpool1d, max_unpool2d, max_unpool3d = _max_unpool(1), _max_unpool(2), _max_unpool(3)


def _fractional(n):
    """``fractional_max_pool<n>d`` and the form that returns indices."""
    name = f"fractional_max_pool{n}d"

    def with_indices(
        input, kernel_size, output_size=None, output_ratio=None, return_indices=False, _random_samples=None
    ):
        if output_size is None and output_ratio is None:
            raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
        shape = tuple(input.shape)
        if len(shape) not in (n + 1, n + 2) or 0 in shape[len(shape) - n - 1 :]:
            raise RuntimeError(f"{name}(): Expected {n + 1}D or {n + 2}D tensor with non-zero sizes, but got {shape}")
        kernel = _repeated(kernel_size, n)
        if output_size is None:
            ratio = _repeated(output_ratio, n)
            if len(ratio) != n:
                raise ValueError(f"{name} requires output_ratio to either be a single float or a tuple of {n} floats.")
            size = [int(shape[d - n] * ratio[d]) for d in range(n)]
        else:
            size = list(_repeated(output_size, n))
        if len(kernel) != n or len(size) != n:
            raise RuntimeError(f"{name}: kernel_size and output_size must be ints or have {n} values each")
        for d in range(n):
            if size[d] < 1 or size[d] + kernel[d] - 1 > shape[d - n]:
                raise RuntimeError(
                    f"{name}(): pool size {kernel} with output size {size} is too large relative to input size "
                    f"{shape[-n:]}"
                )
        batched = len(shape) == n + 2
        x = input if batched else input.unsqueeze(0)
        if _random_samples is None:
            _random_samples = _C.rand(x.shape[0], x.shape[1], n, dtype=input.dtype, device=input.device)
        if tuple(_random_samples.shape) != (x.shape[0], x.shape[1], n):
            raise RuntimeError(
                f"{name}: expected _random_samples of shape {(x.shape[0], x.shape[1], n)}, but got "
                f"{tuple(_random_samples.shape)}"
            )
        # The flat position of every element of every window: (N, C, outputs..., window).
        flat = _C.zeros(1, dtype=_C.int64, device=input.device)
        for d in range(n):
            # In two dimensions the first number moves the columns, in three the slices.
            sample = _random_samples[..., 1 - d if n == 2 else d].detach().unsqueeze(-1)
            length = shape[d - n]
            room = length - kernel[d]
            at = _C.full((x.shape[0], x.shape[1], 1), room, dtype=_C.int64, device=input.device)
            if size[d] > 1:
                alpha = room / (size[d] - 1)
                step = _C.arange(size[d] - 1, dtype=input.dtype, device=input.device)
                first = ((step + sample) * alpha).to(_C.int64) - (sample * alpha).to(_C.int64)
                at = _C.cat([first, at], -1)
            at = at.unsqueeze(-1) + _C.arange(kernel[d], device=input.device)
            place = [x.shape[0], x.shape[1]] + [1] * (2 * n)
            place[2 + d], place[2 + n + d] = size[d], kernel[d]
            flat = flat * length + at.reshape(place)
        window = 1
        for k in kernel:
            window *= k
        places = flat.flatten(2)
        values = x.flatten(2).gather(2, places).reshape(x.shape[0], x.shape[1], *size, window)
        out, k = values.max(-1)
        index = places.reshape(*values.shape).gather(-1, k.unsqueeze(-1)).squeeze(-1)
        return (out, index) if batched else (out.squeeze(0), index.squeeze(0))

    def pool(input, kernel_size, output_size=None, output_ratio=None, return_indices=False, _random_samples=None):
        both = with_indices(input, kernel_size, output_size, output_ratio, return_indices, _random_samples)
        return both if return_indices else both[0]

    pool.__name__ = pool.__qualname__ = name
    pool.__doc__ = """Maximum over windows whose places are random steps of a mean width (Graham 2014).

    The size of the result is ``output_size``, or ``output_ratio`` times that of the input.
    """
    with_indices.__name__ = with_indices.__qualname__ = name + "_with_indices"
    with_indices.__doc__ = f""":func:`{name}` that also returns the positions of the maxima."""
    return pool, with_indices


fractional_max_pool2d, fractional_max_pool2d_with_indices = _fractional(2)
fractional_max_pool3d, fractional_max_pool3d_with_indices = _fractional(3)
