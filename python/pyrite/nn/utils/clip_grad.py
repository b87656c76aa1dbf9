"""Limits the size of gradients, by their common norm or value by value."""

import math

from ... import _C
from ...autograd.grad_mode import no_grad


def _tensors(parameters):
    return [parameters] if isinstance(parameters, _C.Tensor) else list(parameters)


@no_grad()
def get_total_norm(tensors, norm_type=2.0, error_if_nonfinite=False, foreach=None):
    """The p-norm of all tensors taken as one vector.

    >>> import pyrite as torch
    >>> torch.nn.utils.get_total_norm([torch.tensor([3.0]), torch.tensor([4.0])]).item()
    5.0
    """
    tensors = _tensors(tensors)
    norm_type = float(norm_type)
    if not tensors:
        return _C.tensor(0.0)
    device = tensors[0].device
    if norm_type == math.inf:
        total = _C.stack([t.detach().abs().max().to(device) for t in tensors]).max()
    else:
        total = _C.stack([t.detach().norm(norm_type).to(device) for t in tensors]).norm(norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it cannot be "
            "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return total


@no_grad()
def clip_grads_with_norm_(parameters, max_norm, total_norm, foreach=None):
    """Scales gradients by min(1, max_norm / (total_norm + 1e-6)), in place."""
    factor = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)
    for p in _tensors(parameters):
        if p.grad is not None:
            p.grad.mul_(factor.to(p.grad.device))


@no_grad()
def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False, foreach=None):
    """Scales all gradients in place so that their common norm is at most ``max_norm``; returns the norm before.

    >>> import pyrite as torch
    >>> p = torch.ones(2, requires_grad=True); p.grad = torch.tensor([3.0, 4.0])
    >>> torch.nn.utils.clip_grad_norm_(p, 1.0).item()
    5.0
    """
    parameters = _tensors(parameters)
    total = get_total_norm(
        [p.grad for p in parameters if p.grad is not None], norm_type, error_if_nonfinite, foreach
    )  # fmt: skip
    clip_grads_with_norm_(parameters, max_norm, total, foreach)
    return total


@no_grad()
def clip_grad_value_(parameters, clip_value, foreach=None):
    """Limits every gradient element to [-clip_value, clip_value], in place.

    >>> import pyrite as torch
    >>> p = torch.ones(2, requires_grad=True); p.grad = torch.tensor([3.0, -4.0])
    >>> torch.nn.utils.clip_grad_value_(p, 1.0); p.grad.tolist()
    [1.0, -1.0]
    """
    clip_value = float(clip_value)
    for p in _tensors(parameters):
        if p.grad is not None:
            p.grad.clamp_(min=-clip_value, max=clip_value)
