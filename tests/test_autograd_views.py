"""Views and in-place writes: random programs against a twin that copies instead of writing, and against finite
differences; what is saved before a write; what is forbidden and why."""

import gc
import pathlib
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from subject import IS_PYRITE, torch

F64 = torch.float64

# --- random programs --------------------------------------------------------------------------------------------------
# A program works on a base of shape (3, 4) with a history. Tensors are views of the base, named by how they were made;
# a write goes to one of them. The twin holds the base's value as an immutable tensor: a view is computed from it anew
# whenever it is read, a write makes a new base by `where` over an index map.
SHAPE = (3, 4)

VIEWS = {
    "row": lambda t: t[1] if t.dim() and t.shape[0] > 1 else t,
    "first": lambda t: t[0] if t.dim() else t,
    "last": lambda t: t[..., -1] if t.dim() else t,
    "slice": lambda t: t[1:] if t.dim() and t.shape[0] > 1 else t,
    "step": lambda t: t[::2] if t.dim() else t,
    "narrow": lambda t: t.narrow(-1, 0, max(1, t.shape[-1] - 1)) if t.dim() else t,
    "t": lambda t: t.transpose(0, -1) if t.dim() > 1 else t,
    "unsqueeze": lambda t: t.unsqueeze(0),
    "squeeze": lambda t: t.squeeze(),
    "diagonal": lambda t: t.diagonal() if t.dim() == 2 else t,
    "flatten": lambda t: t.view(-1) if t.is_contiguous() else t,
    "all": lambda t: t[...],
}

# (write into the view, what the view's values become), given a source tensor that broadcasts.
WRITES = {
    "mul_": (lambda v, s: v.mul_(s), lambda v, s: v * s),
    "add_": (lambda v, s: v.add_(s, alpha=2), lambda v, s: v + 2 * s),
    "copy_": (lambda v, s: v.copy_(s), lambda v, s: s.expand_as(v)),
    "fill_": (lambda v, s: v.fill_(0.5), lambda v, s: torch.full_like(v, 0.5)),
    "zero_": (lambda v, s: v.zero_(), lambda v, s: torch.zeros_like(v)),
    "sin_": (lambda v, s: v.sin_(), lambda v, s: v.sin()),
    "tanh_": (lambda v, s: v.tanh_(), lambda v, s: v.tanh()),
    "setitem": (lambda v, s: v.__setitem__(..., s), lambda v, s: s.expand_as(v)),
    "masked_fill_": (
        lambda v, s: v.masked_fill_(v.detach() > 0.3, 0.25),
        lambda v, s: v.masked_fill(v.detach() > 0.3, 0.25),
    ),
    "iadd": (lambda v, s: v.__iadd__(s), lambda v, s: v + s),
    "square": (lambda v, s: v.mul_(v.clone()), lambda v, s: v * v),
    "index_put_": (
        lambda v, s: v.index_put_((torch.tensor([0]),), s) if v.dim() else v.copy_(s),
        lambda v, s: v.index_put((torch.tensor([0]),), s) if v.dim() else s.expand_as(v),
    ),
    "clamp_": (lambda v, s: v.clamp_(-0.4, 0.6), lambda v, s: v.clamp(-0.4, 0.6)),
}

view_path = st.lists(st.sampled_from(sorted(VIEWS)), max_size=3)
step = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 4), st.sampled_from(sorted(WRITES)), st.integers(0, 2)),
    st.tuples(st.just("view"), st.integers(0, 4), st.sampled_from(sorted(VIEWS))),
    # A read: saves the view's present value in a graph that is run only at the end.
    st.tuples(st.just("read"), st.integers(0, 4), st.sampled_from(["square", "exp", "mul_other", "tanh"])),
)
programs = st.lists(step, min_size=2, max_size=9)

READS = {
    "square": lambda v, s: (v * v).sum(),
    "exp": lambda v, s: (v.exp() * 0.3).sum(),
    "mul_other": lambda v, s: (v * s).sum(),
    "tanh": lambda v, s: v.tanh().sum(),
}


def sources(w):
    """Three scalars (they broadcast anywhere) with and without a history."""
    return [w[0] * 0.7, torch.tensor(0.9, dtype=F64), w[1].exp()]


def written(program, x, w):
    """Runs the program with views and in-place writes."""
    base = x * 1
    tensors, reads = [base], []
    src = sources(w)
    for op in program:
        t = tensors[op[1] % len(tensors)]
        if op[0] == "view":
            tensors.append(VIEWS[op[2]](t))
        elif op[0] == "read":
            reads.append(READS[op[2]](t, src[0]))
        else:
            WRITES[op[2]][0](t, src[op[3]])
    return tensors, reads


