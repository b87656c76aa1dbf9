"""Optimizers against their formulas in NumPy float64, state, groups, hooks; schedules against closed forms."""

import copy
import math

import numpy as np
import pytest
from subject import nn, optim, torch

S = optim.lr_scheduler


def parameter(values=(1.0, -2.0, 3.0)):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def gradients(n):
    return np.random.default_rng(0).normal(size=(n, 3))


def run(make, n=6, rule=None):
    p = parameter()
    opt = make([p])
    for g in gradients(n):
        p.grad = torch.from_numpy(g.copy())
        opt.step()
    if rule is not None:
        w = np.array([1.0, -2.0, 3.0])
        state = {}
        for t, g in enumerate(gradients(n), 1):
            w = rule(w, g, state, t)
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-9)
    return p, opt


def sgd(lr, momentum=0.0, dampening=0.0, decay=0.0, nesterov=False, sign=1):
    def rule(w, g, s, t):
        g = sign * g + decay * w
        if momentum:
            s["b"] = g if t == 1 else momentum * s["b"] + (1 - dampening) * g
            g = g + momentum * s["b"] if nesterov else s["b"]
        return w - lr * g

    return rule


def adam(lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, amsgrad=False, decoupled=False):
    def rule(w, g, s, t):
        if decoupled:
            w = w * (1 - lr * decay)
        else:
            g = g + decay * w
        s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
        v = s["v"]
        if amsgrad:
            v = s["x"] = np.maximum(s.get("x", 0), v)
        return w - lr / (1 - b1**t) * s["m"] / (np.sqrt(v) / math.sqrt(1 - b2**t) + eps)

    return rule


def rmsprop(lr, alpha=0.99, eps=1e-8, decay=0.0, momentum=0.0, centered=False):
    def rule(w, g, s, t):
        g = g + decay * w
        s["v"] = alpha * s.get("v", 0) + (1 - alpha) * g * g
        v = s["v"]
        if centered:
            s["m"] = alpha * s.get("m", 0) + (1 - alpha) * g
            v = v - s["m"] ** 2
        u = g / (np.sqrt(v) + eps)
        if momentum:
            u = s["b"] = momentum * s.get("b", 0) + u
        return w - lr * u

    return rule


RULES = [
    ("SGD", {"lr": 0.1}, sgd(0.1)),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}, sgd(0.1, 0.9, 0.3, 0.01)),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, sgd(0.1, 0.9, nesterov=True)),
    ("SGD", {"lr": 0.1, "maximize": True}, sgd(0.1, sign=-1)),
    ("Adam", {"lr": 0.01}, adam(0.01)),
    ("Adam", {"lr": 0.01, "betas": (0.5, 0.7), "weight_decay": 0.1}, adam(0.01, 0.5, 0.7, decay=0.1)),
    ("Adam", {"lr": 0.01, "amsgrad": True}, adam(0.01, amsgrad=True)),
    ("AdamW", {"lr": 0.01}, adam(0.01, decay=0.01, decoupled=True)),
    ("RMSprop", {"lr": 0.01}, rmsprop(0.01)),
    (
        "RMSprop",
        {"lr": 0.01, "momentum": 0.5, "centered": True, "weight_decay": 0.1, "alpha": 0.9},
        rmsprop(0.01, 0.9, decay=0.1, momentum=0.5, centered=True),
    ),
]


@pytest.mark.parametrize("name, options, rule", RULES)
def test_rule(name, options, rule):
    run(lambda p: getattr(optim, name)(p, **options), rule=rule)


ALL = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop", "ASGD"]


@pytest.mark.parametrize("name", ALL)
def test_state_dict_resumes_exactly(name):
    options = {"momentum": 0.9} if name == "SGD" else {}

    def make(p):
        return getattr(optim, name)(p, lr=0.01, **options)

    g = gradients(8)
    a = parameter()
    opt = make([a])
    for i in range(8):
        if i == 4:
            b = a.detach().clone().requires_grad_()
            other = make([b])
            other.load_state_dict(copy.deepcopy(opt.state_dict()))
        a.grad = torch.from_numpy(g[i].copy())
        opt.step()
        if i >= 4:
            b.grad = torch.from_numpy(g[i].copy())
            other.step()
    assert a.tolist() == b.tolist()


def test_adam_state_has_pytorchs_keys():
    _, opt = run(lambda p: optim.Adam(p))
    state = opt.state_dict()
    assert set(state) == {"state", "param_groups"}
    assert list(state["state"][0]) == ["step", "exp_avg", "exp_avg_sq"]
    assert state["state"][0]["step"].item() == 6 and state["state"][0]["step"].shape == ()
    assert state["param_groups"][0]["params"] == [0]
    assert list(state["param_groups"][0])[:5] == ["lr", "betas", "eps", "weight_decay", "amsgrad"]


