//! From tensors to the matrix kernels: copies by columns, batches over the pool, failures as errors.
//! Nothing here is differentiable.

use super::{batch_of, joined, lockstep, rows_cols};
use crate::ops;
use crate::tensor::Tensor;
use pyrite_core::{DType, Device, Layout, Result, bail, err, interrupt};
use pyrite_cpu::pool;
use pyrite_linalg::{Failure, Kernels, Mat, Num, Op, Outcome};

/// The kernels for a tensor's dtype, or PyTorch's error for one without.
fn kernels(name: &str, t: &Tensor) -> Result<&'static dyn Kernels> {
    if t.device() != Device::Cpu {
        return pyrite_core::backend::unsupported(t.device(), name);
    }
    Ok(pyrite_linalg::kernels(match num(t.dtype()) {
        Some(n) => n,
        None => bail!(NotImplemented, "\"{name}_cpu\" not implemented for '{}'", t.dtype().legacy_name()),
    }))
}

pub(super) fn num(d: DType) -> Option<Num> {
    Some(match d {
        DType::F32 => Num::F32,
        DType::F64 => Num::F64,
        DType::C64 => Num::C32,
        DType::C128 => Num::C64,
        _ => return None,
    })
}

/// A new copy with each matrix stored by columns without gaps: what factorisations work on in place,
/// and the memory order of PyTorch's results.
pub(super) fn by_columns(t: &Tensor) -> Result<Tensor> {
    let swapped = ops::with_layout(t, t.layout().transpose(-2, -1)?);
    let copy = ops::clone_format(&swapped, crate::MemoryFormat::Contiguous)?;
    Ok(ops::with_layout(&copy, copy.layout().transpose(-2, -1)?))
}

/// New matrices stored by columns.
pub(super) fn empty(batch: &[usize], m: usize, n: usize, like: &Tensor, dtype: DType) -> Result<Tensor> {
    let t = Tensor::empty(&joined(batch, &[n, m]), dtype, like.device())?;
    let l: Layout = t.layout().transpose(-2, -1)?;
    Ok(ops::with_layout(&t, l))
}

/// The matrices of a tensor whose batch dimensions are evenly spaced, by number.
#[derive(Clone, Copy)]
pub(super) struct Mats {
    ptr: *mut u8,
    step: usize,
    mat: Mat,
}

// SAFETY: a pointer with its shape; each number is used by one thread at a time (see `each`).
unsafe impl Send for Mats {}
// SAFETY: as above.
unsafe impl Sync for Mats {}

impl Mats {
    /// `t` must be dense, by rows or by columns; or one matrix of any strides.
    pub(super) fn of(t: &Tensor) -> Mats {
        let (rows, cols) = rows_cols(t);
        let s = t.strides();
        let mat = Mat { ptr: t.ptr(), rows, cols, rs: s[s.len() - 2], cs: s[s.len() - 1] };
        Mats { ptr: t.ptr(), step: rows * cols * t.dtype().size(), mat }
    }
    pub(super) fn at(self, i: usize) -> Mat {
        Mat { ptr: self.ptr.wrapping_add(i * self.step), ..self.mat }
    }
}

/// `t` as [`Mats::of`] wants it: itself, or a dense copy.
pub(super) fn readable(t: &Tensor) -> Result<Tensor> {
    let t = t.detach();
    if t.ndim() == 2 { Ok(t) } else { ops::contiguous(&t) }
}

/// A dense vector per matrix (pivots, singular values), by number.
#[derive(Clone, Copy)]
pub(super) struct Vecs {
    ptr: *mut u8,
    step: usize,
}

// SAFETY: as for `Mats`.
unsafe impl Send for Vecs {}
// SAFETY: as for `Mats`.
unsafe impl Sync for Vecs {}

