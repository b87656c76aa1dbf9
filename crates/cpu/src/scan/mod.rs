//! Running sums, products, extrema and log-sums along one dimension.
//!
//! Lines are independent; eight of them (or eight pieces of one long line, whose offsets a first
//! pass computes) advance together, because one line alone waits for each addition. Sums of floats
//! are kept in f64, as in PyTorch, so the order of additions matters little and is fixed anyway.

mod extremum;
mod kinds;
mod logsum;

use crate::alloc::Block;
use crate::simd::{Arch, ArchKernel, dispatch};
use crate::{copy, oom, pool};
use kinds::{LogSumExp, Prod, Scan, Sum};
use pyrite_core::backend::ScanOp;
use pyrite_core::dtype::Complex;
use pyrite_core::{Arr, DType, Result, bail, match_dtype};

const LINES: usize = 8;
/// Columns that advance together.
const COLUMNS: usize = 1024;
const GRAIN: usize = 16 << 10;

/// `lines` lines of `n` elements; strides in elements.
#[derive(Clone, Copy)]
struct Bundle<T> {
    lines: usize,
    n: usize,
    src: *const T,
    dst: *mut T,
    /// From line to line and along a line.
    across: [isize; 2],
    along: [isize; 2],
}

struct Advance<'a, T, K: Scan<T>> {
    b: Bundle<T>,
    from: &'a mut [K::A],
    /// Only the totals are wanted.
    totals: bool,
}

impl<T: Copy, K: Scan<T>> ArchKernel for Advance<'_, T, K> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Advance { b, from, totals } = self;
        // SAFETY: the caller's lines and elements exist.
        unsafe {
            if K::CHEAP && totals && b.along[0] == 1 {
                for l in 0..b.lines as isize {
                    from[l as usize] =
                        K::join(from[l as usize], total::<T, K>(b.src.offset(l * b.across[0]), b.n));
                }
                return;
            }
            if K::CHEAP && !totals && b.along == [1, 1] {
                for l in 0..b.lines as isize {
                    let (s, d) = (b.src.offset(l * b.across[0]), b.dst.offset(l * b.across[1]));
                    from[l as usize] = dense::<T, K>(s, d, b.n, from[l as usize]);
                }
                return;
            }
            if b.lines == LINES {
                let mut a = [K::start(); LINES];
                a.copy_from_slice(&from[..LINES]);
                for i in 0..b.n as isize {
                    for l in 0..LINES {
                        let at = l as isize;
                        a[l] = K::step(a[l], *b.src.offset(at * b.across[0] + i * b.along[0]));
                        if !totals {
                            *b.dst.offset(at * b.across[1] + i * b.along[1]) = K::get(a[l]);
                        }
                    }
                }
                from[..LINES].copy_from_slice(&a);
            } else if b.across == [1, 1] && !totals {
                // Columns: one accumulator each, vectorised along the row.
                for i in 0..b.n as isize {
                    let (s, d) = (b.src.offset(i * b.along[0]), b.dst.offset(i * b.along[1]));
                    for l in 0..b.lines {
                        let a = K::step(from[l], *s.add(l));
                        from[l] = a;
                        *d.add(l) = K::get(a);
                    }
                }
            } else {
                for l in 0..b.lines {
                    let mut a = from[l];
                    for i in 0..b.n as isize {
                        a = K::step(a, *b.src.offset(l as isize * b.across[0] + i * b.along[0]));
                        if !totals {
                            *b.dst.offset(l as isize * b.across[1] + i * b.along[1]) = K::get(a);
                        }
                    }
                    from[l] = a;
                }
            }
        }
    }
}

/// One dense line, eight elements at a time: sums inside the eight are a tree, so that only one
/// addition in eight waits for the one before.
/// # Safety
/// `n` elements at `s` and `d`, which are the same or do not overlap.
#[inline(always)]
unsafe fn dense<T: Copy, K: Scan<T>>(s: *const T, d: *mut T, n: usize, mut a: K::A) -> K::A {
    let mut i = 0;
    // SAFETY: positions below n.
    unsafe {
        while i + 8 <= n {
            let e: [K::A; 8] = std::array::from_fn(|j| K::step(K::start(), *s.add(i + j)));
            let p1 = K::join(e[0], e[1]);
            let q = [K::join(e[2], e[3]), K::join(e[4], e[5]), K::join(e[6], e[7])];
            let p3 = K::join(p1, q[0]);
            let p = [
                e[0],
                p1,
                K::join(p1, e[2]),
                p3,
                K::join(p3, e[4]),
                K::join(p3, q[1]),
                K::join(p3, K::join(q[1], e[6])),
                K::join(p3, K::join(q[1], q[2])),
            ];
            for (j, p) in p.iter().enumerate() {
                *d.add(i + j) = K::get(K::join(a, *p));
            }
            a = K::join(a, p[7]);
            i += 8;
        }
        for j in i..n {
            a = K::step(a, *s.add(j));
            *d.add(j) = K::get(a);
        }
    }
    a
}

