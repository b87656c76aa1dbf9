"""Every operator of opinfo.py: values over dtypes and layouts, its forms against each other, first and second gradients."""

import itertools
import math

import numpy as np
import pytest
from numeric import directional, inner
from opinfo import ANY, FLOAT, INT, INTERNAL, NUM, OPS, REDUCTIONS
from subject import FLOATS, HALVES, INTS, IS_PYRITE, torch

# Relative (and, near zero, absolute) error allowed: a few units in the last place.
TOLERANCE = {torch.float64: 4e-14, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

SETS = {
    FLOAT: [*FLOATS, *HALVES, torch.int64, torch.uint8],
    "real": [*FLOATS, *HALVES],
    "float32 and float64": FLOATS,
    NUM: [*FLOATS, *HALVES, *INTS],
    INT: [*INTS, torch.bool],
    ANY: [*FLOATS, *HALVES, *INTS, torch.bool],
}
CASES = [
    pytest.param(op, dtype, id=f"{op}-{op.inputs}-{str(dtype).rpartition('.')[2]}")
    for op in OPS
    for dtype in SETS[op.takes]
    if not (op.note == "no bool" and dtype == torch.bool) and not (op.note == "no half" and dtype in HALVES)
]


def wide(t):
    """As a NumPy array that holds every value exactly."""
    t = t.detach()
    return (t.to(torch.float64) if t.is_floating_point() else t).numpy()


def draw(shape, dtype, sample, seed=0):
    """A contiguous tensor of values from the range `sample`, as far as the dtype can hold them."""
    rng = np.random.default_rng([seed, len(shape), math.prod(shape)])
    low, high = sample
    if dtype == torch.bool:
        values = rng.integers(0, 2, shape).astype(bool)
    elif dtype.is_floating_point:
        values = rng.uniform(low, high, shape)
    else:
        low, high = math.ceil(low), math.floor(high)
        if dtype == torch.uint8:
            low = max(low, 0)
        if low > high:
            pytest.skip("no integer in the operator's range")
        values = rng.integers(low, high + 1, shape)
    return torch.from_numpy(np.asarray(values)).to(dtype)


# Each makes a tensor of shape (5, 37) out of `make(shape)`: 37 leaves a tail for every vector width.
LAYOUTS = {
    "contiguous": lambda make: make((5, 37)),
    "transposed": lambda make: make((37, 5)).t(),
    "offset": lambda make: make((7, 40))[2:, 3:],
    "stepped": lambda make: make((10, 74))[::2, ::2],
    "expanded row": lambda make: make((1, 37)).expand(5, 37),
    "expanded column": lambda make: make((5, 1)).expand(5, 37),
}
if IS_PYRITE:
    LAYOUTS["reversed"] = lambda make: make((5, 37))[::-1, ::-1]
# Shapes that broadcast, for one, two and three inputs.
BROADCASTS = [
    ((), (), ()),
    ((0, 3), (0, 3), (1,)),
    ((4, 1), (1, 6), (6,)),
    ((3,), (2, 1, 3), (1,)),
    ((5, 37), (), (37,)),
    ((2, 3, 4, 5), (3, 1, 1), (2, 3, 4, 5)),
    ((40_003,), (40_003,), (1,)),
]


def samples(op, dtype):
    """Input tuples: every layout against the next ones, then broadcasting shapes."""
    makers = list(LAYOUTS.values())
    for i in range(len(makers)):
        yield [
            makers[(i + 2 * k) % len(makers)](lambda shape, k=k: draw(shape, dtype, op.sample, k))
            for k in range(op.inputs)
        ]
    yield [makers[0](lambda shape, k=k: draw(shape, dtype, op.sample, k)) for k in range(op.inputs)]
    for shapes in BROADCASTS:
        yield [draw(shape, dtype, op.sample, k) for k, shape in enumerate(shapes[: op.inputs])]


def compare(got, expected, dtype, slack=1.0, what=""):
    tolerance = TOLERANCE.get(dtype, TOLERANCE[torch.float32]) * slack
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True, err_msg=what)


