"""What `test_gradgrad_sweep.py` differentiates: structured and composite operators as calls of tensors, with shapes.

Rows of the op table come from `opinfo.py`, functions of `nn.functional` from `test_second_order.py`, matrix functions and
indexing also from the tables of `test_linalg.py` and `test_indexsort.py`; this one has the rest. The first word of a key
is the operator's name, or its namespace and name.
"""

import math
from dataclasses import dataclass

from subject import F, torch

L = torch.linalg
I64 = torch.int64


@dataclass
class Case:
    call: object
    shapes: tuple
    # Differentiable in complex arguments too.
    complex: bool = True
    # Smooth also where rows repeat (an expanded argument makes singular matrices, zero distances, ties).
    expanded: bool = True
    # Arguments are drawn from (0.3, 1.3) instead of a normal distribution.
    positive: bool = False
    # Arguments are complex numbers only.
    only_complex: bool = False


def case(call, *shapes, **flags):
    return Case(call, shapes, **flags)


def real(call, *shapes, **flags):
    return Case(call, shapes, complex=False, **flags)


def index(*values):
    return torch.tensor(values, dtype=I64)


at = index([2, 0, 1, 2], [0, 0, 1, 2], [1, 2, 1, 0])
apart = index([2, 0, 1, 0], [0, 1, 2, 1], [1, 2, 0, 2])
mask = torch.tensor([[True, False, True, True], [False, True, True, False], [True, True, False, True]])
window = torch.tensor([0.5, 1.0, 0.7, 0.3], dtype=torch.float64)
M = (3, 4)

ELEMENTWISE = {
    "div": case(torch.div, M, M, positive=True),
    "div floor": real(lambda x, y: torch.div(x, y, rounding_mode="floor") * x, M, M, positive=True),
    "div trunc": real(lambda x, y: torch.div(x, y, rounding_mode="trunc") * y, M, M, positive=True),
    "rsub": case(lambda x, y: torch.rsub(x, y, alpha=0.5) ** 2, M, M),
    "add": case(lambda x, y: torch.add(x, y, alpha=0.5) ** 2, M, (4,)),
    "positive": case(lambda x: +x * x, M),
    "round": real(lambda x: x.round() * x + x.round(decimals=1), M),
    "clamp": real(lambda x, lo, hi: x.clamp(lo - 1, hi + 1) ** 2, M, (4,), (3, 1)),
    "clamp numbers": real(lambda x: x.clamp(-0.3, 0.4) ** 2 + x.clamp_min(-0.2) * x.clamp_max(0.1), M),
    "where": case(lambda x, y: torch.where(mask, x * y, y.sin()), M, (4,)),
    "where number": case(lambda x: torch.where(mask, x**2, 1.0), M),
    "masked_fill": case(lambda x, v: x.masked_fill(mask, v) ** 2, M, ()),
    "nan_to_num": real(lambda x: x.nan_to_num(1.0) ** 2, M),
    "prelu": real(lambda x, w: F.prelu(x, w), (2, 3, 2), (3,)),
    "view_as_real": case(lambda x: torch.view_as_real(x.resolve_conj()) ** 2, M, only_complex=True),
    "view_as_complex": real(lambda x: torch.view_as_complex(x.contiguous()) ** 2, (3, 2)),
    "real": case(lambda x: x.real**2 + x.sin().real, M),
    "imag": case(lambda x: x.imag**2 + x.sin().imag, M, only_complex=True),
    "complex": real(lambda x, y: torch.complex(x, y) ** 2, M, M),
    "polar": real(lambda x, y: torch.polar(x, y), M, M),
    "angle": case(torch.angle, M),
    "sgn": case(torch.sgn, M),
    "abs": case(torch.abs, M),
    "conj": case(lambda x: x.conj() * x.sin(), M),
    "conj_physical": case(lambda x: x.conj_physical() * x.sin(), M),
    "adjoint": case(lambda x: x.adjoint() ** 2, (2, 3, 4)),
    "mH": case(lambda x: x.mH**2, M),
    "H": case(lambda x: x.H**2, M),
    "resolve_conj": case(lambda x: x.conj().resolve_conj() ** 2, M),
    "resolve_neg": case(lambda x: x.sin().resolve_neg() ** 2, M),
    "clone": case(lambda x: x.clone() ** 2, M),
    "contiguous": case(lambda x: x.contiguous() ** 2, M),
    "contiguous channels_last": case(lambda x: x.contiguous(memory_format=torch.channels_last) ** 2, (2, 3, 2, 2)),
    "fill": case(lambda x, v: torch.fill(x, v) * x, M, ()),
    "copy_": case(lambda x, y: (x * 1).copy_(y) * x, M, (4,)),
    "zero_": case(lambda x: (x * 1).zero_() + x * x, M),
    "fill_": case(lambda x, v: (x * 1).fill_(v) * x, M, ()),
    "polygamma": real(lambda x: torch.polygamma(2, x), M, positive=True),
    "mvlgamma": real(lambda x: torch.mvlgamma(x + 2, 3), M, positive=True),
    "frexp": real(lambda x: torch.frexp(x).mantissa ** 2, M),
    "logit": real(lambda x: torch.logit(x * 0.4 + 0.1), M, positive=True),
    "logit eps": real(lambda x: torch.logit(x * 0.7, eps=0.3), M, positive=True),
    "float_power": case(lambda x, y: torch.float_power(x, y) + torch.float_power(x, 2.5), M, (4,), positive=True),
    "float_power base": case(lambda y: torch.float_power(1.5, y), M),
    "pow base": case(lambda y: 1.5**y, M),
    "pow number": case(lambda x: x**3 + x**2 + x**1 + x**0 + x**0.5 + x**-1.5, M, positive=True),
    "lerp": case(lambda x, y, w: torch.lerp(x, y, w) + torch.lerp(x * y, y, 0.3), M, M, M),
    "addcmul": case(lambda x, y, z: torch.addcmul(x, y, z, value=0.5), M, M, (4,)),
    "addcdiv": case(lambda x, y, z: torch.addcdiv(x, y, z, value=0.5), M, M, M, positive=True),
    "__rdiv__": case(lambda x: 2.0 / x, M, positive=True),
    "__rmod__": real(lambda x: (2.0 % x) * x, M, positive=True),
    "to": case(lambda x: x.to(torch.complex128).sin().abs() + x.cdouble().abs(), M),
    "special.xlog1py": real(lambda x, y: torch.special.xlog1py(x, y), M, (4,), positive=True),
    "dropout eval": real(lambda x: torch.dropout(x, 0.5, False) ** 2, M),
    "dropout all": real(lambda x: torch.dropout(x, 1.0, True) * x + x * x, M),
}

