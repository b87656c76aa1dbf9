//! softmax, log_softmax, softmin: one row kernel each way; under `create_graph` the gradient is
//! written in library ops.

use super::nn_misc::{arr_of, dense_rows, dim_last, want_float};
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::Rowwise;
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Layout, Result};
use smallvec::{SmallVec, smallvec};

/// `exp(x)` normalised to sum 1 along `dim`.
pub fn softmax(x: &Tensor, dim: i64, dtype: Option<DType>) -> Result<Tensor> {
    normalise(x, dim, dtype, false)
}

/// `log(softmax(x))` without overflow.
pub fn log_softmax(x: &Tensor, dim: i64, dtype: Option<DType>) -> Result<Tensor> {
    normalise(x, dim, dtype, true)
}

fn normalise(x: &Tensor, dim: i64, dtype: Option<DType>, log: bool) -> Result<Tensor> {
    let name = if log { "log_softmax" } else { "softmax" };
    let d = wrap_dim(name, dim, x.ndim())?;
    let x = match dtype {
        Some(t) if t != x.dtype() => super::to_dtype(x, t)?,
        _ => x.clone(),
    };
    want_float(name, &x)?;
    let y = x.empty_like_with(x.dtype())?;
    if x.numel() > 0 {
        let (src, dst) = (rows(&x, d)?, rows(&y, d)?);
        let (sl, dl) = (row_layout(&src, d)?, row_layout(&dst, d)?);
        x.backend()?.rowwise(Rowwise::Softmax { x: arr_of(&src, &sl), y: arr_of(&dst, &dl), log })?;
        if !dst.same(&y) {
            super::copy_raw(&y, &dst)?;
        }
    }
    if needs_grad(&[&x]) {
        let back = if log { "LogSoftmaxBackward0" } else { "SoftmaxBackward0" };
        autograd::attach_any(back, &[&x], &[&y], &[Save::Output(0)], move |cx| {
            let (g, y) = (cx.grad(0)?, cx.saved(0)?);
            if !cx.create_graph && cx.batch.is_none() && g.dtype() == y.dtype() {
                return Ok(smallvec![Some(fused(&g, y, d, log)?)]);
            }
            // (A negative dimension: that of a batch is in front.)
            let dims: SmallVec<[i64; 1]> =
                if y.ndim() == 0 { smallvec![] } else { smallvec![d as i64 - y.ndim() as i64] };
            // The sum over the dimension; of no dimension at all, the value itself.
            let along = |t: &Tensor| match dims.is_empty() {
                true => Ok(t.clone()),
                false => super::sum(t, Some(&dims), true, None),
            };
            let dx = if log {
                let s = along(&g)?;
                super::sub(&g, &super::mul(&super::exp(y)?, &s)?)?
            } else {
                let s = along(&super::mul(&g, y)?)?;
                super::mul(y, &super::sub(&g, &s)?)?
            };
            Ok(smallvec![Some(dx)])
        });
    }
    Ok(y)
}

/// The gradient from the output, in one kernel.
fn fused(g: &Tensor, y: &Tensor, d: usize, log: bool) -> Result<Tensor> {
    let dx = y.empty_like_with(y.dtype())?;
    if y.numel() == 0 {
        return Ok(dx);
    }
    let (gr, yr, out) = (rows(g, d)?, rows(y, d)?, rows(&dx, d)?);
    let (gl, yl, ol) = (row_layout(&gr, d)?, row_layout(&yr, d)?, row_layout(&out, d)?);
    dx.backend()?.rowwise(Rowwise::SoftmaxBackward {
        dy: arr_of(&gr, &gl),
        y: arr_of(&yr, &yl),
        dx: arr_of(&out, &ol),
        log,
    })?;
    if !out.same(&dx) {
        super::copy_raw(&dx, &out)?;
    }
    Ok(dx)
}

/// A tensor whose layout with `d` last the device's row kernels take.
fn rows(t: &Tensor, d: usize) -> Result<Tensor> {
    if t.ndim() == 0 || (d + 1 == t.ndim() && t.is_contiguous()) {
        return Ok(t.clone());
    }
    let moved = super::with_layout(t, dim_last(t.layout(), d)?);
    let dense = dense_rows(&moved)?;
    if dense.same(&moved) {
        return Ok(t.clone());
    }
    // Back to the order of `t`, over the dense copy.
    let n = t.ndim() as i64;
    let order: Vec<i64> = (0..n)
        .map(|i| match i.cmp(&(d as i64)) {
            std::cmp::Ordering::Less => i,
            std::cmp::Ordering::Equal => n - 1,
            std::cmp::Ordering::Greater => i - 1,
        })
        .collect();
    Ok(super::with_layout(&dense, dense.layout().permute(&order)?))
}

fn row_layout(t: &Tensor, d: usize) -> Result<Layout> {
    if t.ndim() == 0 {
        return Ok(Layout::new([1].as_slice(), [1isize].as_slice(), t.layout().offset()));
    }
    dim_last(t.layout(), d)
}

fn call(a: &Args, f: fn(&Tensor, i64, Option<DType>) -> Result<Tensor>) -> Result<Value> {
    Ok(f(a.tensor(0)?, a.int(1)?, a.dtype_opt(2)?)?.into())
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "softmax",
        FUNCTION | METHOD | OUT,
        "`exp(x)` normalised to sum 1 along `dim`.",
        "input: Tensor, dim: int, dtype: dtype? = None",
        |a| call(a, softmax)
    );
    op!(
        list,
        "log_softmax",
        FUNCTION | METHOD | OUT,
        "`log(softmax(x))` along `dim`, without overflow.",
        "input: Tensor, dim: int, dtype: dtype? = None",
        |a| call(a, log_softmax)
    );
    op!(
        list,
        "softmax",
        FUNCTION,
        ns = "nn",
        "`exp(x)` normalised to sum 1 along `dim`.",
        "input: Tensor, dim: int, dtype: dtype? = None",
        |a| call(a, softmax)
    );
    op!(
        list,
        "log_softmax",
        FUNCTION,
        ns = "nn",
        "`log(softmax(x))` along `dim`, without overflow.",
        "input: Tensor, dim: int, dtype: dtype? = None",
        |a| call(a, log_softmax)
    );
    op!(
        list,
        "softmin",
        FUNCTION,
        ns = "nn",
        "`softmax(-x)`.",
        "input: Tensor, dim: int, dtype: dtype? = None",
        |a| Ok(softmax(&super::neg(a.tensor(0)?)?, a.int(1)?, a.dtype_opt(2)?)?.into())
    );
}
