//! Memory shared with NumPy and other holders of arrays: `__array_interface__`, buffers, `numpy()`.

use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::tensor::{self, PyTensor, wrap};
use pyo3::exceptions::{PyTypeError, PyUserWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use pyrite_core::storage::Owner;
use pyrite_core::{DType, Device, Layout, Storage};
use pyrite_tensor::autograd::is_grad_enabled;
use pyrite_tensor::{Tensor, ops};

/// A dtype's code in `__array_interface__`, without the byte order.
fn code(d: DType) -> Option<&'static str> {
    Some(match d {
        DType::Bool => "b1",
        DType::U8 => "u1",
        DType::I8 => "i1",
        DType::I16 => "i2",
        DType::I32 => "i4",
        DType::I64 => "i8",
        DType::U16 => "u2",
        DType::U32 => "u4",
        DType::U64 => "u8",
        DType::F16 => "f2",
        DType::F32 => "f4",
        DType::F64 => "f8",
        DType::C64 => "c8",
        DType::C128 => "c16",
        DType::BF16 => return None,
    })
}

/// A tensor over foreign memory. `strides` are in bytes; `None` is row-major.
///
/// # Safety
/// The memory the shape and strides describe must be valid while `owner` lives.
unsafe fn over(
    op: &str,
    py: Python,
    ptr: usize,
    d: DType,
    shape: &[usize],
    strides: Option<&[isize]>,
    owner: Owner,
) -> PyResult<Tensor> {
    let size = d.size() as isize;
    let n = pyrite_core::layout::numel(shape).py(py)?;
    let steps: Vec<isize> = match strides {
        None => pyrite_core::layout::contiguous_strides(shape).to_vec(),
        Some(s) => {
            for (&s, &n) in s.iter().zip(shape) {
                if n > 1 && s % size != 0 {
                    return Err(PyValueError::new_err(format!(
                        "{op}: given numpy array strides not a multiple of the element byte size. Copy the numpy array to reallocate the memory."
                    )));
                }
            }
            s.iter().map(|s| s / size).collect()
        }
    };
    if n == 0 {
        return Tensor::empty(shape, d, Device::Cpu).py(py);
    }
    // The lowest and the highest element decide where the storage begins and how long it is.
    let (mut low, mut high) = (0isize, 0isize);
    for (&s, &n) in steps.iter().zip(shape) {
        let reach = s * (n as isize - 1);
        if reach < 0 { low += reach } else { high += reach }
    }
    let bytes = ((high - low + 1) * size) as usize;
    let start = ptr.wrapping_add_signed(low * size) as *mut u8;
    // SAFETY: the caller says that everything between the lowest and highest element is valid.
    let storage = unsafe { Storage::from_raw(start, bytes, Device::Cpu, owner) };
    let layout = Layout::new(shape, steps.as_slice(), (-low) as usize);
    Ok(Tensor::from_parts(storage, layout, d))
}

/// A tensor over the memory of an object with `__array_interface__`; `None` if it has none.
pub fn array_like(o: &Bound<PyAny>) -> PyResult<Option<Tensor>> {
    let py = o.py();
    // The common things that surely have none are sorted out before an attribute is looked up.
    if o.is_instance_of::<PyList>()
        || o.is_instance_of::<PyTuple>()
        || o.is_exact_instance_of::<pyo3::types::PyFloat>()
        || o.is_instance_of::<pyo3::types::PyInt>()
        || o.is_instance_of::<PyString>()
    {
        return Ok(None);
    }
    let Ok(i) = o.getattr("__array_interface__") else { return Ok(None) };
    let Ok(i) = i.cast_into::<PyDict>() else { return Ok(None) };
    let get = |k: &str| -> PyResult<Bound<PyAny>> {
        match i.get_item(k)? {
            Some(v) => Ok(v),
            None => Err(PyTypeError::new_err(format!("__array_interface__ has no entry {k:?}"))),
        }
    };
    let typestr: String = get("typestr")?.extract()?;
    let (order, kind) = typestr.split_at(1);
    if order == ">" && !kind.ends_with('1') {
        return Err(PyValueError::new_err(
            "given numpy array has byte order different from the native byte order. Conversion between byte orders is currently not supported.",
        ));
    }
    let Some(d) = DType::ALL.iter().copied().find(|d| code(*d) == Some(kind)) else {
        return Err(PyTypeError::new_err(format!(
            "can't convert an array of type {typestr}. The only supported types are: float64, float32, float16, complex64, complex128, int64, int32, int16, int8, uint64, uint32, uint16, uint8, and bool."
        )));
    };
    let shape: Vec<usize> = get("shape")?.extract()?;
    let strides: Option<Vec<isize>> = match i.get_item("strides")? {
        Some(s) if !s.is_none() => Some(s.extract()?),
        _ => None,
    };
    let data = get("data")?;
    let (ptr, read_only) = match data.extract::<(usize, bool)>() {
        Ok(x) => x,
        Err(_) => {
            return Err(PyTypeError::new_err("__array_interface__ without a data pointer is not supported"));
        }
    };
    // NumPy scalars hand out a copy that only the interface's owner keeps alive.
    let owner: Box<(Py<PyAny>, Py<PyAny>)> = Box::new((o.clone().unbind(), i.clone().into_any().unbind()));
    // SAFETY: the protocol says that the described memory is valid as long as the object lives.
    let t = unsafe { over("from_numpy", py, ptr, d, &shape, strides.as_deref(), Owner::Foreign(owner))? };
    if ptr % d.size().min(8) != 0 && t.numel() > 0 {
        // Kernels load whole elements: unaligned memory is copied once, byte by byte.
        return unaligned(py, &t).map(Some);
    }
    if read_only && t.numel() > 0 {
        t.storage().set_read_only();
    }
    Ok(Some(t))
}

