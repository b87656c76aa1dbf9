//! Conjugates and negatives that are only marked. `x.conj()` (and `x.H`, `x.mH`) is a view over the same
//! memory with a mark; so is the imaginary part of such a view (a negative). Views carry the mark on,
//! copies resolve it, and kernels never see one:
//!
//! * [`call`] resolves the arguments of every registry entry that does not know the mark ([`AWARE`]), and
//!   writes the receiver of an in-place op back through it;
//! * the elementwise driver, `matmul`, `copy_raw`, indexing and `item` do so for callers in Rust;
//! * gradients are resolved where they enter the engine.

use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::{self, Arg, Args, Call, Op, Value};
use crate::tensor::{Lazy, Tensor};
use pyrite_core::rows::table::id;
use pyrite_core::{Result, Scalar};
use smallvec::smallvec;

/// Registry entries that take marked tensors as they are: views, and what copies or asks.
const AWARE: &[&str] = &[
    "T",
    "H",
    "adjoint",
    "as_strided",
    "broadcast_to",
    "chunk",
    "clone",
    "conj",
    "copy_",
    "diagonal",
    "dsplit",
    "expand",
    "expand_as",
    "fill_",
    "flatten",
    "hsplit",
    "imag",
    "is_conj",
    "is_neg",
    "mH",
    "moveaxis",
    "movedim",
    "mT",
    "narrow",
    "permute",
    "real",
    "reshape",
    "reshape_as",
    "resolve_conj",
    "resolve_neg",
    "select",
    "split",
    "split_with_sizes",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "tensor_split",
    "transpose",
    "unbind",
    "unflatten",
    "unfold",
    "unsafe_chunk",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "unsqueeze",
    "view",
    "view_as",
    "view_as_real",
    "vsplit",
    "zero_",
];

/// The tensor without marks: itself, or a copy (recorded).
pub fn resolve(t: &Tensor) -> Result<Tensor> {
    if !t.is_lazy() {
        return Ok(t.clone());
    }
    let y = t.empty_like_with(t.dtype())?;
    super::copy_raw(&y, t)?;
    if needs_grad(&[t]) {
        // The value is the same, so is the gradient.
        autograd::attach_any("ResolveConjBackward0", &[t], &[&y], &[], |cx| Ok(smallvec![Some(cx.grad(0)?)]));
    }
    Ok(y)
}

/// Conjugates and negates the elements, as marked. Its own inverse, and its own gradient.
pub fn apply(t: &Tensor, lazy: Lazy) -> Result<Tensor> {
    let t = if lazy.conj { super::complex::conj_now(t)? } else { t.clone() };
    if lazy.neg { super::neg(&t) } else { Ok(t) }
}

/// A number as a marked tensor stores it, or the other way round.
pub fn flip(s: Scalar, lazy: Lazy) -> Scalar {
    let s = match s {
        Scalar::Complex(re, im) if lazy.conj => Scalar::Complex(re, -im),
        s => s,
    };
    match s {
        s if !lazy.neg => s,
        Scalar::Complex(re, im) => Scalar::Complex(-re, -im),
        s => Scalar::Float(-s.f64()),
    }
}

/// `copy_raw` where a mark is involved.
pub fn copy_raw(dst: &Tensor, src: &Tensor) -> Result<()> {
    let _off = autograd::GradMode::new(false);
    let (to, from) = (dst.marked(Lazy::default()), src.marked(Lazy::default()));
    let flip = dst.lazy().with(src.lazy());
    // The conjugate of a real number, and the real part of a conjugate, are what they are.
    let conj = flip.conj && dst.dtype().is_complex() && src.dtype().is_complex();
    if !conj && !flip.neg {
        return super::copy_raw(&to, &from);
    }
    if dst.device() != src.device() || conj && flip.neg {
        let tmp = apply(&from, Lazy { conj, neg: flip.neg })?;
        return super::copy_raw(&to, &tmp);
    }
    let row = if conj { id::CONJ_PHYSICAL } else { id::NEG };
    let from = super::expand_to(&from, to.shape())?;
    super::elementwise::run_raw(row, &to, &[(&from).into()], &[])
}

/// [`registry::call`] where an argument or `out=` is marked.
pub fn call(call: Call, args: &Args, out: Option<&[Tensor]>) -> Result<Value> {
    if let Some(outs) = out
        && outs.iter().any(Tensor::is_lazy)
    {
        return super::out::put_all(args.op, registry::call(call, args, None)?, outs);
    }
    if AWARE.contains(&args.op) {
        return registry::run(call, args, out);
    }
    let mut plain = Args { op: args.op, v: args.v.clone() };
    for a in plain.v.iter_mut() {
        match a {
            Arg::Tensor(t) => *t = resolve(t)?,
            Arg::Tensors(list) => {
                for t in list.iter_mut() {
                    *t = resolve(t)?;
                }
            }
            _ => {}
        }
    }
    let version = |args: &Args| match args.v.first() {
        Some(Arg::Tensor(t)) => t.storage().version(),
        _ => 0,
    };
    let before = version(&plain);
    let value = registry::run(call, &plain, out)?;
    // `dropout` in evaluation and its like give their argument back as it is: nothing to write.
    if version(&plain) == before {
        return Ok(value);
    }
    if let (Value::Receiver, Some(Arg::Tensor(to)), Some(Arg::Tensor(from))) =
        (&value, args.v.first(), plain.v.first())
        && to.is_lazy()
    {
        super::copy_(to, from)?;
    }
    Ok(value)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "resolve_conj",
        FUNCTION | METHOD,
        "The tensor with its conjugation carried out: itself if none is pending.",
        "input: Tensor",
        |a| {
            let t = a.tensor(0)?;
            Ok(if t.lazy().conj { resolve(t)? } else { t.clone() }.into())
        }
    );
    op!(
        list,
        "resolve_neg",
        FUNCTION | METHOD,
        "The tensor with its negation carried out: itself if none is pending.",
        "input: Tensor",
        |a| {
            let t = a.tensor(0)?;
            Ok(if t.lazy().neg { resolve(t)? } else { t.clone() }.into())
        }
    );
    op!(
        list,
        "is_conj",
        FUNCTION | METHOD,
        "True for a view whose conjugation is still to be carried out.",
        "input: Tensor",
        |a| Ok(Value::Bool(a.tensor(0)?.lazy().conj))
    );
    op!(
        list,
        "is_neg",
        FUNCTION | METHOD,
        "True for a view whose negation is still to be carried out.",
        "input: Tensor",
        |a| Ok(Value::Bool(a.tensor(0)?.lazy().neg))
    );
}
