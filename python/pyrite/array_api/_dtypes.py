"""Data types of the array API: promotion, casts, `finfo`, `iinfo`, and what the namespace can do."""

from dataclasses import dataclass
from functools import reduce

import pyrite as torch

Tensor = torch.Tensor
SCALARS = (bool, int, float, complex)

SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
REAL = (torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)

KINDS = {
    "bool": (torch.bool,),
    "signed integer": SIGNED,
    "unsigned integer": UNSIGNED,
    "integral": SIGNED + UNSIGNED,
    "real floating": REAL,
    "complex floating": COMPLEX,
    "numeric": SIGNED + UNSIGNED + REAL + COMPLEX,
}


def _promote_dtypes(a, b):
    if a == b:
        return a
    if a in SIGNED and b in UNSIGNED:
        a, b = b, a
    if a in UNSIGNED and b in SIGNED:
        # The smallest signed type that holds both; for uint64 there is none.
        need = max(2 * a.itemsize, b.itemsize)
        if need > 8:
            raise TypeError(f"result_type: {a} and {b} have no common type in the array API standard")
        return SIGNED[need.bit_length() - 1]
    if a in UNSIGNED and b in UNSIGNED:
        return UNSIGNED[max(a.itemsize, b.itemsize).bit_length() - 1]
    return torch.promote_types(a, b)


def _with_scalar(dtype, scalar):
    """The type of an array of `dtype` with a Python number: the array's, unless the number is of a higher kind."""
    if isinstance(scalar, bool):
        return dtype
    if isinstance(scalar, int):
        return torch.int64 if dtype == torch.bool else dtype
    real = dtype.is_floating_point or dtype.is_complex
    if isinstance(scalar, float):
        return dtype if real else torch.get_default_dtype()
    if dtype.is_complex:
        return dtype
    base = dtype if real else torch.get_default_dtype()
    return torch.complex128 if base == torch.float64 else torch.complex64


def result_type(*arrays_and_dtypes):
    """The dtype that arrays, dtypes and Python numbers promote to; 0-d arrays count like any other.

    Raises ValueError if only Python numbers are given, TypeError for pairs without a common type (uint64, int8).
    """
    dtypes, scalars = [], []
    for x in arrays_and_dtypes:
        if isinstance(x, Tensor):
            dtypes.append(x.dtype)
        elif isinstance(x, torch.dtype):
            dtypes.append(x)
        elif isinstance(x, SCALARS):
            scalars.append(x)
        else:
            raise TypeError(f"result_type: expected arrays, dtypes or Python numbers, got {type(x).__name__}")
    if not dtypes:
        raise ValueError("result_type: at least one array or dtype must be given")
    return reduce(_with_scalar, scalars, reduce(_promote_dtypes, dtypes))


def can_cast(from_, to, /):
    """True if every value of `from_` (a dtype or an array) has a place in `to`, by the standard's promotion."""
    if isinstance(from_, Tensor):
        from_ = from_.dtype
    try:
        return _promote_dtypes(from_, to) == to
    except TypeError:
        return False


def astype(x, dtype, /, *, copy=True, device=None):
    """`x` as another dtype; with ``copy=False``, `x` itself if nothing changes."""
    if x.dtype.is_complex and not dtype.is_complex:
        if dtype != torch.bool:
            raise TypeError(f"astype: {x.dtype} to {dtype} would drop the imaginary part; use real() first")
        x = x != 0
    return x.to(device=device if device is not None else x.device, dtype=dtype, copy=copy)


@dataclass(frozen=True)
class FloatInfo:
    """What :func:`finfo` tells: size in bits and machine limits, as Python numbers, of the type's real parts."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: torch.dtype


@dataclass(frozen=True)
class IntInfo:
    """What :func:`iinfo` tells: size in bits and range, as Python ints."""

    bits: int
    max: int
    min: int
    dtype: torch.dtype


def finfo(type, /):
    """Machine limits of a floating-point dtype, or of an array's."""
    dtype = type.dtype if isinstance(type, Tensor) else type
    info = torch.finfo(dtype)
    real = {torch.complex64: torch.float32, torch.complex128: torch.float64}.get(dtype, dtype)
    return FloatInfo(real.itemsize * 8, info.eps, info.max, info.min, info.smallest_normal, real)


def iinfo(type, /):
    """Machine limits of an integer dtype, or of an array's."""
    dtype = type.dtype if isinstance(type, Tensor) else type
    info = torch.iinfo(dtype)
    return IntInfo(info.bits, info.max, info.min, dtype)


def isdtype(dtype, kind):
    """True if `dtype` is `kind`: a dtype, one of the standard's kinds by name, or a tuple of those."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str):
        if kind not in KINDS:
            raise ValueError(f"isdtype: unknown kind {kind!r}; known are {', '.join(map(repr, KINDS))}")
        return dtype in KINDS[kind]
    return dtype == kind


def promote(*arrays):
    """Arrays and numbers for an operation: arrays of one dtype (the standard's), numbers as they are."""
    dtypes = {x.dtype for x in arrays if isinstance(x, Tensor)}
    if len(dtypes) < 2:
        return arrays
    dtype = result_type(*arrays)
    return tuple(x.to(dtype) if isinstance(x, Tensor) else x for x in arrays)


class Info:
    """What the namespace offers: capabilities, devices and dtypes (`__array_namespace_info__`)."""

    def capabilities(self):
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self):
        return torch.empty(0).device

    def default_dtypes(self, *, device=None):
        real = torch.get_default_dtype()
        return {
            "real floating": real,
            "complex floating": torch.complex128 if real == torch.float64 else torch.complex64,
            "integral": torch.int64,
            "indexing": torch.int64,
        }

    def dtypes(self, *, device=None, kind=None):
        kinds = ("bool", "numeric") if kind is None else kind if isinstance(kind, tuple) else (kind,)
        for k in kinds:
            if k not in KINDS:
                raise ValueError(f"dtypes: unknown kind {k!r}; known are {', '.join(map(repr, KINDS))}")
        return {str(d).removeprefix("torch."): d for k in kinds for d in KINDS[k]}

    def devices(self):
        return [torch.device("cpu"), *(torch.device("cuda", i) for i in range(torch.cuda.device_count()))]


def __array_namespace_info__():
    """The namespace's inspection object, see :class:`Info`."""
    return Info()
