//! Reductions, matrix products, rowwise kernels, optimizer steps and memory, against plain loops.

use crate::common::*;
use pyrite_core::backend::*;
use pyrite_core::rows::{REDUCTIONS, Reduction};
use pyrite_core::{DType, Kind, Layout};

fn row(name: &str) -> &'static Reduction {
    REDUCTIONS.iter().find(|r| r.name == name).unwrap()
}

/// The reductions by their definitions, in f64.
fn naive(name: &str, v: &[f64], p: &[f64]) -> f64 {
    let n = v.len() as f64;
    let sum = |f: &dyn Fn(f64) -> f64| v.iter().map(|x| f(*x)).sum::<f64>();
    let nan_first = |a: f64, b: f64, pick: fn(f64, f64) -> f64| {
        if a.is_nan() || b.is_nan() { f64::NAN } else { pick(a, b) }
    };
    match name {
        "sum" => sum(&|x| x),
        "mean" => sum(&|x| x) / n,
        "prod" => v.iter().product(),
        "amax" => v.iter().copied().reduce(|a, b| nan_first(a, b, f64::max)).unwrap(),
        "amin" => v.iter().copied().reduce(|a, b| nan_first(a, b, f64::min)).unwrap(),
        "nansum" => sum(&|x| if x.is_nan() { 0.0 } else { x }),
        "norm1" => sum(&f64::abs),
        "norm2" => sum(&|x| x * x).sqrt(),
        "normp" => sum(&|x| x.abs().powf(p[0])).powf(1.0 / p[0]),
        "norminf" => v.iter().map(|x| x.abs()).fold(0.0, f64::max),
        "normninf" => v.iter().map(|x| x.abs()).fold(f64::INFINITY, f64::min),
        "count_nonzero" => sum(&|x| (x != 0.0) as u8 as f64),
        "meansq" => sum(&|x| x * x) / n,
        "var" => sum(&|x| (x - sum(&|x| x) / n).powi(2)) / (n - p[0]),
        other => panic!("no definition of {other} here: add it"),
    }
}

/// Shapes that meet every way the kernel shares its threads: [outer, reduced, inner].
const SHAPES: [[usize; 3]; 6] = [[1, 5000, 1], [3, 40, 1], [2, 33, 70], [1, 300, 5], [40, 2, 3], [1, 1, 1]];

fn check_reduce(op: ReduceOp, name: &str, d: DType, dst: DType, params: &[f64], tol: f64) {
    let dev = device().unwrap();
    for [o, r, i] in SHAPES {
        let mut rng = Lcg(5);
        let n = o * r * i;
        let values: Vec<f64> = (0..n)
            .map(|_| if d.is_float() { rng.range(0.9, 1.1) } else { rng.range(-3.0, 3.0).round() })
            .map(|v| if !d.is_signed() { v.abs() } else { v })
            .collect();
        // What the dtype holds is what is reduced.
        let values = decode(&encode(&values, d), d);
        let src = Array::dense(dev, &values, d, &[o, r, i]);
        let out = Array::dense(dev, &vec![9.0; o * i], dst, &[o, 1, i]);
        dev.reduce(op, out.arr(), None, src.arr(), params).unwrap();
        let want: Vec<f64> = (0..o * i)
            .map(|k| {
                let column: Vec<f64> = (0..r).map(|j| values[(k / i) * r * i + j * i + k % i]).collect();
                naive(name, &column, params)
            })
            .collect();
        let want = decode(&encode(&want, dst), dst);
        assert_close(&format!("{name} {d} {:?}", [o, r, i]), &out.values(), &want, tol);
    }
}

#[test]
fn every_reduction_f32() {
    let Some(_) = device() else { return };
    for r in REDUCTIONS {
        let dst = if r.name == "count_nonzero" { DType::I64 } else { DType::F32 };
        let p: &[f64] = if r.params.is_empty() { &[] } else { &[3.0] };
        check_reduce(ReduceOp::Row(r.id), r.name, DType::F32, dst, p, 2e-5);
    }
    check_reduce(ReduceOp::Var, "var", DType::F32, DType::F32, &[0.0], 1e-5);
}

