"""Modules: registration, hooks, state, printing, error paths; layers and losses against closed forms."""

import copy
import math
import pickle

import numpy as np
import pytest
from subject import F, nn, torch


def close(t, expected, tol=1e-5):
    np.testing.assert_allclose(t.detach().numpy(), np.asarray(expected), rtol=tol, atol=tol)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("cache", torch.zeros(1), persistent=False)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.layers(x) * self.scale * self.gain


# --- registration ----------------------------------------------------------------------------------------------------
def test_names():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "gain", "layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias",
    ]  # fmt: skip
    assert [n for n, _ in net.named_buffers()] == ["scale", "cache"]
    assert [n for n, _ in net.named_modules()] == ["", "layers", "layers.0", "layers.1", "layers.2"]
    assert [n for n, _ in net.named_children()] == ["layers"]
    assert list(net.state_dict()) == [
        "gain", "scale", "layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias",
    ]  # fmt: skip
    assert net.get_submodule("layers.2") is net.layers[2]
    assert net.get_parameter("layers.0.bias") is net.layers[0].bias
    assert net.get_buffer("scale") is net.scale
    with pytest.raises(AttributeError, match="nope"):
        net.get_submodule("layers.nope")


def test_shared_parameters_come_once():
    net = nn.Module()
    net.a = nn.Linear(2, 2)
    net.b = net.a
    assert len(list(net.parameters())) == 2
    assert [n for n, _ in net.named_parameters(remove_duplicate=False)] == ["a.weight", "a.bias", "b.weight", "b.bias"]
    assert len(list(net.children())) == 1


