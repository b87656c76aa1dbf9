"""Functions of neural networks, without state: activations, layers, losses.

Thin over `_C._nn`, where the fused kernels live; composites of tensor operations are in `_pooling.py`,
`_losses.py` and `_vision.py` and re-exported here, so that `pyrite.nn.functional` is the one namespace.
"""

from .. import _C
from ._attention import *  # noqa: F403
from ._losses import *  # noqa: F403
from ._losses import _check_reduction  # noqa: F401
from ._pooling import *  # noqa: F403
from ._resampling import *  # noqa: F403
from ._sequence_losses import *  # noqa: F403
from ._sparse import *  # noqa: F403
from ._vision import *  # noqa: F403

_nn = _C._nn
Tensor = _C.Tensor

# ---- layers -------------------------------------------------------------------------------------

linear = _nn.linear
conv1d = _nn.conv1d
conv2d = _nn.conv2d
conv3d = _nn.conv3d
conv_transpose1d = _nn.conv_transpose1d
conv_transpose2d = _nn.conv_transpose2d
conv_transpose3d = _nn.conv_transpose3d
scaled_dot_product_attention = _nn.scaled_dot_product_attention
one_hot = _nn.one_hot


def bilinear(input1, input2, weight, bias=None):
    """``x1^T W x2 + b`` for every output feature: (*, in1), (*, in2), weight (out, in1, in2) -> (*, out)."""
    out_features, in1, in2 = weight.shape
    if input1.shape[-1] != in1 or input2.shape[-1] != in2:
        raise RuntimeError(
            f"bilinear: inputs of shapes {tuple(input1.shape)} and {tuple(input2.shape)} don't fit a weight of shape "
            f"{tuple(weight.shape)} (out, in1, in2)"
        )
    # One matrix product for all output features: (*, in1) x (in1, out in2).
    left = input1.matmul(weight.transpose(0, 1).reshape(in1, out_features * in2))
    left = left.reshape((*input1.shape[:-1], out_features, in2))
    product = left * input2.unsqueeze(-2)
    out = product.sum(-1, dtype=product.dtype)
    return out if bias is None else out + bias


def pad(input, pad, mode="constant", value=None):
    """Pads the last ``len(pad) / 2`` dimensions; ``pad`` counts from the last one: (left, right, top, bottom, ...).

    Modes: 'constant' (with ``value``; negative amounts crop), 'reflect', 'replicate', 'circular'.
    """
    if len(pad) % 2:
        raise RuntimeError(f"pad: the padding length must be divisible by 2, but got {len(pad)}: {tuple(pad)}")
    if mode == "constant":
        return _nn.pad(input, tuple(pad), "constant", 0.0 if value is None else value)
    if value is not None and value != 0:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    n = len(pad) // 2
    if input.dim() not in (n + 1, n + 2):
        raise NotImplementedError(
            f"pad: mode '{mode}' with {len(pad)} values pads {n + 1}-d or {n + 2}-d inputs, but got "
            f"{input.dim()}-d input of shape {tuple(input.shape)}"
        )
    if mode == "circular" and min(pad) < 0:
        # Negative amounts crop first: what is left goes round.
        crop = [min(p, 0) for p in pad]
        input, pad = _nn.pad(input, tuple(crop), "constant", 0.0), [max(p, 0) for p in pad]
    for i in range(n):
        left, right = pad[2 * i], pad[2 * i + 1]
        if left or right:
            input = input.index_select(-1 - i, _pad_indices(input.shape[-1 - i], left, right, mode, input.device))
    return input


def _pad_indices(size, left, right, mode, device):
    limit = size - 1 if mode == "reflect" else size if mode == "circular" else None
    if limit is not None and (left > limit or right > limit):
        raise RuntimeError(
            f"pad: mode '{mode}' pads a dimension of size {size} by at most {limit}, but got ({left}, {right})"
        )
    positions = range(-left, size + right)
    if mode == "reflect":
        index = [-p if p < 0 else 2 * (size - 1) - p if p >= size else p for p in positions]
    elif mode == "replicate":
        index = [min(max(p, 0), size - 1) for p in positions]
    else:
        index = [p % size for p in positions]
    return _C.tensor(index, dtype=_C.int64, device=device)


