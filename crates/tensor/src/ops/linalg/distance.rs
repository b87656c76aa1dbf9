//! `cdist`: distances between all pairs of rows.

use super::kernel::{Mats, each, num};
use super::*;
use crate::autograd::{Save, needs_grad};
use crate::op;
use pyrite_core::layout::broadcast;
use pyrite_linalg::{Distance, Mat};
use smallvec::smallvec;

/// Rows are dense, matrices of the batch follow one another.
fn forward(kind: Distance, x1: &Tensor, x2: &Tensor) -> Result<Tensor> {
    let (Some(n), Device::Cpu) = (num(x1.dtype()), x1.device()) else {
        bail!(NotImplemented, "\"cdist\" not implemented for '{}'", x1.dtype().legacy_name());
    };
    let ((p, m), r) = (rows_cols(x1), rows_cols(x2).0);
    let y = Tensor::empty(&joined(batch_of(x1), &[p, r]), x1.dtype(), x1.device())?;
    let (a, b, c) = (Mats::of(x1), Mats::of(x2), Mats::of(&y));
    let size = x1.dtype().size();
    // Blocks of rows, so that one large matrix is shared out as well.
    const ROWS: usize = 16;
    let blocks = p.div_ceil(ROWS);
    let count: usize = batch_of(x1).iter().product();
    each(count * blocks, 3.0 * (ROWS * r * m) as f64, |i| {
        let (item, from) = (i / blocks, i % blocks * ROWS);
        let part = |x: Mat| Mat {
            ptr: x.ptr.wrapping_offset(from as isize * x.rs * size as isize),
            rows: ROWS.min(p - from),
            ..x
        };
        // SAFETY: the tensors are dense; `y` is ours and each block writes its own rows.
        unsafe { pyrite_linalg::distance(n, kind, part(a.at(item)), b.at(item), part(c.at(item))) };
        Ok(0)
    })?;
    Ok(y)
}

/// The gradient with respect to the rows of `x1`; `g` and `y` are x1 rows by x2 rows, of any strides for
/// one matrix, dense (or dense transposed) in a batch.
fn backward(kind: Distance, g: &Tensor, y: &Tensor, x1: &Tensor, x2: &Tensor) -> Result<Tensor> {
    let Some(n) = num(x1.dtype()) else { return unknown("cdist", "no kernel for this dtype") };
    let (p, m) = rows_cols(x1);
    let dx = Tensor::empty(x1.shape(), x1.dtype(), x1.device())?;
    let (mg, my, a, b, d) = (Mats::of(g), Mats::of(y), Mats::of(x1), Mats::of(x2), Mats::of(&dx));
    let size = x1.dtype().size();
    const ROWS: usize = 16;
    let blocks = p.div_ceil(ROWS);
    let count: usize = batch_of(x1).iter().product();
    each(count * blocks, 6.0 * (ROWS * rows_cols(x2).0 * m) as f64, |i| {
        let (item, from) = (i / blocks, i % blocks * ROWS);
        let part = |x: Mat| Mat {
            ptr: x.ptr.wrapping_offset(from as isize * x.rs * size as isize),
            rows: ROWS.min(p - from),
            ..x
        };
        // SAFETY: as in `forward`; `dx` is ours.
        unsafe {
            pyrite_linalg::distance_backward(
                n,
                kind,
                part(mg.at(item)),
                part(my.at(item)),
                part(a.at(item)),
                b.at(item),
                part(d.at(item)),
            )
        };
        Ok(0)
    })?;
    Ok(dx)
}

/// The same gradient by differentiable operators, for second derivatives.
pub(super) fn backward_recorded(p: f64, g: &Tensor, y: &Tensor, x1: &Tensor, x2: &Tensor) -> Result<Tensor> {
    let at_zero = ops::eq(&y.detach(), 0.0)?;
    if p == 2.0 {
        // Filled before the quotient too: its own derivative at 0 is not finite.
        let far = ops::masked_fill(y, &at_zero, number(1.0))?;
        let ratio = ops::masked_fill(&ops::div(g, &far)?, &at_zero, number(0.0))?;
        let own = ops::mul(x1, &ops::sum(&ratio, Some(&[-1]), true, None)?)?;
        return ops::sub(&own, &mm(&ratio, x2)?);
    }
    let d = ops::sub(&ops::unsqueeze(x1, -2)?, &ops::unsqueeze(x2, -3)?)?;
    let (g, y) = (ops::unsqueeze(g, -1)?, ops::unsqueeze(y, -1)?);
    let each = if p == 0.0 {
        ops::mul(&d, 0.0)?
    } else if p == 1.0 {
        ops::mul(&g, &ops::sign(&d)?)?
    } else if p.is_infinite() {
        let hit = ops::to_dtype(&ops::eq(&ops::abs(&d.detach())?, &y.detach())?, d.dtype())?;
        ops::mul(&ops::mul(&g, &ops::sign(&d)?)?, &hit)?
    } else {
        let none = ops::logical_or(&ops::eq(&d.detach(), 0.0)?, &ops::unsqueeze(&at_zero, -1)?)?;
        // Filled before the powers too: their own derivatives at 0 need not be finite.
        let safe = ops::masked_fill(&d, &none, number(1.0))?;
        let far = ops::masked_fill(&y, &ops::unsqueeze(&at_zero, -1)?, number(1.0))?;
        let power = ops::mul(&ops::sign(&safe)?, &ops::pow(&ops::abs(&safe)?, p - 1.0)?)?;
        let r = ops::mul(&power, &ops::div(&g, &ops::pow(&far, p - 1.0)?)?)?;
        ops::masked_fill(&r, &none, number(0.0))?
    };
    ops::sum(&each, Some(&[-2]), false, None)
}

