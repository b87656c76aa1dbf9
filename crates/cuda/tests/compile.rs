//! Every kernel compiles for the oldest and the newest supported architecture. Needs NVRTC (the pip
//! package nvidia-cuda-nvrtc, a test dependency), no GPU and no driver.

#![allow(clippy::unwrap_used)] // a test that panics has failed

use std::path::PathBuf;

/// `PYRITE_CUDA_LIBS`, else the workspace's or the active virtual environment.
fn find_nvrtc() -> bool {
    if std::env::var_os("PYRITE_CUDA_LIBS").is_none() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut homes = vec![root.join(".venv")];
        homes.extend(std::env::var_os("VIRTUAL_ENV").map(PathBuf::from));
        let mut dirs = Vec::new();
        for home in homes {
            for e in std::fs::read_dir(home.join("lib")).into_iter().flatten().flatten() {
                dirs.push(e.path().join("site-packages/nvidia"));
            }
        }
        pyrite_cuda::set_library_dirs(dirs.into_iter().filter(|d| d.is_dir()).collect());
    }
    match pyrite_cuda::nvrtc::version() {
        Ok(_) => true,
        Err(e) => {
            // In CI the package is installed before the tests: its absence there is a failure.
            assert!(std::env::var_os("CI").is_none_or(|v| v.is_empty() || v == "false"), "{e}");
            println!("skipped: {e}");
            false
        }
    }
}

fn compiles(arch: u32) {
    if find_nvrtc() {
        let (modules, kernels, _) = pyrite_cuda::variants::compile_all(arch).unwrap();
        assert!(modules > 50 && kernels > 2500, "{modules} modules, {kernels} kernels");
    }
}

#[test]
fn every_kernel_compiles_for_sm_80() {
    compiles(80);
}

#[test]
fn every_kernel_compiles_for_sm_90() {
    compiles(90);
}