def test_assignment_rules():
    net = Net()
    with pytest.raises(TypeError, match="as parameter 'gain'"):
        net.gain = 3
    with pytest.raises(TypeError, match="as child module 'layers'"):
        net.layers = 3
    with pytest.raises(TypeError, match="as buffer 'scale'"):
        net.scale = 3
    net.scale = torch.full((2,), 5.0)
    assert "scale" in dict(net.named_buffers())
    net.gain = None
    assert "gain" not in dict(net.named_parameters()) and net.gain is None
    net.layers = nn.Linear(1, 1)
    assert "layers.weight" in dict(net.named_parameters())
    net.plain = 3
    net.plain = nn.Parameter(torch.ones(1))
    assert "plain" in dict(net.named_parameters()) and "plain" not in net.__dict__
    net.gain2 = nn.Buffer(torch.ones(1))
    assert "gain2" in dict(net.named_buffers())
    del net.plain
    assert not hasattr(net, "plain")

    class Early(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(torch.ones(1))

    with pytest.raises(AttributeError, match=r"before Module\.__init__\(\) call"):
        Early()
    with pytest.raises(KeyError):
        net.register_parameter("a.b", None)
    with pytest.raises(KeyError):
        net.register_buffer("forward", torch.ones(1))
    with pytest.raises(TypeError):
        net.add_module("m", 3)
    with pytest.raises(TypeError):
        nn.Module(3)
    with pytest.raises(NotImplementedError):
        nn.Module()(1)


def test_parameter():
    p = nn.Parameter(torch.ones(2))
    assert isinstance(p, torch.Tensor) and isinstance(p, nn.Parameter) and p.requires_grad and p.is_leaf
    assert not isinstance(torch.ones(1), nn.Parameter)
    assert type(p + 1) is torch.Tensor
    assert repr(p).startswith("Parameter containing:\ntensor([1., 1.]")
    q = copy.deepcopy(p)
    assert type(q) is nn.Parameter and q.data_ptr() != p.data_ptr() and q.tolist() == [1, 1]
    r = pickle.loads(pickle.dumps(p))
    assert type(r) is nn.Parameter and r.tolist() == [1, 1] and r.requires_grad
    (p * p).sum().backward()
    assert p.grad.tolist() == [2, 2] and p.grad is p.grad


# --- modes and conversions -------------------------------------------------------------------------------------------
def test_modes():
    net = Net()
    assert net.training and net.layers[0].training
    assert net.eval() is net and not net.layers[1].training
    net.train()
    assert net.layers[1].training
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    seen = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen[-1] == "Net" and len(seen) == 5


def test_to_changes_floats_only():
    net = nn.BatchNorm1d(3)
    net.weight.grad = torch.ones(3)
    weight = net.weight
    net.to(torch.float64)
    assert net.weight is weight and weight.dtype == torch.float64 and weight.grad.dtype == torch.float64
    assert net.running_mean.dtype == torch.float64 and net.num_batches_tracked.dtype == torch.int64
    assert net.float().weight.dtype == torch.float32
    assert net.double().to(torch.ones(1)).weight.dtype == torch.float32
    with pytest.raises(TypeError, match="floating point"):
        net.to(torch.int64)


def test_zero_grad():
    net = Net()
    net(torch.ones(1, 4)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all(float(p.grad.abs().sum()) == 0 for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


# --- state -----------------------------------------------------------------------------------------------------------
def test_load_state_dict():
    a, b = Net(), Net()
    assert repr(b.load_state_dict(a.state_dict())) == "<All keys matched successfully>"
    x = torch.randn(3, 4)
    assert a(x).tolist() == b(x).tolist()
    state = a.state_dict()
    del state["scale"]
    state["layers.9.weight"] = torch.ones(1)
    state["gain"] = torch.ones(7)
    with pytest.raises(RuntimeError) as e:
        b.load_state_dict(state)
    text = str(e.value)
    assert "Error(s) in loading state_dict for Net:" in text
    assert 'Missing key(s) in state_dict: "scale"' in text
    assert 'Unexpected key(s) in state_dict: "layers.9.weight"' in text
    assert "size mismatch for gain: copying a param with shape torch.Size([7]) from checkpoint" in text
    del state["gain"]
    result = b.load_state_dict(state, strict=False)
    assert set(result.missing_keys) == {"scale", "gain"} and result.unexpected_keys == ["layers.9.weight"]


def test_assign_keeps_the_given_tensors():
    a, b = nn.Linear(2, 2).double(), nn.Linear(2, 2)
    b.load_state_dict(a.state_dict(), assign=True)
    assert b.weight.dtype == torch.float64 and isinstance(b.weight, nn.Parameter) and b.weight.requires_grad


def test_extra_state_and_hooks():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"n": 7}

        def set_extra_state(self, state):
            self.n = state["n"]

    a, b = Extra(1, 1), Extra(1, 1)
    a.register_state_dict_post_hook(lambda m, s, p, meta: s.update(added=torch.ones(1)))
    state = a.state_dict()
    assert state.pop("added").item() == 1
    seen = []
    b.register_load_state_dict_post_hook(lambda m, keys: seen.append(keys))
    b.load_state_dict(state)
    assert b.n == 7 and len(seen) == 1


def test_deepcopy_and_pickle():
    net = Net()
    twin = copy.deepcopy(net)
    again = pickle.loads(pickle.dumps(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
    assert [n for n, _ in again.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    x = torch.randn(2, 4)
    assert net(x).tolist() == twin(x).tolist()
    twin.gain.data.fill_(0)
    assert net.gain.item() == 1


# --- hooks -----------------------------------------------------------------------------------------------------------
def test_forward_hooks():
    layer = nn.Linear(2, 2)
    log = []
    h1 = layer.register_forward_pre_hook(lambda m, args: (args[0] * 0,))
    h2 = layer.register_forward_hook(lambda m, args, out: log.append(args[0].abs().sum().item()) or out + 1)
    close(layer(torch.ones(1, 2)), (layer.bias + 1).detach().numpy()[None])
    assert log == [0.0]
    h1.remove()
    h2.remove()
    close(layer(torch.zeros(1, 2)), layer.bias.detach().numpy()[None])
    with layer.register_forward_pre_hook(lambda m, args, kwargs: ((torch.zeros(1, 2),), kwargs), with_kwargs=True):
        close(layer(torch.ones(1, 2)), layer.bias.detach().numpy()[None])
    called = []
    layer.register_forward_hook(lambda *a: called.append(a[-1]), always_call=True)
    with pytest.raises((RuntimeError, ValueError)):
        layer(torch.ones(1, 3))
    assert called == [None]


def test_full_backward_hooks():
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data.copy_(torch.eye(2))
    log = []
    layer.register_full_backward_pre_hook(lambda m, g: log.append(("pre", g[0].tolist())))
    layer.register_full_backward_hook(
        lambda m, gi, go: log.append(("post", gi[0].tolist(), go[0].tolist())) or (gi[0] * 10,)
    )
    x = torch.ones(1, 2, requires_grad=True)
    (layer(x) * torch.tensor([1.0, 2.0])).sum().backward()
    assert log == [("pre", [[1, 2]]), ("post", [[1, 2]], [[1, 2]])]
    assert x.grad.tolist() == [[10, 20]]


def test_full_backward_hook_without_input_gradient():
    layer = nn.Linear(2, 2)
    seen = []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].shape)))
    layer(torch.ones(1, 2)).sum().backward()
    assert seen == [((None,), (1, 2))]


# --- printing and errors ---------------------------------------------------------------------------------------------
def test_repr():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.ReLU(inplace=True), nn.Sequential(nn.Flatten()))
    assert repr(net) == (
        "Sequential(\n"
        "  (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)\n"
        "  (1): ReLU(inplace=True)\n"
        "  (2): Sequential(\n"
        "    (0): Flatten(start_dim=1, end_dim=-1)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.ModuleList([nn.Linear(1, 1) for _ in range(3)])) == (
        "ModuleList(\n  (0-2): 3 x Linear(in_features=1, out_features=1, bias=True)\n)"
    )


