"""A worker process of a DataLoader: it fetches batches on command and sends them back.

Commands come over a socket that a thread drains at once. So the main process never blocks when it sends,
and the worker learns immediately that the main process is gone (end of file): then it exits, whatever its
data set is doing. Ctrl-C is left to the main process.
"""

import os
import pickle
import random
import signal
import sys
import threading
import traceback
import weakref

from ... import _C
from .fetch import IterableFetcher, MapFetcher

# The main process's ends of all workers' sockets. A forked worker inherits them and must close them, or
# another worker's death (or the main process's) would not show as end of file.
parent_ends = weakref.WeakSet()

_info = None


class WorkerInfo:
    """What :func:`get_worker_info` returns: ``id``, ``num_workers``, ``seed`` and this process's ``dataset``."""

    def __init__(self, id, num_workers, seed, dataset):
        self.id, self.num_workers, self.seed, self.dataset = id, num_workers, seed, dataset

    def __repr__(self):
        return f"WorkerInfo(id={self.id}, num_workers={self.num_workers}, seed={self.seed}, dataset={self.dataset!r})"


def get_worker_info():
    """The worker this code runs in, or None in the main process.

    >>> import pyrite as torch
    >>> torch.utils.data.get_worker_info() is None
    True
    """
    return _info


class Spec:
    """All that a worker needs to know."""

    def __init__(self, **fields):
        self.__dict__.update(fields)


class _Inbox:
    """Commands received by the draining thread, waiting for the worker's main thread."""

    def __init__(self, channel):
        import queue

        self.queue = queue.SimpleQueue()
        self.channel = channel
        self.epoch = 0
        threading.Thread(target=self._drain, name="pyrite-worker-inbox", daemon=True).start()

    def _drain(self):
        try:
            while True:
                command = self.channel.recv()
                if command[0] == "epoch":
                    self.epoch = command[1]  # at once: tasks of the epoch before are skipped
                elif command[0] == "stop":
                    self.epoch = -1
                self.queue.put(command)
        except BaseException:
            os._exit(0)


def seed_everything(seed):
    """Seeds Python's, Pyrite's and, where it is loaded, NumPy's random numbers."""
    random.seed(seed)
    _C.manual_seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        # Python and NumPy share a generator: the third number keeps their streams apart.
        numpy.random.seed([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, 0x4E50])


def describe(error, worker_id):
    """An exception in a form that always travels: itself if it can be pickled, its text in any case."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        packed = pickle.dumps(error)
        pickle.loads(packed)
    except Exception:
        packed = None
    return packed, type(error).__name__, str(error), text, worker_id


def raise_described(described):
    """Raises in the main process what :func:`describe` packed in a worker."""
    packed, name, message, text, worker_id = described
    error = pickle.loads(packed) if packed is not None else RuntimeError(f"{name}: {message}")
    error.add_note(f"Caught {name} in DataLoader worker process {worker_id}.\nOriginal {text}")
    raise error


def main(channel, spec):
    """Runs in the worker process until told to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for end in list(parent_ends):
        end.close()
    try:
        _serve(channel, spec)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _serve(channel, spec):
    global _info  # noqa: PLW0603  (a process has one worker: this is what get_worker_info answers)
    inbox = _Inbox(channel)
    _C.set_num_threads(1)
    seed = spec.base_seed + spec.worker_id
    seed_everything(seed)
    _info = WorkerInfo(spec.worker_id, spec.num_workers, seed, spec.dataset)
    try:
        if spec.worker_init_fn is not None:
            spec.worker_init_fn(spec.worker_id)
    except Exception as error:
        channel.send(("error", 0, -1, describe(error, spec.worker_id)))
        # Stay until told to go: a worker that is gone could be noticed before its message is read.
        while inbox.queue.get()[0] != "stop":
            pass
        return
    fetch = None
    ended = False
    while True:
        command = inbox.queue.get()
        if command[0] == "stop":
            return
        if command[0] == "epoch":
            seed = command[2] + spec.worker_id
            seed_everything(seed)
            _info.seed = seed
            fetch, ended = None, False
            continue
        _, epoch, index, what = command
        if epoch != inbox.epoch:
            continue
        if ended:
            channel.send(("end", epoch, index, None))
            continue
        try:
            if fetch is None:
                fetch = _fetcher(spec)
            batch = fetch(what)
        except StopIteration as error:
            if spec.iterable:
                ended = True
                channel.send(("end", epoch, index, None))
            else:
                failure = RuntimeError("DataLoader worker: the data set or collate_fn raised StopIteration")
                failure.__cause__ = error
                channel.send(("error", epoch, index, describe(failure, spec.worker_id)))
            continue
        except Exception as error:
            channel.send(("error", epoch, index, describe(error, spec.worker_id)))
            continue
        try:
            channel.send_batch(("data", epoch, index, batch))
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            channel.send(("error", epoch, index, describe(error, spec.worker_id)))
        del batch


def _fetcher(spec):
    if spec.iterable:
        return IterableFetcher(spec.dataset, spec.auto, spec.collate_fn, spec.batch_size, spec.drop_last)
    return MapFetcher(spec.dataset, spec.auto, spec.collate_fn)
