//! Elementwise work: a kernel of `pyrite_lanes::formulas` driven over an iteration plan.
//!
//! Arrays that are dense and already hold the compute dtype are handed to the kernel whole. All
//! others go through tiles that fit the first-level cache: each operand is gathered and converted into
//! a tile, the kernel runs over tiles, and the result is converted and scattered. Short inner runs
//! (a broadcast bias of 10 numbers, a channel dimension) share a tile, so that their cost per run is
//! a short copy, not a kernel call.

mod cost;

use crate::cast::{Cast, cast};
use crate::copy::{gather, gather_runs, scatter, splat, stream};
use crate::pool;
use crate::simd::{Isa, isa};
use pyrite_core::backend::Formula;
use pyrite_core::plan::{MAX_OPERANDS, Plan};
use pyrite_core::rows::RowId;
use pyrite_core::{DType, Result, Scalar, bail, ensure};
use pyrite_lanes::formulas::{self, Kernel};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Bytes of one tile: with two or three operands they stay in the first-level cache.
const TILE_BYTES: usize = 8192;
/// Room after a tile: `gather_runs` writes whole vectors.
const SPARE: usize = 64;
/// Outputs from here on are written past the caches: they would push everything else out, and would
/// be gone before the next op reads them.
const STREAM_BYTES: usize = 16 << 20;
/// Up to here `small` does it.
const SMALL: usize = 128;
/// Smallest piece of work for one thread, in elements.
const GRAIN: usize = 16 << 10;

/// `Backend::map`.
pub fn map(row: RowId, formula: Formula, compute: DType, plan: &Plan, params: &[Scalar]) -> Result<()> {
    map_on(isa(), row, formula, compute, plan, params)
}

/// `map` with a given instruction set (which the machine must have), for tests.
pub(crate) fn map_on(
    isa: Isa,
    row: RowId,
    formula: Formula,
    compute: DType,
    plan: &Plan,
    params: &[Scalar],
) -> Result<()> {
    let Some(kernel) = formulas::find(row.0, formula, compute, isa) else {
        bail!(NotImplemented, "{}: not implemented for dtype {compute} on the CPU", row.row().name);
    };
    let r = row.row();
    let (inputs, result) = match formula {
        Formula::Forward => (r.inputs.len(), if r.bool_out { DType::Bool } else { compute }),
        Formula::Grad(i) => (r.grad(i as usize).map_or(0, |g| g.uses.len() + 1), compute),
    };
    // The kernel reads this many pointers and parameters: never fewer.
    ensure!(
        plan.operands == inputs + 1 && params.len() >= r.params.len() && params.len() <= 4,
        Runtime,
        "{}: the kernel takes {inputs} inputs and {} parameters, the call has {} and {}",
        r.name,
        r.params.len(),
        plan.operands.wrapping_sub(1),
        params.len()
    );
    if plan.numel == 0 {
        return Ok(());
    }
    let mut words = [0u128; 4];
    for (w, s) in words.iter_mut().zip(params) {
        *w = u128::from_le_bytes(s.to_bytes(compute));
    }
    let mut want = [compute; MAX_OPERANDS];
    want[0] = result;
    let tiles = Tiles::new(plan, want, kernel, words);
    // SAFETY: operands and parameters were counted above; the driver checked shapes and memory.
    unsafe { tiles.run(|| cost::ps_per_element(row, formula)) };
    Ok(())
}

/// A kernel and the operands it runs over.
pub(crate) struct Tiles<'a> {
    plan: &'a Plan,
    kernel: Kernel,
    params: [u128; 4],
    /// The dtype in which the kernel reads or writes each operand.
    want: [DType; MAX_OPERANDS],
    /// Elements per tile.
    tile: usize,
}

#[repr(C, align(64))]
struct Buffers([[MaybeUninit<[u8; TILE_BYTES + SPARE]>; 2]; MAX_OPERANDS]);

impl Buffers {
    fn at(&mut self, operand: usize, which: usize) -> *mut u8 {
        self.0[operand][which].as_mut_ptr().cast()
    }
}

/// How an operand gets into (or out of) the kernel, the same for all tiles.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// The kernel works on the memory itself.
    Direct,
    /// Consecutive elements of another dtype.
    Cast,
    /// The tile is the same every time: filled once.
    Fixed,
    /// One value per run.
    Splat,
    /// Strided; then converted if need be.
    Gather,
}

