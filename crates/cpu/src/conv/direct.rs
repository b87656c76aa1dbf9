//! The forward kernel, which also computes input gradients: `y[k] = sum over (c, tap) of w[k][c, tap] * x`.
//!
//! An implicit GEMM: no im2col matrix exists. Every product reads the padded image in place through a
//! table of offsets, one per (channel, tap). With many output channels the columns of a tile are channels
//! (packed weights) and its rows pixels (`pixels.rs`); with few, weights are broadcast and vectors run
//! along the pixels of an output row (`shift.rs`).

use std::sync::Mutex;

use super::Number;
use super::image::{Frame, Image, SLACK};
use super::pixels::{AHEAD, Pixels};
use super::shift::{SHIFT_ROWS, Shift};
use super::side;
use crate::alloc::OutOfMemory;
use crate::gemm::Shared;
use crate::gemm::kernel::{Kernels, MAX_MR};
use crate::gemm::pack::{Mat, pack_b};
use crate::gemm::transpose::transpose;
use crate::pool;

/// Bytes of sums that a job keeps.
const SUM_BYTES: usize = 128 << 10;
/// Bytes of one weight column per block of offsets, as in the matrix product.
const KC_BYTES: usize = 1536;
/// Bytes of padded images made at a time.
const IMAGE_BYTES: usize = 12 << 20;

/// A convolution with explicit taps: output pixel (i, j) sees input (i * step[0] + tap.0, j * step[1] + tap.1).
pub struct Direct<'a, T> {
    pub n: usize,
    pub groups: usize,
    /// Input and output channels of one group.
    pub cg: usize,
    pub kg: usize,
    /// `x.c` is `groups * cg`.
    pub x: Image<T>,
    pub taps: &'a [(isize, isize)],
    pub step: [usize; 2],
    pub oh: usize,
    pub ow: usize,
    /// `groups * kg` rows of `cg * taps`, contiguous.
    pub w: *const T,
    /// `groups * kg` values or null.
    pub bias: *const T,
    pub y: *mut T,
    pub ys: [isize; 4],
}

