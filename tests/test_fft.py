"""Fourier transforms: NumPy's values over lengths, norms, dimensions and layouts; gradients of both orders; bad input."""

import math

import numpy as np
import pytest
from numeric import check_gradients
from subject import IS_PYRITE, torch

ONE = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
REAL_INPUT = ("rfft", "ihfft")
NORMS = ["backward", "ortho", "forward"]


def noise(shape, complex_, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if complex_ else x


def resolved(t):
    """PyTorch conjugates lazily."""
    return t if IS_PYRITE else t.resolve_conj()


def compare(got, expected, eps=1e-12):
    got = resolved(got).numpy()
    assert got.shape == expected.shape
    assert got.dtype.kind == expected.dtype.kind
    np.testing.assert_allclose(got, expected, atol=eps * (1 + np.abs(expected).max(initial=0)), rtol=0)


def kinds(name):
    return [False] if name.startswith(REAL_INPUT) else [False, True]


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 12, 17, 64, 97])
def test_one_dimension(name, n):
    f, ref = getattr(torch.fft, name), getattr(np.fft, name)
    for complex_ in kinds(name):
        for dim in range(3):
            shape = [3, 2, 5]
            shape[dim] = n
            x = noise(shape, complex_)
            for norm in NORMS:
                for m in [None, n + 3, max(1, n - 2)]:
                    if m is None and n == 1 and name in ("irfft", "hfft"):
                        continue
                    compare(f(torch.from_numpy(x), m, dim, norm), ref(x, m, dim, norm))


LAYOUTS = {
    "transposed": lambda make: make((6, 4, 5)).permute(2, 1, 0),
    "stepped": lambda make: make((10, 8, 18))[::2, ::2, ::3],
    "offset": lambda make: make((7, 5, 9))[2:, 1:, 3:],
    "expanded": lambda make: make((5, 1, 6)).expand(5, 4, 6) if IS_PYRITE else make((5, 4, 6)),
}
if IS_PYRITE:
    LAYOUTS["reversed"] = lambda make: make((5, 4, 6))[::-1, ::-1, ::-1]


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(name, layout):
    for complex_ in kinds(name):
        x = LAYOUTS[layout](lambda shape, c=complex_: torch.from_numpy(noise(shape, c)))
        assert tuple(x.shape) == (5, 4, 6)
        for dim in range(3):
            compare(getattr(torch.fft, name)(x, dim=dim), getattr(np.fft, name)(x.numpy(), axis=dim))


@pytest.mark.parametrize("name", ["fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn"])
def test_several_dimensions(name):
    f, ref = getattr(torch.fft, name), getattr(np.fft, name)
    for complex_ in kinds(name):
        x = noise((4, 5, 6), complex_)
        for norm in NORMS:
            for s, dims in [(None, (-2, -1)), ((3, 8), (0, 2)), ((4, 4), (2, 0)), ((6, 3), (-1, 1))]:
                got = f(torch.from_numpy(x), s, dims, norm)
                compare(got, ref(x, s, dims, norm))
    if name.endswith("n"):
        x = noise((3, 4, 5), False)
        compare(f(torch.from_numpy(x)), ref(x))
        compare(f(torch.from_numpy(x), (4, 6)), ref(x, (4, 6), (1, 2)))
        compare(f(torch.from_numpy(x), (-1, 6)), ref(x, (4, 6), (1, 2)))


def test_hermitian_transforms_by_their_definition():
    x = noise((3, 4, 5), True)
    t = torch.from_numpy(x)
    expected = np.fft.irfftn(x.conj(), axes=(0, 2), norm="forward")
    compare(torch.fft.hfftn(t, dim=(0, 2)), expected)
    compare(torch.fft.hfft2(t), np.fft.irfftn(x.conj(), axes=(1, 2), norm="forward"))
    y = noise((3, 4, 5), False)
    expected = np.fft.rfftn(y, axes=(0, 2), norm="forward").conj()
    compare(torch.fft.ihfftn(torch.from_numpy(y), dim=(0, 2)), expected)
    compare(torch.fft.ihfft2(torch.from_numpy(y)), np.fft.rfftn(y, axes=(1, 2), norm="forward").conj())


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8, torch.bool, torch.float64])
def test_dtypes(dtype):
    x = torch.arange(12).remainder(5).to(dtype).reshape(3, 4)
    wide = dtype == torch.float64
    for name in ("fft", "ifft", "rfft", "ihfft", "irfft", "hfft"):
        got = getattr(torch.fft, name)(x)
        real = name in ("irfft", "hfft")
        assert got.dtype == {
            (True, False): torch.float32, (True, True): torch.float64,
            (False, False): torch.complex64, (False, True): torch.complex128,
        }[real, wide]  # fmt: skip
        compare(got.to(torch.float64 if real else torch.complex128), getattr(np.fft, name)(x.numpy()), 1e-6)


