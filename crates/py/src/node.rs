//! `grad_fn` objects: one Python object per graph node while it is alive, of a class named like the
//! node (`AddBackward0`).

use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::hooks::{RemovableHandle, grads_from, grads_tuple, node_hook};
use crate::results::scalar_object;
use crate::tensor::{PyTensor, wrap_lasting};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple, PyType, PyWeakrefReference};
use pyrite_tensor::autograd::node::{KeptValue, OutputInfo};
use pyrite_tensor::autograd::{Ctx, Node, is_grad_enabled};
use std::cell::RefCell;
use std::sync::Arc;

/// A function of the backward graph.
#[pyclass(frozen, subclass, weakref, name = "Node", module = "pyrite.autograd.graph")]
pub struct PyNode {
    pub node: Arc<Node>,
}

thread_local! {
    static HANDOVER: RefCell<Option<Arc<Node>>> = const { RefCell::new(None) };
}

/// The objects alive, by node address, as weak references.
static ALIVE: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
/// The classes made so far, by name.
static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

fn dict<'py>(py: Python<'py>, cell: &PyOnceLock<Py<PyDict>>) -> Bound<'py, PyDict> {
    cell.get_or_init(py, || PyDict::new(py).unbind()).bind(py).clone()
}

/// The object of a node.
pub fn wrap<'py>(py: Python<'py>, node: Arc<Node>) -> PyResult<Bound<'py, PyAny>> {
    let key = Arc::as_ptr(&node) as *const u8 as usize;
    let alive = dict(py, &ALIVE);
    if let Some(w) = alive.get_item(key)? {
        let target = w.call0()?;
        if let Ok(n) = target.cast::<PyNode>()
            && Arc::ptr_eq(&n.get().node, &node)
        {
            return Ok(target);
        }
    }
    let classes = dict(py, &CLASSES);
    let class = match classes.get_item(&*node.name)? {
        Some(c) => c,
        None => {
            let base = PyTuple::new(py, [py.get_type::<PyNode>()])?;
            let body = PyDict::new(py);
            body.set_item("__module__", "pyrite")?;
            let c = py.get_type::<PyType>().call1((&*node.name, base, body))?;
            classes.set_item(&*node.name, &c)?;
            c
        }
    };
    HANDOVER.with(|h| h.replace(Some(node)));
    let made = class.call0();
    HANDOVER.with(|h| h.take());
    let obj = made?;
    alive.set_item(key, PyWeakrefReference::new(&obj)?)?;
    Ok(obj)
}

impl Drop for PyNode {
    fn drop(&mut self) {
        let key = Arc::as_ptr(&self.node) as *const u8 as usize;
        Python::attach(|py| {
            if let Some(alive) = ALIVE.get(py) {
                // A newer object of the same node may have taken the place: it is recreated on demand.
                let _ = alive.bind(py).del_item(key);
            }
        });
    }
}

