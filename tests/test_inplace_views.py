"""Views and in-place operations under autograd, as PyTorch documents them: the hardest corner of the engine."""

import numpy as np
import pytest
from subject import torch


def leaf(*shape):
    count = int(np.prod(shape))
    return (torch.arange(count, dtype=torch.float64) + 1).reshape(*shape).requires_grad_()


# --- writing to a view of a tensor that has a history -----------------------------------------------------------------
def test_write_to_a_view_reaches_the_base():
    x = leaf(4)
    y = x * 1
    y[1:3].mul_(10)
    assert y.tolist() == [1, 20, 30, 4]
    y.sum().backward()
    assert x.grad.tolist() == [1, 10, 10, 1]


def test_write_to_the_base_reaches_a_view():
    x = leaf(4)
    y = x * 1
    v = y[1:3]
    y.mul_(10)
    assert v.tolist() == [20, 30]
    v.sum().backward()
    assert x.grad.tolist() == [0, 10, 10, 0]


def test_write_to_one_view_reaches_another():
    x = leaf(4)
    y = x * 1
    a, b = y[:3], y[1:]
    a.mul_(10)
    (b * b).sum().backward()
    # b = [10 x1, 10 x2, x3]
    assert x.grad.tolist() == [0, 2 * 100 * 2, 2 * 100 * 3, 2 * 4]


def test_a_view_of_a_view():
    x = leaf(2, 3)
    y = x * 1
    v = y.t()[1:]
    w = v[0]
    w.mul_(5)
    assert y.tolist() == [[1, 10, 3], [4, 25, 6]]
    y.sum().backward()
    assert x.grad.tolist() == [[1, 5, 1], [1, 5, 1]]


def test_fill_and_copy_cut_the_gradient():
    x = leaf(4)
    y = x * 2
    y[0] = 100
    y[1:3].copy_(torch.zeros(2, dtype=torch.float64))
    y.sum().backward()
    assert x.grad.tolist() == [0, 0, 0, 2]


def test_copy_from_a_tensor_with_history():
    x, z = leaf(4), leaf(2)
    y = x * 2
    y[1:3] = z * 3
    (y * y).sum().backward()
    assert x.grad.tolist() == [2 * 2 * 1 * 2, 0, 0, 2 * 2 * 4 * 2]
    assert z.grad.tolist() == [2 * 9 * 1, 2 * 9 * 2]


def test_write_into_a_plain_buffer():
    """The usual way to fill a preallocated tensor: the buffer takes part in the graph from the first write on."""
    x = leaf(3)
    buffer = torch.zeros(3, 2, dtype=torch.float64)
    for i in range(3):
        buffer[i] = x[i] * (i + 1)
    assert buffer.requires_grad and not buffer.is_leaf
    buffer.sum().backward()
    assert x.grad.tolist() == [2, 4, 6]


def test_a_view_made_before_the_history_sees_it():
    x = leaf(2)
    buffer = torch.zeros(4, dtype=torch.float64)
    view = buffer[:2]
    buffer[1:3] = x
    assert view.requires_grad
    view.sum().backward()
    assert x.grad.tolist() == [1, 0]


def test_write_a_broadcast_value():
    x = leaf(1)
    y = torch.ones(2, 3, dtype=torch.float64) * x
    y[:, 1] = x * 5
    y.sum().backward()
    assert x.grad.tolist() == [4 + 10]


def test_chain_of_in_place_operations():
    x = leaf(3)
    y = x * 1
    y.add_(1).mul_(2).sub_(x).exp_()
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp((x.detach().numpy() + 1) * 2 - x.detach().numpy()))


def test_in_place_uses_the_value_before():
    x = leaf(3)
    y = x * 1
    y.mul_(x)
    y.sum().backward()
    assert x.grad.tolist() == [2, 4, 6]


def test_in_place_on_the_output_that_was_saved(strict):
    x = leaf(3)
    y = x.exp()
    y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_relu_in_place():
    x = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
    y = (x * 1).relu_()
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1]


def test_in_place_chain_through_views_of_views():
    x = leaf(2, 2)
    y = x * 1
    a = y[0]
    b = a[1:]
    b.mul_(3)
    a.mul_(2)
    y.mul_(5)
    assert y.tolist() == [[10, 60], [15, 20]]
    y.sum().backward(retain_graph=True)
    assert x.grad.tolist() == [[10, 30], [5, 5]]
    # The views follow.
    x.grad = None
    b2 = b.sum()
    assert b2.item() == 60
    b2.backward()
    assert x.grad.tolist() == [[0, 30], [0, 0]]


