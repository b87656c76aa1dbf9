//! Functions of complex numbers, in f64 (complex64 is widened and rounded once). Branch cuts, signed
//! zeros and infinities as in C99's annex G, which is what NumPy does.
//!
//! The inverse functions are Kahan's ("Branch cuts for complex elementary functions", 1987). Each
//! function is compiled once and called per element: they cost far more than the call.

use pyrite_core::dtype::Complex;
use std::f64::consts::{FRAC_PI_2, LN_2, LN_10};

pub type Z = Complex<f64>;

#[inline(always)]
const fn z(re: f64, im: f64) -> Z {
    Complex { re, im }
}
/// `i * a`.
#[inline(always)]
fn times_i(a: Z) -> Z {
    z(-a.im, a.re)
}
/// `-i * a`.
#[inline(always)]
fn over_i(a: Z) -> Z {
    z(a.im, -a.re)
}
#[inline(always)]
fn scale(a: Z, s: f64) -> Z {
    z(a.re * s, a.im * s)
}
#[inline(always)]
fn is_inf(a: Z) -> bool {
    a.re.is_infinite() || a.im.is_infinite()
}

pub fn mul(a: Z, b: Z) -> Z {
    z(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)
}

/// `(r cos y, r sin y)` for a factor `r` that is given as `e^x`, without early overflow.
fn polar_exp(x: f64, y: f64) -> Z {
    let (s, c) = y.sin_cos();
    if x > 709.0 {
        // e^x alone would be infinite where its product with a small cosine is not.
        let (a, b) = (f64::exp(709.0), f64::exp(x - 709.0));
        return z(c * b * a, s * b * a);
    }
    let e = x.exp();
    z(e * c, e * s)
}

#[inline(never)]
pub fn exp(a: Z) -> Z {
    if a.im == 0.0 {
        return z(a.re.exp(), a.im);
    }
    if !a.im.is_finite() {
        if a.re == f64::NEG_INFINITY {
            return z(0.0, 0.0);
        }
        if a.re == f64::INFINITY {
            return z(f64::INFINITY, f64::NAN);
        }
    }
    polar_exp(a.re, a.im)
}

#[inline(never)]
pub fn exp2(a: Z) -> Z {
    let y = a.im * LN_2;
    if a.im == 0.0 {
        return z(a.re.exp2(), a.im);
    }
    if !a.im.is_finite() || a.re > 1000.0 {
        return exp(z(a.re * LN_2, y));
    }
    let (s, c) = y.sin_cos();
    let e = a.re.exp2();
    z(e * c, e * s)
}

#[inline(never)]
pub fn expm1(a: Z) -> Z {
    if a.im == 0.0 {
        return z(a.re.exp_m1(), a.im);
    }
    if !a.im.is_finite() || a.re > 700.0 {
        let e = exp(a);
        return z(e.re - 1.0, e.im);
    }
    // e^x cos y - 1 = (e^x - 1) cos y - 2 sin(y/2)^2.
    let (s, c) = a.im.sin_cos();
    let h = (0.5 * a.im).sin();
    z(a.re.exp_m1() * c - 2.0 * h * h, a.re.exp() * s)
}

/// `ln |a|`, exact also where |a| is near 1.
fn ln_abs(a: Z) -> f64 {
    // (`max` and `min` would drop a NaN.)
    let (x, y) = if a.re.abs() < a.im.abs() { (a.im.abs(), a.re.abs()) } else { (a.re.abs(), a.im.abs()) };
    if x > 0.5 && x < 2.0 && y < 2.0 {
        return 0.5 * ((x - 1.0) * (x + 1.0) + y * y).ln_1p();
    }
    a.re.hypot(a.im).ln()
}

#[inline(never)]
pub fn log(a: Z) -> Z {
    z(ln_abs(a), a.im.atan2(a.re))
}

pub fn log2(a: Z) -> Z {
    scale(log(a), 1.0 / LN_2)
}

pub fn log10(a: Z) -> Z {
    scale(log(a), 1.0 / LN_10)
}

