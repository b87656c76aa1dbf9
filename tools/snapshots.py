"""Writes tests/data/*.json from an installed PyTorch: what it prints, and how it promotes dtypes.

The files are committed, so that the tests need no PyTorch. Run it again only to add cases:

    python tools/snapshots.py
"""

import itertools
import json
from pathlib import Path

import torch

OUT = Path(__file__).parent.parent / "tests" / "data"

# Expressions over `torch`; each must be one that Pyrite can evaluate to the very same numbers.
PRINTED = """
torch.tensor(1)
torch.tensor(-3, dtype=torch.int32)
torch.tensor(3.14159)
torch.tensor(1e10)
torch.tensor(2.0)
torch.tensor(True)
torch.tensor([])
torch.tensor([], dtype=torch.int64)
torch.zeros(0, 3)
torch.zeros(2, 0, 4, dtype=torch.float64)
torch.tensor([1, 2, 3])
torch.tensor([1, -20, 300])
torch.tensor([1, 2], dtype=torch.int8)
torch.tensor([1, 2], dtype=torch.int16)
torch.tensor([1, 2], dtype=torch.int32)
torch.tensor([250, 1], dtype=torch.uint8)
torch.tensor([True, False])
torch.tensor([[True], [False]])
torch.tensor([1.0, 2.0, 3.0])
torch.tensor([1.5, -2.25, 100.0])
torch.tensor([1.0, 2.0], dtype=torch.float64)
torch.tensor([1.0, 2.5], dtype=torch.float16)
torch.tensor([1.0, 2.5], dtype=torch.bfloat16)
torch.tensor([0.1, 0.2, 0.3])
torch.tensor([1e-5, 1.0])
torch.tensor([1e-3, 1e3])
torch.tensor([1e-4, 1e5])
torch.tensor([1e8, 1.0])
torch.tensor([1e8, 2e8])
torch.tensor([99999.0, 100000.0])
torch.tensor([1e-10, 1e-12])
torch.tensor([0.0001, 0.0002])
torch.tensor([0.00001, 0.00002])
torch.tensor([1234567.0, 0.5])
torch.tensor([12345678.0, 2.0])
torch.tensor([float("inf"), 1.0, float("-inf"), float("nan")])
torch.tensor([float("inf"), 1.5])
torch.tensor([float("nan"), float("nan")])
torch.tensor([float("nan"), 1e-9])
torch.tensor([-0.0, 0.0])
torch.tensor([-1.0, 1.0])
torch.tensor([-0.5, 10.25])
torch.tensor([[1.0, 2.0], [3.0, 4.0]])
torch.tensor([[1.5, -2.0], [30.25, 4.0]])
torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])
torch.tensor([[[[1.0]]]])
torch.arange(24).reshape(2, 3, 4)
torch.arange(24.0).reshape(2, 2, 2, 3)
torch.arange(40)
torch.arange(40.0)
torch.arange(30.0) / 7
torch.arange(1000)
torch.arange(1001)
torch.arange(1001.0)
torch.arange(2000).reshape(2, 1000)
torch.arange(10000.0).reshape(100, 100)
torch.arange(12000).reshape(20, 20, 30)
torch.ones(1500, dtype=torch.bool)
torch.zeros(7, 200)
torch.eye(3)
torch.linspace(0, 1, 5)
torch.arange(6.0).reshape(2, 3).t()
torch.arange(10)[::3]
torch.ones(2, 1).expand(2, 3)
torch.ones(2, requires_grad=True)
torch.ones(2, 2, requires_grad=True)
torch.ones(2, dtype=torch.float64, requires_grad=True)
torch.ones(2, requires_grad=True) + 1
torch.ones(2, requires_grad=True) * 2
torch.ones(2, requires_grad=True) - 2
torch.ones(2, requires_grad=True) / 2
torch.ones(2, requires_grad=True).exp()
torch.ones(2, requires_grad=True).sum()
torch.ones(2, requires_grad=True).mean()
torch.ones(2, 2, requires_grad=True).t()
torch.ones(2, 2, requires_grad=True).view(4)
torch.ones(2, 2, requires_grad=True) @ torch.ones(2, 2)
torch.ones(4, 4, requires_grad=True).sigmoid().pow(2)
torch.ones(2, requires_grad=True).relu().detach()
torch.ones(2, requires_grad=True)[0]
-torch.ones(2, requires_grad=True)
torch.full((2, 2), 3.0)
torch.full((2,), 7)
torch.tensor([123456789, 1])
torch.tensor([9223372036854775807, -9223372036854775808])
torch.tensor([3.0e38, 1.0])
torch.tensor([1e-45, 1.0])
torch.tensor([1.23456789, 2.3456789], dtype=torch.float64)
torch.tensor(1.23456789e-7, dtype=torch.float64)
torch.tensor(float("nan"))
torch.tensor(float("inf"))
torch.tensor([65504.0, 1.0], dtype=torch.float16)
torch.tensor([1e-7, 1.0], dtype=torch.float16)
torch.tensor([[0.5, 1e6], [2.0, 3.0]])
torch.tensor([[1.0, float("inf")], [-1.0, 2.0]])
torch.rand(3, 0)
torch.empty(0, dtype=torch.bool)
torch.float32
torch.bool
torch.float16
torch.int64
torch.ones(2, 3).shape
torch.Size([2, 3])
torch.device("cpu")
torch.device("cuda", 1)
torch.device("cuda:0")
torch.ones(1).dtype
""".strip().splitlines()

