"""`DataLoader`: batches of a data set, in this process or in workers."""

import os

from ... import _C
from .collate import default_collate, default_convert
from .dataset import IterableDataset
from .fetch import IterableFetcher, MapFetcher
from .sampler import BatchSampler, RandomSampler, SequentialSampler

_FIXED = frozenset(("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"))


class _Endless:
    """The 'indices' of an iterable data set: it needs none."""

    def __iter__(self):
        while True:
            yield None


class DataLoader:
    """Iterates over a data set in batches.

    Args:
        dataset: map-style (``__getitem__``, ``__len__``) or an :class:`IterableDataset`.
        batch_size: samples per batch; None gives single samples.
        shuffle: a new random order every epoch. sampler, batch_sampler: own orders instead.
        num_workers: processes that load batches (0: this one). Batches come in order (``in_order``), tensors
            through shared memory. Worker ``i`` seeds Python's, NumPy's and Pyrite's random numbers with
            ``base + i``. Errors are raised here with the worker's traceback; a killed worker is an error at once.
        collate_fn: turns a list of samples into a batch (default :func:`default_collate`).
        drop_last: leave out an incomplete last batch. timeout: seconds to wait for a batch (0: no limit).
        worker_init_fn(worker_id): called in each worker first. generator: random numbers for order and seeds.
        prefetch_factor: batches per worker loaded ahead (default 2). persistent_workers: keep the processes
            between epochs. multiprocessing_context: 'fork' (default on Linux), 'spawn', 'forkserver'.
        pin_memory: copy batches to page-locked memory, for faster copies to a GPU.

    Raises ValueError for options that contradict each other.

    >>> import pyrite as torch
    >>> loader = torch.utils.data.DataLoader(range(5), batch_size=2)
    >>> [b.tolist() for b in loader], len(loader)
    ([[0, 1], [2, 3], [4]], 3)
    """

    def __init__(
        self,
        dataset,
        batch_size=1,
        shuffle=None,
        sampler=None,
        batch_sampler=None,
        num_workers=0,
        collate_fn=None,
        pin_memory=False,
        drop_last=False,
        timeout=0,
        worker_init_fn=None,
        multiprocessing_context=None,
        generator=None,
        *,
        prefetch_factor=None,
        persistent_workers=False,
        pin_memory_device="",
        in_order=True,
    ):
        if num_workers < 0:
            raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
        if timeout < 0:
            raise ValueError("timeout option should be non-negative")
        if num_workers == 0 and prefetch_factor is not None:
            raise ValueError(
                "prefetch_factor option could only be specified in multiprocessing. let num_workers > 0 to enable "
                "multiprocessing, otherwise set prefetch_factor to None."
            )
        if prefetch_factor is not None and prefetch_factor < 1:
            raise ValueError("prefetch_factor option should be positive")
        if persistent_workers and num_workers == 0:
            raise ValueError("persistent_workers option needs num_workers > 0")
        if num_workers == 0 and multiprocessing_context is not None:
            raise ValueError(
                "multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got "
                f"num_workers={num_workers}"
            )
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers > 0 and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.generator = generator
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            if shuffle not in (False, None):
                raise ValueError(
                    f"DataLoader with IterableDataset: expected unspecified shuffle option, but got shuffle={shuffle}"
                )
            if sampler is not None:
                raise ValueError(
                    f"DataLoader with IterableDataset: expected unspecified sampler option, but got sampler={sampler}"
                )
            if batch_sampler is not None:
                raise ValueError(
                    f"DataLoader with IterableDataset: expected unspecified batch_sampler option, but got "
                    f"batch_sampler={batch_sampler}"
                )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size = None
            drop_last = False
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        if sampler is None:
            if self._iterable:
                sampler = _Endless()
            elif shuffle:
                sampler = RandomSampler(dataset, generator=generator)
            else:
                sampler = SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None:
            if self._iterable:
                if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
                    raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
            else:
                batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self._auto = batch_size is not None or batch_sampler is not None
        if collate_fn is None:
            collate_fn = default_collate if self._auto else default_convert
        self.collate_fn = collate_fn
        self._context()
        self._persistent = None
        self._ready = True

    def __setattr__(self, name, value):
        if name in _FIXED and self.__dict__.get("_ready"):
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is initialized")
        object.__setattr__(self, name, value)

    def __getstate__(self):
        state = dict(self.__dict__)
        state["_persistent"] = None  # processes stay behind
        return state

    def __class_getitem__(cls, item):
        return cls

    def __len__(self):
        if not self._iterable:
            return len(self.batch_sampler if self.batch_sampler is not None else self.sampler)
        n = len(self.dataset)
        if self.batch_size is None:
            return n
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self):
        if self.num_workers == 0:
            return _SingleIterator(self)
        if not self.persistent_workers:
            return _WorkerIterator(self)
        if self._persistent is None or self._persistent.closed:
            self._persistent = _WorkerIterator(self)
        else:
            self._persistent.restart(self)
        return self._persistent

    def _context(self):
        if self.num_workers == 0:
            return None
        import multiprocessing

        context = self.multiprocessing_context
        if context is None:
            # Forked workers share the data set's memory and start in milliseconds; the core survives a fork.
            context = "fork" if os.name == "posix" and "fork" in multiprocessing.get_all_start_methods() else None
        if context is None or isinstance(context, str):
            valid = multiprocessing.get_all_start_methods()
            if context is not None and context not in valid:
                raise ValueError(
                    f"multiprocessing_context option should specify a valid start method in {valid}, but got "
                    f"multiprocessing_context={context!r}"
                )
            return multiprocessing.get_context(context)
        if not hasattr(context, "Process"):
            raise TypeError(
                "multiprocessing_context option should be a valid context object or a string specifying the start method, "
                f"but got multiprocessing_context={context}"
            )
        return context

    def _indices(self):
        """The work of an epoch: lists of indices, single indices, or endless None."""
        return iter(
            _Endless() if self._iterable else self.batch_sampler if self.batch_sampler is not None else self.sampler
        )

    def _base_seed(self):
        return int(_C.empty((), dtype=_C.int64).random_(generator=self.generator).item())

    def _pin(self):
        """The function that pins a batch, or None."""
        if not self.pin_memory:
            return None
        from ... import cuda

        if not cuda.is_available():
            import warnings

            warnings.warn(
                "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory won't be used.",
                stacklevel=3,
            )
            return None
        from ...nn._hooks import map_tensors

        return lambda batch: map_tensors(lambda t: t.pin_memory(), batch)


