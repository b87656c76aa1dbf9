//! Losses. Cross-entropy runs in one kernel from the logits; the others are short compositions of
//! library ops, whose gradients they inherit.

use super::Operand;
use super::nn_misc::{compute_type, dense_rows, dim_last, pick, place, same_device, want_float, zero};
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::{Index, Rowwise};
use pyrite_core::rows::table::id;
use pyrite_core::{DType, Dims, Layout, Result, Scalar, bail, ensure};
use smallvec::smallvec;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduction {
    None,
    Mean,
    Sum,
}

impl Reduction {
    pub fn parse(s: &str) -> Result<Reduction> {
        match s {
            "none" => Ok(Reduction::None),
            "mean" => Ok(Reduction::Mean),
            "sum" => Ok(Reduction::Sum),
            s => bail!(Value, "{s} is not a valid value for reduction"),
        }
    }
    fn apply(self, t: Tensor) -> Result<Tensor> {
        match self {
            Reduction::None => Ok(t),
            Reduction::Mean => super::mean(&t, None, false, None),
            Reduction::Sum => super::sum(&t, None, false, None),
        }
    }
}

// ---- class indices -------------------------------------------------------------------------------

/// Options of the losses with class indices.
#[derive(Clone, Copy)]
pub struct Classes<'a> {
    pub weight: Option<&'a Tensor>,
    pub ignore: i64,
    pub reduction: Reduction,
    pub smoothing: f64,
}

/// The dimension of the classes: 1, or 0 of an unbatched vector.
fn class_dim(x: &Tensor) -> usize {
    usize::from(x.ndim() > 1)
}

fn check_classes(op: &str, x: &Tensor, t: &Tensor, c: &Classes) -> Result<()> {
    ensure!(x.ndim() > 0, Runtime, "{op}: input tensor should be at least 1D, got shape {:?}", x.shape());
    let d = class_dim(x);
    let mut want: Dims = x.shape().into();
    let n = want.remove(d);
    if x.ndim() > 1 && t.ndim() > 0 {
        ensure!(
            t.shape()[0] == want[0],
            Value,
            "Expected input batch_size ({}) to match target batch_size ({}).",
            want[0],
            t.shape()[0]
        );
    }
    ensure!(
        t.shape() == &want[..],
        Shape,
        "{op}: Expected target size {:?}, got {:?} (input {:?})",
        &want[..],
        t.shape(),
        x.shape()
    );
    same_device(op, &[x, t])?;
    want_float(op, x)?;
    if let Some(w) = c.weight {
        ensure!(
            w.ndim() == 1 && w.numel() == n,
            Shape,
            "{op}: weight tensor should be defined either for all {n} classes or no classes but got weight tensor of shape: {:?}",
            w.shape()
        );
        ensure!(
            w.dtype() == x.dtype(),
            Runtime,
            "{op}: expected scalar type {} but found {} (weight)",
            x.dtype().name(),
            w.dtype().name()
        );
        same_device(op, &[x, w])?;
    }
    Ok(())
}

/// Targets as int64; PyTorch takes uint8 too.
fn targets(op: &str, t: &Tensor) -> Result<Tensor> {
    match t.dtype() {
        DType::I64 => Ok(t.detach()),
        DType::U8 => super::to_dtype(&t.detach(), DType::I64),
        d => bail!(
            Runtime,
            "{op}: expected target of dtype int64 (class indices), but got {}; use target.long()",
            d.name()
        ),
    }
}

/// What the mean divides by, untracked: the number (or the weights) of the targets that count.
fn denominator(x: &Tensor, t: &Tensor, c: &Classes) -> Result<Tensor> {
    let _off = autograd::GradMode::new(false);
    let valid = super::ne(t, Operand::Number(Scalar::Int(c.ignore)))?;
    match c.weight {
        None => super::sum(&valid, None, false, Some(compute_type(x.dtype()))),
        Some(w) => super::sum(&target_weights(w, t, &valid)?, None, false, Some(compute_type(x.dtype()))),
    }
}

