//! The constructors of old: `Tensor(...)`, `FloatTensor(...)` and its kin.

use crate::args::{self, number};
use crate::data::{from_object, is_sequence};
use crate::error::IntoPy;
use crate::tensor::{PyTensor, get, wrap};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyrite_core::DType;
use pyrite_tensor::Tensor;
use pyrite_tensor::config::default_device;

/// `Tensor(2, 3)`, `Tensor([1, 2])`, `Tensor(other)`, `Tensor()`: the constructors of old.
pub fn legacy_new(
    py: Python,
    name: &str,
    d: DType,
    a: &Bound<PyTuple>,
    kwargs: Option<&Bound<PyDict>>,
) -> PyResult<Tensor> {
    let mut device = default_device();
    for (k, o) in kwargs.into_iter().flat_map(|k| k.iter()) {
        match k.cast::<PyString>()?.to_str()? {
            "device" => device = args::device_arg(name, Some(&o))?.unwrap_or(device),
            other => {
                return Err(PyTypeError::new_err(format!(
                    "{name}() got an unexpected keyword argument '{other}'"
                )));
            }
        }
    }
    if a.is_empty() {
        return Tensor::empty(&[0], d, device).py(py);
    }
    let first = a.get_item(0)?;
    if a.len() == 1 {
        if let Some(t) = get(&first) {
            if t.dtype() == d && t.device() == device {
                return Ok(t.alias());
            }
            return Err(PyTypeError::new_err(format!(
                "{name}(): expected a tensor of {d} on {device} (got {} on {})",
                t.dtype(),
                t.device()
            )));
        }
        let is_size = first.is_instance(crate::types::size_class(py)?)?;
        if !is_size
            && (is_sequence(&first) || first.hasattr("__array_interface__")?)
            && number(first.as_borrowed())?.is_none()
        {
            return from_object(&first, Some(d), Some(device));
        }
    }
    let sizes =
        if a.len() == 1 { args::ints(first.as_borrowed())? } else { args::ints(a.as_any().as_borrowed())? };
    match sizes {
        Some(list) => {
            let shape = pyrite_core::layout::checked_shape(name, &list).py(py)?;
            Tensor::empty(&shape, d, device).py(py)
        }
        None => Err(PyTypeError::new_err(format!(
            "new(): data must be a sequence (got {})",
            first.get_type().name()?
        ))),
    }
}

/// The class of `FloatTensor`, `LongTensor`, ...: calling it makes a tensor of its dtype.
#[pyclass(frozen, name = "tensortype", module = "pyrite")]
pub struct TypedTensor {
    name: &'static str,
    dtype: DType,
}

#[pymethods]
impl TypedTensor {
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyTensor>> {
        wrap(py, legacy_new(py, self.name, self.dtype, args, kwargs)?)
    }
    fn __instancecheck__(&self, o: &Bound<PyAny>) -> bool {
        get(o).is_some_and(|t| t.dtype() == self.dtype && !t.device().is_cuda())
    }
    #[getter]
    fn dtype(&self, py: Python) -> PyResult<Py<crate::types::PyDType>> {
        crate::types::dtype_object(py, self.dtype)
    }
    fn __repr__(&self) -> String {
        format!("<class 'torch.{}'>", self.name)
    }
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    for (name, dtype) in [
        ("FloatTensor", DType::F32),
        ("DoubleTensor", DType::F64),
        ("HalfTensor", DType::F16),
        ("BFloat16Tensor", DType::BF16),
        ("LongTensor", DType::I64),
        ("IntTensor", DType::I32),
        ("ShortTensor", DType::I16),
        ("CharTensor", DType::I8),
        ("ByteTensor", DType::U8),
        ("BoolTensor", DType::Bool),
    ] {
        m.add(name, TypedTensor { name, dtype })?;
    }
    Ok(())
}
