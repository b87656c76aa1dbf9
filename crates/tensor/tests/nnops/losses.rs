//! Softmax and the losses against their definitions.

use super::{Rng, close, first_order, gradcheck, v};
use pyrite_tensor::ops::loss::{self, Classes, Reduction};
use pyrite_tensor::ops::{self, embedding, softmax};
use pyrite_tensor::{DType, Tensor};

#[test]
fn softmax_family() {
    let mut r = Rng(17);
    let x = r.tensor(&[3, 4, 5]);
    for dim in -3..3 {
        let y = softmax::softmax(&x, dim, None).unwrap();
        let e = ops::exp(&x).unwrap();
        let want = ops::div(&e, &ops::sum(&e, Some(&[dim]), true, None).unwrap()).unwrap();
        close(&v(&y), &v(&want), 1e-12);
        close(&v(&softmax::log_softmax(&x, dim, None).unwrap()), &v(&ops::log(&want).unwrap()), 1e-12);
        gradcheck(&|a| softmax::softmax(&a[0], dim, None), &[x.clone()]);
        gradcheck(&|a| softmax::log_softmax(&a[0], dim, None), &[x.clone()]);
    }
    let s = Tensor::from_slice(&[2.0f64], &[]).unwrap();
    gradcheck(&|a| softmax::softmax(&a[0], 0, None), &[s]);
    assert!(softmax::softmax(&x, 3, None).is_err());
}

#[test]
fn cross_entropy_against_its_definition() {
    let mut r = Rng(19);
    for (shape, tshape) in [(vec![6, 5], vec![6]), (vec![5], vec![]), (vec![2, 5, 3, 2], vec![2, 3, 2])] {
        let x = r.tensor(&shape);
        let n: usize = tshape.iter().product();
        let mut t = r.classes(n, 5);
        if n > 1 {
            t[1] = -100;
        }
        let t = Tensor::from_slice(&t, &tshape).unwrap();
        let weight = ops::add(&r.tensor(&[5]), 1.5).unwrap();
        for w in [None, Some(&weight)] {
            for smoothing in [0.0, 0.1] {
                for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
                    let c = Classes { weight: w, ignore: -100, reduction, smoothing };
                    let y = loss::cross_entropy(&x, &t, c).unwrap();
                    close(&v(&y), &naive_cross_entropy(&x, &t, c), 1e-12);
                    gradcheck(&|a| loss::cross_entropy(&a[0], &t, c), &[x.clone()]);
                    if smoothing == 0.0 {
                        let d = i64::from(x.ndim() > 1);
                        let f = |a: &[Tensor]| loss::nll_loss(&softmax::log_softmax(&a[0], d, None)?, &t, c);
                        close(&v(&f(&[x.clone()]).unwrap()), &v(&y), 1e-12);
                        gradcheck(&f, &[x.clone()]);
                    }
                }
            }
        }
    }
}

fn naive_cross_entropy(x: &Tensor, t: &Tensor, c: Classes) -> Vec<f64> {
    let d = usize::from(x.ndim() > 1);
    let (n, k) = (if d == 1 { x.shape()[0] } else { 1 }, x.shape()[d]);
    let l: usize = x.shape()[d + 1..].iter().product();
    let (xv, tv) = (v(x), t.to_vec::<i64>().unwrap());
    let w = c.weight.map_or(vec![1.0; k], v);
    let (mut out, mut total) = (vec![], 0.0);
    for i in 0..n {
        for j in 0..l {
            let row: Vec<f64> = (0..k).map(|q| xv[(i * k + q) * l + j]).collect();
            let lse = row.iter().map(|v| v.exp()).sum::<f64>().ln();
            let t = tv[i * l + j];
            if t == c.ignore {
                out.push(0.0);
                continue;
            }
            let own = w[t as usize] * (lse - row[t as usize]);
            let all: f64 = (0..k).map(|q| w[q] * (lse - row[q])).sum();
            total += w[t as usize];
            out.push((1.0 - c.smoothing) * own + c.smoothing / k as f64 * all);
        }
    }
    match c.reduction {
        Reduction::None => out,
        Reduction::Sum => vec![out.iter().sum()],
        Reduction::Mean => vec![out.iter().sum::<f64>() / total],
    }
}

