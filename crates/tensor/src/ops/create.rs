//! Tensors from nothing: constants, ranges, identity; and random ones.

use crate::autograd::inplace;
use crate::op;
use crate::random::{Generator, default_generator};
use crate::registry::{Args, Op, Value};
use crate::tensor::{MemoryFormat, Tensor, shape_arg};
use pyrite_core::backend::Random;
use pyrite_core::{DType, Device, Layout, Result, Scalar, bail, ensure};
use std::sync::Arc;

/// `dtype`, `device`, `requires_grad` of a creation call, at argument positions.
struct Options {
    dtype: DType,
    device: Device,
    requires_grad: bool,
}

fn options(a: &Args, at: usize, default: DType) -> Result<Options> {
    Ok(Options {
        dtype: a.dtype_opt(at)?.unwrap_or(default),
        device: a.device_opt(at + 1)?.unwrap_or(Device::Cpu),
        requires_grad: a.bool(at + 2)?,
    })
}

fn like(a: &Args, at: usize) -> Result<(Options, Layout)> {
    let t = a.tensor(0)?;
    let o = Options {
        dtype: a.dtype_opt(at)?.unwrap_or(t.dtype()),
        device: a.device_opt(at + 1)?.unwrap_or(t.device()),
        requires_grad: a.bool(at + 2)?,
    };
    let l = match a.memory_format_opt(at + 3)?.unwrap_or(MemoryFormat::Preserve) {
        MemoryFormat::Preserve => Layout::new(t.shape(), t.layout().like_strides(), 0),
        f => Tensor::empty_format(t.shape(), DType::Bool, Device::Cpu, f)?.layout().clone(),
    };
    Ok((o, l))
}

fn finish(t: Tensor, requires_grad: bool) -> Result<Value> {
    if requires_grad {
        t.set_requires_grad(true)?;
    }
    Ok(t.into())
}

fn filled(l: Layout, v: Scalar, o: &Options) -> Result<Value> {
    let t = Tensor::empty_strided(l, o.dtype, o.device)?;
    if t.numel() > 0 {
        t.backend()?.fill(t.arr(), v)?;
    }
    finish(t, o.requires_grad)
}

/// `n` values in memory that may be refused: a size comes from the user, and `collect` would abort the process.
fn listed<T>(op: &str, n: usize, f: impl Fn(usize) -> T) -> Result<Vec<T>> {
    let mut v = Vec::new();
    if v.try_reserve_exact(n).is_err() {
        bail!(OutOfMemory, "{op}: cannot allocate {n} elements");
    }
    v.extend((0..n).map(f));
    Ok(v)
}

