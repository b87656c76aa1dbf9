//! Forward mode for Python: levels, dual tensors, and what function transforms need to know about
//! histories. `python/pyrite/autograd/forward_ad.py` and `python/pyrite/func` are built on it.

use crate::autograd::tensors_of;
use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::tensor::{PyTensor, expect, link, wrap};
use pyo3::prelude::*;
use pyrite_tensor::autograd::forward;

/// Opens a level and returns its id.
#[pyfunction]
fn _dual_enter() -> u64 {
    forward::enter_level()
}

/// Closes the innermost level.
#[pyfunction]
fn _dual_exit(py: Python, id: u64) -> PyResult<()> {
    // An error nobody saw belongs to the level that ends.
    let _ = forward::check();
    forward::exit_level(id).py(py)
}

/// The ids of the open levels.
#[pyfunction]
fn _dual_levels() -> Vec<u64> {
    forward::levels()
}

/// Hides all but the outermost `n` levels; returns what to pass to undo it.
#[pyfunction]
fn _dual_hide(n: usize) -> usize {
    let before = forward::levels().len();
    forward::show(n);
    before
}

/// A tensor over the data of `primal` with a tangent.
#[pyfunction]
fn _make_dual<'py>(
    py: Python<'py>,
    primal: &Bound<'py, PyAny>,
    tangent: &Bound<'py, PyAny>,
    level: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let (p, t) = (expect("make_dual", "tensor", primal)?, expect("make_dual", "tangent", tangent)?);
    // The object comes back as the tangent.
    t.meta_or_new();
    if let Ok(o) = tangent.cast::<PyTensor>() {
        link(o);
    }
    let y = enter(py, Work::Elements(0), || forward::make_dual(&p, &t, level))?;
    Ok(wrap(py, y)?.into_any())
}

/// The value and the tangent (or None) at a level.
#[pyfunction]
fn _unpack_dual<'py>(
    py: Python<'py>,
    tensor: &Bound<'py, PyAny>,
    level: u64,
) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)> {
    let t = expect("unpack_dual", "tensor", tensor)?;
    let (p, d) = enter(py, Work::Elements(0), || forward::unpack_dual(&t, level))?;
    Ok((wrap(py, p)?.into_any(), d.map(|d| wrap(py, d).map(Bound::into_any)).transpose()?))
}

/// Has the tensor a tangent at an open level?
#[pyfunction]
fn _has_tangent(tensor: &Bound<PyAny>) -> PyResult<bool> {
    Ok(forward::has(&expect("_has_tangent", "tensor", tensor)?))
}

/// The data without history, tangents kept.
#[pyfunction]
fn _detach_keeping_tangents<'py>(py: Python<'py>, tensor: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let t = expect("detach", "tensor", tensor)?;
    Ok(wrap(py, forward::detach(&t))?.into_any())
}

/// The argument of a transform: another tensor over the same data that requires grad, in the caller's
/// history if `history`.
#[pyfunction]
fn _argument<'py>(py: Python<'py>, tensor: &Bound<'py, PyAny>, history: bool) -> PyResult<Bound<'py, PyAny>> {
    let t = expect("argument", "tensor", tensor)?;
    let y = enter(py, Work::Elements(0), || forward::argument(&t, history))?;
    y.meta_or_new();
    Ok(wrap(py, y)?.into_any())
}

/// Does the history of `outputs` reach leaves other than `ours`?
#[pyfunction]
fn _reaches_beyond(outputs: &Bound<PyAny>, ours: &Bound<PyAny>) -> PyResult<bool> {
    Ok(forward::reaches_beyond(
        &tensors_of("_reaches_beyond", "outputs", outputs)?,
        &tensors_of("_reaches_beyond", "ours", ours)?,
    ))
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_dual_enter, m)?)?;
    m.add_function(wrap_pyfunction!(_dual_exit, m)?)?;
    m.add_function(wrap_pyfunction!(_dual_levels, m)?)?;
    m.add_function(wrap_pyfunction!(_dual_hide, m)?)?;
    m.add_function(wrap_pyfunction!(_make_dual, m)?)?;
    m.add_function(wrap_pyfunction!(_unpack_dual, m)?)?;
    m.add_function(wrap_pyfunction!(_has_tangent, m)?)?;
    m.add_function(wrap_pyfunction!(_detach_keeping_tangents, m)?)?;
    m.add_function(wrap_pyfunction!(_argument, m)?)?;
    m.add_function(wrap_pyfunction!(_reaches_beyond, m)?)?;
    Ok(())
}
