//! f64 functions: exponentials, logarithms, hyperbolic functions, the error function. Circular ones
//! are in `trig64`.

use super::coef64 as c;
use super::common::{self, log_edges, poly};
use super::scalar;
pub use super::trig64::{acos, asin, atan, atan2, cos, sin, tan};
use crate::simd::Base;

pub trait D: Base<Elem = f64> {}
impl<T: Base<Elem = f64>> D for T {}

// ln(2) in two numbers; the first has 32 bits, so that its product with an exponent is exact.
const LN2_HI: f64 = 0.6931471803691238;
const LN2_LO: f64 = 1.9082149292705877e-10;
const LOG2_E: f64 = std::f64::consts::LOG2_E;

macro_rules! lane_wise {
    ($($f:ident)*) => { $(
        #[inline(always)]
        pub fn $f<V: D>(x: V) -> V {
            x.each_(scalar::$f)
        }
    )* };
}
lane_wise!(erfinv lgamma digamma);

/// Lane by lane: a vector version needs the logarithm in more than double precision.
#[inline(always)]
pub fn pow<V: D>(a: V, b: V) -> V {
    a.each2_(b, scalar::pow)
}
#[inline(always)]
pub fn hypot<V: D>(a: V, b: V) -> V {
    a.each2_(b, scalar::hypot)
}
#[inline(always)]
pub fn nextafter<V: D>(a: V, b: V) -> V {
    a.each2_(b, scalar::nextafter)
}
#[inline(always)]
pub fn fmod<V: D>(a: V, b: V) -> V {
    common::fmod(a, b, 2251799813685248.0, 1e-280, |x, y| x % y)
}

/// To the nearest integer for |x| < 2^51.
#[inline(always)]
pub(super) fn nearest<V: D>(x: V) -> V {
    if V::FMA {
        x.round_()
    } else {
        // Rounding is a library call there; adding and taking away 1.5 * 2^52 does the same.
        let magic = V::lit(6755399441055744.0);
        (x + magic) - magic
    }
}

/// `(n, p)` with `exp(x + lo) = 2^n * (1 + p)`, |x| below 10^4.
#[inline(always)]
fn exp_parts<V: D>(x: V, lo: V) -> (V, V) {
    let n = nearest(x * V::lit(LOG2_E));
    let r = V::fma_(n, V::lit(-LN2_HI), x);
    let r = V::fma_(n, V::lit(-LN2_LO), r) + lo;
    (n, V::fma_(r * r, poly(r, &c::EXP), r))
}

/// Between two bounds; NaN stays.
#[inline(always)]
fn clamp<V: D>(x: V, lo: f64, hi: f64) -> V {
    V::min_(V::lit(hi), V::max_(V::lit(lo), x))
}

#[inline(always)]
pub fn exp<V: D>(x: V) -> V {
    let (n, p) = exp_parts(clamp(x, -746.0, 710.0), V::lit(0.0));
    (p + V::lit(1.0)).ldexp_(n)
}

#[inline(always)]
pub fn exp2<V: D>(x: V) -> V {
    let x = clamp(x, -1080.0, 1025.0);
    let n = nearest(x);
    // The fraction is exact; times ln(2) in two parts.
    let f = x - n;
    let r = f * V::lit(std::f64::consts::LN_2);
    let lo = V::fma_(f, V::lit(LN2_LO), V::fma_(f, V::lit(LN2_HI), -r));
    let p = r + V::fma_(r * r, poly(r, &c::EXP), lo);
    (p + V::lit(1.0)).ldexp_(n)
}

/// `exp(x) - 1` in two numbers, for |x| <= 45.
#[inline(always)]
fn expm1_two<V: D>(x: V) -> (V, V) {
    let one = V::lit(1.0);
    let n = nearest(x * V::lit(LOG2_E));
    let a = V::fma_(n, V::lit(-LN2_HI), x);
    let b = n * V::lit(LN2_LO);
    let r = a - b;
    let rl = (a - r) - b;
    let t = r * r * poly(r, &c::EXP);
    let p = r + t;
    let pl = ((r - p) + t) + V::fma_(rl, r, rl);
    // Times 2^n, minus 1: for n != 0 the power (minus 1) outweighs the rest.
    let s = one.ldexp_(n);
    let (sm, sp) = (s - one, s * p);
    let e = sm + sp;
    let big_first = (sm - e) + sp;
    let big_last = (sp - e) + sm;
    let el = V::select(V::lt(sm.abs_(), sp.abs_()), big_last, big_first) + s * pl;
    (e, el)
}

