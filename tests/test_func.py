"""`func`: transforms of functions against closed forms and finite differences, composed, nested, with auxiliary outputs,
with trees of arguments; modules as functions."""

from collections import namedtuple

import pytest
from numeric import directional
from subject import IS_PYRITE, F, torch

func = torch.func
F64 = torch.float64


def rand(*shape):
    return torch.randn(shape, dtype=F64)


def same(got, expected, tol=1e-9):
    assert got.shape == expected.shape
    assert torch.allclose(got, expected, rtol=tol, atol=tol)


def energy(x):
    return (x.sin() * x.roll(1)).sum() + x.prod()


def vector(x):
    return torch.stack([x.sin().sum(), (x**2).prod(), x[0] * x[-1]])


def jacobian_by_differences(f, x, h=1e-6):
    columns = []
    for k in range(x.numel()):
        e = torch.zeros(x.numel(), dtype=F64)
        e[k] = h
        e = e.reshape(x.shape)
        columns.append((f(x + e) - f(x - e)) / (2 * h))
    out = f(x)
    return torch.stack(columns, -1).reshape((*out.shape, *x.shape))


def test_grad():
    x = rand(4)
    v = rand(4)
    g = func.grad(energy)(x)
    assert (g * v).sum().item() == pytest.approx(directional(energy, [x], [v], 1e-6), rel=1e-6)
    assert not g.requires_grad and not x.requires_grad and x.grad is None


def test_grad_of_several_arguments_and_aux():
    x, y = rand(3), rand(3)

    def f(a, b, c=2.0):
        return (a * b * c).sum(), {"a": a * 2, "n": 3}

    (ga, gb), aux = func.grad(f, argnums=(0, 1), has_aux=True)(x, y, c=3.0)
    same(ga, 3 * y)
    same(gb, 3 * x)
    same(aux["a"], 2 * x)
    assert aux["n"] == 3 and not aux["a"].requires_grad
    g, (value, aux) = func.grad_and_value(f, argnums=-1, has_aux=True)(x, y)
    same(g, 2 * x)
    same(value, (2 * x * y).sum())
    assert not value.requires_grad


def test_trees():
    Point = namedtuple("Point", "x y")
    p = {"a": [rand(2), rand(3)], "b": Point(rand(2), (rand(1),))}
    g = func.grad(lambda t: (t["a"][0] * t["b"].x).sum() + t["a"][1].sum() + t["b"].y[0].sum() ** 2)(p)
    same(g["a"][0], p["b"].x)
    same(g["b"].x, p["a"][0])
    same(g["b"].y[0], 2 * p["b"].y[0])
    assert isinstance(g["b"], Point) and isinstance(g["a"], list)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_higher_grad(order):
    f = torch.sin
    for _ in range(order):
        f = func.grad(f)
    x = torch.tensor(0.7, dtype=F64)
    same(f(x), [-x.sin(), -x.cos(), x.sin()][order - 2])


def test_no_confusion_of_levels():
    one = torch.tensor(1.0, dtype=F64)
    same(func.grad(lambda x: x * func.grad(lambda y: x + y)(one))(one), one)
    same(func.grad(lambda x: x * func.jvp(lambda y: x * y, (one,), (one,))[1])(one), 2 * one)
    same(func.jvp(lambda x: x * func.grad(lambda y: x * y)(one), (one,), (one,))[1], 2 * one)


def test_results_in_the_callers_graph():
    x, w = rand(3).requires_grad_(), rand(3).requires_grad_()
    g = func.grad(lambda a: (a**3 * w).sum())(x)
    assert g.requires_grad
    gx, gw = torch.autograd.grad(g.sum(), (x, w))
    same(gx, (6 * x * w).detach())
    same(gw, (3 * x**2).detach())
    with torch.no_grad():
        g = func.grad(lambda a: (a**3 * w).sum())(x)
    assert not g.requires_grad
    same(g, (3 * x**2 * w).detach())
    # Only what is captured requires grad.
    g = func.grad(lambda a: (a**2 * w).sum())(x.detach())
    same(torch.autograd.grad(g.sum(), w)[0], (2 * x).detach())


