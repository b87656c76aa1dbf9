"""`__torch_function__` for what the registry does not know: attributes of tensors, methods written by hand, and functions
written in Python.

Nothing is looked at for plain tensors: classes that answer for functions get stand-ins for these attributes when they are
made, Tensor itself has them while a mode is open, and the first of either puts stand-ins for functions into their modules.
"""

import functools
import sys
import types

from . import _C

Tensor = _C.Tensor

# PyTorch asks for every attribute and method of a tensor but these, which the protocol itself is made of.
_NEVER = {
    "__class__", "__del__", "__delattr__", "__dict__", "__dir__", "__doc__", "__getattribute__", "__getnewargs__",
    "__getstate__", "__hash__", "__init__", "__init_subclass__", "__module__", "__new__", "__setattr__", "__sizeof__",
    "__subclasshook__", "__torch_function__", "__weakref__", "__array_priority__", "__array_interface__", "__slots__",
    "__array_namespace__", "_make_subclass", "as_subclass", "_bump_version", "__qualname__", "__iter__", "__copy__",
    "__array_ufunc__", "__array_function__",
}  # fmt: skip
# These ask by themselves.
_ASKING = {
    "__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__", "__mul__", "__rmul__", "__imul__",
    "__truediv__", "__rtruediv__", "__itruediv__", "__floordiv__", "__rfloordiv__", "__ifloordiv__", "__mod__",
    "__rmod__", "__imod__", "__pow__", "__rpow__", "__ipow__", "__and__", "__rand__", "__iand__", "__or__", "__ror__",
    "__ior__", "__xor__", "__rxor__", "__ixor__", "__lshift__", "__rlshift__", "__ilshift__", "__rshift__",
    "__rrshift__", "__irshift__", "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "__matmul__",
    "__rmatmul__", "__neg__", "__pos__", "__abs__", "__invert__", "__getitem__", "__setitem__", "__delitem__",
    "__divmod__", "__rdivmod__",
}  # fmt: skip


class _Access:
    """What a class or mode is asked about: `Tensor.shape.__get__`, which asks the others when it is called."""

    __slots__ = ("original",)

    def __init__(self, original):
        self.original = original

    @property
    def __name__(self):
        return self.original.__name__

    @property
    def __self__(self):
        return self.original.__self__

    def __call__(self, obj, *args):
        return _C._routed(obj, self, self.original, obj, *args)

    def __eq__(self, other):
        return self.original == (other.original if isinstance(other, _Access) else other)

    def __hash__(self):
        return hash(self.original)

    def __repr__(self):
        return repr(self.original)


class _Attribute:
    """Stands in for a getter (and setter): `Tensor.shape.__get__` is what the class is asked about."""

    __slots__ = ("original",)

    def __init__(self, original):
        self.original = original

    def __get__(self, obj, cls=None):
        if obj is None:
            return self.original
        return _Access(self.original.__get__)(obj)

    def __set__(self, obj, value):
        _Access(self.original.__set__)(obj, value)

    def __delete__(self, obj):
        _Access(self.original.__delete__)(obj)


class _Method:
    """Stands in for a method; the class is asked about the method itself."""

    __slots__ = ("original",)

    def __init__(self, original):
        self.original = original

    def __get__(self, obj, cls=None):
        if obj is None:
            return self.original
        original = self.original

        def bound(*args, **kwargs):
            return _C._routed(obj, original, original, obj, *args, **kwargs)

        bound.__name__, bound.__doc__, bound.__self__ = original.__name__, original.__doc__, obj
        return bound


class _Text(_Method):
    """`str(x)` is `repr(x)`."""

    __slots__ = ()

    def __get__(self, obj, cls=None):
        return self.original if obj is None else lambda: repr(obj)


_stand_ins = {}


def stand_ins():
    """Name -> stand-in, for everything that nobody asks for by itself."""
    if not _stand_ins:
        registered = {name for op in _C._registry() for name in (op["name"], *op["aliases"])}
        for name, value in vars(Tensor).items():
            original = value.original if isinstance(value, (_Attribute, _Method)) else value
            if name in _NEVER or name in _ASKING or isinstance(original, (staticmethod, classmethod)):
                continue
            if hasattr(type(original), "__set__"):
                _stand_ins[name] = _Attribute(original)
            elif name == "__str__":
                _stand_ins[name] = _Text(original)
            elif name not in registered and callable(original):
                _stand_ins[name] = _Method(original)
    return _stand_ins


def equip(cls):
    """Called for a new subclass of Tensor that answers."""
    between = cls.__mro__[: cls.__mro__.index(Tensor)]
    if not any("__torch_function__" in vars(c) for c in between):
        return
    _equip_modules()
    for name, stand_in in stand_ins().items():
        if not any(name in vars(c) for c in between):
            setattr(cls, name, stand_in)


class _Function:
    """Stands in for a function written in Python, and counts as the same wherever functions are compared."""

    def __init__(self, original):
        functools.update_wrapper(self, original)

    def __call__(self, *args, **kwargs):
        return _C._routed_function(self.__wrapped__, *args, **kwargs)

    def __eq__(self, other):
        return other is self or other is self.__wrapped__

    def __hash__(self):
        return hash(self.__wrapped__)

    def __reduce__(self):
        return self.__qualname__

    def __repr__(self):
        return repr(self.__wrapped__)


# Functions that PyTorch does not ask about, or that hand their argument on as it is.
_UNASKED = {
    "as_tensor", "compile", "from_numpy", "get_default_dtype", "is_storage", "is_tensor", "load", "manual_seed", "save",
    "set_default_dtype", "set_default_device", "set_printoptions", "set_rng_state", "tensor", "typename", "vmap",
    "handle_torch_function", "has_torch_function",
}  # fmt: skip
_functions_done = []


def _equip_modules():
    if _functions_done:
        return
    _functions_done.append(True)
    from .nn import functional, init

    package = sys.modules[__package__]
    for name in package._LAZY_FUNCTIONS:
        getattr(package, name)
    for module in (
        package,
        functional,
        init,
        *(sys.modules.get(f"{__package__}.{n}") for n in ("autograd", "fft", "linalg", "special")),
    ):
        for name, f in list(vars(module).items()) if module is not None else ():
            own = isinstance(f, types.FunctionType) and f.__module__.startswith(__package__ + ".")
            if own and not name.startswith("_") and name not in _UNASKED:
                setattr(module, name, _Function(f))


_open = [0]


def mode(opened):
    """Called when a mode that sees all calls opens or closes."""
    _equip_modules()
    _open[0] += 1 if opened else -1
    if _open[0] == (1 if opened else 0):
        for name, stand_in in stand_ins().items():
            setattr(Tensor, name, stand_in if opened else stand_in.original)
