//! The caching allocator's bookkeeping: which bytes of which driver allocation are free. Knows no
//! driver, so it is tested anywhere; [`crate::device`] gives it memory.
//!
//! Requests are rounded to 512 bytes. Up to 1 MiB they share segments of 2 MiB, above they are cut
//! from segments of 20 MiB or, from 10 MiB on, of their own size in steps of 2 MiB. Best fit, with
//! splitting; neighbours merge when freed. One stream per device, so a freed block may be handed out
//! at once: what still reads it was queued before what will write it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

const ROUND: usize = 512;
const SMALL: usize = 1 << 20;
const SMALL_SEGMENT: usize = 2 << 20;
const MEDIUM_SEGMENT: usize = 20 << 20;
const LARGE: usize = 10 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Small,
    Large,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    size: usize,
    segment: u64,
    class: Class,
    free: bool,
}

/// Counters as `torch.cuda.memory_stats` names them.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stats {
    pub allocated: u64,
    pub allocated_peak: u64,
    pub reserved: u64,
    pub reserved_peak: u64,
    pub allocations: u64,
    pub retries: u64,
    pub ooms: u64,
}

#[derive(Default)]
pub struct Pool {
    blocks: BTreeMap<u64, Block>,
    free_small: BTreeSet<(usize, u64)>,
    free_large: BTreeSet<(usize, u64)>,
    /// Segment start -> size.
    segments: HashMap<u64, usize>,
    pub stats: Stats,
}

pub fn round(bytes: usize) -> usize {
    bytes.max(1).checked_next_multiple_of(ROUND).unwrap_or(usize::MAX - ROUND)
}

/// How much to ask the driver for when no block fits.
pub fn segment_size(rounded: usize) -> usize {
    if rounded <= SMALL {
        SMALL_SEGMENT
    } else if rounded < LARGE {
        MEDIUM_SEGMENT
    } else {
        rounded.checked_next_multiple_of(2 << 20).unwrap_or(rounded)
    }
}

impl Pool {
    fn free_set(&mut self, class: Class) -> &mut BTreeSet<(usize, u64)> {
        match class {
            Class::Small => &mut self.free_small,
            Class::Large => &mut self.free_large,
        }
    }

    fn class(rounded: usize) -> Class {
        if rounded <= SMALL { Class::Small } else { Class::Large }
    }

    /// A block of at least `bytes` bytes from what is cached.
    pub fn take(&mut self, bytes: usize) -> Option<u64> {
        let size = round(bytes);
        let class = Self::class(size);
        let (found, ptr) = self.free_set(class).range((size, 0)..).next().copied()?;
        // A huge block is not broken up for something much smaller: it would never become whole again
        // while a long-lived tensor sits in it.
        if class == Class::Large && size < LARGE && found > MEDIUM_SEGMENT {
            return None;
        }
        self.free_set(class).remove(&(found, ptr));
        let mut block = *self.blocks.get(&ptr)?;
        let rest = found - size;
        let worth = if class == Class::Small { rest >= ROUND } else { rest > SMALL };
        if worth {
            let tail = Block { size: rest, free: true, ..block };
            self.blocks.insert(ptr + size as u64, tail);
            self.free_set(class).insert((rest, ptr + size as u64));
            block.size = size;
        }
        block.free = false;
        self.blocks.insert(ptr, block);
        self.stats.allocated += block.size as u64;
        self.stats.allocated_peak = self.stats.allocated_peak.max(self.stats.allocated);
        self.stats.allocations += 1;
        Some(ptr)
    }

    /// Adds driver memory of [`segment_size`] bytes for a request of `rounded` bytes.
    pub fn add_segment(&mut self, ptr: u64, size: usize, rounded: usize) {
        let class = Self::class(rounded);
        self.segments.insert(ptr, size);
        self.blocks.insert(ptr, Block { size, segment: ptr, class, free: true });
        self.free_set(class).insert((size, ptr));
        self.stats.reserved += size as u64;
        self.stats.reserved_peak = self.stats.reserved_peak.max(self.stats.reserved);
    }

