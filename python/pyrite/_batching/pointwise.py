"""Elementwise operations: batches broadcast against each other once their samples have the same rank."""

from .. import _C
from .core import BatchedTensor, bound_rule, rule, unbatched_write

Tensor = _C.Tensor


def _category(dtype):
    if dtype == _C.bool:
        return 0
    return 3 if dtype.is_complex else 2 if dtype.is_floating_point else 1


def _scalar_casts(tensors):
    """The dtype a sample's 0-d operands must take so that promotion is that of one sample, or None.

    In one sample a 0-d tensor promotes weakly; as a batch it would count in full.
    """
    first = tensors[0].dtype
    if all(t.dtype == first for t in tensors):
        return None
    dims = [t.dtype for t in tensors if t.ndim > 0]
    if not dims or len(dims) == len(tensors):
        return None
    want = dims[0]
    for d in dims[1:]:
        want = _C.promote_types(want, d)
    for t in tensors:
        if t.ndim == 0 and _category(t.dtype) > _category(want):
            want = _C.promote_types(want, t.dtype)
    return want


def aligned(frame, tensors, rank=None):
    """What to compute with: batches padded with dimensions of size 1 to the largest sample rank."""
    level, n = frame.level, frame.size
    if rank is None:
        rank = max(t.ndim for t in tensors)
    want = _scalar_casts(tensors) if rank and len(tensors) > 1 else None
    out = []
    for t in tensors:
        if isinstance(t, BatchedTensor) and t._level == level:
            v, k = t._batched_value, t.ndim
            if k < rank:
                v = v.reshape((n,) + (1,) * (rank - k) + tuple(v.shape)[1:])
                if want is not None and k == 0 and t.dtype not in (want, _C.bool):
                    v = v.to(want)
            out.append(v)
        else:
            out.append(t)
    return out


def elementwise(frame, func, args, kwargs):
    """Any elementwise operation, in place too."""
    tensors = [a for a in args if isinstance(a, Tensor)]
    named = [k for k, v in kwargs.items() if isinstance(v, Tensor)]
    tensors += [kwargs[k] for k in named]
    in_place = func.__name__.endswith("_")
    if in_place:
        target = args[0] if args else kwargs["input"]
        if not frame.is_batched(target):
            raise unbatched_write(func.__name__)
        if any(t.ndim > target.ndim for t in tensors):
            raise RuntimeError(
                f"{func.__name__}: output with shape {list(target.shape)} doesn't match the broadcast shape of its arguments"
            )
    values = iter(aligned(frame, tensors))
    a = [next(values) if isinstance(x, Tensor) else x for x in args]
    k = dict(kwargs)
    for name in named:
        k[name] = next(values)
    result = func(*a, **k)
    return target if in_place else frame.wrap(result)


rule(
    "div", "div_", "true_divide", "divide", "rsub", "positive", "round", "round_", "clamp", "clamp_", "clip", "clip_",
    "where", "nan_to_num", "nan_to_num_", "polygamma", "nn.gelu", "nn.relu", "fill",
    "isclose", "float_power", "float_power_", "angle", "real", "imag", "conj", "conj_physical", "resolve_conj",
    "resolve_neg", "isreal", "polar", "complex", "ldexp", "mvlgamma", "arctan2", "isin", "lcm", "special.polygamma",
    "special.multigammaln", "frexp", "is_nonzero", "sgn", "absolute", "fix", "xlogy", "special.xlogy", "special.zeta",
    "special.round", "special.xlog1py", "floor_divide",
)(elementwise)  # fmt: skip


@bound_rule("clone", "contiguous")
def _clone(frame, func, a):
    fmt = a.get("memory_format")
    v = a["input"]._batched_value
    keep = fmt in (None, _C.preserve_format, _C.contiguous_format)
    return frame.wrap(func(v) if fmt is None or not keep else func(v, memory_format=fmt))


@rule("copy_")
def _copy(frame, func, args, kwargs):
    target = args[0]
    if not frame.is_batched(target):
        raise unbatched_write("copy_")
    src = args[1] if len(args) > 1 else kwargs["src"]
    if frame.is_batched(src):
        v = src._batched_value
        if src.ndim < target.ndim:
            v = v.reshape((frame.size,) + (1,) * (target.ndim - src.ndim) + tuple(v.shape)[1:])
        src = v
    target._batched_value.copy_(src)
    return target


@rule("fill_")
def _fill(frame, func, args, kwargs):
    target = args[0]
    value = args[1] if len(args) > 1 else kwargs["value"]
    if not frame.is_batched(target):
        raise unbatched_write("fill_")
    if frame.is_batched(value):
        target.copy_(value)
    else:
        target._batched_value.fill_(value)
    return target


@rule("zero_")
def _zero(frame, func, args, kwargs):
    args[0]._batched_value.zero_()
    return args[0]


@bound_rule("masked_fill")
def _masked_fill(frame, func, a):
    x, mask, value = a["input"], a["mask"], a["value"]
    if not isinstance(value, Tensor):
        return elementwise(frame, func, (x, mask, value), {})
    if value.ndim:
        raise RuntimeError(
            f"masked_fill only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s)."
        )
    return _C.where(mask, value.to(x.dtype), x)


@bound_rule("zeros_like", "ones_like", "empty_like", "full_like")
def _likes(frame, func, a):
    value = a.get("fill_value")
    if isinstance(value, Tensor):
        return NotImplemented
    return frame.wrap(func(a["input"]._batched_value, **{k: v for k, v in a.items() if k != "input"}))


@bound_rule("prelu", "nn.prelu")
def _prelu(frame, func, a):
    x, w = a["input"], a["weight"]
    if w.numel() > 1 and x.ndim > 1:
        w = w.reshape((-1,) + (1,) * (x.ndim - 2))
    elif w.numel() == 1:
        w = w.reshape(())
    return _C.where(x > 0, x, x * w)
