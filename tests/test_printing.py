"""What tensors print as, against stored texts of PyTorch (tools/snapshots.py wrote them)."""

import json
from pathlib import Path

import pytest
from subject import torch

STORED = json.loads((Path(__file__).parent / "data" / "printing.json").read_text())
SCOPE = {"torch": torch}


def ported(text):
    """Under its own name a dtype prints as `pyrite.float32`; everything else is the same text."""
    return text.replace("torch.", f"{torch.__name__}.") if PRINTS_OWN_NAME else text


PRINTS_OWN_NAME = repr(torch.float32).startswith(torch.__name__ + ".")


@pytest.fixture(autouse=True)
def default_options():
    yield
    torch.set_printoptions(profile="default")


@pytest.mark.parametrize("case", STORED["cases"], ids=lambda c: c["code"])
def test_repr(case):
    value = eval(case["code"], SCOPE)
    assert repr(value) == ported(case["repr"])
    if isinstance(value, torch.Tensor):
        assert str(value) == repr(value)


@pytest.mark.parametrize("case", STORED["options"], ids=lambda c: f"{c['options']}")
def test_options(case):
    torch.set_printoptions(**case["options"])
    assert repr(eval(case["code"], SCOPE)) == ported(case["repr"])


@pytest.mark.parametrize("case", STORED["format"], ids=lambda c: f"{c['code']}:{c['spec']}")
def test_format(case):
    assert format(eval(case["code"], SCOPE), case["spec"]) == case["text"]


def test_scalars_convert():
    assert float(torch.tensor(1.5)) == 1.5
    assert int(torch.tensor([7])) == 7
    assert bool(torch.tensor(0)) is False
    assert [10, 11, 12][torch.tensor(1)] == 11
    assert f"{torch.tensor(2.0):.3f}" == "2.000"
