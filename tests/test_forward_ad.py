"""Forward mode: every elementwise operator and reduction against differences, in-place writes and views, nested
levels, custom functions, and what is refused. (`numeric.check_gradients` checks forward mode of everything else.)"""

import pytest
from numeric import check_forward, directional, inner, like
from opinfo import OPS, REDUCTIONS
from subject import torch

fwd = torch.autograd.forward_ad
F64 = torch.float64
pytestmark = pytest.mark.pyrite


def rand(*shape):
    return torch.randn(*shape, dtype=F64)


def draw(op, shape):
    low, high = op.sample
    return torch.rand(shape, dtype=F64) * (high - low) * 0.9 + low + 0.05 * (high - low)


@pytest.mark.parametrize(
    "op", [pytest.param(op, id=f"{op}-{op.inputs}") for op in OPS if op.grad and op.takes != "int"]
)
def test_operator(op):
    torch.manual_seed(1)
    shapes = {1: [(3, 4)], 2: [(3, 4), (4,)], 3: [(3, 1), (3, 4), (1, 4)]}[op.inputs]
    xs = [draw(op, s) for s in shapes]
    vs = like(xs)

    def f(*a):
        return op.function(*a, **op.kwargs)

    out = f(*xs)
    if not out.is_floating_point():
        return
    u = torch.randn(tuple(out.shape), dtype=F64)
    check_forward(f, xs, vs, u, directional(lambda *a: (f(*a) * u).sum(), xs, vs, 1e-6), rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("op", REDUCTIONS, ids=str)
def test_reduction(op):
    if not getattr(op, "grad", True):
        return
    x = rand(3, 4)
    xs, vs = [x], [rand(3, 4)]
    for kwargs in ({}, {"dim": 1}, {"dim": 0, "keepdim": True}):

        def f(a, kwargs=kwargs):
            r = getattr(torch, op.name)(a, **op.kwargs, **kwargs)
            return r if isinstance(r, torch.Tensor) else r[0]

        try:
            out = f(x)
        except (TypeError, RuntimeError):
            continue
        if not out.is_floating_point():
            continue
        u = torch.randn(tuple(out.shape), dtype=F64)
        numeric = directional(lambda a, u=u: (f(a) * u).sum(), xs, vs, 1e-6)
        check_forward(f, xs, vs, u, numeric, rel=2e-5, abs=1e-6)


def dual(f, x, v):
    with fwd.dual_level():
        return fwd.unpack_dual(f(fwd.make_dual(x, v))).tangent


# Programs that write in place and look through views; each is compared with differences of its own values.
def into_slice(x):
    y = torch.zeros(5, dtype=F64)
    y[1:4] = x * x
    y[2:] *= 2
    return y


def through_view(x):
    y = x.clone()
    row = y.view(3, 1)[1]
    row.mul_(x[0])
    y.add_(row.clone())
    return y * row


def view_sees_base(x):
    y = x.clone()
    v = y[::2]
    y.mul_(x)
    return v * 3


def filled(x):
    y = x * 2
    y[0].fill_(3.0)
    y[1:2].zero_()
    return y.sin_().mul_(x)


def copied(x):
    y = torch.ones(2, 3, dtype=F64)
    y.copy_(x)
    y[0].copy_(x * x)
    y.t()[1:].exp_()
    return y


def put(x):
    y = x.clone()
    y.index_put_((torch.tensor([0, 0]),), x[1:], accumulate=True)
    y[torch.tensor([True, False, False])] = x[2] * x[1]
    y.masked_fill_(torch.tensor([False, False, True]), 4.0)
    return y * y


def pieces(x):
    a, b, c = (x * 2).unbind()
    return torch.stack([a * b, b * c, c.exp()])


def out_of_order(x):
    y = x.expand(2, 3).clone()
    a = y.transpose(0, 1)
    a[1] = x[:2] * 5
    return (y @ x) * a.sum(1)[:2]


@pytest.mark.parametrize(
    "f", [into_slice, through_view, view_sees_base, filled, copied, put, pieces, out_of_order], ids=lambda f: f.__name__
)
def test_writes_and_views(f):
    x, v = torch.rand(3, dtype=F64) + 0.5, rand(3)
    out = f(x)
    u = torch.randn(tuple(out.shape), dtype=F64)
    check_forward(f, [x], [v], u, directional(lambda a: (f(a) * u).sum(), [x], [v], 1e-6), rel=1e-6)


def test_levels_nest_without_confusion():
    # d/dx (x * d/dy (x + y)) = 1, not 2.
    x = torch.tensor(1.0, dtype=F64)
    with fwd.dual_level():
        a = fwd.make_dual(x, torch.ones_like(x))
        with fwd.dual_level():
            b = fwd.make_dual(torch.tensor(1.0, dtype=F64), torch.ones_like(x))
            inner_slope = fwd.unpack_dual(a + b).tangent
        outer = fwd.unpack_dual(a * inner_slope).tangent
    assert outer.item() == 1.0


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_higher_derivatives(depth):
    def derivative(f):
        def g(x):
            with fwd.dual_level():
                return fwd.unpack_dual(f(fwd.make_dual(x, torch.ones_like(x)))).tangent

        return g

    f = torch.sin
    for _ in range(depth):
        f = derivative(f)
    x = torch.tensor([0.3, 1.2], dtype=F64)
    expected = [x.cos(), -x.sin(), -x.cos(), x.sin()][depth - 1]
    assert torch.allclose(f(x), expected)


def test_reverse_over_forward_and_forward_over_reverse():
    x, v = rand(4), rand(4)

    def f(a):
        return (a.exp() * a.roll(1)).sum()

    hessian = torch.autograd.functional.hessian(f, x)
    leaf = x.clone().requires_grad_()
    with fwd.dual_level():
        slope = fwd.unpack_dual(f(fwd.make_dual(leaf, v))).tangent
        assert slope.requires_grad
    (rof,) = torch.autograd.grad(slope, leaf)
    with fwd.dual_level():
        a = fwd.make_dual(x.clone().requires_grad_(), v)
        (g,) = torch.autograd.grad(f(a), a)
        assert not g.requires_grad
        fof = fwd.unpack_dual(g).tangent
    assert torch.allclose(rof, hessian @ v) and torch.allclose(fof, hessian @ v)


def test_backward_inside_a_level_accumulates():
    x = rand(3).requires_grad_()
    with fwd.dual_level():
        d = fwd.make_dual(x, torch.ones(3, dtype=F64))
        (d**3).sum().backward()
    assert torch.allclose(x.grad, 3 * x.detach() ** 2)
    assert not x.grad.requires_grad


def test_a_network():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(12, 4), torch.nn.LayerNorm(4), torch.nn.GELU(),
    ).double()  # fmt: skip
    x, v = rand(2, 1, 6, 6), rand(2, 1, 6, 6)
    u = rand(2, 4)
    check_forward(net, [x], [v], u, directional(lambda a: (net(a) * u).sum(), [x], [v], 1e-6), rel=1e-5)


