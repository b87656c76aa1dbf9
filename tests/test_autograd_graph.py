"""Hooks of every kind and their order, nodes and edges as objects, hooks on saved tensors."""

import gc

import pytest
from subject import IS_PYRITE, torch

graph = torch.autograd.graph


def leaf(value=1.0):
    return torch.tensor(value, requires_grad=True)


# --- order ------------------------------------------------------------------------------------------------------------
def test_order_of_hooks():
    log = []

    def note(name, answer=None):
        def hook(*args):
            log.append(name)
            return answer(args[0]) if answer else None

        return hook

    x = leaf()
    y = x * 2
    z = y * 3
    y.register_hook(note("tensor 1", lambda g: g * 10))
    y.grad_fn.register_prehook(note("node pre", lambda g: (g[0] * 100,)))
    y.grad_fn.register_hook(note("node post"))
    y.register_hook(note("tensor 2"))
    y.retain_grad()
    x.register_hook(note("leaf"))
    x.register_post_accumulate_grad_hook(note("accumulated"))
    accumulator = y.grad_fn.next_functions[0][0]
    accumulator.register_prehook(note("leaf pre", lambda g: (g[0] * 7,)))
    accumulator.register_hook(note("leaf post"))
    z.backward()
    assert log == [
        "tensor 1",
        "tensor 2",
        "node pre",
        "node post",
        "leaf",
        "leaf pre",
        "accumulated",
        "leaf post",
    ]
    assert y.grad.item() == 30  # after the tensor hooks, before the node's
    assert x.grad.item() == 3 * 10 * 100 * 2 * 7


def test_hooks_of_inputs_that_are_asked_for():
    x = leaf()
    y = x * 2
    z = y * 3
    log = []
    y.register_hook(lambda g: log.append("tensor") or g * 10)
    y.grad_fn.register_prehook(lambda g: log.append("pre"))
    y.grad_fn.register_hook(lambda gi, go: log.append("post"))
    assert torch.autograd.grad(z, y, retain_graph=True)[0].item() == 30
    assert log == ["tensor"]  # y's node had nothing to do
    x.register_hook(lambda g: log.append("leaf") or g + 1)
    x.register_post_accumulate_grad_hook(lambda p: log.append("accumulated"))
    assert torch.autograd.grad(z, x, retain_graph=True)[0].item() == 61
    assert log == ["tensor", "tensor", "pre", "post", "leaf"]
    z.backward(inputs=[x])
    assert log[5:] == ["tensor", "pre", "post", "leaf", "accumulated"] and x.grad.item() == 61


def test_hooks_where_no_gradient_goes():
    x, w = leaf(), leaf(2.0)
    y = x * w
    x.register_hook(lambda g: pytest.fail("not asked for"))
    assert torch.autograd.grad(y * 1, w)[0].item() == 1


def test_retain_grad_adds_up():
    x = leaf()
    y = x * 2
    y.retain_grad()
    y.retain_grad()
    z = y * 3
    z.backward(retain_graph=True)
    z.backward(retain_graph=True)
    assert y.retains_grad and y.grad.item() == 6
    w = x * 2
    (w * 5).backward(inputs=[w])
    assert w.grad.item() == 5 and x.grad.item() == 12


@pytest.mark.parametrize("where", ["tensor", "leaf", "pre", "post", "accumulated"])
def test_a_hook_that_raises(where):
    def boom(*args):
        raise KeyError("boom")

    x = leaf()
    y = x * 2
    {
        "tensor": lambda: y.register_hook(boom),
        "leaf": lambda: x.register_hook(boom),
        "pre": lambda: y.grad_fn.register_prehook(boom),
        "post": lambda: y.grad_fn.register_hook(boom),
        "accumulated": lambda: x.register_post_accumulate_grad_hook(boom),
    }[where]()
    with pytest.raises(KeyError, match="boom"):
        (y * 1).backward()
    x.grad = None
    (leaf(3.0) * x.detach()).backward()  # the engine goes on working


def test_wrong_answers_of_hooks():
    x = leaf()
    y = x * 2
    h = y.register_hook(lambda g: 3.0)
    with pytest.raises((TypeError, RuntimeError), match="hook"):
        (y * 1).backward()
    h.remove()
    h = y.register_hook(lambda g: torch.ones(2))
    with pytest.raises(RuntimeError, match="has changed the size of value"):
        (y * 1).backward()
    h.remove()
    h = y.grad_fn.register_hook(lambda gi, go: (gi[0], gi[0], gi[0]))
    with pytest.raises(RuntimeError, match="incorrect number of values"):
        (y * 1).backward()
    h.remove()
    (y * 1).backward()
    assert x.grad.item() == 2


