"""Reads IDX files, the format of MNIST: a header of big-endian numbers, then raw values. Never unpickles."""

import gzip
import os
import struct
import zlib

from .. import _C

# Code in the third byte of the header -> (dtype, bytes per value).
_TYPES = {
    0x08: ("uint8", 1),
    0x09: ("int8", 1),
    0x0B: ("int16", 2),
    0x0C: ("int32", 4),
    0x0D: ("float32", 4),
    0x0E: ("float64", 8),
}
_MAX_BYTES = 1 << 32


def read_idx(path, ndim=None):
    """The tensor in an IDX file (plain or gzip).

    Raises ValueError, naming the file, where the header is wrong, the data is cut short or too long, the
    compressed stream is damaged, or the number of dimensions is not ``ndim``.

    >>> import tempfile, os, pyrite as torch
    >>> path = os.path.join(tempfile.mkdtemp(), "labels")
    >>> with open(path, "wb") as f:
    ...     _ = f.write(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
    >>> torch.datasets.read_idx(path).tolist()
    [7, 9]
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as f:
            packed = f.read(2) == b"\x1f\x8b"
        opener = gzip.open if packed else open
        with opener(path, "rb") as f:
            return _parse(f, path, ndim)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"read_idx: {path} is damaged: {error}. Delete it and fetch it again.") from None


def _parse(f, path, ndim):
    head = f.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or head[3] == 0:
        raise ValueError(f"read_idx: {path} is not an IDX file (header {head!r})")
    name, size = _TYPES[head[2]]
    dims = head[3]
    if ndim is not None and dims != ndim:
        raise ValueError(f"read_idx: {path} has {dims} dimensions, expected {ndim}")
    raw = f.read(4 * dims)
    if len(raw) < 4 * dims:
        raise ValueError(f"read_idx: {path} ends inside its header")
    shape = struct.unpack(f">{dims}I", raw)
    expected = size
    for n in shape:
        expected *= n
    if expected > _MAX_BYTES:
        raise ValueError(f"read_idx: {path} claims shape {shape}: too large for an IDX file")
    data = bytearray()
    # In pieces: a header that lies about its size must not make us allocate all of it first.
    while len(data) <= expected:
        piece = f.read(min(1 << 22, expected + 1 - len(data)))
        if not piece:
            break
        data += piece
    if len(data) != expected:
        found = "more than" if len(data) > expected else f"{len(data)} of"
        raise ValueError(f"read_idx: {path} has {found} the {expected} bytes that shape {shape} asks for")
    if not expected:
        return _C.empty(shape, dtype=getattr(_C, name))
    if size > 1:
        import array

        values = array.array({"int16": "h", "int32": "i", "float32": "f", "float64": "d"}[name])
        values.frombytes(bytes(data))
        values.byteswap()
        data = values
    return _C.frombuffer(data, dtype=getattr(_C, name)).reshape(shape)
