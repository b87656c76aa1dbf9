"""Gradients of batched tensors, transforms' arguments, and custom functions."""

from typing import NamedTuple

from .. import _C
from .core import BatchedTensor, Frame, _frame_of, frames, highest, map_tensors

Tensor = _C.Tensor


class VmapInfo(NamedTuple):
    """What `autograd.Function.vmap` is told."""

    batch_size: int
    randomness: str


def together(f, *tensors):
    """``f`` on the batches of tensors of the same sample shape, made as large as the innermost level of any."""
    level = highest(tensors)
    if not level:
        return f(*tensors)
    frame = _frame_of(level)
    return frame.wrap(together(f, *(frame.full(t) for t in tensors)))


def physical(f, x):
    """``f`` on the tensor under all levels of ``x``, levels kept."""
    if isinstance(x, BatchedTensor):
        return BatchedTensor._make(physical(f, x._batched_value), x._level)
    return f(x)


def at_all_levels(x):
    """``x`` with a batch at every open level: per-sample gradients are gradients of per-sample values."""

    def build(t, levels):
        if not levels:
            return t
        frame = levels[-1]
        return BatchedTensor._make(build(frame.full(t), levels[:-1]), frame.level)

    return build(x, frames())


def bottom(x):
    while isinstance(x, BatchedTensor):
        x = x._batched_value
    return x


def grad(outputs, inputs, grad_outputs, options, run):
    """`autograd.grad` where a tensor is batched; ``run`` is the function itself, for the batches."""
    level = highest((outputs, inputs, grad_outputs))
    frame = _frame_of(level)
    if options.get("is_grads_batched"):
        return _many(frame, outputs, inputs, grad_outputs, options, run)
    outs, seeds = [], []
    for out, g in zip(outputs, grad_outputs):
        if g is None and out.numel() != 1:
            raise RuntimeError("grad can be implicitly created only for scalar outputs")
        outs.append(out)
        seeds.append(_C.ones_like(out, requires_grad=False) if g is None else g)
    batched_out = [frame.is_batched(o) for o in outs]
    inside = all(frame.is_batched(x) for x in inputs)
    values = tuple(x._batched_value if frame.is_batched(x) else x for x in inputs)
    if inside and all(batched_out):
        got = run([o._batched_value for o in outs], values, [frame.full(g) for g in seeds], **options)
        return tuple(None if g is None else frame.wrap(g) for g in got)
    # One pass for each sample: a tensor without this level takes part in all of them.
    keep = {**options, "retain_graph": True}
    rows = []
    for i in range(frame.size):
        o = [x._batched_value if b else x for x, b in zip(outs, batched_out)]
        v = []
        for g, b in zip(seeds, batched_out):
            full = frame.full(g)
            if b:
                only = _C.zeros_like(full)
                only[i] = full[i]
                v.append(only)
            else:
                v.append(full[i])
        got = run(o, values, v, **keep)
        rows.append([None if g is None else (g[i] if frame.is_batched(x) else g) for g, x in zip(got, inputs)])
    return tuple(None if column[0] is None else frame.wrap(_C.stack(column)) for column in zip(*rows))


def _many(frame, outputs, inputs, grad_outputs, options, run):
    """The same for a batch of gradients of every sample."""
    if all(frame.is_batched(t) for t in (*outputs, *inputs)):
        outs, values = ([t._batched_value for t in ts] for ts in (outputs, inputs))
        # The engine's batch lies outside that of the samples.
        got = run(outs, values, [frame.full(g).movedim(1, 0) for g in grad_outputs], **options)
        return tuple(None if g is None else frame.wrap(g.movedim(1, 0)) for g in got)
    one = {**options, "is_grads_batched": False, "retain_graph": True}
    rows = [grad(outputs, inputs, [g[i] for g in grad_outputs], one, run) for i in range(grad_outputs[0].shape[0])]
    return tuple(None if column[0] is None else _C.stack(column) for column in zip(*rows))


# ---- custom functions --------------------------------------------------------------------------------


def apply_function(cls, args):
    """`Function.apply` with batched arguments."""
    from ..autograd.function import Function

    frame = _frame_of(highest(args))
    own_rule = cls.vmap is not Function.vmap
    if own_rule and cls.generate_vmap_rule:
        raise RuntimeError(
            f"You tried to vmap over {cls.__name__}, but it has both generate_vmap_rule=True and an overridden vmap "
            "staticmethod. Please set generate_vmap_rule=False or delete the overridden vmap staticmethod to avoid ambiguity."
        )
    if own_rule:
        return _by_rule(cls, frame, args)
    if cls.generate_vmap_rule:
        return _generated(cls, frame, args)
    from .core import loop

    def apply(*a):
        return cls.apply(*a)

    apply.__name__ = cls.__name__
    return loop(frame, apply, args, {})


