//! Reductions: sums, products, extrema, arg-reductions (variance and norms are in `moments.rs`). Kernels are the reduction table and
//! `arg_reduce`; gradients are written here in the library's own ops.

use super::Operand;
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::{ArgOp, ReduceOp};
use pyrite_core::layout::wrap_dim;
use pyrite_core::rows::ReduceId;
use pyrite_core::rows::reductions::id;
use pyrite_core::{DType, Dims, Layout, Result, Scalar, bail, ensure};
use smallvec::{SmallVec, smallvec};

/// Which dimensions of a tensor are reduced.
pub type Mask = SmallVec<[bool; 8]>;

/// `dim=None` or an empty list reduces everything.
pub fn dim_mask(op: &str, dims: Option<&[i64]>, ndim: usize) -> Result<Mask> {
    let mut mask: Mask = smallvec![false; ndim];
    match dims {
        None | Some([]) => mask.iter_mut().for_each(|m| *m = true),
        Some(list) => {
            for d in list {
                let d = wrap_dim(op, *d, ndim)?;
                if let Some(m) = mask.get_mut(d) {
                    ensure!(!*m, Runtime, "{op}: dim {d} appears multiple times in the list of dims");
                    *m = true;
                }
            }
        }
    }
    Ok(mask)
}

/// The shape with reduced sizes 1, and the result's shape.
pub(super) fn shapes(t: &Tensor, mask: &Mask, keepdim: bool) -> (Dims, Dims) {
    let kept: Dims = t.shape().iter().zip(mask).map(|(s, m)| if *m { 1 } else { *s }).collect();
    let out = if keepdim {
        kept.clone()
    } else {
        t.shape().iter().zip(mask).filter(|(_, m)| !**m).map(|(s, _)| *s).collect()
    };
    (kept, out)
}

/// How many elements meet in one result.
pub(super) fn count(t: &Tensor, mask: &Mask) -> usize {
    t.shape().iter().zip(mask).filter(|(_, m)| **m).map(|(s, _)| *s).product()
}

/// Runs a reduction kernel; no history. The result has dtype `out`.
pub(super) fn reduce_raw(
    op: ReduceOp,
    t: &Tensor,
    mask: &Mask,
    keepdim: bool,
    out: DType,
    params: &[f64],
) -> Result<Tensor> {
    let (kept, shape) = shapes(t, mask, keepdim);
    let y = Tensor::empty(&kept, out, t.device())?;
    if y.numel() > 0 {
        t.backend()?.reduce(op, y.arr(), None, t.arr(), params)?;
    }
    Ok(super::with_layout(&y, Layout::contiguous(&shape)))
}

/// The gradient of the result spread over the input's shape (dimensions put back first).
pub(super) fn spread(g: &Tensor, shape: &[usize], mask: &Mask, keepdim: bool) -> Result<Tensor> {
    let kept: Dims = shape.iter().zip(mask).map(|(s, m)| if *m { 1 } else { *s }).collect();
    let g = if keepdim { g.clone() } else { super::reshape_to(g, &kept)? };
    super::expand_to(&g, shape)
}

/// As [`spread`], for a gradient with the batch dimension of a backward in front, if it has one.
pub(super) fn spread_grad(
    cx: &autograd::Ctx,
    g: &Tensor,
    shape: &[usize],
    mask: &Mask,
    keepdim: bool,
) -> Result<Tensor> {
    match cx.batch {
        None => spread(g, shape, mask, keepdim),
        Some(_) => {
            let mask = std::iter::once(false).chain(mask.iter().copied()).collect();
            spread(g, &cx.batched(shape), &mask, keepdim)
        }
    }
}

pub(super) fn complex_unsupported(op: &str, t: &Tensor) -> Result<()> {
    ensure!(!t.dtype().is_complex(), NotImplemented, "\"{op}\" is not implemented for {}", t.dtype());
    Ok(())
}

