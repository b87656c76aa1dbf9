//! `out=`, for every op that takes it: the checks, the resize with its warning, and the copy. Table rows
//! write straight into the tensor (`elementwise::run_out`); every other op computes its result first, so
//! an `out` that is also an input is safe by construction.

use super::overlap::overlap;
use crate::autograd::{forward, inplace, is_grad_enabled, needs_grad};
use crate::registry::{self, Arg, Args, Call, Value};
use crate::tensor::Tensor;
use pyrite_core::plan::Overlap;
use pyrite_core::{Result, bail, ensure};

/// Runs an overload into the tensors of `out=`.
pub fn call(c: Call, args: &Args, outs: &[Tensor]) -> Result<Value> {
    for (i, o) in outs.iter().enumerate() {
        for a in &args.v {
            let inputs = match a {
                Arg::Tensor(t) => std::slice::from_ref(t),
                Arg::Tensors(l) => l,
                _ => continue,
            };
            for t in inputs {
                refuse_partial_overlap(args.op, t, o)?;
                ensure!(
                    !super::out_rules::apart(args.op)
                        || t.numel() == 0
                        || o.numel() == 0
                        || matches!(overlap(t, o), Overlap::No),
                    Runtime,
                    "{}: unsupported operation: the input tensor and the written-to tensor refer to a single memory location. Please clone() the tensor before performing the operation.",
                    args.op
                );
            }
        }
        for other in &outs[..i] {
            ensure!(
                !o.storage().same(other.storage()) || matches!(overlap(o, other), Overlap::No),
                Runtime,
                "{}(): the tensors in out= share memory: each result needs its own",
                args.op
            );
        }
    }
    match (c, outs) {
        (Call::Row(r), [o]) => super::elementwise::call_row(r, args, Some(o)),
        _ => {
            let v = match (super::out_rules::computes_in_out(args.op), args.v.last(), outs) {
                // Without `dtype=`, `out` says in which dtype to add up.
                (true, Some(Arg::None), [o]) if args.op != "mean" => {
                    let mut v = args.v.clone();
                    if let Some(last) = v.last_mut() {
                        *last = Arg::DType(o.dtype());
                    }
                    registry::run(c, &Args { op: args.op, v }, None)?
                }
                (true, Some(Arg::DType(d)), [o]) => {
                    ensure!(
                        *d == o.dtype(),
                        Runtime,
                        "{}: Expected out tensor to have dtype {}, but got {} instead",
                        args.op,
                        d.name(),
                        o.dtype().name()
                    );
                    registry::run(c, args, None)?
                }
                _ => registry::run(c, args, None)?,
            };
            // Ranges keep the shape of an `out` that has as many elements.
            if let (Value::Tensor(t), [o]) = (&v, outs)
                && matches!(args.op, "arange" | "linspace" | "logspace" | "range")
                && t.numel() == o.numel()
            {
                return Ok(Value::Tensor(put(args.op, &super::reshape_to(t, o.shape())?, o)?));
            }
            // A factory is asked for a size: that `out` takes it surprises nobody, and PyTorch does not warn.
            if let (Value::Tensor(t), [o]) = (&v, outs)
                && !args.v.iter().any(|a| matches!(a, Arg::Tensor(_) | Arg::Tensors(_)))
                && t.shape() != o.shape()
                && !(args.op == "arange" && o.numel() > 0)
            {
                return Ok(Value::Tensor(put(args.op, t, &super::resize(o, t.shape())?)?));
            }
            put_all(args.op, v, outs)
        }
    }
}

/// An input may be the output, or have nothing in common with it.
pub fn refuse_partial_overlap(op: &str, input: &Tensor, out: &Tensor) -> Result<()> {
    ensure!(
        !matches!(overlap(input, out), Overlap::Partial) || out.numel() == 0,
        Runtime,
        "{op}: unsupported operation: some elements of the input tensor (shape {:?}) and the written-to tensor (shape {:?}) refer to a single memory location. Please clone() the tensor before performing the operation.",
        input.shape(),
        out.shape()
    );
    Ok(())
}

