//! Distinct elements: `unique`, `unique_consecutive`, of the flattened tensor or of slices.

use super::order::sorted_values;
use crate::autograd;
use crate::op;
use crate::registry::{Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::{Index, Order, Scatter};
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Device, Dims, Result, Scalar, bail, ensure};

/// What is asked for.
#[derive(Clone, Copy)]
struct Want {
    sorted: bool,
    inverse: bool,
    counts: bool,
}

/// Which neighbours along dimension 0 differ: [n - 1] bools. NaN differs from NaN.
fn changes(x: &Tensor) -> Result<Tensor> {
    let n = x.shape()[0] as i64;
    let (a, b) = (super::narrow(x, 0, 1, n - 1)?, super::narrow(x, 0, 0, n - 1)?);
    let ne = super::ne(&a, &b)?;
    if x.ndim() == 1 {
        return Ok(ne);
    }
    let bytes = super::to_dtype(&ne, DType::U8)?;
    super::to_dtype(&super::reduce::amax(&super::flatten(&bytes, 1, -1)?, Some(&[1]), false)?, DType::Bool)
}

/// Positions at which a new run starts, from where runs differ.
fn starts(change: &Tensor) -> Result<Tensor> {
    let at = super::reshape(&super::index::nonzero(change)?, &[-1])?;
    let zero = Tensor::zeros(&[1], DType::I64, at.device())?;
    super::shape::cat(&[zero, super::add(&at, super::Operand::Number(Scalar::Int(1)))?], 0)
}

/// The run of each position.
fn runs(change: &Tensor, n: usize) -> Result<Tensor> {
    let run = Tensor::zeros(&[n], DType::I64, change.device())?;
    let tail = super::scan_sort::cumsum(change, 0, Some(DType::I64))?;
    super::copy_raw(&super::narrow(&run, 0, 1, n as i64 - 1)?, &tail)?;
    Ok(run)
}

/// What positions after sorting have, sent back to where the elements came from.
fn sent_back(run: Tensor, perm: Option<&Tensor>) -> Result<Tensor> {
    let Some(perm) = perm else { return Ok(run) };
    let back = Tensor::empty(run.shape(), DType::I64, run.device())?;
    back.backend()?.index(Index::SelectInto {
        dst: back.arr(),
        src: run.arr(),
        idx: perm.arr(),
        dim: 0,
        how: Scatter::Set,
    })?;
    Ok(back)
}

fn lengths(starts: &Tensor, n: usize) -> Result<Tensor> {
    let end = Tensor::full(&[1], Scalar::Int(n as i64), DType::I64, starts.device())?;
    let k = starts.shape()[0] as i64;
    let ends = super::shape::cat(&[super::narrow(starts, 0, 1, k - 1)?, end], 0)?;
    super::sub(&ends, starts)
}

fn answer(w: Want, values: Tensor, inverse: Option<Tensor>, counts: Option<Tensor>) -> Value {
    if !w.inverse && !w.counts {
        return values.into();
    }
    Value::Tuple([Some(values), inverse, counts].into_iter().flatten().collect())
}

