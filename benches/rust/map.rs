//! Elementwise work and reductions at three sizes: `cargo bench -p pyrite-cpu --bench map`.
//! `PYRITE_NUM_THREADS=1` for one thread. Throughput is in elements.

#![allow(clippy::unwrap_used)] // A bench that cannot start has nothing to report.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pyrite_core::backend::{ArgOp, Formula, ReduceOp, ScanOp};
use pyrite_core::plan::{Operand, Plan};
use pyrite_core::rows::{find, reductions::id};
use pyrite_core::{Arr, Backend, DType, Layout, Scalar, Storage};

fn array(cpu: &dyn Backend, n: usize) -> Storage {
    let s = cpu.alloc(n * 4).unwrap();
    for i in 0..n {
        let v = ((i * 7919) % 4001) as f32 / 1000.0 - 2.0;
        // SAFETY: n floats were allocated.
        unsafe { s.ptr().cast::<f32>().add(i).write(v) };
    }
    s
}

fn elementwise(c: &mut Criterion) {
    let cpu = pyrite_cpu::cpu();
    for name in ["add", "where", "relu", "exp", "tanh", "gelu_erf"] {
        let mut group = c.benchmark_group(name);
        for n in [1_000usize, 1_000_000, 10_000_000] {
            let row = find(name).unwrap();
            let l = Layout::contiguous(&[n]);
            let bufs: Vec<Storage> = (0..row.inputs.len() + 1).map(|_| array(cpu, n)).collect();
            let params = vec![Scalar::Float(1.0); row.params.len()];
            let cond = cpu.alloc_zeroed(n).unwrap();
            group.throughput(Throughput::Elements(n as u64));
            group.bench_function(BenchmarkId::from_parameter(n), |b| {
                b.iter(|| {
                    let mut ops: Vec<Operand> = bufs
                        .iter()
                        .map(|s| Operand { ptr: s.ptr(), dtype: DType::F32, layout: &l })
                        .collect();
                    if name == "where" {
                        ops[1] = Operand { ptr: cond.ptr(), dtype: DType::Bool, layout: &l };
                    }
                    let plan = Plan::new(name, &[n], &ops).unwrap();
                    cpu.map(row.id, Formula::Forward, DType::F32, &plan, &params).unwrap();
                })
            });
        }
    }
}

fn reductions(c: &mut Criterion) {
    let cpu = pyrite_cpu::cpu();
    let ops = ["sum", "amax", "std", "argmax", "cumsum", "sort", "transpose"];
    for name in ops {
        let mut group = c.benchmark_group(name);
        group.sample_size(20);
        for n in [1_000usize, 1_000_000, 10_000_000] {
            // A square-ish matrix for the transposition, one line for everything else.
            let (x, y, z) = (array(cpu, n), array(cpu, n), cpu.alloc(n * 8).unwrap());
            let one = |s: &Storage, d: DType| Arr { ptr: s.ptr(), dtype: d, shape: &[1], strides: &[1] };
            let shape = [n];
            let all = |s: &Storage, d: DType| Arr { ptr: s.ptr(), dtype: d, shape: &shape, strides: &[1] };
            let src = all(&x, DType::F32);
            let sides = [n / 1000, 1000];
            let back = [1, (n / 1000) as isize];
            group.throughput(Throughput::Elements(n as u64));
            group.bench_function(BenchmarkId::from_parameter(n), |b| {
                b.iter(|| match name {
                    "sum" => cpu.reduce(ReduceOp::Row(id::SUM), one(&y, DType::F32), None, src, &[]),
                    "amax" => cpu.reduce(ReduceOp::Row(id::AMAX), one(&y, DType::F32), None, src, &[]),
                    "std" => cpu.reduce(ReduceOp::Std, one(&y, DType::F32), None, src, &[1.0]),
                    "argmax" => cpu.arg_reduce(ArgOp::Max, one(&z, DType::I64), None, src, 0),
                    "cumsum" => cpu.scan(ScanOp::Sum, all(&y, DType::F32), None, src, 0),
                    "sort" => cpu.sort(all(&y, DType::F32), all(&z, DType::I64), src, 0, false),
                    _ => cpu.copy(
                        Arr { ptr: y.ptr(), dtype: DType::F32, shape: &sides, strides: &[1000, 1] },
                        Arr { ptr: x.ptr(), dtype: DType::F32, shape: &sides, strides: &back },
                    ),
                })
            });
        }
    }
}

criterion_group!(benches, elementwise, reductions);
criterion_main!(benches);
