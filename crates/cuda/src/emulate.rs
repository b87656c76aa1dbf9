//! A pretended GPU: kernel text is compiled by the host's C++ compiler with `kernels/emu.h` and runs
//! in this process. It lets every test with `device="cuda"` run where there is no GPU
//! (`PYRITE_CUDA_EMULATE=1`), on small shapes. Matrix products are plain loops.

use crate::api::{Api, BlasGemm, Kernel, Way};
use crate::nvrtc;
use pyrite_core::half::{bf16, f16};
use pyrite_core::{DType, Result, bail, err};
use std::alloc::Layout;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const EMU: &str = include_str!("../kernels/emu.h");
/// What the pretended device says it has: small, so that running out of memory can be tested.
const MEMORY: usize = 1 << 30;

#[derive(Default)]
pub struct Emulator {
    live: Mutex<HashMap<u64, usize>>,
    /// Kernels use thread-local "hardware" state but static shared memory is per thread too, so
    /// launches from several threads are safe; one at a time is simply easier to debug.
    running: Mutex<()>,
}

fn cxx() -> String {
    std::env::var("CXX").ok().filter(|c| !c.is_empty()).unwrap_or_else(|| "c++".into())
}

/// Is there a C++ compiler to emulate with?
pub fn available() -> bool {
    std::process::Command::new(cxx()).arg("--version").output().is_ok_and(|o| o.status.success())
}

impl Api for Emulator {
    fn malloc(&self, bytes: usize) -> Result<Option<u64>> {
        let mut live = self.live.lock().map_err(|_| err!(Runtime, "emulator: poisoned"))?;
        if live.values().sum::<usize>() + bytes > MEMORY {
            return Ok(None);
        }
        let Ok(layout) = Layout::from_size_align(bytes.max(1), 512) else { return Ok(None) };
        // SAFETY: the layout has a size above zero.
        let ptr = unsafe { std::alloc::alloc(layout) } as u64;
        if ptr == 0 {
            return Ok(None);
        }
        live.insert(ptr, bytes);
        Ok(Some(ptr))
    }

    fn free(&self, ptr: u64) {
        let Ok(mut live) = self.live.lock() else { return };
        if let Some(bytes) = live.remove(&ptr)
            && let Ok(layout) = Layout::from_size_align(bytes.max(1), 512)
        {
            // SAFETY: allocated in `malloc` with this layout and removed from the table just now.
            unsafe { std::alloc::dealloc(ptr as *mut u8, layout) };
        }
    }

    unsafe fn copy(&self, _: Way, dst: *mut u8, src: *const u8, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise; "device" memory is this process's. The ranges may overlap.
        unsafe { std::ptr::copy(src, dst, bytes) };
        Ok(())
    }