def _by_rule(cls, frame, args):
    from ..utils._pytree import broadcast_to, tree_flatten, tree_unflatten

    flat, spec = tree_flatten(args)
    dims = [0 if frame.is_batched(a) else None for a in flat]
    values = [a._batched_value if d == 0 else a for a, d in zip(flat, dims)]
    info = VmapInfo(frame.size, frame.randomness)
    result = cls.vmap(info, tree_unflatten(dims, spec), *tree_unflatten(values, spec))
    if not (isinstance(result, tuple) and len(result) == 2):
        raise RuntimeError(
            f"Expected the vmap staticmethod of {cls.__name__} to return a tuple of two elements: (output, out_dims)."
        )
    out, out_dims = result
    leaves, out_spec = tree_flatten(out)
    places = broadcast_to(out_dims, out_spec)
    if places is None:
        raise RuntimeError(f"{cls.__name__}.vmap: out_dims does not have the structure of the outputs")
    wrapped = [
        o if d is None or not isinstance(o, Tensor) else frame.wrap(o.movedim(d, 0)) for o, d in zip(leaves, places)
    ]
    return tree_unflatten(wrapped, out_spec)


class _Inner:
    """The ctx that the user's class sees while it runs on batched tensors."""

    def __init__(self, needs):
        self.needs_input_grad = needs
        self._to_save = self._to_save_forward = ()
        self._dirty, self._constant, self._materialize = (), (), True
        self._in_jvp = False

    def save_for_backward(self, *tensors):
        self._to_save = tensors

    def save_for_forward(self, *tensors):
        self._to_save_forward = tensors

    def mark_dirty(self, *tensors):
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors):
        self._constant = tensors

    def set_materialize_grads(self, value):
        self._materialize = value

    @property
    def saved_tensors(self):
        return self._unpack(self._in_jvp)


def _generated(cls, frame, args):
    """The class again, run on batches: forward, backward and jvp each under a vmap of their own."""
    from ..autograd.function import Function

    size, randomness = frame.size, frame.randomness
    batched = [frame.is_batched(a) for a in args]

    def wrap(f, t, b):
        return f.wrap(t) if b and isinstance(t, Tensor) else t

    def out_of(f, t):
        """Batch and whether there is one."""
        return (t._batched_value, True) if f.is_batched(t) else (t, False)

    def reduced(f, g, b):
        """The gradient of an input: of a shared one, the sum over the samples."""
        if not isinstance(g, Tensor):
            return g
        if b:
            return f.full(g)
        return g._batched_value.sum(0) if f.is_batched(g) else g * size

    class Batch(Function):
        @staticmethod
        def forward(ctx, *values):
            inner = _Inner(ctx.needs_input_grad)
            with Frame(size, randomness) as f:
                wrapped = tuple(wrap(f, v, b) for v, b in zip(values, batched))
                out = cls._run_forward(inner, wrapped)
                single = not isinstance(out, tuple)
                outs = [out_of(f, o) for o in ((out,) if single else out)]
                constant = [f.full(t) if isinstance(t, Tensor) else t for t in inner._constant]
                same = {id(o): v for o, (v, _) in zip((out,) if single else out, outs)}
                constant = [same.get(id(t), c) for t, c in zip(inner._constant, constant)]
                saved = [out_of(f, t) for t in inner._to_save]
                forward = [out_of(f, t) for t in inner._to_save_forward or ()]
                ctx.set_materialize_grads(inner._materialize)
            ctx.mark_non_differentiable(*[t for t in constant if isinstance(t, Tensor)])
            ctx.save_for_backward(*[t for t, _ in saved])
            ctx.save_for_forward(*[t for t, _ in forward])
            inner._to_save = inner._to_save_forward = inner._constant = ()
            ctx.inner, ctx.flags, ctx.forward_flags = inner, [b for _, b in saved], [b for _, b in forward]
            Batch.out_batched, Batch.single = [b for _, b in outs], single
            ctx.out_batched = Batch.out_batched
            return outs[0][0] if single else tuple(v for v, _ in outs)

        @staticmethod
        def backward(ctx, *gs):
            with Frame(size, randomness) as f:
                values = ctx.saved_tensors
                ctx.inner._unpack = lambda jvp: tuple(wrap(f, t, b) for t, b in zip(values, ctx.flags))
                grads = cls._run_backward(ctx.inner, tuple(wrap(f, g, b) for g, b in zip(gs, ctx.out_batched)))
                grads = grads if isinstance(grads, tuple) else (grads,)
                return tuple(reduced(f, g, b) for g, b in zip(grads, batched))

        @staticmethod
        def jvp(ctx, *ts):
            with Frame(size, randomness) as f:
                saved = ctx.saved_tensors
                flags = ctx.forward_flags if ctx._to_save_forward else ctx.flags
                ctx.inner._unpack = lambda jvp: tuple(wrap(f, t, b) for t, b in zip(saved, flags))
                out = cls._run_jvp(ctx.inner, tuple(wrap(f, t, b) for t, b in zip(ts, batched)))
                return tuple(f.full(t) if isinstance(t, Tensor) and b else t for t, b in zip(out, ctx.out_batched))

        @classmethod
        def _has_jvp(klass):
            return cls._has_jvp()

    Batch.__name__ = Batch.__qualname__ = cls.__name__
    out = Batch.apply(*(a._batched_value if b else a for a, b in zip(args, batched)))
    outs = (out,) if Batch.single else out
    outs = tuple(wrap(frame, o, b) for o, b in zip(outs, Batch.out_batched))
    return outs[0] if Batch.single else outs


__all__ = ["VmapInfo", "apply_function", "at_all_levels", "bottom", "grad", "map_tensors", "physical", "together"]
