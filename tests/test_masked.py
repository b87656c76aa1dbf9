"""`masked`: reductions and normalisations of the elements a mask leaves, against NumPy's masked arrays."""

import math

import numpy as np
import pytest
from numeric import check_gradients
from scipy import special
from subject import torch

F64 = torch.float64
M = torch.masked


def sample():
    x = torch.randn(4, 5, dtype=F64)
    mask = torch.rand(4, 5) < 0.6
    mask[:, 0] = mask[0] = True
    return x, mask, np.ma.array(x.numpy(), mask=~mask.numpy())


REDUCTIONS = {
    "sum": lambda a, axis: a.sum(axis),
    "prod": lambda a, axis: a.prod(axis),
    "mean": lambda a, axis: a.mean(axis),
    "amax": lambda a, axis: a.max(axis),
    "amin": lambda a, axis: a.min(axis),
    "var": lambda a, axis: a.var(axis, ddof=1),
    "std": lambda a, axis: a.std(axis, ddof=1),
    "logsumexp": lambda a, axis: np.log(np.exp(a).sum(axis)),
    "norm": lambda a, axis: np.sqrt((a * a).sum(axis)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name):
    x, mask, a = sample()
    f = getattr(M, name)
    for dim in (None, 0, 1, -1, (0, 1)):
        want = np.ma.getdata(REDUCTIONS[name](a, None if dim == (0, 1) else dim))
        got = f(x, dim=dim, mask=mask)
        enough = np.isfinite(want)  # one element has no variance
        np.testing.assert_allclose(got.numpy()[enough], want[enough], rtol=1e-12)
        assert f(x, dim=dim, keepdim=True, mask=mask).dim() == 2
    np.testing.assert_allclose(f(x).numpy(), np.ma.getdata(REDUCTIONS[name](np.ma.array(x.numpy()), None)), rtol=1e-12)
    check_gradients(lambda t: f(t, dim=1, mask=mask | (torch.arange(5) == 1)), x)


def test_positions_and_scans():
    x, mask, a = sample()
    for dim in (0, 1):
        np.testing.assert_array_equal(M.argmax(x, dim, mask=mask).numpy(), a.argmax(dim))
        np.testing.assert_array_equal(M.argmin(x, dim, mask=mask).numpy(), a.argmin(dim))
        np.testing.assert_allclose(M.cumsum(x, dim, mask=mask).numpy(), np.cumsum(a.filled(0), dim))
        np.testing.assert_allclose(M.cumprod(x, dim, mask=mask).numpy(), np.cumprod(a.filled(1), dim))
    assert M.argmax(x, mask=mask).item() == a.argmax()
    k = (x * 9).to(torch.int64)
    assert M.sum(k, mask=mask).item() == k[mask].sum().item() and M.sum(k).dtype == torch.int64
    assert M.amax(k, mask=mask).item() == k[mask].max().item()
    want = [sorted(row[m].tolist())[(m.sum().item() - 1) // 2] for row, m in zip(x, mask, strict=True)]
    np.testing.assert_allclose(M.median(x, 1, mask=mask).numpy(), want)
    check_gradients(lambda t: M.median(t, 1, mask=mask), x)
    check_gradients(lambda t: M.cumprod(t, 1, mask=mask), x)


def test_normalisations():
    x, mask, a = sample()
    for dim in (0, 1):
        low = np.where(mask.numpy(), x.numpy(), -np.inf)
        np.testing.assert_allclose(M.softmax(x, dim, mask=mask).numpy(), special.softmax(low, dim))
        np.testing.assert_allclose(M.log_softmax(x, dim, mask=mask).numpy(), special.log_softmax(low, dim))
        high = np.where(mask.numpy(), -x.numpy(), -np.inf)
        np.testing.assert_allclose(M.softmin(x, dim, mask=mask).numpy(), special.softmax(high, dim))
        kept = a.filled(0)
        for p in (1.0, 2.0, math.inf):
            want = kept / np.linalg.norm(kept, p, dim, keepdims=True)
            got = M.normalize(x, p, dim, mask=mask)
            np.testing.assert_allclose(got[mask].numpy(), want[mask.numpy()])
    check_gradients(lambda t: M.softmax(t, 1, mask=mask), x)
    y = torch.randn(4, 5, dtype=F64)
    want = np.logaddexp(a.filled(-np.inf), y.numpy())
    np.testing.assert_allclose(M.logaddexp(x, y, input_mask=mask).numpy(), want)


def test_everything_masked_out():
    x, nothing = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    assert M.sum(x, 1, mask=nothing).tolist() == [0, 0] and M.prod(x, 1, mask=nothing).tolist() == [1, 1]
    assert M.amax(x, 1, mask=nothing).tolist() == [-math.inf] * 2
    assert all(math.isnan(v) for v in M.mean(x, 1, mask=nothing).tolist())
    with pytest.raises(IndexError, match="mask"):
        M.sum(torch.ones(2), mask=nothing)


def test_running_sums_of_integers_keep_their_dtype():
    x = torch.tensor([1, 2, 3], dtype=torch.int32)
    mask = torch.tensor([True, False, True])
    total = torch.masked.cumsum(x, 0, mask=mask)
    assert total.dtype == torch.int32 and total.tolist() == [1, 1, 4]
    assert torch.masked.cumprod(x, 0, mask=mask).dtype == torch.int32
    assert torch.masked.cumsum(x > 1, 0).dtype == torch.int64


@pytest.mark.parametrize("unbiased", [False, True])
def test_variance_of_complex(unbiased):
    x = np.random.default_rng(0).standard_normal((4, 5)) + 1j * np.random.default_rng(1).standard_normal((4, 5))
    mask = np.random.default_rng(2).random((4, 5)) < 0.8
    expected = [row[m].var(ddof=int(unbiased)) for row, m in zip(x, mask, strict=True)]
    t, m = torch.from_numpy(x), torch.from_numpy(mask)
    np.testing.assert_allclose(torch.masked.var(t, 1, mask=m, unbiased=unbiased).numpy(), expected)
    np.testing.assert_allclose(torch.masked.std(t, 1, mask=m, unbiased=unbiased).numpy(), np.sqrt(expected))
