//! Moving elements: strided copies with conversion, fills, and the small strided loops that the tile
//! engines share.

use crate::cast::cast;
use crate::gemm::transpose::transpose;
use crate::map::Tiles;
use crate::planes;
use crate::pool;
use crate::simd::{Arch, ArchKernel, Lanes, dispatch};
use pyrite_core::plan::{MAX_OPERANDS, Operand, Plan};
use pyrite_core::{Arr, DType, Layout, Result, Scalar};

/// Results from here on are written past the caches.
const STREAM_BYTES: usize = 16 << 20;
const GRAIN_BYTES: usize = 64 << 10;

macro_rules! by_size {
    ($size:expr, |$T:ident| $body:expr) => {
        match $size {
            1 => {
                type $T = u8;
                $body
            }
            2 => {
                type $T = u16;
                $body
            }
            4 => {
                type $T = u32;
                $body
            }
            8 => {
                type $T = u64;
                $body
            }
            _ => {
                type $T = [u64; 2];
                $body
            }
        }
    };
}

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

/// `n` consecutive copies of the element at `value`.
///
/// # Safety
/// `dst` is valid for `n` elements, `value` for one.
pub(crate) unsafe fn splat(size: usize, n: usize, dst: *mut u8, value: *const u8) {
    // SAFETY: the caller's promise; the pattern is a vector of whole elements.
    unsafe {
        if n * size >= 256 {
            let mut pattern = [0u8; 64];
            for p in pattern.chunks_exact_mut(size) {
                value.copy_to_nonoverlapping(p.as_mut_ptr(), size);
            }
            let src = pattern.as_ptr();
            return dispatch(Stream { dst, src, bytes: n * size, pattern: true, past: false });
        }
        by_size!(size, |T| {
            let v = value.cast::<T>().read_unaligned();
            let d = dst.cast::<T>();
            for i in 0..n {
                d.add(i).write_unaligned(v);
            }
        })
    }
}

struct Stream {
    dst: *mut u8,
    src: *const u8,
    bytes: usize,
    /// The source does not move: a vector's worth of a pattern.
    pattern: bool,
    /// Past the caches.
    past: bool,
}

impl ArchKernel for Stream {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let w = A::F64::N * 8;
        let mut i = 0;
        // SAFETY: the caller of `stream` promises the bytes and the alignment; the tail is copied.
        unsafe {
            let fixed = if self.pattern { A::F64::load(self.src.cast()) } else { A::F64::splat(0.0) };
            while i + w <= self.bytes {
                let v = if self.pattern { fixed } else { A::F64::load(self.src.add(i).cast()) };
                let d = self.dst.add(i).cast();
                if self.past {
                    v.stream(d)
                } else {
                    v.store(d)
                }
                i += w;
            }
            let s = if self.pattern { self.src } else { self.src.add(i) };
            s.copy_to_nonoverlapping(self.dst.add(i), self.bytes - i);
        }
    }
}

