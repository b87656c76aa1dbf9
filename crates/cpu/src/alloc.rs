//! The caching CPU allocator behind every tensor.
//!
//! A fresh 64 MiB buffer costs 33 ms of page faults, a warm one nothing: keeping freed blocks is
//! the largest single speed-up of this library. Sizes are rounded to classes (powers of two and the
//! three-quarter steps between). Blocks up to 32 KiB pass through a small per-thread front without a
//! lock; those up to 64 MiB wait in one list per class; larger ones in one list searched for the best
//! fit within 25 % waste. Every pointer is 64-byte aligned; from 4 MiB up blocks are 2 MiB aligned and
//! advised to use huge pages. What lies unused is capped (a quarter of memory, `PYRITE_CPU_CACHE_BYTES`);
//! when the system refuses memory the cache is emptied and the request repeated, then an error is returned.

mod system;

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};

/// Alignment of every block.
pub const ALIGN: usize = 64;
const MIN_LOG: u32 = 6;
/// Largest block of the per-thread front.
const FRONT_MAX: usize = 32 << 10;
const FRONT_CLASSES: usize = class_of(FRONT_MAX) + 1;
/// A thread keeps at most this many bytes per class, and at most FRONT_COUNT blocks.
const FRONT_BYTES: usize = 128 << 10;
const FRONT_COUNT: usize = 64;
/// Blocks above this are not rounded to classes.
const CLASS_MAX: usize = 64 << 20;
const CLASSES: usize = class_of(CLASS_MAX) + 1;
const HUGE_FROM: usize = 4 << 20;
const HUGE: usize = 2 << 20;

/// Smallest class that holds `bytes` (`1 <= bytes <= CLASS_MAX`): even = power of two, odd = 3/4 step.
const fn class_of(bytes: usize) -> usize {
    if bytes <= 1 << MIN_LOG {
        return 0;
    }
    // 2^log < bytes <= 2^(log + 1)
    let log = (bytes - 1).ilog2();
    let base = 2 * (log - MIN_LOG) as usize;
    if bytes <= 3 << (log - 1) { base + 1 } else { base + 2 }
}

const fn class_size(class: usize) -> usize {
    let log = MIN_LOG + (class / 2) as u32;
    if class.is_multiple_of(2) { 1 << log } else { 3 << (log - 1) }
}

/// The system had no memory left, even after the cache was emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfMemory {
    pub requested: usize,
    pub allocated: usize,
    pub reserved: usize,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CPU out of memory: tried to allocate {} ({} held by tensors, {} reserved from the system). \
             Free tensors you no longer need, use smaller batches or a smaller dtype",
            Bytes(self.requested),
            Bytes(self.allocated),
            Bytes(self.reserved)
        )
    }
}

impl std::error::Error for OutOfMemory {}

struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut v, mut unit) = (self.0 as f64, "bytes");
        for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
            if v < 1024.0 {
                break;
            }
            v /= 1024.0;
            unit = next;
        }
        if unit == "bytes" { write!(f, "{v:.0} bytes") } else { write!(f, "{v:.2} {unit}") }
    }
}

/// What `stats` returns; the names follow `cuda.memory_stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes in live blocks (rounded to their class).
    pub allocated: usize,
    pub allocated_peak: usize,
    /// Bytes taken from the system: live and cached.
    pub reserved: usize,
    pub reserved_peak: usize,
    /// Requests so far, and how many of them a cached block served.
    pub allocs: u64,
    pub hits: u64,
    /// Requests that found the system out of memory at first, and those that failed in the end.
    pub retries: u64,
    pub ooms: u64,
}

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static ALLOCATED_PEAK: AtomicUsize = AtomicUsize::new(0);
static RESERVED: AtomicUsize = AtomicUsize::new(0);
static RESERVED_PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCS: AtomicU64 = AtomicU64::new(0);
static MISSES: AtomicU64 = AtomicU64::new(0);
static RETRIES: AtomicU64 = AtomicU64::new(0);
static OOMS: AtomicU64 = AtomicU64::new(0);
/// Byte cap of the shared cache; usize::MAX - 1 = not read from the environment yet.
static CAP: AtomicUsize = AtomicUsize::new(usize::MAX - 1);

