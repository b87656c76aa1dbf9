//! Matrix products: `C = act(alpha * A B + beta * C + bias)` for any strides and every numeric type.
//!
//! f32 and f64 run on a register-tile micro-kernel (`kernel.rs`); f16 and bf16 are widened while
//! packing, accumulate in f32 and round once at the store; integers (wrapping) and complex numbers take
//! a plain blocked loop (`generic.rs`). Products with up to four rows or columns read B once (`gemv.rs`).
//! Every element of C is summed in the same order whatever the number of threads.

mod driver;
mod elem;
mod gemv;
mod generic;
pub(crate) mod kernel;
pub(crate) mod pack;
pub(crate) mod transpose;
pub(crate) mod vector;

use crate::alloc::OutOfMemory;
use crate::pool;
pub use crate::simd::Isa;
pub use elem::Elem;
pub use kernel::Activation;

/// Element types of a product. A, B, C and the bias share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Num {
    F16,
    Bf16,
    F32,
    F64,
    U8,
    I8,
    I16,
    I32,
    I64,
    C64,
    C128,
}

/// A contiguous vector added to the product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    #[default]
    None,
    /// `n` values, one per column of C.
    Cols(*const u8),
    /// `m` values, one per row of C.
    Rows(*const u8),
}

/// A (batch of) matrix product(s): A is m x k, B is k x n, C is m x n. Strides count elements and may
/// be zero or negative for A and B.
#[derive(Clone, Debug)]
pub struct Gemm {
    pub num: Num,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const u8,
    pub rsa: isize,
    pub csa: isize,
    pub b: *const u8,
    pub rsb: isize,
    pub csb: isize,
    pub c: *mut u8,
    pub rsc: isize,
    pub csc: isize,
    pub batch: usize,
    pub batch_a: isize,
    pub batch_b: isize,
    pub batch_c: isize,
    pub alpha: f64,
    /// Zero: C is written without being read.
    pub beta: f64,
    pub bias: Bias,
    pub act: Activation,
}

impl Gemm {
    /// One plain product `C = A B`; set the public fields for more. Each matrix is (pointer, row
    /// stride, column stride).
    pub fn new(
        num: Num,
        (m, n, k): (usize, usize, usize),
        (a, rsa, csa): (*const u8, isize, isize),
        (b, rsb, csb): (*const u8, isize, isize),
        (c, rsc, csc): (*mut u8, isize, isize),
    ) -> Gemm {
        Gemm {
            num,
            m,
            n,
            k,
            a,
            rsa,
            csa,
            b,
            rsb,
            csb,
            c,
            rsc,
            csc,
            batch: 1,
            batch_a: 0,
            batch_b: 0,
            batch_c: 0,
            alpha: 1.0,
            beta: 0.0,
            bias: Bias::None,
            act: Activation::None,
        }
    }
}

/// Computes the product(s).
///
/// # Safety
/// All pointers are valid for the sizes, strides and batch given, aligned for their type; C (and the
/// elements within it) overlap neither each other nor A, B or the bias.
pub unsafe fn gemm(g: &Gemm) -> Result<(), OutOfMemory> {
    // SAFETY: passed on.
    unsafe { gemm_with(g, crate::simd::isa()) }
}

/// As [`gemm`], on a given instruction set (which this machine must have).
///
/// # Safety
/// As for [`gemm`].
pub unsafe fn gemm_with(g: &Gemm, isa: Isa) -> Result<(), OutOfMemory> {
    // SAFETY: passed on.
    unsafe {
        match g.num {
            Num::F32 => batched(g, |g| driver::run::<f32>(g, isa)),
            Num::F64 => batched(g, |g| driver::run::<f64>(g, isa)),
            Num::F16 => batched(g, |g| driver::run::<half::f16>(g, isa)),
            Num::Bf16 => batched(g, |g| driver::run::<half::bf16>(g, isa)),
            Num::U8 => batched(g, |g| generic::run::<u8>(g)),
            Num::I8 => batched(g, |g| generic::run::<i8>(g)),
            Num::I16 => batched(g, |g| generic::run::<i16>(g)),
            Num::I32 => batched(g, |g| generic::run::<i32>(g)),
            Num::I64 => batched(g, |g| generic::run::<i64>(g)),
            Num::C64 => batched(g, |g| generic::run::<generic::Complex<f32>>(g)),
            Num::C128 => batched(g, |g| generic::run::<generic::Complex<f64>>(g)),
        }
    }
}

