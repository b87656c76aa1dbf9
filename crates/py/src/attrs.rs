//! Attributes of tensors and the methods that ask about a tensor rather than compute with it.

use crate::args;
use crate::bind::scalar_object;
use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::tensor::{self, PyTensor, get, wrap, wrap_lasting};
use crate::types::{
    PyDType, PyDevice, PyLayout, PyMemoryFormat, device_object, dtype_object, size_object, strided,
};
use crate::{autograd, node};
use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyComplex, PyDict, PyString, PyTuple};
use pyrite_core::{DType, Device, Scalar};
use pyrite_tensor::ops;
use pyrite_tensor::{MemoryFormat, Tensor, fmt};

fn this(slf: &Bound<PyTensor>) -> Tensor {
    slf.get().tensor(slf.py())
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
        t.grad_fn().map(|e| node::wrap(slf.py(), e.node())).transpose()
    }
    #[getter]
    fn output_nr(slf: &Bound<Self>) -> u32 {
        this(slf).grad_fn().map_or(0, |e| e.nr)
    }
    #[getter]
    fn grad<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, Self>>> {
        this(slf).grad().map(|g| wrap_lasting(slf.py(), g)).transpose()
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
        tensor::swap(slf, t.alias());
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
        let item = Self::item(slf)?;
        slf.py().get_type::<pyo3::types::PyInt>().call1((item,))
    }
    fn __float__(slf: &Bound<Self>) -> PyResult<f64> {
        match this(slf).item().py(slf.py())? {
            Scalar::Complex(_, im) if im != 0.0 => {
                tensor::runtime("value cannot be converted to type double without overflow")
            }
            s => Ok(s.f64()),
        }
    }
    fn __complex__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyComplex>> {
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
        enter(slf.py(), Work::Elements(t.numel().min(4096)), move || fmt::repr_as(&t, &name))
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

    // ---- between dtypes, devices and memory ------------------------------------------------------

    /// The tensor with another dtype and/or on another device; itself if nothing changes.
    #[pyo3(signature = (*args, **kwargs))]
    fn to<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Self>> {
        let to = To::read(args, kwargs)?;
        let t = this(slf);
        let (d, v) = (to.dtype.unwrap_or(t.dtype()), to.device.unwrap_or(t.device()));
        convert(slf, d, v, to.copy, to.format)
    }
    #[pyo3(signature = (memory_format=None))]
    fn cpu<'py>(
        slf: &Bound<'py, Self>,
        memory_format: Option<&Bound<'py, PyMemoryFormat>>,
    ) -> PyResult<Bound<'py, Self>> {
        convert(slf, this(slf).dtype(), Device::Cpu, false, format_of(memory_format))
    }
    #[pyo3(signature = (device=None, non_blocking=false, memory_format=None))]
    fn cuda<'py>(
        slf: &Bound<'py, Self>,
        device: Option<&Bound<'py, PyAny>>,
        non_blocking: bool,
        memory_format: Option<&Bound<'py, PyMemoryFormat>>,
    ) -> PyResult<Bound<'py, Self>> {
        let _ = non_blocking; // Copies from pageable memory wait either way.
        let d = args::device_arg("cuda", device)?.unwrap_or(Device::Cuda(0));
        if !d.is_cuda() {
            return Err(PyRuntimeError::new_err(format!("Invalid device, must be cuda device: {d}")));
        }
        convert(slf, this(slf).dtype(), d, false, format_of(memory_format))
    }
    /// The type's name without arguments; else the tensor converted to a dtype.
    #[pyo3(signature = (dtype=None, non_blocking=false))]
    fn r#type<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        non_blocking: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = non_blocking; // As in `cuda`.
        let t = this(slf);
        let Some(d) = dtype else { return Ok(PyString::new(slf.py(), &type_string(&t)).into_any()) };
        if let Ok(s) = d.cast::<PyString>() {
            let text = s.to_string();
            let Some((d, v)) = parse_type_string(&text) else {
                return Err(PyValueError::new_err(format!("invalid type: '{text}'")));
            };
            return Ok(convert(slf, d, v, false, MemoryFormat::Preserve)?.into_any());
        }
        match args::dtype_arg("type", Some(d)) {
            Ok(Some(d)) => Ok(convert(slf, d, t.device(), false, MemoryFormat::Preserve)?.into_any()),
            _ => {
                // FloatTensor and its kin carry their dtype.
                let d = args::dtype_arg("type", Some(&d.getattr("dtype")?))?.unwrap_or(t.dtype());
                Ok(convert(slf, d, t.device(), false, MemoryFormat::Preserve)?.into_any())
            }
        }
    }
    /// The tensor with the dtype of `other`.
    fn type_as<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let o = tensor::expect("type_as", "other", other)?;
        convert(slf, o.dtype(), o.device(), false, MemoryFormat::Preserve)
    }
    /// The elements as a NumPy array; shared memory unless a copy is asked for.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        crate::interop::array(slf, dtype, copy)
    }
    /// NumPy leaves operators between an array and a tensor to the tensor.
    #[classattr]
    fn __array_priority__() -> f64 {
        1000.0
    }
    /// The memory is on the heap: nothing is shared between processes by itself.
    fn is_shared(_slf: &Bound<Self>) -> bool {
        false
    }
    #[pyo3(signature = (device=None))]
    fn is_pinned(_slf: &Bound<Self>, device: Option<&Bound<PyAny>>) -> PyResult<bool> {
        args::device_arg("is_pinned", device)?;
        Ok(false)
    }
    #[pyo3(signature = (device=None))]
    fn pin_memory(_slf: &Bound<Self>, device: Option<&Bound<PyAny>>) -> PyResult<Py<PyAny>> {
        args::device_arg("pin_memory", device)?;
        Err(PyNotImplementedError::new_err("pin_memory(): page-locked host memory is not supported"))
    }

    // ---- new tensors of the same kind -------------------------------------------------------------

    #[pyo3(signature = (data, *, dtype=None, device=None, requires_grad=false))]
    fn new_tensor<'py>(
        slf: &Bound<'py, Self>,
        data: &Bound<'py, PyAny>,
        dtype: Option<&Bound<'py, PyAny>>,
        device: Option<&Bound<'py, PyAny>>,
        requires_grad: bool,
    ) -> PyResult<Bound<'py, Self>> {
        let t = this(slf);
        let d = args::dtype_arg("new_tensor", dtype)?.unwrap_or(t.dtype());
        let v = args::device_arg("new_tensor", device)?.unwrap_or(t.device());
        crate::data::fresh(slf.py(), data, Some(d), Some(v), requires_grad)
    }
    #[pyo3(signature = (*size, dtype=None, device=None, requires_grad=false))]
    fn new_empty<'py>(
        slf: &Bound<'py, Self>,
        size: &Bound<'py, PyTuple>,
        dtype: Option<&Bound<'py, PyAny>>,
        device: Option<&Bound<'py, PyAny>>,
        requires_grad: bool,
    ) -> PyResult<Bound<'py, Self>> {
        new_of(slf, "new_empty", size, dtype, device, requires_grad, Tensor::empty)
    }
    #[pyo3(signature = (*size, dtype=None, device=None, requires_grad=false))]
    fn new_zeros<'py>(
        slf: &Bound<'py, Self>,
        size: &Bound<'py, PyTuple>,
        dtype: Option<&Bound<'py, PyAny>>,
        device: Option<&Bound<'py, PyAny>>,
        requires_grad: bool,
    ) -> PyResult<Bound<'py, Self>> {
        new_of(slf, "new_zeros", size, dtype, device, requires_grad, Tensor::zeros)
    }
    #[pyo3(signature = (*size, dtype=None, device=None, requires_grad=false))]
    fn new_ones<'py>(
        slf: &Bound<'py, Self>,
        size: &Bound<'py, PyTuple>,
        dtype: Option<&Bound<'py, PyAny>>,
        device: Option<&Bound<'py, PyAny>>,
        requires_grad: bool,
    ) -> PyResult<Bound<'py, Self>> {
        new_of(slf, "new_ones", size, dtype, device, requires_grad, |s, d, v| {
            Tensor::full(s, Scalar::Int(1), d, v)
        })
    }
    #[pyo3(signature = (size, fill_value, *, dtype=None, device=None, requires_grad=false))]
    fn new_full<'py>(
        slf: &Bound<'py, Self>,
        size: &Bound<'py, PyAny>,
        fill_value: &Bound<'py, PyAny>,
        dtype: Option<&Bound<'py, PyAny>>,
        device: Option<&Bound<'py, PyAny>>,
        requires_grad: bool,
    ) -> PyResult<Bound<'py, Self>> {
        let Some(v) = args::number_or_item(fill_value.as_borrowed())? else {
            return Err(PyTypeError::new_err("new_full(): argument 'fill_value' must be Number"));
        };
        let size = &PyTuple::new(slf.py(), [size])?;
        new_of(slf, "new_full", size, dtype, device, requires_grad, move |s, d, dev| {
            Tensor::full(s, v, d, dev)
        })
    }
}

