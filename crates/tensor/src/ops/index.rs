//! Indexing by a vector of positions along one dimension (`index_select`, `index_add` and relatives),
//! and the registry entries of advanced indexing. An index for every element is `gather.rs`, several
//! index tensors at once are `advanced.rs`, Python's `x[...]` is `getitem.rs`.

pub use super::advanced::{
    index, index_put, index_put_, masked_scatter, masked_select, nonzero, wrap_negative,
};
pub(super) use super::gather::{check_scatter, cut, pad_to, scatter_number, scatter_write};
pub use super::gather::{gather, scatter, value_selecting_backward};
pub use super::getitem::{Idx, get, set};

use super::advanced::take;

use super::Operand;
use crate::autograd::{self, Save, inplace, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::{Index, Scatter};
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Dims, Result, Scalar, ensure};
use smallvec::{SmallVec, smallvec};

pub(super) fn check_index_dtype(op: &str, idx: &Tensor) -> Result<()> {
    ensure!(
        matches!(idx.dtype(), DType::I64 | DType::I32),
        Runtime,
        "{op}(): Expected dtype int64 or int32 for index, got {}",
        idx.dtype().name()
    );
    Ok(())
}

pub(super) fn same_dtype(op: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    ensure!(
        a.dtype() == b.dtype(),
        Runtime,
        "{op}(): Expected self.dtype to be equal to src.dtype, got {} and {}",
        a.dtype().name(),
        b.dtype().name()
    );
    Ok(())
}

/// A 0-d tensor as a 1-d one: kernels along a dimension need one.
pub fn at_least_1d(t: &Tensor) -> Result<Tensor> {
    if t.ndim() == 0 { super::reshape(t, &[1]) } else { Ok(t.clone()) }
}

// ---- index_select, index_add and relatives --------------------------------------------------------

pub fn index_select(t: &Tensor, dim: i64, idx: &Tensor) -> Result<Tensor> {
    let d = wrap_dim("index_select", dim, t.ndim())?;
    check_index_dtype("index_select", idx)?;
    ensure!(
        idx.ndim() <= 1,
        Index,
        "index_select(): Index is supposed to be a vector, got shape {:?}",
        idx.shape()
    );
    if t.ndim() == 0 {
        ensure!(
            idx.numel() == 1,
            Runtime,
            "index_select(): Index to scalar can have only 1 value, got {} value(s)",
            idx.numel()
        );
        return super::reshape(&index_select(&at_least_1d(t)?, 0, idx)?, &[]);
    }
    let idx1 = at_least_1d(idx)?;
    let mut shape: Dims = t.shape().into();
    shape[d] = idx1.numel();
    let y = Tensor::empty(&shape, t.dtype(), t.device())?;
    if y.numel() > 0 {
        t.backend()?.index(Index::Select { dst: y.arr(), src: t.arr(), idx: idx1.arr(), dim: d })?;
    }
    if needs_grad(&[t]) {
        let from: Dims = t.shape().into();
        let scalar = t.ndim() == 0;
        autograd::attach_any("IndexSelectBackward0", &[t], &[&y], &[Save::Input(&idx1)], move |cx| {
            let g = cx.grad(0)?;
            if scalar && cx.batch.is_some() {
                return Ok(smallvec![Some(super::reshape_to(&g, &cx.batched(&from))?)]);
            }
            let z = Tensor::zeros(&cx.batched(&from), g.dtype(), g.device())?;
            Ok(smallvec![Some(index_add(&z, (d + cx.lead()) as i64, cx.saved(0)?, &g, Scalar::Int(1))?)])
        });
    }
    Ok(y)
}

/// `dst[.., idx[i], ..] (op)= src[.., i, ..]` in place, without history.
fn select_into(dst: &Tensor, d: usize, idx: &Tensor, src: &Tensor, how: Scatter) -> Result<()> {
    if src.numel() == 0 || dst.numel() == 0 {
        return Ok(());
    }
    dst.backend()?.index(Index::SelectInto { dst: dst.arr(), src: src.arr(), idx: idx.arr(), dim: d, how })
}

pub(super) fn check_select_into(op: &str, t: &Tensor, dim: i64, idx: &Tensor, src: &Tensor) -> Result<usize> {
    let d = wrap_dim(op, dim, t.ndim())?;
    check_index_dtype(op, idx)?;
    same_dtype(op, t, src)?;
    ensure!(idx.ndim() <= 1, Index, "{op}(): Index is supposed to be a vector, got shape {:?}", idx.shape());
    if t.ndim() > 0 {
        let mut want: Dims = t.shape().into();
        want[d] = idx.numel();
        ensure!(
            src.shape() == &want[..] || (src.ndim() == 0 && want.iter().product::<usize>() == 1),
            Shape,
            "{op}(): source of shape {:?} does not fit: expected {:?} (dimension {d} has the {} indices)",
            src.shape(),
            &want[..],
            idx.numel()
        );
    }
    Ok(d)
}