/// Integers that span a short range, by counting instead of sorting: the distinct values, the place of each
/// element among them, and how often each occurs. `None`: not such.
fn counted(x: &Tensor, w: Want) -> Result<Option<[Option<Tensor>; 3]>> {
    let (n, dtype, device) = (x.numel(), x.dtype(), x.device());
    let narrow = matches!(dtype, DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U8);
    if !narrow || n < 4096 {
        return Ok(None);
    }
    let end = |t: Tensor| -> Result<i128> { Ok(t.item()?.i64() as i128) };
    let (lo, hi) = (end(super::reduce::amin(x, None, false)?)?, end(super::reduce::amax(x, None, false)?)?);
    // Random places in a table larger than the nearest caches cost what sorting costs.
    let span = hi - lo + 1;
    if span > (n as i128 / 4).min(1 << 20) {
        return Ok(None);
    }
    let (span, lo) = (span as usize, super::Operand::Number(Scalar::Int(lo as i64)));
    let at = super::sub(&super::to_dtype(x, DType::I64)?, lo)?;
    let often = super::bins::count(&at, None, span, DType::I64)?;
    let present = super::reshape(&super::index::nonzero(&often)?, &[-1])?;
    let values = super::to_dtype(&super::add(&present, lo)?, dtype)?;
    let inverse = if w.inverse {
        let k = present.numel();
        let table = Tensor::zeros(&[span], DType::I64, device)?;
        let place =
            super::create::arange(Scalar::Int(0), Scalar::Int(k as i64), Scalar::Int(1), DType::I64, device)?;
        let (dst, src, idx) = (table.arr(), place.arr(), present.arr());
        table.backend()?.index(Index::SelectInto { dst, src, idx, dim: 0, how: Scatter::Set })?;
        Some(super::index::index_select(&table, 0, &at)?)
    } else {
        None
    };
    let counts = if w.counts { Some(super::index::index_select(&often, 0, &present)?) } else { None };
    Ok(Some([Some(values), inverse, counts]))
}

/// The first `k` elements of a vector that was made for more.
fn first(t: &Tensor, k: usize) -> Result<Tensor> {
    // The rest is not worth a copy, unless it is most of the memory.
    if k > t.numel() / 2 { super::resize(t, &[k]) } else { super::clone(&super::narrow(t, 0, 0, k as i64)?) }
}

/// `flat` of the dense, not empty vector `x` on the CPU, in whose order equal elements are neighbours.
fn in_one_pass(t: &Tensor, x: &Tensor, perm: Option<&Tensor>, w: Want) -> Result<Value> {
    let n = x.numel();
    let positions = |wanted: bool| wanted.then(|| Tensor::empty(&[n], DType::I64, x.device())).transpose();
    let values = Tensor::empty(&[n], x.dtype(), x.device())?;
    let (counts, run) = (positions(w.counts)?, positions(w.inverse)?);
    let (c, r) = (counts.as_ref().map(Tensor::arr), run.as_ref().map(Tensor::arr));
    let k = pyrite_cpu::runs::runs(x.arr(), values.arr(), c, r)?;
    let inverse = run.map(|r| super::reshape_to(&sent_back(r, perm)?, t.shape())).transpose()?;
    let counts = counts.map(|c| first(&c, k)).transpose()?;
    Ok(answer(w, first(&values, k)?, inverse, counts))
}

fn flat(t: &Tensor, w: Want) -> Result<Value> {
    let x = super::contiguous(&super::reshape(&t.detach(), &[-1])?)?;
    let n = x.numel();
    let none = || Tensor::empty(&[0], DType::I64, t.device());
    if n == 0 {
        let inverse = if w.inverse { Some(Tensor::empty(t.shape(), DType::I64, t.device())?) } else { None };
        return Ok(answer(w, x, inverse, if w.counts { Some(none()?) } else { None }));
    }
    if w.sorted
        && let Some([Some(values), inverse, counts]) = counted(&x, w)?
    {
        let inverse = inverse.map(|i| super::reshape_to(&i, t.shape())).transpose()?;
        return Ok(answer(w, values, inverse, counts));
    }
    let (x, perm) = match (w.sorted, w.inverse) {
        (true, true) => {
            let mut s = super::scan_sort::sort(&x, 0, false)?;
            let perm = s.pop();
            (s.swap_remove(0), perm)
        }
        (true, false) => (sorted_values(&x)?, None),
        (false, _) => (x, None),
    };
    if x.device() == Device::Cpu {
        return in_one_pass(t, &x, perm.as_ref(), w);
    }
    let change = changes(&x)?;
    let first = super::narrow(&x, 0, 0, 1)?;
    let others = super::index::masked_select(&super::narrow(&x, 0, 1, n as i64 - 1)?, &change)?;
    let values = super::shape::cat(&[first, others], 0)?;
    let inverse = match w.inverse {
        true => Some(super::reshape_to(&sent_back(runs(&change, n)?, perm.as_ref())?, t.shape())?),
        false => None,
    };
    let counts = if w.counts { Some(lengths(&starts(&change)?, n)?) } else { None };
    Ok(answer(w, values, inverse, counts))
}

