//! `debug_nans`, forward: looks at what goes into an operation and at what comes out of it.

use pyrite_core::{Result, Scalar};
use pyrite_tensor::Tensor;
use pyrite_tensor::autograd::anomaly;
use pyrite_tensor::autograd::mode::{self, check};
use pyrite_tensor::registry::{Arg, Value};

/// Is anything to be looked at?
#[inline]
pub fn active() -> bool {
    mode::checks() & (check::NAN | check::INF) != 0
}

/// Runs an operation of the registry under the check.
#[cold]
pub fn call(op: &str, args: &[Arg], run: impl FnOnce() -> Result<Value>) -> Result<Value> {
    let mut inputs: Vec<Tensor> = Vec::new();
    let mut finite = true;
    for a in args {
        match a {
            Arg::Tensor(t) => inputs.push(t.clone()),
            Arg::Tensors(l) => inputs.extend(l.iter().cloned()),
            Arg::Number(Scalar::Float(x)) | Arg::Float(x) => finite &= x.is_finite(),
            Arg::Number(Scalar::Complex(x, y)) => finite &= x.is_finite() && y.is_finite(),
            _ => {}
        }
    }
    // Creation makes what it is told to make, and fresh memory holds anything.
    if !finite || inputs.is_empty() || op.contains("empty") {
        return run();
    }
    let first = inputs.first().cloned();
    watched(op, &inputs, run, |v| match v {
        Value::Tensor(t) => vec![t.clone()],
        Value::Tuple(l) | Value::Named(_, _, l) => l.clone(),
        Value::Receiver => first.iter().cloned().collect(),
        _ => Vec::new(),
    })
}

/// Runs `run` on finite inputs and looks at its results.
#[cold]
pub fn watched<T>(
    op: &str,
    inputs: &[Tensor],
    run: impl FnOnce() -> Result<T>,
    outputs: impl FnOnce(&T) -> Vec<Tensor>,
) -> Result<T> {
    let before = anomaly::inputs(inputs)?;
    let v = run()?;
    if let Some(before) = before {
        anomaly::check_forward(op, &before, &outputs(&v))?;
    }
    Ok(v)
}
