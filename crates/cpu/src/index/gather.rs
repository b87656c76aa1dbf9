//! An index for every element along one dimension: `gather` and `scatter`.

use super::elem::{Meet, check, meeting};
use super::line::{Check, Steps, line};
use super::{Bad, Indices, beforehand, cost, wide};
use crate::by_size;
use crate::pool::{chunks, parallel};
use crate::strided::{Ptr, offset};
use pyrite_core::backend::Scatter;
use pyrite_core::{Arr, Kind, Result, bail, match_dtype};
use smallvec::SmallVec;

/// A job is one position of the outer dimensions and a block of the inner one (the last, unless that
/// is `dim` itself): jobs never share a destination, so their order does not matter.
struct Grid {
    shape: SmallVec<[usize; 6]>,
    /// Strides of `a` (same shape as the index), of the indexed array `b`, and of the index.
    strides: [SmallVec<[isize; 6]>; 3],
    dim: [isize; 3],
    inner: [isize; 3],
    n_dim: usize,
    n_inner: usize,
    size: usize,
    blocks: (usize, usize),
    jobs: usize,
    chunks: (usize, usize),
}

fn grid(op: &str, a: &Arr, b: &Arr, idx: &Arr, dim: usize) -> Result<Grid> {
    let r = idx.shape.len();
    let fits = a.shape == idx.shape
        && b.shape.len() == r
        && dim < r.max(1)
        && (0..r).all(|d| d == dim || idx.shape[d] <= b.shape[d]);
    if !fits {
        bail!(
            Shape,
            "{op}: shapes {:?} and {:?} with an index of shape {:?} do not fit along dimension {dim}",
            a.shape,
            b.shape,
            idx.shape
        );
    }
    let all = [a.strides, b.strides, idx.strides];
    let stride = |d: Option<usize>| all.map(|s| d.and_then(|d| s.get(d).copied()).unwrap_or(0));
    let inner = r.checked_sub(1).filter(|&l| l != dim);
    let outer = (0..r).filter(|&d| d != dim && Some(d) != inner);
    let shape: SmallVec<[usize; 6]> = outer.clone().map(|d| idx.shape[d]).collect();
    let n_inner = inner.map_or(1, |d| idx.shape[d]);
    let n_dim = idx.shape.get(dim).copied().unwrap_or(1);
    let rows: usize = shape.iter().product();
    let blocks = if rows < 16 { chunks(n_inner, 64) } else { (1, n_inner) };
    let jobs = rows * blocks.0;
    Ok(Grid {
        shape,
        strides: all.map(|s| outer.clone().map(|d| s[d]).collect()),
        dim: stride((dim < r).then_some(dim)),
        inner: stride(inner),
        n_dim,
        n_inner,
        size: b.shape.get(dim).copied().unwrap_or(1),
        blocks,
        jobs,
        chunks: chunks(jobs, 1 + 2048 / (blocks.1 * n_dim).max(1)),
    })
}

impl Grid {
    /// Calls `f(offsets in a, b and idx, steps, length)` for every line of the chunk's jobs;
    /// the innermost loop is `dim` itself where that is the last dimension. Lines of one job come in
    /// the order of `dim`.
    #[inline(always)]
    fn lines(&self, chunk: usize, mut f: impl FnMut([isize; 3], Steps, usize)) {
        let (_, each) = self.chunks;
        for job in chunk * each..self.jobs.min((chunk + 1) * each) {
            let (row, block) = (job / self.blocks.0, job % self.blocks.0);
            let base = [0, 1, 2].map(|k| offset(&self.shape, &self.strides[k], row));
            let from = block * self.blocks.1;
            let len = self.blocks.1.min(self.n_inner - from);
            // Along `dim` the indexed array does not move: the index says where.
            let dim = [self.dim[0], 0, self.dim[2]];
            let steps = |t: [isize; 3]| Steps { a: t[0], b: t[1], along: self.dim[1], i: t[2] };
            if self.n_inner == 1 {
                f(base, steps(dim), self.n_dim);
                continue;
            }
            let base = [0, 1, 2].map(|k| base[k] + from as isize * self.inner[k]);
            for d in 0..self.n_dim as isize {
                f([0, 1, 2].map(|k| base[k] + d * dim[k]), steps(self.inner), len);
            }
        }
    }
    fn cost(&self, bytes: usize) -> u64 {
        cost(self.shape.iter().product::<usize>() * self.n_inner * self.n_dim, bytes)
    }
}

