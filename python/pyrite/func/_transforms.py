"""`grad`, `vjp`, `jvp`, Jacobians and Hessians of functions.

Reverse mode: each transform differentiates with respect to arguments of its own (`_C._argument`: other tensors over the
caller's data), which may lie in the history of an outer transform's. Levels therefore need no bookkeeping: a derivative
is taken with respect to particular tensors. Results are cut off from a history that holds nothing but these arguments.
Forward mode: each transform opens a level of `autograd.forward`.
"""

import functools

from .. import _C
from ..autograd import grad as _autograd_grad
from ..autograd.forward_ad import _make as _make_dual
from ..autograd.forward_ad import _unpack as _unpack_dual
from ..autograd.grad_mode import enable_grad
from ..utils._pytree import show, tree_flatten, tree_leaves, tree_map, tree_unflatten

Tensor = _C.Tensor


def _batching():
    from .. import _batching

    return _batching


def _bottom(x):
    while hasattr(x, "_batched_value"):
        x = x._batched_value
    return x


def _physical(f, x):
    return _batching().physical(f, x) if hasattr(x, "_batched_value") else f(x)


def _open_vmaps():
    import sys

    core = sys.modules.get("pyrite._batching.core")
    return core is not None and bool(core.frames())


def own(x, history, what="grad"):
    """A transform's own argument over the data of ``x``; inside vmap it has every batch dimension there is."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{what}: expected every differentiated argument to be a Tensor, got {type(x).__name__}")
    if not (x.is_floating_point() or x.is_complex()):
        raise RuntimeError(
            f"only Tensors of floating point and complex dtype can require gradients ({what} got one of dtype {x.dtype})"
        )
    if _open_vmaps():
        x = _batching().at_all_levels(x)
    return _physical(lambda t: _C._argument(t, history), x)


def _reaches_beyond(outputs, ours):
    outs = [_bottom(o) for o in outputs]
    return _C._reaches_beyond([o for o in outs if o.requires_grad], [_bottom(x) for x in ours])


def leave(tree, ours, history):
    """Results as the caller sees them: without the part of their history that is only the transform's."""

    def one(t):
        if not isinstance(t, Tensor) or not t.requires_grad:
            return t
        if history and _reaches_beyond([t], ours):
            return t
        return _physical(_C._detach_keeping_tangents, t)

    return tree_map(one, tree)


def gradients(outputs, inputs, seeds, create, keep, batched=False):
    """Vector-Jacobian product with zeros where nothing flows; ``batched``: of as many vectors as dimension 0 of the
    seeds counts."""

    def zeros(x):
        z = _C.zeros_like(x, requires_grad=False)
        return z.expand((seeds[0].shape[0], *x.shape)) if batched else z

    used = [(o, s) for o, s in zip(outputs, seeds) if o.requires_grad]
    if not used:
        return [zeros(x) for x in inputs]
    got = _autograd_grad(
        [o for o, _ in used],
        inputs,
        [s for _, s in used],
        retain_graph=keep or create,
        create_graph=create,
        allow_unused=True,
        is_grads_batched=batched,
    )
    return [zeros(x) if g is None else g for g, x in zip(got, inputs)]


# Elements of a batch of gradients that a pass works on if nobody says how many.
_AT_ONCE = 1 << 24