pub fn sum(t: &Tensor, dims: Option<&[i64]>, keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    let out = dtype.unwrap_or(if t.dtype().is_differentiable() { t.dtype() } else { DType::I64 });
    if t.dtype().is_complex() && !out.is_complex() {
        return sum(&super::to_dtype(t, out)?, dims, keepdim, dtype);
    }
    let mask = dim_mask("sum", dims, t.ndim())?;
    let y = reduce_raw(ReduceOp::Row(id::SUM), t, &mask, keepdim, out, &[])?;
    if needs_grad(&[t]) {
        let shape: Dims = t.shape().into();
        autograd::attach_any(
            if dims.is_some() { "SumBackward1" } else { "SumBackward0" },
            &[t],
            &[&y],
            &[],
            move |cx| Ok(smallvec![Some(spread_grad(cx, &cx.grad(0)?, &shape, &mask, keepdim)?)]),
        );
    }
    Ok(y)
}

/// Sums `g` down to a shape it was broadcast from.
pub fn sum_to_size(g: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if g.shape() == shape {
        return Ok(g.clone());
    }
    ensure!(
        pyrite_core::layout::broadcast("sum_to_size", shape, g.shape()).is_ok_and(|s| s[..] == *g.shape()),
        Shape,
        "sum_to_size: size {shape:?} is not expandable to size {:?}.",
        g.shape()
    );
    let lead = g.ndim() - shape.len();
    let dims: SmallVec<[i64; 6]> = (0..g.ndim())
        .filter(|d| *d < lead || (shape[*d - lead] == 1 && g.shape()[*d] != 1))
        .map(|d| d as i64)
        .collect();
    let s = if dims.is_empty() { g.clone() } else { sum(g, Some(&dims), true, None)? };
    super::reshape_to(&s, shape)
}

/// `n` rows, each summed down to a shape it was broadcast from.
pub fn sum_rows_to_size(g: &Tensor, n: usize, shape: &[usize]) -> Result<Tensor> {
    ensure!(
        g.shape().first() == Some(&n) && g.ndim() > shape.len(),
        Shape,
        "sum_to_size: {n} of {shape:?} cannot come from {:?}",
        g.shape()
    );
    // The row's own leading dimensions, which the shape has not, are sizes of 1 in it.
    let ones = g.ndim() - 1 - shape.len();
    let full: Dims =
        std::iter::once(n).chain(std::iter::repeat_n(1, ones)).chain(shape.iter().copied()).collect();
    let flat: Dims = std::iter::once(n).chain(shape.iter().copied()).collect();
    super::reshape_to(&sum_to_size(g, &full)?, &flat)
}

pub fn mean(t: &Tensor, dims: Option<&[i64]>, keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    let out = dtype.unwrap_or(t.dtype());
    ensure!(
        out.is_differentiable(),
        Runtime,
        "mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: {}",
        t.dtype().name()
    );
    if t.dtype().is_complex() && !out.is_complex() {
        return mean(&super::to_dtype(t, out)?, dims, keepdim, dtype);
    }
    let mask = dim_mask("mean", dims, t.ndim())?;
    let y = reduce_raw(ReduceOp::Row(id::MEAN), t, &mask, keepdim, out, &[])?;
    if needs_grad(&[t]) {
        let shape: Dims = t.shape().into();
        let n = count(t, &mask) as f64;
        autograd::attach_any(
            if dims.is_some() { "MeanBackward1" } else { "MeanBackward0" },
            &[t],
            &[&y],
            &[],
            move |cx| {
                let g = super::div(&cx.grad(0)?, n)?;
                Ok(smallvec![Some(spread_grad(cx, &g, &shape, &mask, keepdim)?)])
            },
        );
    }
    Ok(y)
}

pub fn prod(t: &Tensor, dims: Option<&[i64]>, keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    let out = dtype.unwrap_or(if t.dtype().is_differentiable() { t.dtype() } else { DType::I64 });
    if t.dtype().is_complex() && !out.is_complex() {
        return prod(&super::to_dtype(t, out)?, dims, keepdim, dtype);
    }
    let mask = dim_mask("prod", dims, t.ndim())?;
    let y = reduce_raw(ReduceOp::Row(id::PROD), t, &mask, keepdim, out, &[])?;
    if needs_grad(&[t]) {
        autograd::attach("ProdBackward0", &[t], &[&y], &[Save::Input(t), Save::Output(0)], move |cx| {
            prod_backward(cx, &mask, keepdim)
        });
    }
    Ok(y)
}