REPRS = [
    ("Linear(2, 3, bias=False)", "Linear(in_features=2, out_features=3, bias=False)"),
    ("Conv1d(2, 4, 3, stride=2, groups=2)", "Conv1d(2, 4, kernel_size=(3,), stride=(2,), groups=2)"),
    ("Conv2d(2, 4, 3, padding='same')", "Conv2d(2, 4, kernel_size=(3, 3), stride=(1, 1), padding=same)"),
    (
        "ConvTranspose2d(2, 4, 3, stride=2, output_padding=1)",
        "ConvTranspose2d(2, 4, kernel_size=(3, 3), stride=(2, 2), output_padding=(1, 1))",
    ),
    ("MaxPool2d(2)", "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"),
    ("AvgPool2d(3, 2)", "AvgPool2d(kernel_size=3, stride=2, padding=0)"),
    ("BatchNorm2d(3)", "BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)"),
    ("LayerNorm(3)", "LayerNorm((3,), eps=1e-05, elementwise_affine=True, bias=True)"),
    ("GroupNorm(2, 4)", "GroupNorm(2, 4, eps=1e-05, affine=True, bias=True)"),
    ("RMSNorm(3)", "RMSNorm((3,), eps=None, elementwise_affine=True)"),
    ("Dropout(0.2)", "Dropout(p=0.2, inplace=False)"),
    ("Embedding(3, 4, padding_idx=1)", "Embedding(3, 4, padding_idx=1)"),
    ("LeakyReLU(0.2)", "LeakyReLU(negative_slope=0.2)"),
    ("GELU()", "GELU(approximate='none')"),
    ("Softmax(dim=1)", "Softmax(dim=1)"),
    ("CrossEntropyLoss()", "CrossEntropyLoss()"),
    ("ReLU6()", "ReLU6()"),
    ("Unflatten(1, (2, 3))", "Unflatten(dim=1, unflattened_size=(2, 3))"),
]


@pytest.mark.parametrize("code, expected", REPRS)
def test_repr_of_layers(code, expected):
    assert repr(eval("nn." + code)) == expected


@pytest.mark.pyrite
def test_an_error_names_the_layer():
    net = nn.ModuleDict({"encoder": nn.Sequential(nn.ReLU(), nn.Linear(4, 5))})

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = net

        def forward(self, x):
            return self.parts["encoder"](x)

    with pytest.raises((RuntimeError, ValueError)) as e:
        Model()(torch.ones(8, 3))
    assert e.value.__notes__ == [
        "in module parts.encoder.1: Linear(in_features=4, out_features=5, bias=True) got ((8, 3))"
    ]


