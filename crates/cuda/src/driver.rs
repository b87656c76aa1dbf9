//! The GPU behind [`Api`]: primary context, one stream, cubin modules, cuBLAS. The primary context is
//! the one other libraries of the process use, so memory can be shared with them.

use crate::api::{Api, BlasGemm, Kernel, Way};
use crate::blas::Blas;
use crate::load;
use crate::nvrtc;
use cudarc::driver::sys::{self, CUresult};
use pyrite_core::{Result, bail, err};
use std::ffi::{CStr, CString, c_void};
use std::sync::Mutex;

/// The first driver whose CUDA version our toolkit libraries (13.0) run on.
const MIN_DRIVER: i32 = 13000;

/// A CUDA result as ours, with the driver's own words.
pub fn check(r: CUresult, what: &str) -> Result<()> {
    if r == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text = std::ptr::null();
    // SAFETY: the driver writes a pointer to a static string or leaves null.
    let text = unsafe {
        sys::cuGetErrorString(r, &mut text);
        if text.is_null() { "unknown error".into() } else { CStr::from_ptr(text).to_string_lossy() }
    };
    bail!(
        Runtime,
        "CUDA error: {text} ({r:?} in {what}). CUDA kernels run asynchronously, so an earlier operation may be the cause"
    )
}

/// Loads the driver and counts its devices. Says which of the usual causes it is when there is none.
pub fn device_count() -> Result<usize> {
    // SAFETY: the probe only opens and closes shared libraries by name.
    if !unsafe { sys::is_culib_present() } {
        bail!(
            Runtime,
            "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from https://www.nvidia.com/drivers"
        );
    }
    load::no_panic("the NVIDIA driver", || {
        // SAFETY: cuInit may be called any number of times.
        match unsafe { sys::cuInit(0) } {
            CUresult::CUDA_ERROR_NO_DEVICE => bail!(Runtime, "No CUDA GPUs are available"),
            CUresult::CUDA_ERROR_STUB_LIBRARY => bail!(
                Runtime,
                "Found no NVIDIA driver on your system: libcuda is the toolkit's stub. Install the driver from https://www.nvidia.com/drivers"
            ),
            r => check(r, "cuInit")?,
        }
        let (mut version, mut n) = (0, 0);
        // SAFETY: both pointers are valid for one int, and the driver is initialised.
        unsafe {
            check(sys::cuDriverGetVersion(&mut version), "cuDriverGetVersion")?;
            check(sys::cuDeviceGetCount(&mut n), "cuDeviceGetCount")?;
        }
        if version < MIN_DRIVER {
            bail!(
                Runtime,
                "The NVIDIA driver on your system is too old (found version {version}, Pyrite needs {MIN_DRIVER}). Please update your GPU driver from https://www.nvidia.com/drivers"
            );
        }
        if n == 0 {
            bail!(Runtime, "No CUDA GPUs are available");
        }
        Ok(n as usize)
    })
}

pub struct Driver {
    device: i32,
    context: sys::CUcontext,
    stream: sys::CUstream,
    blas: Mutex<Option<Blas>>,
    arch: u32,
    processors: u32,
    name: String,
}

// SAFETY: contexts, streams and modules may be used from any thread once the context is current there,
// which `bind` sees to before every call; the cuBLAS handle is behind a mutex.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

