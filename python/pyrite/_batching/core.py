"""Tensors with a hidden batch dimension, and how a call that gets one is answered.

A :class:`BatchedTensor` shows one sample's shape and holds the whole batch (dimension 0 of ``_batched_value``). Calls
on it arrive through ``__torch_function__``, one level at a time, innermost first: a rule says what the call means for
the batch, in operations that may themselves be batched at outer levels. What has no rule runs sample by sample.
"""

import threading

from .. import _C
from .signature import REGISTRY

Tensor = _C.Tensor

_local = threading.local()


def frames():
    """The open vmaps of this thread, outermost first."""
    stack = getattr(_local, "stack", None)
    if stack is None:
        stack = _local.stack = []
    return stack


_next_level = [0]


class Frame:
    """One vmap while its function runs."""

    __slots__ = ("level", "randomness", "size")

    def __init__(self, size, randomness="error"):
        _next_level[0] += 1
        self.level, self.size, self.randomness = _next_level[0], size, randomness

    def __enter__(self):
        frames().append(self)
        from .random import handler

        _C._push_mode(handler(self), True)
        return self

    def __exit__(self, *exc):
        _C._pop_mode()
        frames().pop()

    def is_batched(self, x):
        return isinstance(x, BatchedTensor) and x._level == self.level

    def full(self, x):
        """The batch of ``x``, made by repeating it (a view) if it has none."""
        if isinstance(x, BatchedTensor) and x._level == self.level:
            return x._batched_value
        return x.expand((self.size, *x.shape))

    def wrap(self, out):
        """Tensors whose dimension 0 is the batch, as batched tensors."""
        if isinstance(out, Tensor):
            return BatchedTensor._make(out, self.level)
        if isinstance(out, tuple):
            items = [self.wrap(x) for x in out]
            return type(out)(*items) if hasattr(out, "_fields") else tuple(items)
        if isinstance(out, list):
            return [self.wrap(x) for x in out]
        return out


def _frame_of(level):
    for f in reversed(frames()):
        if f.level == level:
            return f
    raise RuntimeError(
        "vmap: a tensor that belongs to a finished vmap is used. Return it from the vmapped function instead of storing it."
    )


class BatchedTensor(Tensor):
    """See the module's text; ``tensor.py`` adds the methods that the registry does not know."""

    # Counted one by one: calls are looked at while any exists.
    _counted = True

    @staticmethod
    def _make(value, level):
        t = _C._make_batched(BatchedTensor, value)
        t._level = level
        return t

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return call(func, args, kwargs or {})


def highest(values):
    """The innermost level among values (tuples and lists are looked into); 0 if nothing is batched."""
    level = 0
    for v in values:
        if isinstance(v, BatchedTensor):
            if v._level > level:
                level = v._level
        elif type(v) in (list, tuple):
            level = max(level, highest(v))
    return level


# Key ("softmax", "nn.softmax") -> rule(frame, func, args, kwargs).
RULES = {}
# Key -> rule(frame, func, bound arguments); used where the signature fits.
BOUND_RULES = {}
_KEYS = {}
_DUNDERS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "pow", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge",
    "eq": "eq", "ne": "ne", "neg": "neg", "abs": "abs", "invert": "bitwise_not",
}  # fmt: skip


def rule(*keys):
    """Decorator: the rule of registry entries, taking their arguments as they were given."""

    def add(f):
        for k in keys:
            RULES[k] = f
        return f

    return add


def bound_rule(*keys):
    """Decorator: as :func:`rule`, with the arguments by name."""

    def add(f):
        for k in keys:
            BOUND_RULES[k] = f
        return f

    return add


