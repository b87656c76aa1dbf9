"""Views and rearrangements: what changes a sample's shape leaves the batch dimension in front."""

from .. import _C
from .along import many, shifted
from .core import bound_rule

Tensor = _C.Tensor


def _padded(x, n, rank):
    """The batch with dimensions of size 1 in front of each sample, up to `rank`."""
    v = x._batched_value
    return v.reshape((n,) + (1,) * (rank - x.ndim) + tuple(v.shape)[1:]) if rank > x.ndim else v


def view_rule(*keys):
    """The rule as a function of (batch, sample rank, arguments, batch size) that returns the batch of results."""

    def add(f):
        def on(frame, func, a):
            x = a.get("input")
            if not frame.is_batched(x) or any(frame.is_batched(v) for k, v in a.items() if k not in ("input", "other")):
                return NotImplemented
            return frame.wrap(f(x._batched_value, x.ndim, a, frame.size))

        bound_rule(*keys)(on)
        return f

    return add


@view_rule("permute")
def _permute(v, rank, a, n):
    dims = a["dims"]
    if len(dims) != rank:
        raise RuntimeError(
            f"permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired "
            f"ordering of dimensions i.e. input.dim() = {rank} is not equal to len(dims) = {len(dims)}"
        )
    return v.permute(0, *(shifted(d, rank) for d in dims))


@view_rule("transpose", "swapaxes", "swapdims")
def _transpose(v, rank, a, n):
    first, second = [a[k] for k in a if k != "input"]
    first, second = shifted(first, rank), shifted(second, rank)
    return v.transpose(first, second) if rank else v.view(v.shape)


@view_rule("t", "T", "mT", "H", "mH", "adjoint", "matrix_H")
def _t(v, rank, a, n):
    return v.permute(0, *range(rank, 0, -1))


def _matrix(f):
    def on(frame, func, a):
        x = a["input"]
        if x.ndim < 2:
            raise RuntimeError(
                f"tensor.{func.__name__} is only supported on matrices or batches of matrices. Got {x.ndim}-D tensor."
            )
        return frame.wrap(f(x._batched_value.transpose(-2, -1)))

    return on


bound_rule("mT")(_matrix(lambda v: v))
bound_rule("mH", "adjoint")(_matrix(lambda v: v.conj() if v.is_complex() else v))


@bound_rule("H")
def _hermitian(frame, func, a):
    v = a["input"].t()
    return v.conj() if v.is_complex() else v


@bound_rule("expand", "broadcast_to")
def _expand(frame, func, a):
    size = tuple(a["size"])
    v = _padded(a["input"], frame.size, len(size))
    return frame.wrap(v.expand((frame.size, *size)))


@bound_rule("expand_as")
def _expand_as(frame, func, a):
    return a["input"].expand(tuple(a["other"].shape))


@bound_rule("view_as", "reshape_as")
def _view_as(frame, func, a):
    return getattr(a["input"], func.__name__[:-3])(tuple(a["other"].shape))


@view_rule("view")
def _view(v, rank, a, n):
    return v.view((n, *a["size"])) if "size" in a else v.view(a["dtype"])


@view_rule("reshape")
def _reshape(v, rank, a, n):
    shape = tuple(a["shape"])
    if -1 in shape and 0 in v.shape[:1]:
        return v.reshape((n, *[1 if s == -1 else s for s in shape]))
    return v.reshape((n, *shape))


@view_rule("flatten")
def _flatten(v, rank, a, n):
    if rank == 0:
        return v.reshape(n, 1)
    return v.flatten(shifted(a.get("start_dim", 0), rank), shifted(a.get("end_dim", -1), rank))


@view_rule("unflatten")
def _unflatten(v, rank, a, n):
    return v.unflatten(shifted(a["dim"], rank), a["sizes"])


@view_rule("view_as_real")
def _view_as_real(v, rank, a, n):
    return _C.view_as_real(v)


@view_rule("view_as_complex")
def _view_as_complex(v, rank, a, n):
    return _C.view_as_complex(v)


@view_rule("ravel")
def _ravel(v, rank, a, n):
    return v.reshape(n, -1) if v.numel() else v.reshape(n, 0)


@view_rule("diag_embed")
def _diag_embed(v, rank, a, n):
    first, second = shifted(a.get("dim1", -2), rank + 1), shifted(a.get("dim2", -1), rank + 1)
    return _C.diag_embed(v, a.get("offset", 0), first, second)


@view_rule("rot90")
def _rot90(v, rank, a, n):
    return _C.rot90(v, a.get("k", 1), tuple(shifted(d, rank) for d in a.get("dims", (0, 1))))


@view_rule("narrow")
def _narrow(v, rank, a, n):
    return v.narrow(shifted(a["dim"], rank), a["start"], a["length"])


@view_rule("select")
def _select(v, rank, a, n):
    if rank == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    return v.select(shifted(a["dim"], rank), a["index"])


@view_rule("unsqueeze")
def _unsqueeze(v, rank, a, n):
    return v.unsqueeze(shifted(a["dim"], rank + 1))


@view_rule("squeeze")
def _squeeze(v, rank, a, n):
    dim = a.get("dim")
    if rank == 0:
        return v.view(v.shape)
    if dim is None:
        return v.squeeze(tuple(range(1, rank + 1)))
    return v.squeeze(tuple(shifted(d, rank) for d in many(dim)))


@view_rule("diagonal")
def _diagonal(v, rank, a, n):
    return v.diagonal(a.get("offset", 0), shifted(a.get("dim1", 0), rank), shifted(a.get("dim2", 1), rank))


