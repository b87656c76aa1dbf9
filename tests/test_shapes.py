"""Shape composites, sections, stacks, diagonals, differences, integrals and covariance, against NumPy."""

import itertools

import numpy as np
import pytest
from subject import torch

rng = np.random.default_rng(0)


def layouts(a):
    """The same values as tensors that lie differently in memory."""
    a = np.asarray(a)
    yield "plain", torch.from_numpy(a.copy())
    if a.ndim:
        yield "stepped", torch.from_numpy(np.repeat(a, 2, axis=-1))[..., ::2]
        yield "transposed", torch.from_numpy(np.ascontiguousarray(a.T)).permute(*range(a.ndim - 1, -1, -1))
        wide = np.zeros((a.shape[0] + 3, *a.shape[1:]), a.dtype)
        wide[2 : 2 + a.shape[0]] = a
        yield "offset", torch.from_numpy(wide)[2 : 2 + a.shape[0]]


def same(got, want, **kw):
    if isinstance(got, (tuple, list)):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            same(g, w, **kw)
        return
    want = np.asarray(want)
    assert tuple(got.shape) == want.shape
    np.testing.assert_allclose(got.detach().numpy(), want, **({"rtol": 1e-6, "atol": 1e-7} | kw))


def array(*shape, dtype="float32"):
    a = rng.normal(size=shape) * 3
    return (a * 3).astype(dtype) if dtype != "bool" else a > 0


F64 = {"dtype": "float64"}

