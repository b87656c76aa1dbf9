"""What a newcomer types from PyTorch's own introduction, line by line, each with what it must answer."""

import math

import numpy as np
import pytest
from subject import NAME, data, has_cuda, nn, optim, torch


def close(t, expected, tol=1e-6):
    np.testing.assert_allclose(t.detach().numpy(), np.asarray(expected), rtol=tol, atol=tol)


# --- making tensors ---------------------------------------------------------------------------------------------------
def test_tensor_of_a_size():
    x = torch.Tensor(4, 4)
    assert x.shape == (4, 4) and x.dtype == torch.float32
    assert tuple(x.size()) == (4, 4) and x.size(0) == 4 and x.dim() == 2 and x.numel() == 16


def test_tensor_of_a_list():
    assert torch.Tensor([1, 2]).tolist() == [1.0, 2.0]
    assert torch.tensor([1, 2]).dtype == torch.int64
    assert torch.tensor([[1.5], [2.5]]).shape == (2, 1)


def test_rand_and_randn():
    u, n = torch.rand(100, 100), torch.randn(100, 100)
    assert u.shape == n.shape == (100, 100)
    assert u.min().item() >= 0 and u.max().item() < 1 and abs(u.mean().item() - 0.5) < 0.02
    assert abs(n.mean().item()) < 0.05 and abs(n.std().item() - 1) < 0.05
    torch.manual_seed(3)
    a = torch.rand(5)
    torch.manual_seed(3)
    assert torch.rand(5).tolist() == a.tolist()


def test_eye():
    assert torch.eye(2).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert torch.eye(2, 3).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_from_numpy_and_numpy_share_memory():
    a = np.eye(3)
    t = torch.from_numpy(a)
    assert t.dtype == torch.float64
    a[0, 1] = 5
    assert t[0, 1].item() == 5
    t[2, 2] = -1
    assert a[2, 2] == -1
    back = torch.ones(5)
    view = back.numpy()
    back.add_(1)
    assert view.tolist() == [2.0] * 5


def test_linspace_ones_zeros_like_arange():
    close(torch.linspace(1, 10, 4), [1, 4, 7, 10])
    assert torch.ones(2, 2).tolist() == [[1, 1], [1, 1]]
    assert torch.zeros_like(torch.ones(2, 3, dtype=torch.int32)).dtype == torch.int32
    assert torch.arange(1, 10, 3).tolist() == [1, 4, 7]
    close(torch.arange(0, 1, 0.25), [0, 0.25, 0.5, 0.75])


# --- functions, methods, in place -------------------------------------------------------------------------------------
X = np.array([[0.5, 1.5, 2.5, 3.5], [4.5, 5.5, 0.25, 1.0], [2.0, 3.0, 4.0, 5.0], [1.25, 2.25, 3.25, 0.75]], np.float32)
Y = X[::-1].copy() + 1

FORMS = {
    "add": ((Y,), X + Y),
    "mm": ((Y,), X @ Y),
    "mul": ((Y,), X * Y),
    "exp": ((), np.exp(X)),
    "pow": ((2,), X**2),
    "sqrt": ((), np.sqrt(X)),
    "sigmoid": ((), 1 / (1 + np.exp(-X))),
    "cumprod": ((1,), np.cumprod(X, 1)),
    "sum": ((), X.sum()),
    "std": ((), X.std(ddof=1)),
    "mean": ((), X.mean()),
}


def tensors(arguments):
    return [torch.from_numpy(a.copy()) if isinstance(a, np.ndarray) else a for a in arguments]


@pytest.mark.parametrize("name", FORMS)
def test_function_and_method(name):
    arguments, expected = FORMS[name]
    close(getattr(torch, name)(torch.from_numpy(X.copy()), *tensors(arguments)), expected, 2e-6)
    close(getattr(torch.from_numpy(X.copy()), name)(*tensors(arguments)), expected, 2e-6)


@pytest.mark.parametrize("name", ["add", "mul", "exp", "pow", "sqrt", "sigmoid", "cumprod"])
def test_in_place(name):
    arguments, expected = FORMS[name]
    x = torch.from_numpy(X.copy())
    assert getattr(x, name + "_")(*tensors(arguments)) is x
    close(x, expected, 2e-6)


@pytest.mark.parametrize("name", ["sum", "std", "mean"])
def test_along_a_dimension(name):
    kwargs = {"ddof": 1} if name == "std" else {}
    x = torch.from_numpy(X.copy())
    close(getattr(torch, name)(x, 0), getattr(np, name)(X, 0, **kwargs))
    close(getattr(x, name)(dim=1, keepdim=True), getattr(np, name)(X, 1, keepdims=True, **kwargs))


