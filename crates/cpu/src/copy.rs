//! Moving elements: strided copies with conversion, fills, and the small strided loops that the tile
//! engines share.

mod stream;
mod transposed;

use crate::by_size;
use crate::cast::cast;
use crate::map::Tiles;
use crate::planes;
use crate::pool;
use crate::simd::{Arch, ArchKernel, dispatch};
use pyrite_core::plan::{MAX_OPERANDS, Operand, Plan};
use pyrite_core::{Arr, DType, Layout, Result, Scalar};
pub(crate) use stream::splat;
pub(crate) use stream::stream;
use stream::{Stream, stream_row};
use transposed::transposed;

/// Results from here on are written past the caches.
const STREAM_BYTES: usize = 16 << 20;
const GRAIN_BYTES: usize = 64 << 10;

/// `n` elements of `size` bytes, `stride` bytes apart, to consecutive ones.
///
/// # Safety
/// Both sides are valid for this.
#[inline(always)]
pub(crate) unsafe fn gather(size: usize, n: usize, dst: *mut u8, src: *const u8, stride: isize) {
    // SAFETY: the caller's promise. (Elements are aligned to their size or less, hence unaligned.)
    unsafe {
        if stride == size as isize && n * size >= 64 {
            return src.copy_to_nonoverlapping(dst, n * size);
        }
        by_size!(size, |T| {
            let d = dst.cast::<T>();
            for i in 0..n {
                let v = src.offset(i as isize * stride).cast::<T>().read_unaligned();
                d.add(i).write_unaligned(v);
            }
        })
    }
}

/// The way back.
///
/// # Safety
/// Both sides are valid for this.
#[inline(always)]
pub(crate) unsafe fn scatter(size: usize, n: usize, dst: *mut u8, stride: isize, src: *const u8) {
    // SAFETY: the caller's promise.
    unsafe {
        if stride == size as isize && n * size >= 64 {
            return src.copy_to_nonoverlapping(dst, n * size);
        }
        by_size!(size, |T| {
            let s = src.cast::<T>();
            for i in 0..n {
                dst.offset(i as isize * stride).cast::<T>().write_unaligned(s.add(i).read_unaligned());
            }
        })
    }
}

/// `runs` runs of `n` elements to consecutive places: run r starts `r * across` bytes after the first.
///
/// # Safety
/// The source is valid for this; `dst` too, and for 64 bytes more, which may be overwritten.
pub(crate) unsafe fn gather_runs(
    size: usize,
    n: usize,
    runs: usize,
    dst: *mut u8,
    src: *const u8,
    along: isize,
    across: isize,
) {
    dispatch(Runs { size, n, runs, dst, src, along, across })
}

struct Runs {
    size: usize,
    n: usize,
    runs: usize,
    dst: *mut u8,
    src: *const u8,
    along: isize,
    across: isize,
}

impl ArchKernel for Runs {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Runs { size, n, runs, dst, src, along, across } = self;
        let dense = along == size as isize;
        // SAFETY: the caller of `gather_runs` promises runs x n elements; a group of 16 bytes written
        // beyond a run is overwritten by the next one, or lies in the spare 64 bytes.
        unsafe {
            by_size!(size, |T| {
                let w = 16 / size_of::<T>();
                for r in 0..runs {
                    let s = src.offset(r as isize * across);
                    let d = dst.cast::<T>().add(r * n);
                    if along == 0 {
                        let v = s.cast::<T>().read_unaligned();
                        let mut i = 0;
                        while i < n {
                            // Constant length: one store of a vector.
                            for j in 0..w {
                                d.add(i + j).write_unaligned(v);
                            }
                            i += w;
                        }
                    } else if dense && n >= 16 {
                        s.cast::<T>().copy_to_nonoverlapping(d, n);
                    } else {
                        for i in 0..n {
                            let v = s.offset(i as isize * along).cast::<T>().read_unaligned();
                            d.add(i).write_unaligned(v);
                        }
                    }
                }
            })
        }
    }
}