#[inline(always)]
pub fn expm1<V: D>(x: V) -> V {
    // Above 40 subtracting 1 changes nothing.
    let far = V::lt(V::lit(40.0), x);
    let y = clamp(x, -40.0, 40.0);
    let (e, el) = expm1_two(y);
    let r = V::select(V::lt(x.abs_(), V::lit(1e-17)), x, e + el);
    V::select(far, exp(x), r)
}

#[inline(always)]
pub fn sinh<V: D>(x: V) -> V {
    let a = x.abs_();
    let (e, el) = expm1_two(V::min_(V::lit(40.0), a));
    let one = V::lit(1.0);
    let near = V::lit(0.5) * (e + (el + e / (e + one)));
    let (n, p) = exp_parts(V::min_(V::lit(712.0), a), V::lit(0.0));
    let far = (p + one).ldexp_(n - one);
    let r = V::select(V::lt(V::lit(22.0), a), far, near);
    V::copysign_(V::select(V::lt(a, V::lit(1e-9)), a, r), x)
}

#[inline(always)]
pub fn cosh<V: D>(x: V) -> V {
    let one = V::lit(1.0);
    let (n, p) = exp_parts(V::min_(V::lit(712.0), x.abs_()), V::lit(0.0));
    let h = (p + one).ldexp_(n - one);
    h + V::lit(0.25) / h
}

#[inline(always)]
pub fn tanh<V: D>(x: V) -> V {
    let a = V::min_(V::lit(20.0), x.abs_());
    let (e, el) = expm1_two(a + a);
    // e / (e + 2), corrected by what the sum and the quotient lost.
    let two = V::lit(2.0);
    let d = e + two;
    let dl = V::select(V::lt(e, two), (two - d) + e, (e - d) + two) + el;
    let inv = V::lit(1.0) / d;
    let q = e * inv;
    let rest = V::fma_exact_(-q, d, e) + (el - q * dl);
    let r = V::fma_(rest, inv, q);
    V::copysign_(V::select(V::lt(a, V::lit(1e-9)), a, r), x)
}

#[inline(always)]
pub fn sigmoid<V: D>(x: V) -> V {
    let one = V::lit(1.0);
    // 1 / (1 + 2^n (1 + p)). Far down the 1 plays no role: the power is applied to the quotient,
    // so that denormal results come out.
    let (n, p) = exp_parts(clamp(-x, -746.0, 746.0), V::lit(0.0));
    let m = V::min_(V::lit(200.0), n);
    let s = one.ldexp_(m);
    let d = V::fma_(s, p, s + one);
    // NaN is lost in the power of two on some sets, not in p.
    (one / d).ldexp_(m - n)
}

/// `(e, f, k)` with `log(x) = e * ln(2) + (f - k)`, k the smaller part.
#[inline(always)]
fn log_parts<V: D>(x: V) -> (V, V, V) {
    let (m, e) = x.split_();
    let f = m - V::lit(1.0);
    let s = f / (f + V::lit(2.0));
    let z = s * s;
    let h = V::lit(0.5) * f * f;
    // log(1 + f) = 2 atanh(s), and 2 s = f - (h - s h).
    let k = h - s * V::fma_(z, poly(z, &c::LOG), h);
    (e, f, k)
}

/// The logarithm of `x` plus a small `lo`.
#[inline(always)]
fn log_sum<V: D>(x: V, lo: V) -> V {
    let (e, f, k) = log_parts(x);
    let t = e * V::lit(LN2_HI);
    let s = t + f;
    let err = f - (s - t);
    s + (err + (V::fma_(e, V::lit(LN2_LO), -k) + lo))
}

#[inline(always)]
pub fn log<V: D>(x: V) -> V {
    log_edges(x, log_sum(x, V::lit(0.0)))
}