@pytest.mark.parametrize("op, dtype", CASES)
def test_value(op, dtype):
    for inputs in samples(op, dtype):
        got = op.function(*inputs, **op.kwargs)
        arrays = [wide(t) for t in inputs]
        if op.takes == FLOAT and not dtype.is_floating_point:
            arrays = [a.astype(np.float64) for a in arrays]  # NumPy would compute small integers in float16
        if op.own_dtype and dtype in FLOATS:
            arrays = [t.numpy() for t in inputs]
        with np.errstate(all="ignore"):
            expected = op.ref(*arrays)
        assert tuple(got.shape) == np.shape(expected)
        if op.gives_bool:
            assert got.dtype == torch.bool
        elif dtype.is_floating_point:
            assert got.dtype == dtype
        elif op.takes == FLOAT:
            assert got.dtype == torch.float32
        else:
            assert got.dtype == dtype
        compare(wide(got), expected, got.dtype, op.slack, f"{op} {dtype} {[tuple(t.shape) for t in inputs]}")


# --- forms ------------------------------------------------------------------------------------------------------------
def natural_dtype(op):
    return torch.int32 if op.takes == INT else torch.float32


@pytest.mark.parametrize("op", OPS, ids=lambda op: f"{op}-{op.inputs}")
def test_method_equals_function(op):
    if op.method is None:
        pytest.skip("a function of nn.functional")
    inputs = [draw((5, 37), natural_dtype(op), op.sample, k) for k in range(op.inputs)]
    expected = op.function(*inputs, **op.kwargs)
    got = op.method(*inputs, **op.kwargs)
    assert got.dtype == expected.dtype
    compare(got.numpy(), expected.numpy(), torch.float32)


@pytest.mark.parametrize("op", OPS, ids=lambda op: f"{op}-{op.inputs}")
def test_in_place_equals_function(op):
    if op.in_place is None or op.gives_bool:
        pytest.skip("has no in-place form of the same dtype")
    inputs = [draw((5, 37), natural_dtype(op), op.sample, k) for k in range(op.inputs)]
    expected = op.function(*inputs, **op.kwargs).numpy()
    x = inputs[0].clone()
    version = x._version
    assert op.in_place(x, *inputs[1:], **op.kwargs) is x
    assert x._version == version + 1
    compare(x.numpy(), expected, torch.float32)
    # Into a view: the rest of the base stays as it was.
    base = torch.zeros((39, 7), dtype=x.dtype)
    view = base[1:38, 1:6].t()
    view.copy_(inputs[0])
    op.in_place(view, *inputs[1:], **op.kwargs)
    compare(view.numpy(), expected, torch.float32)
    assert (base[0] == 0).all() and (base[38] == 0).all() and (base[:, 0] == 0).all() and (base[:, 6] == 0).all()


# Functions that PyTorch gives no out=.
NO_OUT = frozenset(["positive", "isnan", "isinf", "isfinite", "relu", "selu", "celu"])


@pytest.mark.parametrize("op", OPS, ids=lambda op: f"{op}-{op.inputs}")
def test_out_equals_function(op):
    if op.name in NO_OUT or not hasattr(torch, op.name):
        pytest.skip("takes no out=")
    inputs = [draw((5, 37), natural_dtype(op), op.sample, k) for k in range(op.inputs)]
    expected = op.function(*inputs, **op.kwargs)
    out = torch.zeros((5, 37), dtype=expected.dtype)
    assert op.function(*inputs, **op.kwargs, out=out) is out
    compare(out.numpy(), expected.numpy(), torch.float32)
    strided = torch.zeros((37, 10), dtype=expected.dtype)[:, ::2].t()
    op.function(*inputs, **op.kwargs, out=strided)
    compare(strided.numpy(), expected.numpy(), torch.float32)
    if expected.dtype == inputs[0].dtype:
        x = inputs[0].clone()
        op.function(x, *inputs[1:], **op.kwargs, out=x)
        compare(x.numpy(), expected.numpy(), torch.float32)
    empty = torch.empty(0, dtype=expected.dtype)
    op.function(*inputs, **op.kwargs, out=empty)
    assert empty.shape == (5, 37)


