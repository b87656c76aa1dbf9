//! The pseudo-inverse and the numerical rank: both cut small singular values off.

use super::*;
use crate::autograd::{Save, needs_grad};
use crate::op;
use crate::ops::Operand;
use crate::registry::Args;
use smallvec::smallvec;

/// A tolerance: a number, or a tensor with one for each matrix.
fn tolerance(a: &Args, i: usize, like: &Tensor, op: &str) -> Result<Option<Tensor>> {
    if a.is_none(i) {
        return Ok(None);
    }
    let dtype = like.dtype().real();
    Ok(Some(match a.operand(i)? {
        Operand::Tensor(t) => {
            ensure!(
                !t.dtype().is_complex(),
                Runtime,
                "{op}: tolerance tensor of complex type is not supported. Got {}",
                t.dtype().legacy_name()
            );
            let t = ops::to_dtype(&t.detach(), dtype)?;
            if t.ndim() > 0 { ops::unsqueeze(&t, -1)? } else { t }
        }
        Operand::Number(s) => Tensor::scalar(s, dtype, like.device())?,
    }))
}

/// The absolute cut: max(atol, rtol * largest), with PyTorch's defaults.
fn cut(x: &Tensor, atol: Option<Tensor>, rtol: Option<Tensor>, largest: &Tensor) -> Result<Tensor> {
    let (m, n) = rows_cols(x);
    let usual = eps(x.dtype()) * m.max(n) as f64;
    let rtol = match (rtol, &atol) {
        (Some(r), _) => r,
        // An absolute tolerance alone turns the relative one off.
        (None, Some(a)) => ops::where_(&ops::gt(a, 0.0)?, 0.0, usual)?,
        (None, None) => Tensor::scalar(Scalar::Float(usual), x.dtype().real(), x.device())?,
    };
    let relative = ops::mul(&ops::to_dtype(&rtol, largest.dtype())?, largest)?;
    match atol {
        Some(a) => ops::maximum(&a, &relative),
        None => Ok(relative),
    }
}

/// The largest absolute value of each vector, kept as a dimension.
fn largest(s: &Tensor) -> Result<Tensor> {
    ops::reduce::amax(&ops::abs(s)?, Some(&[-1]), true)
}

pub(super) fn pinv(
    x: &Tensor,
    atol: Option<Tensor>,
    rtol: Option<Tensor>,
    hermitian: bool,
) -> Result<Tensor> {
    ensure!(
        x.ndim() >= 2 && kernel::num(x.dtype()).is_some(),
        Runtime,
        "linalg.pinv({}{{{:?}}}): expected a tensor with 2 or more dimensions of float, double, cfloat or cdouble types",
        x.dtype().legacy_name(),
        x.shape()
    );
    if hermitian {
        square("linalg.pinv", x, "A")?;
    }
    let (m, n) = rows_cols(x);
    if x.numel() == 0 {
        let y = Tensor::empty(&joined(batch_of(x), &[n, m]), x.dtype(), x.device())?;
        return if needs_grad(&[x]) { ops::add(&y, &mt(x)?) } else { Ok(y) };
    }
    let raw = x.detach();
    let invert = |s: &Tensor| -> Result<Tensor> {
        let keep = ops::gt(&ops::abs(s)?, &cut(&raw, atol.clone(), rtol.clone(), &largest(s)?)?)?;
        let inverse = ops::where_(&keep, &ops::reciprocal(s)?, 0.0)?;
        ops::to_dtype(&inverse, raw.dtype())
    };
    let y = if hermitian {
        let (w, v) = eigen::eigh(&raw, false)?;
        mm(&scale_columns(&v, &invert(&w)?)?, &mh(&v)?)?
    } else {
        let (u, s, vh) = svd::svd("linalg.pinv", &raw, false)?;
        mm(&scale_columns(&mh(&vh)?, &invert(&s)?)?, &mh(&u)?)?
    };
    if needs_grad(&[x]) {
        autograd::attach("LinalgPinvBackward0", &[x], &[&y], &[Save::Input(x), Save::Output(0)], |cx| {
            Ok(smallvec![Some(backward(&cx.grad(0)?, cx.saved(0)?, cx.saved(1)?)?)])
        });
    }
    Ok(y)
}

