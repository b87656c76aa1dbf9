"""Memory formats, conversions, storages, shared memory, settings and random numbers: what a tensor is rather than
what it computes."""

import math
import multiprocessing
import warnings

import numpy as np
import pytest
from subject import IS_PYRITE, torch

CL, CL3 = torch.channels_last, torch.channels_last_3d


def x(*shape):
    return torch.arange(float(np.prod(shape))).reshape(shape)


# --- memory formats ---------------------------------------------------------------------------------------------------
STRIDES = [
    (lambda: torch.empty(2, 3, 4, 5, memory_format=CL), (60, 1, 15, 3)),
    (lambda: torch.empty_like(x(2, 3, 4, 5).to(memory_format=CL)), (60, 1, 15, 3)),
    (lambda: torch.zeros_like(x(2, 3, 4, 5), memory_format=CL), (60, 1, 15, 3)),
    (lambda: x(2, 3, 4, 5).contiguous(memory_format=CL), (60, 1, 15, 3)),
    (lambda: x(2, 3, 4, 5).clone(memory_format=CL), (60, 1, 15, 3)),
    (lambda: x(2, 3, 4, 5).double(memory_format=CL), (60, 1, 15, 3)),
    (lambda: x(2, 3, 4, 5, 6).to(memory_format=CL3), (360, 1, 90, 18, 3)),
    (lambda: x(2, 3, 4, 5).to(memory_format=CL) + 1, (60, 1, 15, 3)),
    (lambda: torch.empty_like(x(2, 3, 4, 5).permute(3, 1, 0, 2)), (1, 20, 60, 5)),
    # With gaps: the order of dimensions stays, the gaps close.
    (lambda: torch.empty_like(x(2, 3, 4)[:, ::2].permute(2, 0, 1)), (1, 8, 4)),
    (lambda: x(2, 3, 4)[:, ::2].permute(2, 0, 1) + 1, (1, 8, 4)),
    (lambda: x(2, 3, 4)[:, ::2].permute(2, 0, 1).clone(), (1, 8, 4)),
    (lambda: x(2, 3, 4)[:, ::2].permute(2, 0, 1).to(torch.float64), (1, 8, 4)),
    (lambda: x(3, 1).expand(3, 4).clone(), (4, 1)),
    (lambda: torch.empty_permuted((2, 3, 4), (1, 2, 0)), (1, 8, 2)),
    (lambda: x(2, 3).new_empty_strided((2, 3), (1, 2)), (1, 2)),
    (lambda: x(2, 3, 4, 5).resize_(1, 2, 3, 4, memory_format=CL), (24, 1, 8, 2)),
    (lambda: x(2).resize_as_(x(2, 3, 4, 5).to(memory_format=CL), memory_format=torch.preserve_format), (60, 1, 15, 3)),
]


@pytest.mark.parametrize("i", range(len(STRIDES)))
def test_strides(i):
    make, want = STRIDES[i]
    assert make().stride() == want


def test_formats_keep_values():
    a = x(2, 3, 4, 5)
    b = a.to(memory_format=CL)
    assert torch.equal(a, b) and b.is_contiguous(memory_format=CL) and not b.is_contiguous()
    assert b.dim_order() == (0, 2, 3, 1)
    assert b.contiguous().stride() == a.stride()
    assert b.to(memory_format=CL) is b


# --- conversions ------------------------------------------------------------------------------------------------------
def test_to_in_all_forms():
    a = x(2)
    assert a.to(torch.float32) is a and a.to("cpu") is a and a.to() is a
    assert a.to(torch.float32, copy=True) is not a
    assert a.to("cpu", torch.float64, True, True).dtype == torch.float64
    assert a.to(torch.ones(1, dtype=torch.int8)).dtype == torch.int8
    assert a.to(device="cpu", dtype=torch.int32, non_blocking=True).dtype == torch.int32
    assert a.type(torch.DoubleTensor).dtype == a.type("torch.DoubleTensor").dtype == torch.float64
    assert a.type() == "torch.FloatTensor" and a.type_as(torch.ones(1).long()).dtype == torch.int64
    assert torch.FloatTensor(2, 3).shape == (2, 3) and torch.LongTensor([1, 2]).dtype == torch.int64
    assert isinstance(a, torch.FloatTensor) and not isinstance(a, torch.LongTensor)


