"""Cutting samples into parts and putting them together, and statistics of their rows."""

import itertools

from .. import _C
from .along import many, shifted
from .core import bound_rule
from .shape import _at_least, view_rule

Tensor = _C.Tensor


@view_rule("tensor_split")
def _tensor_split(v, rank, a, n):
    cuts = next(x for k, x in a.items() if k not in ("input", "dim"))
    return v.tensor_split(cuts, shifted(a.get("dim", 0), rank))


def _split_along(name, least, dim):
    def on(frame, func, a):
        x = a["input"]
        if x.ndim < least:
            return NotImplemented
        cuts = next(v for k, v in a.items() if k != "input")
        d = dim if x.ndim > 1 else 0
        if isinstance(cuts, int) and (cuts <= 0 or x.shape[d] % cuts):
            return NotImplemented
        return frame.wrap(x._batched_value.tensor_split(cuts, d + 1))

    bound_rule(name)(on)


_split_along("hsplit", 1, 1)
_split_along("vsplit", 2, 0)
_split_along("dsplit", 3, 2)


@bound_rule("narrow_copy")
def _narrow_copy(frame, func, a):
    return a["input"].narrow(a["dim"], a["start"], a["length"]).clone()


@bound_rule("column_stack")
def _column_stack(frame, func, a):
    return _C.cat([t if t.ndim > 1 else t.reshape(-1, 1) for t in a["tensors"]], 1)


@bound_rule("block_diag")
def _block_diag(frame, func, a):
    tensors = [_at_least(t, 2) for t in a["tensors"]]
    if any(t.ndim > 2 for t in tensors):
        return NotImplemented
    total, left, rows = sum(t.shape[1] for t in tensors), 0, []
    for t in tensors:
        rows.append(_C.constant_pad_nd(t, (left, total - left - t.shape[1])))
        left += t.shape[1]
    return _C.cat(rows, 0)


@bound_rule("diagflat")
def _diagflat(frame, func, a):
    return a["input"].reshape(-1).diag(a.get("offset", 0))


@bound_rule("combinations")
def _combinations(frame, func, a):
    x, r = a["input"], a.get("r", 2)
    if x.ndim != 1 or r < 1:
        return NotImplemented
    pick = itertools.combinations_with_replacement if a.get("with_replacement") else itertools.combinations
    places = list(pick(range(x.shape[0]), r))
    if not places:
        return NotImplemented
    return x[_C.tensor(places, device=x.device)]


@bound_rule("gradient")
def _gradient(frame, func, a):
    x, k = a["input"], dict(a)
    if not frame.is_batched(x) or any(not isinstance(v, (int, float)) for v in many_or(a.get("spacing"))):
        return NotImplemented
    dim = a.get("dim")
    k["dim"] = tuple(shifted(d, x.ndim) for d in (range(x.ndim) if dim is None else many(dim)))
    del k["input"]
    return frame.wrap(func(x._batched_value, **{n: v for n, v in k.items() if v is not None}))


def many_or(spacing):
    if spacing is None:
        return ()
    return tuple(spacing) if isinstance(spacing, (tuple, list)) else (spacing,)


@bound_rule("logit")
def _logit(frame, func, a):
    return frame.wrap(func(a["input"]._batched_value, a.get("eps")))


def _centred(x):
    """Rows with their mean taken away; None where the function itself has to look closer."""
    if x.ndim not in (1, 2) or x.shape[-1] == 0:
        return None
    if not x.is_floating_point() and not x.is_complex():
        x = x.to(_C.get_default_dtype())
    x = x if x.ndim == 2 else x.unsqueeze(0)
    return x - x.mean(1, keepdim=True)


@bound_rule("cov")
def _cov(frame, func, a):
    x, correction = a["input"], a.get("correction", 1)
    c = _centred(x)
    if c is None or any(a.get(k) is not None for k in ("fweights", "aweights")) or x.shape[-1] <= correction:
        return NotImplemented
    out = c @ (c.mT.conj() if c.is_complex() else c.mT) / (x.shape[-1] - correction)
    return out if x.ndim == 2 else out.reshape(())


@bound_rule("corrcoef")
def _corrcoef(frame, func, a):
    x = a["input"]
    c = _centred(x)
    if c is None or c.is_complex() or x.shape[-1] < 2:
        return NotImplemented
    out = c @ c.mT
    size = out.diagonal().sqrt()
    out = (out / size.unsqueeze(1) / size.unsqueeze(0)).clamp(-1, 1)
    return out if x.ndim == 2 else out.reshape(())
