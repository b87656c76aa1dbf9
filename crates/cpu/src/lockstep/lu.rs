//! LU with partial pivoting, and systems of equations solved on the way.

use super::lanes::{Lockstep, Wide, run};
use super::{Batch, Ints};
use crate::real::Real;
use crate::simd::FloatLanes;
use pyrite_core::expr::Mask;
use pyrite_core::{DType, Result};

/// Where the packed factors go, and the pivots: min(m, n) for each matrix, LAPACK's.
#[derive(Clone, Copy)]
pub struct Factors {
    pub lu: Batch,
    pub pivots: Ints,
}

/// Right sides: `b` (the identity where there is none), and where the solutions go. The matrices are square then.
#[derive(Clone, Copy)]
pub struct Right {
    pub b: Option<Batch>,
    pub cols: usize,
    pub x: Batch,
}

#[derive(Clone, Copy)]
struct Job {
    m: usize,
    n: usize,
    a: Batch,
    factors: Option<Factors>,
    right: Option<Right>,
    info: Ints,
}

/// Factorises `count` matrices of m x n; `info` gets for each 0, or the (1-based) position of the first zero on
/// U's diagonal. A zero pivot leaves its column as it is; solutions divide by it.
///
/// # Safety
/// Sizes are at most [`super::MOST`] and [`super::MOST_SIDES`], and not 0. All batches hold `count` matrices of
/// `dtype` (f32 or f64); those that are written are stored by columns without gaps, belong to this call alone
/// and overlap nothing.
pub unsafe fn lu(
    dtype: DType,
    count: usize,
    (m, n): (usize, usize),
    a: Batch,
    factors: Option<Factors>,
    right: Option<Right>,
    info: Ints,
) -> Result<()> {
    let job = Job { m, n, a, factors, right, info };
    // SAFETY: the caller's promise.
    unsafe { run(dtype, count, job) }
}

impl Lockstep for Job {
    const NAME: &'static str = "LU";
    fn registers(&self) -> usize {
        let cols = self.right.map_or(0, |r| r.cols);
        self.m * self.n + self.n * cols + self.m.min(self.n)
    }
    fn ns(&self) -> f64 {
        let cols = self.right.map_or(0, |r| r.cols);
        30.0 + (self.m.min(self.n) * self.m * (self.n + cols)) as f64 / 8.0
    }
    #[inline(always)]
    unsafe fn group<T: Real, V: FloatLanes<Elem = T>>(&self, first: usize, lanes: usize, scratch: *mut T) {
        // SAFETY: the caller's promise.
        unsafe { group::<T, V>(self, first, lanes, scratch) }
    }
}

/// # Safety
/// As [`lu`], for matrices `first .. first + lanes`.
#[inline(always)]
unsafe fn group<T: Real, V: FloatLanes<Elem = T>>(job: &Job, first: usize, lanes: usize, scratch: *mut T) {
    let (m, n, k) = (job.m, job.n, job.m.min(job.n));
    let cols = job.right.map_or(0, |r| r.cols);
    // In the order of the source where that is dense, so that it comes in by one transposition.
    let by_rows = job.a.cs == 1 || job.factors.is_none() && job.a.rs != 1;
    let (rs, cs) = if by_rows { (n, 1) } else { (1, m) };
    let a = Wide::<V>::new(scratch, rs, cs);
    let b = Wide::<V>::new(scratch.wrapping_add(m * n * V::N), 1, n);
    let pivots = Wide::<V>::new(scratch.wrapping_add((m * n + n * cols) * V::N), 1, 0);
    // SAFETY: indices are below the sizes that the scratch was made for.
    unsafe {
        a.load(job.a, first, lanes, m, n);
        if let Some(r) = job.right {
            match r.b {
                Some(from) => b.load(from, first, lanes, n, cols),
                None => {
                    for j in 0..cols {
                        for i in 0..n {
                            b.set(i, j, V::lit((i == j) as u8 as f64));
                        }
                    }
                }
            }
        }
        let info = eliminate(a, b, pivots, m, n, cols);
        if let Some(r) = job.right {
            substitute(a, b, n, cols);
            b.store(r.x, first, lanes, n, cols);
        }
        let mut each = [T::default(); 64];
        info.store(each.as_mut_ptr());
        for (l, v) in each.iter().enumerate().take(lanes) {
            *job.info.0.add(first + l) = v.f64() as i32;
        }
        if let Some(f) = job.factors {
            a.store(f.lu, first, lanes, m, n);
            for i in 0..k {
                for l in 0..lanes {
                    *f.pivots.0.add((first + l) * k + i) = (*pivots.at(i, 0).add(l)).f64() as i32 + 1;
                }
            }
        }
    }
}