SHAPES = {
    "permute": case(lambda x: x.permute(2, 0, 1) ** 2, (2, 3, 4)),
    "transpose": case(lambda x: x.transpose(0, 1) ** 2, M),
    "t": case(lambda x: x.t() ** 2, M),
    "T": case(lambda x: x.T**2, M),
    "mT": case(lambda x: x.mT**2, (2, 3, 4)),
    "expand": case(lambda x: x.expand(2, 3, 4) ** 2, (3, 1)),
    "expand_as": case(lambda x, y: x.expand_as(y) * y, (3, 1), M),
    "broadcast_to": case(lambda x: torch.broadcast_to(x, (2, 3, 4)) ** 2, M),
    "broadcast_tensors": case(lambda x, y: [t * t for t in torch.broadcast_tensors(x, y)], (3, 1), (4,)),
    "view": case(lambda x: (x * 1).contiguous().view(2, 6) ** 2, M),
    "view dtype": real(lambda x: x.contiguous().view(torch.float64) ** 2, M),
    "view_as": case(lambda x: x.contiguous().view_as(torch.zeros(2, 6)) ** 2, M),
    "reshape": case(lambda x: x.reshape(2, -1) ** 2, M),
    "reshape_as": case(lambda x: x.reshape_as(torch.zeros(2, 6)) ** 2, M),
    "flatten": case(lambda x: x.flatten(1) ** 2, (2, 3, 4)),
    "unflatten": case(lambda x: x.unflatten(1, (2, -1)) ** 2, M),
    "ravel": case(lambda x: x.ravel() ** 2, M),
    "narrow": case(lambda x: x.narrow(1, 1, 2) ** 2, M),
    "narrow_copy": case(lambda x: torch.narrow_copy(x, 1, 1, 2) ** 2, M),
    "select": case(lambda x: x.select(1, 2) ** 2, M),
    "unsqueeze": case(lambda x: x.unsqueeze(1) ** 2, M),
    "squeeze": case(lambda x: [x.squeeze() ** 2, x.squeeze(1) ** 2, x.squeeze((1, 3)) ** 3], (3, 1, 2, 1)),
    "diagonal": case(lambda x: x.diagonal(1, 0, 2) ** 2, (3, 2, 4)),
    "linalg.diagonal": case(lambda x: L.diagonal(x, offset=-1) ** 2, (2, 3, 4)),
    "unfold": case(lambda x: x.unfold(1, 2, 1) ** 2, M),
    "as_strided": case(lambda x: (x * 1).contiguous().as_strided((3, 3), (2, 1), 1) ** 2, M),
    "movedim": case(lambda x: x.movedim((0, 1), (1, 2)) ** 2, (2, 3, 4)),
    "swapaxes": case(lambda x: x.swapaxes(0, 1) ** 2 if hasattr(x, "swapaxes") else x.T**2, M),
    "split": case(lambda x: [t**2 for t in x.split(3, 1)], M),
    "split list": case(lambda x: [t**2 for t in torch.split(x, [1, 3], 1)], M),
    "split_with_sizes": case(lambda x: [t**2 for t in x.split_with_sizes([1, 3], 1)], M),
    "chunk": case(lambda x: [t**2 for t in x.chunk(3, 1)], M),
    "unbind": case(lambda x: [t**2 for t in x.unbind(1)], M),
    "unsafe_split": case(lambda x: [t**2 for t in x.unsafe_split(3, 1)], M),
    "unsafe_split_with_sizes": case(lambda x: [t**2 for t in x.unsafe_split_with_sizes([1, 3], 1)], M),
    "unsafe_chunk": case(lambda x: [t**2 for t in x.unsafe_chunk(2, 1)], M),
    "tensor_split": case(lambda x: [t**2 for t in x.tensor_split((1, 2), 1)], M),
    "hsplit": case(lambda x: [t**2 for t in x.hsplit(2)], M),
    "vsplit": case(lambda x: [t**2 for t in x.vsplit((1,))], M),
    "dsplit": case(lambda x: [t**2 for t in x.dsplit(2)], (2, 3, 4)),
    "cat": case(lambda x, y: torch.cat([x, y, x]) ** 2, M, (2, 4)),
    "stack": case(lambda x, y: torch.stack([x, y, x], 1) ** 2, M, M),
    "hstack": case(lambda x, y: torch.hstack([x, y]) ** 2, M, (3, 2)),
    "vstack": case(lambda x, y: torch.vstack([x, y]) ** 2, M, (4,)),
    "dstack": case(lambda x, y: torch.dstack([x, y]) ** 2, M, M),
    "column_stack": case(lambda x, y: torch.column_stack([x, y]) ** 2, M, (3,)),
    "block_diag": case(lambda x, y: torch.block_diag(x, y, x) ** 2, M, (2,)),
    "cartesian_prod": case(lambda x, y: torch.cartesian_prod(x, y) ** 2, (3,), (2,)),
    "combinations": case(lambda x: torch.combinations(x, 2, True) ** 2, (4,)),
    "meshgrid": case(lambda x, y: [t**2 for t in torch.meshgrid(x, y, indexing="xy")], (3,), (2,)),
    "atleast_3d": case(lambda x: [torch.atleast_1d(x) ** 2, torch.atleast_2d(x) ** 2, torch.atleast_3d(x) ** 2], (3,)),
    "flip": case(lambda x: x.flip(0, 1) ** 2, M),
    "fliplr": case(lambda x: x.fliplr() ** 2, M),
    "flipud": case(lambda x: x.flipud() ** 2, M),
    "roll": case(lambda x: x.roll((1, -1), (0, 1)) * x, M),
    "roll flat": case(lambda x: x.roll(5) * x, M),
    "rot90": case(lambda x: x.rot90(3) ** 2, M),
    "repeat": case(lambda x: x.repeat(2, 1, 3) ** 2, M),
    "tile": case(lambda x: x.tile(2, 1) ** 2, M),
    "repeat_interleave": case(lambda x: x.repeat_interleave(index(0, 2, 1), 0) ** 2, M),
    "repeat_interleave number": case(lambda x: x.repeat_interleave(2) ** 2, M),
    "tril": case(lambda x: x.tril(1) ** 2, M),
    "triu": case(lambda x: x.triu(-1) ** 2, (2, 3, 4)),
    "tril_": case(lambda x: (x * 1).tril_() ** 2, M),
    "triu_": case(lambda x: (x * 1).triu_(1) ** 2, M),
    "diag": case(lambda x, y: [x.diag(1) ** 2, y.diag(-1) ** 2], M, (3,)),
    "diagflat": case(lambda x: x.diagflat(1) ** 2, (2, 2)),
    "diag_embed": case(lambda x: x.diag_embed(1, 0, 2) ** 2, M),
    "fill_diagonal_": case(lambda x: (x * 1).fill_diagonal_(2.0) ** 2, M),
    "constant_pad_nd": case(lambda x: torch.constant_pad_nd(x, (1, 2, -1, 0), 0.5) ** 2, M),
    "nn.channel_shuffle": case(lambda x: F.channel_shuffle(x, 2) ** 2, (1, 4, 2, 2)),
    "nn.pixel_shuffle": case(lambda x: F.pixel_shuffle(x, 2) ** 2, (1, 4, 2, 3)),
    "nn.pixel_unshuffle": case(lambda x: F.pixel_unshuffle(x, 2) ** 2, (1, 1, 4, 2)),
    "sum_to_size": case(lambda x: x.sum_to_size(3, 1) ** 2, M),
    "__getitem__": case(lambda x: [x[1:, ::2] ** 2, x[None, ..., 0] ** 2, x[mask] ** 3], M),
    "__getitem__ lists": case(lambda x: [x[[0, 2, 0]] ** 2, x[index(0, 1)[:, None], index(3, 3)] ** 2], M),
    "__setitem__": case(lambda x, v: _set(x, v), M, (3,)),
}


