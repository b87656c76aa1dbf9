//! Results of operators as Python objects: numbers, tuples, named tuples.

use crate::tensor::{self, wrap};
use crate::types::dtype_object;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use pyrite_core::Scalar;
use pyrite_tensor::registry::Value;

/// Any result that is not the receiver.
pub fn value_object(py: Python, v: Value) -> PyResult<*mut ffi::PyObject> {
    Ok(match v {
        Value::Tensor(t) => wrap(py, t)?.into_ptr(),
        Value::None | Value::Receiver => py.None().into_ptr(),
        Value::Tuple(l) => tensor::wrap_all(py, l)?.into_ptr(),
        Value::Named(name, fields, l) => named(py, name, fields, &tensor::wrap_all(py, l)?)?.into_ptr(),
        Value::Number(s) => scalar_object(py, s)?.into_ptr(),
        Value::Bool(b) => b.into_pyobject(py)?.to_owned().into_any().into_ptr(),
        Value::Int(i) => i.into_pyobject(py)?.into_any().into_ptr(),
        Value::Ints(l) => PyTuple::new(py, l)?.into_ptr(),
        Value::DType(d) => dtype_object(py, d)?.into_ptr(),
    })
}

/// A Python number.
pub fn scalar_object(py: Python<'_>, s: Scalar) -> PyResult<Bound<'_, PyAny>> {
    Ok(match s {
        Scalar::Bool(b) => b.into_pyobject(py)?.to_owned().into_any(),
        Scalar::Int(i) => i.into_pyobject(py)?.into_any(),
        Scalar::UInt(i) => i.into_pyobject(py)?.into_any(),
        Scalar::Float(f) => f.into_pyobject(py)?.into_any(),
        Scalar::Complex(re, im) => pyo3::types::PyComplex::from_doubles(py, re, im).into_any(),
    })
}

/// A named tuple such as `torch.return_types.max(values=..., indices=...)`.
pub fn named<'py>(
    py: Python<'py>,
    name: &'static str,
    fields: &[&str],
    items: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    const SOURCE: &std::ffi::CStr = c"
from collections import namedtuple

def make(name, fields):
    class Result(namedtuple(name, fields)):
        __slots__ = ()
        def __repr__(self):
            rows = ',\\n'.join(f'{k}={v!r}' for k, v in zip(self._fields, self))
            return f'torch.return_types.{name}(\\n{rows})'
    Result.__name__ = Result.__qualname__ = name
    Result.__module__ = 'pyrite.return_types'
    return Result
";
    let cache = CLASSES.get_or_try_init(py, || {
        let scope = PyDict::new(py);
        scope.set_item("__builtins__", py.import("builtins")?)?;
        scope.set_item("__name__", "pyrite._C")?;
        py.run(SOURCE, Some(&scope), Some(&scope))?;
        Ok::<_, PyErr>(scope.unbind())
    })?;
    let cache = cache.bind(py);
    let key = format!("{name}|{}", fields.join(","));
    let class = match cache.get_item(&key)? {
        Some(c) => c,
        None => {
            let Some(make) = cache.get_item("make")? else {
                return tensor::runtime("named results are not set up");
            };
            let class = make.call1((name, fields.to_vec()))?;
            cache.set_item(&key, &class)?;
            class
        }
    };
    class.call1(items)
}
