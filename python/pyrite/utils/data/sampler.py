"""Samplers: in which order, and in which batches, a loader reads a data set."""

from itertools import islice

from ... import _C


def _seeded_generator():
    """A generator seeded from the global one, so that `manual_seed` fixes an epoch's order."""
    generator = _C.Generator()
    generator.manual_seed(int(_C.empty((), dtype=_C.int64).random_().item()))
    return generator


class Sampler:
    """Base class: a subclass defines ``__iter__`` (indices) and usually ``__len__``."""

    def __init__(self, data_source=None):
        pass

    def __iter__(self):
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")

    def __class_getitem__(cls, item):
        return cls


class SequentialSampler(Sampler):
    """0, 1, 2, ...

    >>> import pyrite as torch
    >>> list(torch.utils.data.SequentialSampler([5, 6]))
    [0, 1]
    """

    def __init__(self, data_source):
        self.data_source = data_source

    def __iter__(self):
        return iter(range(len(self.data_source)))

    def __len__(self):
        return len(self.data_source)


class RandomSampler(Sampler):
    """All indices in random order; with ``replacement`` or ``num_samples`` drawn as often as asked.

    >>> import pyrite as torch
    >>> sorted(torch.utils.data.RandomSampler([5, 6, 7]))
    [0, 1, 2]
    """

    def __init__(self, data_source, replacement=False, num_samples=None, generator=None):
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got replacement={replacement}")
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if not isinstance(self.num_samples, int) or self.num_samples < 0:
            raise ValueError(
                f"num_samples should be a non-negative integer value, but got num_samples={self.num_samples}"
            )

    @property
    def num_samples(self):
        """How many indices an epoch has."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self):
        n = len(self.data_source)
        if n == 0 and self.num_samples:
            raise ValueError("RandomSampler: can't draw samples from an empty data source")
        generator = _seeded_generator() if self.generator is None else self.generator
        left = self.num_samples
        while left > 0:
            # Drawn in blocks: a huge num_samples must not become one huge list.
            if self.replacement:
                count = min(left, 4096)
                block = _C.randint(0, n, (count,), dtype=_C.int64, generator=generator).tolist()
            else:
                block = _C.randperm(n, generator=generator).tolist()[:left]
            yield from block
            left -= len(block)

    def __len__(self):
        return self.num_samples


class SubsetRandomSampler(Sampler):
    """The given indices in random order.

    >>> import pyrite as torch
    >>> sorted(torch.utils.data.SubsetRandomSampler([4, 2]))
    [2, 4]
    """

    def __init__(self, indices, generator=None):
        self.indices = indices
        self.generator = generator

    def __iter__(self):
        for i in _C.randperm(len(self.indices), generator=self.generator).tolist():
            yield self.indices[i]

    def __len__(self):
        return len(self.indices)


class WeightedRandomSampler(Sampler):
    """``num_samples`` indices drawn with probabilities proportional to ``weights``.

    >>> import pyrite as torch
    >>> list(torch.utils.data.WeightedRandomSampler([0.0, 1.0], 2))
    [1, 1]
    """

    def __init__(self, weights, num_samples, replacement=True, generator=None):
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={num_samples}")
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a boolean value, but got replacement={replacement}")
        self.weights = _C.as_tensor(weights, dtype=_C.float64)
        if self.weights.dim() != 1:
            raise ValueError(
                f"weights should be a 1d sequence but given weights have shape {tuple(self.weights.shape)}"
            )
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self):
        if self.replacement:
            # Inverse of the cumulative distribution: one uniform number per sample.
            cumulative = self.weights.cumsum(0)
            total = float(cumulative[-1])
            u = _C.rand(self.num_samples, dtype=_C.float64, generator=self.generator)
            table = cumulative.tolist()
            from bisect import bisect_right

            last = max(i for i, w in enumerate(self.weights.tolist()) if w > 0)
            return iter([min(bisect_right(table, x * total), last) for x in u.tolist()])
        # Without replacement: the order of exponential waiting times (Efraimidis and Spirakis 2006).
        weights = self.weights.tolist()
        positive = sum(w > 0 for w in weights)
        if self.num_samples > positive:
            raise RuntimeError(
                f"WeightedRandomSampler: can't draw {self.num_samples} samples without replacement from {positive} "
                "positive weights"
            )
        waits = _C.empty(len(weights), dtype=_C.float64).exponential_(1.0, generator=self.generator).tolist()
        order = sorted((e / w, i) for i, (e, w) in enumerate(zip(waits, weights)) if w > 0)
        return iter([i for _, i in order[: self.num_samples]])

    def __len__(self):
        return self.num_samples


class BatchSampler(Sampler):
    """Groups another sampler's indices into lists of ``batch_size``.

    >>> import pyrite as torch
    >>> list(torch.utils.data.BatchSampler(range(5), 2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler, batch_size, drop_last):
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self):
        indices = iter(self.sampler)
        while batch := list(islice(indices, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield batch

    def __len__(self):
        n = len(self.sampler)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
