//! Elementwise ops as functions, and their registry entries: every table row becomes a function, a
//! method, an in-place method and an `out=` form; the few ops whose call is not just their row
//! (`div(rounding_mode=)`, `clamp`, `where`, `gelu(approximate=)`, ...) are written out here.

use super::{Operand, elementwise};
use crate::op;
use crate::registry::{Args, Call, Forms, Op, Sig, Value};
use crate::tensor::Tensor;
use pyrite_core::rows::table::id;
use pyrite_core::rows::{ROWS, Row, RowId};
use pyrite_core::{Result, Scalar, bail, ensure};

/// Runs a row by id with its default parameters.
fn run(r: RowId, ops: &[Operand]) -> Result<Tensor> {
    let row = r.row();
    elementwise::run(row, ops, &elementwise::default_params(row))
}

/// A default parameter: whole numbers stay integers, so that integer tensors accept them.
pub fn default(v: f64) -> Scalar {
    if v.fract() == 0.0 && v.abs() < 1e15 { Scalar::Int(v as i64) } else { Scalar::Float(v) }
}

macro_rules! unary {
    ($($f:ident $id:ident),* $(,)?) => { $(
        #[doc = concat!("The table row `", stringify!($f), "`.")]
        pub fn $f(x: &Tensor) -> Result<Tensor> {
            run(id::$id, &[x.into()])
        }
    )* };
}
macro_rules! binary {
    ($($f:ident $id:ident),* $(,)?) => { $(
        #[doc = concat!("The table row `", stringify!($f), "`.")]
        pub fn $f<'a>(a: impl Into<Operand<'a>>, b: impl Into<Operand<'a>>) -> Result<Tensor> {
            run(id::$id, &[a.into(), b.into()])
        }
    )* };
}
unary! {
    neg NEG, abs ABS, conj_physical CONJ_PHYSICAL, isinf ISINF, isfinite ISFINITE, exp EXP, log LOG, log1p LOG1P, sqrt SQRT, rsqrt RSQRT, square SQUARE, sin SIN, cos COS,
    tanh TANH, sigmoid SIGMOID, relu RELU, sign SIGN, isnan ISNAN, logical_not LOGICAL_NOT, reciprocal RECIPROCAL,
    floor FLOOR, ceil CEIL, trunc TRUNC, bitwise_not BITWISE_NOT, gelu_erf GELU_ERF, gelu_tanh GELU_TANH, digamma DIGAMMA,
}
binary! {
    add ADD, sub SUB, mul MUL, div DIV, pow POW, maximum MAXIMUM, gcd GCD, trunc_divide TRUNC_DIVIDE, minimum MINIMUM, eq EQ, ne NE, lt LT, le LE,
    gt GT, ge GE, logical_and LOGICAL_AND, logical_or LOGICAL_OR, floor_divide FLOOR_DIVIDE, remainder REMAINDER,
    bitwise_and BITWISE_AND, bitwise_or BITWISE_OR, bitwise_xor BITWISE_XOR, atan2 ATAN2, hypot HYPOT,
    logaddexp LOGADDEXP,
    bitwise_left_shift BITWISE_LEFT_SHIFT, bitwise_right_shift BITWISE_RIGHT_SHIFT,
}

/// `a` where `c` is true, else `b`.
pub fn where_<'a>(c: &'a Tensor, a: impl Into<Operand<'a>>, b: impl Into<Operand<'a>>) -> Result<Tensor> {
    run(id::WHERE, &[c.into(), a.into(), b.into()])
}

pub fn masked_fill(x: &Tensor, mask: &Tensor, value: Operand) -> Result<Tensor> {
    check_mask("masked_fill", mask)?;
    match value {
        Operand::Number(v) => elementwise::run(id::MASKED_FILL_SCALAR.row(), &[x.into(), mask.into()], &[v]),
        Operand::Tensor(v) => {
            ensure!(
                v.ndim() == 0,
                Runtime,
                "masked_fill only supports a 0-dimensional value tensor, but got tensor with {} dimension(s).",
                v.ndim()
            );
            ensure!(
                x.dtype().is_complex() || !v.dtype().is_complex(),
                Runtime,
                "masked_fill: value cannot be converted to type {} without overflow (it is complex)",
                x.dtype().name()
            );
            let v = super::to_dtype(v, x.dtype())?;
            run(id::WHERE, &[mask.into(), (&v).into(), x.into()])
        }
    }
}

fn check_mask(op: &str, mask: &Tensor) -> Result<()> {
    ensure!(
        mask.dtype().is_bool(),
        Runtime,
        "{op}: expected mask dtype to be Bool but got {}",
        mask.dtype().name()
    );
    Ok(())
}

