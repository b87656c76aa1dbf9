//! Convolutions. Three differentiable primitives (forward, gradient for the input, gradient for the
//! weight) are each other's gradients, so every order of differentiation is the same three kernels.
//! 1-d is a height of 1, 3-d a 2-d convolution with the taps in depth as channels, transposed
//! convolution the input gradient.

pub use super::conv_transposed::{Transposed, conv_transpose};
use super::nn_misc::{compute_type, same_device, signed, sizes, want_float};
use super::windows;
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::{MemoryFormat, Tensor};
use pyrite_core::backend::{Conv, ConvGeometry, WindowGeometry};
use pyrite_core::{Device, Dims, Result, bail, ensure, interrupt};
use smallvec::{SmallVec, smallvec};

/// How the borders are filled.
#[derive(Clone, Copy)]
pub enum Padding<'a> {
    Sizes(&'a [i64]),
    Same,
    Valid,
}

// ---- the three primitives on N, C, H, W ----------------------------------------------------------

/// Channels-last data in, channels-last data out.
fn format_of(a: &Tensor, b: &Tensor) -> MemoryFormat {
    let last = |t: &Tensor| t.layout().is_channels_last() && !t.is_contiguous();
    if last(a) || last(b) { MemoryFormat::ChannelsLast } else { MemoryFormat::Contiguous }
}

/// A convolution into new tensors. Nobody sees them before it is done, so it can be interrupted.
fn kernel(out: &Tensor, geo: &ConvGeometry, c: Conv) -> Result<()> {
    let backend = out.backend()?;
    let most = match &c {
        Conv::Forward { x, y, .. } => x.numel().max(y.numel()),
        Conv::Input { dy, dx, .. } => dy.numel().max(dx.numel()),
        Conv::Weight { dy, x, .. } => dy.numel().max(x.numel()),
    };
    interrupt::stoppable_if(most > 1 << 15, || backend.conv(geo, c))
}

fn forward(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geo: ConvGeometry) -> Result<Tensor> {
    let (xs, ws) = (x.shape(), w.shape());
    let out =
        |i: usize| (xs[2 + i] + 2 * geo.pad[i] - geo.dilation[i] * (ws[2 + i] - 1) - 1) / geo.stride[i] + 1;
    let y = Tensor::empty_format(&[xs[0], ws[0], out(0), out(1)], x.dtype(), x.device(), format_of(x, w))?;
    if y.numel() > 0 {
        kernel(&y, &geo, Conv::Forward { x: x.arr(), w: w.arr(), bias: bias.map(Tensor::arr), y: y.arr() })?;
    }
    let inputs: SmallVec<[&Tensor; 3]> = [x, w].into_iter().chain(bias).collect();
    if needs_grad(&inputs) {
        let (need_x, need_w) = (autograd::flows(x), autograd::flows(w));
        let (xshape, wshape): (Dims, Dims) = (xs.into(), ws.into());
        let save = [Save::Opt(need_w.then_some(x)), Save::Opt(need_x.then_some(w))];
        autograd::attach_any("ConvolutionBackward0", &inputs, &[&y], &save, move |cx| {
            let g = cx.grad(0)?;
            if let Some(n) = cx.batch {
                return in_batch(cx, &g, n, geo, &xshape, &wshape);
            }
            let dx = if cx.needs(0) { Some(input_grad(&g, cx.saved(1)?, geo, &xshape)?) } else { None };
            let (dw, db) = if cx.needs(1) {
                weight_and_bias_grad(cx.saved(0)?, &g, geo, &wshape, cx.needs(2) && !cx.create_graph)?
            } else {
                Default::default()
            };
            let db = if cx.needs(2) && db.is_none() {
                Some(super::sum(&g, Some(&[0, 2, 3]), false, None)?)
            } else {
                db
            };
            Ok(smallvec![dx, dw, db])
        });
    }
    Ok(y)
}

