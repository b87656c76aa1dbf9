//! argmax and argmin along one dimension. The first of equal elements wins, NaN wins over all.
//!
//! Along a dense row the extremum of each block comes from the reduction kernel; only a block that
//! beats the best so far is searched for the position. Across rows, columns keep value and position
//! side by side in loops that the compiler vectorises.

use crate::alloc::Block;
use crate::reduce::{Dim, Load, Split, TILE, Tiles, deliver};
use crate::simd::{Arch, ArchKernel, Isa, dispatch_on, isa};
use crate::{oom, pool};
use pyrite_core::backend::ArgOp;
use pyrite_core::rows::reductions::id;
use pyrite_core::{Arr, DType, Result, bail, match_dtype};
use pyrite_lanes::reductions::{self as kernels, What};
use std::ops::Range;

const BLOCK: usize = 2048;
const GRAIN: usize = 32 << 10;

/// Numbers with an order in which NaN stands above (or below, for minima) all others.
pub(crate) trait Ordered: Copy + PartialOrd + 'static {
    fn nan(self) -> bool;
}
macro_rules! ordered {
    ($($t:ty, |$x:ident| $nan:expr;)*) => { $(
        impl Ordered for $t {
            #[inline(always)]
            fn nan(self) -> bool { let $x = self; $nan }
        }
    )* };
}
ordered! {
    u8, |_x| false; i8, |_x| false; i16, |_x| false; u16, |_x| false; i32, |_x| false;
    u32, |_x| false; i64, |_x| false; u64, |_x| false;
    f32, |x| x.is_nan(); f64, |x| x.is_nan();
}

/// Does `x` replace `best`? Equal elements don't.
#[inline(always)]
fn beats<T: Ordered, const MIN: bool>(x: T, best: T) -> bool {
    let ahead = if MIN { x < best } else { x > best };
    ahead | (x.nan() & !best.nan())
}

/// One row of columns: value and position of each.
struct Step<T, const MIN: bool> {
    n: usize,
    src: *const T,
    best: *mut T,
    /// Positions as wide as the elements, so that one vector shape does for both.
    at: *mut u8,
    row: usize,
    wide: bool,
}

impl<T: Ordered, const MIN: bool> ArchKernel for Step<T, MIN> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        // SAFETY: the caller gives n elements of each array.
        unsafe { if self.wide { step::<T, u64, MIN>(&self) } else { step::<T, u32, MIN>(&self) } }
    }
}

/// The first position of `v`, which is there (for a NaN: of any NaN).
struct Search<'a, T> {
    x: &'a [T],
    v: T,
}

impl<T: Ordered> ArchKernel for Search<'_, T> {
    type Out = usize;
    #[inline(always)]
    fn run<A: Arch>(self) -> usize {
        let nan = self.v.nan();
        let mut passed = 0;
        // Whole groups without an early exit, so that they are compared as vectors.
        for group in self.x.chunks(128) {
            let mut hit = false;
            for e in group {
                hit |= (*e == self.v) | (nan & e.nan());
            }
            if hit {
                let at = group.iter().position(|e| *e == self.v || (nan && e.nan()));
                return passed + at.unwrap_or(0);
            }
            passed += group.len();
        }
        0
    }
}

trait Position: Copy {
    fn of(i: usize) -> Self;
}
impl Position for u32 {
    #[inline(always)]
    fn of(i: usize) -> u32 {
        i as u32
    }
}
impl Position for u64 {
    #[inline(always)]
    fn of(i: usize) -> u64 {
        i as u64
    }
}

#[inline(always)]
unsafe fn step<T: Ordered, P: Position, const MIN: bool>(k: &Step<T, MIN>) {
    let (at, row) = (k.at.cast::<P>(), P::of(k.row));
    for i in 0..k.n {
        // SAFETY: i < n.
        unsafe {
            let (x, b) = (*k.src.add(i), *k.best.add(i));
            let win = beats::<T, MIN>(x, b);
            *k.best.add(i) = if win { x } else { b };
            *at.add(i) = if win { row } else { *at.add(i) };
        }
    }
}

