//! User-defined differentiable functions: runs `forward`, records a node whose rule calls `backward`
//! in Python, keeps saved tensors as the core keeps its own. `python/pyrite/autograd/function.py` is
//! the class around it.

use crate::error::{IntoPy, from_py};
use crate::function_jvp::Given;
use crate::hooks::{grads_from, grads_tuple};
use crate::saved_hooks::Hooks;
use crate::site::attached;
use crate::tensor::{self, PyTensor, get, wrap};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyrite_core::Result;
use pyrite_tensor::Tensor;
use pyrite_tensor::autograd::mode;
use pyrite_tensor::autograd::node::{self, Node, Rule};
use pyrite_tensor::autograd::saved::Saved;
use pyrite_tensor::autograd::{Ctx, GradMode, Grads, Meta, forward, inplace, is_grad_enabled};
use smallvec::SmallVec;
use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// The tensors a ctx saved, as `ctx._saved`.
#[pyclass(frozen, name = "_SavedTensors", module = "pyrite._C")]
pub struct SavedTensors {
    node: OnceLock<Weak<Node>>,
    /// The backward that runs keeps the graph.
    keep: AtomicBool,
    list: Mutex<Option<Arc<[Option<Saved>]>>>,
    /// The tensors that were inputs, while somebody else keeps them: they come back as the very objects, with
    /// the attributes users gave them.
    originals: Vec<Weak<Meta>>,
}

impl SavedTensors {
    fn list(&self) -> Option<Arc<[Option<Saved>]>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_hook(&self, py: Python, i: usize, hooks: &Hooks) -> PyResult<()> {
        // Taken out meanwhile: the hook may look here.
        let Some(mut list) = self.list.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return self.gone(py);
        };
        let done = match (self.node.get().and_then(Weak::upgrade), Arc::get_mut(&mut list)) {
            (Some(node), Some(l)) => crate::saved_values::hook_one(l.get_mut(i), &node, hooks).py(py),
            _ => Err(PyRuntimeError::new_err(
                "register_hooks: the saved tensor is in use, or its graph is gone",
            )),
        };
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = Some(list);
        done
    }

    fn gone<T>(&self, py: Python) -> PyResult<T> {
        match self.node.get().and_then(Weak::upgrade) {
            Some(node) => node::second_backward(&node).py(py),
            None => Err(PyRuntimeError::new_err("saved_tensors: the graph of this ctx is gone")),
        }
    }
}

#[pymethods]
impl SavedTensors {
    fn unpack<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        // Unpacking may run hooks, which may come here again: not under the lock.
        let Some(list) = self.list() else { return self.gone(py) };
        let node = self.node.get().and_then(Weak::upgrade);
        let objects = list
            .iter()
            .zip(&self.originals)
            .map(|(s, original)| {
                let Some(s) = s else { return Ok(py.None().into_bound(py)) };
                if let Some(o) = original.upgrade().and_then(|m| tensor::object_of(py, &m))
                    && s.is_still(&o.get().tensor(py))
                {
                    return Ok(o.into_any());
                }
                Ok(wrap(py, s.unpack_whole(node.as_ref()).py(py)?)?.into_any())
            })
            .collect::<PyResult<Vec<_>>>()?;
        PyTuple::new(py, objects)
    }
    /// As `SavedTensor` objects, on which hooks can be put.
    fn raw<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let Some(list) = slf.get().list() else { return slf.get().gone(slf.py()) };
        PyTuple::new(slf.py(), crate::saved_values::raw_of_function(slf, list.len())?)
    }
    /// Lets the tensors go during a backward that does not keep the graph.
    fn clear(&self) {
        if !self.keep.load(Ordering::Relaxed) {
            let old = self.list.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(old);
        }
    }
    /// The node of this ctx.
    fn grad_fn<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.node.get().and_then(Weak::upgrade).map(|n| crate::node::wrap(py, n)).transpose()
    }
}

