//! Linear algebra: factorisations and what is built on them. One file per family; kernels are called
//! through `kernel.rs` only. Gradients are written in the library's own operators for real and complex
//! matrices alike: `mh` is the adjoint, which is the transpose of a real matrix.

mod cholesky;
mod det;
mod distance;
mod eigen;
mod einsum;
mod functions;
mod kernel;
mod ldl;
mod lockstep;
mod lowrank;
mod lstsq;
mod lu;
mod norms;
mod pdist;
mod pinv;
mod products;
mod qr;
mod solve;
mod svd;
mod tensors;

use crate::autograd;
use crate::ops;
use crate::registry::{Op, Value};
use crate::tensor::Tensor;
use pyrite_core::dtype::Bool8;
use pyrite_core::{DType, Device, Dims, Result, Scalar, bail, ensure};

pub(crate) fn register(list: &mut Vec<Op>) {
    cholesky::register(list);
    lu::register(list);
    solve::register(list);
    det::register(list);
    qr::register(list);
    svd::register(list);
    eigen::register(list);
    pinv::register(list);
    lstsq::register(list);
    ldl::register(list);
    norms::register(list);
    functions::register(list);
    products::register(list);
    tensors::register(list);
    einsum::register(list);
    distance::register(list);
    pdist::register(list);
    lowrank::register(list);
}

// ---- checks -------------------------------------------------------------------------------------

/// At least two dimensions.
fn matrix(op: &str, t: &Tensor, name: &str) -> Result<()> {
    ensure!(t.ndim() >= 2, Runtime, "{op}: The input tensor {name} must have at least 2 dimensions.");
    Ok(())
}

/// Batches of square matrices.
fn square(op: &str, t: &Tensor, name: &str) -> Result<()> {
    matrix(op, t, name)?;
    let (m, n) = rows_cols(t);
    ensure!(
        m == n,
        Shape,
        "{op}: {name} must be batches of square matrices, but they are {m} by {n} matrices"
    );
    Ok(())
}

/// A floating point or complex dtype; half precision is refused where the op has no kernel for it.
fn floating(op: &str, t: &Tensor) -> Result<()> {
    ensure!(
        t.dtype().is_differentiable(),
        Runtime,
        "{op}: Expected a floating point or complex tensor as input. Got {}",
        t.dtype().legacy_name()
    );
    Ok(())
}

/// As [`floating`], and f16 and bf16 are refused.
fn full_precision(op: &str, t: &Tensor) -> Result<()> {
    floating(op, t)?;
    ensure!(
        !matches!(t.dtype(), DType::F16 | DType::BF16),
        Runtime,
        "{op}: Low precision dtypes not supported. Got {}",
        t.dtype().legacy_name()
    );
    Ok(())
}

fn same_types(op: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    ensure!(
        a.dtype() == b.dtype(),
        Runtime,
        "{op}: Expected A and B to have the same dtype, but found A of type {} and B of type {} instead",
        a.dtype().legacy_name(),
        b.dtype().legacy_name()
    );
    ensure!(
        a.device() == b.device(),
        Runtime,
        "{op}: Expected A and B to be on the same device, but found A on {} and B on {}",
        a.device(),
        b.device()
    );
    Ok(())
}

// ---- shapes -------------------------------------------------------------------------------------

fn rows_cols(t: &Tensor) -> (usize, usize) {
    let s = t.shape();
    (s[s.len() - 2], s[s.len() - 1])
}

fn batch_of(t: &Tensor) -> &[usize] {
    &t.shape()[..t.ndim() - 2]
}

fn joined(batch: &[usize], tail: &[usize]) -> Dims {
    batch.iter().chain(tail).copied().collect()
}

/// `t` with its batch dimensions expanded to `batch`.
fn expand_batch(t: &Tensor, batch: &[usize]) -> Result<Tensor> {
    let (m, n) = rows_cols(t);
    if batch_of(t) == batch { Ok(t.clone()) } else { ops::expand_to(t, &joined(batch, &[m, n])) }
}

