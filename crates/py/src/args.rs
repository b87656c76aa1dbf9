//! Python arguments as registry arguments: one walk over (args, kwnames) in signature order. Nothing
//! here raises on the way to finding the overload that fits; the error text is made afterwards.

use crate::generator::PyGenerator;
use crate::signature::{Param, Parsed, Ty};
use crate::tensor;
use crate::types::{PyMemoryFormat, as_device, as_dtype};
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyComplex, PyFloat, PyInt, PyList, PyString, PyTuple};
use pyo3::{Borrowed, ffi};
use pyrite_core::{DType, Device, Scalar};
use pyrite_tensor::registry::Arg;
use smallvec::{SmallVec, smallvec};

pub type Values = SmallVec<[Arg; 6]>;
pub type Obj<'a, 'py> = Borrowed<'a, 'py, PyAny>;

/// Positional objects, then keyword objects, with the keyword names.
pub struct Given<'a, 'py> {
    pub py: Python<'py>,
    pub receiver: Option<Obj<'a, 'py>>,
    pub args: &'a [*mut ffi::PyObject],
    pub nargs: usize,
    pub names: Option<Borrowed<'a, 'py, PyTuple>>,
}

impl<'a, 'py> Given<'a, 'py> {
    pub fn obj(&self, i: usize) -> Obj<'a, 'py> {
        // SAFETY: the caller of the vectorcall keeps its argument array alive for the whole call.
        unsafe { Borrowed::from_ptr(self.py, self.args[i]) }
    }
    pub fn positional(&self) -> usize {
        self.nargs + self.receiver.is_some() as usize
    }
    pub fn at(&self, i: usize) -> Obj<'a, 'py> {
        match self.receiver {
            Some(r) if i == 0 => r,
            Some(_) => self.obj(i - 1),
            None => self.obj(i),
        }
    }
    pub fn keywords(&self) -> usize {
        self.names.map_or(0, |n| n.len())
    }
    pub fn key(&self, i: usize) -> Option<Obj<'a, 'py>> {
        let names = self.names?;
        // SAFETY: the names tuple and its items live as long as the call; a bad index gives null and an
        // exception, which is cleared.
        unsafe {
            let p = ffi::PyTuple_GetItem(names.as_ptr(), i as ffi::Py_ssize_t);
            if p.is_null() {
                ffi::PyErr_Clear();
            }
            Borrowed::from_ptr_or_opt(self.py, p)
        }
    }
    /// The value of a keyword argument by its name's text.
    pub fn keyword(&self, name: &str) -> Option<Obj<'a, 'py>> {
        (0..self.keywords())
            .find(|i| self.key(*i).is_some_and(|k| text(k).is_some_and(|t| t == name)))
            .map(|i| self.obj(self.nargs + i))
    }
}

/// The UTF-8 text of a str object.
pub fn text<'a>(o: Obj<'a, '_>) -> Option<&'a str> {
    o.cast::<PyString>().ok().and_then(|s| {
        let mut n = 0;
        // SAFETY: `s` is a str object that lives at least for 'a; its cached UTF-8 form lives with it.
        unsafe {
            let p = ffi::PyUnicode_AsUTF8AndSize(s.as_ptr(), &mut n);
            if p.is_null() {
                ffi::PyErr_Clear();
                return None;
            }
            std::str::from_utf8(std::slice::from_raw_parts(p as *const u8, n as usize)).ok()
        }
    })
}

/// Names that NumPy and the array API use for the same arguments.
fn same_meaning(name: &str) -> Option<&'static str> {
    Some(match name {
        "axis" => "dim",
        "axis0" => "dim0",
        "axis1" => "dim1",
        "keepdims" => "keepdim",
        "x" | "x1" | "a" | "self" => "input",
        "x2" => "other",
        _ => return None,
    })
}

pub enum Misfit {
    TooMany,
    Missing(usize),
    Type(usize, usize),
    Twice(usize),
    Unknown(usize),
}

