"""`gradcheck` and `gradgradcheck`: analytic gradients against finite differences, in float64."""

from .. import _C
from . import grad as _grad
from .grad_mode import enable_grad, no_grad

Tensor = _C.Tensor


class GradcheckError(RuntimeError):
    """The analytic and the numerical gradient differ."""


def _tuple(value):
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _differentiable(outputs):
    return [o for o in _tuple(outputs) if isinstance(o, Tensor) and (o.is_floating_point() or o.is_complex())]


def gradcheck(
    func,
    inputs,
    *,
    eps=1e-6,
    atol=1e-5,
    rtol=1e-3,
    raise_exception=True,
    nondet_tol=0.0,
    check_undefined_grad=True,
    check_grad_dtypes=False,
    check_batched_grad=False,
    check_batched_forward_grad=False,
    check_forward_ad=False,
    check_backward_ad=True,
    fast_mode=False,
    masked=None,
):
    """True if the gradients of ``func(*inputs)`` agree with central differences.

    Args:
        inputs: tensors; those that require gradients must be float64 to be meaningful (others are warned about).
        fast_mode: compares one random projection instead of every entry of every Jacobian.
        nondet_tol: how far two backward passes may differ.
        check_forward_ad, check_backward_ad: which of the two modes to check.
        check_batched_grad, check_batched_forward_grad: also that gradients (or tangents) under vmap are those of a loop.

    Raises GradcheckError (a RuntimeError) that names input, output and both values; returns False instead with
    ``raise_exception=False``.

    Gradients of complex inputs follow PyTorch's convention: for a real loss ``L``, ``grad`` is the direction with
    ``dL = Re(sum(conj(grad) * dx))``.

    >>> import pyrite as torch
    >>> x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    >>> torch.autograd.gradcheck(lambda t: (t * t).sum(), (x,))
    True
    """
    if masked:
        raise NotImplementedError("gradcheck: masked=True is about sparse tensors, which are not supported")
    if not (check_forward_ad or check_backward_ad):
        raise AssertionError("Expected at least one of check_forward_ad and check_backward_ad to be True")
    if check_batched_grad and not check_backward_ad:
        raise AssertionError("Setting check_batched_grad=True requires check_backward_ad to be True")
    if check_batched_forward_grad and not check_forward_ad:
        raise AssertionError("Setting check_batched_forward_grad=True requires check_forward_ad to be True")
    inputs = _tuple(inputs)
    try:
        if check_forward_ad:
            _check_forward(func, inputs, eps, atol, rtol, check_batched_forward_grad)
        if not check_backward_ad:
            return True
        if check_batched_grad:
            _check_batched(func, inputs, atol, rtol)
        _check(func, inputs, eps, atol, rtol, nondet_tol, check_undefined_grad, check_grad_dtypes, fast_mode)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _check(func, inputs, eps, atol, rtol, nondet_tol, check_undefined_grad, check_grad_dtypes, fast_mode):
    wanted = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not wanted:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them have requires_grad=True."
        )
    for i in wanted:
        if inputs[i].dtype not in (_C.float64, _C.complex128):
            import warnings

            warnings.warn(
                f"Input #{i} requires gradient and is not a double precision floating point. This check will likely fail.",
                stacklevel=4,
            )
    with enable_grad():
        outputs = _differentiable(func(*inputs))
    if not any(o.requires_grad for o in outputs):
        with no_grad():
            for i in wanted:
                direction = _C.ones_like(inputs[i], requires_grad=False)
                for o, d in enumerate(_numeric(func, inputs, i, direction, eps)):
                    if float(d.abs().max() if d.numel() else 0) > atol:
                        raise GradcheckError(
                            f"Numerical gradient for function expected to be zero, but output {o} changes with input {i}"
                        )
        return
    for o, output in enumerate(outputs):
        if not output.requires_grad:
            continue
        if fast_mode:
            _check_direction(func, inputs, wanted, o, output, eps, atol, rtol)
        else:
            _check_jacobian(func, inputs, wanted, o, output, eps, atol, rtol)
        _check_details(inputs, wanted, o, output, nondet_tol, check_undefined_grad, check_grad_dtypes)


def _tangents(func, inputs, i, direction):
    """The outputs' tangents along ``direction`` of input ``i``, by forward mode."""
    from . import forward_ad

    with forward_ad.dual_level():
        args = [x.detach() if isinstance(x, Tensor) else x for x in inputs]
        # A copy: functions that write to their argument write to its tangent.
        args[i] = forward_ad.make_dual(args[i], direction.clone())
        pairs = [forward_ad.unpack_dual(o) for o in _differentiable(func(*args))]
    return [_C.zeros_like(p, requires_grad=False) if t is None else t.detach() for p, t in pairs]


