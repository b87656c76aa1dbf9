//! Shape operators that make new tensors: joining, repeating, flipping.

use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Dims, Result, ensure};
use smallvec::SmallVec;

/// Joins tensors along `dim`. 1-d tensors without elements are ignored, as in PyTorch.
pub fn cat(ts: &[Tensor], dim: i64) -> Result<Tensor> {
    ensure!(!ts.is_empty(), Value, "torch.cat(): expected a non-empty list of Tensors");
    for (i, t) in ts.iter().enumerate() {
        ensure!(t.ndim() > 0, Runtime, "zero-dimensional tensor (at position {i}) cannot be concatenated");
    }
    let legacy = |t: &&Tensor| !(t.ndim() == 1 && t.numel() == 0);
    let first = ts.iter().find(legacy).unwrap_or(&ts[0]);
    let d = wrap_dim("cat", dim, first.ndim())?;
    let dtype = ts.iter().skip(1).fold(ts[0].dtype(), |a, t| DType::promote(a, t.dtype()));
    let mut shape: Dims = first.shape().into();
    shape[d] = 0;
    for (i, t) in ts.iter().enumerate().filter(|(_, t)| legacy(t)) {
        ensure!(
            t.ndim() == first.ndim(),
            Shape,
            "Tensors must have same number of dimensions: got {} and {} (cat, list item {i})",
            first.ndim(),
            t.ndim()
        );
        for (k, (a, b)) in first.shape().iter().zip(t.shape()).enumerate() {
            ensure!(
                k == d || a == b,
                Shape,
                "Sizes of tensors must match except in dimension {d}. Expected size {a} but got size {b} for tensor number {i} in the list."
            );
        }
        ensure!(
            t.device() == first.device(),
            Runtime,
            "cat: Expected all tensors to be on the same device, but found at least two devices, {} and {}!",
            first.device(),
            t.device()
        );
        shape[d] += t.shape()[d];
    }
    let y = if ts.iter().all(|t| t.ndim() == 4 && t.layout().is_channels_last() && !t.is_contiguous()) {
        Tensor::empty_format(&shape, dtype, first.device(), crate::MemoryFormat::ChannelsLast)?
    } else {
        Tensor::empty(&shape, dtype, first.device())?
    };
    let mut at = 0;
    let mut parts: SmallVec<[(usize, usize); 8]> = SmallVec::new();
    for t in ts {
        let n = if legacy(&t) { t.shape()[d] } else { 0 };
        if n > 0 {
            super::copy_raw(&super::with_layout(&y, y.layout().slice(d, at, n, 1)?), t)?;
        }
        parts.push((at, n));
        at += n;
    }
    let inputs: SmallVec<[&Tensor; 8]> = ts.iter().collect();
    if needs_grad(&inputs) {
        let shapes: SmallVec<[Dims; 8]> = ts.iter().map(|t| t.shape().into()).collect();
        autograd::attach("CatBackward0", &inputs, &[&y], &[], move |cx| {
            let g = cx.grad(0)?;
            parts
                .iter()
                .zip(&shapes)
                .enumerate()
                .map(|(i, (&(at, n), shape))| {
                    if !cx.needs(i) {
                        return Ok(None);
                    }
                    let part = super::narrow(&g, d as i64, at as i64, n as i64)?;
                    if n == 0 {
                        super::reshape_to(&Tensor::zeros(shape, g.dtype(), g.device())?, shape).map(Some)
                    } else {
                        Ok(Some(part))
                    }
                })
                .collect()
        });
    }
    Ok(y)
}

/// Joins tensors of one shape along a new dimension.
pub fn stack(ts: &[Tensor], dim: i64) -> Result<Tensor> {
    ensure!(!ts.is_empty(), Value, "stack expects a non-empty TensorList");
    let d = wrap_dim("stack", dim, ts[0].ndim() + 1)?;
    for (i, t) in ts.iter().enumerate() {
        ensure!(
            t.shape() == ts[0].shape(),
            Shape,
            "stack expects each tensor to be equal size, but got {:?} at entry 0 and {:?} at entry {i}",
            ts[0].shape(),
            t.shape()
        );
    }
    let parts = ts.iter().map(|t| super::unsqueeze(t, d as i64)).collect::<Result<Vec<_>>>()?;
    cat(&parts, d as i64)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "cat",
        FUNCTION | OUT,
        alias = ["concat", "concatenate"],
        "Joins tensors along a dimension.",
        "tensors: Tensors, dim: int = 0",
        |a| Ok(cat(a.tensors(0)?, a.int(1)?)?.into())
    );
    op!(
        list,
        "stack",
        FUNCTION | OUT,
        "Joins tensors of one shape along a new dimension.",
        "tensors: Tensors, dim: int = 0",
        |a| Ok(stack(a.tensors(0)?, a.int(1)?)?.into())
    );
}
