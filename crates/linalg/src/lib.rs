//! Dense matrix factorisations on plain pointers: what `torch.linalg` needs of LAPACK, by faer.
//!
//! One matrix per call and never a thread of its own: the caller runs batches on the library's pool.
//! The crate knows nothing of the workspace and has no generic entry, so that the factorisations are
//! compiled once, here: [`kernels`] gives a table of functions for an element type.

mod dist;
mod eig;
mod factor;
mod field;
mod ldl;
mod qr;
mod small;
mod svd;

pub use dist::{Distance, distance, distance_backward};

/// The element types there are kernels for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Num {
    F32,
    F64,
    /// Two f32.
    C32,
    /// Two f64.
    C64,
}

/// A matrix in memory. Strides count elements; functions that say so want columns without gaps
/// (`rs == 1`, `cs >= rows`), the others take any.
#[derive(Clone, Copy)]
pub struct Mat {
    pub ptr: *mut u8,
    pub rows: usize,
    pub cols: usize,
    pub rs: isize,
    pub cs: isize,
}

impl Mat {
    /// The transposed view.
    pub fn t(self) -> Mat {
        Mat { rows: self.cols, cols: self.rows, rs: self.cs, cs: self.rs, ..self }
    }
}

/// Why a factorisation gave no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The iteration did not converge.
    NotConverged,
    /// An element is infinite or NaN.
    NotFinite,
    /// No memory for the workspace.
    OutOfMemory,
}

pub type Outcome<T> = Result<T, Failure>;

/// Which matrix of a factorisation a system is solved with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Plain,
    Transposed,
    Adjoint,
}

/// The kernels of one element type. Their safety is one contract, stated here once.
///
/// # Safety
/// For every function: each [`Mat`] names valid memory of this element type for its shape and strides,
/// matrices that are written to do not overlap others, shapes fit together as documented, and slices
/// have the stated lengths.
#[allow(clippy::missing_safety_doc)]
pub trait Kernels: Sync {
    /// Are all elements finite?
    unsafe fn is_finite(&self, a: Mat) -> bool;
    /// Lower Cholesky factor of the Hermitian `a` (lower triangle read) in place; the upper triangle is
    /// left as it is. 0, or the order of the leading minor that is not positive definite.
    unsafe fn cholesky(&self, a: Mat) -> Outcome<usize>;
    /// `P A = L U` in place. `pivots` (min(rows, cols)) are LAPACK's: row i was swapped with row
    /// `pivots[i] - 1`. 0, or the (1-based) position of the first zero on U's diagonal.
    unsafe fn lu(&self, a: Mat, pivots: &mut [i32]) -> Outcome<usize>;
    /// Solves with the result of [`Kernels::lu`] (square) in place of `b`.
    unsafe fn lu_solve(&self, lu: Mat, pivots: &[i32], b: Mat, op: Op);
    /// `a x = b` in place of `b`, `a` triangular; `conj` uses the conjugate of `a`.
    unsafe fn solve_triangular(&self, a: Mat, b: Mat, upper: bool, unit: bool, conj: bool);
    /// Householder QR in place: R above, the reflectors' vectors below the diagonal; `tau` holds
    /// min(rows, cols) elements, each reflector is `I - tau v v^H`.
    unsafe fn qr(&self, a: Mat, tau: *mut u8) -> Outcome<()>;
    /// QR of `a` (destroyed): `q` is rows x k, `r` is k x cols, with k = min(rows, cols) or rows.
    unsafe fn qr_explicit(&self, a: Mat, q: Option<Mat>, r: Mat) -> Outcome<()>;
    /// `a = u diag(s) v^H`; `s` holds min(rows, cols) reals, largest first; `u` and `v` have either all
    /// columns or min(rows, cols). `a` is only read.
    unsafe fn svd(&self, a: Mat, s: *mut u8, uv: Option<(Mat, Mat)>) -> Outcome<()>;
    /// Eigenvalues (real, ascending) and vectors of the Hermitian `a` (lower triangle read).
    unsafe fn eigh(&self, a: Mat, w: *mut u8, v: Option<Mat>) -> Outcome<()>;
    /// Eigenvalues and right eigenvectors of norm 1; `w` and `v` are complex of `a`'s precision.
    unsafe fn eig(&self, a: Mat, w: *mut u8, v: Option<Mat>) -> Outcome<()>;
    /// Bunch-Kaufman factorisation of the symmetric (or Hermitian) lower triangle in place, in LAPACK's
    /// format. 0, or the position of the first zero block.
    unsafe fn ldl(&self, a: Mat, pivots: &mut [i32], hermitian: bool) -> usize;
    /// Solves with the result of [`Kernels::ldl`] in place of `b`.
    unsafe fn ldl_solve(&self, ld: Mat, pivots: &[i32], b: Mat, hermitian: bool);
}

/// The kernels of an element type.
pub fn kernels(num: Num) -> &'static dyn Kernels {
    match num {
        Num::F32 => &field::Of::<f32>::NEW,
        Num::F64 => &field::Of::<f64>::NEW,
        Num::C32 => &field::Of::<faer::c32>::NEW,
        Num::C64 => &field::Of::<faer::c64>::NEW,
    }
}

#[cfg(test)]
mod tests;
