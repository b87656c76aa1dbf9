//! Pooling: 2-d kernels over N, C, H, W. 1-d is a height of 1; windows in 3-d separate into a 2-d
//! pass and one along depth. Every gradient is a linear kernel whose own gradient is the forward
//! (average) or a gather at the saved positions (maximum), so all orders of differentiation exist.

use super::nn_misc::{pick, signed, sizes, want_float};
use super::pool_any;
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::{MemoryFormat, Tensor};
use pyrite_core::backend::{Index, Pool, PoolGeometry, Scatter};
use pyrite_core::{DType, Device, Dims, Result, bail, ensure};
use smallvec::smallvec;

/// The arguments of a pooling over `N` dimensions.
#[derive(Clone, Copy)]
pub struct Window<const N: usize> {
    pub kernel: [usize; N],
    pub stride: [usize; N],
    pub pad: [usize; N],
    pub dilation: [usize; N],
    pub ceil: bool,
}

impl<const N: usize> Window<N> {
    fn new(
        op: &str,
        kernel: &[i64],
        stride: Option<&[i64]>,
        pad: &[i64],
        dilation: &[i64],
        ceil: bool,
    ) -> Result<Window<N>> {
        let k = sizes::<N>(op, "kernel_size", kernel, 1)?;
        let w = Window {
            kernel: k,
            stride: match stride {
                None | Some([]) => k,
                Some(s) => sizes::<N>(op, "stride", s, 1)?,
            },
            pad: sizes::<N>(op, "padding", pad, 0)?,
            dilation: sizes::<N>(op, "dilation", dilation, 1)?,
            ceil,
        };
        for i in 0..N {
            let extent = (w.kernel[i] - 1) * w.dilation[i] + 1;
            ensure!(
                w.pad[i] <= extent / 2,
                Runtime,
                "{op}: pad should be at most half of effective kernel size, but got pad={}, kernel_size={} and dilation={}",
                w.pad[i],
                w.kernel[i],
                w.dilation[i]
            );
        }
        Ok(w)
    }

    /// Output size along dimension `i` of an input of size `n`.
    pub(super) fn out(&self, i: usize, n: usize) -> usize {
        let extent = (self.kernel[i] - 1) * self.dilation[i] + 1;
        let Some(room) = (n + 2 * self.pad[i]).checked_sub(extent) else { return 0 };
        if !self.ceil {
            return room / self.stride[i] + 1;
        }
        let o = room.div_ceil(self.stride[i]) + 1;
        // The last window must start inside the input or its left border.
        if (o - 1) * self.stride[i] >= n + self.pad[i] { o - 1 } else { o }
    }
}

/// One dimension's window as a 2-d one with a height of 1.
fn widen(w: Window<1>) -> Window<2> {
    Window {
        kernel: [1, w.kernel[0]],
        stride: [1, w.stride[0]],
        pad: [0, w.pad[0]],
        dilation: [1, w.dilation[0]],
        ceil: w.ceil,
    }
}

/// The parts of a 3-d window: over H, W, then over depth of [N, C, D, H * W].
fn separate(w: Window<3>) -> (Window<2>, Window<2>) {
    let two = |a: [usize; 3]| [a[1], a[2]];
    let deep = |a: [usize; 3], one| [a[0], one];
    (
        Window {
            kernel: two(w.kernel),
            stride: two(w.stride),
            pad: two(w.pad),
            dilation: two(w.dilation),
            ceil: w.ceil,
        },
        Window {
            kernel: deep(w.kernel, 1),
            stride: deep(w.stride, 1),
            pad: deep(w.pad, 0),
            dilation: deep(w.dilation, 1),
            ceil: w.ceil,
        },
    )
}

fn geometry(w: &Window<2>) -> PoolGeometry {
    PoolGeometry { kernel: w.kernel, stride: w.stride, pad: w.pad, dilation: w.dilation }
}

fn format_of(x: &Tensor) -> MemoryFormat {
    if x.layout().is_channels_last() && !x.is_contiguous() {
        MemoryFormat::ChannelsLast
    } else {
        MemoryFormat::Contiguous
    }
}

