"""Linear algebra as data: values against NumPy, layouts, gradients, empty input, names of results, errors."""

import itertools

import numpy as np
import pytest
from numeric import check_gradients
from subject import IS_PYRITE, torch

L = torch.linalg
TYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
F64 = torch.float64


def tolerance(dtype):
    return {"rtol": 2e-4, "atol": 2e-4} if dtype in (torch.float32, torch.complex64) else {"rtol": 1e-9, "atol": 1e-9}


def array(dtype, *shape, seed=0):
    rng = np.random.default_rng([seed, *shape])
    a = rng.standard_normal(shape)
    if dtype.is_complex:
        a = a + 1j * rng.standard_normal(shape)
    return a


def tensor(a, dtype, layout="dense"):
    """The array as a tensor that lies in memory as the layout says."""
    t = torch.tensor(a).to(dtype)
    if layout == "transposed" and t.dim() >= 2:
        return t.transpose(-2, -1).contiguous().transpose(-2, -1)
    if layout == "stepped" and t.dim() >= 1:
        wide = torch.zeros(*t.shape[:-1], 2 * t.shape[-1], dtype=dtype)
        wide[..., ::2] = t
        return wide[..., ::2]
    if layout == "reversed" and t.dim() >= 1:
        back = torch.tensor(np.ascontiguousarray(a[..., ::-1])).to(dtype)
        return back[..., ::-1] if IS_PYRITE else back.flip(-1)
    return t


def close(got, want, dtype):
    got = got.resolve_conj() if hasattr(got, "resolve_conj") else got
    np.testing.assert_allclose(np.asarray(got.numpy()), want, **tolerance(dtype))


def hermitian(a):
    return a + np.conj(np.swapaxes(a, -1, -2))


def definite(a):
    return a @ np.conj(np.swapaxes(a, -1, -2)) + np.eye(a.shape[-1])


def well(a):
    """Far from singular, and with eigenvalues far from one another."""
    return a + np.diag(np.arange(1, a.shape[-1] + 1) * 4.0)


def H(t):
    return t.mH


def eye(n):
    return np.eye(n)


# ---- values -------------------------------------------------------------------------------------------------------

SQUARE = [(1, 1), (4, 4), (2, 3, 5, 5), (40, 40)]
ANY = [(4, 4), (5, 3), (3, 5), (2, 6, 4), (2, 4, 6), (1, 1), (50, 30)]


def check_cholesky(a, t, dt):
    l = L.cholesky(t)
    close(l @ H(l), a, dt)
    close(torch.tril(l), l.numpy(), dt)
    close(L.cholesky(t, upper=True), np.conj(np.swapaxes(l.numpy(), -1, -2)), dt)
    close(torch.cholesky_inverse(l), np.linalg.inv(a), dt)
    b = array(dt, *a.shape[:-1], 2)
    close(torch.cholesky_solve(tensor(b, dt), l), np.linalg.solve(a, b), dt)


def check_lu(a, t, dt):
    P, low, up = L.lu(t)
    close(P @ low @ up, a, dt)
    assert (low.diagonal(0, -2, -1) == 1).all() and (torch.triu(low, 1) == 0).all() and (torch.tril(up, -1) == 0).all()
    assert low.abs().max() < 1 + 1e-5 or dt.is_complex
    packed, pivots = L.lu_factor(t)
    assert pivots.dtype == torch.int32 and int(pivots.min()) >= 1
    for x, y in zip(torch.lu_unpack(packed, pivots), (P, low, up), strict=True):
        close(x, y.numpy(), dt)


def check_qr(a, t, dt):
    m, n = a.shape[-2:]
    for mode, k in (("reduced", min(m, n)), ("complete", m)):
        q, r = L.qr(t, mode)
        assert q.shape[-1] == k and r.shape[-2] == k
        close(q @ r, a, dt)
        close(H(q) @ q, np.broadcast_to(eye(k), q.shape[:-2] + (k, k)), dt)
        assert (torch.tril(r, -1) == 0).all()
    close(L.qr(t, "r").R.abs(), L.qr(t).R.abs().numpy(), dt)
    packed, tau = torch.geqrf(t)
    if m >= n:
        q = L.householder_product(packed, tau)
        close(q @ torch.triu(packed[..., : min(m, n), :]), a, dt)
        c = array(dt, *a.shape[:-2], m, 2)
        full = torch.ormqr(packed, tau, torch.ormqr(packed, tau, tensor(c, dt), transpose=True))
        close(full, c, dt)


def check_svd(a, t, dt):
    m, n = a.shape[-2:]
    s = np.linalg.svd(a, compute_uv=False)
    close(L.svdvals(t), s, dt)
    for full in (False, True):
        u, got, vh = L.svd(t, full_matrices=full)
        close(got, s, dt)
        k = min(m, n)
        close((u[..., :k] * got.unsqueeze(-2)) @ vh[..., :k, :], a, dt)
        assert u.shape[-1] == (m if full else k) and vh.shape[-2] == (n if full else k)
        close(H(u) @ u, np.broadcast_to(eye(u.shape[-1]), u.shape[:-2] + (u.shape[-1],) * 2), dt)
        close(vh @ H(vh), np.broadcast_to(eye(vh.shape[-2]), vh.shape[:-2] + (vh.shape[-2],) * 2), dt)
    u, got, v = torch.svd(t)
    close((u * got.unsqueeze(-2)) @ H(v), a, dt)
    close(L.pinv(t), np.linalg.pinv(a), dt)
    close(L.matrix_rank(t), np.linalg.matrix_rank(a), dt)
    close(L.cond(t), np.linalg.cond(a), dt) if a.shape[-1] < 30 else None


def check_eigh(a, t, dt):
    for uplo in "LU":
        w, v = L.eigh(t, UPLO=uplo)
        close(w, np.linalg.eigvalsh(a), dt)
        close((v * w.unsqueeze(-2)) @ H(v), a, dt)
        close(L.eigvalsh(t, UPLO=uplo), np.linalg.eigvalsh(a), dt)
    half = np.tril(a) + np.triu(np.full_like(a, 7), 1)
    close(L.eigvalsh(tensor(half, dt)), np.linalg.eigvalsh(a), dt)


