//! AVX2 + FMA lane types: eight f32, four f64. Masks are full-width registers of all-ones lanes.
//!
//! The types are only made and used below `dispatch`, after the features were detected: that is what
//! the safety comments here call "by dispatch".

use super::base::{Base, soft_ldexp, soft_split};
use super::{F32Lanes, Lanes, fold};
use pyrite_core::expr::{Any, Mask};
use std::arch::x86_64::*;
use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Sub};

#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct F32x8(pub __m256);
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct F64x4(pub __m256d);
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct M32x8(pub __m256);
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct M64x4(pub __m256d);

/// An intrinsic that only needs its target feature.
macro_rules! i {
    ($e:expr) => {
        // SAFETY: the instruction touches no memory, and the features are there by dispatch.
        unsafe { $e }
    };
}

/// Bit k of `bits` becomes byte k, 0 or 1 (k < 8).
#[inline(always)]
fn spread(bits: i32) -> u64 {
    // Each byte keeps its own bit; adding 0x7f carries any non-zero byte into its top bit.
    let own = (bits as u8 as u64).wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
    ((own + 0x7f7f_7f7f_7f7f_7f7f) >> 7) & 0x0101_0101_0101_0101
}

/// The first `n <= 8` bytes as one number, the rest zero.
/// # Safety
/// `p` points to `n` readable bytes.
#[inline(always)]
unsafe fn bytes(p: *const u8, n: usize) -> i64 {
    if n == 8 {
        // SAFETY: eight readable bytes.
        return unsafe { p.cast::<i64>().read_unaligned() };
    }
    let mut b = [0u8; 8];
    for (k, v) in b.iter_mut().enumerate().take(n) {
        // SAFETY: k < n.
        *v = unsafe { *p.add(k) };
    }
    i64::from_le_bytes(b)
}