def test_view_as_another_dtype():
    a = np.array([[1.0, -2.5], [3e-9, 7.0]], np.float32)
    t = torch.from_numpy(a)
    for name in ("int32", "int16", "uint8", "float64", "int64"):
        got = t.view(getattr(torch, name))
        np.testing.assert_array_equal(got.numpy(), a.view(name))
    t.view(torch.int32)[0, 0] = 0
    assert t[0, 0] == 0
    assert x(4, 4)[::2].view(torch.int16).shape == (2, 8)
    for bad in (
        lambda: x(3).view(torch.float64),
        lambda: torch.tensor(1.0).view(torch.int16),
        lambda: x(4, 2).T.view(torch.int16),
        lambda: x(4)[1:3].view(torch.float64),
    ):
        with pytest.raises(RuntimeError):
            bad()


def test_python_functions_over_elements():
    assert x(3).apply_(lambda v: v + 1).tolist() == [1, 2, 3]
    assert x(3).map_(x(3) * 10, lambda a, b: a + b).tolist() == [0, 11, 22]
    assert x(2, 2).map2_(x(2), x(2, 1), lambda a, b, c: a + 10 * b + 100 * c).tolist() == [[0, 11], [102, 113]]
    with pytest.raises(RuntimeError):
        x(2).map_(x(3), lambda a, b: a)


# --- storages and shared memory ---------------------------------------------------------------------------------------
def test_storage():
    t = torch.ones(2)
    s = t.untyped_storage()
    assert (s.nbytes(), len(s), s.element_size(), s.data_ptr()) == (8, 8, 1, t.data_ptr())
    assert s.tolist() == list(s) == [0, 0, 128, 63] * 2 and s[3] == 63 and s[-1] == 63
    s[4:] = 0
    assert t.tolist() == [1, 0]
    copy = s.clone()
    s.fill_(0)
    assert t.tolist() == [0, 0]
    s.copy_(copy)
    assert t.tolist() == [1, 0] and t[1:].untyped_storage() == s
    with pytest.raises(IndexError):
        s[8]
    assert "of size 8" in repr(s)


def add_one(t, queue):
    t.add_(1)
    queue.put(t.is_shared())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_shared_memory(method):
    if not IS_PYRITE:
        pytest.skip("the same, but slow to start")
    t = torch.arange(6.0).reshape(2, 3).T[1:]
    assert not t.is_shared()
    assert t.share_memory_() is t and t.is_shared() and t.share_memory_() is t
    assert t.tolist() == [[1, 4], [2, 5]] and t.stride() == (1, 3)
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking a process that has threads
        p = context.Process(target=add_one, args=(t, queue))
        p.start()
    assert queue.get()
    p.join()
    assert t.tolist() == [[2, 5], [3, 6]]


def test_sharing_keeps_what_a_tensor_is():
    w = torch.nn.Parameter(torch.ones(2))
    (w * 2).sum().backward()
    w.share_memory_()
    assert isinstance(w, torch.nn.Parameter) and w.is_leaf and w.grad.tolist() == [2, 2]
    assert torch.empty(0).share_memory_().is_shared()


def test_pinned_memory_needs_a_device():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert not torch.ones(1).is_pinned()
    for f in (lambda: torch.ones(1).pin_memory(), lambda: torch.zeros(1, pin_memory=True)):
        with pytest.raises(RuntimeError):
            f()


# --- settings ---------------------------------------------------------------------------------------------------------
def test_settings():
    assert torch.get_default_device() == torch.device("cpu")
    with torch.device("cpu"):
        assert torch.ones(1).device.type == "cpu"
    torch.set_default_device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_default_tensor_type(torch.DoubleTensor)
        assert torch.ones(1).dtype == torch.float64
        torch.set_default_tensor_type("torch.FloatTensor")
    torch.use_deterministic_algorithms(True)
    assert torch.are_deterministic_algorithms_enabled() and torch.get_deterministic_debug_mode() == 2
    torch.set_deterministic_debug_mode("warn")
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_deterministic_debug_mode(0)
    torch.set_float32_matmul_precision("high")
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision("highest")
    assert torch.get_num_interop_threads() >= 1
    torch.set_warn_always(True)
    assert torch.is_warn_always_enabled()
    torch.set_warn_always(False)
    for f, kind in (
        (lambda: torch.set_default_tensor_type("torch.IntTensor"), TypeError),
        (lambda: torch.set_deterministic_debug_mode("x"), RuntimeError),
        (lambda: torch.set_deterministic_debug_mode(5), RuntimeError),
        (lambda: torch.use_deterministic_algorithms("x"), TypeError),
        (lambda: torch.set_num_interop_threads(0), RuntimeError),
        (lambda: torch.set_num_threads(0), RuntimeError),
    ):
        with pytest.raises(kind):
            f()


