//! Core errors as Python exceptions. Where PyTorch's class and the natural Python class differ, the
//! exception derives from both, so that ported `except` clauses work.

use pyo3::exceptions as ex;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyrite_core::Error;
use pyrite_core::error::Kind;

static SHAPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static OOM: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static LINALG: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static TOO_LARGE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Creates the exception classes and puts them into the module.
pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    let py = m.py();
    let make =
        |cell: &PyOnceLock<Py<PyType>>, name: &str, doc: &str, bases: Bound<PyTuple>| -> PyResult<()> {
            let body = PyDict::new(py);
            body.set_item("__doc__", doc)?;
            body.set_item("__module__", "pyrite")?;
            let class = py.get_type::<PyType>().call1((name, bases, body))?.cast_into::<PyType>()?;
            m.add(name, &class)?;
            let _ = cell.set(py, class.unbind());
            Ok(())
        };
    let runtime = py.get_type::<ex::PyRuntimeError>();
    make(
        &SHAPE,
        "ShapeError",
        "Shapes that do not fit together. Caught as RuntimeError (PyTorch's class) and as ValueError.",
        PyTuple::new(py, [&runtime, &py.get_type::<ex::PyValueError>()])?,
    )?;
    make(
        &OOM,
        "OutOfMemoryError",
        "A device has no memory left. Caught as RuntimeError (PyTorch's class) and as MemoryError.",
        PyTuple::new(py, [&runtime, &py.get_type::<ex::PyMemoryError>()])?,
    )?;
    make(
        &TOO_LARGE,
        "IntegerOverflowError",
        "A Python int that does not fit into 64 bits. Caught as OverflowError, and as PyTorch's classes ValueError (for a number) and TypeError (for a size).",
        PyTuple::new(
            py,
            [
                &py.get_type::<ex::PyOverflowError>(),
                &py.get_type::<ex::PyValueError>(),
                &py.get_type::<ex::PyTypeError>(),
            ],
        )?,
    )?;
    make(
        &LINALG,
        "LinAlgError",
        "A matrix without the property an algorithm needs (singular, not positive definite).",
        PyTuple::new(py, [&runtime])?,
    )
}

fn of(py: Python, cell: &PyOnceLock<Py<PyType>>, msg: String) -> PyErr {
    match cell.get(py) {
        Some(class) => PyErr::from_type(class.bind(py).clone(), msg),
        None => ex::PyRuntimeError::new_err(msg),
    }
}

/// An int that does not fit into 64 bits.
#[cold]
pub fn too_large(py: Python) -> PyErr {
    of(py, &TOO_LARGE, "Overflow when unpacking long: the number does not fit into 64 bits".into())
}

/// The exception for a core error. A carried Python exception comes back as it was.
#[cold]
pub fn to_py(py: Python, e: Error) -> PyErr {
    let notes = e.notes().to_vec();
    let err = exception(py, e);
    for n in notes {
        // `add_note` of an exception class that forbids it is no reason to lose the exception.
        let _ = err.value(py).call_method1("add_note", (n,));
    }
    err
}

fn exception(py: Python, e: Error) -> PyErr {
    let kind = e.kind();
    if kind == Kind::Foreign {
        let msg = e.message().to_owned();
        return match e.into_foreign().map(|b| b.downcast::<PyErr>()) {
            Some(Ok(err)) => *err,
            _ => ex::PyRuntimeError::new_err(msg),
        };
    }
    let msg = e.message().to_owned();
    match kind {
        Kind::Shape => of(py, &SHAPE, msg),
        Kind::OutOfMemory => of(py, &OOM, msg),
        Kind::LinAlg => of(py, &LINALG, msg),
        Kind::Index => ex::PyIndexError::new_err(msg),
        Kind::Type => ex::PyTypeError::new_err(msg),
        Kind::Value => ex::PyValueError::new_err(msg),
        Kind::NotImplemented => ex::PyNotImplementedError::new_err(msg),
        // The signal handler's exception is already pending if one was raised.
        Kind::Interrupted => PyErr::take(py).unwrap_or_else(|| ex::PyKeyboardInterrupt::new_err(())),
        Kind::Runtime | Kind::Foreign => ex::PyRuntimeError::new_err(msg),
    }
}

/// A Python exception on its way through the core.
#[cold]
pub fn from_py(e: PyErr) -> Error {
    Error::foreign(Box::new(e))
}

/// `result.py(py)?` turns a core result into a Python one.
pub trait IntoPy<T> {
    fn py(self, py: Python) -> PyResult<T>;
}

impl<T> IntoPy<T> for pyrite_core::Result<T> {
    #[inline]
    fn py(self, py: Python) -> PyResult<T> {
        self.map_err(|e| to_py(py, e))
    }
}
