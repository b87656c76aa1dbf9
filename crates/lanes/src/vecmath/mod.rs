//! The vocabulary's arithmetic and functions for float lanes: one source for every instruction set.
//!
//! `common` holds what both widths share (polynomials, remainders, comparisons), `f64m` and `trig64`
//! the f64 functions, `f32m` the f32 ones (the busiest have their own polynomials, the others run in
//! f64 lanes), `coef32` and `coef64` the coefficients, `scalar` what is computed lane by lane, `complex` the
//! functions of complex numbers.
//!
//! No branch depends on a lane's neighbours in a way that changes its result: the same input gives the
//! same output at every position of an array, tails included.

mod coef32;
mod coef64;
pub(crate) mod common;
pub mod complex;
pub(crate) mod f32m;
pub(crate) mod f64m;
pub mod scalar;
#[cfg(test)]
mod tests;
mod trig64;

use crate::simd::{Base, S};
use pyrite_core::expr::{Field, Float, Num, Ring};

/// A lane's number as f64 and back.
trait Wide: Copy {
    fn wide(self) -> f64;
    fn narrow(v: f64) -> Self;
}
impl Wide for f32 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self as f64
    }
    #[inline(always)]
    fn narrow(v: f64) -> f32 {
        v as f32
    }
}
impl Wide for f64 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn narrow(v: f64) -> f64 {
        v
    }
}

macro_rules! vocabulary {
    ($t:ty, $m:ident) => {
        impl Ring for $t {
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs_()
            }
            #[inline(always)]
            fn pow(a: Self, b: Self) -> Self {
                $m::pow(a, b)
            }
        }
        impl Num for $t {
            #[inline(always)]
            fn maximum(a: Self, b: Self) -> Self {
                common::maximum(a, b)
            }
            #[inline(always)]
            fn minimum(a: Self, b: Self) -> Self {
                common::minimum(a, b)
            }
            #[inline(always)]
            fn fmod(a: Self, b: Self) -> Self {
                $m::fmod(a, b)
            }
            #[inline(always)]
            fn trunc_div(a: Self, b: Self) -> Self {
                (a / b).trunc_()
            }
            #[inline(always)]
            fn floor_div(a: Self, b: Self) -> Self {
                common::floor_div(a, b, $m::fmod(a, b))
            }
            #[inline(always)]
            fn remainder(a: Self, b: Self) -> Self {
                common::remainder(b, $m::fmod(a, b))
            }
        }
        impl Field for $t {
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt_()
            }
            vocabulary!(@unary $m: exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh
                cosh tanh asinh acosh atanh sigmoid);
        }
        impl Float for $t {
            #[inline(always)]
            fn fma(a: Self, b: Self, c: Self) -> Self {
                Self::fma_(a, b, c)
            }
            #[inline(always)]
            fn floor(self) -> Self {
                self.floor_()
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                self.ceil_()
            }
            #[inline(always)]
            fn trunc(self) -> Self {
                self.trunc_()
            }
            #[inline(always)]
            fn round(self) -> Self {
                self.round_()
            }
            #[inline(always)]
            fn copysign(a: Self, b: Self) -> Self {
                Self::copysign_(a, b)
            }
            #[inline(always)]
            fn each(self, f: fn(f64) -> f64) -> Self {
                self.each_(|x| Wide::narrow(f(x.wide())))
            }
            #[inline(always)]
            fn each2(a: Self, b: Self, f: fn(f64, f64) -> f64) -> Self {
                a.each2_(b, |x, y| Wide::narrow(f(x.wide(), y.wide())))
            }
            #[inline(always)]
            fn signbit(self) -> Self::M {
                self.sign_()
            }
            #[inline(always)]
            fn atan2(y: Self, x: Self) -> Self {
                $m::atan2(y, x)
            }
            #[inline(always)]
            fn hypot(a: Self, b: Self) -> Self {
                $m::hypot(a, b)
            }
            #[inline(always)]
            fn nextafter(a: Self, b: Self) -> Self {
                $m::nextafter(a, b)
            }
            vocabulary!(@unary $m: erf erfc erfinv lgamma digamma);
        }
    };
    (@unary $m:ident: $($f:ident)*) => { $(
        #[inline(always)]
        fn $f(self) -> Self { $m::$f(self) }
    )* };
}

vocabulary!(S<f32>, f32m);
vocabulary!(S<f64>, f64m);
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use crate::simd::{F32x8, F32x16, F64x4, F64x8};
    vocabulary!(F32x8, f32m);
    vocabulary!(F32x16, f32m);
    vocabulary!(F64x4, f64m);
    vocabulary!(F64x8, f64m);
}
