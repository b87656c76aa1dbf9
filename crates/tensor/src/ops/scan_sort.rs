//! Running reductions along a dimension, sorting and selection of the greatest.

use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::ScanOp;
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Dims, Result, Scalar, bail, ensure, interrupt};
use smallvec::smallvec;

fn real_only(op: &str, t: &Tensor) -> Result<()> {
    ensure!(!t.dtype().is_complex(), NotImplemented, "\"{op}\" is not implemented for {}", t.dtype());
    Ok(())
}

/// A scan kernel; 0-d tensors are their own scan.
pub(super) fn scan_raw(
    op: ScanOp,
    t: &Tensor,
    d: usize,
    dtype: DType,
    idx: Option<&Tensor>,
) -> Result<Tensor> {
    let y = Tensor::empty(t.shape(), dtype, t.device())?;
    if t.ndim() == 0 {
        super::copy_raw(&y, &t.detach())?;
        if let Some(i) = idx {
            i.backend()?.fill(i.arr(), Scalar::Int(0))?;
        }
    } else if y.numel() > 0 {
        t.backend()?.scan(op, y.arr(), idx.map(Tensor::arr), t.arr(), d)?;
    }
    Ok(y)
}

pub(super) fn flipped(t: &Tensor, d: usize) -> Result<Tensor> {
    if t.ndim() == 0 { Ok(t.clone()) } else { super::slice(t, d as i64, None, None, -1) }
}

/// The sum of everything from each position on: the gradient of a running sum.
pub(super) fn reverse_cumsum(g: &Tensor, d: usize) -> Result<Tensor> {
    flipped(&cumsum(&flipped(g, d)?, d as i64, None)?, d)
}

fn sum_dtype(t: &Tensor, dtype: Option<DType>) -> DType {
    dtype.unwrap_or(if t.dtype().is_differentiable() { t.dtype() } else { DType::I64 })
}

pub fn cumsum(t: &Tensor, dim: i64, dtype: Option<DType>) -> Result<Tensor> {
    let d = wrap_dim("cumsum", dim, t.ndim())?;
    let y = scan_raw(ScanOp::Sum, t, d, sum_dtype(t, dtype), None)?;
    if needs_grad(&[t]) {
        let scalar = t.ndim() == 0;
        autograd::attach_any("CumsumBackward0", &[t], &[&y], &[], move |cx| {
            let g = cx.grad(0)?;
            Ok(smallvec![Some(if scalar { g } else { reverse_cumsum(&g, d + cx.lead())? })])
        });
    }
    Ok(y)
}

pub fn cumprod(t: &Tensor, dim: i64, dtype: Option<DType>) -> Result<Tensor> {
    let d = wrap_dim("cumprod", dim, t.ndim())?;
    let y = scan_raw(ScanOp::Prod, t, d, sum_dtype(t, dtype), None)?;
    if needs_grad(&[t]) {
        autograd::attach("CumprodBackward0", &[t], &[&y], &[Save::Input(t), Save::Output(0)], move |cx| {
            let (g, x, y) = (cx.grad(0)?, cx.saved(0)?.clone(), cx.saved(1)?.clone());
            Ok(smallvec![Some(cumprod_backward(&g, &x, &y, d)?)])
        });
    }
    Ok(y)
}

/// dx_k = sum over i >= k of g_i * prod of x_j, j <= i, j != k. Without zeros that is a division;
/// with zeros the products are formed one position at a time.
fn cumprod_backward(g: &Tensor, x: &Tensor, y: &Tensor, d: usize) -> Result<Tensor> {
    if x.ndim() == 0 {
        return Ok(g.clone());
    }
    if x.numel() == 0 {
        return Tensor::zeros(x.shape(), x.dtype(), x.device());
    }
    if !super::reduce::any_zero(x)? {
        let (x, y) = (super::conj_now(x)?, super::conj_now(y)?);
        return super::div(&reverse_cumsum(&super::mul(g, &y)?, d)?, &x);
    }
    let (dim, n) = (d as i64, x.shape()[d] as i64);
    let mut parts = Vec::with_capacity(n as usize);
    for k in 0..n {
        // The product without x_k, at the positions from k on.
        let before = if k == 0 { None } else { Some(super::narrow(y, dim, k - 1, 1)?) };
        let one = super::narrow(x, dim, k, 1)?;
        let one = Tensor::full(one.shape(), Scalar::Int(1), x.dtype(), x.device())?;
        let tail = if k + 1 < n {
            super::shape::cat(&[one, cumprod(&super::narrow(x, dim, k + 1, n - k - 1)?, dim, None)?], dim)?
        } else {
            one
        };
        let others = match before {
            Some(b) => super::mul(&tail, &b)?,
            None => tail,
        };
        let part = super::mul(&super::narrow(g, dim, k, n - k)?, &super::conj_now(&others)?)?;
        parts.push(super::sum(&part, Some(&[dim]), true, None)?);
    }
    super::shape::cat(&parts, dim)
}

