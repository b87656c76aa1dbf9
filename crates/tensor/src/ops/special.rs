//! Special functions around the table's rows: those whose order is an integer argument, those with two
//! results, and those with options.

use super::{Operand, elementwise};
use crate::op;
use crate::registry::{Op, Value};
use crate::tensor::Tensor;
use pyrite_core::rows::table::id;
use pyrite_core::{DType, Result, Scalar, ensure};

/// The derivative of order `n` of `digamma` at every element.
pub fn polygamma(n: i64, x: &Tensor) -> Result<Tensor> {
    ensure!(n >= 0, Runtime, "polygamma(n, x) does not support negative n.");
    if n == 0 {
        return super::digamma(x);
    }
    elementwise::run(id::POLYGAMMA.row(), &[Operand::Number(Scalar::Int(n)), x.into()], &[])
}

/// The logarithm of the multivariate gamma function of dimension `p`.
fn mvlgamma(x: &Tensor, p: i64) -> Result<Tensor> {
    ensure!(p >= 1, Runtime, "p has to be greater than or equal to 1");
    ensure!(!x.dtype().is_complex(), NotImplemented, "mvlgamma is not implemented for {}", x.dtype());
    let constant = p as f64 * (p - 1) as f64 / 4.0 * std::f64::consts::PI.ln();
    let lgamma = |t: &Tensor| elementwise::run(id::LGAMMA.row(), &[t.into()], &[]);
    if p == 1 {
        return lgamma(x);
    }
    // All terms at once, so that an absurd `p` is refused by the allocation and not worked at for hours.
    let numbers = [0.0, p as f64 / 2.0, 0.5].map(Scalar::Float);
    let halves = super::create::arange(numbers[0], numbers[1], numbers[2], x.dtype().to_float(), x.device())?;
    let terms = lgamma(&super::sub(&super::unsqueeze(x, -1)?, &halves)?)?;
    super::add(&super::sum(&terms, Some(&[-1]), false, None)?, constant)
}

/// Mantissas of magnitude 1/2 to 1 and the powers of two that belong to them.
fn frexp(x: &Tensor) -> Result<(Tensor, Tensor)> {
    ensure!(x.dtype().is_float(), Runtime, "torch.frexp() only supports floating-point dtypes");
    let mantissa = elementwise::run(id::FREXP_MANTISSA.row(), &[x.into()], &[])?;
    let exponent = elementwise::run(id::FREXP_EXPONENT.row(), &[(&x.detach()).into()], &[])?;
    Ok((mantissa, super::to_dtype(&exponent, DType::I32)?))
}

/// `log(x / (1 - x))`, x limited to `eps..1 - eps` first.
fn logit(x: &Tensor, eps: Option<f64>) -> Result<Tensor> {
    let x = match eps {
        None => x.clone(),
        Some(e) => {
            let x = super::to_dtype(x, x.dtype().to_float())?;
            let limits = [Scalar::Float(e), Scalar::Float(1.0 - e)];
            elementwise::run(id::CLAMP_SCALARS.row(), &[(&x).into()], &limits)?
        }
    };
    elementwise::run(id::LOGIT.row(), &[(&x).into()], &[])
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "polygamma",
        FUNCTION | OUT,
        "The derivative of order `n` of `digamma`.",
        "n: int, input: Tensor",
        |a| Ok(polygamma(a.int(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "polygamma",
        METHOD,
        "The derivative of order `n` of `digamma`.",
        "input: Tensor, n: int",
        |a| { Ok(polygamma(a.int(1)?, a.tensor(0)?)?.into()) }
    );
    op!(list, "polygamma_", METHOD, "In-place `polygamma`.", "input: Tensor, n: int", |a| {
        super::assign(a.op, a.tensor(0)?, &polygamma(a.int(1)?, a.tensor(0)?)?)?;
        Ok(Value::Receiver)
    });
    op!(
        list,
        "mvlgamma",
        FUNCTION | METHOD | OUT,
        "The logarithm of the multivariate gamma function of dimension `p`.",
        "input: Tensor, p: int",
        |a| Ok(mvlgamma(a.tensor(0)?, a.int(1)?)?.into())
    );
    op!(list, "mvlgamma_", METHOD, "In-place `mvlgamma`.", "input: Tensor, p: int", |a| {
        super::assign(a.op, a.tensor(0)?, &mvlgamma(a.tensor(0)?, a.int(1)?)?)?;
        Ok(Value::Receiver)
    });
    op!(
        list,
        "frexp",
        FUNCTION | METHOD | OUT,
        "Mantissas of magnitude 1/2 to 1 and int32 exponents: `input = mantissa * 2 ** exponent`.",
        "input: Tensor",
        |a| {
            let (m, e) = frexp(a.tensor(0)?)?;
            Ok(Value::Named("frexp", &["mantissa", "exponent"], vec![m, e]))
        }
    );
    op!(
        list,
        "logit",
        FUNCTION | METHOD | OUT,
        "`log(x / (1 - x))`; with `eps`, x is limited to `eps..1 - eps` first.",
        "input: Tensor, eps: float? = None",
        |a| Ok(logit(a.tensor(0)?, a.float_opt(1)?)?.into())
    );
    op!(list, "logit_", FUNCTION | METHOD, "In-place `logit`.", "input: Tensor, eps: float? = None", |a| {
        super::assign(a.op, a.tensor(0)?, &logit(a.tensor(0)?, a.float_opt(1)?)?)?;
        Ok(Value::Receiver)
    });
}