def _check_forward(func, inputs, eps, atol, rtol, batched):
    for i, x in enumerate(inputs):
        if not (isinstance(x, Tensor) and x.requires_grad):
            continue
        directions = [_C.randn(tuple(x.shape), dtype=x.dtype) for _ in range(2)]
        each = [_tangents(func, inputs, i, v) for v in directions]
        for o, (tangent, numeric) in enumerate(zip(each[0], _numeric(func, inputs, i, directions[0], eps))):
            if not _close(tangent, numeric, atol, rtol):
                raise GradcheckError(
                    f"Jacobian computed with forward mode mismatch for output {o} with respect to input {i} along a random "
                    f"direction,\nnumerical:{numeric}\nanalytical:{tangent}\n"
                )
        if batched:
            from ..func import vmap

            together = vmap(lambda v, i=i: tuple(_tangents(func, inputs, i, v)))(_C.stack(directions))
            _compare_batched(together, each, "forward mode", i, atol, rtol)


def _check_batched(func, inputs, atol, rtol):
    from ..func import vmap

    wanted = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    with enable_grad():
        outputs = [o for o in _differentiable(func(*inputs)) if o.requires_grad]
    for o, out in enumerate(outputs):

        def pull(v, out=out):
            got = _grad(out, wanted, v, retain_graph=True, allow_unused=True)
            return tuple(_C.zeros_like(x, requires_grad=False) if g is None else g for g, x in zip(got, wanted))

        vs = [_C.randn(tuple(out.shape), dtype=out.dtype) for _ in range(2)]
        _compare_batched(vmap(pull)(_C.stack(vs)), [pull(v) for v in vs], "backward", o, atol, rtol)


def _compare_batched(together, each, what, i, atol, rtol):
    for k, values in enumerate(each):
        for batch, value in zip(together, values):
            if not _close(batch[k], value, atol, rtol):
                raise GradcheckError(f"gradcheck: {what} under vmap differs from the loop (number {i})")


def _numeric(func, inputs, i, direction, eps):
    """Central difference of all outputs along ``direction`` of input ``i``."""
    results = []
    with no_grad():
        for sign in (1, -1):
            # A copy: writing into the input would make what the graph saved stale.
            moved = inputs[i].detach().clone().add_(direction, alpha=sign * eps).requires_grad_()
            args = (*inputs[:i], moved, *inputs[i + 1 :])
            results.append([o.detach().clone() for o in _differentiable(func(*args))])
    return [(a - b) / (2 * eps) for a, b in zip(*results)]


def _vjp(output, inputs, wanted, v):
    grads = _grad(output, [inputs[i] for i in wanted], v, retain_graph=True, allow_unused=True)
    return [_C.zeros_like(inputs[i], requires_grad=False) if g is None else g.detach() for i, g in zip(wanted, grads)]


def _reals(t):
    """The elements as one vector of real numbers: two for each complex one."""
    return (_C.view_as_real(t) if t.is_complex() else t).reshape(-1)


def _basis(t):
    """The directions in which a tensor like ``t`` can move: each element along 1, complex ones along i as well."""
    units = (1, 1j) if t.is_complex() else (1,)
    for k in range(t.numel()):
        for unit in units:
            v = _C.zeros(t.numel(), dtype=t.dtype)
            v[k] = unit
            yield v.reshape(t.shape)


def _close(a, b, atol, rtol):
    return bool(((a - b).abs() <= atol + rtol * b.abs()).all())


def _check_direction(func, inputs, wanted, o, output, eps, atol, rtol):
    v = _C.randn(tuple(output.shape), dtype=output.dtype)
    grads = _vjp(output, inputs, wanted, v)
    for i, g in zip(wanted, grads):
        u = _C.randn(tuple(inputs[i].shape), dtype=inputs[i].dtype)
        u = u / (u.norm() + 1e-30)
        numeric = (_reals(_numeric(func, inputs, i, u, eps)[o]) * _reals(v)).sum()
        analytic = (_reals(g) * _reals(u)).sum()
        if not _close(analytic, numeric, atol, rtol):
            raise GradcheckError(
                f"Jacobian mismatch for output {o} with respect to input {i} along a random direction:\n"
                f"numerical: {float(numeric)!r}\nanalytical: {float(analytic)!r}"
            )


