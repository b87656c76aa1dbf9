"""First and second derivatives of every differentiable function of `nn.functional` in the registry, as data.

A function that joins the registry without a line here fails `test_every_function_is_here`.
"""

import pytest
from numeric import check_gradients
from subject import torch

F = torch.nn.functional
F64 = torch.float64


def rand(*shape):
    return torch.randn(shape, dtype=F64)


def unit(*shape):
    return torch.rand(shape, dtype=F64) * 0.8 + 0.1


def classes(*shape):
    return torch.arange(torch.zeros(shape).numel()).reshape(shape) % 3


# Name -> (function of tensors, makers of its arguments); several cases per name are numbered.
CASES = {
    "linear": [(F.linear, lambda: (rand(2, 3), rand(4, 3), rand(4))), (F.linear, lambda: (rand(2, 2, 3), rand(4, 3)))],
    "bilinear": [(F.bilinear, lambda: (rand(3, 2), rand(3, 4), rand(2, 2, 4), rand(2)))],
    "conv1d": [
        (F.conv1d, lambda: (rand(2, 2, 7), rand(3, 2, 3), rand(3))),
        (lambda *a: F.conv1d(*a, stride=2, padding=2, dilation=2), lambda: (rand(1, 2, 7), rand(3, 2, 3))),
    ],
    "conv2d": [
        (lambda *a: F.conv2d(*a, padding=1, stride=2), lambda: (rand(2, 2, 5, 6), rand(4, 2, 3, 3), rand(4))),
        (lambda *a: F.conv2d(*a, groups=2), lambda: (rand(1, 4, 5, 5), rand(2, 2, 2, 3))),
    ],
    "conv3d": [(lambda *a: F.conv3d(*a, padding=1), lambda: (rand(1, 2, 3, 4, 3), rand(2, 2, 2, 2, 2), rand(2)))],
    "conv_transpose1d": [(F.conv_transpose1d, lambda: (rand(2, 2, 5), rand(2, 3, 3), rand(3)))],
    "conv_transpose2d": [
        (
            lambda *a: F.conv_transpose2d(*a, stride=2, padding=1, output_padding=1),
            lambda: (rand(1, 2, 3, 4), rand(2, 3, 3, 3), rand(3)),
        )
    ],
    "conv_transpose3d": [(F.conv_transpose3d, lambda: (rand(1, 2, 2, 3, 2), rand(2, 2, 2, 2, 2)))],
    "max_pool1d": [(lambda x: F.max_pool1d(x, 2), lambda: (rand(2, 2, 7),))],
    "max_pool2d": [(lambda x: F.max_pool2d(x, 3, 2, 1), lambda: (rand(2, 2, 6, 5),))],
    "max_pool3d": [(lambda x: F.max_pool3d(x, 2), lambda: (rand(1, 2, 4, 4, 4),))],
    "avg_pool1d": [(lambda x: F.avg_pool1d(x, 3, 2, 1), lambda: (rand(2, 2, 7),))],
    "avg_pool2d": [(lambda x: F.avg_pool2d(x, 2, 1), lambda: (rand(2, 2, 4, 5),))],
    "avg_pool3d": [(lambda x: F.avg_pool3d(x, 2), lambda: (rand(1, 2, 4, 4, 4),))],
    "adaptive_avg_pool1d": [(lambda x: F.adaptive_avg_pool1d(x, 3), lambda: (rand(2, 2, 7),))],
    "adaptive_avg_pool2d": [(lambda x: F.adaptive_avg_pool2d(x, (2, 3)), lambda: (rand(2, 2, 5, 7),))],
    "adaptive_avg_pool3d": [(lambda x: F.adaptive_avg_pool3d(x, 2), lambda: (rand(1, 2, 3, 4, 5),))],
    "adaptive_max_pool1d": [(lambda x: F.adaptive_max_pool1d(x, 3), lambda: (rand(2, 2, 7),))],
    "adaptive_max_pool2d": [(lambda x: F.adaptive_max_pool2d(x, (2, 3)), lambda: (rand(2, 2, 5, 7),))],
    "layer_norm": [(lambda x, w, b: F.layer_norm(x, (4,), w, b), lambda: (rand(3, 4), rand(4), rand(4)))],
    "rms_norm": [(lambda x, w: F.rms_norm(x, (4,), w), lambda: (rand(3, 4), rand(4)))],
    "group_norm": [(lambda x, w, b: F.group_norm(x, 2, w, b), lambda: (rand(2, 4, 3), rand(4), rand(4)))],
    "instance_norm": [
        (lambda x, w, b: F.instance_norm(x, None, None, w, b), lambda: (rand(2, 3, 5), rand(3), rand(3)))
    ],
    "batch_norm": [
        (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), lambda: (rand(5, 3), rand(3), rand(3))),
        (
            lambda x, w, b: F.batch_norm(x, torch.zeros(3, dtype=F64), torch.ones(3, dtype=F64) * 2, w, b),
            lambda: (rand(2, 3, 4), rand(3), rand(3)),
        ),
    ],
    "softmax": [(lambda x: F.softmax(x, 1), lambda: (rand(2, 3, 2),))],
    "log_softmax": [(lambda x: F.log_softmax(x, 0), lambda: (rand(4, 3),))],
    "softmin": [(lambda x: F.softmin(x, 1), lambda: (rand(2, 3),))],
    "glu": [(lambda x: F.glu(x, 1), lambda: (rand(2, 6),))],
    "gelu": [(F.gelu, lambda: (rand(5),)), (lambda x: F.gelu(x, approximate="tanh"), lambda: (rand(5),))],
    "relu": [(lambda x: F.relu(x) * x, lambda: (rand(5),))],
    "embedding": [(lambda w: F.embedding(classes(2, 4), w) ** 2, lambda: (rand(3, 4),))],
    "cross_entropy": [
        (lambda x: F.cross_entropy(x, classes(4)), lambda: (rand(4, 3),)),
        (
            lambda x: F.cross_entropy(
                x, classes(2, 2), weight=torch.tensor([1.0, 2, 3], dtype=F64), label_smoothing=0.1
            ),
            lambda: (rand(2, 3, 2),),
        ),
        (lambda x, t: F.cross_entropy(x, t.softmax(1), reduction="none"), lambda: (rand(4, 3), rand(4, 3))),
    ],
    "nll_loss": [(lambda x: F.nll_loss(x.log_softmax(1), classes(4), reduction="sum"), lambda: (rand(4, 3),))],
    "mse_loss": [(F.mse_loss, lambda: (rand(3, 2), rand(3, 2)))],
    "l1_loss": [(F.l1_loss, lambda: (rand(3, 2), rand(3, 2)))],
    "smooth_l1_loss": [(lambda x, t: F.smooth_l1_loss(x, t, beta=0.7), lambda: (rand(3, 2), rand(3, 2)))],
    "huber_loss": [(lambda x, t: F.huber_loss(x, t, delta=0.7), lambda: (rand(3, 2), rand(3, 2)))],
    "binary_cross_entropy": [
        (lambda x: F.binary_cross_entropy(x, classes(3, 2).clamp(0, 1).double()), lambda: (unit(3, 2),))
    ],
    "binary_cross_entropy_with_logits": [
        (
            lambda x: F.binary_cross_entropy_with_logits(
                x, torch.full((3, 2), 0.3, dtype=F64), pos_weight=torch.tensor([1.0, 3], dtype=F64)
            ),
            lambda: (rand(3, 2),),
        )
    ],
    "kl_div": [(lambda x, t: F.kl_div(x, t, reduction="sum", log_target=True), lambda: (rand(3, 2), rand(3, 2)))],
    "scaled_dot_product_attention": [
        (F.scaled_dot_product_attention, lambda: (rand(2, 3, 4), rand(2, 5, 4), rand(2, 5, 3))),
        (
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
            lambda: (rand(1, 2, 4, 2), rand(1, 2, 4, 2), rand(1, 2, 4, 2)),
        ),
        (
            lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
            lambda: (rand(3, 4), rand(5, 4), rand(5, 3), rand(3, 5)),
        ),
    ],
    "pad": [
        (lambda x, mode=mode: F.pad(x, (1, 2), mode=mode) ** 2, lambda: (rand(2, 3, 4),))
        for mode in ("constant", "reflect", "replicate", "circular")
    ],
    "interpolate": [
        (lambda x, mode=mode, kw=kw: F.interpolate(x, mode=mode, **kw), lambda n=n: (rand(2, 2, *(4, 3, 5)[:n]),))
        for n, mode, kw in (
            (1, "linear", {"size": 7}),
            (2, "bilinear", {"scale_factor": 1.7}),
            (2, "bicubic", {"size": (2, 9), "align_corners": True}),
            (2, "bilinear", {"size": (2, 2), "antialias": True}),
            (3, "trilinear", {"size": (6, 2, 5)}),
            (3, "nearest", {"size": (6, 2, 5)}),
        )
    ],
    "unfold": [(lambda x: F.unfold(x, (2, 3), padding=1, stride=2) ** 2, lambda: (rand(2, 2, 4, 5),))],
    "fold": [(lambda x: F.fold(x, (4, 5), 2) ** 2, lambda: (rand(2, 8, 12),))],
    "grid_sample": [
        (
            lambda x, g, mode=mode, border=border: F.grid_sample(x, g, mode, border, align_corners=False),
            lambda n=n: (rand(2, 2, *(4, 3, 5)[:n]), unit(2, *(2, 3, 2)[:n], n) * 2.2 - 1),
        )
        for n, mode, border in (
            (2, "bilinear", "zeros"),
            (2, "bicubic", "border"),
            (2, "bilinear", "reflection"),
            (3, "bilinear", "border"),
            (2, "nearest", "zeros"),
        )
    ],
    "ctc_loss": [
        (
            lambda x: F.ctc_loss(x.log_softmax(2), torch.tensor([[1, 1], [2, 0]]), (5, 4), (2, 1), reduction="none"),
            lambda: (rand(5, 2, 3),),
        )
    ],
    "embedding_bag": [
        (
            lambda w, p: F.embedding_bag(classes(2, 4), w, mode="sum", per_sample_weights=p, padding_idx=1) ** 2,
            lambda: (rand(3, 4), rand(2, 4)),
        ),
        (lambda w: F.embedding_bag(classes(2, 4), w, mode="mean") ** 2, lambda: (rand(3, 4),)),
        (lambda w: F.embedding_bag(classes(2, 4), w, mode="max") ** 2, lambda: (rand(3, 4),)),
    ],
    # Composites, not in the registry.
    "pdist": [(lambda x: F.pdist(x, 1.5), lambda: (rand(4, 3),))],
    "adaptive_max_pool3d": [(lambda x: F.adaptive_max_pool3d(x, 2) ** 2, lambda: (rand(1, 2, 3, 4, 3),))],
    "lp_pool3d": [(lambda x: F.lp_pool3d(x, 2, 2), lambda: (rand(1, 2, 4, 4, 2),))],
    "affine_grid": [(lambda t: F.affine_grid(t, (2, 1, 3, 2), False) ** 2, lambda: (rand(2, 2, 3),))],
    "linear_cross_entropy": [(lambda x, w: F.linear_cross_entropy(x, w, classes(4)), lambda: (rand(4, 3), rand(3, 3)))],
    "multi_head_attention_forward": [
        (
            lambda q, w, b, wo: F.multi_head_attention_forward(
                q, q, q, 4, 2, w, b, None, None, False, 0.0, wo, None, need_weights=False
            )[0],
            lambda: (rand(3, 2, 4), rand(12, 4), rand(12), rand(4, 4)),
        )
    ],
    "dropout": [(lambda x: F.dropout(x, 0.5, training=False) ** 2, lambda: (rand(4),))],
}

# Not differentiable, another name of the above, or tested below with the indices it takes.
ELSEWHERE = {"one_hot", "max_unpool", *(f"max_pool{n}d_with_indices" for n in (1, 2, 3))}


@pytest.mark.parametrize(
    "f, inputs", [pytest.param(*c, id=f"{n}-{i}") for n, cs in CASES.items() for i, c in enumerate(cs)]
)
def test_derivatives(f, inputs):
    check_gradients(f, *inputs())


@pytest.mark.pyrite
def test_every_function_is_here():
    import pyrite._C as C

    names = {op["name"] for op in C._registry() if op["namespace"] == "nn" and op["row"] is None}
    names = {n for n in names if not n.endswith("_") and not n.startswith("_")}
    assert names - ELSEWHERE - set(CASES) == set()


@pytest.mark.pyrite
def test_max_unpool():
    from pyrite._C import _nn as nn

    y, at = F.max_pool2d(rand(1, 2, 6, 4), 2, return_indices=True)
    z = nn.max_unpool(y, at, [1, 2, 6, 4])
    assert torch.equal(F.max_pool2d(z.abs(), 2), y.abs())
    check_gradients(lambda v: nn.max_unpool(v, at, [1, 2, 6, 4]) ** 2, y)