def test_parameters_that_sit_out_keep_their_own_count():
    a, b = parameter(), parameter()
    opt = optim.Adam([a, b], lr=0.1)
    for i in range(4):
        a.grad = torch.ones(3, dtype=torch.float64)
        b.grad = torch.ones(3, dtype=torch.float64) if i % 2 == 0 else None
        opt.step()
    assert opt.state[a]["step"].item() == 4 and opt.state[b]["step"].item() == 2
    alone = parameter()
    other = optim.Adam([alone], lr=0.1)
    for _ in range(2):
        alone.grad = torch.ones(3, dtype=torch.float64)
        other.step()
    assert b.tolist() == alone.tolist()


def test_groups():
    a, b, c = (nn.Parameter(torch.ones(1)) for _ in range(3))
    opt = optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1, momentum=0)
    opt.add_param_group({"params": c, "lr": 1.0})
    for p in (a, b, c):
        p.grad = torch.ones(1)
    opt.step()
    assert [round(p.item(), 6) for p in (a, b, c)] == [0.9, 0.5, 0.0]
    assert [g["momentum"] for g in opt.param_groups] == [0, 0, 0]
    with pytest.raises(ValueError, match="more than one parameter group"):
        opt.add_param_group({"params": [a]})
    with pytest.raises(ValueError, match="different number of parameter groups"):
        opt.load_state_dict(optim.SGD([a], lr=0.1).state_dict())
    assert "Parameter Group 1" in repr(opt)


def test_bad_arguments():
    p = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="empty parameter list"):
        optim.SGD([], lr=0.1)
    with pytest.raises(TypeError):
        optim.SGD(p, lr=0.1)
    with pytest.raises(TypeError):
        optim.SGD([1.0], lr=0.1)
    with pytest.raises(ValueError, match="non-leaf"):
        optim.SGD([p * 2], lr=0.1)
    for make in (
        lambda: optim.SGD([p], lr=-1),
        lambda: optim.SGD([p], lr=0.1, nesterov=True),
        lambda: optim.Adam([p], betas=(1.0, 0.9)),
        lambda: optim.Adam([p], eps=-1.0),
        lambda: optim.RMSprop([p], weight_decay=-1),
    ):
        with pytest.raises(ValueError):
            make()


def test_zero_grad_and_closure():
    p = parameter()
    opt = optim.SGD([p], lr=0.1)

    def closure():
        opt.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert opt.step(closure).item() == 14
    opt.zero_grad()
    assert p.grad is None
    p.grad = torch.ones(3, dtype=torch.float64)
    g = p.grad
    opt.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0, 0, 0] and g.tolist() == [0, 0, 0]


def test_hooks():
    p = parameter()
    opt = optim.SGD([p], lr=0.1)
    log = []
    h = opt.register_step_pre_hook(lambda o, a, k: log.append("pre"))
    opt.register_step_post_hook(lambda o, a, k: log.append("post"))
    opt.step()
    h.remove()
    opt.step()
    assert log == ["pre", "post", "post"]