macro_rules! casts {
    ($($name:ident $d:ident),* $(,)?) => {
        #[pymethods]
        impl PyTensor { $(
            #[pyo3(signature = (memory_format=None))]
            fn $name<'py>(slf: &Bound<'py, Self>, memory_format: Option<&Bound<'py, PyMemoryFormat>>) -> PyResult<Bound<'py, Self>> {
                convert(slf, DType::$d, this(slf).device(), false, format_of(memory_format))
            }
        )* }
    };
}
casts!(float F32, double F64, half F16, bfloat16 BF16, long I64, int I32, short I16, char I8, byte U8, bool Bool, cfloat C64, cdouble C128);

fn format_of(m: Option<&Bound<PyMemoryFormat>>) -> MemoryFormat {
    m.map_or(MemoryFormat::Preserve, |m| m.get().0)
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

/// `.to` with everything decided; the same object if nothing changes.
fn convert<'py>(
    slf: &Bound<'py, PyTensor>,
    d: DType,
    v: Device,
    copy: bool,
    f: MemoryFormat,
) -> PyResult<Bound<'py, PyTensor>> {
    let t = this(slf);
    let keep = t.clone();
    let y = enter(slf.py(), Work::Elements(t.numel()), move || ops::to(&t, d, v, copy, f))?;
    if y.same(&keep) { Ok(slf.clone()) } else { wrap(slf.py(), y) }
}

