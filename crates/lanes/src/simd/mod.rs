//! Lane types and run-time instruction-set choice: how every CPU kernel is written once and run as
//! AVX-512, AVX2 or scalar code.
//!
//! A kernel is a struct of its arguments with [`ArchKernel`]; [`dispatch`] runs it for the machine:
//!
//! ```ignore
//! struct Axpy<'a> { a: f32, x: &'a [f32], y: &'a mut [f32] }
//! impl ArchKernel for Axpy<'_> {
//!     type Out = ();
//!     #[inline(always)]                       // required, see below
//!     fn run<A: Arch>(self) {
//!         let a = A::F32::splat(self.a);
//!         let (n, len) = (A::F32::N, self.x.len().min(self.y.len()));
//!         let (x, y) = (self.x.as_ptr(), self.y.as_mut_ptr());
//!         let mut i = 0;
//!         while i + n <= len {
//!             // SAFETY: n elements are left from i on.
//!             unsafe {
//!                 let v = A::F32::fma(a, A::F32::load(x.add(i)), A::F32::load(y.add(i)));
//!                 v.store(y.add(i));
//!             }
//!             i += n;
//!         }
//!         if i < len {
//!             // the same with load_partial(.., len - i, 0.0) and store_partial(.., len - i)
//!         }
//!     }
//! }
//! dispatch(Axpy { .. });
//! ```
//!
//! Rules, because intrinsics are only inlined into functions that enable their feature:
//! * every generic function between `run` and the lane methods is `#[inline(always)]`;
//! * don't pass closures or functions as values (`impl Fn(V) -> V`) that compute on lanes: they can't
//!   be marked, and one that stays out of line makes every intrinsic a call (measured: 50 times
//!   slower). Use small traits with an `#[inline(always)]` method, or macros;
//! * the main loop uses `load` and `store`; `load_partial` and `store_partial` are for the tail (they
//!   are slow on AVX2);
//! * integer and complex lanes are [`S<T>`](S) with one lane: simple loops over them are vectorised by the
//!   compiler inside `dispatch`, with the features of the chosen set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod base;
mod boolean;
mod complex;
mod int;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub use avx2::{F32x8, F64x4};
#[cfg(target_arch = "x86_64")]
pub use avx512::{F32x16, F64x8};
pub use base::Base;
pub use boolean::B8;
pub use scalar::{MB, S};

use pyrite_core::expr::{Any, Float};
use std::sync::atomic::{AtomicU8, Ordering};

/// Memory side of a lane type. Loads and stores need no alignment unless said.
pub trait Lanes: Any + 'static {
    type Elem: Copy + 'static;
    /// Number of lanes.
    const N: usize;
    /// Does a long sum need several accumulators? One lane of integers does not: the compiler may reorder.
    const CHAINS: bool = Self::N > 1;
    fn splat(v: Self::Elem) -> Self;
    /// # Safety
    /// `p` points to `N` readable elements.
    unsafe fn load(p: *const Self::Elem) -> Self;
    /// # Safety
    /// `p` points to `N` writable elements.
    unsafe fn store(self, p: *mut Self::Elem);
    /// The first `n <= N` elements, the other lanes are `fill`.
    /// # Safety
    /// `p` points to `n` readable elements.
    unsafe fn load_partial(p: *const Self::Elem, n: usize, fill: Self::Elem) -> Self;
    /// Writes the first `n <= N` lanes.
    /// # Safety
    /// `p` points to `n` writable elements.
    unsafe fn store_partial(self, p: *mut Self::Elem, n: usize);
    /// Non-temporal store: past the caches, for outputs larger than them. Follow a run of these with
    /// [`fence`] before another thread may read.
    /// # Safety
    /// `p` points to `N` writable elements and is aligned to `N * size_of::<Elem>()` bytes.
    unsafe fn stream(self, p: *mut Self::Elem);
    /// Writes the first `n <= N` truth values as bytes 0 or 1.
    /// # Safety
    /// `p` points to `n` writable bytes.
    unsafe fn store_mask(m: Self::M, p: *mut u8, n: usize);
    /// The first `n <= N` bytes as truth values (non-zero is true), the rest false.
    /// # Safety
    /// `p` points to `n` readable bytes.
    unsafe fn load_mask(p: *const u8, n: usize) -> Self::M;
    /// Sum of the lanes, halves folded onto each other: always the same order. (`bool`: any.)
    fn reduce_add(self) -> Self::Elem;
    /// Greatest lane, NaN if any is. (`bool`: any.)
    fn reduce_max(self) -> Self::Elem;
    /// Smallest lane, NaN if any is. (`bool`: all.)
    fn reduce_min(self) -> Self::Elem;
    /// One lane, `i < N`.
    fn extract(self, i: usize) -> Self::Elem;
}

/// What `Arch::F32` and `Arch::F64` are.
pub trait FloatLanes: Lanes + Float + Base {}
impl<T: Lanes + Float + Base> FloatLanes for T {}

