//! Normalisation: batch, layer, group, RMS. Fused kernels forward and backward; under `create_graph`
//! the gradient is the same formula in library ops, with the statistics as functions of the input.

use super::nn_misc::{compute_type, dense_rows, same_device, signed, want_float};
use super::reduce::Mask;
use crate::autograd::{self, Grads, Save, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::Rowwise;
use pyrite_core::rows::table::id;
use pyrite_core::{DType, Dims, Layout, Result, Scalar, bail, ensure};
use smallvec::{SmallVec, smallvec};

/// Inputs in the order `x, w, b`, without those that are missing.
fn inputs<'a>(x: &'a Tensor, w: Option<&'a Tensor>, b: Option<&'a Tensor>) -> SmallVec<[&'a Tensor; 3]> {
    [Some(x), w, b].into_iter().flatten().collect()
}

/// The gradients that exist among those of `x, w, b`, in input order.
fn present(dx: Option<Tensor>, dw: Option<Tensor>, db: Option<Tensor>, w: bool, b: bool) -> Grads {
    let mut out: Grads = smallvec![dx];
    if w {
        out.push(dw);
    }
    if b {
        out.push(db);
    }
    out
}

fn check_affine(op: &str, x: &Tensor, n: usize, ts: [(&str, Option<&Tensor>); 4]) -> Result<()> {
    for (what, t) in ts {
        let Some(t) = t else { continue };
        ensure!(
            t.numel() == n,
            Shape,
            "{op}: {what} should contain {n} elements not {} (input {:?}, {what} {:?})",
            t.numel(),
            x.shape(),
            t.shape()
        );
        ensure!(
            t.dtype() == x.dtype()
                || (t.dtype() == DType::F32 && x.dtype().is_float() && x.dtype() != DType::F64),
            Runtime,
            "{op}: expected {what} of dtype {} (or float32 with half-precision input), but got {}",
            x.dtype().name(),
            t.dtype().name()
        );
        same_device(op, &[x, t])?;
    }
    Ok(())
}

fn mean_over(t: &Tensor, dims: &[i64]) -> Result<Tensor> {
    super::mean(t, Some(dims), true, None)
}

/// `rstd * (gw - mean(gw) - xhat * mean(gw * xhat))`: the gradient of a normalisation whose
/// statistics run over `dims`; without the first mean where nothing is subtracted (`centered`).
fn through_statistics(
    gw: &Tensor,
    xhat: &Tensor,
    rstd: &Tensor,
    dims: &[i64],
    centered: bool,
) -> Result<Tensor> {
    let along = super::mul(xhat, &mean_over(&super::mul(gw, xhat)?, dims)?)?;
    let d = super::sub(gw, &along)?;
    let d = if centered { super::sub(&d, &mean_over(gw, dims)?)? } else { d };
    super::mul(&d, rstd)
}

/// (normalised x, 1 / deviation) as functions of x.
fn statistics(x: &Tensor, dims: &[i64], eps: f64, centered: bool) -> Result<(Tensor, Tensor)> {
    let xc = if centered { super::sub(x, &mean_over(x, dims)?)? } else { x.clone() };
    let var = mean_over(&super::square(&xc)?, dims)?;
    let rstd = super::rsqrt(&super::add(&var, eps)?)?;
    Ok((super::mul(&xc, &rstd)?, rstd))
}

// ---- batch norm ----------------------------------------------------------------------------------

/// Running statistics and options of [`batch_norm`].
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    pub running_mean: Option<&'a Tensor>,
    pub running_var: Option<&'a Tensor>,
    pub training: bool,
    pub momentum: f64,
    pub eps: f64,
}

/// `x` [N, C, ...] as [N, C, L], a copy only if the strides forbid it.
fn channels(x: &Tensor) -> Result<Tensor> {
    let s = x.shape();
    let l: usize = s[2..].iter().product();
    let shape = [s[0], s[1], l];
    let x = x.detach();
    match x.layout().view(&shape) {
        Some(v) => Ok(super::with_layout(&x, v)),
        None => Ok(super::with_layout(&super::contiguous(&x)?, Layout::contiguous(&shape))),
    }
}

/// `y`'s view from [`channels`] was written to: if it had to be a copy, its numbers go where they belong.
fn written(y: &Tensor, view: &Tensor) -> Result<()> {
    if view.storage().same(y.storage()) {
        return Ok(());
    }
    super::copy_raw(y, &super::with_layout(view, Layout::contiguous(y.shape())))
}