def _set(x, v):
    y = x * 1
    y[:, 1] = v
    y[[0, 2], 2:] = v[:2, None] * x[1, 0]
    return y * y


INDEXING = {
    "gather": case(lambda x: x.gather(0, at) ** 2, M),
    "index_select": case(lambda x: x.index_select(1, index(3, 0, 3)) ** 2, M),
    "index_add": case(lambda x, s: x.index_add(0, index(2, 2), s, alpha=0.5) ** 2, M, (2, 4)),
    "index_add_": case(lambda x, s: (x * 1).index_add_(0, index(2, 2), s) ** 2, M, (2, 4)),
    "index_copy": case(lambda x, s: x.index_copy(0, index(2, 0), s) ** 2, M, (2, 4)),
    "index_copy_": case(lambda x, s: (x * 1).index_copy_(0, index(2, 0), s) ** 2, M, (2, 4)),
    "index_fill": case(lambda x, v: x.index_fill(1, index(2, 0), v) ** 2, M, ()),
    "index_fill_": case(lambda x, v: (x * 1).index_fill_(1, index(2, 0), v) ** 2, M, ()),
    "take": case(lambda x: x.take(at + 3) ** 2, M),
    "take_along_dim": case(lambda x: x.take_along_dim(at, 0) ** 2, M),
    "take_along_dim flat": case(lambda x: x.take_along_dim(index(3, 3, 9)) ** 2, M),
    "masked_select": case(lambda x: x.masked_select(mask) ** 2, M),
    "masked_scatter": case(lambda x, s: x.masked_scatter(mask, s) ** 2, M, (2, 5)),
    "masked_scatter_": case(lambda x, s: (x * 1).masked_scatter_(mask, s) ** 2, M, (2, 5)),
    "masked_fill_": case(lambda x, v: (x * 1).masked_fill_(mask, v) ** 2, M, ()),
    "index_put": case(lambda x, s: x.index_put((index(0, 2), index(1, 1)), s) ** 2, M, (2,)),
    "index_put accumulate": case(lambda x, s: x.index_put((index(0, 0),), s, True) ** 2, M, (2, 4)),
    "index_put_": case(lambda x, s: (x * 1).index_put_((mask,), s) ** 2, M, ()),
    "scatter": case(lambda x, s: x.scatter(0, apart, s) ** 2, M, M),
    "scatter number": case(lambda x: x.scatter(0, apart, 1.5) ** 2, M),
    "scatter_": case(lambda x, s: (x * 1).scatter_(0, apart, s) ** 2, M, M),
    "scatter_add": case(lambda x, s: x.scatter_add(0, at, s) ** 2, M, M),
    "scatter_add_": case(lambda x, s: (x * 1).scatter_add_(0, at, s) ** 2, M, M),
    **{
        f"scatter_reduce {how} {own}": real(
            lambda x, s, how=how, own=own: x.scatter_reduce(0, at, s, how, include_self=own) ** 2, M, M
        )
        for how in ("sum", "prod", "mean", "amax", "amin")
        for own in (True, False)
    },
    **{
        f"index_reduce {how} {own}": real(
            lambda x, s, how=how, own=own: x.index_reduce(0, index(2, 0, 2), s, how, include_self=own) ** 2, M, M
        )
        for how in ("prod", "mean", "amax", "amin")
        for own in (True, False)
    },
    "scatter_reduce_": real(lambda x, s: (x * 1).scatter_reduce_(0, at, s, "prod") ** 2, M, M),
    "index_reduce_": real(lambda x, s: (x * 1).index_reduce_(0, index(2, 0, 2), s, "prod") ** 2, M, M),
    "select_scatter": case(lambda x, s: x.select_scatter(s, 1, 2) ** 2, M, (3,)),
    "slice_scatter": case(lambda x, s: x.slice_scatter(s, 1, 1, 4, 2) ** 2, M, (3, 2)),
    "diagonal_scatter": case(lambda x, s: x.diagonal_scatter(s, 1) ** 2, M, (3,)),
    "as_strided_scatter": case(
        lambda x, s: (x * 1).contiguous().as_strided_scatter(s, (2, 2), (4, 1), 1) ** 2, M, (2, 2)
    ),
    "put": case(lambda x, s: x.put(index([0, 5], [7, 2]), s) ** 2, M, (2, 2)),
    "put accumulate": case(lambda x, s: x.put(index([0, 5], [0, 2]), s, True) ** 2, M, (2, 2)),
    "put_": case(lambda x, s: (x * 1).put_(index([0, 5], [7, 2]), s) ** 2, M, (2, 2)),
    "nn.embedding": real(lambda w: F.embedding(at, w) ** 2, M),
    "embedding": real(lambda w: torch.embedding(w, at) ** 2, M),
}

