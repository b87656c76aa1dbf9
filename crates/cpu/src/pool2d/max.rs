//! Max pooling. Windows may hang over the edges; what lies outside is never the maximum. NaN wins.

use super::Planes;
use crate::oom;
use crate::pool::{chunks, parallel, with_scratch};
use crate::simd::{Arch, ArchKernel, FloatLanes, Isa, Lanes, dispatch};
use crate::strided::{Compute, Ptr};
use pyrite_core::backend::PoolGeometry;
use pyrite_core::{Arr, Result, bail, err};
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the taps of a window fall, for one axis: `first[o]` is the first tap inside.
struct Axis {
    k: usize,
    stride: usize,
    pad: usize,
    dilation: usize,
    size: usize,
}

impl Axis {
    fn new(g: &PoolGeometry, d: usize, size: usize) -> Axis {
        Axis { k: g.kernel[d], stride: g.stride[d], pad: g.pad[d], dilation: g.dilation[d], size }
    }
    /// Taps `a..b` of output `o` lie inside; the first one's position is the second result.
    #[inline(always)]
    fn taps(&self, o: usize) -> (usize, usize, isize) {
        let start = (o * self.stride) as isize - self.pad as isize;
        let a = if start < 0 { ((-start) as usize).div_ceil(self.dilation) } else { 0 };
        let room = self.size as isize - start;
        let b = if room <= 0 { 0 } else { self.k.min((room as usize).div_ceil(self.dilation)) };
        (a.min(b), b, start)
    }
}

pub fn forward<T: Compute>(g: &PoolGeometry, x: &Arr, y: &Arr, idx: Option<&Arr>) -> Result<()> {
    let (xp, yp, ip) = (Planes::new(x), Planes::new(y), idx.map(Planes::new));
    let (rows, cols) = (Axis::new(g, 0, xp.h), Axis::new(g, 1, xp.w));
    for (axis, out) in [(&rows, yp.h), (&cols, yp.w)] {
        for o in 0..out {
            let (a, b, _) = axis.taps(o);
            if a >= b {
                bail!(
                    Shape,
                    "max_pool2d: window {o} of {out} lies outside the input of size {}; use less padding",
                    axis.size
                );
            }
        }
    }
    let (dr, dc) = (rows.dilation * xp.w, cols.dilation);
    // Lanes keep a tap's distance from its window's start as a number of the compute type; where
    // f32 can't hold all of them, the same kernel runs in f64.
    if size_of::<T>() == 4 && ((rows.k - 1) * dr + (cols.k - 1) * dc) >= 1 << 24 {
        return forward::<f64>(g, x, y, idx);
    }
    let first = (0..yp.w.next_multiple_of(16))
        .map(|o| T::of((cols.taps(o.min(yp.w.max(1) - 1)).0 * dc) as f64))
        .collect();
    let job = Job { rows, cols, dr, dc, first, x: xp, y: yp, idx: ip };
    let n = x.shape[0];
    let work = y.numel() as u64 * (g.kernel[0] * g.kernel[1]) as u64 / 2 + x.numel() as u64 / 8;
    if xp.pixels::<T>() && yp.pixels::<T>() {
        // Rows of the output, over all images.
        let (k, each) = chunks(n * yp.h, (4096 / (yp.w * yp.c).max(1)).max(1));
        parallel(k, work, &|q| {
            let (from, to) = (q * each, (n * yp.h).min((q + 1) * each));
            dispatch(Pixels { job: &job, from, to });
        });
        return Ok(());
    }
    let planes = n * xp.c;
    let (k, each) = chunks(planes, (8192 / xp.len().max(1)).max(1));
    let width = job.padded_width();
    let copy = if width > 0 { xp.h * width + SLACK } else { 0 };
    let stage = if xp.direct::<T>() && yp.direct::<T>() { 0 } else { xp.len() + yp.len() };
    let failed = std::sync::Mutex::new(None);
    parallel(k, work, &|q| {
        let done = with_scratch((copy + stage) * size_of::<T>(), |s| {
            let (from, to) = (q * each, planes.min((q + 1) * each));
            dispatch(Plane { job: &job, from, to, width, copy, s: s.cast::<T>() });
        });
        if let Err(e) = done {
            *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(oom(e));
        }
    });
    failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

struct Job<T> {
    rows: Axis,
    cols: Axis,
    /// Distances of neighbouring taps in the plane.
    dr: usize,
    dc: usize,
    /// Distance of each output column's first tap inside from its window's start.
    first: Vec<T>,
    x: Planes,
    y: Planes,
    idx: Option<Planes>,
}

/// What vectors may read beyond the last row of a padded plane.
const SLACK: usize = 64;

impl<T> Job<T> {
    /// Row length of a padded copy of a plane; 0 if no window leaves the plane sideways.
    fn padded_width(&self) -> usize {
        let c = &self.cols;
        let reach = (self.y.w.max(1) - 1) * c.stride + (c.k - 1) * c.dilation + 1;
        if c.pad == 0 && reach <= c.size { 0 } else { reach.max(c.pad + c.size) }
    }
}

struct Plane<'a, T> {
    job: &'a Job<T>,
    from: usize,
    to: usize,
    width: usize,
    copy: usize,
    s: *mut T,
}

