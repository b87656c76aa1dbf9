//! One line of indexed elements: each index is read once, checked and used on the spot.
//!
//! Copying indices first (as `Indices::read` does) pays where several rows share them; here it would
//! only make a second pass over the largest operand.

use super::{Bad, Indices, NOWHERE, Width};

/// Element steps along a line: of the array that has the index's shape, of the indexed array beside
/// and along the indexed dimension, and of the index.
#[derive(Clone, Copy)]
pub struct Steps {
    pub a: isize,
    pub b: isize,
    pub along: isize,
    pub i: isize,
}

/// What an index is checked against.
#[derive(Clone, Copy)]
pub struct Check<'a> {
    pub bad: &'a Bad,
    pub size: usize,
    pub dim: usize,
    /// Negative ones count from the end.
    pub wrap: bool,
}

/// An indexed dimension of this many bytes does not stay in the nearest caches.
const FAR: usize = 256 << 10;
/// How many elements ahead the indexed array is asked for.
const AHEAD: isize = 32;

trait Int: Copy {
    fn wide(self) -> i64;
}
impl Int for i64 {
    #[inline(always)]
    fn wide(self) -> i64 {
        self
    }
}
impl Int for i32 {
    #[inline(always)]
    fn wide(self) -> i64 {
        self as i64
    }
}
impl Int for u16 {
    #[inline(always)]
    fn wide(self) -> i64 {
        self as i64
    }
}

/// Asks for the cache line at an address, which need not exist.
#[inline(always)]
fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching does not fault, whatever the address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(p.cast())
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

#[inline(always)]
unsafe fn each<I: Int>(
    ix: *const I,
    t: Steps,
    js: std::ops::Range<isize>,
    check: Check,
    ahead: impl Fn(isize),
    f: &mut impl FnMut(isize, isize),
) {
    for j in js {
        // SAFETY: the caller's promise; volatile, so that what was checked is what is used.
        let mut at = unsafe { ix.offset(j * t.i).read_volatile() }.wide();
        if at as u64 >= check.size as u64 {
            at = check.bad.one(at, check.size, check.dim, check.wrap);
            if at == NOWHERE {
                continue;
            }
        }
        ahead(j);
        f(j * t.a, j * t.b + at as isize * t.along);
    }
}

#[inline(always)]
unsafe fn typed<T, I: Int>(
    ix: *const I,
    t: Steps,
    n: usize,
    check: Check,
    b: *const T,
    f: &mut impl FnMut(isize, isize),
) {
    let n = n as isize;
    // SAFETY: the caller's promise; the index `AHEAD` elements ahead is inside the line too.
    unsafe {
        if (t.a, t.b, t.along, t.i) == (1, 0, 1, 1) {
            let t = Steps { a: 1, b: 0, along: 1, i: 1 };
            let near = if check.size * size_of::<T>() > FAR { (n - AHEAD).max(0) } else { 0 };
            let ask = |j: isize| {
                let at = ix.offset(j + AHEAD).read_volatile().wide();
                prefetch(b.wrapping_offset(at as isize))
            };
            each(ix, t, 0..near, check, ask, f);
            each(ix, t, near..n, check, |_| (), f);
        } else if (t.a, t.b, t.i) == (1, 1, 1) {
            each(ix, Steps { a: 1, b: 1, along: t.along, i: 1 }, 0..n, check, |_| (), f);
        } else {
            each(ix, t, 0..n, check, |_| (), f);
        }
    }
}

/// Calls `f(offset in a, offset in b)` for `n` elements, in order, those with bad indices left out.
/// `b` is where the indexed array's line starts.
/// # Safety
/// The indices from offset `oi` on are inside the index tensor.
#[inline(always)]
pub unsafe fn line<T>(
    ix: Indices,
    oi: isize,
    t: Steps,
    n: usize,
    check: Check,
    b: *const T,
    mut f: impl FnMut(isize, isize),
) {
    // SAFETY: the caller's promise.
    unsafe {
        match ix.width {
            Width::I64 => typed(ix.ptr.get().cast::<i64>().offset(oi), t, n, check, b, &mut f),
            Width::I32 => typed(ix.ptr.get().cast::<i32>().offset(oi), t, n, check, b, &mut f),
            Width::U16 => typed(ix.ptr.get().cast::<u16>().offset(oi), t, n, check, b, &mut f),
        }
    }
}

/// A short index that many rows use: read and checked once. `None`: it is too long for that, or has
/// a bad index, which `bad` then knows.
/// # Safety
/// `n` indices from the start, `step` apart, are inside the index tensor.
pub unsafe fn list(ix: Indices, step: isize, n: usize, check: Check) -> Option<Vec<u32>> {
    const MOST: usize = 1 << 16;
    if n > MOST || check.size > u32::MAX as usize {
        return None;
    }
    let mut out = Vec::new();
    out.try_reserve_exact(n).ok()?;
    let t = Steps { a: 0, b: 0, along: 1, i: step };
    // SAFETY: the caller's promise; `b` is only ever prefetched.
    unsafe { line::<u8>(ix, 0, t, n, check, std::ptr::null(), |_, at| out.push(at as u32)) };
    (out.len() == n).then_some(out)
}
