//! Tensors from Python data and back: `tensor`, `as_tensor`, `asarray`, `tolist`, pickling. The dtype is inferred as PyTorch does.

use crate::args::{self, number};
use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::interop;
use crate::results::scalar_object;
use crate::tensor::{self, PyTensor, get, wrap};
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};
use pyrite_core::{DType, Device, Scalar};
use pyrite_tensor::config::default_device;
use pyrite_tensor::{MemoryFormat, Tensor, ops};

/// Nesting deeper than this is an error (PyTorch's limit).
const MAX_DIMS: usize = 64;

pub fn is_sequence(o: &Bound<PyAny>) -> bool {
    if o.is_instance_of::<PyList>() || o.is_instance_of::<PyTuple>() {
        return true;
    }
    if o.is_instance_of::<PyString>()
        || o.is_instance_of::<PyFloat>()
        || o.is_instance_of::<PyInt>()
        || o.is_instance_of::<PyDict>()
    {
        return false;
    }
    // SAFETY: a type check on a live object.
    unsafe { pyo3::ffi::PySequence_Check(o.as_ptr()) != 0 && !o.hasattr("keys").unwrap_or(true) }
}

/// A new tensor with a copy of the data: `None` infers the dtype.
pub fn from_object(o: &Bound<PyAny>, dtype: Option<DType>, device: Option<Device>) -> PyResult<Tensor> {
    let py = o.py();
    let to_place = |t: Tensor, copy: bool| -> PyResult<Tensor> {
        let (d, v) = (dtype.unwrap_or(t.dtype()), device.unwrap_or(t.device()));
        enter(py, Work::Elements(t.numel()), move || ops::to(&t, d, v, copy, MemoryFormat::Contiguous))
    };
    if let Some(t) = get(o) {
        crate::overrides::refuse("tensor()", o.as_borrowed())?;
        return to_place(t.alias(), true);
    }
    if let Some(t) = interop::array_like(o)? {
        return to_place(t, true);
    }
    let wide = wide_int(o, dtype);
    if let Some(s) = if wide.is_some() { wide } else { number(o.as_borrowed())? } {
        let d = match s {
            Scalar::UInt(_) => dtype.unwrap_or(DType::I64),
            s => dtype.unwrap_or(s.dtype()),
        };
        check_range(s, d)?;
        if d.is_int() {
            ops::check_fits(s, d).py(py)?;
        }
        return Tensor::scalar(s, d, device.unwrap_or_else(default_device)).py(py);
    }
    if let Ok(s) = o.cast::<PyString>() {
        return Err(PyTypeError::new_err(format!(
            "new(): invalid data type 'str' (got {:?})",
            s.to_string()
        )));
    }
    if !is_sequence(o) {
        return Err(PyRuntimeError::new_err(format!("Could not infer dtype of {}", o.get_type().name()?)));
    }
    let shape = shape_of(o)?;
    let total: usize = shape.iter().product();
    let mut leaves =
        Leaves { shape: &shape, values: Vec::with_capacity(total.min(1 << 24)), dtype: None, asked: dtype };
    leaves.collect(o, 0)?;
    let d = dtype.or(leaves.dtype).unwrap_or_else(DType::default_float);
    let size = d.size();
    let t = Tensor::empty(&shape, d, Device::Cpu).py(py)?;
    for (i, v) in leaves.values.iter().enumerate() {
        if matches!(v, Scalar::Complex(_, im) if *im != 0.0) && !d.is_complex() {
            return Err(PyTypeError::new_err(format!("can't convert complex to {d}")));
        }
        check_range(*v, d)?;
        if d.is_int() {
            ops::check_fits(*v, d).py(py)?;
        }
        let bytes = v.to_bytes(d);
        // SAFETY: the new tensor is contiguous and holds `total` elements of `size` bytes; there are as
        // many values, checked by `collect`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), t.ptr().add(i * size), size) };
    }
    match device.unwrap_or_else(default_device) {
        Device::Cpu => Ok(t),
        v => enter(py, Work::Long, move || ops::to_device(&t, v)),
    }
}

/// Refuses numbers that the dtype can only hold wrapped around in a way nobody means.
fn check_range(v: Scalar, d: DType) -> PyResult<()> {
    match v {
        Scalar::UInt(_) if d.is_int() && d != DType::U64 => {
            Err(PyOverflowError::new_err("Overflow when unpacking long long"))
        }
        Scalar::Int(..=-1) if d == DType::U64 => {
            Err(PyOverflowError::new_err("can't convert negative int to unsigned"))
        }
        _ => Ok(()),
    }
}