# ---- activations --------------------------------------------------------------------------------


def _in_place(input, op, *args):
    # The graph saves the clone, so overwriting the input can't make it stale.
    return input.copy_(op(input.clone(), *args))


def relu(input, inplace=False):
    """max(x, 0), elementwise."""
    return input.relu_() if inplace else _nn.relu(input)


def relu_(input):
    """In-place :func:`relu`."""
    return input.relu_()


def _activation(name, doc, *params):
    """Builds ``f(input, <params>, inplace=False)`` and ``f_`` around the core's kernel."""
    # PyTorch has some activations at its top level only (selu, celu, threshold, ...).
    home = _nn if hasattr(_nn, name) else _C
    op, op_ = getattr(home, name), getattr(home, name + "_", None)
    if op_ is None:

        def op_(input, *args):
            return _in_place(input, op, *args)

    signature = "".join(f", {p}" if d is None else f", {p}={d!r}" for p, d in params)
    passed = "".join(f", {p}" for p, _ in params)
    scope = {"_op": op, "_op_": op_}
    exec(
        f"def {name}(input{signature}, inplace=False):\n"
        f"    return _op_(input{passed}) if inplace else _op(input{passed})\n"
        f"def {name}_(input{signature}):\n"
        f"    return _op_(input{passed})\n",
        scope,
    )
    scope[name].__doc__ = doc
    scope[name + "_"].__doc__ = f"In-place :func:`{name}`."
    for f in (scope[name], scope[name + "_"]):
        f.__module__ = __name__
    return scope[name], scope[name + "_"]


elu, elu_ = _activation("elu", "x for x > 0, else alpha * (exp(x) - 1).", ("alpha", 1.0))
selu, selu_ = _activation("selu", "Self-normalising ELU (Klambauer et al. 2017).")
celu, celu_ = _activation("celu", "max(0, x) + min(0, alpha * (exp(x / alpha) - 1)).", ("alpha", 1.0))
leaky_relu, leaky_relu_ = _activation("leaky_relu", "x for x > 0, else negative_slope * x.", ("negative_slope", 0.01))
_hardtanh, _hardtanh_ = _activation("hardtanh", "", ("min_val", -1.0), ("max_val", 1.0))


def _check_limits(min_val, max_val):
    if min_val > max_val:
        raise ValueError(f"min_val cannot be greater than max_val, but got {min_val} > {max_val}")


def hardtanh(input, min_val=-1.0, max_val=1.0, inplace=False):
    """x limited to [min_val, max_val]."""
    _check_limits(min_val, max_val)
    return _hardtanh(input, min_val, max_val, inplace)


def hardtanh_(input, min_val=-1.0, max_val=1.0):
    """In-place :func:`hardtanh`."""
    _check_limits(min_val, max_val)
    return _hardtanh_(input, min_val, max_val)


relu6, relu6_ = _activation("relu6", "x limited to [0, 6].")
silu, silu_ = _activation("silu", "x * sigmoid(x).")
mish, mish_ = _activation("mish", "x * tanh(softplus(x)) (Misra 2019).")
hardsigmoid, hardsigmoid_ = _activation("hardsigmoid", "relu6(x + 3) / 6.")
threshold, threshold_ = _activation(
    "threshold", "x where x > threshold, else ``value``.", ("threshold", None), ("value", None)
)
hardswish, hardswish_ = _activation("hardswish", "x * relu6(x + 3) / 6 (Howard et al. 2019).")

gelu = _nn.gelu
softplus = _nn.softplus
softsign = _nn.softsign
logsigmoid = _nn.logsigmoid
tanhshrink = _nn.tanhshrink
hardshrink = _C.hardshrink


def softshrink(input, lambd=0.5, *, out=None):
    """x moved towards zero by ``lambd``, zero where |x| <= ``lambd``."""
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return _nn.softshrink(input, lambd) if out is None else _nn.softshrink(input, lambd, out=out)


