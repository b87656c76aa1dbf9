//! Least squares.

use super::*;
use crate::autograd::{Save, needs_grad};
use crate::op;
use pyrite_core::layout::broadcast;
use smallvec::smallvec;

/// The solution without history, the ranks and the singular values, as the driver gives them.
fn run(a: &Tensor, b: &Tensor, rcond: f64, driver: &str) -> Result<(Tensor, Option<Tensor>, Option<Tensor>)> {
    let (m, n) = rows_cols(a);
    if driver == "gels" {
        // Full rank is taken for granted: one QR decomposition, of the tall side.
        if m >= n {
            let (q, r) = kernel::qr("linalg.lstsq", a, n, true)?;
            let Some(q) = q else { return unknown("linalg.lstsq", "no factor was computed") };
            return Ok((solve::triangular(&r, &mm(&mh(&q)?, b)?, true, false)?, None, None));
        }
        let (q, r) = kernel::qr("linalg.lstsq", &mh(a)?, m, true)?;
        let Some(q) = q else { return unknown("linalg.lstsq", "no factor was computed") };
        return Ok((mm(&q, &solve::triangular(&mh(&r)?, b, false, false)?)?, None, None));
    }
    let (u, s, vh) = svd::svd("linalg.lstsq", a, false)?;
    let batch = batch_of(a);
    if m.min(n) == 0 {
        let x = Tensor::zeros(&joined(batch_of(b), &[n, rows_cols(b).1]), a.dtype(), a.device())?;
        return Ok((x, Some(Tensor::zeros(batch, DType::I64, a.device())?), Some(s)));
    }
    let keep = ops::gt(&s, &ops::mul(&ops::narrow(&s, -1, 0, 1)?, rcond)?)?;
    let inverse = ops::to_dtype(&ops::where_(&keep, &ops::reciprocal(&s)?, 0.0)?, a.dtype())?;
    let x = mm(&mh(&vh)?, &scale_rows(&mm(&mh(&u)?, b)?, &inverse)?)?;
    Ok((x, Some(ops::sum(&keep, Some(&[-1]), false, None)?), Some(s)))
}

fn lstsq(a: &Tensor, b: &Tensor, rcond: Option<f64>, driver: Option<&str>) -> Result<Vec<Tensor>> {
    let op = "torch.linalg.lstsq";
    ensure!(a.ndim() >= 2, Runtime, "{op}: input must have at least 2 dimensions.");
    ensure!(b.ndim() >= 1, Runtime, "{op}: other must have at least 1 dimension.");
    ensure!(
        a.dtype() == b.dtype(),
        Runtime,
        "{op}: Expected input and other to have the same dtype, but got input's dtype {} and other's dtype {}",
        a.dtype().legacy_name(),
        b.dtype().legacy_name()
    );
    floating(op, a)?;
    let driver = driver.unwrap_or("gelsy");
    ensure!(
        matches!(driver, "gels" | "gelsy" | "gelsd" | "gelss"),
        Runtime,
        "{op}: parameter `driver` should be one of (gels, gelsy, gelsd, gelss)"
    );
    let vector = solve::is_vector(a, b);
    let bm = if vector { ops::unsqueeze(b, -1)? } else { b.clone() };
    let (m, n) = rows_cols(a);
    ensure!(
        bm.ndim() >= 2 && rows_cols(&bm).0 == m,
        Runtime,
        "{op}: input.size(-2) should match other.size({})",
        if vector { -1 } else { -2 }
    );
    let batch = broadcast(op, batch_of(a), batch_of(&bm))?;
    let (ax, bx) = (expand_batch(a, &batch)?, expand_batch(&bm, &batch)?);
    let rcond = rcond.unwrap_or(eps(a.dtype()) * m.max(n) as f64);
    let (x, rank, s) = run(&ax.detach(), &bx.detach(), rcond, driver)?;
    if needs_grad(&[&ax, &bx]) {
        autograd::attach(
            "LinalgLstsqBackward0",
            &[&ax, &bx],
            &[&x],
            &[Save::Input(&ax), Save::Input(&bx)],
            |cx| {
                // As of pinv(A) @ B.
                let (a, b, g) = (cx.saved(0)?, cx.saved(1)?, cx.grad(0)?);
                let y = pinv::pinv(a, None, None, false)?;
                let ga = match cx.needs(0) {
                    true => Some(pinv::backward(&mm(&g, &mh(b)?)?, a, &y)?),
                    false => None,
                };
                let gb = if cx.needs(1) { Some(mm(&mh(&y)?, &g)?) } else { None };
                Ok(smallvec![ga, gb])
            },
        );
    }
    // Residuals exist where the system is overdetermined and (as far as the driver knows) of full rank.
    let full = match (driver, &rank) {
        ("gels", _) => true,
        ("gelsy", _) | (_, None) => false,
        (_, Some(r)) => r.to_vec::<i64>()?.iter().all(|r| *r == n as i64),
    };
    let real_type = a.dtype().real();
    let residuals = match full && m > n {
        true => {
            let r = ops::sub(&mm(&ax, &x)?, &bx)?;
            ops::sum(&ops::square(&ops::abs(&r)?)?, Some(&[-2]), false, None)?
        }
        false => nothing(real_type, a.device())?,
    };
    let rank = match rank {
        Some(r) => r,
        None => nothing(DType::I64, a.device())?,
    };
    let values = match (driver, s) {
        ("gelsd" | "gelss", Some(s)) => s,
        _ => nothing(real_type, a.device())?,
    };
    let x = if vector { ops::squeeze(&x, Some(&[-1]))? } else { x };
    Ok(vec![x, residuals, rank, values])
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "lstsq",
        FUNCTION | OUT,
        ns = "linalg",
        "The `X` that minimises `|A @ X - B|`, with residuals, rank and singular values as far as the driver ('gelsy', 'gels', 'gelsd', 'gelss') gives them.",
        "input: Tensor, b: Tensor, rcond: float? = None, *, driver: str? = None",
        |a| {
            let v = lstsq(a.tensor(0)?, a.tensor(1)?, a.float_opt(2)?, a.str_opt(3)?)?;
            Ok(Value::Named("linalg_lstsq", &["solution", "residuals", "rank", "singular_values"], v))
        }
    );
}
