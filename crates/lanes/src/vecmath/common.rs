//! What f32 and f64 lanes share: NaN-propagating extremes, remainders, floor division.

use crate::simd::Base;
use pyrite_core::expr::Mask;

/// The polynomial with coefficients `c`, lowest first, by Horner's rule: independent vectors of the
/// caller's loop fill the latency, so a scheme with more multiplications would only cost.
#[inline(always)]
pub fn poly<V: Base, const K: usize>(x: V, c: &[f64; K]) -> V {
    let mut s = V::lit(c[K - 1]);
    for i in (0..K - 1).rev() {
        s = V::fma_(s, x, V::lit(c[i]));
    }
    s
}

/// `a - n * b` as a sum of two numbers. The general form of the error term is needed: near multiples of
/// pi the difference is far smaller than both, and a short form loses what is left.
#[inline(always)]
pub fn less_product<V: Base>(a: V, n: V, b: V) -> (V, V) {
    let p = n * b;
    let pl = V::fma_exact_(n, b, -p);
    let r = a - p;
    let back = r - a;
    let lost = (a - (r - back)) - (p + back);
    (r, lost - pl)
}

/// What every logarithm answers outside of its domain, given its `r` for the rest: `x` is the
/// argument.
#[inline(always)]
pub fn log_edges<V: Base>(x: V, r: V) -> V {
    let r = V::select(V::lt(x, V::lit(f64::INFINITY)), r, x);
    let r = V::select(V::lt(x, V::lit(0.0)), V::lit(f64::NAN), r);
    V::select(V::eq(x, V::lit(0.0)), V::lit(f64::NEG_INFINITY), r)
}

#[inline(always)]
pub fn maximum<V: Base>(a: V, b: V) -> V {
    V::select(a.is_nan_(), a, V::max_(a, b))
}

#[inline(always)]
pub fn minimum<V: Base>(a: V, b: V) -> V {
    V::select(a.is_nan_(), a, V::min_(a, b))
}

/// `fmod` by one division where the quotient is small enough for it to be exact, else by `slow`.
/// `limit` is a quarter of 2^(mantissa bits + 1), `tiny` a divisor whose quotients can't underflow.
#[inline(always)]
pub fn fmod<V: Base>(a: V, b: V, limit: f64, tiny: f64, slow: impl Fn(V::Elem, V::Elem) -> V::Elem) -> V {
    if !V::FMA {
        return a.each2_(b, slow);
    }
    let (aa, ab) = (a.abs_(), b.abs_());
    let q = aa / ab;
    let fast = V::lt(q, V::lit(limit)) & V::lt(V::lit(tiny), ab) & V::lt(ab, V::lit(f64::MAX.min(3.0e38)));
    // NaN operands fail the comparisons and take the slow way, too.
    if (!fast).any() {
        return a.each2_(b, slow);
    }
    let q = q.trunc_();
    let r = V::fma_(-q, ab, aa);
    // The rounded quotient can reach an integer that the true one does not: then r is -small.
    let r = V::select(V::lt(r, V::lit(0.0)), r + ab, r);
    V::copysign_(r, a)
}

/// Python's remainder from C's.
#[inline(always)]
pub fn remainder<V: Base>(b: V, m: V) -> V {
    let zero = V::lit(0.0);
    let differ = V::lt(m, zero) ^ V::lt(b, zero);
    V::select(!V::eq(m, zero) & differ, m + b, m)
}

/// Floor division with `m = fmod(a, b)`, as Python defines it: `(a - remainder) / b`, to the nearest
/// integer because that division can be off by an ulp; `a / b` where b is zero.
#[inline(always)]
pub fn floor_div<V: Base>(a: V, b: V, m: V) -> V {
    let (zero, one) = (V::lit(0.0), V::lit(1.0));
    let d = (a - m) / b;
    let differ = V::lt(m, zero) ^ V::lt(b, zero);
    let d = V::select(!V::eq(m, zero) & differ, d - one, d);
    let f = d.floor_();
    let f = V::select(V::lt(V::lit(0.5), d - f), f + one, f);
    let q = a / b;
    let f = V::select(V::eq(d, zero), V::copysign_(zero, q), f);
    V::select(V::eq(b, zero), q, f)
}