#[test]
fn reductions_of_other_dtypes() {
    let Some(_) = device() else { return };
    let id = |n| ReduceOp::Row(row(n).id);
    check_reduce(id("sum"), "sum", DType::F64, DType::F64, &[], 1e-13);
    check_reduce(id("sum"), "sum", DType::I32, DType::I64, &[], 0.0);
    check_reduce(id("amax"), "amax", DType::I8, DType::I8, &[], 0.0);
    check_reduce(id("amin"), "amin", DType::U8, DType::U8, &[], 0.0);
    check_reduce(id("count_nonzero"), "count_nonzero", DType::Bool, DType::I64, &[], 0.0);
    check_reduce(id("mean"), "mean", DType::F16, DType::F16, &[], 1e-3);
}

/// The least values of integer types are found, although no number is below them.
#[test]
fn integer_extremes() {
    let Some(dev) = device() else { return };
    let src = Array::dense(dev, &[-128.0, -128.0], DType::I8, &[2]);
    let out = Array::dense(dev, &[0.0], DType::I8, &[1]);
    dev.reduce(ReduceOp::Row(row("amax").id), out.arr(), None, src.arr(), &[]).unwrap();
    assert_eq!(out.values(), [-128.0]);
    let src = Array::dense(dev, &[0.0, 0.0], DType::U8, &[2]);
    let out = Array::dense(dev, &[5.0], DType::U8, &[1]);
    dev.reduce(ReduceOp::Row(row("amax").id), out.arr(), None, src.arr(), &[]).unwrap();
    assert_eq!(out.values(), [0.0]);
}

#[test]
fn arg_extrema_prefer_nan_then_the_first() {
    let Some(dev) = device() else { return };
    let v = [1.0, 5.0, 5.0, 2.0, 7.0, f64::NAN, 9.0, f64::NAN];
    let src = Array::dense(dev, &v, DType::F32, &[2, 4]);
    let idx = Array::dense(dev, &[0.0; 2], DType::I64, &[2, 1]);
    let val = Array::dense(dev, &[0.0; 2], DType::F32, &[2, 1]);
    dev.arg_reduce(ArgOp::Max, idx.arr(), Some(val.arr()), src.arr(), 1).unwrap();
    assert_eq!(idx.values(), [1.0, 1.0]);
    assert_close("values", &val.values(), &[5.0, f64::NAN], 0.0);
    let idx = Array::dense(dev, &[0.0; 4], DType::I64, &[1, 4]);
    dev.arg_reduce(ArgOp::Min, idx.arr(), None, src.arr(), 0).unwrap();
    assert_eq!(idx.values(), [0.0, 1.0, 0.0, 1.0]);
}

#[test]
fn matrix_products_of_every_orientation() {
    let Some(dev) = device() else { return };
    let (batch, m, n, k) = (2, 5, 4, 3);
    let mut rng = Lcg(3);
    let mut data = |len: usize| (0..len).map(|_| rng.range(-2.0, 2.0)).collect::<Vec<_>>();
    let (a, b, bias) = (data(batch * m * k), data(batch * k * n), data(n));
    let lay = |rows: usize, cols: usize, kind: usize| {
        let (s, len) = match kind {
            0 => ([cols as isize, 1], rows * cols),
            1 => ([1, rows as isize], rows * cols),
            // Neither direction is dense: must be copied first.
            _ => ([2 * cols as isize, 2], 2 * rows * cols),
        };
        (Layout::new(&[batch, rows, cols][..], &[len as isize, s[0], s[1]][..], 0), batch * len)
    };
    let place = |values: &[f64], (l, len): &(Layout, usize), rows: usize, cols: usize| {
        let mut out = vec![0.0; *len];
        for (x, v) in values.iter().enumerate() {
            let (bt, r, c) = (x / (rows * cols), x / cols % rows, x % cols);
            out[(bt as isize * l.strides()[0] + r as isize * l.strides()[1] + c as isize * l.strides()[2])
                as usize] = *v;
        }
        Array::new(dev, &out, DType::F64, l.clone())
    };
    for (ka, kb, kc) in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 1), (2, 0, 0), (0, 2, 1), (0, 0, 2)] {
        let (aa, bb) = (place(&a, &lay(m, k, ka), m, k), place(&b, &lay(k, n, kb), k, n));
        let lc = lay(m, n, kc);
        let cc = place(&vec![1.0; batch * m * n], &lc, m, n);
        let bv = Array::dense(dev, &bias, DType::F64, &[n]);
        dev.gemm(&Gemm {
            a: aa.arr(),
            b: bb.arr(),
            c: cc.arr(),
            bias: Some(bv.arr()),
            alpha: 2.0,
            beta: 0.5,
            activation: Activation::Relu,
        })
        .unwrap();
        let got = cc.values();
        for x in 0..batch * m * n {
            let (bt, r, c) = (x / (m * n), x / n % m, x % n);
            let dot: f64 = (0..k).map(|l| a[bt * m * k + r * k + l] * b[bt * k * n + l * n + c]).sum();
            let want = (2.0 * dot + 0.5 + bias[c]).max(0.0);
            let at = bt as isize * lc.0.strides()[0]
                + r as isize * lc.0.strides()[1]
                + c as isize * lc.0.strides()[2];
            assert!(close(got[at as usize], want, 1e-12), "{ka}{kb}{kc}: {} {want}", got[at as usize]);
        }
    }
    let i = Array::dense(dev, &[1.0], DType::I64, &[1, 1, 1]);
    let g = Gemm {
        a: i.arr(),
        b: i.arr(),
        c: i.arr(),
        bias: None,
        alpha: 1.0,
        beta: 0.0,
        activation: Activation::None,
    };
    let e = dev.gemm(&g).unwrap_err();
    assert_eq!(e.kind(), Kind::NotImplemented);
    assert!(e.message().contains("int64"), "{e}");
}