/// `weight[target]`, 0 where ignored; untracked.
fn target_weights(w: &Tensor, t: &Tensor, valid: &Tensor) -> Result<Tensor> {
    let _off = autograd::GradMode::new(false);
    let y = pick_rows(&w.detach(), &safe_targets(t, valid)?)?;
    super::where_(valid, &y, zero())
}

/// Targets with the ignored ones replaced by class 0.
fn safe_targets(t: &Tensor, valid: &Tensor) -> Result<Tensor> {
    super::where_(valid, t, Operand::Number(Scalar::Int(0)))
}

/// `w[t]` for a vector `w`; no history.
fn pick_rows(w: &Tensor, t: &Tensor) -> Result<Tensor> {
    let y = Tensor::empty(t.shape(), w.dtype(), w.device())?;
    if y.numel() > 0 {
        let t = super::contiguous(t)?;
        let flat = super::with_layout(
            &t,
            Layout::new([t.numel()].as_slice(), [1isize].as_slice(), t.layout().offset()),
        );
        let out = super::with_layout(&y, Layout::new([y.numel()].as_slice(), [1isize].as_slice(), 0));
        w.backend()?.index(Index::Select { dst: out.arr(), src: w.arr(), idx: flat.arr(), dim: 0 })?;
    }
    Ok(y)
}

/// Cross-entropy of logits: class indices, or class probabilities of the input's shape.
pub fn cross_entropy(x: &Tensor, t: &Tensor, c: Classes) -> Result<Tensor> {
    ensure!(
        (0.0..=1.0).contains(&c.smoothing),
        Runtime,
        "cross_entropy: label_smoothing must be between 0.0 and 1.0. Got: {}",
        c.smoothing
    );
    if t.dtype().is_float() && t.shape() == x.shape() {
        return with_probabilities(x, t, c);
    }
    check_classes("cross_entropy", x, t, &c)?;
    let t = targets("cross_entropy", t)?;
    let rows = fused_rows(x, &t, c)?;
    let y = match c.reduction {
        Reduction::None => rows,
        Reduction::Sum => super::sum(&rows, None, false, None)?,
        Reduction::Mean => super::div(&super::sum(&rows, None, false, None)?, &denominator(x, &t, &c)?)?,
    };
    super::to_dtype(&y, x.dtype())
}

/// The loss of every row, in the compute type.
fn fused_rows(x: &Tensor, t: &Tensor, c: Classes) -> Result<Tensor> {
    let d = class_dim(x);
    let ct = compute_type(x.dtype());
    let loss = Tensor::empty(t.shape(), ct, x.device())?;
    let lse = Tensor::empty(t.shape(), ct, x.device())?;
    let (ignore, smoothing) = (c.ignore, c.smoothing);
    ensure!(
        x.numel() > 0 || t.numel() == 0,
        Runtime,
        "cross_entropy: input of shape {:?} has no classes",
        x.shape()
    );
    if t.numel() > 0 {
        let moved = dense_rows(&super::with_layout(x, dim_last(x.layout(), d)?))?;
        x.backend()?.rowwise(Rowwise::CrossEntropy {
            x: moved.arr(),
            target: t.arr(),
            weight: c.weight.map(Tensor::arr),
            ignore,
            smoothing,
            loss: loss.arr(),
            lse: lse.arr(),
        })?;
    }
    if needs_grad(&[x]) {
        let weight = c.weight.map(Tensor::detach);
        let save = [Save::Input(x), Save::Input(t), Save::Opt(weight.as_ref()), Save::Input(&lse)];
        autograd::attach("NllLossBackward0", &[x], &[&loss], &save, move |cx| {
            let (x, t, w, lse) = (cx.saved(0)?, cx.saved(1)?, cx.saved_opt(2), cx.saved(3)?);
            let g = cx.grad(0)?;
            let c = Classes { weight: w, ignore, reduction: Reduction::None, smoothing };
            if cx.create_graph {
                return Ok(smallvec![Some(composed_grad(x, t, &g, c)?)]);
            }
            let dx = x.empty_like_with(x.dtype())?;
            if dx.numel() > 0 {
                let moved = dense_rows(&super::with_layout(x, dim_last(x.layout(), d)?))?;
                let back = super::with_layout(&dx, dim_last(dx.layout(), d)?);
                let out = dense_rows(&back)?;
                x.backend()?.rowwise(Rowwise::CrossEntropyBackward {
                    x: moved.arr(),
                    target: t.arr(),
                    weight: w.map(Tensor::arr),
                    ignore,
                    smoothing,
                    lse: lse.arr(),
                    scale: g.arr(),
                    dx: out.arr(),
                })?;
                if !out.same(&back) {
                    super::copy_raw(&back, &out)?;
                }
            }
            Ok(smallvec![Some(dx)])
        });
    }
    Ok(loss)
}

