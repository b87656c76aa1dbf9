//! Interpolation of images: every mode is a small sparse matrix along each dimension, so one kernel
//! serves all of them, and the transposed matrices are its gradient (whose own gradient is the first).

use super::nn_misc::want_float;
use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::{Args, Op};
use crate::tensor::{MemoryFormat, Tensor};
use pyrite_core::backend::{Resample, Taps};
use pyrite_core::{Arr, DType, Dims, Result, bail, ensure};
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Nearest,
    NearestExact,
    Linear,
    Cubic,
    Lanczos,
}

/// How positions of the result map to positions of the input.
#[derive(Clone, Copy)]
pub struct Mapping {
    pub mode: Mode,
    pub align_corners: bool,
    pub antialias: bool,
}

/// The matrices of one call, for depth, height and width.
struct Matrices {
    forward: [Option<Taps>; 3],
    backward: [Option<Taps>; 3],
    from: [usize; 3],
    to: [usize; 3],
    /// Fixed-point digits of u8 weights.
    bits: [u32; 3],
    name: &'static str,
}

/// `x` [N, C, space...] resampled to `size`; `scales`, where given, say how positions map (they may
/// differ from the ratio of the sizes).
pub fn resample(x: &Tensor, size: &[i64], m: Mapping, scales: &[Option<f64>]) -> Result<Tensor> {
    const OP: &str = "interpolate";
    let n = x.ndim().wrapping_sub(2);
    ensure!(
        (1..=3).contains(&n) && size.len() == n && scales.len() == n,
        Shape,
        "{OP}: expected one size for each spatial dimension of a (N, C, space...) input, but got {size:?} for shape {:?}",
        x.shape()
    );
    ensure!(
        x.shape()[1..].iter().all(|s| *s > 0),
        Runtime,
        "Non-empty {}D data tensor expected but got a tensor with sizes {:?}",
        n + 2,
        x.shape()
    );
    ensure!(
        size.iter().all(|s| *s > 0),
        Runtime,
        "Input and output sizes should be greater than 0, but got input {:?} output {size:?}",
        &x.shape()[2..]
    );
    let bytes = x.dtype() == DType::U8;
    if !bytes {
        want_float(OP, x)?;
    }
    let mut shape: SmallVec<[i64; 6]> = super::nn_misc::signed(&x.shape()[..2]);
    shape.extend_from_slice(size);
    let shape = crate::tensor::shape_arg(OP, &shape)?;
    let (mut from, mut to) = ([1; 3], [1; 3]);
    from[3 - n..].copy_from_slice(&x.shape()[2..]);
    to[3 - n..].copy_from_slice(&shape[2..]);
    if x.shape()[0] == 0 {
        return super::mul(&super::reshape_to(&super::narrow(x, 2, 0, 0)?, &shape)?, 1.0);
    }
    let big = from.iter().chain(&to).any(|s| *s >= i32::MAX as usize);
    ensure!(!big, Runtime, "{OP}: sizes must be below 2**31, but got {:?} and {size:?}", x.shape());
    // The result is made first: what does not fit into memory fails before tables are built.
    let y = Output::new(x, &to, x.dtype())?;
    let names: [&'static str; 3] = match m.mode {
        Mode::Nearest => {
            ["UpsampleNearest1DBackward0", "UpsampleNearest2DBackward0", "UpsampleNearest3DBackward0"]
        }
        Mode::NearestExact => [
            "UpsampleNearestExact1DBackward0",
            "UpsampleNearestExact2DBackward0",
            "UpsampleNearestExact3DBackward0",
        ],
        Mode::Linear => {
            ["UpsampleLinear1DBackward0", "UpsampleBilinear2DBackward0", "UpsampleTrilinear3DBackward0"]
        }
        Mode::Cubic => ["", "UpsampleBicubic2DBackward0", ""],
        Mode::Lanczos => ["", "UpsampleLanczos2DAaBackward0", ""],
    };
    let single = x.dtype() != DType::F64 && !bytes;
    let mut all = Matrices {
        forward: Default::default(),
        backward: Default::default(),
        from,
        to,
        bits: [0; 3],
        name: names[n - 1],
    };
    for d in 3 - n..3 {
        let scale = scales[d + n - 3];
        // The same size and no scale: every mode leaves the dimension as it is.
        if from[d] == to[d] && scale.is_none_or(|s| s == 1.0) {
            continue;
        }
        let mut t = taps(m, from[d], to[d], scale, single);
        if bytes {
            all.bits[d] = quantise(&mut t);
        }
        all.forward[d] = Some(t);
    }
    if needs_grad(&[x]) {
        all.backward = std::array::from_fn(|d| all.forward[d].as_ref().map(Taps::transposed));
    }
    run(x, &Arc::new(all), false, y)
}

