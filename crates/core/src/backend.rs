//! The contract of a device: a dozen kernel families. An op is a row of a family or a variant of a
//! family's enum, never a trait method, so a new op leaves this file's trait alone.
//!
//! Kernels see [`Arr`]s: pointers with dtype, shape and strides. Shapes, ranges and dtypes are
//! checked by `tensor` before a call; a kernel that meets a dtype it does not know returns an error.

use crate::device::Device;
use crate::dtype::{DType, Scalar};
use crate::plan::Plan;
use crate::rows::RowId;
pub use crate::spatial::*;
use crate::storage::Storage;
use crate::{Result, bail};

/// One tensor as a kernel sees it. Strides count elements; `ptr` is the first element.
#[derive(Clone, Copy)]
pub struct Arr<'a> {
    pub ptr: *mut u8,
    pub dtype: DType,
    pub shape: &'a [usize],
    pub strides: &'a [isize],
}

impl Arr<'_> {
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1isize;
        for (&n, &s) in self.shape.iter().zip(self.strides).rev() {
            if n != 1 {
                if s != step {
                    return n == 0;
                }
                step *= n as isize;
            }
        }
        true
    }
}

/// Which formula of a row to run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Formula {
    Forward,
    /// The gradient with respect to input `i`; operands are `out, g, saved...` in the order of
    /// [`crate::rows::Grad::uses`].
    Grad(u8),
}

/// Reductions over some dimensions (`dst` has stride 0 in them).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReduceOp {
    /// A row of the reduction table: one accumulator.
    Row(crate::rows::ReduceId),
    /// Two-pass-free variance; parameter 0 is the correction. `dst2`, if given, gets the mean.
    Var,
    /// As `Var`, then the square root.
    Std,
}

/// Reductions to an index along one dimension, or over everything (`dim = None`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ArgOp {
    Max,
    Min,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScanOp {
    Sum,
    Prod,
    /// Writes the running extremum to `dst` and its index to `idx`.
    Max,
    Min,
    LogSumExp,
}

/// What happens to a GEMM's result at the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Activation {
    #[default]
    None,
    Relu,
}

/// `c = act(alpha * a @ b + beta * c + bias)`. All three are [batch, rows, cols] with any strides
/// (0 allowed in the batch dimension of `a` and `b`); `bias` is a vector along the columns.
pub struct Gemm<'a> {
    pub a: Arr<'a>,
    pub b: Arr<'a>,
    pub c: Arr<'a>,
    pub bias: Option<Arr<'a>>,
    pub alpha: f64,
    pub beta: f64,
    pub activation: Activation,
}

/// A 2-d convolution; 1-d is H = 1. Tensors are logical N, C, H, W with any strides; the weight is
/// K, C / groups, R, S.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConvGeometry {
    pub stride: [usize; 2],
    pub pad: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
}

pub enum Conv<'a> {
    Forward {
        x: Arr<'a>,
        w: Arr<'a>,
        bias: Option<Arr<'a>>,
        y: Arr<'a>,
    },
    /// The gradient with respect to the input (and the forward of a transposed convolution).
    Input {
        dy: Arr<'a>,
        w: Arr<'a>,
        dx: Arr<'a>,
    },
    /// The gradients of weight and, if given, bias, in one pass.
    Weight {
        dy: Arr<'a>,
        x: Arr<'a>,
        dw: Arr<'a>,
        db: Option<Arr<'a>>,
    },
}

/// 2-d pooling over the last two dimensions of N, C, H, W.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PoolGeometry {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub pad: [usize; 2],
    pub dilation: [usize; 2],
}

pub enum Pool<'a> {
    /// `idx` (i64, flat position in the H x W plane) may be left out when nobody needs it.
    Max {
        x: Arr<'a>,
        y: Arr<'a>,
        idx: Option<Arr<'a>>,
    },
    /// `dx` is overwritten.
    MaxBackward {
        dy: Arr<'a>,
        idx: Arr<'a>,
        dx: Arr<'a>,
    },
    /// `divisor`: a fixed one, or the window's size with (`count_pad`) or without padding.
    Avg {
        x: Arr<'a>,
        y: Arr<'a>,
        count_pad: bool,
        divisor: Option<f64>,
    },
    AvgBackward {
        dy: Arr<'a>,
        dx: Arr<'a>,
        count_pad: bool,
        divisor: Option<f64>,
    },
    /// Windows from floor(i*in/out) to ceil((i+1)*in/out).
    AdaptiveAvg {
        x: Arr<'a>,
        y: Arr<'a>,
    },
    AdaptiveAvgBackward {
        dy: Arr<'a>,
        dx: Arr<'a>,
    },
}

