//! Batch, layer, group, instance and RMS norm.

use super::{Rng, close, gradcheck, v};
use pyrite_tensor::MemoryFormat;
use pyrite_tensor::ops::norm::{self, Batch};
use pyrite_tensor::ops::{self};

#[test]
fn batch_norm_values_and_gradients() {
    let mut r = Rng(29);
    let x = r.tensor(&[4, 3, 2, 5]);
    let (w, b) = (r.tensor(&[3]), r.tensor(&[3]));
    let (rm, rv) = (r.tensor(&[3]), ops::add(&r.tensor(&[3]), 1.5).unwrap());
    let (m0, v0) = (v(&rm), v(&rv));
    for training in [true, false] {
        let o = Batch { running_mean: Some(&rm), running_var: Some(&rv), training, momentum: 0.1, eps: 1e-3 };
        if training {
            let y = v(&norm::batch_norm(&x, Some(&w), Some(&b), o).unwrap());
            let (xv, wv, bv) = (v(&x), v(&w), v(&b));
            for c in 0..3 {
                let at = |i: usize| (i / 10 * 3 + c) * 10 + i % 10;
                let mean = (0..40).map(|i| xv[at(i)]).sum::<f64>() / 40.0;
                let var = (0..40).map(|i| (xv[at(i)] - mean).powi(2)).sum::<f64>() / 40.0;
                for i in 0..40 {
                    let want = (xv[at(i)] - mean) / (var + 1e-3).sqrt() * wv[c] + bv[c];
                    assert!((y[at(i)] - want).abs() < 1e-12);
                }
                assert!((v(&rm)[c] - (0.9 * m0[c] + 0.1 * mean)).abs() < 1e-12);
                assert!((v(&rv)[c] - (0.9 * v0[c] + 0.1 * var * 40.0 / 39.0)).abs() < 1e-12);
            }
        }
        let plain = Batch { running_mean: None, running_var: None, ..o };
        let o = if training { plain } else { o };
        gradcheck(
            &|a| norm::batch_norm(&a[0], Some(&a[1]), Some(&a[2]), o),
            &[x.clone(), w.clone(), b.clone()],
        );
        gradcheck(&|a| norm::batch_norm(&a[0], None, None, o), &[x.clone()]);
        gradcheck(&|a| norm::batch_norm(&a[0], None, Some(&a[1]), o), &[r.tensor(&[5, 3]), b.clone()]);
        let last = ops::contiguous_format(&x, MemoryFormat::ChannelsLast).unwrap();
        gradcheck(&|a| norm::batch_norm(&a[0], Some(&a[1]), None, o), &[last, w.clone()]);
    }
    let o = Batch { running_mean: None, running_var: None, training: false, momentum: 0.1, eps: 1e-5 };
    assert!(norm::batch_norm(&x, None, None, o).is_err());
}

#[test]
fn layer_group_rms_and_instance_norm() {
    let mut r = Rng(31);
    let x = r.tensor(&[2, 4, 3, 2]);
    let (w, b) = (r.tensor(&[3, 2]), r.tensor(&[3, 2]));
    let y = v(&norm::layer_norm(&x, &[3, 2], Some(&w), Some(&b), 1e-4).unwrap());
    let z = v(&norm::rms_norm(&x, &[3, 2], Some(&w), Some(1e-4)).unwrap());
    let (xv, wv, bv) = (v(&x), v(&w), v(&b));
    for i in 0..48 {
        let row = &xv[i / 6 * 6..i / 6 * 6 + 6];
        let mean = row.iter().sum::<f64>() / 6.0;
        let var = row.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / 6.0;
        let sq = row.iter().map(|a| a * a).sum::<f64>() / 6.0;
        assert!((y[i] - ((xv[i] - mean) / (var + 1e-4).sqrt() * wv[i % 6] + bv[i % 6])).abs() < 1e-12);
        assert!((z[i] - xv[i] / (sq + 1e-4).sqrt() * wv[i % 6]).abs() < 1e-12);
    }
    let xs = [x.clone(), w.clone(), b];
    gradcheck(&|a| norm::layer_norm(&a[0], &[3, 2], Some(&a[1]), Some(&a[2]), 1e-4), &xs);
    gradcheck(&|a| norm::layer_norm(&a[0], &[4, 3, 2], None, None, 1e-4), &xs[..1]);
    gradcheck(&|a| norm::rms_norm(&a[0], &[3, 2], Some(&a[1]), Some(1e-4)), &xs[..2]);
    let moved = ops::transpose(&x, 0, 3).unwrap();
    gradcheck(&|a| norm::layer_norm(&a[0], &[2], None, None, 1e-4), &[moved]);
    let (w, b) = (r.tensor(&[4]), r.tensor(&[4]));
    let xs = [x.clone(), w, b];
    gradcheck(&|a| norm::group_norm(&a[0], 2, Some(&a[1]), Some(&a[2]), 1e-4), &xs);
    let o = Batch { running_mean: None, running_var: None, training: true, momentum: 0.1, eps: 1e-4 };
    gradcheck(&|a| norm::instance_norm(&a[0], Some(&a[1]), Some(&a[2]), o), &xs);
    // One group of everything is layer norm.
    let g = norm::group_norm(&x, 1, None, None, 1e-4).unwrap();
    close(&v(&g), &v(&norm::layer_norm(&x, &[4, 3, 2], None, None, 1e-4).unwrap()), 1e-12);
    assert!(norm::layer_norm(&x, &[2, 2], None, None, 1e-5).is_err());
    assert!(norm::group_norm(&x, 3, None, None, 1e-5).is_err());
}
