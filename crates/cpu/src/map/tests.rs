use super::*;
use crate::simd::detect;
use pyrite_core::Layout;
use pyrite_core::half::{bf16, f16};
use pyrite_core::plan::Operand;
use pyrite_core::rows::find;

const SETS: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

/// Runs a row on f64 values stored with the given dtypes and layouts; the result read back as f64.
fn run(
    isa: Isa,
    name: &str,
    compute: DType,
    shape: &[usize],
    out: (DType, Layout),
    ins: &[(DType, Layout, Vec<f64>)],
    params: &[Scalar],
) -> Vec<f64> {
    let row = find(name).unwrap();
    let store = |d: DType, v: &[f64]| {
        let mut b = vec![0u8; v.len() * d.size()];
        // SAFETY: both sides hold v.len() elements.
        unsafe { cast(d, DType::F64)(v.len(), b.as_mut_ptr(), v.as_ptr().cast()) };
        b
    };
    let room = out.1.extent().map_or(0, |e| e.1 as usize + 1);
    let mut y = store(out.0, &vec![77.0; room]);
    let bufs: Vec<_> = ins.iter().map(|i| store(i.0, &i.2)).collect();
    let mut ops = vec![Operand { ptr: y.as_mut_ptr(), dtype: out.0, layout: &out.1 }];
    for (i, b) in ins.iter().zip(&bufs) {
        ops.push(Operand { ptr: b.as_ptr().cast_mut(), dtype: i.0, layout: &i.1 });
    }
    let plan = Plan::new("test", shape, &ops).unwrap();
    map_on(isa.min(detect()), row.id, Formula::Forward, compute, &plan, params).unwrap();
    let mut all = vec![0f64; room];
    // SAFETY: both sides hold `room` elements.
    unsafe { cast(DType::F64, out.0)(room, all.as_mut_ptr().cast(), y.as_ptr()) };
    // In row-major order of the shape.
    positions(shape, out.1.strides()).iter().map(|p| all[*p + out.1.offset()]).collect()
}

fn positions(shape: &[usize], strides: &[isize]) -> Vec<usize> {
    let lead = shape.len() - strides.len();
    let n: usize = shape.iter().product();
    (0..n)
        .map(|mut i| {
            let mut p = 0isize;
            for d in (0..shape.len()).rev() {
                let at = i % shape[d];
                i /= shape[d];
                if d >= lead {
                    p += at as isize * strides[d - lead];
                }
            }
            p as usize
        })
        .collect()
}

/// The values of an operand in row-major order of the shape it broadcasts to.
fn read(shape: &[usize], i: &(DType, Layout, Vec<f64>)) -> Vec<f64> {
    let s: Vec<isize> =
        i.1.shape().iter().zip(i.1.strides()).map(|(n, s)| if *n == 1 { 0 } else { *s }).collect();
    positions(shape, &s).iter().map(|p| i.2[*p + i.1.offset()]).collect()
}

fn values(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 37 + seed * 101 + i * i % 13) % 41) as f64 - 20.0).collect()
}

