//! Covariance and correlation.

use super::{Operand, expand_to};
use crate::op;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::{Result, Scalar, ensure};

/// Frequency or reliability weights, checked against the number of observations.
fn weights<'a>(kind: &str, w: Option<&'a Tensor>, n: usize) -> Result<Option<&'a Tensor>> {
    let Some(w) = w else { return Ok(None) };
    ensure!(
        w.ndim() <= 1,
        Runtime,
        "cov(): expected {kind} to have one or fewer dimensions but got {kind} with {} dimensions",
        w.ndim()
    );
    let (fits, what) = match kind {
        "fweights" => (w.dtype().is_int(), "integral"),
        _ => (w.dtype().is_float(), "floating point"),
    };
    ensure!(
        fits,
        Runtime,
        "cov(): expected {kind} to have {what} dtype but got {kind} with {} dtype",
        w.dtype().name()
    );
    ensure!(
        w.numel() == n,
        Runtime,
        "cov(): expected {kind} to have the same numel as there are observations in the input but got {} != {n}",
        w.numel()
    );
    let negative = super::lt(&w.detach(), Operand::Number(Scalar::Int(0)))?;
    ensure!(!super::reduce::any(&negative)?, Runtime, "cov(): {kind} cannot be negative");
    Ok(Some(w))
}

/// The covariance matrix of variables in rows and observations in columns (a vector is one variable).
pub fn cov(
    t: &Tensor,
    correction: i64,
    fweights: Option<&Tensor>,
    aweights: Option<&Tensor>,
) -> Result<Tensor> {
    ensure!(
        t.ndim() <= 2,
        Runtime,
        "cov(): expected input to have two or fewer dimensions but got an input with {} dimensions",
        t.ndim()
    );
    ensure!(!t.dtype().is_bool(), Runtime, "cov(): bool dtype is not supported for input");
    let x = if t.ndim() < 2 { super::reshape(t, &[1, t.numel() as i64])? } else { t.clone() };
    let n = x.shape()[1];
    let f = weights("fweights", fweights, n)?;
    let a = weights("aweights", aweights, n)?;
    let w = match (f, a) {
        (Some(f), Some(a)) => Some(super::mul(f, a)?),
        (w, None) | (None, w) => w.cloned(),
    };
    let weighted = |x: &Tensor| match &w {
        Some(w) => super::mul(x, w),
        None => Ok(x.clone()),
    };
    let total = match &w {
        Some(w) => super::sum(w, None, false, None)?,
        None => Tensor::scalar(Scalar::Int(n as i64), pyrite_core::DType::I64, t.device())?,
    };
    ensure!(
        w.is_none() || !total.item()?.is_zero(),
        Runtime,
        "cov(): weights sum to zero, can't be normalized"
    );
    let mean = super::div(&super::sum(&weighted(&x)?, Some(&[1]), false, None)?, &total)?;
    let corrected = Operand::Number(Scalar::Int(correction));
    let mut norm = match (&w, a) {
        (Some(w), Some(a)) if correction != 0 => {
            let share = super::div(&super::sum(&super::mul(w, a)?, None, false, None)?, &total)?;
            super::sub(&total, &super::mul(&share, corrected)?)?
        }
        _ => super::sub(&total, corrected)?,
    };
    if norm.item()?.f64() <= 0.0 {
        crate::warn(
            "cov(): degrees of freedom is <= 0. Correction should be strictly less than the number of observations.",
        )?;
        norm = Tensor::scalar(Scalar::Int(0), norm.dtype(), norm.device())?;
    }
    let centred = super::sub(&x, &super::unsqueeze(&mean, 1)?)?;
    let c = super::matmul(&centred, &super::conj(&super::t(&weighted(&centred)?)?)?)?;
    super::squeeze(&super::div(&c, &norm)?, None)
}

/// Pearson's correlation coefficients of variables in rows.
pub fn corrcoef(t: &Tensor) -> Result<Tensor> {
    ensure!(
        t.ndim() <= 2,
        Runtime,
        "corrcoef(): expected input to have two or fewer dimensions but got an input with {} dimensions",
        t.ndim()
    );
    let c = cov(t, 1, None, None)?;
    if c.ndim() == 0 {
        return super::div(&c, &c);
    }
    let deviation = super::sqrt(&super::complex::real(&super::diagonal(&c, 0, 0, 1)?)?)?;
    let c = super::div(&c, &super::unsqueeze(&deviation, 1)?)?;
    let c = super::div(&c, &expand_to(&deviation, c.shape())?)?;
    let limit = |x: &Tensor| {
        super::minimum(&super::maximum(x, Operand::Number(Scalar::Int(-1)))?, Operand::Number(Scalar::Int(1)))
    };
    if c.dtype().is_complex() {
        return super::complex::complex(
            &limit(&super::complex::real(&c)?)?,
            &limit(&super::complex::imag(&c)?)?,
        );
    }
    limit(&c)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "cov",
        FUNCTION | METHOD,
        "The covariance matrix of variables in rows and observations in columns; the divisor is the number of observations less `correction`.",
        "input: Tensor, *, correction: int = 1, fweights: Tensor? = None, aweights: Tensor? = None",
        |a| Ok(cov(a.tensor(0)?, a.int(1)?, a.tensor_opt(2)?, a.tensor_opt(3)?)?.into())
    );
    op!(
        list,
        "corrcoef",
        FUNCTION | METHOD,
        "Pearson's correlation coefficients of variables in rows.",
        "input: Tensor",
        |a| Ok(corrcoef(a.tensor(0)?)?.into())
    );
}
