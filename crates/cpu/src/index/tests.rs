//! Against naive loops over random strided arrays.
#![allow(clippy::unwrap_used)]

use super::*;
use pyrite_core::Kind;
use pyrite_core::backend::Scatter;
use pyrite_core::half::f16;
use pyrite_core::rng::word;

fn arr<'a, T>(d: DType, v: &[T], shape: &'a [usize], strides: &'a [isize]) -> Arr<'a> {
    Arr { ptr: v.as_ptr().cast_mut().cast(), dtype: d, shape, strides }
}
/// What an operation writes to.
fn out<'a, T>(d: DType, v: &mut [T], shape: &'a [usize], strides: &'a [isize]) -> Arr<'a> {
    Arr { ptr: v.as_mut_ptr().cast(), dtype: d, shape, strides }
}
/// Row-major strides, or column-major ones.
fn strides(shape: &[usize], reversed: bool) -> Vec<isize> {
    let mut s = vec![0; shape.len()];
    let mut step = 1;
    let order: Vec<usize> =
        if reversed { (0..shape.len()).collect() } else { (0..shape.len()).rev().collect() };
    for d in order {
        s[d] = step;
        step *= shape[d] as isize;
    }
    s
}
fn at(strides: &[isize], pos: &[usize]) -> usize {
    strides.iter().zip(pos).map(|(s, p)| s * *p as isize).sum::<isize>() as usize
}
fn positions(shape: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for &n in shape {
        all = all.into_iter().flat_map(|p| (0..n).map(move |i| [p.clone(), vec![i]].concat())).collect();
    }
    all
}
fn random(n: usize, below: u32) -> Vec<i64> {
    (0..n).map(|i| (word(1, 0, i as u64) % below) as i64).collect()
}
fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| word(2, 0, i as u64) as f32 / 1e9 - 2.0).collect()
}

#[test]
fn select_and_back() {
    for (shape, k) in [(vec![7, 5, 6], 9), (vec![300, 70], 2000), (vec![4], 3)] {
        for dim in 0..shape.len() {
            for rev in [false, true] {
                let mut small = shape.clone();
                small[dim] = k;
                let (ss, ds) = (strides(&shape, rev), strides(&small, !rev));
                let src = numbers(shape.iter().product());
                let mut dst = vec![0f32; small.iter().product()];
                let idx = random(k, shape[dim] as u32);
                let (d, s) = (out(DType::F32, &mut dst, &small, &ds), arr(DType::F32, &src, &shape, &ss));
                let (n, one) = ([k], [1]);
                let i = arr(DType::I64, &idx, &n, &one);
                run(Index::Select { dst: d, src: s, idx: i, dim }).unwrap();
                let mut sum: Vec<f64> = vec![0.0; src.len()];
                for p in positions(&small) {
                    let mut q = p.clone();
                    q[dim] = idx[p[dim]] as usize;
                    assert_eq!(dst[at(&ds, &p)], src[at(&ss, &q)]);
                    sum[at(&ss, &q)] += dst[at(&ds, &p)] as f64;
                }
                let mut back = vec![0f32; src.len()];
                let b = out(DType::F32, &mut back, &shape, &ss);
                run(Index::SelectInto { dst: b, src: d, idx: i, dim, how: Scatter::Add }).unwrap();
                for (x, y) in back.iter().zip(&sum) {
                    assert!((*x as f64 - y).abs() < 1e-3 * y.abs().max(1.0));
                }
            }
        }
    }
}

#[test]
fn gather_and_scatter() {
    for (shape, small) in [(vec![7, 5, 6], vec![4, 9, 6]), (vec![300, 70], vec![300, 50])] {
        for dim in 0..shape.len() {
            for rev in [false, true] {
                let mut ishape = small.clone();
                for d in 0..shape.len() {
                    if d != dim {
                        ishape[d] = ishape[d].min(shape[d]);
                    }
                }
                let n = ishape.iter().product();
                let (ss, ds, is) = (strides(&shape, rev), strides(&ishape, !rev), strides(&ishape, rev));
                let src = numbers(shape.iter().product());
                let mut dst = vec![0f32; n];
                let idx: Vec<i32> = random(n, shape[dim] as u32).into_iter().map(|v| v as i32).collect();
                let i = arr(DType::I32, &idx, &ishape, &is);
                let (d, s) = (out(DType::F32, &mut dst, &ishape, &ds), arr(DType::F32, &src, &shape, &ss));
                run(Index::Gather { dst: d, src: s, idx: i, dim }).unwrap();
                let mut sum = vec![0.5f64; src.len()];
                let mut most = vec![0.5f32; src.len()];
                for p in positions(&ishape) {
                    let mut q = p.clone();
                    q[dim] = idx[at(&is, &p)] as usize;
                    let (v, to) = (dst[at(&ds, &p)], at(&ss, &q));
                    assert_eq!(v, src[to]);
                    sum[to] += v as f64;
                    most[to] = most[to].max(v);
                }
                for how in [Scatter::Add, Scatter::Max] {
                    let mut back = vec![0.5f32; src.len()];
                    let b = out(DType::F32, &mut back, &shape, &ss);
                    run(Index::Scatter { dst: b, src: d, idx: i, dim, how }).unwrap();
                    for j in 0..back.len() {
                        let want = if how == Scatter::Add { sum[j] } else { most[j] as f64 };
                        assert!((back[j] as f64 - want).abs() < 1e-4 * want.abs().max(1.0));
                    }
                }
            }
        }
    }
}

