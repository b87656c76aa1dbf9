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
    fn from_f64(v: f64) -> Self;
}

impl Part for f32 {
    const NOTHING: f32 = 0.0;
    fn from_f64(v: f64) -> f32 {
        v as f32
    }
}
impl Part for f64 {
    const NOTHING: f64 = 0.0;
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
            T::eig(a.view(), w, v)
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
