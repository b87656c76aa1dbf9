//! Matrix products: `mm`, `bmm`, `mv`, `dot`, `matmul`, `addmm` and relatives, `linear`. One kernel
//! family (GEMM with epilogue); gradients are matrix products again.

use super::Operand;
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::{Activation, Gemm};
use pyrite_core::layout::broadcast;
use pyrite_core::{Arr, Dims, Result, Scalar, bail, ensure, interrupt};
use smallvec::{SmallVec, smallvec};

fn check_types(op: &str, ts: &[&Tensor]) -> Result<()> {
    for t in &ts[1..] {
        ensure!(
            t.dtype() == ts[0].dtype(),
            Runtime,
            "{op}: expected {} and {} to have the same dtype, but got: {} != {}",
            "m1",
            "m2",
            ts[0].dtype().name(),
            t.dtype().name()
        );
        ensure!(
            t.device() == ts[0].device(),
            Runtime,
            "{op}: Expected all tensors to be on the same device, but found at least two devices, {} and {}!",
            ts[0].device(),
            t.device()
        );
    }
    ensure!(!ts[0].dtype().is_bool(), NotImplemented, "\"{op}\" not implemented for 'Bool'");
    Ok(())
}

/// [batch, rows, cols] of a 2-d or 3-d tensor.
fn three(t: &Tensor) -> ([usize; 3], [isize; 3]) {
    let (s, st) = (t.shape(), t.strides());
    match s.len() {
        2 => ([1, s[0], s[1]], [0, st[0], st[1]]),
        _ => ([s[0], s[1], s[2]], [st[0], st[1], st[2]]),
    }
}

/// `c = alpha * a @ b + beta * c + bias` without history; 2-d or 3-d operands. Nobody else sees `c` yet: a
/// product that is interrupted leaves it unfinished.
pub(super) fn gemm_raw(
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    bias: Option<&Tensor>,
    alpha: f64,
    beta: f64,
) -> Result<()> {
    if c.numel() == 0 {
        return Ok(());
    }
    let (ash, ast) = three(a);
    let (bsh, bst) = three(b);
    let (csh, cst) = three(c);
    if ash[2] == 0 {
        // An empty sum: only beta * c and the bias remain.
        if beta == 0.0 {
            c.backend()?.fill(c.arr(), Scalar::Int(0))?;
        } else if beta != 1.0 {
            super::copy_raw(c, &super::mul(&c.detach(), beta)?)?;
        }
        return match bias {
            Some(v) => super::add_assign_raw(c, v),
            None => Ok(()),
        };
    }
    if c.dtype().is_complex() && c.numel() * ash[2] >= 1 << 15 {
        return gemm_parts(a, b, c, bias, alpha, beta);
    }
    fn arr<'a>(t: &Tensor, shape: &'a [usize; 3], strides: &'a [isize; 3]) -> Arr<'a> {
        Arr { ptr: t.ptr(), dtype: t.dtype(), shape, strides }
    }
    let product = Gemm {
        a: arr(a, &ash, &ast),
        b: arr(b, &bsh, &bst),
        c: arr(c, &csh, &cst),
        bias: bias.map(Tensor::arr),
        alpha,
        beta,
        activation: Activation::None,
    };
    let backend = c.backend()?;
    let long = c.numel().saturating_mul(ash[2]) > 1 << 26;
    interrupt::stoppable_if(long, || backend.gemm(&product))
}

/// A large complex product as four real ones, whose kernel is many times faster than the plain loop.
fn gemm_parts(
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    bias: Option<&Tensor>,
    alpha: f64,
    beta: f64,
) -> Result<()> {
    let _off = autograd::GradMode::new(false);
    let split = |t: &Tensor| {
        let t = t.detach();
        Ok::<_, pyrite_core::Error>((
            super::contiguous(&super::complex::real(&t)?)?,
            super::contiguous(&super::complex::imag(&t)?)?,
        ))
    };
    let ((ar, ai), (br, bi)) = (split(a)?, split(b)?);
    let part = || Tensor::empty(c.shape(), c.dtype().real(), c.device());
    let (re, im) = (part()?, part()?);
    gemm_raw(&ar, &br, &re, None, alpha, 0.0)?;
    gemm_raw(&ai, &bi, &re, None, -alpha, 1.0)?;
    gemm_raw(&ar, &bi, &im, None, alpha, 0.0)?;
    gemm_raw(&ai, &br, &im, None, alpha, 1.0)?;
    let c = c.detach();
    for (of, from) in [(super::complex::real(&c)?, &re), (super::complex::imag(&c)?, &im)] {
        if beta != 0.0 {
            super::add_assign_raw(from, &super::mul(&of, beta)?)?;
        }
        super::copy_raw(&of, from)?;
    }
    match bias {
        Some(v) => super::add_assign_raw(&c, v),
        None => Ok(()),
    }
}

