//! A tensor with a part replaced, as a new tensor: `select_scatter` and relatives, and
//! `put` at flat positions. Each is the out-of-place twin of writing to a view.

use super::advanced::{index_put, index_put_};
use crate::autograd::needs_grad;
use crate::op;
use crate::registry::{Op, Value};
use crate::tensor::Tensor;
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Layout, Result, ensure};

/// `t` with `src` where `view` (a layout over `base`, `t`'s place in memory) shows it.
fn replaced(t: &Tensor, base: &Layout, view: &Layout, src: &Tensor) -> Result<Tensor> {
    ensure!(
        src.shape() == view.shape(),
        Runtime,
        "expected src to have a size equal to the slice of self. src size = {:?}, slice size = {:?}",
        src.shape(),
        view.shape()
    );
    super::view::replace_slice(t, base, view, Some(&super::to_dtype(src, t.dtype())?))
}

fn select_scatter(t: &Tensor, src: &Tensor, dim: i64, index: i64) -> Result<Tensor> {
    ensure!(t.ndim() > 0, Index, "select() cannot be applied to a 0-dim tensor.");
    let d = wrap_dim("select_scatter", dim, t.ndim())?;
    let base = Layout::contiguous(t.shape());
    replaced(t, &base, &base.select(d, index)?, src)
}

fn slice_scatter(
    t: &Tensor,
    src: &Tensor,
    dim: i64,
    start: Option<i64>,
    end: Option<i64>,
    step: i64,
) -> Result<Tensor> {
    ensure!(t.ndim() > 0, Runtime, "slice() cannot be applied to a 0-dim tensor.");
    ensure!(step > 0, Runtime, "slice step must be positive");
    let d = wrap_dim("slice_scatter", dim, t.ndim())?;
    let (first, len) = super::view::slice_range(t.shape()[d] as i64, start, end, step)?;
    let base = Layout::contiguous(t.shape());
    replaced(t, &base, &base.slice(d, first, len, step as isize)?, src)
}

fn diagonal_scatter(t: &Tensor, src: &Tensor, offset: i64, dim1: i64, dim2: i64) -> Result<Tensor> {
    let (a, b) =
        (wrap_dim("diagonal_scatter", dim1, t.ndim())?, wrap_dim("diagonal_scatter", dim2, t.ndim())?);
    ensure!(
        t.ndim() >= 2,
        Runtime,
        "diagonal_scatter: the tensor needs at least 2 dimensions, got {}",
        t.ndim()
    );
    let base = Layout::contiguous(t.shape());
    replaced(t, &base, &base.diagonal(offset, a, b)?, src)
}

fn as_strided_scatter(
    t: &Tensor,
    src: &Tensor,
    size: &[i64],
    stride: &[i64],
    offset: Option<i64>,
) -> Result<Tensor> {
    let view = super::as_strided(&t.detach(), size, stride, offset)?;
    replaced(t, t.layout(), view.layout(), src)
}

/// `t` with `source` at flat positions.
fn put(t: &Tensor, idx: &Tensor, source: &Tensor, accumulate: bool) -> Result<Tensor> {
    check_put(t, idx, source)?;
    let y = index_put(
        &super::reshape(t, &[-1])?,
        &[Some(super::reshape(idx, &[-1])?)],
        &super::reshape(source, &[-1])?,
        accumulate,
    )?;
    super::reshape_to(&y, t.shape())
}

fn put_(t: &Tensor, idx: &Tensor, source: &Tensor, accumulate: bool) -> Result<()> {
    crate::autograd::inplace::check("put_", t)?;
    check_put(t, idx, source)?;
    super::index::no_overlap("put_", t, &[idx, source])?;
    if t.is_contiguous() && !needs_grad(&[t, source]) {
        let flat =
            super::with_layout(t, Layout::new([t.numel()].as_slice(), [1].as_slice(), t.layout().offset()));
        let (idx, source) = (super::reshape(idx, &[-1])?, super::reshape(source, &[-1])?);
        return index_put_(&flat, &[Some(idx)], &source, accumulate);
    }
    super::copy_(t, &put(t, idx, source, accumulate)?)
}

fn check_put(t: &Tensor, idx: &Tensor, source: &Tensor) -> Result<()> {
    ensure!(
        idx.dtype() == DType::I64,
        Runtime,
        "put_(): Expected a long tensor for index, but got {}",
        idx.dtype().name()
    );
    ensure!(
        t.dtype() == source.dtype(),
        Runtime,
        "put_(): self and source expected to have the same dtype, but got self.dtype = {} and source.dtype = {}",
        t.dtype().name(),
        source.dtype().name()
    );
    ensure!(
        idx.numel() == source.numel(),
        Index,
        "put_(): Expected source and index to have the same number of elements, but got source.numel() = {}, index.numel() = {}",
        source.numel(),
        idx.numel()
    );
    ensure!(
        t.numel() > 0 || idx.numel() == 0,
        Index,
        "put_(): Expected source and index to be empty, as self has no elements"
    );
    Ok(())
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "select_scatter",
        FUNCTION | METHOD,
        "A copy of `input` with `src` at position `index` of dimension `dim`.",
        "input: Tensor, src: Tensor, dim: int, index: int",
        |a| Ok(select_scatter(a.tensor(0)?, a.tensor(1)?, a.int(2)?, a.int(3)?)?.into())
    );
    op!(
        list,
        "slice_scatter",
        FUNCTION | METHOD | OUT,
        "A copy of `input` with `src` in the slice `start:end:step` of dimension `dim`.",
        "input: Tensor, src: Tensor, dim: int = 0, start: int? = None, end: int? = None, step: int = 1",
        |a| Ok(slice_scatter(
            a.tensor(0)?,
            a.tensor(1)?,
            a.int(2)?,
            a.int_opt(3)?,
            a.int_opt(4)?,
            a.int(5)?
        )?
        .into())
    );
    op!(
        list,
        "diagonal_scatter",
        FUNCTION | METHOD,
        "A copy of `input` with `src` on a diagonal.",
        "input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1",
        |a| Ok(diagonal_scatter(a.tensor(0)?, a.tensor(1)?, a.int(2)?, a.int(3)?, a.int(4)?)?.into())
    );
    op!(
        list,
        "as_strided_scatter",
        FUNCTION | METHOD,
        "A copy of `input` with `src` where `as_strided` would look.",
        "input: Tensor, src: Tensor, size: ints, stride: ints, storage_offset: int? = None",
        |a| Ok(as_strided_scatter(a.tensor(0)?, a.tensor(1)?, a.ints(2)?, a.ints(3)?, a.int_opt(4)?)?.into())
    );
    op!(
        list,
        "put",
        FUNCTION | METHOD,
        "A copy of `input` with `source` at flat positions; `accumulate` adds.",
        "input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False",
        |a| Ok(put(a.tensor(0)?, a.tensor(1)?, a.tensor(2)?, a.bool(3)?)?.into())
    );
    op!(
        list,
        "put_",
        METHOD,
        "In-place `put`.",
        "input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False",
        |a| {
            put_(a.tensor(0)?, a.tensor(1)?, a.tensor(2)?, a.bool(3)?)?;
            Ok(Value::Receiver)
        }
    );
}
