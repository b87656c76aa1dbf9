//! Random fills and dropout: Philox words (`philox.rs`) turned into values by the formulas that
//! `pyrite_core::rng` documents. Chunks start at whole groups of the stream, so neither threads nor
//! vector width can change a value.

mod math;
mod philox;
#[cfg(test)]
mod tests;

use crate::oom;
use crate::pool::{chunks, parallel, with_scratch};
use crate::simd::{Arch, ArchKernel, Lanes, dispatch};
use crate::strided::{Ptr, gather_flat, scatter_flat};
use math::{Digits, exp, ln, turn};
use philox::{Group, group};
use pyrite_core::backend::{Philox, Random};
use pyrite_core::dtype::Bool8;
use pyrite_core::half::{bf16, f16};
use pyrite_core::rng::{below, words};
use pyrite_core::{Arr, DType, Result, bail, match_dtype};

/// Elements of a chunk of work at least; a multiple of every group size.
const MIN_CHUNK: usize = 8192;
/// Elements staged at a time for outputs that a kernel can't write where they lie.
const PIECE: usize = 1024;

/// Fills `dst` (dense, but any strides give the same numbers in row-major order).
pub fn fill(dist: Random, at: Philox, dst: Arr) -> Result<()> {
    let n = dst.numel();
    if n == 0 {
        return Ok(());
    }
    if dst.dtype.is_complex() {
        bail!(NotImplemented, "random: not implemented for {}; fill the real and imaginary parts", dst.dtype);
    }
    let float = dst.dtype.is_float();
    match dist {
        Random::Integers { lo, hi } if hi <= lo => {
            bail!(Value, "random integers: the range [{lo}, {hi}) is empty")
        }
        Random::Integers { .. } | Random::Bernoulli { .. } => {
            match_dtype!(real, dst.dtype, |T| fill_as::<T>(dist, at, dst), else Ok(()))
        }
        Random::Geometric { .. } if !float => {
            match_dtype!(real, dst.dtype, |T| fill_as::<T>(dist, at, dst), else Ok(()))
        }
        _ => match dst.dtype {
            DType::F32 => fill_as::<f32>(dist, at, dst),
            DType::F64 => fill_as::<f64>(dist, at, dst),
            DType::F16 => fill_as::<f16>(dist, at, dst),
            DType::BF16 => fill_as::<bf16>(dist, at, dst),
            d => bail!(NotImplemented, "random: {dist:?} is not implemented for {d}; use a floating dtype"),
        },
    }
}

fn fill_as<T: Drawn>(dist: Random, at: Philox, dst: Arr) -> Result<()> {
    let n = dst.numel();
    let dense = dst.is_contiguous();
    let (k, size) = chunks(n, MIN_CHUNK);
    let per = 64 / words(dist, dst.dtype);
    let (arr, base) = ((Ptr(dst.ptr), dst.dtype), Ptr(dst.ptr.cast::<T>()));
    let (shape, strides) = (dst.shape, dst.strides);
    let at_element = move |i: usize| at.offset.wrapping_add((i / per * 16) as u64);
    parallel(k, n as u64, &|c| {
        let (mut i, end) = (c * size, n.min((c + 1) * size));
        if dense {
            // SAFETY: the chunk lies inside the dense array.
            let out = unsafe { base.get().add(i) };
            return dispatch(Fill { dist, seed: at.seed, counter: at_element(i), out, n: end - i });
        }
        let mut piece = [T::ZERO; PIECE];
        while i < end {
            let m = PIECE.min(end - i);
            let out = piece.as_mut_ptr();
            dispatch(Fill { dist, seed: at.seed, counter: at_element(i), out, n: m });
            let mut from = piece.iter();
            crate::strided::for_runs(shape, strides, i, m, |off, stride, len| {
                for (j, v) in from.by_ref().take(len).enumerate() {
                    // SAFETY: runs stay inside the array; every position belongs to one chunk.
                    unsafe { arr.0.get().cast::<T>().offset(off + j as isize * stride).write_unaligned(*v) }
                }
            });
            i += m;
        }
    });
    Ok(())
}

