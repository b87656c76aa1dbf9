//! Conversion between element types, one contiguous loop per pair of dtypes.
//!
//! C-like, as PyTorch on x86: floats truncate towards zero; what does not fit gives the "integer
//! indefinite" (the smallest i32 or i64, cut to narrower types); anything non-zero, NaN included, is
//! true; a complex number loses its imaginary part.

mod half;

use crate::simd::{Arch, ArchKernel, dispatch};
use pyrite_core::dtype::{Bool8, Complex, DType};
use pyrite_core::half::{bf16, f16};
use pyrite_core::match_dtype;
use std::marker::PhantomData;

/// Converts `n` contiguous elements.
///
/// # Safety
/// Both pointers are valid for `n` elements of the dtypes asked for and do not overlap, unless they
/// are equal and the destination's elements are not larger.
pub type Cast = unsafe fn(n: usize, dst: *mut u8, src: *const u8);

/// A value that can be read as any other type.
trait Src: Copy {
    fn to_i32(self) -> i32;
    fn to_i64(self) -> i64;
    fn to_u64(self) -> u64;
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
    fn truth(self) -> bool;
    fn im(self) -> f64 {
        0.0
    }
}

/// A type that can be made from any other.
trait Dst: Copy {
    fn of<S: Src>(s: S) -> Self;
}

macro_rules! int {
    ($($t:ty, $via:ident;)*) => { $(
        impl Src for $t {
            #[inline(always)]
            fn to_i32(self) -> i32 { self as i32 }
            #[inline(always)]
            fn to_i64(self) -> i64 { self as i64 }
            #[inline(always)]
            fn to_u64(self) -> u64 { self as u64 }
            #[inline(always)]
            fn to_f32(self) -> f32 { self as f32 }
            #[inline(always)]
            fn to_f64(self) -> f64 { self as f64 }
            #[inline(always)]
            fn truth(self) -> bool { self != 0 }
        }
        impl Dst for $t {
            #[inline(always)]
            fn of<S: Src>(s: S) -> Self { s.$via() as $t }
        }
    )* };
}
int! {
    u8, to_i32; i8, to_i32; i16, to_i32; u16, to_i32; i32, to_i32;
    i64, to_i64; u32, to_i64; u64, to_u64;
}

macro_rules! float {
    ($t:ident) => {
        impl Src for $t {
            #[inline(always)]
            fn to_i32(self) -> i32 {
                // -2^31 itself fails the test and gives the same value.
                // SAFETY: what is cut off is in range by the comparison. (`as` would test again, which
                // keeps loops from the machine's conversion.)
                if self.abs() < 2147483648.0 { unsafe { self.to_int_unchecked() } } else { i32::MIN }
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                // SAFETY: as above.
                if self.abs() < 9223372036854775808.0 { unsafe { self.to_int_unchecked() } } else { i64::MIN }
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                if self >= 9223372036854775808.0 { self as u64 } else { self.to_i64() as u64 }
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self as f32
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn truth(self) -> bool {
                self != 0.0
            }
        }
        impl Dst for $t {
            #[inline(always)]
            fn of<S: Src>(s: S) -> Self {
                paste_float!($t, s)
            }
        }
    };
}
macro_rules! paste_float {
    (f32, $s:expr) => {
        $s.to_f32()
    };
    (f64, $s:expr) => {
        $s.to_f64()
    };
}
float!(f32);
float!(f64);

/// Types that stand for an f32 or another number when read.
macro_rules! through {
    ($t:ty, |$x:ident| $read:expr) => {
        impl Src for $t {
            #[inline(always)]
            fn to_i32(self) -> i32 {
                let $x = self;
                Src::to_i32($read)
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                let $x = self;
                Src::to_i64($read)
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                let $x = self;
                Src::to_u64($read)
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                let $x = self;
                Src::to_f32($read)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                let $x = self;
                Src::to_f64($read)
            }
            #[inline(always)]
            fn truth(self) -> bool {
                let $x = self;
                Src::truth($read)
            }
        }
    };
}
through!(f16, |x| f16::to_f32(x));
// Without the library's test for NaN, which no integer and no truth value depends on.
through!(bf16, |x| f32::from_bits((x.to_bits() as u32) << 16));
through!(Bool8, |x| (x.0 != 0) as u8);

impl Dst for f16 {
    #[inline(always)]
    fn of<S: Src>(s: S) -> f16 {
        f16::from_f32(s.to_f32())
    }
}
impl Dst for bf16 {
    #[inline(always)]
    fn of<S: Src>(s: S) -> bf16 {
        bf16::from_f32(s.to_f32())
    }
}
impl Dst for Bool8 {
    #[inline(always)]
    fn of<S: Src>(s: S) -> Bool8 {
        Bool8(s.truth() as u8)
    }
}

macro_rules! complex {
    ($t:ty) => {
        impl Src for Complex<$t> {
            #[inline(always)]
            fn to_i32(self) -> i32 {
                self.re.to_i32()
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                self.re.to_i64()
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                self.re.to_u64()
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self.re.to_f32()
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.re.to_f64()
            }
            #[inline(always)]
            fn truth(self) -> bool {
                self.re != 0.0 || self.im != 0.0
            }
            #[inline(always)]
            fn im(self) -> f64 {
                self.im as f64
            }
        }
        impl Dst for Complex<$t> {
            #[inline(always)]
            fn of<S: Src>(s: S) -> Self {
                Complex { re: <$t as Dst>::of(s), im: s.im() as $t }
            }
        }
    };
}
complex!(f32);
complex!(f64);

#[inline(always)]
unsafe fn run<D: Dst, S: Src>(n: usize, dst: *mut u8, src: *const u8) {
    let (d, s) = (dst as *mut D, src as *const S);
    for i in 0..n {
        // SAFETY: `i < n`; the caller promises n elements on both sides.
        unsafe { d.add(i).write(D::of(s.add(i).read())) };
    }
}

/// `run`, compiled for each instruction set.
struct Loop<D, S> {
    n: usize,
    dst: *mut u8,
    src: *const u8,
    types: PhantomData<(D, S)>,
}
impl<D: Dst, S: Src> ArchKernel for Loop<D, S> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        // SAFETY: the promise of `Cast`, passed on.
        unsafe { run::<D, S>(self.n, self.dst, self.src) }
    }
}
unsafe fn looped<D: Dst, S: Src>(n: usize, dst: *mut u8, src: *const u8) {
    dispatch(Loop::<D, S> { n, dst, src, types: PhantomData })
}

