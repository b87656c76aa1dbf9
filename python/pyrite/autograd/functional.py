"""Derivatives of functions as functions: Jacobians, Hessians and their products with vectors."""

from .. import _C
from . import grad as _grad
from .grad_mode import enable_grad

Tensor = _C.Tensor


def _pack(value, what):
    single = isinstance(value, Tensor)
    items = (value,) if single else tuple(value)
    for i, item in enumerate(items):
        if not isinstance(item, Tensor):
            raise TypeError(
                f"The {what} given must be either a Tensor or a tuple of Tensors, but the value at index {i} has type {type(item).__name__}"
            )
    return items, single


def _prepare(inputs, create_graph):
    # A view keeps the caller's tensors out of the new graph, or in it when the result must be differentiable.
    return tuple(
        x.view_as(x) if create_graph and x.requires_grad else x.detach().requires_grad_() for x in inputs
    )  # fmt: skip


def _call(func, inputs):
    return _pack(func(*inputs), "outputs of the user-provided function")


def _grads(outputs, inputs, v, create_graph, strict, what):
    """Vector-Jacobian product; inputs that don't matter give zeros, or an error with ``strict``."""
    used = [(o, g) for o, g in zip(outputs, v) if o.requires_grad]
    if len(used) < len(outputs) and strict:
        raise RuntimeError(
            f"{what}: an output of the user-provided function is independent of the inputs. This is not allowed in strict mode."
        )
    if not used:
        return tuple(_C.zeros_like(x, requires_grad=False) for x in inputs)
    grads = _grad(
        [o for o, _ in used],
        inputs,
        [g for _, g in used],
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
    )
    for i, g in enumerate(grads):
        if g is None and strict:
            raise RuntimeError(
                f"{what}: The output of the user-provided function is independent of input {i}. This is not allowed in strict mode."
            )
    return tuple(_C.zeros_like(x, requires_grad=False) if g is None else g for g, x in zip(grads, inputs))


def _vector(v, like, what):
    if v is None:
        if any(x.numel() != 1 for x in like) or len(like) != 1:
            raise RuntimeError(f"The vector v can only be None if {what} contains a single element.")
        return tuple(_C.ones_like(x, requires_grad=False) for x in like)
    items, _ = _pack(v, "vectors")
    if len(items) != len(like):
        raise RuntimeError(f"v has invalid length: {len(like)} tensors are needed, got {len(items)}")
    for i, (a, b) in enumerate(zip(items, like)):
        if tuple(a.shape) != tuple(b.shape):
            raise RuntimeError(f"v has invalid size: should be {tuple(b.shape)} but got {tuple(a.shape)} at index {i}")
    return items


def _unpack(items, single):
    return items[0] if single else tuple(items)


def _finish(items, create_graph):
    return tuple(items) if create_graph else tuple(x.detach() for x in items)


def vjp(func, inputs, v=None, create_graph=False, strict=False):
    """``(func(*inputs), v^T J)``.

    >>> import pyrite as torch
    >>> torch.autograd.functional.vjp(lambda x: x * x, torch.tensor([3.0]), torch.ones(1))[1].tolist()
    [6.0]
    """
    with enable_grad():
        inputs, single = _pack(inputs, "inputs")
        inputs = _prepare(inputs, create_graph)
        outputs, single_out = _call(func, inputs)
        v = _vector(v, outputs, "the user-provided function's output")
        grads = _grads(outputs, inputs, v, create_graph, strict, "vjp")
    return _unpack(_finish(outputs, create_graph), single_out), _unpack(_finish(grads, create_graph), single)


def jvp(func, inputs, v=None, create_graph=False, strict=False):
    """``(func(*inputs), J v)``, by differentiating the vector-Jacobian product once more.

    >>> import pyrite as torch
    >>> torch.autograd.functional.jvp(lambda x: x * x, torch.tensor([3.0]), torch.ones(1))[1].tolist()
    [6.0]
    """
    with enable_grad():
        inputs, _ = _pack(inputs, "inputs")
        inputs = _prepare(inputs, create_graph)
        v = _vector(v, inputs, "the input")
        outputs, single_out = _call(func, inputs)
        dummies = tuple(_C.zeros_like(o, requires_grad=False).requires_grad_() for o in outputs)
        grads = _grads(outputs, inputs, dummies, True, strict, "jvp")
        # vjp is linear in the dummies, so its derivative along v is J v, wherever the dummies stand.
        result = _grads(grads, dummies, v, create_graph, False, "jvp")
    return _unpack(_finish(outputs, create_graph), single_out), _unpack(_finish(result, create_graph), single_out)