/// Runs `write` on a copy of `t`, as the body of an out-of-place op.
pub(super) fn on_copy(t: &Tensor, write: impl FnOnce(&Tensor) -> Result<()>) -> Result<Tensor> {
    let _off = autograd::GradMode::new(false);
    let y = super::clone(t)?;
    write(&y)?;
    Ok(y)
}

/// An operand that shares memory with what is written to would change under the kernel's hands.
pub(super) fn no_overlap(op: &str, t: &Tensor, others: &[&Tensor]) -> Result<()> {
    for o in others {
        ensure!(
            !o.storage().same(t.storage())
                || pyrite_core::plan::overlap(o.layout(), o.dtype().size(), t.layout(), t.dtype().size())
                    == pyrite_core::plan::Overlap::No,
            Runtime,
            "{op}: unsupported operation: some elements of the input tensor and the written-to tensor refer to a single memory location. Please clone() the tensor before performing the operation."
        );
    }
    Ok(())
}

/// The in-place form: the kernel alone when nothing is recorded, else `copy_` of the recorded result.
pub(super) fn in_place(
    op: &str,
    t: &Tensor,
    others: &[&Tensor],
    write: impl FnOnce(&Tensor) -> Result<()>,
    full: impl FnOnce() -> Result<Tensor>,
) -> Result<Value> {
    inplace::check(op, t)?;
    no_overlap(op, t, others)?;
    let mut all: SmallVec<[&Tensor; 4]> = smallvec![t];
    all.extend_from_slice(others);
    if needs_grad(&all) {
        super::copy_(t, &full()?)?;
    } else {
        write(t)?;
        t.storage().bump_version();
    }
    Ok(Value::Receiver)
}

pub fn index_add(t: &Tensor, dim: i64, idx: &Tensor, src: &Tensor, alpha: Scalar) -> Result<Tensor> {
    let d = check_select_into("index_add", t, dim, idx, src)?;
    let alpha = match alpha {
        Scalar::Float(a) if !src.dtype().is_differentiable() => {
            ensure!(
                a.fract() == 0.0,
                Runtime,
                "index_add: For integral input tensors, argument alpha must not be a floating point number."
            );
            Scalar::Int(a as i64)
        }
        a => a,
    };
    let (t1, idx, src1) = (at_least_1d(t)?, at_least_1d(idx)?, at_least_1d(src)?);
    let y = on_copy(&t1, |y| {
        let scaled =
            if alpha.f64() == 1.0 { src1.detach() } else { super::mul(&src1, Operand::Number(alpha))? };
        select_into(y, d, &idx, &scaled, Scatter::Add)
    })?;
    if needs_grad(&[&t1, &src1]) {
        autograd::attach("IndexAddBackward0", &[&t1, &src1], &[&y], &[Save::Input(&idx)], move |cx| {
            let g = cx.grad(0)?;
            let ds = if cx.needs(1) {
                let s = index_select(&g, d as i64, cx.saved(0)?)?;
                Some(if alpha.f64() == 1.0 { s } else { super::mul(&s, Operand::Number(alpha))? })
            } else {
                None
            };
            Ok(smallvec![cx.needs(0).then_some(g), ds])
        });
    }
    super::reshape_to(&y, t.shape())
}

fn index_copy(t: &Tensor, dim: i64, idx: &Tensor, src: &Tensor) -> Result<Tensor> {
    let d = check_select_into("index_copy", t, dim, idx, src)?;
    let (t1, idx, src1) = (at_least_1d(t)?, at_least_1d(idx)?, at_least_1d(src)?);
    let y = on_copy(&t1, |y| select_into(y, d, &idx, &src1.detach(), Scatter::Set))?;
    if needs_grad(&[&t1, &src1]) {
        autograd::attach("IndexCopyBackward0", &[&t1, &src1], &[&y], &[Save::Input(&idx)], move |cx| {
            let g = cx.grad(0)?;
            let dt = if cx.needs(0) {
                Some(index_fill(&g, d as i64, cx.saved(0)?, Scalar::Int(0))?)
            } else {
                None
            };
            let ds = if cx.needs(1) { Some(index_select(&g, d as i64, cx.saved(0)?)?) } else { None };
            Ok(smallvec![dt, ds])
        });
    }
    super::reshape_to(&y, t.shape())
}

