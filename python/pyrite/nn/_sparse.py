"""Embeddings for `pyrite.nn.functional`."""

import warnings

from .. import _C

_nn = _C._nn

__all__ = ["embedding", "embedding_bag"]


def _padding_row(padding_idx, rows):
    """``padding_idx`` as a row number, -1 for None."""
    if padding_idx is None:
        return -1
    if not -rows <= padding_idx < rows:
        raise AssertionError("Padding_idx must be within num_embeddings")
    return padding_idx + rows if padding_idx < 0 else padding_idx


def _check_sparse(name, weight, sparse):
    # Without a gradient there is nothing that could be sparse.
    if sparse and weight.requires_grad and _C.is_grad_enabled():
        raise NotImplementedError(f"{name}: sparse=True (sparse gradients) is not supported")


def embedding(
    input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
):  # fmt: skip
    """Rows of ``weight`` (num, dim) picked by integer ``input`` (*) -> (*, dim).

    ``padding_idx`` is a row that gets no gradient. ``max_norm`` shrinks the rows used, in place.
    """
    if weight.dim() != 2:
        raise RuntimeError(f"'weight' must be 2-D, got shape {tuple(weight.shape)} (embedding)")
    _check_sparse("embedding", weight, sparse)
    padding_idx = _padding_row(padding_idx, weight.shape[0])
    if max_norm is not None:
        _renorm_rows(weight, input.reshape(-1), max_norm, norm_type)
    return _nn.embedding(input, weight, padding_idx=padding_idx, scale_grad_by_freq=scale_grad_by_freq)


def _renorm_rows(weight, used, max_norm, norm_type):
    prev = _C._set_grad_enabled(False)
    try:
        norms = weight.norm(norm_type, 1)
        chosen = _C.zeros(weight.shape[0], dtype=_C.bool, device=weight.device)
        chosen[used.to(_C.int64)] = True
        scale = _C.where(chosen & (norms > max_norm), max_norm / (norms + 1e-7), _C.ones_like(norms))
        weight.mul_(scale.unsqueeze(1))
    finally:
        _C._set_grad_enabled(prev)


def embedding_bag(
    input,
    weight,
    offsets=None,
    max_norm=None,
    norm_type=2,
    scale_grad_by_freq=False,
    mode="mean",
    sparse=False,
    per_sample_weights=None,
    include_last_offset=False,
    padding_idx=None,
):
    """Sums, means or maxima over bags of rows of ``weight`` (num, dim), without all rows in between -> (B, dim).

    ``input`` (B, L) holds B bags of one length, (N) bags that begin at ``offsets`` (with ``include_last_offset``
    these end with N). ``per_sample_weights`` scale the rows of a sum; ``padding_idx`` is left out of every bag.

    >>> w = torch.arange(6.0).reshape(3, 2)
    >>> torch.nn.functional.embedding_bag(torch.tensor([0, 2, 1]), w, torch.tensor([0, 2]), mode="sum")
    tensor([[4., 6.],
            [2., 3.]])
    """
    if weight.dtype == _C.int64 and input.is_floating_point():
        warnings.warn(
            "Argument order of nn.functional.embedding_bag was changed. Usage `embedding_bag(weight, input, ...)` is "
            "deprecated, and should now be `embedding_bag(input, weight, ...)`.",
            stacklevel=2,
        )
        weight, input = input, weight
    if per_sample_weights is not None and tuple(input.shape) != tuple(per_sample_weights.shape):
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({per_sample_weights.shape}) is not None, then it must have the "
            f"same shape as the input ({input.shape})"
        )
    if weight.dim() != 2:
        raise ValueError(f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.dim()}")
    if input.dim() == 2:
        if offsets is not None:
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length "
                f"sequences. However, found offsets of type {type(offsets)}"
            )
        bags, length = input.shape
        offsets = _C.arange(bags, dtype=_C.int64, device=input.device) * length
        include_last_offset = False
        input = input.reshape(-1)
        if per_sample_weights is not None:
            per_sample_weights = per_sample_weights.reshape(-1)
    elif input.dim() == 1:
        if offsets is None:
            raise ValueError("offsets has to be a 1D Tensor but got None")
        if offsets.dim() != 1:
            raise ValueError("offsets has to be a 1D Tensor")
    else:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.dim()}")
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise ValueError("max mode does not support sparse weights")
    _check_sparse("embedding_bag", weight, sparse)
    if max_norm is not None:
        _renorm_rows(weight, input, max_norm, norm_type)
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' "
            f"(got mode='{mode}')."
        )
    return _nn.embedding_bag(
        weight,
        input,
        offsets,
        scale_grad_by_freq,
        ("sum", "mean", "max").index(mode),
        per_sample_weights,
        include_last_offset,
        _padding_row(padding_idx, weight.shape[0]),
    )
