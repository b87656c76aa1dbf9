"""L-BFGS with a line search that satisfies the strong Wolfe conditions."""

from .. import _C
from ..autograd.grad_mode import enable_grad, no_grad
from .optimizer import Optimizer


class LBFGS(Optimizer):
    """Limited-memory BFGS (Liu and Nocedal 1989). ``step`` needs a closure that clears gradients, computes the
    loss and calls ``backward``.

    Args:
        lr: length of the first step. max_iter: iterations per ``step``. max_eval: evaluations of the closure
        per step (default 1.25 max_iter). tolerance_grad, tolerance_change: when to stop. history_size: number
        of kept updates. line_search_fn: None or 'strong_wolfe'.

    One parameter group only.

    >>> import pyrite as torch
    >>> x = torch.tensor([-1.2, 1.0], requires_grad=True)
    >>> opt = torch.optim.LBFGS([x], max_iter=100, line_search_fn="strong_wolfe")
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    ...     loss.backward()
    ...     return loss
    >>> _ = opt.step(closure); [round(v, 2) for v in x.tolist()]
    [1.0, 1.0]
    """

    def __init__(
        self,
        params,
        lr=1,
        max_iter=20,
        max_eval=None,
        tolerance_grad=1e-7,
        tolerance_change=1e-9,
        history_size=100,
        line_search_fn=None,
    ):
        if not 0.0 <= lr:
            raise ValueError(f"Invalid learning rate: {lr}")
        if line_search_fn not in (None, "strong_wolfe"):
            raise RuntimeError("only 'strong_wolfe' is supported")
        super().__init__(
            params,
            {
                "lr": lr,
                "max_iter": max_iter,
                "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                "tolerance_grad": tolerance_grad,
                "tolerance_change": tolerance_change,
                "history_size": history_size,
                "line_search_fn": line_search_fn,
            },
        )
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params = self.param_groups[0]["params"]

    def __setstate__(self, state):
        super().__setstate__(state)
        self._params = self.param_groups[0]["params"]

    def _flat_grad(self):
        parts = [_C.zeros(p.numel(), dtype=p.dtype) if p.grad is None else p.grad.reshape(-1) for p in self._params]
        return _C.cat(parts)

    def _move(self, t, direction):
        start = 0
        for p in self._params:
            n = p.numel()
            p.add_(direction[start : start + n].view_as(p), alpha=t)
            start += n

    def step(self, closure):
        """Up to ``max_iter`` iterations; returns the loss before the first."""
        with no_grad():
            return self._step(closure)

    def _step(self, closure):
        closure = enable_grad()(closure)
        group = self.param_groups[0]
        lr, max_iter, max_eval = float(group["lr"]), group["max_iter"], group["max_eval"]
        tol_grad, tol_change = group["tolerance_grad"], group["tolerance_change"]
        line_search, history = group["line_search_fn"], group["history_size"]
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)

        first_loss = closure()
        loss = float(first_loss)
        evals = 1
        state["func_evals"] += 1
        grad = self._flat_grad()
        if float(grad.abs().max()) <= tol_grad:
            return first_loss

        d, t = state.get("d"), state.get("t")
        old_dirs, old_stps, ro = state.get("old_dirs"), state.get("old_stps"), state.get("ro")
        h_diag, prev_grad, prev_loss = state.get("H_diag"), state.get("prev_flat_grad"), state.get("prev_loss")

        n_iter = 0
        while n_iter < max_iter:
            n_iter += 1
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                d, old_dirs, old_stps, ro, h_diag = -grad, [], [], [], 1.0
            else:
                y = grad - prev_grad
                s = d * t
                ys = float(y.dot(s))
                if ys > 1e-10:  # curvature is positive: the update keeps the Hessian estimate positive definite
                    if len(old_dirs) == history:
                        old_dirs.pop(0)
                        old_stps.pop(0)
                        ro.pop(0)
                    old_dirs.append(y)
                    old_stps.append(s)
                    ro.append(1.0 / ys)
                    h_diag = ys / float(y.dot(y))
                d = self._direction(grad, old_dirs, old_stps, ro, h_diag)
            prev_grad = grad.clone()
            prev_loss = loss
            t = min(1.0, 1.0 / float(grad.abs().sum())) * lr if state["n_iter"] == 1 else lr
            slope = float(grad.dot(d))
            if slope > -tol_change:
                break
            used = 0
            if line_search is not None:
                start = [p.clone() for p in self._params]

                def evaluate(step_size, start=start, direction=d):
                    self._move(step_size, direction)
                    value = float(closure())
                    g = self._flat_grad()
                    for p, old in zip(self._params, start):
                        p.copy_(old)
                    return value, g

                loss, grad, t, used = _strong_wolfe(evaluate, t, d, loss, grad, slope, tolerance_change=tol_change)
                self._move(t, d)
                done = float(grad.abs().max()) <= tol_grad
            else:
                self._move(t, d)
                done = False
                if n_iter != max_iter:
                    loss = float(closure())
                    grad = self._flat_grad()
                    done = float(grad.abs().max()) <= tol_grad
                    used = 1
            evals += used
            state["func_evals"] += used
            if n_iter == max_iter or evals >= max_eval or done:
                break
            if float((d * t).abs().max()) <= tol_change or abs(loss - prev_loss) < tol_change:
                break

        state.update(
            d=d, t=t, old_dirs=old_dirs, old_stps=old_stps, ro=ro, H_diag=h_diag, prev_flat_grad=prev_grad,
            prev_loss=prev_loss,
        )  # fmt: skip
        return first_loss

    @staticmethod
    def _direction(grad, ys, steps, ro, h_diag):
        """The two-loop recursion: minus the estimated inverse Hessian times the gradient."""
        q = -grad
        alphas = [0.0] * len(ys)
        for i in range(len(ys) - 1, -1, -1):
            alphas[i] = float(steps[i].dot(q)) * ro[i]
            q = q.add(ys[i], alpha=-alphas[i])
        r = q * h_diag
        for i in range(len(ys)):
            beta = float(ys[i].dot(r)) * ro[i]
            r = r.add(steps[i], alpha=alphas[i] - beta)
        return r