# --- containers ------------------------------------------------------------------------------------------------------
def test_sequential():
    s = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    s.append(nn.Linear(2, 3)).insert(1, nn.Tanh())
    assert [type(m).__name__ for m in s] == ["Linear", "Tanh", "ReLU", "Linear"]
    assert type(s[1:3]) is nn.Sequential and len(s[1:3]) == 2 and s[-1].out_features == 3
    del s[1]
    s[0] = nn.Linear(1, 2, bias=False)
    assert list(s.state_dict()) == ["0.weight", "2.weight", "2.bias"]
    assert len(s + nn.Sequential(nn.ReLU())) == 4 and len(s * 2) == 6
    with pytest.raises(IndexError):
        s[5]
    assert type(s.pop(1)).__name__ == "ReLU"


def test_lists_and_dicts():
    m = nn.ModuleList([nn.Linear(1, 1)])
    m += [nn.ReLU()]
    m.insert(0, nn.Tanh())
    assert [type(x).__name__ for x in m] == ["Tanh", "Linear", "ReLU"] and list(m.state_dict()) == [
        "1.weight",
        "1.bias",
    ]
    d = nn.ModuleDict([("a", nn.Linear(1, 1))])
    d.update({"b": nn.ReLU()})
    assert list(d) == ["a", "b"] and "a" in d and len(d) == 2
    p = nn.ParameterList([torch.ones(1), nn.Parameter(torch.ones(2))])
    p.append(torch.ones(3))
    assert [n for n, _ in p.named_parameters()] == ["0", "1", "2"] and p[-1].shape == (3,)
    q = nn.ParameterDict({"x": torch.ones(1)})
    q["y"] = torch.ones(2)
    assert list(q.keys()) == ["x", "y"] and len(list(q.parameters())) == 2 and q.pop("x").shape == (1,)


# --- layers ----------------------------------------------------------------------------------------------------------
def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


X = np.linspace(-4, 4, 41, dtype=np.float32)
ACTIVATIONS = {
    "ReLU()": np.maximum(X, 0),
    "ELU(0.5)": np.where(X > 0, X, 0.5 * np.expm1(X)),
    "SELU()": 1.0507009873554805 * np.where(X > 0, X, 1.6732632423543772 * np.expm1(X)),
    "CELU(2.0)": np.maximum(X, 0) + np.minimum(0, 2 * np.expm1(X / 2)),
    "GELU()": X * 0.5 * (1 + np.vectorize(math.erf)(X / math.sqrt(2))),
    "GELU('tanh')": 0.5 * X * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3))),
    "SiLU()": X / (1 + np.exp(-X)),
    "Mish()": X * np.tanh(np.log1p(np.exp(X))),
    "Sigmoid()": 1 / (1 + np.exp(-X)),
    "Tanh()": np.tanh(X),
    "LeakyReLU(0.1)": np.where(X > 0, X, 0.1 * X),
    "Hardtanh(-2.0, 1.0)": np.clip(X, -2, 1),
    "ReLU6()": np.clip(X, 0, 6),
    "Hardsigmoid()": np.clip(X + 3, 0, 6) / 6,
    "Hardswish()": X * np.clip(X + 3, 0, 6) / 6,
    "Softplus(2.0)": np.log1p(np.exp(2 * X)) / 2,
    "Softsign()": X / (1 + np.abs(X)),
    "LogSigmoid()": -np.log1p(np.exp(-X)),
    "Tanhshrink()": X - np.tanh(X),
    "Hardshrink()": np.where(np.abs(X) > 0.5, X, 0),
    "Softshrink()": np.sign(X) * np.maximum(np.abs(X) - 0.5, 0),
    "Threshold(1.0, 9.0)": np.where(X > 1, X, 9),
    "PReLU()": np.where(X > 0, X, 0.25 * X),
    "Softmax(0)": softmax(X, 0),
    "LogSoftmax(0)": np.log(softmax(X, 0)),
    "Softmin(0)": softmax(-X, 0),
}


@pytest.mark.parametrize("code", ACTIVATIONS)
def test_activation(code):
    close(eval("nn." + code)(torch.from_numpy(X.copy())), ACTIVATIONS[code])


@pytest.mark.parametrize("name", ["relu", "elu", "selu", "celu", "leaky_relu", "silu", "mish", "hardswish", "relu6"])
def test_in_place_activation_has_the_same_gradient(name):
    x = torch.linspace(-3.05, 3, 9, requires_grad=True)
    y = torch.linspace(-3.05, 3, 9, requires_grad=True)
    getattr(F, name)(x).sum().backward()
    z = y * 1
    assert getattr(F, name)(z, inplace=True) is z
    z.sum().backward()
    close(y.grad, x.grad.tolist())


