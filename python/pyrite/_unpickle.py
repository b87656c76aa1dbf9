"""Reads the pickle inside a checkpoint by an allow-list: a file can build data, never call other code."""

import pickle
from collections import Counter, OrderedDict, defaultdict

from . import _C
from .utils.data.transport import tensor_from_buffer

Tensor = _C.Tensor

# dtype name -> the storage class that the format names.
STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}


class CheckpointError(RuntimeError, pickle.UnpicklingError):
    """A checkpoint is damaged, or holds names that are not allowed."""


_extra = {}


def add_safe_globals(safe_globals):
    """Allows classes (or functions, or ``(object, "module.name")`` pairs) in files that :func:`load` reads.

    >>> import pyrite as torch
    >>> class Config: pass
    >>> torch.serialization.add_safe_globals([Config])
    """
    for item in safe_globals:
        obj, name = item if isinstance(item, tuple) else (item, f"{item.__module__}.{item.__qualname__}")
        _extra[name] = obj


def get_safe_globals():
    """What :func:`add_safe_globals` added."""
    return list(_extra.values())


def clear_safe_globals():
    """Forgets what :func:`add_safe_globals` added."""
    _extra.clear()


class _StorageType:
    """A storage class of the format: names a dtype."""

    def __init__(self, dtype):
        self.dtype = dtype


class _Storage:
    """The bytes of one entry and where they belong."""

    def __init__(self, data, dtype, location):
        self.data, self.dtype, self.location = data, dtype, location
        self.flat = {}


def _latin1(text, encoding):
    """What pickle protocol 2 writes for bytes: ``_codecs.encode(text, 'latin1')``, and nothing else."""
    if encoding != "latin1":
        raise CheckpointError(f"load: bytes encoded as {encoding!r}")
    return text.encode("latin1")


_CONTAINERS = {
    "_codecs.encode": _latin1,
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": Counter,
    "collections.defaultdict": defaultdict,
    **{f"{m}.{t.__name__}": t for m in ("builtins", "__builtin__") for t in (
        set, frozenset, dict, list, tuple, int, float, bool, str, bytes, bytearray, complex, slice, range,
    )},
}  # fmt: skip


