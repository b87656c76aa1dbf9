//! Elements as unsigned numbers in the wanted order: NaN above everything, -0 equal to 0.

use pyrite_core::dtype::Bool8;
use pyrite_core::half::{bf16, f16};

/// An element as an unsigned number in the same order.
pub trait Key: Copy + Send + Sync + 'static {
    /// Bits of the key.
    const BITS: u32;
    const FLOAT: bool = false;
    /// Leading bits of the key that most elements share with many others: sign and exponent.
    const CROWD: u32 = 0;
    fn key(self) -> u64;
    /// Back from a key; false where several elements share one (NaNs, the two zeros).
    fn likely(key: u64) -> (Self, bool);
}

macro_rules! unsigned {
    ($($t:ty)*) => { $(
        impl Key for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn key(self) -> u64 { self as u64 }
            #[inline(always)]
            fn likely(key: u64) -> (Self, bool) { (key as $t, true) }
        }
    )* };
}
unsigned!(u8 u16 u32 u64);
macro_rules! signed {
    ($($t:ty, $u:ty;)*) => { $(
        impl Key for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn key(self) -> u64 { (self as $u ^ <$t>::MIN as $u) as u64 }
            #[inline(always)]
            fn likely(key: u64) -> (Self, bool) { ((key as $u ^ <$t>::MIN as $u) as $t, true) }
        }
    )* };
}
signed!(i8, u8; i16, u16; i32, u32; i64, u64;);
macro_rules! float {
    ($($t:ty, $u:ty, $exponent:literal;)*) => { $(
        impl Key for $t {
            const BITS: u32 = <$u>::BITS;
            const FLOAT: bool = true;
            const CROWD: u32 = 1 + $exponent;
            #[inline(always)]
            fn key(self) -> u64 {
                const TOP: $u = 1 << (<$u>::BITS - 1);
                let b = self.to_bits();
                let b = if b == TOP { 0 } else { b };
                // Negative numbers count downwards.
                let k = if b & TOP != 0 { !b } else { b | TOP };
                if self.is_nan() { <$u>::MAX as u64 } else { k as u64 }
            }
            #[inline(always)]
            fn likely(key: u64) -> (Self, bool) {
                const TOP: $u = 1 << (<$u>::BITS - 1);
                let k = key as $u;
                let v = <$t>::from_bits(if k & TOP != 0 { k ^ TOP } else { !k });
                (v, k != TOP && k != <$u>::MAX)
            }
        }
    )* };
}
float!(f16, u16, 5; bf16, u16, 8; f32, u32, 8; f64, u64, 11;);
impl Key for Bool8 {
    const BITS: u32 = 8;
    #[inline(always)]
    fn key(self) -> u64 {
        (self.0 != 0) as u64
    }
    #[inline(always)]
    fn likely(key: u64) -> (Self, bool) {
        (Bool8(key as u8), true)
    }
}