def test_complex64_and_long_lines():
    for n in [1 << 15, 3 << 13, 9973, 1 << 17]:
        x = noise((1, n), True, n)
        t = torch.from_numpy(x.astype(np.complex64))
        compare(torch.fft.fft(t).to(torch.complex128), np.fft.fft(x), 2e-6)
        compare(torch.fft.fft(torch.from_numpy(x)), np.fft.fft(x))
        compare(torch.fft.ifft(torch.from_numpy(x[0])), np.fft.ifft(x[0]))


def test_frequencies_and_shifts():
    for n in [1, 2, 5, 8]:
        compare(torch.fft.fftfreq(n, 0.3, dtype=torch.float64), np.fft.fftfreq(n, 0.3))
        compare(torch.fft.rfftfreq(n, d=0.3, dtype=torch.float64), np.fft.rfftfreq(n, 0.3))
    assert torch.fft.fftfreq(4).dtype == torch.float32
    assert torch.fft.fftfreq(0).shape == (0,)
    assert torch.fft.fftfreq(4, requires_grad=True).requires_grad
    x = noise((4, 5), False)
    for dims in [None, 0, (1,), (0, 1)]:
        compare(torch.fft.fftshift(torch.from_numpy(x), dims), np.fft.fftshift(x, dims))
        compare(torch.fft.ifftshift(torch.from_numpy(x), dims), np.fft.ifftshift(x, dims))


def test_out():
    x = torch.from_numpy(noise((3, 4), False))
    out = torch.empty(0, dtype=torch.complex128)
    assert torch.fft.fft(x, out=out) is out and out.shape == (3, 4)
    compare(out, np.fft.fft(x.numpy()))
    strided = torch.zeros(4, 6, dtype=torch.float64)[:, ::2].t()
    torch.fft.irfft(x, 4, out=strided)
    compare(strided, np.fft.irfft(x.numpy(), 4))
    with pytest.raises(RuntimeError):
        torch.fft.fft(x, out=torch.empty(0, dtype=torch.float64))


@pytest.mark.parametrize("name", [*ONE, "fft2", "rfftn", "irfftn", "hfft2", "ihfftn", "ifftn"])
def test_gradients(name):
    f = getattr(torch.fft, name)

    def parts(y):
        return torch.view_as_real(resolved(y)) if y.is_complex() else y

    many = name[-1] in "2n"
    for options in [{}, {"s": (3, 7), "norm": "ortho"} if many else {"n": 7, "norm": "ortho"},
                    {"s": (4, 4), "norm": "forward"} if many else {"n": 4, "norm": "forward", "dim": 0}]:  # fmt: skip
        x = torch.from_numpy(noise((3, 5), False))
        check_gradients(lambda x, o=options: parts(f(x, **o)).square(), x)
        if not name.startswith(REAL_INPUT):
            x = torch.from_numpy(noise((3, 5, 2), False))
            check_gradients(lambda x, o=options: parts(f(torch.view_as_complex(x), **o)).square(), x)


