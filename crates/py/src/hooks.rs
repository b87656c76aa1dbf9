//! Python callables as hooks of the core, with handles that remove them, visible to the garbage
//! collector where nothing but the Python object holds the leaf.

use crate::error::{IntoPy, from_py};
use crate::node;
use crate::site::attached;
use crate::tensor::{self, PyTensor, wrap};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyrite_core::{Result, err};
use pyrite_tensor::autograd::node::NodeHook;
use pyrite_tensor::autograd::{Grads, Hook, Meta, Node, PostAccumulateHook};
use pyrite_tensor::{Tensor, ops};
use std::any::Any;
use std::sync::{Arc, Weak};

/// A callable that runs on a gradient, on a leaf, or on a node.
pub struct PyHook {
    call: Py<PyAny>,
    /// Of a node's hook: which results of its custom Function are tensors, if not all are.
    slots: Option<Box<[bool]>>,
}

impl Hook for PyHook {
    fn call(&self, grad: &Tensor) -> Result<Option<Tensor>> {
        attached(|py| {
            let g = wrap(py, grad.clone())?;
            let r = self.call.bind(py).call1((g,))?;
            if r.is_none() {
                return Ok(None);
            }
            match tensor::get(&r) {
                Some(t) => ops::lazy::resolve(&t).py(py).map(Some),
                None => Err(PyTypeError::new_err(format!(
                    "expected Variable, but hook returned '{}'",
                    r.get_type().name()?
                ))),
            }
        })
        .map_err(from_py)
        .and_then(|r| match r {
            Some(t) if t.shape() != grad.shape() => {
                Err(err!(Runtime, "hook '{}' has changed the size of value", self.name()))
            }
            r => Ok(r),
        })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl PyHook {
    fn name(&self) -> String {
        attached(|py| {
            self.call.bind(py).getattr("__name__").map_or_else(|_| "hook".to_owned(), |n| n.to_string())
        })
    }
}

impl PostAccumulateHook for PyHook {
    fn call(&self, leaf: &Tensor) -> Result<()> {
        attached(|py| {
            let r = self.call.bind(py).call1((wrap(py, leaf.clone())?,))?;
            if r.is_none() {
                return Ok(());
            }
            Err(PyRuntimeError::new_err(format!(
                "Tensor post accumulate grad hooks should return None. (This one returned an object of type {})",
                r.get_type().name()?
            )))
        })
        .map_err(from_py)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Gradients as a tuple with None where nothing flows.
pub fn grads_tuple<'py>(py: Python<'py>, g: &[Option<Tensor>]) -> PyResult<Bound<'py, PyTuple>> {
    let items = g
        .iter()
        .map(|t| match t {
            Some(t) => wrap(py, t.clone()).map(Bound::into_any),
            None => Ok(py.None().into_bound(py)),
        })
        .collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(py, items)
}

/// What a hook or a backward returned: a tensor, None, or a tuple of them.
pub fn grads_from(what: &str, r: &Bound<PyAny>) -> PyResult<Grads> {
    let one = |o: &Bound<PyAny>| -> PyResult<Option<Tensor>> {
        if o.is_none() {
            return Ok(None);
        }
        match tensor::get(o) {
            Some(t) => ops::lazy::resolve(&t).py(o.py()).map(Some),
            None => Err(PyRuntimeError::new_err(format!(
                "{what}: expected Variable or None (got {})",
                o.get_type().name()?
            ))),
        }
    };
    if let Ok(t) = r.cast::<PyTuple>() {
        return t.iter().map(|o| one(&o)).collect();
    }
    if r.is_instance_of::<pyo3::types::PyList>() {
        return r.try_iter()?.map(|o| one(&o?)).collect();
    }
    Ok(std::iter::once(one(r)?).collect())
}

impl NodeHook for PyHook {
    fn call(&self, inputs: Option<&Grads>, outputs: &Grads) -> Result<Option<Grads>> {
        attached(|py| {
            let outs = match &self.slots {
                None => grads_tuple(py, outputs)?,
                Some(slots) => {
                    let mut given = outputs.iter();
                    let all: Vec<_> = slots
                        .iter()
                        .map(|s| if *s { given.next().cloned().flatten() } else { None })
                        .collect();
                    grads_tuple(py, &all)?
                }
            };
            let r = match inputs {
                Some(i) => self.call.bind(py).call1((grads_tuple(py, i)?, outs))?,
                None => self.call.bind(py).call1((outs,))?,
            };
            if r.is_none() {
                return Ok(None);
            }
            let mut new = grads_from("hook", &r)?;
            if let (Some(slots), None) = (&self.slots, inputs)
                && new.len() == slots.len()
            {
                let mut slot = slots.iter();
                new.retain(|_| slot.next().is_some_and(|s| *s));
            }
            let want = inputs.unwrap_or(outputs).len();
            if new.len() != want {
                return Err(PyRuntimeError::new_err(format!(
                    "hook has returned an incorrect number of values: got {}, expected {want}",
                    new.len()
                )));
            }
            Ok(Some(new))
        })
        .map_err(from_py)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

enum Target {
    Leaf(Weak<Meta>),
    Node(Weak<Node>),
}

/// Removes a hook again, by `remove()` or at the end of a `with` block.
#[pyclass(frozen, name = "RemovableHandle", module = "pyrite")]
pub struct RemovableHandle {
    target: Target,
    #[pyo3(get)]
    id: u64,
}

#[pymethods]
impl RemovableHandle {
    fn remove(&self) {
        match &self.target {
            Target::Leaf(m) => {
                if let Some(m) = m.upgrade() {
                    m.remove_hook(self.id);
                }
            }
            Target::Node(n) => {
                if let Some(n) = n.upgrade() {
                    n.remove_node_hook(self.id);
                }
            }
        }
    }
    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }
    #[pyo3(signature = (*_args))]
    fn __exit__(&self, _args: &Bound<PyTuple>) {
        self.remove();
    }
}

fn callable(op: &str, f: &Bound<PyAny>) -> PyResult<Arc<PyHook>> {
    callable_for(op, f, None)
}

fn callable_for(op: &str, f: &Bound<PyAny>, slots: Option<Box<[bool]>>) -> PyResult<Arc<PyHook>> {
    if !f.is_callable() {
        return Err(PyTypeError::new_err(format!(
            "{op}(): argument 'hook' must be callable, not {}",
            f.get_type().name()?
        )));
    }
    Ok(Arc::new(PyHook { call: f.clone().unbind(), slots }))
}

/// Where a hook of `t` was put.
fn target(t: &Tensor) -> Target {
    match t.grad_fn() {
        Some(e) => Target::Node(Arc::downgrade(&e.node())),
        None => Target::Leaf(Arc::downgrade(t.meta_or_new())),
    }
}

pub fn node_hook(node: &Arc<Node>, f: &Bound<PyAny>, pre: bool) -> PyResult<RemovableHandle> {
    let slots = crate::function::slots_of(node).map(Box::from);
    let hook = callable_for(if pre { "register_prehook" } else { "register_hook" }, f, slots)?;
    let id = if pre { node.register_prehook(hook) } else { node.register_hook(hook) };
    Ok(RemovableHandle { target: Target::Node(Arc::downgrade(node)), id })
}

#[pymethods]
impl PyTensor {
    /// Calls `hook(grad)` when the gradient of this tensor is computed; what it returns replaces it.
    fn register_hook(slf: &Bound<Self>, hook: &Bound<PyAny>) -> PyResult<RemovableHandle> {
        let t = slf.get().tensor(slf.py());
        let id = t.register_hook(callable("register_hook", hook)?).py(slf.py())?;
        tensor::link(slf);
        Ok(RemovableHandle { target: target(&t), id })
    }

    /// Calls `hook(tensor)` after the gradient of this leaf was accumulated.
    fn register_post_accumulate_grad_hook(
        slf: &Bound<Self>,
        hook: &Bound<PyAny>,
    ) -> PyResult<RemovableHandle> {
        let t = slf.get().tensor(slf.py());
        let id = t
            .register_post_accumulate_grad_hook(callable("register_post_accumulate_grad_hook", hook)?)
            .py(slf.py())?;
        tensor::link(slf);
        Ok(RemovableHandle { target: target(&t), id })
    }

    /// Keeps `.grad` of a tensor that is not a leaf.
    fn retain_grad(slf: &Bound<Self>) -> PyResult<()> {
        slf.get().tensor(slf.py()).retain_grad().py(slf.py())
    }

    /// Was this tensor made in inference mode?
    fn is_inference(slf: &Bound<Self>) -> bool {
        slf.get().tensor(slf.py()).storage().is_inference()
    }

    /// Tells graphs that this memory was written to by code they can't see.
    fn _bump_version(slf: &Bound<Self>) {
        slf.get().tensor(slf.py()).storage().bump_version();
    }

    #[getter]
    fn retains_grad(slf: &Bound<Self>) -> bool {
        slf.get().tensor(slf.py()).retains_grad()
    }
}

/// Shows the hooks that die with this handle to the garbage collector.
pub fn traverse(t: &Tensor, visit: &PyVisit) -> std::result::Result<(), PyTraverseError> {
    let mut result = Ok(());
    t.visit_owned_hooks(&mut |h| show(h, visit, &mut result));
    result
}

/// One of the things that hang on a graph: a hook, or the rule of a custom Function.
fn show(h: &dyn Any, visit: &PyVisit, result: &mut std::result::Result<(), PyTraverseError>) {
    if result.is_err() {
    } else if let Some(h) = h.downcast_ref::<PyHook>() {
        *result = visit.call(&h.call);
    } else if let Some(rule) = h.downcast_ref::<crate::function::PyRule>() {
        *result = rule.visit(visit);
    }
}

/// Shows what dies with the last handle on this node.
pub fn traverse_node(node: &Arc<Node>, visit: &PyVisit) -> std::result::Result<(), PyTraverseError> {
    let mut result = Ok(());
    if Arc::strong_count(node) == 1 {
        node.visit_hooks(&mut |h| show(h, visit, &mut result));
        if let Some(rule) = node.rule().as_any() {
            show(rule, visit, &mut result);
        }
    }
    result
}

/// Drops the hooks of a tensor that is garbage.
pub fn clear(t: &Tensor) {
    t.clear_owned_hooks();
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_class::<RemovableHandle>()?;
    node::register(m)
}