/// f32 lanes: conversion to f64 lanes and from and to the two half formats.
pub trait F32Lanes: FloatLanes<Elem = f32> {
    type D: FloatLanes<Elem = f64>;
    /// How many `D` hold the lanes of one `Self`: 2, or 1 for scalars.
    const PARTS: usize;
    /// Lanes `part * D::N ..` as f64; `part < PARTS`.
    fn widen(self, part: usize) -> Self::D;
    /// Back, rounded to nearest; `hi` is ignored where `PARTS == 1`.
    fn narrow(lo: Self::D, hi: Self::D) -> Self;
    /// # Safety
    /// `p` points to `N` readable IEEE half-precision numbers.
    unsafe fn load_f16(p: *const u16) -> Self;
    /// # Safety
    /// `p` points to `N` writable IEEE half-precision numbers.
    unsafe fn store_f16(self, p: *mut u16);
    /// # Safety
    /// `p` points to `N` readable bfloat16 numbers.
    unsafe fn load_bf16(p: *const u16) -> Self;
    /// Rounds to nearest even; NaN stays NaN.
    /// # Safety
    /// `p` points to `N` writable bfloat16 numbers.
    unsafe fn store_bf16(self, p: *mut u16);
}

/// An instruction set: which lane types to use.
pub trait Arch: Copy + 'static {
    const ISA: Isa;
    type F32: F32Lanes<D = Self::F64>;
    type F64: FloatLanes<Elem = f64>;
}

/// A kernel generic over the instruction set. `run` must be `#[inline(always)]`.
pub trait ArchKernel {
    type Out;
    fn run<A: Arch>(self) -> Self::Out;
}

#[derive(Clone, Copy)]
pub struct ScalarArch;
impl Arch for ScalarArch {
    const ISA: Isa = Isa::Scalar;
    type F32 = S<f32>;
    type F64 = S<f64>;
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2Arch;
#[cfg(target_arch = "x86_64")]
impl Arch for Avx2Arch {
    const ISA: Isa = Isa::Avx2;
    type F32 = F32x8;
    type F64 = F64x4;
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512Arch;
#[cfg(target_arch = "x86_64")]
impl Arch for Avx512Arch {
    const ISA: Isa = Isa::Avx512;
    type F32 = F32x16;
    type F64 = F64x8;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Isa {
    Scalar = 1,
    Avx2 = 2,
    Avx512 = 3,
}

/// The best set this machine has, capped by `PYRITE_ISA=scalar|avx2|avx512`. Detected once.
#[inline]
pub fn isa() -> Isa {
    static CACHE: AtomicU8 = AtomicU8::new(0);
    match CACHE.load(Ordering::Relaxed) {
        1 => Isa::Scalar,
        2 => Isa::Avx2,
        3 => Isa::Avx512,
        _ => {
            let found = detect();
            // An unknown value caps nothing: a typo must not make every program ten times slower.
            let cap = match std::env::var("PYRITE_ISA").as_deref() {
                Ok("scalar") => Isa::Scalar,
                Ok("avx2") => Isa::Avx2,
                _ => Isa::Avx512,
            };
            let isa = found.min(cap);
            CACHE.store(isa as u8, Ordering::Relaxed);
            isa
        }
    }
}

/// The best set this machine has, whatever the environment says.
pub fn detect() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("f16c");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if avx512 {
            return Isa::Avx512;
        }
        if avx2 {
            return Isa::Avx2;
        }
    }
    Isa::Scalar
}

/// Runs the kernel with the instruction set of [`isa`].
#[inline]
pub fn dispatch<K: ArchKernel>(k: K) -> K::Out {
    dispatch_unchecked(isa(), k)
}

/// Runs the kernel with `isa`, or the best set below it that the machine has (for tests).
pub fn dispatch_on<K: ArchKernel>(isa: Isa, k: K) -> K::Out {
    dispatch_unchecked(isa.min(detect()), k)
}

#[inline]
fn dispatch_unchecked<K: ArchKernel>(isa: Isa, k: K) -> K::Out {
    match isa {
        // SAFETY: both callers pass at most what `detect` found, which checked these features.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { run_avx512(k) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { run_avx2(k) },
        _ => k.run::<ScalarArch>(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
fn run_avx512<K: ArchKernel>(k: K) -> K::Out {
    k.run::<Avx512Arch>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
fn run_avx2<K: ArchKernel>(k: K) -> K::Out {
    k.run::<Avx2Arch>()
}

/// Orders earlier [`Lanes::stream`] stores before later stores of this thread.
#[inline(always)]
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: sfence is part of every x86-64.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    }
}

/// Folds the upper half of `a` onto the lower until one is left: the fixed order of lane reductions.
#[inline(always)]
pub(crate) fn fold<T: Copy, const N: usize>(mut a: [T; N], f: impl Fn(T, T) -> T) -> T {
    let mut w = N / 2;
    while w > 0 {
        for i in 0..w {
            a[i] = f(a[i], a[i + w]);
        }
        w /= 2;
    }
    a[0]
}

#[cfg(test)]
mod tests;
