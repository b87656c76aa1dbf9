"""Matrix functions, transforms and contractions: the batch is one more leading dimension of what they already take."""

import functools
import string

from .. import _C
from .along import many, shifted
from .core import bound_rule

Tensor = _C.Tensor


def _call(func, a):
    """The function of arguments by name: the first by position, so that methods take it too."""
    (_, first), *rest = a.items()
    return func(first, **dict(rest))


def leading(frame, func, a, ranks):
    """Every tensor with the batch in front of its own leading dimensions; `ranks` says how many dimensions are its own
    (2 where nothing is said)."""
    own = {k: v.ndim - ranks.get(k, 2) for k, v in a.items() if isinstance(v, Tensor)}
    if any(n < 0 for n in own.values()):
        return NotImplemented  # the function itself says what is wrong
    most = max(own.values())
    k = dict(a)
    for name, n in own.items():
        v = frame.full(a[name])
        k[name] = v.reshape((frame.size,) + (1,) * (most - n) + tuple(a[name].shape)) if n < most else v
    return frame.wrap(_call(func, k))


def _matrices(*keys, **ranks):
    def on(frame, func, a):
        if any(isinstance(a.get(k), Tensor) for k in ("atol", "rtol")):
            return NotImplemented
        return leading(frame, func, a, ranks)

    bound_rule(*keys)(on)


_matrices(
    *"""linalg.cholesky linalg.cholesky_ex linalg.cond linalg.det linalg.eig linalg.eigh linalg.eigvals linalg.eigvalsh
    linalg.inv linalg.inv_ex linalg.ldl_factor linalg.ldl_factor_ex linalg.lu linalg.lu_factor linalg.lu_factor_ex
    linalg.matrix_exp linalg.matrix_power linalg.matrix_rank linalg.pinv linalg.qr linalg.slogdet linalg.solve_triangular
    linalg.svd linalg.svdvals cholesky cholesky_inverse cholesky_solve det logdet slogdet inverse lu geqrf qr svd
    triangular_solve matrix_exp matrix_power pinverse cdist""".split()
)
_matrices("linalg.householder_product", "orgqr", "ormqr", tau=1)
_matrices("linalg.lu_solve", "linalg.ldl_solve", pivots=1)
_matrices("lu_solve", "lu_unpack", LU_pivots=1)
_matrices("linalg.vander", x=1)


@bound_rule("linalg.solve", "linalg.solve_ex", "linalg._solve_ex")
def _solve(frame, func, a):
    x, b = a["A"], a["B"]
    # PyTorch's rule of when the right side is vectors.
    if b.ndim == 1 or (b.ndim == x.ndim - 1 and tuple(b.shape) == tuple(x.shape)[:-1]):
        if a.get("left", True) is False:
            return NotImplemented
        result = leading(frame, func, {**a, "B": b.unsqueeze(-1)}, {})
        if result is NotImplemented or isinstance(result, Tensor):
            return result if result is NotImplemented else result.squeeze(-1)
        parts = [result[0].squeeze(-1), *list(result)[1:]]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    return leading(frame, func, a, {})


@bound_rule("linalg.matrix_norm")
def _matrix_norm(frame, func, a):
    x = a["A"]
    dims = tuple(shifted(d, x.ndim) for d in many(a.get("dim", (-2, -1))))
    return frame.wrap(_call(func, {**a, "A": frame.full(x), "dim": dims}))


@bound_rule("linalg.norm")
def _norm(frame, func, a):
    x, dim = a["A"], a.get("dim")
    k = {n: v for n, v in a.items() if n not in ("A", "dim")}
    v = frame.full(x)
    if dim is not None:
        return frame.wrap(func(v, dim=tuple(shifted(d, x.ndim) for d in many(dim)), **k))
    if a.get("ord") is None or x.ndim == 0:
        if a.get("keepdim"):
            return NotImplemented
        return frame.wrap(func(v.reshape(frame.size, -1), dim=1, **k))
    if x.ndim > 2:
        return NotImplemented
    return frame.wrap(func(v, dim=tuple(range(1, x.ndim + 1)), **k))


@bound_rule("linalg.multi_dot", "linalg._chain_matmul")
def _multi_dot(frame, func, a):
    return functools.reduce(_C.matmul, a["tensors"])


@bound_rule("linalg.vecdot")
def _vecdot(frame, func, a):
    x, y = a["x"], a["y"]
    return ((x.conj() if x.is_complex() else x) * y).sum(a.get("dim", -1))


@bound_rule("linalg.cross")
def _cross(frame, func, a):
    x, y = a["input"], a["other"]
    if x.ndim != y.ndim:
        return NotImplemented
    return frame.wrap(func(frame.full(x), frame.full(y), dim=shifted(a.get("dim", -1), x.ndim)))


@bound_rule("trace")
def _trace(frame, func, a):
    if a["input"].ndim != 2:
        return NotImplemented
    return a["input"].diagonal().sum(-1)


