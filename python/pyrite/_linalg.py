"""Linear algebra in the main namespace that takes any number of arguments: `einsum`, `tensordot`, ...

The work is the core's (`_C._linalg`); here arguments are only put into one form.
"""

from . import _C

__all__ = ["chain_matmul", "einsum", "lobpcg", "tensordot"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _subscripts(labels):
    out = []
    for label in labels:
        if label is Ellipsis:
            out.append("...")
        elif isinstance(label, int) and 0 <= label < 52:
            out.append(_LETTERS[label])
        else:
            raise ValueError(f"einsum(): subscripts in the list form must be in the range [0, 52), but got {label}")
    return "".join(out)


def einsum(*args):
    """Sums products of elements over the dimensions whose labels the result does not have.

    ``einsum("ij,jk->ik", a, b)``, or with lists of labels ``einsum(a, [0, 1], b, [1, 2], [0, 2])``. An
    ellipsis stands for broadcast dimensions; a label repeated in one operand is its diagonal. Without ``->``
    the result has the labels that appear once, in alphabetical order. Several operands are contracted in
    pairs, the cheapest pair first.

    >>> import pyrite as torch
    >>> torch.einsum("ii", torch.eye(3))
    tensor(3.)
    """
    if len(args) < 2:
        raise ValueError(
            "einsum(): must specify the equation string and at least one operand, or at least one operand and its "
            "subscripts list"
        )
    if isinstance(args[0], str):
        equation, operands = args[0], list(args[1:])
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = list(operands[0])
    else:
        operands = list(args[0:-1:2]) if len(args) % 2 else list(args[0::2])
        labels = [args[i] for i in range(1, len(args), 2)]
        equation = ",".join(_subscripts(s) for s in labels)
        if len(args) % 2:
            equation += "->" + _subscripts(args[-1])
    return _C._linalg._einsum(equation, operands)


def tensordot(a, b, dims=2, out=None):
    """Products summed over pairs of dimensions.

    ``dims`` is a number (the last ones of ``a`` with the first ones of ``b``) or two lists of dimensions.

    >>> import pyrite as torch
    >>> torch.tensordot(torch.ones(2, 3), torch.ones(3, 2), dims=1)
    tensor([[3., 3.],
            [3., 3.]])
    """
    if isinstance(dims, _C.Tensor):
        dims = dims.tolist() if dims.numel() > 1 else int(dims.item())
    if isinstance(dims, (list, tuple)):
        if len(dims) == 1 and isinstance(dims[0], int):
            dims = dims[0]
        else:
            if len(dims) != 2:
                raise RuntimeError(
                    f"tensordot expects dims to be a number or two lists of dimensions, but got dims={dims}"
                )
            first, second = ([d] if isinstance(d, int) else list(d) for d in dims)
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(a.dim(), b.dim()):
            raise RuntimeError(
                f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}, ndims {a.dim()} and {b.dim()}"
            )
        first, second = list(range(-dims, 0)), list(range(dims))
    elif not isinstance(dims, (list, tuple)):
        raise RuntimeError(f"tensordot expects dims to be a number or two lists of dimensions, but got dims={dims!r}")
    if out is not None:
        return _C._linalg._tensordot(a, b, first, second, out=out)
    return _C._linalg._tensordot(a, b, first, second)


def chain_matmul(*matrices, out=None):
    """The product of two-dimensional matrices in the cheapest order (see :func:`pyrite.linalg.multi_dot`).

    >>> import pyrite as torch
    >>> torch.chain_matmul(torch.ones(2, 3), torch.ones(3, 1)).shape
    torch.Size([2, 1])
    """
    if len(matrices) == 1 and isinstance(matrices[0], (list, tuple)):
        matrices = matrices[0]
    if out is not None:
        return _C._linalg._chain_matmul(list(matrices), out=out)
    return _C._linalg._chain_matmul(list(matrices))


def lobpcg(
    A,
    k=None,
    B=None,
    X=None,
    n=None,
    iK=None,
    niter=None,
    tol=None,
    largest=None,
    method=None,
    tracker=None,
    ortho_iparams=None,
    ortho_fparams=None,
    ortho_bparams=None,
):
    """The ``k`` largest (or smallest) eigenvalues and eigenvectors of a symmetric problem; see `_lobpcg`."""
    from ._lobpcg import lobpcg as solve

    return solve(A, k, B, X, n, iK, niter, tol, largest, method, tracker, ortho_iparams, ortho_fparams, ortho_bparams)
