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
pub(super) fn per_axis(mode: GridMode) -> usize {
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
