//! Complex lanes: `S<Complex<f32>>` and `S<Complex<f64>>`, one number each. Arithmetic is plain code that
//! the compiler vectorises where it can; functions are those of `vecmath::complex`.

use super::Lanes;
use super::scalar::{MB, S, one_lane_memory};
use crate::vecmath::complex as f;
use pyrite_core::dtype::Complex;
use pyrite_core::expr::{Any, Field, Ring};
use std::ops::{Add, Div, Mul, Neg, Sub};

macro_rules! complex_lane {
    ($t:ident) => {
        impl S<Complex<$t>> {
            #[inline(always)]
            fn new(re: $t, im: $t) -> Self {
                S(Complex { re, im })
            }
            #[inline(always)]
            fn wide(self) -> f::Z {
                Complex { re: self.0.re as f64, im: self.0.im as f64 }
            }
            #[inline(always)]
            fn of(z: f::Z) -> Self {
                Self::new(z.re as $t, z.im as $t)
            }
        }
        impl Any for S<Complex<$t>> {
            type M = MB;
            #[inline(always)]
            fn lit(v: f64) -> Self {
                Self::new(v as $t, 0.0)
            }
            #[inline(always)]
            fn select(m: MB, a: Self, b: Self) -> Self {
                if m.0 { a } else { b }
            }
            #[inline(always)]
            fn eq(a: Self, b: Self) -> MB {
                MB((a.0.re == b.0.re) & (a.0.im == b.0.im))
            }
            #[inline(always)]
            fn lt(a: Self, b: Self) -> MB {
                MB(a.0.re < b.0.re)
            }
            #[inline(always)]
            fn le(a: Self, b: Self) -> MB {
                MB(a.0.re <= b.0.re)
            }
        }
        impl Lanes for S<Complex<$t>> {
            one_lane_memory!(Complex<$t>);
            const CHAINS: bool = true;
        }
        impl Add for S<Complex<$t>> {
            type Output = Self;
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                Self::new(self.0.re + o.0.re, self.0.im + o.0.im)
            }
        }
        impl Sub for S<Complex<$t>> {
            type Output = Self;
            #[inline(always)]
            fn sub(self, o: Self) -> Self {
                Self::new(self.0.re - o.0.re, self.0.im - o.0.im)
            }
        }
        impl Mul for S<Complex<$t>> {
            type Output = Self;
            #[inline(always)]
            fn mul(self, o: Self) -> Self {
                let (a, b) = (self.0, o.0);
                Self::new(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)
            }
        }
        impl Div for S<Complex<$t>> {
            type Output = Self;
            #[inline(always)]
            fn div(self, o: Self) -> Self {
                Self::of(f::div(self.wide(), o.wide()))
            }
        }
        impl Neg for S<Complex<$t>> {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                Self::new(-self.0.re, -self.0.im)
            }
        }
        impl Ring for S<Complex<$t>> {
            #[inline(always)]
            fn abs(self) -> Self {
                Self::new(self.0.re.hypot(self.0.im), 0.0)
            }
            #[inline(always)]
            fn conj(self) -> Self {
                Self::new(self.0.re, -self.0.im)
            }
            #[inline(always)]
            fn pow(a: Self, b: Self) -> Self {
                Self::of(f::pow(a.wide(), b.wide()))
            }
        }
        complex_lane!(@field $t: sqrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan
            sinh cosh tanh asinh acosh atanh sigmoid);
    };
    (@field $t:ident: $($name:ident)*) => {
        impl Field for S<Complex<$t>> { $(
            #[inline(always)]
            fn $name(self) -> Self {
                Self::of(f::$name(self.wide()))
            }
        )* }
    };
}

complex_lane!(f32);
complex_lane!(f64);
