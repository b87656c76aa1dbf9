//! Every registry entry as Python callables. Functions are C functions whose `self` is their index;
//! methods are method descriptors, each with its own C entry point (an instance of `entry`), because
//! a descriptor passes no closure and a plain `__get__` object would cost an allocation per call.

use crate::args::{Given, Misfit, Values, walk};
use crate::enter::{Work, enter};
use crate::entry::entries;
use crate::error::IntoPy;
use crate::misfit::misfit;
use crate::nans;
use crate::outs::{adapt_factory, give_out, out_tensors};
use crate::overrides;
use crate::results::value_object;
use crate::signature::{self, Parsed};
use crate::tensor::{self, PyTensor, wrap};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule, PyTuple};
use pyo3::{Borrowed, ffi};
use pyrite_core::Scalar;
use pyrite_tensor::Tensor;
use pyrite_tensor::registry::{self, Arg, Args, Forms, Op, Value};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

/// One callable: a registry entry under one of its names.
struct Entry {
    op: &'static Op,
    name: &'static str,
    sigs: Vec<Parsed>,
    /// Always releases the GIL above a small size.
    heavy: bool,
    /// Makes tensors: takes `requires_grad=`, `layout=`, `pin_memory=` as well.
    factory: bool,
    /// Changes its receiver; a tensor it returns replaces what the receiver stands for.
    inplace: bool,
    /// Draws random numbers.
    random: bool,
}

static ENTRIES: PyOnceLock<Vec<Entry>> = PyOnceLock::new();

/// The Python objects of an entry: the function, and the method's descriptor.
static OBJECTS: PyOnceLock<Vec<[Option<Py<PyAny>>; 2]>> = PyOnceLock::new();

pub type Call = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// The C entry point of every function; `slf` is the entry's number.
unsafe extern "C" fn function(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `slf` is the int given to PyCFunction_NewEx; the rest is CPython's vectorcall.
    unsafe {
        let index = ffi::PyLong_AsSize_t(slf);
        dispatch(index, std::ptr::null_mut(), args, nargs, names)
    }
}

/// # Safety
/// The GIL is held, and the arguments follow the vectorcall convention.
#[inline]
pub unsafe fn dispatch(
    index: usize,
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the caller holds the GIL.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: `names` is null or a tuple of str that lives as long as the call.
    let names = unsafe { Borrowed::from_ptr_or_opt(py, names).map(|n| n.cast_unchecked::<PyTuple>()) };
    let nargs = nargs as usize;
    let total = nargs + names.map_or(0, |n| n.len());
    let given = Given {
        py,
        // SAFETY: as above.
        receiver: unsafe { Borrowed::from_ptr_or_opt(py, slf) },
        // SAFETY: the array holds the positional and then the keyword arguments.
        args: if total == 0 { &[] } else { unsafe { std::slice::from_raw_parts(args, total) } },
        nargs,
        names,
    };
    let done = catch_unwind(AssertUnwindSafe(|| match ENTRIES.get(py).and_then(|e| e.get(index)) {
        Some(e) => {
            if overrides::active() {
                let func = || {
                    OBJECTS.get(py)?.get(index)?[!slf.is_null() as usize].as_ref().map(|f| f.clone_ref(py))
                };
                match overrides::intercept(func, &given, e.random) {
                    Ok(None) => {}
                    Ok(Some(p)) => return Ok(p),
                    Err(e) => return Err(e),
                }
            }
            call(e, &given)
        }
        None => Err(PyRuntimeError::new_err("pyrite._C is not initialised")),
    }));
    match done {
        Ok(Ok(p)) => p,
        Ok(Err(e)) => {
            e.restore(py);
            std::ptr::null_mut()
        }
        Err(_) => {
            PyRuntimeError::new_err(
                "internal error in pyrite, please report it: a panic in argument conversion",
            )
            .restore(py);
            std::ptr::null_mut()
        }
    }
}