@pytest.mark.parametrize("op", [o for o in OPS if o.inputs == 2 and not o.kwargs], ids=lambda op: op.name)
def test_a_python_number_equals_a_tensor(op):
    dtype = natural_dtype(op)
    x = draw((4, 9), dtype, op.sample)
    number = 2 if op.takes == INT else 1.5
    if op.name in TENSORS_ONLY:
        with pytest.raises(TypeError):
            op.function(x, number)
        return
    expected = op.function(x, torch.full((4, 9), number, dtype=dtype))
    compare(op.function(x, number).numpy(), expected.numpy(), torch.float32)


# These take tensors only, in PyTorch too.
TENSORS_ONLY = frozenset(
    "logaddexp logaddexp2 atan2 hypot nextafter maximum minimum fmax fmin heaviside gcd lcm logical_and logical_or "
    "logical_xor igamma igammac ldexp".split()
)


# --- special values ---------------------------------------------------------------------------------------------------
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.5, -2.5, 1e-30, -1e-30, 30.0, -30.0, 1e-40]


@pytest.mark.parametrize("dtype", FLOATS, ids=["float32", "float64"])
@pytest.mark.parametrize("op", [o for o in OPS if o.takes != INT and o.inputs < 3], ids=lambda op: f"{op}-{op.inputs}")
def test_special_values(op, dtype):
    if op.name in DIFFERS_FROM_NUMPY:
        pytest.skip(DIFFERS_FROM_NUMPY[op.name])
    if op.inputs == 1:
        arrays = [np.array(SPECIAL)]
    else:
        arrays = [np.array(a) for a in zip(*itertools.product(SPECIAL, SPECIAL), strict=True)]
    arrays = [a.astype(np.float32 if dtype == torch.float32 else np.float64) for a in arrays]
    got = op.function(*[torch.from_numpy(a.copy()) for a in arrays], **op.kwargs)
    with np.errstate(all="ignore"):
        expected = op.ref(*arrays if op.own_dtype else [a.astype(np.float64) for a in arrays])
        if expected.dtype.kind == "f":
            expected = expected.astype(arrays[0].dtype)
    # Ill-conditioned functions (slack > 1) may lose small results next to large ones; the others are right relatively.
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(
        got.numpy(),
        expected,
        rtol=4 * TOLERANCE[dtype] * op.slack,
        atol=eps * op.slack if op.slack > 1 else torch.finfo(dtype).tiny,
        equal_nan=True,
    )


# Where PyTorch itself, for this table to run on it, gives something else; empty for Pyrite.
DIFFERS_FROM_NUMPY = dict.fromkeys(
    "i0 i1 bessel_j0 bessel_j1 bessel_y0 bessel_y1 modified_bessel_i0 modified_bessel_i1 airy_ai zeta".split(),
    "SciPy gives NaN at infinity; test_special.py has the limits",
)
DIFFERS_FROM_NUMPY |= {
    op.name: "SciPy has values for orders that are no integers; test_special.py has the limits"
    for op in OPS
    if "_polynomial_" in op.name
}
if not IS_PYRITE:
    DIFFERS_FROM_NUMPY |= dict.fromkeys(["gelu", "fmod", "remainder"], "NaN at infinity in PyTorch's vector code")


# --- gradients --------------------------------------------------------------------------------------------------------
SMOOTH = [op for op in OPS if op.grad and not op.gives_bool and op.takes != INT]


def skip_pending(op, order):
    """What Pyrite says it cannot differentiate yet: an error that names the reason, tested here, not a wrong number."""
    if IS_PYRITE and op.pending and (order == "second" or op.pending.startswith("first")):
        x = draw((3,), torch.float64, op.sample).requires_grad_()
        with pytest.raises(NotImplementedError, match=op.pending.rpartition(" ")[2]):
            (g,) = torch.autograd.grad(op.function(x).sum(), x, create_graph=True)
            torch.autograd.grad(g.sum(), x)
        pytest.skip(op.pending)