/// # Safety
/// The pointers cover the sizes; `y` overlaps nothing else.
pub unsafe fn run<T: Number>(d: &Direct<T>, kernels: &Kernels<T>) -> Result<(), OutOfMemory> {
    let pixels = d.oh * d.ow;
    if d.n == 0 || pixels == 0 || d.groups * d.kg == 0 {
        return Ok(());
    }
    // SAFETY: the same contract.
    if let Some(done) = unsafe { super::depthwise::run(d) } {
        return done;
    }
    let size = size_of::<T>();
    let frame = Frame::new(d.x.c, d.taps, d.step, d.oh, d.ow);
    let depth = d.cg * d.taps.len();
    let lanes = kernels.lanes;
    // Vectors per image and offset: rows in place waste lanes at their ends, channels in the last vector.
    let by_rows = d.oh * d.ow.div_ceil(lanes) * d.kg;
    let by_channels = pixels * d.kg.div_ceil(lanes);
    if d.ys[3] != 1 && 2 * by_rows <= by_channels {
        // SAFETY: passed on.
        return unsafe { through_rows(d, kernels) };
    }
    if side::suits(d, &frame, lanes, by_rows.min(by_channels) * depth) {
        // SAFETY: passed on.
        return unsafe { side::run(d, &frame, kernels) };
    }
    let in_rows = d.ys[3] == 1 && 8 * by_rows <= 7 * by_channels;
    // Along rows, tap by tap, so that the taps an output row sees are adjacent; else channel by channel,
    // so that inputs close to each other are read close to each other.
    let mut offsets: Vec<isize> = match in_rows {
        true => d.taps.iter().flat_map(|&t| (0..d.cg).map(move |c| frame.offset(c, t))).collect(),
        false => (0..d.cg).flat_map(|c| d.taps.iter().map(move |&t| frame.offset(c, t))).collect(),
    };
    if !in_rows {
        offsets.extend([0; AHEAD]);
    }
    let per_pass = (IMAGE_BYTES / (frame.image * size).max(1)).clamp(1, d.n);
    let speed = if size == 4 { 40 } else { 20 };
    let each = (d.groups * d.kg * pixels) as u64 * (depth as u64 + 4) / speed;
    // Room for the padded images, the packed weights and the bias, padded to full panels.
    let plan = Plan { frame, offsets: &offsets, depth, kpad: d.kg.next_multiple_of(lanes), pixels };
    let weights = d.groups * plan.kpad * (depth + 1);
    let floats = (per_pass * frame.image + SLACK).saturating_add(weights);
    let failed = Mutex::new(None);
    pool::with_scratch(floats.saturating_mul(size), |buf| {
        let copy = buf.cast::<T>();
        let packed = copy.wrapping_add(per_pass * frame.image + SLACK);
        // SAFETY: the scratch has room for the weights behind the images.
        unsafe { if in_rows { tap_by_tap(d, depth, packed) } else { pack(d, &plan, kernels, packed) } }
        for first in (0..d.n).step_by(per_pass) {
            let images = per_pass.min(d.n - first);
            // SAFETY: the scratch holds the images and the slack.
            unsafe { frame.fill(&d.x, first, images, copy) };
            let shared = Shared((d, copy.cast_const(), packed.cast_const()));
            let time = each.saturating_mul(images as u64);
            let plan = &plan;
            if in_rows {
                let bands = d.oh.div_ceil(BAND);
                pool::parallel(images * d.groups * bands, time, &|job| {
                    let (d, copy, w) = shared.get();
                    let (image, rest) = (job / (d.groups * bands), job % (d.groups * bands));
                    let (g, band) = (rest / bands, rest % bands);
                    let src = copy.wrapping_add(image * frame.image + g * d.cg * frame.plane);
                    let rows = band * BAND..((band + 1) * BAND).min(d.oh);
                    // SAFETY: bands of rows are disjoint; the padded image has slack behind it.
                    unsafe { shifted(d, plan, kernels, first + image, g, src, w, rows) }
                });
                continue;
            }
            let all = images * pixels;
            let tiles = all.div_ceil(kernels.mr);
            let mut block = (SUM_BYTES / (kernels.mr * plan.kpad * size)).clamp(1, tiles);
            // Enough jobs for all threads, or the last one is waited for.
            while block > 1 && d.groups * tiles.div_ceil(block) < 4 * pool::num_threads() {
                block = block.div_ceil(2);
            }
            let jobs = tiles.div_ceil(block);
            pool::parallel(d.groups * jobs, time, &|job| {
                let (d, copy, packed) = shared.get();
                let (g, part) = (job / jobs, job % jobs);
                let from = part * block * kernels.mr;
                let span = from..(from + block * kernels.mr).min(all);
                let done = pool::with_scratch(span.len() * plan.kpad * size, |buf| {
                    // SAFETY: spans of pixels are disjoint; the scratch holds their sums.
                    unsafe { compute(d, plan, kernels, first, g, copy, packed, span, buf.cast()) }
                });
                if let Err(e) = done {
                    *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
                }
            });
        }
    })?;
    match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

/// What all jobs share.
struct Plan<'a> {
    frame: Frame,
    offsets: &'a [isize],
    /// Inputs of an output: `cg * taps`.
    depth: usize,
    /// Output channels of a group in full vectors.
    kpad: usize,
    /// Output pixels of an image.
    pixels: usize,
}

/// Weights of each group as panels of `nr` channels (the last of one or two vectors), then the bias.
///
/// # Safety
/// `dst` holds `groups * kpad * (offsets + 1)` elements.
unsafe fn pack<T: Number>(d: &Direct<T>, plan: &Plan, kernels: &Kernels<T>, dst: *mut T) {
    let (depth, nr) = (plan.depth, kernels.nr);
    let panels = plan.kpad.div_ceil(nr);
    let shared = Shared((d, dst));
    pool::parallel(d.groups * panels, (d.groups * plan.kpad * depth) as u64, &|job| {
        let (d, dst) = shared.get();
        let (g, q) = (job / panels, job % panels);
        let k0 = q * nr;
        let (cols, width) = (nr.min(d.kg - k0), nr.min(plan.kpad - k0));
        let b = Mat { p: d.w.wrapping_add((g * d.kg + k0) * depth), rs: 1, cs: depth as isize };
        // SAFETY: the panel lies in the room for group g; `cols` channels exist.
        unsafe {
            let group = dst.add(g * plan.kpad * (depth + 1));
            pack_b(b, 0, depth, 0, cols, width, group.add(k0 * depth));
            for i in 0..width {
                let real = i < cols && !d.bias.is_null();
                let v = if real { *d.bias.add(g * d.kg + k0 + i) } else { T::ZERO };
                *group.add(plan.kpad * depth + k0 + i) = v;
            }
        }
    });
}

