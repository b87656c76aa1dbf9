//! Tensor methods that change dtype, device or memory format, and those that make new tensors of the same
//! kind (`new_zeros`, ...).

use crate::args;
use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::tensor::{self, PyTensor, get, wrap};
use crate::types::PyMemoryFormat;
use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyrite_core::{DType, Device, Scalar};
use pyrite_tensor::ops;
use pyrite_tensor::{MemoryFormat, Tensor};

fn this(slf: &Bound<PyTensor>) -> Tensor {
    slf.get().tensor(slf.py())
}

/// Why there is no page-locked memory.
pub fn no_pinned_memory(op: &str) -> PyErr {
    if pyrite_cuda::is_available() {
        PyNotImplementedError::new_err(format!("{op}(): page-locked host memory is not supported"))
    } else {
        PyRuntimeError::new_err(format!(
            "{op}(): page-locked host memory needs an accelerator, and no CUDA device is available"
        ))
    }
}

#[pymethods]
impl PyTensor {
    // ---- between dtypes, devices and memory ------------------------------------------------------

    /// The tensor with another dtype and/or on another device; itself if nothing changes.
    #[pyo3(signature = (*args, **kwargs))]
    fn to<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Self>> {
        let to = To::read(args, kwargs)?;
        let t = this(slf);
        let (d, v) = (to.dtype.unwrap_or(t.dtype()), to.device.unwrap_or(t.device()));
        convert(slf, d, v, to.copy, to.format)
    }
    #[pyo3(signature = (memory_format=None))]
    fn cpu<'py>(
        slf: &Bound<'py, Self>,
        memory_format: Option<&Bound<'py, PyMemoryFormat>>,
    ) -> PyResult<Bound<'py, Self>> {
        convert(slf, this(slf).dtype(), Device::Cpu, false, format_of(memory_format))
    }
    #[pyo3(signature = (device=None, non_blocking=false, memory_format=None))]
    fn cuda<'py>(
        slf: &Bound<'py, Self>,
        device: Option<&Bound<'py, PyAny>>,
        non_blocking: bool,
        memory_format: Option<&Bound<'py, PyMemoryFormat>>,
    ) -> PyResult<Bound<'py, Self>> {
        let _ = non_blocking; // Copies from pageable memory wait either way.
        let d = args::device_arg("cuda", device)?.unwrap_or(Device::Cuda(0));
        if !d.is_cuda() {
            return Err(PyRuntimeError::new_err(format!("Invalid device, must be cuda device: {d}")));
        }
        convert(slf, this(slf).dtype(), d, false, format_of(memory_format))
    }
    /// The type's name without arguments; else the tensor converted to a dtype.
    #[pyo3(signature = (dtype=None, non_blocking=false))]
    fn r#type<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        non_blocking: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = non_blocking; // As in `cuda`.
        let t = this(slf);
        let Some(d) = dtype else { return Ok(PyString::new(slf.py(), &type_string(&t)).into_any()) };
        if let Ok(s) = d.cast::<PyString>() {
            let text = s.to_string();
            let Some((d, v)) = parse_type_string(&text) else {
                return Err(PyValueError::new_err(format!("invalid type: '{text}'")));
            };
            return Ok(convert(slf, d, v, false, MemoryFormat::Preserve)?.into_any());
        }
        match args::dtype_arg("type", Some(d)) {
            Ok(Some(d)) => Ok(convert(slf, d, t.device(), false, MemoryFormat::Preserve)?.into_any()),
            _ => {
                // FloatTensor and its kin carry their dtype.
                let d = args::dtype_arg("type", Some(&d.getattr("dtype")?))?.unwrap_or(t.dtype());
                Ok(convert(slf, d, t.device(), false, MemoryFormat::Preserve)?.into_any())
            }
        }
    }
    /// The tensor with the dtype of `other`.
    fn type_as<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let o = tensor::expect("type_as", "other", other)?;
        convert(slf, o.dtype(), o.device(), false, MemoryFormat::Preserve)
    }
    /// The elements as a NumPy array; shared memory unless a copy is asked for.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        crate::interop::array(slf, dtype, copy)
    }
    /// NumPy leaves operators between an array and a tensor to the tensor.
    #[classattr]
    fn __array_priority__() -> f64 {
        1000.0
    }
    #[pyo3(signature = (device=None))]
    fn is_pinned(_slf: &Bound<Self>, device: Option<&Bound<PyAny>>) -> PyResult<bool> {
        args::device_arg("is_pinned", device)?;
        Ok(false)
    }
    /// A copy in page-locked memory, which a build without CUDA devices does not have.
    #[pyo3(signature = (device=None))]
    fn pin_memory(_slf: &Bound<Self>, device: Option<&Bound<PyAny>>) -> PyResult<Py<PyAny>> {
        args::device_arg("pin_memory", device)?;
        Err(no_pinned_memory("pin_memory"))
    }

    // ---- new tensors of the same kind -------------------------------------------------------------

    #[pyo3(signature = (data, *, dtype=None, device=None, requires_grad=false))]
    fn new_tensor<'py>(
        slf: &Bound<'py, Self>,
        data: &Bound<'py, PyAny>,
        dtype: Option<&Bound<'py, PyAny>>,
        device: Option<&Bound<'py, PyAny>>,
        requires_grad: bool,
    ) -> PyResult<Bound<'py, Self>> {
        let t = this(slf);
        let d = args::dtype_arg("new_tensor", dtype)?.unwrap_or(t.dtype());
        let v = args::device_arg("new_tensor", device)?.unwrap_or(t.device());
        crate::data::fresh(slf.py(), data, Some(d), Some(v), requires_grad)
    }
    #[pyo3(signature = (*size, dtype=None, device=None, requires_grad=false))]
    fn new_empty<'py>(
        slf: &Bound<'py, Self>,
        size: &Bound<'py, PyTuple>,
        dtype: Option<&Bound<'py, PyAny>>,
        device: Option<&Bound<'py, PyAny>>,
        requires_grad: bool,
    ) -> PyResult<Bound<'py, Self>> {
        new_of(slf, "new_empty", size, dtype, device, requires_grad, Tensor::empty)
    }
    #[pyo3(signature = (*size, dtype=None, device=None, requires_grad=false))]
    fn new_zeros<'py>(
        slf: &Bound<'py, Self>,
        size: &Bound<'py, PyTuple>,
        dtype: Option<&Bound<'py, PyAny>>,
        device: Option<&Bound<'py, PyAny>>,
        requires_grad: bool,
    ) -> PyResult<Bound<'py, Self>> {
        new_of(slf, "new_zeros", size, dtype, device, requires_grad, Tensor::zeros)
    }
    #[pyo3(signature = (*size, dtype=None, device=None, requires_grad=false))]
    fn new_ones<'py>(
        slf: &Bound<'py, Self>,
        size: &Bound<'py, PyTuple>,
        dtype: Option<&Bound<'py, PyAny>>,
        device: Option<&Bound<'py, PyAny>>,
        requires_grad: bool,
    ) -> PyResult<Bound<'py, Self>> {
        new_of(slf, "new_ones", size, dtype, device, requires_grad, |s, d, v| {
            Tensor::full(s, Scalar::Int(1), d, v)
        })
    }
    #[pyo3(signature = (size, fill_value, *, dtype=None, device=None, requires_grad=false))]
    fn new_full<'py>(
        slf: &Bound<'py, Self>,
        size: &Bound<'py, PyAny>,
        fill_value: &Bound<'py, PyAny>,
        dtype: Option<&Bound<'py, PyAny>>,
        device: Option<&Bound<'py, PyAny>>,
        requires_grad: bool,
    ) -> PyResult<Bound<'py, Self>> {
        let Some(v) = args::number_or_item(fill_value.as_borrowed())? else {
            return Err(PyTypeError::new_err("new_full(): argument 'fill_value' must be Number"));
        };
        let size = &PyTuple::new(slf.py(), [size])?;
        new_of(slf, "new_full", size, dtype, device, requires_grad, move |s, d, dev| {
            Tensor::full(s, v, d, dev)
        })
    }
}

