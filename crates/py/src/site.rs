//! Where the Python program is, cheaply enough to note it for every recorded operation: the code
//! object of the calling frame and the position in it. Lines are looked up only when an error names
//! them.
//!
//! `PyFrame_GetLasti` is public C API but outside the limited API this module is built for, so it is
//! looked up by name at import; without it positions stay unknown.

use crate::error::from_py;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyrite_core::Site;
use pyrite_core::site::{Sites, provide};
use pyrite_tensor::autograd::{Node, anomaly};
use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

type Object = *mut ffi::PyObject;

/// The C functions used; all of them exist in CPython 3.11 and later.
struct Api {
    frame: unsafe extern "C" fn() -> Object,
    code: unsafe extern "C" fn(Object) -> Object,
    lasti: unsafe extern "C" fn(Object) -> c_int,
    back: unsafe extern "C" fn(Object) -> Object,
}

static API: OnceLock<Option<Api>> = OnceLock::new();

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a null handle is `RTLD_DEFAULT` on Linux and `dlsym` may be called with it at any time.
    let p = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
    (!p.is_null()).then_some(p)
}

fn load() -> Option<Api> {
    // SAFETY: each symbol is the C function of that name with the signature CPython documents.
    unsafe {
        Some(Api {
            frame: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> Object>(symbol(
                c"PyEval_GetFrame",
            )?),
            code: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Object) -> Object>(symbol(
                c"PyFrame_GetCode",
            )?),
            lasti: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Object) -> c_int>(symbol(
                c"PyFrame_GetLasti",
            )?),
            back: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Object) -> Object>(symbol(
                c"PyFrame_GetBack",
            )?),
        })
    }
}

thread_local! {
    /// While this thread runs the core without the GIL: the place it came from.
    static AWAY: Cell<Option<Site>> = const { Cell::new(None) };
}

/// Sets what [`here`] says while it lives.
pub struct Away(Option<Site>);

impl Away {
    /// Call with the GIL held, before it is released.
    pub fn leave(recording: bool) -> Away {
        let site = if recording { here() } else { Site::default() };
        Away(AWAY.replace(Some(site)))
    }
    /// Python code is going to run: its frames count again.
    pub fn back() -> Away {
        Away(AWAY.replace(None))
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        AWAY.set(self.0);
    }
}

/// Runs `f` with the GIL, from inside the core.
pub fn attached<T>(f: impl FnOnce(Python) -> T) -> T {
    Python::attach(|py| {
        let _back = Away::back();
        f(py)
    })
}

