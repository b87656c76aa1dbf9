//! Three steps of every variant against the formulas in f64, over parameters of many sizes.
#![allow(clippy::unwrap_used)]

use super::*;
use pyrite_core::rng::word;

/// The reference: one element, one step.
fn reference(s: OptimStep, p: &mut f64, g0: f64, st: &mut [f64; 3]) {
    match s {
        OptimStep::Sgd { lr, momentum, dampening, weight_decay, nesterov, maximize, first } => {
            let g = if maximize { -g0 } else { g0 } + weight_decay * *p;
            let mut d = g;
            if momentum != 0.0 {
                st[0] = if first { g } else { momentum * st[0] + (1.0 - dampening) * g };
                d = if nesterov { g + momentum * st[0] } else { st[0] };
            }
            *p -= lr * d;
        }
        OptimStep::Adam { lr, beta1, beta2, eps, weight_decay, decoupled, amsgrad, maximize, step } => {
            let mut g = if maximize { -g0 } else { g0 };
            if decoupled {
                *p *= 1.0 - lr * weight_decay;
            } else {
                g += weight_decay * *p;
            }
            st[0] = beta1 * st[0] + (1.0 - beta1) * g;
            st[1] = beta2 * st[1] + (1.0 - beta2) * g * g;
            st[2] = st[2].max(st[1]);
            let v = if amsgrad { st[2] } else { st[1] };
            let (c1, c2) = (1.0 - beta1.powi(step as i32), 1.0 - beta2.powi(step as i32));
            *p -= lr / c1 * st[0] / (v.sqrt() / c2.sqrt() + eps);
        }
        OptimStep::RmsProp { lr, alpha, eps, weight_decay, momentum, centered, maximize } => {
            let g = if maximize { -g0 } else { g0 } + weight_decay * *p;
            st[0] = alpha * st[0] + (1.0 - alpha) * g * g;
            st[2] = alpha * st[2] + (1.0 - alpha) * g;
            let v = if centered { st[0] - st[2] * st[2] } else { st[0] };
            let d = g / (v.sqrt() + eps);
            st[1] = momentum * st[1] + d;
            *p -= lr * if momentum > 0.0 { st[1] } else { d };
        }
    }
}

fn variants(t: u64) -> Vec<OptimStep> {
    let mut all = vec![];
    for on in [false, true] {
        for wd in [0.0, 0.1] {
            for momentum in [0.0, 0.9] {
                all.push(OptimStep::Sgd {
                    lr: 0.1,
                    momentum,
                    dampening: if on { 0.0 } else { 0.2 },
                    weight_decay: wd,
                    nesterov: on,
                    maximize: !on,
                    first: t == 1,
                });
                all.push(OptimStep::RmsProp {
                    lr: 0.01,
                    alpha: 0.9,
                    eps: 1e-3,
                    weight_decay: wd,
                    momentum,
                    centered: on,
                    maximize: on,
                });
            }
            for decoupled in [false, true] {
                all.push(OptimStep::Adam {
                    lr: 0.01,
                    beta1: 0.9,
                    beta2: 0.99,
                    eps: 1e-8,
                    weight_decay: wd,
                    decoupled,
                    amsgrad: on,
                    maximize: on,
                    step: t,
                });
            }
        }
    }
    all
}

fn compare(dtype: DType, tol: f64) {
    let sizes = [1usize, 0, 7, 16, 33, 20_000, 3, 16384, 50_001];
    let total: usize = sizes.iter().sum();
    let size = dtype.size();
    for v in 0..variants(1).len() {
        let mut want: Vec<f64> = vec![];
        let mut st = vec![[0f64; 3]; total];
        let mut bufs: Vec<Vec<u8>> = (0..5).map(|_| vec![0u8; total * size]).collect();
        let put = |b: &mut [u8], i: usize, x: f64| {
            // SAFETY: element i is inside the buffer.
            unsafe { crate::strided::write(dtype, b.as_mut_ptr().add(i * size), x) }
        };
        // SAFETY: as above.
        let get = |b: &[u8], i: usize| unsafe { crate::strided::read(dtype, b.as_ptr().add(i * size)) };
        for i in 0..total {
            put(&mut bufs[0], i, word(1, 0, i as u64) as f64 / 4e9 - 0.5);
            want.push(get(&bufs[0], i));
        }
        for t in 1..=3u64 {
            let s = variants(t)[v];
            for i in 0..total {
                put(&mut bufs[1], i, word(2, t << 40, i as u64) as f64 / 4e9 - 0.5);
                reference(s, &mut want[i], get(&bufs[1], i), &mut st[i]);
            }
            let shapes: Vec<[usize; 1]> = sizes.iter().map(|&n| [n]).collect();
            let (mut params, mut at) = (vec![], 0);
            for shape in &shapes {
                let a = |k: usize| Arr {
                    ptr: bufs[k].as_ptr().cast_mut().wrapping_add(at * size),
                    dtype,
                    shape,
                    strides: &[1],
                };
                params.push(OptimParam { p: a(0), g: a(1), state: [Some(a(2)), Some(a(3)), Some(a(4))] });
                at += shape[0];
            }
            step(s, &params).unwrap();
        }
        for i in 0..total {
            let got = get(&bufs[0], i);
            assert!((got - want[i]).abs() < tol, "{:?} {dtype} {i}: {got} {}", variants(3)[v], want[i]);
        }
    }
}

#[test]
fn formulas() {
    compare(DType::F64, 1e-12);
    compare(DType::F32, 2e-4);
}

#[test]
fn bad_arguments_are_errors() {
    let p = [0f32; 4];
    let a = |n: &'static [usize]| Arr {
        ptr: p.as_ptr().cast_mut().cast(),
        dtype: DType::F32,
        shape: n,
        strides: &[1],
    };
    let s = variants(1)[0];
    assert!(step(s, &[OptimParam { p: a(&[4]), g: a(&[3]), state: [None; 3] }]).is_err());
    let adam = variants(1).into_iter().find(|s| matches!(s, OptimStep::Adam { .. })).unwrap();
    assert!(step(adam, &[OptimParam { p: a(&[4]), g: a(&[4]), state: [None; 3] }]).is_err());
}
