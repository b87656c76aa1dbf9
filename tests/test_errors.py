"""Bad input: the exception's type, what its message names, and that nothing a fuzzer finds brings the process down."""

import faulthandler
import math
import random
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st
from subject import NAME, F, nn, optim, torch

ones = torch.ones


def named(*words):
    """A pattern that wants all these words, in any order and any case."""
    return "(?is)" + "".join(f"(?=.*{w})" for w in words)


# What is called, the exception, and (for Pyrite, whose messages promise more) what the message must name.
CASES = {
    "add shapes": (lambda: ones(2, 3) + ones(2, 4), RuntimeError, ["3", "4"]),
    "add function": (lambda: torch.add(ones(5), ones(6)), RuntimeError, ["add", "5", "6"]),
    "mul in place": (lambda: ones(3).mul_(ones(2, 3)), RuntimeError, ["mul_", "3", "2"]),
    "matmul": (lambda: ones(2, 3) @ ones(4, 5), RuntimeError, ["3", "4"]),
    "mm of vectors": (lambda: torch.mm(ones(2), ones(2)), RuntimeError, ["mm"]),
    "bmm": (lambda: torch.bmm(ones(2, 3, 4), ones(3, 4, 5)), RuntimeError, ["bmm"]),
    "view": (lambda: ones(2, 3).view(4), RuntimeError, ["view|shape", "4"]),
    "reshape": (lambda: ones(2, 3).reshape(-1, 4), RuntimeError, ["4"]),
    "two unknown sides": (lambda: ones(6).view(-1, -1), RuntimeError, ["infer"]),
    "dim of sum": (lambda: ones(2, 3).sum(2), IndexError, ["2"]),
    "dim of softmax": (lambda: ones(2).softmax(-3), IndexError, ["-3"]),
    "dim twice": (lambda: ones(2, 3).sum((0, 0)), RuntimeError, ["dim"]),
    "permute": (lambda: ones(2, 3).permute(0), RuntimeError, ["permute|dim"]),
    "permute twice": (lambda: ones(2, 3).permute(0, 0), RuntimeError, ["permute|dim"]),
    "transpose": (lambda: ones(2).transpose(0, 1), IndexError, ["1"]),
    "cat shapes": (lambda: torch.cat([ones(2, 3), ones(2, 4)]), RuntimeError, ["cat|size", "3", "4"]),
    "cat of nothing": (lambda: torch.cat([]), (RuntimeError, ValueError), ["cat|empty"]),
    "stack": (lambda: torch.stack([ones(2), ones(3)]), RuntimeError, ["stack", "2", "3"]),
    "expand": (lambda: ones(2).expand(3), RuntimeError, ["expand", "2", "3"]),
    "squeeze": (lambda: ones(2).squeeze(4), IndexError, ["4"]),
    "index": (lambda: ones(2)[2], IndexError, ["2"]),
    "too many indices": (lambda: ones(2)[0, 0], IndexError, ["indices|dimension"]),
    "item": (lambda: ones(2).item(), (RuntimeError, ValueError), ["2|scalar"]),
    "bool of many": (lambda: bool(ones(2)), RuntimeError, ["ambiguous"]),
    "iterate a scalar": (lambda: list(torch.tensor(1.0)), TypeError, ["0-d"]),
    "len of a scalar": (lambda: len(torch.tensor(1.0)), TypeError, ["0-d"]),
    "ragged": (lambda: torch.tensor([[1, 2], [3]]), ValueError, ["2", "1"]),
    "not numbers": (lambda: torch.tensor(["a"]), (TypeError, ValueError), ["str"]),
    "None": (lambda: torch.tensor(None), (RuntimeError, TypeError), ["None"]),
    "object argument": (lambda: torch.add(ones(1), object()), TypeError, ["add"]),
    "keyword": (lambda: torch.exp(ones(1), nonsense=3), TypeError, ["nonsense|argument"]),
    "missing argument": (lambda: torch.add(ones(1)), TypeError, ["add"]),
    "dtype": (lambda: torch.ones(2, dtype="float32"), TypeError, ["dtype"]),
    "negative size": (lambda: ones(-1), RuntimeError, ["-1|negative"]),
    "arange step": (lambda: torch.arange(0, 5, 0), RuntimeError, ["step"]),
    "arange direction": (lambda: torch.arange(0, 5, -1), RuntimeError, ["step"]),
    "full without a value": (lambda: torch.full((2,)), TypeError, ["full"]),
    "linspace": (lambda: torch.linspace(0, 1, -2), RuntimeError, ["linspace|steps"]),
    "integer division": (lambda: torch.tensor([1]) // torch.tensor([0]), (RuntimeError, ZeroDivisionError), ["zero"]),
    "integer power": (lambda: torch.tensor([2]) ** -1, RuntimeError, ["neg"]),
    "mean of integers": (lambda: torch.arange(3).mean(), RuntimeError, ["mean", "dtype|float"]),
    "minus bool": (lambda: -torch.tensor([True]), RuntimeError, ["bool"]),
    "sub bool": (lambda: torch.tensor([True]) - torch.tensor([True]), RuntimeError, ["bool|sub"]),
    "bitwise float": (lambda: ones(1) & ones(1), (RuntimeError, TypeError), ["bitwise|and"]),
    "max of nothing": (lambda: torch.zeros(0).max(), (RuntimeError, IndexError), ["max"]),
    "where": (lambda: torch.where(ones(2) > 0, ones(3), ones(3)), RuntimeError, ["2", "3"]),
    "gather": (lambda: torch.gather(ones(2, 2), 0, torch.tensor([[5, 0]])), (RuntimeError, IndexError), ["5|index"]),
    "index_select": (lambda: ones(3).index_select(0, torch.tensor([3])), (RuntimeError, IndexError), ["index"]),
    "conv channels": (lambda: F.conv2d(ones(1, 3, 8, 8), ones(4, 2, 3, 3)), RuntimeError, ["3", "2"]),
    "conv kernel": (lambda: F.conv2d(ones(1, 1, 2, 2), ones(1, 1, 3, 3)), RuntimeError, ["kernel"]),
    "conv stride": (lambda: F.conv2d(ones(1, 1, 4, 4), ones(1, 1, 3, 3), stride=0), RuntimeError, ["stride"]),
    "pool kernel": (lambda: F.max_pool2d(ones(1, 1, 4, 4), 0), RuntimeError, ["kernel"]),
    "cross entropy class": (
        lambda: F.cross_entropy(ones(2, 3), torch.tensor([0, 3])),
        (RuntimeError, IndexError),
        ["3"],
    ),
    "cross entropy batch": (
        lambda: F.cross_entropy(ones(2, 3), torch.tensor([0])),
        (RuntimeError, ValueError),
        ["2", "1"],
    ),
    "dropout p": (lambda: F.dropout(ones(2), 1.5), ValueError, ["1.5|prob"]),
    "layer_norm": (lambda: F.layer_norm(ones(2, 3), (4,)), RuntimeError, ["4", "3"]),
    "batch_norm": (lambda: nn.BatchNorm2d(3)(ones(2, 3)), ValueError, ["4D|dim"]),
    "linear": (lambda: nn.Linear(4, 5)(ones(8, 3)), RuntimeError, ["4", "3"]),
    "state_dict": (lambda: nn.Linear(2, 2).load_state_dict({"weight": ones(3, 3)}), RuntimeError, ["weight", "bias"]),
    "learning rate": (lambda: optim.SGD([ones(1)], lr=-1), ValueError, ["lr|learning"]),
    "no parameters": (lambda: optim.SGD([], lr=1), ValueError, ["empty"]),
    "device": (lambda: ones(1, device="toaster"), RuntimeError, ["toaster|device"]),
    "numpy of a graph": (lambda: ones(1, requires_grad=True).numpy(), RuntimeError, ["detach"]),
    "set shape": (lambda: setattr(ones(1), "shape", (2,)), AttributeError, []),
    "normal std": (lambda: ones(2).normal_(0, -1), RuntimeError, ["std"]),
    "uniform bounds": (lambda: ones(2).uniform_(1, 0), RuntimeError, ["uniform_"]),
    "bernoulli": (lambda: ones(2).bernoulli_(2.0), (RuntimeError, ValueError), ["bernoulli"]),
    "randint": (lambda: torch.randint(5, 5, (2,)), (RuntimeError, ValueError), ["5"]),
    "manual_seed": (lambda: torch.manual_seed("x"), (TypeError, ValueError, RuntimeError), []),
}


@pytest.mark.parametrize("name", CASES)
def test_error(name):
    call, kind, words = CASES[name]
    with pytest.raises(kind, match=named(*words) if NAME == "pyrite" else None):
        call()


def test_the_library_still_works_after_an_error():
    x = ones(2, 2)
    for _ in range(50):
        with pytest.raises(RuntimeError):
            x.add_(ones(3))
    assert x.sum().item() == 4
    assert x._version == 0


def test_a_module_names_its_path():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 5)

        def forward(self, x):
            return self.fc(x)

    model = nn.Sequential(Block(), Block())
    with pytest.raises(RuntimeError) as caught:
        model(ones(8, 3))
    if NAME == "pyrite":
        # Beside the shapes: which layer of which module it was.
        text = str(caught.value) + " ".join(getattr(caught.value, "__notes__", []))
        assert "fc" in text and "Linear" in text


