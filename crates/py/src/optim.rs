//! `_C._optim`: fused optimizer steps over lists of tensors, one backend call per device and dtype.
//! Parameters that are not dense, or share memory with one another, take one call each on copies.

use crate::enter::{Work, enter};
use crate::error::IntoPy;
use crate::tensor::PyTensor;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use pyrite_core::backend::{OptimParam, OptimStep};
use pyrite_core::{Result, ensure};
use pyrite_tensor::autograd::{GradMode, inplace};
use pyrite_tensor::{Tensor, ops};

/// The tensors of a list or tuple.
fn list(name: &str, o: &Bound<PyAny>) -> PyResult<Vec<Tensor>> {
    let py = o.py();
    let wrong = |x: &Bound<PyAny>| -> PyErr {
        let kind = x.get_type().name().map_or_else(|_| "?".into(), |n| n.to_string());
        PyTypeError::new_err(format!("optimizer step: {name} must be a list of Tensors, but holds a {kind}"))
    };
    let read = |x: &Bound<PyAny>| match x.cast::<PyTensor>() {
        Ok(t) => {
            let t = t.get().tensor(py);
            if !t.is_lazy() && !t.dtype().is_complex() {
                return Ok(t);
            }
            // A gradient may be a conjugate view; a parameter or a state is written to.
            if t.is_lazy() && name != "grads" {
                return Err(PyTypeError::new_err(format!(
                    "optimizer step: {name} holds a conjugate view; use resolve_conj()"
                )));
            }
            let t = ops::lazy::resolve(&t.alias()).py(py)?;
            // Complex numbers are stepped part by part.
            if t.dtype().is_complex() { ops::complex::view_as_real(&t).py(py) } else { Ok(t) }
        }
        Err(_) => Err(wrong(x)),
    };
    if let Ok(l) = o.cast::<PyList>() {
        let mut out = Vec::with_capacity(l.len());
        for x in l.iter() {
            out.push(read(&x)?);
        }
        return Ok(out);
    }
    if let Ok(t) = o.cast::<PyTuple>() {
        return t.iter_borrowed().map(|x| read(&x)).collect();
    }
    o.try_iter()?.map(|x| read(&x?)).collect()
}

fn optional(name: &str, o: Option<&Bound<PyAny>>) -> PyResult<Option<Vec<Tensor>>> {
    match o {
        Some(o) if !o.is_none() => list(name, o).map(Some),
        _ => Ok(None),
    }
}

/// One parameter's tensors.
struct Row {
    p: Tensor,
    g: Tensor,
    state: [Option<Tensor>; 3],
}

impl Row {
    fn as_param(&self) -> OptimParam<'_> {
        OptimParam {
            p: self.p.arr(),
            g: self.g.arr(),
            state: [
                self.state[0].as_ref().map(Tensor::arr),
                self.state[1].as_ref().map(Tensor::arr),
                self.state[2].as_ref().map(Tensor::arr),
            ],
        }
    }
    /// All buffers dense, in the same order and of one dtype: a kernel may walk them as vectors.
    fn is_plain(&self) -> bool {
        let same = |t: &Tensor| {
            t.strides() == self.p.strides() && t.dtype() == self.p.dtype() && t.shape() == self.p.shape()
        };
        self.p.layout().is_dense() && same(&self.g) && self.state.iter().flatten().all(same)
    }
}

fn run(py: Python, rows: Vec<Row>, step: OptimStep) -> PyResult<()> {
    let work: usize = rows.iter().map(|r| r.p.numel()).sum();
    enter(py, Work::Elements(work), move || {
        let _off = GradMode::new(false);
        // Parameters over the same storage depend on the order: they are stepped one after the other.
        let mut storages: Vec<usize> = rows.iter().map(|r| r.p.storage().id()).collect();
        storages.sort_unstable();
        storages.dedup();
        let shared = storages.len() != rows.len();
        let mut plain: Vec<&Row> = Vec::with_capacity(rows.len());
        for r in &rows {
            check(r)?;
            for t in std::iter::once(&r.p).chain(r.state.iter().flatten()) {
                inplace::before_write("optimizer step", t)?;
            }
            if r.is_plain() && !shared {
                plain.push(r);
            } else {
                odd(r, step)?;
            }
        }
        // One call per device and dtype; nearly always that is one call.
        while let Some(first) = plain.first() {
            let (device, dtype) = (first.p.device(), first.p.dtype());
            let (now, later): (Vec<&Row>, Vec<&Row>) =
                plain.iter().copied().partition(|r| r.p.device() == device && r.p.dtype() == dtype);
            let params: Vec<OptimParam> = now.iter().map(|r| r.as_param()).collect();
            now[0].p.backend()?.optim(step, &params)?;
            plain = later;
        }
        for r in &rows {
            r.p.storage().bump_version();
            for s in r.state.iter().flatten() {
                s.storage().bump_version();
            }
        }
        Ok(())
    })
}

fn check(r: &Row) -> Result<()> {
    ensure!(
        r.g.shape() == r.p.shape(),
        Runtime,
        "optimizer step: the gradient has shape {:?}, the parameter {:?}",
        r.g.shape(),
        r.p.shape()
    );
    ensure!(
        r.p.dtype().is_float(),
        NotImplemented,
        "optimizer step: parameters of dtype {} are not supported",
        r.p.dtype()
    );
    ensure!(
        r.g.device() == r.p.device(),
        Runtime,
        "optimizer step: the gradient is on {}, the parameter on {}",
        r.g.device(),
        r.p.device()
    );
    ensure!(!r.p.storage().is_read_only(), Runtime, "optimizer step: a parameter lies in read-only memory");
    for s in r.state.iter().flatten() {
        ensure!(
            s.shape() == r.p.shape() && s.device() == r.p.device(),
            Runtime,
            "optimizer step: a state buffer has shape {:?} on {}, the parameter {:?} on {}",
            s.shape(),
            s.device(),
            r.p.shape(),
            r.p.device()
        );
    }
    Ok(())
}

