"""Dtype promotion, against PyTorch's stored table: dtypes x dimensions x Python scalars (tools/snapshots.py wrote it)."""

import itertools
import json
from pathlib import Path

import pytest
from subject import torch

STORED = json.loads((Path(__file__).parent / "data" / "promotion.json").read_text())
SCALARS = {"bool": True, "int": 3, "float": 1.5}


def operand(text):
    """`float321` is a float32 tensor with a dimension, `float320` one without, `int` a Python scalar."""
    if text in SCALARS:
        return SCALARS[text]
    return torch.ones((2,) if text[-1] == "1" else (), dtype=getattr(torch, text[:-1]))


def name(dtype):
    return repr(dtype).rpartition(".")[2]


def outcome(f):
    try:
        return name(f().dtype)
    except (RuntimeError, TypeError):
        return None


def differences(table, call):
    wrong = []
    for key, expected in table.items():
        got = outcome(lambda key=key: call(*map(operand, key.split())))
        if got != expected:
            wrong.append(f"{key}: {got}, PyTorch {expected}")
    return wrong


def report(wrong, total):
    assert not wrong, f"{len(wrong)} of {total} differ: " + "; ".join(wrong[:20])


def test_promote_types():
    wrong = []
    for key, expected in STORED["promote_types"].items():
        a, b = (getattr(torch, d) for d in key.split())
        if name(torch.promote_types(a, b)) != expected:
            wrong.append(f"{key}: {torch.promote_types(a, b)}, PyTorch {expected}")
    report(wrong, len(STORED["promote_types"]))


def test_can_cast():
    wrong = [k for k, v in STORED["can_cast"].items() if torch.can_cast(*(getattr(torch, d) for d in k.split())) != v]
    report(wrong, len(STORED["can_cast"]))


def test_result_type():
    wrong = []
    for key, expected in STORED["result_type"].items():
        got = name(torch.result_type(*map(operand, key.split())))
        if got != expected:
            wrong.append(f"{key}: {got}, PyTorch {expected}")
    report(wrong, len(STORED["result_type"]))


@pytest.mark.parametrize("op", STORED["binary"])
def test_binary(op):
    report(differences(STORED["binary"][op], getattr(torch, op)), len(STORED["binary"][op]))


@pytest.mark.parametrize("kind, op", [(k, o) for k in ("unary", "reduce") for o in STORED[k]])
def test_unary_and_reduce(kind, op):
    extra = (0,) if op == "cumsum" else ()
    table = {f"{d}1": expected for d, expected in STORED[kind][op].items()}
    report(differences(table, lambda x: getattr(torch, op)(x, *extra)), len(table))


def test_python_operators_promote_like_functions():
    for a, b in itertools.product(["int64", "float32", "bool"], ["int32", "float64"]):
        x, y = (torch.ones(2, dtype=getattr(torch, d)) for d in (a, b))
        assert (x + y).dtype == torch.add(x, y).dtype
        assert (x * 2.5).dtype == torch.result_type(x, 2.5)
        assert (2.5 * x).dtype == torch.result_type(x, 2.5)


def test_in_place_keeps_the_dtype_or_refuses():
    x = torch.ones(2, dtype=torch.float32)
    x += torch.ones(2, dtype=torch.float64)
    assert x.dtype == torch.float32
    i = torch.ones(2, dtype=torch.int64)
    i += 2
    with pytest.raises(RuntimeError):
        i += 1.5
    with pytest.raises(RuntimeError):
        i /= 2
    assert i.tolist() == [3, 3]


def test_out_converts_or_refuses():
    out = torch.empty(2, dtype=torch.float64)
    assert torch.add(torch.ones(2), torch.ones(2), out=out) is out
    assert out.tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError):
        torch.add(torch.ones(2), torch.ones(2), out=torch.empty(2, dtype=torch.int64))


def test_default_dtype():
    torch.set_default_dtype(torch.float64)
    assert torch.tensor([1.0]).dtype == torch.float64
    assert torch.ones(2).dtype == torch.float64
    assert (torch.ones(2, dtype=torch.int32) / 2).dtype == torch.float64
    assert (torch.arange(2) + 0.5).dtype == torch.float64


def test_values_wrap_and_truncate():
    assert (torch.tensor([250], dtype=torch.uint8) + 10).tolist() == [4]
    assert torch.tensor([127], dtype=torch.int8).add(1).tolist() == [-128]
    assert torch.tensor([1.9, -1.9]).to(torch.int64).tolist() == [1, -1]
    assert torch.tensor([0.0, 0.5, -2.0]).bool().tolist() == [False, True, True]
    assert torch.tensor([3, 0]).to(torch.bool).to(torch.int32).tolist() == [1, 0]
