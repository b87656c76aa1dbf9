"""Adagrad, Adadelta, Adamax, NAdam, RAdam, Rprop and ASGD: the rarer rules, in tensor operations."""

import math

from .. import _C
from ..autograd.grad_mode import no_grad
from .optimizer import Optimizer, check_lr, check_nonnegative, new_step, reject, run_closure


def _check_betas(betas):
    for i, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")


class _PerParameter(Optimizer):
    """Runs ``_update(p, grad, state, group)`` for each parameter that has a gradient."""

    def step(self, closure=None):
        """One update; returns the closure's loss."""
        loss = run_closure(closure)
        with no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    g = p.grad
                    if g is None:
                        continue
                    if group["maximize"]:
                        g = -g
                    if p.is_complex():
                        self._update_parts(p, g.resolve_conj(), self.state[p], group)
                    else:
                        self._update(p, g, self.state[p], group)
        return loss

    def _update_parts(self, p, g, state, group):
        """Steps real and imaginary parts as if they were parameters of their own, as PyTorch does."""
        is_tensor = lambda v: isinstance(v, _C.Tensor)  # noqa: E731
        parts = {k: _C.view_as_real(v) if is_tensor(v) and v.is_complex() else v for k, v in state.items()}
        p = _C.view_as_real(p)
        self._update(p, _C.view_as_real(g), parts, group)
        for k, v in parts.items():
            state[k] = _C.view_as_complex(v) if is_tensor(v) and v.shape == p.shape else v

    def _update(self, p, g, state, group):
        raise NotImplementedError


def _zeros(p):
    return _C.zeros_like(p, requires_grad=False)


class Adagrad(_PerParameter):
    """Adagrad: steps shrink with the sum of squared gradients (Duchi et al. 2011).

    >>> import pyrite as torch
    >>> w = torch.ones(1, requires_grad=True)
    >>> opt = torch.optim.Adagrad([w], lr=0.1)
    >>> w.sum().backward(); opt.step(); round(w.item(), 4)
    0.9
    """

    def __init__(
        self,
        params,
        lr=1e-2,
        lr_decay=0,
        weight_decay=0,
        initial_accumulator_value=0,
        eps=1e-10,
        foreach=None,
        *,
        maximize=False,
        differentiable=False,
        fused=None,
    ):
        check_lr(lr)
        check_nonnegative(
            lr_decay=lr_decay, weight_decay=weight_decay, initial_accumulator_value=initial_accumulator_value,
            epsilon=eps,
        )  # fmt: skip
        reject("Adagrad", differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "eps": eps,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "fused": fused,
            },
        )
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["step"] = new_step()
                start = group["initial_accumulator_value"]
                start = complex(start, start) if p.is_complex() else start
                state["sum"] = _C.full_like(p, start, requires_grad=False)

    def share_memory(self):
        """Moves the sums to shared memory."""
        for state in self.state.values():
            state["sum"].share_memory_()

    def _update(self, p, g, state, group):
        state["step"].add_(1)
        if group["weight_decay"]:
            g = g.add(p, alpha=group["weight_decay"])
        rate = float(group["lr"]) / (1 + (state["step"].item() - 1) * group["lr_decay"])
        state["sum"].addcmul_(g, g, value=1)
        p.addcdiv_(g, state["sum"].sqrt().add_(group["eps"]), value=-rate)


class Adadelta(_PerParameter):
    """Adadelta (Zeiler 2012).

    >>> import pyrite as torch
    >>> w = torch.ones(1, requires_grad=True)
    >>> opt = torch.optim.Adadelta([w]); w.sum().backward(); opt.step(); w.item() < 1
    True
    """

    def __init__(
        self,
        params,
        lr=1.0,
        rho=0.9,
        eps=1e-6,
        weight_decay=0,
        foreach=None,
        *,
        capturable=False,
        maximize=False,
        differentiable=False,
    ):
        check_lr(lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        check_nonnegative(epsilon=eps, weight_decay=weight_decay)
        reject("Adadelta", capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "rho": rho,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
                "capturable": capturable,
                "foreach": foreach,
                "differentiable": differentiable,
            },
        )

    def _update(self, p, g, state, group):
        if not state:
            state["step"] = new_step()
            state["square_avg"] = _zeros(p)
            state["acc_delta"] = _zeros(p)
        state["step"].add_(1)
        if group["weight_decay"]:
            g = g.add(p, alpha=group["weight_decay"])
        rho, eps = group["rho"], group["eps"]
        square, acc = state["square_avg"], state["acc_delta"]
        square.mul_(rho).addcmul_(g, g, value=1 - rho)
        delta = acc.add(eps).sqrt_().div_(square.add(eps).sqrt_()).mul_(g)
        acc.mul_(rho).addcmul_(delta, delta, value=1 - rho)
        p.add_(delta, alpha=-float(group["lr"]))


