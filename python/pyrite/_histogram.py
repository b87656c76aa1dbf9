"""Histograms with bin edges: `histogram` and `histogramdd`, over search and counting."""

import functools
import math

from . import _C

Tensor = _C.Tensor

__all__ = ["histogram", "histogramdd"]


@functools.cache
def _result(name):
    """A named tuple that prints as the core's do; made when first needed."""
    from collections import namedtuple

    class Result(namedtuple(name, ("hist", "bin_edges"))):
        __slots__ = ()

        def __repr__(self):
            rows = ",\n".join(f"{k}={v!r}" for k, v in zip(self._fields, self, strict=True))
            return f"torch.return_types.{name}(\n{rows})"

    Result.__name__ = Result.__qualname__ = name
    Result.__module__ = "pyrite.return_types"
    return Result


def _check_input(input):
    if input.dtype not in (_C.float32, _C.float64):
        raise NotImplementedError(f'"histogramdd" not implemented for {input.dtype}: it takes float32 or float64')


def _edges(input, bins, ranges):
    """Edges per dimension of the points (rows of ``input``), from bin counts or given."""
    n, count = input.shape[0], input.shape[1]
    if any(isinstance(b, Tensor) for b in bins):
        if ranges is not None:
            raise TypeError("histogramdd: range can only be given with numbers of bins, not with bin edges")
        for i, b in enumerate(bins):
            if b.dim() != 1:
                raise RuntimeError(
                    "torch.histogramdd: bins tensor should have one dimension, "
                    f"but got {b.dim()} dimensions in the bins tensor for dimension {i}"
                )
            if b.dtype != input.dtype:
                raise RuntimeError(
                    "torch.histogramdd: input tensor and bins tensors should have the same dtype, "
                    f"but got input with dtype {input.dtype} and bins for dimension {i} with dtype {b.dtype}"
                )
            if b.numel() < 2:
                raise RuntimeError(
                    f"torch.histogramdd: bins tensor should have at least 2 elements, but got {b.numel()} "
                    f"for dimension {i}"
                )
        return list(bins)
    for i, b in enumerate(bins):
        if b <= 0:
            raise RuntimeError(f"torch.histogramdd(): bins must be > 0, but got {b} for dimension {i}")
    if ranges is None:
        if n == 0:
            low, high = [0.0] * count, [1.0] * count
        else:
            low, high = input.amin(0).tolist(), input.amax(0).tolist()
    else:
        ranges = [float(v) for v in ranges]
        if len(ranges) != 2 * count:
            raise RuntimeError(
                f"torch.histogramdd: for a {count}-dimensional histogram range should have {2 * count} elements, "
                f"but got {len(ranges)}"
            )
        low, high = ranges[0::2], ranges[1::2]
    edges = []
    for i, (b, lo, hi) in enumerate(zip(bins, low, high, strict=True)):
        if lo - lo != 0 or hi - hi != 0:
            raise RuntimeError(f"torch.histogramdd: dimension {i}'s range [{lo}, {hi}] is not finite")
        if lo > hi:
            raise RuntimeError(
                f"torch.histogramdd: min should not exceed max, but got min {lo} max {hi} for dimension {i}"
            )
        if lo == hi:
            lo, hi = lo - 0.5, hi + 0.5
        edges.append(_C.linspace(lo, hi, b + 1, dtype=input.dtype))
    return edges


def _counts(input, edges, weight, density):
    """What falls between the edges; the last edge belongs to the last bin."""
    if not edges:
        return input.new_zeros(())
    flat, inside, sizes = None, None, [e.numel() - 1 for e in edges]
    for i, edge in enumerate(edges):
        x = input[:, i].contiguous()
        at = _C.bucketize(x, edge, right=True) - 1
        at = _C.where(x == edge[-1], sizes[i] - 1, at)
        ok = (at >= 0) & (at < sizes[i])
        inside = ok if inside is None else inside & ok
        flat = at if flat is None else flat * sizes[i] + at
    total = 1
    for s in sizes:
        total *= s
    # What lies outside goes to a bin of its own, which is cut off.
    flat = _C.where(inside, flat, total)
    hist = _C.bincount(flat, weight, total + 1)[:total].to(input.dtype).reshape(sizes)
    if density:
        hist = hist / hist.sum()
        for i, edge in enumerate(edges):
            shape = [1] * len(sizes)
            shape[i] = sizes[i]
            hist = hist / (edge[1:] - edge[:-1]).reshape(shape)
    return hist


