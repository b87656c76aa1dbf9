//! Reductions over any set of dimensions, in an order that depends on shapes alone.
//!
//! Two strategies. *Rows*: the inner loop runs along a reduced dimension; blocks that fit the cache
//! give partial results, combined like a tree, so that a float sum of 10^8 numbers is as good as one
//! of 10^4. *Columns*: the inner loop runs along a kept dimension with one accumulator per column;
//! every 64 rows the accumulators move up one level, for the same reason. Operands of other dtypes or
//! with strides go through tiles. Long reductions with few results are cut into segments whose
//! partial results are combined in order. Reduced dimensions on both sides of a kept one are reduced
//! row by row first, then those results column by column.

mod var;

use crate::alloc::Block;
use crate::cast::{Cast, cast};
use crate::copy::{self, gather};
use crate::simd::{Isa, isa};
use crate::{oom, pool};
use pyrite_core::backend::ReduceOp;
use pyrite_core::rows::reductions::id;
use pyrite_core::{Arr, DType, Result, Scalar, bail};
use pyrite_lanes::reductions::{self as kernels, Kernel, What};
use smallvec::SmallVec;
use std::mem::MaybeUninit;

/// Elements of a tile of operands that need gathering or conversion.
pub(crate) const TILE: usize = 1024;
/// Elements whose sum is taken without a tree: some 64 per accumulator of the kernel.
pub(crate) fn block_of(isa: Isa) -> usize {
    if isa == Isa::Scalar { 256 } else { 4096 }
}
/// Smallest piece of work for one thread, in elements.
const GRAIN: usize = 32 << 10;

/// A dimension of the source: size and stride in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dim {
    pub n: usize,
    pub s: isize,
}
pub(crate) type DimList = SmallVec<[Dim; 4]>;

/// The source split into kept and reduced dimensions, innermost first, neighbours merged.
pub(crate) struct Split {
    pub src: *mut u8,
    pub kept: DimList,
    pub reduced: DimList,
    /// Number of results, and of elements that go into each.
    pub outputs: usize,
    pub count: usize,
    /// Element strides of a dense result array in the order of `kept`, per original dimension.
    pub dense: SmallVec<[isize; 6]>,
}

// SAFETY: an address; kernels that use it say why they may.
unsafe impl Sync for Split {}

impl Split {
    pub fn new(src: &Arr, dst_shape: &[usize]) -> Split {
        let size = src.dtype.size() as isize;
        let mut kept: SmallVec<[(usize, Dim); 6]> = SmallVec::new();
        let mut reduced: SmallVec<[(usize, Dim); 6]> = SmallVec::new();
        let (mut outputs, mut count) = (1, 1);
        for d in 0..src.shape.len() {
            let n = src.shape[d];
            if n == dst_shape[d] {
                outputs *= n;
            } else {
                count *= n;
            }
            if n != 1 {
                let list = if n == dst_shape[d] { &mut kept } else { &mut reduced };
                list.push((d, Dim { n, s: src.strides[d] * size }));
            }
        }
        // Innermost first. Stable, so broadcast dimensions keep their place among themselves.
        let key = |x: &(usize, Dim)| (x.1.s.unsigned_abs(), usize::MAX - x.0);
        kept.sort_by_key(key);
        reduced.sort_by_key(key);
        let mut dense: SmallVec<[isize; 6]> = smallvec::smallvec![0; src.shape.len()];
        let mut step = 1isize;
        for (d, k) in &kept {
            dense[*d] = step;
            step *= k.n as isize;
        }
        let merge = |list: &[(usize, Dim)]| {
            let mut out: DimList = SmallVec::new();
            for (_, d) in list {
                if let Some(last) = out.last_mut()
                    && last.s * last.n as isize == d.s
                {
                    last.n *= d.n;
                } else {
                    out.push(*d);
                }
            }
            if out.is_empty() {
                out.push(Dim { n: 1, s: 0 });
            }
            out
        };
        let (kept, reduced) = (merge(&kept), merge(&reduced));
        Split { src: src.ptr, kept, reduced, outputs, count, dense }
    }