def test_gradient_of_expanded_and_of_real_input():
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    y = torch.fft.fft(x.expand(2, 3))
    torch.view_as_real(y).square().sum().backward()
    # Parseval: the sum of squares of the spectrum is n times that of the signal.
    np.testing.assert_allclose(x.grad.numpy(), 2 * 2 * 3 * x.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda x: torch.fft.fft(x, n=0), RuntimeError, r"Invalid number of data points \(0\)"),
        (lambda x: torch.fft.fft(x, n=-2), RuntimeError, r"data points \(-2\)"),
        (lambda x: torch.fft.fft(x, dim=3), IndexError, "out of range"),
        (lambda x: torch.fft.fft(x[0, 0]), IndexError, "no dimensions"),
        (lambda x: torch.fft.fft(x, norm="foo"), RuntimeError, 'normalization mode: "foo"'),
        (lambda x: torch.fft.fftn(x, dim=(0, 0)), RuntimeError, "unique"),
        (lambda x: torch.fft.fftn(x, s=(2, 2, 2)), RuntimeError, "3 values but input tensor only has 2"),
        (lambda x: torch.fft.fftn(x, s=(2, 2), dim=(0,)), RuntimeError, "same length"),
        (lambda x: torch.fft.fftn(x, s=(0, 3)), RuntimeError, "data points"),
        (lambda x: torch.fft.rfft(x + 0j), RuntimeError, "rfft expects a real"),
        (lambda x: torch.fft.rfftn(x + 0j), RuntimeError, "rfftn expects a real"),
        (lambda x: torch.fft.irfft(x[:, :1]), RuntimeError, r"data points \(0\)"),
        (lambda x: torch.fft.rfftn(x, dim=()), RuntimeError, "at least one axis"),
        (lambda x: torch.fft.fft(x[:0, :0]), RuntimeError, "data points"),
        (lambda x: torch.fft.fft(x.half()), RuntimeError, "Unsupported dtype Half"),
        (lambda x: torch.fft.fft2(x[0]), IndexError, "out of range"),
        (lambda x: torch.fft.fft(x, n=2**62), RuntimeError, "fit|overflow"),
        (lambda x: torch.fft.fftfreq(-1), RuntimeError, "negative dimension"),
        (lambda x: torch.fft.fftfreq(4, dtype=torch.int64), RuntimeError, "floating point"),
        (lambda x: torch.fft.fftshift(x, 5), IndexError, "out of range"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call(torch.ones(4, 5))


@pytest.mark.pyrite  # an error of the library behind it in PyTorch
def test_nothing_to_transform():
    assert torch.fft.fft(torch.zeros(0, 4)).shape == (0, 4)
    assert torch.fft.rfft(torch.zeros(0, 4)).shape == (0, 3)
    assert torch.fft.fftn(torch.ones(2, 3), dim=()).dtype == torch.complex64


# --- stft -------------------------------------------------------------------------------------------------------------
def numpy_stft(x, n, hop, window, center, mode="reflect"):
    if center:
        x = np.pad(
            x,
            n // 2,
            mode={"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode],
        )
    left = (n - len(window)) // 2
    w = np.zeros(n)
    w[left : left + len(window)] = window
    frames = np.stack([x[t : t + n] * w for t in range(0, len(x) - n + 1, hop)])
    return np.fft.rfft(frames).T if not np.iscomplexobj(x) else np.fft.fft(frames).T


@pytest.mark.parametrize("n, hop, width", [(8, 2, 8), (8, 3, 5), (9, 4, 9), (16, 1, 12), (5, 7, 4)])
@pytest.mark.parametrize("center", [True, False])
def test_stft(n, hop, width, center):
    window = np.hanning(width + 2)[1:-1]
    for complex_ in [False, True]:
        x = noise((40,), complex_, 3)
        got = torch.stft(torch.from_numpy(x), n, hop, width, torch.from_numpy(window), center, return_complex=True)
        compare(got, numpy_stft(x, n, hop, window, center))
        batch = torch.from_numpy(np.stack([x, 2 * x]))
        both = batch.stft(n, hop, width, torch.from_numpy(window), center, normalized=True, return_complex=True)
        compare(both[1], 2 / math.sqrt(n) * numpy_stft(x, n, hop, window, center))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_stft_padding(mode):
    x = noise((30,), False)
    got = torch.stft(
        torch.from_numpy(x), 8, window=torch.ones(8, dtype=torch.float64), pad_mode=mode, return_complex=True
    )
    compare(got, numpy_stft(x, 8, 2, np.ones(8), True, mode))


@pytest.mark.filterwarnings("ignore:stft with return_complex")
def test_stft_forms():
    x = torch.from_numpy(noise((30,), False))
    w = torch.hann_window(8, dtype=torch.float64)
    full = torch.stft(x, 8, window=w, onesided=False, return_complex=True)
    half = torch.stft(x, 8, window=w, return_complex=True)
    assert full.shape == (8, 16) and half.shape == (5, 16)
    compare(full[:5], half.numpy())
    pairs = torch.stft(x, 8, window=w, return_complex=False)
    compare(torch.view_as_complex(pairs.contiguous()), half.numpy())
    with pytest.raises(RuntimeError, match="return_complex"):
        torch.stft(x, 8, window=w)


@pytest.mark.pyrite  # new in PyTorch 2.13
def test_stft_align_to_window():
    x = noise((30,), False)
    t, w = torch.from_numpy(x), torch.ones(4, dtype=torch.float64)
    got = torch.stft(t, 8, 2, 4, w, center=False, return_complex=True, align_to_window=True)
    compare(got, numpy_stft(np.pad(x, 2), 8, 2, np.ones(4), False))
    plain = torch.stft(t, 8, 2, 4, w, center=False, return_complex=True, align_to_window=False)
    compare(plain, numpy_stft(x, 8, 2, np.ones(4), False))
    with pytest.raises(RuntimeError, match="align_to_window"):
        torch.stft(t, 8, 2, 4, w, return_complex=True, align_to_window=True)


@pytest.mark.parametrize("n, hop, width", [(8, 2, 8), (8, 3, 6), (9, 4, 9), (16, 5, 12)])
def test_istft_inverts(n, hop, width):
    for complex_ in [False, True]:
        x = torch.from_numpy(noise((2, 61), complex_, 5))
        w = torch.hamming_window(width, dtype=torch.float64)
        for normalized in [False, True]:
            s = torch.stft(x, n, hop, width, w, normalized=normalized, return_complex=True)
            y = torch.istft(s, n, hop, width, w, normalized=normalized, length=61, return_complex=complex_)
            reached = min(61, n + hop * (s.shape[-1] - 1) - n // 2)
            compare(y[:, :reached], x[:, :reached].numpy())
            assert y.shape == (2, 61)
        one = torch.istft(s[0], n, hop, width, w, normalized=True, return_complex=complex_)
        compare(one, x[0, : one.shape[0]].numpy())


def test_stft_gradients():
    w = torch.hann_window(6, dtype=torch.float64)
    x = torch.from_numpy(noise((2, 20), False))
    check_gradients(lambda x: torch.stft(x, 8, 3, 6, w, return_complex=False).square(), x)
    check_gradients(lambda x, w: torch.stft(x, 8, 3, 6, w, return_complex=False), x, w + 0.1)
    s = torch.from_numpy(noise((5, 7, 2), False))
    w = torch.hamming_window(8, dtype=torch.float64)
    check_gradients(lambda s: torch.istft(torch.view_as_complex(s), 8, 3, window=w).square(), s)
    check_gradients(lambda s, w: torch.istft(torch.view_as_complex(s), 8, 3, window=w), s, w)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x, s: torch.stft(x, 8, hop_length=0, return_complex=True), "hop_length > 0"),
        (lambda x, s: torch.stft(x, 8, win_length=9, return_complex=True), "win_length"),
        (lambda x, s: torch.stft(x, 8, window=torch.ones(7), return_complex=True), "window"),
        (lambda x, s: torch.stft(x.long(), 8, return_complex=True), "floating point or complex"),
        (lambda x, s: torch.stft(x.reshape(1, 1, 30), 8, return_complex=True), "1D or 2D"),
        (lambda x, s: torch.stft(x, 64, return_complex=True), "Padding size"),
        (lambda x, s: torch.stft(x, 31, center=False, return_complex=True), "n_fft"),
        (lambda x, s: torch.stft(x, 8, pad_mode="foo", return_complex=True), "padding mode foo"),
        (lambda x, s: torch.stft(x + 0j, 8, onesided=True), "onesided"),
        (lambda x, s: torch.istft(s.real, 8), "complex"),
        (lambda x, s: torch.istft(s, 10), "frequency dimension"),
        (lambda x, s: torch.istft(s, 8, hop_length=9), "hop_length"),
        (lambda x, s: torch.istft(s[:, :0], 8), "empty"),
        (lambda x, s: torch.istft(s, 8, window=torch.zeros(8)), "overlap add min"),
        (lambda x, s: torch.istft(s, 8, window=torch.hann_window(8), center=False), "overlap add min"),
        (lambda x, s: torch.istft(s, 8, return_complex=True), "onesided"),
        (lambda x, s: torch.istft(s, 8, window=torch.ones(8) + 0j), "[Cc]omplex windows"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_stft_bad_input(call, words):
    x = torch.ones(30)
    s = torch.stft(x, 8, window=torch.hann_window(8), return_complex=True)
    with pytest.raises((RuntimeError, NotImplementedError), match=words):
        call(x, s)
