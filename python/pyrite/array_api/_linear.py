"""Products of matrices and vectors, in the main namespace and in `linalg`."""

import pyrite as torch

from ._dtypes import promote


def matmul(x1, x2, /):
    """The matrix product, batched by broadcasting; of vectors, the inner product."""
    return torch.matmul(*promote(x1, x2))


def matrix_transpose(x, /):
    """The last two axes exchanged."""
    if x.ndim < 2:
        raise ValueError(f"matrix_transpose: needs at least 2 axes, got {x.ndim}")
    return x.mT


def tensordot(x1, x2, /, *, axes=2):
    """The sum over pairs of axes: the last `axes` of `x1` with the first of `x2`, or two lists of axes."""
    return torch.tensordot(*promote(x1, x2), dims=axes)


def vecdot(x1, x2, /, *, axis=-1):
    """``sum(conj(x1) * x2)`` along `axis`, which is counted before broadcasting."""
    x1, x2 = promote(x1, x2)
    if x1.shape[axis] != x2.shape[axis]:
        raise ValueError(f"vecdot: axis {axis} has {x1.shape[axis]} and {x2.shape[axis]} elements")
    a, b = x1.movedim(axis, -1), x2.movedim(axis, -1)
    if a.dtype.is_complex:
        a = a.conj()
    y = torch.matmul(a.unsqueeze(-2), b.unsqueeze(-1))
    return y.squeeze(-1).squeeze(-1)
