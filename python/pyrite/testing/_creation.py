"""`make_tensor`: random tensors of any dtype and layout."""

from .. import _C


def make_tensor(
    *shape,
    dtype,
    device="cpu",
    low=None,
    high=None,
    requires_grad=False,
    noncontiguous=False,
    exclude_zero=False,
    memory_format=None,
):
    """A tensor with values uniform in [low, high): by default [-9, 9), [0, 10) for unsigned, {0, 1} for bool.

    ``noncontiguous`` spreads the elements over twice the memory; ``exclude_zero`` replaces zeros by small values.

    >>> import pyrite as torch
    >>> torch.testing.make_tensor(2, 3, dtype=torch.float32).shape
    torch.Size([2, 3])
    """
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    if memory_format is not None and noncontiguous:
        raise ValueError("The parameters `noncontiguous` and `memory_format` are mutually exclusive")
    name = str(dtype).rsplit(".", 1)[-1]
    full = (*shape, 2) if noncontiguous and shape else shape
    if name == "bool":
        t = _C.randint(0, 2, full).to(_C.bool)
    elif dtype.is_complex:
        real = _C.float32 if name == "complex64" else _C.float64
        lo, hi = (-9 if low is None else low), (9 if high is None else high)
        t = _C.complex(_C.rand(full, dtype=real) * (hi - lo) + lo, _C.rand(full, dtype=real) * (hi - lo) + lo)
    elif dtype.is_floating_point:
        lo, hi = (-9 if low is None else low), (9 if high is None else high)
        if not lo < hi:
            raise ValueError(f"make_tensor: low must be less than high, but got {lo} and {hi}")
        t = (_C.rand(full, dtype=_C.float64) * (hi - lo) + lo).to(dtype)
    else:
        lo, hi = ((0 if name.startswith("u") else -9) if low is None else int(low)), (10 if high is None else int(high))
        if not lo < hi:
            raise ValueError(f"make_tensor: low must be less than high, but got {lo} and {hi}")
        t = _C.randint(lo, hi, full).to(dtype)
    if noncontiguous and shape:
        t = t[..., 0]
    if exclude_zero:
        tiny = _C.ones_like(t) if not dtype.is_floating_point else _C.full_like(t, _C.finfo(dtype).tiny)
        t = _C.where(t == 0, tiny, t)
    if memory_format is not None:
        t = t.contiguous(memory_format=memory_format)
    t = t.to(device)
    return t.requires_grad_() if requires_grad else t
