"""`Module`: the base class of layers and models. Registration, calls, and walking the tree.

`_state.py` holds state_dict and loading, `_convert.py` the moves between devices and dtypes.
"""

from collections import OrderedDict

from ... import _C
from .._hooks import BackwardHooks, RemovableHandle
from ..parameter import Buffer, Parameter
from ._convert import ConvertMixin
from ._state import StateMixin

Tensor = _C.Tensor

_global_forward_pre_hooks = OrderedDict()
_global_forward_hooks = OrderedDict()

# Set in every instance's __dict__ by __init__, in this order.
_HOOK_DICTS = (
    "_backward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class Module(ConvertMixin, StateMixin):
    """Base class of all layers and models.

    A subclass assigns layers and parameters as attributes in ``__init__`` (after ``super().__init__()``)
    and defines ``forward``. Calling the module runs ``forward`` and its hooks. An exception from inside
    carries a note with the path of the failing layer.

    >>> import pyrite as torch
    >>> class Net(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.fc = torch.nn.Linear(3, 2)
    ...     def forward(self, x):
    ...         return self.fc(x).relu()
    >>> Net()(torch.ones(4, 3)).shape
    torch.Size([4, 2])
    """

    _version = 1
    training: bool
    call_super_init = False

    def __init__(self, *args, **kwargs):
        if args or kwargs:
            if not self.call_super_init:
                name = type(self).__name__
                got = next(iter(kwargs)) if kwargs else f"{len(args)} positional arguments"
                raise TypeError(f"{name}.__init__() got unexpected arguments: {got}")
        d = self.__dict__
        d["training"] = True
        d["_modules"] = {}
        d["_buffers"] = {}
        d["_parameters"] = {}
        d["_non_persistent_buffers_set"] = set()
        for name in _HOOK_DICTS:
            d[name] = OrderedDict()
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def forward(self, *input):
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    # ---- calling -------------------------------------------------------------------------------

    def __call__(self, *args, **kwargs):
        try:
            if not (
                self._forward_hooks
                or self._forward_pre_hooks
                or self._backward_hooks
                or self._backward_pre_hooks
                or _global_forward_hooks
                or _global_forward_pre_hooks
            ):
                return self.forward(*args, **kwargs)
            return self._call_with_hooks(args, kwargs)
        except Exception as error:
            _note_path(self, error, args)
            raise

    def _call_with_hooks(self, args, kwargs):
        always_left = dict(self._forward_hooks_always_called)
        try:
            for hook in (*_global_forward_pre_hooks.values(),):
                result = hook(self, args)
                if result is not None:
                    args = result if isinstance(result, tuple) else (result,)
            for key, hook in tuple(self._forward_pre_hooks.items()):
                if key in self._forward_pre_hooks_with_kwargs:
                    result = hook(self, args, kwargs)
                    if result is not None:
                        if not (isinstance(result, tuple) and len(result) == 2):
                            raise RuntimeError(
                                "forward pre-hook must return None or a tuple of (new_args, new_kwargs), "
                                f"but got {result}."
                            )
                        args, kwargs = result
                else:
                    result = hook(self, args)
                    if result is not None:
                        args = result if isinstance(result, tuple) else (result,)
            backward = None
            if self._backward_hooks or self._backward_pre_hooks:
                backward = BackwardHooks(
                    self, tuple(self._backward_pre_hooks.values()), tuple(self._backward_hooks.values())
                )
                args = backward.on_inputs(args)
            result = self.forward(*args, **kwargs)
            for hook in (*_global_forward_hooks.values(),):
                changed = hook(self, args, result)
                if changed is not None:
                    result = changed
            for key, hook in tuple(self._forward_hooks.items()):
                always_left.pop(key, None)
                if key in self._forward_hooks_with_kwargs:
                    changed = hook(self, args, kwargs, result)
                else:
                    changed = hook(self, args, result)
                if changed is not None:
                    result = changed
            return backward.on_output(result) if backward is not None else result
        except Exception:
            for key in always_left:
                hook = self._forward_hooks[key]
                if key in self._forward_hooks_with_kwargs:
                    hook(self, args, kwargs, None)
                else:
                    hook(self, args, None)
            raise

    # ---- attributes ----------------------------------------------------------------------------

    def __setattr__(self, name, value):
        d = self.__dict__
        if name in d:
            # An existing plain attribute: unless the new value has to be registered, just store it.
            if not isinstance(value, (Parameter, Module, Buffer)):
                object.__setattr__(self, name, value)
                return
        if isinstance(value, Parameter):
            if "_parameters" not in d:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._forget(name, "_parameters")
            self.register_parameter(name, value)
            return
        params = d.get("_parameters")
        if params is not None and name in params:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type(value).__module__}.{type(value).__qualname__}' as parameter '{name}' "
                    "(torch.nn.Parameter or None expected)"
                )
            params[name] = None
            return
        modules = d.get("_modules")
        if isinstance(value, Module):
            if modules is None:
                raise AttributeError("cannot assign module before Module.__init__() call")
            self._forget(name, "_modules")
            modules[name] = value
            return
        if modules is not None and name in modules:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type(value).__module__}.{type(value).__qualname__}' as child module '{name}' "
                    "(torch.nn.Module or None expected)"
                )
            modules[name] = None
            return
        buffers = d.get("_buffers")
        if isinstance(value, Buffer):
            if buffers is None:
                raise AttributeError("cannot assign buffer before Module.__init__() call")
            if name not in buffers:
                self._forget(name, "_buffers")
                self.register_buffer(name, value, value.persistent)
                return
        if buffers is not None and name in buffers:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"cannot assign '{type(value).__module__}.{type(value).__qualname__}' as buffer '{name}' "
                    "(torch.nn.Buffer, torch.Tensor or None expected)"
                )
            buffers[name] = value
            return
        object.__setattr__(self, name, value)

    def _forget(self, name, keep):
        """Drops what is stored under ``name``, except in the table where it is about to be replaced in its place."""
        d = self.__dict__
        d.pop(name, None)
        for store in ("_parameters", "_buffers", "_modules"):
            if store != keep:
                d[store].pop(name, None)
        d["_non_persistent_buffers_set"].discard(name)

    def __getattr__(self, name):
        # Unrolled: this runs for every `self.weight` and every `self.layer` of a forward pass.
        d = self.__dict__
        found = d.get("_parameters")
        if found is not None:
            if name in found:
                return found[name]
            found = d["_modules"]
            if name in found:
                return found[name]
            found = d["_buffers"]
            if name in found:
                return found[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name):
        for store in (self._parameters, self._buffers, self._modules):
            if name in store:
                del store[name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self):
        keys = set(object.__dir__(self))
        keys.update(self._parameters, self._buffers, self._modules)
        return sorted(k for k in keys if not k[:1].isdigit())

    def __setstate__(self, state):
        self.__dict__.update(state)
        # Pickles of other versions may lack the newer hook tables.
        for name in _HOOK_DICTS:
            self.__dict__.setdefault(name, OrderedDict())
        self.__dict__.setdefault("_non_persistent_buffers_set", set())

    def _check_name(self, what, name, store):
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{what} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{what} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{what} name can\'t be empty string ""')
        if hasattr(self, name) and name not in store:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name, param):
        """Adds a Parameter (or None, which keeps the name out of ``state_dict``) under ``name``."""
        if "_parameters" not in self.__dict__:
            raise AttributeError("cannot assign parameter before Module.__init__() call")
        self._check_name("parameter", name, self._parameters)
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(
                    f"cannot assign '{type(param).__name__}' object to parameter '{name}' "
                    "(torch.nn.Parameter or None required)"
                )
            if param.grad_fn is not None:
                raise ValueError(
                    f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created "
                    "explicitly. To express one as a function of another, compute the value in forward()."
                )
        self._parameters[name] = param

    def register_buffer(self, name, tensor, persistent=True):
        """Adds a tensor that is state but not trained, such as a running mean.

        A non-persistent one stays out of ``state_dict``.
        """
        self._check_name("buffer", name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' (torch Tensor or None required)"
            )
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name, module):
        """Adds a child module under ``name``."""
        if not isinstance(module, Module) and module is not None:
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name("module", name, self._modules)
        self._modules[name] = module

    def register_module(self, name, module):
        """Alias of :meth:`add_module`."""
        self.add_module(name, module)

    # ---- walking the tree ----------------------------------------------------------------------

    def _named_members(self, members, prefix="", recurse=True, remove_duplicate=True):
        seen = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, value in members(module):
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield (f"{path}.{name}" if path else name), value

    def parameters(self, recurse=True):
        """Iterates over the parameters of this module and, with ``recurse``, of all below it."""
        for _, param in self.named_parameters(recurse=recurse):
            yield param

    def named_parameters(self, prefix="", recurse=True, remove_duplicate=True):
        """Iterates over ``(path, parameter)``; a shared parameter comes once."""
        yield from self._named_members(lambda m: tuple(m._parameters.items()), prefix, recurse, remove_duplicate)

    def buffers(self, recurse=True):
        """Iterates over the buffers."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def named_buffers(self, prefix="", recurse=True, remove_duplicate=True):
        """Iterates over ``(path, buffer)``."""
        yield from self._named_members(lambda m: tuple(m._buffers.items()), prefix, recurse, remove_duplicate)

    def children(self):
        """Iterates over the direct children."""
        for _, module in self.named_children():
            yield module

    def named_children(self):
        """Iterates over ``(name, child)``; a child registered twice comes once."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def modules(self, remove_duplicate=True):
        """Iterates over this module and all below it."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_modules(self, memo=None, prefix="", remove_duplicate=True):
        """Iterates over ``(path, module)``, itself first (path '')."""
        if memo is None:
            memo = set()
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def get_submodule(self, target):
        """The module at a dotted path; AttributeError names the part that is missing."""
        if target == "":
            return self
        module = self
        for name in target.split("."):
            if not hasattr(module, name):
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target, module, strict=False):
        """Puts ``module`` at a dotted path; with ``strict`` there must be one already."""
        if target == "":
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ValueError(f"`module` is not an nn.Module, found {type(module).__name__}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{type(parent).__name__} has no attribute `{name}`")
        setattr(parent, name, module)

    def _get_member(self, target, store, what):
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
        if name not in getattr(module, store):
            raise AttributeError(f"`{name}` is not {what}")
        return getattr(module, name)

    def get_parameter(self, target):
        """The parameter at a dotted path."""
        return self._get_member(target, "_parameters", "an nn.Parameter")

    def get_buffer(self, target):
        """The buffer at a dotted path."""
        return self._get_member(target, "_buffers", "a buffer")

    def apply(self, fn):
        """Calls ``fn`` on every child, then on itself; returns self. The usual way to initialise."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ---- modes ---------------------------------------------------------------------------------

    def train(self, mode=True):
        """Sets training mode (dropout, batch norm) here and below; returns self."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self):
        """Sets evaluation mode: the same as ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad=True):
        """Switches gradients of all parameters on or off; returns self."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none=True):
        """Drops the gradients of all parameters, or zeroes them with ``set_to_none=False``."""
        for p in self.parameters():
            if p.grad is not None:
                if set_to_none:
                    p.grad = None
                else:
                    p.grad = p.grad.detach()
                    p.grad.zero_()

    # ---- hooks ---------------------------------------------------------------------------------

    def _register(self, hooks, hook, prepend=False, extra=()):
        handle = RemovableHandle(hooks, extra_dict=extra)
        hooks[handle.id] = hook
        for table in extra:
            table[handle.id] = True
        if prepend:
            hooks.move_to_end(handle.id, last=False)
        return handle

    def register_forward_pre_hook(self, hook, *, prepend=False, with_kwargs=False):
        """``hook(module, args)`` before ``forward``; what it returns replaces the arguments."""
        extra = (self._forward_pre_hooks_with_kwargs,) if with_kwargs else ()
        return self._register(self._forward_pre_hooks, hook, prepend, extra)

    def register_forward_hook(self, hook, *, prepend=False, with_kwargs=False, always_call=False):
        """``hook(module, args, output)`` after ``forward``; what it returns replaces the output.

        With ``always_call`` the hook also runs when ``forward`` raises (with output None).
        """
        extra = (self._forward_hooks_with_kwargs,) if with_kwargs else ()
        extra += (self._forward_hooks_always_called,) if always_call else ()
        return self._register(self._forward_hooks, hook, prepend, extra)

    def register_full_backward_pre_hook(self, hook, prepend=False):
        """``hook(module, grad_output)`` when the output's gradients are known; may replace them."""
        return self._register(self._backward_pre_hooks, hook, prepend)

    def register_full_backward_hook(self, hook, prepend=False):
        """``hook(module, grad_input, grad_output)`` when the inputs' gradients are known; may replace grad_input."""
        return self._register(self._backward_hooks, hook, prepend)

    def register_backward_hook(self, hook):
        """Old name; behaves as :meth:`register_full_backward_hook`."""
        return self.register_full_backward_hook(hook)

    # ---- printing ------------------------------------------------------------------------------

    def _get_name(self):
        return type(self).__name__

    def extra_repr(self):
        """The part of ``repr`` between the brackets; for subclasses."""
        return ""

    def __repr__(self):
        extra = self.extra_repr()
        extra_lines = extra.split("\n") if extra else []
        child_lines = []
        for key, module in self._modules.items():
            text = repr(module).replace("\n", "\n  ")
            child_lines.append(f"({key}): {text}")
        lines = extra_lines + child_lines
        name = self._get_name()
        if not lines:
            return f"{name}()"
        if len(extra_lines) == 1 and not child_lines:
            return f"{name}({extra_lines[0]})"
        return f"{name}(\n  " + "\n  ".join(lines) + "\n)"


