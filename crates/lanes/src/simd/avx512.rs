//! AVX-512 lane types: sixteen f32, eight f64. Masks are mask registers.
//!
//! The types are only made and used below `dispatch`, after the features were detected: that is what
//! the safety comments here call "by dispatch".

use super::base::Base;
use super::{F32Lanes, Lanes, fold};
use pyrite_core::expr::{Any, Mask};
use std::arch::x86_64::*;
use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Sub};

#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct F32x16(pub __m512);
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct F64x8(pub __m512d);
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct M16(pub __mmask16);
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct M8(pub __mmask8);

/// An intrinsic that only needs its target feature.
macro_rules! i {
    ($e:expr) => {
        // SAFETY: the instruction touches no memory, and the features are there by dispatch.
        unsafe { $e }
    };
}

macro_rules! mask {
    ($m:ident, $u:ty) => {
        impl BitAnd for $m {
            type Output = Self;
            #[inline(always)]
            fn bitand(self, o: Self) -> Self {
                $m(self.0 & o.0)
            }
        }
        impl BitOr for $m {
            type Output = Self;
            #[inline(always)]
            fn bitor(self, o: Self) -> Self {
                $m(self.0 | o.0)
            }
        }
        impl BitXor for $m {
            type Output = Self;
            #[inline(always)]
            fn bitxor(self, o: Self) -> Self {
                $m(self.0 ^ o.0)
            }
        }
        impl Not for $m {
            type Output = Self;
            #[inline(always)]
            fn not(self) -> Self {
                $m(!self.0)
            }
        }
        impl Mask for $m {
            #[inline(always)]
            fn splat(b: bool) -> Self {
                $m(if b { <$u>::MAX } else { 0 })
            }
            #[inline(always)]
            fn any(self) -> bool {
                self.0 != 0
            }
        }
        impl $m {
            /// The first `n` lanes.
            #[inline(always)]
            fn first(n: usize) -> $u {
                if n >= <$u>::BITS as usize { <$u>::MAX } else { ((1u32 << n) - 1) as $u }
            }
        }
    };
}
mask!(M16, u16);
mask!(M8, u8);

