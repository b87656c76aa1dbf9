//! The floating-point product: picks a path, blocks for the caches, splits over threads.
//!
//! B is packed in panels of `nr` columns (unless it can be read in place), C is cut into jobs of some
//! row tiles by some panels. Within a job, k goes in blocks so that a tile of A stays in the first
//! level cache and the job's part of B in the second.

use std::mem::MaybeUninit;

use super::elem::Elem;
use super::gemv::{Axpy, Dots, MAX_ROWS};
use super::kernel::{Activation, KernelScalar, Kernels, MAX_MR, MAX_NR, Tile};
use super::pack::{A_PAD, Mat, pack_a, pack_b};
use super::vector::Scalar;
use super::{Bias, Gemm, Shared, estimate};
use crate::alloc::OutOfMemory;
use crate::pool;
use crate::simd::Isa;
use pyrite_core::interrupt;

/// Bytes of one row of an A tile per k block: 14 rows of it fit the first level cache.
const KC_BYTES: usize = 1536;
/// Bytes of B that a job works on per k block.
const GROUP_BYTES: usize = 384 << 10;
/// Bytes of B packed at a time.
const PACK_BYTES: usize = 8 << 20;
/// A packed B up to this many elements lives on the stack.
const SMALL: usize = 4096;

/// The product with typed pointers.
#[derive(Clone)]
struct Product<E: Elem> {
    num: super::Num,
    m: usize,
    n: usize,
    k: usize,
    a: Mat<E>,
    b: Mat<E>,
    c: *mut E,
    rsc: isize,
    csc: isize,
    alpha: E::T,
    beta: E::T,
    bias_n: *const E,
    bias_m: *const E,
    act: Activation,
}

// SAFETY: threads read A, B and the bias, and write disjoint parts of C.
unsafe impl<E: Elem> Sync for Product<E> {}

impl<E: Elem> Product<E> {
    /// The same product written as `C^T = B^T A^T`.
    fn transposed(self) -> Self {
        Product {
            m: self.n,
            n: self.m,
            a: self.b.t(),
            b: self.a.t(),
            rsc: self.csc,
            csc: self.rsc,
            bias_n: self.bias_m,
            bias_m: self.bias_n,
            ..self
        }
    }

    fn c_at(&self, i: usize, j: usize) -> *mut E {
        self.c.wrapping_offset(i as isize * self.rsc + j as isize * self.csc)
    }

    /// Applies the epilogue to sums `y` (`ldy` per row) of the block at (i0, j0) and stores them.
    ///
    /// # Safety
    /// The block lies in C and `y` holds it; nobody else touches this block.
    unsafe fn finish(&self, i0: usize, rows: usize, j0: usize, cols: usize, y: *const E::T, ldy: usize) {
        let zero = E::T::ZERO;
        for i in 0..rows {
            for j in 0..cols {
                // SAFETY: by the contract; the bias vectors cover m and n.
                unsafe {
                    let c = self.c_at(i0 + i, j0 + j);
                    let mut x = (*y.add(i * ldy + j)).mul(self.alpha);
                    if self.beta != zero {
                        x = x.add((*c).up().mul(self.beta));
                    }
                    if !self.bias_n.is_null() {
                        x = x.add((*self.bias_n.add(j0 + j)).up());
                    }
                    if !self.bias_m.is_null() {
                        x = x.add((*self.bias_m.add(i0 + i)).up());
                    }
                    if self.act == Activation::Relu && x < zero {
                        x = zero;
                    }
                    *c = E::down(x);
                }
            }
        }
    }
}

/// # Safety
/// As for `gemm`, for one product with `m, n > 0`.
pub unsafe fn run<E: Elem>(g: &Gemm, isa: Isa) -> Result<(), OutOfMemory> {
    let (mut bias_n, mut bias_m) = (std::ptr::null(), std::ptr::null());
    match g.bias {
        Bias::None => (),
        Bias::Cols(p) => bias_n = p.cast(),
        Bias::Rows(p) => bias_m = p.cast(),
    }
    let mut p = Product::<E> {
        num: g.num,
        m: g.m,
        n: g.n,
        k: g.k,
        a: Mat { p: g.a.cast(), rs: g.rsa, cs: g.csa },
        b: Mat { p: g.b.cast(), rs: g.rsb, cs: g.csb },
        c: g.c.cast(),
        rsc: g.rsc,
        csc: g.csc,
        alpha: E::T::from_f64(g.alpha),
        beta: E::T::from_f64(g.beta),
        bias_n,
        bias_m,
        act: g.act,
    };
    let skinny = p.m <= MAX_ROWS || p.n <= MAX_ROWS;
    if (skinny && p.n < p.m) || (!skinny && p.csc != 1 && p.rsc == 1) {
        p = p.transposed();
    }
    let kernels = E::T::kernels(isa);
    // SAFETY: the contract of this function, for the same product.
    unsafe {
        if skinny && E::PLAIN && (p.b.cs == 1 || p.b.rs == 1) {
            return gemv(&p, kernels);
        }
        blocked(&p, kernels)
    }
}

