//! Batch norm's sums per channel: statistics, or what the gradient needs.

use super::super::vector::{BLOCK, Plain, Spread, sum, sum_and_product};
use super::super::{Failed, pad};
use super::{Chan, Grid, View};
use crate::alloc::Block;
use crate::oom;
use crate::pool::{chunks, parallel};
use crate::simd::{Arch, ArchKernel, FloatLanes, Lanes, dispatch};
use crate::strided::{Compute, Ptr};
use pyrite_core::expr::Any;
use pyrite_core::{Arr, Result};
use std::ptr::null;

/// Two f64 sums per channel: mean and sum of squared differences from it, or the gradient's.
pub(super) struct Sums {
    block: Block,
    c: usize,
}
impl Sums {
    pub fn get(&self, which: usize, c: usize) -> f64 {
        debug_assert!(which < 2 && c < self.c);
        // SAFETY: two rows of c numbers.
        unsafe { *self.block.as_ptr().cast::<f64>().add(which * self.c + c) }
    }
}

/// Statistics of `x` (without `dy`), or the sums of `dy` and `dy * (x - mean)`. `then` (not for strips of
/// channels) is called with a channel and its sums by the task that made them.
pub(super) fn sums<T: Compute>(
    g: &Grid,
    x: &Arr,
    dy: Option<&Arr>,
    mean: Option<&Chan<T>>,
    then: Option<&(dyn Fn(usize, f64, f64) + Sync)>,
) -> Result<Sums> {
    // Parts are fixed by the sizes: channels for NCHW, stretches of positions for channels-last.
    let (strips, len) = g.strips();
    let (parts, each) = if g.last {
        let most = strips.div_ceil(16).max((16384 / len.max(1)).max(1));
        (strips.div_ceil(most.max(1)).max(1), most)
    } else {
        (g.n.clamp(1, (64 / g.c.max(1)).max(1)), 0)
    };
    // Per part: count is implied; two rows of c numbers.
    let block = Block::zeroed((parts + 1) * 2 * g.c.max(1) * 8).map_err(oom)?;
    let base = Ptr(block.as_ptr().cast::<f64>());
    let row = 2 * g.c;
    let scratch = if g.last { 2 * rows_of(len) * pad(len) + 4 * pad(len) } else { 2 * pad(len.min(BLOCK)) };
    let (xv, dv) = (View::new(x), dy.map(View::new));
    let mean = mean.map(|m| Ptr(m.ptr()));
    let failed = Failed::default();
    let stats = dy.is_none();
    // The sums of a channel from those of its parts, in their order.
    let joined = |c: usize| {
        let mut m = Moments::default();
        for q in 0..parts {
            let count = if g.last {
                strips.min((q + 1) * each).saturating_sub(q * each)
            } else {
                (g.n * (q + 1) / parts - g.n * q / parts) * g.l
            };
            let p = base.get();
            // SAFETY: part q's numbers of channel c, which are complete.
            let (a, b) = unsafe { (*p.add((q + 1) * row + c), *p.add((q + 1) * row + g.c + c)) };
            m.join(stats, Moments { n: count as f64, a, b });
        }
        m
    };
    // With `then` a task takes whole channels.
    let whole = if then.is_some() { parts } else { 1 };
    let (jobs, per) = if g.last {
        (parts, 1)
    } else {
        chunks(parts * g.c / whole, 1 + 8192 / (g.l * g.n * whole / parts).max(1))
    };
    let per = per * whole;
    parallel(jobs, (g.n * g.c * g.l) as u64 / 2, &|j| {
        let done = crate::pool::with_scratch(scratch * size_of::<T>(), |s| {
            let s = s.cast::<T>();
            if g.last {
                let (from, to) = (j * each, strips.min((j + 1) * each));
                let out = base.get().wrapping_add((j + 1) * row);
                return dispatch(Last { g, x: xv, dy: dv, mean, from, to, s, out });
            }
            for q in j * per..(parts * g.c).min((j + 1) * per) {
                let (c, part) = (q / parts, q % parts);
                let (from, to) = (g.n * part / parts, g.n * (part + 1) / parts);
                let out = base.get().wrapping_add((part + 1) * row);
                dispatch(Plane { g, x: xv, dy: dv, mean, c, from, to, s, out });
                if let (Some(then), true) = (then, part + 1 == parts) {
                    let m = joined(c);
                    then(c, m.a, m.b);
                }
            }
        });
        if let Err(e) = done {
            failed.set(oom(e));
        }
    });
    failed.result()?;
    let out = Sums { block, c: g.c };
    let p = base.get();
    for c in 0..g.c {
        let m = joined(c);
        // SAFETY: the first two rows of c numbers, which no part uses.
        unsafe {
            *p.add(c) = if m.n == 0.0 && stats { f64::NAN } else { m.a };
            *p.add(g.c + c) = m.b;
        }
    }
    Ok(out)
}