/// A step on dense copies, written back.
fn odd(r: &Row, step: OptimStep) -> Result<()> {
    let dense = |t: &Tensor| -> Result<Tensor> {
        let y = Tensor::empty(t.shape(), r.p.dtype(), t.device())?;
        ops::copy_raw(&y, t)?;
        Ok(y)
    };
    let opt = |t: &Option<Tensor>| t.as_ref().map(dense).transpose();
    let copy = Row {
        p: dense(&r.p)?,
        g: dense(&r.g)?,
        state: [opt(&r.state[0])?, opt(&r.state[1])?, opt(&r.state[2])?],
    };
    r.p.backend()?.optim(step, &[copy.as_param()])?;
    ops::copy_raw(&r.p, &copy.p)?;
    for (to, from) in r.state.iter().zip(&copy.state) {
        if let (Some(to), Some(from)) = (to, from) {
            ops::copy_raw(to, from)?;
        }
    }
    Ok(())
}

/// Puts the lists together, checking that they are equally long.
fn rows(params: Vec<Tensor>, grads: Vec<Tensor>, state: [Option<Vec<Tensor>>; 3]) -> PyResult<Vec<Row>> {
    let n = params.len();
    if grads.len() != n || state.iter().flatten().any(|s| s.len() != n) {
        return Err(PyRuntimeError::new_err(format!(
            "optimizer step: got {n} parameters, {} gradients and state lists of lengths {:?}",
            grads.len(),
            state.iter().flatten().map(Vec::len).collect::<Vec<_>>()
        )));
    }
    let [a, b, c] = state.map(|s| s.map(Vec::into_iter));
    let (mut a, mut b, mut c) = (a, b, c);
    let next = |it: &mut Option<std::vec::IntoIter<Tensor>>| it.as_mut().and_then(Iterator::next);
    Ok(params
        .into_iter()
        .zip(grads)
        .map(|(p, g)| Row { p, g, state: [next(&mut a), next(&mut b), next(&mut c)] })
        .collect())
}

/// SGD: `buf = momentum * buf + (1 - dampening) * g`, `p -= lr * buf`.
#[pyfunction]
fn sgd_(
    py: Python,
    params: &Bound<PyAny>,
    grads: &Bound<PyAny>,
    momentum_bufs: Option<&Bound<PyAny>>,
    lr: f64,
    momentum: f64,
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
    maximize: bool,
    first_step: bool,
) -> PyResult<()> {
    let bufs = optional("momentum_bufs", momentum_bufs)?;
    let momentum = if bufs.is_some() { momentum } else { 0.0 };
    let r = rows(list("params", params)?, list("grads", grads)?, [bufs, None, None])?;
    run(
        py,
        r,
        OptimStep::Sgd { lr, momentum, dampening, weight_decay, nesterov, maximize, first: first_step },
    )
}

/// Adam and, with `decoupled`, AdamW. `step` counts from 1.
#[pyfunction]
fn adam_(
    py: Python,
    params: &Bound<PyAny>,
    grads: &Bound<PyAny>,
    exp_avgs: &Bound<PyAny>,
    exp_avg_sqs: &Bound<PyAny>,
    max_exp_avg_sqs: Option<&Bound<PyAny>>,
    step: u64,
    lr: f64,
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
    eps: f64,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool,
) -> PyResult<()> {
    let max = if amsgrad { optional("max_exp_avg_sqs", max_exp_avg_sqs)? } else { None };
    if amsgrad && max.is_none() {
        return Err(PyRuntimeError::new_err("adam_: amsgrad needs max_exp_avg_sqs"));
    }
    let state = [Some(list("exp_avgs", exp_avgs)?), Some(list("exp_avg_sqs", exp_avg_sqs)?), max];
    let r = rows(list("params", params)?, list("grads", grads)?, state)?;
    run(py, r, OptimStep::Adam { lr, beta1, beta2, eps, weight_decay, decoupled, amsgrad, maximize, step })
}

/// RMSprop; `grad_avgs` makes it centered, `momentum_bufs` gives it momentum.
#[pyfunction]
fn rmsprop_(
    py: Python,
    params: &Bound<PyAny>,
    grads: &Bound<PyAny>,
    square_avgs: &Bound<PyAny>,
    grad_avgs: Option<&Bound<PyAny>>,
    momentum_bufs: Option<&Bound<PyAny>>,
    lr: f64,
    alpha: f64,
    eps: f64,
    weight_decay: f64,
    momentum: f64,
    maximize: bool,
) -> PyResult<()> {
    let avgs = optional("grad_avgs", grad_avgs)?;
    let bufs = optional("momentum_bufs", momentum_bufs)?;
    let momentum = if bufs.is_some() { momentum } else { 0.0 };
    let centered = avgs.is_some();
    let r = rows(
        list("params", params)?,
        list("grads", grads)?,
        [Some(list("square_avgs", square_avgs)?), bufs, avgs],
    )?;
    run(py, r, OptimStep::RmsProp { lr, alpha, eps, weight_decay, momentum, centered, maximize })
}

pub fn register(m: &Bound<PyModule>) -> PyResult<()> {
    let o = PyModule::new(m.py(), "pyrite._C._optim")?;
    o.add_function(wrap_pyfunction!(sgd_, &o)?)?;
    o.add_function(wrap_pyfunction!(adam_, &o)?)?;
    o.add_function(wrap_pyfunction!(rmsprop_, &o)?)?;
    m.setattr("_optim", o)
}
