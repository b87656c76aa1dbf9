use super::*;
use crate::simd::detect;
use pyrite_core::Layout;
use pyrite_core::rows::REDUCTIONS;

const SETS: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

/// Values that a float of any width holds exactly.
fn values(n: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 7919 + i * i % 31) % 253) as f64 / 8.0 - 14.0).collect()
}

pub(crate) fn store(d: DType, v: &[f64]) -> Vec<u8> {
    let mut b = vec![0u8; v.len() * d.size()];
    // SAFETY: both sides hold v.len() elements.
    unsafe { cast(d, DType::F64)(v.len(), b.as_mut_ptr(), v.as_ptr().cast()) };
    b
}

pub(crate) fn read(d: DType, b: &[u8]) -> Vec<f64> {
    let mut v = vec![0f64; b.len() / d.size()];
    // SAFETY: both sides hold v.len() elements.
    unsafe { cast(DType::F64, d)(v.len(), v.as_mut_ptr().cast(), b.as_ptr()) };
    v
}

/// Groups the elements of a layout by result: one list per result, in row-major order.
fn groups(v: &[f64], l: &Layout, dst: &[usize]) -> Vec<Vec<f64>> {
    let n: usize = dst.iter().product();
    let mut out = vec![Vec::new(); n];
    let total: usize = l.shape().iter().product();
    for i in 0..total {
        let (mut rest, mut at, mut to, mut step) = (i, l.offset() as isize, 0, 1);
        for d in (0..l.ndim()).rev() {
            let k = rest % l.shape()[d];
            rest /= l.shape()[d];
            at += k as isize * l.strides()[d];
            if dst[d] != 1 {
                to += k * step;
                step *= dst[d];
            }
        }
        out[to].push(v[at as usize]);
    }
    out
}

fn layouts(shape: &[usize]) -> Vec<Layout> {
    let mut wide = shape.to_vec();
    *wide.last_mut().unwrap() *= 2;
    let d = shape.len() - 1;
    let rev: Vec<usize> = shape.iter().rev().copied().collect();
    let perm: Vec<i64> = (0..shape.len() as i64).rev().collect();
    vec![
        Layout::contiguous(shape),
        Layout::contiguous(&rev).permute(&perm).unwrap(),
        Layout::contiguous(&wide).slice(d, 1, shape[d], 2).unwrap(),
    ]
}

fn go(
    isa: Isa,
    op: ReduceOp,
    from: DType,
    to: DType,
    l: &Layout,
    dst: &[usize],
    v: &[f64],
    p: &[f64],
) -> Vec<f64> {
    let src = store(from, v);
    let n: usize = dst.iter().product();
    let mut out = vec![0u8; n * to.size()];
    let dl = Layout::contiguous(dst);
    let s = Arr {
        ptr: src.as_ptr().cast_mut().wrapping_add(l.offset() * from.size()),
        dtype: from,
        shape: l.shape(),
        strides: l.strides(),
    };
    let d = Arr { ptr: out.as_mut_ptr(), dtype: to, shape: dst, strides: dl.strides() };
    reduce_on(isa.min(detect()), op, d, None, s, p).unwrap();
    read(to, &out)
}

fn plain(name: &str, x: &[f64]) -> f64 {
    let n = x.len() as f64;
    let sum = |f: &dyn Fn(f64) -> f64| x.iter().map(|v| f(*v)).sum::<f64>();
    match name {
        "sum" | "nansum" => sum(&|v| v),
        "mean" => sum(&|v| v) / n,
        "prod" => x.iter().product(),
        "amax" => x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "amin" => x.iter().copied().fold(f64::INFINITY, f64::min),
        "norm1" => sum(&f64::abs),
        "norm2" => sum(&|v| v * v).sqrt(),
        "normp" => sum(&|v| v.abs().powf(3.0)).powf(1.0 / 3.0),
        "norminf" => x.iter().fold(0.0, |a: f64, v| a.max(v.abs())),
        "normninf" => x.iter().fold(f64::INFINITY, |a: f64, v| a.min(v.abs())),
        "count_nonzero" => sum(&|v| (v != 0.0) as u8 as f64),
        "meansq" => sum(&|v| v * v) / n,
        other => panic!("no oracle for {other}"),
    }
}

