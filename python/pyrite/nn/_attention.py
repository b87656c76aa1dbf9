"""Multi-head attention for `pyrite.nn.functional`."""

import math
import warnings

from .. import _C

_nn = _C._nn

__all__ = ["multi_head_attention_forward"]


def _as_scores(mask, name, dtype, other=None, other_name=""):
    """A mask as numbers to add: a boolean one is -inf where True."""
    if mask is None:
        return None
    if mask.dtype != _C.bool and not mask.is_floating_point():
        raise AssertionError(f"only bool and floating types of {name} are supported")
    if other is not None and other.dtype != mask.dtype:
        warnings.warn(
            f"Support for mismatched {name} and {other_name} is deprecated. Use same type for both instead.",
            stacklevel=4,
        )
    if mask.dtype != _C.bool:
        return mask
    return _C.zeros(tuple(mask.shape), dtype=dtype, device=mask.device).masked_fill_(mask, float("-inf"))


def _check_shapes(query, key, value, key_padding_mask, attn_mask, num_heads):
    """Ranks and shapes as PyTorch asks for them; true if there is a batch."""
    n = query.dim()
    if n not in (2, 3):
        raise AssertionError(f"query should be unbatched 2D or batched 3D tensor but received {n}-D query tensor")
    kind = "batched" if n == 3 else "unbatched"
    if key.dim() != n or value.dim() != n:
        raise AssertionError(
            f"For {kind} ({n}-D) `query`, expected `key` and `value` to be {n}-D but found {key.dim()}-D and "
            f"{value.dim()}-D tensors respectively"
        )
    if key_padding_mask is not None and key_padding_mask.dim() != n - 1:
        raise AssertionError(
            f"For {kind} ({n}-D) `query`, expected `key_padding_mask` to be `None` or {n - 1}-D but found "
            f"{key_padding_mask.dim()}-D tensor instead"
        )
    if attn_mask is not None:
        if attn_mask.dim() not in (2, 3):
            raise AssertionError(
                f"For {kind} ({n}-D) `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found "
                f"{attn_mask.dim()}-D tensor instead"
            )
        if n == 2 and attn_mask.dim() == 3:
            expected = (num_heads, query.shape[0], key.shape[0])
            if tuple(attn_mask.shape) != expected:
                raise AssertionError(f"Expected `attn_mask` shape to be {expected} but got {tuple(attn_mask.shape)}")
    return n == 3


def _in_projection(q, k, v, weight, bias):
    """Query, key and value through the three parts of one weight (3 E, E)."""
    e = q.shape[-1]
    if k is v and q is k:
        # One product for all three.
        return _nn.linear(q, weight, bias).chunk(3, -1)
    wq, wkv = weight.split([e, 2 * e])
    bq, bkv = (None, None) if bias is None else bias.split([e, 2 * e])
    if k is v:
        return (_nn.linear(q, wq, bq), *_nn.linear(k, wkv, bkv).chunk(2, -1))
    wk, wv = wkv.chunk(2)
    bk, bv = (None, None) if bias is None else bkv.chunk(2)
    return _nn.linear(q, wq, bq), _nn.linear(k, wk, bk), _nn.linear(v, wv, bv)


