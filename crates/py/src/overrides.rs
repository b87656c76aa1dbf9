//! The `__torch_function__` protocol: classes that answer for the functions they are given to. Nothing
//! here runs unless such a class exists ([`active`] is one load); `vmap` is its first user.
//!
//! A mode is a callable of this thread that sees calls before anybody's `__torch_function__`: all calls,
//! or only those that draw random numbers.

use crate::args::Given;
use crate::tensor::{self, PyTensor};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};
use pyo3::{Borrowed, PyTypeInfo, ffi};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};

static ACTIVE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static DISABLED: Cell<bool> = const { Cell::new(false) };
    /// Callables, with "only random functions".
    static MODES: RefCell<Vec<(Py<PyAny>, bool)>> = const { RefCell::new(Vec::new()) };
}

/// May anybody want to answer for a function?
#[inline]
pub fn active() -> bool {
    ACTIVE.load(Ordering::Relaxed) != 0
}

/// PyTorch's marker for classes that want none of it.
static DISABLED_IMPL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The method of a class that answers, unless the class declines.
fn answer<'py>(class: &Bound<'py, PyType>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = class.py();
    if class.is(PyTensor::type_object(py)) {
        return Ok(None);
    }
    let Some(f) = class.getattr_opt(pyo3::intern!(py, "__torch_function__"))? else { return Ok(None) };
    let declined = DISABLED_IMPL.get(py).is_some_and(|d| f.is(d.bind(py)));
    Ok(if declined { None } else { Some(f) })
}

/// Cannot be of a class with `__torch_function__`, by a glance at its type.
#[inline]
fn is_plain(o: &Bound<PyAny>) -> bool {
    // SAFETY: reading the type of a live object.
    let class = unsafe { ffi::Py_TYPE(o.as_ptr()) };
    std::ptr::eq(class, PyTensor::type_object_raw(o.py()))
        || o.is_none()
        || o.is_exact_instance_of::<PyInt>()
        || o.is_exact_instance_of::<PyFloat>()
        || o.is_exact_instance_of::<PyBool>()
        || o.is_exact_instance_of::<PyString>()
}

type Answers<'py> = Vec<(Bound<'py, PyType>, Bound<'py, PyAny>)>;

/// Adds the class of `o` if it answers: subclasses before their bases, else in argument order.
fn collect<'py>(o: &Bound<'py, PyAny>, found: &mut Answers<'py>) -> PyResult<()> {
    if is_plain(o) {
        return Ok(());
    }
    if o.is_exact_instance_of::<PyTuple>() || o.is_exact_instance_of::<PyList>() {
        for x in o.try_iter()? {
            collect(&x?, found)?;
        }
        return Ok(());
    }
    let class = o.get_type();
    if found.iter().any(|(c, _)| c.is(&class)) {
        return Ok(());
    }
    let Some(f) = answer(&class)? else { return Ok(()) };
    let mut at = found.len();
    for (i, (c, _)) in found.iter().enumerate() {
        if class.is_subclass(c)? {
            at = i;
            break;
        }
    }
    found.insert(at, (class, f));
    Ok(())
}

/// Asks everybody who may answer for `func(*args, **kwargs)`; `None` if nobody is there.
pub fn ask<'py>(
    func: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
    random: bool,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = func.py();
    if DISABLED.with(|d| d.get()) {
        return Ok(None);
    }
    let mut found = Answers::new();
    for o in args.iter() {
        collect(&o, &mut found)?;
    }
    if let Some(k) = kwargs {
        for (_, o) in k.iter() {
            collect(&o, &mut found)?;
        }
    }
    let types = || PyTuple::new(py, found.iter().map(|f| f.0.clone()));
    let kwargs = || kwargs.cloned().unwrap_or_else(|| PyDict::new(py));
    let mode = MODES.with(|m| {
        let mut m = m.borrow_mut();
        match m.last() {
            Some((_, only_random)) if random || !only_random => m.pop(),
            _ => None,
        }
    });
    if let Some((f, only_random)) = mode {
        let r = f.bind(py).call1((func, types()?, args, kwargs()));
        MODES.with(|m| m.borrow_mut().push((f, only_random)));
        let r = r?;
        if !r.is(py.NotImplemented()) {
            return Ok(Some(r));
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let types = types()?;
    for (_, f) in &found {
        let r = f.call1((func, &types, args, kwargs()))?;
        if !r.is(py.NotImplemented()) {
            return Ok(Some(r));
        }
    }
    Err(PyTypeError::new_err(format!(
        "no implementation found for '{}' on types that implement __torch_function__: {}",
        func.getattr("__name__").map_or_else(|_| "?".into(), |n| n.to_string()),
        types.repr()?
    )))
}

/// [`ask`] for a registry call.
#[cold]
pub fn intercept(
    func: impl FnOnce() -> Option<Py<PyAny>>,
    given: &Given,
    random: bool,
) -> PyResult<Option<*mut ffi::PyObject>> {
    let py = given.py;
    if DISABLED.with(|d| d.get()) {
        return Ok(None);
    }
    let watched = MODES.with(|m| m.borrow().last().is_some_and(|(_, only)| random || !only));
    let mut found = Answers::new();
    if !watched {
        for i in 0..given.positional() {
            collect(&given.at(i), &mut found)?;
        }
        for i in 0..given.keywords() {
            collect(&given.obj(given.nargs + i), &mut found)?;
        }
        if found.is_empty() {
            return Ok(None);
        }
    }
    let Some(func) = func() else { return Ok(None) };
    let args = PyTuple::new(py, (0..given.positional()).map(|i| given.at(i).to_owned()))?;
    let kwargs = PyDict::new(py);
    for i in 0..given.keywords() {
        if let Some(k) = given.key(i) {
            kwargs.set_item(k, given.obj(given.nargs + i))?;
        }
    }
    Ok(ask(func.bind(py), &args, Some(&kwargs), random)?.map(Bound::into_ptr))
}

/// [`ask`] for a method of Tensor that is written by hand (operators, indexing).
#[cold]
pub fn method<'py>(name: &str, args: &[&Bound<'py, PyAny>]) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(first) = args.first() else { return Ok(None) };
    let py = first.py();
    if DISABLED.with(|d| d.get()) {
        return Ok(None);
    }
    let watched = MODES.with(|m| m.borrow().last().is_some_and(|(_, only)| !only));
    let mut found = Answers::new();
    for a in args {
        collect(a, &mut found)?;
    }
    if found.is_empty() && !watched {
        return Ok(None);
    }
    let func = py.get_type::<PyTensor>().getattr(name)?;
    ask(&func, &PyTuple::new(py, args.iter().map(|a| (*a).clone()))?, None, false)
}

