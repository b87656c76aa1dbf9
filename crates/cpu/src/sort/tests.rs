//! Sorting against comparisons of f64, position by position.

use super::*;
use crate::reduce::tests::{read, store};
use pyrite_core::{DType, Layout};

fn go(
    d: DType,
    l: &Layout,
    dim: usize,
    v: &[f64],
    down: bool,
    k: Option<usize>,
) -> (Vec<f64>, Vec<i64>, Vec<usize>) {
    let src = store(d, v);
    let mut shape = l.shape().to_vec();
    if let Some(k) = k {
        shape[dim] = k;
    }
    let n: usize = shape.iter().product();
    let (mut out, mut at) = (vec![0u8; n * d.size()], vec![0i64; n]);
    let dl = Layout::contiguous(&shape);
    let s = Arr { ptr: src.as_ptr().cast_mut(), dtype: d, shape: l.shape(), strides: l.strides() };
    let o = Arr { ptr: out.as_mut_ptr(), dtype: d, shape: &shape, strides: dl.strides() };
    let i = Arr { ptr: at.as_mut_ptr().cast(), dtype: DType::I64, ..o };
    match k {
        None => sort(o, i, s, dim, down).unwrap(),
        Some(_) => topk(o, i, s, dim, down).unwrap(),
    }
    (read(d, &out), at, shape)
}

#[test]
fn sorts_are_stable_and_put_nan_last() {
    for (shape, dim) in [
        (vec![1usize], 0),
        (vec![100], 0),
        (vec![5000], 0),
        (vec![1 << 20], 0),
        (vec![30, 40], 0),
        (vec![30, 40], 1),
        (vec![3, 1500], 1),
        (vec![2000, 3], 0),
    ] {
        for d in [DType::F32, DType::F64, DType::F16, DType::I64, DType::I8, DType::Bool] {
            let l = Layout::contiguous(&shape);
            if shape[0] > 1 << 19 && !matches!(d, DType::F32 | DType::I64) {
                continue;
            }
            let mut v: Vec<f64> = (0..l.numel()).map(|i| ((i * 7919) % 101) as f64 - 50.0).collect();
            if d.is_float() {
                v.iter_mut().step_by(53).for_each(|x| *x = f64::NAN);
                v.iter_mut().skip(1).step_by(59).for_each(|x| *x = -0.0);
            }
            if d.is_bool() {
                v.iter_mut().for_each(|x| *x = (*x > 0.0) as u8 as f64);
            }
            for down in [false, true] {
                let (got, at, _) = go(d, &l, dim, &v, down, None);
                check(&shape, dim, &v, &got, &at, down, shape[dim]);
                for k in [1, 3, 40] {
                    if k <= shape[dim] {
                        let (got, at, _) = go(d, &l, dim, &v, down, Some(k));
                        check(&shape, dim, &v, &got, &at, down, k);
                    }
                }
            }
        }
    }
}

fn check(shape: &[usize], dim: usize, v: &[f64], got: &[f64], at: &[i64], down: bool, k: usize) {
    let n = shape[dim];
    let inner: usize = shape[dim + 1..].iter().product();
    for line in 0..v.len() / n {
        let (a, b) = (line / inner, line % inner);
        let x: Vec<f64> = (0..n).map(|i| v[(a * n + i) * inner + b]).collect();
        let mut want: Vec<usize> = (0..n).collect();
        let rank = |f: f64| if f.is_nan() { f64::INFINITY } else { f };
        want.sort_by(|i, j| {
            let o = rank(x[*i]).total_cmp(&(rank(x[*j]) + 0.0));
            let o = if rank(x[*i]) == rank(x[*j]) { std::cmp::Ordering::Equal } else { o };
            if down { o.reverse() } else { o }
        });
        for j in 0..k {
            let p = (a * k + j) * inner + b;
            assert_eq!(at[p] as usize, want[j], "{shape:?} dim {dim} down {down} k {k} at {j}");
            let w = x[want[j]];
            assert!(got[p].to_bits() == w.to_bits() || (got[p].is_nan() && w.is_nan()));
        }
    }
}