/// `g * y / x`, except where a factor is 0: there the product of the others.
fn prod_backward(cx: &mut autograd::Ctx, mask: &Mask, keepdim: bool) -> Result<autograd::Grads> {
    let (x, y) = (cx.saved(0)?.clone(), cx.saved(1)?.clone());
    let g = spread(&cx.grad(0)?, x.shape(), mask, keepdim)?;
    let g = if g.dtype() == x.dtype() { g } else { super::to_dtype(&g, x.dtype())? };
    if !any_zero(&x.detach())? {
        let y = super::conj_now(&spread(&y, x.shape(), mask, keepdim)?)?;
        return Ok(smallvec![Some(super::div(&super::mul(&g, &y)?, &super::conj_now(&x)?)?)]);
    }
    // Products of everything before and after each element along the reduced dimensions, which are
    // brought to the end and flattened: no division, so zeros are exact.
    let order: SmallVec<[i64; 8]> = (0..x.ndim())
        .filter(|d| !mask[*d])
        .chain((0..x.ndim()).filter(|d| mask[*d]))
        .map(|d| d as i64)
        .collect();
    let n = count(&x, mask) as i64;
    let moved = super::permute(&x, &order)?;
    let flat = super::reshape(&moved, &[-1, n])?;
    let one = Tensor::full(&[flat.shape()[0], 1], Scalar::Int(1), x.dtype(), x.device())?;
    let mut before = vec![one.clone()];
    let mut after = vec![one];
    for i in 0..n - 1 {
        let p = super::mul(&before[i as usize], &super::narrow(&flat, 1, i, 1)?)?;
        before.push(p);
        let q = super::mul(&after[i as usize], &super::narrow(&flat, 1, n - 1 - i, 1)?)?;
        after.push(q);
    }
    after.reverse();
    let others = super::mul(&super::shape::cat(&before, 1)?, &super::shape::cat(&after, 1)?)?;
    let others = super::reshape_to(&others, moved.shape())?;
    let mut back: SmallVec<[i64; 8]> = smallvec![0; order.len()];
    for (i, d) in order.iter().enumerate() {
        back[*d as usize] = i as i64;
    }
    Ok(smallvec![Some(super::mul(&g, &super::conj_now(&super::permute(&others, &back)?)?)?)])
}

/// amax / amin: the gradient is shared evenly between equal extrema.
fn extremum(
    name: &'static str,
    r: ReduceId,
    t: &Tensor,
    dims: Option<&[i64]>,
    keepdim: bool,
) -> Result<Tensor> {
    complex_unsupported(name, t)?;
    // `max()` and `min()` of everything: a NaN that is the result gets the gradient (not so in `amax`).
    let counts_nans = !name.starts_with('a');
    let mask = dim_mask(name, dims, t.ndim())?;
    ensure!(
        t.numel() > 0 || !dims.is_none_or(<[i64]>::is_empty),
        Runtime,
        "{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the 'dim' argument."
    );
    ensure!(
        count(t, &mask) > 0 || t.ndim() == 0 || shapes(t, &mask, keepdim).1.contains(&0),
        Index,
        "{name}(): Expected reduction dim to have non-zero size (shape {:?})",
        t.shape()
    );
    let y = if t.dtype().is_bool() {
        let u = super::to_dtype(t, DType::U8)?;
        super::to_dtype(&reduce_raw(ReduceOp::Row(r), &u, &mask, keepdim, DType::U8, &[])?, DType::Bool)?
    } else {
        reduce_raw(ReduceOp::Row(r), t, &mask, keepdim, t.dtype(), &[])?
    };
    if needs_grad(&[t]) {
        autograd::attach_any(
            if r == id::AMAX { "AmaxBackward0" } else { "AminBackward0" },
            &[t],
            &[&y],
            &[Save::Input(t), Save::Output(0)],
            move |cx| {
                let x = cx.saved(0)?;
                let y = spread(cx.saved(1)?, x.shape(), &mask, keepdim)?;
                let g = spread_grad(cx, &cx.grad(0)?, x.shape(), &mask, keepdim)?;
                let mut hit = super::eq(&x.detach(), &y.detach())?;
                if counts_nans {
                    let nan = super::logical_and(&super::isnan(&x.detach())?, &super::isnan(&y.detach())?)?;
                    hit = super::logical_or(&hit, &nan)?;
                }
                let hit = super::to_dtype(&hit, x.dtype())?;
                let dims: SmallVec<[i64; 8]> =
                    (0..mask.len()).filter(|d| mask[*d]).map(|d| d as i64).collect();
                let share = if dims.is_empty() {
                    hit.clone()
                } else {
                    super::div(&hit, &sum(&hit, Some(&dims), true, None)?)?
                };
                Ok(smallvec![Some(super::mul(&g, &share)?)])
            },
        );
    }
    Ok(y)
}

