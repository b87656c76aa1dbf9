//! Running backward, and the switches that say what is recorded.

use crate::enter::{Work, enter};
use crate::tensor::{get, wrap};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyrite_tensor::Tensor;
use pyrite_tensor::autograd::{self, mode};

/// A sequence of tensors.
pub fn tensors_of(op: &str, name: &str, o: &Bound<PyAny>) -> PyResult<Vec<Tensor>> {
    if let Some(t) = get(o) {
        return Ok(vec![t]);
    }
    o.try_iter()?
        .map(|x| {
            let x = x?;
            match get(&x) {
                Some(t) => Ok(t),
                None => Err(PyTypeError::new_err(format!(
                    "{op}(): argument '{name}' must be tuple of Tensors, but found an element of type {}",
                    x.get_type().name()?
                ))),
            }
        })
        .collect()
}

fn optional_tensors(op: &str, name: &str, o: Option<&Bound<PyAny>>) -> PyResult<Vec<Option<Tensor>>> {
    let Some(o) = o else { return Ok(Vec::new()) };
    if o.is_none() {
        return Ok(Vec::new());
    }
    o.try_iter()?
        .map(|x| {
            let x = x?;
            if x.is_none() {
                return Ok(None);
            }
            match get(&x) {
                Some(t) => Ok(Some(t)),
                None => Err(PyTypeError::new_err(format!("{op}(): argument '{name}' must be a tuple of Tensors or None, but found an element of type {}", x.get_type().name()?))),
            }
        })
        .collect()
}

pub fn run_backward(
    py: Python,
    tensors: Vec<Tensor>,
    grads: Vec<Option<Tensor>>,
    keep: bool,
    create: bool,
    inputs: Option<Vec<Tensor>>,
) -> PyResult<()> {
    enter(py, Work::Long, move || autograd::backward(&tensors, &grads, keep, create, inputs.as_deref()))
}

/// `autograd.backward` after its arguments were checked.
#[pyfunction]
#[pyo3(signature = (tensors, grads, retain_graph, create_graph, inputs=None, accumulate=true))]
fn _backward(
    py: Python,
    tensors: &Bound<PyAny>,
    grads: Option<&Bound<PyAny>>,
    retain_graph: bool,
    create_graph: bool,
    inputs: Option<&Bound<PyAny>>,
    accumulate: bool,
) -> PyResult<()> {
    if !accumulate {
        return Err(PyRuntimeError::new_err("_backward(): accumulate=False is what _grad is for"));
    }
    let inputs = inputs.map(|i| tensors_of("backward", "inputs", i)).transpose()?;
    run_backward(
        py,
        tensors_of("backward", "tensors", tensors)?,
        optional_tensors("backward", "grad_tensors", grads)?,
        retain_graph,
        create_graph,
        inputs,
    )
}

/// `autograd.grad` after its arguments were checked.
#[pyfunction]
fn _grad<'py>(
    py: Python<'py>,
    outputs: &Bound<'py, PyAny>,
    grads: Option<&Bound<'py, PyAny>>,
    inputs: &Bound<'py, PyAny>,
    retain_graph: bool,
    create_graph: bool,
    allow_unused: bool,
) -> PyResult<Bound<'py, PyTuple>> {
    let outputs = tensors_of("grad", "outputs", outputs)?;
    let inputs = tensors_of("grad", "inputs", inputs)?;
    let grads = optional_tensors("grad", "grad_outputs", grads)?;
    let got =
        enter(py, Work::Long, move || autograd::grad(&outputs, &grads, &inputs, retain_graph, create_graph))?;
    if !allow_unused && got.iter().any(Option::is_none) {
        return Err(PyRuntimeError::new_err(
            "One of the differentiated Tensors appears to not have been used in the graph. Set allow_unused=True if this is the desired behavior.",
        ));
    }
    let items = got
        .into_iter()
        .map(|g| match g {
            Some(g) => wrap(py, g).map(Bound::into_any),
            None => Ok(py.None().into_bound(py)),
        })
        .collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(py, items)
}

/// Switches recording; returns what it was.
#[pyfunction]
fn _set_grad_enabled(mode: bool) -> bool {
    mode::set_grad_enabled(mode)
}

/// Are operations recorded in this thread?
#[pyfunction]
fn is_grad_enabled() -> bool {
    mode::is_grad_enabled()
}

#[pyfunction]
fn _set_inference(mode: bool) -> bool {
    mode::set_inference(mode)
}

#[pyfunction]
fn is_inference_mode_enabled() -> bool {
    mode::is_inference()
}

#[pyfunction]
fn _set_anomaly(mode: bool) -> bool {
    mode::set_anomaly(mode)
}

#[pyfunction]
fn is_anomaly_enabled() -> bool {
    mode::is_anomaly()
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_backward, m)?)?;
    m.add_function(wrap_pyfunction!(_grad, m)?)?;
    m.add_function(wrap_pyfunction!(_set_grad_enabled, m)?)?;
    m.add_function(wrap_pyfunction!(is_grad_enabled, m)?)?;
    m.add_function(wrap_pyfunction!(_set_inference, m)?)?;
    m.add_function(wrap_pyfunction!(is_inference_mode_enabled, m)?)?;
    m.add_function(wrap_pyfunction!(_set_anomaly, m)?)?;
    m.add_function(wrap_pyfunction!(is_anomaly_enabled, m)?)?;
    Ok(())
}