const CASES: &[(&[usize], &[usize])] = &[
    (&[1], &[1]),
    (&[5], &[1]),
    (&[10000], &[1]),
    (&[300_001], &[1]),
    (&[33, 47], &[33, 1]),
    (&[33, 47], &[1, 47]),
    (&[3, 5000], &[3, 1]),
    (&[5000, 3], &[1, 3]),
    (&[5000, 3], &[5000, 1]),
    (&[9000, 40], &[1, 40]),
    (&[4, 6, 50], &[1, 6, 1]),
    (&[4, 6, 50], &[4, 1, 50]),
    (&[8, 70, 9], &[8, 1, 9]),
    (&[6, 1, 7], &[6, 1, 7]),
    (&[200, 5, 30], &[1, 5, 1]),
    (&[300, 20], &[300, 1]),
];

#[test]
fn rows_of_the_table_match_plain_loops() {
    for (shape, dst) in CASES {
        for l in layouts(shape) {
            let v = values(l.extent().unwrap().1 as usize + 1);
            for row in REDUCTIONS {
                let v: Vec<f64> = match row.name {
                    "prod" => v
                        .iter()
                        .map(|x| {
                            if *x < -13.9 {
                                2.0
                            } else if *x > 17.3 {
                                0.5
                            } else {
                                1.0
                            }
                        })
                        .collect(),
                    "count_nonzero" => v.iter().map(|x| if x.abs() < 3.0 { 0.0 } else { x / 16.0 }).collect(),
                    _ => v.clone(),
                };
                let want: Vec<f64> = groups(&v, &l, dst).iter().map(|g| plain(row.name, g)).collect();
                let size = plain("norm1", &v) / want.len() as f64 * 1e-2;
                let mut types =
                    vec![(DType::F32, DType::F32), (DType::F64, DType::F64), (DType::F16, DType::F32)];
                match row.name {
                    "count_nonzero" => types.push((DType::F32, DType::I64)),
                    "amax" | "amin" | "sum" if shape.len() > 1 => types.push((DType::F32, DType::F64)),
                    _ => (),
                }
                for (from, to) in types {
                    for isa in SETS {
                        let got = go(isa, ReduceOp::Row(row.id), from, to, &l, dst, &v, &[3.0]);
                        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                            let scale = 1.0 + w.abs() + size;
                            assert!(
                                g == w || (*w > 3e38 && g.is_infinite()) || (g - w).abs() <= 2e-6 * scale,
                                "{} {shape:?}->{dst:?} {from} {to} {isa:?} [{i}]: {g} {w}",
                                row.name
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn integers_are_exact() {
    for (shape, dst) in CASES {
        for l in layouts(shape) {
            let v: Vec<f64> =
                values(l.extent().unwrap().1 as usize + 1).iter().map(|x| x.round() - 20.0).collect();
            for name in ["sum", "amax", "amin", "count_nonzero"] {
                let row = REDUCTIONS.iter().find(|r| r.name == name).unwrap();
                let want: Vec<f64> = groups(&v, &l, dst).iter().map(|g| plain(name, g)).collect();
                let to = if name == "sum" || name == "count_nonzero" { DType::I64 } else { DType::I16 };
                for isa in SETS {
                    let got = go(isa, ReduceOp::Row(row.id), DType::I16, to, &l, dst, &v, &[]);
                    assert_eq!(got, want, "{name} {shape:?} {dst:?} {isa:?}");
                    let got = go(isa, ReduceOp::Row(row.id), DType::I8, to, &l, dst, &v, &[]);
                    assert_eq!(got, want, "{name} {shape:?} {dst:?} {isa:?}");
                }
            }
        }
    }
}

#[test]
fn bool_results() {
    let l = Layout::contiguous(&[3, 100]);
    let lowest = vec![i16::MIN as f64; 20];
    let l1 = Layout::contiguous(&[20]);
    let got = go(isa(), ReduceOp::Row(id::AMAX), DType::I16, DType::I16, &l1, &[1], &lowest, &[]);
    assert_eq!(got, [i16::MIN as f64]);
    let mut v = vec![0.0; 300];
    v[150] = 0.25;
    v[200..].fill(-3.0);
    for isa in SETS {
        let any = go(isa, ReduceOp::Row(id::AMAX), DType::F32, DType::Bool, &l, &[3, 1], &v, &[]);
        let all = go(isa, ReduceOp::Row(id::AMIN), DType::F32, DType::Bool, &l, &[3, 1], &v, &[]);
        assert_eq!((any, all), (vec![0.0, 1.0, 1.0], vec![0.0, 0.0, 1.0]));
    }
}

#[test]
fn nothing_and_nan() {
    let l = Layout::contiguous(&[0, 3]);
    let f = |op| go(isa(), ReduceOp::Row(op), DType::F32, DType::F32, &l, &[1, 3], &[], &[]);
    assert_eq!(f(id::SUM), [0.0; 3]);
    assert_eq!(f(id::PROD), [1.0; 3]);
    assert!(f(id::MEAN).iter().all(|v| v.is_nan()));
    for n in [1usize, 3, 16, 17, 100, 5000] {
        for at in [0, n / 2, n - 1] {
            let mut v = values(n);
            v[at] = f64::NAN;
            let l = Layout::contiguous(&[n]);
            for isa in SETS {
                for op in [id::AMAX, id::AMIN, id::SUM] {
                    assert!(
                        go(isa, ReduceOp::Row(op), DType::F32, DType::F32, &l, &[1], &v, &[])[0].is_nan()
                    );
                }
            }
        }
    }
}

#[test]
fn variance_is_stable() {
    for (shape, dst) in CASES {
        for l in layouts(shape) {
            // A mean far from zero: the textbook formula would lose everything in f32.
            let v: Vec<f64> =
                values(l.extent().unwrap().1 as usize + 1).iter().map(|x| x * 0.125 + 4096.0).collect();
            let v: Vec<f64> = v.iter().map(|x| *x as f32 as f64).collect();
            for isa in SETS {
                for d in [DType::F32, DType::F64] {
                    let got = go(isa, ReduceOp::Var, d, d, &l, dst, &v, &[1.0]);
                    let root = go(isa, ReduceOp::Std, d, d, &l, dst, &v, &[1.0]);
                    for ((g, r), x) in got.iter().zip(&root).zip(groups(&v, &l, dst)) {
                        let n = x.len() as f64;
                        let mean = x.iter().sum::<f64>() / n;
                        let want = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
                        if x.len() == 1 {
                            assert!(g.is_nan());
                            continue;
                        }
                        assert!((g - want).abs() <= 1e-5 * want, "{shape:?} {dst:?} {d} {isa:?}: {g} {want}");
                        assert!((r - want.sqrt()).abs() <= 1e-5 * want.sqrt());
                    }
                }
            }
        }
    }
}

#[test]
fn long_f32_sums_are_accurate() {
    let n = 3_000_000;
    let v: Vec<f64> = (0..n).map(|i| (0.1 + (i % 7) as f64 * 1e-3) as f32 as f64).collect();
    let want: f64 = v.iter().sum();
    for (shape, dst) in [([n, 1], [1, 1]), ([n / 3, 3], [1, 3])] {
        let l = Layout::contiguous(&shape);
        for isa in SETS {
            let got: f64 =
                go(isa, ReduceOp::Row(id::SUM), DType::F32, DType::F32, &l, &dst, &v, &[]).iter().sum();
            assert!((got - want).abs() < 1e-6 * want, "{shape:?} {isa:?}: {got} {want}");
        }
    }
}
