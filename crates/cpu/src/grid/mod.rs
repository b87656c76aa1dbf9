//! Sampling an image at arbitrary positions (`grid_sample`), in two and three dimensions, and its
//! gradients. Positions are worked on in tiles: indices and weights once, then all channels.
//!
//! Forward and the gradient of the grid are split by tiles; the gradient of the image, where positions
//! meet, by planes, so that every sum has one order.

mod channels;
mod planes;
mod taps;

use crate::pool::{chunks, parallel};
use crate::real::Real;
use crate::simd::dispatch;
use crate::strided::Ptr;
use planes::Job;
use pyrite_core::backend::{Grid, GridMode};
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
    let transposed = channels::suits(&s);
    let no = Ptr(std::ptr::null_mut());
    let each_tile = |what: Pass, out: Ptr<T>| {
        if transposed {
            return channels::by_tiles(&s, channels::Data { x, grid, y, out }, matches!(what, Pass::Forward));
        }
        let total = s.n * tiles;
        let (k, each) = chunks(total, (128 / (s.c + 4)).max(1));
        parallel(k, work, &|q| {
            let range = (q * each, total.min((q + 1) * each));
            dispatch(Job::<T, D> { s: &s, what, x, grid, y, out, range });
        });
        Ok(())
    };
    match g {
        Grid::Forward { .. } => each_tile(Pass::Forward, no)?,
        Grid::Backward { dx, dgrid, .. } => {
            if let Some(d) = dgrid {
                each_tile(Pass::Grid, Ptr(d.ptr.cast::<T>()))?;
            }
            if let Some(d) = dx {
                let out = Ptr(d.ptr.cast::<T>());
                if transposed {
                    return channels::image(&s, channels::Data { x, grid, y, out });
                }
                // Blocks of channels: each finds the positions again, so blocks are not small.
                let (blocks, each) = chunks(s.c, 8);
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