pub(super) fn masked_fill_(x: &Tensor, mask: &Tensor, value: Operand) -> Result<()> {
    check_mask("masked_fill_", mask)?;
    match value {
        Operand::Number(v) => {
            super::check_fits(v, x.dtype())?;
            elementwise::run_inplace(id::MASKED_FILL_SCALAR.row(), &[x.into(), mask.into()], &[v])
        }
        Operand::Tensor(v) => super::copy_(x, &masked_fill(x, mask, v.into())?),
    }
}

/// `div` with its rounding modes.
fn div_mode<'a>(a: Operand<'a>, b: Operand<'a>, mode: Option<&str>) -> Result<RowIdAndOps<'a>> {
    let row = match mode {
        None => id::DIV,
        Some("trunc") => id::TRUNC_DIVIDE,
        Some("floor") => id::FLOOR_DIVIDE,
        Some(m) => bail!(
            Runtime,
            "div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{m}'"
        ),
    };
    Ok((row, [a, b]))
}

type RowIdAndOps<'a> = (RowId, [Operand<'a>; 2]);

/// Which row does `clamp` with these bounds, its operands and parameters.
fn clamp_parts<'a>(
    x: &'a Tensor,
    lo: Option<Operand<'a>>,
    hi: Option<Operand<'a>>,
) -> Result<(RowId, Vec<Operand<'a>>, Vec<Scalar>)> {
    Ok(match (lo, hi) {
        (None, None) => bail!(Runtime, "torch.clamp: At least one of 'min' or 'max' must not be None"),
        (Some(Operand::Number(l)), Some(Operand::Number(h))) => {
            // Weak numbers still lift an integer tensor to float: let promotion see them.
            let lifts = l.category().max(h.category()) > x.dtype().category();
            if lifts {
                (id::CLAMP_TENSORS, vec![x.into(), Operand::Number(l), Operand::Number(h)], vec![])
            } else {
                (id::CLAMP_SCALARS, vec![x.into()], vec![l, h])
            }
        }
        (Some(l), None) => (id::CLAMP_MIN, vec![x.into(), l], vec![]),
        (None, Some(h)) => (id::CLAMP_MAX, vec![x.into(), h], vec![]),
        (Some(l), Some(h)) => (id::CLAMP_TENSORS, vec![x.into(), l, h], vec![]),
    })
}

fn operand_opt<'a>(a: &'a Args, i: usize) -> Result<Option<Operand<'a>>> {
    if a.is_none(i) { Ok(None) } else { a.operand(i).map(Some) }
}

/// Functions whose first argument may be a number (then the second is a tensor), as in PyTorch.
const NUMBER_FIRST: [&str; 8] = [
    "pow",
    "xlogy",
    "remainder",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "bitwise_left_shift",
    "bitwise_right_shift",
];

/// Arithmetic, whose first argument or both may be numbers.
const NUMBERS: [&str; 4] = ["add", "sub", "mul", "floor_divide"];

/// Rows whose other argument is a tensor, never a number, as in PyTorch.
const TENSORS_ONLY: [&str; 18] = [
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "atan2",
    "hypot",
    "nextafter",
    "logaddexp",
    "logaddexp2",
    "heaviside",
    "logical_and",
    "logical_or",
    "logical_xor",
    "gcd",
    "lcm",
    "igamma",
    "igammac",
    "ldexp",
];

/// The signatures of a plain row.
fn signatures(r: &Row, inplace: bool, call: Call) -> Vec<Sig> {
    let mut list = vec![Sig { text: leak(signature(r, "Tensor")), call }];
    if !inplace && NUMBERS.contains(&r.name) {
        list.push(Sig { text: leak(signature(r, "Number")), call });
    }
    let special = r.namespace == "special" && r.inputs.len() == 2;
    if !inplace && (special || NUMBER_FIRST.contains(&r.name)) {
        list.push(Sig { text: leak(signature(r, "Number").replacen("Operand", "Tensor", 1)), call });
    }
    list
}

