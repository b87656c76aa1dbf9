//! Convolutions against loops, transposed ones against the adjoint identity.

use super::{Rng, close, dot, gradcheck, v};
use pyrite_tensor::ops::conv::{self, Padding, Transposed};
use pyrite_tensor::ops::{self, pad};
use pyrite_tensor::{DType, Device, MemoryFormat, Tensor};

/// Stride, padding, dilation.
type Geometry = [[usize; 3]; 3];

/// Naive convolution of [N, C, D, H, W] by [K, C / groups, ...].
fn naive_conv(
    x: &Tensor,
    w: &Tensor,
    [stride, padding, dil]: Geometry,
    groups: usize,
) -> (Vec<f64>, Vec<usize>) {
    let (xs, ws) = (x.shape(), w.shape());
    let o: Vec<usize> =
        (0..3).map(|i| (xs[2 + i] + 2 * padding[i] - dil[i] * (ws[2 + i] - 1) - 1) / stride[i] + 1).collect();
    let (xv, wv) = (v(x), v(w));
    let (cg, kg) = (ws[1], ws[0] / groups);
    let mut out = Vec::new();
    for n in 0..xs[0] {
        for k in 0..ws[0] {
            for p in 0..o[0] * o[1] * o[2] {
                let at = [p / (o[1] * o[2]), p / o[2] % o[1], p % o[2]];
                let mut s = 0.0;
                for c in 0..cg {
                    for t in 0..ws[2] * ws[3] * ws[4] {
                        let tap = [t / (ws[3] * ws[4]), t / ws[4] % ws[3], t % ws[4]];
                        let pos: Vec<i64> = (0..3)
                            .map(|i| (at[i] * stride[i] + tap[i] * dil[i]) as i64 - padding[i] as i64)
                            .collect();
                        if (0..3).all(|i| pos[i] >= 0 && pos[i] < xs[2 + i] as i64) {
                            let ch = k / kg * cg + c;
                            let xi = (((n * xs[1] + ch) * xs[2] + pos[0] as usize) * xs[3] + pos[1] as usize)
                                * xs[4]
                                + pos[2] as usize;
                            s += xv[xi] * wv[(k * cg + c) * ws[2] * ws[3] * ws[4] + t];
                        }
                    }
                }
                out.push(s);
            }
        }
    }
    (out, vec![xs[0], ws[0], o[0], o[1], o[2]])
}

#[test]
fn conv2d_values_and_gradients() {
    let mut r = Rng(3);
    for (groups, s, p, d) in [(1, 1, 0, 1), (1, 2, 1, 1), (2, 1, 2, 2), (4, 2, 1, 1)] {
        let x = r.tensor(&[2, 4, 7, 6]);
        let w = r.tensor(&[8, 4 / groups, 3, 2]);
        let b = r.tensor(&[8]);
        let (si, pi, di) = (s as i64, p as i64, d as i64);
        let f = |a: &[Tensor]| {
            conv::conv2d(&a[0], &a[1], Some(&a[2]), &[si], Padding::Sizes(&[pi]), &[di], groups as i64)
        };
        let y = f(&[x.clone(), w.clone(), b.clone()]).unwrap();
        let (x3, w3) = (ops::unsqueeze(&x, 2).unwrap(), ops::unsqueeze(&w, 2).unwrap());
        let (mut want, shape) = naive_conv(&x3, &w3, [[1, s, s], [0, p, p], [1, d, d]], groups);
        let (plane, bv) = (shape[3] * shape[4], v(&b));
        want.iter_mut().enumerate().for_each(|(i, y)| *y += bv[i / plane % 8]);
        close(&v(&y), &want, 1e-12);
        gradcheck(&f, &[x.clone(), w.clone(), b]);
        let last = ops::contiguous_format(&x, MemoryFormat::ChannelsLast).unwrap();
        let y = conv::conv2d(&last, &w, None, &[si], Padding::Sizes(&[pi]), &[di], groups as i64).unwrap();
        assert!(y.layout().is_channels_last());
        assert_eq!(y.shape()[..2], [2, 8]);
    }
}

