//! LU with partial pivoting: factor, unpack, solve.

use super::*;
use crate::autograd::{Ctx, Save, needs_grad};
use crate::op;
use pyrite_core::layout::broadcast;
use pyrite_linalg::Op as How;
use smallvec::smallvec;

/// Packed factors (with a history), pivots, info.
pub(super) fn factor(op: &str, a: &Tensor, pivot: bool) -> Result<Vec<Tensor>> {
    ensure!(
        a.ndim() >= 2,
        Runtime,
        "{op}: Expected tensor with 2 or more dimensions. Got size: {:?} instead",
        a.shape()
    );
    ensure!(pivot, Runtime, "linalg.lu_factor: LU without pivoting is not implemented on the CPU");
    let (lu, pivots, info) = kernel::lu(op, &a.detach())?;
    if needs_grad(&[a]) {
        autograd::attach(
            "LinalgLuFactorExBackward0",
            &[a],
            &[&lu],
            &[Save::Output(0), Save::Input(&pivots)],
            |cx| Ok(smallvec![Some(factor_backward(cx)?)]),
        );
    }
    Ok(vec![lu, pivots, info])
}

/// With `P L U = A` and a square L1 U1 in the corner, the gradient is that of the corner plus what the
/// rest of L (tall) or of U (wide) contributes.
fn factor_backward(cx: &Ctx) -> Result<Tensor> {
    let (lu, g) = (cx.saved(0)?, cx.grad(0)?);
    let (m, n) = rows_cols(lu);
    let k = m.min(n);
    let (l, u) = (lower(lu)?, upper(lu)?);
    let gl = ops::tril(&cols(&g, 0, k)?, -1)?;
    let gu = ops::triu(&rows(&g, 0, k)?, 0)?;
    let (l1, u1) = (rows(&l, 0, k)?, cols(&u, 0, k)?);
    let mut low = mm(&mh(&l1)?, &rows(&gl, 0, k)?)?;
    let mut up = mm(&cols(&gu, 0, k)?, &mh(&u1)?)?;
    // X U1^-H, and L1^-H X.
    let by_u = |x: &Tensor| mh(&solve::triangular(&u1, &mh(x)?, true, false)?);
    let by_l = |x: &Tensor| solve::triangular(&mh(&l1)?, x, true, true);
    if n > m {
        low = ops::sub(&low, &mm(&cols(&gu, k, n)?, &mh(&cols(&u, k, n)?)?)?)?;
    }
    if m > n {
        up = ops::sub(&up, &mm(&mh(&rows(&l, k, m)?)?, &rows(&gl, k, m)?)?)?;
    }
    let corner = ops::add(&ops::tril(&low, -1)?, &ops::triu(&up, 0)?)?;
    let corner = by_l(&by_u(&corner)?)?;
    let inner = if n > m {
        ops::shape::cat(&[corner, by_l(&cols(&gu, k, n)?)?], -1)?
    } else if m > n {
        ops::shape::cat(&[corner, by_u(&rows(&gl, k, m)?)?], -2)?
    } else {
        corner
    };
    mm(&permutation(cx.saved(1)?, m, lu)?, &inner)
}

/// L of packed factors, with its unit diagonal.
fn lower(lu: &Tensor) -> Result<Tensor> {
    let (m, n) = rows_cols(lu);
    let k = m.min(n);
    ops::add(&ops::tril(&cols(lu, 0, k)?, -1)?, &eye(m, k, lu)?)
}

fn upper(lu: &Tensor) -> Result<Tensor> {
    let (m, n) = rows_cols(lu);
    ops::triu(&rows(lu, 0, m.min(n))?, 0)
}

