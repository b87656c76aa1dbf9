//! Scans against plain loops, over layouts and dtypes.

use super::*;
use crate::reduce::tests::{read, store};
use pyrite_core::Layout;

fn go(op: ScanOp, from: DType, to: DType, l: &Layout, dim: usize, v: &[f64]) -> (Vec<f64>, Vec<i64>) {
    let src = store(from, v);
    let n = l.numel();
    let (mut out, mut at) = (vec![0u8; n * to.size()], vec![0i64; n]);
    let dl = Layout::contiguous(l.shape());
    let s = Arr { ptr: src.as_ptr().cast_mut(), dtype: from, shape: l.shape(), strides: l.strides() };
    let d = Arr { ptr: out.as_mut_ptr(), dtype: to, shape: l.shape(), strides: dl.strides() };
    let i = Arr { ptr: at.as_mut_ptr().cast(), dtype: DType::I64, ..d };
    let extreme = matches!(op, ScanOp::Max | ScanOp::Min);
    run(op, d, extreme.then_some(i), s, dim).unwrap();
    (read(to, &out), at)
}

#[test]
fn scans_match_plain_loops() {
    for shape in [
        vec![1usize],
        vec![7],
        vec![9000],
        vec![300_001],
        vec![20, 50],
        vec![50, 20],
        vec![300, 3],
        vec![4, 9, 33],
    ] {
        for turned in [false, true] {
            let rev: Vec<usize> = shape.iter().rev().copied().collect();
            let perm: Vec<i64> = (0..shape.len() as i64).rev().collect();
            let l = if turned {
                Layout::contiguous(&rev).permute(&perm).unwrap()
            } else {
                Layout::contiguous(&shape)
            };
            let n = l.numel();
            let v: Vec<f64> = (0..n).map(|i| ((i * 7919) % 17) as f64 / 8.0 - 1.0).collect();
            for dim in 0..shape.len() {
                for (op, from, to) in [
                    (ScanOp::Sum, DType::F32, DType::F32),
                    (ScanOp::Sum, DType::F16, DType::F64),
                    (ScanOp::Sum, DType::I32, DType::I64),
                    (ScanOp::Prod, DType::F64, DType::F64),
                    (ScanOp::Max, DType::F32, DType::F32),
                    (ScanOp::Min, DType::I16, DType::I16),
                    (ScanOp::Max, DType::BF16, DType::BF16),
                    (ScanOp::LogSumExp, DType::F64, DType::F64),
                ] {
                    let mut v = v.clone();
                    if op == ScanOp::Prod {
                        v.iter_mut().for_each(|x| *x = if *x > 0.7 { 1.5 } else { 0.9 });
                    }
                    if from.is_int() {
                        v.iter_mut().for_each(|x| *x = (*x * 8.0).round());
                    }
                    if from.is_float()
                        && matches!(op, ScanOp::Max | ScanOp::Sum)
                        && n > 900
                        && shape.len() > 1
                    {
                        v[77] = f64::NAN;
                    }
                    let (got, at) = go(op, from, to, &l, dim, &v);
                    check(op, &l, dim, &v, &got, &at, to);
                }
            }
        }
    }
}

fn check(op: ScanOp, l: &Layout, dim: usize, v: &[f64], got: &[f64], at: &[i64], to: DType) {
    let shape = l.shape();
    let dense = Layout::contiguous(shape);
    let n = shape[dim];
    let src = Lines::new(shape, dim, [l.strides(), dense.strides(), &[]]);
    for line in 0..src.count {
        let o = src.at(line);
        let mut a = match op {
            ScanOp::Prod => 1.0,
            ScanOp::LogSumExp => f64::NEG_INFINITY,
            ScanOp::Sum => 0.0,
            _ => v[o[0] as usize],
        };
        let mut best = 0;
        for i in 0..n as isize {
            let x = v[(o[0] + i * l.strides()[dim]) as usize];
            match op {
                ScanOp::Sum => a += x,
                ScanOp::Prod => a *= x,
                ScanOp::LogSumExp => {
                    let m = a.max(x);
                    a = m + ((a - m).exp() + (x - m).exp()).ln();
                }
                _ => {
                    let ahead = if op == ScanOp::Max { x >= a } else { x <= a };
                    if x.is_nan() || (!a.is_nan() && ahead) {
                        (a, best) = (x, i as i64);
                    }
                }
            }
            let p = (o[1] + i * dense.strides()[dim]) as usize;
            let tol = if to == DType::F32 { 1e-6 } else { 1e-9 };
            let ok =
                (got[p] - a).abs() <= tol * (1.0 + a.abs()) || (got[p].is_nan() && a.is_nan()) || got[p] == a;
            assert!(ok, "{op:?} {shape:?} dim {dim} at {i}: {} {a}", got[p]);
            if matches!(op, ScanOp::Max | ScanOp::Min) {
                assert_eq!(at[p], best, "{op:?} {shape:?} {dim}");
            }
        }
    }
}
