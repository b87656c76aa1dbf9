"""`assert_close`: equality of tensors and containers within a tolerance, with a message that says where not."""

import math

from .. import _C

Tensor = _C.Tensor

# dtype name -> (rtol, atol), PyTorch's defaults.
_TOLERANCES = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}


def _default(dtype):
    return _TOLERANCES.get(str(dtype).rsplit(".", 1)[-1], (0.0, 0.0))


def assert_close(
    actual,
    expected,
    *,
    allow_subclasses=True,
    rtol=None,
    atol=None,
    equal_nan=False,
    check_device=True,
    check_dtype=True,
    check_layout=True,
    check_stride=False,
    msg=None,
):
    """Raises AssertionError unless ``|actual - expected| <= atol + rtol |expected|`` everywhere.

    Compares tensors, numbers, sequences and mappings of them, their shapes and (unless switched off) dtypes and
    devices. Tolerances default by dtype (float32: 1.3e-6, 1e-5). ``msg`` is a text, or a function of the text.

    >>> import pyrite as torch
    >>> torch.testing.assert_close(torch.ones(2), torch.ones(2) + 1e-7)
    """
    if (rtol is None) != (atol is None):
        raise ValueError("rtol and atol must both be specified or both be unspecified")
    options = (allow_subclasses, rtol, atol, equal_nan, check_device, check_dtype, check_stride)
    _compare(actual, expected, "", options, msg)


def _fail(text, where, msg):
    if where:
        text += f"\n\nThe failure occurred for item {where}"
    raise AssertionError(msg(text) if callable(msg) else text if msg is None else msg)


def _compare(actual, expected, where, options, msg):
    if isinstance(actual, Tensor) or isinstance(expected, Tensor):
        _tensors(actual, expected, where, options, msg)
    elif isinstance(actual, dict) and isinstance(expected, dict):
        if set(actual) != set(expected):
            _fail(f"The keys of the mappings do not match: {sorted(map(str, set(actual) ^ set(expected)))}", where, msg)
        for key in actual:
            _compare(actual[key], expected[key], f"{where}[{key!r}]", options, msg)
    elif isinstance(actual, (list, tuple)) and isinstance(expected, (list, tuple)):
        if len(actual) != len(expected):
            _fail(f"The length of the sequences mismatch: {len(actual)} != {len(expected)}", where, msg)
        for i, (a, b) in enumerate(zip(actual, expected)):
            _compare(a, b, f"{where}[{i}]", options, msg)
    elif isinstance(actual, (bool, int, float, complex)) and isinstance(expected, (bool, int, float, complex)):
        _numbers(actual, expected, where, options, msg)
    elif hasattr(actual, "__array__") and hasattr(expected, "__array__"):
        _tensors(_C.as_tensor(actual), _C.as_tensor(expected), where, options, msg)
    elif actual is None and expected is None:
        return
    else:
        raise TypeError(f"No comparison pair was able to handle inputs of type {type(actual)} and {type(expected)}.")


def _numbers(actual, expected, where, options, msg):
    _, rtol, atol, equal_nan, _, check_dtype, _ = options
    if check_dtype and type(actual) is not type(expected):
        _fail(f"The types do not match: {type(actual)} != {type(expected)}", where, msg)
    if rtol is None:
        exact = not isinstance(actual, (float, complex)) and not isinstance(expected, (float, complex))
        rtol, atol = (0.0, 0.0) if exact else _TOLERANCES["float64"]
    if actual == expected or (equal_nan and actual != actual and expected != expected):
        return
    gap = abs(actual - expected)
    if not (math.isfinite(gap) and gap <= atol + rtol * abs(expected)):
        _fail(
            f"Scalars are not close!\n\nExpected {expected} but got {actual}.\nAbsolute difference: {gap} (up to {atol} allowed)",
            where,
            msg,
        )


def _tensors(actual, expected, where, options, msg):
    allow_subclasses, rtol, atol, equal_nan, check_device, check_dtype, check_stride = options
    if not (isinstance(actual, Tensor) and isinstance(expected, Tensor)):
        raise TypeError(f"No comparison pair was able to handle inputs of type {type(actual)} and {type(expected)}.")
    if not allow_subclasses and type(actual) is not type(expected):
        raise TypeError(f"the classes differ: {type(actual)} and {type(expected)}")
    actual, expected = actual.detach(), expected.detach()
    if tuple(actual.shape) != tuple(expected.shape):
        _fail(f"The values for attribute 'shape' do not match: {actual.shape} != {expected.shape}.", where, msg)
    if check_device and actual.device != expected.device:
        _fail(f"The values for attribute 'device' do not match: {actual.device} != {expected.device}.", where, msg)
    if check_dtype and actual.dtype != expected.dtype:
        _fail(f"The values for attribute 'dtype' do not match: {actual.dtype} != {expected.dtype}.", where, msg)
    if check_stride and tuple(actual.stride()) != tuple(expected.stride()):
        _fail(
            f"The values for attribute 'stride()' do not match: {actual.stride()} != {expected.stride()}.", where, msg
        )
    if rtol is None:
        # The looser of the two dtypes' tolerances.
        (r1, a1), (r2, a2) = _default(actual.dtype), _default(expected.dtype)
        rtol, atol = max(r1, r2), max(a1, a2)
    if not actual.numel():
        return
    actual, expected = actual.cpu(), expected.cpu()
    if actual.is_complex() or expected.is_complex():
        wide = _C.complex128
    elif actual.is_floating_point() or expected.is_floating_point():
        wide = _C.float64
    else:
        wide = _C.int64
    a, b = actual.to(wide), expected.to(wide)
    gap = (a - b).abs()
    close = (a == b) | (gap <= atol + rtol * b.abs())
    if wide != _C.int64:
        # inf - inf and anything with NaN has no gap: only exact equality (or equal_nan) may pass there.
        close = (a == b) | (close & gap.isfinite())
        if equal_nan:
            close = close | ((a != a) & (b != b))
    if bool(close.all()):
        return
    wrong = int((~close).sum())
    flat = _C.where(close, _C.zeros_like(gap), gap).reshape(-1)
    if wide != _C.int64:
        flat = _C.where(flat == flat, flat, _C.full_like(flat, math.inf))
    worst = int(flat.argmax())
    index, rest = [], worst
    for size in reversed(tuple(gap.shape)):
        index.append(rest % size)
        rest //= size
    ratio = float(gap.reshape(-1)[worst]) / max(float(b.abs().reshape(-1)[worst]), 1e-300)
    _fail(
        f"Tensor-likes are not {'equal' if rtol == atol == 0 else 'close'}!\n\n"
        f"Mismatched elements: {wrong} / {gap.numel()} ({100 * wrong / gap.numel():.1f}%)\n"
        f"Greatest absolute difference: {float(gap.reshape(-1)[worst])} at index {tuple(reversed(index))} (up to {atol} allowed)\n"
        f"Relative difference there: {ratio} (up to {rtol} allowed)",
        where,
        msg,
    )