/// Calls `backward(ctx, *grads)` of the class.
pub struct PyRule {
    class: Py<PyAny>,
    ctx: Py<PyAny>,
    saved: Py<SavedTensors>,
    inputs: usize,
    /// Which arguments of forward were tensors.
    tensors: Vec<bool>,
    /// Which of its results are.
    slots: Vec<bool>,
    materialize: bool,
    /// Results (among those that are tensors) that get None in any case.
    never: Vec<usize>,
}

impl PyRule {
    pub fn visit(&self, visit: &PyVisit) -> std::result::Result<(), PyTraverseError> {
        visit.call(&self.ctx)?;
        visit.call(&self.class)
    }
}

/// Which results of a custom Function are tensors, if not all of them: its node's hooks see a place for each.
pub fn slots_of(node: &Node) -> Option<&[bool]> {
    let rule = node.rule().as_any()?.downcast_ref::<PyRule>()?;
    (!rule.slots.iter().all(|s| *s)).then_some(&*rule.slots)
}

impl Rule for PyRule {
    fn backward(&self, cx: &mut Ctx) -> Result<Grads> {
        let grads: Vec<Option<Tensor>> = if self.materialize {
            let zeros = |i: usize| {
                if self.never.contains(&i) { Ok(cx.grads[i].clone()) } else { cx.grad(i).map(Some) }
            };
            (0..cx.grads.len()).map(zeros).collect::<Result<_>>()?
        } else {
            cx.grads.to_vec()
        };
        let name = &cx.node.name;
        self.saved.get().keep.store(cx.keep_graph, Ordering::Relaxed);
        attached(|py| -> PyResult<Grads> {
            let ctx = self.ctx.bind(py);
            // One per output of forward: None for those that are no tensors.
            let mut given = grads.into_iter();
            let all: Vec<Option<Tensor>> =
                self.slots.iter().map(|is_tensor| is_tensor.then(|| given.next().flatten()).flatten()).collect();
            let list = grads_tuple(py, &all)?;
            let r = self.class.bind(py).call_method1("_run_backward", (ctx, list))?;
            let mut out = grads_from(name, &r)?;
            while out.len() > self.inputs && out.last().is_some_and(Option::is_none) {
                out.pop();
            }
            if out.len() != self.inputs {
                return Err(PyRuntimeError::new_err(format!(
                    "function {name} returned an incorrect number of gradients (expected {}, got {})",
                    self.inputs,
                    out.len()
                )));
            }
            for (i, (g, is_tensor)) in out.iter().zip(&self.tensors).enumerate() {
                if g.is_some() && !is_tensor {
                    return Err(PyRuntimeError::new_err(format!(
                        "function {name} returned a gradient different than None at position {}, but the corresponding forward input was not a Variable",
                        i + 1
                    )));
                }
            }
            Ok(out)
        })
        .map_err(from_py)
    }
    fn release(&self) {
        let saved = self.saved.get();
        let old = saved.list.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(old);
    }
    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

/// The ctx of a custom Function's node.
pub fn ctx_of<'py>(py: Python<'py>, node: &Node) -> Option<Bound<'py, PyAny>> {
    let rule = node.rule().as_any()?.downcast_ref::<PyRule>()?;
    Some(rule.ctx.bind(py).clone())
}

fn is_among(o: &Bound<PyAny>, list: &[Bound<PyAny>]) -> bool {
    list.iter().any(|x| x.is(o))
}

/// A tuple attribute of the ctx.
fn items<'py>(ctx: &Bound<'py, PyAny>, name: &str) -> PyResult<Vec<Bound<'py, PyAny>>> {
    match ctx.getattr(name)? {
        v if v.is_none() => Ok(Vec::new()),
        v => v.try_iter()?.collect(),
    }
}

