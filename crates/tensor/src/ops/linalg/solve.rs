//! Systems of equations, triangular and general, and the inverse.

use super::*;
use crate::autograd::{Save, needs_grad};
use crate::op;
use pyrite_core::layout::broadcast;
use pyrite_linalg::Op as How;
use smallvec::smallvec;

/// `a x = b` with triangular `a`; batches broadcast.
pub(super) fn triangular(a: &Tensor, b: &Tensor, upper: bool, unit: bool) -> Result<Tensor> {
    let batch = broadcast("linalg.solve_triangular", batch_of(a), batch_of(b))?;
    let (a, b) = (expand_batch(a, &batch)?, expand_batch(b, &batch)?);
    let x = kernel::solve_triangular(&a.detach(), &b.detach(), upper, unit)?;
    if needs_grad(&[&a, &b]) {
        autograd::attach(
            "LinalgSolveTriangularBackward0",
            &[&a, &b],
            &[&x],
            &[Save::Input(&a), Save::Output(0)],
            move |cx| {
                let gb = triangular(&mh(cx.saved(0)?)?, &cx.grad(0)?, !upper, unit)?;
                let ga = match cx.needs(0) {
                    true => {
                        let g = ops::neg(&mm(&gb, &mh(cx.saved(1)?)?)?)?;
                        Some(if upper { ops::triu(&g, unit as i64)? } else { ops::tril(&g, -(unit as i64))? })
                    }
                    false => None,
                };
                Ok(smallvec![ga, cx.needs(1).then_some(gb)])
            },
        );
    }
    Ok(x)
}

fn fit(op: &str, a: &Tensor, b: &Tensor, left: bool) -> Result<()> {
    let (n, (m, k)) = (rows_cols(a).0, rows_cols(b));
    ensure!(
        n == if left { m } else { k },
        Shape,
        "{op}: Incompatible shapes of A and B for the equation {} ({n}x{} and {m}x{k})",
        if left { "AX = B" } else { "XA = B" },
        rows_cols(a).1
    );
    Ok(())
}

pub(super) fn solve_triangular(
    a: &Tensor,
    b: &Tensor,
    upper: bool,
    left: bool,
    unit: bool,
) -> Result<Tensor> {
    let op = "linalg.solve_triangular";
    same_types(op, a, b)?;
    square(op, a, "A")?;
    matrix(op, b, "B")?;
    fit(op, a, b, left)?;
    if left {
        return triangular(a, b, upper, unit);
    }
    mt(&triangular(&mt(a)?, &mt(b)?, !upper, unit)?)
}

/// The result, and the factorisation: packed LU, pivots, info.
struct Solved {
    x: Tensor,
    /// Kept only if asked for, or for a gradient.
    factors: Option<(Tensor, Tensor)>,
    info: Tensor,
}

/// The solutions of [`solve_matrices`], without history.
fn solved(op: &str, a: &Tensor, b: &Tensor, keep: bool) -> Result<Solved> {
    let sides = lockstep::Sides::Given(b);
    if lockstep::suits(a) && sides.suit() {
        let done = lockstep::lu(a, sides, keep)?;
        if let Some(x) = done.x {
            return Ok(Solved { x, factors: done.factors, info: done.info });
        }
    }
    let (lu, pivots, info) = kernel::lu(op, a)?;
    let x = kernel::lu_solve(&lu, &pivots, b, How::Plain)?;
    Ok(Solved { x, factors: Some((lu, pivots)), info })
}

/// `a x = b` for square `a` and matrices `b` of one batch shape.
fn solve_matrices(op: &str, a: &Tensor, b: &Tensor, keep: bool) -> Result<Solved> {
    let graph = needs_grad(&[a, b]);
    let s = solved(op, &a.detach(), &b.detach(), keep || graph)?;
    if let (true, Some((lu, pivots))) = (graph, &s.factors) {
        autograd::attach(
            "LinalgSolveExBackward0",
            &[a, b],
            &[&s.x],
            &[Save::Input(a), Save::Output(0), Save::Input(lu), Save::Input(pivots)],
            |cx| {
                let g = cx.grad(0)?;
                // The factors serve again, unless the gradient is to be differentiated itself.
                let gb = match differentiable() {
                    true => solve_matrices("linalg.solve", &mh(cx.saved(0)?)?, &g, false)?.x,
                    false => kernel::lu_solve(cx.saved(2)?, cx.saved(3)?, &g, How::Adjoint)?,
                };
                let ga = match cx.needs(0) {
                    true => Some(ops::neg(&mm(&gb, &mh(cx.saved(1)?)?)?)?),
                    false => None,
                };
                Ok(smallvec![ga, cx.needs(1).then_some(gb)])
            },
        );
    }
    Ok(s)
}

