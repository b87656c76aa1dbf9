//! Shape operators that make new tensors: joining, repeating, flipping.

use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::{Op, Value};
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
    // Vectors without elements fit everything, whatever the dimension.
    let d = if legacy(&first) { wrap_dim("cat", dim, first.ndim())? } else { 0 };
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
        autograd::attach_any("CatBackward0", &inputs, &[&y], &[], move |cx| {
            let g = cx.grad(0)?;
            parts
                .iter()
                .zip(&shapes)
                .enumerate()
                .map(|(i, (&(at, n), shape))| {
                    if !cx.needs(i) {
                        return Ok(None);
                    }
                    let part = super::narrow(&g, (d + cx.lead()) as i64, at as i64, n as i64)?;
                    if n == 0 {
                        Tensor::zeros(&cx.batched(shape), g.dtype(), g.device()).map(Some)
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
    ensure!(!ts.is_empty(), Runtime, "stack expects a non-empty TensorList");
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

/// The elements in reverse order along some dimensions: a copy, as in PyTorch.
pub fn flip(t: &Tensor, dims: &[i64]) -> Result<Tensor> {
    let mask = super::reduce::dim_mask(
        "flip",
        if dims.is_empty() { return super::clone(t) } else { Some(dims) },
        t.ndim(),
    )?;
    let mut v = t.clone();
    for (d, m) in mask.iter().enumerate() {
        if *m {
            v = super::slice(&v, d as i64, None, None, -1)?;
        }
    }
    super::clone_format(&v, crate::MemoryFormat::Contiguous)
}

/// Elements moved round along dimensions (or along the flattened tensor).
pub fn roll(t: &Tensor, shifts: &[i64], dims: &[i64]) -> Result<Tensor> {
    if dims.is_empty() {
        ensure!(
            shifts.len() == 1,
            Runtime,
            "roll: shifts and dimensions must align. shifts: {}, dims: 0",
            shifts.len()
        );
        return super::reshape_to(&roll(&super::reshape(t, &[-1])?, shifts, &[0])?, t.shape());
    }
    ensure!(
        shifts.len() == dims.len(),
        Runtime,
        "shifts and dimensions must align. shifts: {}, dims:{}",
        shifts.len(),
        dims.len()
    );
    let mut y = t.clone();
    for (s, d) in shifts.iter().zip(dims) {
        ensure!(t.ndim() > 0, Index, "roll: Dimension specified as {d} but tensor has no dimensions");
        let d = wrap_dim("roll", *d, t.ndim())?;
        let n = y.shape().get(d).copied().unwrap_or(0) as i64;
        if n == 0 || s.rem_euclid(n) == 0 {
            continue;
        }
        let cut = n - s.rem_euclid(n);
        y = cat(
            &[super::narrow(&y, d as i64, cut, n - cut)?, super::narrow(&y, d as i64, 0, cut)?],
            d as i64,
        )?;
    }
    if y.same(t) { super::clone(t) } else { Ok(y) }
}

/// The tensor repeated along every dimension.
pub fn repeat(t: &Tensor, times: &[i64]) -> Result<Tensor> {
    ensure!(
        times.len() >= t.ndim(),
        Runtime,
        "Number of dimensions of repeat dims ({}) can not be smaller than number of dimensions of tensor ({})",
        times.len(),
        t.ndim()
    );
    ensure!(
        times.iter().all(|n| *n >= 0),
        Runtime,
        "repeat: Trying to create tensor with negative dimension: {times:?}"
    );
    // x [a, b] -> [1, a, 1, b] expanded to [n, a, m, b] and merged: one copy.
    let lead = times.len() - t.ndim();
    let (mut one, mut wide, mut out): (SmallVec<[i64; 12]>, SmallVec<[i64; 12]>, SmallVec<[i64; 6]>) =
        Default::default();
    for (i, n) in times.iter().enumerate() {
        let s = if i < lead { 1 } else { t.shape()[i - lead] as i64 };
        one.extend([1, s]);
        wide.extend([*n, s]);
        out.push(match n.checked_mul(s) {
            Some(v) => v,
            None => {
                pyrite_core::bail!(Runtime, "repeat: sizes {times:?} are too large for shape {:?}", t.shape())
            }
        });
    }
    let y = super::expand(&super::reshape(t, &one)?, &wide)?;
    super::reshape(&super::clone_format(&y, crate::MemoryFormat::Contiguous)?, &out)
}

/// NumPy's `tile`: missing repeats are 1.
fn tile(t: &Tensor, times: &[i64]) -> Result<Tensor> {
    let mut full: SmallVec<[i64; 6]> = SmallVec::from_elem(1, t.ndim().saturating_sub(times.len()));
    full.extend_from_slice(times);
    repeat(t, &full)
}

/// All tensors expanded to their common shape.
fn broadcast_tensors(ts: &[Tensor]) -> Result<Vec<Tensor>> {
    let mut shape = Dims::new();
    for t in ts {
        shape = pyrite_core::layout::broadcast("broadcast_tensors", &shape, t.shape())?;
    }
    ts.iter().map(|t| super::expand_to(t, &shape)).collect()
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
    op!(
        list,
        "flip",
        FUNCTION | METHOD,
        "The elements in reverse order along `dims`: a copy.",
        "input: Tensor, dims: size",
        |a| Ok(flip(a.tensor(0)?, a.ints(1)?)?.into())
    );
    op!(list, "fliplr", FUNCTION | METHOD, "Columns in reverse order.", "input: Tensor", |a| {
        ensure!(a.tensor(0)?.ndim() >= 2, Runtime, "fliplr: Input must be >= 2-d.");
        Ok(flip(a.tensor(0)?, &[1])?.into())
    });
    op!(list, "flipud", FUNCTION | METHOD, "Rows in reverse order.", "input: Tensor", |a| {
        ensure!(a.tensor(0)?.ndim() >= 1, Runtime, "flipud: Input must be >= 1-d.");
        Ok(flip(a.tensor(0)?, &[0])?.into())
    });
    op!(
        list,
        "roll",
        FUNCTION | METHOD,
        "Elements moved round along dimensions.",
        "input: Tensor, shifts: ints, dims: ints? = ()",
        |a| Ok(roll(a.tensor(0)?, a.ints(1)?, a.ints_opt(2)?.unwrap_or(&[]))?.into())
    );
    op!(
        list,
        "repeat",
        METHOD,
        "The tensor repeated along every dimension: a copy.",
        "input: Tensor, repeats: size",
        |a| Ok(repeat(a.tensor(0)?, a.ints(1)?)?.into())
    );
    op!(
        list,
        "tile",
        FUNCTION | METHOD,
        "The tensor repeated as NumPy's tile does.",
        "input: Tensor, dims: size",
        |a| Ok(tile(a.tensor(0)?, a.ints(1)?)?.into())
    );
    op!(
        list,
        "broadcast_tensors",
        FUNCTION,
        "All tensors expanded to their common shape.",
        "tensors: Tensors",
        |a| Ok(Value::Tuple(broadcast_tensors(a.tensors(0)?)?))
    );
}
