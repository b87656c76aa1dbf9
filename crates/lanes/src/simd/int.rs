//! Integer lanes: `S<i8>` ... `S<u64>`, wrapping. Branch-free where the operation allows it, so that
//! loops over them are vectorised by the compiler.

use super::Lanes;
use super::scalar::{MB, S, one_lane_any, one_lane_memory};
use pyrite_core::expr::{Any, Int, Num, Ring};
use std::ops::{Add, BitAnd, BitOr, BitXor, Mul, Neg, Not, Sub};

macro_rules! int_lane {
    ($t:ident, $u:ident, $signed:literal) => {
        // Through i128, so that negative constants wrap for unsigned types instead of saturating;
        // infinities are the extremes, where reductions to a maximum or minimum start.
        one_lane_any!($t, |v: f64| if v.is_infinite() {
            if v > 0.0 { $t::MAX } else { $t::MIN }
        } else {
            v as i128 as $t
        });
        impl Lanes for S<$t> {
            one_lane_memory!($t);
        }
        impl Add for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                S(self.0.wrapping_add(o.0))
            }
        }
        impl Sub for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn sub(self, o: Self) -> Self {
                S(self.0.wrapping_sub(o.0))
            }
        }
        impl Mul for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn mul(self, o: Self) -> Self {
                S(self.0.wrapping_mul(o.0))
            }
        }
        impl Neg for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                S(self.0.wrapping_neg())
            }
        }
        impl BitAnd for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn bitand(self, o: Self) -> Self {
                S(self.0 & o.0)
            }
        }
        impl BitOr for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn bitor(self, o: Self) -> Self {
                S(self.0 | o.0)
            }
        }
        impl BitXor for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn bitxor(self, o: Self) -> Self {
                S(self.0 ^ o.0)
            }
        }
        impl Not for S<$t> {
            type Output = Self;
            #[inline(always)]
            fn not(self) -> Self {
                S(!self.0)
            }
        }
        #[allow(unused_comparisons)]
        impl Ring for S<$t> {
            #[inline(always)]
            fn abs(self) -> Self {
                if self.0 < 0 { -self } else { self }
            }
            #[inline(always)]
            fn pow(a: Self, b: Self) -> Self {
                if b.0 < 0 {
                    // 1 / a^|b| rounded towards zero: only 1 and -1 leave anything.
                    return S(if a.0 == 1 {
                        1
                    } else if $signed && a.0 == (0 as $t).wrapping_sub(1) {
                        if b.0 & 1 == 0 { 1 } else { (0 as $t).wrapping_sub(1) }
                    } else {
                        0
                    });
                }
                let (mut base, mut e, mut r) = (a.0, b.0 as $u, 1 as $t);
                while e != 0 {
                    if e & 1 != 0 {
                        r = r.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    e >>= 1;
                }
                S(r)
            }
        }
        #[allow(unused_comparisons)]
        impl Num for S<$t> {
            #[inline(always)]
            fn maximum(a: Self, b: Self) -> Self {
                S(a.0.max(b.0))
            }
            #[inline(always)]
            fn minimum(a: Self, b: Self) -> Self {
                S(a.0.min(b.0))
            }
            #[inline(always)]
            fn fmod(a: Self, b: Self) -> Self {
                if b.0 == 0 { S(0) } else { S(a.0.wrapping_rem(b.0)) }
            }
            #[inline(always)]
            fn trunc_div(a: Self, b: Self) -> Self {
                if b.0 == 0 { S(0) } else { S(a.0.wrapping_div(b.0)) }
            }
            #[inline(always)]
            fn floor_div(a: Self, b: Self) -> Self {
                if b.0 == 0 {
                    return S(0);
                }
                let (q, r) = (a.0.wrapping_div(b.0), a.0.wrapping_rem(b.0));
                S(if r != 0 && (r < 0) != (b.0 < 0) { q.wrapping_sub(1) } else { q })
            }
            #[inline(always)]
            fn remainder(a: Self, b: Self) -> Self {
                if b.0 == 0 {
                    return S(0);
                }
                let r = a.0.wrapping_rem(b.0);
                S(if r != 0 && (r < 0) != (b.0 < 0) { r.wrapping_add(b.0) } else { r })
            }
        }
        #[allow(unused_comparisons)]
        impl Int for S<$t> {
            #[inline(always)]
            fn shl(a: Self, b: Self) -> Self {
                // As unsigned, a negative amount is over-wide too.
                let s = b.0 as $u;
                let r = a.0.wrapping_shl(s as u32);
                S(if s < $t::BITS as $u { r } else { 0 })
            }
            #[inline(always)]
            fn shr(a: Self, b: Self) -> Self {
                let s = b.0 as $u;
                let last = $t::BITS - 1;
                let r = a.0.wrapping_shr(s as u32);
                let over = if $signed { a.0.wrapping_shr(last) } else { 0 };
                S(if s < $t::BITS as $u { r } else { over })
            }
            #[inline(always)]
            fn gcd(a: Self, b: Self) -> Self {
                let (mut x, mut y) = (a.abs().0 as $u, b.abs().0 as $u);
                while y != 0 {
                    (x, y) = (y, x % y);
                }
                S(x as $t)
            }
            #[inline(always)]
            fn lcm(a: Self, b: Self) -> Self {
                let g = <Self as Int>::gcd(a, b);
                // Divided first: an overflow comes as late as can be, and wraps like any product's.
                if g.0 == 0 { g } else { Num::trunc_div(a.abs(), g) * b.abs() }
            }
        }
    };
}

int_lane!(i8, u8, true);
int_lane!(i16, u16, true);
int_lane!(i32, u32, true);
int_lane!(i64, u64, true);
int_lane!(u8, u8, false);
int_lane!(u16, u16, false);
int_lane!(u32, u32, false);
int_lane!(u64, u64, false);
