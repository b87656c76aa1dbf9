//! Products: chains of matrices, inner, cross and Kronecker products, traces, distances of two tensors.

use super::*;
use crate::op;
use crate::registry::Args;
use pyrite_core::layout::{broadcast, wrap_dim};
use smallvec::SmallVec;

/// A chain of products in the cheapest order.
fn multi_dot(op: &str, ts: &[Tensor]) -> Result<Tensor> {
    let n = ts.len();
    ensure!(n >= 2, Runtime, "{op}(): expected at least 2 tensors but got {n}");
    let mut list: Vec<Tensor> = ts.to_vec();
    let (head, tail) = (list[0].ndim() == 1, list[n - 1].ndim() == 1);
    if head {
        list[0] = ops::unsqueeze(&list[0], 0)?;
    }
    if tail {
        list[n - 1] = ops::unsqueeze(&list[n - 1], -1)?;
    }
    for (i, t) in list.iter().enumerate() {
        let ends = if i == 0 || i == n - 1 { "1D or 2D" } else { "2D" };
        ensure!(t.ndim() == 2, Runtime, "{op}(): tensor {i} must be {ends} but got {}D", t.ndim());
        ensure!(
            t.dtype() == list[0].dtype(),
            Runtime,
            "{op}(): all tensors must have be the same dtype but tensor 0 is {} and tensor {i} {}",
            list[0].dtype().legacy_name(),
            t.dtype().legacy_name()
        );
        if i > 0 {
            ensure!(
                list[i - 1].shape()[1] == t.shape()[0],
                Shape,
                "{op}(): tensors {} and {i} with shapes {:?} and {:?} cannot be multiplied",
                i - 1,
                list[i - 1].shape(),
                t.shape()
            );
        }
    }
    let y = chain(&list)?;
    Ok(match (head, tail) {
        (true, true) => ops::reshape(&y, &[])?,
        (true, false) => ops::squeeze(&y, Some(&[0]))?,
        (false, true) => ops::squeeze(&y, Some(&[-1]))?,
        _ => y,
    })
}

/// Matrix-chain order by dynamic programming over all ways to cut.
fn chain(ts: &[Tensor]) -> Result<Tensor> {
    let n = ts.len();
    let size: Vec<f64> =
        ts.iter().map(|t| t.shape()[0] as f64).chain([ts[n - 1].shape()[1] as f64]).collect();
    let mut cost = vec![vec![0.0f64; n]; n];
    let mut at = vec![vec![0usize; n]; n];
    for len in 1..n {
        for i in 0..n - len {
            let j = i + len;
            cost[i][j] = f64::INFINITY;
            for k in i..j {
                let c = cost[i][k] + cost[k + 1][j] + size[i] * size[k + 1] * size[j + 1];
                if c < cost[i][j] {
                    (cost[i][j], at[i][j]) = (c, k);
                }
            }
        }
    }
    fn product(ts: &[Tensor], at: &[Vec<usize>], i: usize, j: usize) -> Result<Tensor> {
        if i == j {
            return Ok(ts[i].clone());
        }
        let k = at[i][j];
        mm(&product(ts, at, i, k)?, &product(ts, at, k + 1, j)?)
    }
    product(ts, &at, 0, n - 1)
}

fn kron(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let n = a.ndim().max(b.ndim());
    let padded = |t: &Tensor| -> SmallVec<[usize; 8]> {
        std::iter::repeat_n(1, n - t.ndim()).chain(t.shape().iter().copied()).collect()
    };
    let (sa, sb) = (padded(a), padded(b));
    let (mut wa, mut wb, mut out) = (Dims::new(), Dims::new(), Dims::new());
    for i in 0..n {
        wa.extend([sa[i], 1]);
        wb.extend([1, sb[i]]);
        let Some(both) = sa[i].checked_mul(sb[i]) else {
            bail!(
                OutOfMemory,
                "kron: shapes {:?} and {:?} make a tensor that does not fit",
                a.shape(),
                b.shape()
            );
        };
        out.push(both);
    }
    ops::reshape_to(&ops::mul(&ops::reshape_to(a, &wa)?, &ops::reshape_to(b, &wb)?)?, &out)
}

fn inner(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.ndim() == 0 || b.ndim() == 0 {
        return ops::mul(a, b);
    }
    ensure!(
        a.shape().last() == b.shape().last(),
        Shape,
        "inner() the last dimension must match on both input tensors but got shapes {:?} and {:?}",
        a.shape(),
        b.shape()
    );
    super::tensors::tensordot(a, b, &[-1], &[-1])
}

/// The sum of the products with the first vector's conjugate.
fn vdot(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ops::matmul::dot(&conj(a)?, b)
}

