//! Functions computed lane by lane: the rare ones, and the far ranges of the vector ones.

macro_rules! std_fns {
    ($($name:ident = $f:path;)*) => { $(
        #[inline]
        pub fn $name(x: f64) -> f64 {
            $f(x)
        }
    )* };
}
std_fns! {
    exp = f64::exp; exp2 = f64::exp2; expm1 = f64::exp_m1; log = f64::ln; log2 = f64::log2;
    log10 = f64::log10; log1p = f64::ln_1p; sin = f64::sin; cos = f64::cos; tan = f64::tan;
    asin = f64::asin; acos = f64::acos; atan = f64::atan; sinh = f64::sinh; cosh = f64::cosh;
    tanh = f64::tanh; asinh = libm::asinh; atanh = libm::atanh;
    erf = libm::erf; erfc = libm::erfc; lgamma = libm::lgamma;
}

pub fn acosh(x: f64) -> f64 {
    if x < 1.0 { f64::NAN } else { libm::acosh(x) }
}
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
pub fn pow(a: f64, b: f64) -> f64 {
    a.powf(b)
}
pub fn atan2(y: f64, x: f64) -> f64 {
    y.atan2(x)
}
pub fn hypot(a: f64, b: f64) -> f64 {
    a.hypot(b)
}

macro_rules! next {
    ($name:ident, $t:ty) => {
        /// The neighbour of `a` towards `b`.
        pub fn $name(a: $t, b: $t) -> $t {
            if a.is_nan() || b.is_nan() {
                a + b
            } else if a == b {
                b
            } else if a == 0.0 {
                <$t>::from_bits(1).copysign(b)
            } else if (a < b) == (a > 0.0) {
                <$t>::from_bits(a.to_bits() + 1)
            } else {
                <$t>::from_bits(a.to_bits() - 1)
            }
        }
    };
}
next!(nextafter, f64);
next!(nextafterf, f32);

/// The derivative of `lgamma`: reflection for negative arguments, the recurrence up to 10, then the
/// asymptotic series, whose next term is below 1e-17 there.
pub fn digamma(x: f64) -> f64 {
    if x == 0.0 {
        // PyTorch's: the pole at +-0 has the sign of the side it is approached from.
        return f64::INFINITY.copysign(-x);
    }
    if x < 0.0 {
        if x == x.trunc() {
            return f64::NAN;
        }
        // tan(pi x) from the fraction, so that large |x| keeps its digits.
        let f = x - x.trunc();
        return digamma(1.0 - x) - std::f64::consts::PI / (std::f64::consts::PI * f).tan();
    }
    if !x.is_finite() {
        return x;
    }
    // Near the only positive root the terms below cancel: a series around it, in the exact
    // difference from the root (which needs two numbers to be written down).
    if (x - ROOT_HI).abs() < 0.25 {
        return near_root(x);
    }
    let (mut x, mut back) = (x, 0.0);
    while x < 10.0 {
        back += 1.0 / x;
        x += 1.0;
    }
    let z = 1.0 / (x * x);
    // Bernoulli numbers over their index: B_2k / 2k.
    let series = z
        * (1.0 / 12.0
            - z * (1.0 / 120.0
                - z * (1.0 / 252.0
                    - z * (1.0 / 240.0
                        - z * (1.0 / 132.0
                            - z * (691.0 / 32760.0 - z * (1.0 / 12.0 - z * (3617.0 / 8160.0))))))));
    x.ln() - 0.5 / x - series - back
}

/// The positive root of digamma as a sum of two doubles.
const ROOT_HI: f64 = 1.4616321449683622;
const ROOT_LO: f64 = 9.549995429965697e-17;

/// Taylor series of digamma around its positive root, from the first power on.
fn near_root(x: f64) -> f64 {
    const C: [f64; 23] = [
        0.9676722454476212,
        -0.4427631689835921,
        0.258499760955651,
        -0.16394270544240652,
        0.10782405069126237,
        -0.07219956125645471,
        0.04880428816414311,
        -0.03316112647484736,
        0.022597648232218104,
        -0.01542476590494896,
        0.010538791616612175,
        -0.007204534386356869,
        0.004926781395729853,
        -0.003369801655439328,
        0.002305126326734928,
        -0.0015769367714301972,
        0.0010788252019162967,
        -0.0007380709389960052,
        0.000504953265834602,
        -0.0003454680251063077,
        0.00023635601564027053,
        -0.00016170622091974803,
        0.0001106337276874741,
    ];
    let d = (x - ROOT_HI) - ROOT_LO;
    let mut s = 0.0;
    for c in C.iter().rev() {
        s = s * d + c;
    }
    s * d
}

/// The inverse of `erf`: a start good to three digits, then Halley steps on `erf` (on `erfc` in the
/// tails, where `1 - |y|` is exact and `erf` has lost its digits).
pub fn erfinv(y: f64) -> f64 {
    let a = y.abs();
    if a == 1.0 {
        return f64::INFINITY.copysign(y);
    }
    if a > 1.0 || y.is_nan() {
        return f64::NAN;
    }
    // The derivative at zero; the next term is relatively y^2 * 0.26.
    const HALF_SQRT_PI: f64 = 0.886226925452758;
    if a < 1e-9 {
        return y * HALF_SQRT_PI;
    }
    // Winitzki's closed form.
    let l = ((1.0 - a) * (1.0 + a)).ln();
    let t = 2.0 / (std::f64::consts::PI * 0.147) + 0.5 * l;
    let mut x = ((t * t - l / 0.147).sqrt() - t).sqrt();
    for _ in 0..3 {
        let err = if a < 0.5 { libm::erf(x) - a } else { (1.0 - a) - libm::erfc(x) };
        let u = err * HALF_SQRT_PI * (x * x).exp();
        x -= u / (1.0 + x * u);
    }
    x.copysign(y)
}