REDUCTIONS = {
    "sum": case(lambda x: [x.sum() ** 2, x.sum(1) ** 2, x.sum((0, 2), True) ** 2], (2, 3, 4)),
    "nansum": real(lambda x: [x.nansum() ** 2, x.nansum(1, True) ** 2], M),
    "mean": case(lambda x: [x.mean() ** 2, x.mean((0, 1)) ** 2], (2, 3, 4)),
    "nanmean": real(lambda x: [x.nanmean() ** 2, x.nanmean(1) ** 2], M),
    "prod": case(lambda x: [x.prod(), x.prod(1, True)], M),
    "amax": real(lambda x: [x.amax() ** 2, x.amax((0, 1)) ** 2, x.amin(1) ** 2], M),
    "amin": real(lambda x: [x.amin() ** 2, x.amin((0, 1)) ** 2], M),
    "aminmax": real(lambda x: [t**2 for t in torch.aminmax(x, dim=1)], M),
    "max": real(lambda x, y: [x.max() ** 2, x.max(1).values ** 2, torch.max(x, y) ** 2], M, M),
    "min": real(lambda x, y: [x.min() ** 2, x.min(0, True).values ** 2, torch.min(x, y) ** 2], M, M),
    "logsumexp": real(lambda x: [x.logsumexp(1), x.logsumexp((0, 1))], M),
    "var": case(lambda x: [x.var(), x.var(1, correction=0), x.var((0, 1), keepdim=True)], M),
    "std": case(lambda x: [x.std(), x.std(1, unbiased=False), x.std((0, 1), keepdim=True)], (4, 3)),
    "var_mean": case(lambda x: list(torch.var_mean(x, 1)), M),
    "std_mean": case(lambda x: list(torch.std_mean(x, 1)), M),
    "cumsum": case(lambda x: x.cumsum(1) ** 2, M),
    "cumsum_": case(lambda x: (x * 1).cumsum_(0) ** 2, M),
    "cumprod": case(lambda x: x.cumprod(1), M),
    "cumprod_": case(lambda x: (x * 1).cumprod_(0), M),
    "cummax": real(lambda x: x.cummax(1).values ** 2, M),
    "cummin": real(lambda x: x.cummin(0).values ** 2, M),
    "logcumsumexp": real(lambda x: x.logcumsumexp(1), M),
    "diff": case(lambda x, p: torch.diff(x, 2, 1, prepend=p) ** 2, M, (3, 2)),
    "gradient": case(lambda x: [t**2 for t in torch.gradient(x, spacing=0.5)], (3, 4)),
    "gradient coordinates": real(
        lambda x: torch.gradient(x, spacing=(torch.tensor([0.0, 1.0, 3.0, 4.5]).double(),), dim=(1,))[0] ** 2, M
    ),
    "trapezoid": case(lambda y, x: torch.trapezoid(y, x) ** 2 + torch.trapezoid(y, dx=0.5), M, M),
    "cumulative_trapezoid": case(lambda y, x: torch.cumulative_trapezoid(y, x) ** 2, M, M),
    "cov": case(lambda x: torch.cov(x), M),
    "cov weighted": real(lambda x, w: torch.cov(x, fweights=index(1, 2, 1, 3), aweights=w.abs() + 0.1), M, (4,)),
    "corrcoef": case(lambda x: torch.corrcoef(x), M),
    "softmax": real(lambda x: torch.softmax(x, 1), M),
    "softmax dim 0": real(lambda x: torch.softmax(x, 0, dtype=torch.float64) ** 2, (3, 2, 2)),
    "log_softmax": real(lambda x: torch.log_softmax(x, 1), M),
    "sort": real(lambda x: [x.sort(1, True).values ** 2, torch.sort(x, stable=True, dim=0).values ** 2], M),
    "msort": real(lambda x: x.msort() ** 2, M),
    "topk": real(lambda x: x.topk(2, 1, False).values ** 2, M),
    "kthvalue": real(lambda x: x.kthvalue(2, 1).values ** 2, M),
    "median": real(lambda x: [x.median() ** 2, x.median(1).values ** 2], M),
    "nanmedian": real(lambda x: [x.nanmedian() ** 2, x.nanmedian(1).values ** 2], M),
    "mode": real(lambda x: x.mode(1).values ** 2, M),
    "quantile": real(lambda x: [x.quantile(0.3) ** 2, x.quantile(torch.tensor([0.2, 0.9]).double(), 1) ** 2], M),
    "nanquantile": real(lambda x: x.nanquantile(0.6, 1, interpolation="midpoint") ** 2, M),
    "norm": case(lambda x: [x.norm(), x.norm(3, 1), torch.norm(x, "fro"), torch.norm(x, 1, (0, 1))], M),
    "norm inf": case(lambda x: [torch.norm(x, math.inf), torch.norm(x, -math.inf, 1)], M),
    "norm nuc": case(lambda x: torch.norm(x + 2 * torch.eye(3, 4), "nuc"), M, expanded=False),
    "dist": case(lambda x, y: [torch.dist(x, y), torch.dist(x, y, 1), torch.dist(x, y, 3)], M, (4,)),
    "renorm": case(lambda x: torch.renorm(x, 2, 0, 0.8), M),
    "renorm_": case(lambda x: (x * 1).renorm_(3, 1, 0.8), M),
    "trace": case(lambda x: x.trace() ** 2, M),
    "searchsorted": real(lambda x: x * torch.searchsorted(torch.arange(3.0).double(), x.detach()), M),
    "unique": real(lambda x: x.unique(dim=0).shape[0] * x, M),
    "stft": case(
        lambda x: torch.view_as_real(torch.stft(x, 4, 2, window=window, return_complex=True)) ** 2,
        (2, 9),
        complex=False,
    ),
    "stft complex": case(
        lambda x: torch.stft(x, 4, 2, window=window, return_complex=True) ** 2, (2, 9), only_complex=True
    ),
    "istft": case(lambda x: torch.istft(x, 4, 2, window=window) ** 2, (2, 3, 5), only_complex=True),
}