impl Vecs {
    /// `t` is dense, one vector (or number, for `len` 1) per matrix.
    pub(super) fn of(t: &Tensor, len: usize) -> Vecs {
        Vecs { ptr: t.ptr(), step: len * t.dtype().size() }
    }
    pub(super) fn at(self, i: usize) -> *mut u8 {
        self.ptr.wrapping_add(i * self.step)
    }
    /// # Safety
    /// The vectors hold `len` i32 each, and number `i` is used by nobody else.
    pub(super) unsafe fn ints<'a>(self, i: usize, len: usize) -> &'a mut [i32] {
        if len == 0 {
            return &mut [];
        }
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(i) as *mut i32, len) }
    }
}

/// Runs `f(0), .., f(n - 1)` on the pool and keeps what each returned. `flops` is the work of one.
pub(super) fn each(
    n: usize,
    flops: f64,
    f: impl Fn(usize) -> Outcome<usize> + Sync,
) -> Result<Vec<Outcome<usize>>> {
    struct Slots(*mut Outcome<usize>);
    // SAFETY: every slot is written by the one chunk that owns its number.
    unsafe impl Sync for Slots {}
    let mut out: Vec<Outcome<usize>> = Vec::new();
    if out.try_reserve_exact(n).is_err() {
        bail!(OutOfMemory, "linalg: a batch of {n} matrices does not fit in memory");
    }
    out.resize(n, Ok(0));
    let slots = Slots(out.as_mut_ptr());
    // A core does a few operations per ns in these kernels, and a call costs about a microsecond.
    let ns = flops / 4.0 + 1000.0;
    let least = ((20_000.0 / ns).ceil() as usize).max(1);
    let (chunks, size) = pool::chunks(n, least);
    let whole = (ns * n as f64).min(1e18) as u64;
    // What factorisations write to is new (copies, results): a batch can be interrupted between matrices.
    interrupt::stoppable_if(whole > 1_000_000, || {
        pool::parallel(chunks, whole, &|c| {
            let slots = &slots;
            for i in c * size..((c + 1) * size).min(n) {
                // SAFETY: i < n, and chunks do not overlap.
                unsafe { *slots.0.add(i) = f(i) };
                interrupt::poll();
            }
        });
        Ok(())
    })?;
    Ok(out)
}

/// Each result as LAPACK's info, or the library's error if memory ran out.
pub(super) fn infos(op: &str, batch: &[usize], results: &[Outcome<usize>]) -> Result<Tensor> {
    let mut list = Vec::with_capacity(results.len());
    for r in results {
        match r {
            Ok(i) => list.push(*i as i32),
            Err(Failure::OutOfMemory) => return out_of_memory(op),
            Err(_) => list.push(i32::MAX),
        }
    }
    Tensor::from_slice(&list, batch)
}

fn out_of_memory<T>(op: &str) -> Result<T> {
    bail!(OutOfMemory, "{op}: cannot allocate the workspace of the factorisation")
}

/// Where an error message says which matrix of the batch it means.
pub(super) fn element(batch: &[usize], i: usize) -> String {
    if batch.is_empty() { String::new() } else { format!("(Batch element {i}): ") }
}

/// The first failure as an error; `not_finite` and `diverged` are what follows the op's name.
pub(super) fn converged(
    op: &str,
    batch: &[usize],
    results: &[Outcome<usize>],
    not_finite: &str,
    diverged: &str,
) -> Result<()> {
    for (i, r) in results.iter().enumerate() {
        let text = match r {
            Ok(_) => continue,
            Err(Failure::OutOfMemory) => return out_of_memory(op),
            Err(Failure::NotFinite) => not_finite,
            Err(Failure::NotConverged) => diverged,
        };
        return Err(err!(LinAlg, "{op}: {}{text}", element(batch, i)));
    }
    Ok(())
}

fn count(batch: &[usize]) -> usize {
    batch.iter().product()
}

fn cube(n: usize) -> f64 {
    (n as f64).powi(3)
}

/// Zeros above the diagonal.
fn clear_upper(m: Mat, size: usize) {
    for j in 1..m.cols {
        let col = m.ptr.wrapping_offset(j as isize * m.cs * size as isize);
        // SAFETY: columns are dense, and the first min(j, rows) elements of column j are above the diagonal.
        unsafe { std::ptr::write_bytes(col, 0, j.min(m.rows) * size) };
    }
}