fn want_dims(op: &str, what: &str, t: &Tensor, n: usize) -> Result<()> {
    ensure!(
        t.ndim() == n,
        Runtime,
        "{op}: {what} must be a {n}D tensor, got a {}D tensor of shape {:?}",
        t.ndim(),
        t.shape()
    );
    Ok(())
}

pub fn mm(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    want_dims("mm", "self", a, 2)?;
    want_dims("mm", "mat2", b, 2)?;
    ensure!(
        a.shape()[1] == b.shape()[0],
        Shape,
        "mat1 and mat2 shapes cannot be multiplied ({}x{} and {}x{})",
        a.shape()[0],
        a.shape()[1],
        b.shape()[0],
        b.shape()[1]
    );
    check_types("mm", &[a, b])?;
    let c = Tensor::empty(&[a.shape()[0], b.shape()[1]], a.dtype(), a.device())?;
    gemm_raw(a, b, &c, None, 1.0, 0.0)?;
    if needs_grad(&[a, b]) {
        autograd::attach_any(
            "MmBackward0",
            &[a, b],
            &[&c],
            &[Save::Opt(wanted(a).then_some(b)), Save::Opt(wanted(b).then_some(a))],
            |cx| {
                let g = cx.grad(0)?;
                let da = if cx.needs(0) {
                    Some(matmul(&g, &super::conj_now(&super::t(cx.saved(0)?)?)?)?)
                } else {
                    None
                };
                let db = if cx.needs(1) {
                    Some(matmul(&super::conj_now(&super::t(cx.saved(1)?)?)?, &g)?)
                } else {
                    None
                };
                Ok(smallvec![da, db])
            },
        );
    }
    Ok(c)
}

/// The other factor is kept only if this one wants a gradient.
fn wanted(t: &Tensor) -> bool {
    autograd::flows(t)
}

pub fn bmm(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    want_dims("bmm", "batch1", a, 3)?;
    want_dims("bmm", "batch2", b, 3)?;
    ensure!(
        a.shape()[0] == b.shape()[0] && a.shape()[2] == b.shape()[1],
        Shape,
        "bmm: Expected size for first two dimensions of batch2 tensor to be: [{}, {}] but got: [{}, {}].",
        a.shape()[0],
        a.shape()[2],
        b.shape()[0],
        b.shape()[1]
    );
    check_types("bmm", &[a, b])?;
    let c = Tensor::empty(&[a.shape()[0], a.shape()[1], b.shape()[2]], a.dtype(), a.device())?;
    gemm_raw(a, b, &c, None, 1.0, 0.0)?;
    if needs_grad(&[a, b]) {
        autograd::attach_any(
            "BmmBackward0",
            &[a, b],
            &[&c],
            &[Save::Opt(wanted(a).then_some(b)), Save::Opt(wanted(b).then_some(a))],
            |cx| {
                let g = cx.grad(0)?;
                let adjoint = |i: usize| super::conj_now(&super::transpose(cx.saved(i)?, 1, 2)?);
                let da = if cx.needs(0) { Some(matmul(&g, &adjoint(0)?)?) } else { None };
                let db = if cx.needs(1) { Some(matmul(&adjoint(1)?, &g)?) } else { None };
                Ok(smallvec![da, db])
            },
        );
    }
    Ok(c)
}

pub fn mv(a: &Tensor, v: &Tensor) -> Result<Tensor> {
    want_dims("mv", "input", a, 2)?;
    want_dims("mv", "vec", v, 1)?;
    ensure!(
        a.shape()[1] == v.shape()[0],
        Shape,
        "size mismatch, got input ({}), mat ({}x{}), vec ({})",
        a.shape()[0],
        a.shape()[0],
        a.shape()[1],
        v.shape()[0]
    );
    super::reshape(&mm(a, &super::unsqueeze(v, 1)?)?, &[-1])
}

pub fn dot(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ensure!(
        a.ndim() == 1 && b.ndim() == 1,
        Runtime,
        "1D tensors expected, but got {}D and {}D tensors",
        a.ndim(),
        b.ndim()
    );
    ensure!(
        a.numel() == b.numel(),
        Shape,
        "inconsistent tensor size, expected tensor [{}] and src [{}] to have the same number of elements, but got {} and {} elements respectively",
        a.numel(),
        b.numel(),
        a.numel(),
        b.numel()
    );
    check_types("dot", &[a, b])?;
    super::reshape(&mm(&super::unsqueeze(a, 0)?, &super::unsqueeze(b, 1)?)?, &[])
}