/// A singly linked list threaded through the free blocks themselves.
#[derive(Clone, Copy)]
struct List {
    head: *mut u8,
    count: usize,
}

impl List {
    const EMPTY: List = List { head: null_mut(), count: 0 };

    /// # Safety
    /// `p` points to at least 8 free bytes, aligned to 8, that nobody else uses.
    unsafe fn push(&mut self, p: *mut u8) {
        // SAFETY: by the contract above.
        unsafe { p.cast::<*mut u8>().write(self.head) };
        self.head = p;
        self.count += 1;
    }

    fn pop(&mut self) -> Option<*mut u8> {
        if self.head.is_null() {
            return None;
        }
        let p = self.head;
        // SAFETY: every block on the list had its next pointer written by `push`.
        self.head = unsafe { p.cast::<*mut u8>().read() };
        self.count -= 1;
        Some(p)
    }
}

struct Shared {
    lists: [List; CLASSES],
    /// Free blocks above CLASS_MAX: (size, address).
    large: Vec<(usize, usize)>,
    /// True size of live blocks above CLASS_MAX, by address: best fit may hand out a larger one.
    live: BTreeMap<usize, usize>,
    cached: usize,
}

/// A lock that can be taken in one fork handler and released in another, which std's guards cannot.
struct ForkLock {
    held: AtomicBool,
    shared: UnsafeCell<Shared>,
}

// SAFETY: `shared` is reached only between `acquire` and `release`.
unsafe impl Sync for ForkLock {}

static CENTRAL: ForkLock = ForkLock {
    held: AtomicBool::new(false),
    shared: UnsafeCell::new(Shared {
        lists: [List::EMPTY; CLASSES],
        large: Vec::new(),
        live: BTreeMap::new(),
        cached: 0,
    }),
};
static AT_FORK: Once = Once::new();

impl ForkLock {
    fn acquire(&self) {
        let mut turns = 0;
        while self.held.compare_exchange_weak(false, true, Acquire, Relaxed).is_err() {
            turns += 1;
            // Held for tens of nanoseconds; a longer wait means that the holder lost its core.
            if turns < 100 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }

    fn release(&self) {
        self.held.store(false, Release);
    }

    fn with<R>(&self, f: impl FnOnce(&mut Shared) -> R) -> R {
        struct Release<'a>(&'a ForkLock);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.release();
            }
        }
        self.acquire();
        let _release = Release(self);
        // SAFETY: the lock is held until `_release` drops, after `f`.
        f(unsafe { &mut *self.shared.get() })
    }
}

#[cfg(unix)]
fn register_at_fork() {
    extern "C" fn prepare() {
        CENTRAL.acquire();
    }
    extern "C" fn after() {
        CENTRAL.release();
    }
    AT_FORK.call_once(|| {
        // SAFETY: the handlers only touch one atomic; parent and child each release what `prepare` took.
        unsafe {
            libc::pthread_atfork(Some(prepare), Some(after), Some(after));
        }
    });
}

#[cfg(not(unix))]
fn register_at_fork() {
    AT_FORK.call_once(|| ());
}

/// The per-thread front: no lock, bounded, handed to the shared lists when the thread ends.
struct Front(UnsafeCell<[List; FRONT_CLASSES]>);

impl Drop for Front {
    fn drop(&mut self) {
        flush_front(self.0.get_mut());
    }
}

thread_local! {
    static FRONT: Front = const { Front(UnsafeCell::new([List::EMPTY; FRONT_CLASSES])) };
}

