"""Forms of arguments and corners of definitions that PyTorch programs rely on: numbers in place of tensors, `out=` of
other dtypes, whole numbers where fractions were given, empty matrices, points where a formula has no value."""

import warnings

import numpy as np
import pytest
from subject import IS_PYRITE, F, torch

X = torch.tensor([1.0, -2.0, 4.0])
INF, NAN = float("inf"), float("nan")


# ---- numbers first ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "true_divide", "floor_divide"])
@pytest.mark.parametrize("first", [3, 1.5, True])
def test_arithmetic_takes_a_number_first(name, first):
    f = getattr(torch, name)
    reference = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "true_divide": np.divide,
        "floor_divide": np.floor_divide,
    }[name]  # fmt: skip
    if name == "sub" and first is True:
        pytest.skip("booleans do not subtract")
    np.testing.assert_allclose(f(first, X).numpy(), reference(np.float32(first), X.numpy()))
    assert f(first, X).dtype == torch.float32
    # The number stays weak.
    half = f(first, X.to(torch.float16))
    assert half.dtype == torch.float16
    got = f(first, 2)
    assert got.dim() == 0 and got.item() == pytest.approx(reference(first, 2))


def test_number_first_with_options():
    assert torch.equal(torch.add(1, X, alpha=2), 1 + 2 * X)
    assert torch.equal(torch.sub(1, X, alpha=2), 1 - 2 * X)
    assert torch.equal(torch.div(7, X, rounding_mode="floor"), torch.tensor([7.0, -4.0, 1.0]))
    x = X.clone().requires_grad_()
    torch.div(2.0, x).sum().backward()
    assert torch.allclose(x.grad, -2 / X**2)
    assert torch.add(1, 2).dtype == torch.int64 and torch.div(1, 2).dtype == torch.float32


# ---- out= -------------------------------------------------------------------------------------------------------------

EXACT = {
    "abs": lambda out: torch.abs(X, out=out),
    "mm": lambda out: torch.mm(torch.ones(2, 3), torch.ones(3, 2), out=out),
    "gather": lambda out: torch.gather(X, 0, torch.tensor([0, 2]), out=out),
    "floor": lambda out: torch.floor(X, out=out),
    "where": lambda out: torch.where(X > 0, X, -X, out=out),
    "norm": lambda out: torch.linalg.norm(X, out=out),
    "inv": lambda out: torch.linalg.inv(torch.eye(2), out=out),
    "softmax": lambda out: torch.softmax(X, 0, out=out),
    "take": lambda out: torch.take(X, torch.tensor([0]), out=out),
    "index_select": lambda out: torch.index_select(X, 0, torch.tensor([0]), out=out),
}


@pytest.mark.parametrize("name", sorted(EXACT))
def test_out_of_another_dtype_is_refused_where_pytorch_refuses(name):
    with pytest.raises(RuntimeError, match=r"d?type"):
        EXACT[name](torch.empty(0, dtype=torch.float64))
    out = torch.empty(0)
    assert EXACT[name](out) is out


def test_out_of_a_wider_dtype_is_taken_elsewhere():
    for f in (torch.exp, torch.sin, torch.sqrt):
        out = torch.empty(3, dtype=torch.float64)
        f(X.abs(), out=out)
        np.testing.assert_allclose(out.numpy(), f(X.abs()).numpy(), rtol=1e-6)
    with pytest.raises(RuntimeError):
        torch.argmax(X, out=torch.empty((), dtype=torch.int32))
    values, places = torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.int64)
    with pytest.raises(RuntimeError):
        torch.max(X, 0, out=(values, places))
    with pytest.raises(RuntimeError):
        torch.multinomial(X.abs(), 2, out=torch.empty(0))


def test_rounding_integers_into_out():
    i = torch.tensor([1, -5])
    for f in (torch.floor, torch.ceil, torch.trunc):
        out = torch.empty(2, dtype=torch.int64)
        assert torch.equal(f(i, out=out), i)


def test_joining_into_what_cannot_hold_it_is_a_type_error():
    for f in (torch.cat, torch.stack, torch.hstack, torch.vstack, torch.dstack, torch.column_stack):
        with pytest.raises(TypeError):
            f([X, X], out=torch.empty(0, dtype=torch.int64))


