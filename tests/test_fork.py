"""A forked child can use the library: its thread pool is made anew, its locks are free, its random state is its own."""

import multiprocessing
import os
import sys
import time

import numpy as np
import pytest
from subject import F, torch

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="speaks of fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def in_a_child(work, seconds=60):
    """Runs work() in a forked child and gives back what it returned; a hang is an error."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            os.write(write, repr(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.close(read)
            pytest.fail("the child hangs")
        time.sleep(0.005)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    assert status == 0, f"the child ended with {status}"
    return text


@pytest.mark.pyrite  # PyTorch's thread pool does not survive a fork
def test_parallel_work_in_a_child():
    x = torch.ones(3_000_000)
    a = torch.randn(300, 300)
    assert x.sum().item() == 3_000_000
    expected = (a @ a).sum().item()

    def work():
        y = (x * 2 + 1).exp().sum().item()
        return round(y / 3_000_000, 3), (a @ a).sum().item() == expected

    for _ in range(3):
        assert in_a_child(work) == repr((round(float(np.exp(3.0)), 3), True))
    assert (x + 1).sum().item() == 6_000_000


@pytest.mark.pyrite
def test_training_in_a_child():
    def work():
        w = torch.zeros(1000, requires_grad=True)
        for _ in range(50):
            loss = ((w - 1) ** 2).sum()
            loss.backward()
            with torch.no_grad():
                w -= 0.1 * w.grad
            w.grad = None
        image = torch.ones(2, 3, 16, 16)
        return round(w.mean().item(), 3), F.conv2d(image, torch.ones(4, 3, 3, 3)).sum().item()

    work()
    assert in_a_child(work) == repr((1.0, 2.0 * 4 * 14 * 14 * 27))


@pytest.mark.pyrite
def test_fork_while_other_threads_work():
    """The allocator's and the pool's locks must not be held in the child."""
    import threading

    stop = threading.Event()

    def churn():
        while not stop.is_set():
            torch.ones(200_000).add(1).sum()
            [torch.empty(i) for i in (10, 1000, 100_000)]

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        for _ in range(15):
            assert in_a_child(lambda: torch.ones(500_000).sum().item()) == "500000.0"
    finally:
        stop.set()
        for t in threads:
            t.join()


def square(x):
    return (x * x).sum().item()


@pytest.mark.pyrite
def test_multiprocessing_pool():
    torch.ones(1_000_000).sum()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(square, [torch.full((1000,), float(i)) for i in range(6)]) == [1000.0 * i * i for i in range(6)]
