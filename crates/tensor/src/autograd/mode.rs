//! Whether ops are recorded: a thread-local switch. Worker threads inherit nothing.

use std::cell::Cell;

thread_local! {
    static GRAD: Cell<bool> = const { Cell::new(true) };
    static INFERENCE: Cell<bool> = const { Cell::new(false) };
    static ANOMALY: Cell<bool> = const { Cell::new(false) };
}

#[inline]
pub fn is_grad_enabled() -> bool {
    GRAD.with(|g| g.get())
}

/// Returns the previous state.
pub fn set_grad_enabled(on: bool) -> bool {
    GRAD.with(|g| g.replace(on))
}

pub fn is_inference() -> bool {
    INFERENCE.with(|g| g.get())
}

pub fn set_inference(on: bool) -> bool {
    INFERENCE.with(|g| g.replace(on))
}

pub fn is_anomaly() -> bool {
    ANOMALY.with(|g| g.get())
}

pub fn set_anomaly(on: bool) -> bool {
    ANOMALY.with(|g| g.replace(on))
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
