//! Sampling an image at arbitrary positions (`grid_sample`), in two and three dimensions, and its
//! gradients. Positions are worked on in tiles: indices and weights once, then all channels.
//!
//! Forward and the gradient of the grid are split by tiles; the gradient of the image, where positions
//! meet, by planes, so that every sum has one order.

use crate::pool::{chunks, parallel};
use crate::real::Real;
use crate::simd::{Arch, ArchKernel, dispatch};
use crate::strided::Ptr;
use pyrite_core::backend::{Border, Grid, GridMode, Interpolation};
use pyrite_core::{Arr, DType, Result, bail};

/// Positions per tile.
const TILE: usize = 64;

pub fn run(mode: GridMode, g: Grid) -> Result<()> {
    let (x, grid) = match &g {
        Grid::Forward { x, grid, .. } | Grid::Backward { x, grid, .. } => (*x, *grid),
    };
    match (x.dtype, x.shape.len()) {
        (DType::F32, 4) => typed::<f32, 2>(mode, &x, &grid, g),
        (DType::F32, 5) => typed::<f32, 3>(mode, &x, &grid, g),
        (DType::F64, 4) => typed::<f64, 2>(mode, &x, &grid, g),
        (DType::F64, 5) => typed::<f64, 3>(mode, &x, &grid, g),
        (d, n) => bail!(NotImplemented, "grid_sample: not implemented for {d} in {n} dimensions"),
    }
}

/// Sizes of one call, checked: `size` and positions count x first, as a grid's coordinates do.
struct Setup<const D: usize> {
    mode: GridMode,
    n: usize,
    c: usize,
    size: [usize; D],
    image: usize,
    points: usize,
}

