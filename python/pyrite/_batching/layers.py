"""Functions of `nn.functional` whose samples may themselves be batches: both batches become one."""

from .. import _C
from .core import bound_rule

Tensor = _C.Tensor


def _folded(dims, *names):
    """The rule of functions of (N, C, *dims) or (C, *dims): N takes in the batch."""

    def fold(frame, func, a):
        n = frame.size
        tensors = [k for k in names if isinstance(a.get(k), Tensor)]
        if any(frame.is_batched(v) for k, v in a.items() if k not in tensors):
            return NotImplemented
        kw = dict(a)
        batch = None
        for k in tensors:
            t, v = a[k], frame.full(a[k])
            if t.ndim == dims + 2:
                batch = t.shape[0]
                v = v.reshape((n * batch, *tuple(v.shape)[2:]))
            elif t.ndim != dims + 1:
                return NotImplemented
            kw[k] = v
        out = func(**kw) if func.__class__.__name__ != "method_descriptor" else func(kw.pop(names[0]), **kw)
        if batch is None:
            return frame.wrap(out)
        split = lambda t: t.reshape((n, batch, *tuple(t.shape)[1:]))  # noqa: E731
        return frame.wrap(split(out) if isinstance(out, Tensor) else tuple(split(t) for t in out))

    return fold


for _d in (1, 2, 3):
    bound_rule(
        *(f"nn.{kind}{_d}d{more}" for kind in ("max_pool", "adaptive_max_pool") for more in ("", "_with_indices")),
        f"nn.avg_pool{_d}d", f"nn.adaptive_avg_pool{_d}d", f"nn.lp_pool{_d}d",
        f"max_pool{_d}d", f"avg_pool{_d}d", f"adaptive_avg_pool{_d}d",
    )(_folded(_d, "input"))  # fmt: skip


def _images(single, *names):
    """The rule of functions whose inputs have a batch dimension, or none if their rank is ``single``."""

    def on(frame, func, a):
        dims = a[names[0]].ndim
        if any(isinstance(a.get(k), Tensor) and a[k].ndim != dims for k in names):
            return NotImplemented
        return _folded(dims - 1 if dims == single else dims - 2, *names)(frame, func, a)

    return on


bound_rule("nn.interpolate")(_images(0, "input"))
bound_rule("nn.grid_sample")(_images(0, "input", "grid"))
bound_rule("nn.unfold")(_images(3, "input"))
bound_rule("nn.fold")(_images(2, "input"))


@bound_rule("nn.pad", "constant_pad_nd")
def _pad(frame, func, a):
    x, mode = a["input"], a.get("mode", "constant")
    if mode == "constant":
        if len(a["pad"]) > 2 * x.ndim:
            raise RuntimeError("Length of pad should be no more than twice the number of dimensions of the input.")
        return frame.wrap(func(x._batched_value, **{k: v for k, v in a.items() if k != "input"}))
    dims = len(a["pad"]) // 2
    return _folded(dims, "input")(frame, func, a)


def _affine(out, weight, bias, shape):
    if weight is not None:
        out = out * weight.reshape(shape)
    return out if bias is None else out + bias.reshape(shape)


@bound_rule("nn.layer_norm", "layer_norm", "nn.rms_norm", "rms_norm")
def _layer_norm(frame, func, a):
    x, w, b, shape = a["input"], a.get("weight"), a.get("bias"), a["normalized_shape"]
    rest = {k: a[k] for k in ("eps",) if k in a}
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if not frame.is_batched(w) and not frame.is_batched(b):
        more = {k: a[k] for k in ("weight", "bias") if k in a}
        return frame.wrap(func(x._batched_value, shape, **more, **rest))
    return _affine(func(x, shape, **rest), w, b, shape)


@bound_rule("nn.group_norm", "group_norm")
def _group_norm(frame, func, a):
    x, w, b = a["input"], a.get("weight"), a.get("bias")
    rest = {k: a[k] for k in ("eps",) if k in a}
    if frame.is_batched(x):
        v = x._batched_value
        out = func(v.flatten(0, 1), a["num_groups"], **rest).unflatten(0, (frame.size, v.shape[1]))
        out = frame.wrap(out)
    else:
        out = func(x, a["num_groups"], **rest)
    return _affine(out, w, b, (-1,) + (1,) * (x.ndim - 2))


@bound_rule("nn.instance_norm", "instance_norm")
def _instance_norm(frame, func, a):
    x, w, b = a["input"], a.get("weight"), a.get("bias")
    if a.get("running_mean") is not None or a.get("running_var") is not None or not frame.is_batched(x):
        return NotImplemented
    v = x._batched_value
    rest = {k: a[k] for k in ("use_input_stats", "eps", "momentum") if k in a}
    out = func(v.flatten(0, 1), **rest).unflatten(0, (frame.size, v.shape[1]))
    return _affine(frame.wrap(out), w, b, (-1,) + (1,) * (x.ndim - 2))


