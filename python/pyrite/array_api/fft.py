"""Discrete Fourier transforms with the array API's arguments; see :mod:`pyrite.fft`."""

from pyrite import fft as _fft


def _one(name):
    f = getattr(_fft, name)

    def function(x, /, *, n=None, axis=-1, norm="backward"):
        return f(x, n, axis, norm)

    function.__doc__ = f"`{name}` along one axis; see :func:`pyrite.fft.{name}`."
    return function


def _many(name):
    f = getattr(_fft, name)

    def function(x, /, *, s=None, axes=None, norm="backward"):
        return f(x, s, axes, norm)

    function.__doc__ = f"`{name}` along several axes; see :func:`pyrite.fft.{name}`."
    return function


_ONE = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
_MANY = ("fftn", "ifftn", "rfftn", "irfftn")
for _names, _make in ((_ONE, _one), (_MANY, _many)):
    for _name in _names:
        _f = _make(_name)
        _f.__name__ = _f.__qualname__ = _name
        globals()[_name] = _f
del _names, _make, _name, _f


def fftfreq(n, /, *, d=1.0, dtype=None, device=None):
    """The frequencies that belong to the results of `fft`, for `n` samples at distance `d`."""
    return _fft.fftfreq(n, d, dtype=dtype, device=device)


def rfftfreq(n, /, *, d=1.0, dtype=None, device=None):
    """The frequencies that belong to the results of `rfft`, for `n` samples at distance `d`."""
    return _fft.rfftfreq(n, d, dtype=dtype, device=device)


def _all(x, axes):
    return tuple(range(x.ndim)) if axes is None else axes


def fftshift(x, /, *, axes=None):
    """The zero frequency moved to the middle."""
    return _fft.fftshift(x, _all(x, axes))


def ifftshift(x, /, *, axes=None):
    """What undoes :func:`fftshift`."""
    return _fft.ifftshift(x, _all(x, axes))


__all__ = ["fftfreq", "fftshift", "ifftshift", "rfftfreq"]
__all__ += [*_ONE, *_MANY]  # noqa: PLE0604