class _SingleIterator:
    """One epoch in this process."""

    def __init__(self, loader):
        self.loader = loader
        self._seed = loader._base_seed()  # drawn with or without workers: the order of batches is the same
        self.indices = loader._indices()
        if loader._iterable:
            self.fetch = IterableFetcher(
                loader.dataset, loader._auto, loader.collate_fn, loader.batch_size, loader.drop_last
            )  # fmt: skip
        else:
            self.fetch = MapFetcher(loader.dataset, loader._auto, loader.collate_fn)
        self.pin = loader._pin()

    def __iter__(self):
        return self

    def __len__(self):
        return len(self.loader)

    def __next__(self):
        batch = self.fetch(next(self.indices))
        return batch if self.pin is None else self.pin(batch)


class _WorkerIterator:
    """One epoch (or, with persistent workers, one after another) by worker processes."""

    def __init__(self, loader):
        from .pool import WorkerPool
        from .worker import Spec

        self.loader = loader
        self.closed = False
        self.persistent = loader.persistent_workers
        self.epoch = 0
        base_seed = loader._base_seed()
        common = {
            "dataset": loader.dataset,
            "iterable": loader._iterable,
            "auto": loader._auto,
            "collate_fn": loader.collate_fn,
            "batch_size": loader.batch_size,
            "drop_last": loader.drop_last,
            "worker_init_fn": loader.worker_init_fn,
            "num_workers": loader.num_workers,
            "base_seed": base_seed,
        }
        self.pool = WorkerPool(loader._context(), loader.num_workers, lambda i: Spec(worker_id=i, **common))
        self._begin()

    def restart(self, loader):
        """A new epoch with the same processes; what is left of the old one is dropped."""
        self.epoch += 1
        seed = loader._base_seed()
        for i in range(loader.num_workers):
            self.pool.send(i, ("epoch", self.epoch, seed))
        self._begin()

    def _begin(self):
        loader = self.loader
        self.timeout = loader.timeout or None
        self.in_order = loader.in_order
        self.indices = loader._indices()
        self.exhausted = False
        self.active = [True] * loader.num_workers  # False: an iterable data set has ended there
        self.turn = 0
        self.sent = 0  # number of the next task
        self.wanted = 0  # number of the next batch to return, in order
        self.pending = {}  # task -> worker
        self.arrived = {}  # task -> (kind, payload)
        self.pin = loader._pin()
        for _ in range(loader.prefetch_factor * loader.num_workers):
            self._send_one()

    def _send_one(self):
        if self.exhausted:
            return
        n = len(self.active)
        for step in range(n):
            worker = (self.turn + step) % n
            if self.active[worker]:
                break
        else:
            self.exhausted = True
            return
        try:
            indices = next(self.indices)
        except StopIteration:
            self.exhausted = True
            return
        self.turn = worker + 1
        self.pending[self.sent] = worker
        self.pool.send(worker, ("task", self.epoch, self.sent, indices))
        self.sent += 1

    def __iter__(self):
        return self

    def __len__(self):
        return len(self.loader)

    def __next__(self):
        if self.closed:
            raise StopIteration
        try:
            return self._next()
        except StopIteration:
            if not self.persistent:
                self._close()
            raise
        except BaseException as error:
            # Ctrl-C must not wait for a slow data set; an ordinary error in a sample may.
            self._close(None if isinstance(error, Exception) else 0.0)
            raise

    def _next(self):
        from .worker import raise_described

        while True:
            task = self._ready_task()
            if task is not None:
                kind, payload = self.arrived.pop(task)
                if kind == "end":
                    self._send_one()
                    continue
                self._send_one()
                if kind == "error":
                    raise_described(payload)
                return payload if self.pin is None else self.pin(payload)
            if not self.pending:
                raise StopIteration
            for worker, (kind, epoch, number, payload) in self.pool.receive(self.timeout):
                if kind == "error" and number < 0:  # worker_init_fn failed
                    raise_described(payload)
                if epoch != self.epoch:
                    continue  # of an epoch that was abandoned
                self.pending.pop(number, None)
                if kind == "end":
                    self.active[worker] = False
                self.arrived[number] = (kind, payload)

    def _ready_task(self):
        if not self.in_order:
            return next(iter(self.arrived), None)
        if self.wanted in self.arrived:
            self.wanted += 1
            return self.wanted - 1
        return None

    def _close(self, grace=None):
        self.closed = True
        self.arrived.clear()
        if grace is None:
            self.pool.shutdown()
        else:
            self.pool.shutdown(grace)
