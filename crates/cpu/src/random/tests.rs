//! Against the documented formulas in f64, on every instruction set, and against moments.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::simd::{Isa, dispatch_on};
use pyrite_core::rng::{word, word64};

const ISAS: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

fn draw<T: Drawn>(isa: Isa, dist: Random, n: usize) -> Vec<T> {
    let mut v = vec![T::ZERO; n];
    dispatch_on(isa, Fill { dist, seed: 42, counter: (1 << 32) - 24, out: v.as_mut_ptr(), n });
    v
}
const OFF: u64 = (1 << 32) - 24;

#[test]
fn words_are_the_reference_stream() {
    for isa in ISAS {
        let v: Vec<i64> = draw(isa, Random::Integers { lo: 0, hi: 1 << 40 }, 200);
        let p: Vec<i32> = draw(isa, Random::Integers { lo: -5, hi: 60000 }, 200);
        for i in 0..200 {
            assert_eq!(v[i] as u64, word64(42, OFF, i as u64) % (1 << 40), "{isa:?} {i}");
            assert_eq!(p[i] as i64, -5 + ((word(42, OFF, i as u64) as u64 * 60005) >> 32) as i64);
        }
    }
}

#[test]
fn every_set_gives_the_same_bits_near_the_formula() {
    let dists = [
        Random::Uniform { lo: -2.0, hi: 3.0 },
        Random::Normal { mean: 0.5, std: 2.0 },
        Random::LogNormal { mean: 0.5, std: 2.0 },
        Random::Exponential { rate: 1.5 },
        Random::Cauchy { median: 1.0, sigma: 2.0 },
        Random::Geometric { p: 0.01 },
    ];
    for dist in dists {
        let s32: Vec<f32> = draw(Isa::Scalar, dist, 5003);
        let s64: Vec<f64> = draw(Isa::Scalar, dist, 5003);
        for isa in &ISAS[1..] {
            let v32: Vec<f32> = draw(*isa, dist, 5003);
            let v64: Vec<f64> = draw(*isa, dist, 5003);
            assert!(s32.iter().zip(&v32).all(|(a, b)| a.to_bits() == b.to_bits()), "{dist:?} {isa:?}");
            assert!(s64.iter().zip(&v64).all(|(a, b)| a.to_bits() == b.to_bits()), "{dist:?} {isa:?}");
        }
        for i in 0..5003u64 {
            let x = |i: u64| word64(42, OFF, i);
            let (a, b) = (i / 32 * 32 + i % 16, i / 32 * 32 + 16 + i % 16);
            let u1 = |i: u64| ((x(i) >> 11) + 1) as f64 / 2f64.powi(53);
            let t = |i: u64| ((x(i) as i64) >> 11) as f64 / 2f64.powi(53);
            let normal = || {
                let r = (-2.0 * u1(a).ln()).sqrt();
                let angle = std::f64::consts::TAU * t(b);
                0.5 + 2.0 * r * if i % 32 < 16 { angle.cos() } else { angle.sin() }
            };
            let want = match dist {
                Random::Uniform { .. } => -2.0 + 5.0 * ((x(i) >> 11) as f64 / 2f64.powi(53)),
                Random::Normal { .. } => normal(),
                Random::LogNormal { .. } => normal().exp(),
                Random::Exponential { rate } => -u1(i).ln() / rate,
                Random::Cauchy { .. } => 1.0 + 2.0 * (std::f64::consts::PI * t(i)).tan(),
                Random::Geometric { p } => (u1(i).ln() / (-p).ln_1p()).ceil().max(1.0),
                _ => 0.0,
            };
            let got = s64[i as usize];
            assert!((got - want).abs() <= 1e-12 * want.abs().max(1.0), "{dist:?} {i}: {got} {want}");
        }
    }
}

#[test]
fn f32_functions_are_accurate() {
    struct All;
    impl ArchKernel for All {
        type Out = ();
        #[inline(always)]
        fn run<A: Arch>(self) {
            for k in 1..20000 {
                let u = k as f32 / 20000.0;
                let l = ln(A::F32::splat(u)).extract(0);
                assert!((l as f64 - (u as f64).ln()).abs() <= 3e-7 * (u as f64).ln().abs(), "ln {u}");
                let (s, c) = turn(A::F32::splat(u - 0.5));
                let a = std::f64::consts::TAU * (u - 0.5) as f64;
                assert!((s.extract(0) as f64 - a.sin()).abs() < 1.5e-7, "sin {u}");
                assert!((c.extract(0) as f64 - a.cos()).abs() < 1.5e-7, "cos {u}");
                let e = exp(A::F32::splat(20.0 * (u - 0.5))).extract(0) as f64;
                let want = (20.0 * (u as f64 as f32 - 0.5) as f64).exp();
                assert!((e / want - 1.0).abs() < 1e-6, "exp {u}");
            }
            for (x, y) in [(1000.0, f32::INFINITY), (-1000.0, 0.0), (-103.0, 1.4e-45), (0.0, 1.0)] {
                assert_eq!(exp(A::F32::splat(x)).extract(0), y, "exp {x}");
            }
        }
    }
    for isa in ISAS {
        dispatch_on(isa, All);
    }
}

