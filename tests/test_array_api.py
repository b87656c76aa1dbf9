"""`pyrite.array_api`: names and signatures of the standard, values against NumPy, which implements it too."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from subject import torch

pytestmark = pytest.mark.pyrite

if not hasattr(torch.Tensor, "__array_namespace__"):
    pytest.skip("the array API namespace is Pyrite's", allow_module_level=True)

xp = torch.array_api
STANDARD = json.loads((Path(__file__).parent / "data" / "array_api_2024_12.json").read_text())
INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
REALS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")


def spaces():
    for space, names in STANDARD.items():
        for name, signature in names.items():
            yield pytest.param(space, name, signature, id=f"{space}.{name}")


@pytest.mark.parametrize("space, name, signature", list(spaces()))
def test_signature(space, name, signature):
    """Every function is there, with the standard's parameters, kinds and defaults."""
    function = getattr(xp if space == "main" else getattr(xp, space), name)
    ours = inspect.signature(function).parameters
    wanted = eval(f"lambda {signature[1:-1]}: None")
    for p in inspect.signature(wanted).parameters.values():
        assert p.name in ours, f"{name} lacks {p.name}"
        assert ours[p.name].kind == p.kind, p.name
        assert ours[p.name].default == p.default, p.name


def test_namespace():
    x = torch.ones(2)
    assert x.__array_namespace__() is xp
    assert x.__array_namespace__(api_version="2023.12") is xp
    with pytest.raises(ValueError, match="not supported"):
        x.__array_namespace__(api_version="2099.12")
    assert x.to_device("cpu") is x
    assert xp.__array_api_version__ == "2024.12"
    assert set(xp.__all__) <= set(dir(xp))


def draw(rng, dtype, shape=(3, 4)):
    d = np.dtype(dtype)
    if d.kind == "b":
        return rng.integers(0, 2, shape).astype(d)
    if d.kind in "iu":
        return rng.integers(0 if d.kind == "u" else -5, 7, shape).astype(d)
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape)).astype(d) if d.kind == "c" else x.astype(d)


def check(name, *args, call=None, tolerance=None, same_dtype=True, **kwargs):
    """The function on tensors equals NumPy's on arrays, dtype included."""
    call = call or (lambda module, *a: getattr(module, name)(*a, **kwargs))
    wanted = call(np, *args)
    got = call(xp, *[torch.from_numpy(a.copy()) if isinstance(a, np.ndarray) else a for a in args])
    if not isinstance(wanted, (tuple, list)):
        wanted, got = [wanted], [got]
    assert len(wanted) == len(got)
    for w, g in zip(wanted, got, strict=True):
        w = np.asarray(w)
        assert tuple(g.shape) == w.shape, name
        if same_dtype:
            assert str(g.dtype).removeprefix("torch.") == w.dtype.name, name
        if tolerance is None:
            tolerance = 1e-5 if w.dtype.name in ("float32", "complex64") else 1e-12
        np.testing.assert_allclose(np.asarray(g), w, rtol=tolerance, atol=tolerance, err_msg=name)


UNARY = {
    ("abs", "negative", "positive", "square"): INTS[:4] + REALS + COMPLEX,
    ("ceil", "floor", "round", "trunc"): INTS + REALS,
    ("sign",): INTS + REALS + COMPLEX,
    ("cos", "exp", "expm1", "sin", "sinh", "cosh", "tanh", "atan", "asinh", "tan", "reciprocal"): REALS + COMPLEX,
    ("isfinite", "isinf", "isnan"): INTS + REALS + COMPLEX,
    ("real", "imag"): COMPLEX,
    ("conj",): COMPLEX,
    ("signbit",): REALS,
    ("logical_not",): ("bool",),
    ("bitwise_invert",): ("bool", *INTS),
}
BINARY = {
    ("add", "multiply", "subtract", "equal", "not_equal"): INTS + REALS + COMPLEX,
    ("greater", "greater_equal", "less", "less_equal", "maximum", "minimum"): INTS + REALS,
    ("divide",): REALS + COMPLEX,
    ("atan2", "copysign", "hypot", "logaddexp", "nextafter"): REALS,
    ("bitwise_and", "bitwise_or", "bitwise_xor"): ("bool", *INTS),
    ("logical_and", "logical_or", "logical_xor"): ("bool",),
}


