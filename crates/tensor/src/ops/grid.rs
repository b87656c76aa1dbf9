//! `grid_sample`: an image read at arbitrary positions. First order are kernels; under `create_graph`
//! the gradient goes through the same formula written in library ops.

use super::nn_misc::{compute_type, pick, place, same_device, want_float};
use super::{Operand, mul};
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::backend::{Border, Grid, GridMode, Interpolation};
use pyrite_core::{DType, Device, Dims, Result, Scalar, bail, ensure};
use smallvec::smallvec;

/// `x` [N, C, (D,) H, W] at `grid` [N, (Do,) Ho, Wo, 2 or 3] in -1..1, x first -> [N, C, (Do,) Ho, Wo].
pub fn grid_sample(x: &Tensor, grid: &Tensor, mode: GridMode) -> Result<Tensor> {
    const OP: &str = "grid_sampler()";
    ensure!(
        x.ndim() == grid.ndim() && (x.ndim() == 4 || x.ndim() == 5),
        Runtime,
        "{OP}: expected 4D or 5D input and grid with same number of dimensions, but got input with sizes {:?} and grid with sizes {:?}",
        x.shape(),
        grid.shape()
    );
    let n = x.ndim() - 2;
    ensure!(
        x.shape()[0] == grid.shape()[0],
        Runtime,
        "{OP}: expected grid and input to have same batch size, but got input with sizes {:?} and grid with sizes {:?}",
        x.shape(),
        grid.shape()
    );
    ensure!(
        grid.shape()[n + 1] == n,
        Runtime,
        "{OP}: expected grid to have size {n} in last dimension, but got grid with sizes {:?}",
        grid.shape()
    );
    ensure!(
        x.shape()[2..].iter().all(|s| *s > 0),
        Runtime,
        "{OP}: expected input to have non-empty spatial dimensions, but input has sizes {:?}",
        x.shape()
    );
    ensure!(
        n == 2 || mode.interpolation != Interpolation::Cubic,
        Runtime,
        "{OP}: bicubic interpolation only supports 4D input"
    );
    ensure!(
        x.dtype() == grid.dtype(),
        Runtime,
        "{OP}: expected input and grid to have same dtype, but input has {} and grid has {}",
        x.dtype().name(),
        grid.dtype().name()
    );
    same_device(OP, &[x, grid])?;
    want_float("grid_sampler", x)?;
    let pixels: usize = x.shape()[2..].iter().product();
    ensure!(pixels < i32::MAX as usize, Runtime, "{OP}: images of 2**31 pixels and more are not supported");
    let wide = compute_type(x.dtype());
    if x.device() == Device::Cpu && wide != x.dtype() {
        let y = grid_sample(&super::to_dtype(x, wide)?, &super::to_dtype(grid, wide)?, mode)?;
        return super::to_dtype(&y, x.dtype());
    }
    let mut shape: Dims = smallvec![x.shape()[0], x.shape()[1]];
    shape.extend_from_slice(&grid.shape()[1..=n]);
    let y = Tensor::empty(&shape, x.dtype(), x.device())?;
    if y.numel() > 0 {
        let (x, grid) = (super::contiguous(&x.detach())?, super::contiguous(&grid.detach())?);
        y.backend()?.grid(mode, Grid::Forward { x: x.arr(), grid: grid.arr(), y: y.arr() })?;
    }
    if needs_grad(&[x, grid]) {
        let name = if n == 2 { "GridSampler2DBackward0" } else { "GridSampler3DBackward0" };
        autograd::attach(name, &[x, grid], &[&y], &[Save::Input(x), Save::Input(grid)], move |cx| {
            let (g, x, grid) = (cx.grad(0)?, cx.saved(0)?, cx.saved(1)?);
            let want = [cx.needs(0), cx.needs(1)];
            if cx.create_graph {
                let (dx, dg) = composed(&g, x, grid, mode, want)?;
                return Ok(smallvec![dx, dg]);
            }
            let (dx, dg) = backward(&g, x, grid, mode, want)?;
            Ok(smallvec![dx, dg])
        });
    }
    Ok(y)
}

fn backward(
    g: &Tensor,
    x: &Tensor,
    grid: &Tensor,
    mode: GridMode,
    want: [bool; 2],
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let new = |want: bool, like: &Tensor| {
        want.then(|| Tensor::zeros(like.shape(), like.dtype(), like.device())).transpose()
    };
    let (dx, dgrid) = (new(want[0], x)?, new(want[1], grid)?);
    if g.numel() > 0 {
        let (x, grid, g) = (super::contiguous(x)?, super::contiguous(grid)?, super::contiguous(g)?);
        g.backend()?.grid(
            mode,
            Grid::Backward {
                dy: g.arr(),
                x: x.arr(),
                grid: grid.arr(),
                dx: dx.as_ref().map(Tensor::arr),
                dgrid: dgrid.as_ref().map(Tensor::arr),
            },
        )?;
    }
    Ok((dx, dgrid))
}

