//! The CPU backend: threads, memory and the kernel families.
//!
//! Kernels here know pointers, sizes and strides; tensors, shapes' rules and gradients live above.

pub mod alloc;
pub mod argreduce;
pub mod bag;
pub mod cast;
pub mod conv;
pub mod conv2d;
pub mod copy;
pub mod ctc;
pub mod distance;
pub mod fft;
pub mod gemm;
pub mod grid;
pub mod index;
pub mod lockstep;
pub mod map;
pub mod matmul;
pub mod optim;
mod planes;
pub mod pool;
pub mod pool2d;
pub mod random;
pub mod real;
pub mod reduce;
pub mod resample;
pub mod rowwise;
pub mod runs;
pub mod scan;
pub mod sort;
pub mod strided;
pub mod windows;

pub use pyrite_lanes::{simd, vecmath};

use pyrite_core::backend::*;
use pyrite_core::plan::Plan;
use pyrite_core::rows::RowId;
use pyrite_core::storage::Owner;
use pyrite_core::{DType, Device, Result, Scalar, Storage, err};

/// The backend of the machine's own processor.
pub struct Cpu;

/// The one instance.
pub fn cpu() -> &'static dyn Backend {
    static CPU: Cpu = Cpu;
    &CPU
}

/// A failed allocation as the library's error.
#[cold]
pub(crate) fn oom(e: alloc::OutOfMemory) -> pyrite_core::Error {
    err!(OutOfMemory, "{e}")
}

fn release(_: Device, ptr: *mut u8, bytes: usize) {
    // SAFETY: only `storage` below installs this owner, with a block of `alloc` of these bytes.
    unsafe { alloc::free(ptr, bytes) }
}

fn storage(ptr: *mut u8, bytes: usize) -> Storage {
    // SAFETY: the block is ours until `release` gives it back.
    unsafe { Storage::from_raw(ptr, bytes, Device::Cpu, Owner::Alloc(release)) }
}

impl Backend for Cpu {
    fn device(&self) -> Device {
        Device::Cpu
    }
    fn alloc(&self, bytes: usize) -> Result<Storage> {
        Ok(storage(alloc::alloc(bytes).map_err(oom)?, bytes))
    }
    fn alloc_zeroed(&self, bytes: usize) -> Result<Storage> {
        Ok(storage(alloc::alloc_zeroed(bytes).map_err(oom)?, bytes))
    }
    unsafe fn transfer(&self, host: *mut u8, device_ptr: *mut u8, bytes: usize, to_host: bool) -> Result<()> {
        let (dst, src) = if to_host { (host, device_ptr) } else { (device_ptr, host) };
        // SAFETY: the caller promises both ranges; `copy` allows that they overlap.
        unsafe { src.copy_to(dst, bytes) };
        Ok(())
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    fn fill(&self, dst: Arr, value: Scalar) -> Result<()> {
        copy::fill(dst, value)
    }
    fn copy(&self, dst: Arr, src: Arr) -> Result<()> {
        copy::copy(dst, src)
    }
    fn map(
        &self,
        row: RowId,
        formula: Formula,
        compute: DType,
        plan: &Plan,
        params: &[Scalar],
    ) -> Result<()> {
        map::map(row, formula, compute, plan, params)
    }
    fn reduce(&self, op: ReduceOp, dst: Arr, dst2: Option<Arr>, src: Arr, params: &[f64]) -> Result<()> {
        reduce::reduce(op, dst, dst2, src, params)
    }
    fn arg_reduce(&self, op: ArgOp, idx: Arr, values: Option<Arr>, src: Arr, dim: usize) -> Result<()> {
        argreduce::run(op, idx, values, src, dim)
    }
    fn scan(&self, op: ScanOp, dst: Arr, idx: Option<Arr>, src: Arr, dim: usize) -> Result<()> {
        scan::run(op, dst, idx, src, dim)
    }
    fn sort(&self, values: Arr, idx: Arr, src: Arr, dim: usize, descending: bool) -> Result<()> {
        sort::sort(values, idx, src, dim, descending)
    }
    fn topk(&self, values: Arr, idx: Arr, src: Arr, dim: usize, largest: bool) -> Result<()> {
        sort::topk(values, idx, src, dim, largest)
    }
    fn order(&self, o: Order) -> Result<()> {
        sort::order(o)
    }
    fn gemm(&self, g: &Gemm) -> Result<()> {
        matmul::run(g)
    }
    fn conv(&self, geometry: &ConvGeometry, c: Conv) -> Result<()> {
        conv2d::run(geometry, c)
    }
    fn pool(&self, geometry: &PoolGeometry, p: Pool) -> Result<()> {
        pool2d::run(geometry, p)
    }
    fn index(&self, i: Index) -> Result<()> {
        index::run(i)
    }
    fn resample(&self, r: Resample) -> Result<()> {
        resample::run(&r)
    }
    fn windows(&self, g: &WindowGeometry, w: Windows) -> Result<()> {
        windows::run(g, w)
    }
    fn grid(&self, mode: GridMode, g: Grid) -> Result<()> {
        grid::run(mode, g)
    }
    fn ctc(&self, c: Ctc) -> Result<()> {
        ctc::run(&c)
    }
    fn bag(&self, b: Bags) -> Result<()> {
        bag::run(b)
    }
    fn rowwise(&self, r: Rowwise) -> Result<()> {
        rowwise::run(r)
    }
    fn random(&self, dist: Random, at: Philox, dst: Arr) -> Result<()> {
        random::fill(dist, at, dst)
    }
    fn dropout(&self, at: Philox, p: f64, x: Arr, y: Arr, mask: Arr) -> Result<()> {
        random::dropout(at, p, x, y, mask)
    }
    fn optim(&self, step: OptimStep, params: &[OptimParam]) -> Result<()> {
        optim::step(step, params)
    }
    fn fft(&self, f: &Fft) -> Result<()> {
        fft::run(f)
    }
    fn memory_stats(&self) -> Vec<(&'static str, u64)> {
        let s = alloc::stats();
        vec![
            ("allocated_bytes.all.current", s.allocated as u64),
            ("allocated_bytes.all.peak", s.allocated_peak as u64),
            ("reserved_bytes.all.current", s.reserved as u64),
            ("reserved_bytes.all.peak", s.reserved_peak as u64),
            ("allocation.all.allocated", s.allocs),
            ("num_cache_hits", s.hits),
            ("num_alloc_retries", s.retries),
            ("num_ooms", s.ooms),
        ]
    }
    fn empty_cache(&self) {
        alloc::empty_cache()
    }
    fn reset_peak_stats(&self) {
        alloc::reset_peak()
    }
}