/// The backward of [`forward`] for `n` gradients: for the input they are `n` times as many images.
fn in_batch(
    cx: &autograd::Ctx,
    g: &Tensor,
    n: usize,
    geo: ConvGeometry,
    xshape: &[usize],
    wshape: &[usize],
) -> Result<autograd::Grads> {
    let dx = if cx.needs(0) {
        let mut images: Dims = xshape.into();
        images[0] *= n;
        let flat = super::flatten(g, 0, 1)?;
        let dx = input_grad(&flat, cx.saved(1)?, geo, &images)?;
        Some(super::reshape_to(&dx, &cx.batched(xshape))?)
    } else {
        None
    };
    let dw = if cx.needs(1) {
        let rows = (0..n as i64)
            .map(|i| {
                let (dw, _) =
                    weight_and_bias_grad(cx.saved(0)?, &super::select(g, 0, i)?, geo, wshape, false)?;
                dw.ok_or_else(|| pyrite_core::err!(Runtime, "convolution: no weight gradient"))
            })
            .collect::<Result<Vec<_>>>()?;
        Some(match rows.is_empty() {
            true => Tensor::zeros(&cx.batched(wshape), g.dtype(), g.device())?,
            false => super::shape::stack(&rows, 0)?,
        })
    } else {
        None
    };
    let db = if cx.needs(2) { Some(super::sum(g, Some(&[1, 3, 4]), false, None)?) } else { None };
    Ok(smallvec![dx, dw, db])
}

/// The gradient for an input of `shape`; also the forward of a transposed convolution.
pub(super) fn input_grad(dy: &Tensor, w: &Tensor, geo: ConvGeometry, shape: &[usize]) -> Result<Tensor> {
    let format = format_of(dy, w);
    let dx = if dy.numel() == 0 || w.numel() == 0 {
        Tensor::zeros(shape, dy.dtype(), dy.device())?
    } else {
        Tensor::empty_format(shape, dy.dtype(), dy.device(), format)?
    };
    if dx.numel() > 0 && dy.numel() > 0 {
        kernel(&dx, &geo, Conv::Input { dy: dy.arr(), w: w.arr(), dx: dx.arr() })?;
    }
    if needs_grad(&[dy, w]) {
        let save = [Save::Opt(autograd::flows(w).then_some(dy)), Save::Opt(autograd::flows(dy).then_some(w))];
        let wshape: Dims = w.shape().into();
        autograd::attach("ConvolutionInputBackward0", &[dy, w], &[&dx], &save, move |cx| {
            let g = cx.grad(0)?;
            let d = if cx.needs(0) { Some(forward(&g, cx.saved(1)?, None, geo)?) } else { None };
            let dw = if cx.needs(1) {
                weight_and_bias_grad(&g, cx.saved(0)?, geo, &wshape, false)?.0
            } else {
                None
            };
            Ok(smallvec![d, dw])
        });
    }
    Ok(dx)
}

/// The gradient for a weight of `shape`, and in the same pass (untracked) for the bias.
fn weight_and_bias_grad(
    x: &Tensor,
    dy: &Tensor,
    geo: ConvGeometry,
    shape: &[usize],
    bias: bool,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let empty = x.numel() == 0 || dy.numel() == 0;
    let new = |shape: &[usize]| {
        if empty {
            Tensor::zeros(shape, x.dtype(), x.device())
        } else {
            Tensor::empty(shape, x.dtype(), x.device())
        }
    };
    let dw = new(shape)?;
    let db = if bias { Some(new(&shape[..1])?) } else { None };
    if !empty {
        kernel(
            &dw,
            &geo,
            Conv::Weight { dy: dy.arr(), x: x.arr(), dw: dw.arr(), db: db.as_ref().map(Tensor::arr) },
        )?;
    }
    if needs_grad(&[x, dy]) {
        let save = [Save::Opt(autograd::flows(dy).then_some(x)), Save::Opt(autograd::flows(x).then_some(dy))];
        let xshape: Dims = x.shape().into();
        autograd::attach("ConvolutionWeightBackward0", &[x, dy], &[&dw], &save, move |cx| {
            let g = cx.grad(0)?;
            let dx = if cx.needs(0) { Some(input_grad(cx.saved(1)?, &g, geo, &xshape)?) } else { None };
            let ddy = if cx.needs(1) { Some(forward(cx.saved(0)?, &g, None, geo)?) } else { None };
            Ok(smallvec![dx, ddy])
        });
    }
    Ok((Some(dw), db))
}

