"""How batches travel from a worker to the main process.

A batch is pickled with its tensors and NumPy arrays out of band (pickle protocol 5). Their bytes are
written into an anonymous memory file whose descriptor goes over the worker's socket, and the main process
maps it: no copy there, and no name that could be left behind, whatever dies. Small batches go inline.
"""

import ctypes
import io
import mmap
import os
import pickle
import socket
import struct

from ... import _C
from ..._shared import memory_file

Tensor = _C.Tensor
_INLINE = 1 << 16
_ALIGN = 64
_HEADER = struct.Struct("<QQI")  # length of the pickle, length of the buffers' area, number of buffers


def tensor_bytes(t):
    """A memoryview of a contiguous CPU tensor's bytes; it keeps the tensor alive."""
    size = t.numel() * t.element_size()
    array = (ctypes.c_ubyte * size).from_address(t.data_ptr()) if size else (ctypes.c_ubyte * 0)()
    array._owner = t
    return memoryview(array).cast("B")


def tensor_from_buffer(buffer, dtype, shape):
    """A tensor over ``buffer``'s memory."""
    if 0 in shape:
        return _C.empty(shape, dtype=dtype)
    return _C.frombuffer(buffer, dtype=dtype).reshape(shape)


def _rebuild(buffer, dtype_name, shape, requires_grad):
    t = tensor_from_buffer(buffer, getattr(_C, dtype_name), shape)
    return t.requires_grad_() if requires_grad else t


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj):
        if isinstance(obj, Tensor) and type(obj) is Tensor:
            if obj.device.type != "cpu":
                raise RuntimeError(
                    f"DataLoader worker: can't send a tensor on {obj.device}: return CPU tensors and move batches in the "
                    "main process"
                )
            if obj.requires_grad and not obj.is_leaf:
                raise RuntimeError(
                    "DataLoader worker: can't send a non-leaf tensor that requires grad; call detach() on it first"
                )
            flat = obj.detach().contiguous()
            name = str(obj.dtype).rsplit(".", 1)[-1]
            return _rebuild, (pickle.PickleBuffer(tensor_bytes(flat)), name, tuple(obj.shape), obj.requires_grad)
        return NotImplemented


def _aligned(n):
    return (n + _ALIGN - 1) // _ALIGN * _ALIGN


def _write_all(fd, view, offset):
    while len(view):
        n = os.pwrite(fd, view, offset)
        view, offset = view[n:], offset + n


class Channel:
    """One end of the socket between a worker and the main process: whole messages, and batches."""

    def __init__(self, sock):
        self.sock = sock

    def fileno(self):
        return self.sock.fileno()

    def close(self):
        self.sock.close()

    # ---- plain messages ------------------------------------------------------------------------

    def send(self, obj):
        data = pickle.dumps(obj, protocol=5)
        self.sock.sendall(_HEADER.pack(len(data), 0, 0) + data)

    def recv(self):
        """The next message or batch; EOFError when the other side is gone."""
        size, area, count = _HEADER.unpack(self._read(_HEADER.size))
        if not count:
            return pickle.loads(self._read(size))
        sizes = struct.unpack(f"<{count}Q", self._read(8 * count))
        data = self._read(size)
        if area > _INLINE:
            _, fds, _, _ = socket.recv_fds(self.sock, 1, 1)
            if not fds:
                raise EOFError("the worker's socket closed in the middle of a batch")
            try:
                memory = memoryview(mmap.mmap(fds[0], area))
            finally:
                os.close(fds[0])
        else:
            memory = memoryview(self._read(area))
        buffers, offset = [], 0
        for n in sizes:
            buffers.append(memory[offset : offset + n])
            offset += _aligned(n)
        return pickle.loads(data, buffers=buffers)

    def _read(self, n):
        data = bytearray(n)
        view = memoryview(data)
        while len(view):
            got = self.sock.recv_into(view)
            if not got:
                raise EOFError("the other side closed the socket")
            view = view[got:]
        return data

    # ---- batches -------------------------------------------------------------------------------

    def send_batch(self, obj):
        """Sends ``obj``, its tensors and arrays through shared memory. Nothing is sent if pickling fails."""
        buffers = []
        stream = io.BytesIO()
        _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(obj)
        data = stream.getvalue()
        if not buffers:
            self.sock.sendall(_HEADER.pack(len(data), 0, 0) + data)
            return
        views = [b.raw() for b in buffers]
        area = sum(_aligned(len(v)) for v in views)
        head = _HEADER.pack(len(data), area, len(views)) + struct.pack(f"<{len(views)}Q", *map(len, views))
        if area <= _INLINE:
            body = b"".join(bytes(v) + b"\0" * (_aligned(len(v)) - len(v)) for v in views)
            self.sock.sendall(head + data + body)
            return
        fd = memory_file(area, "pyrite-batch")
        try:
            offset = 0
            for v in views:
                _write_all(fd, v, offset)
                offset += _aligned(len(v))
            self.sock.sendall(head + data)
            socket.send_fds(self.sock, [b"f"], [fd])
        finally:
            os.close(fd)


def channel_pair():
    """Two connected channels."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(a), Channel(b)
