//! Batch norm: statistics, normalisation and gradients per channel of [N, C, L].
//!
//! A *strip* is what the kernels walk: a dense stretch of one channel (NCHW), or a dense stretch of
//! all channels at one position (channels-last, and [N, C]). Any other layout is staged row by row.
//! Block statistics are merged in f64 (Chan's formula), so large means cost no digits.

use super::vector::{BLOCK, Make, Plain, Spread, map, sum, sum_and_product};
use super::{pad, per_row, same_shape};
use crate::alloc::Block;
use crate::oom;
use crate::pool::{chunks, parallel};
use crate::simd::{Arch, ArchKernel, FloatLanes, Lanes, dispatch};
use crate::strided::{Compute, Ptr, gather, gather_flat, scatter, scatter_flat};
use pyrite_core::backend::Rowwise;
use pyrite_core::expr::Any;
use pyrite_core::{Arr, DType, Result, bail};
use std::ptr::null;

const OP: &str = "batch_norm";

pub fn run(r: Rowwise) -> Result<()> {
    match r {
        Rowwise::BatchStats { x, mean, var } => {
            let g = Grid::new(&x)?;
            per_row(OP, g.c, &[&mean, &var])?;
            crate::compute_of!(OP, x.dtype, |T| {
                let s = sums::<T>(&g, &x, None, None, None)?;
                let m = (g.n * g.l) as f64;
                put::<T>(&mean, g.c, &|c| s.get(0, c));
                put::<T>(&var, g.c, &|c| s.get(1, c) / m);
                Ok(())
            })
        }
        Rowwise::BatchNorm { x, mean, rstd, w, b, y } => {
            same_shape(OP, &x, &[&y])?;
            let g = Grid::new(&x)?;
            crate::compute_of!(OP, x.dtype, |T| {
                let chan = [
                    Chan::<T>::of(&g, Some(&mean), 0.0)?,
                    Chan::of(&g, Some(&rstd), 1.0)?,
                    Chan::of(&g, w.as_ref(), 1.0)?,
                    Chan::of(&g, b.as_ref(), 0.0)?,
                ];
                // mean, rstd * w, b
                for c in 0..g.c {
                    chan[1].set(c, T::of(chan[1].get(c).f64() * chan[2].get(c).f64()));
                }
                apply::<T, 2>(&g, [&x, &x], &y, [&chan[0], &chan[1], &chan[3], &chan[3]], false)
            })
        }
        Rowwise::BatchNormBackward { dy, x, mean, rstd, w, dx, dw, db, training } => {
            same_shape(OP, &x, &[&dy])?;
            let g = Grid::new(&x)?;
            crate::compute_of!(OP, x.dtype, |T| {
                let (mean, rstd) =
                    (Chan::<T>::of(&g, Some(&mean), 0.0)?, Chan::<T>::of(&g, Some(&rstd), 1.0)?);
                let w = Chan::<T>::of(&g, w.as_ref(), 1.0)?;
                // dx = a * dy + k * (x - mean) + m
                let (a, k, m) = (Chan::<T>::new(&g)?, Chan::<T>::new(&g)?, Chan::<T>::new(&g)?);
                let count = (g.n * g.l) as f64;
                let coefficients = |c: usize, s0: f64, s1: f64| {
                    let r = rstd.get(c).f64();
                    let scale = r * w.get(c).f64();
                    let (s0, s1) = if training { (s0 / count, s1 / count) } else { (0.0, 0.0) };
                    a.set(c, T::of(scale));
                    k.set(c, T::of(-scale * s1 * r * r));
                    m.set(c, T::of(-scale * s0));
                };
                if let Some(dx) = &dx {
                    same_shape(OP, &x, &[dx])?;
                }
                let need = dw.is_some() || db.is_some() || (training && dx.is_some());
                // Channel by channel where there are enough: `x` and `dy` are still in the cache when
                // their channel's sums are known.
                let fused = need && !g.last && g.c >= 2 * crate::pool::num_threads();
                let failed = super::Failed::default();
                let (from, to) = ([View::new(&x), View::new(&dy)], dx.as_ref().map(View::new));
                let finish = |c: usize, s0: f64, s1: f64| {
                    coefficients(c, s0, s1);
                    if let Some(to) = to {
                        let strips = Strips { from: c, to: g.n * g.c, step: g.c };
                        if let Err(e) = apply_to(&g, from, to, [&mean, &a, &k, &m], true, strips) {
                            failed.set(e);
                        }
                    }
                };
                let then: Option<&(dyn Fn(usize, f64, f64) + Sync)> =
                    if fused { Some(&finish) } else { None };
                let s = if need { Some(sums::<T>(&g, &x, Some(&dy), Some(&mean), then)?) } else { None };
                failed.result()?;
                if let Some(s) = &s {
                    if let Some(dw) = &dw {
                        per_row(OP, g.c, &[dw])?;
                        put::<T>(dw, g.c, &|c| s.get(1, c) * rstd.get(c).f64());
                    }
                    if let Some(db) = &db {
                        per_row(OP, g.c, &[db])?;
                        put::<T>(db, g.c, &|c| s.get(0, c));
                    }
                }
                let (Some(dx), false) = (dx, fused) else { return Ok(()) };
                for c in 0..g.c {
                    let (s0, s1) = s.as_ref().map_or((0.0, 0.0), |s| (s.get(0, c), s.get(1, c)));
                    coefficients(c, s0, s1);
                }
                apply::<T, 2>(&g, [&x, &dy], &dx, [&mean, &a, &k, &m], true)
            })
        }
        _ => Ok(()),
    }
}

