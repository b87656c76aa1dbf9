//! f64 circular functions and their inverses.

use super::coef64 as c;
use super::common::{less_product, poly};
use super::f64m::{D, nearest};
use super::scalar;
use pyrite_core::expr::Mask;
use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, FRAC_PI_4};

// pi/2 continued beyond its double.
const PIO2_MID: f64 = 6.123233995736766e-17;
const PIO2_LO: f64 = -1.4973849048591698e-33;
/// Reduction in three steps is exact enough up to here; lanes beyond go to the library.
const FAR: f64 = 1e5;

/// Sine and cosine of `x - k pi/2` for the nearest `k`, and `k` as an integer.
#[inline(always)]
fn reduced<V: D>(x: V) -> (V, V, V::I) {
    let n = nearest(x * V::lit(FRAC_2_PI));
    let k = (n + V::lit(6755399441055744.0)).bits_();
    // The first product cancels exactly; `r + l` holds the rest to more than double precision.
    let r1 = V::fma_exact_(n, V::lit(-FRAC_PI_2), x);
    let (r, l) = less_product(r1, n, V::lit(PIO2_MID));
    let l = V::fma_(n, V::lit(-PIO2_LO), l);
    let z = r * r;
    let h = z * V::lit(0.5);
    let one = V::lit(1.0);
    let w = one - h;
    let s = r + V::fma_(r * z, poly(z, &c::SIN), l * w);
    let co = w + (((one - w) - h) + (z * z * poly(z, &c::COS) - r * l));
    (s, co, k)
}

/// Lanes where `x` is far (or no number) from the library, the others from `r`.
#[inline(always)]
fn far_lanes<V: D>(x: V, r: V, f: impl Fn(f64) -> f64) -> V {
    let near = V::le(x.abs_(), V::lit(FAR));
    if (!near).any() {
        return V::select(near, r, x.each_(f));
    }
    r
}

#[inline(always)]
fn sine<V: D>(x: V, quarter: i64) -> V {
    let (s, co, k) = reduced(x);
    let k = V::iadd_(k, V::isplat_(quarter));
    let r = V::select(V::odd_(k), co, s);
    V::of_bits_(V::ixor_(r.bits_(), V::shl_sign_(V::shr1_(k))))
}

#[inline(always)]
pub fn sin<V: D>(x: V) -> V {
    if !V::FMA {
        // The reduction lives on exact products, each a library call there: one call is cheaper.
        return x.each_(scalar::sin);
    }
    let r = sine(x, 0);
    // Keeps the sign of zero and tiny values whole.
    let r = V::select(V::lt(x.abs_(), V::lit(1e-9)), x, r);
    far_lanes(x, r, scalar::sin)
}

#[inline(always)]
pub fn cos<V: D>(x: V) -> V {
    if !V::FMA {
        return x.each_(scalar::cos);
    }
    far_lanes(x, sine(x, 1), scalar::cos)
}

#[inline(always)]
pub fn tan<V: D>(x: V) -> V {
    if !V::FMA {
        return x.each_(scalar::tan);
    }
    let (s, co, k) = reduced(x);
    let odd = V::odd_(k);
    let r = V::select(odd, -co, s) / V::select(odd, s, co);
    let r = V::select(V::lt(x.abs_(), V::lit(1e-9)), x, r);
    far_lanes(x, r, scalar::tan)
}

/// `asin(t)` for 0 <= t <= 1/2, and for sqrt(z) given z.
#[inline(always)]
fn asin_core<V: D>(t: V, z: V) -> V {
    V::fma_(t * z, poly(z, &c::ASIN), t)
}

#[inline(always)]
pub fn asin<V: D>(x: V) -> V {
    let a = x.abs_();
    let far = V::lt(V::lit(0.5), a);
    let z = V::select(far, (V::lit(1.0) - a) * V::lit(0.5), a * a);
    let t = asin_core(V::select(far, z.sqrt_(), a), z);
    let up = V::lit(FRAC_PI_2) - ((t + t) - V::lit(PIO2_MID));
    V::copysign_(V::select(far, up, t), x)
}

#[inline(always)]
pub fn acos<V: D>(x: V) -> V {
    let a = x.abs_();
    let far = V::lt(V::lit(0.5), a);
    let z = V::select(far, (V::lit(1.0) - a) * V::lit(0.5), a * a);
    let t = asin_core(V::select(far, z.sqrt_(), a), z);
    let two = t + t;
    let low = V::lit(std::f64::consts::PI) - (two - V::lit(2.0 * PIO2_MID));
    let negative = V::lt(x, V::lit(0.0));
    let outer = V::select(negative, low, two);
    let t = V::select(negative, -t, t);
    let inner = V::lit(FRAC_PI_2) - (t - V::lit(PIO2_MID));
    V::select(far, outer, inner)
}

/// `atan(n / d)` for 0 <= n <= d, d positive and finite.
#[inline(always)]
fn atan_quotient<V: D>(n: V, d: V) -> V {
    // Above tan(pi/8) turn by pi/4, so that the series argument stays small.
    let turn = V::lt(d * V::lit(0.41421356237309503), n);
    let (a, b) = (V::select(turn, n - d, n), V::select(turn, n + d, d));
    let t = a / b;
    let z = t * t;
    let r = V::fma_(t * z, poly(z, &c::ATAN), t);
    V::select(turn, (r + V::lit(0.5 * PIO2_MID)) + V::lit(FRAC_PI_4), r)
}

#[inline(always)]
pub fn atan<V: D>(x: V) -> V {
    let a = x.abs_();
    let one = V::lit(1.0);
    let flip = V::lt(one, a);
    // Beyond 1e17 the angle is pi/2; the bound also keeps infinity out of the quotient.
    let b = V::min_(V::lit(1e17), a);
    let r = atan_quotient(V::select(flip, one, b), V::select(flip, b, one));
    let r = V::select(flip, V::lit(FRAC_PI_2) - (r - V::lit(PIO2_MID)), r);
    V::copysign_(r, x)
}

#[inline(always)]
pub fn atan2<V: D>(y: V, x: V) -> V {
    let (ax, ay) = (x.abs_(), y.abs_());
    let zero = V::lit(0.0);
    let flip = V::lt(ax, ay);
    let (mut n, mut d) = (V::select(flip, ax, ay), V::select(flip, ay, ax));
    // Infinite sides: equal ones are at pi/4, a single one outweighs the other.
    let inf = V::lit(f64::INFINITY);
    let d_inf = V::eq(d, inf);
    n = V::select(d_inf, V::select(V::eq(n, inf), V::lit(1.0), zero), n);
    d = V::select(d_inf | V::eq(d, zero), V::lit(1.0), d);
    // Room for the sum of the two, then for the smallest ones.
    let scale = V::select(V::lt(V::lit(1e300), d), V::lit(0.25), V::lit(1.0));
    let r = atan_quotient(n * scale, d * scale);
    let r = V::select(flip, V::lit(FRAC_PI_2) - (r - V::lit(PIO2_MID)), r);
    let r = V::select(x.sign_(), V::lit(2.0 * FRAC_PI_2) - (r - V::lit(2.0 * PIO2_MID)), r);
    let r = V::copysign_(r, y);
    V::select(x.is_nan_() | y.is_nan_(), x + y, r)
}