# --- fuzz -------------------------------------------------------------------------------------------------------------
EXPECTED = (
    RuntimeError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError, OverflowError, MemoryError,
    ZeroDivisionError, AssertionError, KeyError, BufferError, DeprecationWarning, UserWarning, ImportError,
)  # fmt: skip
# Not called: they change the process or wait for something, or are the interpreter's business.
LEFT_OUT = frozenset(
    [
        "set_num_threads",
        "set_default_dtype",
        "set_default_device",
        "set_printoptions",
        "set_grad_enabled",
        "manual_seed",
        "seed",
        "load",
        "save",
        "set_default_tensor_type",
        "set_num_interop_threads",
        "set_flush_denormal",
        "set_deterministic_debug_mode",
        "hub",
        "compile",
        "set_warn_always",
        "set_anomaly_enabled",
        "use_deterministic_algorithms",
        "set_float32_matmul_precision",
        "set_rng_state",
        "set_vital",
        "cudnn_grid_sampler",
        "set_autocast_enabled",
        "autocast_increment_nesting",
        "autocast_decrement_nesting",
        "set_autocast_cache_enabled",
        "clear_autocast_cache",
        "fork",
        "wait",
        "from_file",
        "resize_",
        "resize_as_",
        "set_",
        "share_memory_",
        "share_memory",
        "is_shared",
        "storage",
        "untyped_storage",
        "_typed_storage",
        "typed_storage",
        "from_blob",
        "map_",
        "map2_",
        "apply_",
        "register_hook",
        "register_post_accumulate_grad_hook",
        "module_load",
        "cuda",
        "empty_cache",
        "record_stream",
        "pin_memory",
        "__init__",
        "__del__",
        "__init_subclass__",
        "__class__",
        "__subclasshook__",
        "__new__",
        "__reduce__",
        "__reduce_ex__",
        "__setstate__",
        "__dict__",
        "__weakref__",
        "__torch_function__",
        "__torch_dispatch__",
        "__getattribute__",
        "__delattr__",
        "__setattr__",
        "__dir__",
        "backward",
        "requires_grad_",
        "xpu",
        "hpu",
        "ipu",
        "mtia",
        "to_mkldnn",
        "to_sparse",
    ]
)

