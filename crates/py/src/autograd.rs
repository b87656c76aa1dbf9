//! Running backward, and the switches that say what is recorded.

use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::node::{self, PyNode};
use crate::tensor::{PyTensor, get, wrap};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyrite_tensor::Tensor;
use pyrite_tensor::autograd::request::{How, from_edges};
use pyrite_tensor::autograd::runs;
use pyrite_tensor::autograd::{self, Edge, mode};

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

/// A place in the graph: of a tensor, or a `GradientEdge` (anything with `node` and `output_nr`).
fn edge_of(op: &str, name: &str, o: &Bound<PyAny>, root: Option<usize>) -> PyResult<Edge> {
    if let Some(t) = get(o) {
        return match (t.edge(), root) {
            (Some(e), _) => Ok(e),
            (None, Some(i)) => Err(PyRuntimeError::new_err(format!(
                "element {i} of tensors does not require grad and does not have a grad_fn"
            ))),
            (None, None) => {
                Err(PyRuntimeError::new_err("One of the differentiated Tensors does not require grad"))
            }
        };
    }
    let node = o.getattr("node").ok().and_then(|n| n.cast_into::<PyNode>().ok());
    let Some(node) = node else {
        return Err(PyTypeError::new_err(format!(
            "{op}(): argument '{name}' must be tuple of Tensors or GradientEdges, but found an element of type {}",
            o.get_type().name()?
        )));
    };
    let nr: u32 = o.getattr("output_nr")?.extract()?;
    let node = &node.get().node;
    if nr as usize >= node.outputs.len() {
        return Err(PyRuntimeError::new_err(format!(
            "{op}(): {} has {} outputs, but a GradientEdge in '{name}' names output {nr}",
            node.name,
            node.outputs.len()
        )));
    }
    Ok(node.edge_into(nr))
}

fn edges_of(op: &str, name: &str, o: &Bound<PyAny>, roots: bool) -> PyResult<Vec<Edge>> {
    if get(o).is_some() || o.hasattr("output_nr")? {
        return Ok(vec![edge_of(op, name, o, roots.then_some(0))?]);
    }
    o.try_iter()?.enumerate().map(|(i, x)| edge_of(op, name, &x?, roots.then_some(i))).collect()
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
    let roots = edges_of("backward", "tensors", tensors, true)?;
    let grads = optional_tensors("backward", "grad_tensors", grads)?;
    let inputs = match inputs {
        None => None,
        Some(i) => {
            let edges = edges_of("backward", "inputs", i, false)?;
            if edges.is_empty() {
                return Err(PyRuntimeError::new_err("`inputs` argument to `backward()` cannot be empty."));
            }
            // As PyTorch: an input with a history keeps its gradient as after `retain_grad()`.
            let one = get(i).map(|t| vec![t]);
            for t in one
                .map_or_else(
                    || i.try_iter()?.map(|x| Ok(get(&x?))).collect(),
                    |l| Ok::<_, PyErr>(l.into_iter().map(Some).collect::<Vec<_>>()),
                )?
                .into_iter()
                .flatten()
            {
                t.retain_grad().py(py)?;
            }
            Some(edges)
        }
    };
    enter(py, Work::Long, move || {
        let how =
            How { grads: &grads, keep_graph: retain_graph, create_graph, batched: false, op: "backward" };
        from_edges(&roots, &how, inputs.as_deref(), true).map(|_| ())
    })
}

