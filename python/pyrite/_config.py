"""Settings of the process: determinism, precision, threads, and `compile`."""

import builtins as _builtins
import warnings as _warnings

from . import _C

__all__ = [
    "are_deterministic_algorithms_enabled",
    "compile",
    "get_deterministic_debug_mode",
    "get_float32_matmul_precision",
    "get_num_interop_threads",
    "is_deterministic_algorithms_warn_only_enabled",
    "set_default_tensor_type",
    "set_deterministic_debug_mode",
    "set_float32_matmul_precision",
    "set_flush_denormal",
    "set_num_interop_threads",
    "use_deterministic_algorithms",
]

_state = {"deterministic": 0, "precision": "highest", "interop": 1}
_MODES = ("default", "warn", "error")


def use_deterministic_algorithms(mode, *, warn_only=False):
    """Asks for operations that always give the same result.

    Pyrite's always do: sums are taken in an order that depends on shapes alone, whatever the number of
    threads, and no kernel adds with atomics. So the setting is remembered and answered, and changes nothing.

    >>> import pyrite as torch
    >>> torch.use_deterministic_algorithms(True)
    >>> torch.are_deterministic_algorithms_enabled()
    True
    >>> torch.use_deterministic_algorithms(False)
    """
    if not isinstance(mode, _builtins.bool):
        raise TypeError(f"use_deterministic_algorithms(): argument 'mode' must be bool, not {type(mode).__name__}")
    _state["deterministic"] = (1 if warn_only else 2) if mode else 0


def are_deterministic_algorithms_enabled():
    """Whether :func:`use_deterministic_algorithms` was asked for.

    >>> import pyrite as torch
    >>> torch.are_deterministic_algorithms_enabled()
    False
    """
    return _state["deterministic"] != 0


def is_deterministic_algorithms_warn_only_enabled():
    """Whether only a warning was asked for.

    >>> import pyrite as torch
    >>> torch.is_deterministic_algorithms_warn_only_enabled()
    False
    """
    return _state["deterministic"] == 1


def set_deterministic_debug_mode(debug_mode):
    """:func:`use_deterministic_algorithms` by number or name: 0 'default', 1 'warn', 2 'error'.

    >>> import pyrite as torch
    >>> torch.set_deterministic_debug_mode("warn")
    >>> torch.get_deterministic_debug_mode()
    1
    >>> torch.set_deterministic_debug_mode(0)
    """
    if isinstance(debug_mode, str):
        if debug_mode not in _MODES:
            raise RuntimeError(
                f"invalid value of debug_mode, expected one of `default`, `warn`, `error`, but got {debug_mode}"
            )
        debug_mode = _MODES.index(debug_mode)
    if not isinstance(debug_mode, _builtins.int) or isinstance(debug_mode, _builtins.bool):
        raise TypeError(f"debug_mode must be str or int, but got {type(debug_mode)}")
    if debug_mode not in (0, 1, 2):
        raise RuntimeError(f"invalid value of debug_mode, expected 0, 1, or 2, but got {debug_mode}")
    _state["deterministic"] = debug_mode


def get_deterministic_debug_mode():
    """The number that :func:`set_deterministic_debug_mode` takes.

    >>> import pyrite as torch
    >>> torch.get_deterministic_debug_mode()
    0
    """
    return _state["deterministic"]


def get_float32_matmul_precision():
    """What :func:`set_float32_matmul_precision` was given.

    >>> import pyrite as torch
    >>> torch.get_float32_matmul_precision()
    'highest'
    """
    return _state["precision"]


def set_float32_matmul_precision(precision):
    """How exact products of float32 matrices must be at least: 'highest', 'high' or 'medium'.

    Pyrite multiplies float32 matrices in float32, which satisfies all three.

    >>> import pyrite as torch
    >>> torch.set_float32_matmul_precision("highest")
    """
    if precision not in ("highest", "high", "medium"):
        _warnings.warn(
            f"{precision} is not one of 'highest', 'high', or 'medium'; the current setFloat32MatmulPrecision call has "
            "no effect.",
            stacklevel=2,
        )
        return
    _state["precision"] = precision


def get_num_interop_threads():
    """How many operations may run side by side: what :func:`set_num_interop_threads` was given, 1 at first.

    >>> import pyrite as torch
    >>> torch.get_num_interop_threads()
    1
    """
    return _state["interop"]


def set_num_interop_threads(n):
    """Remembers ``n``. Operations run in the thread that calls them (each uses up to ``get_num_threads()``
    threads inside): there is no pool of operations to size.

    >>> import pyrite as torch
    >>> torch.set_num_interop_threads(1)
    """
    if not isinstance(n, _builtins.int) or isinstance(n, _builtins.bool):
        raise RuntimeError(f"set_num_interop_threads expects an int, but got {type(n).__name__}")
    if n <= 0:
        raise RuntimeError("set_num_interop_threads expects a positive integer")
    _state["interop"] = n


def set_flush_denormal(mode):
    """Whether numbers too small for the normal range become 0. Returns whether that could be set.

    Pyrite always computes with them exactly: False for ``True``, True for ``False``.

    >>> import pyrite as torch
    >>> torch.set_flush_denormal(True)
    False
    """
    if not isinstance(mode, _builtins.bool):
        raise TypeError(f"set_flush_denormal(): argument 'mode' must be bool, not {type(mode).__name__}")
    return not mode


def set_default_tensor_type(t):
    """The default dtype (and device) by a legacy type or its name, such as ``torch.DoubleTensor``.

    Deprecated: use :func:`set_default_dtype` and :func:`set_default_device`.

    >>> import pyrite as torch, warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     torch.set_default_tensor_type("torch.FloatTensor")
    """
    dtype, device = None, "cpu"
    if isinstance(t, str):
        name = t.split(".")
        if len(name) < 2 or name[0] not in ("torch", "pyrite"):
            raise TypeError(f"invalid type: '{t}'")
        if name[1] == "cuda":
            device = "cuda"
        dtype = getattr(getattr(_C, name[-1], None), "dtype", None)
    elif isinstance(t, type(_C.FloatTensor)):
        dtype = t.dtype
    if dtype is None:
        raise TypeError(f"invalid type object: {t!r}")
    if not dtype.is_floating_point:
        raise TypeError("only floating-point types are supported as the default type")
    _warnings.warn(
        "torch.set_default_tensor_type() is deprecated: please use torch.set_default_dtype() and "
        "torch.set_default_device() as alternatives.",
        stacklevel=2,
    )
    _C.set_default_dtype(dtype)
    _C.set_default_device(device)


def compile(model=None, *, fullgraph=False, dynamic=None, backend="inductor", mode=None, options=None, disable=False):
    """Returns ``model`` itself (or, without one, a decorator that does): Pyrite runs every operation as it is
    called, with the loops of each already fused and compiled. The options are accepted so that programs run;
    they say how to compile, never what to compute, so results are the same.

    >>> import pyrite as torch
    >>> f = torch.compile(lambda x: x + 1)
    >>> f(torch.ones(1)).item()
    2.0
    """
    if mode is not None and options is not None:
        raise RuntimeError("Either mode or options can be specified, but both can't be specified at the same time.")
    if model is None:
        return lambda model: compile(
            model, fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode, options=options, disable=disable
        )
    if not callable(model):
        raise RuntimeError(f"compile: expected a callable, got {type(model).__name__}")
    return model