STRANGE = [
    0, 1, -1, 2, 3, 7, -(2**31), 2**45, 2**62, -(2**63), 2**63 - 1, 2**64, 0.5, -1.5, 1e300, math.nan, math.inf,
    True, False, None, "", "mean", "floor", "mean_", (), [], (0,), (1, 2), (2, -1), (-1, -1), [0, 1], ((1, 1), (1, 1)),
    (2**40, 2**40), {}, slice(None), Ellipsis, b"x", 1 + 2j, object(),
]  # fmt: skip


def strange_tensors():
    yield torch.tensor(1.5)
    yield ones(3)
    yield ones(0)
    yield ones(2, 3)
    yield torch.arange(6).reshape(2, 3)
    yield torch.tensor([True, False, True])
    yield ones(2, 3, requires_grad=True)
    yield ones(1, 3).expand(2, 3)
    yield ones(3, 2).t()
    yield torch.zeros(2, 0, 3)
    yield torch.tensor([5, -7, 2**40])
    yield torch.full((2, 2, 5, 5), math.nan)
    yield ones(2, 2, dtype=torch.float16)
    yield torch.tensor([255, 0], dtype=torch.uint8)
    yield torch.arange(24.0, dtype=torch.float64).reshape(2, 3, 4)[:, 1:, ::2]


