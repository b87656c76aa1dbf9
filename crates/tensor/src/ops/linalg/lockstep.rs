//! Tensors to the kernels for small real matrices, which take many at a time. Nothing here is differentiable.

use super::kernel::{element, empty};
use super::*;
use pyrite_cpu::lockstep::{self as wide, Batch, Ints};
use pyrite_cpu::strided::uniform;
use pyrite_linalg::{Failure, Outcome};

/// Are these matrices for the kernels here?
pub(super) fn suits(t: &Tensor) -> bool {
    let (m, n) = rows_cols(t);
    let small = |k: usize| (1..=wide::MOST).contains(&k);
    t.device() == Device::Cpu
        && matches!(t.dtype(), DType::F32 | DType::F64)
        && small(m)
        && small(n)
        && t.numel() > 0
}

/// Is a batch large enough for algorithms that take more steps than those for one matrix?
pub(super) fn many(t: &Tensor) -> bool {
    count(t) >= 4
}

fn count(t: &Tensor) -> usize {
    batch_of(t).iter().product()
}

/// `t` where it is evenly spaced, else a copy; and its matrices.
fn source(t: &Tensor) -> Result<(Tensor, Batch)> {
    let t = t.detach();
    let d = t.ndim() - 2;
    let t = if uniform(&t.shape()[..d], &t.strides()[..d]).is_some() { t } else { ops::contiguous(&t)? };
    let b = matrices(&t);
    Ok((t, b))
}

fn matrices(t: &Tensor) -> Batch {
    let (d, s) = (t.ndim() - 2, t.strides());
    let step = uniform(&t.shape()[..d], &s[..d]).unwrap_or(0);
    Batch { ptr: t.ptr(), step, rs: s[d], cs: s[d + 1] }
}

/// A new tensor of matrices by columns without gaps.
fn result(like: &Tensor, m: usize, n: usize) -> Result<(Tensor, Batch)> {
    let t = empty(batch_of(like), m, n, like, like.dtype())?;
    // Said in full, since the strides of a single matrix or column say less.
    let b = Batch { ptr: t.ptr(), step: (m * n) as isize, rs: 1, cs: m as isize };
    Ok((t, b))
}

/// A new tensor of vectors.
fn vectors(like: &Tensor, n: usize) -> Result<(Tensor, Batch)> {
    let t = Tensor::empty(&joined(batch_of(like), &[n]), like.dtype(), like.device())?;
    let b = Batch { ptr: t.ptr(), step: n as isize, rs: 1, cs: 1 };
    Ok((t, b))
}

fn ints(like: &Tensor, tail: &[usize]) -> Result<(Tensor, Ints)> {
    let t = Tensor::empty(&joined(batch_of(like), tail), DType::I32, like.device())?;
    let p = Ints(t.ptr().cast());
    Ok((t, p))
}

/// What [`lu`] gives: packed factors and pivots (if asked for), solutions (if there are right sides), info.
pub(super) struct Lu {
    pub factors: Option<(Tensor, Tensor)>,
    pub x: Option<Tensor>,
    pub info: Tensor,
}

/// The right sides of a system.
pub(super) enum Sides<'a> {
    None,
    Identity,
    Given(&'a Tensor),
}

impl Sides<'_> {
    pub(super) fn suit(&self) -> bool {
        match self {
            Sides::Given(b) => (1..=wide::MOST_SIDES).contains(&rows_cols(b).1),
            _ => true,
        }
    }
}

/// LU, and systems with it: [`suits`] for `a`; `b` of the same batch and dtype suits, too.
pub(super) fn lu(a: &Tensor, b: Sides, keep: bool) -> Result<Lu> {
    let (m, n) = rows_cols(a);
    let (src, from) = source(a)?;
    let (info, to_info) = ints(a, &[])?;
    let factors = match keep {
        true => Some((result(a, m, n)?, ints(a, &[m.min(n)])?)),
        false => None,
    };
    let right = match &b {
        Sides::None => None,
        Sides::Identity => Some((None, n)),
        Sides::Given(b) => Some((Some(source(b)?), rows_cols(b).1)),
    };
    let x = match &right {
        Some((_, cols)) => Some(result(a, n, *cols)?),
        None => None,
    };
    let sides = match (&right, &x) {
        (Some((b, cols)), Some(x)) => Some(wide::Right { b: b.as_ref().map(|b| b.1), cols: *cols, x: x.1 }),
        _ => None,
    };
    let kept = factors.as_ref().map(|(f, p)| wide::Factors { lu: f.1, pivots: p.1 });
    // SAFETY: the sizes were looked at by the caller; results are ours, and sources live until the end of this.
    unsafe { wide::lu(src.dtype(), count(a), (m, n), from, kept, sides, to_info) }?;
    Ok(Lu { factors: factors.map(|(f, p)| (f.0, p.0)), x: x.map(|x| x.0), info })
}

/// Q (m x `q_cols`) and R (`q_cols` x n, or min(m, n) rows without Q).
pub(super) fn qr(a: &Tensor, q_cols: usize, want_q: bool) -> Result<(Option<Tensor>, Tensor)> {
    let (m, n) = rows_cols(a);
    let (src, from) = source(a)?;
    let q = if want_q { Some(result(a, m, q_cols)?) } else { None };
    let (r, to_r) = result(a, q_cols, n)?;
    let to_q = q.as_ref().map(|q| (q.1, q_cols));
    // SAFETY: as for `lu`.
    unsafe { wide::qr(src.dtype(), count(a), (m, n), from, to_q, (to_r, q_cols)) }?;
    Ok((q.map(|q| q.0), r))
}

fn outcome(status: i32) -> Outcome<usize> {
    match status {
        wide::DONE => Ok(0),
        wide::NOT_FINITE => Err(Failure::NotFinite),
        _ => Err(Failure::NotConverged),
    }
}

/// Eigenvalues and vectors, and what became of each matrix.
pub(super) type Eigen = (Tensor, Option<Tensor>, Vec<Outcome<usize>>);

pub(super) fn eigh(a: &Tensor, want: bool) -> Result<Eigen> {
    let n = rows_cols(a).0;
    let (src, from) = source(a)?;
    let (w, to_w) = vectors(a, n)?;
    let v = if want { Some(result(a, n, n)?) } else { None };
    let (status, to_status) = ints(a, &[])?;
    // SAFETY: as for `lu`.
    unsafe { wide::eigh(src.dtype(), count(a), n, from, to_w, v.as_ref().map(|v| v.1), to_status) }?;
    Ok((w, v.map(|v| v.0), status.to_vec::<i32>()?.into_iter().map(outcome).collect()))
}

pub(super) fn singular_values(a: &Tensor) -> Result<(Tensor, Vec<Outcome<usize>>)> {
    let (m, n) = rows_cols(a);
    let (src, from) = source(a)?;
    let (s, to_s) = vectors(a, m.min(n))?;
    let (status, to_status) = ints(a, &[])?;
    // SAFETY: as for `lu`.
    unsafe { wide::singular_values(src.dtype(), count(a), (m, n), from, to_s, to_status) }?;
    Ok((s, status.to_vec::<i32>()?.into_iter().map(outcome).collect()))
}

/// The first matrix of the batch whose `info` is not 0, as an error's words name it, and that number.
pub(super) fn first_failure(info: &Tensor) -> Result<Option<(String, i32)>> {
    let list = info.to_vec::<i32>()?;
    Ok(list.iter().position(|v| *v != 0).map(|i| (element(info.shape(), i), list[i])))
}
