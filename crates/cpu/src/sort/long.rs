//! One long line, which threads share: its leading digit parts it into buckets, each of which is sorted
//! in the cache and written. The order inside a bucket is the line's at every step, so threads do not
//! show. Keys of a short range are counted instead.

use super::Job;
use super::bucket::{Digit, Form, Item, Scratch, finish};
use super::key::Key;
use super::out::Out;
use crate::alloc::Block;
use crate::gemm::Shared;
use crate::simd::{Arch, ArchKernel, dispatch};
use crate::{oom, pool};
use pyrite_core::{Result, interrupt};
use std::mem::MaybeUninit;
use std::ops::Range;

/// From here on one line is worth several threads.
pub const LONG: usize = 1 << 16;
/// Keys of a range up to here are counted; without positions to move, up to the second.
const COUNTED: [u64; 2] = [1 << 12, 1 << 16];

/// A function compiled for the machine's instruction set.
struct Run<F>(F);

impl<F: FnOnce()> ArchKernel for Run<F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        (self.0)()
    }
}

/// A line in pieces, and for each of them a counter per bucket.
struct Parts {
    n: usize,
    size: usize,
    count: usize,
}

impl Parts {
    fn new(n: usize) -> Parts {
        // Counters have to be cleared and summed up, so there are few parts; what is sorted does not
        // depend on them.
        let threads = pool::num_threads();
        let most = if threads == 1 { 1 } else { (2 * threads).min(32) };
        let size = n.div_ceil(most).max(16 << 10);
        Parts { n, size, count: n.div_ceil(size) }
    }
    fn range(&self, c: usize) -> Range<usize> {
        c * self.size..self.n.min((c + 1) * self.size)
    }
    /// Runs a kernel on each part and its counters.
    fn each<K: ArchKernel<Out = ()>>(
        &self,
        counts: &mut [u32],
        ns: u64,
        kernel: impl Fn(Range<usize>, *mut u32) -> K + Sync,
    ) {
        let k = counts.len() / self.count;
        let cp = Shared(counts.as_mut_ptr());
        // SAFETY: part c's counters are inside.
        pool::parallel(self.count, ns, &|c| dispatch(kernel(self.range(c), unsafe { cp.get().add(c * k) })));
    }
    /// Counters to the first place of each part's elements in each bucket; where each bucket starts, and
    /// the end.
    fn starts(&self, counts: &mut [u32]) -> Vec<usize> {
        let k = counts.len() / self.count;
        let mut starts = Vec::with_capacity(k + 1);
        let mut sum = 0u32;
        for b in 0..k {
            starts.push(sum as usize);
            for c in 0..self.count {
                let x = &mut counts[c * k + b];
                (*x, sum) = (sum, sum.wrapping_add(*x));
            }
        }
        starts.push(self.n);
        starts
    }
}

/// Which of `k` buckets a key is in. What is not below `k` is the last one's: a source that is written to
/// meanwhile may have other keys than it was asked for before.
trait Bucket: Copy {
    fn of(self, key: u64) -> usize;
}
/// Keys themselves, counted from the first.
#[derive(Clone, Copy)]
struct Values {
    least: u64,
    last: usize,
}
impl Bucket for Values {
    #[inline(always)]
    fn of(self, key: u64) -> usize {
        (key.wrapping_sub(self.least) as usize).min(self.last)
    }
}
/// A digit of keys, counted from a base.
#[derive(Clone, Copy)]
struct Based {
    base: u64,
    digit: Digit,
    last: usize,
}
impl Bucket for Based {
    #[inline(always)]
    fn of(self, key: u64) -> usize {
        self.digit.of(key.wrapping_sub(self.base)).min(self.last)
    }
}

/// Where elements of a line go, one by one.
trait Place<T>: Copy {
    /// What element `i` is there.
    type Made: Copy + Default;
    fn make(self, i: usize, key: u64) -> Self::Made;
    /// # Safety
    /// `slot` is a result that belongs to the caller.
    unsafe fn put(self, slot: usize, x: T, made: Self::Made);
}

