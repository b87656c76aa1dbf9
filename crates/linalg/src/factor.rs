//! Cholesky, LU with partial pivoting, and triangular systems.

use crate::field::{Field, workspace};
use crate::{Mat, Op, Outcome};
use faer::Conj;
use faer::Par;
use faer::dyn_stack::MemStack;
use faer::linalg::cholesky::llt::factor as llt;
use faer::linalg::lu::partial_pivoting::factor as plu;
use faer::linalg::triangular_solve as tri;

/// # Safety
/// As [`crate::Kernels::cholesky`].
pub(crate) unsafe fn cholesky<T: Field>(a: Mat) -> Outcome<usize> {
    let n = a.rows;
    if n == 0 {
        return Ok(0);
    }
    let params = Default::default();
    let mut buf = workspace(llt::cholesky_in_place_scratch::<T>(n, Par::Seq, params))?;
    for i in 0..n {
        // SAFETY: the diagonal lies inside the matrix. It is real, whatever is stored there.
        unsafe { *a.at::<T>(i, i) = T::of((*a.at::<T>(i, i)).re(), 0.0) };
    }
    // SAFETY: the caller's promise.
    let m = unsafe { a.view_mut::<T>() };
    let done = llt::cholesky_in_place(m, Default::default(), Par::Seq, MemStack::new(&mut buf), params);
    Ok(match done {
        Ok(_) => {
            // A NaN may pass the sign test; LAPACK reports it as not positive definite.
            // SAFETY: the diagonal lies inside the matrix.
            (0..n).find(|&i| !unsafe { (*a.at::<T>(i, i)).re() > 0.0 }).map_or(0, |i| i + 1)
        }
        Err(llt::LltError::NonPositivePivot { index }) => index + 1,
    })
}

/// # Safety
/// As [`crate::Kernels::lu`].
pub(crate) unsafe fn lu<T: Field>(a: Mat, pivots: &mut [i32]) -> Outcome<usize> {
    let (m, n) = (a.rows, a.cols);
    let k = m.min(n);
    if k == 0 {
        return Ok(0);
    }
    let params = Default::default();
    let mut buf = workspace(plu::lu_in_place_scratch::<u32, T>(m, n, Par::Seq, params))?;
    let (mut perm, mut inverse) = (vec![0u32; m], vec![0u32; m]);
    // SAFETY: the caller's promise.
    let view = unsafe { a.view_mut::<T>() };
    plu::lu_in_place(view, &mut perm, &mut inverse, Par::Seq, MemStack::new(&mut buf), params);
    // LAPACK's record is the sequence of swaps: swap i brings row perm[i] to its place.
    let mut row_at: Vec<u32> = (0..m as u32).collect();
    let place = &mut inverse;
    place.iter_mut().enumerate().for_each(|(i, p)| *p = i as u32);
    for i in 0..k {
        let want = perm[i];
        let at = place[want as usize] as usize;
        pivots[i] = at as i32 + 1;
        let moved = row_at[i];
        row_at.swap(i, at);
        place[moved as usize] = at as u32;
        place[want as usize] = i as u32;
    }
    // SAFETY: i is below both sizes.
    Ok((0..k).find(|&i| unsafe { *a.at::<T>(i, i) } == T::ZERO).map_or(0, |i| i + 1))
}

/// Swaps rows as LAPACK's pivots say, forwards or backwards.
///
/// # Safety
/// `b` is valid for writing; pivots are within its rows (others are skipped).
pub(crate) unsafe fn swap_rows<T: Field>(b: Mat, pivots: &[i32], backwards: bool) {
    let n = pivots.len();
    for step in 0..n {
        let i = if backwards { n - 1 - step } else { step };
        let p = pivots[i] as usize;
        if p == 0 || p > b.rows || p - 1 == i {
            continue;
        }
        for j in 0..b.cols {
            // SAFETY: both rows were checked to be inside.
            unsafe { std::ptr::swap(b.at::<T>(i, j), b.at::<T>(p - 1, j)) };
        }
    }
}

/// # Safety
/// As [`crate::Kernels::lu_solve`].
pub(crate) unsafe fn lu_solve<T: Field>(lu: Mat, pivots: &[i32], b: Mat, op: Op) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        match op {
            Op::Plain => {
                swap_rows::<T>(b, pivots, false);
                solve_triangular::<T>(lu, b, false, true, false);
                solve_triangular::<T>(lu, b, true, false, false);
            }
            _ => {
                let conj = op == Op::Adjoint;
                solve_triangular::<T>(lu.t(), b, false, false, conj);
                solve_triangular::<T>(lu.t(), b, true, true, conj);
                swap_rows::<T>(b, pivots, true);
            }
        }
    }
}

/// # Safety
/// As [`crate::Kernels::solve_triangular`].
pub(crate) unsafe fn solve_triangular<T: Field>(a: Mat, b: Mat, upper: bool, unit: bool, conj: bool) {
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    let (a, b) = unsafe { (a.view::<T>(), b.view_mut::<T>()) };
    let conj = if conj { Conj::Yes } else { Conj::No };
    match (upper, unit) {
        (false, false) => tri::solve_lower_triangular_in_place_with_conj(a, conj, b, Par::Seq),
        (false, true) => tri::solve_unit_lower_triangular_in_place_with_conj(a, conj, b, Par::Seq),
        (true, false) => tri::solve_upper_triangular_in_place_with_conj(a, conj, b, Par::Seq),
        (true, true) => tri::solve_unit_upper_triangular_in_place_with_conj(a, conj, b, Par::Seq),
    }
}
