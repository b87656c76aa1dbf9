"""Linear algebra on matrices and batches of matrices (`torch.linalg`).

Inputs are float32, float64, complex64 or complex128; dimensions before the last two are a batch. Functions
named `*_ex` report failures in an `info` tensor instead of raising :class:`LinAlgError`.

>>> import pyrite as torch
>>> A = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
>>> torch.linalg.eigvalsh(A)
tensor([1., 3.])
"""

from . import _C

LinAlgError = _C.LinAlgError

_linalg = _C._linalg

cholesky = _linalg.cholesky
cholesky_ex = _linalg.cholesky_ex
cond = _linalg.cond
cross = _linalg.cross
det = _linalg.det
diagonal = _linalg.diagonal
eig = _linalg.eig
eigh = _linalg.eigh
eigvals = _linalg.eigvals
eigvalsh = _linalg.eigvalsh
householder_product = _linalg.householder_product
inv = _linalg.inv
inv_ex = _linalg.inv_ex
ldl_factor = _linalg.ldl_factor
ldl_factor_ex = _linalg.ldl_factor_ex
ldl_solve = _linalg.ldl_solve
lstsq = _linalg.lstsq
lu = _linalg.lu
lu_factor = _linalg.lu_factor
lu_factor_ex = _linalg.lu_factor_ex
lu_solve = _linalg.lu_solve
matmul = _linalg.matmul
matrix_exp = _linalg.matrix_exp
matrix_norm = _linalg.matrix_norm
matrix_power = _linalg.matrix_power
matrix_rank = _linalg.matrix_rank
multi_dot = _linalg.multi_dot
norm = _linalg.norm
pinv = _linalg.pinv
qr = _linalg.qr
slogdet = _linalg.slogdet
solve = _linalg.solve
solve_ex = _linalg.solve_ex
solve_triangular = _linalg.solve_triangular
svd = _linalg.svd
svdvals = _linalg.svdvals
tensorinv = _linalg.tensorinv
tensorsolve = _linalg.tensorsolve
vander = _linalg.vander
vecdot = _linalg.vecdot
vector_norm = _linalg.vector_norm

__all__ = [
    "LinAlgError",
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "householder_product",
    "inv",
    "inv_ex",
    "ldl_factor",
    "ldl_factor_ex",
    "ldl_solve",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_factor_ex",
    "lu_solve",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_ex",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensorinv",
    "tensorsolve",
    "vander",
    "vecdot",
    "vector_norm",
]
