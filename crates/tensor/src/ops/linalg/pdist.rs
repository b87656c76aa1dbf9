//! `pdist`: the distances of all pairs of rows of one matrix, each pair once.

use super::distance::backward_recorded;
use super::*;
use crate::autograd::{Save, needs_grad};
use crate::op;
use pyrite_cpu::distance;
use smallvec::smallvec;

/// `g[pair(i, j)]` at (i, j) and (j, i) of a matrix with zeros on the diagonal, by differentiable operators.
fn unfold(v: &Tensor, n: usize) -> Result<Tensor> {
    let mut at: Vec<i64> = Vec::new();
    if at.try_reserve_exact(n * n).is_err() {
        bail!(
            OutOfMemory,
            "pdist: the second derivative for {n} rows needs {n} x {n} indices, too many for memory"
        );
    }
    for i in 0..n {
        for j in 0..n {
            let (a, b) = (i.min(j), i.max(j));
            // On the diagonal any pair will do.
            at.push(if a == b { 0 } else { (a * (2 * n - a - 1) / 2 + b - a - 1) as i64 });
        }
    }
    let at = Tensor::from_slice(&at, &[n * n])?;
    let full = ops::reshape(&ops::index::index_select(v, 0, &at)?, &[n as i64, n as i64])?;
    ops::masked_fill(&full, &on_diagonal(n, v.device())?, number(0.0))
}

fn pdist(x: &Tensor, p: f64) -> Result<Tensor> {
    ensure!(x.ndim() == 2, Runtime, "pdist only supports 2D tensors, got: {}D", x.ndim());
    ensure!(x.dtype().is_float(), Runtime, "pdist only supports floating-point dtypes");
    ensure!(p >= 0.0, Runtime, "pdist only supports non-negative p values");
    if x.device() != Device::Cpu {
        return pyrite_core::backend::unsupported(x.device(), "pdist");
    }
    if !matches!(x.dtype(), DType::F32 | DType::F64) {
        return ops::to_dtype(&pdist(&ops::to_dtype(x, DType::F32)?, p)?, x.dtype());
    }
    let n = x.shape()[0];
    let y = Tensor::empty(&[distance::pairs(n)], x.dtype(), x.device())?;
    distance::condensed(p, &ops::contiguous(&x.detach())?.arr(), &y.arr())?;
    if needs_grad(&[x]) {
        let save = [Save::Input(x), Save::Output(0)];
        autograd::attach("PdistBackward0", &[x], &[&y], &save, move |cx| {
            let (x, y, g) = (cx.saved(0)?, cx.saved(1)?, cx.grad(0)?);
            if n < 2 {
                return Ok(smallvec![Some(Tensor::zeros(x.shape(), x.dtype(), x.device())?)]);
            }
            if differentiable() {
                let (g, y) = (unfold(&g, n)?, unfold(y, n)?);
                return Ok(smallvec![Some(backward_recorded(p, &g, &y, x, x)?)]);
            }
            let dx = Tensor::empty(x.shape(), x.dtype(), x.device())?;
            let [g, y, x] = [&g, y, x].map(|t| ops::contiguous(&t.detach()));
            let (g, y, x) = (g?, y?, x?);
            distance::condensed_backward(p, &g.arr(), &y.arr(), &x.arr(), &dx.arr())?;
            Ok(smallvec![Some(dx)])
        });
    }
    Ok(y)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "pdist",
        FUNCTION,
        ns = "nn",
        "The p-norm distances of all pairs of rows of a matrix: the upper triangle of `cdist(x, x)` without its diagonal, by rows.",
        "input: Tensor, p: float = 2.0",
        |a| Ok(pdist(a.tensor(0)?, a.float(1)?)?.into())
    );
}