/// Normalises every channel (dimension 1) over batch and space.
pub fn batch_norm(x: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>, o: Batch) -> Result<Tensor> {
    if x.ndim() == 1 && x.numel() == 0 {
        // Nothing to normalise, as PyTorch has it.
        return super::clone(x);
    }
    ensure!(
        x.ndim() >= 2,
        Runtime,
        "batch_norm: expected an input of at least 2 dimensions (N, C, ...), got shape {:?}",
        x.shape()
    );
    want_float("batch_norm", x)?;
    let c = x.shape()[1];
    check_affine(
        "batch_norm",
        x,
        c,
        [("weight", w), ("bias", b), ("running_mean", o.running_mean), ("running_var", o.running_var)],
    )?;
    let ct = compute_type(x.dtype());
    let xv = channels(x)?;
    let y = x.empty_like_with(x.dtype())?;
    let count = x.numel() / c.max(1);
    let (mean, rstd) = {
        let _off = autograd::GradMode::new(false);
        let (mean, var) = if o.training {
            let (m, v) = (Tensor::empty(&[c], ct, x.device())?, Tensor::empty(&[c], ct, x.device())?);
            if x.numel() > 0 {
                x.backend()?.rowwise(Rowwise::BatchStats { x: xv.arr(), mean: m.arr(), var: v.arr() })?;
                update_running(&o, &m, &v, count)?;
            }
            (m, v)
        } else {
            let (Some(m), Some(v)) = (o.running_mean, o.running_var) else {
                bail!(
                    Runtime,
                    "Expected running_mean and running_var to be defined when training=False (batch_norm of input {:?})",
                    x.shape()
                )
            };
            // Copies: later training steps write the running statistics in place.
            (super::clone(&super::to_dtype(&m.detach(), ct)?)?, super::to_dtype(&v.detach(), ct)?)
        };
        (mean, super::rsqrt(&super::add(&var, o.eps)?)?)
    };
    if x.numel() > 0 {
        let yv = channels(&y)?;
        x.backend()?.rowwise(Rowwise::BatchNorm {
            x: xv.arr(),
            mean: mean.arr(),
            rstd: rstd.arr(),
            w: w.map(Tensor::arr),
            b: b.map(Tensor::arr),
            y: yv.arr(),
        })?;
        written(&y, &yv)?;
    }
    let ins = inputs(x, w, b);
    if needs_grad(&ins) {
        let (has_w, has_b, training, eps) = (w.is_some(), b.is_some(), o.training, o.eps);
        let save = [Save::Input(x), Save::Opt(w), Save::Input(&mean), Save::Input(&rstd)];
        autograd::attach("NativeBatchNormBackward0", &ins, &[&y], &save, move |cx| {
            let (need_x, need_w) = (cx.needs(0), has_w && cx.needs(1));
            let need_b = has_b && cx.needs(1 + has_w as usize);
            let (g, x, w) = (cx.grad(0)?, cx.saved(0)?, cx.saved_opt(1));
            let (mean, rstd) = (cx.saved(2)?, cx.saved(3)?);
            if cx.create_graph {
                let (dx, dw, db) = batch_composed(&g, x, w, mean, rstd, training, eps)?;
                return Ok(present(Some(dx), Some(dw), Some(db), has_w, has_b));
            }
            let dx = if need_x { Some(x.empty_like_with(x.dtype())?) } else { None };
            let affine = |on: bool| -> Result<Option<Tensor>> {
                if !on {
                    return Ok(None);
                }
                let d = w.map_or(x.dtype(), Tensor::dtype);
                Ok(Some(Tensor::zeros(&[x.shape()[1]], d, x.device())?))
            };
            let (dw, db) = (affine(need_w)?, affine(need_b)?);
            if x.numel() > 0 {
                let dxv = match &dx {
                    Some(d) => Some(channels(d)?),
                    None => None,
                };
                x.backend()?.rowwise(Rowwise::BatchNormBackward {
                    dy: channels(&g)?.arr(),
                    x: channels(x)?.arr(),
                    mean: mean.arr(),
                    rstd: rstd.arr(),
                    w: w.map(Tensor::arr),
                    dx: dxv.as_ref().map(Tensor::arr),
                    dw: dw.as_ref().map(Tensor::arr),
                    db: db.as_ref().map(Tensor::arr),
                    training,
                })?;
                if let (Some(dx), Some(view)) = (&dx, &dxv) {
                    written(dx, view)?;
                }
            }
            Ok(present(dx, dw, db, has_w, has_b))
        });
    }
    Ok(y)
}