def jacobian(func, inputs, create_graph=False, strict=False, vectorize=False, strategy="reverse-mode"):
    """The Jacobian: shape (*output, *input); tuples of them for several outputs or inputs.

    ``strategy="forward-mode"`` computes all input elements at once, "reverse-mode" one output element at a time, or
    many in one backward with ``vectorize``. ``strict`` makes it an error if an output does not depend on an input.

    >>> import pyrite as torch
    >>> torch.autograd.functional.jacobian(lambda x: x * x, torch.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError('Expected strategy to be either "forward-mode" or "reverse-mode"')
    if strict and (vectorize or strategy == "forward-mode"):
        raise RuntimeError(
            "torch.autograd.functional.jacobian: `strict=True` and `vectorize=True` (or forward mode) are not supported "
            "together. Please either set `strict=False` or `vectorize=False`."
        )
    if strategy == "forward-mode":
        return _forward_jacobian(func, inputs, create_graph)
    with enable_grad():
        inputs, single = _pack(inputs, "inputs")
        inputs = _prepare(inputs, create_graph)
        outputs, single_out = _call(func, inputs)
        rows = []
        for out in outputs:
            if vectorize:
                from ..func._transforms import jacobian_columns

                rows.append(tuple(jacobian_columns(out, inputs, create_graph)))
                continue
            columns = []
            for k in range(out.numel()):
                v = _C.zeros(out.numel(), dtype=out.dtype, device=out.device)
                v[k] = 1
                columns.append(_grads((out,), inputs, (v.reshape(out.shape),), create_graph, strict, "jacobian"))
            rows.append(
                tuple(
                    _C.stack([c[i] for c in columns]).reshape((*out.shape, *x.shape))
                    if columns
                    else _C.zeros((*out.shape, *x.shape), dtype=x.dtype)
                    for i, x in enumerate(inputs)
                )
            )
    rows = [_finish(row, create_graph) for row in rows]
    return _unpack([_unpack(row, single) for row in rows], single_out)


def _forward_jacobian(func, inputs, create_graph):
    from ..func import jacfwd

    packed, single = _pack(inputs, "inputs")
    single_out = [False]

    def outputs(*xs):
        outs, single_out[0] = _call(func, xs)
        return outs

    with enable_grad():
        xs = _prepare(packed, create_graph)
        rows = jacfwd(outputs, argnums=tuple(range(len(xs))))(*xs)
    rows = [_finish(row, create_graph) for row in rows]
    return _unpack([_unpack(row, single) for row in rows], single_out[0])


def _scalar(func, what):
    def checked(*args):
        out = func(*args)
        items, _ = _pack(out, "outputs of the user-provided function")
        if len(items) != 1 or items[0].numel() != 1:
            raise RuntimeError(f"The Tensor returned by the function given to {what} should contain a single element")
        return items[0].reshape(())

    return checked


def hessian(func, inputs, create_graph=False, strict=False, vectorize=False, outer_jacobian_strategy="reverse-mode"):
    """The matrix of second derivatives of a scalar function: shape (*input, *input).

    >>> import pyrite as torch
    >>> torch.autograd.functional.hessian(lambda x: (x ** 3).sum(), torch.tensor([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    if outer_jacobian_strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError('Expected strategy to be either "forward-mode" or "reverse-mode"')
    packed, single = _pack(inputs, "inputs")
    scalar = _scalar(func, "hessian")

    def gradient(*xs):
        return _grads((scalar(*xs),), xs, (_C.ones((), dtype=xs[0].dtype),), True, strict, "hessian")

    result = jacobian(gradient, packed, create_graph, strict, vectorize, outer_jacobian_strategy)
    return result[0][0] if single else result


def vhp(func, inputs, v=None, create_graph=False, strict=False):
    """``(func(*inputs), v^T H)`` for a scalar function.

    >>> import pyrite as torch
    >>> torch.autograd.functional.vhp(lambda x: (x ** 3).sum(), torch.tensor([2.0]), torch.ones(1))[1].tolist()
    [12.0]
    """
    with enable_grad():
        inputs, single = _pack(inputs, "inputs")
        v = _vector(v, inputs, "the input")
        inputs = _prepare(inputs, create_graph)
        out = _scalar(func, "vhp")(*inputs)
        grads = _grads((out,), inputs, (_C.ones_like(out, requires_grad=False),), True, strict, "vhp")
        result = _grads(grads, inputs, v, create_graph, strict, "vhp")
    return _finish((out,), create_graph)[0], _unpack(_finish(result, create_graph), single)


def hvp(func, inputs, v=None, create_graph=False, strict=False):
    """``(func(*inputs), H v)`` for a scalar function; the Hessian is symmetric, so it equals :func:`vhp`.

    >>> import pyrite as torch
    >>> torch.autograd.functional.hvp(lambda x: (x ** 3).sum(), torch.tensor([2.0]), torch.ones(1))[1].tolist()
    [12.0]
    """
    return vhp(func, inputs, v, create_graph, strict)
