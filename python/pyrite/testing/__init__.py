"""Helpers for tests: comparing tensors, making random ones."""

from ._comparison import assert_close
from ._creation import make_tensor