/// Converts, runs, wraps.
fn call(e: &'static Entry, given: &Given) -> PyResult<*mut ffi::PyObject> {
    let py = given.py;
    let out = if given.names.is_some() && e.op.forms.has(Forms::OUT) { given.keyword("out") } else { None };
    let has_out = out.is_some();
    let out = out.filter(|o| !o.is_none());
    let mut args = Args { op: e.name, v: Values::new() };
    let mut fitting: Option<&Parsed> = None;
    let mut why: Option<Misfit> = None;
    for sig in &e.sigs {
        match walk(sig, given, has_out, e.factory, &mut args.v)? {
            None => {
                fitting = Some(sig);
                break;
            }
            Some(m) => why = why.or(Some(m)),
        }
    }
    let Some(sig) = fitting else { return Err(misfit(e.name, &e.sigs, given, why, has_out)) };
    let mut extras =
        if e.factory && given.names.is_some() { Extras::read(e, sig, given)? } else { Extras::default() };
    let outs = match out {
        None => None,
        Some(o) => Some(out_tensors(e.name, o)?),
    };
    if let Some([o]) = outs.as_deref()
        && e.factory
    {
        extras.requires_grad |= adapt_factory(sig, &mut args.v, &o.get().tensor(py))?;
    }
    let first = match args.v.first() {
        Some(Arg::Tensor(t)) => Some(t.clone()),
        _ => None,
    };
    let work = estimate(e, &args.v);
    let run = sig.call;
    let list: Option<Vec<Tensor>> = outs.as_ref().map(|o| o.iter().map(|x| x.get().tensor(py)).collect());
    let value = if nans::active() {
        enter(py, work, || nans::call(e.name, &args.v, || registry::call(run, &args, list.as_deref())))?
    } else {
        enter(py, work, || registry::call(run, &args, list.as_deref()))?
    };
    if let Some(outs) = outs {
        return give_out(py, value, &outs, out, extras);
    }
    finish(e, given, value, first, extras)
}

fn estimate(e: &Entry, values: &Values) -> Work {
    let mut n = 0usize;
    for v in values {
        match v {
            Arg::Tensor(t) => n = n.saturating_add(t.numel()),
            Arg::Tensors(l) => n = l.iter().fold(n, |n, t| n.saturating_add(t.numel())),
            Arg::Ints(l) if e.factory => {
                n = n.saturating_add(l.iter().fold(1usize, |n, s| n.saturating_mul((*s).max(0) as usize)));
            }
            Arg::Int(i) if e.factory => n = n.saturating_add((*i).max(0) as usize),
            Arg::Number(Scalar::Int(i)) if e.factory => n = n.saturating_add((*i).max(0) as usize),
            _ => {}
        }
    }
    if e.heavy && n > 4096 { Work::Long } else { Work::Elements(n) }
}

/// Ops that draw random numbers (or may).
fn is_random(name: &str) -> bool {
    let stem = name.strip_suffix("_like").unwrap_or(name).trim_end_matches('_');
    const NAMES: [&str; 15] = [
        "bernoulli",
        "binomial",
        "cauchy",
        "exponential",
        "geometric",
        "log_normal",
        "multinomial",
        "normal",
        "poisson",
        "random",
        "rrelu",
        "scaled_dot_product_attention",
        "uniform",
        "fractional_max_pool2d",
        "fractional_max_pool3d",
    ];
    stem.starts_with("rand") || stem.ends_with("dropout") || NAMES.contains(&stem)
}

/// Ops whose cost is not linear in their elements, or far above one pass.
fn is_heavy(op: &Op) -> bool {
    const NAMES: [&str; 23] = [
        "matmul",
        "mm",
        "bmm",
        "addmm",
        "baddbmm",
        "linear",
        "einsum",
        "tensordot",
        "cdist",
        "pdist",
        "sort",
        "argsort",
        "topk",
        "scaled_dot_product_attention",
        "multinomial",
        "randperm",
        "unique",
        "kthvalue",
        "median",
        "mv",
        "addmv",
        "outer",
        "bilinear",
    ];
    // Main-namespace names of factorisations: cubic in a matrix's side.
    const CUBIC: &[&str] = &[
        "cholesky",
        "cholesky_inverse",
        "cholesky_solve",
        "det",
        "geqrf",
        "inner",
        "inverse",
        "logdet",
        "lu",
        "lu_solve",
        "matrix_exp",
        "matrix_power",
        "orgqr",
        "ormqr",
        "pca_lowrank",
        "pinverse",
        "qr",
        "slogdet",
        "svd",
        "svd_lowrank",
        "triangular_solve",
    ];
    op.name.starts_with("conv")
        || CUBIC.contains(&op.name)
        || op.namespace == "linalg"
        || op.namespace == "fft"
        || NAMES.contains(&op.name)
}