#[test]
fn layouts_dtypes_and_sets_agree_with_a_plain_loop() {
    let shapes: &[(&[usize], &[usize], &[usize])] = &[
        (&[1], &[1], &[1]),
        (&[7], &[7], &[1]),
        (&[16], &[], &[16]),
        (&[3000], &[3000], &[3000]),
        (&[3000], &[3000], &[]),
        (&[50, 3], &[50, 3], &[3]),
        (&[50, 3], &[50, 1], &[50, 3]),
        (&[40, 700], &[700], &[40, 1]),
        (&[5, 1, 9], &[1, 4, 9], &[5, 4, 1]),
        (&[700, 40], &[700, 40], &[40]),
        (&[2, 3, 130], &[3, 1], &[2, 1, 130]),
        (&[200, 301], &[200, 301], &[200, 301]),
    ];
    for (out, a, b) in shapes {
        let mut shape = pyrite_core::layout::broadcast("t", a, b).unwrap().to_vec();
        if shape.iter().product::<usize>() < out.iter().product() {
            shape = out.to_vec();
        }
        for variant in 0..4 {
            // 0: dense; 1: the output transposed in memory; 2: a strided input; 3: a reversed input.
            let rank = shape.len() as i64;
            let dense = Layout::contiguous(&shape);
            let perm: Vec<i64> = (0..rank).rev().collect();
            let turned = Layout::contiguous(&shape.iter().rev().copied().collect::<Vec<_>>());
            let out_l = if variant == 1 { turned.permute(&perm).unwrap() } else { dense };
            let mut la = Layout::contiguous(a);
            if variant >= 2 && !a.is_empty() {
                let mut wide = a.to_vec();
                *wide.last_mut().unwrap() *= 2;
                let l = Layout::contiguous(&wide);
                let (d, n) = (a.len() - 1, a[a.len() - 1]);
                la = if variant == 2 {
                    l.slice(d, 1, n, 2).unwrap()
                } else {
                    l.slice(d, 2 * n - 1, n, -2).unwrap()
                };
            }
            let lb = Layout::contiguous(b);
            let room = |l: &Layout| l.extent().map_or(0, |e| e.1 as usize + 2);
            let (va, vb) = (values(room(&la), 1), values(room(&lb), 2));
            for (da, db, dout, compute) in [
                (DType::F32, DType::F32, DType::F32, DType::F32),
                (DType::F64, DType::F32, DType::F64, DType::F64),
                (DType::F16, DType::BF16, DType::F32, DType::F32),
                (DType::F32, DType::F32, DType::F16, DType::F32),
                (DType::I64, DType::I32, DType::I64, DType::I64),
                (DType::I8, DType::I8, DType::I8, DType::I8),
                (DType::U8, DType::I16, DType::I16, DType::I16),
            ] {
                let ins = [(da, la.clone(), va.clone()), (db, lb.clone(), vb.clone())];
                let fix = |d: DType, x: f64| if d == DType::U8 { x as i64 as u8 as f64 } else { x };
                let x: Vec<f64> = read(&shape, &ins[0]).iter().map(|v| fix(da, *v)).collect();
                let y = read(&shape, &ins[1]);
                for isa in SETS {
                    let got =
                        run(isa, "add", compute, &shape, (dout, out_l.clone()), &ins, &[Scalar::Float(2.0)]);
                    let want: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x + 2.0 * y).collect();
                    assert_eq!(got, want, "{shape:?} {a:?} {b:?} variant {variant} {da} {db} {isa:?}");
                    let got = run(isa, "lt", compute, &shape, (DType::Bool, out_l.clone()), &ins, &[]);
                    let want: Vec<f64> = x.iter().zip(&y).map(|(x, y)| (x < y) as u8 as f64).collect();
                    assert_eq!(got, want, "lt {shape:?} variant {variant} {da} {db} {isa:?}");
                }
            }
        }
    }
}

#[test]
fn selection_reads_a_bool_condition() {
    let n = 5000;
    let l = Layout::contiguous(&[n]);
    let c: Vec<f64> = (0..n).map(|i| (i % 3 == 0) as u8 as f64).collect();
    let ins = [
        (DType::Bool, l.clone(), c.clone()),
        (DType::F32, l.clone(), values(n, 3)),
        (DType::F32, Layout::contiguous(&[]), vec![-1.0]),
    ];
    for isa in SETS {
        let got = run(isa, "where", DType::F32, &[n], (DType::F32, l.clone()), &ins, &[]);
        let want: Vec<f64> = (0..n).map(|i| if c[i] != 0.0 { ins[1].2[i] } else { -1.0 }).collect();
        assert_eq!(got, want);
    }
}

#[test]
fn nan_rules() {
    let l = Layout::contiguous(&[4]);
    let nan = f64::NAN;
    let ins = [
        (DType::F32, l.clone(), vec![nan, 1.0, 2.0, nan]),
        (DType::F32, l.clone(), vec![1.0, nan, 1.0, nan]),
    ];
    for isa in SETS {
        let go = |name| run(isa, name, DType::F32, &[4], (DType::F32, l.clone()), &ins, &[]);
        let m = go("maximum");
        assert!(m[0].is_nan() && m[1].is_nan() && m[2] == 2.0 && m[3].is_nan());
        let m = go("fmax");
        assert!(m[0] == 1.0 && m[1] == 1.0 && m[2] == 2.0 && m[3].is_nan());
        let r = run(isa, "relu", DType::F32, &[4], (DType::F32, l.clone()), &ins[..1], &[]);
        assert!(r[0].is_nan() && r[1] == 1.0);
    }
}

