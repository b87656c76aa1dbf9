//! Against naive f64 loops: dtypes, row lengths around every vector width, dense and strided arrays.
//! (`PYRITE_ISA=scalar`, `avx2` run the same tests on the other instruction sets.)
#![allow(clippy::unwrap_used)]

use super::*;
use pyrite_core::rng::word;
use pyrite_core::{DType, Kind};

/// A tensor in some dtype and layout.
struct Nd {
    bytes: Vec<u8>,
    shape: Vec<usize>,
    strides: Vec<isize>,
    dtype: DType,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Order {
    Dense,
    /// Channels-last for three dimensions, column-major for two.
    Last,
    /// Every second element of a reversed order.
    Gaps,
}
const ORDERS: [Order; 3] = [Order::Dense, Order::Last, Order::Gaps];

impl Nd {
    fn new(dtype: DType, shape: &[usize], order: Order, v: impl Fn(usize) -> f64) -> Nd {
        let r = shape.len();
        let mut dims: Vec<usize> = (0..r).collect();
        match order {
            Order::Last if r == 3 => dims = vec![0, 2, 1],
            Order::Dense => {}
            _ => dims.reverse(),
        }
        let mut step = if order == Order::Gaps { 2 } else { 1 };
        let mut strides = vec![0; r];
        for &d in dims.iter().rev() {
            strides[d] = step;
            step *= shape[d] as isize;
        }
        let n: usize = shape.iter().product();
        let out =
            Nd { bytes: vec![0; (step as usize + 1) * dtype.size()], shape: shape.to_vec(), strides, dtype };
        for i in 0..n {
            let v = v(i);
            // SAFETY: positions of the array just made.
            unsafe { crate::strided::scatter_flat::<f64>(&out.arr(), i, 1, &v) };
        }
        out
    }
    fn arr(&self) -> Arr<'_> {
        let ptr = self.bytes.as_ptr().cast_mut();
        Arr { ptr, dtype: self.dtype, shape: &self.shape, strides: &self.strides }
    }
    fn get(&self) -> Vec<f64> {
        let n = self.shape.iter().product();
        let mut v = vec![0.0; n];
        // SAFETY: all positions of the array.
        unsafe { crate::strided::gather_flat::<f64>(&self.arr(), 0, n, v.as_mut_ptr()) };
        v
    }
}

fn value(seed: u64) -> impl Fn(usize) -> f64 {
    move |i| word(seed, 0, i as u64) as f64 / 1e9 - 2.0
}

fn near(got: &[f64], want: &[f64], d: DType, what: &str) {
    let tol = match d {
        DType::F64 => 1e-12,
        DType::F32 => 2e-5,
        DType::F16 => 4e-3,
        _ => 3e-2,
    };
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let ok = (g - w).abs() <= tol * w.abs().max(1.0) || (g.is_nan() && w.is_nan()) || g == w;
        assert!(ok, "{what} {d} at {i}: {g}, expected {w}");
    }
}

const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];
const LENGTHS: [usize; 8] = [1, 3, 8, 17, 31, 64, 133, 5000];

fn each(f: impl Fn(DType, Order, usize, usize)) {
    for d in DTYPES {
        for order in ORDERS {
            for n in LENGTHS {
                f(d, order, if n > 1000 { 3 } else { 37 }, n);
            }
        }
    }
}

#[test]
fn softmax_family() {
    each(|d, order, rows, n| {
        let x = Nd::new(d, &[rows, n], order, value(1));
        let dy = Nd::new(d, &[rows, n], order, value(2));
        let (xv, gv) = (x.get(), dy.get());
        let lse: Vec<f64> = xv.chunks(n).map(|r| r.iter().map(|v| v.exp()).sum::<f64>().ln()).collect();
        for log in [false, true] {
            let want: Vec<f64> = xv.iter().enumerate().map(|(i, v)| v - lse[i / n]).collect();
            let want: Vec<f64> = if log { want } else { want.iter().map(|v| v.exp()).collect() };
            let y = Nd::new(d, &[rows, n], order, |_| 0.0);
            run(Rowwise::Softmax { x: x.arr(), y: y.arr(), log }).unwrap();
            near(&y.get(), &want, d, "softmax");
            let yv = y.get();
            let dx = Nd::new(d, &[rows, n], order, |_| 0.0);
            run(Rowwise::SoftmaxBackward { dy: dy.arr(), y: y.arr(), dx: dx.arr(), log }).unwrap();
            let mut want = vec![];
            for r in 0..rows {
                let at = |i: usize| r * n + i;
                let s: f64 = (0..n).map(|i| gv[at(i)] * if log { 1.0 } else { yv[at(i)] }).sum();
                want.extend((0..n).map(|i| {
                    if log { gv[at(i)] - yv[at(i)].exp() * s } else { yv[at(i)] * (gv[at(i)] - s) }
                }));
            }
            near(&dx.get(), &want, d, "softmax backward");
        }
        let y = Nd::new(d, &[rows], Order::Gaps, |_| 0.0);
        run(Rowwise::LogSumExp { x: x.arr(), y: y.arr() }).unwrap();
        near(&y.get(), &lse, d, "logsumexp");
    });
}

