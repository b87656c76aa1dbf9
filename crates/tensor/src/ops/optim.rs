//! Fused optimizer steps over lists of tensors: checks, dense layouts that agree, one kernel call
//! per device and dtype, versions. The argument order is that of the Python optimizers.

use crate::autograd::inplace;
use crate::tensor::Tensor;
use pyrite_core::backend::{OptimParam, OptimStep};
use pyrite_core::{DType, Device, Layout, Result, bail, ensure};

/// Plain SGD, with momentum if `momentum_buffers` is given. `first`: the buffers are new.
#[allow(clippy::too_many_arguments)]
pub fn sgd_step(
    params: &[Tensor],
    grads: &[Tensor],
    momentum_buffers: Option<&[Tensor]>,
    lr: f64,
    momentum: f64,
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
    maximize: bool,
    first: bool,
) -> Result<()> {
    let momentum = if momentum_buffers.is_none() { 0.0 } else { momentum };
    let step = OptimStep::Sgd { lr, momentum, dampening, weight_decay, nesterov, maximize, first };
    run("sgd", step, params, grads, [momentum_buffers.filter(|_| momentum != 0.0), None, None])
}

/// Adam and (`decoupled`) AdamW; `step` counts from 1.
#[allow(clippy::too_many_arguments)]
pub fn adam_step(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    max_exp_avg_sqs: Option<&[Tensor]>,
    step: u64,
    lr: f64,
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
    eps: f64,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool,
) -> Result<()> {
    ensure!(step > 0, Value, "adam: step counts from 1, got 0");
    ensure!(!amsgrad || max_exp_avg_sqs.is_some(), Value, "adam: amsgrad needs max_exp_avg_sqs");
    let s = OptimStep::Adam { lr, beta1, beta2, eps, weight_decay, decoupled, amsgrad, maximize, step };
    run("adam", s, params, grads, [Some(exp_avgs), Some(exp_avg_sqs), max_exp_avg_sqs.filter(|_| amsgrad)])
}

/// RMSprop; centered if `grad_avgs` are given, with momentum if `momentum_buffers` are.
#[allow(clippy::too_many_arguments)]
pub fn rmsprop_step(
    params: &[Tensor],
    grads: &[Tensor],
    square_avgs: &[Tensor],
    grad_avgs: Option<&[Tensor]>,
    momentum_buffers: Option<&[Tensor]>,
    lr: f64,
    alpha: f64,
    eps: f64,
    weight_decay: f64,
    momentum: f64,
    maximize: bool,
) -> Result<()> {
    let momentum = if momentum_buffers.is_none() { 0.0 } else { momentum };
    let centered = grad_avgs.is_some();
    let step = OptimStep::RmsProp { lr, alpha, eps, weight_decay, momentum, centered, maximize };
    let buffers = momentum_buffers.filter(|_| momentum > 0.0);
    run("rmsprop", step, params, grads, [Some(square_avgs), buffers, grad_avgs])
}

/// One tensor as the kernel gets it, and where the result goes if that is a copy.
struct Staged {
    work: Tensor,
    back: Option<Tensor>,
}

impl Staged {
    /// `t` in exactly `layout`'s order of dimensions (a dense one).
    fn new(t: &Tensor, layout: &Layout, written: bool) -> Result<Staged> {
        let t = t.detach();
        let same = t
            .shape()
            .iter()
            .zip(t.strides().iter().zip(layout.strides()))
            .all(|(n, (a, b))| *n == 1 || a == b);
        if same {
            return Ok(Staged { work: t, back: None });
        }
        let work = Tensor::empty_strided(layout.clone(), t.dtype(), t.device())?;
        super::copy_raw(&work, &t)?;
        Ok(Staged { work, back: written.then_some(t) })
    }
    fn finish(&self) -> Result<()> {
        match &self.back {
            Some(t) => super::copy_raw(t, &self.work),
            None => Ok(()),
        }
    }
}

fn check(op: &str, i: usize, p: &Tensor, t: &Tensor, what: &str) -> Result<()> {
    ensure!(
        t.shape() == p.shape() && t.dtype() == p.dtype() && t.device() == p.device(),
        Runtime,
        "{op}: {what} {i} is {} {:?} on {} but its parameter is {} {:?} on {}",
        t.dtype().name(),
        t.shape(),
        t.device(),
        p.dtype().name(),
        p.shape(),
        p.device()
    );
    Ok(())
}

fn run(
    op: &str,
    step: OptimStep,
    params: &[Tensor],
    grads: &[Tensor],
    states: [Option<&[Tensor]>; 3],
) -> Result<()> {
    ensure!(
        grads.len() == params.len() && states.iter().flatten().all(|s| s.len() == params.len()),
        Runtime,
        "{op}: {} parameters need as many gradients ({}) and state buffers ({:?})",
        params.len(),
        grads.len(),
        states.map(|s| s.map(<[Tensor]>::len))
    );
    // Everything is checked before anything is written.
    let mut groups: Vec<(Device, DType)> = Vec::new();
    for (i, (p, g)) in params.iter().zip(grads).enumerate() {
        if !p.dtype().is_float() {
            bail!(
                NotImplemented,
                "{op}: parameter {i} has dtype {}; only real floating parameters are supported",
                p.dtype().name()
            );
        }
        ensure!(
            !p.layout().may_self_overlap(),
            Runtime,
            "{op}: parameter {i} of shape {:?} refers to one memory location several times (expanded?); clone it first",
            p.shape()
        );
        check(op, i, p, g, "gradient")?;
        for s in states.iter().flatten() {
            check(op, i, p, &s[i], "state buffer")?;
        }
        if !groups.contains(&(p.device(), p.dtype())) {
            groups.push((p.device(), p.dtype()));
        }
    }
    for (device, dtype) in groups {
        let mut list: Vec<[Option<Staged>; 5]> = Vec::with_capacity(params.len());
        for (i, p) in params.iter().enumerate() {
            if p.device() != device || p.dtype() != dtype || p.numel() == 0 {
                continue;
            }
            inplace::before_write(op, p)?;
            for s in states.iter().flatten() {
                inplace::before_write(op, &s[i])?;
            }
            let layout = Layout::new(p.shape(), p.layout().like_strides(), 0);
            let mut row = [
                Some(Staged::new(p, &layout, true)?),
                Some(Staged::new(&grads[i], &layout, false)?),
                None,
                None,
                None,
            ];
            for (k, s) in states.iter().enumerate() {
                if let Some(s) = s {
                    row[2 + k] = Some(Staged::new(&s[i], &layout, true)?);
                }
            }
            list.push(row);
        }
        let arrays: Vec<OptimParam> = list
            .iter()
            .filter_map(|[p, g, a, b, c]| {
                Some(OptimParam {
                    p: p.as_ref()?.work.arr(),
                    g: g.as_ref()?.work.arr(),
                    state: [a, b, c].map(|s| s.as_ref().map(|s| s.work.arr())),
                })
            })
            .collect();
        if arrays.is_empty() {
            continue;
        }
        crate::tensor::backend(device)?.optim(step, &arrays)?;
        for s in list.iter().flatten().flatten() {
            s.finish()?;
        }
    }
    for (i, p) in params.iter().enumerate() {
        p.storage().bump_version();
        for s in states.iter().flatten() {
            s[i].storage().bump_version();
        }
    }
    Ok(())
}