/// Sizes and which way the strips run.
struct Grid {
    n: usize,
    c: usize,
    l: usize,
    /// Strips hold channels (else positions of one channel).
    last: bool,
}

impl Grid {
    fn new(x: &Arr) -> Result<Grid> {
        let (n, c, l) = match *x.shape {
            [n, c] => (n, c, 1),
            [n, c, l] => (n, c, l),
            _ => bail!(Shape, "{OP}: expected [N, C, L] but got shape {:?}", x.shape),
        };
        let last = x.strides[1] == 1 && c > 1 || l < 4 && c >= 4;
        Ok(Grid { n, c, l, last })
    }
    /// Strips, their length, and elements of one.
    fn strips(&self) -> (usize, usize) {
        if self.last { (self.n * self.l, self.c) } else { (self.n * self.c, self.l) }
    }
    /// Pointer to strip `s` and its stride.
    #[inline(always)]
    fn at(&self, a: &View, s: usize) -> (*mut u8, isize) {
        let (per, inner) = if self.last { (self.l, a.strides[2]) } else { (self.c, a.strides[1]) };
        // Two divisions would cost more than the work on a short strip.
        let off = if per == 1 {
            s as isize * a.strides[0]
        } else if a.strides[0] == per as isize * inner {
            s as isize * inner
        } else {
            (s / per) as isize * a.strides[0] + (s % per) as isize * inner
        };
        let along = if self.last { a.strides[1] } else { a.strides[2] };
        (a.ptr.get().wrapping_offset(off * a.dtype.size() as isize), along)
    }
}

/// An array as strips need it.
#[derive(Clone, Copy)]
struct View {
    ptr: Ptr,
    dtype: DType,
    strides: [isize; 3],
}

impl View {
    fn new(a: &Arr) -> View {
        let s = |d: usize| a.strides.get(d).copied().unwrap_or(0);
        View { ptr: Ptr(a.ptr), dtype: a.dtype, strides: [s(0), s(1), s(2)] }
    }
    /// A strip as dense `T`: itself or a copy.
    /// # Safety
    /// `p` points to `n` readable elements with this stride; `scratch` has room for them.
    #[inline(always)]
    unsafe fn dense<T: Compute>(&self, (p, stride): (*mut u8, isize), n: usize, scratch: *mut T) -> *const T {
        if self.dtype == T::DTYPE && (stride == 1 || n == 1) {
            return p.cast();
        }
        // SAFETY: the caller's promise.
        unsafe { gather(self.dtype, p, stride, n, scratch) };
        scratch
    }
}

