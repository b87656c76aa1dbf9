//! Running sums, products, extrema and log-sums along one dimension.
//!
//! Lines are independent; eight of them (or eight pieces of one long line, whose offsets a first
//! pass computes) advance together, because one line alone waits for each addition. Sums of floats
//! are kept in f64, as in PyTorch, so the order of additions matters little and is fixed anyway.

use crate::alloc::Block;
use crate::simd::{Arch, ArchKernel, S, dispatch};
use crate::vecmath::complex::{self, Z};
use crate::{copy, oom, pool};
use pyrite_core::backend::ScanOp;
use pyrite_core::dtype::Complex;
use pyrite_core::expr::Field;
use pyrite_core::{Arr, DType, Result, bail, match_dtype};

const LINES: usize = 8;
const GRAIN: usize = 16 << 10;

/// One kind of scan over elements `T`, accumulated in `A`.
trait Scan<T>: 'static {
    type A: Copy + Send + Sync;
    fn start() -> Self::A;
    fn step(a: Self::A, x: T) -> Self::A;
    /// Two accumulators of neighbouring pieces.
    fn join(a: Self::A, b: Self::A) -> Self::A;
    fn get(a: Self::A) -> T;
    /// A few additions more cost less than waiting for one.
    const CHEAP: bool = true;
}

struct Sum;
struct Prod;
struct LogSumExp;

macro_rules! int_scans {
    ($($t:ty)*) => { $(
        impl Scan<$t> for Sum {
            type A = $t;
            #[inline(always)]
            fn start() -> $t { 0 }
            #[inline(always)]
            fn step(a: $t, x: $t) -> $t { a.wrapping_add(x) }
            #[inline(always)]
            fn join(a: $t, b: $t) -> $t { a.wrapping_add(b) }
            #[inline(always)]
            fn get(a: $t) -> $t { a }
        }
        impl Scan<$t> for Prod {
            type A = $t;
            #[inline(always)]
            fn start() -> $t { 1 }
            #[inline(always)]
            fn step(a: $t, x: $t) -> $t { a.wrapping_mul(x) }
            #[inline(always)]
            fn join(a: $t, b: $t) -> $t { a.wrapping_mul(b) }
            #[inline(always)]
            fn get(a: $t) -> $t { a }
        }
    )* };
}
int_scans!(u8 i8 i16 i32 i64 u16 u32 u64);

/// `log(exp(a) + exp(b))`; the empty sum is -inf.
#[inline(always)]
fn log_add(a: f64, b: f64) -> f64 {
    let (hi, lo) = if a < b || a.is_nan() { (b, a) } else { (a, b) };
    if a.is_nan() || b.is_nan() {
        return f64::NAN;
    }
    // Equal infinities: their difference is NaN.
    if hi == lo {
        return hi + std::f64::consts::LN_2;
    }
    hi + S(lo - hi).exp().log1p().0
}

macro_rules! float_scans {
    ($($t:ty)*) => { $(
        impl Scan<$t> for Sum {
            type A = f64;
            #[inline(always)]
            fn start() -> f64 { 0.0 }
            #[inline(always)]
            fn step(a: f64, x: $t) -> f64 { a + x as f64 }
            #[inline(always)]
            fn join(a: f64, b: f64) -> f64 { a + b }
            #[inline(always)]
            fn get(a: f64) -> $t { a as $t }
        }
        impl Scan<$t> for Prod {
            type A = f64;
            #[inline(always)]
            fn start() -> f64 { 1.0 }
            #[inline(always)]
            fn step(a: f64, x: $t) -> f64 { a * x as f64 }
            #[inline(always)]
            fn join(a: f64, b: f64) -> f64 { a * b }
            #[inline(always)]
            fn get(a: f64) -> $t { a as $t }
        }
        impl Scan<$t> for LogSumExp {
            type A = f64;
            const CHEAP: bool = false;
            #[inline(always)]
            fn start() -> f64 { f64::NEG_INFINITY }
            #[inline(always)]
            fn step(a: f64, x: $t) -> f64 { log_add(a, x as f64) }
            #[inline(always)]
            fn join(a: f64, b: f64) -> f64 { log_add(a, b) }
            #[inline(always)]
            fn get(a: f64) -> $t { a as $t }
        }
    )* };
}
float_scans!(f32 f64);