impl<'a> Tiles<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        want: [DType; MAX_OPERANDS],
        kernel: Kernel,
        params: [u128; 4],
    ) -> Tiles<'a> {
        Tiles { plan, kernel, params, want, tile: TILE_BYTES / 8 }
    }

    /// # Safety
    /// The plan's operands are valid memory, the kernel takes `plan.operands - 1` inputs.
    pub(crate) unsafe fn run(mut self, ps: impl Fn() -> u64) {
        let plan = self.plan;
        let k = plan.operands;
        let same = (0..k).all(|i| plan.dtypes[i] == self.want[i]);
        let work = || {
            let bytes: u64 = (0..k).map(|i| plan.dtypes[i].size() as u64).sum();
            // Memory moves at some 16 GB/s per core when nothing is in a cache.
            plan.numel as u64 * ps().max(bytes * 20) / 1000
        };
        if same && plan.is_contiguous() {
            let call = |start: usize, n: usize| {
                let mut ins = [std::ptr::null::<u8>(); MAX_OPERANDS];
                for i in 1..k {
                    ins[i - 1] = plan.ptrs[i].wrapping_add(start * plan.dtypes[i].size());
                }
                let out = plan.ptrs[0].wrapping_add(start * plan.dtypes[0].size());
                // SAFETY: start + n <= numel, so every pointer is inside its operand.
                unsafe { (self.kernel)(n, out, ins.as_ptr(), self.params.as_ptr().cast()) };
            };
            if plan.numel <= GRAIN {
                return call(0, plan.numel);
            }
            let (n, size) = pool::chunks(plan.numel, GRAIN);
            let to_stream = plan.numel * plan.dtypes[0].size() >= STREAM_BYTES
                && (plan.ptrs[0] as usize).is_multiple_of(64)
                && !plan.ptrs[1..k].contains(&plan.ptrs[0]);
            return pool::parallel(n, work(), &|c| {
                let start = c * size;
                let n = size.min(plan.numel - start);
                if to_stream {
                    // SAFETY: as in `call`.
                    unsafe { self.streamed(start, n) };
                } else {
                    call(start, n);
                }
            });
        }
        // SAFETY: the caller's promise.
        if plan.numel <= SMALL && plan.ndim == 1 && unsafe { self.small() } {
            return;
        }
        let largest = (0..k).map(|i| plan.dtypes[i].size().max(self.want[i].size())).max().unwrap_or(8);
        self.tile = (TILE_BYTES / largest).min(4096);
        let len = plan.shape[0];
        let this = &self;
        if len > self.tile / 2 {
            let parts = len.div_ceil(self.tile);
            let units = plan.runs() * parts;
            let grain = (GRAIN / len.min(self.tile)).max(1);
            Self::split(units, grain, work, &|r| {
                // SAFETY: the caller's promise.
                unsafe { this.long(parts, r) }
            });
        } else {
            let per = self.tile / len;
            let units = plan.runs().div_ceil(per);
            let grain = (GRAIN / (len * per)).max(1);
            Self::split(units, grain, work, &|r| {
                // SAFETY: the caller's promise.
                unsafe { this.short(per, r) }
            });
        }
    }

    /// A few elements, dense or one for all (`x * 2`): without the large buffers, whose pages cost more
    /// than the work. False if the operands are not like that.
    unsafe fn small(&self) -> bool {
        let plan = self.plan;
        let (n, k) = (plan.numel, plan.operands);
        let dense =
            |i: usize| plan.strides[i][0] == plan.dtypes[i].size() as isize && plan.dtypes[i] == self.want[i];
        if !dense(0) || !(1..k).all(|i| dense(i) || (plan.strides[i][0] == 0 && self.want[i].size() <= 8)) {
            return false;
        }
        let mut room = [const { MaybeUninit::<[u64; SMALL]>::uninit() }; MAX_OPERANDS - 1];
        let mut ins = [std::ptr::null::<u8>(); MAX_OPERANDS];
        // SAFETY: n <= SMALL elements of at most 8 bytes in each tile; operands are dense or one element.
        unsafe {
            for i in 1..k {
                ins[i - 1] = plan.ptrs[i];
                if !dense(i) {
                    let tile = room[i - 1].as_mut_ptr().cast();
                    self.fill_tile(i, tile, plan.ptrs[i], n, self.cast_in(i));
                    ins[i - 1] = tile;
                }
            }
            (self.kernel)(n, plan.ptrs[0], ins.as_ptr(), self.params.as_ptr().cast());
        }
        true
    }

    fn split(units: usize, grain: usize, work: impl Fn() -> u64, f: &(dyn Fn(Range<usize>) + Sync)) {
        if units <= grain {
            return f(0..units);
        }
        // As `pool::chunks`, without rounding to cache lines: a unit is a tile already.
        let size = units.div_ceil(128).max(grain);
        pool::parallel(units.div_ceil(size), work(), &|c| f(c * size..units.min((c + 1) * size)));
    }

    /// Dense operands, result through a tile and past the caches.
    unsafe fn streamed(&self, start: usize, n: usize) {
        let plan = self.plan;
        let size = plan.dtypes[0].size();
        let mut buf = Buffers::new();
        let tile = buf.at(0, 0);
        let step = TILE_BYTES / size.max(2) / 2;
        let mut done = 0;
        while done < n {
            let m = step.min(n - done);
            let mut ins = [std::ptr::null::<u8>(); MAX_OPERANDS];
            for i in 1..plan.operands {
                ins[i - 1] = plan.ptrs[i].wrapping_add((start + done) * plan.dtypes[i].size());
            }
            // SAFETY: inside every operand as start + n <= numel; the tile holds m elements.
            unsafe {
                (self.kernel)(m, tile, ins.as_ptr(), self.params.as_ptr().cast());
                stream(plan.ptrs[0].wrapping_add((start + done) * size), tile, m * size);
            }
            done += m;
        }
        crate::simd::fence();
    }

    fn cast_in(&self, i: usize) -> Option<Cast> {
        (self.plan.dtypes[i] != self.want[i]).then(|| cast(self.want[i], self.plan.dtypes[i]))
    }
    fn cast_out(&self) -> Option<Cast> {
        (self.plan.dtypes[0] != self.want[0]).then(|| cast(self.plan.dtypes[0], self.want[0]))
    }

    /// Fills a tile with `n` copies of the element at `src`, converted.
    unsafe fn fill_tile(&self, i: usize, tile: *mut u8, src: *const u8, n: usize, c: Option<Cast>) {
        let mut one = [0u64; 2];
        let p = one.as_mut_ptr().cast::<u8>();
        // SAFETY: `src` is one element, `one` holds any element, the tile holds n.
        unsafe {
            match c {
                Some(c) => c(1, p, src),
                None => src.copy_to_nonoverlapping(p, self.want[i].size()),
            }
            splat(self.want[i].size(), n, tile, p);
        }
    }

    /// Units are pieces of runs: `parts` per run.
    unsafe fn long(&self, parts: usize, units: Range<usize>) {
        let plan = self.plan;
        let k = plan.operands;
        let len = plan.shape[0];
        let mut buf = Buffers::new();
        let mut ways = [Way::Direct; MAX_OPERANDS];
        let mut casts = [None; MAX_OPERANDS];
        casts[0] = self.cast_out();
        for i in 0..k {
            if i > 0 {
                casts[i] = self.cast_in(i);
            }
            let s = plan.strides[i][0];
            ways[i] = if s == plan.dtypes[i].size() as isize {
                if casts[i].is_none() { Way::Direct } else { Way::Cast }
            } else if s == 0 && i > 0 {
                if plan.strides[i][1..plan.ndim].iter().all(|s| *s == 0) { Way::Fixed } else { Way::Splat }
            } else {
                Way::Gather
            };
            if ways[i] == Way::Fixed {
                // SAFETY: the operand's one element.
                unsafe { self.fill_tile(i, buf.at(i, 0), plan.ptrs[i], self.tile, casts[i]) };
            }
        }
        let (first, last) = (units.start / parts, (units.end - 1) / parts);
        let mut run = first;
        plan.for_runs(first..last + 1, |ptrs| {
            let a = if run == first { units.start % parts } else { 0 };
            let b = if run == last { (units.end - 1) % parts + 1 } else { parts };
            run += 1;
            for i in 1..k {
                if ways[i] == Way::Splat {
                    // SAFETY: the run's one element of this operand.
                    unsafe { self.fill_tile(i, buf.at(i, 0), ptrs[i], self.tile.min(len), casts[i]) };
                }
            }
            for part in a..b {
                let t = part * self.tile;
                let m = self.tile.min(len - t);
                let mut ins = [std::ptr::null::<u8>(); MAX_OPERANDS];
                // SAFETY: elements t..t+m of the run are inside every operand; tiles hold m elements.
                unsafe {
                    for i in 1..k {
                        let p = ptrs[i].wrapping_offset(t as isize * plan.strides[i][0]);
                        let tile = buf.at(i, 0);
                        ins[i - 1] = match ways[i] {
                            Way::Direct => p,
                            Way::Fixed | Way::Splat => tile,
                            Way::Cast => {
                                if let Some(c) = casts[i] {
                                    c(m, tile, p);
                                }
                                tile
                            }
                            Way::Gather => {
                                let raw = if casts[i].is_some() { buf.at(i, 1) } else { tile };
                                gather(plan.dtypes[i].size(), m, raw, p, plan.strides[i][0]);
                                if let Some(c) = casts[i] {
                                    c(m, tile, raw);
                                }
                                tile
                            }
                        };
                    }
                    let p = ptrs[0].wrapping_offset(t as isize * plan.strides[0][0]);
                    let out = if ways[0] == Way::Direct { p } else { buf.at(0, 0) };
                    (self.kernel)(m, out, ins.as_ptr(), self.params.as_ptr().cast());
                    match (ways[0], casts[0]) {
                        (Way::Direct, _) => (),
                        (Way::Cast, Some(c)) => c(m, p, out),
                        (_, c) => {
                            let raw = buf.at(0, 1);
                            let from = c.map_or(out, |c| {
                                c(m, raw, out);
                                raw
                            });
                            scatter(plan.dtypes[0].size(), m, p, plan.strides[0][0], from);
                        }
                    }
                }
            }
        });
    }

    /// Is the operand one dense array over the whole plan?
    fn dense(&self, i: usize) -> bool {
        let mut step = self.plan.dtypes[i].size() as isize;
        (0..self.plan.ndim).all(|d| {
            let ok = self.plan.strides[i][d] == step;
            step *= self.plan.shape[d] as isize;
            ok
        })
    }

    /// Units are groups of `per` whole runs.
    unsafe fn short(&self, per: usize, units: Range<usize>) {
        let plan = self.plan;
        let k = plan.operands;
        let len = plan.shape[0];
        let runs = plan.runs();
        let mut buf = Buffers::new();
        let mut ways = [Way::Direct; MAX_OPERANDS];
        let mut casts = [None; MAX_OPERANDS];
        casts[0] = self.cast_out();
        let mut any = false;
        for i in 0..k {
            if i > 0 {
                casts[i] = self.cast_in(i);
            }
            ways[i] = if self.dense(i) {
                if casts[i].is_none() { Way::Direct } else { Way::Cast }
            } else if i > 0 && plan.strides[i][1..plan.ndim].iter().all(|s| *s == 0) {
                Way::Fixed
            } else {
                any |= i > 0;
                Way::Gather
            };
            if ways[i] == Way::Fixed {
                let size = plan.dtypes[i].size();
                let tile = buf.at(i, 0);
                let raw = if casts[i].is_some() { buf.at(i, 1) } else { tile };
                // SAFETY: a run has len elements; `per` of them fit the tile.
                unsafe {
                    gather_runs(size, len, per.min(runs), raw, plan.ptrs[i], plan.strides[i][0], 0);
                    if let Some(c) = casts[i] {
                        c(len * per.min(runs), tile, raw);
                    }
                }
            }
        }
        for unit in units {
            let first = unit * per;
            let end = runs.min(first + per);
            let m = (end - first) * len;
            let mut ins = [std::ptr::null::<u8>(); MAX_OPERANDS];
            // SAFETY: runs first..end exist; their m elements fit the tiles.
            unsafe {
                if any {
                    // Runs that follow each other along dimension 1 at once.
                    let side = if plan.ndim > 1 { plan.shape[1] } else { 1 };
                    let mut run = first;
                    while run < end {
                        let n = (side - run % side).min(end - run);
                        plan.for_runs(run..run + 1, |ptrs| {
                            for i in 1..k {
                                if ways[i] == Way::Gather {
                                    let size = plan.dtypes[i].size();
                                    let raw = buf.at(i, casts[i].is_some() as usize);
                                    let raw = raw.add((run - first) * len * size);
                                    let s = plan.strides[i];
                                    gather_runs(size, len, n, raw, ptrs[i], s[0], s[1]);
                                }
                            }
                        });
                        run += n;
                    }
                }
                for i in 1..k {
                    let p = plan.ptrs[i].wrapping_add(first * len * plan.dtypes[i].size());
                    let (tile, raw) = (buf.at(i, 0), buf.at(i, 1));
                    ins[i - 1] = match (ways[i], casts[i]) {
                        (Way::Direct, _) => p,
                        (Way::Cast, Some(c)) => {
                            c(m, tile, p);
                            tile
                        }
                        (Way::Gather, Some(c)) => {
                            c(m, tile, raw);
                            tile
                        }
                        _ => tile,
                    };
                }
                let size = plan.dtypes[0].size();
                let p = plan.ptrs[0].wrapping_add(first * len * size);
                let out = if ways[0] == Way::Direct { p } else { buf.at(0, 0) };
                (self.kernel)(m, out, ins.as_ptr(), self.params.as_ptr().cast());
                match (ways[0], casts[0]) {
                    (Way::Direct, _) => (),
                    (Way::Cast, Some(c)) => c(m, p, out),
                    (_, c) => {
                        let raw = buf.at(0, 1);
                        let from = c.map_or(out, |c| {
                            c(m, raw, out);
                            raw
                        });
                        let mut at = 0;
                        plan.for_runs(first..end, |ptrs| {
                            scatter(size, len, ptrs[0], plan.strides[0][0], from.add(at * size));
                            at += len;
                        });
                    }
                }
            }
        }
    }
}

impl Buffers {
    #[inline(always)]
    fn new() -> Buffers {
        Buffers([[const { MaybeUninit::uninit() }; 2]; MAX_OPERANDS])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
