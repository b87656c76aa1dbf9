//! Which backward runs in this thread, and what takes part in it (for hooks on several tensors).

use super::node::Edge;
use pyrite_core::{Result, bail};
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The run this thread is in: its number, and what takes part in it if somebody wants to know.
struct Run {
    id: u64,
    /// It is for some inputs only, or inside one that is.
    partial: bool,
    reached: Option<HashSet<usize>>,
    /// What is to be called at its end.
    at_end: Vec<Callback>,
}

/// What runs when a backward is done.
pub type Callback = Box<dyn FnOnce() -> Result<()>>;

thread_local! {
    static RUNS: RefCell<Vec<Run>> = const { RefCell::new(Vec::new()) };
}

static NEXT_RUN: AtomicU64 = AtomicU64::new(1);
static CURIOUS: AtomicUsize = AtomicUsize::new(0);

/// The number of the backward that runs in this thread (the innermost); 0: none.
pub fn current_run() -> u64 {
    RUNS.with_borrow(|r| r.last().map_or(0, |r| r.id))
}

/// Is the backward that runs in this thread for some inputs only? (Re-entrant checkpoints refuse that.)
pub fn is_partial() -> bool {
    RUNS.with_borrow(|r| r.last().is_some_and(|r| r.partial))
}

/// While somebody is curious, runs note what takes part in them. `true` begins, `false` ends it.
pub fn be_curious(on: bool) {
    if on {
        CURIOUS.fetch_add(1, Ordering::Relaxed);
    } else {
        CURIOUS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does a gradient arrive at this edge in the current run?
pub fn takes_part(e: &Edge) -> bool {
    let key = e.to.key();
    RUNS.with_borrow(|r| r.last().and_then(|r| r.reached.as_ref()).is_some_and(|s| s.contains(&key)))
}

/// Calls `f` at the end of the innermost backward of this thread.
pub fn at_end(f: Callback) -> Result<()> {
    RUNS.with_borrow_mut(|r| match r.last_mut() {
        Some(run) => {
            run.at_end.push(f);
            Ok(())
        }
        None => bail!(Runtime, "Final callbacks can only be installed during backward pass."),
    })
}

/// Calls what was left for the end; a callback may leave more.
pub(super) fn run_callbacks() -> Result<()> {
    loop {
        let list = RUNS.with_borrow_mut(|r| r.last_mut().map(|r| std::mem::take(&mut r.at_end)));
        match list {
            Some(list) if !list.is_empty() => list.into_iter().try_for_each(|f| f())?,
            _ => return Ok(()),
        }
    }
}

/// A backward is running while this lives.
pub(super) struct InRun;

impl InRun {
    /// `reached`: the keys of the targets that take part.
    pub fn new(partial: bool, reached: impl FnOnce() -> HashSet<usize>) -> InRun {
        let curious = CURIOUS.load(Ordering::Relaxed) > 0;
        let reached = curious.then(reached);
        let id = NEXT_RUN.fetch_add(1, Ordering::Relaxed);
        RUNS.with_borrow_mut(|r| {
            let partial = partial || r.last().is_some_and(|outer| outer.partial);
            r.push(Run { id, partial, reached, at_end: Vec::new() });
        });
        InRun
    }
}

impl Drop for InRun {
    fn drop(&mut self) {
        let gone = RUNS.with_borrow_mut(Vec::pop);
        drop(gone);
    }
}
