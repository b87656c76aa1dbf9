"""Loss functions for `pyrite.nn.functional`. `reduction` is 'none', 'mean' or 'sum' everywhere.

The common ones are fused kernels of the core; the others are written in tensor operations.
"""

import math

from .. import _C

_nn = _C._nn

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "pairwise_distance",
    "pdist",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


def _check_reduction(reduction, size_average=None, reduce=None):
    """The reduction to use; the two arguments PyTorch retired are still understood."""
    if size_average is not None or reduce is not None:
        import warnings

        mean = size_average is None or size_average
        reduction = "none" if reduce is False else "mean" if mean else "sum"
        warnings.warn(
            f"size_average and reduce args will be deprecated, please use reduction='{reduction}' instead.",
            stacklevel=4,
        )
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def _reduce(loss, reduction):
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    if reduction != "none":
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return loss


def _warn_sizes(input, target):
    if tuple(input.shape) != tuple(target.shape):
        import warnings

        warnings.warn(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}). This will "
            "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=4,
        )


def _weighted(op, input, target, weight, reduction, *args):
    if weight is None:
        return op(input, target, *args, reduction=reduction)
    loss = op(input, target, *args, reduction="none") * weight
    return loss.sum() / weight.expand_as(loss).sum() if reduction == "mean" else _reduce(loss, reduction)


def mse_loss(input, target, size_average=None, reduce=None, reduction="mean", weight=None):
    """Mean of (input - target)^2."""
    reduction = _check_reduction(reduction, size_average, reduce)
    _warn_sizes(input, target)
    return _weighted(_nn.mse_loss, input, target, weight, reduction)


def l1_loss(input, target, size_average=None, reduce=None, reduction="mean", weight=None):
    """Mean of |input - target|."""
    reduction = _check_reduction(reduction, size_average, reduce)
    _warn_sizes(input, target)
    return _weighted(_nn.l1_loss, input, target, weight, reduction)


def smooth_l1_loss(input, target, size_average=None, reduce=None, reduction="mean", beta=1.0):
    """Quadratic below ``beta``, linear above (Girshick 2015)."""
    reduction = _check_reduction(reduction, size_average, reduce)
    _warn_sizes(input, target)
    if beta == 0.0:
        return _nn.l1_loss(input, target, reduction=reduction)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    return _nn.smooth_l1_loss(input, target, reduction=reduction, beta=beta)


def huber_loss(input, target, reduction="mean", delta=1.0, weight=None):
    """Quadratic below ``delta``, linear above (Huber 1964)."""
    _check_reduction(reduction)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    _warn_sizes(input, target)
    if weight is None:
        return _nn.huber_loss(input, target, reduction=reduction, delta=delta)
    loss = _nn.huber_loss(input, target, reduction="none", delta=delta) * weight
    return loss.sum() / weight.expand_as(loss).sum() if reduction == "mean" else _reduce(loss, reduction)


def binary_cross_entropy(input, target, weight=None, size_average=None, reduce=None, reduction="mean"):
    """-(t log x + (1 - t) log(1 - x)); the logarithms are limited to -100. ``input`` are probabilities."""
    reduction = _check_reduction(reduction, size_average, reduce)
    if tuple(target.shape) != tuple(input.shape):
        raise ValueError(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is deprecated. "
            "Please ensure they have the same size."
        )
    if weight is not None:
        weight = weight.expand_as(input)
    return _nn.binary_cross_entropy(input, target, weight, reduction=reduction)


def binary_cross_entropy_with_logits(
    input, target, weight=None, size_average=None, reduce=None, reduction="mean", pos_weight=None
):  # fmt: skip
    """:func:`binary_cross_entropy` of sigmoid(input), computed without overflow."""
    reduction = _check_reduction(reduction, size_average, reduce)
    if tuple(target.shape) != tuple(input.shape):
        raise ValueError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    return _nn.binary_cross_entropy_with_logits(input, target, weight, pos_weight=pos_weight, reduction=reduction)


def kl_div(input, target, size_average=None, reduce=None, reduction="mean", log_target=False):
    """target * (log target - input); ``input`` are log-probabilities. 'batchmean' divides by the batch size."""
    if reduction == "batchmean":
        return _nn.kl_div(input, target, reduction="sum", log_target=log_target) / input.shape[0]
    reduction = _check_reduction(reduction, size_average, reduce)
    if reduction == "mean":
        import warnings

        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size. 'batchmean' divides "
            "only by the batch size, and aligns with the KL div math definition.",
            stacklevel=2,
        )
    return _nn.kl_div(input, target, reduction=reduction, log_target=log_target)


