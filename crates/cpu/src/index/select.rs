//! One index tensor along one dimension: `index_select` and its stores (embedding, `index_add`).

use super::elem::{Meet, check, meet_run, meeting, move_run};
use super::line::{self, Check, Steps, line};
use super::{BATCH, Bad, Batch, Indices, NOWHERE, Nest, beforehand, cost, wide};
use crate::by_size;
use crate::copy::stream;
use crate::pool::{chunks, parallel};
use crate::strided::Ptr;
use pyrite_core::backend::Scatter;
use pyrite_core::{Arr, Kind, Result, bail, match_dtype};

/// Results from here on are written past the caches.
const STREAM_BYTES: usize = 16 << 20;

/// What both directions share: `a` is the array with positions `0..k` along `dim`, `b` the indexed one.
struct Plan {
    /// All other dimensions, less the dense stretch.
    rest: Nest,
    run: usize,
    /// Strides of `a` and `b` along `dim`, of the index, and sizes of `idx` and of `b` along `dim`.
    sa: isize,
    sb: isize,
    si: isize,
    k: usize,
    size: usize,
}

fn plan(op: &str, a: &Arr, b: &Arr, idx: &Arr, dim: usize) -> Result<Plan> {
    let same = a.shape.len() == b.shape.len()
        && dim < a.shape.len()
        && (0..a.shape.len()).all(|d| d == dim || a.shape[d] == b.shape[d]);
    let k = idx.numel();
    if !same || idx.shape.len() > 1 || a.shape[dim] != k {
        bail!(
            Shape,
            "{op}: shapes {:?} and {:?} with an index of shape {:?} do not fit along dimension {dim}",
            a.shape,
            b.shape,
            idx.shape
        );
    }
    let of = |d: usize| (a.shape[d], [a.strides[d], b.strides[d]]);
    // Dense stretches may only be made of dimensions inside `dim`.
    let mut inner = Nest::new((dim + 1..a.shape.len()).map(of));
    let run = inner.pop_dense();
    let mut rest = Nest::new((0..dim).map(of));
    rest.dims.extend(inner.dims);
    Ok(Plan {
        rest,
        run,
        sa: a.strides[dim],
        sb: b.strides[dim],
        si: idx.strides.first().copied().unwrap_or(0),
        k,
        size: b.shape[dim],
    })
}

pub fn select(dst: Arr, src: Arr, idx: Arr, dim: usize) -> Result<()> {
    let op = "index_select";
    check(op, &dst, &src, Scatter::Set)?;
    let p = plan(op, &dst, &src, &idx, dim)?;
    let (ix, bad) = (Indices::new(op, &idx)?, Bad::new());
    let total = p.rest.len() * p.k;
    let size = dst.dtype.size();
    if p.run == 1 {
        return singles(&p, ix, bad, &dst, &src, dim);
    }
    let (n, each) = chunks(total, 1 + 2048 / p.run.max(1));
    // Rows that only pass through: beside the caches, where each starts at a line of its own.
    let bytes = p.run * size;
    let past = total * bytes >= STREAM_BYTES
        && bytes >= 512
        && bytes.is_multiple_of(64)
        && (dst.ptr as usize).is_multiple_of(64)
        && dst.strides.iter().all(|s| (s * size as isize).rem_euclid(64) == 0 || *s == 1);
    let (dst, src) = (Ptr(dst.ptr), Ptr(src.ptr));
    by_size!(size, |T| {
        parallel(n, cost(total, p.run * size), &|c| {
            let (d, s) = (dst.get().cast::<T>(), src.get().cast::<T>());
            let (mut i, end) = (c * each, total.min((c + 1) * each));
            let mut buf: Batch = [0; BATCH];
            wide(
                #[inline(always)]
                || {
                    while i < end {
                        let (row, first) = (i / p.k, i % p.k);
                        let [da, sb] = p.rest.offset(row);
                        let last = p.k.min(first + (end - i)).min(first + BATCH);
                        // SAFETY: positions of the index; offsets come from positions inside both arrays, the
                        // indexed one being checked here.
                        unsafe {
                            let m = last - first;
                            ix.read(first as isize * p.si, p.si, m, &mut buf);
                            let fine = bad.all(&mut buf[..m], p.size, dim, false);
                            let (d, s) = (d.offset(da + first as isize * p.sa), s.offset(sb));
                            for (j, &at) in buf[..m].iter().enumerate() {
                                if fine || at != NOWHERE {
                                    let (to, from) =
                                        (d.offset(j as isize * p.sa), s.offset(at as isize * p.sb));
                                    if past {
                                        stream(to.cast(), from.cast(), bytes);
                                    } else {
                                        move_run(to, 1, from, 1, p.run);
                                    }
                                }
                            }
                        }
                        i += last - first;
                    }
                },
            );
            if past {
                crate::simd::fence();
            }
        })
    });
    bad.result(op, Kind::Index)
}