/// `n` values from the group at `counter` on.
struct Fill<T> {
    dist: Random,
    seed: u64,
    counter: u64,
    out: *mut T,
    n: usize,
}

impl<T: Drawn> ArchKernel for Fill<T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let per = 64 / words(self.dist, T::DTYPE);
        let mut g = Group::ZERO;
        let mut tail = [T::ZERO; 64];
        let (mut i, mut counter) = (0, self.counter);
        while i < self.n {
            group::<A>(self.seed, counter, &mut g);
            let m = per.min(self.n - i);
            // SAFETY: `m` elements from `i` on are inside the chunk; a short group is made in
            // `tail`, which holds a whole one.
            unsafe {
                let out = self.out.add(i);
                if m == per {
                    T::values::<A>(self.dist, &g, out);
                } else {
                    T::values::<A>(self.dist, &g, tail.as_mut_ptr());
                    std::ptr::copy_nonoverlapping(tail.as_ptr(), out, m);
                }
            }
            i += m;
            counter = counter.wrapping_add(16);
        }
    }
}

/// An element type that can be drawn.
trait Drawn: pyrite_core::Elem {
    const ZERO: Self;
    fn of_int(v: i64) -> Self;
    /// The elements of one group.
    /// # Safety
    /// `out` has room for a group's elements (64 or 32, by `rng::words`).
    unsafe fn values<A: Arch>(dist: Random, g: &Group, out: *mut Self);
}

/// Bernoulli and integers, for every element type.
/// # Safety
/// As `Drawn::values`.
#[inline(always)]
unsafe fn whole<T: Drawn>(dist: Random, g: &Group, out: *mut T) {
    // SAFETY: 64 elements for one word each, 32 for two: the caller's promise.
    let put = |i: usize, v: T| unsafe { out.add(i).write_unaligned(v) };
    match dist {
        Random::Bernoulli { p } => {
            let (one, zero) = (T::of_int(1), T::ZERO);
            let limit = below(p);
            for k in 0..4 {
                // A copy that no store can change: the loop becomes vectors.
                let row = g.0[k];
                for l in 0..16 {
                    let hit = limit.is_some_and(|t| row[l] <= t);
                    put(k * 16 + l, if hit { one } else { zero });
                }
            }
        }
        Random::Integers { lo, hi } => {
            let n = hi.wrapping_sub(lo) as u64;
            if n <= 1 << 16 {
                for k in 0..4 {
                    let row = g.0[k];
                    for l in 0..16 {
                        let v = (row[l] as u64 * n) >> 32;
                        put(k * 16 + l, T::of_int(lo + v as i64));
                    }
                }
                return;
            }
            const ALL: u64 = i64::MAX as u64;
            for h in 0..2 {
                let (high, low) = (g.0[2 * h], g.0[2 * h + 1]);
                let mut drawn = [0u64; 16];
                if n < 1 << 32 {
                    for l in 0..16 {
                        let (x1, x0) = (high[l] as u64, low[l] as u64);
                        drawn[l] = (x1 * n + ((x0 * n) >> 32)) >> 32;
                    }
                } else if n == ALL {
                    // The remainder by 2^63 - 1 (what permutations draw) without a division.
                    for l in 0..16 {
                        let x = (high[l] as u64) << 32 | low[l] as u64;
                        let v = (x & ALL) + (x >> 63);
                        drawn[l] = if v >= ALL { v - ALL } else { v };
                    }
                } else {
                    for l in 0..16 {
                        drawn[l] = ((high[l] as u64) << 32 | low[l] as u64) % n;
                    }
                }
                for l in 0..16 {
                    put(h * 16 + l, T::of_int(lo.wrapping_add(drawn[l] as i64)));
                }
            }
        }
        _ => {}
    }
}

