//! What happens to single elements: plain moves by size, arithmetic by dtype.

use pyrite_core::backend::Scatter;
use pyrite_core::dtype::{Bool8, Complex};
use pyrite_core::half::{bf16, f16};

/// A 16-byte element; aligned as its halves are.
pub type Wide = [u64; 2];

/// Runs `$body` with `$T` an unsigned type of `$size` bytes.
#[macro_export]
macro_rules! by_size {
    ($size:expr, |$T:ident| $body:expr) => {
        match $size {
            1 => {
                type $T = u8;
                $body
            }
            2 => {
                type $T = u16;
                $body
            }
            4 => {
                type $T = u32;
                $body
            }
            8 => {
                type $T = u64;
                $body
            }
            _ => {
                type $T = $crate::index::elem::Wide;
                $body
            }
        }
    };
}

/// How an element meets what is there.
pub trait Meet: Copy + Send + Sync + 'static {
    fn add(a: Self, b: Self) -> Self;
    fn mul(a: Self, b: Self) -> Self;
    /// NaN wins over all.
    fn max(a: Self, b: Self) -> Self;
    fn min(a: Self, b: Self) -> Self;
}

macro_rules! meet_int {
    ($($t:ty),*) => { $(
        impl Meet for $t {
            #[inline(always)]
            fn add(a: Self, b: Self) -> Self { a.wrapping_add(b) }
            #[inline(always)]
            fn mul(a: Self, b: Self) -> Self { a.wrapping_mul(b) }
            #[inline(always)]
            fn max(a: Self, b: Self) -> Self { Ord::max(a, b) }
            #[inline(always)]
            fn min(a: Self, b: Self) -> Self { Ord::min(a, b) }
        }
    )* };
}
meet_int!(u8, i8, u16, i16, u32, i32, u64, i64);

macro_rules! meet_float {
    ($($t:ty),*) => { $(
        impl Meet for $t {
            #[inline(always)]
            fn add(a: Self, b: Self) -> Self { a + b }
            #[inline(always)]
            fn mul(a: Self, b: Self) -> Self { a * b }
            #[inline(always)]
            fn max(a: Self, b: Self) -> Self { if a > b || a.is_nan() { a } else { b } }
            #[inline(always)]
            fn min(a: Self, b: Self) -> Self { if a < b || a.is_nan() { a } else { b } }
        }
    )* };
}
meet_float!(f32, f64);

macro_rules! meet_half {
    ($($t:ty),*) => { $(
        impl Meet for $t {
            #[inline(always)]
            fn add(a: Self, b: Self) -> Self { <$t>::from_f32(a.to_f32() + b.to_f32()) }
            #[inline(always)]
            fn mul(a: Self, b: Self) -> Self { <$t>::from_f32(a.to_f32() * b.to_f32()) }
            #[inline(always)]
            fn max(a: Self, b: Self) -> Self { if a > b || a.is_nan() { a } else { b } }
            #[inline(always)]
            fn min(a: Self, b: Self) -> Self { if a < b || a.is_nan() { a } else { b } }
        }
    )* };
}
meet_half!(f16, bf16);

impl Meet for Bool8 {
    #[inline(always)]
    fn add(a: Self, b: Self) -> Self {
        Bool8((a.0 | b.0 != 0) as u8)
    }
    #[inline(always)]
    fn mul(a: Self, b: Self) -> Self {
        Bool8((a.0 != 0 && b.0 != 0) as u8)
    }
    #[inline(always)]
    fn max(a: Self, b: Self) -> Self {
        Self::add(a, b)
    }
    #[inline(always)]
    fn min(a: Self, b: Self) -> Self {
        Self::mul(a, b)
    }
}

macro_rules! meet_complex {
    ($($t:ty),*) => { $(
        impl Meet for Complex<$t> {
            #[inline(always)]
            fn add(a: Self, b: Self) -> Self { Complex { re: a.re + b.re, im: a.im + b.im } }
            #[inline(always)]
            fn mul(a: Self, b: Self) -> Self {
                Complex { re: a.re * b.re - a.im * b.im, im: a.re * b.im + a.im * b.re }
            }
            // Complex numbers have no order; callers refuse these before (see `ordered`).
            #[inline(always)]
            fn max(a: Self, _: Self) -> Self { a }
            #[inline(always)]
            fn min(a: Self, _: Self) -> Self { a }
        }
    )* };
}
meet_complex!(f32, f64);

/// `n` elements at `d` (stride `ds`) meet those at `s` (stride `ss`).
/// # Safety
/// All elements are readable, those at `d` writable.
#[inline]
pub unsafe fn meet_run<T: Meet>(how: Scatter, d: *mut T, ds: isize, s: *const T, ss: isize, n: usize) {
    #[inline(always)]
    unsafe fn each<T: Copy>(d: *mut T, ds: isize, s: *const T, ss: isize, n: usize, f: impl Fn(T, T) -> T) {
        // SAFETY: the promise of `meet_run`.
        unsafe {
            if ds == 1 && ss == 1 {
                for j in 0..n {
                    let p = d.add(j);
                    p.write_unaligned(f(p.read_unaligned(), s.add(j).read_unaligned()));
                }
            } else {
                for j in 0..n as isize {
                    let p = d.offset(j * ds);
                    p.write_unaligned(f(p.read_unaligned(), s.offset(j * ss).read_unaligned()));
                }
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        match how {
            Scatter::Set => each(d, ds, s, ss, n, |_, b| b),
            Scatter::Add => each(d, ds, s, ss, n, T::add),
            Scatter::Mul => each(d, ds, s, ss, n, T::mul),
            Scatter::Max => each(d, ds, s, ss, n, T::max),
            Scatter::Min => each(d, ds, s, ss, n, T::min),
        }
    }
}

/// The function of two elements.
pub fn meeting<T: Meet>(how: Scatter) -> fn(T, T) -> T {
    match how {
        Scatter::Set => |_, b| b,
        Scatter::Add => T::add,
        Scatter::Mul => T::mul,
        Scatter::Max => T::max,
        Scatter::Min => T::min,
    }
}

/// Moves `n` elements.
/// # Safety
/// As `meet_run`; the two may not overlap.
#[inline(always)]
pub unsafe fn move_run<T: Copy>(d: *mut T, ds: isize, s: *const T, ss: isize, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if ds == 1 && ss == 1 {
            std::ptr::copy_nonoverlapping(s.cast::<u8>(), d.cast::<u8>(), n * size_of::<T>());
        } else {
            for j in 0..n as isize {
                d.offset(j * ds).write_unaligned(s.offset(j * ss).read_unaligned());
            }
        }
    }
}

/// Checks dtypes of a store and that `how` has a meaning for them.
pub fn check(
    op: &str,
    dst: &pyrite_core::Arr,
    src: &pyrite_core::Arr,
    how: Scatter,
) -> pyrite_core::Result<()> {
    if dst.dtype != src.dtype {
        pyrite_core::bail!(
            Type,
            "{op}: self is {} but the source is {}; convert the source",
            dst.dtype,
            src.dtype
        );
    }
    if dst.dtype.is_complex() && matches!(how, Scatter::Max | Scatter::Min) {
        pyrite_core::bail!(NotImplemented, "{op}: {how:?} is not defined for {}", dst.dtype);
    }
    Ok(())
}
