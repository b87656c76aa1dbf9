//! Random numbers are the CPU's, bit for bit.

use crate::common::*;
use pyrite_core::backend::{Philox, Random};
use pyrite_core::{Backend, DType};
use pyrite_cpu::cpu;

#[test]
fn fills_equal_the_cpus() {
    let Some(dev) = device() else { return };
    let at = Philox { seed: 0x1234_5678_9abc, offset: 48 };
    let n = 1000;
    let mut cases = Vec::new();
    for d in [DType::F32, DType::F64, DType::BF16, DType::F16] {
        cases.push((Random::Uniform { lo: -1.0, hi: 2.0 }, d));
        cases.push((Random::Normal { mean: 0.5, std: 2.0 }, d));
        cases.push((Random::Bernoulli { p: 0.3 }, d));
    }
    for d in [DType::I64, DType::U8, DType::Bool] {
        cases.push((Random::Bernoulli { p: 0.3 }, d));
        cases.push((Random::Integers { lo: 0, hi: 100 }, d));
    }
    cases.push((Random::Integers { lo: -5, hi: 1 << 20 }, DType::I64));
    cases.push((Random::Integers { lo: i64::MIN, hi: i64::MAX }, DType::I64));
    cases.push((Random::Bernoulli { p: 0.0 }, DType::F32));
    for (dist, d) in cases {
        let run = |on: &'static dyn Backend| {
            let a = Array::dense(on, &vec![0.0; n], d, &[n]);
            on.random(dist, at, a.arr()).unwrap();
            a.bytes()
        };
        assert_eq!(run(dev), run(cpu()), "{dist:?} {d}");
    }
}

#[test]
fn dropout_equals_the_cpus() {
    let Some(dev) = device() else { return };
    let at = Philox { seed: 9, offset: 16 };
    for p in [0.0, 0.4, 1.0] {
        let run = |on: &'static dyn Backend| {
            let x =
                Array::dense(on, &(0..300).map(|i| i as f64 / 7.0).collect::<Vec<_>>(), DType::F32, &[300]);
            let y = Array::dense(on, &vec![0.0; 300], DType::F32, &[300]);
            let mask = Array::dense(on, &vec![0.0; 300], DType::Bool, &[300]);
            on.dropout(at, p, x.arr(), y.arr(), mask.arr()).unwrap();
            [y.bytes(), mask.bytes()].concat()
        };
        assert_eq!(run(dev), run(cpu()), "p = {p}");
    }
}
