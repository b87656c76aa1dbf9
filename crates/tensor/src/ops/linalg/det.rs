//! Determinants, from an LU factorisation.

use super::*;
use crate::autograd::{Save, needs_grad};
use crate::op;
use pyrite_linalg::Op as How;
use smallvec::smallvec;

/// U's diagonal, and the sign of the row swaps, without history.
struct Parts {
    lu: Tensor,
    pivots: Tensor,
    diagonal: Tensor,
    parity: Tensor,
}

fn parts(op: &str, a: &Tensor) -> Result<Parts> {
    let (lu, pivots, _) = kernel::lu(op, &a.detach())?;
    let n = rows_cols(&lu).0;
    let signs: Vec<f64> = match n {
        0 => vec![1.0; batch_of(&lu).iter().product()],
        _ => pivots
            .to_vec::<i32>()?
            .chunks(n)
            .map(|p| {
                let swaps = p.iter().enumerate().filter(|(i, v)| **v != *i as i32 + 1).count();
                if swaps % 2 == 0 { 1.0 } else { -1.0 }
            })
            .collect(),
    };
    let parity = ops::to_dtype(&Tensor::from_slice(&signs, batch_of(&lu))?, a.dtype())?;
    let diagonal = super::diagonal(&lu)?;
    Ok(Parts { lu, pivots, diagonal, parity })
}

pub(super) fn det(a: &Tensor) -> Result<Tensor> {
    let op = "linalg.det";
    square(op, a, "A")?;
    floating(op, a)?;
    let p = parts(op, a)?;
    let y = ops::mul(&ops::reduce::prod(&p.diagonal, Some(&[-1]), false, None)?, &p.parity)?;
    if needs_grad(&[a]) {
        let save = [Save::Input(a), Save::Output(0), Save::Input(&p.lu), Save::Input(&p.pivots)];
        autograd::attach("LinalgDetBackward0", &[a], &[&y], &save, |cx| {
            let (a, d, g) = (cx.saved(0)?, cx.saved(1)?, cx.grad(0)?);
            let n = rows_cols(a).0;
            let singular = ops::eq(&d.detach(), 0.0)?;
            if any(&singular)? {
                return Ok(smallvec![Some(cofactors(a, &g)?)]);
            }
            // d det = det tr(A^-1 dA).
            let scale = ops::unsqueeze(&ops::unsqueeze(&ops::mul(&g, &conj(d)?)?, -1)?, -1)?;
            let right = expand_batch(&ops::mul(&eye(n, n, a)?, &scale)?, batch_of(a))?;
            Ok(smallvec![Some(match differentiable() {
                true => solve::unchecked(&mh(a)?, &right)?,
                false => kernel::lu_solve(cx.saved(2)?, cx.saved(3)?, &right, How::Adjoint)?,
            })])
        });
    }
    Ok(y)
}

/// The gradient where a matrix is singular: its cofactors, by the SVD, whose factors of determinant one
/// leave those of a diagonal matrix.
fn cofactors(a: &Tensor, g: &Tensor) -> Result<Tensor> {
    let (u, s, vh) = svd::svd("linalg.det", a, false)?;
    let turn = conj(&ops::mul(&det(&u)?, &det(&vh)?)?)?;
    // Products of all singular values but one.
    let n = s.shape()[s.ndim() - 1];
    let all = ops::where_(&on_diagonal(n, s.device())?, 1.0, &ops::unsqueeze(&s, -2)?)?;
    let others = ops::reduce::prod(&all, Some(&[-1]), false, None)?;
    let scale = ops::unsqueeze(&ops::mul(g, &turn)?, -1)?;
    mm(&scale_columns(&u, &ops::mul(&others, &scale)?)?, &vh)
}

fn slogdet(op: &str, a: &Tensor) -> Result<(Tensor, Tensor)> {
    square(op, a, "A")?;
    full_precision(op, a)?;
    let p = parts(op, a)?;
    let size = ops::abs(&p.diagonal)?;
    let sign = match a.dtype().is_complex() {
        true => ops::complex::sgn(&p.diagonal)?,
        false => ops::sign(&p.diagonal)?,
    };
    let sign = ops::mul(&ops::reduce::prod(&sign, Some(&[-1]), false, None)?, &p.parity)?;
    let log = ops::sum(&ops::log(&size)?, Some(&[-1]), false, None)?;
    if needs_grad(&[a]) {
        let save = [Save::Input(a), Save::Output(0), Save::Input(&p.lu), Save::Input(&p.pivots)];
        autograd::attach("LinalgSlogdetBackward0", &[a], &[&sign, &log], &save, |cx| {
            let (a, s) = (cx.saved(0)?, cx.saved(1)?);
            let n = rows_cols(a).0;
            let mut g = cx.grad(1)?;
            if a.dtype().is_complex() {
                // The sign turns with the imaginary part of log det.
                let turn = ops::complex::imag(&ops::mul(&conj(&cx.grad(0)?)?, s)?)?;
                g = ops::complex::complex(&g, &ops::neg(&turn)?)?;
            }
            let scale = ops::unsqueeze(&ops::unsqueeze(&g, -1)?, -1)?;
            let right = expand_batch(&ops::mul(&eye(n, n, a)?, &scale)?, batch_of(a))?;
            Ok(smallvec![Some(match differentiable() {
                true => solve::unchecked(&mh(a)?, &right)?,
                false => kernel::lu_solve(cx.saved(2)?, cx.saved(3)?, &right, How::Adjoint)?,
            })])
        });
    }
    Ok((sign, log))
}

fn logdet(a: &Tensor) -> Result<Tensor> {
    let (sign, log) = slogdet("logdet", a)?;
    if a.dtype().is_complex() {
        return ops::add(&ops::log(&sign)?, &log);
    }
    ops::where_(&ops::eq(&sign.detach(), -1.0)?, f64::NAN, &log)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "det",
        FUNCTION | OUT,
        ns = "linalg",
        "The determinant of a square matrix (or batch).",
        "A: Tensor",
        |a| Ok(det(a.tensor(0)?)?.into())
    );
    op!(
        list,
        "slogdet",
        FUNCTION | OUT,
        ns = "linalg",
        "Sign and logarithm of the absolute value of the determinant.",
        "A: Tensor",
        |a| {
            let (s, l) = slogdet("linalg.slogdet", a.tensor(0)?)?;
            Ok(Value::Named("linalg_slogdet", &["sign", "logabsdet"], vec![s, l]))
        }
    );
    op!(
        list,
        "det",
        FUNCTION | METHOD,
        "The determinant of a square matrix (or batch): `linalg.det`.",
        "input: Tensor",
        |a| Ok(det(a.tensor(0)?)?.into())
    );
    op!(
        list,
        "slogdet",
        FUNCTION | METHOD | OUT,
        "Sign and logarithm of the absolute value of the determinant: `linalg.slogdet`.",
        "input: Tensor",
        |a| {
            let (s, l) = slogdet("linalg.slogdet", a.tensor(0)?)?;
            Ok(Value::Named("slogdet", &["sign", "logabsdet"], vec![s, l]))
        }
    );
    op!(
        list,
        "logdet",
        FUNCTION | METHOD,
        "The logarithm of the determinant; NaN where it is negative.",
        "input: Tensor",
        |a| Ok(logdet(a.tensor(0)?)?.into())
    );
}
