//! The fork-join thread pool: `parallel(n_chunks, work_ns, f)` runs `f(0..n_chunks)` on the caller
//! and on whichever workers turn up in time.
//!
//! Why an own pool: the caller must never wait for a worker that has not *started*. A region is a
//! claim counter for chunks plus one state word `epoch | closed | max | joined`. A worker enters by
//! adding one to `joined` while the region is open; the caller works through the chunks too, closes
//! the region when none is left, and then waits only for the workers that are inside. On a machine
//! whose other cores are taken the cost of a region is therefore that of running it serially.
//! A general work-stealing pool costs 10-25 us per region from a foreign thread and does not survive
//! `fork`; here the child of a fork simply builds a new pool.
//!
//! Results must not depend on the number of threads: callers choose chunks from sizes alone (see
//! [`chunks`]) and combine partial results in chunk order.

use std::any::Any;
use std::cell::{RefCell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, Once, TryLockError};
use std::time::{Duration, Instant};

use crate::alloc::{self, OutOfMemory};
use pyrite_core::interrupt::{self, Ticket};

/// Below this much estimated work a region runs in the caller alone.
const SERIAL_NS: u64 = 20_000;
/// Parked workers are woken only for more work than this: a wake-up costs several microseconds.
const WAKE_NS: u64 = 40_000;
/// How long a worker looks for the next region, after work as well as after a wake-up that came too
/// late: a late one means that regions follow each other faster than a sleeper wakes, and going back
/// to sleep would make it miss every one of them.
const SPIN: Duration = Duration::from_micros(1000);
/// After this long it gives its core away between looks, so that whoever else needs one has it.
const POLITE_AFTER: Duration = Duration::from_micros(20);
const MAX_THREADS: usize = 1024;

// The state word: epoch (32 bits), closed (1), most workers allowed in (15), workers inside (16).
const CLOSED: u64 = 1 << 31;
const MAX_SHIFT: u32 = 16;
const COUNT_MASK: u64 = 0x7fff;

static THREADS: AtomicUsize = AtomicUsize::new(0);
static POOL: AtomicPtr<Pool> = AtomicPtr::new(null_mut());
/// Number of forks this process descends from since the pool was first used.
static GENERATION: AtomicU64 = AtomicU64::new(0);
static AT_FORK: Once = Once::new();

type Task = dyn Fn(usize) + Sync;

struct Pool {
    state: AtomicU64,
    next: AtomicUsize,
    done: AtomicUsize,
    job: UnsafeCell<Job>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Doubles as the right to open a region: a caller that fails to lock it runs serially.
    workers: Mutex<Vec<Worker>>,
}

#[derive(Clone, Copy)]
struct Job {
    f: *const Task,
    n: usize,
    /// Who may stop it.
    ticket: Ticket,
}

struct Worker {
    thread: std::thread::Thread,
    parked: Arc<AtomicBool>,
}

// SAFETY: `job` is written only by the holder of the `workers` lock while no worker is inside (the
// previous region was closed and `done == joined`), and read only by workers that entered through a
// successful exchange on `state`, which the writer released after the write.
unsafe impl Sync for Pool {}
// SAFETY: as above; the raw pointer in `job` is only dereferenced inside a region.
unsafe impl Send for Pool {}

impl Pool {
    fn new() -> Pool {
        fn nothing(_: usize) {}
        Pool {
            state: AtomicU64::new(CLOSED),
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            job: UnsafeCell::new(Job { f: &nothing as *const _, n: 0, ticket: Ticket::NOBODY }),
            panic: Mutex::new(None),
            workers: Mutex::new(Vec::new()),
        }
    }