def check_eig(a, t, dt):
    w, v = L.eig(t)
    assert w.dtype == v.dtype == (torch.complex128 if dt in (F64, torch.complex128) else torch.complex64)
    c = t.to(w.dtype)
    close(c @ v, (v * w.unsqueeze(-2)).numpy(), dt)
    close((v.abs() ** 2).sum(-2), np.ones(w.shape), dt)

    def ordered(x):
        x = np.asarray(x)
        return np.take_along_axis(x, np.argsort(x.real.round(3) + 1e-3 * x.imag.round(3), -1), -1)

    close(torch.tensor(ordered(L.eigvals(t).numpy())), ordered(np.linalg.eigvals(a)), dt)


def check_solve(a, t, dt):
    n = a.shape[-1]
    b, row = array(dt, *a.shape[:-1], 3), array(dt, *a.shape[:-2], 3, n)
    close(L.solve(t, tensor(b, dt)), np.linalg.solve(a, b), dt)
    close(L.solve(t, tensor(row, dt), left=False), row @ np.linalg.inv(a), dt)
    vector = array(dt, n)
    close(L.solve(t, tensor(vector, dt)), np.linalg.solve(a, vector), dt)
    close(L.inv(t), np.linalg.inv(a), dt)
    close(t.inverse(), np.linalg.inv(a), dt)
    if n < 10:
        scale = np.abs(np.linalg.det(a)).max()
        close(L.det(t) / scale, np.linalg.det(a) / scale, dt)
    sign, log = L.slogdet(t)
    close(sign, np.linalg.slogdet(a)[0], dt)
    close(log, np.linalg.slogdet(a)[1], dt)
    f, p = L.lu_factor(t)
    ah = np.conj(np.swapaxes(a, -1, -2))
    close(L.lu_solve(f, p, tensor(b, dt)), np.linalg.solve(a, b), dt)
    close(L.lu_solve(f, p, tensor(b, dt), adjoint=True), np.linalg.solve(ah, b), dt)
    close(L.lu_solve(f, p, tensor(row, dt), left=False), row @ np.linalg.inv(a), dt)
    close(L.lu_solve(f, p, tensor(row, dt), left=False, adjoint=True), row @ np.linalg.inv(ah), dt)
    close(torch.lu_solve(tensor(b, dt), f, p), np.linalg.solve(a, b), dt)


def check_triangular(a, t, dt):
    b, row = array(dt, *a.shape[:-1], 3), array(dt, *a.shape[:-2], 3, a.shape[-1])
    for upper, unit in itertools.product([False, True], repeat=2):
        m = (np.triu if upper else np.tril)(a)
        if unit:
            m = m / 8 - (m / 8) * eye(a.shape[-1]) + eye(a.shape[-1])
        x = tensor(m, dt) if unit else t
        close(L.solve_triangular(x, tensor(b, dt), upper=upper, unitriangular=unit), np.linalg.solve(m, b), dt)
        got = L.solve_triangular(x, tensor(row, dt), upper=upper, left=False, unitriangular=unit)
        close(got, row @ np.linalg.inv(m), dt)
        got = torch.triangular_solve(tensor(b, dt), x, upper=upper, transpose=True, unitriangular=unit).solution
        close(got, np.linalg.solve(np.swapaxes(m, -1, -2), b), dt)


def check_ldl(a, t, dt):
    b = array(dt, *a.shape[:-1], 3)
    symmetric = a if not dt.is_complex else (a + np.swapaxes(a, -1, -2)) / 2
    for m, flag in ((a, True), (symmetric, False)):
        f, p = L.ldl_factor(tensor(m, dt), hermitian=flag)
        close(L.ldl_solve(f, p, tensor(b, dt), hermitian=flag), np.linalg.solve(m, b), dt)


def check_functions(a, t, dt):
    for n in (0, 1, 2, 3, 5, -1, -2):
        scale = np.abs(np.linalg.matrix_power(a, n)).max()
        close(L.matrix_power(t, n) / scale, np.linalg.matrix_power(a, n) / scale, dt)
    if a.shape[-1] > 10:
        return
    for scale in (1e-3, 0.1, 1.0, 3.0):
        w, v = np.linalg.eig(a * scale / 8)
        want = (v * np.exp(w)[..., None, :]) @ np.linalg.inv(v)
        got = L.matrix_exp(tensor(a * scale / 8, dt))
        size = np.abs(want).max()
        close(got / size, (want if dt.is_complex else want.real) / size, dt)


def check_lstsq(a, t, dt):
    m, n = a.shape[-2:]
    b = array(dt, *a.shape[:-1], 2)
    for driver in ("gels", "gelsy", "gelsd", "gelss"):
        x = L.lstsq(t, tensor(b, dt), driver=driver)
        close(x.solution, np.linalg.pinv(a) @ b, dt)
        if m > n and driver != "gelsy":
            close(x.residuals, (np.abs(a @ x.solution.numpy() - b) ** 2).sum(-2), dt)
        if driver != "gels":
            assert (x.rank == min(m, n)).all()


def check_norms(a, t, dt):
    if a.ndim == 2:
        for p in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf):
            close(L.matrix_norm(t, p), np.linalg.norm(a, p), dt)
            close(L.norm(t, p), np.linalg.norm(a, p), dt)
            close(L.matrix_norm(t, p, keepdim=True), [[np.linalg.norm(a, p)]], dt)
        close(torch.norm(t, "nuc"), np.linalg.norm(a, "nuc"), dt)
    for p in (0, 1, 2, 3, 0.5, np.inf, -np.inf):
        close(L.vector_norm(t, p, dim=-1), np.linalg.norm(a, p, axis=-1), dt)
        close(L.norm(t, p, dim=0), np.linalg.norm(a, p, axis=0), dt)
    close(L.norm(t), np.linalg.norm(a.reshape(-1)), dt)