def test_out_must_not_be_the_input_of_a_gathering_op():
    x = torch.arange(4.0)
    with pytest.raises(RuntimeError):
        torch.take(x, torch.tensor([3, 2, 1, 0]), out=x)
    with pytest.raises(RuntimeError):
        torch.cat([x, torch.ones(0)], out=x)
    assert torch.equal(x, torch.arange(4.0))


def test_lstsq_out():
    a, b = torch.tensor([[2.0, 0.0], [0.0, 4.0], [0.0, 0.0]]), torch.tensor([[2.0], [4.0], [1.0]])
    outs = tuple(torch.empty(0, dtype=d) for d in (torch.float32, torch.float32, torch.int64, torch.float32))
    torch.linalg.lstsq(a, b, driver="gelsd", out=outs)
    assert torch.allclose(outs[0], torch.ones(2, 1)) and outs[2].item() == 2


# ---- ranges -----------------------------------------------------------------------------------------------------------


def test_ranges_of_integers_cut_their_ends_first():
    # numpy.linspace(4, -3, 50) cut to integers, where the step does not meet one by rounding.
    got = torch.linspace(4.3, -3, 50, dtype=torch.int64).numpy()
    exact = np.array([int(v) for v in np.linspace(4, -3, 50)])
    assert (np.abs(got - exact) <= 1).all() and (got != exact).sum() <= 2 and got[0] == 4 and got[-1] == -3
    assert torch.linspace(4.9, 50.0, 47, dtype=torch.int32).tolist() == list(range(4, 51))
    assert torch.logspace(0, 1.2, 2, dtype=torch.int64).tolist() == [1, 10]


def test_how_many_a_range_of_small_integers_has():
    assert torch.arange(0.0, -8.000001, -4.0, dtype=torch.int32).tolist() == [0, -4, -8]
    assert torch.arange(-0.9, 2.1, 2.0, dtype=torch.uint8).tolist() == [0, 2]
    assert torch.arange(0, 5, 2, dtype=torch.int16).tolist() == [0, 2, 4]
    assert torch.arange(0.0, 6.5, 2.0, dtype=torch.int64).tolist() == [0, 2, 4]


def test_narrow_from_a_tensor():
    x = torch.arange(10)
    assert x.narrow(0, torch.tensor(3), 2).tolist() == [3, 4]
    with pytest.raises(RuntimeError, match="0-dim integral"):
        x.narrow(0, torch.tensor(3.0), 2)


# ---- shapes without elements, dimensions that are not there -------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 0), (5, 0), (0, 4)])
@pytest.mark.parametrize("order", [1, 2, INF, "fro", "nuc"])
def test_norms_of_empty_matrices(shape, order):
    assert torch.linalg.norm(torch.ones(shape), order).item() == 0.0
    assert torch.linalg.norm(torch.ones(shape), order, keepdim=True, dim=(0, 1)).shape == (1, 1)


def test_roll_of_a_scalar_has_no_dimension():
    assert torch.roll(torch.tensor(1.0), 0).item() == 1.0
    with pytest.raises(IndexError):
        torch.roll(torch.tensor(1.0), 0, 0)


def test_unravel_index_is_of_int64():
    for d in (torch.uint8, torch.int32, torch.int64):
        got = torch.unravel_index(torch.tensor([7, 2], dtype=d), (3, 4))
        assert [g.tolist() for g in got] == [[1, 0], [3, 2]] and got[0].dtype == torch.int64


# ---- windows, padding, convolutions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sym", [True, False])
def test_windows_of_one_point(sym):
    w = torch.signal.windows
    one = [w.bartlett, w.blackman, w.cosine, w.exponential, w.gaussian, w.hamming, w.hann, w.kaiser, w.nuttall]
    for f in one:
        assert f(1, sym=sym).tolist() == [1.0], f.__name__


def test_circular_padding_crops_first():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    got = F.pad(x, (-1, 1, -2, 1), mode="circular")
    cropped = x.numpy()[:, :, 2:, 1:]
    want = np.pad(cropped, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="wrap")
    np.testing.assert_array_equal(got.numpy(), want)


