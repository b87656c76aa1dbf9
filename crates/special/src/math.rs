//! The names that the functions here share with C's mathematics library.

pub const INFINITE: f64 = f64::INFINITY;
pub const UNDEFINED: f64 = f64::NAN;

macro_rules! names {
    ($($name:ident($($x:ident),*) = $f:path;)*) => { $(
        #[inline]
        pub fn $name($($x: f64),*) -> f64 {
            $f($($x),*)
        }
    )* };
}
names! {
    exp(x) = f64::exp; log(x) = f64::ln; expm1(x) = f64::exp_m1; log1p(x) = f64::ln_1p;
    sqrt(x) = f64::sqrt; pow(x, y) = f64::powf; fabs(x) = f64::abs; floor(x) = f64::floor;
    trunc(x) = f64::trunc; sin(x) = f64::sin; cos(x) = f64::cos; acos(x) = f64::acos; sinh(x) = f64::sinh;
    cosh(x) = f64::cosh; acosh(x) = libm::acosh; erfc(x) = libm::erfc; tgamma(x) = libm::tgamma;
    lgamma(x) = libm::lgamma; j0(x) = libm::j0; j1(x) = libm::j1; y0(x) = libm::y0; y1(x) = libm::y1;
    fma(a, b, c) = f64::mul_add; fmax(a, b) = f64::max;
}

/// Clenshaw's sum of a Chebyshev series.
pub fn series(x: f64, c: &[f64]) -> f64 {
    let (mut a, mut b) = (0.0, 0.0);
    for k in (1..c.len()).rev() {
        (a, b) = (2.0 * x * a - b + c[k], a);
    }
    x * a - b + c.first().copied().unwrap_or(0.0)
}

/// A number of magnitude 1/2 to 1 that is `x` up to a power of two.
pub fn frexp_mantissa(x: f64) -> f64 {
    libm::frexp(x).0
}

/// The exponent of that power; 0 for infinities and NaN.
pub fn frexp_exponent(x: f64) -> f64 {
    if x.is_finite() { libm::frexp(x).1 as f64 } else { 0.0 }
}