def table(rows):
    return [pytest.param(n, d, id=f"{n}-{d}") for names, dtypes in rows.items() for n in names for d in dtypes]


@pytest.mark.parametrize("name, dtype", table(UNARY))
def test_unary(name, dtype):
    check(name, draw(np.random.default_rng(0), dtype))


@pytest.mark.parametrize("name, dtype", table(BINARY))
def test_binary(name, dtype):
    rng = np.random.default_rng(1)
    check(name, draw(rng, dtype), draw(rng, dtype))
    check(name, draw(rng, dtype), draw(rng, dtype, (4,)))


@pytest.mark.parametrize("dtype", [*INTS, *REALS])
def test_division(dtype):
    rng = np.random.default_rng(2)
    a, b = draw(rng, dtype), np.abs(draw(rng, dtype)) + np.dtype(dtype).type(1)
    check("floor_divide", a, b)
    check("remainder", a, b)


PAIRS = [(a, b) for a in (*INTS, *REALS, *COMPLEX) for b in (*INTS, *REALS, *COMPLEX)]


def test_promotion():
    """Every pair of the standard's table; the promotion of 0-d arrays does not differ."""
    for a, b in PAIRS:
        kinds = {np.dtype(a).kind, np.dtype(b).kind}
        mixed = ("uint64" in (a, b) and "i" in kinds) or (kinds & set("iu") and kinds & set("fc"))
        if mixed:
            continue
        wanted = np.result_type(np.dtype(a), np.dtype(b)).name
        x, y = torch.ones(2, dtype=getattr(torch, a)), torch.ones((), dtype=getattr(torch, b))
        assert str(xp.result_type(x, y)) == "torch." + wanted
        assert str(xp.add(x, y).dtype) == "torch." + wanted, (a, b)
    with pytest.raises(TypeError, match="uint64"):
        xp.result_type(torch.uint64, torch.int8)
    with pytest.raises(ValueError, match="at least one"):
        xp.result_type(1, 2.0)
    assert xp.result_type(torch.int8, 3) == torch.int8
    assert xp.result_type(torch.float32, 1j) == torch.complex64


def test_operators_of_the_standard():
    a, b = torch.ones(2, dtype=torch.int8), torch.tensor(1)
    with xp.standard_operators():
        assert (a + b).dtype == torch.int64
        assert (a + 1).dtype == torch.int8
    assert (a + b).dtype == torch.int8


REDUCTIONS = ("sum", "prod", "max", "min", "mean", "std", "var", "any", "all", "count_nonzero")


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, axis):
    x = draw(np.random.default_rng(3), "float64", (2, 3, 4))
    for keepdims in (False, True):
        check(name, x, axis=axis, keepdims=keepdims)


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("name", ["sum", "prod", "cumulative_sum", "cumulative_prod"])
def test_integer_totals_are_64_bit(name, dtype):
    check(name, draw(np.random.default_rng(4), dtype, (5,)), axis=0)


def test_float_correction():
    check("var", np.arange(6.0), correction=1.5)
    check("std", np.arange(6.0).reshape(2, 3), axis=1, correction=0.5)


def test_cumulative():
    x = draw(np.random.default_rng(5), "float64")
    for name in ("cumulative_sum", "cumulative_prod"):
        check(name, x, axis=1, include_initial=True)
        with pytest.raises(ValueError, match="axis must be given"):
            getattr(xp, name)(torch.ones(2, 2))