/// One direction, recorded as the transpose of the other.
fn run(x: &Tensor, m: &Arc<Matrices>, back: bool, y: Output) -> Result<Tensor> {
    let (taps, from, to) = if back { (&m.backward, m.to, m.from) } else { (&m.forward, m.from, m.to) };
    let y = apply(x, taps, m.bits, from, to, y)?;
    if needs_grad(&[x]) {
        let m = m.clone();
        autograd::attach(m.name, &[x], &[&y], &[], move |cx| {
            let g = cx.grad(0)?;
            let size = if back { m.to } else { m.from };
            let out = Output::new(&g, &size, g.dtype())?;
            Ok(smallvec![Some(run(&g, &m, !back, out)?)])
        });
    }
    Ok(y)
}

/// Room for a result: [N, C, D, H, W] in the order of its input's memory.
struct Output {
    whole: Tensor,
    last: bool,
}

fn channels_last(x: &Tensor) -> bool {
    x.layout().is_channels_last() && !x.is_contiguous()
}

impl Output {
    fn new(x: &Tensor, space: &[usize; 3], dtype: DType) -> Result<Output> {
        let s = x.shape();
        let last = channels_last(x);
        let format = if last { MemoryFormat::ChannelsLast3d } else { MemoryFormat::Contiguous };
        let whole =
            Tensor::empty_format(&[s[0], s[1], space[0], space[1], space[2]], dtype, x.device(), format)?;
        Ok(Output { whole, last })
    }
    /// As a tensor of `n` spatial dimensions.
    fn finish(self, n: usize) -> Tensor {
        let l = self.whole.layout();
        let drop = 3 - n;
        let keep = |v: usize| v < 2 || v >= 2 + drop;
        let pick = |i: &usize| keep(*i);
        let shape: Dims = (0..5).filter(pick).map(|i| l.shape()[i]).collect();
        let strides: SmallVec<[isize; 6]> = (0..5).filter(pick).map(|i| l.strides()[i]).collect();
        Tensor::from_parts(
            self.whole.storage().clone(),
            pyrite_core::Layout::of(&shape, &strides, l.offset()),
            self.whole.dtype(),
        )
    }
}