unsafe fn bytes<const SIZE: usize>(n: usize, dst: *mut u8, src: *const u8) {
    // SAFETY: the caller promises n elements of SIZE bytes; `copy` allows equal pointers.
    unsafe { src.copy_to(dst, n * SIZE) }
}

/// The loop from `src` to `dst`; a plain copy if they are the same.
pub fn cast(dst: DType, src: DType) -> Cast {
    use DType::*;
    if dst == src {
        return match dst.size() {
            1 => bytes::<1>,
            2 => bytes::<2>,
            4 => bytes::<4>,
            8 => bytes::<8>,
            _ => bytes::<16>,
        };
    }
    match (dst, src) {
        (F32, F16) => return half::f16_f32,
        (F32, BF16) => return half::bf16_f32,
        (F16, F32) => return half::f32_f16,
        (BF16, F32) => return half::f32_bf16,
        (F16, BF16) => return half::between::<f16, bf16>,
        (BF16, F16) => return half::between::<bf16, f16>,
        // The loops in between would convert the half format one by one; from bfloat16 that is a shift,
        // which the compiler does for whole vectors.
        (F16, _) if !src.is_complex() => {
            return match_dtype!(real, src, |S| half::narrow::<f16, S>, else looped::<f16, Bool8>);
        }
        (BF16, _) if !src.is_complex() => {
            return match_dtype!(real, src, |S| half::narrow::<bf16, S>, else looped::<bf16, Bool8>);
        }
        (_, F16) if !dst.is_complex() => {
            return match_dtype!(real, dst, |D| half::widen::<D, f16>, else looped::<Bool8, f16>);
        }
        _ => (),
    }
    match_dtype!(all, dst, |D| match_dtype!(all, src, |S| looped::<D, S>))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<S, D: Default + Clone>(s: DType, d: DType, x: &[S]) -> Vec<D> {
        let mut out = vec![D::default(); x.len()];
        // SAFETY: both vectors hold x.len() elements of the dtypes.
        unsafe { cast(d, s)(x.len(), out.as_mut_ptr().cast(), x.as_ptr().cast()) };
        out
    }

    #[test]
    fn floats_to_integers_as_x86() {
        let x = [3e9f32, f32::NAN, -5e9, -1.5, 300.7, -300.0, 70000.0];
        assert_eq!(run::<_, u8>(DType::F32, DType::U8, &x), [0, 0, 0, 255, 44, 212, 112]);
        assert_eq!(
            run::<_, i32>(DType::F32, DType::I32, &x),
            [i32::MIN, i32::MIN, i32::MIN, -1, 300, -300, 70000]
        );
        assert_eq!(
            run::<_, i64>(DType::F32, DType::I64, &x),
            [3000000000, i64::MIN, -5000000000, -1, 300, -300, 70000]
        );
        assert_eq!(run::<_, u8>(DType::F32, DType::Bool, &[0.0f32, -0.0, f32::NAN, 0.5]), [0, 0, 1, 1]);
    }

    #[test]
    fn halves_match_the_reference() {
        let x: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 997) as f32 * 0.37 - 180.0).collect();
        for n in [1usize, 7, 16, 17, 33, 1000] {
            let f = run::<_, u16>(DType::F32, DType::F16, &x[..n]);
            let b = run::<_, u16>(DType::F32, DType::BF16, &x[..n]);
            for i in 0..n {
                assert_eq!(f[i], f16::from_f32(x[i]).to_bits());
                assert_eq!(b[i], bf16::from_f32(x[i]).to_bits());
            }
            let back: Vec<f32> = run(DType::F16, DType::F32, &f);
            assert!(back.iter().zip(&f).all(|(a, b)| *a == f16::from_bits(*b).to_f32()));
        }
    }

    #[test]
    fn complex_and_wide_integers() {
        let c = [Complex { re: 2.5f32, im: 1.0 }];
        assert_eq!(run::<_, f64>(DType::C64, DType::F64, &c), [2.5]);
        assert_eq!(run::<_, [f64; 2]>(DType::C64, DType::C128, &c), [[2.5, 1.0]]);
        assert_eq!(run::<_, [f32; 2]>(DType::I64, DType::C64, &[-3i64]), [[-3.0, 0.0]]);
        assert_eq!(run::<_, u64>(DType::I64, DType::U64, &[-1i64]), [u64::MAX]);
    }
}