/// `Backend::arg_reduce`.
pub fn run(op: ArgOp, idx: Arr, values: Option<Arr>, src: Arr, dim: usize) -> Result<()> {
    run_on(isa(), op, idx, values, src, dim)
}

pub(crate) fn run_on(isa: Isa, op: ArgOp, idx: Arr, values: Option<Arr>, src: Arr, dim: usize) -> Result<()> {
    let _ = dim;
    // bool is compared as bytes 0 and 1, half types as f32.
    let compute = if src.dtype.is_bool() { DType::U8 } else { src.dtype.compute() };
    let split = Split::new(&src, idx.shape);
    if split.outputs == 0 {
        return Ok(());
    }
    if split.count == 0 {
        bail!(Index, "argmax(): the dimension to reduce has no elements");
    }
    let best = Block::new(split.outputs * compute.size()).map_err(oom)?;
    deliver(&split, idx, DType::I64, |at| {
        match_dtype!(num, compute, |T| {
            let job = Job::<T> { isa, split: &split, load: Load::new(src.dtype, compute, false), best: best.as_ptr().cast(), at: at.cast() };
            match op {
                ArgOp::Max => job.all::<false>(compute),
                ArgOp::Min => job.all::<true>(compute),
            }
        }, else bail!(NotImplemented, "argmax: not implemented for dtype {} on the CPU", src.dtype))
    })?;
    match values {
        Some(v) => deliver(&split, v, compute, |p| {
            // SAFETY: both hold one value per result.
            unsafe { best.as_ptr().copy_to_nonoverlapping(p, split.outputs * compute.size()) };
            Ok(())
        }),
        None => Ok(()),
    }
}

struct Job<'a, T> {
    isa: Isa,
    split: &'a Split,
    load: Load,
    best: *mut T,
    at: *mut i64,
}

// SAFETY: tasks write results of their own.
unsafe impl<T> Sync for Job<'_, T> {}