/// Rank, dtype and size of an input with `n` pooled dimensions; gives it a batch if it has none.
/// `integral`: integers are taken, too.
fn batched(op: &str, n: usize, x: &Tensor, integral: bool) -> Result<(Tensor, bool)> {
    ensure!(
        x.ndim() == n + 1 || x.ndim() == n + 2,
        Runtime,
        "{op}: Expected {}D or {}D input tensor, but got {:?}",
        n + 1,
        n + 2,
        x.shape()
    );
    if !(integral && x.dtype().is_int() && x.device() == Device::Cpu) {
        want_float(op, x)?;
    }
    let skip = x.ndim() - n - 1;
    ensure!(
        x.shape()[skip..].iter().all(|s| *s > 0),
        Runtime,
        "{op}: Expected input to have non-zero size for non-batch dimensions, but got {:?}",
        x.shape()
    );
    if skip == 1 { Ok((x.clone(), true)) } else { Ok((super::unsqueeze(x, 0)?, false)) }
}

fn unbatch(y: Tensor, batched: bool) -> Result<Tensor> {
    if batched { Ok(y) } else { super::squeeze(&y, Some(&[0])) }
}

fn out_shape(op: &str, x: &Tensor, w: &Window<2>) -> Result<[usize; 4]> {
    let s = x.shape();
    let o = [s[0], s[1], w.out(0, s[2]), w.out(1, s[3])];
    ensure!(
        o[2] > 0 && o[3] > 0,
        Runtime,
        "{op}: Given input size: ({}x{}x{}). Calculated output size: ({}x{}x{}). Output size is too small",
        s[1],
        s[2],
        s[3],
        o[1],
        o[2],
        o[3]
    );
    Ok(o)
}

// ---- maximum -------------------------------------------------------------------------------------

/// Maximum over windows of [N, C, H, W], and the flat position of each in its plane if asked for.
fn max2d(op: &str, x: &Tensor, w: Window<2>, want_idx: bool) -> Result<(Tensor, Option<Tensor>)> {
    let shape = out_shape(op, x, &w)?;
    let grad = needs_grad(&[x]);
    let format = format_of(x);
    let y = Tensor::empty_format(&shape, x.dtype(), x.device(), format)?;
    let idx = if want_idx || grad {
        Some(Tensor::empty_format(&shape, DType::I64, x.device(), format)?)
    } else {
        None
    };
    if y.numel() > 0 {
        y.backend()?
            .pool(&geometry(&w), Pool::Max { x: x.arr(), y: y.arr(), idx: idx.as_ref().map(Tensor::arr) })?;
    }
    if let (true, Some(idx)) = (grad, &idx) {
        let xshape: Dims = x.shape().into();
        autograd::attach("MaxPool2DWithIndicesBackward0", &[x], &[&y], &[Save::Input(idx)], move |cx| {
            Ok(smallvec![Some(max_backward(&cx.grad(0)?, cx.saved(0)?, &xshape, w, format)?)])
        });
    }
    Ok((y, idx))
}

/// Gradients put where the maxima were; its gradient picks them there.
fn max_backward(
    g: &Tensor,
    idx: &Tensor,
    shape: &[usize],
    w: Window<2>,
    format: MemoryFormat,
) -> Result<Tensor> {
    let dx = Tensor::empty_format(shape, g.dtype(), g.device(), format)?;
    if dx.numel() > 0 {
        dx.backend()?.pool(&geometry(&w), Pool::MaxBackward { dy: g.arr(), idx: idx.arr(), dx: dx.arr() })?;
    }
    if needs_grad(&[g]) {
        let at = idx.detach();
        autograd::attach("MaxPoolScatterBackward0", &[g], &[&dx], &[], move |cx| {
            let gg = super::flatten(&cx.grad(0)?, 2, 3)?;
            let flat = super::flatten(&at, 2, -1)?;
            Ok(smallvec![Some(super::reshape(&pick(&gg, &flat, 2)?, &signed(at.shape()))?)])
        });
    }
    Ok(dx)
}

pub(super) type WithIndices = (Tensor, Option<Tensor>);

fn both(y: WithIndices, f: impl Fn(Tensor) -> Result<Tensor>) -> Result<WithIndices> {
    Ok((
        f(y.0)?,
        match y.1 {
            Some(i) => Some(f(i)?),
            None => None,
        },
    ))
}

