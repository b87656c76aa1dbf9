//! Complex numbers: parts, conjugates, magnitude and angle, and the views between complex tensors and
//! their real and imaginary parts. Rows of the op table that take complex numbers need nothing here;
//! gradients follow PyTorch (the conjugate Wirtinger derivative: the direction of steepest descent).

use super::Operand;
use super::view::track_view;
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Op, Value};
use crate::tensor::{Lazy, Tensor};
use pyrite_core::rows::table::id;
use pyrite_core::rows::{Row, flag};
use pyrite_core::{DType, Layout, Result, Scalar, bail, ensure};
use smallvec::{SmallVec, smallvec};

const I: Scalar = Scalar::Complex(0.0, 1.0);

/// Refuses a number that a dtype can't hold: a complex one for a real dtype, one beyond `i64` for an
/// integer dtype that is not uint64.
#[inline]
pub fn check_number(op: &str, s: Scalar, d: DType) -> Result<()> {
    let lost = match s {
        Scalar::Complex(_, im) => im != 0.0 && !d.is_complex(),
        Scalar::UInt(_) => d.is_int() && d != DType::U64,
        _ => false,
    };
    ensure!(!lost, Runtime, "{op}: value cannot be converted to type {} without overflow", d.name());
    Ok(())
}

// ---- parts and views ----------------------------------------------------------------------------

/// The layout of a complex tensor's parts: one more dimension of size 2, counted in reals.
pub fn parts_layout(l: &Layout) -> Layout {
    let shape: SmallVec<[usize; 6]> = l.shape().iter().copied().chain([2]).collect();
    let strides: SmallVec<[isize; 6]> = l.strides().iter().map(|s| 2 * s).chain([1]).collect();
    Layout::new(shape.as_slice(), strides.as_slice(), 2 * l.offset())
}

/// The other way round; `None` where pairs do not lie as complex numbers do.
fn paired_layout(l: &Layout) -> Option<Layout> {
    let (n, s) = (l.shape().split_last()?, l.strides().split_last()?);
    let even = s.1.iter().zip(n.1).all(|(s, n)| s % 2 == 0 || *n <= 1);
    if *n.0 != 2 || *s.0 != 1 || !even || !l.offset().is_multiple_of(2) {
        return None;
    }
    let strides: SmallVec<[isize; 6]> = s.1.iter().map(|s| s / 2).collect();
    Some(Layout::new(n.1, strides.as_slice(), l.offset() / 2))
}

/// The parts in memory, untracked.
fn parts(t: &Tensor) -> Tensor {
    Tensor::from_parts(t.storage().clone(), parts_layout(t.layout()), t.dtype().real())
}

/// A complex tensor as a real one with a last dimension of size 2: a view.
pub fn view_as_real(t: &Tensor) -> Result<Tensor> {
    ensure!(
        t.dtype().is_complex(),
        Runtime,
        "view_as_real is only supported for complex tensors, got dtype {}",
        t.dtype()
    );
    ensure!(
        !t.is_lazy(),
        Runtime,
        "view_as_real doesn't work on unresolved conjugated tensors.  To resolve the conjugate tensor so you can view it as real, use self.resolve_conj(); however, be warned that the resulting tensor will NOT alias the original."
    );
    Ok(track_view("ViewAsRealBackward0", t, parts(t), |g, _| to_complex(g)))
}

/// Pairs along the last dimension as complex numbers: a view.
pub fn view_as_complex(t: &Tensor) -> Result<Tensor> {
    ensure!(
        matches!(t.dtype(), DType::F32 | DType::F64),
        Runtime,
        "view_as_complex is only supported for float and double tensors, but got a tensor of scalar type: {}",
        t.dtype().name()
    );
    ensure!(
        t.shape().last() == Some(&2),
        Runtime,
        "view_as_complex: Tensor must have a last dimension of size 2, got shape {:?}",
        t.shape()
    );
    let Some(layout) = paired_layout(t.layout()) else {
        bail!(
            Runtime,
            "view_as_complex: Tensor must have a last dimension with stride 1, a stride divisible by 2 for all but last dimension and a storage_offset divisible by 2 (strides {:?}, offset {})",
            t.strides(),
            t.layout().offset()
        )
    };
    ensure!(
        !t.is_lazy(),
        Runtime,
        "view_as_complex doesn't work on unresolved negated tensors; use resolve_neg()"
    );
    let v = Tensor::from_parts(t.storage().clone(), layout, t.dtype().complex());
    Ok(track_view("ViewAsComplexBackward0", t, v, |g, _| view_as_real(g)))
}

