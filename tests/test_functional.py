"""`autograd.functional` by both strategies, and the options of gradcheck."""

import pytest
from subject import IS_PYRITE, torch

A = torch.autograd.functional
F64 = torch.float64


def rand(*shape):
    return torch.randn(shape, dtype=F64)


def pair(x, y):
    return x.sin() * y.sum(), (x * x).sum() * y


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_jacobian(strategy, create_graph):
    if strategy == "forward-mode" and create_graph and not IS_PYRITE:
        pytest.skip("not there in PyTorch")
    x, y = rand(3).requires_grad_(), rand(2)
    (a, b), (c, d) = A.jacobian(pair, (x, y), create_graph=create_graph, vectorize=True, strategy=strategy)
    assert torch.allclose(a, torch.diag(x.cos()) * y.sum())
    assert torch.allclose(b, x.sin()[:, None].expand(3, 2))
    assert torch.allclose(c, 2 * x * y[:, None])
    assert torch.allclose(d, (x * x).sum() * torch.eye(2, dtype=F64))
    assert a.requires_grad == create_graph
    if create_graph:
        (g,) = torch.autograd.grad(a.sum(), x)
        assert torch.allclose(g, -(x.sin() * y.sum()).detach())


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_hessian(strategy):
    x = rand(3)
    f = lambda a: (a.exp() * a.roll(1)).sum()
    h = A.hessian(f, x, vectorize=True, outer_jacobian_strategy=strategy)
    e = x.exp()
    expected = torch.diag(e * x.roll(1))
    for i in range(3):
        expected[i, i - 1] += e[i]
        expected[i - 1, i] += e[i]
    assert torch.allclose(h, expected)
    rows = A.hessian(lambda a, b: (a**2 * b).sum(), (x, x + 1), vectorize=True, outer_jacobian_strategy=strategy)
    assert torch.allclose(rows[0][1], torch.diag(2 * x)) and torch.allclose(rows[1][1], torch.zeros(3, 3, dtype=F64))


def test_products():
    x, v = rand(3), rand(3)
    f = lambda a: (a**3).sum()
    assert torch.allclose(A.vjp(torch.sin, x, v)[1], v * x.cos())
    assert torch.allclose(A.jvp(torch.sin, x, v)[1], v * x.cos())
    assert torch.allclose(A.hvp(f, x, v)[1], 6 * x * v)
    assert torch.allclose(A.vhp(f, x, v)[1], 6 * x * v)


def test_refusals():
    x = rand(2)
    with pytest.raises(ValueError, match="strategy"):
        A.jacobian(torch.sin, x, strategy="sideways")
    with pytest.raises(RuntimeError, match="not supported together"):
        A.jacobian(torch.sin, x, strict=True, vectorize=True)
    with pytest.raises(RuntimeError, match="independent"):
        A.jacobian(lambda a: torch.ones(2, dtype=F64), x, strict=True)


class WrongTangent(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()

    @staticmethod
    def jvp(ctx, t):
        return t * ctx.saved_tensors[0].sin()


def test_gradcheck_options():
    check = torch.autograd.gradcheck
    x = rand(3).requires_grad_()
    assert check(torch.sin, (x,), check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert check(torch.sin, (x,), check_forward_ad=True, check_backward_ad=False)
    assert torch.autograd.gradgradcheck(torch.sin, (x,), check_fwd_over_rev=True, check_batched_grad=True)
    assert check(WrongTangent.apply, (x,))
    with pytest.raises(RuntimeError, match="forward mode"):
        check(WrongTangent.apply, (x,), check_forward_ad=True)
    assert not check(WrongTangent.apply, (x,), check_forward_ad=True, raise_exception=False)
    with pytest.raises(AssertionError):
        check(torch.sin, (x,), check_backward_ad=False)