// ---- checks --------------------------------------------------------------------------------------

/// Ranks, dtypes, devices, channels and bias of a convolution over `n` dimensions. `true`: batched.
pub(super) fn check(
    op: &str,
    n: usize,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    groups: i64,
    transposed: bool,
) -> Result<bool> {
    ensure!(
        x.ndim() == n + 1 || x.ndim() == n + 2,
        Runtime,
        "Expected {}D (unbatched) or {}D (batched) input to {op}, but got input of size: {:?}",
        n + 1,
        n + 2,
        x.shape()
    );
    ensure!(
        w.ndim() == n + 2,
        Runtime,
        "{op}: weight should have {} dimensions, but got weight of size: {:?}",
        n + 2,
        w.shape()
    );
    let all: SmallVec<[&Tensor; 3]> = [x, w].into_iter().chain(bias).collect();
    same_device(op, &all)?;
    for (t, what) in all.iter().zip(["input", "weight", "bias"]) {
        ensure!(
            t.dtype() == x.dtype(),
            Runtime,
            "{op}: Input type ({}) and {what} type ({}) should be the same",
            x.dtype().name(),
            t.dtype().name()
        );
    }
    if !has_other_path(x) {
        want_float(op, x)?;
    }
    ensure!(groups > 0, Runtime, "{op}: non-positive groups is not supported, got groups={groups}");
    let g = groups as usize;
    let channels = x.shape()[x.ndim() - n - 1];
    let (k, c) = (w.shape()[0], w.shape()[1]);
    let outputs = if transposed { c * g } else { k };
    if transposed {
        ensure!(
            channels == k && k % g == 0,
            Shape,
            "Given transposed=1, weight of size {:?}, groups={groups}, expected input{:?} to have {k} channels (a multiple of groups), but got {channels} channels instead",
            w.shape(),
            x.shape()
        );
    } else {
        ensure!(
            k >= g && k % g == 0,
            Shape,
            "Given groups={groups}, expected weight to be at least {groups} at dimension 0 and divisible by it, but got weight of size {:?} instead",
            w.shape()
        );
        ensure!(
            channels == c * g,
            Shape,
            "Given groups={groups}, weight of size {:?}, expected input{:?} to have {} channels, but got {channels} channels instead",
            w.shape(),
            x.shape(),
            c * g
        );
    }
    ensure!(
        w.shape()[2..].iter().all(|s| *s > 0),
        Shape,
        "{op}: weight of size {:?} has an empty kernel",
        w.shape()
    );
    if let Some(b) = bias {
        ensure!(
            b.ndim() == 1 && b.numel() == outputs,
            Shape,
            "Given weight of size {:?}, expected bias to be 1-dimensional with {outputs} elements, but got bias of size {:?} instead",
            w.shape(),
            b.shape()
        );
    }
    Ok(x.ndim() == n + 2)
}

/// Integers and complex numbers have no kernel of their own: one matrix product over columns.
pub(super) fn has_other_path(x: &Tensor) -> bool {
    x.device() == Device::Cpu && (x.dtype().is_int() || x.dtype().is_complex())
}

/// The output exists: the padded input is not smaller than the spread-out kernel.
fn check_fit(x: &[usize], w: &[usize], pad: &[usize], dilation: &[usize]) -> Result<()> {
    let padded: Dims = x[2..].iter().zip(pad).map(|(s, p)| s + 2 * p).collect();
    let kernel: Dims = w[2..].iter().zip(dilation).map(|(k, d)| d * (k - 1) + 1).collect();
    ensure!(
        padded.iter().zip(&kernel).all(|(s, k)| s >= k),
        Shape,
        "Calculated padded input size per channel: {padded:?}. Kernel size: {kernel:?}. Kernel size can't be greater than actual input size"
    );
    Ok(())
}

