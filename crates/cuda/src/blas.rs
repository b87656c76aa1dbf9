//! cuBLAS: one handle per device, on the device's stream.

use crate::api::BlasGemm;
use crate::load::{self, Lib};
use cudarc::cublas::sys::{self, cublasStatus_t};
use pyrite_core::{DType, Result, bail};
use std::ffi::c_void;

pub struct Blas(sys::cublasHandle_t);

fn check(s: cublasStatus_t, what: &str) -> Result<()> {
    match s {
        cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        s => bail!(Runtime, "CUDA error: {s:?} when calling {what}"),
    }
}

fn data_type(d: DType) -> Result<sys::cudaDataType> {
    use sys::cudaDataType_t as T;
    Ok(match d {
        DType::F16 => T::CUDA_R_16F,
        DType::BF16 => T::CUDA_R_16BF,
        DType::F32 => T::CUDA_R_32F,
        DType::F64 => T::CUDA_R_64F,
        d => bail!(
            NotImplemented,
            "matmul of {d} is not implemented on CUDA; convert with .float(), or .cpu() first"
        ),
    })
}

impl Blas {
    pub fn new(stream: cudarc::driver::sys::CUstream) -> Result<Blas> {
        load::require(Lib::Cublas, sys::is_culib_present)?;
        load::no_panic("cuBLAS", || {
            let mut h = std::ptr::null_mut();
            // SAFETY: the pointer is valid for one handle; the stream is a live one of the current
            // context (cuBLAS's and the driver's stream types name the same object).
            unsafe {
                check(sys::cublasCreate_v2(&mut h), "cublasCreate")?;
                check(sys::cublasSetStream_v2(h, stream.cast()), "cublasSetStream")?;
            }
            Ok(Blas(h))
        })
    }

    /// # Safety
    /// The matrices must be valid for the sizes and strides; the handle's context must be current.
    pub unsafe fn gemm(&self, g: &BlasGemm) -> Result<()> {
        use sys::cublasComputeType_t as C;
        let (ty, out) = (data_type(g.dtype)?, data_type(g.out_dtype)?);
        let op = |t: bool| {
            if t { sys::cublasOperation_t::CUBLAS_OP_T } else { sys::cublasOperation_t::CUBLAS_OP_N }
        };
        let compute = match g.dtype {
            DType::F64 => C::CUBLAS_COMPUTE_64F,
            DType::F32 if g.tf32 => C::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => C::CUBLAS_COMPUTE_32F,
        };
        let (a64, b64) = ([g.alpha], [g.beta]);
        let (a32, b32) = ([g.alpha as f32], [g.beta as f32]);
        let double = g.dtype == DType::F64;
        let alpha: *const c_void = if double { a64.as_ptr().cast() } else { a32.as_ptr().cast() };
        let beta: *const c_void = if double { b64.as_ptr().cast() } else { b32.as_ptr().cast() };
        // SAFETY: the caller's promise; alpha and beta are of the compute type and live to the end of
        // the call (host pointer mode copies them).
        let s = unsafe {
            sys::cublasGemmStridedBatchedEx_64(
                self.0,
                op(g.trans_a),
                op(g.trans_b),
                g.m as i64,
                g.n as i64,
                g.k as i64,
                alpha,
                g.a.cast(),
                ty,
                g.lda as i64,
                g.stride_a as i64,
                g.b.cast(),
                ty,
                g.ldb as i64,
                g.stride_b as i64,
                beta,
                g.c.cast(),
                out,
                g.ldc as i64,
                g.stride_c as i64,
                g.batch as i64,
                compute,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        check(s, "cublasGemmStridedBatchedEx")
    }
}