/// # Safety
/// As for [`run`], with `m <= MAX_ROWS`, and rows or columns of B contiguous.
unsafe fn gemv<E: Elem>(p: &Product<E>, kernels: &Kernels<E::T>) -> Result<(), OutOfMemory> {
    const WIDTH: usize = 512;
    if p.b.cs == 1 {
        /// Sums on the stack: they stay in the first level cache while B streams past.
        const SUMS: usize = 4096;
        // Long pieces of rows are read at full speed; shorter ones only so that all threads have some.
        let threads = pool::num_threads();
        let pieces = if threads == 1 { 1 } else { 2 * threads };
        let width = p.n.div_ceil(pieces).next_multiple_of(128).min(SUMS / p.m);
        pool::parallel(p.n.div_ceil(width), memory_time(p), &|job| {
            let j0 = job * width;
            let n = width.min(p.n - j0);
            let mut y = [const { MaybeUninit::<E::T>::uninit() }; SUMS];
            let y = y.as_mut_ptr().cast::<E::T>();
            // SAFETY: PLAIN means that E and E::T are one type; the piece lies inside B and C.
            unsafe {
                (kernels.axpy)(&Axpy {
                    m: p.m,
                    n,
                    k: p.k,
                    a: p.a.p.cast(),
                    rsa: p.a.rs,
                    csa: p.a.cs,
                    b: p.b.at(0, j0).cast(),
                    rsb: p.b.rs,
                    y,
                    ldy: width,
                });
                p.finish(0, p.m, j0, n, y, width);
            }
        });
        return Ok(());
    }
    let all = |a: *const E::T, rsa: isize| {
        let a = Shared(a);
        const PIECE: usize = 32;
        // Few columns per job, but enough bytes.
        let width = (32768 / p.k.max(1)).clamp(4, WIDTH) / 4 * 4;
        pool::parallel(p.n.div_ceil(width), memory_time(p), &|job| {
            let mut y = [const { MaybeUninit::<E::T>::uninit() }; MAX_ROWS * PIECE];
            let y = y.as_mut_ptr().cast::<E::T>();
            let end = ((job + 1) * width).min(p.n);
            for j0 in (job * width..end).step_by(PIECE) {
                let n = PIECE.min(end - j0);
                // SAFETY: as above; `a` holds m rows of k adjacent elements.
                unsafe {
                    (kernels.dots)(&Dots {
                        m: p.m,
                        n,
                        k: p.k,
                        a: a.get(),
                        rsa,
                        b: p.b.at(0, j0).cast(),
                        csb: p.b.cs,
                        y,
                        ldy: PIECE,
                    });
                    p.finish(0, p.m, j0, n, y, PIECE);
                }
            }
        });
    };
    if p.a.cs == 1 || p.k == 1 {
        all(p.a.p.cast(), p.a.rs);
        return Ok(());
    }
    pool::with_scratch(p.m * p.k * size_of::<E::T>(), |buf| {
        let buf = buf.cast::<E::T>();
        for i in 0..p.m {
            for q in 0..p.k {
                // SAFETY: the scratch holds m * k elements, and (i, q) lies in A.
                unsafe { *buf.add(i * p.k + q) = (*p.a.at(i, q)).up() };
            }
        }
        all(buf, p.k as isize);
    })
}

/// Time to read B once at about 12 bytes per nanosecond, or to compute, whichever is longer.
fn memory_time<E: Elem>(p: &Product<E>) -> u64 {
    let bytes = (p.n as u64).saturating_mul(p.k as u64).saturating_mul(size_of::<E>() as u64);
    (bytes / 12).max(estimate(p.num, p.m, p.n, p.k))
}

/// Where the kernel finds the panels of B from column `j0` on.
struct Panels<T> {
    packed: *const T,
    /// Column at which `packed` starts.
    j0: usize,
    /// B itself, where it is read in place: full panels only.
    direct: *const T,
    direct_stride: isize,
}

// SAFETY: read only.
unsafe impl<T> Sync for Panels<T> {}

