"""`Function`: differentiable operations written in Python, with their own forward and backward."""

import functools
import warnings

from .. import _C
from .grad_mode import no_grad

__all__ = ["Function", "FunctionCtx", "InplaceFunction", "once_differentiable"]


class FunctionCtx:
    """What ``forward`` leaves for ``backward``; any attribute may be set on it."""

    _dirty = None
    _non_differentiable = None
    _to_save = None
    _saved = None
    _to_save_forward = None
    _in_jvp = False
    _materialize_grads = True
    _materialize_non_diff_grads = True
    needs_input_grad = ()

    def save_for_backward(self, *tensors):
        """Keeps tensors for ``backward``, where ``saved_tensors`` gives them back. Call it once, in ``forward``."""
        self._to_save = tensors

    def save_for_forward(self, *tensors):
        """Keeps tensors for ``jvp``, where ``saved_tensors`` gives them back."""
        self._to_save_forward = tensors

    def maybe_clear_saved_tensors(self):
        """In ``backward``: lets the saved tensors go before it ends, if the graph is not kept for another one."""
        if self._saved is not None:
            self._saved.clear()

    def mark_dirty(self, *tensors):
        """Says that these inputs were written to; they must be returned as outputs."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors):
        """Says that no gradient flows into these outputs."""
        self._non_differentiable = tensors

    def set_materialize_grads(self, value):
        """False: ``backward`` gets None instead of zeros for outputs without a gradient."""
        self._materialize_grads = bool(value)

    @property
    def saved_tensors(self):
        if self._in_jvp:
            return () if self._to_save_forward is None else tuple(self._to_save_forward)
        if self._saved is not None:
            return self._saved.unpack()
        return () if self._to_save is None else tuple(self._to_save)

    @property
    def _raw_saved_tensors(self):
        return () if self._saved is None else self._saved.raw()

    @property
    def saved_variables(self):
        """The old name of :attr:`saved_tensors`."""
        warnings.warn("'saved_variables' is deprecated; use 'saved_tensors'", DeprecationWarning, stacklevel=2)
        return self.saved_tensors

    def _node(self):
        node = None if self._saved is None else self._saved.grad_fn()
        if node is None:
            raise RuntimeError("the ctx of a Function is a node of the graph only once forward was recorded")
        return node

    def name(self):
        """The node's name: that of the class, and "Backward"."""
        return self._node().name()

    @property
    def next_functions(self):
        return self._node().next_functions

    @property
    def metadata(self):
        """A dict of the user's own."""
        return self._node().metadata

    def register_hook(self, hook):
        """Calls ``hook(grad_inputs, grad_outputs)`` after this node ran."""
        return self._node().register_hook(hook)

    def register_prehook(self, hook):
        """Calls ``hook(grad_outputs)`` before this node runs."""
        return self._node().register_prehook(hook)


