//! Tensors from nothing: constants, ranges, identity.

use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::{MemoryFormat, Tensor, shape_arg};
use pyrite_core::{DType, Device, Layout, Result, Scalar, bail, ensure};

pub use super::draws::{fill_random, random, randperm};

/// `dtype`, `device`, `requires_grad` of a creation call, at argument positions.
pub(super) struct Options {
    pub(super) dtype: DType,
    pub(super) device: Device,
    pub(super) requires_grad: bool,
}

pub(super) fn options(a: &Args, at: usize, default: DType) -> Result<Options> {
    Ok(Options {
        dtype: a.dtype_opt(at)?.unwrap_or(default),
        device: a.device_opt(at + 1)?.unwrap_or_else(crate::config::default_device),
        requires_grad: a.bool(at + 2)?,
    })
}

pub(super) fn like(a: &Args, at: usize) -> Result<(Options, Layout)> {
    let t = a.tensor(0)?;
    let o = Options {
        dtype: a.dtype_opt(at)?.unwrap_or(t.dtype()),
        device: a.device_opt(at + 1)?.unwrap_or(t.device()),
        requires_grad: a.bool(at + 2)?,
    };
    let l = match a.memory_format_opt(at + 3)?.unwrap_or(MemoryFormat::Preserve) {
        MemoryFormat::Preserve => super::like_layout(t),
        f => Tensor::empty_format(t.shape(), DType::Bool, Device::Cpu, f)?.layout().clone(),
    };
    Ok((o, l))
}

pub(super) fn finish(t: Tensor, requires_grad: bool) -> Result<Value> {
    if requires_grad {
        t.set_requires_grad(true)?;
    }
    Ok(t.into())
}

pub(super) fn filled(l: Layout, v: Scalar, o: &Options) -> Result<Value> {
    super::check_fits(v, o.dtype)?;
    let t = Tensor::empty_strided(l, o.dtype, o.device)?;
    if t.numel() > 0 {
        t.backend()?.fill(t.arr(), v)?;
    }
    finish(t, o.requires_grad)
}

/// `n` values in memory that may be refused: a size comes from the user, and `collect` would abort the process.
pub(super) fn listed<T>(op: &str, n: usize, f: impl Fn(usize) -> T) -> Result<Vec<T>> {
    let mut v = Vec::new();
    if v.try_reserve_exact(n).is_err() {
        bail!(OutOfMemory, "{op}: cannot allocate {n} elements");
    }
    v.extend((0..n).map(f));
    Ok(v)
}

pub fn arange(start: Scalar, end: Scalar, step: Scalar, dtype: DType, device: Device) -> Result<Tensor> {
    for v in [start, end, step] {
        super::complex::check_number("arange", v, DType::F64)?;
    }
    ensure!(
        dtype.is_int() || dtype.is_float(),
        NotImplemented,
        "\"arange\" not implemented for '{}'",
        dtype.name()
    );
    let (s, e, d) = (start.f64(), end.f64(), step.f64());
    ensure!(s.is_finite() && e.is_finite(), Runtime, "arange: unsupported range: {s} -> {e}");
    ensure!(d != 0.0 && !d.is_nan(), Runtime, "arange: step must be nonzero");
    ensure!(
        (d > 0.0 && e >= s) || (d < 0.0 && e <= s),
        Runtime,
        "arange: upper bound and lower bound inconsistent with step sign"
    );
    // Integers count in integers, whatever the ends are given as; but how many there are is found with the
    // ends as given, unless the integers are int64 (PyTorch's rule).
    let (n_int, n_float) = (dtype == DType::I64, ((e - s) / d).ceil());
    let (start, end, step) =
        if dtype.is_int() && [start, end, step].iter().any(|x| matches!(x, Scalar::Float(_))) {
            ensure!(
                step.i64() != 0,
                Value,
                "arange: step must be nonzero (it is {d} before it becomes {})",
                dtype.name()
            );
            (Scalar::Int(start.i64()), Scalar::Int(end.i64()), Scalar::Int(step.i64()))
        } else {
            (start, end, step)
        };
    let all_int = [start, end, step].iter().all(|x| !matches!(x, Scalar::Float(_)));
    let given_as_float = s.fract() != 0.0 || e.fract() != 0.0 || d.fract() != 0.0;
    let n = if all_int && (n_int || !given_as_float) {
        let (s, e, d) = (start.i64() as i128, end.i64() as i128, step.i64() as i128);
        ((e - s + d - d.signum()) / d) as f64
    } else {
        n_float
    };
    ensure!(n < isize::MAX as f64 / 16.0, Runtime, "arange: invalid size, possible overflow? ({n} elements)");
    let n = n.max(0.0) as usize;
    pyrite_core::layout::numel(&[n])?;
    let host = if dtype.is_float() || !all_int {
        let v = listed("arange", n, |i| s + i as f64 * d)?;
        Tensor::from_slice(&v, &[n])?
    } else {
        let (s, d) = (start.i64(), step.i64());
        let v = listed("arange", n, |i| s.wrapping_add((i as i64).wrapping_mul(d)))?;
        Tensor::from_slice(&v, &[n])?
    };
    super::to(&host, dtype, device, false, MemoryFormat::Preserve)
}

