"""Helpers for tests: comparing tensors, making random ones."""

from ._comparison import assert_close  # noqa: F401
from ._creation import make_tensor  # noqa: F401
