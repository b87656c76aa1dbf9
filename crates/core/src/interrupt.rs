//! Ctrl-C inside a long kernel. [`stoppable`] marks a call whose results nobody has seen yet; kernels call
//! [`poll`] between pieces of work. On the thread that made the call it asks the user's check (the
//! binding: Python's signals) every 20 ms; if that says stop, the kernel unwinds, on
//! every thread that takes part, up to `stoppable`, which returns the check's error. Outside of `stoppable`
//! nothing is ever stopped: what writes to a tensor that users can see, runs to its end.
//!
//! Unwinding, because a kernel must not go on with what an unfinished part left behind (indices, tables),
//! and because it frees everything on its way. Rejected: an error value through every inner loop, which
//! costs each of them a test and two hundred signatures.

use crate::error::{Error, Kind, Result};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two questions. The promise is an answer within 200 ms; asking takes the GIL.
const PERIOD: Duration = Duration::from_millis(20);

static CHECK: OnceLock<fn() -> Result<()>> = OnceLock::new();

/// Installs the check that long operations call: an error if the user wants to stop.
pub fn set_check(f: fn() -> Result<()>) {
    let _ = CHECK.set(f);
}

/// One call of [`stoppable`].
struct Scope {
    stop: AtomicBool,
    /// When to ask again, and the answer; only the thread that made the call uses these.
    next: Cell<Instant>,
    error: Cell<Option<Error>>,
}

/// What unwinds.
struct Stopped;

/// The call a thread works for, to be handed to the threads that help it.
#[derive(Clone, Copy)]
pub struct Ticket {
    scope: *const Scope,
    /// Is this the thread that made the call?
    owner: bool,
}

const NOBODY: Ticket = Ticket { scope: null(), owner: false };

thread_local! {
    static CURRENT: Cell<Ticket> = const { Cell::new(NOBODY) };
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// Puts the thread's ticket back when it goes.
pub struct Restore(Ticket);

impl Restore {
    fn replace(t: Ticket) -> Restore {
        Restore(CURRENT.replace(t))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

impl Ticket {
    pub const NOBODY: Ticket = NOBODY;

    /// That of this thread.
    pub fn current() -> Ticket {
        CURRENT.get()
    }

    /// This thread helps the owner while the guard lives.
    ///
    /// # Safety
    /// The owner stays inside its [`stoppable`] for as long as the guard lives.
    pub unsafe fn help(self) -> Restore {
        Restore::replace(Ticket { owner: false, ..self })
    }
}

impl Scope {
    /// The user's answer if it is time to ask, or what was found before.
    fn must_stop(&self, owner: bool) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return true;
        }
        if !owner || Instant::now() < self.next.get() {
            return false;
        }
        let Some(check) = CHECK.get() else { return false };
        // Whatever runs in there (a signal handler, with operators of its own) is not this call.
        let answer = {
            let _own = Restore::replace(NOBODY);
            check()
        };
        self.next.set(Instant::now() + PERIOD);
        match answer {
            Ok(()) => false,
            Err(e) => {
                self.error.set(Some(e));
                self.stop.store(true, Ordering::Relaxed);
                true
            }
        }
    }
}

/// Does the call that this thread works for have to stop? For places that must not unwind.
#[inline]
pub fn must_stop() -> bool {
    let t = CURRENT.get();
    // SAFETY: a ticket's scope lives while it is current: `stoppable` and `help` see to that.
    match unsafe { t.scope.as_ref() } {
        None => false,
        Some(scope) => scope.must_stop(t.owner),
    }
}

/// Call between pieces of work of some microseconds to milliseconds: unwinds if the user wants to stop.
#[inline]
pub fn poll() {
    if must_stop() {
        resume_unwind(Box::new(Stopped));
    }
}

/// While it lives, nothing is stopped or asked in this thread: for those who hold a lock.
pub struct Hold(());

impl Hold {
    pub fn new() -> Hold {
        HELD.set(HELD.get() + 1);
        Hold(())
    }
}

impl Default for Hold {
    fn default() -> Hold {
        Hold::new()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
    }
}

/// Runs a kernel that may be stopped. `f` must write to nothing that is seen after an error.
pub fn stoppable<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    if CHECK.get().is_none() || HELD.get() > 0 {
        return f();
    }
    let scope = Scope {
        stop: AtomicBool::new(false),
        next: Cell::new(Instant::now() + PERIOD),
        error: Cell::new(None),
    };
    let done = {
        let _in = Restore::replace(Ticket { scope: &scope, owner: true });
        catch_unwind(AssertUnwindSafe(f))
    };
    if scope.stop.into_inner() {
        let stopped = || Error::new(Kind::Interrupted, "the operation was interrupted");
        return Err(scope.error.take().unwrap_or_else(stopped));
    }
    done.unwrap_or_else(|payload| resume_unwind(payload))
}

/// [`stoppable`] where the work is long enough to be worth it (a millisecond, say), else plainly `f`.
#[inline]
pub fn stoppable_if<T>(long: bool, f: impl FnOnce() -> Result<T>) -> Result<T> {
    if long { stoppable(f) } else { f() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked at its third time, it says stop.
    fn impatient() -> Result<()> {
        thread_local! {
            static ASKED: Cell<u32> = const { Cell::new(0) };
        }
        ASKED.set(ASKED.get() + 1);
        match ASKED.get() {
            3 => Err(Error::new(Kind::Interrupted, "enough")),
            _ => Ok(()),
        }
    }

    #[test]
    fn stops_where_it_may_and_nowhere_else() {
        set_check(impatient);
        let before = Instant::now();
        let r: Result<()> = stoppable(|| {
            loop {
                poll();
            }
        });
        assert_eq!(r.err().map(|e| e.message().to_owned()).as_deref(), Some("enough"));
        assert!(before.elapsed() >= 3 * PERIOD);
        assert!(CURRENT.get().scope.is_null());
        // Outside, polling is nothing; and what ends by itself keeps its result.
        poll();
        assert!(matches!(stoppable(|| Ok(7)), Ok(7)));
        let held = Hold::new();
        assert!(matches!(stoppable(|| Ok(CURRENT.get().scope.is_null())), Ok(true)));
        drop(held);
        let panic = catch_unwind(|| stoppable::<()>(|| resume_unwind(Box::new("mine"))));
        assert!(panic.is_err_and(|p| p.is::<&str>()));
    }

    #[test]
    fn helpers_follow_the_owner() {
        set_check(impatient);
        let scope = Scope {
            stop: AtomicBool::new(false),
            next: Cell::new(Instant::now() + Duration::from_secs(60)),
            error: Cell::new(None),
        };
        let ticket = Ticket { scope: &scope, owner: true };
        // SAFETY: the scope outlives this block.
        let _help = unsafe { ticket.help() };
        assert!(!must_stop());
        scope.stop.store(true, Ordering::Relaxed);
        assert!(must_stop());
        assert!(catch_unwind(poll).is_err_and(|p| p.is::<Stopped>()));
    }
}
