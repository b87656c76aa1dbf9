"""The Python boundary: arguments, errors, object identity, interop with NumPy and DLPack, pickling."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
from subject import torch


# --- arguments --------------------------------------------------------------------------------------------------------
def test_sizes_one_by_one_or_as_a_sequence():
    x = torch.arange(6)
    for y in (x.view(2, 3), x.view((2, 3)), x.view([2, 3]), x.view(torch.Size([2, 3])), x.reshape(2, -1)):
        assert y.shape == (2, 3)
    assert torch.zeros(np.int64(2), torch.tensor(3)).shape == (2, 3)
    assert torch.ones(()).shape == ()


def test_numbers_of_numpy_and_zero_dim_tensors():
    x = torch.ones(2)
    assert (x + np.float64(1)).dtype == torch.float32
    assert x.add(np.float32(1)).tolist() == [2, 2]
    assert torch.full((2,), torch.tensor(3.0)).tolist() == [3, 3]
    assert x.sum(np.int64(0)).item() == 2
    assert torch.arange(torch.tensor(3)).tolist() == [0, 1, 2]


def test_names_of_the_array_api():
    x = torch.ones(2, 3)
    assert x.sum(axis=1).tolist() == [3, 3]
    assert x.sum(dim=1, keepdims=True).shape == (2, 1)
    assert torch.sum(input=x).item() == 6


def test_out():
    out = torch.empty(0)
    assert torch.add(torch.ones(2), 1, out=out) is out
    assert out.tolist() == [2, 2]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.add("a"),
        lambda x: x.add(),
        lambda x: x.add(1, 2, 3),
        lambda x: x.add(other=1, another=2),
        lambda x: x.add(1, other=2),
        lambda x: x.view("a"),
        lambda x: torch.zeros(2, dtype="float"),
        lambda x: torch.cat([x, 1]),
        lambda x: x.sum(foo=1),
        lambda x: len(torch.tensor(1)),
        lambda x: x.to("float", 1, 2, 3, 4),
        lambda x: x.to(nothing=1),
        lambda x: torch.tensor(object),
        lambda x: torch.from_numpy([1]),
        lambda x: x.register_hook(1),
    ],
)
def test_wrong_arguments_are_errors(call):
    with pytest.raises((TypeError, RuntimeError)):
        call(torch.ones(2))


@pytest.mark.pyrite
def test_errors_name_the_signature():
    with pytest.raises(
        TypeError, match=r"add\(\): argument 'other' \(position 1\) must be Tensor or Number, not str"
    ) as e:
        torch.ones(2).add("a")
    assert "alpha" in str(e.value)
    with pytest.raises(torch.ShapeError) as e:
        torch.ones(2, 3) + torch.ones(2, 4)
    assert isinstance(e.value, RuntimeError) and isinstance(e.value, ValueError)


def test_unknown_operands_are_left_to_the_other_side():
    class Other:
        def __radd__(self, x):
            return "radd"

        def __rmatmul__(self, x):
            return "rmatmul"

    assert torch.ones(2) + Other() == "radd"
    assert torch.ones(2) @ Other() == "rmatmul"
    with pytest.raises(TypeError):
        torch.ones(2) + "a"


def test_numpy_on_the_left():
    y = np.ones(2, np.float32) + torch.ones(2)
    assert isinstance(y, torch.Tensor) and y.tolist() == [2, 2]


# --- data -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "data, dtype, shape",
    [
        (1, torch.int64, ()),
        (True, torch.bool, ()),
        (1.5, torch.float32, ()),
        (1j, torch.complex64, ()),
        ([1, 2.0], torch.float32, (2,)),
        ([True, 2], torch.int64, (2,)),
        ([], torch.float32, (0,)),
        ([[], []], torch.float32, (2, 0)),
        (((1, 2), (3, 4)), torch.int64, (2, 2)),
        (np.float64(2), torch.float64, ()),
        ([np.float32(1), 2], torch.float32, (2,)),
        (np.arange(3, dtype=np.int16), torch.int16, (3,)),
        (range(3), torch.int64, (3,)),
    ],
    ids=repr,
)
def test_tensor_infers_dtype_and_shape(data, dtype, shape):
    t = torch.tensor(data)
    assert t.dtype == dtype and t.shape == shape
    assert t.tolist() == np.asarray(data).tolist()


def test_tensors_inside_lists():
    assert torch.tensor([torch.tensor(1), torch.tensor(2)]).tolist() == [1, 2]


@pytest.mark.parametrize("data", [[[1, 2], [3]], [[1], 2], [1, [2]], "abc", ["a"], [[1, 2], [3, 4, 5]]], ids=repr)
def test_ragged_data_is_an_error(data):
    with pytest.raises((ValueError, TypeError)):
        torch.tensor(data)


def test_int_too_large():
    with pytest.raises((RuntimeError, OverflowError, TypeError)):
        torch.tensor(2**70)
    with pytest.raises((RuntimeError, OverflowError, TypeError)):
        torch.zeros(2**70)


# --- NumPy ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", "? u1 i1 i2 i4 i8 f2 f4 f8 c8 c16".split())
def test_every_dtype_shares_memory(kind):
    a = np.arange(6).reshape(2, 3).astype(kind)
    t = torch.from_numpy(a)
    assert t.tolist() == a.tolist() and np.shares_memory(t.numpy(), a) and t.numpy().dtype == a.dtype


def test_views_of_arrays():
    a = np.arange(24.0).reshape(4, 6)
    t = torch.from_numpy(a[1:, ::2])
    assert t.tolist() == a[1:, ::2].tolist() and t.stride() == (6, 2)
    t[0, 0] = 99
    assert a[1, 0] == 99


@pytest.mark.pyrite  # PyTorch has no negative strides
def test_negative_strides():
    a = np.arange(6.0).reshape(2, 3)
    t = torch.from_numpy(a[::-1, ::-1])
    assert t.tolist() == a[::-1, ::-1].tolist()
    t[0, 0] = 7
    assert a[1, 2] == 7


def test_read_only_arrays_warn():
    a = np.ones(2)
    a.flags.writeable = False
    with pytest.warns(UserWarning, match="not writable"):
        torch.from_numpy(a)


def test_arrays_are_kept_alive():
    a = np.ones(1000)
    t = torch.from_numpy(a)
    ref = weakref.ref(a)
    del a
    gc.collect()
    assert ref() is not None and t.sum().item() == 1000
    del t
    gc.collect()
    assert ref() is None
    n = torch.ones(1000).numpy()
    gc.collect()
    assert n.sum() == 1000


def test_numpy_of_a_tensor_with_gradient_is_an_error():
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="detach"):
        x.numpy()
    assert x.numpy(force=True).tolist() == [1, 1]
    assert x.detach().numpy().tolist() == [1, 1]


def test_unaligned_and_odd_arrays():
    a = np.frombuffer(b"\0" + np.arange(3, dtype=np.float32).tobytes(), np.float32, offset=1)
    assert torch.tensor(a).tolist() == [0, 1, 2]
    with pytest.raises((TypeError, ValueError)):
        torch.from_numpy(np.array(["a"]))
    with pytest.raises((TypeError, ValueError)):
        torch.from_numpy(np.arange(3).astype(">i4"))


def test_asarray_protocols():
    t = torch.arange(3.0)
    assert np.asarray(t).tolist() == [0, 1, 2]
    assert np.array(t, dtype=np.int32).dtype == np.int32
    assert torch.as_tensor(t) is t
    a = np.ones(2, np.float32)
    assert np.shares_memory(torch.as_tensor(a).numpy(), a)
    assert not np.shares_memory(torch.tensor(a).numpy(), a)


def test_frombuffer():
    b = bytearray(np.arange(4, dtype=np.int32).tobytes())
    t = torch.frombuffer(b, dtype=torch.int32)
    t[0] = 9
    assert b[0] == 9 and torch.frombuffer(b, dtype=torch.int32, count=1, offset=4).tolist() == [1]
    with pytest.raises(ValueError):
        torch.frombuffer(b, dtype=torch.int32, count=100)
    with pytest.raises(ValueError):
        torch.frombuffer(b, dtype=torch.int64, offset=1)


# --- DLPack -----------------------------------------------------------------------------------------------------------
def test_dlpack_both_ways():
    a = np.arange(6.0).reshape(2, 3)
    t = torch.from_dlpack(a)
    t[0, 0] = 5
    assert a[0, 0] == 5
    x = torch.arange(6).reshape(2, 3)
    b = np.from_dlpack(x.t())
    assert b.tolist() == x.t().tolist() and np.shares_memory(b, x.numpy())
    y = torch.from_dlpack(x)
    assert y.data_ptr() == x.data_ptr()
    assert x.__dlpack_device__()[0] == 1
    ref = x.__dlpack__()
    assert torch.from_dlpack(ref).tolist() == x.tolist()


def test_dlpack_refuses_gradients():
    with pytest.raises((BufferError, RuntimeError)):
        torch.ones(2, requires_grad=True).__dlpack__()


# --- pickle and copy ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.bfloat16, torch.float16], ids=str)
def test_pickle(dtype):
    x = torch.arange(6).reshape(2, 3).t().to(dtype)
    y = pickle.loads(pickle.dumps(x))
    assert y.dtype == dtype and y.tolist() == x.tolist()


def test_pickle_keeps_requires_grad():
    assert pickle.loads(pickle.dumps(torch.ones(2, requires_grad=True))).requires_grad


def test_copies():
    x = torch.ones(2, requires_grad=True)
    x.grad = torch.zeros(2)
    y = copy.deepcopy([x, x])
    assert y[0] is y[1] and y[0].grad.tolist() == [0, 0] and y[0].data_ptr() != x.data_ptr()
    z = copy.copy(torch.ones(2))
    assert z.tolist() == [1, 1]
    with pytest.raises(RuntimeError):
        copy.deepcopy(x * 2)


def test_small_types():
    for value in (torch.float32, torch.device("cpu"), torch.Size([1, 2]), torch.strided, torch.channels_last):
        assert pickle.loads(pickle.dumps(value)) == value
        assert copy.deepcopy(value) == value
    assert repr(torch.device("cuda", 1)) == "device(type='cuda', index=1)" and str(torch.device("cuda:1")) == "cuda:1"
    assert torch.Size([2, 3]).numel() == 6 and repr(torch.Size([2])) == "torch.Size([2])"
    assert isinstance(torch.Size([1, 2])[:1], torch.Size) and torch.Size([1]) + (2,) == (1, 2)
    assert torch.finfo(torch.float32).eps == np.finfo(np.float32).eps and torch.iinfo(torch.int8).min == -128
    with pytest.raises(RuntimeError):
        torch.device("tpu9")


# --- objects ------------------------------------------------------------------------------------------------------------
def test_identity_of_results():
    x = torch.ones(3)
    assert x.contiguous() is x and x.to(torch.float32) is x and x.float() is x and x.cpu() is x
    assert x.add_(1) is x and x.requires_grad_() is x
    v = x.detach()
    assert v is not x and not v.requires_grad
    base = torch.zeros(4)
    assert base[0]._base is base and base.view(2, 2)._base is base


def test_data_swaps_what_an_object_stands_for():
    x = torch.ones(2, requires_grad=True)
    x.data = torch.zeros(3)
    assert x.shape == (3,) and x.requires_grad and x.is_leaf
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2, 2, 2]
    t = torch.ones(2, 3)
    assert t.t_() is t and t.shape == (3, 2)
    assert t.resize_(4, 4) is t and t.shape == (4, 4)
    assert t.unsqueeze_(0).shape == (1, 4, 4) and t.squeeze_().shape == (4, 4)


def test_weak_references_and_attributes():
    x = torch.ones(2)
    ref = weakref.ref(x)
    x.note = "n"
    assert ref() is x and x.note == "n" and x.__dict__ == {"note": "n"}
    del x
    gc.collect()
    assert ref() is None


def test_hash_is_identity():
    x, y = torch.ones(2), torch.ones(2)
    assert len({x, y, x}) == 2 and hash(x) == hash(x)


def test_threads_share_tensors():
    from concurrent.futures import ThreadPoolExecutor

    x = torch.ones(1000)
    with ThreadPoolExecutor(8) as pool:
        sums = list(pool.map(lambda i: (x * i).sum().item(), range(200)))
    assert sums == [1000.0 * i for i in range(200)]