/// What a dense line adds up to, in eight sums side by side.
/// # Safety
/// `n` elements at `s`.
#[inline(always)]
unsafe fn total<T: Copy, K: Scan<T>>(s: *const T, n: usize) -> K::A {
    let mut a = [K::start(); 8];
    // SAFETY: positions below n.
    unsafe {
        for i in 0..n / 8 {
            for (j, a) in a.iter_mut().enumerate() {
                *a = K::step(*a, *s.add(8 * i + j));
            }
        }
        for i in n / 8 * 8..n {
            a[i % 8] = K::step(a[i % 8], *s.add(i));
        }
    }
    a.into_iter().fold(K::start(), K::join)
}

/// Everything but the scanned dimension, as pairs of strides (source, destination), innermost last.
pub(crate) struct Lines {
    pub dims: Vec<(usize, [isize; 3])>,
    pub count: usize,
}

impl Lines {
    pub fn new(shape: &[usize], skip: usize, strides: [&[isize]; 3]) -> Lines {
        let mut dims: Vec<(usize, [isize; 3])> = Vec::new();
        for d in 0..shape.len() {
            if d != skip && shape[d] != 1 {
                dims.push((shape[d], strides.map(|s| s.get(d).copied().unwrap_or(0))));
            }
        }
        dims.sort_by_key(|d| std::cmp::Reverse(d.1[0].unsigned_abs()));
        let count = dims.iter().map(|d| d.0).product();
        Lines { dims, count }
    }
    /// Element offsets of line `i`.
    pub fn at(&self, mut i: usize) -> [isize; 3] {
        let mut o = [0; 3];
        for (n, s) in self.dims.iter().rev() {
            let k = (i % n) as isize;
            i /= n;
            for j in 0..3 {
                o[j] += k * s[j];
            }
        }
        o
    }
}

fn scan<T: Copy + Send + Sync, K: Scan<T>>(dst: Arr, src: Arr, dim: usize) -> Result<()> {
    let n = src.shape[dim];
    let lines = Lines::new(src.shape, dim, [src.strides, dst.strides, &[]]);
    let along = [src.strides[dim], dst.strides[dim]];
    let total = n * lines.count;
    let base = crate::gemm::Shared((src.ptr.cast::<T>(), dst.ptr.cast::<T>()));
    let ns = total as u64 / 2;
    if K::CHEAP && lines.count < LINES && n >= 8192 {
        // Pieces of a line: totals first, then each piece from the sum of those before it.
        let pieces = LINES * (n / (4 * GRAIN)).clamp(1, 4096);
        let size = n.div_ceil(pieces).next_multiple_of(16);
        let pieces = n.div_ceil(size);
        let groups = pieces.div_ceil(LINES);
        for l in 0..lines.count {
            let o = lines.at(l);
            let bundle = |g: usize| {
                let (s, d) = base.get();
                let first = (g * LINES * size) as isize;
                let left = n - g * LINES * size;
                // The last group may be short: then its pieces go one by one.
                let whole = left >= LINES * size;
                (
                    Bundle {
                        lines: if whole { LINES } else { 1 },
                        n: if whole { size } else { left },
                        src: s.wrapping_offset(o[0] + first * along[0]),
                        dst: d.wrapping_offset(o[1] + first * along[1]),
                        across: along.map(|s| s * size as isize),
                        along,
                    },
                    whole,
                )
            };
            if pool::num_threads() == 1 {
                // The same sums in the same order, each group while it is in the cache.
                let mut a = K::start();
                for g in 0..groups {
                    let (b, whole) = bundle(g);
                    let mut from = [K::start(); LINES];
                    dispatch(Advance::<T, K> { b, from: &mut from, totals: true });
                    for t in from[..if whole { LINES } else { 1 }].iter_mut() {
                        let next = K::join(a, *t);
                        *t = a;
                        a = next;
                    }
                    K::advance(b, &mut from);
                }
                continue;
            }
            let mut totals = vec![K::start(); groups * LINES];
            let out = crate::gemm::Shared(totals.as_mut_ptr());
            pool::parallel(groups, ns / 2, &|g| {
                let (b, _) = bundle(g);
                // SAFETY: eight totals per group, written by this task alone.
                let from = unsafe { std::slice::from_raw_parts_mut(out.get().add(g * LINES), LINES) };
                dispatch(Advance::<T, K> { b, from, totals: true });
            });
            let mut a = K::start();
            for t in totals.iter_mut() {
                let next = K::join(a, *t);
                *t = a;
                a = next;
            }
            pool::parallel(groups, ns, &|g| {
                let (b, _) = bundle(g);
                // SAFETY: as above.
                let from = unsafe { std::slice::from_raw_parts_mut(out.get().add(g * LINES), LINES) };
                K::advance(b, from);
            });
        }
        return Ok(());
    }
    // Neighbouring lines along the innermost other dimension, eight or a tile of columns at once.
    let (inner, strides) = lines.dims.last().copied().unwrap_or((1, [0; 3]));
    let dense = strides[0] == 1 && strides[1] == 1;
    let width = if dense { COLUMNS } else { LINES };
    let chunks = inner.div_ceil(width);
    let tasks = (lines.count / inner) * chunks;
    let group = (GRAIN / (n * width.min(inner)).max(1)).clamp(1, tasks);
    pool::parallel(tasks.div_ceil(group), ns, &|g| {
        for task in g * group..tasks.min((g + 1) * group) {
            let (p, c) = (task / chunks, task % chunks);
            let o = lines.at(p * inner + c * width);
            let (s, d) = base.get();
            let mut from = [K::start(); COLUMNS];
            let b = Bundle {
                lines: width.min(inner - c * width),
                n,
                src: s.wrapping_offset(o[0]),
                dst: d.wrapping_offset(o[1]),
                across: [strides[0], strides[1]],
                along,
            };
            K::advance(b, &mut from);
        }
    });
    Ok(())
}

