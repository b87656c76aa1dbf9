//! Fourier transforms: one kernel family, closed under differentiation. The gradient of a transform is
//! the transform of the other kind in the other direction, so derivatives of every order are kernels.

use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::{MemoryFormat, Tensor};
use pyrite_core::backend::{Fft, FftKind};
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Device, Dims, Result, bail, ensure, interrupt};
use smallvec::{SmallVec, smallvec};

/// One transform along one dimension, but for its tensors.
#[derive(Clone, Copy)]
struct Spec {
    kind: FftKind,
    dim: usize,
    n: usize,
    /// How long the result is along `dim`: cut or filled with zeros.
    len: usize,
    /// Does the result drop its imaginary part? (`FftKind::Complex` only: the others say it themselves.)
    real: bool,
    forward: bool,
    scale: f64,
    inner: f64,
}

impl Spec {
    /// What takes the gradient of the result to that of an input like `x`.
    fn adjoint(&self, x: &Tensor) -> Spec {
        let (kind, inner) = match self.kind {
            FftKind::Complex => (FftKind::Complex, 1.0),
            // A point of the half spectrum stands for two terms of the sum that makes a real signal.
            FftKind::RealToHalf => (FftKind::HalfToReal, self.inner / 2.0),
            FftKind::HalfToReal => (FftKind::RealToHalf, self.inner * 2.0),
        };
        let len = x.shape().get(self.dim).copied().unwrap_or(1);
        Spec { kind, len, real: !x.dtype().is_complex(), forward: !self.forward, inner, ..*self }
    }
}

fn complex_of(d: DType) -> DType {
    match d {
        DType::F64 | DType::C128 => DType::C128,
        _ => DType::C64,
    }
}

fn real_of(d: DType) -> DType {
    match d {
        DType::F64 | DType::C128 => DType::F64,
        _ => DType::F32,
    }
}

/// Runs one transform, recorded.
fn transform(x: &Tensor, spec: Spec) -> Result<Tensor> {
    let real = match spec.kind {
        FftKind::Complex => spec.real,
        FftKind::RealToHalf => false,
        FftKind::HalfToReal => true,
    };
    let mut shape = Dims::from_slice(x.shape());
    if let Some(s) = shape.get_mut(spec.dim) {
        *s = spec.len;
    }
    let dtype = if real { real_of(x.dtype()) } else { complex_of(x.dtype()) };
    let y = Tensor::empty(&shape, dtype, x.device())?;
    if y.numel() > 0 {
        let (backend, transform) = (
            y.backend()?,
            Fft {
                kind: spec.kind,
                dst: y.arr(),
                src: x.arr(),
                dim: spec.dim,
                n: spec.n,
                forward: spec.forward,
                scale: spec.scale,
                inner: spec.inner,
            },
        );
        interrupt::stoppable_if(y.numel() > 1 << 17, || backend.fft(&transform))?;
    }
    if needs_grad(&[x]) {
        let name = match spec.kind {
            FftKind::Complex => "FftC2CBackward0",
            FftKind::RealToHalf => "FftR2CBackward0",
            FftKind::HalfToReal => "FftC2RBackward0",
        };
        let adjoint = spec.adjoint(x);
        autograd::attach(name, &[x], &[&y], &[], move |cx| {
            Ok(smallvec![Some(transform(&cx.grad(0)?, adjoint)?)])
        });
    }
    Ok(y)
}

/// The input in a dtype that has transforms: integers become the default float.
fn promoted(x: &Tensor) -> Result<Tensor> {
    let d = x.dtype().to_float();
    match d {
        DType::F16 => bail!(Runtime, "Unsupported dtype Half"),
        DType::BF16 => bail!(Runtime, "Unsupported dtype BFloat16"),
        _ if d == x.dtype() => Ok(x.clone()),
        _ => super::to_dtype(x, d),
    }
}

/// The factor of a transform of `n` points.
fn factor(norm: Option<&str>, n: usize, forward: bool) -> Result<f64> {
    Ok(match (norm.unwrap_or("backward"), forward) {
        ("backward", true) | ("forward", false) => 1.0,
        ("backward", false) | ("forward", true) => 1.0 / n as f64,
        ("ortho", _) => 1.0 / (n as f64).sqrt(),
        (other, _) => bail!(Runtime, "Invalid normalization mode: \"{other}\""),
    })
}