/// `select` of single elements, row by row.
fn singles(p: &Plan, ix: Indices, bad: Bad, dst: &Arr, src: &Arr, dim: usize) -> Result<()> {
    let (rows, size) = (p.rest.len(), dst.dtype.size());
    let check = Check { bad: &bad, size: p.size, dim, wrap: false };
    // SAFETY: `plan` compared the index's length.
    let list = if rows > 1 { unsafe { line::list(ix, p.si, p.k, check) } } else { None };
    // Pieces of rows, so that one long row is shared too.
    let (parts, len) = if rows < 16 { chunks(p.k, 2048) } else { (1, p.k) };
    let jobs = rows * parts;
    let (n, each) = chunks(jobs, 1 + 2048 / len.max(1));
    let (d, s) = (Ptr(dst.ptr), Ptr(src.ptr));
    let t = Steps { a: p.sa, b: 0, along: p.sb, i: p.si };
    by_size!(size, |T| {
        parallel(n, cost(rows * p.k, size), &|c| {
            for job in c * each..jobs.min((c + 1) * each) {
                let [oa, ob] = p.rest.offset(job / parts);
                let from = job % parts * len;
                let m = len.min(p.k - from);
                // SAFETY: positions inside both arrays, the indexed one checked by `line`.
                unsafe {
                    let d = d.get().cast::<T>().offset(oa + from as isize * p.sa);
                    let s = s.get().cast::<T>().offset(ob);
                    match &list {
                        Some(at) if (p.sa, p.sb) == (1, 1) => spread(d, 1, s, 1, &at[from..from + m]),
                        Some(at) => spread(d, p.sa, s, p.sb, &at[from..from + m]),
                        None => line(
                            ix,
                            from as isize * p.si,
                            t,
                            m,
                            check,
                            s,
                            #[inline(always)]
                            |a, b| d.offset(a).write_unaligned(s.offset(b).read_unaligned()),
                        ),
                    }
                }
            }
        })
    });
    bad.result("index_select", Kind::Index)
}

/// `d[j] = s[at[j]]` for checked positions.
/// # Safety
/// All of them exist.
#[inline(always)]
unsafe fn spread<T: Copy>(d: *mut T, sd: isize, s: *const T, ss: isize, at: &[u32]) {
    for (j, at) in at.iter().enumerate() {
        // SAFETY: the caller's promise. Volatile keeps the compiler from gather instructions, which
        // take longer than single loads.
        unsafe {
            let at = std::ptr::from_ref(at).read_volatile() as isize;
            d.offset(j as isize * sd).write_unaligned(s.offset(at * ss).read_unaligned());
        }
    }
}

pub fn into(dst: Arr, src: Arr, idx: Arr, dim: usize, how: Scatter) -> Result<()> {
    let op = "index_put along a dimension";
    check(op, &dst, &src, how)?;
    let p = plan(op, &src, &dst, &idx, dim)?;
    beforehand::check(op, Kind::Index, &idx, p.size, dim, false)?;
    let (ix, bad) = (Indices::new(op, &idx)?, Bad::new());
    // Equal indices meet in one destination, so chunks are made of the other dimensions, or, where
    // those are few and rows long enough to pay for reading the index again, of ranges of
    // destinations. Inside a chunk the order is that of the index.
    let rows = p.rest.len();
    let parts = if rows < 16 { (p.run / 32).clamp(1, 8) } else { 1 };
    let (jobs, size) = (rows * parts, dst.dtype.size());
    let (n, each) = chunks(jobs, 1 + 2048 / (p.run * p.k / parts).max(1));
    let (d, s) = (Ptr(dst.ptr), Ptr(src.ptr));
    match_dtype!(all, dst.dtype, |T| {
        parallel(n, cost(rows * p.k, p.run * size), &|c| {
            let (d, s) = (d.get().cast::<T>(), s.get().cast::<T>());
            let mut buf: Batch = [0; BATCH];
            wide(
                #[inline(always)]
                || {
                    for job in c * each..jobs.min((c + 1) * each) {
                        let [so, to] = p.rest.offset(job / parts);
                        let part = job % parts;
                        let (from, end) = (p.size * part / parts, p.size * (part + 1) / parts);
                        let whole = parts == 1;
                        let mut j = 0;
                        while j < p.k {
                            let m = BATCH.min(p.k - j);
                            // SAFETY: as in `select`; no other chunk has these destinations.
                            unsafe {
                                ix.read(j as isize * p.si, p.si, m, &mut buf);
                                let fine = bad.all(&mut buf[..m], p.size, dim, false);
                                let (d, s) = (d.offset(to), s.offset(so + j as isize * p.sa));
                                if p.run == 1 && fine && whole {
                                    one_by_one(how, d, p.sb, s, p.sa, &buf[..m]);
                                } else {
                                    for (j, &at) in buf[..m].iter().enumerate() {
                                        if at != NOWHERE && (whole || (from..end).contains(&(at as usize))) {
                                            let to = d.offset(at as isize * p.sb);
                                            meet_run(how, to, 1, s.offset(j as isize * p.sa), 1, p.run);
                                        }
                                    }
                                }
                            }
                            j += m;
                        }
                    }
                },
            )
        })
    });
    bad.result(op, Kind::Index)
}

/// Single elements: `d[at] (op)= s[j]` in order.
/// # Safety
/// All of them exist.
#[inline(always)]
unsafe fn one_by_one<T: Meet>(how: Scatter, d: *mut T, sd: isize, s: *const T, ss: isize, idx: &[i64]) {
    macro_rules! each {
        ($f:expr) => {
            for (j, &at) in idx.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let to = d.offset(at as isize * sd);
                    to.write_unaligned($f(to.read_unaligned(), s.offset(j as isize * ss).read_unaligned()));
                }
            }
        };
    }
    match how {
        Scatter::Set => each!(|_, v| v),
        Scatter::Add => each!(T::add),
        _ => {
            let f = meeting::<T>(how);
            each!(f)
        }
    }
}
