//! Variance and standard deviation. Blocks that fit the cache are read twice (mean, then squared
//! distances from it) and merged by Chan's formula in f64: as exact as two passes over everything,
//! with the memory traffic of one.

use super::{Dim, GRAIN, Load, Split, TILE, Tiles, block_of, deliver};
use crate::alloc::Block;
use crate::simd::{Arch, ArchKernel, Isa, dispatch_on};
use crate::{oom, pool};
use pyrite_core::rows::reductions::id;
use pyrite_core::{Arr, DType, Result, bail};
use pyrite_lanes::reductions::{self as kernels, Kernel, What};
use std::ops::Range;

/// A block of the column strategy: columns x rows.
const COLS: usize = 256;
const ROWS: usize = 128;

/// Count, mean and sum of squared distances.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Moments {
    n: f64,
    mean: f64,
    m2: f64,
}

impl Moments {
    /// From sums of distances and their squares from something near the mean.
    fn of(n: usize, near: f64, dev: f64, m2: f64) -> Moments {
        let count = n as f64;
        let d = dev / count;
        Moments { n: count, mean: near + d, m2: not_negative(m2 - count * d * d) }
    }
    fn merge(&mut self, b: Moments) {
        if b.n == 0.0 {
            return;
        }
        let n = self.n + b.n;
        let delta = b.mean - self.mean;
        self.mean += delta * (b.n / n);
        self.m2 += b.m2 + delta * delta * (self.n * b.n / n);
        self.n = n;
    }
}

/// Distances from `mean[i]` over rows: their sum to `dev[i]`, the sum of their squares to `acc[i]`.
/// (The rounded mean is not the mean, hence the sum.)
struct Squares {
    n: usize,
    src: *const u8,
    mean: *const u8,
    acc: *mut u8,
    dev: *mut u8,
    rows: usize,
    stride: isize,
    double: bool,
    /// One mean for one row; the results are totals in `acc[0]` and `dev[0]`.
    row: bool,
}

impl ArchKernel for Squares {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        // SAFETY: the caller of `squares` promises the extents.
        unsafe { if self.double { go::<A::F64>(&self) } else { go::<A::F32>(&self) } }
    }
}

#[inline(always)]
unsafe fn go<V: crate::simd::FloatLanes>(k: &Squares) {
    let (s, mean) = (k.src.cast::<V::Elem>(), k.mean.cast::<V::Elem>());
    let (acc, dev) = (k.acc.cast::<V::Elem>(), k.dev.cast::<V::Elem>());
    let w = V::N;
    // SAFETY: n elements in every row, n means and accumulators (one of each in row mode).
    unsafe {
        if k.row {
            let m = V::splat(mean.read());
            let zero = V::lit(0.0);
            let (mut t, mut t1, mut d, mut d1, mut i) = (zero, zero, zero, zero, 0);
            while i + 2 * w <= k.n {
                let (a, b) = (V::load(s.add(i)) - m, V::load(s.add(i + w)) - m);
                t = V::fma(a, a, t);
                t1 = V::fma(b, b, t1);
                (d, d1) = (d + a, d1 + b);
                i += 2 * w;
            }
            while i < k.n {
                let a = V::load_partial(s.add(i), w.min(k.n - i), mean.read()) - m;
                t = V::fma(a, a, t);
                d = d + a;
                i += w;
            }
            acc.write((t + t1).reduce_add());
            dev.write((d + d1).reduce_add());
        } else {
            let mut i = 0;
            while i < k.n {
                let c = w.min(k.n - i);
                let m = V::load_partial(mean.add(i), c, *mean.add(i));
                let mut t = V::load_partial(acc.add(i), c, *acc.add(i));
                let mut d = V::load_partial(dev.add(i), c, *dev.add(i));
                for r in 0..k.rows {
                    let at = s.byte_offset(r as isize * k.stride).add(i);
                    let a = V::load_partial(at, c, *at) - m;
                    t = V::fma(a, a, t);
                    d = d + a;
                }
                t.store_partial(acc.add(i), c);
                d.store_partial(dev.add(i), c);
                i += w;
            }
        }
    }
}

struct Job<'a> {
    isa: Isa,
    split: &'a Split,
    load: Load,
    sum: Kernel,
    double: bool,
}