def functions():
    places = [("torch", torch), ("F", F), ("Tensor", torch.Tensor)]
    for place, owner in places:
        for name in sorted(dir(owner)):
            dunder = name.startswith("__") and name.endswith("__")
            if name in LEFT_OUT or (name.startswith("_") and not dunder) or (dunder and place != "Tensor"):
                continue
            f = getattr(owner, name, None)
            if callable(f) and not isinstance(f, type):
                yield f"{place}.{name}", f


@pytest.fixture
def little_memory():
    """At most 3 GiB more than now: a size that a function takes seriously must not fill the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as f:
        used = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.pyrite
@pytest.mark.usefixtures("little_memory")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, f", [pytest.param(n, f, id=n) for n, f in functions()] if NAME == "pyrite" else [])
def test_fuzz(request, name, f):
    """Any function, any arguments: a result or an exception of an expected type, never a crash."""
    rng = random.Random(name)
    # A call that holds the interpreter cannot be interrupted from Python: end the process, with the line.
    faulthandler.dump_traceback_later(100, exit=True)
    request.addfinalizer(faulthandler.cancel_dump_traceback_later)
    for round_ in range(60):
        pool = [*STRANGE, *strange_tensors()]
        arguments = [rng.choice(pool) for _ in range(rng.randint(0, 4))]
        if rng.random() < 0.8:
            arguments = [rng.choice(list(strange_tensors())), *arguments[:3]]
        if round_ % 5 == 4:
            keyword = rng.choice(
                ["dim", "keepdim", "out", "dtype", "alpha", "input", "other", "size", "value", "device"]
            )
            keywords = {keyword: rng.choice(pool)}
        else:
            keywords = {}
        try:
            f(*arguments, **keywords)
        except EXPECTED as e:
            text = str(e).lower()
            assert "panick" not in text and "rust" not in text, text
        except StopIteration:
            pass


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4))
def test_fuzz_as_strided(size, stride):
    """The one function that takes raw strides: whatever they are, it stays within the storage or refuses."""
    x = torch.arange(6.0)
    try:
        y = torch.as_strided(x, size, stride)
    except (RuntimeError, ValueError, OverflowError, TypeError):
        return
    if y.numel() < 10_000:
        assert all(0 <= v < 6 for v in y.flatten().tolist())


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-20, 20))
def test_fuzz_narrow_and_unfold(dim, start, length):
    x = torch.arange(24.0).reshape(2, 3, 4)
    for f in (lambda: x.narrow(dim, start, length), lambda: x.select(dim, start), lambda: x.unfold(dim, start, length)):
        try:
            y = f()
        except (RuntimeError, IndexError, ValueError):
            continue
        assert all(0 <= v < 24 for v in y.flatten().tolist())
