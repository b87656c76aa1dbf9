"""Many Python threads at once, the number of threads, and the GIL."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from subject import F, nn, torch


def work(seed):
    """A little of everything, with a known answer."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((64, 64))
    x = torch.from_numpy(a.copy()).requires_grad_()
    y = (x @ x.t()).tanh().sum() + F.softmax(x, 1)[0].sum()
    y.backward()
    t = np.tanh(a @ a.T)
    d = 1 - t * t
    np.testing.assert_allclose(x.grad.numpy(), (d + d.T) @ a, rtol=1e-8, atol=1e-8)
    assert torch.is_grad_enabled()
    return seed


def test_many_threads():
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(64))) == list(range(64))


def test_large_operations_from_many_threads():
    x = torch.ones(300_000)
    with ThreadPoolExecutor(4) as pool:
        sums = list(pool.map(lambda i: (x * i + 1).sum().item(), range(24)))
    assert sums == [300_000.0 * (i + 1) for i in range(24)]


def test_shared_tensors_are_safe_to_race_on():
    """Values may race; memory may not."""
    x = torch.zeros(10_000)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            x.add_(1)
            x[100:200] = 3

    threads = [threading.Thread(target=write) for _ in range(3)]
    for t in threads:
        t.start()
    for _ in range(200):
        assert x.sum().item() >= 0
        x.view(100, 100).t().clone()
    stop.set()
    for t in threads:
        t.join()


def test_backward_from_two_threads():
    layer = nn.Linear(16, 16)
    x = torch.randn(32, 16)

    def run(_):
        for _ in range(20):
            layer(x).sum().backward()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2)))
    np.testing.assert_allclose(layer.bias.grad.numpy(), 40 * 32, rtol=1e-5)


def test_long_operations_leave_the_gil_to_others():
    a = torch.randn(1200, 1200)
    ticks, stop = [0], threading.Event()

    def tick():
        while not stop.is_set():
            ticks[0] += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        a @ a
    stop.set()
    thread.join()
    assert ticks[0] > 20


def test_number_of_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.get_num_threads() == 1
        torch.set_num_threads(3)
        assert torch.get_num_threads() == 3
        with pytest.raises((RuntimeError, ValueError)):
            torch.set_num_threads(0)
    finally:
        torch.set_num_threads(before)


@pytest.mark.pyrite
def test_answers_do_not_depend_on_the_number_of_threads():
    before = torch.get_num_threads()
    answers = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(1)
            x = torch.randn(300, 700)
            w = torch.randn(700, 130)
            big = torch.rand(400_003)
            image = torch.randn(4, 8, 20, 20)
            kernel = torch.randn(16, 8, 3, 3, requires_grad=True)
            out = F.conv2d(image, kernel)
            out.sum().backward()
            answers.append([
                t.detach().numpy().tobytes()
                for t in (x, x @ w, big.sum(), big.mean(), x.std(0), x.sum(1), F.softmax(x, 0), F.dropout(big, 0.3),
                          out, kernel.grad, big.cumsum(0))
            ])  # fmt: skip
    finally:
        torch.set_num_threads(before)
    assert answers[0] == answers[1] == answers[2]
