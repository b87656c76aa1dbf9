//! Padding, embedding, dropout, attention, half precision, optimizer steps.

use super::{Function, Rng, close, gradcheck, leaf, v};
use pyrite_tensor::autograd;
use pyrite_tensor::ops::attention::{Attention, attention};
use pyrite_tensor::ops::conv::{self, Padding};
use pyrite_tensor::ops::embedding::{self, Rows};
use pyrite_tensor::ops::loss::{self, Classes, Reduction};
use pyrite_tensor::ops::norm::{self, Batch};
use pyrite_tensor::ops::pool::{self, Divisor};
use pyrite_tensor::ops::{self, dropout, optim, pad, softmax};
use pyrite_tensor::{DType, Device, Tensor};

#[test]
fn padding_embedding_glu_dropout() {
    let mut r = Rng(37);
    let x = r.tensor(&[2, 3, 4]);
    gradcheck(&|a| pad::pad(&a[0], &[1, 2, -1, 0, 0, 3], 7.0), &[x.clone()]);
    let y = pad::pad(&Tensor::from_slice(&[1.0f64, 2.0, 3.0], &[3]).unwrap(), &[-1, 2], 9.0).unwrap();
    assert_eq!(v(&y), [2.0, 3.0, 9.0, 9.0]);
    assert!(pad::pad(&x, &[-3, -2], 0.0).is_err());
    gradcheck(&|a| ops::nn_misc::glu(&a[0], -1), &[x.clone()]);

    let w = r.tensor(&[5, 3]);
    let idx = Tensor::from_slice(&[1i64, 4, 1, 0], &[2, 2]).unwrap();
    let plain = Rows { padding: None, by_frequency: false };
    let y = embedding::embedding(&idx, &w, plain).unwrap();
    assert_eq!(y.shape(), &[2, 2, 3]);
    let (wv, yv) = (v(&w), v(&y));
    for (i, row) in [1, 4, 1, 0].into_iter().enumerate() {
        assert_eq!(yv[i * 3..i * 3 + 3], wv[row * 3..row * 3 + 3]);
    }
    gradcheck(&|a| embedding::embedding(&idx, &a[0], plain), &[w.clone()]);
    let l = leaf(&w);
    for (r, row1, row4) in [
        (Rows { padding: Some(4), by_frequency: false }, 2.0, 0.0),
        (Rows { padding: None, by_frequency: true }, 1.0, 1.0),
    ] {
        let y = embedding::embedding(&idx, &l, r).unwrap();
        let one = Tensor::full(&[2, 2, 3], pyrite_tensor::Scalar::Int(1), DType::F64, Device::Cpu).unwrap();
        let g = autograd::grad(&[y], &[Some(one)], &[l.clone()], false, false).unwrap();
        let g = v(g[0].as_ref().unwrap());
        assert_eq!((g[0], g[3], g[6], g[12]), (1.0, row1, 0.0, row4));
    }
    let bad = Tensor::from_slice(&[5i64], &[1]).unwrap();
    assert!(embedding::embedding(&bad, &w, plain).is_err());
    assert_eq!(embedding::one_hot(&idx, -1).unwrap().shape(), &[2, 2, 5]);
    assert!(embedding::one_hot(&idx, 3).is_err());

    let x = leaf(&Tensor::full(&[1000], pyrite_tensor::Scalar::Int(1), DType::F64, Device::Cpu).unwrap());
    let y = dropout::dropout(&x, 0.25, true).unwrap();
    let yv = v(&y);
    let kept = yv.iter().filter(|a| **a != 0.0).count();
    assert!((700..800).contains(&kept), "{kept} of 1000 kept");
    let g = autograd::grad(&[y], &[Some(x.detach())], &[x.clone()], false, false).unwrap();
    close(&v(g[0].as_ref().unwrap()), &yv, 1e-15);
    assert!(dropout::dropout(&x, 0.5, false).unwrap().same(&x));
    assert!(dropout::dropout(&x, 1.5, true).is_err());
}

#[test]
fn attention_masks() {
    let mut r = Rng(41);
    let (q, k, w) = (r.tensor(&[2, 4, 3, 5]), r.tensor(&[2, 2, 6, 5]), r.tensor(&[2, 2, 6, 4]));
    let o = Attention { mask: None, dropout: 0.0, causal: false, scale: None, grouped: true };
    gradcheck(&|a| attention(&a[0], &a[1], &a[2], o), &[q.clone(), k.clone(), w.clone()]);
    let (q, k, w) = (r.tensor(&[3, 5]), r.tensor(&[3, 5]), r.tensor(&[3, 2]));
    let o = Attention { causal: true, grouped: false, ..o };
    let y = v(&attention(&q, &k, &w, o).unwrap());
    // The first query sees the first value only.
    close(&y[..2], &v(&w)[..2], 1e-12);
    gradcheck(&|a| attention(&a[0], &a[1], &a[2], o), &[q.clone(), k.clone(), w.clone()]);
    let mask = [true, false, false, false, false, false, true, true, true];
    let mask = Tensor::from_slice(&mask.map(|b| b as u8), &[3, 3]).unwrap();
    let mask = ops::to_dtype(&mask, DType::Bool).unwrap();
    let o = Attention { causal: false, mask: Some(&mask), ..o };
    let y = v(&attention(&q, &k, &w, o).unwrap());
    close(&y[..2], &v(&w)[..2], 1e-12);
    assert_eq!(y[2..4], [0.0, 0.0]);
    gradcheck(&|a| attention(&a[0], &a[1], &a[2], o), &[q.clone(), k.clone(), w.clone()]);
}

