"""Products: matmul and its family as batched products, convolutions with the batch in their groups."""

from .. import _C
from .core import bound_rule

Tensor = _C.Tensor


def _times(x, factor):
    return x if isinstance(factor, (int, float)) and factor == 1 else x * factor


def matmul(frame, x, y):
    """The batch of ``x @ y``."""
    bx, by = frame.is_batched(x), frame.is_batched(y)
    v = x._batched_value if bx else x
    w = y._batched_value if by else y
    rx, ry, n = x.ndim, y.ndim, frame.size
    if rx == 0 or ry == 0:
        raise RuntimeError(f"both arguments to matmul need to be at least 1D, but they are {rx}D and {ry}D")
    if not by and (ry <= 2 or (rx >= ry and rx > 1)):
        # Rows of a larger matrix, or batch dimensions that line up from the right.
        return v @ w
    if not bx and rx <= 2 and ry == 1:
        return w @ (x.t() if rx == 2 else x)
    # Vectors become matrices, then ranks are made equal so that the batch is the first dimension of all.
    if rx == 1:
        v = v.unsqueeze(-2)
    if ry == 1:
        w = w.unsqueeze(-1)
    rank = max(rx, ry, 2)
    if bx:
        v = v.reshape((n,) + (1,) * (rank - max(rx, 2)) + tuple(v.shape)[1:])
    if by:
        w = w.reshape((n,) + (1,) * (rank - max(ry, 2)) + tuple(w.shape)[1:])
    out = v @ w
    if rx == 1:
        out = out.squeeze(-2)
    if ry == 1:
        out = out.squeeze(-1)
    return out


@bound_rule("matmul", "linalg.matmul")
def _matmul(frame, func, a):
    return frame.wrap(matmul(frame, *list(a.values())[:2]))


def _expect(name, t, rank):
    if t.ndim != rank:
        raise RuntimeError(f"{name}: expected a {rank}-D tensor, but got {t.ndim}-D (shape {list(t.shape)})")


def _product(name, ranks):
    def product(frame, func, a):
        for t, rank in zip(a.values(), ranks):
            _expect(name, t, rank)
        return frame.wrap(matmul(frame, *list(a.values())[:2]))

    return product


for _name, _ranks in {"mm": (2, 2), "bmm": (3, 3), "mv": (2, 1), "dot": (1, 1), "vdot": (1, 1)}.items():
    bound_rule(_name)(_product(_name, _ranks))


@bound_rule("vdot")
def _vdot(frame, func, a):
    x, y = list(a.values())[:2]
    return _C.dot(x.conj() if x.is_complex() else x, y)


@bound_rule("outer", "ger")
def _outer(frame, func, a):
    x, y = list(a.values())[:2]
    return x.unsqueeze(1) * y.unsqueeze(0)


def _sum_of(a, product):
    x, beta, alpha = a["input"], a.get("beta", 1), a.get("alpha", 1)
    product = _times(product, alpha)
    if isinstance(beta, (int, float)) and beta == 0:
        return product
    return _times(x, beta) + product


@bound_rule("addmm")
def _addmm(frame, func, a):
    return _sum_of(a, _C.mm(a["mat1"], a["mat2"]))


@bound_rule("addmv")
def _addmv(frame, func, a):
    return _sum_of(a, _C.mv(a["mat"], a["vec"]))


@bound_rule("addr")
def _addr(frame, func, a):
    return _sum_of(a, _C.outer(a["vec1"], a["vec2"]))


@bound_rule("baddbmm")
def _baddbmm(frame, func, a):
    return _sum_of(a, _C.bmm(a["batch1"], a["batch2"]))


@bound_rule("addbmm")
def _addbmm(frame, func, a):
    return _sum_of(a, _C.bmm(a["batch1"], a["batch2"]).sum(0))


@bound_rule("nn.linear")
def _linear(frame, func, a):
    x, w, b = a["input"], a["weight"], a.get("bias")
    if not frame.is_batched(w) and not frame.is_batched(b):
        return frame.wrap(func(x._batched_value, w, b))
    out = _C.matmul(x, w.t())
    return out if b is None else out + b


# ---- convolution ------------------------------------------------------------------------------------


def _fold_channels(t, n, dim):
    """(n, ..., C, ...) as (..., n * C, ...): the batch goes into dimension `dim` of the sample."""
    t = t.movedim(0, dim)
    return t.flatten(dim, dim + 1)


def _unfold_channels(t, n, dim):
    return t.unflatten(dim, (n, t.shape[dim] // n)).movedim(dim, 0)


def _convolution(dims, transposed):
    def conv(frame, func, a):
        x, w, b, n = a["input"], a["weight"], a.get("bias"), frame.size
        groups = a.get("groups", 1)
        kw = {k: v for k, v in a.items() if k not in ("input", "weight", "bias", "groups")}
        single = x.ndim == dims + 1
        if single and not frame.is_batched(w) and not frame.is_batched(b):
            return frame.wrap(func(x._batched_value, w, b, groups=groups, **kw))
        if single:
            # One image: a batch of one.
            x = x.unsqueeze(0)
        if n == 0:
            return NotImplemented
        if not frame.is_batched(w):
            if frame.is_batched(x):
                v = x._batched_value
                out = func(v.flatten(0, 1), w, None if frame.is_batched(b) else b, groups=groups, **kw)
                out = frame.wrap(out.unflatten(0, (n, v.shape[1])))
            else:
                out = func(x, w, None, groups=groups, **kw)
        else:
            v, many = w._batched_value, groups
            if frame.is_batched(x):
                y, many = _fold_channels(x._batched_value, n, 1), groups * n
            elif groups > 1:
                y, many = _fold_channels(frame.full(x), n, 1), groups * n
            else:
                y = x
            # Output channels of `conv` are the weight's dimension 0; of the transposed one, dimension 1.
            if transposed and many == groups:
                k = _fold_channels(v, n, 1)
            else:
                k = v.flatten(0, 1)
            out = frame.wrap(_unfold_channels(func(y, k, None, groups=many, **kw), n, 1))
        if b is not None and (frame.is_batched(w) or frame.is_batched(b)):
            out = out + b.reshape((-1,) + (1,) * dims)
        return out.squeeze(0) if single else out

    return conv


for _d in (1, 2, 3):
    bound_rule(f"conv{_d}d", f"nn.conv{_d}d")(_convolution(_d, False))
    bound_rule(f"conv_transpose{_d}d", f"nn.conv_transpose{_d}d")(_convolution(_d, True))


@bound_rule("nn.scaled_dot_product_attention")
def _attention(frame, func, a):
    q, k, v, mask = a["query"], a["key"], a["value"], a.get("attn_mask")
    rank = max(q.ndim, k.ndim, v.ndim)
    n = frame.size

    def lead(t):
        t2 = frame.full(t)
        return t2.reshape((n,) + (1,) * (rank - t.ndim) + tuple(t2.shape)[1:]) if t.ndim < rank else t2

    kw = {x: y for x, y in a.items() if x not in ("query", "key", "value", "attn_mask")}
    if mask is not None:
        m = frame.full(mask)
        kw["attn_mask"] = m.reshape((n,) + (1,) * (rank - mask.ndim) + tuple(m.shape)[1:])
    return frame.wrap(func(lead(q), lead(k), lead(v), **kw))
