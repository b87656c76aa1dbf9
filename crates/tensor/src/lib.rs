//! Tensors, operators and autograd: a usable Rust crate that knows no kernels (those are in
//! `pyrite-cpu` and `pyrite-cuda`) and no Python (that is `pyrite-py`).

pub mod autograd;
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
}

/// An error if the user wants to stop.
pub fn check_interrupt() -> Result<()> {
    match INTERRUPT.get() {
        Some(f) => f(),
        None => Ok(()),
    }
}
