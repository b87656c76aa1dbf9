//! The weight gradient: `dw[k][c, tap] = sum over images and pixels of dy[k] * x[c, pixel + tap]`.
//!
//! A product whose inner dimension is the pixels: rows are (channel, tap) pairs, whose values for
//! consecutive pixels lie side by side in the padded image, so that no matrix is gathered; columns are
//! output channels, with `dy` packed pixel by pixel. Images are summed in a fixed number of chunks.

use super::image::{Frame, Image, SLACK};
use super::shift::{CROSS_ROWS, Cross};
use super::{Number, first_error, side};
use crate::alloc::OutOfMemory;
use crate::gemm::Shared;
use crate::gemm::kernel::{Activation, Kernels, MAX_MR, Tile};
use crate::gemm::pack::{Mat, pack_b};
use crate::gemm::transpose::transpose;
use crate::pool;
use pyrite_core::interrupt;

/// Bytes of packed `dy` that all rows run over before the next ones.
const BLOCK_BYTES: usize = 256 << 10;
/// Bytes of padded images and packed gradients made at a time.
const IMAGE_BYTES: usize = 12 << 20;

pub struct Weight<'a, T> {
    pub n: usize,
    pub groups: usize,
    pub cg: usize,
    pub kg: usize,
    pub x: Image<T>,
    pub taps: &'a [(isize, isize)],
    pub step: [usize; 2],
    /// `c` is `groups * kg`, `h` x `w` the output size.
    pub dy: Image<T>,
    /// `groups * kg` rows of `cg * taps`, contiguous.
    pub dw: *mut T,
}

/// Sizes that follow from the problem alone.
struct Shape {
    frame: Frame,
    depth: usize,
    pixels: usize,
    /// Width and number of panels of output channels in a group.
    width: usize,
    panels: usize,
    /// Elements of packed `dy` per image.
    packed: usize,
    /// Images are summed in this many chunks, each with its own sums.
    chunks: usize,
    /// Sums of one chunk.
    sums: usize,
}

/// # Safety
/// The pointers cover the sizes; `dw` overlaps nothing else.
pub unsafe fn run<T: Number>(d: &Weight<T>, kernels: &Kernels<T>) -> Result<(), OutOfMemory> {
    let size = size_of::<T>();
    let frame = Frame::new(d.x.c, d.taps, d.step, d.dy.h, d.dy.w);
    let depth = d.cg * d.taps.len();
    let pixels = d.dy.h * d.dy.w;
    // Few output channels: one vector per panel.
    let width = if d.kg <= kernels.lanes { kernels.lanes } else { kernels.nr };
    let panels = d.kg.div_ceil(width);
    let sums = d.groups * depth * panels * width;
    // Chunks cost memory for their sums; large weights make enough jobs by themselves.
    let most = if sums <= 32 << 10 {
        16
    } else if sums <= 256 << 10 {
        4
    } else {
        1
    };
    let s = Shape {
        frame,
        depth,
        pixels,
        width,
        panels,
        packed: d.groups * panels * pixels * width,
        chunks: most.min(d.n).max(1),
        sums,
    };
    if sums == 0 {
        return Ok(());
    }
    let offsets: Vec<isize> =
        (0..d.cg).flat_map(|c| d.taps.iter().map(move |&t| frame.offset(c, t))).collect();
    // Few channels and long rows: vectors along the pixels, straight from `dy`.
    let in_place = d.dy.strides[3] == 1
        && d.kg <= 2 * CROSS_ROWS
        && d.kg * d.dy.w.div_ceil(kernels.lanes) < d.kg.div_ceil(kernels.lanes) * (d.dy.w + 6);
    // Multiplications per image; with packed gradients, and that packing.
    let vectors = match in_place {
        true => depth * d.kg * d.dy.h * d.dy.w.div_ceil(kernels.lanes),
        false => (depth + 16) * pixels * panels * width / kernels.lanes,
    };
    if side::suits_weight(d, &frame, kernels.lanes, vectors) {
        let s = Shape { chunks: 1, ..s };
        return first_error(pool::with_scratch(sums * size, |buf| {
            let buf = buf.cast::<T>();
            // SAFETY: the scratch holds the sums of one chunk.
            unsafe {
                buf.write_bytes(0, sums);
                side::weight(d, &frame, &offsets, kernels, panels * width, buf)?;
                store(d, &s, buf);
            }
            Ok(())
        }));
    }
    let s = if in_place { Shape { packed: 0, ..s } } else { s };
    let per_pass = (IMAGE_BYTES / ((frame.image + s.packed) * size).max(1)).clamp(1, d.n.max(1));
    let floats = |n: usize| n.saturating_mul(size);
    let done = pool::with_scratch(floats(s.chunks * s.sums), |sums| {
        let sums = sums.cast::<T>();
        // SAFETY: the scratch holds all sums.
        unsafe { sums.write_bytes(0, s.chunks * s.sums) };
        let done = pool::with_scratch(floats(per_pass * (frame.image + s.packed) + SLACK), |buf| {
            let copy = buf.cast::<T>();
            let packed = copy.wrapping_add(per_pass * frame.image + SLACK);
            for first in (0..d.n).step_by(per_pass) {
                let images = per_pass.min(d.n - first);
                // SAFETY: the scratch holds the padded images with their slack, then the packed gradients.
                unsafe {
                    frame.fill(&d.x, first, images, copy);
                    if !in_place {
                        pack(d, &s, first, images, packed);
                    }
                    accumulate(d, kernels, &s, &offsets, first..first + images, copy, packed, sums);
                }
            }
        });
        // SAFETY: every chunk is complete.
        unsafe { store(d, &s, sums) };
        done
    });
    first_error(done)
}