def test_operators_and_broadcasting():
    x, y = torch.from_numpy(X.copy()), torch.from_numpy(Y.copy())
    close(x + y, X + Y)
    close(x - 1, X - 1)
    close(3 - x, 3 - X)
    close(x * y[0], X * Y[0])
    close(x / y[:, :1], X / Y[:, :1])
    close(1 / x, 1 / X)
    close(x @ y, X @ Y, 1e-5)
    close(-x, -X)
    close(x**2, X**2)
    close(2**x, 2**X)
    close(x // 2, X // 2)
    close(x % 2, X % 2)
    assert (x > 2).tolist() == (X > 2).tolist()
    assert ((x > 2) & (x < 4)).sum().item() == int(((X > 2) & (X < 4)).sum())


def test_boolean_mask():
    x = torch.from_numpy(X.copy())
    assert x[x > 4].tolist() == X[X > 4].tolist()
    assert torch.arange(10)[torch.arange(10) > 5].tolist() == [6, 7, 8, 9]
    x[x > 2] = 0
    assert x.max().item() <= 2


def test_add_in_place_keeps_the_object():
    x, y = torch.ones(2, 2), torch.ones(2, 2)
    before = x.data_ptr()
    x.add_(y)
    x += 1
    assert x.data_ptr() == before and x.tolist() == [[3, 3], [3, 3]]
    assert x.add_(y, alpha=10).tolist() == [[13, 13], [13, 13]]


def test_view_and_reshape():
    x = torch.arange(16)
    assert x.view(4, 4).shape == (4, 4)
    assert x.view(-1, 8).shape == (2, 8)
    assert x.reshape(2, 2, 4)[1, 0].tolist() == [8, 9, 10, 11]
    assert torch.cat([x[:2], x[14:]]).tolist() == [0, 1, 14, 15]
    assert x[None, :, None].squeeze().shape == (16,)


# --- CUDA -------------------------------------------------------------------------------------------------------------
def test_cuda_without_a_gpu_is_a_clear_error():
    if has_cuda():
        pytest.skip("there is a GPU here")
    assert torch.cuda.is_available() is False
    with pytest.raises((RuntimeError, AssertionError), match=r"(?i)cuda|driver|nvidia"):
        torch.ones(2).cuda()
    with pytest.raises((RuntimeError, AssertionError), match=r"(?i)cuda|driver|nvidia"):
        torch.ones(2, device="cuda")
    assert torch.ones(2).to("cpu").device.type == "cpu"


@pytest.mark.cuda
def test_cuda_there_and_back():
    x = torch.arange(4.0).cuda()
    assert x.is_cuda and (x + 1).cpu().tolist() == [1, 2, 3, 4]


# --- autograd ---------------------------------------------------------------------------------------------------------
def test_variable():
    from importlib import import_module

    autograd = import_module(f"{NAME}.autograd")
    x = autograd.Variable(torch.ones(4, 4), requires_grad=True)
    assert isinstance(x, torch.Tensor) and x.grad is None and x.grad_fn is None and x.is_leaf
    y = (x * x * 3).mean()
    assert y.grad_fn is not None and not y.is_leaf
    y.backward()
    close(x.grad, np.full((4, 4), 6 / 16))
    assert x.data.requires_grad is False
    x.data.fill_(2)
    assert x[0, 0].item() == 2
    assert type(y.grad_fn).__name__ == "MeanBackward0" or y.grad_fn.name().startswith("Mean")


def test_gradient_descent_by_hand():
    w = torch.zeros(2, requires_grad=True)
    target = torch.tensor([1.0, -2.0])
    for _ in range(100):
        loss = ((w - target) ** 2).sum()
        loss.backward()
        with torch.no_grad():
            w -= 0.1 * w.grad
        w.grad.zero_()
    close(w, [1, -2], 1e-4)


# --- nn ---------------------------------------------------------------------------------------------------------------
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x):
        x = self.pool(self.norm(self.conv(x)).relu())
        return self.out(self.drop(x).view(x.size(0), -1))


def test_module():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "conv.weight", "conv.bias", "norm.weight", "norm.bias", "out.weight", "out.bias",
    ]  # fmt: skip
    assert list(net.state_dict())[4:7] == ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    y = net(torch.randn(2, 1, 8, 8))
    assert y.shape == (2, 3)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in net.parameters())
    net.eval()
    x = torch.randn(2, 1, 8, 8)
    assert net(x).tolist() == net(x).tolist()
    other = Net()
    other.load_state_dict(net.state_dict())
    other.eval()
    assert other(x).tolist() == net(x).tolist()
    assert "(conv): Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))" in repr(net)


def test_linear():
    layer = nn.Linear(3, 2)
    x = torch.randn(5, 3)
    close(layer(x), x.numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy(), 1e-5)
    assert layer.weight.abs().max().item() <= 1 / math.sqrt(3)


def test_conv2d_by_hand():
    layer = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    x = torch.randn(1, 2, 5, 5)
    w, b, p = (
        layer.weight.detach().numpy(),
        layer.bias.detach().numpy(),
        np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1))),
    )
    expected = np.zeros((1, 3, 3, 3), np.float32)
    for i in range(3):
        for j in range(3):
            expected[0, :, i, j] = (w * p[0, None, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]).sum((1, 2, 3)) + b
    close(layer(x), expected, 1e-5)