fn no_shape(o: &Bound<PyAny>) -> PyErr {
    let name = o.get_type().name().map_or_else(|_| "object".into(), |n| n.to_string());
    PyValueError::new_err(format!("could not determine the shape of object type '{name}'"))
}

/// The value of an int that 64 bits cannot hold, for dtypes that can.
fn wide_int(o: &Bound<PyAny>, d: Option<DType>) -> Option<Scalar> {
    if !o.is_instance_of::<PyInt>() || d.is_none_or(|d| d.is_int()) || o.extract::<i64>().is_ok() {
        return None;
    }
    o.extract::<f64>().ok().map(Scalar::Float)
}

/// The shape, read along the first elements.
fn shape_of(o: &Bound<PyAny>) -> PyResult<Vec<usize>> {
    let mut shape = Vec::new();
    let mut at = o.clone();
    loop {
        if let Some(t) = get(&at) {
            shape.extend_from_slice(t.shape());
            return Ok(shape);
        }
        if !is_sequence(&at) {
            if let Ok(s) = at.getattr("shape") {
                // NumPy arrays and scalars inside lists.
                if let Ok(dims) = s.extract::<Vec<usize>>() {
                    shape.extend(dims);
                }
            }
            if at.is_instance_of::<PyString>() {
                return Err(PyValueError::new_err("too many dimensions 'str'"));
            }
            return Ok(shape);
        }
        let n = at.len().map_err(|_| no_shape(&at))?;
        shape.push(n);
        if shape.len() > MAX_DIMS {
            return Err(PyValueError::new_err(format!(
                "too many dimensions: data is nested deeper than {MAX_DIMS} levels"
            )));
        }
        if n == 0 {
            return Ok(shape);
        }
        at = at.get_item(0).map_err(|_| no_shape(&at))?;
    }
}

struct Leaves<'a> {
    shape: &'a [usize],
    values: Vec<Scalar>,
    dtype: Option<DType>,
    /// The dtype that was asked for.
    asked: Option<DType>,
}

impl Leaves<'_> {
    fn note(&mut self, d: DType) {
        self.dtype = Some(self.dtype.map_or(d, |e| DType::promote(e, d)));
    }

    fn collect(&mut self, o: &Bound<PyAny>, dim: usize) -> PyResult<()> {
        if let Some(t) = get(o) {
            crate::overrides::refuse("tensor()", o.as_borrowed())?;
            return self.tensor(&t, dim);
        }
        if dim == self.shape.len() {
            return self.leaf(o);
        }
        let check = |n: usize| -> PyResult<()> {
            if n == self.shape[dim] {
                return Ok(());
            }
            Err(PyValueError::new_err(format!(
                "expected sequence of length {} at dim {dim} (got {n})",
                self.shape[dim]
            )))
        };
        if let Ok(l) = o.cast::<PyList>() {
            check(l.len())?;
            for x in l.iter() {
                self.collect(&x, dim + 1)?;
            }
            return Ok(());
        }
        if let Ok(l) = o.cast::<PyTuple>() {
            check(l.len())?;
            for i in 0..l.len() {
                self.collect(&*l.get_borrowed_item(i)?, dim + 1)?;
            }
            return Ok(());
        }
        if let Some(t) = interop::array_like(o)? {
            return self.tensor(&t, dim);
        }
        if !is_sequence(o) {
            return Err(PyTypeError::new_err(format!(
                "not a sequence: expected a sequence of length {} at dim {dim}, got {}",
                self.shape[dim],
                o.get_type().name()?
            )));
        }
        let n = o.len()?;
        check(n)?;
        for i in 0..n {
            self.collect(&o.get_item(i).map_err(|_| no_shape(o))?, dim + 1)?;
        }
        Ok(())
    }

    /// A tensor or array inside a list stands for the dimensions that are left.
    fn tensor(&mut self, t: &Tensor, dim: usize) -> PyResult<()> {
        if t.shape() != &self.shape[dim..] {
            if dim == self.shape.len() && t.numel() == 1 {
                let s = t.item().map_err(|e| PyRuntimeError::new_err(e.message().to_owned()))?;
                self.note(t.dtype());
                self.values.push(s);
                return Ok(());
            }
            return Err(PyValueError::new_err(format!(
                "expected sequence of length {} at dim {dim} (got a tensor of shape {:?})",
                self.shape.get(dim).copied().unwrap_or(0),
                t.shape()
            )));
        }
        self.note(t.dtype());
        scalars(t, &mut self.values).map_err(|e| PyRuntimeError::new_err(e.message().to_owned()))
    }

    fn leaf(&mut self, o: &Bound<PyAny>) -> PyResult<()> {
        if let Ok(f) = o.cast_exact::<PyFloat>() {
            self.note(DType::default_float());
            self.values.push(Scalar::Float(f.value()));
            return Ok(());
        }
        if o.is_exact_instance_of::<PyInt>() {
            self.note(DType::I64);
            if let Ok(v) = o.extract::<i64>() {
                self.values.push(Scalar::Int(v));
                return Ok(());
            }
            if let Some(v) = wide_int(o, self.asked) {
                self.values.push(v);
                return Ok(());
            }
            let v = o.extract::<u64>();
            self.values.push(Scalar::UInt(
                v.map_err(|_| PyOverflowError::new_err("Overflow when unpacking long long"))?,
            ));
            return Ok(());
        }
        if o.is_instance_of::<PyBool>() {
            self.note(DType::Bool);
            self.values.push(Scalar::Bool(o.is_truthy()?));
            return Ok(());
        }
        if let Some(t) = interop::array_like(o)? {
            return self.tensor(&t, self.shape.len());
        }
        match number(o.as_borrowed())? {
            Some(s) => {
                self.note(s.dtype());
                self.values.push(s);
                Ok(())
            }
            None if is_sequence(o) => Err(PyValueError::new_err(format!(
                "expected a number at dim {}, got a sequence: the nesting is not the same everywhere",
                self.shape.len()
            ))),
            None => Err(PyTypeError::new_err(format!("must be real number, not {}", o.get_type().name()?))),
        }
    }
}

