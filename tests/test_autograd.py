"""The engine: what backward computes, when it refuses, hooks, modes, and graphs of a million nodes."""

import gc
import threading
import weakref

import numpy as np
import pytest
from subject import NAME, nn, torch


def leaf(*values, dtype=None):
    return torch.tensor(values, dtype=dtype or torch.float64, requires_grad=True)


# --- backward ---------------------------------------------------------------------------------------------------------
def test_gradients_accumulate():
    x = leaf(1.0, 2.0)
    (x * 3).sum().backward()
    (x * 4).sum().backward()
    assert x.grad.tolist() == [7, 7]
    first = x.grad
    (x * 1).sum().backward()
    assert x.grad is first
    assert first.tolist() == [8, 8]


def test_one_input_used_many_times():
    x = leaf(3.0)
    y = x * x + x * 2 + x
    y.sum().backward()
    assert x.grad.tolist() == [9]


def test_diamond():
    x = leaf(2.0)
    a = x * x
    b = a * 3
    c = a * a
    (b + c).backward(torch.ones(1, dtype=torch.float64))
    assert x.grad.tolist() == [3 * 4 + 4 * 8]


def test_backward_wants_a_scalar_or_a_gradient():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        (x * 2).backward()
    (x * 2).backward(torch.tensor([1.0, 10.0], dtype=torch.float64))
    assert x.grad.tolist() == [2, 20]
    with pytest.raises(RuntimeError, match=r"(?i)shape"):
        (x * 2).backward(torch.ones(3, dtype=torch.float64))


def test_backward_without_a_graph():
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        torch.ones(1).backward()


