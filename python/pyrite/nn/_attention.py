"""Scaled dot-product attention, in tensor operations."""

import math

from .. import _C


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """softmax(Q K^T scale + mask) V (Vaswani et al. 2017).

    Args:
        query: (..., L, E). key: (..., S, E). value: (..., S, Ev). The leading dimensions broadcast.
        attn_mask: broadcastable to (..., L, S): bool (True takes part) or added to the scores.
        is_causal: position i sees 0 ... i only; excludes ``attn_mask``. scale: default 1 / sqrt(E).
        enable_gqa: key and value may have fewer heads (dimension -3), each used by several query heads.

    RuntimeError for a mask together with ``is_causal``; ShapeError where sizes don't fit.

    >>> import pyrite as torch
    >>> q = torch.ones(2, 3, 4)
    >>> torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).shape
    torch.Size([2, 3, 4])
    """
    if is_causal and attn_mask is not None:
        raise RuntimeError("scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
    if enable_gqa:
        heads, key_heads, value_heads = query.shape[-3], key.shape[-3], value.shape[-3]
        if heads % key_heads or heads % value_heads:
            raise RuntimeError(
                f"scaled_dot_product_attention: enable_gqa needs key heads ({key_heads}) and value heads ({value_heads}) "
                f"that divide the query heads ({heads})"
            )
        key, value = _repeat(key, heads // key_heads), _repeat(value, heads // value_heads)
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor).matmul(key.transpose(-2, -1))
    if is_causal:
        rows, cols = scores.shape[-2], scores.shape[-1]
        attn_mask = _C.ones((rows, cols), dtype=_C.bool, device=query.device).tril()
    if attn_mask is not None:
        if attn_mask.dtype == _C.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        else:
            scores = scores + attn_mask
    weights = scores.softmax(-1)
    if attn_mask is not None and attn_mask.dtype == _C.bool:
        # A row that sees nothing gives zeros, not NaN.
        weights = weights.masked_fill(~attn_mask.any(-1, keepdim=True), 0.0)
    if dropout_p > 0.0:
        weights = _C._nn.dropout(weights, dropout_p, True)
    return weights.matmul(value)


def _repeat(t, times):
    """Every head ``times`` times, one after another."""
    if times == 1:
        return t
    *lead, heads, rows, cols = t.shape
    return t.unsqueeze(-3).expand((*lead, heads, times, rows, cols)).reshape((*lead, heads * times, rows, cols))
