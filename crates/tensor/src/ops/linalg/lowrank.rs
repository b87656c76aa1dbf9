//! Randomised factorisations of low rank (Halko, Martinsson and Tropp, 2009).

use super::*;
use crate::op;
use pyrite_core::backend::Random;

/// An orthonormal basis that nearly spans the columns of `a`.
fn basis(a: &Tensor, q: usize, rounds: i64) -> Result<Tensor> {
    let n = rows_cols(a).1;
    let start = {
        let normal = Random::Normal { mean: 0.0, std: 1.0 };
        ops::create::random(&[n, q], normal, a.dtype().real(), a.device(), None)?
    };
    let start = ops::to_dtype(&start, a.dtype())?;
    let orthonormal = |x: &Tensor| qr::reduced(x);
    let mut y = orthonormal(&mm(a, &start)?)?;
    let ah = mh(a)?;
    for _ in 0..rounds {
        y = orthonormal(&mm(&ah, &y)?)?;
        y = orthonormal(&mm(a, &y)?)?;
    }
    Ok(y)
}

fn svd_lowrank(a: &Tensor, q: i64, rounds: i64, shift: Option<&Tensor>) -> Result<Vec<Tensor>> {
    let op = "svd_lowrank";
    matrix(op, a, "A")?;
    full_precision(op, a)?;
    let a = match shift {
        Some(m) => ops::sub(a, &ops::expand_to(m, a.shape())?)?,
        None => a.clone(),
    };
    let (m, n) = rows_cols(&a);
    ensure!(
        q >= 0 && q as usize <= m.min(n),
        Value,
        "{op}: q (={q}) must be non-negative integer and not greater than min(m, n)={}",
        m.min(n)
    );
    ensure!(rounds >= 0, Value, "{op}: niter (={rounds}) must be non-negative integer");
    // The random matrix meets the shorter side.
    let flip = m < n;
    let x = if flip { mh(&a)? } else { a };
    let b = basis(&x, q as usize, rounds)?;
    let (u, s, vh) = svd::svd(op, &mm(&mh(&b)?, &x)?, false)?;
    let (u, v) = (mm(&b, &u)?, mh(&vh)?);
    Ok(if flip { vec![v, s, u] } else { vec![u, s, v] })
}

fn pca_lowrank(a: &Tensor, q: Option<i64>, center: bool, rounds: i64) -> Result<Vec<Tensor>> {
    matrix("pca_lowrank", a, "A")?;
    full_precision("pca_lowrank", a)?;
    let (m, n) = rows_cols(a);
    let q = q.unwrap_or(6.min(m).min(n) as i64);
    ensure!(
        q >= 0 && q as usize <= m.min(n),
        Value,
        "q(={q}) must be non-negative integer and not greater than min(m, n)={}",
        m.min(n)
    );
    ensure!(rounds >= 0, Value, "niter(={rounds}) must be non-negative integer");
    match center {
        true => svd_lowrank(&ops::sub(a, &ops::mean(a, Some(&[-2]), true, None)?)?, q, rounds, None),
        false => svd_lowrank(a, q, rounds, None),
    }
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "svd_lowrank",
        FUNCTION,
        "Approximate singular triplets `U, S, V` of rank `q` of `A` (minus `M`), from a random start improved `niter` times.",
        "A: Tensor, q: int = 6, niter: int = 2, M: Tensor? = None",
        |a| Ok(Value::Tuple(svd_lowrank(a.tensor(0)?, a.int(1)?, a.int(2)?, a.tensor_opt(3)?)?))
    );
    op!(
        list,
        "pca_lowrank",
        FUNCTION,
        "Approximate principal components `U, S, V` of rank `q` (6 by default) of `A`, whose columns are centred first.",
        "A: Tensor, q: int? = None, center: bool = True, niter: int = 2",
        |a| Ok(Value::Tuple(pca_lowrank(a.tensor(0)?, a.int_opt(1)?, a.bool(2)?, a.int(3)?)?))
    );
}