OPTIONS = [
    ({"precision": 2}, "torch.tensor([1.23456, 2.0])"),
    ({"precision": 8}, "torch.tensor([1.23456, 2.0])"),
    ({"threshold": 5}, "torch.arange(6)"),
    ({"threshold": 5, "edgeitems": 1}, "torch.arange(100).reshape(10, 10)"),
    ({"linewidth": 30}, "torch.arange(20)"),
    ({"sci_mode": True}, "torch.tensor([1.0, 2.0])"),
    ({"sci_mode": False}, "torch.tensor([1e-9, 2.0])"),
    ({"profile": "short"}, "torch.arange(2000.0) / 3"),
    ({"profile": "full"}, "torch.arange(1100)"),
]

FORMATTED = [
    ("torch.tensor(3.14159)", ".2f"),
    ("torch.tensor(7)", "5d"),
    ("torch.tensor(2.5)", ""),
    ("torch.tensor([1.0, 2.0])", ""),
]


def printing():
    scope = {"torch": torch}
    cases = [{"code": c, "repr": repr(eval(c, scope))} for c in PRINTED]
    options = []
    for settings, code in OPTIONS:
        torch.set_printoptions(profile="default")
        torch.set_printoptions(**settings)
        options.append({"options": settings, "code": code, "repr": repr(eval(code, scope))})
    torch.set_printoptions(profile="default")
    formatted = [{"code": c, "spec": s, "text": format(eval(c, scope), s)} for c, s in FORMATTED]
    return {"cases": cases, "options": options, "format": formatted}


DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
SCALARS = {"bool": True, "int": 3, "float": 1.5}
BINARY = ["add", "sub", "mul", "div", "floor_divide", "remainder", "pow", "maximum", "eq", "lt", "logical_and",
          "bitwise_and", "atan2", "fmod"]  # fmt: skip
UNARY = ["exp", "neg", "abs", "sqrt", "sign", "floor", "logical_not", "bitwise_not", "square", "isnan", "reciprocal"]
REDUCE = ["sum", "prod", "mean", "amax", "any", "argmax", "std", "cumsum"]


def name(dtype):
    return str(dtype).removeprefix("torch.")


def outcome(f):
    """The dtype of a result, or None where PyTorch refuses."""
    try:
        return name(f().dtype)
    except (RuntimeError, TypeError):
        return None


def promotion():
    def make(d, zero_dim=False):
        return torch.ones(() if zero_dim else (2,), dtype=getattr(torch, d))

    def call(op, a, b):
        return lambda: getattr(torch, op)(a, b)

    def call_unary(op, *arguments):
        return lambda: getattr(torch, op)(*arguments)

    table = {"promote_types": {}, "result_type": {}, "binary": {}, "unary": {}, "reduce": {}}
    for a, b in itertools.product(DTYPES, DTYPES):
        table["promote_types"][f"{a} {b}"] = name(torch.promote_types(getattr(torch, a), getattr(torch, b)))
        # Each side with a dimension (1) or without (0): categories decide.
        for da, db in ((1, 0), (0, 1), (0, 0), (1, 1)):
            table["result_type"][f"{a}{da} {b}{db}"] = name(torch.result_type(make(a, not da), make(b, not db)))
    for a, (kind, value) in itertools.product(DTYPES, SCALARS.items()):
        for da in (1, 0):
            table["result_type"][f"{a}{da} {kind}"] = name(torch.result_type(make(a, not da), value))
    for op in BINARY:
        rows = table["binary"][op] = {}
        for a, b in itertools.product(DTYPES, DTYPES):
            for da, db in ((1, 1), (1, 0), (0, 1)):
                rows[f"{a}{da} {b}{db}"] = outcome(call(op, make(a, not da), make(b, not db)))
        for a, (kind, value) in itertools.product(DTYPES, SCALARS.items()):
            if op in ("maximum", "logical_and", "atan2"):
                continue  # tensors only
            for da in (1, 0):
                rows[f"{a}{da} {kind}"] = outcome(call(op, make(a, not da), value))
    for op in UNARY:
        table["unary"][op] = {a: outcome(call_unary(op, make(a))) for a in DTYPES}
    for op in REDUCE:
        extra = (0,) if op == "cumsum" else ()
        table["reduce"][op] = {a: outcome(call_unary(op, make(a), *extra)) for a in DTYPES}
    table["can_cast"] = {
        f"{a} {b}": torch.can_cast(getattr(torch, a), getattr(torch, b)) for a, b in itertools.product(DTYPES, DTYPES)
    }
    return table


def main():
    OUT.mkdir(exist_ok=True)
    for file, table in (("printing", printing()), ("promotion", promotion())):
        (OUT / f"{file}.json").write_text(json.dumps(table, indent=0, ensure_ascii=False) + "\n")
        print(file, "written from PyTorch", torch.__version__)


if __name__ == "__main__":
    main()
