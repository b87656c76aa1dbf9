"""The methods of batched tensors that the registry does not know: operators, conversions, what needs values."""

from .. import _C
from .core import _DUNDERS, BatchedTensor, _frame_of, _swapped, call

Tensor = _C.Tensor

_METHODS = {name: vars(Tensor)[name] for name in set(_DUNDERS.values()) | {"matmul"} if name in vars(Tensor)}


def _binary(name):
    method = _METHODS[name]

    def operator(self, other):
        if not isinstance(other, (Tensor, int, float, complex)) and not hasattr(other, "__array__"):
            return NotImplemented
        return call(method, (self, other), {})

    return operator


def _reflected(name):
    def operator(self, other):
        if not isinstance(other, (Tensor, int, float, complex)) and not hasattr(other, "__array__"):
            return NotImplemented
        return _swapped(name, self, other)

    return operator


def _written(name):
    method = vars(Tensor)[name + "_"]

    def operator(self, other):
        return call(method, (self, other), {})

    return operator


def _unary(name):
    method = _METHODS[name]

    def operator(self):
        return call(method, (self,), {})

    return operator


for _slot, _name in _DUNDERS.items():
    if _slot in ("neg", "abs", "invert"):
        setattr(BatchedTensor, f"__{_slot}__", _unary(_name))
        continue
    setattr(BatchedTensor, f"__{_slot}__", _binary(_name))
    if _slot not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(BatchedTensor, f"__r{_slot}__", _reflected(_name))
        if _slot != "matmul":
            setattr(BatchedTensor, f"__i{_slot}__", _written(_name))
BatchedTensor.__hash__ = Tensor.__hash__


def _no_values(what, message):
    def method(self, *args, **kwargs):
        raise RuntimeError(message)

    method.__name__ = what
    return method


_CONTROL_FLOW = (
    "vmap: It looks like you're attempting to use a Tensor in some data-dependent control flow. We don't support that yet: "
    "the samples of the batch may disagree. Use torch.where instead of `if`."
)
_ITEM = (
    "vmap: It looks like you're calling .item() on a Tensor. We don't support vmap over calling .item() on a Tensor, please "
    "try to rewrite what you're doing with other operations: the samples of the batch have different values."
)
for _name in ("__bool__", "is_nonzero", "equal", "allclose"):
    setattr(BatchedTensor, _name, _no_values(_name, _CONTROL_FLOW))
for _name in ("item", "__int__", "__float__", "__complex__", "__index__"):
    setattr(BatchedTensor, _name, _no_values(_name, _ITEM))
for _name in (
    "tolist", "numpy", "__array__", "__dlpack__", "data_ptr", "untyped_storage", "__reduce_ex__", "apply_", "set_",
    "resize_", "resize_as_", "as_strided_", "register_post_accumulate_grad_hook",
):  # fmt: skip
    setattr(
        BatchedTensor,
        _name,
        _no_values(
            _name, f"vmap: .{_name}() is not supported for a tensor that vmap maps over: it holds a batch of values."
        ),
    )


def _map_value(name):
    """A method that does the same to every sample."""
    method = getattr(Tensor, name)

    def mapped(self, *args, **kwargs):
        level = self._level
        if args and isinstance(args[0], BatchedTensor):
            # `to(other)`, `type_as(other)`: only its dtype and device count.
            args = (_C.empty(0, dtype=args[0].dtype, device=args[0].device), *args[1:])
        value = self._batched_value
        out = getattr(value, name)(*args, **kwargs)
        if out is value:
            return self
        return BatchedTensor._make(out, level) if isinstance(out, Tensor) else out

    mapped.__name__ = name
    mapped.__doc__ = method.__doc__
    return mapped


for _name in (
    "to", "cpu", "cuda", "type", "type_as", "float", "double", "half", "bfloat16", "long", "int", "short", "char",
    "byte", "bool", "cfloat", "cdouble", "detach", "pin_memory", "__copy__", "__deepcopy__",
):  # fmt: skip
    setattr(BatchedTensor, _name, _map_value(_name))