fn points(n: i64) -> Result<usize> {
    ensure!(n >= 1, Runtime, "Invalid number of data points ({n}) specified");
    Ok(n as usize)
}

/// Which transform a function stands for.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Complex,
    /// Real input, half the spectrum.
    Half,
    /// Half a spectrum, real output.
    Real,
}

/// Checks that a function for real input got one.
fn check_real(op: &str, form: Form, x: &Tensor, what: &str) -> Result<()> {
    ensure!(
        form != Form::Half || !x.dtype().is_complex(),
        Runtime,
        "{op} expects a {what} input tensor, but got {}",
        x.dtype().legacy_name()
    );
    Ok(())
}

/// The transform of one dimension; `n` as given, or what the input's length suggests.
fn along(
    x: &Tensor,
    form: Form,
    d: usize,
    n: Option<i64>,
    norm: Option<&str>,
    forward: bool,
) -> Result<Tensor> {
    let len = x.shape().get(d).copied().unwrap_or(1) as i64;
    let n = points(n.unwrap_or(if form == Form::Real { 2 * (len - 1) } else { len }))?;
    let (kind, len) = match form {
        Form::Complex => (FftKind::Complex, n),
        Form::Half => (FftKind::RealToHalf, n / 2 + 1),
        Form::Real => (FftKind::HalfToReal, n),
    };
    let x = match form {
        Form::Real if !x.dtype().is_complex() => super::to_dtype(x, complex_of(x.dtype()))?,
        _ => x.clone(),
    };
    let scale = factor(norm, n, forward)?;
    transform(&x, Spec { kind, dim: d, n, len, real: false, forward, scale, inner: 1.0 })
}

/// `fft`, `rfft`, ... along one dimension.
fn one(
    op: &str,
    x: &Tensor,
    form: Form,
    n: Option<i64>,
    dim: i64,
    norm: Option<&str>,
    forward: bool,
) -> Result<Tensor> {
    check_real(op, form, x, "real")?;
    let x = promoted(x)?;
    ensure!(x.ndim() > 0, Index, "Dimension specified as {dim} but tensor has no dimensions");
    let d = wrap_dim(op, dim, x.ndim())?;
    along(&x, form, d, n, norm, forward)
}

/// The dimensions of an n-dimensional transform and their lengths.
fn canonical(
    op: &str,
    x: &Tensor,
    s: Option<&[i64]>,
    dim: Option<&[i64]>,
) -> Result<Vec<(usize, Option<i64>)>> {
    if let (Some(s), Some(d)) = (s, dim) {
        ensure!(s.len() == d.len(), Runtime, "When given, dim and shape arguments must have the same length");
    }
    let dims: Vec<usize> = match (dim, s) {
        (Some(dim), _) => {
            let mut dims = Vec::with_capacity(dim.len());
            for d in dim {
                ensure!(x.ndim() > 0, Index, "Dimension specified as {d} but tensor has no dimensions");
                let d = wrap_dim(op, *d, x.ndim())?;
                ensure!(!dims.contains(&d), Runtime, "FFT dims must be unique");
                dims.push(d);
            }
            dims
        }
        (None, Some(s)) => {
            ensure!(
                s.len() <= x.ndim(),
                Runtime,
                "Got shape with {} values but input tensor only has {} dimensions.",
                s.len(),
                x.ndim()
            );
            (x.ndim() - s.len()..x.ndim()).collect()
        }
        (None, None) => (0..x.ndim()).collect(),
    };
    let sizes = dims.iter().enumerate().map(|(i, _)| s.map(|s| s[i]).filter(|n| *n != -1));
    Ok(dims.iter().copied().zip(sizes).collect())
}