@view_rule("unfold")
def _unfold(v, rank, a, n):
    if rank == 0:
        return v.unsqueeze(1).unfold(1, a["size"], a["step"]).squeeze(1)
    return v.unfold(shifted(a["dimension"], rank), a["size"], a["step"])


@view_rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def _split(v, rank, a, n):
    sizes = next(a[k] for k in ("split_size_or_sections", "split_size", "split_sizes") if k in a)
    return v.split(sizes, shifted(a.get("dim", 0), rank))


@view_rule("chunk", "unsafe_chunk")
def _chunk(v, rank, a, n):
    return v.chunk(a["chunks"], shifted(a.get("dim", 0), rank))


@view_rule("unbind")
def _unbind(v, rank, a, n):
    if rank == 0:
        raise RuntimeError("Dimension specified as 0 but tensor has no dimensions")
    return v.unbind(shifted(a.get("dim", 0), rank))


@view_rule("movedim", "moveaxis")
def _movedim(v, rank, a, n):
    source, target = many(a["source"]), many(a["destination"])
    return v.movedim(tuple(shifted(d, rank) for d in source), tuple(shifted(d, rank) for d in target))


def _triangle(name):
    def tri(frame, func, a):
        x = a["input"]
        if x.ndim < 2:
            raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions")
        return frame.wrap(getattr(x._batched_value, name)(a.get("diagonal", 0)))

    return tri


bound_rule("tril")(_triangle("tril"))
bound_rule("triu")(_triangle("triu"))


@bound_rule("diag")
def _diag(frame, func, a):
    x, offset = a["input"], a.get("diagonal", 0)
    if x.ndim == 2:
        return x.diagonal(offset).clone()
    if x.ndim != 1:
        raise RuntimeError("diag(): Supports 1D or 2D tensors. Got " + f"{x.ndim}D")
    size = x.shape[0] + abs(offset)
    v = _C.zeros((frame.size, size, size), dtype=x.dtype, device=x.device)
    if x.shape[0]:
        out = frame.wrap(v)
        out.diagonal(offset).copy_(x)
        return out
    return frame.wrap(v)


@bound_rule("repeat")
def _repeat(frame, func, a):
    sizes = tuple(a["repeats"])
    if len(sizes) < a["input"].ndim:
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    return frame.wrap(_padded(a["input"], frame.size, len(sizes)).repeat(1, *sizes))


@bound_rule("tile")
def _tile(frame, func, a):
    sizes = tuple(a["dims"])
    sizes = (1,) * (a["input"].ndim - len(sizes)) + sizes
    return a["input"].repeat(sizes)


@bound_rule("repeat_interleave")
def _repeat_interleave(frame, func, a):
    x, times, dim = a["input"], a["repeats"], a.get("dim")
    if not frame.is_batched(x) or frame.is_batched(times):
        return NotImplemented
    v = x._batched_value
    if dim is None:
        return frame.wrap(v.reshape(frame.size, -1).repeat_interleave(times, 1))
    return frame.wrap(v.repeat_interleave(times, shifted(dim, x.ndim)))


def _joined(frame, tensors):
    return [frame.full(t) for t in tensors]


@bound_rule("cat", "concat", "concatenate")
def _cat(frame, func, a):
    tensors, dim = list(a["tensors"]), a.get("dim", 0)
    rank = max(t.ndim for t in tensors)
    # PyTorch lets empty 1-d tensors join anything.
    tensors = [t for t in tensors if not (t.ndim == 1 and t.shape[0] == 0 and rank > 1)]
    if any(t.ndim == 0 for t in tensors):
        raise RuntimeError("zero-dimensional tensor (at position 0) cannot be concatenated")
    return frame.wrap(_C.cat(_joined(frame, tensors), shifted(dim, rank)))


@bound_rule("stack")
def _stack(frame, func, a):
    tensors = list(a["tensors"])
    return frame.wrap(_C.stack(_joined(frame, tensors), shifted(a.get("dim", 0), tensors[0].ndim + 1)))


def _at_least(t, rank):
    if rank == 1 or t.ndim >= rank:
        return t.reshape(1) if t.ndim == 0 else t
    if t.ndim == 0:
        t = t.reshape(1)
    if t.ndim == 1:
        t = t.unsqueeze(0)
    return t if rank == 2 else t.unsqueeze(-1) if t.ndim == 2 else t


@bound_rule("hstack")
def _hstack(frame, func, a):
    tensors = [_at_least(t, 1) for t in a["tensors"]]
    return _C.cat(tensors, 0 if tensors[0].ndim == 1 else 1)


@bound_rule("vstack", "row_stack")
def _vstack(frame, func, a):
    return _C.cat([_at_least(t, 2) for t in a["tensors"]], 0)


@bound_rule("dstack")
def _dstack(frame, func, a):
    return _C.cat([_at_least(t, 3) for t in a["tensors"]], 2)


@bound_rule("broadcast_tensors")
def _broadcast(frame, func, a):
    tensors = a["tensors"]
    rank = max(t.ndim for t in tensors)
    sizes = [1] * rank
    for t in tensors:
        for i, s in enumerate(t.shape):
            j = rank - t.ndim + i
            sizes[j] = s if sizes[j] == 1 else sizes[j]
    return tuple(t.expand(sizes) for t in tensors)


@bound_rule("sum_to_size")
def _sum_to_size(frame, func, a):
    size = tuple(a["size"])
    v = _padded(a["input"], frame.size, len(size))
    extra = a["input"].ndim - len(size)
    return frame.wrap(v.sum_to_size((frame.size,) + (1,) * extra + size).reshape((frame.size, *size)))
