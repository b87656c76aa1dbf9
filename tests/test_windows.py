"""Windows against SciPy's, over lengths, both kinds, dtypes; what they refuse."""

import numpy as np
import pytest
from scipy.signal import windows as ref
from subject import IS_PYRITE, torch

W = torch.signal.windows
SIGNAL = [
    ("bartlett", {}, lambda M, s: ref.bartlett(M, s)),
    ("blackman", {}, lambda M, s: ref.blackman(M, s)),
    ("cosine", {}, lambda M, s: ref.cosine(M, s)),
    ("exponential", {}, lambda M, s: ref.exponential(M, sym=s)),
    ("exponential", {"tau": 3.0}, lambda M, s: ref.exponential(M, tau=3.0, sym=s)),
    ("gaussian", {}, lambda M, s: ref.gaussian(M, 1.0, s)),
    ("gaussian", {"std": 2.5}, lambda M, s: ref.gaussian(M, 2.5, s)),
    ("general_cosine", {"a": [0.5, 0.3, 0.2]}, lambda M, s: ref.general_cosine(M, [0.5, 0.3, 0.2], s)),
    ("general_hamming", {}, lambda M, s: ref.general_hamming(M, 0.54, s)),
    ("general_hamming", {"alpha": 0.7}, lambda M, s: ref.general_hamming(M, 0.7, s)),
    ("hamming", {}, lambda M, s: ref.hamming(M, s)),
    ("hann", {}, lambda M, s: ref.hann(M, s)),
    ("kaiser", {}, lambda M, s: ref.kaiser(M, 12.0, s)),
    ("kaiser", {"beta": 0.0}, lambda M, s: ref.kaiser(M, 0.0, s)),
    *([("kaiser", {"beta": 900.0}, None)] if IS_PYRITE else []),
    ("nuttall", {}, lambda M, s: ref.nuttall(M, s)),
]
CLASSIC = [
    ("bartlett_window", {}, lambda M, s: ref.bartlett(M, s)),
    ("blackman_window", {}, lambda M, s: ref.blackman(M, s)),
    ("hamming_window", {}, lambda M, s: ref.hamming(M, s)),
    ("hamming_window", {"alpha": 0.6, "beta": 0.3}, lambda M, s: ref.general_cosine(M, [0.6, 0.3], s)),
    ("hann_window", {}, lambda M, s: ref.hann(M, s)),
    ("kaiser_window", {}, lambda M, s: ref.kaiser(M, 12.0, s)),
    ("kaiser_window", {"beta": 3.0}, lambda M, s: ref.kaiser(M, 3.0, s)),
]


@pytest.mark.parametrize("name, kwargs, expected", SIGNAL, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize("M", [0, 1, 2, 3, 8, 51])
def test_signal_windows(name, kwargs, expected, M):
    for sym in [True, False]:
        for dtype, tol in [(torch.float64, 2e-15), (torch.float32, 1e-7)]:
            w = getattr(W, name)(M, **kwargs, sym=sym, dtype=dtype)
            assert w.dtype == dtype and w.shape == (M,)
            if expected is None:
                assert bool(w.isfinite().all())
            elif M > 1:
                tol *= 4 if IS_PYRITE else 50
                np.testing.assert_allclose(w.to(torch.float64).numpy(), expected(M, sym), atol=tol, rtol=0)


@pytest.mark.parametrize("name, kwargs, expected", CLASSIC, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize("M", [0, 1, 2, 5, 32])
def test_classic_windows(name, kwargs, expected, M):
    for periodic in [True, False]:
        args = {"periodic": periodic, **kwargs}
        for dtype, tol in [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.float16, 2e-3)]:
            w = getattr(torch, name)(M, *args.values(), dtype=dtype)
            assert w.dtype == dtype and w.shape == (M,)
            if M > 1:
                tol *= 1 if IS_PYRITE else 10
                np.testing.assert_allclose(w.to(torch.float64).numpy(), expected(M, not periodic), atol=tol, rtol=0)
        if M == 1:
            assert w.item() == 1


def test_options():
    assert W.hann(4).dtype == torch.get_default_dtype() and torch.hann_window(4).dtype == torch.get_default_dtype()
    assert W.hann(4, requires_grad=True).requires_grad and torch.hann_window(4, requires_grad=True).requires_grad
    assert W.hann(4, layout=torch.strided, device="cpu").shape == (4,)
    assert W.exponential(5, center=1.0, sym=False)[1].item() == 1


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda: W.hann(-1), ValueError),
        (lambda: W.hann(5, dtype=torch.int64), ValueError),
        (lambda: W.hann(5, dtype=torch.float16), ValueError),
        (lambda: W.exponential(5, center=1.0), ValueError),
        (lambda: W.exponential(5, tau=0), ValueError),
        (lambda: W.gaussian(5, std=-1), ValueError),
        (lambda: W.kaiser(5, beta=-1), ValueError),
        (lambda: W.general_cosine(5, a=[]), ValueError),
        (lambda: W.general_cosine(5, a=3), TypeError),
        (lambda: W.hann(5.5), TypeError),
        (lambda: torch.hann_window(-1), RuntimeError),
        (lambda: torch.hann_window(4, dtype=torch.int64), RuntimeError),
        (lambda: torch.hann_window(3.0), TypeError),
    ],
)
def test_bad_input(call, error):
    with pytest.raises(error):
        call()
