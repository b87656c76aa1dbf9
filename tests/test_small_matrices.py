"""Batches of small matrices, which have kernels of their own up to 16 x 16: residuals, orthogonality and values against
NumPy in float64, extreme scales, singular and clustered input, what is not finite, layouts."""

import numpy as np
import pytest
from numeric import check_gradients
from subject import IS_PYRITE, torch

L = torch.linalg
TYPES = {"float32": (np.float32, 2.0**-23), "float64": (np.float64, 2.0**-52)}
SIZES = [1, 2, 3, 5, 8, 11, 16]
SCALES = [1.0, 1e-30, 1e17]


def batch(count, m, n, dtype, scale=1.0):
    rng = np.random.default_rng([count, m, n])
    return (rng.standard_normal((count, m, n)) * scale).astype(TYPES[dtype][0])


def symmetric(count, n, dtype, scale=1.0):
    a = batch(count, n, n, "float64")
    return ((a + a.swapaxes(1, 2)) / 2 * scale).astype(TYPES[dtype][0])


def wide(t):
    """Exact from here on."""
    return t.double().numpy()


def most(a):
    """The largest element of each matrix."""
    return np.abs(a).max((1, 2))[:, None, None]


def check_eigh(a, dtype):
    n, eps = a.shape[-1], TYPES[dtype][1]
    w, v = (wide(t) for t in L.eigh(torch.tensor(a)))
    s = np.tril(a.astype(np.float64))
    s = s + np.tril(s, -1).swapaxes(1, 2)
    size = np.where(most(s) > 0, most(s), 1)
    bound = 4 * (n + 3) * eps
    assert (np.diff(w, axis=-1) >= 0).all()
    assert (np.abs((s @ v - v * w[:, None, :]) / size) <= bound).all()
    assert (np.abs(v.swapaxes(1, 2) @ v - np.eye(n)) <= bound).all()
    want = np.linalg.eigvalsh(s)
    for values in (w, wide(L.eigvalsh(torch.tensor(a)))):
        assert (np.abs(values - want) <= bound * np.abs(want).max(1, keepdims=True)).all()


def check_singular_values(a, dtype):
    want = np.linalg.svd(a.astype(np.float64), compute_uv=False)
    got = wide(L.svdvals(torch.tensor(a)))
    assert got.shape == want.shape and (np.diff(got, axis=-1) <= 0).all()
    bound = 4 * (max(a.shape[1:]) + 3) * TYPES[dtype][1]
    assert (np.abs(got - want) <= bound * want[:, :1]).all()


def check_qr(a, dtype, mode="reduced"):
    eps, (m, n) = TYPES[dtype][1], a.shape[1:]
    q, r = (wide(t) for t in L.qr(torch.tensor(a), mode))
    k = m if mode == "complete" else min(m, n)
    assert q.shape == (len(a), m, k) and r.shape == (len(a), k, n)
    bound = 4 * (max(m, n) + 3) * eps
    exact = a.astype(np.float64)
    assert (np.abs(q @ r - exact) <= bound * np.maximum(most(exact), 1e-300)).all()
    assert (np.abs(q.swapaxes(1, 2) @ q - np.eye(k)) <= bound).all()
    assert (np.tril(r, -1) == 0).all()
    # LAPACK's signs, where they are not a matter of rounding.
    want = np.diagonal(np.linalg.qr(exact)[1], axis1=1, axis2=2)
    got = np.diagonal(r, axis1=1, axis2=2)[:, : want.shape[1]]
    clear = np.abs(want) > 1e-3 * np.abs(want).max(1, keepdims=True)
    assert (np.sign(got) == np.sign(want))[clear].all()
    np.testing.assert_array_equal(wide(L.qr(torch.tensor(a), "r")[1]), wide(L.qr(torch.tensor(a))[1]))


def check_systems(a, dtype):
    n, eps = a.shape[-1], TYPES[dtype][1]
    exact = a.astype(np.float64)
    inverse = np.linalg.inv(exact)
    growth = most(exact) * most(inverse) * 4 * (n + 3) ** 2 * eps
    x = wide(L.inv(torch.tensor(a)))
    assert (np.abs(x - inverse) <= growth * most(inverse)).all()
    b = batch(len(a), n, 3, dtype)
    want = np.linalg.solve(exact, b.astype(np.float64))
    assert (np.abs(wide(L.solve(torch.tensor(a), torch.tensor(b))) - want) <= growth * most(want)).all()
    left = wide(L.solve(torch.tensor(a), torch.tensor(b.swapaxes(1, 2)), left=False))
    want = np.linalg.solve(exact.swapaxes(1, 2), b.astype(np.float64)).swapaxes(1, 2)
    assert (np.abs(left - want) <= growth * most(want)).all()
    lu, pivots = L.lu_factor(torch.tensor(a))
    p, lower, upper = (wide(t) for t in torch.lu_unpack(lu, pivots))
    assert (np.abs(p @ lower @ upper - exact) <= 4 * (n + 3) * eps * most(exact)).all()
    assert (np.abs(lower) <= 1).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", SIZES)