def leaves(op, shapes, seed=0, dtype=torch.float64):
    return [draw(s, dtype, op.sample, seed + k).requires_grad_() for k, s in enumerate(shapes[: op.inputs])]


@pytest.mark.parametrize("op", SMOOTH, ids=lambda op: f"{op}-{op.inputs}")
@pytest.mark.parametrize("shapes", [((3, 4), (3, 4), (3, 4)), ((3, 1), (4,), (3, 1))], ids=["same", "broadcast"])
def test_first_gradient(op, shapes):
    if op.name == "clamp" and op.inputs == 3 and not IS_PYRITE and shapes[0] != (3, 4):
        pytest.skip("PyTorch fails where the clamped tensor itself is broadcast")
    skip_pending(op, "first")
    xs = leaves(op, shapes)
    out = op.function(*xs, **op.kwargs)
    u = torch.randn(tuple(out.shape), dtype=torch.float64)
    vs = [torch.randn(tuple(x.shape), dtype=torch.float64) for x in xs]
    grads = torch.autograd.grad((out * u).sum(), xs)
    assert [g.shape for g in grads] == [x.shape for x in xs]
    numeric = directional(lambda *a: (op.function(*a, **op.kwargs) * u).sum(), xs, vs, 1e-6)
    assert inner(grads, vs) == pytest.approx(numeric, rel=2e-5, abs=2e-7)
    # The differentiable backward gives the same numbers as the fused one.
    if IS_PYRITE and op.pending:
        return
    again = torch.autograd.grad((op.function(*xs, **op.kwargs) * u).sum(), xs, create_graph=True)
    for a, b in zip(grads, again, strict=True):
        compare(b.detach().numpy(), a.numpy(), torch.float64, 10)


@pytest.mark.parametrize("op", SMOOTH, ids=lambda op: f"{op}-{op.inputs}")
def test_second_gradient(op):
    if op.name == "hardsigmoid" and not IS_PYRITE:
        pytest.skip("PyTorch has none")
    skip_pending(op, "second")
    xs = leaves(op, ((3, 4), (1, 4), (3, 1)))
    u = torch.randn(3, 4, dtype=torch.float64)
    ws = [torch.randn(tuple(x.shape), dtype=torch.float64) for x in xs]
    vs = [torch.randn(tuple(x.shape), dtype=torch.float64) for x in xs]

    def slope(*a, graph=False):
        """The directional derivative along ws, itself a differentiable number."""
        with torch.enable_grad():
            a = a if graph else [x.detach().requires_grad_() for x in a]
            grads = torch.autograd.grad((op.function(*a, **op.kwargs) * u).sum(), a, create_graph=True)
            return sum((g * w).sum() for g, w in zip(grads, ws, strict=True))

    s = slope(*xs, graph=True)
    if not s.requires_grad:
        assert directional(slope, xs, vs, 1e-5) == pytest.approx(0, abs=1e-6)
        return
    second = torch.autograd.grad(s, xs, allow_unused=True)
    assert inner(second, vs) == pytest.approx(directional(slope, xs, vs, 1e-5), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=lambda d: str(d).rpartition(".")[2])
@pytest.mark.parametrize("op", SMOOTH, ids=lambda op: f"{op}-{op.inputs}")
def test_gradient_over_dtypes_and_layouts(op, dtype):
    """Against the float64 gradient at the same points, through every layout of input and incoming gradient."""
    skip_pending(op, "first")
    if op.takes == "float32 and float64" and dtype != torch.float32:
        pytest.skip("has no half types")
    makers = list(LAYOUTS.values())
    for i in range(len(makers)):
        roots = [
            makers[(i + 2 * k) % len(makers)](lambda s, k=k: draw(s, dtype, op.sample, k)) for k in range(op.inputs)
        ]
        u = makers[(i + 1) % len(makers)](lambda s: draw(s, dtype, (0.5, 1.5), 9))
        results = []
        for d in (dtype, torch.float64):
            xs = [r.detach().to(d).requires_grad_() for r in roots]
            out = op.function(*xs, **op.kwargs)
            results.append(torch.autograd.grad(out, xs, u.to(d)))
        for low, high in zip(*results, strict=True):
            assert low.dtype == dtype
            # Half results are rounded before the gradient reads them: allow some of that to be magnified.
            compare(wide(low), high.numpy(), dtype, (8 if dtype == torch.float32 else 4) * op.slack, str(op))