#[test]
fn cross_entropy_of_probabilities() {
    let mut r = Rng(20);
    let x = r.tensor(&[3, 4, 2]);
    let t = softmax::softmax(&r.tensor(&[3, 4, 2]), 1, None).unwrap();
    let c = Classes { weight: None, ignore: -100, reduction: Reduction::Mean, smoothing: 0.2 };
    gradcheck(&|a| loss::cross_entropy(&a[0], &a[1], c), &[x.clone(), t.clone()]);
    // A one-hot distribution is the class index.
    let idx = Tensor::from_slice(&[1i64, 3, 0], &[3]).unwrap();
    let x = r.tensor(&[3, 4]);
    let hot = ops::to_dtype(&embedding::one_hot(&idx, 4).unwrap(), DType::F64).unwrap();
    close(
        &v(&loss::cross_entropy(&x, &hot, c).unwrap()),
        &v(&loss::cross_entropy(&x, &idx, c).unwrap()),
        1e-12,
    );
}

#[test]
fn bad_targets_are_errors() {
    let x = Rng(1).tensor(&[2, 3]);
    let c = Classes { weight: None, ignore: -100, reduction: Reduction::Mean, smoothing: 0.0 };
    for bad in [3i64, -1] {
        let t = Tensor::from_slice(&[0, bad], &[2]).unwrap();
        assert!(loss::cross_entropy(&x, &t, c).is_err());
        assert!(loss::nll_loss(&x, &t, c).is_err());
    }
    let t = Tensor::from_slice(&[0i64, 1, 2], &[3]).unwrap();
    assert!(loss::cross_entropy(&x, &t, c).is_err());
    let t = Tensor::from_slice(&[0.0f64, 1.0], &[2]).unwrap();
    assert!(loss::cross_entropy(&x, &t, c).is_err());
}

#[test]
fn elementwise_losses() {
    let mut r = Rng(23);
    let (x, t) = (r.tensor(&[4, 3]), r.tensor(&[4, 3]));
    let (xv, tv) = (v(&x), v(&t));
    let mean =
        |f: &dyn Fn(f64, f64) -> f64| vec![xv.iter().zip(&tv).map(|(a, b)| f(*a, *b)).sum::<f64>() / 12.0];
    let m = Reduction::Mean;
    close(&v(&loss::mse_loss(&x, &t, m).unwrap()), &mean(&|a, b| (a - b).powi(2)), 1e-12);
    close(&v(&loss::l1_loss(&x, &t, m).unwrap()), &mean(&|a, b| (a - b).abs()), 1e-12);
    let smooth = |a: f64, b: f64| {
        let d = (a - b).abs();
        if d < 0.7 { 0.5 * d * d / 0.7 } else { d - 0.35 }
    };
    close(&v(&loss::smooth_l1_loss(&x, &t, m, 0.7).unwrap()), &mean(&smooth), 1e-12);
    close(&v(&loss::huber_loss(&x, &t, m, 0.7).unwrap()), &mean(&|a, b| 0.7 * smooth(a, b)), 1e-12);
    for red in [Reduction::None, m, Reduction::Sum] {
        let xs = [x.clone(), t.clone()];
        gradcheck(&|a| loss::mse_loss(&a[0], &a[1], red), &xs);
        first_order(&|a| loss::l1_loss(&a[0], &a[1], red), &xs);
        gradcheck(&|a| loss::smooth_l1_loss(&a[0], &a[1], red, 0.7), &xs);
        gradcheck(&|a| loss::huber_loss(&a[0], &a[1], red, 0.7), &xs);
        let p = ops::sigmoid(&x).unwrap();
        let q = ops::sigmoid(&t).unwrap();
        let w = ops::add(&t, 2.0).unwrap();
        gradcheck(&|a| loss::binary_cross_entropy(&a[0], &a[1], Some(&w), red), &[p.clone(), q.clone()]);
        let f = |a: &[Tensor]| loss::binary_cross_entropy_with_logits(&a[0], &a[1], Some(&w), None, red);
        close(
            &v(&f(&[x.clone(), q.clone()]).unwrap()),
            &v(&loss::binary_cross_entropy(&p, &q, Some(&w), red).unwrap()),
            1e-12,
        );
        let pw = ops::add(&r.tensor(&[3]), 1.5).unwrap();
        let f = |a: &[Tensor]| loss::binary_cross_entropy_with_logits(&a[0], &a[1], Some(&w), Some(&pw), red);
        gradcheck(&f, &[x.clone(), q.clone()]);
        gradcheck(&|a| loss::kl_div(&a[0], &a[1], red, false), &[x.clone(), q.clone()]);
        gradcheck(&|a| loss::kl_div(&a[0], &a[1], red, true), &[x.clone(), t.clone()]);
    }
}
