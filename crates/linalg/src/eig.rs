//! Eigenvalues and eigenvectors: Hermitian, and general.

use crate::field::{Field, Part, divided, is_finite, largest, scale_of, workspace};
use crate::{Failure, Mat, Outcome};
use faer::dyn_stack::MemStack;
use faer::linalg::evd;
use faer::{MatRef, Par, diag::DiagMut};

/// # Safety
/// As [`crate::Kernels::eigh`].
pub(crate) unsafe fn hermitian<T: Field>(a: Mat, w: *mut u8, v: Option<Mat>) -> Outcome<()> {
    let n = a.rows;
    if n == 0 {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe {
        // The other triangle may hold anything.
        let mut most = 0.0f64;
        for j in 0..n {
            let below = Mat { ptr: a.at::<T>(j, j) as *mut u8, rows: n - j, cols: 1, ..a };
            if !is_finite::<T>(below) {
                return Err(Failure::NotFinite);
            }
            most = most.max(largest::<T>(below));
        }
        let by = scale_of::<T>(most);
        let want = wish(v.is_some());
        // The diagonal of a Hermitian matrix is real, whatever is stored there.
        let mut own = divided::<T>(a, by);
        for i in 0..n {
            own[(i, i)] = T::of(own[(i, i)].re(), 0.0);
        }
        let params = Default::default();
        let mut buf = workspace(evd::self_adjoint_evd_scratch::<T>(n, want, Par::Seq, params))?;
        let mut values = vec![T::ZERO; n];
        evd::self_adjoint_evd(
            own.as_ref(),
            DiagMut::from_slice_mut(&mut values),
            v.map(|v| v.view_mut::<T>()),
            Par::Seq,
            MemStack::new(&mut buf),
            params,
        )
        .map_err(|_| Failure::NotConverged)?;
        for (i, x) in values.iter().enumerate() {
            *(w as *mut T::R).add(i) = T::R::from_f64(x.re() * by);
        }
    }
    Ok(())
}

fn wish(vectors: bool) -> evd::ComputeEigenvectors {
    if vectors { evd::ComputeEigenvectors::Yes } else { evd::ComputeEigenvectors::No }
}

/// A complex element as stored.
#[derive(Clone, Copy)]
#[repr(C)]
struct Pair<R> {
    re: R,
    im: R,
}

/// Scales columns to norm 1 with a real largest component, as LAPACK does.
///
/// # Safety
/// `v` is valid for writing elements of `Pair<R>`.
unsafe fn normalise<R: Part>(v: Mat) {
    let f = |x: R| -> f64 { x.into() };
    for j in 0..v.cols {
        // Squares of the parts relative to the largest: no overflow.
        let mut most = 0.0f64;
        for i in 0..v.rows {
            // SAFETY: inside v.
            let x = unsafe { *v.at::<Pair<R>>(i, j) };
            most = most.max(f(x.re).abs()).max(f(x.im).abs());
        }
        if most == 0.0 || !most.is_finite() {
            continue;
        }
        let (mut sum, mut best, mut at) = (0.0f64, -1.0f64, 0);
        for i in 0..v.rows {
            // SAFETY: inside v.
            let x = unsafe { *v.at::<Pair<R>>(i, j) };
            let (a, b) = (f(x.re) / most, f(x.im) / most);
            let s = a * a + b * b;
            sum += s;
            if s > best {
                (best, at) = (s, i);
            }
        }
        // SAFETY: inside v.
        let top = unsafe { *v.at::<Pair<R>>(at, j) };
        let is_real = (0..v.rows).all(|i| {
            // SAFETY: inside v.
            unsafe { f((*v.at::<Pair<R>>(i, j)).im) == 0.0 }
        });
        let norm = sum.sqrt() * most;
        // A real vector keeps its sign; a complex one is turned until its largest component is real.
        let (c, s) = if is_real {
            (1.0, 0.0)
        } else {
            let h = f(top.re).hypot(f(top.im));
            (f(top.re) / h, -f(top.im) / h)
        };
        for i in 0..v.rows {
            // SAFETY: inside v.
            let x = unsafe { &mut *v.at::<Pair<R>>(i, j) };
            let (a, b) = (f(x.re) / norm, f(x.im) / norm);
            let (re, im) = (a * c - b * s, a * s + b * c);
            *x = Pair { re: R::from_f64(re), im: R::from_f64(if i == at && !is_real { 0.0 } else { im }) };
        }
    }
}

/// # Safety
/// As [`crate::Kernels::eig`].
pub(crate) unsafe fn real<R: Part>(a: MatRef<'_, R>, w: *mut u8, v: Option<Mat>) -> Outcome<()> {
    let n = a.nrows();
    if n == 0 {
        return Ok(());
    }
    let params = Default::default();
    let (left, right) = (evd::ComputeEigenvectors::No, wish(v.is_some()));
    let mut buf = workspace(evd::evd_scratch::<R>(n, left, right, Par::Seq, params))?;
    let (mut re, mut im) = (vec![R::NOTHING; n], vec![R::NOTHING; n]);
    let mut vectors = v.map(|_| faer::Mat::<R>::zeros(n, n));
    evd::evd_real::<R>(
        a,
        DiagMut::from_slice_mut(&mut re),
        DiagMut::from_slice_mut(&mut im),
        None,
        vectors.as_mut().map(|m| m.as_mut()),
        Par::Seq,
        MemStack::new(&mut buf),
        params,
    )
    .map_err(|_| Failure::NotConverged)?;
    // SAFETY: `w` holds n complex numbers, `v` is n x n complex.
    unsafe {
        for i in 0..n {
            *(w as *mut Pair<R>).add(i) = Pair { re: re[i], im: im[i] };
        }
        if let (Some(v), Some(x)) = (v, vectors) {
            let mut j = 0;
            while j < n {
                // A pair of conjugate values shares two real columns: their real and imaginary parts.
                let pair = im[j] != R::NOTHING && j + 1 < n;
                for i in 0..n {
                    if pair {
                        let (p, q) = (x[(i, j)], x[(i, j + 1)]);
                        *v.at::<Pair<R>>(i, j) = Pair { re: p, im: q };
                        *v.at::<Pair<R>>(i, j + 1) = Pair { re: p, im: -q };
                    } else {
                        *v.at::<Pair<R>>(i, j) = Pair { re: x[(i, j)], im: R::NOTHING };
                    }
                }
                j += if pair { 2 } else { 1 };
            }
            normalise::<R>(v);
        }
    }
    Ok(())
}

/// # Safety
/// As [`crate::Kernels::eig`].
pub(crate) unsafe fn complex<R: Part>(
    a: MatRef<'_, faer::complex::Complex<R>>,
    w: *mut u8,
    v: Option<Mat>,
) -> Outcome<()> {
    let n = a.nrows();
    if n == 0 {
        return Ok(());
    }
    type C<R> = faer::complex::Complex<R>;
    let params = Default::default();
    let (left, right) = (evd::ComputeEigenvectors::No, wish(v.is_some()));
    let mut buf = workspace(evd::evd_scratch::<C<R>>(n, left, right, Par::Seq, params))?;
    // SAFETY: `w` holds n complex numbers, `v` is n x n complex.
    unsafe {
        let values = std::slice::from_raw_parts_mut(w as *mut C<R>, n);
        evd::evd_cplx::<R>(
            a,
            DiagMut::from_slice_mut(values),
            None,
            v.map(|v| v.view_mut::<C<R>>()),
            Par::Seq,
            MemStack::new(&mut buf),
            params,
        )
        .map_err(|_| Failure::NotConverged)?;
        if let Some(v) = v {
            normalise::<R>(v);
        }
    }
    Ok(())
}
