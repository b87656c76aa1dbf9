"""Gradients: `backward`, `grad`, the recording switches, and numerical checks."""

from .. import _C
from .anomaly_mode import (
    debug_nans,
    detect_anomaly,
    is_strict_inplace,
    set_detect_anomaly,
    set_strict_inplace,
)
from .function import Function
from .grad_mode import (
    enable_grad,
    inference_mode,
    is_inference_mode_enabled,
    is_multithreading_enabled,
    no_grad,
    set_grad_enabled,
    set_multithreading_enabled,
)
from .variable import Variable

__all__ = [
    "Function",
    "Variable",
    "backward",
    "debug_nans",
    "detect_anomaly",
    "enable_grad",
    "forward_ad",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "inference_mode",
    "is_grad_enabled",
    "is_multithreading_enabled",
    "is_strict_inplace",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
    "set_multithreading_enabled",
    "set_strict_inplace",
]

is_grad_enabled = _C.is_grad_enabled
SavedTensor = _C.SavedTensor


def _as_tuple(value):
    return (
        (value,)
        if isinstance(value, _C.Tensor) or (hasattr(value, "output_nr") and not hasattr(value, "shape"))
        else tuple(value)
    )


def _grad_tuple(outputs, grads, op):
    """One gradient per output; None means ones, allowed for one-element outputs only."""
    if grads is None:
        grads = (None,) * len(outputs)
    else:
        grads = (grads,) if isinstance(grads, _C.Tensor) else tuple(grads)
    if len(grads) != len(outputs):
        raise RuntimeError(f"{op}: got {len(outputs)} tensors and {len(grads)} gradients")
    filled = []
    for i, (out, grad) in enumerate(zip(outputs, grads)):
        if grad is None or not isinstance(out, _C.Tensor):
            if grad is None and isinstance(out, _C.Tensor) and out.requires_grad and out.numel() != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            filled.append(grad)
        else:
            if tuple(grad.shape) != tuple(out.shape):
                i = len(filled)
                raise RuntimeError(
                    f"Mismatch in shape: grad_output[{i}] has a shape of {grad.shape} and output[{i}] has a shape of "
                    f"{out.shape}."
                )
            filled.append(grad)
    return tuple(filled)


def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, inputs=None):
    """Sums gradients of ``tensors`` into the ``.grad`` of the leaves they depend on.

    ``grad_tensors`` are the vectors of the vector-Jacobian product, one per tensor (None for scalars).
    With ``inputs``, only these receive gradients. Raises RuntimeError where a non-scalar has no gradient
    given, where the graph was already freed, or where ``inputs`` is empty.

    >>> import pyrite as torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> torch.autograd.backward((x * 3).sum())
    >>> x.grad.tolist()
    [3.0, 3.0]
    """
    tensors = _as_tuple(tensors)
    if inputs is not None:
        inputs = _as_tuple(inputs)
        if not inputs:
            raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    grads = _grad_tuple(tensors, grad_tensors, "backward")
    retain = create_graph if retain_graph is None else retain_graph
    _C._backward(tensors, grads, retain, create_graph, inputs, True)


def grad(
    outputs,
    inputs,
    grad_outputs=None,
    retain_graph=None,
    create_graph=False,
    only_inputs=True,
    allow_unused=None,
    is_grads_batched=False,
    materialize_grads=False,
):
    """Returns the gradients of ``outputs`` with respect to ``inputs``, without touching any ``.grad``.

    With ``is_grads_batched`` dimension 0 of every ``grad_outputs`` counts so many vectors, and the results have it
    too: as many passes in one. Raises RuntimeError where an input took no part (unless ``allow_unused``;
    ``materialize_grads`` then gives zeros instead of None).

    >>> import pyrite as torch
    >>> x = torch.tensor([2.0], requires_grad=True)
    >>> torch.autograd.grad((x ** 3).sum(), x)[0].tolist()
    [12.0]
    """
    if not only_inputs:
        raise NotImplementedError("grad: only_inputs=False is not supported: call backward() to fill .grad")
    if materialize_grads and allow_unused is False:
        raise ValueError("Expected allow_unused to be True or not passed when materialize_grads=True, but got: False.")
    outputs, inputs = _as_tuple(outputs), _as_tuple(inputs)
    if allow_unused is None:
        allow_unused = materialize_grads
    if not inputs:
        raise RuntimeError("grad requires non-empty inputs: 'inputs' argument to grad() cannot be empty.")
    retain = create_graph if retain_graph is None else retain_graph
    given = () if grad_outputs is None else _as_tuple(grad_outputs)
    if any(hasattr(t, "_batched_value") for t in (*outputs, *inputs, *given)):
        from .._batching import grad as batched_grad

        seeds = given or (None,) * len(outputs)
        options = {
            "retain_graph": retain,
            "create_graph": create_graph,
            "allow_unused": True,
            "is_grads_batched": is_grads_batched,
        }
        result = batched_grad(outputs, inputs, seeds, options, grad)
        if not allow_unused and any(g is None for g in result):
            i = next(i for i, g in enumerate(result) if g is None)
            raise RuntimeError(
                f"The differentiated Tensor at index {i} appears to not have been used in the graph. Set "
                "allow_unused=True if this is the desired behavior."
            )
        return _materialized(result, inputs, create_graph) if materialize_grads else result
    # (A batch of gradients is checked by the engine.)
    grads = given if is_grads_batched else _grad_tuple(outputs, grad_outputs, "grad")
    result = _C._grad(outputs, grads, inputs, retain, create_graph, allow_unused, is_grads_batched)
    return _materialized(result, inputs, create_graph) if materialize_grads else tuple(result)


def _materialized(grads, inputs, create_graph):
    """Zeros for the inputs that took no part; with ``create_graph`` they can be differentiated again."""
    if any(g is None and not isinstance(x, _C.Tensor) for g, x in zip(grads, inputs)):
        raise RuntimeError(
            "grad: materialize_grads cannot be used when the given input is a GradientEdge: it has no values to be zeros like"
        )
    return tuple(_C.zeros_like(x, requires_grad=create_graph) if g is None else g for g, x in zip(grads, inputs))


def __getattr__(name):
    # Rarely needed in training, so loaded on first use: `import pyrite` stays fast.
    if name in ("functional", "forward_ad", "graph"):
        import importlib

        return importlib.import_module("." + name, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# At the end, because it uses what is above. Imported here and not on first use: importing the submodule later would
# put it in the place of the function.
from .gradcheck import gradcheck, gradgradcheck  # noqa: E402
