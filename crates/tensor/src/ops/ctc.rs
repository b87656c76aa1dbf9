//! Connectionist temporal classification: the loss of every sample; `nn.functional` reduces them.
//!
//! As in PyTorch, the gradient is the one that is right after `log_softmax`: `exp(log_probs)` is part
//! of it, although a general function of `log_probs` would not have it. Under `create_graph` it is
//! computed by the same recursions in library ops.

use super::nn_misc::{compute_type, place, want_float};
use super::{Operand, index};
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::backend::Ctc;
use pyrite_core::dtype::Bool8;
use pyrite_core::{DType, Device, Result, Scalar, ensure};
use smallvec::smallvec;
use std::sync::Arc;

/// The labels of a batch, checked.
struct Labels {
    targets: Vec<i64>,
    begin: Vec<usize>,
    input_len: Vec<usize>,
    label_len: Vec<usize>,
    blank: usize,
    zero_infinity: bool,
}

/// The negative log likelihood of each sample. `log_probs` [T, N, C], `targets` [N, S] or all labels
/// one after the other.
pub fn ctc_loss(
    log_probs: &Tensor,
    targets: &Tensor,
    input_len: &[i64],
    label_len: &[i64],
    blank: i64,
    zero_infinity: bool,
) -> Result<Tensor> {
    ensure!(
        log_probs.ndim() == 3 && log_probs.numel() > 0,
        Runtime,
        "log_probs tensor must not be empty and have shape (T, N, C), got {:?}",
        log_probs.shape()
    );
    want_float("ctc_loss", log_probs)?;
    let (t, n, c) = (log_probs.shape()[0], log_probs.shape()[1], log_probs.shape()[2]);
    ensure!(
        matches!(targets.dtype(), DType::I64 | DType::I32),
        Runtime,
        "Expected tensor for argument 'targets' to have one of the following scalar types: Long, Int; but got {} instead (while checking arguments for ctc_loss)",
        targets.dtype().name()
    );
    ensure!((0..c as i64).contains(&blank), Runtime, "blank must be in label range: 0..{c}, got {blank}");
    ensure!(
        input_len.len() == n,
        Runtime,
        "input_lengths must be of size batch_size {n}, got {}",
        input_len.len()
    );
    ensure!(
        label_len.len() == n,
        Runtime,
        "target_lengths must be of size batch_size {n}, got {}",
        label_len.len()
    );
    let longest = label_len.iter().copied().max().unwrap_or(0);
    ensure!(
        label_len.iter().all(|l| *l >= 0),
        Runtime,
        "Expected target_lengths to have value at least 0, but got {label_len:?} (while checking arguments for ctc_loss)"
    );
    for l in input_len {
        ensure!(
            *l >= 0 && *l <= t as i64,
            Runtime,
            "Expected input_lengths to have value at least 0 and at most {t}, but got value {l} (while checking arguments for ctc_loss)"
        );
    }
    let total: i64 = label_len.iter().sum();
    let mut begin = Vec::with_capacity(n);
    if targets.ndim() == 1 {
        ensure!(
            targets.numel() as i64 >= total,
            Runtime,
            "Expected targets to have at least {total} elements, the sum of target_lengths, but got {} (while checking arguments for ctc_loss)",
            targets.numel()
        );
        let mut at = 0;
        for l in label_len {
            begin.push(at);
            at += *l as usize;
        }
    } else {
        ensure!(
            targets.ndim() == 2 && targets.shape()[0] == n,
            Runtime,
            "Expected targets of shape ({n}, S) or of one dimension, but got {:?} (while checking arguments for ctc_loss)",
            targets.shape()
        );
        ensure!(
            targets.shape()[1] as i64 >= longest,
            Runtime,
            "Expected tensor to have size at least {longest} at dimension 1, but got size {} for argument #2 'targets' (while checking arguments for ctc_loss)",
            targets.shape()[1]
        );
        begin.extend((0..n).map(|i| i * targets.shape()[1]));
    }
    let list = super::to_dtype(&targets.detach(), DType::I64)?.to_vec::<i64>()?;
    for (b, l) in begin.iter().zip(label_len) {
        for v in &list[*b..*b + *l as usize] {
            ensure!(
                (0..c as i64).contains(v),
                Runtime,
                "ctc_loss: targets must be between 0 and {}, the number of classes less one, but got {v}",
                c - 1
            );
        }
    }
    let usizes = |v: &[i64]| v.iter().map(|l| *l as usize).collect::<Vec<_>>();
    let labels = Labels {
        targets: list,
        begin,
        input_len: usizes(input_len),
        label_len: usizes(label_len),
        blank: blank as usize,
        zero_infinity,
    };
    let wide = compute_type(log_probs.dtype());
    if log_probs.device() == Device::Cpu && wide != log_probs.dtype() {
        let y = losses(&super::to_dtype(log_probs, wide)?, Arc::new(labels))?;
        return super::to_dtype(&y, log_probs.dtype());
    }
    losses(log_probs, Arc::new(labels))
}