/// One number per channel, dense.
struct Chan<T> {
    block: Block,
    marker: std::marker::PhantomData<T>,
}
// SAFETY: plain memory; in a parallel region a channel's number is touched by one task, or only read.
unsafe impl<T> Sync for Chan<T> {}

impl<T: Compute> Chan<T> {
    fn new(g: &Grid) -> Result<Chan<T>> {
        let block = Block::zeroed((pad(g.c) * size_of::<T>()).max(64)).map_err(oom)?;
        Ok(Chan { block, marker: std::marker::PhantomData })
    }
    /// The numbers of an array, or one number for all.
    fn of(g: &Grid, a: Option<&Arr>, other: f64) -> Result<Chan<T>> {
        let out = Chan::new(g)?;
        match a {
            Some(a) => {
                per_row(OP, g.c, &[a])?;
                if !a.dtype.is_float() {
                    bail!(Type, "{OP}: statistics and weights must be floating, not {}", a.dtype);
                }
                // SAFETY: c elements in both.
                unsafe { gather_flat::<T>(a, 0, g.c, out.ptr()) };
            }
            None => (0..g.c).for_each(|c| out.set(c, T::of(other))),
        }
        Ok(out)
    }
    #[inline(always)]
    fn ptr(&self) -> *mut T {
        self.block.as_ptr().cast()
    }
    #[inline(always)]
    fn get(&self, c: usize) -> T {
        debug_assert!(c * size_of::<T>() < self.block.bytes());
        // SAFETY: c is a channel.
        unsafe { *self.ptr().add(c) }
    }
    fn set(&self, c: usize, v: T) {
        debug_assert!(c * size_of::<T>() < self.block.bytes());
        // SAFETY: c is a channel, and nobody else touches its number meanwhile.
        unsafe { *self.ptr().add(c) = v }
    }
}

fn put<T: Compute>(a: &Arr, n: usize, f: &dyn Fn(usize) -> f64) {
    for c in 0..n {
        let v = T::of(f(c));
        if a.dtype == DType::F64 && T::DTYPE == DType::F32 {
            let v = f(c);
            // SAFETY: position c of the array.
            unsafe { scatter_flat::<f64>(a, c, 1, &v) };
        } else {
            // SAFETY: as above.
            unsafe { scatter_flat::<T>(a, c, 1, &v) };
        }
    }
}

/// Two f64 sums per channel: mean and sum of squared differences from it, or the gradient's.
struct Sums {
    block: Block,
    c: usize,
}
impl Sums {
    fn get(&self, which: usize, c: usize) -> f64 {
        debug_assert!(which < 2 && c < self.c);
        // SAFETY: two rows of c numbers.
        unsafe { *self.block.as_ptr().cast::<f64>().add(which * self.c + c) }
    }
}

/// Statistics of `x` (without `dy`), or the sums of `dy` and `dy * (x - mean)`. `then` (not for strips of
/// channels) is called with a channel and its sums by the task that made them.
fn sums<T: Compute>(
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
    let failed = super::Failed::default();
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

/// `y = (x0 - m) * a + b` or (`grad`) `y = x1 * a + (x0 - m) * b + c`, numbers per channel.
fn apply<T: Compute, const IN: usize>(
    g: &Grid,
    x: [&Arr; IN],
    y: &Arr,
    chan: [&Chan<T>; 4],
    grad: bool,
) -> Result<()> {
    let (strips, len) = g.strips();
    let (k, each) = chunks(strips, (16384 / len.max(1)).max(1));
    let (x, y) = ([View::new(x[0]), View::new(x[IN - 1])], View::new(y));
    let failed = super::Failed::default();
    parallel(k, (strips * len) as u64 / 2, &|j| {
        let part = Strips { from: j * each, to: strips.min((j + 1) * each), step: 1 };
        if let Err(e) = apply_to(g, x, y, chan, grad, part) {
            failed.set(e);
        }
    });
    failed.result()
}

/// Strips `from`, `from + step`, ... below `to`.
#[derive(Clone, Copy)]
struct Strips {
    from: usize,
    to: usize,
    step: usize,
}

/// [`apply`] to some strips, in the calling thread.
fn apply_to<T: Compute>(
    g: &Grid,
    x: [View; 2],
    y: View,
    chan: [&Chan<T>; 4],
    grad: bool,
    strips: Strips,
) -> Result<()> {
    let (_, len) = g.strips();
    let chan = chan.map(|c| Ptr(c.ptr()));
    crate::pool::with_scratch(3 * pad(len) * size_of::<T>(), |s| {
        dispatch(Apply { g, x, y, chan, grad, strips, s: s.cast::<T>() });
    })
    .map_err(oom)
}

struct Apply<'a, T> {
    g: &'a Grid,
    x: [View; 2],
    y: View,
    chan: [Ptr<T>; 4],
    grad: bool,
    strips: Strips,
    s: *mut T,
}

