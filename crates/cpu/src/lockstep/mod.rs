//! Factorisations of many small matrices (up to 16 x 16) in lockstep: a lane is a matrix, so that all lanes do
//! the same steps on elements that lie side by side. What differs between matrices (which row is the pivot,
//! whether a rotation is needed) is a choice between lanes, never a branch.
//!
//! Rejected: one matrix after the other with code per size, whose inner loops are shorter than a register.

mod eigh;
mod lanes;
mod lu;
mod qr;
mod singular;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

pub use eigh::eigh;
pub use lu::{Factors, Right, lu};
pub use qr::qr;
pub use singular::singular_values;

/// The largest number of rows and columns.
pub const MOST: usize = 16;
/// The largest number of right sides.
pub const MOST_SIDES: usize = 32;
/// Matrices per job: a multiple of every number of lanes.
const JOB: usize = 64;
/// Bytes of the largest register.
const WIDEST: usize = 64;

/// The matrices of a batch: number b starts `b * step` elements behind the first; all strides count elements.
#[derive(Clone, Copy)]
pub struct Batch {
    pub ptr: *mut u8,
    pub step: isize,
    pub rs: isize,
    pub cs: isize,
}

// SAFETY: a pointer with its strides; what may be done with it is said by the functions that take it.
unsafe impl Send for Batch {}
// SAFETY: as above.
unsafe impl Sync for Batch {}

/// Numbers per matrix, in memory order: `len` for each.
#[derive(Clone, Copy)]
pub struct Ints(pub *mut i32);

// SAFETY: as for `Batch`.
unsafe impl Send for Ints {}
// SAFETY: as for `Batch`.
unsafe impl Sync for Ints {}

/// What became of a matrix, where that is not a pivot's number.
pub const DONE: i32 = 0;
/// An element that counts is infinite or NaN; nothing of use was written.
pub const NOT_FINITE: i32 = 1;
/// The sweeps did not end; nothing of use was written.
pub const NOT_CONVERGED: i32 = 2;
