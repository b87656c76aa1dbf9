//! Copies whose innermost runs are short (a repeated element, a few columns of a wide matrix): whole
//! planes of the two innermost dimensions at a time, since the walk from run to run would cost more
//! than the run.

use crate::by_size;
use crate::pool;
use pyrite_core::plan::Plan;

/// Runs of this many elements at most are worth it.
pub(crate) const SHORT: usize = 16;
const GRAIN_BYTES: usize = 64 << 10;

/// A plane's sizes and byte strides, of the destination and the source.
#[derive(Clone, Copy)]
struct Plane {
    n: [usize; 2],
    d: [isize; 2],
    s: [isize; 2],
}

/// Copies all of a plan of two operands and two dimensions at least.
///
/// # Safety
/// The operands are arrays of elements of `size` bytes that do not overlap.
pub(crate) unsafe fn copy(plan: &Plan, size: usize) {
    let (n0, n1) = (plan.shape[0], plan.shape[1]);
    let rows = plan.numel / n0;
    let per = rows.div_ceil(128).max((GRAIN_BYTES / (n0 * size)).max(1));
    let plane = |n1| Plane {
        n: [n0, n1],
        d: [0, 1].map(|k| plan.strides[0][k]),
        s: [0, 1].map(|k| plan.strides[1][k]),
    };
    // The planes' corners: a walk without the two inner dimensions.
    let mut walk = *plan;
    walk.shape[0] = 1;
    walk.shape[1] = 1;
    let walk = &walk;
    pool::parallel(rows.div_ceil(per), (plan.numel * size) as u64 / 4, &|c| {
        let (mut row, end) = (c * per, rows.min((c + 1) * per));
        while row < end {
            let (k, first) = (row / n1, row % n1);
            let m = (n1 - first).min(end - row);
            let p = plane(m);
            walk.for_runs(k..k + 1, |at| {
                let d = at[0].wrapping_offset(first as isize * p.d[1]);
                let s = at[1].wrapping_offset(first as isize * p.s[1]);
                // SAFETY: rows `first..first + m` of this plane.
                unsafe { by_size!(size, |T| one::<T>(p, d, s)) }
            });
            row += m;
        }
    });
}

/// # Safety
/// All elements of the plane exist on both sides.
unsafe fn one<T: Copy>(p: Plane, d: *mut u8, s: *const u8) {
    // SAFETY: the caller's promise.
    unsafe {
        match p.n[0] {
            2 => fixed::<T, 2>(p, d, s),
            3 => fixed::<T, 3>(p, d, s),
            4 => fixed::<T, 4>(p, d, s),
            8 => fixed::<T, 8>(p, d, s),
            _ => rows::<T>(p, d, s, p.n[0]),
        }
    }
}

/// # Safety
/// As `one`, of `N` columns.
unsafe fn fixed<T: Copy, const N: usize>(p: Plane, d: *mut u8, s: *const u8) {
    let step = size_of::<T>() as isize;
    // SAFETY: the caller's promise; elements need not be aligned.
    unsafe {
        if p.d[0] != step || (p.s[0] != step && p.s[0] != 0) {
            return rows::<T>(p, d, s, N);
        }
        for r in 0..p.n[1] as isize {
            let (to, from) = (d.offset(r * p.d[1]).cast::<[T; N]>(), s.offset(r * p.s[1]));
            let v = if p.s[0] == 0 {
                [from.cast::<T>().read_unaligned(); N]
            } else {
                from.cast::<[T; N]>().read_unaligned()
            };
            to.write_unaligned(v);
        }
    }
}

/// # Safety
/// As `one`, of `n` columns.
#[inline(always)]
unsafe fn rows<T: Copy>(p: Plane, d: *mut u8, s: *const u8, n: usize) {
    for r in 0..p.n[1] as isize {
        for i in 0..n as isize {
            // SAFETY: the caller's promise; elements need not be aligned.
            unsafe {
                let v = s.offset(r * p.s[1] + i * p.s[0]).cast::<T>().read_unaligned();
                d.offset(r * p.d[1] + i * p.d[0]).cast::<T>().write_unaligned(v);
            }
        }
    }
}
