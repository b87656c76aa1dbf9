//! Connectionist temporal classification (Graves et al. 2006): the forward and backward recursions in
//! the log domain, one sample per job.
//!
//! States alternate blanks and labels: blank, l1, blank, l2, ..., blank. `alpha[t, s]` is the log
//! probability of all paths that end in state s at time t.

use crate::pool::parallel;
use crate::real::Real;
use crate::strided::Ptr;
use pyrite_core::backend::Ctc;
use pyrite_core::{DType, Result, bail};

pub fn run(c: &Ctc) -> Result<()> {
    match c.log_probs.dtype {
        DType::F32 => typed::<f32>(c),
        DType::F64 => typed::<f64>(c),
        d => bail!(NotImplemented, "ctc_loss: not implemented for {d}; convert with .float()"),
    }
}

struct Setup<'a> {
    targets: &'a [i64],
    begin: &'a [usize],
    input_len: &'a [usize],
    label_len: &'a [usize],
    blank: usize,
    /// Of `log_probs`.
    strides: [isize; 3],
    classes: usize,
    /// Entries of `alpha` per time step.
    width: usize,
}

fn typed<T: Real>(c: &Ctc) -> Result<()> {
    let &[t, n, classes] = c.log_probs.shape else {
        bail!(Shape, "ctc_loss: expected log_probs of shape (T, N, C), got {:?}", c.log_probs.shape);
    };
    let width = c.alpha.shape.get(2).copied().unwrap_or(0);
    let lists = [c.begin.len(), c.input_len.len(), c.label_len.len(), c.nll.numel()];
    let fits = lists.iter().all(|l| *l == n)
        && c.alpha.shape == [n, t, width]
        && c.blank < classes
        && (0..n).all(|i| {
            let labels = c.begin[i].checked_add(c.label_len[i]).and_then(|e| c.targets.get(c.begin[i]..e));
            c.input_len[i] <= t
                && 2 * c.label_len[i] < width
                && labels.is_some_and(|l| l.iter().all(|v| (0..classes as i64).contains(v)))
        });
    let mut dense = vec![c.alpha, c.nll];
    if let Some((g, dx, _)) = c.backward {
        dense.extend([g, dx]);
        if g.numel() != n || dx.shape != c.log_probs.shape {
            bail!(Shape, "ctc_loss backward: shapes {:?} and {:?} do not fit", g.shape, dx.shape);
        }
    }
    if !fits || !dense.iter().all(|a| a.is_contiguous() && a.dtype == T::DTYPE) {
        bail!(
            Shape,
            "ctc_loss: lengths, labels or buffers do not fit log_probs of shape {:?}",
            c.log_probs.shape
        );
    }
    let strides = [c.log_probs.strides[0], c.log_probs.strides[1], c.log_probs.strides[2]];
    let (targets, begin, input_len, label_len, blank) =
        (c.targets, c.begin, c.input_len, c.label_len, c.blank);
    let s = Setup { targets, begin, input_len, label_len, blank, strides, classes, width };
    let work = (n * t * (width * 40 + classes * 10)) as u64;
    let (alpha, nll) = (Ptr(c.alpha.ptr.cast::<T>()), Ptr(c.nll.ptr.cast::<T>()));
    let probs = Ptr(c.log_probs.ptr.cast::<T>());
    match &c.backward {
        None => parallel(n, work, &|i| {
            // SAFETY: sample i of `alpha` [n, t, width] and of `nll`, which only this job writes.
            unsafe {
                let a = std::slice::from_raw_parts_mut(alpha.get().add(i * t * width), t * width);
                *nll.get().add(i) = forward(&s, i, a, &|t, k| at(&s, probs, t, i, k));
            }
        }),
        Some((g, dx, zero_infinity)) => {
            let (g, dx) = (Ptr(g.ptr.cast::<T>()), Ptr(dx.ptr.cast::<T>()));
            parallel(n, work * 2, &|i| {
                // SAFETY: sample i of the arrays above, only read; `backward` writes the rows of
                // sample i in `dx` [t, n, classes] and no others.
                unsafe {
                    let a =
                        std::slice::from_raw_parts(alpha.get().add(i * t * width).cast_const(), t * width);
                    let (nll, g) = (*nll.get().add(i), *g.get().add(i));
                    let row = |t: usize| {
                        let start = dx.get().add((t * n + i) * classes);
                        std::slice::from_raw_parts_mut(start, classes)
                    };
                    if *zero_infinity && nll.f64() == f64::INFINITY {
                        (0..t).for_each(|t| row(t).fill(T::default()));
                    } else {
                        backward(&s, i, t, a, nll, g, &|t, k| at(&s, probs, t, i, k), &row);
                    }
                }
            });
        }
    }
    Ok(())
}

