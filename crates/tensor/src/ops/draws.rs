//! Random numbers: the fills, the factories over them, and permutations.

use super::Operand;
use super::create::{finish, like, listed, options};
use crate::autograd::{self, inplace, needs_grad};
use crate::op;
use crate::random::{Generator, default_generator};
use crate::registry::{Args, Op, Value};
use crate::tensor::{MemoryFormat, Tensor, shape_arg};
use pyrite_core::backend::Random;
use pyrite_core::{DType, Device, Result, bail, ensure};
use smallvec::smallvec;
use std::sync::Arc;

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
    let _off = autograd::GradMode::new(false);
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
    if needs_grad(&[t]) {
        let node = autograd::node::closure(op, &[t], &[t], &[], |cx| {
            let g = cx.grad(0)?;
            Ok(smallvec![Some(Tensor::zeros(g.shape(), g.dtype(), g.device())?)])
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

/// Integers in `lo..hi`, all of which the dtype must be able to hold.
fn integers(lo: i64, hi: i64, d: DType) -> Result<Random> {
    ensure!(lo < hi, Runtime, "random_ expects 'from' to be less than 'to', but got from={lo} >= to={hi}");
    if !d.is_float() {
        let (least, most) = match d {
            DType::Bool => (0, 1),
            DType::U8 => (0, u8::MAX as i64),
            DType::I8 => (i8::MIN as i64, i8::MAX as i64),
            DType::I16 => (i16::MIN as i64, i16::MAX as i64),
            DType::U16 => (0, u16::MAX as i64),
            DType::I32 => (i32::MIN as i64, i32::MAX as i64),
            DType::U32 => (0, u32::MAX as i64),
            DType::U64 => (0, i64::MAX),
            _ => (i64::MIN, i64::MAX),
        };
        ensure!(lo >= least && lo <= most, Runtime, "from is out of bounds for {} (got {lo})", d.name());
        ensure!(hi > least && hi - 1 <= most, Runtime, "to - 1 is out of bounds for {} (got {hi})", d.name());
    }
    Ok(Random::Integers { lo, hi })
}

/// `random_(from, to)`, where `to` may be None: up to the greatest number.
fn integers_from(a: &Args) -> Result<Random> {
    let (from, d) = (a.int(1)?, a.tensor(0)?.dtype());
    match (a.int_opt(2)?, full_range(d)) {
        (Some(to), _) => integers(from, to, d),
        (None, Random::Integers { hi, .. }) => integers(from, hi, d),
        (None, r) => Ok(r),
    }
}

/// The result of a draw whose distribution has differentiable parameters: gradients through it are zero.
pub(super) fn drawn(op: &'static str, y: Tensor, parameters: &[&Tensor]) -> Tensor {
    if needs_grad(parameters) && y.dtype().is_differentiable() {
        let like: smallvec::SmallVec<[Tensor; 2]> = parameters.iter().map(|p| p.alias()).collect();
        autograd::attach(op, parameters, &[&y], &[], move |_| {
            like.iter().map(|t| Tensor::zeros(t.shape(), t.dtype(), t.device()).map(Some)).collect()
        });
    }
    y
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
    let inside = super::logical_and(&super::ge(&p.detach(), 0.0)?, &super::le(&p.detach(), 1.0)?)?;
    ensure!(
        !super::reduce::any_zero(&inside)?,
        Runtime,
        "bernoulli: expected all probabilities to be in [0, 1]"
    );
    let u = random(p.shape(), Random::Uniform { lo: 0.0, hi: 1.0 }, p.dtype().compute(), p.device(), g)?;
    Ok(drawn("BernoulliBackward0", super::to_dtype(&super::lt(&u, &p.detach())?, p.dtype())?, &[p]))
}

pub fn register(list: &mut Vec<Op>) {
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
        |a| like_random(a, "randint_like", integers(0, a.int(1)?, like_dtype(a, 2)?)?, 2);
        "input: Tensor, low: int, high: int, *, dtype: dtype? = None, device: device? = None, requires_grad: bool = False, memory_format: memory_format? = None",
        |a| like_random(a, "randint_like", integers(a.int(1)?, a.int(2)?, like_dtype(a, 3)?)?, 3));
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
            let most = match o.dtype {
                DType::U8 => 1 << 8,
                DType::I8 => 1 << 7,
                DType::I16 => 1 << 15,
                DType::I32 => 1 << 31,
                DType::F16 => (1 << 11) + 1,
                DType::BF16 => (1 << 8) + 1,
                DType::F32 => (1 << 24) + 1,
                DType::F64 => (1 << 53) + 1,
                _ => i64::MAX,
            };
            ensure!(
                n <= most,
                Runtime,
                "n is too large for result tensor type: {n} does not fit {}",
                o.dtype.name()
            );
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
        Ok(drawn("BernoulliBackward1", t, &[a.tensor(0)?]).into())
    });
    op!(
        list,
        "uniform_",
        METHOD,
        "Fills with uniform random numbers in [from, to).",
        "input: Tensor, from: float = 0.0, to: float = 1.0, *, generator: generator? = None",
        |a| {
            check_drawn("uniform_", a.tensor(0)?.dtype())?;
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
        "input: Tensor, to: int, *, generator: generator? = None", |a| random_(a, "random_", integers(0, a.int(1)?, a.tensor(0)?.dtype())?, 2);
        "input: Tensor, from: int, to: int?, *, generator: generator? = None", |a| random_(a, "random_", integers_from(a)?, 3));
    op!(
        list,
        "bernoulli_",
        METHOD,
        "Fills with 0 and 1, 1 with probability p (a number or a tensor).",
        "input: Tensor, p: Operand = 0.5, *, generator: generator? = None",
        |a| match a.operand(1)? {
            Operand::Number(p) => random_(a, "bernoulli_", Random::Bernoulli { p: probability(p.f64())? }, 2),
            Operand::Tensor(p) => {
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
            ensure!(
                a.tensor(0)?.dtype().is_float(),
                Runtime,
                "Exponential distribution is a continuous probability distribution. dtype must be a floating point but you specified {}",
                a.tensor(0)?.dtype().name()
            );
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
            ensure!(
                a.tensor(0)?.dtype().is_float(),
                Runtime,
                "Cauchy distribution is a continuous probability distribution. dtype must be a floating point but you specified {}",
                a.tensor(0)?.dtype().name()
            );
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

/// The dtype of a `_like` call whose dtype argument is at `at`.
fn like_dtype(a: &Args, at: usize) -> Result<DType> {
    Ok(a.dtype_opt(at)?.unwrap_or(a.tensor(0)?.dtype()))
}

fn randint(a: &Args, lo: i64, hi: i64, size: usize) -> Result<Value> {
    let o = options(a, size + 2, DType::I64)?;
    let t = random(
        &shape_arg("randint", a.ints(size)?)?,
        integers(lo, hi, o.dtype)?,
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

/// Asks for an element's cache line.
#[inline(always)]
fn prefetch(p: &[u32], i: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching does not fault, whatever the address.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.as_ptr().wrapping_add(i).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (p, i);
}

/// Fisher-Yates with 63-bit draws, which the random kernel makes in bulk.
pub fn randperm(n: usize, g: Option<&Arc<Generator>>) -> Result<Tensor> {
    pyrite_core::layout::numel(&[n])?;
    let y = random(&[n], Random::Integers { lo: 0, hi: i64::MAX }, DType::I64, Device::Cpu, g)?;
    if n == 0 {
        return Ok(y);
    }
    // SAFETY: a dense i64 tensor of n elements that nobody else knows.
    let draws = unsafe { std::slice::from_raw_parts_mut(y.ptr().cast::<i64>(), n) };
    // Multiply-shift: the bias is below 2^-31 for any n that fits in memory.
    let pick = |r: i64, i: usize| ((r as u128 * (i as u128 + 1)) >> 63) as usize;
    if n <= u32::MAX as usize {
        // Swapping in half the memory is nearly twice as fast.
        let mut p = listed("randperm", n, |i| i as u32)?;
        for i in (1..n).rev() {
            // The draws are known, so the places that they name can be fetched in time.
            const AHEAD: usize = 32;
            if i > AHEAD {
                prefetch(&p, pick(draws[i - AHEAD], i - AHEAD));
            }
            p.swap(i, pick(draws[i], i));
        }
        for (d, v) in draws.iter_mut().zip(p) {
            *d = v as i64;
        }
    } else {
        let mut p = listed("randperm", n, |i| i as i64)?;
        for i in (1..n).rev() {
            p.swap(i, pick(draws[i], i));
        }
        draws.copy_from_slice(&p);
    }
    Ok(y)
}

fn normal(a: &Args) -> Result<Value> {
    let (mean, std) = (a.operand(0)?, a.operand(1)?);
    let like = match (mean, std) {
        (Operand::Tensor(t), Operand::Tensor(s)) => super::add(t, s)?,
        (Operand::Tensor(t), _) | (_, Operand::Tensor(t)) => t.clone(),
        _ => bail!(Type, "normal(): mean or std must be a Tensor here"),
    };
    match std {
        Operand::Number(s) => {
            positive_std("normal", s.f64())?;
        }
        Operand::Tensor(s) => {
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
    let y = {
        let _off = autograd::GradMode::new(false);
        super::add(mean, &super::mul(&z, std)?)?
    };
    let parameters: smallvec::SmallVec<[&Tensor; 2]> =
        [mean, std].iter().filter_map(|o| if let Operand::Tensor(t) = o { Some(*t) } else { None }).collect();
    Ok(drawn("NormalBackward", y, &parameters).into())
}
