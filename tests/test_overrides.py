"""`__torch_function__`: subclasses and other classes that answer for functions, and modes."""

import pytest
from subject import IS_PYRITE, torch

overrides = torch.overrides


class Plain(torch.Tensor):
    pass


class Logged(torch.Tensor):
    log = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.log.append(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


class Closed(torch.Tensor):
    __torch_function__ = torch._C._disabled_torch_function_impl


def of(cls, *values):
    return torch.tensor(values).as_subclass(cls)


def test_results_are_of_the_subclass():
    x = of(Plain, 1.0, 2.0)
    for y in (
        x + 1,
        1 - x,
        x * x,
        x.sin(),
        torch.exp(x),
        x[0],
        -x,
        x @ x,
        torch.cat([x, x]),
        x.sum(),
        x > 0,
        x.view(2, 1),
    ):
        assert type(y) is Plain
    a, _b = x.split(1)
    assert type(a) is Plain and type(x.max(0).values) is Plain
    y = torch.ones(2)
    assert type(y + x) is Plain
    y += x
    assert type(x.add_(1)) is Plain and x.tolist() == [2, 3]
    assert type(of(Closed, 1.0) + 1) is torch.Tensor
    assert type(torch.nn.Parameter(torch.ones(2)) * 2) is torch.Tensor


def test_own_answers():
    x = of(Logged, 1.0, 2.0)
    Logged.log.clear()
    y = torch.add(x, 1).mul(2)
    assert Logged.log == ["add", "mul"] and type(y) is Logged and y.tolist() == [4, 6]
    Logged.log.clear()
    _ = x + 1
    assert len(Logged.log) == 1 and "add" in Logged.log[0]
    assert type(torch.stack([torch.ones(2), x])) is Logged


def test_gradients_pass():
    w = torch.ones(2, requires_grad=True)
    (w.as_subclass(Plain) * 3).sum().backward()
    assert w.grad.tolist() == [3, 3]


def test_other_classes():
    class Wrapped:
        def __init__(self, value):
            self.value = value

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            args = [a.value if isinstance(a, Wrapped) else a for a in args]
            return Wrapped(func(*args, **(kwargs or {})))

    of(Plain, 1.0)  # any subclass makes calls be looked at
    out = torch.add(torch.ones(2), Wrapped(torch.full((2,), 2.0)))
    assert isinstance(out, Wrapped) and out.value.tolist() == [3, 3]
    assert overrides.has_torch_function((1, out)) and not overrides.has_torch_function((torch.ones(1),))
    assert overrides.is_tensor_like(out) and not overrides.is_tensor_like(3)


def test_nobody_answers():
    class Never(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return NotImplemented

    with pytest.raises(TypeError, match=r"no implementation found|implement __torch_function__"):
        torch.sin(of(Never, 1.0))


def test_modes():
    seen = []

    class Mode(overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Mode():
        torch.zeros(2).sin()
    assert "zeros" in seen and "sin" in seen
    seen.clear()
    torch.ones(2)
    assert not seen


@pytest.mark.skipif(not IS_PYRITE, reason="another place")
def test_disable():
    with overrides.DisableTorchFunctionSubclass():
        assert type(of(Plain, 1.0) + 1) is torch.Tensor