/// `steps` values from `start` to `end`, both included; exact at both ends. For an integer `dtype` the ends are cut
/// to integers first.
fn ramp(start: f64, end: f64, steps: i64, dtype: DType) -> Result<Vec<f64>> {
    let (start, end) = if dtype.is_int() { (start.trunc(), end.trunc()) } else { (start, end) };
    ensure!(steps >= 0, Runtime, "number of steps must be non-negative");
    pyrite_core::layout::numel(&[steps as usize])?;
    let n = steps as usize;
    let step = if n > 1 { (end - start) / (n - 1) as f64 } else { 0.0 };
    listed("linspace", n, |i| {
        if i < n / 2 || n == 1 { start + step * i as f64 } else { end - step * (n - 1 - i) as f64 }
    })
}

fn real_end(op: &str, s: Scalar) -> Result<f64> {
    ensure!(
        !matches!(s, Scalar::Complex(..)),
        NotImplemented,
        "{op}: complex ends are not supported; combine the ranges of the parts with torch.complex"
    );
    Ok(s.f64())
}

/// A range between complex ends: part by part.
fn complex_ramp(a: &Args, o: &Options) -> Result<Option<Tensor>> {
    let end = |i: usize| match a.operand(i)? {
        super::Operand::Tensor(t) if t.ndim() == 0 => t.item(),
        super::Operand::Number(s) => Ok(s),
        _ => Ok(Scalar::Int(0)), // refused with its reason by `range_value`
    };
    let parts = |s: Scalar| match s {
        Scalar::Complex(re, im) => (re, im),
        s => (s.f64(), 0.0),
    };
    let ends = [end(0)?, end(1)?];
    if !ends.iter().any(|s| matches!(s, Scalar::Complex(..))) {
        return Ok(None);
    }
    let (from, to) = (parts(ends[0]), parts(ends[1]));
    let (re, im) = (ramp(from.0, to.0, a.int(2)?, DType::F64)?, ramp(from.1, to.1, a.int(2)?, DType::F64)?);
    let t = super::complex::complex(
        &Tensor::from_slice(&re, &[re.len()])?,
        &Tensor::from_slice(&im, &[im.len()])?,
    )?;
    let given = !a.is_none(if a.op == "logspace" { 4 } else { 3 });
    let dtype = if given { o.dtype } else { o.dtype.complex() };
    ensure!(dtype.is_complex(), Runtime, "{}: the ends are complex, but dtype {} is not", a.op, dtype.name());
    super::to(&t, dtype, o.device, false, MemoryFormat::Preserve).map(Some)
}

fn no_bool_ramp(op: &str, d: DType) -> Result<()> {
    ensure!(!d.is_bool(), NotImplemented, "\"{op}\" not implemented for 'Bool'");
    Ok(())
}

