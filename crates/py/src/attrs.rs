//! Attributes of tensors and the methods that ask about a tensor rather than compute with it.

use crate::args;
use crate::enter::{self, Work, enter};
use crate::error::IntoPy;
use crate::results::scalar_object;
use crate::tensor::{self, PyTensor, get, wrap, wrap_lasting};
use crate::types::{
    PyDType, PyDevice, PyLayout, PyMemoryFormat, device_object, dtype_object, size_object, strided,
};
use crate::{autograd, node};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyComplex, PyString, PyTuple};
use pyrite_core::Scalar;
use pyrite_tensor::autograd::{forward, mode};
use pyrite_tensor::ops;
use pyrite_tensor::{MemoryFormat, Tensor, fmt};

const NOT_A_LEAF: &str = "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad attribute won't be populated during autograd.backward(). If you indeed want the .grad field to be populated for a non-leaf Tensor, use .retain_grad() on the non-leaf Tensor. If you access the non-leaf Tensor by mistake, make sure you access the leaf Tensor instead.";

fn this(slf: &Bound<PyTensor>) -> Tensor {
    slf.get().tensor(slf.py())
}

/// What `int`, `float` and `complex` need. (`item` says the same as a RuntimeError, as in PyTorch.)
fn one_element(slf: &Bound<PyTensor>) -> PyResult<()> {
    let t = this(slf);
    if t.numel() == 1 {
        return Ok(());
    }
    Err(pyo3::exceptions::PyValueError::new_err(format!(
        "only one element tensors can be converted to Python scalars, but this one has shape {:?}",
        t.shape()
    )))
}

#[pymethods]
impl PyTensor {
    // ---- what it is ---------------------------------------------------------------------------