LINEAR = {
    "mm": case(torch.mm, M, (4, 2)),
    "bmm": case(torch.bmm, (2, 3, 4), (2, 4, 2)),
    "mv": case(torch.mv, M, (4,)),
    "dot": case(torch.dot, (4,), (4,)),
    "vdot": case(torch.vdot, (4,), (4,)),
    "matmul": case(torch.matmul, (2, 3, 4), (4, 2)),
    "matmul vector": case(torch.matmul, (4,), (2, 4, 3)),
    "matmul batches": case(torch.matmul, (2, 1, 3, 4), (3, 4, 2)),
    "linalg.matmul": case(L.matmul, M, (4, 2)),
    "__rmatmul__": case(lambda x, y: y @ x, M, (2, 3)),
    "outer": case(torch.outer, (3,), (4,)),
    "inner": case(torch.inner, M, (2, 4)),
    "addmm": case(lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2) ** 2, (2,), M, (4, 2)),
    "addmm_": case(lambda c, a, b: (c * 1).addmm_(a, b, beta=0.5) ** 2, (3, 2), M, (4, 2)),
    "addmv": case(lambda c, a, b: torch.addmv(c, a, b, beta=0.5, alpha=2) ** 2, (3,), M, (4,)),
    "addmv_": case(lambda c, a, b: (c * 1).addmv_(a, b) ** 2, (3,), M, (4,)),
    "addr": case(lambda c, a, b: torch.addr(c, a, b, beta=0.5, alpha=2) ** 2, M, (3,), (4,)),
    "addr_": case(lambda c, a, b: (c * 1).addr_(a, b) ** 2, M, (3,), (4,)),
    "baddbmm": case(lambda c, a, b: torch.baddbmm(c, a, b, beta=0.5) ** 2, (3, 2), (2, 3, 4), (2, 4, 2)),
    "baddbmm_": case(lambda c, a, b: (c * 1).baddbmm_(a, b) ** 2, (2, 3, 2), (2, 3, 4), (2, 4, 2)),
    "addbmm": case(lambda c, a, b: torch.addbmm(c, a, b, alpha=2) ** 2, (3, 2), (2, 3, 4), (2, 4, 2)),
    "addbmm_": case(lambda c, a, b: (c * 1).addbmm_(a, b) ** 2, (3, 2), (2, 3, 4), (2, 4, 2)),
    "kron": case(torch.kron, (2, 2), (3, 2)),
    "cross": case(lambda x, y: torch.cross(x, y, dim=1), (2, 3), (2, 3)),
    "linalg.cross": case(L.cross, (2, 3), (1, 3)),
    "chain_matmul": case(lambda x, y, z: torch.chain_matmul(x, y, z), (2, 3), (3, 4), (4, 2)),
    "linalg.multi_dot": case(lambda x, y, z: L.multi_dot([x, y, z]), (3,), (3, 4), (4, 2)),
    "einsum": case(lambda x, y: torch.einsum("ij,kj->ik", x, y) ** 2, M, (2, 4)),
    "einsum trace": case(lambda x: torch.einsum("ii->", x) ** 2 + torch.einsum("ij->j", x) ** 2, (3, 3)),
    "tensordot": case(lambda x, y: torch.tensordot(x, y, 2), (2, 3, 4), (3, 4)),
    "cdist": real(torch.cdist, (3, 2), (4, 2), expanded=False),
    "cdist 1": real(lambda x, y: torch.cdist(x, y, 1.0), (3, 2), (4, 2)),
    "linalg.norm": case(lambda x: [L.norm(x), L.norm(x, math.inf), L.norm(x, 1, 0), L.norm(x, "fro")], M),
    "linalg.vector_norm": case(lambda x: [L.vector_norm(x), L.vector_norm(x, 3, 1), L.vector_norm(x, -1)], M),
    "linalg.vecdot": case(L.vecdot, M, (4,)),
    "linalg.vander": case(lambda x: L.vander(x, N=3), (4,)),
    "linalg.matrix_power": case(lambda x: L.matrix_power(x, 3), (3, 3)),
    "matrix_power": case(lambda x: torch.matrix_power(x, 2), (2, 2, 2)),
    "matrix_exp": case(lambda x: torch.matrix_exp(x), (2, 3, 3)),
    "nn.linear": case(F.linear, M, (2, 4), (2,)),
    "nn.bilinear": case(lambda x, y, w: F.bilinear(x, y, w), (3, 2), (3, 4), (2, 2, 4)),
    "nn.conv1d": case(lambda x, w, b: F.conv1d(x, w, b, 2, 1), (2, 2, 5), (3, 2, 3), (3,)),
    "nn.conv2d": case(lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=2), (1, 2, 4, 3), (4, 1, 3, 2), (4,)),
    "nn.conv3d": case(lambda x, w: F.conv3d(x, w), (1, 1, 3, 3, 2), (2, 1, 2, 2, 2)),
    "nn.conv_transpose1d": case(lambda x, w: F.conv_transpose1d(x, w, stride=2), (1, 2, 3), (2, 2, 2)),
    "nn.conv_transpose2d": case(lambda x, w: F.conv_transpose2d(x, w, padding=1), (1, 2, 3, 3), (2, 1, 2, 2)),
    "nn.conv_transpose3d": case(lambda x, w: F.conv_transpose3d(x, w), (1, 1, 2, 2, 2), (1, 1, 2, 2, 2)),
}