/// `g * (softmax(x) * sum(q) - q)` with `q` the (weighted, smoothed) target distribution of each row.
fn composed_grad(x: &Tensor, t: &Tensor, g: &Tensor, c: Classes) -> Result<Tensor> {
    let d = class_dim(x);
    let dims = [d as i64];
    let q = target_distribution(x, t, c)?;
    let p = super::softmax::softmax(x, dims[0], None)?;
    let total = super::sum(&q, Some(&dims), true, None)?;
    let g = super::unsqueeze(g, dims[0])?;
    let dx = super::mul(&super::sub(&super::mul(&p, &total)?, &q)?, &g)?;
    super::to_dtype(&dx, x.dtype())
}

fn target_distribution(x: &Tensor, t: &Tensor, c: Classes) -> Result<Tensor> {
    let _off = autograd::GradMode::new(false);
    let d = class_dim(x);
    let valid = super::ne(t, Operand::Number(Scalar::Int(c.ignore)))?;
    let own = match c.weight {
        Some(w) => target_weights(w, t, &valid)?,
        None => super::to_dtype(&valid, x.dtype())?,
    };
    let at = super::unsqueeze(&safe_targets(t, &valid)?, d as i64)?;
    let own = super::unsqueeze(&super::mul(&own, 1.0 - c.smoothing)?, d as i64)?;
    let q = place(&own, &at, d, x.shape())?;
    if c.smoothing == 0.0 {
        return Ok(q);
    }
    let each = c.smoothing / x.shape()[d] as f64;
    let spread = super::mul(&super::to_dtype(&super::unsqueeze(&valid, d as i64)?, x.dtype())?, each)?;
    let spread = match c.weight {
        Some(w) => super::mul(&spread, &along(&w.detach(), d, x.ndim())?)?,
        None => spread,
    };
    super::add(&q, &spread)
}

/// A vector shaped to broadcast along dimension `d` of `n`.
fn along(v: &Tensor, d: usize, n: usize) -> Result<Tensor> {
    let mut shape = vec![1i64; n];
    shape[d] = -1;
    super::reshape(v, &shape)
}

fn with_probabilities(x: &Tensor, t: &Tensor, c: Classes) -> Result<Tensor> {
    ensure!(c.ignore < 0, Runtime, "cross_entropy: ignore_index is not supported for floating point target");
    ensure!(x.ndim() > 0, Runtime, "cross_entropy: input must be at least 1D, got shape {:?}", x.shape());
    want_float("cross_entropy", x)?;
    same_device("cross_entropy", &[x, t])?;
    let d = class_dim(x);
    let n = x.shape()[d];
    let t = if c.smoothing > 0.0 {
        super::add(&super::mul(t, 1.0 - c.smoothing)?, c.smoothing / n.max(1) as f64)?
    } else {
        t.clone()
    };
    let mut each = super::mul(&super::softmax::log_softmax(x, d as i64, None)?, &t)?;
    if let Some(w) = c.weight {
        ensure!(
            w.ndim() == 1 && w.numel() == n,
            Shape,
            "cross_entropy: weight tensor should be defined either for all {n} classes or no classes but got weight tensor of shape: {:?}",
            w.shape()
        );
        each = super::mul(&each, &along(w, d, x.ndim())?)?;
    }
    let each = super::neg(&each)?;
    match c.reduction {
        Reduction::None => super::sum(&each, Some(&[d as i64]), false, None),
        Reduction::Sum => super::sum(&each, None, false, None),
        Reduction::Mean => {
            let rows =
                x.shape().iter().enumerate().filter(|(i, _)| *i != d).map(|(_, s)| *s).product::<usize>();
            super::div(&super::sum(&each, None, false, None)?, rows as f64)
        }
    }
}

