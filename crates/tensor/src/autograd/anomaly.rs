//! Help for finding mistakes: anomaly mode (nodes remember where they were recorded, gradients are
//! checked for NaN), `debug_nans` (the first operation that makes a NaN of finite inputs), and what an
//! error during backward says about its origin.

use super::mode::{self, check};
use super::node::{Grads, Node};
use crate::ops;
use crate::tensor::Tensor;
use pyrite_core::{DType, Device, Error, Kind, Result, Site, bail};
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// What the binding provides.
pub struct Tools {
    /// The traceback of now, for a new node.
    pub remember: fn() -> Option<Arc<dyn Any + Send + Sync>>,
    /// Tells the user where a node that failed was recorded.
    pub report: fn(&Arc<Node>),
}

static TOOLS: OnceLock<Tools> = OnceLock::new();

/// Called once by the binding.
pub fn provide(t: Tools) {
    let _ = TOOLS.set(t);
}

#[cold]
pub(super) fn remember(node: &Arc<Node>) {
    if let Some(x) = TOOLS.get().and_then(|t| (t.remember)()) {
        node.set_extra(x);
    }
}

/// An error in the backward of `node`, with its origin.
#[cold]
pub(super) fn explain(node: &Arc<Node>, e: Error) -> Error {
    if e.kind() == Kind::Interrupted {
        return e;
    }
    if mode::is_anomaly()
        && let Some(t) = TOOLS.get()
    {
        (t.report)(node);
    }
    match node.site.describe() {
        Some(at) => e.with_note(format!("During the backward of {}, recorded at {at}.", node.name)),
        None => e,
    }
}

// ---- looking at values ----------------------------------------------------------------------------

/// What a tensor holds.
#[derive(Clone, Copy, Default)]
pub struct Census {
    pub nans: usize,
    pub infs: usize,
    /// Of the finite elements.
    pub min: f64,
    pub max: f64,
    finite: usize,
}

/// Counts what `t` holds; parts of complex numbers count one by one.
pub fn census(t: &Tensor) -> Result<Census> {
    let _off = mode::GradMode::new(false);
    let mut c = Census::default();
    let mut count = |values: &[f64]| {
        for &v in values {
            if v.is_nan() {
                c.nans += 1;
            } else if v.is_infinite() {
                c.infs += 1;
            } else {
                c.min = if c.finite == 0 { v } else { c.min.min(v) };
                c.max = if c.finite == 0 { v } else { c.max.max(v) };
                c.finite += 1;
            }
        }
    };
    let host = ops::to_device(&t.detach(), Device::Cpu)?;
    if t.dtype().is_complex() {
        // As pairs of reals: the same bytes under another dtype.
        let flat = ops::contiguous(&ops::to_dtype(&host, DType::C128)?)?;
        let mut shape = flat.shape().to_vec();
        shape.push(2);
        let l = pyrite_core::Layout::contiguous(&shape);
        let reals = Tensor::from_parts(flat.storage().clone(), l, DType::F64);
        count(&reals.to_vec::<f64>()?);
    } else {
        count(&ops::to_dtype(&host, DType::F64)?.to_vec::<f64>()?);
    }
    Ok(c)
}

/// `float32 [2, 3] in [-1, 4.5]`, with what is not finite.
pub fn range(t: &Tensor) -> String {
    let head = format!("{} {:?}", t.dtype(), t.shape());
    let Ok(c) = census(t) else { return head };
    let mut s = if c.finite > 0 { format!("{head} in [{}, {}]", c.min, c.max) } else { head };
    for (n, what) in [(c.nans, "nan"), (c.infs, "inf")] {
        if n > 0 {
            s += &format!(", {n} {what}");
        }
    }
    s
}

/// The word for what `t` holds and must not, under the checks in force.
fn offence(t: &Tensor, checks: u8) -> Result<Option<&'static str>> {
    if !(t.dtype().is_float() || t.dtype().is_complex()) || t.numel() == 0 {
        return Ok(None);
    }
    let c = census(t)?;
    Ok(match () {
        _ if c.nans > 0 && checks & check::NAN != 0 => Some("nan"),
        _ if c.infs > 0 && checks & check::INF != 0 => Some("inf"),
        _ => None,
    })
}

fn clean(list: &[&Tensor], checks: u8) -> Result<bool> {
    for t in list {
        if offence(t, checks)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `debug_nans`, forward: the ranges of an operation's inputs; `None` if they are not finite already.
/// Taken before it runs, as it may write to them.
pub fn inputs(list: &[Tensor]) -> Result<Option<Vec<String>>> {
    let clean = clean(&list.iter().collect::<Vec<_>>(), mode::checks())?;
    Ok(clean.then(|| list.iter().map(range).collect()))
}

/// An error if `outputs` hold what finite inputs of these ranges should not give.
pub fn check_forward(op: &str, inputs: &[String], outputs: &[Tensor]) -> Result<()> {
    let checks = mode::checks();
    for (i, y) in outputs.iter().enumerate() {
        let Some(word) = offence(y, checks)? else { continue };
        bail!(
            Runtime,
            "debug_nans: {op} made {word} of finite inputs{}. Inputs: {}. Output {i}: {}.",
            Site::here().suffix(),
            inputs.join("; "),
            range(y)
        );
    }
    Ok(())
}

/// What [`after`] needs to know about the state before a node ran; `None`: nothing is checked.
#[inline]
pub(super) fn before(grads: &Grads) -> Option<Grads> {
    let c = mode::checks();
    (c & (check::GRAD_NAN | check::NAN | check::INF) != 0).then(|| grads.clone())
}

/// Looks at the gradients a node has returned.
#[cold]
pub(super) fn after(node: &Arc<Node>, grads: &Grads, back: &Grads) -> Result<()> {
    let checks = mode::checks();
    if checks & check::ANOMALY != 0 && checks & check::GRAD_NAN != 0 {
        for (i, g) in back.iter().enumerate() {
            if let Some(g) = g
                && offence(g, check::NAN)?.is_some()
            {
                bail!(Runtime, "Function '{}' returned nan values in its {i}th output.", node.name);
            }
        }
    }
    if checks & (check::NAN | check::INF) == 0 {
        return Ok(());
    }
    for (i, g) in back.iter().enumerate() {
        let Some(g) = g else { continue };
        let Some(word) = offence(g, checks)? else { continue };
        let arrived: Vec<&Tensor> = grads.iter().flatten().collect();
        if !clean(&arrived, checks)? {
            return Ok(());
        }
        let ranges: Vec<String> = arrived.iter().map(|t| range(t)).collect();
        bail!(
            Runtime,
            "debug_nans: the backward of {} made {word} of finite gradients; it was recorded{}. Incoming gradients: {}. Gradient {i}: {}.",
            node.name,
            node.site.suffix(),
            ranges.join("; "),
            range(g)
        );
    }
    Ok(())
}
