//! Norms of vectors and matrices, and the condition number.

use super::*;
use crate::op;
use crate::registry::Args;
use smallvec::SmallVec;

/// The order of a norm as the user gave it.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::ops) enum Order<'a> {
    None,
    Number(f64),
    Name(&'a str),
}

impl Order<'_> {
    fn text(self) -> String {
        match self {
            Order::None => "None".into(),
            Order::Number(v) => format!("{v}"),
            Order::Name(s) => s.into(),
        }
    }
}

fn typed(op: &str, x: &Tensor, dtype: Option<DType>) -> Result<Tensor> {
    let Some(d) = dtype else { return Ok(x.clone()) };
    ensure!(
        d.is_differentiable(),
        Runtime,
        "{op}: dtype should be floating point or complex. Got {}",
        d.legacy_name()
    );
    ensure!(
        x.dtype().can_cast(d),
        Runtime,
        "{op}: the dtype of the input ({}) should be convertible without narrowing to the specified dtype ({})",
        x.dtype().legacy_name(),
        d.legacy_name()
    );
    ops::to_dtype(x, d)
}

fn wrap(dim: i64, ndim: usize) -> Result<i64> {
    Ok(pyrite_core::layout::wrap_dim("linalg.matrix_norm", dim, ndim)? as i64)
}

/// Norms of the matrices in two dimensions.
pub(in crate::ops) fn matrix_norm(
    x: &Tensor,
    ord: Order,
    dims: [i64; 2],
    keepdim: bool,
    dtype: Option<DType>,
) -> Result<Tensor> {
    let op = "linalg.matrix_norm";
    matrix(op, x, "A")?;
    floating(op, x)?;
    let nd = x.ndim();
    let (r, c) = (wrap(dims[0], nd)?, wrap(dims[1], nd)?);
    ensure!(r != c, Runtime, "{op}: dims must be different. Got ({r}, {c})");
    let x = typed(op, x, dtype)?;
    let number = match ord {
        Order::None | Order::Name("fro") => {
            return ops::reduce::norm(&x, 2.0, Some(&[r, c]), keepdim, None);
        }
        Order::Name("nuc") => f64::NAN,
        Order::Number(v) if matches!(v.abs(), 1.0 | 2.0 | f64::INFINITY) => v,
        o => bail!(Runtime, "{op}: Order {} not supported.", o.text()),
    };
    if number.abs() == 2.0 || number.is_nan() {
        let s = svd::svdvals(&ops::movedim(&x, &[r, c], &[-2, -1])?)?;
        let y = if number.is_nan() || number > 0.0 && s.shape()[s.ndim() - 1] == 0 {
            ops::sum(&s, Some(&[-1]), false, None)?
        } else if number > 0.0 {
            ops::reduce::amax(&s, Some(&[-1]), false)?
        } else {
            ops::reduce::amin(&s, Some(&[-1]), false)?
        };
        if !keepdim {
            return Ok(y);
        }
        return ops::unsqueeze(&ops::unsqueeze(&y, r.min(c))?, r.max(c));
    }
    let (sum, pick) = if number.abs() == 1.0 { (r, c) } else { (c, r) };
    let s = ops::reduce::norm(&x, 1.0, Some(&[sum]), keepdim, None)?;
    let pick = if !keepdim && sum < pick { pick - 1 } else { pick };
    match number > 0.0 {
        // The greatest of no sums is 0.
        true if s.shape()[pick as usize] == 0 => ops::sum(&s, Some(&[pick]), keepdim, None),
        true => ops::reduce::amax(&s, Some(&[pick]), keepdim),
        false => ops::reduce::amin(&s, Some(&[pick]), keepdim),
    }
}

fn vector_norm(
    x: &Tensor,
    p: f64,
    dims: Option<&[i64]>,
    keepdim: bool,
    dtype: Option<DType>,
) -> Result<Tensor> {
    ops::reduce::norm(&typed("linalg.vector_norm", x, dtype)?, p, dims, keepdim, None)
}