#[inline(always)]
pub fn log1p<V: D>(x: V) -> V {
    let one = V::lit(1.0);
    let u = x + one;
    let lost = V::select(V::lt(one, x), one - (u - x), x - (u - one));
    let r = log_edges(u, log_sum(u, lost / u));
    V::select(V::lt(x.abs_(), V::lit(1e-17)), x, r)
}

/// `e * (unit_hi + unit_lo) + log(m) * (l + l_lo)`: the logarithm to another base.
#[inline(always)]
fn log_base<V: D>(x: V, unit_hi: f64, unit_lo: f64, l: f64, l_lo: f64) -> V {
    let (e, f, k) = log_parts(x);
    let h = f - k;
    let hl = (f - h) - k;
    let p = h * V::lit(l);
    let pl = V::fma_exact_(h, V::lit(l), -p) + V::fma_(hl, V::lit(l), h * V::lit(l_lo));
    let t = e * V::lit(unit_hi);
    let s = t + p;
    let err = p - (s - t);
    log_edges(x, s + (err + V::fma_(e, V::lit(unit_lo), pl)))
}

#[inline(always)]
pub fn log2<V: D>(x: V) -> V {
    log_base(x, 1.0, 0.0, LOG2_E, 2.0355273740931033e-17)
}

#[inline(always)]
pub fn log10<V: D>(x: V) -> V {
    log_base(x, 0.3010299955494702, 1.1451100898021838e-10, std::f64::consts::LOG10_E, 1.098319650216765e-17)
}

/// Above this, squares drown 1 and the inverse hyperbolic functions are `log(2 x)`.
const BIG: f64 = 268435456.0;

#[inline(always)]
pub fn asinh<V: D>(x: V) -> V {
    let a = x.abs_();
    let one = V::lit(1.0);
    let big = V::lt(V::lit(BIG), a);
    let t = a + a * a / (one + V::fma_(a, a, one).sqrt_());
    let r = log1p(V::select(big, a - one, t));
    let r = V::select(big, r + V::lit(std::f64::consts::LN_2), r);
    V::copysign_(V::select(V::lt(a, V::lit(1e-9)), a, r), x)
}

#[inline(always)]
pub fn acosh<V: D>(x: V) -> V {
    let t = x - V::lit(1.0);
    let big = V::lt(V::lit(BIG), x);
    let r = log1p(V::select(big, t, t + V::fma_(t, t, t + t).sqrt_()));
    let r = V::select(big, r + V::lit(std::f64::consts::LN_2), r);
    V::select(V::lt(t, V::lit(0.0)), V::lit(f64::NAN), r)
}

#[inline(always)]
pub fn atanh<V: D>(x: V) -> V {
    let a = x.abs_();
    let one = V::lit(1.0);
    let r = V::lit(0.5) * log1p((a + a) / (one - a));
    // Beyond 1 the quotient is below -1 and log1p answers NaN.
    V::copysign_(V::select(V::lt(a, V::lit(1e-9)), a, r), x)
}

/// `erfc(x)` for x >= 0.
#[inline(always)]
fn erfc_far<V: D>(x: V) -> V {
    let x = V::min_(V::lit(28.0), x);
    let (one, four) = (V::lit(1.0), V::lit(4.0));
    let f = poly((x - four) / (x + four), &c::ERFC) / (x + x + one);
    let h = x * x;
    let l = V::fma_exact_(x, x, -h);
    let (n, p) = exp_parts(-h, -l);
    V::fma_(f, p, f).ldexp_(n)
}

#[inline(always)]
pub fn erf<V: D>(x: V) -> V {
    let a = x.abs_();
    let near = V::fma_(a, poly(a * a, &c::ERF), a);
    let far = V::lit(1.0) - erfc_far(a);
    V::copysign_(V::select(V::lt(a, V::lit(1.0)), near, far), x)
}

#[inline(always)]
pub fn erfc<V: D>(x: V) -> V {
    let a = x.abs_();
    let one = V::lit(1.0);
    let near = (one - x) - x * poly(x * x, &c::ERF);
    let far = erfc_far(a);
    let far = V::select(V::lt(x, V::lit(0.0)), V::lit(2.0) - far, far);
    V::select(V::lt(a, V::lit(0.5)), near, far)
}