pub fn amax(t: &Tensor, dims: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    extremum("amax", id::AMAX, t, dims, keepdim)
}

pub fn amin(t: &Tensor, dims: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    extremum("amin", id::AMIN, t, dims, keepdim)
}

/// The index (and value) of the extremum along `dim`, or of the flattened tensor.
fn arg(
    name: &str,
    op: ArgOp,
    t: &Tensor,
    dim: Option<i64>,
    keepdim: bool,
    values: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    complex_unsupported(name, t)?;
    let (x, d) = match dim {
        Some(d) => (t.clone(), wrap_dim(name, d, t.ndim())?),
        None => (super::reshape(&t.detach(), &[-1])?, 0),
    };
    let x = if x.ndim() == 0 {
        super::with_layout(&x, Layout::new([1].as_slice(), [1].as_slice(), x.layout().offset()))
    } else {
        x
    };
    ensure!(
        x.shape()[d] > 0
            || (x.numel() == 0
                && dim.is_some()
                && x.shape().iter().enumerate().any(|(i, s)| i != d && *s == 0)),
        Index,
        "{name}(): Expected reduction dim {d} to have non-zero size (shape {:?})",
        t.shape()
    );
    let x = if x.dtype().is_bool() { super::to_dtype(&x.detach(), DType::U8)? } else { x };
    let mut kept: Dims = x.shape().into();
    kept[d] = 1;
    let idx = Tensor::empty(&kept, DType::I64, t.device())?;
    let val = if values { Some(Tensor::empty(&kept, x.dtype(), t.device())?) } else { None };
    if idx.numel() > 0 {
        t.backend()?.arg_reduce(op, idx.arr(), val.as_ref().map(Tensor::arr), x.arr(), d)?;
    }
    let mut shape: Dims = if dim.is_some() { t.shape().into() } else { smallvec![1; t.ndim()] };
    if t.ndim() > 0 && dim.is_some() {
        shape[d] = 1;
    }
    if !keepdim {
        if dim.is_none() {
            shape.clear();
        } else if t.ndim() > 0 {
            shape.remove(d);
        }
    }
    let fit = |v: &Tensor| super::with_layout(v, Layout::contiguous(&shape));
    let val = match val {
        Some(v) => Some(if t.dtype().is_bool() { super::to_dtype(&fit(&v), DType::Bool)? } else { fit(&v) }),
        None => None,
    };
    Ok((fit(&idx), val))
}

/// `max(dim)` and `min(dim)`: values with a gradient, and indices.
fn extremum_dim(name: &'static str, op: ArgOp, t: &Tensor, dim: i64, keepdim: bool) -> Result<Vec<Tensor>> {
    let (idx, val) = arg(name, op, t, Some(dim), keepdim, true)?;
    let Some(val) = val else { bail!(Runtime, "{name}: no values") };
    if needs_grad(&[t]) {
        let shape: Dims = t.shape().into();
        let (d, at) = (wrap_dim(name, dim, t.ndim())?, idx.clone());
        autograd::attach_any(
            if op == ArgOp::Max { "MaxBackward0" } else { "MinBackward0" },
            &[t],
            &[&val],
            &[],
            move |cx| {
                Ok(smallvec![Some(super::index::value_selecting_backward(cx, d, &at, &shape, keepdim)?)])
            },
        );
    }
    Ok(vec![val, idx])
}

