//! Settings of the process that operators ask for.

use pyrite_core::Device;
use std::sync::atomic::{AtomicU32, Ordering};

/// 0 for the CPU, 1 + index for a CUDA device.
static DEFAULT_DEVICE: AtomicU32 = AtomicU32::new(0);

/// Where tensors are made if the call does not say.
pub fn default_device() -> Device {
    match DEFAULT_DEVICE.load(Ordering::Relaxed) {
        0 => Device::Cpu,
        n => Device::Cuda((n - 1) as u8),
    }
}

pub fn set_default_device(d: Device) {
    let n = match d {
        Device::Cpu => 0,
        Device::Cuda(i) => 1 + i as u32,
    };
    DEFAULT_DEVICE.store(n, Ordering::Relaxed);
}
