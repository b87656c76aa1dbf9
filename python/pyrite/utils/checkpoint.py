"""Checkpointing: forward without keeping what backward needs, which is computed again when it is asked for.

The default variant (``use_reentrant=False``) records the graph as always, but in place of each saved tensor it keeps a
number; the first of them that backward asks for runs the function again, under the random state it had, and fills in
all. It works with every way of running backward, nested, and for higher derivatives. The re-entrant variant records one
node for the whole function and runs a backward of its own inside it.
"""

import contextlib
import enum
import warnings

from .. import _C
from ..autograd import backward as _backward
from ..autograd.function import Function
from ..autograd.grad_mode import enable_grad, no_grad
from ..autograd.graph import saved_tensors_hooks
from ..random import fork_rng

__all__ = [
    "CheckpointError",
    "CheckpointPolicy",
    "SelectiveCheckpointContext",
    "checkpoint",
    "checkpoint_sequential",
    "create_selective_checkpoint_contexts",
    "set_checkpoint_debug_enabled",
    "set_checkpoint_early_stop",
]

Tensor = _C.Tensor


class CheckpointError(RuntimeError):
    """The function did something else when it ran again."""


_early_stop = [None]
_debug = [None]


@contextlib.contextmanager
def _switch(cell, value):
    before, cell[0] = cell[0], value
    try:
        yield
    finally:
        cell[0] = before


def set_checkpoint_early_stop(enable):
    """Context manager: False runs the functions checkpointed inside to their end again, even where everything needed is
    there earlier. Overrides the ``early_stop`` argument of :func:`checkpoint`."""
    return _switch(_early_stop, bool(enable))


def set_checkpoint_debug_enabled(enabled):
    """Context manager: overrides the ``debug`` argument of :func:`checkpoint` (None: leaves it)."""
    return _switch(_debug, None if enabled is None else bool(enabled))


def noop_context_fn():
    return contextlib.nullcontext(), contextlib.nullcontext()


class _Stop(Exception):
    """Ends a recomputation that has all it needs."""

    def __init__(self, frame):
        super().__init__("recomputation is done")
        self.frame = frame


class _RandomState:
    """The random state at the start of the function."""

    def __init__(self):
        from .. import cuda

        self.cpu = _C.get_rng_state()
        self.cuda = {d: cuda.get_rng_state(d) for d in range(cuda.device_count())} if cuda.is_initialized() else {}

    @contextlib.contextmanager
    def again(self):
        with fork_rng(devices=list(self.cuda)):
            _C.set_rng_state(self.cpu)
            if self.cuda:
                from .. import cuda

                for d, s in self.cuda.items():
                    cuda.set_rng_state(s, d)
            yield


def _meta(t):
    return tuple(t.shape), t.dtype, t.device


class _Keep(Function):
    """Holds tensors as a graph holds them: with their history, and with the values they have now."""

    @staticmethod
    def forward(ctx, anchor, *tensors):
        ctx.save_for_backward(*tensors)
        return anchor.clone()

    @staticmethod
    def backward(ctx, g):
        return (g, *[None] * (len(ctx.needs_input_grad) - 1))


class _Arguments:
    """The arguments of the function; tensors in them by :class:`_Keep`."""

    def __init__(self, args, kwargs):
        from ._pytree import tree_flatten

        self.leaves, self.spec = tree_flatten((args, kwargs))
        self.places = [i for i, x in enumerate(self.leaves) if isinstance(x, Tensor)]
        tensors = [self.leaves[i] for i in self.places]
        self.leaves = [None if isinstance(x, Tensor) else x for x in self.leaves]
        self.needs = [t.requires_grad for t in tensors]
        with enable_grad():
            self.node = _Keep.apply(_C.zeros(0, requires_grad=True), *tensors)

    def again(self):
        from ._pytree import tree_unflatten

        leaves = list(self.leaves)
        with enable_grad():
            tensors = self.node.grad_fn.saved_tensors
        for i, t, needs in zip(self.places, tensors, self.needs):
            if t.requires_grad and not t.is_leaf:
                # The recomputed graph is only there to be asked what it saves: it ends at the arguments.
                t = t.detach().requires_grad_()
            elif needs and not t.requires_grad:
                t = t.detach().requires_grad_()
            leaves[i] = t
        return tree_unflatten(leaves, self.spec)


