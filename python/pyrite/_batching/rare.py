"""Losses over sequences, bags of embeddings, unpooling, least squares, histograms: operators that fold the batch into a
dimension of their own or are composed of others that have rules."""

import math

from .. import _C
from .core import bound_rule
from .matrices import _frames, leading

Tensor = _C.Tensor


def _merged(frame, x):
    """The batch and the first dimension of a sample as one."""
    return frame.full(x).flatten(0, 1)


def _parted(frame, x):
    return frame.wrap(x.unflatten(0, (frame.size, x.shape[0] // frame.size)))


@bound_rule("nn.ctc_loss")
def _ctc_loss(frame, func, a):
    n, targets = frame.size, a["targets"]
    probs = frame.full(a["log_probs"]).movedim(0, 1).flatten(1, 2)
    lengths = [tuple(v) * n if isinstance(v, (tuple, list)) else v for v in (a["input_lengths"], a["target_lengths"])]
    if any(isinstance(v, int) for v in lengths):
        return NotImplemented
    rest = {k: v for k, v in a.items() if k in ("blank", "zero_infinity")}
    return _parted(frame, func(probs, _merged(frame, targets), *lengths, **rest))


@bound_rule("nn.embedding_bag")
def _embedding_bag(frame, func, a):
    n, w, index = frame.size, a["weight"], frame.full(a["indices"])
    k = {name: v for name, v in a.items() if name not in ("weight", "indices", "offsets")}
    if w.ndim != 2 or index.ndim != 2 or a["offsets"].ndim != 1:
        return NotImplemented
    rows, count, pad = w.shape[0], index.shape[1], k.get("padding_idx", -1)
    if frame.is_batched(w) or k.get("scale_grad_by_freq"):
        # Every sample counts in rows of its own; a bad index would count in somebody else's.
        if bool(((index < 0) | (index >= rows)).any()):
            return NotImplemented
        shifted = index + (_C.arange(n, device=index.device, dtype=index.dtype) * rows).unsqueeze(1)
        # One row may be left out of all bags: that of the first sample stands for those of all.
        index = shifted if pad < 0 else _C.where(index == pad, index, shifted)
        w = frame.full(w).flatten(0, 1)
    if isinstance(k.get("per_sample_weights"), Tensor):
        k["per_sample_weights"] = frame.full(k["per_sample_weights"]).flatten()
    starts = frame.full(a["offsets"])
    bags = starts.shape[1]
    starts = starts + (_C.arange(n, device=starts.device, dtype=starts.dtype) * count).unsqueeze(1)
    last = k.pop("include_last_offset", False)
    out = _parted(frame, func(w, index.flatten(), starts.flatten(), **k))
    # What follows the last end is a bag that nobody asked for.
    return out[: bags - 1] if last else out


@bound_rule("nn.max_unpool")
def _max_unpool(frame, func, a):
    if a["input"].ndim < 2:
        return NotImplemented
    size = list(a["output_size"])
    size[0] *= frame.size
    return _parted(frame, func(_merged(frame, a["input"]), _merged(frame, a["indices"]), size))


@bound_rule("linalg.lstsq")
def _lstsq(frame, func, a):
    x, b = a["input"], a["b"]
    if a.get("driver") in ("gelsd", "gelss"):
        return NotImplemented  # whether there are residuals depends on the rank of each sample
    vector = b.ndim == 1 or (b.ndim == x.ndim - 1 and tuple(b.shape) == tuple(x.shape)[:-1])
    result = leading(frame, func, {**a, "b": b.unsqueeze(-1) if vector else b}, {})
    if result is NotImplemented:
        return result
    parts = []
    for i, part in enumerate(result):
        value = part._batched_value if frame.is_batched(part) else part
        if i == 0 and vector:
            value = value.squeeze(-1)
        # What a driver does not compute is empty, for every sample.
        parts.append(frame.wrap(value.expand(frame.size, 0) if i and value.numel() == 0 and value.ndim == 1 else value))
    return type(result)(*parts)


@bound_rule("linalg.tensorinv")
def _tensorinv(frame, func, a):
    x, ind = a["A"], a.get("ind", 2)
    head, tail = tuple(x.shape)[:ind], tuple(x.shape)[ind:]
    if ind <= 0 or math.prod(head) != math.prod(tail):
        return NotImplemented
    n = math.prod(head)
    return _C._linalg.inv(x.reshape(n, n)).reshape(*tail, *head)


@bound_rule("linalg.tensorsolve")
def _tensorsolve(frame, func, a):
    x, b, dims = a["A"], a["B"], a.get("dims")
    if dims is not None:
        x = x.movedim(tuple(dims), tuple(range(-len(dims), 0)))
    head, tail = tuple(x.shape)[: b.ndim], tuple(x.shape)[b.ndim :]
    if math.prod(head) != math.prod(tail) or b.numel() != math.prod(head):
        return NotImplemented
    return _C._linalg.solve(x.reshape(b.numel(), math.prod(tail)), b.reshape(-1)).reshape(tail)


@bound_rule("histc")
def _histc(frame, func, a):
    x, bins, low, high = a["input"], a.get("bins", 100), a.get("min", 0), a.get("max", 0)
    if not x.is_floating_point() or bins <= 0 or x.numel() == 0:
        return NotImplemented
    n = frame.size
    wide = _C.float64 if x.dtype == _C.float64 else _C.float32
    v = frame.full(x).detach().reshape(n, -1).to(wide)
    if low == high:
        low, high = v.amin(1, keepdim=True), v.amax(1, keepdim=True)
        even = low == high
        low, high = _C.where(even, low - 1, low), _C.where(even, high + 1, high)
    else:
        low, high = (_C.full((n, 1), float(e), dtype=wide, device=x.device) for e in (low, high))
    if not bool((low.isfinite() & high.isfinite() & (low < high)).all()):
        return NotImplemented  # the function itself says what is wrong
    at = ((v - low) * bins / (high - low)).to(_C.int64).clamp(0, bins - 1)
    at = _C.where((v >= low) & (v <= high), at, bins)
    at = at + (_C.arange(n, device=x.device) * (bins + 1)).unsqueeze(1)
    counts = _C.bincount(at.flatten(), minlength=n * (bins + 1)).reshape(n, bins + 1)
    return frame.wrap(counts[:, :bins].to(x.dtype))


bound_rule("istft")(_frames(2))


@bound_rule("svd_lowrank")
def _svd_lowrank(frame, func, a):
    x, q, rounds, shift = a["A"], a.get("q", 6), a.get("niter", 2), a.get("M")
    if x.ndim < 2 or not 0 <= q <= min(x.shape[-2:]) or rounds < 0 or x.dtype in (_C.float16, _C.bfloat16):
        return NotImplemented
    x = x if shift is None else x - shift
    flip = x.shape[-2] < x.shape[-1]
    x = x.mH if flip else x
    real = _C.empty((), dtype=x.dtype).abs().dtype
    y = x @ _C.randn(x.shape[-1], q, dtype=real, device=x.device).to(x.dtype)
    for _ in range(rounds):
        y = x @ _C._linalg.qr(x.mH @ _C._linalg.qr(y)[0])[0]
    b = _C._linalg.qr(y)[0]
    u, s, vh = _C._linalg.svd(b.mH @ x, False)
    u, v = b @ u, vh.mH
    return (v, s, u) if flip else (u, s, v)


@bound_rule("pca_lowrank")
def _pca_lowrank(frame, func, a):
    x, q = a["A"], a.get("q")
    q = min(6, *x.shape[-2:]) if q is None else q
    x = x - x.mean(-2, keepdim=True) if a.get("center", True) else x
    return _C.svd_lowrank(x, q, a.get("niter", 2))