macro_rules! drawn_int {
    ($($t:ty: $zero:expr, $conv:expr;)*) => { $(
        impl Drawn for $t {
            const ZERO: Self = $zero;
            #[inline(always)]
            fn of_int(v: i64) -> Self {
                let f: fn(i64) -> $t = $conv;
                f(v)
            }
            #[inline(always)]
            unsafe fn values<A: Arch>(dist: Random, g: &Group, out: *mut Self) {
                if let Random::Geometric { .. } = dist {
                    let mut v = [0f64; 32];
                    floats64::<A>(dist, g, &mut v);
                    for (i, v) in v.into_iter().enumerate() {
                        // SAFETY: 32 elements, as promised.
                        unsafe { out.add(i).write_unaligned(Self::of_int(v as i64)) }
                    }
                } else {
                    // SAFETY: the caller's promise.
                    unsafe { whole(dist, g, out) }
                }
            }
        }
    )* };
}
drawn_int! {
    Bool8: Bool8(0), |v| Bool8((v != 0) as u8);
    u8: 0, |v| v as u8; i8: 0, |v| v as i8; i16: 0, |v| v as i16; u16: 0, |v| v as u16;
    i32: 0, |v| v as i32; u32: 0, |v| v as u32; i64: 0, |v| v; u64: 0, |v| v as u64;
}

macro_rules! drawn_float {
    ($t:ty, $buf:ty, $n:literal, $make:ident, $zero:expr, $int:expr, $of:expr) => {
        impl Drawn for $t {
            const ZERO: Self = $zero;
            #[inline(always)]
            fn of_int(v: i64) -> Self {
                let f: fn(i64) -> $t = $int;
                f(v)
            }
            #[inline(always)]
            unsafe fn values<A: Arch>(dist: Random, g: &Group, out: *mut Self) {
                if let Random::Bernoulli { .. } | Random::Integers { .. } = dist {
                    // SAFETY: the caller's promise.
                    return unsafe { whole(dist, g, out) };
                }
                let mut v: [$buf; $n] = [0.0; $n];
                $make!(A, dist, g, v, $t);
                let f: fn($buf) -> $t = $of;
                for i in 0..$n {
                    // SAFETY: a group has $n elements, as promised.
                    unsafe { out.add(i).write_unaligned(f(v[i])) }
                }
            }
        }
    };
}
macro_rules! via32 {
    ($A:ident, $dist:expr, $g:expr, $v:expr, $t:ty) => {
        floats32::<$A, $t>($dist, $g, &mut $v)
    };
}
macro_rules! via64 {
    ($A:ident, $dist:expr, $g:expr, $v:expr, $t:ty) => {
        floats64::<$A>($dist, $g, &mut $v)
    };
}
drawn_float!(f32, f32, 64, via32, 0.0, |v| v as f32, |v| v);
drawn_float!(f64, f64, 32, via64, 0.0, |v| v as f64, |v| v);
drawn_float!(f16, f32, 64, via32, f16::ZERO, |v| f16::from_f64(v as f64), f16::from_f32);
drawn_float!(bf16, f32, 64, via32, bf16::ZERO, |v| bf16::from_f64(v as f64), bf16::from_f32);

/// The greatest number below `hi` in a dtype, if the range is not empty.
fn top(d: DType, lo: f64, hi: f64) -> f64 {
    if lo >= hi || lo.is_nan() || hi.is_nan() {
        return lo;
    }
    // Rounding may reach or pass `hi`: then the neighbour below.
    match d {
        DType::F32 => {
            let h = hi as f32;
            (if (h as f64) < hi { h } else { crate::vecmath::scalar::nextafterf(h, f32::NEG_INFINITY) })
                as f64
        }
        DType::F16 => {
            let h = f16::from_f64(hi);
            (if h.to_f64() < hi { h } else { half_below(h.to_bits(), f16::from_bits, f16::to_f32) }).to_f64()
        }
        DType::BF16 => {
            let h = bf16::from_f64(hi);
            (if h.to_f64() < hi { h } else { half_below(h.to_bits(), bf16::from_bits, bf16::to_f32) })
                .to_f64()
        }
        _ => crate::vecmath::scalar::nextafter(hi, f64::NEG_INFINITY),
    }
}

/// The neighbour below of a 16-bit float.
fn half_below<T>(bits: u16, of: fn(u16) -> T, to: fn(T) -> f32) -> T {
    let v = to(of(bits));
    if v == 0.0 {
        of(0x8001)
    } else if v > 0.0 {
        of(bits - 1)
    } else {
        of(bits + 1)
    }
}