/// Every row and gradient exists in f32 and f64 on every set and agrees between sets.
#[test]
fn sets_agree_on_every_formula() {
    let n = 83;
    let l = Layout::contiguous(&[n]);
    for row in pyrite_core::rows::ROWS {
        let formulas = [Formula::Forward].into_iter().chain(row.grads.iter().map(|g| Formula::Grad(g.input)));
        for f in formulas {
            if row.class == pyrite_core::rows::Class::Int {
                continue;
            }
            let k = match f {
                Formula::Forward => row.inputs.len(),
                Formula::Grad(i) => row.grad(i as usize).unwrap().uses.len() + 1,
            };
            let (lo, hi) = row.sample;
            let x: Vec<Vec<f64>> = (0..k)
                .map(|j| {
                    (0..n)
                        .map(|i| lo + (hi - lo) * (((i * 7 + j * 29) % n) as f64 + 0.5) / n as f64)
                        .collect()
                })
                .collect();
            let params: Vec<Scalar> = row.params.iter().map(|p| Scalar::Float(p.1.unwrap_or(0.3))).collect();
            let mask = row.bool_out && f == Formula::Forward;
            let mut results = Vec::new();
            for isa in SETS {
                let mut y = vec![0f64; n];
                let out = if mask { DType::Bool } else { DType::F64 };
                let mut ops = vec![Operand { ptr: y.as_mut_ptr().cast(), dtype: out, layout: &l }];
                ops.extend(x.iter().map(|v| Operand {
                    ptr: v.as_ptr().cast_mut().cast(),
                    dtype: DType::F64,
                    layout: &l,
                }));
                let plan = Plan::new("t", &[n], &ops).unwrap();
                map_on(isa.min(detect()), row.id, f, DType::F64, &plan, &params).unwrap();
                // Computing in f32 exists, too, and is close.
                let mut z = vec![0f64; n];
                ops[0].ptr = z.as_mut_ptr().cast();
                let plan = Plan::new("t", &[n], &ops).unwrap();
                map_on(isa.min(detect()), row.id, f, DType::F32, &plan, &params).unwrap();
                if !mask && row.name != "nextafter" {
                    for i in 0..n {
                        let near = (y[i] - z[i]).abs() <= 2e-3 * (1.0 + y[i].abs());
                        let jump = [
                            "sign",
                            "floor",
                            "ceil",
                            "trunc",
                            "frac",
                            "remainder",
                            "fmod",
                            "floor_divide",
                            "trunc_divide",
                        ];
                        assert!(
                            near || y[i].is_nan() || jump.contains(&row.name),
                            "{} {f:?} {isa:?} at {i}: {} {}",
                            row.name,
                            y[i],
                            z[i]
                        );
                    }
                }
                results.push(y);
            }
            for r in &results[1..] {
                for i in 0..n {
                    let (a, b) = (results[0][i], r[i]);
                    let same = if mask {
                        a.to_bits() == b.to_bits()
                    } else {
                        (a - b).abs() <= 1e-12 * (1.0 + a.abs())
                    };
                    assert!(same || (a.is_nan() && b.is_nan()), "{} {f:?} at {i}: {a} {b}", row.name);
                }
            }
        }
    }
}

#[test]
fn integers_wrap_and_do_not_trap() {
    let l = Layout::contiguous(&[4]);
    let ins = [
        (DType::I32, l.clone(), vec![7.0, -7.0, 5.0, i32::MIN as f64]),
        (DType::I32, l.clone(), vec![2.0, 2.0, 0.0, -1.0]),
    ];
    for isa in SETS {
        let go = |name| run(isa, name, DType::I32, &[4], (DType::I32, l.clone()), &ins, &[]);
        assert_eq!(go("floor_divide"), [3.0, -4.0, 0.0, i32::MIN as f64]);
        assert_eq!(go("remainder"), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(go("bitwise_and"), [2.0, 0.0, 0.0, i32::MIN as f64]);
    }
}

#[test]
fn large_outputs_take_the_streaming_path() {
    let n = (STREAM_BYTES / 4) + 1000;
    let x: Vec<f32> = (0..n).map(|i| (i % 1000) as f32).collect();
    let out = crate::alloc::Block::new(n * 4).unwrap();
    let l = Layout::contiguous(&[n]);
    let ops = [
        Operand { ptr: out.as_ptr(), dtype: DType::F32, layout: &l },
        Operand { ptr: x.as_ptr().cast_mut().cast(), dtype: DType::F32, layout: &l },
        Operand { ptr: x.as_ptr().cast_mut().cast(), dtype: DType::F32, layout: &l },
    ];
    let plan = Plan::new("t", &[n], &ops).unwrap();
    map(find("add").unwrap().id, Formula::Forward, DType::F32, &plan, &[Scalar::Int(1)]).unwrap();
    // SAFETY: the block holds n floats.
    let y = unsafe { std::slice::from_raw_parts(out.as_ptr().cast::<f32>(), n) };
    assert!(y.iter().zip(&x).all(|(y, x)| *y == 2.0 * x));
}

#[test]
fn half_operands_round_once() {
    let l = Layout::contiguous(&[100]);
    let v: Vec<f64> = (0..100).map(|i| f16::from_f64(i as f64 * 0.37).to_f64()).collect();
    let ins = [(DType::F16, l.clone(), v.clone()), (DType::F16, l.clone(), v.clone())];
    let got = run(isa(), "mul", DType::F32, &[100], (DType::BF16, l.clone()), &ins, &[]);
    for i in 0..100 {
        assert_eq!(got[i], bf16::from_f32((v[i] * v[i]) as f32).to_f64());
    }
}
