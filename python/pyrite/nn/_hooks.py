"""Handles that remove a hook, and the full backward hooks of modules."""

import itertools
import weakref

from .. import _C

_ids = itertools.count()


class RemovableHandle:
    """What ``register_*_hook`` returns: ``remove()`` takes the hook away; also a context manager."""

    __slots__ = ("_ref", "_more", "id", "__weakref__")

    def __init__(self, hooks, *, extra_dict=None):
        self._ref = weakref.ref(hooks)
        more = () if extra_dict is None else extra_dict if isinstance(extra_dict, (list, tuple)) else (extra_dict,)
        self._more = tuple(weakref.ref(d) for d in more)
        self.id = next(_ids)

    def remove(self):
        for ref in (self._ref, *self._more):
            hooks = ref()
            if hooks is not None:
                hooks.pop(self.id, None)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.remove()


def map_tensors(fn, value):
    """Applies ``fn`` to the tensors of a tensor, tuple, list or dict; other things pass unchanged."""
    if isinstance(value, _C.Tensor):
        return fn(value)
    if isinstance(value, tuple):
        items = [map_tensors(fn, v) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [map_tensors(fn, v) for v in value]
    if isinstance(value, dict):
        return {k: map_tensors(fn, v) for k, v in value.items()}
    return value


class BackwardHooks:
    """Calls a module's full backward hooks once per backward pass.

    Inputs and outputs go through a view, whose tensor hook sees the gradient that crosses the module's
    border. The user's hooks run when the last input's gradient is there.
    """

    def __init__(self, module, pre_hooks, hooks):
        self.module, self.pre_hooks, self.hooks = module, pre_hooks, hooks
        self.input_pos, self.output_pos = [], []
        self.n_inputs = self.n_outputs = 0
        self.grad_inputs, self.grad_outputs = {}, {}

    def on_inputs(self, args):
        return self._watch(args, self.input_pos, "n_inputs", self._input_grad)

    def on_output(self, result):
        single = isinstance(result, _C.Tensor)
        items = (result,) if single else tuple(result) if isinstance(result, (tuple, list)) else None
        if items is None:
            import warnings

            warnings.warn(
                f"full backward hooks need a module that returns a tensor or a tuple of tensors; "
                f"{type(self.module).__name__} returned {type(result).__name__}, so its hooks don't run",
                stacklevel=4,
            )
            return result
        items = self._watch(items, self.output_pos, "n_outputs", self._output_grad)
        return items[0] if single else type(result)(items) if not hasattr(result, "_fields") else type(result)(*items)

    def _watch(self, items, positions, count, callback):
        setattr(self, count, len(items))
        out = []
        for i, item in enumerate(items):
            if isinstance(item, _C.Tensor) and item.requires_grad and _C.is_grad_enabled():
                item = item.view_as(item)
                positions.append(i)
                item.register_hook(lambda g, i=i: callback(i, g))
            out.append(item)
        return tuple(out)

    def _tuple(self, grads, n):
        return tuple(grads.get(i) for i in range(n))

    def _output_grad(self, i, grad):
        self.grad_outputs[i] = grad
        replaced = None
        if len(self.grad_outputs) == len(self.output_pos):
            for hook in self.pre_hooks:
                given = self._tuple(self.grad_outputs, self.n_outputs)
                result = hook(self.module, given)
                if result is None:
                    continue
                result = self._checked(result, self.n_outputs, "backward pre hook", "grad_output")
                if len(self.output_pos) > 1:
                    raise NotImplementedError(
                        "full backward pre hook: replacing grad_output is supported for modules with one output"
                    )
                self.grad_outputs[i] = replaced = result[i]
            if not self.input_pos:
                self._run_hooks({})
                self._reset()
        return replaced

    def _input_grad(self, i, grad):
        if self.output_pos and not self.grad_outputs:
            # A gradient of a gradient: it reaches the input without having passed the module's output.
            return None
        self.grad_inputs[i] = grad
        if len(self.grad_inputs) < len(self.input_pos):
            return None
        before = dict(self.grad_inputs)
        after = self._run_hooks(before)
        self._reset()
        if any(after.get(k) is not before[k] for k in before):
            if len(self.input_pos) > 1:
                raise NotImplementedError(
                    "full backward hook: replacing grad_input is supported for modules with one tensor input"
                )
            return after[i]
        return None

    def _run_hooks(self, grads):
        grads = dict(grads)
        for hook in self.hooks:
            given = self._tuple(grads, self.n_inputs)
            result = hook(self.module, given, self._tuple(self.grad_outputs, self.n_outputs))
            if result is not None:
                result = self._checked(result, self.n_inputs, "backward hook", "grad_input")
                grads = {k: result[k] for k in grads}
        return grads

    @staticmethod
    def _checked(result, n, what, name):
        result = result if isinstance(result, tuple) else (result,)
        if len(result) != n:
            raise RuntimeError(f"{what} returned an invalid number of {name}: got {len(result)}, but expected {n}")
        return result

    def _reset(self):
        # A second backward through a retained graph starts afresh.
        self.grad_inputs, self.grad_outputs = {}, {}