/// 2-d halves: the kernels of the CPU compute in f32 and f64, so halves travel as f32.
pub(super) fn widened<'a>(ts: [Option<&'a Tensor>; 3]) -> Result<[Option<std::borrow::Cow<'a, Tensor>>; 3]> {
    use std::borrow::Cow;
    let mut out = [None, None, None];
    for (o, t) in out.iter_mut().zip(ts) {
        *o = match t {
            Some(t) if t.device() == Device::Cpu && compute_type(t.dtype()) != t.dtype() => {
                Some(Cow::Owned(super::to_dtype(t, compute_type(t.dtype()))?))
            }
            t => t.map(Cow::Borrowed),
        };
    }
    Ok(out)
}

/// A batched convolution over two dimensions.
fn conv_nchw(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geo: ConvGeometry) -> Result<Tensor> {
    check_fit(x.shape(), w.shape(), &geo.pad, &geo.dilation)?;
    let [Some(wx), Some(ww), wb] = widened([Some(x), Some(w), bias])? else {
        bail!(Runtime, "conv: an operand is missing")
    };
    let y = forward(&wx, &ww, wb.as_deref(), geo)?;
    super::to_dtype(&y, x.dtype())
}

// ---- conv1d, conv2d, conv3d ----------------------------------------------------------------------

/// The arguments of a convolution over `N` dimensions, checked.
struct Setup<const N: usize> {
    x: Tensor,
    batched: bool,
    stride: [usize; N],
    pad: [usize; N],
    dilation: [usize; N],
    groups: usize,
}

impl<const N: usize> Setup<N> {
    fn columns(&self, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let g = window(w, self.stride, self.pad, self.dilation);
        unbatch(windows::conv(&self.x, w, bias, g, self.groups)?, self.batched)
    }
}

/// The windows of a convolution with weight `w`, over three dimensions.
pub(super) fn window<const N: usize>(
    w: &Tensor,
    stride: [usize; N],
    pad: [usize; N],
    dilation: [usize; N],
) -> WindowGeometry {
    let mut kernel = [1; N];
    kernel.copy_from_slice(&w.shape()[2..]);
    WindowGeometry {
        kernel: windows::three(kernel, 1),
        stride: windows::three(stride, 1),
        pad: windows::three(pad, 0),
        dilation: windows::three(dilation, 1),
    }
}

fn setup<const N: usize>(
    op: &str,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    [stride, dilation]: [&[i64]; 2],
    padding: Padding,
    groups: i64,
) -> Result<Setup<N>> {
    let batched = check(op, N, x, w, bias, groups, false)?;
    let stride = sizes::<N>(op, "stride", stride, 1)?;
    let dilation = sizes::<N>(op, "dilation", dilation, 1)?;
    let mut x = if batched { x.clone() } else { super::unsqueeze(x, 0)? };
    let pad = match padding {
        Padding::Sizes(p) => sizes::<N>(op, "padding", p, 0)?,
        Padding::Valid => [0; N],
        Padding::Same => {
            ensure!(
                stride.iter().all(|s| *s == 1),
                Runtime,
                "padding='same' is not supported for strided convolutions"
            );
            let mut pad = [0; N];
            let mut extra: SmallVec<[i64; 6]> = smallvec![0; 2 * N];
            for i in 0..N {
                let total = dilation[i] * (w.shape()[2 + i] - 1);
                pad[i] = total / 2;
                // An odd border gets its additional line at the end, as in TensorFlow and PyTorch.
                extra[2 * (N - 1 - i) + 1] = (total % 2) as i64;
            }
            if extra.iter().any(|e| *e > 0) {
                x = super::pad::pad(&x, &extra, 0.0)?;
            }
            pad
        }
    };
    check_fit(x.shape(), w.shape(), &pad, &dilation)?;
    Ok(Setup { x, batched, stride, pad, dilation, groups: groups as usize })
}

pub(super) fn unbatch(y: Tensor, batched: bool) -> Result<Tensor> {
    if batched { Ok(y) } else { super::squeeze(&y, Some(&[0])) }
}

