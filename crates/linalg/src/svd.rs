//! The singular value decomposition.

use crate::field::{Field, Part, divided, is_finite, scale, workspace};
use crate::{Failure, Mat, Outcome};
use faer::dyn_stack::MemStack;
use faer::linalg::svd as f;
use faer::{Par, diag::DiagMut};

/// # Safety
/// As [`crate::Kernels::svd`].
pub(crate) unsafe fn svd<T: Field>(a: Mat, s: *mut u8, uv: Option<(Mat, Mat)>) -> Outcome<()> {
    let (m, n) = (a.rows, a.cols);
    let k = m.min(n);
    // SAFETY: the caller's promise.
    unsafe {
        if !is_finite::<T>(a) {
            return Err(Failure::NotFinite);
        }
        let params = Default::default();
        let (cu, cv) = match uv {
            None => (f::ComputeSvdVectors::No, f::ComputeSvdVectors::No),
            Some((u, v)) => (wish(u.cols, k), wish(v.cols, k)),
        };
        let mut buf = workspace(f::svd_scratch::<T>(m, n, cu, cv, Par::Seq, params))?;
        let by = scale::<T>(a);
        let own = (by != 1.0).then(|| divided::<T>(a, by));
        // faer hands the values over as numbers of the matrix's own type.
        let mut values = vec![T::ZERO; k];
        f::svd(
            own.as_ref().map_or(a.view::<T>(), |m| m.as_ref()),
            DiagMut::from_slice_mut(&mut values),
            uv.map(|p| p.0.view_mut::<T>()),
            uv.map(|p| p.1.view_mut::<T>()),
            Par::Seq,
            MemStack::new(&mut buf),
            params,
        )
        .map_err(|_| Failure::NotConverged)?;
        for (i, v) in values.iter().enumerate() {
            *(s as *mut T::R).add(i) = T::R::from_f64(v.re() * by);
        }
    }
    Ok(())
}

fn wish(cols: usize, k: usize) -> f::ComputeSvdVectors {
    if cols == k { f::ComputeSvdVectors::Thin } else { f::ComputeSvdVectors::Full }
}