    unsafe fn zero(&self, ptr: *mut u8, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::write_bytes(ptr, 0, bytes) };
        Ok(())
    }

    fn load(&self, title: &str, source: &str, names: &[String]) -> Result<Vec<Kernel>> {
        let source = format!("{EMU}\n{source}");
        nvrtc::dump(title, &source);
        let options = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fwrapv", "-ffp-contract=off", "-w"];
        let compiler = cxx();
        let key = nvrtc::hash(&[source.as_bytes(), options.join(" ").as_bytes(), compiler.as_bytes()]);
        let file = format!("{key:032x}.emu");
        // A folder per load: two threads may build the same kernel at once.
        static LOADS: AtomicU64 = AtomicU64::new(0);
        let load = LOADS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("pyrite-emu-{}-{load}-{key:032x}", std::process::id()));
        let built = (|| -> std::io::Result<std::result::Result<(), String>> {
            std::fs::create_dir_all(&dir)?;
            if let Some(image) = nvrtc::cache_read(&file) {
                std::fs::write(dir.join("k.so"), image)?;
                return Ok(Ok(()));
            }
            std::fs::write(dir.join("k.cpp"), &source)?;
            let out = std::process::Command::new(&compiler)
                .args(options)
                .arg("-o")
                .arg(dir.join("k.so"))
                .arg(dir.join("k.cpp"))
                .output()?;
            if !out.status.success() {
                return Ok(Err(nvrtc::numbered(title, &String::from_utf8_lossy(&out.stderr), &source)));
            }
            nvrtc::cache_write(&file, &std::fs::read(dir.join("k.so"))?);
            Ok(Ok(()))
        })();
        let built = built.map_err(|e| {
            err!(Runtime, "CUDA emulation: cannot run the C++ compiler `{compiler}` (set CXX): {e}")
        });
        let loaded = built.and_then(|b| match b {
            Err(log) => bail!(Runtime, "{log}"),
            // SAFETY: our own code without initialisers beyond the C++ runtime's.
            Ok(()) => unsafe { libloading::Library::new(dir.join("k.so")) }
                .map_err(|e| err!(Runtime, "CUDA emulation: cannot load kernel {title}: {e}")),
        });
        let _ = std::fs::remove_dir_all(&dir);
        let lib = loaded?;
        let kernels = names
            .iter()
            .map(|n| {
                // SAFETY: only the symbol's address is taken; `launch` knows its type.
                let s = unsafe { lib.get::<*const c_void>(n.as_bytes()) };
                s.map(|s| Kernel(*s as usize))
                    .map_err(|_| err!(Runtime, "CUDA emulation: no kernel {n} in {title}"))
            })
            .collect();
        // Kernels live as long as the process, as modules do on a GPU.
        std::mem::forget(lib);
        kernels
    }

    unsafe fn launch(&self, kernel: Kernel, grid: (u32, u32), block: u32, arg: *const c_void) -> Result<()> {
        let _one = self.running.lock();
        type Run = unsafe extern "C" fn(*const c_void, u32, u32, u32);
        // SAFETY: the address is that of a function EMU_KERNEL defined with this signature, in a
        // library that is never closed; the caller promises `arg`.
        unsafe { std::mem::transmute::<usize, Run>(kernel.0)(arg, grid.0, grid.1, block) };
        Ok(())
    }

    unsafe fn gemm(&self, g: &BlasGemm) -> Result<()> {
        let (asize, csize) = (g.dtype.size(), g.out_dtype.size());
        for batch in 0..g.batch as isize {
            for j in 0..g.n {
                for i in 0..g.m {
                    let mut sum = 0.0;
                    for l in 0..g.k {
                        let (ai, bi) = (
                            if g.trans_a { i * g.lda + l } else { l * g.lda + i },
                            if g.trans_b { l * g.ldb + j } else { j * g.ldb + l },
                        );
                        // SAFETY: the caller promises that the matrices hold these elements.
                        sum += unsafe {
                            read(g.a.offset((batch * g.stride_a + ai as isize) * asize as isize), g.dtype)?
                                * read(
                                    g.b.offset((batch * g.stride_b + bi as isize) * asize as isize),
                                    g.dtype,
                                )?
                        };
                    }
                    // SAFETY: as above.
                    unsafe {
                        let c = g.c.offset((batch * g.stride_c + (j * g.ldc + i) as isize) * csize as isize);
                        let old = if g.beta == 0.0 { 0.0 } else { g.beta * read(c, g.out_dtype)? };
                        write(c, g.out_dtype, g.alpha * sum + old)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    fn mem_info(&self) -> Result<(usize, usize)> {
        let live = self.live.lock().map_err(|_| err!(Runtime, "emulator: poisoned"))?;
        Ok((MEMORY.saturating_sub(live.values().sum()), MEMORY))
    }
    fn name(&self) -> String {
        "Pyrite CUDA emulation".into()
    }
    fn capability(&self) -> (u32, u32) {
        (8, 0)
    }
    fn processors(&self) -> u32 {
        2
    }
}

/// # Safety
/// `p` must be readable for one element of `d`.
unsafe fn read(p: *const u8, d: DType) -> Result<f64> {
    // SAFETY: the caller's promise.
    Ok(unsafe {
        match d {
            DType::F16 => p.cast::<f16>().read_unaligned().to_f64(),
            DType::BF16 => p.cast::<bf16>().read_unaligned().to_f64(),
            DType::F32 => p.cast::<f32>().read_unaligned() as f64,
            DType::F64 => p.cast::<f64>().read_unaligned(),
            d => bail!(NotImplemented, "matmul of {d} is not implemented on CUDA"),
        }
    })
}

/// # Safety
/// `p` must be writable for one element of `d`.
unsafe fn write(p: *mut u8, d: DType, v: f64) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        match d {
            DType::F16 => p.cast::<f16>().write_unaligned(f16::from_f64(v)),
            DType::BF16 => p.cast::<bf16>().write_unaligned(bf16::from_f64(v)),
            DType::F32 => p.cast::<f32>().write_unaligned(v as f32),
            DType::F64 => p.cast::<f64>().write_unaligned(v),
            d => bail!(NotImplemented, "matmul of {d} is not implemented on CUDA"),
        }
    }
    Ok(())
}