/// Every element in row-major order.
fn scalars(t: &Tensor, out: &mut Vec<Scalar>) -> pyrite_core::Result<()> {
    let c = ops::contiguous(&ops::to_device(&t.alias(), Device::Cpu)?)?;
    let size = c.dtype().size();
    out.reserve(c.numel());
    for i in 0..c.numel() {
        let mut b = [0u8; 16];
        // SAFETY: `c` is contiguous on the CPU with numel elements of `size` bytes.
        unsafe { std::ptr::copy_nonoverlapping(c.ptr().add(i * size), b.as_mut_ptr(), size) };
        out.push(pyrite_tensor::tensor::scalar_from_bytes(&b, c.dtype()));
    }
    Ok(())
}

/// `tolist`: one number, or lists of lists.
pub fn to_list<'py>(py: Python<'py>, t: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    let mut values = Vec::new();
    scalars(t, &mut values).py(py)?;
    nest(py, t.shape(), &mut values.into_iter())
}

fn nest<'py>(
    py: Python<'py>,
    shape: &[usize],
    at: &mut std::vec::IntoIter<Scalar>,
) -> PyResult<Bound<'py, PyAny>> {
    match shape.split_first() {
        None => match at.next() {
            Some(s) => scalar_object(py, s),
            None => tensor::runtime("tolist: the tensor has fewer elements than its shape says"),
        },
        Some((n, rest)) => {
            let list = PyList::empty(py);
            for _ in 0..*n {
                list.append(nest(py, rest, at)?)?;
            }
            Ok(list.into_any())
        }
    }
}

/// A finished leaf tensor object.
pub fn fresh<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    d: Option<DType>,
    v: Option<Device>,
    requires_grad: bool,
) -> PyResult<Bound<'py, PyTensor>> {
    let t = from_object(data, d, v)?;
    if requires_grad {
        t.set_requires_grad(true).py(py)?;
    }
    wrap(py, t)
}

/// A tensor with a copy of `data` (numbers, nested sequences, arrays, tensors).
#[pyfunction]
#[pyo3(name = "tensor", signature = (data, *, dtype=None, device=None, requires_grad=false, pin_memory=false))]
pub fn make_tensor<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    device: Option<&Bound<'py, PyAny>>,
    requires_grad: bool,
    pin_memory: bool,
) -> PyResult<Bound<'py, PyTensor>> {
    no_pin("tensor", pin_memory)?;
    if get(data).is_some() {
        let warnings = py.import("warnings")?;
        warnings.call_method1("warn", (
            "To copy construct from a tensor, it is recommended to use sourceTensor.detach().clone() or sourceTensor.detach().clone().requires_grad_(True), rather than torch.tensor(sourceTensor).",
            py.get_type::<pyo3::exceptions::PyUserWarning>(),
            1,
        ))?;
    }
    fresh(py, data, args::dtype_arg("tensor", dtype)?, args::device_arg("tensor", device)?, requires_grad)
}

