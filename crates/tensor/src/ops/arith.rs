//! Arithmetic that is a few table rows each: powers in float64, powers of two, common multiples.

use super::Operand;
use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::{DType, Device, Result, Scalar, bail, ensure};
use smallvec::smallvec;

/// `input * 2 ** other`.
fn ldexp(x: &Tensor, e: Operand) -> Result<Tensor> {
    super::mul(x, &super::pow(2.0, e)?)
}

/// The least common multiple, not negative; 0 where either is 0.
fn lcm(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let g = super::gcd(a, b)?;
    // The divisor is 0 only where both are, and then so is the product.
    let g = super::maximum(&g, Operand::Number(Scalar::Int(1)))?;
    super::abs(&super::mul(&super::trunc_divide(a, &g)?, b)?)
}

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

/// Mantissa in [0.5, 1) (with the sign) and exponent of every element.
fn frexp(t: &Tensor) -> Result<Value> {
    ensure!(
        t.dtype().is_float(),
        Runtime,
        "torch.frexp() only supports floating-point dtypes, got {}",
        t.dtype().name()
    );
    let wide = if t.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let host = super::to(&t.detach(), wide, Device::Cpu, false, crate::MemoryFormat::Contiguous)?;
    let mut exponents = Vec::with_capacity(host.numel());
    let mantissas = match wide {
        DType::F64 => {
            let mut v = host.to_vec::<f64>()?;
            for x in v.iter_mut() {
                let (m, e) = parts(*x);
                *x = m;
                exponents.push(e);
            }
            Tensor::from_slice(&v, t.shape())?
        }
        DType::F32 => {
            let mut v = host.to_vec::<f32>()?;
            for x in v.iter_mut() {
                let (m, e) = parts(*x as f64);
                *x = m as f32;
                exponents.push(e);
            }
            Tensor::from_slice(&v, t.shape())?
        }
        d => bail!(NotImplemented, "\"frexp\" is not implemented for {d}"),
    };
    let exponent = super::to_device(&Tensor::from_slice(&exponents, t.shape())?, t.device())?;
    let mantissa = super::to(&mantissas, t.dtype(), t.device(), false, crate::MemoryFormat::Preserve)?;
    if needs_grad(&[t]) {
        let e = exponent.clone();
        autograd::attach("FrexpBackward0", &[t], &[&mantissa], &[], move |cx| {
            Ok(smallvec![Some(ldexp(&cx.grad(0)?, (&super::neg(&e)?).into())?)])
        });
    }
    Ok(Value::Named("frexp", &["mantissa", "exponent"], vec![mantissa, exponent]))
}

/// C's `frexp`.
fn parts(x: f64) -> (f64, i32) {
    if x == 0.0 || !x.is_finite() {
        return (x, 0);
    }
    // Subnormal numbers are brought into the normal range first.
    let (x, shift) = if x.abs() < f64::MIN_POSITIVE { (x * 2f64.powi(64), 64) } else { (x, 0) };
    let bits = x.to_bits();
    let e = (bits >> 52 & 0x7ff) as i32;
    (f64::from_bits(bits & !(0x7ff << 52) | 1022 << 52), e - 1022 - shift)
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
    op!(
        list,
        "ldexp",
        FUNCTION | METHOD | OUT,
        "`input * 2 ** other`.",
        "input: Tensor, other: Tensor",
        |a| Ok(ldexp(a.tensor(0)?, a.operand(1)?)?.into())
    );
    op!(list, "ldexp_", FUNCTION | METHOD, "In-place `ldexp`.", "input: Tensor, other: Tensor", |a| {
        let factor = super::pow(2.0, a.operand(1)?)?;
        super::elementwise::run_inplace(
            pyrite_core::rows::table::id::MUL.row(),
            &[a.operand(0)?, (&factor).into()],
            &[],
        )?;
        Ok(Value::Receiver)
    });
    op!(
        list,
        "lcm",
        FUNCTION | METHOD | OUT,
        "The least common multiple of integers.",
        "input: Tensor, other: Tensor",
        |a| Ok(lcm(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(list, "lcm_", FUNCTION | METHOD, "In-place `lcm`.", "input: Tensor, other: Tensor", |a| {
        super::assign(a.op, a.tensor(0)?, &lcm(a.tensor(0)?, a.tensor(1)?)?)?;
        Ok(Value::Receiver)
    });
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
        "frexp",
        FUNCTION | METHOD | OUT,
        "Mantissa (0.5 to 1) and exponent: `input = mantissa * 2 ** exponent`.",
        "input: Tensor",
        |a| frexp(a.tensor(0)?)
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