fn new_of<'py>(
    slf: &Bound<'py, PyTensor>,
    op: &str,
    size: &Bound<'py, PyTuple>,
    dtype: Option<&Bound<'py, PyAny>>,
    device: Option<&Bound<'py, PyAny>>,
    requires_grad: bool,
    make: impl FnOnce(&[usize], DType, Device) -> pyrite_core::Result<Tensor>,
) -> PyResult<Bound<'py, PyTensor>> {
    let py = slf.py();
    let t = this(slf);
    let d = args::dtype_arg(op, dtype)?.unwrap_or(t.dtype());
    let v = args::device_arg(op, device)?.unwrap_or(t.device());
    // One sequence of sizes, or the sizes one by one.
    let first = if size.len() == 1 { Some(size.get_item(0)?) } else { None };
    let list = match &first {
        Some(o) => args::ints(o.as_borrowed())?,
        None => args::ints(size.as_any().as_borrowed())?,
    };
    let Some(list) = list else {
        return Err(PyTypeError::new_err(format!("{op}(): argument 'size' must be tuple of ints")));
    };
    let shape = pyrite_core::layout::checked_shape(op, &list).py(py)?;
    let y = make(&shape, d, v).py(py)?;
    if requires_grad {
        y.set_requires_grad(true).py(py)?;
    }
    wrap(py, y)
}

/// The arguments of `Tensor.to`, in all the forms PyTorch takes.
struct To {
    dtype: Option<DType>,
    device: Option<Device>,
    copy: bool,
    format: MemoryFormat,
}