/// `log(exp(a) + exp(b))` of complex numbers: the one with the greater real part stands outside.
fn complex_log_add(a: Z, b: Z) -> Z {
    let (hi, lo) = if a.re < b.re { (b, a) } else { (a, b) };
    if lo.re == f64::NEG_INFINITY {
        return hi;
    }
    let e = complex::exp(Z { re: lo.re - hi.re, im: lo.im - hi.im });
    let l = complex::log1p(e);
    Z { re: hi.re + l.re, im: hi.im + l.im }
}

macro_rules! complex_scans {
    ($($t:ty)*) => { $(
        complex_scans!(@one Sum $t, (0.0, 0.0), |a, b| Z { re: a.re + b.re, im: a.im + b.im });
        complex_scans!(@one Prod $t, (1.0, 0.0), |a, b| complex::mul(a, b));
        complex_scans!(@one LogSumExp $t, (f64::NEG_INFINITY, 0.0), |a, b| complex_log_add(a, b));
    )* };
    (@one $kind:ident $t:ty, ($re:expr, $im:expr), |$a:ident, $b:ident| $f:expr) => {
        impl Scan<Complex<$t>> for $kind {
            type A = Z;
            #[inline(always)]
            fn start() -> Z { Z { re: $re, im: $im } }
            #[inline(always)]
            fn step($a: Z, x: Complex<$t>) -> Z {
                let $b = Z { re: x.re as f64, im: x.im as f64 };
                $f
            }
            #[inline(always)]
            fn join($a: Z, $b: Z) -> Z { $f }
            #[inline(always)]
            fn get(a: Z) -> Complex<$t> { Complex { re: a.re as $t, im: a.im as $t } }
        }
    };
}
complex_scans!(f32 f64);

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
    if lines.count < LINES && n >= 8192 {
        // Pieces of a line: totals first, then each piece from the sum of those before it.
        let pieces = LINES * (n / (4 * GRAIN)).clamp(1, 32);
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
                dispatch(Advance::<T, K> { b, from, totals: false });
            });
        }
        return Ok(());
    }
    // Neighbouring lines along the innermost other dimension, eight or a tile of columns at once.
    let (inner, strides) = lines.dims.last().copied().unwrap_or((1, [0; 3]));
    let dense = strides[0] == 1 && strides[1] == 1;
    let width = if dense { 256 } else { LINES };
    let chunks = inner.div_ceil(width);
    let tasks = (lines.count / inner) * chunks;
    let group = (GRAIN / (n * width.min(inner)).max(1)).clamp(1, tasks);
    pool::parallel(tasks.div_ceil(group), ns, &|g| {
        for task in g * group..tasks.min((g + 1) * group) {
            let (p, c) = (task / chunks, task % chunks);
            let o = lines.at(p * inner + c * width);
            let (s, d) = base.get();
            let mut from = [K::start(); 256];
            let b = Bundle {
                lines: width.min(inner - c * width),
                n,
                src: s.wrapping_offset(o[0]),
                dst: d.wrapping_offset(o[1]),
                across: [strides[0], strides[1]],
                along,
            };
            dispatch(Advance::<T, K> { b, from: &mut from, totals: false });
        }
    });
    Ok(())
}

/// Keeps the compiler from turning the rare update into selects.
#[cold]
#[inline(never)]
fn update() {}