/// `torch.matmul`'s rules for every rank.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.is_lazy() || b.is_lazy() {
        return matmul(&super::lazy::resolve(a)?, &super::lazy::resolve(b)?);
    }
    match (a.ndim(), b.ndim()) {
        (0, _) | (_, 0) => bail!(
            Runtime,
            "both arguments to matmul need to be at least 1D, but they are {}D and {}D",
            a.ndim(),
            b.ndim()
        ),
        (1, 1) => dot(a, b),
        (2, 2) => mm(a, b),
        (2, 1) => mv(a, b),
        (1, 2) => super::squeeze(&mm(&super::unsqueeze(a, 0)?, b)?, Some(&[0])),
        (n, 1 | 2) if n > 2 => {
            // Fold the batch into the rows: one large product.
            let k = a.shape()[n - 1];
            let want = b.shape()[0];
            ensure!(
                k == want,
                Shape,
                "matmul: shapes {:?} and {:?} cannot be multiplied: inner sizes {k} and {want} differ",
                a.shape(),
                b.shape()
            );
            let rows: usize = a.shape()[..n - 1].iter().product();
            let flat = super::reshape(a, &[rows as i64, k as i64])?;
            let mut shape: SmallVec<[i64; 6]> = a.shape()[..n - 1].iter().map(|s| *s as i64).collect();
            if b.ndim() == 1 {
                return super::reshape(&mv(&flat, b)?, &shape);
            }
            shape.push(b.shape()[1] as i64);
            super::reshape(&mm(&flat, b)?, &shape)
        }
        (1, _) => super::squeeze(&matmul(&super::unsqueeze(a, 0)?, b)?, Some(&[-2])),
        _ => {
            let (n, m) = (a.ndim(), b.ndim());
            let (r, k, c) = (a.shape()[n - 2], a.shape()[n - 1], b.shape()[m - 1]);
            ensure!(
                k == b.shape()[m - 2],
                Shape,
                "matmul: shapes {:?} and {:?} cannot be multiplied: inner sizes {k} and {} differ",
                a.shape(),
                b.shape(),
                b.shape()[m - 2]
            );
            let batch = broadcast("matmul", &a.shape()[..n - 2], &b.shape()[..m - 2])?;
            let count: usize = batch.iter().product();
            let fold = |t: &Tensor, x: usize, y: usize| -> Result<Tensor> {
                let mut full: Dims = batch.clone();
                full.extend([x, y]);
                super::reshape(&super::expand_to(t, &full)?, &[count as i64, x as i64, y as i64])
            };
            let y = bmm(&fold(a, r, k)?, &fold(b, k, c)?)?;
            let mut shape: SmallVec<[i64; 6]> = batch.iter().map(|s| *s as i64).collect();
            shape.extend([r as i64, c as i64]);
            super::reshape(&y, &shape)
        }
    }
}

/// `x @ w.T + b`: the bias is added in the product's epilogue.
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    ensure!(
        w.ndim() == 2 || w.ndim() == 1,
        Runtime,
        "linear: weight must be 1D or 2D, got shape {:?}",
        w.shape()
    );
    if w.ndim() == 1 || x.ndim() == 0 {
        let y = matmul(x, &if w.ndim() == 2 { super::t(w)? } else { w.clone() })?;
        return match b {
            Some(b) => super::add(&y, b),
            None => Ok(y),
        };
    }
    let (k, n) = (x.shape()[x.ndim() - 1], w.shape()[0]);
    ensure!(
        k == w.shape()[1],
        Shape,
        "mat1 and mat2 shapes cannot be multiplied ({}x{k} and {}x{n}): linear expects the last dimension of the input {:?} to be {}",
        x.numel() / k.max(1),
        w.shape()[1],
        x.shape(),
        w.shape()[1]
    );
    if let Some(b) = b {
        ensure!(
            b.ndim() <= 1 && (b.numel() == n || b.numel() == 1),
            Shape,
            "linear: bias of shape {:?} does not fit {n} output features",
            b.shape()
        );
        check_types("linear", &[x, w, b])?;
    } else {
        check_types("linear", &[x, w])?;
    }
    let rows = x.shape()[..x.ndim() - 1].iter().product::<usize>();
    let flat = if x.ndim() == 2 { x.clone() } else { super::reshape(x, &[rows as i64, k as i64])? };
    let y = Tensor::empty(&[rows, n], x.dtype(), x.device())?;
    let wide;
    let bias = match b {
        Some(b) if b.numel() != n || b.ndim() == 0 => {
            wide = super::expand(&b.detach(), &[n as i64])?;
            Some(&wide)
        }
        b => b,
    };
    {
        let wt = super::with_layout(w, w.layout().transpose(0, 1)?);
        gemm_raw(&flat, &wt, &y, bias, 1.0, 0.0)?;
    }
    let inputs: SmallVec<[&Tensor; 3]> = [&flat, w].into_iter().chain(b).collect();
    if needs_grad(&inputs) {
        autograd::attach_any(
            "AddmmBackward0",
            &inputs,
            &[&y],
            &[Save::Opt(wanted(&flat).then_some(w)), Save::Opt(wanted(w).then_some(&flat))],
            |cx| {
                let g = cx.grad(0)?;
                let dx = if cx.needs(0) { Some(matmul(&g, &super::conj_now(cx.saved(0)?)?)?) } else { None };
                let dw = if cx.needs(1) {
                    Some(matmul(&super::transpose(&g, -2, -1)?, &super::conj_now(cx.saved(1)?)?)?)
                } else {
                    None
                };
                let db = if cx.needs(2) { Some(super::sum(&g, Some(&[-2]), false, None)?) } else { None };
                Ok(smallvec![dx, dw, db])
            },
        );
    }
    if x.ndim() == 2 {
        return Ok(y);
    }
    let mut shape: SmallVec<[i64; 6]> = x.shape()[..x.ndim() - 1].iter().map(|s| *s as i64).collect();
    shape.push(n as i64);
    super::reshape(&y, &shape)
}