pub(super) fn nansum(
    t: &Tensor,
    dims: Option<&[i64]>,
    keepdim: bool,
    dtype: Option<DType>,
) -> Result<Tensor> {
    complex_unsupported("nansum", t)?;
    if !t.dtype().is_float() {
        return sum(t, dims, keepdim, dtype);
    }
    let clean = super::masked_fill(t, &super::isnan(&t.detach())?, Operand::Number(Scalar::Float(0.0)))?;
    sum(&clean, dims, keepdim, dtype)
}

fn count_nonzero(t: &Tensor, dims: Option<&[i64]>) -> Result<Tensor> {
    let nz = super::ne(&t.detach(), Operand::Number(Scalar::Int(0)))?;
    sum(&nz, dims, false, Some(DType::I64))
}

/// any / all along dimensions: bytes, then max or min. `u8` stays `u8`, as in PyTorch.
fn truth(name: &'static str, all: bool, t: &Tensor, dims: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    let mask = dim_mask(name, dims, t.ndim())?;
    let nz = super::ne(&t.detach(), Operand::Number(Scalar::Int(0)))?;
    let bytes = super::to_dtype(&nz, DType::U8)?;
    let out = if t.dtype() == DType::U8 { DType::U8 } else { DType::Bool };
    let (kept, _) = shapes(t, &mask, keepdim);
    let y = if count(t, &mask) == 0 && kept.iter().all(|s| *s > 0) {
        let (_, shape) = shapes(t, &mask, keepdim);
        Tensor::full(&shape, Scalar::Bool(all), DType::U8, t.device())?
    } else {
        reduce_raw(
            ReduceOp::Row(if all { id::AMIN } else { id::AMAX }),
            &bytes,
            &mask,
            keepdim,
            DType::U8,
            &[],
        )?
    };
    super::to_dtype(&y, out)
}

/// Is any element true?
pub fn any(t: &Tensor) -> Result<bool> {
    Ok(t.numel() > 0 && !truth("any", false, t, None, false)?.item()?.is_zero())
}

/// Is any element zero?
pub fn any_zero(t: &Tensor) -> Result<bool> {
    any(&super::eq(&t.detach(), Operand::Number(Scalar::Int(0)))?)
}

/// Shifted by the greatest real part, which decides the magnitudes.
fn logsumexp_complex(t: &Tensor, dims: &[i64], keepdim: bool) -> Result<Tensor> {
    let mask = dim_mask("logsumexp", Some(dims), t.ndim())?;
    if t.numel() == 0 {
        return super::log(&sum(t, Some(dims), keepdim, None)?);
    }
    let re = super::complex::real(&t.detach())?;
    let m = reduce_raw(ReduceOp::Row(id::AMAX), &super::lazy::resolve(&re)?, &mask, true, re.dtype(), &[])?;
    let m = super::masked_fill(&m, &super::isinf(&m)?, Operand::Number(Scalar::Float(0.0)))?;
    let s = sum(&super::exp(&super::sub(t, &m)?)?, Some(dims), keepdim, None)?;
    super::add(&super::log(&s)?, &super::reshape_to(&m, s.shape())?)
}

pub fn logsumexp(t: &Tensor, dims: &[i64], keepdim: bool) -> Result<Tensor> {
    if t.dtype().is_complex() {
        return logsumexp_complex(t, dims, keepdim);
    }
    let x = if t.dtype().is_float() { t.clone() } else { super::to_dtype(t, DType::default_float())? };
    let mask = dim_mask("logsumexp", Some(dims), x.ndim())?;
    let y = {
        let _off = autograd::GradMode::new(false);
        if count(&x, &mask) == 0 {
            let (_, shape) = shapes(&x, &mask, keepdim);
            Tensor::full(&shape, Scalar::Float(f64::NEG_INFINITY), x.dtype(), x.device())?
        } else {
            let m = reduce_raw(ReduceOp::Row(id::AMAX), &x, &mask, true, x.dtype(), &[])?;
            // An infinite maximum would turn the difference into NaN.
            let inf = super::eq(&super::abs(&m)?, f64::INFINITY)?;
            let m = super::masked_fill(&m, &inf, Operand::Number(Scalar::Float(0.0)))?;
            let s = reduce_raw(
                ReduceOp::Row(id::SUM),
                &super::exp(&super::sub(&x, &m)?)?,
                &mask,
                true,
                x.dtype(),
                &[],
            )?;
            let y = super::add(&super::log(&s)?, &m)?;
            let (_, shape) = shapes(&x, &mask, keepdim);
            super::with_layout(&y, Layout::contiguous(&shape))
        }
    };
    if needs_grad(&[&x]) {
        autograd::attach_any(
            "LogsumexpBackward0",
            &[&x],
            &[&y],
            &[Save::Input(&x), Save::Output(0)],
            move |cx| {
                let x = cx.saved(0)?;
                let y = spread(cx.saved(1)?, x.shape(), &mask, keepdim)?;
                let g = spread_grad(cx, &cx.grad(0)?, x.shape(), &mask, keepdim)?;
                Ok(smallvec![Some(super::mul(&g, &super::exp(&super::sub(x, &y)?)?)?)])
            },
        );
    }
    Ok(y)
}

