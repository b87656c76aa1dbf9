//! `B8`: one boolean byte as a lane type. The integer operators are logical.

use super::{Lanes, MB};
use pyrite_core::expr::{Any, Int};
use std::ops::{BitAnd, BitOr, BitXor, Not};

/// A boolean. Memory holds bytes; any non-zero byte read is true, only 0 and 1 are written, so that
/// foreign memory with other values can't break Rust's rules for `bool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct B8(pub bool);

impl Any for B8 {
    type M = MB;
    #[inline(always)]
    fn lit(v: f64) -> Self {
        B8(v != 0.0)
    }
    #[inline(always)]
    fn select(m: MB, a: Self, b: Self) -> Self {
        B8((m.0 & a.0) | (!m.0 & b.0))
    }
    #[inline(always)]
    fn eq(a: Self, b: Self) -> MB {
        MB(a.0 == b.0)
    }
    #[inline(always)]
    fn lt(a: Self, b: Self) -> MB {
        MB(!a.0 & b.0)
    }
    #[inline(always)]
    fn le(a: Self, b: Self) -> MB {
        MB(!a.0 | b.0)
    }
}
impl BitAnd for B8 {
    type Output = Self;
    #[inline(always)]
    fn bitand(self, o: Self) -> Self {
        B8(self.0 & o.0)
    }
}
impl BitOr for B8 {
    type Output = Self;
    #[inline(always)]
    fn bitor(self, o: Self) -> Self {
        B8(self.0 | o.0)
    }
}
impl BitXor for B8 {
    type Output = Self;
    #[inline(always)]
    fn bitxor(self, o: Self) -> Self {
        B8(self.0 ^ o.0)
    }
}
impl Not for B8 {
    type Output = Self;
    #[inline(always)]
    fn not(self) -> Self {
        B8(!self.0)
    }
}
impl Int for B8 {
    /// A one-bit number: shifting by one or more leaves nothing.
    #[inline(always)]
    fn shl(a: Self, b: Self) -> Self {
        B8(a.0 & !b.0)
    }
    #[inline(always)]
    fn shr(a: Self, b: Self) -> Self {
        B8(a.0 & !b.0)
    }
    #[inline(always)]
    fn gcd(a: Self, b: Self) -> Self {
        B8(a.0 | b.0)
    }
    #[inline(always)]
    fn lcm(a: Self, b: Self) -> Self {
        B8(a.0 & b.0)
    }
}
impl Lanes for B8 {
    type Elem = bool;
    const N: usize = 1;
    #[inline(always)]
    fn splat(v: bool) -> Self {
        B8(v)
    }
    #[inline(always)]
    unsafe fn load(p: *const bool) -> Self {
        // SAFETY: the caller's promise: one readable byte. Read as a number, see the type.
        B8(unsafe { *p.cast::<u8>() } != 0)
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut bool) {
        // SAFETY: the caller's promise: one writable byte.
        unsafe { *p.cast::<u8>() = self.0 as u8 }
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const bool, n: usize, fill: bool) -> Self {
        if n == 0 {
            return B8(fill);
        }
        // SAFETY: the caller promised one readable byte.
        unsafe { Self::load(p) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut bool, n: usize) {
        if n != 0 {
            // SAFETY: the caller promised one writable byte.
            unsafe { self.store(p) }
        }
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut bool) {
        // SAFETY: the caller's promise: one writable byte.
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
    fn reduce_add(self) -> bool {
        self.0
    }
    #[inline(always)]
    fn reduce_max(self) -> bool {
        self.0
    }
    #[inline(always)]
    fn reduce_min(self) -> bool {
        self.0
    }
    #[inline(always)]
    fn extract(self, _: usize) -> bool {
        self.0
    }
}