/// P of `A = P L U` for matrices with `m` rows, in the dtype of `like`.
fn permutation(pivots: &Tensor, m: usize, like: &Tensor) -> Result<Tensor> {
    let batch = &pivots.shape()[..pivots.ndim() - 1];
    let k = pivots.shape()[pivots.ndim() - 1];
    let shape = joined(batch, &[m, m]);
    let p = Tensor::zeros(&shape, DType::Bool, Device::Cpu)?;
    let list = pivots.to_vec::<i32>()?;
    let bytes = p.ptr();
    let mut order: Vec<usize> = Vec::with_capacity(m);
    for b in 0..batch.iter().product::<usize>() {
        order.clear();
        order.extend(0..m);
        for i in 0..k {
            let with = list[b * k + i] as usize;
            ensure!(
                with >= 1 && with <= m && i < m,
                Runtime,
                "lu_unpack: the pivots must be between 1 and {m}, the number of rows, but one is {}",
                list[b * k + i]
            );
            order.swap(i, with - 1);
        }
        for (j, i) in order.iter().enumerate() {
            // SAFETY: `p` is ours, dense, with m x m bytes per matrix; i and j are below m.
            unsafe { *bytes.add((b * m + i) * m + j) = 1 };
        }
    }
    ops::to(&p, like.dtype(), like.device(), false, crate::MemoryFormat::Contiguous)
}

fn unpack(lu: &Tensor, pivots: &Tensor, data: bool, perm: bool) -> Result<Vec<Tensor>> {
    let op = "torch.lu_unpack";
    matrix(op, lu, "LU_data")?;
    if perm {
        ensure!(
            pivots.dtype() == DType::I32,
            Runtime,
            "torch.lu_unpack: LU_pivots is expected to be a contiguous tensor of torch.int32 dtype. Note: this function is intended to be used with the output produced by torch.linalg.lu_factor"
        );
        let (m, n) = rows_cols(lu);
        ensure!(
            pivots.shape() == &joined(batch_of(lu), &[m.min(n)])[..],
            Shape,
            "torch.lu_unpack: LU_pivots of shape {:?} does not fit LU_data of shape {:?}",
            pivots.shape(),
            lu.shape()
        );
    }
    let p = match perm {
        true => permutation(pivots, rows_cols(lu).0, lu)?,
        false => nothing(lu.dtype(), lu.device())?,
    };
    Ok(match data {
        true => vec![p, lower(lu)?, upper(lu)?],
        false => vec![p, nothing(lu.dtype(), lu.device())?, nothing(lu.dtype(), lu.device())?],
    })
}

fn check(info: &Tensor) -> Result<()> {
    for (i, v) in info.to_vec::<i32>()?.into_iter().enumerate() {
        ensure!(
            v == 0,
            Runtime,
            "torch.linalg.lu_factor: {}U[{v},{v}] is zero and using it on lu_solve would result in a division by zero. If you still want to perform the factorization, consider calling linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)",
            kernel::element(info.shape(), i)
        );
    }
    Ok(())
}