// ---- the same in library ops ---------------------------------------------------------------------

fn number<'a>(v: f64) -> Operand<'a> {
    Operand::Number(Scalar::Float(v))
}

/// A coordinate led back into the image, and (untracked) the slope of that.
fn border(v: &Tensor, n: usize, mode: GridMode) -> Result<(Tensor, Tensor)> {
    let last = n as f64 - 1.0;
    let one = Tensor::full(v.shape(), Scalar::Float(1.0), v.dtype(), v.device())?;
    let clamp = |v: &Tensor, slope: &Tensor| -> Result<(Tensor, Tensor)> {
        let d = v.detach();
        let out = super::logical_or(&super::le(&d, number(0.0))?, &super::ge(&d, number(last))?)?;
        let kept = super::masked_fill(v, &super::le(&d, number(0.0))?, number(0.0))?;
        let kept = super::masked_fill(&kept, &super::ge(&d, number(last))?, number(last))?;
        Ok((kept, super::masked_fill(slope, &out, number(0.0))?))
    };
    match mode.border {
        Border::Zeros => Ok((v.clone(), one)),
        Border::Clamp => clamp(v, &one),
        Border::Reflect => {
            let (low, span) = if mode.align { (0.0, last) } else { (-0.5, n as f64) };
            if span <= 0.0 {
                return Ok((mul(v, 0.0)?, mul(&one, 0.0)?));
            }
            let d = super::sub(v, low)?;
            let below = super::lt(&d.detach(), number(0.0))?;
            let (d, slope) = (
                super::where_(&below, &super::neg(&d)?, &d)?,
                super::where_(&below, &super::neg(&one)?, &one)?,
            );
            let turns = super::floor(&super::div(&d.detach(), span)?)?;
            let rest = super::sub(&d, &mul(&turns, span)?)?;
            let odd = super::ne(&super::remainder(&turns, number(2.0))?, number(0.0))?;
            let there = super::add(&rest, low)?;
            let back = super::add(&super::neg(&rest)?, span + low)?;
            let slope = super::where_(&odd, &super::neg(&slope)?, &slope)?;
            clamp(&super::where_(&odd, &back, &there)?, &slope)
        }
    }
}

/// A tap of one axis: its pixel, its weight, and the weight's slope with the grid's coordinate.
struct Tap {
    at: Tensor,
    weight: Tensor,
    slope: Tensor,
}

fn taps(g: &Tensor, n: usize, mode: GridMode) -> Result<Vec<Tap>> {
    let (v, scale) = if mode.align {
        let half = (n as f64 - 1.0) / 2.0;
        (mul(&super::add(g, 1.0)?, half)?, half)
    } else {
        let v = super::sub(&mul(&super::add(g, 1.0)?, n as f64)?, 1.0)?;
        (mul(&v, 0.5)?, n as f64 / 2.0)
    };
    let full = |x: f64| Tensor::full(v.shape(), Scalar::Float(x), v.dtype(), v.device());
    match mode.interpolation {
        Interpolation::Nearest => {
            let at = super::round(&border(&v.detach(), n, mode)?.0, 0)?;
            Ok(vec![Tap { at, weight: full(1.0)?, slope: full(0.0)? }])
        }
        Interpolation::Linear => {
            let (v, slope) = border(&v, n, mode)?;
            let slope = mul(&slope, scale)?;
            let at = super::floor(&v.detach())?;
            let t = super::sub(&v, &at)?;
            let rest = super::add(&super::neg(&t)?, 1.0)?;
            let next = super::add(&at, 1.0)?;
            let down = super::neg(&slope)?;
            Ok(vec![Tap { at, weight: rest, slope: down }, Tap { at: next, weight: t, slope }])
        }
        Interpolation::Cubic => {
            let base = super::floor(&v.detach())?;
            let t = super::sub(&v, &base)?;
            let mut out = Vec::with_capacity(4);
            for k in 0..4 {
                // The distance to the tap, always positive: t + 1, t, 1 - t, 2 - t.
                let side = if k < 2 { 1.0 } else { -1.0 };
                let d = super::add(&mul(&t, side)?, side * (1.0 - k as f64))?;
                // From the third power down; A = -0.75.
                let c: [f64; 4] =
                    if k == 1 || k == 2 { [1.25, -2.25, 0.0, 1.0] } else { [-0.75, 3.75, -6.0, 3.0] };
                let weight = horner(&d, &c)?;
                let slope = horner(&d, &[3.0 * c[0] * side, 2.0 * c[1] * side, c[2] * side])?;
                let (at, _) = border(&super::add(&base, k as f64 - 1.0)?, n, mode)?;
                out.push(Tap { at, weight, slope: mul(&slope, scale)? });
            }
            Ok(out)
        }
    }
}

/// A polynomial, the highest power first.
fn horner(x: &Tensor, c: &[f64]) -> Result<Tensor> {
    let mut y = super::add(&mul(x, 0.0)?, c[0])?;
    for c in &c[1..] {
        y = super::add(&mul(&y, x)?, *c)?;
    }
    Ok(y)
}