pub fn run(isa: Isa, root: bool, dst: Arr, dst2: Option<Arr>, src: Arr, correction: f64) -> Result<()> {
    let compute = dst.dtype.compute();
    let Some(sum) = kernels::find(id::SUM.0, compute, isa).filter(|_| compute.is_float()) else {
        bail!(NotImplemented, "var: not implemented for dtype {} on the CPU", dst.dtype);
    };
    if src.dtype.is_complex() {
        bail!(NotImplemented, "var: not implemented for dtype {} on the CPU", src.dtype);
    }
    let split = Split::new(&src, dst.shape);
    let n = split.outputs;
    if n == 0 {
        return Ok(());
    }
    let load = Load::new(src.dtype, compute, false);
    let job = Job { isa, split: &split, load, sum, double: compute == DType::F64 };
    let block = Block::zeroed(n * size_of::<Moments>()).map_err(oom)?;
    let all = block.as_ptr().cast::<Moments>();
    if split.count > 0 {
        // SAFETY: n moments.
        unsafe { job.fill(all)? };
    }
    // SAFETY: n moments, initialised (zeros are the moments of nothing).
    let all = unsafe { std::slice::from_raw_parts(all, n) };
    // Too few elements give NaN (0 / 0) or infinity, as in PyTorch.
    let left = (split.count as f64 - correction).max(0.0);
    let store = |dst: Arr, f: &dyn Fn(&Moments) -> f64| {
        deliver(&split, dst, compute, |acc| {
            for (i, m) in all.iter().enumerate() {
                let v = f(m);
                // SAFETY: `acc` holds n results of the compute dtype.
                unsafe {
                    if compute == DType::F64 {
                        acc.cast::<f64>().add(i).write(v)
                    } else {
                        acc.cast::<f32>().add(i).write(v as f32)
                    }
                }
            }
            Ok(())
        })
    };
    store(dst, &|m| {
        let v = m.m2 / left;
        if root { v.sqrt() } else { v }
    })?;
    match dst2 {
        Some(d) => store(d, &|m| if m.n == 0.0 { f64::NAN } else { m.mean }),
        None => Ok(()),
    }
}

