"""The array API standard, revision 2024.12, over Pyrite's tensors.

``t.__array_namespace__()`` returns this module. Its functions take and return plain :class:`pyrite.Tensor` objects;
names, arguments, promotion and special values are the standard's, where PyTorch's, and so the main namespace's,
differ (`axis` for `dim`, `concat`, ``sum`` of uint8 is uint64, ``sign(nan)`` is NaN, 0-d arrays promote like any other).

    >>> import pyrite as torch
    >>> x = torch.tensor([[3.0, 1.0], [2.0, 4.0]])
    >>> xp = x.__array_namespace__()
    >>> xp.max(x, axis=1, keepdims=True).shape
    torch.Size([2, 1])

Operators (``x + y``) belong to the tensor and stay PyTorch's by default; :func:`standard_operators` makes them follow the
standard, too.

Source: Consortium for Python Data API Standards, "Python array API standard", 2024.12.
"""

from math import e, inf, nan, pi

from .. import bool, complex64, complex128, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64
from ._creation import (
    arange,
    asarray,
    empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    linspace,
    meshgrid,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from ._dtypes import __array_namespace_info__, astype, can_cast, finfo, iinfo, isdtype, result_type
from ._elementwise import *
from ._elementwise import __all__ as _elementwise_names
from ._linear import matmul, matrix_transpose, tensordot, vecdot
from ._manipulation import (
    broadcast_arrays,
    broadcast_to,
    concat,
    expand_dims,
    flip,
    moveaxis,
    permute_dims,
    repeat,
    reshape,
    roll,
    squeeze,
    stack,
    take,
    take_along_axis,
    tile,
    unstack,
)
from ._operators import standard_operators
from ._reductions import (
    all,
    any,
    argmax,
    argmin,
    count_nonzero,
    cumulative_prod,
    cumulative_sum,
    diff,
    max,
    mean,
    min,
    prod,
    std,
    sum,
    var,
)
from ._searching import (
    argsort,
    nonzero,
    searchsorted,
    sort,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
    where,
)

__array_api_version__ = "2024.12"
newaxis = None

__all__ = [
    "__array_api_version__", "__array_namespace_info__", "all", "any", "arange", "argmax", "argmin", "argsort",
    "asarray", "astype", "bool", "broadcast_arrays", "broadcast_to", "can_cast", "complex128", "complex64", "concat",
    "count_nonzero", "cumulative_prod", "cumulative_sum", "diff", "e", "empty", "empty_like", "expand_dims", "eye",
    "finfo", "flip", "float32", "float64", "from_dlpack", "full", "full_like", "iinfo", "inf", "int16", "int32",
    "int64", "int8", "isdtype", "linspace", "matmul", "matrix_transpose", "max", "mean", "meshgrid", "min",
    "moveaxis", "nan", "newaxis", "nonzero", "ones", "ones_like", "permute_dims", "pi", "prod", "repeat", "reshape",
    "result_type", "roll", "searchsorted", "sort", "squeeze", "stack", "standard_operators", "std", "sum", "take", "take_along_axis",
    "tensordot", "tile", "tril", "triu", "uint16", "uint32", "uint64", "uint8", "unique_all", "unique_counts",
    "unique_inverse", "unique_values", "unstack", "var", "vecdot", "where", "zeros", "zeros_like",
]  # fmt: skip
# The extensions are loaded when first named.
_EXTENSIONS = ("fft", "linalg")


def __getattr__(name):
    if name in _EXTENSIONS:
        import importlib

        return importlib.import_module("." + name, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_EXTENSIONS})


__all__ += [*_elementwise_names, *_EXTENSIONS]  # noqa: PLE0604
