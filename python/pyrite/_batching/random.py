"""Random numbers inside vmap: an error, different for each sample, or the same for all."""

from .. import _C
from .core import map_tensors, rule, unbatched_write

Tensor = _C.Tensor

# Functions of sizes: a batch of them is one of a larger size.
_FACTORIES = frozenset(("rand", "randn", "randint"))
# Functions whose samples differ anyway when they run on a batch.
_WHOLE = frozenset(
    (
        "rand_like",
        "randn_like",
        "randint_like",
        "bernoulli",
        "dropout",
        "native_dropout",
        "poisson",
        "rrelu",
        "alpha_dropout",
    )
)

# Everything that draws: what `is_random` of the binding says.
DRAWING = _FACTORIES | frozenset(
    (
        "bernoulli", "binomial", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "normal", "poisson",
        "random", "randperm", "rrelu", "uniform", "dropout", "alpha_dropout", "feature_dropout", "native_dropout",
        "feature_alpha_dropout", "fractional_max_pool2d", "fractional_max_pool3d",
    )
)  # fmt: skip


def _does_draw(func, args, kwargs):
    name = func.__name__
    if name in ("dropout", "dropout_"):
        train = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
        return bool(train)
    if name == "scaled_dot_product_attention":
        return bool(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0))
    if name in ("rrelu", "rrelu_"):
        return bool(kwargs.get("training", args[3] if len(args) > 3 else False))
    return True


def handler(frame):
    """What calls of random functions go to while ``frame`` is the innermost vmap."""

    def handle(func, types, args, kwargs):
        if not _does_draw(func, args, kwargs):
            return NotImplemented
        if frame.randomness == "error":
            raise RuntimeError(
                "vmap: called random operation while in randomness error mode. Please either use the 'same' or 'different' "
                f"randomness flags on vmap or perform the randomness operation out of vmap ({func.__name__})"
            )
        if frame.randomness == "same":
            return _same(frame, func, args, kwargs)
        return _different(frame, func, args, kwargs)

    return handle


def _has_batch(frame, args, kwargs):
    found = []
    map_tensors(lambda t: found.append(frame.is_batched(t)), (*args, *kwargs.values()))
    return any(found)


def _generator_state(kwargs):
    g = kwargs.get("generator") or _C.default_generator
    return g, g.get_state()


def _same(frame, func, args, kwargs):
    if not _has_batch(frame, args, kwargs):
        return func(*args, **kwargs)
    g, state = _generator_state(kwargs)
    results = []
    for i in range(frame.size):
        g.set_state(state)
        results.append(_sample(frame, func, args, kwargs, i))
    return _finish(frame, func, args, results)


def _sample(frame, func, args, kwargs, i):
    pick = lambda t: t._batched_value.select(0, i) if frame.is_batched(t) else t  # noqa: E731
    a = map_tensors(pick, tuple(args))
    r = func(*a, **{k: map_tensors(pick, v) for k, v in kwargs.items()})
    return args[0] if a and r is a[0] else r


def _finish(frame, func, args, results):
    from .core import _stack

    if args and results[0] is args[0]:
        return args[0]
    return _stack(frame, func, results)


def _different(frame, func, args, kwargs):
    name, n = func.__name__, frame.size
    if name in _FACTORIES:
        return frame.wrap(_factory(name, func, args, kwargs, n))
    if name.endswith("_"):
        if not frame.is_batched(args[0]):
            raise RuntimeError(
                "vmap: Cannot ask for different inplace randomness on an unbatched tensor. This will appear like same "
                f"randomness. If this is necessary for your usage, clone the tensor for each sample first. ({name})"
            )
        if not _has_batch(frame, args[1:], kwargs):
            func(args[0]._batched_value, *args[1:], **kwargs)
            return args[0]
    elif name in _WHOLE and args and isinstance(args[0], Tensor) and not _has_batch(frame, args[1:], kwargs):
        return frame.wrap(func(_own(frame, args[0]), *args[1:], **kwargs))
    return _finish(frame, func, args, [_sample(frame, func, args, kwargs, i) for i in range(n)])


def _own(frame, x):
    return frame.full(x)


def _factory(name, func, args, kwargs, n):
    """The same call with the batch in front of its size."""
    kwargs, args = dict(kwargs), list(args)
    if "size" in kwargs:
        kwargs["size"] = (n, *_sizes(kwargs["size"]))
        return func(*args, **kwargs)
    if name == "randint":
        args[-1] = (n, *_sizes(args[-1]))
        return func(*args, **kwargs)
    sizes = _sizes(args[0]) if len(args) == 1 else tuple(args)
    return func((n, *sizes), **kwargs)


def _sizes(size):
    return (size,) if isinstance(size, int) else tuple(size)


@rule("dropout", "nn.dropout")
def _idle_dropout(frame, func, args, kwargs):
    # What draws numbers never comes here.
    x = args[0] if args else kwargs["input"]
    return x.clone() if kwargs.get("inplace") is None else x


__all__ = ["handler", "unbatched_write"]