def test_max_pool2d():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert nn.MaxPool2d(2)(x).tolist() == [[[[5, 7], [13, 15]]]]


def test_batch_norm2d():
    x = torch.randn(8, 2, 5, 5) * 3 + 1
    layer = nn.BatchNorm2d(2)
    y = layer(x)
    close(y.mean((0, 2, 3)), [0, 0], 1e-5)
    close(y.var((0, 2, 3), unbiased=False), [1, 1], 1e-4)
    close(layer.running_mean, 0.1 * x.numpy().mean((0, 2, 3)), 1e-5)
    close(layer.running_var, 0.9 + 0.1 * x.numpy().var((0, 2, 3), ddof=1), 1e-5)
    assert layer.num_batches_tracked.item() == 1


def test_dropout():
    layer = nn.Dropout(0.25)
    x = torch.ones(200, 200)
    y = layer(x)
    assert set(np.unique(y.numpy()).tolist()) == {0.0, np.float32(1 / 0.75).item()}
    assert abs((y == 0).float().mean().item() - 0.25) < 0.02
    assert layer.eval()(x) is x or layer(x).tolist() == x.tolist()


def test_losses():
    p, t = np.array([[0.2, 0.7], [0.9, 0.4]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    P, T = torch.from_numpy(p), torch.from_numpy(t)
    close(nn.MSELoss()(P, T), ((p - t) ** 2).mean())
    close(nn.BCELoss()(P, T), -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean())
    q = np.array([[0.3, 0.7], [0.5, 0.5]])
    close(nn.KLDivLoss(reduction="batchmean")(torch.from_numpy(np.log(q)), P), (p * (np.log(p) - np.log(q))).sum() / 2)
    logits = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]])
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    close(
        nn.CrossEntropyLoss()(torch.from_numpy(logits), torch.tensor([2, 0])),
        -(log_softmax[0, 2] + log_softmax[1, 0]) / 2,
    )


# --- optim ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "make, steps",
    [
        (lambda p: optim.SGD(p, lr=0.05), 200),
        (lambda p: optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-5), 200),
        (lambda p: optim.Adam(p, lr=0.1), 300),
        (lambda p: optim.RMSprop(p, lr=0.02), 600),
    ],
)
def test_optimizers_find_the_minimum(make, steps):
    w = torch.tensor([3.0, -4.0], requires_grad=True)
    optimizer = make([w])
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((w - torch.tensor([1.0, 2.0])) ** 2 * torch.tensor([1.0, 4.0])).sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-2


def test_lbfgs():
    w = torch.tensor([-1.2, 1.0], requires_grad=True)
    optimizer = optim.LBFGS([w], lr=1, max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    close(w, [1, 1], 1e-3)


# --- data -------------------------------------------------------------------------------------------------------------
class RangeDataset(data.Dataset):
    def __init__(self, start, end, step=1):
        self.start, self.end, self.step = start, end, step

    def __len__(self):
        return math.ceil((self.end - self.start) / self.step)

    def __getitem__(self, index):
        value = self.start + index * self.step
        assert value < self.end
        return value


# PyTorch warns where there are more workers than cores.
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_loader_over_a_range_with_workers():
    dataset = RangeDataset(0, 10)
    loader = data.DataLoader(dataset, batch_size=4, shuffle=True, num_workers=4, drop_last=True)
    assert len(loader) == 2
    for _ in range(2):
        batches = list(loader)
        assert [b.shape for b in batches] == [(4,), (4,)]
        assert all(b.dtype == torch.int64 for b in batches)
        seen = [v for b in batches for v in b.tolist()]
        assert len(set(seen)) == 8 and set(seen) <= set(range(10))


class DictDataset(data.Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, i):
        return {"x": torch.full((2,), float(i)), "y": i, "name": f"n{i}", "pair": (i, i + 0.5)}


@pytest.mark.parametrize("workers", [0, 2])
def test_dict_samples_are_collated_to_dicts(workers):
    batch = next(iter(data.DataLoader(DictDataset(), batch_size=3, num_workers=workers)))
    assert set(batch) == {"x", "y", "name", "pair"}
    assert batch["x"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert batch["y"].tolist() == [0, 1, 2] and batch["name"] == ["n0", "n1", "n2"]
    assert [p.tolist() for p in batch["pair"]] == [[0, 1, 2], [0.5, 1.5, 2.5]]
    assert batch["pair"][1].dtype == torch.float64


def total(samples):
    return sum(samples)


@pytest.mark.parametrize("workers", [0, 2])
def test_collate_fn(workers):
    loader = data.DataLoader(RangeDataset(0, 10), batch_size=4, collate_fn=total, num_workers=workers)
    assert list(loader) == [6, 22, 17]