def passes(out, inputs, chunk_size=None):
    """The unit vectors of an output's shape, so many at a time, as batches of seeds."""
    n = out.numel()
    if chunk_size is None:
        chunk_size = max(1, _AT_ONCE // max([n, *(x.numel() for x in inputs), 1]))
    for start in range(0, n, chunk_size):
        k = min(chunk_size, n - start)
        seeds = _C.zeros(k, n, dtype=out.dtype, device=out.device)
        seeds.diagonal(start).fill_(1)
        yield seeds.reshape(k, *out.shape)


def _positions(argnums, count, what):
    single = isinstance(argnums, int)
    if not single and not (isinstance(argnums, tuple) and all(isinstance(i, int) for i in argnums)):
        raise RuntimeError(f"argnums must be int or Tuple[int, ...], got {argnums!r}")
    if not single and not argnums:
        raise RuntimeError(f"{what}: argnums must be non-empty")
    out = []
    for i in (argnums,) if single else argnums:
        if not -count <= i < count:
            raise RuntimeError(f"Got argnum={i}, but only {count} positional inputs")
        out.append(i % count)
    if len(set(out)) != len(out):
        raise RuntimeError(f"argnums elements must be unique, got {argnums}")
    return out, single


class _Call:
    """One run of a function on arguments of a transform's own."""

    def __init__(self, func, args, kwargs, argnums, has_aux, what):
        # Whether results may stay in the caller's history.
        self.history = _C.is_grad_enabled()
        positions, self.single = _positions(argnums, len(args), what)
        picked = args[positions[0]] if self.single else tuple(args[i] for i in positions)
        leaves, self.spec = tree_flatten(picked)
        with enable_grad():
            self.inputs = [own(x, self.history, what) for x in leaves]
            mine = tree_unflatten(self.inputs, self.spec)
            args = list(args)
            for i, value in zip(positions, (mine,) if self.single else mine):
                args[i] = value
            out = func(*args, **kwargs)
        self.aux = None
        if has_aux:
            if not (isinstance(out, tuple) and len(out) == 2):
                raise RuntimeError(f"{what}: output of function f should be a tuple: (output, aux) if has_aux is True")
            out, self.aux = out
        self.out = out

    def leave(self, tree):
        return leave(tree, self.inputs, self.history)

    def create(self, outputs, seeds=()):
        """Must the backward be recorded, because somebody outside may differentiate its result?"""
        if not self.history:
            return False
        return any(isinstance(s, Tensor) and s.requires_grad for s in seeds) or _reaches_beyond(outputs, self.inputs)


def grad_and_value(func, argnums=0, has_aux=False):
    """As :func:`grad`, returning ``(gradient, value)``; with ``has_aux``, ``(gradient, (value, aux))``."""

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        call = _Call(func, args, kwargs, argnums, has_aux, "grad_and_value(f)(*args)")
        out = call.out
        if not isinstance(out, Tensor):
            raise RuntimeError(
                f"grad_and_value(f)(*args): Expected f(*args) to return a scalar tensor, got {type(out)}"
            )
        if out.ndim != 0:
            raise RuntimeError(
                "grad_and_value(f)(*args): Expected f(*args) to return a scalar tensor, got tensor with "
                f"{out.ndim} dims. Maybe you wanted to use the vjp or jacrev APIs instead?"
            )
        create = call.create([out])
        with enable_grad():
            # Aux may hold on to the graph.
            got = gradients([out], call.inputs, [None], create, has_aux)
        grads = call.leave(tree_unflatten(got, call.spec))
        value = call.leave(out)
        return (grads, (value, call.leave(call.aux))) if has_aux else (grads, value)

    return wrapper


def grad(func, argnums=0, has_aux=False):
    """The gradient of a scalar function, as a function of the same arguments.

    Args:
        argnums: which arguments to differentiate (an int, or a tuple for a tuple of gradients); each may be a nested
            structure of tensors.
        has_aux: ``func`` returns ``(value, aux)``, and the result is ``(gradient, aux)``.

    Raises RuntimeError if the value is no 0-d tensor.

    >>> import pyrite as torch
    >>> from pyrite.func import grad, vmap
    >>> grad(torch.sin)(torch.tensor(0.0)).item()
    1.0
    >>> vmap(grad(grad(lambda x: x ** 3)))(torch.tensor([1.0, 2.0])).tolist()
    [6.0, 12.0]
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        g, value = both(*args, **kwargs)
        return (g, value[1]) if has_aux else g

    return wrapper


def _tensor_leaves(tree, what):
    leaves, spec = tree_flatten(tree)
    if not leaves:
        raise RuntimeError(f"{what}: Expected f to be a function that has non-empty output (got output = {tree})")
    for x in leaves:
        if not isinstance(x, Tensor):
            raise RuntimeError(f"{what}: expected f(*args) to return only tensors, got unsupported type {type(x)}")
    return leaves, spec


def vjp(func, *primals, has_aux=False):
    """``(func(*primals), vjp_fn)``: ``vjp_fn(cotangents)`` is the vector-Jacobian product, one gradient per primal.

    With ``has_aux`` the function returns ``(output, aux)``, and the result is ``(output, vjp_fn, aux)``.

    >>> import pyrite as torch
    >>> y, pull = torch.func.vjp(torch.sin, torch.tensor([0.0]))
    >>> pull(torch.tensor([2.0]))[0].tolist()
    [2.0]
    """
    if not primals:
        raise RuntimeError("vjp(f, *primals): expected at least one primal")
    call = _Call(func, primals, {}, tuple(range(len(primals))), has_aux, "vjp(f, *primals)")
    outputs, out_spec = _tensor_leaves(call.out, "vjp(f, *primals)")

    def pull(cotangents, retain_graph=True, create_graph=None):
        seeds, spec = tree_flatten(cotangents)
        if spec != out_spec:
            raise RuntimeError(
                f"Expected pytree structure of cotangents to be the same as pytree structure of outputs to the function. cotangents: {show(spec)}, primal output: {show(out_spec)}"
            )
        for o, s in zip(outputs, seeds):
            if not isinstance(s, Tensor):
                raise RuntimeError(f"vjp_fn: expected cotangents to be tensors, got {type(s)}")
            if tuple(s.shape) != tuple(o.shape):
                raise RuntimeError(
                    f"vjp_fn: Mismatch in shape: a cotangent of shape {tuple(s.shape)} for an output of shape {tuple(o.shape)}"
                )
        create = create_graph
        if create is None:
            create = _C.is_grad_enabled() and call.create(outputs, seeds)
        with enable_grad():
            got = gradients(outputs, call.inputs, seeds, create, retain_graph)
        got = tree_unflatten(got, call.spec)
        got = got if create else tree_map(lambda g: _physical(_C._detach_keeping_tangents, g), got)
        return got

    value = call.leave(call.out)
    return (value, pull, call.leave(call.aux)) if has_aux else (value, pull)


def _pair(primals, tangents, what):
    if not isinstance(primals, tuple):
        raise RuntimeError(f"{what}: Expected primals to be a tuple. E.g. it should be valid to call f(*primals).")
    flat, spec = tree_flatten(primals)
    along, spec2 = tree_flatten(tangents)
    if spec != spec2:
        raise RuntimeError(
            f"{what}: Expected primals and tangents to have the same python structure. For example, if primals is a tuple of 3 tensors, tangents also must be. Got primals with structure {show(spec)} and tangents with structure {show(spec2)}"
        )
    if not flat:
        raise RuntimeError(f"{what}: Expected primals to be non-empty")
    for x, t in zip(flat, along):
        for name, v in (("primals", x), ("tangents", t)):
            if not isinstance(v, Tensor):
                raise RuntimeError(f"{what}: Expected {name} to contain only tensors, got {type(v)}")
        if tuple(x.shape) != tuple(t.shape):
            raise RuntimeError(
                f"{what}: primal of shape {tuple(x.shape)} and tangent of shape {tuple(t.shape)}: they must be the same"
            )
    return flat, along, spec


def jvp(func, primals, tangents, *, strict=False, has_aux=False):
    """``(func(*primals), J tangents)``, by forward mode in the same run.

    ``strict`` makes it an error if an output does not depend on the primals; with ``has_aux`` the function returns
    ``(output, aux)``, and the result is ``(output, tangents, aux)``.

    >>> import pyrite as torch
    >>> torch.func.jvp(torch.sin, (torch.tensor(0.0),), (torch.tensor(2.0),))[1].item()
    2.0
    """
    what = "jvp(f, primals, tangents)"
    flat, along, spec = _pair(primals, tangents, what)
    level = _C._dual_enter()
    try:
        duals = [_make_dual(x, t.to(x.dtype) if t.dtype != x.dtype else t, level) for x, t in zip(flat, along)]
        out = func(*tree_unflatten(duals, spec))
        aux = None
        if has_aux:
            if not (isinstance(out, tuple) and len(out) == 2):
                raise RuntimeError(f"{what}: output of function f should be a tuple: (output, aux) if has_aux is True")
            out, aux = out
        outputs, out_spec = _tensor_leaves(out, what)
        pairs = [_unpack_dual(o, level) for o in outputs]
        if strict and any(t is None for _, t in pairs):
            raise RuntimeError(
                "jvp(f, primals, tangents, strict=True): The output of f is independent of the inputs. This is not allowed with strict=True."
            )
        values = tree_unflatten([p for p, _ in pairs], out_spec)
        slopes = tree_unflatten([_C.zeros_like(p, requires_grad=False) if t is None else t for p, t in pairs], out_spec)
        if has_aux:
            aux = tree_map(lambda a: _unpack_dual(a, level)[0] if isinstance(a, Tensor) else a, aux)
    finally:
        _C._dual_exit(level)
    return (values, slopes, aux) if has_aux else (values, slopes)


def linearize(func, *primals):
    """``(func(*primals), jvp_fn)``: ``jvp_fn(*tangents)`` is the Jacobian-vector product at these primals, without running
    ``func`` again.

    >>> import pyrite as torch
    >>> y, push = torch.func.linearize(torch.sin, torch.tensor(0.0))
    >>> push(torch.tensor(3.0)).item()
    3.0
    """
    call = _Call(func, primals, {}, tuple(range(len(primals))), False, "linearize(f, *primals)")
    outputs, out_spec = _tensor_leaves(call.out, "linearize(f, *primals)")
    with enable_grad():
        # The backward is linear in the cotangents: its transpose, taken once more, is the map forwards.
        seeds = [own(_C.zeros_like(o, requires_grad=False), False, "linearize") for o in outputs]
        back = gradients(outputs, call.inputs, seeds, True, True)

    def push(*tangents):
        along, spec = tree_flatten(tangents)
        if spec != call.spec:
            raise RuntimeError(
                f"linearize: expected tangents of structure {show(call.spec)}, as the primals', got {show(spec)}"
            )
        for x, t in zip(call.inputs, along):
            if not isinstance(t, Tensor) or tuple(t.shape) != tuple(x.shape):
                raise RuntimeError(f"linearize: expected a tangent of shape {tuple(x.shape)}, as the primal's")
        create = _C.is_grad_enabled() and (any(t.requires_grad for t in along) or call.create(outputs))
        with enable_grad():
            got = gradients(back, seeds, along, create, True)
        if not create:
            got = [_physical(_C._detach_keeping_tangents, g) for g in got]
        return tree_unflatten(got, out_spec)

    return call.leave(call.out), push


# ---- Jacobians ----------------------------------------------------------------------------------------


def _check_chunk(chunk_size, what):
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size <= 0):
        raise ValueError(f"{what}: `chunk_size` should be greater than 0. (got {chunk_size})")


def jacobian_columns(out, inputs, create, chunk_size=None):
    """The Jacobian of one output with respect to each input."""
    rows = [gradients([out], inputs, [s], create, True, True) for s in passes(out, inputs, chunk_size)]
    columns = []
    for i, x in enumerate(inputs):
        shape = (*out.shape, *x.shape)
        if not rows:
            columns.append(_C.zeros(shape, dtype=x.dtype, device=x.device))
            continue
        whole = rows[0][i] if len(rows) == 1 else _C.cat([r[i] for r in rows])
        columns.append(whole.reshape(shape))
    return columns


def jacrev(func, argnums=0, *, has_aux=False, chunk_size=None, _preallocate_and_copy=False):
    """The Jacobian by reverse mode: shape ``(*output, *input)``, a gradient per output element, many in one backward.

    Outputs and arguments may be nested: the result has the structure of the output, with that of ``argnums`` inside.
    ``chunk_size`` says how many output elements a pass takes; by default as many as fit some 64 MB per gradient.

    >>> import pyrite as torch
    >>> torch.func.jacrev(torch.sin)(torch.zeros(2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    _check_chunk(chunk_size, "jacrev")

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        call = _Call(func, args, kwargs, argnums, has_aux, "jacrev(f)(*args)")
        outputs, out_spec = _tensor_leaves(call.out, "jacrev(f)(*args)")
        blocks = []
        for out in outputs:
            create = call.create([out])
            with enable_grad():
                columns = jacobian_columns(out, call.inputs, create, chunk_size)
            blocks.append(call.leave(tree_unflatten(columns, call.spec)))
        result = tree_unflatten(blocks, out_spec)
        return (result, call.leave(call.aux)) if has_aux else result

    return wrapper


def jacfwd(func, argnums=0, has_aux=False, *, randomness="error", chunk_size=None):
    """The Jacobian by forward mode: shape ``(*output, *input)``; all input elements at once (or ``chunk_size`` of them).

    >>> import pyrite as torch
    >>> torch.func.jacfwd(torch.sin)(torch.zeros(2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    _check_chunk(chunk_size, "jacfwd")

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        positions, single = _positions(argnums, len(args), "jacfwd(f)(*args)")
        picked = args[positions[0]] if single else tuple(args[i] for i in positions)
        leaves, spec = tree_flatten(picked)
        for x in leaves:
            if not isinstance(x, Tensor):
                raise RuntimeError(f"jacfwd(f)(*args): expected tensors, got {type(x)}")

        def of(*xs):
            mine = tree_unflatten(xs, spec)
            a = list(args)
            for i, v in zip(positions, (mine,) if single else mine):
                a[i] = v
            return func(*a, **kwargs)

        value, aux, slopes = _columns(of, leaves, has_aux, randomness, chunk_size)
        outputs, out_spec = tree_flatten(value)
        blocks = []
        for out, columns in zip(outputs, slopes):
            # A column per input element becomes the last dimensions.
            parts, at = [], 0
            for x in leaves:
                n = x.numel()
                block = columns.narrow(0, at, n).movedim(0, -1).reshape((*out.shape, *x.shape))
                parts.append(block)
                at += n
            blocks.append(tree_unflatten(parts, spec))
        result = tree_unflatten(blocks, out_spec)
        return (result, aux) if has_aux else result

    return wrapper


def _columns(of, leaves, has_aux, randomness, chunk_size):
    """Value, aux, and per output the tangents along every unit vector of the inputs, stacked."""
    from ._vmap import vmap

    total = sum(x.numel() for x in leaves)

    def push(*along):
        result = jvp(of, tuple(leaves), along, has_aux=has_aux)
        # Of all samples the same, but the value may have been computed with the batch.
        return result[1], result[0], (result[2] if has_aux else ())

    if total == 0:
        result = jvp(of, tuple(leaves), tuple(leaves), has_aux=has_aux)
        return (
            result[0],
            result[2] if has_aux else None,
            [_C.zeros((0, *o.shape), dtype=o.dtype) for o in tree_leaves(result[0])],
        )
    basis, at = [], 0
    for x in leaves:
        n = x.numel()
        b = _C.zeros((total, n), dtype=x.dtype, device=x.device)
        b[at : at + n] = _C.eye(n, dtype=x.dtype, device=x.device)
        basis.append(b.reshape((total, *x.shape)))
        at += n
    try:
        slopes, values, aux = vmap(push, randomness=randomness, out_dims=(0, 0, 0), chunk_size=chunk_size)(*basis)
        values, aux = (tree_map(lambda t: t[0] if isinstance(t, Tensor) else t, v) for v in (values, aux))
        return values, aux, tree_leaves(slopes)
    except (RuntimeError, ValueError) as error:
        # What vmap can't do (control flow on values, writes into shared tensors) is done column by column.
        if "vmap" not in str(error) or "random" in str(error):
            raise
    results = [push(*(b[k] for b in basis)) for k in range(total)]
    slopes = [_C.stack(c) for c in zip(*(tree_leaves(r[0]) for r in results))]
    return results[0][1], results[0][2], slopes


def hessian(func, argnums=0):
    """The Hessian: forward mode over reverse mode.

    >>> import pyrite as torch
    >>> torch.func.hessian(lambda x: (x ** 3).sum())(torch.tensor([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacfwd(jacrev(func, argnums), argnums)
