//! A backward that runs inside another one (hooks, Functions, checkpoints), however deep: from a
//! certain depth on the next levels run in a thread of their own with a fresh stack, as the native
//! stack of the calling thread may be small and Python counts the frames of each thread.

use super::mode;
use crate::check_interrupt;
use pyrite_core::{Kind, Result, Site, bail, ensure};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Levels that run in one thread. Python allows 1000 frames per thread, a level may take ten; a thread
/// that is not ours may have used many of them.
const LEVELS: usize = 24;
const OWN_LEVELS: usize = 60;
/// Threads that may wait for each other: deeper is endless recursion.
const THREADS: usize = 1000;
/// Native stack that nested levels may take of a thread that is not ours.
const GUEST_STACK: usize = 48 << 10;
/// Of our own threads: memory that is never touched costs nothing.
const STACK: usize = 16 << 20;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Address of a local of the first level in this thread.
    static BASE: Cell<usize> = const { Cell::new(0) };
    /// In our threads: how many wait for this one, and whether they were told to stop.
    static CHAIN: RefCell<Option<(usize, Arc<AtomicBool>)>> = const { RefCell::new(None) };
}

struct Level;

impl Drop for Level {
    fn drop(&mut self) {
        DEPTH.with(|d| d.set(d.get() - 1));
    }
}

/// Runs one level of backward, in this thread or in a fresh one.
pub(super) fn enter<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let depth = DEPTH.with(Cell::get);
    let marker = 0u8;
    let here = &raw const marker as usize;
    let (levels, stack) = match CHAIN.with_borrow(Option::is_some) {
        true => (OWN_LEVELS, STACK / 2),
        false => (LEVELS, GUEST_STACK),
    };
    if depth == 0 {
        BASE.with(|b| b.set(here));
    } else if depth >= levels || BASE.with(Cell::get).abs_diff(here) > stack {
        return elsewhere(f);
    }
    check_cancelled()?;
    DEPTH.with(|d| d.set(depth + 1));
    let _level = Level;
    f()
}

/// An error if the thread that waits for this one was told to stop.
pub(crate) fn check_cancelled() -> Result<()> {
    let stop = CHAIN.with_borrow(|c| c.as_ref().is_some_and(|c| c.1.load(Ordering::Relaxed)));
    if stop {
        return Err(pyrite_core::Error::new(Kind::Interrupted, "backward was interrupted".to_owned()));
    }
    Ok(())
}

#[cold]
fn elsewhere<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let modes = mode::snapshot();
    // One flag for the whole chain of threads.
    let (before, cancel) = CHAIN.with_borrow(Clone::clone).unwrap_or_default();
    ensure!(
        before < THREADS,
        Runtime,
        "backward: maximum recursion depth exceeded: a backward inside a backward inside ..., more than {} levels deep",
        THREADS * OWN_LEVELS
    );
    let (done, finished) = channel::<()>();
    let mut interrupted = None;
    let result = thread::scope(|scope| {
        let inner = cancel.clone();
        let spawned = thread::Builder::new().name("pyrite-backward".into()).stack_size(STACK).spawn_scoped(
            scope,
            move || {
                Site::nowhere();
                CHAIN.set(Some((before + 1, inner)));
                mode::restore(modes);
                let r = enter(f);
                drop(done);
                r
            },
        );
        let Ok(handle) = spawned else {
            bail!(Runtime, "backward: nested too deeply: no more threads can be started for it");
        };
        // Only the first thread of the chain can be the one that gets signals.
        while before == 0
            && let Err(RecvTimeoutError::Timeout) = finished.recv_timeout(Duration::from_millis(50))
        {
            if interrupted.is_none()
                && let Err(e) = check_interrupt()
            {
                cancel.store(true, Ordering::Relaxed);
                interrupted = Some(e);
            }
        }
        match handle.join() {
            Ok(r) => r,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    match interrupted {
        Some(e) => Err(e),
        None => result,
    }
}
