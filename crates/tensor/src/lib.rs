//! Tensors, operators and autograd: a usable Rust crate that knows no kernels (those are in
//! `pyrite-cpu` and `pyrite-cuda`) and no Python (that is `pyrite-py`).

pub mod autograd;
pub mod config;
pub mod fmt;
pub mod ops;
pub mod random;
#[macro_use]
pub mod registry;
pub mod tensor;

pub use pyrite_core as core;
pub use pyrite_core::{DType, Device, Error, Kind, Layout, Result, Scalar};
pub use tensor::{Lazy, MemoryFormat, Tensor};

use std::sync::OnceLock;

static INTERRUPT: OnceLock<fn() -> Result<()>> = OnceLock::new();

/// Installs the check that long operations call (the binding looks for Ctrl-C in it).
pub fn set_interrupt_check(f: fn() -> Result<()>) {
    let _ = INTERRUPT.set(f);
    // A kernel in a thread of its own (a deeply nested backward) also stops if the one that waits for it does.
    core::interrupt::set_check(|| check_interrupt().and_then(|()| autograd::check_cancelled()));
}

static WARNING: OnceLock<fn(&str) -> Result<()>> = OnceLock::new();

/// Installs what shows a warning to the user (the binding: Python's `warnings`).
pub fn set_warning(f: fn(&str) -> Result<()>) {
    let _ = WARNING.set(f);
}

/// Warns the user; an error if warnings are errors to them.
#[cold]
pub fn warn(text: &str) -> Result<()> {
    match WARNING.get() {
        Some(f) => f(text),
        None => Ok(()),
    }
}

/// An error if the user wants to stop.
pub fn check_interrupt() -> Result<()> {
    match INTERRUPT.get() {
        Some(f) => f(),
        None => Ok(()),
    }
}