# name, call on (library, tensor), NumPy's answer, inputs
CASES = [
    ("tensor_split", lambda t: t.tensor_split(3), lambda a: np.array_split(a, 3), [(7,), (6, 2), (2, 3)]),
    ("tensor_split at", lambda t: torch.tensor_split(t, (1, -1)), lambda a: np.array_split(a, (1, -1)), [(5,), (4, 2)]),
    ("tensor_split past the end", lambda t: t.tensor_split((2, 9, 1)), lambda a: np.array_split(a, (2, 9, 1)), [(5,)]),
    ("tensor_split by tensor", lambda t: t.tensor_split(torch.tensor([1, 3]), 1), lambda a: np.array_split(a, (1, 3), 1), [(2, 5)]),
    ("hsplit", lambda t: t.hsplit(2), lambda a: np.hsplit(a, 2), [(4,), (3, 4), (1, 2, 3)]),
    ("vsplit", lambda t: torch.vsplit(t, [1]), lambda a: np.vsplit(a, [1]), [(3, 4), (1, 2, 3)]),
    ("dsplit", lambda t: t.dsplit(3), lambda a: np.dsplit(a, 3), [(2, 1, 3)]),
    ("unsafe_chunk", lambda t: t.unsafe_chunk(2), lambda a: np.array_split(a, 2), [(4, 2), (5,)]),
    ("unsafe_split", lambda t: torch.unsafe_split(t, 2, -1), lambda a: np.array_split(a, (2,), -1), [(2, 4), (3,)]),
    ("column_stack", lambda t: torch.column_stack([t, t]), lambda a: np.column_stack([a, a]), [(), (3,), (2, 3), (2, 1, 2)]),
    ("hstack", lambda t: torch.hstack([t, t]), lambda a: np.hstack([a, a]), [(), (3,), (2, 3)]),
    ("vstack", lambda t: torch.row_stack([t, t]), lambda a: np.vstack([a, a]), [(), (3,), (2, 3)]),
    ("dstack", lambda t: torch.dstack([t, t]), lambda a: np.dstack([a, a]), [(), (3,), (2, 3), (2, 1, 2)]),
    ("rot90", lambda t: t.rot90(), np.rot90, [(2, 3), (2, 3, 2)]),
    ("rot90 back", lambda t: torch.rot90(t, -1, [0, -1]), lambda a: np.rot90(a, -1, (0, -1)), [(2, 3), (2, 3, 2)]),
    ("rot90 by 6", lambda t: t.rot90(6), lambda a: np.rot90(a, 6), [(2, 3)]),
    ("tril", lambda t: t.tril(1), lambda a: np.tril(a, 1), [(3, 4), (4, 3), (2, 3, 3), (0, 3), (3, 0)]),
    ("triu", lambda t: torch.triu(t, -1), lambda a: np.triu(a, -1), [(3, 4), (4, 3), (2, 3, 3)]),
    ("diag", lambda t: t.diag(-1), lambda a: np.diag(a, -1), [(3,), (4, 3), (0,)]),
    ("diagflat", lambda t: torch.diagflat(t, 1), lambda a: np.diagflat(a, 1), [(3,), (2, 2), ()]),
    ("diag_embed", lambda t: t.diag_embed(), lambda a: np.apply_along_axis(np.diag, -1, a), [(3,), (2, 3)]),
    ("diff", lambda t: t.diff(), np.diff, [(5,), (2, 3), (1,), (0,)]),
    ("diff 2", lambda t: torch.diff(t, 2, 0), lambda a: np.diff(a, 2, 0), [(5,), (4, 3)]),
    ("diff wide", lambda t: t.diff(prepend=t, append=t[..., :1]), lambda a: np.diff(a, prepend=a, append=a[..., :1]), [(3,), (2, 3)]),
    ("gradient", lambda t: torch.gradient(t), lambda a: [np.gradient(a)] if a.ndim == 1 else np.gradient(a), [(5,), (3, 4)]),
    ("gradient h", lambda t: torch.gradient(t, spacing=0.5, edge_order=2), lambda a: [np.gradient(a, 0.5, edge_order=2)], [(5,)]),
    ("gradient dim", lambda t: torch.gradient(t, spacing=[2, 0.5], dim=(1, 0)), lambda a: np.gradient(a, 2, 0.5, axis=(1, 0)), [(4, 3)]),
    ("gradient x", lambda t: torch.gradient(t, spacing=(torch.tensor([0.0, 1, 3, 4.5]),), dim=0, edge_order=2),
     lambda a: [np.gradient(a, np.array([0.0, 1, 3, 4.5]), axis=0, edge_order=2)], [(4, 3)]),
    ("gradient x 1", lambda t: torch.gradient(t, spacing=[torch.tensor([0.0, 1, 3, 4.5])]), lambda a: [np.gradient(a, np.array([0.0, 1, 3, 4.5]))], [(4,)]),
    ("trapezoid", lambda t: torch.trapezoid(t, dx=0.5), lambda a: np.trapezoid(a, dx=0.5), [(5,), (2, 3), (1,), (2, 0)]),
    ("trapz x", lambda t: torch.trapz(t, torch.tensor([0.0, 1, 4]), dim=0), lambda a: np.trapezoid(a, np.array([0.0, 1, 4]), axis=0), [(3, 2), (3,)]),
    ("cov", lambda t: t.cov(), np.cov, [(3, 4), (5,)]),
    ("cov 0", lambda t: torch.cov(t, correction=0), lambda a: np.cov(a, ddof=0), [(3, 4)]),
    ("cov weights", lambda t: torch.cov(t, fweights=torch.tensor([1, 0, 2, 3]), aweights=torch.tensor([0.5, 1, 2, 0.1])),
     lambda a: np.cov(a, fweights=[1, 0, 2, 3], aweights=[0.5, 1, 2, 0.1]), [(3, 4)]),
    ("corrcoef", lambda t: t.corrcoef(), np.corrcoef, [(3, 4), (5,)]),
    ("combinations", lambda t: torch.combinations(t, 3), lambda a: np.array(list(itertools.combinations(a, 3))), [(4,), (3,)]),
    ("combinations again", lambda t: torch.combinations(t, 2, True),
     lambda a: np.array(list(itertools.combinations_with_replacement(a, 2))), [(4,), (1,)]),
    ("narrow_copy", lambda t: t.narrow_copy(0, 1, 2), lambda a: a[1:3], [(4,), (3, 2)]),
    ("unflatten", lambda t: t.unflatten(0, (2, -1)), lambda a: a.reshape(2, -1, *a.shape[1:]), [(4,), (6, 2)]),
    ("nanmean", lambda t: torch.nanmean(t, 0), lambda a: np.nanmean(a, 0), [(4,), (3, 2)]),
]  # fmt: skip