#[test]
fn softmax_and_cross_entropy() {
    let Some(dev) = device() else { return };
    for n in [3usize, 10, 700] {
        let rows = 5;
        let mut rng = Lcg(n as u64);
        let x: Vec<f64> = (0..rows * n).map(|_| rng.range(-4.0, 4.0)).collect();
        let dy: Vec<f64> = (0..rows * n).map(|_| rng.range(-1.0, 1.0)).collect();
        let w: Vec<f64> = (0..n).map(|_| rng.range(0.5, 2.0)).collect();
        let target = [0.0, 1.0, 2.0, -100.0, n as f64 - 1.0];
        let lse: Vec<f64> = x.chunks(n).map(|r| r.iter().map(|v| v.exp()).sum::<f64>().ln()).collect();
        let soft: Vec<f64> = x.iter().enumerate().map(|(i, v)| (v - lse[i / n]).exp()).collect();
        let f = DType::F64;
        let (ax, ady) = (Array::dense(dev, &x, f, &[rows, n]), Array::dense(dev, &dy, f, &[rows, n]));
        let y = Array::dense(dev, &vec![0.0; rows * n], f, &[rows, n]);
        let dx = Array::dense(dev, &vec![0.0; rows * n], f, &[rows, n]);
        for log in [false, true] {
            dev.rowwise(Rowwise::Softmax { x: ax.arr(), y: y.arr(), log }).unwrap();
            let want: Vec<f64> = soft.iter().map(|v| if log { v.ln() } else { *v }).collect();
            assert_close("softmax", &y.values(), &want, 1e-12);
            dev.rowwise(Rowwise::SoftmaxBackward { dy: ady.arr(), y: y.arr(), dx: dx.arr(), log }).unwrap();
            let want: Vec<f64> = (0..rows * n)
                .map(|i| {
                    let r = i / n * n..i / n * n + n;
                    if log {
                        dy[i] - soft[i] * dy[r].iter().sum::<f64>()
                    } else {
                        soft[i] * (dy[i] - r.map(|j| dy[j] * soft[j]).sum::<f64>())
                    }
                })
                .collect();
            assert_close("softmax backward", &dx.values(), &want, 1e-12);
        }
        let (eps, ignore) = (0.1, -100);
        let (at, aw) = (Array::dense(dev, &target, DType::I64, &[rows]), Array::dense(dev, &w, f, &[n]));
        let (loss, l) = (Array::dense(dev, &[0.0; 5], f, &[rows]), Array::dense(dev, &[0.0; 5], f, &[rows]));
        dev.rowwise(Rowwise::CrossEntropy {
            x: ax.arr(),
            target: at.arr(),
            weight: Some(aw.arr()),
            ignore,
            smoothing: eps,
            loss: loss.arr(),
            lse: l.arr(),
        })
        .unwrap();
        let value = |r: usize, x: &[f64]| {
            if target[r] < 0.0 {
                return 0.0;
            }
            let lse = x[r * n..(r + 1) * n].iter().map(|v| v.exp()).sum::<f64>().ln();
            let t = target[r] as usize;
            let smooth: f64 = (0..n).map(|c| w[c] * (lse - x[r * n + c])).sum();
            (1.0 - eps) * w[t] * (lse - x[r * n + t]) + eps / n as f64 * smooth
        };
        let want: Vec<f64> = (0..rows).map(|r| value(r, &x)).collect();
        assert_close("cross entropy", &loss.values(), &want, 1e-12);
        let scale = [1.0, 2.0, 0.5, 1.0, -1.0];
        let s = Array::dense(dev, &scale, f, &[rows]);
        dev.rowwise(Rowwise::CrossEntropyBackward {
            x: ax.arr(),
            target: at.arr(),
            weight: Some(aw.arr()),
            ignore,
            smoothing: eps,
            lse: l.arr(),
            scale: s.arr(),
            dx: dx.arr(),
        })
        .unwrap();
        // Against central differences of the definition.
        let got = dx.values();
        for i in (0..rows * n).step_by(1 + n / 7) {
            let (mut up, mut down) = (x.clone(), x.clone());
            up[i] += 1e-5;
            down[i] -= 1e-5;
            let slope = scale[i / n] * (value(i / n, &up) - value(i / n, &down)) / 2e-5;
            assert!(close(got[i], slope, 1e-8), "gradient {i}: {} {slope}", got[i]);
        }
    }
}