def test_no_grad_inside_counts():
    def f(x):
        with torch.no_grad():
            c = x**2
        return x - c

    same(func.grad(f)(torch.tensor(2.0, dtype=F64)), torch.tensor(1.0, dtype=F64))


def test_vjp():
    x, y = rand(3), rand(2)
    out, pull = func.vjp(lambda a, b: (a.sin() * b[0], {"s": b.sum() * a[0]}), x, y)
    u, s = rand(3), rand()
    ga, gb = pull((u, {"s": s}))
    e0 = torch.tensor([1.0, 0, 0], dtype=F64)
    same(ga, u * x.cos() * y[0] + s * y.sum() * e0)
    same(gb, torch.stack([(u * x.sin()).sum(), 0 * s]) + s * x[0])
    same(pull((u, {"s": s}))[0], ga)
    assert not out[0].requires_grad and not ga.requires_grad
    _value, pull, aux = func.vjp(lambda a: (a * 2, a * 3), x, has_aux=True)
    same(pull(torch.ones(3, dtype=F64))[0], torch.full((3,), 2.0, dtype=F64))
    same(aux, x * 3)


def test_jvp():
    x, y, t, u = rand(3), rand(3), rand(3), rand(3)
    out, slope = func.jvp(lambda a, b: {"p": a * b, "q": (a.sum(),)}, (x, y), (t, u))
    same(out["p"], x * y)
    same(slope["p"], t * y + x * u)
    same(slope["q"][0], t.sum())
    out, slope, aux = func.jvp(lambda a: (a * 2, a * 3), (x,), (t,), has_aux=True)
    same(slope, 2 * t)
    same(aux, 3 * x)
    same(func.jvp(lambda a: torch.ones(2, dtype=F64), (x,), (t,))[1], torch.zeros(2, dtype=F64))


def test_linearize():
    x, t = rand(3), rand(3)
    out, push = func.linearize(vector, x)
    same(out, vector(x))
    same(push(t), func.jvp(vector, (x,), (t,))[1])
    same(push(2 * t), 2 * push(t))


@pytest.mark.parametrize("jac", [func.jacrev, func.jacfwd], ids=["jacrev", "jacfwd"])
def test_jacobians(jac):
    x = rand(3)
    same(jac(vector)(x), jacobian_by_differences(vector, x), 1e-6)
    m = rand(2, 2)
    same(jac(lambda a: a @ a)(m), jacobian_by_differences(lambda a: a @ a, m), 1e-6)
    a, b = jac(lambda p, q: p.sum() * q, argnums=(0, 1))(x, m)
    same(a, m[..., None].expand(2, 2, 3))
    same(b, x.sum() * torch.eye(4, dtype=F64).reshape(2, 2, 2, 2))
    out = jac(lambda d: {"y": d["u"] * 2, "z": d["v"].sum()})({"u": x, "v": m})
    same(out["y"]["u"], 2 * torch.eye(3, dtype=F64))
    same(out["z"]["v"], torch.ones(2, 2, dtype=F64))
    same(out["y"]["v"], torch.zeros(3, 2, 2, dtype=F64))
    j, aux = jac(lambda p: (p * 2, p.sum()), has_aux=True)(x)
    same(j, 2 * torch.eye(3, dtype=F64))
    same(aux, x.sum())
    same(jac(torch.sin)(x[0]), x[0].cos())


def test_jacrev_chunks():
    x = rand(5)
    same(func.jacrev(torch.sin, chunk_size=2)(x), torch.diag(x.cos()))