def test_warn_always():
    def warned():
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("default")
            for _ in range(3):
                torch.add(x(2), 1, out=torch.empty(3))
        return len(seen)

    if IS_PYRITE:  # PyTorch's own warnings of this kind count once per process
        assert warned() == 1
        torch.set_warn_always(True)
        try:
            assert warned() == 3
        finally:
            torch.set_warn_always(False)


@pytest.mark.pyrite
def test_compile_is_the_function_itself():
    def f(a):
        return a * 2

    assert torch.compile(f) is f and torch.compile(fullgraph=True, dynamic=False)(f) is f
    with pytest.raises(RuntimeError):
        torch.compile(f, mode="default", options={})


# --- random numbers ---------------------------------------------------------------------------------------------------
def moments(t):
    a = t.double()
    return a.mean().item(), a.var().item()


@pytest.mark.parametrize("rate", [0.0, 0.3, 4.0, 12.5, 300.0])
def test_poisson(rate):
    n = 40_000
    mean, var = moments(torch.poisson(torch.full((n,), rate), torch.Generator().manual_seed(3)))
    assert abs(mean - rate) <= 5 * math.sqrt(rate / n) and abs(var - rate) <= 0.05 * rate + 1e-12


@pytest.mark.parametrize("n,p", [(10, 0.0), (10, 1.0), (7, 0.2), (7, 0.9), (400, 0.3), (1000, 0.001), (10**6, 0.5)])
def test_binomial(n, p):
    k = 40_000
    t = torch.binomial(torch.full((k,), float(n)), torch.full((k,), p), torch.Generator().manual_seed(4))
    mean, var = moments(t)
    want = n * p * (1 - p)
    assert abs(mean - n * p) <= 5 * math.sqrt(want / k) and abs(var - want) <= 0.06 * want + 1e-12
    assert t.min() >= 0 and t.max() <= n


def test_counts_do_not_depend_on_threads():
    def draw():
        return torch.poisson(torch.full((50_000,), 20.0), torch.Generator().manual_seed(1))

    threads = torch.get_num_threads()
    a = draw()
    torch.set_num_threads(1)
    try:
        assert torch.equal(a, draw())
    finally:
        torch.set_num_threads(threads)


def test_draws_have_zero_gradients():
    p = torch.full((3,), 0.5, requires_grad=True)
    for y in (torch.bernoulli(p), torch.normal(p, 1.0), torch.normal(0.0, p), torch.poisson(p)):
        (g,) = torch.autograd.grad(y.sum(), p)
        assert g.tolist() == [0, 0, 0]


