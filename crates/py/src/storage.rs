//! `UntypedStorage`: the bytes that one or more tensors share, as a Python object.

use crate::args;
use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::tensor::{self, PyTensor, wrap};
use pyo3::exceptions::{PyIndexError, PyNotImplementedError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PySlice};
use pyrite_core::{DType, Layout, Scalar};
use pyrite_tensor::{Tensor, ops};

/// The bytes that one or more tensors share.
#[pyclass(frozen, name = "UntypedStorage", module = "pyrite")]
pub struct UntypedStorage {
    t: Tensor,
}

impl UntypedStorage {
    pub fn of(t: Tensor) -> UntypedStorage {
        UntypedStorage { t }
    }
    fn count(&self) -> usize {
        self.t.storage().bytes()
    }
    /// All bytes as a tensor.
    fn bytes(&self) -> Tensor {
        Tensor::from_parts(self.t.storage().clone(), Layout::contiguous(&[self.count()]), DType::U8)
    }
    /// The bytes that an index or a slice names.
    fn part(&self, index: &Bound<PyAny>) -> PyResult<Tensor> {
        let n = self.count() as i64;
        if let Ok(s) = index.cast::<PySlice>() {
            let at = s.indices(n as isize)?;
            if at.step != 1 {
                return tensor::runtime(format!(
                    "Trying to slice with a step of {}, but only a step of 1 is supported",
                    at.step
                ));
            }
            let len = (at.stop - at.start).max(0) as i64;
            return ops::narrow(&self.bytes(), 0, at.start as i64, len).py(index.py());
        }
        let Some(i) = args::int(index.as_borrowed())? else {
            return Err(PyTypeError::new_err(format!(
                "can't index a UntypedStorage with {}",
                index.get_type().name()?
            )));
        };
        if i < -n || i >= n {
            return Err(PyIndexError::new_err(format!("index {i} out of range for storage of size {n}")));
        }
        ops::select(&self.bytes(), 0, i).py(index.py())
    }
}

#[pymethods]
impl UntypedStorage {
    fn nbytes(&self) -> usize {
        self.count()
    }
    fn size(&self) -> usize {
        self.count()
    }
    fn __len__(&self) -> usize {
        self.count()
    }
    fn element_size(&self) -> usize {
        1
    }
    fn data_ptr(&self) -> usize {
        self.t.storage().ptr() as usize
    }
    #[getter(device)]
    fn place(&self, py: Python) -> PyResult<Py<crate::types::PyDevice>> {
        crate::types::device_object(py, self.t.device())
    }
    #[getter]
    fn is_cuda(&self) -> bool {
        self.t.device().is_cuda()
    }
    #[pyo3(name = "get_device")]
    fn device_index(&self) -> i64 {
        self.t.device().index().map_or(-1, |i| i as i64)
    }
    fn untyped(slf: Py<Self>) -> Py<Self> {
        slf
    }
    /// One byte as an int, or a storage over a range of bytes (a copy).
    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let part = self.part(index)?;
        if part.ndim() == 0 {
            return Ok(part.item().py(py)?.i64().into_pyobject(py)?.into_any());
        }
        let copy = enter(py, Work::Elements(part.numel()), move || ops::clone(&part))?;
        Ok(Bound::new(py, UntypedStorage::of(copy))?.into_any())
    }
    fn __setitem__(&self, py: Python, index: &Bound<PyAny>, value: i64) -> PyResult<()> {
        let part = self.part(index)?;
        enter(py, Work::Elements(part.numel()), || ops::fill_(&part, Scalar::Int(value & 255)))
    }
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.tolist(py)?.try_iter()?.into_any())
    }
    fn tolist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let all = self.bytes();
        let bytes = enter(py, Work::Elements(self.count()), move || all.to_vec::<u8>())?;
        PyList::new(py, bytes)
    }
    fn fill_<'py>(slf: &Bound<'py, Self>, value: i64) -> PyResult<Bound<'py, Self>> {
        let all = slf.get().bytes();
        enter(slf.py(), Work::Elements(all.numel()), || ops::fill_(&all, Scalar::Int(value & 255)))?;
        Ok(slf.clone())
    }
    #[pyo3(signature = (source, non_blocking=None))]
    fn copy_<'py>(
        slf: &Bound<'py, Self>,
        source: &Bound<'py, UntypedStorage>,
        non_blocking: Option<bool>,
    ) -> PyResult<Bound<'py, Self>> {
        let _ = non_blocking; // Copies from pageable memory wait either way.
        let (to, from) = (slf.get().bytes(), source.get().bytes());
        enter(slf.py(), Work::Elements(to.numel()), || ops::copy_(&to, &from))?;
        Ok(slf.clone())
    }
    #[pyo3(name = "clone")]
    fn copied(&self, py: Python) -> PyResult<UntypedStorage> {
        let all = self.bytes();
        Ok(UntypedStorage::of(enter(py, Work::Elements(self.count()), move || ops::clone(&all))?))
    }
    fn __copy__(&self, py: Python) -> PyResult<UntypedStorage> {
        self.copied(py)
    }
    fn __deepcopy__(&self, py: Python, _memo: &Bound<PyAny>) -> PyResult<UntypedStorage> {
        self.copied(py)
    }
    fn cpu(&self, py: Python) -> PyResult<UntypedStorage> {
        let all = self.bytes();
        let v = pyrite_core::Device::Cpu;
        Ok(UntypedStorage::of(enter(py, Work::Elements(self.count()), move || ops::to_device(&all, v))?))
    }
    /// Memory never moves while a tensor looks at it: only the present size is accepted.
    fn resize_(slf: &Bound<Self>, size: usize) -> PyResult<()> {
        if size == slf.get().count() {
            return Ok(());
        }
        Err(PyNotImplementedError::new_err(
            "UntypedStorage.resize_(): a storage keeps its size; use Tensor.resize_, which makes a new one",
        ))
    }
    fn is_pinned(&self) -> bool {
        false
    }
    /// All bytes as a uint8 tensor over the same memory.
    fn _as_tensor<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTensor>> {
        wrap(py, self.bytes())
    }
    fn __repr__(&self, py: Python) -> PyResult<String> {
        const SHOWN: usize = 1000;
        let mut text = String::new();
        for b in self.tolist(py)?.iter().take(SHOWN) {
            text += &format!(" {b}\n");
        }
        let more = if self.count() > SHOWN { " ...\n" } else { "" };
        let (device, n) = (self.t.device(), self.count());
        Ok(format!("{text}{more}[torch.storage.UntypedStorage(device={device}) of size {n}]"))
    }
    fn __eq__(&self, other: &Bound<PyAny>) -> bool {
        other.cast::<UntypedStorage>().is_ok_and(|o| o.get().t.storage().same(self.t.storage()))
    }
    fn __hash__(&self) -> usize {
        self.t.storage().id()
    }
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    m.add_class::<UntypedStorage>()
}
