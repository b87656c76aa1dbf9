"""`save` and `load`: PyTorch's zip format, written atomically, read without running code.

An archive holds ``data.pkl`` (the object; tensors refer to storages by number) and ``data/<n>`` (their
bytes). `_unpickle.py` reads the pickle with an allow-list of names; every entry's checksum is verified.
"""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

from . import _C
from ._unpickle import STORAGES, CheckpointError, Unpickler, add_safe_globals, clear_safe_globals, get_safe_globals
from .utils.data.transport import tensor_bytes

__all__ = ["CheckpointError", "add_safe_globals", "clear_safe_globals", "get_safe_globals", "load", "save"]

Tensor = _C.Tensor
_ALIGN = 64


class _Global:
    """Is pickled as a global of PyTorch, so that PyTorch can read the file; it need not be installed."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self, *args):
        raise TypeError(f"{self.module}.{self.name} only stands for a name in a pickle")


class _Storage:
    """Stands for one entry ``data/<key>`` of the archive."""

    def __init__(self, dtype, key, device, count, size):
        # A dtype without a storage class of its own is named by the tensor, and the storage counts bytes.
        if dtype not in _GLOBALS:
            count *= size
        self.persistent_id = ("storage", _GLOBALS.get(dtype, _UNTYPED), key, device, count)


_REBUILD_TENSOR = _Global("torch._utils", "_rebuild_tensor_v2")
_REBUILD_TENSOR_V3 = _Global("torch._utils", "_rebuild_tensor_v3")
_UNTYPED = _Global("torch.storage", "UntypedStorage")
_REBUILD_PARAMETER = _Global("torch._utils", "_rebuild_parameter")
_REBUILD_SUBCLASS = _Global("torch._tensor", "_rebuild_from_type_v2")
_DEVICE = _Global("torch", "device")
_SIZE = _Global("torch", "Size")
_GLOBALS = {dtype: _Global("torch", storage) for dtype, storage in STORAGES.items()}


def _dtype_name(dtype):
    return str(dtype).rsplit(".", 1)[-1]


# The pure Python pickler: only it lets us write names (`torch._utils ...`) that can't be imported here.
class _Pickler(pickle._Pickler):
    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, file, protocol):
        super().__init__(file, protocol)
        self.entries = []  # (bytes view, its owner) of data/0, data/1, ...
        self.known = {}  # identity of a storage -> _Storage

    def persistent_id(self, obj):
        return obj.persistent_id if isinstance(obj, _Storage) else None

    def _save_global(self, obj):
        if self.proto >= 4:
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        self.memoize(obj)

    dispatch[_Global] = _save_global

    def _save_dtype(self, obj):
        self.save(_Global("torch", _dtype_name(obj)))

    dispatch[_C.dtype] = _save_dtype

    def reducer_override(self, obj):
        if isinstance(obj, Tensor):
            return self._reduce_tensor(obj)
        if isinstance(obj, _C.device):
            index = obj.index
            return _DEVICE, (obj.type,) if index is None else (obj.type, index)
        if isinstance(obj, _C.Size):
            return _SIZE, (tuple(obj),)
        return NotImplemented

    def _reduce_tensor(self, t):
        from .nn.parameter import Buffer, Parameter

        kind = type(t)
        storage, offset, stride = self._storage(t)
        args = (storage, offset, tuple(t.shape), stride, t.requires_grad, OrderedDict())
        rebuild = _REBUILD_TENSOR
        if _dtype_name(t.dtype) not in STORAGES:
            rebuild, args = _REBUILD_TENSOR_V3, (*args, t.dtype)
        if kind is Tensor or kind is Buffer:
            return rebuild, args
        if kind is Parameter:
            return _REBUILD_PARAMETER, (t.detach(), t.requires_grad, OrderedDict())
        return _REBUILD_SUBCLASS, (rebuild, kind, args, dict(t.__dict__))

    def _storage(self, t):
        """The archive entry with ``t``'s values, and ``t``'s offset and strides there.

        Tensors that share memory share an entry, so that tied weights stay tied.
        """
        t = t.resolve_conj().resolve_neg()
        name = _dtype_name(t.dtype)
        size = t.element_size()
        plain = t.detach()
        strides = tuple(plain.stride())
        if plain.device.type == "cpu" and all(n >= 0 for n in strides):
            root = t if t._base is None else t._base
            offset = plain.data_ptr() - root.data_ptr()
            if root.dtype == t.dtype and root.is_contiguous() and offset >= 0:
                key = (root.data_ptr(), root.numel(), name)
                if key not in self.known:
                    self._add(key, tensor_bytes(root.detach()), name, "cpu", root.numel())
                return self.known[key], offset // size, strides
        key = (plain.data_ptr(), tuple(plain.shape), strides, name)
        flat = plain.contiguous().cpu()
        if key not in self.known:
            # `plain` is kept too: its address is part of the key, so it must not be reused.
            self._add(key, tensor_bytes(flat), name, str(plain.device), flat.numel(), plain)
        return self.known[key], 0, tuple(flat.stride())

    def _add(self, key, view, name, device, count, owner=None):
        size = getattr(_C, name).itemsize
        self.known[key] = _Storage(name, str(len(self.entries)), device, count, size)
        self.entries.append((view, owner))


def _write_archive(f, stem, data, entries):
    with zipfile.ZipFile(f, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        def add(name, content):
            info = zipfile.ZipInfo(f"{stem}/{name}", (1980, 1, 1, 0, 0, 0))
            info.file_size = len(content)
            # Values start at multiples of 64 bytes, so that the file can be mapped into memory.
            start = archive.start_dir + 30 + len(info.filename.encode()) + 4
            fill = -start % _ALIGN
            info.extra = b"FB" + fill.to_bytes(2, "little") + b"Z" * fill
            with archive.open(info, "w") as out:
                for i in range(0, len(content), 1 << 24):
                    out.write(content[i : i + (1 << 24)])

        add("data.pkl", data)
        add(".format_version", b"1")
        add(".storage_alignment", str(_ALIGN).encode())
        add("byteorder", b"little")
        for i, (view, _) in enumerate(entries):
            add(f"data/{i}", view)
        add("version", b"3\n")


def save(obj, f, pickle_module=None, pickle_protocol=2, _use_new_zipfile_serialization=True):
    """Writes ``obj`` (tensors, state dicts, containers, modules) to a path or a binary file object.

    To a path the write is atomic: the content goes to a temporary file in the same folder, is synced, and then
    takes the name. A full disk, a kill or an object that can't be pickled never harms the old file.
    PyTorch reads the files.

    >>> import pyrite as torch, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "w.pt")
    >>> torch.save({"w": torch.ones(2)}, path)
    >>> torch.load(path)["w"].tolist()
    [1.0, 1.0]
    """
    if pickle_module is not None and pickle_module is not pickle:
        raise NotImplementedError("save: only the standard pickle module is supported as pickle_module")
    if not _use_new_zipfile_serialization:
        raise NotImplementedError(
            "save: _use_new_zipfile_serialization=False (the format before 2020) is not supported"
        )
    stream = io.BytesIO()
    pickler = _Pickler(stream, pickle_protocol)
    pickler.dump(obj)
    data = stream.getvalue()
    if hasattr(f, "write"):
        _write_archive(f, "archive", data, pickler.entries)
        return
    path = os.path.realpath(os.fspath(f))
    stem = os.path.splitext(os.path.basename(path))[0] or "archive"
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as out:  # a device or a pipe has no temporary twin
            _write_archive(out, stem, data, pickler.entries)
        return
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise RuntimeError(f"Parent directory {folder} does not exist.")
    temporary = os.path.join(folder, f".{os.path.basename(path)}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        with open(temporary, "xb") as out:
            _write_archive(out, stem, data, pickler.entries)
            out.flush()
            os.fsync(out.fileno())
        if os.path.exists(path):
            os.chmod(temporary, os.stat(path).st_mode & 0o7777)
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)  # the new name, too, survives a power cut
        finally:
            os.close(fd)


def load(f, map_location=None, pickle_module=None, *, weights_only=True, mmap=None):
    """Reads what :func:`save`, or PyTorch, wrote.

    Never runs code from the file: only tensors, containers, numbers, strings, Pyrite's layers, and classes named
    by :func:`add_safe_globals` are built, whatever ``weights_only`` says. Every checksum is verified.

    Args:
        map_location: where tensors go: a device, a dict from saved to new devices, or
            ``fn(flat_tensor, location)``. None: where they were.

    Raises CheckpointError (a RuntimeError and a pickle.UnpicklingError) for damaged files and for names that are
    not allowed, naming file and entry.
    """
    if pickle_module is not None and pickle_module is not pickle:
        raise NotImplementedError("load: pickle_module is not supported: files are read by an allow-list")
    if mmap:
        raise NotImplementedError("load: mmap=True is not supported")
    name = getattr(f, "name", None) or type(f).__name__ if hasattr(f, "read") else os.fspath(f)
    if not hasattr(f, "read"):
        with open(f, "rb") as source:
            return _load(source, name, map_location)
    return _load(f, name, map_location)


def _load(source, name, map_location):
    try:
        total = source.seek(0, os.SEEK_END)
        source.seek(0)
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, struct.error) as error:
        raise CheckpointError(
            f"load: {name} is not a checkpoint, or it is cut short: {error}. (Files of PyTorch before 1.6 must be saved "
            "again by a newer one.)"
        ) from None
    with archive:
        pickles = [n for n in archive.namelist() if n.endswith("/data.pkl") and n.count("/") == 1]
        if len(pickles) != 1:
            raise CheckpointError(f"load: {name} is a zip file without a data.pkl: not a checkpoint")
        stem = pickles[0][: -len("data.pkl")]

        def read(entry):
            try:
                info = archive.getinfo(stem + entry)
                if info.compress_type != zipfile.ZIP_STORED:
                    raise CheckpointError(
                        f"load: {name}: entry {entry} is compressed, which no writer of this format does"
                    )
                if info.file_size > total:
                    raise CheckpointError(
                        f"load: {name}: entry {entry} claims {info.file_size} bytes, more than the file has"
                    )
                content = bytearray(info.file_size)
                with archive.open(info) as data:
                    view = memoryview(content)
                    while len(view):
                        got = data.readinto(view)
                        if not got:
                            raise CheckpointError(f"load: {name} is cut short in entry {entry}")
                        view = view[got:]
                    data.read(1)  # the end of the entry is where its checksum is compared
                return content
            except KeyError:
                raise CheckpointError(f"load: {name} has no entry {entry}") from None
            except CheckpointError:
                raise
            # RuntimeError: zipfile's word for an entry whose damaged header says that it is encrypted.
            except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, struct.error) as error:
                raise CheckpointError(f"load: {name} is damaged in entry {entry}: {error}") from None

        if stem + "byteorder" in archive.namelist() and read("byteorder") != b"little":
            raise NotImplementedError(f"load: {name} was written on a big-endian machine")
        return Unpickler(io.BytesIO(read("data.pkl")), name, read, map_location).load()