#[test]
fn softmax_of_infinities() {
    let inf = f64::INFINITY;
    let rows =
        [[-inf, -inf, -inf], [-inf, 0.0, 0.0], [f64::NAN, 1.0, 2.0], [inf, 1.0, 2.0], [1e4, 0.0, -1e4]];
    let x = Nd::new(DType::F32, &[5, 3], Order::Dense, |i| rows[i / 3][i % 3]);
    let y = Nd::new(DType::F32, &[5, 3], Order::Dense, |_| 0.0);
    run(Rowwise::Softmax { x: x.arr(), y: y.arr(), log: false }).unwrap();
    let n = f64::NAN;
    near(&y.get(), &[n, n, n, 0.0, 0.5, 0.5, n, n, n, n, n, n, 1.0, 0.0, 0.0], DType::F32, "softmax");
    run(Rowwise::Softmax { x: x.arr(), y: y.arr(), log: true }).unwrap();
    let h = 0.5f64.ln();
    assert_eq!(y.get()[3], -inf);
    near(&y.get()[4..6], &[h, h], DType::F32, "log_softmax");
    near(&y.get()[12..], &[0.0, -1e4, -2e4], DType::F32, "log_softmax");
    let l = Nd::new(DType::F32, &[5], Order::Dense, |_| 0.0);
    run(Rowwise::LogSumExp { x: x.arr(), y: l.arr() }).unwrap();
    near(&l.get(), &[-inf, 2f64.ln(), n, inf, 1e4], DType::F32, "logsumexp");
    let i = Nd::new(DType::F32, &[5, 3], Order::Dense, |_| 0.0);
    let mut a = i.arr();
    a.dtype = DType::I32;
    assert_eq!(run(Rowwise::Softmax { x: a, y: a, log: false }).unwrap_err().kind(), Kind::NotImplemented);
}

#[test]
fn cross_entropy() {
    each(|d, order, rows, n| {
        let x = Nd::new(d, &[rows, n], order, value(3));
        let xv = x.get();
        let w = Nd::new(d, &[n], Order::Gaps, |i| 0.5 + (i % 5) as f64 * 0.25);
        let wv = w.get();
        let targets: Vec<i64> =
            (0..rows).map(|r| if r % 5 == 4 { -100 } else { (r * 7 % n) as i64 }).collect();
        let (ts, tstr) = ([rows], [1]);
        let t =
            Arr { ptr: targets.as_ptr().cast_mut().cast(), dtype: DType::I64, shape: &ts, strides: &tstr };
        for (weighted, smoothing) in [(false, 0.0), (true, 0.0), (false, 0.1), (true, 0.1)] {
            let wt = |c: usize| if weighted { wv[c] } else { 1.0 };
            let loss = Nd::new(d, &[rows], Order::Dense, |_| 9.0);
            let lse = Nd::new(d.compute(), &[rows], Order::Dense, |_| 9.0);
            let dx = Nd::new(d, &[rows, n], order, |_| 9.0);
            let scale =
                Nd::new(d, &[rows], Order::Dense, |r| if r % 5 == 4 { 0.0 } else { 0.5 + r as f64 / 50.0 });
            let weight = weighted.then(|| w.arr());
            let (ignore, loss_a, lse_a) = (-100, loss.arr(), lse.arr());
            run(Rowwise::CrossEntropy {
                x: x.arr(),
                target: t,
                weight,
                ignore,
                smoothing,
                loss: loss_a,
                lse: lse_a,
            })
            .unwrap();
            run(Rowwise::CrossEntropyBackward {
                x: x.arr(),
                target: t,
                weight,
                ignore,
                smoothing,
                lse: lse_a,
                scale: scale.arr(),
                dx: dx.arr(),
            })
            .unwrap();
            let (mut want, mut grad, sc) = (vec![], vec![], scale.get());
            for r in 0..rows {
                let row = &xv[r * n..(r + 1) * n];
                let l = row.iter().map(|v| v.exp()).sum::<f64>().ln();
                if targets[r] < 0 {
                    want.push(0.0);
                    grad.extend(vec![0.0; n]);
                    continue;
                }
                let t = targets[r] as usize;
                let nll = wt(t) * (l - row[t]);
                let smooth: f64 = (0..n).map(|c| wt(c) * (l - row[c])).sum();
                want.push((1.0 - smoothing) * nll + smoothing / n as f64 * smooth);
                let all: f64 = (0..n).map(wt).sum();
                for c in 0..n {
                    let p = (row[c] - l).exp();
                    let hot = (c == t) as u8 as f64;
                    let e = smoothing / n as f64;
                    grad.push(sc[r] * ((1.0 - smoothing) * wt(t) * (p - hot) + e * (p * all - wt(c))));
                }
            }
            near(&loss.get(), &want, d, "cross_entropy");
            near(&dx.get(), &grad, d, "cross_entropy backward");
        }
    });
    let x = Nd::new(DType::F32, &[1, 3], Order::Dense, |_| 0.0);
    let l = Nd::new(DType::F32, &[1], Order::Dense, |_| 0.0);
    let bad = [3i64];
    let t = Arr { ptr: bad.as_ptr().cast_mut().cast(), dtype: DType::I64, shape: &[1], strides: &[1] };
    let e = run(Rowwise::CrossEntropy {
        x: x.arr(),
        target: t,
        weight: None,
        ignore: -100,
        smoothing: 0.0,
        loss: l.arr(),
        lse: l.arr(),
    });
    assert_eq!(e.unwrap_err().kind(), Kind::Index);
}