/// `linalg.norm`: a vector or matrix norm, by `ord`, `dim` and the rank.
pub(in crate::ops) fn norm(
    x: &Tensor,
    ord: Order,
    dims: Option<&[i64]>,
    keepdim: bool,
    dtype: Option<DType>,
) -> Result<Tensor> {
    let nd = x.ndim();
    if let Some(d) = dims {
        ensure!(
            d.len() == 1 || d.len() == 2 || ord == Order::None,
            Runtime,
            "linalg.norm: If dim is specified, it must be of length 1 or 2. Got {d:?}"
        );
    } else if ord != Order::None {
        ensure!(
            nd == 1 || nd == 2,
            Runtime,
            "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {nd}D."
        );
    }
    let pair = match dims {
        Some([r, c]) => Some([*r, *c]),
        Some(_) => None,
        None if nd == 2 => Some([0, 1]),
        None => None,
    };
    match (ord, pair) {
        (Order::None, _) => vector_norm(x, 2.0, dims, keepdim, dtype),
        (Order::Number(p), None) => vector_norm(x, p, dims, keepdim, dtype),
        (o, Some(d)) => matrix_norm(x, o, d, keepdim, dtype),
        (Order::Name(_), None) => match dims {
            Some(d) => bail!(Runtime, "linalg.matrix_norm: dim must be a 2-tuple. Got {d:?}"),
            None => matrix_norm(x, ord, [-2, -1], keepdim, dtype),
        },
    }
}

/// `torch.norm`: vector norms by number; 'fro' is the 2-norm, 'nuc' that of matrices.
pub(in crate::ops) fn old_norm(
    x: &Tensor,
    p: Order,
    dims: Option<&[i64]>,
    keepdim: bool,
    dtype: Option<DType>,
) -> Result<Tensor> {
    // An empty list means all dimensions here.
    let dims = dims.filter(|d| !d.is_empty());
    match p {
        Order::None | Order::Name("fro") => vector_norm(x, 2.0, dims, keepdim, dtype),
        Order::Number(p) => vector_norm(x, p, dims, keepdim, dtype),
        Order::Name(_) => {
            let d = match dims {
                None => [-2, -1],
                Some([r, c]) => [*r, *c],
                Some(d) => bail!(Runtime, "linalg.matrix_norm: dim must be a 2-tuple. Got {d:?}"),
            };
            matrix_norm(x, p, d, keepdim, dtype)
        }
    }
}

fn cond(x: &Tensor, p: Order) -> Result<Tensor> {
    ensure!(x.ndim() >= 2, Runtime, "linalg.cond: The input tensor must have at least 2 dimensions.");
    let spectral = match p {
        Order::None => Some(2.0),
        Order::Number(v) if v.abs() == 2.0 => Some(v),
        Order::Number(v) if v.abs() == 1.0 || v.is_infinite() => None,
        Order::Name("fro" | "nuc") => None,
        p => bail!(Runtime, "linalg.cond got an invalid norm type: {}", p.text()),
    };
    if let Some(v) = spectral {
        let s = svd::svdvals(x)?;
        let n = s.shape()[s.ndim() - 1] as i64;
        if n == 0 {
            return Tensor::zeros(batch_of(x), s.dtype(), s.device());
        }
        let (hi, lo) = (ops::select(&s, -1, 0)?, ops::select(&s, -1, n - 1)?);
        return if v > 0.0 { ops::div(&hi, &lo) } else { ops::div(&lo, &hi) };
    }
    square(&format!("linalg.cond(ord={})", p.text()), x, "A")?;
    if x.numel() == 0 {
        return Tensor::zeros(batch_of(x), x.dtype().real(), x.device());
    }
    let (y, info) = solve::inv_unchecked(x)?;
    let dims = [-2, -1];
    let singular = ops::ne(&info, 0.0)?;
    let bad = ops::unsqueeze(&ops::unsqueeze(&singular, -1)?, -1)?;
    let y = match p {
        // The singular values of what is not finite do not exist: any norm of the zero matrix will do.
        Order::Name("nuc") => ops::masked_fill(&y, &bad, number(0.0))?,
        _ => ops::masked_fill(&y, &bad, number(f64::INFINITY))?,
    };
    let c = ops::mul(&matrix_norm(x, p, dims, false, None)?, &matrix_norm(&y, p, dims, false, None)?)?;
    // Zero times infinity is infinity here, as in NumPy.
    let lost = ops::logical_or(&ops::isnan(&c.detach())?, &singular)?;
    ops::masked_fill(&c, &lost, number(f64::INFINITY))
}

