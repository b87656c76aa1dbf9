//! Counts at random: Poisson and binomial numbers. Rejection needs a number of draws nobody knows beforehand,
//! so every element has a generator of its own, seeded by its block of the Philox stream: results do not
//! depend on the number of threads.

use super::draws::drawn;
use crate::op;
use crate::random::{Generator, default_generator};
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::{DType, Device, Result, bail, ensure};
use pyrite_cpu::pool;
use std::sync::{Arc, Mutex, PoisonError};

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Stream(u64);

impl Stream {
    /// Uniform in (0, 1).
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) >> 11) as f64 * (1.0 / (1u64 << 53) as f64) + 0.5 / (1u64 << 53) as f64
    }
}

/// `ln k! - ((k + 1/2) ln(k + 1) - (k + 1) + ln sqrt(2 pi))`: the tail of Stirling's series.
fn stirling(k: f64) -> f64 {
    const SMALL: [f64; 10] = [
        0.0810614667953272,
        0.0413406959554092,
        0.0276779256849983,
        0.0207906721037650,
        0.0166446911898211,
        0.0138761288230707,
        0.0118967099458917,
        0.0104112652619720,
        0.0092554621827127,
        0.0083305634333628,
    ];
    if let Some(v) = SMALL.get(k as usize) {
        return *v;
    }
    let q = (k + 1.0) * (k + 1.0);
    (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / 1260.0 / q) / q) / (k + 1.0)
}

fn ln_factorial(k: f64) -> f64 {
    const LN_SQRT_TAU: f64 = 0.918_938_533_204_672_7;
    (k + 0.5) * (k + 1.0).ln() - (k + 1.0) + LN_SQRT_TAU + stirling(k)
}

/// A Poisson number: products of uniforms for small rates, PTRS (Hormann, 1993) for others.
fn poisson_draw(rate: f64, r: &mut Stream) -> f64 {
    if rate <= 0.0 || !rate.is_finite() {
        return rate;
    }
    if rate < 10.0 {
        let (limit, mut product, mut k) = ((-rate).exp(), r.next(), 0.0);
        while product > limit {
            product *= r.next();
            k += 1.0;
        }
        return k;
    }
    let b = 0.931 + 2.53 * rate.sqrt();
    let a = -0.059 + 0.02483 * b;
    let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
    let v_r = 0.9277 - 3.6224 / (b - 2.0);
    loop {
        let (u, v) = (r.next() - 0.5, r.next());
        let us = 0.5 - u.abs();
        let k = ((2.0 * a / us + b) * u + rate + 0.43).floor();
        if us >= 0.07 && v <= v_r {
            return k;
        }
        if k < 0.0 || us < 0.013 && v > us {
            continue;
        }
        if v.ln() + inverse_alpha.ln() - (a / (us * us) + b).ln() <= k * rate.ln() - rate - ln_factorial(k) {
            return k;
        }
    }
}

/// A binomial number: geometric steps for few successes, BTRS (Hormann, 1993) for many.
fn binomial_draw(n: f64, p: f64, r: &mut Stream) -> f64 {
    if n.is_nan() || p.is_nan() {
        return f64::NAN;
    }
    if n <= 0.0 || p <= 0.0 {
        return 0.0;
    }
    if p >= 1.0 {
        return n;
    }
    if p > 0.5 {
        return n - binomial_draw(n, 1.0 - p, r);
    }
    if n * p < 10.0 {
        let (scale, mut at, mut k) = ((1.0 - p).ln(), 0.0, 0.0);
        loop {
            at += (r.next().ln() / scale).ceil();
            if at > n {
                return k;
            }
            k += 1.0;
        }
    }
    let deviation = (n * p * (1.0 - p)).sqrt();
    let b = 1.15 + 2.53 * deviation;
    let a = -0.0873 + 0.0248 * b + 0.01 * p;
    let c = n * p + 0.5;
    let v_r = 0.92 - 4.2 / b;
    let odds = p / (1.0 - p);
    let alpha = (2.83 + 5.1 / b) * deviation;
    let m = ((n + 1.0) * p).floor();
    loop {
        let (u, v) = (r.next() - 0.5, r.next());
        let us = 0.5 - u.abs();
        let k = ((2.0 * a / us + b) * u + c).floor();
        if us >= 0.07 && v <= v_r {
            return k;
        }
        if k < 0.0 || k > n {
            continue;
        }
        let limit = (m + 0.5) * ((m + 1.0) / (odds * (n - m + 1.0))).ln()
            + (n + 1.0) * ((n - m + 1.0) / (n - k + 1.0)).ln()
            + (k + 0.5) * (odds * (n - k + 1.0) / (k + 1.0)).ln()
            + stirling(m)
            + stirling(n - m)
            - stirling(k)
            - stirling(n - k);
        if (v * alpha / (a / (us * us) + b)).ln() <= limit {
            return k;
        }
    }
}