/// The signature of a plain row whose first argument is of the given type.
fn signature(r: &Row, first: &str) -> String {
    let mut s = String::new();
    for (i, name) in r.inputs.iter().enumerate() {
        let name = match (i, r.name, r.inputs.len()) {
            (0, _, _) => "input",
            (1, "pow", _) => "exponent",
            (1, "lerp", _) => "end",
            (2, "lerp", _) => "weight",
            (1, "addcmul" | "addcdiv", _) => "tensor1",
            (2, "addcmul" | "addcdiv", _) => "tensor2",
            (1, "clamp_min", _) => "min",
            (1, "clamp_max", _) => "max",
            (1, "heaviside", _) => "values",
            (1, _, 2) if *name == "n" => "n",
            (1, _, 2) => "other",
            _ => name,
        };
        let kind = match i {
            0 => first,
            _ if TENSORS_ONLY.contains(&r.name) => "Tensor",
            _ if i > 0 && ["addcmul", "addcdiv"].contains(&r.name) => "Tensor",
            _ => "Operand",
        };
        s += &format!("{}{name}: {kind}", if i > 0 { ", " } else { "" });
    }
    if r.has(pyrite_core::rows::flag::ALPHA) || r.has(pyrite_core::rows::flag::KWPARAMS) {
        s += ", *";
    }
    for (name, d) in r.params {
        s += &format!(", {name}: Number");
        if let Some(d) = d {
            s += &match default(*d) {
                Scalar::Int(i) if r.class != pyrite_core::rows::Class::Float => format!(" = {i}"),
                _ => format!(" = {d:?}"),
            };
        }
    }
    s
}

/// Names kept for the life of the process; the registry is built once.
fn leak(s: String) -> &'static str {
    Box::leak(s.into_boxed_str())
}

fn rows(list: &mut Vec<Op>) {
    for r in ROWS.iter().filter(|r| r.namespace != "_") {
        // Written out below.
        if r.name == "div" || r.name == "logit" {
            continue;
        }
        let nn = r.namespace == "nn";
        let method = if r.namespace.is_empty() { Forms::METHOD } else { 0 };
        let out = if r.name.starts_with("is") && !r.name.ends_with("posinf") && !r.name.ends_with("neginf") {
            0
        } else {
            Forms::OUT
        };
        list.push(Op {
            name: r.name,
            namespace: r.namespace,
            forms: Forms(Forms::FUNCTION | method | out),
            sigs: signatures(r, false, Call::Row(r.id)),
            doc: r.doc,
            aliases: r.aliases.to_vec(),
            row: Some(r.id),
        });
        if r.name.starts_with("is") || r.namespace == "special" {
            continue;
        }
        list.push(Op {
            name: leak(format!("{}_", r.name)),
            namespace: r.namespace,
            // The in-place forms of unary ops are functions too (`torch.exp_`), and those of a few others.
            forms: Forms(
                method
                    | if nn
                        || r.inputs.len() == 1
                        || ["clamp_min", "clamp_max", "gcd", "xlogy"].contains(&r.name)
                    {
                        Forms::FUNCTION
                    } else {
                        0
                    },
            ),
            sigs: signatures(r, true, Call::RowInplace(r.id)),
            doc: leak(format!("In-place `{}`.", r.name)),
            aliases: r.aliases.iter().map(|a| leak(format!("{a}_"))).collect(),
            row: Some(r.id),
        });
    }
}