impl Labels {
    fn kernel<'a>(&'a self, log_probs: &'a Tensor, alpha: &'a Tensor, nll: &'a Tensor) -> Ctc<'a> {
        Ctc {
            log_probs: log_probs.arr(),
            targets: &self.targets,
            begin: &self.begin,
            input_len: &self.input_len,
            label_len: &self.label_len,
            blank: self.blank,
            alpha: alpha.arr(),
            nll: nll.arr(),
            backward: None,
        }
    }
}

fn losses(log_probs: &Tensor, labels: Arc<Labels>) -> Result<Tensor> {
    let (t, n) = (log_probs.shape()[0], log_probs.shape()[1]);
    let width = 2 * labels.label_len.iter().max().copied().unwrap_or(0) + 1;
    let new = |shape: &[usize]| Tensor::empty(shape, log_probs.dtype(), log_probs.device());
    let (alpha, nll) = (new(&[n, t, width])?, new(&[n])?);
    log_probs.backend()?.ctc(labels.kernel(log_probs, &alpha, &nll))?;
    let y = if labels.zero_infinity {
        let none = super::eq(&nll, f64::INFINITY)?;
        super::masked_fill(&nll, &none, Operand::Number(Scalar::Float(0.0)))?
    } else {
        nll.clone()
    };
    if needs_grad(&[log_probs]) {
        // A handle of its own: the loss may be written to in place.
        let nll = if labels.zero_infinity { nll } else { super::clone(&nll)? };
        autograd::attach("CtcLossBackward0", &[log_probs], &[&y], &[Save::Input(log_probs)], move |cx| {
            let (g, lp) = (cx.grad(0)?, cx.saved(0)?);
            if cx.create_graph {
                return Ok(smallvec![Some(composed_grad(lp, &g, &nll, &labels)?)]);
            }
            let g = super::contiguous(&g)?;
            let dx = Tensor::empty(lp.shape(), lp.dtype(), lp.device())?;
            let backward = Some((g.arr(), dx.arr(), labels.zero_infinity));
            dx.backend()?.ctc(Ctc { backward, ..labels.kernel(lp, &alpha, &nll) })?;
            Ok(smallvec![Some(dx)])
        });
    }
    Ok(y)
}

fn mask(v: &[bool], shape: &[usize]) -> Result<Tensor> {
    let v: Vec<Bool8> = v.iter().map(|b| Bool8(u8::from(*b))).collect();
    Tensor::from_slice(&v, shape)
}

/// The states of all samples side by side, padded to one width.
struct States {
    n: usize,
    width: usize,
    /// Class of each state, [n, width].
    class: Tensor,
    skip: Tensor,
    begin: Tensor,
    end: Tensor,
}

/// Small enough to vanish in every sum, and free of the NaN that differences of infinities give.
const NEVER: f64 = -1e30;

fn number<'a>(v: f64) -> Operand<'a> {
    Operand::Number(Scalar::Float(v))
}

impl States {
    fn new(labels: &Labels) -> Result<States> {
        let n = labels.begin.len();
        let width = 2 * labels.label_len.iter().max().copied().unwrap_or(0) + 1;
        let (mut class, mut skip) = (Vec::with_capacity(n * width), Vec::with_capacity(n * width));
        let (mut begin, mut end) = (Vec::with_capacity(n * width), Vec::with_capacity(n * width));
        for i in 0..n {
            let own = &labels.targets[labels.begin[i]..][..labels.label_len[i]];
            let last = 2 * own.len();
            for s in 0..width {
                class.push(match own.get(s / 2) {
                    Some(l) if s % 2 == 1 => *l,
                    _ => labels.blank as i64,
                });
                skip.push(s % 2 == 1 && s >= 3 && s / 2 < own.len() && own[s / 2] != own[s / 2 - 1]);
                begin.push(s < 2 && s <= last);
                end.push(s <= last && s + 1 >= last);
            }
        }
        let shape = [n, width];
        Ok(States {
            n,
            width,
            class: Tensor::from_slice(&class, &shape)?,
            skip: mask(&skip, &shape)?,
            begin: mask(&begin, &shape)?,
            end: mask(&end, &shape)?,
        })
    }
    /// Moved by `by` states, forwards or backwards.
    fn shifted(&self, a: &Tensor, by: i64) -> Result<Tensor> {
        let a = super::pad::pad(a, &[by.max(0), (-by).max(0)], NEVER)?;
        super::narrow(&a, 1, (-by).max(0), self.width as i64)
    }
    /// The three ways into a state; `sign` -1: out of it.
    fn step(&self, a: &Tensor, sign: i64) -> Result<Tensor> {
        let no = super::logical_not(&self.skip)?;
        // Whether a path skips is known at the state it skips to.
        let two = if sign > 0 {
            super::masked_fill(&self.shifted(a, 2)?, &no, number(NEVER))?
        } else {
            self.shifted(&super::masked_fill(a, &no, number(NEVER))?, -2)?
        };
        super::logaddexp(&super::logaddexp(a, &self.shifted(a, sign)?)?, &two)
    }
}