def key_of(func):
    """The registry key of a function, a method or a property's getter; None for anything else."""
    if not _KEYS:
        methods = vars(Tensor)
        # A method is the top level's function before it is that of a namespace (`norm` of linalg has other names).
        for key, (_, _, _, namespace) in sorted(REGISTRY.items(), key=lambda item: bool(item[1][3])):
            name = key.rpartition(".")[2]
            module = getattr(_C, "_" + namespace, None) if namespace else _C
            f = getattr(module, name, None)
            if f is not None:
                _KEYS[f] = key
            m = methods.get(name)
            m = m.fget if isinstance(m, property) else m
            if m is not None and (not namespace or m not in _KEYS):
                _KEYS.setdefault(m, key)
    try:
        return _KEYS.get(func)
    except TypeError:
        return None


def call(func, args, kwargs):
    """Answers a call that got batched tensors."""
    name = getattr(func, "__name__", "")
    if name.startswith("__") and name.endswith("__"):
        return _operator(func, name[2:-2], args)
    if kwargs.get("out") is not None:
        return _into(func, args, kwargs)
    frame = _frame_of(highest(args) or highest(kwargs.values()))
    key = key_of(func)
    f = RULES.get(key)
    if f is not None:
        return f(frame, func, args, kwargs)
    entry = REGISTRY.get(key)
    f = BOUND_RULES.get(key)
    if f is None and entry is not None and entry[0] != key.rpartition(".")[2]:
        # An alias has the rule of what it stands for.
        canonical = f"{entry[3]}.{entry[0]}" if entry[3] else entry[0]
        f = RULES.get(canonical)
        if f is not None:
            return f(frame, func, args, kwargs)
        f = BOUND_RULES.get(canonical)
    if f is not None:
        bound = entry[1].bind(args, kwargs)
        if bound is not None:
            result = f(frame, func, bound)
            if result is not NotImplemented:
                return result
    elif entry is not None:
        if entry[2] is not None:
            from .pointwise import elementwise

            return elementwise(frame, func, args, kwargs)
        if key.endswith("_"):
            return _in_place(frame, key, func, args, kwargs)
    return loop(frame, func, args, kwargs)


def _operator(func, name, args):
    if name in ("getitem", "setitem"):
        from . import index

        return getattr(index, name)(*args)
    if name in _DUNDERS:
        return getattr(Tensor, _DUNDERS[name])(*args) if name != "matmul" else _C.matmul(*args)
    if name[0] == "r" and name[1:] in _DUNDERS:
        return _swapped(_DUNDERS[name[1:]], *args)
    if name[0] == "i" and name[1:] in _DUNDERS:
        return getattr(Tensor, _DUNDERS[name[1:]] + "_")(*args)
    frame = _frame_of(highest(args))
    return loop(frame, func, args, {})


def _swapped(name, x, other):
    """``other op x`` where ``other`` may be a number."""
    if isinstance(other, Tensor):
        return getattr(_C, name)(other, x)
    if name == "sub":
        return _C.rsub(x, other)
    if name == "div":
        return x.reciprocal() * other if x.is_floating_point() or x.is_complex() else _C.true_divide(_like(other, x), x)
    if name in ("add", "mul", "bitwise_and", "bitwise_or", "bitwise_xor"):
        return getattr(_C, name)(x, other)
    return getattr(_C, name)(_like(other, x), x)


def _like(number, x):
    """A number as a tensor that promotes as the number would."""
    if isinstance(number, bool):
        return _C.tensor(number)
    if isinstance(number, int):
        return _C.tensor(number, dtype=_C.int64 if x.dtype == _C.bool else x.dtype)
    if isinstance(number, float):
        return _C.tensor(number, dtype=x.dtype if x.is_floating_point() or x.is_complex() else None)
    return _C.tensor(number)


def unbatched_write(name):
    return RuntimeError(
        f"vmap: inplace arithmetic(self, *extra_args) is not possible because there exists a Tensor `other` in "
        f"extra_args that has more elements than `self`. This happened due to `other` being vmapped over but `self` not "
        f"being vmapped over in a vmap. Please try to use out-of-place operators instead of inplace arithmetic. ({name})"
    )