class _Frame:
    """One checkpointed call."""

    def __init__(self, function, args, kwargs, preserve, determinism, debug, early_stop, contexts):
        self.function = function
        self.arguments = _Arguments(args, kwargs)
        self.random = _RandomState() if preserve else None
        self.determinism, self.debug, self.early_stop = determinism, debug, early_stop
        self.forward_context, self.recompute_context = contexts
        self.metas = []  # of every tensor saved by the forward run, in order
        self.kept = {}  # those that are not computed again
        self.recomputed = {}  # id of the backward -> {number: tensor}
        self.log = ([], [])
        self.count = 0

    def pack(self, t):
        self.metas.append(_meta(t))
        return len(self.metas) - 1

    def unpack(self, number):
        if number in self.kept:
            return self.kept[number]
        run = _C._backward_id()
        values = self.recomputed.get(run)
        if values is None or number not in values:
            for old in [r for r in self.recomputed if r != run]:
                # Of a backward that is over, or goes on elsewhere: it may ask again.
                del self.recomputed[old]
            values = self.recomputed[run] = self.recompute()
        return values.pop(number)

    def recompute(self):
        values = {}
        self.count = 0
        self.log[1].clear()

        def pack(t):
            number = self.count
            self.store(values, number, t)
            return number

        args, kwargs = self.arguments.again()
        try:
            with contextlib.ExitStack() as stack:
                if self.random is not None:
                    stack.enter_context(self.random.again())
                stack.enter_context(enable_grad())
                stack.enter_context(self.recompute_context)
                if self.debug:
                    stack.enter_context(_logged(self.log[1]))
                stack.enter_context(_running(self, values))
                stack.enter_context(saved_tensors_hooks(pack, values.__getitem__))
                self.function(*args, **kwargs)
        except _Stop as stop:
            if stop.frame is not self:
                raise
        self.check(values)
        return values

    def store(self, values, number, t):
        """What the recomputation saved, if the forward run saved as much."""
        self.count += 1
        if number >= len(self.metas):
            if self.early_stop:
                # Everything is there already; the stop is on its way through an operation that saves more, or through
                # a backward that is recorded.
                raise _Stop(self)
            if self.determinism == "none":
                return
            self.fail(
                "torch.utils.checkpoint: trying to save more tensors during recomputation than during the original "
                "forward pass."
            )
        values[number] = t.detach()
        if self.count == len(self.metas) and self.early_stop:
            raise _Stop(self)

    def check(self, values):
        if self.count != len(self.metas) and self.determinism != "none":
            self.fail(
                "torch.utils.checkpoint: A different number of tensors was saved during the original forward and "
                f"recomputation.\nNumber of tensors saved during forward: {len(self.metas)}\n"
                f"Number of tensors saved during recomputation: {self.count}."
            )
        if self.determinism == "none":
            return
        wrong = [
            f"tensor at position {i}:\nsaved metadata: {_show(m)}\nrecomputed metadata: {_show(_meta(values[i]))}"
            for i, m in enumerate(self.metas)
            if i in values and _meta(values[i]) != m
        ]
        if wrong:
            self.fail(
                "torch.utils.checkpoint: Recomputed values for the following tensors have different metadata than during "
                "the forward pass.\n" + "\n".join(wrong)
            )

    def fail(self, message):
        if self.debug:
            parts = zip(("Operations of the original forward pass:", "Operations of the recomputation:"), self.log)
            message += "\n\n" + "\n\n".join(title + "\n  " + "\n  ".join(ops) for title, ops in parts)
        else:
            message += (
                "\nTip: pass `debug=True` to torch.utils.checkpoint.checkpoint(...) or wrap the code in `with "
                "torch.utils.checkpoint.set_checkpoint_debug_enabled(True):` to see the operations of both runs."
            )
        raise CheckpointError(message)


def _show(meta):
    return {"shape": list(meta[0]), "dtype": meta[1], "device": meta[2]}


_stack = []


