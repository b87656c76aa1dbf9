//! Singular values by one-sided Jacobi rotations: columns are turned until they are orthogonal; their lengths
//! are the values.

use super::eigh::turn;
use super::lanes::{Lockstep, Wide, clean, exponent, run, spoil};
use super::{Batch, DONE, Ints, MOST, NOT_CONVERGED, NOT_FINITE};
use crate::real::Real;
use crate::simd::FloatLanes;
use pyrite_core::expr::Mask;
use pyrite_core::{DType, Result};

const SWEEPS: usize = 30;

#[derive(Clone, Copy)]
struct Job {
    m: usize,
    n: usize,
    a: Batch,
    s: Batch,
    status: Ints,
}

/// Singular values (descending) of `count` matrices of m x n; `s` holds min(m, n) numbers per matrix in memory
/// order. `status` says what became of each.
///
/// # Safety
/// As [`super::lu`].
pub unsafe fn singular_values(
    dtype: DType,
    count: usize,
    (m, n): (usize, usize),
    a: Batch,
    s: Batch,
    status: Ints,
) -> Result<()> {
    // Columns are fewer than rows, or as many: there are fewer pairs of them.
    let job = match m < n {
        true => Job { m: n, n: m, a: Batch { rs: a.cs, cs: a.rs, ..a }, s, status },
        false => Job { m, n, a, s, status },
    };
    // SAFETY: the caller's promise.
    unsafe { run(dtype, count, job) }
}

impl Lockstep for Job {
    const NAME: &'static str = "singular values";
    fn registers(&self) -> usize {
        self.m * self.n
    }
    fn ns(&self) -> f64 {
        100.0 + (self.n * self.n * self.m) as f64 * 2.0
    }
    #[inline(always)]
    unsafe fn group<T: Real, V: FloatLanes<Elem = T>>(&self, first: usize, lanes: usize, scratch: *mut T) {
        // SAFETY: the caller's promise.
        unsafe { group::<T, V>(self, first, lanes, scratch) }
    }
}

/// # Safety
/// As [`singular_values`], for matrices `first .. first + lanes`.
#[inline(always)]
unsafe fn group<T: Real, V: FloatLanes<Elem = T>>(job: &Job, first: usize, lanes: usize, scratch: *mut T) {
    let (m, n) = (job.m, job.n);
    let zero = V::lit(0.0);
    let (rs, cs) = if job.a.cs == 1 { (n, 1) } else { (1, m) };
    let a = Wide::<V>::new(scratch, rs, cs);
    // SAFETY: indices are below the sizes that the scratch was made for.
    unsafe {
        a.load(job.a, first, lanes, m, n);
        let (mut odd, mut most) = (zero, zero);
        for i in 0..m {
            for j in 0..n {
                let x = a.get(i, j);
                odd = spoil(odd, x);
                most = V::maximum(most, x.abs());
            }
        }
        let finite = clean(odd);
        let e = exponent(V::select(finite, most, zero));
        for i in 0..m {
            for j in 0..n {
                a.set(i, j, V::select(finite, a.get(i, j).ldexp_(-e), zero));
            }
        }
        let done = sweeps(a, m, n);
        let mut each = [[T::default(); 64]; 2];
        V::select(finite, zero, V::lit(1.0)).store(each[0].as_mut_ptr());
        V::select(done, zero, V::lit(1.0)).store(each[1].as_mut_ptr());
        let mut values = [[T::default(); 64]; MOST];
        for (j, s) in values.iter_mut().enumerate().take(n) {
            let mut sum = zero;
            for i in 0..m {
                let x = a.get(i, j);
                sum = V::fma(x, x, sum);
            }
            sum.sqrt().ldexp_(e).store(s.as_mut_ptr());
        }
        for l in 0..lanes {
            let status = match (each[0][l].f64() != 0.0, each[1][l].f64() != 0.0) {
                (true, _) => NOT_FINITE,
                (_, true) => NOT_CONVERGED,
                _ => DONE,
            };
            *job.status.0.add(first + l) = status;
            if status != DONE {
                continue;
            }
            let out = job.s.ptr.cast::<T>().wrapping_offset((first + l) as isize * job.s.step);
            for (i, v) in values.iter().enumerate().take(n) {
                let mut at = i;
                while at > 0 && *out.add(at - 1) < v[l] {
                    *out.add(at) = *out.add(at - 1);
                    at -= 1;
                }
                *out.add(at) = v[l];
            }
        }
    }
}

/// Sweeps until the columns of all lanes are orthogonal. True in the lanes that came to an end.
///
/// # Safety
/// `a` is m x n.
#[inline(always)]
unsafe fn sweeps<V: FloatLanes>(a: Wide<V>, m: usize, n: usize) -> V::M {
    let eps = if size_of::<V::Elem>() == 4 { f32::EPSILON as f64 } else { f64::EPSILON };
    let near = V::lit((eps * m.max(4) as f64 * 0.5).powi(2));
    for _ in 0..SWEEPS {
        let mut turned = V::eq(near, V::lit(0.0));
        for q in 1..n {
            for p in 0..q {
                // SAFETY: p < q < n.
                turned = turned | unsafe { rotate(a, m, p, q, near) };
            }
        }
        if !turned.any() {
            return !turned;
        }
    }
    // SAFETY: as above; a last look, which turns what it finds.
    let mut turned = V::eq(near, V::lit(0.0));
    for q in 1..n {
        for p in 0..q {
            // SAFETY: p < q < n.
            turned = turned | unsafe { rotate(a, m, p, q, near) };
        }
    }
    !turned
}

/// Makes columns p and q orthogonal in the lanes where they are not yet, which it returns. `near` is the square of
/// the cosine that counts as zero.
///
/// # Safety
/// p < q are columns of `a`, which has m rows.
#[inline(always)]
unsafe fn rotate<V: FloatLanes>(a: Wide<V>, m: usize, p: usize, q: usize, near: V) -> V::M {
    let (zero, one) = (V::lit(0.0), V::lit(1.0));
    // SAFETY: indices are below the sizes.
    unsafe {
        let (mut pp, mut qq, mut pq) = (zero, zero, zero);
        for i in 0..m {
            let (x, y) = (a.get(i, p), a.get(i, q));
            pp = V::fma(x, x, pp);
            qq = V::fma(y, y, qq);
            pq = V::fma(x, y, pq);
        }
        // Columns whose squares vanish are zeros beside the largest, which has elements near 1.
        let wanted = V::lt(near * pp * qq, pq * pq);
        if !wanted.any() {
            return wanted;
        }
        let c = (qq - pp) / (pq + pq);
        let t = V::copysign(one, c) / (c.abs() + V::fma(c, c, one).sqrt());
        // Columns of very different length: the square would overflow.
        let t = V::select(V::lt(V::lit(1e15), c.abs()), V::lit(0.5) / c, t);
        let t = V::select(wanted, t, zero);
        let wanted = wanted & !V::eq(t, zero);
        let cos = one / V::fma(t, t, one).sqrt();
        let sin = t * cos;
        let half = sin / (one + cos);
        for i in 0..m {
            turn::<V>(a.at(i, p), a.at(i, q), sin, half);
        }
        wanted
    }
}
