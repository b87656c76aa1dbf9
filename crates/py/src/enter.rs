//! The one door into the core: decides about the GIL, converts errors, stops panics, and lets long
//! operations see Ctrl-C.

use crate::error::{IntoPy, from_py};
use crate::site::{Away, attached};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyrite_core::Result;
use pyrite_tensor::autograd::{forward, mode};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// Above this many elements the GIL is released: about 20 us of work, well above the 60 ns it costs
/// and the chance to lose the GIL to another thread for a switch interval.
pub const RELEASE_ABOVE: usize = 1 << 14;

/// How much an operation has to do.
#[derive(Clone, Copy)]
pub enum Work {
    /// So many elements pass through it.
    Elements(usize),
    /// Long, or running callbacks that take the GIL themselves (backward, convolutions).
    Long,
}

/// Runs `f` in the core.
#[inline]
pub fn enter<T: Send>(py: Python, work: Work, f: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    let guarded = move || catch_unwind(AssertUnwindSafe(f));
    let caught = match work {
        Work::Elements(n) if n <= RELEASE_ABOVE => guarded(),
        _ => {
            let _away = Away::leave(mode::is_grad_enabled() || mode::checks() != 0);
            py.detach(guarded)
        }
    };
    match caught {
        Ok(Ok(v)) if forward::active() || mode::has_record_error() => {
            let recorded = mode::take_record_error().map_or(Ok(()), Err);
            forward::check().and(recorded).py(py).map(|()| v)
        }
        Ok(Err(e)) => {
            // What else went wrong while recording belongs to the same operation.
            drop(mode::take_record_error());
            Err(crate::error::to_py(py, e))
        }
        Ok(r) => r.py(py),
        Err(payload) => Err(panicked(payload)),
    }
}

#[cold]
fn panicked(payload: Box<dyn std::any::Any + Send>) -> PyErr {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(s), _) => (*s).to_owned(),
        (_, Some(s)) => s.clone(),
        _ => "no message".to_owned(),
    };
    PyRuntimeError::new_err(format!("internal error in pyrite, please report it: {text}"))
}

/// Runs pending signal handlers; what they raise travels through the core unchanged.
pub fn check_signals() -> Result<()> {
    match gets_signals() {
        Ok(true) => attached(|py| py.check_signals()).map_err(from_py),
        Ok(false) => Ok(()),
        // Asking runs Python code, which may be where the signal's exception is raised.
        Err(e) => Err(from_py(e)),
    }
}

/// Only Python's main thread runs signal handlers: others need not take the GIL to find that there is nothing
/// to do. Asked once per thread and process (after a fork, the thread that forked is the main one).
fn gets_signals() -> PyResult<bool> {
    thread_local! {
        static KNOWN: Cell<(u32, bool)> = const { Cell::new((0, false)) };
    }
    let process = std::process::id();
    let (asked_in, main) = KNOWN.get();
    if asked_in == process {
        return Ok(main);
    }
    let main = attached(|py| {
        let threading = py.import("threading")?;
        let of_main = threading.call_method0("main_thread")?.getattr("ident")?;
        of_main.eq(threading.call_method0("get_ident")?)
    })?;
    KNOWN.set((process, main));
    Ok(main)
}

/// `set_warn_always`.
pub static WARN_ALWAYS: AtomicBool = AtomicBool::new(false);

/// `warnings.warn(text)`, attributed to the line that called the op; an exception where a filter says so.
pub fn warn(text: &str) -> Result<()> {
    Python::attach(|py| {
        let warnings = py.import("warnings")?;
        let category = py.get_type::<pyo3::exceptions::PyUserWarning>();
        if !WARN_ALWAYS.load(Ordering::Relaxed) {
            return warnings.call_method1("warn", (text, category, 1)).map(|_| ());
        }
        let block = warnings.call_method0("catch_warnings")?;
        block.call_method0("__enter__")?;
        let done = warnings
            .call_method1("simplefilter", ("always",))
            .and_then(|_| warnings.call_method1("warn", (text, category, 1)));
        block.call_method1("__exit__", (py.None(), py.None(), py.None()))?;
        done.map(|_| ())
    })
    .map_err(from_py)
}