def test_constant_padding_with_a_complex_number():
    z = torch.tensor([1 + 2j])
    assert torch.constant_pad_nd(z, (1, 1), 3 - 1j).tolist() == [3 - 1j, 1 + 2j, 3 - 1j]
    assert torch.constant_pad_nd(X, (1, 0), 2).tolist() == [2.0, 1.0, -2.0, 4.0]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_output_padding_beyond_the_stride(n):
    """Allowed where the dilation is greater; equal to the adjoint written out."""
    rng = np.random.default_rng(n)
    stride, dilation, extra, pad, kernel, size = 2, 4, 3, 1, 2, 3
    x, w = rng.standard_normal((1, 1) + (size,) * n), rng.standard_normal((1, 1) + (kernel,) * n)
    f = getattr(F, f"conv_transpose{n}d")
    got = f(torch.from_numpy(x), torch.from_numpy(w), None, stride, pad, extra, 1, dilation).numpy()[0, 0]
    length = (size - 1) * stride - 2 * pad + dilation * (kernel - 1) + extra + 1
    want = np.zeros((length,) * n)
    for i in np.ndindex((size,) * n):
        for k in np.ndindex((kernel,) * n):
            o = tuple(a * stride - pad + b * dilation for a, b in zip(i, k, strict=True))
            if all(0 <= p < length for p in o):
                want[o] += x[(0, 0, *i)] * w[(0, 0, *k)]
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_small_refusals():
    with pytest.raises(ValueError, match="margin"):
        F.triplet_margin_with_distance_loss(X, X, X, margin=-1.0)
    with pytest.raises(RuntimeError, match="stride"):
        F.max_pool1d(torch.ones(1, 3, 3), 1, stride=0)


