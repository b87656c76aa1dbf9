//! Cholesky, LU with partial pivoting, and triangular systems.

use crate::field::{Field, workspace};
use crate::small::{self, SMALL};
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
    if n <= SMALL {
        // SAFETY: the caller's promise.
        return Ok(unsafe { small::cholesky::<T>(a) });
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

/// The textbook loop, column by column. A zero pivot leaves its column as it is, as LAPACK does.
///
/// # Safety
/// As [`crate::Kernels::lu`]; columns are dense.
unsafe fn lu_plain<T: Field>(a: Mat, pivots: &mut [i32]) -> usize {
    let (m, n) = (a.rows, a.cols);
    let mut info = 0;
    for k in 0..m.min(n) {
        let rest = |j: usize| {
            // SAFETY: k < m and j < n: the rest of one column. Two slices that live at once are of different
            // columns, and none lives while rows are swapped.
            unsafe { std::slice::from_raw_parts_mut(a.at::<T>(k, j), m - k) }
        };
        let column = rest(k);
        let (mut at, mut most) = (0, column[0].size());
        for (i, v) in column.iter().enumerate().skip(1) {
            if v.size() > most {
                (at, most) = (i, v.size());
            }
        }
        pivots[k] = (k + at) as i32 + 1;
        if column[at] == T::ZERO {
            info = if info == 0 { k + 1 } else { info };
            continue;
        }
        if at != 0 {
            for j in 0..n {
                // SAFETY: both rows are inside, and differ.
                unsafe { std::ptr::swap(a.at::<T>(k, j), a.at::<T>(k + at, j)) };
            }
        }
        let column = rest(k);
        let pivot = column[0];
        for v in &mut column[1..] {
            *v /= pivot;
        }
        for j in k + 1..n {
            let other = rest(j);
            let f = other[0];
            for (y, x) in other[1..].iter_mut().zip(&column[1..]) {
                *y -= f * *x;
            }
        }
    }
    info
}

/// # Safety
/// As [`crate::Kernels::lu`].
pub(crate) unsafe fn lu<T: Field>(a: Mat, pivots: &mut [i32]) -> Outcome<usize> {
    let (m, n) = (a.rows, a.cols);
    let k = m.min(n);
    if k == 0 {
        return Ok(0);
    }
    if k <= SMALL {
        // SAFETY: the caller's promise.
        return Ok(unsafe { lu_plain::<T>(a, pivots) });
    }
    // The blocked code divides by a zero pivot: such matrices are done again, from this copy.
    let mut kept: Vec<T> = Vec::new();
    if kept.try_reserve_exact(m * n).is_err() {
        return Err(crate::Failure::OutOfMemory);
    }
    for j in 0..n {
        // SAFETY: column j is dense and has m elements.
        kept.extend_from_slice(unsafe { std::slice::from_raw_parts(a.at::<T>(0, j), m) });
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
    let at = |i: usize| unsafe { *a.at::<T>(i, i) };
    if (0..k).all(|i| at(i) != T::ZERO && at(i).finite()) {
        return Ok(0);
    }
    for (j, column) in kept.chunks_exact(m).enumerate() {
        // SAFETY: as for the copy.
        unsafe { std::slice::from_raw_parts_mut(a.at::<T>(0, j), m) }.copy_from_slice(column);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { lu_plain::<T>(a, pivots) })
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
    if a.rows <= SMALL && b.cols <= 2 * SMALL {
        // SAFETY: the caller's promise.
        return unsafe { small::solve_triangular::<T>(a, b, upper, unit, conj) };
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
