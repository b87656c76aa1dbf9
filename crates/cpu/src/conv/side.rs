//! Images side by side: 32 images (two vectors) interleaved, so that lanes are images.
//!
//! No lane is lost at the end of a short row, and taps that see only padding are skipped for columns as
//! well as rows. Pays where channels are few and rows short, for the price of transposing both sides. The
//! kernels are those of `shift.rs`: a "row" is then a row of pixels times the images.

use super::direct::Direct;
use super::dweight::Weight;
use super::image::{Frame, Image};
use super::shift::{CROSS_ROWS, Cross, SHIFT_ROWS, Shift};
use super::{Number, first_error};
use crate::alloc::OutOfMemory;
use crate::gemm::Shared;
use crate::gemm::kernel::Kernels;
use crate::gemm::transpose::transpose;
use crate::pool;

/// Elements of one group of images: more would not stay in the cache.
const GROUP_ELEMENTS: usize = 192 << 10;

/// Dense rows that follow each other, images in ascending order.
fn dense(strides: [isize; 4], h: usize, w: usize) -> bool {
    strides[3] == 1 && (h == 1 || strides[2] == w as isize) && strides[0] >= 0
}

/// How many times more images are computed than there are.
fn filled(n: usize, group: usize) -> f64 {
    (n.div_ceil(group) * group) as f64 / n as f64
}

/// For every output position along an axis: the taps (first, end) that see the image.
fn seen(taps: &[isize], step: usize, out: usize, size: usize) -> Vec<(usize, usize)> {
    (0..out)
        .map(|o| {
            let inside = |t: &isize| (0..size as isize).contains(&((o * step) as isize + t));
            let from = taps.iter().position(inside).unwrap_or(0);
            (from, taps.iter().rposition(inside).map_or(from, |t| t + 1))
        })
        .collect()
}

/// The taps as a grid: offsets of rows and of columns; `None` if they are not one (row by row).
fn grid(taps: &[(isize, isize)]) -> Option<(Vec<isize>, Vec<isize>)> {
    let first = taps.first()?.0;
    let cols: Vec<isize> = taps.iter().take_while(|t| t.0 == first).map(|t| t.1).collect();
    let rows: Vec<isize> = taps.iter().step_by(cols.len()).map(|t| t.0).collect();
    let same = |(i, t): (usize, &(isize, isize))| {
        rows.get(i / cols.len()) == Some(&t.0) && cols.get(i % cols.len()) == Some(&t.1)
    };
    taps.iter().enumerate().all(same).then_some((rows, cols))
}

/// Interleaves images `first .. first + count` of `x`, `group` of them: element (c, row, column) of image i
/// goes to `dst[frame offset * group + i]`.
///
/// # Safety
/// The images are readable with dense rows, `dst` holds `frame.image * group` elements.
unsafe fn fill<T: Number>(
    frame: &Frame,
    x: &Image<T>,
    first: usize,
    count: usize,
    group: usize,
    dst: *mut T,
) {
    let time = (frame.image * group) as u64 / 4;
    let shared = Shared((x, dst));
    pool::parallel(x.c, time, &|c| {
        let (x, dst) = shared.get();
        let window = frame.window(x.h, x.w);
        let plane = dst.wrapping_add(c * frame.plane * group);
        let src = x.p.wrapping_offset(first as isize * x.strides[0] + c as isize * x.strides[1]);
        let lds = x.strides[0] as usize;
        // SAFETY: the window lies in the image and in the plane, which is this job's alone.
        unsafe {
            if count < group || !window.whole {
                for i in 0..frame.plane * group {
                    *plane.add(i) = T::ZERO;
                }
            }
            let (rows, cols) = (window.rows, window.cols);
            if window.whole && cols.len() == x.w {
                let src = src.add(rows.start * x.w);
                return transpose(src, lds, plane, group, count, rows.len() * x.w);
            }
            for r in rows {
                let to = plane.add(frame.at(r, cols.start) * group);
                transpose(src.add(r * x.w + cols.start), lds, to, group, count, cols.len());
            }
        }
    });
}