pub fn conv1d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: &[i64],
    padding: Padding,
    dilation: &[i64],
    groups: i64,
) -> Result<Tensor> {
    let s = setup::<1>("conv1d", x, w, bias, [stride, dilation], padding, groups)?;
    if has_other_path(x) {
        return s.columns(w, bias);
    }
    let geo = ConvGeometry {
        stride: [1, s.stride[0]],
        pad: [0, s.pad[0]],
        dilation: [1, s.dilation[0]],
        groups: s.groups,
    };
    let y = conv_nchw(&super::unsqueeze(&s.x, 2)?, &super::unsqueeze(w, 2)?, bias, geo)?;
    unbatch(super::squeeze(&y, Some(&[2]))?, s.batched)
}

pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: &[i64],
    padding: Padding,
    dilation: &[i64],
    groups: i64,
) -> Result<Tensor> {
    let s = setup::<2>("conv2d", x, w, bias, [stride, dilation], padding, groups)?;
    if has_other_path(x) {
        return s.columns(w, bias);
    }
    let geo = ConvGeometry { stride: s.stride, pad: s.pad, dilation: s.dilation, groups: s.groups };
    unbatch(conv_nchw(&s.x, w, bias, geo)?, s.batched)
}

pub fn conv3d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: &[i64],
    padding: Padding,
    dilation: &[i64],
    groups: i64,
) -> Result<Tensor> {
    let s = setup::<3>("conv3d", x, w, bias, [stride, dilation], padding, groups)?;
    if has_other_path(x) {
        return s.columns(w, bias);
    }
    let [sd, sh, sw] = s.stride;
    let geo = ConvGeometry {
        stride: [sh, sw],
        pad: [s.pad[1], s.pad[2]],
        dilation: [s.dilation[1], s.dilation[2]],
        groups: s.groups,
    };
    let d = s.pad[0] as i64;
    let x = if d > 0 { super::pad::pad(&s.x, &[0, 0, 0, 0, d, d], 0.0)? } else { s.x };
    let n = x.shape()[0];
    let depth = (x.shape()[2] - s.dilation[0] * (w.shape()[2] - 1) - 1) / sd + 1;
    let part = |tap: usize| {
        let first = (tap * s.dilation[0]) as i64;
        let last = first + ((depth - 1) * sd) as i64 + 1;
        super::slice(&x, 2, Some(first), Some(last), sd as i64)
    };
    let taps = w.shape()[2];
    let y = if taps > 1 && x.numel().saturating_mul(taps) <= SIDE_BY_SIDE {
        // The taps in depth as channels, group by group: one convolution instead of a sum of them.
        let mut parts = Vec::with_capacity(taps);
        for tap in 0..taps {
            let p = super::permute(&part(tap)?, &[0, 2, 1, 3, 4])?;
            let groups = [s.groups as i64, (p.shape()[2] / s.groups) as i64];
            parts.push(super::unflatten(&p, 2, &groups)?);
        }
        let all = super::shape::cat(&parts, 3)?;
        let (d, ws) = (signed(all.shape()), signed(w.shape()));
        let images = super::reshape(&all, &[d[0] * d[1], d[2] * d[3], d[4], d[5]])?;
        let w = super::permute(w, &[0, 2, 1, 3, 4])?;
        let w = super::reshape(&w, &[ws[0], ws[2] * ws[1], ws[3], ws[4]])?;
        conv_nchw(&images, &w, bias, geo)?
    } else {
        let mut sum: Option<Tensor> = None;
        for tap in 0..taps {
            // The bias once: with the first tap.
            let b = if tap == 0 { bias } else { None };
            let y = conv_nchw(&fold_depth(&part(tap)?)?, &super::select(w, 2, tap as i64)?, b, geo)?;
            sum = Some(match sum {
                Some(t) => super::add(&t, &y)?,
                None => y,
            });
        }
        let Some(y) = sum else { bail!(Shape, "conv3d: empty kernel") };
        y
    };
    unbatch(unfold_depth(&y, n)?, s.batched)
}

/// Elements up to which `conv3d` lays its taps in depth side by side.
const SIDE_BY_SIDE: usize = 1 << 26;