def _check_jacobian(func, inputs, wanted, o, output, eps, atol, rtol):
    columns = [_vjp(output, inputs, wanted, v) for v in _basis(output)]
    for position, i in enumerate(wanted):
        if not inputs[i].numel() or not output.numel():
            continue
        analytic = _C.stack([_reals(c[position]) for c in columns], 1)
        numeric = _C.stack([_reals(_numeric(func, inputs, i, u, eps)[o]) for u in _basis(inputs[i])], 0)
        if not _close(analytic, numeric, atol, rtol):
            raise GradcheckError(
                f"Jacobian mismatch for output {o} with respect to input {i},\nnumerical:{numeric}\nanalytical:{analytic}\n"
            )


def _check_details(inputs, wanted, o, output, nondet_tol, check_undefined_grad, check_grad_dtypes):
    v = _C.ones_like(output, requires_grad=False)
    first, second = _vjp(output, inputs, wanted, v), _vjp(output, inputs, wanted, v)
    for i, a, b in zip(wanted, first, second):
        if tuple(a.shape) != tuple(inputs[i].shape):
            raise GradcheckError(f"grad of input {i} has shape {tuple(a.shape)}, the input {tuple(inputs[i].shape)}")
        if check_grad_dtypes and a.dtype != inputs[i].dtype:
            raise GradcheckError(f"grad of input {i} has dtype {a.dtype}, the input {inputs[i].dtype}")
        if a.numel() and float((a - b).abs().max()) > nondet_tol:
            raise GradcheckError(
                f"Backward is not reentrant, i.e., running backward twice of output {o} gives different gradients for input {i}"
            )
    if check_undefined_grad:
        # A zero cotangent must give zero gradients, whatever the graph does with it.
        for i, g in zip(wanted, _vjp(output, inputs, wanted, v * 0)):
            if g.numel() and bool((g != 0).any()):
                raise GradcheckError(
                    f"backward of output {o} with zero gradients gives nonzero gradients for input {i}"
                )


def gradgradcheck(
    func,
    inputs,
    grad_outputs=None,
    *,
    eps=1e-6,
    atol=1e-5,
    rtol=1e-3,
    gen_non_contig_grad_outputs=False,
    raise_exception=True,
    nondet_tol=0.0,
    check_undefined_grad=True,
    check_grad_dtypes=False,
    check_batched_grad=False,
    check_fwd_over_rev=False,
    check_rev_over_rev=True,
    fast_mode=False,
    masked=False,
):
    """:func:`gradcheck` of the gradients themselves: checks second derivatives.

    ``grad_outputs`` are the cotangents, random by default. ``check_fwd_over_rev`` and ``check_rev_over_rev`` say by which
    mode the gradients are differentiated.

    >>> import pyrite as torch
    >>> x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    >>> torch.autograd.gradgradcheck(lambda t: (t ** 3).sum(), (x,))
    True
    """
    inputs = _tuple(inputs)
    outputs = [o for o in _differentiable(func(*inputs)) if o.requires_grad]
    if grad_outputs is None:
        cotangents = [_C.randn(tuple(o.shape), dtype=o.dtype, device=o.device) for o in outputs]
        if gen_non_contig_grad_outputs:
            cotangents = [_C.stack([c, c], -1)[..., 0] for c in cotangents]
        cotangents = [c.detach().requires_grad_() for c in cotangents]
    else:
        cotangents = list(_tuple(grad_outputs))
    n = len(inputs)
    wanted = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]

    from ..func._transforms import own as argument

    def gradients(*args):
        own, given = args[:n], args[n:]
        with enable_grad():  # also while gradcheck measures differences without a graph
            # Forward mode hands in dual tensors that require no grad.
            own = [argument(x, True) if i in wanted and not x.requires_grad else x for i, x in enumerate(own)]
            outs = [o for o in _differentiable(func(*own)) if o.requires_grad]
            grads = _grad(outs, [own[i] for i in wanted], given, create_graph=True, allow_unused=True)
        return tuple(g for g in grads if g is not None)

    return gradcheck(
        gradients, (*inputs, *cotangents), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception,
        nondet_tol=nondet_tol, check_undefined_grad=check_undefined_grad, check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad, check_forward_ad=check_fwd_over_rev,
        check_backward_ad=check_rev_over_rev, fast_mode=fast_mode, masked=masked,
    )  # fmt: skip
