"""Ten seconds that tell whether Pyrite is alive: one small check per room. `make tiny` runs this file alone."""

import numpy as np
import pytest
from subject import F, data, nn, optim, torch


def test_create_and_print():
    assert repr(torch.tensor([1.0, 2.5])) == "tensor([1.0000, 2.5000])"
    assert torch.arange(3).dtype == torch.int64
    assert torch.zeros(2, 3).shape == (2, 3)
    assert torch.linspace(0, 1, 3).tolist() == [0.0, 0.5, 1.0]


def test_arithmetic_and_broadcasting():
    x = torch.arange(6.0).reshape(2, 3)
    assert (x + torch.tensor([10.0, 20.0, 30.0])).tolist() == [[10, 21, 32], [13, 24, 35]]
    assert (2 * x - 1).sum().item() == 24
    assert (x @ x.T).tolist() == [[5, 14], [14, 50]]


def test_views_share_memory():
    x = torch.zeros(4, 4)
    x[1:3, ::2] = 7
    x.t()[0].fill_(1)
    assert x.tolist() == [[1, 0, 0, 0], [1, 0, 7, 0], [1, 0, 7, 0], [1, 0, 0, 0]]


def test_numpy_shares_memory():
    a = np.zeros((2, 2), np.float32)
    t = torch.from_numpy(a)
    t.add_(3)
    assert a.sum() == 12
    assert np.shares_memory(t.numpy(), a)


def test_gradient():
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x**2 * x.sum()).sum().backward()
    # d/dx_i of (sum x^2)(sum x) = 2 x_i * 6 + 14
    assert x.grad.tolist() == [26.0, 38.0, 50.0]


def test_reductions():
    x = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, 6.0]])
    assert x.max().item() == 6 and x.argmax(1).tolist() == [1, 2]
    assert x.mean(0).tolist() == [2.5, 2.5, 4.0]
    assert x.std().item() == pytest.approx(np.std(np.array(x.tolist()), ddof=1), rel=1e-6)


def test_errors_are_exceptions():
    with pytest.raises(RuntimeError):
        torch.ones(2, 3) + torch.ones(2, 4)
    with pytest.raises(IndexError):
        torch.ones(2)[5]


def mnist_shaped(n=256):
    """Ten noisy prototypes: as easy as a data set can be, shaped as MNIST is."""
    prototypes = torch.rand(10, 784)
    labels = torch.arange(n) % 10
    return prototypes[labels] + 0.1 * torch.randn(n, 784), labels


def test_mlp_learns():
    images, labels = mnist_shaped()
    loader = data.DataLoader(data.TensorDataset(images, labels), batch_size=64, shuffle=True)
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(12):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).float().mean().item() > 0.99


def test_convnet_learns():
    images, labels = mnist_shaped(64)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.1),
        nn.Linear(4 * 12 * 12, 10),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(model(images.view(-1, 1, 28, 28)), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