/// `Tensor.__torch_function__`.
pub fn default<'py>(
    cls: &Bound<'py, PyType>,
    func: &Bound<'py, PyAny>,
    types: &Bound<'py, PyAny>,
    args: Option<&Bound<'py, PyTuple>>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = cls.py();
    for t in types.try_iter()? {
        // Classes side by side must agree on somebody else.
        if !cls.is_subclass(&t?)? {
            return Ok(py.NotImplemented().into_bound(py));
        }
    }
    let none = PyTuple::empty(py);
    let before = DISABLED.with(|d| d.replace(true));
    let r = func.call(args.unwrap_or(&none), kwargs);
    DISABLED.with(|d| d.set(before));
    let r = r?;
    // What is another tensor's keeps its class: PyTorch's list of functions whose results are not converted.
    let name = pyo3::intern!(py, "__name__");
    if func.getattr(name).is_ok_and(|n| n.eq("__get__").unwrap_or(false))
        && let Ok(of) = func.getattr("__self__").and_then(|s| s.getattr(name))
        && (of.eq("grad")? || of.eq("_base")?)
    {
        return Ok(r);
    }
    convert(cls, r)
}

/// Tensors in a result as tensors of the class.
fn convert<'py>(cls: &Bound<'py, PyType>, r: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = cls.py();
    if cls.is(PyTensor::type_object(py)) || r.is_instance(cls)? {
        return Ok(r);
    }
    if r.is_instance_of::<PyTensor>() {
        return r.call_method1("as_subclass", (cls,));
    }
    if r.is_exact_instance_of::<PyTuple>() || r.is_exact_instance_of::<PyList>() {
        let items = r.try_iter()?.map(|x| convert(cls, x?)).collect::<PyResult<Vec<_>>>()?;
        return r.get_type().call1((PyList::new(py, items)?,));
    }
    if r.is_instance_of::<PyTuple>() && r.hasattr("_fields")? {
        let items = r.try_iter()?.map(|x| convert(cls, x?)).collect::<PyResult<Vec<_>>>()?;
        return r.get_type().call1(PyTuple::new(py, items)?);
    }
    Ok(r)
}

/// A tensor of a class that stands for more than its data (a batch): reading its elements here is an error.
pub fn refuse(what: &str, o: Borrowed<PyAny>) -> PyResult<()> {
    if active() && o.hasattr(pyo3::intern!(o.py(), "_batched_value"))? {
        return Err(PyRuntimeError::new_err(format!(
            "vmap: {what} needs the values of a tensor that vmap maps over, which are not known one by one; use operations of the library instead"
        )));
    }
    Ok(())
}

// ---- for Python ------------------------------------------------------------------------------------

/// Called for every new subclass of Tensor: one that answers for functions is looked for from now on.
pub fn subclassed(class: &Bound<PyType>) -> PyResult<()> {
    // Batched tensors are counted one by one.
    let counted = class.hasattr(pyo3::intern!(class.py(), "_counted"))?;
    if !counted && answer(class)?.is_some() {
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        class.py().import("pyrite._routed")?.call_method1("equip", (class,))?;
    }
    Ok(())
}

