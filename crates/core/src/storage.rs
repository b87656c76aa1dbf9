//! Bytes on a device with an owner and a version. Views share one storage, hence one version.
//!
//! Memory never moves or shrinks while a storage lives (`resize_` makes a new one), so a pointer
//! taken from a storage is valid as long as the handle is held.

use crate::device::Device;
use crate::watch::Watch;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Who frees the bytes.
pub enum Owner {
    /// A backend's allocator: called with the pointer and the size.
    Alloc(fn(Device, *mut u8, usize)),
    /// Foreign memory (NumPy, DLPack, a mapped file): dropping the box lets it go.
    Foreign(#[allow(dead_code)] Box<dyn Any + Send + Sync>),
}

struct Inner {
    ptr: *mut u8,
    bytes: usize,
    device: Device,
    version: AtomicU32,
    read_only: AtomicBool,
    /// Made while inference mode was on: never part of a graph.
    inference: AtomicBool,
    watch: Watch,
    owner: Owner,
}

// SAFETY: the pointer is only an address; reading and writing through it is done by kernels, whose
// callers hold the storage alive. Races on values are the user's (as in PyTorch), never on memory.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Owner::Alloc(free) = self.owner {
            free(self.device, self.ptr, self.bytes);
        }
    }
}

/// A shared handle on bytes of a device.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

impl Storage {
    /// # Safety
    /// `ptr` must be valid for reads and writes of `bytes` bytes on `device` until `owner` is dropped.
    pub unsafe fn from_raw(ptr: *mut u8, bytes: usize, device: Device, owner: Owner) -> Storage {
        Storage(Arc::new(Inner {
            ptr,
            bytes,
            device,
            version: AtomicU32::new(0),
            read_only: AtomicBool::new(false),
            inference: AtomicBool::new(false),
            watch: Watch::default(),
            owner,
        }))
    }
    #[inline]
    pub fn ptr(&self) -> *mut u8 {
        self.0.ptr
    }
    #[inline]
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }
    #[inline]
    pub fn device(&self) -> Device {
        self.0.device
    }
    #[inline]
    pub fn version(&self) -> u32 {
        self.0.version.load(Ordering::Acquire)
    }
    /// Called by every in-place write.
    #[inline]
    pub fn bump_version(&self) {
        self.0.version.fetch_add(1, Ordering::AcqRel);
    }
    /// Undoes bumps: only for writes that restore what was there (`detach().data` tricks of tests).
    pub fn set_version(&self, v: u32) {
        self.0.version.store(v, Ordering::Release);
    }
    #[inline]
    pub(crate) fn watch_ref(&self) -> &Watch {
        &self.0.watch
    }
    #[inline]
    pub fn is_inference(&self) -> bool {
        self.0.inference.load(Ordering::Relaxed)
    }
    pub fn set_inference(&self) {
        self.0.inference.store(true, Ordering::Relaxed);
    }
    pub fn is_read_only(&self) -> bool {
        self.0.read_only.load(Ordering::Relaxed)
    }
    pub fn set_read_only(&self) {
        self.0.read_only.store(true, Ordering::Relaxed);
    }
    /// Same bytes, same version counter.
    #[inline]
    pub fn same(&self, other: &Storage) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
    /// No other tensor, view or saved value holds these bytes.
    #[inline]
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
    /// A number that identifies the storage while it lives.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as *const u8 as usize
    }
}
