//! What a scan does with each element: sums, products and log-sums of every dtype.

use super::logsum::LogSums;
use super::{Advance, Bundle};
use crate::simd::{S, dispatch};
use crate::vecmath::complex::{self, Z};
use pyrite_core::dtype::Complex;
use pyrite_core::expr::Field;

/// One kind of scan over elements `T`, accumulated in `A`.
pub trait Scan<T>: 'static {
    type A: Copy + Send + Sync;
    fn start() -> Self::A;
    fn step(a: Self::A, x: T) -> Self::A;
    /// Two accumulators of neighbouring pieces.
    fn join(a: Self::A, b: Self::A) -> Self::A;
    fn get(a: Self::A) -> T;
    /// A few additions more cost less than waiting for one.
    const CHEAP: bool = true;
    /// Scans lines from the accumulators in `from`, which it brings up to date.
    fn advance(b: Bundle<T>, from: &mut [Self::A])
    where
        Self: Sized,
        T: Copy,
    {
        dispatch(Advance::<T, Self> { b, from, totals: false });
    }
}

pub struct Sum;
pub struct Prod;
pub struct LogSumExp;

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
pub fn log_add(a: f64, b: f64) -> f64 {
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
            fn advance(b: Bundle<$t>, from: &mut [f64]) {
                dispatch(LogSums { b, from });
            }
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
