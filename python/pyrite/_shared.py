"""Tensors in memory that processes share: `Tensor.share_memory_` and `Tensor.is_shared`.

The bytes lie in an anonymous memory file. A process forked later sees the same bytes; one that receives the
tensor through `multiprocessing` (a Queue, a Pipe, the arguments of a Process) gets the file's descriptor and
maps it: no copy, and no name that could be left behind, whatever dies.
"""

import mmap
import os
import weakref

from . import _C

Tensor = _C.Tensor


class _Block(mmap.mmap):
    """A mapped memory file that remembers its descriptor, to be handed to other processes."""

    def __new__(cls, fd, size):
        block = super().__new__(cls, fd, size)
        block.fd = fd
        weakref.finalize(block, os.close, fd)
        return block


# The blocks that are alive, by address.
_blocks = weakref.WeakValueDictionary()


def memory_file(size, name="pyrite-shared"):
    """A file descriptor of ``size`` bytes that live in memory, without a name others could open."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
    else:
        import tempfile

        fd, path = tempfile.mkstemp(prefix=f"{name}-")
        os.unlink(path)
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _over(fd, size, dtype, shape, stride, offset):
    """A tensor over the memory file ``fd`` of ``size`` bytes, which it owns from now on."""
    block = _Block(fd, size)
    flat = _C.frombuffer(block, dtype=dtype)
    _blocks[flat.data_ptr()] = block
    return flat.as_strided(shape, stride, offset).detach()


def _block_of(t):
    return _blocks.get(t.untyped_storage().data_ptr()) if t.device.type == "cpu" else None


def is_shared(self):
    """True if the tensor's memory is shared with other processes (CUDA memory always can be).

    >>> import pyrite as torch
    >>> torch.ones(2).is_shared(), torch.ones(2).share_memory_().is_shared()
    (False, True)
    """
    return self.device.type != "cpu" or _block_of(self) is not None


def share_memory_(self):
    """Moves the tensor into memory that processes share; nothing happens if it is there (or on a GPU).

    Values, strides, gradient and history stay. Views made before keep looking at the old memory.

    >>> import pyrite as torch
    >>> torch.arange(3).share_memory_().tolist()
    [0, 1, 2]
    """
    if is_shared(self):
        return self
    old = self.detach()
    if any(s < 0 for s in old.stride()):
        old = old.contiguous()
    bytes = old.untyped_storage()._as_tensor()
    size = max(len(bytes), 16)  # whole elements of any dtype, and never nothing
    size = (size + 15) // 16 * 16
    new = _over(memory_file(size), size, old.dtype, tuple(old.shape), old.stride(), old.storage_offset())
    new.untyped_storage()._as_tensor()[: len(bytes)].copy_(bytes)
    self.data = new
    _register(type(self))
    return self


def _rebuild(cls, handle, size, dtype, shape, stride, offset, requires_grad):
    t = _over(handle.detach(), size, dtype, shape, stride, offset)
    _register(cls)
    return t.requires_grad_(requires_grad) if cls is Tensor else cls(t, requires_grad)


def _reduce(t):
    """How `multiprocessing` sends a tensor: by its memory file if it is shared, else as `pickle` does."""
    block = _block_of(t)
    if block is None or not t.is_leaf:
        return t.__reduce_ex__(4)
    from multiprocessing.reduction import DupFd

    place = (len(block), t.dtype, tuple(t.shape), t.stride(), t.storage_offset(), t.requires_grad)
    return _rebuild, (type(t), DupFd(block.fd), *place)


def _register(cls):
    """From the first shared tensor of a class on, `multiprocessing` sends that class by :func:`_reduce`."""
    from multiprocessing.reduction import ForkingPickler

    from .nn import Parameter

    if cls in (Tensor, Parameter):
        ForkingPickler.register(cls, _reduce)