def copied(program, x, w):
    """The same without a single write."""
    base = x * 1
    count = int(np.prod(SHAPE))
    # Which elements of the base a tensor shows: the views of a tensor of positions.
    positions = [torch.arange(count).reshape(SHAPE)]
    reads = []
    src = sources(w)

    def show(base, where):
        return base.reshape(-1)[where.reshape(-1)].reshape(where.shape)

    for op in program:
        where = positions[op[1] % len(positions)]
        if op[0] == "view":
            positions.append(VIEWS[op[2]](where))
        elif op[0] == "read":
            reads.append(READS[op[2]](show(base, where), src[0]))
        else:
            new = WRITES[op[2]][1](show(base, where), src[op[3]])
            flat = base.reshape(-1).index_put((where.reshape(-1),), new.reshape(-1))
            base = flat.reshape(SHAPE)
    return [show(base, p) for p in positions], reads


def outcome(run, program, seed, grads=True):
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.uniform(-1, 1, SHAPE), requires_grad=grads)
    w = torch.tensor(rng.uniform(-1, 1, 2), requires_grad=grads)
    tensors, reads = run(program, x, w)
    total = sum(((t * (i + 1)).sin().sum() for i, t in enumerate(tensors)), torch.zeros((), dtype=F64))
    total = total + sum(reads, torch.zeros((), dtype=F64))
    return x, w, tensors, total


@pytest.mark.pyrite
@given(programs, st.integers(0, 3))
def test_random_programs_equal_their_twin(program, seed):
    x, w, tensors, total = outcome(written, program, seed)
    x2, w2, tensors2, total2 = outcome(copied, program, seed)
    for a, b in zip(tensors, tensors2):
        assert a.shape == b.shape and np.allclose(a.detach().numpy(), b.detach().numpy())
    got = torch.autograd.grad(total, (x, w), allow_unused=True, materialize_grads=True, create_graph=True)
    want = torch.autograd.grad(total2, (x2, w2), allow_unused=True, materialize_grads=True, create_graph=True)
    for a, b in zip(got, want):
        assert np.allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-10)
    # And once more: the graph of the gradient saved values, too.
    if got[0].requires_grad and want[0].requires_grad:
        (a,) = torch.autograd.grad((got[0] * got[0]).sum(), x, allow_unused=True, materialize_grads=True)
        (b,) = torch.autograd.grad((want[0] * want[0]).sum(), x2, allow_unused=True, materialize_grads=True)
        assert np.allclose(a.numpy(), b.numpy(), atol=1e-8)


@pytest.mark.pyrite
@given(programs, st.integers(0, 3))
def test_random_programs_against_finite_differences(program, seed):
    # Steps: not differentiable where they jump.
    program = [op for op in program if not (op[0] == "write" and op[2] in ("masked_fill_", "clamp_"))]
    x, _, _, total = outcome(written, program, seed)
    (g,) = torch.autograd.grad(total, x, allow_unused=True, materialize_grads=True)
    rng = np.random.default_rng(seed + 100)
    direction = rng.normal(size=SHAPE)

    def value(eps):
        rng = np.random.default_rng(seed)
        a = torch.tensor(rng.uniform(-1, 1, SHAPE) + eps * direction)
        w = torch.tensor(rng.uniform(-1, 1, 2))
        tensors, reads = written(program, a, w)
        total = sum(((t * (i + 1)).sin().sum() for i, t in enumerate(tensors)), torch.zeros((), dtype=F64))
        return float(total + sum(reads, torch.zeros((), dtype=F64)))

    slope = (value(1e-6) - value(-1e-6)) / 2e-6
    assert np.isclose(slope, float((g.numpy() * direction).sum()), rtol=1e-5, atol=1e-5)


# --- writes to what a graph has saved ---------------------------------------------------------------------------------
def leaf(*values):
    return torch.tensor(values, dtype=F64, requires_grad=True)


HARMS = {
    "method": lambda y: y.zero_(),
    "number": lambda y: y.mul_(7),
    "view": lambda y: y[:1].fill_(9),
    "item": lambda y: y.__setitem__(0, 5),
    "mask": lambda y: y.__setitem__(y.detach() > 0, 5),
    "detached": lambda y: y.detach().zero_(),
    "data": lambda y: y.data.zero_(),
    "out=": lambda y: torch.exp(torch.ones(2, dtype=F64), out=y.detach()),
    "random": lambda y: y.detach().uniform_(),
    "copy": lambda y: y.copy_(torch.ones(2, dtype=F64)),
    "two": lambda y: (y.zero_(), y.add_(3)),
    "other view": lambda y: y.view(2, 1).t().neg_(),
    "index_fill": lambda y: y.index_fill_(0, torch.tensor([0]), 2.0),
}
USES = {
    "square": (lambda y: y * y, lambda v: 2 * v),
    "exp": (lambda y: y.exp(), np.exp),
    "div": (lambda y: 1 / y, lambda v: -1 / v**2),
    "matmul": (lambda y: (y.reshape(1, 2) @ y.reshape(2, 1)).sum(), lambda v: 2 * v),
    "slice": (lambda y: y[:1] * y[:1], lambda v: 2 * v * np.array([1, 0])),
    "linear": (lambda y: torch.nn.functional.linear(y, y.reshape(1, 2)), lambda v: 2 * v),
    "expanded": (lambda y: (y.expand(3, 2) * y.expand(3, 2)).sum(0), lambda v: 6 * v),
}