def sigmoid(input):
    """1 / (1 + exp(-x))."""
    return input.sigmoid()


def tanh(input):
    """Hyperbolic tangent."""
    return input.tanh()


prelu = _C.prelu


def rrelu(input, lower=1.0 / 8, upper=1.0 / 3, training=False, inplace=False):
    """Leaky ReLU whose slope is uniform in [lower, upper] in training, their mean otherwise (Xu et al. 2015)."""
    if lower > upper:
        raise RuntimeError(f"rrelu: Lower bound should be less than or equal to the upper bound, got {lower} > {upper}")
    if training:

        def op(x):
            slope = _C.empty_like(x, requires_grad=False).uniform_(lower, upper)
            return _C.where(x > 0, x, slope * x)

        return _in_place(input, op) if inplace else op(input)
    return leaky_relu(input, (lower + upper) / 2, inplace)


def rrelu_(input, lower=1.0 / 8, upper=1.0 / 3, training=False):
    """In-place :func:`rrelu`."""
    return rrelu(input, lower, upper, training, True)


glu = _nn.glu


def _softmax_dim(name, dim, ndim):
    if dim is None:
        import warnings

        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
            stacklevel=4,
        )
        return 0 if ndim in (0, 1, 3) else 1
    return dim


def softmax(input, dim=None, _stacklevel=3, dtype=None):
    """exp(x) normalised to sum 1 along ``dim``."""
    return _nn.softmax(input, _softmax_dim("softmax", dim, input.dim()), dtype=dtype)


def log_softmax(input, dim=None, _stacklevel=3, dtype=None):
    """log(softmax(x)), computed without overflow."""
    return _nn.log_softmax(input, _softmax_dim("log_softmax", dim, input.dim()), dtype=dtype)


def softmin(input, dim=None, _stacklevel=3, dtype=None):
    """softmax(-x)."""
    return _nn.softmax(-input, _softmax_dim("softmin", dim, input.dim()), dtype=dtype)


def gumbel_softmax(logits, tau=1.0, hard=False, eps=1e-10, dim=-1):
    """A sample of the Gumbel-softmax distribution (Jang et al. 2016); one-hot with ``hard``."""
    noise = -_C.empty_like(logits, requires_grad=False).exponential_().log()
    soft = _nn.softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    index = soft.max(dim, keepdim=True)[1]
    one = _C.zeros_like(logits, requires_grad=False).scatter_(dim, index, 1.0)
    return one - soft.detach() + soft


# ---- normalisation ------------------------------------------------------------------------------