/// Copies past the caches; call [`crate::simd::fence`] before another thread may read.
///
/// # Safety
/// Both ranges are valid and disjoint; `dst` is aligned to 64 bytes.
pub(crate) unsafe fn stream(dst: *mut u8, src: *const u8, bytes: usize) {
    dispatch(Stream { dst, src, bytes, pattern: false, past: true })
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
    // Long dense rows that each start at a cache line go past the caches, as a dense copy does.
    let past = bytes >= STREAM_BYTES
        && n0 * size >= 512
        && plan.strides[0][0] == step
        && plan.strides[1][0] == step
        && (plan.ptrs[0] as usize).is_multiple_of(64)
        && (1..plan.ndim).all(|d| plan.strides[0][d] % 64 == 0);
    pool::parallel(rows.div_ceil(per), bytes as u64 / 3, &|c| {
        plan.for_runs(c * per..rows.min((c + 1) * per), |p| {
            // SAFETY: a run of the plan; its destination is aligned if `past`.
            unsafe {
                if past {
                    stream(p[0], p[1], n0 * size)
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

/// Destination dense along dimension 0, source along `d`.
unsafe fn transposed(plan: &Plan, size: usize, d: usize) {
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
mod tests {
    use super::*;
    use crate::reduce::tests::{read, store};

    /// Row-major reading of a layout.
    fn order(l: &Layout) -> Vec<usize> {
        (0..l.numel())
            .map(|mut i| {
                let mut at = l.offset() as isize;
                for d in (0..l.ndim()).rev() {
                    at += (i % l.shape()[d]) as isize * l.strides()[d];
                    i /= l.shape()[d];
                }
                at as usize
            })
            .collect()
    }

    fn arr<'a>(p: *mut u8, d: DType, l: &'a Layout) -> Arr<'a> {
        Arr { ptr: p.wrapping_add(l.offset() * d.size()), dtype: d, shape: l.shape(), strides: l.strides() }
    }

    #[test]
    fn every_layout_pair() {
        for shape in
            [[1usize, 1, 1], [2, 3, 5], [1, 70, 90], [3, 130, 200], [2, 17, 300], [40, 1, 33], [300, 7, 3]]
        {
            let mut layouts = vec![Layout::contiguous(&shape)];
            for p in [[0usize, 2, 1], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
                let inner: Vec<usize> = p.iter().map(|i| shape[*i]).collect();
                let mut back = [0i64; 3];
                p.iter().enumerate().for_each(|(i, k)| back[*k] = i as i64);
                layouts.push(Layout::contiguous(&inner).permute(&back).unwrap());
            }
            let wide = Layout::contiguous(&[shape[0], shape[1], shape[2] * 2]);
            layouts.push(wide.slice(2, 1, shape[2], 2).unwrap());
            layouts.push(wide.slice(2, 2 * shape[2] - 1, shape[2], -2).unwrap());
            for (from, to) in [
                (DType::F32, DType::F32),
                (DType::F64, DType::F64),
                (DType::U8, DType::U8),
                (DType::I16, DType::I16),
                (DType::C128, DType::C128),
                (DType::F32, DType::F64),
                (DType::I64, DType::F32),
                (DType::F32, DType::F16),
                (DType::F32, DType::C64),
            ] {
                for a in &layouts {
                    for b in &layouts {
                        let room = |l: &Layout| l.extent().unwrap().1 as usize + 1;
                        let v: Vec<f64> = (0..room(a)).map(|i| (i * 31 % 113) as f64).collect();
                        let src = store(from, &v);
                        let mut dst = store(to, &vec![99.0; room(b)]);
                        copy(arr(dst.as_mut_ptr(), to, b), arr(src.as_ptr().cast_mut(), from, a)).unwrap();
                        let got = read(to, &dst);
                        for (x, y) in order(a).iter().zip(order(b)) {
                            assert_eq!(v[*x], got[y], "{shape:?} {a:?} -> {b:?} {from} {to}");
                        }
                        // Nothing else was touched.
                        let mut seen = vec![false; room(b)];
                        order(b).iter().for_each(|i| seen[*i] = true);
                        assert!(seen.iter().zip(&got).all(|(s, g)| *s || *g == 99.0));
                    }
                }
            }
        }
    }

    #[test]
    fn broadcast_and_large() {
        let n = STREAM_BYTES / 4 + 77;
        let l = Layout::contiguous(&[n]);
        let out = crate::alloc::Block::new(n * 4).unwrap();
        let y = arr(out.as_ptr(), DType::F32, &l);
        // SAFETY: the block holds n floats.
        let all = unsafe { std::slice::from_raw_parts(out.as_ptr().cast::<f32>(), n) };
        fill(y, Scalar::Float(2.5)).unwrap();
        assert!(all.iter().all(|v| *v == 2.5));
        let one = [7.0f32];
        let zero = Layout::new(&[n][..], &[0isize][..], 0);
        copy(y, arr(one.as_ptr().cast_mut().cast(), DType::F32, &zero)).unwrap();
        assert!(all.iter().all(|v| *v == 7.0));
        let src: Vec<f32> = (0..n).map(|i| i as f32).collect();
        copy(y, arr(src.as_ptr().cast_mut().cast(), DType::F32, &l)).unwrap();
        assert!(all == src);
    }

    #[test]
    fn fills_touch_their_elements_only() {
        for d in [DType::Bool, DType::I16, DType::F32, DType::C128] {
            let l = Layout::contiguous(&[50, 8]).slice(1, 1, 3, 2).unwrap();
            let mut b = store(d, &vec![0.0; 400]);
            fill(arr(b.as_mut_ptr(), d, &l), Scalar::Int(1)).unwrap();
            let got = read(d, &b);
            let mut want = vec![0.0; 400];
            order(&l).iter().for_each(|i| want[*i] = 1.0);
            assert_eq!(got, want);
        }
    }
}
