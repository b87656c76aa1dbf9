//! In-place methods that change what a tensor looks at rather than its elements (`t_`, `resize_`,
//! `set_`, ...): the Python object gets another handle. And the storage object.

use crate::args::{self, int};
use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::tensor::{self, PyTensor};
use pyo3::exceptions::{PyNotImplementedError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyrite_core::Result;
use pyrite_tensor::autograd::is_grad_enabled;
use pyrite_tensor::{Tensor, ops};

/// Replaces the tensor by a view of it.
fn become_view<'py>(
    slf: &Bound<'py, PyTensor>,
    f: impl FnOnce(&Tensor) -> Result<Tensor> + Send,
) -> PyResult<Bound<'py, PyTensor>> {
    let py = slf.py();
    let t = slf.get().tensor(py);
    if t.requires_grad() && t.is_leaf() {
        if is_grad_enabled() {
            return tensor::runtime(
                "a leaf Variable that requires grad is being used in an in-place operation.",
            );
        }
        // Not recorded: the leaf keeps its identity over the other layout.
        let y = enter(py, Work::Elements(0), || f(&t.alias()))?;
        drop(slf.get().replace(py, t.with_data_of(&y)));
        tensor::link(slf);
        return Ok(slf.clone());
    }
    let y = enter(py, Work::Elements(0), || f(&t))?;
    tensor::swap(slf, y);
    Ok(slf.clone())
}

fn dim(op: &str, name: &str, o: &Bound<PyAny>) -> PyResult<i64> {
    match int(o.as_borrowed())? {
        Some(i) => Ok(i),
        None => Err(PyTypeError::new_err(format!(
            "{op}(): argument '{name}' must be int, not {}",
            o.get_type().name()?
        ))),
    }
}

