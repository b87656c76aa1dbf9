//! Small value types of the module: `dtype`, `device`, `layout`, `memory_format`, `Size`, `finfo`,
//! `iinfo`. dtypes, layouts and memory formats are one object each, so `is` works on them.

use crate::error::IntoPy;
use pyo3::basic::CompareOp;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyComplex, PyDict, PyFloat, PyInt, PyString, PyType};
use pyrite_core::{DType, Device};
use pyrite_tensor::MemoryFormat;
use pyrite_tensor::config::{default_device, set_default_device};

// ---- dtype --------------------------------------------------------------------------------------

/// The type of a tensor's elements.
#[pyclass(frozen, name = "dtype", module = "pyrite")]
pub struct PyDType(pub DType);

static DTYPES: PyOnceLock<Vec<Py<PyDType>>> = PyOnceLock::new();

/// The object that stands for a dtype.
pub fn dtype_object(py: Python<'_>, d: DType) -> PyResult<Py<PyDType>> {
    let all = DTYPES.get_or_try_init(py, || {
        DType::ALL.iter().map(|d| Py::new(py, PyDType(*d))).collect::<PyResult<Vec<_>>>()
    })?;
    match DType::ALL.iter().position(|x| *x == d) {
        Some(i) => Ok(all[i].clone_ref(py)),
        None => Err(PyRuntimeError::new_err("unknown dtype")),
    }
}

#[pymethods]
impl PyDType {
    fn __repr__(&self) -> String {
        self.0.to_string()
    }
    fn __reduce__(&self) -> &'static str {
        self.0.name()
    }
    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }
    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<PyAny>) -> Py<Self> {
        slf
    }
    #[getter]
    fn itemsize(&self) -> usize {
        self.0.size()
    }
    #[getter]
    fn is_floating_point(&self) -> bool {
        self.0.is_float()
    }
    #[getter]
    fn is_complex(&self) -> bool {
        self.0.is_complex()
    }
    #[getter]
    fn is_signed(&self) -> bool {
        self.0.is_signed()
    }
    fn to_real(&self, py: Python) -> PyResult<Py<PyDType>> {
        dtype_object(py, self.0.real())
    }
    fn to_complex(&self, py: Python) -> PyResult<Py<PyDType>> {
        dtype_object(py, self.0.complex())
    }
}

/// Reads a dtype: the object itself, or Python's `float`, `int`, `bool`, `complex`.
pub fn as_dtype(obj: &Bound<PyAny>) -> Option<DType> {
    if let Ok(d) = obj.cast::<PyDType>() {
        return Some(d.get().0);
    }
    let py = obj.py();
    if obj.is(py.get_type::<PyFloat>()) {
        Some(DType::F64)
    } else if obj.is(py.get_type::<PyInt>()) {
        Some(DType::I64)
    } else if obj.is(py.get_type::<PyBool>()) {
        Some(DType::Bool)
    } else if obj.is(py.get_type::<PyComplex>()) {
        Some(DType::C128)
    } else {
        None
    }
}

// ---- device -------------------------------------------------------------------------------------

/// Where a tensor lives: `device("cpu")`, `device("cuda:1")`, `device("cuda", 1)`.
#[pyclass(frozen, name = "device", module = "pyrite")]
pub struct PyDevice {
    pub device: Device,
    /// `cuda` without an index prints and compares differently from `cuda:0`.
    indexed: bool,
}

/// The default devices outside of the `with device:` blocks that are open.
static OUTER: std::sync::Mutex<Vec<Device>> = std::sync::Mutex::new(Vec::new());

impl PyDevice {
    pub fn of(device: Device) -> PyDevice {
        PyDevice { device, indexed: device.is_cuda() }
    }
}