#[test]
fn layer_and_rms_norm() {
    each(|d, order, rows, n| {
        let x = Nd::new(d, &[rows, n], order, |i| value(4)(i) + 3.0);
        let dy = Nd::new(d, &[rows, n], order, value(5));
        let (w, b) = (Nd::new(d, &[n], Order::Dense, value(6)), Nd::new(d, &[n], Order::Dense, value(7)));
        let (xv, gv, wv, bv) = (x.get(), dy.get(), w.get(), b.get());
        for (rms, affine) in [(false, true), (false, false), (true, true)] {
            let y = Nd::new(d, &[rows, n], order, |_| 0.0);
            let dx = Nd::new(d, &[rows, n], order, |_| 0.0);
            let stat = || Nd::new(d.compute(), &[rows], Order::Dense, |_| 0.0);
            let (mean, rstd) = (stat(), stat());
            let (dw, db) = (Nd::new(d, &[n], Order::Gaps, |_| 0.0), Nd::new(d, &[n], Order::Dense, |_| 0.0));
            let (wa, ba) = (affine.then(|| w.arr()), affine.then(|| b.arr()));
            let mean_a = (!rms).then(|| mean.arr());
            let eps = 1e-3;
            run(Rowwise::LayerNorm {
                x: x.arr(),
                w: wa,
                b: ba,
                y: y.arr(),
                mean: mean_a,
                rstd: rstd.arr(),
                eps,
                rms,
            })
            .unwrap();
            run(Rowwise::LayerNormBackward {
                dy: dy.arr(),
                x: x.arr(),
                w: wa,
                mean: mean_a,
                rstd: rstd.arr(),
                dx: Some(dx.arr()),
                dw: affine.then(|| dw.arr()),
                db: affine.then(|| db.arr()),
                rms,
            })
            .unwrap();
            let (mut wy, mut wdx, mut wdw, mut wdb) = (vec![], vec![], vec![0.0; n], vec![0.0; n]);
            for r in 0..rows {
                let row = &xv[r * n..(r + 1) * n];
                let m = if rms { 0.0 } else { row.iter().sum::<f64>() / n as f64 };
                let var = row.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / n as f64;
                let s = 1.0 / (var + eps).sqrt();
                let (mut sg, mut sh) = (0.0, 0.0);
                let k = |c: usize| if affine { wv[c] } else { 1.0 };
                for c in 0..n {
                    let (h, dyv) = ((row[c] - m) * s, gv[r * n + c]);
                    wy.push(h * k(c) + if affine { bv[c] } else { 0.0 });
                    sg += dyv * k(c);
                    sh += dyv * k(c) * h;
                    wdw[c] += dyv * h;
                    wdb[c] += dyv;
                }
                for c in 0..n {
                    let h = (row[c] - m) * s;
                    let first = if rms { 0.0 } else { sg / n as f64 };
                    wdx.push(s * (gv[r * n + c] * k(c) - first - h * sh / n as f64));
                }
            }
            near(&y.get(), &wy, d, "layer_norm");
            if n > 1 {
                near(&dx.get(), &wdx, d, "layer_norm dx");
            }
            if affine {
                near(&dw.get(), &wdw, d, "layer_norm dw");
                near(&db.get(), &wdb, d, "layer_norm db");
            }
        }
    });
}