macro_rules! float512 {
    ($t:ident, $e:ty, $i:ty, $m:ident, $n:literal, $mant:literal, $top:literal, $s1:ident, $bits:ty,
     $loadu:ident $storeu:ident $mloadu:ident $mstoreu:ident $stream:ident $blend:ident $cmp:ident
     $add:ident $sub:ident $mul:ident $div:ident $fma:ident $sqrt:ident $round:ident $abs:ident
     $max:ident $min:ident $scalef:ident $getexp:ident $getmant:ident $cast:ident $castback:ident
     $iset:ident $iadd:ident $isub:ident $iand:ident $ixor:ident $tern:ident $slli:ident $srli:ident $test:ident $movepi:ident) => {
        impl Any for $t {
            type M = $m;
            #[inline(always)]
            fn lit(v: f64) -> Self {
                Self::splat(v as $e)
            }
            #[inline(always)]
            fn select(m: $m, a: Self, b: Self) -> Self {
                $t(i!($blend(m.0, b.0, a.0)))
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
                // SAFETY: masked-off lanes are not read; features by dispatch.
                $t(unsafe { $mloadu(Self::splat(fill).0, $m::first(n), p) })
            }
            #[inline(always)]
            unsafe fn store_partial(self, p: *mut $e, n: usize) {
                // SAFETY: masked-off lanes are not written; features by dispatch.
                unsafe { $mstoreu(p, $m::first(n), self.0) }
            }
            #[inline(always)]
            unsafe fn stream(self, p: *mut $e) {
                // SAFETY: the caller's promise of N writable aligned elements; features by dispatch.
                unsafe { $stream(p, self.0) }
            }
            #[inline(always)]
            unsafe fn store_mask(m: $m, p: *mut u8, n: usize) {
                // SAFETY: only the first n bytes are written; features by dispatch.
                unsafe {
                    let ones = _mm_maskz_set1_epi8(m.0 as u16, 1);
                    _mm_mask_storeu_epi8(p.cast(), $m::first(n) as u16, ones)
                }
            }
            #[inline(always)]
            unsafe fn load_mask(p: *const u8, n: usize) -> $m {
                // SAFETY: only the first n bytes are read; features by dispatch.
                $m(unsafe {
                    let v = _mm_maskz_loadu_epi8($m::first(n) as u16, p.cast());
                    _mm_test_epi8_mask(v, v) as _
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
                Self::of_bits_(Self::ixor_(self.bits_(), Self::isplat_((1 as $bits << $top) as i64)))
            }
        }
        impl Base for $t {
            type I = __m512i;
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
                $t(i!($abs(self.0)))
            }
            #[inline(always)]
            fn copysign_(a: Self, b: Self) -> Self {
                let sign = Self::isplat_((1 as $bits << $top) as i64);
                // 0xCA: the second where the first (the mask) is set, else the third.
                Self::of_bits_(i!($tern::<0xCA>(sign, b.bits_(), a.bits_())))
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
                $m(i!($movepi(self.bits_())))
            }
            #[inline(always)]
            fn ldexp_(self, n: Self) -> Self {
                $t(i!($scalef(self.0, n.0)))
            }
            #[inline(always)]
            fn split_(self) -> (Self, Self) {
                let m = $t(i!($getmant::<_MM_MANT_NORM_P75_1P5, _MM_MANT_SIGN_ZERO>(self.0)));
                let e = $t(i!($getexp(self.0))) - $t(i!($getexp(m.0)));
                (m, e)
            }
            #[inline(always)]
            fn bits_(self) -> $i {
                i!($cast(self.0))
            }
            #[inline(always)]
            fn of_bits_(i: $i) -> Self {
                $t(i!($castback(i)))
            }
            #[inline(always)]
            fn isplat_(v: i64) -> $i {
                i!($iset(v as _))
            }
            #[inline(always)]
            fn iadd_(a: $i, b: $i) -> $i {
                i!($iadd(a, b))
            }
            #[inline(always)]
            fn isub_(a: $i, b: $i) -> $i {
                i!($isub(a, b))
            }
            #[inline(always)]
            fn iand_(a: $i, b: $i) -> $i {
                i!($iand(a, b))
            }
            #[inline(always)]
            fn ixor_(a: $i, b: $i) -> $i {
                i!($ixor(a, b))
            }
            #[inline(always)]
            fn shl_mant_(a: $i) -> $i {
                i!($slli::<$mant>(a))
            }
            #[inline(always)]
            fn shr_mant_(a: $i) -> $i {
                i!($srli::<$mant>(a))
            }
            #[inline(always)]
            fn shl_sign_(a: $i) -> $i {
                i!($slli::<$top>(a))
            }
            #[inline(always)]
            fn shr1_(a: $i) -> $i {
                i!($srli::<1>(a))
            }
            #[inline(always)]
            fn odd_(a: $i) -> $m {
                $m(i!($test(a, Self::isplat_(1))))
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

float512!(F32x16, f32, __m512i, M16, 16, 23, 31, _mm512_set1_ps, u32,
    _mm512_loadu_ps _mm512_storeu_ps _mm512_mask_loadu_ps _mm512_mask_storeu_ps _mm512_stream_ps
    _mm512_mask_blend_ps _mm512_cmp_ps_mask
    _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_div_ps _mm512_fmadd_ps _mm512_sqrt_ps
    _mm512_roundscale_ps _mm512_abs_ps _mm512_max_ps _mm512_min_ps _mm512_scalef_ps _mm512_getexp_ps
    _mm512_getmant_ps _mm512_castps_si512 _mm512_castsi512_ps
    _mm512_set1_epi32 _mm512_add_epi32 _mm512_sub_epi32 _mm512_and_si512 _mm512_xor_si512
    _mm512_ternarylogic_epi32 _mm512_slli_epi32 _mm512_srli_epi32 _mm512_test_epi32_mask
    _mm512_movepi32_mask);
float512!(F64x8, f64, __m512i, M8, 8, 52, 63, _mm512_set1_pd, u64,
    _mm512_loadu_pd _mm512_storeu_pd _mm512_mask_loadu_pd _mm512_mask_storeu_pd _mm512_stream_pd
    _mm512_mask_blend_pd _mm512_cmp_pd_mask
    _mm512_add_pd _mm512_sub_pd _mm512_mul_pd _mm512_div_pd _mm512_fmadd_pd _mm512_sqrt_pd
    _mm512_roundscale_pd _mm512_abs_pd _mm512_max_pd _mm512_min_pd _mm512_scalef_pd _mm512_getexp_pd
    _mm512_getmant_pd _mm512_castpd_si512 _mm512_castsi512_pd
    _mm512_set1_epi64 _mm512_add_epi64 _mm512_sub_epi64 _mm512_and_si512 _mm512_xor_si512
    _mm512_ternarylogic_epi64 _mm512_slli_epi64 _mm512_srli_epi64 _mm512_test_epi64_mask
    _mm512_movepi64_mask);

impl F32Lanes for F32x16 {
    type D = F64x8;
    const PARTS: usize = 2;
    #[inline(always)]
    fn widen(self, part: usize) -> F64x8 {
        F64x8(if part == 0 {
            i!(_mm512_cvtps_pd(_mm512_castps512_ps256(self.0)))
        } else {
            i!(_mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(self.0)))
        })
    }
    #[inline(always)]
    fn narrow(lo: F64x8, hi: F64x8) -> Self {
        F32x16(i!(_mm512_insertf32x8::<1>(
            _mm512_castps256_ps512(_mm512_cvtpd_ps(lo.0)),
            _mm512_cvtpd_ps(hi.0)
        )))
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: the caller's promise of N readable elements; features by dispatch.
        F32x16(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) })
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16) {
        // SAFETY: the caller's promise of N writable elements; features by dispatch.
        unsafe {
            let h = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0);
            _mm256_storeu_si256(p.cast(), h)
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller's promise of N readable elements; features by dispatch.
        F32x16(unsafe {
            let w = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(w))
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) {
        // SAFETY: the caller's promise of N writable elements; features by dispatch.
        unsafe {
            let b = self.bits_();
            // Round to nearest even: add half an ulp, less one if the kept part is even.
            let lsb = _mm512_and_si512(_mm512_srli_epi32::<16>(b), _mm512_set1_epi32(1));
            let r = _mm512_add_epi32(b, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff)));
            let quiet = _mm512_or_si512(b, _mm512_set1_epi32(0x0040_0000));
            let r = _mm512_mask_blend_epi32(self.is_nan_().0, r, quiet);
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(r)))
        }
    }
}