pub fn gather(dst: Arr, src: Arr, idx: Arr, dim: usize) -> Result<()> {
    check("gather", &dst, &src, Scatter::Set)?;
    let g = grid("gather", &dst, &src, &idx, dim)?;
    let (ix, bad) = (Indices::new("gather", &idx)?, Bad::new());
    let size = dst.dtype.size();
    let (d, s) = (Ptr(dst.ptr), Ptr(src.ptr));
    let check = Check { bad: &bad, size: g.size, dim, wrap: false };
    by_size!(size, |T| {
        parallel(g.chunks.0, g.cost(size), &|c| {
            let (d, s) = (d.get().cast::<T>(), s.get().cast::<T>());
            g.lines(
                c,
                #[inline(always)]
                |[oa, ob, oi], t, n| {
                    // SAFETY: lines stay inside dst and idx, which have one shape, and inside src in
                    // every dimension but `dim`, where the index is checked.
                    unsafe {
                        let (d, s) = (d.offset(oa), s.offset(ob));
                        line(
                            ix,
                            oi,
                            t,
                            n,
                            check,
                            s,
                            #[inline(always)]
                            |a, b| d.offset(a).write_unaligned(s.offset(b).read_unaligned()),
                        )
                    }
                },
            )
        })
    });
    bad.result("gather", Kind::Runtime)
}

pub fn scatter(dst: Arr, src: Arr, idx: Arr, dim: usize, how: Scatter) -> Result<()> {
    check("scatter", &dst, &src, how)?;
    // Of the right shape and dtype first, then every index: nothing is written if one is bad.
    let g = grid("scatter", &src, &dst, &idx, dim)?;
    let mut ix = Indices::new("scatter", &idx)?;
    let kept = beforehand::shortened("scatter", Kind::Runtime, &idx, g.size, dim)?;
    match &kept {
        Some((_, short)) => ix = *short,
        None => beforehand::check("scatter", Kind::Runtime, &idx, g.size, dim, false)?,
    }
    let bad = Bad::new();
    let check = Check { bad: &bad, size: g.size, dim, wrap: false };
    let (d, s) = (Ptr(dst.ptr), Ptr(src.ptr));
    match_dtype!(all, dst.dtype, |T| {
        parallel(g.chunks.0, g.cost(size_of::<T>()), &|c| {
            let (d, s) = (d.get().cast::<T>(), s.get().cast::<T>());
            macro_rules! meet {
                ($f:expr) => {
                    wide(
                        #[inline(always)]
                        || {
                            g.lines(
                                c,
                                #[inline(always)]
                                |[oa, ob, oi], t, n| {
                                    // SAFETY: as in `gather`; elements of one destination are all in one job.
                                    unsafe {
                                        let (d, s) = (d.offset(ob), s.offset(oa));
                                        line(
                                            ix,
                                            oi,
                                            t,
                                            n,
                                            check,
                                            d,
                                            #[inline(always)]
                                            |a, b| {
                                                let (to, v) = (d.offset(b), s.offset(a).read_unaligned());
                                                to.write_unaligned($f(to.read_unaligned(), v));
                                            },
                                        )
                                    }
                                },
                            )
                        },
                    )
                };
            }
            // The two common ones inline; the others are called.
            match how {
                Scatter::Set => meet!(|_, v| v),
                Scatter::Add => meet!(<T as Meet>::add),
                _ => {
                    let f = meeting::<T>(how);
                    meet!(f)
                }
            }
        })
    });
    bad.result("scatter", Kind::Runtime)
}