pub use super::moments::{norm, var};

pub fn register(list: &mut Vec<Op>) {
    op!(list, "sum", FUNCTION | METHOD | OUT, "The sum of all elements, or along `dim`. Integers sum to int64.",
        "input: Tensor, *, dtype: dtype? = None", |a| Ok(sum(a.tensor(0)?, None, false, a.dtype_opt(1)?)?.into());
        "input: Tensor, dim: ints? = None, keepdim: bool = False, *, dtype: dtype? = None",
        |a| Ok(sum(a.tensor(0)?, a.ints_opt(1)?, a.bool(2)?, a.dtype_opt(3)?)?.into()));
    op!(
        list,
        "sum_to_size",
        METHOD,
        "Sums down to a shape this tensor could be broadcast from.",
        "input: Tensor, size: size",
        |a| {
            let s = crate::tensor::shape_arg("sum_to_size", a.ints(1)?)?;
            if s.is_empty() {
                return Ok(sum(a.tensor(0)?, None, false, None)?.into());
            }
            Ok(sum_to_size(a.tensor(0)?, &s)?.into())
        }
    );
    op!(
        list,
        "nansum",
        FUNCTION | METHOD | OUT,
        "The sum of the elements that are not NaN.",
        "input: Tensor, dim: ints? = None, keepdim: bool = False, *, dtype: dtype? = None",
        |a| Ok(nansum(a.tensor(0)?, a.ints_opt(1)?, a.bool(2)?, a.dtype_opt(3)?)?.into())
    );
    op!(list, "mean", FUNCTION | METHOD | OUT, "The mean of all elements, or along `dim`.",
        "input: Tensor, *, dtype: dtype? = None", |a| Ok(mean(a.tensor(0)?, None, false, a.dtype_opt(1)?)?.into());
        "input: Tensor, dim: ints? = None, keepdim: bool = False, *, dtype: dtype? = None",
        |a| Ok(mean(a.tensor(0)?, a.ints_opt(1)?, a.bool(2)?, a.dtype_opt(3)?)?.into()));
    op!(list, "prod", FUNCTION | METHOD | OUT, "The product of all elements, or along `dim`.",
        "input: Tensor, *, dtype: dtype? = None", |a| Ok(prod(a.tensor(0)?, None, false, a.dtype_opt(1)?)?.into());
        "input: Tensor, dim: int, keepdim: bool = False, *, dtype: dtype? = None",
        |a| Ok(prod(a.tensor(0)?, Some(&[a.int(1)?]), a.bool(2)?, a.dtype_opt(3)?)?.into()));
    op!(
        list,
        "amax",
        FUNCTION | METHOD | OUT,
        "The greatest element along `dim`; equal ones share the gradient.",
        "input: Tensor, dim: ints = (), keepdim: bool = False",
        |a| Ok(amax(a.tensor(0)?, Some(a.ints(1)?), a.bool(2)?)?.into())
    );
    op!(
        list,
        "amin",
        FUNCTION | METHOD | OUT,
        "The smallest element along `dim`; equal ones share the gradient.",
        "input: Tensor, dim: ints = (), keepdim: bool = False",
        |a| Ok(amin(a.tensor(0)?, Some(a.ints(1)?), a.bool(2)?)?.into())
    );
    op!(list, "max", FUNCTION | METHOD | OUT, "The greatest element; with `dim`, values and indices; with a tensor, `maximum`.",
        "input: Tensor", |a| Ok(whole("max", id::AMAX, a.tensor(0)?)?.into());
        "input: Tensor, other: Tensor", |a| Ok(super::maximum(a.tensor(0)?, a.tensor(1)?)?.into());
        "input: Tensor, dim: int, keepdim: bool = False", |a| Ok(Value::Named("max", &["values", "indices"], extremum_dim("max", ArgOp::Max, a.tensor(0)?, a.int(1)?, a.bool(2)?)?)));
    op!(list, "min", FUNCTION | METHOD | OUT, "The smallest element; with `dim`, values and indices; with a tensor, `minimum`.",
        "input: Tensor", |a| Ok(whole("min", id::AMIN, a.tensor(0)?)?.into());
        "input: Tensor, other: Tensor", |a| Ok(super::minimum(a.tensor(0)?, a.tensor(1)?)?.into());
        "input: Tensor, dim: int, keepdim: bool = False", |a| Ok(Value::Named("min", &["values", "indices"], extremum_dim("min", ArgOp::Min, a.tensor(0)?, a.int(1)?, a.bool(2)?)?)));
    op!(
        list,
        "argmax",
        FUNCTION | METHOD | OUT,
        "The index of the greatest element (of the flattened tensor, or along `dim`).",
        "input: Tensor, dim: int? = None, keepdim: bool = False",
        |a| Ok(arg_index("argmax", ArgOp::Max, a.tensor(0)?, a.int_opt(1)?, a.bool(2)?)?.into())
    );
    op!(
        list,
        "argmin",
        FUNCTION | METHOD | OUT,
        "The index of the smallest element (of the flattened tensor, or along `dim`).",
        "input: Tensor, dim: int? = None, keepdim: bool = False",
        |a| Ok(arg_index("argmin", ArgOp::Min, a.tensor(0)?, a.int_opt(1)?, a.bool(2)?)?.into())
    );
    op!(list, "any", FUNCTION | METHOD | OUT, "True where any element (along `dim`) is true.",
        "input: Tensor", |a| Ok(truth("any", false, a.tensor(0)?, None, false)?.into());
        "input: Tensor, dim: ints? = None, keepdim: bool = False", |a| Ok(truth("any", false, a.tensor(0)?, a.ints_opt(1)?, a.bool(2)?)?.into()));
    op!(list, "all", FUNCTION | METHOD | OUT, "True where all elements (along `dim`) are true.",
        "input: Tensor", |a| Ok(truth("all", true, a.tensor(0)?, None, false)?.into());
        "input: Tensor, dim: ints? = None, keepdim: bool = False", |a| Ok(truth("all", true, a.tensor(0)?, a.ints_opt(1)?, a.bool(2)?)?.into()));
    op!(
        list,
        "count_nonzero",
        FUNCTION | METHOD,
        "The number of elements that are not zero.",
        "input: Tensor, dim: ints? = None",
        |a| Ok(count_nonzero(a.tensor(0)?, a.ints_opt(1)?)?.into())
    );
    op!(
        list,
        "logsumexp",
        FUNCTION | METHOD | OUT,
        "`log(sum(exp(x)))` along `dim`, without overflow.",
        "input: Tensor, dim: ints, keepdim: bool = False",
        |a| Ok(logsumexp(a.tensor(0)?, a.ints(1)?, a.bool(2)?)?.into())
    );
}

/// `argmax` and `argmin`, which PyTorch does not have for bool (`max(dim=)` it does).
fn arg_index(name: &str, op: ArgOp, t: &Tensor, dim: Option<i64>, keepdim: bool) -> Result<Tensor> {
    ensure!(!t.dtype().is_bool(), Runtime, "{name}(): does not support bool input");
    Ok(arg(name, op, t, dim, keepdim, false)?.0)
}

/// `max()` and `min()` of everything.
fn whole(name: &'static str, r: ReduceId, t: &Tensor) -> Result<Tensor> {
    ensure!(
        t.numel() > 0,
        Runtime,
        "{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the 'dim' argument."
    );
    extremum(name, r, t, None, false)
}
