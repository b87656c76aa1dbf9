//! Kernel source to cubin: NVRTC, with a cache on disk. Works without a driver and without a GPU.

use crate::load::{self, Lib};
use cudarc::nvrtc::sys;
use pyrite_core::{Result, bail, err};
use std::ffi::{CString, c_char};
use std::path::PathBuf;

const MAGIC: &[u8; 8] = b"pyrcub01";

/// FNV-1a, 128 bits: stable over Rust versions, unlike the standard hasher.
pub fn hash(parts: &[&[u8]]) -> u128 {
    let mut h: u128 = 0x6c62272e07bb014262b821756295c58d;
    for part in parts {
        for b in (part.len() as u64).to_le_bytes().iter().chain(part.iter()) {
            h = (h ^ *b as u128).wrapping_mul(0x0000000001000000000000000000013B);
        }
    }
    h
}

/// `$PYRITE_CACHE_DIR`, else `$XDG_CACHE_HOME/pyrite`, else `~/.cache/pyrite`.
pub fn cache_dir() -> Option<PathBuf> {
    let var = |n: &str| std::env::var_os(n).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("PYRITE_CACHE_DIR")
        .or_else(|| var("XDG_CACHE_HOME").map(|d| d.join("pyrite")))
        .or_else(|| var("HOME").map(|d| d.join(".cache").join("pyrite")))
}

/// Reads a cached payload; anything that is not exactly what was written counts as absent.
pub fn cache_read(name: &str) -> Option<Vec<u8>> {
    let bytes = std::fs::read(cache_dir()?.join(name)).ok()?;
    let payload = bytes.strip_prefix(MAGIC)?;
    let (sum, body) = payload.split_at_checked(16)?;
    (hash(&[body]).to_le_bytes() == sum).then(|| body.to_vec())
}

/// Writes through a temporary name, so that no reader sees half a file. A cache that can't be written
/// (full disk, read-only home) costs time later, never an error.
pub fn cache_write(name: &str, body: &[u8]) {
    let Some(dir) = cache_dir() else { return };
    let temporary = dir.join(format!("{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
    let mut bytes = MAGIC.to_vec();
    bytes.extend(hash(&[body]).to_le_bytes());
    bytes.extend(body);
    let done = std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(&temporary, bytes))
        .and_then(|()| std::fs::rename(&temporary, dir.join(name)));
    if done.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
}

/// `PYRITE_DUMP_KERNELS=dir`: every source as it is handed to the compiler.
pub fn dump(title: &str, source: &str) {
    if let Some(dir) = std::env::var_os("PYRITE_DUMP_KERNELS").filter(|v| !v.is_empty()) {
        let dir = PathBuf::from(dir);
        let _ = std::fs::create_dir_all(&dir);
        let _ = std::fs::write(dir.join(format!("{title}.cu")), source);
    }
}

/// A compiler's complaint above the source it complained about, with line numbers.
pub fn numbered(title: &str, log: &str, source: &str) -> String {
    let lines = source.lines().enumerate().map(|(i, l)| format!("{:5} {l}\n", i + 1)).collect::<String>();
    format!("kernel {title} does not compile (a bug in Pyrite, please report it):\n{log}\n{lines}")
}

pub fn version() -> Result<(i32, i32)> {
    load::require(Lib::Nvrtc, sys::is_culib_present)?;
    load::no_panic("nvrtcVersion", || {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are valid for one int.
        match unsafe { sys::nvrtcVersion(&mut major, &mut minor) } {
            sys::nvrtcResult::NVRTC_SUCCESS => Ok((major, minor)),
            e => bail!(Runtime, "nvrtcVersion failed: {e:?}"),
        }
    })
}

/// The cubin of `source` for `sm_<arch>`, from the cache where possible.
pub fn cubin(title: &str, source: &str, arch: u32) -> Result<Vec<u8>> {
    dump(title, source);
    let (major, minor) = version()?;
    let options = [format!("-arch=sm_{arch}"), "-std=c++17".into(), "-default-device".into()];
    let key = hash(&[
        source.as_bytes(),
        options.join(" ").as_bytes(),
        format!("{major}.{minor}").as_bytes(),
        env!("CARGO_PKG_VERSION").as_bytes(),
    ]);
    let file = format!("{key:032x}.cubin");
    if let Some(c) = cache_read(&file) {
        return Ok(c);
    }
    let c = load::no_panic("NVRTC", || compile(title, source, &options))?;
    cache_write(&file, &c);
    Ok(c)
}

struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created by nvrtcCreateProgram and destroyed once, here.
        unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

fn compile(title: &str, source: &str, options: &[String]) -> Result<Vec<u8>> {
    let text = CString::new(source).map_err(|_| err!(Runtime, "kernel {title}: zero byte in the source"))?;
    let name = CString::new(format!("{title}.cu")).map_err(|_| err!(Runtime, "kernel {title}: bad name"))?;
    let mut raw = std::ptr::null_mut();
    let check = |r: sys::nvrtcResult, what: &str| match r {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        e => Err(err!(Runtime, "{what} failed for kernel {title}: {e:?}")),
    };
    // SAFETY: both strings are zero-terminated and live through the call; no headers are passed.
    let r = unsafe {
        sys::nvrtcCreateProgram(&mut raw, text.as_ptr(), name.as_ptr(), 0, std::ptr::null(), std::ptr::null())
    };
    check(r, "nvrtcCreateProgram")?;
    let program = Program(raw);
    let options: Vec<CString> = options.iter().filter_map(|o| CString::new(o.as_str()).ok()).collect();
    let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
    // SAFETY: the program is alive; the options are zero-terminated and live through the call.
    let r = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as i32, pointers.as_ptr()) };
    if r != sys::nvrtcResult::NVRTC_SUCCESS {
        let mut size = 0;
        // SAFETY: the program is alive, `size` is valid for one word.
        check(unsafe { sys::nvrtcGetProgramLogSize(program.0, &mut size) }, "nvrtcGetProgramLogSize")?;
        let mut log = vec![0u8; size];
        // SAFETY: `log` has the size that was just asked for.
        check(unsafe { sys::nvrtcGetProgramLog(program.0, log.as_mut_ptr().cast()) }, "nvrtcGetProgramLog")?;
        let log = String::from_utf8_lossy(&log);
        bail!(Runtime, "{}", numbered(title, log.trim_end_matches('\0'), source));
    }
    let mut size = 0;
    // SAFETY: the program is alive and compiled, `size` is valid for one word.
    check(unsafe { sys::nvrtcGetCUBINSize(program.0, &mut size) }, "nvrtcGetCUBINSize")?;
    let mut out = vec![0u8; size];
    // SAFETY: `out` has the size that was just asked for.
    check(unsafe { sys::nvrtcGetCUBIN(program.0, out.as_mut_ptr().cast()) }, "nvrtcGetCUBIN")?;
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_cache_entry_counts_as_absent() {
        let name = format!("test-{}.cubin", std::process::id());
        cache_write(&name, b"payload");
        let Some(path) = cache_dir().map(|d| d.join(&name)).filter(|p| p.exists()) else {
            return; // no writable cache folder on this machine: nothing to damage
        };
        assert_eq!(cache_read(&name).as_deref(), Some(&b"payload"[..]));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(cache_read(&name), None);
        std::fs::write(&path, b"pyr").unwrap();
        assert_eq!(cache_read(&name), None);
        std::fs::remove_file(&path).unwrap();
    }
}