impl<T: Compute> ArchKernel for Plane<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        use pyrite_core::expr::Any;
        let j = self.job;
        let (h, w) = (j.x.h, j.x.w);
        let (oh, ow) = (j.y.h, j.y.w);
        let (c, lanes) = (&j.cols, T::V::<A>::N);
        let stage = self.s.wrapping_add(self.copy);
        for i in 0..self.copy {
            // SAFETY: the scratch holds a padded plane. Its paddings stay as they are from here on.
            unsafe { *self.s.add(i) = T::of(f64::NEG_INFINITY) };
        }
        for q in self.from..self.to {
            // SAFETY: planes of the arrays; staging room for one of each.
            let (x, y) = unsafe { (j.x.get(q, stage), j.y.out(q, stage.wrapping_add(j.x.len()))) };
            // The plane, its row length, and how many elements can be read from its start.
            let (plane, step, limit) = if self.width > 0 {
                for r in 0..h {
                    // SAFETY: row r between the paddings of the copy.
                    unsafe {
                        let to = self.s.add(r * self.width + c.pad);
                        std::ptr::copy_nonoverlapping(x.add(r * w), to, w);
                    }
                }
                (self.s.cast_const(), self.width, self.copy)
            } else {
                (x, w, h * w)
            };
            for o in 0..oh {
                let (ra, rb, start) = j.rows.taps(o);
                let mut from = 0;
                while from < ow {
                    let m = lanes.min(ow - from);
                    let mut best = T::V::<A>::lit(f64::NEG_INFINITY);
                    let down = T::V::<A>::lit((ra * j.dr) as f64);
                    // SAFETY: `first` has whole vectors.
                    let mut tap = unsafe { T::V::<A>::load(j.first.as_ptr().add(from)) } + down;
                    for r in ra..rb {
                        let row = (start + (r * j.rows.dilation) as isize) as usize;
                        for k in 0..c.k {
                            let at = row * step + from * c.stride + k * c.dilation;
                            // SAFETY: row < h, and all `m` columns are inside the row or its padding.
                            let v = unsafe { strided::<A, T>(plane.add(at), c.stride, m, limit - at) };
                            let t = T::V::<A>::lit((r * j.dr + k * j.dc) as f64);
                            (best, tap) = better(v, t, best, tap);
                        }
                    }
                    // SAFETY: `m` outputs from `from` on of row o, and of the index plane's row.
                    unsafe {
                        best.store_partial(y.add(o * ow + from), m);
                        if let Some(ip) = &j.idx {
                            let base = start * w as isize + (from * c.stride) as isize - c.pad as isize;
                            let to =
                                ip.at(q).cast::<i64>().offset(o as isize * ip.s[2] + from as isize * ip.s[3]);
                            positions::<A, T>(tap, m, base, c.stride as isize, to, ip.s[3]);
                        }
                    }
                    from += lanes;
                }
            }
            // SAFETY: as above.
            unsafe { j.y.put(q, stage.wrapping_add(j.x.len())) };
        }
    }
}

