//! Diagonals and triangles: taking, placing, filling and enumerating them.

use super::view::inject;
use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::{Op, Value};
use crate::tensor::Tensor;
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Device, Dims, Layout, Result, Scalar, bail, ensure};
use smallvec::smallvec;
use std::sync::Arc;

/// Which elements of the last two dimensions lie outside the lower (or upper) triangle.
fn outside(name: &str, t: &Tensor, diagonal: i64, upper: bool) -> Result<Tensor> {
    ensure!(t.ndim() >= 2, Runtime, "{name}: input tensor must have at least 2 dimensions, got {}", t.ndim());
    let (h, w) = (t.shape()[t.ndim() - 2] as i64, t.shape()[t.ndim() - 1] as i64);
    let count = |n: i64| {
        super::create::arange(Scalar::Int(0), Scalar::Int(n), Scalar::Int(1), DType::I64, t.device())
    };
    let diagonal = diagonal.clamp(-h - 1, w + 1);
    let limit = super::add(&super::unsqueeze(&count(h)?, 1)?, super::Operand::Number(Scalar::Int(diagonal)))?;
    let column = count(w)?;
    if upper { super::lt(&column, &limit) } else { super::gt(&column, &limit) }
}

const ZERO: super::Operand = super::Operand::Number(Scalar::Int(0));

pub fn tril(t: &Tensor, diagonal: i64) -> Result<Tensor> {
    super::masked_fill(t, &outside("tril", t, diagonal, false)?, ZERO)
}

pub fn triu(t: &Tensor, diagonal: i64) -> Result<Tensor> {
    super::masked_fill(t, &outside("triu", t, diagonal, true)?, ZERO)
}

/// The indices of a triangle of a `row` x `col` matrix, row by row: a 2 x n tensor.
fn triangle_indices(
    name: &str,
    (row, col, offset): (i64, i64, i64),
    upper: bool,
    dtype: DType,
    device: Device,
) -> Result<Tensor> {
    ensure!(row >= 0, Runtime, "{name}: row must be non-negative, got{row}");
    ensure!(col >= 0, Runtime, "{name}: col must be non-negative, got{col}");
    ensure!(
        dtype.is_int(),
        Runtime,
        "\"{name}\" not implemented for '{}': it needs an integer dtype",
        dtype.name()
    );
    // Columns of row i that belong to the triangle.
    let span = |i: i64| {
        let edge = i.saturating_add(offset);
        if upper { (edge.clamp(0, col), col) } else { (0, edge.saturating_add(1).clamp(0, col)) }
    };
    let total = (0..row).map(span).try_fold(0i64, |n, (a, b)| n.checked_add(b - a));
    let Some(n) = total.filter(|n| *n < 1 << 58) else {
        bail!(Runtime, "{name}: a {row} x {col} matrix has too many elements")
    };
    let mut at: Vec<i64> = Vec::new();
    ensure!(
        at.try_reserve_exact(2 * n as usize).is_ok(),
        OutOfMemory,
        "{name}: cannot allocate {n} pairs of indices"
    );
    for i in 0..row {
        let (a, b) = span(i);
        at.extend(std::iter::repeat_n(i, (b - a) as usize));
    }
    for i in 0..row {
        let (a, b) = span(i);
        at.extend(a..b);
    }
    let t = Tensor::from_slice(&at, &[2, n as usize])?;
    super::to(&t, dtype, device, false, crate::MemoryFormat::Preserve)
}

/// The last dimension as the diagonal of two new ones, `dim1` and `dim2` of the result.
pub fn diag_embed(t: &Tensor, offset: i64, dim1: i64, dim2: i64) -> Result<Tensor> {
    let ndim = t.ndim() + 1;
    let (a, b) = (wrap_dim("diag_embed", dim1, ndim)?, wrap_dim("diag_embed", dim2, ndim)?);
    ensure!(a != b, Runtime, "diagonal dimensions cannot be identical {dim1}, {dim2}");
    let Some((n, rest)) = t.shape().split_last() else {
        bail!(Index, "diag_embed: the input needs at least one dimension")
    };
    let Some(size) = n.checked_add(offset.unsigned_abs() as usize) else {
        bail!(Runtime, "diag_embed: offset {offset} is too large")
    };
    let mut shape: Dims = rest.into();
    shape.insert(a.min(b), size);
    shape.insert(a.max(b), size);
    let y = Tensor::zeros(&shape, t.dtype(), t.device())?;
    super::copy_raw(&super::with_layout(&y, y.layout().diagonal(offset, a, b)?), t)?;
    if needs_grad(&[t]) {
        autograd::attach_any("DiagEmbedBackward0", &[t], &[&y], &[], move |cx| {
            Ok(smallvec![Some(super::diagonal(
                &cx.grad(0)?,
                offset,
                (a + cx.lead()) as i64,
                (b + cx.lead()) as i64
            )?)])
        });
    }
    Ok(y)
}

