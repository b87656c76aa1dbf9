//! Matrix products against the `gemm` crate: `cargo bench -p pyrite-cpu --bench gemm`.
//! Criterion prints the throughput in multiply-adds (Gelem/s; GFLOP/s is twice that).

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pyrite_cpu::gemm::{Gemm, Num, gemm as product};
use pyrite_cpu::pool;

fn filled(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 1000) as f32 * 1e-3 - 0.5).collect()
}

fn ours(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    let g = Gemm::new(
        Num::F32,
        (m, n, k),
        (a.as_ptr().cast(), k as isize, 1),
        (b.as_ptr().cast(), n as isize, 1),
        (c.as_mut_ptr().cast(), n as isize, 1),
    );
    // SAFETY: the slices hold m x k, k x n and m x n elements.
    if let Err(e) = unsafe { product(&g) } {
        panic!("{e}");
    }
}

fn theirs(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32], threads: usize) {
    let par = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    let (ni, ki) = (n as isize, k as isize);
    // SAFETY: the slices hold m x k, k x n and m x n elements.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            ni,
            false,
            a.as_ptr(),
            1,
            ki,
            b.as_ptr(),
            1,
            ni,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            par,
        )
    }
}

fn products(criterion: &mut Criterion) {
    for threads in [1, 2] {
        pool::set_num_threads(threads);
        let mut group = criterion.benchmark_group(format!("gemm_f32_{threads}_threads"));
        group.sample_size(20);
        for (m, k, n) in [
            (32, 8, 16),
            (64, 64, 64),
            (256, 256, 256),
            (1024, 1024, 1024),
            (2048, 2048, 2048),
            (64, 784, 512),
            (4096, 64, 64),
            (1, 4096, 4096),
            (8, 4096, 4096),
        ] {
            let (a, b, mut c) = (filled(m * k), filled(k * n), vec![0.0; m * n]);
            let name = format!("{m}x{k}x{n}");
            group.throughput(Throughput::Elements((m * n * k) as u64));
            group.bench_function(BenchmarkId::new("pyrite", &name), |t| {
                t.iter(|| ours(m, n, k, black_box(&a), black_box(&b), &mut c))
            });
            group.bench_function(BenchmarkId::new("gemm crate", &name), |t| {
                t.iter(|| theirs(m, n, k, black_box(&a), black_box(&b), &mut c, threads))
            });
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
