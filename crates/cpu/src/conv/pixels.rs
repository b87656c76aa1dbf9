//! The micro-kernel of convolutions with many output channels: some pixels by up to two vectors of
//! output channels, the inputs broadcast straight from the padded image.

use crate::gemm::kernel::MAX_MR;
use crate::gemm::vector::{Scalar, Vector, prefetch};

/// How many offsets ahead of its use the input is fetched.
pub const AHEAD: usize = 8;

/// `c[i][j] = sum_p at[i][offsets[p]] * b[p][j]`, added to c or, with a bias, started from it.
pub struct Pixels<'a, T> {
    /// Where each pixel stands in the padded image.
    pub at: [*const T; MAX_MR],
    /// One per row of B, and AHEAD more that are only fetched early.
    pub offsets: &'a [isize],
    /// Packed weights: rows of `bs` elements.
    pub b: *const T,
    pub bs: usize,
    pub c: *mut T,
    pub rsc: usize,
    /// Add to what is in c.
    pub add: bool,
    /// One value per column, or null. Columns are full vectors.
    pub bias: *const T,
}

pub type PixelsFn<T> = unsafe fn(&Pixels<T>);

/// # Safety
/// `MR` pixels readable at every offset, `offsets.len()` rows of B and `MR` rows of C of `NV` vectors, as
/// is the bias if there is one.
#[inline(always)]
pub unsafe fn pixels<V: Vector, const MR: usize, const NV: usize>(t: &Pixels<V::T>) {
    // SAFETY: by the contract.
    unsafe {
        let mut acc = [[V::splat(V::T::ZERO); NV]; MR];
        let mut b = t.b;
        let depth = t.offsets.len() - AHEAD;
        for (p, &offset) in t.offsets[..depth].iter().enumerate() {
            // Offsets jump between rows and planes, which no hardware prefetcher follows.
            let next = *t.offsets.get_unchecked(p + AHEAD);
            prefetch(t.at[0].wrapping_offset(next));
            prefetch(t.at[MR - 1].wrapping_offset(next));
            let mut bv = [V::splat(V::T::ZERO); NV];
            for v in 0..NV {
                bv[v] = V::load(b.add(v * V::LANES));
            }
            for i in 0..MR {
                let x = V::splat(*t.at[i].offset(offset));
                for v in 0..NV {
                    acc[i][v] = x.fma(bv[v], acc[i][v]);
                }
            }
            b = b.add(t.bs);
        }
        let mut start = [V::splat(V::T::ZERO); NV];
        for v in 0..NV {
            if !t.bias.is_null() {
                start[v] = V::load(t.bias.add(v * V::LANES));
            }
        }
        for i in 0..MR {
            for v in 0..NV {
                let c = t.c.add(i * t.rsc + v * V::LANES);
                let old = if t.add { V::load(c) } else { start[v] };
                acc[i][v].add(old).store(c);
            }
        }
    }
}