def _cubic(x1, f1, g1, x2, f2, g2, bounds=None):
    """Minimum of the cubic through two points with their slopes, kept inside the bounds."""
    low, high = bounds if bounds is not None else (min(x1, x2), max(x1, x2))
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1**2 - g1 * g2
    if square >= 0:
        d2 = square**0.5
        if x1 <= x2:
            best = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
        else:
            best = x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2 * d2))
        return min(max(best, low), high)
    return (low + high) / 2.0


def _strong_wolfe(evaluate, t, d, f, g, slope, c1=1e-4, c2=0.9, tolerance_change=1e-9, max_ls=25):
    """Line search (Nocedal and Wright, Numerical Optimization, algorithms 3.5 and 3.6).

    Returns (loss, gradient, step size, evaluations).
    """
    d_norm = float(d.abs().max())
    f_new, g_new = evaluate(t)
    evals = 1
    slope_new = float(g_new.dot(d))

    # Bracket: grow the step until an interval holds a good point.
    t_prev, f_prev, g_prev, slope_prev = 0.0, f, g, slope
    done = False
    tries = 0
    bracket = None
    while tries < max_ls:
        if f_new > f + c1 * t * slope or (tries > 1 and f_new >= f_prev):
            bracket = [(t_prev, f_prev, g_prev, slope_prev), (t, f_new, g_new, slope_new)]
            break
        if abs(slope_new) <= -c2 * slope:
            bracket = [(t, f_new, g_new, slope_new)]
            done = True
            break
        if slope_new >= 0:
            bracket = [(t_prev, f_prev, g_prev, slope_prev), (t, f_new, g_new, slope_new)]
            break
        low, high = t + 0.01 * (t - t_prev), t * 10
        t_last = t
        t = _cubic(t_prev, f_prev, slope_prev, t, f_new, slope_new, (low, high))
        t_prev, f_prev, g_prev, slope_prev = t_last, f_new, g_new, slope_new
        f_new, g_new = evaluate(t)
        evals += 1
        slope_new = float(g_new.dot(d))
        tries += 1
    if bracket is None:
        bracket = [(0.0, f, g, slope), (t, f_new, g_new, slope_new)]

    # Zoom: shrink the interval.
    stuck = False
    if len(bracket) == 2 and bracket[0][1] > bracket[1][1]:
        bracket.reverse()  # the better end stands first
    while not done and tries < max_ls:
        (t_lo, f_lo, _, s_lo), (t_hi, f_hi, _, s_hi) = bracket
        if abs(t_hi - t_lo) * d_norm < tolerance_change:
            break
        t = _cubic(t_lo, f_lo, s_lo, t_hi, f_hi, s_hi)
        low, high = min(t_lo, t_hi), max(t_lo, t_hi)
        margin = 0.1 * (high - low)
        if min(high - t, t - low) < margin:
            if stuck or t >= high or t <= low:
                t = high - margin if abs(t - high) < abs(t - low) else low + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        f_new, g_new = evaluate(t)
        evals += 1
        slope_new = float(g_new.dot(d))
        tries += 1
        point = (t, f_new, g_new, slope_new)
        if f_new > f + c1 * t * slope or f_new >= f_lo:
            bracket[1] = point
            if bracket[0][1] > bracket[1][1]:
                bracket.reverse()
        else:
            if abs(slope_new) <= -c2 * slope:
                done = True
            elif slope_new * (t_hi - t_lo) >= 0:
                bracket[1] = bracket[0]
            bracket[0] = point
    t, f_new, g_new, _ = bracket[0]
    return f_new, g_new, t, evals
