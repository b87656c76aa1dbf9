"""Operations along dimensions: reductions, scans, sorting, softmax. A sample's dimension d is dimension d + 1 of the
batch; a 0-d sample is treated as one of a single element."""

from .. import _C
from .core import REGISTRY, bound_rule, key_of, rule

Tensor = _C.Tensor


def shifted(dim, rank):
    """A dimension of the sample as one of the batch."""
    rank = max(rank, 1)
    if not -rank <= dim < rank:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {dim})")
    return dim % rank + 1


def many(dims):
    return (dims,) if isinstance(dims, int) else tuple(dims)


def _default(func, name):
    return REGISTRY[key_of(func)][1].default(name)


def first_name(a):
    return next(iter(a))


def _others_batched(frame, a, but):
    return any(frame.is_batched(v) for k, v in a.items() if k != but)


def rest(a, *names):
    return {k: v for k, v in a.items() if k not in names}


def squeezed(out):
    """Takes the dimension of a 0-d sample away again."""
    if isinstance(out, Tensor):
        return out.squeeze(1)
    return type(out)(*map(squeezed, out)) if hasattr(out, "_fields") else type(out)(map(squeezed, out))


@bound_rule(
    "sum", "nansum", "mean", "nanmean", "amax", "amin", "any", "all", "count_nonzero", "var", "std", "var_mean",
    "std_mean", "logsumexp", "norm", "linalg.vector_norm", "special.logsumexp",
)  # fmt: skip
def _reduce(frame, func, a):
    """Reductions over any set of dimensions."""
    head = first_name(a)
    if _others_batched(frame, a, head):
        return NotImplemented
    x = a[head]
    v, rank = x._batched_value, x.ndim
    dim = a.get("dim", _default(func, "dim"))
    kw = rest(a, head, "dim")
    if kw.get("p") in ("fro", "nuc"):
        if kw["p"] == "nuc" or (dim is not None and len(many(dim)) > 1):
            return NotImplemented
        kw["p"] = 2.0
    scalar = rank == 0
    if scalar:
        v, rank = v.unsqueeze(1), 1
    dims = range(rank) if dim is None or dim == () or dim == [] else many(dim)
    dims = tuple(shifted(d, rank) for d in dims)
    if len(set(dims)) != len(dims):
        raise RuntimeError(f"dim {dims[0] - 1} appears multiple times in the list of dims")
    out = func(v, dim=dims, **kw)
    if scalar and kw.get("keepdim"):
        out = squeezed(out)
    return frame.wrap(out)


def _one(frame, func, a, pair):
    """Reductions along one dimension, or over all elements as one."""
    head = first_name(a)
    if _others_batched(frame, a, head):
        return NotImplemented
    x = a[head]
    v, rank = x._batched_value, x.ndim
    dim = a.get("dim", _default(func, "dim"))
    kw = rest(a, head, "dim")
    if dim is None:
        keep = kw.pop("keepdim", False)
        out = func(v.reshape(frame.size, -1), dim=1, **kw)
        if pair:
            out = out[0]
        return frame.wrap(out.reshape((frame.size,) + (1,) * rank) if keep else out)
    scalar = rank == 0
    if scalar:
        v = v.unsqueeze(1)
    out = func(v, dim=shifted(dim, rank), **kw)
    if scalar and kw.get("keepdim"):
        out = squeezed(out)
    return frame.wrap(out)


@bound_rule("prod", "argmax", "argmin", "kthvalue", "mode")
def _reduce_one(frame, func, a):
    return _one(frame, func, a, False)


@bound_rule("max", "min", "median", "nanmedian")
def _reduce_pair(frame, func, a):
    if "other" in a:
        return _C.maximum(a["input"], a["other"]) if func.__name__ == "max" else _C.minimum(a["input"], a["other"])
    return _one(frame, func, a, True)


@bound_rule("aminmax")
def _aminmax(frame, func, a):
    x, dim, keep = a["input"], a.get("dim"), a.get("keepdim", False)
    if dim is None and keep:
        return NotImplemented
    v = x._batched_value if x.ndim else x._batched_value.unsqueeze(1)
    if dim is None:
        return frame.wrap(func(v.reshape(frame.size, -1), dim=1))
    out = func(v, dim=shifted(dim, x.ndim), keepdim=keep)
    return frame.wrap(squeezed(out) if x.ndim == 0 and keep else out)


@bound_rule("quantile", "nanquantile")
def _quantile(frame, func, a):
    q = a["q"]
    if isinstance(q, Tensor) and (q.ndim or frame.is_batched(q)):
        return NotImplemented
    return _one(frame, func, a, False)


# Operations that keep the dimension (or change its size), by the name of the argument.
_KEEPING = {
    "dim": (
        "softmax", "log_softmax", "nn.softmax", "nn.log_softmax", "nn.softmin", "special.softmax",
        "special.log_softmax", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "argsort", "topk",
        "nn.glu", "glu", "diff", "renorm", "gradient", "cumulative_trapezoid", "trapezoid", "trapz",
        "nn.normalize",
    ),
    "dims": ("flip",),
}  # fmt: skip


def _along(name):
    def along(frame, func, a):
        head = first_name(a)
        if _others_batched(frame, a, head):
            return NotImplemented
        x = a[head]
        v, rank = x._batched_value, x.ndim
        dim = a.get(name, _default(func, name))
        if dim is None:
            return NotImplemented
        if rank == 0:
            v = v.unsqueeze(1)
        dims = tuple(shifted(d, rank) for d in dim) if isinstance(dim, (list, tuple)) else shifted(dim, rank)
        out = func(v, **{name: dims}, **rest(a, head, name))
        return frame.wrap(squeezed(out) if rank == 0 else out)

    return along


for _name, _keys in _KEEPING.items():
    bound_rule(*_keys)(_along(_name))


@bound_rule("msort")
def _msort(frame, func, a):
    return frame.wrap(_C.sort(a["input"]._batched_value, dim=1)[0])


@bound_rule("roll")
def _roll(frame, func, a):
    x = a["input"]
    v, dims = x._batched_value, a.get("dims", ())
    if isinstance(dims, (list, tuple)) and not dims:
        return frame.wrap(v.reshape(frame.size, -1).roll(a["shifts"], 1).reshape(v.shape))
    return frame.wrap(v.roll(a["shifts"], tuple(shifted(d, x.ndim) for d in many(dims))))


@bound_rule("fliplr")
def _fliplr(frame, func, a):
    if a["input"].ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return frame.wrap(a["input"]._batched_value.flip(2))


@bound_rule("flipud")
def _flipud(frame, func, a):
    if a["input"].ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return frame.wrap(a["input"]._batched_value.flip(1))


@rule("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount")
def _data_dependent(frame, func, args, kwargs):
    raise RuntimeError(
        f"vmap: It looks like you're calling {func.__name__}, whose result's shape depends on the values of a tensor that "
        "vmap maps over (a dynamic shape). Samples of different shapes can't be put into one tensor: use a mask and "
        "torch.where instead."
    )
