//! One CUDA device: its allocator, its compiled kernels, and the registry of the process's devices.

use crate::alloc::{self, Pool};
use crate::api::{Api, Kernel, Way};
use crate::driver::{self, Driver};
use crate::emulate::Emulator;
use pyrite_core::storage::Owner;
use pyrite_core::{Device, Result, Storage, bail, err};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError, RwLock};

/// Threads per block of every kernel (`__launch_bounds__` in prelude.cuh).
pub const BLOCK: u32 = 256;

pub struct Cuda {
    pub(crate) device: Device,
    pub(crate) api: Box<dyn Api>,
    pool: Mutex<Pool>,
    /// By packed key (see [`crate::source::Key`]); most families have two kernels per key.
    kernels: RwLock<HashMap<u64, [Kernel; 2]>>,
    pub(crate) tf32: AtomicBool,
}

const MAX_DEVICES: usize = 64;
static DEVICES: [OnceLock<&'static Cuda>; MAX_DEVICES] = [const { OnceLock::new() }; MAX_DEVICES];
static STARTING: Mutex<()> = Mutex::new(());
static FORKED: AtomicBool = AtomicBool::new(false);
static EMULATE: AtomicBool = AtomicBool::new(false);

/// From now on, devices that are not started yet are emulated on the host (for tests).
pub fn emulate() {
    EMULATE.store(true, Ordering::Relaxed);
}

fn emulating() -> bool {
    EMULATE.load(Ordering::Relaxed) || std::env::var_os("PYRITE_CUDA_EMULATE").is_some_and(|v| v == "1")
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
}

/// A forked child inherits handles that the driver refuses to honour.
fn check_fork() -> Result<()> {
    if FORKED.load(Ordering::Relaxed) {
        bail!(
            Runtime,
            "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use the 'spawn' start method"
        );
    }
    Ok(())
}

/// How many devices there are, or why none can be used.
pub fn count() -> Result<usize> {
    check_fork()?;
    if emulating() { Ok(1) } else { driver::device_count() }
}

/// The device with this index, started on first use.
pub fn get(index: usize) -> Result<&'static Cuda> {
    check_fork()?;
    let Some(slot) = DEVICES.get(index) else {
        bail!(Runtime, "CUDA error: invalid device ordinal: cuda:{index}");
    };
    if let Some(c) = slot.get() {
        return Ok(c);
    }
    let _one = lock(&STARTING);
    if let Some(c) = slot.get() {
        return Ok(c);
    }
    let api: Box<dyn Api> = if emulating() {
        if index > 0 {
            bail!(Runtime, "CUDA error: invalid device ordinal: cuda:{index}; the emulation has one device");
        }
        Box::new(Emulator::default())
    } else {
        Box::new(Driver::new(index)?)
    };
    static AT_FORK: Once = Once::new();
    AT_FORK.call_once(|| {
        // SAFETY: the handler only stores to an atomic, which is allowed after a fork.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    let cuda: &'static Cuda = Box::leak(Box::new(Cuda {
        device: Device::Cuda(index as u8),
        api,
        pool: Mutex::default(),
        kernels: RwLock::default(),
        tf32: AtomicBool::new(false),
    }));
    let _ = slot.set(cuda);
    Ok(cuda)
}

fn free(device: Device, ptr: *mut u8, _bytes: usize) {
    // A child may drop what it inherited; the memory is the parent's.
    if FORKED.load(Ordering::Relaxed) {
        return;
    }
    if let Some(c) = device.index().and_then(|i| DEVICES.get(i as usize)).and_then(OnceLock::get) {
        lock(&c.pool).release(ptr as u64);
    }
}

fn human(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    UNITS
        .iter()
        .find(|u| bytes >= u.1)
        .map_or(format!("{bytes} bytes"), |u| format!("{:.2} {}", bytes as f64 / u.1 as f64, u.0))
}

impl Cuda {
    pub(crate) fn check(&self) -> Result<()> {
        check_fork()
    }

