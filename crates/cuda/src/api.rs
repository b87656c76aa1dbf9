//! What a CUDA machine must offer: the small trait between the kernel families and the driver. Two
//! implementations: [`crate::driver`] (a GPU) and [`crate::emulate`] (kernel text on the host).

use pyrite_core::{DType, Result};
use std::ffi::c_void;

/// A loaded kernel: a `CUfunction`, or the address of a host function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel(pub usize);

/// Which way [`Api::copy`] moves bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    ToHost,
    ToDevice,
    Within,
}

/// One strided-batched matrix product in cuBLAS's column-major terms:
/// `C (m x n) = alpha * op(A) (m x k) * op(B) (k x n) + beta * C`.
#[derive(Clone, Copy, Debug)]
pub struct BlasGemm {
    pub dtype: DType,
    pub out_dtype: DType,
    pub trans_a: bool,
    pub trans_b: bool,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub batch: usize,
    pub a: *const u8,
    pub lda: usize,
    pub stride_a: isize,
    pub b: *const u8,
    pub ldb: usize,
    pub stride_b: isize,
    pub c: *mut u8,
    pub ldc: usize,
    pub stride_c: isize,
    pub alpha: f64,
    pub beta: f64,
    pub tf32: bool,
}

/// All work is queued on the device's one stream, in order.
pub trait Api: Send + Sync {
    /// Raw device memory; `None` when there is not enough.
    fn malloc(&self, bytes: usize) -> Result<Option<u64>>;
    fn free(&self, ptr: u64);
    /// Copies bytes; returns when the host's side may be reused.
    ///
    /// # Safety
    /// Both ranges must be valid for `bytes` bytes on their sides.
    unsafe fn copy(&self, way: Way, dst: *mut u8, src: *const u8, bytes: usize) -> Result<()>;
    /// Zeroes device bytes.
    ///
    /// # Safety
    /// The range must be valid on the device.
    unsafe fn zero(&self, ptr: *mut u8, bytes: usize) -> Result<()>;
    /// Compiles `source` (or finds it compiled) and returns its kernels in the order of `names`.
    fn load(&self, title: &str, source: &str, names: &[String]) -> Result<Vec<Kernel>>;
    /// Queues a kernel with its one by-value argument.
    ///
    /// # Safety
    /// `arg` must point to the struct the kernel takes, and every pointer in it must be valid for
    /// what the kernel does.
    unsafe fn launch(&self, kernel: Kernel, grid: (u32, u32), block: u32, arg: *const c_void) -> Result<()>;
    /// # Safety
    /// The three matrices must be valid for the given sizes and strides.
    unsafe fn gemm(&self, g: &BlasGemm) -> Result<()>;
    fn synchronize(&self) -> Result<()>;
    /// Free and total bytes of the device.
    fn mem_info(&self) -> Result<(usize, usize)>;
    fn name(&self) -> String;
    fn capability(&self) -> (u32, u32);
    /// How many multiprocessors there are: grids are sized by it.
    fn processors(&self) -> u32;
}
