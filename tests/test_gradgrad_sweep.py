"""First and second derivatives of every differentiable operator, in a random direction, over dtypes and layouts.

Contiguous arguments are judged by finite differences; every other layout, the fused backward and empty arguments by the
contiguous answer. An operator that joins the registry without an entry fails `test_every_operator_is_here`.
"""

import math

import numpy as np
import pytest
import test_complex
import test_indexsort
import test_linalg
import test_second_order
from gradtable import CASES, NO_GRADIENT, Case
from opinfo import OPS
from subject import torch

# PyTorch lacks some of these, and stops the process at empty arguments of others.
pytestmark = pytest.mark.pyrite
F64, C128 = torch.float64, torch.complex128


# --- the sweep's entries --------------------------------------------------------------------------------------------
def draw(shape, dtype, seed, low=None, high=None):
    rng = np.random.default_rng([seed, *shape])

    def part():
        return rng.normal(size=shape) * 0.7 if low is None else rng.uniform(low, high, shape)

    values = part() + 1j * part() if dtype == C128 else part()
    return torch.from_numpy(np.asarray(values))


def arguments(case, dtype):
    bounds = (0.3, 1.3) if case.positive else (None, None)
    return [draw(s, dtype, k, *bounds) for k, s in enumerate(case.shapes)]


def entries():
    """(id, function, maker of contiguous arguments, whether an expanded argument makes sense)."""
    for name, case in CASES.items():
        for dtype in [F64] * (not case.only_complex) + [C128] * (case.complex or case.only_complex):
            yield f"{name}-{dtype}", case.call, lambda c=case, d=dtype: arguments(c, d), case.expanded
    for op in OPS:
        if op.gives_bool or op.takes == "int" or op.pending or not op.grad:
            continue

        def rows(op=op):
            return [draw(s, F64, k, *op.sample) for k, s in enumerate([(3, 4), (4,), (3, 1)][: op.inputs])]

        yield f"{op}-{op.inputs}-row", lambda *xs, op=op: op.function(*xs, **op.kwargs), rows, True
    for name in (*test_complex.UNARY, *test_complex.BINARY):
        n = 2 if name in test_complex.BINARY else 1
        case = Case(getattr(torch, name), ((3, 4), (3, 4))[:n])
        yield f"{name}-complex row", case.call, lambda c=case: arguments(c, C128), True
    for name, (call, *cases) in test_linalg.GRADIENTS.items():
        if name == "vector_norm":  # its extrema have no second derivative to compare
            continue
        for dtype in (F64, C128):
            if dtype == F64 or name not in test_linalg.NO_COMPLEX:
                case = Case(call, tuple(cases[0]))
                yield f"linalg.{name}-{dtype}", call, lambda c=case, d=dtype: arguments(c, d), name not in SINGULAR
    for name, (call, shapes) in test_indexsort.GRADIENTS.items():
        case = Case(call, tuple(shapes))
        yield f"{name}-{F64}-index", call, lambda c=case: arguments(c, F64), True
    for name, cases in test_second_order.CASES.items():
        for i, (call, make) in enumerate(cases):

            def seeded(make=make):
                torch.manual_seed(7)
                return list(make())

            yield f"nn.{name}-{i}", call, seeded, name not in SINGULAR


# Expanded rows are a singular matrix, a distance of nothing, or a tie of everything.
SINGULAR = {"det", "pinv_of_low_rank", "pdist", "dist"}
ENTRIES = [pytest.param(*entry[1:], id=entry[0]) for entry in entries()]


# --- layouts --------------------------------------------------------------------------------------------------------
def transposed(x):
    dims = tuple(reversed(range(x.dim())))
    return x.permute(dims).contiguous().permute(dims)


def strided(x):
    base = torch.zeros([2 * n for n in x.shape], dtype=x.dtype)
    view = base[(slice(None, None, 2),) * x.dim()]
    view.copy_(x)
    return view


def offset(x):
    base = torch.zeros([n + 2 for n in x.shape], dtype=x.dtype)
    view = base[(slice(1, -1),) * x.dim()]
    view.copy_(x)
    return view


def reversed_(x):
    dims = tuple(range(x.dim()))
    return x.flip(dims)[(slice(None, None, -1),) * x.dim()]


def marked(x):
    """Lazily conjugated or negated."""
    if x.is_complex():
        return x.conj_physical().conj()
    return torch.complex(torch.zeros_like(x), -x).conj().imag


def first_row(x):
    return x[:1].expand(x.shape) if x.dim() else x


LAYOUTS = [transposed, strided, offset, marked, reversed_]


# --- measuring ------------------------------------------------------------------------------------------------------
def flatten(out):
    if isinstance(out, (tuple, list)):
        return [t for part in out for t in flatten(part)]
    return [out] if out.is_floating_point() or out.is_complex() else []


def inner(a, b):
    """The real inner product of lists of tensors; None is zero."""
    return sum((x.conj() * y).sum().real.item() for x, y in zip(a, b, strict=True) if x is not None)


def weights(like, seed):
    return [draw(tuple(t.shape), t.dtype, seed + k) for k, t in enumerate(like)]


