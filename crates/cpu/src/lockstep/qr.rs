//! Householder QR with Q and R written out.

use super::Batch;
use super::lanes::{Lockstep, Wide, clean, run, spoil};
use crate::real::Real;
use crate::simd::FloatLanes;
use pyrite_core::{DType, Result};

#[derive(Clone, Copy)]
struct Job {
    m: usize,
    n: usize,
    a: Batch,
    /// Q and its number of columns.
    q: Option<(Batch, usize)>,
    /// R and its number of rows.
    r: (Batch, usize),
}

/// QR of `count` matrices of m x n: `q` is m x its number of columns (min(m, n) or m), `r` its number of rows x n.
/// Signs are LAPACK's. A matrix that is not finite gives NaN.
///
/// # Safety
/// As [`super::lu`].
pub unsafe fn qr(
    dtype: DType,
    count: usize,
    (m, n): (usize, usize),
    a: Batch,
    q: Option<(Batch, usize)>,
    r: (Batch, usize),
) -> Result<()> {
    let job = Job { m, n, a, q, r };
    // SAFETY: the caller's promise.
    unsafe { run(dtype, count, job) }
}

impl Lockstep for Job {
    const NAME: &'static str = "QR";
    fn registers(&self) -> usize {
        let q_cols = self.q.map_or(0, |q| q.1);
        self.m * self.n + self.m * q_cols + self.m.min(self.n)
    }
    fn ns(&self) -> f64 {
        let q_cols = self.q.map_or(0, |q| q.1);
        30.0 + (self.m.min(self.n) * self.m * (self.n + q_cols)) as f64 / 4.0
    }
    #[inline(always)]
    unsafe fn group<T: Real, V: FloatLanes<Elem = T>>(&self, first: usize, lanes: usize, scratch: *mut T) {
        // SAFETY: the caller's promise.
        unsafe { group::<T, V>(self, first, lanes, scratch) }
    }
}

/// # Safety
/// As [`qr`], for matrices `first .. first + lanes`.
#[inline(always)]
unsafe fn group<T: Real, V: FloatLanes<Elem = T>>(job: &Job, first: usize, lanes: usize, scratch: *mut T) {
    let (m, n, k) = (job.m, job.n, job.m.min(job.n));
    let (zero, one, nan) = (V::lit(0.0), V::lit(1.0), V::lit(f64::NAN));
    let q_cols = job.q.map_or(0, |q| q.1);
    let (rs, cs) = if job.a.cs == 1 { (n, 1) } else { (1, m) };
    let a = Wide::<V>::new(scratch, rs, cs);
    let q = Wide::<V>::new(scratch.wrapping_add(m * n * V::N), 1, m);
    let tau = Wide::<V>::new(scratch.wrapping_add((m * n + m * q_cols) * V::N), 1, 0);
    // SAFETY: indices are below the sizes that the scratch was made for.
    unsafe {
        a.load(job.a, first, lanes, m, n);
        let mut odd = zero;
        for i in 0..m {
            for j in 0..n {
                odd = spoil(odd, a.get(i, j));
            }
        }
        for c in 0..k {
            tau.set(c, 0, reflector(a, c, m));
            for j in c + 1..n {
                reflect(a, c, m, tau.get(c, 0), a, j);
            }
        }
        let finite = clean(odd);
        if let Some((out, q_cols)) = job.q {
            for j in 0..q_cols {
                for i in 0..m {
                    q.set(i, j, if i == j { one } else { zero });
                }
            }
            for c in (0..k).rev() {
                // Columns before c are still those of the identity, which this reflector leaves as they are.
                for j in c..q_cols {
                    reflect(a, c, m, tau.get(c, 0), q, j);
                }
            }
            for j in 0..q_cols {
                for i in 0..m {
                    q.set(i, j, V::select(finite, q.get(i, j), nan));
                }
            }
            q.store(out, first, lanes, m, q_cols);
        }
        let (out, rows) = job.r;
        for j in 0..n {
            for i in 0..rows {
                let v = if i <= j { V::select(finite, a.get(i, j), nan) } else { zero };
                a.set(i, j, v);
            }
        }
        a.store(out, first, lanes, rows, n);
    }
}

/// Makes column c's reflector: its vector below the diagonal (with a one on it that is not stored), R's element
/// on the diagonal. Returns tau; 0 where there is nothing below.
///
/// # Safety
/// `a` has m rows and a column c.
#[inline(always)]
unsafe fn reflector<V: FloatLanes>(a: Wide<V>, c: usize, m: usize) -> V {
    let (zero, one) = (V::lit(0.0), V::lit(1.0));
    // SAFETY: indices are below the sizes.
    unsafe {
        let top = a.get(c, c);
        let mut below = zero;
        for i in c + 1..m {
            below = V::maximum(below, a.get(i, c).abs());
        }
        let flat = V::eq(below, zero);
        // Relative to the largest: squares neither overflow nor vanish, and denormal numbers, which have few
        // digits, still give an orthogonal reflector.
        let most = V::maximum(below, top.abs());
        let unit = V::select(V::eq(most, zero), one, most);
        let first = top / unit;
        let mut sum = first * first;
        for i in c + 1..m {
            let v = a.get(i, c) / unit;
            sum = V::fma(v, v, sum);
            a.set(i, c, v);
        }
        let beta = -V::copysign(sum.sqrt(), first);
        let span = first - beta;
        for i in c + 1..m {
            a.set(i, c, V::select(flat, zero, a.get(i, c) / span));
        }
        a.set(c, c, V::select(flat, top, beta * unit));
        V::select(flat, zero, (beta - first) / beta)
    }
}

/// `I - tau v v^T` on column j of `b`, from row c on; v is the vector stored in column c of `a`.
///
/// # Safety
/// Both have m rows and these columns.
#[inline(always)]
unsafe fn reflect<V: FloatLanes>(a: Wide<V>, c: usize, m: usize, tau: V, b: Wide<V>, j: usize) {
    // SAFETY: indices are below the sizes.
    unsafe {
        let top = b.get(c, j);
        let mut sum = top;
        for i in c + 1..m {
            sum = V::fma(a.get(i, c), b.get(i, j), sum);
        }
        let w = -(sum * tau);
        b.set(c, j, top + w);
        for i in c + 1..m {
            b.set(i, j, V::fma(a.get(i, c), w, b.get(i, j)));
        }
    }
}