macro_rules! casts {
    ($($name:ident $d:ident),* $(,)?) => {
        #[pymethods]
        impl PyTensor { $(
            #[pyo3(signature = (memory_format=None))]
            fn $name<'py>(slf: &Bound<'py, Self>, memory_format: Option<&Bound<'py, PyMemoryFormat>>) -> PyResult<Bound<'py, Self>> {
                convert(slf, DType::$d, this(slf).device(), false, format_of(memory_format))
            }
        )* }
    };
}
casts!(float F32, double F64, half F16, bfloat16 BF16, long I64, int I32, short I16, char I8, byte U8, bool Bool, cfloat C64, cdouble C128);

fn format_of(m: Option<&Bound<PyMemoryFormat>>) -> MemoryFormat {
    m.map_or(MemoryFormat::Preserve, |m| m.get().0)
}

/// `.to` with everything decided; the same object if nothing changes.
fn convert<'py>(
    slf: &Bound<'py, PyTensor>,
    d: DType,
    v: Device,
    copy: bool,
    f: MemoryFormat,
) -> PyResult<Bound<'py, PyTensor>> {
    let t = this(slf);
    let keep = t.clone();
    let y = enter(slf.py(), Work::Elements(t.numel()), move || ops::to(&t, d, v, copy, f))?;
    if y.same(&keep) { Ok(slf.clone()) } else { wrap(slf.py(), y) }
}