def _in_place(frame, key, func, args, kwargs):
    """An in-place form by its out-of-place one, if there is one."""
    target = args[0] if args else kwargs.get("input")
    plain = key[:-1]
    name = plain.rpartition(".")[2]
    f = vars(Tensor).get(name) or getattr(_C, name, None)
    if f is None or plain not in REGISTRY:
        return loop(frame, func, args, kwargs)
    if not frame.is_batched(target):
        raise unbatched_write(name + "_")
    target.copy_(f(*args, **kwargs))
    return target


def _into(func, args, kwargs):
    out = kwargs["out"]
    result = func(*args, **{k: v for k, v in kwargs.items() if k != "out"})
    many = isinstance(out, (tuple, list))
    for o, r in zip(out if many else (out,), result if many else (result,)):
        if isinstance(r, BatchedTensor) and not (isinstance(o, BatchedTensor) and o._level >= r._level):
            raise unbatched_write(getattr(func, "__name__", "out=") + "(out=...)")
        o.copy_(r)
    return out


def map_tensors(f, value):
    """``f`` on every tensor in nested tuples and lists."""
    if isinstance(value, Tensor):
        return f(value)
    if type(value) in (list, tuple):
        return type(value)(map_tensors(f, v) for v in value)
    return value


# Names of the functions that ran sample by sample, for tests and the curious.
looped = set()


def loop(frame, func, args, kwargs):
    """The call for each sample, results stacked: right for everything, fast for nothing."""
    looped.add(key_of(func) or getattr(func, "__name__", "?"))
    if frame.size == 0:
        raise RuntimeError(f"vmap: {getattr(func, '__name__', func)} of a batch of no samples is not supported")
    results = []
    target = args[0] if args else None
    for i in range(frame.size):
        sample = lambda t, i=i: t._batched_value.select(0, i) if frame.is_batched(t) else t  # noqa: E731
        a = map_tensors(sample, tuple(args))
        r = func(*a, **{k: map_tensors(sample, v) for k, v in kwargs.items()})
        if r is a[0] if a else False:
            # Written in place through the view.
            if not frame.is_batched(target):
                raise unbatched_write(getattr(func, "__name__", "?"))
            r = target
        results.append(r)
    return _stack(frame, func, results)


def _stack(frame, func, results):
    first = results[0]
    if isinstance(first, Tensor):
        if frame.is_batched(first):
            return first
        if any(tuple(r.shape) != tuple(first.shape) for r in results):
            raise RuntimeError(
                f"vmap: {getattr(func, '__name__', func)} gives results of different shapes for different samples "
                f"({tuple(first.shape)} and others), which can't be put into one tensor: the shape depends on the data."
            )
        return frame.wrap(_C.stack(results))
    if isinstance(first, (tuple, list)):
        columns = [_stack(frame, func, list(c)) for c in zip(*results)]
        return type(first)(*columns) if hasattr(first, "_fields") else type(first)(columns)
    if any(r != first for r in results):
        raise RuntimeError(
            f"vmap: {getattr(func, '__name__', func)} gives different Python values for different samples; only tensors "
            "can hold several values."
        )
    return first


def by_loop():
    """The registry entries that take tensors and have no rule: they run sample by sample."""
    from .random import DRAWING

    covered = set(RULES) | set(BOUND_RULES) | {k for k, v in REGISTRY.items() if v[2] is not None}
    names = set()
    for key, (canonical, signatures, _, namespace) in REGISTRY.items():
        stem = key[:-1] if key.endswith("_") else key
        plain = stem.rpartition(".")[2].removesuffix("_like")
        takes = any("Tensor" in t or "Operand" in t for t in signatures.texts)
        alias = f"{namespace}.{canonical}" if namespace else canonical
        if takes and key not in covered and stem not in covered and alias not in covered and plain not in DRAWING:
            names.add(alias)
    return names
