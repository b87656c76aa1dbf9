"""Data sets: things with ``__getitem__`` and ``__len__``, or only ``__iter__``, and ways to combine them.

Batched fetch: a data set may define ``__getitems__(indices)`` (a list of samples), or, if its data is in
memory, ``__getbatch__(indices)``: the collated batch at once, used when the loader collates by default.
"""

import bisect
import itertools
import math

from ... import _C


def batched(dataset, name):
    """The data set's batched form ``name``, unless a subclass has redefined ``__getitem__`` below it.

    Such a subclass (with an augmentation, say) means its own ``__getitem__`` to be used.
    """
    method = getattr(dataset, name, None)
    if method is None:
        return None
    for cls in type(dataset).__mro__:
        if name in cls.__dict__:
            return method
        if "__getitem__" in cls.__dict__:
            return None
    return method


class Dataset:
    """A map-style data set: subclasses define ``__getitem__(index)`` and usually ``__len__()``.

    >>> import pyrite as torch
    >>> class Squares(torch.utils.data.Dataset):
    ...     def __len__(self):
    ...         return 3
    ...     def __getitem__(self, i):
    ...         return i * i
    >>> (Squares() + Squares())[4]
    1
    """

    def __getitem__(self, index):
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other):
        return ConcatDataset([self, other])

    def __class_getitem__(cls, item):
        return cls  # `Dataset[int]` in annotations


class IterableDataset(Dataset):
    """A data set that is only iterated: subclasses define ``__iter__``.

    With several workers each runs its own copy: split the data there by :func:`get_worker_info`.

    >>> import pyrite as torch
    >>> class Count(torch.utils.data.IterableDataset):
    ...     def __iter__(self):
    ...         return iter(range(3))
    >>> [b.tolist() for b in torch.utils.data.DataLoader(Count(), batch_size=2)]
    [[0, 1], [2]]
    """

    def __iter__(self):
        raise NotImplementedError("Subclasses of IterableDataset should implement __iter__.")

    def __add__(self, other):
        return ChainDataset([self, other])


class TensorDataset(Dataset):
    """Rows of tensors that have the same first dimension.

    A loader takes each batch by one ``index_select`` per tensor.

    >>> import pyrite as torch
    >>> ds = torch.utils.data.TensorDataset(torch.arange(3), torch.ones(3, 2))
    >>> ds[1][0].item(), len(ds)
    (1, 3)
    """

    def __init__(self, *tensors):
        if not tensors:
            raise ValueError("TensorDataset needs at least one tensor")
        if any(t.shape[0] != tensors[0].shape[0] for t in tensors):
            raise AssertionError(f"Size mismatch between tensors: {[tuple(t.shape) for t in tensors]}")
        self.tensors = tensors

    def __getitem__(self, index):
        return tuple(t[index] for t in self.tensors)

    def __getitems__(self, indices):
        return list(zip(*(_rows(t, indices) for t in self.tensors)))

    def __getbatch__(self, indices):
        return [_rows(t, indices) for t in self.tensors]

    def __len__(self):
        return self.tensors[0].shape[0]


def _rows(t, indices):
    n = t.shape[0]
    if isinstance(indices, _C.Tensor):
        index = _C.where(indices < 0, indices + n, indices)
    else:
        if len(indices) and min(indices) < 0:
            indices = [i + n if i < 0 else i for i in indices]
        index = _C.tensor(indices, dtype=_C.int64)
    return t.index_select(0, index if t.device.type == "cpu" else index.to(t.device))