def test_pools():
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    a = x.numpy()[0, 0]
    close(nn.AvgPool2d(2)(x)[0, 0], a.reshape(3, 2, 3, 2).mean((1, 3)))
    close(nn.AdaptiveAvgPool2d((2, 3))(x)[0, 0], a.reshape(2, 3, 3, 2).mean((1, 3)))
    close(nn.AdaptiveAvgPool2d((None, 1))(x)[0, 0], a.mean(1, keepdims=True))
    out, index = F.max_pool2d(x, 3, return_indices=True)
    close(out[0, 0], a.reshape(2, 3, 2, 3).max((1, 3)))
    assert index.flatten().tolist() == [14, 17, 32, 35]
    close(nn.MaxPool1d(2, 1)(x[0]), np.maximum(a[None, :, :-1], a[None, :, 1:]))
    close(nn.AvgPool1d(3)(x[0]), a.reshape(1, 6, 2, 3).mean(-1))
    close(F.adaptive_max_pool2d(x, 2)[0, 0], a.reshape(2, 3, 2, 3).max((1, 3)))
    close(F.lp_pool2d(x, 2.0, 2)[0, 0], np.sqrt((a**2).reshape(3, 2, 3, 2).sum((1, 3))), 1e-4)


@pytest.mark.parametrize("mode, numpy_mode", [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
def test_padding_modes(mode, numpy_mode):
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    close(F.pad(x, (1, 2, 2, 1), mode), np.pad(x.numpy(), ((0, 0), (0, 0), (2, 1), (1, 2)), numpy_mode))


def test_constant_padding():
    x = torch.arange(6.0).reshape(2, 3)
    close(F.pad(x, (1, 2), value=7.0), np.pad(x.numpy(), ((0, 0), (1, 2)), constant_values=7))
    assert F.pad(x, (-1, 0)).tolist() == [[1, 2], [4, 5]]
    assert nn.ZeroPad2d(1)(x[None]).shape == (1, 4, 5)


def test_norms():
    rng = np.random.default_rng(0)
    a = rng.normal(2, 3, (4, 6, 5)).astype(np.float32)
    x = torch.from_numpy(a)

    def normal(a, axes):
        return (a - a.mean(axes, keepdims=True)) / np.sqrt(a.var(axes, keepdims=True) + 1e-5)

    close(nn.LayerNorm((6, 5))(x), normal(a, (1, 2)), 1e-4)
    close(nn.GroupNorm(2, 6)(x), normal(a.reshape(4, 2, 15), 2).reshape(4, 6, 5), 1e-4)
    close(nn.InstanceNorm1d(6)(x), normal(a, 2), 1e-4)
    close(nn.RMSNorm(5, eps=1e-6)(x), a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-6), 1e-4)
    bn = nn.BatchNorm1d(6)
    close(bn(x), normal(a, (0, 2)), 1e-4)
    close(bn.running_mean, 0.1 * a.mean((0, 2)), 1e-4)
    close(bn.running_var, 0.9 + 0.1 * a.var((0, 2), ddof=1), 1e-4)
    average = nn.BatchNorm1d(6, momentum=None)
    average(x)
    average(x * 2)
    close(average.running_mean, 1.5 * a.mean((0, 2)), 1e-4)
    free = nn.BatchNorm1d(6, track_running_stats=False).eval()
    close(free(x), normal(a, (0, 2)), 1e-4)
    tracked = nn.InstanceNorm1d(6, track_running_stats=True)
    tracked(x)
    close(tracked.running_mean, 0.1 * a.mean(2).mean(0), 1e-4)
    with pytest.raises(ValueError, match="4D"):
        nn.BatchNorm2d(6)(x)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm1d(6)(torch.ones(1, 6))


def test_conv_options():
    x = torch.randn(2, 4, 8)
    same = nn.Conv1d(4, 4, 4, padding="same", dilation=2)
    assert same(x).shape == (2, 4, 8)
    circular = nn.Conv1d(4, 2, 3, padding=1, padding_mode="circular")
    wrapped = F.conv1d(torch.cat([x[..., -1:], x, x[..., :1]], -1), circular.weight, circular.bias)
    close(circular(x), wrapped.detach().numpy())
    up = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1)
    y = torch.randn(1, 3, 5, 5)
    assert up(y).shape == (1, 2, 9, 9) and up(y, output_size=(10, 10)).shape == (1, 2, 10, 10)
    with pytest.raises(ValueError, match="output size"):
        up(y, output_size=(12, 12))
    with pytest.raises(ValueError, match="divisible by groups"):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(ValueError, match="padding_mode"):
        nn.Conv2d(3, 4, 3, padding_mode="no")


