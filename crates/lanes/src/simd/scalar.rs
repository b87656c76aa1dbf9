//! The scalar lane type `S<T>`: one lane. Floats here (the portable set), integers in `int.rs`.

use super::base::{Base, soft_ldexp, soft_split};
use super::{F32Lanes, Lanes};
use pyrite_core::expr::{Any, Mask};
use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Sub};

/// One value as a lane type.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct S<T>(pub T);

/// The mask of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct MB(pub bool);

impl BitAnd for MB {
    type Output = Self;
    #[inline(always)]
    fn bitand(self, o: Self) -> Self {
        MB(self.0 & o.0)
    }
}
impl BitOr for MB {
    type Output = Self;
    #[inline(always)]
    fn bitor(self, o: Self) -> Self {
        MB(self.0 | o.0)
    }
}
impl BitXor for MB {
    type Output = Self;
    #[inline(always)]
    fn bitxor(self, o: Self) -> Self {
        MB(self.0 ^ o.0)
    }
}
impl Not for MB {
    type Output = Self;
    #[inline(always)]
    fn not(self) -> Self {
        MB(!self.0)
    }
}
impl Mask for MB {
    #[inline(always)]
    fn splat(b: bool) -> Self {
        MB(b)
    }
    #[inline(always)]
    fn any(self) -> bool {
        self.0
    }
}

/// The parts of `Lanes` that are the same for every one-lane type holding its element.
macro_rules! one_lane_memory {
    ($t:ty) => {
        type Elem = $t;
        const N: usize = 1;
        #[inline(always)]
        fn splat(v: $t) -> Self {
            S(v)
        }
        #[inline(always)]
        unsafe fn load(p: *const $t) -> Self {
            // SAFETY: the caller's promise: one readable element.
            S(unsafe { p.read_unaligned() })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut $t) {
            // SAFETY: the caller's promise: one writable element.
            unsafe { p.write_unaligned(self.0) }
        }
        #[inline(always)]
        unsafe fn load_partial(p: *const $t, n: usize, fill: $t) -> Self {
            if n == 0 {
                return S(fill);
            }
            // SAFETY: the caller promised one readable element.
            unsafe { Self::load(p) }
        }
        #[inline(always)]
        unsafe fn store_partial(self, p: *mut $t, n: usize) {
            if n != 0 {
                // SAFETY: the caller promised one writable element.
                unsafe { self.store(p) }
            }
        }
        #[inline(always)]
        unsafe fn stream(self, p: *mut $t) {
            // SAFETY: the caller's promise: one writable element.
            unsafe { self.store(p) }
        }
        #[inline(always)]
        unsafe fn store_mask(m: MB, p: *mut u8, n: usize) {
            if n != 0 {
                // SAFETY: the caller promised one writable byte.
                unsafe { *p = m.0 as u8 }
            }
        }
        #[inline(always)]
        unsafe fn load_mask(p: *const u8, n: usize) -> MB {
            // SAFETY: read only if the caller promised one byte.
            MB(n != 0 && unsafe { *p } != 0)
        }
        #[inline(always)]
        fn reduce_add(self) -> $t {
            self.0
        }
        #[inline(always)]
        fn reduce_max(self) -> $t {
            self.0
        }
        #[inline(always)]
        fn reduce_min(self) -> $t {
            self.0
        }
        #[inline(always)]
        fn extract(self, _: usize) -> $t {
            self.0
        }
    };
}
pub(super) use one_lane_memory;

/// `Any` for a one-lane number.
macro_rules! one_lane_any {
    ($t:ty, $lit:expr) => {
        impl Any for S<$t> {
            type M = MB;
            #[inline(always)]
            fn lit(v: f64) -> Self {
                S($lit(v))
            }
            #[inline(always)]
            fn select(m: MB, a: Self, b: Self) -> Self {
                if m.0 { a } else { b }
            }
            #[inline(always)]
            fn eq(a: Self, b: Self) -> MB {
                MB(a.0 == b.0)
            }
            #[inline(always)]
            fn lt(a: Self, b: Self) -> MB {
                MB(a.0 < b.0)
            }
            #[inline(always)]
            fn le(a: Self, b: Self) -> MB {
                MB(a.0 <= b.0)
            }
        }
    };
}
pub(super) use one_lane_any;

/// Fused multiply-add costs a library call where the target has no such instruction.
const HAS_FMA: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

