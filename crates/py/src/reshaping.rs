//! In-place methods that change what a tensor looks at rather than its elements (`t_`, `resize_`,
//! `set_`, ...): the Python object gets another handle; and those that map a Python function.

use crate::args::{self, int};
use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::storage::UntypedStorage;
use crate::tensor::{self, PyTensor};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyrite_core::{Result, bail};
use pyrite_tensor::autograd::{GradMode, inplace, is_grad_enabled, mode};
use pyrite_tensor::{MemoryFormat, Tensor, ops};

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
    let y = enter(py, Work::Elements(0), || {
        if t.storage().is_inference() && !mode::is_inference() {
            bail!(
                Runtime,
                "Inplace update to inference tensor outside InferenceMode is not allowed. You can make a clone to get a normal tensor before doing inplace update."
            );
        }
        if is_grad_enabled() && (t.requires_grad() || t.base().is_some_and(|b| b.requires_grad())) {
            inplace::check_recorded("in-place view", &t)?;
        }
        // The history goes on whatever the mode: it says how the same values are looked at.
        let _on = t.requires_grad().then(|| GradMode::new(true));
        let y = f(&t)?;
        inplace::keep_made(&t, &y);
        Ok(y)
    })?;
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
        let py = slf.py();
        let first = if sizes.len() == 1 { Some(sizes.get_item(0)?) } else { None };
        let list = match &first {
            Some(o) => args::ints(o.as_borrowed())?,
            None => args::ints(sizes.as_any().as_borrowed())?,
        };
        let Some(list) = list else {
            return Err(PyTypeError::new_err("resize_(): argument 'size' must be tuple of ints"));
        };
        let shape = pyrite_core::layout::checked_shape("resize_", &list).py(py)?;
        if memory_format.is_none() && slf.get().tensor(py).shape() == &shape[..] {
            return Ok(slf.clone());
        }
        if shape.iter().rev().try_fold(1isize, |n, s| n.checked_mul((*s).max(1) as isize)).is_none() {
            return tensor::runtime(format!(
                "resize_: Stride calculation overflowed for shape {:?}",
                &shape[..]
            ));
        }
        let f = memory_format.map_or(MemoryFormat::Contiguous, |m| m.get().0);
        let strides = ops::format::format_strides("resize_", &shape, f).py(py)?;
        resize(slf, &shape, &strides)
    }
    /// `resize_` to the shape of another tensor, and with `preserve_format` to its order of dimensions.
    #[pyo3(signature = (the_template, *, memory_format=None))]
    fn resize_as_<'py>(
        slf: &Bound<'py, Self>,
        the_template: &Bound<'py, PyAny>,
        memory_format: Option<&Bound<'py, crate::types::PyMemoryFormat>>,
    ) -> PyResult<Bound<'py, Self>> {
        let like = tensor::expect("resize_as_", "the_template", the_template)?;
        if memory_format.is_none() && slf.get().tensor(slf.py()).shape() == like.shape() {
            return Ok(slf.clone());
        }
        let strides = match memory_format.map_or(MemoryFormat::Contiguous, |m| m.get().0) {
            MemoryFormat::Preserve => ops::format::like_strides(like.layout()),
            f => ops::format::format_strides("resize_as_", like.shape(), f).py(slf.py())?,
        };
        resize(slf, like.shape(), &strides)
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
    /// Replaces every element by `callable(element, element of tensor)`; slow, on the CPU.
    fn map_<'py>(
        slf: &Bound<'py, Self>,
        tensor: &Bound<'py, PyAny>,
        callable: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        map_with(slf, "map_", std::slice::from_ref(tensor), callable)
    }
    /// Replaces every element by `callable(element, element of x, element of y)`; slow, on the CPU.
    fn map2_<'py>(
        slf: &Bound<'py, Self>,
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
        callable: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        map_with(slf, "map2_", &[x.clone(), y.clone()], callable)
    }
    /// The dimensions from the outermost in memory to the innermost.
    fn dim_order<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let t = slf.get().tensor(slf.py());
        let mut order: Vec<usize> = (0..t.ndim()).collect();
        order.sort_by_key(|d| std::cmp::Reverse(t.strides()[*d]));
        PyTuple::new(slf.py(), order)
    }
    /// Do both tensors have the same shape?
    fn is_same_size(slf: &Bound<Self>, other: &Bound<PyAny>) -> PyResult<bool> {
        Ok(tensor::expect("is_same_size", "other", other)?.shape() == slf.get().tensor(slf.py()).shape())
    }
    /// The memory behind this tensor.
    fn untyped_storage(slf: &Bound<Self>) -> UntypedStorage {
        UntypedStorage::of(slf.get().tensor(slf.py()).alias())
    }
}

fn resize<'py>(
    slf: &Bound<'py, PyTensor>,
    shape: &[usize],
    strides: &[isize],
) -> PyResult<Bound<'py, PyTensor>> {
    let py = slf.py();
    let t = slf.get().tensor(py);
    if t.requires_grad() {
        return tensor::runtime("cannot resize variables that require grad");
    }
    let y = enter(py, Work::Elements(t.numel()), || ops::resize_strided(&t, shape, strides))?;
    drop(slf.get().replace(py, y));
    tensor::link(slf);
    Ok(slf.clone())
}

/// `map_` and `map2_`.
fn map_with<'py>(
    slf: &Bound<'py, PyTensor>,
    op: &str,
    others: &[Bound<'py, PyAny>],
    callable: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyTensor>> {
    let py = slf.py();
    let t = slf.get().tensor(py);
    if t.requires_grad() {
        return tensor::runtime(format!(
            "Can't call {op}() on Variable that requires grad. Use var.detach().{op}() instead."
        ));
    }
    let flat = |t: &Tensor| -> PyResult<Bound<'py, PyAny>> {
        crate::data::to_list(py, &ops::reshape(&t.alias(), &[-1]).py(py)?)
    };
    let mut columns = vec![flat(&t)?];
    for o in others {
        let o = tensor::expect(op, "tensor", o)?;
        if o.dtype() != t.dtype() {
            return Err(PyTypeError::new_err(format!(
                "{op}: expected a tensor of {}, but got one of {}",
                t.dtype(),
                o.dtype()
            )));
        }
        columns.push(flat(&ops::expand_to(&o.alias(), t.shape()).py(py)?)?);
    }
    let mut mapped = Vec::with_capacity(t.numel());
    for i in 0..t.numel() {
        let row = columns.iter().map(|c| c.get_item(i)).collect::<PyResult<Vec<_>>>()?;
        mapped.push(callable.call1(PyTuple::new(py, row)?)?);
    }
    let list = pyo3::types::PyList::new(py, mapped)?;
    let new = crate::data::from_object(list.as_any(), Some(t.dtype()), Some(t.device()))?;
    enter(py, Work::Elements(t.numel()), || ops::copy_(&t, &ops::reshape_to(&new, t.shape())?))?;
    Ok(slf.clone())
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