CHECKS = {
    "cholesky": (check_cholesky, SQUARE, definite),
    "lu": (check_lu, ANY, None),
    "qr": (check_qr, ANY, None),
    "svd": (check_svd, ANY, None),
    "eigh": (check_eigh, SQUARE, hermitian),
    "eig": (check_eig, [(1, 1), (4, 4), (2, 3, 3)], well),
    "solve": (check_solve, SQUARE, well),
    "triangular": (check_triangular, [(4, 4), (2, 3, 3)], well),
    "ldl": (check_ldl, SQUARE, hermitian),
    "functions": (check_functions, SQUARE, well),
    "lstsq": (check_lstsq, ANY, None),
    "norms": (check_norms, ANY, None),
}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", CHECKS)
def test_values(name, dtype):
    check, shapes, make = CHECKS[name]
    for i, shape in enumerate(shapes):
        a = array(dtype, *shape)
        a = (make or (lambda x: x))(a)
        check(a, tensor(a, dtype), dtype)
        layout = ["transposed", "stepped", "reversed"][i % 3]
        check(a, tensor(a, dtype, layout), dtype)


def test_large_matrices_take_the_blocked_paths():
    a = array(F64, 200, 200)
    t = tensor(a, F64)
    check_lu(a, t, F64)
    check_eigh(hermitian(a), tensor(hermitian(a), F64), F64)
    check_svd(a, t, F64)
    check_cholesky(definite(a), tensor(definite(a), F64), F64)
    w, v = L.eig(t)
    close(t.to(v.dtype) @ v, (v * w).numpy(), torch.float32)


def test_expanded_batches_are_read_as_they_are():
    a = well(array(F64, 3, 3))
    t = tensor(a, F64).expand(4, 2, 3, 3)
    for f, want in ((L.inv, np.linalg.inv(a)), (L.det, np.linalg.det(a)), (L.svdvals, np.linalg.svd(a)[1])):
        close(f(t), np.broadcast_to(want, (4, 2) + np.shape(want)), F64)
    close(
        L.solve(t, tensor(array(F64, 3, 2), F64)),
        np.broadcast_to(np.linalg.solve(a, array(F64, 3, 2)), (4, 2, 3, 2)),
        F64,
    )


# ---- products ------------------------------------------------------------------------------------------------------

EINSUMS = [
    ("ij,jk", [(2, 3), (3, 4)]),
    ("ij,jk->ki", [(2, 3), (3, 4)]),
    ("ii", [(3, 3)]),
    ("ii->i", [(3, 3)]),
    ("iij->ji", [(3, 3, 2)]),
    ("ij->", [(2, 3)]),
    ("ba", [(2, 3)]),
    ("i,j->ij", [(2,), (3,)]),
    ("i,i->i", [(3,), (3,)]),
    (",i->i", [(), (3,)]),
    ("...ij,...jk->...ik", [(2, 1, 2, 3), (4, 3, 2)]),
    ("...ij,jk", [(2, 2, 3), (3, 2)]),
    ("i...->...", [(2, 3, 4)]),
    ("...->...", [(2, 3)]),
    ("bij,bjk,bkl->bil", [(2, 3, 4), (2, 4, 5), (2, 5, 2)]),
    ("ab,bc,cd,da->", [(2, 3), (3, 4), (4, 2), (2, 2)]),
    ("ij,ij,ij->j", [(2, 3), (2, 3), (2, 3)]),
    ("bhid,bhjd->bhij", [(2, 2, 3, 4), (2, 2, 5, 4)]),
    ("ij,kl->", [(2, 3), (2, 2)]),
    ("aab,bcc->ac", [(2, 2, 3), (3, 4, 4)]),
    ("ij,jk", [(0, 3), (3, 2)]),
    ("ij,jk", [(2, 0), (0, 2)]),
]


@pytest.mark.parametrize("equation, shapes", EINSUMS)
def test_einsum(equation, shapes):
    for dtype in (F64, torch.complex128, torch.float32):
        arrays = [array(dtype, *s, seed=i) for i, s in enumerate(shapes)]
        tensors = [tensor(a, dtype, "transposed") for a in arrays]
        close(torch.einsum(equation, *tensors), np.einsum(equation, *arrays), dtype)
    ints = [torch.arange(int(np.prod(s))).reshape(s) for s in shapes]
    assert (torch.einsum(equation, *ints).numpy() == np.einsum(equation, *[i.numpy() for i in ints])).all()


def test_einsum_with_lists_of_labels():
    a, b = array(F64, 2, 3), array(F64, 3, 4)
    t, u = tensor(a, F64), tensor(b, F64)
    close(torch.einsum(t, [0, 1], u, [1, 2], [0, 2]), a @ b, F64)
    close(torch.einsum(t, [0, 1], u, [1, 2]), a @ b, F64)
    close(torch.einsum(t, [..., 1], u, [1, 2], [2, ...]), (a @ b).T, F64)
    close(torch.einsum("ij,jk", [t, u]), a @ b, F64)


def test_products():
    a, b, c = array(F64, 2, 5), array(F64, 5, 3), array(F64, 3, 4)
    t, u, v = (tensor(x, F64) for x in (a, b, c))
    close(L.multi_dot([t, u, v]), a @ b @ c, F64)
    close(L.multi_dot([t[0], u, v[:, 0]]), a[0] @ b @ c[:, 0], F64)
    close(torch.chain_matmul(t, u, v), a @ b @ c, F64)
    close(torch.kron(t, u), np.kron(a, b), F64)
    close(torch.kron(t[0], u), np.kron(a[0], b), F64)
    x, y = array(torch.complex128, 2, 3, 5), array(torch.complex128, 4, 5)
    p, q = tensor(x, torch.complex128), tensor(y, torch.complex128)
    close(torch.inner(p, q), np.inner(x, y), F64)
    close(torch.vdot(q[0], q[1]), np.vdot(y[0], y[1]), F64)
    close(L.vecdot(q, q[0]), (y.conj() * y[0]).sum(-1), F64)
    close(torch.tensordot(p, q, ([2], [1])), np.tensordot(x, y, ([2], [1])), F64)
    close(torch.tensordot(p, q.T, 1), np.tensordot(x, y.T, 1), F64)
    close(torch.tensordot(t, u.T, 0), np.tensordot(a, b.T, 0), F64)
    close(L.cross(t[:, :3], u[:2]), np.cross(a[:, :3], b[:2]), F64)
    close(torch.cross(u.T[:, :3], u[:3]), np.cross(b.T[:, :3], b[:3], axis=0), F64)
    close(L.vander(t, N=4), np.stack([np.vander(r, 4, increasing=True) for r in a]), F64)
    close(torch.trace(t), np.trace(a), F64)
    close(torch.dist(t, t * 2, 3), np.linalg.norm(a.reshape(-1), 3), F64)
    close(torch.outer(t[0], t[1]), np.outer(a[0], a[1]), F64)
    big = array(F64, 6, 4, 2, 3)
    close(
        L.tensorinv(tensor(well(big.reshape(24, 6)[:6]).reshape(2, 3, 6), F64)).reshape(6, 6),
        np.linalg.inv(well(big.reshape(24, 6)[:6])),
        F64,
    )
    m = well(array(F64, 6, 6)).reshape(2, 3, 6)
    r = array(F64, 2, 3)
    close(L.tensorsolve(tensor(m, F64), tensor(r, F64)), np.linalg.tensorsolve(m, r), F64)
    n = torch.renorm(t, 2, 0, 0.5)
    close(n, a * (0.5 / np.linalg.norm(a, axis=1, keepdims=True)), torch.float32)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.7, 2.0, 3.0, float("inf")])
