"""Losses over sequences and large vocabularies for `pyrite.nn.functional`."""

from .. import _C
from ._losses import cross_entropy

_nn = _C._nn

__all__ = ["ctc_loss", "linear_cross_entropy"]


def _lengths(name, value):
    """Lengths given as a tensor, a sequence or one number."""
    if isinstance(value, _C.Tensor):
        if value.is_floating_point() or value.is_complex() or value.dtype == _C.bool:
            raise RuntimeError(f"{name} must be integral, got {value.dtype}")
        value = value.tolist()
    return [int(v) for v in (value if isinstance(value, (tuple, list)) else (value,))]


def ctc_loss(
    log_probs, targets, input_lengths, target_lengths, blank=0, reduction="mean", zero_infinity=False
):  # fmt: skip
    """Connectionist temporal classification (Graves et al. 2006).

    ``log_probs`` (T, N, C), or (T, C), come from log_softmax; ``targets`` (N, S), or all labels one after the other;
    lengths are tensors or sequences. 'mean' divides each loss by its target's length and averages over the batch.
    ``zero_infinity`` makes impossible alignments 0, gradient included.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    single = log_probs.dim() == 2
    if single:
        log_probs = log_probs.unsqueeze(1)
        if targets.dim() == 1:
            targets = targets.unsqueeze(0)
    inputs = _lengths("input_lengths", input_lengths)
    lengths = _lengths("target_lengths", target_lengths)
    loss = _nn.ctc_loss(log_probs, targets, inputs, lengths, blank, zero_infinity)
    if reduction == "mean":
        return (loss / _C.tensor([max(n, 1) for n in lengths], dtype=loss.dtype, device=loss.device)).mean()
    if reduction == "sum":
        return loss.sum()
    return loss.squeeze(0) if single else loss


def linear_cross_entropy(
    input,
    linear_weight,
    target,
    *,
    linear_bias=None,
    weight=None,
    reduction="mean",
    ignore_index=None,
    label_smoothing=0.0,
    options=None,
):
    """:func:`cross_entropy` of ``linear(input, linear_weight, linear_bias)``.

    ``input`` (N, in) or (in), ``linear_weight`` (C, in), or (C, d1, ..., in) for a loss over further dimensions.
    """
    if options is not None:
        raise NotImplementedError(
            "linear_cross_entropy: options (the chunked computation) is not supported; leave None"
        )
    if input.dim() not in (1, 2):
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {input.dim()}")
    if linear_weight.dim() < 2:
        raise RuntimeError(f"expected linear_weight with dimensionality at least 2, got {linear_weight.dim()}")
    classes, *extra, features = linear_weight.shape
    if input.shape[-1] != features:
        raise RuntimeError(
            "expected equal input and linear_weight last dimensions (in_features), got "
            f"{input.shape[-1]} and {features}, respectively"
        )
    if linear_bias is not None and tuple(linear_bias.shape) != (classes, *extra):
        raise RuntimeError(f"expected linear_bias shape {(classes, *extra)}, got {tuple(linear_bias.shape)}")
    if extra and input.dim() == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {tuple(linear_weight.shape)} requires batched input, "
            f"(N, {features}), got unbatched input with shape {tuple(input.shape)}"
        )
    shape = (*input.shape[:-1], classes, *extra)
    if tuple(target.shape) == shape and ignore_index is not None:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    if extra:
        linear_weight = linear_weight.reshape(-1, features)
        linear_bias = None if linear_bias is None else linear_bias.reshape(-1)
    logits = _nn.linear(input, linear_weight, linear_bias).reshape(shape)
    return cross_entropy(
        logits,
        target,
        weight=weight,
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
