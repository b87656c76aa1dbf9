"""Window functions of ``M`` points: symmetric, or (``sym=False``) periodic for use with the Fourier transform.

All are computed in float64 and rounded once to ``dtype`` (float32 or float64).

>>> import pyrite as torch
>>> torch.signal.windows.hann(5)
tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
>>> torch.signal.windows.hann(4, sym=False)
tensor([0.0000, 0.5000, 1.0000, 0.5000])
"""

import math

from .. import _C

__all__ = [
    "bartlett",
    "blackman",
    "cosine",
    "exponential",
    "gaussian",
    "general_cosine",
    "general_hamming",
    "hamming",
    "hann",
    "kaiser",
    "nuttall",
]


def _points(name, M, sym, dtype, layout):
    """Checks what all windows share; 0, 1, ... M - 1 in float64, and how many points a symmetric window has."""
    if dtype is None:
        dtype = _C.get_default_dtype()
    if not isinstance(M, int):
        raise TypeError(f"{name}: the window length M must be an int, not {type(M).__name__}")
    if M < 0:
        raise ValueError(f"{name} requires non-negative window length, got M={M}")
    if layout is not None and layout != _C.strided:
        raise ValueError(f"{name} is implemented for strided tensors only, got: {layout}")
    if dtype not in (_C.float32, _C.float64):
        raise ValueError(f"{name} expects float32 or float64 dtypes, got: {dtype}")
    return _C.arange(M, dtype=_C.float64), M if sym or M <= 1 else M + 1, dtype


def _finish(w, dtype, device, requires_grad):
    w = w.to(dtype)
    if device is not None:
        w = w.to(device)
    return w.requires_grad_(requires_grad)


def _cosines(k, total, a):
    """The sum of ``(-1)**i a[i] cos(2 pi i k / (total - 1))``."""
    if total <= 1:
        return _C.ones(k.numel(), dtype=_C.float64)
    # The fraction of a turn is exact where it matters (0, 1/4, 1/2), so that the ends and the middle are.
    w = _C.full((k.numel(),), float(a[0]), dtype=_C.float64)
    for i, coefficient in enumerate(a[1:], 1):
        turn = (k * i).remainder(total - 1) * 2 / (total - 1)
        w = w + (-1) ** i * coefficient * _cos_pi(turn)
    return w


def _cos_pi(x):
    """``cos(pi x)`` for 0 <= x < 2, exact at multiples of 1/2."""
    x = _C.minimum(x, 2 - x)
    return ((0.5 - x) * math.pi).sin()


def general_cosine(
    M, *, a, sym=True, dtype=None, layout=None, device=None, requires_grad=False
):  # fmt: skip
    """A sum of cosines with the weights ``a`` and alternating signs.

    >>> import pyrite as torch
    >>> torch.signal.windows.general_cosine(5, a=[0.5, 0.5])
    tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
    """
    k, total, dtype = _points("general_cosine", M, sym, dtype, layout)
    if not isinstance(a, (list, tuple)):
        raise TypeError("Coefficients must be a list/tuple")
    if not a:
        raise ValueError("Coefficients cannot be empty")
    return _finish(_cosines(k, total, a), dtype, device, requires_grad)


def general_hamming(
    M, *, alpha=0.54, sym=True, dtype=None, layout=None, device=None, requires_grad=False
):  # fmt: skip
    """``alpha - (1 - alpha) cos(2 pi k / (M - 1))``.

    >>> import pyrite as torch
    >>> torch.signal.windows.general_hamming(3, alpha=0.6)
    tensor([0.2000, 1.0000, 0.2000])
    """
    k, total, dtype = _points("general_hamming", M, sym, dtype, layout)
    return _finish(_cosines(k, total, [alpha, 1.0 - alpha]), dtype, device, requires_grad)


def hamming(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):
    """``0.54 - 0.46 cos(2 pi k / (M - 1))``.

    >>> import pyrite as torch
    >>> torch.signal.windows.hamming(3)
    tensor([0.0800, 1.0000, 0.0800])
    """
    return general_hamming(
        M, sym=sym, dtype=dtype, layout=layout, device=device, requires_grad=requires_grad
    )  # fmt: skip


def hann(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):
    """``sin(pi k / (M - 1)) ** 2``.

    >>> import pyrite as torch
    >>> torch.signal.windows.hann(3)
    tensor([0., 1., 0.])
    """
    return general_hamming(
        M, alpha=0.5, sym=sym, dtype=dtype, layout=layout, device=device, requires_grad=requires_grad
    )  # fmt: skip