/// A copy of a tensor whose elements are not aligned.
fn unaligned(py: Python, t: &Tensor) -> PyResult<Tensor> {
    let y = Tensor::empty(t.shape(), t.dtype(), Device::Cpu).py(py)?;
    let size = t.dtype().size();
    let mut index = vec![0usize; t.ndim()];
    for i in 0..t.numel() {
        let at: isize = index.iter().zip(t.strides()).map(|(i, s)| *i as isize * s).sum();
        // SAFETY: `at` addresses an element of `t`, `i` one of the new contiguous `y`; bytes need no
        // alignment.
        unsafe {
            std::ptr::copy_nonoverlapping(t.ptr().offset(at * size as isize), y.ptr().add(i * size), size)
        };
        for d in (0..index.len()).rev() {
            index[d] += 1;
            if index[d] < t.shape()[d] {
                break;
            }
            index[d] = 0;
        }
    }
    Ok(y)
}

/// A tensor over the memory of a NumPy array.
#[pyfunction]
fn from_numpy<'py>(py: Python<'py>, ndarray: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTensor>> {
    let is_array = ndarray.get_type().getattr("__module__").is_ok_and(|m| m.to_string() == "numpy")
        || ndarray.hasattr("__array_interface__")?;
    match if is_array { array_like(ndarray)? } else { None } {
        Some(t) => {
            if t.storage().is_read_only() {
                py.import("warnings")?.call_method1("warn", (
                    "The given NumPy array is not writable: writing to this tensor is an error. You may want to copy the array to protect its data or make it writable before converting it to a tensor.",
                    py.get_type::<PyUserWarning>(),
                    1,
                ))?;
            }
            wrap(py, t)
        }
        None => {
            Err(PyTypeError::new_err(format!("expected np.ndarray (got {})", ndarray.get_type().name()?)))
        }
    }
}

/// Holds a tensor's memory for NumPy.
#[pyclass(frozen, name = "_Memory", module = "pyrite._C")]
struct Memory {
    t: Tensor,
}

#[pymethods]
impl Memory {
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        interface(py, &self.t)
    }
}

/// The description of a tensor's memory that NumPy reads: the array interface, version 3.
pub fn interface<'py>(py: Python<'py>, t: &Tensor) -> PyResult<Bound<'py, PyDict>> {
    let size = t.dtype().size() as isize;
    let d = PyDict::new(py);
    d.set_item("version", 3)?;
    d.set_item("shape", PyTuple::new(py, t.shape())?)?;
    d.set_item("strides", PyTuple::new(py, t.strides().iter().map(|s| s * size))?)?;
    d.set_item("typestr", typestr(t.dtype())?)?;
    d.set_item("data", (t.ptr() as usize, t.storage().is_read_only()))?;
    Ok(d)
}

fn typestr(d: DType) -> PyResult<String> {
    match code(d) {
        Some(c) => Ok(format!("{}{c}", if d.size() == 1 { "|" } else { "<" })),
        None => Err(PyTypeError::new_err(format!(
            "Got unsupported ScalarType {}",
            if d == DType::BF16 { "BFloat16" } else { d.name() }
        ))),
    }
}

/// A NumPy array over the tensor's memory.
fn to_numpy<'py>(py: Python<'py>, t: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    let numpy = py.import("numpy")?;
    let kind = typestr(t.dtype())?;
    if t.numel() == 0 {
        return numpy.call_method1("empty", (PyTuple::new(py, t.shape())?, kind));
    }
    numpy.call_method1("asarray", (Memory { t: t.alias() },))
}