/// How scattered values meet what is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scatter {
    Set,
    Add,
    Mul,
    Max,
    Min,
}

/// Indices are i64 or i32 and not negative unless said; kernels check their range.
pub enum Index<'a> {
    /// `dst[.., i, ..] = src[.., idx[i], ..]` along `dim`; `idx` is 1-d.
    Select { dst: Arr<'a>, src: Arr<'a>, idx: Arr<'a>, dim: usize },
    /// `dst[.., idx[i], ..] (op)= src[.., i, ..]`.
    SelectInto { dst: Arr<'a>, src: Arr<'a>, idx: Arr<'a>, dim: usize, how: Scatter },
    /// `torch.gather`.
    Gather { dst: Arr<'a>, src: Arr<'a>, idx: Arr<'a>, dim: usize },
    /// `torch.scatter*`; `src` has the shape of `idx`.
    Scatter { dst: Arr<'a>, src: Arr<'a>, idx: Arr<'a>, dim: usize, how: Scatter },
    /// `dst = src[idx...]`: `src`'s first `idx.len()` dimensions are indexed, all `idx` have one
    /// shape (broadcast before); `dst` is that shape followed by `src`'s other dimensions. Negative
    /// indices count from the end. `dims`: the indexed dimensions' numbers, for messages.
    Take { dst: Arr<'a>, src: Arr<'a>, idx: &'a [Arr<'a>], dims: &'a [usize] },
    /// `dst[idx...] (op)= src`.
    Put { dst: Arr<'a>, src: Arr<'a>, idx: &'a [Arr<'a>], dims: &'a [usize], how: Scatter },
    /// Writes `src` where `mask` is true to the dense 1-d `dst`, in row-major order.
    MaskedSelect { dst: Arr<'a>, src: Arr<'a>, mask: Arr<'a> },
    /// The other way round: `dst[mask] = src[0..]`, `src` dense 1-d.
    MaskedScatter { dst: Arr<'a>, src: Arr<'a>, mask: Arr<'a> },
    /// The positions of non-zero elements as rows of an [n, ndim] i64 array.
    Nonzero { dst: Arr<'a>, src: Arr<'a> },
}

/// Which element of a line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rank {
    /// The one with `k` others before it; NaN counts as the greatest.
    Kth(usize),
    /// The lower median; NaN if there is one.
    Median,
    /// The lower median of what is not NaN.
    NanMedian,
}

/// Order along a dimension, beyond `sort` and `topk`. Positions are i64.
pub enum Order<'a> {
    /// `sort` ascending without the positions.
    Sorted { values: Arr<'a>, src: Arr<'a>, dim: usize },
    /// `values` and `idx` have size 1 in `dim`; of equal elements the first counts.
    Rank { values: Arr<'a>, idx: Arr<'a>, src: Arr<'a>, dim: usize, rank: Rank },
    /// The most frequent element (the smallest of several), and its last position.
    Mode { values: Arr<'a>, idx: Arr<'a>, src: Arr<'a>, dim: usize },
    /// Where each of `values` belongs in its line of `seq` (a vector, or lines along the last
    /// dimension), which `sorter` puts in order if it is not; `dst` is i64 or i32.
    Search { dst: Arr<'a>, seq: Arr<'a>, values: Arr<'a>, sorter: Option<Arr<'a>>, right: bool },
    /// The stable order of the rows of an [n, m] array.
    Rows { idx: Arr<'a>, src: Arr<'a> },
}

/// Fused kernels over rows: the array is `[rows, n]` with the row contiguous unless said otherwise.
/// The row length is the last dimension.
pub enum Rowwise<'a> {
    Softmax {
        x: Arr<'a>,
        y: Arr<'a>,
        log: bool,
    },
    /// From the output `y`.
    SoftmaxBackward {
        dy: Arr<'a>,
        y: Arr<'a>,
        dx: Arr<'a>,
        log: bool,
    },
    /// Weighted negative log-likelihood straight from logits. `loss[rows]` (unreduced), `lse[rows]`
    /// kept for backward. Rows whose target is `ignore` give 0.
    CrossEntropy {
        x: Arr<'a>,
        target: Arr<'a>,
        weight: Option<Arr<'a>>,
        ignore: i64,
        smoothing: f64,
        loss: Arr<'a>,
        lse: Arr<'a>,
    },
    /// `scale[rows]` is the incoming gradient of each row's loss (0 for ignored rows).
    CrossEntropyBackward {
        x: Arr<'a>,
        target: Arr<'a>,
        weight: Option<Arr<'a>>,
        ignore: i64,
        smoothing: f64,
        lse: Arr<'a>,
        scale: Arr<'a>,
        dx: Arr<'a>,
    },
    /// `rms`: RMSNorm (no mean). `mean` and `rstd` are per row, kept for backward.
    LayerNorm {
        x: Arr<'a>,
        w: Option<Arr<'a>>,
        b: Option<Arr<'a>>,
        y: Arr<'a>,
        mean: Option<Arr<'a>>,
        rstd: Arr<'a>,
        eps: f64,
        rms: bool,
    },
    LayerNormBackward {
        dy: Arr<'a>,
        x: Arr<'a>,
        w: Option<Arr<'a>>,
        mean: Option<Arr<'a>>,
        rstd: Arr<'a>,
        dx: Option<Arr<'a>>,
        dw: Option<Arr<'a>>,
        db: Option<Arr<'a>>,
        rms: bool,
    },
    /// Statistics over N and space for each channel of `x` [N, C, L] (any strides): mean and biased
    /// variance, in the compute type.
    BatchStats {
        x: Arr<'a>,
        mean: Arr<'a>,
        var: Arr<'a>,
    },
    /// `y = (x - mean) * rstd * w + b` per channel.
    BatchNorm {
        x: Arr<'a>,
        mean: Arr<'a>,
        rstd: Arr<'a>,
        w: Option<Arr<'a>>,
        b: Option<Arr<'a>>,
        y: Arr<'a>,
    },
    /// Gradients of training-mode (`training`) or evaluation-mode batch norm.
    BatchNormBackward {
        dy: Arr<'a>,
        x: Arr<'a>,
        mean: Arr<'a>,
        rstd: Arr<'a>,
        w: Option<Arr<'a>>,
        dx: Option<Arr<'a>>,
        dw: Option<Arr<'a>>,
        db: Option<Arr<'a>>,
        training: bool,
    },
    /// `y = log(sum(exp(x)))` along the row.
    LogSumExp {
        x: Arr<'a>,
        y: Arr<'a>,
    },
}

/// Where the Philox stream stands: results depend only on these two numbers and the element index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Philox {
    pub seed: u64,
    pub offset: u64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Random {
    /// Uniform in [lo, hi).
    Uniform {
        lo: f64,
        hi: f64,
    },
    Normal {
        mean: f64,
        std: f64,
    },
    /// Integers in [lo, hi).
    Integers {
        lo: i64,
        hi: i64,
    },
    /// 1 with probability p.
    Bernoulli {
        p: f64,
    },
    Exponential {
        rate: f64,
    },
    Cauchy {
        median: f64,
        sigma: f64,
    },
    LogNormal {
        mean: f64,
        std: f64,
    },
    Geometric {
        p: f64,
    },
}

/// What a Fourier transform reads and writes. "Half" is the spectrum of a real signal: `n / 2 + 1` points.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FftKind {
    /// `n` points to `n` points; a real source has no imaginary part, a real destination drops it.
    Complex,
    /// `n` real points to the half spectrum.
    RealToHalf,
    /// A half spectrum to `n` real points; the imaginary parts of its ends count as 0.
    HalfToReal,
}

/// A transform along `dim`, unnormalised but for the factors. Both arrays have one precision; their
/// shapes agree except in `dim`, where the source is cut or filled with zeros to what `n` asks for, and
/// the destination likewise. They do not overlap, or are the same array.
pub struct Fft<'a> {
    pub kind: FftKind,
    pub dst: Arr<'a>,
    pub src: Arr<'a>,
    pub dim: usize,
    pub n: usize,
    /// The sign of the exponent: minus if forward. (The natural one of `HalfToReal` is plus.)
    pub forward: bool,
    pub scale: f64,
    /// A further factor for those points of a half spectrum that have a mirror image.
    pub inner: f64,
}

/// One parameter's buffers for a fused optimizer step; all dense, same length. Which of `state` are
/// used depends on the step.
pub struct OptimParam<'a> {
    pub p: Arr<'a>,
    pub g: Arr<'a>,
    pub state: [Option<Arr<'a>>; 3],
}

/// Fused multi-tensor optimizer steps (formulas of PyTorch's documentation).
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum OptimStep {
    /// state: momentum buffer.
    Sgd {
        lr: f64,
        momentum: f64,
        dampening: f64,
        weight_decay: f64,
        nesterov: bool,
        maximize: bool,
        first: bool,
    },
    /// state: exp_avg, exp_avg_sq, max_exp_avg_sq (amsgrad).
    Adam {
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
        decoupled: bool,
        amsgrad: bool,
        maximize: bool,
        step: u64,
    },
    /// state: square_avg, momentum buffer, grad_avg (centered).
    RmsProp {
        lr: f64,
        alpha: f64,
        eps: f64,
        weight_decay: f64,
        momentum: f64,
        centered: bool,
        maximize: bool,
    },
}

/// What a device can do. Object-safe: one virtual call per op.
pub trait Backend: Send + Sync {
    fn device(&self) -> Device;
    /// Uninitialised bytes (at least 64-byte aligned). Errors are [`crate::error::Kind::OutOfMemory`].
    fn alloc(&self, bytes: usize) -> Result<Storage>;
    /// Zeroed bytes.
    fn alloc_zeroed(&self, bytes: usize) -> Result<Storage>;
    /// Copies bytes between this device and the host (`to_host`: from `device_ptr` to `host`).
    ///
    /// # Safety
    /// Both ranges must be valid for `bytes` bytes.
    unsafe fn transfer(&self, host: *mut u8, device_ptr: *mut u8, bytes: usize, to_host: bool) -> Result<()>;
    /// Waits until everything queued is done.
    fn synchronize(&self) -> Result<()>;

    fn fill(&self, dst: Arr, value: Scalar) -> Result<()>;
    /// `dst = src` with conversion; same shape, any strides (a broadcast `src` has stride 0).
    fn copy(&self, dst: Arr, src: Arr) -> Result<()>;
    /// An elementwise row over a plan (operand 0 is the output). `compute` is the dtype the formula
    /// runs in; operands of other dtypes are converted on load and store.
    fn map(&self, row: RowId, formula: Formula, compute: DType, plan: &Plan, params: &[Scalar])
    -> Result<()>;
    /// `dst` has the rank of `src`, with size 1 in the reduced dimensions.
    fn reduce(&self, op: ReduceOp, dst: Arr, dst2: Option<Arr>, src: Arr, params: &[f64]) -> Result<()>;
    /// `idx` (i64) and `values` have size 1 in `dim`. The first of equal elements wins; NaN wins over all.
    fn arg_reduce(&self, op: ArgOp, idx: Arr, values: Option<Arr>, src: Arr, dim: usize) -> Result<()>;
    fn scan(&self, op: ScanOp, dst: Arr, idx: Option<Arr>, src: Arr, dim: usize) -> Result<()>;
    /// Stable sort along `dim`, NaN last in ascending order; `idx` (i64) gets the positions.
    fn sort(&self, values: Arr, idx: Arr, src: Arr, dim: usize, descending: bool) -> Result<()>;
    /// The `k = values.shape[dim]` largest (or smallest) along `dim`, sorted.
    fn topk(&self, values: Arr, idx: Arr, src: Arr, dim: usize, largest: bool) -> Result<()>;
    fn order(&self, o: Order) -> Result<()> {
        let _ = o;
        unsupported(self.device(), "order")
    }
    fn gemm(&self, g: &Gemm) -> Result<()>;
    fn conv(&self, geometry: &ConvGeometry, c: Conv) -> Result<()>;
    fn pool(&self, geometry: &PoolGeometry, p: Pool) -> Result<()>;
    fn index(&self, i: Index) -> Result<()>;
    fn resample(&self, _: Resample) -> Result<()> {
        unsupported(self.device(), "interpolation")
    }
    fn windows(&self, _: &WindowGeometry, _: Windows) -> Result<()> {
        unsupported(self.device(), "unfold and fold (sliding windows)")
    }
    fn grid(&self, _: GridMode, _: Grid) -> Result<()> {
        unsupported(self.device(), "grid_sample")
    }
    fn ctc(&self, _: Ctc) -> Result<()> {
        unsupported(self.device(), "ctc_loss")
    }
    fn bag(&self, _: Bags) -> Result<()> {
        unsupported(self.device(), "embedding_bag")
    }
    fn rowwise(&self, r: Rowwise) -> Result<()>;
    /// Fills the dense `dst`. Returns nothing about the stream: `rng::draws` says how far it moves.
    fn random(&self, dist: Random, at: Philox, dst: Arr) -> Result<()>;
    /// `y = keep ? x * scale : 0`, `mask = keep`, keep with probability `1 - p`.
    fn dropout(&self, at: Philox, p: f64, x: Arr, y: Arr, mask: Arr) -> Result<()>;
    fn optim(&self, step: OptimStep, params: &[OptimParam]) -> Result<()>;
    fn fft(&self, f: &Fft) -> Result<()>;
    /// Memory statistics by name, as in `cuda.memory_stats`.
    fn memory_stats(&self) -> Vec<(&'static str, u64)>;
    /// Returns cached blocks to the system.
    fn empty_cache(&self);
    fn reset_peak_stats(&self);
}

/// A family that a backend does not have yet answers with this.
pub fn unsupported<T>(device: Device, family: &str) -> Result<T> {
    bail!(
        NotImplemented,
        "{family} is not implemented on device {device}; move the tensors to the CPU with .cpu()"
    )
}
