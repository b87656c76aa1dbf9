"""vmap's rules for matrix functions, transforms, sections and writes: equal to the loop over samples, without a loop."""

import pytest
from subject import F, torch
from test_vmap import check

pytestmark = pytest.mark.pyrite
F64 = torch.float64
L = torch.linalg


def rand(*shape):
    return torch.randn(shape, dtype=F64)


def spd(x):
    return x @ x.mT + torch.eye(x.shape[-1], dtype=x.dtype)


def well(x):
    return 0.1 * x + torch.diag(torch.arange(1.0, x.shape[-1] + 1, dtype=F64))


labels, bags = torch.tensor([[1, 2], [3, 1]]), torch.tensor([[0, 2, 2, 1], [1, 1, 0, 2]])
table, hann = rand(3, 4), torch.hann_window(4, dtype=F64)
at = torch.tensor([2, 0])
mask = torch.tensor([[True, False, True, True], [False, True, True, False], [True, True, False, True]])
M, S = (3, 4), (3, 3)
# Name -> (function, shapes of one sample's arguments).
CASES = {
    "linalg.cholesky": (lambda x: L.cholesky(spd(x)), S),
    "linalg.cholesky upper": (lambda x: L.cholesky(spd(x), upper=True), (2, *S)),
    "linalg.inv": (lambda x: L.inv(well(x)), S),
    "linalg.inv_ex": (lambda x: list(L.inv_ex(well(x))), S),
    "linalg.det": (lambda x: L.det(x), S),
    "linalg.slogdet": (lambda x: list(L.slogdet(x)), S),
    "logdet": (lambda x: torch.logdet(spd(x)), S),
    "linalg.solve": (lambda x, b: L.solve(well(x), b), S, (3, 2)),
    "linalg.solve vector": (lambda x, b: L.solve(well(x), b), S, (3,)),
    "linalg.solve batches": (lambda x, b: L.solve(well(x), b), (2, 3, 3), (3, 2)),
    "linalg.solve right": (lambda x, b: L.solve(well(x), b, left=False), S, (2, 3)),
    "linalg.solve_triangular": (lambda x, b: L.solve_triangular(well(x), b, upper=True), S, (2, 3, 1)),
    "linalg.lu_factor": (lambda x: list(L.lu_factor(well(x))), S),
    "linalg.lu_solve": (lambda x, b: L.lu_solve(*L.lu_factor(well(x)), b), S, (3, 2)),
    "lu_unpack": (lambda x: list(torch.lu_unpack(*L.lu_factor(well(x)))), S),
    "linalg.qr": (lambda x: list(L.qr(x)), (4, 3)),
    "linalg.svdvals": (lambda x: L.svdvals(x), M),
    "linalg.eigvalsh": (lambda x: L.eigvalsh(spd(x)), S),
    "linalg.eigh": (lambda x: L.eigh(spd(x))[0], S),
    "linalg.pinv": (lambda x: L.pinv(x), M),
    "linalg.matrix_exp": (lambda x: L.matrix_exp(x), S),
    "linalg.matrix_power": (lambda x: L.matrix_power(x, 3), S),
    "linalg.matrix_rank": (lambda x: L.matrix_rank(x), M),
    "linalg.cond": (lambda x: L.cond(well(x)), S),
    "linalg.householder_product": (lambda x, t: L.householder_product(x, t), (4, 2), (2,)),
    "linalg.vander": (lambda x: L.vander(x, N=3), (4,)),
    "linalg.matrix_norm": (lambda x: L.matrix_norm(x, "nuc", dim=(0, 2)), (3, 2, 4)),
    "linalg.norm": (lambda x: [L.norm(x), L.norm(x, 1), L.norm(x, 2, dim=0), L.norm(x, "fro")], M),
    "linalg.norm vector": (lambda x: [L.norm(x, 3), L.norm(x)], (4,)),
    "linalg.multi_dot": (lambda x, y, z: L.multi_dot([x, y, z]), (3,), M, (4, 2)),
    "linalg.vecdot": (lambda x, y: L.vecdot(x, y), M, (4,)),
    "linalg.cross": (lambda x, y: L.cross(x, y), (2, 3), (2, 3)),
    "linalg.diagonal": (lambda x: L.diagonal(x, offset=1), (2, *M)),
    "cdist": (lambda x, y: torch.cdist(x, y), (3, 2), (4, 2)),
    "trace": (lambda x: x.trace(), M),
    "dist": (lambda x, y: torch.dist(x, y, 3), M, (4,)),
    "kron": (lambda x, y: torch.kron(x, y), M, (2,)),
    "inner": (lambda x, y: torch.inner(x, y), M, (2, 4)),
    "einsum": (lambda x, y: torch.einsum("ij,kj->ik", x, y), M, (2, 4)),
    "einsum implicit": (lambda x, y: torch.einsum("...j,j", x, y), M, (4,)),
    "einsum trace": (lambda x: torch.einsum("ii", x), S),
    "tensordot": (lambda x, y: torch.tensordot(x, y, ([1, 0], [0, 1])), M, (4, 3, 2)),
    "fft.fft": (lambda x: torch.fft.fft(x), M),
    "fft.fft dim": (lambda x: torch.fft.fft(x, n=5, dim=0, norm="ortho"), M),
    "fft.rfft": (lambda x: torch.fft.irfft(torch.fft.rfft(x)), M),
    "fft.fft2": (lambda x: torch.fft.ifft2(torch.fft.fft2(x), s=(2, 2)).real, M),
    "fft.fftn": (lambda x: [torch.fft.fftn(x), torch.fft.fftn(x, s=(2,)), torch.fft.rfftn(x, dim=(1, 0))], M),
    "fft.hfft": (lambda x: [torch.fft.hfft(x), torch.fft.ihfft(x), torch.fft.hfft2(x)], M),
    "fft.fftshift": (lambda x: [torch.fft.fftshift(x), torch.fft.ifftshift(x, dim=0)], M),
    "stft": (lambda x: torch.stft(x, 4, 2, window=torch.ones(4, dtype=F64), return_complex=True), (2, 9)),
    "index_put": (lambda x, v: x.index_put((at, at + 1), v), M, (2,)),
    "index_put accumulate": (lambda x, v: x.index_put((at * 0,), v, True), M, (2, 4)),
    "index_put number": (lambda x, v: x.index_put((mask,), v), M, ()),
    "put": (lambda x, v: x.put(torch.tensor([3, 5]), v), M, (2,)),
    "masked_scatter": (lambda x, v: x.masked_scatter(mask, v), M, (2, 5)),
    "masked_scatter own mask": (lambda x, v: x.masked_scatter(x > 0, v), M, (3, 4)),
    "select_scatter": (lambda x, v: x.select_scatter(v, 1, 2), M, (3,)),
    "slice_scatter": (lambda x, v: x.slice_scatter(v, -1, 1, 4, 2), M, (3, 2)),
    "diagonal_scatter": (lambda x, v: x.diagonal_scatter(v, 1), M, (3,)),
    "searchsorted": (lambda s, x: torch.searchsorted(s.sort().values, x), (5,), M),
    "searchsorted lines": (lambda s, x: torch.searchsorted(s.sort().values, x, right=True), (3, 5), M),
    "bucketize": (lambda x, s: torch.bucketize(x, s.sort().values), M, (5,)),
    "tensor_split": (lambda x: [*x.tensor_split(3, 1), *x.tensor_split((1,))], M),
    "hsplit": (lambda x: [*x.hsplit(2), *x.vsplit((1,))], M),
    "dsplit": (lambda x: list(x.dsplit(2)), (2, 3, 4)),
    "narrow_copy": (lambda x: torch.narrow_copy(x, 1, 1, 2), M),
    "column_stack": (lambda x, y: torch.column_stack([x, y]), M, (3,)),
    "block_diag": (lambda x, y: torch.block_diag(x, y, x), M, (2,)),
    "diagflat": (lambda x: x.diagflat(1), (2, 2)),
    "combinations": (lambda x: torch.combinations(x, 2, True), (4,)),
    "gradient": (lambda x: [*torch.gradient(x), *torch.gradient(x, spacing=0.5, dim=1)], M),
    "logit": (lambda x: torch.logit(x, 0.1), M),
    "ctc_loss": (lambda x: F.ctc_loss(x.log_softmax(-1), labels, (5, 4), (2, 1), reduction="none"), (5, 2, 4)),
    "ctc_loss mean": (lambda x: F.ctc_loss(x.log_softmax(-1), labels[0, :2], 5, 2), (5, 4)),
    "embedding_bag": (lambda w: F.embedding_bag(bags, w, mode="sum"), M),
    "embedding_bag max": (lambda w: F.embedding_bag(bags, w, mode="max", padding_idx=2), M),
    "embedding_bag offsets": (
        lambda w, p: F.embedding_bag(
            bags[0], w, torch.tensor([0, 1, 1, 3]), mode="sum", per_sample_weights=p, include_last_offset=True
        ),
        M,
        (4,),
    ),
    "embedding_bag indices": (lambda x: F.embedding_bag(x.argsort(1), table), (2, 3)),
    "max_unpool1d": (lambda x: F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2), (2, 6)),
    "max_unpool2d": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), (2, 3, 4, 4)),
    "max_unpool3d": (lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2), (2, 2, 4, 2)),
    "linalg.lstsq": (lambda x, b: L.lstsq(x, b).solution, (4, 3), (4, 2)),
    "linalg.lstsq vector": (lambda x, b: list(L.lstsq(x, b, driver="gels")), (4, 3), (4,)),
    "linalg.tensorinv": (lambda x: L.tensorinv(x), (2, 3, 3, 2)),
    "linalg.tensorsolve": (lambda x, b: L.tensorsolve(x, b), (2, 3, 6), (2, 3)),
    "linalg.tensorsolve dims": (lambda x, b: L.tensorsolve(x, b, dims=(0,)), (6, 2, 3), (2, 3)),
    "histc": (lambda x: [torch.histc(x, 5), torch.histc(x, 4, -1, 1), torch.histc(x[0, :1], 3)], M),
    "istft": (lambda x: torch.istft(torch.stft(x, 4, window=hann, return_complex=True), 4, window=hann), (2, 12)),
    "cov": (lambda x: [torch.cov(x), torch.cov(x, correction=0), torch.cov(x[0])], M),
    "corrcoef": (lambda x: [torch.corrcoef(x), torch.corrcoef(x[0])], M),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_loop_without_one(name):
    from pyrite._batching import core

    f, *shapes = CASES[name]
    torch.manual_seed(1)
    core.looped.clear()
    check(f, [rand(*s) for s in shapes], (0, -1, None) if len(shapes) < 3 else (0, None))
    assert not core.looped


