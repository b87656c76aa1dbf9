//! The switches of autograd. Whether ops are recorded, inference mode and the hooks on saved tensors
//! belong to a thread (worker threads inherit nothing); anomaly mode, `debug_nans` and strict in-place
//! rules are debugging aids of the whole process.

use super::saved::PackHook;
use pyrite_core::Error;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

thread_local! {
    static GRAD: Cell<bool> = const { Cell::new(true) };
    static INFERENCE: Cell<bool> = const { Cell::new(false) };
    static PACKING: RefCell<Vec<Arc<dyn PackHook>>> = const { RefCell::new(Vec::new()) };
    static RECORD_ERROR: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// Threads inside `saved_tensors_hooks`: while there are none, saving does not ask.
static PACKERS: AtomicU32 = AtomicU32::new(0);
/// Threads in inference mode, for the same reason.
static INFERRING: AtomicU32 = AtomicU32::new(0);
/// Threads with a failed recording that was not raised yet.
static RECORD_ERRORS: AtomicU32 = AtomicU32::new(0);
static STRICT: AtomicBool = AtomicBool::new(false);
static CHECKS: AtomicU8 = AtomicU8::new(0);

#[inline]
pub fn is_grad_enabled() -> bool {
    GRAD.with(|g| g.get())
}

/// Returns the previous state.
pub fn set_grad_enabled(on: bool) -> bool {
    GRAD.with(|g| g.replace(on))
}

#[inline]
pub fn is_inference() -> bool {
    INFERRING.load(Ordering::Relaxed) != 0 && INFERENCE.with(|g| g.get())
}

pub fn set_inference(on: bool) -> bool {
    let was = INFERENCE.with(|g| g.replace(on));
    if on && !was {
        INFERRING.fetch_add(1, Ordering::Relaxed);
    } else if was && !on {
        INFERRING.fetch_sub(1, Ordering::Relaxed);
    }
    was
}

/// Is writing to a saved tensor an error of its backward, instead of a copy?
pub fn is_strict_inplace() -> bool {
    STRICT.load(Ordering::Relaxed)
}

/// Returns the previous state.
pub fn set_strict_inplace(on: bool) -> bool {
    STRICT.swap(on, Ordering::Relaxed)
}

/// What is checked while debugging; see `anomaly.rs`.
pub mod check {
    /// Nodes remember the traceback of their forward.
    pub const ANOMALY: u8 = 1;
    /// With it: no gradient may hold a NaN.
    pub const GRAD_NAN: u8 = 2;
    /// No operation, forward or backward, may make a NaN of finite inputs.
    pub const NAN: u8 = 4;
    /// Nor an infinity.
    pub const INF: u8 = 8;
}

#[inline]
pub fn checks() -> u8 {
    CHECKS.load(Ordering::Relaxed)
}

/// Sets the bits of `mask` to those of `bits`; returns what they were.
pub fn set_checks(mask: u8, bits: u8) -> u8 {
    let was = CHECKS.fetch_update(Ordering::AcqRel, Ordering::Acquire, |c| Some(c & !mask | bits & mask));
    was.unwrap_or_else(|c| c) & mask
}

#[inline]
pub fn is_anomaly() -> bool {
    checks() & check::ANOMALY != 0
}

// ---- hooks on saved tensors -----------------------------------------------------------------------

#[inline]
pub(super) fn is_packing() -> bool {
    PACKERS.load(Ordering::Relaxed) != 0
}

pub(super) fn pack_hook() -> Option<Arc<dyn PackHook>> {
    PACKING.with_borrow(|p| p.last().cloned())
}

pub fn push_pack_hook(h: Arc<dyn PackHook>) {
    PACKERS.fetch_add(1, Ordering::Relaxed);
    PACKING.with_borrow_mut(|p| p.push(h));
}

pub fn pop_pack_hook() {
    let gone = PACKING.with_borrow_mut(Vec::pop);
    if gone.is_some() {
        PACKERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives the thread back the hooks it had, whatever unpack hooks enter or leave meanwhile.
pub struct PackHooks(Option<Vec<Arc<dyn PackHook>>>);

impl PackHooks {
    /// The hooks in force. Costs nothing to speak of where there are none.
    pub fn here() -> PackHooks {
        PackHooks(PACKING.with_borrow(|p| if p.is_empty() { None } else { Some(p.clone()) }))
    }
}

impl Drop for PackHooks {
    fn drop(&mut self) {
        if self.0.is_none() && !is_packing() {
            return;
        }
        let before = self.0.take().unwrap_or_default();
        let (had, has) = PACKING.with_borrow(|p| (before.len(), p.len()));
        if had > has {
            PACKERS.fetch_add((had - has) as u32, Ordering::Relaxed);
        } else {
            PACKERS.fetch_sub((has - had) as u32, Ordering::Relaxed);
        }
        let gone = PACKING.with_borrow_mut(|p| std::mem::replace(p, before));
        drop(gone);
    }
}

/// Recording has no way to fail; what went wrong meanwhile (a hook that raised, an inference tensor that
/// was to be saved) is raised when the operation returns.
pub(super) fn set_record_error(e: Error) {
    RECORD_ERROR.with_borrow_mut(|slot| {
        if slot.is_none() {
            RECORD_ERRORS.fetch_add(1, Ordering::Relaxed);
            *slot = Some(e);
        }
    });
}

#[inline]
pub fn has_record_error() -> bool {
    RECORD_ERRORS.load(Ordering::Relaxed) != 0 && RECORD_ERROR.with_borrow(Option::is_some)
}

pub fn take_record_error() -> Option<Error> {
    let e = RECORD_ERROR.with_borrow_mut(Option::take);
    if e.is_some() {
        RECORD_ERRORS.fetch_sub(1, Ordering::Relaxed);
    }
    e
}

// ---- for threads that go on with somebody's work ---------------------------------------------------

/// The switches of a thread.
pub struct Snapshot {
    grad: bool,
    inference: bool,
    packing: Vec<Arc<dyn PackHook>>,
}

pub fn snapshot() -> Snapshot {
    Snapshot {
        grad: is_grad_enabled(),
        inference: is_inference(),
        packing: PACKING.with_borrow(Clone::clone),
    }
}

/// Gives a fresh thread the switches of another.
pub fn restore(s: Snapshot) {
    set_grad_enabled(s.grad);
    set_inference(s.inference);
    // Not counted: the thread they belong to is waiting inside its own block.
    PACKING.with_borrow_mut(|p| *p = s.packing);
}

/// Sets the grad mode while it lives.
pub struct GradMode(bool);

impl GradMode {
    pub fn new(on: bool) -> GradMode {
        GradMode(set_grad_enabled(on))
    }
}

impl Drop for GradMode {
    fn drop(&mut self) {
        set_grad_enabled(self.0);
    }
}
