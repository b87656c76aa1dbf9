//! A tensor's memory for others: the buffer protocol (`memoryview(t)`), `__array_interface__`, and the
//! entry to the array API standard (`__array_namespace__`, `to_device`).

use crate::enter::{Work, enter};
use crate::interop;
use crate::tensor::{PyTensor, wrap};
use pyo3::exceptions::{PyAttributeError, PyBufferError, PyNotImplementedError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};
use pyrite_core::{DType, Device};
use pyrite_tensor::{Tensor, ops};
use std::ffi::{CStr, c_int, c_void};

/// What an exported view points to. It owns a handle on the tensor as it was: if the object is later
/// given other data (`x.data = y`, `resize_`), the exported memory stays where it is.
struct Exported {
    _keep: Tensor,
    shape: Vec<ffi::Py_ssize_t>,
    strides: Vec<ffi::Py_ssize_t>,
}

/// The element's code in the `struct` module's language (PEP 3118).
fn format(d: DType) -> Option<&'static CStr> {
    Some(match d {
        DType::Bool => c"?",
        DType::U8 => c"B",
        DType::I8 => c"b",
        DType::U16 => c"H",
        DType::I16 => c"h",
        DType::U32 => c"I",
        DType::I32 => c"i",
        DType::U64 => c"Q",
        DType::I64 => c"q",
        DType::F16 => c"e",
        DType::F32 => c"f",
        DType::F64 => c"d",
        DType::C64 => c"Zf",
        DType::C128 => c"Zd",
        DType::BF16 => return None,
    })
}

/// Why this tensor's memory cannot be handed out, if it cannot.
fn refusal(t: &Tensor) -> Option<String> {
    if t.device() != Device::Cpu {
        return Some(format!(
            "the tensor lies on {}. Use Tensor.cpu() to copy it to host memory first.",
            t.device()
        ));
    }
    if t.requires_grad() {
        return Some("the tensor requires grad. Use tensor.detach() to hand out its memory.".into());
    }
    if format(t.dtype()).is_none() {
        return Some(format!(
            "the buffer protocol has no code for {}. Convert it first, e.g. with .float().",
            t.dtype()
        ));
    }
    None
}

#[pymethods]
impl PyTensor {
    /// The buffer protocol, zero-copy: `memoryview(t)`, `np.asarray(t)`, `file.write(t)`.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let t = slf.get().tensor(slf.py());
        if let Some(why) = refusal(&t) {
            return Err(PyBufferError::new_err(format!("cannot export a buffer: {why}")));
        }
        let read_only = t.storage().is_read_only();
        if flags & ffi::PyBUF_WRITABLE == ffi::PyBUF_WRITABLE && read_only {
            return Err(PyBufferError::new_err(
                "cannot export a writable buffer: the tensor's memory is read-only",
            ));
        }
        let wants = |flag: c_int| flags & flag == flag;
        let fortran = || {
            t.ndim() < 2 || {
                let dims: Vec<i64> = (0..t.ndim() as i64).rev().collect();
                t.layout().permute(&dims).is_ok_and(|l| l.is_contiguous())
            }
        };
        let ok = if wants(ffi::PyBUF_F_CONTIGUOUS) {
            fortran()
        } else if wants(ffi::PyBUF_ANY_CONTIGUOUS) {
            t.is_contiguous() || fortran()
        } else if wants(ffi::PyBUF_C_CONTIGUOUS) || !wants(ffi::PyBUF_STRIDES) {
            t.is_contiguous()
        } else {
            true
        };
        if !ok {
            return Err(PyBufferError::new_err(
                "cannot export this buffer: the tensor is not contiguous, and strides were not asked for. Use .contiguous().",
            ));
        }
        let size = t.dtype().size() as ffi::Py_ssize_t;
        let mut exported = Box::new(Exported {
            shape: t.shape().iter().map(|n| *n as ffi::Py_ssize_t).collect(),
            strides: t.strides().iter().map(|s| *s as ffi::Py_ssize_t * size).collect(),
            _keep: t.alias(),
        });
        let code = format(t.dtype()).unwrap_or(c"B");
        // SAFETY: `view` is valid for writes by the protocol (checked not null). The arrays belong to
        // `exported`, whose address is kept in `internal` until `__releasebuffer__`, and live on the
        // heap; `_keep` keeps the memory behind `buf`. Python only reads the format string.
        unsafe {
            (*view).buf = t.ptr() as *mut c_void;
            (*view).len = t.numel() as ffi::Py_ssize_t * size;
            (*view).itemsize = size;
            (*view).readonly = read_only as c_int;
            (*view).ndim = t.ndim() as c_int;
            (*view).format =
                if wants(ffi::PyBUF_FORMAT) { code.as_ptr().cast_mut() } else { std::ptr::null_mut() };
            (*view).shape =
                if wants(ffi::PyBUF_ND) { exported.shape.as_mut_ptr() } else { std::ptr::null_mut() };
            (*view).strides =
                if wants(ffi::PyBUF_STRIDES) { exported.strides.as_mut_ptr() } else { std::ptr::null_mut() };
            (*view).suboffsets = std::ptr::null_mut();
            (*view).internal = Box::into_raw(exported).cast();
            (*view).obj = slf.into_ptr();
        }
        Ok(())
    }

    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        // SAFETY: the protocol releases each view filled by `__getbuffer__` exactly once; `internal`
        // is the box made there.
        unsafe {
            if !view.is_null() && !(*view).internal.is_null() {
                drop(Box::from_raw((*view).internal.cast::<Exported>()));
                (*view).internal = std::ptr::null_mut();
            }
        }
    }

    /// The array interface, version 3: a description of the memory that NumPy reads.
    ///
    /// Raises AttributeError where the memory cannot be handed out: on a GPU, with `requires_grad`, in
    /// bfloat16.
    #[getter]
    fn __array_interface__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let t = slf.get().tensor(slf.py());
        match refusal(&t) {
            Some(why) => Err(PyAttributeError::new_err(format!("no __array_interface__: {why}"))),
            None => interop::interface(slf.py(), &t),
        }
    }

    /// The namespace of the array API standard that works on this tensor: `pyrite.array_api`.
    #[pyo3(signature = (*, api_version=None))]
    fn __array_namespace__<'py>(
        &self,
        py: Python<'py>,
        api_version: Option<&str>,
    ) -> PyResult<Bound<'py, PyModule>> {
        const VERSIONS: [&str; 4] = ["2021.12", "2022.12", "2023.12", "2024.12"];
        match api_version {
            Some(v) if !VERSIONS.contains(&v) => Err(PyValueError::new_err(format!(
                "array API version {v:?} is not supported; supported are {}",
                VERSIONS.join(", ")
            ))),
            _ => py.import("pyrite.array_api"),
        }
    }

    /// This tensor on another device (the array API's name for `Tensor.to`).
    #[pyo3(signature = (device, /, *, stream=None))]
    fn to_device<'py>(
        slf: &Bound<'py, Self>,
        device: &Bound<'py, PyAny>,
        stream: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTensor>> {
        let py = slf.py();
        if stream.is_some() {
            return Err(PyNotImplementedError::new_err("to_device(): argument 'stream' is not supported"));
        }
        let t = slf.get().tensor(py);
        let d = crate::args::device_arg("to_device", Some(device))?.unwrap_or(t.device());
        if t.device() == d {
            return Ok(slf.clone());
        }
        let t = t.alias();
        let y = enter(py, Work::Elements(t.numel()), move || ops::to_device(&t, d))?;
        wrap(py, y)
    }
}