@pytest.mark.parametrize("name,f,ref,shapes", CASES, ids=[c[0] for c in CASES])
def test_values(name, f, ref, shapes):
    for shape in shapes:
        a = array(*shape)
        want = ref(a)
        for _, t in layouts(a):
            same(f(t), want, rtol=2e-5, atol=2e-5)


DIFFERENTIABLE = [c for c in CASES if "combinations" not in c[0]] + CASES[-5:-4]


@pytest.mark.parametrize("name,f,ref,shapes", DIFFERENTIABLE, ids=[c[0] for c in DIFFERENTIABLE])
def test_gradients(name, f, ref, shapes):
    """Along a random direction, once and twice, against central differences of NumPy's answer."""
    shape = next(s for s in shapes if s)
    a, v = array(*shape, **F64), array(*shape, **F64)
    flat = lambda r: np.concatenate([np.ravel(x) for x in (r if isinstance(r, (tuple, list)) else [r])])
    w = rng.normal(size=flat(ref(a)).shape)
    t = torch.from_numpy(a).requires_grad_()

    def loss(t):
        out = f(t)
        out = torch.cat([o.reshape(-1) for o in (out if isinstance(out, (tuple, list)) else [out])])
        return (out * torch.from_numpy(w)).sum()

    (g,) = torch.autograd.grad(loss(t), t, create_graph=True)
    eps = 1e-6
    want = (flat(ref(a + eps * v)) - flat(ref(a - eps * v))) @ w / (2 * eps)
    np.testing.assert_allclose((g * torch.from_numpy(v)).sum().item(), want, rtol=1e-4, atol=1e-5)
    if g.requires_grad:
        (h,) = torch.autograd.grad((g * torch.from_numpy(v)).sum(), t)
        one = lambda x: torch.autograd.grad(loss(y := torch.from_numpy(x).requires_grad_()), y)[0]
        num = (one(a + 1e-5 * v) - one(a - 1e-5 * v)) / 2e-5
        np.testing.assert_allclose(h.numpy(), num.numpy(), rtol=1e-3, atol=1e-4)


def test_cumulative_trapezoid():
    from scipy import integrate

    for shape, dim in [((5,), 0), ((3, 4), 0), ((3, 4), -1)]:
        a = array(*shape)
        n = shape[dim]
        x = np.cumsum(rng.uniform(0.1, 1, n)).astype("float32")
        same(
            torch.cumulative_trapezoid(torch.from_numpy(a), dim=dim),
            integrate.cumulative_trapezoid(a, axis=dim),
            rtol=1e-5,
            atol=1e-5,
        )
        same(torch.cumulative_trapezoid(torch.from_numpy(a), torch.from_numpy(x), dim=dim), integrate.cumulative_trapezoid(a, x, axis=dim), rtol=1e-5, atol=1e-5)  # fmt: skip


def test_block_diag():
    from scipy import linalg

    parts = [array(2, 3), array(1, 1), array(0, 2), array(2, 1)]
    same(torch.block_diag(*map(torch.from_numpy, parts)), linalg.block_diag(*parts))
    same(torch.block_diag(torch.tensor(2), torch.tensor([1.5, 2])), [[2, 0, 0], [0, 1.5, 2]])
    assert torch.block_diag().shape == (1, 0)
    a = torch.ones(2, 2, requires_grad=True)
    b = torch.ones(3, requires_grad=True)
    (torch.block_diag(a, b) * torch.arange(15.0).reshape(3, 5)).sum().backward()
    assert a.grad.tolist() == [[0, 1], [5, 6]] and b.grad.tolist() == [12, 13, 14]


@pytest.mark.parametrize("offset", [-3, -1, 0, 2])
def test_triangle_indices(offset):
    for h, w in [(3, 4), (4, 3), (0, 2), (2, 0)]:
        same(torch.tril_indices(h, w, offset), np.stack(np.tril_indices(h, offset, w)))
        same(torch.triu_indices(h, w, offset, dtype=torch.int32), np.stack(np.triu_indices(h, offset, w)))