# --- reductions -------------------------------------------------------------------------------------------------------
REDUCTION_CASES = [
    pytest.param(op, dtype, id=f"{op}-{str(dtype).rpartition('.')[2]}") for op in REDUCTIONS for dtype in SETS[op.takes]
]
REDUCED = {
    "contiguous": lambda make: make((4, 33, 6)),
    "permuted": lambda make: make((6, 4, 33)).permute(1, 2, 0),
    "offset": lambda make: make((6, 35, 8))[2:, 1:34, 2:],
    "stepped": lambda make: make((8, 66, 12))[::2, ::2, ::2],
    "expanded": lambda make: make((4, 1, 6)).expand(4, 33, 6),
}
if IS_PYRITE:
    REDUCED["reversed"] = lambda make: make((4, 33, 6))[::-1, ::-1]


def reduce(op, x, dim, keepdim):
    f = getattr(torch, op.name)
    kwargs = dict(op.kwargs)
    if dim is not None:
        kwargs["dim"] = dim
    elif op.name == "logsumexp":
        kwargs["dim"] = tuple(range(x.dim()))
    if keepdim:
        kwargs["keepdim"] = True
    return f(x, **kwargs)


def reductions_of(op, dims):
    yield None, False
    for dim in range(-dims, dims):
        yield dim, False
        if "nokeep" not in op.dims:
            yield dim, True
    if "many" in op.dims:
        for pair in itertools.combinations(range(dims), 2):
            yield pair, False
        yield tuple(range(dims)), "nokeep" not in op.dims


@pytest.mark.parametrize("op, dtype", REDUCTION_CASES)
def test_reduction(op, dtype):
    for name, layout in REDUCED.items():
        x = layout(lambda s: draw(s, dtype, op.sample))
        array = wide(x)
        for dim, keep in reductions_of(op, 3):
            if dim is None and "all" not in op.dims:
                continue
            got = reduce(op, x, dim, keep)
            expected = np.asarray(op.ref(array, dim, keep))
            assert tuple(got.shape) == expected.shape, (name, dim, keep)
            if op.name in ("argmax", "argmin") and name == "expanded":
                continue  # which of equal ones is found is not promised
            compare(wide(got), expected, dtype, op.slack * (4 if dtype in HALVES else 1), f"{op} {name} {dim}")


@pytest.mark.parametrize("op", REDUCTIONS, ids=str)
def test_reduction_of_large_and_small(op):
    for shape in [(), (1,), (70_001,), (300, 300)]:
        x = draw(shape, torch.float32, (0.999, 1.001) if op.name == "prod" else op.sample)
        if op.name in ("std", "var") and x.numel() < 2:
            continue
        with np.errstate(all="ignore"):
            expected = op.ref(wide(x), None, False)
        compare(wide(reduce(op, x, None, False)), expected, torch.float32, op.slack * 4, f"{op} {shape}")


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("op", REDUCTIONS, ids=str)
def test_reduction_of_nothing(op):
    x = torch.zeros(3, 0)
    if op.empty:
        assert reduce(op, x, 1, False).shape == (3,)
        np.testing.assert_array_equal(wide(reduce(op, x, 1, False)), reference_of_nothing(op))
    elif op.name in ("amax", "amin", "argmax", "argmin"):
        with pytest.raises((RuntimeError, IndexError)):
            reduce(op, x, 1, False)
    assert reduce(op, x, 0, False).shape == (0,)


def reference_of_nothing(op):
    if op.name == "mean":
        return np.full(3, math.nan)
    return np.asarray(op.ref(np.zeros((3, 0)), 1, False))