/// A vector as the diagonal of a matrix, or a matrix's diagonal as a vector.
pub fn diag(t: &Tensor, offset: i64) -> Result<Tensor> {
    match t.ndim() {
        1 => diag_embed(t, offset, 0, 1),
        2 => super::clone_format(&super::diagonal(t, offset, 0, 1)?, crate::MemoryFormat::Contiguous),
        n => bail!(Runtime, "diag(): Supports 1D or 2D tensors. Got {n}D"),
    }
}

/// Writes `value` to the main diagonal. In a tall matrix `wrap` starts another one below the end of each.
fn fill_diagonal_(t: &Tensor, value: Scalar, wrap: bool) -> Result<()> {
    ensure!(t.ndim() >= 2, Runtime, "dimensions must larger than 1");
    let n = t.shape()[0];
    if t.ndim() > 2 {
        ensure!(
            t.shape().iter().all(|s| *s == n),
            Runtime,
            "all dimensions of input must be of equal length, got shape {:?}",
            t.shape()
        );
        let along = Arc::new(|l: &Layout| {
            let step: isize = l.strides().iter().sum();
            Ok(Layout::new([l.shape()[0]].as_slice(), [step].as_slice(), l.offset()))
        });
        return super::fill_(&inject("AsStridedBackward0", t, along)?, value);
    }
    let period = t.shape()[1] as i64 + 1;
    let mut top = 0;
    loop {
        let below = super::narrow(t, 0, top, n as i64 - top)?;
        super::fill_(&super::diagonal(&below, 0, 0, 1)?, value)?;
        top += period;
        if !wrap || top >= n as i64 {
            return Ok(());
        }
    }
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "tril",
        FUNCTION | METHOD | OUT,
        "The lower triangle of the last two dimensions; the rest is 0.",
        "input: Tensor, diagonal: int = 0",
        |a| Ok(tril(a.tensor(0)?, a.int(1)?)?.into())
    );
    op!(
        list,
        "triu",
        FUNCTION | METHOD | OUT,
        "The upper triangle of the last two dimensions; the rest is 0.",
        "input: Tensor, diagonal: int = 0",
        |a| Ok(triu(a.tensor(0)?, a.int(1)?)?.into())
    );
    op!(list, "tril_", METHOD, "In-place `tril`.", "input: Tensor, diagonal: int = 0", |a| {
        let t = a.tensor(0)?;
        super::masked_fill_(t, &outside("tril_", t, a.int(1)?, false)?, ZERO)?;
        Ok(Value::Receiver)
    });
    op!(list, "triu_", METHOD, "In-place `triu`.", "input: Tensor, diagonal: int = 0", |a| {
        let t = a.tensor(0)?;
        super::masked_fill_(t, &outside("triu_", t, a.int(1)?, true)?, ZERO)?;
        Ok(Value::Receiver)
    });
    op!(
        list,
        "tril_indices",
        FUNCTION,
        "Rows and columns of the lower triangle of a matrix, row by row.",
        "row: int, col: int, offset: int = 0, *, dtype: dtype? = None, device: device? = None",
        |a| {
            let (d, v) = (a.dtype_opt(3)?.unwrap_or(DType::I64), a.device_opt(4)?.unwrap_or(Device::Cpu));
            Ok(triangle_indices("tril_indices", (a.int(0)?, a.int(1)?, a.int(2)?), false, d, v)?.into())
        }
    );
    op!(
        list,
        "triu_indices",
        FUNCTION,
        "Rows and columns of the upper triangle of a matrix, row by row.",
        "row: int, col: int, offset: int = 0, *, dtype: dtype? = None, device: device? = None",
        |a| {
            let (d, v) = (a.dtype_opt(3)?.unwrap_or(DType::I64), a.device_opt(4)?.unwrap_or(Device::Cpu));
            Ok(triangle_indices("triu_indices", (a.int(0)?, a.int(1)?, a.int(2)?), true, d, v)?.into())
        }
    );
    op!(
        list,
        "diag",
        FUNCTION | METHOD | OUT,
        "A vector as a diagonal matrix, or a matrix's diagonal.",
        "input: Tensor, diagonal: int = 0",
        |a| Ok(diag(a.tensor(0)?, a.int(1)?)?.into())
    );
    op!(
        list,
        "diagflat",
        FUNCTION | METHOD,
        "The elements, flattened, as the diagonal of a matrix.",
        "input: Tensor, offset: int = 0",
        |a| Ok(diag_embed(&super::reshape(a.tensor(0)?, &[-1])?, a.int(1)?, 0, 1)?.into())
    );
    op!(
        list,
        "diag_embed",
        FUNCTION | METHOD,
        "The last dimension as the diagonal of the new dimensions `dim1` and `dim2`.",
        "input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1",
        |a| Ok(diag_embed(a.tensor(0)?, a.int(1)?, a.int(2)?, a.int(3)?)?.into())
    );
    op!(
        list,
        "fill_diagonal_",
        METHOD,
        "Writes a number to the main diagonal; `wrap` goes on below the end of a tall matrix's diagonal.",
        "input: Tensor, fill_value: Number, wrap: bool = False",
        |a| {
            fill_diagonal_(a.tensor(0)?, a.number(1)?, a.bool(2)?)?;
            Ok(Value::Receiver)
        }
    );
}