def well(x):
    """Far from singular: eigenvalues and singular values near 2, 4, 6, ..."""
    d = torch.zeros(x.shape[-2:], dtype=x.dtype)
    n = min(x.shape[-2:])
    d.diagonal().copy_((2 * torch.arange(1, n + 1)).to(x.dtype))
    return 0.3 * x + d


def definite(x):
    return x @ x.mH + 2 * torch.eye(x.shape[-1], dtype=x.dtype)


S = (2, 3, 3)
MATRIX = {
    "cholesky": case(lambda x: torch.cholesky(definite(x)), S),
    "linalg.cholesky_ex": case(lambda x: L.cholesky_ex(definite(x))[0], S),
    "cholesky_solve": case(lambda b, x: torch.cholesky_solve(b, L.cholesky(definite(x))), (3, 2), S),
    "cholesky_inverse": case(lambda x: torch.cholesky_inverse(L.cholesky(definite(x))), S),
    "linalg.inv_ex": case(lambda x: L.inv_ex(well(x))[0], S),
    "inverse": case(lambda x: torch.inverse(well(x)), S),
    "linalg.solve_ex": case(lambda x, b: L.solve_ex(well(x), b)[0], S, (2, 3, 2)),
    "linalg.lu_factor_ex": case(lambda x: L.lu_factor_ex(well(x))[0], (3, 4)),
    "lu": case(lambda x: torch.lu(well(x))[0], S),
    "lu_unpack": case(lambda x: list(torch.lu_unpack(*L.lu_factor(well(x)))[1:]), S),
    "lu_solve": case(lambda b, x: torch.lu_solve(b, *L.lu_factor(well(x))), (3, 2), (3, 3)),
    "triangular_solve": case(lambda b, x: torch.triangular_solve(b, well(x), upper=False)[0], (3, 2), (3, 3)),
    "det": case(lambda x: torch.det(x), S, expanded=False),
    "slogdet": case(lambda x: torch.slogdet(well(x)).logabsdet, S),
    "logdet": case(lambda x: torch.logdet(well(x)), (3, 3)),
    "qr": case(lambda x: list(torch.qr(well(x))), (3, 2)),
    "orgqr": case(lambda x, t: torch.orgqr(x, t), (4, 2), (2,)),
    "ormqr": case(lambda x, t, c: torch.ormqr(x, t, c), (3, 2), (2,), (3, 2)),
    "svd": case(lambda x: torch.svd(well(x)).S, (3, 4)),
    "pinverse": case(lambda x: torch.pinverse(well(x)), (3, 2)),
    "linalg.lu": case(lambda x: list(L.lu(well(x)))[1:], S),
    "linalg.eigh": case(lambda x: _hermitian(x), S),
    "linalg.eigvalsh": case(lambda x: L.eigvalsh(well(x) + well(x).mH), S),
    "linalg.lstsq": case(lambda x, b: L.lstsq(well(x), b).solution, (4, 3), (4, 2)),
    "svd_lowrank": case(lambda x: _low_rank(x), (4, 3), complex=False),
}


def _hermitian(x):
    w, v = L.eigh(well(x) + well(x).mH)
    return [w, v.abs(), v @ (w.sin().unsqueeze(-1) * v.mH)]


def _low_rank(x):
    torch.manual_seed(0)
    u, s, v = torch.svd_lowrank(well(x), 3)
    return [s, u @ (s.unsqueeze(-1) * v.mT)]