/// As [`view_as_complex`], by a copy where the memory does not fit.
pub fn to_complex(t: &Tensor) -> Result<Tensor> {
    if paired_layout(t.layout()).is_some() {
        return view_as_complex(t);
    }
    view_as_complex(&super::clone_format(t, crate::MemoryFormat::Contiguous)?)
}

/// The real part as a view; a real tensor itself.
pub fn real(t: &Tensor) -> Result<Tensor> {
    if !t.dtype().is_complex() {
        return Ok(t.clone());
    }
    part(t, 0)
}

/// The imaginary part as a view.
pub fn imag(t: &Tensor) -> Result<Tensor> {
    ensure!(t.dtype().is_complex(), Runtime, "imag is not implemented for tensors with non-complex dtypes.");
    part(t, 1)
}

/// Part 0 (real) or 1 (imaginary); of a conjugate the latter is marked as negative.
fn part(t: &Tensor, k: i64) -> Result<Tensor> {
    let layout = parts_layout(t.layout()).select(t.ndim(), k)?;
    let v = Tensor::from_parts(t.storage().clone(), layout, t.dtype().real());
    let l = t.lazy();
    let v = v.marked(Lazy { conj: false, neg: l.neg ^ (l.conj && k == 1) });
    let name = if k == 0 { "RealBackward0" } else { "ImagBackward0" };
    Ok(track_view(name, t, v, move |g, _| {
        let zero = Tensor::zeros(g.shape(), g.dtype(), g.device())?;
        if k == 0 { complex(g, &zero) } else { complex(&zero, g) }
    }))
}

/// The conjugate, computed; a real tensor itself.
pub fn conj_now(t: &Tensor) -> Result<Tensor> {
    if t.dtype().is_complex() { super::conj_physical(t) } else { Ok(t.clone()) }
}

/// The conjugate as a marked view (`ops::lazy`); a real tensor itself.
pub fn conj(t: &Tensor) -> Result<Tensor> {
    if !t.dtype().is_complex() {
        return Ok(t.clone());
    }
    let v = t.marked(t.lazy().with(Lazy { conj: true, neg: false }));
    Ok(track_view("ConjBackward0", t, v, |g, _| conj_now(g)))
}

/// The complex tensor with these parts.
pub fn complex(re: &Tensor, im: &Tensor) -> Result<Tensor> {
    let ok = |t: &Tensor| matches!(t.dtype(), DType::F32 | DType::F64);
    ensure!(
        ok(re) && ok(im),
        Runtime,
        "Expected both inputs to be Float or Double tensors but got {} and {}",
        re.dtype().name(),
        im.dtype().name()
    );
    ensure!(
        re.dtype() == im.dtype(),
        Runtime,
        "Expected object of scalar type {} but got scalar type {} for second argument",
        re.dtype().name(),
        im.dtype().name()
    );
    let shape = pyrite_core::layout::broadcast("complex", re.shape(), im.shape())?;
    let y = Tensor::empty(&shape, re.dtype().complex(), re.device())?;
    {
        let _off = autograd::GradMode::new(false);
        super::copy_raw(&real(&y)?, re)?;
        super::copy_raw(&imag(&y)?, im)?;
    }
    let y = y.alias();
    if needs_grad(&[re, im]) {
        autograd::attach("ComplexBackward0", &[re, im], &[&y], &[], |cx| {
            let g = cx.grad(0)?;
            let re = if cx.needs(0) { Some(real(&g)?) } else { None };
            let im = if cx.needs(1) { Some(imag(&g)?) } else { None };
            Ok(smallvec![re, im])
        });
    }
    Ok(y)
}