class Unpickler(pickle._Unpickler):
    """The pure Python unpickler, with every opcode that calls or changes something checked."""

    def __init__(self, file, name, read, map_location):
        super().__init__(file, encoding="utf-8")
        self.name, self.read_entry, self.map_location = name, read, map_location
        self.storages = {}
        self.callables = {
            "torch._utils._rebuild_tensor_v2": self._rebuild_tensor,
            "torch._utils._rebuild_tensor_v3": self._rebuild_tensor_v3,
            "torch._utils._rebuild_parameter": self._rebuild_parameter,
            "torch._tensor._rebuild_from_type_v2": self._rebuild_subclass,
            "torch.device": _C.device,
            "torch.Size": _C.Size,
            **_CONTAINERS,
        }
        self.allowed = set()  # ids of what find_class handed out as callable; the objects live in self.kept
        self.kept = []

    def load(self):
        try:
            return super().load()
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(f"load: {self.name}: data.pkl is damaged: {type(error).__name__}: {error}") from error

    # ---- names -----------------------------------------------------------------------------------

    def find_class(self, module, name):
        full = f"{module}.{name}"
        if full in self.callables:
            return self._allow(self.callables[full])
        if full in _extra:
            return self._allow(_extra[full])
        if module in ("torch", "pyrite", "pyrite._C"):
            found = getattr(_C, name, None)
            if isinstance(found, _C.dtype):
                return found
            for dtype, storage in STORAGES.items():
                if storage == name:
                    return _StorageType(dtype)
        if full in ("torch.storage.UntypedStorage", "torch.UntypedStorage"):
            return _StorageType("uint8")
        if module.startswith("pyrite.nn.modules."):
            found = self._layer(module, name)
            if found is not None:
                return self._allow(found)
        raise CheckpointError(
            f"load: {self.name} names {full}, which is not on the list of things a checkpoint may build. If you trust the "
            f"file, call pyrite.serialization.add_safe_globals([{name.rsplit('.', 1)[-1]}]) with that object first."
        )

    @staticmethod
    def _layer(module, name):
        """A layer class of Pyrite's own; nothing else of those modules."""
        import sys

        from . import nn

        found = getattr(sys.modules.get(module), name, None)
        return found if isinstance(found, type) and issubclass(found, nn.Module) else None

    def _allow(self, obj):
        self.allowed.add(id(obj))
        self.kept.append(obj)
        return obj

    def _check(self, func, what):
        if id(func) not in self.allowed:
            raise CheckpointError(f"load: {self.name}: the pickle {what} {type(func).__name__}, which is not allowed")

    # ---- opcodes that call or change -------------------------------------------------------------

    dispatch = dict(pickle._Unpickler.dispatch)

    def _reduce(self):
        self._check(self.stack[-2], "calls a")
        pickle._Unpickler.load_reduce(self)

    dispatch[pickle.REDUCE[0]] = _reduce

    def _newobj(self):
        self._check(self.stack[-2], "makes an object of a")
        pickle._Unpickler.load_newobj(self)

    dispatch[pickle.NEWOBJ[0]] = _newobj

    def _newobj_ex(self):
        self._check(self.stack[-3], "makes an object of a")
        pickle._Unpickler.load_newobj_ex(self)

    dispatch[pickle.NEWOBJ_EX[0]] = _newobj_ex

    def _build(self):
        # Only instances of allowed classes may be given state: never a class, a function or a module.
        target = self.stack[-2]
        if isinstance(target, type) or id(type(target)) not in self.allowed:
            raise CheckpointError(
                f"load: {self.name}: the pickle sets attributes of a {type(target).__name__}, not allowed"
            )
        pickle._Unpickler.load_build(self)

    dispatch[pickle.BUILD[0]] = _build

    def _forbidden(self):
        raise CheckpointError(f"load: {self.name}: the pickle uses an instruction that checkpoints don't need")

    for _op in (pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER):
        dispatch[_op[0]] = _forbidden
    del _op

    # ---- tensors ---------------------------------------------------------------------------------

    def persistent_load(self, pid):
        kind, storage_type, key, location, count = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise CheckpointError(f"load: {self.name}: unknown persistent object {kind!r}")
        if not isinstance(key, str) or not key.isalnum():
            raise CheckpointError(f"load: {self.name}: storage key {key!r} is not a number")
        if key not in self.storages:
            data = self.read_entry(f"data/{key}")
            size = _C.empty(0, dtype=getattr(_C, storage_type.dtype)).element_size()
            if count * size != len(data):
                raise CheckpointError(
                    f"load: {self.name}: data/{key} has {len(data)} bytes, but {count} values of {storage_type.dtype} need "
                    f"{count * size}"
                )
            self.storages[key] = _Storage(data, storage_type.dtype, location)
        return self.storages[key]

    def _flat(self, storage, dtype):
        """All values of a storage as a 1-d tensor on the device where they belong, made once."""
        if dtype not in storage.flat:
            kind = getattr(_C, dtype)
            size = _C.empty(0, dtype=kind).element_size()
            t = tensor_from_buffer(storage.data, kind, (len(storage.data) // size,))
            storage.flat[dtype] = self._place(t, storage.location)
        return storage.flat[dtype]

    def _place(self, t, location):
        target = self.map_location
        if callable(target) and not isinstance(target, _C.device):
            moved = target(t, location)
            target = location if moved is None else None
            t = t if moved is None else moved
        elif isinstance(target, dict):
            target = target.get(location, location)
        elif target is None:
            target = location
        if target is None or str(target) == "cpu":
            return t
        try:
            return t.to(target)
        except Exception as error:
            raise RuntimeError(
                f"load: {self.name} holds tensors on {location}, which can't be used here ({error}). To read them on the CPU "
                "use map_location='cpu'."
            ) from error

    def _rebuild_tensor(self, storage, offset, size, stride, requires_grad, hooks=None, metadata=None):
        return self._tensor(storage, storage.dtype, offset, size, stride, requires_grad)

    def _rebuild_tensor_v3(self, storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None):
        return self._tensor(storage, str(dtype).rsplit(".", 1)[-1], offset, size, stride, requires_grad)

    def _tensor(self, storage, dtype, offset, size, stride, requires_grad):
        if not isinstance(storage, _Storage):
            raise CheckpointError(f"load: {self.name}: a tensor without a storage")
        flat = self._flat(storage, dtype)
        size, stride = tuple(size), tuple(stride)
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers):
            raise CheckpointError(f"load: {self.name}: impossible tensor layout {size}, {stride}, {offset}")
        count, expected = 1, []
        for n in reversed(size):
            expected.append(count)
            count *= n
        last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if count else offset - 1
        if last >= flat.numel():
            raise CheckpointError(
                f"load: {self.name}: a tensor of shape {size} reaches element {last} of a storage with {flat.numel()}"
            )
        if count == 0:
            t = _C.empty(size, dtype=flat.dtype, device=flat.device)
        elif stride == tuple(reversed(expected)):
            t = flat[offset : offset + count].view(size)
        else:
            t = flat.as_strided(size, stride, offset)
        return t.requires_grad_() if requires_grad else t

    def _rebuild_parameter(self, data, requires_grad, hooks=None):
        from .nn.parameter import Parameter

        return Parameter(data, bool(requires_grad))

    def _rebuild_subclass(self, func, kind, args, state):
        self._check(func, "calls a")
        if not (isinstance(kind, type) and issubclass(kind, Tensor)):
            raise CheckpointError(f"load: {self.name}: {kind!r} is not a tensor class")
        base = func(*args)
        result = Tensor._make_subclass(kind, base.detach(), base.requires_grad)
        if isinstance(state, dict):
            result.__dict__.update(state)
        return result
