"""The library under test, imported once under PyTorch's names.

`PYRITE_TEST_LIB=torch pytest` runs the same tests on PyTorch: that is how the tests themselves are proved right.
Tests of what only Pyrite has carry the marker `pyrite` and are left out there.
"""

import importlib
import os

NAME = os.environ.get("PYRITE_TEST_LIB", "pyrite")
IS_PYRITE = NAME == "pyrite"

torch = importlib.import_module(NAME)
nn = importlib.import_module(f"{NAME}.nn")
F = importlib.import_module(f"{NAME}.nn.functional")
optim = importlib.import_module(f"{NAME}.optim")
data = importlib.import_module(f"{NAME}.utils.data")

FLOATS = [torch.float32, torch.float64]
HALVES = [torch.float16, torch.bfloat16]
INTS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def has_cuda():
    """True where a GPU can really be used; never raises."""
    try:
        return bool(torch.cuda.is_available())
    except Exception:
        return False
