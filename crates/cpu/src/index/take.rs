//! Advanced indexing: one index tensor for each of the leading dimensions.

use super::elem::{Meet, check, meet_run, meeting, move_run};
use super::line::{Check, Steps, line};
use super::{BATCH, Bad, Batch, Indices, NOWHERE, Nest, beforehand, cost, wide};
use crate::by_size;
use crate::pool::{chunks, parallel};
use crate::strided::{Ptr, for_runs, uniform};
use pyrite_core::backend::Scatter;
use pyrite_core::{Arr, Kind, Result, bail, match_dtype};
use smallvec::SmallVec;

/// `a`: [index shape, rest]; `b`: [indexed dimensions, rest].
struct Plan<'a> {
    dims: &'a [usize],
    idx: SmallVec<[(Indices, &'a Arr<'a>, usize, isize); 4]>,
    lead: &'a [usize],
    lead_strides: &'a [isize],
    positions: usize,
    rest: Nest,
    run: usize,
}

fn plan<'a>(
    op: &str,
    a: &'a Arr<'a>,
    b: &'a Arr<'a>,
    idx: &'a [Arr<'a>],
    dims: &'a [usize],
) -> Result<Plan<'a>> {
    let k = idx.len();
    let lead = idx.first().map_or(&[][..], |i| i.shape);
    let m = lead.len();
    let fits = k > 0
        && k <= b.shape.len()
        && idx.iter().all(|i| i.shape == lead)
        && a.shape.len() == m + b.shape.len() - k
        && a.shape[..m] == *lead
        && a.shape[m..] == b.shape[k..];
    if !fits {
        bail!(Shape, "{op}: shapes {:?} and {:?} do not fit {k} indices of shape {lead:?}", a.shape, b.shape);
    }
    let mut rest = Nest::new((k..b.shape.len()).map(|d| (b.shape[d], [a.strides[m + d - k], b.strides[d]])));
    let run = rest.pop_dense();
    let mut list = SmallVec::new();
    for (d, i) in idx.iter().enumerate() {
        list.push((Indices::new(op, i)?, i, b.shape[d], b.strides[d]));
    }
    Ok(Plan {
        dims,
        idx: list,
        lead,
        lead_strides: &a.strides[..m],
        positions: lead.iter().product(),
        rest,
        run,
    })
}

/// Marks a position with a bad index.
const OUTSIDE: isize = isize::MIN;

impl Plan<'_> {
    /// Offsets in `a` and `b` of `n <= BATCH` positions from `start` on.
    fn offsets(&self, start: usize, n: usize, bad: &Bad, out: &mut [[isize; 2]; BATCH]) {
        let mut k = 0;
        for_runs(self.lead, self.lead_strides, start, n, |off, stride, len| {
            for j in 0..len {
                out[k + j] = [off + j as isize * stride, 0];
            }
            k += len;
        });
        let mut buf: Batch = [0; BATCH];
        for (d, &(ix, arr, size, step)) in self.idx.iter().enumerate() {
            let mut k = 0;
            for_runs(arr.shape, arr.strides, start, n, |off, stride, len| {
                // SAFETY: runs stay inside the index tensor, and are no longer than the batch.
                unsafe { ix.read(off, stride, len, &mut buf) };
                let dim = self.dims.get(d).copied().unwrap_or(d);
                let fine = bad.all(&mut buf[..len], size, dim, true);
                for (o, &at) in out[k..k + len].iter_mut().zip(&buf[..len]) {
                    let to = &mut o[1];
                    if fine || at != NOWHERE {
                        // A marked one stays far outside, whatever is added to it.
                        *to = if *to == OUTSIDE { OUTSIDE } else { *to + at as isize * step };
                    } else {
                        *to = OUTSIDE;
                    }
                }
                k += len;
            });
        }
    }
}

/// One index tensor, its positions and the array's evenly spaced, single elements: no offsets to keep.
struct Simple {
    ix: Indices,
    size: usize,
    dim: usize,
    /// Steps of the index, of `a` along the positions and of `b` along the indexed dimension.
    steps: [isize; 3],
}

impl Plan<'_> {
    fn simple(&self) -> Option<Simple> {
        let [(ix, arr, size, step)] = self.idx[..] else { return None };
        if self.run != 1 || self.rest.len() != 1 {
            return None;
        }
        let steps = [uniform(arr.shape, arr.strides)?, uniform(self.lead, self.lead_strides)?, step];
        Some(Simple { ix, size, dim: self.dims.first().copied().unwrap_or(0), steps })
    }
}

impl Simple {
    /// Calls `f(offset in a, offset in b)` for positions `i..end`; `b` is the indexed array.
    #[inline(always)]
    fn each<T>(&self, i: usize, end: usize, bad: &Bad, b: *const T, mut f: impl FnMut(isize, isize)) {
        let [ti, ta, tb] = self.steps;
        let check = Check { bad, size: self.size, dim: self.dim, wrap: true };
        let (t, first) = (Steps { a: ta, b: 0, along: tb, i: ti }, i as isize);
        // SAFETY: positions of the index tensor.
        unsafe {
            line(
                self.ix,
                first * ti,
                t,
                end.saturating_sub(i),
                check,
                b,
                #[inline(always)]
                |oa, ob| f(first * ta + oa, ob),
            )
        }
    }
}