/// `requires_grad=`, `layout=`, `pin_memory=` of a factory.
#[derive(Default, Clone, Copy)]
pub struct Extras {
    pub requires_grad: bool,
}

impl Extras {
    fn read(e: &Entry, sig: &Parsed, given: &Given) -> PyResult<Extras> {
        let mut x = Extras::default();
        let own = |name: &str| sig.params.iter().any(|p| p.name == name);
        let flag = |name: &str| -> PyResult<bool> {
            match given.keyword(name) {
                Some(o) if !own(name) && !o.is_none() => o.is_truthy(),
                _ => Ok(false),
            }
        };
        x.requires_grad = flag("requires_grad")?;
        if flag("pin_memory")? {
            return Err(crate::convert::no_pinned_memory(e.name));
        }
        if let Some(l) = given.keyword("layout")
            && !own("layout")
            && !l.is_none()
            && l.cast::<crate::types::PyLayout>().is_err()
        {
            return Err(PyTypeError::new_err(format!(
                "{}(): argument 'layout' must be torch.layout",
                e.name
            )));
        }
        Ok(x)
    }
}

/// A result as a Python object.
#[inline]
fn finish(
    e: &Entry,
    given: &Given,
    value: Value,
    first: Option<Tensor>,
    extras: Extras,
) -> PyResult<*mut ffi::PyObject> {
    let py = given.py;
    match value {
        Value::Tensor(t) => {
            if let Some(f) = &first
                && (e.inplace || f.same(&t))
                && let Some(obj) = first_object(e, given)
            {
                if !f.same(&t) {
                    tensor::swap(&obj, t);
                }
                return Ok(obj.into_ptr());
            }
            if extras.requires_grad {
                t.set_requires_grad(true).py(py)?;
            }
            link_first(e, given, first.as_ref());
            Ok(wrap(py, t)?.into_ptr())
        }
        Value::Receiver => match first_object(e, given) {
            Some(obj) => {
                tensor::link(&obj);
                Ok(obj.into_ptr())
            }
            None => Ok(py.None().into_ptr()),
        },
        v => {
            link_first(e, given, first.as_ref());
            value_object(py, v)
        }
    }
}

/// The first argument may have become the base of views: it must know its Python object.
fn link_first(e: &Entry, given: &Given, first: Option<&Tensor>) {
    if first.is_some_and(|f| f.meta().is_some_and(|m| m.py.load(Ordering::Relaxed).is_null()))
        && let Some(obj) = first_object(e, given)
    {
        tensor::link(&obj);
    }
}

/// The Python object of the first argument.
fn first_object<'py>(e: &Entry, given: &Given<'_, 'py>) -> Option<Bound<'py, PyTensor>> {
    let o = match given.receiver {
        Some(r) => r,
        None if given.nargs > 0 => given.obj(0),
        None => given.keyword(e.sigs[0].params.first()?.name)?,
    };
    o.cast::<PyTensor>().ok().map(|t| t.to_owned())
}

// ---- registration -------------------------------------------------------------------------------

fn leak_cstr(s: String) -> *const c_char {
    // Lives as long as the process, as the definitions that point to it must.
    CString::new(s.replace('\0', " ")).map_or(c"".as_ptr(), |c| CString::into_raw(c))
}

fn definition(name: &str, call: Call, doc: String) -> *mut ffi::PyMethodDef {
    Box::into_raw(Box::new(ffi::PyMethodDef {
        ml_name: leak_cstr(name.to_owned()),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: call },
        ml_flags: (ffi::METH_FASTCALL | ffi::METH_KEYWORDS) as c_int,
        ml_doc: leak_cstr(doc),
    }))
}