/// The gradient as the kernel has it, in library ops: the shares of paths through each state from the
/// recursions in both directions.
fn composed_grad(lp: &Tensor, g: &Tensor, nll: &Tensor, labels: &Labels) -> Result<Tensor> {
    let t = lp.shape()[0];
    let s = States::new(labels)?;
    let none = super::eq(nll, f64::INFINITY)?;
    let live = super::masked_fill(g, &none, number(0.0))?;
    // Impossible steps as a finite number.
    let floor = super::masked_fill(lp, &super::lt(&lp.detach(), number(NEVER))?, number(NEVER))?;
    let mut now = Vec::with_capacity(t);
    for step in 0..t {
        now.push(index::gather(&super::select(&floor, 0, step as i64)?, 1, &s.class)?);
    }
    let when = |f: &dyn Fn(usize) -> bool| {
        mask(&labels.input_len.iter().map(|l| f(*l)).collect::<Vec<_>>(), &[s.n, 1])
    };
    let only = |x: &Tensor, m: &Tensor| super::masked_fill(x, &super::logical_not(m)?, number(NEVER));
    let mut alpha: Vec<Tensor> = Vec::with_capacity(t);
    for (step, p) in now.iter().enumerate() {
        let next = match alpha.last() {
            None => only(p, &s.begin)?,
            Some(a) => super::where_(&when(&|l| step < l)?, &super::add(&s.step(a, 1)?, p)?, a)?,
        };
        alpha.push(next);
    }
    let Some(last) = alpha.last() else { pyrite_core::bail!(Runtime, "ctc_loss: no time steps") };
    let total = super::reduce::logsumexp(&only(last, &s.end)?, &[1], true)?;
    let mut rows: Vec<Tensor> = Vec::with_capacity(t);
    let mut beta: Option<Tensor> = None;
    for step in (0..t).rev() {
        let p = &now[step];
        let first = only(p, &s.end)?;
        let b = match &beta {
            None => first,
            Some(b) => super::where_(&when(&|l| step + 1 == l)?, &first, &super::add(&s.step(b, -1)?, p)?)?,
        };
        let b = only(&b, &when(&|l| step < l)?)?;
        let share = super::sub(&super::sub(&super::add(&alpha[step], &b)?, p)?, &total)?;
        let share = super::mul(&super::exp(&share)?, &super::unsqueeze(&live, 1)?)?;
        let paths = place(&share, &s.class, 1, &lp.shape()[1..])?;
        let all =
            super::mul(&super::exp(&super::select(lp, 0, step as i64)?)?, &super::unsqueeze(&live, 1)?)?;
        let heard = super::logical_not(&when(&|l| step < l)?)?;
        rows.push(super::sub(&super::masked_fill(&all, &heard, number(0.0))?, &paths)?);
        beta = Some(b);
    }
    rows.reverse();
    let dx = super::shape::stack(&rows, 0)?;
    if labels.zero_infinity {
        return Ok(dx);
    }
    super::masked_fill(&dx, &super::reshape(&none, &[1, -1, 1])?, number(f64::NAN))
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "ctc_loss",
        FUNCTION,
        ns = "nn",
        "The CTC loss of every sample of `log_probs` (T, N, C), not reduced.",
        "log_probs: Tensor, targets: Tensor, input_lengths: ints, target_lengths: ints, blank: int = 0, zero_infinity: bool = False",
        |a| Ok(ctc_loss(a.tensor(0)?, a.tensor(1)?, a.ints(2)?, a.ints(3)?, a.int(4)?, a.bool(5)?)?.into())
    );
}