/// # Safety
/// As for [`run`].
unsafe fn blocked<E: Elem>(p: &Product<E>, kernels: &Kernels<E::T>) -> Result<(), OutOfMemory> {
    let size = size_of::<E::T>();
    let nr = kernels.nr;
    let panels = p.n.div_ceil(nr);
    // Reading B in place pays if few tiles use it or it lies in the first level cache anyway.
    let in_place =
        E::PLAIN && p.b.cs == 1 && (p.m <= 2 * kernels.mr || p.n * p.k * size <= 24 << 10) && p.n >= nr;
    if in_place {
        let full = p.n / nr;
        let tail = p.n % nr;
        let direct = |packed: *const E::T| Panels {
            packed,
            j0: full * nr,
            direct: p.b.p.cast(),
            direct_stride: p.b.rs,
        };
        if tail == 0 {
            // SAFETY: every panel is full and read from B.
            return unsafe { compute(p, kernels, &direct(std::ptr::null()), 0, panels) };
        }
        // SAFETY: the tail panel has k rows of nr elements.
        return with_buffer(p.k * nr, |buf| unsafe {
            pack_b(p.b, 0, p.k, full * nr, tail, nr, buf);
            compute(p, kernels, &direct(buf), 0, panels)
        })?;
    }
    let per_pass = (PACK_BYTES / (p.k.max(1) * nr * size)).clamp(1, panels);
    with_buffer(per_pass * p.k * nr, |buf: *mut E::T| {
        for first in (0..panels).step_by(per_pass) {
            let count = per_pass.min(panels - first);
            let dst = Shared(buf);
            // About two elements per nanosecond when B is not in cache.
            let time = (count * nr * p.k) as u64 / 2;
            // Deep panels are cut along k, so that few of them still make several jobs; several panels go
            // together, some rows at a time, because B is read in pages of adjacent columns.
            let (deep, wide) = (256, 8);
            let rows = if p.b.cs == 1 { 16 } else { deep };
            let cuts = p.k.div_ceil(deep).max(1);
            pool::parallel(count.div_ceil(wide) * cuts, time, &|job| {
                let (set, cut) = (job / cuts, job % cuts);
                let end = ((cut + 1) * deep).min(p.k);
                for p0 in (cut * deep..end).step_by(rows) {
                    for q in set * wide..((set + 1) * wide).min(count) {
                        let j0 = (first + q) * nr;
                        // SAFETY: rows p0.. of panel q of the buffer are this job's alone.
                        unsafe {
                            let dst = dst.get().add((q * p.k + p0) * nr);
                            pack_b(p.b, p0, rows.min(end - p0), j0, nr.min(p.n - j0), nr, dst);
                        }
                    }
                }
            });
            let view = Panels { packed: buf, j0: first * nr, direct: std::ptr::null(), direct_stride: 0 };
            // SAFETY: the buffer holds panels first .. first + count.
            unsafe { compute(p, kernels, &view, first, count)? };
        }
        Ok(())
    })?
}