def multi_head_attention_forward(
    query,
    key,
    value,
    embed_dim_to_check,
    num_heads,
    in_proj_weight,
    in_proj_bias,
    bias_k,
    bias_v,
    add_zero_attn,
    dropout_p,
    out_proj_weight,
    out_proj_bias,
    training=True,
    key_padding_mask=None,
    need_weights=True,
    attn_mask=None,
    use_separate_proj_weight=False,
    q_proj_weight=None,
    k_proj_weight=None,
    v_proj_weight=None,
    static_k=None,
    static_v=None,
    average_attn_weights=True,
    is_causal=False,
):
    """Attention of several heads (Vaswani et al. 2017): :class:`pyrite.nn.MultiheadAttention` without state.

    ``query`` is (L, N, E), ``key`` and ``value`` (S, N, E), or without N; returns the output (L, N, E) and, with
    ``need_weights``, the weights (N, L, S), averaged over the heads or (N, heads, L, S), else None. Masks: boolean
    (True: not attended to) or numbers added to the scores; ``key_padding_mask`` (N, S), ``attn_mask`` (L, S) or
    (N * heads, L, S). ``is_causal`` is a hint that ``attn_mask`` is the causal mask.
    """
    batched = _check_shapes(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        same_kv, same_q = key is value, query is key
        query = query.unsqueeze(1)
        key = query if same_q else key.unsqueeze(1)
        value = key if same_kv else value.unsqueeze(1)
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)

    target, batch, embed = query.shape
    source = key.shape[0]
    key_padding_mask = _as_scores(key_padding_mask, "key_padding_mask", query.dtype, attn_mask, "attn_mask")
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask."
        )
    if is_causal and key_padding_mask is None and not need_weights:
        # The attention kernel knows this mask by itself.
        attn_mask = None
    else:
        attn_mask = _as_scores(attn_mask, "attn_mask", query.dtype)
        if key_padding_mask is not None:
            is_causal = False

    if embed != embed_dim_to_check:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim_to_check}, but got {embed}")
    head = embed // num_heads
    if head * num_heads != embed:
        raise AssertionError(f"embed_dim {embed} not divisible by num_heads {num_heads}")
    if use_separate_proj_weight:
        if tuple(key.shape[:2]) != tuple(value.shape[:2]):
            raise AssertionError(
                f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}"
            )
    elif tuple(key.shape) != tuple(value.shape):
        raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")

    if not use_separate_proj_weight:
        if in_proj_weight is None:
            raise AssertionError("use_separate_proj_weight is False but in_proj_weight is None")
        q, k, v = _in_projection(query, key, value, in_proj_weight, in_proj_bias)
    else:
        for name, w in (("q", q_proj_weight), ("k", k_proj_weight), ("v", v_proj_weight)):
            if w is None:
                raise AssertionError(f"use_separate_proj_weight is True but {name}_proj_weight is None")
        bq, bk, bv = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
        q = _nn.linear(query, q_proj_weight, bq)
        k = _nn.linear(key, k_proj_weight, bk)
        v = _nn.linear(value, v_proj_weight, bv)

    if attn_mask is not None:
        expected = (target, source) if attn_mask.dim() == 2 else (batch * num_heads, target, source)
        if tuple(attn_mask.shape) != expected:
            raise RuntimeError(
                f"The shape of the {attn_mask.dim()}D attn_mask is {attn_mask.shape}, but should be {expected}."
            )
        if attn_mask.dim() == 2:
            attn_mask = attn_mask.unsqueeze(0)

    def longer(mask, n=1):
        return None if mask is None else _nn.pad(mask, (0, n), "constant", 0.0)

    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise AssertionError("bias cannot be added to static key or value.")
        k = _C.cat([k, bias_k.repeat(1, batch, 1)])
        v = _C.cat([v, bias_v.repeat(1, batch, 1)])
        attn_mask, key_padding_mask = longer(attn_mask), longer(key_padding_mask)
    elif bias_k is not None or bias_v is not None:
        raise AssertionError("bias_k and bias_v must be given both or not at all")

    def heads(x):
        return x.reshape(x.shape[0], batch * num_heads, head).transpose(0, 1)

    def fixed(x, name):
        if tuple(x.shape[::2]) != (batch * num_heads, head):
            raise AssertionError(
                f"expecting {name} of shape ({batch * num_heads}, length, {head}), but got {tuple(x.shape)}"
            )
        return x

    q = heads(q)
    k = heads(k) if static_k is None else fixed(static_k, "static_k")
    v = heads(v) if static_v is None else fixed(static_v, "static_v")
    if add_zero_attn:
        zero = _C.zeros((batch * num_heads, 1, head), dtype=k.dtype, device=k.device)
        k, v = _C.cat([k, zero], 1), _C.cat([v, zero], 1)
        attn_mask, key_padding_mask = longer(attn_mask), longer(key_padding_mask)
    source = k.shape[1]
    if key_padding_mask is not None:
        if tuple(key_padding_mask.shape) != (batch, source):
            raise AssertionError(
                f"expecting key_padding_mask shape of {(batch, source)}, but got {tuple(key_padding_mask.shape)}"
            )
        pad = key_padding_mask.reshape(batch, 1, 1, source).expand(-1, num_heads, -1, -1)
        pad = pad.reshape(batch * num_heads, 1, source)
        attn_mask = pad if attn_mask is None else attn_mask + pad
    if not training:
        dropout_p = 0.0

    def finish(out):
        """(N * heads, L, head) through the output projection: (L, N, E)."""
        out = out.transpose(0, 1).reshape(target * batch, embed)
        return _nn.linear(out, out_proj_weight, out_proj_bias).reshape(target, batch, -1)

    if need_weights:
        if is_causal and attn_mask is None:
            raise AssertionError("is_causal needs attn_mask when the weights are asked for")
        scores = (q * math.sqrt(1.0 / head)).matmul(k.transpose(1, 2))
        if attn_mask is not None:
            scores = scores + attn_mask
        weights = _nn.softmax(scores, -1)
        if dropout_p > 0.0:
            weights = _nn.dropout(weights, dropout_p, True)
        out = finish(weights.matmul(v))
        weights = weights.reshape(batch, num_heads, target, source)
        if average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            out, weights = out.squeeze(1), weights.squeeze(0)
        return out, weights

    if attn_mask is not None:
        if attn_mask.shape[0] == 1:
            attn_mask = attn_mask.unsqueeze(0)
        else:
            attn_mask = attn_mask.reshape(batch, num_heads, -1, source)

    def split(x):
        return x.reshape(batch, num_heads, -1, head)

    out = _nn.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask, dropout_p, is_causal)
    out = finish(out.reshape(batch * num_heads, target, head))
    return (out if batched else out.squeeze(1)), None
