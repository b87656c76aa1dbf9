//! Arithmetic that is a few table rows each: powers in float64, means without NaN.

use super::Operand;
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::{DType, Device, Result, Scalar, ensure};

/// The dtype `float_power` computes in.
fn power_dtype(ops: &[Operand]) -> DType {
    let complex = ops.iter().any(|o| match o {
        Operand::Tensor(t) => t.dtype().is_complex(),
        Operand::Number(s) => matches!(s, Scalar::Complex(..)),
    });
    if complex { DType::C128 } else { DType::F64 }
}

fn float_power(base: Operand, exponent: Operand) -> Result<Tensor> {
    let d = power_dtype(&[base, exponent]);
    let lift = |o: Operand| match o {
        Operand::Tensor(t) => super::to_dtype(t, d),
        // A 0-d tensor of the dtype, so that the other operand's dtype does not matter.
        Operand::Number(s) => Tensor::scalar(s, d, Device::Cpu),
    };
    super::pow(&lift(base)?, &lift(exponent)?)
}

fn float_power_(a: &Args) -> Result<Value> {
    let (t, e) = (a.tensor(0)?, a.operand(1)?);
    let d = power_dtype(&[t.into(), e]);
    ensure!(
        t.dtype() == d,
        Runtime,
        "the base given to float_power_ has dtype {} but the operation's result requires dtype {}",
        t.dtype().name(),
        d.name()
    );
    super::copy_(t, &float_power(t.into(), e)?)?;
    Ok(Value::Receiver)
}

/// The mean of the elements that are not NaN.
fn nanmean(t: &Tensor, dims: Option<&[i64]>, keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    ensure!(
        t.dtype().is_differentiable(),
        Runtime,
        "nanmean(): expected input to have floating point or complex dtype but got {}",
        t.dtype().name()
    );
    let present = super::logical_not(&super::isnan(&t.detach())?)?;
    let n = super::sum(&present, dims, keepdim, None)?;
    super::div(&super::reduce::nansum(t, dims, keepdim, dtype)?, &n)
}

pub fn register(list: &mut Vec<Op>) {
    op!(list, "float_power", FUNCTION | METHOD | OUT, "`input` to the power `exponent`, computed in float64 (complex128).",
        "input: Tensor, exponent: Operand", |a| Ok(float_power(a.operand(0)?, a.operand(1)?)?.into());
        "input: Number, exponent: Tensor", |a| Ok(float_power(a.operand(0)?, a.operand(1)?)?.into()));
    op!(
        list,
        "float_power_",
        METHOD,
        "In-place `float_power` of a float64 (complex128) tensor.",
        "input: Tensor, exponent: Operand",
        float_power_
    );
    op!(
        list,
        "nanmean",
        FUNCTION | METHOD | OUT,
        "The mean of the elements that are not NaN.",
        "input: Tensor, dim: ints? = None, keepdim: bool = False, *, dtype: dtype? = None",
        |a| Ok(nanmean(a.tensor(0)?, a.ints_opt(1)?, a.bool(2)?, a.dtype_opt(3)?)?.into())
    );
}
