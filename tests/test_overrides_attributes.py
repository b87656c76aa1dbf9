"""`__torch_function__` of what is not an operator: attributes, methods such as `size` and `item`, functions of Python; for
subclasses, and for modes on plain tensors."""

import copy
import pickle

import pytest
from subject import F, torch

Tensor = torch.Tensor


def name_of(func):
    if func.__name__ in ("__get__", "__set__", "__delete__"):
        of = func.__self__
        name = getattr(of, "__name__", None)
        if name is None:  # a property
            name = next(n for n in dir(Tensor) if Tensor.__dict__.get(n) is of)
        return f"{name}.{func.__name__}"
    return func.__name__


class Logged(Tensor):
    log = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.log.append(name_of(func))
        return super().__torch_function__(func, types, args, kwargs or {})


def logged(values=((1.0, 2.0), (3.0, 4.0))):
    return torch.tensor(values).as_subclass(Logged)


def seen(run, x=None):
    x = logged() if x is None else x
    Logged.log.clear()
    result = run(x)
    return list(Logged.log), result


ATTRIBUTES = (
    "T H mT mH grad grad_fn _version data device dtype is_cuda is_cpu is_leaf retains_grad is_meta is_quantized is_sparse "
    "itemsize layout nbytes ndim output_nr requires_grad shape real _base"
).split()


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes(name):
    calls, value = seen(lambda x: getattr(x, name))
    assert calls == [f"{name}.__get__"]
    if name in ("T", "mT", "data", "real"):
        assert type(value) is Logged


def test_setters():
    assert seen(lambda x: setattr(x, "requires_grad", True))[0] == ["requires_grad.__set__"]
    assert seen(lambda x: setattr(x, "data", torch.zeros(2, 2)))[0] == ["data.__set__"]
    assert seen(lambda x: setattr(x, "grad", None))[0] == ["grad.__set__"]
    x = logged()
    x.grad = torch.ones(2, 2)
    assert seen(lambda x: delattr(x, "grad"), x)[0] == ["grad.__delete__"] and x.grad is None


METHODS = (
    "dim numel element_size get_device is_floating_point is_complex is_signed size stride storage_offset data_ptr "
    "is_contiguous detach requires_grad_ tolist cpu float double half long int short char byte bool bfloat16 clone "
    "is_inference untyped_storage dim_order nonzero sum"
).split()


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    assert seen(lambda x: getattr(x, name)())[0] == [name]


def test_special_methods():
    one = logged(3.0)
    for run, name in {
        len: "__len__",
        repr: "__repr__",
        str: "__repr__",
        copy.deepcopy: "__deepcopy__",
        lambda x: x.__reduce_ex__(2): "__reduce_ex__",
        lambda x: 3.0 in x: "__contains__",
    }.items():
        try:
            calls, _ = seen(run)
        except RuntimeError:  # PyTorch has no deepcopy for these
            calls = Logged.log
        assert calls[0] == name
    for run, name in {bool: "__bool__", float: "__float__", int: "__int__", complex: "__complex__"}.items():
        assert seen(run, one) == ([name], run(3.0))
    assert seen(lambda x: x.item(), one) == (["item"], 3.0)


def test_backward():
    x = logged().requires_grad_()
    y = (x * 2).sum()
    assert seen(lambda y: y.backward(), y)[0] == ["backward"]
    assert x.grad.tolist() == [[2, 2], [2, 2]] and type(x.grad) is not Logged
    y = (x * 2).sum()
    assert seen(lambda y: torch.autograd.grad(y, x), y)[0] == ["grad"]


@pytest.mark.parametrize(
    "run, name",
    [
        (lambda x: F.softmax(x, dim=0), "softmax"),
        (lambda x: F.normalize(x), "normalize"),
        (lambda x: F.cosine_similarity(x, x), "cosine_similarity"),
        (lambda x: F.mse_loss(x, x), "mse_loss"),
        (lambda x: F.layer_norm(x, (2,)), "layer_norm"),
        (lambda x: F.interpolate(x.unsqueeze(0), 4), "interpolate"),
        (lambda x: torch.einsum("ij,jk", x, x), "einsum"),
        (lambda x: torch.tensordot(x, x), "tensordot"),
        (lambda x: torch.allclose(x, x), "allclose"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: torch.nn.init.kaiming_uniform_(x), "kaiming_uniform_"),
    ],
)
def test_functions_are_asked_once(run, name):
    assert seen(run)[0][-1] == name and len(Logged.log) <= 2


def test_handlers_by_function():
    """The table of PyTorch's documentation: functions as keys, before and after the class exists."""
    handled = {}

    def implements(func):
        return lambda f: handled.setdefault(func, f)

    implements(F.normalize)(lambda x: "normalized")
    implements(Tensor.shape.__get__)(lambda x: "shape")

    class Mine(Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func in handled:
                return handled[func](*args, **(kwargs or {}))
            return super().__torch_function__(func, types, args, kwargs or {})

    implements(F.cosine_similarity)(lambda x, y: "cosine")
    implements(Tensor.numel)(lambda x: "numel")
    implements(Tensor.ndim.__get__)(lambda x: "ndim")
    x = torch.ones(2).as_subclass(Mine)
    assert [F.normalize(x), x.shape, F.cosine_similarity(x, x), x.numel(), x.ndim] == [
        "normalized", "shape", "cosine", "numel", "ndim",
    ]  # fmt: skip
    plain = torch.ones(3, 4)
    assert (plain.shape, plain.numel(), plain.ndim) == ((3, 4), 12, 2)
    assert F.normalize(plain, dim=0)[0, 0].item() == pytest.approx(3**-0.5)
    assert pickle.loads(pickle.dumps(F.normalize)) == F.normalize


def test_own_attributes_come_first():
    class Own(Tensor):
        shape = "mine"

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return super().__torch_function__(func, types, args, kwargs or {})

        def numel(self):
            return -1

    x = torch.ones(2).as_subclass(Own)
    assert x.shape == "mine" and x.numel() == -1 and x.dim() == 1


def test_modes_see_attributes_of_plain_tensors():
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(name_of(func))
            return func(*args, **(kwargs or {}))

    x = torch.ones(2, 3)
    with Mode():
        assert x.shape == (2, 3) and x.numel() == 6 and len(x) == 2
        x.requires_grad = True
        with Mode():
            assert x.ndim == 2
    assert seen == ["shape.__get__", "numel", "__len__", "requires_grad.__set__", "ndim.__get__", "ndim.__get__"]
    assert x.shape == (2, 3) and len(seen) == 6 and type(Tensor.shape).__name__ == "getset_descriptor"


def test_disabled():
    x = logged()
    Logged.log.clear()
    with (
        torch._C.DisableTorchFunctionSubclass()
        if torch.__name__ == "torch"
        else (torch.overrides.DisableTorchFunctionSubclass())
    ):
        assert x.shape == (2, 2) and x.numel() == 4
    assert not Logged.log