/// `running = (1 - momentum) * running + momentum * batch`, in place; the variance unbiased.
fn update_running(o: &Batch, mean: &Tensor, var: &Tensor, count: usize) -> Result<()> {
    let blend = |running: &Tensor, batch: &Tensor| -> Result<()> {
        let m = super::Operand::Number(Scalar::Float(o.momentum));
        let batch = super::to_dtype(batch, running.dtype())?;
        crate::autograd::inplace::before_write("batch_norm", running)?;
        super::elementwise::run_raw(id::LERP, running, &[running.into(), (&batch).into(), m], &[])?;
        running.storage().bump_version();
        Ok(())
    };
    if let Some(r) = o.running_mean {
        blend(&r.detach(), mean)?;
    }
    if let Some(r) = o.running_var {
        let unbiased = super::mul(var, count as f64 / (count as f64 - 1.0))?;
        blend(&r.detach(), &unbiased)?;
    }
    Ok(())
}

fn batch_composed(
    g: &Tensor,
    x: &Tensor,
    w: Option<&Tensor>,
    mean: &Tensor,
    rstd: &Tensor,
    training: bool,
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    let dims: SmallVec<[i64; 6]> = (0..x.ndim() as i64).filter(|d| *d != 1).collect();
    let mut shape: SmallVec<[i64; 6]> = smallvec![1; x.ndim()];
    shape[1] = -1;
    let channel = |t: &Tensor| super::reshape(&super::to_dtype(t, x.dtype())?, &shape);
    let (xhat, rstd) = if training {
        statistics(x, &dims, eps, true)?
    } else {
        let r = channel(rstd)?;
        (super::mul(&super::sub(x, &channel(mean)?)?, &r)?, r)
    };
    let gw = match w {
        Some(w) => super::mul(g, &channel(w)?)?,
        None => g.clone(),
    };
    let dx =
        if training { through_statistics(&gw, &xhat, &rstd, &dims, true)? } else { super::mul(&gw, &rstd)? };
    let dw = super::sum(&super::mul(g, &xhat)?, Some(&dims), false, None)?;
    Ok((dx, dw, super::sum(g, Some(&dims), false, None)?))
}

// ---- layer norm, RMS norm ------------------------------------------------------------------------

/// How many trailing dimensions `shape` names; an error if it is not the end of `x`'s shape.
fn trailing(op: &str, x: &Tensor, shape: &[i64]) -> Result<usize> {
    ensure!(
        !shape.is_empty(),
        Runtime,
        "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got normalized_shape = {shape:?}"
    );
    let n = shape.len();
    let fits = x.ndim() >= n && x.shape()[x.ndim() - n..].iter().zip(shape).all(|(a, b)| *a as i64 == *b);
    ensure!(
        fits,
        Shape,
        "{op}: Given normalized_shape={shape:?}, expected input with shape [*, {}], but got input of size{:?}",
        shape.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
        x.shape()
    );
    Ok(n)
}