/// An attribute or method of a tensor whose class may answer, or under a mode: asks about `func`, then calls `original`.
#[pyfunction]
#[pyo3(signature = (obj, func, original, *args, **kwargs))]
fn _routed<'py>(
    obj: &Bound<'py, PyAny>,
    func: &Bound<'py, PyAny>,
    original: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    // A batched tensor answers for operators only.
    let batched = obj.get_type().hasattr(pyo3::intern!(obj.py(), "_counted"))?;
    if !batched && let Some(r) = ask(func, args, kwargs, false)? {
        return Ok(r);
    }
    original.call(args, kwargs)
}

/// As [`_routed`] for a function written in Python.
#[pyfunction]
#[pyo3(signature = (func, *args, **kwargs))]
fn _routed_function<'py>(
    func: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    if active() && !DISABLED.with(|d| d.get()) {
        let counted = pyo3::intern!(func.py(), "_counted");
        let mut found = Answers::new();
        for o in args.iter() {
            collect(&o, &mut found)?;
        }
        for (_, o) in kwargs.into_iter().flat_map(|k| k.iter()) {
            collect(&o, &mut found)?;
        }
        let mut batched = false;
        for (class, _) in &found {
            batched |= class.hasattr(counted)?;
        }
        if !batched && let Some(r) = ask(func, args, kwargs, false)? {
            return Ok(r);
        }
    }
    func.call(args, kwargs)
}

/// Switches `__torch_function__` off or on in this thread; returns what it was.
#[pyfunction]
fn _overrides_disabled(off: bool) -> bool {
    DISABLED.with(|d| d.replace(off))
}

#[pyfunction]
fn _push_mode(f: Py<PyAny>, only_random: bool) {
    ACTIVE.fetch_add(1, Ordering::Relaxed);
    MODES.with(|m| m.borrow_mut().push((f, only_random)));
}

#[pyfunction]
fn _pop_mode() {
    if MODES.with(|m| m.borrow_mut().pop()).is_some() {
        ACTIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A class that assigns this to `__torch_function__` is treated as Tensor itself.
#[pyfunction]
#[pyo3(signature = (*args, **kwargs))]
fn _disabled_torch_function_impl(
    py: Python,
    args: &Bound<PyTuple>,
    kwargs: Option<&Bound<PyDict>>,
) -> Py<PyAny> {
    let _ = (args, kwargs);
    py.NotImplemented()
}

/// Lives as long as a batched tensor: while one exists, calls are looked at.
#[pyclass(frozen, name = "_Guard", module = "pyrite._C")]
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One sample of a batch: what its shape, dtype and device are asked of.
fn face(py: Python, value: &Bound<PyAny>) -> PyResult<pyrite_tensor::Tensor> {
    use crate::error::IntoPy;
    let t = tensor::expect("vmap", "value", value)?;
    Ok(match t.shape() {
        [] => return Err(PyRuntimeError::new_err("vmap: a tensor without dimensions has no batch")),
        [0, rest @ ..] => pyrite_tensor::Tensor::zeros(rest, t.dtype(), t.device()).py(py)?,
        _ => pyrite_tensor::ops::view::with_layout(&t, t.layout().select(0, 0).py(py)?),
    })
}

/// Gives a batched tensor another value.
#[pyfunction]
fn _rebatch(obj: &Bound<PyTensor>, value: &Bound<PyAny>) -> PyResult<()> {
    let py = obj.py();
    tensor::swap(obj, face(py, value)?);
    obj.setattr(pyo3::intern!(py, "_batched_value"), value)
}

/// An object of `class` that shows one sample of `value` (a tensor whose first dimension is a batch) and
/// holds all of it as `_batched_value`.
#[pyfunction]
fn _make_batched<'py>(
    class: &Bound<'py, PyType>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyTensor>> {
    let py = class.py();
    let obj = tensor::make_subclass(class, face(py, value)?)?;
    obj.setattr(pyo3::intern!(py, "_batched_value"), value)?;
    let guard = Bound::new(py, Guard)?;
    ACTIVE.fetch_add(1, Ordering::Relaxed);
    obj.setattr(pyo3::intern!(py, "_guard"), guard)?;
    Ok(obj)
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_overrides_disabled, m)?)?;
    m.add_function(wrap_pyfunction!(_routed, m)?)?;
    m.add_function(wrap_pyfunction!(_routed_function, m)?)?;
    m.add_function(wrap_pyfunction!(_push_mode, m)?)?;
    m.add_function(wrap_pyfunction!(_pop_mode, m)?)?;
    m.add_function(wrap_pyfunction!(_disabled_torch_function_impl, m)?)?;
    m.add_function(wrap_pyfunction!(_make_batched, m)?)?;
    m.add_function(wrap_pyfunction!(_rebatch, m)?)?;
    let f = m.getattr("_disabled_torch_function_impl")?;
    let _ = DISABLED_IMPL.set(m.py(), f.unbind());
    Ok(())
}
