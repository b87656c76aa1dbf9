//! The element types behind [`crate::Kernels`], and the table of functions for each.

use crate::{Failure, Kernels, Mat, Op, Outcome, eig, factor, ldl, qr, svd};
use faer::dyn_stack::{MemBuffer, StackReq};
use faer::traits::{ComplexField, RealField};
use faer::{MatMut, MatRef, c32, c64};
use std::marker::PhantomData;
use std::ops::{Add, Div, DivAssign, Mul, Neg, Sub, SubAssign};

/// A real number: what complex ones are made of.
pub(crate) trait Part: RealField + Copy + PartialOrd + Into<f64> + Neg<Output = Self> {
    const NOTHING: Self;
    /// Squares of numbers between these, and sums of many of them, are normal numbers with digits to spare.
    const LEAST: f64;
    const MOST: f64;
    fn from_f64(v: f64) -> Self;
}

impl Part for f32 {
    const NOTHING: f32 = 0.0;
    const LEAST: f64 = 1e-12;
    const MOST: f64 = 1e15;
    fn from_f64(v: f64) -> f32 {
        v as f32
    }
}
impl Part for f64 {
    const NOTHING: f64 = 0.0;
    const LEAST: f64 = 1e-130;
    const MOST: f64 = 1e145;
    fn from_f64(v: f64) -> f64 {
        v
    }
}

