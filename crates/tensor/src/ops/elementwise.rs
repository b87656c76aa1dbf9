//! The driver of every table row: promotion, broadcasting, output, kernel, history. Rows never
//! mention any of it.

use super::record::{old_value_needed, record, tensors_of};
use super::{Operand, complex};
use crate::autograd::{forward, inplace, is_grad_enabled, node};
use crate::registry::{Args, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::Formula;
use pyrite_core::layout::broadcast;
use pyrite_core::plan::{self, Plan};
use pyrite_core::rows::table::id;
use pyrite_core::rows::{Class, Row, RowId, flag};
use pyrite_core::{
    DType, Device, Dims, Layout, Promotion, Result, Scalar, bail, ensure, interrupt,
    plan::Operand as PlanOperand,
};
use smallvec::{SmallVec, smallvec};

pub(super) type Operands<'a> = SmallVec<[Operand<'a>; 4]>;
pub type Params = SmallVec<[Scalar; 3]>;

/// The dtypes of one run.
pub(super) struct Types {
    /// What the formula computes in.
    pub(super) compute: DType,
    pub(super) out: DType,
}

/// Operand `i` only selects (a condition or mask) and takes no part in promotion.
#[inline]
fn is_condition(row: &Row, i: usize) -> bool {
    row.has(flag::CONDITION) && i == if row.name == "where" { 0 } else { 1 }
}

fn resolve(row: &'static Row, ops: &[Operand], params: &[Scalar]) -> Result<Types> {
    check_operands(row, ops)?;
    let mut p = Promotion::default();
    for (i, o) in ops.iter().enumerate() {
        if is_condition(row, i) {
            continue;
        }
        p = match o {
            Operand::Tensor(t) => p.tensor(t.dtype(), t.ndim()),
            Operand::Number(s) => p.number(*s),
        };
    }
    types(row, p.result(), params)
}

/// The dtypes of a run whose operands promote to `common`.
#[inline]
fn types(row: &'static Row, mut common: DType, params: &[Scalar]) -> Result<Types> {
    if common.is_complex() && !row.has(flag::COMPLEX) {
        bail!(NotImplemented, "\"{}\" is not implemented for complex tensors ({common})", row.name);
    }
    if row.has(flag::ALPHA)
        && !common.is_complex()
        && let Some(a) = params.first()
    {
        ensure!(
            !matches!(a, Scalar::Complex(..)),
            Runtime,
            "{}: For non-complex input tensors, argument alpha must not be a complex number.",
            row.name
        );
        ensure!(
            common.is_bool() || !matches!(a, Scalar::Bool(_)),
            Runtime,
            "Boolean alpha only supported for Boolean results. ({})",
            row.name
        );
        ensure!(
            common.is_float() || !matches!(a, Scalar::Float(_)),
            Runtime,
            "{}: For integral input tensors, argument alpha must not be a floating point number.",
            row.name
        );
    }
    let mut out = if row.bool_out { DType::Bool } else { common };
    match row.class {
        Class::Float => {
            let f = common.to_float();
            if !row.bool_out {
                out = f;
            }
            common = f;
        }
        Class::Num => {
            if common.is_bool() {
                ensure!(
                    !row.has(flag::NOBOOL),
                    Runtime,
                    "\"{}\" is not implemented for 'Bool' (nor is the operator of that name). Use logical_not, bitwise_xor or logical_xor, or convert to an integer dtype first.",
                    row.name
                );
                // Computed in bytes, stored as `!= 0`.
                common = DType::U8;
            }
        }
        Class::Int => {
            ensure!(
                !(common.is_differentiable() || common.is_bool() && row.has(flag::NOBOOL)),
                NotImplemented,
                "\"{}\" is not implemented for '{}'; it takes integer{} tensors",
                row.name,
                common.name(),
                if row.has(flag::NOBOOL) { "" } else { " and bool" }
            );
        }
        Class::Any => {}
    }
    Ok(Types { compute: common.compute(), out })
}