FOURIER = {
    **{f"fft.{n}": case(lambda x, n=n: getattr(torch.fft, n)(x) ** 2, (3, 5)) for n in ("fft", "ifft")},
    **{
        f"fft.{n} sized": case(lambda x, n=n: getattr(torch.fft, n)(x, n=6, dim=0, norm="ortho") ** 2, (4, 3))
        for n in ("fft", "ifft")
    },
    **{
        f"fft.{n}": case(lambda x, n=n: getattr(torch.fft, n)(x) ** 2, (2, 3, 4))
        for n in ("fft2", "ifft2", "fftn", "ifftn", "fftshift", "ifftshift")
    },
    **{f"fft.{n}": real(lambda x, n=n: getattr(torch.fft, n)(x) ** 2, (3, 5)) for n in ("rfft", "ihfft")},
    **{f"fft.{n}": real(lambda x, n=n: getattr(torch.fft, n)(x) ** 2, (2, 3, 4)) for n in ("rfft2", "rfftn", "ihfft2", "ihfftn")},
    **{f"fft.{n}": case(lambda x, n=n: getattr(torch.fft, n)(x) ** 2, (3, 4)) for n in ("irfft", "hfft")},
    **{
        f"fft.{n} odd": case(lambda x, n=n: getattr(torch.fft, n)(x, n=5, norm="forward") ** 2, (3, 4))
        for n in ("irfft", "hfft")
    },
    **{f"fft.{n}": case(lambda x, n=n: getattr(torch.fft, n)(x) ** 2, (2, 3, 4)) for n in ("irfft2", "irfftn", "hfft2", "hfftn")},
}  # fmt: skip

masked = torch.masked
MASKED = {
    **{
        f"masked.{n}": real(lambda x, n=n: getattr(masked, n)(x, 1, mask=mask) ** 2, M)
        for n in ("sum", "prod", "amax", "amin", "mean", "logsumexp", "var", "std", "cumsum", "cumprod")
    },
    **{
        f"masked.{n}": real(lambda x, n=n: torch.where(mask, getattr(masked, n)(x, 1, mask=mask), 0.0), M)
        for n in ("softmax", "log_softmax", "softmin")
    },
    "masked.median": real(lambda x: masked.median(x, 1, mask=mask) ** 2, M),
    "masked.norm": real(lambda x: masked.norm(x, 2.0, 1, mask=mask), M),
    "masked.normalize": real(lambda x: torch.where(mask, masked.normalize(x, 2.0, 1, mask=mask), 0.0), M),
    "masked.logaddexp": real(
        lambda x, y: torch.where(mask, masked.logaddexp(x, y, input_mask=mask, other_mask=mask), 0.0), M, M
    ),
}


def seeded(f):
    """Random functions draw the same numbers at each call."""

    def call(*xs):
        torch.manual_seed(5)
        return f(*xs)

    return call


