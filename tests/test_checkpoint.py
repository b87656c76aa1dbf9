"""Checkpointing: the same gradients as without, less kept, errors when the two runs differ."""

import functools

import pytest
from subject import IS_PYRITE, F, torch

C = torch.utils.checkpoint
checkpoint = C.checkpoint
BOTH = pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Dropout(0.5), torch.nn.Linear(8, 8), torch.nn.GELU(),
        torch.nn.LayerNorm(8), torch.nn.Linear(8, 2),
    )  # fmt: skip


def gradients(net, run):
    x = torch.linspace(-1, 1, 15).reshape(5, 3).requires_grad_()
    net.zero_grad()
    torch.manual_seed(7)
    out = run(x)
    after = torch.rand(1)
    out.pow(2).sum().backward()
    return [out.detach(), after, x.grad, *(p.grad.clone() for p in net.parameters())]


def equal(a, b):
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@BOTH
def test_same_gradients(reentrant):
    net = network()
    plain = gradients(net, net)
    equal(gradients(net, lambda x: checkpoint(net, x, use_reentrant=reentrant)), plain)
    for segments in (1, 2, 3, 7):
        equal(gradients(net, lambda x, n=segments: C.checkpoint_sequential(net, n, x, use_reentrant=reentrant)), plain)
    twice = lambda x: checkpoint(lambda t: checkpoint(net, t, use_reentrant=reentrant) * 1, x, use_reentrant=reentrant)
    equal(gradients(net, twice), plain)


@BOTH
def test_random_state_without_preserving(reentrant):
    net = network()
    plain = gradients(net, net)
    other = gradients(net, lambda x: checkpoint(net, x, use_reentrant=reentrant, preserve_rng_state=False))
    assert torch.equal(plain[0], other[0]) and not torch.equal(plain[2], other[2])


def test_early_stop():
    runs = []

    def f(x):
        y = x.exp()
        runs.append("exp")
        z = y * 2 + 1
        runs.append("end")
        return z.detach().requires_grad_() if False else z

    x = torch.ones(2, requires_grad=True)
    checkpoint(f, x, use_reentrant=False).sum().backward()
    assert runs[:3] == ["exp", "end", "exp"] or runs == ["exp", "end"]
    early = len(runs)
    runs.clear()
    with C.set_checkpoint_early_stop(False):
        checkpoint(f, x, use_reentrant=False).sum().backward()
    assert runs == ["exp", "end", "exp", "end"] and early < 4


def test_every_way_of_running_backward():
    w = torch.full((2,), 3.0, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    f = lambda a, *, k: {"y": [(a**3 * w * k).sum()], "n": None}
    run = lambda: checkpoint(f, x, k=2.0, use_reentrant=False)["y"][0]
    (g,) = torch.autograd.grad(run(), x, create_graph=True)
    assert torch.allclose(g, 18 * x**2)
    (h,) = torch.autograd.grad(g.sum(), x)
    assert torch.allclose(h, 36 * x)
    y = run()
    first = torch.autograd.grad(y, (x, w), retain_graph=True)
    second = torch.autograd.grad(y, (x, w))
    equal(first, second)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y, x)
    with torch.no_grad():
        assert not run().requires_grad
    assert torch.autograd.gradcheck(lambda a: checkpoint(torch.sin, a, use_reentrant=False), (x,))


def test_less_is_kept():
    kept = []

    def pack(t):
        kept.append(t.numel())
        return t

    x = torch.randn(50, requires_grad=True)
    f = lambda a: a.exp().sin().tanh().sigmoid()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        f(x)
        plain = sum(kept)
        kept.clear()
        checkpoint(f, x, use_reentrant=False)
    assert sum(kept) <= plain / 3


def test_arguments_written_to_in_between():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    a = x * 1
    y = checkpoint(lambda t: t.exp(), a, use_reentrant=False)
    if IS_PYRITE:
        with torch.no_grad():
            a.detach().mul_(100)
        y.sum().backward()
        assert torch.allclose(x.grad, x.detach().exp())


def test_differences_between_the_runs():
    x = torch.ones(3, requires_grad=True)
    for change, words in [
        (
            lambda a, n: a.exp() if n == 1 else a[:2].exp().sum() + a * 0,
            "different metadata|different number|more tensors",
        ),
        (lambda a, n: a.exp().sin() if n == 1 else a.exp(), "different number|metadata"),
        (lambda a, n: a.exp() if n == 1 else a.exp().sin().cos(), "more tensors|different"),
    ]:
        count = [0]

        def f(a, change=change, count=count):
            count[0] += 1
            return change(a, count[0])

        with pytest.raises(C.CheckpointError, match=words):
            checkpoint(f, x, use_reentrant=False, early_stop=False).sum().backward()
        count[0] = 0
        with pytest.raises(C.CheckpointError) as caught:
            checkpoint(f, x, use_reentrant=False, early_stop=False, debug=True).sum().backward()
        assert "exp" in str(caught.value)


