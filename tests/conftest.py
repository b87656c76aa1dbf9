"""What every test shares: seeds, devices, hypothesis profiles, and which tests run where."""

import os
import random

import hypothesis
import numpy as np
import pytest
from subject import IS_PYRITE, has_cuda, torch

hypothesis.settings.register_profile(
    "fast",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "slow", parent=hypothesis.settings.get_profile("fast"), max_examples=3000, derandomize=False
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_collection_modifyitems(config, items):
    cuda = has_cuda()
    skip_cuda = pytest.mark.skip(reason="no GPU here")
    skip_pyrite = pytest.mark.skip(reason="only Pyrite has this")
    for item in items:
        if "cuda" in item.keywords and not cuda:
            item.add_marker(skip_cuda)
        if "pyrite" in item.keywords and not IS_PYRITE:
            item.add_marker(skip_pyrite)


@pytest.fixture(autouse=True)
def seeded():
    """Each test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    default = torch.get_default_dtype()
    yield
    assert torch.is_grad_enabled(), "the test left grad mode switched off"
    torch.set_default_dtype(default)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    return request.param


@pytest.fixture
def strict():
    """PyTorch's rule for writes to saved tensors: an error instead of a copy."""
    if not IS_PYRITE:
        yield
        return
    with torch.autograd.set_strict_inplace(True):
        yield
