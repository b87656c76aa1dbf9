//! The Hurwitz zeta function and the derivatives of digamma.

use crate::math::*;

pyrite_table::functions! {
    /// B(2j) / (2j)!, the weights of the Euler-Maclaurin sum.
    const EULER_MACLAURIN: [f64; 12] = [
        0.08333333333333333,
        -0.001388888888888889,
        3.306878306878307e-5,
        -8.267195767195768e-7,
        2.08767569878681e-8,
        -5.284190138687493e-10,
        1.3382536530684679e-11,
        -3.3896802963225827e-13,
        8.586062056277845e-15,
        -2.174868698558062e-16,
        5.5090028283602295e-18,
        -1.3954464685812522e-19
    ];

    /// For s > 1 and q > 0: the first terms, then Euler and Maclaurin.
    fn hurwitz(s: f64, q: f64) -> f64 {
        let mut a = q;
        let mut sum = 0.0;
        // From here on the correction terms fall fast enough for all digits.
        let far = s + 12.0;
        while a < far {
            let term = pow(a, -s);
            sum += term;
            if term <= sum * 1e-18 {
                return sum;
            }
            a += 1.0;
        }
        let edge = pow(a, -s);
        sum += edge * (a / (s - 1.0) + 0.5);
        let mut factor = s * edge / a;
        let mut k = s;
        let mut j: usize = 0;
        while j < 12 {
            let term = EULER_MACLAURIN[j] * factor;
            sum += term;
            if fabs(term) <= sum * 1e-18 {
                return sum;
            }
            factor *= (k + 1.0) * (k + 2.0) / (a * a);
            k += 2.0;
            j += 1;
        }
        return sum;
    }

    /// The sum over k >= 0 of (q + k)^-s, for s > 1; for q < 0 where s is an integer.
    pub fn zeta(s: f64, q: f64) -> f64 {
        if s != s || q != q {
            return s + q;
        }
        if s == 1.0 {
            return INFINITE;
        }
        if s < 1.0 {
            return UNDEFINED;
        }
        if q > 0.0 {
            if q == INFINITE {
                return 0.0;
            }
            return hurwitz(s, q);
        }
        if q == floor(q) {
            return INFINITE;
        }
        if s != floor(s) {
            return UNDEFINED;
        }
        // Over all integers k, less those below 0: three sums of positive numbers.
        let r = q - floor(q);
        let below = hurwitz(s, 1.0 - r) - hurwitz(s, 1.0 - q);
        if s - 2.0 * floor(s / 2.0) == 0.0 {
            return hurwitz(s, r) + below;
        }
        return hurwitz(s, r) - below;
    }

    /// The derivative of order n >= 1 of digamma: (-1)^(n+1) n! zeta(n + 1, x).
    pub fn polygamma(n: f64, x: f64) -> f64 {
        let mut sign = 1.0;
        if n - 2.0 * floor(n / 2.0) == 0.0 {
            sign = -1.0;
        }
        if x == INFINITE {
            return sign * 0.0;
        }
        if x == -INFINITE {
            return UNDEFINED;
        }
        let z = zeta(n + 1.0, x);
        // 171! overflows where the zeta factor may be small: put together from logarithms.
        if n > 170.0 {
            return sign * exp(lgamma(n + 1.0) + log(z));
        }
        return sign * tgamma(n + 1.0) * z;
    }

    /// 2 to the power x, exact where that is a number of the format.
    pub fn power_of_two(x: f64) -> f64 {
        return pow(2.0, x);
    }
}
