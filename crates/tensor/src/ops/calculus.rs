//! Differences, numerical derivatives and integrals along dimensions.

use super::{Operand, narrow};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Dims, Result, Scalar, ensure};
use smallvec::SmallVec;

/// `x[1:] - x[:-1]` along `d`; for bool, whether the two differ.
fn steps(t: &Tensor, d: usize) -> Result<Tensor> {
    let (dim, n) = (d as i64, t.shape()[d] as i64);
    let (low, high) = (narrow(t, dim, 0, n - 1)?, narrow(t, dim, 1, n - 1)?);
    if t.dtype().is_bool() { super::ne(&high, &low) } else { super::sub(&high, &low) }
}

/// The `n`-th difference along `dim`, of the input between `prepend` and `append`.
pub fn diff(
    t: &Tensor,
    n: i64,
    dim: i64,
    prepend: Option<&Tensor>,
    append: Option<&Tensor>,
) -> Result<Tensor> {
    ensure!(t.ndim() > 0, Runtime, "diff expects input to be at least one-dimensional");
    ensure!(n >= 0, Runtime, "order must be non-negative but got {n}");
    let d = wrap_dim("diff", dim, t.ndim())?;
    for x in prepend.iter().chain(append.iter()) {
        ensure!(
            x.ndim() == t.ndim(),
            Runtime,
            "diff expects prepend or append to be the same dimension as input"
        );
        for (i, (a, b)) in t.shape().iter().zip(x.shape()).enumerate() {
            ensure!(
                i == d || a == b,
                Runtime,
                "diff expects the shape of tensor to prepend or append to match that of input except along the differencing dimension; input.size({i}) = {a}, but got tensor.size({i}) = {b}"
            );
        }
    }
    if n == 0 {
        return super::clone(t);
    }
    let mut y = if prepend.is_some() || append.is_some() {
        let parts: Vec<Tensor> = prepend.into_iter().chain([t]).chain(append).cloned().collect();
        super::shape::cat(&parts, d as i64)?
    } else {
        t.clone()
    };
    for _ in 0..n.min(y.shape()[d] as i64) {
        y = steps(&y, d)?;
    }
    if y.same(t) { super::clone(t) } else { Ok(y) }
}

/// The distance of neighbouring samples along one dimension.
enum Spacing<'a> {
    Even(Scalar),
    At(&'a Tensor),
}