#[pymethods]
impl PyNode {
    #[new]
    fn new() -> PyResult<PyNode> {
        match HANDOVER.with(|h| h.take()) {
            Some(node) => Ok(PyNode { node }),
            None => {
                Err(pyo3::exceptions::PyTypeError::new_err("Node objects are made by recorded operations"))
            }
        }
    }
    /// The node's name.
    fn name(&self) -> String {
        self.node.name.to_string()
    }
    /// Pairs of (node, output number) that this node hands gradients to.
    #[getter]
    fn next_functions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let items = self
            .node
            .next_nodes()
            .into_iter()
            .map(|e| match e {
                Some((n, nr)) => Ok((wrap(py, n)?, nr).into_pyobject(py)?),
                None => (py.None().into_bound(py), 0u32).into_pyobject(py),
            })
            .collect::<PyResult<Vec<_>>>()?;
        PyTuple::new(py, items)
    }
    /// The leaf of an AccumulateGrad node.
    #[getter]
    fn variable<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTensor>>> {
        match self.node.rule().leaf() {
            Some(t) => wrap_lasting(py, t).map(Some),
            None => Err(pyo3::exceptions::PyAttributeError::new_err(format!(
                "'{}' object has no attribute 'variable'",
                self.node.name
            ))),
        }
    }
    /// Calls `hook(grad_inputs, grad_outputs)` after this node ran.
    fn register_hook(&self, hook: &Bound<PyAny>) -> PyResult<RemovableHandle> {
        node_hook(&self.node, hook, false)
    }
    /// Calls `hook(grad_outputs)` before this node runs.
    fn register_prehook(&self, hook: &Bound<PyAny>) -> PyResult<RemovableHandle> {
        node_hook(&self.node, hook, true)
    }
    /// A dict of the user's own that lives as long as the node.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> Bound<'py, PyDict> {
        crate::site::metadata(py, &self.node)
    }
    /// Where the forward operation was called: `file.py:12 in train`, or None.
    #[getter]
    fn _site(&self) -> Option<String> {
        self.node.site.describe()
    }
    /// Shape, dtype and device of each gradient this node takes.
    #[getter]
    fn _input_metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let items = self.node.outputs.iter().map(|o| Bound::new(py, InputMetadata(o.clone())));
        PyTuple::new(py, items.collect::<PyResult<Vec<_>>>()?)
    }
    /// Runs this node alone: gradients of its outputs to gradients of its inputs. The graph is kept.
    #[pyo3(signature = (*grads))]
    fn __call__<'py>(&self, py: Python<'py>, grads: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let want = self.node.outputs.len();
        if grads.len() != want {
            return Err(PyTypeError::new_err(format!(
                "{}: expected {want} arguments, got {} instead",
                self.node.name,
                grads.len()
            )));
        }
        let mut list = grads_from(&self.node.name, grads.as_any())?;
        for (i, (g, o)) in list.iter().zip(&self.node.outputs).enumerate() {
            if let Some(g) = g
                && g.shape() != o.shape.as_slice()
            {
                return Err(PyRuntimeError::new_err(format!(
                    "{}: gradient {i} has shape {:?}, the output {:?}",
                    self.node.name,
                    g.shape(),
                    o.shape
                )));
            }
        }
        let node = self.node.clone();
        let back = enter(py, Work::Long, move || {
            let mut cx = Ctx {
                node: &node,
                grads: &mut list,
                needs: u64::MAX,
                create_graph: is_grad_enabled(),
                keep_graph: true,
                batch: None,
                saved: Default::default(),
            };
            node.rule().backward(&mut cx)
        })?;
        let all = grads_tuple(py, &back)?;
        if all.len() == 1 { all.get_item(0) } else { Ok(all.into_any()) }
    }
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        crate::hooks::traverse_node(&self.node, &visit)
    }
    fn __clear__(&self) {
        if Arc::strong_count(&self.node) == 1 {
            self.node.clear_hooks();
        }
    }
    /// What the node keeps (`_saved_self`) is found by name, so it is listed here.
    fn __dir__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let plain = py.get_type::<PyAny>().call_method1("__dir__", (slf,))?;
        let list = plain.cast_into::<PyList>()?;
        let node = &slf.get().node;
        for name in node.rule().kept_names(node) {
            list.append(format!("_saved_{name}"))?;
        }
        Ok(list)
    }
    /// The node of a custom Function shows what its ctx holds (`grad_fn.saved_tensors`).
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        if let Some(name) = name.strip_prefix("_saved_")
            && let Some(value) = self.node.rule().kept(&self.node, name).py(py)?
        {
            return match value {
                KeptValue::Tensor(t) => wrap_lasting(py, t).map(Bound::into_any),
                KeptValue::Number(s) => scalar_object(py, s),
            };
        }
        if !name.starts_with("__")
            && let Some(ctx) = crate::function::ctx_of(py, &self.node)
        {
            return ctx.getattr(name);
        }
        if let Some(value) = crate::saved_values::attribute(py, &self.node, name)? {
            return Ok(value);
        }
        Err(pyo3::exceptions::PyAttributeError::new_err(format!(
            "'{}' object has no attribute '{name}'",
            self.node.name
        )))
    }
    fn _sequence_nr(&self) -> u64 {
        self.node.seq
    }
    fn __repr__(slf: &Bound<Self>) -> String {
        format!("<{} object at {:#x}>", slf.get().node.name, slf.as_ptr() as usize)
    }
}

/// What a gradient that arrives at a node looks like.
#[pyclass(frozen, name = "_InputMetadata", module = "pyrite._C")]
struct InputMetadata(OutputInfo);

#[pymethods]
impl InputMetadata {
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        crate::types::size_object(py, &self.0.shape)
    }
    #[getter]
    fn dtype(&self, py: Python) -> PyResult<Py<crate::types::PyDType>> {
        crate::types::dtype_object(py, self.0.dtype)
    }
    #[getter]
    fn device(&self, py: Python) -> PyResult<Py<crate::types::PyDevice>> {
        crate::types::device_object(py, self.0.device)
    }
    #[getter]
    fn is_nested_tensor(&self) -> bool {
        false
    }
    #[getter]
    fn is_tensor_subclass(&self) -> bool {
        false
    }
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_class::<PyNode>()
}
