"""nn.init: distributions, ranges, fans, and that everything is drawn through the seeded generator."""

import math

import numpy as np
import pytest
from subject import nn, torch

init = nn.init


def stats(t):
    return t.mean().item(), t.std().item()


def test_fills():
    t = torch.empty(3, 4)
    assert init.constant_(t, 2.5) is t and t.tolist() == [[2.5] * 4] * 3
    assert init.ones_(t).sum().item() == 12 and init.zeros_(t).sum().item() == 0
    assert init.eye_(t).tolist() == np.eye(3, 4).tolist()
    with pytest.raises(ValueError):
        init.eye_(torch.empty(3))


def test_distributions():
    t = torch.empty(200, 300)
    m, s = stats(init.uniform_(t, -1, 3))
    assert abs(m - 1) < 0.03 and abs(s - 4 / math.sqrt(12)) < 0.03 and t.min().item() >= -1 and t.max().item() < 3
    m, s = stats(init.normal_(t, 2, 0.5))
    assert abs(m - 2) < 0.02 and abs(s - 0.5) < 0.02
    init.trunc_normal_(t, 0, 1, -1, 0.5)
    assert t.min().item() >= -1 and t.max().item() <= 0.5


@pytest.mark.parametrize(
    "fill, std",
    [
        (lambda t: init.xavier_uniform_(t, 2), 2 * math.sqrt(2 / 500)),
        (lambda t: init.xavier_normal_(t), math.sqrt(2 / 500)),
        (lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(2 / 300)),
        (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / 200)),
        (lambda t: init.kaiming_normal_(t, a=math.sqrt(5)), math.sqrt(2 / 6 / 300)),
    ],
)
def test_fans(fill, std):
    m, s = stats(fill(torch.empty(200, 300)))
    assert abs(m) < std / 50 and abs(s / std - 1) < 0.02


def test_fans_of_a_convolution():
    w = init.kaiming_uniform_(torch.empty(64, 32, 3, 3), a=math.sqrt(5))
    bound = 1 / math.sqrt(32 * 9)
    assert w.abs().max().item() <= bound and w.abs().max().item() > 0.99 * bound
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        init.xavier_uniform_(torch.empty(3))
    with pytest.raises(ValueError):
        init.kaiming_normal_(torch.empty(2, 2), mode="no")


def test_gains():
    assert init.calculate_gain("linear") == 1 and init.calculate_gain("tanh") == 5 / 3
    assert init.calculate_gain("relu") == math.sqrt(2)
    assert init.calculate_gain("leaky_relu", 0.5) == math.sqrt(2 / 1.25)
    with pytest.raises(ValueError):
        init.calculate_gain("no")


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5), (3, 2, 2)])
def test_orthogonal(shape):
    w = init.orthogonal_(torch.empty(*shape, dtype=torch.float64), gain=2).reshape(shape[0], -1).numpy() / 2
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-10)


def test_sparse_and_dirac():
    w = init.sparse_(torch.empty(50, 20), 0.3)
    assert ((w == 0).sum(0) == 15).all()
    layer = nn.Conv1d(4, 4, 3, padding=1, bias=False)
    init.dirac_(layer.weight)
    x = torch.randn(2, 4, 6)
    np.testing.assert_allclose(layer(x).detach().numpy(), x.numpy(), atol=1e-6)


def test_seed_fixes_a_model():
    torch.manual_seed(5)
    a = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(3, 4), nn.Embedding(3, 2))
    torch.manual_seed(5)
    b = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(3, 4), nn.Embedding(3, 2))
    assert all(p.tolist() == q.tolist() for p, q in zip(a.parameters(), b.parameters()))


def test_no_graph_is_recorded():
    p = nn.Parameter(torch.empty(3, 3))
    init.xavier_normal_(p)
    init.orthogonal_(p)
    assert p.is_leaf and p.grad_fn is None


@pytest.mark.pyrite
def test_layers_draw_through_tensor_methods(monkeypatch):
    """A user who replaces Tensor.uniform_ sees every layer use it."""
    seen = []
    original = torch.Tensor.uniform_
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, *a, **k: seen.append(a[:2]) or original(self, *a, **k))
    nn.Linear(4, 2)
    assert [b for _, b in seen] == pytest.approx([0.5, 0.5]) and [a for a, _ in seen] == pytest.approx([-0.5, -0.5])
