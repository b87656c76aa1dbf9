//! Python's operators on tensors: the short way to the elementwise rows, without argument parsing.

use crate::args::number;
use crate::enter::{Work, enter};
use crate::nans;
use crate::overrides;
use crate::tensor::{self, PyTensor, get, wrap};
use pyo3::basic::CompareOp;
use pyo3::exceptions::PyNotImplementedError;
use pyo3::prelude::*;
use pyrite_core::dtype::standard;
use pyrite_core::rows::RowId;
use pyrite_core::rows::table::id;
use pyrite_core::{Result, Scalar};
use pyrite_tensor::Tensor;
use pyrite_tensor::ops::{self, Operand, elementwise};

/// The other side of an operator.
enum Other {
    Tensor(Tensor),
    Number(Scalar),
}

impl Other {
    #[inline]
    fn read(o: &Bound<PyAny>) -> PyResult<Option<Other>> {
        if let Some(t) = get(o) {
            return Ok(Some(Other::Tensor(t)));
        }
        if let Some(n) = number(o.as_borrowed())? {
            return Ok(Some(Other::Number(n)));
        }
        // Arrays leave operators with tensors to us (`__array_priority__`).
        Ok(crate::interop::array_like(o)?.map(Other::Tensor))
    }
    /// Both sides as tensors.
    #[cold]
    fn inputs(&self, a: &Tensor) -> Vec<Tensor> {
        let number = |x: f64| Tensor::scalar(Scalar::Float(x), pyrite_core::DType::F64, a.device());
        match self {
            Other::Tensor(t) => vec![a.clone(), t.clone()],
            Other::Number(s) => std::iter::once(a.clone()).chain(number(s.f64())).collect(),
        }
    }
    #[inline]
    fn operand(&self) -> Operand<'_> {
        match self {
            Other::Tensor(t) => Operand::Tensor(t),
            Other::Number(s) => Operand::Number(*s),
        }
    }
    #[inline]
    fn numel(&self) -> usize {
        match self {
            Other::Tensor(t) => t.numel(),
            Other::Number(_) => 1,
        }
    }
}

type Made<'py> = PyResult<Py<PyAny>>;

use elementwise::default_params as params;

/// The special method behind an operator: `__add__`, `__radd__` or `__iadd__`.
fn slot_name(r: RowId, prefix: &str) -> String {
    let stem = match r.row().name {
        "div" => "truediv",
        "floor_divide" => "floordiv",
        "remainder" => "mod",
        n => n.trim_start_matches("bitwise_"),
    };
    let stem = match stem {
        "left_shift" => "lshift",
        "right_shift" => "rshift",
        s => s,
    };
    format!("__{prefix}{stem}__")
}

/// `a // b` and `a % b` by the array API standard, if that is switched on: where it differs from
/// PyTorch, the namespace's functions know.
fn by_the_standard<'py>(
    r: RowId,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let name = match r {
        id::FLOOR_DIVIDE => "floor_divide",
        id::REMAINDER => "remainder",
        _ => return Ok(None),
    };
    a.py().import("pyrite.array_api")?.call_method1(name, (a, b)).map(Some)
}

/// `a op b`; NotImplemented for what is neither tensor nor number.
#[inline]
fn binary(slf: &Bound<PyTensor>, other: &Bound<PyAny>, r: RowId, swapped: bool) -> PyResult<Py<PyAny>> {
    let py = slf.py();
    if overrides::active()
        && let Some(r) =
            overrides::method(&slot_name(r, if swapped { "r" } else { "" }), &[slf.as_any(), other])?
    {
        return Ok(r.unbind());
    }
    let Some(b) = Other::read(other)? else { return Ok(py.NotImplemented()) };
    if standard() {
        let (x, y) = if swapped { (other, slf.as_any()) } else { (slf.as_any(), other) };
        if let Some(y) = by_the_standard(r, x, y)? {
            return Ok(y.unbind());
        }
    }
    let a = slf.get().tensor(py);
    let work = Work::Elements(a.numel().max(b.numel()));
    let y = enter(py, work, move || {
        let row = r.row();
        let (x, y) = (Operand::Tensor(&a), b.operand());
        let run = || elementwise::run(row, &if swapped { [y, x] } else { [x, y] }, &params(row));
        if nans::active() {
            return nans::watched(row.name, &b.inputs(&a), run, |t| vec![t.clone()]);
        }
        run()
    })?;
    Ok(wrap(py, y)?.into_any().unbind())
}