/// The tensor a result of this shape is written to: `out`, or one of the right shape that replaces it.
pub fn resized(op: &str, out: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if out.shape() == shape {
        return Ok(out.clone());
    }
    if out.numel() > 0 {
        crate::warn(&format!(
            "{op}(): An output with one or more elements was resized since it had shape {:?}, which does not match the required output shape {shape:?}. This behavior is deprecated, and in a future PyTorch release outputs will not be resized unless they have zero elements. You can explicitly reuse an out tensor t by resizing it, inplace, to zero elements with t.resize_(0).",
            out.shape()
        ))?;
    }
    super::resize(out, shape)
}

/// What every `out` tensor must meet before it is written to.
pub fn check(op: &str, out: &Tensor, inputs: &[&Tensor], dtype: pyrite_core::DType) -> Result<()> {
    ensure!(
        !forward::active() || !(forward::has(out) || inputs.iter().any(|t| forward::has(t))),
        Runtime,
        "{op}(): Trying to use forward AD with an out= function, which does not support it: assign the result instead"
    );
    ensure!(
        !(needs_grad(inputs) || is_grad_enabled() && out.requires_grad()),
        Runtime,
        "{op}(): functions with out=... arguments don't support automatic differentiation, but one of the arguments requires grad."
    );
    super::out_rules::check_dtype(op, dtype, out.dtype())?;
    inplace::check(op, out)
}

/// Copies a computed result into `out`; returns the tensor to hand back.
pub fn put(op: &str, r: &Tensor, o: &Tensor) -> Result<Tensor> {
    check(op, o, &[r], r.dtype())?;
    ensure!(
        r.device() == o.device(),
        Runtime,
        "{op}: Expected out tensor to be on {}, but got {} instead",
        r.device(),
        o.device()
    );
    let target = resized(op, o, r.shape())?;
    // A view op's result lies in its input's memory, which `out` may be.
    let safe =
        if matches!(overlap(r, &target), Overlap::Partial) { super::clone(&r.detach())? } else { r.clone() };
    super::copy_raw(&target, &safe)?;
    target.storage().bump_version();
    Ok(target)
}

/// Puts computed results into `out=` tensors. Gives back the tensors to return (replacements where
/// a resize was needed).
pub fn put_all(op: &str, v: Value, outs: &[Tensor]) -> Result<Value> {
    let all = |rs: &[Tensor]| rs.iter().zip(outs).map(|(r, o)| put(op, r, o)).collect::<Result<Vec<_>>>();
    match (v, outs) {
        (Value::Tensor(r), [o]) => Ok(Value::Tensor(put(op, &r, o)?)),
        (Value::Tuple(rs), outs) if rs.len() == outs.len() => Ok(Value::Tuple(all(&rs)?)),
        (Value::Named(n, f, rs), outs) if rs.len() == outs.len() => {
            // Values that come with their places are written by one kernel, in their own dtypes.
            for ((r, o), name) in rs.iter().zip(outs).zip(f).filter(|_| f.contains(&"indices")) {
                ensure!(
                    r.dtype() == o.dtype(),
                    Runtime,
                    "{op}: Expected out tensor of the {name} to have dtype {}, but got {} instead",
                    r.dtype().name(),
                    o.dtype().name()
                );
            }
            Ok(Value::Named(n, f, all(&rs)?))
        }
        (Value::Receiver, _) => bail!(Type, "{op}(): an in-place operation takes no out="),
        (v, outs) => {
            let n = match v {
                Value::Tuple(l) | Value::Named(_, _, l) => l.len(),
                _ => 1,
            };
            bail!(
                Type,
                "{op}(): argument 'out' must be {n} tensor{}, got {}",
                if n == 1 { "" } else { "s" },
                outs.len()
            )
        }
    }
}