/// Values of one group computed in f32, for element type `T`.
#[inline(always)]
fn floats32<A: Arch, T: Drawn>(dist: Random, g: &Group, v: &mut [f32; 64]) {
    // SAFETY: four rows of sixteen words are 64 words.
    let w: &[u32; 64] = unsafe { &*(&raw const g.0).cast() };
    const UNIT: f32 = 1.0 / (1 << 24) as f32;
    match dist {
        Random::Uniform { lo, hi } => {
            let digits = match T::DTYPE {
                DType::F16 => 11,
                DType::BF16 => 8,
                _ => 24,
            };
            let (shift, unit) = (32 - digits, 1.0 / (1u32 << digits) as f32);
            let (span, base, most) = ((hi - lo) as f32, lo as f32, top(T::DTYPE, lo, hi) as f32);
            for i in 0..64 {
                v[i] = (w[i] >> shift) as i32 as f32 * unit;
            }
            each::<A::F32, _>(v, Spread { span: span as f64, base: base as f64, most: most as f64 });
        }
        Random::Cauchy { median, sigma } => {
            for i in 0..64 {
                v[i] = ((w[i] as i32) >> 8) as f32 * UNIT;
            }
            each::<A::F32, _>(v, Cauchy { half: 0.5 * UNIT as f64, median, sigma });
        }
        Random::Exponential { .. } | Random::Geometric { .. } => {
            for i in 0..64 {
                v[i] = ((w[i] >> 8) + 1) as i32 as f32 * UNIT;
            }
            each::<A::F32, _>(v, Waiting { dist, least: 0.5 * UNIT as f64 });
        }
        Random::Normal { mean, std } | Random::LogNormal { mean, std } => {
            for h in 0..2 {
                for l in 0..16 {
                    v[h * 32 + l] = ((g.0[2 * h][l] >> 8) + 1) as i32 as f32 * UNIT;
                    v[h * 32 + 16 + l] = ((g.0[2 * h + 1][l] as i32) >> 8) as f32 * UNIT;
                }
            }
            pairs::<A::F32, 64>(v, mean, std, matches!(dist, Random::LogNormal { .. }));
        }
        Random::Bernoulli { .. } | Random::Integers { .. } => {}
    }
}

/// Values of one group computed in f64.
#[inline(always)]
fn floats64<A: Arch>(dist: Random, g: &Group, v: &mut [f64; 32]) {
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    let mut x = [0u64; 32];
    for h in 0..2 {
        for l in 0..16 {
            x[h * 16 + l] = (g.0[2 * h][l] as u64) << 32 | g.0[2 * h + 1][l] as u64;
        }
    }
    match dist {
        Random::Uniform { lo, hi } => {
            let (span, most) = (hi - lo, top(DType::F64, lo, hi));
            for i in 0..32 {
                v[i] = (x[i] >> 11) as i64 as f64 * UNIT;
            }
            each::<A::F64, _>(v, Spread { span, base: lo, most });
        }
        Random::Cauchy { median, sigma } => {
            for i in 0..32 {
                v[i] = ((x[i] as i64) >> 11) as f64 * UNIT;
            }
            each::<A::F64, _>(v, Cauchy { half: 0.5 * UNIT, median, sigma });
        }
        Random::Exponential { .. } | Random::Geometric { .. } => {
            for i in 0..32 {
                v[i] = ((x[i] >> 11) + 1) as i64 as f64 * UNIT;
            }
            each::<A::F64, _>(v, Waiting { dist, least: 0.5 * UNIT });
        }
        Random::Normal { mean, std } | Random::LogNormal { mean, std } => {
            for l in 0..16 {
                v[l] = ((x[l] >> 11) + 1) as i64 as f64 * UNIT;
                v[16 + l] = ((x[16 + l] as i64) >> 11) as f64 * UNIT;
            }
            pairs::<A::F64, 32>(v, mean, std, matches!(dist, Random::LogNormal { .. }));
        }
        Random::Bernoulli { .. } | Random::Integers { .. } => {}
    }
}

/// A function of one vector. A trait, because closures can't be marked for inlining.
trait Shape: Copy {
    fn at<V: Digits>(self, x: V) -> V;
}