pub fn max_pool1d(x: &Tensor, w: Window<1>, idx: bool) -> Result<WithIndices> {
    let (x, had) = batched("max_pool1d", 1, x, true)?;
    if x.dtype().is_int() {
        return both(pool_any::max("max_pool1d", &x, w, idx)?, |t| unbatch(t, had));
    }
    let y = max2d("max_pool1d", &super::unsqueeze(&x, 2)?, widen(w), idx)?;
    both(y, |t| unbatch(super::squeeze(&t, Some(&[2]))?, had))
}

pub fn max_pool2d(x: &Tensor, w: Window<2>, idx: bool) -> Result<WithIndices> {
    let (x, had) = batched("max_pool2d", 2, x, true)?;
    if x.dtype().is_int() {
        return both(pool_any::max("max_pool2d", &x, w, idx)?, |t| unbatch(t, had));
    }
    both(max2d("max_pool2d", &x, w, idx)?, |t| unbatch(t, had))
}

pub fn max_pool3d(x: &Tensor, w: Window<3>, idx: bool) -> Result<WithIndices> {
    let (x, had) = batched("max_pool3d", 3, x, true)?;
    if x.dtype().is_int() {
        return both(pool_any::max("max_pool3d", &x, w, idx)?, |t| unbatch(t, had));
    }
    let (flat, deep) = separate(w);
    let s = x.shape();
    let (n, c, d, plane) = (s[0], s[1], s[2], s[3] * s[4]);
    let images = super::reshape(&x, &signed(&[n, c * d, s[3], s[4]]))?;
    let (y, at) = max2d("max_pool3d", &images, flat, idx)?;
    let (oh, ow) = (y.shape()[2], y.shape()[3]);
    let columns = super::reshape(&y, &signed(&[n, c, d, oh * ow]))?;
    let (y, slice) = max2d("max_pool3d", &columns, deep, idx)?;
    let od = y.shape()[2];
    let shape = signed(&[n, c, od, oh, ow]);
    let idx = match (at.filter(|_| idx), slice) {
        (Some(at), Some(slice)) => {
            // The winning slice, then the position inside it that had won there.
            let at = super::reshape(&at, &signed(&[n, c, d * oh * ow]))?;
            let slice = super::reshape(&slice, &signed(&[n, c, od * oh * ow]))?;
            let inside = pick(&at, &slice, 2)?;
            let depth = super::floor_divide(&slice, super::Operand::Number(((oh * ow) as i64).into()))?;
            let start = super::mul(&depth, super::Operand::Number((plane as i64).into()))?;
            Some(super::reshape(&super::add(&start, &inside)?, &shape)?)
        }
        _ => None,
    };
    both((super::reshape(&y, &shape)?, idx), |t| unbatch(t, had))
}

// ---- average -------------------------------------------------------------------------------------

/// What a sum over a window is divided by.
#[derive(Clone, Copy)]
pub struct Divisor {
    pub count_pad: bool,
    pub fixed: Option<f64>,
}

fn avg2d(op: &str, x: &Tensor, w: Window<2>, by: Divisor) -> Result<Tensor> {
    let shape = out_shape(op, x, &w)?;
    average(x, w, by, &shape)
}

fn average(x: &Tensor, w: Window<2>, by: Divisor, shape: &[usize]) -> Result<Tensor> {
    let format = format_of(x);
    let y = Tensor::empty_format(shape, x.dtype(), x.device(), format)?;
    if y.numel() > 0 {
        y.backend()?.pool(
            &geometry(&w),
            Pool::Avg { x: x.arr(), y: y.arr(), count_pad: by.count_pad, divisor: by.fixed },
        )?;
    }
    if needs_grad(&[x]) {
        let xshape: Dims = x.shape().into();
        autograd::attach("AvgPool2DBackward0", &[x], &[&y], &[], move |cx| {
            Ok(smallvec![Some(average_backward(&cx.grad(0)?, w, by, &xshape, format)?)])
        });
    }
    Ok(y)
}

fn average_backward(
    g: &Tensor,
    w: Window<2>,
    by: Divisor,
    shape: &[usize],
    format: MemoryFormat,
) -> Result<Tensor> {
    let dx = Tensor::empty_format(shape, g.dtype(), g.device(), format)?;
    if dx.numel() > 0 {
        dx.backend()?.pool(
            &geometry(&w),
            Pool::AvgBackward { dy: g.arr(), dx: dx.arr(), count_pad: by.count_pad, divisor: by.fixed },
        )?;
    }
    if needs_grad(&[g]) {
        let gshape: Dims = g.shape().into();
        autograd::attach("AvgPool2DBackwardBackward0", &[g], &[&dx], &[], move |cx| {
            Ok(smallvec![Some(average(&cx.grad(0)?, w, by, &gshape)?)])
        });
    }
    Ok(dx)
}