pub fn arange(start: Scalar, end: Scalar, step: Scalar, dtype: DType, device: Device) -> Result<Tensor> {
    let (s, e, d) = (start.f64(), end.f64(), step.f64());
    ensure!(s.is_finite() && e.is_finite(), Runtime, "arange: unsupported range: {s} -> {e}");
    ensure!(d != 0.0 && !d.is_nan(), Runtime, "arange: step must be nonzero");
    ensure!(
        (d > 0.0 && e >= s) || (d < 0.0 && e <= s),
        Runtime,
        "arange: upper bound and lower bound inconsistent with step sign"
    );
    let all_int = [start, end, step].iter().all(|x| !matches!(x, Scalar::Float(_)));
    let n = if all_int {
        let (s, e, d) = (start.i64() as i128, end.i64() as i128, step.i64() as i128);
        ((e - s + d - d.signum()) / d) as f64
    } else {
        ((e - s) / d).ceil()
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

/// `steps` values from `start` to `end`, both included; exact at both ends.
fn ramp(start: f64, end: f64, steps: i64) -> Result<Vec<f64>> {
    ensure!(steps >= 0, Runtime, "number of steps must be non-negative");
    pyrite_core::layout::numel(&[steps as usize])?;
    let n = steps as usize;
    let step = if n > 1 { (end - start) / (n - 1) as f64 } else { 0.0 };
    listed("linspace", n, |i| {
        if i < n / 2 || n == 1 { start + step * i as f64 } else { end - step * (n - 1 - i) as f64 }
    })
}

fn range_value(a: &Args, i: usize) -> Result<f64> {
    Ok(a.number(i)?.f64())
}

pub fn eye(n: usize, m: usize, dtype: DType, device: Device) -> Result<Tensor> {
    let t = Tensor::zeros(&[n, m], dtype, device)?;
    let d = super::with_layout(&t, t.layout().diagonal(0, 0, 1)?);
    if d.numel() > 0 {
        d.backend()?.fill(d.arr(), Scalar::Int(1))?;
    }
    Ok(t)
}

// ---- random -------------------------------------------------------------------------------------

/// Fills `t` with draws of `dist`. A tensor that is not dense is filled through a dense one.
pub fn fill_random(op: &str, t: &Tensor, dist: Random, g: Option<&Arc<Generator>>) -> Result<()> {
    if t.dtype().is_complex() {
        return fill_complex(op, t, dist, g);
    }
    inplace::check(op, t)?;
    let n = t.numel();
    let at = g.unwrap_or_else(|| default_generator()).advance(pyrite_core::rng::draws(dist, t.dtype(), n));
    if n > 0 {
        if t.is_contiguous() {
            t.backend()?.random(dist, at, t.arr())?;
        } else {
            let d = Tensor::empty(t.shape(), t.dtype(), t.device())?;
            d.backend()?.random(dist, at, d.arr())?;
            super::copy_raw(t, &d)?;
        }
    }
    t.storage().bump_version();
    Ok(())
}

/// Complex numbers are drawn part by part; the variance of a normal one is shared by its parts.
fn fill_complex(op: &str, t: &Tensor, dist: Random, g: Option<&Arc<Generator>>) -> Result<()> {
    let _off = crate::autograd::GradMode::new(false);
    let parts = super::complex::view_as_real(t)?;
    match dist {
        Random::Normal { mean, std } => {
            let part = Random::Normal { mean: 0.0, std: std * std::f64::consts::FRAC_1_SQRT_2 };
            fill_random(op, &parts, part, g)?;
            if mean == 0.0 {
                return Ok(());
            }
            let re = super::select(&parts, -1, 0)?;
            super::copy_raw(&re, &super::add(&re, mean)?)
        }
        Random::Uniform { .. } => fill_random(op, &parts, dist, g),
        _ => bail!(NotImplemented, "\"{op}\" is not implemented for {}", t.dtype()),
    }
}

/// A new tensor of draws.
pub fn random(
    shape: &[usize],
    dist: Random,
    dtype: DType,
    device: Device,
    g: Option<&Arc<Generator>>,
) -> Result<Tensor> {
    let t = Tensor::empty(shape, dtype, device)?;
    fill_random("random", &t, dist, g)?;
    Ok(t)
}

fn check_float(op: &str, d: DType) -> Result<()> {
    ensure!(
        d.is_float(),
        NotImplemented,
        "\"{op}\" not implemented for '{}': it needs a floating dtype",
        d.name()
    );
    Ok(())
}

/// Uniform and normal numbers may be complex.
fn check_drawn(op: &str, d: DType) -> Result<()> {
    if d.is_complex() { Ok(()) } else { check_float(op, d) }
}

fn recorded_zero(op: &'static str, t: &Tensor) {
    // A random fill forgets the old value: its gradient is zero.
    if crate::autograd::needs_grad(&[t]) {
        let node = crate::autograd::node::closure(op, &[t], &[t], &[], |cx| {
            let g = cx.grad(0)?;
            Ok(smallvec::smallvec![Some(Tensor::zeros(g.shape(), g.dtype(), g.device())?)])
        });
        inplace::rebase(t, node);
    }
}

fn random_(a: &Args, name: &'static str, dist: Random, g: usize) -> Result<Value> {
    let t = a.tensor(0)?;
    fill_random(name, t, dist, a.generator_opt(g)?)?;
    recorded_zero("RandomBackward0", t);
    Ok(Value::Receiver)
}

fn sized_random(a: &Args, name: &'static str, dist: Random) -> Result<Value> {
    let shape = shape_arg(name, a.ints(0)?)?;
    let o = options(a, 2, DType::default_float())?;
    check_drawn(name, o.dtype)?;
    finish(random(&shape, dist, o.dtype, o.device, a.generator_opt(1)?)?, o.requires_grad)
}

fn like_random(a: &Args, name: &'static str, dist: Random, at: usize) -> Result<Value> {
    let (o, l) = like(a, at)?;
    if !matches!(dist, Random::Integers { .. }) {
        check_drawn(name, o.dtype)?;
    }
    let t = Tensor::empty_strided(l, o.dtype, o.device)?;
    fill_random(name, &t, dist, None)?;
    finish(t, o.requires_grad)
}

fn integers(lo: i64, hi: i64) -> Result<Random> {
    ensure!(lo < hi, Runtime, "random_ expects 'from' to be less than 'to', but got from={lo} >= to={hi}");
    Ok(Random::Integers { lo, hi })
}

fn probability(p: f64) -> Result<f64> {
    ensure!((0.0..=1.0).contains(&p), Runtime, "bernoulli_ expects p to be in [0, 1], but got p={p}");
    Ok(p)
}

fn positive_std(op: &str, std: f64) -> Result<f64> {
    ensure!(std >= 0.0, Runtime, "{op} expects std >= 0.0, but found std {std}");
    Ok(std)
}

fn uniform(lo: f64, hi: f64) -> Result<Random> {
    ensure!(
        lo <= hi,
        Runtime,
        "uniform_ expects to return a [from, to) range, but found from={lo} > to={hi}"
    );
    Ok(Random::Uniform { lo, hi })
}

/// Draws with a tensor of probabilities.
fn bernoulli(p: &Tensor, g: Option<&Arc<Generator>>) -> Result<Tensor> {
    check_float("bernoulli", p.dtype())?;
    let u = random(p.shape(), Random::Uniform { lo: 0.0, hi: 1.0 }, p.dtype().compute(), p.device(), g)?;
    super::to_dtype(&super::lt(&u, &p.detach())?, p.dtype())
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
        FUNCTION,
        "An uninitialised tensor.",
        "size: size, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False, memory_format: memory_format? = None",
        |a| {
            let o = options(a, 1, DType::default_float())?;
            let f = a.memory_format_opt(4)?.unwrap_or_default();
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
            let shape = shape_arg("empty_strided", a.ints(0)?)?;
            let strides: smallvec::SmallVec<[isize; 6]> = a.ints(1)?.iter().map(|s| *s as isize).collect();
            ensure!(
                strides.iter().all(|s| *s >= 0),
                Runtime,
                "empty_strided: strides must be non-negative, got {:?}",
                a.ints(1)?
            );
            let l = Layout::as_strided(&shape, &strides, 0, usize::MAX >> 8)?;
            let need = l.extent().map_or(0, |e| e.1 as usize + 1);
            let flat = Tensor::empty(&[need], o.dtype, o.device)?;
            finish(super::with_layout(&flat, l), o.requires_grad)
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
        "start: Number, end: Number, steps: int, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let o = options(a, 3, DType::default_float())?;
            let v = ramp(range_value(a, 0)?, range_value(a, 1)?, a.int(2)?)?;
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
        "start: Number, end: Number, steps: int, base: float = 10.0, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let o = options(a, 4, DType::default_float())?;
            let base = a.float(3)?;
            let mut v = ramp(range_value(a, 0)?, range_value(a, 1)?, a.int(2)?)?;
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
    register_random(list);
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

fn register_random(list: &mut Vec<Op>) {
    op!(
        list,
        "rand",
        FUNCTION | OUT,
        "Uniform random numbers in [0, 1).",
        "size: size, *, generator: generator? = None, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| sized_random(a, "rand", Random::Uniform { lo: 0.0, hi: 1.0 })
    );
    op!(
        list,
        "randn",
        FUNCTION | OUT,
        "Random numbers of the standard normal distribution.",
        "size: size, *, generator: generator? = None, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| sized_random(a, "randn", Random::Normal { mean: 0.0, std: 1.0 })
    );
    op!(
        list,
        "rand_like",
        FUNCTION,
        "Uniform random numbers with the shape of the input.",
        "input: Tensor, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False, memory_format: memory_format? = None",
        |a| like_random(a, "rand_like", Random::Uniform { lo: 0.0, hi: 1.0 }, 1)
    );
    op!(
        list,
        "randn_like",
        FUNCTION,
        "Standard normal numbers with the shape of the input.",
        "input: Tensor, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False, memory_format: memory_format? = None",
        |a| like_random(a, "randn_like", Random::Normal { mean: 0.0, std: 1.0 }, 1)
    );
    op!(list, "randint", FUNCTION | OUT, "Random integers in [low, high).",
        "high: int, size: ints, *, generator: generator? = None, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| randint(a, 0, a.int(0)?, 1);
        "low: int, high: int, size: ints, *, generator: generator? = None, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| randint(a, a.int(0)?, a.int(1)?, 2));
    op!(list, "randint_like", FUNCTION, "Random integers in [low, high) with the shape of the input.",
        "input: Tensor, high: int, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False, memory_format: memory_format? = None",
        |a| like_random(a, "randint_like", integers(0, a.int(1)?)?, 2);
        "input: Tensor, low: int, high: int, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False, memory_format: memory_format? = None",
        |a| like_random(a, "randint_like", integers(a.int(1)?, a.int(2)?)?, 3));
    op!(
        list,
        "randperm",
        FUNCTION | OUT,
        "A random permutation of 0..n-1.",
        "n: int, *, generator: generator? = None, dtype: dtype? = None, device: device? = None, requires_grad: bool = False",
        |a| {
            let n = a.int(0)?;
            ensure!(n >= 0, Runtime, "n must be non-negative, got {n}");
            let o = options(a, 2, DType::I64)?;
            let p = randperm(n as usize, a.generator_opt(1)?)?;
            finish(super::to(&p, o.dtype, o.device, false, MemoryFormat::Preserve)?, o.requires_grad)
        }
    );
    op!(list, "normal", FUNCTION | OUT, "Normal random numbers with the given means and standard deviations.",
    "mean: Tensor, std: Operand = 1.0, *, generator: generator? = None", normal;
    "mean: Number, std: Tensor, *, generator: generator? = None", normal;
    "mean: Number, std: Number, size: ints, *, generator: generator? = None, dtype: dtype? = None, device: device? = None, requires_grad: bool = False", |a| {
        let o = options(a, 4, DType::default_float())?;
        let dist = Random::Normal { mean: a.float(0)?, std: positive_std("normal", a.float(1)?)? };
        finish(random(&shape_arg("normal", a.ints(2)?)?, dist, o.dtype, o.device, a.generator_opt(3)?)?, o.requires_grad)
    });
    op!(list, "bernoulli", FUNCTION | METHOD | OUT, "0 or 1, drawn with the probabilities in the input.",
    "input: Tensor, *, generator: generator? = None", |a| Ok(bernoulli(a.tensor(0)?, a.generator_opt(1)?)?.into());
    "input: Tensor, p: float, *, generator: generator? = None", |a| {
        let t = a.tensor(0)?.empty_like_with(a.tensor(0)?.dtype())?;
        fill_random("bernoulli", &t, Random::Bernoulli { p: probability(a.float(1)?)? }, a.generator_opt(2)?)?;
        Ok(t.into())
    });
    op!(
        list,
        "uniform_",
        METHOD,
        "Fills with uniform random numbers in [from, to).",
        "input: Tensor, from: float = 0.0, to: float = 1.0, *, generator: generator? = None",
        |a| {
            check_float("uniform_", a.tensor(0)?.dtype())?;
            random_(a, "uniform_", uniform(a.float(1)?, a.float(2)?)?, 3)
        }
    );
    op!(
        list,
        "normal_",
        METHOD,
        "Fills with normal random numbers.",
        "input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: generator? = None",
        |a| {
            check_drawn("normal_", a.tensor(0)?.dtype())?;
            random_(
                a,
                "normal_",
                Random::Normal { mean: a.float(1)?, std: positive_std("normal_", a.float(2)?)? },
                3,
            )
        }
    );
    op!(list, "random_", METHOD, "Fills with random integers in [from, to), or over the dtype's range.",
        "input: Tensor, *, generator: generator? = None", |a| random_(a, "random_", full_range(a.tensor(0)?.dtype()), 1);
        "input: Tensor, to: int, *, generator: generator? = None", |a| random_(a, "random_", integers(0, a.int(1)?)?, 2);
        "input: Tensor, from: int, to: int, *, generator: generator? = None", |a| random_(a, "random_", integers(a.int(1)?, a.int(2)?)?, 3));
    op!(
        list,
        "bernoulli_",
        METHOD,
        "Fills with 0 and 1, 1 with probability p (a number or a tensor).",
        "input: Tensor, p: Operand = 0.5, *, generator: generator? = None",
        |a| match a.operand(1)? {
            super::Operand::Number(p) =>
                random_(a, "bernoulli_", Random::Bernoulli { p: probability(p.f64())? }, 2),
            super::Operand::Tensor(p) => {
                let p = super::expand_to(
                    &super::to_dtype(
                        &p.detach(),
                        if p.dtype().is_float() { p.dtype() } else { DType::default_float() },
                    )?,
                    a.tensor(0)?.shape(),
                )?;
                super::copy_(a.tensor(0)?, &bernoulli(&p, a.generator_opt(2)?)?)?;
                Ok(Value::Receiver)
            }
        }
    );
    op!(
        list,
        "exponential_",
        METHOD,
        "Fills with draws of the exponential distribution.",
        "input: Tensor, lambd: float = 1.0, *, generator: generator? = None",
        |a| {
            ensure!(
                a.float(1)? > 0.0,
                Runtime,
                "exponential_ expects lambda > 0.0, but found lambda={}",
                a.float(1)?
            );
            check_float("exponential_", a.tensor(0)?.dtype())?;
            random_(a, "exponential_", Random::Exponential { rate: a.float(1)? }, 2)
        }
    );
    op!(
        list,
        "cauchy_",
        METHOD,
        "Fills with draws of the Cauchy distribution.",
        "input: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: generator? = None",
        |a| {
            ensure!(
                a.float(2)? > 0.0,
                Runtime,
                "cauchy_ expects sigma > 0.0, but found sigma={}",
                a.float(2)?
            );
            check_float("cauchy_", a.tensor(0)?.dtype())?;
            random_(a, "cauchy_", Random::Cauchy { median: a.float(1)?, sigma: a.float(2)? }, 3)
        }
    );
    op!(
        list,
        "log_normal_",
        METHOD,
        "Fills with draws of the log-normal distribution.",
        "input: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: generator? = None",
        |a| {
            ensure!(
                a.float(2)? > 0.0,
                Runtime,
                "log_normal_ expects std > 0.0, but found std={}",
                a.float(2)?
            );
            check_float("log_normal_", a.tensor(0)?.dtype())?;
            random_(a, "log_normal_", Random::LogNormal { mean: a.float(1)?, std: a.float(2)? }, 3)
        }
    );
    op!(
        list,
        "geometric_",
        METHOD,
        "Fills with draws of the geometric distribution.",
        "input: Tensor, p: float, *, generator: generator? = None",
        |a| {
            let p = a.float(1)?;
            ensure!(p > 0.0 && p < 1.0, Runtime, "geometric_ expects p to be in (0, 1), but got p={p}");
            random_(a, "geometric_", Random::Geometric { p }, 2)
        }
    );
}

fn randint(a: &Args, lo: i64, hi: i64, size: usize) -> Result<Value> {
    let o = options(a, size + 2, DType::I64)?;
    let t = random(
        &shape_arg("randint", a.ints(size)?)?,
        integers(lo, hi)?,
        o.dtype,
        o.device,
        a.generator_opt(size + 1)?,
    )?;
    finish(t, o.requires_grad)
}

fn full_range(d: DType) -> Random {
    let hi = match d {
        DType::Bool => 2,
        DType::U8 => 256,
        DType::I8 => 128,
        DType::I16 => 1 << 15,
        DType::U16 => 1 << 16,
        DType::I32 => 1 << 31,
        DType::U32 => 1 << 32,
        DType::F16 => (1 << 11) + 1,
        DType::BF16 => (1 << 8) + 1,
        DType::F32 => (1 << 24) + 1,
        DType::F64 => (1i64 << 53) + 1,
        _ => i64::MAX,
    };
    Random::Integers { lo: 0, hi }
}

/// Fisher-Yates with 64-bit draws.
pub fn randperm(n: usize, g: Option<&Arc<Generator>>) -> Result<Tensor> {
    pyrite_core::layout::numel(&[n])?;
    let at = g.unwrap_or_else(|| default_generator()).advance(pyrite_core::rng::blocks(n, 2));
    let mut p = listed("randperm", n, |i| i as i64)?;
    for i in (1..n).rev() {
        let k = n - 1 - i;
        let w = pyrite_core::rng::philox(at.seed, at.offset.wrapping_add(k as u64 / 2));
        let r = (w[k % 2 * 2] as u64) << 32 | w[k % 2 * 2 + 1] as u64;
        // Multiply-shift: the bias is below 2^-32 for any n that fits in memory.
        p.swap(i, ((r as u128 * (i as u128 + 1)) >> 64) as usize);
    }
    Tensor::from_slice(&p, &[n])
}

fn normal(a: &Args) -> Result<Value> {
    let (mean, std) = (a.operand(0)?, a.operand(1)?);
    let like = match (mean, std) {
        (super::Operand::Tensor(t), super::Operand::Tensor(s)) => super::add(t, s)?,
        (super::Operand::Tensor(t), _) | (_, super::Operand::Tensor(t)) => t.clone(),
        _ => bail!(Type, "normal(): mean or std must be a Tensor here"),
    };
    match std {
        super::Operand::Number(s) => {
            positive_std("normal", s.f64())?;
        }
        super::Operand::Tensor(s) => {
            let bad = super::lt(&s.detach(), 0.0)?;
            ensure!(!super::reduce::any(&bad)?, Runtime, "normal expects all elements of std >= 0.0");
        }
    }
    check_float("normal", like.dtype())?;
    let z = random(
        like.shape(),
        Random::Normal { mean: 0.0, std: 1.0 },
        like.dtype(),
        like.device(),
        a.generator_opt(2)?,
    )?;
    let _off = crate::autograd::GradMode::new(false);
    Ok(super::add(mean, &super::mul(&z, std)?)?.into())
}
