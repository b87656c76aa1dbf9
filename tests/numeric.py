"""Numeric differentiation along a random direction: the judge of every gradient."""

import pytest
from subject import IS_PYRITE, torch


def directional(f, xs, vs, h):
    """Central difference of the scalar f along vs."""
    with torch.no_grad():
        up = f(*[x.detach() + h * v for x, v in zip(xs, vs, strict=True)])
        down = f(*[x.detach() - h * v for x, v in zip(xs, vs, strict=True)])
    return (up.item() - down.item()) / (2 * h)


def inner(a, b):
    """The sum of products over lists of tensors; None counts as zero."""
    return sum((x * y).sum().item() for x, y in zip(a, b, strict=True) if x is not None)


def like(xs):
    return [torch.randn(tuple(x.shape), dtype=torch.float64) for x in xs]


def check_forward(f, xs, vs, u, expected, rel=1e-8, abs=1e-10):
    """The tangent of f at xs along vs agrees with what reverse mode says, projected on u."""
    fwd = torch.autograd.forward_ad
    with fwd.dual_level(), torch.no_grad():
        out = f(*[fwd.make_dual(x.detach(), v) for x, v in zip(xs, vs, strict=True)])
        value, tangent = fwd.unpack_dual(out)
        assert not value.requires_grad and (tangent is None or not tangent.requires_grad)
    assert (0 if tangent is None else (tangent * u).sum().item()) == pytest.approx(expected, rel=rel, abs=abs)


def check_forward_over_reverse(f, xs, ws, vs, u, expected):
    """The tangent of the gradient, projected on ws, is the second derivative."""
    fwd = torch.autograd.forward_ad
    with fwd.dual_level():
        duals = [fwd.make_dual(x.detach().requires_grad_(), v) for x, v in zip(xs, vs, strict=True)]
        grads = torch.autograd.grad((f(*duals) * u).sum(), duals)
        tangents = [fwd.unpack_dual(g).tangent for g in grads]
    assert inner(tangents, ws) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def check_gradients(f, *xs, second=True):
    """First and second derivatives of the tensor-valued f at float64 xs, against differences of its values; forward
    mode against reverse mode."""
    xs = [x.detach().requires_grad_() for x in xs]
    out = f(*xs)
    u, ws, vs = torch.randn(tuple(out.shape), dtype=torch.float64), like(xs), like(xs)
    grads = torch.autograd.grad((out * u).sum(), xs)
    assert [g.shape for g in grads] == [x.shape for x in xs]
    numeric = directional(lambda *a: (f(*a) * u).sum(), xs, vs, 1e-6)
    assert inner(grads, vs) == pytest.approx(numeric, rel=2e-5, abs=2e-7)
    if IS_PYRITE:
        check_forward(f, xs, vs, u, inner(grads, vs))
    if not second:
        return

    def slope(*a):
        with torch.enable_grad():
            a = [x if x.requires_grad else x.detach().requires_grad_() for x in a]
            grads = torch.autograd.grad((f(*a) * u).sum(), a, create_graph=True)
            return sum((g * w).sum() for g, w in zip(grads, ws, strict=True))

    s = slope(*xs)
    numeric = directional(slope, xs, vs, 1e-5)
    if not s.requires_grad:
        assert numeric == pytest.approx(0, abs=1e-6)
        return
    seconds = torch.autograd.grad(s, xs, allow_unused=True)
    assert inner(seconds, vs) == pytest.approx(numeric, rel=1e-4, abs=2e-5)
    if IS_PYRITE:
        check_forward_over_reverse(f, xs, ws, vs, u, inner(seconds, vs))