def batch_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
):  # fmt: skip
    """Normalises every channel (dimension 1) over the batch (Ioffe and Szegedy 2015).

    In training the running statistics are updated in place.
    """
    if training:
        size = input.shape
        count = 1
        for i, n in enumerate(size):
            if i != 1:
                count *= n
        if count == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {size}")
    return _nn.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):  # fmt: skip
    """Normalises every channel of every sample (Ulyanov et al. 2016)."""
    shape = tuple(input.shape)
    if len(shape) < 3:
        raise ValueError(f"instance_norm: expected input (N, C, *), but got shape {shape}")
    if use_input_stats:
        spatial = 1
        for n in shape[2:]:
            spatial *= n
        if spatial == 1:
            raise ValueError(f"Expected more than 1 spatial element when training, got input size {input.shape}")
    return _nn.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Normalises over the last dimensions, of sizes ``normalized_shape`` (Ba et al. 2016)."""
    return _nn.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    """Normalises over groups of channels (Wu and He 2018)."""
    return _nn.group_norm(input, num_groups, weight, bias, eps)


def rms_norm(input, normalized_shape, weight=None, eps=None):
    """Divides by the root mean square over the last dimensions (Zhang and Sennrich 2019)."""
    return _nn.rms_norm(input, normalized_shape, weight, eps)


def local_response_norm(input, size, alpha=1e-4, beta=0.75, k=1.0):
    """x / (k + alpha * mean of squares over ``size`` neighbouring channels) ^ beta (Krizhevsky et al. 2012)."""
    if input.dim() < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {input.dim()} dimensions)")
    if input.numel() == 0:
        return input
    square = input * input
    channels = square.shape[1]
    before, after = size // 2, (size - 1) // 2
    total = None
    for shift in range(-before, after + 1):
        lo, hi = max(0, shift), min(channels, channels + shift)
        if lo >= hi:
            continue
        part = square.narrow(1, lo, hi - lo)
        spec = [0, 0] * (square.dim() - 2) + [max(0, -shift), max(0, shift)]
        part = _nn.pad(part, tuple(spec), "constant", 0.0)
        total = part if total is None else total + part
    return input / (total * (alpha / size) + k).pow(beta)


def normalize(input, p=2.0, dim=1, eps=1e-12, out=None):
    """x / max(norm(x, p) along ``dim``, eps)."""
    denom = input.norm(p, dim, keepdim=True).clamp_min(eps).expand_as(input)
    return input / denom if out is None else _C.div(input, denom, out=out)


# ---- dropout ------------------------------------------------------------------------------------


def _check_p(p):
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def dropout(input, p=0.5, training=True, inplace=False):
    """Zeroes elements with probability ``p`` and scales the rest by 1 / (1 - p), in training (Hinton et al. 2012)."""
    _check_p(p)
    if not training or p == 0.0:
        return input
    if inplace:
        return _in_place(input, _nn.dropout, p, True)
    return _nn.dropout(input, p, True)


def _feature_dropout(input, p, training, inplace, channel_dims):
    _check_p(p)
    if not training or p == 0.0:
        return input
    shape = tuple(input.shape[:channel_dims]) + (1,) * (input.dim() - channel_dims)
    if p == 1.0:
        mask = _C.zeros(shape, dtype=input.dtype, device=input.device)
    else:
        mask = _C.empty(shape, dtype=input.dtype, device=input.device).bernoulli_(1.0 - p).div_(1.0 - p)
    return input.mul_(mask) if inplace else input * mask


def _dropoutnd(n):
    def dropoutnd(input, p=0.5, training=True, inplace=False):
        if input.dim() not in (n + 1, n + 2):
            raise RuntimeError(
                f"dropout{n}d: Expected {n + 1}D or {n + 2}D input, but received a {input.dim()}D input of shape "
                f"{tuple(input.shape)}"
            )
        return _feature_dropout(input, p, training, inplace, 2 if input.dim() == n + 2 else 1)

    dropoutnd.__name__ = dropoutnd.__qualname__ = f"dropout{n}d"
    dropoutnd.__doc__ = f"Zeroes whole channels of a (N, C, ...) or (C, ...) input with {n} spatial dimensions."
    return dropoutnd


dropout1d, dropout2d, dropout3d = _dropoutnd(1), _dropoutnd(2), _dropoutnd(3)

_ALPHA = -1.7580993408473766  # -scale * alpha of SELU: the value that dropped units take


def _alpha_dropout(input, p, training, inplace, shape):
    _check_p(p)
    if not training or p == 0.0:
        return input
    if p == 1.0:
        return input.mul_(0) if inplace else input * 0
    keep = _C.empty(shape, dtype=input.dtype, device=input.device).bernoulli_(1.0 - p)
    a = (1.0 - p + p * (1.0 - p) * _ALPHA**2) ** -0.5
    shift = (1.0 - keep) * (_ALPHA * a) - a * _ALPHA * p
    scale = keep * a
    return input.mul_(scale).add_(shift) if inplace else input * scale + shift


def alpha_dropout(input, p=0.5, training=False, inplace=False):
    """Dropout that keeps mean and variance of SELU activations (Klambauer et al. 2017)."""
    return _alpha_dropout(input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(input, p=0.5, training=False, inplace=False):
    """:func:`alpha_dropout` of whole channels."""
    shape = tuple(input.shape[:2]) + (1,) * (input.dim() - 2)
    return _alpha_dropout(input, p, training, inplace, shape)