#[inline(always)]
fn each<V: Digits, F: Shape>(v: &mut [V::Elem], f: F) {
    for i in (0..v.len()).step_by(V::N) {
        // SAFETY: lengths are multiples of 16, and V::N divides 16.
        unsafe {
            let p = v.as_mut_ptr().add(i);
            f.at(V::load(p)).store(p)
        }
    }
}

#[derive(Clone, Copy)]
struct Spread {
    span: f64,
    base: f64,
    most: f64,
}
impl Shape for Spread {
    #[inline(always)]
    fn at<V: Digits>(self, x: V) -> V {
        V::min_(V::fma_exact_(x, V::lit(self.span), V::lit(self.base)), V::lit(self.most))
    }
}

#[derive(Clone, Copy)]
struct Cauchy {
    half: f64,
    median: f64,
    sigma: f64,
}
impl Shape for Cauchy {
    #[inline(always)]
    fn at<V: Digits>(self, t: V) -> V {
        let (s, c) = turn(V::fma_exact_(t, V::lit(0.5), V::lit(0.5 * self.half)));
        V::fma_exact_(s / c, V::lit(self.sigma), V::lit(self.median))
    }
}

/// Exponential and geometric: waiting times.
#[derive(Clone, Copy)]
struct Waiting {
    dist: Random,
    least: f64,
}
impl Shape for Waiting {
    #[inline(always)]
    fn at<V: Digits>(self, u: V) -> V {
        let l = ln(u);
        match self.dist {
            Random::Geometric { p } => V::max_((l / V::lit((-p).ln_1p())).ceil_(), V::lit(1.0)),
            Random::Exponential { rate } => V::max_(-l, V::lit(self.least)) / V::lit(rate),
            _ => l,
        }
    }
}

/// Box-Muller on blocks of 32: 16 of `U`, then 16 of `T`.
#[inline(always)]
fn pairs<V: Digits, const N: usize>(v: &mut [V::Elem; N], mean: f64, std: f64, log: bool) {
    for b in (0..N).step_by(32) {
        for l in (0..16).step_by(V::N) {
            // SAFETY: b + 16 + l + V::N <= N, because N is a multiple of 32 and V::N divides 16.
            unsafe {
                let (p, q) = (v.as_mut_ptr().add(b + l), v.as_mut_ptr().add(b + 16 + l));
                let r = (ln(V::load(p)) * V::lit(-2.0)).sqrt_();
                let (s, c) = turn(V::load(q));
                let (mean, std) = (V::lit(mean), V::lit(std));
                let (z0, z1) = (V::fma_exact_(r * c, std, mean), V::fma_exact_(r * s, std, mean));
                if log {
                    exp(z0).store(p);
                    exp(z1).store(q);
                } else {
                    z0.store(p);
                    z1.store(q);
                }
            }
        }
    }
}

/// `y = keep ? x / (1 - p) : 0`, `mask = keep`; keep with probability `1 - p`, one word per element.
pub fn dropout(at: Philox, p: f64, x: Arr, y: Arr, mask: Arr) -> Result<()> {
    let n = x.numel();
    if y.numel() != n || mask.numel() != n {
        bail!(Shape, "dropout: input {:?}, output {:?} and mask {:?} differ", x.shape, y.shape, mask.shape);
    }
    crate::strided::same_dtype("dropout", &x, &[&y])?;
    if mask.dtype.size() != 1 {
        bail!(Type, "dropout: the mask must be torch.bool, not {}", mask.dtype);
    }
    crate::compute_of!("dropout", x.dtype, |T| drop_as::<T>(at, p, x, y, mask))
}