/// The shape all operands broadcast to.
#[inline]
fn common_shape(row: &Row, ops: &[Operand]) -> Result<Dims> {
    let mut shape: Option<Dims> = None;
    for o in ops {
        let Operand::Tensor(t) = o else { continue };
        shape = Some(match shape {
            None => Dims::from_slice(t.shape()),
            Some(s) if s[..] == *t.shape() => s,
            Some(s) => broadcast(row.name, &s, t.shape())?,
        });
    }
    Ok(shape.unwrap_or_default())
}

fn common_device(row: &Row, ops: &[Operand]) -> Result<Device> {
    let mut device = None;
    for o in ops {
        let Operand::Tensor(t) = o else { continue };
        match device {
            None => device = Some((t.device(), t.ndim())),
            Some((d, _)) if d == t.device() => {}
            // A 0-d CPU tensor goes along with tensors of any device.
            Some((Device::Cpu, 0)) => device = Some((t.device(), t.ndim())),
            Some(_) if t.device() == Device::Cpu && t.ndim() == 0 => {}
            Some((d, _)) => bail!(
                Runtime,
                "{}: Expected all tensors to be on the same device, but found at least two devices, {d} and {}!",
                row.name,
                t.device()
            ),
        }
    }
    Ok(device.map_or(Device::Cpu, |d| d.0))
}

/// Strides of a new result: those of the first operand of the full shape, if they are dense.
pub(super) fn result_layout(shape: &[usize], ops: &[Operand]) -> Layout {
    for o in ops {
        if let Operand::Tensor(t) = o
            && t.shape() == shape
        {
            if t.is_contiguous() {
                break;
            }
            return super::like_layout(t);
        }
    }
    Layout::contiguous(shape)
}

/// Integer division needs a look at the divisor: the kernels never trap, users want an error.
fn check_divisor(row: &Row, compute: DType, ops: &[Operand]) -> Result<()> {
    if compute.is_differentiable() || !row.has(flag::INTZERO) {
        return Ok(());
    }
    let zero = match &ops[1] {
        Operand::Number(s) => s.is_zero(),
        Operand::Tensor(t) => t.numel() > 0 && super::reduce::any_zero(t)?,
    };
    ensure!(!zero, Runtime, "ZeroDivisionError: {}: integer division by zero", row.name);
    Ok(())
}

/// The parameters of a call that gives none.
#[inline]
pub fn default_params(row: &Row) -> Params {
    let mut params = Params::new();
    for p in row.params {
        params.push(super::pointwise::default(p.1.unwrap_or(0.0)));
    }
    params
}

/// Runs one formula of a row into `out`.
pub(super) fn launch(
    row: &'static Row,
    formula: Formula,
    compute: DType,
    out: &Tensor,
    ops: &[Operand],
    params: &[Scalar],
) -> Result<()> {
    if out.numel() == 0 {
        return Ok(());
    }
    // Numbers become operands that stand still on one host element of the compute dtype.
    let scalar_layout = Layout::contiguous(&[]);
    let mut numbers = [[0u8; 16]; plan::MAX_OPERANDS];
    let mut list: SmallVec<[PlanOperand; plan::MAX_OPERANDS]> = SmallVec::new();
    let mut host = 0u8;
    list.push(out.operand());
    for (i, o) in ops.iter().enumerate() {
        match o {
            Operand::Tensor(t) => {
                host |= ((t.device() != out.device()) as u8) << (i + 1);
                list.push(t.operand());
            }
            Operand::Number(s) => {
                super::complex::check_number(row.name, *s, compute)?;
                numbers[i] = s.to_bytes(compute);
                host |= 1 << (i + 1);
                list.push(PlanOperand {
                    ptr: numbers[i].as_mut_ptr(),
                    dtype: compute,
                    layout: &scalar_layout,
                });
            }
        }
    }
    for p in params {
        super::complex::check_number(row.name, *p, compute)?;
    }
    let mut plan = Plan::EMPTY;
    plan.build(row.name, out.shape(), &list)?;
    plan.host = host;
    out.backend()?.map(row.id, formula, compute, &plan, params)
}