@contextlib.contextmanager
def _running(frame, values):
    """Tells selective contexts which call is running; `values` is None in the forward run."""
    _stack.append((frame, values))
    try:
        yield
    finally:
        _stack.pop()


@contextlib.contextmanager
def _mode(handler):
    _C._push_mode(handler, False)
    try:
        yield
    finally:
        _C._pop_mode()


def _describe(value):
    if isinstance(value, Tensor):
        return f"{value.dtype}{list(value.shape)}"
    if type(value) in (list, tuple):
        return "[" + ", ".join(map(_describe, value)) + "]"
    return repr(value)


def _logged(log):
    def handler(func, types, args, kwargs):
        log.append(f"{func.__name__}({', '.join(map(_describe, args))})")
        return func(*args, **kwargs)

    return _mode(handler)


def checkpoint(
    function,
    *args,
    use_reentrant=None,
    context_fn=noop_context_fn,
    determinism_check="default",
    debug=False,
    early_stop=True,
    **kwargs,
):
    """Runs ``function(*args, **kwargs)`` without keeping what its backward needs; backward runs it again.

    Args:
        use_reentrant: False (recommended) or True; the module's text says how they differ. To be passed explicitly.
        preserve_rng_state: the second run draws the same random numbers (default True).
        context_fn: returns two context managers, for the first and the second run.
        determinism_check: "default" compares shapes, dtypes and devices of both runs; "none" compares nothing.
        debug: errors list the operations of both runs.
        early_stop: the second run ends when everything needed is there.

    Raises CheckpointError (in backward) if the two runs differ, ValueError for arguments that do not fit together.

    >>> import pyrite as torch
    >>> from pyrite.utils.checkpoint import checkpoint
    >>> x = torch.ones(2, requires_grad=True)
    >>> checkpoint(lambda t: t.exp().sum(), x, use_reentrant=False).backward()
    >>> bool((x.grad == x.detach().exp()).all())
    True
    """
    if use_reentrant is None:
        warnings.warn(
            "torch.utils.checkpoint: the use_reentrant parameter should be passed explicitly. use_reentrant=False is "
            "recommended; without it, use_reentrant=True is taken.",
            stacklevel=2,
        )
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if use_reentrant:
        if kwargs:
            raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
        if context_fn is not noop_context_fn or debug is not False:
            raise ValueError("Passing `context_fn` or `debug` is only supported when use_reentrant=False.")
        return _Reentrant.apply(function, preserve, *args)
    if determinism_check not in ("default", "none"):
        raise ValueError(f"determinism_check should be one of ['default', 'none'], but got {determinism_check}")
    if not _C.is_grad_enabled():
        return function(*args, **kwargs)
    debug = debug if _debug[0] is None else _debug[0]
    early_stop = early_stop if _early_stop[0] is None else _early_stop[0]
    frame = _Frame(function, args, kwargs, preserve, determinism_check, debug, early_stop, context_fn())
    with contextlib.ExitStack() as stack:
        stack.enter_context(frame.forward_context)
        if debug:
            stack.enter_context(_logged(frame.log[0]))
        stack.enter_context(_running(frame, None))
        stack.enter_context(saved_tensors_hooks(frame.pack, frame.unpack))
        return function(*args, **kwargs)


class _Reentrant(Function):
    """The whole function as one node."""

    @staticmethod
    def forward(ctx, function, preserve, *args):
        ctx.function = function
        ctx.random = _RandomState() if preserve else None
        ctx.places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        ctx.args = [None if isinstance(a, Tensor) else a for a in args]
        ctx.save_for_backward(*[a for a in args if isinstance(a, Tensor)])
        if not any(isinstance(a, Tensor) and a.requires_grad for a in args):
            warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=3)
        with no_grad():
            return function(*args)

    @staticmethod
    def backward(ctx, *grads):
        if _C._backward_is_partial():
            # The backward inside would fill .grad of whatever the function uses, which nobody asked for.
            raise RuntimeError(
                "When use_reentrant=True, torch.utils.checkpoint is incompatible with .grad() or passing an `inputs` "
                "parameter to .backward(): use checkpoint(..., use_reentrant=False), or call .backward() without `inputs`."
            )
        args = list(ctx.args)
        tensors = ctx.saved_tensors
        for i, t in zip(ctx.places, tensors):
            args[i] = t.detach().requires_grad_(t.requires_grad or ctx.needs_input_grad[i + 2])
        with enable_grad(), ctx.random.again() if ctx.random is not None else contextlib.nullcontext():
            outputs = ctx.function(*args)
        outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        pairs = [(o, g) for o, g in zip(outputs, grads) if isinstance(o, Tensor) and o.requires_grad]
        if not pairs:
            raise RuntimeError("none of output has requires_grad=True, this checkpoint() is not necessary")
        _backward([o for o, _ in pairs], [g for _, g in pairs])
        return (None, None, *[a.grad if isinstance(a, Tensor) else None for a in args])