/// A stretch of a line. What loops need is copied into locals: through references it would be read
/// again after every store.
struct Stretch<T> {
    src: *const T,
    step: isize,
    flip: u64,
    range: Range<usize>,
}

/// Elements looked at together, so that what can be computed for several at once is.
const BLOCK: usize = 64;

impl<T: Key> Stretch<T> {
    /// Calls `f` with the first place, the elements and the keys of each block.
    ///
    /// # Safety
    /// The elements are there.
    #[inline(always)]
    unsafe fn blocks(self, mut f: impl FnMut(usize, &[T], &[u64])) {
        let Stretch { src, step, flip, range } = self;
        let mut copies = [const { MaybeUninit::<T>::uninit() }; BLOCK];
        let mut keys = [0; BLOCK];
        let mut i = range.start;
        while i < range.end {
            let m = BLOCK.min(range.end - i);
            // SAFETY: elements of the line; `m` of them are copied before they are read.
            let xs = unsafe {
                let mut xs = src.wrapping_add(i);
                if step != 1 {
                    for (j, x) in copies[..m].iter_mut().enumerate() {
                        x.write(*src.offset((i + j) as isize * step));
                    }
                    xs = copies.as_ptr().cast();
                }
                std::slice::from_raw_parts(xs, m)
            };
            for (k, x) in keys.iter_mut().zip(xs) {
                *k = x.key() ^ flip;
            }
            f(i, xs, &keys[..m]);
            i += m;
        }
    }
    /// Calls `f` with each place, element and key.
    ///
    /// # Safety
    /// The elements are there.
    #[inline(always)]
    unsafe fn walk(self, mut f: impl FnMut(usize, T, u64)) {
        let Stretch { src, step, flip, range } = self;
        if step == 1 {
            for i in range {
                // SAFETY: element i of the line.
                let x = unsafe { *src.add(i) };
                f(i, x, x.key() ^ flip);
            }
        } else {
            for i in range {
                // SAFETY: as above.
                let x = unsafe { *src.offset(i as isize * step) };
                f(i, x, x.key() ^ flip);
            }
        }
    }
}

/// Counts the elements of each bucket.
struct Count<T, B> {
    line: Stretch<T>,
    bucket: B,
    /// As many as there are buckets.
    counts: *mut u32,
}
impl<T: Key, B: Bucket> ArchKernel for Count<T, B> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Count { line, bucket, counts } = self;
        // SAFETY: elements of the line; buckets are below their number.
        unsafe {
            line.blocks(
                #[inline(always)]
                |_, _, keys| {
                    let mut at = [0u32; BLOCK];
                    for (at, key) in at.iter_mut().zip(keys) {
                        *at = bucket.of(*key) as u32;
                    }
                    for at in &at[..keys.len()] {
                        *counts.add(*at as usize) += 1;
                    }
                },
            )
        }
    }
}

/// Deals elements to buckets.
struct Deal<T, B, P> {
    line: Stretch<T>,
    bucket: B,
    slots: *mut u32,
    n: usize,
    place: P,
}
impl<T: Key, B: Bucket, P: Place<T>> ArchKernel for Deal<T, B, P> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Deal { line, bucket, slots, n, place } = self;
        // SAFETY: elements of the line; buckets are below their number; slots are below n, or fail the
        // test, and no other part's: the counts gave each its own stretch. (A source written to meanwhile
        // can break that; then results are lost, no memory.)
        unsafe {
            line.blocks(
                #[inline(always)]
                |from, xs, keys| {
                    let mut at = [0u32; BLOCK];
                    let mut made = [P::Made::default(); BLOCK];
                    for (at, key) in at.iter_mut().zip(keys) {
                        *at = bucket.of(*key) as u32;
                    }
                    for (j, (made, key)) in made.iter_mut().zip(keys).enumerate() {
                        *made = place.make(from + j, *key);
                    }
                    for (j, x) in xs.iter().enumerate() {
                        let next = slots.add(at[j] as usize);
                        let slot = *next;
                        // Before the element is stored: the compiler cannot know that it goes elsewhere.
                        *next = slot.wrapping_add(1);
                        if (slot as usize) < n {
                            place.put(slot as usize, *x, made[j]);
                        }
                    }
                },
            )
        }
    }
}

