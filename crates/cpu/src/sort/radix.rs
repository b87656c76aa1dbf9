//! Stable radix sort of one line. An item is one u64: the leading bits of the key above the position
//! in the line, so sorting items is sorting stably, and every pass moves eight bytes whatever the
//! dtype. Keys are counted from the smallest one; if their range still needs more bits than the
//! position leaves, the last bits are cut off and runs that agree in the others are put right
//! afterwards (rejected: two-word items, twice the traffic for bits that almost never decide).

use super::Job;
use super::key::Key;
use super::network;
use crate::alloc::Block;
use crate::gemm::Shared;
use crate::simd::{Arch, ArchKernel, dispatch};
use crate::{oom, pool};
use pyrite_core::Result;

/// From here on radix sort beats comparison sort.
const RADIX: usize = 768;
/// From here on two passes beat sorting in vector registers.
const COUNTED: usize = 2048;
/// From here on one line is worth several threads.
pub const LONG: usize = 1 << 16;
/// Up to here a line is sorted by counting for each element those before it.
pub const TINY: usize = 32;
const DIGIT: u32 = 11;

/// How a key and a position share 64 bits.
#[derive(Clone, Copy)]
pub struct Packing {
    base: u64,
    drop: u32,
    at_bits: u32,
    /// Bits of the key kept.
    bits: u32,
}

impl Packing {
    pub fn new(n: usize, min: u64, max: u64) -> Packing {
        let at_bits = usize::BITS - (n.max(2) - 1).leading_zeros();
        let range = u64::BITS - (max - min).leading_zeros();
        let bits = range.min(u64::BITS - at_bits);
        Packing { base: min, drop: range - bits, at_bits, bits }
    }
    #[inline(always)]
    pub fn pack(self, key: u64, at: usize) -> u64 {
        // A key below the base can only come from a racing writer; it costs a wrong place.
        let lead = key.wrapping_sub(self.base) >> self.drop;
        // With no bits kept all keys are equal.
        if self.bits == 0 { at as u64 } else { lead << self.at_bits | at as u64 }
    }
    #[inline(always)]
    pub fn at(self, item: u64) -> usize {
        (item & ((1u64 << self.at_bits) - 1)) as usize
    }
    #[inline(always)]
    fn lead(self, item: u64) -> u64 {
        item >> self.at_bits
    }
}

/// Stable by the bits `from..from + bits`; `spare` is as long as `items`. The result is in `items`.
#[inline(always)]
fn lsd(items: &mut [u64], spare: &mut [u64], from: u32, bits: u32, counts: &mut Vec<u32>) {
    let passes = bits.div_ceil(DIGIT);
    if passes == 0 {
        return;
    }
    let width = bits.div_ceil(passes);
    let (size, mask) = (1usize << width, (1u64 << width) - 1);
    counts.clear();
    counts.resize(size * passes as usize, 0);
    for &it in items.iter() {
        let mut k = it >> from;
        for c in counts.chunks_exact_mut(size) {
            c[(k & mask) as usize] += 1;
            k >>= width;
        }
    }
    let n = items.len() as u32;
    let (mut src, mut dst) = (&mut *items, &mut *spare);
    let mut swapped = false;
    for (p, c) in counts.chunks_exact_mut(size).enumerate() {
        if c.contains(&n) {
            continue;
        }
        let mut sum = 0;
        for x in c.iter_mut() {
            (*x, sum) = (sum, sum + *x);
        }
        let shift = from + p as u32 * width;
        for &it in src.iter() {
            let slot = &mut c[(it >> shift & mask) as usize];
            // In range by construction (the counts sum up to the length), and checked all the same.
            dst[*slot as usize] = it;
            *slot += 1;
        }
        (src, dst) = (dst, src);
        swapped = !swapped;
    }
    if swapped {
        dst.copy_from_slice(src);
    }
}

/// A function compiled for the machine's instruction set.
struct Run<F>(F);

impl<F: FnOnce()> ArchKernel for Run<F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        (self.0)()
    }
}

/// What sorting many lines needs over and over.
#[derive(Default)]
pub struct Scratch {
    pub items: Vec<u64>,
    spare: Vec<u64>,
    counts: Vec<u32>,
}