def test_conv_transpose_is_the_gradient_of_conv():
    w = torch.randn(4, 3, 3, dtype=torch.float64)
    x = torch.randn(2, 3, 9, dtype=torch.float64, requires_grad=True)
    g = torch.randn(2, 4, 5, dtype=torch.float64)
    (F.conv1d(x, w, stride=2, padding=1) * g).sum().backward()
    close(F.conv_transpose1d(g, w, stride=2, padding=1), x.grad.numpy(), 1e-9)


def test_embedding():
    e = nn.Embedding(5, 3, padding_idx=-1)
    assert e.weight[4].tolist() == [0, 0, 0] and e.padding_idx == 4
    e(torch.tensor([[0, 4], [0, 1]])).sum().backward()
    assert e.weight.grad.tolist() == [[2] * 3, [1] * 3, [0] * 3, [0] * 3, [0] * 3]
    fixed = nn.Embedding.from_pretrained(torch.eye(3))
    assert not fixed.weight.requires_grad and fixed(torch.tensor(1)).tolist() == [0, 1, 0]
    with pytest.raises(IndexError):
        e(torch.tensor([5]))


def test_dropouts():
    x = torch.ones(50, 40, 6)
    y = nn.Dropout1d(0.5)(x)
    kept = (y != 0).sum(-1)
    assert set(kept.flatten().tolist()) == {0, 6} and float(y.max()) == 2
    assert nn.Dropout(0.3).eval()(x) is x
    a = nn.AlphaDropout(0.2)(torch.randn(200, 200))
    assert abs(a.mean().item()) < 0.03 and abs(a.std().item() - 1) < 0.03
    with pytest.raises(ValueError, match="between 0 and 1"):
        nn.Dropout(1.5)
    assert float(F.dropout(x, 1.0).abs().max()) == 0


def test_shuffles():
    x = torch.arange(16.0).reshape(1, 4, 2, 2)
    y = nn.PixelShuffle(2)(x)
    assert y[0, 0].tolist() == [[0, 4, 1, 5], [8, 12, 9, 13], [2, 6, 3, 7], [10, 14, 11, 15]]
    assert nn.PixelUnshuffle(2)(y).tolist() == x.tolist()


def test_embedding_options():
    w = torch.tensor([[3.0, 4.0], [0.3, 0.4], [6.0, 8.0]], requires_grad=True)
    i = torch.tensor([0, 1, 0])
    F.embedding(i, w, scale_grad_by_freq=True).sum().backward()
    close(w.grad, [[1, 1], [1, 1], [0, 0]])
    out = F.embedding(i, w, max_norm=1.0)
    close(out, [[0.6, 0.8], [0.3, 0.4], [0.6, 0.8]])
    close(w, [[0.6, 0.8], [0.3, 0.4], [6, 8]])  # rows that are not used stay