/// As [`launch`], into a new tensor: nobody sees it before it is done, so a long loop can be interrupted.
#[inline]
pub(super) fn launch_new(
    row: &'static Row,
    formula: Formula,
    compute: DType,
    out: &Tensor,
    ops: &[Operand],
    params: &[Scalar],
) -> Result<()> {
    /// About a millisecond of the slower functions.
    const LONG: usize = 1 << 20;
    interrupt::stoppable_if(out.numel() >= LONG, || launch(row, formula, compute, out, ops, params))
}

/// The first operand, if all tensors have its dtype, shape and device, all are contiguous, and no
/// number lifts the dtype: then nothing has to be worked out. Most calls of most programs.
#[inline]
fn uniform<'a>(row: &Row, ops: &[Operand<'a>]) -> Option<&'a Tensor> {
    let Operand::Tensor(first) = ops[0] else { return None };
    if row.has(flag::CONDITION | flag::INTZERO | flag::INTSELF) || first.is_lazy() || !first.is_contiguous() {
        return None;
    }
    let dtype = first.dtype();
    for o in &ops[1..] {
        let fits = match o {
            Operand::Tensor(t) => {
                t.dtype() == dtype
                    && !t.is_lazy()
                    && t.shape() == first.shape()
                    && t.is_contiguous()
                    && t.device() == first.device()
            }
            Operand::Number(s) => s.category() <= dtype.category(),
        };
        if !fits {
            return None;
        }
    }
    Some(first)
}

/// Refuses what PyTorch refuses whatever the promoted dtype: subtraction with a bool on either side,
/// and an integer tensor to the power of a negative number.
#[inline]
fn check_operands(row: &Row, ops: &[Operand]) -> Result<()> {
    if row.id == id::SUB {
        let is_bool = |o: &Operand| match o {
            Operand::Tensor(t) => t.dtype().is_bool(),
            Operand::Number(s) => matches!(s, Scalar::Bool(_)),
        };
        ensure!(
            !ops.iter().any(is_bool),
            Runtime,
            "sub: Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, use the `~` or `logical_not()` operator instead."
        );
    } else if row.id == id::HEAVISIDE {
        if let [Operand::Tensor(a), Operand::Tensor(b)] = ops {
            ensure!(
                a.dtype() == b.dtype(),
                Runtime,
                "heaviside is not yet implemented for tensors with different dtypes. ({} and {})",
                a.dtype().name(),
                b.dtype().name()
            );
            ensure!(
                !a.dtype().is_complex(),
                Runtime,
                "heaviside is not yet implemented for complex tensors."
            );
        }
    } else if row.id == id::LERP {
        check_lerp(ops)?;
    } else if row.id == id::ADDCDIV {
        let whole = |o: &Operand| matches!(o, Operand::Tensor(t) if !t.dtype().is_differentiable());
        ensure!(
            !(whole(&ops[1]) && whole(&ops[2])),
            Runtime,
            "addcdiv: Integer division with addcdiv is not supported, as the result would be a true quotient of integers. Convert tensor1 or tensor2 to a floating dtype first."
        );
    } else if row.id == id::POW
        && let [Operand::Tensor(t), Operand::Number(s)] = ops
    {
        ensure!(
            t.dtype().is_differentiable() || !matches!(s, Scalar::Int(..=-1)),
            Runtime,
            "pow: Integers to negative integer powers are not allowed."
        );
    }
    Ok(())
}

