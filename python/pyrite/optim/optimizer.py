"""`Optimizer`: parameter groups, state, hooks and PyTorch's state_dict format. The rules are in their own files."""

import functools
from collections import OrderedDict, defaultdict

from .. import _C
from ..nn._hooks import RemovableHandle

Tensor = _C.Tensor


class _Required:
    """Marks an option that has no default."""

    def __repr__(self):
        return "<required parameter>"


required = _Required()


def _hooked(step):
    """Wraps a subclass's ``step`` so that step hooks run; one check per call when there are none."""

    @functools.wraps(step)
    def wrapper(self, *args, **kwargs):
        self._opt_called = True
        if not (self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks):
            return step(self, *args, **kwargs)
        for hook in tuple(self._optimizer_step_pre_hooks.values()):
            result = hook(self, args, kwargs)
            if result is not None:
                if not (isinstance(result, tuple) and len(result) == 2):
                    raise RuntimeError(
                        f"{step} must return None or a tuple of (new_args, new_kwargs), but got {result}."
                    )
                args, kwargs = result
        out = step(self, *args, **kwargs)
        for hook in tuple(self._optimizer_step_post_hooks.values()):
            hook(self, args, kwargs)
        return out

    wrapper._hooked = True
    return wrapper


class Optimizer:
    """Base class of optimizers.

    Args:
        params: parameters, ``(name, parameter)`` pairs, or dicts with key 'params' and options of that group.
        defaults (dict): the options of groups that don't set them.

    A subclass defines ``step(closure=None)`` and keeps what it needs in ``self.state[p]``.

    >>> import pyrite as torch
    >>> w = torch.zeros(2, requires_grad=True)
    >>> opt = torch.optim.SGD([w], lr=0.1)
    >>> w.sum().backward(); opt.step(); [round(v, 3) for v in w.tolist()]
    [-0.1, -0.1]
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        step = cls.__dict__.get("step")
        if step is not None and not getattr(step, "_hooked", False):
            cls.step = _hooked(step)

    def __init__(self, params, defaults):
        self.defaults = defaults
        self._init_hooks()
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                + type(params).__name__
            )
        self.state = defaultdict(dict)
        self.param_groups = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _init_hooks(self):
        self._optimizer_step_pre_hooks = OrderedDict()
        self._optimizer_step_post_hooks = OrderedDict()
        self._optimizer_state_dict_pre_hooks = OrderedDict()
        self._optimizer_state_dict_post_hooks = OrderedDict()
        self._optimizer_load_state_dict_pre_hooks = OrderedDict()
        self._optimizer_load_state_dict_post_hooks = OrderedDict()
        self._opt_called = False

    def __getstate__(self):
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state):
        self.__dict__.update(state)
        if "_optimizer_step_pre_hooks" not in self.__dict__:
            self._init_hooks()
        self.defaults.setdefault("differentiable", False)

    def __repr__(self):
        text = type(self).__name__ + " ("
        for i, group in enumerate(self.param_groups):
            text += f"\nParameter Group {i}\n"
            for key in sorted(group):
                if key != "params":
                    text += f"    {key}: {group[key]}\n"
        return text + ")"

    def step(self, closure=None):
        """Updates the parameters once; ``closure``, if given, computes the loss again and is called with gradients on."""
        raise NotImplementedError

    def zero_grad(self, set_to_none=True):
        """Drops all gradients, or zeroes them with ``set_to_none=False``."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = p.grad.detach()
                    p.grad.zero_()

    def add_param_group(self, param_group):
        """Adds a group: a dict with 'params' and options that differ from the defaults.

        TypeError for things that are no tensors, ValueError for non-leaf tensors, missing options, and
        parameters that are in another group already.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = dict(param_group)
        params = group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, (set, frozenset)):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets "
                "will change between runs. Please use a list instead."
            )
        else:
            params = list(params)
        names = None
        if params and all(isinstance(p, tuple) and len(p) == 2 for p in params):
            names = [name for name, _ in params]
            params = [p for _, p in params]
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
            if not self.defaults.get("differentiable", None) and not (p.is_leaf or p.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
        group["params"] = params
        if names is not None:
            group["param_names"] = names
        if self.param_groups and ("param_names" in self.param_groups[0]) != (names is not None):
            raise ValueError("all optimizer param groups should be with/without names.")
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            group.setdefault(name, default)
        ids = [id(p) for p in params]
        if len(ids) != len(set(ids)):
            import warnings

            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this will cause an error",
                stacklevel=3,
            )
        used = {id(p) for g in self.param_groups for p in g["params"]}
        if not used.isdisjoint(ids):
            raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append(group)

    # ---- saving --------------------------------------------------------------------------------

    def state_dict(self):
        """``{'state': {index: ...}, 'param_groups': [...]}``, parameters numbered in order; tensors are shared."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        index = {}
        groups = []
        for group in self.param_groups:
            packed = {k: v for k, v in group.items() if k != "params"}
            for p in group["params"]:
                index.setdefault(id(p), len(index))
            packed["params"] = [index[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {index.get(id(k), k) if isinstance(k, Tensor) else k: v for k, v in self.state.items()}
        result = {"state": state, "param_groups": groups}
        for hook in self._optimizer_state_dict_post_hooks.values():
            changed = hook(self, result)
            if changed is not None:
                result = changed
        return result

    def load_state_dict(self, state_dict):
        """Loads what ``state_dict`` gave (copied); state takes the parameters' device and dtype.

        ValueError if the number of groups or of parameters in a group differs.
        """
        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, state_dict)
            if changed is not None:
                state_dict = changed
        groups, saved = self.param_groups, [dict(g) for g in state_dict["param_groups"]]
        if len(groups) != len(saved):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(g["params"]) != len(s["params"]) for g, s in zip(groups, saved)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        params = {}
        for group, old in zip(groups, saved):
            params.update(zip(old["params"], group["params"]))
        state = defaultdict(dict)
        for key, value in state_dict["state"].items():
            p = params.get(key)
            if p is None:
                state[key] = value
            else:
                state[p] = _cast(p, value)
        new_groups = []
        for group, old in zip(groups, saved):
            fresh = dict(old)
            fresh["params"] = group["params"]
            if "param_names" in group and "param_names" not in fresh:
                fresh["param_names"] = group["param_names"]
            new_groups.append(fresh)
        self.__setstate__({"state": state, "param_groups": new_groups})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    # ---- hooks ---------------------------------------------------------------------------------

    def _hook(self, table, hook, prepend=False):
        handle = RemovableHandle(table)
        table[handle.id] = hook
        if prepend:
            table.move_to_end(handle.id, last=False)
        return handle

    def register_step_pre_hook(self, hook):
        """``hook(optimizer, args, kwargs)`` before every step; may return new ``(args, kwargs)``."""
        return self._hook(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook):
        """``hook(optimizer, args, kwargs)`` after every step."""
        return self._hook(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook, prepend=False):
        """``hook(optimizer)`` before ``state_dict``."""
        return self._hook(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook, prepend=False):
        """``hook(optimizer, state_dict)`` after ``state_dict``; may return another one."""
        return self._hook(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook, prepend=False):
        """``hook(optimizer, state_dict)`` before loading; may return another one."""
        return self._hook(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook, prepend=False):
        """``hook(optimizer)`` after loading."""
        return self._hook(self._optimizer_load_state_dict_post_hooks, hook, prepend)


def _cast(p, value, key=None):
    """Copies loaded state, tensors to the parameter's device and (except counters) dtype."""
    if isinstance(value, Tensor):
        if key in ("step", "mu_product", "eta", "mu"):
            return value.detach().clone()
        if p.is_floating_point():
            return value.detach().to(dtype=p.dtype, device=p.device, copy=True)
        return value.detach().to(device=p.device, copy=True)
    if isinstance(value, dict):
        return {k: _cast(p, v, k) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(p, v) for v in value)
    return value


# ---- helpers of the rules ------------------------------------------------------------------------


def run_closure(closure):
    """The loss, computed with gradients on; None without a closure."""
    if closure is None:
        return None
    prev = _C._set_grad_enabled(True)
    try:
        return closure()
    finally:
        _C._set_grad_enabled(prev)


def check_nonnegative(**options):
    """ValueError for the first option below zero (or NaN)."""
    for name, value in options.items():
        if not 0.0 <= value:
            raise ValueError(f"Invalid {name} value: {value}")


def check_lr(lr):
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not 0.0 <= lr:
        raise ValueError(f"Invalid learning rate: {lr}")


def reject(optimizer, **flags):
    """NotImplementedError for options whose promise these optimizers can't keep."""
    for name, value in flags.items():
        if value:
            raise NotImplementedError(f"{optimizer}: {name}=True is not supported")


class StepCounter:
    """Groups the parameters of one fused call by their step count.

    PyTorch keeps a 0-d 'step' tensor per parameter. Here parameters that step together share one tensor
    object, so that counting costs one addition per group and step; a parameter that sits a step out gets
    its own copy first.
    """

    @staticmethod
    def sit_out(state):
        if state and "step" in state:
            state["step"] = state["step"].clone()

    @staticmethod
    def share(optimizer):
        """After loading: parameters of a group with equal counts share one tensor again."""
        for group in optimizer.param_groups:
            seen = {}
            for p in group["params"]:
                state = optimizer.state.get(p)
                if state and "step" in state:
                    step = state["step"]
                    count = float(step)
                    if count not in seen:
                        seen[count] = step.clone() if isinstance(step, Tensor) else new_step(count)
                    state["step"] = seen[count]


def new_step(value=0.0):
    """A fresh 'step' tensor."""
    return _C.tensor(value, dtype=_C.float32)