/// Tries one overload: fills `values`, or says why it does not fit. (Values are written where they
/// stay: they are some hundred bytes, too much to hand from function to function.)
pub fn walk(
    sig: &Parsed,
    given: &Given,
    has_out: bool,
    extras: bool,
    values: &mut Values,
) -> PyResult<Option<Misfit>> {
    let total = given.positional();
    values.clear();
    let mut taken = 0;
    for (i, p) in sig.params.iter().enumerate().take(sig.positional) {
        if taken >= total {
            break;
        }
        let o = given.at(taken);
        // `x.view(2, 3)`: ints one by one.
        if p.ty == Ty::Size && !(o.is_none()) && is_int_like(o) {
            let mut list: SmallVec<[i64; 6]> = SmallVec::new();
            while taken < total {
                let Some(v) = int(given.at(taken))? else { break };
                list.push(v);
                taken += 1;
            }
            values.push(Arg::Ints(list));
            continue;
        }
        match convert(o, p)? {
            Some(a) => values.push(a),
            None => return Ok(Some(Misfit::Type(i, taken))),
        }
        taken += 1;
    }
    if taken < total {
        return Ok(Some(Misfit::TooMany));
    }
    let by_position = values.len();
    let mut used = 0;
    let keywords = given.keywords();
    for (i, p) in sig.params.iter().enumerate().skip(by_position) {
        let mut found = None;
        if used < keywords {
            for k in 0..keywords {
                let Some(key) = given.key(k) else { continue };
                if key.as_ptr() == p.key.as_ptr() {
                    found = Some(k);
                    break;
                }
            }
            if found.is_none() {
                found = (0..keywords).find(|k| {
                    given
                        .key(*k)
                        .and_then(text)
                        .is_some_and(|t| t == p.name || same_meaning(t) == Some(p.name))
                });
            }
        }
        match found {
            Some(k) => {
                used += 1;
                match convert(given.obj(given.nargs + k), p)? {
                    Some(a) => values.push(a),
                    None => return Ok(Some(Misfit::Type(i, usize::MAX))),
                }
            }
            None => match &p.default {
                Some(d) => values.push(d.clone()),
                None => return Ok(Some(Misfit::Missing(i))),
            },
        }
    }
    if used + (has_out as usize) < keywords {
        for k in 0..keywords {
            let Some(t) = given.key(k).and_then(text) else { continue };
            if (has_out && t == "out") || (extras && is_extra(t)) {
                continue;
            }
            let known = |p: &Param| p.name == t || same_meaning(t) == Some(p.name);
            match sig.params.iter().position(known) {
                Some(i) if i < by_position => return Ok(Some(Misfit::Twice(i))),
                Some(_) => {}
                None => return Ok(Some(Misfit::Unknown(k))),
            }
        }
    }
    Ok(None)
}

/// Arguments of tensor factories that the binding answers itself.
pub fn is_extra(name: &str) -> bool {
    matches!(name, "requires_grad" | "layout" | "pin_memory")
}

fn is_int_like(o: Obj) -> bool {
    if o.is_instance_of::<PyInt>() {
        return true;
    }
    if o.is_instance_of::<PyTuple>() || o.is_instance_of::<PyList>() {
        return false;
    }
    // SAFETY: a type check on a live object.
    (unsafe { ffi::PyIndex_Check(o.as_ptr()) } != 0) && tensor::get_borrowed(o).is_none_or(|t| t.ndim() == 0)
}

/// Converts one object; `None` where it does not fit.
#[inline]
pub fn convert(o: Obj, p: &Param) -> PyResult<Option<Arg>> {
    if o.is_none() {
        return Ok(p.optional.then_some(Arg::None));
    }
    Ok(match p.ty {
        Ty::Tensor => tensor::get_borrowed(o).map(Arg::Tensor),
        Ty::Operand => match tensor::get_borrowed(o) {
            Some(t) => Some(Arg::Tensor(t)),
            None => number(o)?.map(Arg::Number),
        },
        Ty::Tensors => tensors(o)?.map(Arg::Tensors),
        Ty::Number => number_or_item(o)?.map(Arg::Number),
        Ty::Numbers => numbers(o)?.map(Arg::Numbers),
        Ty::Int => {
            if o.is_instance_of::<PyBool>() {
                None
            } else {
                int(o)?.map(Arg::Int)
            }
        }
        Ty::Ints | Ty::Size => ints(o)?.map(Arg::Ints),
        Ty::Float => match number_or_item(o)? {
            Some(Scalar::Float(f)) => Some(Arg::Float(f)),
            Some(s @ (Scalar::Int(_) | Scalar::UInt(_))) => Some(Arg::Float(s.f64())),
            Some(Scalar::Bool(b)) => Some(Arg::Float(b as u8 as f64)),
            _ => None,
        },
        Ty::Bool => {
            if let Ok(b) = o.cast::<PyBool>() {
                Some(Arg::Bool(b.is_true()))
            } else {
                match numpy_scalar(o)? {
                    Some(Scalar::Bool(b)) => Some(Arg::Bool(b)),
                    _ => None,
                }
            }
        }
        Ty::Str => text(o).map(|s| Arg::Str(s.into())),
        Ty::DType => as_dtype(&o).map(Arg::DType),
        Ty::Device => as_device(&o)?.map(Arg::Device),
        Ty::Generator => o.cast::<PyGenerator>().ok().map(|g| Arg::Generator(g.get().0.clone())),
        Ty::MemoryFormat => o.cast::<PyMemoryFormat>().ok().map(|m| Arg::MemoryFormat(m.get().0)),
    })
}

