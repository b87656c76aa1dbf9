//! Variance, standard deviation and vector norms.

use super::Operand;
use super::reduce::{count, dim_mask, mean, reduce_raw, shapes, spread, spread_grad, sum};
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::ReduceOp;
use pyrite_core::rows::ReduceId;
use pyrite_core::rows::reductions::id;
use pyrite_core::{DType, Dims, Layout, Result, Scalar, ensure};
use smallvec::{SmallVec, smallvec};

/// Variance or standard deviation, and the mean if asked for.
fn spread_of(
    name: &'static str,
    t: &Tensor,
    dims: Option<&[i64]>,
    correction: f64,
    keepdim: bool,
    root: bool,
    want_mean: bool,
) -> Result<Vec<Tensor>> {
    if t.dtype().is_complex() {
        return spread_of_complex(t, dims, correction, keepdim, root, want_mean);
    }
    ensure!(
        t.dtype().is_float(),
        Runtime,
        "{name}: only support floating point and complex dtypes, got {}",
        t.dtype().name()
    );
    let mask = dim_mask(name, dims, t.ndim())?;
    let (kept, shape) = shapes(t, &mask, keepdim);
    if count(t, &mask) as f64 - correction <= 0.0 && !kept.contains(&0) {
        crate::warn(&format!(
            "{name}(): degrees of freedom is <= 0. Correction should be strictly less than the reduction factor (input numel divided by output numel)."
        ))?;
    }
    let v = Tensor::empty(&kept, t.dtype(), t.device())?;
    let m = if want_mean { Some(Tensor::empty(&kept, t.dtype(), t.device())?) } else { None };
    if v.numel() > 0 {
        let op = if root { ReduceOp::Std } else { ReduceOp::Var };
        t.backend()?.reduce(op, v.arr(), m.as_ref().map(Tensor::arr), t.arr(), &[correction])?;
    }
    let mut outs = vec![super::with_layout(&v, Layout::contiguous(&shape))];
    outs.extend(m.map(|m| super::with_layout(&m, Layout::contiguous(&shape))));
    if needs_grad(&[t]) {
        let n = count(t, &mask) as f64;
        let refs: SmallVec<[&Tensor; 2]> = outs.iter().collect();
        let saves: &[Save] = &[Save::Input(t), Save::Output(0)];
        autograd::attach_any(
            if root { "StdBackward0" } else { "VarBackward0" },
            &[t],
            &refs,
            saves,
            move |cx| {
                let (x, y) = (cx.saved(0)?.clone(), cx.saved(1)?.clone());
                let dims: SmallVec<[i64; 8]> =
                    (0..mask.len()).filter(|d| mask[*d]).map(|d| d as i64).collect();
                let mut total: Option<Tensor> = None;
                if let Some(g) = &cx.grads[0] {
                    // d var = 2 (x - mean) / (n - correction); d std = d var / (2 std).
                    let dof = (n - correction).max(0.0);
                    let scaled =
                        if root { super::div(g, &super::mul(&y, dof)?)? } else { super::mul(g, 2.0 / dof)? };
                    let scaled = if root {
                        super::masked_fill(
                            &scaled,
                            &super::eq(&y.detach(), 0.0)?,
                            Operand::Number(Scalar::Float(0.0)),
                        )?
                    } else {
                        scaled
                    };
                    let centered = super::sub(&x, &mean(&x, Some(&dims), true, None)?)?;
                    total =
                        Some(super::mul(&spread_grad(cx, &scaled, x.shape(), &mask, keepdim)?, &centered)?);
                }
                if let Some(Some(g)) = cx.grads.get(1) {
                    let part = spread_grad(cx, &super::div(g, n)?, x.shape(), &mask, keepdim)?;
                    total = Some(match total {
                        Some(t) => super::add(&t, &part)?,
                        None => part,
                    });
                }
                Ok(smallvec![total])
            },
        );
    }
    Ok(outs)
}

/// The variance of complex numbers is that of the real parts plus that of the imaginary ones.
fn spread_of_complex(
    t: &Tensor,
    dims: Option<&[i64]>,
    correction: f64,
    keepdim: bool,
    root: bool,
    want_mean: bool,
) -> Result<Vec<Tensor>> {
    let mask = dim_mask("var", dims, t.ndim())?;
    let list: SmallVec<[i64; 8]> = (0..mask.len()).filter(|d| mask[*d]).map(|d| d as i64).collect();
    let part = |p: &Tensor| spread_of("var", p, Some(&list), correction, keepdim, false, false);
    let (re, im) = (super::complex::real(t)?, super::complex::imag(t)?);
    let mut v = super::add(&part(&re)?.swap_remove(0), &part(&im)?.swap_remove(0))?;
    if root {
        // The root's slope at 0 is infinite; there the gradient is 0, as for real numbers.
        let zero = super::eq(&v.detach(), 0.0)?;
        v = super::sqrt(&super::masked_fill(&v, &zero, 1.0.into())?)?;
        v = super::masked_fill(&v, &zero, 0.0.into())?;
    }
    let mut outs = vec![v];
    if want_mean {
        outs.push(mean(t, dims, keepdim, None)?);
    }
    Ok(outs)
}