    #[getter]
    fn shape<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        size_object(slf.py(), this(slf).shape())
    }
    #[getter]
    fn dtype(slf: &Bound<Self>) -> PyResult<Py<PyDType>> {
        dtype_object(slf.py(), this(slf).dtype())
    }
    #[getter(device)]
    fn place(slf: &Bound<Self>) -> PyResult<Py<PyDevice>> {
        device_object(slf.py(), this(slf).device())
    }
    #[getter]
    fn layout(slf: &Bound<Self>) -> PyResult<Py<PyLayout>> {
        strided(slf.py())
    }
    #[getter]
    fn ndim(slf: &Bound<Self>) -> usize {
        this(slf).ndim()
    }
    fn dim(slf: &Bound<Self>) -> usize {
        this(slf).ndim()
    }
    fn ndimension(slf: &Bound<Self>) -> usize {
        this(slf).ndim()
    }
    fn numel(slf: &Bound<Self>) -> usize {
        this(slf).numel()
    }
    fn nelement(slf: &Bound<Self>) -> usize {
        this(slf).numel()
    }
    #[getter]
    fn itemsize(slf: &Bound<Self>) -> usize {
        this(slf).dtype().size()
    }
    fn element_size(slf: &Bound<Self>) -> usize {
        this(slf).dtype().size()
    }
    #[getter]
    fn nbytes(slf: &Bound<Self>) -> usize {
        let t = this(slf);
        t.numel() * t.dtype().size()
    }
    #[getter]
    fn is_cuda(slf: &Bound<Self>) -> bool {
        this(slf).device().is_cuda()
    }
    #[getter]
    fn is_cpu(slf: &Bound<Self>) -> bool {
        !this(slf).device().is_cuda()
    }
    #[getter]
    fn is_sparse(_slf: &Bound<Self>) -> bool {
        false
    }
    #[getter]
    fn is_quantized(_slf: &Bound<Self>) -> bool {
        false
    }
    #[getter]
    fn is_meta(_slf: &Bound<Self>) -> bool {
        false
    }
    #[pyo3(name = "get_device")]
    fn device_index(slf: &Bound<Self>) -> i64 {
        this(slf).device().index().map_or(-1, |i| i as i64)
    }
    fn is_floating_point(slf: &Bound<Self>) -> bool {
        this(slf).dtype().is_float()
    }
    fn is_complex(slf: &Bound<Self>) -> bool {
        this(slf).dtype().is_complex()
    }
    fn is_signed(slf: &Bound<Self>) -> bool {
        this(slf).dtype().is_signed()
    }
    /// The sizes, or the size of one dimension.
    #[pyo3(signature = (dim=None))]
    fn size<'py>(slf: &Bound<'py, Self>, dim: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let (py, t) = (slf.py(), this(slf));
        match dim {
            None => size_object(py, t.shape()),
            Some(d) => Ok(t.size(int_arg("size", "dim", d)?).py(py)?.into_pyobject(py)?.into_any()),
        }
    }
    /// The strides in elements, or the stride of one dimension.
    #[pyo3(signature = (dim=None))]
    fn stride<'py>(slf: &Bound<'py, Self>, dim: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let (py, t) = (slf.py(), this(slf));
        match dim {
            None => Ok(PyTuple::new(py, t.strides())?.into_any()),
            Some(d) => {
                let d = int_arg("stride", "dim", d)?;
                t.size(d).py(py)?;
                let i = if d < 0 { d + t.ndim() as i64 } else { d } as usize;
                Ok(t.strides()[i].into_pyobject(py)?.into_any())
            }
        }
    }
    fn storage_offset(slf: &Bound<Self>) -> usize {
        this(slf).layout().offset()
    }
    /// The address of the first element.
    fn data_ptr(slf: &Bound<Self>) -> usize {
        let t = this(slf);
        if t.numel() == 0 && t.storage().bytes() == 0 { 0 } else { t.ptr() as usize }
    }
    #[pyo3(signature = (memory_format=None))]
    fn is_contiguous(slf: &Bound<Self>, memory_format: Option<&Bound<PyMemoryFormat>>) -> bool {
        let f = memory_format.map_or(MemoryFormat::Contiguous, |m| m.get().0);
        ops::is_contiguous_format(&this(slf), f)
    }
    #[getter]
    fn _version(slf: &Bound<Self>) -> PyResult<u32> {
        let t = this(slf);
        if t.storage().is_inference() {
            return Err(PyRuntimeError::new_err("Inference tensors do not track version counter."));
        }
        Ok(t.storage().version())
    }
    #[getter]
    fn _base<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, Self>>> {
        this(slf).base().map(|b| wrap_lasting(slf.py(), b)).transpose()
    }
    fn _is_view(slf: &Bound<Self>) -> bool {
        this(slf).base().is_some()
    }
    /// Do both tensors look at the same memory in the same way?
    fn is_set_to(slf: &Bound<Self>, tensor: &Bound<PyAny>) -> PyResult<bool> {
        let (a, b) = (this(slf), tensor::expect("is_set_to", "tensor", tensor)?);
        Ok(a.storage().same(b.storage())
            && a.shape() == b.shape()
            && a.strides() == b.strides()
            && a.ptr() == b.ptr())
    }

    // ---- autograd -----------------------------------------------------------------------------

    #[getter]
    fn requires_grad(slf: &Bound<Self>) -> bool {
        this(slf).requires_grad()
    }
    #[setter]
    fn set_requires_grad(slf: &Bound<Self>, on: bool) -> PyResult<()> {
        this(slf).set_requires_grad(on).py(slf.py())?;
        tensor::link(slf);
        Ok(())
    }
    #[deleter]
    fn delete_requires_grad(_slf: &Bound<Self>) -> PyResult<()> {
        tensor::runtime("cannot delete requires_grad")
    }
    /// Says whether gradients are wanted for this tensor; returns the tensor.
    #[pyo3(signature = (requires_grad=true))]
    fn requires_grad_<'py>(slf: &Bound<'py, Self>, requires_grad: bool) -> PyResult<Bound<'py, Self>> {
        Self::set_requires_grad(slf, requires_grad)?;
        Ok(slf.clone())
    }
    #[getter]
    fn is_leaf(slf: &Bound<Self>) -> bool {
        this(slf).is_leaf()
    }
    #[getter]
    fn grad_fn<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let t = this(slf);
        if !t.requires_grad() {
            return Ok(None);
        }
        let edge = t.grad_fn();
        if let Some(e) = mode::take_record_error() {
            return Err(crate::error::to_py(slf.py(), e));
        }
        edge.map(|e| node::wrap(slf.py(), e.node())).transpose()
    }
    #[getter]
    fn output_nr(slf: &Bound<Self>) -> u32 {
        this(slf).grad_fn().map_or(0, |e| e.nr)
    }
    #[getter]
    fn grad<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, Self>>> {
        let t = this(slf);
        let g = t.grad();
        if g.is_none() && t.grad_fn().is_some() && !t.retains_grad() {
            enter::warn(NOT_A_LEAF).py(slf.py())?;
        }
        g.map(|g| wrap_lasting(slf.py(), g)).transpose()
    }
    #[setter]
    fn set_grad(slf: &Bound<Self>, value: Option<&Bound<PyAny>>) -> PyResult<()> {
        let g = match value {
            None => None,
            Some(v) => match v.cast::<PyTensor>() {
                Ok(o) => {
                    let g = o.get().tensor(slf.py());
                    g.meta_or_new();
                    tensor::link(o);
                    Some(g)
                }
                Err(_) => {
                    return Err(PyTypeError::new_err(format!(
                        "assigned grad expected to be a Tensor or None but got grad of type {}",
                        v.get_type().name()?
                    )));
                }
            },
        };
        this(slf).set_grad(g).py(slf.py())?;
        tensor::link(slf);
        Ok(())
    }
    #[deleter]
    fn delete_grad(slf: &Bound<Self>) -> PyResult<()> {
        this(slf).set_grad(None).py(slf.py())
    }
    /// The same data without history, under its own version counter in PyTorch; here writes through it
    /// are seen by graphs that saved the data.
    #[getter]
    fn data<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        wrap(slf.py(), this(slf).alias())
    }
    #[setter]
    fn set_data(slf: &Bound<Self>, value: &Bound<PyAny>) -> PyResult<()> {
        let new = tensor::expect("data", "value", value)?;
        let t = this(slf);
        if t.requires_grad() && !new.dtype().is_differentiable() {
            return Err(PyRuntimeError::new_err(
                "data set to a tensor that requires gradients must be floating point or complex dtype",
            ));
        }
        let old = slf.get().replace(slf.py(), t.with_data_of(&new));
        tensor::link(slf);
        drop(old);
        Ok(())
    }
    #[deleter]
    fn delete_data(_slf: &Bound<Self>) -> PyResult<()> {
        tensor::runtime("Deleting tensor.data is not allowed. Delete tensor instead!")
    }
    /// A view of the same memory without history.
    fn detach<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        wrap(slf.py(), this(slf).alias())
    }
    /// Cuts this tensor out of its graph.
    fn detach_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let t = this(slf);
        if t.base().is_some() {
            return Err(PyRuntimeError::new_err("Can't detach views in-place. Use detach() instead."));
        }
        if t.requires_grad() && !t.is_leaf() {
            // The same tensor goes on, so that it stays the base of its views, which keep their history.
            forward::forget(&t);
            t.forget_history();
        } else {
            tensor::swap(slf, t.alias());
        }
        Ok(slf.clone())
    }
    /// Computes gradients of this tensor with respect to the leaves of its graph.
    #[pyo3(signature = (gradient=None, retain_graph=None, create_graph=false, inputs=None))]
    fn backward(
        slf: &Bound<Self>,
        gradient: Option<&Bound<PyAny>>,
        retain_graph: Option<bool>,
        create_graph: bool,
        inputs: Option<&Bound<PyAny>>,
    ) -> PyResult<()> {
        let g = gradient.map(|g| tensor::expect("backward", "gradient", g)).transpose()?;
        let inputs = match inputs {
            None => None,
            Some(i) => Some(match get(i) {
                Some(t) => vec![t],
                None => autograd::tensors_of("backward", "inputs", i)?,
            }),
        };
        autograd::run_backward(
            slf.py(),
            vec![this(slf)],
            vec![g],
            retain_graph.unwrap_or(create_graph),
            create_graph,
            inputs,
        )
    }

    // ---- as numbers -----------------------------------------------------------------------------

    /// The only element, as a Python number.
    fn item<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let t = this(slf);
        scalar_object(slf.py(), t.item().py(slf.py())?)
    }
    fn __bool__(slf: &Bound<Self>) -> PyResult<bool> {
        let t = this(slf);
        match t.numel() {
            1 => Ok(!t.item().py(slf.py())?.is_zero()),
            0 => tensor::runtime("Boolean value of Tensor with no values is ambiguous"),
            _ => tensor::runtime("Boolean value of Tensor with more than one value is ambiguous"),
        }
    }
    fn __int__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        one_element(slf)?;
        let item = match this(slf).item().py(slf.py())? {
            Scalar::Complex(_, im) if im != 0.0 => {
                return tensor::runtime("value cannot be converted to type int64_t without overflow");
            }
            Scalar::Complex(re, _) => scalar_object(slf.py(), Scalar::Float(re))?,
            s => scalar_object(slf.py(), s)?,
        };
        slf.py().get_type::<pyo3::types::PyInt>().call1((item,))
    }
    fn __float__(slf: &Bound<Self>) -> PyResult<f64> {
        one_element(slf)?;
        match this(slf).item().py(slf.py())? {
            Scalar::Complex(_, im) if im != 0.0 => {
                tensor::runtime("value cannot be converted to type double without overflow")
            }
            s => Ok(s.f64()),
        }
    }
    fn __complex__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyComplex>> {
        one_element(slf)?;
        Ok(match this(slf).item().py(slf.py())? {
            Scalar::Complex(re, im) => PyComplex::from_doubles(slf.py(), re, im),
            s => PyComplex::from_doubles(slf.py(), s.f64(), 0.0),
        })
    }
    fn __index__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let t = this(slf);
        if t.numel() != 1 || !(t.dtype().is_int() || t.dtype().is_bool()) {
            return Err(PyTypeError::new_err(
                "only integer tensors of a single element can be converted to an index",
            ));
        }
        match t.item().py(slf.py())? {
            Scalar::Bool(b) => scalar_object(slf.py(), Scalar::Int(b.into())),
            s => scalar_object(slf.py(), s),
        }
    }
    /// The elements as (nested lists of) Python numbers.
    fn tolist<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        crate::data::to_list(slf.py(), &this(slf))
    }

    // ---- text -----------------------------------------------------------------------------------

    fn __repr__(slf: &Bound<Self>) -> PyResult<String> {
        let t = this(slf);
        // Parameters print as tensors (their own `__repr__` says what they are), other classes by name.
        let name = if slf.is_exact_instance_of::<PyTensor>() {
            "Tensor".into()
        } else {
            slf.get_type().name()?.to_string()
        };
        let name = if name == "Tensor" || name == "Parameter" { "tensor".to_owned() } else { name };
        enter(slf.py(), Work::Elements(t.numel().min(4096)), move || {
            let mut text = fmt::repr_as(&t, &name)?;
            if let Some((_, tangent)) = forward::tangents(&t).pop() {
                text.pop();
                text += &format!(", tangent={})", fmt::repr_as(&tangent, "tensor")?);
            }
            Ok(text)
        })
    }
    fn __str__(slf: &Bound<Self>) -> PyResult<String> {
        Ok(slf.repr()?.to_string())
    }
    fn __format__<'py>(
        slf: &Bound<'py, Self>,
        spec: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyString>> {
        let t = this(slf);
        let exact = slf.is_exact_instance_of::<PyTensor>();
        if t.ndim() == 0 && exact {
            return Ok(Self::item(slf)?.call_method1("__format__", (spec,))?.cast_into()?);
        }
        if spec.len()? == 0 {
            return slf.str();
        }
        Err(PyTypeError::new_err("unsupported format string passed to Tensor.__format__"))
    }
}

fn int_arg(op: &str, name: &str, o: &Bound<PyAny>) -> PyResult<i64> {
    match args::int(o.as_borrowed())? {
        Some(i) => Ok(i),
        None => Err(PyTypeError::new_err(format!(
            "{op}(): argument '{name}' must be int, not {}",
            o.get_type().name()?
        ))),
    }
}
