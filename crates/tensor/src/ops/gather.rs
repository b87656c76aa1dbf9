//! An index for every element along one dimension: `gather`, `scatter` and relatives.

use super::Operand;
use super::advanced::wrap_negative;
use super::index::{at_least_1d, check_index_dtype, in_place, on_copy, same_dtype};
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::{Index, Scatter};
use pyrite_core::layout::{broadcast, wrap_dim};
use pyrite_core::{DType, Dims, Result, Scalar, bail, ensure};
use smallvec::smallvec;

pub fn gather(t: &Tensor, dim: i64, idx: &Tensor) -> Result<Tensor> {
    let d = wrap_dim("gather", dim, t.ndim())?;
    if idx.numel() == 0 {
        // An empty index may have any dtype, as in PyTorch.
        let y = Tensor::empty(idx.shape(), t.dtype(), t.device())?;
        if needs_grad(&[t]) {
            let from: Dims = t.shape().into();
            autograd::attach("GatherBackward0", &[t], &[&y], &[], move |cx| {
                let g = cx.grad(0)?;
                Ok(smallvec![Some(Tensor::zeros(&from, g.dtype(), g.device())?)])
            });
        }
        return Ok(y);
    }
    check_index_dtype("gather", idx)?;
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
        autograd::attach_any("GatherBackward0", &[&t1], &[&y], &[Save::Input(&idx1)], move |cx| {
            let g = cx.grad(0)?;
            let z = Tensor::zeros(&cx.batched(&from), g.dtype(), g.device())?;
            let (dim, idx) = ((d + cx.lead()) as i64, in_batch(cx, cx.saved(0)?)?);
            Ok(smallvec![Some(scatter(&z, dim, &idx, &g, Scatter::Add)?)])
        });
    }
    super::reshape_to(&y, idx.shape())
}

pub(super) fn check_scatter(
    op: &str,
    t: &Tensor,
    dim: i64,
    idx: &Tensor,
    src: Option<&Tensor>,
) -> Result<usize> {
    let d = wrap_dim(op, dim, t.ndim())?;
    if idx.numel() == 0 {
        // An empty index may have any dtype, as in PyTorch.
        return Ok(d);
    }
    check_index_dtype(op, idx)?;
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
pub(super) fn cut(src: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let mut s = at_least_1d(src)?;
    for (k, n) in shape.iter().enumerate() {
        if s.shape()[k] != *n {
            s = super::narrow(&s, k as i64, 0, *n as i64)?;
        }
    }
    Ok(s)
}

pub(super) fn scatter_write(y: &Tensor, d: usize, idx: &Tensor, src: &Tensor, how: Scatter) -> Result<()> {
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
        autograd::attach_any(
            if how == Scatter::Add { "ScatterAddBackward0" } else { "ScatterBackward0" },
            &[t, src],
            &[&y],
            &[Save::Input(idx)],
            move |cx| {
                let (g, idx) = (cx.grad(0)?, in_batch(cx, cx.saved(0)?)?);
                let d = (d + cx.lead()) as i64;
                let dt = match (cx.needs(0), how) {
                    (false, _) => None,
                    (true, Scatter::Add) => Some(g.clone()),
                    (true, _) => Some(scatter_number(&g, d, &idx, Scalar::Int(0))?),
                };
                let ds = if cx.needs(1) {
                    let part = gather(&g, d, &idx)?;
                    Some(pad_to(&part, &cx.batched(&from))?)
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
pub(super) fn scatter_number(t: &Tensor, dim: i64, idx: &Tensor, value: Scalar) -> Result<Tensor> {
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
        Some(r) => bail!(Runtime, "reduce argument must be either add or multiply. (got '{r}')"),
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

fn scatter_in_place(a: &Args) -> Result<Value> {
    let (t, dim, idx, how) = (a.tensor(0)?, a.int(1)?, a.tensor(2)?, reduce_kind(a, 4)?);
    match a.operand(3)? {
        Operand::Tensor(s) => {
            let d = check_scatter("scatter", t, dim, idx, Some(s))?;
            in_place(
                "scatter_",
                t,
                &[idx, s],
                |y| scatter_write(y, d, idx, s, how),
                || scatter(t, dim, idx, s, how),
            )
        }
        Operand::Number(v) => {
            let d = check_scatter("scatter", t, dim, idx, None)?;
            let one = Tensor::full(&[], v, t.dtype(), t.device())?;
            in_place(
                "scatter_",
                t,
                &[idx],
                |y| scatter_write(y, d, idx, &super::expand_to(&one, idx.shape())?, how),
                || scatter_args(a, t),
            )
        }
    }
}

/// The gradient of picking values at `idx` along `d` (max, sort, topk, ...): the picked places get
/// `g`, the others 0.
pub fn value_selecting_backward(
    cx: &autograd::Ctx,
    d: usize,
    idx: &Tensor,
    shape: &[usize],
    keepdim: bool,
) -> Result<Tensor> {
    let g = cx.grad(0)?;
    if shape.is_empty() {
        return Ok(g);
    }
    let at = d + cx.lead();
    let (g, idx) = if keepdim {
        (g, idx.clone())
    } else {
        (super::unsqueeze(&g, at as i64)?, super::unsqueeze(idx, d as i64)?)
    };
    let z = Tensor::zeros(&cx.batched(shape), g.dtype(), g.device())?;
    scatter(&z, at as i64, &in_batch(cx, &idx)?, &g, Scatter::Set)
}

/// An index that every row of a batched gradient shares.
fn in_batch(cx: &autograd::Ctx, idx: &Tensor) -> Result<Tensor> {
    match cx.batch {
        None => Ok(idx.clone()),
        Some(_) => super::expand_to(idx, &cx.batched(idx.shape())),
    }
}

fn take_along_dim(t: &Tensor, idx: &Tensor, dim: Option<i64>) -> Result<Tensor> {
    ensure!(
        idx.dtype() == DType::I64,
        Runtime,
        "torch.take_along_dim(): dtype of indices should be Long but got {}",
        idx.dtype().name()
    );
    let Some(dim) = dim else {
        let flat = super::reshape(t, &[-1])?;
        let at = wrap_negative(&super::reshape(idx, &[-1])?, flat.numel())?;
        return gather(&flat, 0, &at);
    };
    ensure!(
        t.ndim() == idx.ndim(),
        Runtime,
        "torch.take_along_dim(): input and indices should have the same number of dimensions, but got {} dimensions for input, and {} dimensions for indices",
        t.ndim(),
        idx.ndim()
    );
    let d = wrap_dim("take_along_dim", dim, t.ndim())?;
    if t.ndim() == 0 {
        return gather(t, dim, &wrap_negative(idx, 1)?);
    }
    let (mut a, mut b): (Dims, Dims) = (t.shape().into(), idx.shape().into());
    (a[d], b[d]) = (1, 1);
    let common = broadcast("take_along_dim", &a, &b)?;
    (a, b) = (common.clone(), common);
    (a[d], b[d]) = (t.shape()[d], idx.shape()[d]);
    let at = wrap_negative(idx, t.shape()[d])?;
    gather(&super::expand_to(t, &a)?, dim, &super::expand_to(&at, &b)?)
}

pub fn register(list: &mut Vec<Op>) {
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
        "input: Tensor, dim: int, index: Tensor, src: Operand, *, reduce: str? = None", scatter_in_place;
        "input: Tensor, dim: int, index: Tensor, value: Operand, *, reduce: str? = None", scatter_in_place);
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
                &[i, s],
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
}