/// The place of the innermost frame that is not the library's own.
fn here() -> Site {
    if let Some(site) = AWAY.get() {
        return site;
    }
    let Some(Some(api)) = API.get() else { return Site::default() };
    // SAFETY: the GIL is held: operations are recorded in threads of Python, which let go of it in `enter` only (that
    // set AWAY), and in threads of our own, which called `nowhere`. `frame` lends a reference to the running frame, which outlives this
    // function; `back` gives new references, each released once its successor is known; `code` gives a
    // new reference, released at once (the frame holds another).
    unsafe {
        let mut frame = (api.frame)();
        let mut owned = false;
        let mut site = Site::default();
        for _ in 0..32 {
            if frame.is_null() {
                break;
            }
            let code = (api.code)(frame);
            ffi::Py_DECREF(code);
            let kind = known(code);
            if kind != Known::No {
                site = Site { code: code as usize, at: (api.lasti)(frame).max(0) as u32 };
            }
            if kind != Known::Library {
                break;
            }
            let outer = (api.back)(frame);
            if owned {
                ffi::Py_DECREF(frame);
            }
            frame = outer;
            owned = true;
        }
        if owned && !frame.is_null() {
            ffi::Py_DECREF(frame);
        }
        site
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Known {
    /// Of the program.
    User,
    /// Part of this package: the caller is the interesting place.
    Library,
    /// Too many code objects: no more are kept.
    No,
}

/// Code objects seen are kept alive for good, so that their address names them: a program has some
/// thousands. One that makes code without end stops being noted here.
const MOST: usize = 1 << 16;

static SEEN: Mutex<Option<HashMap<usize, bool>>> = Mutex::new(None);
/// The last code object per slot, with its kind in the lowest bit.
static CACHE: [AtomicUsize; 1024] = [const { AtomicUsize::new(0) }; 1024];

/// Must be called with the GIL held and a live code object.
#[inline]
fn known(code: Object) -> Known {
    let key = code as usize;
    let slot = &CACHE[(key >> 5) % CACHE.len()];
    let have = slot.load(Ordering::Relaxed);
    if have & !1 == key {
        return if have & 1 == 1 { Known::Library } else { Known::User };
    }
    look_up(code, slot)
}

#[cold]
fn look_up(code: Object, slot: &AtomicUsize) -> Known {
    let key = code as usize;
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = seen.get_or_insert_default();
    let library = match seen.get(&key) {
        Some(l) => *l,
        None => {
            if seen.len() >= MOST {
                return Known::No;
            }
            // SAFETY: the caller holds the GIL and the object is alive; the reference taken here is
            // kept for good.
            let object = unsafe {
                ffi::Py_INCREF(code);
                Bound::from_borrowed_ptr(Python::assume_attached(), code)
            };
            let library = object
                .getattr("co_filename")
                .and_then(|f| f.extract::<String>())
                .is_ok_and(|f| PACKAGE.get().is_some_and(|p| f.starts_with(p.as_str())));
            seen.insert(key, library);
            library
        }
    };
    slot.store(key | library as usize, Ordering::Relaxed);
    if library { Known::Library } else { Known::User }
}

/// The folder of the package, with a slash at the end.
static PACKAGE: OnceLock<String> = OnceLock::new();

/// See [`Sites`].
fn nowhere() {
    AWAY.set(Some(Site::default()));
}

/// `file.py:12 in train`.
fn describe(site: Site) -> Option<String> {
    attached(|py| {
        // SAFETY: the GIL is held, and code objects in sites are never freed.
        let code = unsafe { Bound::from_borrowed_ptr(py, site.code as Object) };
        let place = || -> PyResult<String> {
            let file: String = code.getattr("co_filename")?.extract()?;
            let name: String = code.getattr("co_qualname")?.extract()?;
            let mut line: Option<u32> = None;
            for l in code.call_method0("co_lines")?.try_iter()? {
                let (start, end, n): (u32, u32, Option<u32>) = l?.extract()?;
                if (start..end).contains(&site.at) {
                    line = n;
                }
            }
            Ok(match line {
                Some(l) => format!("{file}:{l} in {name}"),
                None => format!("{file} in {name}"),
            })
        };
        place().ok()
    })
}

// ---- anomaly mode ---------------------------------------------------------------------------------

/// The dict that is a node's `metadata`.
pub fn metadata<'py>(py: Python<'py>, node: &Node) -> Bound<'py, PyDict> {
    if let Some(x) = node.extra()
        && let Some(d) = x.downcast_ref::<Py<PyDict>>()
    {
        return d.bind(py).clone();
    }
    let d = PyDict::new(py);
    node.set_extra(Arc::new(d.clone().unbind()));
    d
}

/// A new node in anomaly mode: its traceback.
fn remember() -> Option<Arc<dyn Any + Send + Sync>> {
    attached(|py| {
        let make = || -> PyResult<Py<PyDict>> {
            let d = PyDict::new(py);
            d.set_item("traceback_", py.import("traceback")?.call_method0("format_stack")?)?;
            Ok(d.unbind())
        };
        make().ok().map(|d| Arc::new(d) as _)
    })
}

/// A node failed in anomaly mode: a warning with the traceback of its forward, as PyTorch's.
fn report(node: &Arc<Node>) {
    attached(|py| {
        let say = || -> PyResult<()> {
            let meta = metadata(py, node);
            let text = match meta.get_item("traceback_")? {
                Some(lines) => {
                    let all: Vec<String> = lines.extract()?;
                    format!(
                        "Error detected in {}. Traceback of forward call that caused the error:\n{}",
                        node.name,
                        all.concat()
                    )
                }
                None => format!(
                    "Error detected in {}. No forward pass information available. Enable detect anomaly during forward pass for more information.",
                    node.name
                ),
            };
            let category = py.get_type::<pyo3::exceptions::PyUserWarning>();
            py.import("warnings")?.call_method1(
                "warn",
                PyTuple::new(py, [text.into_pyobject(py)?.into_any(), category.into_any()])?,
            )?;
            Ok(())
        };
        if let Err(e) = say() {
            // A filter turned the warning into an exception: it must not replace the error itself.
            drop(from_py(e));
        }
    });
}

/// The folder of the package; until it is known, no frame is the library's.
#[pyfunction]
fn _set_package(folder: String) {
    let _ = PACKAGE.set(folder);
}

/// Where the caller is: `file.py:12 in train`.
#[pyfunction]
fn _where() -> Option<String> {
    here().describe()
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    let _ = API.set(load());
    provide(Sites { here, nowhere, describe });
    anomaly::provide(anomaly::Tools { remember, report });
    m.add_function(wrap_pyfunction!(_set_package, m)?)?;
    m.add_function(wrap_pyfunction!(_where, m)?)
}
