//! The normal distribution and the scaled complementary error function.

use crate::math::*;
use crate::tables::*;

pyrite_table::functions! {
    /// For x >= 0.
    fn erfcx_right(x: f64) -> f64 {
        return series((x - 3.75) / (x + 3.75), &ERFCX) / (1.0 + 2.0 * x);
    }

    /// `exp(x^2) erfc(x)`.
    pub fn erfcx(x: f64) -> f64 {
        if x >= 0.0 {
            if x > 1e150 {
                return 0.5641895835477563 / x;
            }
            return erfcx_right(x);
        }
        if x < -27.0 {
            return INFINITE;
        }
        if x != x {
            return x;
        }
        // The square with what its rounding leaves.
        let s = x * x;
        let rest = fma(x, x, -s);
        let e = exp(s);
        return 2.0 * (e + e * rest) - erfcx_right(-x);
    }

    /// 1/sqrt(2), and what the first number leaves of it.
    const ROOT_HALF: f64 = 0.7071067811865476;
    const ROOT_HALF_REST: f64 = -4.833646656726457e-17;

    /// The normal distribution function: `erfc(-x / sqrt(2)) / 2`.
    pub fn ndtr(x: f64) -> f64 {
        let z = -x * ROOT_HALF;
        if x > -1.0 || x < -38.6 || x != x {
            return 0.5 * erfc(z);
        }
        // The rounding of z, magnified in the tail.
        let rest = fma(-x, ROOT_HALF, -z) - x * ROOT_HALF_REST;
        return 0.5 * (erfc(z) - 1.1283791670955126 * exp(-(z * z)) * rest);
    }

    /// `log(ndtr(x))` where ndtr underflows, too.
    pub fn log_ndtr(x: f64) -> f64 {
        if x < -1.0 {
            return log(0.5 * erfcx(-x * ROOT_HALF)) - 0.5 * x * x;
        }
        return log1p(-ndtr(-x));
    }

    /// The inverse of ndtr in the lower tail, p < 0.15.
    fn lower_quantile(p: f64) -> f64 {
        let r = sqrt(-2.0 * log(p));
        if r < 4.0 {
            return series((r - 2.95) / 1.05, &NDTRI_TAIL_A) - r;
        }
        if r < 10.0 {
            return series((r - 7.0) / 3.0, &NDTRI_TAIL_B) - r;
        }
        return series((r - 24.5) / 14.5, &NDTRI_TAIL_C) - r;
    }

    /// The inverse of ndtr.
    pub fn ndtri(p: f64) -> f64 {
        if p == 0.0 {
            return -INFINITE;
        }
        if p == 1.0 {
            return INFINITE;
        }
        if p > 0.0 && p < 0.15 {
            return lower_quantile(p);
        }
        if p >= 0.15 && p <= 0.85 {
            let q = p - 0.5;
            return q * series(q * q / 0.06125 - 1.0, &NDTRI_MIDDLE);
        }
        if p > 0.85 && p < 1.0 {
            return -lower_quantile(1.0 - p);
        }
        return UNDEFINED;
    }
}