    /// Claims and runs chunks until none is left, or the user wants to stop. A panic is kept for the caller and ends the region early.
    fn work(&self, f: &(dyn Fn(usize) + Sync), n: usize) {
        let run = AssertUnwindSafe(|| {
            loop {
                let i = self.next.fetch_add(1, Relaxed);
                if i >= n {
                    break;
                }
                interrupt::poll();
                f(i);
            }
        });
        if let Err(payload) = catch_unwind(run) {
            self.next.fetch_max(n, Relaxed);
            let mut slot = self.panic.lock().unwrap_or_else(|e| e.into_inner());
            slot.get_or_insert(payload);
        }
    }

    /// True if a worker that last served epoch `seen` may try to enter.
    fn joinable(state: u64, seen: u64) -> bool {
        state & CLOSED == 0 && state >> 32 != seen && state & 0xffff < (state >> MAX_SHIFT) & COUNT_MASK
    }
}

fn worker_loop(pool: &'static Pool, parked: &AtomicBool) {
    let mut seen = 0u64;
    let mut idle_since: Option<Instant> = None;
    loop {
        let s = pool.state.load(Acquire);
        if Pool::joinable(s, seen) {
            if pool.state.compare_exchange(s, s + 1, AcqRel, Relaxed).is_ok() {
                seen = s >> 32;
                // SAFETY: we are inside an open region, so the caller is in `run` and keeps the closure (and
                // whatever the ticket stands for) alive until `done` reaches `joined`, which needs our
                // increment below.
                unsafe {
                    let job = *pool.job.get();
                    let _help = job.ticket.help();
                    pool.work(&*job.f, job.n);
                }
                pool.done.fetch_add(1, Release);
                idle_since = Some(Instant::now());
            }
            continue;
        }
        if let Some(start) = idle_since {
            for _ in 0..64 {
                std::hint::spin_loop();
            }
            let idle = start.elapsed();
            if idle < SPIN {
                if idle > POLITE_AFTER {
                    std::thread::yield_now();
                }
                continue;
            }
            idle_since = None;
        }
        // Announce, then look once more: a caller stores the state first and reads `parked` second.
        parked.store(true, SeqCst);
        if !Pool::joinable(pool.state.load(SeqCst), seen) {
            std::thread::park();
            idle_since = Some(Instant::now());
        }
        parked.store(false, SeqCst);
    }
}

fn pool() -> &'static Pool {
    let p = POOL.load(Acquire);
    // SAFETY: a non-null pointer in POOL comes from `Box::into_raw` below and is never freed.
    if let Some(p) = unsafe { p.as_ref() } {
        return p;
    }
    AT_FORK.call_once(|| {
        #[cfg(unix)]
        // SAFETY: the handler only stores to two atomics, which is allowed in a forked child.
        unsafe {
            libc::pthread_atfork(None, None, Some(after_fork_in_child));
        }
    });
    let fresh = Box::into_raw(Box::new(Pool::new()));
    match POOL.compare_exchange(null_mut(), fresh, AcqRel, Acquire) {
        // SAFETY: just made by Box::into_raw and published for the life of the process.
        Ok(_) => unsafe { &*fresh },
        Err(other) => {
            // SAFETY: `fresh` lost the race and nobody else has seen it.
            drop(unsafe { Box::from_raw(fresh) });
            // SAFETY: `other` was published by the winner and is never freed.
            unsafe { &*other }
        }
    }
}

#[cfg(unix)]
extern "C" fn after_fork_in_child() {
    // The threads of the old pool do not exist here. It is leaked; the next region builds another.
    POOL.store(null_mut(), Release);
    GENERATION.fetch_add(1, Release);
}

/// Number of threads a region may use, the caller included.
pub fn num_threads() -> usize {
    match THREADS.load(Relaxed) {
        0 => {
            let n = threads_from_env();
            // Keep a value that `set_num_threads` may have stored meanwhile.
            let _ = THREADS.compare_exchange(0, n, Relaxed, Relaxed);
            THREADS.load(Relaxed)
        }
        n => n,
    }
}

/// Sets the number of threads used from now on (at least 1). Workers already started stay parked.
pub fn set_num_threads(n: usize) {
    THREADS.store(n.clamp(1, MAX_THREADS), Relaxed);
}