def _describe(args):
    return ", ".join(str(tuple(a.shape)) if isinstance(a, Tensor) else type(a).__name__ for a in args)


def _note_path(module, error, args):
    """Adds or extends the note that says in which layer an exception happened.

    Runs on the exception path only, from the innermost module outwards: each level prefixes the name
    under which it holds the level below.
    """
    try:
        notes = getattr(error, "__notes__", None)
        trail = getattr(error, "_pyrite_trail", None)
        if trail is None:
            extra = module.extra_repr().split("\n")[0]
            text = f"{type(module).__name__}({extra}) got ({_describe(args)})"
            error._pyrite_trail = [module, "", text]
            error.add_note(f"in module {text}")
            return
        below, path, text = trail
        if below is module:
            return
        name = next((n for n, m in module.named_modules() if m is below), None)
        step = name if name is not None else f"<{type(below).__name__}>"
        path = f"{step}.{path}" if path else step
        old = f"in module {text}" if trail[1] == "" else f"in module {trail[1]}: {text}"
        if notes and old in notes:
            notes[notes.index(old)] = f"in module {path}: {text}"
        error._pyrite_trail = [module, path, text]
    except Exception:
        return


def register_module_forward_pre_hook(hook):
    """``hook(module, args)`` before the forward of every module, for debugging and profiling."""
    handle = RemovableHandle(_global_forward_pre_hooks)
    _global_forward_pre_hooks[handle.id] = hook
    return handle


def register_module_forward_hook(hook):
    """``hook(module, args, output)`` after the forward of every module."""
    handle = RemovableHandle(_global_forward_hooks)
    _global_forward_hooks[handle.id] = hook
    return handle