impl Num {
    pub fn size(self) -> usize {
        match self {
            Num::U8 | Num::I8 => 1,
            Num::F16 | Num::Bf16 | Num::I16 => 2,
            Num::F32 | Num::I32 => 4,
            Num::F64 | Num::I64 | Num::C64 => 8,
            Num::C128 => 16,
        }
    }

    /// Multiply-adds per nanosecond and thread, roughly: for deciding what is worth splitting.
    fn speed(self) -> u64 {
        match self {
            Num::F32 => 45,
            Num::F16 | Num::Bf16 => 35,
            Num::F64 => 22,
            Num::U8 | Num::I8 | Num::I16 | Num::I32 => 3,
            Num::I64 | Num::C64 | Num::C128 => 1,
        }
    }
}

/// Estimated time of one product on one thread, in nanoseconds.
fn estimate(num: Num, m: usize, n: usize, k: usize) -> u64 {
    (m as u64).saturating_mul(n as u64).saturating_mul(k as u64 + 4) / num.speed()
}

/// # Safety
/// As for [`gemm`]; `one` computes a single product with batch 1 under the same contract.
unsafe fn batched(
    g: &Gemm,
    one: impl Fn(&Gemm) -> Result<(), OutOfMemory> + Sync,
) -> Result<(), OutOfMemory> {
    if g.m == 0 || g.n == 0 || g.batch == 0 {
        return Ok(());
    }
    if g.batch == 1 {
        return one(g);
    }
    // A batch that shares B and stacks A and C evenly is one tall product.
    let stacked = g.batch_b == 0
        && g.batch_a == g.rsa * g.m as isize
        && g.batch_c == g.rsc * g.m as isize
        && !matches!(g.bias, Bias::Rows(_));
    if stacked {
        return one(&Gemm { m: g.m * g.batch, batch: 1, ..g.clone() });
    }
    let size = g.num.size() as isize;
    let nth = |i: usize| {
        let i = i as isize;
        Gemm {
            batch: 1,
            a: g.a.wrapping_offset(i * g.batch_a * size),
            b: g.b.wrapping_offset(i * g.batch_b * size),
            c: g.c.wrapping_offset(i * g.batch_c * size),
            ..g.clone()
        }
    };
    let each = estimate(g.num, g.m, g.n, g.k).max(50);
    if each > 200_000 && g.batch < 4 * pool::num_threads() {
        // Large products split better inside.
        return (0..g.batch).try_for_each(|i| one(&nth(i)));
    }
    let (batch, share) = (g.batch, Shared((&nth, &one)));
    let failed = std::sync::Mutex::new(None);
    let per_job = (20_000 / each).max(1) as usize;
    let jobs = g.batch.div_ceil(per_job);
    pool::parallel(jobs, each.saturating_mul(g.batch as u64), &|j| {
        let (nth, one) = share.get();
        for i in j * per_job..((j + 1) * per_job).min(batch) {
            if let Err(e) = one(&nth(i)) {
                *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
            }
        }
    });
    match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

/// Carries pointers into a parallel region. A method, because a closure captures fields one by one.
pub(crate) struct Shared<P>(pub P);

impl<P: Copy> Shared<P> {
    pub fn get(&self) -> P {
        self.0
    }
}

// SAFETY: kernels use it for pointers of which the jobs of a region read the same and write disjoint parts.
unsafe impl<P> Sync for Shared<P> {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests;