def checkpoint_sequential(functions, segments, input, use_reentrant=None, **kwargs):
    """Runs a :class:`~pyrite.nn.Sequential` (or a list of modules) in ``segments`` parts, each but the last checkpointed.

    >>> import pyrite as torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> x = torch.ones(1, 2, requires_grad=True)
    >>> y = torch.utils.checkpoint.checkpoint_sequential(net, 2, x, use_reentrant=False)
    >>> tuple(y.shape)
    (1, 1)
    """
    if use_reentrant is None:
        warnings.warn(
            "torch.utils.checkpoint.checkpoint_sequential: the use_reentrant parameter should be passed explicitly. "
            "use_reentrant=False is recommended; without it, use_reentrant=True is taken.",
            stacklevel=2,
        )
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    modules = list(functions.children()) if hasattr(functions, "children") else list(functions)
    if not isinstance(segments, int) or segments < 1:
        raise ValueError(f"checkpoint_sequential: segments must be a positive int, got {segments!r}")
    size = len(modules) // segments

    def run(start, end):
        def forward(value):
            for m in modules[start:end]:
                value = m(value)
            return value

        return forward

    end = 0
    for i in range(segments - 1):
        start, end = i * size, (i + 1) * size
        if start < end:
            input = checkpoint(run(start, end), input, use_reentrant=use_reentrant, preserve_rng_state=preserve)
    return run(end, len(modules))(input)


# ---- selective --------------------------------------------------------------------------------------------


class CheckpointPolicy(enum.Enum):
    """What to do with the result of an operation in a checkpointed function."""

    MUST_SAVE = 0
    PREFER_SAVE = 1
    MUST_RECOMPUTE = 2
    PREFER_RECOMPUTE = 3
    MUST_CPU_OFFLOAD = 4
    PREFER_CPU_OFFLOAD = 5


_SAVES = (CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_SAVE)
_OFFLOADS = (CheckpointPolicy.MUST_CPU_OFFLOAD, CheckpointPolicy.PREFER_CPU_OFFLOAD)


class SelectiveCheckpointContext:
    """What a policy is told besides the operation: in which of the two runs it is asked."""

    def __init__(self, *, is_recompute, op_output=None):
        self.is_recompute = is_recompute
        self.op_output = op_output


_OPERATORS = {"truediv": "div", "floordiv": "floor_divide", "mod": "remainder"}


def _function_of(func):
    """An operator or a method as the function of the same name."""
    name = func.__name__
    if name.startswith("__"):
        name = name.strip("_")
        for candidate in (name, name[1:]):
            found = getattr(_C, _OPERATORS.get(candidate, candidate), None)
            if found is not None:
                return found
    return (
        getattr(_C, name, None) or getattr(_C._nn, name, func) if type(func).__name__ == "method_descriptor" else func
    )


def _same(a, b):
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype


def _tensors(*values):
    out = []
    for v in values:
        if isinstance(v, Tensor):
            out.append(v)
        elif isinstance(v, (list, tuple)):
            out += _tensors(*v)
        elif isinstance(v, dict):
            out += _tensors(*v.values())
    return out