/// `Function.apply`: runs `run(*args)`, which calls `forward`, and records the result.
#[pyfunction]
#[pyo3(signature = (class, ctx, run, args))]
fn _function_apply<'py>(
    py: Python<'py>,
    class: &Bound<'py, PyAny>,
    ctx: &Bound<'py, PyAny>,
    run: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let inputs: Vec<Option<Tensor>> = args.iter().map(|a| get(&a)).collect();
    let recording = is_grad_enabled();
    let flows = |t: &Tensor| recording && t.requires_grad() || forward::has(t);
    let needs: Vec<bool> = inputs.iter().map(|t| t.as_ref().is_some_and(flows)).collect();
    ctx.setattr("needs_input_grad", PyTuple::new(py, &needs)?)?;
    let result = {
        let _off = GradMode::new(false);
        // The tangents come from `jvp`, not from what forward happens to call.
        let _hidden = forward::active().then(|| forward::Below::new(0));
        run.call1((ctx, args))?
    };
    let single = !result.is_instance_of::<PyTuple>();
    let outputs: Vec<Bound<PyAny>> =
        if single { vec![result.clone()] } else { result.try_iter()?.collect::<PyResult<_>>()? };
    let dirty = items(ctx, "_dirty")?;
    if !needs.iter().any(|n| *n) {
        // Without a graph an input that is returned must not look as if it had one.
        let plain = |o: &Bound<'py, PyAny>| -> PyResult<Bound<'py, PyAny>> {
            match get(o) {
                Some(t) if t.requires_grad() && !is_among(o, &dirty) && args.iter().any(|a| a.is(o)) => {
                    Ok(wrap(py, t.alias())?.into_any())
                }
                _ => Ok(o.clone()),
            }
        };
        return match single {
            true => plain(&result),
            false => {
                Ok(PyTuple::new(py, outputs.iter().map(plain).collect::<PyResult<Vec<_>>>()?)?.into_any())
            }
        };
    }
    let constant = items(ctx, "_non_differentiable")?;
    // Outputs that are inputs become new tensors over the same data, unless they were written to.
    let mut made: Vec<Bound<PyAny>> = Vec::with_capacity(outputs.len());
    for o in &outputs {
        let Ok(t) = o.cast::<PyTensor>() else {
            made.push(o.clone());
            continue;
        };
        let is_input = args.iter().any(|a| a.is(o));
        if is_input && !is_among(o, &dirty) && !is_among(o, &constant) {
            let input = t.get().tensor(py);
            let y = input.alias();
            inplace::set_view(&y, &input);
            inplace::mark_custom(&y);
            made.push(wrap(py, y)?.into_any());
        } else {
            if !is_input && let Some(base) = t.get().tensor(py).base() {
                // A view of something made inside `forward` may be treated as any other.
                let of_input = |i: &Tensor| i.same(&base) || i.base().is_some_and(|b| b.same(&base));
                if inputs.iter().flatten().any(of_input) {
                    inplace::mark_custom(&t.get().tensor(py));
                }
            }
            made.push(o.clone());
        }
    }
    for d in &dirty {
        if !is_among(d, &outputs) {
            return Err(PyRuntimeError::new_err(
                "Some elements marked as dirty during the forward method were not returned as output. The inputs that are modified inplace must all be outputs of the Function.",
            ));
        }
        let Some(t) = get(d) else { continue };
        if t.requires_grad() && t.is_leaf() && recording {
            return Err(PyRuntimeError::new_err(
                "a leaf Variable that requires grad has been used in an in-place operation.",
            ));
        }
        if recording && t.base().is_some() {
            inplace::check_recorded(&format!("{}.apply", class.getattr("__name__")?), &t).py(py)?;
            if made.iter().filter(|o| get(o).is_some()).count() > 1 {
                return Err(PyRuntimeError::new_err(
                    "If your Function modifies inplace an input that is a view of another Tensor, your Function cannot return more than one Tensor. You should either make sure the input is not a view (using .clone() for example) or make your Function only return one Tensor (potentially splitting it into two Functions: one doing the inplace that returns a single Tensor and a second one that does the other operations).",
                ));
            }
        }
        // Before anything is saved: what `forward` left there is what backward is going to see.
        t.storage().bump_version();
    }
    // Gradients leave through outputs in order; what is no differentiable tensor has a place but no history.
    let places: Vec<Tensor> = made.iter().filter_map(get).collect();
    let name = format!("{}Backward", class.getattr("__name__")?);
    // An argument that is no tensor has a place among the edges, but nothing flows from it.
    let none = Tensor::empty(&[0], pyrite_core::DType::Bool, pyrite_core::Device::Cpu).py(py)?;
    let sources: Vec<&Tensor> = inputs.iter().map(|t| t.as_ref().unwrap_or(&none)).collect();
    let targets: Vec<&Tensor> = places.iter().collect();
    let flow = forward::begin(&sources, &targets);
    let mut saved: Vec<Option<Saved>> = Vec::new();
    let mut originals: Vec<Weak<Meta>> = Vec::new();
    for (at, s) in items(ctx, "_to_save")?.into_iter().enumerate() {
        if s.is_none() {
            saved.push(None);
            originals.push(Weak::new());
            continue;
        }
        let Some(t) = get(&s) else {
            return Err(PyTypeError::new_err(format!(
                "save_for_backward can only save variables, but argument {at} is of type {}",
                s.get_type().name()?
            )));
        };
        let nr = outputs.iter().zip(&made).filter(|(o, _)| get(o).is_some()).position(|(o, _)| o.is(&s));
        let is_dirty_input = is_among(&s, &dirty);
        let mut original = Weak::new();
        saved.push(Some(match nr {
            Some(nr)
                if t.dtype().is_differentiable() && (is_dirty_input || !args.iter().any(|a| a.is(&s))) =>
            {
                Saved::output(&t, nr as u32)
            }
            _ => {
                original = Arc::downgrade(t.meta_or_new());
                if let Ok(o) = s.cast::<PyTensor>() {
                    tensor::link(o);
                }
                Saved::input(&t)
            }
        }));
        originals.push(original);
    }
    let holder = Py::new(
        py,
        SavedTensors {
            node: OnceLock::new(),
            keep: AtomicBool::new(true),
            list: Mutex::new(Some(saved.into())),
            originals,
        },
    )?;
    ctx.setattr("_saved", holder.clone_ref(py))?;
    ctx.setattr("_to_save", py.None())?;
    let materialize = ctx.getattr("_materialize_grads")?.is_truthy()?;
    let rule = PyRule {
        class: class.clone().unbind(),
        ctx: ctx.clone().unbind(),
        saved: holder.clone_ref(py),
        inputs: args.len(),
        tensors: inputs.iter().map(Option::is_some).collect(),
        slots: made.iter().map(|o| get(o).is_some()).collect(),
        materialize,
        never: if ctx.getattr("_materialize_non_diff_grads")?.is_truthy()? {
            Vec::new()
        } else {
            let tensors = made.iter().filter(|o| get(o).is_some()).enumerate();
            tensors.filter(|(_, o)| is_among(o, &constant)).map(|(i, _)| i).collect()
        },
    };
    let edges: SmallVec<_> =
        inputs.iter().zip(&needs).map(|(t, n)| t.as_ref().filter(|_| *n).and_then(Tensor::edge)).collect();
    let recorded = recording && edges.iter().any(Option::is_some);
    let node = node::make(name, edges, places.iter().map(node::info).collect(), rule);
    let _ = holder.get().node.set(Arc::downgrade(&node));
    if let Some(flow) = &flow {
        let skip: Vec<bool> =
            made.iter().filter(|o| get(o).is_some()).map(|o| is_among(o, &constant)).collect();
        let given = Given { class, ctx, inputs: &inputs, skip: &skip, materialize };
        crate::function_jvp::tangents(&given, flow, &node, &targets)?;
    }
    let mut nr = 0u32;
    for o in &made {
        let Ok(t) = o.cast::<PyTensor>() else { continue };
        let place = nr;
        nr += 1;
        if is_among(o, &constant) || !recorded {
            continue;
        }
        let t = t.get().tensor(py);
        if is_among(o, &dirty) && args.iter().any(|a| a.is(o)) {
            inplace::rebase_at(&t, node.clone(), place);
        } else {
            node::set_history_at(&node, &t, place);
        }
        tensor::link(o.cast::<PyTensor>()?);
    }
    if let Some(e) = mode::take_record_error() {
        return Err(crate::error::to_py(py, e));
    }
    if single { Ok(made.swap_remove(0)) } else { Ok(PyTuple::new(py, made)?.into_any()) }
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_class::<SavedTensors>()?;
    m.add_function(wrap_pyfunction!(_function_apply, m)?)?;
    Ok(())
}