#[pymethods]
impl PyDevice {
    #[new]
    #[pyo3(signature = (r#type, index=None))]
    fn new(r#type: &Bound<PyAny>, index: Option<i64>) -> PyResult<PyDevice> {
        let py = r#type.py();
        if let Ok(d) = r#type.cast::<PyDevice>() {
            return Ok(PyDevice { device: d.get().device, indexed: d.get().indexed });
        }
        if let Ok(s) = r#type.cast::<PyString>() {
            let text = s.to_string();
            let parsed = Device::parse(&text).py(py)?;
            let Some(i) = index else { return Ok(PyDevice { device: parsed, indexed: text.contains(':') }) };
            if text.contains(':') {
                return Err(PyRuntimeError::new_err(format!(
                    "type (string) must not include an index because index was passed explicitly: {text}"
                )));
            }
            return match parsed {
                Device::Cpu if i == 0 || i == -1 => Ok(PyDevice { device: Device::Cpu, indexed: i == 0 }),
                Device::Cpu => Err(PyRuntimeError::new_err(
                    "CPU device index must be -1 or zero, got ".to_owned() + &i.to_string(),
                )),
                Device::Cuda(_) => Ok(PyDevice { device: cuda_index(i)?, indexed: true }),
            };
        }
        if let Ok(i) = r#type.extract::<i64>() {
            return Ok(PyDevice { device: cuda_index(i)?, indexed: true });
        }
        Err(PyTypeError::new_err(format!(
            "device(): argument 'type' must be a str, an int or a device, not {}",
            r#type.get_type().name()?
        )))
    }
    #[getter]
    fn r#type(&self) -> &'static str {
        self.device.kind()
    }
    #[getter]
    fn index(&self) -> Option<u8> {
        match self.device {
            Device::Cuda(i) if self.indexed => Some(i),
            Device::Cpu if self.indexed => Some(0),
            _ => None,
        }
    }
    fn __repr__(&self) -> String {
        match self.index() {
            Some(i) => format!("device(type='{}', index={i})", self.device.kind()),
            None => format!("device(type='{}')", self.device.kind()),
        }
    }
    fn __str__(&self) -> String {
        match self.index() {
            Some(i) => format!("{}:{i}", self.device.kind()),
            None => self.device.kind().to_owned(),
        }
    }
    fn __richcmp__(&self, other: &Bound<PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = other.py();
        let Ok(o) = other.cast::<PyDevice>() else { return Ok(py.NotImplemented()) };
        let same = self.device == o.get().device && self.indexed == o.get().indexed;
        Ok(match op {
            CompareOp::Eq => PyBool::new(py, same).to_owned().into_any().unbind(),
            CompareOp::Ne => PyBool::new(py, !same).to_owned().into_any().unbind(),
            _ => py.NotImplemented(),
        })
    }
    fn __hash__(&self) -> u64 {
        match self.device {
            Device::Cpu => 1 + self.indexed as u64,
            Device::Cuda(i) => 16 + 2 * i as u64 + self.indexed as u64,
        }
    }
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, (String,))> {
        Ok((slf.get_type(), (slf.get().__str__(),)))
    }
    /// `with torch.device("cuda"):` makes it the default device inside the block.
    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        let mut outer = OUTER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        outer.push(default_device());
        set_default_device(slf.get().device);
        drop(outer);
        slf
    }
    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<pyo3::types::PyTuple>) {
        let mut outer = OUTER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(d) = outer.pop() {
            set_default_device(d);
        }
    }
}

fn cuda_index(i: i64) -> PyResult<Device> {
    u8::try_from(i)
        .map(Device::Cuda)
        .map_err(|_| PyRuntimeError::new_err(format!("Device index must be between 0 and 255, got {i}")))
}

/// Reads a device: object, text or CUDA index. `Ok(None)`: not something that names a device.
pub fn as_device(obj: &Bound<PyAny>) -> PyResult<Option<Device>> {
    if let Ok(d) = obj.cast::<PyDevice>() {
        return Ok(Some(d.get().device));
    }
    if let Ok(s) = obj.cast::<PyString>() {
        return Device::parse(&s.to_string()).py(obj.py()).map(Some);
    }
    if obj.is_instance_of::<PyInt>() && !obj.is_instance_of::<PyBool>() {
        return cuda_index(obj.extract()?).map(Some);
    }
    Ok(None)
}

pub fn device_object(py: Python, d: Device) -> PyResult<Py<PyDevice>> {
    static CPU: PyOnceLock<Py<PyDevice>> = PyOnceLock::new();
    match d {
        Device::Cpu => Ok(CPU.get_or_try_init(py, || Py::new(py, PyDevice::of(Device::Cpu)))?.clone_ref(py)),
        d => Py::new(py, PyDevice::of(d)),
    }
}

// ---- layout and memory format -------------------------------------------------------------------

/// How a tensor's memory is organised; only `strided` exists.
#[pyclass(frozen, name = "layout", module = "pyrite")]
pub struct PyLayout(pub &'static str);

#[pymethods]
impl PyLayout {
    fn __repr__(&self) -> String {
        format!("torch.{}", self.0)
    }
    fn __reduce__(&self) -> &'static str {
        self.0
    }
}

