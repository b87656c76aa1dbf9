"""RMSprop."""

from .. import _C
from .optimizer import Optimizer, StepCounter, check_lr, check_nonnegative, new_step, reject, run_closure

_rmsprop = _C._optim.rmsprop_


class RMSprop(Optimizer):
    """RMSprop (Hinton's lecture 6e, 2012), optionally centred (Graves 2013) and with momentum.

    The step is one call into the core, so the hint ``foreach`` changes nothing.

    >>> import pyrite as torch
    >>> w = torch.ones(1, requires_grad=True)
    >>> opt = torch.optim.RMSprop([w], lr=0.01)
    >>> w.sum().backward(); opt.step(); round(w.item(), 3)
    0.9
    """

    def __init__(
        self,
        params,
        lr=1e-2,
        alpha=0.99,
        eps=1e-8,
        weight_decay=0,
        momentum=0,
        centered=False,
        capturable=False,
        foreach=None,
        maximize=False,
        differentiable=False,
    ):
        check_lr(lr)
        check_nonnegative(epsilon=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        reject("RMSprop", capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "alpha": alpha,
                "eps": eps,
                "centered": centered,
                "weight_decay": weight_decay,
                "capturable": capturable,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
            },
        )

    def __setstate__(self, state):
        super().__setstate__(state)
        StepCounter.share(self)

    def step(self, closure=None):
        """One update; returns the closure's loss."""
        loss = run_closure(closure)
        state = self.state
        for group in self.param_groups:
            centered, momentum = group["centered"], group["momentum"]
            params, grads, squares, means, bufs = [], [], [], [], []
            steps = {}
            fresh = None
            for p in group["params"]:
                g = p.grad
                s = state[p]
                if g is None:
                    StepCounter.sit_out(s)
                    continue
                if not s:
                    if fresh is None:
                        fresh = new_step()
                    s["step"] = fresh
                    s["square_avg"] = _C.zeros_like(p, requires_grad=False)
                    if momentum > 0:
                        s["momentum_buffer"] = _C.zeros_like(p, requires_grad=False)
                    if centered:
                        s["grad_avg"] = _C.zeros_like(p, requires_grad=False)
                steps[id(s["step"])] = s["step"]
                params.append(p)
                grads.append(g)
                squares.append(s["square_avg"])
                if centered:
                    means.append(s["grad_avg"])
                if momentum > 0:
                    bufs.append(s["momentum_buffer"])
            if not params:
                continue
            for step in steps.values():
                step.add_(1)
            _rmsprop(
                params, grads, squares, means if centered else None, bufs if momentum > 0 else None,
                float(group["lr"]), group["alpha"], group["eps"], group["weight_decay"], momentum, group["maximize"],
            )  # fmt: skip
        return loss