/// Output pixels `span` (counted through the images of the pass) of group `g`.
///
/// # Safety
/// As for [`run`]; `sums` holds the pixels of the span, `kpad` channels each.
unsafe fn compute<T: Number>(
    d: &Direct<T>,
    plan: &Plan,
    kernels: &Kernels<T>,
    first: usize,
    g: usize,
    copy: *const T,
    packed: *const T,
    span: std::ops::Range<usize>,
    sums: *mut T,
) {
    let (frame, kpad, depth) = (&plan.frame, plan.kpad, plan.depth);
    let line = d.step[0] * frame.row;
    let weights = packed.wrapping_add(g * kpad * (depth + 1));
    let blocks = depth.div_ceil(KC_BYTES / size_of::<T>()).max(1);
    let tiles = span.len().div_ceil(kernels.mr);
    for block in 0..blocks {
        let part = depth * block / blocks..depth * (block + 1) / blocks;
        for t in 0..tiles {
            let i0 = span.len() * t / tiles;
            let rows = span.len() * (t + 1) / tiles - i0;
            let mut at = [std::ptr::null::<T>(); MAX_MR];
            let (mut image, mut r, mut c) = {
                let j = span.start + i0;
                (j / plan.pixels, j % plan.pixels / d.ow, j % d.ow)
            };
            for a in at.iter_mut().take(rows) {
                *a = copy.wrapping_add(image * frame.image + g * d.cg * frame.plane + r * line + c);
                c += 1;
                if c == d.ow {
                    (r, c) = (r + 1, 0);
                    if r == d.oh {
                        (image, r) = (image + 1, 0);
                    }
                }
            }
            for k0 in (0..kpad).step_by(kernels.nr) {
                let width = kernels.nr.min(kpad - k0);
                let call = Pixels {
                    at,
                    offsets: &plan.offsets[part.start..part.end + AHEAD],
                    b: weights.wrapping_add(k0 * depth + part.start * width),
                    bs: width,
                    c: sums.wrapping_add(i0 * kpad + k0),
                    rsc: kpad,
                    add: block > 0,
                    bias: weights.wrapping_add(kpad * depth + k0),
                };
                // SAFETY: the pixels exist, the panel has `width` columns, the sums are ours.
                unsafe { kernels.pixels(rows, width)(&call) };
            }
        }
    }
    // SAFETY: the sums are complete; these pixels are ours alone.
    unsafe { store(d, plan, first, g, span, sums) }
}

/// Writes finished sums to the output.
///
/// # Safety
/// As for [`compute`].
unsafe fn store<T: Number>(
    d: &Direct<T>,
    plan: &Plan,
    first: usize,
    g: usize,
    span: std::ops::Range<usize>,
    sums: *const T,
) {
    let [sn, sk, sh, sw] = d.ys;
    let flat = d.oh == 1 || sh == sw * d.ow as isize;
    let mut j = span.start;
    while j < span.end {
        // A run of evenly spaced pixels: of an image if rows follow each other, else of a row.
        let (image, pixel) = (j / plan.pixels, j % plan.pixels);
        let (r, c) = (pixel / d.ow, pixel % d.ow);
        let run = if flat { plan.pixels - pixel } else { d.ow - c }.min(span.end - j);
        let src = sums.wrapping_add((j - span.start) * plan.kpad);
        let dst = d.y.wrapping_offset(
            (first + image) as isize * sn + (g * d.kg) as isize * sk + r as isize * sh + c as isize * sw,
        );
        // SAFETY: the run lies in the output.
        unsafe {
            if sw == 1 && sk >= 0 {
                transpose(src, plan.kpad, dst, sk as usize, run, d.kg);
            } else {
                for i in 0..run {
                    let (s, t) = (src.add(i * plan.kpad), dst.wrapping_offset(i as isize * sw));
                    if sk == 1 {
                        std::ptr::copy_nonoverlapping(s, t, d.kg);
                    } else {
                        for k in 0..d.kg {
                            *t.wrapping_offset(k as isize * sk) = *s.add(k);
                        }
                    }
                }
            }
        }
        j += run;
    }
}

/// Output rows of one job of [`shifted`].
const BAND: usize = 16;

/// Copies the weights with the taps outside: `dst[k][tap * cg + c] = w[k][c * taps + tap]`.
///
/// # Safety
/// `dst` holds as many weights as there are.
unsafe fn tap_by_tap<T: Number>(d: &Direct<T>, depth: usize, dst: *mut T) {
    for k in 0..d.groups * d.kg {
        // SAFETY: row k of both.
        unsafe {
            let taps = d.taps.len();
            transpose(d.w.add(k * depth), taps, dst.add(k * depth), d.cg, d.cg, taps)
        };
    }
}

