//! The forward kernel, which also computes input gradients: `y[k] = sum over (c, tap) of w[k][c, tap] * x`.
//!
//! An implicit GEMM: rows are output channels (weights are broadcast straight from their rows), columns
//! are output pixels, and a panel of up to `nr` pixels is gathered from the padded image into cache when
//! it is needed. No im2col matrix exists. Output pixels that are adjacent in memory are stored directly.

use std::mem::MaybeUninit;
use std::sync::Mutex;

use super::gather::{Gather, Segment};
use super::image::{Frame, Image, SLACK};
use super::shift::{SHIFT_ROWS, Shift};
use crate::alloc::OutOfMemory;
use crate::gemm::Shared;
use crate::gemm::kernel::{Activation, KernelScalar, Kernels, MAX_MR, MAX_NR, Tile};
use crate::pool;

/// Bytes of gathered panels a job works on: they stay in the second level cache.
const PANEL_BYTES: usize = 256 << 10;
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
pub unsafe fn run<T: KernelScalar>(d: &Direct<T>, kernels: &Kernels<T>) -> Result<(), OutOfMemory> {
    let pixels = d.oh * d.ow;
    if d.n == 0 || pixels == 0 || d.groups * d.kg == 0 {
        return Ok(());
    }
    let size = size_of::<T>();
    let frame = Frame::new(d.x.c, d.taps, d.step, d.oh, d.ow);
    let depth = d.cg * d.taps.len();
    let offsets: Vec<isize> =
        (0..d.cg).flat_map(|c| d.taps.iter().map(move |&t| frame.offset(c, t))).collect();
    let speed = if size == 4 { 40 } else { 20 };
    let lanes = kernels.lanes;
    // Cost in vectors: rows in place waste lanes at their ends, gathering takes time for each vector.
    let (loose, dense) = (d.oh * d.ow.div_ceil(lanes), pixels.div_ceil(lanes));
    let in_place = d.ys[3] == 1 && loose * d.kg <= dense * (d.kg + 7);
    let per_pass = (IMAGE_BYTES / (frame.image * size).max(1)).clamp(1, d.n);
    let (nr, panels) = (kernels.nr, pixels.div_ceil(kernels.nr));
    let mut group = (PANEL_BYTES / (depth * nr * size).max(1)).clamp(1, panels);
    // Enough jobs for all threads, or the last one is waited for.
    let wanted = 4 * pool::num_threads();
    while group > 1 && per_pass * d.groups * panels.div_ceil(group) < wanted {
        group = group.div_ceil(2);
    }
    let sets = panels.div_ceil(group);
    let macs = |images: usize| (images * d.groups * d.kg * pixels) as u64 * (depth as u64 + 4);
    let bytes = (per_pass * frame.image + SLACK) * size;
    let failed = Mutex::new(None);
    pool::with_scratch(bytes, |buf| {
        let copy = buf.cast::<T>();
        for first in (0..d.n).step_by(per_pass) {
            let images = per_pass.min(d.n - first);
            // SAFETY: the scratch holds the images and the slack.
            unsafe { frame.fill(&d.x, first, images, copy) };
            let shared = Shared((d, copy.cast_const()));
            let offsets = &offsets;
            if in_place {
                let bands = d.oh.div_ceil(BAND);
                pool::parallel(images * d.groups * bands, macs(images) / speed, &|job| {
                    let (d, copy) = shared.get();
                    let (image, rest) = (job / (d.groups * bands), job % (d.groups * bands));
                    let (g, band) = (rest / bands, rest % bands);
                    let src = copy.wrapping_add(image * frame.image + g * d.cg * frame.plane);
                    let rows = band * BAND..((band + 1) * BAND).min(d.oh);
                    // SAFETY: bands of rows are disjoint; the padded image has slack behind it.
                    unsafe { shifted(d, kernels, &frame, offsets, first + image, g, src, rows) }
                });
                continue;
            }
            pool::parallel(images * d.groups * sets, macs(images) / speed, &|job| {
                let (d, copy) = shared.get();
                let (image, rest) = (job / (d.groups * sets), job % (d.groups * sets));
                let (g, set) = (rest / sets, rest % sets);
                let part = Part {
                    n: first + image,
                    g,
                    src: copy.wrapping_add(image * frame.image + g * d.cg * frame.plane),
                    panels: set * group..((set + 1) * group).min(panels),
                };
                let bytes = (group * depth * nr + SLACK) * size;
                let done = pool::with_scratch(bytes, |buf| {
                    // SAFETY: parts write disjoint pixels; the scratch holds the panels.
                    unsafe { compute(d, kernels, &frame, offsets, &part, buf.cast()) }
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

/// Output rows of one job of [`shifted`].
const BAND: usize = 16;

/// Output rows `rows` of one image and group, read from the padded image in place.
///
/// # Safety
/// As for [`run`].
unsafe fn shifted<T: KernelScalar>(
    d: &Direct<T>,
    kernels: &Kernels<T>,
    frame: &Frame,
    offsets: &[isize],
    n: usize,
    g: usize,
    src: *const T,
    rows: std::ops::Range<usize>,
) {
    let per_row = d.ow.div_ceil(kernels.lanes);
    let runs = rows.len() * per_row;
    let tiles = d.kg.div_ceil(kernels.mr.min(SHIFT_ROWS));
    let out = d.y.wrapping_offset(n as isize * d.ys[0] + (g * d.kg) as isize * d.ys[1]);
    let line = d.step[0] * frame.row;
    for first in (0..runs).step_by(2) {
        let (mut base, mut to, mut len) = ([0isize; 2], [out; 2], [0; 2]);
        for v in 0..2 {
            // An odd last run is computed twice and stored once.
            let run = (first + v).min(runs - 1);
            let (r, c) = (rows.start + run / per_row, run % per_row * kernels.lanes);
            base[v] = (r * line + c) as isize;
            to[v] = out.wrapping_offset(r as isize * d.ys[2]).wrapping_add(c);
            len[v] = if first + v < runs { kernels.lanes.min(d.ow - c) } else { 0 };
        }
        for t in 0..tiles {
            let k0 = d.kg * t / tiles;
            let count = d.kg * (t + 1) / tiles - k0;
            let k = g * d.kg + k0;
            let channel = d.ys[1];
            let call = Shift {
                weights: std::array::from_fn(|i| d.w.wrapping_add((k + i.min(count - 1)) * offsets.len())),
                src,
                offsets,
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

/// Some panels of one image and group.
struct Part<T> {
    n: usize,
    g: usize,
    src: *const T,
    panels: std::ops::Range<usize>,
}

/// # Safety
/// As for [`run`]; `buf` holds the panels of the part and a vector more.
unsafe fn compute<T: KernelScalar>(
    d: &Direct<T>,
    kernels: &Kernels<T>,
    frame: &Frame,
    offsets: &[isize],
    part: &Part<T>,
    buf: *mut T,
) {
    let (nr, pixels, depth) = (kernels.nr, d.oh * d.ow, offsets.len());
    let line = (d.step[0] * frame.row) as isize;
    for (q, panel) in part.panels.clone().enumerate() {
        let mut segments = [Segment::default(); MAX_NR];
        let count = segment(panel * nr, nr, d.oh, d.ow, line, &mut segments);
        // SAFETY: segments lie in the padded image; beyond it there is slack.
        unsafe {
            (kernels.gather)(&Gather {
                src: part.src,
                offsets,
                segments: &segments[..count],
                dst: buf.add(q * depth * nr),
                nr,
            })
        };
    }
    let [sn, sk, sh, sw] = d.ys;
    let adjacent = sw == 1 && (d.oh == 1 || sh == d.ow as isize);
    let mut temp = [const { MaybeUninit::<T>::uninit() }; MAX_MR * MAX_NR];
    let temp = temp.as_mut_ptr().cast::<T>();
    let tiles = d.kg.div_ceil(kernels.mr);
    for t in 0..tiles {
        let k0 = d.kg * t / tiles;
        let rows = d.kg * (t + 1) / tiles - k0;
        let k0 = part.g * d.kg + k0;
        let mut ptrs = [std::ptr::null::<T>(); MAX_MR];
        for i in 0..rows {
            ptrs[i] = d.w.wrapping_add((k0 + i) * depth);
        }
        let bias = if d.bias.is_null() { d.bias } else { d.bias.wrapping_add(k0) };
        for (q, panel) in part.panels.clone().enumerate() {
            let j0 = panel * nr;
            let cols = nr.min(pixels - j0);
            let y = d.y.wrapping_offset(part.n as isize * sn + k0 as isize * sk);
            let tile = Tile {
                rows: ptrs.as_ptr(),
                tap_step: 0,
                tap_add: 0,
                taps: 1,
                depth,
                csa: 1,
                // SAFETY: panel q was gathered above.
                b: unsafe { buf.add(q * depth * nr) },
                bs: nr as isize,
                c: if adjacent { y.wrapping_add(j0) } else { temp },
                rsc: if adjacent { sk } else { nr as isize },
                n: if adjacent { cols } else { nr },
                alpha: T::ONE,
                beta: T::ZERO,
                bias_n: std::ptr::null(),
                bias_m: bias,
                act: Activation::None,
            };
            // SAFETY: rows of weights, panel and output are as the tile says; these outputs are ours alone.
            unsafe {
                kernels.tile(rows, cols)(&tile);
                if !adjacent {
                    for j in 0..cols {
                        let (oh, ow) = ((j0 + j) / d.ow, (j0 + j) % d.ow);
                        let y = y.wrapping_offset(oh as isize * sh + ow as isize * sw);
                        for i in 0..rows {
                            *y.wrapping_offset(i as isize * sk) = *temp.add(i * nr + j);
                        }
                    }
                }
            }
        }
    }
}

/// The runs of output pixels `j0 .. j0 + nr` by output row; returns their number. The last one is
/// stretched to fill the panel, so that every lane holds a number.
fn segment(j0: usize, nr: usize, oh: usize, ow: usize, line: isize, out: &mut [Segment; MAX_NR]) -> usize {
    let end = (j0 + nr).min(oh * ow);
    let (mut j, mut count) = (j0, 0);
    while j < end {
        let (r, c) = (j / ow, j % ow);
        let len = (ow - c).min(end - j);
        out[count] = Segment { src: r as isize * line + c as isize, dst: j - j0, len };
        count += 1;
        j += len;
    }
    out[count - 1].len = nr - out[count - 1].dst;
    count
}