#[pymethods]
impl PyTensor {
    /// A NumPy array that shares this tensor's memory. `force=True` detaches and copies to the host first.
    #[pyo3(signature = (*, force=false))]
    fn numpy<'py>(slf: &Bound<'py, Self>, force: bool) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let t = slf.get().tensor(py);
        if !force {
            if t.device() != Device::Cpu {
                return Err(PyTypeError::new_err(format!(
                    "can't convert {} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.",
                    t.device()
                )));
            }
            if t.requires_grad() && is_grad_enabled() {
                return tensor::runtime(
                    "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.",
                );
            }
            let l = t.lazy();
            if l.conj || l.neg {
                let (bit, cure) =
                    if l.conj { ("conjugate", "resolve_conj") } else { ("negative", "resolve_neg") };
                return tensor::runtime(format!(
                    "Can't call numpy() on Tensor that has {bit} bit set. Use tensor.{cure}().numpy() instead."
                ));
            }
            return to_numpy(py, &t);
        }
        let t = t.alias();
        let host = enter(py, Work::Elements(t.numel()), move || {
            ops::lazy::resolve(&ops::to_device(&t, Device::Cpu)?)
        })?;
        to_numpy(py, &host)
    }
}

/// `Tensor.__array__`.
pub fn array<'py>(
    slf: &Bound<'py, PyTensor>,
    dtype: Option<&Bound<'py, PyAny>>,
    copy: Option<bool>,
) -> PyResult<Bound<'py, PyAny>> {
    let a = PyTensor::numpy(slf, false)?;
    let py = slf.py();
    match dtype {
        Some(d) if !d.is_none() => {
            let kw = PyDict::new(py);
            kw.set_item("copy", copy.unwrap_or(false))?;
            a.call_method("astype", (d,), Some(&kw))
        }
        _ if copy == Some(true) => a.call_method0("copy"),
        _ => Ok(a),
    }
}

/// A one-dimensional tensor over the bytes of an object with the buffer protocol.
#[pyfunction]
#[pyo3(signature = (buffer, *, dtype, count=-1, offset=0, requires_grad=false))]
pub fn frombuffer<'py>(
    py: Python<'py>,
    buffer: &Bound<'py, PyAny>,
    dtype: &Bound<'py, PyAny>,
    count: i64,
    offset: usize,
    requires_grad: bool,
) -> PyResult<Bound<'py, PyTensor>> {
    let Some(d) = crate::args::dtype_arg("frombuffer", Some(dtype))? else {
        return Err(PyTypeError::new_err("frombuffer(): argument 'dtype' must be torch.dtype, not None"));
    };
    let view = pyo3::buffer::PyUntypedBuffer::get(buffer)?;
    if !view.is_c_contiguous() {
        return Err(PyValueError::new_err("frombuffer(): the buffer must be C-contiguous"));
    }
    let len = view.len_bytes();
    let size = d.size();
    if len == 0 || count == 0 {
        return Err(PyValueError::new_err(format!(
            "both buffer length ({len}) and count ({count}) must not be 0"
        )));
    }
    if offset >= len {
        return Err(PyValueError::new_err(format!(
            "offset ({offset} bytes) must be non-negative and no greater than buffer length ({len} bytes) minus 1"
        )));
    }
    let n = if count < 0 {
        if !(len - offset).is_multiple_of(size) {
            return Err(PyValueError::new_err(format!(
                "buffer length ({} bytes) after offset ({offset} bytes) must be a multiple of element size ({size})",
                len - offset
            )));
        }
        (len - offset) / size
    } else {
        count as usize
    };
    if n.checked_mul(size).is_none_or(|b| b > len - offset) {
        return Err(PyValueError::new_err(format!(
            "requested buffer length ({n} * {size} bytes) after offset ({offset} bytes) must not be greater than actual buffer length ({len} bytes)"
        )));
    }
    let ptr = view.buf_ptr() as usize + offset;
    let read_only = view.readonly();
    // SAFETY: the buffer stays exported, hence valid, until `view` is dropped, and n elements lie in it.
    let t = unsafe { over("frombuffer", py, ptr, d, &[n], None, Owner::Foreign(Box::new(view)))? };
    let t = if !ptr.is_multiple_of(size.min(8)) { unaligned(py, &t)? } else { t };
    if read_only {
        t.storage().set_read_only();
        py.import("warnings")?.call_method1("warn", (
            "The given buffer is not writable: writing to this tensor is an error. You may want to copy the buffer to protect its data or make it writable before converting it to a tensor.",
            py.get_type::<PyUserWarning>(),
            1,
        ))?;
    }
    if requires_grad {
        t.set_requires_grad(true).py(py)?;
    }
    wrap(py, t)
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_class::<Memory>()?;
    m.add_function(wrap_pyfunction!(from_numpy, m)?)?;
    m.add_function(wrap_pyfunction!(frombuffer, m)?)?;
    Ok(())
}
