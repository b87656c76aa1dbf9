"""`vmap`: a function of one sample as a function of batches."""

import functools

from .. import _C
from ..utils._pytree import broadcast_to, show, tree_flatten, tree_unflatten

Tensor = _C.Tensor


def _name(func):
    return getattr(func, "__name__", None) or type(func).__name__


def _flat_in_dims(func, in_dims, args):
    where = f"vmap({_name(func)}, in_dims={in_dims}, ...)(<inputs>): "
    if not isinstance(in_dims, (int, tuple, list)):
        raise ValueError(
            where
            + f"expected `in_dims` to be int or a (potentially nested) tuple matching the structure of inputs, got: {type(in_dims)}."
        )
    if not args:
        raise ValueError(
            f"vmap({_name(func)})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are trying to vmap over a "
            "function with no inputs. The latter is unsupported."
        )
    leaves, spec = tree_flatten(args)
    dims = broadcast_to(tuple(in_dims) if isinstance(in_dims, list) else in_dims, spec)
    if dims is None:
        raise ValueError(
            where
            + f"in_dims is not compatible with the structure of `inputs`. in_dims has structure {show(tree_flatten(in_dims)[1])} but inputs has structure {show(spec)}."
        )
    checked = []
    for x, d in zip(leaves, dims):
        if d is not None and (not isinstance(d, int) or isinstance(d, bool)):
            raise ValueError(
                where + f"Got in_dim={d} for an input but in_dim must be either an integer dimension or None."
            )
        if d is not None and not isinstance(x, Tensor):
            raise ValueError(
                where
                + f"Got in_dim={d} for an input but the input is of type {type(x)}. We cannot vmap over non-Tensor arguments, please use None as the respective in_dim"
            )
        if d is not None and not -x.ndim <= d < x.ndim:
            raise ValueError(
                where
                + f"Got in_dim={d} for some input, but that input is a Tensor of dimensionality {x.ndim} so expected in_dim to satisfy -{x.ndim} <= in_dim < {x.ndim}."
            )
        checked.append(d if d is None else d % x.ndim)
    sizes = [x.shape[d] for x, d in zip(leaves, checked) if d is not None]
    if not sizes:
        raise ValueError("vmap: Expected at least one Tensor to vmap over")
    if any(s != sizes[0] for s in sizes):
        raise ValueError(
            f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sizes} for the mapped dimension"
        )
    return leaves, spec, checked, sizes[0]


def _flat_out_dims(func, out_dims, spec):
    if isinstance(out_dims, (tuple, list)) and len(out_dims) == 1 and spec.type is None:
        out_dims = out_dims[0]
    dims = broadcast_to(tuple(out_dims) if isinstance(out_dims, list) else out_dims, spec)
    where = f"vmap({_name(func)}, ..., out_dims={out_dims})"
    if dims is None:
        raise ValueError(
            f"{where}(<inputs>): out_dims is not compatible with the structure of `outputs`. out_dims has structure {show(tree_flatten(out_dims)[1])} but outputs has structure {show(spec)}."
        )
    for d in dims:
        if d is not None and (not isinstance(d, int) or isinstance(d, bool)):
            raise ValueError(
                f"{where}: `out_dims` must be an int, None or a python collection of ints representing where in the outputs the vmapped dimension should appear."
            )
    return dims


def _unwrapped(func, out, d, frame):
    if d is None:
        if frame.is_batched(out):
            raise ValueError(
                f"vmap({_name(func)}, ...): `{_name(func)}` can not return a BatchedTensor when out_dim is None"
            )
        return out
    if not isinstance(out, Tensor):
        raise ValueError(
            f"vmap({_name(func)}, ...): `{_name(func)}` must only return Tensors, got type {type(out)}. Did you mean to set out_dims= to None for output?"
        )
    rank = out.ndim + 1
    if not -rank <= d < rank:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {d})")
    value = frame.full(out)
    return value.movedim(0, d) if d % rank else value


def _run(func, leaves, spec, dims, size, out_dims, randomness, kwargs):
    from .._batching import Frame

    with Frame(size, randomness) as frame:
        batched = [x if d is None else frame.wrap(x.movedim(d, 0) if d else x) for x, d in zip(leaves, dims)]
        out = func(*tree_unflatten(batched, spec), **kwargs)
        results, out_spec = tree_flatten(out)
        places = _flat_out_dims(func, out_dims, out_spec)
        return [_unwrapped(func, r, d, frame) for r, d in zip(results, places)], out_spec, places


def vmap(func, in_dims=0, out_dims=0, randomness="error", *, chunk_size=None):
    """``func`` of one sample as a function of batches: it runs once, on tensors whose batch dimension it does not see.

    Args:
        in_dims: the dimension to map over, for every argument (a nested structure like the arguments'; None: shared).
        out_dims: where the batch dimension goes in the outputs (None: an output that is the same for all samples).
        randomness: "error", "different" for each sample, or "same" for all.
        chunk_size: maps over so many samples at a time; less memory, more calls.

    Raises ValueError where dims and arguments don't fit together, RuntimeError for control flow that depends on values.

    >>> import pyrite as torch
    >>> torch.vmap(torch.dot)(torch.ones(3, 2), torch.arange(6.0).reshape(3, 2)).tolist()
    [1.0, 5.0, 9.0]
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size <= 0):
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    @functools.wraps(func)
    def mapped(*args, **kwargs):
        leaves, spec, dims, size = _flat_in_dims(func, in_dims, args)
        if chunk_size is None or chunk_size >= size:
            flat, out_spec, _ = _run(func, leaves, spec, dims, size, out_dims, randomness, kwargs)
            return tree_unflatten(flat, out_spec)
        pieces, out_spec, places = [], None, None
        state = _C.default_generator.get_state() if randomness == "same" else None
        for start in range(0, size, chunk_size):
            n = min(chunk_size, size - start)
            part = [x if d is None else x.narrow(d, start, n) for x, d in zip(leaves, dims)]
            if state is not None:
                _C.default_generator.set_state(state)
            flat, out_spec, places = _run(func, part, spec, dims, n, out_dims, randomness, kwargs)
            pieces.append(flat)
        joined = [c[0] if d is None else _C.cat(c, d) for c, d in zip(zip(*pieces), places)]
        return tree_unflatten(joined, out_spec)

    return mapped