def test_diag_embed_places():
    a = array(2, 3)
    y = torch.diag_embed(torch.from_numpy(a), 1, 0, 2)
    assert y.shape == (4, 2, 4)
    same(torch.diagonal(y, 1, 0, 2), a)
    assert np.count_nonzero(y.numpy()) == 6


def test_triangles_in_place():
    a = array(3, 4)
    for f, ref in (("tril_", np.tril), ("triu_", np.triu)):
        t = torch.from_numpy(a.copy())
        assert getattr(t, f)(1) is t
        same(t, ref(a, 1))
        view = torch.from_numpy(np.repeat(a, 2, axis=-1))
        getattr(view[:, ::2], f)()
        same(view[:, ::2], ref(a))
        same(view[:, 1::2], a)


@pytest.mark.parametrize(
    "shape,wrap", [((3, 4), False), ((7, 3), True), ((7, 3), False), ((3, 3, 3), False), ((9, 2), True)]
)
def test_fill_diagonal(shape, wrap):
    a = array(*shape)
    want = a.copy()
    np.fill_diagonal(want, 7, wrap=wrap)
    for _, t in layouts(a):
        assert t.fill_diagonal_(7, wrap) is t
        same(t, want)
    x = torch.from_numpy(a).requires_grad_()
    (x * 1).fill_diagonal_(7, wrap).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), (want != 7).astype(a.dtype))


def test_sections_are_views():
    x = torch.arange(12.0).reshape(3, 4)
    for i, part in enumerate((x.tensor_split(2, 1)[1], x.hsplit(2)[1], x.vsplit(3)[0], x.unsafe_chunk(2)[0])):
        part.fill_(100 + i)
        assert (x == 100 + i).sum() == part.numel()
    leaf = torch.ones(4, requires_grad=True)
    a, _ = (leaf * 2).tensor_split(2)
    with pytest.raises(RuntimeError, match="multiple views"):
        a.mul_(2)
    a, b = (leaf * 2).unsafe_chunk(2)
    a.mul_(3)
    (a.sum() + b.sum()).backward()
    assert leaf.grad.tolist() == [6, 6, 2, 2]


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_integers(dtype):
    a, b = np.array([12, 0, 7, 9], dtype), np.array([18, 5, 3, 6], dtype)
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    same(torch.lcm(x, y), np.lcm(a, b))
    same(x.clone().lcm_(y), np.lcm(a, b))
    same(torch.float_power(x, 0.5), np.float_power(a, 0.5))
    assert torch.float_power(2, x).dtype == torch.float64
    same(torch.ldexp(torch.tensor([1.5, -2.0, 0.25, 3]), x), np.ldexp([1.5, -2.0, 0.25, 3], a))
    assert torch.diff(torch.tensor([True, False, False])).tolist() == [True, False]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_frexp(dtype):
    a = np.array([0.0, -0.0, 1, -1, 0.75, 3e-40, -5e-324, 1e30, np.inf, -np.inf, np.nan, 2**-126], dtype)
    m, e = torch.frexp(torch.from_numpy(a))
    want = np.frexp(a)
    np.testing.assert_array_equal(m.numpy(), want[0])
    fine = np.isfinite(a)
    np.testing.assert_array_equal(e.numpy()[fine], want[1][fine])
    assert e.dtype == torch.int32
    r = torch.frexp(torch.tensor([10.0]))
    assert r.mantissa.item() == 0.625 and r.exponent.item() == 4
    x = torch.tensor([3.0, -20.0], requires_grad=True)
    torch.frexp(x).mantissa.sum().backward()
    assert x.grad.tolist() == [1 / 4, 1 / 32]


