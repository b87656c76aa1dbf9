//! Bessel functions of orders 0 and 1, and Airy's function.

use crate::math::*;
use crate::tables::*;

pyrite_table::functions! {
    /// `exp(-|x|) I0(x)`.
    pub fn i0e(x: f64) -> f64 {
        let a = fabs(x);
        if a <= 8.0 {
            return series(a * 0.25 - 1.0, &I0_NEAR);
        }
        return series(16.0 / a - 1.0, &I0_FAR) / sqrt(a);
    }

    /// `exp(-|x|) I1(x)`.
    pub fn i1e(x: f64) -> f64 {
        let a = fabs(x);
        if a <= 8.0 {
            return x * series(a * 0.25 - 1.0, &I1_NEAR);
        }
        let y = series(16.0 / a - 1.0, &I1_FAR) / sqrt(a);
        if x < 0.0 {
            return -y;
        }
        return y;
    }

    /// The modified Bessel function of the first kind, order 0.
    pub fn i0(x: f64) -> f64 {
        let a = fabs(x);
        if a > 720.0 {
            return a * INFINITE;
        }
        // In two steps: exp overflows before the function does.
        let e = exp(0.5 * a);
        return e * i0e(x) * e;
    }

    /// The modified Bessel function of the first kind, order 1.
    pub fn i1(x: f64) -> f64 {
        let a = fabs(x);
        if a > 720.0 {
            return x * INFINITE;
        }
        let e = exp(0.5 * a);
        return e * i1e(x) * e;
    }

    /// `exp(x) K0(x)`.
    pub fn scaled_modified_bessel_k0(x: f64) -> f64 {
        if x < 0.0 {
            return UNDEFINED;
        }
        if x == 0.0 {
            return INFINITE;
        }
        if x <= 1.0 {
            return exp(x) * (series(2.0 * x * x - 1.0, &K0_NEAR) - log(0.5 * x) * i0(x));
        }
        if x <= 8.0 {
            return series((16.0 / x - 9.0) / 7.0, &K0_MIDDLE) / sqrt(x);
        }
        return series(16.0 / x - 1.0, &K0_FAR) / sqrt(x);
    }

    /// `exp(x) K1(x)`.
    pub fn scaled_modified_bessel_k1(x: f64) -> f64 {
        if x < 0.0 {
            return UNDEFINED;
        }
        if x == 0.0 {
            return INFINITE;
        }
        if x <= 1.0 {
            return exp(x) * (1.0 / x + (log(0.5 * x) * i1(x) + x * series(2.0 * x * x - 1.0, &K1_NEAR)));
        }
        if x <= 8.0 {
            return series((16.0 / x - 9.0) / 7.0, &K1_MIDDLE) / sqrt(x);
        }
        return series(16.0 / x - 1.0, &K1_FAR) / sqrt(x);
    }

    /// The modified Bessel function of the second kind, order 0.
    pub fn modified_bessel_k0(x: f64) -> f64 {
        if x > 0.0 && x <= 1.0 {
            return series(2.0 * x * x - 1.0, &K0_NEAR) - log(0.5 * x) * i0(x);
        }
        return exp(-x) * scaled_modified_bessel_k0(x);
    }

    /// The modified Bessel function of the second kind, order 1.
    pub fn modified_bessel_k1(x: f64) -> f64 {
        if x > 0.0 && x <= 1.0 {
            return 1.0 / x + (log(0.5 * x) * i1(x) + x * series(2.0 * x * x - 1.0, &K1_NEAR));
        }
        return exp(-x) * scaled_modified_bessel_k1(x);
    }

    /// The Bessel function of the first kind, order 0.
    pub fn bessel_j0(x: f64) -> f64 {
        return j0(x);
    }
    /// The Bessel function of the first kind, order 1.
    pub fn bessel_j1(x: f64) -> f64 {
        return j1(x);
    }
    /// The Bessel function of the second kind, order 0.
    pub fn bessel_y0(x: f64) -> f64 {
        if x < 0.0 {
            return UNDEFINED;
        }
        if x == 0.0 {
            return -INFINITE;
        }
        return y0(x);
    }
    /// The Bessel function of the second kind, order 1.
    pub fn bessel_y1(x: f64) -> f64 {
        if x < 0.0 {
            return UNDEFINED;
        }
        if x == 0.0 {
            return -INFINITE;
        }
        return y1(x);
    }

    const HALF_INVERSE_ROOT_PI: f64 = 0.28209479177387814;
    const INVERSE_ROOT_TWO_PI: f64 = 0.3989422804014327;
    /// Ai(0) and -Ai'(0).
    const AIRY_VALUE: f64 = 0.3550280538878172;
    const AIRY_SLOPE: f64 = 0.2588194037928068;

    /// Airy's function Ai.
    pub fn airy_ai(x: f64) -> f64 {
        if x != x {
            return x;
        }
        if x <= 1.0 && x >= -2.5 {
            // The two power series.
            let c = x * x * x;
            let mut k = 0.0;
            let mut f = 1.0;
            let mut g = x;
            let mut sf = f;
            let mut sg = g;
            while k < 45.0 {
                f *= c / ((k + 2.0) * (k + 3.0));
                g *= c / ((k + 3.0) * (k + 4.0));
                sf += f;
                sg += g;
                k += 3.0;
            }
            return AIRY_VALUE * sf - AIRY_SLOPE * sg;
        }
        // z = 2/3 |x|^(3/2) and what its rounding leaves: the exponential and the waves magnify it.
        let a = fabs(x);
        if a > 1e8 {
            if x > 0.0 {
                return 0.0;
            }
            if a > 1e12 {
                return UNDEFINED;
            }
        }
        let r = sqrt(a);
        let p = a * r;
        let rest = fma(a, r, -p) + a * (fma(-r, r, a) / (2.0 * r));
        let z = 2.0 * p / 3.0;
        let zl = (fma(-3.0, z, 2.0 * p) + 2.0 * rest) / 3.0;
        if x > 0.0 {
            let e = HALF_INVERSE_ROOT_PI * exp(-z) * (1.0 - zl) / sqrt(r);
            if z < 4.0 {
                // In 1/z on 1/4..1.5.
                return e * series((1.0 / z - 0.875) / 0.625, &AIRY_NEAR);
            }
            return e * series(8.0 / z - 1.0, &AIRY_FAR);
        }
        let s0 = sin(z);
        let c0 = cos(z);
        let s = s0 + c0 * zl;
        let c = c0 - s0 * zl;
        // z0 = 2/3 2.5^(3/2), squared, is 125/18.
        let t = 13.88888888888889 / (z * z) - 1.0;
        let wave = (s + c) * series(t, &AIRY_P) - (c - s) * series(t, &AIRY_Q) / z;
        return INVERSE_ROOT_TWO_PI * wave / sqrt(r);
    }
}
