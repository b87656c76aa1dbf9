"""Indexing, gathering and scattering."""

from .. import _C
from .along import shifted
from .core import BatchedTensor, _frame_of, bound_rule, highest, loop, unbatched_write

Tensor = _C.Tensor


def _is_index(k):
    return isinstance(k, Tensor) or (type(k) in (list, tuple) and not isinstance(k, slice))


def _expanded(x, key):
    """The key as a tuple without an ellipsis: one entry per dimension of ``x``, and None for new ones."""
    key = key if type(key) is tuple else (key,)
    used = sum(
        k.ndim if isinstance(k, Tensor) and k.dtype in (_C.bool, _C.uint8) else 1
        for k in key
        if k is not None and k is not Ellipsis and not isinstance(k, bool)
    )
    fill = [slice(None)] * max(x.ndim - used, 0)
    out, seen = [], False
    for k in key:
        if k is Ellipsis and not seen:
            out += fill
            seen = True
        else:
            out.append(k)
    return out if seen else out + fill


def _tensors(key):
    key = key if type(key) is tuple else (key,)
    return any(_is_index(k) for k in key)


def getitem(x, key):
    frame = _frame_of(highest((x, key)))
    items = key if type(key) is tuple else (key,)
    if any(isinstance(k, bool) for k in items):
        return loop(frame, Tensor.__getitem__, (x, key), {})
    if not any(frame.is_batched(k) for k in items) and not _tensors(key):
        if x.ndim == 0 and any(isinstance(k, int) for k in items):
            raise IndexError(
                "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert a "
                "0-dim tensor to a number"
            )
        return frame.wrap(x._batched_value[(slice(None), *items)])
    parts = [_C.tensor(k) if type(k) in (list, tuple) else k for k in _expanded(x, key)]
    if any(isinstance(k, Tensor) and k.ndim == 0 and k.dtype in (_C.bool, _C.uint8) for k in parts):
        return loop(frame, Tensor.__getitem__, (x, key), {})
    for k in parts:
        if frame.is_batched(k) and k.dtype in (_C.bool, _C.uint8):
            raise RuntimeError(
                "vmap: indexing with a mask that vmap maps over gives results whose shape depends on the data (a dynamic "
                "shape). Use torch.where instead."
            )
    # Numbers, slices and None first; what tensors index stays whole.
    basic = tuple(
        part
        for k in parts
        for part in (
            [slice(None)] * (k.ndim if k.dtype in (_C.bool, _C.uint8) else 1) if isinstance(k, Tensor) else [k]
        )
    )
    y = x[basic] if any(k != slice(None) if not isinstance(k, Tensor) else False for k in basic) else x
    places, at = [], 0
    for k in parts:
        if isinstance(k, Tensor):
            wide = k.nonzero(as_tuple=True) if k.dtype in (_C.bool, _C.uint8) else (k,)
            for one in wide:
                places.append((at, one))
                at += 1
        elif not isinstance(k, int):
            at += 1
    return _gathered(frame, y, places)


def _gathered(frame, y, places):
    """``y`` indexed by tensors at dimensions (``places``: pairs of dimension and index)."""
    dims = [d for d, _ in places]
    rank = max(k.ndim for _, k in places)
    n = frame.size

    def padded(k):
        if frame.is_batched(k):
            return k._batched_value.reshape((n,) + (1,) * (rank - k.ndim) + tuple(k.shape))
        return k

    indices = [padded(k) for _, k in places]
    adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
    whole = frame.is_batched(y)
    if whole:
        v = y._batched_value.movedim([d + 1 for d in dims], list(range(1, len(dims) + 1)))
        samples = _C.arange(n, device=y.device).reshape((n,) + (1,) * rank)
        out = v[(samples, *indices)]
    else:
        out = y.movedim(dims, list(range(len(dims))))[tuple(indices)]
    # The indexed dimensions come first; where they were neighbours they go back to their place.
    if adjacent and dims[0] > 0:
        out = out.movedim(list(range(1, rank + 1)), list(range(dims[0] + 1, dims[0] + 1 + rank)))
    return frame.wrap(out)


