//! QR and products of Householder reflectors.

use super::*;
use crate::autograd::{Save, needs_grad};
use crate::op;
use smallvec::smallvec;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Reduced,
    Complete,
    R,
}

fn mode(s: &str) -> Result<Mode> {
    Ok(match s {
        "reduced" => Mode::Reduced,
        "complete" => Mode::Complete,
        "r" => Mode::R,
        s => bail!(
            Runtime,
            "qr received unrecognized mode '{s}' but expected one of 'reduced' (default), 'r', or 'complete'"
        ),
    })
}

/// Q (empty in mode "r") and R.
fn qr(a: &Tensor, how: Mode) -> Result<(Tensor, Tensor)> {
    let op = "linalg.qr";
    matrix(op, a, "A")?;
    floating(op, a)?;
    let (m, n) = rows_cols(a);
    let k = if how == Mode::Complete { m } else { m.min(n) };
    let (q, r) = kernel::qr(op, &a.detach(), k, how != Mode::R)?;
    let Some(q) = q else {
        let q = nothing(a.dtype(), a.device())?;
        if needs_grad(&[a]) {
            autograd::attach("LinalgQrBackward0", &[a], &[&r], &[], |_| {
                bail!(
                    Runtime,
                    "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. Please use linalg.qr(A, mode='reduced') if you are going to call backward."
                )
            });
        }
        return Ok((q, r));
    };
    if needs_grad(&[a]) {
        let save = [Save::Input(a), Save::Output(0), Save::Output(1)];
        autograd::attach("LinalgQrBackward0", &[a], &[&q, &r], &save, move |cx| {
            ensure!(
                how == Mode::Reduced || m <= n,
                Runtime,
                "The QR decomposition is not differentiable when mode='complete' and nrows > ncols."
            );
            let (a, q, r) = (cx.saved(0)?, cx.saved(1)?, cx.saved(2)?);
            let (gq, gr) = (cx.grad(0)?, cx.grad(1)?);
            if m >= n {
                return Ok(smallvec![Some(tall(q, r, &gq, &gr)?)]);
            }
            // A = [X Y], R = [U V]: X = Q U, and V = Q^H Y adds to Q's gradient.
            let gv = cols(&gr, m, n)?;
            let gq = ops::add(&gq, &mm(&cols(a, m, n)?, &mh(&gv)?)?)?;
            let gx = tall(q, &cols(r, 0, m)?, &gq, &cols(&gr, 0, m)?)?;
            Ok(smallvec![Some(ops::shape::cat(&[gx, mm(q, &gv)?], -1)?)])
        });
    }
    Ok((q, r))
}

/// The gradient for `rows >= cols`: `(gQ + Q H) R^-H`, where the Hermitian H continues the upper
/// triangle of `gR R^H - Q^H gQ`.
fn tall(q: &Tensor, r: &Tensor, gq: &Tensor, gr: &Tensor) -> Result<Tensor> {
    let x = ops::sub(&mm(gr, &mh(r)?)?, &mm(&mh(q)?, gq)?)?;
    let up = ops::triu(&x, 1)?;
    let d = real(&diagonal(&x)?)?;
    let d = ops::to_dtype(&diag_embed(&d)?, x.dtype())?;
    let h = ops::add(&ops::add(&up, &mh(&up)?)?, &d)?;
    let b = ops::add(gq, &mm(q, &h)?)?;
    mh(&solve::triangular(r, &mh(&b)?, true, false)?)
}

fn named(name: &'static str, v: (Tensor, Tensor)) -> Value {
    Value::Named(name, &["Q", "R"], vec![v.0, v.1])
}

/// The reflectors' vectors (unit lower trapezoidal, m x k) and the upper triangular T with
/// `H1 H2 .. Hk = I - V T V^H`: `T = (I + D S)^-1 D`, with D the factors and S the strict upper part of
/// `V^H V` (which needs no loop over the reflectors, and no division by a zero factor).
fn compact(a: &Tensor, tau: &Tensor) -> Result<(Tensor, Tensor)> {
    let m = rows_cols(a).0;
    let k = tau.shape()[tau.ndim() - 1];
    let v = ops::add(&ops::tril(&cols(a, 0, k)?, -1)?, &eye(m, k, a)?)?;
    let s = ops::triu(&mm(&mh(&v)?, &v)?, 1)?;
    let system = scale_rows(&s, tau)?;
    let t = solve::triangular(&system, &diag_embed(tau)?, true, true)?;
    Ok((v, t))
}

fn check_reflectors(op: &str, a: &Tensor, tau: &Tensor) -> Result<()> {
    matrix(op, a, "input")?;
    floating(op, a)?;
    let (m, n) = rows_cols(a);
    ensure!(m >= n, Runtime, "{op}: input.shape[-2] must be greater than or equal to input.shape[-1]");
    ensure!(
        tau.ndim() + 1 == a.ndim() && tau.shape()[..tau.ndim() - 1] == *batch_of(a),
        Runtime,
        "{op}: Expected tau to have one dimension less than input and the same batch, but got tau of shape {:?} and input of shape {:?}",
        tau.shape(),
        a.shape()
    );
    ensure!(
        n >= tau.shape()[tau.ndim() - 1],
        Runtime,
        "{op}: input.shape[-1] must be greater than or equal to tau.shape[-1]"
    );
    ensure!(
        a.dtype() == tau.dtype(),
        Runtime,
        "{op}: tau dtype {} does not match input dtype {}",
        tau.dtype().legacy_name(),
        a.dtype().legacy_name()
    );
    Ok(())
}