/// The derivative along `d`: central differences inside, one-sided ones of the given order at the edges.
fn slope(t: &Tensor, spacing: &Spacing, d: usize, edge_order: i64) -> Result<Tensor> {
    let (dim, n) = (d as i64, t.shape()[d] as i64);
    let at = |i: i64| narrow(t, dim, if i < 0 { n + i } else { i }, 1);
    let (inner, first, last) = match spacing {
        Spacing::Even(h) => {
            let twice = match h {
                Scalar::Complex(re, im) => Scalar::Complex(2.0 * re, 2.0 * im),
                h => Scalar::Float(2.0 * h.f64()),
            };
            let (h, twice) = (Operand::Number(*h), Operand::Number(twice));
            let inner =
                super::div(&super::sub(&narrow(t, dim, 2, n - 2)?, &narrow(t, dim, 0, n - 2)?)?, twice)?;
            let edge = |a: i64, b: i64, c: i64, sign: f64| -> Result<Tensor> {
                if edge_order == 1 {
                    let (lo, hi) = if sign > 0.0 { (a, b) } else { (b, a) };
                    return super::div(&super::sub(&at(hi)?, &at(lo)?)?, h);
                }
                // (-3 f(a) + 4 f(b) - f(c)) / 2h, mirrored at the far end.
                let s = super::sub(&super::mul(&at(b)?, 4.0 * sign)?, &super::mul(&at(a)?, 3.0 * sign)?)?;
                super::div(&super::sub(&s, &super::mul(&at(c)?, sign)?)?, twice)
            };
            (inner, edge(0, 1, 2, 1.0)?, edge(-1, -2, -3, -1.0)?)
        }
        Spacing::At(x) => {
            let mut shape: SmallVec<[i64; 6]> = SmallVec::from_elem(1, t.ndim());
            shape[d] = -1;
            let h = super::reshape(&steps(x, 0)?, &shape)?;
            let m = h.shape()[d] as i64;
            let (h1, h2) = (narrow(&h, dim, 0, m - 1)?, narrow(&h, dim, 1, m - 1)?);
            let sum = super::add(&h1, &h2)?;
            // Weights of the parabola through three neighbours (Fornberg, 1988).
            let a = super::neg(&super::div(&h2, &super::mul(&h1, &sum)?)?)?;
            let b = super::div(&super::sub(&h2, &h1)?, &super::mul(&h1, &h2)?)?;
            let c = super::div(&h1, &super::mul(&h2, &sum)?)?;
            let inner = super::add(
                &super::add(
                    &super::mul(&a, &narrow(t, dim, 0, n - 2)?)?,
                    &super::mul(&b, &narrow(t, dim, 1, n - 2)?)?,
                )?,
                &super::mul(&c, &narrow(t, dim, 2, n - 2)?)?,
            )?;
            let edge = |a: i64, b: i64, c: i64, near: i64, far: i64, sign: f64| -> Result<Tensor> {
                let near = narrow(&h, dim, if near < 0 { m + near } else { near }, 1)?;
                if edge_order == 1 {
                    let (lo, hi) = if sign > 0.0 { (a, b) } else { (b, a) };
                    return super::div(&super::sub(&at(hi)?, &at(lo)?)?, &near);
                }
                let far = narrow(&h, dim, if far < 0 { m + far } else { far }, 1)?;
                let sum = super::add(&near, &far)?;
                let wa = super::div(
                    &super::add(&super::mul(&near, 2.0)?, &far)?,
                    &super::mul(&super::mul(&near, &sum)?, -sign)?,
                )?;
                let wb = super::div(&sum, &super::mul(&super::mul(&near, &far)?, sign)?)?;
                let wc = super::div(&near, &super::mul(&super::mul(&far, &sum)?, -sign)?)?;
                super::add(
                    &super::add(&super::mul(&wa, &at(a)?)?, &super::mul(&wb, &at(b)?)?)?,
                    &super::mul(&wc, &at(c)?)?,
                )
            };
            (inner, edge(0, 1, 2, 0, 1, 1.0)?, edge(-1, -2, -3, -1, -2, -1.0)?)
        }
    };
    super::shape::cat(&[first, inner, last], dim)
}

