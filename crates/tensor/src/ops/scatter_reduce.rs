//! `scatter_reduce` and `index_reduce`: values that meet at one place become their sum, product, mean
//! or extremum. Gradients follow PyTorch's: extrema share evenly, products leave out zeros.

use super::index::{
    at_least_1d, check_scatter, cut, gather, in_place, on_copy, scatter, scatter_number, scatter_write,
};
use super::{Operand, index::check_select_into};
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::Scatter;
use pyrite_core::{DType, Dims, Result, Scalar, bail, ensure};
use smallvec::{SmallVec, smallvec};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    Sum,
    Prod,
    Mean,
    Max,
    Min,
}

impl How {
    fn parse(op: &str, name: &str) -> Result<How> {
        Ok(match name {
            "sum" if op == "scatter_reduce" => How::Sum,
            "prod" => How::Prod,
            "mean" => How::Mean,
            "amax" => How::Max,
            "amin" => How::Min,
            r if op == "scatter_reduce" => {
                bail!(Runtime, "reduce argument must be either sum, prod, mean, amax or amin, got {r}")
            }
            r => {
                bail!(
                    Runtime,
                    "index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {r}."
                )
            }
        })
    }
    fn meeting(self) -> Scatter {
        match self {
            How::Sum | How::Mean => Scatter::Add,
            How::Prod => Scatter::Mul,
            How::Max => Scatter::Max,
            How::Min => Scatter::Min,
        }
    }
}

const ONE: Operand = Operand::Number(Scalar::Int(1));
const ZERO: Operand = Operand::Number(Scalar::Int(0));

/// How many values meet at each place, at least 1, as int64.
fn counts(shape: &[usize], d: usize, idx: &Tensor, include_self: bool) -> Result<Tensor> {
    let (int, device) = (DType::I64, idx.device());
    let start = Tensor::full(shape, Scalar::Int(include_self as i64), int, device)?;
    let one = Tensor::full(&[], Scalar::Int(1), int, device)?;
    scatter_write(&start, d, idx, &super::expand_to(&one, idx.shape())?, Scatter::Add)?;
    super::maximum(&start, &one)
}

/// The result without history, on `y` (a copy of self).
fn write(y: &Tensor, d: usize, idx: &Tensor, src: &Tensor, how: How, include_self: bool) -> Result<()> {
    if !include_self {
        // What a place starts from: nothing for sums, a value of its own for extrema.
        match how {
            How::Max | How::Min => scatter_write(y, d, idx, src, Scatter::Set)?,
            _ => {
                let v = if how == How::Prod { Scalar::Int(1) } else { Scalar::Int(0) };
                let v = Tensor::full(&[], v, y.dtype(), y.device())?;
                scatter_write(y, d, idx, &super::expand_to(&v, idx.shape())?, Scatter::Set)?;
            }
        }
    }
    scatter_write(y, d, idx, src, how.meeting())?;
    if how == How::Mean {
        let n = counts(y.shape(), d, idx, include_self)?;
        let mean = if y.dtype().is_int() {
            super::floor_divide(y, &n)?
        } else {
            super::div(y, &super::to_dtype(&n, y.dtype())?)?
        };
        super::copy_raw(y, &mean)?;
    }
    Ok(())
}

fn scatter_reduce(
    t: &Tensor,
    dim: i64,
    idx: &Tensor,
    src: &Tensor,
    how: How,
    include_self: bool,
) -> Result<Tensor> {
    let d = check_scatter("scatter_reduce", t, dim, idx, Some(src))?;
    ensure!(
        how != How::Mean || !t.dtype().is_bool(),
        NotImplemented,
        "\"scatter_reduce\" with reduce='mean' is not implemented for 'bool'"
    );
    if idx.numel() == 0 {
        return super::clone(t);
    }
    let shape: Dims = t.shape().into();
    // The unused rest of `src` is cut off by recorded views, so its gradient comes out as zeros.
    let (t, idx) = (at_least_1d(t)?, at_least_1d(idx)?);
    let src = cut(src, idx.shape())?;
    let y = on_copy(&t, |y| write(y, d, &idx, &src.detach(), how, include_self))?;
    if needs_grad(&[&t, &src]) {
        let mut saves: SmallVec<[Save; 4]> = smallvec![Save::Input(&idx)];
        if how == How::Mean {
            // Only its shape is wanted.
        } else if how != How::Sum {
            saves.extend([Save::Input(&t), Save::Input(&src), Save::Output(0)]);
        }
        autograd::attach("ScatterReduceBackward0", &[&t, &src], &[&y], &saves, move |cx| {
            let (g, idx) = (cx.grad(0)?, cx.saved(0)?.clone());
            let dim = d as i64;
            let pick = |t: &Tensor| gather(t, dim, &idx);
            let (gt, gs) = match how {
                How::Sum => (g.clone(), pick(&g)?),
                How::Mean => {
                    let n = counts(g.shape(), d, &idx, include_self)?;
                    let g = super::div(&g, &super::to_dtype(&n, g.dtype())?)?;
                    (g.clone(), pick(&g)?)
                }
                How::Prod => {
                    let (t, src, y) = (cx.saved(1)?.clone(), cx.saved(2)?.clone(), cx.saved(3)?.clone());
                    prod_backward(&g, &t, d, &idx, &src, &y, include_self)?
                }
                How::Max | How::Min => {
                    let (t, src, y) = (cx.saved(1)?.detach(), cx.saved(2)?.detach(), cx.saved(3)?.detach());
                    let at_t = super::to_dtype(&super::eq(&t, &y)?, g.dtype())?;
                    let at_src = super::to_dtype(&super::eq(&src, &pick(&y)?)?, g.dtype())?;
                    let start = if include_self {
                        at_t.clone()
                    } else {
                        Tensor::zeros(t.shape(), g.dtype(), g.device())?
                    };
                    let n = scatter(&start, dim, &idx, &at_src, Scatter::Add)?;
                    // Places nobody wrote to: self alone counts, or nothing does.
                    let n = super::masked_fill(&n, &super::eq(&n, ZERO)?, ONE)?;
                    let each = super::div(&g, &n)?;
                    let gt = if include_self { super::mul(&at_t, &each)? } else { g.clone() };
                    (gt, super::mul(&at_src, &pick(&each)?)?)
                }
            };
            let gt = if cx.needs(0) && !include_self {
                scatter_number(&gt, dim, &idx, Scalar::Int(0))?
            } else {
                gt
            };
            Ok(smallvec![cx.needs(0).then_some(gt), cx.needs(1).then_some(gs)])
        });
    }
    super::reshape_to(&y, &shape)
}