/// `fftn`, `rfftn`, ...: the half spectrum belongs to the last of the dimensions.
fn many(
    op: &str,
    x: &Tensor,
    form: Form,
    s: Option<&[i64]>,
    dim: Option<&[i64]>,
    norm: Option<&str>,
    forward: bool,
) -> Result<Tensor> {
    check_real(op, form, x, "real-valued")?;
    let mut y = promoted(x)?;
    let dims = canonical(op, &y, s, dim)?;
    // All lengths before anything is computed.
    for (i, (d, n)) in dims.iter().enumerate() {
        let len = y.shape().get(*d).copied().unwrap_or(1) as i64;
        let suggested = if form == Form::Real && i + 1 == dims.len() { 2 * (len - 1) } else { len };
        points(n.unwrap_or(suggested))?;
    }
    factor(norm, 1, forward)?;
    if form == Form::Complex {
        for (d, n) in dims.iter().rev() {
            y = along(&y, Form::Complex, *d, *n, norm, forward)?;
        }
        return if y.dtype().is_complex() { Ok(y) } else { super::to_dtype(&y, complex_of(y.dtype())) };
    }
    let Some(((last, n), others)) = dims.split_last() else {
        bail!(Runtime, "{op} must transform at least one axis");
    };
    if form == Form::Half {
        y = along(&y, Form::Half, *last, *n, norm, forward)?;
    }
    for (d, n) in others.iter().rev() {
        y = along(&y, Form::Complex, *d, *n, norm, forward)?;
    }
    if form == Form::Real {
        y = along(&y, Form::Real, *last, *n, norm, forward)?;
    }
    Ok(y)
}

/// The real transform along the last dimension, for `stft`.
pub(super) fn rfft_last(x: &Tensor, onesided: bool, scale: f64) -> Result<Tensor> {
    let dim = x.ndim() - 1;
    let n = x.shape()[dim];
    let (kind, len) = if onesided && !x.dtype().is_complex() {
        (FftKind::RealToHalf, n / 2 + 1)
    } else {
        (FftKind::Complex, n)
    };
    transform(x, Spec { kind, dim, n, len, real: false, forward: true, scale, inner: 1.0 })
}

/// Its inverse, for `istft`: `n` points along the last dimension. A real result comes from the first
/// half of the spectrum alone, as in PyTorch.
pub(super) fn irfft_last(x: &Tensor, n: usize, real: bool, scale: f64) -> Result<Tensor> {
    let dim = x.ndim() - 1;
    let kind = if real { FftKind::HalfToReal } else { FftKind::Complex };
    transform(x, Spec { kind, dim, n, len: n, real: false, forward: false, scale, inner: 1.0 })
}

/// Frequencies from `first` on, in steps of `1 / (n d)`, `n` of them counted.
fn frequencies(a: &Args, op: &str, wrapped: bool) -> Result<Value> {
    let (n, d) = (a.int(0)?, a.float(1)?);
    ensure!(n >= 0, Runtime, "Trying to create tensor with negative dimension {n}: [{n}]");
    let dtype = a.dtype_opt(2)?.unwrap_or(DType::default_float());
    ensure!(dtype.is_differentiable(), Runtime, "{op} requires a floating point or complex dtype");
    let n = n as usize;
    let count = if wrapped { n } else { n / 2 + 1 };
    let x = super::create::arange(0i64.into(), (count as i64).into(), 1i64.into(), DType::F64, Device::Cpu)?;
    let x = if wrapped && n > 0 {
        let half = n.div_ceil(2) as i64;
        let wrap = super::sub(&super::narrow(&x, 0, half, n as i64 - half)?, n as f64)?;
        super::shape::cat(&[super::narrow(&x, 0, 0, half)?, wrap], 0)?
    } else {
        x
    };
    let x = super::mul(&x, 1.0 / (n as f64 * d))?;
    let device = a.device_opt(3)?.unwrap_or_else(crate::config::default_device);
    let y = super::to(&x, dtype, device, false, MemoryFormat::Preserve)?;
    if a.bool(4)? {
        y.set_requires_grad(true)?;
    }
    Ok(y.into())
}

/// `fftshift` and its inverse: a roll by half of each length, rounded down or up.
fn shift(a: &Args, op: &str, up: usize) -> Result<Value> {
    let x = a.tensor(0)?;
    let dims: SmallVec<[i64; 6]> = match a.ints_opt(1)? {
        Some(d) => d.iter().copied().collect(),
        None => (0..x.ndim() as i64).collect(),
    };
    let mut by: SmallVec<[i64; 6]> = SmallVec::new();
    for d in &dims {
        let n = x.shape().get(wrap_dim(op, *d, x.ndim())?).copied().unwrap_or(1);
        by.push(((n + up) / 2) as i64);
    }
    if dims.is_empty() {
        return Ok(super::clone(x)?.into());
    }
    Ok(super::shape::roll(x, &by, &dims)?.into())
}