def test_gradient_of_expanded_and_permuted_views():
    x = leaf(2, 1, 3)
    y = x.expand(2, 4, 3).permute(2, 0, 1)
    w = torch.arange(24.0, dtype=torch.float64).reshape(3, 2, 4)
    (y * w).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), w.numpy().transpose(1, 2, 0).sum(1, keepdims=True))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.view(6),
        lambda x: x.t(),
        lambda x: x[:, 1:],
        lambda x: x[1],
        lambda x: x.unsqueeze(0).squeeze(0),
        lambda x: x.diagonal(),
        lambda x: x.as_strided((2, 2), (1, 3), 1),
        lambda x: x.narrow(1, 1, 2),
        lambda x: x.unflatten(1, (3, 1)).flatten(1),
        lambda x: x.transpose(0, 1),
        lambda x: x.select(0, 0),
        lambda x: x.movedim(0, 1),
        lambda x: x.swapaxes(0, 1),
        lambda x: x.expand(2, 3),
    ],
)
def test_every_view_writes_through_and_back(view):
    """For y = 1 * x, v = view(y), v *= 3: the gradient is 3 where the view looks, 1 elsewhere."""
    x = leaf(2, 3)
    y = x * 1
    probe = torch.zeros(2, 3)
    view(probe).fill_(1)
    seen = probe.numpy() == 1
    v = view(y)
    assert v._base is y
    v.mul_(3)
    np.testing.assert_array_equal(y.detach().numpy(), x.detach().numpy() * np.where(seen, 3, 1))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.where(seen, 3.0, 1.0))


@pytest.mark.parametrize("split", [lambda y: y.unbind(0), lambda y: y.chunk(2), lambda y: y.split(2, dim=1)])
def test_multi_output_views_refuse_in_place(split):
    x = leaf(2, 3)
    y = x * 1
    a = split(y)[0]
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        a.mul_(2)


def test_views_made_under_no_grad_refuse_in_place():
    x = leaf(3)
    y = x * 1
    with torch.no_grad():
        v = y[:2]
    with pytest.raises(RuntimeError, match="created in no_grad mode"):
        v.mul_(2)


def test_such_views_refuse_a_source_with_gradient():
    """What decides is whether the write is recorded, not whether the view itself has a gradient."""
    x = leaf(1, 3)
    for write in (lambda v: v.mul_(x), lambda v: v.copy_(x), lambda v: v.__setitem__(0, x[0])):
        plain = torch.ones(2, 3, dtype=torch.float64)
        with torch.no_grad():
            v = plain[:1]
        with pytest.raises(RuntimeError, match="created in no_grad mode"):
            write(v)
        with pytest.raises(RuntimeError, match="returns multiple views"):
            write(plain.split(1)[1])
        assert plain.tolist() == [[1] * 3] * 2
    # Without a gradient anywhere both kinds are plain memory; a view of one inherits the rule.
    v.mul_(2)
    plain.unbind(0)[1].mul_(3)
    assert plain.tolist() == [[2] * 3, [3] * 3]
    with pytest.raises(RuntimeError, match="returns multiple views"):
        (leaf(2, 3) * 1).unbind(0)[0][1:].mul_(2)
    y = leaf(2, 3) * 1
    with torch.no_grad():
        y.unbind(0)[0].mul_(2)
    assert y.tolist() == [[2, 4, 6], [4, 5, 6]]


def test_no_grad_writes_leave_the_graph_alone():
    x = leaf(3)
    y = x * 2
    with torch.no_grad():
        y.mul_(10)
    y.sum().backward()
    assert x.grad.tolist() == [2, 2, 2]


def test_data_and_detach_do_not_share_the_history(strict):
    x = leaf(3)
    y = x * 2
    y.data.mul_(10)
    y.sum().backward()
    assert x.grad.tolist() == [2, 2, 2]
    z = x * x
    d = z.detach()
    d.zero_()
    z.sum().backward()  # mul saved x, not z
    w = x.exp()
    w.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        w.sum().backward()


def test_in_place_that_does_not_fit():
    a = torch.ones(3)
    with pytest.raises(RuntimeError):
        a.add_(torch.ones(2, 3))
    with pytest.raises(RuntimeError):
        a.expand(2, 3).add_(1)
    assert a.tolist() == [1, 1, 1]


def test_overlapping_input_and_output():
    a = torch.arange(5.0)
    with pytest.raises(RuntimeError):
        a[1:].add_(a[:-1])
    b = torch.arange(5.0)
    b[1:] = b[:-1].clone()
    assert b.tolist() == [0, 0, 1, 2, 3]


def test_out_refuses_gradients():
    x = leaf(3)
    with pytest.raises(RuntimeError, match=r"(?i)out=|automatic differentiation"):
        torch.mul(x, 2, out=torch.empty(3, dtype=torch.float64))


def test_is_view_relations():
    x = torch.zeros(2, 3)
    v = x.view(6)[2:]
    assert v._is_view() and v._base is x and not x._is_view()
    assert v.storage_offset() == 2 and v.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert not x.reshape(6).contiguous().clone()._is_view()


def test_view_that_cannot_be():
    with pytest.raises(RuntimeError, match=r"view size is not compatible|shape"):
        torch.zeros(2, 3).t().view(6)
    assert torch.zeros(2, 3).t().reshape(6).shape == (6,)
    with pytest.raises(RuntimeError, match="shape"):
        torch.zeros(6).view(4, -1)
