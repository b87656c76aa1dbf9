"""Data sets, samplers, collating, and the loader with and without worker processes."""

import collections
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from subject import data, torch

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
Loader = data.DataLoader


class Map(data.Dataset):
    """Sample i is ``fn(i)``."""

    def __init__(self, n, fn=None):
        self.n, self.fn = n, fn

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return i if self.fn is None else self.fn(i)


class Count(data.IterableDataset):
    """0 ... n-1, shared out among workers."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = data.get_worker_info()
        return iter(range(self.n)) if info is None else iter(range(info.id, self.n, info.num_workers))

    def __len__(self):
        return self.n


# --- data sets -------------------------------------------------------------------------------------------------------
def test_tensor_dataset():
    ds = data.TensorDataset(torch.arange(4), torch.arange(8.0).reshape(4, 2))
    assert len(ds) == 4 and ds[2][0].item() == 2 and ds[2][1].tolist() == [4, 5]
    batch = next(iter(Loader(ds, batch_size=3)))
    assert isinstance(batch, list) and batch[0].tolist() == [0, 1, 2] and batch[1].shape == (3, 2)
    with pytest.raises(AssertionError):
        data.TensorDataset(torch.ones(2), torch.ones(3))


def test_a_subclass_that_redefines_getitem_is_used():
    class Noisy(data.TensorDataset):
        def __getitem__(self, i):
            return (super().__getitem__(i)[0] + 100,)

    assert [b[0].tolist() for b in Loader(Noisy(torch.arange(3)), batch_size=2)] == [[100, 101], [102]]
    subset = data.Subset(Noisy(torch.arange(3)), [2, 0])
    assert [b[0].tolist() for b in Loader(subset, batch_size=2)] == [[102, 100]]


def test_combinations():
    both = data.ConcatDataset([Map(2), Map(3)]) + Map(1)
    assert len(both) == 6 and [both[i] for i in range(6)] == [0, 1, 0, 1, 2, 0] and both[-1] == 0
    with pytest.raises(ValueError):
        both[-7]
    with pytest.raises(IndexError):
        both[6]
    assert list(Count(2) + Count(1)) == [0, 1, 0]
    assert data.StackDataset(Map(2), [5, 6])[1] == (1, 6)
    assert data.StackDataset(a=Map(2), b=[5, 6])[0] == {"a": 0, "b": 5}
    with pytest.raises(ValueError):
        data.StackDataset(Map(2), Map(3))
    assert data.Subset(Map(9), [3, 1])[0] == 3


def test_random_split():
    g = torch.Generator().manual_seed(1)
    a, b = data.random_split(Map(10), [7, 3], generator=g)
    assert sorted([*(a[i] for i in range(7)), *(b[i] for i in range(3))]) == list(range(10))
    c, _ = data.random_split(Map(10), [7, 3], generator=torch.Generator().manual_seed(1))
    assert list(a.indices) == list(c.indices)
    assert [len(s) for s in data.random_split(Map(10), [0.5, 0.25, 0.25])] == [6, 2, 2]
    with pytest.raises(ValueError):
        data.random_split(Map(10), [5, 4])


# --- samplers --------------------------------------------------------------------------------------------------------
def test_samplers():
    assert list(data.SequentialSampler(Map(3))) == [0, 1, 2]
    assert sorted(data.RandomSampler(Map(50))) == list(range(50))
    assert list(data.RandomSampler(Map(50))) != list(data.RandomSampler(Map(50)))
    many = list(data.RandomSampler(Map(3), num_samples=8))
    assert len(many) == 8 and sorted(many[:3]) == [0, 1, 2]
    drawn = list(data.RandomSampler(Map(3), replacement=True, num_samples=100))
    assert len(drawn) == 100 and set(drawn) == {0, 1, 2}
    assert sorted(data.SubsetRandomSampler([4, 2])) == [2, 4]
    assert list(data.BatchSampler(range(5), 2, drop_last=True)) == [[0, 1], [2, 3]]
    assert len(data.BatchSampler(range(5), 2, drop_last=False)) == 3
    with pytest.raises(ValueError):
        data.BatchSampler(range(5), 0, False)


def test_weighted_sampler():
    n = 4000
    counts = collections.Counter(data.WeightedRandomSampler([0.1, 0.0, 0.6, 0.3], n))
    assert counts[1] == 0 and abs(counts[2] / n - 0.6) < 0.04 and abs(counts[0] / n - 0.1) < 0.03
    assert sorted(data.WeightedRandomSampler([1, 0, 2, 3], 3, replacement=False)) == [0, 2, 3]


def test_seed_fixes_the_order():
    def order(seed, **options):
        torch.manual_seed(seed)
        return [b.tolist() for b in Loader(Map(10), batch_size=3, shuffle=True, **options)]

    assert order(1) == order(1) != order(2)
    assert order(1) == order(1, num_workers=2)
    g = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert order(1, generator=g[0]) == order(2, generator=g[1])


# --- collating -------------------------------------------------------------------------------------------------------
Point = collections.namedtuple("Point", "x y")


def test_default_collate():
    c = data.default_collate
    assert c([1, 2]).dtype == torch.int64 and c([1.0, 2.0]).dtype == torch.float64
    assert c([True, False]).dtype == torch.bool
    assert c([torch.ones(2), torch.zeros(2)]).tolist() == [[1, 1], [0, 0]]
    assert c([np.ones(2, np.float32)] * 3).dtype == torch.float32 and c([np.float64(1.5)]).tolist() == [1.5]
    assert c(["a", "b"]) == ["a", "b"]
    p = c([Point(1, "a"), Point(2, "b")])
    assert type(p) is Point and p.x.tolist() == [1, 2] and p.y == ["a", "b"]
    d = c([{"a": (1, [2.0])}, {"a": (3, [4.0])}])
    assert d["a"][0].tolist() == [1, 3] and d["a"][1][0].tolist() == [2, 4]
    with pytest.raises(RuntimeError, match="equal size"):
        c([[1, 2], [1]])
    with pytest.raises(TypeError, match="default_collate"):
        c([object()])


# --- loader, any number of workers -----------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_in_order(workers):
    assert [b.tolist() for b in Loader(Map(10), batch_size=4, num_workers=workers)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    assert len(Loader(Map(10), batch_size=4, drop_last=True)) == 2
    assert list(Loader(Map(3), batch_size=None, num_workers=workers)) == [0, 1, 2]
    batches = Loader(Map(6), batch_sampler=[[5, 0], [1]], num_workers=workers)
    assert [b.tolist() for b in batches] == [[5, 0], [1]]


@pytest.mark.parametrize("workers", [0, 2])
def test_iterable(workers):
    batches = [b.tolist() for b in Loader(Count(11), batch_size=2, num_workers=workers)]
    assert sorted(i for b in batches for i in b) == list(range(11))
    dropped = [b.tolist() for b in Loader(Count(11), batch_size=2, num_workers=workers, drop_last=True)]
    assert all(len(b) == 2 for b in dropped)
    with pytest.raises(ValueError, match="IterableDataset"):
        Loader(Count(3), shuffle=True)


class Items(Map):
    def __getitems__(self, indices):
        return [i * 10 for i in indices]


@pytest.mark.parametrize("workers", [0, 2])
def test_batched_fetch(workers):
    assert [b.tolist() for b in Loader(Items(4), batch_size=3, num_workers=workers)] == [[0, 10, 20], [30]]


def arrays(i):
    return {
        "t": torch.full((100, 100), float(i)),
        "a": np.full((50, 50), i),
        "pair": (i, f"s{i}"),
        "e": torch.ones(0, 3),
    }


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("collate", [None, list])
def test_large_samples(workers, collate):
    for number, batch in enumerate(Loader(Map(6, arrays), batch_size=2, num_workers=workers, collate_fn=collate)):
        if collate is None:
            assert batch["t"].shape == (2, 100, 100) and batch["t"][1, 0, 0].item() == 2 * number + 1
            assert batch["a"].shape == (2, 50, 50) and batch["e"].shape == (2, 0, 3)
            batch["t"].add_(1)  # memory from a worker is ordinary, writable memory
        else:
            assert isinstance(batch[0]["a"], np.ndarray) and batch[1]["a"][0, 0] == 2 * number + 1
            assert batch[1]["t"].sum().item() == (2 * number + 1) * 10000


def test_option_checks():
    for bad in (
        {"num_workers": -1},
        {"batch_size": 0},
        {"shuffle": True, "sampler": [1]},
        {"batch_sampler": [[1]], "batch_size": 2},
        {"prefetch_factor": 2},
        {"persistent_workers": True},
        {"timeout": -1},
        {"batch_size": None, "drop_last": True},
        {"num_workers": 1, "multiprocessing_context": "no"},
    ):
        with pytest.raises(ValueError):
            Loader(Map(3), **bad)
    loader = Loader(Map(3))
    with pytest.raises(ValueError):
        loader.batch_size = 7


# --- workers ---------------------------------------------------------------------------------------------------------
def draws(i):
    return data.get_worker_info().id, random.random(), float(np.random.rand()), torch.rand(1).item()


def epoch(loader):
    return [tuple(b[0]) for b in loader]


@pytest.mark.pyrite
def test_worker_seeds():
    def make():
        torch.manual_seed(7)
        return Loader(Map(4, draws), num_workers=2, collate_fn=list, persistent_workers=True)

    loader = make()
    first, second = epoch(loader), epoch(loader)
    assert [f[0] for f in first] == [0, 1, 0, 1]
    values = [v for f in first + second for v in f[1:]]
    assert len(set(values)) == len(values)
    assert epoch(make()) == first


def process(i):
    return os.getpid()


def test_persistent_workers():
    loader = Loader(Map(4, process), num_workers=2, persistent_workers=True)
    first = {int(p) for p in loader}
    for _ in loader:
        break
    assert {int(p) for p in loader} == first and len(first) == 2 and os.getpid() not in first
    again = Loader(Map(4, process), num_workers=2)
    assert {int(p) for p in again} != {int(p) for p in again}


def init(worker_id):
    os.environ["WORKER"] = str(worker_id)


def test_worker_init_fn():
    loader = Loader(Map(4, lambda i: int(os.environ["WORKER"])), num_workers=2, worker_init_fn=init)
    assert [int(b) for b in loader] == [0, 1, 0, 1]

    def bad(worker_id):
        raise ValueError("no start")

    with pytest.raises(ValueError, match="no start"):
        list(Loader(Map(4), num_workers=2, worker_init_fn=bad))


class Special(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def fails(i):
    if i == 5:
        raise KeyError("sample 5")
    return i


def fails_specially(i):
    raise Special(1, 2)


@pytest.mark.pyrite
def test_errors_come_with_the_workers_traceback():
    loader = Loader(Map(10, fails), batch_size=2, num_workers=2)
    seen = []
    with pytest.raises(KeyError) as e:
        for b in loader:
            seen += [b.tolist()]
    assert seen == [[0, 1], [2, 3]]
    note = e.value.__notes__[0]
    assert "Caught KeyError in DataLoader worker process 0" in note and "in fails" in note and "Traceback" in note
    with pytest.raises(RuntimeError, match="Special: 1 and 2"):
        list(Loader(Map(2, fails_specially), num_workers=1))


def unpicklable(samples):
    return lambda: samples


def test_unpicklable_batch():
    with pytest.raises(Exception, match=r"(?i)pickle|local"):
        list(Loader(Map(2), num_workers=1, collate_fn=unpicklable))


def dies(i):
    if i == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def exits(i):
    if i == 5:
        os._exit(3)
    return i


@pytest.mark.parametrize("fn, text", [(dies, "killed by signal"), (exits, "exited unexpectedly")])
def test_a_dead_worker_is_an_error_at_once(fn, text):
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=text):
        list(Loader(Map(10, fn), batch_size=2, num_workers=2))
    assert time.monotonic() - start < 5


def slow(i):
    time.sleep(20)


def test_timeout():
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"timed out after 0\.3"):
        list(Loader(Map(4, slow), num_workers=2, timeout=0.3))
    assert time.monotonic() - start < 10


def test_abandoned_iteration_ends_its_workers():
    iterator = iter(Loader(Map(100, process), num_workers=2))
    pids = {int(next(iterator)), int(next(iterator))}
    del iterator
    wait_until_gone(pids)


def wait_until_gone(pids, limit=10.0):
    deadline = time.monotonic() + limit
    while alive := [p for p in pids if running(p)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


CHILD = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # (ignored in a background process)
import pyrite as torch
from pyrite.utils.data import DataLoader, Dataset
class D(Dataset):
    def __len__(self): return 1000
    def __getitem__(self, i):
        os.write(1, str(os.getpid()).encode() + bytes([10]))
        time.sleep(0.2)
        return torch.ones(100000)
for b in DataLoader(D(), num_workers=2, prefetch_factor=1): pass
"""


@pytest.mark.pyrite
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_behind(how):
    """Ctrl-C, a kill: the workers go with the main process, and shared memory with them."""
    before = set(os.listdir("/dev/shm"))
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        pids = set()
        while len(pids) < 2:
            line = child.stdout.readline()
            assert line, child.stderr.read()
            pids.add(int(line))
        child.send_signal(how)
        wait_until_gone({child.pid})
        wait_until_gone(pids)
        error = child.stderr.read()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        child.stderr.close()
    if how is signal.SIGINT:
        assert "KeyboardInterrupt" in error
    assert set(os.listdir("/dev/shm")) <= before


def test_two_loaders_at_once():
    a, b = Loader(Map(6), num_workers=2), Loader(Map(6), num_workers=2)
    assert [(int(x), int(y)) for x, y in zip(a, b)] == [(i, i) for i in range(6)]


def test_workers_see_the_number_of_threads():
    loader = Loader(Map(1, lambda i: torch.get_num_threads()), num_workers=1)
    assert int(next(iter(loader))) == 1
