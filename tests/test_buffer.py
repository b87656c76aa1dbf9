"""A tensor's memory in other hands: the buffer protocol and `__array_interface__`."""

import gc
import hashlib

import numpy as np
import pytest
from subject import torch

pytestmark = pytest.mark.pyrite  # PyTorch's tensors have neither

FORMATS = {
    "bool": "?", "uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "uint32": "I", "int32": "i", "uint64": "Q",
    "int64": "q", "float16": "e", "float32": "f", "float64": "d", "complex64": "Zf", "complex128": "Zd",
}  # fmt: skip


@pytest.mark.parametrize("name, code", FORMATS.items())
def test_every_dtype(name, code):
    a = np.arange(6).reshape(2, 3).astype(name)
    view = memoryview(torch.from_numpy(a))
    assert (view.format, view.shape, view.itemsize) == (code, (2, 3), a.itemsize)
    np.testing.assert_array_equal(np.asarray(view), a)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x.t(),
        lambda x: x[1:, ::2],
        lambda x: x[1],
        lambda x: x[0, 0],
        lambda x: x[:0],
        lambda x: x.expand(2, 3, 4),
    ],
)
def test_layouts_share_memory(make):
    x = torch.arange(12.0).reshape(3, 4)
    view = make(x)
    a = np.asarray(memoryview(view))
    np.testing.assert_array_equal(a, view.numpy())
    assert a.shape == tuple(view.shape)
    if view.numel():
        assert a.__array_interface__["data"][0] == view.data_ptr()
        assert a.strides == tuple(s * 4 for s in view.stride())


def test_writes_go_through():
    x = torch.zeros(3)
    memoryview(x)[1] = 5.0
    assert x.tolist() == [0, 5, 0]
    np.asarray(x)[2] = 7
    assert x.tolist() == [0, 5, 7]


def test_the_memory_outlives_the_tensor():
    x = torch.arange(1000.0)
    view = memoryview(x)
    x.data = torch.zeros(1)
    assert view[999] == 999.0
    del x
    gc.collect()
    assert view[998] == 998.0
    view.release()


def test_only_contiguous_memory_without_strides():
    x = torch.arange(6, dtype=torch.uint8).reshape(2, 3)
    assert bytes(x) == bytes(range(6))
    assert bytearray(x[1]) == bytearray([3, 4, 5])
    with pytest.raises(BufferError, match="not contiguous"):
        hashlib.sha256(x.t())


@pytest.mark.parametrize(
    "x, reason",
    [(torch.ones(2, requires_grad=True), "detach"), (torch.ones(2, dtype=torch.bfloat16), "bfloat16")],
    ids=["grad", "bfloat16"],
)
def test_refusals_say_why(x, reason):
    with pytest.raises(BufferError, match=reason):
        memoryview(x)
    assert not hasattr(x, "__array_interface__")


def test_numpy_says_what_pytorch_says():
    with pytest.raises(RuntimeError, match="requires grad"):
        np.asarray(torch.ones(2, requires_grad=True))


def test_read_only_memory_stays_read_only():
    a = np.arange(3.0)
    a.flags.writeable = False
    with pytest.warns(UserWarning, match="not writable"):
        x = torch.from_numpy(a)
    assert memoryview(x).readonly
    assert not np.asarray(x).flags.writeable


def test_array_interface():
    x = torch.arange(6.0).reshape(2, 3).t()
    i = x.__array_interface__
    assert i == {"version": 3, "shape": (3, 2), "strides": (4, 12), "typestr": "<f4", "data": (x.data_ptr(), False)}


def test_arrays_leave_operators_to_tensors():
    a, x = np.ones(3), torch.ones(3, dtype=torch.float64)
    for y in (a * x, a + x, x * a):
        assert isinstance(y, torch.Tensor)
