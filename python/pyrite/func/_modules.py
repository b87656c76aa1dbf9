"""Modules as functions of their parameters."""

import contextlib

from .. import _C

Tensor = _C.Tensor


def _owner(module, path):
    *parents, name = path.split(".")
    for p in parents:
        module = getattr(module, p)
    return module, name


def _slots(module):
    """Every place of a parameter or buffer: name -> (dict that holds it, key)."""
    slots = {}
    for prefix, m in module.named_modules(remove_duplicate=False):
        for table in (m._parameters, m._buffers):
            for key in table:
                slots[f"{prefix}.{key}" if prefix else key] = (table, key)
    return slots


@contextlib.contextmanager
def _swapped(module, values, tie_weights, strict):
    slots = _slots(module)
    unknown = [n for n in values if n not in slots]
    if unknown and not strict:
        # Names that are no parameter are only an error where they would be assigned to something else.
        raise KeyError(f"functional_call: the module has no parameter or buffer named {', '.join(map(repr, unknown))}")
    missing = [n for n, (table, key) in slots.items() if n not in values and table[key] is not None]
    full = dict(values)
    if tie_weights:
        by_tensor = {}
        for n, (table, key) in slots.items():
            if table[key] is not None:
                by_tensor.setdefault(id(table[key]), []).append(n)
        for names in by_tensor.values():
            given = [n for n in names if n in values]
            if len(given) > 1 and any(values[n] is not values[given[0]] for n in given):
                raise ValueError(
                    f"functional_call got multiple values for keys {sorted(given)}, which are tied. Consider using tie_weights=False"
                )
            if given:
                full.update(dict.fromkeys(names, values[given[0]]))
        missing = [n for n in missing if n not in full]
    if strict and (missing or unknown):
        parts = []
        if unknown:
            parts.append("Unexpected key(s): " + ", ".join(unknown))
        if missing:
            parts.append("Missing key(s): " + ", ".join(missing))
        raise RuntimeError(f"Error(s) in functional_call for {type(module).__name__}: {'; '.join(parts)}.")
    before = {n: slots[n][0][slots[n][1]] for n in full}
    try:
        for n, v in full.items():
            table, key = slots[n]
            table[key] = v
        yield
    finally:
        for n, v in before.items():
            table, key = slots[n]
            table[key] = v


def functional_call(module, parameter_and_buffer_dicts, args=None, kwargs=None, *, tie_weights=True, strict=False):
    """Calls ``module`` with other parameters and buffers, without changing it.

    Args:
        parameter_and_buffer_dicts: name -> tensor, or a tuple of such dicts (with distinct names).
        tie_weights: a tensor given for one name is used for the names tied to it, too.
        strict: every parameter and buffer must be given, and nothing else.

    >>> import pyrite as torch
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> torch.func.functional_call(net, {"weight": torch.ones(1, 2)}, torch.tensor([1.0, 2.0])).tolist()
    [3.0]
    """
    dicts = parameter_and_buffer_dicts
    if isinstance(dicts, dict):
        values = dicts
    elif isinstance(dicts, (tuple, list)):
        if not all(isinstance(d, dict) for d in dicts):
            raise ValueError("Expected all elements of parameter_and_buffer_dicts to be dictionaries")
        values = {}
        for d in dicts:
            for k, v in d.items():
                if k in values and values[k] is not v:
                    raise ValueError(f"{k} appears in multiple dictionaries; behavior of functional call is ambiguous")
                values[k] = v
    else:
        raise ValueError(
            f"Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got {type(dicts)}"
        )
    for k, v in values.items():
        if not isinstance(v, Tensor):
            raise TypeError(f"functional_call: {k!r} must be a Tensor, got {type(v).__name__}")
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with _swapped(module, values, tie_weights, strict):
        return module(*args, **(kwargs or {}))


def stack_module_state(models):
    """``(parameters, buffers)`` of several models of one architecture, stacked: what ``vmap(functional_call)`` takes.

    The parameters are new leaves that require grad where the originals do.

    >>> import pyrite as torch
    >>> params, buffers = torch.func.stack_module_state([torch.nn.Linear(2, 1) for _ in range(3)])
    >>> tuple(params["weight"].shape)
    (3, 1, 2)
    """
    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if not (all(m.training for m in models) or not any(m.training for m in models)):
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")
    first = type(models[0])
    if any(type(m) is not first for m in models):
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")

    def stacked(name, tensors):
        wants = [t.requires_grad for t in tensors]
        if any(wants) and not all(wants):
            raise RuntimeError(f"Expected {name} from each model to have the same .requires_grad")
        return _C.stack([t.detach() for t in tensors]).requires_grad_(wants[0])

    params = {n: stacked(n, [dict(m.named_parameters())[n] for m in models]) for n, _ in models[0].named_parameters()}
    buffers = {n: stacked(n, [dict(m.named_buffers())[n] for m in models]) for n, _ in models[0].named_buffers()}
    return params, buffers


def replace_all_batch_norm_modules_(root):
    """Makes every batch norm in ``root`` use the statistics of its batch only, in place: running statistics can't be updated
    inside vmap. Returns ``root``.
    """
    from ..nn.modules.norm import _BatchNorm

    for m in root.modules():
        if isinstance(m, _BatchNorm):
            m.running_mean = m.running_var = m.num_batches_tracked = None
            m.track_running_stats = False
    return root
