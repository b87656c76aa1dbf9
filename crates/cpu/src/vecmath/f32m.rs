//! f32 functions.

use super::{common, scalar};
use crate::simd::Base;

macro_rules! lane_wise {
    ($($f:ident)*) => { $(
        #[inline(always)]
        pub fn $f<V: Base<Elem = f32>>(x: V) -> V {
            x.each_(|v| scalar::$f(v as f64) as f32)
        }
    )* };
}
macro_rules! lane_wise2 {
    ($($f:ident)*) => { $(
        #[inline(always)]
        pub fn $f<V: Base<Elem = f32>>(a: V, b: V) -> V {
            a.each2_(b, |x, y| scalar::$f(x as f64, y as f64) as f32)
        }
    )* };
}
lane_wise!(exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh
    atanh sigmoid erf erfc erfinv lgamma digamma);
lane_wise2!(pow atan2 hypot);

#[inline(always)]
pub fn nextafter<V: Base<Elem = f32>>(a: V, b: V) -> V {
    a.each2_(b, scalar::nextafterf)
}

#[inline(always)]
pub fn fmod<V: Base<Elem = f32>>(a: V, b: V) -> V {
    common::fmod(a, b, 4194304.0, 1e-30, |x, y| x % y)
}
