//! Views of consecutive sections: `split`, `chunk`, `tensor_split` and their kin.

use super::view::{LayoutFn, inject, put_into_zeros, with_layout};
use crate::autograd::{self, inplace, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Dims, Layout, Result, ensure};
use smallvec::smallvec;
use std::sync::Arc;

/// Sections along a dimension as views.
pub fn split_sizes(t: &Tensor, sizes: &[i64], dim: i64) -> Result<Vec<Tensor>> {
    ensure!(t.ndim() > 0, Runtime, "split expects at least a 1-dimensional tensor");
    let d = wrap_dim("split", dim, t.ndim())?;
    let n = t.shape()[d] as i64;
    ensure!(
        sizes.iter().all(|s| *s >= 0),
        Runtime,
        "split_with_sizes expects split_sizes have only non-negative entries, but got {sizes:?}"
    );
    ensure!(
        sizes.iter().try_fold(0i64, |a, s| a.checked_add(*s)) == Some(n),
        Runtime,
        "split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at dimension {d}), but got split_sizes={sizes:?}"
    );
    sections("SplitWithSizesBackward0", t, sizes, d)
}

/// Consecutive sections of dimension `d`; `sizes` add up to it.
fn sections(name: &'static str, t: &Tensor, sizes: &[i64], d: usize) -> Result<Vec<Tensor>> {
    let mut at = 0;
    let views = sizes
        .iter()
        .map(|s| {
            let (first, len) = (at, *s as usize);
            at += len;
            inject(name, t, Arc::new(move |l: &Layout| l.slice(d, first, len, 1)))
        })
        .collect::<Result<Vec<_>>>()?;
    inplace::mark_several(&views);
    Ok(views)
}

pub fn split(t: &Tensor, size: i64, dim: i64) -> Result<Vec<Tensor>> {
    ensure!(t.ndim() > 0, Runtime, "split expects at least a 1-dimensional tensor");
    let d = wrap_dim("split", dim, t.ndim())?;
    let n = t.shape()[d] as i64;
    ensure!(size >= 0, Runtime, "split expects split_size be non-negative, but got split_size={size}");
    ensure!(
        size > 0 || n == 0,
        Runtime,
        "split: split_size can only be 0 if dimension size is 0, but got dimension size of {n}"
    );
    let mut sizes = Vec::new();
    let mut left = n;
    loop {
        sizes.push(if size == 0 { 0 } else { left.min(size) });
        left -= size.min(left);
        if left <= 0 {
            break;
        }
    }
    sections("SplitBackward0", t, &sizes, d)
}

pub fn chunk(t: &Tensor, chunks: i64, dim: i64) -> Result<Vec<Tensor>> {
    ensure!(chunks > 0, Runtime, "chunk expects `chunks` to be greater than 0, got: {chunks}");
    ensure!(t.ndim() > 0, Runtime, "chunk expects at least a 1-dimensional tensor");
    let d = wrap_dim("chunk", dim, t.ndim())?;
    let n = t.shape()[d] as i64;
    if n == 0 {
        return split_sizes(t, &vec![0; chunks as usize], dim);
    }
    split(t, (n + chunks - 1) / chunks, dim)
}

pub fn unbind(t: &Tensor, dim: i64) -> Result<Vec<Tensor>> {
    ensure!(t.ndim() > 0, Index, "Dimension specified as {dim} but tensor has no dimensions");
    let d = wrap_dim("unbind", dim, t.ndim())?;
    let views = (0..t.shape()[d] as i64)
        .map(|i| inject("UnbindBackward0", t, Arc::new(move |l: &Layout| l.select(d, i))))
        .collect::<Result<Vec<_>>>()?;
    inplace::mark_several(&views);
    Ok(views)
}

/// The section `first..first + len` of dimension `d` as a view that autograd treats as a copy: writing
/// to it is allowed while recording, and seen by nobody's history.
fn unsafe_section(name: &'static str, t: &Tensor, d: usize, first: usize, len: usize) -> Result<Tensor> {
    let f: LayoutFn = Arc::new(move |l: &Layout| l.slice(d, first, len, 1));
    let y = with_layout(t, f(t.layout())?);
    if needs_grad(&[t]) {
        let shape: Dims = t.shape().into();
        autograd::attach(name, &[t], &[&y], &[], move |cx| {
            Ok(smallvec![Some(put_into_zeros(&cx.grad(0)?, &shape, &f)?)])
        });
    }
    Ok(y)
}

