//! Eigenvalues and vectors of symmetric matrices by cyclic Jacobi rotations.

use super::lanes::{Lockstep, Wide, clean, exponent, run, spoil};
use super::{Batch, DONE, Ints, MOST, NOT_CONVERGED, NOT_FINITE};
use crate::real::Real;
use crate::simd::FloatLanes;
use pyrite_core::expr::Mask;
use pyrite_core::{DType, Result};

/// Sweeps converge quadratically: ten are more than any matrix of this size was seen to need.
const SWEEPS: usize = 24;

#[derive(Clone, Copy)]
struct Job {
    n: usize,
    a: Batch,
    /// n numbers of the dtype for each matrix.
    w: Batch,
    v: Option<Batch>,
    status: Ints,
}

/// Eigenvalues (ascending) of `count` symmetric matrices, of which the lower triangle is read, and vectors as
/// the columns of `v`; `w` holds n numbers per matrix in memory order. `status` says what became of each.
///
/// # Safety
/// As [`super::lu`].
pub unsafe fn eigh(
    dtype: DType,
    count: usize,
    n: usize,
    a: Batch,
    w: Batch,
    v: Option<Batch>,
    status: Ints,
) -> Result<()> {
    let job = Job { n, a, w, v, status };
    // SAFETY: the caller's promise.
    unsafe { run(dtype, count, job) }
}

impl Lockstep for Job {
    const NAME: &'static str = "eigenvalues";
    fn registers(&self) -> usize {
        2 * self.n * self.n
    }
    fn ns(&self) -> f64 {
        100.0 + (self.n * self.n * self.n) as f64 * if self.v.is_some() { 2.0 } else { 1.0 }
    }
    #[inline(always)]
    unsafe fn group<T: Real, V: FloatLanes<Elem = T>>(&self, first: usize, lanes: usize, scratch: *mut T) {
        // SAFETY: the caller's promise.
        unsafe { group::<T, V>(self, first, lanes, scratch) }
    }
}

/// # Safety
/// As [`eigh`], for matrices `first .. first + lanes`.
#[inline(always)]
unsafe fn group<T: Real, V: FloatLanes<Elem = T>>(job: &Job, first: usize, lanes: usize, scratch: *mut T) {
    let n = job.n;
    let zero = V::lit(0.0);
    let (rs, cs) = if job.a.cs == 1 { (n, 1) } else { (1, n) };
    let a = Wide::<V>::new(scratch, rs, cs);
    let v = Wide::<V>::new(scratch.wrapping_add(n * n * V::N), 1, n);
    // SAFETY: indices are below n, for which the scratch was made.
    unsafe {
        a.load(job.a, first, lanes, n, n);
        let (mut odd, mut most) = (zero, zero);
        for i in 0..n {
            for j in 0..=i {
                let x = a.get(i, j);
                odd = spoil(odd, x);
                most = V::maximum(most, x.abs());
            }
        }
        let finite = clean(odd);
        let e = exponent(V::select(finite, most, zero));
        for i in 0..n {
            for j in 0..=i {
                a.set(i, j, V::select(finite, a.get(i, j).ldexp_(-e), zero));
            }
        }
        if job.v.is_some() {
            for j in 0..n {
                for i in 0..n {
                    v.set(i, j, V::lit((i == j) as u8 as f64));
                }
            }
        }
        let vectors = job.v.map(|_| v);
        let done = sweeps(a, vectors, n);

        let mut each = [[T::default(); 64]; 2];
        V::select(finite, zero, V::lit(1.0)).store(each[0].as_mut_ptr());
        V::select(done, zero, V::lit(1.0)).store(each[1].as_mut_ptr());
        let mut values = [[T::default(); 64]; MOST];
        for (i, w) in values.iter_mut().enumerate().take(n) {
            a.get(i, i).ldexp_(e).store(w.as_mut_ptr());
        }
        let w = job.w.ptr.cast::<T>();
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
            let mut order = [0usize; MOST];
            for i in 0..n {
                // Insertion: stable, and cheap for what is nearly in order.
                let mut at = i;
                while at > 0 && values[order[at - 1]][l] > values[i][l] {
                    order[at] = order[at - 1];
                    at -= 1;
                }
                order[at] = i;
            }
            let w = w.wrapping_offset((first + l) as isize * job.w.step);
            for (i, o) in order.iter().enumerate().take(n) {
                *w.add(i) = values[*o][l];
            }
            if let Some(out) = job.v {
                let out = out.ptr.cast::<T>().wrapping_offset((first + l) as isize * out.step);
                for (j, o) in order.iter().enumerate().take(n) {
                    for i in 0..n {
                        *out.add(j * n + i) = *v.at(i, *o).add(l);
                    }
                }
            }
        }
    }
}