#[inline(never)]
pub fn log1p(a: Z) -> Z {
    if a.im.is_nan() && a.re.is_finite() {
        return z(f64::NAN, f64::NAN);
    }
    let b = z(1.0 + a.re, a.im);
    let re = if a.re.abs() < 0.5 && a.im.abs() < 0.5 {
        0.5 * (a.re * (2.0 + a.re) + a.im * a.im).ln_1p()
    } else {
        ln_abs(b)
    };
    z(re, b.im.atan2(b.re))
}

#[inline(never)]
pub fn sqrt(a: Z) -> Z {
    if a.re == 0.0 && a.im == 0.0 {
        return z(0.0, a.im);
    }
    if a.im.is_infinite() {
        return z(f64::INFINITY, a.im);
    }
    if a.re.is_infinite() {
        let small = if a.im.is_nan() { f64::NAN } else { 0.0 };
        return if a.re > 0.0 {
            z(a.re, small.copysign(a.im))
        } else {
            z(small, f64::INFINITY.copysign(a.im))
        };
    }
    // Scaled by a power of four where the sum below would overflow or lose its digits.
    let big = a.re.abs().max(a.im.abs());
    let (up, down) = if big > 4e307 {
        (0.0625, 4.0)
    } else if big < 1e-290 {
        (2f64.powi(108), 2f64.powi(-54))
    } else {
        (1.0, 1.0)
    };
    let (re, im) = (a.re * up, a.im * up);
    let t = ((re.abs() + re.hypot(im)) * 0.5).sqrt();
    let (re, im) = if re >= 0.0 { (t, im / (2.0 * t)) } else { (im.abs() / (2.0 * t), t.copysign(im)) };
    z(re * down, im * down)
}

/// (sinh x, cosh x) times (cos y, sin y), without early overflow.
#[inline(never)]
pub fn sinh(a: Z) -> Z {
    if a.im == 0.0 {
        return z(a.re.sinh(), a.im);
    }
    if a.re.abs() > 350.0 {
        if a.re.is_infinite() && !a.im.is_finite() {
            return z(a.re, f64::NAN);
        }
        let e = polar_exp(a.re.abs() - LN_2, a.im);
        return z(e.re.copysign(e.re * a.re), e.im);
    }
    let (s, c) = a.im.sin_cos();
    let im = a.re.cosh() * s;
    z(if c.is_nan() && a.re == 0.0 { a.re } else { a.re.sinh() * c }, im)
}

#[inline(never)]
pub fn cosh(a: Z) -> Z {
    if a.im == 0.0 {
        let sign = if a.re.is_nan() { 1.0 } else { 1f64.copysign(a.re) };
        return z(a.re.cosh(), a.im * sign);
    }
    if a.re.abs() > 350.0 {
        if a.re.is_infinite() && !a.im.is_finite() {
            return z(f64::INFINITY, f64::NAN);
        }
        let e = polar_exp(a.re.abs() - LN_2, a.im);
        return z(e.re, if a.re < 0.0 { -e.im } else { e.im });
    }
    let (s, c) = a.im.sin_cos();
    z(a.re.cosh() * c, if s.is_nan() && a.re == 0.0 { 0.0 } else { a.re.sinh() * s })
}

#[inline(never)]
pub fn tanh(a: Z) -> Z {
    if a.re.abs() > 22.0 {
        let one = 1f64.copysign(a.re);
        if !a.im.is_finite() {
            return if a.re.is_infinite() { z(one, 0f64.copysign(a.im)) } else { z(f64::NAN, f64::NAN) };
        }
        let (s, c) = a.im.sin_cos();
        return z(one, 4.0 * s * c * (-2.0 * a.re.abs()).exp());
    }
    if a.im == 0.0 {
        return z(a.re.tanh(), a.im);
    }
    let (t, s) = (a.im.tan(), a.re.sinh());
    let (beta, rho) = (1.0 + t * t, (1.0 + s * s).sqrt());
    if t.is_infinite() {
        return z(rho / s, 1.0 / t);
    }
    let d = 1.0 + beta * s * s;
    z(if a.re == 0.0 { a.re } else { beta * rho * s / d }, t / d)
}

pub fn sin(a: Z) -> Z {
    over_i(sinh(times_i(a)))
}
pub fn cos(a: Z) -> Z {
    cosh(times_i(a))
}
pub fn tan(a: Z) -> Z {
    over_i(tanh(times_i(a)))
}

