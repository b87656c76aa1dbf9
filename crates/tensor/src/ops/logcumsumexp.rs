//! The running log-sum-exp, with derivatives of any order.
//!
//! `y_i = log sum_{j <= i} exp(x_j)`, so its Jacobian is `exp(x_j - y_i)` for `j <= i`: never above 1. Tangents and
//! gradients are products with it, summed in log space (positive and negative parts apart) where nothing overflows.
//! Each is an operator with a derivative of its own, given by the other. Differentiating the log-space formula
//! itself would meet infinity minus infinity wherever one sign is missing.

use super::scan_sort::{flipped, reverse_cumsum, scan_raw};
use super::{Operand, add, mul, neg, sub};
use crate::autograd::{self, Save, needs_grad};
use crate::tensor::Tensor;
use pyrite_core::backend::ScanOp;
use pyrite_core::layout::wrap_dim;
use pyrite_core::{Result, Scalar, ensure};
use smallvec::smallvec;

pub fn logcumsumexp(t: &Tensor, dim: i64) -> Result<Tensor> {
    ensure!(
        t.dtype().is_differentiable(),
        NotImplemented,
        "\"logcumsumexp\" not implemented for '{}'",
        t.dtype().name()
    );
    let d = wrap_dim("logcumsumexp", dim, t.ndim())?;
    let y = scan_raw(ScanOp::LogSumExp, t, d, t.dtype(), None)?;
    if needs_grad(&[t]) {
        autograd::attach(
            "LogcumsumexpBackward0",
            &[t],
            &[&y],
            &[Save::Input(t), Save::Output(0)],
            move |cx| {
                let (g, x, y) = (cx.grad(0)?, cx.saved(0)?.clone(), cx.saved(1)?.clone());
                if g.dtype().is_complex() {
                    // conj(exp(x)) * sum over the later ones of g * conj(exp(-y)), both about the line's greatest y.
                    let top =
                        super::reduce::amax(&super::complex::real(&y.detach())?, Some(&[d as i64]), true)?;
                    let finite = super::isfinite(&top)?;
                    let top = super::where_(&finite, &top, Operand::Number(Scalar::Float(0.0)))?;
                    let (x, y) = (sub(&x, &top)?, sub(&y, &top)?);
                    let back = super::conj_now(&super::exp(&neg(&y)?)?)?;
                    let sums = reverse_cumsum(&mul(&g, &back)?, d)?;
                    return Ok(smallvec![Some(mul(&sums, &super::conj_now(&super::exp(&x)?)?)?)]);
                }
                Ok(smallvec![Some(gathered(&g, &x, &y, d)?)])
            },
        );
    }
    Ok(y)
}

/// The positive and the negative entries of `v`, each as `f` of their logarithms, one less the other.
fn by_sign(v: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let nothing = Operand::Number(Scalar::Float(f64::NEG_INFINITY));
    let zero = Operand::Number(Scalar::Float(0.0));
    let size = super::log(&super::abs(v)?)?;
    // NaN is in both, so that it stays.
    let up = f(&super::where_(&super::le(v, zero)?, nothing, &size)?)?;
    let down = f(&super::where_(&super::ge(v, zero)?, nothing, &size)?)?;
    sub(&up, &down)
}

/// `sum_{i >= j} g_i exp(x_j - y_i)`: a gradient of `y` carried to `x`.
fn gathered(g: &Tensor, x: &Tensor, y: &Tensor, d: usize) -> Result<Tensor> {
    let (gv, xv, yv) = (g.detach(), x.detach(), y.detach());
    let out = by_sign(&gv, |l| {
        let later = flipped(&sub(l, &yv)?, d)?;
        let sums = scan_raw(ScanOp::LogSumExp, &later, d, later.dtype(), None)?;
        super::exp(&add(&flipped(&sums, d)?, &xv)?)
    })?;
    if needs_grad(&[g, x, y]) {
        let saves = [Save::Input(g), Save::Input(x), Save::Input(y), Save::Output(0)];
        autograd::attach("LogcumsumexpBackwardBackward0", &[g, x, y], &[&out], &saves, move |cx| {
            let w = cx.grad(0)?;
            let (g, x, y) = (cx.saved(0)?.clone(), cx.saved(1)?.clone(), cx.saved(2)?.clone());
            let along = spread(&w, &x, &y, d)?;
            let to_x = mul(&w, cx.saved(3)?)?;
            let to_y = neg(&mul(&g, &along)?)?;
            Ok(smallvec![Some(along), Some(to_x), Some(to_y)])
        });
    }
    Ok(out)
}

/// `sum_{j <= i} w_j exp(x_j - y_i)`: a tangent of `x` carried to `y`.
fn spread(w: &Tensor, x: &Tensor, y: &Tensor, d: usize) -> Result<Tensor> {
    let (wv, xv, yv) = (w.detach(), x.detach(), y.detach());
    let out = by_sign(&wv, |l| {
        let terms = add(l, &xv)?;
        let sums = scan_raw(ScanOp::LogSumExp, &terms, d, terms.dtype(), None)?;
        super::exp(&sub(&sums, &yv)?)
    })?;
    if needs_grad(&[w, x, y]) {
        let saves = [Save::Input(w), Save::Input(x), Save::Input(y), Save::Output(0)];
        autograd::attach("LogcumsumexpTangentBackward0", &[w, x, y], &[&out], &saves, move |cx| {
            let u = cx.grad(0)?;
            let (w, x, y) = (cx.saved(0)?.clone(), cx.saved(1)?.clone(), cx.saved(2)?.clone());
            let back = gathered(&u, &x, &y, d)?;
            let to_x = mul(&w, &back)?;
            let to_y = neg(&mul(&u, cx.saved(3)?)?)?;
            Ok(smallvec![Some(back), Some(to_x), Some(to_y)])
        });
    }
    Ok(out)
}