pub fn register(list: &mut Vec<Op>) {
    rows(list);
    op!(
        list,
        "div",
        FUNCTION | METHOD | OUT,
        alias = ["divide", "true_divide"],
        "Elementwise quotient; `rounding_mode` is None (true division), 'trunc' or 'floor'.",
        "input: Tensor, other: Operand, *, rounding_mode: str? = None",
        |a| {
            let (r, ops) = div_mode(a.operand(0)?, a.operand(1)?, a.str_opt(2)?)?;
            Ok(elementwise::run(r.row(), &ops, &[])?.into())
        };
        "input: Number, other: Operand, *, rounding_mode: str? = None",
        |a| {
            let s = a.number(0)?;
            let made = Tensor::scalar(s, s.dtype(), pyrite_core::Device::Cpu)?;
            let first = match a.operand(1)? {
                Operand::Number(_) => (&made).into(),
                Operand::Tensor(_) => Operand::Number(s),
            };
            let (r, ops) = div_mode(first, a.operand(1)?, a.str_opt(2)?)?;
            Ok(elementwise::run(r.row(), &ops, &[])?.into())
        }
    );
    op!(
        list,
        "div_",
        METHOD,
        alias = ["divide_", "true_divide_"],
        "In-place `div`.",
        "input: Tensor, other: Operand, *, rounding_mode: str? = None",
        |a| {
            let (r, ops) = div_mode(a.operand(0)?, a.operand(1)?, a.str_opt(2)?)?;
            elementwise::run_inplace(r.row(), &ops, &[])?;
            Ok(Value::Receiver)
        }
    );
    op!(
        list,
        "rsub",
        FUNCTION,
        "`other - alpha * input`.",
        "input: Tensor, other: Operand, *, alpha: Number = 1",
        |a| { Ok(elementwise::run(id::SUB.row(), &[a.operand(1)?, a.operand(0)?], &[a.number(2)?])?.into()) }
    );
    op!(list, "positive", FUNCTION | METHOD, "The input itself; an error for bool.", "input: Tensor", |a| {
        ensure!(
            !a.tensor(0)?.dtype().is_bool(),
            Runtime,
            "The `+` operator, on a bool tensor is not supported."
        );
        Ok(a.tensor(0)?.clone().into())
    });
    op!(
        list,
        "round",
        FUNCTION | METHOD | OUT,
        "To the nearest integer (ties to even), or to `decimals` digits.",
        "input: Tensor, *, decimals: int = 0",
        |a| Ok(round(a.tensor(0)?, a.int(1)?)?.into())
    );
    op!(list, "round_", FUNCTION | METHOD, "In-place `round`.", "input: Tensor, *, decimals: int = 0", |a| {
        super::copy_(a.tensor(0)?, &round(a.tensor(0)?, a.int(1)?)?)?;
        Ok(Value::Receiver)
    });
    op!(
        list,
        "clamp",
        FUNCTION | METHOD | OUT,
        alias = ["clip"],
        "Values limited to `min`..`max`; either may be None, a number or a tensor.",
        "input: Tensor, min: Operand? = None, max: Operand? = None",
        |a| {
            let (r, ops, params) = clamp_parts(a.tensor(0)?, operand_opt(a, 1)?, operand_opt(a, 2)?)?;
            Ok(elementwise::run(r.row(), &ops, &params)?.into())
        }
    );
    op!(
        list,
        "clamp_",
        FUNCTION | METHOD,
        alias = ["clip_"],
        "In-place `clamp`.",
        "input: Tensor, min: Operand? = None, max: Operand? = None",
        |a| {
            let (r, ops, params) = clamp_parts(a.tensor(0)?, operand_opt(a, 1)?, operand_opt(a, 2)?)?;
            elementwise::run_inplace(r.row(), &ops, &params)?;
            Ok(Value::Receiver)
        }
    );
    op!(
        list,
        "where",
        FUNCTION | OUT,
        "`input` where the condition is true, else `other`.",
        "condition: Tensor, input: Operand, other: Operand",
        |a| {
            let c = a.tensor(0)?;
            ensure!(
                c.dtype().is_bool() || c.dtype() == pyrite_core::DType::U8,
                Runtime,
                "where expected condition to be a boolean tensor, but got a tensor with dtype {}",
                c.dtype().name()
            );
            Ok(run(id::WHERE, &[a.operand(0)?, a.operand(1)?, a.operand(2)?])?.into())
        };
        // With the condition alone: where it is true, one index vector per dimension.
        "condition: Tensor",
        |a| Ok(Value::Tuple(super::unbind(&super::index::nonzero(&super::index::at_least_1d(a.tensor(0)?)?)?, 1)?))
    );
    op!(
        list,
        "where",
        METHOD,
        "This tensor where the condition is true, else `other`.",
        "input: Tensor, condition: Tensor, other: Operand",
        |a| {
            let c = a.tensor(1)?;
            ensure!(
                c.dtype().is_bool() || c.dtype() == pyrite_core::DType::U8,
                Runtime,
                "where expected condition to be a boolean tensor, but got a tensor with dtype {}",
                c.dtype().name()
            );
            Ok(run(id::WHERE, &[a.operand(1)?, a.operand(0)?, a.operand(2)?])?.into())
        }
    );
    op!(
        list,
        "masked_fill",
        FUNCTION | METHOD,
        "`value` where the bool mask is true.",
        "input: Tensor, mask: Tensor, value: Operand",
        |a| Ok(masked_fill(a.tensor(0)?, a.tensor(1)?, a.operand(2)?)?.into())
    );
    op!(
        list,
        "masked_fill_",
        METHOD,
        "In-place `masked_fill`.",
        "input: Tensor, mask: Tensor, value: Operand",
        |a| {
            masked_fill_(a.tensor(0)?, a.tensor(1)?, a.operand(2)?)?;
            Ok(Value::Receiver)
        }
    );
    op!(
        list,
        "gelu",
        FUNCTION | OUT,
        ns = "nn",
        "Gaussian error linear unit, `x * Phi(x)` (Hendrycks and Gimpel, 2016); `approximate` is 'none' or 'tanh'.",
        "input: Tensor, *, approximate: str = 'none'",
        |a| {
            Ok(match a.str(1)? {
                "none" => gelu_erf(a.tensor(0)?)?,
                "tanh" => gelu_tanh(a.tensor(0)?)?,
                m => bail!(Runtime, "approximate argument must be either none or tanh, got '{m}'"),
            }
            .into())
        }
    );
    op!(list, "relu", FUNCTION, ns = "nn", "`max(x, 0)`.", "input: Tensor", |a| Ok(
        relu(a.tensor(0)?)?.into()
    ));
    op!(
        list,
        "nan_to_num",
        FUNCTION | METHOD | OUT,
        "NaN and infinities replaced by numbers (0 and the dtype's extremes by default).",
        "input: Tensor, nan: float? = None, posinf: float? = None, neginf: float? = None",
        |a| {
            let x = a.tensor(0)?;
            if !x.dtype().is_differentiable() {
                return Ok(super::clone(x)?.into());
            }
            let parts = if x.dtype().is_complex() { super::complex::view_as_real(x)? } else { x.clone() };
            let row = id::NAN_TO_NUM_SCALARS.row();
            let y = elementwise::run(row, &[(&parts).into()], &nan_params(a, &parts)?)?;
            Ok(if x.dtype().is_complex() { super::complex::to_complex(&y)? } else { y }.into())
        }
    );
    op!(
        list,
        "nan_to_num_",
        FUNCTION | METHOD,
        "In-place `nan_to_num`.",
        "input: Tensor, nan: float? = None, posinf: float? = None, neginf: float? = None",
        |a| {
            let x = a.tensor(0)?;
            if x.dtype().is_complex() {
                let parts = super::complex::view_as_real(x)?;
                let row = id::NAN_TO_NUM_SCALARS.row();
                elementwise::run_inplace(row, &[(&parts).into()], &nan_params(a, &parts)?)?;
            } else if x.dtype().is_float() {
                elementwise::run_inplace(id::NAN_TO_NUM_SCALARS.row(), &[x.into()], &nan_params(a, x)?)?;
            }
            Ok(Value::Receiver)
        }
    );
    op!(
        list,
        "prelu",
        FUNCTION | METHOD,
        "x where positive, else `weight * x`; one weight, or one per channel (dimension 1).",
        "input: Tensor, weight: Tensor",
        |a| Ok(prelu(a.tensor(0)?, a.tensor(1)?)?.into())
    );
}