/// The views of `safe` made anew, as [`unsafe_section`]s.
fn unsafe_like(name: &'static str, t: &Tensor, dim: i64, safe: &[Tensor]) -> Result<Value> {
    let d = wrap_dim(name, dim, t.ndim())?;
    let mut at = 0;
    let parts = safe.iter().map(|s| {
        let first = at;
        at += s.shape()[d];
        unsafe_section(name, t, d, first, s.shape()[d])
    });
    Ok(Value::Tuple(parts.collect::<Result<_>>()?))
}

/// `n` sections whose sizes differ by at most one, the larger ones first.
pub fn tensor_split(t: &Tensor, n: i64, dim: i64) -> Result<Vec<Tensor>> {
    let d = split_dim(t, dim)?;
    ensure!(n > 0, Runtime, "number of sections must be larger than 0, got {n}");
    let (size, n) = (t.shape()[d], n as usize);
    let mut sizes = Vec::new();
    ensure!(sizes.try_reserve_exact(n).is_ok(), OutOfMemory, "tensor_split: cannot make {n} sections");
    sizes.extend((0..n).map(|i| (size / n + (i < size % n) as usize) as i64));
    sections("TensorSplitBackward0", t, &sizes, d)
}

/// Sections between indices, which are clamped as Python's slices clamp theirs.
pub fn tensor_split_at(t: &Tensor, at: &[i64], dim: i64) -> Result<Vec<Tensor>> {
    let d = split_dim(t, dim)?;
    let mut views = Vec::with_capacity(at.len() + 1);
    let mut start = 0;
    for end in at.iter().copied().chain([i64::MAX]) {
        views.push(super::slice(t, d as i64, Some(start), Some(end), 1)?);
        start = end;
    }
    inplace::mark_several(&views);
    Ok(views)
}

fn split_dim(t: &Tensor, dim: i64) -> Result<usize> {
    ensure!(
        t.ndim() > 0,
        Runtime,
        "tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims"
    );
    wrap_dim("tensor_split", dim, t.ndim())
}

/// The number of sections, or the indices, in a tensor.
fn tensor_split_by(t: &Tensor, by: &Tensor, dim: i64) -> Result<Vec<Tensor>> {
    ensure!(
        by.dtype() == DType::I64,
        Runtime,
        "tensor_split expected tensor_indices_or_sections to have dtype of long, but got {}",
        by.dtype().name()
    );
    ensure!(
        by.ndim() <= 1,
        Runtime,
        "tensor_split expected tensor_indices_or_sections to be a zero-dimensional or one-dimensional tensor, but got a tensor with {} dims",
        by.ndim()
    );
    if by.ndim() == 0 {
        return tensor_split(t, by.item()?.i64(), dim);
    }
    tensor_split_at(t, &by.to_vec::<i64>()?, dim)
}

/// The dimension that `hsplit`, `vsplit` or `dsplit` cuts.
fn named_dim(name: &str, t: &Tensor) -> Result<i64> {
    let least = match name {
        "hsplit" => 1,
        "vsplit" => 2,
        _ => 3,
    };
    ensure!(
        t.ndim() >= least,
        Runtime,
        "torch.{name} requires a tensor with at least {least} dimension, but got a tensor with {} dimensions!",
        t.ndim()
    );
    Ok(match name {
        "hsplit" if t.ndim() == 1 => 0,
        "hsplit" => 1,
        "vsplit" => 0,
        _ => 2,
    })
}

fn named_split(name: &str, a: &Args) -> Result<Value> {
    let (t, n) = (a.tensor(0)?, a.int(1)?);
    let dim = named_dim(name, t)?;
    let size = t.shape()[dim as usize] as i64;
    ensure!(
        n != 0 && size % n == 0,
        Runtime,
        "torch.{name} attempted to split along dimension {dim}, but the size of the dimension {size} is not divisible by the split_size {n}!"
    );
    Ok(Value::Tuple(tensor_split(t, n, dim)?))
}

fn named_split_at(name: &str, a: &Args) -> Result<Value> {
    Ok(Value::Tuple(tensor_split_at(a.tensor(0)?, a.ints(1)?, named_dim(name, a.tensor(0)?)?)?))
}

