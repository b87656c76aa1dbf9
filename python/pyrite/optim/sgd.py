"""Stochastic gradient descent."""

from .. import _C
from .optimizer import Optimizer, check_lr, check_nonnegative, reject, run_closure

_sgd = _C._optim.sgd_


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013) and Nesterov's variant.

    ``buf = momentum buf + (1 - dampening) g``; ``p -= lr buf``. The whole step is one call into the core, so
    the hints ``foreach`` and ``fused`` change nothing.

    >>> import pyrite as torch
    >>> w = torch.ones(1, requires_grad=True)
    >>> opt = torch.optim.SGD([w], lr=0.5, momentum=0.9)
    >>> (w * w).sum().backward(); opt.step(); w.tolist()
    [0.0]
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        momentum=0,
        dampening=0,
        weight_decay=0,
        nesterov=False,
        *,
        maximize=False,
        foreach=None,
        differentiable=False,
        fused=None,
    ):
        check_lr(lr)
        check_nonnegative(momentum=momentum, weight_decay=weight_decay)
        reject("SGD", differentiable=differentiable)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
                "foreach": foreach,
                "differentiable": differentiable,
                "fused": fused,
            },
        )

    def step(self, closure=None):
        """One update; returns the closure's loss."""
        loss = run_closure(closure)
        state = self.state
        for group in self.param_groups:
            momentum = group["momentum"]
            params, grads = [], []
            if momentum == 0:
                for p in group["params"]:
                    g = p.grad
                    if g is not None:
                        params.append(p)
                        grads.append(g)
                batches = ((params, grads, None, False),)
            else:
                bufs, new_params, new_grads, new_bufs = [], [], [], []
                for p in group["params"]:
                    g = p.grad
                    if g is None:
                        continue
                    buf = state[p].get("momentum_buffer")
                    if buf is None:
                        buf = state[p]["momentum_buffer"] = _C.zeros_like(p, requires_grad=False)
                        new_params.append(p)
                        new_grads.append(g)
                        new_bufs.append(buf)
                    else:
                        params.append(p)
                        grads.append(g)
                        bufs.append(buf)
                batches = ((params, grads, bufs, False), (new_params, new_grads, new_bufs, True))
            for params, grads, bufs, first in batches:
                if params:
                    _sgd(
                        params, grads, bufs, float(group["lr"]), momentum, group["dampening"], group["weight_decay"],
                        group["nesterov"], group["maximize"], first,
                    )  # fmt: skip
        return loss
