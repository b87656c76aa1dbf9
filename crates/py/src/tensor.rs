//! The Python class `Tensor`: a handle on a core tensor, and which Python object stands for which
//! tensor. Methods come from the registry (`bind.rs`) and from `attrs.rs`, `operators.rs`, ...

use crate::hooks;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{Borrowed, ffi};
use pyrite_tensor::Tensor;
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A handle that is read and replaced only by whoever holds the GIL.
struct Slot(UnsafeCell<Tensor>);

// SAFETY: every access goes through `PyTensor::tensor` and `PyTensor::replace`, which ask for a
// `Python` token, the proof that this thread holds the GIL (the module declares `gil_used`); and no
// reference into the cell outlives those two functions.
unsafe impl Sync for Slot {}

/// An n-dimensional array with automatic differentiation.
#[pyclass(subclass, frozen, dict, weakref, name = "Tensor", module = "pyrite")]
pub struct PyTensor {
    slot: Slot,
    /// This object's own address once it is registered in its tensor's `Meta::py`.
    me: AtomicPtr<c_void>,
}

impl PyTensor {
    pub fn new(t: Tensor) -> PyTensor {
        PyTensor { slot: Slot(UnsafeCell::new(t)), me: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// A handle on the tensor. It is a clone (an atomic increment), not a reference: Python code that
    /// runs later may replace the handle in the slot.
    #[inline]
    pub fn tensor(&self, _py: Python) -> Tensor {
        // SAFETY: the GIL is held, so nobody replaces the value while it is cloned; `clone` runs no
        // Python code.
        unsafe { (*self.slot.0.get()).clone() }
    }

    /// The handle, or None while the object is being made. `object.__new__` allocates the instance's
    /// dict when the object is already tracked but not yet filled in (its memory is zero), and that
    /// allocation may run the garbage collector, which then visits it.
    ///
    /// # Safety
    /// The GIL is held, and the reference is used before any Python code can run.
    unsafe fn filled(&self) -> Option<&Tensor> {
        const { assert!(size_of::<Slot>() == size_of::<usize>()) };
        let slot = self.slot.0.get();
        // SAFETY: the slot is as large and as aligned as a pointer, and its bytes are initialised: with
        // zeros by the allocation of the object, later with the handle, which is never null.
        let empty = unsafe { slot.cast::<usize>().read() } == 0;
        // SAFETY: not empty, so it holds a handle; by the contract nobody replaces it meanwhile.
        if empty { None } else { Some(unsafe { &*slot }) }
    }

    /// Makes this object stand for another tensor; the old handle is returned to be dropped later.
    pub fn replace(&self, _py: Python, t: Tensor) -> Tensor {
        // SAFETY: the GIL is held; the swap runs no other code.
        unsafe { std::mem::replace(&mut *self.slot.0.get(), t) }
    }
}

impl Drop for PyTensor {
    fn drop(&mut self) {
        let me = *self.me.get_mut();
        if !me.is_null()
            && let Some(meta) = self.slot.0.get_mut().meta()
        {
            // Only if we still are the registered object.
            let _ = meta.py.compare_exchange(me, std::ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

/// Registers `obj` as the object of its tensor, if the tensor has an identity and no object yet.
#[inline]
pub fn link(obj: &Bound<PyTensor>) {
    let this = obj.get();
    if !this.me.load(Ordering::Relaxed).is_null() {
        return;
    }
    let t = this.tensor(obj.py());
    if let Some(meta) = t.meta()
        && live_object(obj.py(), meta.py.load(Ordering::Acquire)).is_none()
    {
        let p = obj.as_ptr() as *mut c_void;
        meta.py.store(p, Ordering::Release);
        this.me.store(p, Ordering::Relaxed);
    }
}

/// Replaces the tensor behind `obj` and makes `obj` the object of the new one.
pub fn swap(obj: &Bound<PyTensor>, t: Tensor) {
    let this = obj.get();
    let me = this.me.swap(std::ptr::null_mut(), Ordering::Relaxed);
    let old = this.replace(obj.py(), t);
    if let (Some(meta), false) = (old.meta(), me.is_null()) {
        let _ = meta.py.compare_exchange(me, std::ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed);
    }
    link(obj);
}

/// The registered object, unless it is being destroyed.
fn live_object(py: Python<'_>, p: *mut c_void) -> Option<Bound<'_, PyTensor>> {
    if p.is_null() {
        return None;
    }
    let p = p as *mut ffi::PyObject;
    // SAFETY: a registered pointer is cleared under the GIL when its object's contents are dropped, so
    // the memory is an object; an object on its way out has no references left and is not revived.
    unsafe {
        if ffi::Py_REFCNT(p) <= 0 {
            return None;
        }
        Some(Bound::from_borrowed_ptr(py, p).cast_into_unchecked())
    }
}

/// The object registered for a tensor's identity, if there is one.
pub fn object_of<'py>(py: Python<'py>, meta: &pyrite_tensor::autograd::Meta) -> Option<Bound<'py, PyTensor>> {
    live_object(py, meta.py.load(Ordering::Acquire))
}

/// The Python object of a tensor: the one it has, or a new plain `Tensor`.
#[inline]
pub fn wrap(py: Python<'_>, t: Tensor) -> PyResult<Bound<'_, PyTensor>> {
    let linked = match t.meta() {
        None => false,
        Some(meta) => {
            if let Some(obj) = live_object(py, meta.py.load(Ordering::Acquire)) {
                return Ok(obj);
            }
            true
        }
    };
    let obj = create(py, t)?;
    if linked {
        link(&obj);
    }
    Ok(obj)
}

/// Where a `PyTensor` lies inside its Python object; 0 until it is known that [`create`] may use it.
static OFFSET: AtomicUsize = AtomicUsize::new(0);

/// Finds out whether objects can be made without `object.__new__`, which creates an instance
/// dictionary for each on Python 3.11 and 3.12: half of what a small operation costs.
pub fn prepare(py: Python, probe: Tensor) -> PyResult<()> {
    let obj = Bound::new(py, PyTensor::new(probe))?;
    let at = obj.get() as *const PyTensor as usize - obj.as_ptr() as usize;
    let size: usize = py.get_type::<PyTensor>().getattr("__basicsize__")?.extract()?;
    // The value, then the slots of `dict` and `weakref`, and nothing else that would need a value.
    if size == at + size_of::<PyTensor>() + 2 * size_of::<usize>() {
        OFFSET.store(at, Ordering::Relaxed);
    }
    Ok(())
}

/// A new object of class `Tensor`.
#[inline]
fn create(py: Python<'_>, t: Tensor) -> PyResult<Bound<'_, PyTensor>> {
    let at = OFFSET.load(Ordering::Relaxed);
    if at == 0 {
        return Bound::new(py, PyTensor::new(t));
    }
    let class = <PyTensor as pyo3::PyTypeInfo>::type_object_raw(py);
    // SAFETY: the generic allocation gives zeroed memory of the class's size, in which the empty slots
    // for the dictionary and the weak references are zero (pyo3 relies on the same when it reads them
    // after `tp_alloc`); `prepare` checked that besides these there is only the value, written here
    // before anybody sees the object. The class is a heap type made by pyo3, whose deallocation drops
    // the value and clears both slots.
    unsafe {
        let p = ffi::PyType_GenericAlloc(class, 0);
        if p.is_null() {
            return Err(PyErr::fetch(py));
        }
        (p as *mut u8).add(at).cast::<PyTensor>().write(PyTensor::new(t));
        Ok(Bound::from_owned_ptr(py, p).cast_into_unchecked())
    }
}

/// As [`wrap`], for tensors whose object must stay the same from call to call (`x.grad`).
pub fn wrap_lasting(py: Python<'_>, t: Tensor) -> PyResult<Bound<'_, PyTensor>> {
    t.meta_or_new();
    wrap(py, t)
}

pub fn wrap_all<'py>(py: Python<'py>, list: Vec<Tensor>) -> PyResult<Bound<'py, PyTuple>> {
    let objs = list.into_iter().map(|t| wrap(py, t)).collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(py, objs)
}

/// The tensor in an object of type Tensor or a subclass.
#[inline]
pub fn get(obj: &Bound<PyAny>) -> Option<Tensor> {
    obj.cast::<PyTensor>().ok().map(|t| t.get().tensor(obj.py()))
}

/// As [`get`], for borrowed references.
#[inline]
pub fn get_borrowed(obj: Borrowed<PyAny>) -> Option<Tensor> {
    obj.cast::<PyTensor>().ok().map(|t| t.get().tensor(obj.py()))
}

/// The tensor in an argument, or the TypeError PyTorch raises.
pub fn expect(op: &str, name: &str, obj: &Bound<PyAny>) -> PyResult<Tensor> {
    match get(obj) {
        Some(t) => Ok(t),
        None => Err(PyTypeError::new_err(format!(
            "{op}(): argument '{name}' must be Tensor, not {}",
            obj.get_type().name()?
        ))),
    }
}

thread_local! {
    /// Hands a finished tensor through `Tensor.__new__` when a subclass instance is made.
    static HANDOVER: std::cell::RefCell<Option<Tensor>> = const { std::cell::RefCell::new(None) };
}

/// An instance of `class` (Tensor or a subclass) for `t`, without calling its `__init__`.
pub fn make_subclass<'py>(class: &Bound<'py, PyType>, t: Tensor) -> PyResult<Bound<'py, PyTensor>> {
    let py = class.py();
    static NEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let new = NEW.get_or_try_init(py, || py.get_type::<PyTensor>().getattr("__new__").map(Bound::unbind))?;
    HANDOVER.with(|h| h.replace(Some(t)));
    let made = new.bind(py).call1((class,));
    HANDOVER.with(|h| h.take());
    let obj = made?.cast_into::<PyTensor>()?;
    link(&obj);
    Ok(obj)
}

#[pymethods]
impl PyTensor {
    #[new]
    #[classmethod]
    #[pyo3(signature = (*args, **kwargs))]
    fn __new__(
        cls: &Bound<PyType>,
        args: &Bound<PyTuple>,
        kwargs: Option<&Bound<PyDict>>,
    ) -> PyResult<PyTensor> {
        if let Some(t) = HANDOVER.with(|h| h.take()) {
            return Ok(PyTensor::new(t));
        }
        crate::legacy::legacy_new(cls.py(), "Tensor", pyrite_core::DType::default_float(), args, kwargs)
            .map(PyTensor::new)
    }

    /// What subclasses inherit: the function runs as on plain tensors, and its results are of the subclass.
    #[classmethod]
    #[pyo3(signature = (func, types, args=None, kwargs=None))]
    fn __torch_function__<'py>(
        cls: &Bound<'py, PyType>,
        func: &Bound<'py, PyAny>,
        types: &Bound<'py, PyAny>,
        args: Option<&Bound<'py, PyTuple>>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        crate::overrides::default(cls, func, types, args, kwargs)
    }

    #[classmethod]
    #[pyo3(signature = (**kwargs))]
    fn __init_subclass__(cls: &Bound<PyType>, kwargs: Option<&Bound<PyDict>>) -> PyResult<()> {
        if let Some((k, _)) = kwargs.and_then(|k| k.iter().next()) {
            return Err(PyTypeError::new_err(format!(
                "{}.__init_subclass__() takes no keyword arguments (got {k})",
                cls.name()?
            )));
        }
        crate::overrides::subclassed(cls)
    }

    /// An instance of a subclass over `data`'s memory.
    #[staticmethod]
    #[pyo3(signature = (cls, data, require_grad=false))]
    fn _make_subclass<'py>(
        cls: &Bound<'py, PyType>,
        data: &Bound<'py, PyAny>,
        require_grad: bool,
    ) -> PyResult<Bound<'py, PyTensor>> {
        use crate::error::IntoPy;
        let py = cls.py();
        if !cls.is_subclass_of::<PyTensor>()? {
            return Err(PyTypeError::new_err("_make_subclass(): cls must be a subclass of Tensor"));
        }
        let t = expect("_make_subclass", "data", data)?.alias();
        // Checked before the object exists.
        if require_grad {
            t.set_requires_grad(true).py(py)?;
        } else {
            t.meta_or_new();
        }
        make_subclass(cls, t)
    }

    /// This tensor as an instance of a subclass, over the same memory and history.
    fn as_subclass<'py>(slf: &Bound<'py, Self>, cls: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyTensor>> {
        if !cls.is_subclass_of::<PyTensor>()? {
            return Err(PyTypeError::new_err("as_subclass(): cls must be a subclass of Tensor"));
        }
        make_subclass(cls, pyrite_tensor::ops::alias_view(&slf.get().tensor(slf.py())))
    }

    /// Hooks on a leaf are Python objects that may refer back to the leaf.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: the garbage collector runs with the GIL held, and nothing is cloned or dropped here.
        match unsafe { self.filled() } {
            Some(t) => hooks::traverse(t, &visit),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        // SAFETY: called by the garbage collector with the GIL held; the clone keeps the tensor alive
        // while hooks are dropped.
        let t = unsafe { self.filled() }.cloned();
        if let Some(t) = t {
            hooks::clear(&t);
        }
    }
}

/// An error for methods that need a method to exist on this tensor's device.
pub fn runtime<T>(msg: impl Into<String>) -> PyResult<T> {
    Err(PyRuntimeError::new_err(msg.into()))
}
