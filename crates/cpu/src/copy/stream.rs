//! Dense bytes and patterns in vectors, past the caches or through them.

use crate::by_size;
use crate::simd::{Arch, ArchKernel, Lanes, dispatch};

/// `n` consecutive copies of the element at `value`.
///
/// # Safety
/// `dst` is valid for `n` elements, `value` for one.
pub(crate) unsafe fn splat(size: usize, n: usize, dst: *mut u8, value: *const u8) {
    // SAFETY: the caller's promise; the pattern is a vector of whole elements.
    unsafe {
        if n * size >= 256 {
            let mut pattern = [0u8; 64];
            for p in pattern.chunks_exact_mut(size) {
                value.copy_to_nonoverlapping(p.as_mut_ptr(), size);
            }
            let src = pattern.as_ptr();
            return dispatch(Stream { dst, src, bytes: n * size, pattern: true, past: false });
        }
        by_size!(size, |T| {
            let v = value.cast::<T>().read_unaligned();
            let d = dst.cast::<T>();
            for i in 0..n {
                d.add(i).write_unaligned(v);
            }
        })
    }
}

pub(super) struct Stream {
    pub dst: *mut u8,
    pub src: *const u8,
    pub bytes: usize,
    /// The source does not move: a vector's worth of a pattern.
    pub pattern: bool,
    /// Past the caches.
    pub past: bool,
}

impl ArchKernel for Stream {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let w = A::F64::N * 8;
        let mut i = 0;
        // SAFETY: the caller of `stream` promises the bytes and the alignment; the tail is copied.
        unsafe {
            let fixed = if self.pattern { A::F64::load(self.src.cast()) } else { A::F64::splat(0.0) };
            while i + w <= self.bytes {
                let v = if self.pattern { fixed } else { A::F64::load(self.src.add(i).cast()) };
                let d = self.dst.add(i).cast();
                if self.past {
                    v.stream(d)
                } else {
                    v.store(d)
                }
                i += w;
            }
            let s = if self.pattern { self.src } else { self.src.add(i) };
            s.copy_to_nonoverlapping(self.dst.add(i), self.bytes - i);
        }
    }
}

/// Copies past the caches; call [`crate::simd::fence`] before another thread may read.
///
/// # Safety
/// Both ranges are valid and disjoint; `dst` is aligned to 64 bytes.
pub(crate) unsafe fn stream(dst: *mut u8, src: *const u8, bytes: usize) {
    dispatch(Stream { dst, src, bytes, pattern: false, past: true })
}

/// `stream` to any address: up to the first cache line and after the last one through the caches.
///
/// # Safety
/// Both ranges are valid and disjoint.
pub(super) unsafe fn stream_row(dst: *mut u8, src: *const u8, bytes: usize) {
    let head = dst.align_offset(64).min(bytes);
    let whole = (bytes - head) / 64 * 64;
    // SAFETY: three parts of the ranges; the second starts and ends at a cache line.
    unsafe {
        src.copy_to_nonoverlapping(dst, head);
        stream(dst.add(head), src.add(head), whole);
        let done = head + whole;
        src.add(done).copy_to_nonoverlapping(dst.add(done), bytes - done);
    }
}