fn threads_from_env() -> usize {
    for name in ["PYRITE_NUM_THREADS", "OMP_NUM_THREADS"] {
        // OMP_NUM_THREADS may be a list, one figure per nesting level; the first one is ours.
        let value = std::env::var(name).unwrap_or_default();
        if let Ok(n) = value.split(',').next().unwrap_or("").trim().parse::<usize>()
            && n > 0
        {
            return n.min(MAX_THREADS);
        }
    }
    std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS))
}

/// Splits `n` items into chunks of at least `min`: (number of chunks, items per chunk; the last may
/// hold fewer). Depends on its arguments alone, so that results do not depend on the thread count.
pub fn chunks(n: usize, min: usize) -> (usize, usize) {
    const MOST: usize = 128;
    if n == 0 {
        return (0, min.max(1));
    }
    let mut size = n.div_ceil(MOST).max(min).max(1);
    if size > 64 {
        // Whole cache lines for any dtype.
        size = size.next_multiple_of(64);
    }
    (n.div_ceil(size), size)
}

/// Runs `f(0), f(1), .. f(n_chunks - 1)`, each once, in any order and on any thread.
///
/// `work_ns` is the estimated time of the whole region on one thread; small regions, nested ones
/// and those that meet another region in progress run in the calling thread. A panic in a chunk is
/// raised again here once every thread has left the region.
pub fn parallel(n_chunks: usize, work_ns: u64, f: &(dyn Fn(usize) + Sync)) {
    if n_chunks > 1 && work_ns >= SERIAL_NS {
        let threads = num_threads().min(n_chunks);
        if threads > 1 {
            return run(pool(), n_chunks, threads, work_ns, f);
        }
    }
    alone(n_chunks, f);
}

/// In the calling thread.
fn alone(n: usize, f: &(dyn Fn(usize) + Sync)) {
    for i in 0..n {
        interrupt::poll();
        f(i);
    }
}

fn run(pool: &'static Pool, n: usize, threads: usize, work_ns: u64, f: &(dyn Fn(usize) + Sync)) {
    let mut workers = match pool.workers.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(e)) => e.into_inner(),
        Err(TryLockError::WouldBlock) => return alone(n, f),
    };
    let generation = GENERATION.load(Acquire);
    while workers.len() + 1 < threads {
        match spawn(pool, workers.len()) {
            Some(w) => workers.push(w),
            // No more threads to be had (a process limit): go on with those there are.
            None => break,
        }
    }
    // SAFETY: only the lifetime is erased. Workers use the pointer only between entering and their
    // `done` increment, and this function returns after all of them have made it.
    let task: *const Task = unsafe { std::mem::transmute(f as *const (dyn Fn(usize) + Sync)) };
    // SAFETY: we hold the lock and the previous region has been left by all (see `Sync for Pool`).
    unsafe { *pool.job.get() = Job { f: task, n, ticket: Ticket::current() } };
    pool.next.store(0, Relaxed);
    pool.done.store(0, Relaxed);
    let epoch = (pool.state.load(Relaxed) >> 32).wrapping_add(1) & 0xffff_ffff;
    // Epoch 0 is what fresh workers have `seen`.
    let epoch = epoch.max(1);
    pool.state.store(epoch << 32 | ((threads - 1) as u64) << MAX_SHIFT, SeqCst);
    if work_ns >= WAKE_NS {
        for w in workers.iter().take(threads - 1) {
            if w.parked.load(SeqCst) {
                w.thread.unpark();
            }
        }
    }
    pool.work(f, n);
    let joined = pool.state.fetch_or(CLOSED, AcqRel) & 0xffff;
    wait_for(pool, joined as usize, generation);
    let panic = pool.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
    drop(workers);
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
    interrupt::poll();
}

