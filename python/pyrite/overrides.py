"""The `__torch_function__` protocol from outside: asking for it, and modes that see every call."""

from . import _C, _routed

__all__ = [
    "DisableTorchFunctionSubclass",
    "TorchFunctionMode",
    "handle_torch_function",
    "has_torch_function",
    "is_tensor_like",
]

Tensor = _C.Tensor


class DisableTorchFunctionSubclass:
    """Inside, functions treat subclasses of Tensor as plain tensors."""

    def __enter__(self):
        self.before = _C._overrides_disabled(True)

    def __exit__(self, *exc):
        _C._overrides_disabled(self.before)


def _answers(value):
    if type(value) is Tensor:
        return False
    f = getattr(type(value), "__torch_function__", None)
    return f is not None and f is not _C._disabled_torch_function_impl


def has_torch_function(relevant_args):
    """Does any of these arguments answer for functions?"""
    return any(_answers(a) for a in relevant_args)


def is_tensor_like(inp):
    """Is this a tensor, or something that answers for functions of tensors?"""
    return type(inp) is Tensor or hasattr(inp, "__torch_function__")


def handle_torch_function(public_api, relevant_args, *args, **kwargs):
    """Asks the arguments that answer for functions to run ``public_api``, subclasses first."""
    types = []
    for a in relevant_args:
        t = type(a)
        if _answers(a) and t not in types:
            at = next((i for i, known in enumerate(types) if issubclass(t, known)), len(types))
            types.insert(at, t)
    for t in types:
        result = t.__torch_function__(public_api, tuple(types), args, kwargs)
        if result is not NotImplemented:
            return result
    raise TypeError(
        f"no implementation found for '{getattr(public_api, '__name__', public_api)}' on types that implement "
        f"__torch_function__: {[t.__name__ for t in types]}"
    )


class TorchFunctionMode:
    """Inside a ``with`` block, sees every call of the library's functions: override ``__torch_function__``.

    >>> import pyrite as torch
    >>> class Count(torch.overrides.TorchFunctionMode):
    ...     calls = 0
    ...     def __torch_function__(self, func, types, args=(), kwargs=None):
    ...         self.calls += 1
    ...         return func(*args, **(kwargs or {}))
    >>> with Count() as count:
    ...     _ = torch.ones(2) + torch.zeros(2)
    >>> count.calls
    3
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))

    def __enter__(self):
        _routed.mode(True)
        _C._push_mode(self.__torch_function__, False)
        return self

    def __exit__(self, *exc):
        _C._pop_mode()
        _routed.mode(False)
