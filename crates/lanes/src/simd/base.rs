//! The basic operations that `vecmath` is written in: one polynomial source for every float lane type.
//!
//! Names end in `_` so that they never clash with the vocabulary of `pyrite_core::expr` on a type
//! that has both.

use super::Lanes;
use std::ops::{Add, Div, Mul, Neg, Sub};

pub trait Base:
    Lanes + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// Integers as wide as the float, one per lane.
    type I: Copy;
    /// Is `fma_` one rounding? (False for scalars on machines where that would be a library call.)
    const FMA: bool;
    /// `a * b + c`, one rounding if `FMA`.
    fn fma_(a: Self, b: Self, c: Self) -> Self;
    /// `a * b + c`, one rounding always; slow where not `FMA`.
    fn fma_exact_(a: Self, b: Self, c: Self) -> Self;
    fn sqrt_(self) -> Self;
    fn floor_(self) -> Self;
    fn ceil_(self) -> Self;
    fn trunc_(self) -> Self;
    fn round_(self) -> Self;
    fn abs_(self) -> Self;
    fn copysign_(a: Self, b: Self) -> Self;
    /// The greater; `b` if either is NaN.
    fn max_(a: Self, b: Self) -> Self;
    /// The smaller; `b` if either is NaN.
    fn min_(a: Self, b: Self) -> Self;
    fn is_nan_(self) -> Self::M;
    /// True where the sign bit is set.
    fn sign_(self) -> Self::M;
    /// `self * 2^n` for integral `n` (|n| below twice the exponent range), one rounding.
    fn ldexp_(self, n: Self) -> Self;
    /// `(m, e)` with `self = m * 2^e` and `m` in [0.75, 1.5); positive finite `self`, denormals included.
    fn split_(self) -> (Self, Self);
    fn bits_(self) -> Self::I;
    fn of_bits_(i: Self::I) -> Self;
    fn isplat_(v: i64) -> Self::I;
    fn iadd_(a: Self::I, b: Self::I) -> Self::I;
    fn isub_(a: Self::I, b: Self::I) -> Self::I;
    fn iand_(a: Self::I, b: Self::I) -> Self::I;
    fn ixor_(a: Self::I, b: Self::I) -> Self::I;
    /// Left by the number of mantissa bits (23 or 52).
    fn shl_mant_(a: Self::I) -> Self::I;
    /// Right, logical, by the number of mantissa bits.
    fn shr_mant_(a: Self::I) -> Self::I;
    /// Lowest bit to the sign bit (the others are lost).
    fn shl_sign_(a: Self::I) -> Self::I;
    /// Right by one, logical.
    fn shr1_(a: Self::I) -> Self::I;
    /// True where the lowest bit is set.
    fn odd_(a: Self::I) -> Self::M;
    /// A scalar function on every lane. The closure must not compute on lanes.
    fn each_(self, f: impl Fn(Self::Elem) -> Self::Elem) -> Self;
    /// A scalar function on every pair of lanes.
    fn each2_(self, b: Self, f: impl Fn(Self::Elem, Self::Elem) -> Self::Elem) -> Self;
}

/// `ldexp_` in two exact steps and one rounding, for sets without a scaling instruction.
/// `magic` is 1.5 * 2^mantissa bits, `bias` the exponent bias already shifted into place.
macro_rules! soft_ldexp {
    ($x:expr, $n:expr, $magic:expr, $bias:expr) => {{
        let magic = Self::lit($magic);
        let bias = Self::isplat_($bias);
        let n1 = ($n * Self::lit(0.5)).floor_();
        let n2 = $n - n1;
        let p1 = Self::of_bits_(Self::iadd_(Self::shl_mant_((n1 + magic).bits_()), bias));
        let p2 = Self::of_bits_(Self::iadd_(Self::shl_mant_((n2 + magic).bits_()), bias));
        $x * p1 * p2
    }};
}
pub(crate) use soft_ldexp;

/// `split_` by integer arithmetic on the bits. `$up` scales denormals, `$upe` is its exponent.
macro_rules! soft_split {
    ($x:expr, $min:expr, $up:expr, $upe:expr, $c75:expr, $bias:expr, $magic:expr) => {{
        let tiny = <Self as Any>::lt($x, Self::lit($min));
        let x = <Self as Any>::select(tiny, $x * Self::lit($up), $x);
        let ix = x.bits_();
        // Exponent counted from 0.75, kept positive because not every set shifts arithmetically.
        let t = Self::iadd_(Self::isub_(ix, Self::isplat_($c75)), Self::shl_mant_(Self::isplat_($bias)));
        let e = Self::isub_(Self::shr_mant_(t), Self::isplat_($bias));
        let m = Self::of_bits_(Self::isub_(ix, Self::shl_mant_(e)));
        let magic = Self::lit($magic);
        let ef = Self::of_bits_(Self::iadd_(e, magic.bits_())) - magic;
        let ef = <Self as Any>::select(tiny, ef - Self::lit($upe), ef);
        (m, ef)
    }};
}
pub(crate) use soft_split;