def derivatives(f, xs, layout=None, graph=True):
    """The gradients along fixed directions, then the gradients of their projection on fixed directions."""
    lay = layout or (lambda t: t)
    outs = [t for t in flatten(f(*xs)) if t.requires_grad]
    us = [lay(u) for u in weights(outs, 20)]
    first = torch.autograd.grad(outs, xs, us, create_graph=graph, allow_unused=True)
    if not graph:
        return first
    ws = weights(xs, 40)
    pairs = [(g, lay(w)) for g, w in zip(first, ws, strict=True) if g is not None and g.requires_grad]
    if not pairs:
        return first, [None] * len(xs)
    slopes, ws = zip(*pairs, strict=True)
    return first, torch.autograd.grad(slopes, xs, ws, allow_unused=True)


def leaves(xs):
    return [x.detach().requires_grad_() for x in xs]


def along(f, xs, vs, h):
    """The central difference of a real number that f gives."""
    with torch.no_grad():
        ends = [f(*[(x + s * h * v).detach() for x, v in zip(xs, vs, strict=True)]) for s in (1, -1)]
    return (ends[0] - ends[1]) / (2 * h)


def same(got, want, what):
    for g, w in zip(got, want, strict=True):
        zero = torch.zeros(())
        g, w = (zero if t is None else t.detach().resolve_conj() for t in (g, w))
        scale = max(1.0, float(w.abs().max())) if w.numel() else 1.0
        np.testing.assert_allclose(
            np.broadcast_to(g.numpy(), w.shape or g.shape), np.broadcast_to(w.numpy(), w.shape or g.shape),
            rtol=1e-8, atol=1e-9 * scale, err_msg=what,
        )  # fmt: skip


def value(f, *xs):
    with torch.no_grad():
        outs = flatten(f(*xs))
        return inner(weights(outs, 20), outs)


def slope(f, *xs):
    with torch.enable_grad():
        xs = leaves(xs)
        outs = [t for t in flatten(f(*xs)) if t.requires_grad]
        first = torch.autograd.grad(outs, xs, weights(outs, 20), create_graph=True, allow_unused=True)
        return inner([None if g is None else g.detach() for g in first], weights(xs, 40))


@pytest.mark.parametrize("f, make, expands", ENTRIES)
def test_derivatives(f, make, expands):
    xs = leaves(make())
    first, second = derivatives(f, xs)
    assert [g.shape for g in first if g is not None] == [
        x.shape for x, g in zip(xs, first, strict=True) if g is not None
    ]
    vs = weights(xs, 60)
    if all(t.requires_grad for t in flatten(f(*xs))):
        numeric = along(lambda *a: value(f, *a), xs, vs, 1e-6)
        assert inner(first, vs) == pytest.approx(numeric, rel=2e-5, abs=2e-6)
    numeric = along(lambda *a: slope(f, *a), xs, vs, 1e-5)
    assert inner(second, vs) == pytest.approx(numeric, rel=2e-4, abs=2e-5)
    same(derivatives(f, leaves(make()), graph=False), first, "the fused backward")
    for layout in LAYOUTS:
        got = derivatives(f, leaves([layout(x) for x in make()]), layout)
        same(got[0], first, f"first, {layout.__name__}")
        same(got[1], second, f"second, {layout.__name__}")
    if expands:
        rows = [first_row(x) for x in make()]
        want = derivatives(f, leaves([x.clone(memory_format=torch.contiguous_format) for x in rows]))
        got = derivatives(f, leaves(rows))
        same(got[0], want[0], "first, expanded")
        same(got[1], want[1], "second, expanded")


@pytest.mark.parametrize("f, make, expands", ENTRIES)
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("dim", [0, -1], ids=["no rows", "no columns"])
def test_nothing(f, make, expands, dim):
    """Where an operator takes empty arguments, it has their gradients too, twice."""
    shapes = [list(x.shape) for x in make()]
    for s in shapes:
        if s:
            s[dim] = 0
    xs = leaves([torch.zeros(s, dtype=x.dtype) for s, x in zip(shapes, make(), strict=True)])
    try:
        f(*xs)
    except (RuntimeError, IndexError, ValueError, AssertionError):
        pytest.skip("refuses empty arguments of these shapes")
    try:
        first, second = derivatives(f, xs)
    except RuntimeError as error:
        if "is not differentiable when" not in str(error):
            raise
        pytest.skip("says that it has no derivative there")
    for gradients in (first, second):
        for g, x in zip(gradients, xs, strict=True):
            assert g is None or g.shape == x.shape
            assert g is None or x.numel() == 0 or math.isfinite(float(g.abs().sum()))


@pytest.mark.pyrite
def test_every_operator_is_here():
    def words(keys):
        return {key.partition(" ")[0] for key in keys}

    known = words(CASES) | NO_GRADIENT | words(test_indexsort.GRADIENTS)
    known |= {f"linalg.{n}" for n in test_linalg.GRADIENTS}
    known |= {f"nn.{n}" for n in (*test_second_order.CASES, *test_second_order.ELSEWHERE)}
    names = {
        (record["namespace"] + "." if record["namespace"] else "") + record["name"]
        for record in torch._C._registry()
        if record["row"] is None
    }
    assert sorted(names - known) == []
    assert sorted(NO_GRADIENT - names) == []