pub fn var(t: &Tensor, dims: Option<&[i64]>, correction: f64, keepdim: bool) -> Result<Tensor> {
    Ok(spread_of("var", t, dims, correction, keepdim, false, false)?.swap_remove(0))
}

/// Vector norms: `p` may be any number or an infinity.
pub fn norm(t: &Tensor, p: f64, dims: Option<&[i64]>, keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    let x = match dtype {
        Some(d) => super::to_dtype(t, d)?,
        None => t.clone(),
    };
    let x = if x.dtype().is_complex() { super::abs(&x)? } else { x };
    ensure!(
        x.dtype().is_float(),
        Runtime,
        "linalg.vector_norm: Expected a floating point or complex tensor as input. Got {}",
        x.dtype().name()
    );
    let mask = dim_mask("norm", dims, x.ndim())?;
    if p == 0.0 {
        let nz = super::to_dtype(&super::ne(&x.detach(), 0.0)?, x.dtype())?;
        let s = reduce_raw(ReduceOp::Row(id::SUM), &nz, &mask, keepdim, x.dtype(), &[])?;
        if needs_grad(&[&x]) {
            let shape: Dims = x.shape().into();
            autograd::attach("LinalgVectorNormBackward0", &[&x], &[&s], &[], move |cx| {
                let g = cx.grad(0)?;
                Ok(smallvec![Some(Tensor::zeros(&shape, g.dtype(), g.device())?)])
            });
        }
        return Ok(s);
    }
    let (r, params): (ReduceId, SmallVec<[f64; 1]>) = match p {
        1.0 => (id::NORM1, smallvec![]),
        2.0 => (id::NORM2, smallvec![]),
        f64::INFINITY => (id::NORMINF, smallvec![]),
        f64::NEG_INFINITY => (id::NORMNINF, smallvec![]),
        p => (id::NORMP, smallvec![p]),
    };
    ensure!(
        !p.is_infinite() || count(&x, &mask) > 0 || shapes(&x, &mask, keepdim).1.contains(&0),
        Runtime,
        "linalg.vector_norm cannot compute the {p} norm on an empty tensor because the operation does not have an identity"
    );
    let y = reduce_raw(ReduceOp::Row(r), &x, &mask, keepdim, x.dtype(), &params)?;
    if needs_grad(&[&x]) {
        autograd::attach_any(
            "LinalgVectorNormBackward0",
            &[&x],
            &[&y],
            &[Save::Input(&x), Save::Output(0)],
            move |cx| {
                let (x, y) = (cx.saved(0)?.clone(), cx.saved(1)?.clone());
                let g = spread_grad(cx, &cx.grad(0)?, x.shape(), &mask, keepdim)?;
                let y = spread(&y, x.shape(), &mask, keepdim)?;
                let zero = Operand::Number(Scalar::Float(0.0));
                Ok(smallvec![Some(if p == 1.0 {
                    super::mul(&g, &super::sign(&x)?)?
                } else if p == 2.0 {
                    let at_zero = super::eq(&y.detach(), 0.0)?;
                    super::masked_fill(&super::mul(&x, &super::div(&g, &y)?)?, &at_zero, zero)?
                } else if p.is_infinite() {
                    let a = super::abs(&x)?;
                    let hit = super::to_dtype(&super::eq(&a.detach(), &y.detach())?, x.dtype())?;
                    let dims: SmallVec<[i64; 8]> =
                        (0..mask.len()).filter(|d| mask[*d]).map(|d| d as i64).collect();
                    let n = if dims.is_empty() { hit.clone() } else { sum(&hit, Some(&dims), true, None)? };
                    super::mul(&super::mul(&super::sign(&x)?, &hit)?, &super::div(&g, &n)?)?
                } else {
                    // x |x|^(p-2) g / y^(p-1), 0 at 0.
                    let a = super::abs(&x)?;
                    let part = super::mul(&super::sign(&x)?, &super::pow(&a, p - 1.0)?)?;
                    let r = super::mul(&part, &super::div(&g, &super::pow(&y, p - 1.0)?)?)?;
                    super::masked_fill(&r, &super::eq(&x.detach(), 0.0)?, zero)?
                })])
            },
        );
    }
    Ok(y)
}