fn layer(
    op: &'static str,
    x: &Tensor,
    shape: &[i64],
    w: Option<&Tensor>,
    b: Option<&Tensor>,
    eps: f64,
    rms: bool,
) -> Result<Tensor> {
    let k = trailing(op, x, shape)?;
    want_float(op, x)?;
    let n: usize = x.shape()[x.ndim() - k..].iter().product();
    check_affine(op, x, n, [("weight", w), ("bias", b), ("", None), ("", None)])?;
    let rows = x.shape()[..x.ndim() - k].iter().product::<usize>();
    let ct = compute_type(x.dtype());
    let y = Tensor::empty(x.shape(), x.dtype(), x.device())?;
    let mean = if rms { None } else { Some(Tensor::empty(&[rows], ct, x.device())?) };
    let rstd = Tensor::empty(&[rows], ct, x.device())?;
    if x.numel() > 0 {
        let xv = flat_rows(x, rows, n)?;
        x.backend()?.rowwise(Rowwise::LayerNorm {
            x: xv.arr(),
            w: flat(w)?.as_ref().map(Tensor::arr),
            b: flat(b)?.as_ref().map(Tensor::arr),
            y: flat_rows(&y, rows, n)?.arr(),
            mean: mean.as_ref().map(Tensor::arr),
            rstd: rstd.arr(),
            eps,
            rms,
        })?;
    }
    let ins = inputs(x, w, b);
    if needs_grad(&ins) {
        let (has_w, has_b) = (w.is_some(), b.is_some());
        let bias_like: Option<(Dims, DType)> = b.map(|b| (b.shape().into(), b.dtype()));
        let save = [Save::Input(x), Save::Opt(w), Save::Opt(mean.as_ref()), Save::Input(&rstd)];
        let name = if rms { "RmsNormBackward0" } else { "NativeLayerNormBackward0" };
        autograd::attach(name, &ins, &[&y], &save, move |cx| {
            let need_w = has_w && cx.needs(1);
            let need_b = has_b && cx.needs(1 + has_w as usize);
            let (g, x, w) = (cx.grad(0)?, cx.saved(0)?, cx.saved_opt(1));
            let (mean, rstd) = (cx.saved_opt(2), cx.saved(3)?);
            if cx.create_graph {
                let (dx, dw, db) = layer_composed(&g, x, w, k, eps, rms)?;
                return Ok(present(Some(dx), Some(dw), Some(db), has_w, has_b));
            }
            let dx = if cx.needs(0) { Some(Tensor::empty(x.shape(), x.dtype(), x.device())?) } else { None };
            let dw = match w {
                Some(w) if need_w => Some(Tensor::zeros(w.shape(), w.dtype(), w.device())?),
                _ => None,
            };
            let db = match &bias_like {
                Some((s, d)) if need_b => Some(Tensor::zeros(s, *d, x.device())?),
                _ => None,
            };
            if x.numel() > 0 {
                let dxv = match &dx {
                    Some(d) => Some(flat_rows(d, rows, n)?),
                    None => None,
                };
                let (dwv, dbv) = (flat(dw.as_ref())?, flat(db.as_ref())?);
                x.backend()?.rowwise(Rowwise::LayerNormBackward {
                    dy: flat_rows(&g, rows, n)?.arr(),
                    x: flat_rows(x, rows, n)?.arr(),
                    w: flat(w)?.as_ref().map(Tensor::arr),
                    mean: mean.map(Tensor::arr),
                    rstd: rstd.arr(),
                    dx: dxv.as_ref().map(Tensor::arr),
                    dw: dwv.as_ref().map(Tensor::arr),
                    db: dbv.as_ref().map(Tensor::arr),
                    rms,
                })?;
            }
            Ok(present(dx, dw, db, has_w, has_b))
        });
    }
    Ok(y)
}

/// [rows, n] over the same memory where the layout allows it.
fn flat_rows(t: &Tensor, rows: usize, n: usize) -> Result<Tensor> {
    let t = t.detach();
    match t.layout().view(&[rows, n]) {
        Some(v) => dense_rows(&super::with_layout(&t, v)),
        None => Ok(super::with_layout(&super::contiguous(&t)?, Layout::contiguous(&[rows, n]))),
    }
}

/// A parameter as a vector.
fn flat(t: Option<&Tensor>) -> Result<Option<Tensor>> {
    let Some(t) = t else { return Ok(None) };
    let t = super::contiguous(&t.detach())?;
    let l = Layout::new([t.numel()].as_slice(), [1isize].as_slice(), t.layout().offset());
    Ok(Some(super::with_layout(&t, l)))
}

fn layer_composed(
    g: &Tensor,
    x: &Tensor,
    w: Option<&Tensor>,
    k: usize,
    eps: f64,
    rms: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    let mask: Mask = (0..x.ndim()).map(|d| d + k >= x.ndim()).collect();
    let over = |on: bool| -> SmallVec<[i64; 6]> {
        (0..x.ndim()).filter(|d| mask[*d] == on).map(|d| d as i64).collect()
    };
    let (dims, rows) = (over(true), over(false));
    let (xhat, rstd) = statistics(x, &dims, eps, !rms)?;
    let gw = match w {
        Some(w) => super::mul(g, &super::to_dtype(w, x.dtype())?)?,
        None => g.clone(),
    };
    let dx = through_statistics(&gw, &xhat, &rstd, &dims, !rms)?;
    let sum =
        |t: &Tensor| if rows.is_empty() { Ok(t.clone()) } else { super::sum(t, Some(&rows), false, None) };
    Ok((dx, sum(&super::mul(g, &xhat)?)?, sum(g)?))
}

pub fn layer_norm(
    x: &Tensor,
    shape: &[i64],
    w: Option<&Tensor>,
    b: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    layer("layer_norm", x, shape, w, b, eps, false)
}

