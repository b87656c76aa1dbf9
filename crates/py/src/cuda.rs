//! `_C._cuda_*`: what `pyrite.cuda` asks of the CUDA backend. Nothing here starts CUDA by itself
//! except what says so.

use crate::enter::{Work, enter};
use crate::error::IntoPy;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells the CUDA room where pip's `nvidia-*` packages would be: the `nvidia` folder beside every
/// entry of `sys.path`. They are only looked at when CUDA is first used.
pub fn pass_library_dirs(py: Python) -> PyResult<()> {
    let mut dirs = Vec::new();
    for entry in py.import("sys")?.getattr("path")?.try_iter()? {
        // Entries that are not paths are the import system's own business.
        if let Ok(e) = entry?.extract::<PathBuf>() {
            dirs.push(e.join("nvidia"));
        }
    }
    pyrite_cuda::set_library_dirs(dirs);
    Ok(())
}

/// Has this process asked a device to do something through these functions?
static STARTED: AtomicBool = AtomicBool::new(false);

fn backend(index: u8) -> pyrite_core::Result<&'static dyn pyrite_core::Backend> {
    let b = pyrite_cuda::cuda(index)?;
    STARTED.store(true, Ordering::Relaxed);
    Ok(b)
}

/// Is a GPU usable?
#[pyfunction]
fn _cuda_is_available(py: Python) -> PyResult<bool> {
    enter(py, Work::Long, || Ok(pyrite_cuda::is_available()))
}

#[pyfunction]
fn _cuda_device_count(py: Python) -> PyResult<usize> {
    enter(py, Work::Long, || Ok(pyrite_cuda::device_count()))
}

/// Starts the first device, or says what is missing.
#[pyfunction]
fn _cuda_init(py: Python) -> PyResult<()> {
    enter(py, Work::Long, || backend(0).map(|_| ()))
}

#[pyfunction]
fn _cuda_is_initialized() -> bool {
    STARTED.load(Ordering::Relaxed)
}

/// Why CUDA cannot be used; None where it can.
#[pyfunction]
fn _cuda_why_unavailable(py: Python) -> PyResult<Option<String>> {
    enter(py, Work::Long, || Ok(pyrite_cuda::why_unavailable().map(|e| e.message().to_owned())))
}

/// Waits until the device has finished what it was given.
#[pyfunction]
fn _cuda_synchronize(py: Python, index: u8) -> PyResult<()> {
    enter(py, Work::Long, move || backend(index)?.synchronize())
}

#[pyfunction]
fn _cuda_device_properties(py: Python<'_>, index: u8) -> PyResult<Bound<'_, PyDict>> {
    let i = index as usize;
    let (name, (major, minor), (_, total)) = enter(py, Work::Long, move || {
        backend(index)?;
        Ok((pyrite_cuda::device_name(i)?, pyrite_cuda::capability(i)?, pyrite_cuda::mem_get_info(i)?))
    })?;
    let d = PyDict::new(py);
    d.set_item("name", name)?;
    d.set_item("major", major)?;
    d.set_item("minor", minor)?;
    d.set_item("total_memory", total)?;
    Ok(d)
}

/// Free and total bytes.
#[pyfunction]
fn _cuda_mem_get_info(py: Python, index: u8) -> PyResult<(usize, usize)> {
    enter(py, Work::Long, move || pyrite_cuda::mem_get_info(index as usize))
}

/// Allows rounded TF32 matrix products in f32.
#[pyfunction]
fn _cuda_set_allow_tf32(py: Python, index: u8, allow: bool) -> PyResult<()> {
    pyrite_cuda::set_allow_tf32(index as usize, allow).py(py)
}

#[pyfunction]
fn _cuda_allow_tf32(py: Python, index: u8) -> PyResult<bool> {
    pyrite_cuda::allow_tf32(index as usize).py(py)
}

/// Compiles the elementwise kernels of a dtype ahead of time; returns how many.
#[pyfunction]
fn _cuda_warmup(py: Python, index: u8, dtype: &Bound<PyAny>) -> PyResult<usize> {
    let d = crate::args::dtype_arg("warmup", Some(dtype))?.unwrap_or_else(pyrite_core::DType::default_float);
    enter(py, Work::Long, move || pyrite_cuda::warmup(index as usize, d))
}

/// Folders with NVIDIA's libraries, searched before the loader's own; call it before CUDA starts.
#[pyfunction]
fn _cuda_set_library_dirs(dirs: Vec<PathBuf>) {
    pyrite_cuda::set_library_dirs(dirs);
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_cuda_is_available, m)?)?;
    m.add_function(wrap_pyfunction!(_cuda_device_count, m)?)?;
    m.add_function(wrap_pyfunction!(_cuda_init, m)?)?;
    m.add_function(wrap_pyfunction!(_cuda_is_initialized, m)?)?;
    m.add_function(wrap_pyfunction!(_cuda_why_unavailable, m)?)?;
    m.add_function(wrap_pyfunction!(_cuda_synchronize, m)?)?;
    m.add_function(wrap_pyfunction!(_cuda_device_properties, m)?)?;
    m.add_function(wrap_pyfunction!(_cuda_mem_get_info, m)?)?;
    m.add_function(wrap_pyfunction!(_cuda_set_allow_tf32, m)?)?;
    m.add_function(wrap_pyfunction!(_cuda_allow_tf32, m)?)?;
    m.add_function(wrap_pyfunction!(_cuda_warmup, m)?)?;
    m.add_function(wrap_pyfunction!(_cuda_set_library_dirs, m)?)?;
    Ok(())
}