/// Output rows `rows` of one image and group, along the rows of the padded image.
///
/// # Safety
/// As for [`run`]; `w` holds the weights tap by tap.
unsafe fn shifted<T: Number>(
    d: &Direct<T>,
    plan: &Plan,
    kernels: &Kernels<T>,
    n: usize,
    g: usize,
    src: *const T,
    w: *const T,
    rows: std::ops::Range<usize>,
) {
    let per_row = d.ow.div_ceil(kernels.lanes);
    let runs = rows.len() * per_row;
    let tiles = d.kg.div_ceil(kernels.mr.min(SHIFT_ROWS));
    let out = d.y.wrapping_offset(n as isize * d.ys[0] + (g * d.kg) as isize * d.ys[1]);
    let line = d.step[0] * plan.frame.row;
    // The taps that see a row of the image, not only padding, from output row r.
    let seen = |r: usize| {
        let inside = |t: &(isize, isize)| {
            let row = (r * d.step[0]) as isize + t.0;
            row >= 0 && row < d.x.h as isize
        };
        let from = d.taps.iter().position(inside).unwrap_or(0);
        from..d.taps.iter().rposition(inside).map_or(from, |t| t + 1)
    };
    for first in (0..runs).step_by(2) {
        let (mut base, mut to, mut len) = ([0isize; 2], [out; 2], [0; 2]);
        let mut taps = d.taps.len()..0;
        for v in 0..2 {
            // An odd last run is computed twice and stored once.
            let run = (first + v).min(runs - 1);
            let (r, c) = (rows.start + run / per_row, run % per_row * kernels.lanes);
            base[v] = (r * line + c) as isize;
            to[v] = out.wrapping_offset(r as isize * d.ys[2]).wrapping_add(c);
            len[v] = if first + v < runs { kernels.lanes.min(d.ow - c) } else { 0 };
            let range = seen(r);
            taps = taps.start.min(range.start)..taps.end.max(range.end);
        }
        let part = taps.start.min(taps.end) * d.cg..taps.end * d.cg;
        for t in 0..tiles {
            let k0 = d.kg * t / tiles;
            let count = d.kg * (t + 1) / tiles - k0;
            let k = g * d.kg + k0;
            let channel = d.ys[1];
            let row = |i: usize| w.wrapping_add((k + i.min(count - 1)) * plan.depth + part.start);
            let call = Shift {
                weights: std::array::from_fn(row),
                src,
                offsets: &plan.offsets[part.clone()],
                base,
                out: to.map(|p| p.wrapping_offset(k0 as isize * channel)),
                len,
                channel,
                bias: if d.bias.is_null() { d.bias } else { d.bias.wrapping_add(k) },
            };
            // SAFETY: `count` weight rows and output channels; runs lie in their rows.
            unsafe { kernels.shift[count - 1](&call) };
        }
    }
}

/// Few output channels and pixels that are not adjacent in the output: computes planes and spreads them.
///
/// # Safety
/// As for [`run`].
unsafe fn through_rows<T: Number>(d: &Direct<T>, kernels: &Kernels<T>) -> Result<(), OutOfMemory> {
    let (k, pixels) = (d.groups * d.kg, d.oh * d.ow);
    let floats = d.n.saturating_mul(k * pixels);
    super::first_error(pool::with_scratch(floats.saturating_mul(size_of::<T>()), |buf| {
        let y = buf.cast::<T>();
        let ys = [(k * pixels) as isize, pixels as isize, d.ow as isize, 1];
        // SAFETY: the scratch is an output like any other, with adjacent pixels.
        unsafe { run(&Direct { y, ys, ..*d }, kernels)? };
        let shared = Shared((d, y.cast_const()));
        pool::parallel(d.n * d.oh, floats as u64 / 2, &|job| {
            let (d, y) = shared.get();
            let (n, r) = (job / d.oh, job % d.oh);
            let [sn, sk, sh, sw] = d.ys;
            let src = y.wrapping_add(n * k * pixels + r * d.ow);
            let dst = d.y.wrapping_offset(n as isize * sn + r as isize * sh);
            // SAFETY: row r of image n on both sides.
            unsafe {
                if sk == 1 && sw >= 0 {
                    return transpose(src, pixels, dst, sw as usize, k, d.ow);
                }
                for c in 0..k {
                    for j in 0..d.ow {
                        let to = dst.wrapping_offset(c as isize * sk + j as isize * sw);
                        *to = *src.add(c * pixels + j);
                    }
                }
            }
        });
        Ok(())
    }))
}
