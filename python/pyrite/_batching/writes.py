"""Writing at positions into a copy, and looking positions up."""

from .. import _C
from .core import bound_rule

Tensor = _C.Tensor
_MASKS = (_C.bool, _C.uint8)


@bound_rule("index_put")
def _index_put(frame, func, a):
    x, values, n = a["input"], a["values"], frame.size
    indices = []
    for k in a["indices"]:
        if k is None or (k.dtype in _MASKS and (frame.is_batched(k) or k.ndim == 0)):
            return NotImplemented
        indices += k.nonzero(as_tuple=True) if k.dtype in _MASKS else [k]
    if not indices or len(indices) > x.ndim:
        return NotImplemented
    rank = max(k.ndim for k in indices)

    def padded(t, rank):
        """The batch of `t` with dimensions of size 1 in front of each sample."""
        if not frame.is_batched(t):
            return t
        return t._batched_value.reshape((n,) + (1,) * (rank - t.ndim) + tuple(t.shape))

    samples = _C.arange(n, device=x.device).reshape((n,) + (1,) * rank)
    inner = rank + x.ndim - len(indices)
    if values.ndim > inner:
        return NotImplemented
    where = (samples, *(padded(k, rank) for k in indices))
    return frame.wrap(frame.full(x).index_put(where, padded(values, inner), a.get("accumulate", False)))


@bound_rule("put")
def _put(frame, func, a):
    x = a["input"]
    flat = x.reshape(-1)
    where = (a["index"].reshape(-1),)
    return _C.index_put(flat, where, a["source"].reshape(-1), a.get("accumulate", False)).reshape(tuple(x.shape))


@bound_rule("masked_scatter")
def _masked_scatter(frame, func, a):
    x, mask, source = a["input"], a["mask"], a["source"].reshape(-1)
    if x.dtype != source.dtype or source.shape[0] == 0 or x.numel() == 0:
        return NotImplemented
    mask = mask.expand(tuple(x.shape))
    # Which element of the source comes to each place; gather refuses where there are too few.
    place = (mask.reshape(-1).cumsum(0) - 1).clamp(min=0)
    return _C.where(mask, source.gather(0, place).reshape(tuple(x.shape)), x)


def _part(view):
    """A copy of the input with a view of it overwritten."""

    def on(frame, func, a):
        if not frame.is_batched(a["input"]) and not frame.is_batched(a["src"]):
            return NotImplemented
        out = frame.wrap(frame.full(a["input"]).clone())
        part = view(out, a)
        if tuple(part.shape) != tuple(a["src"].shape):
            return NotImplemented  # the function itself says so
        part.copy_(a["src"])
        return out

    return on


@_part
def _select(x, a):
    return x.select(a["dim"], a["index"])


@_part
def _slice(x, a):
    cut = slice(a.get("start"), a.get("end"), a.get("step", 1))
    return x[(slice(None),) * (a.get("dim", 0) % x.ndim) + (cut,)]


@_part
def _diagonal(x, a):
    return x.diagonal(a.get("offset", 0), a.get("dim1", 0), a.get("dim2", 1))


bound_rule("select_scatter")(_select)
bound_rule("slice_scatter")(_slice)
bound_rule("diagonal_scatter")(_diagonal)


@bound_rule("searchsorted")
def _searchsorted(frame, func, a):
    line, x = a["sorted_sequence"], a["input"]
    if not isinstance(x, Tensor) or line.ndim == 0 or (line.ndim > 1 and line.ndim != x.ndim):
        return NotImplemented
    k = {n: v for n, v in a.items() if n not in ("sorted_sequence", "input")}
    if isinstance(k.get("sorter"), Tensor):
        k["sorter"] = frame.full(k["sorter"])
    if line.ndim > 1:
        return frame.wrap(func(frame.full(line).contiguous(), frame.full(x).contiguous(), **k))
    flat = frame.full(x).reshape(frame.size, -1)
    return frame.wrap(func(frame.full(line).contiguous(), flat, **k).reshape((frame.size, *x.shape)))


@bound_rule("bucketize")
def _bucketize(frame, func, a):
    if not isinstance(a["input"], Tensor):
        return NotImplemented
    k = {n: v for n, v in a.items() if n in ("out_int32", "right")}
    return _C.searchsorted(a["boundaries"], a["input"], **k)