def test_backward_twice_needs_retain_graph():
    x = leaf(2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [8]
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        y.backward()


def test_a_graph_that_saved_nothing_may_be_walked_twice():
    x = leaf(2.0)
    y = (x + x).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [4]


def test_broadcasting_sums_the_gradient():
    a = torch.ones(3, 1, requires_grad=True)
    b = torch.ones(4, requires_grad=True)
    c = torch.ones((), requires_grad=True)
    (a * b * c).sum().backward()
    assert a.grad.shape == (3, 1) and a.grad.flatten().tolist() == [4] * 3
    assert b.grad.tolist() == [3] * 4
    assert c.grad.item() == 12


def test_mixed_dtypes_cast_the_gradient_back():
    a = torch.ones(2, dtype=torch.float32, requires_grad=True)
    b = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (a * b).sum().backward()
    assert a.grad.dtype == torch.float32 and b.grad.dtype == torch.float64


def test_only_floating_tensors_require_grad():
    with pytest.raises(RuntimeError, match=r"(?i)floating point"):
        torch.ones(2, dtype=torch.int64, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"(?i)floating point"):
        torch.arange(2).requires_grad_()


def test_retain_grad():
    x = leaf(2.0)
    y = x * 3
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [12]
    assert x.grad.tolist() == [36]


def test_inputs_of_backward():
    x, y = leaf(1.0), leaf(2.0)
    (x * y).sum().backward(inputs=[x])
    assert x.grad.tolist() == [2] and y.grad is None


def test_unused_integer_paths():
    x = leaf(1.0, 2.0, 3.0)
    i = x.argmax()
    assert not i.requires_grad
    x[i].backward()
    assert x.grad.tolist() == [0, 0, 1]


# --- autograd.grad ----------------------------------------------------------------------------------------------------
def test_grad_returns_and_stores_nothing():
    x, y = leaf(3.0), leaf(4.0)
    gx, gy = torch.autograd.grad((x * x * y).sum(), [x, y])
    assert (gx.tolist(), gy.tolist()) == ([24], [9])
    assert x.grad is None


def test_grad_of_an_intermediate():
    x = leaf(3.0)
    y = x * 2
    (gy,) = torch.autograd.grad((y * y).sum(), y)
    assert gy.tolist() == [12]


def test_grad_of_an_unused_input():
    x, y = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        torch.autograd.grad(x.sum(), [x, y])
    gx, gy = torch.autograd.grad(x.sum(), [x, y], allow_unused=True)
    assert gy is None and gx.tolist() == [1]
    _, gy = torch.autograd.grad(x.sum(), [x, y], materialize_grads=True)
    assert gy.tolist() == [0]


def test_grad_outputs():
    x = leaf(1.0, 2.0)
    (g,) = torch.autograd.grad(x * x, x, grad_outputs=torch.tensor([1.0, 10.0], dtype=torch.float64))
    assert g.tolist() == [2, 40]


NOTHING_SAVED = {
    "add": lambda x: x + x,
    "sub": lambda x: x - 3,
    "neg": lambda x: -x,
    "slice": lambda x: x[:2],
    "mean": lambda x: x.mean(),
    "cat": lambda x: torch.cat([x, x]),
    "fill": lambda x: x.clone().fill_(1) + x,
    "to": lambda x: x.double(),
}
SOMETHING_SAVED = {
    "mul": lambda x: x * x,
    "scale": lambda x: x * 2,
    "exp": lambda x: x.exp(),
    "where": lambda x: torch.where(torch.tensor([True, False, True]), x, x),
    "slices": lambda x: x.clone()[:2].add_(1)._base,
}


@pytest.mark.parametrize("f", NOTHING_SAVED.values(), ids=NOTHING_SAVED)
def test_a_graph_that_saved_nothing_runs_again(f):
    x = torch.ones(3, requires_grad=True)
    y = f(x).sum()
    y.backward()
    once = x.grad.clone()
    y.backward()
    assert x.grad.tolist() == (2 * once).tolist()


@pytest.mark.parametrize("f", SOMETHING_SAVED.values(), ids=SOMETHING_SAVED)
def test_a_graph_that_saved_something_does_not(f):
    x = torch.ones(3, requires_grad=True)
    y = f(x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


def test_create_graph_to_the_fourth_derivative():
    x = leaf(2.0)
    y = (x**5).sum()
    for expected in (5 * 2**4, 20 * 2**3, 60 * 2**2, 120 * 2):
        (y,) = torch.autograd.grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(expected)


def test_hessian_vector_product():
    x = leaf(1.0, -2.0, 0.5)
    v = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    (g,) = torch.autograd.grad((x.exp() * x.sum()).sum(), x, create_graph=True)
    (hv,) = torch.autograd.grad((g * v).sum(), x)
    a, b = x.detach().numpy(), v.numpy()
    e, s = np.exp(a), a.sum()
    hessian = np.diag(e * s) + e[:, None] + e[None, :]
    np.testing.assert_allclose(hv.numpy(), hessian @ b, rtol=1e-12)


def test_gradient_penalty_trains():
    """A loss that contains a gradient: second order through a layer."""
    layer = nn.Linear(3, 1).double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    out = layer(x).tanh().sum()
    (g,) = torch.autograd.grad(out, x, create_graph=True)
    ((g.norm(dim=1) - 1) ** 2).mean().backward()
    assert layer.weight.grad.abs().sum().item() > 0


# --- modes ------------------------------------------------------------------------------------------------------------
def test_no_grad_and_enable_grad():
    x = leaf(1.0)
    with torch.no_grad():
        y = x * 2
        with torch.enable_grad():
            z = x * 2
        assert not torch.is_grad_enabled()
    assert not y.requires_grad and y.grad_fn is None
    assert z.requires_grad
    with torch.set_grad_enabled(False):
        assert not (x * 2).requires_grad

    @torch.no_grad()
    def f(v):
        return v * 2

    assert not f(x).requires_grad
    assert torch.is_grad_enabled()


def test_modes_end_with_an_exception():
    with pytest.raises(ZeroDivisionError), torch.no_grad():
        1 / 0
    assert torch.is_grad_enabled()


def test_modes_belong_to_their_thread():
    seen = []
    with torch.no_grad():
        thread = threading.Thread(target=lambda: seen.append(torch.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_detach_shares_memory_and_cuts():
    x = leaf(1.0, 2.0)
    y = x * 2
    d = y.detach()
    assert d.data_ptr() == y.data_ptr() and not d.requires_grad and d.grad_fn is None
    ((y * d).sum()).backward()
    assert x.grad.tolist() == [4, 8]
    z = x * 2
    z.detach_()
    assert z.is_leaf and not z.requires_grad


def test_requires_grad_is_only_for_leaves():
    y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="can only change requires_grad flags of leaf variables"):
        y.requires_grad = False


def test_grad_must_fit():
    x = leaf(1.0, 2.0)
    x.grad = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(RuntimeError):
        x.grad = torch.zeros(3, dtype=torch.float64)
    with pytest.raises((RuntimeError, TypeError)):
        x.grad = 3.0
    x.grad = None
    assert x.grad is None


# --- stale and forbidden writes ---------------------------------------------------------------------------------------
STALE = "one of the variables needed for gradient computation has been modified by an inplace operation"


@pytest.mark.parametrize(
    "forward, harm",
    [
        (lambda x: (x * 1, lambda y: y * y), "input"),
        (lambda x: (x * 1, lambda y: y.exp()), "output"),
        (lambda x: (x * 1, lambda y: y.sigmoid()), "output"),
        (lambda x: (x.reshape(1, 2) * 1, lambda y: y @ y.t()), "input"),
    ],
)
def test_stale_saved_tensor(strict, forward, harm):
    x = leaf(1.0, 2.0)
    y, f = forward(x)
    z = f(y)
    (y if harm == "input" else z).add_(1) if harm == "input" else z.mul_(2)
    with pytest.raises(RuntimeError, match=STALE):
        z.sum().backward()


def test_writing_what_nobody_saved_is_fine():
    x = leaf(1.0, 2.0)
    y = x * 1
    z = y + 1
    y.add_(1)
    (z + y).sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_writing_through_a_view_is_noticed(strict):
    x = leaf(1.0, 2.0)
    y = x * 1
    z = y * y
    y[0] = 5
    with pytest.raises(RuntimeError, match=STALE):
        z.sum().backward()


def test_leaf_in_place():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place operation"):
        x.add_(1)
    with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad is being used in an in-place"):
        x[0] = 1
    with torch.no_grad():
        x.add_(1)
    assert x.tolist() == [2]


def test_version_counter():
    x = torch.zeros(3)
    before = x._version
    x.add_(1)
    x[1] = 2
    x.view(3)[0] = 1
    assert x._version == before + 3
    assert x.detach()._version == x._version


# --- hooks ------------------------------------------------------------------------------------------------------------
def test_tensor_hooks_see_and_change():
    x = leaf(1.0, 2.0)
    seen = []
    y = x * 2
    handle = y.register_hook(lambda g: seen.append(g.tolist()))
    x.register_hook(lambda g: g * 10)
    (y * 3).sum().backward(retain_graph=True)
    assert seen == [[3, 3]] and x.grad.tolist() == [60, 60]
    handle.remove()
    x.grad = None
    (y * 3).sum().backward()
    assert len(seen) == 1


def test_hooks_run_once_on_the_sum():
    x = leaf(1.0)
    seen = []
    y = x * 2
    y.register_hook(lambda g: seen.append(g.item()))
    (y * 3 + y * 4).sum().backward()
    assert seen == [7]


def test_hook_of_a_tensor_without_grad():
    with pytest.raises(RuntimeError):
        torch.ones(1).register_hook(lambda g: g)


def test_post_accumulate_hook():
    x = leaf(1.0)
    seen = []
    x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.item()))
    (x * 5).sum().backward()
    assert seen == [5]


def test_node_hooks():
    x = leaf(1.0, 2.0)
    y = (x * 2).sum()
    seen = []
    y.grad_fn.register_prehook(lambda grads: seen.append(("pre", grads[0].item())))
    y.grad_fn.register_hook(lambda ins, outs: seen.append(("post", outs[0].item())))
    y.backward()
    assert seen == [("pre", 1), ("post", 1)]


def test_an_exception_in_a_hook_propagates():
    x = leaf(1.0)
    y = x * 2

    def bad(g):
        raise KeyError("from the hook")

    y.register_hook(bad)
    with pytest.raises(KeyError, match="from the hook"):
        y.sum().backward()
    assert x.grad is None
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2]