/// `Backend::scan`.
pub fn run(op: ScanOp, dst: Arr, idx: Option<Arr>, src: Arr, dim: usize) -> Result<()> {
    if src.numel() == 0 {
        return Ok(());
    }
    // bool extrema are bytes; everything else runs in the result's compute dtype.
    let extreme = matches!(op, ScanOp::Max | ScanOp::Min);
    let compute = if dst.dtype.is_bool() && extreme { DType::U8 } else { dst.dtype.compute() };
    let takes = match op {
        ScanOp::Max | ScanOp::Min => !compute.is_complex(),
        ScanOp::LogSumExp => compute.is_differentiable(),
        _ => true,
    };
    if compute.is_bool() || !takes {
        bail!(NotImplemented, "{op:?} scan: not implemented for dtype {} on the CPU", dst.dtype);
    }
    // Operands of other dtypes are converted first: a scan is bound by its own dependency, not by that.
    let same = |d: DType| d == compute || (d.is_bool() && compute == DType::U8);
    if !same(src.dtype) || !same(dst.dtype) {
        let strides = pyrite_core::layout::contiguous_strides(src.shape);
        let block = Block::new(src.numel() * compute.size()).map_err(oom)?;
        let tmp = Arr { ptr: block.as_ptr(), dtype: compute, shape: src.shape, strides: &strides };
        copy::copy(tmp, src)?;
        if same(dst.dtype) {
            return run(op, dst, idx, tmp, dim);
        }
        run(op, tmp, idx, tmp, dim)?;
        return copy::copy(dst, tmp);
    }
    match compute {
        DType::C64 => return complex_scan::<f32>(op, dst, src, dim),
        DType::C128 => return complex_scan::<f64>(op, dst, src, dim),
        _ => (),
    }
    match_dtype!(num, compute, |T| match op {
        ScanOp::Sum => scan::<T, Sum>(dst, src, dim),
        ScanOp::Prod => scan::<T, Prod>(dst, src, dim),
        ScanOp::Max => extremum::run::<T, false>(dst, idx, src, dim),
        ScanOp::Min => extremum::run::<T, true>(dst, idx, src, dim),
        ScanOp::LogSumExp => log_scan(compute, dst, src, dim),
    }, else Ok(()))
}

fn complex_scan<T: Copy + Send + Sync>(op: ScanOp, dst: Arr, src: Arr, dim: usize) -> Result<()>
where
    Sum: Scan<Complex<T>>,
    Prod: Scan<Complex<T>>,
    LogSumExp: Scan<Complex<T>>,
{
    match op {
        ScanOp::Sum => scan::<Complex<T>, Sum>(dst, src, dim),
        ScanOp::Prod => scan::<Complex<T>, Prod>(dst, src, dim),
        ScanOp::LogSumExp => scan::<Complex<T>, LogSumExp>(dst, src, dim),
        ScanOp::Max | ScanOp::Min => Ok(()),
    }
}

fn log_scan(d: DType, dst: Arr, src: Arr, dim: usize) -> Result<()> {
    match_dtype!(float, d, |T| scan::<T, LogSumExp>(dst, src, dim), else Ok(()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