    /// The byte offset of the `i`-th element over `dims`, innermost first.
    pub fn offset(dims: &[Dim], mut i: usize) -> isize {
        let mut o = 0;
        for d in dims {
            o += (i % d.n) as isize * d.s;
            i /= d.n;
        }
        o
    }
    /// Do kept dimensions lie between short runs of the reduced ones? Then memory is read in its order
    /// only if the runs of neighbouring results take turns.
    pub fn nested(&self, block: usize) -> bool {
        let [short, next, ..] = self.reduced[..] else { return false };
        let k = self.kept[0];
        self.by_rows()
            && short.n <= block
            && k.n >= 4
            && short.s.unsigned_abs() < k.s.unsigned_abs()
            && k.s.unsigned_abs() < next.s.unsigned_abs()
    }
    /// Should the inner loop run along a reduced dimension?
    pub fn by_rows(&self) -> bool {
        let (k, r) = (self.kept[0], self.reduced[0]);
        if self.outputs == 1 {
            return true;
        }
        if self.count == 1 {
            return false;
        }
        if r.s.unsigned_abs() < k.s.unsigned_abs() { r.n >= 32 || k.n < 8 } else { k.n < 8 && r.n >= 64 }
    }
}

/// How source elements become elements of the compute dtype.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub size: usize,
    /// Conversions in order (counting goes through bool).
    pub casts: [Option<Cast>; 2],
}

impl Load {
    pub fn new(from: DType, to: DType, truth: bool) -> Load {
        let step = |a: DType, b: DType| (a != b).then(|| cast(b, a));
        let casts = if truth && from != DType::Bool {
            [step(from, DType::Bool), step(DType::Bool, to)]
        } else {
            [step(from, to), None]
        };
        Load { size: from.size(), casts }
    }
    /// No tile is needed where elements lie `stride` apart.
    pub fn direct(&self, stride: isize) -> bool {
        stride == self.size as isize && self.casts[0].is_none()
    }
    /// Brings `n <= TILE` elements into `tiles[0]` in the compute dtype.
    ///
    /// # Safety
    /// The elements exist.
    pub unsafe fn fetch(&self, n: usize, src: *const u8, stride: isize, tiles: &mut Tiles) -> *const u8 {
        let (t0, t1) = (tiles.at(0), tiles.at(1));
        // SAFETY: the caller's promise; each tile holds TILE elements of any dtype.
        unsafe {
            match self.casts {
                [None, _] => gather(self.size, n, t0, src, stride),
                [Some(c), second] => {
                    let raw = if stride == self.size as isize {
                        src
                    } else {
                        gather(self.size, n, t1, src, stride);
                        t1
                    };
                    match second {
                        None => c(n, t0, raw),
                        Some(d) => {
                            let t2 = tiles.at(2);
                            c(n, t2, raw);
                            d(n, t0, t2);
                        }
                    }
                }
            }
        }
        t0
    }
}

/// Room for `K` tiles of any dtype.
#[repr(C, align(64))]
pub(crate) struct Tiles([MaybeUninit<[u8; TILE * 16]>; 3]);
impl Tiles {
    #[inline(always)]
    pub fn new() -> Tiles {
        Tiles([const { MaybeUninit::uninit() }; 3])
    }
    pub fn at(&mut self, i: usize) -> *mut u8 {
        self.0[i].as_mut_ptr().cast()
    }
}

/// `Backend::reduce`.
pub fn reduce(op: ReduceOp, dst: Arr, dst2: Option<Arr>, src: Arr, params: &[f64]) -> Result<()> {
    reduce_on(isa(), op, dst, dst2, src, params)
}

pub(crate) fn reduce_on(
    isa: Isa,
    op: ReduceOp,
    dst: Arr,
    dst2: Option<Arr>,
    src: Arr,
    params: &[f64],
) -> Result<()> {
    let row = match op {
        ReduceOp::Row(row) => row,
        ReduceOp::Var | ReduceOp::Std => {
            return var::run(
                isa,
                op == ReduceOp::Std,
                dst,
                dst2,
                src,
                params.first().copied().unwrap_or(1.0),
            );
        }
    };
    // Bool results (any, all as amax, amin) are computed as bytes 0 and 1.
    let to_bool = dst.dtype.is_bool();
    let compute = if to_bool { DType::U8 } else { dst.dtype.compute() };
    let (mut run, mut truth) = (row, to_bool);
    if row == id::COUNT_NONZERO && !compute.is_float() {
        // A count of truth values: comparing after conversion would lose what is between 0 and 1.
        (run, truth) = (id::SUM, true);
    }
    let Some(kernel) = kernels::find(run.0, compute, isa) else {
        bail!(NotImplemented, "{}: not implemented for dtype {} on the CPU", row.row().name, dst.dtype);
    };
    if src.dtype.is_complex() && !compute.is_complex() && !truth {
        bail!(NotImplemented, "{}: not implemented for dtype {} on the CPU", row.row().name, src.dtype);
    }
    let mut words = [0u128; 4];
    for (w, v) in words.iter_mut().zip(params) {
        *w = u128::from_le_bytes(Scalar::Float(*v).to_bytes(compute));
    }
    let split = Split::new(&src, dst.shape);
    if split.outputs == 0 {
        return Ok(());
    }
    // Bool sources hold 0 or 1 already only if they come from here: foreign bytes go through the cast.
    let load = Load::new(src.dtype, if to_bool { DType::Bool } else { compute }, truth);
    let job = Job { split: &split, load, kernel, params: words, size: compute.size(), block: block_of(isa) };
    deliver(&split, dst, if to_bool { DType::Bool } else { compute }, |acc| job.run(acc))
}

