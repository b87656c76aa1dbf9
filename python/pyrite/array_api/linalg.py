"""Linear algebra with the array API's arguments; see :mod:`pyrite.linalg`."""

import pyrite as torch
from pyrite import linalg as _linalg

from ._dtypes import promote
from ._linear import matmul, matrix_transpose, tensordot, vecdot


def cholesky(x, /, *, upper=False):
    """The lower (or upper) triangular factor of positive definite matrices."""
    return _linalg.cholesky(x, upper=upper)


def cross(x1, x2, /, *, axis=-1):
    """The cross product of vectors of three elements along `axis`."""
    x1, x2 = promote(x1, x2)
    if not (-min(x1.ndim, x2.ndim) <= axis < max(x1.ndim, x2.ndim)):
        raise ValueError(f"cross: axis {axis} is out of range")
    if x1.shape[axis] != 3 or x2.shape[axis] != 3:
        raise ValueError(f"cross: axis {axis} must have 3 elements, has {x1.shape[axis]} and {x2.shape[axis]}")
    shape = torch.broadcast_shapes(x1.shape, x2.shape)
    return _linalg.cross(x1.expand(shape), x2.expand(shape), dim=axis)


def det(x, /):
    """Determinants."""
    return _linalg.det(x)


def diagonal(x, /, *, offset=0):
    """The diagonals of the last two axes."""
    return torch.diagonal(x, offset, -2, -1)


def eigh(x, /):
    """Eigenvalues, ascending, and eigenvectors of symmetric (Hermitian) matrices."""
    return _linalg.eigh(x)


def eigvalsh(x, /):
    """Eigenvalues, ascending, of symmetric (Hermitian) matrices."""
    return _linalg.eigvalsh(x)


def inv(x, /):
    """Inverses."""
    return _linalg.inv(x)


def matrix_norm(x, /, *, keepdims=False, ord="fro"):
    """Norms of matrices: 'fro', 'nuc', 1, -1, 2, -2, inf or -inf."""
    return _linalg.matrix_norm(x, "fro" if ord is None else ord, keepdim=keepdims)


def matrix_power(x, n, /):
    """Integer powers of square matrices."""
    return _linalg.matrix_power(x, n)


def matrix_rank(x, /, *, rtol=None):
    """How many singular values exceed `rtol` times the largest."""
    return _linalg.matrix_rank(x, rtol=rtol)


def outer(x1, x2, /):
    """All products of two vectors' elements."""
    return torch.outer(*promote(x1, x2))


def pinv(x, /, *, rtol=None):
    """Pseudo-inverses; singular values below `rtol` times the largest count as zero."""
    return _linalg.pinv(x, rtol=rtol)


def qr(x, /, *, mode="reduced"):
    """Orthogonal and upper triangular factors."""
    return _linalg.qr(x, mode)


def slogdet(x, /):
    """Sign and logarithm of the absolute value of determinants."""
    return _linalg.slogdet(x)


def solve(x1, x2, /):
    """The solution of ``x1 @ y = x2``; `x2` is a vector only if it has one axis."""
    x1, x2 = promote(x1, x2)
    if x2.ndim == 1:
        return _linalg.solve(x1, x2.unsqueeze(-1)).squeeze(-1)
    batch = torch.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    return _linalg.solve(x1.expand(*batch, *x1.shape[-2:]), x2.expand(*batch, *x2.shape[-2:]))


def svd(x, /, *, full_matrices=True):
    """Singular value decomposition: U, S, Vh."""
    return _linalg.svd(x, full_matrices=full_matrices)


def svdvals(x, /):
    """Singular values, descending."""
    return _linalg.svdvals(x)


def trace(x, /, *, offset=0, dtype=None):
    """The sums of diagonals; integers are added up in 64 bits."""
    from ._reductions import sum as total

    return total(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def vector_norm(x, /, *, axis=None, keepdims=False, ord=2):
    """Norms of the vectors along `axis` (of the flattened array if it is None)."""
    if axis == ():
        if ord == 0:
            return (x != 0).to(torch.abs(x).dtype)
        return torch.abs(x)
    return _linalg.vector_norm(x, ord, axis, keepdim=keepdims)


__all__ = [
    "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul", "matrix_norm", "matrix_power",
    "matrix_rank", "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "tensordot", "trace",
    "vecdot", "vector_norm",
]  # fmt: skip