def test_backward_inside_a_hook():
    x, y = leaf(1.0), leaf(2.0)

    def inner(g):
        with torch.enable_grad():
            (y * y).sum().backward()

    z = x * 3
    z.register_hook(inner)
    z.sum().backward()
    assert y.grad.tolist() == [4] and x.grad.tolist() == [3]


# --- Function ---------------------------------------------------------------------------------------------------------
class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(x)
        ctx.scale = scale
        return x * x * x * scale

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        assert ctx.needs_input_grad == (True, False)
        return 3 * x * x * g * ctx.scale, None


def test_function():
    x = leaf(2.0)
    y = Cube.apply(x, 2.0)
    assert y.item() == 16 and "Cube" in type(y.grad_fn).__name__ + repr(y.grad_fn)
    y.sum().backward()
    assert x.grad.tolist() == [24]


def test_function_twice_differentiable():
    x = leaf(2.0)
    (g,) = torch.autograd.grad(Cube.apply(x, 1.0).sum(), x, create_graph=True)
    (gg,) = torch.autograd.grad(g.sum(), x)
    assert gg.tolist() == [12]


def test_exception_in_function_backward():
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            raise LookupError("in backward")

    with pytest.raises(LookupError, match="in backward"):
        Bad.apply(leaf(1.0)).sum().backward()