/// `lerp` takes floating tensors of one dtype.
fn check_lerp(ops: &[Operand]) -> Result<()> {
    let mut first = None;
    for (o, name) in ops.iter().zip(["self", "end", "weight"]) {
        let Operand::Tensor(t) = o else { continue };
        let d = *first.get_or_insert(t.dtype());
        ensure!(
            t.dtype().is_differentiable(),
            NotImplemented,
            "\"lerp\" not implemented for '{}': it needs a floating dtype",
            t.dtype().name()
        );
        ensure!(
            t.dtype() == d,
            Runtime,
            "lerp: expected dtype {} for `{name}` but got dtype {}",
            d.name(),
            t.dtype().name()
        );
    }
    Ok(())
}

/// `pow` with a number that a cheaper row computes, with the values PyTorch has for it (`(-inf) ** 0.5`
/// is NaN as `sqrt` says, not infinity as C says); and `square` of bool, which counts in integers. None of
/// these rows has parameters.
#[inline]
fn reroute<'a>(row: &Row, ops: &[Operand<'a>]) -> Option<(&'static Row, Operands<'a>)> {
    if row.id == id::POW {
        pow_row(ops)
    } else if row.id == id::SQUARE {
        square_row(ops)
    } else {
        None
    }
}

fn square_row<'a>(ops: &[Operand<'a>]) -> Option<(&'static Row, Operands<'a>)> {
    match ops {
        [Operand::Tensor(t)] if t.dtype().is_bool() => {
            Some((id::POW.row(), smallvec![ops[0], Operand::Number(Scalar::Int(2))]))
        }
        _ => None,
    }
}

fn pow_row<'a>(ops: &[Operand<'a>]) -> Option<(&'static Row, Operands<'a>)> {
    let [base @ Operand::Tensor(t), exponent @ Operand::Number(s)] = ops else { return None };
    let d = t.dtype();
    // Does the number leave the dtype alone? Then a row that does not see it may run.
    let same = d.is_differentiable() || d.is_int() && !matches!(s, Scalar::Float(_));
    let float = d.is_differentiable() || matches!(s, Scalar::Float(_));
    if matches!(s, Scalar::Complex(..)) {
        return None;
    }
    let alone = |r: RowId| Some((r.row(), smallvec![*base]));
    match (s, s.f64()) {
        // bool to the power of bool stays bool.
        (Scalar::Bool(false), _) if d.is_bool() => Some((id::EQ.row(), smallvec![*base, *base])),
        // (A complex product with 1 makes NaN of infinities.)
        (_, 1.0) if !d.is_complex() => Some((id::MUL.row(), smallvec![*base, *exponent])),
        (_, 2.0) if same => alone(id::SQUARE),
        (_, 3.0) if same => alone(id::CUBE),
        (_, 0.5) if float => alone(id::SQRT),
        (_, -0.5) if float => alone(id::RSQRT),
        (_, -1.0) if float => alone(id::RECIPROCAL),
        _ => None,
    }
}

/// The operands without marks (`ops::lazy`), if any has one.
#[inline]
fn resolved(ops: &[Operand]) -> Result<Option<SmallVec<[Option<Tensor>; 4]>>> {
    if !ops.iter().any(|o| matches!(o, Operand::Tensor(t) if t.is_lazy())) {
        return Ok(None);
    }
    let plain = ops.iter().map(|o| match o {
        Operand::Tensor(t) if t.is_lazy() => super::lazy::resolve(t).map(Some),
        _ => Ok(None),
    });
    plain.collect::<Result<_>>().map(Some)
}

/// `ops` with replacements.
fn borrow<'a>(ops: &[Operand<'a>], plain: &'a [Option<Tensor>]) -> Operands<'a> {
    ops.iter().zip(plain).map(|(o, p)| p.as_ref().map_or(*o, Operand::Tensor)).collect()
}