/// `abs * (cos(angle) + i sin(angle))`.
fn polar(abs: &Tensor, angle: &Tensor) -> Result<Tensor> {
    ensure!(
        abs.dtype() == angle.dtype() && abs.dtype().is_float(),
        Runtime,
        "polar: Expected both inputs to be of one floating dtype but got {} and {}",
        abs.dtype().name(),
        angle.dtype().name()
    );
    complex(&super::mul(abs, &super::cos(angle)?)?, &super::mul(abs, &super::sin(angle)?)?)
}

// ---- functions of the parts ---------------------------------------------------------------------

/// The magnitude of a complex tensor; real.
fn abs_raw(t: &Tensor) -> Result<Tensor> {
    let t = t.detach();
    super::hypot(&real(&t)?, &imag(&t)?)
}

fn abs(t: &Tensor) -> Result<Tensor> {
    let y = abs_raw(t)?;
    if needs_grad(&[t]) {
        autograd::attach("AbsBackward0", &[t], &[&y], &[Save::Input(t)], |cx| {
            Ok(smallvec![Some(super::mul(&cx.grad(0)?, &sgn(cx.saved(0)?)?)?)])
        });
    }
    Ok(y)
}

/// `t / |t|`, 0 at 0; the sign of a real tensor.
pub fn sgn(t: &Tensor) -> Result<Tensor> {
    if !t.dtype().is_complex() {
        return super::sign(t);
    }
    let a = abs_raw(t)?;
    let zero = super::eq(&a, 0.0)?;
    let a = super::masked_fill(&a, &zero, 1.0.into())?;
    // Part by part: a complex quotient makes NaN of both where one is infinite.
    let parts = view_as_real(&super::lazy::resolve(&t.detach())?)?;
    let y = to_complex(&super::div(&parts, &super::unsqueeze(&a, -1)?)?)?.detach();
    if needs_grad(&[t]) {
        autograd::attach("SgnBackward0", &[t], &[&y], &[Save::Input(t)], |cx| {
            // g / |x| without its part along s = x / |x|: moving along s changes nothing.
            let x = cx.saved(0)?;
            let a = super::abs(x)?;
            let zero = super::eq(&a.detach(), 0.0)?;
            let g = super::div(&cx.grad(0)?, &super::masked_fill(&a, &zero, 1.0.into())?)?;
            let s = sgn(x)?;
            let along = real(&super::mul(&g, &conj_now(&s)?)?)?;
            let d = super::sub(&g, &super::mul(&along, &s)?)?;
            Ok(smallvec![Some(super::masked_fill(&d, &zero, 0.0.into())?)])
        });
    }
    Ok(y)
}

/// The angle in radians; of real numbers 0 or pi.
fn angle(t: &Tensor) -> Result<Tensor> {
    if !t.dtype().is_complex() {
        let x = if t.dtype().is_float() { t.clone() } else { super::to_dtype(t, DType::default_float())? };
        let d = x.detach();
        let y = super::mul(&super::to_dtype(&super::lt(&d, 0.0)?, x.dtype())?, std::f64::consts::PI)?;
        let y = super::where_(&super::isnan(&d)?, &d, &y)?;
        if needs_grad(&[&x]) {
            autograd::attach("AngleBackward0", &[&x], &[&y], &[], |cx| {
                let g = cx.grad(0)?;
                Ok(smallvec![Some(Tensor::zeros(g.shape(), g.dtype(), g.device())?)])
            });
        }
        return Ok(y);
    }
    let d = t.detach();
    let y = super::atan2(&imag(&d)?, &real(&d)?)?;
    if needs_grad(&[t]) {
        autograd::attach("AngleBackward0", &[t], &[&y], &[Save::Input(t)], |cx| {
            // i x / |x|^2, 0 at 0.
            let x = cx.saved(0)?;
            let a = super::abs(x)?;
            let zero = super::eq(&a.detach(), 0.0)?;
            let a = super::masked_fill(&a, &zero, 1.0.into())?;
            let turned = super::mul(&super::div(&super::div(x, &a)?, &a)?, Operand::Number(I))?;
            Ok(smallvec![Some(super::mul(&cx.grad(0)?, &turned)?)])
        });
    }
    Ok(y)
}

