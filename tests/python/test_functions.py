"""Functions of the Python layer: several tensors at once, comparisons."""

import math

import pytest
from subject import torch


def test_broadcasting():
    assert torch.broadcast_shapes((3, 1), (2,), 1) == (3, 2) and torch.broadcast_shapes() == ()
    assert torch.broadcast_shapes((0,), (1,)) == (0,)
    with pytest.raises(RuntimeError):
        torch.broadcast_shapes((3,), (2,))
    a, b = torch.broadcast_tensors(torch.ones(3, 1), torch.arange(2.0))
    assert a.shape == b.shape == (3, 2) and b.tolist() == [[0, 1]] * 3
    with pytest.raises((RuntimeError, ValueError)):
        torch.broadcast_tensors(torch.ones(3), torch.ones(2))


def test_at_least():
    x = torch.tensor(1.0)
    assert torch.atleast_1d(x).shape == (1,) and torch.atleast_2d(x).shape == (1, 1)
    assert [t.shape for t in torch.atleast_3d(x, torch.ones(2), torch.ones(2, 3))] == [(1, 1, 1), (1, 2, 1), (2, 3, 1)]


def test_grids():
    x, y = torch.meshgrid(torch.arange(2), torch.arange(3), indexing="xy")
    assert x.tolist() == [[0, 1]] * 3 and y.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert torch.cartesian_prod(torch.arange(2), torch.arange(2)).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    with pytest.raises(RuntimeError):
        torch.meshgrid(torch.ones(2, 2), indexing="ij")


def test_comparisons():
    a = torch.tensor([1.0, math.inf, math.nan, 0.0])
    b = torch.tensor([1.0 + 1e-6, math.inf, math.nan, 1e-9])
    assert torch.isclose(a, b).tolist() == [True, True, False, True]
    assert torch.isclose(a, b, equal_nan=True).tolist() == [True] * 4 and torch.allclose(a, b, equal_nan=True)
    assert not torch.isclose(torch.tensor([1.0]), torch.tensor([math.inf])).item()
    assert torch.tensor([10, 11]).isclose(torch.tensor([10, 12]), rtol=0.1).tolist() == [True, True]
    assert torch.equal(torch.ones(2), torch.ones(2)) and not torch.ones(2).equal(torch.ones(1, 2))
    assert torch.empty(0).equal(torch.empty(0))
    with pytest.raises(RuntimeError):
        torch.isclose(torch.ones(1), torch.ones(1, dtype=torch.float64))


def test_predicates():
    assert torch.numel(torch.ones(2, 3)) == 6 and torch.is_nonzero(torch.tensor([2]))
    assert torch.is_floating_point(torch.ones(1)) and not torch.is_complex(torch.ones(1))
    with pytest.raises(RuntimeError):
        torch.is_nonzero(torch.ones(2))
    assert not torch.detach(torch.ones(1, requires_grad=True)).requires_grad