pub fn register(list: &mut Vec<Op>) {
    op!(list, "split", FUNCTION | METHOD, "Views of sections along `dim`: of one size, or of the sizes given.",
        "input: Tensor, split_size_or_sections: int, dim: int = 0", |a| Ok(Value::Tuple(split(a.tensor(0)?, a.int(1)?, a.int(2)?)?));
        "input: Tensor, split_size_or_sections: ints, dim: int = 0", |a| Ok(Value::Tuple(split_sizes(a.tensor(0)?, a.ints(1)?, a.int(2)?)?));
        "input: Tensor, split_size: int, dim: int = 0", |a| Ok(Value::Tuple(split(a.tensor(0)?, a.int(1)?, a.int(2)?)?)));
    op!(
        list,
        "split_with_sizes",
        FUNCTION | METHOD,
        "Views of sections of the given sizes along `dim`.",
        "input: Tensor, split_sizes: ints, dim: int = 0",
        |a| Ok(Value::Tuple(split_sizes(a.tensor(0)?, a.ints(1)?, a.int(2)?)?))
    );
    op!(
        list,
        "chunk",
        FUNCTION | METHOD,
        "At most `chunks` views of equal size (the last may be smaller) along `dim`.",
        "input: Tensor, chunks: int, dim: int = 0",
        |a| Ok(Value::Tuple(chunk(a.tensor(0)?, a.int(1)?, a.int(2)?)?))
    );
    op!(
        list,
        "unbind",
        FUNCTION | METHOD,
        "The slices along `dim`, as views.",
        "input: Tensor, dim: int = 0",
        |a| Ok(Value::Tuple(unbind(a.tensor(0)?, a.int(1)?)?))
    );
    op!(
        list,
        "unsafe_split",
        FUNCTION | METHOD,
        "`split` whose results autograd takes for copies: they may be written to, but each part of the memory through one tensor only.",
        "input: Tensor, split_size: int, dim: int = 0",
        |a| unsafe_like(
            "UnsafeSplitBackward0",
            a.tensor(0)?,
            a.int(2)?,
            &split(a.tensor(0)?, a.int(1)?, a.int(2)?)?
        )
    );
    op!(
        list,
        "unsafe_split_with_sizes",
        FUNCTION | METHOD,
        "`split_with_sizes` whose results autograd takes for copies.",
        "input: Tensor, split_sizes: ints, dim: int = 0",
        |a| unsafe_like(
            "UnsafeSplitWithSizesBackward0",
            a.tensor(0)?,
            a.int(2)?,
            &split_sizes(a.tensor(0)?, a.ints(1)?, a.int(2)?)?
        )
    );
    op!(
        list,
        "unsafe_chunk",
        FUNCTION | METHOD,
        "`chunk` whose results autograd takes for copies.",
        "input: Tensor, chunks: int, dim: int = 0",
        |a| unsafe_like(
            "UnsafeSplitBackward0",
            a.tensor(0)?,
            a.int(2)?,
            &chunk(a.tensor(0)?, a.int(1)?, a.int(2)?)?
        )
    );
    op!(list, "tensor_split", FUNCTION | METHOD,
        "Views of `n` sections whose sizes differ by at most one, or of the sections between indices.",
        "input: Tensor, tensor_indices_or_sections: Tensor, dim: int = 0", |a| Ok(Value::Tuple(tensor_split_by(a.tensor(0)?, a.tensor(1)?, a.int(2)?)?));
        "input: Tensor, sections: int, dim: int = 0", |a| Ok(Value::Tuple(tensor_split(a.tensor(0)?, a.int(1)?, a.int(2)?)?));
        "input: Tensor, indices: ints, dim: int = 0", |a| Ok(Value::Tuple(tensor_split_at(a.tensor(0)?, a.ints(1)?, a.int(2)?)?));
        "input: Tensor, indices_or_sections: int, dim: int = 0", |a| Ok(Value::Tuple(tensor_split(a.tensor(0)?, a.int(1)?, a.int(2)?)?));
        "input: Tensor, indices_or_sections: ints, dim: int = 0", |a| Ok(Value::Tuple(tensor_split_at(a.tensor(0)?, a.ints(1)?, a.int(2)?)?)));
    op!(list, "hsplit", FUNCTION | METHOD, "Views of equal sections (or between indices) along dimension 1; for a vector along dimension 0.",
        "input: Tensor, sections: int", |a| named_split("hsplit", a);
        "input: Tensor, indices: ints", |a| named_split_at("hsplit", a));
    op!(list, "vsplit", FUNCTION | METHOD, "Views of equal sections (or between indices) along dimension 0.",
        "input: Tensor, sections: int", |a| named_split("vsplit", a);
        "input: Tensor, indices: ints", |a| named_split_at("vsplit", a));
    op!(list, "dsplit", FUNCTION | METHOD, "Views of equal sections (or between indices) along dimension 2.",
        "input: Tensor, sections: int", |a| named_split("dsplit", a);
        "input: Tensor, indices: ints", |a| named_split_at("dsplit", a));
}