/// Copies consecutive bytes on all threads.
unsafe fn copy_bytes(dst: *mut u8, src: *const u8, bytes: usize) {
    if bytes <= GRAIN_BYTES {
        // SAFETY: the caller's promise.
        return unsafe { src.copy_to(dst, bytes) };
    }
    let (n, size) = pool::chunks(bytes, GRAIN_BYTES);
    let past = bytes >= STREAM_BYTES && (dst as usize).is_multiple_of(64);
    let (d, s) = (dst as usize, src as usize);
    pool::parallel(n, bytes as u64 / 10, &|c| {
        let m = size.min(bytes - c * size);
        let (d, s) = ((d + c * size) as *mut u8, (s + c * size) as *const u8);
        // SAFETY: chunks are disjoint pieces of the caller's ranges; their starts stay aligned, as
        // `chunks` gives multiples of 64.
        unsafe {
            if past {
                stream(d, s, m);
                crate::simd::fence();
            } else {
                s.copy_to_nonoverlapping(d, m);
            }
        }
    });
}

fn layout(a: &Arr) -> Layout {
    Layout::new(a.shape, a.strides, 0)
}

/// The identity as a map kernel, for conversions through tiles.
unsafe fn identity<const SIZE: usize>(n: usize, out: *mut u8, ins: *const *const u8, _: *const u64) {
    // SAFETY: one input, both of n elements of SIZE bytes.
    unsafe { (*ins).copy_to(out, n * SIZE) }
}

/// `Backend::copy`.
pub fn copy(dst: Arr, src: Arr) -> Result<()> {
    let n = dst.numel();
    if n == 0 {
        return Ok(());
    }
    if dst.is_contiguous() && src.is_contiguous() {
        if dst.dtype == src.dtype {
            // SAFETY: dense arrays of n elements, checked by the driver.
            unsafe { copy_bytes(dst.ptr, src.ptr, n * dst.dtype.size()) };
        } else {
            // SAFETY: as above.
            unsafe { convert(n, dst.dtype, dst.ptr, src.dtype, src.ptr) };
        }
        return Ok(());
    }
    let (dl, sl) = (layout(&dst), layout(&src));
    let plan = Plan::new(
        "copy",
        dst.shape,
        &[
            Operand { ptr: dst.ptr, dtype: dst.dtype, layout: &dl },
            Operand { ptr: src.ptr, dtype: src.dtype, layout: &sl },
        ],
    )?;
    let size = dst.dtype.size();
    if dst.dtype == src.dtype {
        // SAFETY: the plan's operands are the arrays that the driver checked.
        unsafe { strided(&plan, size) };
        return Ok(());
    }
    let kernel = match size {
        1 => identity::<1>,
        2 => identity::<2>,
        4 => identity::<4>,
        8 => identity::<8>,
        _ => identity::<16>,
    };
    // SAFETY: one input, as the identity takes.
    unsafe { Tiles::new(&plan, [dst.dtype; MAX_OPERANDS], kernel, [0; 4]).run(|| 100) };
    Ok(())
}

/// Dense conversion on all threads.
unsafe fn convert(n: usize, dt: DType, dst: *mut u8, st: DType, src: *const u8) {
    let c = cast(dt, st);
    let (ds, ss) = (dt.size(), st.size());
    let (d, s) = (dst as usize, src as usize);
    let (chunks, size) = pool::chunks(n, 16 << 10);
    pool::parallel(chunks, (n * (ds + ss)) as u64 / 12, &|i| {
        let m = size.min(n - i * size);
        // SAFETY: disjoint pieces of the caller's arrays.
        unsafe { c(m, (d + i * size * ds) as *mut u8, (s + i * size * ss) as *const u8) }
    });
}

