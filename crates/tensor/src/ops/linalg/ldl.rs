//! The LDL factorisation of symmetric (or Hermitian) indefinite matrices.

use super::*;
use crate::autograd::needs_grad;
use crate::op;
use pyrite_core::layout::broadcast;

fn factor(a: &Tensor, hermitian: bool) -> Result<Vec<Tensor>> {
    let op = "torch.linalg.ldl_factor_ex";
    square(op, a, "A")?;
    floating(op, a)?;
    let (f, p, info) = kernel::ldl(op, &a.detach(), hermitian)?;
    if needs_grad(&[a]) {
        autograd::attach("LinalgLdlFactorExBackward0", &[a], &[&f], &[], |_| {
            bail!(NotImplemented, "the derivative for 'linalg_ldl_factor_ex' is not implemented.")
        });
    }
    Ok(vec![f, p, info])
}

fn check(op: &str, info: &Tensor) -> Result<()> {
    for (i, v) in info.to_vec::<i32>()?.into_iter().enumerate() {
        if v != 0 {
            bail!(
                LinAlg,
                "{op}: {}The diagonal block {v} of D is exactly zero: the factorization was completed, but solving with it would divide by zero.",
                kernel::element(info.shape(), i)
            );
        }
    }
    Ok(())
}

fn solve(f: &Tensor, pivots: &Tensor, b: &Tensor, hermitian: bool) -> Result<Tensor> {
    let op = "torch.linalg.ldl_solve";
    square(op, f, "LD")?;
    matrix(op, b, "B")?;
    floating(op, f)?;
    let n = rows_cols(f).0;
    ensure!(
        n == rows_cols(b).0,
        Shape,
        "{op}: Incompatible shapes of LD and B for the equation AX = B ({n}x{n} and {}x{})",
        rows_cols(b).0,
        rows_cols(b).1
    );
    ensure!(
        pivots.ndim() + 1 == f.ndim() && pivots.shape() == &joined(batch_of(f), &[n])[..],
        Shape,
        "{op}: Expected LD.shape[:-1] and pivots.shape to be the same, but got pivots with shape {:?} and LD with shape {:?}",
        pivots.shape(),
        f.shape()
    );
    ensure!(
        pivots.dtype() == DType::I32,
        Runtime,
        "{op}: Expected pivots to be of torch.int32, but got {}",
        pivots.dtype().legacy_name()
    );
    same_types(op, f, b)?;
    let batch = broadcast(op, batch_of(f), batch_of(b))?;
    let pivots = ops::expand_to(pivots, &joined(&batch, &[n]))?;
    let x = kernel::ldl_solve(&expand_batch(f, &batch)?, &pivots, &expand_batch(b, &batch)?, hermitian)?;
    if needs_grad(&[f, b]) {
        autograd::attach("LinalgLdlSolveBackward0", &[f, b], &[&x], &[], |_| {
            bail!(NotImplemented, "the derivative for 'linalg_ldl_solve' is not implemented.")
        });
    }
    Ok(x)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "ldl_factor",
        FUNCTION | OUT,
        ns = "linalg",
        "The Bunch-Kaufman factorisation of a symmetric (or Hermitian) matrix, packed as LAPACK's sytrf does it, and its pivots.",
        "A: Tensor, *, hermitian: bool = False",
        |a| {
            let mut v = factor(a.tensor(0)?, a.bool(1)?)?;
            check("torch.linalg.ldl_factor", &v[2])?;
            v.truncate(2);
            Ok(Value::Named("linalg_ldl_factor", &["LD", "pivots"], v))
        }
    );
    op!(
        list,
        "ldl_factor_ex",
        FUNCTION | OUT,
        ns = "linalg",
        "As `ldl_factor`, without an error: `info` is 0, or the position of a zero block of D.",
        "A: Tensor, *, hermitian: bool = False, check_errors: bool = False",
        |a| {
            let v = factor(a.tensor(0)?, a.bool(1)?)?;
            if a.bool(2)? {
                check("torch.linalg.ldl_factor_ex", &v[2])?;
            }
            Ok(Value::Named("linalg_ldl_factor_ex", &["LD", "pivots", "info"], v))
        }
    );
    op!(
        list,
        "ldl_solve",
        FUNCTION | OUT,
        ns = "linalg",
        "Solves `A X = B` with the factors of `ldl_factor`.",
        "LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False",
        |a| Ok(solve(a.tensor(0)?, a.tensor(1)?, a.tensor(2)?, a.bool(3)?)?.into())
    );
}