@bound_rule("nn.pdist")
def _pdist(frame, func, a):
    x = a["input"]
    if x.ndim != 2 or x.shape[0] < 2:
        return NotImplemented
    i = _C.arange(x.shape[0])
    row, col = (i.unsqueeze(1) < i).nonzero().unbind(1)
    full = _C.cdist(x, x, a.get("p", 2.0), "donot_use_mm_for_euclid_dist")
    return full.flatten().index_select(0, row * x.shape[0] + col)


@bound_rule("dist")
def _dist(frame, func, a):
    return _C.norm(a["input"] - a["other"], a.get("p", 2.0))


@bound_rule("linalg.diagonal")
def _diagonal(frame, func, a):
    return a["A"].diagonal(a.get("offset", 0), a.get("dim1", -2), a.get("dim2", -1))


@bound_rule("kron")
def _kron(frame, func, a):
    x, y = a["input"], a["other"]
    rank = max(x.ndim, y.ndim)
    left, right = (t.reshape((1,) * (rank - t.ndim) + tuple(t.shape)) for t in (x, y))
    sizes = [i * j for i, j in zip(left.shape, right.shape)]
    spread = left.reshape([s for n in left.shape for s in (n, 1)])
    return (spread * right.reshape([s for n in right.shape for s in (1, n)])).reshape(sizes)


@bound_rule("inner")
def _inner(frame, func, a):
    x, y = a["input"], a["other"]
    if x.ndim == 0 or y.ndim == 0:
        return x * y
    return _C._linalg._tensordot(x, y, (x.ndim - 1,), (y.ndim - 1,))


@bound_rule("linalg._einsum")
def _einsum(frame, func, a):
    equation = a["equation"].replace(" ", "")
    terms, arrow, out = equation.partition("->")
    free = next((c for c in string.ascii_letters if c not in equation), None)
    terms, operands = terms.split(","), list(a["operands"])
    if free is None or len(terms) != len(operands):
        return NotImplemented
    if not arrow:
        labels = "".join(terms).replace("...", "")
        out = "".join(sorted(c for c in set(labels) if labels.count(c) == 1))
        out = "..." + out if "..." in equation else out
    terms = [free + s if frame.is_batched(t) else s for s, t in zip(terms, operands)]
    values = [t._batched_value if frame.is_batched(t) else t for t in operands]
    return frame.wrap(func(",".join(terms) + "->" + free + out, values))


@bound_rule("linalg._tensordot")
def _tensordot(frame, func, a):
    x, y, dx, dy = a["a"], a["b"], many(a["dims_a"]), many(a["dims_b"])
    if len(dx) != len(dy) or x.ndim + y.ndim > 40:
        return NotImplemented
    dx, dy = [d % max(x.ndim, 1) for d in dx], [d % max(y.ndim, 1) for d in dy]
    left = list(string.ascii_letters[: x.ndim])
    right = list(string.ascii_letters[x.ndim : x.ndim + y.ndim])
    if any(x.shape[i] != y.shape[j] for i, j in zip(dx, dy)):
        return NotImplemented
    for i, j in zip(dx, dy):
        right[j] = left[i]
    kept = [c for i, c in enumerate(left) if i not in dx] + [c for j, c in enumerate(right) if j not in dy]
    return _C._linalg._einsum(f"{''.join(left)},{''.join(right)}->{''.join(kept)}", [x, y])


def _transform(one):
    """`one`: along a single dimension, the last by default; else along `dim`, by default the last of `s` or all."""

    def on(frame, func, a):
        x, k = a["input"], dict(a)
        if one:
            k["dim"] = shifted(a.get("dim", -1), x.ndim)
        else:
            dim, s = a.get("dim"), a.get("s")
            if dim is None and func.__name__.endswith("2"):
                dim = (-2, -1)
            if dim is None:
                dim = range(x.ndim if s is None else len(s)) if s is None else range(-len(s), 0)
            k["dim"] = tuple(shifted(d, x.ndim) for d in many(dim) if x.ndim)
        if x.ndim == 0:
            return NotImplemented
        k["input"] = frame.full(x)
        return frame.wrap(_call(func, k))

    return on


_ONE = [f"fft.{p}{n}" for p in ("", "i") for n in ("fft", "rfft", "hfft")]
bound_rule(*_ONE)(_transform(True))
bound_rule(*[k + s for k in _ONE for s in ("2", "n")], "fft.fftshift", "fft.ifftshift")(_transform(False))


def _frames(rank):
    """Short-time transforms take one batch dimension: a sample's own is joined to it."""

    def on(frame, func, a):
        x, k = a["input"], dict(a)
        if not frame.is_batched(x) or frame.is_batched(a.get("window")) or not rank <= x.ndim <= rank + 1:
            return NotImplemented
        v = x._batched_value
        k["input"] = v.flatten(0, 1) if x.ndim > rank else v
        out = _call(func, k)
        return frame.wrap(out.unflatten(0, (frame.size, -1)) if x.ndim > rank else out)

    return on


bound_rule("stft")(_frames(1))