macro_rules! scalar_float {
    ($t:ty, $bits:ty, $mant:expr, $magic:expr, $bias:expr, $min:expr, $up:expr, $upe:expr) => {
        one_lane_any!($t, |v: f64| v as $t);
        impl Lanes for S<$t> {
            one_lane_memory!($t);
        }
        impl Add for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                S(self.0 + o.0)
            }
        }
        impl Sub for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn sub(self, o: Self) -> Self {
                S(self.0 - o.0)
            }
        }
        impl Mul for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn mul(self, o: Self) -> Self {
                S(self.0 * o.0)
            }
        }
        impl Div for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn div(self, o: Self) -> Self {
                S(self.0 / o.0)
            }
        }
        impl Neg for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                S(-self.0)
            }
        }
        impl Base for S<$t> {
            type I = $bits;
            const FMA: bool = HAS_FMA;
            #[inline(always)]
            fn fma_(a: Self, b: Self, c: Self) -> Self {
                if HAS_FMA { S(a.0.mul_add(b.0, c.0)) } else { S(a.0 * b.0 + c.0) }
            }
            #[inline(always)]
            fn fma_exact_(a: Self, b: Self, c: Self) -> Self {
                S(a.0.mul_add(b.0, c.0))
            }
            #[inline(always)]
            fn sqrt_(self) -> Self {
                S(self.0.sqrt())
            }
            #[inline(always)]
            fn floor_(self) -> Self {
                S(self.0.floor())
            }
            #[inline(always)]
            fn ceil_(self) -> Self {
                S(self.0.ceil())
            }
            #[inline(always)]
            fn trunc_(self) -> Self {
                S(self.0.trunc())
            }
            #[inline(always)]
            fn round_(self) -> Self {
                S(self.0.round_ties_even())
            }
            #[inline(always)]
            fn abs_(self) -> Self {
                S(self.0.abs())
            }
            #[inline(always)]
            fn copysign_(a: Self, b: Self) -> Self {
                S(a.0.copysign(b.0))
            }
            #[inline(always)]
            fn max_(a: Self, b: Self) -> Self {
                if a.0 > b.0 { a } else { b }
            }
            #[inline(always)]
            fn min_(a: Self, b: Self) -> Self {
                if a.0 < b.0 { a } else { b }
            }
            #[inline(always)]
            fn is_nan_(self) -> MB {
                MB(self.0.is_nan())
            }
            #[inline(always)]
            fn sign_(self) -> MB {
                MB(self.0.is_sign_negative())
            }
            #[inline(always)]
            fn ldexp_(self, n: Self) -> Self {
                soft_ldexp!(self, n, $magic, ($bias as i64) << $mant)
            }
            #[inline(always)]
            fn split_(self) -> (Self, Self) {
                let c75 = (0.75 as $t).to_bits() as i64;
                soft_split!(self, $min, $up, $upe, c75, $bias, $magic)
            }
            #[inline(always)]
            fn bits_(self) -> $bits {
                self.0.to_bits()
            }
            #[inline(always)]
            fn of_bits_(i: $bits) -> Self {
                S(<$t>::from_bits(i))
            }
            #[inline(always)]
            fn isplat_(v: i64) -> $bits {
                v as $bits
            }
            #[inline(always)]
            fn iadd_(a: $bits, b: $bits) -> $bits {
                a.wrapping_add(b)
            }
            #[inline(always)]
            fn isub_(a: $bits, b: $bits) -> $bits {
                a.wrapping_sub(b)
            }
            #[inline(always)]
            fn iand_(a: $bits, b: $bits) -> $bits {
                a & b
            }
            #[inline(always)]
            fn ixor_(a: $bits, b: $bits) -> $bits {
                a ^ b
            }
            #[inline(always)]
            fn shl_mant_(a: $bits) -> $bits {
                a << $mant
            }
            #[inline(always)]
            fn shr_mant_(a: $bits) -> $bits {
                a >> $mant
            }
            #[inline(always)]
            fn shl_sign_(a: $bits) -> $bits {
                a << (<$bits>::BITS - 1)
            }
            #[inline(always)]
            fn shr1_(a: $bits) -> $bits {
                a >> 1
            }
            #[inline(always)]
            fn odd_(a: $bits) -> MB {
                MB(a & 1 != 0)
            }
            #[inline(always)]
            fn each_(self, f: impl Fn($t) -> $t) -> Self {
                S(f(self.0))
            }
            #[inline(always)]
            fn each2_(self, b: Self, f: impl Fn($t, $t) -> $t) -> Self {
                S(f(self.0, b.0))
            }
        }
    };
}

scalar_float!(f32, u32, 23, 12582912.0, 127, 1.1754943508222875e-38, 16777216.0, 24.0);
scalar_float!(f64, u64, 52, 6755399441055744.0, 1023, 2.2250738585072014e-308, 18014398509481984.0, 54.0);

impl F32Lanes for S<f32> {
    type D = S<f64>;
    const PARTS: usize = 1;
    #[inline(always)]
    fn widen(self, _: usize) -> S<f64> {
        S(self.0 as f64)
    }
    #[inline(always)]
    fn narrow(lo: S<f64>, _: S<f64>) -> Self {
        S(lo.0 as f32)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: the caller's promise: one readable element.
        S(half::f16::from_bits(unsafe { p.read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16) {
        // SAFETY: the caller's promise: one writable element.
        unsafe { p.write_unaligned(half::f16::from_f32(self.0).to_bits()) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller's promise: one readable element.
        S(half::bf16::from_bits(unsafe { p.read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) {
        // SAFETY: the caller's promise: one writable element.
        unsafe { p.write_unaligned(half::bf16::from_f32(self.0).to_bits()) }
    }
}