def test_every_size(n, dtype):
    for count in (1, 4, 37):
        for scale in SCALES:
            a = batch(count, n, n, dtype, scale)
            check_eigh(symmetric(count, n, dtype, scale), dtype)
            check_singular_values(a, dtype)
            check_qr(a, dtype)
            check_systems(batch(count, n, n, dtype) + 2 * np.eye(n, dtype=TYPES[dtype][0]), dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 4), (7, 3), (3, 7), (16, 5), (5, 16), (16, 1)])
def test_rectangles(shape, dtype):
    a = batch(21, *shape, dtype)
    check_singular_values(a, dtype)
    check_qr(a, dtype)
    check_qr(a, dtype, "complete")
    lu, pivots = L.lu_factor(torch.tensor(a))
    p, lower, upper = (wide(t) for t in torch.lu_unpack(lu, pivots))
    np.testing.assert_allclose(p @ lower @ upper, a.astype(np.float64), rtol=0, atol=50 * TYPES[dtype][1])


def special(n):
    """Matrices that trouble iterations: multiple and clustered values, low rank, graded scales, zeros."""
    rng = np.random.default_rng(n)
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    low = rng.standard_normal((n, 2)) @ rng.standard_normal((2, n))
    graded = np.diag(10.0 ** -(3.0 * np.arange(n)))
    yield np.zeros((n, n))
    yield np.eye(n)
    yield np.ones((n, n))
    yield np.diag(np.arange(n) % 2 * 1.0)
    yield (q * (np.arange(n) // 3)) @ q.T
    yield (q * (1 + 1e-9 * np.arange(n))) @ q.T
    yield (q * (1 + 1e-5 * np.arange(n))) @ q.T
    yield low @ low.T
    yield low
    yield graded
    yield q @ graded @ q.T
    yield graded @ rng.standard_normal((n, n))
    yield rng.standard_normal((n, n)) @ graded
    yield np.full((n, n), 1e-42)
    yield np.triu(np.ones((n, n)))
    yield np.eye(n)[::-1] - 0.0


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", [2, 3, 8, 16])
def test_special_matrices(n, dtype):
    a = np.stack(list(special(n))).astype(TYPES[dtype][0])
    usual = np.delete(a, 13, 0)
    check_eigh(usual, dtype)
    check_singular_values(usual, dtype)
    check_qr(usual, dtype)
    # Denormal numbers have few digits of their own.
    tiny = a[13:14].repeat(4, 0)
    np.testing.assert_allclose(wide(L.eigvalsh(torch.tensor(tiny)))[:, -1], n * 1e-42, rtol=5e-3, atol=0)
    np.testing.assert_allclose(wide(L.svdvals(torch.tensor(tiny)))[:, 0], n * 1e-42, rtol=5e-3, atol=0)


def test_columns_of_very_different_length():
    """Each column keeps its own digits in QR, as in LAPACK."""
    a = batch(9, 6, 6, "float32") * np.float32(10.0) ** np.float32([0, -12, 3, -30, 6, -9])
    q, r = (wide(t) for t in L.qr(torch.tensor(a)))
    size = np.abs(a).max(1, keepdims=True)
    assert (np.abs(q @ r - a) <= 40 * 2.0**-23 * size).all()
    assert (np.abs(q.swapaxes(1, 2) @ q - np.eye(6)) <= 40 * 2.0**-23).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_singular_matrices_are_found_by_number(dtype):
    a = batch(20, 5, 5, dtype)
    a[17] = 0
    a[18, :, 3] = 0
    t, b = torch.tensor(a), torch.tensor(batch(20, 5, 2, dtype))
    for f in (lambda: L.inv(t), lambda: L.solve(t, b)):
        with pytest.raises(L.LinAlgError, match="Batch element 17"):
            f()
    info = L.inv_ex(t)[1]
    assert info.dtype == torch.int32 and info.nonzero().flatten().tolist() == [17, 18]
    assert info[17:19].tolist() == [1, 4]
    assert L.solve_ex(t, b)[1].tolist() == info.tolist()
    assert L.lu_factor_ex(t)[2].tolist() == info.tolist()
    np.testing.assert_allclose(wide(L.det(t)), np.linalg.det(a.astype(np.float64)), rtol=1e-3, atol=1e-5)
    good = np.delete(np.arange(20), [17, 18])
    np.testing.assert_allclose(
        wide(L.inv_ex(t)[0])[good], np.linalg.inv(a[good].astype(np.float64)), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(bad):
    a = symmetric(20, 6, "float32")
    clean = a.copy()
    a[9, 4, 1] = bad
    t = torch.tensor(a)
    for f in (L.eigh, L.eigvalsh, L.svdvals):
        with pytest.raises(L.LinAlgError, match="Batch element 9"):
            f(t)
    # Only the lower triangle of a symmetric matrix counts.
    np.testing.assert_array_equal(wide(L.eigvalsh(t.mT)), wide(L.eigvalsh(torch.tensor(clean))))
    other = [i for i in range(20) if i != 9]
    for got, want in (
        (L.qr(t)[0], L.qr(torch.tensor(clean))[0]),
        (L.qr(t)[1], L.qr(torch.tensor(clean))[1]),
        (L.inv_ex(t)[0], L.inv(torch.tensor(clean))),
    ):
        np.testing.assert_array_equal(wide(got)[other], wide(want)[other])
        assert np.isnan(wide(got)[9]).any()


FUNCTIONS = {
    "inv": lambda t: L.inv(t),
    "solve": lambda t: L.solve(t, t[..., :2]),
    "det": lambda t: L.det(t),
    "qr": lambda t: L.qr(t)[1],
    "eigvalsh": lambda t: L.eigvalsh(t),
    "svdvals": lambda t: L.svdvals(t),
    "lu": lambda t: L.lu_factor(t)[0],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_layouts(name):
    f = FUNCTIONS[name]
    a = batch(24, 4, 4, "float64").reshape(2, 3, 4, 4, 4) + 3 * np.eye(4)
    t = torch.tensor(a)
    want = wide(f(t))
    stepped = torch.zeros(2, 3, 8, 4, 12, dtype=torch.float64)
    stepped[:, :, ::2, :, ::3] = t
    same = {
        "transposed": t.mT.contiguous().mT,
        "inside": torch.nn.functional.pad(t, (1, 3, 2, 1))[..., 2:-1, 1:-3],
        "stepped": stepped[:, :, ::2, :, ::3],
        "batch moved": t.permute(2, 0, 1, 3, 4).contiguous().permute(1, 2, 0, 3, 4),
        "batch last": t.permute(3, 4, 0, 1, 2).contiguous().permute(2, 3, 4, 0, 1),
        "offset": torch.cat([t, t])[2:],
    }
    if IS_PYRITE:
        back = torch.tensor(np.ascontiguousarray(a[::-1, :, :, ::-1, ::-1]))
        same["reversed"] = back[::-1, :, :, ::-1, ::-1]
    for layout, other in same.items():
        np.testing.assert_allclose(wide(f(other)), want, rtol=1e-12, atol=1e-12, err_msg=layout)
    one = f(t[0, 0, :1].expand(9, 4, 4))
    np.testing.assert_allclose(wide(one), want[0, 0, :1].repeat(9, 0), rtol=1e-12, atol=1e-12)
    alone = np.stack([wide(f(torch.tensor(m))) for m in a.reshape(-1, 4, 4)])
    np.testing.assert_allclose(alone.reshape(want.shape), want, rtol=1e-11, atol=1e-11)
    assert wide(f(t[:0])).shape == (0, *want.shape[1:])


def test_sides_of_systems():
    """One side, many (which the kernel hands on), vectors, and sides for a whole batch."""
    a = batch(10, 5, 5, "float64") + 3 * np.eye(5)
    for cols in (1, 32, 33, 100):
        b = batch(10, 5, cols, "float64")
        got = L.solve(torch.tensor(a), torch.tensor(b))
        np.testing.assert_allclose(got.numpy(), np.linalg.solve(a, b), rtol=1e-11, atol=1e-12)
        one = L.solve(torch.tensor(a[0]), torch.tensor(b))
        np.testing.assert_allclose(one.numpy(), np.linalg.solve(a[:1], b), rtol=1e-11, atol=1e-12)
    v = L.solve(torch.tensor(a), torch.tensor(batch(10, 5, 1, "float64")[..., 0]))
    np.testing.assert_allclose(
        v.numpy(), np.linalg.solve(a, batch(10, 5, 1, "float64"))[..., 0], rtol=1e-11, atol=1e-12
    )
    assert L.solve(torch.tensor(a), torch.zeros(10, 5, 0, dtype=torch.float64)).shape == (10, 5, 0)


@pytest.mark.parametrize("n", [2, 5])
def test_gradients(n):
    a = torch.tensor(batch(5, n, n, "float64") + 2 * np.eye(n))
    b = torch.tensor(batch(5, n, 2, "float64"))
    check_gradients(lambda x: L.inv(x), a)
    check_gradients(lambda x, y: L.solve(x, y), a, b)
    check_gradients(lambda x, y: L.solve(x, y.mT, left=False), a, b)
    check_gradients(lambda x: L.det(x), a)
    check_gradients(lambda x: L.qr(x)[1], a)
    check_gradients(lambda x: L.eigvalsh(x + x.mT), a)
    check_gradients(lambda x: L.eigh(x + x.mT)[1] ** 2, a)
    check_gradients(lambda x: L.svdvals(x), a)


def test_results_do_not_depend_on_the_place_in_the_batch():
    a = torch.tensor(symmetric(50, 7, "float32"))
    for f in (L.inv, lambda t: L.qr(t)[0], L.eigvalsh, lambda t: L.eigh(t)[1], L.svdvals, L.det):
        whole = f(a)
        assert torch.equal(f(a[13:27]), whole[13:27])
        assert torch.equal(f(a.repeat(5, 1, 1))[100:150], whole)