/// Solves with packed factors: `A x = b`, `A^H x = b` (`adjoint`), or from the right.
fn lu_solve(op: &str, lu: &Tensor, pivots: &Tensor, b: &Tensor, left: bool, adjoint: bool) -> Result<Tensor> {
    floating(op, lu)?;
    square(op, lu, "LU")?;
    matrix(op, b, "B")?;
    ensure!(
        lu.dtype() == b.dtype(),
        Runtime,
        "{op}: Expected LU and B to have the same dtype, but found LU of type {} and B of type {} instead",
        lu.dtype().legacy_name(),
        b.dtype().legacy_name()
    );
    ensure!(
        pivots.dtype() == DType::I32,
        Runtime,
        "{op}: pivots should be a Tensor of scalar type torch.int32. Got {}",
        pivots.dtype().legacy_name()
    );
    let n = rows_cols(lu).0;
    let (rb, cb) = rows_cols(b);
    ensure!(
        n == if left { rb } else { cb },
        Shape,
        "{op}: Incompatible shapes of A and B for the equation {} ({n}x{n} and {rb}x{cb})",
        if left { "AX = B" } else { "XA = B" }
    );
    ensure!(
        pivots.ndim() + 1 == lu.ndim() && pivots.shape() == &joined(batch_of(lu), &[n])[..],
        Shape,
        "{op}: Expected LU_pivots to have the same batch shape as LU, but pivots have shape {:?} and LU {:?}",
        pivots.shape(),
        lu.shape()
    );
    if !left {
        return mh(&lu_solve(op, lu, pivots, &mh(b)?, true, !adjoint)?);
    }
    let batch = broadcast(op, batch_of(lu), batch_of(b))?;
    let (lu, b) = (expand_batch(lu, &batch)?, expand_batch(b, &batch)?);
    let pivots = ops::expand_to(pivots, &joined(&batch, &[n]))?;
    if !needs_grad(&[&lu, &b]) {
        let how = if adjoint { How::Adjoint } else { How::Plain };
        return kernel::lu_solve(&lu, &pivots, &b, how);
    }
    let p = permutation(&pivots, n, &lu)?;
    let (l, u) = (&lu, &lu);
    if adjoint {
        let y = solve::triangular(&mh(u)?, &b, false, false)?;
        return mm(&p, &solve::triangular(&mh(l)?, &y, true, true)?);
    }
    let y = solve::triangular(l, &mm(&mt(&p)?, &b)?, false, true)?;
    solve::triangular(u, &y, true, false)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "lu_factor",
        FUNCTION | OUT,
        ns = "linalg",
        "The LU factorisation with partial pivoting, packed, and its pivots, for `lu_solve`.",
        "A: Tensor, *, pivot: bool = True",
        |a| {
            let mut v = factor("torch.lu_factor", a.tensor(0)?, a.bool(1)?)?;
            check(&v[2])?;
            v.truncate(2);
            Ok(Value::Named("linalg_lu_factor", &["LU", "pivots"], v))
        }
    );
    op!(
        list,
        "lu_factor_ex",
        FUNCTION | OUT,
        ns = "linalg",
        "As `lu_factor`, without an error: `info` is 0, or the position of the first zero on U's diagonal.",
        "A: Tensor, *, pivot: bool = True, check_errors: bool = False",
        |a| {
            let v = factor("torch.lu_factor_ex", a.tensor(0)?, a.bool(1)?)?;
            if a.bool(2)? {
                check(&v[2])?;
            }
            Ok(Value::Named("linalg_lu_factor_ex", &["LU", "pivots", "info"], v))
        }
    );
    op!(
        list,
        "lu",
        FUNCTION | OUT,
        ns = "linalg",
        "`A = P @ L @ U` with a permutation, a unit lower and an upper triangular matrix.",
        "A: Tensor, *, pivot: bool = True",
        |a| {
            let f = factor("linalg.lu", a.tensor(0)?, a.bool(1)?)?;
            Ok(Value::Named("linalg_lu", &["P", "L", "U"], unpack(&f[0], &f[1], true, true)?))
        }
    );
    op!(
        list,
        "lu",
        FUNCTION | METHOD | OUT,
        "The packed LU factorisation and its pivots, with infos on request (older form of `linalg.lu_factor`).",
        "A: Tensor, pivot: bool = True, get_infos: bool = False",
        |a| {
            let mut v = factor("torch.lu_factor_ex", a.tensor(0)?, a.bool(1)?)?;
            if !a.bool(2)? {
                check(&v[2])?;
                v.truncate(2);
                return Ok(Value::Tuple(v));
            }
            Ok(Value::Named("_lu_with_info", &["LU", "pivots", "info"], v))
        }
    );
    op!(
        list,
        "lu_unpack",
        FUNCTION | OUT,
        "P, L and U from packed factors and pivots.",
        "LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True",
        |a| {
            let v = unpack(a.tensor(0)?, a.tensor(1)?, a.bool(2)?, a.bool(3)?)?;
            Ok(Value::Named("lu_unpack", &["P", "L", "U"], v))
        }
    );
    op!(
        list,
        "lu_solve",
        FUNCTION | OUT,
        ns = "linalg",
        "Solves `A X = B` with the factors of `lu_factor`; `X A = B` with `left=False`, the adjoint system with `adjoint=True`.",
        "LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False",
        |a| {
            let (f, p, b) = (a.tensor(0)?, a.tensor(1)?, a.tensor(2)?);
            Ok(lu_solve("linalg.lu_solve", f, p, b, a.bool(3)?, a.bool(4)?)?.into())
        }
    );
    op!(
        list,
        "lu_solve",
        FUNCTION | METHOD | OUT,
        "Solves `A X = input` with packed factors (older form of `linalg.lu_solve`).",
        "input: Tensor, LU_data: Tensor, LU_pivots: Tensor",
        |a| Ok(lu_solve("linalg.lu_solve", a.tensor(1)?, a.tensor(2)?, a.tensor(0)?, true, false)?.into())
    );
}
