//! The first `k` of a line, and the element of one rank.

use super::Job;
use super::key::Key;
use super::long::LONG;
use super::out::Out;
use crate::gemm::Shared;
use crate::pool;
use crate::simd::{Arch, ArchKernel, dispatch};
use pyrite_core::backend::Rank;

/// A key with its position, in one or two words.
trait Item: Copy + Ord + Default + Send + Sync {
    fn new(key: u64, at: usize) -> Self;
    fn key(self) -> u64;
    fn at(self) -> usize;
}
impl Item for u64 {
    #[inline(always)]
    fn new(key: u64, at: usize) -> u64 {
        key << 32 | at as u64
    }
    #[inline(always)]
    fn key(self) -> u64 {
        self >> 32
    }
    #[inline(always)]
    fn at(self) -> usize {
        self as u32 as usize
    }
}
impl Item for (u64, u64) {
    #[inline(always)]
    fn new(key: u64, at: usize) -> (u64, u64) {
        (key, at as u64)
    }
    #[inline(always)]
    fn key(self) -> u64 {
        self.0
    }
    #[inline(always)]
    fn at(self) -> usize {
        self.1 as usize
    }
}

/// The candidates among a part of a line.
struct Part<'a, T, I> {
    job: &'a Job<T>,
    o: isize,
    from: usize,
    to: usize,
    items: &'a mut Vec<I>,
}

impl<T: Key, I: Item> ArchKernel for Part<'_, T, I> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        self.job.candidates(self.o, self.from, self.to, self.items);
    }
}

/// Keys looked at together: whether any may get in is one vector comparison per few of them.
const BLOCK: usize = 64;

impl<T: Key> Job<T> {
    pub fn first(&self) {
        if self.k == 0 {
            return;
        }
        // Most of a line: sorting it all is cheaper. (`Out` takes only what fits.)
        let (n, k) = (self.n, self.k);
        if k > n / 8 {
            return self.each_line(
                8,
                #[inline(always)]
                |s, o| {
                    // SAFETY: elements and results of one line.
                    unsafe { self.sorted(o[0], s, false, &mut Out::new(self, o, k)) }
                },
            );
        }
        match T::BITS <= 32 && n <= u32::MAX as usize {
            true => self.first_items::<u64>(),
            false => self.first_items::<(u64, u64)>(),
        }
    }

    /// Candidates below the worst kept so far, thinned when they pile up: afterwards `items` holds the
    /// `k` first of the positions `from..to`, in any order.
    #[inline(always)]
    fn candidates<I: Item>(&self, o: isize, from: usize, to: usize, items: &mut Vec<I>) {
        let k = self.k.min(to - from);
        // Small, since thinning a few costs little and only then is the worst one known.
        let room = 2 * k + 32;
        items.clear();
        items.reserve(room.min(to - from));
        let (mut worst, mut open) = (u64::MAX, true);
        let mut keys = [0u64; BLOCK];
        let mut i = from;
        while i < to {
            let m = BLOCK.min(to - i);
            // SAFETY: elements of the line. The common stride gets a loop of its own.
            unsafe {
                if self.along[0] == 1 {
                    let p = self.src.offset(o).add(i);
                    for (j, key) in keys[..m].iter_mut().enumerate() {
                        *key = (*p.add(j)).key() ^ self.flip;
                    }
                } else {
                    for (j, key) in keys[..m].iter_mut().enumerate() {
                        *key = self.key(o, i + j);
                    }
                }
            }
            if open || keys[..m].iter().fold(false, |any, &key| any | (key < worst)) {
                for (j, &key) in keys[..m].iter().enumerate() {
                    // Positions grow, so an item with the worst kept key can't get in any more.
                    if key < worst || open {
                        if items.len() == room {
                            items.select_nth_unstable(k - 1);
                            items.truncate(k);
                            worst = items[k - 1].key();
                            open = false;
                            if key >= worst {
                                continue;
                            }
                        }
                        items.push(I::new(key, i + j));
                    }
                }
            }
            i += m;
        }
        if items.len() > k {
            items.select_nth_unstable(k - 1);
            items.truncate(k);
        }
    }