fn index_fill(t: &Tensor, dim: i64, idx: &Tensor, value: Scalar) -> Result<Tensor> {
    let d = wrap_dim("index_fill", dim, t.ndim())?;
    check_index_dtype("index_fill", idx)?;
    ensure!(
        idx.ndim() <= 1,
        Index,
        "index_fill_(): Index is supposed to be a vector, got shape {:?}",
        idx.shape()
    );
    let (t1, idx) =
        (at_least_1d(t)?, wrap_negative(&at_least_1d(idx)?, if t.ndim() == 0 { 1 } else { t.shape()[d] })?);
    let mut shape: Dims = t1.shape().into();
    shape[d] = idx.numel();
    let y = on_copy(&t1, |y| {
        let one = Tensor::full(&[], value, t.dtype(), t.device())?;
        select_into(y, d, &idx, &super::expand_to(&one, &shape)?, Scatter::Set)
    })?;
    if needs_grad(&[&t1]) {
        autograd::attach("IndexFillBackward0", &[&t1], &[&y], &[Save::Input(&idx)], move |cx| {
            Ok(smallvec![Some(index_fill(&cx.grad(0)?, d as i64, cx.saved(0)?, Scalar::Int(0))?)])
        });
    }
    super::reshape_to(&y, t.shape())
}

/// The number to fill with; as a tensor it must have no dimensions.
fn fill_value(a: &Args, i: usize) -> Result<Scalar> {
    match a.operand(i)? {
        Operand::Number(s) => Ok(s),
        Operand::Tensor(t) => {
            ensure!(
                t.ndim() == 0,
                Runtime,
                "index_fill_ only supports a 0-dimensional value tensor, but got tensor with {} dimension(s).",
                t.ndim()
            );
            t.item()
        }
    }
}

