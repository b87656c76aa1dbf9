"""Turns a list of samples into a batch: tensors are stacked, containers keep their shape."""

import sys

from ... import _C

Tensor = _C.Tensor


def _numpy():
    """NumPy if the program uses it; a sample can only be an array if it does."""
    return sys.modules.get("numpy")


def _is_string_array(array):
    return array.dtype.kind in "SUO"


def default_convert(data):
    """Turns NumPy arrays inside ``data`` into tensors; everything else stays.

    >>> import pyrite as torch
    >>> torch.utils.data.default_convert((1, "a"))
    (1, 'a')
    """
    np = _numpy()
    if isinstance(data, Tensor):
        return data
    if np is not None and isinstance(data, (np.ndarray, np.generic)):
        if _is_string_array(np.asarray(data)):
            return data
        return _C.as_tensor(data)
    if isinstance(data, dict):
        return _like(data, {k: default_convert(v) for k, v in data.items()})
    if isinstance(data, tuple):
        items = [default_convert(v) for v in data]
        return type(data)(*items) if hasattr(data, "_fields") else tuple(items)
    if isinstance(data, list):
        return [default_convert(v) for v in data]
    return data


def _like(original, items):
    """``items`` in a mapping of the original's type, where that can be built from a dict."""
    if type(original) is dict:
        return items
    try:
        return type(original)(items)
    except TypeError:
        return items


def default_collate(batch):
    """A batch of samples: tensors and arrays stacked, numbers in a tensor, dicts, tuples and lists by element.

    RuntimeError if samples have different lengths, TypeError for types that can't be batched.

    >>> import pyrite as torch
    >>> torch.utils.data.default_collate([{"x": 1, "s": "a"}, {"x": 2, "s": "b"}])
    {'x': tensor([1, 2]), 's': ['a', 'b']}
    """
    first = batch[0]
    kind = type(first)
    if isinstance(first, Tensor):
        return _C.stack(batch, 0)
    if kind is float:
        return _C.tensor(batch, dtype=_C.float64)
    if isinstance(first, (bool, int)):
        return _C.tensor(batch)
    if isinstance(first, (str, bytes)):
        return batch if isinstance(batch, list) else list(batch)
    np = _numpy()
    if np is not None and isinstance(first, (np.ndarray, np.generic)):
        if _is_string_array(np.asarray(first)):
            raise TypeError(f"default_collate: can't batch NumPy arrays of dtype {first.dtype}")
        return _C.as_tensor(np.stack([np.asarray(b) for b in batch]))
    if isinstance(first, float):
        return _C.tensor([float(b) for b in batch], dtype=_C.float64)
    if isinstance(first, dict) or hasattr(first, "keys"):
        return _like(first, {k: default_collate([b[k] for b in batch]) for k in first})
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return kind(*(default_collate(column) for column in _columns(batch)))
    if isinstance(first, tuple):
        return [default_collate(column) for column in _columns(batch)]
    if isinstance(first, list):
        return [default_collate(column) for column in _columns(batch)]
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found " + str(kind)
    )


def _columns(batch):
    size = len(batch[0])
    for i, sample in enumerate(batch):
        if len(sample) != size:
            raise RuntimeError(
                f"each element in list of batch should be of equal size: sample 0 has {size} elements, sample {i} has "
                f"{len(sample)}"
            )
    return [list(column) for column in zip(*batch)]