    fn first_items<I: Item>(&self) {
        let (n, k) = (self.n, self.k);
        let finish = |items: &mut Vec<I>, o: [isize; 3]| {
            if items.len() > k {
                items.select_nth_unstable(k - 1);
                items.truncate(k);
            }
            items.sort_unstable();
            for (j, it) in items.iter().enumerate() {
                let at = it.at();
                // SAFETY: results j < k of this line; `at` is a position in it.
                unsafe {
                    let (v, sure) = T::likely(it.key() ^ self.flip);
                    let v = if sure { v } else { self.get(o[0], at) };
                    *self.values.offset(o[1] + j as isize * self.along[1]) = v;
                    *self.idx.offset(o[2] + j as isize * self.along[2]) = at as i64;
                }
            }
        };
        if self.lines.count < 8 && n >= LONG && k <= n / 128 {
            // Few long lines: the first of each part, then the first of those.
            const PARTS: usize = 8;
            for l in 0..self.lines.count {
                let o = self.lines.at(l);
                let mut found: Vec<Vec<I>> = vec![Vec::new(); PARTS];
                let f = Shared(found.as_mut_ptr());
                pool::parallel(PARTS, n as u64, &|c| {
                    // SAFETY: list c is this part's alone.
                    let items = unsafe { &mut *f.get().add(c) };
                    dispatch(Part {
                        job: self,
                        o: o[0],
                        from: n * c / PARTS,
                        to: n * (c + 1) / PARTS,
                        items,
                    });
                });
                finish(&mut found.concat(), o);
            }
            return;
        }
        self.each_line(
            2,
            #[inline(always)]
            |_, o| {
                let mut items: Vec<I> = Vec::new();
                self.candidates(o[0], 0, n, &mut items);
                finish(&mut items, o);
            },
        );
    }

    /// The key of rank `k` among `keys`, whose order is lost.
    fn nth(keys: &mut [u64], k: usize) -> u64 {
        *keys.select_nth_unstable(k).1
    }

    /// The key of rank `k` of a long line: by leading digits, so that most elements are only counted.
    fn nth_long(&self, o: isize, k: usize) -> u64 {
        const DIGIT: u32 = 11;
        let (n, size) = (self.n, self.n.div_ceil(16).max(16 << 10));
        let parts = n.div_ceil(size);
        let shift = T::BITS.saturating_sub(DIGIT);
        let buckets = 1usize << DIGIT;
        let mut counts = vec![0usize; parts * buckets];
        let cp = Shared(counts.as_mut_ptr());
        pool::parallel(parts, n as u64, &|c| {
            // SAFETY: part c's counters.
            let counts = unsafe { std::slice::from_raw_parts_mut(cp.get().add(c * buckets), buckets) };
            for i in c * size..n.min((c + 1) * size) {
                // SAFETY: element i of the line.
                counts[(unsafe { self.key(o, i) } >> shift) as usize & (buckets - 1)] += 1;
            }
        });
        let total = |b: usize| (0..parts).map(|c| counts[c * buckets + b]).sum::<usize>();
        let (mut before, mut bucket) = (0, 0);
        for b in 0..buckets {
            let t = total(b);
            if before + t > k {
                bucket = b;
                break;
            }
            before += t;
        }
        if shift == 0 {
            return bucket as u64;
        }
        let mut found: Vec<Vec<u64>> =
            (0..parts).map(|c| Vec::with_capacity(counts[c * buckets + bucket])).collect();
        let f = Shared(found.as_mut_ptr());
        pool::parallel(parts, n as u64, &|c| {
            // SAFETY: list c is this part's alone.
            let list = unsafe { &mut *f.get().add(c) };
            for i in c * size..n.min((c + 1) * size) {
                // SAFETY: element i of the line.
                let key = unsafe { self.key(o, i) };
                if (key >> shift) as usize == bucket {
                    list.push(key);
                }
            }
        });
        let mut keys = found.concat();
        // Never empty, unless the source was written to meanwhile.
        let k = (k - before).min(keys.len().saturating_sub(1));
        if keys.is_empty() { 0 } else { Self::nth(&mut keys, k) }
    }

    /// The element of one rank: its first position.
    pub fn rank(&self, rank: Rank) {
        let n = self.n;
        let nan = u64::MAX >> (64 - T::BITS);
        // How many NaNs are in the line, where that matters.
        let nans = |o: isize| match (rank, T::FLOAT) {
            (Rank::Kth(_), _) | (_, false) => 0,
            // SAFETY: elements of the line.
            _ => (0..n).filter(|&i| unsafe { self.key(o, i) } == nan).count(),
        };
        let place = |nans: usize| match rank {
            Rank::Kth(k) => k,
            Rank::Median if nans > 0 => n - 1,
            _ => (n - nans).saturating_sub(1) / 2,
        };
        let finish = |o: [isize; 3], key: u64| {
            // SAFETY: elements and the result of the line.
            unsafe {
                let at = (0..n).find(|&i| self.key(o[0], i) == key).unwrap_or(0);
                self.write_one(o, at);
            }
        };
        if n >= LONG && self.lines.count < 16 {
            for l in 0..self.lines.count {
                let o = self.lines.at(l);
                finish(o, self.nth_long(o[0], place(nans(o[0]))));
            }
            return;
        }
        self.each_line(
            6,
            #[inline(always)]
            |s, o| {
                // SAFETY: elements of the line.
                unsafe { self.keys(o[0], &mut s.keys) };
                let nans = match (rank, T::FLOAT) {
                    (Rank::Kth(_), _) | (_, false) => 0,
                    _ => s.keys.iter().filter(|k| **k == nan).count(),
                };
                finish(o, Self::nth(&mut s.keys, place(nans)));
            },
        );
    }
}