/// The correction of var/std from `unbiased` (bool) or `correction` (number, default 1).
fn correction(a: &Args, i: usize) -> Result<f64> {
    Ok(a.float_opt(i)?.unwrap_or(1.0))
}

fn unbiased(a: &Args, i: usize) -> Result<f64> {
    Ok(if a.bool(i)? { 1.0 } else { 0.0 })
}

pub fn register(list: &mut Vec<Op>) {
    op!(list, "var", FUNCTION | METHOD | OUT, "The variance; the divisor is n - correction.",
        "input: Tensor, unbiased: bool", |a| Ok(spread_of("var", a.tensor(0)?, None, unbiased(a, 1)?, false, false, false)?.swap_remove(0).into());
        "input: Tensor, dim: ints?, unbiased: bool, keepdim: bool = False", |a| Ok(spread_of("var", a.tensor(0)?, a.ints_opt(1)?, unbiased(a, 2)?, a.bool(3)?, false, false)?.swap_remove(0).into());
        "input: Tensor, dim: ints? = None, *, correction: float? = None, keepdim: bool = False", |a| Ok(spread_of("var", a.tensor(0)?, a.ints_opt(1)?, correction(a, 2)?, a.bool(3)?, false, false)?.swap_remove(0).into()));
    op!(list, "std", FUNCTION | METHOD | OUT, "The standard deviation; the divisor is n - correction.",
        "input: Tensor, unbiased: bool", |a| Ok(spread_of("std", a.tensor(0)?, None, unbiased(a, 1)?, false, true, false)?.swap_remove(0).into());
        "input: Tensor, dim: ints?, unbiased: bool, keepdim: bool = False", |a| Ok(spread_of("std", a.tensor(0)?, a.ints_opt(1)?, unbiased(a, 2)?, a.bool(3)?, true, false)?.swap_remove(0).into());
        "input: Tensor, dim: ints? = None, *, correction: float? = None, keepdim: bool = False", |a| Ok(spread_of("std", a.tensor(0)?, a.ints_opt(1)?, correction(a, 2)?, a.bool(3)?, true, false)?.swap_remove(0).into()));
    op!(list, "var_mean", FUNCTION, "The variance and the mean.",
        "input: Tensor, unbiased: bool", |a| Ok(Value::Tuple(spread_of("var_mean", a.tensor(0)?, None, unbiased(a, 1)?, false, false, true)?));
        "input: Tensor, dim: ints?, unbiased: bool, keepdim: bool = False", |a| Ok(Value::Tuple(spread_of("var_mean", a.tensor(0)?, a.ints_opt(1)?, unbiased(a, 2)?, a.bool(3)?, false, true)?));
        "input: Tensor, dim: ints? = None, *, correction: float? = None, keepdim: bool = False", |a| Ok(Value::Tuple(spread_of("var_mean", a.tensor(0)?, a.ints_opt(1)?, correction(a, 2)?, a.bool(3)?, false, true)?)));
    op!(list, "std_mean", FUNCTION, "The standard deviation and the mean.",
        "input: Tensor, unbiased: bool", |a| Ok(Value::Tuple(spread_of("std_mean", a.tensor(0)?, None, unbiased(a, 1)?, false, true, true)?));
        "input: Tensor, dim: ints?, unbiased: bool, keepdim: bool = False", |a| Ok(Value::Tuple(spread_of("std_mean", a.tensor(0)?, a.ints_opt(1)?, unbiased(a, 2)?, a.bool(3)?, true, true)?));
        "input: Tensor, dim: ints? = None, *, correction: float? = None, keepdim: bool = False", |a| Ok(Value::Tuple(spread_of("std_mean", a.tensor(0)?, a.ints_opt(1)?, correction(a, 2)?, a.bool(3)?, true, true)?)));
    op!(
        list,
        "vector_norm",
        FUNCTION | OUT,
        ns = "linalg",
        "The vector norm of order `ord` over all elements or along `dim`.",
        "x: Tensor, ord: float = 2.0, dim: ints? = None, keepdim: bool = False, *, dtype: dtype? = None",
        |a| Ok(norm(a.tensor(0)?, a.float(1)?, a.ints_opt(2)?, a.bool(3)?, a.dtype_opt(4)?)?.into())
    );
}