/// Count, mean and squared differences (`stats`), or two plain sums.
#[derive(Clone, Copy, Default)]
struct Moments {
    n: f64,
    a: f64,
    b: f64,
}
impl Moments {
    #[inline(always)]
    fn join(&mut self, stats: bool, o: Moments) {
        if !stats {
            self.a += o.a;
            self.b += o.b;
        } else if o.n > 0.0 {
            let n = self.n + o.n;
            let d = o.a - self.a;
            self.b += o.b + d * d * (self.n * o.n / n);
            self.a += d * (o.n / n);
        }
        self.n += o.n;
    }
}

/// One channel's dense stretches.
struct Plane<'a, T> {
    g: &'a Grid,
    x: View,
    dy: Option<View>,
    mean: Option<Ptr<T>>,
    c: usize,
    from: usize,
    to: usize,
    s: *mut T,
    out: *mut f64,
}

impl<T: Compute> ArchKernel for Plane<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let g = self.g;
        let mut total = Moments::default();
        // SAFETY: strips of the arrays, cut into stretches of at most BLOCK elements, for which the
        // scratch has room twice; channel c of the means and of the part's sums.
        unsafe {
            for n in self.from..self.to {
                let strip = n * g.c + self.c;
                let (xp, xs) = g.at(&self.x, strip);
                let mut i = 0;
                while i < g.l {
                    let m = BLOCK.min(g.l - i);
                    let at = |p: *mut u8, s: isize, v: &View| {
                        (p.wrapping_offset(i as isize * s * v.dtype.size() as isize), s)
                    };
                    let x = self.x.dense(at(xp, xs, &self.x), m, self.s);
                    match (&self.dy, self.mean) {
                        (Some(dv), Some(mean)) => {
                            let (dp, ds) = g.at(dv, strip);
                            let dy = dv.dense(at(dp, ds, dv), m, self.s.add(pad(m)));
                            let mean = T::V::<A>::splat(*mean.get().add(self.c));
                            let (plain, product) = sum_and_product::<T, T::V<A>>(dy, x, mean, m);
                            total.a += plain;
                            total.b += product;
                        }
                        _ => {
                            let mean = sum::<T, T::V<A>, _>(Plain, x, x, m, 0.0) / m as f64;
                            // The squares are taken from the rounded mean, and corrected for it.
                            let near = T::of(mean).f64();
                            let b = sum::<T, T::V<A>, _>(Spread(T::V::<A>::lit(near)), x, x, m, near);
                            let d = mean - near;
                            let b = b - d * d * m as f64;
                            total.join(true, Moments { n: m as f64, a: mean, b: b.max(0.0) });
                            if b.is_nan() {
                                total.b = f64::NAN;
                            }
                        }
                    }
                    i += m;
                }
            }
            *self.out.add(self.c) = total.a;
            *self.out.add(g.c + self.c) = total.b;
        }
    }
}

/// Rows of channels that are worked on together.
fn rows_of(c: usize) -> usize {
    (2048 / c.max(1)).clamp(8, 64)
}

/// Stretches of positions, channels side by side.
struct Last<'a, T> {
    g: &'a Grid,
    x: View,
    dy: Option<View>,
    mean: Option<Ptr<T>>,
    from: usize,
    to: usize,
    s: *mut T,
    out: *mut f64,
}