#[pymethods]
impl PyTensor {
    /// In-place `t`.
    fn t_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        become_view(slf, ops::t)
    }
    /// In-place `transpose`.
    fn transpose_<'py>(
        slf: &Bound<'py, Self>,
        dim0: &Bound<'py, PyAny>,
        dim1: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        let (a, b) = (dim("transpose_", "dim0", dim0)?, dim("transpose_", "dim1", dim1)?);
        become_view(slf, move |t| ops::transpose(t, a, b))
    }
    /// In-place `swapaxes`.
    fn swapaxes_<'py>(
        slf: &Bound<'py, Self>,
        axis0: &Bound<'py, PyAny>,
        axis1: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        Self::transpose_(slf, axis0, axis1)
    }
    /// In-place `swapdims`.
    fn swapdims_<'py>(
        slf: &Bound<'py, Self>,
        dim0: &Bound<'py, PyAny>,
        dim1: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        Self::transpose_(slf, dim0, dim1)
    }
    /// In-place `squeeze`.
    #[pyo3(signature = (dim=None))]
    fn squeeze_<'py>(slf: &Bound<'py, Self>, dim: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, Self>> {
        let dims = match dim {
            None => None,
            Some(d) => match args::ints(d.as_borrowed())? {
                Some(l) => Some(l),
                None => {
                    return Err(PyTypeError::new_err(
                        "squeeze_(): argument 'dim' must be int or tuple of ints",
                    ));
                }
            },
        };
        become_view(slf, move |t| ops::squeeze(t, dims.as_deref()))
    }
    /// In-place `unsqueeze`.
    #[pyo3(name = "unsqueeze_")]
    fn unsqueeze_inplace<'py>(slf: &Bound<'py, Self>, dim: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let d = self::dim("unsqueeze_", "dim", dim)?;
        become_view(slf, move |t| ops::unsqueeze(t, d))
    }
    /// In-place `as_strided`.
    #[pyo3(signature = (size, stride, storage_offset=None))]
    fn as_strided_<'py>(
        slf: &Bound<'py, Self>,
        size: Vec<i64>,
        stride: Vec<i64>,
        storage_offset: Option<i64>,
    ) -> PyResult<Bound<'py, Self>> {
        become_view(slf, move |t| ops::as_strided(t, &size, &stride, storage_offset))
    }
    /// Another shape over the same storage, or over a larger one if it is too small.
    #[pyo3(signature = (*sizes, memory_format=None))]
    fn resize_<'py>(
        slf: &Bound<'py, Self>,
        sizes: &Bound<'py, PyTuple>,
        memory_format: Option<&Bound<'py, crate::types::PyMemoryFormat>>,
    ) -> PyResult<Bound<'py, Self>> {
        if memory_format.is_some_and(|m| m.get().0 != pyrite_tensor::MemoryFormat::Contiguous) {
            return Err(PyNotImplementedError::new_err(
                "resize_(): only memory_format=contiguous_format is supported",
            ));
        }
        let py = slf.py();
        let t = slf.get().tensor(py);
        if t.requires_grad() {
            return tensor::runtime("cannot resize variables that require grad");
        }
        let first = if sizes.len() == 1 { Some(sizes.get_item(0)?) } else { None };
        let list = match &first {
            Some(o) => args::ints(o.as_borrowed())?,
            None => args::ints(sizes.as_any().as_borrowed())?,
        };
        let Some(list) = list else {
            return Err(PyTypeError::new_err("resize_(): argument 'size' must be tuple of ints"));
        };
        let shape = pyrite_core::layout::checked_shape("resize_", &list).py(py)?;
        let y = enter(py, Work::Elements(t.numel()), || ops::resize(&t, &shape))?;
        drop(slf.get().replace(py, y));
        tensor::link(slf);
        Ok(slf.clone())
    }
    /// `resize_` to the shape of another tensor.
    #[pyo3(signature = (the_template, memory_format=None))]
    fn resize_as_<'py>(
        slf: &Bound<'py, Self>,
        the_template: &Bound<'py, PyAny>,
        memory_format: Option<&Bound<'py, crate::types::PyMemoryFormat>>,
    ) -> PyResult<Bound<'py, Self>> {
        let shape = tensor::expect("resize_as_", "the_template", the_template)?.shape().to_vec();
        Self::resize_(slf, &PyTuple::new(slf.py(), shape)?, memory_format)
    }
    /// Makes this tensor look at another tensor's memory.
    fn set_<'py>(slf: &Bound<'py, Self>, source: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let s = tensor::expect("set_", "source", source)?;
        let t = slf.get().tensor(slf.py());
        if s.dtype() != t.dtype() {
            return tensor::runtime(format!(
                "Could not set tensor of type {} to a tensor of type {}",
                s.dtype(),
                t.dtype()
            ));
        }
        if t.requires_grad() && is_grad_enabled() {
            return tensor::runtime("set_(): the tensor requires grad; call it under torch.no_grad()");
        }
        drop(slf.get().replace(slf.py(), t.with_data_of(&s)));
        tensor::link(slf);
        Ok(slf.clone())
    }
    /// Replaces every element by `callable(element)`; slow, on the CPU.
    fn apply_<'py>(slf: &Bound<'py, Self>, callable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let py = slf.py();
        let t = slf.get().tensor(py);
        if t.requires_grad() {
            return tensor::runtime(
                "Can't call apply_() on Variable that requires grad. Use var.detach().apply_() instead.",
            );
        }
        let values = crate::data::to_list(py, &t.alias())?;
        let mapped = map_nested(&values, t.ndim(), callable)?;
        let new = crate::data::from_object(&mapped, Some(t.dtype()), Some(t.device()))?;
        enter(py, Work::Elements(t.numel()), || ops::copy_(&t, &new))?;
        Ok(slf.clone())
    }
    /// The memory behind this tensor.
    fn untyped_storage(slf: &Bound<Self>) -> UntypedStorage {
        UntypedStorage { t: slf.get().tensor(slf.py()).alias() }
    }
}

fn map_nested<'py>(
    o: &Bound<'py, PyAny>,
    depth: usize,
    f: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    if depth == 0 {
        return f.call1((o,));
    }
    let items = o.try_iter()?.map(|x| map_nested(&x?, depth - 1, f)).collect::<PyResult<Vec<_>>>()?;
    Ok(pyo3::types::PyList::new(o.py(), items)?.into_any())
}

/// The bytes that one or more tensors share.
#[pyclass(frozen, name = "UntypedStorage", module = "pyrite")]
pub struct UntypedStorage {
    t: Tensor,
}

#[pymethods]
impl UntypedStorage {
    fn nbytes(&self) -> usize {
        self.t.storage().bytes()
    }
    fn size(&self) -> usize {
        self.t.storage().bytes()
    }
    fn __len__(&self) -> usize {
        self.t.storage().bytes()
    }
    fn data_ptr(&self) -> usize {
        self.t.storage().ptr() as usize
    }
    #[getter]
    fn device(&self, py: Python) -> PyResult<Py<crate::types::PyDevice>> {
        crate::types::device_object(py, self.t.device())
    }
    fn __eq__(&self, other: &Bound<PyAny>) -> bool {
        other.cast::<UntypedStorage>().is_ok_and(|o| o.get().t.storage().same(self.t.storage()))
    }
    fn __hash__(&self) -> usize {
        self.t.storage().id()
    }
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_class::<UntypedStorage>()
}
