//! The random family: the CPU's streams and formulas (`core/src/rng.rs`), bit for bit. Uniform,
//! normal, integers, Bernoulli and dropout; the rarer distributions are not here yet.

use crate::args::Dense;
use crate::device::Cuda;
use crate::map;
use crate::source::{self, Key};
use pyrite_core::backend::{Arr, Philox, Random, unsupported};
use pyrite_core::half::{bf16, f16};
use pyrite_core::rng::{below, words};
use pyrite_core::{DType, Result, bail, ensure};
use std::f64::consts::{LN_2, TAU};
use std::fmt::Write;

pub const FAMILY_RANDOM: u8 = 7;

#[repr(C)]
#[derive(Default)]
struct RandomArgs {
    dst: usize,
    src: usize,
    mask: usize,
    seed: u64,
    offset: u64,
    n: i64,
    prm: [f64; 4],
    lo: i64,
    span: u64,
    limit: u32,
    none: i32,
    shift: i32,
    dist: i32,
}

/// The series of `cpu/src/random/math.rs`, as C: computed in the same order, printed exactly.
fn constants(double: bool) -> String {
    let list = |v: Vec<f64>| v.iter().map(|c| format!("{c:e}")).collect::<Vec<_>>().join(", ");
    let turn = |n: usize, odd: usize| {
        let mut term = if odd == 1 { TAU } else { 1.0 };
        (0..n)
            .map(|k| {
                let now = term;
                let m = (2 * k + odd) as f64;
                term = -term * TAU * TAU / ((m + 1.0) * (m + 2.0));
                now
            })
            .collect::<Vec<f64>>()
    };
    let (atanh, sin, cos) = if double { (12, 9, 10) } else { (6, 5, 6) };
    let (hi, lo, bias) = if double {
        (0.693_147_180_369_123_8, 1.9082149292705877e-10, "0x3fe8000000000000ull")
    } else {
        (0.693359375, LN_2 - 0.693359375, "0x3f400000u")
    };
    let mut s = String::new();
    let _ =
        writeln!(s, "#define ATANH_SERIES {}", list((0..atanh).map(|k| 2.0 / (2 * k + 3) as f64).collect()));
    let _ =
        writeln!(s, "#define SIN_SERIES {}\n#define COS_SERIES {}", list(turn(sin, 1)), list(turn(cos, 0)));
    let _ = writeln!(s, "#define LN2_HI {hi:e}\n#define LN2_LO {lo:e}\n#define SPLIT_BIAS {bias}");
    s
}

/// The module for one dtype: title, text, kernel names (floats, whole).
pub fn module(d: DType) -> Result<(String, String, Vec<String>)> {
    let name = format!("random_{}", source::tag(d));
    let compute = if d.is_float() { d.compute() } else { DType::F32 };
    let t = source::storage(d);
    let mut text = source::begin(compute, &[])?;
    text.push_str(&constants(compute == DType::F64));
    text.push_str(source::RANDOM);
    if d.is_float() {
        let _ = writeln!(text, "KERNEL({name}_floats, RandomArgs) {{ random_floats<{t}>(a); }}");
    }
    let _ = writeln!(text, "KERNEL({name}_whole, RandomArgs) {{ random_whole<{t}>(a); }}");
    let mut names = vec![format!("{name}_whole")];
    if d.is_float() {
        names.push(format!("{name}_floats"));
    }
    Ok((name, text, names))
}

/// The greatest number below `hi` in a dtype, if the range is not empty.
fn top(d: DType, lo: f64, hi: f64) -> f64 {
    if lo >= hi || lo.is_nan() || hi.is_nan() {
        return lo;
    }
    let below16 = |bits: u16, zero: bool, positive: bool| match (zero, positive) {
        (true, _) => 0x8001,
        (_, true) => bits - 1,
        _ => bits + 1,
    };
    match d {
        DType::F32 => {
            let h = hi as f32;
            (if (h as f64) < hi { h } else { h.next_down() }) as f64
        }
        DType::F16 => {
            let h = f16::from_f64(hi);
            let v = h.to_f64();
            if v < hi { v } else { f16::from_bits(below16(h.to_bits(), v == 0.0, v > 0.0)).to_f64() }
        }
        DType::BF16 => {
            let h = bf16::from_f64(hi);
            let v = h.to_f64();
            if v < hi { v } else { bf16::from_bits(below16(h.to_bits(), v == 0.0, v > 0.0)).to_f64() }
        }
        _ => hi.next_down(),
    }
}