macro_rules! float256 {
    ($t:ident, $e:ty, $v:ident, $m:ident, $n:literal, $mant:literal, $top:literal, $s1:ident, $bits:ty,
     $magic:expr, $bias:expr, $mn:expr, $up:expr, $upe:expr,
     $loadu:ident $storeu:ident $stream:ident $blend:ident $cmp:ident
     $add:ident $sub:ident $mul:ident $div:ident $fma:ident $sqrt:ident $round:ident
     $and:ident $or:ident $xor:ident $andnot:ident $movemask:ident
     $max:ident $min:ident $cast:ident $castback:ident
     $iset:ident $iadd:ident $isub:ident $slli:ident $srli:ident $icmpgt:ident $ext:ident) => {
        impl BitAnd for $m {
            type Output = Self;
            #[inline(always)]
            fn bitand(self, o: Self) -> Self {
                $m(i!($and(self.0, o.0)))
            }
        }
        impl BitOr for $m {
            type Output = Self;
            #[inline(always)]
            fn bitor(self, o: Self) -> Self {
                $m(i!($or(self.0, o.0)))
            }
        }
        impl BitXor for $m {
            type Output = Self;
            #[inline(always)]
            fn bitxor(self, o: Self) -> Self {
                $m(i!($xor(self.0, o.0)))
            }
        }
        impl Not for $m {
            type Output = Self;
            #[inline(always)]
            fn not(self) -> Self {
                self ^ Self::splat(true)
            }
        }
        impl Mask for $m {
            #[inline(always)]
            fn splat(b: bool) -> Self {
                $m(i!($castback($iset(if b { -1 } else { 0 }))))
            }
            #[inline(always)]
            fn any(self) -> bool {
                i!($movemask(self.0)) != 0
            }
        }
        impl Any for $t {
            type M = $m;
            #[inline(always)]
            fn lit(v: f64) -> Self {
                Self::splat(v as $e)
            }
            #[inline(always)]
            fn select(m: $m, a: Self, b: Self) -> Self {
                $t(i!($blend(b.0, a.0, m.0)))
            }
            #[inline(always)]
            fn eq(a: Self, b: Self) -> $m {
                $m(i!($cmp::<_CMP_EQ_OQ>(a.0, b.0)))
            }
            #[inline(always)]
            fn lt(a: Self, b: Self) -> $m {
                $m(i!($cmp::<_CMP_LT_OQ>(a.0, b.0)))
            }
            #[inline(always)]
            fn le(a: Self, b: Self) -> $m {
                $m(i!($cmp::<_CMP_LE_OQ>(a.0, b.0)))
            }
        }
        impl Lanes for $t {
            type Elem = $e;
            const N: usize = $n;
            #[inline(always)]
            fn splat(v: $e) -> Self {
                $t(i!($s1(v)))
            }
            #[inline(always)]
            unsafe fn load(p: *const $e) -> Self {
                // SAFETY: the caller's promise of N readable elements; features by dispatch.
                $t(unsafe { $loadu(p) })
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $e) {
                // SAFETY: the caller's promise of N writable elements; features by dispatch.
                unsafe { $storeu(p, self.0) }
            }
            #[inline(always)]
            unsafe fn load_partial(p: *const $e, n: usize, fill: $e) -> Self {
                let mut a = [fill; $n];
                for (k, v) in a.iter_mut().enumerate().take(n) {
                    // SAFETY: k < n, which the caller promised readable.
                    *v = unsafe { p.add(k).read_unaligned() };
                }
                // SAFETY: the array has N elements.
                unsafe { Self::load(a.as_ptr()) }
            }
            #[inline(always)]
            unsafe fn store_partial(self, p: *mut $e, n: usize) {
                let a = self.array();
                for (k, v) in a.into_iter().enumerate().take(n) {
                    // SAFETY: k < n, which the caller promised writable.
                    unsafe { p.add(k).write_unaligned(v) };
                }
            }
            #[inline(always)]
            unsafe fn stream(self, p: *mut $e) {
                // SAFETY: the caller's promise of N writable aligned elements; features by dispatch.
                unsafe { $stream(p, self.0) }
            }
            #[inline(always)]
            unsafe fn store_mask(m: $m, p: *mut u8, n: usize) {
                let b = spread(i!($movemask(m.0))).to_le_bytes();
                // SAFETY: n <= N <= 8 bytes, promised writable.
                unsafe { std::ptr::copy_nonoverlapping(b.as_ptr(), p, n) }
            }
            #[inline(always)]
            unsafe fn load_mask(p: *const u8, n: usize) -> $m {
                // SAFETY: n readable bytes are promised; features by dispatch.
                $m(unsafe {
                    let w = $ext(_mm_cvtsi64_si128(bytes(p, n)));
                    $castback($icmpgt(w, _mm256_setzero_si256()))
                })
            }
            #[inline(always)]
            fn reduce_add(self) -> $e {
                fold(self.array(), |a, b| a + b)
            }
            #[inline(always)]
            fn reduce_max(self) -> $e {
                fold(self.array(), |a, b| if a > b || a.is_nan() { a } else { b })
            }
            #[inline(always)]
            fn reduce_min(self) -> $e {
                fold(self.array(), |a, b| if a < b || a.is_nan() { a } else { b })
            }
            #[inline(always)]
            fn extract(self, i: usize) -> $e {
                self.array()[i]
            }
        }
        impl $t {
            #[inline(always)]
            pub fn array(self) -> [$e; $n] {
                let mut a = [0.0; $n];
                // SAFETY: the array has N elements.
                unsafe { self.store(a.as_mut_ptr()) };
                a
            }
            #[inline(always)]
            fn sign_bit() -> $v {
                i!($castback($iset((1 as $bits << $top) as _)))
            }
        }
        impl Add for $t {
            type Output = Self;
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                $t(i!($add(self.0, o.0)))
            }
        }
        impl Sub for $t {
            type Output = Self;
            #[inline(always)]
            fn sub(self, o: Self) -> Self {
                $t(i!($sub(self.0, o.0)))
            }
        }
        impl Mul for $t {
            type Output = Self;
            #[inline(always)]
            fn mul(self, o: Self) -> Self {
                $t(i!($mul(self.0, o.0)))
            }
        }
        impl Div for $t {
            type Output = Self;
            #[inline(always)]
            fn div(self, o: Self) -> Self {
                $t(i!($div(self.0, o.0)))
            }
        }
        impl Neg for $t {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                $t(i!($xor(self.0, Self::sign_bit())))
            }
        }
        impl Base for $t {
            type I = __m256i;
            const FMA: bool = true;
            #[inline(always)]
            fn fma_(a: Self, b: Self, c: Self) -> Self {
                $t(i!($fma(a.0, b.0, c.0)))
            }
            #[inline(always)]
            fn fma_exact_(a: Self, b: Self, c: Self) -> Self {
                Self::fma_(a, b, c)
            }
            #[inline(always)]
            fn sqrt_(self) -> Self {
                $t(i!($sqrt(self.0)))
            }
            #[inline(always)]
            fn floor_(self) -> Self {
                $t(i!($round::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0)))
            }
            #[inline(always)]
            fn ceil_(self) -> Self {
                $t(i!($round::<{ _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC }>(self.0)))
            }
            #[inline(always)]
            fn trunc_(self) -> Self {
                $t(i!($round::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(self.0)))
            }
            #[inline(always)]
            fn round_(self) -> Self {
                $t(i!($round::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)))
            }
            #[inline(always)]
            fn abs_(self) -> Self {
                $t(i!($andnot(Self::sign_bit(), self.0)))
            }
            #[inline(always)]
            fn copysign_(a: Self, b: Self) -> Self {
                let s = Self::sign_bit();
                $t(i!($or($andnot(s, a.0), $and(s, b.0))))
            }
            #[inline(always)]
            fn max_(a: Self, b: Self) -> Self {
                $t(i!($max(a.0, b.0)))
            }
            #[inline(always)]
            fn min_(a: Self, b: Self) -> Self {
                $t(i!($min(a.0, b.0)))
            }
            #[inline(always)]
            fn is_nan_(self) -> $m {
                $m(i!($cmp::<_CMP_UNORD_Q>(self.0, self.0)))
            }
            #[inline(always)]
            fn sign_(self) -> $m {
                $m(i!($castback($icmpgt(_mm256_setzero_si256(), self.bits_()))))
            }
            #[inline(always)]
            fn ldexp_(self, n: Self) -> Self {
                soft_ldexp!(self, n, $magic, ($bias as i64) << $mant)
            }
            #[inline(always)]
            fn split_(self) -> (Self, Self) {
                let c75 = (0.75 as $e).to_bits() as i64;
                soft_split!(self, $mn, $up, $upe, c75, $bias, $magic)
            }
            #[inline(always)]
            fn bits_(self) -> __m256i {
                i!($cast(self.0))
            }
            #[inline(always)]
            fn of_bits_(i: __m256i) -> Self {
                $t(i!($castback(i)))
            }
            #[inline(always)]
            fn isplat_(v: i64) -> __m256i {
                i!($iset(v as _))
            }
            #[inline(always)]
            fn iadd_(a: __m256i, b: __m256i) -> __m256i {
                i!($iadd(a, b))
            }
            #[inline(always)]
            fn isub_(a: __m256i, b: __m256i) -> __m256i {
                i!($isub(a, b))
            }
            #[inline(always)]
            fn iand_(a: __m256i, b: __m256i) -> __m256i {
                i!(_mm256_and_si256(a, b))
            }
            #[inline(always)]
            fn ixor_(a: __m256i, b: __m256i) -> __m256i {
                i!(_mm256_xor_si256(a, b))
            }
            #[inline(always)]
            fn shl_mant_(a: __m256i) -> __m256i {
                i!($slli::<$mant>(a))
            }
            #[inline(always)]
            fn shr_mant_(a: __m256i) -> __m256i {
                i!($srli::<$mant>(a))
            }
            #[inline(always)]
            fn shl_sign_(a: __m256i) -> __m256i {
                i!($slli::<$top>(a))
            }
            #[inline(always)]
            fn shr1_(a: __m256i) -> __m256i {
                i!($srli::<1>(a))
            }
            #[inline(always)]
            fn odd_(a: __m256i) -> $m {
                let one = Self::isplat_(1);
                let low = Self::iand_(a, one);
                $m(i!($castback($icmpgt(low, _mm256_setzero_si256()))))
            }
            #[inline(always)]
            fn each_(self, f: impl Fn($e) -> $e) -> Self {
                let mut a = self.array();
                for v in &mut a {
                    *v = f(*v);
                }
                // SAFETY: the array has N elements.
                unsafe { Self::load(a.as_ptr()) }
            }
            #[inline(always)]
            fn each2_(self, b: Self, f: impl Fn($e, $e) -> $e) -> Self {
                let (mut a, b) = (self.array(), b.array());
                for (v, w) in a.iter_mut().zip(b) {
                    *v = f(*v, w);
                }
                // SAFETY: the array has N elements.
                unsafe { Self::load(a.as_ptr()) }
            }
        }
    };
}

