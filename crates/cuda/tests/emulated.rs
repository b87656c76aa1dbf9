//! The kernels' text, compiled by the host's C++ compiler and run through `kernels/emu.h`, against
//! the CPU backend: every row, forward and gradients, contiguous and strided; copies; fills; matrix
//! products. Reductions, rowwise kernels and optimizer steps against plain loops in f64.

#![allow(clippy::unwrap_used)] // a test that panics has failed

#[path = "emulated/common.rs"]
mod common;
#[path = "emulated/elementwise.rs"]
mod elementwise;
#[path = "emulated/random.rs"]
mod random;
#[path = "emulated/structured.rs"]
mod structured;