class Adamax(_PerParameter):
    """Adam with the maximum norm (Kingma and Ba 2014).

    >>> import pyrite as torch
    >>> w = torch.ones(1, requires_grad=True)
    >>> opt = torch.optim.Adamax([w], lr=0.1); w.sum().backward(); opt.step(); round(w.item(), 4)
    0.9
    """

    def __init__(
        self,
        params,
        lr=2e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        foreach=None,
        *,
        maximize=False,
        differentiable=False,
        capturable=False,
    ):
        check_lr(lr)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay)
        _check_betas(betas)
        reject("Adamax", capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
        )

    def _update(self, p, g, state, group):
        if not state:
            state["step"] = new_step()
            state["exp_avg"] = _zeros(p)
            state["exp_inf"] = _zeros(p)
        state["step"].add_(1)
        if group["weight_decay"]:
            g = g.add(p, alpha=group["weight_decay"])
        beta1, beta2 = group["betas"]
        avg, inf = state["exp_avg"], state["exp_inf"]
        avg.mul_(beta1).add_(g, alpha=1 - beta1)
        inf.copy_(_C.maximum(inf.mul(beta2), g.abs().add_(group["eps"])))
        p.addcdiv_(avg, inf, value=-float(group["lr"]) / (1 - beta1 ** state["step"].item()))


class NAdam(_PerParameter):
    """Adam with Nesterov's momentum (Dozat 2016).

    >>> import pyrite as torch
    >>> w = torch.ones(1, requires_grad=True)
    >>> opt = torch.optim.NAdam([w]); w.sum().backward(); opt.step(); w.item() < 1
    True
    """

    def __init__(
        self,
        params,
        lr=2e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        momentum_decay=4e-3,
        decoupled_weight_decay=False,
        *,
        foreach=None,
        maximize=False,
        capturable=False,
        differentiable=False,
    ):
        check_lr(lr)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
        _check_betas(betas)
        reject("NAdam", capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "differentiable": differentiable,
            },
        )

    def _update(self, p, g, state, group):
        if not state:
            state["step"] = new_step()
            state["mu_product"] = _C.tensor(1.0)
            state["exp_avg"] = _zeros(p)
            state["exp_avg_sq"] = _zeros(p)
        state["step"].add_(1)
        step, lr = state["step"].item(), float(group["lr"])
        beta1, beta2 = group["betas"]
        if group["weight_decay"]:
            if group["decoupled_weight_decay"]:
                p.mul_(1 - lr * group["weight_decay"])
            else:
                g = g.add(p, alpha=group["weight_decay"])
        mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * group["momentum_decay"]))
        mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * group["momentum_decay"]))
        state["mu_product"].mul_(mu)
        product = state["mu_product"].item()
        avg, square = state["exp_avg"], state["exp_avg_sq"]
        avg.lerp_(g, 1 - beta1)
        square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        denom = square.div(1 - beta2**step).sqrt_().add_(group["eps"])
        p.addcdiv_(g, denom, value=-lr * (1.0 - mu) / (1.0 - product))
        p.addcdiv_(avg, denom, value=-lr * mu_next / (1.0 - product * mu_next))