fn nan_params(a: &Args, x: &Tensor) -> Result<[Scalar; 3]> {
    let max = match x.dtype() {
        pyrite_core::DType::F16 => 65504.0,
        pyrite_core::DType::BF16 => f32::from_bits(0x7f7f_0000) as f64,
        pyrite_core::DType::F32 => f32::MAX as f64,
        _ => f64::MAX,
    };
    let get = |i, d: f64| Ok::<_, pyrite_core::Error>(Scalar::Float(a.float_opt(i)?.unwrap_or(d)));
    Ok([get(1, 0.0)?, get(2, max)?, get(3, -max)?])
}

pub(super) fn round(x: &Tensor, decimals: i64) -> Result<Tensor> {
    ensure!(!x.dtype().is_complex(), NotImplemented, "\"round\" is not implemented for complex tensors");
    if !x.dtype().is_float() {
        return super::clone(x);
    }
    if decimals == 0 {
        return run(id::ROUND, &[x.into()]);
    }
    let scale = 10f64.powi(decimals.unsigned_abs().min(400) as i32);
    let (up, down) = if decimals > 0 { (mul(x, scale)?, false) } else { (div(x, scale)?, true) };
    let r = run(id::ROUND, &[(&up).into()])?;
    if down { mul(&r, scale) } else { div(&r, scale) }
}

fn prelu(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    ensure!(
        x.dtype() == w.dtype(),
        Runtime,
        "prelu: Type promoting not supported. Got {} and {}",
        x.dtype().name(),
        w.dtype().name()
    );
    ensure!(
        w.ndim() <= 1,
        Runtime,
        "prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {}",
        w.ndim()
    );
    let w = if w.numel() == 1 {
        super::reshape(w, &[1])?
    } else {
        let channels = if x.ndim() > 1 { x.shape()[1] } else { 1 };
        ensure!(
            channels == w.numel(),
            Shape,
            "Mismatch of parameter numbers and input channel size. Found parameter numbers = {} and channel size = {channels}.",
            w.numel()
        );
        let mut shape = vec![1i64; x.ndim()];
        shape[1] = -1;
        super::reshape(w, &shape)?
    };
    let y = run(id::PRELU_KERNEL, &[x.into(), (&w).into()])?;
    if x.ndim() == 0 { super::reshape(&y, &[]) } else { Ok(y) }
}