#[test]
fn take_and_put() {
    let shape = [11, 6, 5, 3];
    for rev in [false, true] {
        let ss = strides(&shape, rev);
        let src = numbers(990);
        // Index shape [4, 7], the second one broadcast along the first dimension.
        let (a, b) = (random(28, 11), random(7, 6));
        let ish = [4, 7];
        let idx = [arr(DType::I64, &a, &ish, &[7, 1]), arr(DType::I64, &b, &ish, &[0, 1])];
        let oshape = [4, 7, 5, 3];
        let os = strides(&oshape, !rev);
        let mut taken = vec![0f32; 420];
        let (d, s) = (out(DType::F32, &mut taken, &oshape, &os), arr(DType::F32, &src, &shape, &ss));
        run(Index::Take { dst: d, src: s, idx: &idx, dims: &[] }).unwrap();
        let mut sum = vec![0f64; 990];
        for p in positions(&oshape) {
            let q = [a[p[0] * 7 + p[1]] as usize, b[p[1]] as usize, p[2], p[3]];
            assert_eq!(taken[at(&os, &p)], src[at(&ss, &q)]);
            sum[at(&ss, &q)] += taken[at(&os, &p)] as f64;
        }
        let mut back = vec![0f32; 990];
        let bk = out(DType::F32, &mut back, &shape, &ss);
        run(Index::Put { dst: bk, src: d, idx: &idx, dims: &[], how: Scatter::Add }).unwrap();
        assert!(back.iter().zip(&sum).all(|(x, y)| (*x as f64 - y).abs() < 1e-4 * y.abs().max(1.0)));
    }
}

#[test]
fn bad_indices_are_errors_and_touch_nothing() {
    let src = [1f64, 2.0, 3.0];
    let (mut dst, three) = ([7f64; 3], [3]);
    let (d, s) = (out(DType::F64, &mut dst, &three, &[1]), arr(DType::F64, &src, &three, &[1]));
    let idx = [0i64, -1, 3];
    let i = arr(DType::I64, &idx, &three, &[1]);
    let all = [
        run(Index::SelectInto { dst: d, src: s, idx: i, dim: 0, how: Scatter::Set }),
        run(Index::Put { dst: d, src: s, idx: &[i], dims: &[], how: Scatter::Set }),
        run(Index::Scatter { dst: d, src: s, idx: i, dim: 0, how: Scatter::Mul }),
    ];
    assert_eq!(dst, [7.0; 3]);
    let reads = [
        run(Index::Gather { dst: d, src: s, idx: i, dim: 0 }),
        run(Index::Select { dst: d, src: s, idx: i, dim: 0 }),
        run(Index::Take { dst: d, src: s, idx: &[i], dims: &[] }),
    ];
    for (k, r) in all.into_iter().chain(reads).enumerate() {
        let e = r.unwrap_err();
        // PyTorch's types: gather and scatter differ from the others.
        assert_eq!(e.kind(), if matches!(k, 2 | 3) { Kind::Runtime } else { Kind::Index }, "{e}");
        assert!(e.message().contains("out of bounds"), "{e}");
    }
    let f = arr(DType::F64, &src, &three, &[1]);
    assert!(run(Index::Select { dst: d, src: s, idx: f, dim: 0 }).is_err());
}

#[test]
fn masks() {
    let n = 50_000;
    let shape = [500, 100];
    for rev in [false, true] {
        let st = strides(&shape, rev);
        let src: Vec<u16> = (0..n as u64).map(|i| word(4, 0, i) as u16).collect();
        let mask: Vec<u8> = (0..n as u64).map(|i| word(5, 0, i).is_multiple_of(3) as u8).collect();
        let (s, m) = (arr(DType::U16, &src, &shape, &st), arr(DType::Bool, &mask, &shape, &[100, 1]));
        let want: Vec<u16> =
            (0..n).filter(|&i| mask[i] != 0).map(|i| src[at(&st, &[i / 100, i % 100])]).collect();
        let mut got = vec![0u16; want.len()];
        let len = [want.len()];
        let d = out(DType::U16, &mut got, &len, &[1]);
        run(Index::MaskedSelect { dst: d, src: s, mask: m }).unwrap();
        assert_eq!(got, want);
        let mut back = vec![0u16; n];
        let b = out(DType::U16, &mut back, &shape, &st);
        run(Index::MaskedScatter { dst: b, src: d, mask: m }).unwrap();
        for i in 0..n {
            let j = at(&st, &[i / 100, i % 100]);
            assert_eq!(back[j], if mask[i] != 0 { src[j] } else { 0 });
        }
        let mut rows = vec![0i64; want.len() * 2];
        let rs = [want.len(), 2];
        run(Index::Nonzero { dst: out(DType::I64, &mut rows, &rs, &[2, 1]), src: m }).unwrap();
        let hits: Vec<i64> =
            (0..n as i64).filter(|&i| mask[i as usize] != 0).flat_map(|i| [i / 100, i % 100]).collect();
        assert_eq!(rows, hits);
        let short = [want.len() - 1];
        let d = out(DType::U16, &mut got, &short, &[1]);
        assert!(run(Index::MaskedSelect { dst: d, src: s, mask: m }).is_err());
    }
    // What counts as zero: both zeros of floats, not NaN; either part of a complex.
    let h = [0.0, -0.0, 1.0, f64::NAN].map(f16::from_f64);
    let c = [0.0f32, -0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0];
    let mut rows = [9i64; 2];
    run(Index::Nonzero {
        dst: out(DType::I64, &mut rows, &[2, 1], &[1, 1]),
        src: arr(DType::F16, &h, &[4], &[1]),
    })
    .unwrap();
    assert_eq!(rows, [2, 3]);
    run(Index::Nonzero {
        dst: out(DType::I64, &mut rows, &[2, 1], &[1, 1]),
        src: arr(DType::C64, &c, &[4], &[1]),
    })
    .unwrap();
    assert_eq!(rows, [1, 2]);
}
