//! The parts of complex tensors as attributes: `x.real`, `x.imag`, readable and writable.

use crate::args::number;
use crate::error::IntoPy;
use crate::tensor::{self, PyTensor, get, wrap};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyrite_tensor::{Tensor, ops};

/// Writes a tensor or a number into a part.
fn write(slf: &Bound<PyTensor>, part: &Tensor, name: &str, value: &Bound<PyAny>) -> PyResult<()> {
    let py = slf.py();
    if let Some(v) = get(value) {
        ops::copy_(part, &v).py(py)?;
    } else if let Some(n) = number(value.as_borrowed())? {
        ops::fill_(part, n).py(py)?;
    } else {
        return Err(PyTypeError::new_err(format!(
            "{name}: expected a Tensor or a number, not {}",
            value.get_type().name()?
        )));
    }
    tensor::link(slf);
    Ok(())
}

#[pymethods]
impl PyTensor {
    /// The real part, as a view; a real tensor itself.
    #[getter]
    fn real<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let t = slf.get().tensor(slf.py());
        if !t.dtype().is_complex() {
            return Ok(slf.clone());
        }
        let part = ops::complex::real(&t).py(slf.py())?;
        tensor::link(slf);
        wrap(slf.py(), part)
    }
    #[setter]
    fn set_real(slf: &Bound<Self>, value: &Bound<PyAny>) -> PyResult<()> {
        let part = ops::complex::real(&slf.get().tensor(slf.py())).py(slf.py())?;
        write(slf, &part, "real", value)
    }
    /// The imaginary part of a complex tensor, as a view.
    #[getter]
    fn imag<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let part = ops::complex::imag(&slf.get().tensor(slf.py())).py(slf.py())?;
        tensor::link(slf);
        wrap(slf.py(), part)
    }
    #[setter]
    fn set_imag(slf: &Bound<Self>, value: &Bound<PyAny>) -> PyResult<()> {
        let part = ops::complex::imag(&slf.get().tensor(slf.py())).py(slf.py())?;
        write(slf, &part, "imag", value)
    }
}