/// Euclidean distances from one matrix product: `|a|^2 - 2 a b + |b|^2`.
fn by_product(x1: &Tensor, x2: &Tensor) -> Result<Tensor> {
    let norm = |x: &Tensor| ops::sum(&ops::square(x)?, Some(&[-1]), true, None);
    let ones = |n: &Tensor| Tensor::full(n.shape(), Scalar::Int(1), n.dtype(), n.device());
    let (n1, n2) = (norm(x1)?, norm(x2)?);
    let left = ops::shape::cat(&[ops::mul(x1, -2.0)?, n1.clone(), ones(&n1)?], -1)?;
    let right = ops::shape::cat(&[x2.clone(), ones(&n2)?, n2], -1)?;
    ops::sqrt(&ops::maximum(&mm(&left, &mt(&right)?)?, 0.0)?)
}

fn cdist(x1: &Tensor, x2: &Tensor, p: f64, mode: &str) -> Result<Tensor> {
    for (i, x) in [(1, x1), (2, x2)] {
        ensure!(x.ndim() >= 2, Runtime, "cdist only supports at least 2D tensors, X{i} got: {}D", x.ndim());
        ensure!(
            x.dtype().is_float(),
            Runtime,
            "cdist only supports floating-point dtypes, X{i} got: {}",
            x.dtype().legacy_name()
        );
    }
    let ((r1, c1), (r2, c2)) = (rows_cols(x1), rows_cols(x2));
    ensure!(c1 == c2, Runtime, "X1 and X2 must have the same number of columns. X1: {c1} X2: {c2}");
    ensure!(p >= 0.0, Runtime, "cdist only supports non-negative p values");
    ensure!(
        x1.dtype() == x2.dtype(),
        Runtime,
        "expected scalar type {} but found {}",
        x1.dtype().legacy_name(),
        x2.dtype().legacy_name()
    );
    let product = match mode {
        "use_mm_for_euclid_dist_if_necessary" => p == 2.0 && (r1 > 25 || r2 > 25),
        "use_mm_for_euclid_dist" => p == 2.0,
        "donot_use_mm_for_euclid_dist" => false,
        m => bail!(Value, "{m} is not a valid value for compute_mode"),
    };
    let batch = broadcast("cdist", batch_of(x1), batch_of(x2))?;
    let (x1, x2) = (expand_batch(x1, &batch)?, expand_batch(x2, &batch)?);
    let (d1, d2) = (ops::contiguous(&x1.detach())?, ops::contiguous(&x2.detach())?);
    let kind = Distance::new(p);
    let y = match product && c1 > 0 && d1.numel() > 0 && d2.numel() > 0 {
        true => by_product(&d1, &d2)?,
        false => forward(kind, &d1, &d2)?,
    };
    if needs_grad(&[&x1, &x2]) {
        let save = [Save::Input(&x1), Save::Input(&x2), Save::Output(0)];
        autograd::attach("CdistBackward0", &[&x1, &x2], &[&y], &save, move |cx| {
            let (x1, x2, y, g) = (cx.saved(0)?, cx.saved(1)?, cx.saved(2)?, cx.grad(0)?);
            let side = |g: &Tensor, y: &Tensor, x1: &Tensor, x2: &Tensor| -> Result<Tensor> {
                if differentiable() || product {
                    return backward_recorded(p, g, y, x1, x2);
                }
                let g = ops::contiguous(g)?;
                let (x1, x2) = (ops::contiguous(&x1.detach())?, ops::contiguous(&x2.detach())?);
                backward(kind, &g.detach(), &ops::contiguous(y)?.detach(), &x1, &x2)
            };
            let a = if cx.needs(0) { Some(side(&g, y, x1, x2)?) } else { None };
            let b = if cx.needs(1) { Some(side(&mt(&g)?, &mt(y)?, x2, x1)?) } else { None };
            Ok(smallvec![a, b])
        });
    }
    Ok(y)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "cdist",
        FUNCTION,
        "Distances in the p-norm between each row of `x1` and each row of `x2`, for each matrix of the batch.",
        "x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = 'use_mm_for_euclid_dist_if_necessary'",
        |a| Ok(cdist(a.tensor(0)?, a.tensor(1)?, a.float(2)?, a.str(3)?)?.into())
    );
}