def test_cdist(p):
    for m, n, k, dtype in ((3, 4, 5, F64), (40, 30, 17, F64), (30, 2, 3, torch.float32), (2, 2, 1, torch.float32)):
        a, b = array(dtype, 2, m, k), array(dtype, 1, n, k, seed=1)
        d = np.abs(a[:, :, None] - b[:, None])
        if p == 0:
            want = (d != 0).sum(-1)
        elif np.isinf(p):
            want = d.max(-1)
        else:
            want = (d**p).sum(-1) ** (1 / p)
        for mode in ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"):
            close(
                torch.cdist(tensor(a, dtype, "transposed"), tensor(b, dtype, "stepped"), p, compute_mode=mode),
                want,
                dtype,
            )
    assert torch.cdist(torch.ones(2, 0), torch.ones(3, 0), p).tolist() == [[0.0] * 3] * 2
    assert torch.cdist(torch.ones(0, 2), torch.ones(3, 2), p).shape == (0, 3)


def test_low_rank():
    a = array(F64, 30, 4) @ array(F64, 4, 20)
    for x in (a, a.T, np.stack([a, 2 * a])):
        t = tensor(x, F64)
        u, s, v = torch.svd_lowrank(t, q=5)
        close((u * s.unsqueeze(-2)) @ v.mT, x, F64)
        close(s[..., :4], np.linalg.svd(x, compute_uv=False)[..., :4], F64)
        u, s, v = torch.pca_lowrank(t, q=4)
        close((u * s.unsqueeze(-2)) @ v.mT, x - x.mean(-2, keepdims=True), F64)


def test_lobpcg():
    a = definite(array(F64, 40, 40))
    b = definite(array(F64, 40, 40, seed=3)) + 30 * eye(40)
    w = np.linalg.eigvalsh(a)
    for largest, want in ((True, w[::-1][:3]), (False, w[:3])):
        got, v = torch.lobpcg(tensor(a, F64), k=3, largest=largest, niter=200)
        close(got, want, torch.float32)
        close(tensor(a, F64) @ v, (v * got).numpy(), torch.float32)
    got, v = torch.lobpcg(tensor(a, F64), k=3, B=tensor(b, F64), niter=300)
    want = np.sort(np.linalg.eigvals(np.linalg.solve(b, a)).real)[::-1][:3]
    close(got, want, torch.float32)


# ---- gradients -----------------------------------------------------------------------------------------------------


def flat(*ts):
    """Everything a function gives, as one real vector."""
    out = []
    for t in ts:
        t = torch.view_as_real(t) if t.is_complex() else t
        out.append(t.reshape(-1))
    return torch.cat(out)


def spd(x):
    return x @ x.mH + 3 * torch.eye(x.shape[-1], dtype=x.dtype)


def sym(x):
    return (x + x.mH) / 2


def spaced(x):
    """Eigenvalues and singular values far from one another."""
    n = min(x.shape[-2:])
    d = torch.zeros(x.shape[-2:], dtype=x.dtype)
    d.diagonal().copy_(torch.arange(1, n + 1).to(x.dtype) * 3)
    return x + d


def svd_parts(x):
    u, s, vh = L.svd(spaced(x), full_matrices=False)
    # Free of the vectors' common phase.
    return flat(
        u @ (u.mH * torch.tensor(0.7)),
        s,
        u @ vh,
        vh.mH @ (s.unsqueeze(-1) ** 2 * vh),
        (u * s.unsqueeze(-2) ** 2) @ u.mH,
    )


def eig_parts(x):
    w, v = L.eig(spaced(x))
    return flat(w, v.abs(), (v * torch.sin(w).unsqueeze(-2)) @ L.inv(v))


def eigh_parts(x):
    w, v = L.eigh(sym(spaced(x)))
    return flat(w, v.abs(), (v * torch.sin(w).unsqueeze(-2)) @ v.mH)


def qr_parts(mode="reduced"):
    return lambda x: flat(*L.qr(spaced(x), mode))


def lu_factor(x):
    return flat(L.lu_factor(spaced(x))[0])


def lu_solved(left, adjoint):
    def f(x, b):
        lu, p = L.lu_factor(spaced(x))
        return flat(L.lu_solve(lu, p, b if left else b.mT, left=left, adjoint=adjoint))

    return f


