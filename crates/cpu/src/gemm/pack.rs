//! Packing: panels of B (`nr` columns, one row after the other), and tiles of A where reading them in
//! place would be slow.

use super::elem::Elem;
use super::transpose::transpose;

/// A matrix in memory: `at(r, c) = p[r * rs + c * cs]`.
#[derive(Clone, Copy)]
pub struct Mat<E> {
    pub p: *const E,
    pub rs: isize,
    pub cs: isize,
}

impl<E: Elem> Mat<E> {
    #[inline(always)]
    pub fn at(&self, r: usize, c: usize) -> *const E {
        self.p.wrapping_offset(r as isize * self.rs + c as isize * self.cs)
    }

    pub fn t(self) -> Mat<E> {
        Mat { p: self.p, rs: self.cs, cs: self.rs }
    }
}

/// Writes rows `p0 .. p0 + depth` of columns `j0 .. j0 + cols` of B to `dst`, `nr` per row, zero beyond `cols`.
///
/// # Safety
/// The part of B is readable, `dst` holds `depth * nr` elements, `cols <= nr <= 32`.
pub unsafe fn pack_b<E: Elem>(
    b: Mat<E>,
    p0: usize,
    depth: usize,
    j0: usize,
    cols: usize,
    nr: usize,
    dst: *mut E::T,
) {
    /// Rows converted at a time when a half matrix is transposed.
    const STEP: usize = 64;
    let zero = <E::T as super::vector::Scalar>::ZERO;
    // SAFETY: by the contract.
    unsafe {
        if cols < nr {
            // All of it: one fill is faster than the columns beyond `cols` one by one.
            dst.write_bytes(0, depth * nr);
        }
        if b.cs == 1 {
            for p in 0..depth {
                let (s, d) = (b.at(p0 + p, j0), dst.add(p * nr));
                match cols {
                    // Constant sizes become a few moves instead of a call.
                    32 => E::up_n(s, d, 32),
                    16 => E::up_n(s, d, 16),
                    8 => E::up_n(s, d, 8),
                    _ => E::up_n(s, d, cols),
                }
            }
        } else if b.rs == 1 && b.cs > 0 && E::PLAIN {
            transpose(b.at(p0, j0).cast::<E::T>(), b.cs as usize, dst, nr, cols, depth);
        } else if b.rs == 1 {
            let mut buf = [zero; 32 * STEP];
            for p in (0..depth).step_by(STEP) {
                let n = STEP.min(depth - p);
                for j in 0..cols {
                    E::up_n(b.at(p0 + p, j0 + j), buf.as_mut_ptr().add(j * STEP), n);
                }
                transpose(buf.as_ptr(), STEP, dst.add(p * nr), nr, cols, n);
            }
        } else {
            for p in 0..depth {
                for j in 0..cols {
                    *dst.add(p * nr + j) = (*b.at(p0 + p, j0 + j)).up();
                }
            }
        }
    }
}

/// Copies rows `i0 .. i0 + rows` and columns `p0 .. p0 + depth` of A to `dst` and returns the (row,
/// column) strides of the copy. `dst` holds `A_PAD * (depth + A_PAD)` elements, `rows <= A_PAD`.
///
/// # Safety
/// The part of A is readable and `dst` as large as said.
pub unsafe fn pack_a<E: Elem>(
    a: Mat<E>,
    i0: usize,
    rows: usize,
    p0: usize,
    depth: usize,
    dst: *mut E::T,
) -> (isize, isize) {
    // SAFETY: by the contract.
    unsafe {
        if a.cs == 1 {
            // The pad keeps rows from falling into the same cache sets.
            let ld = depth + A_PAD;
            for i in 0..rows {
                E::up_n(a.at(i0 + i, p0), dst.add(i * ld), depth);
            }
            return (ld as isize, 1);
        }
        for p in 0..depth {
            let d = dst.add(p * A_PAD);
            if a.rs == 1 && E::PLAIN {
                let s = a.at(i0, p0 + p).cast::<E::T>();
                let mut i = 0;
                while i + 4 <= rows {
                    std::ptr::copy_nonoverlapping(s.add(i), d.add(i), 4);
                    i += 4;
                }
                while i < rows {
                    *d.add(i) = *s.add(i);
                    i += 1;
                }
            } else {
                for i in 0..rows {
                    *d.add(i) = (*a.at(i0 + i, p0 + p)).up();
                }
            }
        }
        (1, A_PAD as isize)
    }
}

/// Rows of a packed A tile (a power of two above MAX_MR).
pub const A_PAD: usize = 16;