def test_refusals():
    x = torch.ones(2, requires_grad=True)
    with pytest.warns(UserWarning, match="use_reentrant"):
        checkpoint(torch.sin, x)
    with pytest.raises(ValueError, match="Unexpected keyword"):
        checkpoint(torch.sin, x, use_reentrant=True, k=1)
    with pytest.raises(ValueError, match="only supported when"):
        checkpoint(torch.sin, x, use_reentrant=True, debug=True)
    with pytest.raises(ValueError, match="determinism_check"):
        checkpoint(torch.sin, x, use_reentrant=False, determinism_check="strict").sum().backward()
    with pytest.raises(ZeroDivisionError):
        checkpoint(lambda a: a / (1 // 0), x, use_reentrant=False)


def test_contexts():
    seen = []

    class Noted:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            seen.append(self.name)

        def __exit__(self, *exc):
            return None

    x = torch.ones(2, requires_grad=True)
    y = checkpoint(torch.exp, x, use_reentrant=False, context_fn=lambda: (Noted("first"), Noted("second")))
    assert seen == ["first"]
    y.sum().backward()
    assert seen == ["first", "second"]


@pytest.mark.pyrite
@pytest.mark.parametrize("policy", ["save", "recompute", "offload", "list"])
def test_selective(policy):
    net = network()
    plain = gradients(net, net)
    calls = []
    linear = torch._C._nn.linear

    def decide(ctx, op, *args, **kwargs):
        calls.append((op.__name__, ctx.is_recompute))
        if op is not linear:
            return C.CheckpointPolicy.PREFER_RECOMPUTE
        return {
            "save": C.CheckpointPolicy.MUST_SAVE,
            "recompute": C.CheckpointPolicy.MUST_RECOMPUTE,
            "offload": C.CheckpointPolicy.MUST_CPU_OFFLOAD,
        }[policy]

    contexts = functools.partial(C.create_selective_checkpoint_contexts, [linear] if policy == "list" else decide)
    equal(gradients(net, lambda x: checkpoint(net, x, use_reentrant=False, context_fn=contexts)), plain)
    if policy != "list":
        assert ("linear", False) in calls and ("linear", True) in calls


@pytest.mark.pyrite
def test_selective_of_operators():
    x = torch.randn(3, 3, requires_grad=True)
    f = lambda a: ((a @ a).sin() * a).sum()
    contexts = functools.partial(C.create_selective_checkpoint_contexts, [torch.matmul])
    y = checkpoint(f, x, use_reentrant=False, context_fn=contexts)
    (g,) = torch.autograd.grad(y, x)
    assert torch.equal(g, torch.autograd.grad(f(x), x)[0])


def test_modules_with_running_statistics():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU())
    x = torch.randn(2, 1, 5, 5)
    plain = net(x)
    plain.sum().backward()
    grads = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    checkpoint(net, x, use_reentrant=False).sum().backward()
    assert all(torch.allclose(a, p.grad, atol=1e-6) for a, p in zip(grads, net.parameters(), strict=True))


def test_loss_inside():
    x = torch.randn(4, 3, requires_grad=True)
    t = torch.tensor([0, 2, 1, 1])
    checkpoint(F.cross_entropy, x, t, use_reentrant=False).backward()
    g = x.grad.clone()
    x.grad = None
    F.cross_entropy(x, t).backward()
    assert torch.equal(g, x.grad)


def test_reentrant_refuses_a_backward_for_some_inputs_only():
    w = torch.ones(3, requires_grad=True)
    x = torch.ones(3, requires_grad=True)

    def run():
        return checkpoint(lambda t: (t * w).sum(), x, use_reentrant=True)

    with pytest.raises(RuntimeError, match="use_reentrant=True"):
        torch.autograd.grad(run(), x)
    with pytest.raises(RuntimeError, match="use_reentrant=True"):
        torch.autograd.backward(run(), inputs=[x])
    run().backward()
    assert torch.equal(w.grad, torch.ones(3)) and torch.equal(x.grad, torch.ones(3))


@pytest.mark.parametrize("how", ["Tensor.backward", "autograd.backward", "autograd.grad", "nested"])
def test_reentrant_checkpoints_refuse_a_backward_for_some_inputs(how):
    x, w = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    y = checkpoint(lambda t: t * w, x, use_reentrant=True).sum()
    runs = {
        "Tensor.backward": lambda: y.backward(inputs=[x]),
        "autograd.backward": lambda: torch.autograd.backward(y, inputs=[x]),
        "autograd.grad": lambda: torch.autograd.grad(y, x),
    }
    if how == "nested":
        z = x * 1
        z.register_hook(lambda g: y.backward())
        runs[how] = lambda: torch.autograd.grad(z.sum(), x)
    with pytest.raises(RuntimeError, match="use_reentrant=True"):
        runs[how]()
    assert w.grad is None
    y = checkpoint(lambda t: t * w, x, use_reentrant=True).sum()
    y.backward()
    assert w.grad.tolist() == [1, 1]