fn cum_extremum(name: &'static str, op: ScanOp, t: &Tensor, dim: i64) -> Result<Vec<Tensor>> {
    real_only(name, t)?;
    let d = wrap_dim(name, dim, t.ndim())?;
    let idx = Tensor::empty(t.shape(), DType::I64, t.device())?;
    let x = if t.dtype().is_bool() { super::to_dtype(t, DType::U8)? } else { t.clone() };
    let y = scan_raw(op, &x, d, x.dtype(), Some(&idx))?;
    let y = if t.dtype().is_bool() { super::to_dtype(&y, DType::Bool)? } else { y };
    if needs_grad(&[t]) {
        let (at, shape): (Tensor, Dims) = (idx.clone(), t.shape().into());
        autograd::attach(
            if op == ScanOp::Max { "CummaxBackward0" } else { "CumminBackward0" },
            &[t],
            &[&y],
            &[],
            move |cx| {
                let g = cx.grad(0)?;
                if shape.is_empty() {
                    return Ok(smallvec![Some(g)]);
                }
                let z = Tensor::zeros(&shape, g.dtype(), g.device())?;
                Ok(smallvec![Some(super::index::scatter(
                    &z,
                    d as i64,
                    &at,
                    &g,
                    pyrite_core::backend::Scatter::Add
                )?)])
            },
        );
    }
    Ok(vec![y, idx])
}

/// Values and positions, with the gradient of picking values.
fn picked(name: &'static str, t: &Tensor, d: usize, val: Tensor, idx: Tensor) -> Vec<Tensor> {
    if needs_grad(&[t]) {
        let (at, shape): (Tensor, Dims) = (idx.clone(), t.shape().into());
        autograd::attach_any(name, &[t], &[&val], &[], move |cx| {
            Ok(smallvec![Some(super::index::value_selecting_backward(cx, d, &at, &shape, true)?)])
        });
    }
    vec![val, idx]
}

/// Elements from which sorting takes about a millisecond: then it can be interrupted.
pub(super) const LONG: usize = 1 << 16;

pub fn sort(t: &Tensor, dim: i64, descending: bool) -> Result<Vec<Tensor>> {
    real_only("sort", t)?;
    let d = wrap_dim("sort", dim, t.ndim())?;
    let val = Tensor::empty(t.shape(), t.dtype(), t.device())?;
    let idx = Tensor::empty(t.shape(), DType::I64, t.device())?;
    if t.ndim() == 0 {
        super::copy_raw(&val, &t.detach())?;
        super::fill_(&idx, Scalar::Int(0))?;
    } else if t.numel() > 0 {
        let backend = t.backend()?;
        interrupt::stoppable_if(t.numel() > LONG, || {
            backend.sort(val.arr(), idx.arr(), t.arr(), d, descending)
        })?;
    }
    Ok(picked("SortBackward0", t, d, val, idx))
}

pub fn topk(t: &Tensor, k: i64, dim: i64, largest: bool) -> Result<Vec<Tensor>> {
    real_only("topk", t)?;
    let d = wrap_dim("topk", dim, t.ndim())?;
    let n = t.shape().get(d).copied().unwrap_or(1);
    ensure!(
        k >= 0 && k as usize <= n,
        Runtime,
        "selected index k out of range (topk: k = {k}, dimension {d} has size {n})"
    );
    if t.ndim() == 0 {
        if k == 0 {
            bail!(NotImplemented, "topk: k = 0 of a 0-d tensor is not supported");
        }
        return sort(t, 0, largest);
    }
    let mut shape: Dims = t.shape().into();
    shape[d] = k as usize;
    let val = Tensor::empty(&shape, t.dtype(), t.device())?;
    let idx = Tensor::empty(&shape, DType::I64, t.device())?;
    if val.numel() > 0 {
        let backend = t.backend()?;
        interrupt::stoppable_if(t.numel() > LONG, || {
            backend.topk(val.arr(), idx.arr(), t.arr(), d, largest)
        })?;
    }
    Ok(picked("TopkBackward0", t, d, val, idx))
}