/// Sorts items whose bits above `top` (counted from the position's) agree already.
#[inline(always)]
fn sort_items(items: &mut [u64], spare: &mut Vec<u64>, counts: &mut Vec<u32>, p: Packing, top: u32) {
    // Many items of which few bits are open are two passes of counting; else the registers are faster.
    if (items.len() < COUNTED || top > 2 * DIGIT) && network::sort(items, spare) {
        return;
    }
    if items.len() < RADIX || items.len() > u32::MAX as usize {
        // Positions make every item different, so unstable is stable.
        return items.sort_unstable();
    }
    if spare.len() < items.len() {
        spare.resize(items.len(), 0);
    }
    let n = items.len();
    lsd(items, &mut spare[..n], p.at_bits, top, counts);
}

impl<T: Key> Job<T> {
    /// Where leading bits agree but the rest was cut off: by the whole key.
    fn mend(&self, items: &mut [u64], o: isize, p: Packing) {
        if p.drop == 0 {
            return;
        }
        // SAFETY: positions are below n.
        let key = |it: u64| (unsafe { self.key(o, p.at(it).min(self.n - 1)) }, it);
        let mut i = 0;
        while i + 1 < items.len() {
            let lead = p.lead(items[i]);
            let run = 1 + items[i + 1..].iter().take_while(|it| p.lead(**it) == lead).count();
            if run > 1 {
                items[i..i + run].sort_unstable_by_key(|&it| key(it));
            }
            i += run;
        }
    }

    /// Writes items as results `from..`.
    ///
    /// # Safety
    /// Those results exist and belong to the caller.
    #[inline(always)]
    pub unsafe fn write(&self, items: &[u64], p: Packing, o: [isize; 3], from: usize) {
        let [_, sv, si] = self.along;
        let (values, idx) = (self.values.wrapping_offset(o[1]), self.idx.wrapping_offset(o[2]));
        let put = |j: usize, v: T| {
            // SAFETY: a result of this line.
            unsafe { *values.offset((from + j) as isize * sv) = v }
        };
        // SAFETY: `at` is a position in the line.
        let read = |it: u64| unsafe { self.get(o[0], p.at(it).min(self.n - 1)) };
        if p.drop == 0 {
            // Without a branch, as vectors where results lie side by side; then the few elements that
            // their keys do not tell.
            let mut unsure = false;
            for (j, &it) in items.iter().enumerate() {
                let (v, sure) = T::likely((p.lead(it).wrapping_add(p.base)) ^ self.flip);
                unsure |= !sure;
                put(j, v);
            }
            if unsure {
                for (j, &it) in items.iter().enumerate() {
                    if !T::likely((p.lead(it).wrapping_add(p.base)) ^ self.flip).1 {
                        put(j, read(it));
                    }
                }
            }
        } else {
            items.iter().enumerate().for_each(|(j, &it)| put(j, read(it)));
        }
        if self.idx.is_null() {
            return;
        }
        if si == 1 {
            // SAFETY: results of this line.
            let out = unsafe { std::slice::from_raw_parts_mut(idx.add(from), items.len()) };
            for (x, &it) in out.iter_mut().zip(items) {
                *x = p.at(it).min(self.n - 1) as i64;
            }
        } else {
            for (j, &it) in items.iter().enumerate() {
                // SAFETY: as above.
                unsafe { *idx.offset((from + j) as isize * si) = p.at(it).min(self.n - 1) as i64 };
            }
        }
    }

