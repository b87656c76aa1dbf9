//! f64 functions.

use super::{common, scalar};
use crate::simd::Base;

macro_rules! lane_wise {
    ($($f:ident)*) => { $(
        #[inline(always)]
        pub fn $f<V: Base<Elem = f64>>(x: V) -> V {
            x.each_(scalar::$f)
        }
    )* };
}
macro_rules! lane_wise2 {
    ($($f:ident)*) => { $(
        #[inline(always)]
        pub fn $f<V: Base<Elem = f64>>(a: V, b: V) -> V {
            a.each2_(b, scalar::$f)
        }
    )* };
}
lane_wise!(exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh
    atanh sigmoid erf erfc erfinv lgamma digamma);
lane_wise2!(pow atan2 hypot nextafter);

#[inline(always)]
pub fn fmod<V: Base<Elem = f64>>(a: V, b: V) -> V {
    common::fmod(a, b, 2251799813685248.0, 1e-280, |x, y| x % y)
}
