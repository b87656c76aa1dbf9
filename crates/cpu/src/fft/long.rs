//! One long line as a matrix (Bailey's four steps): columns are transformed, multiplied by roots of
//! unity, and rows are transformed. Both passes go tile by tile through the first-level caches, and both
//! are shared among the threads, where a single transform of that length would do neither.

use super::plans::Real;
use super::tile::{Line, Put};
use crate::pool;
use pyrite_core::{Result, bail};
use rustfft::Fft;
use rustfft::num_complex::Complex;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Below this the plain transform stays in the second-level cache.
const SHORTEST: usize = 1 << 15;
/// Beyond this the table of roots costs more memory than the speed is worth.
const LONGEST: usize = 1 << 23;
/// With more lines than this the threads have enough to do anyway.
const FEW: usize = 4;

/// Into how many rows a line of `n` is cut, if at all.
pub fn rows_for(n: usize, lines: usize) -> Option<usize> {
    if !(SHORTEST..=LONGEST).contains(&n) || lines > FEW {
        return None;
    }
    // The largest divisor that makes the matrix no taller than wide.
    let root = n.isqrt();
    (root / 4..=root).rev().find(|r| *r >= 64 && n.is_multiple_of(*r))
}

/// What one length needs, kept with the plans.
pub struct Split<T: Real> {
    rows: usize,
    columns: usize,
    down: Arc<dyn Fft<T>>,
    along: Arc<dyn Fft<T>>,
    /// exp(-+2 pi i j k / n) for row k and column j, in the order the tiles read them.
    roots: Vec<Complex<T>>,
}

impl<T: Real> Split<T> {
    pub fn new(n: usize, rows: usize, forward: bool, plan: &mut dyn FnMut(usize) -> Arc<dyn Fft<T>>) -> Split<T> {
        let columns = n / rows;
        let sign = if forward { -1.0 } else { 1.0 };
        let turn = sign * std::f64::consts::TAU / n as f64;
        // j k < n: the angle is exact to its last place.
        let mut roots = Vec::with_capacity(n);
        for j in (0..columns).step_by(width::<T>()) {
            for k in 0..rows {
                for l in j..(j + width::<T>()).min(columns) {
                    let (s, c) = (turn * (l * k) as f64).sin_cos();
                    roots.push(Complex::new(T::of(c), T::of(s)));
                }
            }
        }
        Split { rows, columns, down: plan(rows), along: plan(columns), roots }
    }
}

/// Lines per tile: two cache lines wide.
fn width<T>() -> usize {
    128 / size_of::<Complex<T>>()
}

/// A pointer that the threads of one pass share; each writes to tiles of its own.
struct Shared<T>(*mut T);
// SAFETY: see the passes below: no two tiles have a point in common.
unsafe impl<T> Sync for Shared<T> {}

/// Transforms the line that starts at `s` in `src` into the one at `d` in `dst`.
pub fn run<T: Real>(split: &Split<T>, src: &Line<T>, s: isize, dst: &Line<T>, d: isize, put: &Put<T>) -> Result<()> {
    let (rows, columns) = (split.rows, split.columns);
    let n = rows * columns;
    let b = width::<T>();
    let point = size_of::<Complex<T>>();
    let done = pool::with_scratch(n * point, |middle| {
        let middle = Shared(middle.cast::<Complex<T>>());
        let middle = &middle;
        let src = Line { ptr: src.ptr, parts: src.parts, len: rows, step: columns as isize * src.step, next: src.step };
        let first = pass::<T>(columns.div_ceil(b), n, b * rows, &*split.down, &|t, buffer, scratch| {
            let j = t * b;
            let lines = b.min(columns - j);
            let starts: SmallVec<[isize; 32]> = (j..j + lines).map(|l| s + l as isize * src.next).collect();
            let tile = &mut buffer[..lines * rows];
            // SAFETY: these are columns of the source line, which has n points.
            unsafe { src.gather(&starts, tile, rows, false) };
            split.down.process_with_scratch(tile, scratch);
            let roots = &split.roots[j * rows..][..lines * rows];
            for k in 0..rows {
                // SAFETY: row k, columns j .. j + lines of the rows x columns points of `middle`.
                let to = unsafe { std::slice::from_raw_parts_mut(middle.0.add(k * columns + j), lines) };
                for (l, to) in to.iter_mut().enumerate() {
                    *to = tile[l * rows + k] * roots[k * lines + l];
                }
            }
        });
        let dst = Line { ptr: dst.ptr, parts: dst.parts, len: columns, step: rows as isize * dst.step, next: dst.step };
        let second = pass::<T>(rows.div_ceil(b), n, 0, &*split.along, &|t, _, scratch| {
            let k = t * b;
            let lines = b.min(rows - k);
            // SAFETY: rows k .. k + lines of `middle`, which the first pass filled.
            let tile = unsafe { std::slice::from_raw_parts_mut(middle.0.add(k * columns), lines * columns) };
            split.along.process_with_scratch(tile, scratch);
            let starts: SmallVec<[isize; 32]> = (k..k + lines).map(|l| d + l as isize * dst.next).collect();
            // SAFETY: every rows-th point of the destination line, from k + l on.
            unsafe {
                dst.scatter(&starts, tile, columns, |_, v| Complex::new(v.re * put.edge, v.im * put.edge))
            };
        });
        first && second
    });
    match done {
        Ok(true) => Ok(()),
        _ => bail!(OutOfMemory, "fft: no memory for the {} bytes that a transform of {n} points works in", n * point),
    }
}

/// Runs `f(tile, buffer, scratch)` for all tiles, in parallel; false if memory ran out.
fn pass<T: Real>(
    tiles: usize,
    n: usize,
    buffer: usize,
    plan: &dyn Fft<T>,
    f: &(dyn Fn(usize, &mut [Complex<T>], &mut [Complex<T>]) + Sync),
) -> bool {
    let point = size_of::<Complex<T>>();
    let work = (n as f64 * 12.0) as u64;
    let per = tiles.div_ceil(16);
    let short = AtomicBool::new(false);
    pool::parallel(tiles.div_ceil(per), work, &|c| {
        let points = buffer + plan.get_inplace_scratch_len();
        let done = pool::with_scratch(points.max(1) * point, |p| {
            // SAFETY: the scratch holds that many points, 64-byte aligned; zero bits are valid numbers.
            let memory = unsafe {
                p.write_bytes(0, points * point);
                std::slice::from_raw_parts_mut(p.cast::<Complex<T>>(), points)
            };
            let (tile, scratch) = memory.split_at_mut(buffer);
            for t in c * per..((c + 1) * per).min(tiles) {
                f(t, tile, scratch);
            }
        });
        if done.is_err() {
            short.store(true, Ordering::Relaxed);
        }
    });
    !short.load(Ordering::Relaxed)
}