/// Running extremum with its position; the last of equal elements wins, NaN stays.
fn extremum<T: crate::argreduce::Ordered + Send + Sync>(
    dst: Arr,
    idx: Option<Arr>,
    src: Arr,
    dim: usize,
    min: bool,
) -> Result<()> {
    let n = src.shape[dim];
    let none: &[isize] = &[];
    let lines = Lines::new(src.shape, dim, [src.strides, dst.strides, idx.map_or(none, |i| i.strides)]);
    let (ss, ds) = (src.strides[dim], dst.strides[dim]);
    let is = idx.map_or(0, |i| i.strides[dim]);
    let ip = idx.map(|i| i.ptr as usize);
    let base = crate::gemm::Shared((src.ptr.cast::<T>(), dst.ptr.cast::<T>()));
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
                    let behind = if min { x > best } else { x < best };
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
        ScanOp::Max => extremum::<T>(dst, idx, src, dim, false),
        ScanOp::Min => extremum::<T>(dst, idx, src, dim, true),
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
mod tests {
    use super::*;
    use crate::reduce::tests::{read, store};
    use pyrite_core::Layout;

    fn go(op: ScanOp, from: DType, to: DType, l: &Layout, dim: usize, v: &[f64]) -> (Vec<f64>, Vec<i64>) {
        let src = store(from, v);
        let n = l.numel();
        let (mut out, mut at) = (vec![0u8; n * to.size()], vec![0i64; n]);
        let dl = Layout::contiguous(l.shape());
        let s = Arr { ptr: src.as_ptr().cast_mut(), dtype: from, shape: l.shape(), strides: l.strides() };
        let d = Arr { ptr: out.as_mut_ptr(), dtype: to, shape: l.shape(), strides: dl.strides() };
        let i = Arr { ptr: at.as_mut_ptr().cast(), dtype: DType::I64, ..d };
        let extreme = matches!(op, ScanOp::Max | ScanOp::Min);
        run(op, d, extreme.then_some(i), s, dim).unwrap();
        (read(to, &out), at)
    }

    #[test]
    fn scans_match_plain_loops() {
        for shape in [
            vec![1usize],
            vec![7],
            vec![9000],
            vec![300_001],
            vec![20, 50],
            vec![50, 20],
            vec![300, 3],
            vec![4, 9, 33],
        ] {
            for turned in [false, true] {
                let rev: Vec<usize> = shape.iter().rev().copied().collect();
                let perm: Vec<i64> = (0..shape.len() as i64).rev().collect();
                let l = if turned {
                    Layout::contiguous(&rev).permute(&perm).unwrap()
                } else {
                    Layout::contiguous(&shape)
                };
                let n = l.numel();
                let v: Vec<f64> = (0..n).map(|i| ((i * 7919) % 17) as f64 / 8.0 - 1.0).collect();
                for dim in 0..shape.len() {
                    for (op, from, to) in [
                        (ScanOp::Sum, DType::F32, DType::F32),
                        (ScanOp::Sum, DType::F16, DType::F64),
                        (ScanOp::Sum, DType::I32, DType::I64),
                        (ScanOp::Prod, DType::F64, DType::F64),
                        (ScanOp::Max, DType::F32, DType::F32),
                        (ScanOp::Min, DType::I16, DType::I16),
                        (ScanOp::Max, DType::BF16, DType::BF16),
                        (ScanOp::LogSumExp, DType::F64, DType::F64),
                    ] {
                        let mut v = v.clone();
                        if op == ScanOp::Prod {
                            v.iter_mut().for_each(|x| *x = if *x > 0.7 { 1.5 } else { 0.9 });
                        }
                        if from.is_int() {
                            v.iter_mut().for_each(|x| *x = (*x * 8.0).round());
                        }
                        if from.is_float()
                            && matches!(op, ScanOp::Max | ScanOp::Sum)
                            && n > 900
                            && shape.len() > 1
                        {
                            v[77] = f64::NAN;
                        }
                        let (got, at) = go(op, from, to, &l, dim, &v);
                        check(op, &l, dim, &v, &got, &at, to);
                    }
                }
            }
        }
    }

    fn check(op: ScanOp, l: &Layout, dim: usize, v: &[f64], got: &[f64], at: &[i64], to: DType) {
        let shape = l.shape();
        let dense = Layout::contiguous(shape);
        let n = shape[dim];
        let src = Lines::new(shape, dim, [l.strides(), dense.strides(), &[]]);
        for line in 0..src.count {
            let o = src.at(line);
            let mut a = match op {
                ScanOp::Prod => 1.0,
                ScanOp::LogSumExp => f64::NEG_INFINITY,
                ScanOp::Sum => 0.0,
                _ => v[o[0] as usize],
            };
            let mut best = 0;
            for i in 0..n as isize {
                let x = v[(o[0] + i * l.strides()[dim]) as usize];
                match op {
                    ScanOp::Sum => a += x,
                    ScanOp::Prod => a *= x,
                    ScanOp::LogSumExp => {
                        let m = a.max(x);
                        a = m + ((a - m).exp() + (x - m).exp()).ln();
                    }
                    _ => {
                        let ahead = if op == ScanOp::Max { x >= a } else { x <= a };
                        if x.is_nan() || (!a.is_nan() && ahead) {
                            (a, best) = (x, i as i64);
                        }
                    }
                }
                let p = (o[1] + i * dense.strides()[dim]) as usize;
                let tol = if to == DType::F32 { 1e-6 } else { 1e-9 };
                let ok = (got[p] - a).abs() <= tol * (1.0 + a.abs())
                    || (got[p].is_nan() && a.is_nan())
                    || got[p] == a;
                assert!(ok, "{op:?} {shape:?} dim {dim} at {i}: {} {a}", got[p]);
                if matches!(op, ScanOp::Max | ScanOp::Min) {
                    assert_eq!(at[p], best, "{op:?} {shape:?} {dim}");
                }
            }
        }
    }
}