class RAdam(_PerParameter):
    """Adam with a rectified adaptive rate (Liu et al. 2019).

    >>> import pyrite as torch
    >>> w = torch.ones(1, requires_grad=True)
    >>> opt = torch.optim.RAdam([w]); w.sum().backward(); opt.step(); w.item() < 1
    True
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        decoupled_weight_decay=False,
        *,
        foreach=None,
        maximize=False,
        capturable=False,
        differentiable=False,
    ):
        check_lr(lr)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay)
        _check_betas(betas)
        reject("RAdam", capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "decoupled_weight_decay": decoupled_weight_decay,
                "differentiable": differentiable,
            },
        )

    def _update(self, p, g, state, group):
        if not state:
            state["step"] = new_step()
            state["exp_avg"] = _zeros(p)
            state["exp_avg_sq"] = _zeros(p)
        state["step"].add_(1)
        step, lr = state["step"].item(), float(group["lr"])
        beta1, beta2 = group["betas"]
        if group["weight_decay"]:
            if group["decoupled_weight_decay"]:
                p.mul_(1 - lr * group["weight_decay"])
            else:
                g = g.add(p, alpha=group["weight_decay"])
        avg, square = state["exp_avg"], state["exp_avg_sq"]
        avg.lerp_(g, 1 - beta1)
        square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        correction2 = 1 - beta2**step
        unbiased = avg / (1 - beta1**step)
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * step * beta2**step / correction2
        if rho > 5.0:
            rect = math.sqrt(
                (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
            )  # fmt: skip
            adaptive = math.sqrt(correction2) / square.sqrt().add_(group["eps"])
            p.add_(unbiased * adaptive, alpha=-lr * rect)
        else:
            p.add_(unbiased, alpha=-lr)


class Rprop(_PerParameter):
    """Resilient backpropagation: only the gradients' signs count (Riedmiller and Braun 1993).

    >>> import pyrite as torch
    >>> w = torch.ones(1, requires_grad=True)
    >>> opt = torch.optim.Rprop([w], lr=0.1); w.sum().backward(); opt.step(); round(w.item(), 4)
    0.9
    """

    def __init__(
        self,
        params,
        lr=1e-2,
        etas=(0.5, 1.2),
        step_sizes=(1e-6, 50),
        *,
        capturable=False,
        foreach=None,
        maximize=False,
        differentiable=False,
    ):
        check_lr(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        reject("Rprop", capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "etas": etas,
                "step_sizes": step_sizes,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
        )

    def _update(self, p, g, state, group):
        if not state:
            state["step"] = new_step()
            state["prev"] = _zeros(p)
            state["step_size"] = _C.full_like(g, float(group["lr"]), requires_grad=False)
        state["step"].add_(1)
        shrink, grow = group["etas"]
        low, high = group["step_sizes"]
        product = g * state["prev"]
        one = _C.ones_like(g)
        factor = _C.where(product > 0, one * grow, _C.where(product < 0, one * shrink, one))
        state["step_size"].mul_(factor).clamp_(min=low, max=high)
        g = _C.where(product < 0, _C.zeros_like(g), g)
        p.addcmul_(g.sign(), state["step_size"], value=-1)
        state["prev"].copy_(g)


class ASGD(_PerParameter):
    """Averaged stochastic gradient descent (Polyak and Juditsky 1992); the average is in ``state[p]['ax']``.

    >>> import pyrite as torch
    >>> w = torch.ones(1, requires_grad=True)
    >>> opt = torch.optim.ASGD([w], lr=0.1); w.sum().backward(); opt.step(); round(w.item(), 3)
    0.9
    """

    def __init__(
        self,
        params,
        lr=1e-2,
        lambd=1e-4,
        alpha=0.75,
        t0=1e6,
        weight_decay=0,
        foreach=None,
        maximize=False,
        differentiable=False,
        capturable=False,
    ):
        check_lr(lr)
        check_nonnegative(weight_decay=weight_decay)
        reject("ASGD", capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "lambd": lambd,
                "alpha": alpha,
                "t0": t0,
                "weight_decay": weight_decay,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
        )

    def _update(self, p, g, state, group):
        lr = float(group["lr"])
        if not state:
            state["step"] = new_step()
            state["eta"] = _C.tensor(lr)
            state["mu"] = _C.tensor(1.0)
            state["ax"] = _zeros(p)
        state["step"].add_(1)
        step, eta, mu = state["step"].item(), state["eta"].item(), state["mu"].item()
        if group["weight_decay"]:
            g = g.add(p, alpha=group["weight_decay"])
        p.mul_(1 - group["lambd"] * eta)
        p.add_(g, alpha=-eta)
        if mu == 1:
            state["ax"].copy_(p)
        else:
            state["ax"].add_((p - state["ax"]) * mu)
        state["eta"].fill_(lr / (1 + group["lambd"] * lr * step) ** group["alpha"])
        state["mu"].fill_(1 / max(1, step - group["t0"]))
