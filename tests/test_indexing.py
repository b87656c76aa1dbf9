"""Indexing against NumPy: reading and writing with every kind of index and their mixtures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from subject import IS_PYRITE, torch

# PyTorch refuses negative steps; Pyrite's slices are views in both directions.
NEGATIVE_STEPS = IS_PYRITE


@st.composite
def shapes(draw, min_dims=0, max_dims=4, max_side=5):
    return tuple(draw(st.lists(st.integers(0, max_side), min_size=min_dims, max_size=max_dims)))


def slices(n):
    bounds = st.one_of(st.none(), st.integers(-n - 2, n + 2))
    steps = st.one_of(st.none(), st.integers(1, 3))
    if NEGATIVE_STEPS:
        steps = st.one_of(steps, st.integers(-3, -1))
    return st.builds(slice, bounds, bounds, steps)


@st.composite
def basic_index(draw, shape):
    """Integers, slices, None and at most one Ellipsis, for the first dimensions of `shape`."""
    items = []
    for n in shape[: draw(st.integers(0, len(shape)))]:
        kinds = ["slice"] + (["int"] if n else [])
        items.append(draw(st.integers(-n, n - 1)) if draw(st.sampled_from(kinds)) == "int" else draw(slices(n)))
    if draw(st.booleans()):
        # Everything behind the Ellipsis counts from the end.
        cut = draw(st.integers(0, len(items)))
        tail = shape[len(shape) - (len(items) - cut) :]
        behind = [draw(slices(n)) for n in tail]
        items = [*items[:cut], Ellipsis, *behind]
    for _ in range(draw(st.integers(0, 2))):
        items.insert(draw(st.integers(0, len(items))), None)
    return tuple(items)


def index_arrays(n, shape):
    return st.lists(st.integers(-n, n - 1), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).map(
        lambda values: np.array(values, np.int64).reshape(shape)
    )


@st.composite
def advanced_index(draw, shape):
    """At least one integer array or boolean mask among slices, integers, None and an Ellipsis."""
    items, used = [], 0
    broadcast = draw(st.sampled_from([(), (1,), (3,), (2, 1), (2, 3)]))
    dims = list(shape)
    array_at = draw(st.integers(0, len(dims) - 1))
    if draw(st.booleans()):
        # One boolean mask, over one or two dimensions.
        width = draw(st.integers(1, min(2, len(dims) - array_at)))
        items += [draw(slices(n)) for n in dims[:array_at]]
        mask_shape = tuple(dims[array_at : array_at + width])
        count = int(np.prod(mask_shape))
        items.append(np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool).reshape(mask_shape))
        used = array_at + width
        for n in dims[used:]:
            if draw(st.booleans()):
                break
            items.append(draw(slices(n)))
        return tuple(items)
    for i, n in enumerate(dims):
        kind = "array" if i == array_at else draw(st.sampled_from(["array", "slice", "slice", "stop"]))
        if kind == "stop" and i > array_at:
            break
        if kind == "array" and n:
            items.append(draw(index_arrays(n, draw(st.sampled_from([broadcast, (1,) * len(broadcast)])))))
        else:
            items.append(draw(slices(n)))
    return tuple(items)


def to_torch(index):
    return tuple(torch.from_numpy(i.copy()) if isinstance(i, np.ndarray) else i for i in index)


def pair(shape):
    a = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return a, torch.from_numpy(a.copy())


def check_get(shape, index):
    a, t = pair(shape)
    expected = a[index]
    got = t[to_torch(index)]
    assert tuple(got.shape) == expected.shape
    np.testing.assert_array_equal(got.numpy(), expected)


def check_set(shape, index, data):
    a, t = pair(shape)
    target = a[index]
    if data.draw(st.booleans()):
        value = np.float32(-7)
        t[to_torch(index)] = -7.0
    else:
        value = (np.arange(target.size, dtype=np.float32) + 1000).reshape(target.shape)
        if target.ndim and data.draw(st.booleans()):
            value = value[..., -1:] if target.shape[-1] else value
        t[to_torch(index)] = torch.from_numpy(np.array(value))
    a[index] = value
    np.testing.assert_array_equal(t.numpy(), a)


@given(st.data())
def test_basic_get(data):
    shape = data.draw(shapes())
    check_get(shape, data.draw(basic_index(shape)))


@given(st.data())
def test_basic_get_of_a_view(data):
    """The same, of a transposed and offset tensor."""
    shape = data.draw(shapes(min_dims=2, max_dims=3))
    a, t = pair((shape[0] + 1, *shape[1:]))
    a, t = a[1:].swapaxes(0, -1), t[1:].transpose(0, -1)
    index = data.draw(basic_index(a.shape))
    np.testing.assert_array_equal(t[index].numpy(), a[index])


@given(st.data())
def test_basic_set(data):
    shape = data.draw(shapes())
    check_set(shape, data.draw(basic_index(shape)), data)


@given(st.data())
def test_advanced_get(data):
    shape = data.draw(shapes(min_dims=1))
    check_get(shape, data.draw(advanced_index(shape)))


@given(st.data())
def test_advanced_set(data):
    shape = data.draw(shapes(min_dims=1))
    index = data.draw(advanced_index(shape))
    a = np.zeros(shape)
    # Writing twice to one place leaves either value: only indices without repetition are comparable.
    positions = np.arange(a.size).reshape(shape)[index]
    if len(np.unique(positions)) == positions.size:
        check_set(shape, index, data)


@given(st.data())
def test_gradient_of_indexing(data):
    """d/dx of sum(w * x[index]) puts w where the index points; repeated positions add up."""
    shape = data.draw(shapes(min_dims=1, max_dims=3))
    index = data.draw(st.one_of(basic_index(shape), advanced_index(shape)))
    a, _ = pair(shape)
    x = torch.from_numpy(a.copy()).requires_grad_()
    y = x[to_torch(index)]
    w = (np.arange(a[index].size, dtype=np.float32) + 1).reshape(a[index].shape)
    (y * torch.from_numpy(np.array(w))).sum().backward()
    expected = np.zeros(shape, np.float32)
    np.add.at(expected, index, w)
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_basic_indexing_is_a_view():
    t = torch.zeros(3, 4)
    t[1].fill_(1)
    t[:, 2][0] = 5
    t[None, ..., ::2][0, 2, 1] = 9
    assert t.tolist() == [[0, 0, 5, 0], [1, 1, 1, 1], [0, 0, 9, 0]]


@pytest.mark.pyrite
def test_negative_steps_are_views():
    t = torch.arange(6)
    r = t[::-1]
    assert r.stride() == (-1,)
    r[0] = 50
    assert t[5].item() == 50
    assert t[4:1:-2].tolist() == [4, 2]
    assert (t[::-1] + t).tolist() == [50, 5, 5, 5, 5, 50]


def test_advanced_indexing_is_a_copy():
    t = torch.arange(4)
    t[torch.tensor([0, 1])].add_(100)
    t[t > 1].add_(100)
    assert t.tolist() == [0, 1, 2, 3]


def test_index_put_through_an_operator():
    t = torch.zeros(4)
    t[torch.tensor([1, 3])] += 2
    t[t == 0] -= 1
    assert t.tolist() == [-1, 2, -1, 2]


def test_zero_dimensional_and_list_indices():
    t = torch.arange(12).reshape(3, 4)
    assert t[torch.tensor(1)].tolist() == [4, 5, 6, 7]
    assert t[[0, 2], 1].tolist() == [1, 9]
    assert t[torch.tensor([True, False, True])].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert t[True].shape == (1, 3, 4)
    assert t[False].shape == (0, 3, 4)
    assert t[..., torch.tensor([], dtype=torch.int64)].shape == (3, 0)
    assert [row.tolist() for row in t] == t.tolist()
    assert t[np.int64(2), np.array([0, 1])].tolist() == [8, 9]


def test_uint8_and_int32_indices():
    t = torch.arange(5)
    assert t[torch.tensor([3, 1], dtype=torch.int32)].tolist() == [3, 1]


@pytest.mark.parametrize(
    "index, error",
    [
        (3, IndexError),
        (-4, IndexError),
        ((0, 0, 0), IndexError),
        ((0, 4), IndexError),
        (torch.tensor([3]), IndexError),
        (torch.tensor([0.5]), IndexError),
        (torch.ones(4, dtype=torch.bool), IndexError),
        ((torch.tensor([0, 1]), torch.tensor([0, 1, 2])), IndexError),
        ("a", (TypeError, IndexError)),
        (1.5, (TypeError, IndexError)),
        (slice(0, 2, 0), ValueError),
    ],
    ids=str,
)
def test_bad_index(index, error):
    t = torch.zeros(3, 4)
    with pytest.raises(error):
        t[index]
    with pytest.raises((error, RuntimeError) if isinstance(error, type) else (*error, RuntimeError)):
        t[index] = 1.0


def test_set_with_a_wrong_shape():
    t = torch.zeros(3, 4)
    with pytest.raises(RuntimeError):
        t[0] = torch.ones(3)
    with pytest.raises(RuntimeError):
        t[torch.tensor([0, 1])] = torch.ones(3, 4)
    assert t.sum().item() == 0


def test_set_converts_the_dtype():
    t = torch.zeros(3, dtype=torch.int32)
    t[1] = 2.9
    t[2] = torch.tensor(3.7, dtype=torch.float64)
    assert t.tolist() == [0, 2, 3]


WRITES = {
    "scatter": lambda t, i, v: t.scatter_(0, i[:, None].expand(-1, 3), v),
    "scatter_add": lambda t, i, v: t.scatter_add_(0, i[:, None].expand(-1, 3), v),
    "scatter_reduce": lambda t, i, v: t.scatter_reduce_(0, i[:, None].expand(-1, 3), v, "amax"),
    "index_add": lambda t, i, v: t.index_add_(0, i, v),
    "index_copy": lambda t, i, v: t.index_copy_(0, i, v),
    "index_fill": lambda t, i, v: t.index_fill_(0, i, -1.0),
    "put": lambda t, i, v: t.put_(i * 3, v[:, 0]),
    "index_put": lambda t, i, v: t.index_put_((i,), v),
    "index_put of two": lambda t, i, v: t.index_put_((i, i % 3), v[:, 0]),
    "index_put, added": lambda t, i, v: t.index_put_((i,), v, accumulate=True),
    "x[index] = value": lambda t, i, v: t.__setitem__(i, v),
}


@pytest.mark.pyrite
@pytest.mark.parametrize("n", [6, 30_000])
@pytest.mark.parametrize("name", sorted(WRITES))
def test_a_bad_index_leaves_the_tensor_as_it_was(name, n):
    t = torch.arange(3.0 * n).reshape(n, 3)
    before = t.clone()
    for bad in (n, -n - 1, 2**40):
        i = torch.arange(n)
        i[-1] = bad
        with pytest.raises((IndexError, RuntimeError), match="index"):
            WRITES[name](t, i, -torch.ones(n, 3))
        assert torch.equal(t, before)