/// To the results: positions, and values where keys do not tell them.
#[derive(Clone, Copy)]
struct Results<T> {
    values: *mut T,
    idx: *mut i64,
    steps: [isize; 2],
}
impl<T: Key> Place<T> for Results<T> {
    type Made = i64;
    #[inline(always)]
    fn make(self, i: usize, _: u64) -> i64 {
        i as i64
    }
    #[inline(always)]
    unsafe fn put(self, slot: usize, x: T, i: i64) {
        // SAFETY: the caller's promise.
        unsafe {
            if T::FLOAT {
                // Floats that are equal need not be the same.
                *self.values.offset(slot as isize * self.steps[0]) = x;
            }
            if !self.idx.is_null() {
                *self.idx.offset(slot as isize * self.steps[1]) = i;
            }
        }
    }
}

/// To items.
#[derive(Clone, Copy)]
struct Items<I> {
    to: *mut I,
    form: Form,
}
impl<T: Key, I: Item> Place<T> for Items<I> {
    type Made = I;
    #[inline(always)]
    fn make(self, i: usize, key: u64) -> I {
        I::new(key.wrapping_sub(self.form.base), i, self.form)
    }
    #[inline(always)]
    unsafe fn put(self, slot: usize, _: T, item: I) {
        // SAFETY: the caller's promise.
        unsafe { *self.to.add(slot) = item }
    }
}

impl<T: Key> Job<T> {
    /// A part of the line at an offset in the source.
    fn stretch(&self, o: isize, range: Range<usize>) -> Stretch<T> {
        Stretch { src: self.src.wrapping_offset(o), step: self.along[0], flip: self.flip, range }
    }

    fn extremes(&self, o: isize, parts: &Parts) -> (u64, u64) {
        let mut found = vec![(u64::MAX, 0u64); parts.count];
        let to = Shared(found.as_mut_ptr());
        pool::parallel(parts.count, parts.n as u64 / 4, &|c| {
            dispatch(Run(
                #[inline(always)]
                || {
                    let (mut least, mut most) = (u64::MAX, 0);
                    // SAFETY: part c of the line.
                    unsafe {
                        self.stretch(o, parts.range(c)).walk(
                            #[inline(always)]
                            |_, _, k| (least, most) = (least.min(k), most.max(k)),
                        );
                        *to.get().add(c) = (least, most);
                    }
                },
            ));
        });
        let (least, most) = found.iter().fold((u64::MAX, 0), |a, m| (a.0.min(m.0), a.1.max(m.1)));
        (least.min(most), most)
    }

