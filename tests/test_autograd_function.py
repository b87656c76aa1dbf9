"""Custom Functions: what forward may return and write to, what backward may return, and the ctx as a node."""

import traceback
import weakref

import pytest
from subject import torch

Function = torch.autograd.Function


def leaf():
    return torch.tensor([1.0, 2.0], requires_grad=True)


class Double_(Function):
    """Doubles its argument in place."""

    @staticmethod
    def forward(ctx, x):
        x.mul_(2)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, g):
        return g * 2


class Plus1AndDouble_(Function):
    @staticmethod
    def forward(ctx, x):
        y = x + 1
        x.mul_(2)
        ctx.mark_dirty(x)
        return y, x

    @staticmethod
    def backward(ctx, gy, gx):
        return gy + gx * 2


class Exp_(Function):
    @staticmethod
    def forward(ctx, x):
        x.exp_()
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]


class Tenfold(Function):
    """The identity with ten times the gradient."""

    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, g):
        return g * 10


class First(Function):
    """A view of the argument with ten times the gradient."""

    @staticmethod
    def forward(ctx, x):
        return x[0]

    @staticmethod
    def backward(ctx, g):
        return torch.stack([g * 10, g * 0])


# --- in place ---------------------------------------------------------------------------------------------------------
def test_dirty_input_is_returned_as_it_is():
    x = leaf()
    y = x * 1
    z = Double_.apply(y)
    assert z is y and z.tolist() == [2, 4]
    assert z.grad_fn.name() == "Double_Backward"
    z.sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_dirty_view_reaches_the_base():
    x = leaf()
    y = x * 1
    v = y[0]
    assert Double_.apply(v) is v
    assert y.tolist() == [2, 2]
    y.sum().backward()
    assert x.grad.tolist() == [2, 1]


def test_dirty_input_as_second_output():
    x = leaf()
    y = x * 1
    u, z = Plus1AndDouble_.apply(y)
    assert z is y
    (u * 3 + z).sum().backward()
    assert x.grad.tolist() == [5, 5]


def test_dirty_and_saved():
    x = leaf()
    Exp_.apply(x * 1).sum().backward()
    assert torch.allclose(x.grad, x.detach().exp())


def test_dirty_views_allow_one_output():
    with pytest.raises(RuntimeError, match="your Function cannot return more than one Tensor"):
        Plus1AndDouble_.apply((leaf() * 1)[0])


def test_dirty_leaf():
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad has been used in an in-place operation"):
        Double_.apply(leaf())


def test_dirty_must_be_returned():
    class Forgets(Double_):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x + 1

    with pytest.raises(RuntimeError, match="marked as dirty during the forward method were not returned"):
        Forgets.apply(leaf() * 1)


# --- outputs that are inputs or views of them -------------------------------------------------------------------------
def test_input_returned_as_it_is():
    x = leaf()
    y = Tenfold.apply(x)
    assert y is not x and y._base is x and y.data_ptr() == x.data_ptr()
    y.sum().backward()
    assert x.grad.tolist() == [10, 10]


def test_view_of_the_input():
    x = leaf()
    v = First.apply(x * 1)
    assert v._is_view()
    v.backward()
    assert x.grad.tolist() == [10, 0]


OVERRIDE = "autograd logic to handle view\\+inplace would override the custom backward"


@pytest.mark.parametrize("function", [Tenfold, First])
def test_such_views_refuse_writes(function):
    v = function.apply(leaf() * 1)
    with pytest.raises(RuntimeError, match=OVERRIDE):
        v.add_(1)


@pytest.mark.parametrize("function", [Tenfold, First])
def test_such_views_refuse_to_be_used_after_the_base_was_written_to(function):
    y = leaf() * 1
    v = function.apply(y)
    y.mul_(2)
    with pytest.raises(RuntimeError, match=OVERRIDE):
        v.grad_fn
    with pytest.raises(RuntimeError, match=OVERRIDE):
        v * 2


