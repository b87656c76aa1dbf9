//! Constant padding and cropping; its gradient is padding by the negated amounts. The reflecting
//! modes pick by index and are composed in `pyrite.nn.functional.pad`.

use super::nn_misc::signed;
use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::{Dims, Result, Scalar, bail, ensure};
use smallvec::{SmallVec, smallvec};

/// `amounts` are (before, after) pairs from the last dimension on; negative ones crop.
pub fn pad(x: &Tensor, amounts: &[i64], value: f64) -> Result<Tensor> {
    ensure!(
        amounts.len().is_multiple_of(2) && amounts.len() / 2 <= x.ndim(),
        Runtime,
        "pad: expected pairs of amounts for at most {} dimensions of input {:?}, got {amounts:?}",
        x.ndim(),
        x.shape()
    );
    let mut shape: Dims = x.shape().into();
    // Where the kept part of x lies in x and in the result.
    let (mut from, mut to, mut kept) = (x.layout().clone(), smallvec![0usize; x.ndim()], shape.clone());
    for (i, pair) in amounts.chunks_exact(2).enumerate() {
        let d = x.ndim() - 1 - i;
        let n = x.shape()[d] as i64;
        let total = n.checked_add(pair[0]).and_then(|v| v.checked_add(pair[1]));
        let Some(total) = total.filter(|t| *t >= 0) else {
            bail!(
                Runtime,
                "The input size {n}, plus negative padding {} and {}, resulted in a negative output size, which is invalid. Check dimension {d} of your input {:?}.",
                pair[0],
                pair[1],
                x.shape()
            )
        };
        shape[d] = total as usize;
        let start = (-pair[0]).max(0).min(n);
        let end = (n + pair[1].min(0)).max(start);
        kept[d] = (end - start) as usize;
        from = from.slice(d, start as usize, kept[d], 1)?;
        to[d] = (start + pair[0]).max(0) as usize;
    }
    let to: SmallVec<[usize; 6]> = to;
    let grown = shape.iter().zip(&kept).any(|(s, k)| s != k);
    let like = |s: &[usize]| -> Result<Tensor> {
        let format = if x.layout().is_channels_last() && !x.is_contiguous() {
            if x.ndim() == 4 {
                crate::MemoryFormat::ChannelsLast
            } else {
                crate::MemoryFormat::ChannelsLast3d
            }
        } else {
            crate::MemoryFormat::Contiguous
        };
        Tensor::empty_format(s, x.dtype(), x.device(), format)
    };
    let y = like(&shape)?;
    if y.numel() > 0 {
        if grown {
            let v = if x.dtype().is_float() || x.dtype().is_complex() {
                Scalar::Float(value)
            } else if x.dtype().is_bool() {
                Scalar::Int((value != 0.0) as i64)
            } else {
                Scalar::Int(value as i64)
            };
            y.backend()?.fill(y.arr(), v)?;
        }
        let mut inner = y.layout().clone();
        for d in 0..x.ndim() {
            inner = inner.slice(d, to[d].min(shape[d]), kept[d], 1)?;
        }
        super::copy_raw(&super::with_layout(&y, inner), &super::with_layout(x, from))?;
    }
    if needs_grad(&[x]) {
        let back: SmallVec<[i64; 8]> = amounts.iter().map(|a| -a).collect();
        autograd::attach_any("ConstantPadNdBackward0", &[x], &[&y], &[], move |cx| {
            Ok(smallvec![Some(pad(&cx.grad(0)?, &back, 0.0)?)])
        });
    }
    Ok(y)
}

/// As [`pad`], with a value that may be complex: then part by part.
fn pad_number(x: &Tensor, amounts: &[i64], value: Scalar) -> Result<Tensor> {
    let Scalar::Complex(re, im) = value else { return pad(x, amounts, value.f64()) };
    super::complex::check_number("constant_pad_nd", value, x.dtype())?;
    if !x.dtype().is_complex() || im == 0.0 {
        return pad(x, amounts, re);
    }
    super::complex::complex(
        &pad(&super::complex::real(x)?, amounts, re)?,
        &pad(&super::complex::imag(x)?, amounts, im)?,
    )
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "pad",
        FUNCTION,
        ns = "nn",
        "Pads the last dimensions with `value`: (left, right, top, bottom, ...); negative amounts crop.",
        "input: Tensor, pad: ints, mode: str = 'constant', value: float? = None",
        |a| match a.str(2)? {
            "constant" => Ok(pad(a.tensor(0)?, a.ints(1)?, a.float_opt(3)?.unwrap_or(0.0))?.into()),
            m => bail!(
                NotImplemented,
                "pad: mode '{m}' is not implemented for input {:?} here; pyrite.nn.functional.pad has 'reflect', 'replicate' and 'circular'",
                signed(a.tensor(0)?.shape())
            ),
        }
    );
    op!(
        list,
        "constant_pad_nd",
        FUNCTION,
        "Pads the last dimensions with `value`; negative amounts crop.",
        "input: Tensor, pad: ints, value: Number = 0.0",
        |a| Ok(pad_number(a.tensor(0)?, a.ints(1)?, a.number(2)?)?.into())
    );
}