    /// A line of at most [`network::SMALL`] elements with short keys, on a machine that sorts so many in
    /// its registers.
    ///
    /// # Safety
    /// `o` is the line's offset in source, values and positions; [`network::available`].
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub unsafe fn sort_small(&self, o: [isize; 3]) {
        let n = self.n.min(network::SMALL);
        let mut items = [0u64; network::SMALL];
        let [ss, sv, si] = self.along;
        // SAFETY: elements and results of the line; positions are below n.
        unsafe {
            let src = self.src.offset(o[0]);
            if ss == 1 {
                for (i, it) in items[..n].iter_mut().enumerate() {
                    *it = ((*src.add(i)).key() ^ self.flip) << 8 | i as u64;
                }
            } else {
                for (i, it) in items[..n].iter_mut().enumerate() {
                    *it = self.key(o[0], i) << 8 | i as u64;
                }
            }
            network::small(items.as_mut_ptr(), n);
            let values = self.values.offset(o[1]);
            for (j, it) in items[..n].iter().enumerate() {
                *values.offset(j as isize * sv) = self.get(o[0], (*it as usize & 255).min(n - 1));
            }
            if !self.idx.is_null() {
                let idx = self.idx.offset(o[2]);
                for (j, it) in items[..n].iter().enumerate() {
                    *idx.offset(j as isize * si) = (it & 255) as i64;
                }
            }
        }
    }

    /// A line of at most [`TINY`] elements with short keys: each one's place is the number of smaller
    /// items, which are vector comparisons without a branch.
    ///
    /// # Safety
    /// `o` is the line's offset in source, values and positions.
    #[inline(always)]
    pub unsafe fn sort_tiny(&self, o: [isize; 3]) {
        let n = self.n;
        let wide = n.next_multiple_of(8).min(TINY);
        let mut items = [u64::MAX; TINY];
        for (i, it) in items[..n].iter_mut().enumerate() {
            // SAFETY: element i of the line.
            *it = unsafe { self.key(o[0], i) } << 8 | i as u64;
        }
        let mut rank = [0u64; TINY];
        for i in 0..n {
            let v = items[i];
            for (r, it) in rank[..wide].iter_mut().zip(&items[..wide]) {
                *r += (v < *it) as u64;
            }
        }
        let [_, sv, si] = self.along;
        for i in 0..n {
            let j = rank[i] as isize;
            // SAFETY: ranks are a permutation of 0..n, for positions make all items different.
            unsafe {
                *self.values.offset(o[1] + j * sv) = self.get(o[0], i);
                if !self.idx.is_null() {
                    *self.idx.offset(o[2] + j * si) = i as i64;
                }
            }
        }
    }

    /// A line's items, sorted.
    ///
    /// # Safety
    /// `o` is the line's offset in the source.
    #[inline(always)]
    pub unsafe fn sorted(&self, o: isize, s: &mut Scratch) -> Packing {
        let n = self.n;
        s.items.clear();
        let p = if T::BITS <= 32 && n < RADIX {
            // Comparisons do not care how many bits there are.
            let p = Packing::new(n, 0, u64::MAX >> (64 - T::BITS));
            // SAFETY: elements of the line.
            s.items.extend((0..n).map(|i| p.pack(unsafe { self.key(o, i) }, i)));
            p
        } else {
            // SAFETY: elements of the line.
            s.items.extend((0..n).map(|i| unsafe { self.key(o, i) }));
            let (min, max) = s.items.iter().fold((u64::MAX, 0), |(a, b), &k| (a.min(k), b.max(k)));
            let p = Packing::new(n, min.min(max), max);
            for (i, k) in s.items.iter_mut().enumerate() {
                *k = p.pack(*k, i);
            }
            p
        };
        sort_items(&mut s.items, &mut s.spare, &mut s.counts, p, p.bits);
        self.mend(&mut s.items, o, p);
        p
    }

