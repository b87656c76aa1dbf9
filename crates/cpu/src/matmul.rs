//! `Backend::gemm`: checks what the product's raw interface takes for granted and calls it.

use crate::alloc::Block;
use crate::{copy, gemm, oom};
use pyrite_core::backend::{Activation, Gemm};
use pyrite_core::{Arr, DType, Result, bail, ensure};

fn num(d: DType) -> Option<gemm::Num> {
    Some(match d {
        DType::F16 => gemm::Num::F16,
        DType::BF16 => gemm::Num::Bf16,
        DType::F32 => gemm::Num::F32,
        DType::F64 => gemm::Num::F64,
        DType::U8 => gemm::Num::U8,
        DType::I8 => gemm::Num::I8,
        // Wrapping sums and products have the same bits with and without a sign.
        DType::I16 | DType::U16 => gemm::Num::I16,
        DType::I32 | DType::U32 => gemm::Num::I32,
        DType::I64 | DType::U64 => gemm::Num::I64,
        DType::C64 => gemm::Num::C64,
        DType::C128 => gemm::Num::C128,
        _ => return None,
    })
}

pub fn run(g: &Gemm) -> Result<()> {
    let (Some(num), true) = (num(g.c.dtype), g.a.dtype == g.c.dtype && g.b.dtype == g.c.dtype) else {
        bail!(
            NotImplemented,
            "matrix product of {} and {} into {} is not implemented on the CPU; convert with .to()",
            g.a.dtype,
            g.b.dtype,
            g.c.dtype
        );
    };
    let (&[ba, m, k], &[bb, kb, n], &[batch, mc, nc]) = (g.a.shape, g.b.shape, g.c.shape) else {
        bail!(Shape, "matrix product: operands must be batches of matrices");
    };
    ensure!(
        ba == batch && bb == batch && kb == k && mc == m && nc == n,
        Shape,
        "matrix product: {:?} by {:?} does not give {:?}",
        g.a.shape,
        g.b.shape,
        g.c.shape
    );
    let mut p = gemm::Gemm::new(
        num,
        (m, n, k),
        (g.a.ptr, g.a.strides[1], g.a.strides[2]),
        (g.b.ptr, g.b.strides[1], g.b.strides[2]),
        (g.c.ptr, g.c.strides[1], g.c.strides[2]),
    );
    p.batch = batch;
    (p.batch_a, p.batch_b, p.batch_c) = (g.a.strides[0], g.b.strides[0], g.c.strides[0]);
    (p.alpha, p.beta) = (g.alpha, g.beta);
    p.act = match g.activation {
        Activation::None => gemm::Activation::None,
        Activation::Relu => gemm::Activation::Relu,
    };
    // Kept alive until the product is done.
    let mut dense = None;
    if let Some(bias) = g.bias {
        ensure!(
            bias.shape == [n] && bias.dtype == g.c.dtype,
            Shape,
            "matrix product: the bias must be {} of shape [{n}], not {} of {:?}",
            g.c.dtype,
            bias.dtype,
            bias.shape
        );
        let mut ptr = bias.ptr;
        if !bias.is_contiguous() {
            let block = Block::new(n * bias.dtype.size()).map_err(oom)?;
            ptr = block.as_ptr();
            copy::copy(Arr { ptr, strides: &[1], ..bias }, bias)?;
            dense = Some(block);
        }
        p.bias = gemm::Bias::Cols(ptr);
    }
    // SAFETY: the driver hands over valid memory with an output of its own; shapes were compared above.
    let done = unsafe { gemm::gemm(&p) }.map_err(oom);
    drop(dense);
    done
}
