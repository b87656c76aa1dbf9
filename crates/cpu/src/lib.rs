//! The CPU backend: threads, memory and the kernel families.
//!
//! Kernels here know pointers, sizes and strides; tensors, shapes' rules and gradients live above.

pub mod alloc;
pub mod gemm;
pub mod pool;
pub mod simd;
pub mod vecmath;
