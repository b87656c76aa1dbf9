//! Eigenvalues and eigenvectors.

use super::*;
use crate::autograd::{Ctx, Save, needs_grad};
use crate::op;
use smallvec::smallvec;

fn triangle(s: &str) -> Result<bool> {
    match s {
        "L" | "l" => Ok(false),
        "U" | "u" => Ok(true),
        s => bail!(Runtime, "Expected UPLO argument to be 'L' or 'U', but got {s}"),
    }
}

/// `l_k - l_j` with ones on the diagonal.
fn gaps(l: &Tensor) -> Result<Tensor> {
    let n = l.shape()[l.ndim() - 1];
    let e = ops::sub(&ops::unsqueeze(l, -2)?, &ops::unsqueeze(l, -1)?)?;
    ops::where_(&on_diagonal(n, l.device())?, 1.0, &e)
}

/// Eigenvalues and vectors of Hermitian matrices; reads one triangle.
pub(super) fn eigh(a: &Tensor, upper: bool) -> Result<(Tensor, Tensor)> {
    square("linalg.eigh", a, "A")?;
    let x = a.detach();
    let (w, v) = kernel::eigh("linalg.eigh", &if upper { mh(&x)? } else { x }, true)?;
    let Some(v) = v else { return unknown("linalg.eigh", "no vectors were computed") };
    if needs_grad(&[a]) {
        let save = [Save::Output(0), Save::Output(1)];
        autograd::attach("LinalgEighBackward0", &[a], &[&w, &v], &save, |cx| {
            Ok(smallvec![Some(eigh_backward(cx)?)])
        });
    }
    Ok((w, v))
}

fn eigh_backward(cx: &Ctx) -> Result<Tensor> {
    let (w, v) = (cx.saved(0)?, cx.saved(1)?);
    let vh = mh(v)?;
    if cx.grads[1].is_none() {
        return mm(&scale_columns(v, &cx.grad(0)?)?, &vh);
    }
    let turn = ops::div(&mm(&vh, &cx.grad(1)?)?, &gaps(w)?)?;
    let d = ops::to_dtype(&cx.grad(0)?, v.dtype())?;
    mm(v, &mm(&with_diagonal(&turn, &d)?, &vh)?)
}

pub(super) fn eigvalsh(a: &Tensor, upper: bool) -> Result<Tensor> {
    square("linalg.eigh", a, "A")?;
    if needs_grad(&[a]) {
        return Ok(eigh(a, upper)?.0);
    }
    let x = a.detach();
    Ok(kernel::eigh("linalg.eigh", &if upper { mh(&x)? } else { x }, false)?.0)
}

fn eig(op: &str, a: &Tensor) -> Result<(Tensor, Tensor)> {
    square(op, a, "A")?;
    floating(op, a)?;
    let (w, v) = kernel::eig("linalg.eig", &a.detach(), true)?;
    let Some(v) = v else { return unknown(op, "no vectors were computed") };
    if needs_grad(&[a]) {
        let real_input = !a.dtype().is_complex();
        let save = [Save::Output(0), Save::Output(1)];
        autograd::attach("LinalgEigBackward0", &[a], &[&w, &v], &save, move |cx| {
            let (w, v) = (cx.saved(0)?, cx.saved(1)?);
            let vh = mh(v)?;
            let g = match &cx.grads[1] {
                None => scale_rows(&vh, &cx.grad(0)?)?,
                Some(g) => {
                    // Vectors of norm 1: no change along themselves.
                    let p = mm(&vh, g)?;
                    let along = real(&diagonal(&p)?)?;
                    let p = ops::sub(&p, &scale_columns(&mm(&vh, v)?, &along)?)?;
                    let p = ops::div(&p, &conj(&gaps(w)?)?)?;
                    mm(&with_diagonal(&p, &cx.grad(0)?)?, &vh)?
                }
            };
            let g = solve::unchecked(&vh, &g)?;
            Ok(smallvec![Some(if real_input { real(&g)? } else { g })])
        });
    }
    Ok((w, v))
}

fn eigvals(a: &Tensor) -> Result<Tensor> {
    let op = "linalg.eigvals";
    square(op, a, "A")?;
    floating(op, a)?;
    if needs_grad(&[a]) {
        return Ok(eig(op, a)?.0);
    }
    Ok(kernel::eig(op, &a.detach(), false)?.0)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "eigh",
        FUNCTION | OUT,
        ns = "linalg",
        "Eigenvalues (real, ascending) and orthonormal eigenvectors of a symmetric or Hermitian matrix, of which one triangle is read.",
        "A: Tensor, UPLO: str = 'L'",
        |a| {
            let (w, v) = eigh(a.tensor(0)?, triangle(a.str(1)?)?)?;
            Ok(Value::Named("linalg_eigh", &["eigenvalues", "eigenvectors"], vec![w, v]))
        }
    );
    op!(
        list,
        "eigvalsh",
        FUNCTION | OUT,
        ns = "linalg",
        "The eigenvalues of a symmetric or Hermitian matrix, ascending.",
        "A: Tensor, UPLO: str = 'L'",
        |a| Ok(eigvalsh(a.tensor(0)?, triangle(a.str(1)?)?)?.into())
    );
    op!(
        list,
        "eig",
        FUNCTION | OUT,
        ns = "linalg",
        "Eigenvalues and eigenvectors (both complex) of a square matrix.",
        "A: Tensor",
        |a| {
            let (w, v) = eig("linalg.eig", a.tensor(0)?)?;
            Ok(Value::Named("linalg_eig", &["eigenvalues", "eigenvectors"], vec![w, v]))
        }
    );
    op!(
        list,
        "eigvals",
        FUNCTION | OUT,
        ns = "linalg",
        "The eigenvalues (complex) of a square matrix.",
        "A: Tensor",
        |a| Ok(eigvals(a.tensor(0)?)?.into())
    );
}