@pytest.mark.parametrize(
    "name",
    [
        "linalg.solve",
        "fft.rfft",
        "einsum",
        "index_put",
        "cov",
        "masked_scatter",
        "ctc_loss",
        "embedding_bag offsets",
        "max_unpool2d",
        "linalg.lstsq",
        "linalg.tensorsolve",
        "istft",
        "linalg.tensorinv",
    ],
)
def test_gradients_of_samples(name):
    f, *shapes = CASES[name]
    first = lambda *a: (lambda r: r[0] if isinstance(r, list) else r)(f(*a)).sin().sum()
    xs = [torch.stack([rand(*s), rand(*s)]) for s in shapes]
    got = torch.func.vmap(torch.func.grad(first))(*xs)
    for i in range(2):
        want = torch.func.grad(first)(*[x[i] for x in xs])
        assert torch.allclose(got[i], want, rtol=1e-9, atol=1e-12)


def test_parts_of_complex_samples():
    x = torch.complex(rand(3, 4), rand(3, 4))
    assert torch.equal(torch.func.vmap(lambda z: z.real - z.imag)(x), x.real - x.imag)

    def written(z):
        z = z.clone()
        z.real = z.imag
        return z

    assert torch.equal(torch.func.vmap(written)(x), torch.complex(x.imag, x.imag))