@bound_rule("nn.batch_norm", "batch_norm")
def _batch_norm(frame, func, a):
    x, w, b = a["input"], a.get("weight"), a.get("bias")
    mean, var, n = a.get("running_mean"), a.get("running_var"), frame.size
    training = a.get("training", False)
    shape = (-1,) + (1,) * (x.ndim - 2)
    if not training:
        scale = (var + a.get("eps", 1e-5)).rsqrt()
        return _affine((x - mean.reshape(shape)) * scale.reshape(shape), w, b, shape)
    stats = [t for t in (mean, var) if t is not None]
    if any(not frame.is_batched(t) for t in stats):
        raise RuntimeError(
            "Batch norm got a batched tensor as input while the running_mean or running_var, which will be updated in place, "
            "were not batched. If you are using a module and do not need eval mode, please set `track_running_stats` to be "
            "False. If you are using a prebuilt module and do not need eval mode, please see torch.func.replace_all_batch_norm"
            "_modules_"
        )
    # Every sample's channels are channels of one larger batch.
    v = frame.full(x).movedim(0, 1)
    kw = {k: a[k] for k in ("momentum", "eps") if k in a}
    flat = [t._batched_value.reshape(-1) for t in stats]
    running = dict(zip([k for k, t in (("running_mean", mean), ("running_var", var)) if t is not None], flat))
    from ..nn.functional import batch_norm

    out = batch_norm(v.flatten(1, 2), running.get("running_mean"), running.get("running_var"), training=True, **kw)
    for t, f in zip(stats, flat):
        t._batched_value.copy_(f.reshape(t._batched_value.shape))
    out = out.unflatten(1, (n, v.shape[2])).movedim(1, 0)
    return _affine(frame.wrap(out), w, b, shape)


# ---- losses -----------------------------------------------------------------------------------------


def _reduced(loss, reduction):
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


def _elementwise_loss(*names):
    """Losses of one element each: computed without reduction, then reduced over the sample."""

    def loss(frame, func, a):
        from .pointwise import elementwise

        reduction = a.get("reduction", "mean")
        kw = {k: v for k, v in a.items() if k != "reduction"}
        tensors = [kw.pop(k) for k in names if isinstance(kw.get(k), Tensor)]
        if any(isinstance(v, Tensor) for v in kw.values()):
            return NotImplemented
        out = elementwise(frame, func, tensors, {**kw, "reduction": "none"})
        if reduction == "batchmean":
            return out.sum() / max(a[names[0]].shape[0], 1)
        return _reduced(out, reduction)

    return loss


bound_rule("nn.mse_loss", "nn.l1_loss", "nn.smooth_l1_loss", "nn.huber_loss", "nn.kl_div", "nn.soft_margin_loss")(
    _elementwise_loss("input", "target")
)


@bound_rule("nn.binary_cross_entropy", "nn.binary_cross_entropy_with_logits")
def _bce(frame, func, a):
    x, t = a["input"], a["target"]
    reduction = a.get("reduction", "mean")
    w, p = a.get("weight"), a.get("pos_weight")
    if p is not None:
        # -(p t log s(x) + (1 - t) log(1 - s(x)))
        out = (1 - t) * x + (1 + (p - 1) * t) * _C._nn.softplus(-x) if hasattr(_C._nn, "softplus") else None
        if out is None:
            return NotImplemented
    else:
        out = frame.wrap(func(frame.full(x), frame.full(t), reduction="none"))
    if w is not None:
        out = out * w
    return _reduced(out, reduction)


@bound_rule("nn.nll_loss", "nn.cross_entropy")
def _classes(frame, func, a):
    x, t, w = a["input"], a["target"], a.get("weight")
    reduction, ignore = a.get("reduction", "mean"), a.get("ignore_index", -100)
    if frame.is_batched(w) or t.dtype.is_floating_point or a.get("label_smoothing", 0.0):
        return NotImplemented
    n = frame.size
    v, c = frame.full(x), frame.full(t)
    if x.ndim == 1:
        out = func(v, c, w, ignore_index=ignore, reduction="none")
    else:
        out = func(v.flatten(0, 1), c.flatten(0, 1), w, ignore_index=ignore, reduction="none")
        out = out.unflatten(0, (n, x.shape[0]))
    out = frame.wrap(out)
    if reduction != "mean":
        return _reduced(out, reduction)
    valid = frame.wrap(c) != ignore
    if w is None:
        weights = valid.to(x.dtype)
    else:
        weights = _C.where(valid, w[_C.where(valid, frame.wrap(c), 0)], 0.0)
    return out.sum() / weights.sum()
