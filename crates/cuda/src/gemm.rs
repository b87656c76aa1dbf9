//! The gemm family: orients matrices for cuBLAS (column-major), copies those it cannot read as they
//! lie, and adds bias and activation as elementwise rows.

use crate::api::BlasGemm;
use crate::args::{self, Dense};
use crate::device::Cuda;
use crate::map;
use pyrite_core::backend::{Activation, Arr, Formula, Gemm};
use pyrite_core::rows::table::id;
use pyrite_core::{DType, Result, Scalar, bail, ensure};
use std::sync::atomic::Ordering;

/// A row-major matrix with leading dimension `ld`, or its transpose.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Oriented {
    transposed: bool,
    ld: usize,
}

/// Can BLAS read rows x cols with these strides? Dimensions of size 1 may have any stride.
fn orient(rows: usize, cols: usize, rs: isize, cs: isize) -> Option<Oriented> {
    let fits = |lines: usize, len: usize, step: isize, unit: isize| {
        if unit != 1 && len > 1 {
            return None;
        }
        if lines <= 1 {
            return Some(len.max(1));
        }
        (step > 0 && step as usize >= len.max(1)).then_some(step as usize)
    };
    if let Some(ld) = fits(rows, cols, rs, cs) {
        return Some(Oriented { transposed: false, ld });
    }
    fits(cols, rows, cs, rs).map(|ld| Oriented { transposed: true, ld })
}

pub fn gemm(c: &Cuda, g: &Gemm) -> Result<()> {
    c.check()?;
    let (a, b, out) = (&g.a, &g.b, &g.c);
    ensure!(
        a.shape.len() == 3 && b.shape.len() == 3 && out.shape.len() == 3,
        Shape,
        "matmul: operands must be [batch, rows, cols], got {:?}, {:?}, {:?}",
        a.shape,
        b.shape,
        out.shape
    );
    let (batch, m, n, k) = (out.shape[0], out.shape[1], out.shape[2], a.shape[2]);
    ensure!(
        a.shape == [batch, m, k] && b.shape == [batch, k, n],
        Shape,
        "matmul: shapes {:?} and {:?} do not give {:?}",
        a.shape,
        b.shape,
        out.shape
    );
    ensure!(
        a.dtype == b.dtype,
        Runtime,
        "expected both matrices to have the same dtype, but got: {} and {}",
        a.dtype,
        b.dtype
    );
    let fits = match a.dtype {
        DType::F32 | DType::F64 => out.dtype == a.dtype,
        DType::F16 | DType::BF16 => out.dtype == a.dtype || out.dtype == DType::F32,
        _ => false,
    };
    if !fits {
        bail!(
            NotImplemented,
            "matmul of {} into {} is not implemented on CUDA; convert with .float(), or move to the CPU with .cpu()",
            a.dtype,
            out.dtype
        );
    }
    if batch == 0 || m == 0 || n == 0 {
        return Ok(());
    }
    if k == 0 {
        // Nothing is summed: c = beta * c.
        if g.beta == 0.0 {
            map::fill(c, *out, Scalar::Float(0.0))?;
        } else if g.beta != 1.0 {
            scale(c, out, g.beta)?;
        }
    } else {
        product(c, g)?;
    }
    epilogue(c, g)
}

/// Readable by BLAS, or a dense copy that is.
fn ready<'a>(c: &Cuda, x: &Arr<'a>, keep: &'a mut Option<Dense>) -> Result<(Arr<'a>, Oriented)> {
    if let Some(o) = orient(x.shape[1], x.shape[2], x.strides[1], x.strides[2])
        && (x.strides[0] >= 0 || x.shape[0] == 1)
    {
        return Ok((*x, o));
    }
    let dense = keep.insert(Dense::like(c, x)?);
    let copy = dense.arr(x);
    map::copy(c, copy, *x)?;
    Ok((copy, Oriented { transposed: false, ld: x.shape[2].max(1) }))
}