fn no_pin(op: &str, pin: bool) -> PyResult<()> {
    if pin {
        return Err(crate::convert::no_pinned_memory(op));
    }
    Ok(())
}

/// As `tensor`, but sharing memory with arrays and tensors where it can.
#[pyfunction]
#[pyo3(signature = (data, dtype=None, device=None))]
pub fn as_tensor<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    device: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTensor>> {
    let d = args::dtype_arg("as_tensor", dtype)?;
    let v = args::device_arg("as_tensor", device)?;
    shared(py, data, d, v, None)
}

/// The tensor over shared memory if `copy` is not True.
fn shared<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    d: Option<DType>,
    v: Option<Device>,
    copy: Option<bool>,
) -> PyResult<Bound<'py, PyTensor>> {
    let place = |t: Tensor| (d.unwrap_or(t.dtype()), v.unwrap_or(t.device()));
    if let Ok(o) = data.cast::<PyTensor>() {
        let t = o.get().tensor(py);
        let (d, v) = place(t.clone());
        if copy == Some(false) && (d != t.dtype() || v != t.device()) {
            return Err(PyValueError::new_err(
                "asarray(): a copy is needed for this dtype or device, but copy=False was given",
            ));
        }
        let same = t.clone();
        let y = enter(py, Work::Elements(t.numel()), move || {
            ops::to(&t, d, v, copy == Some(true), MemoryFormat::Preserve)
        })?;
        return if y.same(&same) { Ok(o.clone()) } else { wrap(py, y) };
    }
    if let Some(t) = interop::array_like(data)? {
        let (d, v) = place(t.clone());
        if copy == Some(false) && (d != t.dtype() || v != t.device()) {
            return Err(PyValueError::new_err(
                "asarray(): a copy is needed for this dtype or device, but copy=False was given",
            ));
        }
        let y = enter(py, Work::Elements(t.numel()), move || {
            ops::to(&t, d, v, copy == Some(true), MemoryFormat::Preserve)
        })?;
        return wrap(py, y);
    }
    if copy == Some(false) {
        return Err(PyValueError::new_err(
            "asarray(): Python sequences can't be shared, but copy=False was given",
        ));
    }
    fresh(py, data, d, v, false)
}

fn is_buffer(o: &Bound<PyAny>) -> bool {
    // SAFETY: a type check on a live object.
    unsafe { pyo3::ffi::PyObject_CheckBuffer(o.as_ptr()) != 0 }
}

/// As `as_tensor`, with a say on copying; understands DLPack and buffers as well.
#[pyfunction]
#[pyo3(signature = (obj, *, dtype=None, device=None, copy=None, requires_grad=false))]
pub fn asarray<'py>(
    py: Python<'py>,
    obj: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    device: Option<&Bound<'py, PyAny>>,
    copy: Option<bool>,
    requires_grad: bool,
) -> PyResult<Bound<'py, PyTensor>> {
    let d = args::dtype_arg("asarray", dtype)?;
    let v = args::device_arg("asarray", device)?;
    let known = get(obj).is_some() || obj.hasattr("__array_interface__")?;
    let t = if !known && obj.hasattr("__dlpack__")? {
        let t = crate::dlpack::from_dlpack(py, obj, None, None)?;
        shared(py, t.as_any(), d, v, copy)?
    } else if !known && is_buffer(obj) {
        // Bytes say nothing of their dtype.
        let dtype = crate::types::dtype_object(py, d.unwrap_or_else(DType::default_float))?;
        let t = interop::frombuffer(py, obj, dtype.bind(py), -1, 0, false)?;
        shared(py, t.as_any(), d, v, copy)?
    } else {
        shared(py, obj, d, v, copy)?
    };
    if requires_grad && !t.get().tensor(py).requires_grad() {
        let own = if get(obj).is_some() { wrap(py, t.get().tensor(py).alias())? } else { t };
        own.get().tensor(py).set_requires_grad(true).py(py)?;
        tensor::link(&own);
        return Ok(own);
    }
    Ok(t)
}

