"""Help for finding mistakes: anomaly mode, `debug_nans`, and strict rules for in-place writes.

These switches belong to the process, not to a thread. Each is a context manager and a decorator.
"""

from .. import _C
from .grad_mode import _GradContext

__all__ = [
    "debug_nans",
    "detect_anomaly",
    "is_anomaly_check_nan_enabled",
    "is_anomaly_enabled",
    "is_strict_inplace",
    "set_anomaly_enabled",
    "set_detect_anomaly",
    "set_strict_inplace",
]

# As in the core (`autograd::mode::check`).
_ANOMALY, _GRAD_NAN, _NAN, _INF = 1, 2, 4, 8

is_strict_inplace = _C.is_strict_inplace


def is_anomaly_enabled():
    """Is anomaly mode on?"""
    return bool(_C._checks() & _ANOMALY)


def is_anomaly_check_nan_enabled():
    """Does anomaly mode look for NaN in gradients?"""
    return bool(_C._checks() & _GRAD_NAN)


def set_anomaly_enabled(mode, check_nan=True):
    """Switches anomaly mode; see :class:`detect_anomaly`."""
    _C._set_checks(_ANOMALY | _GRAD_NAN, (_ANOMALY if mode else 0) | (_GRAD_NAN if check_nan else 0))


class _Checks(_GradContext):
    """Sets bits of the checks while it lasts."""

    _mask = 0

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)

    def __enter__(self):
        self.prev = _C._set_checks(self._mask, self._bits)
        return self

    def __exit__(self, *exc):
        _C._set_checks(self._mask, self.prev)


class detect_anomaly(_Checks):
    """Operations remember their traceback, and gradients are searched for NaN.

    An error during backward then comes with a warning that shows the traceback of the forward call. It is
    slow; without it errors still name the line of the forward call. ``check_nan=False`` leaves out the search.

    >>> import pyrite as torch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> with torch.autograd.detect_anomaly():
    ...     y = (x.sqrt() * 0).sum()
    """

    _mask = _ANOMALY | _GRAD_NAN

    def __init__(self, check_nan=True):
        self.check_nan = bool(check_nan)
        self._bits = _ANOMALY | (_GRAD_NAN if check_nan else 0)

    def _clone(self):
        return detect_anomaly(self.check_nan)


class set_detect_anomaly(_Checks):
    """Switches anomaly mode at once; as a context manager it restores the earlier state at the end."""

    _mask = _ANOMALY | _GRAD_NAN

    def __init__(self, mode, check_nan=True):
        self.mode, self.check_nan = bool(mode), bool(check_nan)
        self._bits = (_ANOMALY if mode else 0) | (_GRAD_NAN if check_nan else 0)
        self.prev = _C._set_checks(self._mask, self._bits)

    def _clone(self):
        return set_detect_anomaly(self.mode, self.check_nan)

    def __enter__(self):
        return None


class debug_nans(_Checks):
    """Stops at the first operation, forward or backward, that makes a NaN of inputs without one.

    The RuntimeError names the operation, its line, and the ranges of what went in. ``inf=True`` stops at
    infinities, too. Every result is searched, so this is slow. As :class:`set_detect_anomaly`, it may also be
    switched for good: ``debug_nans().__enter__()``.

    >>> import pyrite as torch
    >>> with torch.autograd.debug_nans():
    ...     torch.tensor([-1.0, 4.0]).sqrt()
    Traceback (most recent call last):
        ...
    RuntimeError: debug_nans: sqrt made nan of finite inputs ...
    """

    _mask = _NAN | _INF

    def __new__(cls, nan=True, inf=False):
        if callable(nan) and not isinstance(nan, bool):
            return cls()(nan)
        return object.__new__(cls)

    def __init__(self, nan=True, inf=False):
        self.nan, self.inf = bool(nan), bool(inf)
        self._bits = (_NAN if nan else 0) | (_INF if inf else 0)

    def _clone(self):
        return debug_nans(self.nan, self.inf)


class set_strict_inplace(_GradContext):
    """True: writing to a tensor that a graph has saved is an error of its backward, as in PyTorch.

    Otherwise (the default) the graph gets a copy of the old values just before they are overwritten, so that
    its gradient is right; the copy lives as long as the graph needs it. The error of strict mode names the line
    that saved and the line that overwrote. Takes effect at once; as a context manager it restores the earlier
    state at the end.

    >>> import pyrite as torch
    >>> x = torch.tensor([2.0], requires_grad=True)
    >>> y = x * 1
    >>> z = y * y
    >>> y.zero_().tolist()
    [0.0]
    >>> z.sum().backward()
    >>> x.grad.tolist()
    [4.0]
    """

    def __new__(cls, mode):
        return object.__new__(cls)

    def __init__(self, mode):
        self.mode = bool(mode)
        self.prev = _C._set_strict_inplace(self.mode)

    def _clone(self):
        return set_strict_inplace(self.mode)

    def __enter__(self):
        _C._set_strict_inplace(self.mode)

    def __exit__(self, *exc):
        _C._set_strict_inplace(self.prev)

    def __call__(self, func):
        # Used as a decorator, the constructor's immediate effect is undone.
        _C._set_strict_inplace(self.prev)
        return super().__call__(func)
