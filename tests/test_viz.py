"""`viz.graph`: the backward graph as DOT text."""

import builtins

import pytest
from subject import torch

pytestmark = pytest.mark.pyrite


def test_graph():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    loss = net(torch.ones(2, 3)).pow(2).sum()
    g = torch.viz.graph(loss, net)
    names = [n["name"] for n in g.nodes]
    assert {"0.weight", "0.bias", "2.weight", "2.bias", "TanhBackward0", "SumBackward0"} <= set(names)
    tanh = next(n for n in g.nodes if n["name"] == "TanhBackward0")
    assert tanh["shape"] == "2x4 float32"
    assert g.dot.startswith("digraph") and g.dot.count("{") == g.dot.count("}")
    assert str(g) == g.dot and "Graph" in repr(g)
    ids = {n["id"] for n in g.nodes}
    assert all(a in ids and b in ids for a, b in g.edges)
    assert all(f"n{a} -> n{b};" in g.dot for a, b in g.edges)


def test_source_lines():
    x = torch.ones(2, requires_grad=True)
    y = (x * x).exp()
    g = torch.viz.graph(y)
    sites = [n["site"] for n in g.nodes if not n["leaf"]]
    assert any(s and "test_viz.py" in s for s in sites)
    assert "test_viz.py" in g.dot


def test_shared_nodes_appear_once():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    g = torch.viz.graph(y * y + y)
    assert len(g.nodes) == 4 and len(g.edges) == 6 - 1


def test_several_outputs_and_large_graphs():
    x = torch.ones(1, requires_grad=True)
    y = x
    for _ in range(3000):
        y = y * 1
    g = torch.viz.graph([y, x * 2], max_nodes=100)
    assert len(g.nodes) == 100 and "cut off at 100" in g.dot and "output 1" in g.dot


def test_refusals(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="without a history"):
        torch.viz.graph(torch.ones(2))
    g = torch.viz.graph(torch.ones(2, requires_grad=True) * 2)
    g.save(tmp_path / "g.dot")
    assert (tmp_path / "g.dot").read_text() == g.dot
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "graphviz":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install graphviz"):
        g.svg()
    assert "text/plain" in g._repr_mimebundle_()