/// `gradient` with what its arguments give: one spacing for all, or one for each dimension.
fn gradient(a: &Args, spacing: &[Spacing], dims: Option<&[i64]>, edge_order: i64) -> Result<Value> {
    let t = a.tensor(0)?;
    let over: SmallVec<[usize; 6]> = match dims {
        None => (0..t.ndim()).collect(),
        Some(list) => {
            super::reduce::dim_mask("gradient", Some(list).filter(|l| !l.is_empty()), t.ndim())?;
            list.iter().map(|d| wrap_dim("gradient", *d, t.ndim())).collect::<Result<_>>()?
        }
    };
    if dims.is_none() {
        ensure!(
            spacing.len() <= 1 && t.ndim() <= 1
                || spacing.len() == t.ndim()
                || spacing.len() == 1 && !a.v.iter().any(is_list),
            Runtime,
            "torch.gradient expected spacing to be unspecified, a scalar, or a list of length equal to 'self.dim() = {}', since dim argument was not given, but got a list of length {}",
            t.ndim(),
            spacing.len()
        );
    } else {
        ensure!(
            spacing.len() == over.len() || spacing.len() == 1 && !a.v.iter().any(is_list),
            Runtime,
            "torch.gradient expected spacing to be unspecified, a scalar or it's spacing and dim arguments to have the same length, but got a spacing argument of length {} and a dim argument of length {}.",
            spacing.len(),
            over.len()
        );
    }
    ensure!(t.dtype() != DType::U8, Runtime, "torch.gradient does not support uint8 input.");
    ensure!(
        edge_order == 1 || edge_order == 2,
        Runtime,
        "torch.gradient only supports edge_order=1 and edge_order=2."
    );
    for d in &over {
        ensure!(
            t.shape().get(*d).is_none_or(|n| *n as i64 > edge_order),
            Runtime,
            "torch.gradient expected each dimension size to be at least edge_order+1"
        );
    }
    for s in spacing {
        if let Spacing::At(x) = s {
            ensure!(
                x.ndim() == 1,
                Runtime,
                "torch.gradient expected each element of spacing to have one dimension, but got an element with {} dimensions!",
                x.ndim()
            );
        }
    }
    let mut out = Vec::with_capacity(over.len());
    for (i, d) in over.iter().enumerate() {
        let s = &spacing[if spacing.len() == 1 { 0 } else { i }];
        if let Spacing::At(x) = s {
            ensure!(
                x.numel() == t.shape()[*d],
                Shape,
                "torch.gradient expected as many coordinates in spacing as there are samples along dimension {d} ({}), but got {}",
                t.shape()[*d],
                x.numel()
            );
        }
        if t.ndim() > 0 {
            out.push(slope(t, s, *d, edge_order)?);
        }
    }
    Ok(Value::Tuple(out))
}

fn is_list(a: &crate::registry::Arg) -> bool {
    use crate::registry::Arg;
    matches!(a, Arg::Numbers(_) | Arg::Tensors(_))
}

/// One number for every dimension.
fn even(a: &Args, spacing: Option<usize>) -> Result<[Spacing<'static>; 1]> {
    let h = match spacing {
        Some(i) => a.number_opt(i)?,
        None => None,
    };
    Ok([Spacing::Even(h.unwrap_or(Scalar::Int(1)))])
}

fn numbers<'a>(a: &'a Args, i: usize) -> Result<Vec<Spacing<'a>>> {
    Ok(a.numbers(i)?.iter().map(|h| Spacing::Even(*h)).collect())
}

fn coordinates<'a>(a: &'a Args, i: usize) -> Result<Vec<Spacing<'a>>> {
    Ok(a.tensors(i)?.iter().map(Spacing::At).collect())
}

/// What lies between samples: one distance, or their positions.
enum Width<'a> {
    Dx(Scalar),
    X(&'a Tensor),
}