# Name -> (function of tensors, shapes of its arguments).
GRADIENTS = {
    "cholesky": (lambda x: flat(L.cholesky(spd(x))), [(3, 3)], [(2, 3, 3)]),
    "cholesky_upper": (lambda x: flat(L.cholesky(spd(x), upper=True)), [(3, 3)]),
    "cholesky_solve": (lambda x, b: flat(torch.cholesky_solve(b, L.cholesky(spd(x)))), [(3, 3), (3, 2)]),
    "cholesky_inverse": (lambda x: flat(torch.cholesky_inverse(L.cholesky(spd(x)))), [(3, 3)]),
    "lu_factor": (lu_factor, [(3, 3)], [(4, 3)], [(3, 4)], [(2, 2, 3)]),
    "lu": (lambda x: flat(*L.lu(spaced(x))[1:]), [(3, 3)], [(4, 2)], [(2, 4)]),
    "lu_solve": (lu_solved(True, False), [(3, 3), (3, 2)]),
    "lu_solve_adjoint": (lu_solved(True, True), [(3, 3), (3, 2)]),
    "lu_solve_right": (lu_solved(False, False), [(3, 3), (3, 2)]),
    "solve": (lambda x, b: flat(L.solve(spaced(x), b)), [(3, 3), (3, 2)], [(2, 3, 3), (3,)], [(3, 3), (2, 3, 1)]),
    "solve_right": (lambda x, b: flat(L.solve(spaced(x), b, left=False)), [(3, 3), (2, 3)]),
    "solve_triangular": (
        lambda x, b: flat(
            L.solve_triangular(spaced(x), b, upper=True), L.solve_triangular(x, b, upper=False, unitriangular=True)
        ),
        [(3, 3), (3, 2)],
        [(2, 3, 3), (1, 3, 2)],
    ),
    "solve_triangular_right": (
        lambda x, b: flat(L.solve_triangular(spaced(x), b, upper=True, left=False)),
        [(3, 3), (2, 3)],
    ),
    "triangular_solve": (lambda x, b: flat(torch.triangular_solve(b, spaced(x), transpose=True)[0]), [(3, 3), (3, 2)]),
    "inv": (lambda x: flat(L.inv(spaced(x))), [(3, 3)], [(2, 2, 2)]),
    "det": (lambda x: flat(L.det(x)), [(3, 3)], [(2, 2, 2)], [(1, 1)]),
    "slogdet": (lambda x: flat(*L.slogdet(spaced(x))), [(3, 3)], [(2, 2, 2)]),
    "logdet": (lambda x: flat(torch.logdet(spaced(x))), [(3, 3)]),
    "qr": (qr_parts(), [(3, 3)], [(4, 3)], [(3, 5)], [(2, 3, 2)]),
    "qr_complete": (qr_parts("complete"), [(3, 3)], [(3, 4)]),
    "householder_product": (lambda x, t: flat(L.householder_product(x, t)), [(4, 3), (3,)], [(2, 3, 3), (2, 2)]),
    "ormqr": (
        lambda x, t, c: flat(torch.ormqr(x, t, c), torch.ormqr(x, t, c.mT, left=False, transpose=True)),
        [(4, 3), (3,), (4, 2)],
    ),
    "svd": (svd_parts, [(3, 3)], [(4, 3)], [(2, 4)], [(2, 3, 2)]),
    "svdvals": (lambda x: flat(L.svdvals(spaced(x))), [(3, 3)], [(4, 2)]),
    "eigh": (eigh_parts, [(3, 3)], [(2, 2, 2)]),
    "eigvalsh": (lambda x: flat(L.eigvalsh(sym(spaced(x)))), [(3, 3)]),
    "eig": (eig_parts, [(3, 3)], [(2, 2, 2)]),
    "eigvals": (lambda x: flat(L.eigvals(spaced(x))), [(3, 3)]),
    "pinv": (lambda x: flat(L.pinv(spaced(x))), [(3, 3)], [(4, 2)], [(2, 4)]),
    "pinv_of_low_rank": (lambda x, y: flat(L.pinv(x @ y)), [(4, 2), (2, 3)]),
    "pinv_hermitian": (lambda x: flat(L.pinv(sym(spaced(x)), hermitian=True)), [(3, 3)]),
    "lstsq": (lambda x, b: flat(L.lstsq(spaced(x), b).solution), [(4, 3), (4, 2)], [(2, 4), (2, 1)]),
    "matrix_power": (lambda x: flat(L.matrix_power(x, 3), L.matrix_power(spaced(x), -2)), [(3, 3)]),
    "matrix_exp": (lambda x: flat(L.matrix_exp(x)), [(3, 3)], [(2, 2, 2)]),
    "matrix_norm": (
        lambda x: flat(
            *[L.matrix_norm(spaced(x), p) for p in ("fro", "nuc", 1, -1, 2, -2, float("inf"), -float("inf"))]
        ),
        [(3, 3)],
        [(2, 4, 2)],
    ),
    "vector_norm": (lambda x: flat(*[L.vector_norm(x, p) for p in (1, 2, 3, float("inf"))]), [(2, 3)]),
    "cond": (lambda x: flat(*[L.cond(spaced(x), p) for p in (None, "fro", "nuc", 1, -2)]), [(3, 3)]),
    "multi_dot": (lambda x, y, z: flat(L.multi_dot([x, y, z])), [(2, 3), (3, 4), (4, 2)]),
    "einsum": (lambda x, y, z: flat(torch.einsum("bij,jk,...k->b...i", x, y, z)), [(2, 3, 4), (4, 2), (3, 2)]),
    "einsum_diagonal": (lambda x, y: flat(torch.einsum("iij,j->i", x, y)), [(3, 3, 2), (2,)]),
    "tensordot": (lambda x, y: flat(torch.tensordot(x, y, ([0, 2], [1, 0]))), [(2, 3, 4), (4, 2)]),
    "kron": (lambda x, y: flat(torch.kron(x, y)), [(2, 2), (3, 1)]),
    "inner": (lambda x, y: flat(torch.inner(x, y)), [(2, 3), (4, 3)]),
    "vdot": (lambda x, y: flat(torch.vdot(x, y)), [(3,), (3,)]),
    "vecdot": (lambda x, y: flat(L.vecdot(x, y)), [(2, 3), (3,)]),
    "cross": (lambda x, y: flat(L.cross(x, y)), [(2, 3), (1, 3)]),
    "vander": (lambda x: flat(L.vander(x, N=4)), [(3,)]),
    "tensorinv": (lambda x: flat(L.tensorinv((spaced(x)).reshape(2, 2, 4))), [(4, 4)]),
    "tensorsolve": (lambda x, b: flat(L.tensorsolve(spaced(x).reshape(2, 2, 4), b)), [(4, 4), (2, 2)]),
    "dist": (lambda x, y: flat(torch.dist(x, y, 3)), [(2, 3), (3,)]),
    "trace": (lambda x: flat(torch.trace(x)), [(2, 3)]),
}
REAL_GRADIENTS = {
    **{f"cdist_{p}": (lambda x, y, p=p: torch.cdist(x, y, p), [(3, 2), (4, 2)], [(2, 2, 3), (1, 3, 3)]) for p in (1.0, 2.0, 3.0, 1.5, float("inf"))},
    "cdist_product": (lambda x, y: torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist"), [(3, 2), (4, 2)]),
    "renorm": (lambda x: torch.renorm(x, 2, 0, 1.0), [(3, 4)]),
}  # fmt: skip

# Second derivatives that PyTorch does not have, or that are those of a branch.
FIRST_ONLY = {"vector_norm"} if IS_PYRITE else {"vector_norm", "renorm", *REAL_GRADIENTS}
NO_COMPLEX = {"vander"} if not IS_PYRITE else set()


def random(*shape):
    return torch.randn(shape, dtype=F64) * 0.7


@pytest.mark.parametrize("name", [*GRADIENTS, *REAL_GRADIENTS])
def test_gradients(name):
    torch.manual_seed(3)
    f, *cases = {**GRADIENTS, **REAL_GRADIENTS}[name]
    for shapes in cases:
        check_gradients(f, *[random(*s) for s in shapes], second=name not in FIRST_ONLY)


@pytest.mark.parametrize("name", [n for n in GRADIENTS if n not in NO_COMPLEX])
def test_complex_gradients(name):
    torch.manual_seed(4)
    f, shapes, *_ = GRADIENTS[name]

    def parts(*xs):
        return f(*[torch.view_as_complex(x) for x in xs])

    check_gradients(parts, *[random(*s, 2) for s in shapes], second=name not in FIRST_ONLY)


def test_gradient_of_the_determinant_of_singular_matrices():
    for a in (np.zeros((2, 2)), np.ones((3, 3)), np.diag([1.0, 2.0, 0.0])):
        x = tensor(a, F64).requires_grad_()
        L.det(x).backward()
        n = len(a)
        want = [
            [(-1) ** (i + j) * np.linalg.det(np.delete(np.delete(a, i, 0), j, 1)) for j in range(n)] for i in range(n)
        ]
        close(x.grad, np.array(want), torch.float32)


# ---- forms ---------------------------------------------------------------------------------------------------------

FIELDS = [
    (lambda t: L.cholesky_ex(t), ("L", "info")),
    (lambda t: L.lu(t), ("P", "L", "U")),
    (lambda t: L.lu_factor(t), ("LU", "pivots")),
    (lambda t: L.lu_factor_ex(t), ("LU", "pivots", "info")),
    (lambda t: L.qr(t), ("Q", "R")),
    (lambda t: torch.qr(t), ("Q", "R")),
    (lambda t: torch.geqrf(t), ("a", "tau")),
    (lambda t: L.svd(t), ("U", "S", "Vh")),
    (lambda t: torch.svd(t), ("U", "S", "V")),
    (lambda t: L.eigh(t), ("eigenvalues", "eigenvectors")),
    (lambda t: L.eig(t), ("eigenvalues", "eigenvectors")),
    (lambda t: L.slogdet(t), ("sign", "logabsdet")),
    (lambda t: L.inv_ex(t), ("inverse", "info")),
    (lambda t: L.solve_ex(t, t), ("result", "info")),
    (lambda t: L.lstsq(t, t), ("solution", "residuals", "rank", "singular_values")),
    (lambda t: L.ldl_factor(t), ("LD", "pivots")),
    (lambda t: L.ldl_factor_ex(t), ("LD", "pivots", "info")),
    (lambda t: torch.lu_unpack(*L.lu_factor(t)), ("P", "L", "U")),
    (lambda t: torch.triangular_solve(t, t), ("solution", "cloned_coefficient")),
    (lambda t: torch.lu(t, get_infos=True), ("LU", "pivots", "info")),
]


@pytest.mark.parametrize("call, fields", FIELDS)
def test_named_results(call, fields):
    r = call(torch.eye(2) + 0.1)
    assert len(r) == len(fields)
    for value, field in zip(r, fields, strict=True):
        assert getattr(r, field) is value


OUTS = [
    (L.cholesky, 1),
    (L.inv, 1),
    (L.det, 1),
    (L.eigvalsh, 1),
    (L.svdvals, 1),
    (L.matrix_norm, 1),
    (L.cond, 1),
    (L.pinv, 1),
    (lambda t, **k: L.matrix_power(t, 3, **k), 1),
    (lambda t, **k: L.solve(t, t, **k), 1),
    (lambda t, **k: torch.kron(t, t, **k), 1),
    (lambda t, **k: torch.tensordot(t, t, 1, **k), 1),
    (lambda t, **k: L.multi_dot([t, t], **k), 1),
    (L.qr, 2),
    (L.eigh, 2),
    (L.slogdet, 2),
    (L.lu_factor, 2),
    (L.svd, 3),
    (L.lu, 3),
]


@pytest.mark.parametrize("call, n", OUTS)
def test_out(call, n):
    t = tensor(definite(array(F64, 3, 3)), F64)
    want = call(t)
    want = [want] if n == 1 else list(want)
    outs = [torch.empty(0, dtype=w.dtype) for w in want]
    got = call(t, out=outs[0] if n == 1 else tuple(outs))
    got = [got] if n == 1 else list(got)
    for w, o, g in zip(want, outs, got, strict=True):
        assert (o == w).all() and o.shape == w.shape and (g == w).all()


EMPTY = [
    (L.cholesky, [(0, 0), (0, 3, 3)], None),
    (L.inv, [(0, 0), (0, 3, 3), (2, 0, 0)], None),
    (L.det, [(0, 0), (0, 3, 3), (2, 0, 0)], lambda s: np.ones(s[:-2])),
    (L.svdvals, [(0, 0), (0, 3), (2, 3, 0), (0, 3, 2)], lambda s: np.zeros(s[:-2] + (min(s[-2:]),))),
    (L.pinv, [(0, 0), (0, 3), (2, 3, 0)], lambda s: np.zeros(s[:-2] + (s[-1], s[-2]))),
    (L.eigvalsh, [(0, 0), (2, 0, 0), (0, 2, 2)], lambda s: np.zeros(s[:-1])),
    (lambda t: L.eigvals(t).real, [(0, 0), (2, 0, 0), (0, 2, 2)], lambda s: np.zeros(s[:-1])),
    (L.matrix_rank, [(0, 0), (2, 0, 3)], lambda s: np.zeros(s[:-2])),
    (L.matrix_exp, [(0, 0), (0, 2, 2)], None),
    (lambda t: L.matrix_power(t, -3), [(0, 0), (2, 0, 0)], None),
    (lambda t: L.qr(t).Q, [(0, 0), (0, 2, 2)], None),
    (lambda t: L.qr(t).R, [(0, 3), (3, 0)], lambda s: np.zeros((0, s[-1]))),
    (lambda t: L.qr(t, "complete").Q, [(3, 0)], lambda s: np.eye(3)),
    (lambda t: L.svd(t).Vh, [(0, 3)], lambda s: np.eye(3)),
    (lambda t: L.lu(t).P, [(3, 0)], lambda s: np.eye(3)),
    (lambda t: L.solve(t, t), [(0, 0), (0, 2, 2)], None),
    (lambda t: L.lstsq(t, t).solution, [(0, 0)], None),
    (lambda t: L.matrix_norm(t), [(0, 0), (2, 0, 3)], lambda s: np.zeros(s[:-2])),
]


@pytest.mark.parametrize("call, shapes, want", EMPTY)
def test_empty(call, shapes, want):
    for shape in shapes:
        got = call(torch.empty(shape, dtype=F64))
        expected = np.zeros(shape) if want is None else want(shape)
        assert got.shape == expected.shape
        close(got, expected, F64)


NAN = float("nan")
ERRORS = [
    (lambda: L.cholesky(-torch.eye(2)), "LinAlg", "leading minor of order 1"),
    (lambda: L.cholesky(torch.stack([torch.eye(2), -torch.eye(2)])), "LinAlg", "Batch element 1"),
    (lambda: L.cholesky(torch.full((2, 2), NAN)), "LinAlg", "not positive-definite"),
    (lambda: torch.cholesky(-torch.eye(2)), "LinAlg", "cholesky"),
    (lambda: L.inv(torch.zeros(2, 2)), "LinAlg", "diagonal element 1 is zero"),
    (lambda: L.inv(torch.stack([torch.eye(2), torch.ones(2, 2)])), "LinAlg", "Batch element 1"),
    (lambda: L.solve(torch.zeros(2, 2), torch.ones(2)), "LinAlg", "singular"),
    (lambda: L.svd(torch.full((2, 3), NAN)), "LinAlg", "non-finite"),
    (lambda: L.svdvals(torch.full((2, 3), float("inf"))), "LinAlg", "non-finite"),
    (lambda: L.eigh(torch.full((2, 2), NAN)), "LinAlg", "linalg.eigh"),
    (lambda: L.eig(torch.full((2, 2), NAN)), RuntimeError, "infs or NaNs"),
    (lambda: L.matrix_power(torch.zeros(2, 2), -1), "LinAlg", "singular"),
    (lambda: L.lu_factor(torch.zeros(2, 2)), RuntimeError, "U\\[1,1\\] is zero"),
    (lambda: L.lu_factor(torch.eye(2), pivot=False), RuntimeError, "without pivoting"),
    (lambda: L.inv(torch.ones(2, 3)), RuntimeError, "2 by 3"),
    (lambda: L.det(torch.ones(3)), RuntimeError, "at least 2 dimensions"),
    (lambda: L.svd(torch.ones(3)), RuntimeError, "at least 2 dimensions"),
    (lambda: L.det(torch.ones(2, 2).int()), RuntimeError, "floating point or complex"),
    (lambda: L.svd(torch.ones(2, 2).half()), NotImplementedError, "Half"),
    (lambda: L.cholesky(torch.ones(2, 2).half()), NotImplementedError, "Half"),
    (lambda: L.inv(torch.ones(2, 2).half()), RuntimeError, "Low precision"),
    (lambda: L.solve(torch.eye(3), torch.ones(4)), RuntimeError, "3x3 and 4x1"),
    (lambda: L.solve(torch.eye(3), torch.ones(3, dtype=F64)), RuntimeError, "same dtype"),
    (lambda: L.solve_triangular(torch.eye(3), torch.ones(3), upper=True), RuntimeError, "at least 2 dimensions"),
    (lambda: L.qr(torch.eye(2), "other"), RuntimeError, "unrecognized mode"),
    (lambda: L.eigh(torch.eye(2), UPLO="X"), RuntimeError, "UPLO"),
    (lambda: L.lstsq(torch.ones(2, 3), torch.ones(3)), RuntimeError, "should match"),
    (lambda: L.lstsq(torch.ones(2, 3), torch.ones(2), driver="x"), RuntimeError, "driver"),
    (lambda: L.multi_dot([torch.eye(2)]), RuntimeError, "at least 2 tensors"),
    (lambda: L.matrix_norm(torch.eye(2), 3), RuntimeError, "not supported"),
    (lambda: L.matrix_norm(torch.eye(2), dim=(0, 0)), RuntimeError, "different"),
    (lambda: L.norm(torch.ones(2, 2, 2), 2), RuntimeError, "1D or 2D"),
    (lambda: L.cond(torch.eye(2), 3), RuntimeError, "invalid norm type"),
    (lambda: L.cross(torch.ones(2), torch.ones(2)), RuntimeError, "length 3"),
    (lambda: L.tensorinv(torch.ones(2, 3, 5)), RuntimeError, "5 != 6"),
    (lambda: torch.vdot(torch.ones(2), torch.ones(3)), RuntimeError, "same number of elements"),
    (lambda: torch.cdist(torch.ones(2, 3), torch.ones(2, 4)), RuntimeError, "same number of columns"),
    (lambda: torch.cdist(torch.ones(2, 3), torch.ones(2, 3), p=-1), RuntimeError, "non-negative"),
    (lambda: torch.einsum("ij,jk", torch.ones(2, 3)), RuntimeError, "fewer operands"),
    (lambda: torch.einsum("ij", torch.ones(2)), RuntimeError, "number of subscripts"),
    (lambda: torch.einsum("ij,jk", torch.ones(2, 3), torch.ones(2, 3)), RuntimeError, "does not broadcast"),
    (lambda: torch.einsum("i->ii", torch.ones(2)), RuntimeError, "more than once"),
    (lambda: torch.einsum("i->j", torch.ones(2)), RuntimeError, "does not appear"),
    (lambda: torch.einsum("i!", torch.ones(2, 2)), RuntimeError, "subscript"),
    (lambda: torch.tensordot(torch.ones(2, 3), torch.ones(2, 3), 1), RuntimeError, "need to match"),
    (lambda: L.householder_product(torch.ones(2, 3), torch.ones(2)), RuntimeError, "greater than or equal"),
    (lambda: torch.cholesky_inverse(torch.zeros(2, 2)), "LinAlg", "singular"),
]


@pytest.mark.parametrize("i", range(len(ERRORS)))
def test_errors(i):
    call, kind, text = ERRORS[i]
    with pytest.raises(L.LinAlgError if kind == "LinAlg" else kind, match=text):
        call()


def test_info_instead_of_errors():
    bad = torch.stack([torch.eye(2), torch.zeros(2, 2)])
    assert L.cholesky_ex(bad).info.tolist() == [0, 1]
    assert L.inv_ex(bad).info.tolist() == [0, 1]
    assert L.solve_ex(bad, torch.ones(2, 2, 1)).info.tolist() == [0, 1]
    assert L.lu_factor_ex(bad).info.tolist() == [0, 1]
    assert L.ldl_factor_ex(bad).info.tolist() == [0, 1]
    assert issubclass(L.LinAlgError, RuntimeError)
    for f in (L.cholesky_ex, L.inv_ex):
        with pytest.raises(L.LinAlgError):
            f(bad, check_errors=True)


def test_what_is_not_finite_passes_through():
    nan = torch.full((3, 3), NAN)
    for y in (L.inv(nan), L.det(nan), L.qr(nan).Q, L.matrix_exp(nan), L.lu(nan).U.sum(), L.solve(nan, torch.ones(3))):
        assert y.isnan().all()
    one = torch.eye(3)
    one[0, 0] = NAN
    both = L.matrix_exp(torch.stack([one, torch.eye(3)]))
    assert both[0].isnan().all() and not both[1].isnan().any()


def test_a_zero_matrix_has_its_limits():
    z = torch.zeros(3, 3)
    assert L.det(z) == 0 and torch.logdet(z) == -float("inf") and L.matrix_rank(z) == 0
    assert (L.pinv(z) == 0).all() and (L.svdvals(z) == 0).all() and (L.eigvalsh(z) == 0).all()
    assert L.cond(z, "fro") == float("inf") and L.cond(z).isnan()
    q, r = L.qr(z)
    close(q @ r, np.zeros((3, 3)), torch.float32)
    close(q.mT @ q, eye(3), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("rank", [1, 3])
def test_elements_whose_squares_leave_the_range(dtype, rank):
    """Factors of a matrix times a power of two are those of the matrix: nothing overflows or fades on the way."""
    rng = np.random.default_rng(rank)
    a = rng.standard_normal((4, rank)) @ rng.standard_normal((rank, 4)) if rank < 3 else rng.standard_normal((4, 4))
    if dtype.is_complex:
        a = a + 1j * a.T
    a = torch.from_numpy(a).to(dtype)
    single = dtype in (torch.float32, torch.complex64)
    eps = torch.finfo(dtype).eps
    s, q = torch.linalg.svdvals(a), torch.linalg.qr(a)
    h = a + a.mH
    w = torch.linalg.eigvalsh(h)
    g = torch.linalg.eigvals(a).abs().sort().values
    size = s.max().item()
    for e in [62, 80, 120, -40, -80, -110] if single else [500, 900, 1010, -460, -800, -1000]:
        k = 2.0**e
        u, t, vh = torch.linalg.svd(a * k)
        assert (t / k - s).abs().max() <= 20 * eps * size
        assert ((u * (t / k)).matmul(vh) - a).abs().max() <= 40 * eps * size
        assert (torch.linalg.svdvals(a * k) / k - s).abs().max() <= 20 * eps * size
        values, vectors = torch.linalg.eigh(h * k)
        assert (values / k - w).abs().max() <= 40 * eps * size
        assert ((vectors * (values / k)).matmul(vectors.mH) - h).abs().max() <= 80 * eps * size
        if rank > 1:  # equal eigenvalues move by the root of the rounding
            values, vectors = torch.linalg.eig(a * k)
            assert ((values / k).abs().sort().values - g).abs().max() <= 1000 * eps * size
            assert (a.to(values.dtype) @ vectors - vectors * (values / k)).abs().max() <= 100 * eps * size
        # Columns of Q past the rank are any that complete it.
        scaled = torch.linalg.qr(a * k)
        assert (scaled.R / k - q.R).abs().max() <= 40 * eps * size and (scaled.Q - q.Q)[
            :, :rank
        ].abs().max() <= 40 * eps
        packed, tau = torch.geqrf(a * k)
        plain = torch.geqrf(a)
        product = torch.linalg.householder_product
        assert (product(packed, tau) - product(*plain))[:, :rank].abs().max() <= 40 * eps
        assert (packed.triu() / k - plain[0].triu()).abs().max() <= 40 * eps * size


def test_einsum_of_one_operand_sums_as_sum_does():
    for dtype in (torch.bool, torch.int32, torch.uint8):
        x = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 1, 1]]).to(dtype)
        for equation, expected in (("ij->", 7), ("ij->i", [2, 2, 3]), ("ii->", 3)):
            got = torch.einsum(equation, x)
            assert got.dtype == torch.int64 and got.tolist() == expected
        assert torch.einsum("ij->ji", x).dtype == torch.einsum("ij,ij->ij", x, x).dtype == dtype
    b = torch.tensor([True, False])
    assert torch.einsum("i,j->ij", b, b).tolist() == [[True, False], [False, False]]