/// Negative log-likelihood of log-probabilities at class indices.
pub fn nll_loss(x: &Tensor, t: &Tensor, c: Classes) -> Result<Tensor> {
    check_classes("nll_loss", x, t, &c)?;
    let t = targets("nll_loss", t)?;
    let d = class_dim(x);
    let valid = super::ne(&t, Operand::Number(Scalar::Int(c.ignore)))?;
    let at = super::unsqueeze(&safe_targets(&t, &valid)?, d as i64)?;
    let own = pick(x, &at, d).map_err(|e| e.context("nll_loss: target out of bounds"))?;
    let own = super::neg(&super::squeeze(&own, Some(&[d as i64]))?)?;
    let own = match c.weight {
        Some(w) => super::mul(&own, &target_weights(w, &t, &valid)?)?,
        None => own,
    };
    // Selected, not multiplied: an infinite loss of an ignored row must not become NaN.
    let own = super::where_(&valid, &own, zero())?;
    match c.reduction {
        Reduction::None => Ok(own),
        Reduction::Sum => super::sum(&own, None, false, None),
        Reduction::Mean => {
            let y = super::div(&super::sum(&own, None, false, None)?, &denominator(x, &t, &c)?)?;
            super::to_dtype(&y, x.dtype())
        }
    }
}

// ---- regression ----------------------------------------------------------------------------------

pub fn mse_loss(x: &Tensor, t: &Tensor, r: Reduction) -> Result<Tensor> {
    r.apply(super::square(&super::sub(x, t)?)?)
}

pub fn l1_loss(x: &Tensor, t: &Tensor, r: Reduction) -> Result<Tensor> {
    r.apply(super::abs(&super::sub(x, t)?)?)
}

/// Quadratic below `beta`, linear above.
pub fn smooth_l1_loss(x: &Tensor, t: &Tensor, r: Reduction, beta: f64) -> Result<Tensor> {
    ensure!(beta >= 0.0, Runtime, "smooth_l1_loss does not support negative values for beta.");
    if beta == 0.0 {
        return l1_loss(x, t, r);
    }
    let a = super::abs(&super::sub(x, t)?)?;
    let inner = super::mul(&super::square(&a)?, 0.5 / beta)?;
    let outer = super::sub(&a, 0.5 * beta)?;
    r.apply(super::where_(&super::lt(&a.detach(), beta)?, &inner, &outer)?)
}

/// Quadratic below `delta`, linear above with slope `delta`.
pub fn huber_loss(x: &Tensor, t: &Tensor, r: Reduction, delta: f64) -> Result<Tensor> {
    ensure!(delta > 0.0, Runtime, "huber_loss does not support non-positive values for delta.");
    let a = super::abs(&super::sub(x, t)?)?;
    let inner = super::mul(&super::square(&a)?, 0.5)?;
    let outer = super::mul(&super::sub(&a, 0.5 * delta)?, delta)?;
    r.apply(super::where_(&super::lt(&a.detach(), delta)?, &inner, &outer)?)
}

// ---- binary --------------------------------------------------------------------------------------

fn same_shape(op: &str, x: &Tensor, t: &Tensor) -> Result<()> {
    ensure!(
        x.shape() == t.shape(),
        Value,
        "{op}: Using a target size ({:?}) that is different to the input size ({:?}) is deprecated. Please ensure they have the same size.",
        t.shape(),
        x.shape()
    );
    Ok(())
}

fn clamp_min(x: &Tensor, lo: f64) -> Result<Tensor> {
    super::elementwise::run(id::CLAMP_MIN.row(), &[x.into(), lo.into()], &[])
}