/// Swaps elements at `p` and `q` in the lanes of the mask.
///
/// # Safety
/// Both hold a register.
#[inline(always)]
unsafe fn swap<V: FloatLanes>(m: V::M, p: *mut V::Elem, q: *mut V::Elem) {
    // SAFETY: the caller's promise.
    unsafe {
        let (x, y) = (V::load(p), V::load(q));
        V::select(m, y, x).store(p);
        V::select(m, x, y).store(q);
    }
}

/// P A = L U in place, the same steps on `b`; pivots are rows counted from 0.
///
/// # Safety
/// `a` is m x n, `b` n x cols (or cols is 0), and there are min(m, n) pivots.
#[inline(always)]
unsafe fn eliminate<V: FloatLanes>(
    a: Wide<V>,
    b: Wide<V>,
    pivots: Wide<V>,
    m: usize,
    n: usize,
    cols: usize,
) -> V {
    let zero = V::lit(0.0);
    let mut info = zero;
    for k in 0..m.min(n) {
        // SAFETY: all indices are below the sizes.
        unsafe {
            let (mut most, mut at) = (a.get(k, k).abs(), V::lit(k as f64));
            for i in k + 1..m {
                let v = a.get(i, k).abs();
                let more = V::lt(most, v);
                most = V::select(more, v, most);
                at = V::select(more, V::lit(i as f64), at);
            }
            pivots.set(k, 0, at);
            for i in k + 1..m {
                let here = V::eq(at, V::lit(i as f64));
                if !here.any() {
                    continue;
                }
                for j in 0..n {
                    swap::<V>(here, a.at(k, j), a.at(i, j));
                }
                for j in 0..cols {
                    swap::<V>(here, b.at(k, j), b.at(i, j));
                }
            }
            let pivot = a.get(k, k);
            let none = V::eq(pivot, zero);
            info = V::select(none & V::eq(info, zero), V::lit(k as f64 + 1.0), info);
            for i in k + 1..m {
                let v = a.get(i, k);
                let f = V::select(none, v, v / pivot);
                a.set(i, k, f);
                let f = -V::select(none, zero, f);
                for j in k + 1..n {
                    a.set(i, j, V::fma(f, a.get(k, j), a.get(i, j)));
                }
                for j in 0..cols {
                    b.set(i, j, V::fma(f, b.get(k, j), b.get(i, j)));
                }
            }
        }
    }
    info
}

/// `U x = b` in place of `b`.
///
/// # Safety
/// `u` is n x n, `b` n x cols.
#[inline(always)]
unsafe fn substitute<V: FloatLanes>(u: Wide<V>, b: Wide<V>, n: usize, cols: usize) {
    for k in (0..n).rev() {
        // SAFETY: all indices are below the sizes.
        unsafe {
            let pivot = u.get(k, k);
            for j in 0..cols {
                b.set(k, j, b.get(k, j) / pivot);
            }
            for i in 0..k {
                let f = -u.get(i, k);
                for j in 0..cols {
                    b.set(i, j, V::fma(f, b.get(k, j), b.get(i, j)));
                }
            }
        }
    }
}
