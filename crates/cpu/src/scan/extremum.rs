//! Running extrema with their positions: the last of equal elements wins, NaN stays.

use super::{GRAIN, Lines};
use crate::argreduce::Ordered;
use crate::pool;
use crate::simd::{Arch, ArchKernel, dispatch};
use pyrite_core::{Arr, Result};

/// Columns that advance together.
const WIDTH: usize = 512;

/// Keeps the compiler from turning the rare update into selects.
#[cold]
#[inline(never)]
fn update() {}

/// Neighbouring columns, row by row.
struct Columns<T, const MIN: bool> {
    columns: usize,
    n: usize,
    src: *const T,
    dst: *mut T,
    /// Null: no positions are wanted.
    idx: *mut i64,
    /// From row to row.
    step: [isize; 3],
}

impl<T: Ordered, const MIN: bool> ArchKernel for Columns<T, MIN> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Columns { columns, n, src, dst, idx, step } = self;
        let m = columns.min(WIDTH);
        // SAFETY: m columns of n rows in each array that is not null.
        unsafe {
            let mut best = [*src; WIDTH];
            let mut at = [0i64; WIDTH];
            std::ptr::copy_nonoverlapping(src, best.as_mut_ptr(), m);
            for i in 0..n as isize {
                let (s, d) = (src.offset(i * step[0]), dst.offset(i * step[1]));
                for l in 0..m {
                    let (x, b) = (*s.add(l), best[l]);
                    let behind = if MIN { x > b } else { x < b };
                    let win = !behind & (x.nan() | !b.nan());
                    best[l] = if win { x } else { b };
                    at[l] = if win { i as i64 } else { at[l] };
                }
                std::ptr::copy_nonoverlapping(best.as_ptr(), d, m);
                if !idx.is_null() {
                    std::ptr::copy_nonoverlapping(at.as_ptr(), idx.offset(i * step[2]), m);
                }
            }
        }
    }
}

pub fn run<T: Ordered + Send + Sync, const MIN: bool>(
    dst: Arr,
    idx: Option<Arr>,
    src: Arr,
    dim: usize,
) -> Result<()> {
    let n = src.shape[dim];
    let none: &[isize] = &[];
    let lines = Lines::new(src.shape, dim, [src.strides, dst.strides, idx.map_or(none, |i| i.strides)]);
    let (ss, ds) = (src.strides[dim], dst.strides[dim]);
    let is = idx.map_or(0, |i| i.strides[dim]);
    let ip = idx.map(|i| i.ptr as usize);
    let base = crate::gemm::Shared((src.ptr.cast::<T>(), dst.ptr.cast::<T>()));
    let (inner, strides) = lines.dims.last().copied().unwrap_or((1, [0; 3]));
    if inner >= 8 && strides[..2] == [1, 1] && (ip.is_none() || strides[2] == 1) {
        let chunks = inner.div_ceil(WIDTH);
        let tasks = (lines.count / inner) * chunks;
        let group = (GRAIN / (n * WIDTH.min(inner)).max(1)).clamp(1, tasks);
        pool::parallel(tasks.div_ceil(group), (n * lines.count) as u64, &|g| {
            for task in g * group..tasks.min((g + 1) * group) {
                let (p, c) = (task / chunks, task % chunks);
                let o = lines.at(p * inner + c * WIDTH);
                let (s, d) = base.get();
                dispatch(Columns::<T, MIN> {
                    columns: WIDTH.min(inner - c * WIDTH),
                    n,
                    src: s.wrapping_offset(o[0]),
                    dst: d.wrapping_offset(o[1]),
                    idx: ip.map_or(std::ptr::null_mut(), |p| (p as *mut i64).wrapping_offset(o[2])),
                    step: [ss, ds, is],
                });
            }
        });
        return Ok(());
    }
    let group = (GRAIN / n.max(1)).clamp(1, lines.count.max(1));
    pool::parallel(lines.count.div_ceil(group), (n * lines.count) as u64, &|g| {
        for l in g * group..lines.count.min((g + 1) * group) {
            let o = lines.at(l);
            let (s, d) = base.get();
            let (s, d) = (s.wrapping_offset(o[0]), d.wrapping_offset(o[1]));
            let ip = ip.map(|p| (p as *mut i64).wrapping_offset(o[2]));
            // SAFETY: elements of line l; results are written by this task alone.
            unsafe {
                let (mut best, mut at) = (*s, 0i64);
                for i in 0..n as isize {
                    let x = *s.offset(i * ss);
                    // Most elements change nothing: a branch, which is predicted, not a chain of selects.
                    let behind = if MIN { x > best } else { x < best };
                    if !behind && (x.nan() || !best.nan()) {
                        update();
                        (best, at) = (x, i as i64);
                    }
                    *d.offset(i * ds) = best;
                    if let Some(p) = ip {
                        *p.offset(i * is) = at;
                    }
                }
            }
        }
    });
    Ok(())
}