def test_detach_and_no_grad():
    x, v = rand(3), rand(3)
    assert dual(lambda a: a.detach() * 2, x, v) is None
    assert torch.equal(dual(lambda a: a.detach() * a, x, v), x * v)
    with torch.no_grad():
        assert torch.equal(dual(lambda a: a * 2, x, v), v * 2)


def test_mixed_dtypes():
    x = torch.randn(3)
    t = dual(lambda a: a * torch.ones(3, dtype=F64) + torch.arange(3), x, torch.ones(3))
    assert t.dtype == F64 and t.tolist() == [1, 1, 1]
    assert dual(lambda a: a.to(F64).float() * 2, x, torch.ones(3)).dtype == torch.float32
    assert dual(lambda a: a > 0, x, torch.ones(3)) is None


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, power):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        ctx.power = power
        return x**power, x > 0

    @staticmethod
    def backward(ctx, g, _):
        (x,) = ctx.saved_tensors
        return g * ctx.power * x ** (ctx.power - 1), None

    @staticmethod
    def jvp(ctx, t, _):
        (x,) = ctx.saved_tensors
        ctx.calls = True
        return t * ctx.power * x ** (ctx.power - 1), None


class CubeByBackward(Cube):
    jvp = torch.autograd.Function.jvp


class Numpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return torch.from_numpy(g.detach().numpy() * 2)


@pytest.mark.parametrize("cls", [Cube, CubeByBackward])
def test_custom_function(cls):
    x, v = rand(3), rand(3)
    assert torch.allclose(dual(lambda a: cls.apply(a, 3)[0], x, v), 3 * x**2 * v)
    leaf = x.clone().requires_grad_()
    with fwd.dual_level():
        t = fwd.unpack_dual(cls.apply(fwd.make_dual(leaf, v), 3)[0]).tangent
    assert torch.allclose(torch.autograd.grad(t.sum(), leaf)[0], 6 * x * v)


def test_custom_function_without_a_way():
    with pytest.raises(NotImplementedError, match="must implement the jvp function"):
        dual(Numpy.apply, rand(3), rand(3))


def test_function_that_writes_in_place():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark_dirty(x)
            return x.mul_(2)

        @staticmethod
        def backward(ctx, g):
            return g * 2

        @staticmethod
        def jvp(ctx, t):
            return t.mul_(2)

    x, v = rand(3), rand(3)
    assert torch.allclose(dual(lambda a: Double.apply(a.clone()) * a, x, v), 4 * x * v)