fn product(c: &Cuda, g: &Gemm) -> Result<()> {
    let (mut ka, mut kb, mut kc) = (None, None, None);
    let (a, oa) = ready(c, &g.a, &mut ka)?;
    let (b, ob) = ready(c, &g.b, &mut kb)?;
    let direct = orient(g.c.shape[1], g.c.shape[2], g.c.strides[1], g.c.strides[2]);
    // A result BLAS cannot write goes through a dense copy (which beta must find filled).
    let (out, oc, back) = match direct {
        Some(o) => (g.c, o, false),
        None => {
            let dense = kc.insert(Dense::like(c, &g.c)?);
            let copy = dense.arr(&g.c);
            if g.beta != 0.0 {
                map::copy(c, copy, g.c)?;
            }
            (copy, Oriented { transposed: false, ld: g.c.shape[2].max(1) }, true)
        }
    };
    let (mut batch, mut m, n, k) = (out.shape[0], out.shape[1], out.shape[2], a.shape[2]);
    // One weight for the whole batch: a single taller product is faster than many.
    let stacked = |x: &Arr, o: Oriented| !o.transposed && x.strides[0] == (m * o.ld) as isize && m > 0;
    if batch > 1 && b.strides[0] == 0 && stacked(&a, oa) && stacked(&out, oc) {
        m *= batch;
        batch = 1;
    }
    let ptr = |x: &Arr| x.ptr as *const u8;
    // BLAS is column-major: a row-major C is C^T = B^T A^T there, and a row-major matrix with leading
    // dimension ld is, read as column-major, already transposed.
    let spec = if !oc.transposed {
        BlasGemm {
            dtype: a.dtype,
            out_dtype: out.dtype,
            trans_a: ob.transposed,
            trans_b: oa.transposed,
            m: n,
            n: m,
            k,
            batch,
            a: ptr(&b),
            lda: ob.ld,
            stride_a: b.strides[0],
            b: ptr(&a),
            ldb: oa.ld,
            stride_b: a.strides[0],
            c: out.ptr,
            ldc: oc.ld,
            stride_c: out.strides[0],
            alpha: g.alpha,
            beta: g.beta,
            tf32: c.tf32.load(Ordering::Relaxed),
        }
    } else {
        BlasGemm {
            dtype: a.dtype,
            out_dtype: out.dtype,
            trans_a: !oa.transposed,
            trans_b: !ob.transposed,
            m,
            n,
            k,
            batch,
            a: ptr(&a),
            lda: oa.ld,
            stride_a: a.strides[0],
            b: ptr(&b),
            ldb: ob.ld,
            stride_b: b.strides[0],
            c: out.ptr,
            ldc: oc.ld,
            stride_c: out.strides[0],
            alpha: g.alpha,
            beta: g.beta,
            tf32: c.tf32.load(Ordering::Relaxed),
        }
    };
    // SAFETY: shapes and strides were checked above; the caller of the backend vouches for pointers.
    unsafe { c.api.gemm(&spec)? };
    if back {
        map::copy(c, g.c, out)?;
    }
    Ok(())
}

fn scale(c: &Cuda, out: &Arr, by: f64) -> Result<()> {
    // out = out * by, through `add` with the left side 0 * out left out: addcmul needs three operands,
    // so a filled scalar with strides 0 stands for `by`.
    let s = c.allocate(8)?;
    let zeros = vec![0isize; out.shape.len()];
    let number = Arr { ptr: s.ptr(), dtype: out.dtype, shape: out.shape, strides: &zeros };
    let one = [1usize; 3];
    map::fill(c, Arr { shape: &one[..out.shape.len()], strides: &zeros, ..number }, Scalar::Float(by))?;
    let plan = args::plan("matmul", out.shape, &[*out, *out, number])?;
    map::map(c, id::MUL, Formula::Forward, out.dtype.compute(), &plan, &[])
}

fn epilogue(c: &Cuda, g: &Gemm) -> Result<()> {
    let compute = g.c.dtype.compute();
    if let Some(bias) = &g.bias {
        ensure!(
            bias.shape == [g.c.shape[2]],
            Shape,
            "matmul: bias of shape {:?} for {} columns",
            bias.shape,
            g.c.shape[2]
        );
        let strides = [0, 0, bias.strides[0]];
        let row = Arr { ptr: bias.ptr, dtype: bias.dtype, shape: g.c.shape, strides: &strides };
        let plan = args::plan("matmul", g.c.shape, &[g.c, g.c, row])?;
        map::map(c, id::ADD, Formula::Forward, compute, &plan, &[Scalar::Float(1.0)])?;
    }
    match g.activation {
        Activation::None => Ok(()),
        Activation::Relu => {
            let plan = args::plan("matmul", g.c.shape, &[g.c, g.c])?;
            map::map(c, id::RELU, Formula::Forward, compute, &plan, &[])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientation() {
        let n = |ld| Some(Oriented { transposed: false, ld });
        let t = |ld| Some(Oriented { transposed: true, ld });
        assert_eq!(orient(3, 4, 4, 1), n(4));
        assert_eq!(orient(3, 4, 9, 1), n(9));
        assert_eq!(orient(3, 4, 1, 3), t(3));
        assert_eq!(orient(3, 4, 8, 2), None);
        assert_eq!(orient(1, 4, 77, 1), n(4));
        assert_eq!(orient(3, 1, 2, 99), n(2));
        assert_eq!(orient(3, 4, -4, 1), None);
        assert_eq!(orient(3, 4, 0, 1), None);
    }
}
