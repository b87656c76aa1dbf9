//! f32 functions. The busiest (exp, log, sin, cos, tanh, sigmoid, erf) have f32 polynomials; the others run in f64
//! lanes, which rounds them correctly nearly everywhere and still beats a library call per element.

use super::coef32 as c;
use super::coef64 as c64;
use super::common::{self, log_edges, poly};
use super::{f64m, scalar};
use crate::simd::F32Lanes;
use pyrite_core::expr::Mask;
use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

// ln(2) in two numbers; the first has 10 bits, so that its product with an exponent is exact.
const LN2_HI: f64 = 0.693359375;
const LN2_LO: f64 = -2.1219444005469057e-4;
const LOG2_E: f64 = std::f64::consts::LOG2_E;

/// 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits.
const MAGIC: f64 = 12582912.0;

/// `$f` in f64 lanes. A macro, because a function passed as a value is called through a shim that has
/// no target features: 50 ns per element instead of one.
macro_rules! via64 {
    ($f:path, $($x:expr),*) => {{
        let lo = $f($($x.widen(0)),*);
        let hi = if V::PARTS == 2 { $f($($x.widen(1)),*) } else { lo };
        V::narrow(lo, hi)
    }};
}

macro_rules! in_f64 {
    ($($f:ident)*) => { $(
        #[inline(always)]
        pub fn $f<V: F32Lanes>(x: V) -> V {
            via64!(f64m::$f, x)
        }
    )* };
}
in_f64!(expm1 log2 log10 log1p tan asin acos atan sinh cosh asinh acosh atanh erfc);

macro_rules! lane_wise {
    ($($f:ident)*) => { $(
        #[inline(always)]
        pub fn $f<V: F32Lanes>(x: V) -> V {
            x.each_(|v| scalar::$f(v as f64) as f32)
        }
    )* };
}
lane_wise!(lgamma digamma);

#[inline(always)]
pub fn atan2<V: F32Lanes>(y: V, x: V) -> V {
    via64!(f64m::atan2, y, x)
}

#[inline(always)]
pub fn nextafter<V: F32Lanes>(a: V, b: V) -> V {
    a.each2_(b, scalar::nextafterf)
}

#[inline(always)]
pub fn fmod<V: F32Lanes>(a: V, b: V) -> V {
    common::fmod(a, b, 4194304.0, 1e-30, |x, y| x % y)
}

/// Squares of f32 neither overflow nor underflow in f64.
#[inline(always)]
fn hypot64<W: f64m::D>(a: W, b: W) -> W {
    let r = W::fma_(a, a, b * b).sqrt_();
    let inf = W::lit(f64::INFINITY);
    // Infinity wins over NaN.
    W::select(W::eq(a.abs_(), inf) | W::eq(b.abs_(), inf), inf, r)
}

#[inline(always)]
pub fn hypot<V: F32Lanes>(a: V, b: V) -> V {
    via64!(hypot64, a, b)
}

/// `exp(y log|x|)` in f64 has 20 bits to spare for f32; the rest are C's special cases.
#[inline(always)]
fn pow64<W: f64m::D>(x: W, y: W) -> W {
    let (zero, one, half) = (W::lit(0.0), W::lit(1.0), W::lit(0.5));
    let a = x.abs_();
    let r = f64m::exp(y * f64m::log(a));
    let whole = W::eq(y, y.trunc_());
    let hy = y * half;
    let odd = whole & !W::eq(hy, hy.trunc_());
    let bad = W::lt(x, zero) & !whole & W::lt(a, W::lit(f64::INFINITY));
    let r = W::select(bad, W::lit(f64::NAN), r);
    let r = W::select(odd & x.sign_(), -r, r);
    let minus_one = W::eq(a, one) & W::eq(y.abs_(), W::lit(f64::INFINITY));
    W::select(W::eq(x, one) | W::eq(y, zero) | minus_one, one, r)
}

#[inline(always)]
pub fn pow<V: F32Lanes>(a: V, b: V) -> V {
    via64!(pow64, a, b)
}

/// `x` times a polynomial in `w = -log(1 - x^2)`, or in its root towards the ends.
#[inline(always)]
fn erfinv64<W: f64m::D>(x: W) -> W {
    let one = W::lit(1.0);
    let w = -f64m::log((one - x) * (one + x));
    let near = poly(w - W::lit(3.0), &c64::ERFINV_NEAR);
    let far = poly(w.sqrt_() - W::lit(3.25), &c64::ERFINV_FAR);
    let r = x * W::select(W::lt(W::lit(6.0), w), far, near);
    let ends = W::copysign_(W::lit(f64::INFINITY), x);
    W::select(W::eq(x.abs_(), one), ends, r)
}

#[inline(always)]
pub fn erfinv<V: F32Lanes>(x: V) -> V {
    via64!(erfinv64, x)
}

// pi/2 in three f32.
const PIO2_HI: f64 = FRAC_PI_2 as f32 as f64;
const PIO2_MID: f64 = (FRAC_PI_2 - PIO2_HI) as f32 as f64;
const PIO2_LO: f64 = -1.7151245100058819e-15;

