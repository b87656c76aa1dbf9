"""Special functions, by the names of `torch.special`; `docs/ulp.md` says how accurate they are.

>>> import pyrite as torch
>>> torch.special.zeta(torch.tensor(2.0), 1)
tensor(1.6449)
"""

from . import _C

_special = _C._special

airy_ai = _special.airy_ai
bessel_j0 = _special.bessel_j0
bessel_j1 = _special.bessel_j1
bessel_y0 = _special.bessel_y0
bessel_y1 = _special.bessel_y1
chebyshev_polynomial_t = _special.chebyshev_polynomial_t
chebyshev_polynomial_u = _special.chebyshev_polynomial_u
chebyshev_polynomial_v = _special.chebyshev_polynomial_v
chebyshev_polynomial_w = _special.chebyshev_polynomial_w
digamma = _C.digamma
entr = _special.entr
erf = _C.erf
erfc = _C.erfc
erfcx = _special.erfcx
erfinv = _C.erfinv
exp2 = _C.exp2
expit = _C.sigmoid
expm1 = _C.expm1
gammainc = _C.igamma
gammaincc = _C.igammac
gammaln = _C.lgamma
hermite_polynomial_h = _special.hermite_polynomial_h
hermite_polynomial_he = _special.hermite_polynomial_he
i0 = _C.i0
i0e = _special.i0e
i1 = _special.i1
i1e = _special.i1e
laguerre_polynomial_l = _special.laguerre_polynomial_l
legendre_polynomial_p = _special.legendre_polynomial_p
log1p = _C.log1p
log_ndtr = _special.log_ndtr
log_softmax = _C.log_softmax
logit = _C.logit
logsumexp = _C.logsumexp
modified_bessel_i0 = _special.modified_bessel_i0
modified_bessel_i1 = _special.modified_bessel_i1
modified_bessel_k0 = _special.modified_bessel_k0
modified_bessel_k1 = _special.modified_bessel_k1
multigammaln = _C.mvlgamma
ndtr = _special.ndtr
ndtri = _special.ndtri
polygamma = _C.polygamma
psi = _C.digamma
round = _C.round
scaled_modified_bessel_k0 = _special.scaled_modified_bessel_k0
scaled_modified_bessel_k1 = _special.scaled_modified_bessel_k1
shifted_chebyshev_polynomial_t = _special.shifted_chebyshev_polynomial_t
shifted_chebyshev_polynomial_u = _special.shifted_chebyshev_polynomial_u
shifted_chebyshev_polynomial_v = _special.shifted_chebyshev_polynomial_v
shifted_chebyshev_polynomial_w = _special.shifted_chebyshev_polynomial_w
sinc = _C.sinc
softmax = _C.softmax
spherical_bessel_j0 = _special.spherical_bessel_j0
xlog1py = _special.xlog1py
xlogy = _C.xlogy
zeta = _special.zeta