def test_api():
    x, v = torch.ones(2), torch.full((2,), 3.0)
    level = fwd.enter_dual_level()
    d = fwd.make_dual(x, v)
    pair = fwd.unpack_dual(d)
    assert isinstance(pair, fwd.UnpackedDualTensor) and pair.tangent.tolist() == [3, 3]
    assert torch.equal(pair.primal, x) and fwd.unpack_dual(pair.primal).tangent is None
    assert fwd.unpack_dual(x).tangent is None
    fwd.exit_dual_level(level=level)
    assert fwd.unpack_dual(d).tangent is None
    with fwd.dual_level():
        assert fwd.unpack_dual(d).tangent is None  # Another level: the old tangent is gone.
        assert fwd.unpack_dual(d * 2).tangent is None


def test_refusals():
    x = torch.ones(2)
    with pytest.raises(RuntimeError, match="no level exists"):
        fwd.make_dual(x, x)
    with pytest.raises(RuntimeError, match="no level exists"):
        fwd.exit_dual_level()
    with fwd.dual_level():
        with pytest.raises(RuntimeError, match="different size"):
            fwd.make_dual(x, torch.ones(3))
        with pytest.raises(ValueError, match="floating point"):
            fwd.make_dual(torch.ones(2, dtype=torch.int64), x)
        with pytest.raises(RuntimeError, match="same dtype"):
            fwd.make_dual(x, x.double())
        with pytest.raises(RuntimeError, match="not the last one"):
            fwd.exit_dual_level(level=3)
        # The neighbour moves with its number.
        assert fwd.unpack_dual(torch.nextafter(fwd.make_dual(x, 3 * x), 2 * x)).tangent.tolist() == [3, 3]


def test_threads_have_their_own_levels():
    import threading

    seen = []
    with fwd.dual_level():
        d = fwd.make_dual(torch.ones(2), torch.ones(2))

        def work():
            try:
                fwd.make_dual(torch.ones(2), torch.ones(2))
            except RuntimeError as e:
                seen.append(str(e))
            seen.append(fwd.unpack_dual(d * 2).tangent)

        t = threading.Thread(target=work)
        t.start()
        t.join()
        assert fwd.unpack_dual(d * 2).tangent.tolist() == [2, 2]
    assert "no level exists" in seen[0] and seen[1] is None


def test_projection_helpers_agree():
    # The tangent and the gradient are transposes of each other.
    x, v, u = rand(4), rand(4), rand(4)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad((leaf.softmax(0) * u).sum(), leaf)
    assert inner([dual(lambda a: a.softmax(0), x, v)], [u]) == pytest.approx(inner([g], [v]))


def test_identity_of_tangents_and_printing():
    x, v = torch.ones(2), torch.full((2,), 3.0)
    with fwd.dual_level():
        d = fwd.make_dual(x, v)
        assert fwd.unpack_dual(d).tangent is v
        assert "tangent=tensor([3., 3.])" in str(d) and "tangent" not in str(x)
        with pytest.raises(RuntimeError, match="forward gradient at the same level"):
            fwd.make_dual(x, d)
        with pytest.raises(RuntimeError, match="out= function"):
            torch.add(d, x, out=torch.zeros(2))


def test_jvp_sees_every_argument_and_is_checked():
    class Mixed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, k, x, y):
            ctx.save_for_forward(x)
            return k * x + y, y.clone()

        @staticmethod
        def jvp(ctx, k, tx, ty):
            assert k is None and ty.tolist() == [0, 0] and len(ctx.saved_tensors) == 1
            return 3 * tx + ty, ty

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, how):
            ctx.how = how
            if how == "write":
                ctx.mark_dirty(x)
                return x.mul_(2)
            if how == "view":
                return x[:1]
            y = x.clone()
            ctx.mark_non_differentiable(y)
            return y

        @staticmethod
        def jvp(ctx, t, _):
            return t * 2 if ctx.how != "view" else t[:1].clone()

    x, v = torch.ones(2), torch.full((2,), 3.0)
    with fwd.dual_level():
        out = Mixed.apply(3, fwd.make_dual(x, v), torch.zeros(2))[0]
        assert fwd.unpack_dual(out).tangent.tolist() == [9, 9]
        for how, message in (
            ("write", "must modify the corresponding gradient inplace"),
            ("view", "jvp is not returning a view"),
            ("constant", "You should return None at that position instead"),
        ):
            with pytest.raises(RuntimeError, match=message):
                Wrong.apply(fwd.make_dual(x.clone(), v.clone()), how)