/// Writes the positions of the first `m` lanes' taps; neighbouring windows start `stride` apart.
/// # Safety
/// `to` points to `m` writable elements, `step` apart.
#[inline(always)]
unsafe fn positions<A: Arch, T: Compute>(
    tap: T::V<A>,
    m: usize,
    base: isize,
    stride: isize,
    to: *mut i64,
    step: isize,
) {
    let (mut taps, mut out) = ([T::of(0.0); 16], [0i64; 16]);
    // SAFETY: 16 >= N lanes; taps are whole numbers below 2^53; `m <= N` elements are written.
    unsafe {
        tap.store(taps.as_mut_ptr());
        for i in 0..16 {
            out[i] = base as i64 + i as i64 * stride as i64 + taps[i].f64().to_int_unchecked::<i64>();
        }
        if step == 1 {
            std::ptr::copy_nonoverlapping(out.as_ptr(), to, m);
        } else {
            for i in 0..m {
                *to.offset(i as isize * step) = out[i];
            }
        }
    }
}

/// Elements `p[0], p[stride], ..` as a vector whose first `m` lanes mean something.
/// # Safety
/// Those `m` elements and `p[..limit]` are readable.
#[inline(always)]
unsafe fn strided<A: Arch, T: Compute>(p: *const T, stride: usize, m: usize, limit: usize) -> T::V<A> {
    let (n, zero) = (T::V::<A>::N, T::of(0.0));
    // SAFETY: whole vectors only where `limit` allows.
    unsafe {
        match stride {
            1 if limit >= n => T::V::<A>::load(p),
            1 => T::V::<A>::load_partial(p, m, zero),
            2 if limit >= 2 * n => even::<A, T>(T::V::<A>::load(p), T::V::<A>::load(p.add(n))),
            2 => {
                let lo = T::V::<A>::load_partial(p, n.min(limit), zero);
                let hi = T::V::<A>::load_partial(p.wrapping_add(n), limit.saturating_sub(n), zero);
                even::<A, T>(lo, hi)
            }
            _ => {
                let mut buf = [zero; 16];
                for (k, b) in buf.iter_mut().enumerate().take(m) {
                    *b = *p.add(k * stride);
                }
                T::V::<A>::load(buf.as_ptr())
            }
        }
    }
}

/// The greater value with its tap; a NaN replaces whatever was there.
#[inline(always)]
fn better<V: FloatLanes>(v: V, t: V, best: V, tap: V) -> (V, V) {
    let take = V::lt(best, v) | v.is_nan_();
    (V::select(take, v, best), V::select(take, t, tap))
}

/// The lanes of two vectors in a row with even numbers.
#[inline(always)]
fn even<A: Arch, T: Compute>(a: T::V<A>, b: T::V<A>) -> T::V<A> {
    #[cfg(target_arch = "x86_64")]
    if size_of::<T>() == 4 {
        use std::arch::x86_64::*;
        use std::mem::transmute_copy;
        // SAFETY: the features come with the `Arch`. For f32 its lane type is a transparent
        // wrapper of the register used here, as the sizes confirm.
        unsafe {
            match A::ISA {
                Isa::Avx512 => {
                    const { assert!(size_of::<__m512>() == 64) };
                    debug_assert!(size_of::<T::V<A>>() == 64);
                    let at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                    let r = _mm512_permutex2var_ps(transmute_copy(&a), at, transmute_copy(&b));
                    return transmute_copy(&r);
                }
                Isa::Avx2 => {
                    debug_assert!(size_of::<T::V<A>>() == 32);
                    let r = _mm256_shuffle_ps::<0x88>(transmute_copy(&a), transmute_copy(&b));
                    let r = _mm256_permute4x64_pd::<0xD8>(_mm256_castps_pd(r));
                    return transmute_copy(&_mm256_castpd_ps(r));
                }
                Isa::Scalar => {}
            }
        }
    }
    let n = T::V::<A>::N;
    let mut buf = [T::of(0.0); 32];
    // SAFETY: 32 >= 2 N elements, and 16 >= N after the first half was thinned in place.
    unsafe {
        a.store(buf.as_mut_ptr());
        b.store(buf.as_mut_ptr().add(n));
        for k in 0..n {
            buf[k] = buf[2 * k];
        }
        T::V::<A>::load(buf.as_ptr())
    }
}

