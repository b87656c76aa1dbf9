//! `grid_sample` with the channels of a pixel side by side: blocks of channels are transposed first, so that a
//! tap is one load of a block instead of one of each plane.

use super::taps::{Tile, per_axis};
use super::{Setup, TILE};
use crate::gemm::transpose::transpose;
use crate::oom;
use crate::pool::{chunks, parallel, with_scratch};
use crate::real::{Failure, Real};
use crate::simd::{Arch, ArchKernel, dispatch};
use crate::strided::Ptr;
use pyrite_core::Result;

/// Bytes of transposed images that are held at a time, unless one sample has more.
const HELD: usize = 32 << 20;

/// The channels of a block. Two widths, since each is compiled for every instruction set and dtype.
fn width(c: usize) -> usize {
    if c <= 8 { 4 } else { 16 }
}

/// Is transposing worth it? It moves each pixel once, and saves most of the loads of every position.
pub(super) fn suits<const D: usize>(s: &Setup<D>) -> bool {
    let taps = per_axis(s.mode).pow(D as u32);
    s.c >= if taps == 1 { 8 } else { 3 } && s.points * taps >= s.image
}

/// The arrays of one call: image, positions, and what is read or written at positions.
#[derive(Clone, Copy)]
pub(super) struct Data<T> {
    pub x: Ptr<T>,
    pub grid: Ptr<T>,
    /// The output, or its gradient.
    pub y: Ptr<T>,
    /// The gradient that is written, if one is.
    pub out: Ptr<T>,
}

/// `y`, or the gradient of the grid from that of `y`.
pub(super) fn by_tiles<T: Real, const D: usize>(s: &Setup<D>, d: Data<T>, forward: bool) -> Result<()> {
    let block = width(s.c);
    let blocks = s.c.div_ceil(block);
    // A pixel of zeros behind the last one stands for everything outside.
    let plane = (s.image + 1) * block;
    let sample = blocks * plane;
    let samples = (HELD / (sample * size_of::<T>())).clamp(1, s.n);
    let tiles = s.points.div_ceil(TILE);
    let done = with_scratch(samples * sample * size_of::<T>(), |held| {
        let held = Ptr(held.cast::<T>());
        for first in (0..s.n).step_by(samples) {
            let count = samples.min(s.n - first);
            let (parts, each) = chunks(s.image, 256);
            parallel(count * blocks * parts, (count * s.c * s.image / 4) as u64, &|q| {
                let (n, b, part) = (q / parts / blocks, q / parts % blocks, q % parts);
                let (from, to) = (part * each, s.image.min((part + 1) * each));
                // SAFETY: this part's pixels of this block, in the scratch of `count` samples and in the image.
                unsafe {
                    let plane = held.get().add((n * blocks + b) * plane);
                    let src = d.x.get().add(((first + n) * s.c + b * block) * s.image + from).cast_const();
                    let dst = plane.add(from * block);
                    let channels = block.min(s.c - b * block);
                    if channels < block {
                        std::slice::from_raw_parts_mut(dst, (to - from) * block).fill(T::default());
                    }
                    transpose(src, s.image, dst, block, channels, to - from);
                    if part + 1 == parts {
                        std::slice::from_raw_parts_mut(plane.add(s.image * block), block).fill(T::default());
                    }
                }
            });
            let total = count * tiles;
            let (jobs, each) = chunks(total, (128 / (s.c + 4)).max(1));
            let work = (count * s.points * (8 + s.c)) as u64;
            parallel(jobs, work, &|q| {
                let range = (q * each, total.min((q + 1) * each));
                let pass = if forward { Pass::Forward } else { Pass::Grid };
                dispatch(Tiles { s, d, held, first, range, width: block, pass });
            });
        }
    });
    done.map_err(oom)
}

struct Tiles<'a, T, const D: usize> {
    s: &'a Setup<D>,
    d: Data<T>,
    /// The transposed images, from sample `first` on; or the gradient of a block of one, with zeros at first.
    held: Ptr<T>,
    first: usize,
    /// Tiles from, to; counted from sample `first` on.
    range: (usize, usize),
    /// Channels of a block.
    width: usize,
    pass: Pass,
}

