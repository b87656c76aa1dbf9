"""Helpers around parameters: gradient clipping and flat vectors."""

from .clip_grad import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from .convert_parameters import parameters_to_vector, vector_to_parameters


def skip_init(module_cls, *args, **kwargs):
    """Builds a module without filling its parameters, for models that load weights anyway.

    >>> import pyrite as torch
    >>> torch.nn.utils.skip_init(torch.nn.Linear, 2, 3).weight.shape
    torch.Size([3, 2])
    """
    from ..modules.module import Module

    if not issubclass(module_cls, Module):
        raise RuntimeError(f"Expected a Module; got {module_cls}")

    class Unfilled(module_cls):
        def reset_parameters(self):
            pass

    module = Unfilled(*args, **kwargs)
    module.__class__ = module_cls
    return module