/// Computes the columns of panels `first .. first + count`.
///
/// # Safety
/// As for [`run`]; `view` holds these panels.
unsafe fn compute<E: Elem>(
    p: &Product<E>,
    kernels: &Kernels<E::T>,
    view: &Panels<E::T>,
    first: usize,
    count: usize,
) -> Result<(), OutOfMemory> {
    let (mr, nr, size) = (kernels.mr, kernels.nr, size_of::<E::T>());
    // Only sums that can rest in C may be interrupted.
    let blocks = match E::PLAIN && p.csc == 1 {
        true => p.k.div_ceil(KC_BYTES / size).max(1),
        false => 1,
    };
    let kc = p.k.div_ceil(blocks);
    let tiles = p.m.div_ceil(mr);
    let mut group = (GROUP_BYTES / (kc.max(1) * nr * size)).clamp(1, count);
    let mut block = tiles;
    let time = estimate(p.num, p.m, (count * nr).min(p.n), p.k);
    let threads = if time < 20_000 { 1 } else { pool::num_threads() };
    if threads > 1 {
        block = tiles.min(8);
        // Several jobs per thread, so that a thread that lost its core does not hold up the others.
        while tiles.div_ceil(block) * count.div_ceil(group) < 4 * threads && block * group > 1 {
            if group > 1 && (block == 1 || group * nr > block * mr) {
                group = group.div_ceil(2);
            } else {
                block = block.div_ceil(2);
            }
        }
    }
    let stride = p.a.rs.unsigned_abs() * size_of::<E>();
    let pack = !E::PLAIN || (group > 2 && (p.a.cs != 1 || stride.is_multiple_of(1024)));
    let scratch = if pack { A_PAD * (kc + A_PAD) * size } else { 0 };
    let row_jobs = tiles.div_ceil(block);
    let failed = std::sync::Mutex::new(None);
    pool::parallel(row_jobs * count.div_ceil(group), time, &|job| {
        let (g, r) = (job / row_jobs, job % row_jobs);
        let part = Part {
            tiles: r * block..((r + 1) * block).min(tiles),
            panels: first + g * group..first + ((g + 1) * group).min(count),
            count: tiles,
            blocks,
            kc,
        };
        let work = |a_buf: *mut E::T| {
            // SAFETY: parts of different jobs are disjoint; the buffer holds a packed tile if there is one.
            unsafe { compute_part(p, kernels, view, &part, a_buf) }
        };
        if scratch == 0 {
            work(std::ptr::null_mut());
        } else if let Err(e) = pool::with_scratch(scratch, |buf| work(buf.cast())) {
            *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
        }
    });
    match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

/// The share of one job.
struct Part {
    tiles: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    /// Number of row tiles of the whole product; tile t has rows m * t / count ...
    count: usize,
    blocks: usize,
    kc: usize,
}

/// # Safety
/// As for [`compute`]; `a_buf` is null or holds a packed tile of A.
unsafe fn compute_part<E: Elem>(
    p: &Product<E>,
    kernels: &Kernels<E::T>,
    view: &Panels<E::T>,
    part: &Part,
    a_buf: *mut E::T,
) {
    let nr = kernels.nr;
    let plain = E::PLAIN && p.csc == 1;
    let mut y = [const { MaybeUninit::<E::T>::uninit() }; MAX_MR * MAX_NR];
    let y = y.as_mut_ptr().cast::<E::T>();
    let null = std::ptr::null::<E::T>();
    for kb in 0..part.blocks {
        let p0 = kb * part.kc;
        let depth = part.kc.min(p.k - p0.min(p.k));
        let last = kb + 1 == part.blocks;
        for t in part.tiles.clone() {
            interrupt::poll();
            let i0 = p.m * t / part.count;
            let rows = p.m * (t + 1) / part.count - i0;
            let mut ptrs = [null; MAX_MR];
            let csa;
            // SAFETY: rows i0.. and columns p0.. lie in A; the buffer is large enough.
            unsafe {
                if a_buf.is_null() {
                    csa = p.a.cs;
                    for i in 0..rows {
                        ptrs[i] = p.a.at(i0 + i, p0).cast();
                    }
                } else {
                    let (rs, cs) = pack_a(p.a, i0, rows, p0, depth, a_buf);
                    csa = cs;
                    for i in 0..rows {
                        ptrs[i] = a_buf.offset(i as isize * rs);
                    }
                }
            }
            for q in part.panels.clone() {
                let j0 = q * nr;
                let cols = nr.min(p.n - j0);
                let (b, bs) = if j0 < view.j0 || view.packed.is_null() {
                    (
                        view.direct.wrapping_offset(p0 as isize * view.direct_stride).wrapping_add(j0),
                        view.direct_stride,
                    )
                } else {
                    (view.packed.wrapping_add((j0 - view.j0) * p.k + p0 * nr), nr as isize)
                };
                let mut tile = Tile {
                    rows: ptrs.as_ptr(),
                    tap_step: 0,
                    tap_add: 0,
                    taps: 1,
                    depth,
                    csa,
                    b,
                    bs,
                    c: y,
                    rsc: nr as isize,
                    n: nr,
                    alpha: E::T::ONE,
                    beta: E::T::ZERO,
                    bias_n: null,
                    bias_m: null,
                    act: Activation::None,
                };
                if plain {
                    tile.c = p.c_at(i0, j0).cast();
                    tile.rsc = p.rsc;
                    tile.n = cols;
                    tile.alpha = p.alpha;
                    tile.beta = if kb == 0 { p.beta } else { E::T::ONE };
                    if last {
                        tile.act = p.act;
                        if !p.bias_n.is_null() {
                            tile.bias_n = p.bias_n.wrapping_add(j0).cast();
                        }
                        if !p.bias_m.is_null() {
                            tile.bias_m = p.bias_m.wrapping_add(i0).cast();
                        }
                    }
                }
                // SAFETY: the pointers above cover `rows` rows and this panel; C's part is this job's alone.
                unsafe {
                    kernels.tile(rows, cols)(&tile);
                    if !plain {
                        p.finish(i0, rows, j0, cols, y, nr);
                    }
                }
            }
        }
    }
}

/// A buffer of `len` elements: on the stack if small.
fn with_buffer<T: Scalar, R>(len: usize, f: impl FnOnce(*mut T) -> R) -> Result<R, OutOfMemory> {
    if len <= SMALL {
        let mut buf = [const { MaybeUninit::<T>::uninit() }; SMALL];
        return Ok(f(buf.as_mut_ptr().cast()));
    }
    let bytes = len.saturating_mul(size_of::<T>());
    pool::with_scratch(bytes, |p| f(p.cast()))
}