/// `trapezoid`, or `cumulative_trapezoid`.
fn integrate(name: &str, y: &Tensor, width: Width, dim: i64, cumulative: bool) -> Result<Tensor> {
    ensure!(y.ndim() > 0, Index, "{name}: Dimension specified as {dim} but tensor has no dimensions");
    let d = wrap_dim(name, dim, y.ndim())?;
    let (dim, n) = (d as i64, y.shape()[d] as i64);
    if n == 0 {
        let mut shape: Dims = y.shape().into();
        if !cumulative {
            shape.remove(d);
        }
        return Tensor::zeros(&shape, y.dtype(), y.device());
    }
    let no_bool = |t: &Tensor, which: &str| {
        ensure!(
            !t.dtype().is_bool(),
            Runtime,
            "{name}: received a bool input for {which}, but bool is not supported"
        );
        Ok(())
    };
    let pairs = |y: &Tensor| super::add(&narrow(y, dim, 0, n - 1)?, &narrow(y, dim, 1, n - 1)?);
    let total = |t: &Tensor| {
        if cumulative {
            super::scan_sort::cumsum(t, dim, None)
        } else {
            super::sum(t, Some(&[dim]), false, None)
        }
    };
    match width {
        Width::Dx(dx) => {
            no_bool(y, "`y`")?;
            ensure!(
                !matches!(dx, Scalar::Complex(..) | Scalar::Bool(_)),
                Runtime,
                "{name}: Currently, we only support dx as a real number."
            );
            super::mul(&total(&pairs(y)?)?, dx.f64() / 2.0)
        }
        Width::X(x) => {
            no_bool(y, "`x` or `y`")?;
            no_bool(x, "`x` or `y`")?;
            let x = if x.ndim() == 1 {
                ensure!(
                    x.numel() as i64 == n,
                    Runtime,
                    "{name}: There must be one `x` value for each sample point"
                );
                let mut shape: SmallVec<[i64; 6]> = SmallVec::from_elem(1, y.ndim());
                shape[d] = n;
                super::reshape(x, &shape)?
            } else {
                let mut x = x.clone();
                while x.ndim() < y.ndim() {
                    x = super::unsqueeze(&x, 0)?;
                }
                x
            };
            // A dimension of one sample stands for all of them, as does one of `y`.
            let k = x.shape()[d] as i64;
            let dx = super::sub(&narrow(&x, dim, 1, k - 1)?, &narrow(&x, dim, 0, k - 1)?)?;
            super::div(&total(&super::mul(&pairs(y)?, &dx)?)?, 2.0)
        }
    }
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "diff",
        FUNCTION | METHOD | OUT,
        "The `n`-th difference of neighbours along `dim`; bool tells where they differ.",
        "input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor? = None, append: Tensor? = None",
        |a| Ok(diff(a.tensor(0)?, a.int(1)?, a.int(2)?, a.tensor_opt(3)?, a.tensor_opt(4)?)?.into())
    );
    op!(list, "gradient", FUNCTION,
        "Derivatives along `dim` (all dimensions by default) by central differences, one tensor for each; `spacing` is a distance, one per dimension, or coordinates per dimension; `edge_order` is the order (1 or 2) of the differences at the edges.",
        "input: Tensor, *, spacing: Number? = None, dim: int? = None, edge_order: int = 1", |a| {
            let d = a.int_opt(2)?;
            gradient(a, &even(a, Some(1))?, d.as_ref().map(std::slice::from_ref), a.int(3)?)
        };
        "input: Tensor, *, spacing: Number, dim: ints, edge_order: int = 1", |a| gradient(a, &even(a, Some(1))?, a.ints_opt(2)?, a.int(3)?);
        "input: Tensor, *, dim: ints, edge_order: int = 1", |a| gradient(a, &even(a, None)?, a.ints_opt(1)?, a.int(2)?);
        "input: Tensor, *, spacing: numbers, dim: ints? = None, edge_order: int = 1", |a| gradient(a, &numbers(a, 1)?, a.ints_opt(2)?, a.int(3)?);
        "input: Tensor, *, spacing: Tensors, dim: ints? = None, edge_order: int = 1", |a| gradient(a, &coordinates(a, 1)?, a.ints_opt(2)?, a.int(3)?));
    op!(list, "trapezoid", FUNCTION, alias = ["trapz"],
        "The integral along `dim` by the trapezoidal rule, samples `dx` apart or at the positions `x`.",
        "y: Tensor, x: Tensor, *, dim: int = -1", |a| Ok(integrate("trapezoid", a.tensor(0)?, Width::X(a.tensor(1)?), a.int(2)?, false)?.into());
        "y: Tensor, *, dx: Number = 1, dim: int = -1", |a| Ok(integrate("trapezoid", a.tensor(0)?, Width::Dx(a.number(1)?), a.int(2)?, false)?.into()));
    op!(list, "cumulative_trapezoid", FUNCTION,
        "The integrals from the first sample to each later one, by the trapezoidal rule.",
        "y: Tensor, x: Tensor, *, dim: int = -1", |a| Ok(integrate("cumulative_trapezoid", a.tensor(0)?, Width::X(a.tensor(1)?), a.int(2)?, true)?.into());
        "y: Tensor, *, dx: Number = 1, dim: int = -1", |a| Ok(integrate("cumulative_trapezoid", a.tensor(0)?, Width::Dx(a.number(1)?), a.int(2)?, true)?.into()));
}