/// Of probabilities; logarithms are limited to -100, so that 0 and 1 stay finite.
pub fn binary_cross_entropy(x: &Tensor, t: &Tensor, weight: Option<&Tensor>, r: Reduction) -> Result<Tensor> {
    same_shape("binary_cross_entropy", x, t)?;
    want_float("binary_cross_entropy", x)?;
    same_device("binary_cross_entropy", &[x, t])?;
    let y = {
        let _off = autograd::GradMode::new(false);
        let outside = super::logical_or(&super::lt(&x.detach(), 0.0)?, &super::gt(&x.detach(), 1.0)?)?;
        ensure!(!super::reduce::any(&outside)?, Runtime, "all elements of input should be between 0 and 1");
        let (p, q) = logs(x)?;
        // -(t log x + (1 - t) log(1 - x))
        super::sub(&super::mul(&super::sub(t, 1.0)?, &q)?, &super::mul(t, &p)?)?
    };
    if needs_grad(&[x, t]) {
        autograd::attach(
            "BinaryCrossEntropyBackward0",
            &[x, t],
            &[&y],
            &[Save::Input(x), Save::Input(t)],
            |cx| {
                let (g, x, t) = (cx.grad(0)?, cx.saved(0)?, cx.saved(1)?);
                let dx = if cx.needs(0) {
                    let room = clamp_min(&super::mul(x, &super::sub(&one(x)?, x)?)?, 1e-12)?;
                    Some(super::mul(&g, &super::div(&super::sub(x, t)?, &room)?)?)
                } else {
                    None
                };
                let dt = if cx.needs(1) {
                    let (p, q) = logs(x)?;
                    Some(super::mul(&g, &super::sub(&q, &p)?)?)
                } else {
                    None
                };
                Ok(smallvec![dx, dt])
            },
        );
    }
    let y = match weight {
        Some(w) => super::mul(&y, w)?,
        None => y,
    };
    r.apply(y)
}

fn one(like: &Tensor) -> Result<Tensor> {
    Tensor::scalar(Scalar::Int(1), like.dtype(), like.device())
}

/// log x and log(1 - x), at least -100.
fn logs(x: &Tensor) -> Result<(Tensor, Tensor)> {
    Ok((clamp_min(&super::log(x)?, -100.0)?, clamp_min(&super::log1p(&super::neg(x)?)?, -100.0)?))
}

/// Of logits, without overflow.
pub fn binary_cross_entropy_with_logits(
    x: &Tensor,
    t: &Tensor,
    weight: Option<&Tensor>,
    pos_weight: Option<&Tensor>,
    r: Reduction,
) -> Result<Tensor> {
    ensure!(
        x.shape() == t.shape(),
        Value,
        "Target size ({:?}) must be the same as input size ({:?})",
        t.shape(),
        x.shape()
    );
    want_float("binary_cross_entropy_with_logits", x)?;
    let log_p = super::elementwise::run(id::LOGSIGMOID.row(), &[x.into()], &[])?;
    let log_p = match pos_weight {
        // 1 + (w - 1) t
        Some(w) => {
            let f = super::add(&super::mul(&super::sub(w, 1.0)?, t)?, 1.0)?;
            super::mul(&f, &log_p)?
        }
        None => log_p,
    };
    let y = super::sub(&super::mul(&super::sub(&one(x)?, t)?, x)?, &log_p)?;
    let y = match weight {
        Some(w) => super::mul(&y, w)?,
        None => y,
    };
    r.apply(y)
}

/// `target * (log target - input)` of log-probabilities.
pub fn kl_div(x: &Tensor, t: &Tensor, r: Reduction, log_target: bool) -> Result<Tensor> {
    r.apply(if log_target {
        super::mul(&super::exp(t)?, &super::sub(t, x)?)?
    } else {
        let own = super::elementwise::run(id::XLOGY.row(), &[t.into(), t.into()], &[])?;
        super::sub(&own, &super::mul(t, x)?)?
    })
}

// ---- registry ------------------------------------------------------------------------------------

