//! Against naive f64 loops over layouts, dtypes and window shapes.
//! (`PYRITE_ISA=scalar`, `avx2` run the same tests on the other instruction sets.)
#![allow(clippy::unwrap_used)]

use super::*;
use pyrite_core::rng::word;

struct Nd {
    bytes: Vec<u8>,
    shape: [usize; 4],
    strides: [isize; 4],
    dtype: DType,
}

/// Dimension orders, outermost first, and the step of the innermost.
const LAYOUTS: [([usize; 4], isize); 4] =
    [([0, 1, 2, 3], 1), ([0, 2, 3, 1], 1), ([3, 0, 2, 1], 1), ([0, 1, 2, 3], 3)];

impl Nd {
    fn new(dtype: DType, shape: [usize; 4], layout: ([usize; 4], isize), v: impl Fn(usize) -> f64) -> Nd {
        let (mut strides, mut step) = ([0; 4], layout.1);
        for d in layout.0.into_iter().rev() {
            strides[d] = step;
            step *= shape[d] as isize;
        }
        let n: usize = shape.iter().product();
        let out = Nd { bytes: vec![0; step as usize * dtype.size()], shape, strides, dtype };
        for i in 0..n {
            let off = crate::strided::offset(&shape, &strides, i) * dtype.size() as isize;
            // SAFETY: positions of the array just made.
            unsafe {
                let p = out.bytes.as_ptr().cast_mut().offset(off);
                if dtype == DType::I64 {
                    p.cast::<i64>().write(v(i) as i64)
                } else {
                    crate::strided::write(dtype, p, v(i))
                }
            }
        }
        out
    }
    fn arr(&self) -> Arr<'_> {
        let ptr = self.bytes.as_ptr().cast_mut();
        Arr { ptr, dtype: self.dtype, shape: &self.shape, strides: &self.strides }
    }
    fn at(&self, p: [usize; 4]) -> f64 {
        let off = (0..4).map(|d| p[d] as isize * self.strides[d]).sum::<isize>() * self.dtype.size() as isize;
        // SAFETY: a position of the array.
        unsafe {
            let p = self.bytes.as_ptr().offset(off);
            if self.dtype == DType::I64 {
                p.cast::<i64>().read() as f64
            } else {
                crate::strided::read(self.dtype, p)
            }
        }
    }
}

fn positions(s: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..s.iter().product())
        .map(move |i| [i / s[3] / s[2] / s[1], i / s[3] / s[2] % s[1], i / s[3] % s[2], i % s[3]])
}

fn value(i: usize) -> f64 {
    // Few distinct values: many ties, of which the first must win.
    (word(3, 0, i as u64) % 23) as f64 - 11.0
}

fn out_size(size: usize, g: &PoolGeometry, d: usize, ceil: bool) -> usize {
    let span = size + 2 * g.pad[d] - g.dilation[d] * (g.kernel[d] - 1) - 1;
    let mut o = if ceil { span.div_ceil(g.stride[d]) } else { span / g.stride[d] } + 1;
    if ceil && (o - 1) * g.stride[d] >= size + g.pad[d] {
        o -= 1;
    }
    o
}

fn geometries() -> Vec<(PoolGeometry, bool)> {
    let g = |k, s, p, d, ceil| (PoolGeometry { kernel: k, stride: s, pad: p, dilation: d }, ceil);
    vec![
        g([2, 2], [2, 2], [0, 0], [1, 1], false),
        g([3, 3], [1, 1], [1, 1], [1, 1], false),
        g([3, 2], [2, 3], [1, 0], [1, 2], true),
        g([3, 3], [2, 2], [1, 1], [1, 1], true),
        g([1, 5], [1, 2], [0, 2], [1, 1], true),
        g([4, 3], [3, 1], [2, 0], [2, 3], false),
    ]
}

const SHAPES: [[usize; 4]; 3] = [[2, 3, 12, 14], [1, 19, 11, 37], [3, 1, 15, 9]];
const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