/// A Python or NumPy number (never a tensor).
#[inline]
pub fn number(o: Obj) -> PyResult<Option<Scalar>> {
    if let Ok(f) = o.cast::<PyFloat>() {
        return Ok(Some(Scalar::Float(f.value())));
    }
    if o.is_instance_of::<PyBool>() {
        return Ok(Some(Scalar::Bool(o.is_truthy()?)));
    }
    if o.is_instance_of::<PyInt>() {
        if let Ok(Some(i)) = int(o) {
            return Ok(Some(Scalar::Int(i)));
        }
        return match o.extract::<u64>() {
            Ok(i) => Ok(Some(Scalar::from(i))),
            Err(_) => Err(crate::error::too_large(o.py())),
        };
    }
    if let Ok(c) = o.cast::<PyComplex>() {
        // SAFETY: `c` is a complex object.
        let (re, im) =
            unsafe { (ffi::PyComplex_RealAsDouble(c.as_ptr()), ffi::PyComplex_ImagAsDouble(c.as_ptr())) };
        return Ok(Some(Scalar::Complex(re, im)));
    }
    numpy_scalar(o)
}

/// As [`number`]; a tensor of one element without gradient counts as its value.
pub fn number_or_item(o: Obj) -> PyResult<Option<Scalar>> {
    if let Some(n) = number(o)? {
        return Ok(Some(n));
    }
    match tensor::get_borrowed(o) {
        Some(t) if t.ndim() == 0 && !t.requires_grad() => Ok(t.item().ok()),
        _ => Ok(None),
    }
}

/// `numpy.float32(1)` and its kin: objects whose type is NumPy's scalar type, read by `.item()`.
fn numpy_scalar(o: Obj) -> PyResult<Option<Scalar>> {
    let py = o.py();
    if tensor::get_borrowed(o).is_some()
        || o.is_instance_of::<PyString>()
        || o.is_instance_of::<PyTuple>()
        || o.is_instance_of::<PyList>()
    {
        return Ok(None);
    }
    let Some(generic) = numpy_generic(py)? else { return Ok(None) };
    if !o.is_instance(&generic)? {
        return Ok(None);
    }
    let item = o.call_method0("item")?;
    if item.is_instance_of::<PyFloat>()
        || item.is_instance_of::<PyInt>()
        || item.is_instance_of::<PyComplex>()
    {
        return number(item.as_borrowed());
    }
    Ok(None)
}

/// `numpy.generic`, if NumPy was imported by somebody.
fn numpy_generic(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static GENERIC: pyo3::sync::PyOnceLock<Py<PyAny>> = pyo3::sync::PyOnceLock::new();
    if let Some(g) = GENERIC.get(py) {
        return Ok(Some(g.bind(py).clone()));
    }
    let modules = py.import("sys")?.getattr("modules")?;
    let Ok(numpy) = modules.get_item("numpy") else { return Ok(None) };
    let Ok(generic) = numpy.getattr("generic") else { return Ok(None) };
    let _ = GENERIC.set(py, generic.clone().unbind());
    Ok(Some(generic))
}

