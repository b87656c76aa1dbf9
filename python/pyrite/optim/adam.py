"""Adam and AdamW."""

from .. import _C
from .optimizer import Optimizer, StepCounter, check_lr, check_nonnegative, new_step, reject, run_closure

_adam = _C._optim.adam_


class Adam(Optimizer):
    """Adam (Kingma and Ba 2014), with the AMSGrad variant (Reddi et al. 2018).

    The whole step is one call into the core, so the hints ``foreach`` and ``fused`` change nothing.
    ``decoupled_weight_decay=True`` is :class:`AdamW`.

    >>> import pyrite as torch
    >>> w = torch.ones(1, requires_grad=True)
    >>> opt = torch.optim.Adam([w], lr=0.1)
    >>> w.sum().backward(); opt.step(); round(w.item(), 4)
    0.9
    """

    _decoupled = False

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        amsgrad=False,
        *,
        foreach=None,
        maximize=False,
        capturable=False,
        differentiable=False,
        fused=None,
        decoupled_weight_decay=False,
    ):
        check_lr(lr)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay)
        for i, beta in enumerate(betas):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
        reject(type(self).__name__, capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "differentiable": differentiable,
                "fused": fused,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def __setstate__(self, state):
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("amsgrad", False)
            group.setdefault("maximize", False)
            group.setdefault("decoupled_weight_decay", self._decoupled)
        StepCounter.share(self)

    def step(self, closure=None):
        """One update; returns the closure's loss."""
        loss = run_closure(closure)
        state = self.state
        for group in self.param_groups:
            amsgrad = group["amsgrad"]
            # One batch per step count: (step tensor, params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs).
            batches = {}
            batch = last = fresh = None
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
                    s["exp_avg"] = _C.zeros_like(p, requires_grad=False)
                    s["exp_avg_sq"] = _C.zeros_like(p, requires_grad=False)
                    if amsgrad:
                        s["max_exp_avg_sq"] = _C.zeros_like(p, requires_grad=False)
                step = s["step"]
                if step is not last:
                    last = step
                    batch = batches.get(id(step))
                    if batch is None:
                        batch = batches[id(step)] = (step, [], [], [], [], [])
                batch[1].append(p)
                batch[2].append(g)
                batch[3].append(s["exp_avg"])
                batch[4].append(s["exp_avg_sq"])
                if amsgrad:
                    batch[5].append(s["max_exp_avg_sq"])
            if not batches:
                continue
            beta1, beta2 = group["betas"]
            for step, params, grads, avgs, squares, maxima in batches.values():
                step.add_(1)
                _adam(
                    params, grads, avgs, squares, maxima if amsgrad else None, int(step.item()), float(group["lr"]),
                    float(beta1), float(beta2), group["weight_decay"], group["eps"], amsgrad, group["maximize"],
                    group["decoupled_weight_decay"],
                )  # fmt: skip
        return loss


class AdamW(Adam):
    """Adam with decoupled weight decay: ``p -= lr weight_decay p`` (Loshchilov and Hutter 2017).

    >>> import pyrite as torch
    >>> w = torch.ones(1, requires_grad=True)
    >>> opt = torch.optim.AdamW([w], lr=0.1, weight_decay=0.1)
    >>> w.sum().backward(); opt.step(); round(w.item(), 4)
    0.89
    """

    _decoupled = True

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-2,
        amsgrad=False,
        *,
        maximize=False,
        foreach=None,
        capturable=False,
        differentiable=False,
        fused=None,
    ):
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
        )  # fmt: skip

    def __setstate__(self, state):
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