fn each(f: impl Fn(DType, [usize; 4], ([usize; 4], isize), ([usize; 4], isize), &PoolGeometry, bool)) {
    for (g, ceil) in geometries() {
        for d in DTYPES {
            for shape in SHAPES {
                for l in 0..LAYOUTS.len() {
                    f(d, shape, LAYOUTS[l], LAYOUTS[l], &g, ceil);
                    f(d, shape, LAYOUTS[l], LAYOUTS[(l + 1) % 4], &g, ceil);
                }
            }
        }
    }
}

#[test]
fn maximum() {
    each(|d, shape, lx, ly, g, ceil| {
        let x = Nd::new(d, shape, lx, |i| if i % 97 == 5 { f64::NAN } else { value(i) });
        let os = [shape[0], shape[1], out_size(shape[2], g, 0, ceil), out_size(shape[3], g, 1, ceil)];
        let (y, idx) = (Nd::new(d, os, ly, |_| 0.5), Nd::new(DType::I64, os, ly, |_| -7.0));
        let dy = Nd::new(d, os, ly, |i| (i % 5) as f64 - 2.0);
        let dx = Nd::new(d, shape, lx, |_| 9.0);
        run(g, Pool::Max { x: x.arr(), y: y.arr(), idx: Some(idx.arr()) }).unwrap();
        run(g, Pool::MaxBackward { dy: dy.arr(), idx: idx.arr(), dx: dx.arr() }).unwrap();
        let mut grad = vec![0.0; shape.iter().product()];
        for p in positions(os) {
            let (mut best, mut at) = (f64::NEG_INFINITY, None);
            for r in 0..g.kernel[0] {
                for c in 0..g.kernel[1] {
                    let i = (p[2] * g.stride[0] + r * g.dilation[0]) as isize - g.pad[0] as isize;
                    let j = (p[3] * g.stride[1] + c * g.dilation[1]) as isize - g.pad[1] as isize;
                    if i < 0 || j < 0 || i >= shape[2] as isize || j >= shape[3] as isize {
                        continue;
                    }
                    let v = x.at([p[0], p[1], i as usize, j as usize]);
                    if at.is_none() || v > best || v.is_nan() {
                        (best, at) = (v, Some(i as usize * shape[3] + j as usize));
                    }
                }
            }
            let (got, at) = (y.at(p), at.unwrap());
            assert!(got == best || got.is_nan() && best.is_nan(), "{d} {p:?} {g:?}: {got} {best}");
            assert_eq!(idx.at(p), at as f64, "{d} {p:?} {g:?} {shape:?}");
            grad[((p[0] * shape[1]) + p[1]) * shape[2] * shape[3] + at] += dy.at(p);
        }
        for (p, want) in positions(shape).zip(grad) {
            assert_eq!(dx.at(p), want, "{d} {p:?}");
        }
    });
}

fn average(
    make: impl Fn(&PoolGeometry, [usize; 4], [usize; 4], [usize; 4]) -> Vec<([usize; 2], f64)>,
    kind: u8,
) {
    each(|d, shape, lx, ly, g, ceil| {
        if g.dilation != [1, 1] {
            return;
        }
        let x = Nd::new(d, shape, lx, value);
        let os = match kind {
            2 => [shape[0], shape[1], 5, 4],
            _ => [shape[0], shape[1], out_size(shape[2], g, 0, ceil), out_size(shape[3], g, 1, ceil)],
        };
        let (y, dy) = (Nd::new(d, os, ly, |_| 0.5), Nd::new(d, os, ly, |i| (i % 5) as f64 - 2.0));
        let dx = Nd::new(d, shape, lx, |_| 9.0);
        let (count_pad, divisor) = (kind == 0, (kind == 3).then_some(3.0));
        if kind == 2 {
            run(g, Pool::AdaptiveAvg { x: x.arr(), y: y.arr() }).unwrap();
            run(g, Pool::AdaptiveAvgBackward { dy: dy.arr(), dx: dx.arr() }).unwrap();
        } else {
            run(g, Pool::Avg { x: x.arr(), y: y.arr(), count_pad, divisor }).unwrap();
            run(g, Pool::AvgBackward { dy: dy.arr(), dx: dx.arr(), count_pad, divisor }).unwrap();
        }
        let tol = match d {
            DType::F16 => 4e-3,
            DType::BF16 => 4e-2,
            _ => 1e-5,
        };
        let near = |a: f64, b: f64| (a - b).abs() <= tol * b.abs().max(1.0);
        let mut grad = vec![0.0; shape.iter().product()];
        for p in positions(os) {
            let mut s = 0.0;
            for ([i, j], factor) in make(g, shape, os, p) {
                s += x.at([p[0], p[1], i, j]) * factor;
                grad[((p[0] * shape[1] + p[1]) * shape[2] + i) * shape[3] + j] += dy.at(p) * factor;
            }
            assert!(near(y.at(p), s), "{d} {p:?} {g:?}: {} {s}", y.at(p));
        }
        for (p, want) in positions(shape).zip(grad) {
            assert!(near(dx.at(p), want), "{d} {p:?} {g:?}: {} {want}", dx.at(p));
        }
    });
}