/// The first columns of `H1 H2 .. Hk`.
fn householder_product(a: &Tensor, tau: &Tensor) -> Result<Tensor> {
    check_reflectors("torch.linalg.householder_product", a, tau)?;
    let (m, n) = rows_cols(a);
    let (v, t) = compact(a, tau)?;
    let head = mh(&rows(&v, 0, n)?)?;
    ops::sub(&eye(m, n, a)?, &mm(&v, &mm(&t, &head)?)?)
}

/// The product of reflectors, or its adjoint, times a matrix.
fn ormqr(a: &Tensor, tau: &Tensor, c: &Tensor, left: bool, transpose: bool) -> Result<Tensor> {
    let op = "torch.ormqr";
    ensure!(a.ndim() >= 2, Runtime, "{op}: input must have at least 2 dimensions.");
    ensure!(c.ndim() >= 2, Runtime, "{op}: other must have at least 2 dimensions.");
    floating(op, a)?;
    let (m, n) = rows_cols(a);
    let k = tau.shape().last().copied().unwrap_or(0);
    let (rc, cc) = rows_cols(c);
    let (side, dim) = if left { (rc, "-2") } else { (cc, "-1") };
    ensure!(side == m, Runtime, "{op}: other.shape[{dim}] must be equal to input.shape[-2] ({side} and {m})");
    ensure!(
        k <= n && k <= m && tau.ndim() + 1 == a.ndim() && tau.shape()[..tau.ndim() - 1] == *batch_of(a),
        Runtime,
        "{op}: tau of shape {:?} does not fit input of shape {:?}",
        tau.shape(),
        a.shape()
    );
    ensure!(
        a.dtype() == tau.dtype() && a.dtype() == c.dtype(),
        Runtime,
        "{op}: Expected input, tau and other to have the same dtype, got {}, {} and {}",
        a.dtype().legacy_name(),
        tau.dtype().legacy_name(),
        c.dtype().legacy_name()
    );
    let (v, t) = compact(a, tau)?;
    let t = if transpose { mh(&t)? } else { t };
    let vh = mh(&v)?;
    match left {
        true => ops::sub(c, &mm(&v, &mm(&t, &mm(&vh, c)?)?)?),
        false => ops::sub(c, &mm(&mm(&mm(c, &v)?, &t)?, &vh)?),
    }
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "qr",
        FUNCTION | OUT,
        ns = "linalg",
        "`A = Q @ R` with orthonormal columns and an upper triangle. `mode`: 'reduced' (min(m, n) columns), 'complete' (m columns), 'r' (no Q).",
        "A: Tensor, mode: str = 'reduced'",
        |a| Ok(named("linalg_qr", qr(a.tensor(0)?, mode(a.str(1)?)?)?))
    );
    op!(
        list,
        "qr",
        FUNCTION | METHOD | OUT,
        "The QR decomposition (older form of `linalg.qr`).",
        "input: Tensor, some: bool = True",
        |a| {
            let how = if a.bool(1)? { Mode::Reduced } else { Mode::Complete };
            Ok(named("qr", qr(a.tensor(0)?, how)?))
        }
    );
    op!(
        list,
        "geqrf",
        FUNCTION | METHOD | OUT,
        "The QR decomposition as reflectors: R above, their vectors below the diagonal, and their factors, for `householder_product` and `ormqr`.",
        "input: Tensor",
        |a| {
            let x = a.tensor(0)?;
            matrix("torch.geqrf", x, "input")?;
            floating("torch.geqrf", x)?;
            let (f, tau) = kernel::geqrf(&x.detach())?;
            if needs_grad(&[x]) {
                autograd::attach("GeqrfBackward0", &[x], &[&f, &tau], &[], |_| {
                    bail!(NotImplemented, "the derivative for 'geqrf' is not implemented.")
                });
            }
            Ok(Value::Named("geqrf", &["a", "tau"], vec![f, tau]))
        }
    );
    op!(
        list,
        "householder_product",
        FUNCTION | OUT,
        ns = "linalg",
        "The first columns of a product of reflectors `I - tau v v^H`, whose vectors lie below the diagonal of `A` (as `geqrf` gives them).",
        "A: Tensor, tau: Tensor",
        |a| Ok(householder_product(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "orgqr",
        FUNCTION | METHOD | OUT,
        "The first columns of a product of reflectors: `linalg.householder_product`.",
        "input: Tensor, tau: Tensor",
        |a| Ok(householder_product(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "ormqr",
        FUNCTION | METHOD | OUT,
        "`other` multiplied by the Q of `geqrf`, from the left or right, or by its adjoint.",
        "input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False",
        |a| Ok(ormqr(a.tensor(0)?, a.tensor(1)?, a.tensor(2)?, a.bool(3)?, a.bool(4)?)?.into())
    );
}

/// Q of the reduced decomposition.
pub(super) fn reduced(a: &Tensor) -> Result<Tensor> {
    Ok(qr(a, Mode::Reduced)?.0)
}
