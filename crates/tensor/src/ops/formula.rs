//! Runs a gradient formula on whole tensors: the third meaning of a row's text, used when a graph
//! of the backward is wanted. Every step is an op of the library, so the result has a history.

use super::{Operand, elementwise};
use crate::tensor::Tensor;
use pyrite_core::rows::{self, Grad, Row};
use pyrite_core::text::{Expr, parse};
use pyrite_core::{Result, Scalar, bail};

/// An intermediate value.
enum Val {
    Number(f64),
    Tensor(Tensor),
}

impl Val {
    fn operand(&self) -> Operand<'_> {
        match self {
            Val::Number(v) => Operand::Number(Scalar::Float(*v)),
            Val::Tensor(t) => Operand::Tensor(t),
        }
    }
}

struct Env<'a> {
    row: &'static Row,
    g: &'a Tensor,
    inputs: &'a [Option<Operand<'a>>],
    output: Option<&'a Tensor>,
    params: &'a [Scalar],
    lets: Vec<(&'static str, Val)>,
}

/// The gradient `grad` of `row`, recorded.
pub fn eval(
    row: &'static Row,
    grad: &'static Grad,
    g: &Tensor,
    inputs: &[Option<Operand>],
    output: Option<&Tensor>,
    params: &[Scalar],
) -> Result<Tensor> {
    let formula = parse(&grad.text)?;
    let mut env = Env { row, g, inputs, output, params, lets: Vec::new() };
    for (name, e) in &formula.lets {
        let v = env.walk(e)?;
        env.lets.push((name, v));
    }
    match env.walk(&formula.body)? {
        Val::Tensor(t) => Ok(t),
        Val::Number(v) => Tensor::full(g.shape(), v.into(), g.dtype(), g.device()),
    }
}

impl Env<'_> {
    fn name(&self, name: &str) -> Result<Val> {
        if let Some((_, v)) = self.lets.iter().find(|l| l.0 == name) {
            return Ok(match v {
                Val::Number(v) => Val::Number(*v),
                Val::Tensor(t) => Val::Tensor(t.clone()),
            });
        }
        if name == "g" {
            return Ok(Val::Tensor(self.g.clone()));
        }
        if name == "y"
            && let Some(y) = self.output
        {
            return Ok(Val::Tensor(y.clone()));
        }
        if let Some(i) = self.row.inputs.iter().position(|n| *n == name) {
            match self.inputs[i] {
                Some(Operand::Tensor(t)) => return Ok(Val::Tensor(t.clone())),
                Some(Operand::Number(s)) => return Ok(Val::Number(s.f64())),
                None => {}
            }
        }
        if let Some(i) = self.row.params.iter().position(|p| p.0 == name) {
            return Ok(Val::Number(self.params[i].f64()));
        }
        bail!(Runtime, "{}: `{name}` has no value in the gradient formula", self.row.name)
    }

    fn walk(&self, e: &Expr) -> Result<Val> {
        match e {
            Expr::Number(v) => Ok(Val::Number(*v)),
            Expr::Name(n) => self.name(n),
            Expr::Call(f, args) => {
                let args = args.iter().map(|a| self.walk(a)).collect::<Result<Vec<_>>>()?;
                apply(f, &args)
            }
        }
    }
}

/// A vocabulary word on values: numbers fold, the rest are table rows.
fn apply(f: &str, args: &[Val]) -> Result<Val> {
    if let [Val::Number(a), Val::Number(b)] = args {
        match f {
            "add" => return Ok(Val::Number(a + b)),
            "sub" => return Ok(Val::Number(a - b)),
            "mul" => return Ok(Val::Number(a * b)),
            "div" => return Ok(Val::Number(a / b)),
            _ => {}
        }
    }
    if let ("neg", [Val::Number(a)]) = (f, args) {
        return Ok(Val::Number(-a));
    }
    let row = match f {
        "select" => "where",
        "both" => "logical_and",
        "either" => "logical_or",
        "differ" => "logical_xor",
        "negate" => "logical_not",
        "trunc_div" => "trunc_divide",
        "floor_div" => "floor_divide",
        "bitand" => "bitwise_and",
        "bitor" => "bitwise_or",
        "bitxor" => "bitwise_xor",
        "not" => "bitwise_not",
        "shl" => "bitwise_left_shift",
        "shr" => "bitwise_right_shift",
        other => other,
    };
    let Some(row) = rows::find(row) else {
        bail!(NotImplemented, "`{f}` has no tensor form, needed for a higher derivative")
    };
    let ops: Vec<Operand> = args.iter().map(Val::operand).collect();
    let params: Vec<Scalar> = row.params.iter().map(|p| Scalar::Float(p.1.unwrap_or(0.0))).collect();
    Ok(Val::Tensor(elementwise::run(row, &ops, &params)?))
}
