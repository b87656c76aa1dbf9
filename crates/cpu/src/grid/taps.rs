//! Where `grid_sample` reads: the pixels around each position, their weights, and the weights' slopes. A tile of
//! positions at a time.

use super::{Setup, TILE};
use crate::real::Real;
use pyrite_core::backend::{Border, GridMode, Interpolation};

/// Indices and weights of up to [`TILE`] positions.
pub(super) struct Tile<T, const D: usize> {
    pub taps: usize,
    /// `index[tap * TILE + position]`, -1 outside.
    pub index: Vec<i32>,
    pub weight: Vec<T>,
    /// Per axis, tap of the axis and position: the weight, and its slope with the grid's coordinate.
    pub weights: Vec<T>,
    pub slopes: Vec<T>,
    /// Which tap of each axis a tap is made of.
    pub digits: Vec<[usize; D]>,
}

impl<T: Real, const D: usize> Tile<T, D> {
    pub fn new(mode: GridMode) -> Tile<T, D> {
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
    pub fn fill(&mut self, s: &Setup<D>, grid: &[T]) {
        let mut index = [[[-1i32; TILE]; 4]; D];
        for a in 0..D {
            // All of the tile's places, so that the loops have a constant length; those behind the
            // last position are never used.
            let mut at = [T::default(); TILE];
            for (to, from) in at.iter_mut().zip(grid.chunks_exact(D)) {
                *to = from[a];
            }
            self.axis(s.mode, s.size[a], a, at, &mut index[a]);
        }
        for tap in 0..self.taps {
            let (mut w, mut flat, mut ok) = ([T::of(1.0); TILE], [0i32; TILE], [0i32; TILE]);
            let mut step = 1i32;
            for a in 0..D {
                let k = self.digits[tap][a];
                let (i, v) = (&index[a][k], part(&mut self.weights, a * 4 + k));
                for p in 0..TILE {
                    // Negative as soon as one of them is.
                    ok[p] |= i[p];
                    flat[p] += i[p] * step;
                    w[p] = w[p] * v[p];
                }
                step *= s.size[a] as i32;
            }
            let to = part(&mut self.index, tap);
            for p in 0..TILE {
                to[p] = if ok[p] >= 0 { flat[p] } else { -1 };
            }
            *part(&mut self.weight, tap) = w;
        }
    }
    /// Taps outside lead to the pixel behind the last one, with weight 0: for images that have zeros there.
    #[inline(always)]
    pub fn close(&mut self, image: usize) {
        for (i, w) in self.index.iter_mut().zip(&mut self.weight) {
            *w = if *i < 0 { T::default() } else { *w };
            *i = if *i < 0 { image as i32 } else { *i };
        }
    }
    /// Turns sums over channels (`product[tap * TILE + position]`) into the gradient of coordinates.
    #[inline(always)]
    pub fn slope(&self, product: &[T], out: &mut [T]) {
        for (p, o) in out.chunks_exact_mut(D).enumerate() {
            for (a, o) in o.iter_mut().enumerate() {
                let mut sum = T::default();
                for tap in 0..self.taps {
                    let mut w = product[tap * TILE + p];
                    for b in 0..D {
                        let k = self.digits[tap][b];
                        let of = if a == b { &self.slopes } else { &self.weights };
                        w = w * of[(b * 4 + k) * TILE + p];
                    }
                    sum += w;
                }
                *o = sum;
            }
        }
    }
    /// One axis: weights, slopes and indices of each tap. Step by step over all positions, so that every loop is
    /// a vector's, whatever the mode.
    #[inline(always)]
    fn axis(&mut self, mode: GridMode, n: usize, a: usize, at: [T; TILE], index: &mut [[i32; TILE]; 4]) {
        let (one, size) = (T::of(1.0), T::of(n as f64));
        let mut v = at;
        let scale = if mode.align {
            let half = T::of((n as f64 - 1.0) / 2.0);
            for v in &mut v {
                *v = (*v + one) * half;
            }
            half
        } else {
            for v in &mut v {
                *v = ((*v + one) * size - one) * T::of(0.5);
            }
            size * T::of(0.5)
        };
        let mut slope = [one; TILE];
        match mode.interpolation {
            Interpolation::Nearest => {
                border(mode, n, &mut v, &mut slope);
                for v in &mut v {
                    *v = v.nearest();
                }
                indices(&v, n, &mut index[0]);
                *part(&mut self.weights, a * 4) = [one; TILE];
                *part(&mut self.slopes, a * 4) = [T::default(); TILE];
            }
            Interpolation::Linear => {
                border(mode, n, &mut v, &mut slope);
                let (mut base, mut next) = (v, v);
                for p in 0..TILE {
                    base[p] = v[p].floor();
                    next[p] = base[p] + one;
                    v[p] = v[p] - base[p];
                    slope[p] = slope[p] * scale;
                }
                indices(&base, n, &mut index[0]);
                indices(&next, n, &mut index[1]);
                *part(&mut self.weights, a * 4 + 1) = v;
                *part(&mut self.slopes, a * 4 + 1) = slope;
                for p in 0..TILE {
                    (v[p], slope[p]) = (one - v[p], -slope[p]);
                }
                *part(&mut self.weights, a * 4) = v;
                *part(&mut self.slopes, a * 4) = slope;
            }
            Interpolation::Cubic => {
                let mut base = v;
                for p in 0..TILE {
                    base[p] = v[p].floor();
                    v[p] = v[p] - base[p];
                }
                for p in 0..TILE {
                    let (w, slope) = cubic(v[p]);
                    for k in 0..4 {
                        self.weights[(a * 4 + k) * TILE + p] = w[k];
                        self.slopes[(a * 4 + k) * TILE + p] = slope[k] * scale;
                    }
                }
                for (k, index) in index.iter_mut().enumerate() {
                    let mut at = base;
                    for v in &mut at {
                        *v += T::of(k as f64 - 1.0);
                    }
                    border(mode, n, &mut at, &mut slope);
                    indices(&at, n, index);
                }
            }
        }
    }
}

/// Stretch `i` of a list of tiles.
#[inline(always)]
fn part<T>(all: &mut [T], i: usize) -> &mut [T; TILE] {
    match all[i * TILE..].first_chunk_mut() {
        Some(v) => v,
        // `Tile::new` makes whole stretches.
        None => unreachable!(),
    }
}

/// Taps along one axis.
#[inline(always)]
pub(super) fn per_axis(mode: GridMode) -> usize {
    match mode.interpolation {
        Interpolation::Nearest => 1,
        Interpolation::Linear => 2,
        Interpolation::Cubic => 4,
    }
}

/// Pixel coordinates as indices, or -1 where they lie outside (or are no numbers).
#[inline(always)]
fn indices<T: Real>(v: &[T; TILE], n: usize, out: &mut [i32; TILE]) {
    let (zero, size) = (T::default(), T::of(n as f64));
    for (o, v) in out.iter_mut().zip(v) {
        let i = v.int();
        *o = if *v >= zero && *v < size { i } else { -1 };
    }
}

/// Coordinates led back into the image, and slopes times the slope of that.
#[inline(always)]
fn border<T: Real>(mode: GridMode, n: usize, v: &mut [T; TILE], slope: &mut [T; TILE]) {
    let (zero, last) = (T::of(0.0), T::of(n as f64 - 1.0));
    if mode.border == Border::Zeros {
        return;
    }
    if mode.border == Border::Reflect {
        let (low, span) = if mode.align { (0.0, n as f64 - 1.0) } else { (-0.5, n as f64) };
        if span <= 0.0 {
            (*v, *slope) = ([zero; TILE], [zero; TILE]);
            return;
        }
        let (low, span) = (T::of(low), T::of(span));
        for p in 0..TILE {
            let d = v[p] - low;
            let (d, s) = if d < zero { (-d, -slope[p]) } else { (d, slope[p]) };
            let turns = (d / span).floor();
            let rest = d - turns * span;
            let half = turns * T::of(0.5);
            // An odd number of reflections walks backwards.
            let even = half.floor() == half;
            v[p] = if even { rest + low } else { span - rest + low };
            slope[p] = if even { s } else { -s };
        }
    }
    for p in 0..TILE {
        let (x, s) = (v[p], slope[p]);
        let (x, s) = if x <= zero { (zero, zero) } else { (x, s) };
        (v[p], slope[p]) = if x >= last && v[p] > zero { (last, zero) } else { (x, s) };
    }
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