def test_handles():
    x = leaf()
    y = x * 2
    hooks = [y.register_hook(lambda g: g * 2), y.grad_fn.register_prehook(lambda g: (g[0] * 3,))]
    with x.register_hook(lambda g: g * 5):
        y.backward(retain_graph=True)
    assert x.grad.item() == 2 * 2 * 3 * 5
    for h in hooks:
        h.remove()
        h.remove()
    x.grad = None
    y.backward()
    assert x.grad.item() == 2


def test_backward_inside_hooks():
    x = leaf()
    w = leaf(4.0)
    y = x * 2

    def hook(g):
        with torch.enable_grad():
            (w * w).backward()

    y.register_hook(hook)
    x.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", torch.zeros_like(p.grad)))
    (y * 1).backward()
    assert w.grad.item() == 8 and x.grad.item() == 0


def test_hooks_of_a_leaf_that_is_gone():
    seen = []
    x = leaf(2.0)
    x.register_hook(lambda g: seen.append(g.item()))
    y = x * 3
    del x
    gc.collect()
    y.backward()
    assert seen == [3]


# --- nodes ------------------------------------------------------------------------------------------------------------
def test_walking_the_graph():
    x, w = leaf(), leaf(2.0)
    y = (x * w).exp()
    node = y.grad_fn
    assert isinstance(node, graph.Node) and node.name() == "ExpBackward0"
    ((mul, nr),) = node.next_functions
    assert mul.name() == "MulBackward0" and nr == 0
    (a, _), (b, _) = mul.next_functions
    assert a.variable is x and b.variable is w
    assert "AccumulateGrad" in a.name() and a.next_functions == ()
    assert mul.next_functions[0][0] is a and y.grad_fn is node
    (none, _) = (x + torch.ones(())).grad_fn.next_functions[1]
    assert none is None


def test_metadata_lives_with_the_node():
    x = leaf()
    y = x * 2
    y.grad_fn.metadata["k"] = [1]
    y.grad_fn.next_functions[0][0].metadata["leaf"] = 2
    gc.collect()
    assert y.grad_fn.metadata == {"k": [1]}
    assert y.grad_fn.next_functions[0][0].metadata == {"leaf": 2}


def test_gradient_edges():
    x = leaf(2.0)
    y = x * 3
    z = y * y
    at_y, at_x = graph.get_gradient_edge(y), graph.get_gradient_edge(x)
    assert at_y.node is y.grad_fn and at_y.output_nr == 0
    del y
    assert torch.autograd.grad(z, at_y, retain_graph=True)[0].item() == 12
    gx, gy = torch.autograd.grad(z, [at_x, at_y], retain_graph=True)
    assert (gx.item(), gy.item()) == (36, 12)
    torch.autograd.backward(z, inputs=[at_x], retain_graph=True)
    assert x.grad.item() == 36
    # As a root.
    (g,) = torch.autograd.grad(at_y, x, torch.tensor(5.0), retain_graph=True)
    assert g.item() == 15
    with pytest.raises(RuntimeError, match="does not require grad"):
        graph.get_gradient_edge(torch.ones(1))


# --- several tensors --------------------------------------------------------------------------------------------------
def test_multi_grad_hook_all():
    a, b, c = leaf(2.0), leaf(3.0), leaf(5.0)
    got = []
    handle = graph.register_multi_grad_hook(
        (a, b, c), lambda gs: got.append([None if g is None else g.item() for g in gs])
    )
    (a * b).backward()
    (a * b * c).backward()
    assert got == [[3, 2, None], [15, 10, 6]]
    x, y = a * 2, b * 3
    inner = graph.register_multi_grad_hook((x, y), lambda gs: got.append("inner"))
    (x * y).backward()
    assert got[2:] == ["inner", [18, 12, None]]
    handle.remove()
    inner.remove()
    (a * c).backward()
    assert len(got) == 4


def test_multi_grad_hook_any():
    a, b = leaf(2.0), leaf(3.0)
    got = []
    x, y = a * 2, b * 3
    graph.register_multi_grad_hook((x, y), lambda g: got.append(g.item()), mode="any")
    z = x * y
    z.backward(retain_graph=True)
    z.backward()
    assert len(got) == 2
    with pytest.raises(ValueError, match="mode"):
        graph.register_multi_grad_hook((a,), print, mode="some")
    with pytest.raises(RuntimeError, match=r"requires? grad"):
        graph.register_multi_grad_hook((torch.ones(1),), print)


