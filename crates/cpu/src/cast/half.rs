//! Conversions from and to the half formats: by the machine's instructions to and from f32, and
//! through f32, in pieces that stay in the nearest cache, for all other types.

use super::{Dst, Src, run};
use crate::simd::{Arch, ArchKernel, F32Lanes, Lanes, dispatch};
use pyrite_core::half::{bf16, f16};
use std::marker::PhantomData;

/// Which of the two formats a type is.
pub(super) trait Format: Copy {
    const BRAIN: bool;
}
impl Format for f16 {
    const BRAIN: bool = false;
}
impl Format for bf16 {
    const BRAIN: bool = true;
}

/// # Safety
/// A vector's elements are there.
#[inline(always)]
unsafe fn load<A: Arch, H: Format>(p: *const u16) -> A::F32 {
    // SAFETY: the caller's promise.
    unsafe { if H::BRAIN { A::F32::load_bf16(p) } else { A::F32::load_f16(p) } }
}

/// # Safety
/// As `load`.
#[inline(always)]
unsafe fn store<A: Arch, H: Format>(v: A::F32, p: *mut u16) {
    // SAFETY: the caller's promise.
    unsafe { if H::BRAIN { v.store_bf16(p) } else { v.store_f16(p) } }
}

/// # Safety
/// `n` elements on both sides.
#[inline(always)]
unsafe fn to_f32<A: Arch, H: Format>(n: usize, dst: *mut f32, src: *const u16) {
    let w = A::F32::N;
    let whole = n - n % w;
    let mut i = 0;
    // SAFETY: whole vectors up to `whole`, the rest through `bits`, which holds at least one.
    unsafe {
        while i < whole {
            load::<A, H>(src.add(i)).store(dst.add(i));
            i += w;
        }
        if i < n {
            let mut bits = [0u16; 16];
            src.add(i).copy_to_nonoverlapping(bits.as_mut_ptr(), n - i);
            load::<A, H>(bits.as_ptr()).store_partial(dst.add(i), n - i);
        }
    }
}

/// # Safety
/// `n` elements on both sides.
#[inline(always)]
unsafe fn of_f32<A: Arch, H: Format>(n: usize, dst: *mut u16, src: *const f32) {
    let w = A::F32::N;
    let whole = n - n % w;
    let mut i = 0;
    // SAFETY: as in `to_f32`.
    unsafe {
        while i < whole {
            store::<A, H>(A::F32::load(src.add(i)), dst.add(i));
            i += w;
        }
        if i < n {
            let mut bits = [0u16; 16];
            store::<A, H>(A::F32::load_partial(src.add(i), n - i, 0.0), bits.as_mut_ptr());
            bits.as_ptr().copy_to_nonoverlapping(dst.add(i), n - i);
        }
    }
}

/// Elements converted at a time through f32.
const PIECE: usize = 1024;

struct To<D, H> {
    n: usize,
    dst: *mut u8,
    src: *const u8,
    types: PhantomData<(D, H)>,
}
impl<D: Dst, H: Format> ArchKernel for To<D, H> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let mut piece = [0f32; PIECE];
        let mut i = 0;
        while i < self.n {
            let m = PIECE.min(self.n - i);
            // SAFETY: elements i..i+m of both sides, by the promise of `Cast`. Where the two are
            // equal, a piece is read before its place is written, and places lie behind what is read.
            unsafe {
                to_f32::<A, H>(m, piece.as_mut_ptr(), self.src.cast::<u16>().add(i));
                run::<D, f32>(m, self.dst.cast::<D>().add(i).cast(), piece.as_ptr().cast());
            }
            i += m;
        }
    }
}

struct From<H, S> {
    n: usize,
    dst: *mut u8,
    src: *const u8,
    types: PhantomData<(H, S)>,
}
impl<H: Format, S: Src> ArchKernel for From<H, S> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let mut piece = [0f32; PIECE];
        let mut i = 0;
        while i < self.n {
            let m = PIECE.min(self.n - i);
            // SAFETY: as in `To`.
            unsafe {
                run::<f32, S>(m, piece.as_mut_ptr().cast(), self.src.cast::<S>().add(i).cast());
                of_f32::<A, H>(m, self.dst.cast::<u16>().add(i), piece.as_ptr());
            }
            i += m;
        }
    }
}

/// Between the two formats.
struct Between<H, G> {
    n: usize,
    dst: *mut u8,
    src: *const u8,
    types: PhantomData<(H, G)>,
}
impl<H: Format, G: Format> ArchKernel for Between<H, G> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let mut piece = [0f32; PIECE];
        let mut i = 0;
        while i < self.n {
            let m = PIECE.min(self.n - i);
            // SAFETY: as in `To`.
            unsafe {
                to_f32::<A, G>(m, piece.as_mut_ptr(), self.src.cast::<u16>().add(i));
                of_f32::<A, H>(m, self.dst.cast::<u16>().add(i), piece.as_ptr());
            }
            i += m;
        }
    }
}

struct Straight<H> {
    n: usize,
    dst: *mut u8,
    src: *const u8,
    widen: bool,
    format: PhantomData<H>,
}
impl<H: Format> ArchKernel for Straight<H> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        // SAFETY: the promise of `Cast`.
        unsafe {
            if self.widen {
                to_f32::<A, H>(self.n, self.dst.cast(), self.src.cast())
            } else {
                of_f32::<A, H>(self.n, self.dst.cast(), self.src.cast())
            }
        }
    }
}

/// From a half format to any other real type.
/// # Safety
/// As for every `Cast`.
pub(super) unsafe fn widen<D: Dst, H: Format>(n: usize, dst: *mut u8, src: *const u8) {
    dispatch(To::<D, H> { n, dst, src, types: PhantomData })
}
/// From any other real type to a half format.
/// # Safety
/// As for every `Cast`.
pub(super) unsafe fn narrow<H: Format, S: Src>(n: usize, dst: *mut u8, src: *const u8) {
    dispatch(From::<H, S> { n, dst, src, types: PhantomData })
}
/// From one half format to the other.
/// # Safety
/// As for every `Cast`.
pub(super) unsafe fn between<H: Format, G: Format>(n: usize, dst: *mut u8, src: *const u8) {
    dispatch(Between::<H, G> { n, dst, src, types: PhantomData })
}

macro_rules! straight {
    ($($name:ident $format:ty, $widen:literal;)*) => { $(
        /// # Safety
        /// As for every `Cast`.
        pub(super) unsafe fn $name(n: usize, dst: *mut u8, src: *const u8) {
            dispatch(Straight::<$format> { n, dst, src, widen: $widen, format: PhantomData })
        }
    )* };
}
straight! {
    f16_f32 f16, true;
    bf16_f32 bf16, true;
    f32_f16 f16, false;
    f32_bf16 bf16, false;
}
