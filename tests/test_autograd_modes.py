"""Anomaly mode, `debug_nans`, inference mode; gradient penalty and Hessian-vector products."""

import warnings

import numpy as np
import pytest
from subject import nn, torch

F64 = torch.float64


def leaf(*values):
    return torch.tensor(values, dtype=F64, requires_grad=True)


# --- anomaly mode -----------------------------------------------------------------------------------------------------
def test_detect_anomaly_finds_nan_and_shows_the_forward():
    x = leaf(0.0)
    with warnings.catch_warnings(record=True) as caught, torch.autograd.detect_anomaly():
        warnings.simplefilter("always")
        y = (x.sqrt() * 0).sum()
        with pytest.raises(RuntimeError, match="returned nan values in its 0th output"):
            y.backward()
    text = "".join(str(w.message) for w in caught)
    assert "Error detected in" in text and "test_detect_anomaly_finds_nan_and_shows_the_forward" in text
    y = (x.sqrt() * 0).sum()
    y.backward()
    assert np.isnan(x.grad.numpy()).all()


def test_detect_anomaly_without_the_search():
    x = leaf(0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly(check_nan=False):
            (x.sqrt() * 0).sum().backward()
    assert np.isnan(x.grad.numpy()).all()


def test_anomaly_switches():
    assert not torch.is_anomaly_enabled()
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        assert torch.is_anomaly_enabled() and not torch.is_anomaly_check_nan_enabled()
    assert not torch.is_anomaly_enabled()
    torch.autograd.set_detect_anomaly(True)
    assert torch.is_anomaly_enabled() and torch.is_anomaly_check_nan_enabled()
    torch.set_anomaly_enabled(False)
    assert not torch.is_anomaly_enabled()


@pytest.mark.pyrite
def test_errors_of_backward_name_the_forward_line():
    x = leaf(1.0)
    y = x * 2  # forward line
    y.grad_fn.register_prehook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        y.sum().backward()
    with open(__file__) as f:
        line = next(i for i, text in enumerate(f, 1) if text.endswith("# forward line\n"))
    assert f"test_autograd_modes.py:{line}" in "".join(caught.value.__notes__)


# --- debug_nans -------------------------------------------------------------------------------------------------------
@pytest.mark.pyrite
@pytest.mark.parametrize(
    "f, name",
    [
        (lambda x: x.sqrt(), "sqrt"),
        (lambda x: torch.log(x), "log"),
        (lambda x: (x - x) / (x - x), "div"),
        (lambda x: x.clone().log_(), "log_"),
        (lambda x: x**0.5, "pow"),
    ],
)
def test_debug_nans_forward(f, name):
    with torch.autograd.debug_nans(), pytest.raises(RuntimeError, match=f"debug_nans: {name} made nan of finite") as e:
        f(leaf(-1.0, 4.0))
    text = str(e.value)
    assert "test_autograd_modes.py" in text and "Inputs: torch.float64 [2] in [" in text
    f(leaf(-1.0, 4.0))


@pytest.mark.pyrite
def test_debug_nans_backward():
    x = leaf(0.0, 1.0)
    y = (x * 0).sqrt().sum()  # the derivative of sqrt at 0 is inf, and inf * 0 is nan
    with torch.autograd.debug_nans(inf=True), pytest.raises(RuntimeError, match="backward of SqrtBackward0 made inf"):
        y.backward(retain_graph=True)
    y.backward()


@pytest.mark.pyrite
def test_debug_nans_lets_pass_what_came_in():
    with torch.autograd.debug_nans(inf=True):
        x = torch.tensor([float("nan"), 1.0])
        assert np.isnan((x + 1).numpy()[0])
        torch.zeros(2).fill_(float("nan"))
        torch.full((2,), float("inf"))
        torch.zeros(2).masked_fill(torch.tensor([True, False]), float("-inf"))

    @torch.autograd.debug_nans()
    def f(x):
        return x.sqrt()

    with pytest.raises(RuntimeError, match="debug_nans"):
        f(torch.tensor([-1.0]))


# --- inference mode ---------------------------------------------------------------------------------------------------
def test_inference_tensors():
    w = torch.ones(3, requires_grad=True)
    with torch.inference_mode():
        x = torch.ones(3)
        assert x.is_inference() and not (w * 2).requires_grad
        x.add_(1)
    assert (x + w).requires_grad and not x.clone().is_inference() and x[0].is_inference()
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        x * w
    (x.clone() * w).sum().backward()
    assert w.grad.tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode is not allowed"):
        x.add_(1)
    with pytest.raises(RuntimeError, match="Setting requires_grad=True on inference tensor outside InferenceMode"):
        x.requires_grad_()
    with pytest.raises(RuntimeError, match="Inference tensors do not track version counter"):
        x._version


def test_normal_tensors_in_inference_mode():
    y = torch.ones(3, requires_grad=True) * 1
    with torch.inference_mode():
        v = y[0]
        y.add_(1)
        assert not v.is_inference() and (y * 2).is_inference()
    with pytest.raises(RuntimeError, match="A view was created in inference mode and is being modified inplace"):
        v.add_(1)
    y.sum().backward()


def test_modes_as_decorators_of_generators():
    @torch.no_grad()
    def numbers():
        sent = yield torch.is_grad_enabled()
        assert not torch.is_grad_enabled()
        yield sent

    g = numbers()
    assert next(g) is False and torch.is_grad_enabled()
    assert g.send(3) == 3
    assert torch.is_grad_enabled()


# --- higher order in earnest ------------------------------------------------------------------------------------------
def test_gradient_penalty():
    """WGAN-GP: the gradient of a norm of a gradient, against finite differences in a random direction."""
    torch.manual_seed(1)
    critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Softplus(), nn.Linear(8, 1)).double()
    x = torch.randn(5, 3, dtype=F64)

    def penalty(create):
        inner = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(critic(inner).sum(), inner, create_graph=create)
        return ((g.norm(2, dim=1) - 1) ** 2).mean()

    penalty(True).backward()
    params = list(critic.parameters())
    direction = [torch.randn_like(p) for p in params]
    # The last bias takes no part.
    slope = sum(float((p.grad * d).sum()) for p, d in zip(params, direction) if p.grad is not None)
    values = []
    for eps in (1e-6, -1e-6):
        with torch.no_grad():
            for p, d in zip(params, direction):
                p.add_(d, alpha=eps)
        values.append(float(penalty(False)))
        with torch.no_grad():
            for p, d in zip(params, direction):
                p.sub_(d, alpha=eps)
    assert np.isclose(slope, (values[0] - values[1]) / 2e-6, rtol=1e-5, atol=1e-8)


def test_hessian_vector_product():
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 3)).double()
    x, y = torch.randn(7, 4, dtype=F64), torch.randint(0, 3, (7,))
    params = list(net.parameters())
    v = [torch.randn_like(p) for p in params]

    def grads(create):
        return torch.autograd.grad(nn.functional.cross_entropy(net(x), y), params, create_graph=create)

    hv = torch.autograd.grad(grads(True), params, v)
    moved = []
    for eps in (1e-6, -1e-6):
        with torch.no_grad():
            [p.add_(d, alpha=eps) for p, d in zip(params, v)]
        moved.append(grads(False))
        with torch.no_grad():
            [p.sub_(d, alpha=eps) for p, d in zip(params, v)]
    for h, a, b in zip(hv, *moved):
        assert np.allclose(h.numpy(), ((a - b) / 2e-6).numpy(), rtol=1e-4, atol=1e-6)
