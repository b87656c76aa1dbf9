"""What nodes have saved, seen and hooked; callbacks, nodes as functions; what a graph keeps alive; and rules of hooks."""

import gc
import weakref

import pytest
from subject import torch

Function = torch.autograd.Function


def leaf(*values):
    return torch.tensor(values or (2.0, 3.0), requires_grad=True)


def test_saved_values_of_nodes():
    x = leaf()
    y = x * 2
    z = y * x
    assert z.grad_fn._saved_self.tolist() == [4, 6] and z.grad_fn._saved_other is x
    e = x.exp()
    assert torch.equal(e.grad_fn._saved_result, e.detach()) and e.grad_fn._saved_result.grad_fn is e.grad_fn
    m = torch.ones(2, 2, requires_grad=True) @ torch.full((2, 2), 3.0)
    assert m.grad_fn._saved_mat2.tolist() == [[3, 3], [3, 3]]
    with pytest.raises(AttributeError):
        _ = e.grad_fn._saved_nothing
    e.sum().backward()
    with pytest.raises(RuntimeError, match="after they have already been freed"):
        _ = e.grad_fn._saved_result


def test_hooks_on_saved_values():
    x = leaf()
    y = x.exp()
    raw = y.grad_fn._raw_saved_result
    assert isinstance(raw, torch.autograd.SavedTensor)
    raw.register_hooks(lambda t: t.detach() * 2, lambda t: t * 5)
    with pytest.raises(RuntimeError, match="already been set"):
        raw.register_hooks(lambda t: t, lambda t: t)
    y.sum().backward()
    assert torch.allclose(x.grad, 10 * x.detach().exp())
    with pytest.raises(RuntimeError, match="forbidden"):
        torch.autograd.SavedTensor()


def test_a_pack_hook_must_not_write():
    x = leaf()
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: t.mul_(2), lambda t: t)
    with hooks, pytest.raises(RuntimeError, match="pack hook is modifying its input"):
        (x * 1).clone().exp()


def test_hooks_entered_by_an_unpack_hook_do_not_stay():
    def scope():
        def unpack(t):
            weak().__enter__()
            return t

        block = torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack)
        weak = weakref.ref(block)
        with block:
            leaf().sin().sum().backward()
        return weakref.ref(unpack)

    assert scope()() is None


class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x, None)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x, _) = ctx.saved_tensors
        ctx.seen.append(x)
        return 2 * x * g


def test_saved_tensors_are_the_objects_themselves():
    seen = []

    class Mine(Square):
        @staticmethod
        def forward(ctx, x):
            ctx.seen = seen
            return Square.forward(ctx, x)

    x = leaf()
    x.main_grad = "mine"
    y = x * 1
    (Mine.apply(x) + Mine.apply(y)).sum().backward()
    assert any(s is x for s in seen) and any(s is y for s in seen) and x.grad.tolist() == [8, 12]


def test_saved_output_number():
    class Halves(Function):
        @staticmethod
        def forward(ctx, x):
            return x[:1].clone(), x[1:].clone()

        @staticmethod
        def backward(ctx, a, b):
            return torch.cat((a, b))

    class Doubled(Function):
        @staticmethod
        def forward(ctx, b):
            ctx.save_for_backward(b)
            return b * 2

        @staticmethod
        def backward(ctx, g):
            assert ctx.saved_tensors[0].output_nr == 1 and ctx.saved_tensors[0].requires_grad
            return g * 2

    x = leaf()
    Doubled.apply(Halves.apply(x)[1]).sum().backward()
    assert x.grad.tolist() == [0, 2]


