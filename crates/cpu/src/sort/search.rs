//! Binary search in sorted lines: `searchsorted`, `bucketize`, `isin`.

use crate::pool::{chunks, parallel};
use crate::simd::{Arch, ArchKernel, dispatch};
use crate::strided::{Ptr, for_runs, offset};
use pyrite_core::dtype::Bool8;
use pyrite_core::half::{bf16, f16};
use pyrite_core::{Arr, DType, Result, bail, match_dtype};
use std::hint::select_unpredictable;
use std::sync::atomic::{AtomicBool, Ordering};

/// Searches that run side by side: each step of one waits for memory, those of the others do not.
const WIDE: usize = 16;

/// Comparisons as the dtype itself makes them: NaN is neither greater nor equal.
trait Compare: Copy + Send + Sync + 'static {
    fn ge(self, v: Self) -> bool;
    fn gt(self, v: Self) -> bool;
}
macro_rules! compare {
    ($($t:ty)*) => { $(
        impl Compare for $t {
            #[inline(always)]
            fn ge(self, v: Self) -> bool { self >= v }
            #[inline(always)]
            fn gt(self, v: Self) -> bool { self > v }
        }
    )* };
}
compare!(u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64);
impl Compare for Bool8 {
    #[inline(always)]
    fn ge(self, v: Self) -> bool {
        self.0 != 0 || v.0 == 0
    }
    #[inline(always)]
    fn gt(self, v: Self) -> bool {
        self.0 != 0 && v.0 == 0
    }
}

/// Binary searches in a line of `n` elements; `before(i, v)`: does element `i` come before `v`'s place?
struct Searches<'a, T, F> {
    vals: &'a [T],
    found: &'a mut [usize],
    n: usize,
    before: F,
}

fn wide_search<T: Copy>(vals: &[T], found: &mut [usize], n: usize, before: impl Fn(usize, T) -> bool) {
    dispatch(Searches { vals, found, n, before });
}

impl<T: Copy, F: Fn(usize, T) -> bool> ArchKernel for Searches<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let before = &self.before;
        if self.n == 0 {
            return;
        }
        for (vals, found) in self.vals.chunks(WIDE).zip(self.found.chunks_mut(WIDE)) {
            // A full set always: loops of known length become vectors where the machine can gather.
            let mut v = [vals[0]; WIDE];
            v[..vals.len()].copy_from_slice(vals);
            let mut base = [0usize; WIDE];
            let mut len = self.n;
            while len > 1 {
                let half = len / 2;
                for j in 0..WIDE {
                    // Which way is a coin toss: a branch would be mispredicted half the time.
                    base[j] = select_unpredictable(before(base[j] + half - 1, v[j]), base[j] + half, base[j]);
                }
                len -= half;
            }
            for j in 0..WIDE {
                base[j] += before(base[j], v[j]) as usize;
            }
            found.copy_from_slice(&base[..found.len()]);
        }
    }
}

