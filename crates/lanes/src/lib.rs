//! SIMD lanes, vector math, and the op table compiled for them.
//!
//! A crate of its own because of its build time: the table times dtypes times instruction sets are
//! some two thousand loops, and they change far less often than the kernels in `cpu` that use them.

pub mod formulas;
pub mod reductions;
pub mod simd;
pub mod vecmath;