    /// # Safety
    /// `o` is the offset of a line, not empty, whose results belong to the caller.
    pub unsafe fn sort_long(&self, o: [isize; 3]) -> Result<()> {
        let n = self.n;
        let parts = Parts::new(n);
        let (least, most) = self.extremes(o[0], &parts);
        let bare = self.idx.is_null() && !T::FLOAT;
        let form = Form::new(n, least, bare);
        if n > u32::MAX as usize {
            // More than counters hold: one thread.
            let mut pairs = Vec::with_capacity(n);
            // SAFETY: all of the line, and its results.
            unsafe {
                let pair = |i, k: u64| <[u64; 2]>::new(k.wrapping_sub(least), i, form);
                self.stretch(o[0], 0..n).walk(|i, _, k| pairs.push(pair(i, k)));
                finish(&mut pairs, form, 0, &mut Scratch::default(), &mut Out::new(self, o, n));
            }
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe {
            if most - least < COUNTED[bare as usize].min(n as u64) {
                self.counted(o, &parts, least, (most - least) as usize + 1);
                return Ok(());
            }
            if bare && most - least <= u32::MAX as u64 {
                self.spread::<u32>(o, &parts, most, form)
            } else if form.fits(most) {
                self.spread::<u64>(o, &parts, most, form)
            } else {
                self.spread::<[u64; 2]>(o, &parts, most, form)
            }
        }
    }

    /// Of keys `least..least + k`.
    ///
    /// # Safety
    /// As for `sort_long`.
    unsafe fn counted(&self, o: [isize; 3], parts: &Parts, least: u64, k: usize) {
        let n = self.n;
        let [_, sv, si] = self.along;
        let mut counts = vec![0u32; parts.count * k];
        let bucket = Values { least, last: k - 1 };
        parts.each(&mut counts, n as u64, |range, counts| Count {
            line: self.stretch(o[0], range),
            bucket,
            counts,
        });
        let starts = parts.starts(&mut counts);
        if !self.idx.is_null() || T::FLOAT {
            let place = Shared(Results {
                values: self.values.wrapping_offset(o[1]),
                idx: if self.idx.is_null() { self.idx } else { self.idx.wrapping_offset(o[2]) },
                steps: [sv, si],
            });
            parts.each(&mut counts, 2 * n as u64, |range, slots| Deal {
                line: self.stretch(o[0], range),
                bucket,
                slots,
                n,
                place: place.get(),
            });
        }
        if T::FLOAT {
            return;
        }
        let (pieces, size) = pool::chunks(n, 32 << 10);
        pool::parallel(pieces, n as u64 / 4, &|c| {
            let range = c * size..n.min((c + 1) * size);
            let mut b = starts.partition_point(|s| *s <= range.start) - 1;
            let mut j = range.start;
            while j < range.end {
                let end = starts[b + 1].min(range.end);
                let v = T::likely(least.wrapping_add(b as u64) ^ self.flip).0;
                if sv == 1 {
                    // SAFETY: results of the line, this piece's alone.
                    unsafe { std::slice::from_raw_parts_mut(self.values.offset(o[1]).add(j), end - j) }
                        .fill(v);
                } else {
                    for j in j..end {
                        // SAFETY: as above.
                        unsafe { *self.values.offset(o[1] + j as isize * sv) = v };
                    }
                }
                (b, j) = (b + 1, end);
            }
        });
    }

    /// # Safety
    /// As for `sort_long`; keys up to `most` fit the items.
    unsafe fn spread<I: Item>(&self, o: [isize; 3], parts: &Parts, most: u64, form: Form) -> Result<()> {
        let n = self.n;
        // Floats crowd into few of the buckets: those of a power of two share sign and exponent.
        let crowd = if T::FLOAT { (16 << T::CROWD).min(n / 8 / parts.count) } else { 0 };
        let digit = Digit::fitting(n, 0, most - form.base, crowd);
        let buckets = digit.buckets;
        let mut counts = vec![0u32; parts.count * buckets];
        let bucket = Based { base: form.base, digit, last: buckets - 1 };
        parts.each(&mut counts, n as u64, |range, counts| Count {
            line: self.stretch(o[0], range),
            bucket,
            counts,
        });
        let starts = parts.starts(&mut counts);

        let block = Block::new(n * size_of::<I>()).map_err(oom)?;
        let to = Shared(block.as_ptr().cast::<I>());
        parts.each(&mut counts, n as u64 * 3, |range, slots| Deal {
            line: self.stretch(o[0], range),
            bucket,
            slots,
            n,
            place: Items { to: to.get(), form },
        });
        drop(counts);

        // A task takes the buckets that start in its share of the line.
        let tasks = (n >> 14).clamp(1, 128);
        let share = n.div_ceil(tasks);
        let first = |t: usize| starts[..buckets].partition_point(|s| *s < t * share);
        pool::parallel(tasks, n as u64 * 3, &|t| {
            let mut s = Scratch::default();
            // SAFETY: the line's results; those of this task's buckets are handed over.
            let mut out = unsafe { Out::new(self, o, n) };
            for b in first(t)..(if t + 1 == tasks { buckets } else { first(t + 1) }) {
                let (start, end) = (starts[b], starts[b + 1]);
                if start < end {
                    interrupt::poll();
                    // SAFETY: bucket b is this task's alone.
                    let items = unsafe { std::slice::from_raw_parts_mut(to.get().add(start), end - start) };
                    finish(items, form, start, &mut s, &mut out);
                }
            }
        });
        Ok(())
    }
}