fn apply<'t>(
    x: &Tensor,
    taps: &'t [Option<Taps>; 3],
    bits: [u32; 3],
    from: [usize; 3],
    to: [usize; 3],
    out: Output,
) -> Result<Tensor> {
    let n = x.ndim() - 2;
    let (batch, c) = (x.shape()[0], x.shape()[1]);
    let (a, inner) = if out.last { (batch, c) } else { (batch * c, 1) };
    // A gradient may come in any order of dimensions; the kernel wants that of the result.
    let format = match (out.last, n) {
        (false, _) => MemoryFormat::Contiguous,
        (true, 3) => MemoryFormat::ChannelsLast3d,
        (true, _) => MemoryFormat::ChannelsLast,
    };
    let x = super::contiguous_format(&x.detach(), format)?;
    let [d, h, w] = from;
    let [dd, hh, ww] = to;
    // (rows, columns, shape before, shape after), each over [A, H, W, C].
    type Step<'a> = (Option<&'a Taps>, Option<&'a Taps>, u32, [usize; 4], [usize; 4]);
    let mut steps: SmallVec<[Step<'t>; 3]> = SmallVec::new();
    let bytes = x.dtype() == DType::U8;
    let plane = |steps: &mut SmallVec<[Step<'t>; 3]>, deep: usize| {
        let images = a * deep;
        if bytes && taps[1].as_ref().is_some() && taps[2].as_ref().is_some() {
            // Bytes are rounded in between, along the width first, as PyTorch and Pillow do it.
            steps.push((None, taps[2].as_ref(), bits[2], [images, h, w, inner], [images, h, ww, inner]));
            steps.push((taps[1].as_ref(), None, bits[1], [images, h, ww, inner], [images, hh, ww, inner]));
        } else if taps[1].as_ref().is_some() || taps[2].as_ref().is_some() {
            let b = bits[1].max(bits[2]);
            steps.push((
                taps[1].as_ref(),
                taps[2].as_ref(),
                b,
                [images, h, w, inner],
                [images, hh, ww, inner],
            ));
        }
    };
    // The dimension that shrinks first: less to do for the others.
    if taps[0].as_ref().is_some() && dd <= d {
        steps.push((taps[0].as_ref(), None, bits[0], [a, d, h * w, inner], [a, dd, h * w, inner]));
        plane(&mut steps, dd);
    } else {
        plane(&mut steps, d);
        if taps[0].as_ref().is_some() {
            steps.push((taps[0].as_ref(), None, bits[0], [a, d, hh * ww, inner], [a, dd, hh * ww, inner]));
        }
    }
    if steps.is_empty() {
        super::copy_raw(&out.whole, &super::reshape_to(&x, &[batch, c, d, h, w])?)?;
        return Ok(out.finish(n));
    }
    let backend = x.backend()?;
    let mut now = x;
    let count = steps.len();
    for (i, (rows, cols, bits, before, after)) in steps.into_iter().enumerate() {
        let next = if i + 1 == count {
            out.whole.clone()
        } else {
            // Halves stay wide between two passes.
            let wide = if bytes { DType::U8 } else { super::nn_misc::compute_type(now.dtype()) };
            Tensor::empty(&after, wide, now.device())?
        };
        let (s, t) = (dense(&before), dense(&after));
        let x = Arr { ptr: now.ptr(), dtype: now.dtype(), shape: &before, strides: &s };
        let y = Arr { ptr: next.ptr(), dtype: next.dtype(), shape: &after, strides: &t };
        backend.resample(Resample { x, y, rows, cols, bits })?;
        now = next;
    }
    Ok(out.finish(n))
}

fn dense(s: &[usize; 4]) -> [isize; 4] {
    [(s[1] * s[2] * s[3]) as isize, (s[2] * s[3]) as isize, s[3] as isize, 1]
}

// ---- the matrices --------------------------------------------------------------------------------

/// The matrix from `n` to `out` positions. PyTorch finds positions in f32 unless the data are f64
/// (`single`): so do we, since a position on the border between two pixels falls to either by rounding.
fn taps(m: Mapping, n: usize, out: usize, scale: Option<f64>, single: bool) -> Taps {
    let single = single || matches!(m.mode, Mode::Nearest | Mode::NearestExact);
    let r = |v: f64| if single { v as f32 as f64 } else { v };
    let ratio = match scale {
        Some(s) if s > 0.0 => r(1.0 / s),
        _ => r(n as f64 / out as f64),
    };
    let mut t = Taps { inputs: n, start: Vec::with_capacity(out + 1), ..Taps::default() };
    t.start.push(0);
    let step = match (m.align_corners, m.mode) {
        (true, Mode::Linear | Mode::Cubic | Mode::Lanczos) if out > 1 => r((n - 1) as f64 / (out - 1) as f64),
        (true, Mode::Linear | Mode::Cubic | Mode::Lanczos) => 0.0,
        _ => ratio,
    };
    if m.antialias {
        filtered(m.mode, n, out, step, &mut t);
        return t;
    }
    let last = n - 1;
    let source = |o: usize| {
        if m.align_corners { r(step * o as f64) } else { r(r(step * r(o as f64 + 0.5)) - 0.5) }
    };
    for o in 0..out {
        match m.mode {
            Mode::Nearest | Mode::NearestExact => {
                let half = if m.mode == Mode::Nearest { 0.0 } else { 0.5 };
                let i = (r(r(o as f64 + half) * step).floor() as usize).min(last);
                t.index.push(i as u32);
                t.weight.push(1.0);
            }
            Mode::Linear => {
                let at = source(o).max(0.0);
                let i = (at as usize).min(last);
                let second = r(at - i as f64).clamp(0.0, 1.0);
                t.index.extend([i as u32, (i + usize::from(i < last)) as u32]);
                t.weight.extend([r(1.0 - second), second]);
            }
            Mode::Cubic | Mode::Lanczos => {
                let at = source(o);
                let i = at.floor();
                let f = r(at - i).clamp(0.0, 1.0);
                for k in 0..4 {
                    let p = (i + k as f64 - 1.0).clamp(0.0, last as f64);
                    t.index.push(p as u32);
                    t.weight.push(cubic((f + 1.0 - k as f64).abs(), -0.75));
                }
            }
        }
        t.start.push(t.index.len() as u32);
    }
    t
}

/// Cubic convolution at distance `x`.
fn cubic(x: f64, a: f64) -> f64 {
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// Filters that widen with the scale (antialiasing), normalised, as Pillow has them.
fn filtered(mode: Mode, n: usize, out: usize, step: f64, t: &mut Taps) {
    let reach = match mode {
        Mode::Cubic => 2.0,
        Mode::Lanczos => 3.0,
        _ => 1.0,
    };
    let sinc = |x: f64| {
        let v = std::f64::consts::PI * x;
        if v == 0.0 { 1.0 } else { v.sin() / v }
    };
    let filter = |x: f64| {
        let x = x.abs();
        match mode {
            Mode::Cubic => cubic(x, -0.5),
            Mode::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Mode::Lanczos => 0.0,
            _ => (1.0 - x).max(0.0),
        }
    };
    let wide = step.max(1.0);
    let support = reach * wide;
    for o in 0..out {
        let centre = step * (o as f64 + 0.5);
        let low = (centre - support + 0.5).max(0.0) as usize;
        let high = ((centre + support + 0.5).max(0.0) as usize).min(n);
        let at = t.weight.len();
        let mut total = 0.0;
        for i in low..high {
            let w = filter((i as f64 - centre + 0.5) / wide);
            total += w;
            t.index.push(i as u32);
            t.weight.push(w);
        }
        if total != 0.0 {
            t.weight[at..].iter_mut().for_each(|w| *w /= total);
        }
        t.start.push(t.index.len() as u32);
    }
}

/// Weights as integers below 2^15 with as many fixed-point digits as fit; returns the digits.
fn quantise(t: &mut Taps) -> u32 {
    if t.weight.iter().all(|w| *w == 1.0) {
        return 0;
    }
    // Taps beyond the border stand on the same pixel: one weight before rounding.
    let (mut index, mut weight, mut start) = (Vec::new(), Vec::<f64>::new(), vec![0u32]);
    for r in t.start.windows(2) {
        let first = index.len();
        for k in r[0] as usize..r[1] as usize {
            if index.len() > first && index.last() == Some(&t.index[k]) {
                if let Some(w) = weight.last_mut() {
                    *w += t.weight[k];
                }
            } else {
                index.push(t.index[k]);
                weight.push(t.weight[k]);
            }
        }
        start.push(index.len() as u32);
    }
    (t.index, t.weight, t.start) = (index, weight, start);
    let most = t.weight.iter().fold(0.0f64, |m, w| m.max(*w));
    let mut bits = 0;
    while bits < 22 && 0.5 + most * f64::from(1u32 << (bits + 1)) < f64::from(1u32 << 15) {
        bits += 1;
    }
    let unit = f64::from(1u32 << bits);
    t.weight.iter_mut().for_each(|w| *w = (*w * unit).round());
    bits
}

fn mapping(a: &Args) -> Result<Mapping> {
    let mode = match a.str(2)? {
        "nearest" => Mode::Nearest,
        "nearest-exact" => Mode::NearestExact,
        "linear" | "bilinear" | "trilinear" => Mode::Linear,
        "bicubic" => Mode::Cubic,
        "lanczos" => Mode::Lanczos,
        other => bail!(NotImplemented, "interpolate: unknown mode '{other}'"),
    };
    let m = Mapping { mode, align_corners: a.bool(3)?, antialias: a.bool(4)? };
    ensure!(
        m.mode != Mode::Lanczos || m.antialias,
        Value,
        "interpolate: mode 'lanczos' requires antialias=True"
    );
    Ok(m)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "interpolate",
        FUNCTION,
        ns = "nn",
        "`input` (N, C, space...) resampled to `size`; `scales`, one for each dimension (0: the ratio of the sizes), say how positions map.",
        "input: Tensor, size: ints, mode: str = 'nearest', align_corners: bool = False, antialias: bool = False, scales: Tensor? = None",
        |a| {
            let n = a.ints(1)?.len();
            let scales = match a.tensor_opt(5)? {
                None => vec![None; n],
                Some(t) => super::to_dtype(t, DType::F64)?
                    .to_vec::<f64>()?
                    .into_iter()
                    .map(|s| (s > 0.0).then_some(s))
                    .collect(),
            };
            Ok(resample(a.tensor(0)?, a.ints(1)?, mapping(a)?, &scales)?.into())
        }
    );
}