fn inplace(slf: &Bound<PyTensor>, other: &Bound<PyAny>, r: RowId) -> PyResult<()> {
    let py = slf.py();
    if overrides::active() && overrides::method(&slot_name(r, "i"), &[slf.as_any(), other])?.is_some() {
        return Ok(());
    }
    let Some(b) = Other::read(other)? else {
        return Err(pyo3::exceptions::PyTypeError::new_err(format!(
            "unsupported operand type(s) for {}=: 'Tensor' and '{}'",
            r.row().name,
            other.get_type().name()?
        )));
    };
    if standard()
        && let Some(y) = by_the_standard(r, slf.as_any(), other)?
    {
        slf.call_method1("copy_", (y,))?;
        return Ok(());
    }
    let a = slf.get().tensor(py);
    let work = Work::Elements(a.numel().max(b.numel()));
    enter(py, work, move || {
        let row = r.row();
        let run = || elementwise::run_inplace(row, &[Operand::Tensor(&a), b.operand()], &params(row));
        if nans::active() {
            return nans::watched(row.name, &b.inputs(&a), run, |_| vec![a.clone()]);
        }
        run()
    })?;
    tensor::link(slf);
    Ok(())
}

/// What an in-place operator works with. An argument that cannot be had makes Python ask the other object
/// (`__radd__`), as it should where the object is none of ours.
struct Operable<'py>(Bound<'py, PyAny>);

impl<'a, 'py> FromPyObject<'a, 'py> for Operable<'py> {
    type Error = PyErr;
    fn extract(o: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if Other::read(&o)?.is_some() || overrides::active() && o.hasattr("__torch_function__")? {
            return Ok(Operable(o.to_owned()));
        }
        Err(pyo3::exceptions::PyTypeError::new_err("not an operand"))
    }
}

fn unary(slf: &Bound<PyTensor>, f: fn(&Tensor) -> Result<Tensor>) -> PyResult<Py<PyAny>> {
    let py = slf.py();
    let t = slf.get().tensor(py);
    let y = enter(py, Work::Elements(t.numel()), move || f(&t))?;
    Ok(wrap(py, y)?.into_any().unbind())
}

fn matmul(py: Python, a: Tensor, b: Tensor) -> PyResult<Py<PyAny>> {
    let n = a.numel().max(b.numel());
    let work = if n > 4096 { Work::Long } else { Work::Elements(n) };
    let y = enter(py, work, move || {
        if nans::active() {
            let both = [a.clone(), b.clone()];
            return nans::watched("matmul", &both, || ops::matmul(&a, &b), |t| vec![t.clone()]);
        }
        ops::matmul(&a, &b)
    })?;
    Ok(wrap(py, y)?.into_any().unbind())
}

// Inside another macro, pyo3's glue calls unsafe functions without a block of their own.
#[allow(unsafe_op_in_unsafe_fn)]
mod slots {
    use super::*;

    macro_rules! operators {
    ($($name:ident $rname:ident $iname:ident $id:ident;)*) => {
        #[pymethods]
        impl PyTensor { $(
            fn $name(slf: &Bound<Self>, other: &Bound<PyAny>) -> Made<'static> {
                binary(slf, other, id::$id, false)
            }
            fn $rname(slf: &Bound<Self>, other: &Bound<PyAny>) -> Made<'static> {
                binary(slf, other, id::$id, true)
            }
            fn $iname(slf: &Bound<Self>, other: Operable) -> PyResult<()> {
                inplace(slf, &other.0, id::$id)
            }
        )* }
    };
}
    operators! {
        __add__ __radd__ __iadd__ ADD;
        __sub__ __rsub__ __isub__ SUB;
        __mul__ __rmul__ __imul__ MUL;
        __truediv__ __rtruediv__ __itruediv__ DIV;
        __floordiv__ __rfloordiv__ __ifloordiv__ FLOOR_DIVIDE;
        __mod__ __rmod__ __imod__ REMAINDER;
        __and__ __rand__ __iand__ BITWISE_AND;
        __or__ __ror__ __ior__ BITWISE_OR;
        __xor__ __rxor__ __ixor__ BITWISE_XOR;
        __lshift__ __rlshift__ __ilshift__ BITWISE_LEFT_SHIFT;
        __rshift__ __rrshift__ __irshift__ BITWISE_RIGHT_SHIFT;
    }
}