const PAIR: &[&str] = &["values", "indices"];

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "cumsum",
        FUNCTION | METHOD | OUT,
        "The running sum along `dim`.",
        "input: Tensor, dim: int, *, dtype: dtype? = None",
        |a| Ok(cumsum(a.tensor(0)?, a.int(1)?, a.dtype_opt(2)?)?.into())
    );
    op!(
        list,
        "cumsum_",
        METHOD,
        "In-place `cumsum`.",
        "input: Tensor, dim: int, *, dtype: dtype? = None",
        |a| {
            super::copy_(a.tensor(0)?, &cumsum(a.tensor(0)?, a.int(1)?, a.dtype_opt(2)?)?)?;
            Ok(Value::Receiver)
        }
    );
    op!(
        list,
        "cumprod",
        FUNCTION | METHOD | OUT,
        "The running product along `dim`.",
        "input: Tensor, dim: int, *, dtype: dtype? = None",
        |a| Ok(cumprod(a.tensor(0)?, a.int(1)?, a.dtype_opt(2)?)?.into())
    );
    op!(
        list,
        "cumprod_",
        METHOD,
        "In-place `cumprod`.",
        "input: Tensor, dim: int, *, dtype: dtype? = None",
        |a| {
            super::copy_(a.tensor(0)?, &cumprod(a.tensor(0)?, a.int(1)?, a.dtype_opt(2)?)?)?;
            Ok(Value::Receiver)
        }
    );
    op!(
        list,
        "cummax",
        FUNCTION | METHOD | OUT,
        "The running maximum along `dim` and its positions.",
        "input: Tensor, dim: int",
        |a| Ok(Value::Named("cummax", PAIR, cum_extremum("cummax", ScanOp::Max, a.tensor(0)?, a.int(1)?)?))
    );
    op!(
        list,
        "cummin",
        FUNCTION | METHOD | OUT,
        "The running minimum along `dim` and its positions.",
        "input: Tensor, dim: int",
        |a| Ok(Value::Named("cummin", PAIR, cum_extremum("cummin", ScanOp::Min, a.tensor(0)?, a.int(1)?)?))
    );
    op!(
        list,
        "logcumsumexp",
        FUNCTION | METHOD | OUT,
        "The logarithm of the running sum of exponentials along `dim`.",
        "input: Tensor, dim: int",
        |a| Ok(super::logcumsumexp::logcumsumexp(a.tensor(0)?, a.int(1)?)?.into())
    );
    op!(list, "sort", FUNCTION | METHOD | OUT, "Sorted values along `dim` and their positions; NaN counts as the greatest. Always stable.",
        "input: Tensor, dim: int = -1, descending: bool = False, stable: bool? = False", |a| Ok(Value::Named("sort", PAIR, sort(a.tensor(0)?, a.int(1)?, a.bool(2)?)?));
        "input: Tensor, *, stable: bool?, dim: int = -1, descending: bool = False", |a| Ok(Value::Named("sort", PAIR, sort(a.tensor(0)?, a.int(2)?, a.bool(3)?)?)));
    op!(
        list,
        "argsort",
        FUNCTION | METHOD,
        "The positions that sort along `dim`.",
        "input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False",
        |a| Ok(sort(&a.tensor(0)?.detach(), a.int(1)?, a.bool(2)?)?.swap_remove(1).into())
    );
    op!(
        list,
        "msort",
        FUNCTION | METHOD | OUT,
        "Sorted along the first dimension.",
        "input: Tensor",
        |a| Ok(sort(a.tensor(0)?, 0, false)?.swap_remove(0).into())
    );
    op!(
        list,
        "topk",
        FUNCTION | METHOD | OUT,
        "The `k` greatest (or smallest) values along `dim`, sorted, and their positions.",
        "input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True",
        |a| Ok(Value::Named("topk", PAIR, topk(a.tensor(0)?, a.int(1)?, a.int(2)?, a.bool(3)?)?))
    );
}
