//! `Generator` and the module-level seeding functions.

use crate::error::IntoPy;
use crate::tensor::{self, PyTensor, wrap};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyrite_core::backend::Philox;
use pyrite_core::{DType, Device};
use pyrite_tensor::Tensor;
use pyrite_tensor::random::{DEFAULT_SEED, Generator, default_generator};
use std::sync::Arc;

/// A source of random numbers: a seed and a position in its stream.
#[pyclass(frozen, name = "Generator", module = "pyrite")]
pub struct PyGenerator(pub Arc<Generator>);

/// A seed: any int of 64 bits, signed or unsigned.
fn seed_value(seed: &Bound<PyAny>) -> PyResult<u64> {
    let wide: i128 = match seed.extract::<i128>() {
        Ok(v) => v,
        Err(_) => match crate::args::int(seed.as_borrowed())? {
            Some(v) => v as i128,
            None => {
                return Err(PyTypeError::new_err(format!(
                    "manual_seed expected a long, but got {}",
                    seed.get_type().name()?
                )));
            }
        },
    };
    if wide < i64::MIN as i128 || wide > u64::MAX as i128 {
        return Err(crate::error::too_large(seed.py()));
    }
    Ok(wide as u64)
}

/// A seed nobody can guess, from the operating system.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // `RandomState` is keyed by the operating system; the clock separates calls in one process.
    let mut h = std::collections::hash_map::RandomState::new().build_hasher();
    if let Ok(d) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        h.write_u128(d.as_nanos());
    }
    h.finish() >> 11
}

fn state_of(py: Python, g: &Generator) -> PyResult<Py<PyTensor>> {
    let s = g.state();
    let mut bytes = [0u8; 16];
    bytes[..8].copy_from_slice(&s.seed.to_le_bytes());
    bytes[8..].copy_from_slice(&s.offset.to_le_bytes());
    Ok(wrap(py, Tensor::from_slice(&bytes, &[16]).py(py)?)?.unbind())
}

fn set_state(py: Python, g: &Generator, state: &Bound<PyAny>) -> PyResult<()> {
    let t = tensor::expect("set_state", "new_state", state)?;
    if t.dtype() != DType::U8 || t.numel() != 16 {
        return Err(PyTypeError::new_err(
            "RNG state must be a torch.ByteTensor of 16 elements, as get_state() returns it",
        ));
    }
    let bytes = t.to_vec::<u8>().py(py)?;
    let word = |at: usize| bytes[at..at + 8].iter().rev().fold(0u64, |v, b| v << 8 | *b as u64);
    g.set_state(Philox { seed: word(0), offset: word(8) });
    Ok(())
}

#[pymethods]
impl PyGenerator {
    #[new]
    #[pyo3(signature = (device=None))]
    fn new(device: Option<&Bound<PyAny>>) -> PyResult<PyGenerator> {
        // One stream serves every device; the argument is only checked.
        crate::args::device_arg("Generator", device)?;
        Ok(PyGenerator(Arc::new(Generator::new(DEFAULT_SEED))))
    }
    fn manual_seed<'py>(slf: Bound<'py, Self>, seed: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        slf.get().0.manual_seed(seed_value(seed)?);
        Ok(slf)
    }
    fn initial_seed(&self) -> u64 {
        self.0.initial_seed()
    }
    fn seed(&self) -> u64 {
        let s = random_seed();
        self.0.manual_seed(s);
        s
    }
    /// A generator of its own at the same place of the same stream.
    fn clone_state(&self) -> PyGenerator {
        let g = Generator::new(DEFAULT_SEED);
        g.set_state(self.0.state());
        PyGenerator(Arc::new(g))
    }
    fn get_state(&self, py: Python) -> PyResult<Py<PyTensor>> {
        state_of(py, &self.0)
    }
    fn set_state(&self, py: Python, new_state: &Bound<PyAny>) -> PyResult<()> {
        set_state(py, &self.0, new_state)
    }
    #[getter]
    fn device(&self, py: Python) -> PyResult<Py<crate::types::PyDevice>> {
        crate::types::device_object(py, Device::Cpu)
    }
}

fn default_object(py: Python) -> PyResult<Py<PyGenerator>> {
    static ONE: pyo3::sync::PyOnceLock<Py<PyGenerator>> = pyo3::sync::PyOnceLock::new();
    Ok(ONE.get_or_try_init(py, || Py::new(py, PyGenerator(default_generator().clone())))?.clone_ref(py))
}

/// Sets the seed of the default generator; returns it.
#[pyfunction]
fn manual_seed(py: Python, seed: &Bound<PyAny>) -> PyResult<Py<PyGenerator>> {
    default_generator().manual_seed(seed_value(seed)?);
    default_object(py)
}

/// Seeds the default generator from the operating system; returns the seed.
#[pyfunction]
fn seed() -> u64 {
    let s = random_seed();
    default_generator().manual_seed(s);
    s
}

/// The seed of the default generator.
#[pyfunction]
fn initial_seed() -> u64 {
    default_generator().initial_seed()
}

/// The state of the default generator, as a tensor of bytes.
#[pyfunction]
fn get_rng_state(py: Python) -> PyResult<Py<PyTensor>> {
    state_of(py, default_generator())
}

/// Puts the default generator where `get_rng_state` found it.
#[pyfunction]
fn set_rng_state(py: Python, new_state: &Bound<PyAny>) -> PyResult<()> {
    set_state(py, default_generator(), new_state)
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_class::<PyGenerator>()?;
    m.add("default_generator", default_object(m.py())?)?;
    m.add_function(wrap_pyfunction!(manual_seed, m)?)?;
    m.add_function(wrap_pyfunction!(seed, m)?)?;
    m.add_function(wrap_pyfunction!(initial_seed, m)?)?;
    m.add_function(wrap_pyfunction!(get_rng_state, m)?)?;
    m.add_function(wrap_pyfunction!(set_rng_state, m)?)?;
    Ok(())
}