/// `f(i, stream of element i)` for every element, by all threads.
fn each(n: usize, g: Option<&Arc<Generator>>, f: &(dyn Fn(usize, &mut Stream) -> f64 + Sync)) -> Vec<f64> {
    const PART: usize = 4096;
    let at = g.unwrap_or_else(|| default_generator()).advance(n as u64);
    let mut out = vec![0.0; n];
    let parts: Vec<Mutex<&mut [f64]>> = out.chunks_mut(PART).map(Mutex::new).collect();
    pool::parallel(parts.len(), n as u64 * 50, &|c| {
        let mut part = parts[c].lock().unwrap_or_else(PoisonError::into_inner);
        for (k, v) in part.iter_mut().enumerate() {
            let i = c * PART + k;
            let w = pyrite_core::rng::philox(at.seed, at.offset.wrapping_add(i as u64));
            *v = f(i, &mut Stream((w[0] as u64) << 32 | w[1] as u64));
        }
    });
    drop(parts);
    out
}

/// A tensor's elements as f64, on the host.
fn doubles(t: &Tensor) -> Result<Vec<f64>> {
    super::to(&t.detach(), DType::F64, Device::Cpu, false, crate::MemoryFormat::Contiguous)?.to_vec::<f64>()
}

fn counts(values: &[f64], shape: &[usize], like: &Tensor) -> Result<Tensor> {
    let t = Tensor::from_slice(values, shape)?;
    super::to(&t, like.dtype(), like.device(), false, crate::MemoryFormat::Preserve)
}

fn poisson(rate: &Tensor, g: Option<&Arc<Generator>>) -> Result<Tensor> {
    ensure!(
        rate.dtype().is_float(),
        NotImplemented,
        "\"poisson\" not implemented for '{}': it needs a floating dtype",
        rate.dtype().name()
    );
    let rates = doubles(rate)?;
    ensure!(
        rates.iter().all(|r| *r >= 0.0),
        Runtime,
        "invalid Poisson rate, expected rate to be non-negative"
    );
    let y = counts(&each(rates.len(), g, &|i, r| poisson_draw(rates[i], r)), rate.shape(), rate)?;
    Ok(drawn("PoissonBackward0", y, &[rate]))
}

fn binomial(count: &Tensor, prob: &Tensor, g: Option<&Arc<Generator>>) -> Result<Tensor> {
    ensure!(
        count.dtype().is_float(),
        Value,
        "binomial only supports floating-point dtypes for count, got: {}",
        count.dtype().name()
    );
    ensure!(
        prob.dtype().is_float(),
        Value,
        "binomial only supports floating-point dtypes for prob, got: {}",
        prob.dtype().name()
    );
    if count.dtype() != prob.dtype() {
        bail!(Runtime, "binomial: Found dtype {} but expected {}", prob.dtype().name(), count.dtype().name());
    }
    let shape = pyrite_core::layout::broadcast("binomial", count.shape(), prob.shape())?;
    let n = doubles(&super::expand_to(&count.detach(), &shape)?)?;
    let p = doubles(&super::expand_to(&prob.detach(), &shape)?)?;
    let y = counts(&each(n.len(), g, &|i, r| binomial_draw(n[i], p[i], r)), &shape, count)?;
    Ok(drawn("BinomialBackward0", y, &[count, prob]))
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "poisson",
        FUNCTION,
        "Poisson numbers with the rates in the input.",
        "input: Tensor, generator: generator? = None",
        |a| Ok(poisson(a.tensor(0)?, a.generator_opt(1)?)?.into())
    );
    op!(
        list,
        "binomial",
        FUNCTION,
        "Binomial numbers: successes among `count` trials of probability `prob`.",
        "count: Tensor, prob: Tensor, generator: generator? = None",
        |a| Ok(binomial(a.tensor(0)?, a.tensor(1)?, a.generator_opt(2)?)?.into())
    );
}