/// The lower factor (zeros above), and info per matrix. Reads the lower triangle.
pub(super) fn cholesky(op: &str, a: &Tensor) -> Result<(Tensor, Tensor)> {
    let k = kernels("cholesky", a)?;
    let l = by_columns(a)?;
    let (mats, n, size) = (Mats::of(&l), rows_cols(&l).0, l.dtype().size());
    let r = each(count(batch_of(a)), cube(n) / 3.0, |i| {
        // SAFETY: `l` is ours, dense by columns.
        let info = unsafe { k.cholesky(mats.at(i)) };
        clear_upper(mats.at(i), size);
        info
    })?;
    let info = infos(op, batch_of(a), &r)?;
    Ok((l, info))
}

/// Packed factors, pivots (i32, 1-based) and info.
pub(super) fn lu(op: &str, a: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
    if lockstep::suits(a) {
        let done = lockstep::lu(a, lockstep::Sides::None, true)?;
        if let Some((f, pivots)) = done.factors {
            return Ok((f, pivots, done.info));
        }
    }
    let k = kernels("lu", a)?;
    let (m, n) = rows_cols(a);
    let r = m.min(n);
    let f = by_columns(a)?;
    let pivots = Tensor::empty(&joined(batch_of(a), &[r]), DType::I32, a.device())?;
    let (mats, piv) = (Mats::of(&f), Vecs::of(&pivots, r));
    let done = each(count(batch_of(a)), cube(m.max(n)), |i| {
        // SAFETY: both tensors are ours and dense; pivots hold r numbers per matrix.
        unsafe { k.lu(mats.at(i), piv.ints(i, r)) }
    })?;
    let info = infos(op, batch_of(a), &done)?;
    Ok((f, pivots, info))
}

/// Solves with the factors of [`lu`] for the right sides `b` (same batch).
pub(super) fn lu_solve(f: &Tensor, pivots: &Tensor, b: &Tensor, how: Op) -> Result<Tensor> {
    // SAFETY: as `solved` calls it.
    solved("lu_solve", f, pivots, b, |k, f, piv, x| unsafe { k.lu_solve(f, piv, x, how) })
}

/// A solution by pivoted factors of the same batch: `with` writes over the right side of each matrix, given
/// readable factors, as many pivots as rows, and fitting sizes.
fn solved(
    name: &str,
    f: &Tensor,
    pivots: &Tensor,
    b: &Tensor,
    with: impl Fn(&dyn Kernels, Mat, &[i32], Mat) + Sync,
) -> Result<Tensor> {
    let k = kernels(name, f)?;
    let x = by_columns(&b.detach())?;
    let f = readable(f)?;
    let pivots = ops::contiguous(&pivots.detach())?;
    let (n, cols) = rows_cols(&x);
    let (mf, mx, piv) = (Mats::of(&f), Mats::of(&x), Vecs::of(&pivots, n));
    each(count(batch_of(&x)), 2.0 * (n * n) as f64 * cols as f64, |i| {
        // SAFETY: factors, pivots and right sides have the same batch; this job alone uses number i.
        let pivots = unsafe { piv.ints(i, n) };
        with(k, mf.at(i), pivots, mx.at(i));
        Ok(0)
    })?;
    Ok(x)
}

/// `a x = b` with triangular `a` of the same batch.
pub(super) fn solve_triangular(a: &Tensor, b: &Tensor, upper: bool, unit: bool) -> Result<Tensor> {
    let k = kernels("triangular_solve", a)?;
    let x = by_columns(&b.detach())?;
    let a = readable(a)?;
    let (n, cols) = rows_cols(&x);
    let (ma, mx) = (Mats::of(&a), Mats::of(&x));
    each(count(batch_of(&x)), (n * n) as f64 * cols as f64, |i| {
        // SAFETY: `x` is ours; the matrices fit and have the same batch.
        unsafe { k.solve_triangular(ma.at(i), mx.at(i), upper, unit, false) };
        Ok(0)
    })?;
    Ok(x)
}