/// `name(sig)\n--\n\ndoc` is how CPython reads `__text_signature__`. Overloads have no one signature: they
/// are listed in the text.
fn doc(name: &str, op: &Op, sigs: &[Parsed], method: bool) -> String {
    if let [one] = sigs {
        return format!(
            "{name}{}\n--\n\n{}",
            one.python(method, !method && op.forms.has(Forms::OUT)),
            op.doc
        );
    }
    let mut text = format!("{}\n\nOverloads:", op.doc);
    for s in sigs {
        text += &format!("\n    {name}({})", s.text);
    }
    text
}

/// Binds the whole registry.
pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    let py = m.py();
    let tensor_type = py.get_type::<PyTensor>();
    // What is written by hand in `attrs.rs` and its neighbours goes before the registry.
    let by_hand = tensor_type.getattr("__dict__")?;
    let by_hand = |name: &str| by_hand.contains(name).unwrap_or(false);
    let mut list: Vec<Entry> = Vec::new();
    let mut plan: Vec<(usize, &'static str, bool)> = Vec::new();
    let mut properties = Vec::new();
    let mut known: HashMap<(&'static str, &'static str, u8), usize> = HashMap::new();
    for op in registry::ops() {
        for name in std::iter::once(op.name).chain(op.aliases.iter().copied()) {
            let sigs = op.sigs.iter().map(|s| signature::parse(py, s)).collect::<PyResult<Vec<_>>>()?;
            let factory = sigs.iter().any(|s| {
                s.params.iter().any(|p| p.name == "device")
                    || s.params.iter().any(|p| p.name == "dtype")
                        && !matches!(s.params.first(), Some(p) if p.name == "input")
            }) || op.name.ends_with("_like");
            let inplace = name.ends_with('_') && !name.ends_with("__");
            // A name that comes twice gets the overloads of both (`where` with and without values).
            // But what is only a method has another first argument than what is only a function (`where`).
            let key = (op.namespace, name, op.forms.0 & (Forms::FUNCTION | Forms::METHOD));
            if let Some(&at) = known.get(&key) {
                let first = &mut list[at];
                first.sigs.extend(sigs);
                first.factory |= factory;
                if op.forms.has(Forms::METHOD) && !first.op.forms.has(Forms::METHOD) && !by_hand(name) {
                    plan.push((at, name, true));
                }
                continue;
            }
            known.insert(key, list.len());
            list.push(Entry {
                op,
                name,
                sigs,
                heavy: is_heavy(op),
                factory,
                inplace,
                random: is_random(name),
            });
            let i = list.len() - 1;
            if op.forms.has(Forms::FUNCTION) {
                plan.push((i, name, false));
            }
            if op.forms.has(Forms::METHOD) && !by_hand(name) {
                plan.push((i, name, true));
            }
            if op.forms.has(Forms::PROPERTY) && !by_hand(name) {
                properties.push((i, name));
            }
        }
    }
    // Methods get the first numbers: those index the table of entry points.
    let mut order: Vec<usize> = (0..list.len()).collect();
    let mut is_method = vec![false; list.len()];
    plan.iter().filter(|p| p.2).for_each(|p| is_method[p.0] = true);
    order.sort_by_key(|i| !is_method[*i]);
    let mut place = vec![0; list.len()];
    order.iter().enumerate().for_each(|(new, old)| place[*old] = new);
    let mut slots: Vec<Option<Entry>> = list.into_iter().map(Some).collect();
    let list: Vec<Entry> = order.iter().filter_map(|old| slots[*old].take()).collect();
    let points = entries();
    let mut objects: Vec<[Option<Py<PyAny>>; 2]> = list.iter().map(|_| [None, None]).collect();
    let mut modules: HashMap<&'static str, Bound<PyModule>> = HashMap::new();
    for (i, name, method) in plan {
        let i = place[i];
        let e = &list[i];
        if method {
            let Some(call) = points.get(i) else {
                return Err(PyRuntimeError::new_err("more methods than entry points: add a page in bind.rs"));
            };
            let def = definition(name, *call, doc(name, e.op, &e.sigs, true));
            // SAFETY: the type is alive, the definition lives for ever.
            let descr = unsafe {
                Bound::from_owned_ptr_or_err(
                    py,
                    ffi::PyDescr_NewMethod(tensor_type.as_ptr() as *mut ffi::PyTypeObject, def),
                )?
            };
            tensor_type.setattr(name, &descr)?;
            objects[i][1] = Some(descr.unbind());
        } else {
            let module = match e.op.namespace {
                "" => m.clone(),
                ns => namespace(m, &mut modules, ns)?,
            };
            let def = definition(name, function, doc(name, e.op, &e.sigs, false));
            let index = i.into_pyobject(py)?;
            // SAFETY: the definition lives for ever; the int is kept by the function object.
            let f = unsafe {
                Bound::from_owned_ptr_or_err(
                    py,
                    ffi::PyCFunction_NewEx(def, index.as_ptr(), std::ptr::null_mut()),
                )?
            };
            module.setattr(name, &f)?;
            objects[i][0] = Some(f.unbind());
        }
    }
    let property = py.import("builtins")?.getattr("property")?;
    for (i, name) in properties {
        let i = place[i];
        let e = &list[i];
        let def = definition(name, function, doc(name, e.op, &e.sigs, false));
        let index = i.into_pyobject(py)?;
        // SAFETY: as above.
        let f = unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                ffi::PyCFunction_NewEx(def, index.as_ptr(), std::ptr::null_mut()),
            )?
        };
        tensor_type.setattr(name, property.call1((&f, py.None(), py.None(), e.op.doc))?)?;
        objects[i][0].get_or_insert(f.unbind());
    }
    let _ = OBJECTS.set(py, objects);
    let _ = ENTRIES.set(py, list);
    Ok(())
}