@pytest.mark.pyrite
@pytest.mark.parametrize("use", sorted(USES))
@pytest.mark.parametrize("harm", sorted(HARMS))
def test_overwritten_inputs(use, harm):
    x = leaf(2.0, 3.0)
    y = x * 1
    f, slope = USES[use]
    z = f(y).sum()
    HARMS[harm](y)
    z.backward()
    assert np.allclose(x.grad.numpy(), slope(np.array([2.0, 3.0])))


@pytest.mark.pyrite
@pytest.mark.parametrize("harm", sorted(HARMS))
def test_overwritten_outputs(harm):
    x = leaf(2.0, 3.0)
    z = x.exp()
    HARMS[harm](z.detach() if harm not in ("detached", "data") else z)
    z.sum().backward()
    assert np.allclose(x.grad.numpy(), np.exp([2.0, 3.0]))


@pytest.mark.pyrite
def test_parameters_stepped_between_forward_and_backward():
    x = leaf(2.0, 3.0)
    w = leaf(5.0, 7.0)
    z = (x * w).sum()
    with torch.no_grad():
        w.sub_(1)
    z.backward()
    assert x.grad.tolist() == [5, 7] and w.grad.tolist() == [2, 3]
    v = (x * w).sum()
    torch.optim.SGD([w], lr=1.0).step()
    (g,) = torch.autograd.grad(v, x, create_graph=True)
    assert g.tolist() == [4, 6]
    # The gradient still leads to the parameter.
    assert torch.autograd.grad(g.sum(), w)[0].tolist() == [1, 1]


@pytest.mark.pyrite
def test_every_version_is_kept_once():
    x = leaf(1.0, 2.0)
    a = x * 1
    first = (a * a).sum()
    a.mul_(3)
    second = (a * a).sum()
    a.mul_(5)
    (first + second).backward()
    assert x.grad.tolist() == [2 + 18, 4 + 36]


@pytest.mark.pyrite
def test_a_buffer_that_is_filled_step_by_step():
    """An RNN that keeps its states in one tensor: PyTorch refuses it."""
    rng = np.random.default_rng(0)
    w0 = rng.normal(size=(4, 4)) * 0.5
    for dim in (0, 1):
        w = torch.tensor(w0, requires_grad=True)
        states = torch.zeros(*((6, 2, 4) if dim == 0 else (2, 6, 4)), dtype=F64)
        states.select(dim, 0).fill_(0.3)
        for t in range(5):
            states.select(dim, t + 1).copy_((states.select(dim, t) @ w).tanh())
        states.pow(2).sum().backward()
        v = torch.tensor(w0, requires_grad=True)
        h, total = torch.full((2, 4), 0.3, dtype=F64), 0.0
        for _ in range(5):
            h = (h @ v).tanh()
            total = total + h.pow(2).sum()
        total.backward()
        assert np.allclose(w.grad.numpy(), v.grad.numpy())


def allocated():
    gc.collect()
    return torch.memory_stats()["allocated_bytes.all.current"]


@pytest.mark.pyrite
def test_nothing_is_copied_without_need():
    n = 1 << 20
    x = torch.ones(n, requires_grad=True)
    y = x * 2
    z = y + 1  # saves nothing
    before = allocated()
    y.mul_(3)
    y.add_(1)
    assert allocated() - before < 1000
    z.sum().backward()
    # After backward nobody needs the old values.
    s = (y.detach() * x).sum()
    s.backward()
    before = allocated()
    with torch.no_grad():
        x.mul_(0.5)
    assert allocated() - before < 1000


@pytest.mark.pyrite
def test_only_the_saved_part_is_copied_and_it_dies_with_the_graph():
    n = 1 << 16
    buffer = torch.zeros(16, n)
    w = torch.ones(n, requires_grad=True)
    before = allocated()
    z = (buffer[3] * w).sum()
    buffer[4].add_(1)  # elsewhere
    assert allocated() - before < 1000
    buffer.add_(1)
    assert 4 * n <= allocated() - before < 4 * n + 1000
    z.backward()
    del z
    assert w.grad.sum().item() == 0
    w.grad = None
    assert allocated() - before < 1000