/// An end of `linspace` or `logspace`: a number, or a 0-d tensor.
fn range_value(a: &Args, i: usize) -> Result<f64> {
    if let super::Operand::Tensor(t) = a.operand(i)? {
        ensure!(
            t.ndim() == 0,
            Runtime,
            "{} only supports 0-dimensional start and end tensors, but got {} with {} dimension(s).",
            a.op,
            if i == 0 { "start" } else { "end" },
            t.ndim()
        );
        return real_end(a.op, t.item()?);
    }
    real_end(a.op, a.number(i)?)
}

pub fn eye(n: usize, m: usize, dtype: DType, device: Device) -> Result<Tensor> {
    let t = Tensor::zeros(&[n, m], dtype, device)?;
    let d = super::with_layout(&t, t.layout().diagonal(0, 0, 1)?);
    if d.numel() > 0 {
        d.backend()?.fill(d.arr(), Scalar::Int(1))?;
    }
    Ok(t)
}

/// Uninitialised memory under any strides.
fn strided(op: &str, size: &[i64], stride: &[i64], o: &Options) -> Result<Value> {
    let shape = shape_arg(op, size)?;
    ensure!(
        stride.len() == size.len(),
        Runtime,
        "{op}: dimensionality of sizes ({}) must match dimensionality of strides ({})",
        size.len(),
        stride.len()
    );
    ensure!(stride.iter().all(|s| *s >= 0), Runtime, "{op}: strides must be non-negative, got {stride:?}");
    let strides: smallvec::SmallVec<[isize; 6]> = stride.iter().map(|s| *s as isize).collect();
    let l = Layout::as_strided(&shape, &strides, 0, usize::MAX >> 8)?;
    let need = l.extent().map_or(0, |e| e.1 as usize + 1);
    let flat = Tensor::empty(&[need], o.dtype, o.device)?;
    finish(super::with_layout(&flat, l), o.requires_grad)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "zeros",
        FUNCTION | OUT,
        "A tensor of zeros.",
        "size: size, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let o = options(a, 1, DType::default_float())?;
            finish(Tensor::zeros(&shape_arg("zeros", a.ints(0)?)?, o.dtype, o.device)?, o.requires_grad)
        }
    );
    op!(
        list,
        "ones",
        FUNCTION | OUT,
        "A tensor of ones.",
        "size: size, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let o = options(a, 1, DType::default_float())?;
            filled(Layout::contiguous(&shape_arg("ones", a.ints(0)?)?), Scalar::Int(1), &o)
        }
    );
    op!(
        list,
        "empty",
        FUNCTION | OUT,
        "An uninitialised tensor.",
        "size: size, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False, memory_format: memory_format? = None",
        |a| {
            let o = options(a, 1, DType::default_float())?;
            let f = a.memory_format_opt(4)?.unwrap_or_default();
            ensure!(f != MemoryFormat::Preserve, Runtime, "empty: unsupported memory format Preserve");
            finish(
                Tensor::empty_format(&shape_arg("empty", a.ints(0)?)?, o.dtype, o.device, f)?,
                o.requires_grad,
            )
        }
    );
    op!(
        list,
        "empty_strided",
        FUNCTION,
        "An uninitialised tensor with the given strides.",
        "size: ints, stride: ints, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let o = options(a, 2, DType::default_float())?;
            strided("empty_strided", a.ints(0)?, a.ints(1)?, &o)
        }
    );
    op!(
        list,
        "empty_permuted",
        FUNCTION,
        "An uninitialised tensor without gaps whose dimensions lie in memory in the given order, outermost first.",
        "size: ints, physical_layout: ints, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let o = options(a, 2, DType::default_float())?;
            let shape = shape_arg("empty_permuted", a.ints(0)?)?;
            let order = a.ints(1)?;
            let n = shape.len();
            ensure!(
                order.len() == n,
                Runtime,
                "Number of dimensions in size does not match the length of the physical_layout; i.e. len(size) = {n} is not equal to len(physical_layout) = {}",
                order.len()
            );
            let mut strides: pyrite_core::layout::Strides = smallvec::SmallVec::from_elem(-1, n);
            let mut step = 1isize;
            for (i, d) in order.iter().enumerate().rev() {
                let slot = usize::try_from(*d).ok().and_then(|d| strides.get_mut(d));
                let Some(slot) = slot else {
                    bail!(
                        Runtime,
                        "Dimension out of range (expected to be between 0 and {}, but got {d} at index {i}).",
                        n as i64 - 1
                    )
                };
                ensure!(*slot == -1, Runtime, "Duplicate dim not allowed (empty_permuted: {order:?})");
                *slot = step;
                step = step.wrapping_mul(shape[*d as usize].max(1) as isize);
            }
            finish(Tensor::empty_strided(Layout::new(shape, strides, 0), o.dtype, o.device)?, o.requires_grad)
        }
    );
    op!(
        list,
        "new_empty_strided",
        METHOD,
        "An uninitialised tensor with the given strides, of this tensor's dtype and device.",
        "input: Tensor, size: ints, stride: ints, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let t = a.tensor(0)?;
            let o = Options {
                dtype: a.dtype_opt(3)?.unwrap_or(t.dtype()),
                device: a.device_opt(4)?.unwrap_or(t.device()),
                requires_grad: a.bool(5)?,
            };
            strided("new_empty_strided", a.ints(1)?, a.ints(2)?, &o)
        }
    );
    op!(
        list,
        "full",
        FUNCTION | OUT,
        "A tensor filled with one number.",
        "size: ints, fill_value: Number, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let v = a.number(1)?;
            let o = options(a, 2, v.dtype())?;
            filled(Layout::contiguous(&shape_arg("full", a.ints(0)?)?), v, &o)
        }
    );
    op!(
        list,
        "zeros_like",
        FUNCTION,
        "Zeros with the shape and dtype of the input.",
        "input: Tensor, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False, memory_format: memory_format? = None",
        |a| {
            let (o, l) = like(a, 1)?;
            filled(l, Scalar::Int(0), &o)
        }
    );
    op!(
        list,
        "ones_like",
        FUNCTION,
        "Ones with the shape and dtype of the input.",
        "input: Tensor, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False, memory_format: memory_format? = None",
        |a| {
            let (o, l) = like(a, 1)?;
            filled(l, Scalar::Int(1), &o)
        }
    );
    op!(
        list,
        "empty_like",
        FUNCTION,
        "Uninitialised, with the shape and dtype of the input.",
        "input: Tensor, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False, memory_format: memory_format? = None",
        |a| {
            let (o, l) = like(a, 1)?;
            finish(Tensor::empty_strided(l, o.dtype, o.device)?, o.requires_grad)
        }
    );
    op!(
        list,
        "full_like",
        FUNCTION,
        "One number, with the shape and dtype of the input.",
        "input: Tensor, fill_value: Number, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False, memory_format: memory_format? = None",
        |a| {
            let (o, l) = like(a, 2)?;
            filled(l, a.number(1)?, &o)
        }
    );
    op!(list, "arange", FUNCTION | OUT, "Numbers from `start` up to (not including) `end` in steps of `step`.",
        "end: Number, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False", |a| range(a, Scalar::Int(0), 0, None, 1);
        "start: Number, end: Number, step: Number = 1, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| range(a, a.number(0)?, 1, Some(2), 3));
    op!(
        list,
        "linspace",
        FUNCTION | OUT,
        "`steps` numbers from `start` to `end`, both included.",
        "start: Operand, end: Operand, steps: int, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let o = options(a, 3, DType::default_float())?;
            if let Some(t) = complex_ramp(a, &o)? {
                return finish(t, o.requires_grad);
            }
            no_bool_ramp(a.op, o.dtype)?;
            let v = ramp(range_value(a, 0)?, range_value(a, 1)?, a.int(2)?, o.dtype)?;
            finish(
                super::to(
                    &Tensor::from_slice(&v, &[v.len()])?,
                    o.dtype,
                    o.device,
                    false,
                    MemoryFormat::Preserve,
                )?,
                o.requires_grad,
            )
        }
    );
    op!(
        list,
        "logspace",
        FUNCTION | OUT,
        "`steps` powers of `base`, exponents from `start` to `end`.",
        "start: Operand, end: Operand, steps: int, base: float = 10.0, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let o = options(a, 4, DType::default_float())?;
            let base = a.float(3)?;
            if let Some(t) = complex_ramp(a, &o)? {
                // base ** z
                let wide = super::to_dtype(&t, DType::C128)?;
                let powers = super::exp(&super::mul(&wide, base.ln())?)?;
                return finish(super::to_dtype(&powers, t.dtype())?, o.requires_grad);
            }
            no_bool_ramp(a.op, o.dtype)?;
            let mut v = ramp(range_value(a, 0)?, range_value(a, 1)?, a.int(2)?, o.dtype)?;
            v.iter_mut().for_each(|x| *x = base.powf(*x));
            finish(
                super::to(
                    &Tensor::from_slice(&v, &[v.len()])?,
                    o.dtype,
                    o.device,
                    false,
                    MemoryFormat::Preserve,
                )?,
                o.requires_grad,
            )
        }
    );
    op!(
        list,
        "range",
        FUNCTION | OUT,
        "Numbers from `start` to `end`, both included, in steps of `step`. Deprecated: `arange` leaves `end` out, as Python does.",
        "start: Number, end: Number, step: Number = 1, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            crate::warn(
                "torch.range is deprecated and will be removed in a future release because its behavior is inconsistent with Python's range builtin. Instead, use torch.arange, which produces values in [start, end).",
            )?;
            let o = options(a, 3, DType::default_float())?;
            let (start, end, step) = (a.number(0)?, a.number(1)?, a.number(2)?);
            let (s, e, d) = (start.f64(), end.f64(), step.f64());
            ensure!(d != 0.0 && !d.is_nan(), Runtime, "range: step must be nonzero");
            ensure!(s.is_finite() && e.is_finite(), Runtime, "range: unsupported range: {s} -> {e}");
            ensure!(
                (d > 0.0 && e >= s) || (d < 0.0 && e <= s),
                Runtime,
                "range: upper bound and lower bound inconsistent with step sign"
            );
            let n = ((e - s) / d).floor() + 1.0;
            ensure!(
                n < isize::MAX as f64 / 16.0,
                Runtime,
                "range: invalid size, possible overflow? ({n} elements)"
            );
            let v = listed("range", n as usize, |i| s + i as f64 * d)?;
            let t = Tensor::from_slice(&v, &[v.len()])?;
            finish(super::to(&t, o.dtype, o.device, false, MemoryFormat::Preserve)?, o.requires_grad)
        }
    );
    op!(list, "eye", FUNCTION | OUT, "The identity matrix (n x m).",
        "n: int, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False", |a| eye_of(a, a.int(0)?, a.int(0)?, 1);
        "n: int, m: int, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False", |a| eye_of(a, a.int(0)?, a.int(1)?, 2));
    op!(
        list,
        "scalar_tensor",
        FUNCTION,
        "A 0-d tensor.",
        "s: Number, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let o = options(a, 1, DType::default_float())?;
            filled(Layout::contiguous(&[]), a.number(0)?, &o)
        }
    );
}

fn range(a: &Args, start: Scalar, end: usize, step: Option<usize>, at: usize) -> Result<Value> {
    let end = a.number(end)?;
    let step = step.map_or(Ok(Scalar::Int(1)), |i| a.number(i))?;
    let float = [start, end, step].iter().any(|s| matches!(s, Scalar::Float(_)));
    let o = options(a, at, if float { DType::default_float() } else { DType::I64 })?;
    finish(arange(start, end, step, o.dtype, o.device)?, o.requires_grad)
}

fn eye_of(a: &Args, n: i64, m: i64, at: usize) -> Result<Value> {
    ensure!(n >= 0 && m >= 0, Runtime, "eye: n and m must be greater or equal to 0, got {n} and {m}");
    let o = options(a, at, DType::default_float())?;
    finish(eye(n as usize, m as usize, o.dtype, o.device)?, o.requires_grad)
}