/// Is `b` a batch of vectors rather than of matrices?
pub(super) fn is_vector(a: &Tensor, b: &Tensor) -> bool {
    b.ndim() == 1 || (a.ndim() == b.ndim() + 1 && b.shape() == &a.shape()[..a.ndim() - 1])
}

fn solve_ex(a: &Tensor, b: &Tensor, left: bool, keep: bool) -> Result<Solved> {
    let op = "linalg.solve";
    floating(op, a)?;
    square(op, a, "A")?;
    same_types(op, a, b)?;
    let vector = is_vector(a, b);
    ensure!(
        left || !vector,
        Runtime,
        "linalg.solve: Vector broadcasting of the left hand side is not supported for left=False. In this case linalg.solve is equivalent to B / A.squeeze(-1)"
    );
    let b = if vector { ops::unsqueeze(b, -1)? } else { b.clone() };
    matrix(op, &b, "B")?;
    fit(op, a, &b, left)?;
    let batch = broadcast(op, batch_of(a), batch_of(&b))?;
    let (a, b) = (expand_batch(a, &batch)?, expand_batch(&b, &batch)?);
    let mut s = match left {
        true => solve_matrices(op, &a, &b, keep)?,
        false => {
            let s = solve_matrices(op, &mt(&a)?, &mt(&b)?, keep)?;
            Solved { x: mt(&s.x)?, ..s }
        }
    };
    if vector {
        s.x = ops::squeeze(&s.x, Some(&[-1]))?;
    }
    Ok(s)
}

fn check(op: &str, info: &Tensor) -> Result<()> {
    if let Some((at, _)) = lockstep::first_failure(info)? {
        bail!(LinAlg, "{op}: {at}The solver failed because the input matrix is singular.");
    }
    Ok(())
}

pub fn solve(a: &Tensor, b: &Tensor, left: bool) -> Result<Tensor> {
    let s = solve_ex(a, b, left, false)?;
    check("torch.linalg.solve", &s.info)?;
    Ok(s.x)
}

/// `a x = b` without a check, for batches of one shape: singular matrices give inf and NaN.
pub(super) fn unchecked(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let batch = broadcast("linalg.solve", batch_of(a), batch_of(b))?;
    Ok(solve_matrices("linalg.solve", &expand_batch(a, &batch)?, &expand_batch(b, &batch)?, false)?.x)
}

fn inv_ex(op: &str, a: &Tensor) -> Result<(Tensor, Tensor)> {
    square(op, a, "A")?;
    full_precision(op, a)?;
    let n = rows_cols(a).0;
    let (y, info) = match lockstep::suits(a) {
        true => match lockstep::lu(a, lockstep::Sides::Identity, false)? {
            lockstep::Lu { x: Some(x), info, .. } => (x, info),
            _ => return unknown(op, "no solution was computed"),
        },
        false => {
            let (lu, pivots, info) = kernel::lu(op, &a.detach())?;
            let one = expand_batch(&eye(n, n, a)?, batch_of(a))?;
            (kernel::lu_solve(&lu, &pivots, &one, How::Plain)?, info)
        }
    };
    if needs_grad(&[a]) {
        autograd::attach("LinalgInvExBackward0", &[a], &[&y], &[Save::Output(0)], |cx| {
            let yh = mh(cx.saved(0)?)?;
            Ok(smallvec![Some(ops::neg(&mm(&yh, &mm(&cx.grad(0)?, &yh)?)?)?)])
        });
    }
    Ok((y, info))
}

fn check_inverse(op: &str, info: &Tensor) -> Result<()> {
    if let Some((at, v)) = lockstep::first_failure(info)? {
        bail!(
            LinAlg,
            "{op}: {at}The diagonal element {v} is zero, the inversion could not be completed because the input matrix is singular."
        );
    }
    Ok(())
}

pub fn inv(op: &str, a: &Tensor) -> Result<Tensor> {
    let (y, info) = inv_ex(op, a)?;
    check_inverse(op, &info)?;
    Ok(y)
}

/// The inverse without a check.
pub(super) fn inv_unchecked(a: &Tensor) -> Result<(Tensor, Tensor)> {
    inv_ex("linalg.inv", a)
}

