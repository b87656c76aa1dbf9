//! `pyrite._C`: the Python face of the core. `bind` makes the registry callable, `tensor` is the
//! Tensor class, `enter` the door into the core; the other files are what the registry does not know.

#![allow(non_snake_case)] // The module is called `_C`, as PyTorch's.

mod args;
mod attrs;
mod autograd;
mod bind;
mod buffer;
mod complex;
mod convert;
mod cuda;
mod data;
mod dlpack;
mod enter;
mod entry;
mod error;
mod forward;
mod function;
mod function_jvp;
mod generator;
mod hooks;
mod indexing;
mod interop;
mod legacy;
mod misfit;
mod module;
mod nans;
mod node;
mod operators;
mod optim;
mod outs;
mod overrides;
mod reshaping;
mod results;
mod saved_hooks;
mod saved_values;
mod signature;
mod site;
mod storage;
mod tensor;
mod types;

use pyo3::prelude::*;

#[pymodule(gil_used = true)]
#[pyo3(name = "_C")]
fn init(m: &Bound<PyModule>) -> PyResult<()> {
    pyrite_tensor::set_interrupt_check(enter::check_signals);
    pyrite_tensor::set_warning(enter::warn);
    error::register(m)?;
    types::register(m)?;
    m.add_class::<tensor::PyTensor>()?;
    generator::register(m)?;
    let probe = pyrite_tensor::Tensor::empty(&[0], pyrite_core::DType::U8, pyrite_core::Device::Cpu);
    tensor::prepare(m.py(), error::IntoPy::py(probe, m.py())?)?;
    site::register(m)?;
    hooks::register(m)?;
    autograd::register(m)?;
    function::register(m)?;
    forward::register(m)?;
    overrides::register(m)?;
    saved_hooks::register(m)?;
    saved_values::register(m)?;
    cuda::pass_library_dirs(m.py())?;
    cuda::register(m)?;
    data::register(m)?;
    legacy::register(m)?;
    interop::register(m)?;
    dlpack::register(m)?;
    optim::register(m)?;
    storage::register(m)?;
    module::register(m)?;
    bind::register(m)
}
