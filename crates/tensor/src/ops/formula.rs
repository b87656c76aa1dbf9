//! Runs a gradient formula on whole tensors: the third meaning of a row's text, used when a graph
//! of the backward is wanted. Every step is an op of the library, so the result has a history.

use super::{Operand, elementwise};
use crate::tensor::Tensor;
use pyrite_core::rows::{self, Grad, Row};
use pyrite_core::text::{Expr, parse};
use pyrite_core::{DType, Result, Scalar, bail};

/// An intermediate value.
enum Val {
    Number(Scalar),
    Tensor(Tensor),
}

impl Val {
    fn operand(&self) -> Operand<'_> {
        match self {
            Val::Number(v) => Operand::Number(*v),
            Val::Tensor(t) => Operand::Tensor(t),
        }
    }
}

struct Env<'a> {
    row: &'static Row,
    g: Tensor,
    inputs: &'a [Option<Operand<'a>>],
    output: Option<&'a Tensor>,
    params: &'a [Scalar],
    lets: Vec<(&'static str, Val)>,
}

/// The gradient `grad` of `row`, recorded. `complex`: the row computed in a complex dtype, so that the
/// formula is taken between two conjugations, as in the fused kernel.
pub fn eval(
    row: &'static Row,
    grad: &'static Grad,
    g: &Tensor,
    inputs: &[Option<Operand>],
    output: Option<&Tensor>,
    params: &[Scalar],
    complex: bool,
) -> Result<Tensor> {
    let formula = parse(&grad.text)?;
    let g = if complex { super::complex::conj_now(g)? } else { g.clone() };
    let mut env = Env { row, g, inputs, output, params, lets: Vec::new() };
    for (name, e) in &formula.lets {
        let v = env.walk(e)?;
        env.lets.push((name, v));
    }
    let d = match env.walk(&formula.body)? {
        Val::Tensor(t) => t,
        Val::Number(v) => Tensor::full(env.g.shape(), v, env.g.dtype(), env.g.device())?,
    };
    if complex { super::complex::conj_now(&d) } else { Ok(d) }
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
                Some(Operand::Number(s)) => return Ok(Val::Number(s)),
                None => {}
            }
        }
        if let Some(i) = self.row.params.iter().position(|p| p.0 == name) {
            return Ok(Val::Number(self.params[i]));
        }
        bail!(Runtime, "{}: `{name}` has no value in the gradient formula", self.row.name)
    }

    /// Where a number's function is computed.
    fn number_dtype(&self, v: Scalar) -> DType {
        let d = self.g.dtype();
        match d {
            DType::F16 | DType::BF16 => DType::F32,
            d if d.is_complex() && !matches!(v, Scalar::Complex(..)) => d.real(),
            d => d,
        }
    }

    fn walk(&self, e: &Expr) -> Result<Val> {
        match e {
            Expr::Number(v) => Ok(Val::Number(Scalar::Float(*v))),
            Expr::Name(n) => self.name(n),
            Expr::Call(f, args) => {
                let args = args.iter().map(|a| self.walk(a)).collect::<Result<Vec<_>>>()?;
                if let [Val::Number(v)] = args[..]
                    && *f != "neg"
                {
                    // A number of the gradient's precision, not of the default dtype's.
                    let v = Val::Tensor(Tensor::scalar(v, self.number_dtype(v), self.g.device())?);
                    return apply(f, &[v]);
                }
                apply(f, &args)
            }
        }
    }
}

/// A vocabulary word on values: numbers fold, the rest are table rows.
fn apply(f: &str, args: &[Val]) -> Result<Val> {
    if let [Val::Number(a), Val::Number(b)] = args
        && let Some(v) = fold(f, *a, *b)
    {
        return Ok(Val::Number(v));
    }
    if let ("neg", [Val::Number(a)]) = (f, args)
        && let Some(v) = fold("sub", Scalar::Float(0.0), *a)
    {
        return Ok(Val::Number(v));
    }
    if let ("lt" | "le" | "gt" | "ge", [a, b]) = (f, args) {
        // As for complex lanes: what formulas compare is real.
        let real = |v: &Val| {
            Ok(match v {
                Val::Number(s) => Val::Number(Scalar::Float(s.f64())),
                Val::Tensor(t) => Val::Tensor(super::complex::real(&t.detach())?),
            })
        };
        return row(f, &[real(a)?, real(b)?]);
    }
    row(f, args)
}

/// Two numbers.
fn fold(f: &str, a: Scalar, b: Scalar) -> Option<Scalar> {
    let parts = |s: Scalar| if let Scalar::Complex(re, im) = s { (re, im) } else { (s.f64(), 0.0) };
    let ((ar, ai), (br, bi)) = (parts(a), parts(b));
    let (re, im) = match f {
        "add" => (ar + br, ai + bi),
        "sub" => (ar - br, ai - bi),
        "mul" => (ar * br - ai * bi, ar * bi + ai * br),
        "div" if bi == 0.0 => (ar / br, ai / br),
        "div" => {
            let n = br * br + bi * bi;
            ((ar * br + ai * bi) / n, (ai * br - ar * bi) / n)
        }
        _ => return None,
    };
    let complex = |s| matches!(s, Scalar::Complex(..));
    Some(if complex(a) || complex(b) { Scalar::Complex(re, im) } else { Scalar::Float(re) })
}

/// A word as a table row.
fn row(f: &str, args: &[Val]) -> Result<Val> {
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
        "conj" => "conj_physical",
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