    /// One long line: the leading digit parts it into buckets, each of which is sorted in the cache and
    /// written. The order inside a bucket is the line's at every step, so threads do not show.
    pub fn sort_long(&self, o: [isize; 3]) -> Result<()> {
        let n = self.n;
        let size = n.div_ceil(16).max(16 << 10);
        let parts = n.div_ceil(size);
        let range = |c: usize| c * size..n.min((c + 1) * size);

        let mut extremes = vec![(u64::MAX, 0u64); parts];
        let ex = Shared(extremes.as_mut_ptr());
        pool::parallel(parts, n as u64 / 2, &|c| {
            dispatch(Run(
                #[inline(always)]
                || {
                    let (mut least, mut most) = (u64::MAX, 0);
                    if self.along[0] == 1 {
                        for i in range(c) {
                            // SAFETY: element i of the line.
                            let k = unsafe { *self.src.offset(o[0]).add(i) }.key() ^ self.flip;
                            (least, most) = (least.min(k), most.max(k));
                        }
                    } else {
                        for i in range(c) {
                            // SAFETY: element i of the line.
                            let k = unsafe { self.key(o[0], i) };
                            (least, most) = (least.min(k), most.max(k));
                        }
                    }
                    // SAFETY: entry c is this part's alone.
                    unsafe { *ex.get().add(c) = (least, most) };
                },
            ));
        });
        let (min, max) = extremes.iter().fold((u64::MAX, 0), |a, m| (a.0.min(m.0), a.1.max(m.1)));
        let p = Packing::new(n, min.min(max), max);

        // Floats crowd into few exponents, so they need more buckets for the same bucket size.
        let want = if T::FLOAT { DIGIT } else { n.ilog2().saturating_sub(12).clamp(6, DIGIT) };
        let top = want.min(p.bits);
        let rest = p.bits - top;
        let shift = p.at_bits + rest;
        let buckets = 1usize << top;
        let mask = buckets - 1;
        let mut counts = vec![0usize; parts * buckets];
        let cp = Shared(counts.as_mut_ptr());
        pool::parallel(parts, n as u64, &|c| {
            // SAFETY: part c's counters.
            let counts = unsafe { std::slice::from_raw_parts_mut(cp.get().add(c * buckets), buckets) };
            dispatch(Run(
                #[inline(always)]
                || {
                    for i in range(c) {
                        // SAFETY: element i of the line.
                        let it = p.pack(unsafe { self.key(o[0], i) }, i);
                        counts[(it >> shift) as usize & mask] += 1;
                    }
                },
            ));
        });
        let mut starts = Vec::with_capacity(buckets + 1);
        let mut sum = 0;
        for b in 0..buckets {
            starts.push(sum);
            for c in 0..parts {
                let x = &mut counts[c * buckets + b];
                (*x, sum) = (sum, sum + *x);
            }
        }
        starts.push(n);

        let block = Block::new(n * 8).map_err(oom)?;
        let to = Shared(block.as_ptr().cast::<u64>());
        let cp = Shared(counts.as_mut_ptr());
        pool::parallel(parts, n as u64 * 4, &|c| {
            // SAFETY: part c's counters.
            let slots = unsafe { std::slice::from_raw_parts_mut(cp.get().add(c * buckets), buckets) };
            dispatch(Run(
                #[inline(always)]
                || {
                    for i in range(c) {
                        // SAFETY: element i of the line.
                        let it = p.pack(unsafe { self.key(o[0], i) }, i);
                        let slot = &mut slots[(it >> shift) as usize & mask];
                        if *slot < n {
                            // SAFETY: below n, and no other part's: the counts gave each its own
                            // stretch. (A source written to meanwhile can break that; then values are
                            // lost, no memory.)
                            unsafe { *to.get().add(*slot) = it };
                        }
                        *slot += 1;
                    }
                },
            ));
        });
        drop(counts);

        // A task takes the buckets that start in its share of the line.
        let tasks = (n >> 14).clamp(1, 128);
        let share = n.div_ceil(tasks);
        let first = |t: usize| starts[..buckets].partition_point(|s| *s < t * share);
        pool::parallel(tasks, n as u64 * 6, &|t| {
            let mut s = Scratch::default();
            dispatch(Run(
                #[inline(always)]
                || {
                    for b in first(t)..(if t + 1 == tasks { buckets } else { first(t + 1) }) {
                        let (start, end) = (starts[b], starts[b + 1]);
                        if start == end {
                            continue;
                        }
                        // SAFETY: bucket b is this task's alone, as are the results at its positions.
                        unsafe {
                            let items = std::slice::from_raw_parts_mut(to.get().add(start), end - start);
                            if rest > 0 {
                                sort_items(items, &mut s.spare, &mut s.counts, p, rest);
                            }
                            self.mend(items, o[0], p);
                            self.write(items, p, o, start);
                        }
                    }
                },
            ));
        });
        Ok(())
    }
}