/// The older triangular solver: `b` first, and A's transpose on request.
fn triangular_solve(b: &Tensor, a: &Tensor, upper: bool, transpose: bool, unit: bool) -> Result<Vec<Tensor>> {
    let op = "triangular_solve";
    ensure!(
        b.ndim() >= 2 && a.ndim() >= 2,
        Runtime,
        "{op}: Expected b and A to have at least 2 dimensions, but found {} and {} dimensions instead",
        b.ndim(),
        a.ndim()
    );
    same_types(op, a, b)?;
    square(op, a, "A")?;
    fit(op, a, b, true)?;
    let batch = broadcast(op, batch_of(a), batch_of(b))?;
    let a = expand_batch(a, &batch)?;
    let x = match transpose {
        true => triangular(&mt(&a)?, b, !upper, unit)?,
        false => triangular(&a, b, upper, unit)?,
    };
    Ok(vec![x, ops::clone(&a)?])
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "solve",
        FUNCTION | OUT,
        ns = "linalg",
        "The `X` with `A @ X = B` (or `X @ A = B` with `left=False`), for square invertible `A`; `B` may be a vector. LinAlgError if `A` is singular.",
        "A: Tensor, B: Tensor, *, left: bool = True",
        |a| Ok(solve(a.tensor(0)?, a.tensor(1)?, a.bool(2)?)?.into())
    );
    op!(
        list,
        "solve_ex",
        FUNCTION | OUT,
        ns = "linalg",
        "As `solve`, without an error: `info` is 0, or the position of a zero pivot.",
        "A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False",
        |a| {
            let s = solve_ex(a.tensor(0)?, a.tensor(1)?, a.bool(2)?, false)?;
            if a.bool(3)? {
                check("torch.linalg.solve_ex", &s.info)?;
            }
            Ok(Value::Named("linalg_solve_ex", &["result", "info"], vec![s.x, s.info]))
        }
    );
    op!(
        list,
        "_solve_ex",
        FUNCTION,
        ns = "linalg",
        "As `solve_ex`, with the factorisation that was used.",
        "A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False",
        |a| {
            let s = solve_ex(a.tensor(0)?, a.tensor(1)?, a.bool(2)?, true)?;
            if a.bool(3)? {
                check("torch.linalg.solve_ex", &s.info)?;
            }
            let Some((lu, pivots)) = s.factors else { return unknown("_solve_ex", "no factors were kept") };
            let v = vec![s.x, lu, pivots, s.info];
            Ok(Value::Named("_linalg_solve_ex", &["result", "LU", "pivots", "info"], v))
        }
    );
    op!(
        list,
        "solve_triangular",
        FUNCTION | OUT,
        ns = "linalg",
        "The `X` with `A @ X = B` (or `X @ A = B`) for triangular `A`, of which only that triangle is read.",
        "A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False",
        |a| Ok(solve_triangular(a.tensor(0)?, a.tensor(1)?, a.bool(2)?, a.bool(3)?, a.bool(4)?)?.into())
    );
    op!(
        list,
        "triangular_solve",
        FUNCTION | METHOD | OUT,
        "Solves a triangular system (older form of `linalg.solve_triangular`); gives the solution and a copy of `A`.",
        "input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False",
        |a| {
            let v = triangular_solve(a.tensor(0)?, a.tensor(1)?, a.bool(2)?, a.bool(3)?, a.bool(4)?)?;
            Ok(Value::Named("triangular_solve", &["solution", "cloned_coefficient"], v))
        }
    );
    op!(
        list,
        "inv",
        FUNCTION | OUT,
        ns = "linalg",
        "The inverse of a square matrix (or batch). LinAlgError if it is singular.",
        "A: Tensor",
        |a| Ok(inv("linalg.inv", a.tensor(0)?)?.into())
    );
    op!(
        list,
        "inv_ex",
        FUNCTION | OUT,
        ns = "linalg",
        "As `inv`, without an error: `info` is 0, or the position of a zero pivot.",
        "A: Tensor, *, check_errors: bool = False",
        |a| {
            let (y, info) = inv_ex("linalg.inv", a.tensor(0)?)?;
            if a.bool(1)? {
                check_inverse("linalg.inv_ex", &info)?;
            }
            Ok(Value::Named("linalg_inv_ex", &["inverse", "info"], vec![y, info]))
        }
    );
    op!(
        list,
        "inverse",
        FUNCTION | METHOD | OUT,
        "The inverse of a square matrix (or batch): `linalg.inv`.",
        "input: Tensor",
        |a| Ok(inv("linalg.inv", a.tensor(0)?)?.into())
    );
}
