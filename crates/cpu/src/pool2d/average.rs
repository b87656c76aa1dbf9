//! Average pooling, fixed and adaptive windows: each axis is a list of ranges, so that both are one
//! kernel.

use super::Planes;
use crate::oom;
use crate::pool::{chunks, parallel, with_scratch};
use crate::simd::{Arch, ArchKernel, Lanes, dispatch};
use crate::strided::Compute;
use pyrite_core::backend::PoolGeometry;
use pyrite_core::{Arr, Result};

/// Ranges of each output row and column, and the size that each contributes to the divisor.
pub struct Windows {
    rows: Vec<(usize, usize, usize)>,
    cols: Vec<(usize, usize, usize)>,
    divisor: Option<f64>,
}

impl Windows {
    /// Windows of one size.
    pub fn fixed(g: &PoolGeometry, x: &Arr, y: &Arr, count_pad: bool, divisor: Option<f64>) -> Windows {
        let axis = |d: usize| {
            let (size, out) = (x.shape[2 + d], y.shape[2 + d]);
            (0..out)
                .map(|o| {
                    let start = (o * g.stride[d]) as isize - g.pad[d] as isize;
                    // A window may reach into the padding, not beyond it.
                    let end = (start + g.kernel[d] as isize).min((size + g.pad[d]) as isize);
                    let (a, b) = (start.clamp(0, size as isize), end.clamp(0, size as isize));
                    let b = b.max(a);
                    let count = if count_pad { end - start } else { b - a };
                    (a as usize, b as usize, count.max(0) as usize)
                })
                .collect()
        };
        Windows { rows: axis(0), cols: axis(1), divisor }
    }
    /// Windows from floor(i * in / out) to ceil((i + 1) * in / out).
    pub fn adaptive(x: &Arr, y: &Arr) -> Windows {
        let axis = |d: usize| {
            let (size, out) = (x.shape[2 + d], y.shape[2 + d]);
            (0..out)
                .map(|o| {
                    let (a, b) = (o * size / out, ((o + 1) * size).div_ceil(out));
                    (a, b, b - a)
                })
                .collect()
        };
        Windows { rows: axis(0), cols: axis(1), divisor: None }
    }
    /// One over the divisor of a window.
    #[inline(always)]
    fn factor(&self, i: usize, j: usize) -> f64 {
        match self.divisor {
            Some(d) => 1.0 / d,
            None => 1.0 / (self.rows[i].2 * self.cols[j].2) as f64,
        }
    }
    /// Elements all windows of a plane read, about.
    fn taps(&self) -> usize {
        let sum = |v: &[(usize, usize, usize)]| v.iter().map(|w| w.1 - w.0).sum::<usize>();
        sum(&self.rows) * sum(&self.cols)
    }
}

pub fn forward<T: Compute>(w: &Windows, x: &Arr, y: &Arr) -> Result<()> {
    run::<T>(w, Planes::new(x), Planes::new(y), x.shape[0], false)
}

pub fn backward<T: Compute>(w: &Windows, dy: &Arr, dx: &Arr) -> Result<()> {
    run::<T>(w, Planes::new(dx), Planes::new(dy), dx.shape[0], true)
}

/// `x` is the large side, `y` the pooled one; `back` goes from `y` to `x`.
fn run<T: Compute>(w: &Windows, x: Planes, y: Planes, n: usize, back: bool) -> Result<()> {
    let failed = std::sync::Mutex::new(None);
    let fail = |e| *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(oom(e));
    let work = (n * x.c) as u64 * (w.taps() + x.len()) as u64 / 4;
    if x.pixels::<T>() && y.pixels::<T>() {
        let blocks = if n >= 8 { (1, x.c) } else { chunks(x.c, 16) };
        let jobs = n * blocks.0;
        let (k, each) = chunks(jobs, (8192 / (x.len() * blocks.1).max(1)).max(1));
        parallel(k, work, &|q| {
            for job in q * each..jobs.min((q + 1) * each) {
                let (n, c) = (job / blocks.0, job % blocks.0 * blocks.1);
                let m = blocks.1.min(x.c - c);
                dispatch(Pixels::<T> { w, x: &x, y: &y, n, c, m, back, marker: std::marker::PhantomData });
            }
        });
    } else {
        let planes = n * x.c;
        let (k, each) = chunks(planes, (8192 / x.len().max(1)).max(1));
        let stage = x.len() + y.len();
        parallel(k, work, &|q| {
            let done = with_scratch((x.w + 16 + stage) * size_of::<T>(), |s| {
                let (from, to) = (q * each, planes.min((q + 1) * each));
                dispatch(Plane { w, x: &x, y: &y, back, from, to, s: s.cast::<T>() });
            });
            if let Err(e) = done {
                fail(e);
            }
        });
    }
    failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

struct Plane<'a, T> {
    w: &'a Windows,
    x: &'a Planes,
    y: &'a Planes,
    back: bool,
    from: usize,
    to: usize,
    s: *mut T,
}