fn slices(t: &Tensor, dim: i64, w: Want) -> Result<Value> {
    let d = wrap_dim("unique", dim, t.ndim())?;
    let t1 = super::index::at_least_1d(&t.detach())?;
    let n = t1.shape()[d];
    let empty = t1.shape().iter().filter(|s| **s == 0).count();
    if empty > 0 {
        ensure!(
            n == 0 && empty == 1,
            Runtime,
            "There are 0 sized dimensions, and they aren't selected, so unique cannot be applied (shape {:?}, dim {d})",
            t.shape()
        );
        let none = || Tensor::empty(&[0], DType::I64, t.device());
        let (i, c) = (none()?, none()?);
        return Ok(answer(w, t.detach(), w.inverse.then_some(i), w.counts.then_some(c)));
    }
    let moved = super::contiguous(&super::movedim(&t1, &[d as i64], &[0])?)?;
    let m = moved.numel() / n;
    let rows = super::reshape(&moved, &[n as i64, m as i64])?;
    let (rows, perm) = if w.sorted {
        let perm = Tensor::empty(&[n], DType::I64, t.device())?;
        t.backend()?.order(Order::Rows { idx: perm.arr(), src: rows.arr() })?;
        (super::index::index_select(&rows, 0, &perm)?, Some(perm))
    } else {
        (rows, None)
    };
    let change = changes(&rows)?;
    let begin = starts(&change)?;
    let kept = super::index::index_select(&rows, 0, &begin)?;
    let mut shape: Dims = moved.shape().into();
    shape[0] = begin.numel();
    let values = super::movedim(&super::reshape_to(&kept, &shape)?, &[0], &[d as i64])?;
    let inverse = if w.inverse { Some(sent_back(runs(&change, n)?, perm.as_ref())?) } else { None };
    let counts = if w.counts { Some(lengths(&begin, n)?) } else { None };
    Ok(answer(w, super::contiguous(&values)?, inverse, counts))
}

fn unique(t: &Tensor, w: Want, dim: Option<i64>) -> Result<Value> {
    ensure!(
        !t.dtype().is_complex(),
        NotImplemented,
        "\"unique\" is not implemented for '{}'",
        t.dtype().name()
    );
    let value = match dim {
        None => flat(t, w),
        Some(d) => slices(t, d, w),
    }?;
    if autograd::needs_grad(&[t]) {
        // Better an error in backward than a gradient that lacks this part.
        let values = match &value {
            Value::Tensor(y) => Some(y),
            Value::Tuple(l) | Value::Named(_, _, l) => l.first(),
            _ => None,
        };
        if let Some(y) = values {
            autograd::attach("UniqueBackward0", &[t], &[y], &[], |_| {
                bail!(NotImplemented, "the derivative for 'unique' is not implemented")
            });
        }
    }
    Ok(value)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "unique",
        FUNCTION | METHOD,
        "The distinct elements in ascending order (sorted or not), or the distinct slices along `dim`; on request the position of each input in them and how often each occurs.",
        "input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int? = None",
        |a| {
            // Sorting is how they are found, so `sorted=False` gets them sorted too.
            a.bool(1)?;
            let w = Want { sorted: true, inverse: a.bool(2)?, counts: a.bool(3)? };
            unique(a.tensor(0)?, w, a.int_opt(4)?)
        }
    );
    op!(
        list,
        "unique_consecutive",
        FUNCTION | METHOD,
        "As `unique`, but only neighbours that are equal become one.",
        "input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int? = None",
        |a| {
            let w = Want { sorted: false, inverse: a.bool(1)?, counts: a.bool(2)? };
            unique(a.tensor(0)?, w, a.int_opt(3)?)
        }
    );
}
