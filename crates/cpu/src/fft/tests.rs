//! Against the sum itself, over kinds, lengths, strides, cutting and filling.

#![allow(clippy::unwrap_used)] // a test that panics has failed

use super::run;
use pyrite_core::backend::{Fft, FftKind};
use pyrite_core::{Arr, DType};

type C = (f64, f64);

/// The definition.
fn dft(x: &[C], n: usize, forward: bool) -> Vec<C> {
    let sign = if forward { -1.0 } else { 1.0 };
    (0..n)
        .map(|k| {
            x.iter().enumerate().fold((0.0, 0.0), |s, (j, v)| {
                let a = sign * std::f64::consts::TAU * ((j * k) % n) as f64 / n as f64;
                (s.0 + v.0 * a.cos() - v.1 * a.sin(), s.1 + v.0 * a.sin() + v.1 * a.cos())
            })
        })
        .collect()
}

fn noise(i: usize) -> f64 {
    ((i as f64 * 12.9898).sin() * 43758.547).fract() - 0.5
}

fn fit(mut x: Vec<C>, n: usize) -> Vec<C> {
    x.resize(n, (0.0, 0.0));
    x
}

/// What the kernel should give for one line.
fn expected(kind: FftKind, x: &[C], n: usize, out: usize, forward: bool, scale: f64, inner: f64) -> Vec<C> {
    let half = n / 2 + 1;
    let mirror = |k: usize| if k == 0 || 2 * k == n { 1.0 } else { inner };
    let y = match kind {
        FftKind::Complex => dft(&fit(x.to_vec(), n), n, forward),
        FftKind::RealToHalf => {
            let y = dft(&fit(x.to_vec(), n), n, forward);
            y[..half].iter().enumerate().map(|(k, v)| (v.0 * mirror(k), v.1 * mirror(k))).collect()
        }
        FftKind::HalfToReal => {
            let h = fit(x.to_vec(), half);
            let mut full = vec![(0.0, 0.0); n];
            for k in 0..half {
                let v = (
                    h[k].0 * mirror(k),
                    if mirror(k) == 1.0 && (k == 0 || 2 * k == n) { 0.0 } else { h[k].1 * mirror(k) },
                );
                full[k] = v;
                if k != 0 && 2 * k != n {
                    full[n - k] = (v.0, -v.1);
                }
            }
            dft(&full, n, forward)
        }
    };
    fit(y.into_iter().map(|v| (v.0 * scale, v.1 * scale)).collect(), out)
}

#[test]
fn every_kind_against_the_sum() {
    let kinds = [
        (FftKind::Complex, DType::C128, DType::C128),
        (FftKind::Complex, DType::F64, DType::C128),
        (FftKind::Complex, DType::C128, DType::F64),
        (FftKind::RealToHalf, DType::F64, DType::C128),
        (FftKind::HalfToReal, DType::C128, DType::F64),
    ];
    for (kind, from, to) in kinds {
        for n in [1usize, 2, 3, 4, 5, 8, 12, 17, 30, 64, 97] {
            for (len, out) in [(n, n), (n / 2 + 1, n), (n, n / 2 + 1), (n + 3, n + 2), (1, 1)] {
                for (dim, forward) in [(0, true), (1, false), (2, true)] {
                    check(kind, from, to, n, len, out, dim, forward);
                }
            }
        }
    }
}

fn check(kind: FftKind, from: DType, to: DType, n: usize, len: usize, out: usize, dim: usize, forward: bool) {
    let (mut shape, mut shape2) = ([3usize, 2, 5], [3usize, 2, 5]);
    shape[dim] = len;
    shape2[dim] = out;
    let parts = |d: DType| if d.is_complex() { 2usize } else { 1 };
    // Dimensions in a permuted order in memory, the source also backwards.
    let strides = |s: &[usize; 3]| [s[2] as isize, (s[0] * s[2]) as isize, 1];
    let (st, st2) = (strides(&shape), strides(&shape2));
    let total: usize = shape.iter().product();
    let mut x: Vec<f64> = (0..total * parts(from)).map(noise).collect();
    let mut y = vec![9.0; shape2.iter().product::<usize>() * parts(to)];
    let back = [-st[0], st[1], st[2]];
    let start = st[0] * (shape[0] as isize - 1);
    let (scale, inner) = (0.25, 1.5);
    run(&Fft {
        kind,
        dst: Arr { ptr: y.as_mut_ptr().cast(), dtype: to, shape: &shape2, strides: &st2 },
        src: Arr {
            ptr: x.as_mut_ptr().wrapping_offset(start * parts(from) as isize).cast(),
            dtype: from,
            shape: &shape,
            strides: &back,
        },
        dim,
        n,
        forward,
        scale,
        inner,
    })
    .unwrap();
    let others: Vec<usize> = (0..3).filter(|d| *d != dim).collect();
    for a in 0..shape[others[0]] {
        for b in 0..shape[others[1]] {
            let at = |s: &[isize; 3], k: usize| {
                s[others[0]] * a as isize + s[others[1]] * b as isize + s[dim] * k as isize
            };
            let line: Vec<C> = (0..len)
                .map(|k| {
                    let i = (start + at(&back, k)) as usize * parts(from);
                    (x[i], if parts(from) == 2 { x[i + 1] } else { 0.0 })
                })
                .collect();
            let want = expected(kind, &line, n, out, forward, scale, inner);
            for (k, w) in want.iter().enumerate() {
                let i = at(&st2, k) as usize * parts(to);
                let got = (y[i], if parts(to) == 2 { y[i + 1] } else { w.1 });
                let error = (got.0 - w.0).abs().max((got.1 - w.1).abs());
                assert!(
                    error < 1e-13 * n as f64,
                    "{kind:?} n {n} len {len} out {out} dim {dim} k {k}: {got:?} {w:?}"
                );
            }
        }
    }
}