/// # Safety
/// `dst` holds `images * packed` elements.
unsafe fn pack<T: Number>(d: &Weight<T>, s: &Shape, first: usize, images: usize, dst: *mut T) {
    let each = d.groups * s.panels;
    let time = (images * s.packed) as u64 / 2;
    let shared = Shared((d, s, dst));
    pool::parallel(images * each, time, &|job| {
        let (d, s, dst) = shared.get();
        let (i, rest) = (job / each, job % each);
        let (g, q) = (rest / s.panels, rest % s.panels);
        let k0 = q * s.width;
        let cols = s.width.min(d.kg - k0);
        let [sn, sk, sh, sw] = d.dy.strides;
        let src = d.dy.p.wrapping_offset((first + i) as isize * sn + (g * d.kg + k0) as isize * sk);
        let dst = dst.wrapping_add(job * s.pixels * s.width);
        let uniform = d.dy.h == 1 || sh == sw * d.dy.w as isize;
        let (rows, len) = if uniform { (1, s.pixels) } else { (d.dy.h, d.dy.w) };
        for r in 0..rows {
            let m = Mat { p: src.wrapping_offset(r as isize * sh), rs: sw, cs: sk };
            // SAFETY: the rows lie in `dy`, and panel `job` is ours alone.
            unsafe { pack_b(m, 0, len, 0, cols, s.width, dst.wrapping_add(r * len * s.width)) };
        }
    });
}