#[derive(Clone, Copy)]
enum Pass {
    Forward,
    Grid,
    /// The gradient of the block of channels that starts here.
    Image(usize),
}

impl<T: Real, const D: usize> ArchKernel for Tiles<'_, T, D> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let (s, c) = (self.s, self.width);
        let plane = (s.image + 1) * c;
        let tiles = s.points.div_ceil(TILE);
        let mut tile = Tile::<T, D>::new(s.mode);
        let mut values = [T::default(); TILE * 16];
        let mut product = vec![T::default(); tile.taps * TILE];
        let all = s.c.div_ceil(c);
        let blocks = match self.pass {
            Pass::Image(channel) => channel / c..channel / c + 1,
            _ => 0..all,
        };
        for q in self.range.0..self.range.1 {
            let (n, p) = (q / tiles, q % tiles * TILE);
            let m = TILE.min(s.points - p);
            let sample = self.first + n;
            // SAFETY: `typed` checked that the arrays have these sizes; the scratch holds a plane per block (or the
            // one plane of the image's gradient); this tile's stretches of y and of the grid's gradient, and the
            // plane of a gradient, are written by this job alone.
            unsafe {
                let coords = self.d.grid.get().add((sample * s.points + p) * D).cast_const();
                tile.fill(s, std::slice::from_raw_parts(coords, m * D));
                tile.close(s.image);
                product.fill(T::default());
                for b in blocks.clone() {
                    let y = self.d.y.get().add((sample * s.c + b * c) * s.points + p);
                    let channels = c.min(s.c - b * c);
                    let side = values.as_mut_ptr();
                    let held = match self.pass {
                        Pass::Image(_) => self.held.get(),
                        _ => self.held.get().add((n * all + b) * plane),
                    };
                    if let Pass::Forward = self.pass {
                        let image = std::slice::from_raw_parts(held.cast_const(), plane);
                        match (c, tile.taps) {
                            (4, 1) => read::<T, D, 4, 1>(&tile, image, &mut values, m),
                            (4, _) => read::<T, D, 4, 4>(&tile, image, &mut values, m),
                            (_, 1) => read::<T, D, 16, 1>(&tile, image, &mut values, m),
                            _ => read::<T, D, 16, 4>(&tile, image, &mut values, m),
                        }
                        transpose(side.cast_const(), c, y, s.points, m, channels);
                        continue;
                    }
                    transpose(y.cast_const(), s.points, side, c, channels, m);
                    let image = std::slice::from_raw_parts_mut(held, plane);
                    match (self.pass, c) {
                        (Pass::Image(_), 4) => add::<T, D, 4>(&tile, image, &values, m),
                        (Pass::Image(_), _) => add::<T, D, 16>(&tile, image, &values, m),
                        (_, 4) => multiply::<T, D, 4>(&tile, image, &values, m, &mut product),
                        _ => multiply::<T, D, 16>(&tile, image, &values, m, &mut product),
                    }
                }
                if let Pass::Grid = self.pass {
                    let out = self.d.out.get().add((sample * s.points + p) * D);
                    tile.slope(&product, std::slice::from_raw_parts_mut(out, m * D));
                }
            }
        }
    }
}

/// The C channels of a pixel, or of a position.
///
/// # Safety
/// `v` holds C numbers for i, and the ones before it.
#[inline(always)]
unsafe fn pixel<T, const C: usize>(v: &[T], i: usize) -> &[T; C] {
    debug_assert!((i + 1) * C <= v.len());
    // SAFETY: the caller's promise.
    unsafe { &*v.as_ptr().add(i * C).cast::<[T; C]>() }
}

