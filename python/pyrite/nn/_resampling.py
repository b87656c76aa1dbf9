"""Functions that resample images, for `pyrite.nn.functional`: interpolation, sampling grids, sliding windows."""

import math
import operator
import warnings

from .. import _C
from ._pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

_nn = _C._nn

__all__ = [
    "affine_grid",
    "fold",
    "grid_sample",
    "interpolate",
    "unfold",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]

# Mode -> number of spatial dimensions it is for; None: any.
_MODES = {
    "nearest": None,
    "nearest-exact": None,
    "area": None,
    "linear": 1,
    "bilinear": 2,
    "bicubic": 2,
    "lanczos": 2,
    "trilinear": 3,
}


def _per_dim(name, value, n, shape):
    """One value for each of ``n`` spatial dimensions."""
    if not isinstance(value, (tuple, list)):
        return [value] * n
    if len(value) != n:
        raise ValueError(
            f"Input and {name} must have the same number of spatial dimensions, but got input with spatial dimensions "
            f"of {list(shape[2:])} and {name} of {value}. Please provide input tensor in (N, C, d1, d2, ...,dK) format "
            f"and {name} in (o1, o2, ...,oK) format."
        )
    return list(value)


def interpolate(
    input,
    size=None,
    scale_factor=None,
    mode="nearest",
    align_corners=None,
    recompute_scale_factor=None,
    antialias=False,
):
    """Resamples (N, C, ...) with one to three spatial dimensions to ``size``, or by ``scale_factor``.

    Modes: 'nearest', 'nearest-exact' and 'area' for any number of dimensions, 'linear' for one, 'bilinear', 'bicubic'
    and 'lanczos' (with ``antialias``) for two, 'trilinear' for three. ``align_corners`` maps the centres of corner
    pixels onto each other. A scale factor also says how positions map, unless ``recompute_scale_factor`` asks for
    the ratio of the sizes. ``antialias`` widens the filter when shrinking. uint8 images are taken as they are.

    >>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> torch.nn.functional.interpolate(x, scale_factor=2)[0, 0, 0]
    tensor([0., 0., 1., 1.])
    """
    if mode in ("nearest", "area", "nearest-exact"):
        if align_corners is not None:
            raise ValueError(
                "align_corners option can only be set with the interpolating modes: "
                "linear | bilinear | bicubic | trilinear"
            )
    shape = tuple(input.shape)
    n = len(shape) - 2
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    if size is None and scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    scales = None
    if size is not None:
        sizes = _per_dim("output size", size, n, shape)
        try:
            sizes = [operator.index(s) for s in sizes]
        except TypeError:
            raise TypeError(
                "expected size to be one of int or Tuple[int] or Tuple[int, int] or Tuple[int, int, int], but got size "
                f"with types {[type(s) for s in sizes]}"
            ) from None
        if recompute_scale_factor:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
    else:
        factors = [float(f) for f in _per_dim("scale_factor", scale_factor, n, shape)]
        sizes = [math.floor(shape[i + 2] * f) for i, f in enumerate(factors)]
        # An area has the windows of its sizes alone.
        if not recompute_scale_factor and mode != "area":
            scales = factors
    if antialias and not (mode in ("bilinear", "bicubic", "lanczos") and n == 2):
        raise ValueError(
            "Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires a 4-D tensor as input"
        )
    if n not in (1, 2, 3) or mode not in _MODES:
        raise NotImplementedError(
            f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {len(shape)}D) for the modes: nearest | "
            f"linear | bilinear | bicubic | trilinear | lanczos | area | nearest-exact (got {mode})"
        )
    if _MODES[mode] not in (None, n):
        if mode in ("bicubic", "lanczos"):
            raise NotImplementedError(f"Got {len(shape)}D input, but {mode} mode needs 4D input")
        raise NotImplementedError(f"Got {len(shape)}D input, but {mode} mode needs {_MODES[mode] + 2}D input")
    if mode == "area":
        return (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[n - 1](input, sizes)
    if mode == "lanczos":
        if align_corners:
            raise ValueError("Lanczos mode does not support align_corners=True")
        if not antialias:
            raise ValueError("Lanczos mode requires antialias=True")
    if scales is not None:
        scales = _C.tensor(scales, dtype=_C.float64)
    return _nn.interpolate(input, sizes, mode, bool(align_corners), antialias, scales)


def upsample(input, size=None, scale_factor=None, mode="nearest", align_corners=None):
    """An older name of :func:`interpolate`."""
    warnings.warn("`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2)
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input, size=None, scale_factor=None):
    """:func:`interpolate` with mode 'nearest'."""
    warnings.warn(
        "`nn.functional.upsample_nearest` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2
    )
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input, size=None, scale_factor=None):
    """:func:`interpolate` with mode 'bilinear' and ``align_corners=True``."""
    warnings.warn(
        "`nn.functional.upsample_bilinear` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2
    )
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


def grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=None):
    """Reads ``input`` (N, C, H, W) at ``grid`` (N, Ho, Wo, 2): (x, y) in -1..1 -> (N, C, Ho, Wo).

    Also (N, C, D, H, W) at (N, Do, Ho, Wo, 3). ``mode``: 'bilinear', 'nearest', 'bicubic' (4-D only); what lies
    outside reads zeros, the border, or is reflected. -1 and 1 are the outer edges of the corner pixels, with
    ``align_corners`` their centres.
    """
    if align_corners is None:
        warnings.warn(
            "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. Please "
            "specify align_corners=True if the old behavior is desired.",
            stacklevel=2,
        )
    return _nn.grid_sample(input, grid, mode, padding_mode, bool(align_corners))


def affine_grid(theta, size, align_corners=None):
    """The grid for :func:`grid_sample` of affine maps ``theta`` (N, 2, 3) or (N, 3, 4) and an output of ``size``."""
    if align_corners is None:
        warnings.warn(
            "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. Please "
            "specify align_corners=True if the old behavior is desired.",
            stacklevel=2,
        )
        align_corners = False
    if not theta.is_floating_point():
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    size = tuple(size)
    n = len(size) - 2
    if n not in (2, 3):
        raise NotImplementedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. "
            f"Got size {size}."
        )
    if theta.dim() != 3 or tuple(theta.shape[1:]) != (n, n + 1):
        raise ValueError(
            f"Expected a batch of {n}D affine matrices of shape Nx{n}x{n + 1} for size {size}. Got {theta.shape}."
        )
    if align_corners and min(size[2:]) == 1:
        warnings.warn(
            "affine_grid: a dimension of size 1 with align_corners=True is at 0, the centre of the image.", stacklevel=2
        )
    elif min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {size}")
    if theta.shape[0] != size[0]:
        raise RuntimeError(f"affine_grid: theta has {theta.shape[0]} matrices, but size {size} a batch of {size[0]}")
    space = size[2:]
    axes = []
    for d, length in enumerate(space):
        line = _C.zeros(1, dtype=theta.dtype, device=theta.device)
        if length > 1:
            line = _C.linspace(-1, 1, length, dtype=theta.dtype, device=theta.device)
            if not align_corners:
                line = line * ((length - 1) / length)
        axes.append(line.reshape((1,) * d + (length,) + (1,) * (n - 1 - d)).expand(space))
    one = _C.ones(space, dtype=theta.dtype, device=theta.device)
    base = _C.stack([*reversed(axes), one], -1).reshape(1, -1, n + 1)
    return base.matmul(theta.transpose(1, 2)).reshape(size[0], *space, n)


def unfold(input, kernel_size, dilation=1, padding=0, stride=1):
    """Sliding windows of (N, C, H, W) or (C, H, W) as columns: (N, C * window, L)."""
    return _nn.unfold(input, kernel_size, dilation, padding, stride)


def fold(input, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """Columns (N, C * window, L) added up where :func:`unfold` takes them from: (N, C, H, W)."""
    return _nn.fold(input, output_size, kernel_size, dilation, padding, stride)