fn simple(a: &Args, f: fn(&Tensor, &Tensor, Reduction) -> Result<Tensor>) -> Result<Value> {
    Ok(f(a.tensor(0)?, a.tensor(1)?, Reduction::parse(a.str(2)?)?)?.into())
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "cross_entropy",
        FUNCTION,
        ns = "nn",
        "Cross-entropy of logits (N, C, ...) and class indices (N, ...) or class probabilities (N, C, ...).",
        "input: Tensor, target: Tensor, weight: Tensor? = None, ignore_index: int = -100, reduction: str = 'mean', label_smoothing: float = 0.0",
        |a| {
            let c = Classes {
                weight: a.tensor_opt(2)?,
                ignore: a.int(3)?,
                reduction: Reduction::parse(a.str(4)?)?,
                smoothing: a.float(5)?,
            };
            Ok(cross_entropy(a.tensor(0)?, a.tensor(1)?, c)?.into())
        }
    );
    op!(
        list,
        "nll_loss",
        FUNCTION,
        ns = "nn",
        "`-input[target]` of log-probabilities (N, C, ...) and class indices (N, ...).",
        "input: Tensor, target: Tensor, weight: Tensor? = None, ignore_index: int = -100, reduction: str = 'mean'",
        |a| {
            let c = Classes {
                weight: a.tensor_opt(2)?,
                ignore: a.int(3)?,
                reduction: Reduction::parse(a.str(4)?)?,
                smoothing: 0.0,
            };
            Ok(nll_loss(a.tensor(0)?, a.tensor(1)?, c)?.into())
        }
    );
    op!(
        list,
        "mse_loss",
        FUNCTION,
        ns = "nn",
        "The mean of `(input - target)**2`.",
        "input: Tensor, target: Tensor, reduction: str = 'mean'",
        |a| simple(a, mse_loss)
    );
    op!(
        list,
        "l1_loss",
        FUNCTION,
        ns = "nn",
        "The mean of `|input - target|`.",
        "input: Tensor, target: Tensor, reduction: str = 'mean'",
        |a| simple(a, l1_loss)
    );
    op!(
        list,
        "smooth_l1_loss",
        FUNCTION,
        ns = "nn",
        "Quadratic below `beta`, linear above (Girshick, 2015).",
        "input: Tensor, target: Tensor, reduction: str = 'mean', beta: float = 1.0",
        |a| Ok(smooth_l1_loss(a.tensor(0)?, a.tensor(1)?, Reduction::parse(a.str(2)?)?, a.float(3)?)?.into())
    );
    op!(
        list,
        "huber_loss",
        FUNCTION,
        ns = "nn",
        "Quadratic below `delta`, linear above (Huber, 1964).",
        "input: Tensor, target: Tensor, reduction: str = 'mean', delta: float = 1.0",
        |a| Ok(huber_loss(a.tensor(0)?, a.tensor(1)?, Reduction::parse(a.str(2)?)?, a.float(3)?)?.into())
    );
    op!(
        list,
        "binary_cross_entropy",
        FUNCTION,
        ns = "nn",
        "`-(t log x + (1 - t) log(1 - x))` of probabilities.",
        "input: Tensor, target: Tensor, weight: Tensor? = None, reduction: str = 'mean'",
        |a| Ok(binary_cross_entropy(
            a.tensor(0)?,
            a.tensor(1)?,
            a.tensor_opt(2)?,
            Reduction::parse(a.str(3)?)?
        )?
        .into())
    );
    op!(
        list,
        "binary_cross_entropy_with_logits",
        FUNCTION,
        ns = "nn",
        "`binary_cross_entropy` of `sigmoid(input)`, without overflow.",
        "input: Tensor, target: Tensor, weight: Tensor? = None, pos_weight: Tensor? = None, reduction: str = 'mean'",
        |a| Ok(binary_cross_entropy_with_logits(
            a.tensor(0)?,
            a.tensor(1)?,
            a.tensor_opt(2)?,
            a.tensor_opt(3)?,
            Reduction::parse(a.str(4)?)?
        )?
        .into())
    );
    op!(
        list,
        "kl_div",
        FUNCTION,
        ns = "nn",
        "`target * (log(target) - input)` of log-probabilities.",
        "input: Tensor, target: Tensor, reduction: str = 'mean', log_target: bool = False",
        |a| Ok(kl_div(a.tensor(0)?, a.tensor(1)?, Reduction::parse(a.str(2)?)?, a.bool(3)?)?.into())
    );
}