fn isreal(t: &Tensor) -> Result<Tensor> {
    if t.dtype().is_complex() {
        return super::eq(&imag(&t.detach())?, 0.0);
    }
    Tensor::full(t.shape(), Scalar::Bool(true), DType::Bool, t.device())
}

/// `x * 2 ** other` for a complex `x`.
fn ldexp(x: &Tensor, ops: &[Operand]) -> Result<Tensor> {
    let exponent = match ops.get(1) {
        Some(Operand::Tensor(b)) => (*b).clone(),
        Some(Operand::Number(n)) => Tensor::scalar(*n, x.dtype(), x.device())?,
        None => bail!(Type, "ldexp(): the exponent is missing"),
    };
    let two = Operand::Number(Scalar::Float(2.0));
    super::mul(x, &super::elementwise::run(id::POW.row(), &[two, (&exponent).into()], &[])?)
}

/// A row whose flag says that complex inputs are computed from their parts; `None` for real ones.
pub(super) fn from_parts(row: &Row, ops: &[Operand]) -> Option<Result<Tensor>> {
    let Some(Operand::Tensor(t)) = ops.first() else { return None };
    if !row.has(flag::PARTS) || !t.dtype().is_complex() {
        return None;
    }
    let both = |f: fn(&Tensor) -> Result<Tensor>, join: fn(&Tensor, &Tensor) -> Result<Tensor>| {
        let d = t.detach();
        join(&f(&real(&d)?)?, &f(&imag(&d)?)?)
    };
    Some(match row.id {
        id::ABS => abs(t),
        id::LDEXP => ldexp(t, ops),
        id::SOFTSIGN => abs(t).and_then(|a| super::div(*t, &super::add(&a, 1.0)?)),
        id::ISINF => both(super::isinf, |a, b| super::logical_or(a, b)),
        id::ISFINITE => both(super::isfinite, |a, b| super::logical_and(a, b)),
        _ => return None,
    })
}

/// A product of `x` and `w` with a bias, on complex operands from four products of their parts.
pub(super) fn bilinear(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    f: impl Fn(&Tensor, &Tensor, Option<&Tensor>) -> Result<Tensor>,
) -> Result<Tensor> {
    if !x.dtype().is_complex() || !w.dtype().is_complex() {
        return f(x, w, bias);
    }
    let part = |t: &Tensor| Ok::<_, pyrite_core::Error>((real(t)?, imag(t)?));
    let ((xr, xi), (wr, wi)) = (part(x)?, part(w)?);
    let (br, bi) = match bias {
        Some(b) if b.dtype().is_complex() => (Some(real(b)?), Some(imag(b)?)),
        b => (b.cloned(), None),
    };
    let re = super::sub(&f(&xr, &wr, br.as_ref())?, &f(&xi, &wi, None)?)?;
    let im = super::add(&f(&xr, &wi, bi.as_ref())?, &f(&xi, &wr, None)?)?;
    complex(&re, &im)
}

// ---- transposes ---------------------------------------------------------------------------------