/// Log probability of class `k` at time `t` of sample `i`.
/// # Safety
/// The three lie inside `log_probs`.
#[inline(always)]
unsafe fn at<T: Real>(s: &Setup, probs: Ptr<T>, t: usize, i: usize, k: usize) -> T {
    let off = t as isize * s.strides[0] + i as isize * s.strides[1] + k as isize * s.strides[2];
    // SAFETY: the caller's promise.
    unsafe { *probs.get().wrapping_offset(off) }
}

/// log(exp(a) + exp(b) + exp(c)) without overflow.
#[inline(always)]
fn log_sum<T: Real>(a: T, b: T, c: T) -> T {
    let none = T::of(f64::NEG_INFINITY);
    let mut m = if a > b { a } else { b };
    m = if m > c { m } else { c };
    if m == none {
        return none;
    }
    m + ((a - m).exp() + (b - m).exp() + (c - m).exp()).ln()
}

impl Setup<'_> {
    /// The class of state `s` of sample `i`.
    #[inline(always)]
    fn class(&self, i: usize, s: usize) -> usize {
        if s.is_multiple_of(2) { self.blank } else { self.targets[self.begin[i] + s / 2] as usize }
    }
    /// May a path skip the state before `s`: between two labels that differ?
    #[inline(always)]
    fn skips(&self, i: usize, s: usize) -> bool {
        s % 2 == 1 && s >= 3 && self.class(i, s) != self.class(i, s - 2)
    }
}

fn forward<T: Real>(s: &Setup, i: usize, alpha: &mut [T], p: &dyn Fn(usize, usize) -> T) -> T {
    let none = T::of(f64::NEG_INFINITY);
    let (len, states) = (s.input_len[i], 2 * s.label_len[i] + 1);
    alpha.fill(none);
    if len == 0 {
        // Nothing was heard: certain if nothing was said.
        return if states == 1 { T::default() } else { T::of(f64::INFINITY) };
    }
    alpha[0] = p(0, s.blank);
    if states > 1 {
        alpha[1] = p(0, s.class(i, 1));
    }
    for t in 1..len {
        let (before, now) = alpha.split_at_mut(t * s.width);
        let before = &before[(t - 1) * s.width..];
        for (k, now) in now[..states].iter_mut().enumerate() {
            let one = if k > 0 { before[k - 1] } else { none };
            let two = if s.skips(i, k) { before[k - 2] } else { none };
            *now = log_sum(before[k], one, two) + p(t, s.class(i, k));
        }
    }
    let last = &alpha[(len - 1) * s.width..];
    let end = if states > 1 { last[states - 2] } else { none };
    -log_sum(last[states - 1], end, none)
}

/// The gradient as if `log_probs` came from log_softmax, of which it leaves out nothing: `exp(lp)`
/// less the share of the paths through each class, times the incoming gradient.
#[allow(clippy::too_many_arguments)]
fn backward<T: Real>(
    s: &Setup,
    i: usize,
    times: usize,
    alpha: &[T],
    nll: T,
    g: T,
    p: &dyn Fn(usize, usize) -> T,
    row: &dyn Fn(usize) -> &'static mut [T],
) {
    let none = T::of(f64::NEG_INFINITY);
    let (len, states) = (s.input_len[i], 2 * s.label_len[i] + 1);
    let mut beta = vec![none; states];
    let mut next = vec![none; states];
    let mut sums = vec![none; s.classes];
    for t in (0..times).rev() {
        let out = row(t);
        if t >= len {
            out.fill(T::default());
            continue;
        }
        if t + 1 == len {
            beta[states - 1] = p(t, s.blank);
            if states > 1 {
                beta[states - 2] = p(t, s.class(i, states - 2));
            }
        } else {
            for k in 0..states {
                let one = if k + 1 < states { beta[k + 1] } else { none };
                let two = if k + 2 < states && s.skips(i, k + 2) { beta[k + 2] } else { none };
                next[k] = log_sum(beta[k], one, two) + p(t, s.class(i, k));
            }
            std::mem::swap(&mut beta, &mut next);
        }
        sums.fill(none);
        for k in 0..states {
            let c = &mut sums[s.class(i, k)];
            *c = log_sum(*c, alpha[t * s.width + k] + beta[k], none);
        }
        for (k, (o, sum)) in out.iter_mut().zip(&sums).enumerate() {
            let lp = p(t, k);
            *o = (lp.exp() - (*sum + nll - lp).exp()) * g;
        }
    }
}