/// Rebuilds a pickled tensor.
#[pyfunction]
pub fn _rebuild<'py>(
    py: Python<'py>,
    cls: &Bound<'py, PyType>,
    bytes: &Bound<'py, PyBytes>,
    dtype: &Bound<'py, PyAny>,
    shape: Vec<usize>,
    requires_grad: bool,
) -> PyResult<Bound<'py, PyTensor>> {
    let Some(d) = args::dtype_arg("_rebuild", Some(dtype))? else {
        return tensor::runtime("_rebuild: no dtype");
    };
    let want = pyrite_core::layout::numel(&shape).py(py)?.checked_mul(d.size());
    if want != Some(bytes.as_bytes().len()) {
        return Err(PyValueError::new_err(format!(
            "_rebuild: {} bytes do not fill shape {shape:?} of {d}",
            bytes.as_bytes().len()
        )));
    }
    let t = Tensor::empty(&shape, d, Device::Cpu).py(py)?;
    // SAFETY: the new contiguous tensor holds exactly as many bytes as were given.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_bytes().as_ptr(), t.ptr(), bytes.as_bytes().len()) };
    if requires_grad {
        t.set_requires_grad(true).py(py)?;
    }
    if cls.is(py.get_type::<PyTensor>()) { wrap(py, t) } else { tensor::make_subclass(cls, t) }
}

#[pymethods]
impl PyTensor {
    fn __reduce_ex__<'py>(
        slf: &Bound<'py, Self>,
        _protocol: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let t = slf.get().tensor(py);
        if !t.is_leaf() {
            return tensor::runtime(
                "Only Tensors created explicitly by the user (graph leaves) support the pickle protocol at the moment: call .detach() first",
            );
        }
        let c = t.alias();
        let c =
            enter(py, Work::Elements(t.numel()), move || ops::contiguous(&ops::to_device(&c, Device::Cpu)?))?;
        let n = c.numel() * c.dtype().size();
        let raw: &[u8] = if n == 0 {
            &[]
        } else {
            // SAFETY: `c` is contiguous on the CPU and holds `n` bytes; it lives until the copy is made.
            unsafe { std::slice::from_raw_parts(c.ptr(), n) }
        };
        let bytes = PyBytes::new(py, raw);
        let rebuild = py.import("pyrite._C")?.getattr("_rebuild")?;
        let arguments = (
            slf.get_type(),
            bytes,
            crate::types::dtype_object(py, t.dtype())?,
            PyTuple::new(py, t.shape())?,
            t.requires_grad(),
        );
        let state = state_of(slf)?;
        match state {
            None => PyTuple::new(py, [rebuild, arguments.into_pyobject(py)?.into_any()]),
            Some(d) => PyTuple::new(py, [rebuild, arguments.into_pyobject(py)?.into_any(), d.into_any()]),
        }
    }
    fn __setstate__(slf: &Bound<Self>, state: &Bound<PyDict>) -> PyResult<()> {
        slf.getattr("__dict__")?.call_method1("update", (state,))?;
        Ok(())
    }
    fn __copy__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let t = slf.get().tensor(slf.py()).alias();
        if slf.get().tensor(slf.py()).requires_grad() {
            t.set_requires_grad(true).py(slf.py())?;
        }
        tensor::make_subclass(&slf.get_type(), t)
    }
    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, memo: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let key = slf.as_ptr() as usize;
        if let Some(done) = memo.get_item(key)? {
            return Ok(done);
        }
        let t = slf.get().tensor(py);
        if !t.is_leaf() {
            return tensor::runtime(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment. Call .detach() first.",
            );
        }
        let grad = t.grad();
        let wants = t.requires_grad();
        let (copied, grad) = enter(py, Work::Elements(t.numel()), move || {
            let grad = grad.map(|g| ops::clone(&g.alias())).transpose()?;
            Ok((ops::clone(&t.alias())?, grad))
        })?;
        copied.set_requires_grad(wants).py(py)?;
        if let Some(g) = grad {
            copied.set_grad(Some(g)).py(py)?;
        }
        let new = if slf.is_exact_instance_of::<PyTensor>() {
            wrap(py, copied)?
        } else {
            tensor::make_subclass(&slf.get_type(), copied)?
        };
        memo.set_item(key, &new)?;
        if let Some(d) = state_of(slf)? {
            let copy = py.import("copy")?.call_method1("deepcopy", (d, memo))?;
            new.getattr("__dict__")?.call_method1("update", (copy,))?;
        }
        Ok(new.into_any())
    }
}

/// Attributes the user set, if any.
fn state_of<'py>(slf: &Bound<'py, PyTensor>) -> PyResult<Option<Bound<'py, PyDict>>> {
    let d = slf.getattr("__dict__")?.cast_into::<PyDict>()?;
    Ok(if d.is_empty() { None } else { Some(d) })
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(make_tensor, m)?)?;
    m.add_function(wrap_pyfunction!(as_tensor, m)?)?;
    m.add_function(wrap_pyfunction!(asarray, m)?)?;
    m.add_function(wrap_pyfunction!(_rebuild, m)?)?;
    Ok(())
}