def test_nested():
    x, b = rand(2, 3, 4, 4), rand(3, 4)
    x = x * 0.1 + torch.eye(4, dtype=F64)
    got = torch.func.vmap(torch.func.vmap(L.solve), in_dims=(0, None))(x, b)
    for i in range(2):
        for j in range(3):
            assert torch.allclose(got[i, j], L.solve(x[i, j], b[j]))


def test_low_rank_factors_draw_for_each_sample():
    from pyrite._batching import core

    x = rand(3, 5, 2) @ rand(3, 2, 4)
    core.looped.clear()
    for y, shift in ((x, None), (x.mT, None), (x, x * 0)):
        u, s, v = torch.func.vmap(lambda a, m: tuple(torch.svd_lowrank(a, 2, M=m)), (0, None if shift is None else 0),
                                  randomness="different")(y, shift)  # fmt: skip
        assert torch.allclose((u * s.unsqueeze(1)) @ v.mT, y)
    _u, s, _v = torch.func.vmap(lambda a: tuple(torch.pca_lowrank(a, 2)), randomness="same")(x)
    centered = x - x.mean(-2, keepdim=True)
    assert torch.allclose(s, L.svdvals(centered)[:, :2])
    assert not core.looped
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(lambda a: torch.svd_lowrank(a, 2)[1])(x)
