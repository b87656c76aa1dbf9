//! `out=` on the Python side: which tensors it names, what it means for factories, and what a call gives back.

use crate::args::{Obj, Values};
use crate::bind::Extras;
use crate::error::IntoPy;
use crate::results::named;
use crate::signature::Parsed;
use crate::tensor::{self, PyTensor};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyrite_tensor::Tensor;
use pyrite_tensor::registry::{Arg, Value};

pub fn out_tensors<'py>(op: &str, o: Obj<'_, 'py>) -> PyResult<Vec<Bound<'py, PyTensor>>> {
    if let Ok(t) = o.cast::<PyTensor>() {
        return Ok(vec![t.to_owned()]);
    }
    let wrong =
        || PyTypeError::new_err(format!("{op}(): argument 'out' must be Tensor or a tuple of Tensors"));
    o.try_iter().map_err(|_| wrong())?.map(|x| x?.cast_into::<PyTensor>().map_err(|_| wrong())).collect()
}

/// What a factory makes goes into `out`: dtype and device are that tensor's unless given, in which case they
/// must agree. `requires_grad=` is taken out and applies to `out` afterwards.
pub fn adapt_factory(sig: &Parsed, values: &mut Values, out: &Tensor) -> PyResult<bool> {
    if !sig.params.iter().any(|p| p.name == "device") {
        return Ok(false);
    }
    let mut requires_grad = false;
    for (p, v) in sig.params.iter().zip(values.iter_mut()) {
        match (p.name, &*v) {
            ("dtype", Arg::None) => *v = Arg::DType(out.dtype()),
            ("dtype", Arg::DType(d)) if *d != out.dtype() => {
                return tensor::runtime(format!(
                    "dtype {d} does not match dtype of out parameter ({})",
                    out.dtype()
                ));
            }
            ("device", Arg::None) => *v = Arg::Device(out.device()),
            ("requires_grad", Arg::Bool(true)) => {
                *v = Arg::Bool(false);
                requires_grad = true;
            }
            _ => {}
        }
    }
    Ok(requires_grad)
}

/// The `out=` objects themselves, standing for replacements where a resize made some.
pub fn give_out(
    py: Python,
    value: Value,
    outs: &[Bound<PyTensor>],
    given: Option<Obj>,
    extras: Extras,
) -> PyResult<*mut ffi::PyObject> {
    let (fields, results) = match value {
        Value::Tensor(t) => (None, vec![t]),
        Value::Tuple(l) => (None, l),
        Value::Named(name, fields, l) => (Some((name, fields)), l),
        _ => (None, Vec::new()),
    };
    for (o, r) in outs.iter().zip(results) {
        if !o.get().tensor(py).same(&r) {
            tensor::swap(o, r);
        }
        if extras.requires_grad {
            o.get().tensor(py).set_requires_grad(true).py(py)?;
            tensor::link(o);
        }
    }
    match (outs, given, fields) {
        ([one], _, None) => Ok(one.clone().into_ptr()),
        (_, _, Some((name, fields))) => {
            Ok(named(py, name, fields, &PyTuple::new(py, outs.iter().map(|o| o.as_any()))?)?.into_ptr())
        }
        (_, Some(o), None) => Ok(o.to_owned().into_ptr()),
        _ => Ok(py.None().into_ptr()),
    }
}
