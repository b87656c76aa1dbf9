"""Pyrite: a define-by-run tensor library that speaks PyTorch's API.

    import pyrite as torch

The core (`pyrite._C`) is Rust; this package is plain Python over it. Sub-packages are loaded on first
use (`pyrite.nn`, `pyrite.optim`, ...), and NumPy only when a function needs it, so that
``import pyrite`` takes a few milliseconds.
"""

import builtins as _builtins
import math as _math

from . import _C
from ._C import Generator, Size, Tensor, device, dtype
from ._config import *
from ._functions import *
from ._linalg import *
from .autograd.anomaly_mode import (
    debug_nans,
    is_anomaly_check_nan_enabled,
    is_anomaly_enabled,
    set_anomaly_enabled,
)
from .autograd.grad_mode import (
    enable_grad,
    inference_mode,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._C import *
else:
    # Not `import *`: the core adds operators one by one, past its `__all__`.
    for _name, _value in vars(_C).items():
        if not _name.startswith("_"):
            globals().setdefault(_name, _value)
    del _name, _value
del TYPE_CHECKING

# Lines in messages are those of the program, not of this package.
_C._set_package(__path__[0] + "/")  # noqa: F405

pi = _math.pi
e = _math.e
inf = _math.inf
nan = _math.nan
newaxis = None

# Aliases of dtypes, as PyTorch names them.
for _alias, _name in {
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "cfloat": "complex64",
    "cdouble": "complex128",
}.items():
    if hasattr(_C, _name):
        globals()[_alias] = getattr(_C, _name)
del _alias, _name


def is_tensor(obj):
    """True if ``obj`` is a tensor (or of a subclass).

    >>> import pyrite as torch
    >>> torch.is_tensor(torch.ones(1)), torch.is_tensor([1])
    (True, False)
    """
    return isinstance(obj, Tensor)


def save(obj, f, pickle_module=None, pickle_protocol=2, _use_new_zipfile_serialization=True):
    """Writes ``obj`` to a file; see :func:`pyrite.serialization.save`."""
    from .serialization import save as _save

    return _save(obj, f, pickle_module, pickle_protocol, _use_new_zipfile_serialization)


def load(f, map_location=None, pickle_module=None, *, weights_only=True, mmap=None):
    """Reads what :func:`save` wrote; see :func:`pyrite.serialization.load`."""
    from .serialization import load as _load

    return _load(f, map_location, pickle_module, weights_only=weights_only, mmap=mmap)


# Loaded when first named. `functional` and friends live inside these.
_LAZY_MODULES = frozenset(
    (
        "array_api", "autograd", "cuda", "datasets", "fft", "func", "linalg", "masked", "nn", "optim", "overrides",
        "random", "serialization", "signal", "special", "testing", "utils", "viz",
    )
)  # fmt: skip
# Functions that live in a sub-package, by the module that has them.
_LAZY_FUNCTIONS = {
    name: module
    for module, names in {
        ".func": "vmap",
        "._histogram": "histogram histogramdd",
        ".signal.windows": "bartlett_window blackman_window hamming_window hann_window kaiser_window",
        ".nn.functional": "bilinear channel_shuffle cosine_similarity pairwise_distance pdist pixel_shuffle pixel_unshuffle",
        "._copies": "alias_copy as_strided_copy detach_copy diagonal_copy expand_copy permute_copy select_copy slice_copy "
        "split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unsqueeze_copy "
        "view_as_complex_copy view_as_real_copy view_copy",
        "._toplevel": "adaptive_max_pool1d alpha_dropout alpha_dropout_ binary_cross_entropy_with_logits "
        "cosine_embedding_loss ctc_loss feature_alpha_dropout feature_alpha_dropout_ hinge_embedding_loss instance_norm "
        "is_inference kl_div lcm_ ldexp_ margin_ranking_loss poisson_nll_loss rrelu rrelu_ triplet_margin_loss vander",
    }.items()
    for name in names.split()
}


def __getattr__(name):
    if name in _LAZY_FUNCTIONS:
        import importlib

        value = getattr(importlib.import_module(_LAZY_FUNCTIONS[name], __name__), name)
        globals()[name] = value
        return value
    if name in _LAZY_MODULES:
        import importlib

        try:
            return importlib.import_module("." + name, __name__)
        except ModuleNotFoundError as error:
            # Only "this sub-package does not exist" becomes AttributeError; a broken import inside it stays visible.
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(_builtins.set(globals()) | _LAZY_MODULES | _LAZY_FUNCTIONS.keys())