class StackDataset(Dataset):
    """Several data sets of equal length side by side: samples are tuples, or dicts with keyword arguments.

    >>> import pyrite as torch
    >>> torch.utils.data.StackDataset(x=[1, 2], y=[3, 4])[0]
    {'x': 1, 'y': 3}
    """

    def __init__(self, *args, **kwargs):
        if args and kwargs:
            raise ValueError(
                "Supported either ``tuple``- (via ``args``) or ``dict``- (via ``kwargs``) like input/output, but both "
                "types are given."
            )
        if not args and not kwargs:
            raise ValueError("At least one dataset should be passed")
        parts = list(args or kwargs.values())
        self._length = len(parts[0])
        if any(len(d) != self._length for d in parts):
            raise ValueError("Size mismatch between datasets")
        self.datasets = args if args else kwargs

    def __getitem__(self, index):
        if isinstance(self.datasets, dict):
            return {k: d[index] for k, d in self.datasets.items()}
        return tuple(d[index] for d in self.datasets)

    def __len__(self):
        return self._length


class ConcatDataset(Dataset):
    """Data sets one after another.

    >>> import pyrite as torch
    >>> torch.utils.data.ConcatDataset([[1, 2], [3]])[2]
    3
    """

    def __init__(self, datasets):
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise AssertionError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(d) for d in self.datasets))

    def __len__(self):
        return self.cumulative_sizes[-1]

    def __getitem__(self, index):
        n = len(self)
        if index < 0:
            if -index > n:
                raise ValueError("absolute value of index should not exceed dataset length")
            index += n
        which = bisect.bisect_right(self.cumulative_sizes, index)
        if which == len(self.datasets):
            raise IndexError(f"index {index} is out of range for ConcatDataset of length {n}")
        start = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - start]


class ChainDataset(IterableDataset):
    """Iterable data sets one after another.

    >>> import pyrite as torch
    >>> class One(torch.utils.data.IterableDataset):
    ...     def __iter__(self):
    ...         return iter([1])
    >>> list(One() + One())
    [1, 1]
    """

    def __init__(self, datasets):
        self.datasets = list(datasets)

    def __iter__(self):
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise AssertionError("ChainDataset only supports IterableDataset")
            yield from dataset

    def __len__(self):
        return sum(len(d) for d in self.datasets)


class Subset(Dataset):
    """Some samples of a data set, by their indices.

    >>> import pyrite as torch
    >>> torch.utils.data.Subset([10, 20, 30], [2, 0])[0]
    30
    """

    def __init__(self, dataset, indices):
        self.dataset = dataset
        self.indices = indices

    @property
    def __getbatch__(self):
        # Exists only if the data set below has it: fetchers ask by getattr.
        inner = batched(self.dataset, "__getbatch__")
        if inner is None:
            raise AttributeError(f"{type(self.dataset).__name__} has no __getbatch__")
        return _Mapped(inner, self.indices)

    def __getitem__(self, index):
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices):
        inner = batched(self.dataset, "__getitems__")
        picked = [self.indices[i] for i in indices]
        return inner(picked) if inner is not None else [self.dataset[i] for i in picked]

    def __len__(self):
        return len(self.indices)


class _Mapped:
    """``fetch`` with indices looked up in a table first; a class, so that it can be pickled."""

    def __init__(self, fetch, table):
        self.fetch, self.table = fetch, table

    def __call__(self, indices):
        return self.fetch([self.table[i] for i in indices])


def random_split(dataset, lengths, generator=None):
    """Splits a data set at random into :class:`Subset` s of given lengths, or of given shares that sum to 1.

    >>> import pyrite as torch
    >>> [len(s) for s in torch.utils.data.random_split(range(10), [0.7, 0.3])]
    [7, 3]
    """
    lengths = list(lengths)
    n = len(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        for i, share in enumerate(lengths):
            if share < 0 or share > 1:
                raise ValueError(f"Fraction at index {i} is not between 0 and 1")
        sizes = [math.floor(n * share) for share in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
        lengths = sizes
        for i, length in enumerate(lengths):
            if length == 0:
                import warnings

                warnings.warn(
                    f"Length of split at index {i} is 0. This might result in an empty dataset.", stacklevel=2
                )
    if sum(lengths) != n:
        raise ValueError("Sum of input lengths does not equal the length of the input dataset!")
    order = _C.randperm(n, generator=generator).tolist()
    ends = list(itertools.accumulate(lengths))
    return [Subset(dataset, order[end - length : end]) for end, length in zip(ends, lengths)]