/// For each value the position in its line of `seq` before which it belongs: the first element that is
/// not smaller, or with `right` the first that is greater. `dst` (i64 or i32) and `values` have one
/// shape; `seq` is a vector, or has that shape but for the last dimension. With a `sorter` (i64, shaped
/// like `seq`) the line is read in its order.
pub fn search(dst: Arr, seq: Arr, values: Arr, sorter: Option<Arr>, right: bool) -> Result<()> {
    let r = values.shape.len();
    let lined = seq.shape.len() > 1;
    let fits = dst.shape == values.shape
        && !seq.shape.is_empty()
        && seq.dtype == values.dtype
        && (!lined || (seq.shape.len() == r && seq.shape[..r - 1] == values.shape[..r - 1]))
        && sorter.is_none_or(|s| s.shape == seq.shape && s.dtype == DType::I64);
    if !fits || !matches!(dst.dtype, DType::I64 | DType::I32) {
        bail!(Shape, "searchsorted: values {:?} do not fit the sorted {:?}", values.shape, seq.shape);
    }
    let n = seq.shape[seq.shape.len() - 1];
    let step = seq.strides[seq.shape.len() - 1];
    // Lines of values: all of them for a vector.
    let per = if lined { values.shape[r - 1] } else { values.numel() };
    let lines = values.numel().checked_div(per).unwrap_or(0);
    let outer = |s: &[isize], shape: &[usize], l: usize| {
        if lined { offset(&shape[..r - 1], &s[..r - 1], l) } else { 0 }
    };
    let wide = dst.dtype == DType::I64;
    let (d, s, v) = (Ptr(dst.ptr), Ptr(seq.ptr), Ptr(values.ptr));
    let order = sorter.map(|a| (Ptr(a.ptr.cast::<i64>()), a.strides[a.shape.len() - 1]));
    let bad = AtomicBool::new(false);
    let (parts, size) = chunks(per, 1024);
    let sorter_strides = sorter.map_or(&[][..], |a| a.strides);
    let (shapes, strides) = ((dst.shape, seq.shape), (dst.strides, seq.strides, values.strides));
    match_dtype!(real, seq.dtype, |T| {
        parallel(parts * lines, values.numel() as u64 * (20 + 4 * n.max(1).ilog2() as u64), &|c| {
            let (l, part) = (c / parts, c % parts);
            let from = part * size;
            let m = size.min(per - from);
            let s = s.get().cast::<T>().wrapping_offset(outer(strides.1, shapes.1, l));
            let order = order.map(|(p, step)| (p.get().wrapping_offset(outer(sorter_strides, shapes.1, l)), step));
            let get = |i: usize| -> T {
                let at = match order {
                    None => i as isize,
                    Some((p, step)) => {
                        // SAFETY: i < n is a position of the sorter's line.
                        let at = unsafe { p.offset(i as isize * step).read_volatile() };
                        if (at as u64) < n as u64 {
                            at as isize
                        } else {
                            bad.store(true, Ordering::Relaxed);
                            0
                        }
                    }
                };
                // SAFETY: a position of the line.
                unsafe { *s.offset(at * step) }
            };
            let mut vals: Vec<T> = Vec::with_capacity(m);
            for_runs(dst.shape, strides.2, l * per + from, m, |off, stride, k| {
                // SAFETY: runs stay inside the values.
                vals.extend((0..k as isize).map(|j| unsafe { *v.get().cast::<T>().offset(off + j * stride) }));
            });
            let mut found = vec![0usize; m];
            match (order.is_none() && step == 1, right) {
                // SAFETY: a dense line of n elements.
                (true, true) => wide_search(&vals, &mut found, n, #[inline(always)] |i, v| !unsafe { *s.add(i) }.gt(v)),
                // SAFETY: as above.
                (true, false) => wide_search(&vals, &mut found, n, #[inline(always)] |i, v| !unsafe { *s.add(i) }.ge(v)),
                (false, true) => wide_search(&vals, &mut found, n, #[inline(always)] |i, v| !get(i).gt(v)),
                (false, false) => wide_search(&vals, &mut found, n, #[inline(always)] |i, v| !get(i).ge(v)),
            }
            let mut j = 0;
            for_runs(shapes.0, strides.0, l * per + from, m, |off, stride, k| {
                for q in 0..k as isize {
                    // SAFETY: runs stay inside the results, and no other chunk has these.
                    unsafe {
                        let o = off + q * stride;
                        if wide {
                            *d.get().cast::<i64>().offset(o) = found[j] as i64;
                        } else {
                            *d.get().cast::<i32>().offset(o) = found[j] as i32;
                        }
                    }
                    j += 1;
                }
            });
        })
    }, else bail!(NotImplemented, "searchsorted: not implemented for dtype {}", seq.dtype));
    if bad.into_inner() {
        bail!(Runtime, "searchsorted: sorter index out of range");
    }
    Ok(())
}
