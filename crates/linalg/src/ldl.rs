//! The Bunch-Kaufman factorisation `A = L D L^T` (or `L D L^H`) of an indefinite matrix, lower
//! triangle, in LAPACK's storage: faer keeps D and the pivots in a form of its own, which
//! `ldl_factor` may not show.

use crate::Mat;
use crate::field::Field;

/// Growth is bounded best with this ratio (Bunch and Kaufman, 1977).
const ALPHA: f64 = 0.640_388_203_202_208;

/// The matrix with unchecked element access, so that the loops below read like the algorithm.
struct At<T>(Mat, std::marker::PhantomData<T>);

impl<T: Field> At<T> {
    /// # Safety
    /// The matrix is valid for writing, and all indices used stay inside.
    unsafe fn new(a: Mat) -> At<T> {
        At(a, std::marker::PhantomData)
    }
    fn get(&self, i: usize, j: usize) -> T {
        debug_assert!(i < self.0.rows && j < self.0.cols);
        // SAFETY: promised at `new`.
        unsafe { *self.0.at::<T>(i, j) }
    }
    fn set(&self, i: usize, j: usize, v: T) {
        debug_assert!(i < self.0.rows && j < self.0.cols);
        // SAFETY: promised at `new`.
        unsafe { *self.0.at::<T>(i, j) = v }
    }
    fn swap(&self, a: (usize, usize), b: (usize, usize)) {
        let x = self.get(a.0, a.1);
        self.set(a.0, a.1, self.get(b.0, b.1));
        self.set(b.0, b.1, x);
    }
    fn swap_rows(&self, i: usize, k: usize) {
        if i != k && k < self.0.rows {
            (0..self.0.cols).for_each(|j| self.swap((i, j), (k, j)));
        }
    }
}

/// The position and size of the largest element among `at(lo), .., at(hi - 1)`.
fn largest(lo: usize, hi: usize, at: impl Fn(usize) -> f64) -> (usize, f64) {
    let mut best = (lo, 0.0);
    for i in lo..hi {
        let v = at(i);
        if v > best.1 || v.is_nan() && !best.1.is_nan() {
            best = (i, v);
        }
    }
    best
}

/// # Safety
/// As [`crate::Kernels::ldl`].
pub(crate) unsafe fn factor<T: Field>(m: Mat, pivots: &mut [i32], hermitian: bool) -> usize {
    // SAFETY: the caller's promise.
    let a = unsafe { At::<T>::new(m) };
    let n = m.rows;
    let star = |x: T| if hermitian { x.conjugate() } else { x };
    let diagonal = |x: T| if hermitian { T::of(x.re(), 0.0) } else { x };
    let mut info = 0;
    let mut k = 0;
    while k < n {
        a.set(k, k, diagonal(a.get(k, k)));
        let own = a.get(k, k).size();
        let (imax, colmax) = largest(k + 1, n, |i| a.get(i, k).size());
        let mut step = 1;
        let mut kp = k;
        if own.max(colmax) == 0.0 || own.is_nan() {
            info = if info == 0 { k + 1 } else { info };
            pivots[k] = k as i32 + 1;
            k += 1;
            continue;
        }
        if own < ALPHA * colmax || colmax.is_nan() {
            let left = largest(k, imax, |j| a.get(imax, j).size()).1;
            let below = largest(imax + 1, n, |i| a.get(i, imax).size()).1;
            let rowmax = left.max(below);
            if own >= ALPHA * colmax * (colmax / rowmax) {
            } else if diagonal(a.get(imax, imax)).size() >= ALPHA * rowmax {
                kp = imax;
            } else {
                (kp, step) = (imax, 2);
            }
        }
        let kk = k + step - 1;
        if kp != kk {
            for i in kp + 1..n {
                a.swap((i, kk), (i, kp));
            }
            for j in kk + 1..kp {
                let x = a.get(j, kk);
                a.set(j, kk, star(a.get(kp, j)));
                a.set(kp, j, star(x));
            }
            a.set(kp, kk, star(a.get(kp, kk)));
            a.swap((kk, kk), (kp, kp));
            if step == 2 {
                a.swap((k + 1, k), (kp, k));
            }
        }
        if step == 1 {
            let inverse = T::ONE / diagonal(a.get(k, k));
            for j in k + 1..n {
                let f = inverse * star(a.get(j, k));
                for i in j..n {
                    a.set(i, j, a.get(i, j) - a.get(i, k) * f);
                }
                a.set(j, j, diagonal(a.get(j, j)));
            }
            for i in k + 1..n {
                a.set(i, k, a.get(i, k) * inverse);
            }
            pivots[k] = kp as i32 + 1;
        } else {
            // The 2 x 2 block [p, c*; c, q] scaled by c, so that its inverse does not overflow.
            let c = a.get(k + 1, k);
            let (u, w) = (a.get(k, k) / star(c), a.get(k + 1, k + 1) / c);
            let t = T::ONE / (u * w - T::ONE);
            for j in k + 2..n {
                let (x, y) = (star(a.get(j, k)), star(a.get(j, k + 1)));
                // (wk, wl) solves the block's system with (x, y) on the right.
                let (p, q) = (x / star(c), y / c);
                let (wk, wl) = (t * (w * p - q), t * (u * q - p));
                for i in j..n {
                    a.set(i, j, a.get(i, j) - a.get(i, k) * wk - a.get(i, k + 1) * wl);
                }
                a.set(j, k, star(wk));
                a.set(j, k + 1, star(wl));
                a.set(j, j, diagonal(a.get(j, j)));
            }
            pivots[k] = -(kp as i32 + 1);
            pivots[k + 1] = pivots[k];
        }
        k += step;
    }
    info
}