@pytest.mark.parametrize("op", [r for r in REDUCTIONS if r.grad], ids=str)
@pytest.mark.parametrize("dim, keep", [(None, False), (0, False), (-1, True), ((0, 2), False)])
def test_reduction_gradients(op, dim, keep):
    if (dim is None and "all" not in op.dims) or (isinstance(dim, tuple) and "many" not in op.dims):
        pytest.skip("not along these dimensions")
    # Distinct values: where two are the greatest, the gradient is shared.
    x = draw((3, 4, 5), torch.float64, op.sample).requires_grad_()
    out = reduce(op, x, dim, keep)
    u, v, w = (torch.randn(shape, dtype=torch.float64) for shape in (out.shape, x.shape, x.shape))
    (g,) = torch.autograd.grad((out * u).sum(), x, create_graph=True)
    numeric = directional(lambda a: (reduce(op, a, dim, keep) * u).sum(), [x], [v], 1e-6)
    assert inner([g.detach()], [v]) == pytest.approx(numeric, rel=1e-5, abs=1e-7)
    if not g.requires_grad:
        return

    def slope(a):
        with torch.enable_grad():
            a = a.detach().requires_grad_()
            return (torch.autograd.grad((reduce(op, a, dim, keep) * u).sum(), a, create_graph=True)[0] * w).sum()

    (second,) = torch.autograd.grad((g * w).sum(), x, allow_unused=True)
    numeric = directional(slope, [x], [v], 1e-5)
    assert (0.0 if second is None else inner([second], [v])) == pytest.approx(numeric, rel=1e-4, abs=1e-5)


def test_max_min_return_values_and_places():
    x = torch.tensor([[1.0, 9.0, 3.0], [4.0, math.nan, 6.0]])
    values, places = x.max(1)
    assert values[0].item() == 9 and math.isnan(values[1].item()) and places.tolist() == [1, 1]
    result = torch.min(x[:1], dim=1, keepdim=True)
    assert result.values.tolist() == [[1]] and result.indices.tolist() == [[0]]
    assert torch.max(x[:1], x[1:])[0, 0].item() == 4
    y = torch.tensor([[1.0, 5.0], [7.0, 2.0]], requires_grad=True)
    y.max(0).values.sum().backward()
    assert y.grad.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("op", ["cumsum", "cumprod"])
def test_cumulative(op):
    for layout in REDUCED.values():
        x = layout(lambda s: draw(s, torch.float64, (0.5, 1.5)))
        for dim in range(-3, 3):
            compare(getattr(torch, op)(x, dim).numpy(), getattr(np, op)(x.numpy(), dim), torch.float64, 20)
    x = draw((3, 4), torch.float64, (0.5, 1.5)).requires_grad_()
    u, v = torch.randn(2, 3, 4, dtype=torch.float64)
    (g,) = torch.autograd.grad((getattr(torch, op)(x, 1) * u).sum(), x)
    numeric = directional(lambda a: (getattr(torch, op)(a, 1) * u).sum(), [x], [v], 1e-6)
    assert inner([g], [v]) == pytest.approx(numeric, rel=1e-6)


def test_sums_are_accurate():
    """A million times 0.1 in float32: pairwise or blocked summation, not one running total."""
    x = torch.full((1_000_000,), 0.1)
    assert x.sum().item() == pytest.approx(100_000, rel=2e-6)
    assert torch.full((100_000,), 0.1, dtype=torch.bfloat16).sum().item() == pytest.approx(10_000, rel=0.01)


def test_small_integers_sum_in_int64():
    assert torch.full((300,), 200, dtype=torch.uint8).sum().item() == 60_000
    assert torch.ones(300, dtype=torch.bool).sum().dtype == torch.int64


# --- completeness -----------------------------------------------------------------------------------------------------
@pytest.mark.pyrite
def test_every_row_has_an_entry():
    """A new row of the table is not done until opinfo.py says what it should answer."""
    known = {op.name for op in OPS} | {op.name for op in REDUCTIONS} | set(INTERNAL)
    rows = [record["row"]["name"] for record in torch._C._registry() if record["row"]]
    assert len(rows) > 75
    missing = sorted(set(rows) - known)
    assert not missing, f"these rows have no entry in opinfo.py: {missing}"