/// Half precision computes in f32 and rounds once.
#[test]
fn half_precision() {
    let mut r = Rng(43);
    for d in [DType::F16, DType::BF16] {
        let tol = if d == DType::F16 { 2e-3 } else { 2e-2 };
        let h = |t: &Tensor| ops::to_dtype(t, d).unwrap();
        let up = |t: &Tensor| ops::to_dtype(t, DType::F64).unwrap();
        let (x, w) = (h(&r.tensor(&[2, 3, 6, 5])), h(&r.tensor(&[4, 3, 3, 3])));
        let o = Batch { running_mean: None, running_var: None, training: true, momentum: 0.1, eps: 1e-5 };
        let t = Tensor::from_slice(&r.classes(60, 3), &[2, 6, 5]).unwrap();
        let c = Classes { weight: None, ignore: -100, reduction: Reduction::Mean, smoothing: 0.1 };
        let cases: [Function; 6] = [
            &|a| conv::conv2d(&a[0], &a[1], None, &[1], Padding::Sizes(&[1]), &[1], 1),
            &|a| softmax::softmax(&a[0], 1, None),
            &|a| norm::batch_norm(&a[0], None, None, o),
            &|a| norm::layer_norm(&a[0], &[6, 5], None, None, 1e-5),
            &|a| loss::cross_entropy(&a[0], &t, c),
            &|a| {
                pool::avg_pool2d(
                    &a[0],
                    super::pool::window(2, 2, 0, 1, false),
                    Divisor { count_pad: true, fixed: None },
                )
            },
        ];
        for f in cases {
            let (xl, wl) = (leaf(&x), leaf(&w));
            let y = f(&[xl.clone(), wl.clone()]).unwrap();
            assert_eq!(y.dtype(), d);
            let want = f(&[up(&x), up(&w)]).unwrap();
            close(&v(&y), &v(&want), tol);
            let u = h(&r.tensor(y.shape()));
            let g = autograd::grad(&[y], &[Some(u.clone())], &[xl.clone()], false, false).unwrap();
            let full = leaf(&up(&x));
            let y = f(&[full.clone(), up(&w)]).unwrap();
            let want = autograd::grad(&[y], &[Some(up(&u))], &[full], false, false).unwrap();
            close(&v(g[0].as_ref().unwrap()), &v(want[0].as_ref().unwrap()), 4.0 * tol);
        }
    }
}

#[test]
fn optimizer_steps_of_any_layout() {
    let mut r = Rng(47);
    let p0 = r.tensor(&[3, 4]);
    let g = r.tensor(&[3, 4]);
    // The same step on a row-major, a transposed and a gappy parameter.
    let step = |p: &Tensor| {
        let buf = Tensor::zeros(&[3, 4], DType::F64, Device::Cpu).unwrap();
        let (a, b) = (ops::clone(&buf).unwrap(), ops::clone(&buf).unwrap());
        let before = p.storage().version();
        let (ps, gs) = (std::slice::from_ref(p), std::slice::from_ref(&g));
        let one = std::slice::from_ref(&buf);
        optim::sgd_step(ps, gs, Some(one), 0.1, 0.9, 0.0, 0.01, true, false, true).unwrap();
        optim::sgd_step(ps, gs, Some(one), 0.1, 0.9, 0.0, 0.01, true, false, false).unwrap();
        let (one, two) = (std::slice::from_ref(&a), std::slice::from_ref(&b));
        for t in 1..3 {
            optim::adam_step(ps, gs, one, two, None, t, 0.1, 0.9, 0.99, 0.0, 1e-8, false, false, false)
                .unwrap();
        }
        assert!(p.storage().version() > before);
        v(p)
    };
    let want = step(&ops::clone(&p0).unwrap());
    let t = ops::transpose(&ops::contiguous(&ops::transpose(&p0, 0, 1).unwrap()).unwrap(), 0, 1).unwrap();
    close(&step(&t), &want, 1e-14);
    let wide = Tensor::zeros(&[3, 8], DType::F64, Device::Cpu).unwrap();
    let gappy = ops::slice(&wide, 1, Some(0), None, 2).unwrap();
    ops::copy_(&gappy, &p0).unwrap();
    close(&step(&gappy), &want, 1e-14);
    // One Adam step from zero moments is lr * sign(g).
    let p = ops::clone(&p0).unwrap();
    let (a, b) = (
        Tensor::zeros(&[3, 4], DType::F64, Device::Cpu).unwrap(),
        Tensor::zeros(&[3, 4], DType::F64, Device::Cpu).unwrap(),
    );
    optim::adam_step(
        &[p.clone()],
        &[g.clone()],
        &[a],
        &[b],
        None,
        1,
        0.1,
        0.9,
        0.99,
        0.0,
        0.0,
        false,
        false,
        false,
    )
    .unwrap();
    let want: Vec<f64> = v(&p0).iter().zip(v(&g)).map(|(p, g)| p - 0.1 * g.signum()).collect();
    close(&v(&p), &want, 1e-12);
    let short = r.tensor(&[4]);
    assert!(optim::sgd_step(&[p], &[short], None, 0.1, 0.0, 0.0, 0.0, false, false, true).is_err());
}
