//! Forward mode through a custom Function: calls its `jvp` and checks what it says, or derives the tangents from
//! its backward.

use crate::error::{IntoPy, from_py};
use crate::hooks::{grads_from, grads_tuple};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyrite_tensor::autograd::forward;
use pyrite_tensor::autograd::node::Node;
use pyrite_tensor::{Tensor, ops};
use smallvec::SmallVec;
use std::sync::Arc;

/// A call of a Function.
pub struct Given<'a, 'py> {
    pub class: &'a Bound<'py, PyAny>,
    pub ctx: &'a Bound<'py, PyAny>,
    /// The arguments that are tensors, in their places.
    pub inputs: &'a [Option<Tensor>],
    /// Which results (of those that are tensors) were marked as not differentiable.
    pub skip: &'a [bool],
    pub materialize: bool,
}

/// Gives the outputs their tangents.
pub fn tangents(call: &Given, flow: &forward::Flow, node: &Arc<Node>, outputs: &[&Tensor]) -> PyResult<()> {
    let py = call.class.py();
    if !call.class.call_method0("_has_jvp")?.is_truthy()? {
        forward::through(flow, node, outputs);
        return forward::check().py(py);
    }
    let (class, ctx) = (call.class.clone().unbind(), call.ctx.clone().unbind());
    let (inputs, skip, materialize) = (call.inputs, call.skip, call.materialize);
    forward::each(flow, outputs, |_, ts| {
        Python::attach(|py| -> PyResult<SmallVec<[Option<Tensor>; 1]>> {
            let mut given: Vec<Option<Tensor>> = Vec::with_capacity(inputs.len());
            for (t, x) in ts.iter().zip(inputs) {
                // What `jvp` writes to may be the tangent of other tensors, too: of a clone's origin, for one.
                let written = x.as_ref().is_some_and(|x| outputs.iter().any(|o| o.same(x)));
                given.push(match (t, x) {
                    (Some(t), _) if written => {
                        let own = ops::clone(t).py(py)?;
                        own.meta_or_new();
                        Some(own)
                    }
                    (Some(t), _) => {
                        t.meta_or_new();
                        Some(t.clone())
                    }
                    (None, Some(x)) if materialize && x.dtype().is_differentiable() => {
                        Some(Tensor::zeros(x.shape(), x.dtype(), x.device()).py(py)?)
                    }
                    _ => None,
                });
            }
            let versions: Vec<u32> =
                given.iter().map(|g| g.as_ref().map_or(0, |g| g.storage().version())).collect();
            let list = grads_tuple(py, &given)?;
            let r = class.bind(py).call_method1("_run_jvp", (ctx.bind(py), list))?;
            let got = grads_from(&node.name, &r)?;
            let got = without_others(got, outputs.len());
            if got.len() != outputs.len() {
                return Err(PyRuntimeError::new_err(format!(
                    "{}: jvp returned {} tangents for {} outputs",
                    node.name,
                    got.len(),
                    outputs.len()
                )));
            }
            for (i, (t, o)) in got.iter().zip(outputs).enumerate() {
                if let Some(t) = t {
                    check(&node.name, i, t, o, skip[i], inputs, &given, &versions)?;
                }
            }
            Ok(got.into_iter().collect())
        })
        .map_err(from_py)
    });
    forward::check().py(py)
}

/// A `jvp` gives a place to results that are no tensors, too: None.
fn without_others(got: pyrite_tensor::autograd::Grads, want: usize) -> Vec<Option<Tensor>> {
    let mut extra = got.len().saturating_sub(want);
    got.into_iter()
        .filter(|t| {
            let drop = t.is_none() && extra > 0;
            extra -= drop as usize;
            !drop
        })
        .collect()
}

/// Is `t` a fitting tangent of output `o`? `versions`: of the inputs' tangents, before `jvp` ran.
#[allow(clippy::too_many_arguments)]
fn check(
    name: &str,
    i: usize,
    t: &Tensor,
    o: &Tensor,
    skip: bool,
    inputs: &[Option<Tensor>],
    given: &[Option<Tensor>],
    versions: &[u32],
) -> PyResult<()> {
    let wrong = |what: String| Err(PyRuntimeError::new_err(format!("{name}: {what}")));
    if skip || !o.dtype().is_differentiable() {
        return wrong(format!(
            "jvp returned a tangent for output {i}, which is not differentiable. You should return None at that position instead."
        ));
    }
    if t.shape() != o.shape() {
        return wrong(format!(
            "jvp returned a tangent of shape {:?} for output {i} of shape {:?}",
            t.shape(),
            o.shape()
        ));
    }
    for ((x, g), before) in inputs.iter().zip(given).zip(versions) {
        let (Some(x), Some(g)) = (x, g) else { continue };
        if x.same(o) {
            return if t.same(g) && g.storage().version() != *before {
                Ok(())
            } else {
                wrong("An inplace custom Function is not modifying the forward mode gradients inplace. If the forward is modifying an input inplace, then the jvp function must modify the corresponding gradient inplace.".into())
            };
        }
        let Some(base) = o.base() else { continue };
        let of = x.base();
        if !base.same(of.as_ref().unwrap_or(x)) {
            continue;
        }
        let Some(seen) = t.base() else {
            return wrong("A custom Function's forward is returning a view (or an input as-is) but the jvp is not returning a view.".into());
        };
        return match g.base() {
            Some(b) if of.is_some() && !seen.same(&b) => wrong("A custom Function is returning a view but the jvp is not returning a view of the same base as the given grad input.".into()),
            None if !seen.same(g) => wrong("A custom Function is returning a view but the jvp is not returning a view of the given grad input.".into()),
            _ => Ok(()),
        };
    }
    Ok(())
}