/// `index_fill` with its number-or-tensor argument; a tensor may want its gradient.
fn index_fill_args(a: &Args, t: &Tensor) -> Result<Tensor> {
    let (dim, idx) = (a.int(1)?, a.tensor(2)?);
    let number = fill_value(a, 3)?;
    let Operand::Tensor(v) = a.operand(3)? else { return index_fill(t, dim, idx, number) };
    if !needs_grad(&[v]) {
        return index_fill(t, dim, idx, number);
    }
    // By a mask, so that a position named twice counts once in the gradient.
    let none = Tensor::zeros(t.shape(), DType::Bool, t.device())?;
    let mask = index_fill(&none, dim, idx, Scalar::Bool(true))?;
    super::where_(&mask, &super::to_dtype(v, t.dtype())?, t)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "index_select",
        FUNCTION | METHOD | OUT,
        "The slices at the positions `index` (a vector) along `dim`.",
        "input: Tensor, dim: int, index: Tensor",
        |a| Ok(index_select(a.tensor(0)?, a.int(1)?, a.tensor(2)?)?.into())
    );
    op!(
        list,
        "index_add",
        FUNCTION | METHOD | OUT,
        "Adds `alpha * source`'s slices at the positions `index` along `dim`.",
        "input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1",
        |a| Ok(index_add(a.tensor(0)?, a.int(1)?, a.tensor(2)?, a.tensor(3)?, a.number(4)?)?.into())
    );
    op!(
        list,
        "index_add_",
        METHOD,
        "In-place `index_add`.",
        "input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1",
        |a| {
            let (t, i, s) = (a.tensor(0)?, a.tensor(2)?, a.tensor(3)?);
            let d = check_select_into("index_add_", t, a.int(1)?, i, s)?;
            let plain = a.number(4)?.f64() == 1.0 && t.ndim() > 0;
            in_place(
                "index_add_",
                t,
                &[i, s],
                |y| {
                    if plain {
                        select_into(y, d, &at_least_1d(i)?, s, Scatter::Add)
                    } else {
                        super::copy_raw(y, &index_add(&t.detach(), d as i64, i, &s.detach(), a.number(4)?)?)
                    }
                },
                || index_add(t, d as i64, i, s, a.number(4)?),
            )
        }
    );
    op!(
        list,
        "index_copy",
        FUNCTION | METHOD | OUT,
        "Copies `source`'s slices to the positions `index` along `dim`.",
        "input: Tensor, dim: int, index: Tensor, source: Tensor",
        |a| Ok(index_copy(a.tensor(0)?, a.int(1)?, a.tensor(2)?, a.tensor(3)?)?.into())
    );
    op!(
        list,
        "index_copy_",
        METHOD,
        "In-place `index_copy`.",
        "input: Tensor, dim: int, index: Tensor, source: Tensor",
        |a| {
            let (t, dim, i, s) = (a.tensor(0)?, a.int(1)?, a.tensor(2)?, a.tensor(3)?);
            let d = check_select_into("index_copy_", t, dim, i, s)?;
            in_place(
                "index_copy_",
                t,
                &[i, s],
                |y| select_into(&at_least_1d(y)?, d, &at_least_1d(i)?, &at_least_1d(s)?, Scatter::Set),
                || index_copy(t, dim, i, s),
            )
        }
    );
    op!(
        list,
        "index_fill",
        FUNCTION | METHOD,
        "Fills the slices at the positions `index` along `dim` with a number.",
        "input: Tensor, dim: int, index: Tensor, value: Operand",
        |a| Ok(index_fill_args(a, a.tensor(0)?)?.into())
    );
    op!(
        list,
        "index_fill_",
        METHOD,
        "In-place `index_fill`.",
        "input: Tensor, dim: int, index: Tensor, value: Operand",
        |a| {
            let (t, i) = (a.tensor(0)?, a.tensor(2)?);
            let value = a.operand(3)?;
            let others: &[&Tensor] = if let Operand::Tensor(v) = &value { &[i, v] } else { &[i] };
            in_place(
                "index_fill_",
                t,
                others,
                |y| super::copy_raw(y, &index_fill_args(a, &t.detach())?),
                || index_fill_args(a, t),
            )
        }
    );
    op!(
        list,
        "take",
        FUNCTION | METHOD | OUT,
        "Elements at flat positions.",
        "input: Tensor, index: Tensor",
        |a| Ok(take(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "masked_select",
        FUNCTION | METHOD | OUT,
        "The elements where the bool mask is true, as a vector.",
        "input: Tensor, mask: Tensor",
        |a| Ok(masked_select(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "masked_scatter",
        FUNCTION | METHOD,
        "Elements of `source`, in order, where the bool mask is true.",
        "input: Tensor, mask: Tensor, source: Tensor",
        |a| Ok(masked_scatter(a.tensor(0)?, a.tensor(1)?, a.tensor(2)?)?.into())
    );
    op!(
        list,
        "masked_scatter_",
        METHOD,
        "In-place `masked_scatter`.",
        "input: Tensor, mask: Tensor, source: Tensor",
        |a| {
            let (t, m, s) = (a.tensor(0)?, a.tensor(1)?, a.tensor(2)?);
            in_place(
                "masked_scatter_",
                t,
                &[m, s],
                |y| super::copy_raw(y, &masked_scatter(&t.detach(), m, &s.detach())?),
                || masked_scatter(t, m, s),
            )
        }
    );
    op!(
        list,
        "nonzero",
        FUNCTION | METHOD | OUT,
        "The positions of non-zero elements, one row each.",
        "input: Tensor, *, as_tuple: bool = False",
        |a| {
            let t = a.tensor(0)?;
            if !a.bool(1)? {
                return Ok(nonzero(t)?.into());
            }
            let nz = nonzero(&at_least_1d(t)?)?;
            Ok(Value::Tuple(super::unbind(&nz, 1)?))
        }
    );
    op!(
        list,
        "argwhere",
        FUNCTION | METHOD,
        "The positions of non-zero elements, one row each.",
        "input: Tensor",
        |a| Ok(nonzero(a.tensor(0)?)?.into())
    );
    op!(
        list,
        "index_put",
        FUNCTION | METHOD,
        "Writes `values` at the positions given by index tensors.",
        "input: Tensor, indices: Tensors, values: Tensor, accumulate: bool = False",
        |a| {
            let idx: Vec<Option<Tensor>> = a.tensors(1)?.iter().cloned().map(Some).collect();
            Ok(index_put(a.tensor(0)?, &idx, a.tensor(2)?, a.bool(3)?)?.into())
        }
    );
    op!(
        list,
        "index_put_",
        FUNCTION | METHOD,
        "In-place `index_put`.",
        "input: Tensor, indices: Tensors, values: Tensor, accumulate: bool = False",
        |a| {
            let idx: Vec<Option<Tensor>> = a.tensors(1)?.iter().cloned().map(Some).collect();
            index_put_(a.tensor(0)?, &idx, a.tensor(2)?, a.bool(3)?)?;
            Ok(Value::Receiver)
        }
    );
}