#[pymethods]
impl PyTensor {
    /// `other / self` under the name it had in Python 2.
    fn __rdiv__(slf: &Bound<Self>, other: &Bound<PyAny>) -> Made<'static> {
        binary(slf, other, id::DIV, true)
    }
    fn __pow__(slf: &Bound<Self>, other: &Bound<PyAny>, modulo: &Bound<PyAny>) -> Made<'static> {
        no_modulo(modulo)?;
        binary(slf, other, id::POW, false)
    }
    fn __rpow__(slf: &Bound<Self>, other: &Bound<PyAny>, modulo: &Bound<PyAny>) -> Made<'static> {
        no_modulo(modulo)?;
        binary(slf, other, id::POW, true)
    }
    fn __ipow__(slf: &Bound<Self>, other: &Bound<PyAny>, modulo: &Bound<PyAny>) -> PyResult<()> {
        no_modulo(modulo)?;
        inplace(slf, other, id::POW)
    }
    fn __divmod__(slf: &Bound<Self>, other: &Bound<PyAny>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let q = binary(slf, other, id::FLOOR_DIVIDE, false)?;
        if q.is(py.NotImplemented()) {
            return Ok(q);
        }
        let r = binary(slf, other, id::REMAINDER, false)?;
        Ok((q, r).into_pyobject(py)?.into_any().unbind())
    }
    fn __matmul__(slf: &Bound<Self>, other: &Bound<PyAny>) -> Made<'static> {
        if overrides::active()
            && let Some(r) = overrides::method("__matmul__", &[slf.as_any(), other])?
        {
            return Ok(r.unbind());
        }
        match get(other) {
            Some(b) => matmul(slf.py(), slf.get().tensor(slf.py()), b),
            None => Ok(slf.py().NotImplemented()),
        }
    }
    fn __rmatmul__(slf: &Bound<Self>, other: &Bound<PyAny>) -> Made<'static> {
        if overrides::active()
            && let Some(r) = overrides::method("__rmatmul__", &[slf.as_any(), other])?
        {
            return Ok(r.unbind());
        }
        match get(other) {
            Some(b) => matmul(slf.py(), b, slf.get().tensor(slf.py())),
            None => Ok(slf.py().NotImplemented()),
        }
    }
    fn __neg__(slf: &Bound<Self>) -> Made<'static> {
        if overrides::active()
            && let Some(r) = overrides::method("__neg__", &[slf.as_any()])?
        {
            return Ok(r.unbind());
        }
        if slf.get().tensor(slf.py()).dtype().is_bool() {
            return tensor::runtime(
                "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use the `~` or `logical_not()` operator instead.",
            );
        }
        unary(slf, ops::neg)
    }
    fn __pos__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        if slf.get().tensor(slf.py()).dtype().is_bool() {
            return tensor::runtime("The `+` operator, on a bool tensor is not supported.");
        }
        Ok(slf.clone())
    }
    fn __abs__(slf: &Bound<Self>) -> Made<'static> {
        if overrides::active()
            && let Some(r) = overrides::method("__abs__", &[slf.as_any()])?
        {
            return Ok(r.unbind());
        }
        unary(slf, ops::abs)
    }
    fn __invert__(slf: &Bound<Self>) -> Made<'static> {
        if overrides::active()
            && let Some(r) = overrides::method("__invert__", &[slf.as_any()])?
        {
            return Ok(r.unbind());
        }
        let d = slf.get().tensor(slf.py()).dtype();
        if !d.is_int() && !d.is_bool() {
            return Err(pyo3::exceptions::PyTypeError::new_err(format!(
                "~ (operator.invert) is only implemented on integer and Boolean-type tensors, not {d}"
            )));
        }
        unary(slf, if d.is_bool() { ops::logical_not } else { ops::bitwise_not })
    }
    fn __richcmp__(slf: &Bound<Self>, other: &Bound<PyAny>, op: CompareOp) -> Made<'static> {
        let r = match op {
            CompareOp::Lt => id::LT,
            CompareOp::Le => id::LE,
            CompareOp::Eq => id::EQ,
            CompareOp::Ne => id::NE,
            CompareOp::Gt => id::GT,
            CompareOp::Ge => id::GE,
        };
        binary(slf, other, r, false)
    }
    fn __hash__(slf: &Bound<Self>) -> isize {
        // Rotated as CPython does with addresses, so that dict slots are spread.
        (slf.as_ptr() as usize).rotate_right(4) as isize
    }
}

fn no_modulo(m: &Bound<PyAny>) -> PyResult<()> {
    if m.is_none() {
        Ok(())
    } else {
        Err(PyNotImplementedError::new_err("pow(): the modulo argument is not supported for tensors"))
    }
}