def test_a_ctx_outlives_its_graph():
    kept = []

    class Keeps(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            kept.append(ctx)
            return g

    x = leaf()
    y = Keeps.apply(x)
    y.sum().backward(retain_graph=True)
    del y
    assert kept[0].saved_tensors[0] is x


def test_callbacks_at_the_end_of_backward():
    log = []
    queue = torch.autograd.Variable._execution_engine.queue_callback
    x = leaf()

    def hook(g):
        queue(lambda: (log.append(x.grad is not None), queue(lambda: log.append("last"))))

    y = x * 2
    y.register_hook(hook)
    y.sum().backward()
    assert log == [True, "last"]
    with pytest.raises(RuntimeError, match="during backward pass"):
        queue(lambda: None)


def test_nodes_can_be_called():
    x = leaf()
    node = (x**2).grad_fn
    assert node(torch.ones(2)).tolist() == [4, 6]
    with pytest.raises(TypeError, match="expected 1 arguments, got 2 instead"):
        node(torch.ones(2), torch.ones(2))
    shape = node._input_metadata[0]
    assert tuple(shape.shape) == (2,) and shape.dtype == torch.float32


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("on_tensor", [False, True])
def test_cycles_through_hooks_are_collected(custom, on_tensor):
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g

    class Thing:
        pass

    def scope():
        a = leaf()
        b = Same.apply(a) if custom else a.clone()
        node, thing = b.grad_fn, Thing()

        def hook(*grads):
            assert node is not None and thing is not None

        (b if on_tensor else node).register_hook(hook)
        return b.clone(), weakref.ref(thing)

    out, ref = scope()
    gc.collect()
    assert ref() is not None
    out.sum().backward()
    del out
    gc.collect()
    assert ref() is None


def test_a_ctx_that_holds_its_result_is_collected():
    class Holds(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.y = y = x.clone()
            return y

        @staticmethod
        def backward(ctx, g):
            return g

    class Thing:
        pass

    y = Holds.apply(leaf())
    y.grad_fn.thing = thing = Thing()
    ref = weakref.ref(thing)
    y.grad_fn.metadata["thing"] = thing
    del thing, y
    gc.collect()
    assert ref() is None


def test_order_of_hooks_on_a_leaf():
    x = torch.zeros(2, requires_grad=True)
    node = x.view_as(x).grad_fn.next_functions[0][0]
    x.register_hook(lambda g: g - 2)
    node.register_prehook(lambda g: (g[0] / 4,))

    def more(t):
        t.grad.add_(1)

    x.register_post_accumulate_grad_hook(more)

    def last(grad_in, grad_out):
        # The very memory of `.grad`.
        x.grad = grad_out[0] * 8

    node.register_hook(last)
    x.sum().backward()
    assert x.grad.tolist() == [6, 6]  # ((1 - 2) / 4 + 1) * 8


def test_prehooks_of_a_result_that_was_asked_for():
    log = []
    x = torch.tensor(1.0, requires_grad=True)
    y = x.clone()
    y.grad_fn.register_prehook(lambda g: log.append("node"))
    y.register_hook(lambda g: log.append("tensor"))
    y.sum().backward(inputs=(y,))
    assert log == ["tensor", "node"] and y.grad.item() == 1


def test_prehooks_see_a_place_for_each_result():
    class Mixed(Function):
        @staticmethod
        def forward(ctx, x, k):
            return x * k, k, x + k

        @staticmethod
        def backward(ctx, a, _, b):
            return 3 * a + b, None

    x = leaf()
    a, _, b = Mixed.apply(x, 3)
    a.grad_fn.register_prehook(lambda g: (g[0] * 2, None, g[2] * 2))
    (a + b).sum().backward()
    assert x.grad.tolist() == [8, 8]


def test_post_accumulate_hooks_return_nothing():
    x = leaf()
    x.register_post_accumulate_grad_hook(lambda t: t.grad)
    with pytest.raises(RuntimeError, match="should return None"):
        x.sum().backward()


def test_retain_grad_survives_writes_to_views():
    base = leaf().clone()
    one, other = base[:], base[:]
    one.retain_grad()
    other.retain_grad()
    one.mul_(2)
    (one * 3 + other).sum().backward()
    assert one.grad.tolist() == [3, 3] and other.grad.tolist() == [1, 1]


def test_detach_in_place_keeps_views():
    x = leaf() * 1
    view = x[:1]
    x.detach_()
    assert not x.requires_grad and x.is_leaf and view.requires_grad and view._base is x


@pytest.mark.pyrite  # PyTorch keeps the history of the other layout
def test_views_in_place_without_recording():
    x = leaf()
    y = torch.stack([x, x * 2])
    with torch.no_grad():
        y.t_()
    assert y.requires_grad
    y.mul_(3)
    y[:, 1].sum().backward()
    assert x.grad.tolist() == [6, 6]


def test_gradients_of_extrema_that_are_nan():
    for f in (torch.max, torch.min):
        x = torch.full((4,), float("nan"), requires_grad=True)
        f(x).backward()
        assert x.grad.tolist() == [0.25] * 4


def test_unique_says_that_it_has_no_gradient():
    y = torch.unique(leaf(1.0, 1.0, 2.0))
    assert y.requires_grad
    with pytest.raises(NotImplementedError, match=r"derivative for .*unique.* is not implemented"):
        y.sum().backward()


def test_materialized_zeros_go_on():
    x = leaf()
    (d,) = torch.autograd.grad((x * 3).sum(), x, create_graph=True, materialize_grads=True)
    (dd,) = torch.autograd.grad(d.sum(), x, create_graph=True, materialize_grads=True) if d.requires_grad else (x * 0,)
    assert dd.tolist() == [0, 0]
    (z,) = torch.autograd.grad(x.sum(), (leaf(),), create_graph=True, materialize_grads=True)
    assert z.requires_grad and z.tolist() == [0, 0]
    other = leaf()
    edge = torch.autograd.graph.get_gradient_edge(other * 1)
    with pytest.raises(RuntimeError, match="GradientEdge"):
        torch.autograd.grad((x * 1).sum(), (x, edge), allow_unused=True, materialize_grads=True)


def test_names_and_forms():
    t = torch

    assert issubclass(t.autograd.function.InplaceFunction, object)
    with t.autograd.set_multithreading_enabled(False):
        assert not t.autograd.is_multithreading_enabled()
    assert t.autograd.is_multithreading_enabled()
    with pytest.warns(FutureWarning, match="Decorating classes"):

        @t.no_grad()
        class Made:
            def __init__(self):
                self.mode = t.is_grad_enabled()

    assert Made().mode is False and t.is_grad_enabled()
    x = leaf()
    with pytest.raises(RuntimeError):
        del x.requires_grad
    with pytest.raises(RuntimeError):
        del x.data
    with t.no_grad():
        assert x.numpy().tolist() == [2, 3]


def test_both_backward_and_vjp():
    class Both(Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g

        @staticmethod
        def vjp(ctx, g):
            return g

    with pytest.raises(RuntimeError, match="Implementing both"):
        Both.apply(leaf()).sum().backward()


def test_gradcheck_is_a_module_too():
    import importlib

    module = importlib.import_module(torch.autograd.__name__ + ".gradcheck")
    assert issubclass(module.GradcheckError, RuntimeError)
    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(torch.sin, (x,))


def test_gradients_none_for_results_without_one():
    class Two(Function):
        @staticmethod
        def forward(ctx, x):
            b = x.clone()
            ctx.mark_non_differentiable(b)
            ctx._materialize_non_diff_grads = False
            return x.clone(), b

        @staticmethod
        def backward(ctx, a, b):
            assert b is None
            return a

    x = leaf()
    Two.apply(x)[0].sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_defaults_of_forward_reach_setup_context():
    class Power(Function):
        @classmethod
        def forward(cls, x, y=3):
            return x**y

        @classmethod
        def setup_context(cls, ctx, inputs, output):
            x, ctx.y = inputs
            ctx.save_for_backward(x)

        @classmethod
        def backward(cls, ctx, g):
            return g * ctx.y * ctx.saved_tensors[0] ** (ctx.y - 1), None

    x = leaf()
    Power.apply(x).sum().backward()
    assert x.grad.tolist() == [12, 27]