#[test]
fn conv1d_and_conv3d() {
    let mut r = Rng(5);
    let (x, w, b) = (r.tensor(&[2, 4, 9]), r.tensor(&[6, 2, 3]), r.tensor(&[6]));
    let f = |a: &[Tensor]| conv::conv1d(&a[0], &a[1], Some(&a[2]), &[2], Padding::Sizes(&[1]), &[2], 2);
    gradcheck(&f, &[x, w, b]);
    let (x, w) = (r.tensor(&[2, 2, 5, 4, 6]), r.tensor(&[4, 1, 2, 3, 2]));
    let f = |a: &[Tensor]| {
        conv::conv3d(&a[0], &a[1], None, &[2, 1, 2], Padding::Sizes(&[1, 0, 1]), &[2, 1, 1], 2)
    };
    let (want, shape) = naive_conv(&x, &w, [[2, 1, 2], [1, 0, 1], [2, 1, 1]], 2);
    let y = f(&[x.clone(), w.clone()]).unwrap();
    assert_eq!(y.shape(), &shape[..]);
    close(&v(&y), &want, 1e-12);
    gradcheck(&f, &[x, w]);
}

#[test]
fn same_padding_is_asymmetric_for_even_kernels() {
    let mut r = Rng(6);
    let (x, w) = (r.tensor(&[1, 1, 5]), r.tensor(&[1, 1, 4]));
    let y = conv::conv1d(&x, &w, None, &[1], Padding::Same, &[1], 1).unwrap();
    // 3 in all: 1 before, 2 after.
    let wide = pad::pad(&x, &[1, 2], 0.0).unwrap();
    let want = conv::conv1d(&wide, &w, None, &[1], Padding::Valid, &[1], 1).unwrap();
    close(&v(&y), &v(&want), 0.0);
    assert_eq!(y.shape(), &[1, 1, 5]);
    assert!(conv::conv1d(&x, &w, None, &[2], Padding::Same, &[1], 1).is_err());
}

/// A transposed convolution is the transpose of the convolution with the same weight.
#[test]
fn transposed_is_the_transpose() {
    let mut r = Rng(7);
    macro_rules! case {
        ($n:literal, $conv:ident, $xs:expr, $ws:expr, $g:expr, $stride:expr, $pad:expr, $out:expr, $dil:expr) => {{
            let (y, w): (Tensor, Tensor) = (r.tensor(&$xs), r.tensor(&$ws));
            let t = Transposed {
                stride: &$stride,
                padding: &$pad,
                output_padding: &$out,
                groups: $g,
                dilation: &$dil,
            };
            let x = conv::conv_transpose::<$n>(&y, &w, None, t).unwrap();
            let z = r.tensor(x.shape());
            let f = conv::$conv(&z, &w, None, &$stride, Padding::Sizes(&$pad), &$dil, $g).unwrap();
            assert_eq!(f.shape(), y.shape());
            close(&v(&dot(&x, &z).unwrap()), &v(&dot(&f, &y).unwrap()), 1e-12);
            let b = r.tensor(&[$ws[1] * $g as usize]);
            gradcheck(&|a| conv::conv_transpose::<$n>(&a[0], &a[1], Some(&a[2]), t), &[y, w, b]);
        }};
    }
    case!(1, conv1d, [2, 4, 5], [4, 3, 3], 2, [2], [1], [1], [1]);
    case!(2, conv2d, [2, 4, 4, 3], [4, 2, 3, 2], 1, [2, 3], [1, 0], [1, 2], [2, 1]);
    case!(3, conv3d, [1, 2, 3, 2, 3], [2, 2, 2, 2, 3], 2, [2, 1, 2], [1, 0, 1], [1, 0, 0], [1, 1, 1]);
}

#[test]
fn conv_errors_name_the_shapes() {
    let mut r = Rng(8);
    let (x, w) = (r.tensor(&[1, 3, 4, 4]), r.tensor(&[2, 4, 3, 3]));
    let e = conv::conv2d(&x, &w, None, &[1], Padding::Valid, &[1], 1).err().unwrap();
    assert!(e.message().contains("expected input[1, 3, 4, 4] to have 4 channels, but got 3"), "{e}");
    let w = r.tensor(&[2, 3, 5, 5]);
    let e = conv::conv2d(&x, &w, None, &[1], Padding::Valid, &[1], 1).err().unwrap();
    assert!(e.message().contains("Kernel size can't be greater"), "{e}");
    for bad in [0, -1] {
        assert!(conv::conv2d(&x, &w, None, &[bad], Padding::Sizes(&[1]), &[1], 1).is_err());
    }
    assert!(conv::conv2d(&x, &w, None, &[1], Padding::Sizes(&[-1]), &[1], 1).is_err());
    assert!(conv::conv2d(&x, &w, None, &[1], Padding::Sizes(&[1]), &[1], 0).is_err());
    let none = Tensor::zeros(&[0, 3, 8, 8], DType::F64, Device::Cpu).unwrap();
    let y = conv::conv2d(&none, &w, None, &[1], Padding::Valid, &[1], 1).unwrap();
    assert_eq!(y.shape(), &[0, 2, 4, 4]);
}