@pytest.mark.parametrize("dtype", ["float64", "int32", "complex128", "bool"])
def test_sets(dtype):
    x = draw(np.random.default_rng(6), dtype, (4, 5)).round()
    t = torch.from_numpy(x)
    got, wanted = xp.unique_all(t), np.unique_all(x)
    # The standard leaves the order open.
    order = np.argsort(np.asarray(got.values))
    np.testing.assert_array_equal(np.asarray(got.values)[order], np.sort(wanted.values))
    np.testing.assert_array_equal(np.asarray(got.counts)[order], wanted.counts)
    np.testing.assert_array_equal(np.asarray(got.values)[np.asarray(got.inverse_indices)], x)
    for value, index in zip(np.asarray(got.values), np.asarray(got.indices), strict=True):
        assert index == np.flatnonzero(x.reshape(-1) == value)[0]
    assert xp.unique_values(t).shape == got.values.shape
    assert xp.unique_counts(t)._fields == ("values", "counts")
    assert xp.unique_inverse(t)._fields == ("values", "inverse_indices")


def test_sets_count_each_nan():
    x = torch.tensor([float("nan"), 1.0, float("nan")])
    assert xp.unique_counts(x).counts.tolist() == [1, 1, 1]


def test_special_values():
    inf, nan = float("inf"), float("nan")
    f = torch.tensor
    assert xp.sign(f(nan)).isnan()
    assert torch.signbit(xp.remainder(f(-0.0), f(3.0))).item() is False
    assert torch.signbit(xp.remainder(f(6.0), f(-3.0))).item() is True
    assert xp.floor_divide(f(inf), f(2.0)).item() == inf
    assert xp.floor_divide(f(1.0), f(0.0)).item() == inf
    assert xp.clip(f([1, 2, 3], dtype=torch.int8), -1000, 2).tolist() == [1, 2, 2]
    assert xp.clip(f([1.0, nan]), 2.0, None).isnan().tolist() == [False, True]


CALLS = [
    ("arange", (5,), {}), ("arange", (1, 2, 0.25), {}), ("arange", (3, 1), {}), ("arange", (5, 1, -2), {}),
    ("linspace", (0.0, 1.0, 5), {"endpoint": False, "dtype": "float64"}), ("linspace", (0.0, 1.0, 5), {"dtype": "float64"}),
    ("eye", (3, 4), {"k": 1, "dtype": "float64"}), ("eye", (3,), {"k": -5, "dtype": "float64"}),
    ("full", ((2, 3), 7), {}), ("full", (2, True), {}), ("zeros", (3,), {"dtype": "int16"}), ("ones", ((2, 0),), {"dtype": "float64"}),
]  # fmt: skip


@pytest.mark.parametrize("name, args, kwargs", CALLS, ids=lambda v: str(v))
def test_creation(name, args, kwargs):
    def call(module):
        extra = {k: getattr(module, v) if k == "dtype" else v for k, v in kwargs.items()}
        return getattr(module, name)(*args, **extra)

    check(name, call=lambda module: call(module), same_dtype=name != "arange" or 0.25 not in args)


