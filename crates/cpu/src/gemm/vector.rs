//! The few vector operations that the GEMM and convolution kernels are written in, and the instruction
//! sets behind them: AVX-512, AVX2 + FMA, and four plain lanes for everything else.
//!
//! Every method is `inline(always)` and must end up inside a function compiled with the features of its
//! vector type (see the wrappers in `kernel.rs`); called elsewhere it would still be correct, but slow.

/// Numbers the kernels compute in.
pub trait Scalar: Copy + Send + Sync + PartialEq + PartialOrd + 'static {
    const ZERO: Self;
    const ONE: Self;
    fn from_f64(x: f64) -> Self;
    fn add(self, o: Self) -> Self;
    fn mul(self, o: Self) -> Self;
}

macro_rules! scalar {
    ($t:ty) => {
        impl Scalar for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                self + o
            }
            #[inline(always)]
            fn mul(self, o: Self) -> Self {
                self * o
            }
        }
    };
}
scalar!(f32);
scalar!(f64);

/// Asks for the line at `p`; any address will do.
#[inline(always)]
pub fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, and SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// A vector register of `LANES` numbers.
///
/// # Safety
/// All methods require the instruction set of the type at run time. `load` and `store` need `LANES`
/// valid elements at the pointer (no alignment beyond the element's), `load_n` and `store_n` the first
/// `n <= LANES`; lanes beyond `n` load as zero.
pub trait Vector: Copy {
    type T: Scalar;
    const LANES: usize;
    unsafe fn splat(x: Self::T) -> Self;
    unsafe fn load(p: *const Self::T) -> Self;
    unsafe fn store(self, p: *mut Self::T);
    unsafe fn load_n(p: *const Self::T, n: usize) -> Self;
    unsafe fn store_n(self, p: *mut Self::T, n: usize);
    /// `self * b + c`
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    unsafe fn add(self, o: Self) -> Self;
    unsafe fn mul(self, o: Self) -> Self;
    /// `x > 0 ? x : 0`, NaN stays NaN.
    unsafe fn relu(self) -> Self;
    /// Sum of all lanes, in a fixed order.
    unsafe fn sum(self) -> Self::T;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    macro_rules! avx512 {
        ($v:ty, $t:ty, $lanes:literal, $mask:ty, $set1:ident, $loadu:ident, $storeu:ident, $mload:ident,
         $mstore:ident, $fma:ident, $add:ident, $mul:ident, $max:ident, $zero:ident, $sum:ident) => {
            impl Vector for $v {
                type T = $t;
                const LANES: usize = $lanes;
                // SAFETY (all methods): the trait's contract is exactly what the intrinsics ask for.
                #[inline(always)]
                unsafe fn splat(x: $t) -> Self {
                    // SAFETY: see above.
                    unsafe { $set1(x) }
                }
                #[inline(always)]
                unsafe fn load(p: *const $t) -> Self {
                    // SAFETY: see above.
                    unsafe { $loadu(p) }
                }
                #[inline(always)]
                unsafe fn store(self, p: *mut $t) {
                    // SAFETY: see above.
                    unsafe { $storeu(p, self) }
                }
                #[inline(always)]
                unsafe fn load_n(p: *const $t, n: usize) -> Self {
                    let mask = ((1u32 << n) - 1) as $mask;
                    // SAFETY: masked-off lanes are not read.
                    unsafe { $mload(mask, p) }
                }
                #[inline(always)]
                unsafe fn store_n(self, p: *mut $t, n: usize) {
                    let mask = ((1u32 << n) - 1) as $mask;
                    // SAFETY: masked-off lanes are not written.
                    unsafe { $mstore(p, mask, self) }
                }
                #[inline(always)]
                unsafe fn fma(self, b: Self, c: Self) -> Self {
                    // SAFETY: see above.
                    unsafe { $fma(self, b, c) }
                }
                #[inline(always)]
                unsafe fn add(self, o: Self) -> Self {
                    // SAFETY: see above.
                    unsafe { $add(self, o) }
                }
                #[inline(always)]
                unsafe fn mul(self, o: Self) -> Self {
                    // SAFETY: see above.
                    unsafe { $mul(self, o) }
                }
                #[inline(always)]
                unsafe fn relu(self) -> Self {
                    // The second operand is returned when one is NaN.
                    // SAFETY: see above.
                    unsafe { $max($zero(), self) }
                }
                #[inline(always)]
                unsafe fn sum(self) -> $t {
                    // SAFETY: see above.
                    unsafe { $sum(self) }
                }
            }
        };
    }
    avx512!(
        __m512,
        f32,
        16,
        __mmask16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_maskz_loadu_ps,
        _mm512_mask_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_mul_ps,
        _mm512_max_ps,
        _mm512_setzero_ps,
        _mm512_reduce_add_ps
    );
    avx512!(
        __m512d,
        f64,
        8,
        __mmask8,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_maskz_loadu_pd,
        _mm512_mask_storeu_pd,
        _mm512_fmadd_pd,
        _mm512_add_pd,
        _mm512_mul_pd,
        _mm512_max_pd,
        _mm512_setzero_pd,
        _mm512_reduce_add_pd
    );

