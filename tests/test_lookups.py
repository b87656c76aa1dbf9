"""`pdist` and `grid_sample` at the sizes where their kernels change course: blocks, panels, many channels, layouts."""

import itertools

import numpy as np
import pytest
from numeric import check_gradients
from scipy import ndimage, spatial
from subject import IS_PYRITE, F, torch

NORMS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf")]


def rand(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def distances(x, p):
    if p == 0:
        return spatial.distance.pdist(x, "hamming") * x.shape[1]
    kind = {1.0: "cityblock", 2.0: "euclidean", float("inf"): "chebyshev"}.get(p)
    return spatial.distance.pdist(x, kind) if kind else spatial.distance.pdist(x, "minkowski", p=p)


@pytest.mark.parametrize("p", NORMS)
def test_pdist(p):
    for n, m in [(2, 1), (3, 5), (31, 16), (33, 7), (65, 33), (130, 64), (520, 3), (9, 300), (35, 2100)]:
        x = np.round(rand(n, m), 1)
        np.testing.assert_allclose(F.pdist(torch.tensor(x), p).numpy(), distances(x, p), rtol=1e-11, atol=1e-11)
        low = F.pdist(torch.tensor(x).float(), p)
        tol = 2e-5 if p >= 1 or p == 0 else 2e-3
        np.testing.assert_allclose(low.numpy(), distances(x.astype(np.float32), p), rtol=tol, atol=tol)


def test_pdist_of_nothing():
    assert F.pdist(torch.zeros(0, 3)).shape == F.pdist(torch.zeros(1, 3)).shape == (0,)
    for p in NORMS:
        assert F.pdist(torch.zeros(4, 0), p).tolist() == [0.0] * 6
    x = torch.ones(1, 3, requires_grad=True)
    F.pdist(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros(1, 3))


@pytest.mark.parametrize("p", NORMS)
def test_pdist_of_layouts(p):
    x = rand(40, 6)
    want = distances(x, p)
    t = torch.tensor(x)
    layouts = [t.T.contiguous().T, torch.cat([t, t])[40:], torch.stack([t, t], 2)[..., 1], t.repeat(1, 2)[:, 6:]]
    if IS_PYRITE:
        layouts.append(torch.tensor(x[::-1, ::-1].copy())[::-1, ::-1])
    for other in layouts:
        np.testing.assert_allclose(F.pdist(other, p).numpy(), want, rtol=1e-11, atol=1e-11)
    assert F.pdist(t[:1].expand(5, 6), p).tolist() == [0.0] * 10


def test_pdist_of_what_is_not_finite():
    x = torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [float("inf"), 1.0], [float("inf"), 2.0]])
    for p in (1.0, 2.0, 3.0, float("inf")):
        y = F.pdist(x, p).tolist()
        assert [np.isnan(v) for v in y] == [True, False, False, True, True, True]
        assert y[1] == y[2] == float("inf")
    assert F.pdist(x, 0.0).tolist() == [1.0, 1.0, 2.0, 1.0, 2.0, 2.0]


def slopes(x, g, p):
    """The gradient by the closed form, pair by pair."""
    out = np.zeros_like(x)
    for w, (i, j) in zip(g, itertools.combinations(range(len(x)), 2), strict=True):
        d = x[i] - x[j]
        r = np.linalg.norm(d, p)
        if p == 0 or r == 0:
            continue
        if p == np.inf:
            s = np.sign(d) * (np.abs(d) == r)
        else:
            s = np.sign(d) * np.abs(d) ** (p - 1) * r ** (1 - p)
        out[i] += w * s
        out[j] -= w * s
    return out


@pytest.mark.parametrize("p", [0.0, 1.0, 1.5, 2.0, 3.0, float("inf")])
def test_pdist_gradient(p):
    for n, m in [(2, 3), (5, 1), (9, 70), (40, 17), (13, 130)]:
        x = rand(n, m)
        x[-1] = x[0]
        g = rand(n * (n - 1) // 2, seed=1)
        t = torch.tensor(x, requires_grad=True)
        F.pdist(t, p).backward(torch.tensor(g))
        np.testing.assert_allclose(t.grad.numpy(), slopes(x, g, p), rtol=1e-9, atol=1e-9)
        t = torch.tensor(x).float().requires_grad_()
        # An expanded gradient, too.
        F.pdist(t, p).sum().backward()
        np.testing.assert_allclose(t.grad.numpy(), slopes(x, np.ones_like(g), p), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, float("inf")])
def test_pdist_second_derivatives(p):
    # PyTorch has none.
    check_gradients(lambda x: F.pdist(x, p), torch.tensor(rand(5, 4)), second=IS_PYRITE)


# ---- grid_sample ----------------------------------------------------------------------------------

MODES = [("bilinear", 2), ("nearest", 2), ("bicubic", 2), ("bilinear", 3), ("nearest", 3)]


def inputs(n, c, points=(9, 13), size=(7, 6, 5), batch=2):
    grid = np.random.default_rng(c).uniform(-1.4, 1.4, (batch, *points, *([2] if n == 3 else []), n))
    return rand(batch, c, *size[:n]), grid