/// Adds the images of a pass to the sums of their chunks.
///
/// # Safety
/// `copy` and `packed` hold the images of the range, `sums` all chunks.
unsafe fn accumulate<T: Number>(
    d: &Weight<T>,
    kernels: &Kernels<T>,
    s: &Shape,
    offsets: &[isize],
    images: std::ops::Range<usize>,
    copy: *const T,
    packed: *const T,
    sums: *mut T,
) {
    let chunk_of = |image: usize| ((image + 1) * s.chunks).div_ceil(d.n) - 1;
    let (first_chunk, last_chunk) = (chunk_of(images.start), chunk_of(images.end - 1));
    let chunks = last_chunk - first_chunk + 1;
    let in_place = s.packed == 0;
    let tiles = s.depth.div_ceil(if in_place { kernels.cross_width } else { kernels.mr });
    // Which rows a job takes does not change any sum.
    let wanted = (4 * pool::num_threads()).div_ceil(chunks * d.groups);
    let blocks = tiles.min(wanted).max(1);
    let each = d.groups * blocks;
    let macs = (images.len() * s.pixels * s.panels * s.width * d.groups) as u64 * (s.depth as u64 + 2);
    let speed = if size_of::<T>() == 4 { 40 } else { 20 };
    let shared = Shared((d, s, copy, packed, sums));
    pool::parallel(chunks * each, macs / speed, &|job| {
        let (d, s, copy, packed, sums) = shared.get();
        let (chunk, rest) = (first_chunk + job / each, job % each);
        let (g, block) = (rest / blocks, rest % blocks);
        // Images i with chunk_of(i) == chunk.
        let from = (d.n * chunk / s.chunks).max(images.start);
        let to = (d.n * (chunk + 1) / s.chunks).min(images.end);
        let (oh, ow) = (d.dy.h, d.dy.w);
        let line = d.step[0] * s.frame.row;
        let kpad = s.panels * s.width;
        // At least a few hundred pixels at a time, or loading and storing the sums shows.
        let rows_at_once = (BLOCK_BYTES / (ow * kpad * size_of::<T>())).max(256 / ow).clamp(1, oh);
        let out = sums.wrapping_add(chunk * s.sums + g * s.depth * kpad);
        if in_place {
            let x = copy.wrapping_add((from - images.start) * s.frame.image + g * d.cg * s.frame.plane);
            for t in tiles * block / blocks..tiles * (block + 1) / blocks {
                let p0 = s.depth * t / tiles;
                let count = s.depth * (t + 1) / tiles - p0;
                let mut k = 0;
                while k < d.kg {
                    interrupt::poll();
                    let left = (d.kg - k).div_ceil(CROSS_ROWS);
                    let channels = (d.kg - k).div_ceil(left);
                    let [sn, sk, sh, _] = d.dy.strides;
                    let call = Cross {
                        images: to - from,
                        dy: d.dy.p.wrapping_offset(from as isize * sn + (g * d.kg + k) as isize * sk),
                        dy_strides: [sn, sk, sh],
                        x,
                        x_strides: [s.frame.image as isize, line as isize],
                        offsets: std::array::from_fn(|i| offsets[p0 + i.min(count - 1)]),
                        oh,
                        ow,
                        out: out.wrapping_add(p0 * kpad + k),
                        ldo: kpad,
                        count,
                    };
                    // SAFETY: the channels lie in `dy`, the offsets in the padded images, the sums are ours alone.
                    unsafe { kernels.cross[channels - 1](&call) };
                    k += channels;
                }
            }
            return;
        }
        for image in from..to {
            let i = image - images.start;
            let x = copy.wrapping_add(i * s.frame.image + g * d.cg * s.frame.plane);
            let dy = packed.wrapping_add(i * s.packed + g * s.panels * s.pixels * s.width);
            for r in (0..oh).step_by(rows_at_once) {
                interrupt::poll();
                for t in tiles * block / blocks..tiles * (block + 1) / blocks {
                    let p0 = s.depth * t / tiles;
                    let rows = s.depth * (t + 1) / tiles - p0;
                    let mut ptrs = [std::ptr::null::<T>(); MAX_MR];
                    for (ptr, &offset) in ptrs.iter_mut().zip(&offsets[p0..p0 + rows]) {
                        *ptr = x.wrapping_offset(offset).wrapping_add(r * line);
                    }
                    for q in 0..s.panels {
                        let tile = Tile {
                            rows: ptrs.as_ptr(),
                            tap_step: 0,
                            tap_add: line as isize,
                            taps: rows_at_once.min(oh - r),
                            depth: ow,
                            csa: 1,
                            b: dy.wrapping_add((q * s.pixels + r * ow) * s.width),
                            bs: s.width as isize,
                            c: out.wrapping_add(p0 * kpad + q * s.width),
                            rsc: kpad as isize,
                            n: s.width,
                            alpha: T::ONE,
                            beta: T::ONE,
                            bias_n: std::ptr::null(),
                            bias_m: std::ptr::null(),
                            act: Activation::None,
                        };
                        // SAFETY: rows, panel and sums are as the tile says, and these sums are ours alone.
                        unsafe { kernels.tile(rows, s.width)(&tile) };
                    }
                }
            }
        }
    });
}

