//! Types as they lie in memory, and the type the kernels compute in.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::kernel::KernelScalar;

/// An element type of a matrix. Half types are widened while packing and rounded at the store.
pub trait Elem: Copy + Send + Sync + 'static {
    type T: KernelScalar;
    /// Memory and computing type are the same.
    const PLAIN: bool;
    fn up(self) -> Self::T;
    fn down(x: Self::T) -> Self;
    /// Widens `n` adjacent elements.
    ///
    /// # Safety
    /// Both sides are valid for `n` elements and do not overlap.
    unsafe fn up_n(src: *const Self, dst: *mut Self::T, n: usize);
}

macro_rules! plain {
    ($t:ty) => {
        impl Elem for $t {
            type T = $t;
            const PLAIN: bool = true;
            #[inline(always)]
            fn up(self) -> $t {
                self
            }
            #[inline(always)]
            fn down(x: $t) -> $t {
                x
            }
            #[inline(always)]
            unsafe fn up_n(src: *const $t, dst: *mut $t, n: usize) {
                // SAFETY: by the contract.
                unsafe { std::ptr::copy_nonoverlapping(src, dst, n) }
            }
        }
    };
}
plain!(f32);
plain!(f64);

macro_rules! half {
    ($t:ty) => {
        impl Elem for $t {
            type T = f32;
            const PLAIN: bool = false;
            #[inline(always)]
            fn up(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn down(x: f32) -> $t {
                <$t>::from_f32(x)
            }
            #[inline(always)]
            unsafe fn up_n(src: *const $t, dst: *mut f32, n: usize) {
                // SAFETY: by the contract; any bits are a valid f32, so the slice may be made before it is filled.
                unsafe {
                    let s = std::slice::from_raw_parts(src, n);
                    s.convert_to_f32_slice(std::slice::from_raw_parts_mut(dst, n));
                }
            }
        }
    };
}
half!(f16);
half!(bf16);
