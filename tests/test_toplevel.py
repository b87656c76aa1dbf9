"""Functions that stand at top level with signatures of their own: equal to `nn.functional`'s or to NumPy's values."""

import numpy as np
import pytest
from subject import IS_PYRITE, F, torch


def t(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


A, B, C = t(4, 3), t(4, 3, seed=1), t(4, 3, seed=2)
SIGN = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
LOSSES = {
    "binary_cross_entropy_with_logits": (A, B.sigmoid()),
    "cosine_embedding_loss": (A, B, SIGN),
    "hinge_embedding_loss": (A, SIGN[:, None].expand(4, 3)),
    "kl_div": (A, B.softmax(-1)),
    "margin_ranking_loss": (A[:, 0], B[:, 0], SIGN),
    "triplet_margin_loss": (A, B, C),
}


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_count_their_reduction(name):
    top, functional = getattr(torch, name), getattr(F, name)
    for number, word in enumerate(["none", "mean", "sum"]):
        assert torch.equal(top(*LOSSES[name], reduction=number), functional(*LOSSES[name], reduction=word))
    assert torch.equal(top(*LOSSES[name]), functional(*LOSSES[name]))
    if IS_PYRITE:
        with pytest.raises(ValueError, match="reduction"):
            top(*LOSSES[name], reduction=7)


def test_more_losses():
    for number, word in enumerate(["none", "mean", "sum"]):
        got = torch.poisson_nll_loss(A, B.exp(), True, False, 1e-8, number)
        assert torch.equal(got, F.poisson_nll_loss(A, B.exp(), reduction=word))
    probabilities = t(5, 2, 4).log_softmax(-1)
    args = probabilities, torch.tensor([[1, 2], [3, 3]]), torch.tensor([5, 5]), torch.tensor([2, 1])
    assert torch.equal(torch.ctc_loss(*args, 0, 2), F.ctc_loss(*args, reduction="sum"))


def test_functions_of_two_tensors():
    a, b = A.numpy(), B.numpy()
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(torch.cosine_similarity(A, B).numpy(), (a * b).sum(1) / norms)
    np.testing.assert_allclose(torch.pairwise_distance(A, B, eps=0.0).numpy(), np.linalg.norm(a - b, axis=1))
    pairs = [np.linalg.norm(a[i] - a[j]) for i in range(4) for j in range(i + 1, 4)]
    np.testing.assert_allclose(torch.pdist(A).numpy(), pairs)
    w = t(2, 3, 3, seed=3)
    np.testing.assert_allclose(torch.bilinear(A, B, w).numpy(), np.einsum("ni,kij,nj->nk", a, w.numpy(), b))


def test_rearrangements():
    x = t(1, 8, 2, 2)
    y = torch.pixel_shuffle(x, 2)
    expected = x.numpy().reshape(1, 2, 2, 2, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(1, 2, 4, 4)
    np.testing.assert_array_equal(y.numpy(), expected)
    assert torch.equal(torch.pixel_unshuffle(y, 2), x)
    np.testing.assert_array_equal(
        torch.channel_shuffle(x, 4).numpy(), x.numpy().reshape(1, 4, 2, 2, 2).swapaxes(1, 2).reshape(1, 8, 2, 2)
    )
    values, where = torch.adaptive_max_pool1d(x[0, :, 0], 1)
    assert torch.equal(values[:, 0], x[0, :, 0].amax(1)) and torch.equal(where[:, 0], x[0, :, 0].argmax(1))


@pytest.mark.parametrize("n", [None, 0, 1, 2, 5])
@pytest.mark.parametrize("increasing", [False, True])
def test_vander(n, increasing):
    x = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    got = torch.vander(x, n, increasing)
    np.testing.assert_array_equal(got.numpy(), np.vander(x.numpy(), n, increasing))
    assert torch.vander(torch.tensor([2, 3])).tolist() == [[2, 1], [3, 1]]
    with pytest.raises(RuntimeError, match="one-dimensional"):
        torch.vander(torch.ones(2, 2))


def test_random_slopes_and_dropout():
    x = torch.ones(1000).neg()
    y = torch.rrelu(x, 0.1, 0.3, training=True, generator=torch.Generator().manual_seed(0))
    again = torch.rrelu(x, 0.1, 0.3, training=True, generator=torch.Generator().manual_seed(0))
    assert torch.equal(y, again) and -0.3 <= y.min() < -0.25 and -0.15 < y.max() <= -0.1
    assert torch.equal(torch.rrelu(x, 0.1, 0.3), x * 0.2)
    z = x.clone()
    assert torch.rrelu_(z, 0.1, 0.3) is z and torch.equal(z, x * 0.2)
    torch.manual_seed(0)
    dropped = torch.alpha_dropout(x, 0.5, True)
    torch.manual_seed(0)
    assert torch.equal(dropped, F.alpha_dropout(x, 0.5, True)) and 400 < (dropped < -0.5).sum() < 600
    assert torch.equal(torch.alpha_dropout(x, 0.5, False), x)
    z = x.clone()
    assert torch.alpha_dropout_(z, 0.5, True) is z and not torch.equal(z, x)
    assert torch.feature_alpha_dropout(x.reshape(10, 10, 10), 0.5, True).std(2).max() == 0
    z = x.reshape(10, 10, 10).clone()
    assert torch.feature_alpha_dropout_(z, 0.5, True) is z


def test_the_rest():
    x = t(2, 3, 5)
    y = torch.instance_norm(x, None, None, None, None, True, 0.1, 0.0, False)
    expected = (x.numpy() - x.numpy().mean(2, keepdims=True)) / x.numpy().std(2, keepdims=True)
    np.testing.assert_allclose(y.numpy(), expected)
    a = torch.tensor([4, 6])
    assert torch.lcm_(a, torch.tensor([6, 4])) is a and a.tolist() == [12, 12]
    b = torch.tensor([1.0, 3.0])
    assert torch.ldexp_(b, torch.tensor([2, -1])) is b and b.tolist() == [4.0, 1.5]
    assert not torch.is_inference(b)