/// Same dtype, any strides. Dimension 0 of the plan is the destination's innermost.
unsafe fn strided(plan: &Plan, size: usize) {
    let bytes = plan.numel * size;
    let step = size as isize;
    if plan.ndim == 1 && plan.strides[0][0] == step && plan.strides[1][0] == step {
        // SAFETY: one dense run.
        return unsafe { copy_bytes(plan.ptrs[0], plan.ptrs[1], bytes) };
    }
    // A dimension along which the source is dense: the copy is a (batch of) transposition(s).
    let along = (1..plan.ndim).find(|&d| plan.strides[1][d] == step);
    if let Some(d) = along
        && plan.strides[0][0] == step
        && plan.strides[1][0] != step
        && plan.shape[0] >= 4
        && plan.shape[d] >= 4
        && (size == 4 || size == 8 || size == 1 || size == 2)
    {
        // SAFETY: passed on.
        return unsafe { transposed(plan, size, d) };
    }
    if plan.ndim > 1 && plan.shape[0] <= planes::SHORT && plan.shape[1] >= 4 {
        // SAFETY: passed on; the driver does not let the two overlap.
        return unsafe { planes::copy(plan, size) };
    }
    // Planes of the two innermost dimensions.
    let (n0, n1) = (plan.shape[0], if plan.ndim > 1 { plan.shape[1] } else { 1 });
    let outer = plan.numel / (n0 * n1);
    // Units: rows of planes.
    let rows = outer * n1;
    let grain = (GRAIN_BYTES / (n0 * size)).max(1);
    let per = rows.div_ceil(128).max(grain);
    let split = if rows == 1 { n0.div_ceil(GRAIN_BYTES / size) } else { 1 };
    if split > 1 {
        let piece = n0.div_ceil(split);
        return pool::parallel(split, bytes as u64 / 3, &|c| {
            let start = c * piece;
            if start < n0 {
                let d = plan.ptrs[0].wrapping_offset(start as isize * plan.strides[0][0]);
                let s = plan.ptrs[1].wrapping_offset(start as isize * plan.strides[1][0]);
                // SAFETY: a piece of the one run.
                unsafe { row(size, piece.min(n0 - start), d, plan.strides[0][0], s, plan.strides[1][0]) };
            }
        });
    }
    // Long dense rows go past the caches, as a dense copy does.
    let past =
        bytes >= STREAM_BYTES && n0 * size >= 512 && plan.strides[0][0] == step && plan.strides[1][0] == step;
    pool::parallel(rows.div_ceil(per), bytes as u64 / 3, &|c| {
        plan.for_runs(c * per..rows.min((c + 1) * per), |p| {
            // SAFETY: a run of the plan.
            unsafe {
                if past {
                    stream_row(p[0], p[1], n0 * size)
                } else {
                    row(size, n0, p[0], plan.strides[0][0], p[1], plan.strides[1][0])
                }
            };
        });
        if past {
            crate::simd::fence();
        }
    });
}

#[inline(always)]
unsafe fn row(size: usize, n: usize, dst: *mut u8, ds: isize, src: *const u8, ss: isize) {
    let step = size as isize;
    // SAFETY: the caller's promise: n elements on both sides.
    unsafe {
        if ds == step {
            if ss == 0 { splat(size, n, dst, src) } else { gather(size, n, dst, src, ss) }
        } else if ss == step {
            scatter(size, n, dst, ds, src)
        } else {
            by_size!(size, |T| for i in 0..n as isize {
                let v = src.offset(i * ss).cast::<T>().read_unaligned();
                dst.offset(i * ds).cast::<T>().write_unaligned(v);
            })
        }
    }
}

/// `Backend::fill`.
pub fn fill(dst: Arr, value: Scalar) -> Result<()> {
    let size = dst.dtype.size();
    // Four or more copies of the element: any vector's worth of the pattern.
    let one = value.to_bytes(dst.dtype);
    let mut pattern = [0u8; 64];
    for p in pattern.chunks_exact_mut(size) {
        p.copy_from_slice(&one[..size]);
    }
    let n = dst.numel();
    if n == 0 {
        return Ok(());
    }
    let l = layout(&dst);
    let plan = Plan::new("fill", dst.shape, &[Operand { ptr: dst.ptr, dtype: dst.dtype, layout: &l }])?;
    if !plan.is_contiguous() {
        let (len, runs) = (plan.shape[0], plan.runs());
        let per = runs.div_ceil(128).max((GRAIN_BYTES / (len * size)).max(1));
        pool::parallel(runs.div_ceil(per), (n * size) as u64 / 8, &|c| {
            plan.for_runs(c * per..runs.min((c + 1) * per), |p| {
                // SAFETY: a run of the plan; stride 0 of the source repeats the value.
                unsafe { row(size, len, p[0], plan.strides[0][0], pattern.as_ptr(), 0) };
            });
        });
        return Ok(());
    }
    let bytes = n * size;
    let past = bytes >= STREAM_BYTES && (plan.ptrs[0] as usize).is_multiple_of(64);
    let start = plan.ptrs[0] as usize;
    let (chunks, piece) = pool::chunks(bytes, GRAIN_BYTES);
    pool::parallel(chunks, bytes as u64 / 12, &|c| {
        let m = piece.min(bytes - c * piece);
        let d = (start + c * piece) as *mut u8;
        // Disjoint pieces of the array: they start at multiples of 64 bytes, hence at whole elements and
        // copies of the pattern, and `past` means that they are aligned.
        dispatch(Stream { dst: d, src: pattern.as_ptr(), bytes: m, pattern: true, past });
        if past {
            crate::simd::fence();
        }
    });
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