/// Is this way faster than the `vectors` multiplications per image that the others take?
pub fn suits<T: Number>(d: &Direct<T>, frame: &Frame, lanes: usize, vectors: usize) -> bool {
    let group = 2 * lanes;
    if d.groups != 1
        || d.step != [1, 1]
        || !dense(d.x.strides, d.x.h, d.x.w)
        || !dense(d.ys, d.oh, d.ow)
        || frame.image.max(d.kg * d.oh * d.ow) * group > GROUP_ELEMENTS
    {
        return false;
    }
    let Some((rows, cols)) = grid(d.taps) else { return false };
    let count = |taps: &[isize], out, size| seen(taps, 1, out, size).iter().map(|s| s.1 - s.0).sum::<usize>();
    let products = count(&rows, d.oh, d.x.h) * count(&cols, d.ow, d.x.w) * d.cg * d.kg / lanes;
    let moves = (frame.image + d.kg * d.oh * d.ow) / 2;
    (products + moves) as f64 * filled(d.n, group) * 1.2 < vectors as f64
}

/// Taps in the order (row, column, channel) for one range of tap columns, with the weights.
struct Class<T> {
    cols: (usize, usize),
    offsets: Vec<isize>,
    weights: Vec<T>,
}

/// The convolution, given that it [`suits`].
///
/// # Safety
/// As for [`super::direct::run`].
pub unsafe fn run<T: Number>(d: &Direct<T>, frame: &Frame, kernels: &Kernels<T>) -> Result<(), OutOfMemory> {
    let (lanes, group) = (kernels.lanes, 2 * kernels.lanes);
    let Some((rows, cols)) = grid(d.taps) else { return Ok(()) };
    let (seen_rows, seen_cols) = (seen(&rows, 1, d.oh, d.x.h), seen(&cols, 1, d.ow, d.x.w));
    let mut classes: Vec<Class<T>> = Vec::new();
    let mut class_of = Vec::with_capacity(d.ow);
    for &range in &seen_cols {
        let known = classes.iter().position(|c| c.cols == range);
        class_of.push(known.unwrap_or(classes.len()));
        if known.is_some() {
            continue;
        }
        let mut entries = Vec::new();
        for r in 0..rows.len() {
            for s in range.0..range.1 {
                entries.extend((0..d.cg).map(|c| (c, r * cols.len() + s)));
            }
        }
        let offset = |&(c, tap): &(usize, usize)| frame.offset(c, d.taps[tap]) * group as isize;
        let weight = |k: usize, &(c, tap): &(usize, usize)| {
            // SAFETY: output channel k, input channel c and tap are below their counts.
            unsafe { *d.w.add((k * d.cg + c) * d.taps.len() + tap) }
        };
        classes.push(Class {
            cols: range,
            offsets: entries.iter().map(offset).collect(),
            weights: (0..d.kg).flat_map(|k| entries.iter().map(move |e| weight(k, e))).collect(),
        });
    }
    // Jobs: an output row each, of one group of images.
    let tiles = d.kg.div_ceil(kernels.mr.min(SHIFT_ROWS));
    let size = size_of::<T>();
    let failed = std::sync::Mutex::new(None);
    let time = (d.oh * d.ow * d.kg * group / 4) as u64 * (d.cg * d.taps.len()) as u64 / 10;
    let (classes, class_of, seen_rows) = (&classes, &class_of, &seen_rows);
    pool::with_scratch(frame.image * group * size, |buf| {
        let x = buf.cast::<T>();
        for first in (0..d.n).step_by(group) {
            let count = group.min(d.n - first);
            // SAFETY: the scratch holds one group of images.
            unsafe { fill(frame, &d.x, first, count, group, x) };
            let shared = Shared((d, x.cast_const(), classes));
            pool::parallel(d.oh, time, &|r| {
                let (d, x, classes) = shared.get();
                let done = pool::with_scratch(d.kg * d.ow * group * size, |buf| {
                    let sums = buf.cast::<T>();
                    let channel = d.ow * group;
                    for (j, &class) in class_of.iter().enumerate() {
                        let class: &Class<T> = &classes[class];
                        let per_row = (class.cols.1 - class.cols.0) * d.cg;
                        let part = seen_rows[r].0 * per_row..seen_rows[r].1 * per_row;
                        let depth = class.offsets.len();
                        let base = ((r * frame.row + j) * group) as isize;
                        for t in 0..tiles {
                            let k0 = d.kg * t / tiles;
                            let rows = d.kg * (t + 1) / tiles - k0;
                            let at = |i: usize| (k0 + i.min(rows - 1)) * depth + part.start;
                            let out = sums.wrapping_add(k0 * channel + j * group);
                            let call = Shift {
                                weights: std::array::from_fn(|i| class.weights.as_ptr().wrapping_add(at(i))),
                                src: x,
                                offsets: &class.offsets[part.clone()],
                                base: [base, base + lanes as isize],
                                out: [out, out.wrapping_add(lanes)],
                                len: [lanes; 2],
                                channel: channel as isize,
                                bias: if d.bias.is_null() { d.bias } else { d.bias.wrapping_add(k0) },
                            };
                            // SAFETY: weights, offsets and images are as the call says; the sums are ours.
                            unsafe { kernels.shift[rows - 1](&call) };
                        }
                    }
                    let [sn, sk, sh, _] = d.ys;
                    let y = d.y.wrapping_offset(first as isize * sn + r as isize * sh);
                    for k in 0..d.kg {
                        let (from, to) = (sums.wrapping_add(k * channel), y.wrapping_offset(k as isize * sk));
                        // SAFETY: row r of channel k of `count` images, which is this job's alone.
                        unsafe { transpose(from, group, to, sn as usize, d.ow, count) };
                    }
                });
                if let Err(e) = done {
                    *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
                }
            });
        }
    })?;
    failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

/// As [`suits`], for the weight gradient; `vectors` multiplications per image otherwise.
pub fn suits_weight<T: Number>(d: &Weight<T>, frame: &Frame, lanes: usize, vectors: usize) -> bool {
    let group = lanes;
    let (oh, ow) = (d.dy.h, d.dy.w);
    d.groups == 1
        && d.step == [1, 1]
        && dense(d.x.strides, d.x.h, d.x.w)
        && dense(d.dy.strides, oh, ow)
        && frame.image.max(d.kg * oh * ow) * group <= GROUP_ELEMENTS
        && {
            let products = d.cg * d.taps.len() * d.kg * oh * ow / lanes;
            let moves = (frame.image + d.kg * oh * ow) / 2;
            (products + moves) as f64 * filled(d.n, group) * 0.5 < vectors as f64
        }
}

/// `sums[(c, tap)][k]`, rows of `kpad`, given that it [`suits_weight`]: groups of images in order.
///
/// # Safety
/// The pointers cover the sizes; `sums` holds zeros.
pub unsafe fn weight<T: Number>(
    d: &Weight<T>,
    frame: &Frame,
    offsets: &[isize],
    kernels: &Kernels<T>,
    kpad: usize,
    sums: *mut T,
) -> Result<(), OutOfMemory> {
    // One vector of images: gradients of a tile and the rows they meet stay in the first cache.
    let group = kernels.lanes;
    let (oh, ow) = (d.dy.h, d.dy.w);
    let kg = d.kg;
    let plain = Frame::new(kg, &[(0, 0)], [1, 1], oh, ow);
    let depth = offsets.len();
    let tiles = depth.div_ceil(kernels.cross_width);
    let parts = d.kg.div_ceil(CROSS_ROWS);
    let time = (depth * d.kg * oh * ow * group) as u64 / 40;
    let floats = (frame.image + plain.image) * group;
    first_error(pool::with_scratch(floats * size_of::<T>(), |buf| {
        let x = buf.cast::<T>();
        let dy = x.wrapping_add(frame.image * group);
        for first in (0..d.n).step_by(group) {
            let count = group.min(d.n - first);
            // SAFETY: the scratch holds one group of images and of gradients.
            unsafe {
                fill(frame, &d.x, first, count, group, x);
                fill(&plain, &d.dy, first, count, group, dy);
            }
            let shared = Shared((x.cast_const(), dy.cast_const(), sums));
            pool::parallel(tiles * parts, time, &|job| {
                let (x, dy, sums) = shared.get();
                // Neighbouring jobs read the same gradients.
                let (part, t) = (job / tiles, job % tiles);
                let (k0, k1) = (kg * part / parts, kg * (part + 1) / parts);
                let p0 = depth * t / tiles;
                let count = depth * (t + 1) / tiles - p0;
                let (line, pixels) = ((ow * group) as isize, (oh * ow * group) as isize);
                let call = Cross {
                    images: 1,
                    dy: dy.wrapping_offset(k0 as isize * pixels),
                    dy_strides: [0, pixels, line],
                    x,
                    x_strides: [0, (frame.row * group) as isize],
                    offsets: std::array::from_fn(|i| offsets[p0 + i.min(count - 1)] * group as isize),
                    oh,
                    ow: ow * group,
                    out: sums.wrapping_add(p0 * kpad + k0),
                    ldo: kpad,
                    count,
                };
                // SAFETY: the channels and offsets exist; these sums are this job's alone.
                unsafe { kernels.cross[k1 - k0 - 1](&call) };
            });
        }
        Ok(())
    }))
}