def nll_loss(input, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"):
    """-input[target] for log-probabilities (N, C, ...) and class indices (N, ...)."""
    reduction = _check_reduction(reduction, size_average, reduce)
    return _nn.nll_loss(input, target, weight, ignore_index=ignore_index, reduction=reduction)


def cross_entropy(
    input,
    target,
    weight=None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
    label_smoothing=0.0,
):
    """:func:`nll_loss` of log_softmax(input); ``target`` are class indices, or probabilities of input's shape."""
    if size_average is not None or reduce is not None:
        reduction = _check_reduction(reduction, size_average, reduce)
    return _nn.cross_entropy(
        input, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )


def poisson_nll_loss(
    input, target, log_input=True, full=False, size_average=None, eps=1e-8, reduce=None, reduction="mean"
):  # fmt: skip
    """Negative log likelihood of a Poisson distribution; ``full`` adds Stirling's term."""
    reduction = _check_reduction(reduction, size_average, reduce)
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * math.pi * target).log()
        loss = loss + _C.where(target > 1, stirling, _C.zeros_like(stirling))
    return _reduce(loss, reduction)


def gaussian_nll_loss(input, target, var, full=False, eps=1e-6, reduction="mean"):
    """Negative log likelihood of a normal distribution with mean ``input`` and variance ``var``."""
    if not isinstance(var, _C.Tensor):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        var = var * _C.ones_like(input)
    elif bool((var < 0).any()):
        raise ValueError("var has negative entry/entries")
    if tuple(var.shape) != tuple(input.shape):
        if tuple(input.shape[:-1]) == tuple(var.shape):
            var = var.unsqueeze(-1)
        elif not (tuple(input.shape[:-1]) == tuple(var.shape[:-1]) and var.shape[-1] == 1):
            raise ValueError("var is of incorrect size")
    _check_reduction(reduction)
    # The floor on the variance is a constant: no gradient flows through it.
    var = var + (var.detach().clamp_min(eps) - var.detach())
    loss = 0.5 * (var.log() + (input - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return _reduce(loss, reduction)


def hinge_embedding_loss(input, target, margin=1.0, size_average=None, reduce=None, reduction="mean"):
    """x where target is 1, max(0, margin - x) where it is -1."""
    reduction = _check_reduction(reduction, size_average, reduce)
    zero = _C.zeros_like(input)
    loss = _C.where(target == 1, zero, (margin - input).clamp_min(0)) + _C.where(target == -1, zero, input)
    return _reduce(loss, reduction)


def margin_ranking_loss(input1, input2, target, margin=0.0, size_average=None, reduce=None, reduction="mean"):
    """max(0, -target * (input1 - input2) + margin)."""
    reduction = _check_reduction(reduction, size_average, reduce)
    if not input1.dim() == input2.dim() == target.dim():
        raise RuntimeError(
            f"margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: {input1.shape}, "
            f"input2: {input2.shape}, target: {target.shape} "
        )
    return _reduce((-target * (input1 - input2) + margin).clamp_min(0), reduction)


def soft_margin_loss(input, target, size_average=None, reduce=None, reduction="mean"):
    """log(1 + exp(-target * input))."""
    reduction = _check_reduction(reduction, size_average, reduce)
    product = target * input
    loss = (1 + (-product).exp()).log() if product.is_complex() else -_nn.logsigmoid(product)
    return _reduce(loss if loss.dtype == input.dtype else loss.to(input.dtype), reduction)


def multilabel_soft_margin_loss(input, target, weight=None, size_average=None, reduce=None, reduction="mean"):
    """Mean over classes of the binary cross-entropy of logits (N, C)."""
    reduction = _check_reduction(reduction, size_average, reduce)
    loss = -(target * _nn.logsigmoid(input) + (1 - target) * _nn.logsigmoid(-input))
    if weight is not None:
        loss = loss * weight
    return _reduce(loss.mean(-1), reduction)


def multi_margin_loss(
    input, target, p=1, margin=1.0, weight=None, size_average=None, reduce=None, reduction="mean"
):  # fmt: skip
    """Mean over classes of max(0, margin - x[y] + x[i])^p for i != y."""
    reduction = _check_reduction(reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    shape = tuple(input.shape)
    if len(shape) > 2 or 0 in shape[1:] or (len(shape) < 2 and input.numel() == 0):
        raise RuntimeError(f"Expected non-empty vector or matrix with optional 0-dim batch size, but got: {shape}")
    single = len(shape) < 2
    rows = input.reshape(1, -1) if single else input
    if target.dim() > 1 or target.numel() != rows.shape[0]:
        raise RuntimeError(f"inconsistent target size, expected {rows.shape[0]} but got {tuple(target.shape)}")
    if weight is not None:
        if weight.dim() != 1:
            raise ValueError(f"weight must be one-dimensional, got {tuple(weight.shape)}")
        if weight.numel() != rows.shape[1]:
            raise RuntimeError(f"inconsistent weight size, expected {rows.shape[1]} but got {tuple(weight.shape)}")
    y = target.reshape(-1, 1)
    if y.numel() and not (0 <= int(y.min()) and int(y.max()) < rows.shape[1]):
        raise RuntimeError(f"target out of range: expected classes in 0..{rows.shape[1] - 1}")
    loss = (margin - rows.gather(1, y) + rows).clamp_min(0)
    if p == 2:
        loss = loss * loss
    if weight is not None:
        loss = loss * weight.index_select(0, y.reshape(-1)).unsqueeze(1)
    loss = loss.scatter(1, y, 0.0).sum(1) / rows.shape[1]
    # One sample gives a number, unless its target came as a list of one.
    return _reduce(loss.reshape(()) if single and target.dim() == 0 else loss, reduction)


def multilabel_margin_loss(input, target, size_average=None, reduce=None, reduction="mean"):
    """Hinge loss between the target classes (listed first, ended by -1) and all others: (N, C) and (N, C)."""
    reduction = _check_reduction(reduction, size_average, reduce)
    shape = tuple(input.shape)
    if len(shape) > 2 or 0 in shape[1:] or (len(shape) == 1 and shape[0] == 0):
        raise RuntimeError(f"Expected non-empty vector or matrix with optional 0-dim batch size, but got: {shape}")
    single = len(shape) < 2
    if single:
        input, target = input.reshape(1, -1), target.reshape(1, -1)
    if tuple(target.shape) != tuple(input.shape):
        raise RuntimeError(f"inconsistent target size: {tuple(target.shape)} for input of size: {shape}")
    classes = input.shape[1]
    if target.numel() and not (-1 <= int(target.min()) and int(target.max()) < classes):
        raise RuntimeError(f"target is out of range: expected classes in 0..{classes - 1}, ended by -1")
    valid = (target < 0).to(_C.int64).cumsum(1) == 0
    index = target.clamp_min(0)
    is_target = _C.zeros(tuple(input.shape), dtype=_C.int64, device=input.device)
    is_target = is_target.scatter_add(1, index, valid.to(_C.int64)) > 0
    chosen = input.gather(1, index)
    # (N, listed target, class): only pairs of a listed target and a class that is no target count.
    pair = (1 - (chosen.unsqueeze(2) - input.unsqueeze(1))).clamp_min(0)
    mask = (valid.unsqueeze(2) & ~is_target.unsqueeze(1)).to(input.dtype)
    loss = (pair * mask).sum((1, 2)) / classes
    return _reduce(loss[0] if single else loss, reduction)


def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    """x1 . x2 / (max(|x1|, eps) * max(|x2|, eps)) along ``dim``."""
    x1, x2 = _C.broadcast_tensors([x1, x2])
    n1 = (x1 * x1).sum(dim, keepdim=True).sqrt().clamp_min(eps)
    n2 = (x2 * x2).sum(dim, keepdim=True).sqrt().clamp_min(eps)
    return ((x1 / n1) * (x2 / n2)).sum(dim)


def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    """p-norm of x1 - x2 + eps over the last dimension."""
    return (x1 - x2 + eps).norm(p, -1, keepdim=keepdim)


def pdist(input, p=2.0):
    """p-norm distances between all pairs of rows of ``input`` (N, M) -> (N (N - 1) / 2): the upper triangle by rows.

    >>> torch.nn.functional.pdist(torch.tensor([[0.0], [1.0], [3.0]]))
    tensor([1., 3., 2.])
    """
    if input.dim() != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.dim()}D")
    if not input.is_floating_point():
        raise RuntimeError("pdist only supports floating-point dtypes")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    if input.device.type == "cpu":
        return _nn.pdist(input, p)
    n = input.shape[0]
    if n <= 1:
        return input.new_empty(0) + input.sum() * 0
    index = _C.arange(n, device=input.device)
    row, col = (index.unsqueeze(1) < index).nonzero().unbind(1)
    return (input.index_select(0, row) - input.index_select(0, col)).norm(p, 1)


def cosine_embedding_loss(input1, input2, target, margin=0.0, size_average=None, reduce=None, reduction="mean"):
    """1 - cos where target is 1, max(0, cos - margin) where it is -1."""
    reduction = _check_reduction(reduction, size_average, reduce)
    if target.dim() not in (0, 1):
        raise RuntimeError(f"0D or 1D target tensor expected, multi-target not supported: got {tuple(target.shape)}")
    # A little epsilon under the roots, as PyTorch's kernel has, keeps zero vectors finite.
    dot = (input1 * input2).sum(-1)
    sq1 = (input1 * input1).sum(-1) + 1e-12
    sq2 = (input2 * input2).sum(-1) + 1e-12
    cos = dot / (sq1 * sq2).sqrt()
    zero = _C.zeros_like(cos)
    loss = _C.where(target == 1, 1 - cos, zero) + _C.where(target == -1, (cos - margin).clamp_min(0), zero)
    return _reduce(loss, reduction)


def triplet_margin_loss(
    anchor,
    positive,
    negative,
    margin=1.0,
    p=2,
    eps=1e-6,
    swap=False,
    size_average=None,
    reduce=None,
    reduction="mean",
):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) (Balntas et al. 2016)."""
    reduction = _check_reduction(reduction, size_average, reduce)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = _C.minimum(far, pairwise_distance(positive, negative, p, eps))
    return _reduce((near - far + margin).clamp_min(0), reduction)


def triplet_margin_with_distance_loss(
    anchor, positive, negative, *, distance_function=None, margin=1.0, swap=False, reduction="mean"
):
    """:func:`triplet_margin_loss` with any distance."""
    _check_reduction(reduction)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = _C.minimum(far, distance(positive, negative))
    return _reduce((near - far + margin).clamp_min(0), reduction)
