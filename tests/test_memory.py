"""Nothing leaks, cached blocks are used again, and the statistics add up."""

import gc
import resource
import subprocess
import sys

import pytest
from subject import NAME, F, nn, optim, torch


def resident_mib():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize() / 2**20


def grows(work, times):
    """MiB by which the process grows over `times` further runs of work(), after it has warmed up."""
    for _ in range(max(3, times // 10)):
        work()
    gc.collect()
    before = resident_mib()
    for _ in range(times):
        work()
    gc.collect()
    return resident_mib() - before


def training_step():
    model = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 8))
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    loss = F.cross_entropy(model(torch.randn(32, 64)), torch.arange(32) % 8)
    loss.backward()
    optimizer.step()


def views_and_hooks():
    x = torch.ones(200, 200, requires_grad=True)
    y = x * 1
    y.register_hook(lambda g: g * 2)
    y[3:, 1].mul_(2)
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return g


def errors():
    x = torch.ones(100, 100)
    for bad in (lambda: x + torch.ones(7), lambda: x[200], lambda: x @ torch.ones(3, 3), lambda: x.view(7)):
        with pytest.raises((RuntimeError, IndexError)):
            bad()


def arrays():
    a = torch.ones(300, 300).numpy()
    return torch.from_numpy(a).sum().item()


def convolution():
    layer = nn.Conv2d(3, 8, 3)
    F.max_pool2d(layer(torch.ones(2, 3, 32, 32)), 2).sum().backward()


@pytest.mark.parametrize(
    "work, times",
    [(training_step, 300), (views_and_hooks, 400), (errors, 1500), (arrays, 2000), (convolution, 300)],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_no_growth(work, times):
    assert grows(work, times) < 24


def test_the_collector_may_run_while_a_tensor_is_made():
    """A collection at every second allocation: objects that are tracked but not filled in yet are visited."""
    x = torch.ones(4, requires_grad=True)
    before = gc.get_threshold()
    gc.set_threshold(2, 1, 1)
    try:
        kept = [(x[i % 4 :] * 2, nn.Parameter(torch.ones(1)), x.detach()) for i in range(3000)]
    finally:
        gc.set_threshold(*before)
    assert len(kept) == 3000


def test_references_do_not_leak():
    x = torch.ones(3, requires_grad=True)
    before = sys.getrefcount(x)
    for _ in range(100):
        y = (x * 2).sum()
        y.backward()
        x.grad = None
        x[0], x.view(3), x.t(), repr(x)
    del y
    assert sys.getrefcount(x) == before


@pytest.mark.pyrite
def test_statistics():
    before = torch.memory_stats()["allocated_bytes.all.current"]
    x = torch.empty(1_000_000)
    during = torch.memory_stats()
    assert during["allocated_bytes.all.current"] - before >= 4_000_000
    assert during["allocated_bytes.all.peak"] >= during["allocated_bytes.all.current"]
    assert during["reserved_bytes.all.current"] >= during["allocated_bytes.all.current"]
    del x
    after = torch.memory_stats()
    assert after["allocated_bytes.all.current"] <= before + 4096
    torch.empty_cache()
    assert torch.memory_stats()["reserved_bytes.all.current"] < after["reserved_bytes.all.current"]


@pytest.mark.pyrite
def test_large_blocks_are_used_again():
    first = torch.empty(3_000_000)
    address = first.data_ptr()
    assert address % 64 == 0
    del first
    assert torch.empty(3_000_000).data_ptr() == address


IMPOSSIBLE = """
import {lib} as torch
for n in ((1 << 60,), (1 << 62, 1 << 62), (1 << 45,)):
    try:
        torch.empty(n)
    except (RuntimeError, MemoryError, ValueError, OverflowError) as e:
        print(type(e).__name__)
    else:
        print("no error")
print(torch.ones(3).sum().item())
"""


def test_impossible_sizes_are_errors():
    """In a process of its own: what is tested is that it survives."""
    code = IMPOSSIBLE.format(lib=NAME)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert out.returncode == 0, out.stderr
    assert "no error" not in out.stdout
    assert out.stdout.endswith("3.0\n")
