//! Dropout: mask and scaling in one kernel, drawn from the default generator's stream.

use super::nn_misc::{want_float, zero};
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::random::default_generator;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::Random;
use pyrite_core::{DType, Result, ensure};
use smallvec::smallvec;

/// Zeroes elements with probability `p` and scales the others by `1 / (1 - p)`, in training.
pub fn dropout(x: &Tensor, p: f64, training: bool) -> Result<Tensor> {
    ensure!((0.0..=1.0).contains(&p), Value, "dropout probability has to be between 0 and 1, but got {p}");
    if !training || p == 0.0 {
        return Ok(x.clone());
    }
    want_float("dropout", x)?;
    let y = x.empty_like_with(x.dtype())?;
    let mask = x.empty_like_with(DType::Bool)?;
    let blocks = pyrite_core::rng::draws(Random::Bernoulli { p }, x.dtype(), x.numel());
    let at = default_generator().advance(blocks);
    if x.numel() > 0 {
        x.backend()?.dropout(at, p, x.arr(), y.arr(), mask.arr())?;
    }
    if needs_grad(&[x]) {
        autograd::attach_any("DropoutBackward0", &[x], &[&y], &[Save::Input(&mask)], move |cx| {
            let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
            // A select, not a product: an infinite gradient of a dropped element stays dropped.
            Ok(smallvec![Some(super::where_(cx.saved(0)?, &super::mul(&cx.grad(0)?, scale)?, zero())?)])
        });
    }
    Ok(y)
}

fn call(a: &Args, training: usize, inplace: Option<usize>) -> Result<Value> {
    let x = a.tensor(0)?;
    let y = dropout(x, a.float(1)?, a.bool(training)?)?;
    match inplace {
        Some(i) if a.bool(i)? => {
            if !y.same(x) {
                super::copy_(x, &y)?;
            }
            Ok(Value::Receiver)
        }
        _ => Ok(if y.same(x) { Value::Receiver } else { y.into() }),
    }
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "dropout",
        FUNCTION,
        ns = "nn",
        "Zeroes elements with probability `p` and scales the others by `1 / (1 - p)`, in training.",
        "input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False",
        |a| call(a, 2, Some(3))
    );
    op!(
        list,
        "dropout",
        FUNCTION,
        "Zeroes elements with probability `p` and scales the others by `1 / (1 - p)`, if `train`.",
        "input: Tensor, p: float, train: bool",
        |a| call(a, 2, None)
    );
    op!(list, "dropout_", FUNCTION, "In-place `dropout`.", "input: Tensor, p: float, train: bool", |a| {
        let x = a.tensor(0)?;
        let y = dropout(x, a.float(1)?, a.bool(2)?)?;
        if !y.same(x) {
            super::copy_(x, &y)?;
        }
        Ok(Value::Receiver)
    });
}