fn launch(c: &Cuda, d: DType, floats: bool, words: usize, a: &RandomArgs) -> Result<()> {
    let key = Key { family: FAMILY_RANDOM, op: 0, formula: 0, compute: DType::F32 };
    let pair = c.kernel(key.pack(&[d]), || module(d))?;
    let threads = (a.n as usize).div_ceil(64 / words) * 16;
    // SAFETY: RandomArgs is what the kernels take; the arrays in it are dense, of `n` elements and of
    // the kernel's dtype, by the callers below.
    unsafe { c.launch(pair[floats as usize], (c.grid(threads), 1), a) }
}

pub fn random(c: &Cuda, dist: Random, at: Philox, dst: Arr) -> Result<()> {
    c.check()?;
    if dst.numel() == 0 {
        return Ok(());
    }
    if !dst.is_contiguous() {
        let dense = Dense::like(c, &dst)?;
        let copy = dense.arr(&dst);
        random(c, dist, at, copy)?;
        return map::copy(c, dst, copy);
    }
    let d = dst.dtype;
    if d.is_complex() {
        bail!(NotImplemented, "random: not implemented for {d}; fill the real and imaginary parts");
    }
    let words = words(dist, d);
    let mut a = RandomArgs {
        dst: dst.ptr as usize,
        seed: at.seed,
        offset: at.offset,
        n: dst.numel() as i64,
        ..Default::default()
    };
    let floats = match dist {
        Random::Uniform { lo, hi } => {
            a.prm = [hi - lo, lo, top(d, lo, hi), 0.0];
            a.shift = match d {
                DType::F16 => 32 - 11,
                DType::BF16 => 32 - 8,
                _ => 32 - 24,
            };
            true
        }
        Random::Normal { mean, std } => {
            a.dist = 1;
            a.prm = [std, mean, 0.0, 0.0];
            true
        }
        Random::Integers { lo, hi } => {
            ensure!(lo < hi, Value, "random integers: the range [{lo}, {hi}) is empty");
            a.lo = lo;
            a.span = hi.wrapping_sub(lo) as u64;
            a.dist = if words == 1 { 2 } else { 3 };
            false
        }
        Random::Bernoulli { p } => {
            a.dist = 4;
            a.limit = below(p).unwrap_or(0);
            a.none = below(p).is_none() as i32;
            false
        }
        Random::Exponential { .. } => return unsupported(c.device, "exponential_"),
        Random::Cauchy { .. } => return unsupported(c.device, "cauchy_"),
        Random::LogNormal { .. } => return unsupported(c.device, "log_normal_"),
        Random::Geometric { .. } => return unsupported(c.device, "geometric_"),
    };
    if floats && !d.is_float() {
        bail!(NotImplemented, "random: {dist:?} is not implemented for {d}; use a floating dtype");
    }
    launch(c, d, floats, words, &a)
}

/// `y = keep ? x / (1 - p) : 0`, `mask = keep`.
pub fn dropout(c: &Cuda, at: Philox, p: f64, x: Arr, y: Arr, mask: Arr) -> Result<()> {
    c.check()?;
    ensure!(
        x.shape == y.shape && x.shape == mask.shape,
        Shape,
        "dropout: input {:?}, output {:?} and mask {:?} differ",
        x.shape,
        y.shape,
        mask.shape
    );
    ensure!(
        x.dtype.is_float() && y.dtype == x.dtype && mask.dtype.size() == 1,
        Type,
        "dropout: input {}, output {} and mask {} do not fit",
        x.dtype,
        y.dtype,
        mask.dtype
    );
    if x.numel() == 0 {
        return Ok(());
    }
    if !(x.is_contiguous() && y.is_contiguous() && mask.is_contiguous()) {
        let (dx, dy, dm) = (Dense::like(c, &x)?, Dense::like(c, &y)?, Dense::like(c, &mask)?);
        map::copy(c, dx.arr(&x), x)?;
        dropout(c, at, p, dx.arr(&x), dy.arr(&y), dm.arr(&mask))?;
        map::copy(c, y, dy.arr(&y))?;
        return map::copy(c, mask, dm.arr(&mask));
    }
    let a = RandomArgs {
        dst: y.ptr as usize,
        src: x.ptr as usize,
        mask: mask.ptr as usize,
        seed: at.seed,
        offset: at.offset,
        n: x.numel() as i64,
        prm: [if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 }, 0.0, 0.0, 0.0],
        limit: below(p).unwrap_or(0),
        none: below(p).is_none() as i32,
        dist: 5,
        ..Default::default()
    };
    launch(c, x.dtype, false, 1, &a)
}