/// Runs `f` on a dense array of results in the order of `split.kept`: `dst` itself if it is that,
/// else scratch that is copied over.
pub(crate) fn deliver(
    split: &Split,
    dst: Arr,
    compute: DType,
    f: impl FnOnce(*mut u8) -> Result<()>,
) -> Result<()> {
    let fits = dst.dtype == compute
        && dst.shape.iter().zip(dst.strides).zip(&split.dense).all(|((n, s), d)| *n == 1 || s == d);
    if fits {
        return f(dst.ptr);
    }
    let block = Block::new(split.outputs * compute.size()).map_err(oom)?;
    f(block.as_ptr())?;
    copy::copy(dst, Arr { ptr: block.as_ptr(), dtype: compute, shape: dst.shape, strides: &split.dense })
}

struct Job<'a> {
    split: &'a Split,
    load: Load,
    kernel: Kernel,
    params: [u128; 4],
    /// Bytes of an element of the compute dtype.
    size: usize,
    block: usize,
}

impl Job<'_> {
    /// # Safety
    /// As for [`Kernel`].
    #[inline]
    unsafe fn call(&self, what: What, n: usize, acc: *mut u8, src: *const u8, rows: usize, stride: isize) {
        // SAFETY: the caller's promise.
        unsafe { (self.kernel)(what, n, acc, src, rows, stride, self.params.as_ptr().cast()) }
    }

    fn run(&self, acc: *mut u8) -> Result<()> {
        let s = self.split;
        let n = s.outputs;
        if s.count == 0 {
            // SAFETY: `acc` holds n results.
            unsafe { self.call(What::Start, n, acc, acc, 0, 0) };
        } else {
            let nested = s.nested(self.block());
            let by_rows = s.by_rows() && !nested;
            // Rows that `columns` takes in: of elements, or of rows' results.
            let rows = if nested { s.reduced_runs() } else { s.count };
            // Pieces along the reduced dimensions: only where results alone give too little to share.
            let total = n.saturating_mul(s.count);
            let (unit, independent) = if by_rows {
                (self.block(), n)
            } else {
                (64, (n / s.kept[0].n) * s.kept[0].n.div_ceil(TILE))
            };
            let units =
                if by_rows { s.reduced_runs() * s.reduced[0].n.div_ceil(unit) } else { rows.div_ceil(unit) };
            let mut segments = 1;
            if total >= 4 * GRAIN && independent < 32 {
                segments = (total / GRAIN).min(128 / independent.max(1)).min(units).max(1);
            }
            let per = units.div_ceil(segments);
            let segments = units.div_ceil(per);
            let block = if segments > 1 {
                Some(Block::new((segments - 1) * n * self.size).map_err(oom)?)
            } else {
                None
            };
            // Segment 0 writes the result itself.
            let at = |seg: usize| match (&block, seg) {
                (Some(b), 1..) => b.as_ptr().wrapping_add((seg - 1) * n * self.size),
                _ => acc,
            };
            let ns = total as u64 / 8 + n as u64 * 5;
            let first = acc as usize;
            let rest = at(1) as usize;
            let target = |seg: usize| if seg == 0 { first } else { rest + (seg - 1) * n * self.size };
            if by_rows {
                let group = (GRAIN / s.count.div_ceil(segments).max(1)).clamp(1, n).max(n.div_ceil(256));
                let groups = n.div_ceil(group);
                pool::parallel(groups * segments, ns, &|t| {
                    let (g, seg) = (t / segments, t % segments);
                    let range = seg * per..units.min((seg + 1) * per);
                    if segments == 1 && self.batched() {
                        // SAFETY: results of this task alone.
                        return unsafe { self.batch(first as *mut u8, g * group..n.min((g + 1) * group)) };
                    }
                    for o in g * group..n.min((g + 1) * group) {
                        // SAFETY: result o of segment `seg`, written by this task alone.
                        unsafe { self.one((target(seg) as *mut u8).add(o * self.size), o, range.clone()) };
                    }
                });
            } else {
                let cols = s.kept[0].n;
                let width = cols.min(TILE);
                let chunks = cols.div_ceil(width);
                let tasks = (n / cols) * chunks;
                let group = (GRAIN / (s.count.div_ceil(segments) * width).max(1))
                    .clamp(1, tasks)
                    .max(tasks.div_ceil(256));
                let groups = tasks.div_ceil(group);
                pool::parallel(groups * segments, ns, &|t| {
                    let (g, seg) = (t / segments, t % segments);
                    let range = seg * per * unit..rows.min((seg + 1) * per * unit);
                    for task in g * group..tasks.min((g + 1) * group) {
                        let (p, c) = (task / chunks, task % chunks);
                        let (c0, m) = (c * width, width.min(cols - c * width));
                        let base = Split::offset(&s.kept, p * cols + c0);
                        // SAFETY: results c0..c0+m of run p, written by this task alone.
                        unsafe {
                            let acc = (target(seg) as *mut u8).add((p * cols + c0) * self.size);
                            self.columns(acc, m, s.src.wrapping_offset(base), range.clone(), nested);
                        }
                    }
                });
            }
            // Combine segments in pairs, then pairs of pairs: the same order whoever computed them.
            let mut step = 1;
            while step < segments {
                for i in (0..segments - step).step_by(2 * step) {
                    // SAFETY: two arrays of n partial results.
                    unsafe { self.call(What::Merge, n, at(i), at(i + step), 0, 0) };
                }
                step *= 2;
            }
        }
        // SAFETY: n accumulators.
        unsafe { self.call(What::Finish, n, acc, acc, s.count, 0) };
        Ok(())
    }

    fn block(&self) -> usize {
        if self.load.direct(self.split.reduced[0].s) { self.block } else { self.block.min(TILE) }
    }

    /// One result from the given units (blocks of runs along the innermost reduced dimension).
    unsafe fn one(&self, acc: *mut u8, output: usize, units: std::ops::Range<usize>) {
        let s = self.split;
        let base = s.src.wrapping_offset(Split::offset(&s.kept, output));
        let inner = s.reduced[0];
        let block = self.block();
        let parts = inner.n.div_ceil(block);
        let direct = self.load.direct(inner.s);
        if units.len() == 1 && direct {
            let p = base
                .wrapping_offset(Split::offset(&s.reduced[1..], units.start / parts))
                .wrapping_offset((units.start % parts * block) as isize * inner.s);
            let m = block.min(inner.n - units.start % parts * block);
            // SAFETY: m elements of the one run.
            return unsafe { self.call(What::Row, m, acc, p, 0, 0) };
        }
        let mut tiles = Tiles::new();
        // The tree: `levels[i]` holds the result of 2^i blocks where bit i of `done` is set.
        let mut levels = [[0u64; 2]; 64];
        let mut done = 0usize;
        for u in units {
            let (run, part) = (u / parts, u % parts);
            let t = part * block;
            let m = block.min(inner.n - t);
            let p = base
                .wrapping_offset(Split::offset(&s.reduced[1..], run))
                .wrapping_offset(t as isize * inner.s);
            let mut value = [0u64; 2];
            let v = value.as_mut_ptr().cast::<u8>();
            // SAFETY: m elements of this run; levels hold single elements.
            unsafe {
                let p = if direct { p } else { self.load.fetch(m, p, inner.s, &mut tiles) };
                self.call(What::Row, m, v, p, 0, 0);
                let mut level = 0;
                while done >> level & 1 == 1 {
                    let l = levels[level].as_mut_ptr().cast::<u8>();
                    self.call(What::Merge, 1, l, v, 0, 0);
                    l.copy_to_nonoverlapping(v, self.size);
                    level += 1;
                }
                levels[level] = value;
            }
            done += 1;
        }
        let mut first = true;
        for level in 0..64 {
            if done >> level & 1 == 1 {
                let l = levels[level].as_mut_ptr().cast::<u8>();
                // SAFETY: single elements.
                unsafe {
                    if !first {
                        self.call(What::Merge, 1, l, acc, 0, 0);
                    }
                    l.copy_to_nonoverlapping(acc, self.size);
                }
                first = false;
            }
        }
    }

    /// Are short dense rows of another dtype next to each other?
    fn batched(&self) -> bool {
        let (k, r, size) = (self.split.kept[0], self.split.reduced[0], self.load.size as isize);
        self.load.casts[0].is_some()
            && (self.split.kept.len(), self.split.reduced.len()) == (1, 1)
            && r.n <= TILE / 2
            && r.s == size
            && k.s == r.n as isize * size
    }

    /// Results `outputs` of rows that are converted several at a time.
    unsafe fn batch(&self, acc: *mut u8, outputs: std::ops::Range<usize>) {
        let row = self.split.reduced[0];
        let k = TILE / row.n;
        let mut tiles = Tiles::new();
        for o in outputs.clone().step_by(k) {
            let m = k.min(outputs.end - o);
            let p = self.split.src.wrapping_offset(o as isize * self.split.kept[0].s);
            // SAFETY: m rows of row.n elements each, which fit a tile; m results.
            unsafe {
                let p = self.load.fetch(m * row.n, p, row.s, &mut tiles);
                for j in 0..m {
                    let (to, from) = (acc.add((o + j) * self.size), p.add(j * row.n * self.size));
                    self.call(What::Row, row.n, to, from, 0, 0);
                }
            }
        }
    }

    /// `m` neighbouring results from rows `rows` of the flattened reduced dimensions; `nested`: of all
    /// but the innermost one, where each element of a row is itself the result of a dense row.
    unsafe fn columns(
        &self,
        acc: *mut u8,
        m: usize,
        src: *const u8,
        rows: std::ops::Range<usize>,
        nested: bool,
    ) {
        const STEP: usize = 64;
        let s = self.split;
        let stride = s.kept[0].s;
        let dims = &s.reduced[nested as usize..];
        let short = s.reduced[0];
        let direct = self.load.direct(if nested { short.s } else { stride });
        let inner = dims[0];
        let mut results = Tiles::new();
        let mut tiles = Tiles::new();
        let mut sums = Tiles::new();
        let many = rows.len() > STEP;
        let (l0, l1) = (sums.at(0), sums.at(1));
        // SAFETY: m <= TILE results and tiles of TILE elements; rows are inside the reduced dimensions.
        unsafe {
            self.call(What::Start, m, acc, acc, 0, 0);
            if many {
                self.call(What::Start, m, l1, l1, 0, 0);
            }
            let (mut r, mut group) = (rows.start, 0);
            while r < rows.end {
                let end = rows.end.min(r + STEP);
                let sum = if many { l0 } else { acc };
                if many {
                    self.call(What::Start, m, l0, l0, 0, 0);
                }
                while r < end {
                    // Rows that lie evenly, at most eight streams at once.
                    let left = (inner.n - r % inner.n).min(end - r);
                    let p = src.wrapping_offset(Split::offset(dims, r));
                    if nested {
                        let out = results.at(0);
                        for i in 0..m {
                            let p = p.wrapping_offset(i as isize * stride);
                            let p = if direct { p } else { self.load.fetch(short.n, p, short.s, &mut tiles) };
                            self.call(What::Row, short.n, out.add(i * self.size), p, 0, 0);
                        }
                        self.call(What::Merge, m, sum, out, 0, 0);
                        r += 1;
                    } else if direct {
                        let k = left.min(8);
                        self.call(What::Cols, m, sum, p, k, inner.s);
                        r += k;
                    } else {
                        let p = self.load.fetch(m, p, stride, &mut tiles);
                        self.call(What::Cols, m, sum, p, 1, 0);
                        r += 1;
                    }
                }
                if many {
                    self.call(What::Merge, m, l1, l0, 0, 0);
                    group += 1;
                    if group == STEP {
                        self.call(What::Merge, m, acc, l1, 0, 0);
                        self.call(What::Start, m, l1, l1, 0, 0);
                        group = 0;
                    }
                }
            }
            if many {
                self.call(What::Merge, m, acc, l1, 0, 0);
            }
        }
    }
}

impl Split {
    /// Number of runs along the innermost reduced dimension, per result.
    pub fn reduced_runs(&self) -> usize {
        self.reduced[1..].iter().map(|d| d.n).product()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests;