    /// Gives a block back. Unknown pointers are ignored: nothing good can be done about them here.
    pub fn release(&mut self, ptr: u64) {
        let Some(mut block) = self.blocks.get(&ptr).copied().filter(|b| !b.free) else {
            return;
        };
        self.stats.allocated -= block.size as u64;
        let mut start = ptr;
        let next = ptr + block.size as u64;
        if let Some(n) = self.blocks.get(&next).copied().filter(|n| n.free && n.segment == block.segment) {
            self.blocks.remove(&next);
            self.free_set(block.class).remove(&(n.size, next));
            block.size += n.size;
        }
        if let Some((p, b)) = self.blocks.range(..ptr).next_back().map(|(p, b)| (*p, *b))
            && b.free
            && b.segment == block.segment
        {
            self.free_set(block.class).remove(&(b.size, p));
            self.blocks.remove(&ptr);
            block.size += b.size;
            start = p;
        }
        block.free = true;
        self.blocks.insert(start, block);
        self.free_set(block.class).insert((block.size, start));
    }

    /// Takes out every segment nothing lives in; the caller returns them to the driver.
    pub fn drain_free_segments(&mut self) -> Vec<u64> {
        let whole: Vec<(u64, Block)> = self
            .blocks
            .iter()
            .filter(|(p, b)| b.free && b.segment == **p && self.segments.get(*p) == Some(&b.size))
            .map(|(p, b)| (*p, *b))
            .collect();
        for (p, b) in &whole {
            self.blocks.remove(p);
            self.free_set(b.class).remove(&(b.size, *p));
            self.segments.remove(p);
            self.stats.reserved -= b.size as u64;
        }
        whole.into_iter().map(|w| w.0).collect()
    }

    pub fn reset_peaks(&mut self) {
        self.stats.allocated_peak = self.stats.allocated;
        self.stats.reserved_peak = self.stats.reserved;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn blocks_split_merge_and_drain() {
        let mut p = Pool::default();
        assert_eq!(p.take(1000), None);
        p.add_segment(1 << 30, segment_size(round(1000)), round(1000));
        let a = p.take(1000).unwrap();
        let b = p.take(1).unwrap();
        assert_eq!((a, b), (1 << 30, (1 << 30) + 1024));
        assert_eq!(p.stats.allocated, 1024 + 512);
        p.release(a);
        assert_eq!(p.take(600), Some(a), "the freed block fits best");
        p.release(a);
        p.release(b);
        assert_eq!(p.stats.allocated, 0);
        assert_eq!(p.free_small.len(), 1, "neighbours merged");
        assert_eq!(p.drain_free_segments(), vec![1 << 30]);
        assert_eq!((p.stats.reserved, p.blocks.len()), (0, 0));
        assert_eq!(p.stats.allocated_peak, 1536);
    }

    /// Random traffic: live blocks never overlap and everything comes back.
    #[test]
    fn random_traffic_keeps_blocks_apart() {
        let mut p = Pool::default();
        let (mut live, mut at, mut next) = (Vec::<(u64, usize)>::new(), 1u64 << 32, 12345u64);
        let mut rand = |n: u64| {
            next = next.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (next >> 33) % n
        };
        for _ in 0..4000 {
            if rand(3) < 2 {
                let limit = if rand(4) == 0 { 30 << 20 } else { 4096 };
                let size = 1 + rand(limit) as usize;
                let ptr = p.take(size).unwrap_or_else(|| {
                    let (r, seg) = (round(size), segment_size(round(size)));
                    p.add_segment(at, seg, r);
                    at += seg as u64 + 4096;
                    p.take(size).unwrap()
                });
                for (q, s) in &live {
                    assert!(ptr + size as u64 <= *q || *q + *s as u64 <= ptr);
                }
                live.push((ptr, size));
            } else if !live.is_empty() {
                let i = rand(live.len() as u64) as usize;
                p.release(live.swap_remove(i).0);
            }
        }
        for (q, _) in live {
            p.release(q);
        }
        let held = p.segments.len();
        assert_eq!(p.drain_free_segments().len(), held);
        assert_eq!((p.stats.allocated, p.stats.reserved), (0, 0));
    }
}