pub fn avg_pool1d(x: &Tensor, w: Window<1>, by: Divisor) -> Result<Tensor> {
    let (x, had) = batched("avg_pool1d", 1, x, true)?;
    if x.dtype().is_int() {
        return unbatch(pool_any::average("avg_pool1d", &x, w, by)?, had);
    }
    let y = avg2d("avg_pool1d", &super::unsqueeze(&x, 2)?, widen(w), by)?;
    unbatch(super::squeeze(&y, Some(&[2]))?, had)
}

pub fn avg_pool2d(x: &Tensor, w: Window<2>, by: Divisor) -> Result<Tensor> {
    let (x, had) = batched("avg_pool2d", 2, x, true)?;
    if x.dtype().is_int() {
        return unbatch(pool_any::average("avg_pool2d", &x, w, by)?, had);
    }
    unbatch(avg2d("avg_pool2d", &x, w, by)?, had)
}

pub fn avg_pool3d(x: &Tensor, w: Window<3>, by: Divisor) -> Result<Tensor> {
    let (x, had) = batched("avg_pool3d", 3, x, true)?;
    if x.dtype().is_int() {
        return unbatch(pool_any::average("avg_pool3d", &x, w, by)?, had);
    }
    let (flat, deep) = separate(w);
    let s = x.shape();
    let (n, c, d) = (s[0], s[1], s[2]);
    // The divisor of a box is the product of both passes' divisors; a fixed one divides once.
    let first = Divisor { fixed: by.fixed.map(|_| 1.0), ..by };
    let y = avg2d("avg_pool3d", &super::reshape(&x, &signed(&[n, c * d, s[3], s[4]]))?, flat, first)?;
    let (oh, ow) = (y.shape()[2], y.shape()[3]);
    let y = avg2d("avg_pool3d", &super::reshape(&y, &signed(&[n, c, d, oh * ow]))?, deep, by)?;
    let od = y.shape()[2];
    unbatch(super::reshape(&y, &signed(&[n, c, od, oh, ow]))?, had)
}

// ---- adaptive ------------------------------------------------------------------------------------

/// No window: the kernels derive it from the sizes.
const ADAPTIVE: PoolGeometry = PoolGeometry { kernel: [1, 1], stride: [1, 1], pad: [0, 0], dilation: [1, 1] };

fn adaptive(x: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    let s = x.shape();
    let format = format_of(x);
    let y = Tensor::empty_format(&[s[0], s[1], size[0], size[1]], x.dtype(), x.device(), format)?;
    if y.numel() > 0 {
        y.backend()?.pool(&ADAPTIVE, Pool::AdaptiveAvg { x: x.arr(), y: y.arr() })?;
    }
    if needs_grad(&[x]) {
        let xshape: Dims = s.into();
        autograd::attach("AdaptiveAvgPool2DBackward0", &[x], &[&y], &[], move |cx| {
            Ok(smallvec![Some(adaptive_backward(&cx.grad(0)?, &xshape, format)?)])
        });
    }
    Ok(y)
}

fn adaptive_backward(g: &Tensor, shape: &[usize], format: MemoryFormat) -> Result<Tensor> {
    if g.numel() == 0 {
        return Tensor::zeros(shape, g.dtype(), g.device());
    }
    let dx = Tensor::empty_format(shape, g.dtype(), g.device(), format)?;
    if dx.numel() > 0 {
        dx.backend()?.pool(&ADAPTIVE, Pool::AdaptiveAvgBackward { dy: g.arr(), dx: dx.arr() })?;
    }
    if needs_grad(&[g]) {
        let size = [g.shape()[2], g.shape()[3]];
        autograd::attach("AdaptiveAvgPool2DBackwardBackward0", &[g], &[&dx], &[], move |cx| {
            Ok(smallvec![Some(adaptive(&cx.grad(0)?, size)?)])
        });
    }
    Ok(dx)
}