def _new(name):
    def method(self, *size, **kwargs):
        frame = _frame_of(self._level)
        if name == "new_full":
            sizes, value = (
                (size[0] if size else kwargs.pop("size")),
                (size[1] if len(size) > 1 else kwargs.pop("fill_value")),
            )
            return frame.wrap(self._batched_value.new_full((frame.size, *tuple(sizes)), value, **kwargs))
        sizes = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        return frame.wrap(getattr(self._batched_value, name)((frame.size, *tuple(sizes)), **kwargs))

    method.__name__ = name
    return method


for _name in ("new_empty", "new_zeros", "new_ones", "new_full"):
    setattr(BatchedTensor, _name, _new(_name))


def _property(name):
    def get(self):
        v = getattr(self._batched_value, name)
        return BatchedTensor._make(v, self._level) if isinstance(v, Tensor) and name in ("grad", "data") else v

    def put(self, value):
        if isinstance(value, BatchedTensor) and value._level == self._level:
            value = value._batched_value
        setattr(self._batched_value, name, value)

    return property(get, put)


for _name in ("requires_grad", "grad_fn", "is_leaf", "grad", "data", "retains_grad", "output_nr", "_version"):
    setattr(BatchedTensor, _name, _property(_name))


def _complex_part(name):
    function = getattr(_C, name)

    def get(self):
        return function(self)

    def put(self, value):
        function(self).copy_(value)

    return property(get, put)


for _name in ("real", "imag"):
    setattr(BatchedTensor, _name, _complex_part(_name))


def requires_grad_(self, requires_grad=True):
    self._batched_value.requires_grad_(requires_grad)
    return self


def detach_(self):
    self._batched_value.detach_()
    return self


def retain_grad(self):
    self._batched_value.retain_grad()


def register_hook(self, hook):
    level = self._level

    def on_batch(g):
        r = hook(BatchedTensor._make(g, level))
        return r._batched_value if isinstance(r, BatchedTensor) and r._level == level else r

    return self._batched_value.register_hook(on_batch)


def backward(self, gradient=None, retain_graph=None, create_graph=False, inputs=None):
    raise RuntimeError(
        "vmap: backward() inside a vmapped function is not supported, because .grad of tensors outside would get the "
        "gradients of all samples. Use torch.func.grad or torch.func.vjp inside instead."
    )


def __repr__(self):
    return f"BatchedTensor(lvl={self._level}, bdim=0, value=\n{self._batched_value!r}\n)"


def __format__(self, spec):
    return repr(self)


def __iter__(self):
    if self.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(self.unbind(0))


def __reversed__(self):
    return self.flip(0) if self.ndim else self


def __contains__(self, item):
    return bool((self == item).any())


def __getitem__(self, key):
    from .index import getitem

    return getitem(self, key)


def __setitem__(self, key, value):
    from .index import setitem

    setitem(
        self,
        key,
        value if isinstance(value, (Tensor, int, float, complex, bool)) else _C.tensor(value, dtype=self.dtype),
    )


def __pos__(self):
    return self


def __divmod__(self, other):
    return self // other, self % other


def __rpow__(self, other):
    return _swapped("pow", self, other)


def as_subclass(self, cls):
    raise RuntimeError("vmap: as_subclass() is not supported for a tensor that vmap maps over")


for _f in (
    requires_grad_, detach_, retain_grad, register_hook, backward, __repr__, __format__, __iter__, __reversed__,
    __contains__, __getitem__, __setitem__, __pos__, __divmod__, __rpow__, as_subclass,
):  # fmt: skip
    setattr(BatchedTensor, _f.__name__, _f)
BatchedTensor.__str__ = __repr__


def _reshaped(name):
    """`t_` and its kin: the object looks at a view of its batch from now on."""
    plain = name[:-1]

    def method(self, *args, **kwargs):
        out = getattr(self, plain)(*args, **kwargs)
        _C._rebatch(self, out._batched_value)
        return self

    method.__name__ = name
    return method


for _name in ("t_", "transpose_", "swapaxes_", "swapdims_", "squeeze_", "unsqueeze_"):
    setattr(BatchedTensor, _name, _reshaped(_name))