fn new_of<'py>(
    slf: &Bound<'py, PyTensor>,
    op: &str,
    size: &Bound<'py, PyTuple>,
    dtype: Option<&Bound<'py, PyAny>>,
    device: Option<&Bound<'py, PyAny>>,
    requires_grad: bool,
    make: impl FnOnce(&[usize], DType, Device) -> pyrite_core::Result<Tensor>,
) -> PyResult<Bound<'py, PyTensor>> {
    let py = slf.py();
    let t = this(slf);
    let d = args::dtype_arg(op, dtype)?.unwrap_or(t.dtype());
    let v = args::device_arg(op, device)?.unwrap_or(t.device());
    // One sequence of sizes, or the sizes one by one.
    let first = if size.len() == 1 { Some(size.get_item(0)?) } else { None };
    let list = match &first {
        Some(o) => args::ints(o.as_borrowed())?,
        None => args::ints(size.as_any().as_borrowed())?,
    };
    let Some(list) = list else {
        return Err(PyTypeError::new_err(format!("{op}(): argument 'size' must be tuple of ints")));
    };
    let shape = pyrite_core::layout::checked_shape(op, &list).py(py)?;
    let y = make(&shape, d, v).py(py)?;
    if requires_grad {
        y.set_requires_grad(true).py(py)?;
    }
    wrap(py, y)
}

/// The arguments of `Tensor.to`, in all the forms PyTorch takes.
struct To {
    dtype: Option<DType>,
    device: Option<Device>,
    copy: bool,
    format: MemoryFormat,
}

impl To {
    fn read(args: &Bound<PyTuple>, kwargs: Option<&Bound<PyDict>>) -> PyResult<To> {
        let mut to = To { dtype: None, device: None, copy: false, format: MemoryFormat::Preserve };
        let wrong = |o: &Bound<PyAny>| {
            PyTypeError::new_err(format!(
                "to() received an invalid combination of arguments - got {}, but expected one of:\n * (torch.device device = None, torch.dtype dtype = None, bool non_blocking = False, bool copy = False, *, torch.memory_format memory_format = None)\n * (torch.dtype dtype, bool non_blocking = False, bool copy = False, *, torch.memory_format memory_format = None)\n * (Tensor other, bool non_blocking = False, bool copy = False, *, torch.memory_format memory_format = None)",
                o.get_type().name().map_or_else(|_| "?".into(), |n| n.to_string())
            ))
        };
        // Positions: device and/or dtype (or a tensor), then non_blocking, then copy.
        let mut flags = 0;
        for (i, o) in args.iter().enumerate() {
            if o.is_none() {
                continue;
            }
            if let (0, Some(t)) = (i, get(&o)) {
                (to.dtype, to.device) = (Some(t.dtype()), Some(t.device()));
            } else if let Ok(b) = o.cast::<pyo3::types::PyBool>() {
                if flags == 1 {
                    to.copy = b.is_true();
                }
                flags += 1;
            } else if flags > 0 || i > 1 {
                return Err(wrong(&o));
            } else if let Some(d) = crate::types::as_dtype(&o) {
                to.dtype = Some(d);
            } else if let Some(v) = crate::types::as_device(&o)? {
                to.device = Some(v);
            } else {
                return Err(wrong(&o));
            }
        }
        if let Some(kw) = kwargs {
            for (k, o) in kw.iter() {
                match k.cast::<PyString>()?.to_str()? {
                    "dtype" => to.dtype = args::dtype_arg("to", Some(&o))?.or(to.dtype),
                    "device" => to.device = args::device_arg("to", Some(&o))?.or(to.device),
                    "other" => {
                        let t = tensor::expect("to", "other", &o)?;
                        (to.dtype, to.device) = (Some(t.dtype()), Some(t.device()));
                    }
                    // Copies from pageable memory wait either way.
                    "non_blocking" => {
                        o.is_truthy()?;
                    }
                    "copy" => to.copy = o.is_truthy()?,
                    "memory_format" => {
                        if !o.is_none() {
                            to.format = match o.cast::<PyMemoryFormat>() {
                                Ok(m) => m.get().0,
                                Err(_) => {
                                    return Err(PyTypeError::new_err(
                                        "to(): argument 'memory_format' must be torch.memory_format",
                                    ));
                                }
                            };
                        }
                    }
                    other => {
                        return Err(PyTypeError::new_err(format!(
                            "to() got an unexpected keyword argument '{other}'"
                        )));
                    }
                }
            }
        }
        Ok(to)
    }
}

/// `torch.FloatTensor`, as `Tensor.type()` names it.
fn type_string(t: &Tensor) -> String {
    let kind = t.dtype().legacy_name();
    let place = if t.device().is_cuda() { "cuda." } else { "" };
    format!("torch.{place}{kind}Tensor")
}

fn parse_type_string(s: &str) -> Option<(DType, Device)> {
    let s = s.strip_prefix("torch.").or_else(|| s.strip_prefix("pyrite."))?;
    let (s, device) = match s.strip_prefix("cuda.") {
        Some(r) => (r, Device::Cuda(0)),
        None => (s, Device::Cpu),
    };
    let name = s.strip_suffix("Tensor")?;
    let d = *DType::ALL.iter().find(|d| d.legacy_name() == name)?;
    Some((d, device))
}