COMPOSED = {
    "fwd-rev": lambda f: func.jacfwd(func.jacrev(f)),
    "rev-fwd": lambda f: func.jacrev(func.jacfwd(f)),
    "fwd-fwd": lambda f: func.jacfwd(func.jacfwd(f)),
    "rev-rev": lambda f: func.jacrev(func.jacrev(f)),
    "hessian": func.hessian,
    "fwd-grad": lambda f: func.jacfwd(func.grad(f)),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_hessians(name):
    x = rand(3)
    h = COMPOSED[name](energy)(x)
    same(h, jacobian_by_differences(func.grad(energy), x), 1e-6)
    assert not h.requires_grad


def test_hessian_vector_products():
    x, v = rand(4), rand(4)
    h = func.hessian(energy)(x)
    same(func.jvp(func.grad(energy), (x,), (v,))[1], h @ v)
    same(func.grad(lambda a: (func.grad(energy)(a) * v).sum())(x), h @ v)
    same(func.vjp(func.grad(energy), x)[1](v)[0], h @ v)
    same(func.grad(lambda a: func.jvp(energy, (a,), (v,))[1])(x), h @ v)


def test_third_derivatives():
    x = rand(2)
    f = lambda a: (a**4).sum() + a.prod() ** 2
    expected = jacobian_by_differences(func.hessian(f), x, 1e-5)
    for third in (func.jacfwd(func.hessian(f)), func.jacrev(func.jacfwd(func.jacrev(f)))):
        same(third(x), expected, 1e-5)


def test_with_vmap():
    x, v = rand(5, 3), rand(5, 3)
    rows = lambda f, *xs: torch.stack([f(*r) for r in zip(*xs, strict=True)])
    same(func.vmap(func.grad(energy))(x), rows(func.grad(energy), x))
    same(func.vmap(func.hessian(energy))(x), rows(func.hessian(energy), x))
    same(func.vmap(func.jacrev(vector))(x), rows(func.jacrev(vector), x))
    same(func.vmap(func.jacfwd(vector))(x), rows(func.jacfwd(vector), x))
    push = lambda a, t: func.jvp(vector, (a,), (t,))[1]
    same(func.vmap(push)(x, v), rows(push, x, v))
    same(func.vmap(push, (None, 0))(x[0], v), rows(lambda t: push(x[0], t), v))
    same(func.vmap(push, (0, None))(x, v[0]), rows(lambda a: push(a, v[0]), x))
    same(func.grad(lambda a: func.vmap(energy)(a).sum())(x), rows(func.grad(energy), x))
    same(func.jvp(func.vmap(vector), (x,), (v,))[1], rows(push, x, v))
    _out, pull = func.vjp(vector, x[0])
    eye = torch.eye(3, dtype=F64)
    same(func.vmap(pull)(eye)[0], func.jacrev(vector)(x[0]))
    nested = func.vmap(func.vmap(func.grad(lambda a, b: (a * b).sin().sum()), (None, 0)), (0, None))(x, v)
    same(nested, rows(lambda a: rows(lambda b: b * (a * b).cos(), v), x))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 3, 3)
        self.norm = torch.nn.GroupNorm(1, 3)
        self.fc = torch.nn.Linear(12, 4)

    def forward(self, x, scale=1.0):
        x = F.max_pool2d(self.norm(self.conv(x)).relu(), 2)
        return self.fc(x.flatten(1)) * scale


def test_per_sample_gradients():
    torch.manual_seed(0)
    net = Net().double()
    params = {k: p.detach() for k, p in net.named_parameters()}
    x, y = rand(5, 1, 6, 6), torch.randint(0, 4, (5,))

    def loss(p, a, b):
        return F.cross_entropy(func.functional_call(net, p, (a.unsqueeze(0),)), b.unsqueeze(0))

    got = func.vmap(func.grad(loss), in_dims=(None, 0, 0))(params, x, y)
    for i in range(5):
        net.zero_grad()
        F.cross_entropy(net(x[i : i + 1]), y[i : i + 1]).backward()
        for k, p in net.named_parameters():
            same(got[k][i], p.grad)