def test_own_optimizer():
    class Mine(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["n"] = self.state[p].get("n", 0) + 1
                    p.add_(p.grad, alpha=-group["lr"])

    p = parameter((1.0,))
    opt = Mine([p], 0.5)
    p.grad = torch.ones(1, dtype=torch.float64)
    opt.step()
    assert p.item() == 0.5 and opt.state_dict()["state"] == {0: {"n": 1}}


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_solves_a_quadratic(search):
    a = np.random.default_rng(2).normal(size=(5, 5))
    a = torch.from_numpy(a @ a.T + np.eye(5))
    x = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    b = torch.ones(5, dtype=torch.float64)
    opt = optim.LBFGS([x], max_iter=60, lr=1 if search else 0.5, line_search_fn=search, tolerance_grad=1e-10)

    def closure():
        opt.zero_grad()
        loss = 0.5 * x.dot(a.mv(x)) - b.dot(x)
        loss.backward()
        return loss

    for _ in range(3):
        opt.step(closure)
    np.testing.assert_allclose(a.mv(x).detach().numpy(), b.numpy(), atol=1e-4)
    with pytest.raises(ValueError):
        optim.LBFGS([{"params": [x]}, {"params": [parameter()]}])


# --- schedules -------------------------------------------------------------------------------------------------------
def rates(make, n=8, lr=1.0, **options):
    opt = optim.SGD([nn.Parameter(torch.ones(1))], lr=lr, **options)
    s = make(opt)
    seen = [opt.param_groups[0]["lr"]]
    for _ in range(n):
        opt.step()
        s.step()
        seen.append(opt.param_groups[0]["lr"])
    return np.array(seen)


E = np.arange(9)
SCHEDULES = {
    "StepLR": (lambda o: S.StepLR(o, 3, 0.5), 0.5 ** (E // 3)),
    "MultiStepLR": (lambda o: S.MultiStepLR(o, [2, 5], 0.1), 0.1 ** ((E >= 2) * 1.0 + (E >= 5))),
    "ExponentialLR": (lambda o: S.ExponentialLR(o, 0.9), 0.9**E),
    "LambdaLR": (lambda o: S.LambdaLR(o, lambda e: 1 / (1 + e)), 1 / (1 + E)),
    "MultiplicativeLR": (lambda o: S.MultiplicativeLR(o, lambda e: 0.5), 0.5**E),
    "LinearLR": (lambda o: S.LinearLR(o, 0.5, 1.0, 4), np.minimum(0.5 + 0.125 * E, 1)),
    "ConstantLR": (lambda o: S.ConstantLR(o, 0.5, 4), np.where(E < 4, 0.5, 1)),
    "PolynomialLR": (lambda o: S.PolynomialLR(o, 8, 2.0), (1 - E / 8) ** 2),
    "CosineAnnealingLR": (lambda o: S.CosineAnnealingLR(o, 8, 0.2), 0.2 + 0.4 * (1 + np.cos(np.pi * E / 8))),
    "CosineAnnealingWarmRestarts": (
        lambda o: S.CosineAnnealingWarmRestarts(o, 2, 2),
        0.5 * (1 + np.cos(np.pi * np.array([0, 0.5, 0, 0.25, 0.5, 0.75, 0, 1 / 8, 2 / 8]))),
    ),
    "SequentialLR": (
        lambda o: S.SequentialLR(o, [S.ConstantLR(o, 0.5, 10), S.ExponentialLR(o, 0.9)], [3]),
        np.where(E < 3, 0.5, 0.9 ** np.maximum(E - 3, 0)),
    ),
    "ChainedScheduler": (
        lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.5, 4), S.ExponentialLR(o, 0.9)]),
        np.where(E < 4, 0.5, 1) * 0.9**E,
    ),
    "CyclicLR": (
        lambda o: S.CyclicLR(o, 0.0, 1.0, 4, cycle_momentum=False),
        np.array([0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0]),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name):
    make, expected = SCHEDULES[name]
    np.testing.assert_allclose(rates(make), expected, atol=1e-12)


def test_one_cycle():
    seen = rates(lambda o: S.OneCycleLR(o, 1.0, total_steps=9, pct_start=0.5), 8, momentum=0.9)
    assert seen.argmax() in (3, 4) and seen[0] == pytest.approx(1 / 25) and seen[-1] == pytest.approx(1 / 25e4)
    opt = optim.Adam([nn.Parameter(torch.ones(1))])
    S.OneCycleLR(opt, 1.0, total_steps=9)
    assert opt.param_groups[0]["betas"] == (0.95, 0.999)
    with pytest.raises(ValueError):
        S.OneCycleLR(opt, 1.0)


def test_plateau():
    opt = optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    s = S.ReduceLROnPlateau(opt, patience=1, factor=0.5, cooldown=1, min_lr=0.3)
    seen = []
    for loss in [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]:
        s.step(loss)
        seen.append(opt.param_groups[0]["lr"])
    assert seen == [1, 1, 0.5, 0.5, 0.5, 0.3, 0.3]


def test_schedule_resumes():
    opt = optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    s = S.CosineAnnealingLR(opt, 8)
    for _ in range(3):
        opt.step()
        s.step()
    other = optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    t = S.CosineAnnealingLR(other, 8)
    other.load_state_dict(opt.state_dict())
    t.load_state_dict(s.state_dict())
    for o, q in ((opt, s), (other, t)):
        o.step()
        q.step()
    assert s.get_last_lr() == t.get_last_lr() and t.last_epoch == 4


def test_order_is_checked():
    opt = optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    s = S.StepLR(opt, 1)
    with pytest.warns(UserWarning, match=r"before `optimizer\.step\(\)`"):
        s.step()


@pytest.mark.torch
@pytest.mark.pyrite
@pytest.mark.parametrize("name", ALL)
def test_against_torch(name):
    reference = pytest.importorskip("torch")
    a, b = parameter(), reference.tensor([1.0, -2.0, 3.0], dtype=reference.float64, requires_grad=True)
    ours, theirs = getattr(optim, name)([a], lr=0.05), getattr(reference.optim, name)([b], lr=0.05)
    for g in gradients(10):
        a.grad, b.grad = torch.from_numpy(g.copy()), reference.from_numpy(g.copy())
        ours.step()
        theirs.step()
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9)
    assert list(ours.state_dict()["param_groups"][0]) == list(theirs.state_dict()["param_groups"][0])
    assert {k: list(v) for k, v in ours.state_dict()["state"].items()} == {
        k: list(v) for k, v in theirs.state_dict()["state"].items()
    }