pub fn strided(py: Python) -> PyResult<Py<PyLayout>> {
    static ONE: PyOnceLock<Py<PyLayout>> = PyOnceLock::new();
    Ok(ONE.get_or_try_init(py, || Py::new(py, PyLayout("strided")))?.clone_ref(py))
}

/// The order of a new tensor's dimensions in memory.
#[pyclass(frozen, name = "memory_format", module = "pyrite")]
pub struct PyMemoryFormat(pub MemoryFormat);

impl PyMemoryFormat {
    fn text(&self) -> &'static str {
        match self.0 {
            MemoryFormat::Contiguous => "contiguous_format",
            MemoryFormat::Preserve => "preserve_format",
            MemoryFormat::ChannelsLast => "channels_last",
            MemoryFormat::ChannelsLast3d => "channels_last_3d",
        }
    }
}

#[pymethods]
impl PyMemoryFormat {
    fn __repr__(&self) -> String {
        format!("torch.{}", self.text())
    }
    fn __reduce__(&self) -> &'static str {
        self.text()
    }
}

// ---- Size ---------------------------------------------------------------------------------------

static SIZE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// `Size` is a tuple with `numel()`; written in Python because a tuple subclass cannot be a pyclass
/// under the stable ABI.
const SIZE_SOURCE: &std::ffi::CStr = c"
class Size(tuple):
    '''The shape of a tensor: a tuple of ints.'''
    __slots__ = ()
    __module__ = 'pyrite'

    def __new__(cls, iterable=()):
        items = tuple(iterable)
        for i, n in enumerate(items):
            if not hasattr(type(n), '__index__') or isinstance(n, bool):
                raise TypeError(f'Size() takes an iterable of int (item {i} is {type(n).__name__!r})')
        return tuple.__new__(cls, [int(n) for n in items])

    def numel(self):
        '''The number of elements of a tensor of this shape.'''
        n = 1
        for s in self:
            n *= s
        return n

    def __repr__(self):
        return f'torch.Size([{\", \".join(map(repr, self))}])'

    __str__ = __repr__

    def __add__(self, other):
        if not isinstance(other, tuple):
            return NotImplemented
        return tuple.__new__(Size, tuple.__add__(self, other))

    def __radd__(self, other):
        if not isinstance(other, tuple):
            return NotImplemented
        return tuple.__new__(Size, tuple.__add__(other, self))

    def __mul__(self, n):
        result = tuple.__mul__(self, n)
        return result if result is NotImplemented else tuple.__new__(Size, result)

    __rmul__ = __mul__

    def __getitem__(self, i):
        result = tuple.__getitem__(self, i)
        return tuple.__new__(Size, result) if isinstance(i, slice) else result

    def __reduce__(self):
        return (Size, (tuple(self),))
";

pub fn size_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    let class = SIZE.get_or_try_init(py, || {
        let scope = PyDict::new(py);
        scope.set_item("__builtins__", py.import("builtins")?)?;
        py.run(SIZE_SOURCE, Some(&scope), Some(&scope))?;
        match scope.get_item("Size")? {
            Some(c) => Ok::<_, PyErr>(c.cast_into::<PyType>()?.unbind()),
            None => Err(PyRuntimeError::new_err("Size was not defined")),
        }
    })?;
    Ok(class.bind(py))
}

/// A `Size` from sizes, without going through its checking constructor.
pub fn size_object<'py>(py: Python<'py>, shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
    let class = size_class(py)?;
    // SAFETY: `Size` is a subclass of tuple without fields of its own: the generic allocation gives a
    // tuple of empty slots that nobody else sees, and every slot is filled before it is handed out.
    unsafe {
        let p = ffi::PyType_GenericAlloc(
            class.as_ptr() as *mut ffi::PyTypeObject,
            shape.len() as ffi::Py_ssize_t,
        );
        let t = Bound::from_owned_ptr_or_err(py, p)?;
        for (i, n) in shape.iter().enumerate() {
            let item = ffi::PyLong_FromSize_t(*n);
            if item.is_null() || ffi::PyTuple_SetItem(p, i as ffi::Py_ssize_t, item) != 0 {
                return Err(PyErr::fetch(py));
            }
        }
        Ok(t)
    }
}

// ---- finfo and iinfo ----------------------------------------------------------------------------

/// Limits of a floating dtype.
#[pyclass(frozen, name = "finfo", module = "pyrite", get_all)]
pub struct FInfo {
    bits: usize,
    eps: f64,
    max: f64,
    min: f64,
    tiny: f64,
    smallest_normal: f64,
    resolution: f64,
    dtype: &'static str,
}

