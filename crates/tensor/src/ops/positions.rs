//! Positions as data: `nonzero_static`, `unravel_index`, `repeat_interleave`.

use super::Operand;
use crate::op;
use crate::registry::{Op, Value};
use crate::tensor::Tensor;
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Device, Dims, Result, Scalar, ensure};

fn nonzero_static(t: &Tensor, size: i64, fill: i64) -> Result<Tensor> {
    ensure!(size >= 0, Runtime, "nonzero_static: 'size' must be an non-negative integer, got {size}");
    let size = size as usize;
    let found = super::index::nonzero(t)?;
    let n = found.shape()[0].min(size);
    let y = Tensor::full(&[size, t.ndim()], Scalar::Int(fill), DType::I64, t.device())?;
    if y.numel() > 0 {
        super::copy_raw(&super::narrow(&y, 0, 0, n as i64)?, &super::narrow(&found, 0, 0, n as i64)?)?;
    }
    Ok(y)
}

fn unravel_index(idx: &Tensor, shape: &[i64]) -> Result<Vec<Tensor>> {
    ensure!(
        idx.dtype().is_int(),
        Type,
        "unravel_index(): expected 'indices' to be integer dtype, but got torch.{}",
        idx.dtype().name()
    );
    ensure!(
        shape.iter().all(|s| *s >= 0),
        Value,
        "unravel_index(): 'shape' cannot have negative values, but got {shape:?}"
    );
    let idx = &super::to_dtype(idx, DType::I64)?;
    let mut step = 1i64;
    let mut out = Vec::with_capacity(shape.len());
    for &n in shape.iter().rev() {
        let q = super::floor_divide(idx, Operand::Number(Scalar::Int(step)))?;
        out.push(super::remainder(&q, Operand::Number(Scalar::Int(n)))?);
        step = step.saturating_mul(n.max(1));
    }
    out.reverse();
    Ok(out)
}

/// Each position `times[i]` times in a row.
fn repeated(times: &Tensor, n: usize, size: Option<i64>) -> Result<Tensor> {
    ensure!(
        times.ndim() <= 1,
        Runtime,
        "repeats must be 0-dim or 1-dim tensor, got {} dimensions",
        times.ndim()
    );
    ensure!(
        matches!(times.dtype(), DType::I64 | DType::I32),
        NotImplemented,
        "\"repeat_interleave\" not implemented for '{}': repeats must be int64 or int32",
        times.dtype().name()
    );
    let list = super::to_dtype(times, DType::I64)?.to_vec::<i64>()?;
    ensure!(
        list.len() == n || list.len() == 1,
        Shape,
        "repeats must have the same size as input along dim, but got repeats.size(0) = {} and input.size(dim) = {n}",
        list.len()
    );
    ensure!(list.iter().all(|r| *r >= 0), Runtime, "repeats can not be negative");
    let total = match list[..] {
        [r] => r as u128 * n as u128,
        _ => list.iter().map(|r| *r as u128).sum(),
    };
    ensure!(
        total <= (isize::MAX / 8) as u128,
        OutOfMemory,
        "repeat_interleave: {total} elements do not fit in memory"
    );
    ensure!(
        size.is_none_or(|s| s as i128 == total as i128),
        Runtime,
        "repeat_interleave: allocated size does not match required size: output_size is {}, the repeats sum up to {total}",
        size.unwrap_or(0)
    );
    // Allocates through the library, whose errors are values.
    let y = Tensor::empty(&[total as usize], DType::I64, Device::Cpu)?;
    let p = y.ptr().cast::<i64>();
    let total = total as usize;
    // The first few are written always, where there is room behind: no branch on short random repeats.
    const FEW: usize = 4;
    let mut at = 0;
    for i in 0..n {
        let r = if list.len() == 1 { list[0] } else { list[i] } as usize;
        let mut done = 0;
        if at + FEW <= total {
            // SAFETY: `y` has `total` elements and is ours alone; what is too much is overwritten next.
            unsafe { p.add(at).cast::<[i64; FEW]>().write_unaligned([i as i64; FEW]) };
            done = FEW;
        }
        for j in done..r {
            // SAFETY: the repeats sum up to the length of `y`.
            unsafe { p.add(at + j).write(i as i64) };
        }
        at += r;
    }
    super::to_device(&y, times.device())
}

fn repeat_interleave(t: &Tensor, times: &Tensor, dim: Option<i64>, size: Option<i64>) -> Result<Tensor> {
    let (x, d) = along(t, dim)?;
    let n = x.shape().get(d).copied().unwrap_or(1);
    let at = super::to_device(&repeated(times, n, size)?, t.device())?;
    super::index::index_select(&super::index::at_least_1d(&x)?, d as i64, &at)
}

/// The same number of times for every element: a broadcast, without an index.
fn repeat_each(t: &Tensor, times: i64, dim: Option<i64>, size: Option<i64>) -> Result<Tensor> {
    ensure!(times >= 0, Runtime, "Repeats must be non-negative, got {times}");
    let (x, d) = along(t, dim)?;
    let x = super::index::at_least_1d(&x)?;
    let total = (x.shape()[d] as i64).checked_mul(times);
    ensure!(
        size.is_none() || total == size,
        Runtime,
        "repeat_interleave: Invalid output_size, expected {} but got {}",
        total.unwrap_or(i64::MAX),
        size.unwrap_or(0)
    );
    let mut wide: Dims = x.shape().into();
    wide.insert(d + 1, times as usize);
    let mut flat: Dims = x.shape().into();
    pyrite_core::layout::numel(&wide)?;
    flat[d] *= times as usize;
    let y = super::expand_to(&super::unsqueeze(&x, d as i64 + 1)?, &wide)?;
    super::reshape_to(&super::clone_format(&y, crate::MemoryFormat::Contiguous)?, &flat)
}

fn along(t: &Tensor, dim: Option<i64>) -> Result<(Tensor, usize)> {
    match dim {
        Some(d) => Ok((t.clone(), wrap_dim("repeat_interleave", d, t.ndim())?)),
        None => Ok((super::reshape(t, &[-1])?, 0)),
    }
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "nonzero_static",
        FUNCTION | METHOD,
        "`nonzero` with exactly `size` rows: cut, or filled up with `fill_value`.",
        "input: Tensor, *, size: int, fill_value: int = -1",
        |a| Ok(nonzero_static(a.tensor(0)?, a.int(1)?, a.int(2)?)?.into())
    );
    op!(
        list,
        "unravel_index",
        FUNCTION,
        "Flat positions as coordinates in a shape: one tensor per dimension.",
        "indices: Tensor, shape: ints",
        |a| Ok(Value::Tuple(unravel_index(a.tensor(0)?, a.ints(1)?)?))
    );
    op!(list, "repeat_interleave", FUNCTION | METHOD, "Each element several times in a row; with a tensor of repeats alone, each position so many times.",
        "input: Tensor, repeats: int, dim: int? = None, *, output_size: int? = None",
            |a| Ok(repeat_each(a.tensor(0)?, a.int(1)?, a.int_opt(2)?, a.int_opt(3)?)?.into());
        "input: Tensor, repeats: Tensor, dim: int? = None, *, output_size: int? = None",
            |a| Ok(repeat_interleave(a.tensor(0)?, a.tensor(1)?, a.int_opt(2)?, a.int_opt(3)?)?.into());
        "repeats: Tensor, *, output_size: int? = None",
            |a| Ok(repeated(a.tensor(0)?, a.tensor(0)?.numel(), a.int_opt(1)?)?.into()));
}