/// Channels-last: rows of the output, all channels of a position together.
struct Pixels<'a, T> {
    job: &'a Job<T>,
    from: usize,
    to: usize,
}

impl<T: Compute> ArchKernel for Pixels<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let j = self.job;
        let (n_lanes, zero) = (T::V::<A>::N, T::of(0.0));
        let lit = |v: usize| <T::V<A> as pyrite_core::expr::Any>::lit(v as f64);
        for q in self.from..self.to {
            let (n, o) = (q / j.y.h, q % j.y.h);
            let (ra, rb, top) = j.rows.taps(o);
            for p in 0..j.y.w {
                let (ca, cb, left) = j.cols.taps(p);
                let out = j.y.pixel::<T>(n, o, p);
                let mut c = 0;
                while c < j.x.c {
                    let m = n_lanes.min(j.x.c - c);
                    let mut best = <T::V<A> as pyrite_core::expr::Any>::lit(f64::NEG_INFINITY);
                    let mut tap = lit(ra * j.dr + ca * j.dc);
                    for r in ra..rb {
                        for s in ca..cb {
                            let row = (top + (r * j.rows.dilation) as isize) as usize;
                            let col = (left + (s * j.cols.dilation) as isize) as usize;
                            // SAFETY: a position inside the input, `m` channels from `c` on.
                            let v = unsafe {
                                let src = j.x.pixel::<T>(n, row, col).add(c);
                                if m == n_lanes {
                                    T::V::<A>::load(src)
                                } else {
                                    T::V::<A>::load_partial(src, m, zero)
                                }
                            };
                            (best, tap) = better(v, lit(r * j.dr + s * j.dc), best, tap);
                        }
                    }
                    // SAFETY: the same channels of the output and of the index.
                    unsafe {
                        best.store_partial(out.add(c), m);
                        if let Some(ip) = &j.idx {
                            let base = top * j.x.w as isize + left;
                            let to = ip.pixel_i64(n, o, p).offset(c as isize * ip.s[1]);
                            positions::<A, T>(tap, m, base, 0, to, ip.s[1]);
                        }
                    }
                    c += n_lanes;
                }
            }
        }
    }
}

impl Planes {
    /// First channel of a position of an index tensor.
    #[inline(always)]
    fn pixel_i64(&self, n: usize, i: usize, j: usize) -> *mut i64 {
        let off = n as isize * self.s[0] + i as isize * self.s[2] + j as isize * self.s[3];
        self.ptr.get().cast::<i64>().wrapping_offset(off)
    }
}