float256!(F32x8, f32, __m256, M32x8, 8, 23, 31, _mm256_set1_ps, u32,
    12582912.0, 127, 1.1754943508222875e-38, 16777216.0, 24.0,
    _mm256_loadu_ps _mm256_storeu_ps _mm256_stream_ps _mm256_blendv_ps _mm256_cmp_ps
    _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_div_ps _mm256_fmadd_ps _mm256_sqrt_ps _mm256_round_ps
    _mm256_and_ps _mm256_or_ps _mm256_xor_ps _mm256_andnot_ps _mm256_movemask_ps
    _mm256_max_ps _mm256_min_ps _mm256_castps_si256 _mm256_castsi256_ps
    _mm256_set1_epi32 _mm256_add_epi32 _mm256_sub_epi32 _mm256_slli_epi32 _mm256_srli_epi32
    _mm256_cmpgt_epi32 _mm256_cvtepu8_epi32);
float256!(F64x4, f64, __m256d, M64x4, 4, 52, 63, _mm256_set1_pd, u64,
    6755399441055744.0, 1023, 2.2250738585072014e-308, 18014398509481984.0, 54.0,
    _mm256_loadu_pd _mm256_storeu_pd _mm256_stream_pd _mm256_blendv_pd _mm256_cmp_pd
    _mm256_add_pd _mm256_sub_pd _mm256_mul_pd _mm256_div_pd _mm256_fmadd_pd _mm256_sqrt_pd _mm256_round_pd
    _mm256_and_pd _mm256_or_pd _mm256_xor_pd _mm256_andnot_pd _mm256_movemask_pd
    _mm256_max_pd _mm256_min_pd _mm256_castpd_si256 _mm256_castsi256_pd
    _mm256_set1_epi64x _mm256_add_epi64 _mm256_sub_epi64 _mm256_slli_epi64 _mm256_srli_epi64
    _mm256_cmpgt_epi64 _mm256_cvtepu8_epi64);