#[test]
fn moments_threads_and_layouts() {
    let at = Philox { seed: 3, offset: 160 };
    let n = 300_000;
    let mut v = vec![0f32; n];
    fn arr<'a>(p: *mut f32, shape: &'a [usize], strides: &'a [isize]) -> Arr<'a> {
        Arr { ptr: p.cast(), dtype: DType::F32, shape, strides }
    }
    fill(Random::Normal { mean: 1.0, std: 2.0 }, at, arr(v.as_mut_ptr(), &[n], &[1])).unwrap();
    let mean = v.iter().map(|&x| x as f64).sum::<f64>() / n as f64;
    let var = v.iter().map(|&x| (x as f64 - mean).powi(2)).sum::<f64>() / n as f64;
    assert!((mean - 1.0).abs() < 0.02 && (var - 4.0).abs() < 0.05, "{mean} {var}");
    // Row-major order whatever the strides.
    let mut t = vec![0f32; n];
    fill(Random::Normal { mean: 1.0, std: 2.0 }, at, arr(t.as_mut_ptr(), &[300, 1000], &[1, 300])).unwrap();
    assert!((0..n).all(|i| t[i % 1000 * 300 + i / 1000] == v[i]));
    // Uniform stays below its end in every dtype.
    let mut h = vec![f16::ZERO; n];
    let out = Arr { ptr: h.as_mut_ptr().cast(), dtype: DType::F16, shape: &[n], strides: &[1] };
    fill(Random::Uniform { lo: 0.1, hi: 0.3 }, at, out).unwrap();
    assert!(h.iter().all(|x| x.to_f64() < 0.3 && x.to_f64() > 0.0999));
    let out = Arr { ptr: h.as_mut_ptr().cast(), dtype: DType::C64, shape: &[1], strides: &[1] };
    assert!(fill(Random::Uniform { lo: 0.1, hi: 0.3 }, at, out).is_err());
}

#[test]
fn bernoulli_and_dropout_agree() {
    let at = Philox { seed: 9, offset: 0 };
    let n = 100_003;
    let x: Vec<f32> = (0..n).map(|i| i as f32 + 1.0).collect();
    let (mut y, mut m, mut b) = (vec![0f32; n], vec![9u8; n], vec![9u8; n]);
    let f = |p: *mut f32| Arr { ptr: p.cast(), dtype: DType::F32, shape: &[100_003], strides: &[1] };
    let u = |p: *mut u8| Arr { ptr: p, dtype: DType::Bool, shape: &[100_003], strides: &[1] };
    for p in [0.25, 0.0, 1.0] {
        dropout(at, p, f(x.as_ptr().cast_mut()), f(y.as_mut_ptr()), u(m.as_mut_ptr())).unwrap();
        fill(Random::Bernoulli { p }, at, u(b.as_mut_ptr())).unwrap();
        for i in 0..n {
            assert_eq!(m[i], 1 - b[i]);
            assert_eq!(y[i], if m[i] == 1 { x[i] * (1.0 / (1.0 - p)) as f32 } else { 0.0 });
        }
        let kept = m.iter().map(|&v| v as usize).sum::<usize>() as f64 / n as f64;
        assert!((kept - (1.0 - p)).abs() < 0.01);
    }
    // Half precision and strides: the same choice.
    let xh: Vec<f16> = (0..n).map(|_| f16::ONE).collect();
    let mut yh = vec![f16::ZERO; 2 * n];
    let src = Arr { ptr: xh.as_ptr().cast_mut().cast(), dtype: DType::F16, shape: &[100_003], strides: &[1] };
    let dst = Arr { ptr: yh.as_mut_ptr().cast(), dtype: DType::F16, shape: &[100_003], strides: &[2] };
    dropout(at, 0.25, src, dst, u(m.as_mut_ptr())).unwrap();
    fill(Random::Bernoulli { p: 0.25 }, at, u(b.as_mut_ptr())).unwrap();
    assert!((0..n).all(|i| m[i] == 1 - b[i] && (yh[2 * i] != f16::ZERO) == (m[i] == 1)));
}