def blackman(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):
    """``0.42 - 0.5 cos(x) + 0.08 cos(2 x)`` with ``x = 2 pi k / (M - 1)``.

    >>> import pyrite as torch
    >>> torch.signal.windows.blackman(5)[1:4]
    tensor([0.3400, 1.0000, 0.3400])
    """
    k, total, dtype = _points("blackman", M, sym, dtype, layout)
    return _finish(_cosines(k, total, [0.42, 0.5, 0.08]), dtype, device, requires_grad)


def nuttall(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):
    """The minimum four-term Blackman-Harris window in Nuttall's form.

    >>> import pyrite as torch
    >>> torch.signal.windows.nuttall(5)[1:4]
    tensor([0.2270, 1.0000, 0.2270])
    """
    k, total, dtype = _points("nuttall", M, sym, dtype, layout)
    a = [0.3635819, 0.4891775, 0.1365995, 0.0106411]
    return _finish(_cosines(k, total, a), dtype, device, requires_grad)


def bartlett(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):
    """A triangle that is 0 at both ends.

    >>> import pyrite as torch
    >>> torch.signal.windows.bartlett(5)
    tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
    """
    k, total, dtype = _points("bartlett", M, sym, dtype, layout)
    w = 1 - (2 * k / (total - 1) - 1).abs() if total > 1 else k + 1
    return _finish(w, dtype, device, requires_grad)


def cosine(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):
    """``sin(pi (k + 1/2) / M)``.

    >>> import pyrite as torch
    >>> torch.signal.windows.cosine(3)
    tensor([0.5000, 1.0000, 0.5000])
    """
    k, total, dtype = _points("cosine", M, sym, dtype, layout)
    w = _cos_pi(((k + 0.5) / total - 0.5).abs()) if total > 1 else k + 1
    return _finish(w, dtype, device, requires_grad)


def exponential(
    M, *, center=None, tau=1.0, sym=True, dtype=None, layout=None, device=None, requires_grad=False
):  # fmt: skip
    """``exp(-|k - center| / tau)``; the centre of a symmetric window is its middle.

    >>> import pyrite as torch
    >>> torch.signal.windows.exponential(3)
    tensor([0.3679, 1.0000, 0.3679])
    """
    k, total, dtype = _points("exponential", M, sym, dtype, layout)
    if tau <= 0:
        raise ValueError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")
    if center is None:
        center = (total - 1) / 2
    return _finish((-(k - center).abs() / tau).exp(), dtype, device, requires_grad)


def gaussian(
    M, *, std=1.0, sym=True, dtype=None, layout=None, device=None, requires_grad=False
):  # fmt: skip
    """``exp(-(k - (M - 1) / 2) ** 2 / (2 std ** 2))``.

    >>> import pyrite as torch
    >>> torch.signal.windows.gaussian(3)
    tensor([0.6065, 1.0000, 0.6065])
    """
    k, total, dtype = _points("gaussian", M, sym, dtype, layout)
    if std <= 0:
        raise ValueError(f"Standard deviation must be positive, got: {std} instead.")
    x = (k - (total - 1) / 2) / (std * math.sqrt(2))
    return _finish((-(x * x)).exp(), dtype, device, requires_grad)


def kaiser(
    M, *, beta=12.0, sym=True, dtype=None, layout=None, device=None, requires_grad=False
):  # fmt: skip
    """``I0(beta sqrt(1 - x ** 2)) / I0(beta)`` with x from -1 to 1.

    >>> import pyrite as torch
    >>> torch.signal.windows.kaiser(3, beta=2.0)
    tensor([0.4387, 1.0000, 0.4387])
    """
    k, total, dtype = _points("kaiser", M, sym, dtype, layout)
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")
    return _finish(_kaiser(k, total, beta), dtype, device, requires_grad)


def _kaiser(k, total, beta):
    if total <= 1:
        return k + 1
    # 1 - x^2 as a product: exact at the ends.
    x = 2 * k / (total - 1)
    root = (x * (2 - x)).sqrt() * beta
    # The scaled function: I0 itself overflows where the quotient does not.
    i0e = _C._special.i0e
    return i0e(root) / i0e(_C.tensor(float(beta), dtype=_C.float64)) * (root - beta).exp()


