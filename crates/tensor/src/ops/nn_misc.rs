//! What the neural-network ops share: argument checks, picking and placing along a dimension with
//! gradients, layouts that put one dimension last. And `glu`.

use super::Operand;
use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::backend::{Index, Scatter};
use pyrite_core::layout::wrap_dim;
use pyrite_core::{Arr, DType, Device, Dims, Layout, Result, Scalar, ensure};
use smallvec::smallvec;

/// The number 0 as an operand.
pub(super) fn zero<'a>() -> Operand<'a> {
    Operand::Number(Scalar::Float(0.0))
}

/// Floating tensors only; the message is PyTorch's.
pub(super) fn want_float(op: &str, t: &Tensor) -> Result<()> {
    ensure!(
        t.dtype().is_float(),
        NotImplemented,
        "\"{op}\" not implemented for '{}' (shape {:?}); convert the input with .float()",
        t.dtype().name(),
        t.shape()
    );
    Ok(())
}

pub(super) fn same_device(op: &str, ts: &[&Tensor]) -> Result<()> {
    for t in ts {
        ensure!(
            t.device() == ts[0].device(),
            Runtime,
            "{op}: Expected all tensors to be on the same device, but found at least two devices, {} and {}!",
            ts[0].device(),
            t.device()
        );
    }
    Ok(())
}

/// An int, or one value for each of `N` dimensions, at least `min`.
pub(super) fn sizes<const N: usize>(op: &str, what: &str, v: &[i64], min: i64) -> Result<[usize; N]> {
    ensure!(
        v.len() == 1 || v.len() == N,
        Runtime,
        "{op}: {what} must be an int or a tuple of {N} ints, got {v:?}"
    );
    let mut out = [0usize; N];
    for (i, o) in out.iter_mut().enumerate() {
        let x = if v.len() == 1 { v[0] } else { v[i] };
        // Far below overflow of any product of two of them.
        ensure!(
            x >= min && x < 1 << 31,
            Runtime,
            "{op}: {what} must be at least {min} and less than 2**31, got {v:?}"
        );
        *o = x as usize;
    }
    Ok(out)
}

pub(super) fn signed(shape: &[usize]) -> smallvec::SmallVec<[i64; 6]> {
    shape.iter().map(|s| *s as i64).collect()
}

/// The dtype kernels accumulate statistics in.
pub(super) fn compute_type(d: DType) -> DType {
    if d == DType::F64 { DType::F64 } else { DType::F32 }
}

/// `layout` with dimension `d` moved to the end.
pub(super) fn dim_last(layout: &Layout, d: usize) -> Result<Layout> {
    let n = layout.ndim() as i64;
    let order: Vec<i64> = (0..n).filter(|i| *i != d as i64).chain(std::iter::once(d as i64)).collect();
    layout.permute(&order)
}

/// A layout on a tensor's memory, as kernels see it.
pub(super) fn arr_of<'a>(t: &Tensor, layout: &'a Layout) -> Arr<'a> {
    let at = layout.offset() as isize - t.layout().offset() as isize;
    Arr {
        ptr: t.ptr().wrapping_offset(at * t.dtype().size() as isize),
        dtype: t.dtype(),
        shape: layout.shape(),
        strides: layout.strides(),
    }
}

/// Row kernels of the CPU take rows of any strides; other devices want them dense: then a copy.
pub(super) fn dense_rows(t: &Tensor) -> Result<Tensor> {
    if t.device() == Device::Cpu { Ok(t.clone()) } else { super::contiguous(t) }
}

// ---- picking and placing -------------------------------------------------------------------------

/// `x` at `idx` along `dim` (`gather`: `idx` has `x`'s rank), with a gradient for `x`.
pub(super) fn pick(x: &Tensor, idx: &Tensor, dim: usize) -> Result<Tensor> {
    let y = Tensor::empty(idx.shape(), x.dtype(), x.device())?;
    if y.numel() > 0 {
        x.backend()?.index(Index::Gather { dst: y.arr(), src: x.arr(), idx: idx.arr(), dim })?;
    }
    if needs_grad(&[x]) {
        let (shape, at): (Dims, Tensor) = (x.shape().into(), idx.detach());
        autograd::attach("GatherBackward0", &[x], &[&y], &[], move |cx| {
            Ok(smallvec![Some(place(&cx.grad(0)?, &at, dim, &shape)?)])
        });
    }
    Ok(y)
}

/// Zeros of `shape` with `g` added at `idx` along `dim`: the transpose of [`pick`].
pub(super) fn place(g: &Tensor, idx: &Tensor, dim: usize, shape: &[usize]) -> Result<Tensor> {
    let y = Tensor::zeros(shape, g.dtype(), g.device())?;
    if g.numel() > 0 {
        y.backend()?.index(Index::Scatter {
            dst: y.arr(),
            src: g.arr(),
            idx: idx.arr(),
            dim,
            how: Scatter::Add,
        })?;
    }
    if needs_grad(&[g]) {
        let at = idx.detach();
        autograd::attach("ScatterAddBackward0", &[g], &[&y], &[], move |cx| {
            Ok(smallvec![Some(pick(&cx.grad(0)?, &at, dim)?)])
        });
    }
    Ok(y)
}

// ---- glu -----------------------------------------------------------------------------------------

/// The first half times the sigmoid of the second half along `dim`.
pub fn glu(x: &Tensor, dim: i64) -> Result<Tensor> {
    ensure!(x.ndim() > 0, Runtime, "glu does not support 0-dimensional tensors");
    let d = wrap_dim("glu", dim, x.ndim())?;
    let n = x.shape()[d];
    ensure!(n.is_multiple_of(2), Shape, "Halving dimension must be even, but dimension {d} is size {n}");
    let half = (n / 2) as i64;
    let (a, b) = (super::narrow(x, d as i64, 0, half)?, super::narrow(x, d as i64, half, half)?);
    super::mul(&a, &super::sigmoid(&b)?)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "glu",
        FUNCTION,
        ns = "nn",
        "The first half times the sigmoid of the second half along `dim` (Dauphin et al., 2016).",
        "input: Tensor, dim: int = -1",
        |a| Ok(glu(a.tensor(0)?, a.int(1)?)?.into())
    );
}
