"""The switch that makes operators on tensors follow the standard."""

from pyrite import _C


class standard_operators:
    """Makes operators on tensors, in the whole library, follow the standard where PyTorch differs.

    PyTorch's rule, the default, is that a 0-d tensor matters only where no tensor with dimensions is of its kind:
    ``int8 vector + int64 scalar tensor`` is int8. The standard says int64. And ``//`` and ``%`` of floats get the
    standard's special values (``inf // 2`` is inf, not NaN). Called, it switches for the whole process;
    as a context manager, until the block ends.

    >>> import pyrite as torch
    >>> a, b = torch.ones(2, dtype=torch.int8), torch.tensor(1)
    >>> with torch.array_api.standard_operators():
    ...     print((a + b).dtype)
    torch.int64
    >>> (a + b).dtype
    torch.int8
    """

    def __init__(self, enabled=True):
        self._previous = _C._set_standard_operators(bool(enabled))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        _C._set_standard_operators(self._previous)