// ---- small words --------------------------------------------------------------------------------

/// The conjugate, in memory: kernels see no marks.
fn conj(t: &Tensor) -> Result<Tensor> {
    ops::conj_now(t)
}

fn real(t: &Tensor) -> Result<Tensor> {
    if t.dtype().is_complex() { ops::complex::real(t) } else { Ok(t.clone()) }
}

/// The transposed matrix.
fn mt(t: &Tensor) -> Result<Tensor> {
    ops::transpose(t, -2, -1)
}

/// The adjoint matrix.
fn mh(t: &Tensor) -> Result<Tensor> {
    conj(&mt(t)?)
}

fn mm(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ops::matmul(a, b)
}

fn diagonal(t: &Tensor) -> Result<Tensor> {
    ops::diagonal(t, 0, -2, -1)
}

/// The identity, n x m.
fn eye(n: usize, m: usize, like: &Tensor) -> Result<Tensor> {
    ops::create::eye(n, m, like.dtype(), like.device())
}

/// True on the diagonal of an n x n matrix.
fn on_diagonal(n: usize, device: Device) -> Result<Tensor> {
    ops::create::eye(n, n, DType::Bool, device)
}

/// Vectors as diagonal matrices.
fn diag_embed(t: &Tensor) -> Result<Tensor> {
    let n = t.shape()[t.ndim() - 1];
    ops::where_(&on_diagonal(n, t.device())?, &ops::unsqueeze(t, -1)?, 0.0)
}

/// `t` with another diagonal.
fn with_diagonal(t: &Tensor, d: &Tensor) -> Result<Tensor> {
    let n = t.shape()[t.ndim() - 1];
    ops::where_(&on_diagonal(n, t.device())?, &ops::unsqueeze(d, -1)?, t)
}

/// Columns of a matrix scaled by a vector.
fn scale_columns(t: &Tensor, by: &Tensor) -> Result<Tensor> {
    ops::mul(t, &ops::unsqueeze(by, -2)?)
}

/// Rows of a matrix scaled by a vector.
fn scale_rows(t: &Tensor, by: &Tensor) -> Result<Tensor> {
    ops::mul(t, &ops::unsqueeze(by, -1)?)
}

fn rows(t: &Tensor, from: usize, to: usize) -> Result<Tensor> {
    ops::narrow(t, -2, from as i64, (to - from) as i64)
}

fn cols(t: &Tensor, from: usize, to: usize) -> Result<Tensor> {
    ops::narrow(t, -1, from as i64, (to - from) as i64)
}

fn number<'a>(v: f64) -> ops::Operand<'a> {
    ops::Operand::Number(Scalar::Float(v))
}

fn eps(d: DType) -> f64 {
    match d.real() {
        DType::F64 => f64::EPSILON,
        DType::F16 => 0.0009765625,
        DType::BF16 => 0.0078125,
        _ => f32::EPSILON as f64,
    }
}

/// Adds up what there is.
fn plus(a: Option<Tensor>, b: Tensor) -> Result<Tensor> {
    match a {
        Some(a) => ops::add(&a, &b),
        None => Ok(b),
    }
}

/// Must a backward be written in differentiable operators now? A gradient of it may be taken, or a tangent
/// travels through it.
fn differentiable() -> bool {
    autograd::is_grad_enabled() || autograd::forward::active()
}

/// Does any element of a boolean tensor hold?
fn any(t: &Tensor) -> Result<bool> {
    Ok(t.detach().to_vec::<Bool8>()?.iter().any(|b| b.0 != 0))
}

/// An empty vector: what named results hold where an option leaves a field out.
fn nothing(dtype: DType, device: Device) -> Result<Tensor> {
    Tensor::empty(&[0], dtype, device)
}

fn unknown<T>(op: &str, what: &str) -> Result<T> {
    bail!(Runtime, "{op}: {what}")
}