def setitem(x, key, value):
    frame = _frame_of(highest((x, key, value)))
    items = key if type(key) is tuple else (key,)
    if not frame.is_batched(x):
        raise unbatched_write("__setitem__")
    batched_key = any(frame.is_batched(k) for k in items)
    tricky = any(isinstance(k, bool) for k in items)
    if not batched_key and not tricky:
        indexed = [isinstance(k, Tensor) or type(k) in (list, tuple) for k in items]
        at = [i for i, t in enumerate(indexed) if t]
        gaps = bool(at) and at != list(range(at[0], at[-1] + 1))
        if not gaps:
            target = _face(x)[key]
            if frame.is_batched(value):
                v = value._batched_value
                if value.ndim > target.ndim:
                    extra = value.ndim - target.ndim
                    v = v.reshape((frame.size, *tuple(value.shape)[extra:]))
                elif value.ndim < target.ndim:
                    v = v.reshape((frame.size,) + (1,) * (target.ndim - value.ndim) + tuple(value.shape))
                value = v
            x._batched_value[(slice(None), *items)] = value
            return None
    for i in range(frame.size):
        pick = lambda t, i=i: t._batched_value.select(0, i) if frame.is_batched(t) else t  # noqa: E731
        row = x._batched_value.select(0, i)
        row[tuple(pick(k) for k in items)] = pick(value)
    return None


def _face(x):
    """Any tensor of the sample's shape, to see what an index selects."""
    return _C.empty((), dtype=x.dtype).expand(tuple(x.shape))


@bound_rule("index_select")
def _index_select(frame, func, a):
    x, dim, index = a["input"], a["dim"], a["index"]
    if x.ndim == 0:
        return NotImplemented
    if not frame.is_batched(index):
        return frame.wrap(x._batched_value.index_select(shifted(dim, x.ndim), index))
    d = shifted(dim, x.ndim) - 1
    return _gathered(frame, x, [(d, index.reshape(-1))])


def _scalarless(f):
    """0-d samples as samples of one element."""

    def on(frame, func, a):
        x = a["input"]
        if x.ndim == 0 or any(isinstance(v, Tensor) and v.ndim == 0 for k, v in a.items() if k in ("index", "indices")):
            return NotImplemented
        return f(frame, func, a)

    return on


@bound_rule("gather")
@_scalarless
def _gather(frame, func, a):
    x = a["input"]
    return frame.wrap(frame.full(x).gather(shifted(a["dim"], x.ndim), frame.full(a["index"])))


@bound_rule("take_along_dim")
@_scalarless
def _take_along_dim(frame, func, a):
    x, index, dim = a["input"], a["indices"], a.get("dim")
    if dim is None:
        return frame.wrap(frame.full(x).reshape(frame.size, -1).gather(1, frame.full(index).reshape(frame.size, -1)))
    return frame.wrap(_C.take_along_dim(frame.full(x), frame.full(index), shifted(dim, x.ndim)))


@bound_rule("scatter", "scatter_add", "scatter_reduce")
@_scalarless
def _scatter(frame, func, a):
    x = a["input"]
    k = dict(a)
    for name in ("index", "src"):
        if isinstance(k.get(name), Tensor):
            k[name] = frame.full(k[name])
    if frame.is_batched(k.get("value")):
        return NotImplemented
    k["dim"] = shifted(a["dim"], x.ndim)
    del k["input"]
    return frame.wrap(func(frame.full(x), **k))


@bound_rule("index_add", "index_copy", "index_fill", "index_reduce")
@_scalarless
def _index_into(frame, func, a):
    x = a["input"]
    if frame.is_batched(a["index"]) or frame.is_batched(a.get("value")):
        return NotImplemented
    k = {n: v for n, v in a.items() if n != "input"}
    if isinstance(k.get("source"), Tensor):
        if k["source"].ndim != x.ndim:
            return NotImplemented
        k["source"] = frame.full(k["source"])
    k["dim"] = shifted(a["dim"], x.ndim)
    return frame.wrap(func(frame.full(x), **k))


@bound_rule("take")
def _take(frame, func, a):
    x, index = a["input"], a["index"]
    flat = x.reshape(-1)
    if not frame.is_batched(index):
        return frame.wrap(flat._batched_value[:, index])
    return _gathered(frame, flat, [(0, index)])


@bound_rule("nn.embedding")
def _embedding(frame, func, a):
    x, w = a["input"], a["weight"]
    kw = {k: v for k, v in a.items() if k not in ("input", "weight")}
    if not frame.is_batched(w):
        return frame.wrap(func(x._batched_value, w, **kw))
    pad = kw.get("padding_idx", -1)
    if kw.get("scale_grad_by_freq") or (pad is not None and pad >= 0):
        return NotImplemented
    return _gathered(frame, w, [(0, x)])


@bound_rule("one_hot", "nn.one_hot")
def _one_hot(frame, func, a):
    if a.get("num_classes", -1) < 0:
        raise RuntimeError(
            "vmap: It looks like you're attempting to use one_hot without num_classes: the number depends on the values of a "
            "tensor that vmap maps over. Please pass num_classes."
        )
    return frame.wrap(func(a[next(iter(a))]._batched_value, a["num_classes"]))


__all__ = ["BatchedTensor", "getitem", "setitem"]