/// An int or an object with `__index__`; `None` where it is neither.
#[inline]
pub fn int(o: Obj) -> PyResult<Option<i64>> {
    let py = o.py();
    if o.is_instance_of::<PyInt>() {
        // SAFETY: `o` is an int object.
        let v = unsafe { ffi::PyLong_AsLongLong(o.as_ptr()) };
        if v == -1
            && let Some(e) = PyErr::take(py)
        {
            return Err(if e.is_instance_of::<PyOverflowError>(py) {
                crate::error::too_large(py)
            } else {
                e
            });
        }
        return Ok(Some(v));
    }
    if o.is_instance_of::<PyFloat>() || o.is_instance_of::<PyString>() {
        return Ok(None);
    }
    if let Some(t) = tensor::get_borrowed(o) {
        if t.numel() != 1 || !(t.dtype().is_int() || t.dtype().is_bool()) {
            return Ok(None);
        }
        return Ok(t.item().ok().map(|s| s.i64()));
    }
    // SAFETY: a type check on a live object.
    if unsafe { ffi::PyIndex_Check(o.as_ptr()) } == 0 {
        return Ok(None);
    }
    // SAFETY: the object has `__index__`; a null result is an exception.
    let index = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyNumber_Index(o.as_ptr()))? };
    index.extract::<i64>().map(Some)
}

/// An int, or a tuple or list of them.
pub fn ints(o: Obj) -> PyResult<Option<SmallVec<[i64; 6]>>> {
    if let Ok(t) = o.cast::<PyTuple>() {
        let mut out = SmallVec::with_capacity(t.len());
        for i in 0..t.len() {
            match int(t.get_borrowed_item(i)?)? {
                Some(v) => out.push(v),
                None => return Ok(None),
            }
        }
        return Ok(Some(out));
    }
    if let Ok(l) = o.cast::<PyList>() {
        let mut out = SmallVec::with_capacity(l.len());
        for i in 0..l.len() {
            match int(l.get_item(i)?.as_borrowed())? {
                Some(v) => out.push(v),
                None => return Ok(None),
            }
        }
        return Ok(Some(out));
    }
    if o.is_instance_of::<PyBool>() {
        return Ok(None);
    }
    Ok(int(o)?.map(|v| smallvec![v]))
}

/// A tuple or list of numbers.
fn numbers(o: Obj) -> PyResult<Option<Vec<Scalar>>> {
    if !(o.is_instance_of::<PyTuple>() || o.is_instance_of::<PyList>()) {
        return Ok(None);
    }
    let mut out = Vec::new();
    for x in o.try_iter()? {
        match number_or_item(x?.as_borrowed())? {
            Some(v) => out.push(v),
            None => return Ok(None),
        }
    }
    Ok(Some(out))
}

/// A tuple or list of tensors.
pub fn tensors(o: Obj) -> PyResult<Option<Vec<pyrite_tensor::Tensor>>> {
    if let Ok(t) = o.cast::<PyTuple>() {
        let mut out = Vec::with_capacity(t.len());
        for i in 0..t.len() {
            match tensor::get_borrowed(t.get_borrowed_item(i)?) {
                Some(v) => out.push(v),
                None => return Ok(None),
            }
        }
        return Ok(Some(out));
    }
    if let Ok(l) = o.cast::<PyList>() {
        let mut out = Vec::with_capacity(l.len());
        for i in 0..l.len() {
            match tensor::get(&l.get_item(i)?) {
                Some(v) => out.push(v),
                None => return Ok(None),
            }
        }
        return Ok(Some(out));
    }
    Ok(None)
}

/// A dtype argument of a hand-written function.
pub fn dtype_arg(op: &str, o: Option<&Bound<PyAny>>) -> PyResult<Option<DType>> {
    match o {
        None => Ok(None),
        Some(o) if o.is_none() => Ok(None),
        Some(o) => match as_dtype(o) {
            Some(d) => Ok(Some(d)),
            None => Err(PyTypeError::new_err(format!(
                "{op}(): argument 'dtype' must be torch.dtype, not {}",
                o.get_type().name()?
            ))),
        },
    }
}

/// A device argument of a hand-written function.
pub fn device_arg(op: &str, o: Option<&Bound<PyAny>>) -> PyResult<Option<Device>> {
    match o {
        None => Ok(None),
        Some(o) if o.is_none() => Ok(None),
        Some(o) => match as_device(o)? {
            Some(d) => Ok(Some(d)),
            None => Err(PyTypeError::new_err(format!(
                "{op}(): argument 'device' must be torch.device, str or int, not {}",
                o.get_type().name()?
            ))),
        },
    }
}