#[inline(always)]
fn one_minus(a: Z) -> Z {
    z(1.0 - a.re, -a.im)
}
#[inline(always)]
fn one_plus(a: Z) -> Z {
    z(1.0 + a.re, a.im)
}

#[inline(never)]
pub fn asin(a: Z) -> Z {
    if a.re == 0.0 && a.im.is_nan() {
        return a;
    }
    if is_inf(a) {
        return z(a.re.atan2(a.im.abs()), f64::INFINITY.copysign(a.im));
    }
    let (m, p) = (sqrt(one_minus(a)), sqrt(one_plus(a)));
    z(a.re.atan2(m.re * p.re - m.im * p.im), libm::asinh(m.re * p.im - m.im * p.re))
}

#[inline(never)]
pub fn acos(a: Z) -> Z {
    if a.re == 0.0 && a.im.is_nan() {
        return z(FRAC_PI_2, a.im);
    }
    if is_inf(a) {
        return z(a.im.abs().atan2(a.re), -f64::INFINITY.copysign(a.im));
    }
    let (m, p) = (sqrt(one_minus(a)), sqrt(one_plus(a)));
    z(2.0 * m.re.atan2(p.re), libm::asinh(p.re * m.im - p.im * m.re))
}

#[inline(never)]
pub fn acosh(a: Z) -> Z {
    if a.re == 0.0 && a.im.is_nan() {
        return z(f64::NAN, FRAC_PI_2);
    }
    if is_inf(a) {
        return z(f64::INFINITY, a.im.atan2(a.re));
    }
    let (m, p) = (sqrt(z(a.re - 1.0, a.im)), sqrt(one_plus(a)));
    z(libm::asinh(m.re * p.re + m.im * p.im), 2.0 * m.im.atan2(p.re))
}

pub fn asinh(a: Z) -> Z {
    over_i(asin(times_i(a)))
}

#[inline(never)]
pub fn atanh(a: Z) -> Z {
    const THETA: f64 = 3.3519519824856493e153; // A quarter of the root of the greatest number.
    const RHO: f64 = 1.0 / THETA;
    if a.im.is_nan() {
        let zero = a.re == 0.0 || a.re.is_infinite();
        return z(if zero { 0f64.copysign(a.re) } else { a.im }, a.im);
    }
    if a.re.is_nan() && a.im.is_finite() {
        return z(a.re, a.re);
    }
    // By symmetry the right half plane is enough.
    let beta = 1f64.copysign(a.re);
    let (x, y) = (beta * a.re, -beta * a.im);
    let r = y.abs() + RHO;
    let (re, im) = if x > THETA || y.abs() > THETA {
        // The real part of 1 / a, without overflow.
        let re = if is_inf(a) {
            0.0
        } else if x > y.abs() {
            1.0 / (x + y / x * y)
        } else {
            x / y / (x / y * x + y)
        };
        (re, FRAC_PI_2.copysign(y))
    } else if x == 1.0 {
        // Also for the smallest y, whose logarithm is still a number; at 0 this is infinite.
        let re = 0.25 * (4.0 + y * y).ln() - 0.5 * y.abs().ln();
        (re, 0.5 * (FRAC_PI_2 + (r * 0.5).atan()).copysign(y))
    } else {
        let d = 1.0 - x;
        let re = 0.25 * (4.0 * x / (d * d + r * r)).ln_1p();
        (re, 0.5 * (2.0 * y).atan2(d * (1.0 + x) - r * r))
    };
    if x == 1.0 && y == 0.0 {
        return z(beta * re, a.im);
    }
    z(beta * re, -beta * im)
}

pub fn atan(a: Z) -> Z {
    over_i(atanh(times_i(a)))
}

#[inline(never)]
pub fn sigmoid(a: Z) -> Z {
    // Whichever exponential does not overflow.
    if a.re < 0.0 {
        let e = exp(a);
        return div(e, one_plus(e));
    }
    let e = exp(z(-a.re, -a.im));
    div(z(1.0, 0.0), one_plus(e))
}