/// Sweeps until all lanes are diagonal; elements are at most about 1. True in the lanes that came to an end.
///
/// # Safety
/// `a` (and `v`) are n x n.
#[inline(always)]
unsafe fn sweeps<V: FloatLanes>(a: Wide<V>, v: Option<Wide<V>>, n: usize) -> V::M {
    // Far below the rounding of the largest element: what is dropped is not seen in any eigenvalue, and the
    // vectors of close eigenvalues are as orthogonal as the others, since only rotations make them.
    let tiny = V::lit(if size_of::<V::Elem>() == 4 { f32::EPSILON as f64 } else { f64::EPSILON } / 64.0);
    let mut sweep = 0;
    loop {
        let mut most = V::lit(0.0);
        for i in 1..n {
            for j in 0..i {
                // SAFETY: j < i < n.
                most = V::maximum(most, unsafe { a.get(i, j) }.abs());
            }
        }
        let done = V::le(most, tiny);
        if !(!done).any() || sweep == SWEEPS {
            return done;
        }
        sweep += 1;
        for q in 1..n {
            for p in 0..q {
                // SAFETY: p < q < n.
                unsafe { rotate(a, v, n, p, q, tiny) };
            }
        }
    }
}

/// The rotation that makes element (q, p) zero, in lanes where it is more than `tiny`; the others only drop it.
///
/// # Safety
/// p < q < n, the size of `a` and `v`.
#[inline(always)]
unsafe fn rotate<V: FloatLanes>(a: Wide<V>, v: Option<Wide<V>>, n: usize, p: usize, q: usize, tiny: V) {
    let (zero, one) = (V::lit(0.0), V::lit(1.0));
    // SAFETY: indices are below n.
    unsafe {
        let x = a.get(q, p);
        let wanted = V::lt(tiny, x.abs());
        if !wanted.any() {
            return;
        }
        let (low, high) = (a.get(p, p), a.get(q, q));
        // The smaller of the two angles: tan = 1 / (c + sign(c) sqrt(1 + c^2)) with c = cot(2 angle).
        let c = (high - low) / (x + x);
        let t = V::copysign(one, c) / (c.abs() + V::fma(c, c, one).sqrt());
        let t = V::select(wanted, t, zero);
        let cos = one / V::fma(t, t, one).sqrt();
        let sin = t * cos;
        let half = sin / (one + cos);
        a.set(p, p, V::fma(-t, x, low));
        a.set(q, q, V::fma(t, x, high));
        a.set(q, p, zero);
        for r in 0..n {
            if r == p || r == q {
                continue;
            }
            // The lower triangle alone is kept.
            turn::<V>(a.at(r.max(p), r.min(p)), a.at(r.max(q), r.min(q)), sin, half);
        }
        if let Some(v) = v {
            for r in 0..n {
                turn::<V>(v.at(r, p), v.at(r, q), sin, half);
            }
        }
    }
}

/// `(x, y) -> (c x - s y, s x + c y)`, written with tan of half the angle so that small angles change little.
///
/// # Safety
/// Both places hold a register.
#[inline(always)]
pub(super) unsafe fn turn<V: FloatLanes>(p: *mut V::Elem, q: *mut V::Elem, sin: V, half: V) {
    // SAFETY: the caller's promise.
    unsafe {
        let (x, y) = (V::load(p), V::load(q));
        V::fma(-sin, V::fma(half, x, y), x).store(p);
        V::fma(sin, V::fma(-half, y, x), y).store(q);
    }
}
