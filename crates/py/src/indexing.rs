//! `x[...]`, `x[...] = y`, iteration, containment and length.

use crate::args::{int, number};
use crate::data;
use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::overrides;
use crate::tensor::{self, PyTensor, get, get_borrowed, wrap, wrap_all};
use pyo3::exceptions::{PyIndexError, PyTypeError, PyUserWarning};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyEllipsis, PyInt, PyIterator, PyList, PySlice, PyTuple};
use pyrite_core::Scalar;
use pyrite_tensor::ops::Operand;
use pyrite_tensor::ops::getitem::{self, Idx};
use pyrite_tensor::{Tensor, ops};

/// One index as the core knows it.
fn one(o: &Bound<PyAny>) -> PyResult<Idx> {
    if o.is_none() {
        return Ok(Idx::None);
    }
    if let Ok(b) = o.cast::<PyBool>() {
        return Ok(Idx::Bool(b.is_true()));
    }
    if o.is_instance_of::<PyInt>() {
        return Ok(Idx::Int(o.extract::<i64>()?));
    }
    if let Ok(s) = o.cast::<PySlice>() {
        let part = |name: &str| -> PyResult<Option<i64>> {
            let v = s.getattr(name)?;
            if v.is_none() {
                return Ok(None);
            }
            match int(v.as_borrowed()) {
                Ok(Some(i)) => Ok(Some(i)),
                Ok(None) => Err(PyTypeError::new_err(
                    "slice indices must be integers or None or have an __index__ method",
                )),
                // Bounds beyond 64 bits mean the end.
                Err(_) => Ok(Some(if v.lt(0)? { i64::MIN } else { i64::MAX })),
            }
        };
        return Ok(Idx::Slice { start: part("start")?, stop: part("stop")?, step: part("step")? });
    }
    if o.is_instance_of::<PyEllipsis>() {
        return Ok(Idx::Ellipsis);
    }
    if let Some(t) = get(o) {
        return Ok(Idx::Tensor(t));
    }
    if data::is_sequence(o) || o.hasattr("__array_interface__")? {
        let t = data::from_object(o, None, None)?;
        // An empty list is a list of positions.
        let t = if t.numel() == 0 && t.dtype().is_float() {
            ops::to_dtype(&t, pyrite_core::DType::I64).py(o.py())?
        } else {
            t
        };
        return Ok(Idx::Tensor(t));
    }
    if let Some(i) = int(o.as_borrowed())? {
        return Ok(Idx::Int(i));
    }
    Err(PyIndexError::new_err(format!(
        "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got {})",
        o.get_type().name()?
    )))
}

/// Does a list stand for a tuple? It does, in old programs, if something in it is more than a number.
fn is_tuple_in_disguise(key: &Bound<PyAny>) -> PyResult<bool> {
    let Ok(list) = key.cast::<PyList>() else { return Ok(false) };
    const MOST: usize = 32;
    Ok(list.len() < MOST
        && list.iter().any(|o| {
            o.is_none()
                || o.is_instance_of::<PySlice>()
                || o.is_instance_of::<PyEllipsis>()
                || get_borrowed(o.as_borrowed()).is_some()
                || data::is_sequence(&o)
        }))
}

/// The whole index expression.
fn all(key: &Bound<PyAny>) -> PyResult<Vec<Idx>> {
    let list: Vec<Idx> = match key.cast::<PyTuple>() {
        Ok(t) => t.iter().map(|o| one(&o)).collect::<PyResult<_>>()?,
        Err(_) if is_tuple_in_disguise(key)? => {
            warn(
                key.py(),
                c"Using a non-tuple sequence for multidimensional indexing is deprecated: use x[tuple(seq)] instead of x[seq], or x[torch.tensor(seq)] for positions.",
            )?;
            key.try_iter()?.map(|o| one(&o?)).collect::<PyResult<_>>()?
        }
        Err(_) => vec![one(key)?],
    };
    if list.iter().any(|i| matches!(i, Idx::Tensor(t) if t.dtype() == pyrite_core::DType::U8)) {
        warn(
            key.py(),
            c"indexing with dtype torch.uint8 is now deprecated, please use a dtype torch.bool instead.",
        )?;
    }
    Ok(list)
}

fn warn(py: Python, text: &std::ffi::CStr) -> PyResult<()> {
    PyErr::warn(py, py.get_type::<PyUserWarning>().as_any(), text, 1)
}

