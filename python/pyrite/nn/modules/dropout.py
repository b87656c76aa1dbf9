"""Dropout layers: they act in training mode only."""

from .. import functional as F
from .module import Module

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class _DropoutNd(Module):
    _function = None

    def __init__(self, p=0.5, inplace=False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input):
        return self._function(input, self.p, self.training, self.inplace)

    def extra_repr(self):
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_DropoutNd):
    """Zeroes elements with probability ``p``, scales the rest by 1 / (1 - p) (Hinton et al. 2012).

    >>> import pyrite as torch
    >>> torch.nn.Dropout(0.5).eval()(torch.ones(2)).tolist()
    [1.0, 1.0]
    """

    _function = staticmethod(F.dropout)


class Dropout1d(_DropoutNd):
    """Zeroes whole channels of (N, C, L) or (C, L).

    >>> import pyrite as torch
    >>> torch.nn.Dropout1d()(torch.ones(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """

    _function = staticmethod(F.dropout1d)


class Dropout2d(_DropoutNd):
    """Zeroes whole channels of (N, C, H, W) or (C, H, W) (Tompson et al. 2014).

    >>> import pyrite as torch
    >>> torch.nn.Dropout2d()(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    _function = staticmethod(F.dropout2d)


class Dropout3d(_DropoutNd):
    """Zeroes whole channels of (N, C, D, H, W) or (C, D, H, W).

    >>> import pyrite as torch
    >>> torch.nn.Dropout3d()(torch.ones(2, 3, 2, 4, 4)).shape
    torch.Size([2, 3, 2, 4, 4])
    """

    _function = staticmethod(F.dropout3d)


class AlphaDropout(_DropoutNd):
    """Dropout that keeps mean and variance after SELU (Klambauer et al. 2017).

    >>> import pyrite as torch
    >>> torch.nn.AlphaDropout(0.1)(torch.ones(4)).shape
    torch.Size([4])
    """

    _function = staticmethod(F.alpha_dropout)


class FeatureAlphaDropout(_DropoutNd):
    """:class:`AlphaDropout` of whole channels.

    >>> import pyrite as torch
    >>> torch.nn.FeatureAlphaDropout(0.1)(torch.ones(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """

    _function = staticmethod(F.feature_alpha_dropout)