SHAPES = {
    "concat": lambda m, x, y: [m.concat([x, y], axis=1), m.concat([x, y], axis=None)],
    "stack": lambda m, x, y: m.stack([x, y], axis=-1),
    "unstack": lambda m, x, y: m.unstack(x, axis=1),
    "expand_dims": lambda m, x, y: m.expand_dims(x, axis=-2),
    "squeeze": lambda m, x, y: m.squeeze(m.expand_dims(x, axis=1), axis=1),
    "flip": lambda m, x, y: [m.flip(x), m.flip(x, axis=0)],
    "roll": lambda m, x, y: [m.roll(x, 2), m.roll(x, (1, 2), axis=(0, 1))],
    "tile": lambda m, x, y: m.tile(x, (2, 1)),
    "repeat": lambda m, x, y: [m.repeat(x, 2), m.repeat(x, 2, axis=0)],
    "take": lambda m, x, y: m.take(x, m.asarray([1, -1]), axis=1),
    "take_along_axis": lambda m, x, y: m.take_along_axis(x, m.argsort(y, axis=1), axis=1),
    "moveaxis": lambda m, x, y: m.moveaxis(x, 0, -1),
    "permute_dims": lambda m, x, y: m.permute_dims(x, (1, 0)),
    "reshape": lambda m, x, y: m.reshape(x, (2, 6)),
    "meshgrid": lambda m, x, y: list(m.meshgrid(x[0], y[0])),
    "broadcast_arrays": lambda m, x, y: list(m.broadcast_arrays(x, y[0])),
    "diff": lambda m, x, y: m.diff(x, axis=0, n=2, prepend=y),
    "nonzero": lambda m, x, y: m.nonzero(x > 0),
    "where": lambda m, x, y: m.where(x > 0, x, y),
    "searchsorted": lambda m, x, y: m.searchsorted(m.sort(x[0]), y[0], side="right"),
    "argmax": lambda m, x, y: [m.argmax(x, axis=1, keepdims=True), m.argmin(x)],
    "sort": lambda m, x, y: m.sort(x, axis=0),
    "triu": lambda m, x, y: [m.triu(x, k=1), m.tril(x, k=-1)],
    "matmul": lambda m, x, y: m.matmul(x, m.matrix_transpose(y)),
    "tensordot": lambda m, x, y: m.tensordot(x, y, axes=((0, 1), (0, 1))),
    "vecdot": lambda m, x, y: m.vecdot(x, y, axis=0),
    "cross": lambda m, x, y: m.linalg.cross(x[:, :3], y[:, :3]),
    "det": lambda m, x, y: m.linalg.det(x[:, :3]),
    "inv": lambda m, x, y: m.linalg.inv(x[:, :3]),
    "solve": lambda m, x, y: [m.linalg.solve(x[:, :3], y[:, 0]), m.linalg.solve(x[:, :3], y)],
    "svdvals": lambda m, x, y: m.linalg.svdvals(x),
    "trace": lambda m, x, y: m.linalg.trace(x, offset=1),
    "vector_norm": lambda m, x, y: [m.linalg.vector_norm(x), m.linalg.vector_norm(x, axis=0, ord=1, keepdims=True)],
    "matrix_norm": lambda m, x, y: [m.linalg.matrix_norm(x), m.linalg.matrix_norm(x, ord="nuc")],
    "pinv": lambda m, x, y: m.linalg.pinv(x),
    "outer": lambda m, x, y: m.linalg.outer(x[0], y[0]),
    "fft": lambda m, x, y: [m.fft.fft(x, axis=0), m.fft.rfftn(x), m.fft.fftshift(x)],
    "fftfreq": lambda m, x, y: m.fft.fftfreq(5, d=0.5, dtype=m.float64) if m is xp else m.fft.fftfreq(5, d=0.5),
}


@pytest.mark.parametrize("name", SHAPES)
def test_structured(name):
    rng = np.random.default_rng(7)
    check(name, draw(rng, "float64"), draw(rng, "float64"), call=SHAPES[name], tolerance=1e-10)


def test_asarray_copies_only_when_asked():
    x = torch.arange(3)
    assert xp.asarray(x) is x or xp.asarray(x).data_ptr() == x.data_ptr()
    assert xp.asarray(x, copy=True).data_ptr() != x.data_ptr()
    with pytest.raises(ValueError, match="copy=False"):
        xp.asarray(x, dtype=torch.float32, copy=False)
    with pytest.raises(ValueError, match="copy=False"):
        xp.asarray([1, 2], copy=False)
    assert xp.asarray([x[0], 2]).tolist() == [0, 2]
    with pytest.raises(ValueError, match="copy"):
        xp.reshape(torch.ones(2, 3).T, (6,), copy=False)


def test_info():
    info = xp.__array_namespace_info__()
    assert info.dtypes(kind="real floating") == {"float32": torch.float32, "float64": torch.float64}
    assert info.default_dtypes()["indexing"] == torch.int64
    assert info.capabilities()["boolean indexing"] is True
    assert info.default_device() in info.devices()
    assert xp.finfo(torch.complex64).dtype == torch.float32
    assert xp.iinfo(torch.int8).max == 127
    assert xp.isdtype(torch.uint8, ("real floating", "unsigned integer"))
    with pytest.raises(ValueError, match="unknown kind"):
        xp.isdtype(torch.uint8, "whole")
