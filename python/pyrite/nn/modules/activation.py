"""Activation layers. Each calls the function of the same name in `pyrite.nn.functional`, elementwise."""

from ... import _C
from .. import functional as F
from .. import init
from ..parameter import Parameter
from .module import Module

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


class _InPlace(Module):
    """An activation whose only option is ``inplace``."""

    def __init__(self, inplace=False):
        super().__init__()
        self.inplace = inplace

    def extra_repr(self):
        return "inplace=True" if self.inplace else ""


class ReLU(_InPlace):
    """max(x, 0).

    >>> import pyrite as torch
    >>> torch.nn.ReLU()(torch.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def forward(self, input):
        return F.relu(input, self.inplace)


class SELU(_InPlace):
    """Self-normalising exponential unit (Klambauer et al. 2017).

    >>> import pyrite as torch
    >>> torch.nn.SELU()(torch.zeros(1)).tolist()
    [0.0]
    """

    def forward(self, input):
        return F.selu(input, self.inplace)


class SiLU(_InPlace):
    """x * sigmoid(x) (Hendrycks and Gimpel 2016; Ramachandran et al. 2017 as Swish).

    >>> import pyrite as torch
    >>> torch.nn.SiLU()(torch.zeros(1)).tolist()
    [0.0]
    """

    def forward(self, input):
        return F.silu(input, self.inplace)


class Mish(_InPlace):
    """x * tanh(softplus(x)) (Misra 2019).

    >>> import pyrite as torch
    >>> torch.nn.Mish()(torch.zeros(1)).tolist()
    [0.0]
    """

    def forward(self, input):
        return F.mish(input, self.inplace)


class Hardsigmoid(_InPlace):
    """relu6(x + 3) / 6.

    >>> import pyrite as torch
    >>> torch.nn.Hardsigmoid()(torch.tensor([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """

    def forward(self, input):
        return F.hardsigmoid(input, self.inplace)

    def extra_repr(self):
        return ""


class Hardswish(_InPlace):
    """x * relu6(x + 3) / 6 (Howard et al. 2019).

    >>> import pyrite as torch
    >>> torch.nn.Hardswish()(torch.tensor([-4.0, 4.0])).abs().tolist()
    [0.0, 4.0]
    """

    def forward(self, input):
        return F.hardswish(input, self.inplace)

    def extra_repr(self):
        return ""


class Sigmoid(Module):
    """1 / (1 + exp(-x)).

    >>> import pyrite as torch
    >>> torch.nn.Sigmoid()(torch.zeros(1)).tolist()
    [0.5]
    """

    def forward(self, input):
        return input.sigmoid()


class Tanh(Module):
    """Hyperbolic tangent.

    >>> import pyrite as torch
    >>> torch.nn.Tanh()(torch.zeros(1)).tolist()
    [0.0]
    """

    def forward(self, input):
        return input.tanh()


class LogSigmoid(Module):
    """log(sigmoid(x)), without overflow.

    >>> import pyrite as torch
    >>> round(float(torch.nn.LogSigmoid()(torch.zeros(1))), 4)
    -0.6931
    """

    def forward(self, input):
        return F.logsigmoid(input)


class Softsign(Module):
    """x / (1 + |x|).

    >>> import pyrite as torch
    >>> torch.nn.Softsign()(torch.ones(1)).tolist()
    [0.5]
    """

    def forward(self, input):
        return F.softsign(input)


class Tanhshrink(Module):
    """x - tanh(x).

    >>> import pyrite as torch
    >>> torch.nn.Tanhshrink()(torch.zeros(1)).tolist()
    [0.0]
    """

    def forward(self, input):
        return F.tanhshrink(input)


class ELU(Module):
    """x for x > 0, else alpha (exp(x) - 1) (Clevert et al. 2015).

    >>> import pyrite as torch
    >>> torch.nn.ELU()(torch.ones(1)).tolist()
    [1.0]
    """

    def __init__(self, alpha=1.0, inplace=False):
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input):
        return F.elu(input, self.alpha, self.inplace)

    def extra_repr(self):
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class CELU(ELU):
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)) (Barron 2017).

    >>> import pyrite as torch
    >>> torch.nn.CELU()(torch.ones(1)).tolist()
    [1.0]
    """

    def forward(self, input):
        return F.celu(input, self.alpha, self.inplace)


class GELU(Module):
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016); ``approximate`` 'none' or 'tanh'.

    >>> import pyrite as torch
    >>> torch.nn.GELU()(torch.zeros(1)).tolist()
    [0.0]
    """

    def __init__(self, approximate="none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, input):
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self):
        return f"approximate={self.approximate!r}"


class LeakyReLU(Module):
    """x for x > 0, else negative_slope * x.

    >>> import pyrite as torch
    >>> torch.nn.LeakyReLU(0.5)(torch.tensor([-2.0, 2.0])).tolist()
    [-1.0, 2.0]
    """

    def __init__(self, negative_slope=0.01, inplace=False):
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input):
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self):
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class Hardtanh(Module):
    """x limited to [min_val, max_val].

    >>> import pyrite as torch
    >>> torch.nn.Hardtanh()(torch.tensor([-2.0, 0.5])).tolist()
    [-1.0, 0.5]
    """

    def __init__(self, min_val=-1.0, max_val=1.0, inplace=False):
        super().__init__()
        if not max_val > min_val:
            raise AssertionError(f"max_val must be larger than min_val, but got {max_val} <= {min_val}")
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input):
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self):
        return f"min_val={self.min_val}, max_val={self.max_val}" + (", inplace=True" if self.inplace else "")


class ReLU6(Hardtanh):
    """x limited to [0, 6].

    >>> import pyrite as torch
    >>> torch.nn.ReLU6()(torch.tensor([-1.0, 9.0])).tolist()
    [0.0, 6.0]
    """

    def __init__(self, inplace=False):
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self):
        return "inplace=True" if self.inplace else ""


class Threshold(Module):
    """x where x > threshold, else ``value``.

    >>> import pyrite as torch
    >>> torch.nn.Threshold(1.0, 9.0)(torch.tensor([0.0, 2.0])).tolist()
    [9.0, 2.0]
    """

    def __init__(self, threshold, value, inplace=False):
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def forward(self, input):
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self):
        return f"threshold={self.threshold}, value={self.value}" + (", inplace=True" if self.inplace else "")


class Softplus(Module):
    """log(1 + exp(beta x)) / beta; linear where beta x > threshold.

    >>> import pyrite as torch
    >>> round(float(torch.nn.Softplus()(torch.zeros(1))), 4)
    0.6931
    """

    def __init__(self, beta=1.0, threshold=20.0):
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input):
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self):
        return f"beta={self.beta}, threshold={self.threshold}"


class _Shrink(Module):
    def __init__(self, lambd=0.5):
        super().__init__()
        self.lambd = lambd

    def extra_repr(self):
        return str(self.lambd)


class Hardshrink(_Shrink):
    """x where |x| > lambd, else 0.

    >>> import pyrite as torch
    >>> torch.nn.Hardshrink()(torch.tensor([0.2, 1.0])).tolist()
    [0.0, 1.0]
    """

    def forward(self, input):
        return F.hardshrink(input, self.lambd)


class Softshrink(_Shrink):
    """x moved towards 0 by lambd.

    >>> import pyrite as torch
    >>> torch.nn.Softshrink()(torch.tensor([0.2, 1.0])).tolist()
    [0.0, 0.5]
    """

    def forward(self, input):
        return F.softshrink(input, self.lambd)


class RReLU(Module):
    """Leaky ReLU with a random slope in training (Xu et al. 2015).

    >>> import pyrite as torch
    >>> torch.nn.RReLU()(torch.ones(1)).tolist()
    [1.0]
    """

    def __init__(self, lower=1.0 / 8, upper=1.0 / 3, inplace=False):
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input):
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self):
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class PReLU(Module):
    """Leaky ReLU with learned slopes: one, or one per channel (He et al. 2015).

    >>> import pyrite as torch
    >>> torch.nn.PReLU()(torch.tensor([-4.0])).tolist()
    [-1.0]
    """

    def __init__(self, num_parameters=1, init=0.25, device=None, dtype=None):
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(_C.empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self):
        """Fills with the first slope."""
        init.constant_(self.weight, self.init)

    def forward(self, input):
        return F.prelu(input, self.weight)

    def extra_repr(self):
        return f"num_parameters={self.num_parameters}"


class GLU(Module):
    """First half times sigmoid of the second half along ``dim`` (Dauphin et al. 2016).

    >>> import pyrite as torch
    >>> torch.nn.GLU()(torch.tensor([2.0, 0.0])).tolist()
    [1.0]
    """

    def __init__(self, dim=-1):
        super().__init__()
        self.dim = dim

    def forward(self, input):
        return F.glu(input, self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"


class _Softmax(Module):
    def __init__(self, dim=None):
        super().__init__()
        self.dim = dim

    def __setstate__(self, state):
        super().__setstate__(state)
        self.__dict__.setdefault("dim", None)

    def extra_repr(self):
        return f"dim={self.dim}"


class Softmax(_Softmax):
    """exp(x) normalised to sum 1 along ``dim``.

    >>> import pyrite as torch
    >>> torch.nn.Softmax(0)(torch.zeros(2)).tolist()
    [0.5, 0.5]
    """

    def forward(self, input):
        return F.softmax(input, self.dim)


class Softmin(_Softmax):
    """softmax(-x).

    >>> import pyrite as torch
    >>> torch.nn.Softmin(0)(torch.zeros(2)).tolist()
    [0.5, 0.5]
    """

    def forward(self, input):
        return F.softmin(input, self.dim)


class LogSoftmax(_Softmax):
    """log(softmax(x)), without overflow.

    >>> import pyrite as torch
    >>> torch.nn.LogSoftmax(1)(torch.zeros(1, 1)).abs().tolist()
    [[0.0]]
    """

    def forward(self, input):
        return F.log_softmax(input, self.dim)


class Softmax2d(Module):
    """Softmax over the channels of (N, C, H, W) or (C, H, W).

    >>> import pyrite as torch
    >>> float(torch.nn.Softmax2d()(torch.zeros(1, 2, 1, 1))[0, 0, 0, 0])
    0.5
    """

    def forward(self, input):
        if input.dim() not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.dim()}D instead")
        return F.softmax(input, -3)