ERRORS = [
    (lambda: torch.tensor_split(torch.tensor(1), 2), RuntimeError, "0 dims"),
    (lambda: torch.arange(4).tensor_split(0), RuntimeError, "larger than 0"),
    (lambda: torch.arange(4).tensor_split(torch.tensor([1.0])), RuntimeError, "dtype of long"),
    (lambda: torch.arange(5).hsplit(2), RuntimeError, "not divisible"),
    (lambda: torch.arange(5).hsplit(0), RuntimeError, "not divisible"),
    (lambda: torch.arange(5).vsplit(1), RuntimeError, "at least 2"),
    (lambda: torch.diag_embed(torch.ones(2), 0, 1, 1), RuntimeError, "identical"),
    (lambda: torch.diag_embed(torch.ones(2), 0, 1, 3), IndexError, "out of range"),
    (lambda: torch.diag_embed(torch.ones(2), 2**62), RuntimeError, ""),
    (lambda: torch.diag(torch.ones(1, 1, 1)), RuntimeError, "1D or 2D"),
    (lambda: torch.rot90(torch.ones(2)), RuntimeError, "total dims >= 2"),
    (lambda: torch.rot90(torch.ones(2, 2), 1, [0]), RuntimeError, "rotation dims == 2"),
    (lambda: torch.rot90(torch.ones(2, 2), 1, [0, -2]), RuntimeError, "different"),
    (lambda: torch.diff(torch.tensor(1)), RuntimeError, "at least one-dimensional"),
    (lambda: torch.diff(torch.ones(2), -1), RuntimeError, "non-negative"),
    (lambda: torch.diff(torch.ones(2), prepend=torch.tensor(1.0)), RuntimeError, "same dimension"),
    (lambda: torch.gradient(torch.ones(1)), RuntimeError, "edge_order"),
    (lambda: torch.gradient(torch.ones(5), edge_order=3), RuntimeError, "edge_order"),
    (lambda: torch.gradient(torch.ones(4, 4), spacing=[1.0]), RuntimeError, "spacing"),
    (lambda: torch.gradient(torch.ones(4, 4), dim=(0, 0)), RuntimeError, "multiple times"),
    (lambda: torch.gradient(torch.ones(4, 4), dim=2), IndexError, "out of range"),
    (lambda: torch.trapezoid(torch.ones(3), torch.ones(2)), RuntimeError, "sample point"),
    (lambda: torch.trapezoid(torch.ones(3) > 0), RuntimeError, "bool"),
    (lambda: torch.cov(torch.ones(2, 2, 2)), RuntimeError, "two or fewer"),
    (lambda: torch.cov(torch.ones(2, 3), fweights=torch.ones(3)), RuntimeError, "integral"),
    (lambda: torch.cov(torch.ones(2, 3), fweights=torch.tensor([1, -1, 2])), RuntimeError, "negative"),
    (lambda: torch.cov(torch.ones(2, 3), fweights=torch.tensor([0, 0, 0])), RuntimeError, "zero"),
    (lambda: torch.combinations(torch.ones(2, 2)), RuntimeError, "1D"),
    (lambda: torch.combinations(torch.ones(2), -1), RuntimeError, "non-negative"),
    (lambda: torch.block_diag(torch.ones(1, 1, 1)), RuntimeError, "2 or fewer"),
    (lambda: torch.block_diag(3), TypeError, ""),
    (lambda: torch.cartesian_prod(torch.ones(1, 1)), RuntimeError, "1D"),
    (lambda: torch.meshgrid(), RuntimeError, "non-empty"),
    (lambda: torch.column_stack([]), RuntimeError, "non-empty"),
    (lambda: torch.ones(3).fill_diagonal_(1), RuntimeError, "larger than 1"),
    (lambda: torch.ones(3, 2, 3).fill_diagonal_(1), RuntimeError, "equal length"),
    (lambda: torch.tril_indices(-1, 2), RuntimeError, "non-negative"),
    (lambda: torch.ones(2).float_power_(2), RuntimeError, "float_power_"),
    (lambda: torch.frexp(torch.arange(2)), RuntimeError, "floating"),
    (lambda: torch.isclose(torch.ones(2), 1), TypeError, ""),
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(ERRORS)))
def test_errors(i):
    call, kind, text = ERRORS[i]
    with pytest.raises(kind, match=text or None):
        call()


def test_too_many_combinations_are_refused():
    with pytest.raises(RuntimeError):
        torch.combinations(torch.arange(1000), 500)


def test_cov_warns_about_missing_freedom():
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert torch.isnan(torch.cov(torch.tensor([1.0])))