/// `beta * input + alpha * product`, as PyTorch's add* family: beta 0 ignores `input`'s NaN.
fn add_scaled(op: &str, input: &Tensor, product: &Tensor, beta: Scalar, alpha: Scalar) -> Result<Tensor> {
    let integral = !product.dtype().is_differentiable() && !input.dtype().is_differentiable();
    if op.starts_with("addr") {
        for (name, v) in [("beta", beta), ("alpha", alpha)] {
            ensure!(
                !integral || !matches!(v, Scalar::Float(_)),
                Runtime,
                "For integral input tensors, argument {name} must not be a floating point number."
            );
        }
    }
    if product.dtype().is_bool() && input.dtype().is_bool() {
        // Sums of truth values are "or", multiples by a number are "and".
        let term = |t: &Tensor, by: Scalar| match by.is_zero() {
            true => Tensor::zeros(product.shape(), product.dtype(), product.device()),
            false => super::expand_to(t, product.shape()),
        };
        return super::logical_or(&term(input, beta)?, &term(product, alpha)?);
    }
    // Integer kernels take the factors as integers.
    let whole = |v: Scalar| match v {
        Scalar::Float(f) if integral => Scalar::Int(f as i64),
        v => v,
    };
    let (beta, alpha) = (whole(beta), whole(alpha));
    let scaled = if alpha == Scalar::Int(1) || alpha == Scalar::Float(1.0) {
        product.clone()
    } else {
        super::mul(product, Operand::Number(alpha))?
    };
    if beta.is_zero() {
        return super::expand_to(&scaled, scaled.shape());
    }
    let base = super::expand_to(input, product.shape())?;
    let base = if beta == Scalar::Int(1) || beta == Scalar::Float(1.0) {
        base
    } else {
        super::mul(&base, Operand::Number(beta))?
    };
    super::add(&base, &scaled)
}

fn addmm(input: &Tensor, a: &Tensor, b: &Tensor, beta: Scalar, alpha: Scalar) -> Result<Tensor> {
    let p = mm(a, b)?;
    ensure!(
        broadcast("addmm", input.shape(), p.shape()).is_ok_and(|s| s[..] == *p.shape()),
        Shape,
        "addmm: The expanded size of the tensor must match: input {:?} does not expand to {:?}",
        input.shape(),
        p.shape()
    );
    add_scaled("addmm", input, &p, beta, alpha)
}

/// The arguments `input, x, y, *, beta, alpha`.
fn add_family(a: &Args, op: &'static str, f: fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let p = f(a.tensor(1)?, a.tensor(2)?)?;
    let input = a.tensor(0)?;
    ensure!(
        broadcast(op, input.shape(), p.shape()).is_ok_and(|s| s[..] == *p.shape()),
        Shape,
        "{op}: input of shape {:?} does not expand to the product's shape {:?}",
        input.shape(),
        p.shape()
    );
    add_scaled(op, input, &p, a.number(3)?, a.number(4)?)
}

fn outer(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ensure!(
        a.ndim() == 1 && b.ndim() == 1,
        Runtime,
        "outer: Expected 1-D arguments, got {}D and {}D",
        a.ndim(),
        b.ndim()
    );
    super::mul(&super::unsqueeze(a, 1)?, b)
}

