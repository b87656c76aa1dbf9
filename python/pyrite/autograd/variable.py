"""`Variable`: the name tensors with gradients had before they were one class with Tensor."""

from .. import _C


class _VariableMeta(type):
    def __instancecheck__(cls, instance):
        return isinstance(instance, _C.Tensor)


class _Engine:
    """What users reach as ``Variable._execution_engine``."""

    @staticmethod
    def queue_callback(callback):
        """Calls ``callback()`` at the end of the backward that is running."""
        _C._queue_callback(callback)


class Variable(metaclass=_VariableMeta):
    """``Variable(data, requires_grad)`` returns a tensor that shares ``data``'s memory.

    >>> import pyrite as torch
    >>> x = torch.autograd.Variable(torch.ones(2), requires_grad=True)
    >>> (x * x).sum().backward(); x.grad.tolist()
    [2.0, 2.0]
    """

    _execution_engine = _Engine()

    def __new__(cls, data, requires_grad=False, volatile=None):
        if volatile is not None:
            raise NotImplementedError("Variable: volatile was replaced by `with torch.no_grad():`")
        if not isinstance(data, _C.Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(data).__name__}")
        return data.detach().requires_grad_(bool(requires_grad))