def test_complex_rms_norm_and_ldexp():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((3, 4)) + 1j * rng.standard_normal((3, 4))
    want = z / np.sqrt((z * z).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(F.rms_norm(torch.from_numpy(z), (4,), eps=1e-5).numpy(), want, rtol=1e-10)
    np.testing.assert_allclose(torch.ldexp(torch.from_numpy(z), torch.tensor(3)).numpy(), z * 8)


# ---- gradients where a formula has no value -------------------------------------------------------------------------------


def grads(f, *values):
    xs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
    return [g.item() for g in torch.autograd.grad(f(*xs), xs)]


def test_gradients_at_the_edges():
    assert grads(torch.atan2, 0.0, 0.0) == [0.0, 0.0]
    assert grads(torch.nextafter, 1.0, 1.0)[0] == 0.0
    assert grads(torch.logaddexp, 1e20, 1e20) == [0.5, 0.5]
    assert grads(torch.logaddexp2, 1e20, 1e20) == [0.5, 0.5]
    assert np.isnan(grads(torch.logit, 1.5)[0])
    assert grads(torch.relu, NAN) == [1.0] and grads(F.elu, NAN) == [1.0]
    assert grads(torch.maximum, NAN, 2.0) == [1.0, 1.0]
    # 0.3 / 0.1 is 2 in whole divisors, though the quotient rounds to 3.
    assert grads(torch.remainder, 0.3, 0.1) == [1.0, -2.0]


def test_quantile_has_a_gradient_for_q():
    x = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    for f in (torch.quantile, torch.nanquantile):
        q = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
        f(x, q).sum().backward()
        assert torch.allclose(q.grad, torch.tensor([3.0, 6.0, 12.0], dtype=torch.float64))
        assert torch.autograd.gradcheck(lambda q, f=f: f(x, q), q)


def test_logcumsumexp_of_large_complex_numbers():
    z = torch.full((4,), 1e4 + 0j, dtype=torch.complex128, requires_grad=True)
    y = torch.logcumsumexp(z, 0)
    y.real.sum().backward()
    # d y_i / d z_j = 1 / (i + 1) for j <= i.
    want = [sum(1 / (i + 1) for i in range(j, 4)) for j in range(4)]
    np.testing.assert_allclose(z.grad.resolve_conj().numpy(), want, rtol=1e-9)


# ---- copies ---------------------------------------------------------------------------------------------------------------


def test_copying_forms_of_views():
    x = torch.arange(6.0).reshape(2, 3)
    forms = {
        "alias_copy": ((), x), "as_strided_copy": (((3,), (2,)), x.as_strided((3,), (2,))), "detach_copy": ((), x),
        "diagonal_copy": ((), x.diagonal()), "expand_copy": (((4, 2, 3),), x.expand(4, 2, 3)),
        "permute_copy": (((1, 0),), x.T), "select_copy": ((0, 1), x[1]), "slice_copy": ((1, 0, 2), x[:, :2]),
        "squeeze_copy": ((), x), "t_copy": ((), x.T), "transpose_copy": ((0, 1), x.T),
        "unfold_copy": ((1, 2, 1), x.unfold(1, 2, 1)), "unsqueeze_copy": ((0,), x[None]), "view_copy": (((3, 2),), x.view(3, 2)),
    }  # fmt: skip
    for name, (args, want) in forms.items():
        got = getattr(torch, name)(x, *args)
        assert torch.equal(got, want) and got.data_ptr() != x.data_ptr(), name
        out = torch.empty(0)
        getattr(torch, name)(x, *args, out=out)
        assert torch.equal(out, want), name
    for name, args in {"split_copy": (2,), "split_with_sizes_copy": ([1, 1],), "unbind_copy": ()}.items():
        parts = getattr(torch, name)(x, *args)
        assert torch.equal(torch.cat([p.reshape(-1) for p in parts]), x.reshape(-1))
        assert all(p.data_ptr() != x.data_ptr() for p in parts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.view_as_real_copy(torch.tensor([1 + 2j])).tolist() == [[1.0, 2.0]]
        assert torch.view_as_complex_copy(torch.tensor([[1.0, 2.0]])).tolist() == [1 + 2j]


# ---- indexing and views as old programs write them -----------------------------------------------------------------------


def test_sequences_as_indices():
    x = torch.arange(12.0).reshape(3, 4)
    assert torch.equal(x[range(2)], x[:2])
    assert x[range(3), range(3)].tolist() == [0.0, 5.0, 10.0]
    x[range(2), range(2)] = -1.0
    assert x[0, 0] == -1 and x[1, 1] == -1
    # A list that holds more than numbers stands for a tuple.
    with pytest.warns(UserWarning, match="non-tuple sequence"):
        assert torch.equal(x[[slice(0, 2), slice(0, 1)]], x[0:2, 0:1])
    with pytest.warns(UserWarning, match="non-tuple sequence"):
        assert torch.equal(x[[[0, 1], [1, 2]]], x[[0, 1], [1, 2]])
    assert torch.equal(x[[0, 1]], x[:2]) and torch.equal(x[[True, False, True]], x[::2])


def test_byte_masks_warn():
    x = torch.arange(3.0)
    mask = torch.tensor([1, 0, 1], dtype=torch.uint8)
    with pytest.warns(UserWarning, match="uint8"):
        assert x[mask].tolist() == [0.0, 2.0]


def test_shapes_are_required_arguments():
    x = torch.zeros(2, 2)
    for name in ("view", "reshape", "permute", "expand", "repeat", "flip", "tile"):
        with pytest.raises(TypeError):
            getattr(x, name)()


def test_bases_of_several_views():
    t = torch.zeros(4, 4)
    for views in (t.unbind(), t.split(2), t.chunk(2), t.tensor_split(3), t.hsplit(2), list(t)):
        assert all(v._base is t for v in views)


def test_tensor_split_by_a_vector_of_one():
    x = torch.arange(6)
    assert [p.tolist() for p in torch.tensor_split(x, torch.tensor([0]))] == [[], [0, 1, 2, 3, 4, 5]]
    assert [p.tolist() for p in torch.tensor_split(x, torch.tensor(2))] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(RuntimeError):
        torch.tensor_split(x, torch.tensor([[1]]))


def test_strides_of_expanding_by_one():
    x = torch.zeros(3, 4)
    assert x.expand(1, 3, 4).stride() == x.unsqueeze(0).stride() == (12, 4, 1)
    assert torch.zeros(5).expand(1, 1, 5).stride() == (5, 5, 1)
    assert x.expand(2, 3, 4).stride() == (0, 4, 1)


def test_resizing_to_the_same_shape_changes_nothing():
    x = torch.empty(2, 3).t()
    assert x.resize_as_(x).stride() == (1, 3) and x.resize_(3, 2).stride() == (1, 3)
    with pytest.raises(RuntimeError, match="overflow"):
        torch.empty(1).resize_([0, 4, 2**61])


def test_swapaxes_by_its_own_names():
    x = torch.zeros(2, 3)
    assert torch.swapaxes(x, axis0=0, axis1=1).shape == x.swapdims(dim0=0, dim1=1).shape == (3, 2)


def test_new():
    x = torch.zeros(2, dtype=torch.float64)
    assert x.new(2, 3).shape == (2, 3) and x.new(2, 3).dtype == torch.float64
    assert x.new([1, 2]).tolist() == [1.0, 2.0] and x.new().shape == (0,) and x.new(x.shape).shape == (2,)


def test_reductions_into_out():
    x = torch.tensor([[1.7, 2.6], [3.5, -4.4]])
    out = torch.empty(0)
    assert torch.prod(x, 1, out=out) is out
    np.testing.assert_allclose(out.numpy(), x.numpy().prod(1), rtol=1e-6)
    # `out` says what to add up in.
    whole = torch.empty(2, dtype=torch.int64)
    assert torch.sum(x, 1, out=whole).tolist() == [3, -1]
    wide = torch.empty(2, dtype=torch.float64)
    with pytest.raises(RuntimeError):
        torch.sum(x, 1, dtype=torch.float32, out=wide)


def test_histogramdd_without_dimensions():
    hist, edges = torch.histogramdd(torch.zeros(3, 0), [])
    assert hist.dim() == 0 and len(edges) == 0


# ---- data from Python ------------------------------------------------------------------------------------------------------


class Letters:
    """A sequence by its methods alone."""

    def __init__(self, values, broken=False):
        self.values, self.broken = values, broken

    def __len__(self):
        return len(self.values)

    def __getitem__(self, i):
        if self.broken:
            raise TypeError
        return self.values[i]


def test_tensor_from_any_sequence():
    assert torch.tensor(Letters([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert torch.tensor(range(3)).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="could not determine the shape"):
        torch.tensor(Letters([1.0], broken=True))


def test_numbers_beyond_64_bits():
    assert torch.tensor(2**64, dtype=torch.float64).item() == 2.0**64
    assert torch.tensor([2**70, 1], dtype=torch.float32).tolist() == [2.0**70, 1.0]
    assert torch.tensor([-(2**63) - 1, 0], dtype=torch.bool).tolist() == [True, False]
    with pytest.raises((OverflowError, RuntimeError, ValueError)):
        torch.tensor(2**64)


def test_asarray_of_a_buffer_shares_it():
    data = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    t = torch.asarray(memoryview(data))
    t[0] = 7.0
    assert data[0] == 7.0 and t.dtype == torch.float32
    z = np.array([1 + 2j], dtype=np.complex64)
    assert torch.asarray(memoryview(z), dtype=torch.complex64).tolist() == [1 + 2j]
    own = torch.asarray(memoryview(data), copy=True)
    own[1] = 0.0
    assert data[1] == 2.0


def test_ranges_into_a_view_keep_its_shape():
    for f, want in {
        lambda out: torch.linspace(0, 3, 4, out=out): [0, 1, 2, 3],
        lambda out: torch.logspace(0, 3, 4, base=2.0, out=out): [1, 2, 4, 8],
        lambda out: torch.arange(0, 4, out=out): [0, 1, 2, 3],
    }.items():
        x = torch.zeros(2, 3)
        f(x.narrow(1, 1, 2))
        assert x.tolist() == [[0, *want[:2]], [0, *want[2:]]]


def test_logspace_between_complex_numbers():
    got = torch.logspace(0, 1 + 1j, 3).numpy()
    np.testing.assert_allclose(got, 10.0 ** np.array([0, 0.5 + 0.5j, 1 + 1j]), rtol=1e-5)
    assert got.dtype == np.complex64


def test_writing_another_dtype_through_indices():
    x, i = torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="dtypes match"):
        x[:, [1]] = i
    x[:, 1:] = i
    assert x.sum().item() == 3.0


def test_boolean_alpha_needs_booleans():
    assert torch.add(torch.tensor(True), torch.tensor(True), alpha=True).item() is True
    with pytest.raises(RuntimeError, match="Boolean alpha"):
        torch.add(torch.ones(2), 1, alpha=True)


def test_only_one_element_is_a_number():
    for x in (torch.ones(0), torch.ones(2)):
        for f in (int, float, complex):
            with pytest.raises(ValueError, match="only one element"):
                f(x)
        with pytest.raises(RuntimeError):
            x.item()


def test_small_forms():
    empty = torch.ones(0)
    assert torch.cat([empty, empty], dim=1).shape == (0,)
    assert torch.roll(torch.arange(4).reshape(2, 2), 1, dims=None).tolist() == [[3, 0], [1, 2]]
    assert (torch.empty(100, dtype=torch.int8).random_(100, None) >= 100).all()
    with pytest.raises(RuntimeError):
        torch.meshgrid(torch.ones(2), torch.ones(2, dtype=torch.int64), indexing="ij")
    z = torch.tensor([3 + 4j])
    assert torch.abs(z, out=torch.empty(1, dtype=torch.complex64)).tolist() == [5 + 0j]
    with pytest.raises(AssertionError, match="not equal"):
        torch.testing.assert_close(torch.tensor([1, 2]), torch.tensor([1, 3]), rtol=0, atol=0)


# ---- operators ---------------------------------------------------------------------------------------------------------------


class Right:
    def __radd__(self, other):
        return "added"

    def __rmul__(self, other):
        return "multiplied"


def test_in_place_operators_let_the_other_object_answer():
    x = torch.ones(2)
    x += Right()
    assert x == "added"
    x = torch.ones(2)
    x *= Right()
    assert x == "multiplied"
    x = torch.ones(2)
    with pytest.raises(TypeError, match="unsupported operand"):
        x -= Right()


def test_heaviside_wants_one_dtype():
    with pytest.raises(RuntimeError, match="different dtypes"):
        torch.heaviside(torch.ones(2), torch.ones(2, dtype=torch.int64))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_nextafter_of_halves(dtype):
    d = getattr(torch, dtype)
    if dtype == "float16" and not IS_PYRITE:
        pytest.skip("PyTorch has none")
    eps, tiny = torch.finfo(d).eps, torch.finfo(d).smallest_normal * torch.finfo(d).eps
    a = torch.tensor([1.0, 1.0, -1.0, 0.0, 0.0, 2.0, NAN], dtype=d)
    b = torch.tensor([2.0, 0.0, -2.0, 1.0, -1.0, 2.0, 1.0], dtype=d)
    got = torch.nextafter(a, b).tolist()
    assert got[:6] == [1 + eps, 1 - eps / 2, -1 - eps, tiny, -tiny, 2.0] and np.isnan(got[6])


def test_messages_name_types_as_pytorch_does():
    x = torch.ones(2, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="result type Float can't be cast to the desired output type Long"):
        x += 0.5


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 3, 2), (3, 1, 0, 2), (2, 3, 0, 1)])
def test_batch_norm_of_permuted_memory(training, order):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 3, 4, 5))
    back = np.argsort(order)
    shape = [values.shape[i] for i in order]
    x = torch.from_numpy(values.transpose(order).copy()).permute(*[int(i) for i in back]).requires_grad_()
    assert x.shape == values.shape and sorted(shape) == [2, 3, 4, 5]
    mean, var = rng.standard_normal(3), rng.random(3) + 0.5
    y = F.batch_norm(x, torch.from_numpy(mean.copy()), torch.from_numpy(var.copy()), training=training)
    if training:
        mean, var = values.mean((0, 2, 3)), values.var((0, 2, 3))
    want = (values - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
    np.testing.assert_allclose(y.detach().numpy(), want, rtol=1e-9, atol=1e-9)
    g = rng.standard_normal(values.shape)
    y.backward(torch.from_numpy(g))
    rstd = 1 / np.sqrt(var + 1e-5)[:, None, None]
    if training:
        along = lambda t: t.mean((0, 2, 3), keepdims=True)
        g = g - along(g) - want * along(g * want)
    np.testing.assert_allclose(x.grad.numpy(), g * rstd, rtol=1e-8, atol=1e-9)


def test_leading_ones_of_a_written_value_do_not_matter():
    x = torch.zeros(3, 3)
    x[range(3), range(3)] = torch.tensor([[[1.0, 2.0, 3.0]]])
    assert x.diagonal().tolist() == [1.0, 2.0, 3.0]
