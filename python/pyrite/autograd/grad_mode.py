"""Switches for recording: `no_grad`, `enable_grad`, `set_grad_enabled`, `inference_mode`.

Each is a context manager and a decorator (plain functions and generators). The mode itself is a
thread-local of the core; this file only saves and restores it.
"""

import functools
import warnings

from .. import _C

_CO_GENERATOR = 0x20


class _GradContext:
    """Common part: enter, exit, and use as a decorator."""

    def __new__(cls, func=None, *args, **kwargs):
        # `@no_grad` without parentheses hands the function straight to the class.
        if callable(func) and not isinstance(func, bool):
            return cls()(func)
        return super().__new__(cls)

    def _clone(self):
        return self.__class__()

    def __enter__(self):
        raise NotImplementedError

    def __exit__(self, *exc):
        raise NotImplementedError

    def __call__(self, func):
        if isinstance(func, type):
            warnings.warn(
                "Decorating classes is deprecated and will be disabled in future versions. You should only decorate "
                "functions or methods. To preserve the current behavior of class decoration, you can directly decorate the "
                "`__init__` method and nothing else.",
                FutureWarning,
                stacklevel=2,
            )
        code = getattr(func, "__code__", None)
        if code is not None and code.co_flags & _CO_GENERATOR:
            return self._wrap_generator(func)

        @functools.wraps(func)
        def wrapped(*args, **kwargs):
            with self._clone():
                return func(*args, **kwargs)

        return wrapped

    def _wrap_generator(self, func):
        # The mode must hold while the generator runs, and must not leak into the code between two `next`s.
        @functools.wraps(func)
        def wrapped(*args, **kwargs):
            gen = func(*args, **kwargs)
            try:
                with self._clone():
                    item = gen.send(None)
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        with self._clone():
                            gen.close()
                        raise
                    except BaseException as error:
                        with self._clone():
                            item = gen.throw(error)
                    else:
                        with self._clone():
                            item = gen.send(sent)
            except StopIteration as stop:
                return stop.value

        return wrapped


class no_grad(_GradContext):
    """No operation inside records a graph; results have ``requires_grad=False``.

    Example::

        >>> import pyrite as torch
        >>> x = torch.ones(3, requires_grad=True)
        >>> with torch.no_grad():
        ...     y = x * 2
        >>> y.requires_grad
        False
    """

    def __enter__(self):
        self.prev = _C._set_grad_enabled(False)

    def __exit__(self, *exc):
        _C._set_grad_enabled(self.prev)


class enable_grad(_GradContext):
    """Records again inside a :class:`no_grad` block.

    Example::

        >>> import pyrite as torch
        >>> x = torch.ones(3, requires_grad=True)
        >>> with torch.no_grad(), torch.enable_grad():
        ...     y = x * 2
        >>> y.requires_grad
        True
    """

    def __enter__(self):
        self.prev = _C._set_grad_enabled(True)

    def __exit__(self, *exc):
        _C._set_grad_enabled(self.prev)


class set_grad_enabled(_GradContext):
    """Sets recording on or off at once; as a context manager it restores the earlier mode at the end.

    Example::

        >>> import pyrite as torch
        >>> with torch.set_grad_enabled(False):
        ...     torch.is_grad_enabled()
        False
    """

    def __new__(cls, mode):
        return object.__new__(cls)

    def __init__(self, mode):
        self.mode = bool(mode)
        self.prev = _C._set_grad_enabled(self.mode)

    def _clone(self):
        return self.__class__(self.mode)

    def __enter__(self):
        _C._set_grad_enabled(self.mode)

    def __exit__(self, *exc):
        _C._set_grad_enabled(self.prev)

    def __call__(self, func):
        # Used as a decorator, the constructor's immediate effect is undone.
        _C._set_grad_enabled(self.prev)
        return super().__call__(func)


class inference_mode(_GradContext):
    """`no_grad` for code that never trains. Tensors made inside may still be used in a graph later.

    Example::

        >>> import pyrite as torch
        >>> with torch.inference_mode():
        ...     torch.is_inference_mode_enabled()
        True
    """

    def __new__(cls, mode=True):
        if callable(mode) and not isinstance(mode, bool):
            return cls()(mode)
        return object.__new__(cls)

    def __init__(self, mode=True):
        self.mode = bool(mode)

    def _clone(self):
        return self.__class__(self.mode)

    def __enter__(self):
        self.prev = _C._set_grad_enabled(not self.mode)
        self.prev_inference = _C._set_inference(self.mode)

    def __exit__(self, *exc):
        _C._set_inference(self.prev_inference)
        _C._set_grad_enabled(self.prev)


is_inference_mode_enabled = _C.is_inference_mode_enabled


_multithreading = [True]


def is_multithreading_enabled():
    """What :class:`set_multithreading_enabled` was last told."""
    return _multithreading[0]


class set_multithreading_enabled(_GradContext):
    """Says whether backward may use a thread per device. Pyrite's backward runs in the thread that calls it, so this is
    remembered and changes nothing. Works at once, as a context manager and as a decorator.

    Example::

        >>> import pyrite as torch
        >>> with torch.autograd.set_multithreading_enabled(False):
        ...     torch.autograd.is_multithreading_enabled()
        False
    """

    def __new__(cls, mode):
        return object.__new__(cls)

    def __init__(self, mode):
        self.mode = bool(mode)
        self.prev, _multithreading[0] = _multithreading[0], self.mode

    def _clone(self):
        return self.__class__(self.mode)

    def __enter__(self):
        _multithreading[0] = self.mode

    def __exit__(self, *exc):
        _multithreading[0] = self.prev

    def __call__(self, func):
        _multithreading[0] = self.prev
        return super().__call__(func)