impl Job<'_> {
    unsafe fn fill(&self, all: *mut Moments) -> Result<()> {
        let s = self.split;
        let n = s.outputs;
        let total = n.saturating_mul(s.count);
        let by_rows = s.by_rows();
        let inner = s.reduced[0];
        let block = block_of(self.isa).min(if self.load.direct(inner.s) { usize::MAX } else { TILE });
        let width = s.kept[0].n.min(COLS);
        let (units, tasks) = if by_rows {
            (s.reduced_runs() * inner.n.div_ceil(block), n)
        } else {
            (s.count.div_ceil(ROWS), (n / s.kept[0].n) * s.kept[0].n.div_ceil(width))
        };
        let mut segments = 1;
        if total >= 4 * GRAIN && tasks < 32 {
            segments = (total / GRAIN).min(128 / tasks.max(1)).min(units).max(1);
        }
        let per = units.div_ceil(segments);
        let segments = units.div_ceil(per);
        let extra = Block::zeroed((segments - 1) * n * size_of::<Moments>()).map_err(oom)?;
        let (first, rest) = (all as usize, extra.as_ptr() as usize);
        let target = |seg: usize| {
            (if seg == 0 { first } else { rest + (seg - 1) * n * size_of::<Moments>() }) as *mut Moments
        };
        let group = (GRAIN / (total / tasks / segments).max(1)).clamp(1, tasks).max(tasks.div_ceil(256));
        pool::parallel(tasks.div_ceil(group) * segments, total as u64 / 5, &|t| {
            let (g, seg) = (t / segments, t % segments);
            let range = seg * per..units.min((seg + 1) * per);
            for task in g * group..tasks.min((g + 1) * group) {
                // SAFETY: the results of this task and segment are written here alone.
                unsafe {
                    if by_rows {
                        self.row(&mut *target(seg).add(task), task, block, range.clone());
                    } else {
                        let chunks = s.kept[0].n.div_ceil(width);
                        let first = (task / chunks) * s.kept[0].n + (task % chunks) * width;
                        let m = width.min(s.kept[0].n - (task % chunks) * width);
                        let out = std::slice::from_raw_parts_mut(target(seg).add(first), m);
                        let rows = range.start * ROWS..s.count.min(range.end * ROWS);
                        self.columns(out, first, rows);
                    }
                }
            }
        });
        for seg in 1..segments {
            for i in 0..n {
                // SAFETY: n moments in either array.
                unsafe { (*all.add(i)).merge(*target(seg).add(i)) };
            }
        }
        Ok(())
    }

    unsafe fn row(&self, out: &mut Moments, output: usize, block: usize, units: Range<usize>) {
        let s = self.split;
        let base = s.src.wrapping_offset(Split::offset(&s.kept, output));
        let Dim { n: len, s: stride } = s.reduced[0];
        let parts = len.div_ceil(block);
        let mut tiles = Tiles::new();
        let none = [0u128; 4];
        for u in units {
            let t = (u % parts) * block;
            let m = block.min(len - t);
            let p = base.wrapping_offset(Split::offset(&s.reduced[1..], u / parts) + t as isize * stride);
            let (mut sum, mut mean, mut m2, mut dev) = (0u64, 0u64, 0u64, 0u64);
            // SAFETY: m elements of this run; results are single elements of at most 8 bytes.
            unsafe {
                let p: *const u8 =
                    if self.load.direct(stride) { p } else { self.load.fetch(m, p, stride, &mut tiles) };
                (self.sum)(What::Row, m, (&raw mut sum).cast(), p, 0, 0, none.as_ptr().cast());
                self.put(&mut mean, self.value(sum) / m as f64);
                let k = Squares {
                    n: m,
                    src: p,
                    mean: (&raw const mean).cast(),
                    acc: (&raw mut m2).cast(),
                    dev: (&raw mut dev).cast(),
                    rows: 1,
                    stride: 0,
                    double: self.double,
                    row: true,
                };
                dispatch_on(self.isa, k);
                out.merge(Moments::of(m, self.value(mean), self.value(dev), self.value(m2)));
            }
        }
    }

    fn value(&self, bits: u64) -> f64 {
        if self.double { f64::from_bits(bits) } else { f32::from_bits(bits as u32) as f64 }
    }
    fn put(&self, bits: &mut u64, v: f64) {
        *bits = if self.double { v.to_bits() } else { (v as f32).to_bits() as u64 };
    }

    unsafe fn columns(&self, out: &mut [Moments], first: usize, rows: Range<usize>) {
        let s = self.split;
        let m = out.len();
        let stride = s.kept[0].s;
        let src = s.src.wrapping_offset(Split::offset(&s.kept, first));
        let inner = s.reduced[0];
        let direct = self.load.direct(stride);
        let none = [0u128; 4];
        let mut tiles = Tiles::new();
        let (mut sums, mut means, mut m2s) = ([0u64; COLS], [0u64; COLS], [0u64; COLS]);
        let mut devs = [0u64; COLS];
        let dev = devs.as_mut_ptr().cast::<u8>();
        let (sum, mean, m2) =
            (sums.as_mut_ptr().cast::<u8>(), means.as_mut_ptr().cast::<u8>(), m2s.as_mut_ptr().cast::<u8>());
        let get = |p: *const u8, i: usize| {
            // SAFETY: i < COLS elements of the compute dtype.
            unsafe {
                if self.double { p.cast::<f64>().add(i).read() } else { p.cast::<f32>().add(i).read() as f64 }
            }
        };
        let mut r0 = rows.start;
        while r0 < rows.end {
            let end = rows.end.min(r0 + ROWS);
            let count = (end - r0) as f64;
            // SAFETY: m <= COLS accumulators; rows are inside the reduced dimensions.
            unsafe {
                sum.write_bytes(0, m * 8);
                m2.write_bytes(0, m * 8);
                dev.write_bytes(0, m * 8);
                for pass in 0..2 {
                    let mut r = r0;
                    while r < end {
                        let mut k = (inner.n - r % inner.n).min(end - r).min(8);
                        let mut p: *const u8 = src.wrapping_offset(Split::offset(&s.reduced, r));
                        if !direct {
                            k = 1;
                            p = self.load.fetch(m, p, stride, &mut tiles);
                        }
                        if pass == 0 {
                            (self.sum)(What::Cols, m, sum, p, k, inner.s, none.as_ptr().cast());
                        } else {
                            let k = Squares {
                                n: m,
                                src: p,
                                mean,
                                acc: m2,
                                dev,
                                rows: k,
                                stride: inner.s,
                                double: self.double,
                                row: false,
                            };
                            dispatch_on(self.isa, k);
                        }
                        r += k;
                    }
                    if pass == 0 {
                        for i in 0..m {
                            let v = get(sum, i) / count;
                            if self.double {
                                mean.cast::<f64>().add(i).write(v)
                            } else {
                                mean.cast::<f32>().add(i).write(v as f32)
                            }
                        }
                    }
                }
            }
            for (i, o) in out.iter_mut().enumerate() {
                o.merge(Moments::of(end - r0, get(mean, i), get(dev, i), get(m2, i)));
            }
            r0 = end;
        }
    }
}

/// Rounding may leave a little below zero; NaN stays (`max` would drop it).
fn not_negative(v: f64) -> f64 {
    if v < 0.0 { 0.0 } else { v }
}
