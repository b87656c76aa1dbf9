//! Convolutions against plain loops in f64, over random sizes, layouts and instruction sets.
use super::*;
use crate::gemm::tests::Rng;

const ISAS: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

fn nchw(c: usize, h: usize, w: usize) -> [isize; 4] {
    [(c * h * w) as isize, (h * w) as isize, w as isize, 1]
}

fn nhwc(c: usize, h: usize, w: usize) -> [isize; 4] {
    [(c * h * w) as isize, 1, (w * c) as isize, c as isize]
}

fn at(s: [isize; 4], i: [usize; 4]) -> usize {
    (0..4).map(|a| i[a] as isize * s[a]).sum::<isize>() as usize
}

/// Calls `f(n, k, oh, ow, c (absolute), c (in group), r, s, ih, iw)` for every multiplication.
fn each(d: &ConvDesc, mut f: impl FnMut([usize; 10])) {
    let (cg, kg) = (d.c / d.groups, d.k / d.groups);
    for n in 0..d.n {
        for k in 0..d.k {
            for oh in 0..d.oh {
                for ow in 0..d.ow {
                    for ci in 0..cg {
                        for r in 0..d.r {
                            for s in 0..d.s {
                                let ih = (oh * d.stride[0] + r * d.dil[0]).wrapping_sub(d.pad[0]);
                                let iw = (ow * d.stride[1] + s * d.dil[1]).wrapping_sub(d.pad[1]);
                                if ih < d.h && iw < d.w {
                                    f([n, k, oh, ow, k / kg * cg + ci, ci, r, s, ih, iw]);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn close<T: Number + Into<f64>>(got: &[T], want: &[f64], tol: f64, what: &str, d: &ConvDesc, isa: Isa) {
    for (i, (&g, w)) in got.iter().zip(want).enumerate() {
        let g: f64 = g.into();
        assert!((g - w).abs() <= tol * (1.0 + w.abs()), "{what} {isa:?} {d:?} at {i}: {g} not {w}");
    }
}

fn check<T: Number + Into<f64>>(d: &ConvDesc, layouts: [bool; 3], isa: Isa, rng: &mut Rng, tol: f64) {
    let (cg, taps) = (d.c / d.groups, d.r * d.s);
    let pick = |last: bool, c, h, w| if last { nhwc(c, h, w) } else { nchw(c, h, w) };
    let xs = pick(layouts[0], d.c, d.h, d.w);
    let ys = pick(layouts[1], d.k, d.oh, d.ow);
    let ws = pick(layouts[2], cg, d.r, d.s);
    let mut fill = |len: usize| (0..len).map(|_| T::from_f64(rng.unit())).collect::<Vec<T>>();
    let x = fill(d.n * d.c * d.h * d.w);
    let w = fill(d.k * cg * taps);
    let dy = fill(d.n * d.k * d.oh * d.ow);
    let b = fill(d.k);
    let bad = T::from_f64(f64::NAN);
    let (mut y, mut dx) = (vec![bad; dy.len()], vec![bad; x.len()]);
    let (mut dw, mut db) = (vec![bad; w.len()], vec![bad; d.k]);
    // SAFETY: the vectors cover sizes and strides.
    unsafe {
        forward_with(d, x.as_ptr(), xs, w.as_ptr(), ws, b.as_ptr(), y.as_mut_ptr(), ys, isa).unwrap();
        dx_with(d, dy.as_ptr(), ys, w.as_ptr(), ws, dx.as_mut_ptr(), xs, isa).unwrap();
        dw_with(d, x.as_ptr(), xs, dy.as_ptr(), ys, dw.as_mut_ptr(), db.as_mut_ptr(), isa).unwrap();
    }
    let (mut ry, mut rdx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
    let (mut rdw, mut rdb) = (vec![0.0; w.len()], vec![0.0; d.k]);
    for n in 0..d.n {
        for k in 0..d.k {
            for oh in 0..d.oh {
                for ow in 0..d.ow {
                    let i = at(ys, [n, k, oh, ow]);
                    ry[i] = b[k].into();
                    rdb[k] += dy[i].into();
                }
            }
        }
    }
    each(d, |[n, k, oh, ow, c, ci, r, s, ih, iw]| {
        let (xi, yi) = (at(xs, [n, c, ih, iw]), at(ys, [n, k, oh, ow]));
        let wi = at(ws, [k, ci, r, s]);
        ry[yi] += x[xi].into() * w[wi].into();
        rdx[xi] += dy[yi].into() * w[wi].into();
        rdw[((k * cg + ci) * d.r + r) * d.s + s] += x[xi].into() * dy[yi].into();
    });
    close(&y, &ry, tol, "y", d, isa);
    close(&dx, &rdx, tol, "dx", d, isa);
    close(&dw, &rdw, tol, "dw", d, isa);
    close(&db, &rdb, tol, "db", d, isa);
}

fn random(rng: &mut Rng) -> ConvDesc {
    loop {
        let mode = rng.below(4);
        let groups = [1, 1, 2, 3][rng.below(4)];
        let (mut c, mut k) = (groups * (1 + rng.below(9)), groups * (1 + rng.below(20)));
        let mut groups = groups;
        if mode == 0 {
            // Depthwise, sometimes with a multiplier.
            c = 1 + rng.below(20);
            groups = c;
            k = c * (1 + rng.below(2));
        }
        let mut two = |n: usize| [1 + rng.below(n), 1 + rng.below(n)];
        let ([r, s], stride, dil) = (two(5), two(3), two(2));
        let (n, pad) = (1 + rng.below(3), [rng.below(4), rng.below(4)]);
        let (h, w) = (1 + rng.below(20), 1 + rng.below(20));
        let out = |size: usize, k: usize, axis: usize| {
            let need = dil[axis] * (k - 1) + 1;
            (size + 2 * pad[axis]).checked_sub(need).map(|rest| rest / stride[axis] + 1)
        };
        if let (Some(oh), Some(ow)) = (out(h, r, 0), out(w, s, 1)) {
            return ConvDesc { n, c, h, w, k, r, s, stride, pad, dil, groups, oh, ow };
        }
    }
}

#[test]
fn random_configurations_match_plain_loops() {
    let mut rng = Rng(11);
    for &isa in ISAS.iter().filter(|&&i| i <= crate::simd::isa()) {
        for i in 0..150 {
            let d = random(&mut rng);
            let layouts = [rng.below(2) == 0, rng.below(2) == 0, rng.below(4) == 0];
            if i % 3 == 0 {
                check::<f64>(&d, layouts, isa, &mut rng, 1e-12);
            } else {
                check::<f32>(&d, layouts, isa, &mut rng, 2e-5);
            }
        }
    }
}

#[test]
fn usual_layers_match_plain_loops() {
    let mut rng = Rng(12);
    let base = ConvDesc {
        n: 2,
        c: 1,
        h: 28,
        w: 28,
        k: 6,
        r: 5,
        s: 5,
        stride: [1, 1],
        pad: [2, 2],
        dil: [1, 1],
        groups: 1,
        oh: 28,
        ow: 28,
    };
    let cases = [
        base,
        ConvDesc { c: 6, h: 14, w: 14, k: 16, pad: [0, 0], oh: 10, ow: 10, n: 20, ..base },
        ConvDesc { c: 33, h: 9, w: 11, k: 40, r: 3, s: 3, pad: [1, 1], oh: 9, ow: 11, ..base },
        ConvDesc { c: 20, h: 8, w: 8, k: 35, r: 1, s: 1, pad: [0, 0], oh: 8, ow: 8, ..base },
        ConvDesc { c: 5, h: 24, w: 25, k: 19, r: 1, s: 1, pad: [0, 0], oh: 24, ow: 25, ..base },
        ConvDesc { c: 20, h: 8, w: 8, k: 35, r: 1, s: 1, pad: [0, 0], stride: [2, 2], oh: 4, ow: 4, ..base },
        ConvDesc {
            c: 3,
            h: 32,
            w: 32,
            k: 16,
            r: 7,
            s: 7,
            pad: [3, 3],
            stride: [2, 2],
            oh: 16,
            ow: 16,
            ..base
        },
        ConvDesc { c: 24, h: 12, w: 12, k: 24, r: 3, s: 3, pad: [1, 1], groups: 24, oh: 12, ow: 12, ..base },
        ConvDesc { c: 4, h: 1, w: 50, k: 8, r: 1, s: 3, pad: [0, 1], oh: 1, ow: 50, ..base },
    ];
    for d in cases {
        for layouts in [[false; 3], [true; 3], [true, false, false]] {
            check::<f32>(&d, layouts, crate::simd::isa(), &mut rng, 5e-5);
        }
    }
}

/// Batches large enough for `side.rs`, with an incomplete last group, borders and dilation.
#[test]
fn images_side_by_side_match_plain_loops() {
    let mut rng = Rng(14);
    let base = ConvDesc {
        n: 62,
        c: 6,
        h: 12,
        w: 12,
        k: 16,
        r: 5,
        s: 5,
        stride: [1, 1],
        pad: [0, 0],
        dil: [1, 1],
        groups: 1,
        oh: 8,
        ow: 8,
    };
    let cases = [
        base,
        ConvDesc { c: 3, h: 9, w: 7, k: 5, pad: [2, 1], oh: 9, ow: 5, ..base },
        ConvDesc { c: 2, h: 5, w: 6, k: 9, pad: [5, 6], oh: 11, ow: 14, ..base },
        ConvDesc { c: 4, h: 9, w: 9, k: 3, r: 3, s: 3, pad: [1, 2], dil: [2, 3], oh: 7, ow: 7, ..base },
    ];
    for &isa in ISAS.iter().filter(|&&i| i <= crate::simd::isa()) {
        for d in cases {
            check::<f32>(&d, [false; 3], isa, &mut rng, 1e-4);
            check::<f64>(&d, [false; 3], isa, &mut rng, 1e-11);
        }
    }
}

#[test]
fn the_thread_count_does_not_change_a_bit() {
    let mut rng = Rng(13);
    let d = ConvDesc {
        n: 20,
        c: 8,
        h: 20,
        w: 20,
        k: 24,
        r: 3,
        s: 3,
        stride: [1, 1],
        pad: [1, 1],
        dil: [1, 1],
        groups: 1,
        oh: 20,
        ow: 20,
    };
    let (xs, ys, ws) = (nchw(8, 20, 20), nchw(24, 20, 20), nchw(8, 3, 3));
    let x: Vec<f32> = (0..20 * 8 * 400).map(|_| rng.unit() as f32).collect();
    let dy: Vec<f32> = (0..20 * 24 * 400).map(|_| rng.unit() as f32).collect();
    let w: Vec<f32> = (0..24 * 72).map(|_| rng.unit() as f32).collect();
    let run = |threads: usize| {
        pool::with_threads(threads, || {
            let mut out = vec![f32::NAN; dy.len() + x.len() + w.len() + 24];
            let (y, rest) = out.split_at_mut(dy.len());
            let (dx, rest) = rest.split_at_mut(x.len());
            let (dw, db) = rest.split_at_mut(w.len());
            // SAFETY: the slices cover sizes and strides.
            unsafe {
                let none = std::ptr::null();
                conv2d_forward(&d, x.as_ptr(), xs, w.as_ptr(), ws, none, y.as_mut_ptr(), ys).unwrap();
                conv2d_dx(&d, dy.as_ptr(), ys, w.as_ptr(), ws, dx.as_mut_ptr(), xs).unwrap();
                conv2d_dw(&d, x.as_ptr(), xs, dy.as_ptr(), ys, dw.as_mut_ptr(), db.as_mut_ptr()).unwrap();
            }
            out
        })
    };
    let (one, three) = (run(1), run(3));
    assert!(one.iter().zip(&three).all(|(a, b)| a.to_bits() == b.to_bits()));
}