/// A real or complex number that kernels of this crate compute with themselves.
pub(crate) trait Field:
    ComplexField<Real = Self::R>
    + Copy
    + PartialEq
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + DivAssign
    + SubAssign
{
    type R: Part;
    const ZERO: Self;
    const ONE: Self;
    fn conjugate(self) -> Self;
    fn re(self) -> f64;
    fn im(self) -> f64;
    fn of(re: f64, im: f64) -> Self;
    fn finite(self) -> bool {
        self.re().is_finite() && self.im().is_finite()
    }
    /// `|re| + |im|`, as LAPACK measures pivots.
    fn size(self) -> f64 {
        self.re().abs() + self.im().abs()
    }
    /// Eigenvalues into `w` and vectors into `v`, complex of this precision.
    ///
    /// # Safety
    /// As [`Kernels::eig`].
    unsafe fn eig(a: MatRef<'_, Self>, w: *mut u8, v: Option<Mat>) -> Outcome<()>;
}

macro_rules! real {
    ($($t:ident),*) => { $(
        impl Field for $t {
            type R = $t;
            const ZERO: $t = 0.0;
            const ONE: $t = 1.0;
            fn conjugate(self) -> $t { self }
            fn re(self) -> f64 { self as f64 }
            fn im(self) -> f64 { 0.0 }
            fn of(re: f64, _: f64) -> $t { re as $t }
            unsafe fn eig(a: MatRef<'_, $t>, w: *mut u8, v: Option<Mat>) -> Outcome<()> {
                // SAFETY: the caller's promise.
                unsafe { eig::real::<$t>(a, w, v) }
            }
        }
    )* };
}
macro_rules! complex {
    ($($t:ident $r:ident),*) => { $(
        impl Field for $t {
            type R = $r;
            const ZERO: $t = $t::new(0.0, 0.0);
            const ONE: $t = $t::new(1.0, 0.0);
            fn conjugate(self) -> $t { $t::new(self.re, -self.im) }
            fn re(self) -> f64 { self.re as f64 }
            fn im(self) -> f64 { self.im as f64 }
            fn of(re: f64, im: f64) -> $t { $t::new(re as $r, im as $r) }
            unsafe fn eig(a: MatRef<'_, $t>, w: *mut u8, v: Option<Mat>) -> Outcome<()> {
                // SAFETY: the caller's promise.
                unsafe { eig::complex::<$r>(a, w, v) }
            }
        }
    )* };
}
real!(f32, f64);
complex!(c32 f32, c64 f64);

impl Mat {
    /// # Safety
    /// The memory is valid for T, shape and strides, and nobody writes to it meanwhile.
    pub(crate) unsafe fn view<'a, T>(self) -> MatRef<'a, T> {
        // SAFETY: the caller's promise.
        unsafe { MatRef::from_raw_parts(self.ptr as *const T, self.rows, self.cols, self.rs, self.cs) }
    }
    /// # Safety
    /// As [`Mat::view`], and nobody else reads or writes it meanwhile.
    pub(crate) unsafe fn view_mut<'a, T>(self) -> MatMut<'a, T> {
        // SAFETY: the caller's promise.
        unsafe { MatMut::from_raw_parts_mut(self.ptr as *mut T, self.rows, self.cols, self.rs, self.cs) }
    }
    /// The address of an element.
    #[inline]
    pub(crate) fn at<T>(self, i: usize, j: usize) -> *mut T {
        (self.ptr as *mut T).wrapping_offset(i as isize * self.rs + j as isize * self.cs)
    }
}

/// Workspace of a factorisation; a size that does not fit is an error, not an abort.
pub(crate) fn workspace(need: StackReq) -> Outcome<MemBuffer> {
    MemBuffer::try_new(need).map_err(|_| Failure::OutOfMemory)
}

/// # Safety
/// `a` is valid for reading.
pub(crate) unsafe fn is_finite<T: Field>(a: Mat) -> bool {
    (0..a.cols).all(|j| {
        (0..a.rows).all(|i| {
            // SAFETY: i and j are inside the matrix.
            unsafe { (*a.at::<T>(i, j)).finite() }
        })
    })
}

/// What a matrix is divided by, a power of two, before it goes to algorithms that square its elements: 1 unless
/// the squares leave the range of the type, as LAPACK's drivers do.
///
/// # Safety
/// `a` is valid for reading.
pub(crate) unsafe fn scale<T: Field>(a: Mat) -> f64 {
    // SAFETY: the caller's promise.
    scale_of::<T>(unsafe { largest::<T>(a) })
}

/// The largest part of an element.
///
/// # Safety
/// `a` is valid for reading.
pub(crate) unsafe fn largest<T: Field>(a: Mat) -> f64 {
    let mut most = 0.0f64;
    for j in 0..a.cols {
        for i in 0..a.rows {
            // SAFETY: i and j are inside the matrix.
            let v = unsafe { *a.at::<T>(i, j) };
            most = most.max(v.re().abs()).max(v.im().abs());
        }
    }
    most
}

/// [`scale`] of a matrix whose largest part is `most`.
pub(crate) fn scale_of<T: Field>(most: f64) -> f64 {
    if most == 0.0 || (T::R::LEAST..T::R::MOST).contains(&most) {
        return 1.0;
    }
    // Within what both 2^e and 2^-e can be.
    most.log2().floor().clamp(-1000.0, 1000.0).exp2()
}

/// # Safety
/// `a` is valid for reading and writing.
pub(crate) unsafe fn divide<T: Field>(a: Mat, by: f64) {
    let factor = 1.0 / by;
    for j in 0..a.cols {
        for i in 0..a.rows {
            // SAFETY: i and j are inside the matrix.
            let v = unsafe { &mut *a.at::<T>(i, j) };
            *v = T::of(v.re() * factor, v.im() * factor);
        }
    }
}

/// A copy of `a`, divided.
///
/// # Safety
/// `a` is valid for reading.
pub(crate) unsafe fn divided<T: Field>(a: Mat, by: f64) -> faer::Mat<T> {
    // SAFETY: the caller's promise; the copy is ours.
    unsafe {
        let mut own = a.view::<T>().to_owned();
        if by != 1.0 {
            divide::<T>(whole(&mut own), by);
        }
        own
    }
}

fn whole<T>(m: &mut faer::Mat<T>) -> Mat {
    let (rows, cols) = (m.nrows(), m.ncols());
    let view = m.as_mut();
    let (rs, cs) = (view.row_stride(), view.col_stride());
    Mat { ptr: view.as_ptr_mut().cast(), rows, cols, rs, cs }
}

/// The table of functions for `T`.
pub(crate) struct Of<T>(PhantomData<fn() -> T>);

impl<T> Of<T> {
    pub(crate) const NEW: Of<T> = Of(PhantomData);
}

impl<T: Field> Kernels for Of<T> {
    unsafe fn is_finite(&self, a: Mat) -> bool {
        // SAFETY: here and below, the promise of `Kernels`.
        unsafe { is_finite::<T>(a) }
    }
    unsafe fn cholesky(&self, a: Mat) -> Outcome<usize> {
        // SAFETY: as above.
        unsafe { factor::cholesky::<T>(a) }
    }
    unsafe fn lu(&self, a: Mat, pivots: &mut [i32]) -> Outcome<usize> {
        // SAFETY: as above.
        unsafe { factor::lu::<T>(a, pivots) }
    }
    unsafe fn lu_solve(&self, lu: Mat, pivots: &[i32], b: Mat, op: Op) {
        // SAFETY: as above.
        unsafe { factor::lu_solve::<T>(lu, pivots, b, op) }
    }
    unsafe fn solve_triangular(&self, a: Mat, b: Mat, upper: bool, unit: bool, conj: bool) {
        // SAFETY: as above.
        unsafe { factor::solve_triangular::<T>(a, b, upper, unit, conj) }
    }
    unsafe fn qr(&self, a: Mat, tau: *mut u8) -> Outcome<()> {
        // SAFETY: as above.
        unsafe { qr::qr::<T>(a, tau) }
    }
    unsafe fn qr_explicit(&self, a: Mat, q: Option<Mat>, r: Mat) -> Outcome<()> {
        // SAFETY: as above.
        unsafe { qr::explicit::<T>(a, q, r) }
    }
    unsafe fn svd(&self, a: Mat, s: *mut u8, uv: Option<(Mat, Mat)>) -> Outcome<()> {
        // SAFETY: as above.
        unsafe { svd::svd::<T>(a, s, uv) }
    }
    unsafe fn eigh(&self, a: Mat, w: *mut u8, v: Option<Mat>) -> Outcome<()> {
        // SAFETY: as above.
        unsafe { eig::hermitian::<T>(a, w, v) }
    }
    unsafe fn eig(&self, a: Mat, w: *mut u8, v: Option<Mat>) -> Outcome<()> {
        // SAFETY: as above.
        unsafe {
            if !is_finite::<T>(a) {
                return Err(Failure::NotFinite);
            }
            let by = scale::<T>(a);
            if by == 1.0 {
                return T::eig(a.view(), w, v);
            }
            T::eig(divided::<T>(a, by).as_ref(), w, v)?;
            for i in 0..2 * a.rows {
                let part = &mut *(w as *mut T::R).add(i);
                *part = T::R::from_f64((*part).into() * by);
            }
            Ok(())
        }
    }
    unsafe fn ldl(&self, a: Mat, pivots: &mut [i32], hermitian: bool) -> usize {
        // SAFETY: as above.
        unsafe { ldl::factor::<T>(a, pivots, hermitian) }
    }
    unsafe fn ldl_solve(&self, ld: Mat, pivots: &[i32], b: Mat, hermitian: bool) {
        // SAFETY: as above.
        unsafe { ldl::solve::<T>(ld, pivots, b, hermitian) }
    }
}