pub fn adaptive_avg_pool1d(x: &Tensor, size: &[i64]) -> Result<Tensor> {
    let [n] = sizes::<1>("adaptive_avg_pool1d", "output_size", size, 0)?;
    let (x, had) = batched("adaptive_avg_pool1d", 1, x, false)?;
    unbatch(super::squeeze(&adaptive(&super::unsqueeze(&x, 2)?, [1, n])?, Some(&[2]))?, had)
}

pub fn adaptive_avg_pool2d(x: &Tensor, size: &[i64]) -> Result<Tensor> {
    let size = sizes::<2>("adaptive_avg_pool2d", "output_size", size, 0)?;
    let (x, had) = batched("adaptive_avg_pool2d", 2, x, false)?;
    unbatch(adaptive(&x, size)?, had)
}

pub fn adaptive_avg_pool3d(x: &Tensor, size: &[i64]) -> Result<Tensor> {
    let [od, oh, ow] = sizes::<3>("adaptive_avg_pool3d", "output_size", size, 0)?;
    let (x, had) = batched("adaptive_avg_pool3d", 3, x, false)?;
    let s = x.shape();
    let (n, c, d) = (s[0], s[1], s[2]);
    let y = adaptive(&super::reshape(&x, &signed(&[n, c * d, s[3], s[4]]))?, [oh, ow])?;
    let y = adaptive(&super::reshape(&y, &signed(&[n, c, d, oh * ow]))?, [od, oh * ow])?;
    unbatch(super::reshape(&y, &signed(&[n, c, od, oh, ow]))?, had)
}

/// Maxima put back where they came from: the partial inverse of max pooling. `shape` is the output's.
pub fn max_unpool(x: &Tensor, idx: &Tensor, shape: &[usize]) -> Result<Tensor> {
    ensure!(
        x.shape() == idx.shape() && x.ndim() == shape.len() && x.ndim() > 2 && x.shape()[..2] == shape[..2],
        Shape,
        "max_unpool: input {:?}, indices {:?} and output {shape:?} do not fit",
        x.shape(),
        idx.shape()
    );
    ensure!(
        idx.dtype() == DType::I64,
        Runtime,
        "elements in indices should be type int64 but got: {}",
        idx.dtype()
    );
    let (n, c, len) = (shape[0], shape[1], x.shape()[2..].iter().product::<usize>());
    let plane: usize = shape[2..].iter().product();
    let idx = super::contiguous(&super::reshape_to(&idx.detach(), &[n, c, len])?)?;
    let x = super::reshape_to(x, &[n, c, len])?;
    let y = Tensor::zeros(&[n, c, plane], x.dtype(), x.device())?;
    if x.numel() > 0 {
        // Overlapping windows may name a place twice: the last one stays, nothing is added up.
        y.backend()?.index(Index::Scatter {
            dst: y.arr(),
            src: x.arr(),
            idx: idx.arr(),
            dim: 2,
            how: Scatter::Set,
        })?;
    }
    if needs_grad(&[&x]) {
        autograd::attach("MaxUnpoolBackward0", &[&x], &[&y], &[], move |cx| {
            Ok(smallvec![Some(pick(&cx.grad(0)?, &idx, 2)?)])
        });
    }
    super::reshape_to(&y, shape)
}

// ---- registry ------------------------------------------------------------------------------------

fn window<const N: usize>(a: &Args) -> Result<Window<N>> {
    Window::new(a.op, a.ints(1)?, a.ints_opt(2)?, a.ints(3)?, a.ints(4)?, a.bool(5)?)
}

fn avg_window<const N: usize>(a: &Args) -> Result<(Window<N>, Divisor)> {
    let w = Window::new(a.op, a.ints(1)?, a.ints_opt(2)?, a.ints(3)?, &[1], a.bool(4)?)?;
    let fixed = a.int_opt(6)?;
    ensure!(fixed != Some(0), Runtime, "{}: divisor must be not zero", a.op);
    Ok((w, Divisor { count_pad: a.bool(5)?, fixed: fixed.map(|v| v as f64) }))
}

fn pair(v: WithIndices) -> Result<Value> {
    match v {
        (y, Some(i)) => Ok(Value::Tuple(vec![y, i])),
        _ => bail!(Runtime, "max_pool: no indices"),
    }
}