/// `dY = -Y dA Y + Y Y^H dA^H (I - A Y) + (I - Y A) dA^H Y^H Y`, for changes that keep the rank.
pub(super) fn backward(g: &Tensor, a: &Tensor, y: &Tensor) -> Result<Tensor> {
    let (gh, yh) = (mh(g)?, mh(y)?);
    let one = ops::neg(&mm(&yh, &mm(g, &yh)?)?)?;
    // (I - A Y) g^H Y Y^H, and Y^H Y g^H (I - Y A).
    let p = mm(&mm(&gh, y)?, &yh)?;
    let two = ops::sub(&p, &mm(a, &mm(y, &p)?)?)?;
    let q = mm(&yh, &mm(y, &gh)?)?;
    let three = ops::sub(&q, &mm(&mm(&q, y)?, a)?)?;
    ops::add(&ops::add(&one, &two)?, &three)
}

fn matrix_rank(x: &Tensor, atol: Option<Tensor>, rtol: Option<Tensor>, hermitian: bool) -> Result<Tensor> {
    matrix("torch.linalg.matrix_rank", x, "input")?;
    let x = x.detach();
    let s = match hermitian {
        true => ops::abs(&eigen::eigvalsh(&x, false)?)?,
        false => svd::svdvals(&x)?,
    };
    if s.shape().last() == Some(&0) {
        return Tensor::zeros(batch_of(&x), DType::I64, x.device());
    }
    let c = cut(&x, atol, rtol, &largest(&s)?)?;
    ops::sum(&ops::gt(&s, &c)?, Some(&[-1]), false, None)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "pinv",
        FUNCTION | OUT,
        ns = "linalg",
        "The Moore-Penrose inverse: singular values up to `max(atol, rtol * largest)` count as zero. `hermitian=True` uses eigenvalues instead.",
        "A: Tensor, *, atol: Operand? = None, rtol: Operand? = None, hermitian: bool = False",
        |a| {
            let x = a.tensor(0)?;
            let (p, r) = (tolerance(a, 1, x, "linalg.pinv")?, tolerance(a, 2, x, "linalg.pinv")?);
            Ok(pinv(x, p, r, a.bool(3)?)?.into())
        };
        "A: Tensor, rcond: Operand, hermitian: bool = False",
        |a| Ok(pinv(a.tensor(0)?, None, tolerance(a, 1, a.tensor(0)?, "linalg.pinv")?, a.bool(2)?)?.into())
    );
    op!(
        list,
        "pinverse",
        FUNCTION | METHOD,
        "The Moore-Penrose inverse: `linalg.pinv` with `rtol=rcond`.",
        "input: Tensor, rcond: float = 1e-15",
        |a| Ok(pinv(a.tensor(0)?, None, tolerance(a, 1, a.tensor(0)?, "pinverse")?, false)?.into())
    );
    op!(
        list,
        "matrix_rank",
        FUNCTION | OUT,
        ns = "linalg",
        "The number of singular values above `max(atol, rtol * largest)`. `hermitian=True` uses eigenvalues instead.",
        "A: Tensor, *, atol: Operand? = None, rtol: Operand? = None, hermitian: bool = False",
        |a| {
            let (x, op) = (a.tensor(0)?, "torch.linalg.matrix_rank");
            Ok(matrix_rank(x, tolerance(a, 1, x, op)?, tolerance(a, 2, x, op)?, a.bool(3)?)?.into())
        };
        "A: Tensor, tol: Operand, hermitian: bool = False",
        |a| {
            let (x, op) = (a.tensor(0)?, "torch.linalg.matrix_rank");
            let zero = Tensor::scalar(Scalar::Int(0), x.dtype().real(), x.device())?;
            Ok(matrix_rank(x, tolerance(a, 1, x, op)?, Some(zero), a.bool(2)?)?.into())
        }
    );
}