/// The taps of a window of fixed size, each with its weight.
fn fixed(
    g: &PoolGeometry,
    x: [usize; 4],
    p: [usize; 4],
    count_pad: bool,
    divisor: Option<f64>,
) -> Vec<([usize; 2], f64)> {
    let range = |d: usize| {
        let a = (p[2 + d] * g.stride[d]) as isize - g.pad[d] as isize;
        (a, (a + g.kernel[d] as isize).min((x[2 + d] + g.pad[d]) as isize))
    };
    let ((a, b), (c, e)) = (range(0), range(1));
    let mut taps = vec![];
    for i in a.max(0)..b.min(x[2] as isize) {
        for j in c.max(0)..e.min(x[3] as isize) {
            taps.push([i as usize, j as usize]);
        }
    }
    let n = if count_pad { ((b - a) * (e - c)) as f64 } else { taps.len() as f64 };
    taps.into_iter().map(|t| (t, 1.0 / divisor.unwrap_or(n))).collect()
}

#[test]
fn averages() {
    average(|g, x, _, p| fixed(g, x, p, true, None), 0);
    average(|g, x, _, p| fixed(g, x, p, false, None), 1);
    average(|g, x, _, p| fixed(g, x, p, false, Some(3.0)), 3);
    average(
        |_, x, o, p| {
            let range = |d: usize| (p[d] * x[d] / o[d], ((p[d] + 1) * x[d]).div_ceil(o[d]));
            let ((a, b), (c, e)) = (range(2), range(3));
            let n = ((b - a) * (e - c)) as f64;
            (a..b).flat_map(|i| (c..e).map(move |j| ([i, j], 1.0 / n))).collect()
        },
        2,
    );
}

#[test]
fn bad_arguments_are_errors() {
    let x = Nd::new(DType::F32, [1, 1, 4, 4], LAYOUTS[0], value);
    let y = Nd::new(DType::F32, [1, 1, 2, 2], LAYOUTS[0], value);
    let idx = Nd::new(DType::I64, [1, 1, 2, 2], LAYOUTS[0], |_| 16.0);
    let g = PoolGeometry { kernel: [2, 2], stride: [2, 2], pad: [0, 0], dilation: [1, 1] };
    let e = run(&g, Pool::MaxBackward { dy: y.arr(), idx: idx.arr(), dx: x.arr() });
    assert_eq!(e.unwrap_err().kind(), pyrite_core::Kind::Index);
    let far = PoolGeometry { kernel: [2, 2], stride: [9, 9], pad: [0, 0], dilation: [1, 1] };
    assert!(run(&far, Pool::Max { x: x.arr(), y: y.arr(), idx: None }).is_err());
    assert!(
        run(&PoolGeometry { stride: [0, 1], ..g }, Pool::Max { x: x.arr(), y: y.arr(), idx: None }).is_err()
    );
    assert!(run(&g, Pool::Max { x: idx.arr(), y: idx.arr(), idx: None }).is_err());
}