/// Sine (`quarter` 0) or cosine (1) for |x| <= 1e5, on sets with a fused multiply-add.
#[inline(always)]
fn sine<V: F32Lanes>(x: V, quarter: i64) -> V {
    let magic = V::lit(MAGIC);
    let t = V::fma_(x, V::lit(FRAC_2_PI), magic);
    let n = t - magic;
    // The first product cancels exactly; `r + l` holds the rest to more than f32.
    let r1 = V::fma_(n, V::lit(-PIO2_HI), x);
    let (r, l) = common::less_product(r1, n, V::lit(PIO2_MID));
    let l = V::fma_(n, V::lit(-PIO2_LO), l);
    let one = V::lit(1.0);
    let z = r * r;
    let h = z * V::lit(0.5);
    let w = one - h;
    let s = r + V::fma_(r * z, poly(z, &c::SIN), l * w);
    let co = w + V::fma_(z * z, poly(z, &c::COS), V::fma_(-r, l, (one - w) - h));
    let k = V::iadd_(t.bits_(), V::isplat_(quarter));
    let y = V::select(V::odd_(k), co, s);
    V::of_bits_(V::ixor_(y.bits_(), V::shl_sign_(V::shr1_(k))))
}

#[inline(always)]
pub fn sin<V: F32Lanes>(x: V) -> V {
    if !V::FMA {
        return via64!(f64m::sin, x);
    }
    let a = x.abs_();
    // Tiny values are their own sine; this also keeps the sign of zero.
    let r = V::select(V::lt(a, V::lit(1e-4)), x, sine(x, 0));
    let near = V::le(a, V::lit(1e5));
    if (!near).any() {
        return V::select(near, r, x.each_(|v| scalar::sin(v as f64) as f32));
    }
    r
}

#[inline(always)]
pub fn cos<V: F32Lanes>(x: V) -> V {
    if !V::FMA {
        return via64!(f64m::cos, x);
    }
    let r = sine(x, 1);
    let near = V::le(x.abs_(), V::lit(1e5));
    if (!near).any() {
        return V::select(near, r, x.each_(|v| scalar::cos(v as f64) as f32));
    }
    r
}

/// `p` with `exp(x) = 2^n (1 + p)` for the given nearest `n`.
#[inline(always)]
fn exp_rest<V: F32Lanes>(x: V, n: V) -> V {
    let r = V::fma_(n, V::lit(-LN2_HI), x);
    let r = V::fma_(n, V::lit(-LN2_LO), r);
    V::fma_(r * r, poly(r, &c::EXP), r)
}

/// `(n, 2^(n - shift))` for the `n` nearest to `x * log2(e)`; both `n - shift` and `n` are exponents of
/// normal numbers.
#[inline(always)]
fn exp_power<V: F32Lanes>(x: V, shift: f64) -> (V, V) {
    // The biased exponent is read from the low bits of the rounded sum.
    let magic = V::lit(MAGIC + 127.0 - shift);
    let t = V::fma_(x, V::lit(LOG2_E), magic);
    (t - magic, V::of_bits_(V::shl_mant_(t.bits_())))
}

#[inline(always)]
pub fn exp<V: F32Lanes>(x: V) -> V {
    let x = V::min_(V::lit(89.0), V::max_(V::lit(-105.0), x));
    let magic = V::lit(MAGIC);
    let n = V::fma_(x, V::lit(LOG2_E), magic) - magic;
    (exp_rest(x, n) + V::lit(1.0)).ldexp_(n)
}

#[inline(always)]
pub fn exp2<V: F32Lanes>(x: V) -> V {
    let x = V::min_(V::lit(129.0), V::max_(V::lit(-152.0), x));
    let magic = V::lit(MAGIC);
    let n = (x + magic) - magic;
    let r = x - n;
    V::fma_(r, poly(r, &c::EXP2), V::lit(1.0)).ldexp_(n)
}

#[inline(always)]
pub fn log<V: F32Lanes>(x: V) -> V {
    let (m, e) = x.split_();
    let f = m - V::lit(1.0);
    let y = f * f * poly(f, &c::LOG);
    // The two big parts are added with their error, or |e| = 1 would cost an ulp.
    let t = e * V::lit(LN2_HI);
    let s = t + f;
    let err = f - (s - t);
    log_edges(x, s + (V::fma_(e, V::lit(LN2_LO), err) + y))
}

#[inline(always)]
pub fn sigmoid<V: F32Lanes>(x: V) -> V {
    // All is scaled by 2^-32, so that the power of two stays a normal number while the result
    // goes down to the last denormal.
    let x = V::min_(V::lit(105.0), V::max_(V::lit(-64.0), -x));
    let (n, s) = exp_power(x, 32.0);
    let scale = V::lit(1.0 / 4294967296.0);
    // s (1 + p) + scale with one rounding at full size: the error of the first sum goes to the small part.
    let h = s + scale;
    let err = V::min_(s, scale) - (h - V::max_(s, scale));
    let d = h + V::fma_(s, exp_rest(x, n), err);
    (V::lit(1.0) / d) * scale
}

#[inline(always)]
pub fn tanh<V: F32Lanes>(x: V) -> V {
    let one = V::lit(1.0);
    let a = V::min_(V::lit(10.0), x.abs_());
    let z = a * a;
    let near = V::fma_(a * z, poly(z, &c::TANH), a);
    let y = a + a;
    let (n, s) = exp_power(y, 0.0);
    let far = one - V::lit(2.0) / (s + V::fma_(s, exp_rest(y, n), one));
    V::copysign_(V::select(V::lt(a, one), near, far), x)
}

#[inline(always)]
pub fn erf<V: F32Lanes>(x: V) -> V {
    let a = V::min_(V::lit(4.0), x.abs_());
    let near = V::fma_(a, poly(a * a, &c::ERF), a);
    let far = V::lit(1.0) - poly(a - V::lit(2.5), &c::ERF_FAR);
    V::copysign_(V::select(V::lt(a, V::lit(1.0)), near, far), x)
}
