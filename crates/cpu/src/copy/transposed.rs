//! Copies whose source is dense along another dimension than the destination: transpositions.

use super::GRAIN_BYTES;
use crate::by_size;
use crate::gemm::transpose::transpose;
use crate::pool;
use pyrite_core::plan::Plan;

/// Destination dense along dimension 0, source along `d`.
pub(super) unsafe fn transposed(plan: &Plan, size: usize, d: usize) {
    // Planes of 0 x d, everything else outside.
    let mut outer = *plan;
    for k in 0..2 {
        outer.strides[k].swap(1, d);
    }
    outer.shape.swap(1, d);
    let (n0, n1) = (outer.shape[0], outer.shape[1]);
    let planes = plan.numel / (n0 * n1);
    // Strips of dimension 1 (rows of the destination), so that threads write apart.
    let strip = 64usize.min(n1);
    let strips = n1.div_ceil(strip);
    let units = planes * strips;
    let grain = (GRAIN_BYTES / (n0 * strip * size)).max(1);
    let per = units.div_ceil(128).max(grain);
    // Walk the planes with a plan that lacks the two inner dimensions.
    let mut walk = outer;
    walk.shape[0] = 1;
    walk.shape[1] = 1;
    let walk = &walk;
    let outer = &outer;
    pool::parallel(units.div_ceil(per), (plan.numel * size) as u64 / 4, &|c| {
        let range = c * per..units.min((c + 1) * per);
        for u in range {
            let (plane, s) = (u / strips, u % strips);
            walk.for_runs(plane..plane + 1, |p| {
                let j0 = s * strip;
                let rows = strip.min(n1 - j0);
                let dst = p[0].wrapping_offset(j0 as isize * outer.strides[0][1]);
                let src = p[1].wrapping_offset(j0 as isize * outer.strides[1][1]);
                // SAFETY: rows j0..j0+rows of this plane.
                unsafe {
                    by_size!(size, |T| block::<T>(
                        n0,
                        rows,
                        dst,
                        outer.strides[0][1],
                        src,
                        outer.strides[1][0]
                    ))
                }
            });
        }
    });
}

/// `dst[j][i] = src[i][j]`, i < n0 (dense in dst), j < n1 (dense in src); strides in bytes.
unsafe fn block<T: Copy>(n0: usize, n1: usize, dst: *mut u8, ds: isize, src: *const u8, ss: isize) {
    // Two sides of a block fit the second-level cache, so that lines are read and written once.
    const B: usize = 128;
    let size = size_of::<T>() as isize;
    let whole = ds > 0 && ss > 0 && ds % size == 0 && ss % size == 0;
    for i0 in (0..n0).step_by(B) {
        let ni = B.min(n0 - i0);
        // SAFETY: inside the plane.
        unsafe {
            let s = src.offset(i0 as isize * ss).cast::<T>();
            let d = dst.cast::<T>().add(i0);
            if whole {
                transpose(s, (ss / size) as usize, d, (ds / size) as usize, ni, n1);
                continue;
            }
            for j in 0..n1 {
                let (d, s) = (d.byte_offset(j as isize * ds), s.add(j));
                for i in 0..ni {
                    d.add(i).write_unaligned(s.byte_offset(i as isize * ss).read_unaligned());
                }
            }
        }
    }
}