/// `eps` defaults to the spacing of numbers at 1 in the input's dtype.
pub fn rms_norm(x: &Tensor, shape: &[i64], w: Option<&Tensor>, eps: Option<f64>) -> Result<Tensor> {
    let eps = eps.unwrap_or(if x.dtype() == DType::F64 { f64::EPSILON } else { f32::EPSILON as f64 });
    if x.dtype().is_complex() {
        return complex_rms_norm(x, shape, w, eps);
    }
    layer("rms_norm", x, shape, w, None, eps, true)
}

/// `x / sqrt(mean(x * x) + eps)`: PyTorch squares complex numbers, it does not take their magnitude.
fn complex_rms_norm(x: &Tensor, shape: &[i64], w: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let k = shape.len();
    ensure!(
        k > 0 && k <= x.ndim() && x.shape()[x.ndim() - k..].iter().zip(shape).all(|(n, s)| *n as i64 == *s),
        Runtime,
        "rms_norm: Given normalized_shape={shape:?}, expected input with shape [*, {shape:?}], but got input of size {:?}",
        x.shape()
    );
    let dims: SmallVec<[i64; 6]> = (0..k).map(|d| (x.ndim() - k + d) as i64).collect();
    let mean = super::mean(&super::square(x)?, Some(&dims), true, None)?;
    let y = super::div(x, &super::sqrt(&super::add(&mean, eps)?)?)?;
    match w {
        Some(w) => super::mul(&y, w),
        None => Ok(y),
    }
}

/// Normalises over groups of channels and space of every sample.
pub fn group_norm(
    x: &Tensor,
    groups: i64,
    w: Option<&Tensor>,
    b: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    ensure!(
        x.ndim() >= 2,
        Runtime,
        "group_norm: Expected at least 2 dimensions for input tensor but received {} (shape {:?})",
        x.ndim(),
        x.shape()
    );
    ensure!(groups > 0, Runtime, "Expected num_groups to be greater than 0, got {groups}");
    let (n, c) = (x.shape()[0], x.shape()[1]);
    ensure!(
        c.is_multiple_of(groups as usize),
        Shape,
        "Expected number of channels in input to be divisible by num_groups, but got input of shape {:?} and num_groups={groups}",
        x.shape()
    );
    check_affine("group_norm", x, c, [("weight", w), ("bias", b), ("", None), ("", None)])?;
    let g = groups as usize;
    let len = x.numel() / (n * g).max(1);
    let y = if x.numel() == 0 {
        x.clone()
    } else {
        let rows = super::reshape(x, &signed(&[n * g, len]))?;
        let rows = layer("group_norm", &rows, &[len as i64], None, None, eps, false)?;
        super::reshape_to(&rows, x.shape())?
    };
    let mut shape: SmallVec<[i64; 6]> = smallvec![1; x.ndim()];
    shape[1] = -1;
    let channel = |t: &Tensor| super::reshape(&super::to_dtype(t, x.dtype())?, &shape);
    let y = match w {
        Some(w) => super::mul(&y, &channel(w)?)?,
        None => y,
    };
    match b {
        Some(b) => super::add(&y, &channel(b)?),
        None => Ok(y),
    }
}

/// Normalises every channel of every sample; with running statistics as PyTorch's.
pub fn instance_norm(x: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>, o: Batch) -> Result<Tensor> {
    ensure!(
        x.ndim() >= 2,
        Runtime,
        "instance_norm: expected an input of at least 2 dimensions (N, C, ...), got shape {:?}",
        x.shape()
    );
    if !o.training {
        return batch_norm(x, w, b, o);
    }
    let (n, c) = (x.shape()[0], x.shape()[1]);
    check_affine(
        "instance_norm",
        x,
        c,
        [("weight", w), ("bias", b), ("running_mean", o.running_mean), ("running_var", o.running_var)],
    )?;
    if x.numel() > 0 && (o.running_mean.is_some() || o.running_var.is_some()) {
        let _off = autograd::GradMode::new(false);
        let mut shape = signed(x.shape());
        shape[0] = 1;
        shape[1] = (n * c) as i64;
        let xv = channels(&super::reshape(&x.detach(), &shape)?)?;
        let ct = compute_type(x.dtype());
        let (m, v) = (Tensor::empty(&[n * c], ct, x.device())?, Tensor::empty(&[n * c], ct, x.device())?);
        x.backend()?.rowwise(Rowwise::BatchStats { x: xv.arr(), mean: m.arr(), var: v.arr() })?;
        let over = |t: &Tensor| super::mean(&super::reshape(t, &signed(&[n, c]))?, Some(&[0]), false, None);
        update_running(&o, &over(&m)?, &over(&v)?, x.numel() / (n * c))?;
    }
    group_norm(x, c as i64, w, b, o.eps)
}