fn typed<T: Real, const D: usize>(mode: GridMode, x: &Arr, grid: &Arr, g: Grid) -> Result<()> {
    let mut size = [0; D];
    for (i, s) in size.iter_mut().enumerate() {
        *s = x.shape[1 + D - i];
    }
    let points: usize = grid.shape.get(1..1 + D).map_or(0, |s| s.iter().product());
    let s = Setup { mode, n: x.shape[0], c: x.shape[1], size, image: size.iter().product(), points };
    let (y, others): (Arr, [Option<Arr>; 2]) = match g {
        Grid::Forward { y, .. } => (y, [None, None]),
        Grid::Backward { dy, dx, dgrid, .. } => (dy, [dx, dgrid]),
    };
    let fits = grid.shape.len() == D + 2
        && grid.shape[0] == s.n
        && grid.shape[D + 1] == D
        && y.numel() == s.n * s.c * points
        && others[0].is_none_or(|d| d.shape == x.shape)
        && others[1].is_none_or(|d| d.shape == grid.shape)
        && s.image < i32::MAX as usize;
    let all = [Some(*x), Some(*grid), Some(y), others[0], others[1]];
    let plain = all.iter().flatten().all(|a| a.is_contiguous() && a.dtype == T::DTYPE);
    if !fits || !plain {
        bail!(
            Shape,
            "grid_sample: input {:?}, grid {:?} and output {:?} do not fit, are not contiguous, or differ in dtype",
            x.shape,
            grid.shape,
            y.shape
        );
    }
    if s.image == 0 {
        bail!(Shape, "grid_sample: expected an input with non-empty spatial dimensions, got {:?}", x.shape);
    }
    if points == 0 || s.n == 0 {
        return Ok(());
    }
    let (x, grid, y) = (Ptr(x.ptr.cast::<T>()), Ptr(grid.ptr.cast::<T>()), Ptr(y.ptr.cast::<T>()));
    let tiles = points.div_ceil(TILE);
    let work = (s.n * points * (16 + 4 * s.c)) as u64;
    let each_tile = |what: Pass| {
        let total = s.n * tiles;
        let (k, each) = chunks(total, (128 / (s.c + 4)).max(1));
        parallel(k, work, &|q| {
            let range = (q * each, total.min((q + 1) * each));
            dispatch(Job::<T, D> { s: &s, what, x, grid, y, out: Ptr(std::ptr::null_mut()), range });
        });
    };
    match g {
        Grid::Forward { .. } => each_tile(Pass::Forward),
        Grid::Backward { dx, dgrid, .. } => {
            if let Some(d) = dgrid {
                let total = s.n * tiles;
                let (k, each) = chunks(total, (128 / (s.c + 4)).max(1));
                let out = Ptr(d.ptr.cast::<T>());
                parallel(k, work, &|q| {
                    let range = (q * each, total.min((q + 1) * each));
                    dispatch(Job::<T, D> { s: &s, what: Pass::Grid, x, grid, y, out, range });
                });
            }
            if let Some(d) = dx {
                // Blocks of channels: each finds the positions again, so blocks are not small.
                let (blocks, each) = chunks(s.c, 8);
                let out = Ptr(d.ptr.cast::<T>());
                parallel(s.n * blocks, work, &|q| {
                    let c = q % blocks.max(1) * each;
                    let range = (q / blocks.max(1), 0);
                    let what = Pass::Image(c, s.c.min(c + each));
                    dispatch(Job::<T, D> { s: &s, what, x, grid, y, out, range });
                });
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Pass {
    Forward,
    Grid,
    /// Channels from, to.
    Image(usize, usize),
}

struct Job<'a, T, const D: usize> {
    s: &'a Setup<D>,
    what: Pass,
    x: Ptr<T>,
    grid: Ptr<T>,
    /// The output, or its gradient.
    y: Ptr<T>,
    out: Ptr<T>,
    /// Tiles from, to (counted over samples), or the sample.
    range: (usize, usize),
}

/// Indices and weights of up to [`TILE`] positions.
struct Tile<T, const D: usize> {
    taps: usize,
    /// `index[tap * TILE + position]`, -1 outside.
    index: Vec<i32>,
    weight: Vec<T>,
    /// Per axis, tap of the axis and position: the weight, and its slope with the grid's coordinate.
    weights: Vec<T>,
    slopes: Vec<T>,
    /// Which tap of each axis a tap is made of.
    digits: Vec<[usize; D]>,
}

impl<T: Real, const D: usize> Tile<T, D> {
    fn new(mode: GridMode) -> Tile<T, D> {
        let along = per_axis(mode);
        let taps = along.pow(D as u32);
        let digits = (0..taps).map(|t| std::array::from_fn(|a| t / along.pow(a as u32) % along)).collect();
        Tile {
            taps,
            digits,
            index: vec![-1; taps * TILE],
            weight: vec![T::default(); taps * TILE],
            weights: vec![T::default(); D * 4 * TILE],
            slopes: vec![T::default(); D * 4 * TILE],
        }
    }
    /// From `D` coordinates for each position.
    #[inline(always)]
    fn fill(&mut self, s: &Setup<D>, grid: &[T]) {
        use {Border::*, Interpolation::*};
        let mut index = [[[-1i32; TILE]; 4]; D];
        for a in 0..D {
            // All of the tile's places, so that the loops have a constant length; those behind the
            // last position are never used.
            let mut at = [T::default(); TILE];
            for (to, from) in at.iter_mut().zip(grid.chunks_exact(D)) {
                *to = from[a];
            }
            let (n, mode) = (s.size[a], s.mode);
            // Modes as constants: what the loop decides, it decides before.
            index[a] = match (mode.interpolation, mode.border) {
                (Linear, Zeros) => {
                    self.axis(GridMode { interpolation: Linear, border: Zeros, ..mode }, n, a, &at)
                }
                (Linear, Clamp) => {
                    self.axis(GridMode { interpolation: Linear, border: Clamp, ..mode }, n, a, &at)
                }
                _ => self.axis(mode, n, a, &at),
            };
        }
        for tap in 0..self.taps {
            let (mut w, mut flat, mut ok) = ([T::of(1.0); TILE], [0i32; TILE], [0i32; TILE]);
            let mut step = 1i32;
            for a in 0..D {
                let k = self.digits[tap][a];
                let (i, v) = (&index[a][k], &self.weights[(a * 4 + k) * TILE..][..TILE]);
                for p in 0..TILE {
                    // Negative as soon as one of them is.
                    ok[p] |= i[p];
                    flat[p] += i[p] * step;
                    w[p] = w[p] * v[p];
                }
                step *= s.size[a] as i32;
            }
            for p in 0..TILE {
                flat[p] = if ok[p] >= 0 { flat[p] } else { -1 };
            }
            self.index[tap * TILE..][..TILE].copy_from_slice(&flat);
            self.weight[tap * TILE..][..TILE].copy_from_slice(&w);
        }
    }
    /// One axis: keeps weights and slopes, returns the indices of each tap.
    #[inline(always)]
    fn axis(&mut self, mode: GridMode, n: usize, a: usize, at: &[T; TILE]) -> [[i32; TILE]; 4] {
        let mut index = [[-1i32; TILE]; 4];
        let (mut weight, mut slope) = ([[T::default(); TILE]; 4], [[T::default(); TILE]; 4]);
        let along = per_axis(mode);
        for p in 0..TILE {
            let taps = axis_taps(mode, n, at[p]);
            for k in 0..along {
                (index[k][p], weight[k][p], slope[k][p]) = taps[k];
            }
        }
        for k in 0..along {
            self.weights[(a * 4 + k) * TILE..][..TILE].copy_from_slice(&weight[k]);
            self.slopes[(a * 4 + k) * TILE..][..TILE].copy_from_slice(&slope[k]);
        }
        index
    }
}

/// Taps along one axis.
#[inline(always)]
fn per_axis(mode: GridMode) -> usize {
    match mode.interpolation {
        Interpolation::Nearest => 1,
        Interpolation::Linear => 2,
        Interpolation::Cubic => 4,
    }
}

/// A pixel coordinate as an index, or -1 if it lies outside (or is no number).
#[inline(always)]
fn index_of<T: Real>(v: T, n: usize) -> i32 {
    if v >= T::of(0.0) && v < T::of(n as f64) { v.f64() as i32 } else { -1 }
}

/// A coordinate led back into the image, and the slope of that.
#[inline(always)]
fn border<T: Real>(mode: GridMode, n: usize, v: T) -> (T, T) {
    let (zero, one, last) = (T::of(0.0), T::of(1.0), T::of(n as f64 - 1.0));
    let clamp = |v: T, slope: T| {
        if v <= zero {
            (zero, zero)
        } else if v >= last {
            (last, zero)
        } else {
            (v, slope)
        }
    };
    match mode.border {
        Border::Zeros => (v, one),
        Border::Clamp => clamp(v, one),
        Border::Reflect => {
            let (low, span) = if mode.align { (0.0, n as f64 - 1.0) } else { (-0.5, n as f64) };
            if span <= 0.0 {
                return (zero, zero);
            }
            let (mut d, mut slope) = (v - T::of(low), one);
            if d < zero {
                (d, slope) = (-d, -slope);
            }
            let turns = (d / T::of(span)).floor();
            let rest = d - turns * T::of(span);
            let half = turns * T::of(0.5);
            // An odd number of reflections walks backwards.
            let (v, slope) = if half.floor() == half {
                (rest + T::of(low), slope)
            } else {
                (T::of(span) - rest + T::of(low), -slope)
            };
            clamp(v, slope)
        }
    }
}

/// Index, weight and the weight's slope (with the grid's coordinate) of each tap of one axis.
#[inline(always)]
fn axis_taps<T: Real>(mode: GridMode, n: usize, g: T) -> [(i32, T, T); 4] {
    let (zero, one) = (T::of(0.0), T::of(1.0));
    let size = T::of(n as f64);
    let (v, scale) = if mode.align {
        let half = T::of((n as f64 - 1.0) / 2.0);
        ((g + one) * half, half)
    } else {
        (((g + one) * size - one) * T::of(0.5), size * T::of(0.5))
    };
    let mut out = [(-1, zero, zero); 4];
    if mode.interpolation == Interpolation::Cubic {
        let base = v.floor();
        let t = v - base;
        let (w, slope) = cubic(t);
        for (k, o) in out.iter_mut().enumerate() {
            let at = border(mode, n, base + T::of(k as f64 - 1.0)).0;
            *o = (index_of(at, n), w[k], slope[k] * scale);
        }
        return out;
    }
    let (v, slope) = border(mode, n, v);
    if mode.interpolation == Interpolation::Nearest {
        out[0] = (index_of(v.nearest(), n), one, zero);
        return out;
    }
    let base = v.floor();
    let t = v - base;
    let slope = slope * scale;
    out[0] = (index_of(base, n), one - t, -slope);
    out[1] = (index_of(base + one, n), t, slope);
    out
}

/// Weights of cubic convolution (A = -0.75) at distance `t` from the second tap, and their slopes.
#[inline(always)]
fn cubic<T: Real>(t: T) -> ([T; 4], [T; 4]) {
    let c = |v: f64| T::of(v);
    let a = c(-0.75);
    let near = |x: T| ((a + c(2.0)) * x - (a + c(3.0))) * x * x + c(1.0);
    let far = |x: T| ((a * x - c(5.0) * a) * x + c(8.0) * a) * x - c(4.0) * a;
    let near_slope = |x: T| (c(3.0) * (a + c(2.0)) * x - c(2.0) * (a + c(3.0))) * x;
    let far_slope = |x: T| (c(3.0) * a * x - c(10.0) * a) * x + c(8.0) * a;
    let (t1, u, u1) = (t + c(1.0), c(1.0) - t, c(2.0) - t);
    ([far(t1), near(t), near(u), far(u1)], [far_slope(t1), near_slope(t), -near_slope(u), -far_slope(u1)])
}

/// Adds `K` taps from `first` on to `y`; all of them if that is more than one.
#[inline(always)]
fn weighted<T: Real, const D: usize, const K: usize>(t: &Tile<T, D>, first: usize, image: &[T], y: &mut [T]) {
    let index: [&[i32]; K] = std::array::from_fn(|k| &t.index[(first + k) * TILE..][..TILE]);
    let weight: [&[T]; K] = std::array::from_fn(|k| &t.weight[(first + k) * TILE..][..TILE]);
    for (p, y) in y.iter_mut().enumerate().take(TILE) {
        let mut sum = if K == 1 { *y } else { T::default() };
        for k in 0..K {
            let i = index[k][p];
            // Read always, counted if inside: no branch on scattered positions, and a pixel that is
            // no number does not leak into them.
            // SAFETY: `fill` makes indices of pixels or -1, and an image has a pixel.
            let v = unsafe { *image.get_unchecked(i.max(0) as usize) };
            sum += if i >= 0 { weight[k][p] * v } else { T::default() };
        }
        *y = sum;
    }
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
                    match tile.taps {
                        4 => weighted::<T, D, 4>(&tile, 0, image, y),
                        8 => weighted::<T, D, 8>(&tile, 0, image, y),
                        _ => {
                            y.fill(T::default());
                            for tap in 0..tile.taps {
                                weighted::<T, D, 1>(&tile, tap, image, y);
                            }
                        }
                    }
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
            for (p, o) in out.chunks_exact_mut(D).enumerate() {
                for (a, o) in o.iter_mut().enumerate() {
                    let mut sum = T::default();
                    for tap in 0..tile.taps {
                        let mut w = product[tap * TILE + p];
                        for b in 0..D {
                            let k = tile.digits[tap][b];
                            let of = if a == b { &tile.slopes } else { &tile.weights };
                            w = w * of[(b * 4 + k) * TILE + p];
                        }
                        sum += w;
                    }
                    *o = sum;
                }
            }
        }
    }
}
