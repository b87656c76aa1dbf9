"""Forward mode: dual tensors, which carry a tangent through every operation that has a backward.

with forward_ad.dual_level():
    y = f(forward_ad.make_dual(x, v))
    value, tangent = forward_ad.unpack_dual(y)
"""

from typing import NamedTuple

from .. import _C
from .grad_mode import _GradContext

__all__ = [
    "UnpackedDualTensor",
    "dual_level",
    "enter_dual_level",
    "exit_dual_level",
    "make_dual",
    "unpack_dual",
]

Tensor = _C.Tensor

# Ids of the levels that this module opened, outermost first. Threads see their own levels only, but a level is
# opened and closed by the same thread, so the ids of different threads never meet.
_levels = {}


def _stack():
    import threading

    return _levels.setdefault(threading.get_ident(), [])


class UnpackedDualTensor(NamedTuple):
    """The two halves of a dual tensor; ``tangent`` is None where there is none."""

    primal: Tensor
    tangent: Tensor | None


def enter_dual_level():
    """Opens a level; returns its number, which :func:`exit_dual_level` takes.

    Levels may be nested: a tangent of an inner level can itself be dual in an outer one.
    """
    stack = _stack()
    stack.append(_C._dual_enter())
    return len(stack) - 1


def exit_dual_level(*, level=None):
    """Closes the innermost level: its tangents are forgotten. ``level`` must be its number, if given."""
    stack = _stack()
    if not stack:
        raise RuntimeError(
            "Trying to exit a forward AD level but no level exists, make sure to enter_dual_level() first."
        )
    if level is not None and level != len(stack) - 1:
        raise RuntimeError(
            "Trying to exit a forward AD level that was not the last one that was created. This is not supported."
        )
    _C._dual_exit(stack.pop())


def _level_id(level, what):
    stack = _stack()
    if not stack:
        raise RuntimeError(f"{what} for forward AD but no level exists, make sure to enter_dual_level() first.")
    if level is None:
        return stack[-1]
    if not 0 <= level < len(stack):
        raise RuntimeError(f"{what}: level {level} is not open (there are {len(stack)})")
    return stack[level]


def _check_pair(tensor, tangent):
    for name, t in (("primal", tensor), ("tangent", tangent)):
        if not isinstance(t, Tensor):
            raise TypeError(
                f"make_dual(): argument '{'tensor' if name == 'primal' else name}' must be Tensor, not {type(t).__name__}"
            )
        if not (t.is_floating_point() or t.is_complex()):
            raise ValueError(f"Expected {name} to be floating point or complex, but got: {t.dtype}")
    if tuple(tensor.shape) != tuple(tangent.shape):
        raise RuntimeError(
            "Trying to set a forward gradient that has a different size than that of the original Tensor, this is not "
            f"supported. Tensor is of size {list(tensor.shape)} while the given forward gradient is of size "
            f"{list(tangent.shape)}."
        )
    if tensor.dtype != tangent.dtype:
        raise RuntimeError(
            f"make_dual: Expected primal and tangent to have the same dtype, but got {tensor.dtype} and {tangent.dtype}"
        )
    if tensor.device != tangent.device:
        raise RuntimeError(
            f"make_dual: Expected primal and tangent to be on the same device, but got {tensor.device} and {tangent.device}"
        )


def _make(tensor, tangent, level_id):
    # Tensors of a vmap: their batches are made dual.
    if hasattr(tensor, "_batched_value") or hasattr(tangent, "_batched_value"):
        from .._batching import together

        return together(lambda x, t: _make(x, t, level_id), tensor, tangent)
    return _C._make_dual(tensor, tangent, level_id)


def _unpack(tensor, level_id):
    if hasattr(tensor, "_batched_value"):
        from .._batching import BatchedTensor

        primal, tangent = _unpack(tensor._batched_value, level_id)
        wrap = lambda t: BatchedTensor._make(t, tensor._level)  # noqa: E731
        return wrap(primal), None if tangent is None else wrap(tangent)
    return _C._unpack_dual(tensor, level_id)


def make_dual(tensor, tangent, *, level=None):
    """A tensor with the data of ``tensor`` and the tangent ``tangent`` (same shape, dtype and device).

    Raises RuntimeError outside a level or if the two do not fit together, ValueError for integer dtypes.

    >>> import pyrite as torch
    >>> from pyrite.autograd import forward_ad
    >>> with forward_ad.dual_level():
    ...     x = forward_ad.make_dual(torch.tensor([3.0]), torch.tensor([1.0]))
    ...     forward_ad.unpack_dual(x * x).tangent.tolist()
    [6.0]
    """
    level_id = _level_id(level, "Trying to create a dual Tensor")
    _check_pair(tensor, tangent)
    if _C._has_tangent(tangent) and _unpack(tangent, level_id)[1] is not None:
        raise RuntimeError(
            "make_dual: the tangent has a forward gradient at the same level, which is not supported: unpack it first, or "
            "open a level inside"
        )
    if _unpack(tensor, level_id)[1] is not None:
        raise RuntimeError(
            "Making a dual Tensor based on a Tensor that already has a forward gradient at the same level "
            f"{_stack().index(level_id)} is not supported."
        )
    return _make(tensor, tangent, level_id)


def unpack_dual(tensor, *, level=None):
    """``(primal, tangent)`` of a dual tensor at the innermost level (or ``level``)."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"unpack_dual(): argument 'tensor' must be Tensor, not {type(tensor).__name__}")
    if not _stack():
        return UnpackedDualTensor(tensor, None)
    return UnpackedDualTensor(*_unpack(tensor, _level_id(level, "Trying to unpack a dual Tensor")))


class dual_level(_GradContext):
    """Opens a level for the body of a ``with`` statement or of a function."""

    def __new__(cls, func=None):
        return super().__new__(cls, func) if func is not None else object.__new__(cls)

    def __enter__(self):
        self.level = enter_dual_level()
        return self.level

    def __exit__(self, *exc):
        exit_dual_level(level=self.level)


class _set_fwd_grad_enabled(_GradContext):
    """Switches forward mode off (or leaves it) inside; PyTorch's internal switch of the same name."""

    def __new__(cls, mode):
        return object.__new__(cls)

    def __init__(self, mode):
        self.mode = bool(mode)

    def _clone(self):
        return self.__class__(self.mode)

    def __enter__(self):
        self.prev = _C._dual_hide(1 << 30 if self.mode else 0)

    def __exit__(self, *exc):
        _C._dual_hide(self.prev)
