//! Module-level functions that are not ops: defaults, promotion, threads, memory statistics, print
//! options, and what build this is.

use crate::args::{self, number};
use crate::error::IntoPy;
use crate::tensor::{self, get};
use crate::types::{PyDType, as_dtype, dtype_object};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyrite_core::DType;
use pyrite_core::dtype::Promotion;
use pyrite_tensor::fmt;

fn the_dtype(op: &str, name: &str, o: &Bound<PyAny>) -> PyResult<DType> {
    match as_dtype(o) {
        Some(d) => Ok(d),
        None => Err(PyTypeError::new_err(format!(
            "{op}(): argument '{name}' must be torch.dtype, not {}",
            o.get_type().name()?
        ))),
    }
}

/// The dtype of new floating tensors.
#[pyfunction]
fn get_default_dtype(py: Python) -> PyResult<Py<PyDType>> {
    dtype_object(py, DType::default_float())
}

#[pyfunction]
fn _set_standard_operators(on: bool) -> bool {
    pyrite_core::dtype::set_standard(on)
}

#[pyfunction]
fn set_default_dtype(d: &Bound<PyAny>) -> PyResult<()> {
    let d = the_dtype("set_default_dtype", "d", d)?;
    if !d.is_float() {
        return Err(PyTypeError::new_err(format!(
            "only floating-point types are supported as the default type (got {d})"
        )));
    }
    DType::set_default_float(d);
    Ok(())
}

/// Where tensors are made if the call does not say.
#[pyfunction]
fn get_default_device(py: Python) -> PyResult<Py<crate::types::PyDevice>> {
    crate::types::device_object(py, pyrite_tensor::config::default_device())
}

/// Sets where tensors are made if the call does not say; None stands for the CPU.
#[pyfunction]
fn set_default_device(device: Option<&Bound<PyAny>>) -> PyResult<()> {
    let d = args::device_arg("set_default_device", device)?.unwrap_or(pyrite_core::Device::Cpu);
    pyrite_tensor::config::set_default_device(d);
    Ok(())
}

/// Shows every warning, also one that was shown before.
#[pyfunction]
fn set_warn_always(b: bool) {
    crate::enter::WARN_ALWAYS.store(b, std::sync::atomic::Ordering::Relaxed);
}

#[pyfunction]
fn is_warn_always_enabled() -> bool {
    crate::enter::WARN_ALWAYS.load(std::sync::atomic::Ordering::Relaxed)
}

/// The common dtype of two dtypes.
#[pyfunction]
fn promote_types(py: Python, type1: &Bound<PyAny>, type2: &Bound<PyAny>) -> PyResult<Py<PyDType>> {
    dtype_object(
        py,
        DType::promote(
            the_dtype("promote_types", "type1", type1)?,
            the_dtype("promote_types", "type2", type2)?,
        ),
    )
}

/// May values of one dtype be stored in another?
#[pyfunction]
fn can_cast(from_: &Bound<PyAny>, to: &Bound<PyAny>) -> PyResult<bool> {
    Ok(the_dtype("can_cast", "from_", from_)?.can_cast(the_dtype("can_cast", "to", to)?))
}

/// The dtype an operation on two tensors or numbers computes in.
#[pyfunction]
#[pyo3(signature = (tensor1, tensor2))]
fn result_type(py: Python, tensor1: &Bound<PyAny>, tensor2: &Bound<PyAny>) -> PyResult<Py<PyDType>> {
    let mut p = Promotion::default();
    for (name, o) in [("tensor1", tensor1), ("tensor2", tensor2)] {
        p = match (get(o), number(o.as_borrowed())?) {
            (Some(t), _) => p.tensor(t.dtype(), t.ndim()),
            (None, Some(s)) => p.number(s),
            _ => {
                return Err(PyTypeError::new_err(format!(
                    "result_type(): argument '{name}' must be Tensor or Number, not {}",
                    o.get_type().name()?
                )));
            }
        };
    }
    dtype_object(py, p.result())
}

/// How many threads one operation uses at most.
#[pyfunction]
fn get_num_threads() -> usize {
    pyrite_cpu::pool::num_threads()
}

#[pyfunction]
fn set_num_threads(n: &Bound<PyAny>) -> PyResult<()> {
    let Some(n) = args::int(n.as_borrowed())? else {
        return tensor::runtime(format!("set_num_threads expects an int, but got {}", n.get_type().name()?));
    };
    match usize::try_from(n) {
        Ok(n) if n > 0 => {
            pyrite_cpu::pool::set_num_threads(n);
            Ok(())
        }
        _ => tensor::runtime(format!("set_num_threads expects a positive integer, got {n}")),
    }
}