    /// `MASKS[8 - n..]` starts with `n` set lanes.
    static MASK32: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    static MASK64: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

    macro_rules! avx2 {
        ($v:ty, $t:ty, $lanes:literal, $masks:ident, $set1:ident, $loadu:ident, $storeu:ident, $mload:ident,
         $mstore:ident, $fma:ident, $add:ident, $mul:ident, $max:ident, $zero:ident) => {
            impl Vector for $v {
                type T = $t;
                const LANES: usize = $lanes;
                // SAFETY (all methods): the trait's contract is exactly what the intrinsics ask for.
                #[inline(always)]
                unsafe fn splat(x: $t) -> Self {
                    // SAFETY: see above.
                    unsafe { $set1(x) }
                }
                #[inline(always)]
                unsafe fn load(p: *const $t) -> Self {
                    // SAFETY: see above.
                    unsafe { $loadu(p) }
                }
                #[inline(always)]
                unsafe fn store(self, p: *mut $t) {
                    // SAFETY: see above.
                    unsafe { $storeu(p, self) }
                }
                #[inline(always)]
                unsafe fn load_n(p: *const $t, n: usize) -> Self {
                    debug_assert!(n <= $lanes);
                    // SAFETY: the mask table holds 2 * LANES entries; masked-off lanes are not read.
                    unsafe { $mload(p, _mm256_loadu_si256($masks.as_ptr().add($lanes - n).cast())) }
                }
                #[inline(always)]
                unsafe fn store_n(self, p: *mut $t, n: usize) {
                    debug_assert!(n <= $lanes);
                    // SAFETY: the mask table holds 2 * LANES entries; masked-off lanes are not written.
                    unsafe { $mstore(p, _mm256_loadu_si256($masks.as_ptr().add($lanes - n).cast()), self) }
                }
                #[inline(always)]
                unsafe fn fma(self, b: Self, c: Self) -> Self {
                    // SAFETY: see above.
                    unsafe { $fma(self, b, c) }
                }
                #[inline(always)]
                unsafe fn add(self, o: Self) -> Self {
                    // SAFETY: see above.
                    unsafe { $add(self, o) }
                }
                #[inline(always)]
                unsafe fn mul(self, o: Self) -> Self {
                    // SAFETY: see above.
                    unsafe { $mul(self, o) }
                }
                #[inline(always)]
                unsafe fn relu(self) -> Self {
                    // The second operand is returned when one is NaN.
                    // SAFETY: see above.
                    unsafe { $max($zero(), self) }
                }
                #[inline(always)]
                unsafe fn sum(self) -> $t {
                    let mut lanes = [0.0; $lanes];
                    // SAFETY: the array holds LANES elements.
                    unsafe { $storeu(lanes.as_mut_ptr(), self) };
                    let mut width = $lanes / 2;
                    while width > 0 {
                        for i in 0..width {
                            lanes[i] += lanes[i + width];
                        }
                        width /= 2;
                    }
                    lanes[0]
                }
            }
        };
    }
    avx2!(
        __m256,
        f32,
        8,
        MASK32,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_maskload_ps,
        _mm256_maskstore_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_mul_ps,
        _mm256_max_ps,
        _mm256_setzero_ps
    );
    avx2!(
        __m256d,
        f64,
        4,
        MASK64,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_maskload_pd,
        _mm256_maskstore_pd,
        _mm256_fmadd_pd,
        _mm256_add_pd,
        _mm256_mul_pd,
        _mm256_max_pd,
        _mm256_setzero_pd
    );
}

/// Four lanes without intrinsics; the compiler uses what the target has (SSE2, NEON).
#[derive(Clone, Copy)]
pub struct Quad<T>([T; 4]);

impl<T: Scalar> Vector for Quad<T> {
    type T = T;
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(x: T) -> Self {
        Quad([x; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> Self {
        // SAFETY: four elements by the trait's contract; an array has its element's alignment.
        unsafe { Quad(p.cast::<[T; 4]>().read()) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut T) {
        // SAFETY: as for `load`.
        unsafe { p.cast::<[T; 4]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const T, n: usize) -> Self {
        let mut v = [T::ZERO; 4];
        for (i, x) in v.iter_mut().enumerate().take(n) {
            // SAFETY: the first `n` elements are valid.
            *x = unsafe { *p.add(i) };
        }
        Quad(v)
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut T, n: usize) {
        for i in 0..n.min(4) {
            // SAFETY: the first `n` elements are valid.
            unsafe { *p.add(i) = self.0[i] };
        }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // Not `mul_add`: without an FMA instruction that is a slow library call.
        Quad(std::array::from_fn(|i| self.0[i].mul(b.0[i]).add(c.0[i])))
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        Quad(std::array::from_fn(|i| self.0[i].add(o.0[i])))
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        Quad(std::array::from_fn(|i| self.0[i].mul(o.0[i])))
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Quad(std::array::from_fn(|i| if self.0[i] < T::ZERO { T::ZERO } else { self.0[i] }))
    }
    #[inline(always)]
    unsafe fn sum(self) -> T {
        let [a, b, c, d] = self.0;
        a.add(c).add(b.add(d))
    }
}