BAD = [
    (lambda: torch.poisson(torch.tensor([-1.0])), RuntimeError),
    (lambda: torch.poisson(torch.tensor([1])), NotImplementedError),
    (lambda: torch.binomial(torch.tensor([1]), torch.tensor([0.5])), ValueError),
    (lambda: torch.bernoulli(torch.tensor([1.5])), RuntimeError),
    (lambda: torch.ones(2, dtype=torch.uint8).random_(300), RuntimeError),
    (lambda: torch.randint(300, (2,), dtype=torch.uint8), RuntimeError),
    (lambda: torch.randperm(300, dtype=torch.uint8), RuntimeError),
    (lambda: torch.ones(2).long().exponential_(), RuntimeError),
    (lambda: torch.ones(2).long().normal_(), NotImplementedError),
    (lambda: torch.rand(2, dtype=torch.int64), NotImplementedError),
    (lambda: torch.arange(0, 4, 0.5, dtype=torch.int64), ValueError),
    (lambda: torch.arange(0, 4, 0), RuntimeError),
    (lambda: torch.arange(4, dtype=torch.bool), NotImplementedError),
    (lambda: torch.linspace(torch.ones(2), 1, 3), RuntimeError),
    (lambda: torch.full((2,), 300, dtype=torch.uint8), RuntimeError),
    (lambda: torch.ones(2).fill_(1j), RuntimeError),
    (lambda: torch.ones(2, dtype=torch.int8).fill_(1000), RuntimeError),
    (lambda: torch.ones(2).fill_(1e300), RuntimeError),
    (lambda: torch.full_like(torch.ones(2), 1j), RuntimeError),
    (lambda: torch.tensor([300], dtype=torch.uint8), RuntimeError),
    (lambda: torch.linspace(0, 1j, 3, dtype=torch.float32), RuntimeError),
    (lambda: torch.numel(3), TypeError),
    (lambda: torch.is_signed(3), TypeError),
    (lambda: torch.max(x(2, 2), 1, out=(torch.empty(0), torch.empty(0))), RuntimeError),
    (lambda: torch.empty_permuted((2, 3), (0,)), RuntimeError),
    (lambda: torch.empty_permuted((2, 3), (0, 0)), RuntimeError),
    (lambda: torch.empty_permuted((2, 3), (0, 2)), RuntimeError),
    (lambda: torch.empty_strided((2, 3), (1,)), RuntimeError),
    (lambda: torch.empty(2**63), TypeError),
    (lambda: torch.randint(0, 2**63, (2,)), ValueError),
    (lambda: torch.empty(2**62, 2**62), RuntimeError),
    (lambda: torch.empty(-1), RuntimeError),
    (lambda: torch.ones(3).repeat(2**62), RuntimeError),
    (lambda: torch.ones(1).expand(2**40, 2**40), RuntimeError),
    (lambda: torch.ones(2).resize_(-1), RuntimeError),
    (lambda: torch.ones(3).squeeze((0, 0)), RuntimeError),
    (lambda: torch.ones(2).fliplr(), RuntimeError),
    (lambda: torch.tensor(1).flipud(), RuntimeError),
    (lambda: torch.ones(0).amax(), RuntimeError),
    (lambda: torch.ones(2, 0).amax(1), IndexError),
    (lambda: torch.ones(2).bitwise_and(1), NotImplementedError),
    (lambda: torch.ones(3).repeat_interleave(torch.tensor([1.0, 2, 3])), NotImplementedError),
    (lambda: torch.lerp(torch.ones(2), torch.ones(2).double(), 0.5), RuntimeError),
    (lambda: torch.lerp(torch.ones(2).long(), torch.ones(2).long(), 0.5), NotImplementedError),
    (lambda: torch.addcdiv(*[torch.ones(2).long()] * 3), RuntimeError),
    (lambda: torch.broadcast_shapes((2, -1), (3,)), ValueError),
    (lambda: torch.stack([]), RuntimeError),
    (lambda: torch.cat([]), ValueError),
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(BAD)))
def test_bad_arguments(i):
    call, kind = BAD[i]
    with pytest.raises(kind):
        call()


def test_numbers_that_fit():
    assert torch.ones(2, dtype=torch.uint8).fill_(-1).tolist() == [255, 255]
    assert torch.ones(2, dtype=torch.int64).fill_(1.9).tolist() == [1, 1]
    assert torch.ones(2, dtype=torch.int64).masked_fill_(torch.tensor(True), 1.5).tolist() == [1, 1]
    assert torch.ones(1, dtype=torch.float16).fill_(math.inf).item() == math.inf
    assert torch.arange(0, 3, 1.5, dtype=torch.int64).tolist() == [0, 1, 2]
    assert torch.repeat_interleave(torch.tensor([2, 0, 1])).tolist() == [0, 0, 2]
    assert torch.tensor(True).sum_to_size(()).dtype == torch.int64
    assert x(2).__rdiv__(3).tolist() == [math.inf, 3]
    with pytest.warns(UserWarning, match="deprecated"):
        assert torch.range(0, 2, 0.5).tolist() == [0, 0.5, 1, 1.5, 2]
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert math.isnan(torch.std(torch.tensor(1.0)))


def test_a_generator_is_cloned_where_it_stands():
    g = torch.Generator().manual_seed(5)
    torch.rand(3, generator=g)
    h = g.clone_state()
    a = torch.rand(4, generator=g)
    assert torch.equal(a, torch.rand(4, generator=h))


def test_complex_linspace():
    got = torch.linspace(1 - 1j, 3, 5)
    np.testing.assert_allclose(got.numpy(), np.linspace(1 - 1j, 3, 5).astype(np.complex64))
    assert got.dtype == torch.complex64


def test_integer_quotients_and_neighbours_have_gradients():
    a = torch.tensor([5.0, -7.0], requires_grad=True)
    for mode in ("trunc", "floor"):
        (g,) = torch.autograd.grad(torch.div(a, 2, rounding_mode=mode).sum(), a)
        assert g.tolist() == [0, 0]