/// Packed reflectors and R, and the reflectors' factors.
pub(super) fn geqrf(a: &Tensor) -> Result<(Tensor, Tensor)> {
    let k = kernels("geqrf", a)?;
    let (m, n) = rows_cols(a);
    let f = by_columns(a)?;
    let tau = Tensor::empty(&joined(batch_of(a), &[m.min(n)]), a.dtype(), a.device())?;
    let (mats, t) = (Mats::of(&f), Vecs::of(&tau, m.min(n)));
    // SAFETY: both tensors are ours; tau holds min(m, n) elements per matrix.
    let r =
        each(count(batch_of(a)), 2.0 * cube(m.max(n)), |i| unsafe { k.qr(mats.at(i), t.at(i)).map(|_| 0) })?;
    infos("geqrf", batch_of(a), &r)?;
    Ok((f, tau))
}

/// Q (m x q columns, unless 0 are asked for) and R.
pub(super) fn qr(op: &str, a: &Tensor, q_cols: usize, want_q: bool) -> Result<(Option<Tensor>, Tensor)> {
    if lockstep::suits(a) {
        return lockstep::qr(a, q_cols, want_q);
    }
    let k = kernels("geqrf", a)?;
    let (m, n) = rows_cols(a);
    let f = by_columns(a)?;
    let q = if want_q { Some(empty(batch_of(a), m, q_cols, a, a.dtype())?) } else { None };
    let r = empty(batch_of(a), q_cols, n, a, a.dtype())?;
    let (mf, mq, mr) = (Mats::of(&f), q.as_ref().map(Mats::of), Mats::of(&r));
    let done = each(count(batch_of(a)), 4.0 * cube(m.max(n)), |i| {
        // SAFETY: all three are ours and of the shapes the kernel wants.
        unsafe { k.qr_explicit(mf.at(i), mq.map(|q| q.at(i)), mr.at(i)).map(|_| 0) }
    })?;
    infos(op, batch_of(a), &done)?;
    Ok((q, r))
}

const DIVERGED: &str =
    "The algorithm failed to converge because the input matrix is ill-conditioned or has too many repeated";

/// `u`, `s`, `v` (not its adjoint), with min(m, n) columns or all.
pub(super) fn svd(
    op: &str,
    a: &Tensor,
    vectors: bool,
    full: bool,
) -> Result<(Tensor, Option<(Tensor, Tensor)>)> {
    let k = kernels("linalg_svd", a)?;
    let infinite = "The algorithm failed to converge because the input matrix contained non-finite values.";
    let text = format!("{DIVERGED} singular values.");
    if !vectors && lockstep::suits(a) && lockstep::many(a) {
        let (s, done) = lockstep::singular_values(a)?;
        if !done.contains(&Err(Failure::NotConverged)) {
            converged(op, batch_of(a), &done, infinite, &text)?;
            return Ok((s, None));
        }
    }
    let (m, n) = rows_cols(a);
    let r = m.min(n);
    let (cu, cv) = if full { (m, n) } else { (r, r) };
    let batch = batch_of(a);
    let s = Tensor::empty(&joined(batch, &[r]), a.dtype().real(), a.device())?;
    let uv = match vectors {
        true => Some((empty(batch, m, cu, a, a.dtype())?, empty(batch, n, cv, a, a.dtype())?)),
        false => None,
    };
    let src = readable(a)?;
    let (ma, vs) = (Mats::of(&src), Vecs::of(&s, r));
    let muv = uv.as_ref().map(|(u, v)| (Mats::of(u), Mats::of(v)));
    let done = each(count(batch), 20.0 * cube(m.max(n)), |i| {
        // SAFETY: results are ours and of the shapes the kernel wants.
        unsafe { k.svd(ma.at(i), vs.at(i), muv.map(|(u, v)| (u.at(i), v.at(i)))).map(|_| 0) }
    })?;
    converged(op, batch, &done, infinite, &text)?;
    Ok((s, uv))
}