pub fn backward<T: Compute>(dy: &Arr, idx: &Arr, dx: &Arr) -> Result<()> {
    let (g, i, d) = (Planes::new(dy), Planes::new(idx), Planes::new(dx));
    let n = dx.shape[0];
    let bad = AtomicBool::new(false);
    let work = (dy.numel() + dx.numel() / 4) as u64;
    if g.pixels::<T>() && d.pixels::<T>() && i.s[1] == 1 {
        // Images, cut into blocks of channels: no two chunks share an element.
        let blocks = if n >= 8 { (1, d.c) } else { chunks(d.c, 16) };
        let jobs = n * blocks.0;
        let (k, each) = chunks(jobs, (8192 / (d.len() * blocks.1).max(1)).max(1));
        parallel(k, work, &|q| {
            for job in q * each..jobs.min((q + 1) * each) {
                let (n, c) = (job / blocks.0, job % blocks.0 * blocks.1);
                // SAFETY: an image and a block of its channels, which belong to this job alone.
                if unsafe { !pixels_back::<T>(&g, &i, &d, n, c, blocks.1.min(d.c - c)) } {
                    bad.store(true, Ordering::Relaxed);
                }
            }
        });
    } else {
        let planes = n * d.c;
        let (k, each) = chunks(planes, (8192 / d.len().max(1)).max(1));
        let stage = if g.direct::<T>() && d.direct::<T>() { 0 } else { g.len() + d.len() };
        let failed = std::sync::Mutex::new(None);
        let ptr = Ptr(i.ptr.get().cast::<i64>());
        parallel(k, work, &|q| {
            let done = with_scratch(stage * size_of::<T>(), |s| {
                let s = s.cast::<T>();
                for q in q * each..planes.min((q + 1) * each) {
                    let own = s.wrapping_add(g.len());
                    // SAFETY: plane q of all three; staging room for a plane of dy and dx.
                    unsafe {
                        let dy = g.get(q, s);
                        let dx = d.out(q, own);
                        std::ptr::write_bytes(dx, 0, d.len());
                        let ip = (q / i.c) as isize * i.s[0] + (q % i.c) as isize * i.s[1];
                        let from = ptr.get().offset(ip);
                        for r in 0..g.h {
                            for c in 0..g.w {
                                let at =
                                    from.offset(r as isize * i.s[2] + c as isize * i.s[3]).read_volatile();
                                if (at as u64) < d.len() as u64 {
                                    let to = dx.add(at as usize);
                                    *to = T::plus(*to, *dy.add(r * g.w + c));
                                } else {
                                    bad.store(true, Ordering::Relaxed);
                                }
                            }
                        }
                        d.put(q, own);
                    }
                }
            });
            if let Err(e) = done {
                *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(oom(e));
            }
        });
        if let Some(e) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
            return Err(e);
        }
    }
    if bad.into_inner() {
        return Err(err!(
            Index,
            "max_pool2d backward: an index is outside the input plane of {} x {}",
            d.h,
            d.w
        ));
    }
    Ok(())
}

/// One image's channels `c..c + m`; false if an index was outside.
/// # Safety
/// They exist in all three, channels have stride 1, and nobody else writes them in `d`.
unsafe fn pixels_back<T: Compute>(g: &Planes, i: &Planes, d: &Planes, n: usize, c: usize, m: usize) -> bool {
    let mut fine = true;
    if m == d.c && d.s[3] == m as isize && d.s[2] == (m * d.w) as isize {
        // SAFETY: the whole image, which is one dense stretch.
        unsafe { std::ptr::write_bytes(d.pixel::<T>(n, 0, 0), 0, m * d.len()) };
    } else {
        for r in 0..d.h {
            for s in 0..d.w {
                // SAFETY: m channels of a position.
                unsafe { std::ptr::write_bytes(d.pixel::<T>(n, r, s).add(c), 0, m) };
            }
        }
    }
    let base = d.pixel::<T>(n, 0, 0).wrapping_add(c);
    let even = d.s[2] == d.s[3] * d.w as isize;
    for r in 0..g.h {
        for s in 0..g.w {
            let (from, at) = (g.pixel::<T>(n, r, s).wrapping_add(c), i.pixel_i64(n, r, s).wrapping_add(c));
            for k in 0..m {
                // SAFETY: channel c + k of this output; the position is checked before use.
                unsafe {
                    let p = at.add(k).read_volatile();
                    if (p as u64) >= d.len() as u64 {
                        fine = false;
                        continue;
                    }
                    let off = if even {
                        p as isize * d.s[3]
                    } else {
                        (p as usize / d.w) as isize * d.s[2] + (p as usize % d.w) as isize * d.s[3]
                    };
                    let to = base.offset(off).add(k);
                    *to = T::plus(*to, *from.add(k));
                }
            }
        }
    }
    fine
}