#[test]
fn batch_norm() {
    for d in DTYPES {
        for order in ORDERS {
            for shape in [vec![5, 3, 50], vec![4, 33, 7], vec![70, 20], vec![2, 1, 9000], vec![300, 70, 2]] {
                let (n, c, l) = (shape[0], shape[1], shape.get(2).copied().unwrap_or(1));
                let x = Nd::new(d, &shape, order, |i| value(8)(i) + (i / l % c) as f64 / 8.0);
                let dy = Nd::new(d, &shape, order, value(9));
                let (w, b) = (
                    Nd::new(d.compute(), &[c], Order::Dense, value(6)),
                    Nd::new(d.compute(), &[c], Order::Dense, value(7)),
                );
                let (xv, gv, wv, bv) = (x.get(), dy.get(), w.get(), b.get());
                let chan = || Nd::new(d.compute(), &[c], Order::Dense, |_| 0.0);
                let (mean, var) = (chan(), chan());
                run(Rowwise::BatchStats { x: x.arr(), mean: mean.arr(), var: var.arr() }).unwrap();
                let of = |i: usize| i / l % c;
                let m = (n * l) as f64;
                let mut s = vec![[0.0; 4]; c];
                xv.iter().enumerate().for_each(|(i, v)| s[of(i)][0] += v / m);
                xv.iter().enumerate().for_each(|(i, v)| s[of(i)][1] += (v - s[of(i)][0]).powi(2) / m);
                let cd = d.compute();
                near(&mean.get(), &s.iter().map(|v| v[0]).collect::<Vec<_>>(), cd, "mean");
                near(&var.get(), &s.iter().map(|v| v[1]).collect::<Vec<_>>(), cd, "var");
                let rstd = Nd::new(cd, &[c], Order::Dense, |k| 1.0 / (s[k][1] + 1e-5).sqrt());
                let rs = rstd.get();
                let (y, dx) = (Nd::new(d, &shape, order, |_| 0.0), Nd::new(d, &shape, order, |_| 0.0));
                run(Rowwise::BatchNorm {
                    x: x.arr(),
                    mean: mean.arr(),
                    rstd: rstd.arr(),
                    w: Some(w.arr()),
                    b: Some(b.arr()),
                    y: y.arr(),
                })
                .unwrap();
                let means: Vec<f64> = s.iter().map(|v| v[0]).collect();
                let h = |i: usize| (xv[i] - means[of(i)]) * rs[of(i)];
                let want: Vec<f64> = (0..xv.len()).map(|i| h(i) * wv[of(i)] + bv[of(i)]).collect();
                near(&y.get(), &want, d, "batch_norm");
                for i in 0..xv.len() {
                    s[of(i)][2] += gv[i];
                    s[of(i)][3] += gv[i] * h(i);
                }
                for training in [true, false] {
                    let (dw, db) = (chan(), chan());
                    run(Rowwise::BatchNormBackward {
                        dy: dy.arr(),
                        x: x.arr(),
                        mean: mean.arr(),
                        rstd: rstd.arr(),
                        w: Some(w.arr()),
                        dx: Some(dx.arr()),
                        dw: Some(dw.arr()),
                        db: Some(db.arr()),
                        training,
                    })
                    .unwrap();
                    let want: Vec<f64> = (0..xv.len())
                        .map(|i| {
                            let k = of(i);
                            let less = if training { s[k][2] / m + h(i) * s[k][3] / m } else { 0.0 };
                            wv[k] * rs[k] * (gv[i] - less)
                        })
                        .collect();
                    near(&dx.get(), &want, d, "batch_norm dx");
                    near(&db.get(), &s.iter().map(|v| v[2]).collect::<Vec<_>>(), cd, "batch_norm db");
                    // The mean's own rounding counts once for every element here: against the sum's size.
                    let tenth = |v: Vec<f64>| v.into_iter().map(|v| v / 10.0).collect::<Vec<_>>();
                    let want = tenth(s.iter().map(|v| v[3]).collect());
                    near(&tenth(dw.get()), &want, cd, "batch_norm dw");
                }
            }
        }
    }
}

#[test]
fn statistics_keep_digits_next_to_a_large_mean() {
    for order in [Order::Dense, Order::Last] {
        let x = Nd::new(DType::F32, &[64, 8, 100], order, |i| 1000.0 + (i % 7) as f64 / 4.0);
        let chan = || Nd::new(DType::F32, &[8], Order::Dense, |_| 0.0);
        let (mean, var) = (chan(), chan());
        run(Rowwise::BatchStats { x: x.arr(), mean: mean.arr(), var: var.arr() }).unwrap();
        for v in var.get() {
            assert!((v - 0.25).abs() < 1e-3, "{order:?} {v}");
        }
    }
}
