//! What 16-bit floats cannot leave to float32: the neighbour of a number, which is one of their own.

use super::{Operand, eq, gt, where_};
use crate::autograd::{self, Save, needs_grad};
use crate::tensor::Tensor;
use pyrite_core::{DType, Result, Scalar};
use smallvec::smallvec;

/// The next float16 or bfloat16 after `a` towards `b`, by its bits: numbers of one sign are ordered as integers.
pub(super) fn nextafter(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let dtype = a.dtype();
    let number = |v: f64| Operand::Number(Scalar::Float(v));
    let shape = pyrite_core::layout::broadcast("nextafter", a.shape(), b.shape())?;
    let (av, bv) = (super::expand_to(&a.detach(), &shape)?, super::expand_to(&b.detach(), &shape)?);
    let bits = super::view_dtype::view_dtype(&super::contiguous(&av)?, DType::I16)?;
    let up = gt(&bv, &av)?;
    // Away from zero the bits grow, whichever the sign.
    let outwards = eq(&up, &gt(&av, number(0.0))?)?;
    let step = where_(&outwards, Operand::Number(Scalar::Int(1)), Operand::Number(Scalar::Int(-1)))?;
    let moved = super::add(&bits, &super::to_dtype(&step, DType::I16)?)?;
    let moved = super::view_dtype::view_dtype(&moved, dtype)?;
    // From zero the first step is the least number of the sign of `b`.
    let least =
        super::view_dtype::view_dtype(&Tensor::full(&[1], Scalar::Int(1), DType::I16, a.device())?, dtype)?;
    let least = super::reshape(&least, &[])?;
    let from_zero = where_(&up, &least, &super::neg(&least)?)?;
    let y = where_(&eq(&av, number(0.0))?, &from_zero, &moved)?;
    let y = where_(&eq(&av, &bv)?, &bv, &y)?;
    // NaN is in the sum of a NaN and anything.
    let y =
        where_(&super::logical_or(&super::isnan(&av)?, &super::isnan(&bv)?)?, &super::add(&av, &bv)?, &y)?;
    if needs_grad(&[a, b]) {
        let (sa, sb): (pyrite_core::Dims, pyrite_core::Dims) = (a.shape().into(), b.shape().into());
        autograd::attach(
            "NextafterBackward0",
            &[a, b],
            &[&y],
            &[Save::Input(a), Save::Input(b)],
            move |cx| {
                let g = cx.grad(0)?.clone();
                let same = eq(&cx.saved(0)?.detach(), &cx.saved(1)?.detach())?;
                let to_a = super::masked_fill(
                    &g,
                    &super::expand_to(&same, g.shape())?,
                    Operand::Number(Scalar::Int(0)),
                )?;
                let to_b = super::mul(&g, 0.0)?;
                Ok(smallvec![Some(super::sum_to_size(&to_a, &sa)?), Some(super::sum_to_size(&to_b, &sb)?)])
            },
        );
    }
    Ok(y)
}