/// The three functions of a family: along one dimension, along the last two, along any.
macro_rules! family {
    ($list:ident, $form:expr, $forward:literal, $one:literal $two:literal $many:literal, $doc:literal) => {
        op!(
            $list,
            $one,
            FUNCTION | OUT,
            ns = "fft",
            $doc,
            "input: Tensor, n: int? = None, dim: int = -1, norm: str? = None",
            |a| Ok(one($one, a.tensor(0)?, $form, a.int_opt(1)?, a.int(2)?, a.str_opt(3)?, $forward)?.into())
        );
        op!(
            $list,
            $two,
            FUNCTION | OUT,
            ns = "fft",
            "The transform of this kind over two dimensions; `s` are the lengths it cuts or fills them to.",
            "input: Tensor, s: ints? = None, dim: ints = (-2, -1), norm: str? = None",
            |a| Ok(many(
                $two,
                a.tensor(0)?,
                $form,
                a.ints_opt(1)?,
                Some(a.ints(2)?),
                a.str_opt(3)?,
                $forward
            )?
            .into())
        );
        op!(
            $list,
            $many,
            FUNCTION | OUT,
            ns = "fft",
            "The transform of this kind over several dimensions (default: all, or the last `len(s)`), cut or filled to the lengths `s`.",
            "input: Tensor, s: ints? = None, dim: ints? = None, norm: str? = None",
            |a| Ok(many(
                $many,
                a.tensor(0)?,
                $form,
                a.ints_opt(1)?,
                a.ints_opt(2)?,
                a.str_opt(3)?,
                $forward
            )?
            .into())
        );
    };
}

pub fn register(list: &mut Vec<Op>) {
    family!(
        list, Form::Complex, true, "fft" "fft2" "fftn",
        "The discrete Fourier transform along `dim`. The input is cut or filled with zeros to `n` points; `norm` is 'backward' (no factor), 'ortho' (`1/sqrt(n)`) or 'forward' (`1/n`)."
    );
    family!(
        list, Form::Complex, false, "ifft" "ifft2" "ifftn",
        "The inverse of `fft`: with `norm` 'backward' (default) it has the factor `1/n`."
    );
    family!(
        list, Form::Half, true, "rfft" "rfft2" "rfftn",
        "`fft` of a real input: the `n // 2 + 1` points that are not mirror images of others."
    );
    family!(
        list, Form::Real, false, "irfft" "irfft2" "irfftn",
        "The inverse of `rfft`: real, `n` points (default `2 (m - 1)` for an input of m)."
    );
    family!(
        list, Form::Real, true, "hfft" "hfft2" "hfftn",
        "The real spectrum of a signal with Hermitian symmetry, of which the input is one half."
    );
    family!(
        list, Form::Half, false, "ihfft" "ihfft2" "ihfftn",
        "The inverse of `hfft`: half of a Hermitian signal from its real spectrum."
    );
    op!(
        list,
        "fftfreq",
        FUNCTION | OUT,
        ns = "fft",
        "The frequencies of `fft`'s points for samples `d` apart: `[0, 1, ..., -2, -1] / (n d)`.",
        "n: int, d: float = 1.0, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| frequencies(a, "fftfreq", true)
    );
    op!(
        list,
        "rfftfreq",
        FUNCTION | OUT,
        ns = "fft",
        "The frequencies of `rfft`'s points: `[0, 1, ..., n // 2] / (n d)`.",
        "n: int, d: float = 1.0, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| frequencies(a, "rfftfreq", false)
    );
    op!(
        list,
        "fftshift",
        FUNCTION,
        ns = "fft",
        "The zero frequency moved to the middle.",
        "input: Tensor, dim: ints? = None",
        |a| shift(a, "fftshift", 0)
    );
    op!(
        list,
        "ifftshift",
        FUNCTION,
        ns = "fft",
        "The inverse of `fftshift`.",
        "input: Tensor, dim: ints? = None",
        |a| shift(a, "ifftshift", 1)
    );
}