fn flush_front(front: &mut [List; FRONT_CLASSES]) {
    for (class, list) in front.iter_mut().enumerate() {
        while let Some(p) = list.pop() {
            // SAFETY: blocks of the front are free blocks of their class.
            unsafe { free_shared(p, class) };
        }
    }
}

fn front_limit(class: usize) -> usize {
    (FRONT_BYTES / class_size(class)).clamp(2, FRONT_COUNT)
}

/// Memory of at least `bytes` bytes, 64-byte aligned, not initialised. Give it back with [`free`].
/// Zero bytes give a dangling, aligned pointer.
pub fn alloc(bytes: usize) -> Result<*mut u8, OutOfMemory> {
    alloc_inner(bytes).map(|(p, _)| p)
}

/// As [`alloc`], filled with zeros (without touching pages that come zeroed from the system).
pub fn alloc_zeroed(bytes: usize) -> Result<*mut u8, OutOfMemory> {
    let (p, zeroed) = alloc_inner(bytes)?;
    if !zeroed && bytes > 0 {
        const PIECE: usize = 1 << 20;
        let address = p as usize;
        // About 10 GB/s per thread.
        crate::pool::parallel(bytes.div_ceil(PIECE), bytes as u64 / 10, &|i| {
            let start = i * PIECE;
            // SAFETY: [start, start + PIECE) cut at `bytes` lies inside the block, and pieces are disjoint.
            unsafe {
                let q = (address as *mut u8).add(start);
                std::ptr::write_bytes(q, 0, PIECE.min(bytes - start));
            }
        });
    }
    Ok(p)
}

/// The block, and whether it is known to be zero.
fn alloc_inner(bytes: usize) -> Result<(*mut u8, bool), OutOfMemory> {
    if bytes == 0 {
        return Ok((ALIGN as *mut u8, true));
    }
    ALLOCS.fetch_add(1, Relaxed);
    if bytes > CLASS_MAX {
        return alloc_large(bytes);
    }
    let class = class_of(bytes);
    let size = class_size(class);
    count_in(size);
    if class < FRONT_CLASSES {
        let hit = FRONT.try_with(|front| {
            // SAFETY: the cell belongs to this thread and the reference ends before anything else can run.
            let list = unsafe { &mut (*front.0.get())[class] };
            list.pop().or_else(|| refill(list, class))
        });
        if let Ok(Some(p)) = hit {
            return Ok((p, false));
        }
    } else if let Some(p) = CENTRAL.with(|s| {
        let p = s.lists[class].pop()?;
        s.cached -= size;
        Some(p)
    }) {
        return Ok((p, false));
    }
    MISSES.fetch_add(1, Relaxed);
    from_system(size, bytes).inspect_err(|_| count_out(size)).map(|p| (p, size >= HUGE_FROM))
}

/// Takes several blocks from the shared list at once: one for the caller, the rest for the front.
fn refill(list: &mut List, class: usize) -> Option<*mut u8> {
    let want = front_limit(class) / 2;
    CENTRAL.with(|s| {
        let first = s.lists[class].pop()?;
        s.cached -= class_size(class);
        for _ in 1..want {
            let Some(p) = s.lists[class].pop() else { break };
            s.cached -= class_size(class);
            // SAFETY: a free block that has just left the shared list.
            unsafe { list.push(p) };
        }
        Some(first)
    })
}

fn alloc_large(bytes: usize) -> Result<(*mut u8, bool), OutOfMemory> {
    // Addresses are below 2^63 everywhere; beyond that rounding would overflow.
    if bytes > isize::MAX as usize - HUGE {
        return Err(out_of_memory(bytes));
    }
    let size = bytes.next_multiple_of(HUGE);
    let cached = CENTRAL.with(|s| {
        let fits = |&i: &usize| s.large[i].0 >= size && s.large[i].0 - size <= size / 4;
        let best = (0..s.large.len()).filter(fits).min_by_key(|&i| s.large[i].0)?;
        let (true_size, address) = s.large.swap_remove(best);
        s.cached -= true_size;
        s.live.insert(address, true_size);
        Some((true_size, address))
    });
    if let Some((true_size, address)) = cached {
        count_in(true_size);
        return Ok((address as *mut u8, false));
    }
    MISSES.fetch_add(1, Relaxed);
    let p = from_system(size, bytes)?;
    CENTRAL.with(|s| s.live.insert(p as usize, size));
    count_in(size);
    Ok((p, true))
}