fn drop_as<T: crate::strided::Compute>(at: Philox, p: f64, x: Arr, y: Arr, mask: Arr) -> Result<()> {
    let n = x.numel();
    let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    let limit = below(p);
    let plain = |a: &Arr| a.is_contiguous();
    let direct = x.dtype == T::DTYPE && plain(&x) && plain(&y) && plain(&mask);
    let (k, size) = chunks(n, MIN_CHUNK);
    let parts = [(Ptr(x.ptr), x), (Ptr(y.ptr), y), (Ptr(mask.ptr), mask)]
        .map(|(p, a)| (p, a.dtype, a.shape, a.strides));
    let failed = std::sync::Mutex::new(None);
    parallel(k, n as u64, &|c| {
        let (start, end) = (c * size, n.min((c + 1) * size));
        let counter = |i: usize| at.offset.wrapping_add((i / 64 * 16) as u64);
        let arr = |j: usize| {
            let (p, dtype, shape, strides) = parts[j];
            Arr { ptr: p.get(), dtype, shape, strides }
        };
        if direct {
            // SAFETY: the chunk lies inside the three dense arrays.
            let (x, y, mask) = unsafe {
                let at = |j: usize| arr(j).ptr.cast::<T>().add(start);
                (at(0).cast_const(), at(1), arr(2).ptr.add(start))
            };
            let seed = at.seed;
            return dispatch(DropOut {
                seed,
                counter: counter(start),
                limit,
                scale,
                x,
                y,
                mask,
                n: end - start,
            });
        }
        let done = with_scratch(PIECE * (size_of::<T>() + 1), |s| {
            let (v, m) = (s.cast::<T>(), s.wrapping_add(PIECE * size_of::<T>()));
            let mut i = start;
            while i < end {
                let len = PIECE.min(end - i);
                // SAFETY: positions inside the arrays, and scratch for a whole piece. The kernel
                // may work in place because it reads each element before it writes it.
                unsafe {
                    gather_flat::<T>(&arr(0), i, len, v);
                    let seed = at.seed;
                    dispatch(DropOut {
                        seed,
                        counter: counter(i),
                        limit,
                        scale,
                        x: v,
                        y: v,
                        mask: m,
                        n: len,
                    });
                    scatter_flat::<T>(&arr(1), i, len, v);
                }
                let (mut from, (mp, _, shape, strides)) = (0, parts[2]);
                crate::strided::for_runs(shape, strides, i, len, |off, stride, k| {
                    for j in 0..k {
                        // SAFETY: runs stay inside the mask, `m` holds `len` bytes.
                        unsafe { *mp.get().offset(off + j as isize * stride) = *m.add(from + j) };
                    }
                    from += k;
                });
                i += len;
            }
        });
        if let Err(e) = done {
            *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(oom(e));
        }
    });
    match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

struct DropOut<T> {
    seed: u64,
    counter: u64,
    limit: Option<u32>,
    scale: f64,
    x: *const T,
    y: *mut T,
    mask: *mut u8,
    n: usize,
}

impl<T: crate::strided::Compute> ArchKernel for DropOut<T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let scale = T::V::<A>::splat(T::of(self.scale));
        let zero = T::V::<A>::splat(T::of(0.0));
        // Nothing is dropped where there is no limit: words are compared with one that none reaches.
        let (limit, any) = (self.limit.unwrap_or(0), self.limit.is_some());
        let mut g = Group::ZERO;
        let (mut i, mut counter) = (0, self.counter);
        let lanes = T::V::<A>::N;
        let mut keep = [0u8; 64];
        while i < self.n {
            group::<A>(self.seed, counter, &mut g);
            for k in 0..4 {
                for l in 0..16 {
                    keep[k * 16 + l] = (!any | (g.0[k][l] > limit)) as u8;
                }
            }
            let m = 64.min(self.n - i);
            // SAFETY: `m` elements from `i` on are inside the chunk; `keep` has 64 >= m bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(keep.as_ptr(), self.mask.add(i), m);
                let mut j = 0;
                while j < m {
                    let k = lanes.min(m - j);
                    let mask = T::V::<A>::load_mask(keep.as_ptr().add(j), lanes);
                    let (x, y) = (self.x.add(i + j), self.y.add(i + j));
                    use pyrite_core::expr::Any;
                    if k == lanes {
                        let v = T::V::<A>::load(x) * scale;
                        T::V::<A>::select(mask, v, zero).store(y);
                    } else {
                        let v = T::V::<A>::load_partial(x, k, T::of(0.0)) * scale;
                        T::V::<A>::select(mask, v, zero).store_partial(y, k);
                    }
                    j += lanes;
                }
            }
            i += m;
            counter = counter.wrapping_add(16);
        }
    }
}
