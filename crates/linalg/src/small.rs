//! Matrices so small that the bookkeeping of blocked code would cost more than the work: plain loops,
//! column by column.

use crate::Mat;
use crate::field::Field;

/// Up to this size the plain loops are faster.
pub(crate) const SMALL: usize = 16;

/// As [`crate::Kernels::cholesky`].
///
/// # Safety
/// As there.
pub(crate) unsafe fn cholesky<T: Field>(a: Mat) -> usize {
    let n = a.rows;
    for k in 0..n {
        // SAFETY: all indices are below n.
        unsafe {
            let d = (*a.at::<T>(k, k)).re();
            if !d.is_finite() || d <= 0.0 {
                return k + 1;
            }
            let root = T::of(d.sqrt(), 0.0);
            *a.at::<T>(k, k) = root;
            for i in k + 1..n {
                *a.at::<T>(i, k) /= root;
            }
            for j in k + 1..n {
                let f = (*a.at::<T>(j, k)).conjugate();
                for i in j..n {
                    *a.at::<T>(i, j) -= *a.at::<T>(i, k) * f;
                }
            }
        }
    }
    0
}

/// As [`crate::Kernels::solve_triangular`].
///
/// # Safety
/// As there.
pub(crate) unsafe fn solve_triangular<T: Field>(a: Mat, b: Mat, upper: bool, unit: bool, conj: bool) {
    let n = a.rows;
    // SAFETY: all indices are below n, and below b's columns.
    unsafe {
        let element = |i: usize, j: usize| {
            let v = *a.at::<T>(i, j);
            if conj { v.conjugate() } else { v }
        };
        for c in 0..b.cols {
            for step in 0..n {
                let k = if upper { n - 1 - step } else { step };
                let mut x = *b.at::<T>(k, c);
                if !unit {
                    x /= element(k, k);
                    *b.at::<T>(k, c) = x;
                }
                let rest = if upper { 0..k } else { k + 1..n };
                for i in rest {
                    *b.at::<T>(i, c) -= element(i, k) * x;
                }
            }
        }
    }
}