def create_selective_checkpoint_contexts(policy_fn_or_list, allow_cache_entry_mutation=False):
    """The two contexts of a ``context_fn`` that keeps the results of some operations.

    Args:
        policy_fn_or_list: ``policy(ctx, op, *args, **kwargs)`` returning a :class:`CheckpointPolicy`, or a list of the
            operations whose results are kept. Operations are the library's functions (``torch.mm``); methods and
            operators count as the function of their name.
        allow_cache_entry_mutation: allows in-place writes to what was kept.

    >>> import functools, pyrite as torch
    >>> from pyrite.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
    >>> x = torch.ones(2, 2, requires_grad=True)
    >>> keep = functools.partial(create_selective_checkpoint_contexts, [torch.matmul])
    >>> checkpoint(lambda t: (t @ t).sin().sum(), x, use_reentrant=False, context_fn=keep).backward()
    """
    if isinstance(policy_fn_or_list, (list, tuple)):
        wanted = [_function_of(op) for op in policy_fn_or_list]
        for op in wanted:
            if not callable(op):
                raise ValueError(f"Expected op in `op_list` to be a function of the library but got: {op!r}")

        def policy(ctx, op, *args, **kwargs):
            return CheckpointPolicy.MUST_SAVE if op in wanted else CheckpointPolicy.PREFER_RECOMPUTE
    elif callable(policy_fn_or_list):
        policy = policy_fn_or_list
    else:
        raise TypeError("policy_fn_or_list must be either a function or a list of ops.")

    cache = []
    runs = {"at": 0}

    def decide(recompute, op, args, kwargs, out=None):
        decision = policy(SelectiveCheckpointContext(is_recompute=recompute, op_output=out), op, *args, **kwargs)
        if isinstance(decision, bool):
            return _SAVES[0] if decision else CheckpointPolicy.PREFER_RECOMPUTE
        return decision

    def forward(func, types, args, kwargs):
        op = _function_of(func)
        frame = _stack[-1][0]
        first = len(frame.metas)
        saved = []
        with saved_tensors_hooks(lambda t: saved.append(t) or frame.pack(t), frame.unpack):
            out = func(*args, **kwargs)
        decision = decide(False, op, args, kwargs, out)
        if decision in _SAVES or decision in _OFFLOADS:
            outs, ins = _tensors(out), _tensors(args, kwargs)
            keep = (lambda t: t.detach().cpu()) if decision in _OFFLOADS else (lambda t: t.detach())
            places = []
            for i, t in enumerate(saved):
                # What the operation saved is one of its arguments or results, or something of its own.
                place = next((("in", k) for k, x in enumerate(ins) if _same(x, t)), None)
                place = place or next((("out", k) for k, x in enumerate(outs) if _same(x, t)), None)
                if place is None:
                    frame.kept[first + i] = t.detach()
                places.append(place)
            cache.append((op, out, [(keep(o), o._version, o.requires_grad, o.device) for o in outs], places))
        return out

    def recompute(func, types, args, kwargs):
        op = _function_of(func)
        frame, values = _stack[-1]
        if frame.count == 0:
            runs["at"] = 0
        decision = decide(True, op, args, kwargs)
        if decision not in _SAVES and decision not in _OFFLOADS:
            return func(*args, **kwargs)
        at = runs["at"]
        if at >= len(cache) or cache[at][0] is not op:
            raise RuntimeError(
                f"{op.__name__}: the operations to keep came in another order when the function ran again: make sure that "
                "the policy is deterministic"
            )
        runs["at"] += 1
        _, shape, kept, places = cache[at]
        outs = []
        for t, version, needs, device in kept:
            if not allow_cache_entry_mutation and t._version != version and t.device == device:
                raise RuntimeError("Tensor cached during selective activation checkpoint has been mutated")
            outs.append(t.to(device).detach().requires_grad_(needs))
        ins = _tensors(args, kwargs)
        for place in places:
            t = None if place is None else (ins if place[0] == "in" else outs)[place[1]]
            frame.store(values, frame.count, frame.kept[frame.count] if t is None else t)
        rest = iter(outs)
        if isinstance(shape, Tensor):
            return outs[0]
        made = [next(rest) if isinstance(x, Tensor) else x for x in shape]
        return type(shape)(*made) if hasattr(shape, "_fields") else type(shape)(made)

    return _mode(forward), _mode(recompute)