/// Gives a block back.
///
/// # Safety
/// `p` came from [`alloc`] or [`alloc_zeroed`] called with the same `bytes`, and is not used again.
/// Any thread may free it.
pub unsafe fn free(p: *mut u8, bytes: usize) {
    if bytes == 0 {
        return;
    }
    if bytes > CLASS_MAX {
        // SAFETY: by the contract of this function.
        return unsafe { free_large(p) };
    }
    let class = class_of(bytes);
    count_out(class_size(class));
    if class >= FRONT_CLASSES {
        // SAFETY: a block of this class, owned by the caller until now.
        return unsafe { free_shared(p, class) };
    }
    let kept = FRONT.try_with(|front| {
        // SAFETY: the cell belongs to this thread; `free_shared` below does not touch it.
        let list = unsafe { &mut (*front.0.get())[class] };
        if list.count >= front_limit(class) {
            for _ in 0..list.count / 2 {
                if let Some(q) = list.pop() {
                    // SAFETY: a free block of this class.
                    unsafe { free_shared(q, class) };
                }
            }
        }
        // SAFETY: the caller gives us the block.
        unsafe { list.push(p) };
    });
    if kept.is_err() {
        // The thread is ending and its front is gone.
        // SAFETY: a block of this class, owned by the caller until now.
        unsafe { free_shared(p, class) };
    }
}

/// # Safety
/// `p` is a free block of `class` that nobody else refers to.
unsafe fn free_shared(p: *mut u8, class: usize) {
    let size = class_size(class);
    let cap = cache_cap();
    let kept = CENTRAL.with(|s| {
        let room = s.cached + size <= cap;
        if room {
            // SAFETY: by the contract; blocks have at least 64 bytes.
            unsafe { s.lists[class].push(p) };
            s.cached += size;
        }
        room
    });
    if !kept {
        // SAFETY: the block came from `from_system(size)` and is on no list.
        unsafe { to_system(p, size) };
    }
}

/// # Safety
/// `p` is a live block above CLASS_MAX that is not used again.
unsafe fn free_large(p: *mut u8) {
    let cap = cache_cap();
    let out = CENTRAL.with(|s| {
        let size = s.live.remove(&(p as usize))?;
        let room = s.cached + size <= cap;
        if room {
            s.large.push((size, p as usize));
            s.cached += size;
        }
        Some((size, room))
    });
    let Some((size, kept)) = out else {
        debug_assert!(false, "free of an unknown block");
        return;
    };
    count_out(size);
    if !kept {
        // SAFETY: the block came from `from_system(size)` and is on no list.
        unsafe { to_system(p, size) };
    }
}

fn count_in(size: usize) {
    let now = ALLOCATED.fetch_add(size, Relaxed) + size;
    if now > ALLOCATED_PEAK.load(Relaxed) {
        ALLOCATED_PEAK.fetch_max(now, Relaxed);
    }
}

fn count_out(size: usize) {
    ALLOCATED.fetch_sub(size, Relaxed);
}

fn cache_cap() -> usize {
    let cap = CAP.load(Relaxed);
    if cap != usize::MAX - 1 {
        return cap;
    }
    let cap = std::env::var("PYRITE_CPU_CACHE_BYTES")
        .ok()
        .and_then(|v| v.trim().parse::<usize>().ok())
        .unwrap_or_else(|| system::physical_memory() / 4)
        .min(usize::MAX - 2);
    CAP.store(cap, Relaxed);
    cap
}