fn plus(sum: &mut Option<Tensor>, part: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(s) => super::add(&s, &part)?,
        None => part,
    });
    Ok(())
}

type Pair = (Option<Tensor>, Option<Tensor>);

/// The gradients in library ops, one tap after the other.
fn composed(g: &Tensor, x: &Tensor, grid: &Tensor, mode: GridMode, want: [bool; 2]) -> Result<Pair> {
    let n = x.ndim() - 2;
    let (batch, c) = (x.shape()[0], x.shape()[1]);
    let mut axes = Vec::with_capacity(n);
    for a in 0..n {
        // Coordinates count x first, sizes end with it.
        axes.push(taps(&super::select(grid, -1, a as i64)?, x.shape()[1 + n - a], mode)?);
    }
    let pixels: usize = x.shape()[2..].iter().product();
    let points: usize = grid.shape()[1..=n].iter().product();
    let flat = super::reshape_to(x, &[batch, c, pixels])?;
    let along = axes[0].len();
    let mut dx: Option<Tensor> = None;
    let mut slopes: Vec<Option<Tensor>> = vec![None; n];
    for tap in 0..along.pow(n as u32) {
        let digits: Vec<usize> = (0..n).map(|a| tap / along.pow(a as u32) % along).collect();
        let mut index = Tensor::zeros(&grid.shape()[..=n], grid.dtype(), grid.device())?;
        let mut outside = Tensor::zeros(&grid.shape()[..=n], DType::Bool, grid.device())?;
        let mut step = 1.0;
        for (a, axis) in axes.iter().enumerate() {
            let at = axis[digits[a]].at.detach();
            let size = x.shape()[1 + n - a] as f64;
            let inside = super::logical_and(&super::ge(&at, number(0.0))?, &super::lt(&at, number(size))?)?;
            outside = super::logical_or(&outside, &super::logical_not(&inside)?)?;
            index = super::add(&index, &mul(&at, step)?)?;
            step *= size;
        }
        let index = super::masked_fill(&index, &outside, number(0.0))?;
        let index = super::reshape_to(&super::to_dtype(&index, DType::I64)?, &[batch, 1, points])?;
        let index = super::contiguous(&super::expand_to(&index, &[batch, c, points])?)?;
        // The product of the weights, that of axis `s` replaced by its slope.
        let product = |s: Option<usize>| -> Result<Tensor> {
            let mut w: Option<Tensor> = None;
            for (a, axis) in axes.iter().enumerate() {
                let t = &axis[digits[a]];
                let f = if s == Some(a) { &t.slope } else { &t.weight };
                w = Some(match w {
                    Some(w) => mul(&w, f)?,
                    None => f.clone(),
                });
            }
            match w {
                Some(w) => super::masked_fill(&w, &outside, number(0.0)),
                None => bail!(Runtime, "grid_sample: no dimensions"),
            }
        };
        if want[0] {
            let part =
                super::reshape_to(&mul(g, &super::unsqueeze(&product(None)?, 1)?)?, &[batch, c, points])?;
            plus(&mut dx, place(&part, &index, 2, &[batch, c, pixels])?)?;
        }
        if want[1] {
            let values = super::reshape_to(&pick(&flat, &index, 2)?, g.shape())?;
            let both = super::sum(&mul(g, &values)?, Some(&[1]), false, None)?;
            for (a, s) in slopes.iter_mut().enumerate() {
                plus(s, mul(&both, &product(Some(a))?)?)?;
            }
        }
    }
    let dx = dx.map(|d| super::reshape_to(&d, x.shape())).transpose()?;
    let slopes: Vec<Tensor> = slopes.into_iter().flatten().collect();
    let dgrid = if want[1] { Some(super::shape::stack(&slopes, -1)?) } else { None };
    Ok((dx, dgrid))
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "grid_sample",
        FUNCTION,
        ns = "nn",
        "`input` (N, C, H, W) read at the positions `grid` (N, Ho, Wo, 2) in -1..1; also for three dimensions.",
        "input: Tensor, grid: Tensor, mode: str = 'bilinear', padding_mode: str = 'zeros', align_corners: bool = False",
        |a| {
            let interpolation = match a.str(2)? {
                "bilinear" => Interpolation::Linear,
                "nearest" => Interpolation::Nearest,
                "bicubic" => Interpolation::Cubic,
                m => bail!(
                    Value,
                    "nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{m}'"
                ),
            };
            let border = match a.str(3)? {
                "zeros" => Border::Zeros,
                "border" => Border::Clamp,
                "reflection" => Border::Reflect,
                m => bail!(
                    Value,
                    "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: '{m}'"
                ),
            };
            let mode = GridMode { interpolation, border, align: a.bool(4)? };
            Ok(grid_sample(a.tensor(0)?, a.tensor(1)?, mode)?.into())
        }
    );
}