# --- other outputs ----------------------------------------------------------------------------------------------------
def test_outputs_that_are_no_tensors():
    class Mixed(Function):
        @staticmethod
        def forward(ctx, x, factor, name):
            ctx.factor = factor
            return x * factor, name, None, x.sum()

        @staticmethod
        def backward(ctx, *grads):
            assert len(grads) == 4 and grads[1] is None and grads[2] is None
            return grads[0] * ctx.factor + grads[3], None, None

    x = leaf()
    y, name, none, s = Mixed.apply(x, 3.0, "n")
    assert name == "n" and none is None
    (y.sum() + s).backward()
    assert x.grad.tolist() == [4, 4]


def test_non_differentiable_outputs():
    class Sort(Function):
        @staticmethod
        def forward(ctx, x):
            y, i = x.sort(descending=True)
            ctx.mark_non_differentiable(i)
            ctx.save_for_backward(i)
            return y, i

        @staticmethod
        def backward(ctx, g, gi):
            (i,) = ctx.saved_tensors
            return torch.zeros_like(g).scatter(0, i, g)

    x = leaf()
    y, i = Sort.apply(x)
    assert not i.requires_grad and i.is_leaf and y.requires_grad
    (y * torch.tensor([1.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [5, 1]


@pytest.mark.parametrize("materialize", [True, False])
def test_materialized_grads(materialize):
    class Pair(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(materialize)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, a, b):
            if materialize:
                assert b.tolist() == [0, 0]
                return a * 2 + b * 3
            assert b is None
            return a * 2

    x = leaf()
    Pair.apply(x)[0].sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_nothing_is_recorded_without_grad():
    with torch.no_grad():
        assert not Tenfold.apply(leaf()).requires_grad
    assert not Tenfold.apply(torch.ones(2)).requires_grad


def test_arguments_by_name_and_setup_context():
    class Scale(Function):
        @staticmethod
        def forward(x, factor, *rest):
            return x * factor

        @staticmethod
        def setup_context(ctx, inputs, output):
            x, ctx.factor = inputs[:2]
            ctx.save_for_backward(x, output)

        @staticmethod
        def backward(ctx, g):
            assert [t.tolist() for t in ctx.saved_tensors] == [[1, 2], [3, 6]]
            return g * ctx.factor, None

    x = leaf()
    y = Scale.apply(x, 3.0)
    y.sum().backward()
    assert x.grad.tolist() == [3, 3]


# --- what backward may return -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "answer, error, words",
    [
        (lambda g: (g, g, g), RuntimeError, r"returned an incorrect number of gradients \(expected 2, got 3\)"),
        (lambda g: g, RuntimeError, r"returned an incorrect number of gradients \(expected 2, got 1\)"),
        (lambda g: (g, g), RuntimeError, "returned a gradient different than None at position 2, but the"),
        (lambda g: (1.0, None), (TypeError, RuntimeError), r"expected Variable or None \(got float\)"),
        (lambda g: (g.sum().expand(3), None), RuntimeError, r"invalid gradient at index 0 - got \[3\] but expected"),
    ],
)
def test_wrong_answers_of_backward(answer, error, words):
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x, k):
            return x * k

        @staticmethod
        def backward(ctx, g):
            return answer(g)

    with pytest.raises(error, match=words):
        Wrong.apply(leaf(), 2.0).sum().backward()


def test_surplus_none_and_missing_gradients():
    class Fine(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * y

        @staticmethod
        def backward(ctx, g):
            assert ctx.needs_input_grad == (True, False)
            return g * 7, None, None

    x = leaf()
    Fine.apply(x, torch.ones(2)).sum().backward()
    assert x.grad.tolist() == [7, 7]


def test_broadcast_gradient_is_summed():
    class Wide(Function):
        @staticmethod
        def forward(ctx, x):
            return x.expand(3, 2) * 1

        @staticmethod
        def backward(ctx, g):
            return g  # of shape (3, 2)

    x = leaf()
    Wide.apply(x).sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_missing_backward_and_forward():
    class Nothing(Function):
        pass

    class NoBackward(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

    with pytest.raises(NotImplementedError, match="You must implement the forward function"):
        Nothing.apply(leaf())
    with pytest.raises(NotImplementedError, match="either the backward or vjp method"):
        NoBackward.apply(leaf()).sum().backward()


def test_save_for_backward_takes_tensors():
    class Saves(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, None, 3)
            return x * 1

    with pytest.raises(TypeError, match="can only save variables, but argument 2 is of type int"):
        Saves.apply(leaf())


def test_exceptions_keep_their_traceback():
    def deep_inside():
        raise ArithmeticError("in the middle")

    class Raises(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            deep_inside()

    with pytest.raises(ArithmeticError, match="in the middle") as caught:
        Raises.apply(leaf()).sum().backward()
    names = [f.name for f in traceback.extract_tb(caught.tb)]
    assert names[-2:] == ["backward", "deep_inside"] and names[0] == "test_exceptions_keep_their_traceback"


# --- the ctx and its node ---------------------------------------------------------------------------------------------
def test_the_node_shows_the_ctx_and_the_ctx_the_node():
    seen = []

    class Named(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.k = 5
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            seen.append((ctx.name(), len(ctx.next_functions), ctx.metadata["mine"]))
            return g * 2

    x = leaf()
    y = Named.apply(x)
    node = y.grad_fn
    assert type(node).__name__ == node.name() == "NamedBackward"
    assert node.k == 5 and node.saved_tensors[0] is x
    node.metadata["mine"] = 1
    y.sum().backward()
    assert seen == [("NamedBackward", 1, 1)]
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        node.saved_tensors


def test_saved_tensors_keep_identity_and_history():
    class Square(Function):
        @staticmethod
        def forward(ctx, x):
            y = x * x
            ctx.save_for_backward(x, y)
            return y

        @staticmethod
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            assert y.grad_fn is None or y.grad_fn.name() == "SquareBackward"
            return g * 2 * x

    x = leaf()
    y = Square.apply(x)
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert g.tolist() == [2, 4]
    (h,) = torch.autograd.grad(g.sum(), x)
    assert h.tolist() == [2, 2]


def test_maybe_clear_saved_tensors():
    gone = []

    class Clears(Function):
        @staticmethod
        def forward(ctx, x):
            y = x.detach() * 1
            ctx.ref = weakref.ref(y)
            ctx.save_for_backward(y)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            ctx.maybe_clear_saved_tensors()
            try:
                ctx.saved_tensors
                gone.append(False)
            except RuntimeError:
                gone.append(True)
            return g * 2

    y = Clears.apply(leaf()).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert gone == [False, True]


def test_once_differentiable():
    class Once(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g * 2

    x = leaf()
    (g,) = torch.autograd.grad((Once.apply(x) ** 2).sum(), x, create_graph=True)
    assert g.tolist() == [8, 16]
    with pytest.raises(RuntimeError, match="marked with @once_differentiable"):
        g.sum().backward()


def test_hooks_on_a_ctx_node():
    calls = []
    x = leaf()
    y = Tenfold.apply(x * 1)
    y.grad_fn.register_prehook(lambda g: calls.append(("pre", g[0].tolist())))
    y.grad_fn.register_hook(lambda gi, go: calls.append(("post", gi[0].tolist(), go[0].tolist())))
    y.sum().backward()
    assert calls == [("pre", [1, 1]), ("post", [10, 10], [1, 1])]


def test_functions_inside_functions():
    class Outer(Function):
        @staticmethod
        def forward(ctx, x):
            with torch.enable_grad():
                inner = x.detach().requires_grad_()
                y = Tenfold.apply(inner) * 2
            ctx.inner, ctx.y = inner, y
            return y.detach()

        @staticmethod
        def backward(ctx, g):
            return torch.autograd.grad(ctx.y, ctx.inner, g)[0]

    x = leaf()
    Outer.apply(x).sum().backward()
    assert x.grad.tolist() == [20, 20]