/// The submodule `_C._<ns>`.
pub fn namespace<'py>(
    m: &Bound<'py, PyModule>,
    known: &mut HashMap<&'static str, Bound<'py, PyModule>>,
    ns: &'static str,
) -> PyResult<Bound<'py, PyModule>> {
    if let Some(x) = known.get(ns) {
        return Ok(x.clone());
    }
    let attr = format!("_{ns}");
    let module = match m.getattr(attr.as_str()) {
        Ok(x) => x.cast_into::<PyModule>()?,
        Err(_) => {
            let module = PyModule::new(m.py(), &format!("pyrite._C.{attr}"))?;
            m.setattr(attr.as_str(), &module)?;
            module
        }
    };
    known.insert(ns, module.clone());
    Ok(module)
}

/// The registry as data, for `tools/gen.py` and generated tests.
#[pyfunction]
pub fn _registry(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let mut out = Vec::new();
    for op in registry::ops() {
        let d = PyDict::new(py);
        d.set_item("name", op.name)?;
        d.set_item("namespace", op.namespace)?;
        d.set_item("signatures", op.sigs.iter().map(|s| s.text).collect::<Vec<_>>())?;
        d.set_item("doc", op.doc)?;
        let forms = [
            (Forms::FUNCTION, "function"),
            (Forms::METHOD, "method"),
            (Forms::OUT, "out"),
            (Forms::PROPERTY, "property"),
        ];
        d.set_item("forms", forms.iter().filter(|f| op.forms.has(f.0)).map(|f| f.1).collect::<Vec<_>>())?;
        d.set_item("aliases", &op.aliases)?;
        match op.row {
            None => d.set_item("row", py.None())?,
            Some(id) => {
                let row = id.row();
                let r = PyDict::new(py);
                r.set_item("name", row.name)?;
                r.set_item("class", row.class.name())?;
                r.set_item("bool_out", row.bool_out)?;
                r.set_item("sample", row.sample)?;
                r.set_item("inputs", row.inputs)?;
                r.set_item("params", row.params.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>())?;
                r.set_item("grads", row.grads.iter().map(|g| g.input).collect::<Vec<_>>())?;
                d.set_item("row", r)?;
            }
        }
        out.push(d);
    }
    Ok(out)
}