def _classic(name, window_length, periodic, dtype, layout, device, requires_grad, values):
    """The windows of the main namespace, `pyrite.hann_window` and its kin: any float dtype, periodic by default."""
    if dtype is None:
        dtype = _C.get_default_dtype()
    if isinstance(window_length, bool) or not hasattr(window_length, "__index__"):
        raise TypeError(
            f"{name}(): argument 'window_length' (position 1) must be int, not {type(window_length).__name__}"
        )
    n = window_length.__index__()
    if layout is not None and layout != _C.strided:
        raise RuntimeError(f"{name} is not implemented for sparse types, got: layout={layout}")
    if not dtype.is_floating_point:
        raise RuntimeError(f"{name} expects floating point dtypes, got: dtype={dtype}")
    if n < 0:
        raise RuntimeError(f"{name} requires non-negative window_length, got window_length={n}")
    k = _C.arange(n, dtype=_C.float64)
    # Of one point both kinds are the same.
    total = n + 1 if periodic and n > 1 else n
    return _finish(values(k, total), dtype, device, requires_grad)


def hann_window(
    window_length, periodic=True, *, dtype=None, layout=None, device=None, pin_memory=False, requires_grad=False
):
    """The Hann window, ``sin(pi k / N) ** 2``; ``periodic`` leaves the last point out.

    >>> import pyrite as torch
    >>> torch.hann_window(4)
    tensor([0.0000, 0.5000, 1.0000, 0.5000])
    """
    _no_pin("hann_window", pin_memory)
    return _classic(
        "hann_window", window_length, periodic, dtype, layout, device, requires_grad,
        lambda k, n: _cosines(k, n, [0.5, 0.5]),
    )  # fmt: skip


def hamming_window(
    window_length,
    periodic=True,
    alpha=0.54,
    beta=0.46,
    *,
    dtype=None,
    layout=None,
    device=None,
    pin_memory=False,
    requires_grad=False,
):
    """The Hamming window, ``alpha - beta cos(2 pi k / N)``; ``periodic`` leaves the last point out.

    >>> import pyrite as torch
    >>> torch.hamming_window(4)
    tensor([0.0800, 0.5400, 1.0000, 0.5400])
    """
    _no_pin("hamming_window", pin_memory)
    return _classic(
        "hamming_window", window_length, periodic, dtype, layout, device, requires_grad,
        lambda k, n: _cosines(k, n, [alpha, beta]),
    )  # fmt: skip


def bartlett_window(
    window_length, periodic=True, *, dtype=None, layout=None, device=None, pin_memory=False, requires_grad=False
):
    """A triangle that is 0 at both ends; ``periodic`` leaves the last point out.

    >>> import pyrite as torch
    >>> torch.bartlett_window(4)
    tensor([0.0000, 0.5000, 1.0000, 0.5000])
    """
    _no_pin("bartlett_window", pin_memory)
    return _classic(
        "bartlett_window", window_length, periodic, dtype, layout, device, requires_grad,
        lambda k, n: 1 - (2 * k / (n - 1) - 1).abs() if n > 1 else k + 1,
    )  # fmt: skip


def blackman_window(
    window_length, periodic=True, *, dtype=None, layout=None, device=None, pin_memory=False, requires_grad=False
):
    """The Blackman window; ``periodic`` leaves the last point out.

    >>> import pyrite as torch
    >>> torch.blackman_window(4)[1:]
    tensor([0.3400, 1.0000, 0.3400])
    """
    _no_pin("blackman_window", pin_memory)
    return _classic(
        "blackman_window", window_length, periodic, dtype, layout, device, requires_grad,
        lambda k, n: _cosines(k, n, [0.42, 0.5, 0.08]),
    )  # fmt: skip


def kaiser_window(
    window_length,
    periodic=True,
    beta=12.0,
    *,
    dtype=None,
    layout=None,
    device=None,
    pin_memory=False,
    requires_grad=False,
):
    """The Kaiser window of shape ``beta``; ``periodic`` leaves the last point out.

    >>> import pyrite as torch
    >>> torch.kaiser_window(4, beta=2.0)
    tensor([0.4387, 0.8348, 1.0000, 0.8348])
    """
    _no_pin("kaiser_window", pin_memory)
    return _classic(
        "kaiser_window", window_length, periodic, dtype, layout, device, requires_grad,
        lambda k, n: _kaiser(k, n, beta),
    )  # fmt: skip


def _no_pin(name, pin_memory):
    if pin_memory:
        raise NotImplementedError(f"{name}(): pin_memory=True is not supported; call .pin_memory() on the result")