class Function:
    """Base of user-defined differentiable operations.

    >>> import pyrite as torch
    >>> class Double(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return x * 2
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         return grad * 2
    >>> x = torch.ones(2, requires_grad=True)
    >>> Double.apply(x).sum().backward()
    >>> x.grad.tolist()
    [2.0, 2.0]
    """

    def __init__(self, *args, **kwargs):
        warnings.warn(
            f"{type(self)} should not be instantiated. Methods on autograd functions are all static, so you should "
            "invoke them on the class itself. Instantiating an autograd function will raise an error in the future.",
            DeprecationWarning,
            stacklevel=2,
        )

    def __call__(self, *args, **kwargs):
        raise RuntimeError(
            "Legacy autograd function with non-static forward method is deprecated. Please use new-style autograd function "
            "with static forward method: call `apply` of the class."
        )

    @staticmethod
    def forward(*args, **kwargs):
        """``forward(ctx, *args)``, or ``forward(*args)`` together with :meth:`setup_context`."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Fills ``ctx`` where ``forward`` takes none."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx, *grad_outputs):
        """Gradients of the inputs, one per argument of ``forward`` (None where there is none)."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with "
            "backward mode AD."
        )

    # PyTorch's other name for it.
    vjp = backward

    @staticmethod
    def jvp(ctx, *tangents):
        """Tangents of the outputs from those of the inputs (None: zero), for forward mode.

        Without it, forward mode differentiates ``backward``.
        """
        raise NotImplementedError(
            "You must implement the jvp function for custom autograd.Function to use it with forward mode AD."
        )

    # True: `vmap` vectorizes forward, backward and jvp by running them on tensors with a batch dimension.
    generate_vmap_rule = False

    @staticmethod
    def vmap(info, in_dims, *args):
        """``(output, out_dims)`` for arguments that have a batch dimension where ``in_dims`` says so."""
        raise NotImplementedError(
            "To use autograd.Function with vmap, you must either override the vmap static method or set "
            "generate_vmap_rule=True."
        )

    @classmethod
    def _has_jvp(cls):
        return cls.jvp is not Function.jvp

    @classmethod
    def _run_jvp(cls, ctx, tangents):
        ctx._in_jvp = True
        try:
            out = cls.jvp(ctx, *tangents)
        finally:
            ctx._in_jvp = False
        return out if isinstance(out, tuple) else (out,)

    @classmethod
    def _run_forward(cls, ctx, args):
        if cls.setup_context is Function.setup_context:
            return cls.forward(ctx, *args)
        output = cls.forward(*args)
        cls.setup_context(ctx, args, output)
        return output

    @classmethod
    def _run_backward(cls, ctx, grads):
        backward = cls.backward
        if backward is Function.backward:
            backward = cls.vjp
        elif cls.vjp is not Function.vjp:
            raise RuntimeError(
                "Implementing both 'backward' and 'vjp' for a custom Function is not allowed. You should only implement one "
                "of them."
            )
        return backward(ctx, *grads)

    @classmethod
    def apply(cls, *args, **kwargs):
        """Runs ``forward`` and records it."""
        if kwargs:
            # Arguments by name become positional, as forward declares them.
            import inspect

            names = list(inspect.signature(cls.forward).parameters)
            if cls.setup_context is Function.setup_context:
                names = names[1:]
            bound = dict(zip(names, args), **kwargs)
            args = tuple(bound[n] for n in names if n in bound)
        if cls.setup_context is not Function.setup_context and getattr(cls.forward, "__defaults__", None):
            # `setup_context` sees all arguments, those that were left out as well.
            # (A class method's code counts the class.)
            missing = cls.forward.__code__.co_argcount - len(args) - hasattr(cls.forward, "__self__")
            if 0 < missing <= len(cls.forward.__defaults__):
                args = (*args, *cls.forward.__defaults__[-missing:])
        if any(hasattr(a, "_batched_value") for a in args):
            from .._batching import apply_function

            return apply_function(cls, args)
        return _C._function_apply(cls, FunctionCtx(), cls._run_forward, args)


class InplaceFunction(Function):
    """A :class:`Function` whose ``forward`` writes to an input and says so by ``ctx.mark_dirty``."""


def once_differentiable(backward):
    """Decorator of a ``backward`` that can't be differentiated itself."""

    @functools.wraps(backward)
    def wrapper(ctx, *grads):
        recording = _C.is_grad_enabled() and any(isinstance(g, _C.Tensor) and g.requires_grad for g in grads)
        with no_grad():
            outputs = backward(ctx, *grads)
        if not recording:
            return outputs
        single = not isinstance(outputs, tuple)
        failing = [
            _Fail.apply(o, *[g for g in grads if isinstance(g, _C.Tensor)]) if isinstance(o, _C.Tensor) else o
            for o in ((outputs,) if single else outputs)
        ]
        return failing[0] if single else tuple(failing)

    return wrapper


class _Fail(Function):
    @staticmethod
    def forward(ctx, output, *grads):
        return output.detach().clone()

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