/// Waits until every worker inside has left: spinning first, then yielding, then in short sleeps,
/// which lets the scheduler move a worker that lost its core to ours.
fn wait_for(pool: &Pool, joined: usize, generation: u64) {
    let mut turns = 0u32;
    while pool.done.load(Acquire) != joined {
        turns += 1;
        if turns < 2000 {
            std::hint::spin_loop();
        } else if GENERATION.load(Acquire) != generation {
            // A chunk called fork and we are the child: nobody else exists here.
            return;
        } else if turns < 2200 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(20));
            // Tells the workers to stop, if so; we have to see them leave first.
            interrupt::must_stop();
        }
    }
}

fn spawn(pool: &'static Pool, index: usize) -> Option<Worker> {
    let parked = Arc::new(AtomicBool::new(false));
    let flag = parked.clone();
    let handle = std::thread::Builder::new()
        .name(format!("pyrite-{index}"))
        .stack_size(2 << 20)
        .spawn(move || worker_loop(pool, &flag))
        .ok()?;
    Some(Worker { thread: handle.thread().clone(), parked })
}

/// Buffers that a thread keeps between kernels.
struct Scratch(Vec<(*mut u8, usize)>);

/// Buffers above this size go back to the caching allocator at once.
const SCRATCH_KEEP: usize = 8 << 20;
const SCRATCH_BUFFERS: usize = 4;

impl Drop for Scratch {
    fn drop(&mut self) {
        for (p, cap) in self.0.drain(..) {
            // SAFETY: each entry was returned by `alloc::alloc(cap)` and is owned by this list.
            unsafe { alloc::free(p, cap) };
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch(Vec::new())) };
}

/// Returns the buffer on unwinding too.
struct ScratchGuard(*mut u8, usize);

impl Drop for ScratchGuard {
    fn drop(&mut self) {
        let mut spare = Some((self.0, self.1));
        if self.1 <= SCRATCH_KEEP {
            // A full list keeps the larger ones: they serve every call that a smaller one would.
            let _ = SCRATCH.try_with(|s| {
                let list = &mut s.borrow_mut().0;
                list.extend(spare.take());
                if list.len() > SCRATCH_BUFFERS {
                    let least = (0..list.len()).min_by_key(|&i| list[i].1);
                    spare = least.map(|i| list.swap_remove(i));
                }
            });
        }
        if let Some((p, cap)) = spare {
            // SAFETY: the guard's own allocation, or one the list owned until now, of `cap` bytes.
            unsafe { alloc::free(p, cap) };
        }
    }
}

/// Calls `f` with `bytes` bytes of 64-byte aligned, uninitialised memory private to this thread for
/// the duration of the call. Calls may nest; each gets its own buffer.
pub fn with_scratch<R>(bytes: usize, f: impl FnOnce(*mut u8) -> R) -> Result<R, OutOfMemory> {
    let kept = SCRATCH.try_with(|s| {
        let mut s = s.borrow_mut();
        // The smallest that is large enough.
        let best = (0..s.0.len()).filter(|&i| s.0[i].1 >= bytes).min_by_key(|&i| s.0[i].1);
        best.map(|i| s.0.swap_remove(i))
    });
    let (p, cap) = match kept {
        Ok(Some(b)) => b,
        _ => {
            let cap = bytes.max(4096);
            (alloc::alloc(cap)?, cap)
        }
    };
    let guard = ScratchGuard(p, cap);
    Ok(f(guard.0))
}

/// For tests: runs `f` with `n` threads. Tests that set the thread count must not interleave.
#[cfg(test)]
pub(crate) fn with_threads<R>(n: usize, f: impl FnOnce() -> R) -> R {
    static SERIAL: Mutex<()> = Mutex::new(());
    let _guard = SERIAL.lock().unwrap_or_else(|e| e.into_inner());
    let before = num_threads();
    set_num_threads(n);
    let result = f();
    set_num_threads(before);
    result
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "pool_tests.rs"]
mod tests;