def test_one_hot():
    assert F.one_hot(torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert F.one_hot(torch.tensor([[1]]), 4).tolist() == [[[0, 1, 0, 0]]]
    for bad in (lambda: F.one_hot(torch.tensor([3]), 3), lambda: F.one_hot(torch.tensor([-1]))):
        with pytest.raises(RuntimeError):
            bad()


def test_attention():
    rng = np.random.default_rng(5)
    q, k, v = (rng.normal(size=(2, 4, n, 8)) for n in (3, 5, 5))
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(8)
    attend = lambda s: softmax(s, -1) @ v
    args = [torch.from_numpy(a) for a in (q, k, v)]
    close(F.scaled_dot_product_attention(*args), attend(scores), 1e-9)
    causal = np.tril(np.ones((3, 5), bool))
    close(F.scaled_dot_product_attention(*args, is_causal=True), attend(np.where(causal, scores, -np.inf)), 1e-9)
    close(F.scaled_dot_product_attention(*args, attn_mask=torch.from_numpy(scores), scale=0.0), attend(scores), 1e-9)
    few = [args[0], args[1][:, :2], args[2][:, :2]]
    many = [few[0], few[1].repeat_interleave(2, 1), few[2].repeat_interleave(2, 1)]
    close(F.scaled_dot_product_attention(*few, enable_gqa=True), F.scaled_dot_product_attention(*many).numpy(), 1e-9)


# --- losses ----------------------------------------------------------------------------------------------------------
rng = np.random.default_rng(1)
P, T = rng.uniform(0.05, 0.95, (4, 3)), rng.uniform(0.05, 0.95, (4, 3))
S = np.where(rng.uniform(size=(4, 3)) > 0.5, 1.0, -1.0)
D = np.abs(P - T)
LOSSES = {
    "MSELoss": (T, (P - T) ** 2),
    "L1Loss": (T, D),
    "SmoothL1Loss": (T, np.where(D < 1, 0.5 * D**2, D - 0.5)),
    "HuberLoss": (T, np.where(D < 1, 0.5 * D**2, D - 0.5)),
    "BCELoss": (T, -(T * np.log(P) + (1 - T) * np.log(1 - P))),
    "BCEWithLogitsLoss": (T, np.log1p(np.exp(P)) - T * P),
    "KLDivLoss": (T, T * (np.log(T) - P)),
    "PoissonNLLLoss": (T, np.exp(P) - T * P),
    "SoftMarginLoss": (S, np.log1p(np.exp(-S * P))),
    "HingeEmbeddingLoss": (S, np.where(S == 1, P, np.maximum(0, 1 - P))),
}


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_loss(name, reduction):
    target, expected = LOSSES[name]
    value = getattr(nn, name)(reduction=reduction)(torch.from_numpy(P), torch.from_numpy(target))
    close(value, expected if reduction == "none" else getattr(expected, reduction)(), 1e-9)


def test_classification_losses():
    logits = rng.normal(size=(5, 4))
    y = np.array([0, 3, 1, 2, 3])
    logp = np.log(softmax(logits, 1))
    x, t = torch.from_numpy(logits), torch.from_numpy(y)
    w = np.array([1.0, 2.0, 3.0, 4.0])
    picked = -logp[np.arange(5), y]
    close(nn.CrossEntropyLoss()(x, t), picked.mean(), 1e-9)
    close(nn.CrossEntropyLoss(torch.from_numpy(w))(x, t), (picked * w[y]).sum() / w[y].sum(), 1e-9)
    close(nn.CrossEntropyLoss(ignore_index=3)(x, t), picked[y != 3].mean(), 1e-9)
    smooth = 0.9 * picked - 0.1 * logp.mean(1)
    close(nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none")(x, t), smooth, 1e-9)
    q = softmax(rng.normal(size=(5, 4)), 1)
    close(nn.CrossEntropyLoss()(x, torch.from_numpy(q)), -(q * logp).sum(1).mean(), 1e-9)
    close(nn.NLLLoss()(torch.from_numpy(logp), t), picked.mean(), 1e-9)
    margin = np.maximum(0, 1 - logits[np.arange(5), y][:, None] + logits)
    margin[np.arange(5), y] = 0
    close(nn.MultiMarginLoss()(x, t), (margin.sum(1) / 4).mean(), 1e-9)
    with pytest.raises((IndexError, RuntimeError)):
        nn.CrossEntropyLoss()(x, torch.tensor([0, 1, 2, 3, 4]))


def test_distance_losses():
    a, b = torch.from_numpy(P), torch.from_numpy(T)
    cos = (P * T).sum(1) / np.linalg.norm(P, axis=1) / np.linalg.norm(T, axis=1)
    close(nn.CosineSimilarity()(a, b), cos, 1e-9)
    close(nn.CosineEmbeddingLoss()(a, b, torch.ones(4, dtype=torch.float64)), (1 - cos).mean(), 1e-9)
    d = np.linalg.norm(P - T + 1e-6, axis=1)
    close(nn.PairwiseDistance()(a, b), d, 1e-9)
    n = torch.from_numpy(S)
    far = np.linalg.norm(P - S + 1e-6, axis=1)
    close(nn.TripletMarginLoss()(a, b, n), np.maximum(d - far + 1, 0).mean(), 1e-9)
    close(nn.MarginRankingLoss(0.1)(a, b, n), np.maximum(-S * (P - T) + 0.1, 0).mean(), 1e-9)
    var = torch.full((4, 3), 2.0, dtype=torch.float64)
    close(nn.GaussianNLLLoss()(a, b, var), (0.5 * (np.log(2) + (P - T) ** 2 / 2)).mean(), 1e-9)


def test_loss_options_are_checked():
    a, b = torch.from_numpy(P), torch.from_numpy(T)
    with pytest.raises(ValueError):
        nn.MSELoss(reduction="no")(a, b)
    with pytest.raises(ValueError):
        F.binary_cross_entropy(a, b[:2])
    with pytest.warns(UserWarning, match="target size"):
        F.mse_loss(a, b[:1])
    with pytest.warns(UserWarning, match="deprecated"):
        assert nn.MSELoss(size_average=False).reduction == "sum"


# --- utilities -------------------------------------------------------------------------------------------------------
def test_clip_grad():
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert nn.utils.clip_grad_norm_([a, b], 1.0).item() == pytest.approx(5)
    close(a.grad, [0.6, 0], 1e-5)
    close(b.grad, [0.8], 1e-5)
    assert nn.utils.clip_grad_norm_([a, b], 10.0, norm_type=math.inf).item() == pytest.approx(0.8, 1e-5)
    nn.utils.clip_grad_value_([a, b], 0.7)
    close(b.grad, [0.7], 1e-6)
    b.grad.fill_(math.nan)
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_([a, b], 1.0, error_if_nonfinite=True)


def test_parameter_vectors():
    net = nn.Linear(2, 3)
    v = nn.utils.parameters_to_vector(net.parameters())
    assert v.shape == (9,)
    nn.utils.vector_to_parameters(torch.arange(9.0), net.parameters())
    assert net.weight.tolist() == [[0, 1], [2, 3], [4, 5]] and net.bias.tolist() == [6, 7, 8]


# --- against PyTorch, where it is installed ---------------------------------------------------------------------------
CASES = [
    ("Linear(4, 3)", (5, 4)),
    ("Conv2d(2, 4, 3, stride=2, padding=1, groups=2)", (2, 2, 7, 7)),
    ("ConvTranspose2d(2, 4, 3, stride=2)", (1, 2, 5, 5)),
    ("BatchNorm2d(2)", (3, 2, 4, 4)),
    ("LayerNorm(6)", (2, 6)),
    ("GroupNorm(2, 4)", (2, 4, 3)),
    ("InstanceNorm2d(2, affine=True)", (2, 2, 4, 4)),
    ("PReLU(3)", (2, 3, 4)),
    ("Bilinear(3, 3, 2)", (4, 3)),
    ("LocalResponseNorm(3)", (2, 5, 3, 3)),
    ("GLU()", (2, 6)),
    ("AdaptiveMaxPool2d((3, 2))", (1, 2, 7, 5)),
]


@pytest.mark.torch
@pytest.mark.pyrite
@pytest.mark.parametrize("code, shape", CASES)
def test_against_torch(code, shape):
    reference = pytest.importorskip("torch")
    theirs = eval("reference.nn." + code)
    ours = eval("nn." + code)
    assert list(ours.state_dict()) == list(theirs.state_dict()) and repr(ours) == repr(theirs)
    ours.load_state_dict(
        {k: torch.tensor(v.tolist(), dtype=getattr(torch, str(v.dtype)[6:])) for k, v in theirs.state_dict().items()}
    )
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    a, b = torch.from_numpy(x.copy()).requires_grad_(), reference.from_numpy(x.copy()).requires_grad_()
    args = (2,) if code.startswith("Bilinear") else (1,)
    u, v = ours(*[a] * args[0]), theirs(*[b] * args[0])
    close(u, v.detach().numpy(), 1e-4)
    (u * u).sum().backward()
    (v * v).sum().backward()
    close(a.grad, b.grad.numpy(), 1e-3)
    for p, q in zip(ours.parameters(), theirs.parameters()):
        close(p.grad, q.grad.numpy(), 1e-3)
