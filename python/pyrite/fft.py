"""Fourier transforms: `fft`, `rfft`, `hfft`, their inverses and n-dimensional forms, and helpers.

>>> import pyrite as torch
>>> x = torch.tensor([1.0, 2.0, 0.0, -1.0])
>>> torch.fft.irfft(torch.fft.rfft(x), n=4)
tensor([ 1.,  2.,  0., -1.])
"""

from . import _C

_fft = _C._fft

__all__ = [
    "fft",
    "fft2",
    "fftfreq",
    "fftn",
    "fftshift",
    "hfft",
    "hfft2",
    "hfftn",
    "ifft",
    "ifft2",
    "ifftn",
    "ifftshift",
    "ihfft",
    "ihfft2",
    "ihfftn",
    "irfft",
    "irfft2",
    "irfftn",
    "rfft",
    "rfft2",
    "rfftfreq",
    "rfftn",
]

fft = _fft.fft
fft2 = _fft.fft2
fftn = _fft.fftn
ifft = _fft.ifft
ifft2 = _fft.ifft2
ifftn = _fft.ifftn
rfft = _fft.rfft
rfft2 = _fft.rfft2
rfftn = _fft.rfftn
irfft = _fft.irfft
irfft2 = _fft.irfft2
irfftn = _fft.irfftn
hfft = _fft.hfft
hfft2 = _fft.hfft2
hfftn = _fft.hfftn
ihfft = _fft.ihfft
ihfft2 = _fft.ihfft2
ihfftn = _fft.ihfftn
fftfreq = _fft.fftfreq
rfftfreq = _fft.rfftfreq
fftshift = _fft.fftshift
ifftshift = _fft.ifftshift
