//! The CUDA backend: the same kernel families as `cpu`, with kernels compiled at run time from
//! `kernels/*.cuh` and the op table's texts. Builds, imports and is tested without a GPU.

pub mod alloc;
pub mod api;
mod args;
mod blas;
pub mod device;
mod driver;
pub mod emulate;
pub mod gemm;
mod load;
pub mod map;
pub mod nvrtc;
mod optim;
mod random;
pub mod reduce;
mod rowwise;
pub mod source;
pub mod variants;

pub use device::{Cuda, emulate};
pub use load::set_library_dirs;

use pyrite_core::backend::{
    ArgOp, Arr, Backend, Conv, ConvGeometry, Formula, Gemm, Index, OptimParam, OptimStep, Philox, Pool,
    PoolGeometry, Random, ReduceOp, Rowwise, ScanOp, unsupported,
};
use pyrite_core::plan::Plan;
use pyrite_core::rows::RowId;
use pyrite_core::{DType, Device, Result, Scalar, Storage};
use source::Fold;
use std::sync::atomic::Ordering;

/// The backend of device `cuda:index`, started on first use.
pub fn cuda(index: u8) -> Result<&'static dyn Backend> {
    device::get(index as usize).map(|c| c as &dyn Backend)
}

/// The number of usable GPUs; 0 where there is no driver.
pub fn device_count() -> usize {
    device::count().unwrap_or(0)
}

pub fn is_available() -> bool {
    device_count() > 0
}

/// Why CUDA cannot be used, if it cannot.
pub fn why_unavailable() -> Option<pyrite_core::Error> {
    device::count().err()
}

pub fn device_name(index: usize) -> Result<String> {
    Ok(device::get(index)?.api.name())
}

/// Major and minor compute capability.
pub fn capability(index: usize) -> Result<(u32, u32)> {
    Ok(device::get(index)?.api.capability())
}

/// Free and total bytes.
pub fn mem_get_info(index: usize) -> Result<(usize, usize)> {
    let c = device::get(index)?;
    c.check()?;
    c.api.mem_info()
}

/// Allows the rounded TF32 tensor-core mode for f32 matrix products (off, as in PyTorch).
pub fn set_allow_tf32(index: usize, allow: bool) -> Result<()> {
    device::get(index)?.tf32.store(allow, Ordering::Relaxed);
    Ok(())
}

pub fn allow_tf32(index: usize) -> Result<bool> {
    Ok(device::get(index)?.tf32.load(Ordering::Relaxed))
}

/// Compiles all elementwise kernels for operands of `dtype` ahead of time; returns how many.
pub fn warmup(index: usize, dtype: DType) -> Result<usize> {
    map::warmup(device::get(index)?, dtype)
}

impl Backend for Cuda {
    fn device(&self) -> Device {
        self.device
    }
    fn alloc(&self, bytes: usize) -> Result<Storage> {
        self.allocate(bytes)
    }
    fn alloc_zeroed(&self, bytes: usize) -> Result<Storage> {
        let s = self.allocate(bytes)?;
        if bytes > 0 {
            // SAFETY: the storage has `bytes` bytes on this device and nobody else knows it yet.
            unsafe { self.api.zero(s.ptr(), bytes)? };
        }
        Ok(s)
    }
    unsafe fn transfer(&self, host: *mut u8, device_ptr: *mut u8, bytes: usize, to_host: bool) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.move_bytes(host, device_ptr, bytes, to_host) }
    }
    fn synchronize(&self) -> Result<()> {
        self.check()?;
        self.api.synchronize()
    }
    fn fill(&self, dst: Arr, value: Scalar) -> Result<()> {
        map::fill(self, dst, value)
    }
    fn copy(&self, dst: Arr, src: Arr) -> Result<()> {
        map::copy(self, dst, src)
    }
    fn map(
        &self,
        row: RowId,
        formula: Formula,
        compute: DType,
        plan: &Plan,
        params: &[Scalar],
    ) -> Result<()> {
        map::map(self, row, formula, compute, plan, params)
    }
    fn reduce(&self, op: ReduceOp, dst: Arr, dst2: Option<Arr>, src: Arr, params: &[f64]) -> Result<()> {
        let reduced: Vec<bool> =
            src.shape.iter().enumerate().map(|(d, n)| *n != 1 && dst.shape.get(d) == Some(&1)).collect();
        reduce::reduce(self, Fold::Reduce(op), dst, dst2, src, &reduced, params)
    }
    fn arg_reduce(&self, op: ArgOp, idx: Arr, values: Option<Arr>, src: Arr, dim: usize) -> Result<()> {
        let reduced: Vec<bool> = (0..src.shape.len()).map(|d| d == dim).collect();
        reduce::reduce(self, Fold::Arg(op), idx, values, src, &reduced, &[])
    }
    fn scan(&self, _: ScanOp, _: Arr, _: Option<Arr>, _: Arr, _: usize) -> Result<()> {
        unsupported(self.device, "cumulative operations (cumsum, cumprod, cummax, ...)")
    }
    fn sort(&self, _: Arr, _: Arr, _: Arr, _: usize, _: bool) -> Result<()> {
        unsupported(self.device, "sort")
    }
    fn topk(&self, _: Arr, _: Arr, _: Arr, _: usize, _: bool) -> Result<()> {
        unsupported(self.device, "topk")
    }
    fn gemm(&self, g: &Gemm) -> Result<()> {
        gemm::gemm(self, g)
    }
    fn conv(&self, _: &ConvGeometry, _: Conv) -> Result<()> {
        unsupported(self.device, "convolution")
    }
    fn pool(&self, _: &PoolGeometry, _: Pool) -> Result<()> {
        unsupported(self.device, "pooling")
    }
    fn index(&self, _: Index) -> Result<()> {
        unsupported(self.device, "indexing with tensors")
    }
    fn rowwise(&self, r: Rowwise) -> Result<()> {
        rowwise::rowwise(self, r)
    }
    fn random(&self, dist: Random, at: Philox, dst: Arr) -> Result<()> {
        random::random(self, dist, at, dst)
    }
    fn dropout(&self, at: Philox, p: f64, x: Arr, y: Arr, mask: Arr) -> Result<()> {
        random::dropout(self, at, p, x, y, mask)
    }
    fn optim(&self, step: OptimStep, params: &[OptimParam]) -> Result<()> {
        optim::optim(self, step, params)
    }
    fn fft(&self, _: &pyrite_core::backend::Fft) -> Result<()> {
        unsupported(self.device, "the Fourier transform")
    }
    fn memory_stats(&self) -> Vec<(&'static str, u64)> {
        let s = self.stats();
        vec![
            ("allocated_bytes.all.current", s.allocated),
            ("allocated_bytes.all.peak", s.allocated_peak),
            ("reserved_bytes.all.current", s.reserved),
            ("reserved_bytes.all.peak", s.reserved_peak),
            ("allocation.all.allocated", s.allocations),
            ("num_alloc_retries", s.retries),
            ("num_ooms", s.ooms),
        ]
    }
    fn empty_cache(&self) {
        self.trim();
    }
    fn reset_peak_stats(&self) {
        self.reset_peaks();
    }
}
