//! `saved_tensors_hooks`: two Python callables that keep saved tensors in their own way.

use crate::error::from_py;
use crate::site::attached;
use crate::tensor::{self, wrap};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyrite_core::Result;
use pyrite_tensor::Tensor;
use pyrite_tensor::autograd::mode;
use pyrite_tensor::autograd::saved::{PackHook, Packed};
use std::sync::Arc;

pub struct Hooks {
    pack: Py<PyAny>,
    unpack: Arc<Py<PyAny>>,
}

impl Hooks {
    pub fn new(pack: &Bound<PyAny>, unpack: &Bound<PyAny>) -> Hooks {
        Hooks { pack: pack.clone().unbind(), unpack: Arc::new(unpack.clone().unbind()) }
    }
}

struct Object {
    what: Py<PyAny>,
    unpack: Arc<Py<PyAny>>,
}

impl PackHook for Hooks {
    fn pack(&self, t: &Tensor) -> Result<Arc<dyn Packed>> {
        attached(|py| {
            let what = self.pack.bind(py).call1((wrap(py, t.clone())?,))?.unbind();
            Ok(Arc::new(Object { what, unpack: self.unpack.clone() }) as Arc<dyn Packed>)
        })
        .map_err(from_py)
    }
}

impl Packed for Object {
    fn unpack(&self) -> Result<Tensor> {
        attached(|py| {
            let r = self.unpack.bind(py).call1((self.what.bind(py),))?;
            match tensor::get(&r) {
                // Without history: what belongs to it is added by the graph.
                Some(t) => Ok(t.detach()),
                None => Err(PyTypeError::new_err(format!(
                    "Output of saved tensor unpack_hook expected to be a Tensor but got result of type {}",
                    r.get_type().name()?
                ))),
            }
        })
        .map_err(from_py)
    }
}

/// Enters a block of `saved_tensors_hooks`.
#[pyfunction]
fn _push_saved_tensors_hooks(pack: Py<PyAny>, unpack: Py<PyAny>) {
    mode::push_pack_hook(Arc::new(Hooks { pack, unpack: Arc::new(unpack) }));
}

/// Leaves it.
#[pyfunction]
fn _pop_saved_tensors_hooks() {
    mode::pop_pack_hook();
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_push_saved_tensors_hooks, m)?)?;
    m.add_function(wrap_pyfunction!(_pop_saved_tensors_hooks, m)?)
}
