"""The backward graph as an object: nodes, edges, hooks on saved tensors and on several gradients."""

import contextlib
import threading
from typing import NamedTuple

from .. import _C
from .anomaly_mode import set_strict_inplace

__all__ = [
    "GradientEdge",
    "Node",
    "allow_mutation_on_saved_tensors",
    "disable_saved_tensors_hooks",
    "get_gradient_edge",
    "increment_version",
    "register_multi_grad_hook",
    "save_on_cpu",
    "saved_tensors_hooks",
]

Node = _C.Node


class GradientEdge(NamedTuple):
    """A place in the graph where a gradient arrives: output ``output_nr`` of ``node``.

    Takes the place of a tensor in ``inputs`` of :func:`pyrite.autograd.grad` and of ``backward``, and as a root.
    """

    node: Node
    output_nr: int


def get_gradient_edge(tensor):
    """The :class:`GradientEdge` of a tensor: its ``grad_fn``, or the ``AccumulateGrad`` node of a leaf.

    >>> import pyrite as torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> y = x * 2
    >>> edge = torch.autograd.graph.get_gradient_edge(y)
    >>> torch.autograd.grad(y.sum(), edge)[0].tolist()
    [1.0, 1.0]
    """
    if not tensor.requires_grad:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor that does not require gradients")
    return GradientEdge(*_C._edge_of(tensor))


def increment_version(tensor):
    """Tells autograd that tensors were written to by code it can't see."""
    for t in (tensor,) if isinstance(tensor, _C.Tensor) else tensor:
        t._bump_version()


_local = threading.local()


class saved_tensors_hooks:
    """While it lasts, ``pack_hook(tensor)`` is called for each tensor saved for backward; backward gets what
    ``unpack_hook`` makes of the answer. Of nested blocks the innermost counts.

    >>> import pyrite as torch
    >>> x = torch.full((2,), 3.0, requires_grad=True)
    >>> with torch.autograd.graph.saved_tensors_hooks(lambda t: t.tolist(), torch.tensor):
    ...     y = (x * x).sum()
    >>> y.backward()
    >>> x.grad.tolist()
    [6.0, 6.0]
    """

    def __init__(self, pack_hook, unpack_hook):
        self.pack_hook, self.unpack_hook = pack_hook, unpack_hook

    def __enter__(self):
        message = getattr(_local, "disabled", None)
        if message is not None:
            raise RuntimeError(message)
        _C._push_saved_tensors_hooks(self.pack_hook, self.unpack_hook)

    def __exit__(self, *args):
        _C._pop_saved_tensors_hooks()


class save_on_cpu(saved_tensors_hooks):
    """Keeps saved tensors in the CPU's memory and brings them back for backward."""

    def __init__(self, pin_memory=False, device_type="cuda"):
        def pack(tensor):
            if not pin_memory:
                return tensor.device, tensor.cpu()
            packed = _C.empty(tensor.size(), dtype=tensor.dtype, pin_memory=tensor.device.type == device_type)
            packed.copy_(tensor)
            return tensor.device, packed

        def unpack(packed):
            device, tensor = packed
            return tensor.to(device, non_blocking=pin_memory)

        super().__init__(pack, unpack)


@contextlib.contextmanager
def disable_saved_tensors_hooks(error_message):
    """While it lasts, entering :class:`saved_tensors_hooks` raises RuntimeError with this message."""
    before = getattr(_local, "disabled", None)
    _local.disabled = error_message
    try:
        yield
    finally:
        _local.disabled = before


class _MutationContext:
    def clear(self):
        """Nothing to do: copies die with the graphs that need them."""


@contextlib.contextmanager
def allow_mutation_on_saved_tensors():
    """Saved tensors may be written to; their graphs get copies. Pyrite's default, also where
    :class:`~pyrite.autograd.set_strict_inplace` is on."""
    if getattr(_local, "mutable", False):
        raise RuntimeError("allow_mutation_on_saved_tensors contexts cannot be nested")
    _local.mutable = True
    try:
        with set_strict_inplace(False):
            yield _MutationContext()
    finally:
        _local.mutable = False


class _MultiHandle:
    def __init__(self, handles, at_end=None):
        self.handles = tuple(handles)
        self.at_end = at_end

    def remove(self):
        for h in self.handles:
            h.remove()
        if self.at_end is not None:
            self.at_end()
            self.at_end = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.remove()


def register_multi_grad_hook(tensors, fn, *, mode="all"):
    """Calls ``fn`` once per backward: with all gradients of ``tensors`` when the last one of those that take part
    is there (None for the others), or, with ``mode="any"``, with the first gradient that is there.

    >>> import pyrite as torch
    >>> a, b = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    >>> handle = torch.autograd.graph.register_multi_grad_hook((a, b), lambda grads: print(len(grads)))
    >>> (a * b).sum().backward()
    2
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got: {mode}")
    tensors = tuple(tensors)
    for t in tensors:
        if not t.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    lock = threading.Lock()
    runs = {}  # id of the backward -> what has arrived

    if mode == "any":

        def hook(grad):
            run = _C._backward_id()
            with lock:
                first = run not in runs
                if first:
                    # Backwards of several threads may be under way; those before the last thousand are over.
                    if len(runs) > 1000:
                        del runs[next(iter(runs))]
                    runs[run] = True
            if first:
                fn(grad)

        return _MultiHandle(t.register_hook(hook) for t in tensors)

    def make(index):
        def hook(grad):
            run = _C._backward_id()
            with lock:
                if run not in runs:
                    # [gradients, how many are still to come]
                    runs[run] = [[None] * len(tensors), _C._count_reached(tensors)]
                state = runs[run]
                state[0][index] = grad
                state[1] -= 1
                done = state[1] <= 0
                if done:
                    del runs[run]
            if done:
                fn(state[0])

        return hook

    _C._note_reached(True)
    return _MultiHandle([t.register_hook(make(i)) for i, t in enumerate(tensors)], lambda: _C._note_reached(False))