impl To {
    fn read(args: &Bound<PyTuple>, kwargs: Option<&Bound<PyDict>>) -> PyResult<To> {
        let mut to = To { dtype: None, device: None, copy: false, format: MemoryFormat::Preserve };
        let wrong = |o: &Bound<PyAny>| {
            PyTypeError::new_err(format!(
                "to() received an invalid combination of arguments - got {}, but expected one of:\n * (torch.device device = None, torch.dtype dtype = None, bool non_blocking = False, bool copy = False, *, torch.memory_format memory_format = None)\n * (torch.dtype dtype, bool non_blocking = False, bool copy = False, *, torch.memory_format memory_format = None)\n * (Tensor other, bool non_blocking = False, bool copy = False, *, torch.memory_format memory_format = None)",
                o.get_type().name().map_or_else(|_| "?".into(), |n| n.to_string())
            ))
        };
        // Positions: device and/or dtype (or a tensor), then non_blocking, then copy.
        let mut flags = 0;
        for (i, o) in args.iter().enumerate() {
            if o.is_none() {
                continue;
            }
            if let (0, Some(t)) = (i, get(&o)) {
                (to.dtype, to.device) = (Some(t.dtype()), Some(t.device()));
            } else if let Ok(b) = o.cast::<pyo3::types::PyBool>() {
                if flags == 1 {
                    to.copy = b.is_true();
                }
                flags += 1;
            } else if flags > 0 || i > 1 {
                return Err(wrong(&o));
            } else if let Some(d) = crate::types::as_dtype(&o) {
                to.dtype = Some(d);
            } else if let Some(v) = crate::types::as_device(&o)? {
                to.device = Some(v);
            } else {
                return Err(wrong(&o));
            }
        }
        if let Some(kw) = kwargs {
            for (k, o) in kw.iter() {
                match k.cast::<PyString>()?.to_str()? {
                    "dtype" => to.dtype = args::dtype_arg("to", Some(&o))?.or(to.dtype),
                    "device" => to.device = args::device_arg("to", Some(&o))?.or(to.device),
                    "other" => {
                        let t = tensor::expect("to", "other", &o)?;
                        (to.dtype, to.device) = (Some(t.dtype()), Some(t.device()));
                    }
                    // Copies from pageable memory wait either way.
                    "non_blocking" => {
                        o.is_truthy()?;
                    }
                    "copy" => to.copy = o.is_truthy()?,
                    "memory_format" => {
                        if !o.is_none() {
                            to.format = match o.cast::<PyMemoryFormat>() {
                                Ok(m) => m.get().0,
                                Err(_) => {
                                    return Err(PyTypeError::new_err(
                                        "to(): argument 'memory_format' must be torch.memory_format",
                                    ));
                                }
                            };
                        }
                    }
                    other => {
                        return Err(PyTypeError::new_err(format!(
                            "to() got an unexpected keyword argument '{other}'"
                        )));
                    }
                }
            }
        }
        Ok(to)
    }
}

/// `torch.FloatTensor`, as `Tensor.type()` names it.
fn type_string(t: &Tensor) -> String {
    let kind = match t.dtype() {
        DType::Bool => "Bool",
        DType::U8 => "Byte",
        DType::I8 => "Char",
        DType::I16 => "Short",
        DType::I32 => "Int",
        DType::I64 => "Long",
        DType::U16 => "UInt16",
        DType::U32 => "UInt32",
        DType::U64 => "UInt64",
        DType::F16 => "Half",
        DType::BF16 => "BFloat16",
        DType::F32 => "Float",
        DType::F64 => "Double",
        DType::C64 => "ComplexFloat",
        DType::C128 => "ComplexDouble",
    };
    let place = if t.device().is_cuda() { "cuda." } else { "" };
    format!("torch.{place}{kind}Tensor")
}

fn parse_type_string(s: &str) -> Option<(DType, Device)> {
    let s = s.strip_prefix("torch.").or_else(|| s.strip_prefix("pyrite."))?;
    let (s, device) = match s.strip_prefix("cuda.") {
        Some(r) => (r, Device::Cuda(0)),
        None => (s, Device::Cpu),
    };
    let d = match s.strip_suffix("Tensor")? {
        "Bool" => DType::Bool,
        "Byte" => DType::U8,
        "Char" => DType::I8,
        "Short" => DType::I16,
        "Int" => DType::I32,
        "Long" => DType::I64,
        "Half" => DType::F16,
        "BFloat16" => DType::BF16,
        "Float" => DType::F32,
        "Double" => DType::F64,
        "ComplexFloat" => DType::C64,
        "ComplexDouble" => DType::C128,
        _ => return None,
    };
    Some((d, device))
}
