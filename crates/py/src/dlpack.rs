//! DLPack, both ways: `Tensor.__dlpack__`, `__dlpack_device__`, `from_dlpack`. Versioned capsules
//! (DLPack 1.x) where the consumer knows them, the unversioned ones otherwise.

use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::tensor::{PyTensor, wrap};
use crate::types::as_device;
use pyo3::exceptions::{PyBufferError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyrite_core::storage::Owner;
use pyrite_core::{DType, Device, Layout, Storage};
use pyrite_tensor::{MemoryFormat, Tensor, ops};
use std::ffi::{CStr, c_void};

const CPU: i32 = 1;
const CUDA: i32 = 2;
const CUDA_HOST: i32 = 3;
const CUDA_MANAGED: i32 = 13;
const READ_ONLY: u64 = 1;
const IS_COPIED: u64 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
struct DlDevice {
    kind: i32,
    id: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DlType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device: DlDevice,
    ndim: i32,
    dtype: DlType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct Managed {
    tensor: DlTensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

#[repr(C)]
struct Versioned {
    major: u32,
    minor: u32,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: DlTensor,
}

const LEGACY: &CStr = c"dltensor";
const LEGACY_USED: &CStr = c"used_dltensor";
const NEW: &CStr = c"dltensor_versioned";
const NEW_USED: &CStr = c"used_dltensor_versioned";

fn type_code(d: DType) -> DlType {
    let code = match d {
        DType::Bool => 6,
        DType::BF16 => 4,
        d if d.is_complex() => 5,
        d if d.is_float() => 2,
        d if d.is_signed() => 0,
        _ => 1,
    };
    DlType { code, bits: (d.size() * 8) as u8, lanes: 1 }
}

fn from_type(t: DlType) -> PyResult<DType> {
    let found = DType::ALL.iter().copied().find(|d| {
        let c = type_code(*d);
        c.code == t.code && c.bits == t.bits
    });
    match found {
        Some(d) if t.lanes == 1 => Ok(d),
        _ => Err(PyBufferError::new_err(format!(
            "DLPack: element type with code {}, {} bits and {} lanes is not supported",
            t.code, t.bits, t.lanes
        ))),
    }
}

fn device_code(d: Device) -> DlDevice {
    match d {
        Device::Cpu => DlDevice { kind: CPU, id: 0 },
        Device::Cuda(i) => DlDevice { kind: CUDA, id: i as i32 },
    }
}

/// What an exported tensor keeps alive: the handle, and the arrays its header points to.
struct Kept {
    _t: Tensor,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

fn header(t: &Tensor, kept: &mut Kept) -> DlTensor {
    DlTensor {
        data: t.ptr() as *mut c_void,
        device: device_code(t.device()),
        ndim: t.ndim() as i32,
        dtype: type_code(t.dtype()),
        shape: kept.shape.as_mut_ptr(),
        strides: kept.strides.as_mut_ptr(),
        byte_offset: 0,
    }
}

unsafe extern "C" fn delete_legacy(m: *mut Managed) {
    // SAFETY: `m` and its context were made by Box::into_raw in `export`, and a deleter runs once.
    unsafe {
        drop(Box::from_raw((*m).context as *mut Kept));
        drop(Box::from_raw(m));
    }
}

unsafe extern "C" fn delete_new(m: *mut Versioned) {
    // SAFETY: as above.
    unsafe {
        drop(Box::from_raw((*m).context as *mut Kept));
        drop(Box::from_raw(m));
    }
}

/// Frees what nobody consumed: a consumer renames the capsule.
unsafe extern "C" fn drop_capsule(c: *mut ffi::PyObject) {
    // SAFETY: called by CPython with a capsule of ours; the names tell which struct it holds.
    unsafe {
        if ffi::PyCapsule_IsValid(c, LEGACY.as_ptr()) != 0 {
            delete_legacy(ffi::PyCapsule_GetPointer(c, LEGACY.as_ptr()) as *mut Managed);
        } else if ffi::PyCapsule_IsValid(c, NEW.as_ptr()) != 0 {
            delete_new(ffi::PyCapsule_GetPointer(c, NEW.as_ptr()) as *mut Versioned);
        }
    }
}

fn export<'py>(py: Python<'py>, t: Tensor, versioned: bool, copied: bool) -> PyResult<Bound<'py, PyAny>> {
    let read_only = t.storage().is_read_only();
    if read_only && !versioned {
        return Err(PyBufferError::new_err(
            "Cannot export readonly tensor with unversioned DLPack: ask for max_version=(1, 0) or copy the tensor",
        ));
    }
    let mut kept = Box::new(Kept {
        shape: t.shape().iter().map(|s| *s as i64).collect(),
        strides: t.strides().iter().map(|s| *s as i64).collect(),
        _t: t.clone(),
    });
    let tensor = header(&t, &mut kept);
    let context = Box::into_raw(kept) as *mut c_void;
    // SAFETY: the capsule owns the boxed struct until it is consumed; `drop_capsule` frees it else.
    unsafe {
        let (p, name) = if versioned {
            let flags = if read_only { READ_ONLY } else { 0 } | if copied { IS_COPIED } else { 0 };
            let m = Versioned { major: 1, minor: 0, context, deleter: Some(delete_new), flags, tensor };
            (Box::into_raw(Box::new(m)) as *mut c_void, NEW)
        } else {
            let m = Managed { tensor, context, deleter: Some(delete_legacy) };
            (Box::into_raw(Box::new(m)) as *mut c_void, LEGACY)
        };
        let c = ffi::PyCapsule_New(p, name.as_ptr(), Some(drop_capsule));
        if c.is_null() {
            if versioned { delete_new(p as *mut Versioned) } else { delete_legacy(p as *mut Managed) }
        }
        Bound::from_owned_ptr_or_err(py, c)
    }
}

#[pymethods]
impl PyTensor {
    /// A DLPack capsule over this tensor's memory.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        slf: &Bound<'py, Self>,
        stream: Option<&Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let t = slf.get().tensor(py);
        if t.requires_grad() {
            return Err(PyBufferError::new_err(
                "Can't export tensors that require gradient, use tensor.detach()",
            ));
        }
        if t.is_lazy() {
            return Err(PyBufferError::new_err(
                "Can't export tensors with the conjugate bit set, use tensor.resolve_conj()",
            ));
        }
        if t.device() == Device::Cpu
            && stream.is_some_and(|s| !s.is_none() && s.extract::<i64>().ok() != Some(-1))
        {
            return Err(PyBufferError::new_err("__dlpack__: a stream makes no sense for a CPU tensor"));
        }
        let mut target = t.device();
        if let Some((kind, id)) = dl_device {
            target = match kind {
                CPU => Device::Cpu,
                CUDA => Device::Cuda(
                    u8::try_from(id)
                        .map_err(|_| PyBufferError::new_err(format!("__dlpack__: no device {id}")))?,
                ),
                k => {
                    return Err(PyBufferError::new_err(format!(
                        "__dlpack__: cannot export to device type {k}"
                    )));
                }
            };
            if target != t.device() && copy == Some(false) {
                return Err(PyValueError::new_err(
                    "__dlpack__: moving to another device needs a copy, but copy=False was given",
                ));
            }
        }
        let copied = copy == Some(true) || target != t.device();
        let t = if copied {
            let from = t.clone();
            enter(py, Work::Elements(t.numel()), move || {
                ops::to(&from, from.dtype(), target, true, MemoryFormat::Preserve)
            })?
        } else {
            t.alias()
        };
        if t.device().is_cuda() {
            // Whoever reads from another stream finds finished data.
            t.backend().py(py)?.synchronize().py(py)?;
        }
        export(py, t, max_version.is_some_and(|v| v.0 >= 1), copied)
    }

    /// (device type, index) as DLPack numbers them.
    fn __dlpack_device__(slf: &Bound<Self>) -> (i32, i32) {
        let d = device_code(slf.get().tensor(slf.py()).device());
        (d.kind, d.id)
    }
}

/// What keeps imported memory alive: the producer's struct, given back through its deleter.
enum Imported {
    Legacy(*mut Managed),
    New(*mut Versioned),
}

// SAFETY: DLPack allows the deleter to be called from any thread; the pointer is used for nothing else.
unsafe impl Send for Imported {}
// SAFETY: as above.
unsafe impl Sync for Imported {}

impl Drop for Imported {
    fn drop(&mut self) {
        // Producers written in Python may touch Python objects in their deleter.
        Python::attach(|_| {
            // SAFETY: the struct was handed over by renaming its capsule; its deleter runs once, here.
            unsafe {
                match *self {
                    Imported::Legacy(m) => {
                        if let Some(f) = (*m).deleter {
                            f(m);
                        }
                    }
                    Imported::New(m) => {
                        if let Some(f) = (*m).deleter {
                            f(m);
                        }
                    }
                }
            }
        });
    }
}

/// Takes a capsule's struct over.
fn consume(capsule: &Bound<PyAny>) -> PyResult<(Tensor, bool)> {
    let py = capsule.py();
    let c = capsule.as_ptr();
    // SAFETY: the capsule is checked by name before its pointer is used; renaming it takes ownership,
    // as the protocol says.
    let (owner, tensor, flags) = unsafe {
        if ffi::PyCapsule_IsValid(c, NEW.as_ptr()) != 0 {
            let m = ffi::PyCapsule_GetPointer(c, NEW.as_ptr()) as *mut Versioned;
            if (*m).major != 1 {
                return Err(PyBufferError::new_err(format!(
                    "DLPack version {}.{} is not supported",
                    (*m).major,
                    (*m).minor
                )));
            }
            ffi::PyCapsule_SetName(c, NEW_USED.as_ptr());
            ffi::PyCapsule_SetDestructor(c, None);
            (Imported::New(m), &(*m).tensor, (*m).flags)
        } else if ffi::PyCapsule_IsValid(c, LEGACY.as_ptr()) != 0 {
            let m = ffi::PyCapsule_GetPointer(c, LEGACY.as_ptr()) as *mut Managed;
            ffi::PyCapsule_SetName(c, LEGACY_USED.as_ptr());
            ffi::PyCapsule_SetDestructor(c, None);
            (Imported::Legacy(m), &(*m).tensor, 0)
        } else {
            return Err(PyTypeError::new_err(
                "from_dlpack: the capsule is not named 'dltensor' or 'dltensor_versioned', or was consumed before",
            ));
        }
    };
    let d = from_type(tensor.dtype)?;
    let device = match tensor.device.kind {
        CPU | CUDA_HOST => Device::Cpu,
        CUDA | CUDA_MANAGED => Device::Cuda(
            u8::try_from(tensor.device.id).map_err(|_| PyBufferError::new_err("DLPack: bad device index"))?,
        ),
        k => return Err(PyBufferError::new_err(format!("from_dlpack: device type {k} is not supported"))),
    };
    let n = usize::try_from(tensor.ndim).map_err(|_| PyBufferError::new_err("DLPack: negative rank"))?;
    let read = |p: *mut i64| -> Vec<i64> {
        if p.is_null() || n == 0 {
            return Vec::new();
        }
        // SAFETY: the protocol says that the arrays hold `ndim` numbers.
        unsafe { std::slice::from_raw_parts(p, n) }.to_vec()
    };
    let shape = pyrite_core::layout::checked_shape("from_dlpack", &read(tensor.shape)).py(py)?;
    let strides: Vec<isize> = if tensor.strides.is_null() {
        pyrite_core::layout::contiguous_strides(&shape).to_vec()
    } else {
        read(tensor.strides).into_iter().map(|s| s as isize).collect()
    };
    let numel = pyrite_core::layout::numel(&shape).py(py)?;
    if numel == 0 {
        return Ok((Tensor::empty(&shape, d, device).py(py)?, false));
    }
    let (mut low, mut high) = (0isize, 0isize);
    for (&s, &n) in strides.iter().zip(shape.iter()) {
        let reach = s
            .checked_mul(n as isize - 1)
            .ok_or_else(|| PyBufferError::new_err("DLPack: strides overflow"))?;
        let end = if reach < 0 { &mut low } else { &mut high };
        *end = end.checked_add(reach).ok_or_else(|| PyBufferError::new_err("DLPack: strides overflow"))?;
    }
    let first = (tensor.data as usize).wrapping_add(tensor.byte_offset as usize);
    let size = d.size() as isize;
    if !first.is_multiple_of(d.size().min(8)) {
        return Err(PyBufferError::new_err("from_dlpack: the data is not aligned to its element size"));
    }
    let start = first.wrapping_add_signed(low * size) as *mut u8;
    let bytes = ((high - low + 1) * size) as usize;
    // SAFETY: the producer says that the described elements are valid until the deleter runs, which is
    // when the owner is dropped.
    let storage = unsafe { Storage::from_raw(start, bytes, device, Owner::Foreign(Box::new(owner))) };
    if flags & READ_ONLY != 0 {
        storage.set_read_only();
    }
    let t = Tensor::from_parts(storage, Layout::new(&shape[..], strides.as_slice(), (-low) as usize), d);
    if device.is_cuda() {
        t.backend().py(py)?;
    }
    Ok((t, flags & IS_COPIED != 0))
}

/// A tensor over the memory of any object with `__dlpack__` (or of a capsule).
#[pyfunction]
#[pyo3(signature = (ext_tensor, *, device=None, copy=None))]
pub fn from_dlpack<'py>(
    py: Python<'py>,
    ext_tensor: &Bound<'py, PyAny>,
    device: Option<&Bound<'py, PyAny>>,
    copy: Option<bool>,
) -> PyResult<Bound<'py, PyTensor>> {
    let target = match device {
        Some(d) if !d.is_none() => as_device(d)?,
        _ => None,
    };
    // SAFETY: only asks what kind of object it is.
    let is_capsule = unsafe { ffi::PyCapsule_CheckExact(ext_tensor.as_ptr()) } != 0;
    let capsule = if is_capsule {
        ext_tensor.clone()
    } else {
        if !ext_tensor.hasattr("__dlpack__")? {
            return Err(PyTypeError::new_err(format!(
                "from_dlpack: {} has no __dlpack__",
                ext_tensor.get_type().name()?
            )));
        }
        let kw = PyDict::new(py);
        kw.set_item("max_version", PyTuple::new(py, [1, 0])?)?;
        if let Some(c) = copy {
            kw.set_item("copy", c)?;
        }
        match ext_tensor.call_method("__dlpack__", (), Some(&kw)) {
            Ok(c) => c,
            // Producers from before DLPack 1.0 know neither argument.
            Err(e) if e.is_instance_of::<PyTypeError>(py) => ext_tensor.call_method0("__dlpack__")?,
            Err(e) => return Err(e),
        }
    };
    let (t, copied) = consume(&capsule)?;
    let want = target.unwrap_or(t.device());
    let must_copy = copy == Some(true) && !copied;
    if want != t.device() && copy == Some(false) {
        return Err(PyValueError::new_err(
            "from_dlpack: moving to another device needs a copy, but copy=False was given",
        ));
    }
    let y = enter(py, Work::Elements(t.numel()), move || {
        ops::to(&t, t.dtype(), want, must_copy, MemoryFormat::Preserve)
    })?;
    wrap(py, y)
}

/// The capsule of a tensor, as `torch.utils.dlpack.to_dlpack` gives it.
#[pyfunction]
fn to_dlpack<'py>(tensor: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match tensor.cast::<PyTensor>() {
        Ok(t) => PyTensor::__dlpack__(t, None, None, None, None),
        Err(_) => Err(PyRuntimeError::new_err("to_dlpack: expected a Tensor")),
    }
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(from_dlpack, m)?)?;
    m.add_function(wrap_pyfunction!(to_dlpack, m)?)?;
    Ok(())
}
