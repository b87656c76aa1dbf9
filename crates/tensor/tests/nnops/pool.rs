//! Pooling against loops over windows.

use super::{Rng, close, gradcheck, v};
use pyrite_tensor::MemoryFormat;
use pyrite_tensor::ops::pool::{self, Divisor, Window};
use pyrite_tensor::ops::{self};

pub fn window<const N: usize>(k: usize, s: usize, p: usize, d: usize, ceil: bool) -> Window<N> {
    Window { kernel: [k; N], stride: [s; N], pad: [p; N], dilation: [d; N], ceil }
}

#[test]
fn max_pool_values_and_gradients() {
    let mut r = Rng(11);
    let x = r.tensor(&[2, 3, 7, 6]);
    let w = window::<2>(3, 2, 1, 1, true);
    let (y, idx) = pool::max_pool2d(&x, w, true).unwrap();
    assert_eq!(y.shape(), &[2, 3, 4, 4]);
    let (xv, yv) = (v(&x), v(&y));
    for (i, at) in idx.unwrap().to_vec::<i64>().unwrap().into_iter().enumerate() {
        assert_eq!(yv[i], xv[i / 16 * 42 + at as usize]);
        let (oh, ow) = (i / 4 % 4, i % 4);
        let best = (0..9)
            .filter_map(|t| {
                let (h, w) = ((oh * 2 + t / 3) as i64 - 1, (ow * 2 + t % 3) as i64 - 1);
                ((0..7).contains(&h) && (0..6).contains(&w)).then(|| xv[i / 16 * 42 + (h * 6 + w) as usize])
            })
            .fold(f64::NEG_INFINITY, f64::max);
        assert_eq!(yv[i], best);
    }
    gradcheck(&|a| Ok(pool::max_pool2d(&a[0], w, false)?.0), &[x.clone()]);
    let last = ops::contiguous_format(&x, MemoryFormat::ChannelsLast).unwrap();
    let y2 = pool::max_pool2d(&last, w, false).unwrap().0;
    assert!(y2.layout().is_channels_last());
    close(&v(&y2), &yv, 0.0);
    gradcheck(&|a| Ok(pool::max_pool2d(&a[0], w, false)?.0), &[last]);
    gradcheck(&|a| Ok(pool::max_pool1d(&a[0], window(3, 2, 1, 1, false), false)?.0), &[r.tensor(&[2, 3, 8])]);
}

#[test]
fn max_pool3d_positions() {
    let mut r = Rng(12);
    let x = r.tensor(&[2, 2, 5, 4, 6]);
    let (y, idx) = pool::max_pool3d(&x, window(2, 2, 1, 1, false), true).unwrap();
    assert_eq!(y.shape(), &[2, 2, 3, 3, 4]);
    let (xv, yv) = (v(&x), v(&y));
    for (i, at) in idx.unwrap().to_vec::<i64>().unwrap().into_iter().enumerate() {
        assert_eq!(yv[i], xv[i / 36 * 120 + at as usize]);
    }
    gradcheck(&|a| Ok(pool::max_pool3d(&a[0], window(2, 2, 1, 1, false), false)?.0), &[x]);
}

#[test]
fn average_pools() {
    let mut r = Rng(13);
    let x = r.tensor(&[2, 3, 7, 6]);
    for count_pad in [true, false] {
        for fixed in [None, Some(5.0)] {
            let by = Divisor { count_pad, fixed };
            let y = v(&pool::avg_pool2d(&x, window(3, 2, 1, 1, false), by).unwrap());
            let xv = v(&x);
            for (i, y) in y.into_iter().enumerate() {
                let (oh, ow) = (i / 3 % 4, i % 3);
                let (mut s, mut n) = (0.0, 0);
                for t in 0..9 {
                    let (h, w) = ((oh * 2 + t / 3) as i64 - 1, (ow * 2 + t % 3) as i64 - 1);
                    if (0..7).contains(&h) && (0..6).contains(&w) {
                        s += xv[i / 12 * 42 + (h * 6 + w) as usize];
                        n += 1;
                    }
                }
                let by = fixed.unwrap_or(if count_pad { 9.0 } else { n as f64 });
                assert!((y - s / by).abs() < 1e-12);
            }
            gradcheck(&|a| pool::avg_pool2d(&a[0], window(3, 2, 1, 1, true), by), &[x.clone()]);
            gradcheck(
                &|a| pool::avg_pool3d(&a[0], window(2, 1, 1, 1, false), by),
                &[r.tensor(&[1, 2, 3, 4, 3])],
            );
        }
    }
    let x3 = r.tensor(&[2, 5, 7, 4]);
    let y = v(&pool::adaptive_avg_pool3d(&x3, &[2, 3, 4]).unwrap());
    let xv = v(&x3);
    let bounds = |i: usize, n: usize, o: usize| (i * n / o, ((i + 1) * n).div_ceil(o));
    for (i, y) in y.into_iter().enumerate() {
        let (c, d, h, w) = (i / 24, i / 12 % 2, i / 4 % 3, i % 4);
        let (mut s, mut n) = (0.0, 0.0);
        let (a, b, e) = (bounds(d, 5, 2), bounds(h, 7, 3), bounds(w, 4, 4));
        for z in a.0..a.1 {
            for yy in b.0..b.1 {
                for xx in e.0..e.1 {
                    s += xv[((c * 5 + z) * 7 + yy) * 4 + xx];
                    n += 1.0;
                }
            }
        }
        assert!((y - s / n).abs() < 1e-12);
    }
    gradcheck(&|a| pool::adaptive_avg_pool2d(&a[0], &[3, 4]), &[x]);
    gradcheck(&|a| pool::adaptive_avg_pool1d(&a[0], &[3]), &[r.tensor(&[2, 3, 7])]);
}
