//! Conversions from and to the half formats: by the machine's instructions to and from f32, and
//! through f32, a few vectors at a time, for all other types.

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

/// Elements converted at a time through f32: a few vectors, which mostly stay in registers.
const BLOCK: usize = 64;

/// A type whose elements become f32.
pub(super) trait Read {
    /// # Safety
    /// `n` elements on both sides.
    unsafe fn read<A: Arch>(n: usize, dst: *mut f32, src: *const u8);
}
/// A type whose elements are made from f32.
pub(super) trait Write {
    /// # Safety
    /// `n` elements on both sides.
    unsafe fn write<A: Arch>(n: usize, dst: *mut u8, src: *const f32);
}

/// One of the two formats.
pub(super) struct Half<H>(PhantomData<H>);
/// Any other type.
pub(super) struct Other<T>(PhantomData<T>);

impl<H: Format> Read for Half<H> {
    #[inline(always)]
    unsafe fn read<A: Arch>(n: usize, dst: *mut f32, src: *const u8) {
        // SAFETY: the caller's promise.
        unsafe { to_f32::<A, H>(n, dst, src.cast()) }
    }
}
impl<H: Format> Write for Half<H> {
    #[inline(always)]
    unsafe fn write<A: Arch>(n: usize, dst: *mut u8, src: *const f32) {
        // SAFETY: the caller's promise.
        unsafe { of_f32::<A, H>(n, dst.cast(), src) }
    }
}
impl<S: Src> Read for Other<S> {
    #[inline(always)]
    unsafe fn read<A: Arch>(n: usize, dst: *mut f32, src: *const u8) {
        // SAFETY: the caller's promise.
        unsafe { run::<f32, S>(n, dst.cast(), src) }
    }
}
impl<D: Dst> Write for Other<D> {
    #[inline(always)]
    unsafe fn write<A: Arch>(n: usize, dst: *mut u8, src: *const f32) {
        // SAFETY: the caller's promise.
        unsafe { run::<D, f32>(n, dst, src.cast()) }
    }
}

/// From elements of `S` to elements of `D`, whose sizes are given, through f32.
struct Through<D, S> {
    n: usize,
    dst: *mut u8,
    src: *const u8,
    sizes: [usize; 2],
    types: PhantomData<(D, S)>,
}
impl<D: Write, S: Read> ArchKernel for Through<D, S> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let [d, s] = self.sizes;
        let mut block = [0f32; BLOCK];
        let mut i = 0;
        // SAFETY: elements of both sides, by the promise of `Cast`. Where the two are equal, a block is
        // read before its place is written, and places lie behind what is read.
        unsafe {
            // Constant lengths: what is between reading and writing need not be memory.
            while i + BLOCK <= self.n {
                S::read::<A>(BLOCK, block.as_mut_ptr(), self.src.add(i * s));
                D::write::<A>(BLOCK, self.dst.add(i * d), block.as_ptr());
                i += BLOCK;
            }
            let left = self.n - i;
            S::read::<A>(left, block.as_mut_ptr(), self.src.add(i * s));
            D::write::<A>(left, self.dst.add(i * d), block.as_ptr());
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
    let sizes = [size_of::<D>(), 2];
    dispatch(Through::<Other<D>, Half<H>> { n, dst, src, sizes, types: PhantomData })
}
/// From any other real type to a half format.
/// # Safety
/// As for every `Cast`.
pub(super) unsafe fn narrow<H: Format, S: Src>(n: usize, dst: *mut u8, src: *const u8) {
    let sizes = [2, size_of::<S>()];
    dispatch(Through::<Half<H>, Other<S>> { n, dst, src, sizes, types: PhantomData })
}
/// From one half format to the other.
/// # Safety
/// As for every `Cast`.
pub(super) unsafe fn between<H: Format, G: Format>(n: usize, dst: *mut u8, src: *const u8) {
    dispatch(Through::<Half<H>, Half<G>> { n, dst, src, sizes: [2, 2], types: PhantomData })
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
