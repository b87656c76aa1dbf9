"""Signal processing: :mod:`pyrite.signal.windows`."""

from . import windows

__all__ = ["windows"]