// ---- registry ------------------------------------------------------------------------------------

fn call_batch(a: &Args) -> Result<Value> {
    let o = Batch {
        running_mean: a.tensor_opt(1)?,
        running_var: a.tensor_opt(2)?,
        training: a.bool(5)?,
        momentum: a.float(6)?,
        eps: a.float(7)?,
    };
    Ok(batch_norm(a.tensor(0)?, a.tensor_opt(3)?, a.tensor_opt(4)?, o)?.into())
}

fn call_layer(a: &Args) -> Result<Value> {
    Ok(layer_norm(a.tensor(0)?, a.ints(1)?, a.tensor_opt(2)?, a.tensor_opt(3)?, a.float(4)?)?.into())
}

fn call_group(a: &Args) -> Result<Value> {
    Ok(group_norm(a.tensor(0)?, a.int(1)?, a.tensor_opt(2)?, a.tensor_opt(3)?, a.float(4)?)?.into())
}

fn call_rms(a: &Args) -> Result<Value> {
    Ok(rms_norm(a.tensor(0)?, a.ints(1)?, a.tensor_opt(2)?, a.float_opt(3)?)?.into())
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "batch_norm",
        FUNCTION,
        ns = "nn",
        "Normalises every channel over batch and space; in training the running statistics are updated in place.",
        "input: Tensor, running_mean: Tensor?, running_var: Tensor?, weight: Tensor? = None, bias: Tensor? = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5",
        call_batch
    );
    op!(
        list,
        "batch_norm",
        FUNCTION,
        "Normalises every channel over batch and space; in training the running statistics are updated in place.",
        "input: Tensor, weight: Tensor?, bias: Tensor?, running_mean: Tensor?, running_var: Tensor?, training: bool, momentum: float, eps: float, cudnn_enabled: bool = True",
        |a| {
            a.bool(8)?; // Names a library of another implementation; there is one here.
            let o = Batch {
                running_mean: a.tensor_opt(3)?,
                running_var: a.tensor_opt(4)?,
                training: a.bool(5)?,
                momentum: a.float(6)?,
                eps: a.float(7)?,
            };
            Ok(batch_norm(a.tensor(0)?, a.tensor_opt(1)?, a.tensor_opt(2)?, o)?.into())
        }
    );
    op!(
        list,
        "instance_norm",
        FUNCTION,
        ns = "nn",
        "Normalises every channel of every sample.",
        "input: Tensor, running_mean: Tensor? = None, running_var: Tensor? = None, weight: Tensor? = None, bias: Tensor? = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5",
        |a| {
            let o = Batch {
                running_mean: a.tensor_opt(1)?,
                running_var: a.tensor_opt(2)?,
                training: a.bool(5)?,
                momentum: a.float(6)?,
                eps: a.float(7)?,
            };
            Ok(instance_norm(a.tensor(0)?, a.tensor_opt(3)?, a.tensor_opt(4)?, o)?.into())
        }
    );
    for_both(list);
}

/// The ops that stand in both namespaces with one signature.
fn for_both(list: &mut Vec<Op>) {
    macro_rules! both {
        ($name:literal, $doc:literal, $sig:literal, $f:expr) => {
            op!(list, $name, FUNCTION, ns = "nn", $doc, $sig, $f);
            op!(list, $name, FUNCTION, $doc, $sig, $f);
        };
    }
    both!(
        "layer_norm",
        "Normalises over the last dimensions, of sizes `normalized_shape`.",
        "input: Tensor, normalized_shape: ints, weight: Tensor? = None, bias: Tensor? = None, eps: float = 1e-5",
        call_layer
    );
    both!(
        "group_norm",
        "Normalises over groups of channels.",
        "input: Tensor, num_groups: int, weight: Tensor? = None, bias: Tensor? = None, eps: float = 1e-5",
        call_group
    );
    both!(
        "rms_norm",
        "Divides by the root mean square over the last dimensions.",
        "input: Tensor, normalized_shape: ints, weight: Tensor? = None, eps: float? = None",
        call_rms
    );
}
