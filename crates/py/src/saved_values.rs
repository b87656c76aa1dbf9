//! What nodes have saved, as Python sees it: `grad_fn._saved_self`, and `grad_fn._raw_saved_self`, on which hooks
//! can be put.

use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::results::scalar_object;
use crate::saved_hooks::Hooks;
use crate::tensor::wrap;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyrite_core::{Result, Scalar, bail};
use pyrite_tensor::Tensor;
use pyrite_tensor::autograd::Node;
use pyrite_tensor::autograd::node::SavedItem;
use pyrite_tensor::autograd::saved::{Place, Saved};
use pyrite_tensor::registry;
use std::sync::Arc;

/// Where a saved tensor lies.
enum Holder {
    /// With the rule of a node.
    Node(Arc<Node>, Place),
    /// In the ctx of a custom Function, at this position.
    Function(Py<crate::function::SavedTensors>, usize),
}

/// A tensor saved for backward, before it is unpacked.
#[pyclass(frozen, name = "SavedTensor", module = "pyrite.autograd")]
pub struct SavedTensor(Holder);

#[pymethods]
impl SavedTensor {
    #[new]
    #[pyo3(signature = (*_args))]
    fn new(_args: &Bound<pyo3::types::PyTuple>) -> PyResult<SavedTensor> {
        Err(PyRuntimeError::new_err("Trying to create a SavedTensor object from Python is forbidden."))
    }

    /// Calls `pack_hook(tensor)` now, and gives backward what `unpack_hook` makes of the answer.
    fn register_hooks(
        &self,
        py: Python,
        pack_hook: &Bound<PyAny>,
        unpack_hook: &Bound<PyAny>,
    ) -> PyResult<()> {
        for f in [pack_hook, unpack_hook] {
            if !f.is_callable() {
                return Err(PyTypeError::new_err(format!(
                    "register_hooks(): incompatible function arguments: both hooks must be callable, got {}",
                    f.get_type().name()?
                )));
            }
        }
        let hooks = Hooks::new(pack_hook, unpack_hook);
        match &self.0 {
            Holder::Node(node, place) => {
                let (node, place) = (node.clone(), *place);
                enter(py, Work::Long, move || {
                    node.rule().visit_saved(&node, &mut |item| match item {
                        SavedItem::Tensor(Some(p), saved) if p == place => {
                            saved.set_hook(&node, &hooks).map(|()| true)
                        }
                        _ => Ok(false),
                    })
                })
            }
            Holder::Function(list, i) => list.get().set_hook(py, *i, &hooks),
        }
    }
}

/// The raw saved tensors of a custom Function.
pub fn raw_of_function<'py>(
    list: &Bound<'py, crate::function::SavedTensors>,
    n: usize,
) -> PyResult<Vec<Bound<'py, SavedTensor>>> {
    (0..n).map(|i| Bound::new(list.py(), SavedTensor(Holder::Function(list.clone().unbind(), i)))).collect()
}

/// `AddBackward0` -> `add`.
fn op_name(node: &str) -> String {
    let stem = node.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = stem.strip_suffix("Backward").unwrap_or(stem);
    let mut name = String::new();
    for c in stem.chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// What `_saved_{name}` is of a node, by PyTorch's rules: `self` is the first argument, `result` (or `result1`,
/// ...) what it returned, the others go by the operator's own names.
fn place_of(node: &Node, name: &str) -> Option<Place> {
    match name {
        "self" | "input" => return Some(Place::Input(0)),
        "result" | "result0" | "output" => return Some(Place::Output(0)),
        _ => {}
    }
    if let Some(n) = name.strip_prefix("result") {
        return n.parse().ok().map(Place::Output);
    }
    let op = op_name(&node.name);
    let op = registry::ops().iter().find(|o| o.name == op)?;
    op.sigs.iter().find_map(|s| {
        let tensors = s.text.split(',').filter_map(|p| p.split_once(':')).filter(|(_, ty)| {
            let ty = ty.trim();
            ty.starts_with("Tensor") || ty.starts_with("Operand")
        });
        tensors.map(|p| p.0.trim()).position(|n| n == name).map(|i| Place::Input(i as u8))
    })
}

enum Found {
    Tensor(Tensor),
    Number(Scalar),
    Raw,
}

/// The attribute `_saved_*` or `_raw_saved_*` of a node; `None` if there is none of that name.
pub fn attribute<'py>(py: Python<'py>, node: &Arc<Node>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let (raw, name) = match (name.strip_prefix("_raw_saved_"), name.strip_prefix("_saved_")) {
        (Some(n), _) => (true, n),
        (None, Some(n)) => (false, n),
        _ => return Ok(None),
    };
    let Some(place) = place_of(node, name) else { return Ok(None) };
    let found = enter(py, Work::Long, || -> Result<Option<Found>> {
        let mut found = None;
        node.rule().visit_saved(node, &mut |item| {
            found = match item {
                SavedItem::Tensor(Some(p), _) if p == place && raw => Some(Found::Raw),
                SavedItem::Tensor(Some(p), s) if p == place => {
                    Some(Found::Tensor(s.unpack_whole(Some(node))?))
                }
                SavedItem::Number(i, s) if Place::Input(i) == place && !raw => Some(Found::Number(s)),
                _ => None,
            };
            Ok(found.is_some())
        })?;
        Ok(found)
    })?;
    Ok(match found {
        None => None,
        Some(Found::Tensor(t)) => Some(wrap(py, t)?.into_any()),
        Some(Found::Number(s)) => Some(scalar_object(py, s)?),
        Some(Found::Raw) => Some(Bound::new(py, SavedTensor(Holder::Node(node.clone(), place)))?.into_any()),
    })
}

/// Puts hooks on one of the tensors of a custom Function.
pub fn hook_one(saved: Option<&mut Option<Saved>>, node: &Arc<Node>, hooks: &Hooks) -> Result<()> {
    match saved {
        Some(Some(s)) => s.set_hook(node, hooks),
        _ => bail!(Runtime, "Calling register_hooks on a saved tensor with value None is forbidden"),
    }
}

/// Calls `callback()` at the end of the backward that is running.
#[pyfunction]
fn _queue_callback(py: Python, callback: Py<PyAny>) -> PyResult<()> {
    pyrite_tensor::autograd::runs::at_end(Box::new(move || {
        crate::site::attached(|py| callback.bind(py).call0().map(|_| ())).map_err(crate::error::from_py)
    }))
    .py(py)
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_class::<SavedTensor>()?;
    m.add_function(wrap_pyfunction!(_queue_callback, m)?)
}
