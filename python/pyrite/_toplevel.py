"""Functions of `nn.functional` and others with the signatures that PyTorch gives them at top level, loaded on first use.

Losses take ``reduction`` as a number here (0 none, 1 mean, 2 sum);
the word is taken, too.
"""

from . import Tensor, empty_like
from .nn import functional as F

_MEAN = 1


def _word(reduction):
    if isinstance(reduction, str):
        return reduction
    words = {0: "none", 1: "mean", 2: "sum"}
    if reduction not in words:
        raise ValueError(f"{reduction} is not a valid value for reduction: 0 (none), 1 (mean) or 2 (sum)")
    return words[reduction]


def vander(x, N=None, increasing=False):
    """The Vandermonde matrix of a vector: powers ``N - 1 .. 0`` of its elements as columns, or ``0 .. N - 1``.

    >>> import pyrite as torch
    >>> torch.vander(torch.tensor([1, 2, 3]))
    tensor([[1, 1, 1],
            [4, 2, 1],
            [9, 3, 1]])
    """
    from . import linalg

    if x.dim() != 1:
        raise RuntimeError(f"x must be a one-dimensional tensor (got {x.dim()} dimensions)")
    n = x.numel() if N is None else N
    if n < 0:
        raise RuntimeError(f"N must be non-negative (got {n})")
    if n < 2 or x.numel() == 0:
        return x.new_ones((x.numel(), n))
    powers = linalg.vander(x, N=n)
    return powers if increasing else powers.flip(-1)


def rrelu(input, lower=1 / 8, upper=1 / 3, training=False, generator=None):
    """:func:`pyrite.nn.functional.rrelu` with a generator."""
    return _rrelu(input, lower, upper, training, generator)


def rrelu_(input, lower=1 / 8, upper=1 / 3, training=False, generator=None):
    """In-place :func:`rrelu`."""
    return input.copy_(_rrelu(input, lower, upper, training, generator))


def _rrelu(input, lower, upper, training, generator):
    if generator is None or not training:
        return F.rrelu(input, lower, upper, training)
    if lower > upper:
        raise RuntimeError(f"Lower bound should be less than or equal to the upper bound (got {lower} and {upper})")
    slope = empty_like(input).uniform_(lower, upper, generator=generator)
    return input.where(input > 0, input * slope)


def alpha_dropout(input, p, train):
    """:func:`pyrite.nn.functional.alpha_dropout`."""
    return F.alpha_dropout(input, p, train)


def alpha_dropout_(input, p, train):
    """In-place :func:`alpha_dropout`."""
    return F.alpha_dropout(input, p, train, True)


def feature_alpha_dropout(input, p, train):
    """:func:`pyrite.nn.functional.feature_alpha_dropout`."""
    return F.feature_alpha_dropout(input, p, train)


def feature_alpha_dropout_(input, p, train):
    """In-place :func:`feature_alpha_dropout`."""
    return F.feature_alpha_dropout(input, p, train, True)


def adaptive_max_pool1d(input, output_size):
    """The maxima and their positions: :func:`pyrite.nn.functional.adaptive_max_pool1d` with ``return_indices``."""
    return F.adaptive_max_pool1d(input, output_size, True)


def instance_norm(
    input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, cudnn_enabled=False
):  # fmt: skip
    """:func:`pyrite.nn.functional.instance_norm`; ``cudnn_enabled`` chooses nothing here, results are the same."""
    return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def binary_cross_entropy_with_logits(input, target, weight=None, pos_weight=None, reduction=_MEAN):
    """:func:`pyrite.nn.functional.binary_cross_entropy_with_logits`."""
    return F.binary_cross_entropy_with_logits(input, target, weight, reduction=_word(reduction), pos_weight=pos_weight)


def cosine_embedding_loss(input1, input2, target, margin=0.0, reduction=_MEAN):
    """:func:`pyrite.nn.functional.cosine_embedding_loss`."""
    return F.cosine_embedding_loss(input1, input2, target, margin, reduction=_word(reduction))


def ctc_loss(log_probs, targets, input_lengths, target_lengths, blank=0, reduction=_MEAN, zero_infinity=False):
    """:func:`pyrite.nn.functional.ctc_loss`."""
    return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, _word(reduction), zero_infinity)


def hinge_embedding_loss(input, target, margin=1.0, reduction=_MEAN):
    """:func:`pyrite.nn.functional.hinge_embedding_loss`."""
    return F.hinge_embedding_loss(input, target, margin, reduction=_word(reduction))


def kl_div(input, target, reduction=_MEAN, *, log_target=False):
    """:func:`pyrite.nn.functional.kl_div`."""
    return F.kl_div(input, target, reduction=_word(reduction), log_target=log_target)


def margin_ranking_loss(input1, input2, target, margin=0.0, reduction=_MEAN):
    """:func:`pyrite.nn.functional.margin_ranking_loss`."""
    return F.margin_ranking_loss(input1, input2, target, margin, reduction=_word(reduction))


def poisson_nll_loss(input, target, log_input, full, eps, reduction):
    """:func:`pyrite.nn.functional.poisson_nll_loss`."""
    return F.poisson_nll_loss(input, target, log_input, full, eps=eps, reduction=_word(reduction))


def triplet_margin_loss(anchor, positive, negative, margin=1.0, p=2, eps=1e-6, swap=False, reduction=_MEAN):
    """:func:`pyrite.nn.functional.triplet_margin_loss`."""
    return F.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, reduction=_word(reduction))


def lcm_(input, other):
    """:meth:`pyrite.Tensor.lcm_`."""
    return input.lcm_(other)


def ldexp_(input, other):
    """:meth:`pyrite.Tensor.ldexp_`."""
    return input.ldexp_(other)


def is_inference(input):
    """Was the tensor made in inference mode? See :meth:`pyrite.Tensor.is_inference`."""
    if not isinstance(input, Tensor):
        raise TypeError(f"is_inference(): argument 'input' must be Tensor, not {type(input).__name__}")
    return input.is_inference()