/// By Smith's scheme, as NumPy: no overflow on the way.
#[inline(always)]
pub fn div(a: Z, b: Z) -> Z {
    if b.re.abs() >= b.im.abs() {
        if b.re == 0.0 && b.im == 0.0 {
            return z(a.re / b.re.abs(), a.im / b.re.abs());
        }
        let r = b.im / b.re;
        let s = 1.0 / (b.re + b.im * r);
        z((a.re + a.im * r) * s, (a.im - a.re * r) * s)
    } else {
        let r = b.re / b.im;
        let s = 1.0 / (b.im + b.re * r);
        z((a.re * r + a.im) * s, (a.im * r - a.re) * s)
    }
}

/// `a ** b`: small whole exponents by multiplication, the rest by `exp(b log a)`, both as NumPy.
#[inline(never)]
pub fn pow(a: Z, b: Z) -> Z {
    if b.re == 0.0 && b.im == 0.0 {
        return z(1.0, 0.0);
    }
    if a.re == 0.0 && a.im == 0.0 {
        return if b.re > 0.0 { z(0.0, 0.0) } else { z(f64::NAN, f64::NAN) };
    }
    if b.im == 0.0 && b.re == b.re.trunc() && b.re.abs() < 100.0 {
        let (mut n, mut base, mut r) = (b.re.abs() as u32, a, z(1.0, 0.0));
        let mut first = true;
        while n != 0 {
            if n & 1 == 1 {
                r = if first { base } else { mul(r, base) };
                first = false;
            }
            n >>= 1;
            if n != 0 {
                base = mul(base, base);
            }
        }
        return if b.re < 0.0 { div(z(1.0, 0.0), r) } else { r };
    }
    let l = log(a);
    exp(if b.im == 0.0 { scale(l, b.re) } else { mul(l, b) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: Z, b: Z) -> bool {
        let d = (a.re - b.re).hypot(a.im - b.im);
        d <= 1e-14 * (1.0 + b.re.hypot(b.im))
    }

    /// Points off the branch cuts, in all quadrants.
    fn points() -> Vec<Z> {
        let v = [-3.0, -1.5, -0.4, -1e-9, 0.3, 0.9, 2.5];
        v.iter().flat_map(|x| v.iter().map(|y| z(*x + 0.01, *y))).collect()
    }

    #[test]
    fn inverses_undo_their_functions() {
        for a in points() {
            assert!(close(exp(log(a)), a), "log {a:?}");
            let s = sqrt(a);
            assert!(close(mul(s, s), a) && s.re >= 0.0, "sqrt {a:?}");
            assert!(close(sin(asin(a)), a), "asin {a:?} {:?}", sin(asin(a)));
            assert!(close(cos(acos(a)), a), "acos {a:?}");
            assert!(close(tan(atan(a)), a), "atan {a:?}");
            assert!(close(sinh(asinh(a)), a), "asinh {a:?}");
            assert!(close(cosh(acosh(a)), a), "acosh {a:?}");
            assert!(close(tanh(atanh(a)), a), "atanh {a:?}");
            let e = expm1(a);
            assert!(close(z(e.re + 1.0, e.im), exp(a)), "expm1 {a:?}");
            assert!(close(log1p(a), log(z(a.re + 1.0, a.im))), "log1p {a:?}");
            assert!(close(pow(a, z(3.0, 0.0)), mul(a, mul(a, a))), "pow {a:?}");
            assert!(close(mul(div(a, z(0.3, -2.0)), z(0.3, -2.0)), a), "div {a:?}");
        }
    }

    #[test]
    fn cuts_follow_the_sign_of_zero() {
        let pi = std::f64::consts::PI;
        assert_eq!(log(z(-1.0, 0.0)).im, pi);
        assert_eq!(log(z(-1.0, -0.0)).im, -pi);
        assert_eq!(sqrt(z(-4.0, -0.0)), z(0.0, -2.0));
        assert!(asin(z(2.0, 0.0)).im > 0.0 && asin(z(2.0, -0.0)).im < 0.0);
        assert!(acos(z(2.0, 0.0)).im < 0.0 && acos(z(2.0, -0.0)).im > 0.0);
        assert_eq!(atanh(z(2.0, 0.0)).im, FRAC_PI_2);
        assert_eq!(atanh(z(2.0, -0.0)).im, -FRAC_PI_2);
        assert_eq!(atan(z(0.0, 2.0)).re, FRAC_PI_2);
    }
}