pub fn take(dst: Arr, src: Arr, idx: &[Arr], dims: &[usize]) -> Result<()> {
    check("index", &dst, &src, Scatter::Set)?;
    let p = plan("index", &dst, &src, idx, dims)?;
    let bad = Bad::new();
    let size = dst.dtype.size();
    let rest = p.rest.len();
    let (n, each) = chunks(p.positions, 1 + 2048 / (p.run * rest).max(1));
    let (d, s) = (Ptr(dst.ptr), Ptr(src.ptr));
    let p = Shared(&p);
    by_size!(size, |T| {
        parallel(n, cost(p.0.positions * rest, p.0.run * size), &|c| {
            let p = p.get();
            let (d, s) = (d.get().cast::<T>(), s.get().cast::<T>());
            let (mut i, end) = (c * each, p.positions.min((c + 1) * each));
            if let Some(simple) = p.simple() {
                return wide(
                    #[inline(always)]
                    || {
                        simple.each(
                            i,
                            end,
                            &bad,
                            s,
                            #[inline(always)]
                            |oa, ob| {
                                // SAFETY: offsets of positions inside the arrays, indices checked.
                                unsafe { d.offset(oa).write_unaligned(s.offset(ob).read_unaligned()) }
                            },
                        )
                    },
                );
            }
            let mut offs = [[0; 2]; BATCH];
            while i < end {
                let m = BATCH.min(end - i);
                p.offsets(i, m, &bad, &mut offs);
                for &[oa, ob] in offs[..m].iter().filter(|o| o[1] != OUTSIDE) {
                    for r in 0..rest {
                        let [ra, rb] = if rest == 1 { [0, 0] } else { p.rest.offset(r) };
                        // SAFETY: offsets of positions inside the arrays, indices checked above.
                        unsafe { move_run(d.offset(oa + ra), 1, s.offset(ob + rb), 1, p.run) };
                    }
                }
                i += m;
            }
        })
    });
    bad.result("index", Kind::Index)
}

/// The plan holds `Arr`s, whose pointers are not `Sync`; chunks only read through them.
struct Shared<'a, 'b>(&'a Plan<'b>);
// SAFETY: `Plan` is only read; its pointers are those of arrays lent for the whole call.
unsafe impl Sync for Shared<'_, '_> {}
impl<'a, 'b> Shared<'a, 'b> {
    fn get(&self) -> &'a Plan<'b> {
        self.0
    }
}

pub fn put(dst: Arr, src: Arr, idx: &[Arr], dims: &[usize], how: Scatter) -> Result<()> {
    check("index_put", &dst, &src, how)?;
    let p = plan("index_put", &src, &dst, idx, dims)?;
    for (d, i) in idx.iter().enumerate() {
        let dim = dims.get(d).copied().unwrap_or(d);
        beforehand::check("index_put", Kind::Index, i, dst.shape[d], dim, true)?;
    }
    let bad = Bad::new();
    let rest = p.rest.len();
    // Equal positions meet in one destination: chunks are parts of the rest, never of the positions.
    let parts = if rest == 1 { chunks(p.run, 64) } else { (1, p.run) };
    let jobs = rest * parts.0;
    let (n, each) = chunks(jobs, 1 + 2048 / (parts.1 * p.positions).max(1));
    let (d, s) = (Ptr(dst.ptr), Ptr(src.ptr));
    let p = Shared(&p);
    match_dtype!(all, dst.dtype, |T| {
        parallel(n, cost(p.0.positions * rest, p.0.run * size_of::<T>()), &|c| {
            let p = p.get();
            let (d, s) = (d.get().cast::<T>(), s.get().cast::<T>());
            if let Some(simple) = p.simple() {
                macro_rules! each {
                    ($f:expr) => {
                        wide(
                            #[inline(always)]
                            || {
                                simple.each(
                                    0,
                                    p.positions,
                                    &bad,
                                    d,
                                    #[inline(always)]
                                    |oa, ob| {
                                        // SAFETY: as in `take`; this is the only chunk.
                                        unsafe {
                                            let to = d.offset(ob);
                                            let v = s.offset(oa).read_unaligned();
                                            to.write_unaligned($f(to.read_unaligned(), v));
                                        }
                                    },
                                )
                            },
                        )
                    };
                }
                return match how {
                    Scatter::Set => each!(|_, v| v),
                    Scatter::Add => each!(<T as Meet>::add),
                    _ => {
                        let f = meeting::<T>(how);
                        each!(f)
                    }
                };
            }
            let mut offs = [[0; 2]; BATCH];
            let mut i = 0;
            while i < p.positions {
                let m = BATCH.min(p.positions - i);
                p.offsets(i, m, &bad, &mut offs);
                for job in c * each..jobs.min((c + 1) * each) {
                    let [ra, rb] = p.rest.offset(job / parts.0);
                    let from = job % parts.0 * parts.1;
                    let len = parts.1.min(p.run - from);
                    for &[oa, ob] in offs[..m].iter().filter(|o| o[1] != OUTSIDE) {
                        // SAFETY: as in `take`; no other chunk has this part of the rest.
                        unsafe {
                            let to = d.offset(ob + rb).add(from);
                            meet_run(how, to, 1, s.offset(oa + ra).add(from), 1, len);
                        }
                    }
                }
                i += m;
            }
        })
    });
    bad.result("index_put", Kind::Index)
}
