"""Fetchers: one batch out of a data set, in the main process and in workers alike."""

from itertools import islice

from .collate import default_collate
from .dataset import batched


class MapFetcher:
    """Batches by indices; ``auto`` is False when the sampler gives single indices (``batch_size=None``)."""

    def __init__(self, dataset, auto, collate_fn):
        self.dataset, self.auto, self.collate_fn = dataset, auto, collate_fn
        self.batch = batched(dataset, "__getbatch__") if auto and collate_fn is default_collate else None
        self.items = batched(dataset, "__getitems__") if auto else None

    def __call__(self, indices):
        if self.batch is not None:
            return self.batch(indices)
        if not self.auto:
            return self.collate_fn(self.dataset[indices])
        if self.items is not None:
            return self.collate_fn(self.items(indices))
        dataset = self.dataset
        return self.collate_fn([dataset[i] for i in indices])


class IterableFetcher:
    """Batches as they come; StopIteration at the end."""

    def __init__(self, dataset, auto, collate_fn, batch_size, drop_last):
        self.iterator = iter(dataset)
        self.auto, self.collate_fn, self.batch_size, self.drop_last = auto, collate_fn, batch_size, drop_last

    def __call__(self, _):
        if not self.auto:
            return self.collate_fn(next(self.iterator))
        samples = list(islice(self.iterator, self.batch_size))
        if not samples or (self.drop_last and len(samples) < self.batch_size):
            raise StopIteration
        return self.collate_fn(samples)