macro_rules! pools {
    ($list:expr, $ns:literal, $($max:literal $with:literal $avg:literal $adaptive:literal $m:ident $v:ident $d:ident);+ $(;)?) => { $(
        op!($list, $max, FUNCTION, ns = $ns, "The maximum over windows.",
            "input: Tensor, kernel_size: ints, stride: ints? = None, padding: ints = 0, dilation: ints = 1, ceil_mode: bool = False",
            |a| Ok($m(a.tensor(0)?, window(a)?, false)?.0.into()));
        op!($list, $with, FUNCTION, ns = $ns, "The maximum over windows and the flat position of each in its plane.",
            "input: Tensor, kernel_size: ints, stride: ints? = None, padding: ints = 0, dilation: ints = 1, ceil_mode: bool = False",
            |a| pair($m(a.tensor(0)?, window(a)?, true)?));
        op!($list, $avg, FUNCTION | OUT, ns = $ns, "The mean over windows.",
            "input: Tensor, kernel_size: ints, stride: ints? = None, padding: ints = 0, ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int? = None",
            |a| { let (w, by) = avg_window(a)?; Ok($v(a.tensor(0)?, w, by)?.into()) });
        op!($list, $adaptive, FUNCTION, ns = $ns, "The mean over as many nearly equal windows as `output_size` says.",
            "input: Tensor, output_size: ints", |a| Ok($d(a.tensor(0)?, a.ints(1)?)?.into()));
    )+ };
}

pub fn register(list: &mut Vec<Op>) {
    pools!(list, "nn",
        "max_pool1d" "max_pool1d_with_indices" "avg_pool1d" "adaptive_avg_pool1d" max_pool1d avg_pool1d adaptive_avg_pool1d;
        "max_pool2d" "max_pool2d_with_indices" "avg_pool2d" "adaptive_avg_pool2d" max_pool2d avg_pool2d adaptive_avg_pool2d;
        "max_pool3d" "max_pool3d_with_indices" "avg_pool3d" "adaptive_avg_pool3d" max_pool3d avg_pool3d adaptive_avg_pool3d;
    );
    op!(
        list,
        "max_pool1d",
        FUNCTION,
        "The maximum over windows.",
        "input: Tensor, kernel_size: ints, stride: ints? = None, padding: ints = 0, dilation: ints = 1, ceil_mode: bool = False",
        |a| Ok(max_pool1d(a.tensor(0)?, window(a)?, false)?.0.into())
    );
    op!(
        list,
        "max_pool2d",
        FUNCTION,
        "The maximum over windows.",
        "input: Tensor, kernel_size: ints, stride: ints? = None, padding: ints = 0, dilation: ints = 1, ceil_mode: bool = False",
        |a| Ok(max_pool2d(a.tensor(0)?, window(a)?, false)?.0.into())
    );
    op!(
        list,
        "max_pool3d",
        FUNCTION,
        "The maximum over windows.",
        "input: Tensor, kernel_size: ints, stride: ints? = None, padding: ints = 0, dilation: ints = 1, ceil_mode: bool = False",
        |a| Ok(max_pool3d(a.tensor(0)?, window(a)?, false)?.0.into())
    );
    op!(
        list,
        "avg_pool1d",
        FUNCTION,
        "The mean over windows.",
        "input: Tensor, kernel_size: ints, stride: ints? = None, padding: ints = 0, ceil_mode: bool = False, count_include_pad: bool = True",
        |a| {
            let (w, by) = avg_window(a)?;
            Ok(avg_pool1d(a.tensor(0)?, w, by)?.into())
        }
    );
    op!(
        list,
        "adaptive_avg_pool1d",
        FUNCTION,
        "The mean over as many nearly equal windows as `output_size` says.",
        "input: Tensor, output_size: ints",
        |a| Ok(adaptive_avg_pool1d(a.tensor(0)?, a.ints(1)?)?.into())
    );
    op!(
        list,
        "max_unpool",
        FUNCTION,
        ns = "nn",
        "Puts maxima back where they came from; `output_size` is the full shape.",
        "input: Tensor, indices: Tensor, output_size: ints",
        |a| {
            let shape = crate::tensor::shape_arg("max_unpool", a.ints(2)?)?;
            Ok(max_unpool(a.tensor(0)?, a.tensor(1)?, &shape)?.into())
        }
    );
}
