//! Logarithm, exponential and sine of the random distributions: written with correctly rounded
//! operations in one order, so that every instruction set and CUDA give the same numbers.
//!
//! `vecmath` is more accurate at the edges but may differ between instruction sets by an ulp.

use crate::simd::Base;
use std::f64::consts::{LN_2, LOG2_E, TAU};

/// Series lengths and split constants of a precision.
pub trait Digits: Base {
    /// Taylor coefficients of `atanh(s) / s` from `s^2` on: `1 / (2k + 3)`, doubled.
    const ATANH: &'static [f64];
    /// Odd and even coefficients of sine and cosine of a turn, in powers of the turn squared.
    const SIN: &'static [f64];
    const COS: &'static [f64];
    /// `1 / k!` from k = 0 on.
    const EXP: &'static [f64];
    const LN2_HI: f64;
    const LN2_LO: f64;
    /// Arguments beyond these give infinity and zero.
    const EXP_MAX: f64;
    const EXP_MIN: f64;
}

const fn atanh_series<const N: usize>() -> [f64; N] {
    let mut c = [0.0; N];
    let mut k = 0;
    while k < N {
        c[k] = 2.0 / (2 * k + 3) as f64;
        k += 1;
    }
    c
}
const fn exp_series<const N: usize>() -> [f64; N] {
    let mut c = [1.0; N];
    let mut k = 1;
    while k < N {
        c[k] = c[k - 1] / k as f64;
        k += 1;
    }
    c
}
/// `(-1)^k * TAU^(2k + odd) / (2k + odd)!`
const fn turn_series<const N: usize>(odd: usize) -> [f64; N] {
    let mut c = [0.0; N];
    let mut term = if odd == 1 { TAU } else { 1.0 };
    let mut k = 0;
    while k < N {
        c[k] = term;
        let n = (2 * k + odd) as f64;
        term = -term * TAU * TAU / ((n + 1.0) * (n + 2.0));
        k += 1;
    }
    c
}

/// Is this lane type one of f32?
const fn single<V: Base>() -> bool {
    size_of::<V::Elem>() == 4
}
impl<V: Base> Digits for V {
    const ATANH: &'static [f64] = if single::<V>() { &atanh_series::<6>() } else { &atanh_series::<12>() };
    const SIN: &'static [f64] = if single::<V>() { &turn_series::<5>(1) } else { &turn_series::<9>(1) };
    const COS: &'static [f64] = if single::<V>() { &turn_series::<6>(0) } else { &turn_series::<10>(0) };
    const EXP: &'static [f64] = if single::<V>() { &exp_series::<8>() } else { &exp_series::<14>() };
    // The high parts end in zeros, so that their products with exponents are exact.
    const LN2_HI: f64 = if single::<V>() { 0.693359375 } else { LN2_HI_F64 };
    const LN2_LO: f64 = if single::<V>() { LN_2 - 0.693359375 } else { 1.9082149292705877e-10 };
    const EXP_MAX: f64 = if single::<V>() { 89.0 } else { 710.0 };
    const EXP_MIN: f64 = if single::<V>() { -104.0 } else { -746.0 };
}
const LN2_HI_F64: f64 = 0.6931471803691238;

#[inline(always)]
fn horner<V: Base>(x: V, c: &[f64]) -> V {
    let mut s = V::lit(c[c.len() - 1]);
    for &k in c[..c.len() - 1].iter().rev() {
        s = V::fma_exact_(s, x, V::lit(k));
    }
    s
}

/// Natural logarithm of positive finite numbers.
#[inline(always)]
pub fn ln<V: Digits>(x: V) -> V {
    let (m, e) = x.split_();
    // ln m = 2 atanh(s), |s| <= 1/5.
    let s = (m - V::lit(1.0)) / (m + V::lit(1.0));
    let z = s * s;
    let p = horner(z, V::ATANH) * z;
    let lo = V::fma_exact_(s, p, e * V::lit(V::LN2_LO));
    let lo = V::fma_exact_(s, V::lit(2.0), lo);
    V::fma_exact_(e, V::lit(V::LN2_HI), lo)
}

/// Sine and cosine of `2 pi t`, `|t| <= 1/2`.
#[inline(always)]
pub fn turn<V: Digits>(t: V) -> (V, V) {
    let q = (t * V::lit(4.0)).round_();
    let f = V::fma_exact_(q, V::lit(-0.25), t);
    let z = f * f;
    let s = horner(z, V::SIN) * f;
    let c = horner(z, V::COS);
    // Odd quarters swap, and the half turn and the third quarter (-1) negate.
    let a = q.abs_();
    let one = V::lit(1.0);
    let odd = V::eq(a, one);
    let (s, c) = (V::select(odd, c, s), V::select(odd, -s, c));
    let flip = V::eq(q, V::lit(-1.0)) | V::eq(a, V::lit(2.0));
    (V::select(flip, -s, s), V::select(flip, -c, c))
}

/// Exponential; overflows to infinity and underflows to zero.
#[inline(always)]
pub fn exp<V: Digits>(x: V) -> V {
    // `min_` and `max_` give the second where the first is NaN: keep NaN at the end.
    let y = V::min_(V::max_(x, V::lit(V::EXP_MIN)), V::lit(V::EXP_MAX));
    let n = (y * V::lit(LOG2_E)).round_();
    let r = V::fma_exact_(n, V::lit(-V::LN2_HI), y);
    let r = V::fma_exact_(n, V::lit(-V::LN2_LO), r);
    let e = horner(r, V::EXP).ldexp_(n);
    V::select(x.is_nan_(), x, e)
}