@pytest.mark.parametrize("border", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 9, 16, 17, 35])
def test_grid_sample_of_channels(channels, border):
    """Bilinear sampling against SciPy, plane by plane."""
    x, grid = inputs(2, channels)
    kind = {"zeros": "grid-constant", "border": "nearest", "reflection": "reflect"}[border]
    sizes = np.array(x.shape[2:])
    want = np.empty((*x.shape[:2], *grid.shape[1:-1]))
    for n, c in itertools.product(range(x.shape[0]), range(channels)):
        places = np.moveaxis(((grid[n, ..., ::-1] + 1) * sizes - 1) / 2, -1, 0)
        want[n, c] = ndimage.map_coordinates(x[n, c], places, order=1, mode=kind, cval=0.0)
    got = F.grid_sample(torch.tensor(x), torch.tensor(grid), "bilinear", border, align_corners=False)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-10, atol=1e-10)
    low = F.grid_sample(torch.tensor(x).float(), torch.tensor(grid).float(), "bilinear", border, align_corners=False)
    np.testing.assert_allclose(low.numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("border", ["zeros", "border", "reflection"])
@pytest.mark.parametrize(("mode", "n"), MODES)
def test_many_channels_are_each_like_one(mode, n, border):
    """Values and both gradients of many channels, against those of one channel at a time (another kernel)."""
    for channels, points in [(3, (9, 13)), (6, (9, 13)), (20, (9, 13)), (20, (1, 2))]:
        x, grid = inputs(n, channels, points)
        x, grid = torch.tensor(x, requires_grad=True), torch.tensor(grid, requires_grad=True)
        y = F.grid_sample(x, grid, mode, border, align_corners=True)
        g = torch.tensor(rand(*y.shape))
        dx, dgrid = torch.autograd.grad(y, (x, grid), g)
        total = torch.zeros_like(grid)
        for c in range(channels):
            one = x.detach()[:, c : c + 1].clone().requires_grad_()
            z = F.grid_sample(one, grid, mode, border, align_corners=True)
            np.testing.assert_allclose(z.detach().numpy(), y.detach().numpy()[:, c : c + 1], rtol=1e-11, atol=1e-11)
            da, db = torch.autograd.grad(z, (one, grid), g[:, c : c + 1])
            np.testing.assert_allclose(da.numpy(), dx.numpy()[:, c : c + 1], rtol=1e-10, atol=1e-10)
            total += db
        np.testing.assert_allclose(total.numpy(), dgrid.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("mode", "n"), MODES)
def test_gradients_of_many_channels(mode, n):
    x, grid = inputs(n, 5, (3, 4), (3, 4, 3), 1)
    f = lambda x, g: F.grid_sample(x, g, mode, "zeros", align_corners=False)
    check_gradients(f, torch.tensor(x), torch.tensor(grid), second=IS_PYRITE)


def test_samples_one_after_the_other():
    """A batch is what its samples are, whatever is held at a time."""
    x, grid = inputs(2, 12, batch=5)
    x, grid = torch.tensor(x).float(), torch.tensor(grid).float()
    whole = F.grid_sample(x, grid, align_corners=False)
    for n in range(5):
        assert torch.equal(F.grid_sample(x[n : n + 1], grid[n : n + 1], align_corners=False), whole[n : n + 1])


def test_pixels_outside_are_not_read():
    """NaN in the image stays where it is; positions that are no numbers read nothing, and get no gradient."""
    x = torch.ones(1, 6, 4, 4)
    x[..., 0, 0] = float("nan")
    grid = torch.full((1, 8, 8, 2), 2.0)
    assert torch.equal(F.grid_sample(x, grid, align_corners=False), torch.zeros(1, 6, 8, 8))
    grid[0, 0, 0] = float("nan")
    grid[0, 1, 1] = float("inf")
    grid[0, 2, 2] = -1e30
    x = torch.ones(1, 6, 4, 4, requires_grad=True)
    y = F.grid_sample(x, grid, align_corners=False)
    assert torch.equal(y, torch.zeros(1, 6, 8, 8))
    y.sum().backward()
    assert torch.equal(x.grad, torch.zeros(1, 6, 4, 4))


@pytest.mark.parametrize("change", ["channels last", "transposed", "stepped", "expanded", "half"])
def test_grid_sample_of_layouts(change):
    x, grid = inputs(2, 10)
    x, grid = torch.tensor(x).float(), torch.tensor(grid).float()
    other = {
        "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
        "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        "stepped": lambda t: torch.stack([t, t], -1)[..., 1],
        "expanded": lambda t: t[:1].expand(2, *t.shape[1:]),
        "half": lambda t: t.half(),
    }[change]
    if change == "half":
        got, want = F.grid_sample(other(x), other(grid), align_corners=False), other(x).float()
        want = F.grid_sample(want, other(grid).float(), align_corners=False)
        np.testing.assert_allclose(got.float().numpy(), want.numpy(), rtol=4e-3, atol=4e-3)
        return
    want = F.grid_sample(other(x).contiguous(), other(grid).contiguous(), align_corners=False)
    assert torch.equal(F.grid_sample(other(x), other(grid), align_corners=False), want)