/// One channel's line: `(x - m) * a + b`.
#[derive(Clone, Copy)]
struct Line<V>(V, V, V);
impl<V: FloatLanes> Make<V> for Line<V> {
    #[inline(always)]
    fn at(self, x: [V; 4]) -> V {
        V::fma_(x[0] - self.0, self.1, self.2)
    }
}
/// One channel's gradient: `dy * a + (x - m) * b + c`.
#[derive(Clone, Copy)]
struct Slope<V>(V, V, V, V);
impl<V: FloatLanes> Make<V> for Slope<V> {
    #[inline(always)]
    fn at(self, x: [V; 4]) -> V {
        V::fma_(x[1], self.1, V::fma_(x[0] - self.0, self.2, self.3))
    }
}

impl<T: Compute> ArchKernel for Apply<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let g = self.g;
        let (_, len) = g.strips();
        let chan = self.chan.map(|c| c.get().cast_const());
        for s in (self.strips.from..self.strips.to).step_by(self.strips.step) {
            // SAFETY: strips of the arrays; three scratch rows; numbers of every channel.
            unsafe {
                let x = self.x[0].dense(g.at(&self.x[0], s), len, self.s);
                let dy = if self.grad {
                    self.x[1].dense(g.at(&self.x[1], s), len, self.s.add(pad(len)))
                } else {
                    x
                };
                let (yp, ys) = g.at(&self.y, s);
                let direct = self.y.dtype == T::DTYPE && (ys == 1 || len == 1);
                let out = if direct { yp.cast::<T>() } else { self.s.add(2 * pad(len)) };
                if g.last {
                    across::<T, T::V<A>>(x, dy, chan, self.grad, out, len);
                } else {
                    let c = s % g.c;
                    let v = |k: usize| T::V::<A>::splat(*chan[k].add(c));
                    if self.grad {
                        let f = Slope(v(0), v(1), v(2), v(3));
                        map::<T, T::V<A>, _>(f, [x, dy, null(), null()], out, len);
                    } else {
                        map::<T, T::V<A>, _>(Line(v(0), v(1), v(2)), [x, null(), null(), null()], out, len);
                    }
                }
                if !direct {
                    scatter(self.y.dtype, yp, ys, len, out.cast_const());
                }
            }
        }
    }
}

/// A strip of all channels.
/// # Safety
/// `n` elements in every row.
#[inline(always)]
unsafe fn across<T: Compute, V: FloatLanes<Elem = T>>(
    x: *const T,
    dy: *const T,
    chan: [*const T; 4],
    grad: bool,
    y: *mut T,
    n: usize,
) {
    let zero = T::of(0.0);
    let mut i = 0;
    while i < n {
        let k = V::N.min(n - i);
        // SAFETY: elements below n.
        unsafe {
            macro_rules! load {
                ($p:expr) => {
                    if k == V::N { V::load($p.add(i)) } else { V::load_partial($p.add(i), k, zero) }
                };
            }
            let h = load!(x) - load!(chan[0]);
            let v = if grad {
                V::fma_(load!(dy), load!(chan[1]), V::fma_(h, load!(chan[2]), load!(chan[3])))
            } else {
                V::fma_(h, load!(chan[1]), load!(chan[2]))
            };
            if k == V::N { v.store(y.add(i)) } else { v.store_partial(y.add(i), k) }
        }
        i += V::N;
    }
}
