//! The regularised incomplete gamma functions.

use crate::math::*;
use crate::tables::*;

pyrite_table::functions! {
    /// `m - log(1 + m)` without cancellation.
    fn log1pmx(m: f64) -> f64 {
        if fabs(m) < 0.4 {
            return m * m * series(m / 0.4, &LOG1PMX);
        }
        return m - log1p(m);
    }

    /// `(x / a)^a exp(a - x)`: the exponent may be large, so that its rounding would show. Powers are
    /// exact enough for a large exponent; what x / a and a - x lost is put back at first order.
    fn gamma_peak(a: f64, x: f64) -> f64 {
        let r = x / a;
        let d = a - x;
        let back = d - a;
        let lost = (a - (d - back)) - (x + back) + a * (fma(-r, a, x) / x);
        let top = fmax(fabs(d), fabs(a * log(r)));
        if top > 1e6 {
            return exp(-a * log1pmx((x - a) / a));
        }
        let mut m = 1.0;
        while top > 600.0 * m {
            m *= 2.0;
        }
        let mut w = pow(r, a / m) * exp(d / m);
        while m > 1.0 {
            w *= w;
            m *= 0.5;
        }
        return w + w * lost;
    }

    /// `x^a exp(-x) / Gamma(a + 1)`.
    fn gamma_weight(a: f64, x: f64) -> f64 {
        if a < 20.0 {
            if x > 700.0 {
                return exp(a * log(x) - x - lgamma(a + 1.0));
            }
            return pow(x, a) * exp(-x) / tgamma(a + 1.0);
        }
        let s = 1.0 / (a * a);
        let stirling = (1.0 / 12.0 - s * (1.0 / 360.0 - s * (1.0 / 1260.0 - s * (1.0 / 1680.0 - s / 1188.0)))) / a;
        if x < 1e-3 * a {
            return exp(a - x + a * log(x / a) - stirling) / sqrt(6.283185307179586 * a);
        }
        return gamma_peak(a, x) * exp(-stirling) / sqrt(6.283185307179586 * a);
    }

    /// P by its power series: x not far above a.
    fn gamma_series(a: f64, x: f64) -> f64 {
        let mut term = 1.0;
        let mut sum = 1.0;
        let mut n = a;
        while term > sum * 1e-17 {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        return gamma_weight(a, x) * sum;
    }

    /// Q by its continued fraction (Lentz), x not below a and 1.
    fn gamma_fraction(a: f64, x: f64) -> f64 {
        let tiny = 1e-300;
        let mut b = x + 1.0 - a;
        let mut c = 1.0 / tiny;
        let mut d = 1.0 / b;
        let mut h = d;
        let mut i = 1.0;
        let mut step = 0.0;
        while fabs(step - 1.0) > 1e-16 && i < 2000.0 {
            let n = i * (a - i);
            b += 2.0;
            d = n * d + b;
            if fabs(d) < tiny {
                d = tiny;
            }
            c = b + n / c;
            if fabs(c) < tiny {
                c = tiny;
            }
            d = 1.0 / d;
            step = d * c;
            h *= step;
            i += 1.0;
        }
        return gamma_weight(a, x) * a * h;
    }

    /// Q for x < 1 and a < 1, where 1 - P would cancel.
    fn gamma_small(a: f64, x: f64) -> f64 {
        let mut term = 1.0;
        let mut sum = 0.0;
        let mut n = 0.0;
        while fabs(term) > 1e-18 && n < 60.0 {
            n += 1.0;
            term *= -x / n;
            sum += term / (a + n);
        }
        let l = a * log(x) - a * series(2.0 * a - 1.0, &LGAMMA1P);
        return -expm1(l) - exp(l) * a * sum;
    }

    /// Temme's expansion, uniform around x = a; `side` is 1 for Q, -1 for P.
    fn gamma_uniform(a: f64, x: f64, side: f64) -> f64 {
        let m = (x - a) / a;
        let d = log1pmx(m);
        let mut eta = sqrt(2.0 * d);
        if m < 0.0 {
            eta = -eta;
        }
        let mut sum = 0.0;
        let mut power = 1.0;
        let mut row: usize = 0;
        while row < 20 {
            let mut c = 0.0;
            let mut k: usize = 18;
            while k > 0 {
                k -= 1;
                c = c * eta + TEMME[18 * row + k];
            }
            let term = c * power;
            sum += term;
            if fabs(term) < 1e-18 {
                row = 20;
            }
            power /= a;
            row += 1;
        }
        let tail = gamma_peak(a, x) / sqrt(6.283185307179586 * a) * sum;
        return 0.5 * erfc(side * eta * sqrt(0.5 * a)) + side * tail;
    }

    fn near_diagonal(a: f64, x: f64) -> f64 {
        if a > 20.0 && fabs(x - a) < 0.3 * a {
            return 1.0;
        }
        return 0.0;
    }

    /// The lower regularised incomplete gamma function P(a, x).
    pub fn gammainc(a: f64, x: f64) -> f64 {
        if a != a || x != x || a < 0.0 || x < 0.0 {
            return UNDEFINED;
        }
        if a == 0.0 {
            if x > 0.0 {
                return 1.0;
            }
            return UNDEFINED;
        }
        if x == 0.0 {
            return 0.0;
        }
        if a == INFINITE {
            if x == INFINITE {
                return UNDEFINED;
            }
            return 0.0;
        }
        if x == INFINITE {
            return 1.0;
        }
        if near_diagonal(a, x) > 0.0 {
            return gamma_uniform(a, x, -1.0);
        }
        if x < 1.0 || x < a {
            return gamma_series(a, x);
        }
        return 1.0 - gamma_fraction(a, x);
    }

    /// The upper regularised incomplete gamma function Q(a, x).
    pub fn gammaincc(a: f64, x: f64) -> f64 {
        if a != a || x != x || a < 0.0 || x < 0.0 {
            return UNDEFINED;
        }
        if a == 0.0 {
            if x > 0.0 {
                return 0.0;
            }
            return UNDEFINED;
        }
        if x == 0.0 {
            return 1.0;
        }
        if a == INFINITE {
            if x == INFINITE {
                return UNDEFINED;
            }
            return 1.0;
        }
        if x == INFINITE {
            return 0.0;
        }
        if near_diagonal(a, x) > 0.0 {
            return gamma_uniform(a, x, 1.0);
        }
        if x < 1.0 && a < 1.0 {
            return gamma_small(a, x);
        }
        if x < 1.0 || x < a {
            return 1.0 - gamma_series(a, x);
        }
        return gamma_fraction(a, x);
    }
}