impl<T: Ordered> Job<'_, T> {
    fn all<const MIN: bool>(&self, compute: DType) -> Result<()> {
        let s = self.split;
        let (n, count) = (s.outputs, s.count);
        let ns = (n * count) as u64 / 6 + n as u64 * 10;
        if s.by_rows() {
            let row = if MIN { id::AMIN } else { id::AMAX };
            let Some(kernel) = kernels::find(row.0, compute, self.isa) else {
                bail!(NotImplemented, "argmax: not implemented for dtype {compute} on the CPU");
            };
            // One long row is searched in segments, best of the earliest first.
            let inner = s.reduced[0];
            if n == 1 && count >= 4 * GRAIN && s.reduced.len() == 1 {
                let (segments, size) = pool::chunks(count, GRAIN);
                let mut found = vec![None::<(T, usize)>; segments];
                let out = crate::gemm::Shared(found.as_mut_ptr());
                pool::parallel(segments, ns, &|g| {
                    let r = g * size..count.min((g + 1) * size);
                    // SAFETY: entry g is written by this task alone; the elements exist.
                    unsafe { *out.get().add(g) = Some(self.row::<MIN>(s.src, inner, r, kernel)) };
                });
                let mut best = found[0];
                for f in found[1..].iter().flatten() {
                    if best.is_none_or(|b| beats::<T, MIN>(f.0, b.0)) {
                        best = Some(*f);
                    }
                }
                if let Some((v, i)) = best {
                    // SAFETY: one result.
                    unsafe {
                        *self.best = v;
                        *self.at = i as i64;
                    }
                }
                return Ok(());
            }
            let group = (GRAIN / count).clamp(1, n).max(n.div_ceil(256));
            pool::parallel(n.div_ceil(group), ns, &|g| {
                for o in g * group..n.min((g + 1) * group) {
                    let base = s.src.wrapping_offset(Split::offset(&s.kept, o));
                    let (mut best, mut passed) = (None::<(T, usize)>, 0);
                    for run in 0..s.reduced_runs() {
                        let p = base.wrapping_offset(Split::offset(&s.reduced[1..], run));
                        // SAFETY: a run of this result.
                        let f = unsafe { self.row::<MIN>(p, inner, 0..inner.n, kernel) };
                        if best.is_none_or(|b| beats::<T, MIN>(f.0, b.0)) {
                            best = Some((f.0, f.1 + passed));
                        }
                        passed += inner.n;
                    }
                    if let Some((v, i)) = best {
                        // SAFETY: result o is written here alone.
                        unsafe {
                            *self.best.add(o) = v;
                            *self.at.add(o) = i as i64;
                        }
                    }
                }
            });
        } else {
            let cols = s.kept[0].n;
            let width = cols.min(TILE);
            let chunks = cols.div_ceil(width);
            let tasks = (n / cols) * chunks;
            let group = (GRAIN / (count * width).max(1)).clamp(1, tasks).max(tasks.div_ceil(256));
            pool::parallel(tasks.div_ceil(group), ns, &|g| {
                for task in g * group..tasks.min((g + 1) * group) {
                    let (p, c) = (task / chunks, task % chunks);
                    let first = p * cols + c * width;
                    let m = width.min(cols - c * width);
                    // SAFETY: results first..first+m are written here alone.
                    unsafe { self.columns::<MIN>(first, m) };
                }
            });
        }
        Ok(())
    }

    /// The best of elements `range` of a row, with its position.
    unsafe fn row<const MIN: bool>(
        &self,
        row: *const u8,
        inner: Dim,
        range: Range<usize>,
        kernel: kernels::Kernel,
    ) -> (T, usize) {
        let direct = self.load.direct(inner.s);
        let block = if direct { BLOCK } else { TILE };
        let mut tiles = Tiles::new();
        let none = [0u128; 4];
        let mut best: Option<(T, usize)> = None;
        let mut t = range.start;
        while t < range.end {
            let m = block.min(range.end - t);
            let p = row.wrapping_offset(t as isize * inner.s);
            // SAFETY: m elements of the row; the result is one element of at most 8 bytes.
            unsafe {
                let p = if direct { p } else { self.load.fetch(m, p, inner.s, &mut tiles) };
                let x = std::slice::from_raw_parts(p.cast::<T>(), m);
                let v = if m < 8 {
                    x.iter().fold(x[0], |a, b| if beats::<T, MIN>(*b, a) { *b } else { a })
                } else {
                    let mut v = 0u64;
                    kernel(What::Row, m, (&raw mut v).cast(), p, 0, 0, none.as_ptr().cast());
                    (&raw const v).cast::<T>().read()
                };
                if best.is_none_or(|b| beats::<T, MIN>(v, b.0)) {
                    let i = dispatch_on(self.isa, Search { x, v });
                    best = Some((x[i], t + i));
                    if v.nan() {
                        break;
                    }
                }
            }
            t += m;
        }
        // SAFETY: ranges are not empty; an empty one would read the row's first element.
        best.unwrap_or_else(|| unsafe { (row.cast::<T>().read_unaligned(), 0) })
    }

    /// `m <= TILE` neighbouring results.
    unsafe fn columns<const MIN: bool>(&self, first: usize, m: usize) {
        let s = self.split;
        let stride = s.kept[0].s;
        let direct = self.load.direct(stride);
        let src = s.src.wrapping_offset(Split::offset(&s.kept, first));
        let mut tiles = Tiles::new();
        let mut positions = [0u64; TILE];
        let wide = size_of::<T>() == 8 || s.count > u32::MAX as usize;
        // SAFETY: m results; every row has m elements of this chunk.
        unsafe {
            let best = self.best.add(first);
            for r in 0..s.count {
                let p = src.wrapping_offset(Split::offset(&s.reduced, r));
                let p = if direct { p } else { self.load.fetch(m, p, stride, &mut tiles) };
                if r == 0 {
                    p.cast::<T>().copy_to_nonoverlapping(best, m);
                    continue;
                }
                let at = positions.as_mut_ptr().cast();
                dispatch_on(self.isa, Step::<T, MIN> { n: m, src: p.cast(), best, at, row: r, wide });
            }
            for i in 0..m {
                let p = positions.as_ptr();
                let v = if wide { *p.add(i) } else { *p.cast::<u32>().add(i) as u64 };
                *self.at.add(first + i) = v as i64;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::reduce::tests::{read, store};
    use pyrite_core::Layout;

    #[test]
    fn positions_match_a_plain_search() {
        for shape in [[1usize, 1], [1, 9], [1, 200_000], [40, 3000], [3000, 40], [5000, 3], [7, 1]] {
            for turned in [false, true] {
                let l = if turned {
                    Layout::contiguous(&[shape[1], shape[0]]).transpose(0, 1).unwrap()
                } else {
                    Layout::contiguous(&shape)
                };
                let n = shape[0] * shape[1];
                for d in [DType::F32, DType::F64, DType::F16, DType::I8, DType::I64, DType::Bool] {
                    for nan in [false, true] {
                        let mut v: Vec<f64> = (0..n).map(|i| ((i * 7919) % 101) as f64 - 50.0).collect();
                        if d.is_bool() {
                            v.iter_mut().for_each(|x| *x = (*x > 40.0) as u8 as f64);
                        }
                        if nan && d.is_float() {
                            (n / 3..n).step_by(97).for_each(|i| v[i] = f64::NAN);
                        }
                        let b = store(d, &v);
                        let src = Arr {
                            ptr: b.as_ptr().cast_mut(),
                            dtype: d,
                            shape: l.shape(),
                            strides: l.strides(),
                        };
                        for dim in 0..2 {
                            for (op, isa) in [
                                (ArgOp::Max, Isa::Avx512),
                                (ArgOp::Min, Isa::Avx512),
                                (ArgOp::Max, Isa::Scalar),
                            ] {
                                check(src, &v, &l, shape, d, dim, op, isa);
                            }
                        }
                    }
                }
            }
        }
    }

    fn check(src: Arr, v: &[f64], l: &Layout, shape: [usize; 2], d: DType, dim: usize, op: ArgOp, isa: Isa) {
        let mut out = shape;
        out[dim] = 1;
        let k = out[0] * out[1];
        let (mut at, mut best) = (vec![0i64; k], vec![0u8; k * d.size()]);
        let dl = Layout::contiguous(&out);
        let idx = Arr { ptr: at.as_mut_ptr().cast(), dtype: DType::I64, shape: &out, strides: dl.strides() };
        let val = Arr { ptr: best.as_mut_ptr(), dtype: d, ..idx };
        run_on(isa.min(crate::simd::detect()), op, idx, Some(val), src, dim).unwrap();
        let best = read(d, &best);
        for o in 0..k {
            let get = |i: usize| {
                let (r, c) = if dim == 0 { (i, o) } else { (o, i) };
                v[(r as isize * l.strides()[0] + c as isize * l.strides()[1]) as usize]
            };
            let mut want = 0;
            for i in 1..shape[dim] {
                let (x, b) = (get(i), get(want));
                let ahead = if op == ArgOp::Max { x > b } else { x < b };
                if ahead || (x.is_nan() && !b.is_nan()) {
                    want = i;
                }
            }
            assert_eq!(at[o], want as i64, "{shape:?} {d} dim {dim} {op:?} {isa:?}");
            assert!(best[o] == get(want) || (best[o].is_nan() && get(want).is_nan()));
        }
    }
}