impl<T: Compute> ArchKernel for Last<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let (g, c) = (self.g, self.g.c);
        let rows = rows_of(c);
        let p = pad(c);
        // Scratch: staged rows of x and dy, then two rows of sums and one of means.
        let (xs, ds) = (self.s, self.s.wrapping_add(rows * p));
        let acc = [0, 1, 2].map(|k| self.s.wrapping_add((2 * rows + k) * p));
        let mut seen = 0.0;
        let mut r = self.from;
        while r < self.to {
            let m = rows.min(self.to - r);
            let mut x: [*const T; 64] = [null(); 64];
            let mut dy: [*const T; 64] = [null(); 64];
            // SAFETY: strips of the arrays; scratch rows as above (m <= rows <= 64); c channels.
            unsafe {
                for k in 0..m {
                    x[k] = self.x.dense(g.at(&self.x, r + k), c, xs.add(k * p));
                    if let Some(dv) = &self.dy {
                        dy[k] = dv.dense(g.at(dv, r + k), c, ds.add(k * p));
                    }
                }
                match (&self.dy, self.mean) {
                    (Some(_), Some(mean)) => {
                        columns::<T, T::V<A>>(&dy[..m], &x[..m], mean.get(), acc[0], acc[1], c);
                        for i in 0..c {
                            *self.out.add(i) += (*acc[0].add(i)).f64();
                            *self.out.add(c + i) += (*acc[1].add(i)).f64();
                        }
                    }
                    _ => {
                        // Differences from the mean so far (at first: from the first row), which is
                        // near enough to the block's own for its square not to cancel digits.
                        for i in 0..c {
                            *acc[2].add(i) = if seen > 0.0 { T::of(*self.out.add(i)) } else { *x[0].add(i) };
                        }
                        columns::<T, T::V<A>>(&[], &x[..m], acc[2], acc[0], acc[1], c);
                        let len = m as f64;
                        let (share, pull) = (len / (seen + len), seen * len / (seen + len));
                        for i in 0..c {
                            let (d, q) = ((*acc[0].add(i)).f64() / len, (*acc[1].add(i)).f64());
                            let (mean, spread) = (self.out.add(i), self.out.add(c + i));
                            let off = (*acc[2].add(i)).f64() + d - *mean;
                            *spread += (q - d * d * len) + off * off * pull;
                            *mean += off * share;
                        }
                    }
                }
            }
            seen += m as f64;
            r += m;
        }
    }
}

/// Sums over rows, per column: of `a` and `a * (b - mean)`; without `a`, of `b - mean` and its square.
/// # Safety
/// `a` is empty or as long as `b`; every row, `mean` and both results have `c` elements.
#[inline(always)]
unsafe fn columns<T: Compute, V: FloatLanes<Elem = T>>(
    a: &[*const T],
    b: &[*const T],
    mean: *const T,
    plain: *mut T,
    product: *mut T,
    c: usize,
) {
    let mut i = 0;
    // Rows outside and four vectors inside: memory is read in stretches, not column by column.
    // SAFETY: elements below c.
    unsafe {
        while i + 4 * V::N <= c {
            tile::<T, V, 4>(a, b, mean, plain, product, i, V::N);
            i += 4 * V::N;
        }
        while i < c {
            let k = V::N.min(c - i);
            tile::<T, V, 1>(a, b, mean, plain, product, i, k);
            i += k;
        }
    }
}

/// `W` vectors of columns from `i` on, `k` lanes of each.
/// # Safety
/// As `columns`, with `i + W * k <= c`; `k == V::N` unless `W == 1`.
#[inline(always)]
unsafe fn tile<T: Compute, V: FloatLanes<Elem = T>, const W: usize>(
    a: &[*const T],
    b: &[*const T],
    mean: *const T,
    plain: *mut T,
    product: *mut T,
    i: usize,
    k: usize,
) {
    let zero = T::of(0.0);
    // SAFETY: the caller's promise.
    unsafe {
        macro_rules! load {
            ($p:expr, $w:expr) => {
                if k == V::N { V::load($p.add(i + $w * V::N)) } else { V::load_partial($p.add(i), k, zero) }
            };
        }
        let mut m = [V::lit(0.0); W];
        for w in 0..W {
            m[w] = load!(mean, w);
        }
        let (mut s, mut p) = ([V::lit(0.0); W], [V::lit(0.0); W]);
        for r in 0..b.len() {
            let rb = b[r];
            let ra = if a.is_empty() { null() } else { a[r] };
            for w in 0..W {
                let d = load!(rb, w) - m[w];
                let x = if a.is_empty() { d } else { load!(ra, w) };
                s[w] = s[w] + x;
                p[w] = V::fma_(x, d, p[w]);
            }
        }
        for w in 0..W {
            s[w].store_partial(plain.add(i + w * V::N), k);
            p[w].store_partial(product.add(i + w * V::N), k);
        }
    }
}