/// `values[p] = sum of weight * pixel` over the taps of position p, K at a time.
///
/// # Safety
/// `image` has a pixel for each index of the tile, which has a multiple of K taps.
#[inline(always)]
unsafe fn read<T: Real, const D: usize, const C: usize, const K: usize>(
    tile: &Tile<T, D>,
    image: &[T],
    values: &mut [T; TILE * 16],
    m: usize,
) {
    for (p, value) in values.chunks_exact_mut(C).enumerate().take(m) {
        let mut sum = [T::default(); C];
        for first in (0..tile.taps).step_by(K) {
            for k in first..first + K {
                let at = k * TILE + p;
                // SAFETY: the caller's promise.
                let (w, x) = unsafe {
                    let i = *tile.index.get_unchecked(at) as usize;
                    (*tile.weight.get_unchecked(at), pixel::<T, C>(image, i))
                };
                for (s, v) in sum.iter_mut().zip(x) {
                    *s += w * *v;
                }
            }
        }
        value.copy_from_slice(&sum);
    }
}

/// Adds `values[p] . pixel` for each tap to `product`; nothing for taps outside.
///
/// # Safety
/// `image` has a pixel for each index of the tile.
#[inline(always)]
unsafe fn multiply<T: Real, const D: usize, const C: usize>(
    tile: &Tile<T, D>,
    image: &[T],
    values: &[T; TILE * 16],
    m: usize,
    product: &mut [T],
) {
    let outside = image.len() / C - 1;
    for (p, value) in values.chunks_exact(C).enumerate().take(m) {
        for k in 0..tile.taps {
            let at = k * TILE + p;
            let i = tile.index[at] as usize;
            if i == outside {
                continue;
            }
            // SAFETY: the caller's promise.
            let x = unsafe { pixel::<T, C>(image, i) };
            // Halves folded onto each other.
            let mut each = [T::default(); C];
            for ((e, v), x) in each.iter_mut().zip(value).zip(x) {
                *e = *v * *x;
            }
            let mut w = C / 2;
            while w > 0 {
                for l in 0..w {
                    each[l] += each[l + w];
                }
                w /= 2;
            }
            product[at] += each[0];
        }
    }
}

/// Adds `weight * values[p]` to the pixel of each tap.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn add<T: Real, const D: usize, const C: usize>(
    tile: &Tile<T, D>,
    image: &mut [T],
    values: &[T; TILE * 16],
    m: usize,
) {
    for (p, value) in values.chunks_exact(C).enumerate().take(m) {
        for k in 0..tile.taps {
            let at = k * TILE + p;
            let (w, i) = (tile.weight[at], tile.index[at] as usize);
            debug_assert!((i + 1) * C <= image.len());
            // SAFETY: the caller's promise.
            let x = unsafe { &mut *image.as_mut_ptr().add(i * C).cast::<[T; C]>() };
            for (x, v) in x.iter_mut().zip(value) {
                *x += w * *v;
            }
        }
    }
}

/// The gradient of the image into `out`: a block of channels of a sample per job, so that every sum has one order.
pub(super) fn image<T: Real, const D: usize>(s: &Setup<D>, d: Data<T>) -> Result<()> {
    // Narrower blocks where there would be too few jobs.
    let block = if s.n * s.c.div_ceil(16) < 4 { 4 } else { width(s.c) };
    let blocks = s.c.div_ceil(block);
    let failure = Failure::default();
    let work = (s.n * (s.points * (8 + s.c) + s.image * s.c / 2)) as u64;
    parallel(s.n * blocks, work, &|q| {
        let (first, channel) = (q / blocks, q % blocks * block);
        let len = (s.image + 1) * block;
        let done = with_scratch(len * size_of::<T>(), |held| {
            let held = Ptr(held.cast::<T>());
            // SAFETY: the scratch of this job, as long as this.
            unsafe { std::slice::from_raw_parts_mut(held.get(), len) }.fill(T::default());
            let range = (0, s.points.div_ceil(TILE));
            dispatch(Tiles { s, d, held, first, range, width: block, pass: Pass::Image(channel) });
            // SAFETY: these planes of the gradient, which only this job writes.
            unsafe {
                let out = d.out.get().add((first * s.c + channel) * s.image);
                transpose(held.get().cast_const(), block, out, s.image, s.image, block.min(s.c - channel));
            }
        });
        if let Err(e) = done {
            failure.set(oom(e));
        }
    });
    failure.result()
}