/// Eigenvalues and vectors of the Hermitian matrices whose lower triangle is given.
pub(super) fn eigh(op: &str, a: &Tensor, vectors: bool) -> Result<(Tensor, Option<Tensor>)> {
    let k = kernels("linalg_eigh", a)?;
    let n = rows_cols(a).0;
    let batch = batch_of(a);
    let infinite = format!("{DIVERGED} eigenvalues (it contains non-finite values).");
    let text = format!("{DIVERGED} eigenvalues.");
    if lockstep::suits(a) && lockstep::many(a) {
        let (w, v, done) = lockstep::eigh(a, vectors)?;
        if !done.contains(&Err(Failure::NotConverged)) {
            converged(op, batch, &done, &infinite, &text)?;
            return Ok((w, v));
        }
    }
    let w = Tensor::empty(&joined(batch, &[n]), a.dtype().real(), a.device())?;
    let v = if vectors { Some(empty(batch, n, n, a, a.dtype())?) } else { None };
    let src = readable(a)?;
    let (ma, vw, mv) = (Mats::of(&src), Vecs::of(&w, n), v.as_ref().map(Mats::of));
    let done = each(count(batch), 9.0 * cube(n), |i| {
        // SAFETY: results are ours and of the shapes the kernel wants.
        unsafe { k.eigh(ma.at(i), vw.at(i), mv.map(|v| v.at(i))).map(|_| 0) }
    })?;
    converged(op, batch, &done, &infinite, &text)?;
    Ok((w, v))
}

/// Eigenvalues and right eigenvectors, complex.
pub(super) fn eig(op: &str, a: &Tensor, vectors: bool) -> Result<(Tensor, Option<Tensor>)> {
    let k = kernels("linalg_eig_out", a)?;
    let n = rows_cols(a).0;
    let batch = batch_of(a);
    let dtype = a.dtype().complex();
    let w = Tensor::empty(&joined(batch, &[n]), dtype, a.device())?;
    let v = if vectors { Some(empty(batch, n, n, a, dtype)?) } else { None };
    let src = readable(a)?;
    let (ma, vw, mv) = (Mats::of(&src), Vecs::of(&w, n), v.as_ref().map(Mats::of));
    let done = each(count(batch), 25.0 * cube(n), |i| {
        // SAFETY: results are ours and of the shapes and types the kernel wants.
        unsafe { k.eig(ma.at(i), vw.at(i), mv.map(|v| v.at(i))).map(|_| 0) }
    })?;
    if done.contains(&Err(Failure::NotFinite)) {
        bail!(Runtime, "torch.{op}: input tensor should not contain infs or NaNs.");
    }
    converged(op, batch, &done, "", &format!("{DIVERGED} eigenvalues."))?;
    Ok((w, v))
}

/// The packed Bunch-Kaufman factor (zeros above the diagonal), pivots and info.
pub(super) fn ldl(op: &str, a: &Tensor, hermitian: bool) -> Result<(Tensor, Tensor, Tensor)> {
    let k = kernels("ldl_factor_kernel", a)?;
    let n = rows_cols(a).0;
    let f = by_columns(a)?;
    let pivots = Tensor::empty(&joined(batch_of(a), &[n]), DType::I32, a.device())?;
    let (mats, piv, size) = (Mats::of(&f), Vecs::of(&pivots, n), a.dtype().size());
    let done = each(count(batch_of(a)), cube(n) / 3.0, |i| {
        // SAFETY: both tensors are ours; pivots hold n numbers per matrix.
        let info = unsafe { k.ldl(mats.at(i), piv.ints(i, n), hermitian) };
        clear_upper(mats.at(i), size);
        Ok(info)
    })?;
    let info = infos(op, batch_of(a), &done)?;
    Ok((f, pivots, info))
}

/// Solves with the result of [`ldl`] for right sides of the same batch.
pub(super) fn ldl_solve(f: &Tensor, pivots: &Tensor, b: &Tensor, hermitian: bool) -> Result<Tensor> {
    // SAFETY: as `solved` calls it.
    solved("ldl_solve_kernel", f, pivots, b, |k, f, piv, x| unsafe { k.ldl_solve(f, piv, x, hermitian) })
}