/// [N, C, D, H, W] as images [N * D, C, H, W].
pub(super) fn fold_depth(x: &Tensor) -> Result<Tensor> {
    let s = signed(x.shape());
    super::reshape(&super::permute(x, &[0, 2, 1, 3, 4])?, &[s[0] * s[2], s[1], s[3], s[4]])
}

pub(super) fn unfold_depth(y: &Tensor, n: usize) -> Result<Tensor> {
    let s = signed(y.shape());
    let n = n as i64;
    let y = super::reshape(y, &[n, s[0] / n.max(1), s[1], s[2], s[3]])?;
    super::contiguous(&super::permute(&y, &[0, 2, 1, 3, 4])?)
}

// ---- registry ------------------------------------------------------------------------------------

type Fwd = fn(&Tensor, &Tensor, Option<&Tensor>, &[i64], Padding, &[i64], i64) -> Result<Tensor>;

/// Complex operands part by part.
fn convolve(a: &Args, f: Fwd, p: Padding) -> Result<Value> {
    let (stride, dilation, groups) = (a.ints(3)?, a.ints(5)?, a.int(6)?);
    let y = super::complex::bilinear(a.tensor(0)?, a.tensor(1)?, a.tensor_opt(2)?, |x, w, b| {
        f(x, w, b, stride, p, dilation, groups)
    });
    Ok(y?.into())
}

fn call(a: &Args, f: Fwd) -> Result<Value> {
    convolve(a, f, Padding::Sizes(a.ints(4)?))
}

fn call_named(a: &Args, f: Fwd) -> Result<Value> {
    let p = match a.str(4)? {
        "same" => Padding::Same,
        "valid" => Padding::Valid,
        other => bail!(Runtime, "Invalid padding string: '{other}' (expected 'same' or 'valid')"),
    };
    convolve(a, f, p)
}

fn call_transposed<const N: usize>(a: &Args) -> Result<Value> {
    let t = Transposed {
        stride: a.ints(3)?,
        padding: a.ints(4)?,
        output_padding: a.ints(5)?,
        groups: a.int(6)?,
        dilation: a.ints(7)?,
    };
    let y = super::complex::bilinear(a.tensor(0)?, a.tensor(1)?, a.tensor_opt(2)?, |x, w, b| {
        conv_transpose::<N>(x, w, b, t)
    });
    Ok(y?.into())
}

macro_rules! convolutions {
    ($list:expr, $($name:literal $tname:literal $f:ident $n:literal);+ $(;)?) => { $(
        convolutions!(@one $list, $name, $f, "");
        convolutions!(@one $list, $name, $f, "nn");
        convolutions!(@transposed $list, $tname, $n, "");
        convolutions!(@transposed $list, $tname, $n, "nn");
    )+ };
    (@one $list:expr, $name:literal, $f:ident, $ns:literal) => {
        op!($list, $name, FUNCTION, ns = $ns, "Convolution of [N, C, space...] with a weight of [K, C / groups, kernel...]; `padding` may be 'same' or 'valid'.",
            "input: Tensor, weight: Tensor, bias: Tensor? = None, stride: ints = 1, padding: ints = 0, dilation: ints = 1, groups: int = 1", |a| call(a, $f);
            "input: Tensor, weight: Tensor, bias: Tensor? = None, stride: ints = 1, padding: str = 'valid', dilation: ints = 1, groups: int = 1", |a| call_named(a, $f));
    };
    (@transposed $list:expr, $name:literal, $n:literal, $ns:literal) => {
        op!($list, $name, FUNCTION, ns = $ns, "Transposed convolution of [N, C, space...] with a weight of [C, K / groups, kernel...].",
            "input: Tensor, weight: Tensor, bias: Tensor? = None, stride: ints = 1, padding: ints = 0, output_padding: ints = 0, groups: int = 1, dilation: ints = 1",
            |a| call_transposed::<$n>(a));
    };
}

pub fn register(list: &mut Vec<Op>) {
    convolutions!(list,
        "conv1d" "conv_transpose1d" conv1d 1;
        "conv2d" "conv_transpose2d" conv2d 2;
        "conv3d" "conv_transpose3d" conv3d 3;
    );
}