/// Memory statistics of a device's allocator.
#[pyfunction]
#[pyo3(signature = (device=None))]
fn memory_stats<'py>(py: Python<'py>, device: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyDict>> {
    let d = args::device_arg("memory_stats", device)?.unwrap_or(pyrite_core::Device::Cpu);
    let out = PyDict::new(py);
    for (k, v) in pyrite_tensor::tensor::backend(d).py(py)?.memory_stats() {
        out.set_item(k, v)?;
    }
    Ok(out)
}

/// Gives cached memory back to the system.
#[pyfunction]
#[pyo3(signature = (device=None))]
fn empty_cache(py: Python, device: Option<&Bound<PyAny>>) -> PyResult<()> {
    let d = args::device_arg("empty_cache", device)?.unwrap_or(pyrite_core::Device::Cpu);
    pyrite_tensor::tensor::backend(d).py(py)?.empty_cache();
    Ok(())
}

#[pyfunction]
#[pyo3(signature = (device=None))]
fn reset_peak_memory_stats(py: Python, device: Option<&Bound<PyAny>>) -> PyResult<()> {
    let d = args::device_arg("reset_peak_memory_stats", device)?.unwrap_or(pyrite_core::Device::Cpu);
    pyrite_tensor::tensor::backend(d).py(py)?.reset_peak_stats();
    Ok(())
}

/// How tensors print. `profile` sets everything at once; the other arguments override it.
#[pyfunction]
#[pyo3(signature = (precision=None, threshold=None, edgeitems=None, linewidth=None, profile=None, sci_mode=None))]
fn set_printoptions(
    precision: Option<usize>,
    threshold: Option<f64>,
    edgeitems: Option<usize>,
    linewidth: Option<usize>,
    profile: Option<&str>,
    sci_mode: Option<bool>,
) -> PyResult<()> {
    let mut o = fmt::options();
    match profile {
        None => {}
        Some("default") => o = fmt::Options::DEFAULT,
        Some("short") => o = fmt::Options { precision: 2, edgeitems: 2, ..fmt::Options::DEFAULT },
        Some("full") => o = fmt::Options { threshold: usize::MAX, ..fmt::Options::DEFAULT },
        Some(p) => {
            return Err(PyValueError::new_err(format!(
                "set_printoptions: profile must be 'default', 'short' or 'full', got '{p}'"
            )));
        }
    }
    if let Some(v) = precision {
        o.precision = v;
    }
    if let Some(v) = threshold {
        // `inf` switches summarising off.
        o.threshold = if v >= usize::MAX as f64 { usize::MAX } else { v.max(0.0) as usize };
    }
    if let Some(v) = edgeitems {
        o.edgeitems = v;
    }
    if let Some(v) = linewidth {
        o.linewidth = v;
    }
    // As in PyTorch, every call decides about notation anew.
    o.sci_mode = sci_mode;
    fmt::set_options(o);
    Ok(())
}

/// The instruction set the kernels run on.
#[pyfunction]
fn _isa() -> String {
    format!("{:?}", pyrite_cpu::simd::isa()).to_lowercase()
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(get_default_dtype, m)?)?;
    m.add_function(wrap_pyfunction!(set_default_dtype, m)?)?;
    m.add_function(wrap_pyfunction!(get_default_device, m)?)?;
    m.add_function(wrap_pyfunction!(set_default_device, m)?)?;
    m.add_function(wrap_pyfunction!(set_warn_always, m)?)?;
    m.add_function(wrap_pyfunction!(is_warn_always_enabled, m)?)?;
    m.add_function(wrap_pyfunction!(_set_standard_operators, m)?)?;
    m.add_function(wrap_pyfunction!(promote_types, m)?)?;
    m.add_function(wrap_pyfunction!(can_cast, m)?)?;
    m.add_function(wrap_pyfunction!(result_type, m)?)?;
    m.add_function(wrap_pyfunction!(get_num_threads, m)?)?;
    m.add_function(wrap_pyfunction!(set_num_threads, m)?)?;
    m.add_function(wrap_pyfunction!(memory_stats, m)?)?;
    m.add_function(wrap_pyfunction!(empty_cache, m)?)?;
    m.add_function(wrap_pyfunction!(reset_peak_memory_stats, m)?)?;
    m.add_function(wrap_pyfunction!(set_printoptions, m)?)?;
    m.add_function(wrap_pyfunction!(_isa, m)?)?;
    m.add_function(wrap_pyfunction!(crate::bind::_registry, m)?)?;
    m.add("build_profile", env!("PYRITE_PROFILE"))?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))
}