/// Sets the most bytes kept unused in the shared cache.
pub fn set_cache_cap(bytes: usize) {
    CAP.store(bytes.min(usize::MAX - 2), Relaxed);
}

/// A block from the system; the cache is emptied and the request repeated once if it refuses.
fn from_system(size: usize, requested: usize) -> Result<*mut u8, OutOfMemory> {
    register_at_fork();
    let mut p = system::alloc(size);
    if p.is_null() {
        RETRIES.fetch_add(1, Relaxed);
        empty_cache();
        p = system::alloc(size);
    }
    if p.is_null() {
        return Err(out_of_memory(requested));
    }
    let now = RESERVED.fetch_add(size, Relaxed) + size;
    RESERVED_PEAK.fetch_max(now, Relaxed);
    Ok(p)
}

fn out_of_memory(requested: usize) -> OutOfMemory {
    OOMS.fetch_add(1, Relaxed);
    let s = stats();
    OutOfMemory { requested, allocated: s.allocated, reserved: s.reserved }
}

/// # Safety
/// `p` came from `from_system(size)` and is not used again.
unsafe fn to_system(p: *mut u8, size: usize) {
    RESERVED.fetch_sub(size, Relaxed);
    // SAFETY: by the contract above.
    unsafe { system::free(p, size) };
}

/// Returns every cached block to the system (those in other threads' fronts excepted).
pub fn empty_cache() {
    let _ = FRONT.try_with(|front| {
        // SAFETY: the cell belongs to this thread; `flush_front` does not come back to it.
        flush_front(unsafe { &mut *front.0.get() });
    });
    let (lists, large) = CENTRAL.with(|s| {
        s.cached = 0;
        (std::mem::replace(&mut s.lists, [List::EMPTY; CLASSES]), std::mem::take(&mut s.large))
    });
    for (class, mut list) in lists.into_iter().enumerate() {
        while let Some(p) = list.pop() {
            // SAFETY: a free block of this class, on no list any more.
            unsafe { to_system(p, class_size(class)) };
        }
    }
    for (size, address) in large {
        // SAFETY: a free block of this size, on no list any more.
        unsafe { to_system(address as *mut u8, size) };
    }
}

pub fn stats() -> Stats {
    let (allocs, misses, ooms) = (ALLOCS.load(Relaxed), MISSES.load(Relaxed), OOMS.load(Relaxed));
    Stats {
        allocated: ALLOCATED.load(Relaxed),
        allocated_peak: ALLOCATED_PEAK.load(Relaxed),
        reserved: RESERVED.load(Relaxed),
        reserved_peak: RESERVED_PEAK.load(Relaxed),
        allocs,
        hits: allocs.saturating_sub(misses),
        retries: RETRIES.load(Relaxed),
        ooms,
    }
}

/// Sets the peaks to the current figures.
pub fn reset_peak() {
    ALLOCATED_PEAK.store(ALLOCATED.load(Relaxed), Relaxed);
    RESERVED_PEAK.store(RESERVED.load(Relaxed), Relaxed);
}

/// An owned block: frees itself.
#[derive(Debug)]
pub struct Block {
    ptr: *mut u8,
    bytes: usize,
}

// SAFETY: a block is plain memory; whoever shares it answers for synchronisation.
unsafe impl Send for Block {}
// SAFETY: as above; the type itself only hands out the pointer.
unsafe impl Sync for Block {}

impl Block {
    pub fn new(bytes: usize) -> Result<Block, OutOfMemory> {
        Ok(Block { ptr: alloc(bytes)?, bytes })
    }

    pub fn zeroed(bytes: usize) -> Result<Block, OutOfMemory> {
        Ok(Block { ptr: alloc_zeroed(bytes)?, bytes })
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `ptr` came from `alloc(bytes)` and the block is its only owner.
        unsafe { free(self.ptr, self.bytes) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "alloc_tests.rs"]
mod tests;
