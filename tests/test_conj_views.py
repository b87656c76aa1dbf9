"""Every function of the registry that takes complex tensors gives for a conjugate view what it gives for the conjugate.

The arguments are guessed from the signatures; what a function refuses is refused for both.
"""

import re

import numpy as np
import pytest
from subject import torch

pytestmark = pytest.mark.pyrite

registry = torch._C._registry()
ENTRIES = {
    (op["namespace"], op["name"], i): signature
    for op in registry
    if not op["name"].startswith("empty")
    for i, signature in enumerate(op["signatures"])
    if re.match(r"(\w+): Tensors?\b", signature) and op["namespace"] in ("", "nn", "linalg")
}
BY_TYPE = {
    "int": 0, "ints": [0, 1], "size": [3, 3], "float": 2.0, "Number": 2, "bool": True, "str": "mean",
    "dtype": torch.complex128,
}  # fmt: skip


def arguments(signature, make):
    """Positional arguments up to the first that has a default."""
    out = []
    for part in signature.split(", "):
        if part == "*" or " = " in part:
            break
        name, kind = part.split(": ")
        kind = kind.rstrip("?")
        if kind in ("Tensor", "Operand"):
            index = "ind" in name
            mask = name in ("mask", "condition")
            out.append(torch.tensor([[0, 1, 2]] * 3) if index else torch.eye(3) > 0 if mask else make())
        elif kind == "Tensors":
            out.append([make(), make()])
        elif kind in BY_TYPE:
            out.append(BY_TYPE[kind])
        else:
            return None
    return out


def make(conjugate, kind):
    """A fresh 3 x 3 tensor: a conjugate view, or the conjugate."""
    rng = np.random.default_rng(7)
    z = torch.from_numpy(rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)))
    if kind == "conj":
        return z.conj() if conjugate else z.conj().resolve_conj()
    return z.conj().imag if conjugate else z.conj().imag.resolve_neg()


def plain(value):
    if isinstance(value, torch.Tensor):
        return np.asarray(value.detach().resolve_conj().resolve_neg().tolist())
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value


def run(namespace, name, signature, conjugate, kind):
    first = make(conjugate, kind)
    taken = []

    def next_one():
        taken.append(1)
        return first if len(taken) == 1 else make(conjugate, kind)

    args = arguments(signature, next_one)
    if args is None:
        return None
    holder = torch._C if namespace == "" else getattr(torch._C, f"_{namespace}")
    function = getattr(holder, name, None) or getattr(torch.Tensor, name, None)
    if not callable(function):
        function = lambda t: getattr(t, name)
    torch.manual_seed(0)
    try:
        value = function(*args)
    except (RuntimeError, TypeError, IndexError, ValueError) as e:
        return type(e)
    return plain(value), plain(first)


@pytest.mark.parametrize("kind", ["conj", "neg"])
def test_functions_do_not_see_the_mark(kind):
    ran = 0
    for (namespace, name, _), signature in ENTRIES.items():
        if (
            name in ("is_conj", "is_neg", "view_as_real", "view_as_complex")
            or signature == "input: Tensor, dtype: dtype"
        ):
            continue  # they look at the memory
        got, expected = (run(namespace, name, signature, c, kind) for c in (True, False))
        where = f"{namespace} {name}({signature})"
        if isinstance(expected, type) or expected is None:
            assert got == expected, where
            continue
        assert isinstance(got, tuple), f"{where}: {got}"
        ran += 1
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_equal(a, b, err_msg=where)
    assert ran > 150