impl Driver {
    pub fn new(index: usize) -> Result<Driver> {
        let count = device_count()?;
        if index >= count {
            bail!(
                Runtime,
                "CUDA error: invalid device ordinal: cuda:{index} was asked for, the system has {count} GPU(s)"
            );
        }
        load::no_panic("the NVIDIA driver", || {
            let (mut device, mut context, mut stream) = (0, std::ptr::null_mut(), std::ptr::null_mut());
            let mut name = [0u8; 256];
            // SAFETY: every pointer is valid for what the call writes; the order is the driver's:
            // device, its primary context (kept for the life of the process), then a stream in it.
            unsafe {
                check(sys::cuDeviceGet(&mut device, index as i32), "cuDeviceGet")?;
                check(sys::cuDevicePrimaryCtxRetain(&mut context, device), "cuDevicePrimaryCtxRetain")?;
                check(sys::cuCtxSetCurrent(context), "cuCtxSetCurrent")?;
                let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
                check(sys::cuStreamCreate(&mut stream, flags), "cuStreamCreate")?;
                check(sys::cuDeviceGetName(name.as_mut_ptr().cast(), 255, device), "cuDeviceGetName")?;
            }
            let attribute = |a| {
                let mut v = 0;
                // SAFETY: `v` is valid for one int and the device exists.
                check(unsafe { sys::cuDeviceGetAttribute(&mut v, a, device) }, "cuDeviceGetAttribute")?;
                Ok(v as u32)
            };
            use sys::CUdevice_attribute as Attr;
            let major = attribute(Attr::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = attribute(Attr::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            Ok(Driver {
                device,
                context,
                stream,
                blas: Mutex::new(None),
                arch: major * 10 + minor,
                processors: attribute(Attr::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
                name: CStr::from_bytes_until_nul(&name)
                    .map(|c| c.to_string_lossy().into_owned())
                    .unwrap_or_default(),
            })
        })
    }

    /// Makes the context current in this thread: another library, or another device's work, may have
    /// left its own. Reading first is cheaper than setting every time.
    fn bind(&self) -> Result<()> {
        let mut current = std::ptr::null_mut();
        // SAFETY: the driver is loaded (this object exists); the pointer is valid for one handle.
        unsafe {
            check(sys::cuCtxGetCurrent(&mut current), "cuCtxGetCurrent")?;
            if current != self.context {
                check(sys::cuCtxSetCurrent(self.context), "cuCtxSetCurrent")?;
            }
        }
        Ok(())
    }
}

impl Api for Driver {
    fn malloc(&self, bytes: usize) -> Result<Option<u64>> {
        self.bind()?;
        let mut ptr = 0;
        // SAFETY: the context is current and the pointer valid for one address.
        match unsafe { sys::cuMemAlloc_v2(&mut ptr, bytes) } {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            r => check(r, "cuMemAlloc").map(|()| Some(ptr)),
        }
    }

    fn free(&self, ptr: u64) {
        if self.bind().is_ok() {
            // SAFETY: `ptr` came from `malloc` and the allocator frees a segment once. The call waits
            // for work that uses it. An error here means that the process is ending.
            let _ = unsafe { sys::cuMemFree_v2(ptr) };
        }
    }

    unsafe fn copy(&self, way: Way, dst: *mut u8, src: *const u8, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller promises both ranges; the host's side is not touched after the wait.
        unsafe {
            match way {
                Way::ToHost => check(
                    sys::cuMemcpyDtoHAsync_v2(dst.cast(), src as u64, bytes, self.stream),
                    "copy to host",
                )?,
                Way::ToDevice => check(
                    sys::cuMemcpyHtoDAsync_v2(dst as u64, src.cast(), bytes, self.stream),
                    "copy to device",
                )?,
                Way::Within => {
                    return check(
                        sys::cuMemcpyDtoDAsync_v2(dst as u64, src as u64, bytes, self.stream),
                        "copy on device",
                    );
                }
            }
        }
        self.synchronize()
    }

    unsafe fn zero(&self, ptr: *mut u8, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller promises the range.
        check(unsafe { sys::cuMemsetD8Async(ptr as u64, 0, bytes, self.stream) }, "memset")
    }

    fn load(&self, title: &str, source: &str, names: &[String]) -> Result<Vec<Kernel>> {
        let image = nvrtc::cubin(title, source, self.arch)?;
        self.bind()?;
        let mut module = std::ptr::null_mut();
        // SAFETY: `image` is a whole cubin (just compiled, or checked against its hash).
        check(unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) }, "cuModuleLoadData")?;
        names
            .iter()
            .map(|n| {
                let c = CString::new(n.as_str()).map_err(|_| err!(Runtime, "bad kernel name {n}"))?;
                let mut f = std::ptr::null_mut();
                // SAFETY: the module is loaded and stays so: modules live as long as the process.
                check(unsafe { sys::cuModuleGetFunction(&mut f, module, c.as_ptr()) }, n)?;
                Ok(Kernel(f as usize))
            })
            .collect()
    }

    unsafe fn launch(&self, kernel: Kernel, grid: (u32, u32), block: u32, arg: *const c_void) -> Result<()> {
        self.bind()?;
        let mut args = [arg as *mut c_void];
        // SAFETY: the kernel is a CUfunction of a module that is never unloaded, and the caller
        // promises that `arg` is the struct it takes. The driver copies it before returning.
        let r = unsafe {
            sys::cuLaunchKernel(
                kernel.0 as sys::CUfunction,
                grid.0,
                grid.1,
                1,
                block,
                1,
                1,
                0,
                self.stream,
                args.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        check(r, "kernel launch")
    }

    unsafe fn gemm(&self, g: &BlasGemm) -> Result<()> {
        self.bind()?;
        let mut blas = self.blas.lock().map_err(|_| err!(Runtime, "cuBLAS failed before"))?;
        if blas.is_none() {
            *blas = Some(Blas::new(self.stream)?);
        }
        match blas.as_ref() {
            // SAFETY: the caller promises the matrices; the context is current.
            Some(b) => load::no_panic("cuBLAS", || unsafe { b.gemm(g) }),
            None => bail!(Runtime, "cuBLAS is not available"),
        }
    }

    fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as the process.
        check(unsafe { sys::cuStreamSynchronize(self.stream) }, "synchronize")
    }

    fn mem_info(&self) -> Result<(usize, usize)> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both pointers are valid for one word.
        check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "cuMemGetInfo")?;
        Ok((free, total))
    }

    fn name(&self) -> String {
        if self.name.is_empty() { format!("CUDA device {}", self.device) } else { self.name.clone() }
    }
    fn capability(&self) -> (u32, u32) {
        (self.arch / 10, self.arch % 10)
    }
    fn processors(&self) -> u32 {
        self.processors
    }
}