# --- identity and lifetime --------------------------------------------------------------------------------------------
def test_objects_keep_their_identity():
    x = leaf(1.0)
    (x * 2).sum().backward()
    assert x.grad is x.grad
    y = x * 2
    assert y.grad_fn is not None
    assert y.grad_fn.next_functions[0][0].variable is x


def test_graphs_die_with_their_last_tensor():
    x = leaf(1.0)
    kept = torch.ones(1, dtype=torch.float64)
    ref = weakref.ref(kept)
    y = x * kept
    del kept
    gc.collect()
    assert y.sum().item() == 1
    del y
    gc.collect()
    assert ref() is None


@pytest.mark.pyrite  # PyTorch never frees this one
def test_cycles_through_hooks_are_collected():
    class Owner:
        pass

    x = leaf(1.0)
    y = x * 2
    owner = Owner()
    owner.tensor = y
    y.register_hook(lambda g, o=owner: None)
    ref = weakref.ref(owner)
    del owner, y
    gc.collect()
    assert ref() is None


# --- a million operations ---------------------------------------------------------------------------------------------
def on_a_stack_of(mebibytes, work):
    outcome = []

    def run():
        try:
            outcome.append(work())
        except BaseException as e:
            outcome.append(e)

    before = threading.stack_size(mebibytes << 20)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


@pytest.mark.parametrize("retain", [False, True])
def test_a_chain_of_a_million_operations(retain):
    """Builds, runs backward and is dropped on an 8 MB stack: nothing may recurse along the graph."""

    def work():
        x = leaf(1.0, dtype=torch.float32)
        y = x
        for _ in range(1_000_000):
            y = y + x
        y.backward(torch.ones(1), retain_graph=retain)
        return x.grad.item()

    assert on_a_stack_of(8, work) == 1_000_001


def test_a_chain_that_is_dropped_without_backward():
    def work():
        x = leaf(1.0)
        for _ in range(1_000_000 if NAME == "pyrite" else 100_000):
            x = x * 1.0
        del x
        return True

    assert on_a_stack_of(8, work)


def test_gradcheck():
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: v.tanh() * v.sum(), [x])
    assert torch.autograd.gradgradcheck(lambda v: v.tanh() * v.sum(), [x])

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 3

    with pytest.raises(RuntimeError):
        torch.autograd.gradcheck(Wrong.apply, [x])
    assert torch.autograd.gradcheck(Wrong.apply, [x], raise_exception=False) is False
