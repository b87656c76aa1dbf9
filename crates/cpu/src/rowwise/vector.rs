//! Loops over one dense row that the row kernels share: sums with several accumulators and element
//! by element maps. Long rows add up in blocks whose sums are kept in f64.

use crate::simd::FloatLanes;
use crate::strided::Compute;

/// Elements whose sum stays in lanes; beyond it block sums go to f64.
pub const BLOCK: usize = 4096;

/// One term of a reduction over up to three dense rows.
pub trait Term<V>: Copy {
    /// `acc + term` at element vectors `a`, `b`.
    fn add(self, acc: V, a: V, b: V) -> V;
}

/// The sum of `term(a[i], b[i])`. Elements past the end are not added: their lanes hold `fill`, for
/// which every term must be zero.
/// # Safety
/// `a` and `b` point to `n` readable elements.
#[inline(always)]
pub unsafe fn sum<E: Compute, V: FloatLanes<Elem = E>, F: Term<V>>(
    f: F,
    a: *const E,
    b: *const E,
    n: usize,
    fill: f64,
) -> f64 {
    let mut total = 0.0;
    let mut start = 0;
    while start < n {
        let end = n.min(start + BLOCK);
        let mut acc = [V::lit(0.0); 4];
        let mut i = start;
        // SAFETY: all elements read are below `end <= n`.
        unsafe {
            while i + 4 * V::N <= end {
                for (k, s) in acc.iter_mut().enumerate() {
                    let j = i + k * V::N;
                    *s = f.add(*s, V::load(a.add(j)), V::load(b.add(j)));
                }
                i += 4 * V::N;
            }
            let mut k = 0;
            while i < end {
                let m = V::N.min(end - i);
                let va = V::load_partial(a.add(i), m, E::of(fill));
                let vb = V::load_partial(b.add(i), m, E::of(fill));
                acc[k] = f.add(acc[k], va, vb);
                k = (k + 1) % 4;
                i += V::N;
            }
        }
        total += ((acc[0] + acc[1]) + (acc[2] + acc[3])).reduce_add().f64();
        start = end;
    }
    total
}

/// `(sum of a, sum of a * (b - mean))` in one pass, each as [`sum`] with [`Plain`] alone would add it up.
/// # Safety
/// `a` and `b` point to `n` readable elements.
#[inline(always)]
pub unsafe fn sum_and_product<E: Compute, V: FloatLanes<Elem = E>>(
    a: *const E,
    b: *const E,
    mean: V,
    n: usize,
) -> (f64, f64) {
    let (mut plain, mut product) = (0.0, 0.0);
    let zero = E::of(0.0);
    let mut start = 0;
    while start < n {
        let end = n.min(start + BLOCK);
        let (mut s, mut p) = ([V::lit(0.0); 4], [V::lit(0.0); 4]);
        let mut i = start;
        // SAFETY: all elements read are below `end <= n`.
        unsafe {
            while i + 4 * V::N <= end {
                for k in 0..4 {
                    let va = V::load(a.add(i + k * V::N));
                    s[k] = s[k] + va;
                    p[k] = V::fma_(va, V::load(b.add(i + k * V::N)) - mean, p[k]);
                }
                i += 4 * V::N;
            }
            // Fewer than four vectors are left.
            for k in 0..4 {
                if i < end {
                    let m = V::N.min(end - i);
                    let va = V::load_partial(a.add(i), m, zero);
                    s[k] = s[k] + va;
                    p[k] = V::fma_(va, V::load_partial(b.add(i), m, zero) - mean, p[k]);
                    i += V::N;
                }
            }
        }
        plain += ((s[0] + s[1]) + (s[2] + s[3])).reduce_add().f64();
        product += ((p[0] + p[1]) + (p[2] + p[3])).reduce_add().f64();
        start = end;
    }
    (plain, product)
}

/// One element-wise result from up to four dense rows.
pub trait Make<V>: Copy {
    fn at(self, x: [V; 4]) -> V;
}

/// `y[i] = make(x0[i], x1[i], ..)`; null rows read as zero.
/// # Safety
/// Rows that are not null have `n` elements; `y` may be one of them.
#[inline(always)]
pub unsafe fn map<E: Compute, V: FloatLanes<Elem = E>, F: Make<V>>(
    f: F,
    x: [*const E; 4],
    y: *mut E,
    n: usize,
) {
    let mut i = 0;
    let null = x.map(|p| p.is_null());
    // SAFETY: elements below `n` of rows that are there.
    unsafe {
        while i + V::N <= n {
            let mut v = [V::lit(0.0); 4];
            for k in 0..4 {
                if !null[k] {
                    v[k] = V::load(x[k].add(i));
                }
            }
            f.at(v).store(y.add(i));
            i += V::N;
        }
        if i < n {
            let m = n - i;
            let mut v = [V::lit(0.0); 4];
            for k in 0..4 {
                if !null[k] {
                    v[k] = V::load_partial(x[k].add(i), m, E::of(0.0));
                }
            }
            f.at(v).store_partial(y.add(i), m);
        }
    }
}

/// The greatest element that is not NaN; -inf if there is none.
/// # Safety
/// `x` points to `n` readable elements.
#[inline(always)]
pub unsafe fn greatest<E: Compute, V: FloatLanes<Elem = E>>(x: *const E, n: usize) -> f64 {
    let low = V::lit(f64::NEG_INFINITY);
    let mut acc = [low; 4];
    let mut i = 0;
    // SAFETY: all elements read are below `n`.
    unsafe {
        while i + 4 * V::N <= n {
            for (k, s) in acc.iter_mut().enumerate() {
                // `max_` gives its second argument where either is NaN.
                *s = V::max_(V::load(x.add(i + k * V::N)), *s);
            }
            i += 4 * V::N;
        }
        while i < n {
            let m = V::N.min(n - i);
            let v = V::load_partial(x.add(i), m, E::of(f64::NEG_INFINITY));
            acc[0] = V::max_(v, acc[0]);
            i += V::N;
        }
    }
    V::max_(V::max_(acc[0], acc[1]), V::max_(acc[2], acc[3])).reduce_max().f64()
}

/// Sum of `a`.
#[derive(Clone, Copy)]
pub struct Plain;
impl<V: FloatLanes> Term<V> for Plain {
    #[inline(always)]
    fn add(self, acc: V, a: V, _: V) -> V {
        acc + a
    }
}
/// Sum of `a * b`.
#[derive(Clone, Copy)]
pub struct Dot;
impl<V: FloatLanes> Term<V> for Dot {
    #[inline(always)]
    fn add(self, acc: V, a: V, b: V) -> V {
        V::fma_(a, b, acc)
    }
}
/// Sum of `(a - mean)^2`; `fill` must be the mean.
#[derive(Clone, Copy)]
pub struct Spread<V>(pub V);
impl<V: FloatLanes> Term<V> for Spread<V> {
    #[inline(always)]
    fn add(self, acc: V, a: V, _: V) -> V {
        let d = a - self.0;
        V::fma_(d, d, acc)
    }
}
/// Sum of `exp(a - shift)`; `fill` must be -inf.
#[derive(Clone, Copy)]
pub struct ExpSum<V>(pub V);
impl<V: FloatLanes> Term<V> for ExpSum<V> {
    #[inline(always)]
    fn add(self, acc: V, a: V, _: V) -> V {
        acc + (a - self.0).exp()
    }
}