/// A row on operands, out of place. This is what every elementwise op is.
pub fn run(row: &'static Row, ops: &[Operand], params: &[Scalar]) -> Result<Tensor> {
    if let Some((row, ops)) = reroute(row, ops) {
        return run(row, &ops, params);
    }
    if row.has(flag::PARTS)
        && let Some(y) = complex::from_parts(row, ops)
    {
        return y;
    }
    if row.id == id::NEXTAFTER
        && let [Operand::Tensor(a), Operand::Tensor(b)] = ops
        && matches!(a.dtype(), DType::F16 | DType::BF16)
        && a.dtype() == b.dtype()
    {
        return super::halves::nextafter(a, b);
    }
    if let Some(first) = uniform(row, ops) {
        check_operands(row, ops)?;
        let types = types(row, first.dtype(), params)?;
        let layout = Layout::of(first.shape(), first.strides(), 0);
        let out = Tensor::empty_strided(layout, types.out, first.device())?;
        launch_new(row, Formula::Forward, types.compute, &out, ops, params)?;
        if is_grad_enabled() || forward::active() {
            record(row, &types, ops, params, &out, None)?;
        }
        return Ok(out);
    }
    if let Some(plain) = resolved(ops)? {
        return run(row, &borrow(ops, &plain), params);
    }
    let types = resolve(row, ops, params)?;
    if row.has(flag::INTSELF)
        && let Operand::Tensor(t) = &ops[0]
        && !t.dtype().is_float()
    {
        ensure!(!t.dtype().is_bool(), Runtime, "\"{}\" is not implemented for 'Bool'", row.name);
        return super::clone(t);
    }
    let shape = common_shape(row, ops)?;
    let device = common_device(row, ops)?;
    check_divisor(row, types.compute, ops)?;
    let out = Tensor::empty_strided(result_layout(&shape, ops), types.out, device)?;
    launch_new(row, Formula::Forward, types.compute, &out, ops, params)?;
    if is_grad_enabled() || forward::active() {
        record(row, &types, ops, params, &out, None)?;
    }
    Ok(out)
}

/// A row into an existing tensor (`out=`); returns the tensor to hand back, which is another one if
/// `out` had to be resized.
pub fn run_out(row: &'static Row, ops: &[Operand], params: &[Scalar], out: &Tensor) -> Result<Tensor> {
    if let Some((row, ops)) = reroute(row, ops) {
        return run_out(row, &ops, params, out);
    }
    if let Some(y) = complex::from_parts(row, ops) {
        return super::out::put(row.name, &y?, out);
    }
    if let Some(plain) = resolved(ops)? {
        return run_out(row, &borrow(ops, &plain), params, out);
    }
    let rounded = matches!(ops, [Operand::Tensor(t)] if row.has(flag::INTSELF) && !t.dtype().is_float());
    if out.is_lazy() || rounded {
        return super::out::put(row.name, &run(row, ops, params)?, out);
    }
    let types = resolve(row, ops, params)?;
    super::out::check(row.name, out, &tensors_of(ops), types.out)?;
    let shape = common_shape(row, ops)?;
    let device = common_device(row, ops)?;
    ensure!(
        device == out.device(),
        Runtime,
        "{}: Expected out tensor to be on {device}, but got {} instead",
        row.name,
        out.device()
    );
    check_divisor(row, types.compute, ops)?;
    let target = super::out::resized(row.name, out, &shape)?;
    for t in tensors_of(ops) {
        super::out::refuse_partial_overlap(row.name, t, &target)?;
    }
    launch(row, Formula::Forward, types.compute, &target, ops, params)?;
    target.storage().bump_version();
    Ok(target)
}

/// A row into `out` without checks of history or version: for buffers that are ours alone.
pub fn run_raw(r: RowId, out: &Tensor, ops: &[Operand], params: &[Scalar]) -> Result<()> {
    let types = resolve(r.row(), ops, params)?;
    launch(r.row(), Formula::Forward, types.compute, out, ops, params)
}

