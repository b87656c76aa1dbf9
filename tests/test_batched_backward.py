"""A backward of many gradients at once (`is_grads_batched`, `jacrev`, `jacobian(vectorize=True)`): the answers of as many
backward passes, for every differentiable operator, with hooks, custom functions and second derivatives."""

import itertools

import pytest
from subject import torch
from test_gradgrad_sweep import ENTRIES

func = torch.func
sweep = pytest.mark.pyrite  # the table has operators that PyTorch lacks, or batches differently


def outputs_of(value):
    if isinstance(value, torch.Tensor):
        value = (value,)
    return [t for t in value if isinstance(t, torch.Tensor) and t.requires_grad]


def seeds(t, n):
    return torch.stack([torch.randn(t.shape, dtype=t.dtype) for _ in range(n)]) if n else t.new_zeros((0, *t.shape))


def close(a, b):
    if a is None or b is None:
        return a is None and b is None
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-10, equal_nan=True)


@sweep
@pytest.mark.parametrize("call, make, expanded", ENTRIES)
def test_rows_are_passes(call, make, expanded):
    torch.manual_seed(0)
    xs = [x.detach().clone().requires_grad_() if x.is_floating_point() or x.is_complex() else x for x in make()]
    leaves = [x for x in xs if x.requires_grad]
    outs = outputs_of(call(*xs))
    if not outs:
        pytest.skip("no gradient flows")
    vs = [seeds(o, 3) for o in outs]
    rows = [
        torch.autograd.grad(outs, leaves, [v[i] for v in vs], retain_graph=True, allow_unused=True) for i in range(3)
    ]
    got = torch.autograd.grad(outs, leaves, vs, retain_graph=True, allow_unused=True, is_grads_batched=True)
    for x, g, column in zip(leaves, got, zip(*rows)):
        want = None if column[0] is None else torch.stack(column)
        assert close(g, want), (x.shape, g, want)
        assert g is None or g.dtype == x.dtype
    # Recorded, the pass has the same values, and its own derivative is that of the rows.
    try:
        again = torch.autograd.grad(outs, leaves, vs, create_graph=True, allow_unused=True, is_grads_batched=True)
    except NotImplementedError:
        return
    assert all(close(a, b) for a, b in zip(again, got))
    alive = [a for a in again if a is not None and a.requires_grad]
    if alive:
        loss = sum((a * a.detach().conj()).sum().real for a in alive)
        second = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        one = [
            torch.autograd.grad(outs, leaves, [v[i] for v in vs], create_graph=True, allow_unused=True)
            for i in range(3)
        ]
        loss = sum((a * a.detach().conj()).sum().real for row in one for a in row if a is not None and a.requires_grad)
        want = torch.autograd.grad(loss, leaves, allow_unused=True)
        for a, b in zip(second, want):
            assert a is None or b is None or torch.allclose(a, b, rtol=1e-7, atol=1e-8, equal_nan=True)


@sweep
def test_no_rows():
    x = torch.randn(3, 4, requires_grad=True)
    for f in (torch.sin, lambda t: t.cumprod(1), lambda t: t @ t.T, lambda t: t.unfold(1, 2, 1)):
        y = f(x)
        (g,) = torch.autograd.grad(y, x, y.new_zeros((0, *y.shape)), is_grads_batched=True)
        assert g.shape == (0, 3, 4)


def test_hooks_see_rows():
    if torch.__name__ == "torch":
        pytest.skip("PyTorch's hooks get a batched tensor")
    seen = []
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda g: seen.append(tuple(g.shape)) or g * 10)
    x.register_hook(lambda g: seen.append("leaf"))
    z = y.sin()
    z.grad_fn.register_hook(lambda gi, go: seen.append("node"))
    (g,) = torch.autograd.grad(z, x, torch.eye(2), is_grads_batched=True)
    assert torch.allclose(g, torch.eye(2) * 20 * torch.cos(torch.tensor(2.0)))
    assert seen == ["node", "node", (2,), (2,), "leaf", "leaf"]


@sweep
def test_custom_functions():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            assert g.shape == (3,)
            return 3 * ctx.saved_tensors[0] ** 2 * g

    x = torch.tensor([1.0, 2.0, 3.0])
    j = func.jacrev(Cube.apply)(x)
    assert torch.allclose(j, torch.diag(3 * x**2))


def mlp(sizes, dtype=torch.float64):
    torch.manual_seed(1)
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(a, b, dtype=dtype), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
def test_jacrev_is_jacfwd(chunk):
    net = mlp([4, 8, 5])
    x = torch.randn(4, dtype=torch.float64)
    want = func.jacfwd(net)(x)
    assert torch.allclose(func.jacrev(net, chunk_size=chunk)(x), want)
    assert torch.allclose(torch.autograd.functional.jacobian(net, x, vectorize=True), want)
    assert torch.allclose(torch.autograd.functional.jacobian(net, x), want)


def test_second_derivatives():
    net = mlp([3, 6, 1])
    f = lambda x: net(x).sum()
    x = torch.randn(3, dtype=torch.float64)
    want = torch.autograd.functional.hessian(f, x)
    for h in (
        func.hessian(f),
        func.jacfwd(func.jacrev(f)),
        func.jacrev(func.jacrev(f)),
        func.jacrev(func.jacfwd(f)),
        lambda x: torch.autograd.functional.hessian(f, x, vectorize=True),
        lambda x: torch.autograd.functional.hessian(f, x, vectorize=True, outer_jacobian_strategy="forward-mode"),
    ):
        assert torch.allclose(h(x), want)
    batch = torch.randn(4, 3, dtype=torch.float64)
    each = torch.stack([torch.autograd.functional.hessian(f, b) for b in batch])
    assert torch.allclose(func.vmap(func.hessian(f))(batch), each)


def test_inside_vmap():
    net = mlp([3, 5, 2])
    batch = torch.randn(4, 3, dtype=torch.float64)
    each = torch.stack([func.jacrev(net)(b) for b in batch])
    assert torch.allclose(func.vmap(func.jacrev(net))(batch), each)
    assert torch.allclose(func.vmap(func.jacrev(net, chunk_size=1))(batch), each)
    parameters = dict(net.named_parameters())

    def of(p, x):
        return func.functional_call(net, p, (x,))

    got = func.vmap(func.jacrev(of), in_dims=(None, 0))(parameters, batch)
    for name in parameters:
        want = torch.stack([func.jacrev(of)(parameters, b)[name] for b in batch])
        assert torch.allclose(got[name], want)


def test_convolutions():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3, padding=1, dtype=torch.float64),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(12, 3, dtype=torch.float64),
    )
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    parameters = dict(net.named_parameters())
    f = lambda p, x: func.functional_call(net, p, (x,))
    got, want = func.jacrev(f, argnums=(0, 1))(parameters, x), func.jacfwd(f, argnums=(0, 1))(parameters, x)
    assert torch.allclose(got[1], want[1])
    assert all(torch.allclose(got[0][k], want[0][k]) for k in parameters)


def test_bad_batches():
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    with pytest.raises(RuntimeError, match="is_grads_batched=True"):
        torch.autograd.grad(y, x, torch.ones(2, 4), is_grads_batched=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(y, x, torch.tensor(1.0), is_grads_batched=True)