labels = index(0, 2, 1)
signs = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
LAYERS = {
    "nn.max_unpool2d": real(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2) ** 2, (1, 2, 4, 4)),
    "nn.max_pool1d dilated": real(lambda x: F.max_pool1d(x, 2, 1, dilation=2) ** 2, (1, 2, 6)),
    "max_pool1d": real(lambda x: torch.max_pool1d(x, 2) ** 2, (1, 2, 6)),
    "max_pool2d": real(lambda x: torch.max_pool2d(x, 2) ** 2, (1, 2, 4, 4)),
    "max_pool3d": real(lambda x: torch.max_pool3d(x, 2) ** 2, (1, 1, 4, 2, 2)),
    "avg_pool1d": real(lambda x: torch.avg_pool1d(x, 2) ** 2, (1, 2, 6)),
    "adaptive_avg_pool1d": real(lambda x: torch.adaptive_avg_pool1d(x, 4) ** 2, (1, 2, 6)),
    "nn.fractional_max_pool2d": real(
        lambda x: F.fractional_max_pool2d(x, 2, (2, 2), _random_samples=torch.full((1, 2, 2), 0.4).double()) ** 2,
        (1, 2, 5, 5),
    ),
    "batch_norm": real(
        lambda x, w, b: torch.batch_norm(x, w, b, None, None, True, 0.1, 1e-5, True), (4, 3), (3,), (3,)
    ),
    "nn.batch_norm channels_last": real(
        lambda x, w, b: F.batch_norm(x.contiguous(memory_format=torch.channels_last), None, None, w, b, True),
        (2, 3, 2, 2),
        (3,),
        (3,),
    ),
    "layer_norm": real(lambda x, w, b: torch.layer_norm(x, (4,), w, b), M, (4,), (4,)),
    "group_norm": real(lambda x, w, b: torch.group_norm(x, 2, w, b), (2, 4, 3), (4,), (4,)),
    "rms_norm": real(lambda x, w: torch.rms_norm(x, (4,), w), M, (4,)),
    "conv1d": case(lambda x, w: torch.conv1d(x, w, padding="same"), (1, 2, 5), (2, 2, 3)),
    "conv2d": case(lambda x, w: torch.conv2d(x, w, stride=2), (2, 2, 4, 4), (2, 2, 2, 2)),
    "conv3d": case(lambda x, w: torch.conv3d(x, w), (1, 1, 2, 3, 2), (1, 1, 2, 2, 2)),
    "conv_transpose1d": case(lambda x, w: torch.conv_transpose1d(x, w, groups=2), (1, 2, 4), (2, 1, 2)),
    "conv_transpose2d": case(lambda x, w: torch.conv_transpose2d(x, w, dilation=2), (1, 2, 3, 3), (2, 1, 2, 2)),
    "conv_transpose3d": case(lambda x, w: torch.conv_transpose3d(x, w), (1, 1, 2, 2, 2), (1, 1, 2, 2, 2)),
    "nn.pad reflect": case(lambda x: F.pad(x, (1, 2), "reflect") ** 2, (2, 3, 4)),
    "nn.pad circular": case(lambda x: F.pad(x, (1, 2, 1, 0), "circular") ** 2, (1, 2, 3, 4)),
    "nn.pad replicate": case(lambda x: F.pad(x, (1, 0, 2, 1, 1, 1), "replicate") ** 2, (1, 2, 2, 3, 4)),
    "nn.fold": case(lambda x: F.fold(x, (3, 4), 2, padding=1) ** 2, (1, 4, 20)),
    "nn.unfold": case(lambda x: F.unfold(x, 2, dilation=2) ** 2, (1, 2, 4, 3)),
    "nn.local_response_norm": real(lambda x: F.local_response_norm(x, 2), (2, 4, 3)),
    "nn.normalize": case(lambda x: F.normalize(x, dim=1), M),
    "nn.cosine_similarity": real(lambda x, y: F.cosine_similarity(x, y), M, M),
    "nn.pairwise_distance": real(lambda x, y: F.pairwise_distance(x, y), M, M),
    "nn.pdist": real(lambda x: F.pdist(x), M, expanded=False),
    "nn.cosine_embedding_loss": real(lambda x, y: F.cosine_embedding_loss(x, y, signs), M, M),
    "nn.gaussian_nll_loss": real(F.gaussian_nll_loss, M, M, M, positive=True),
    "nn.poisson_nll_loss": real(lambda x, y: F.poisson_nll_loss(x, y, full=False), M, M, positive=True),
    "nn.hinge_embedding_loss": real(lambda x: F.hinge_embedding_loss(x**2, signs[:, None].expand(3, 4)), M),
    "nn.margin_ranking_loss": real(lambda x, y: F.margin_ranking_loss(x**2, y**2, signs, 0.3), (3,), (3,)),
    "nn.multi_margin_loss": real(lambda x: F.multi_margin_loss(x**2, labels, p=2), M),
    "nn.multilabel_margin_loss": real(
        lambda x: F.multilabel_margin_loss(x**2, index([0, 2, -1, 0], [1, -1, 0, 0], [3, 2, 1, -1])), M
    ),
    "nn.multilabel_soft_margin_loss": real(lambda x: F.multilabel_soft_margin_loss(x, mask.double()), M),
    "nn.soft_margin_loss": real(lambda x: F.soft_margin_loss(x, signs[:, None].expand(3, 4)), M),
    "nn.triplet_margin_loss": real(lambda x, y, z: F.triplet_margin_loss(x, y, z, 2.0), M, M, M),
    "nn.triplet_margin_with_distance_loss": real(
        lambda x, y, z: F.triplet_margin_with_distance_loss(x, y, z, margin=2.0), M, M, M
    ),
    "nn.binary_cross_entropy": real(lambda x, y: F.binary_cross_entropy(x * 0.7, y * 0.7), M, M, positive=True),
    "nn.interpolate area": real(lambda x: F.interpolate(x, (2, 2), mode="area") ** 2, (1, 2, 3, 4)),
    "nn.interpolate nearest-exact": real(lambda x: F.interpolate(x, (2, 5), mode="nearest-exact") ** 2, (1, 2, 3, 4)),
    "nn.dropout": real(seeded(lambda x: F.dropout(x, 0.4) ** 2), M),
    "dropout": real(seeded(lambda x: torch.dropout(x, 0.4, True) ** 2), M),
    "dropout_": real(seeded(lambda x: torch.dropout_(x * 1, 0.4, True) ** 2), M),
    "nn.alpha_dropout": real(seeded(lambda x: F.alpha_dropout(x, 0.4, True) ** 2), M),
    "nn.feature_alpha_dropout": real(seeded(lambda x: F.feature_alpha_dropout(x, 0.4, True) ** 2), (2, 3, 2)),
    "nn.dropout2d": real(seeded(lambda x: F.dropout2d(x, 0.4) ** 2), (2, 3, 2, 2)),
    "nn.rrelu": real(seeded(lambda x: F.rrelu(x, training=True) * x), M),
    "nn.gelu": real(lambda x: [F.gelu(x), F.gelu(x, approximate="tanh")], M),
    "nn.relu": real(lambda x: F.relu(x) ** 2, M),
    "nn.glu": real(lambda x: F.glu(x, 1), M),
    "nn.threshold": real(lambda x: F.threshold(x, 0.1, 2.0) ** 2, M),
    "normal_": real(lambda x: (x * 1).normal_() * 0 + x * x, M),
    "bernoulli": real(seeded(lambda p: torch.bernoulli(p * 0.7) * p * p), M, positive=True),
}

CASES = {**ELEMENTWISE, **SHAPES, **INDEXING, **REDUCTIONS, **LINEAR, **MATRIX, **FOURIER, **MASKED, **LAYERS}

# In the registry, without a derivative: integers, booleans, positions, random numbers, new tensors, and (the last line)
# another spelling of an entry above.
NO_GRADIENT = frozenset(
    """
    isreal is_conj is_neg zeros ones empty empty_strided empty_permuted new_empty_strided full zeros_like ones_like
    empty_like full_like arange linspace logspace range eye scalar_tensor rand randn rand_like randn_like randint
    randint_like randperm normal uniform_ random_ bernoulli_ exponential_ cauchy_ log_normal_ geometric_ poisson binomial
    argmax argmin any all count_nonzero tril_indices triu_indices nonzero argwhere argsort nonzero_static unravel_index
    unique_consecutive bucketize isin bincount histc multinomial geqrf linalg.matrix_rank linalg.ldl_factor
    linalg.ldl_factor_ex linalg.ldl_solve fft.fftfreq fft.rfftfreq nn.one_hot
    _neg_view linalg._solve_ex linalg._chain_matmul linalg._tensordot linalg._einsum div_ round_ clamp_ nan_to_num_ sgn_
    polygamma_ mvlgamma_ logit_ float_power_ pca_lowrank
    """.split()
)