@pytest.mark.pyrite
def test_strict_mode_names_both_lines():
    x = leaf(1.0, 2.0)
    with torch.autograd.set_strict_inplace(True):
        assert torch.autograd.is_strict_inplace()
        y = x * 1
        z = y * y  # saves
        y.zero_()  # overwrites
    assert not torch.autograd.is_strict_inplace()
    with pytest.raises(RuntimeError, match="modified by an inplace operation") as caught:
        z.sum().backward()
    lines = pathlib.Path(__file__).read_text().splitlines()
    saved = next(i for i, line in enumerate(lines, 1) if line.endswith("# saves"))
    wrote = next(i for i, line in enumerate(lines, 1) if line.endswith("# overwrites"))
    text = str(caught.value)
    assert f"test_autograd_views.py:{saved} in" in text and f"test_autograd_views.py:{wrote} in" in text
    assert "saved by MulBackward0" in text and "overwritten by" in text

    @torch.autograd.set_strict_inplace(True)
    def inside():
        return torch.autograd.is_strict_inplace()

    assert inside() and not torch.autograd.is_strict_inplace()


# --- forbidden --------------------------------------------------------------------------------------------------------
def views_of(y):
    with torch.no_grad():
        silent = y[0]
    return {
        "unbind": y.unbind(0)[0],
        "split": y.split(1)[0],
        "chunk": y.chunk(2)[1],
        "no_grad": silent,
        "iter": next(iter(y)),
        "unbind of view": y.t().unbind(0)[0],
        "view of unbind": y.unbind(0)[0].view(-1),
    }


@pytest.mark.parametrize("name", sorted(views_of(torch.ones(2, 2))))
def test_views_that_refuse_recorded_writes(name):
    v = views_of(torch.ones(2, 2, requires_grad=True) * 1)[name]
    with pytest.raises(RuntimeError, match=r"is being modified inplace|modified inplace with grad mode enabled"):
        v.mul_(2)


@pytest.mark.parametrize("name", sorted(views_of(torch.ones(2, 2))))
def test_such_views_may_be_written_to_without_a_graph(name):
    y = torch.ones(2, 2)
    views_of(y)[name].mul_(2)
    assert y.sum().item() == 6
    z = torch.ones(2, 2, requires_grad=True) * 1
    v = views_of(z)[name]
    with torch.no_grad():
        v.mul_(2)
    assert z.detach().sum().item() == 6


@pytest.mark.parametrize(
    "write, words",
    [
        (lambda x: x.add_(1), "a leaf Variable that requires grad is being used in an in-place operation"),
        (lambda x: x[0].add_(1), "a view of a leaf Variable that requires grad is being used in an in-place"),
        (
            lambda x: x.__setitem__(0, 1.0),
            "a (view of a )?leaf Variable that requires grad is being used in an in-place",
        ),
        (
            lambda x: x.detach().expand(3, 2).add_(1),
            "more than one element of the written-to tensor refers to a single",
        ),
        (lambda x: torch.exp(x, out=torch.empty(2)), "don't support automatic differentiation"),
    ],
)
def test_forbidden_writes(write, words):
    with pytest.raises(RuntimeError, match=words):
        write(torch.ones(2, requires_grad=True))


def test_allowed_writes_to_leaves():
    x = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        x.add_(1)
        x[0] = 5
    x.data.mul_(2)
    x.detach().sub_(1)
    assert x.tolist() == [9, 3] and x.is_leaf and x.requires_grad
    (x * x).sum().backward()
    assert x.grad.tolist() == [18, 6]


def test_detach_in_place():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.detach_()
    assert not y.requires_grad and y.is_leaf
    with pytest.raises(RuntimeError, match="Can't detach views in-place"):
        (x * 2)[0].detach_()


@pytest.mark.pyrite
def test_in_place_on_itself():
    x = leaf(2.0, 3.0)
    y = x * 1
    y.mul_(y)
    y.sum().backward()
    assert x.grad.tolist() == [4, 6]


@pytest.mark.pyrite
def test_in_place_with_a_view_of_itself():
    x = leaf(2.0, 3.0, 4.0, 5.0)
    y = x * 1
    y[:2] = y[2:] * 10
    y[2:].mul_(y[:2])
    y.sum().backward()
    # y = (10c, 10d, c * 10c, d * 10d)
    assert x.grad.tolist() == [0, 0, 10 + 20 * 4, 10 + 20 * 5]


def test_reading_a_split_after_its_base_was_written_to():
    """PyTorch forbids it (and warns about it in old versions); Pyrite rebuilds the history."""
    x = torch.ones(4, dtype=F64, requires_grad=True)
    y = x * 1
    a, _ = y.split(2)
    y.mul_(3)
    if not IS_PYRITE:
        with warnings.catch_warnings(), pytest.raises(RuntimeError):
            warnings.simplefilter("error")
            a.sum().backward()
        return
    a.sum().backward()
    assert x.grad.tolist() == [3, 3, 0, 0]
