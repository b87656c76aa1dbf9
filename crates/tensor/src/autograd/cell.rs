//! The place of a tensor's [`Meta`]: set once, read without a lock. A `OnceLock` would do; this one costs
//! a recorded operation half as much, because nobody can be asleep waiting for it.

use super::Meta;
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const WRITING: u8 = 1;
const SET: u8 = 2;

/// See the module text.
#[derive(Default)]
pub(crate) struct MetaCell {
    state: AtomicU8,
    meta: UnsafeCell<Option<Arc<Meta>>>,
}

// SAFETY: `meta` is written by the one thread that moved `state` from EMPTY to WRITING, and read only
// after `state` was seen as SET, which that thread stores (Release) when it is done; it never changes
// again. `Arc<Meta>` itself may be shared and sent.
unsafe impl Sync for MetaCell {}

impl MetaCell {
    #[inline]
    pub const fn new() -> MetaCell {
        MetaCell { state: AtomicU8::new(EMPTY), meta: UnsafeCell::new(None) }
    }
    #[inline]
    pub fn with(meta: Arc<Meta>) -> MetaCell {
        MetaCell { state: AtomicU8::new(SET), meta: UnsafeCell::new(Some(meta)) }
    }
    #[inline]
    pub fn get(&self) -> Option<&Arc<Meta>> {
        if self.state.load(Ordering::Acquire) != SET {
            return None;
        }
        // SAFETY: SET was seen: nobody writes any more, and what was written is visible.
        unsafe { (*self.meta.get()).as_ref() }
    }
    /// Sets it unless somebody did: then `meta` is dropped.
    #[inline]
    pub fn set(&self, meta: Arc<Meta>) {
        if self.state.compare_exchange(EMPTY, WRITING, Ordering::Acquire, Ordering::Acquire).is_ok() {
            // SAFETY: this thread made the step from EMPTY to WRITING; nobody reads before SET. What is
            // overwritten is `None`.
            unsafe { self.meta.get().write(Some(meta)) };
            self.state.store(SET, Ordering::Release);
        }
    }
    pub fn get_or_init(&self, make: impl Fn() -> Arc<Meta>) -> &Arc<Meta> {
        loop {
            if let Some(m) = self.get() {
                return m;
            }
            if self.state.load(Ordering::Acquire) == EMPTY {
                self.set(make());
            } else {
                // Another thread is between two instructions.
                std::thread::yield_now();
            }
        }
    }
}
