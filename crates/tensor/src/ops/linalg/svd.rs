//! The singular value decomposition and its gradient.

use super::*;
use crate::autograd::{Ctx, Save, needs_grad};
use crate::op;
use smallvec::smallvec;

/// `U`, `S`, `Vh`.
pub(super) fn svd(op: &str, a: &Tensor, full: bool) -> Result<(Tensor, Tensor, Tensor)> {
    matrix(op, a, "A")?;
    floating("linalg.svd", a)?;
    let (s, uv) = kernel::svd("linalg.svd", &a.detach(), true, full)?;
    let Some((u, v)) = uv else { return unknown(op, "no vectors were computed") };
    let vh = mh(&v)?;
    if needs_grad(&[a]) {
        let save = [Save::Output(0), Save::Output(1), Save::Output(2)];
        autograd::attach("LinalgSvdBackward0", &[a], &[&u, &s, &vh], &save, |cx| {
            Ok(smallvec![Some(backward(cx)?)])
        });
    }
    Ok((u, s, vh))
}

/// In the basis of singular vectors the gradient is: that of S on the diagonal; off it, the rotations
/// of U and V weighted by 1 / (s_k^2 - s_j^2); and what leaves the span of U (or V) is divided by s.
/// With `full_matrices` only the first vectors count: the others are not determined by the matrix.
fn backward(cx: &Ctx) -> Result<Tensor> {
    let (s, complex) = (cx.saved(1)?, cx.saved(0)?.dtype().is_complex());
    let k = s.shape()[s.ndim() - 1];
    let (u, vh) = (cols(cx.saved(0)?, 0, k)?, rows(cx.saved(2)?, 0, k)?);
    let (m, n) = (rows_cols(&u).0, rows_cols(&vh).1);
    let gs = if cx.grads[1].is_some() { Some(cx.grad(1)?) } else { None };
    let gu = if cx.grads[0].is_some() { Some(cols(&cx.grad(0)?, 0, k)?) } else { None };
    let gvh = if cx.grads[2].is_some() { Some(rows(&cx.grad(2)?, 0, k)?) } else { None };
    let typed = |t: &Tensor| ops::to_dtype(t, u.dtype());
    if gu.is_none() && gvh.is_none() {
        let gs = cx.grad(1)?;
        return if m >= n { mm(&u, &scale_rows(&vh, &gs)?) } else { mm(&scale_columns(&u, &gs)?, &vh) };
    }
    let skew = |x: Tensor| -> Result<Tensor> { ops::sub(&x, &mh(&x)?) };
    let s2 = ops::mul(s, s)?;
    let gaps = ops::sub(&ops::unsqueeze(&s2, -2)?, &ops::unsqueeze(&s2, -1)?)?;
    let gaps = ops::where_(&on_diagonal(k, s.device())?, 1.0, &gaps)?;
    let ru = match &gu {
        Some(g) => Some(skew(mm(&mh(&u)?, g)?)?),
        None => None,
    };
    let rv = match &gvh {
        Some(g) => Some(skew(mm(&vh, &mh(g)?)?)?),
        None => None,
    };
    let mut inner = None;
    if let Some(r) = &ru {
        inner = Some(scale_columns(r, s)?);
    }
    if let Some(r) = &rv {
        inner = Some(plus(inner, scale_rows(r, s)?)?);
    }
    let Some(inner) = inner else { return unknown("linalg.svd", "no gradient arrived") };
    let mut inner = ops::div(&inner, &gaps)?;
    if let Some(g) = &gs {
        inner = ops::add(&inner, &typed(&diag_embed(g)?)?)?;
    }
    if complex && let (Some(r), true) = (&ru, rv.is_some()) {
        // A common phase of a pair of vectors is free; what turns one against the other is not.
        let turn = ops::div(&diagonal(r)?, &ops::mul(s, 2.0)?)?;
        inner = ops::add(&inner, &diag_embed(&turn)?)?;
    }
    if m > k
        && let Some(g) = &gu
    {
        let by_s = ops::div(g, &ops::unsqueeze(s, -2)?)?;
        let out = ops::sub(&by_s, &mm(&u, &mm(&mh(&u)?, &by_s)?)?)?;
        return mm(&ops::add(&mm(&u, &inner)?, &out)?, &vh);
    }
    if n > k
        && let Some(g) = &gvh
    {
        let by_s = ops::div(g, &ops::unsqueeze(s, -1)?)?;
        let out = ops::sub(&by_s, &mm(&mm(&by_s, &mh(&vh)?)?, &vh)?)?;
        return mm(&u, &ops::add(&mm(&inner, &vh)?, &out)?);
    }
    if m >= n { mm(&u, &mm(&inner, &vh)?) } else { mm(&mm(&u, &inner)?, &vh) }
}

pub(super) fn svdvals(a: &Tensor) -> Result<Tensor> {
    matrix("linalg.svd", a, "A")?;
    floating("linalg.svd", a)?;
    if needs_grad(&[a]) {
        return Ok(svd("linalg.svd", a, false)?.1);
    }
    Ok(kernel::svd("linalg.svd", &a.detach(), false, false)?.0)
}

fn no_driver(a: &crate::registry::Args, i: usize) -> Result<()> {
    match a.str_opt(i)? {
        None => Ok(()),
        Some(_) => bail!(
            Runtime,
            "linalg.svd: keyword argument `driver=` is only supported on CUDA inputs with cuSOLVER backend."
        ),
    }
}

/// The older form, which gives V instead of its adjoint.
fn old(a: &Tensor, some: bool, vectors: bool) -> Result<Vec<Tensor>> {
    if !vectors {
        let s = svdvals(a)?;
        let (m, n) = rows_cols(a);
        let zeros = |n| Tensor::zeros(&joined(batch_of(a), &[n, n]), a.dtype(), a.device());
        return Ok(vec![zeros(m)?, s, zeros(n)?]);
    }
    let (u, s, vh) = svd("linalg.svd", a, !some)?;
    Ok(vec![u, s, mh(&vh)?])
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "svd",
        FUNCTION | OUT,
        ns = "linalg",
        "`A = U @ diag(S) @ Vh`, singular values in descending order; with `full_matrices=False` only the first min(m, n) vectors.",
        "A: Tensor, full_matrices: bool = True, *, driver: str? = None",
        |a| {
            no_driver(a, 2)?;
            let (u, s, vh) = svd("linalg.svd", a.tensor(0)?, a.bool(1)?)?;
            Ok(Value::Named("linalg_svd", &["U", "S", "Vh"], vec![u, s, vh]))
        }
    );
    op!(
        list,
        "svdvals",
        FUNCTION | OUT,
        ns = "linalg",
        "The singular values, in descending order.",
        "A: Tensor, *, driver: str? = None",
        |a| {
            no_driver(a, 1)?;
            Ok(svdvals(a.tensor(0)?)?.into())
        }
    );
    op!(
        list,
        "svd",
        FUNCTION | METHOD | OUT,
        "The singular value decomposition `input = U @ diag(S) @ V.mH` (older form of `linalg.svd`).",
        "input: Tensor, some: bool = True, compute_uv: bool = True",
        |a| Ok(Value::Named("svd", &["U", "S", "V"], old(a.tensor(0)?, a.bool(1)?, a.bool(2)?)?))
    );
}