fn sum_bmm(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    super::sum(&bmm(a, b)?, Some(&[0]), false, Some(a.dtype()))
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "mm",
        FUNCTION | METHOD | OUT,
        "The product of two matrices (n x m) and (m x p).",
        "input: Tensor, mat2: Tensor",
        |a| Ok(mm(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "bmm",
        FUNCTION | METHOD | OUT,
        "The products of two batches of matrices.",
        "input: Tensor, mat2: Tensor",
        |a| Ok(bmm(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "mv",
        FUNCTION | METHOD | OUT,
        "The product of a matrix and a vector.",
        "input: Tensor, vec: Tensor",
        |a| Ok(mv(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(list, "dot", FUNCTION | METHOD | OUT, "The inner product of two vectors.",
        "input: Tensor, tensor: Tensor", |a| Ok(dot(a.tensor(0)?, a.tensor(1)?)?.into());
        "input: Tensor, other: Tensor", |a| Ok(dot(a.tensor(0)?, a.tensor(1)?)?.into()));
    op!(
        list,
        "matmul",
        FUNCTION | METHOD | OUT,
        "The matrix product, broadcast over leading dimensions; vectors as in NumPy.",
        "input: Tensor, other: Tensor",
        |a| Ok(matmul(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "outer",
        FUNCTION | METHOD | OUT,
        alias = ["ger"],
        "The outer product of two vectors.",
        "input: Tensor, vec2: Tensor",
        |a| Ok(outer(a.tensor(0)?, a.tensor(1)?)?.into())
    );
    op!(
        list,
        "linear",
        FUNCTION | OUT,
        ns = "nn",
        "`input @ weight.T + bias` (weight: out_features x in_features).",
        "input: Tensor, weight: Tensor, bias: Tensor? = None",
        |a| Ok(linear(a.tensor(0)?, a.tensor(1)?, a.tensor_opt(2)?)?.into())
    );
    op!(
        list,
        "addmm",
        FUNCTION | METHOD | OUT,
        "`beta * input + alpha * mat1 @ mat2`.",
        "input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1",
        |a| Ok(addmm(a.tensor(0)?, a.tensor(1)?, a.tensor(2)?, a.number(3)?, a.number(4)?)?.into())
    );
    op!(
        list,
        "addmm_",
        METHOD,
        "In-place `addmm`.",
        "input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1",
        |a| inplace(a, addmm(a.tensor(0)?, a.tensor(1)?, a.tensor(2)?, a.number(3)?, a.number(4)?)?)
    );
    op!(
        list,
        "addmv",
        FUNCTION | METHOD | OUT,
        "`beta * input + alpha * mat @ vec`.",
        "input: Tensor, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1",
        |a| Ok(add_family(a, "addmv", mv)?.into())
    );
    op!(
        list,
        "addmv_",
        FUNCTION | METHOD,
        "In-place `addmv`.",
        "input: Tensor, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1",
        |a| inplace(a, add_family(a, "addmv_", mv)?)
    );
    op!(
        list,
        "addr",
        FUNCTION | METHOD | OUT,
        "`beta * input + alpha * outer(vec1, vec2)`.",
        "input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1",
        |a| Ok(add_family(a, "addr", outer)?.into())
    );
    op!(
        list,
        "addr_",
        METHOD,
        "In-place `addr`.",
        "input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1",
        |a| inplace(a, add_family(a, "addr_", outer)?)
    );
    op!(
        list,
        "baddbmm",
        FUNCTION | METHOD | OUT,
        "`beta * input + alpha * batch1 @ batch2`.",
        "input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1",
        |a| Ok(add_family(a, "baddbmm", bmm)?.into())
    );
    op!(
        list,
        "baddbmm_",
        METHOD,
        "In-place `baddbmm`.",
        "input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1",
        |a| inplace(a, add_family(a, "baddbmm_", bmm)?)
    );
    op!(
        list,
        "addbmm",
        FUNCTION | METHOD | OUT,
        "`beta * input + alpha * sum over the batch of batch1 @ batch2`.",
        "input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1",
        |a| Ok(add_family(a, "addbmm", sum_bmm)?.into())
    );
    op!(
        list,
        "addbmm_",
        METHOD,
        "In-place `addbmm`.",
        "input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1",
        |a| inplace(a, add_family(a, "addbmm_", sum_bmm)?)
    );
}

fn inplace(a: &Args, r: Tensor) -> Result<Value> {
    super::copy_(a.tensor(0)?, &r)?;
    Ok(Value::Receiver)
}