fn work(t: &Tensor, key: &[Idx]) -> Work {
    // Views cost nothing; gathering costs what it gathers, at most about the tensor times the index.
    let gathers = key.iter().any(|i| matches!(i, Idx::Tensor(_)));
    Work::Elements(if gathers { t.numel() } else { 0 })
}

#[pymethods]
impl PyTensor {
    fn __getitem__(slf: &Bound<Self>, key: &Bound<PyAny>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        if overrides::active()
            && let Some(r) = overrides::method("__getitem__", &[slf.as_any(), key])?
        {
            return Ok(r.unbind());
        }
        let t = slf.get().tensor(py);
        if key.is_exact_instance_of::<PyInt>() {
            if t.ndim() == 0 {
                return Err(PyIndexError::new_err(
                    "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert a 0-dim tensor to a number",
                ));
            }
            let i = key.extract::<i64>()?;
            let n = t.shape()[0] as i64;
            if i < -n || i >= n {
                return Err(PyIndexError::new_err(format!(
                    "index {i} is out of bounds for dimension 0 with size {n}"
                )));
            }
            let y = enter(py, Work::Elements(0), || ops::select(&t, 0, i))?;
            return finish(slf, y);
        }
        let key = all(key)?;
        let y = enter(py, work(&t, &key), || getitem::get(&t, &key))?;
        finish(slf, y)
    }

    fn __setitem__(slf: &Bound<Self>, key: &Bound<PyAny>, value: &Bound<PyAny>) -> PyResult<()> {
        let py = slf.py();
        if overrides::active() && overrides::method("__setitem__", &[slf.as_any(), key, value])?.is_some() {
            return Ok(());
        }
        let t = slf.get().tensor(py);
        let key = all(key)?;
        let (tensor, number) = match get(value) {
            Some(v) => (Some(v), None),
            None => match number(value.as_borrowed())? {
                Some(s) => (None, Some(s)),
                None => (Some(data::from_object(value, Some(t.dtype()), Some(t.device()))?), None),
            },
        };
        enter(py, work(&t, &key), || match (&tensor, number) {
            (Some(v), _) => getitem::set(&t, &key, Operand::Tensor(v)),
            (None, s) => getitem::set(&t, &key, Operand::Number(s.unwrap_or(Scalar::Int(0)))),
        })?;
        tensor::link(slf);
        Ok(())
    }

    fn __delitem__(_slf: &Bound<Self>, _key: &Bound<PyAny>) -> PyResult<()> {
        Err(PyTypeError::new_err("Tensor does not support deleting items"))
    }

    fn __len__(slf: &Bound<Self>) -> PyResult<usize> {
        match slf.get().tensor(slf.py()).shape().first() {
            Some(n) => Ok(*n),
            None => Err(PyTypeError::new_err("len() of a 0-d tensor")),
        }
    }

    fn __iter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        let py = slf.py();
        let t = slf.get().tensor(py);
        if t.ndim() == 0 {
            return Err(PyTypeError::new_err("iteration over a 0-d tensor"));
        }
        let parts = enter(py, Work::Elements(0), || ops::unbind(&t, 0))?;
        tensor::link(slf);
        wrap_all(py, parts)?.try_iter()
    }

    fn __reversed__(slf: &Bound<Self>) -> PyResult<Py<PyAny>> {
        let t = slf.get().tensor(slf.py());
        if t.ndim() == 0 {
            return Ok(slf.clone().into_any().unbind());
        }
        Ok(slf.call_method1("flip", (0,))?.unbind())
    }

    fn __contains__(slf: &Bound<Self>, item: &Bound<PyAny>) -> PyResult<bool> {
        let py = slf.py();
        if get_borrowed(item.as_borrowed()).is_none() && number(item.as_borrowed())?.is_none() {
            return tensor::runtime(format!(
                "Tensor.__contains__ only supports Tensor or scalar, but you passed in a {}.",
                item.get_type()
            ));
        }
        let hit = slf.as_any().rich_compare(item, pyo3::basic::CompareOp::Eq)?;
        let any = hit.call_method0("any")?;
        match get(&any) {
            Some(t) => Ok(!t.item().py(py)?.is_zero()),
            None => any.is_truthy(),
        }
    }
}

/// A view's base must know its Python object.
fn finish(slf: &Bound<PyTensor>, y: Tensor) -> PyResult<Py<PyAny>> {
    tensor::link(slf);
    Ok(wrap(slf.py(), y)?.into_any().unbind())
}
