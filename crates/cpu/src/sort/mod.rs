//! Order along one dimension: stable sort, top-k, order statistics, modes, sorted rows and binary
//! search.
//!
//! Elements become unsigned keys whose order is the wanted one (`key.rs`; all bits flipped for
//! descending order). Long lines are parted by their leading digit (`long.rs`); what fits the cache is
//! sorted as u32 (`bucket.rs`) in vector registers (`network.rs`).

mod bucket;
mod key;
mod line;
mod long;
mod network;
mod out;
mod rows;
mod search;
mod select;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use crate::alloc::Block;
use crate::scan::Lines;
use crate::simd::{Arch, ArchKernel, dispatch};
use crate::{copy, oom, pool};
use key::Key;
use line::{Lines as Scratch, TINY};
use long::LONG;
use out::Out;
use pyrite_core::backend::{Order, Rank};
use pyrite_core::{Arr, Result, bail, match_dtype};

const GRAIN: usize = 4096;

/// Strides and sizes of one sort or selection. `idx` may be null: no positions are wanted.
struct Job<T> {
    lines: Lines,
    src: *const T,
    values: *mut T,
    idx: *mut i64,
    /// Along the dimension: source, values, positions.
    along: [isize; 3],
    n: usize,
    /// Results per line.
    k: usize,
    /// Flips the order.
    flip: u64,
}

// SAFETY: lines are disjoint, each is written by one task.
unsafe impl<T> Sync for Job<T> {}

impl<T: Key> Job<T> {
    #[inline(always)]
    unsafe fn get(&self, o: isize, i: usize) -> T {
        // SAFETY: element i of a line.
        unsafe { *self.src.offset(o + i as isize * self.along[0]) }
    }
    #[inline(always)]
    unsafe fn key(&self, o: isize, i: usize) -> u64 {
        // SAFETY: element i of a line.
        unsafe { self.get(o, i) }.key() ^ self.flip
    }

    /// Runs `f` over all lines, several to a task, compiled for the machine's instruction set.
    fn each_line(&self, ns_per_element: u64, f: impl Fn(&mut Scratch, [isize; 3]) + Sync) {
        let (n, count) = (self.n, self.lines.count);
        let group = (GRAIN / n.max(1)).clamp(1, count.max(1));
        pool::parallel(count.div_ceil(group), (n * count) as u64 * ns_per_element, &|g| {
            dispatch(Each { lines: &self.lines, from: g * group, to: count.min((g + 1) * group), f: &f });
        });
    }

    fn sort(&self) -> Result<()> {
        // Few long lines: threads share each; else each takes whole lines.
        if self.n >= LONG && self.lines.count < 16 {
            // SAFETY: elements and results of a line.
            return (0..self.lines.count).try_for_each(|l| unsafe { self.sort_long(self.lines.at(l)) });
        }
        #[cfg(target_arch = "x86_64")]
        if self.n <= network::SMALL && network::available() {
            // SAFETY: elements and results of one line; the machine was asked.
            self.each_line(
                4,
                #[inline(always)]
                |_, o| unsafe { if self.n <= 16 { self.sort_sixteen(o) } else { self.sort_small(o) } },
            );
            return Ok(());
        }
        if self.n <= TINY && T::BITS <= 32 {
            // SAFETY: elements and results of one line.
            self.each_line(
                6,
                #[inline(always)]
                |_, o| unsafe { self.sort_tiny(o) },
            );
            return Ok(());
        }
        self.each_line(
            8,
            #[inline(always)]
            |s, o| {
                // SAFETY: elements and results of one line.
                unsafe {
                    self.sorted(o[0], s, self.idx.is_null(), &mut Out::new(self, o, self.n));
                }
            },
        );
        Ok(())
    }

    /// Writes the element at a position as the line's only result.
    unsafe fn write_one(&self, o: [isize; 3], at: usize) {
        // SAFETY: the line has one result, and `at` is a position in it.
        unsafe {
            *self.values.offset(o[1]) = self.get(o[0], at);
            if !self.idx.is_null() {
                *self.idx.offset(o[2]) = at as i64;
            }
        }
    }
}

/// A function run over lines `from..to`.
struct Each<'a, F> {
    lines: &'a Lines,
    from: usize,
    to: usize,
    f: &'a F,
}

impl<F: Fn(&mut Scratch, [isize; 3])> ArchKernel for Each<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let mut s = Scratch::default();
        // Lines that follow each other at even steps need no division each.
        let step = match &self.lines.dims[..] {
            [] => Some([0; 3]),
            [(_, s)] => Some(*s),
            _ => None,
        };
        for l in self.from..self.to {
            let o = match step {
                Some(s) => s.map(|s| s * l as isize),
                None => self.lines.at(l),
            };
            (self.f)(&mut s, o);
        }
    }
}

/// What to do with each line.
#[derive(Clone, Copy)]
enum Task {
    Sort,
    First,
    Rank(Rank),
    Mode,
}

fn run(task: Task, values: Arr, idx: Option<Arr>, src: Arr, dim: usize, down: bool) -> Result<()> {
    if src.dtype != values.dtype {
        // The driver works in the source's dtype; anything else goes through scratch.
        let strides = pyrite_core::layout::contiguous_strides(values.shape);
        let block = Block::new(values.numel() * src.dtype.size()).map_err(oom)?;
        let tmp = Arr { ptr: block.as_ptr(), dtype: src.dtype, shape: values.shape, strides: &strides };
        run(task, tmp, idx, src, dim, down)?;
        return copy::copy(values, tmp);
    }
    if values.numel() == 0 {
        return Ok(());
    }
    let (n, k) = (src.shape[dim], values.shape[dim]);
    let idx_strides = idx.map_or(&[][..], |i| i.strides);
    match_dtype!(real, src.dtype, |T| {
        let flip = if down { u64::MAX >> (64 - <T as Key>::BITS) } else { 0 };
        let job = Job::<T> {
            lines: Lines::new(src.shape, dim, [src.strides, values.strides, idx_strides]),
            src: src.ptr.cast(),
            values: values.ptr.cast(),
            idx: idx.map_or(std::ptr::null_mut(), |i| i.ptr.cast()),
            along: [src.strides[dim], values.strides[dim], idx_strides.get(dim).copied().unwrap_or(0)],
            n,
            k,
            flip,
        };
        match task {
            Task::Sort => return job.sort(),
            Task::First => job.first(),
            Task::Rank(r) => job.rank(r),
            Task::Mode => job.mode(),
        }
        Ok(())
    }, else bail!(NotImplemented, "sort: not implemented for dtype {} on the CPU", src.dtype))
}

/// `Backend::sort`.
pub fn sort(values: Arr, idx: Arr, src: Arr, dim: usize, descending: bool) -> Result<()> {
    run(Task::Sort, values, Some(idx), src, dim, descending)
}

/// `Backend::topk`.
pub fn topk(values: Arr, idx: Arr, src: Arr, dim: usize, largest: bool) -> Result<()> {
    run(Task::First, values, Some(idx), src, dim, largest)
}

/// `Backend::order`.
pub fn order(o: Order) -> Result<()> {
    match o {
        Order::Sorted { values, src, dim } => run(Task::Sort, values, None, src, dim, false),
        Order::Rank { values, idx, src, dim, rank } => {
            run(Task::Rank(rank), values, Some(idx), src, dim, false)
        }
        Order::Mode { values, idx, src, dim } => run(Task::Mode, values, Some(idx), src, dim, false),
        Order::Search { dst, seq, values, sorter, right } => search::search(dst, seq, values, sorter, right),
        Order::Rows { idx, src } => rows::rows(idx, src),
    }
}