/// Adds up the chunks in order and writes the result as rows of output channels.
///
/// # Safety
/// `sums` holds all chunks, `dw` the gradient.
unsafe fn store<T: Number>(d: &Weight<T>, s: &Shape, sums: *mut T) {
    // SAFETY: all indices stay below the number of sums; `dw` has groups * kg * depth elements.
    unsafe {
        for chunk in 1..s.chunks {
            let (to, from) = (sums, sums.add(chunk * s.sums));
            for i in 0..s.sums {
                *to.add(i) = (*to.add(i)).add(*from.add(i));
            }
        }
        let kpad = s.panels * s.width;
        for g in 0..d.groups {
            let dw = d.dw.add(g * d.kg * s.depth);
            transpose(sums.add(g * s.depth * kpad), kpad, dw, s.depth, s.depth, d.kg);
        }
    }
}

/// `db[k] = sum over images and pixels of dy[k]`.
///
/// # Safety
/// `dy` is readable for `n` images, `db` holds `dy.c` elements.
pub unsafe fn bias<T: Number>(n: usize, dy: &Image<T>, db: *mut T) {
    const LANES: usize = 16;
    let [sn, sk, sh, sw] = dy.strides;
    let time = (n * dy.c * dy.h * dy.w) as u64 / 4;
    let shared = Shared((dy, db));
    if sk == 1 {
        // Channels side by side: sixteen sums at once.
        pool::parallel(dy.c.div_ceil(LANES), time, &|job| {
            let (dy, db) = shared.get();
            let k0 = job * LANES;
            let count = LANES.min(dy.c - k0);
            let mut acc = [T::ZERO; LANES];
            for i in 0..n {
                for h in 0..dy.h {
                    let mut p = dy.p.wrapping_offset(i as isize * sn + h as isize * sh).wrapping_add(k0);
                    for _ in 0..dy.w {
                        for (l, a) in acc.iter_mut().enumerate().take(count) {
                            // SAFETY: channel k0 + l of a pixel of image i.
                            *a = a.add(unsafe { *p.add(l) });
                        }
                        p = p.wrapping_offset(sw);
                    }
                }
            }
            for (l, a) in acc.iter().enumerate().take(count) {
                // SAFETY: k0 + l is below the number of channels, and this job's alone.
                unsafe { *db.add(k0 + l) = *a };
            }
        });
        return;
    }
    pool::parallel(dy.c, time, &|k| {
        let (dy, db) = shared.get();
        let mut acc = [T::ZERO; LANES];
        let flat = sw == 1 && (dy.h == 1 || sh == dy.w as isize);
        let (rows, len) = if flat { (1, dy.h * dy.w) } else { (dy.h, dy.w) };
        for i in 0..n {
            for h in 0..rows {
                let p = dy.p.wrapping_offset(i as isize * sn + k as isize * sk + h as isize * sh);
                // SAFETY: row h of channel k of image i.
                unsafe {
                    if sw == 1 {
                        let row = std::slice::from_raw_parts(p, len);
                        let mut pieces = row.chunks_exact(LANES);
                        for piece in &mut pieces {
                            for l in 0..LANES {
                                acc[l] = acc[l].add(piece[l]);
                            }
                        }
                        for (l, &v) in pieces.remainder().iter().enumerate() {
                            acc[l] = acc[l].add(v);
                        }
                    } else {
                        for j in 0..len {
                            acc[j % LANES] = acc[j % LANES].add(*p.wrapping_offset(j as isize * sw));
                        }
                    }
                }
            }
        }
        let mut total = T::ZERO;
        for a in acc {
            total = total.add(a);
        }
        // SAFETY: k is below the number of channels.
        unsafe { *db.add(k) = total };
    });
}