#[pymethods]
impl FInfo {
    #[new]
    #[pyo3(signature = (r#type=None))]
    fn new(r#type: Option<&Bound<PyAny>>) -> PyResult<FInfo> {
        let d = match r#type {
            None => DType::default_float(),
            Some(o) => match as_dtype(o) {
                Some(d) => d,
                None => return Err(PyTypeError::new_err("finfo(): argument 'type' must be a dtype")),
            },
        };
        let (bits, eps, max, tiny, resolution) = match d.real() {
            DType::F16 => (16, 2f64.powi(-10), 65504.0, 2f64.powi(-14), 1e-3),
            DType::BF16 => (16, 2f64.powi(-7), f32::from_bits(0x7f7f_0000) as f64, 2f64.powi(-126), 1e-2),
            DType::F32 => (32, f32::EPSILON as f64, f32::MAX as f64, f32::MIN_POSITIVE as f64, 1e-6),
            DType::F64 => (64, f64::EPSILON, f64::MAX, f64::MIN_POSITIVE, 1e-15),
            d => {
                return Err(PyTypeError::new_err(format!(
                    "finfo() requires a floating point input type. Use torch.iinfo to handle 'torch.iinfo' (got {d})"
                )));
            }
        };
        Ok(FInfo {
            bits,
            eps,
            max,
            min: -max,
            tiny,
            smallest_normal: tiny,
            resolution,
            dtype: d.real().name(),
        })
    }
    fn __repr__(&self) -> String {
        let e = |v: f64| python_g(v);
        format!(
            "finfo(resolution={}, min={}, max={}, eps={}, smallest_normal={}, tiny={}, dtype={})",
            e(self.resolution),
            e(self.min),
            e(self.max),
            e(self.eps),
            e(self.tiny),
            e(self.tiny),
            self.dtype
        )
    }
}

/// Six significant digits as C's `%g` prints them (only magnitudes that need an exponent, or 65504).
fn python_g(v: f64) -> String {
    if v == 0.0 || (1e-4..1e6).contains(&v.abs()) {
        let s = format!("{v:.6}");
        return s.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let s = format!("{v:.5e}");
    let (mantissa, exp) = s.split_once('e').unwrap_or((&s, "0"));
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let n: i32 = exp.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if n < 0 { '-' } else { '+' }, n.abs())
}

/// Limits of an integer dtype.
#[pyclass(frozen, name = "iinfo", module = "pyrite", get_all)]
pub struct IInfo {
    bits: usize,
    max: i128,
    min: i128,
    dtype: &'static str,
}

#[pymethods]
impl IInfo {
    #[new]
    fn new(r#type: &Bound<PyAny>) -> PyResult<IInfo> {
        match as_dtype(r#type) {
            Some(d) if d.is_int() => {
                let bits = d.size() * 8;
                let (min, max) = if d.is_signed() {
                    (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
                } else {
                    (0, (1i128 << bits) - 1)
                };
                Ok(IInfo { bits, max, min, dtype: d.name() })
            }
            Some(d) => Err(PyTypeError::new_err(format!(
                "iinfo() requires an integer input type. Use torch.finfo to handle 'torch.finfo' (got {d})"
            ))),
            None => Err(PyTypeError::new_err("iinfo(): argument 'type' must be a dtype")),
        }
    }
    fn __repr__(&self) -> String {
        format!("iinfo(min={}, max={}, dtype={})", self.min, self.max, self.dtype)
    }
}

/// Puts the types and their named values into the module.
pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    let py = m.py();
    m.add_class::<PyDType>()?;
    m.add_class::<PyDevice>()?;
    m.add_class::<PyLayout>()?;
    m.add_class::<PyMemoryFormat>()?;
    m.add_class::<FInfo>()?;
    m.add_class::<IInfo>()?;
    m.add("Size", size_class(py)?)?;
    for d in DType::ALL {
        let o = dtype_object(py, *d)?;
        m.add(d.name(), &o)?;
        if d.alias() != d.name() {
            m.add(d.alias(), &o)?;
        }
    }
    m.add("strided", strided(py)?)?;
    for f in [
        MemoryFormat::Contiguous,
        MemoryFormat::Preserve,
        MemoryFormat::ChannelsLast,
        MemoryFormat::ChannelsLast3d,
    ] {
        let o = PyMemoryFormat(f);
        m.add(o.text(), o)?;
    }
    Ok(())
}