    pub(crate) fn allocate(&self, bytes: usize) -> Result<Storage> {
        self.check()?;
        // No bytes need no memory; the pointer is never followed.
        if bytes == 0 {
            let owner = Owner::Foreign(Box::new(()));
            // SAFETY: an empty range is valid anywhere.
            return Ok(unsafe {
                Storage::from_raw(std::ptr::without_provenance_mut(512), 0, self.device, owner)
            });
        }
        let mut pool = lock(&self.pool);
        let ptr = match pool.take(bytes) {
            Some(p) => p,
            None => self.grow(&mut pool, bytes)?,
        };
        // SAFETY: the block has at least `bytes` bytes and is nobody else's until `free` returns it.
        Ok(unsafe { Storage::from_raw(ptr as *mut u8, bytes, self.device, Owner::Alloc(free)) })
    }

    /// A new segment; if there is no memory for it, everything cached is given back first.
    fn grow(&self, pool: &mut Pool, bytes: usize) -> Result<u64> {
        let rounded = alloc::round(bytes);
        let size = alloc::segment_size(rounded);
        let mut got = self.api.malloc(size)?;
        if got.is_none() {
            pool.stats.retries += 1;
            for segment in pool.drain_free_segments() {
                self.api.free(segment);
            }
            got = self.api.malloc(size)?;
        }
        if let Some(p) = got {
            pool.add_segment(p, size, rounded);
            if let Some(p) = pool.take(bytes) {
                return Ok(p);
            }
        }
        pool.stats.ooms += 1;
        let (free, total) = self.api.mem_info().unwrap_or((0, 0));
        bail!(
            OutOfMemory,
            "CUDA out of memory. Tried to allocate {}. GPU {} has a total capacity of {} of which {} is free. {} is allocated by Pyrite, and {} is reserved by Pyrite but unallocated. Use a smaller batch, delete tensors you no longer need, or run under no_grad()",
            human(bytes as u64),
            self.device.index().unwrap_or(0),
            human(total as u64),
            human(free as u64),
            human(pool.stats.allocated),
            human(pool.stats.reserved - pool.stats.allocated)
        )
    }

    pub(crate) fn trim(&self) {
        let segments = lock(&self.pool).drain_free_segments();
        for s in segments {
            self.api.free(s);
        }
    }

    pub(crate) fn stats(&self) -> alloc::Stats {
        lock(&self.pool).stats
    }

    pub(crate) fn reset_peaks(&self) {
        lock(&self.pool).reset_peaks();
    }

    /// The kernels of `key`, compiled on first use by `build` (title, source, kernel names).
    pub(crate) fn kernel(
        &self,
        key: u64,
        build: impl FnOnce() -> Result<(String, String, Vec<String>)>,
    ) -> Result<[Kernel; 2]> {
        if let Some(k) = self.kernels.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(*k);
        }
        let (title, source, names) = build()?;
        let found = self.api.load(&title, &source, &names)?;
        let first = *found.first().ok_or_else(|| err!(Runtime, "kernel {title}: nothing was compiled"))?;
        let pair = [first, found.get(1).copied().unwrap_or(first)];
        self.kernels.write().unwrap_or_else(PoisonError::into_inner).insert(key, pair);
        Ok(pair)
    }

    /// Puts kernels compiled elsewhere (warm-up) under their key.
    pub(crate) fn remember(&self, key: u64, pair: [Kernel; 2]) {
        self.kernels.write().unwrap_or_else(PoisonError::into_inner).insert(key, pair);
    }

    /// Queues `kernel` with `args` by value.
    ///
    /// # Safety
    /// `A` must be the struct the kernel takes, with valid pointers in it.
    pub(crate) unsafe fn launch<A>(&self, kernel: Kernel, grid: (u32, u32), args: &A) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.api.launch(kernel, grid, BLOCK, (args as *const A).cast::<c_void>()) }
    }

    /// A grid for `work` threads: enough to fill the device several times over, then each thread
    /// strides on.
    pub(crate) fn grid(&self, work: usize) -> u32 {
        let wanted = work.div_ceil(BLOCK as usize).max(1);
        wanted.min(self.api.processors() as usize * 32) as u32
    }

    /// Copies bytes between host and device.
    ///
    /// # Safety
    /// Both ranges must be valid for `bytes` bytes.
    pub(crate) unsafe fn move_bytes(
        &self,
        host: *mut u8,
        device_ptr: *mut u8,
        bytes: usize,
        to_host: bool,
    ) -> Result<()> {
        self.check()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe {
            if to_host {
                self.api.copy(Way::ToHost, host, device_ptr, bytes)
            } else {
                self.api.copy(Way::ToDevice, device_ptr, host, bytes)
            }
        }
    }
}
