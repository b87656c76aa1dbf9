//! `grid_sample` on images as they lie, plane by plane: for few channels, or few positions.

use super::taps::Tile;
use super::{Pass, Setup, TILE};
use crate::real::Real;
use crate::simd::{Arch, ArchKernel};
use crate::strided::Ptr;

pub(super) struct Job<'a, T, const D: usize> {
    pub s: &'a Setup<D>,
    pub what: Pass,
    pub x: Ptr<T>,
    pub grid: Ptr<T>,
    /// The output, or its gradient.
    pub y: Ptr<T>,
    pub out: Ptr<T>,
    /// Tiles from, to (counted over samples), or the sample.
    pub range: (usize, usize),
}

/// The image at all positions of a tile.
#[inline(always)]
fn weighted<T: Real, const D: usize>(t: &Tile<T, D>, image: &[T], y: &mut [T]) {
    let mut sum = [T::default(); TILE];
    for k in 0..t.taps {
        let (Some(index), Some(weight)) =
            (t.index[k * TILE..].first_chunk::<TILE>(), t.weight[k * TILE..].first_chunk::<TILE>())
        else {
            return;
        };
        // Read always, counted if inside: no branch on scattered positions, and a pixel that is no number does
        // not leak into them. First all loads, so that the rest is a vector's.
        let mut value = [T::default(); TILE];
        for p in 0..TILE {
            // SAFETY: `fill` makes indices of pixels or -1, and an image has a pixel.
            value[p] = unsafe { *image.get_unchecked(index[p].max(0) as usize) };
        }
        for p in 0..TILE {
            sum[p] += if index[p] >= 0 { weight[p] * value[p] } else { T::default() };
        }
    }
    y.copy_from_slice(&sum[..y.len()]);
}

impl<T: Real, const D: usize> ArchKernel for Job<'_, T, D> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let s = self.s;
        let mut tile = Tile::<T, D>::new(s.mode);
        let tiles = s.points.div_ceil(TILE);
        // SAFETY: `typed` checked that the arrays are contiguous with these sizes.
        let plane = |n: usize, c: usize| unsafe {
            std::slice::from_raw_parts(self.x.get().add((n * s.c + c) * s.image).cast_const(), s.image)
        };
        // SAFETY: as for `plane`.
        let coords = |n: usize, p: usize, m: usize| unsafe {
            std::slice::from_raw_parts(self.grid.get().add((n * s.points + p) * D).cast_const(), m * D)
        };
        // SAFETY: as for `plane`.
        let values = |n: usize, c: usize, p: usize, m: usize| unsafe {
            std::slice::from_raw_parts(self.y.get().add((n * s.c + c) * s.points + p).cast_const(), m)
        };
        if let Pass::Image(from, to) = self.what {
            let n = self.range.0;
            // SAFETY: planes `from..to` of sample n, which only this job writes.
            let all = unsafe {
                let start = self.out.get().add((n * s.c + from) * s.image);
                std::slice::from_raw_parts_mut(start, (to - from) * s.image)
            };
            all.fill(T::default());
            for p in (0..s.points).step_by(TILE) {
                let m = TILE.min(s.points - p);
                tile.fill(s, coords(n, p, m));
                for c in from..to {
                    let dx = &mut all[(c - from) * s.image..][..s.image];
                    let dy = values(n, c, p, m);
                    for tap in 0..tile.taps {
                        let (index, weight) =
                            (&tile.index[tap * TILE..][..m], &tile.weight[tap * TILE..][..m]);
                        for ((i, w), g) in index.iter().zip(weight).zip(dy) {
                            if *i >= 0 {
                                dx[*i as usize] += *w * *g;
                            }
                        }
                    }
                }
            }
            return;
        }
        let mut product = vec![T::default(); tile.taps * TILE];
        for q in self.range.0..self.range.1 {
            let (n, p) = (q / tiles, q % tiles * TILE);
            let m = TILE.min(s.points - p);
            tile.fill(s, coords(n, p, m));
            if let Pass::Forward = self.what {
                for c in 0..s.c {
                    let image = plane(n, c);
                    // SAFETY: this tile's stretch of plane (n, c), which only this job writes.
                    let y = unsafe {
                        std::slice::from_raw_parts_mut(self.y.get().add((n * s.c + c) * s.points + p), m)
                    };
                    weighted(&tile, image, y);
                }
                continue;
            }
            // The gradient of the grid: products summed over channels, then the slopes.
            product.fill(T::default());
            for c in 0..s.c {
                let (image, dy) = (plane(n, c), values(n, c, p, m));
                for tap in 0..tile.taps {
                    let index = &tile.index[tap * TILE..][..m];
                    for ((o, i), g) in product[tap * TILE..][..m].iter_mut().zip(index).zip(dy) {
                        if *i >= 0 {
                            *o += *g * image[*i as usize];
                        }
                    }
                }
            }
            // SAFETY: this tile's stretch of the grid's gradient, which only this job writes.
            let out =
                unsafe { std::slice::from_raw_parts_mut(self.out.get().add((n * s.points + p) * D), m * D) };
            tile.slope(&product, out);
        }
    }
}