/// `acc[i] (+)= row[i]`, `n` elements.
/// # Safety
/// Both have `n` elements.
#[inline(always)]
unsafe fn add_row<A: Arch, T: Compute>(acc: *mut T, row: *const T, n: usize) {
    let mut i = 0;
    while i < n {
        let m = T::V::<A>::N.min(n - i);
        // SAFETY: elements below n.
        unsafe {
            let zero = T::of(0.0);
            if m == T::V::<A>::N {
                (T::V::<A>::load(acc.add(i)) + T::V::<A>::load(row.add(i))).store(acc.add(i));
            } else {
                let v = T::V::<A>::load_partial(acc.add(i), m, zero)
                    + T::V::<A>::load_partial(row.add(i), m, zero);
                v.store_partial(acc.add(i), m);
            }
        }
        i += m;
    }
}

impl<T: Compute> ArchKernel for Plane<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let (w, xw) = (self.w, self.x.w);
        let acc = self.s;
        let stage = self.s.wrapping_add(xw + 16);
        let other = stage.wrapping_add(self.x.len());
        for q in self.from..self.to {
            // SAFETY: plane q of both; a row and a plane of each in scratch; windows are inside.
            unsafe {
                if self.back {
                    let dy = self.y.get(q, other);
                    let dx = self.x.out(q, stage);
                    std::ptr::write_bytes(dx, 0, self.x.len());
                    for (i, &(ra, rb, _)) in w.rows.iter().enumerate() {
                        // What one output row gives to every row of its windows.
                        std::ptr::write_bytes(acc, 0, xw);
                        for (j, &(ca, cb, _)) in w.cols.iter().enumerate() {
                            let v = T::of((*dy.add(i * self.y.w + j)).f64() * w.factor(i, j));
                            for c in ca..cb {
                                *acc.add(c) = T::plus(*acc.add(c), v);
                            }
                        }
                        for r in ra..rb {
                            add_row::<A, T>(dx.add(r * xw), acc, xw);
                        }
                    }
                    self.x.put(q, stage);
                } else {
                    let x = self.x.get(q, stage);
                    let y = self.y.out(q, other);
                    for (i, &(ra, rb, _)) in w.rows.iter().enumerate() {
                        // Rows first, then stretches of their sum.
                        std::ptr::write_bytes(acc, 0, xw);
                        for r in ra..rb {
                            add_row::<A, T>(acc, x.add(r * xw), xw);
                        }
                        for (j, &(ca, cb, _)) in w.cols.iter().enumerate() {
                            let mut s = 0.0;
                            for c in ca..cb {
                                s += (*acc.add(c)).f64();
                            }
                            *y.add(i * self.y.w + j) = T::of(s * w.factor(i, j));
                        }
                    }
                    self.y.put(q, other);
                }
            }
        }
    }
}

/// One image's channels `c..c + m`, channels-last.
struct Pixels<'a, T> {
    w: &'a Windows,
    x: &'a Planes,
    y: &'a Planes,
    n: usize,
    c: usize,
    m: usize,
    back: bool,
    marker: std::marker::PhantomData<T>,
}

impl<T: Compute> ArchKernel for Pixels<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        use pyrite_core::expr::Any;
        let (w, n, zero) = (self.w, self.n, T::of(0.0));
        if self.back {
            for r in 0..self.x.h {
                for s in 0..self.x.w {
                    // SAFETY: m channels of a position of the gradient.
                    unsafe { std::ptr::write_bytes(self.x.pixel::<T>(n, r, s).add(self.c), 0, self.m) };
                }
            }
        }
        for (i, &(ra, rb, _)) in w.rows.iter().enumerate() {
            for (j, &(ca, cb, _)) in w.cols.iter().enumerate() {
                let small = self.y.pixel::<T>(n, i, j).wrapping_add(self.c);
                let factor = T::V::<A>::lit(w.factor(i, j));
                let mut k = 0;
                while k < self.m {
                    let len = T::V::<A>::N.min(self.m - k);
                    // SAFETY: `len` channels from `c + k` on of positions inside both.
                    unsafe {
                        let large = |r: usize, s: usize| self.x.pixel::<T>(n, r, s).add(self.c + k);
                        if self.back {
                            let v = T::V::<A>::load_partial(small.add(k), len, zero) * factor;
                            for r in ra..rb {
                                for s in ca..cb {
                                    let p = large(r, s);
                                    (T::V::<A>::load_partial(p, len, zero) + v).store_partial(p, len);
                                }
                            }
                        } else {
                            let mut v = T::V::<A>::lit(0.0);
                            for r in ra..rb {
                                for s in ca..cb {
                                    v = v + T::V::<A>::load_partial(large(r, s), len, zero);
                                }
                            }
                            (v * factor).store_partial(small.add(k), len);
                        }
                    }
                    k += len;
                }
            }
        }
    }
}
