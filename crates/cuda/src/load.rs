//! Finds NVIDIA's libraries at run time. The pip packages' folders are not on the loader's path, so
//! each library is opened once by its full path before cudarc looks for it by name: the loader then
//! answers the second request with the library that is already there.

use pyrite_core::{Result, bail};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

static DIRS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static OPENED: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);

/// A toolkit library and what it needs to find loaded first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lib {
    Nvrtc,
    Cublas,
}

impl Lib {
    /// File name stems in loading order. libnvrtc has no run path of its own and fails at the first
    /// compilation unless its builtins are loaded already.
    fn stems(self) -> &'static [&'static str] {
        match self {
            Lib::Nvrtc => &["libnvrtc-builtins", "libnvrtc"],
            Lib::Cublas => &["libcublasLt", "libcublas"],
        }
    }
    fn package(self) -> &'static str {
        match self {
            Lib::Nvrtc => "nvidia-cuda-nvrtc",
            Lib::Cublas => "nvidia-cublas",
        }
    }
}

/// Folders to search, best first: the Python package passes the ones of pip's nvidia packages.
/// `PYRITE_CUDA_LIBS` (folders separated by colons) comes before them.
pub fn set_library_dirs(dirs: Vec<PathBuf>) {
    if let Ok(mut d) = DIRS.lock() {
        *d = dirs;
    }
}

fn search_dirs() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = std::env::var_os("PYRITE_CUDA_LIBS")
        .map(|v| std::env::split_paths(&v).filter(|p| !p.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if let Ok(d) = DIRS.lock() {
        dirs.extend(d.iter().cloned());
    }
    dirs
}

/// `stem.so*` in `dir` or up to three folders below it (`nvidia/cu13/lib`, `nvidia/cublas/lib`).
fn find(dir: &Path, stem: &str, depth: usize) -> Option<PathBuf> {
    let mut below = Vec::new();
    let mut found: Vec<PathBuf> = Vec::new();
    for e in std::fs::read_dir(dir).ok()?.flatten() {
        let (path, name) = (e.path(), e.file_name());
        let name = name.to_string_lossy();
        if name.strip_prefix(stem).is_some_and(|rest| rest.starts_with(".so")) {
            found.push(path);
        } else if depth > 0 && path.is_dir() {
            below.push(path);
        }
    }
    // The shortest name is the most general link; ties by name, so that every run picks the same.
    found.sort_by_key(|p| (p.as_os_str().len(), p.clone()));
    below.sort();
    found.into_iter().next().or_else(|| below.iter().find_map(|d| find(d, stem, depth - 1)))
}

/// Opens the library's files by full path where the search folders have them.
pub fn preload(lib: Lib) {
    let Ok(mut opened) = OPENED.lock() else { return };
    let opened = opened.get_or_insert_with(HashSet::new);
    let dirs = search_dirs();
    for stem in lib.stems() {
        if opened.contains(stem) {
            continue;
        }
        if let Some(path) = dirs.iter().find_map(|d| find(d, stem, 3)) {
            // SAFETY: opening runs the library's initialisers; these are NVIDIA's own libraries, in
            // folders named by the user or belonging to installed packages.
            if let Ok(l) = unsafe { libloading::Library::new(&path) } {
                // Never closed: cudarc's handles refer to it for the rest of the process.
                std::mem::forget(l);
                opened.insert(stem);
            }
        }
    }
}

/// Makes `lib` usable or says what to install. `present` is cudarc's probe for it.
pub fn require(lib: Lib, present: unsafe fn() -> bool) -> Result<()> {
    preload(lib);
    // SAFETY: the probe only opens and closes shared libraries by name.
    let there = catch_unwind(AssertUnwindSafe(|| unsafe { present() })).unwrap_or(false);
    if !there {
        bail!(
            Runtime,
            "CUDA needs {} ({}), which was not found; install it with `pip install pyrite[cuda13]` (or `pip install {}`), or set PYRITE_CUDA_LIBS to the folder that holds it",
            lib.stems().last().copied().unwrap_or_default(),
            lib.stems().join(", "),
            lib.package()
        );
    }
    Ok(())
}

/// cudarc panics where a library or symbol is missing: here that is an error like any other.
pub fn no_panic<T>(what: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(r) => r,
        Err(p) => {
            let text = p
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| p.downcast_ref::<&str>().copied())
                .unwrap_or("unknown cause");
            bail!(
                Runtime,
                "{what}: the installed NVIDIA library does not fit ({text}); `pip install pyrite[cuda13]` brings fitting ones"
            )
        }
    }
}
