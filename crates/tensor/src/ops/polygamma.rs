//! The derivatives of `digamma`. No table row: the order is an integer that picks the formula, and
//! nothing but the second derivative of `lgamma` calls for speed here, so the values are computed one by
//! one in f64 on the host, on every device the same ones.

use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::{DType, Device, Result, ensure};
use smallvec::smallvec;
use std::f64::consts::PI;

/// The derivative of order `n` of `digamma` at every element.
pub fn polygamma(n: i64, x: &Tensor) -> Result<Tensor> {
    ensure!(n >= 0, Runtime, "polygamma(n, x) does not support negative n.");
    ensure!(!x.dtype().is_complex(), NotImplemented, "\"polygamma\" is not implemented for {}", x.dtype());
    let x = if x.dtype().is_float() { x.clone() } else { super::to_dtype(x, DType::default_float())? };
    if n == 0 {
        return super::digamma(&x);
    }
    let host = super::to_dtype(&super::to_device(&x.detach(), Device::Cpu)?, DType::F64)?;
    let order = n.min(i32::MAX as i64) as i32;
    let values: Vec<f64> = host.to_vec::<f64>()?.into_iter().map(|v| value(order, v)).collect();
    let y = Tensor::from_slice(&values, x.shape())?;
    let y = super::to_device(&super::to_dtype(&y, x.dtype())?, x.device())?;
    if needs_grad(&[&x]) {
        autograd::attach("PolygammaBackward0", &[&x], &[&y], &[Save::Input(&x)], move |cx| {
            let slope = polygamma(n.saturating_add(1), cx.saved(0)?)?;
            Ok(smallvec![Some(super::mul(&cx.grad(0)?, &slope)?)])
        });
    }
    Ok(y)
}

/// `(-1)^(n+1) n! zeta(n + 1, x)`; below 0 by reflection at 1/2.
fn value(n: i32, x: f64) -> f64 {
    let sign = if n % 2 == 0 { -1.0 } else { 1.0 };
    if x == f64::INFINITY {
        return sign * 0.0;
    }
    if x > 0.0 {
        return sign * factorial(n) * zeta(n as f64 + 1.0, x);
    }
    if x.is_nan() || x.is_infinite() {
        return f64::NAN;
    }
    // How far from the pole: exact, so that the cotangent keeps its digits far from 0.
    let r = x - x.round_ties_even();
    if r == 0.0 {
        return sign * f64::INFINITY;
    }
    // psi(1 - x) - psi(x) = pi cot(pi x), differentiated n times.
    -sign * value(n, 1.0 - x) - cot_derivative(n, 1.0 / (PI * r).tan())
}

fn factorial(n: i32) -> f64 {
    // Infinite from 171 on, where the zeta factor is 0 or the result overflows.
    (2..=n.min(171)).fold(1.0, |p, k| p * k as f64)
}

/// The derivative of order `n` of `pi cot(pi x)` where the cotangent is `c`: a polynomial in it, as
/// the derivative of `c` is `-pi (1 + c^2)`.
fn cot_derivative(n: i32, c: f64) -> f64 {
    let mut q = vec![0.0, PI];
    for _ in 0..n.min(170) {
        let mut next = vec![0.0; q.len() + 1];
        for (k, a) in q.iter().enumerate().skip(1) {
            let slope = -PI * k as f64 * a;
            next[k - 1] += slope;
            next[k + 1] += slope;
        }
        q = next;
    }
    q.iter().rev().fold(0.0, |s, a| s * c + a)
}

/// B(2j) / (2j)!, the weights of the Euler-Maclaurin sum.
const WEIGHTS: [f64; 12] = [
    1.0 / 12.0,
    -1.0 / 720.0,
    1.0 / 30240.0,
    -1.0 / 1209600.0,
    1.0 / 47900160.0,
    -691.0 / 1307674368000.0,
    1.0 / 74724249600.0,
    -3617.0 / 10670622842880000.0,
    43867.0 / 5109094217170944000.0,
    -174611.0 / 802857662698291200000.0,
    77683.0 / 14101100039391805440000.0,
    -236364091.0 / 1693824136731743669452800000.0,
];

/// The Hurwitz zeta function for s >= 2 and q > 0: the first terms, then Euler and Maclaurin.
fn zeta(s: f64, q: f64) -> f64 {
    // From here on the correction terms fall fast enough for all digits.
    let far = s + 12.0;
    let (mut a, mut sum) = (q, 0.0);
    while a < far {
        let term = a.powf(-s);
        sum += term;
        if term <= sum * 1e-18 {
            return sum;
        }
        a += 1.0;
    }
    let edge = a.powf(-s);
    sum += edge * (a / (s - 1.0) + 0.5);
    let mut factor = s * edge / a;
    for (j, w) in WEIGHTS.iter().enumerate() {
        let term = w * factor;
        sum += term;
        if term.abs() <= sum * 1e-18 {
            break;
        }
        let k = s + 2.0 * j as f64;
        factor *= (k + 1.0) * (k + 2.0) / (a * a);
    }
    sum
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "polygamma",
        FUNCTION | OUT,
        "The derivative of order `n` of `digamma`.",
        "n: int, input: Tensor",
        |a| Ok(polygamma(a.int(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "polygamma",
        METHOD,
        "The derivative of order `n` of `digamma`.",
        "input: Tensor, n: int",
        |a| { Ok(polygamma(a.int(1)?, a.tensor(0)?)?.into()) }
    );
}

#[cfg(test)]
mod tests {
    use super::value;
    use std::f64::consts::PI;

    fn close(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-13 * want.abs(), "{got:e}, expected {want:e}");
    }

    /// Closed forms: pi^2/6, pi^2/2, -2 zeta(3), pi^4/15, and the recurrence on either side of 0.
    #[test]
    fn known_values() {
        let zeta3 = 1.202_056_903_159_594_3;
        close(value(1, 1.0), PI * PI / 6.0);
        close(value(1, 0.5), PI * PI / 2.0);
        close(value(2, 1.0), -2.0 * zeta3);
        close(value(2, 0.5), -14.0 * zeta3);
        close(value(3, 1.0), PI.powi(4) / 15.0);
        close(value(1, -0.5), PI * PI / 2.0 + 4.0);
        close(value(3, -0.5), PI.powi(4) + 96.0);
        close(value(1, 1e8), 1e-8 + 0.5e-16);
        for x in [1e-3, 0.3, 2.7, 40.0, -0.3, -2.2, -7.9] {
            let step = |n: i32, f: f64| f * f64::powi(x, -n - 1);
            close(value(1, x), value(1, x + 1.0) + step(1, 1.0));
            close(value(3, x), value(3, x + 1.0) + step(3, 6.0));
        }
        assert_eq!(value(1, -2.0), f64::INFINITY);
        assert!(value(1, f64::NAN).is_nan() && value(1, f64::INFINITY) == 0.0);
    }
}