fn vecdot(a: &Tensor, b: &Tensor, dim: i64) -> Result<Tensor> {
    floating("linalg.vecdot", a)?;
    floating("linalg.vecdot", b)?;
    ops::sum(&ops::mul(&conj(a)?, b)?, Some(&[dim]), false, None)
}

fn cross(a: &Tensor, b: &Tensor, dim: i64) -> Result<Tensor> {
    let op = "linalg.cross";
    ensure!(a.ndim() == b.ndim(), Runtime, "{op}: inputs must have the same number of dimensions.");
    let d = wrap_dim("cross", dim, a.ndim())?;
    let side = |t: &Tensor| t.shape().get(d).copied().unwrap_or(1);
    ensure!(
        side(a) == 3 && side(b) == 3,
        Runtime,
        "{op}: inputs dimension {dim} must have length 3. Got {} and {}",
        side(a),
        side(b)
    );
    broadcast(op, a.shape(), b.shape())?;
    let at = |t: &Tensor, i: i64| ops::select(t, d as i64, i);
    let minor = |i: i64, j: i64| -> Result<Tensor> {
        ops::sub(&ops::mul(&at(a, i)?, &at(b, j)?)?, &ops::mul(&at(a, j)?, &at(b, i)?)?)
    };
    ops::shape::stack(&[minor(1, 2)?, minor(2, 0)?, minor(0, 1)?], d as i64)
}

/// The older form looks for the first dimension of size 3.
fn old_cross(a: &Tensor, b: &Tensor, dim: Option<i64>) -> Result<Tensor> {
    let dim = match dim {
        Some(d) => d,
        None => match a.shape().iter().position(|s| *s == 3) {
            Some(d) => d as i64,
            None => bail!(Runtime, "no dimension of size 3 in input"),
        },
    };
    cross(a, b, dim)
}

fn trace(x: &Tensor) -> Result<Tensor> {
    ensure!(x.ndim() == 2, Runtime, "trace: expected a matrix, but got tensor with dim {}", x.ndim());
    ops::sum(&diagonal(x)?, None, false, None)
}

/// Slices along `dim` whose norm is above `most`, scaled down to it.
fn renorm(x: &Tensor, p: f64, dim: i64, most: f64) -> Result<Tensor> {
    floating("renorm", x)?;
    ensure!(p > 0.0, Runtime, "renorm: non-positive-norm not supported");
    ensure!(most >= 0.0, Runtime, "renorm: expected maxnorm to be >= 0 but got {most}");
    ensure!(x.ndim() > 1, Runtime, "renorm: input needs at least 2 dimensions, got {} dimensions", x.ndim());
    let d = wrap_dim("renorm", dim, x.ndim())?;
    let others: SmallVec<[i64; 8]> = (0..x.ndim()).filter(|i| *i != d).map(|i| i as i64).collect();
    let norm = ops::reduce::norm(x, p, Some(&others), true, None)?;
    let scale = ops::div(most, &ops::add(&norm, 1e-7)?)?;
    let factor = ops::where_(&ops::gt(&norm.detach(), most)?, &scale, 1.0)?;
    ops::mul(x, &ops::to_dtype(&factor, x.dtype())?)
}