impl F32Lanes for F32x8 {
    type D = F64x4;
    const PARTS: usize = 2;
    #[inline(always)]
    fn widen(self, part: usize) -> F64x4 {
        F64x4(if part == 0 {
            i!(_mm256_cvtps_pd(_mm256_castps256_ps128(self.0)))
        } else {
            i!(_mm256_cvtps_pd(_mm256_extractf128_ps::<1>(self.0)))
        })
    }
    #[inline(always)]
    fn narrow(lo: F64x4, hi: F64x4) -> Self {
        F32x8(i!(_mm256_set_m128(_mm256_cvtpd_ps(hi.0), _mm256_cvtpd_ps(lo.0))))
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: the caller's promise of N readable elements; features by dispatch.
        F32x8(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) })
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16) {
        // SAFETY: the caller's promise of N writable elements; features by dispatch.
        unsafe {
            let h = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0);
            _mm_storeu_si128(p.cast(), h)
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller's promise of N readable elements; features by dispatch.
        F32x8(unsafe {
            let w = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(w))
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) {
        // SAFETY: the caller's promise of N writable elements; features by dispatch.
        unsafe {
            let b = self.bits_();
            // Round to nearest even: add half an ulp, less one if the kept part is even.
            let lsb = _mm256_and_si256(_mm256_srli_epi32::<16>(b), _mm256_set1_epi32(1));
            let r = _mm256_add_epi32(b, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
            let quiet = _mm256_or_si256(b, _mm256_set1_epi32(0x0040_0000));
            let r = _mm256_blendv_epi8(r, quiet, _mm256_castps_si256(self.is_nan_().0));
            let r = _mm256_srli_epi32::<16>(r);
            // Packing works per half: the two middle quarters change places.
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(r, r));
            _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(packed))
        }
    }
}
