"""Layers for images, sequences and attention: values, state, printing."""

import numpy as np
import pytest
from subject import F, nn, torch

LAYERS = [
    (lambda: nn.Upsample(scale_factor=2), (1, 2, 3, 3), (1, 2, 6, 6), "Upsample(scale_factor=2.0, mode='nearest')"),
    (lambda: nn.Upsample(size=(5, 4), mode="bilinear"), (1, 2, 3, 3), (1, 2, 5, 4), "Upsample(size=(5, 4), mode='bilinear')"),
    (lambda: nn.UpsamplingBilinear2d(scale_factor=2), (1, 1, 2, 2), (1, 1, 4, 4), None),
    (lambda: nn.UpsamplingNearest2d(size=(4, 4)), (1, 1, 2, 2), (1, 1, 4, 4), None),
    (lambda: nn.Unfold((2, 3)), (2, 5, 3, 4), (2, 30, 4), "Unfold(kernel_size=(2, 3), dilation=1, padding=0, stride=1)"),
    (lambda: nn.Fold((4, 5), 2), (1, 12, 12), (1, 3, 4, 5), "Fold(output_size=(4, 5), kernel_size=2, dilation=1, padding=0, stride=1)"),
    (lambda: nn.AdaptiveMaxPool3d(2), (1, 2, 4, 4, 4), (1, 2, 2, 2, 2), "AdaptiveMaxPool3d(output_size=2)"),
    (lambda: nn.LPPool3d(2, 2), (1, 2, 4, 4, 4), (1, 2, 2, 2, 2), None),
    (lambda: nn.FractionalMaxPool2d(2, output_ratio=0.5), (1, 2, 8, 8), (1, 2, 4, 4), None),
    (lambda: nn.FractionalMaxPool3d(2, output_size=3), (1, 2, 8, 8, 8), (1, 2, 3, 3, 3), None),
]  # fmt: skip


@pytest.mark.parametrize("make, given, expected, text", LAYERS)
def test_shapes(make, given, expected, text):
    layer = make()
    assert tuple(layer(torch.randn(given)).shape) == expected
    if text is not None:
        assert repr(layer) == text


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling_undoes_pooling(n):
    x = torch.rand(2, 3, *(4, 6, 8)[:n]) + 0.1
    y, at = getattr(nn, f"MaxPool{n}d")(2, return_indices=True)(x)
    z = getattr(nn, f"MaxUnpool{n}d")(2)(y, at)
    assert torch.equal(z, torch.where(z != 0, x, 0)) and (z != 0).sum() == y.numel()


def test_embedding_bag_layer():
    bag = nn.EmbeddingBag(6, 3, mode="sum", padding_idx=0)
    assert repr(bag) == "EmbeddingBag(6, 3, mode='sum', padding_idx=0)"
    assert torch.equal(bag.weight[0], torch.zeros(3))
    index = torch.tensor([[1, 2, 0], [3, 3, 5]])
    assert torch.allclose(bag(index), bag.weight[index].sum(1))
    bag(index).sum().backward()
    assert bag.weight.grad[:, 0].tolist() == [0, 1, 1, 2, 0, 1]
    fixed = nn.EmbeddingBag.from_pretrained(torch.ones(3, 2))
    assert not fixed.weight.requires_grad
    assert fixed(torch.tensor([0, 1, 2]), torch.tensor([0, 2])).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_gradient_of_large_bags(mode):
    """The kernel of its own against indexing."""
    w = torch.randn(50, 7, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 50, (40, 9))
    g = torch.randn(40, 7, dtype=torch.float64)
    rows = w[index]
    want = {"sum": lambda: rows.sum(1), "mean": lambda: rows.mean(1), "max": lambda: rows.amax(1)}[mode]()
    (a,) = torch.autograd.grad(F.embedding_bag(index, w, mode=mode), w, g)
    (b,) = torch.autograd.grad(want, w, g)
    assert torch.allclose(a, b)


def test_ctc_layer():
    lp = torch.randn(6, 2, 4).log_softmax(2)
    args = (lp, torch.tensor([[1, 2], [3, 0]]), (6, 5), (2, 1))
    assert torch.equal(nn.CTCLoss(reduction="sum")(*args), F.ctc_loss(*args, reduction="sum"))


def test_multihead_attention_state():
    m = nn.MultiheadAttention(8, 2)
    assert list(m.state_dict()) == ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]
    m = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, bias=False, add_bias_kv=True)
    names = ["q_proj_weight", "k_proj_weight", "v_proj_weight", "bias_k", "bias_v", "out_proj.weight"]
    assert sorted(m.state_dict()) == sorted(names)
    out, p = m(torch.randn(3, 2, 8), torch.randn(5, 2, 4), torch.randn(5, 2, 6))
    assert out.shape == (3, 2, 8) and p.shape == (2, 3, 6)
    with pytest.raises(AssertionError):
        nn.MultiheadAttention(8, 3)


def test_batch_first_is_a_transposition():
    a, b = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    b.load_state_dict(a.state_dict())
    x = torch.randn(3, 5, 8)
    assert torch.allclose(a(x, x, x)[0].transpose(0, 1), b(*[x.transpose(0, 1)] * 3)[0], atol=1e-6)
    assert torch.allclose(a(x, x, x, need_weights=False)[0], a(x, x, x)[0], atol=1e-6)


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer_is_what_it_says(norm_first):
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", norm_first=norm_first)
    x = torch.randn(5, 2, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    attend = lambda y: layer.self_attn(y, y, y, attn_mask=mask, need_weights=False)[0]
    feed = lambda y: layer.linear2(F.gelu(layer.linear1(y)))
    if norm_first:
        y = x + attend(layer.norm1(x))
        want = y + feed(layer.norm2(y))
    else:
        y = layer.norm1(x + attend(x))
        want = layer.norm2(y + feed(y))
    for hint in (False, True):
        assert torch.allclose(layer(x, src_mask=mask, is_causal=hint), want, atol=1e-5)


def test_a_causal_decoder_does_not_look_ahead():
    model = nn.Transformer(8, 2, 1, 2, 16, dropout=0.0, batch_first=True)
    src, tgt = torch.randn(2, 4, 8), torch.randn(2, 6, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    whole = model(src, tgt, tgt_mask=mask)
    assert whole.shape == (2, 6, 8)
    assert torch.allclose(model(src, tgt[:, :3], tgt_mask=mask[:3, :3]), whole[:, :3], atol=1e-5)
    whole.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_padding_is_not_attended_to():
    layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), 2, nn.LayerNorm(8)).eval()
    x = torch.randn(5, 2, 8)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    y = layer(x, src_key_padding_mask=padding)
    x2 = x.clone()
    x2[3:, 1] = 7.0
    assert torch.allclose(layer(x2, src_key_padding_mask=padding)[:3], y[:3], atol=1e-5)
    assert len({id(m) for m in layer.layers}) == 2
    np.testing.assert_allclose(y.detach().numpy().mean(-1), 0, atol=1e-5)