# --- saved tensors ----------------------------------------------------------------------------------------------------
def test_saved_tensors_hooks_see_what_is_saved():
    packed, unpacked = [], []

    def pack(t):
        packed.append(t.tolist())
        return len(packed) - 1

    def unpack(i):
        unpacked.append(i)
        return torch.tensor(packed[i])

    x = leaf(3.0)
    w = leaf(5.0)
    with graph.saved_tensors_hooks(pack, unpack):
        y = (x * w).exp()
    z = y * y  # outside
    assert packed == [3, 5, pytest.approx(3269017.37, rel=1e-5)]
    assert unpacked == []
    z.backward()
    assert sorted(unpacked) == [0, 1, 2]
    e = y.item()
    assert x.grad.item() == pytest.approx(2 * e * e * 5, rel=1e-5)


def test_saved_tensors_hooks_and_higher_order():
    x = leaf(2.0)
    with graph.saved_tensors_hooks(lambda t: t * 1, lambda t: t):
        y = x * x * x
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    (h,) = torch.autograd.grad(g, x, create_graph=True)
    assert (g.item(), h.item()) == (12, 12)


def test_innermost_saved_tensors_hooks_count():
    log = []
    x = leaf(2.0)
    with graph.saved_tensors_hooks(lambda t: log.append("outer") or t, lambda t: t):
        with graph.saved_tensors_hooks(lambda t: log.append("inner") or t, lambda t: t):
            x * x
        x.exp()
    x * x
    assert log == ["inner", "inner", "outer"]


def test_hooks_and_custom_functions():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g * 2 * ctx.saved_tensors[0]

    x = leaf(3.0)
    with graph.saved_tensors_hooks(lambda t: t.item(), lambda v: torch.tensor(v * 10)):
        y = Square.apply(x)
    y.backward()
    assert x.grad.item() == 60


def test_errors_in_saved_tensors_hooks():
    x = leaf()

    def boom(t):
        raise LookupError("in the hook")

    with pytest.raises(LookupError, match="in the hook"), graph.saved_tensors_hooks(boom, lambda t: t):
        x * x
    (x * x).backward()
    with graph.saved_tensors_hooks(lambda t: t, boom):
        y = x * x
    with pytest.raises(LookupError, match="in the hook"):
        y.backward()
    with graph.saved_tensors_hooks(lambda t: t, lambda t: 3.0):
        y = x * x
    with pytest.raises((TypeError, RuntimeError), match="unpack_hook expected to be a Tensor"):
        y.backward()


def test_disabled_saved_tensors_hooks():
    hooks = graph.saved_tensors_hooks(lambda t: t, lambda t: t)
    with graph.disable_saved_tensors_hooks("not here"), pytest.raises(RuntimeError, match="not here"), hooks:
        pass
    with graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        pass


def test_save_on_cpu():
    x = torch.randn(5, requires_grad=True)
    with graph.save_on_cpu():
        y = (x * x).sum()
    y.backward()
    assert torch.equal(x.grad, 2 * x.detach())


def test_mutation_of_saved_tensors():
    x = torch.ones(2, requires_grad=True)
    with graph.allow_mutation_on_saved_tensors() as ctx:
        y = x * 1
        z = (y * y).sum()
        y.mul_(5)
        z.backward()
    ctx.clear()
    assert x.grad.tolist() == [2, 2]


def test_increment_version():
    x = torch.ones(2)
    before = x._version
    graph.increment_version(x)
    assert x._version == before + 1


@pytest.mark.pyrite
def test_nodes_know_their_line():
    x = leaf()
    y = x * 2  # here
    with open(__file__) as f:
        line = next(i for i, text in enumerate(f, 1) if text.endswith("# here\n"))
    assert IS_PYRITE and f"test_autograd_graph.py:{line} in test_nodes_know_their_line" in y.grad_fn._site
    z = torch.nn.functional.relu(torch.nn.Linear(1, 1)(x.reshape(1)))
    assert "test_autograd_graph.py" in z.grad_fn._site


def test_what_nodes_keep():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x * torch.tensor([3.0, 4.0])
    assert y.grad_fn._saved_other.tolist() == [3, 4]
    z = x * x
    assert z.grad_fn._saved_self is x and z.grad_fn._saved_other is x
    assert {"_saved_self", "_saved_other", "next_functions"} <= set(dir(z.grad_fn))
    e = x.exp()
    assert torch.equal(e.grad_fn._saved_result, e) and e.grad_fn._saved_result.grad_fn is e.grad_fn
    m = torch.ones(2, 2, requires_grad=True)
    p = torch.mm(m, m * 2)
    assert p.grad_fn._saved_self.tolist() == [[1, 1], [1, 1]] and p.grad_fn._saved_mat2.tolist() == [[2, 2], [2, 2]]
    assert not hasattr((x + 1).grad_fn, "_saved_self")
    z.sum().backward()
    with pytest.raises(RuntimeError, match="already been freed"):
        z.grad_fn._saved_self
