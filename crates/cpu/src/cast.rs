//! Conversion between element types, one contiguous loop per pair of dtypes.
//!
//! C-like, as PyTorch on x86: floats truncate towards zero; what does not fit gives the "integer
//! indefinite" (the smallest i32 or i64, cut to narrower types); anything non-zero, NaN included, is
//! true; a complex number loses its imaginary part.

use crate::simd::{Arch, ArchKernel, F32Lanes, Isa, Lanes, dispatch, isa};
use pyrite_core::dtype::{Bool8, Complex, DType};
use pyrite_core::half::{bf16, f16};
use pyrite_core::match_dtype;

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
                if self.abs() < 2147483648.0 { self as i32 } else { i32::MIN }
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                if self.abs() < 9223372036854775808.0 { self as i64 } else { i64::MIN }
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
through!(bf16, |x| bf16::to_f32(x));
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

unsafe fn plain<D: Dst, S: Src>(n: usize, dst: *mut u8, src: *const u8) {
    // SAFETY: the caller's promise is the same.
    unsafe { run::<D, S>(n, dst, src) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx2<D: Dst, S: Src>(n: usize, dst: *mut u8, src: *const u8) {
    // SAFETY: the caller's promise is the same.
    unsafe { run::<D, S>(n, dst, src) }
}

/// The half formats by the conversion instructions of the machine.
struct Half {
    n: usize,
    dst: *mut u8,
    src: *const u8,
    brain: bool,
    widen: bool,
}

impl ArchKernel for Half {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Half { n, dst, src, brain, widen } = self;
        let w = A::F32::N;
        let mut i = 0;
        let mut bits = [0u16; 16];
        while i < n {
            let m = w.min(n - i);
            // SAFETY: elements i..i+m exist on both sides by the contract of `Cast`; the last, short
            // group goes through `bits`, which holds at least N = 16 elements.
            unsafe {
                if widen {
                    let mut p = (src as *const u16).add(i);
                    if m < w {
                        p.copy_to_nonoverlapping(bits.as_mut_ptr(), m);
                        p = bits.as_ptr();
                    }
                    let v = if brain { A::F32::load_bf16(p) } else { A::F32::load_f16(p) };
                    v.store_partial((dst as *mut f32).add(i), m);
                } else {
                    let v = A::F32::load_partial((src as *const f32).add(i), m, 0.0);
                    let end = (dst as *mut u16).add(i);
                    let p = if m < w { bits.as_mut_ptr() } else { end };
                    if brain {
                        v.store_bf16(p)
                    } else {
                        v.store_f16(p)
                    }
                    if m < w {
                        bits.as_ptr().copy_to_nonoverlapping(end, m);
                    }
                }
            }
            i += m;
        }
    }
}

macro_rules! half_cast {
    ($($name:ident $brain:literal $widen:literal)*) => { $(
        unsafe fn $name(n: usize, dst: *mut u8, src: *const u8) {
            dispatch(Half { n, dst, src, brain: $brain, widen: $widen })
        }
    )* };
}
half_cast!(f16_f32 false true bf16_f32 true true f32_f16 false false f32_bf16 true false);

unsafe fn bytes<const SIZE: usize>(n: usize, dst: *mut u8, src: *const u8) {
    // SAFETY: the caller promises n elements of SIZE bytes; `copy` allows equal pointers.
    unsafe { src.copy_to(dst, n * SIZE) }
}

fn pick<D: Dst, S: Src>(wide: bool) -> Cast {
    #[cfg(target_arch = "x86_64")]
    if wide {
        return avx2::<D, S>;
    }
    let _ = wide;
    plain::<D, S>
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
        (F32, F16) => return f16_f32,
        (F32, BF16) => return bf16_f32,
        (F16, F32) => return f32_f16,
        (BF16, F32) => return f32_bf16,
        _ => (),
    }
    let wide = isa() >= Isa::Avx2;
    match_dtype!(all, dst, |D| match_dtype!(all, src, |S| pick::<D, S>(wide)))
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