#[test]
fn layer_norm_and_its_gradients() {
    let Some(dev) = device() else { return };
    let (rows, n, f) = (6, 37, DType::F64);
    let mut rng = Lcg(8);
    let mut data = |len: usize| (0..len).map(|_| rng.range(-2.0, 2.0)).collect::<Vec<_>>();
    let (x, w, b, dy) = (data(rows * n), data(n), data(n), data(rows * n));
    for rms in [false, true] {
        let forward = |x: &[f64], w: &[f64], b: &[f64]| -> Vec<f64> {
            let mut y = Vec::new();
            for r in x.chunks(n) {
                let mean = if rms { 0.0 } else { r.iter().sum::<f64>() / n as f64 };
                let var = r.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
                y.extend((0..n).map(|i| (r[i] - mean) / (var + 1e-5).sqrt() * w[i] + b[i]));
            }
            y
        };
        let dense = |v: &[f64], s: &[usize]| Array::dense(dev, v, f, s);
        let (ax, aw, ab, ady) =
            (dense(&x, &[rows, n]), dense(&w, &[n]), dense(&b, &[n]), dense(&dy, &[rows, n]));
        let (y, mean, rstd) = (dense(&x, &[rows, n]), dense(&[0.0; 6], &[rows]), dense(&[0.0; 6], &[rows]));
        dev.rowwise(Rowwise::LayerNorm {
            x: ax.arr(),
            w: Some(aw.arr()),
            b: Some(ab.arr()),
            y: y.arr(),
            mean: Some(mean.arr()),
            rstd: rstd.arr(),
            eps: 1e-5,
            rms,
        })
        .unwrap();
        assert_close("layer norm", &y.values(), &forward(&x, &w, &b), 1e-12);
        let (dx, dw, db) = (dense(&x, &[rows, n]), dense(&w, &[n]), dense(&b, &[n]));
        dev.rowwise(Rowwise::LayerNormBackward {
            dy: ady.arr(),
            x: ax.arr(),
            w: Some(aw.arr()),
            mean: Some(mean.arr()),
            rstd: rstd.arr(),
            dx: Some(dx.arr()),
            dw: Some(dw.arr()),
            db: Some(db.arr()),
            rms,
        })
        .unwrap();
        let loss = |x: &[f64], w: &[f64], b: &[f64]| {
            forward(x, w, b).iter().zip(&dy).map(|(y, g)| y * g).sum::<f64>()
        };
        for (name, which, got) in [("dx", 0, dx.values()), ("dw", 1, dw.values()), ("db", 2, db.values())] {
            for i in (0..got.len()).step_by(5) {
                let at = |h: f64| {
                    let mut v = [x.clone(), w.clone(), b.clone()];
                    v[which][i] += h;
                    loss(&v[0], &v[1], &v[2])
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!(close(got[i], slope, 1e-7), "{name} {i} rms={rms}: {} {slope}", got[i]);
            }
        }
    }
}

#[test]
fn optimizer_steps() {
    let Some(dev) = device() else { return };
    // More parameters than one launch takes.
    let count = 30;
    let f = DType::F64;
    let data = |k: usize, s: f64| (0..k + 1).map(|i| (i as f64 + s) / (k + 2) as f64).collect::<Vec<f64>>();
    let arrays = |s: f64| (0..count).map(|k| Array::dense(dev, &data(k, s), f, &[k + 1])).collect::<Vec<_>>();
    let (p, g, m, v) = (arrays(0.5), arrays(-1.0), arrays(0.0), arrays(0.25));
    let params: Vec<OptimParam> = (0..count)
        .map(|k| OptimParam {
            p: p[k].arr(),
            g: g[k].arr(),
            state: [Some(m[k].arr()), Some(v[k].arr()), None],
        })
        .collect();
    let step = OptimStep::Adam {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        weight_decay: 0.01,
        decoupled: true,
        amsgrad: false,
        maximize: false,
        step: 3,
    };
    dev.optim(step, &params).unwrap();
    for k in [0, 23, 24, 29] {
        let want: Vec<f64> = (0..k + 1)
            .map(|i| {
                let at = |s: f64| data(k, s)[i];
                let m = 0.9 * at(0.0) + 0.1 * at(-1.0);
                let v = 0.99 * at(0.25) + 0.01 * at(-1.0) * at(-1.0);
                let (mh, vh) = (m / (1.0 - 0.9f64.powi(3)), v / (1.0 - 0.99f64.powi(3)));
                at(0.5) * (1.0 - 0.1 * 0.01) - 0.1 * mh / (vh.sqrt() + 1e-8)
            })
            .collect();
        assert_close("adam", &p[k].values(), &want, 1e-12);
    }
    let sgd = |momentum: f64, nesterov, first| OptimStep::Sgd {
        lr: 0.1,
        momentum,
        dampening: 0.0,
        weight_decay: 0.2,
        nesterov,
        maximize: true,
        first,
    };
    let one = |p: f64, g: f64, b: f64| {
        let arr = |v: f64| Array::dense(dev, &[v], f, &[1]);
        (arr(p), arr(g), arr(b))
    };
    let (p, g, b) = one(2.0, 3.0, 0.5);
    dev.optim(
        sgd(0.9, true, false),
        &[OptimParam { p: p.arr(), g: g.arr(), state: [Some(b.arr()), None, None] }],
    )
    .unwrap();
    let grad = -3.0 + 0.2 * 2.0;
    let buf = 0.9 * 0.5 + grad;
    assert_close("sgd", &[p.values()[0], b.values()[0]], &[2.0 - 0.1 * (grad + 0.9 * buf), buf], 1e-12);
    let (p, g, sq) = one(2.0, 3.0, 0.5);
    let rms = OptimStep::RmsProp {
        lr: 0.1,
        alpha: 0.9,
        eps: 1e-8,
        weight_decay: 0.0,
        momentum: 0.0,
        centered: false,
        maximize: false,
    };
    dev.optim(rms, &[OptimParam { p: p.arr(), g: g.arr(), state: [Some(sq.arr()), None, None] }]).unwrap();
    let s: f64 = 0.9 * 0.5 + 0.1 * 9.0;
    assert_close("rmsprop", &p.values(), &[2.0 - 0.1 * 3.0 / (s.sqrt() + 1e-8)], 1e-12);
    let e = dev.optim(rms, &[OptimParam { p: p.arr(), g: g.arr(), state: [None, None, None] }]).unwrap_err();
    assert!(e.message().contains("state 0 is missing"), "{e}");
}

#[test]
fn memory_is_counted_and_running_out_is_an_error() {
    let Some(dev) = device() else { return };
    let stat = |n: &str| dev.memory_stats().iter().find(|s| s.0 == n).unwrap().1;
    let a = dev.alloc(1 << 20).unwrap();
    assert!(stat("allocated_bytes.all.current") >= 1 << 20);
    assert!(stat("reserved_bytes.all.current") >= stat("allocated_bytes.all.current"));
    drop(a);
    let e = dev.alloc(1 << 40).err().unwrap();
    assert_eq!(e.kind(), Kind::OutOfMemory);
    assert!(e.message().contains("Tried to allocate 1024.00 GiB"), "{e}");
    assert!(stat("num_ooms") >= 1);
    dev.empty_cache();
    assert_eq!(dev.alloc(0).unwrap().bytes(), 0);
    assert!(pyrite_cuda::cuda(5).err().unwrap().message().contains("invalid device ordinal"));
}
