//! Householder QR: packed as LAPACK packs it, or with Q and R written out.

use crate::field::{Field, divide, is_finite, scale, workspace};
use crate::{Mat, Outcome};
use faer::dyn_stack::MemStack;
use faer::linalg::householder as house;
use faer::linalg::qr::no_pivoting::factor as fac;
use faer::{Conj, Par};

/// The factors of the block reflectors, `block x min(rows, cols)`.
fn factorise<T: Field>(a: faer::MatMut<'_, T>) -> Outcome<faer::Mat<T>> {
    let (m, n) = (a.nrows(), a.ncols());
    let block = fac::recommended_block_size::<T>(m, n);
    let mut coef = faer::Mat::<T>::zeros(block, m.min(n));
    let params = Default::default();
    let mut buf = workspace(fac::qr_in_place_scratch::<T>(m, n, block, Par::Seq, params))?;
    fac::qr_in_place(a, coef.as_mut(), Par::Seq, MemStack::new(&mut buf), params);
    Ok(coef)
}

/// # Safety
/// As [`crate::Kernels::qr`].
pub(crate) unsafe fn qr<T: Field>(a: Mat, tau: *mut u8) -> Outcome<()> {
    let k = a.rows.min(a.cols);
    if k == 0 {
        return Ok(());
    }
    // SAFETY: the caller's promise; `tau` holds k elements.
    unsafe {
        let tau = std::slice::from_raw_parts_mut(tau as *mut T, k);
        if !is_finite::<T>(a) {
            fill::<T>(a, f64::NAN);
            tau.fill(T::of(f64::NAN, 0.0));
            return Ok(());
        }
        let by = scale::<T>(a);
        if by != 1.0 {
            divide::<T>(a, by);
        }
        let coef = factorise(a.view_mut::<T>())?;
        if by != 1.0 {
            for j in 0..a.cols {
                divide::<T>(
                    Mat { ptr: a.at::<T>(0, j) as *mut u8, rows: a.rows.min(j + 1), cols: 1, ..a },
                    1.0 / by,
                );
            }
        }
        let block = coef.nrows();
        for i in 0..k {
            // Each block's factor is upper triangular; its diagonal holds the reflectors' 1 / tau.
            tau[i] = T::of(1.0 / coef[(i % block, i)].re(), 0.0);
        }
    }
    Ok(())
}

/// # Safety
/// `a` is valid for writing.
unsafe fn fill<T: Field>(a: Mat, v: f64) {
    for j in 0..a.cols {
        for i in 0..a.rows {
            // SAFETY: inside the matrix.
            unsafe { *a.at::<T>(i, j) = T::of(v, 0.0) };
        }
    }
}

/// # Safety
/// As [`crate::Kernels::qr_explicit`].
pub(crate) unsafe fn explicit<T: Field>(a: Mat, q: Option<Mat>, r: Mat) -> Outcome<()> {
    let (m, k) = (a.rows, a.rows.min(a.cols));
    // SAFETY: the caller's promise; indices stay below the sizes.
    unsafe {
        if let Some(q) = q {
            fill::<T>(q, 0.0);
            for i in 0..q.rows.min(q.cols) {
                *q.at::<T>(i, i) = T::ONE;
            }
        }
        if k == 0 {
            fill::<T>(r, 0.0);
            return Ok(());
        }
        if !is_finite::<T>(a) {
            fill::<T>(r, 0.0);
            for j in 0..r.cols {
                for i in 0..r.rows.min(j + 1) {
                    *r.at::<T>(i, j) = T::of(f64::NAN, 0.0);
                }
            }
            if let Some(q) = q {
                fill::<T>(q, f64::NAN);
            }
            return Ok(());
        }
        let by = scale::<T>(a);
        if by != 1.0 {
            divide::<T>(a, by);
        }
        let coef = factorise(a.view_mut::<T>())?;
        for j in 0..r.cols {
            for i in 0..r.rows {
                *r.at::<T>(i, j) = if i <= j && i < k { *a.at::<T>(i, j) } else { T::ZERO };
            }
        }
        if let Some(q) = q {
            let need = house::apply_block_householder_sequence_on_the_left_in_place_scratch::<T>(
                m,
                coef.nrows(),
                q.cols,
            );
            let mut buf = workspace(need)?;
            house::apply_block_householder_sequence_on_the_left_in_place_with_conj(
                a.view::<T>().get(.., ..k),
                coef.as_ref(),
                Conj::No,
                q.view_mut::<T>(),
                Par::Seq,
                MemStack::new(&mut buf),
            );
            real_diagonal::<T>(q, r, k);
        }
        if by != 1.0 {
            divide::<T>(r, 1.0 / by);
        }
    }
    Ok(())
}

/// LAPACK's R has a real diagonal; complex reflectors of faer are Hermitian and leave a phase there.
///
/// # Safety
/// `q` and `r` are valid for writing, with at least `k` columns and rows.
unsafe fn real_diagonal<T: Field>(q: Mat, r: Mat, k: usize) {
    for i in 0..k {
        // SAFETY: i is below k.
        let d = unsafe { *r.at::<T>(i, i) };
        let size = d.re().hypot(d.im());
        if d.im() == 0.0 || size == 0.0 {
            continue;
        }
        let sign = if d.re() < 0.0 { -1.0 } else { 1.0 };
        let phase = T::of(sign * d.re() / size, sign * d.im() / size);
        for j in i..r.cols {
            // SAFETY: inside r.
            unsafe { *r.at::<T>(i, j) = *r.at::<T>(i, j) * phase.conjugate() };
        }
        // SAFETY: inside r; only rounding is dropped.
        unsafe { *r.at::<T>(i, i) = T::of((*r.at::<T>(i, i)).re(), 0.0) };
        for row in 0..q.rows {
            // SAFETY: inside q.
            unsafe { *q.at::<T>(row, i) = *q.at::<T>(row, i) * phase };
        }
    }
}