/// `autograd.grad` after its arguments were checked. `batched`: every gradient has a batch dimension in front, and so
/// have the results.
#[pyfunction]
#[pyo3(signature = (outputs, grads, inputs, retain_graph, create_graph, allow_unused, batched=false))]
fn _grad<'py>(
    py: Python<'py>,
    outputs: &Bound<'py, PyAny>,
    grads: Option<&Bound<'py, PyAny>>,
    inputs: &Bound<'py, PyAny>,
    retain_graph: bool,
    create_graph: bool,
    allow_unused: bool,
    batched: bool,
) -> PyResult<Bound<'py, PyTuple>> {
    let roots = edges_of("grad", "outputs", outputs, true)?;
    let inputs = edges_of("grad", "inputs", inputs, false)?;
    if inputs.is_empty() {
        return Err(PyRuntimeError::new_err("`inputs` argument to `grad()` cannot be empty."));
    }
    let grads = optional_tensors("grad", "grad_outputs", grads)?;
    let got = enter(py, Work::Long, move || {
        let how = How { grads: &grads, keep_graph: retain_graph, create_graph, batched, op: "grad" };
        from_edges(&roots, &how, Some(&inputs), false)
    })?;
    if let Some(i) = got.iter().position(Option::is_none)
        && !allow_unused
    {
        return Err(PyRuntimeError::new_err(format!(
            "The differentiated Tensor at index {i} appears to not have been used in the graph. Set allow_unused=True if this is the desired behavior."
        )));
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

/// A number for the backward that is running in this thread; 0 outside.
#[pyfunction]
fn _backward_id() -> u64 {
    runs::current_run()
}

/// Is the backward that is running in this thread for some inputs only?
#[pyfunction]
fn _backward_is_partial() -> bool {
    runs::is_partial()
}

/// While on, backward passes note what takes part in them.
#[pyfunction]
fn _note_reached(on: bool) {
    runs::be_curious(on);
}

/// How many of these places get a gradient in the backward that is running.
#[pyfunction]
fn _count_reached(edges: &Bound<PyAny>) -> PyResult<usize> {
    let edges = edges_of("register_multi_grad_hook", "tensors", edges, false)?;
    Ok(edges.iter().filter(|e| runs::takes_part(e)).count())
}

/// (node, output number) of the place a tensor's gradient arrives at.
#[pyfunction]
fn _edge_of<'py>(py: Python<'py>, tensor: &Bound<'py, PyTensor>) -> PyResult<(Bound<'py, PyAny>, u32)> {
    let t = tensor.get().tensor(py);
    let Some(e) = t.edge() else {
        return Err(PyRuntimeError::new_err(
            "It is not possible to get the gradient edge for a Tensor that does not require gradients",
        ));
    };
    Ok((node::wrap(py, e.node())?, e.nr))
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

/// Debugging checks in force; see `pyrite_tensor::autograd::mode::check`.
#[pyfunction]
fn _checks() -> u8 {
    mode::checks()
}

/// Sets the bits of `mask`; returns what they were.
#[pyfunction]
fn _set_checks(mask: u8, bits: u8) -> u8 {
    mode::set_checks(mask, bits)
}

#[pyfunction]
fn _set_strict_inplace(mode: bool) -> bool {
    mode::set_strict_inplace(mode)
}

/// Is a write to a saved tensor an error, instead of a copy?
#[pyfunction]
fn is_strict_inplace() -> bool {
    mode::is_strict_inplace()
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_backward, m)?)?;
    m.add_function(wrap_pyfunction!(_grad, m)?)?;
    m.add_function(wrap_pyfunction!(_set_grad_enabled, m)?)?;
    m.add_function(wrap_pyfunction!(is_grad_enabled, m)?)?;
    m.add_function(wrap_pyfunction!(_set_inference, m)?)?;
    m.add_function(wrap_pyfunction!(is_inference_mode_enabled, m)?)?;
    m.add_function(wrap_pyfunction!(_edge_of, m)?)?;
    m.add_function(wrap_pyfunction!(_backward_id, m)?)?;
    m.add_function(wrap_pyfunction!(_backward_is_partial, m)?)?;
    m.add_function(wrap_pyfunction!(_note_reached, m)?)?;
    m.add_function(wrap_pyfunction!(_count_reached, m)?)?;
    m.add_function(wrap_pyfunction!(_checks, m)?)?;
    m.add_function(wrap_pyfunction!(_set_checks, m)?)?;
    m.add_function(wrap_pyfunction!(_set_strict_inplace, m)?)?;
    m.add_function(wrap_pyfunction!(is_strict_inplace, m)?)?;
    Ok(())
}