/// # Safety
/// As [`crate::Kernels::ldl_solve`].
pub(crate) unsafe fn solve<T: Field>(ld: Mat, pivots: &[i32], b: Mat, hermitian: bool) {
    // SAFETY: the caller's promise.
    let (a, x) = unsafe { (At::<T>::new(ld), At::<T>::new(b)) };
    let n = ld.rows;
    let star = |x: T| if hermitian { x.conjugate() } else { x };
    // `x[i..] -= L[i.., k] x[row]`.
    let eliminate = |from: usize, k: usize, row: usize| {
        for j in 0..b.cols {
            let f = x.get(row, j);
            for i in from..n {
                x.set(i, j, x.get(i, j) - a.get(i, k) * f);
            }
        }
    };
    let gather = |from: usize, k: usize| {
        for j in 0..b.cols {
            let mut s = x.get(k, j);
            for i in from..n {
                s -= star(a.get(i, k)) * x.get(i, j);
            }
            x.set(k, j, s);
        }
    };
    // Pivots come from the caller: one that names no row swaps nothing.
    let row = |p: i32| (p.unsigned_abs() as usize).wrapping_sub(1);
    let mut k = 0;
    while k < n {
        if pivots[k] > 0 || k + 1 == n {
            x.swap_rows(k, row(pivots[k]));
            eliminate(k + 1, k, k);
            for j in 0..b.cols {
                x.set(k, j, x.get(k, j) / a.get(k, k));
            }
            k += 1;
        } else {
            x.swap_rows(k + 1, row(pivots[k]));
            eliminate(k + 2, k, k);
            eliminate(k + 2, k + 1, k + 1);
            let c = a.get(k + 1, k);
            let (u, w) = (a.get(k, k) / star(c), a.get(k + 1, k + 1) / c);
            let d = u * w - T::ONE;
            for j in 0..b.cols {
                let (p, q) = (x.get(k, j) / star(c), x.get(k + 1, j) / c);
                x.set(k, j, (w * p - q) / d);
                x.set(k + 1, j, (u * q - p) / d);
            }
            k += 2;
        }
    }
    let mut k = n;
    while k > 0 {
        k -= 1;
        if pivots[k] > 0 || k == 0 {
            gather(k + 1, k);
            x.swap_rows(k, row(pivots[k]));
        } else {
            gather(k + 1, k);
            gather(k + 1, k - 1);
            x.swap_rows(k, row(pivots[k]));
            k -= 1;
        }
    }
}