/// The conjugate transpose of the last two dimensions.
pub fn adjoint(t: &Tensor) -> Result<Tensor> {
    conj(&super::transpose(t, -2, -1)?)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "_neg_view",
        FUNCTION,
        "The negative as a view that is marked: its elements are negated when they are read.",
        "input: Tensor",
        |a| {
            let t = a.tensor(0)?;
            let v = t.marked(t.lazy().with(Lazy { conj: false, neg: true }));
            Ok(track_view("NegViewBackward0", t, v, |g, _| super::neg(g)).into())
        }
    );
    op!(
        list,
        "view_as_real",
        FUNCTION,
        "A view of a complex tensor as a real one with a last dimension of size 2 (real, imaginary).",
        "input: Tensor",
        |a| Ok(view_as_real(a.tensor(0)?)?.into())
    );
    op!(
        list,
        "view_as_complex",
        FUNCTION,
        "A view of pairs along the last dimension (of size 2 and stride 1) as complex numbers.",
        "input: Tensor",
        |a| Ok(view_as_complex(a.tensor(0)?)?.into())
    );
    op!(list, "real", FUNCTION, "The real part as a view; a real tensor itself.", "input: Tensor", |a| Ok(
        real(a.tensor(0)?)?.into()
    ));
    op!(list, "imag", FUNCTION, "The imaginary part of a complex tensor, as a view.", "input: Tensor", |a| {
        Ok(imag(a.tensor(0)?)?.into())
    });
    op!(
        list,
        "complex",
        FUNCTION | OUT,
        "The complex tensor with the given real and imaginary parts (both float32 or both float64).",
        "real: Tensor, imag: Tensor",
        |a| Ok(complex(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "polar",
        FUNCTION | OUT,
        "The complex tensor with the given magnitudes and angles in radians.",
        "abs: Tensor, angle: Tensor",
        |a| Ok(polar(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "angle",
        FUNCTION | METHOD | OUT,
        "The angle of each number in radians; 0 or pi for real ones.",
        "input: Tensor",
        |a| Ok(angle(a.tensor(0)?)?.into())
    );
    op!(
        list,
        "sgn",
        FUNCTION | METHOD | OUT,
        "`x / |x|` for complex numbers (0 at 0), the sign for real ones.",
        "input: Tensor",
        |a| Ok(sgn(a.tensor(0)?)?.into())
    );
    op!(list, "sgn_", METHOD, "In-place `sgn`.", "input: Tensor", |a| {
        super::copy_(a.tensor(0)?, &sgn(a.tensor(0)?)?)?;
        Ok(Value::Receiver)
    });
    op!(
        list,
        "isreal",
        FUNCTION | METHOD,
        "True where the imaginary part is zero.",
        "input: Tensor",
        |a| Ok(isreal(a.tensor(0)?)?.into())
    );
    op!(
        list,
        "conj",
        FUNCTION | METHOD,
        "The complex conjugate as a view that is marked: its elements are conjugated when they are read. A real tensor itself.",
        "input: Tensor",
        |a| Ok(conj(a.tensor(0)?)?.into())
    );
    op!(
        list,
        "adjoint",
        FUNCTION | METHOD,
        "The conjugate transpose of the last two dimensions.",
        "input: Tensor",
        |a| {
            let t = a.tensor(0)?;
            ensure!(
                t.ndim() >= 2,
                Runtime,
                "adjoint: tensor.adjoint() is only supported on matrices or batches of matrices. Got {}-D tensor.",
                t.ndim()
            );
            Ok(adjoint(t)?.into())
        }
    );
    op!(list, "mH", PROPERTY, "The conjugate transpose of the last two dimensions.", "input: Tensor", |a| {
        let t = a.tensor(0)?;
        ensure!(
            t.ndim() >= 2,
            Runtime,
            "tensor.mH is only supported on matrices or batches of matrices. Got {}-D tensor.",
            t.ndim()
        );
        Ok(adjoint(t)?.into())
    });
    op!(list, "H", PROPERTY, "The conjugate transpose of a matrix.", "input: Tensor", |a| {
        let t = a.tensor(0)?;
        ensure!(
            t.ndim() == 0 || t.ndim() == 2,
            Runtime,
            "tensor.H is only supported on matrices (2-D tensors). Got {}-D tensor. For batches of matrices, consider using tensor.mH",
            t.ndim()
        );
        Ok(if t.ndim() == 0 { conj(t)? } else { adjoint(t)? }.into())
    });
}