def test_ensembles():
    torch.manual_seed(0)
    nets = [Net().double() for _ in range(3)]
    params, buffers = func.stack_module_state(nets)
    assert params["fc.weight"].shape == (3, 4, 12) and params["fc.weight"].is_leaf and params["fc.weight"].requires_grad
    x, many = rand(2, 1, 6, 6), rand(3, 2, 1, 6, 6)
    call = lambda p, b, a: func.functional_call(nets[0], (p, b), (a,))
    out = func.vmap(call, in_dims=(0, 0, None))(params, buffers, x)
    same(out, torch.stack([n(x) for n in nets]).detach())
    out = func.vmap(call)(params, buffers, many)
    same(out, torch.stack([n(a) for n, a in zip(nets, many, strict=True)]).detach())
    out.sum().backward()
    nets[1](many[1]).sum().backward()
    same(params["conv.weight"].grad[1], nets[1].conv.weight.grad)


def test_functional_call():
    net = torch.nn.BatchNorm1d(2)
    x = torch.randn(4, 2)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    mine = {k: v.clone() for k, v in before.items()}
    out = func.functional_call(net, {**mine, "weight": torch.full((2,), 3.0)}, x)
    assert torch.allclose(out, 3 * F.batch_norm(x, None, None, training=True), atol=1e-5)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not torch.equal(mine["running_mean"], before["running_mean"])
    with pytest.raises(RuntimeError, match="Missing key"):
        func.functional_call(net, {"weight": torch.ones(2)}, x, strict=True)
    with pytest.raises(ValueError, match="multiple dictionaries"):
        func.functional_call(net, ({"weight": torch.ones(2)}, {"weight": torch.ones(2)}), x)
    same(func.functional_call(Net(), {}, torch.zeros(1, 1, 6, 6), {"scale": 0.0}), torch.zeros(1, 4))


def test_functional_call_of_tied_weights():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(2, 2, bias=False)
            self.b = torch.nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    net, x, w = Tied().double(), rand(3, 2), rand(2, 2)
    same(func.functional_call(net, {"a.weight": w}, x), x @ w.t() @ w.t())
    untied = func.functional_call(net, {"a.weight": w}, x, tie_weights=False)
    same(untied.detach(), (x @ w.t() @ net.b.weight.t()).detach())


def test_refusals():
    x = torch.ones(3)
    models = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).eval()]
    for call, error, words in [
        (lambda: func.grad(torch.sin)(x), RuntimeError, "scalar tensor"),
        (lambda: func.grad(lambda a: 3)(x), RuntimeError, "scalar tensor"),
        (lambda: func.grad(torch.sum, argnums=2)(x), RuntimeError, "argnum"),
        (lambda: func.grad(torch.sum)(torch.ones(3, dtype=torch.int64)), RuntimeError, "floating point"),
        (lambda: func.grad(torch.sum, has_aux=True)(x), RuntimeError, "aux"),
        (lambda: func.jvp(torch.sin, x, (x,)), RuntimeError, "primals to be a tuple"),
        (lambda: func.jvp(torch.sin, (x,), (x, x)), RuntimeError, "structure"),
        (lambda: func.jvp(lambda a: torch.ones(2), (x,), (x,), strict=True), RuntimeError, "independent"),
        (lambda: func.vjp(torch.sin, x)[1](3.0), (RuntimeError, TypeError, AttributeError), ""),
        (lambda: func.jacrev(torch.sin, chunk_size=0)(x), ValueError, "chunk_size"),
        (lambda: func.stack_module_state([]), RuntimeError, "at least one model"),
        (lambda: func.stack_module_state(models), RuntimeError, "same training/eval mode"),
    ]:
        with pytest.raises(error) as caught:
            call()
        assert words in str(caught.value)


@pytest.mark.skipif(not IS_PYRITE, reason="PyTorch's vmap stops here")
def test_jacfwd_of_what_vmap_cannot_do():
    def f(x):
        y = torch.zeros(3, dtype=F64)
        y[0] = x[0] * x[1]
        if x.sum() > -100:
            y[1:] = x
        return y

    same(func.jacfwd(f)(torch.tensor([2.0, 3.0], dtype=F64)), torch.tensor([[3.0, 2], [1, 0], [0, 1]], dtype=F64))
