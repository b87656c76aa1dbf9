"""Sorting, searching and sets. NaNs count as distinct in the set functions, as the standard asks."""

from collections import namedtuple

import pyrite as torch

from ._dtypes import Tensor, promote, result_type

UniqueAll = namedtuple("UniqueAll", ("values", "indices", "inverse_indices", "counts"))
UniqueCounts = namedtuple("UniqueCounts", ("values", "counts"))
UniqueInverse = namedtuple("UniqueInverse", ("values", "inverse_indices"))


def sort(x, /, *, axis=-1, descending=False, stable=True):
    """The elements in order along `axis`."""
    return torch.sort(x, dim=axis, descending=descending, stable=stable).values


def argsort(x, /, *, axis=-1, descending=False, stable=True):
    """The indices that would sort `x` along `axis`."""
    return torch.argsort(x, dim=axis, descending=descending, stable=stable)


def searchsorted(x1, x2, /, *, side="left", sorter=None):
    """Where each element of `x2` would go into the sorted vector `x1`."""
    x1, x2 = promote(x1, x2)
    if sorter is not None:
        sorter = sorter.to(torch.int64)
    return torch.searchsorted(x1, x2, side=side, sorter=sorter)


def nonzero(x, /):
    """The indices of elements that are not zero, one array per axis."""
    if x.ndim == 0:
        raise ValueError("nonzero: needs at least one axis")
    return torch.nonzero(x, as_tuple=True)


def where(condition, x1, x2, /):
    """Elements of `x1` where `condition` holds, of `x2` elsewhere."""
    scalars = [not isinstance(x, Tensor) for x in (x1, x2)]
    if all(scalars):
        return torch.where(condition, x1, x2)
    if any(scalars):
        dtype = result_type(x1, x2)
        x1, x2 = (
            x.to(dtype) if isinstance(x, Tensor) else torch.tensor(x, dtype=dtype, device=condition.device)
            for x in (x1, x2)
        )
    return torch.where(condition, *promote(x1, x2))


def _groups(x):
    """The flattened elements in order: their values, where they came from, and where each group begins."""
    flat = x.reshape(-1)
    if flat.dtype.is_complex:
        # Complex numbers have no order of their own; any order that brings equals together will do.
        order = torch.argsort(flat.imag, stable=True)
        order = order[torch.argsort(flat.real[order], stable=True)]
    else:
        order = torch.argsort(flat, stable=True)
    ranked = flat[order]
    first = torch.ones(ranked.shape, dtype=torch.bool, device=x.device)
    if ranked.numel() > 1:
        first[1:] = ranked[1:] != ranked[:-1]
    return ranked, order, first


def unique_all(x, /):
    """The distinct elements, where each first occurs, which one each element is, and how often they occur."""
    ranked, order, first = _groups(x)
    starts = torch.nonzero(first).reshape(-1)
    ends = torch.cat([starts[1:], torch.full((1,), ranked.numel(), dtype=starts.dtype, device=x.device)])
    counts = ends - starts if starts.numel() else starts
    inverse = torch.empty_like(order)
    inverse[order] = torch.cumsum(first.to(torch.int64), 0) - 1
    return UniqueAll(ranked[starts], order[starts], inverse.reshape(x.shape), counts)


def unique_counts(x, /):
    """The distinct elements and how often they occur."""
    y = unique_all(x)
    return UniqueCounts(y.values, y.counts)


def unique_inverse(x, /):
    """The distinct elements, and which of them each element is."""
    y = unique_all(x)
    return UniqueInverse(y.values, y.inverse_indices)


def unique_values(x, /):
    """The distinct elements."""
    ranked, _, first = _groups(x)
    return ranked[first]
