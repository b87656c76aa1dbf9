//! The Cholesky factorisation and what is computed from a factor.

use super::*;
use crate::autograd::{Save, needs_grad};
use crate::op;
use smallvec::smallvec;

/// The lower (or upper) factor and info per matrix; with a history.
fn factor(op: &str, a: &Tensor, upper: bool) -> Result<(Tensor, Tensor)> {
    square(op, a, "A")?;
    floating("linalg.cholesky", a)?;
    // The kernel reads the lower triangle; that of the adjoint is the upper one of `a`.
    let src = if upper { mh(a)? } else { a.clone() };
    let (l, info) = kernel::cholesky(op, &src.detach())?;
    if needs_grad(&[&src]) {
        autograd::attach("LinalgCholeskyExBackward0", &[&src], &[&l], &[Save::Output(0)], |cx| {
            let l = cx.saved(0)?;
            // The derivative of the factor, seen from L on both sides, is lower triangular with half of
            // its diagonal: the gradient is the Hermitian part of that projection.
            let p = mm(&mh(l)?, &cx.grad(0)?)?;
            let s = ops::add(&ops::tril(&p, 0)?, &ops::tril(&p, -1)?)?;
            let x = ops::mul(&ops::add(&s, &mh(&s)?)?, 0.25)?;
            let lh = mh(l)?;
            let y = solve::triangular(&lh, &x, true, false)?;
            let g = mh(&solve::triangular(&lh, &mh(&y)?, true, false)?)?;
            Ok(smallvec![Some(g)])
        });
    }
    Ok((if upper { mh(&l)? } else { l }, info))
}

/// The error of the first matrix that is not positive definite.
fn check(op: &str, info: &Tensor) -> Result<()> {
    for (i, v) in info.to_vec::<i32>()?.into_iter().enumerate() {
        if v != 0 {
            bail!(
                LinAlg,
                "{op}: {}The factorization could not be completed because the input is not positive-definite (the leading minor of order {v} is not positive-definite).",
                kernel::element(info.shape(), i)
            );
        }
    }
    Ok(())
}

pub fn cholesky(op: &str, a: &Tensor, upper: bool) -> Result<Tensor> {
    let (l, info) = factor(op, a, upper)?;
    check(op, &info)?;
    Ok(l)
}

/// Solves `A x = b` with A's factor.
fn cholesky_solve(b: &Tensor, l: &Tensor, upper: bool) -> Result<Tensor> {
    ensure!(
        b.ndim() >= 2 && l.ndim() >= 2,
        Runtime,
        "cholesky_solve: b and u should have at least 2 dimensions, but have {} and {} dimensions instead",
        b.ndim(),
        l.ndim()
    );
    square("cholesky_solve", l, "A")?;
    same_types("cholesky_solve", l, b)?;
    let (n, m) = (rows_cols(l).0, rows_cols(b).0);
    ensure!(
        n == m,
        Shape,
        "cholesky_solve: Incompatible matrix sizes for A and b: the factor is {n}x{n}, b has {m} rows"
    );
    let (lower, raised) = if upper { (mh(l)?, l.clone()) } else { (l.clone(), mh(l)?) };
    let y = solve::triangular(&lower, b, false, false)?;
    solve::triangular(&raised, &y, true, false)
}

fn cholesky_inverse(l: &Tensor, upper: bool) -> Result<Tensor> {
    square("cholesky_inverse", l, "A")?;
    let n = rows_cols(l).0;
    let (batch, d) = (batch_of(l).to_vec(), diagonal(&l.detach())?);
    let zero = ops::contiguous(&ops::eq(&d, 0.0)?)?.to_vec::<Bool8>()?;
    if let Some(at) = zero.iter().position(|z| z.0 != 0) {
        bail!(
            LinAlg,
            "cholesky_inverse: {}The diagonal element {} is zero, the inversion could not be completed because the input matrix is singular.",
            kernel::element(&batch, at / n),
            at % n + 1
        );
    }
    cholesky_solve(&expand_batch(&eye(n, n, l)?, &batch)?, l, upper)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "cholesky",
        FUNCTION | OUT,
        ns = "linalg",
        "The lower triangular `L` with `A = L @ L.mH` of a positive definite matrix (or batch); the upper factor `L.mH` with `upper=True`. LinAlgError if `A` is not positive definite.",
        "A: Tensor, *, upper: bool = False",
        |a| Ok(cholesky("linalg.cholesky", a.tensor(0)?, a.bool(1)?)?.into())
    );
    op!(
        list,
        "cholesky_ex",
        FUNCTION | OUT,
        ns = "linalg",
        "As `cholesky`, without an error: `info` is 0, or the order of the leading minor that is not positive definite.",
        "A: Tensor, *, upper: bool = False, check_errors: bool = False",
        |a| {
            let (l, info) = factor("linalg.cholesky", a.tensor(0)?, a.bool(1)?)?;
            if a.bool(2)? {
                check("linalg.cholesky_ex", &info)?;
            }
            Ok(Value::Named("linalg_cholesky_ex", &["L", "info"], vec![l, info]))
        }
    );
    op!(
        list,
        "cholesky",
        FUNCTION | METHOD | OUT,
        "The Cholesky factor of a positive definite matrix (older form of `linalg.cholesky`).",
        "input: Tensor, upper: bool = False",
        |a| Ok(cholesky("cholesky", a.tensor(0)?, a.bool(1)?)?.into())
    );
    op!(
        list,
        "cholesky_solve",
        FUNCTION | METHOD | OUT,
        "Solves `A x = input`, given the Cholesky factor `L` of `A` (the upper one with `upper=True`).",
        "input: Tensor, L: Tensor, upper: bool = False",
        |a| Ok(cholesky_solve(a.tensor(0)?, a.tensor(1)?, a.bool(2)?)?.into())
    );
    op!(
        list,
        "cholesky_inverse",
        FUNCTION | METHOD | OUT,
        "The inverse of the matrix whose Cholesky factor is given.",
        "L: Tensor, upper: bool = False",
        |a| Ok(cholesky_inverse(a.tensor(0)?, a.bool(1)?)?.into())
    );
}