def _flat_weight(input, weight):
    if weight is None:
        return None
    if tuple(weight.shape) != tuple(input.shape[:-1]):
        raise RuntimeError(
            "torch.histogramdd: if weight tensor is provided it should have the same shape as the input tensor "
            f"excluding its innermost dimension, but got input with shape {list(input.shape)} "
            f"and weight with shape {list(weight.shape)}"
        )
    if weight.dtype != input.dtype:
        raise RuntimeError(
            "torch.histogramdd: if weight tensor is provided, input tensor and weight tensor should have the same "
            f"dtype, but got input(dtype={input.dtype}), and weight(dtype={weight.dtype})"
        )
    return weight.detach().reshape(-1)


def _put(result, out):
    if out is None:
        return result
    for value, target in zip(result, out, strict=True):
        if target.dtype != value.dtype:
            raise RuntimeError(f"torch.histogram: out= has dtype {target.dtype}, the result {value.dtype}")
        target.resize_(value.shape)
        target.copy_(value)
    return type(result)(*out)


def histogram(input, bins, *, range=None, weight=None, density=False, out=None):
    """Counts (or sums of ``weight``) of elements between bin edges, and the edges.

    ``bins`` is a number of equal bins over ``range`` (a pair; by default the data's extent) or a vector of increasing
    edges. The last bin includes its right edge; with ``density`` the integral over the range is 1. float32 and float64.

    >>> import pyrite as torch
    >>> torch.histogram(torch.tensor([1.0, 2.0, 1.0]), bins=3, range=(0.0, 3.0)).hist.tolist()
    [0.0, 2.0, 1.0]
    """
    _check_input(input)
    x = input.detach().reshape(-1, 1)
    if not isinstance(bins, Tensor) and bins <= 0:
        raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {bins} for dimension 0")
    if weight is not None and tuple(weight.shape) != tuple(input.shape):
        raise RuntimeError(
            "torch.histogram: if weight tensor is provided it should have the same shape as the input tensor, "
            f"but got input with shape {list(input.shape)} and weight with shape {list(weight.shape)}"
        )
    edges = _edges(x, [bins], range)
    weight = None if weight is None else _flat_weight(x, weight.reshape(-1))
    return _put(_result("histogram")(_counts(x, edges, weight, density), edges[0]), out)


def histogramdd(input, bins, range=None, weight=None, density=False):
    """The histogram of points in several dimensions: the last dimension of ``input`` holds the coordinates.

    ``bins``: a number of bins for each dimension (or one for all), or a vector of edges for each; ``range``: minimum
    and maximum of each dimension in turn. Gives the counts and the edges per dimension.

    >>> import pyrite as torch
    >>> points = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [2.0, 2.0]])
    >>> torch.histogramdd(points, bins=[3, 3], weight=torch.tensor([1.0, 2.0, 4.0, 8.0])).hist.tolist()
    [[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [4.0, 0.0, 8.0]]
    """
    _check_input(input)
    if input.dim() < 2:
        raise RuntimeError(f"torch.histogramdd: input tensor should have at least 2 dimensions, but got {input.dim()}")
    count = input.shape[-1]
    bins = [bins] * count if isinstance(bins, int) else list(bins)
    if len(bins) != count:
        raise RuntimeError(
            "histogramdd: The size of bins must be equal to the innermost dimension of the input "
            f"({len(bins)} and {count})."
        )
    weight = _flat_weight(input, weight)
    x = input.detach().reshape(math.prod(input.shape[:-1]), count)
    edges = _edges(x, bins, range)
    return _result("histogramdd")(_counts(x, edges, weight, density), tuple(edges))