/// `g * product / factor`, and where the factor is the only 0 of its place the product of the others.
fn prod_backward(
    g: &Tensor,
    t: &Tensor,
    d: usize,
    idx: &Tensor,
    src: &Tensor,
    y: &Tensor,
    include_self: bool,
) -> Result<(Tensor, Tensor)> {
    let dim = d as i64;
    let pick = |t: &Tensor| gather(t, dim, idx);
    let zero_t = super::eq(&t.detach(), ZERO)?;
    let whole_t = super::masked_fill(t, &zero_t, ONE)?;
    let others = scatter_reduce(&whole_t, dim, idx, src, How::Prod, include_self)?;
    let gt = super::div(&super::mul(g, &others)?, &whole_t)?;
    let zero = super::eq(&src.detach(), ZERO)?;
    let start = Tensor::zeros(t.shape(), DType::I64, t.device())?;
    let zeros = scatter(&start, dim, idx, &super::to_dtype(&zero, DType::I64)?, Scatter::Add)?;
    let only = super::logical_and(&zero, &super::eq(&pick(&zeros)?, ONE)?)?;
    let rest = scatter_reduce(t, dim, idx, &super::masked_fill(src, &only, ONE)?, How::Prod, include_self)?;
    let plain = super::div(&pick(&super::mul(g, y)?)?, &super::masked_fill(src, &zero, ONE)?)?;
    Ok((gt, super::where_(&only, &pick(&super::mul(g, &rest)?)?, &plain)?))
}

/// A vector of positions along `d` as an index of the shape of `src`.
fn spread_index(idx: &Tensor, d: usize, src: &Tensor) -> Result<Tensor> {
    let mut shape: SmallVec<[i64; 6]> = smallvec![1; src.ndim()];
    shape[d] = -1;
    super::expand_to(&super::reshape(idx, &shape)?, src.shape())
}

fn index_reduce(
    t: &Tensor,
    dim: i64,
    idx: &Tensor,
    src: &Tensor,
    how: How,
    include_self: bool,
) -> Result<Tensor> {
    let d = check_select_into("index_reduce", t, dim, idx, src)?;
    ensure!(!t.dtype().is_bool(), NotImplemented, "\"index_reduce\" is not implemented for 'bool'");
    if t.ndim() == 0 {
        let y = index_reduce(&at_least_1d(t)?, 0, &at_least_1d(idx)?, &at_least_1d(src)?, how, include_self)?;
        return super::reshape(&y, &[]);
    }
    let src = at_least_1d(src)?;
    scatter_reduce(t, d as i64, &spread_index(&at_least_1d(idx)?, d, &src)?, &src, how, include_self)
}

type Plain = fn(&Tensor, i64, &Tensor, &Tensor, How, bool) -> Result<Tensor>;

fn run(a: &Args, name: &str, f: Plain) -> Result<Value> {
    let how = How::parse(name, a.str(4)?)?;
    Ok(f(a.tensor(0)?, a.int(1)?, a.tensor(2)?, a.tensor(3)?, how, a.bool(5)?)?.into())
}

fn run_in_place(a: &Args, name: &str, f: Plain) -> Result<Value> {
    let (t, dim, idx, src, inc) = (a.tensor(0)?, a.int(1)?, a.tensor(2)?, a.tensor(3)?, a.bool(5)?);
    let how = How::parse(name, a.str(4)?)?;
    let op = format!("{name}_");
    in_place(
        &op,
        t,
        &[idx, src],
        |y| super::copy_raw(y, &f(&t.detach(), dim, idx, &src.detach(), how, inc)?),
        // Its backward reads the old values.
        || f(&super::clone(t)?, dim, idx, src, how, inc),
    )
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "scatter_reduce",
        FUNCTION | METHOD | OUT,
        "Reduces `src` along `dim` into the positions of an index tensor: reduce is 'sum', 'prod', 'mean', 'amax' or 'amin'. Without `include_self` the old values at those positions do not count.",
        "input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True",
        |a| run(a, "scatter_reduce", scatter_reduce)
    );
    op!(
        list,
        "scatter_reduce_",
        METHOD,
        "In-place `scatter_reduce`.",
        "input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True",
        |a| run_in_place(a, "scatter_reduce", scatter_reduce)
    );
    op!(
        list,
        "index_reduce",
        FUNCTION | METHOD | OUT,
        "Reduces `source`'s slices into the positions `index` (a vector) along `dim`: reduce is 'prod', 'mean', 'amax' or 'amin'.",
        "input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True",
        |a| run(a, "index_reduce", index_reduce)
    );
    op!(
        list,
        "index_reduce_",
        METHOD,
        "In-place `index_reduce`.",
        "input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True",
        |a| run_in_place(a, "index_reduce", index_reduce)
    );
}