fn order<'a>(a: &'a Args, i: usize) -> Result<Order<'a>> {
    if a.is_none(i) {
        return Ok(Order::None);
    }
    match a.str(i) {
        Ok(s) => Ok(Order::Name(s)),
        Err(_) => Ok(Order::Number(a.float(i)?)),
    }
}

fn pair(a: &Args, i: usize) -> Result<[i64; 2]> {
    let d: SmallVec<[i64; 4]> = a.ints(i)?.into();
    match d[..] {
        [r, c] => Ok([r, c]),
        _ => bail!(Runtime, "linalg.matrix_norm: dim must be a 2-tuple. Got {:?}", &d[..]),
    }
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "matrix_norm",
        FUNCTION | OUT,
        ns = "linalg",
        "The norm of matrices in the dimensions `dim`: 'fro', 'nuc', inf, -inf, 1, -1, 2 or -2.",
        "A: Tensor, ord: Number, dim: ints = (-2, -1), keepdim: bool = False, *, dtype: dtype? = None",
        |a| Ok(matrix_norm(a.tensor(0)?, order(a, 1)?, pair(a, 2)?, a.bool(3)?, a.dtype_opt(4)?)?.into());
        "A: Tensor, ord: str = 'fro', dim: ints = (-2, -1), keepdim: bool = False, *, dtype: dtype? = None",
        |a| Ok(matrix_norm(a.tensor(0)?, order(a, 1)?, pair(a, 2)?, a.bool(3)?, a.dtype_opt(4)?)?.into())
    );
    op!(
        list,
        "norm",
        FUNCTION | OUT,
        ns = "linalg",
        "A vector norm (one dimension, or `ord=None`) or a matrix norm (two).",
        "A: Tensor, ord: Number? = None, dim: ints? = None, keepdim: bool = False, *, dtype: dtype? = None",
        |a| Ok(norm(a.tensor(0)?, order(a, 1)?, a.ints_opt(2)?, a.bool(3)?, a.dtype_opt(4)?)?.into());
        "A: Tensor, ord: str, dim: ints? = None, keepdim: bool = False, *, dtype: dtype? = None",
        |a| Ok(norm(a.tensor(0)?, order(a, 1)?, a.ints_opt(2)?, a.bool(3)?, a.dtype_opt(4)?)?.into())
    );
    op!(
        list,
        "cond",
        FUNCTION | OUT,
        ns = "linalg",
        "The condition number with respect to a matrix norm; infinite for singular matrices.",
        "A: Tensor, p: Number? = None",
        |a| Ok(cond(a.tensor(0)?, order(a, 1)?)?.into());
        "A: Tensor, p: str",
        |a| Ok(cond(a.tensor(0)?, order(a, 1)?)?.into())
    );
    op!(
        list,
        "norm",
        FUNCTION | METHOD | OUT,
        "The vector norm of order `p` over all elements or along `dim`; 'nuc' is a matrix norm.",
        "input: Tensor, p: Number?, dim: ints? = None, keepdim: bool = False, dtype: dtype? = None",
        |a| Ok(old_norm(a.tensor(0)?, order(a, 1)?, a.ints_opt(2)?, a.bool(3)?, a.dtype_opt(4)?)?.into());
        "input: Tensor, p: str = 'fro', dim: ints? = None, keepdim: bool = False, dtype: dtype? = None",
        |a| Ok(old_norm(a.tensor(0)?, order(a, 1)?, a.ints_opt(2)?, a.bool(3)?, a.dtype_opt(4)?)?.into())
    );
}
