//! Orthogonal polynomials of integer order. The order is cut to an integer; below 0 the value is 0.
//!
//! Chebyshev's have closed forms, which are taken for high orders. The others are computed by their
//! recurrences; from order one million on the answer is NaN rather than a wait.

use crate::math::*;

pyrite_table::functions! {
    /// 1 for even n, -1 for odd.
    fn parity(n: f64) -> f64 {
        return 1.0 - 2.0 * (n - 2.0 * floor(n / 2.0));
    }

    /// Value n >= 0 of `p(k + 1) = 2 x p(k) - p(k - 1)`, from p(0) = 1 and p(1) = `first`.
    fn chebyshev(x: f64, n: f64, first: f64) -> f64 {
        let mut p = 1.0;
        let mut q = first;
        let mut k = 0.0;
        while k < n {
            if fabs(q) > 1e305 && k + 1.0 < n {
                if x < 0.0 {
                    return parity(n) * INFINITE;
                }
                return INFINITE;
            }
            let r = 2.0 * x * q - p;
            p = q;
            q = r;
            k += 1.0;
        }
        return p;
    }

    /// Chebyshev's polynomial of the first kind: `cos(n t)` at x = cos t.
    pub fn chebyshev_polynomial_t(x: f64, order: f64) -> f64 {
        let n = trunc(order);
        if n != n || n < 0.0 {
            return 0.0;
        }
        if n >= 40.0 && x != x {
            return x;
        }
        if n < 40.0 || (fabs(x) > 1.0 && n < 512.0) {
            return chebyshev(x, n, x);
        }
        if fabs(x) <= 1.0 {
            return cos(n * acos(x));
        }
        let y = cosh(n * acosh(fabs(x)));
        if x < 0.0 {
            return parity(n) * y;
        }
        return y;
    }

    /// Of the second kind: `sin((n + 1) t) / sin t`.
    pub fn chebyshev_polynomial_u(x: f64, order: f64) -> f64 {
        let n = trunc(order);
        if n != n || n < 0.0 {
            return 0.0;
        }
        if n >= 40.0 && x != x {
            return x;
        }
        if n < 40.0 || (fabs(x) > 1.0 && n < 512.0) {
            return chebyshev(x, n, 2.0 * x);
        }
        let mut y = n + 1.0;
        if fabs(x) < 1.0 {
            let t = acos(fabs(x));
            y = sin((n + 1.0) * t) / sin(t);
        }
        if fabs(x) > 1.0 {
            let t = acosh(fabs(x));
            y = sinh((n + 1.0) * t) / sinh(t);
        }
        if x < 0.0 {
            return parity(n) * y;
        }
        return y;
    }

    /// Orders from 40 on of the third kind at x >= 0: `cos((n + 1/2) t) / cos(t / 2)`.
    fn third_kind(x: f64, n: f64) -> f64 {
        if x <= 1.0 {
            let t = acos(x);
            return cos((n + 0.5) * t) / cos(0.5 * t);
        }
        let t = acosh(x);
        return cosh((n + 0.5) * t) / cosh(0.5 * t);
    }

    /// Of the fourth kind: `sin((n + 1/2) t) / sin(t / 2)`.
    fn fourth_kind(x: f64, n: f64) -> f64 {
        if x == 1.0 {
            return 2.0 * n + 1.0;
        }
        if x < 1.0 {
            let t = acos(x);
            return sin((n + 0.5) * t) / sin(0.5 * t);
        }
        let t = acosh(x);
        return sinh((n + 0.5) * t) / sinh(0.5 * t);
    }

    /// Chebyshev's polynomial of the third kind.
    pub fn chebyshev_polynomial_v(x: f64, order: f64) -> f64 {
        let n = trunc(order);
        if n != n || n < 0.0 {
            return 0.0;
        }
        if n >= 40.0 && x != x {
            return x;
        }
        if n < 40.0 || (fabs(x) > 1.0 && n < 512.0) {
            return chebyshev(x, n, 2.0 * x - 1.0);
        }
        if x < 0.0 {
            return parity(n) * fourth_kind(-x, n);
        }
        return third_kind(x, n);
    }

    /// Chebyshev's polynomial of the fourth kind.
    pub fn chebyshev_polynomial_w(x: f64, order: f64) -> f64 {
        let n = trunc(order);
        if n != n || n < 0.0 {
            return 0.0;
        }
        if n >= 40.0 && x != x {
            return x;
        }
        if n < 40.0 || (fabs(x) > 1.0 && n < 512.0) {
            return chebyshev(x, n, 2.0 * x + 1.0);
        }
        if x < 0.0 {
            return parity(n) * third_kind(-x, n);
        }
        return fourth_kind(x, n);
    }

    /// Chebyshev's polynomials over 0..1: at `2 x - 1`.
    pub fn shifted_chebyshev_polynomial_t(x: f64, n: f64) -> f64 {
        return chebyshev_polynomial_t(2.0 * x - 1.0, n);
    }
    /// The second kind over 0..1.
    pub fn shifted_chebyshev_polynomial_u(x: f64, n: f64) -> f64 {
        return chebyshev_polynomial_u(2.0 * x - 1.0, n);
    }
    /// The third kind over 0..1.
    pub fn shifted_chebyshev_polynomial_v(x: f64, n: f64) -> f64 {
        return chebyshev_polynomial_v(2.0 * x - 1.0, n);
    }
    /// The fourth kind over 0..1.
    pub fn shifted_chebyshev_polynomial_w(x: f64, n: f64) -> f64 {
        return chebyshev_polynomial_w(2.0 * x - 1.0, n);
    }

    /// From here on a recurrence takes too long.
    const TOO_HIGH: f64 = 1e6;

    /// The physicists' Hermite polynomial.
    pub fn hermite_polynomial_h(x: f64, order: f64) -> f64 {
        let n = trunc(order);
        if n != n || n < 0.0 {
            return 0.0;
        }
        if n > TOO_HIGH {
            return UNDEFINED;
        }
        let mut p = 1.0;
        let mut q = 2.0 * x;
        let mut k = 1.0;
        while k <= n {
            let r = 2.0 * (x * q - k * p);
            p = q;
            q = r;
            k += 1.0;
        }
        return p;
    }

    /// The probabilists' Hermite polynomial.
    pub fn hermite_polynomial_he(x: f64, order: f64) -> f64 {
        let n = trunc(order);
        if n != n || n < 0.0 {
            return 0.0;
        }
        if n > TOO_HIGH {
            return UNDEFINED;
        }
        let mut p = 1.0;
        let mut q = x;
        let mut k = 1.0;
        while k <= n {
            let r = x * q - k * p;
            p = q;
            q = r;
            k += 1.0;
        }
        return p;
    }

    /// Laguerre's polynomial.
    pub fn laguerre_polynomial_l(x: f64, order: f64) -> f64 {
        let n = trunc(order);
        if n != n || n < 0.0 {
            return 0.0;
        }
        if n > TOO_HIGH {
            return UNDEFINED;
        }
        let mut p = 1.0;
        let mut q = 1.0 - x;
        let mut k = 1.0;
        while k <= n {
            let r = ((2.0 * k + 1.0 - x) * q - k * p) / (k + 1.0);
            p = q;
            q = r;
            k += 1.0;
        }
        return p;
    }

    /// Legendre's polynomial.
    pub fn legendre_polynomial_p(x: f64, order: f64) -> f64 {
        let n = trunc(order);
        if n != n || n < 0.0 {
            return 0.0;
        }
        if n > TOO_HIGH {
            return UNDEFINED;
        }
        let mut p = 1.0;
        let mut q = x;
        let mut k = 1.0;
        while k <= n {
            let r = ((2.0 * k + 1.0) * x * q - k * p) / (k + 1.0);
            p = q;
            q = r;
            k += 1.0;
        }
        return p;
    }
}