/// Powers 0 .. n-1 of the elements of the last dimension.
fn vander(x: &Tensor, n: Option<i64>) -> Result<Tensor> {
    let op = "linalg.vander";
    ensure!(!x.dtype().is_bool(), Runtime, "{op}: bool is not supported");
    let n = n.unwrap_or(x.shape().last().map_or(1, |s| *s as i64));
    ensure!(n > 1, Runtime, "N must be greater than 1.");
    // Powers of integers are int64, as products are.
    let x = if x.dtype().is_differentiable() { x.clone() } else { ops::to_dtype(x, DType::I64)? };
    let x = ops::index::at_least_1d(&x)?;
    let column = ops::unsqueeze(&x, -1)?;
    let mut shape: SmallVec<[i64; 8]> = x.shape().iter().map(|s| *s as i64).collect();
    shape.push(n - 1);
    let powers = ops::scan_sort::cumprod(&ops::expand(&column, &shape)?, -1, None)?;
    let one = Tensor::full(column.shape(), Scalar::Int(1), x.dtype(), x.device())?;
    ops::shape::cat(&[one, powers], -1)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "multi_dot",
        FUNCTION | OUT,
        ns = "linalg",
        "The product of two or more matrices in the cheapest order; the first and the last may be vectors.",
        "tensors: Tensors",
        |a| Ok(multi_dot("multi_dot", a.tensors(0)?)?.into())
    );
    op!(
        list,
        "_chain_matmul",
        FUNCTION | OUT,
        ns = "linalg",
        "The product of a list of matrices in the cheapest order.",
        "tensors: Tensors",
        |a| {
            let t = a.tensors(0)?;
            ensure!(!t.is_empty(), Runtime, "chain_matmul(): Expected one or more matrices");
            for (i, m) in t.iter().enumerate() {
                ensure!(
                    m.ndim() == 2,
                    Runtime,
                    "chain_matmul(): Expected 2-dimensional matrices, got {}D at {i}",
                    m.ndim()
                );
            }
            Ok(if t.len() == 1 { t[0].clone() } else { multi_dot("chain_matmul", t)? }.into())
        }
    );
    op!(
        list,
        "kron",
        FUNCTION | METHOD | OUT,
        "The Kronecker product.",
        "input: Tensor, other: Tensor",
        |a| Ok(kron(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "inner",
        FUNCTION | METHOD | OUT,
        "Products summed over the last dimension of both tensors.",
        "input: Tensor, other: Tensor",
        |a| Ok(inner(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "vdot",
        FUNCTION | METHOD | OUT,
        "The inner product of two vectors, the first one conjugated.",
        "input: Tensor, other: Tensor",
        |a| Ok(vdot(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "vecdot",
        FUNCTION | OUT,
        ns = "linalg",
        "Inner products of vectors along `dim`, the first ones conjugated; other dimensions broadcast.",
        "x: Tensor, y: Tensor, *, dim: int = -1",
        |a| Ok(vecdot(a.tensor(0)?, a.tensor(1)?, a.int(2)?)?.into())
    );
    op!(
        list,
        "cross",
        FUNCTION | OUT,
        ns = "linalg",
        "Cross products of vectors of three elements along `dim`; other dimensions broadcast.",
        "input: Tensor, other: Tensor, *, dim: int = -1",
        |a| Ok(cross(a.tensor(0)?, a.tensor(1)?, a.int(2)?)?.into())
    );
    op!(
        list,
        "cross",
        FUNCTION | METHOD | OUT,
        "Cross products along `dim`, by default the first dimension of size 3.",
        "input: Tensor, other: Tensor, dim: int? = None",
        |a| Ok(old_cross(a.tensor(0)?, a.tensor(1)?, a.int_opt(2)?)?.into())
    );
    op!(list, "trace", FUNCTION | METHOD | OUT, "The sum of a matrix's diagonal.", "input: Tensor", |a| Ok(
        trace(a.tensor(0)?)?.into()
    ));
    op!(
        list,
        "dist",
        FUNCTION | METHOD,
        "The p-norm of `input - other`.",
        "input: Tensor, other: Tensor, p: float = 2.0",
        |a| {
            let d = ops::sub(a.tensor(0)?, a.tensor(1)?)?;
            Ok(ops::reduce::norm(&d, a.float(2)?, None, false, None)?.into())
        }
    );
    op!(
        list,
        "renorm",
        FUNCTION | METHOD | OUT,
        "Slices along `dim` scaled down to at most the p-norm `maxnorm`.",
        "input: Tensor, p: float, dim: int, maxnorm: float",
        |a| Ok(renorm_of(a)?.into())
    );
    op!(
        list,
        "renorm_",
        METHOD,
        "In-place `renorm`.",
        "input: Tensor, p: float, dim: int, maxnorm: float",
        |a| {
            ops::copy_(a.tensor(0)?, &renorm_of(a)?)?;
            Ok(Value::Receiver)
        }
    );
    op!(
        list,
        "vander",
        FUNCTION,
        ns = "linalg",
        "Vandermonde matrices: powers 0 .. N-1 of the elements of the last dimension.",
        "x: Tensor, *, N: int? = None",
        |a| Ok(vander(a.tensor(0)?, a.int_opt(1)?)?.into())
    );
    op!(
        list,
        "diagonal",
        FUNCTION,
        ns = "linalg",
        "A view of the diagonal of the matrices in two dimensions (the last ones by default).",
        "A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1",
        |a| Ok(ops::diagonal(a.tensor(0)?, a.int(1)?, a.int(2)?, a.int(3)?)?.into())
    );
    op!(
        list,
        "matmul",
        FUNCTION | OUT,
        ns = "linalg",
        "The matrix product: `matmul`.",
        "input: Tensor, other: Tensor",
        |a| Ok(ops::matmul(a.tensor(0)?, a.tensor(1)?)?.into())
    );
}

fn renorm_of(a: &Args) -> Result<Tensor> {
    renorm(a.tensor(0)?, a.float(1)?, a.int(2)?, a.float(3)?)
}