/// A row writing into its first operand.
pub fn run_inplace(row: &'static Row, ops: &[Operand], params: &[Scalar]) -> Result<()> {
    if let Some((row, ops)) = reroute(row, ops) {
        return run_inplace(row, &ops, params);
    }
    let Operand::Tensor(target) = ops[0] else {
        bail!(Type, "{}_(): the first argument must be a Tensor", row.name)
    };
    ensure!(
        !row.has(flag::PARTS) || !target.dtype().is_complex(),
        Runtime,
        "In-place {} is not supported for complex tensors.",
        row.name
    );
    inplace::check(row.name, target)?;
    if let Some(plain) = resolved(ops)? {
        // Through a copy without the mark, and back.
        let ops = borrow(ops, &plain);
        run_inplace(row, &ops, params)?;
        return match ops[0] {
            Operand::Tensor(t) if target.is_lazy() => super::copy_(target, t),
            _ => Ok(()),
        };
    }
    let types = resolve(row, ops, params)?;
    // Rounding an integer is itself, whatever the formula computes in.
    let nothing_to_do = row.has(flag::INTSELF) && target.dtype().is_int();
    ensure!(
        nothing_to_do || types.out.can_cast(target.dtype()),
        Runtime,
        "result type {} can't be cast to the desired output type {} ({}_)",
        types.out.legacy_name(),
        target.dtype().legacy_name(),
        row.name
    );
    if nothing_to_do {
        return Ok(());
    }
    let shape = common_shape(row, ops)?;
    ensure!(
        shape[..] == *target.shape(),
        Shape,
        "{}_: output with shape {:?} doesn't match the broadcast shape {:?}",
        row.name,
        target.shape(),
        &shape[..]
    );
    let device = common_device(row, ops)?;
    ensure!(
        device == target.device(),
        Runtime,
        "{}_: Expected all tensors to be on the same device, but found {} and {device}",
        row.name,
        target.device()
    );
    check_divisor(row, types.compute, ops)?;
    for o in &ops[1..] {
        if let Operand::Tensor(t) = o {
            super::out::refuse_partial_overlap(row.name, t, target)?;
        }
    }
    // Gradients of the other inputs may need the value that is about to be overwritten.
    let tensors = tensors_of(ops);
    let recording = node::needs_grad(&tensors);
    if recording {
        inplace::check_recorded(row.name, target)?;
    }
    let old =
        if recording && old_value_needed(row, ops) { Some(super::clone(&target.detach())?) } else { None };
    if let Some(old) = &old {
        forward::share(target, old);
    }
    launch(row, Formula::Forward, types.compute, target, ops, params)?;
    target.storage().bump_version();
    if recording && row.bool_out {
        // The old value is gone and truth values have no slope.
        super::copy::forget(target);
    } else if recording {
        record(row, &types, ops, params, target, old.as_ref().map_or(Some(None), |o| Some(Some(o))))?;
    }
    Ok(())
}

// ---- from the registry --------------------------------------------------------------------------

/// Operands and parameters from arguments in signature order.
fn split<'a>(row: &'static Row, args: &'a Args) -> Result<(Operands<'a>, Params)> {
    // Loops, not `collect`: this is on the way of every call.
    let (mut ops, mut params) = (Operands::new(), Params::new());
    for i in 0..row.inputs.len() {
        ops.push(args.operand(i)?);
    }
    for i in 0..row.params.len() {
        params.push(args.number(row.inputs.len() + i)?);
    }
    Ok((ops, params))
}

pub fn call_row(r: RowId, args: &Args, out: Option<&Tensor>) -> Result<Value> {
    let row = r.row();
    let made;
    let (mut ops, params) = split(row, args)?;
    if let Some(Operand::Number(s)) = ops.first().copied()
        && ops.iter().all(|o| matches!(o, Operand::Number(_)))
    {
        made = Tensor::scalar(s, s.dtype(), pyrite_core::Device::Cpu)?;
        ops[0] = (&made).into();
    }
    Ok(Value::Tensor(match out {
        None => run(row, &ops, &params)?,
        Some(o) => run_out(row, &ops, &params, o)?,
    }))
}

pub fn call_row_inplace(r: RowId, args: &Args) -> Result<Value> {
    let row = r.row();
    let (ops, params) = split(row, args)?;
    run_inplace(row, &ops, &params)?;
    Ok(Value::Receiver)
}
