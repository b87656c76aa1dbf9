//! The one door into the core: decides about the GIL, converts errors, stops panics, and lets long
//! operations see Ctrl-C.

use crate::error::{IntoPy, from_py};
use crate::site::{Away, attached};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyrite_core::Result;
use pyrite_tensor::autograd::{forward, mode};
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
    attached(|py| py.check_signals()).map_err(from_py)
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
