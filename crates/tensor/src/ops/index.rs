//! Indexing along one dimension: select, gather, scatter, index_add and relatives, and the registry
//! entries of all indexing. Several index tensors at once are `advanced.rs`, Python's `x[...]` is
//! `getitem.rs`.

pub use super::advanced::{
    index, index_put, index_put_, masked_scatter, masked_select, nonzero, wrap_negative,
};
pub use super::getitem::{Idx, get, set};

use super::advanced::take;

use super::Operand;
use crate::autograd::{self, Save, inplace, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::{Index, Scatter};
use pyrite_core::layout::{broadcast, wrap_dim};
use pyrite_core::{DType, Dims, Result, Scalar, bail, ensure};
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
        autograd::attach("IndexSelectBackward0", &[t], &[&y], &[Save::Input(&idx1)], move |cx| {
            let g = cx.grad(0)?;
            let z = Tensor::zeros(&from, g.dtype(), g.device())?;
            Ok(smallvec![Some(index_add(&z, d as i64, cx.saved(0)?, &g, Scalar::Int(1))?)])
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

fn check_select_into(op: &str, t: &Tensor, dim: i64, idx: &Tensor, src: &Tensor) -> Result<usize> {
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

/// The in-place form: the kernel alone when nothing is recorded, else `copy_` of the recorded result.
fn in_place(
    op: &str,
    t: &Tensor,
    others: &[&Tensor],
    write: impl FnOnce(&Tensor) -> Result<()>,
    full: impl FnOnce() -> Result<Tensor>,
) -> Result<Value> {
    inplace::check(op, t)?;
    let mut all: SmallVec<[&Tensor; 4]> = smallvec![t];
    all.extend_from_slice(others);
    if needs_grad(&all) {
        super::copy_(t, &full()?)?;
    } else {
        for o in others {
            ensure!(
                !o.storage().same(t.storage())
                    || pyrite_core::plan::overlap(o.layout(), o.dtype().size(), t.layout(), t.dtype().size())
                        == pyrite_core::plan::Overlap::No,
                Runtime,
                "{op}: unsupported operation: some elements of the input tensor and the written-to tensor refer to a single memory location. Please clone() the tensor before performing the operation."
            );
        }
        write(t)?;
        t.storage().bump_version();
    }
    Ok(Value::Receiver)
}

pub fn index_add(t: &Tensor, dim: i64, idx: &Tensor, src: &Tensor, alpha: Scalar) -> Result<Tensor> {
    let d = check_select_into("index_add", t, dim, idx, src)?;
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

// ---- gather, scatter ------------------------------------------------------------------------------

pub fn gather(t: &Tensor, dim: i64, idx: &Tensor) -> Result<Tensor> {
    let d = wrap_dim("gather", dim, t.ndim())?;
    check_index_dtype("gather", idx)?;
    if idx.numel() == 0 {
        return Tensor::empty(idx.shape(), t.dtype(), t.device());
    }
    let (t1, idx1) = (at_least_1d(t)?, at_least_1d(idx)?);
    ensure!(
        t1.ndim() == idx1.ndim(),
        Runtime,
        "gather(): Index tensor must have the same number of dimensions as input tensor ({:?} and {:?})",
        idx.shape(),
        t.shape()
    );
    for k in 0..t1.ndim() {
        ensure!(
            k == d || idx1.shape()[k] <= t1.shape()[k],
            Shape,
            "gather(): Size does not match at dimension {k} expected index {:?} to be no larger than self {:?} apart from dimension {d}",
            idx.shape(),
            t.shape()
        );
    }
    let y = Tensor::empty(idx1.shape(), t.dtype(), t.device())?;
    t.backend()?.index(Index::Gather { dst: y.arr(), src: t1.arr(), idx: idx1.arr(), dim: d })?;
    if needs_grad(&[&t1]) {
        let from: Dims = t1.shape().into();
        autograd::attach("GatherBackward0", &[&t1], &[&y], &[Save::Input(&idx1)], move |cx| {
            let g = cx.grad(0)?;
            let z = Tensor::zeros(&from, g.dtype(), g.device())?;
            Ok(smallvec![Some(scatter(&z, d as i64, cx.saved(0)?, &g, Scatter::Add)?)])
        });
    }
    super::reshape_to(&y, idx.shape())
}

fn check_scatter(op: &str, t: &Tensor, dim: i64, idx: &Tensor, src: Option<&Tensor>) -> Result<usize> {
    let d = wrap_dim(op, dim, t.ndim())?;
    check_index_dtype(op, idx)?;
    if idx.numel() == 0 {
        return Ok(d);
    }
    if let Some(s) = src {
        same_dtype(op, t, s)?;
    }
    let dims = |t: &Tensor| t.ndim().max(1);
    ensure!(
        dims(idx) == dims(t) && src.is_none_or(|s| dims(s) == dims(t)),
        Runtime,
        "{op}(): Index tensor must have the same number of dimensions as self tensor and src (index {:?}, self {:?})",
        idx.shape(),
        t.shape()
    );
    for k in 0..idx.ndim() {
        let n = idx.shape()[k];
        ensure!(
            (k == d || n <= t.shape()[k]) && src.is_none_or(|s| n <= s.shape()[k]),
            Shape,
            "{op}(): Expected index {:?} to be no larger than self {:?} apart from dimension {d} and to be no larger size than src {:?}",
            idx.shape(),
            t.shape(),
            src.map(Tensor::shape)
        );
    }
    Ok(d)
}

/// `src` cut to the shape of `idx`: the rest of it is not used.
fn cut(src: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let mut s = at_least_1d(src)?;
    for (k, n) in shape.iter().enumerate() {
        if s.shape()[k] != *n {
            s = super::narrow(&s, k as i64, 0, *n as i64)?;
        }
    }
    Ok(s)
}

fn scatter_write(y: &Tensor, d: usize, idx: &Tensor, src: &Tensor, how: Scatter) -> Result<()> {
    if idx.numel() == 0 {
        return Ok(());
    }
    let (y, idx) = (at_least_1d(y)?, at_least_1d(idx)?);
    let src = cut(&src.detach(), idx.shape())?;
    y.backend()?.index(Index::Scatter { dst: y.arr(), src: src.arr(), idx: idx.arr(), dim: d, how })
}

pub fn scatter(t: &Tensor, dim: i64, idx: &Tensor, src: &Tensor, how: Scatter) -> Result<Tensor> {
    let name = if how == Scatter::Add { "scatter_add" } else { "scatter" };
    let d = check_scatter(name, t, dim, idx, Some(src))?;
    let y = on_copy(t, |y| scatter_write(y, d, idx, src, how))?;
    if needs_grad(&[t, src]) {
        ensure!(
            matches!(how, Scatter::Set | Scatter::Add),
            NotImplemented,
            "scatter: the derivative with reduce='multiply' is not implemented; use scatter_reduce or index arithmetic"
        );
        let from: Dims = src.shape().into();
        autograd::attach(
            if how == Scatter::Add { "ScatterAddBackward0" } else { "ScatterBackward0" },
            &[t, src],
            &[&y],
            &[Save::Input(idx)],
            move |cx| {
                let (g, idx) = (cx.grad(0)?, cx.saved(0)?);
                let dt = match (cx.needs(0), how) {
                    (false, _) => None,
                    (true, Scatter::Add) => Some(g.clone()),
                    (true, _) => Some(scatter_number(&g, d as i64, idx, Scalar::Int(0))?),
                };
                let ds = if cx.needs(1) {
                    let part = gather(&g, d as i64, idx)?;
                    Some(pad_to(&part, &from)?)
                } else {
                    None
                };
                Ok(smallvec![dt, ds])
            },
        );
    }
    Ok(y)
}

/// `t` in the corner of zeros of `shape`.
pub(super) fn pad_to(t: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if t.shape() == shape {
        return Ok(t.clone());
    }
    let mut out = t.clone();
    for (k, n) in shape.iter().enumerate() {
        let have = out.shape()[k];
        if have < *n {
            let mut s: Dims = out.shape().into();
            s[k] = n - have;
            out = super::shape::cat(&[out.clone(), Tensor::zeros(&s, t.dtype(), t.device())?], k as i64)?;
        }
    }
    Ok(out)
}

/// `scatter` of one number.
fn scatter_number(t: &Tensor, dim: i64, idx: &Tensor, value: Scalar) -> Result<Tensor> {
    let d = check_scatter("scatter", t, dim, idx, None)?;
    let one = Tensor::full(&[], value, t.dtype(), t.device())?;
    let y = on_copy(t, |y| scatter_write(y, d, idx, &super::expand_to(&one, idx.shape())?, Scatter::Set))?;
    if needs_grad(&[t]) {
        autograd::attach("ScatterBackward1", &[t], &[&y], &[Save::Input(idx)], move |cx| {
            Ok(smallvec![Some(scatter_number(&cx.grad(0)?, d as i64, cx.saved(0)?, Scalar::Int(0))?)])
        });
    }
    Ok(y)
}

fn reduce_kind(a: &Args, i: usize) -> Result<Scatter> {
    match a.str_opt(i)? {
        None => Ok(Scatter::Set),
        Some("add") => Ok(Scatter::Add),
        Some("multiply") => Ok(Scatter::Mul),
        Some(r) => bail!(Runtime, "reduce argument must be either add or multiply, got '{r}'"),
    }
}

/// `scatter` with its `src`-or-number argument.
fn scatter_args(a: &Args, t: &Tensor) -> Result<Tensor> {
    let (dim, idx, how) = (a.int(1)?, a.tensor(2)?, reduce_kind(a, 4)?);
    match a.operand(3)? {
        Operand::Tensor(s) => scatter(t, dim, idx, s, how),
        Operand::Number(v) if how == Scatter::Set => scatter_number(t, dim, idx, v),
        Operand::Number(v) => {
            let one = Tensor::full(&[], v, t.dtype(), t.device())?;
            scatter(t, dim, idx, &super::expand_to(&one, idx.shape())?, how)
        }
    }
}

/// The gradient of picking values at `idx` along `d` (max, sort, topk, ...): the picked places get
/// `g`, the others 0.
pub fn value_selecting_backward(
    g: &Tensor,
    d: usize,
    idx: &Tensor,
    shape: &[usize],
    keepdim: bool,
) -> Result<Tensor> {
    if shape.is_empty() {
        return Ok(g.clone());
    }
    let (g, idx) = if keepdim {
        (g.clone(), idx.clone())
    } else {
        (super::unsqueeze(g, d as i64)?, super::unsqueeze(idx, d as i64)?)
    };
    let z = Tensor::zeros(shape, g.dtype(), g.device())?;
    scatter(&z, d as i64, &idx, &g, Scatter::Set)
}

fn take_along_dim(t: &Tensor, idx: &Tensor, dim: Option<i64>) -> Result<Tensor> {
    let Some(dim) = dim else { return gather(&super::reshape(t, &[-1])?, 0, &super::reshape(idx, &[-1])?) };
    ensure!(
        t.ndim() == idx.ndim(),
        Runtime,
        "torch.take_along_dim(): input and indices should have the same number of dimensions, but got {} dimensions for input, and {} dimensions for indices",
        t.ndim(),
        idx.ndim()
    );
    let d = wrap_dim("take_along_dim", dim, t.ndim())?;
    let (mut a, mut b): (Dims, Dims) = (t.shape().into(), idx.shape().into());
    (a[d], b[d]) = (1, 1);
    let common = broadcast("take_along_dim", &a, &b)?;
    (a, b) = (common.clone(), common);
    (a[d], b[d]) = (t.shape()[d], idx.shape()[d]);
    gather(&super::expand_to(t, &a)?, dim, &super::expand_to(idx, &b)?)
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
                &[s],
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
            super::copy_(a.tensor(0)?, &index_copy(a.tensor(0)?, a.int(1)?, a.tensor(2)?, a.tensor(3)?)?)?;
            Ok(Value::Receiver)
        }
    );
    op!(
        list,
        "index_fill",
        FUNCTION | METHOD,
        "Fills the slices at the positions `index` along `dim` with a number.",
        "input: Tensor, dim: int, index: Tensor, value: Number",
        |a| Ok(index_fill(a.tensor(0)?, a.int(1)?, a.tensor(2)?, a.number(3)?)?.into())
    );
    op!(
        list,
        "index_fill_",
        METHOD,
        "In-place `index_fill`.",
        "input: Tensor, dim: int, index: Tensor, value: Number",
        |a| {
            super::copy_(a.tensor(0)?, &index_fill(a.tensor(0)?, a.int(1)?, a.tensor(2)?, a.number(3)?)?)?;
            Ok(Value::Receiver)
        }
    );
    op!(
        list,
        "gather",
        FUNCTION | METHOD | OUT,
        "Picks elements along `dim` at the positions of an index tensor.",
        "input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False",
        |a| {
            ensure!(!a.bool(3)?, NotImplemented, "gather: sparse_grad=True is not supported");
            Ok(gather(a.tensor(0)?, a.int(1)?, a.tensor(2)?)?.into())
        }
    );
    op!(list, "scatter", FUNCTION | METHOD | OUT, "Writes `src` (a tensor or number) along `dim` at the positions of an index tensor.",
        "input: Tensor, dim: int, index: Tensor, src: Operand, *, reduce: str? = None", |a| Ok(scatter_args(a, a.tensor(0)?)?.into());
        "input: Tensor, dim: int, index: Tensor, value: Operand, *, reduce: str? = None", |a| Ok(scatter_args(a, a.tensor(0)?)?.into()));
    op!(list, "scatter_", METHOD, "In-place `scatter`.",
        "input: Tensor, dim: int, index: Tensor, src: Operand, *, reduce: str? = None", |a| { super::copy_(a.tensor(0)?, &scatter_args(a, a.tensor(0)?)?)?; Ok(Value::Receiver) };
        "input: Tensor, dim: int, index: Tensor, value: Operand, *, reduce: str? = None", |a| { super::copy_(a.tensor(0)?, &scatter_args(a, a.tensor(0)?)?)?; Ok(Value::Receiver) });
    op!(
        list,
        "scatter_add",
        FUNCTION | METHOD | OUT,
        "Adds `src` along `dim` at the positions of an index tensor.",
        "input: Tensor, dim: int, index: Tensor, src: Tensor",
        |a| Ok(scatter(a.tensor(0)?, a.int(1)?, a.tensor(2)?, a.tensor(3)?, Scatter::Add)?.into())
    );
    op!(
        list,
        "scatter_add_",
        METHOD,
        "In-place `scatter_add`.",
        "input: Tensor, dim: int, index: Tensor, src: Tensor",
        |a| {
            let (t, i, s) = (a.tensor(0)?, a.tensor(2)?, a.tensor(3)?);
            let d = check_scatter("scatter_add_", t, a.int(1)?, i, Some(s))?;
            in_place(
                "scatter_add_",
                t,
                &[s],
                |y| scatter_write(y, d, i, s, Scatter::Add),
                || scatter(t, d as i64, i, s, Scatter::Add),
            )
        }
    );
    op!(
        list,
        "take_along_dim",
        FUNCTION | METHOD | OUT,
        "`gather` with broadcasting; flattened without `dim`.",
        "input: Tensor, indices: Tensor, dim: int? = None",
        |a| Ok(take_along_dim(a.tensor(0)?, a.tensor(1)?, a.int_opt(2)?)?.into())
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
            super::copy_(a.tensor(0)?, &masked_scatter(a.tensor(0)?, a.tensor(1)?, a.tensor(2)?)?)?;
            Ok(Value::Receiver)
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
