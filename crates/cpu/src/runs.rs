//! Runs of equal neighbours, in one pass: what `unique_consecutive` is, and `unique` after sorting.

use crate::gemm::Shared;
use crate::pool;
use crate::simd::{Arch, ArchKernel, dispatch};
use pyrite_core::dtype::Bool8;
use pyrite_core::half::{bf16, f16};
use pyrite_core::{Arr, DType, Result, bail, match_dtype};
use std::mem::MaybeUninit;

/// Elements looked at together: mostly all of them or none start a run, which is a copy or nothing.
const BLOCK: usize = 64;
/// From here on counting first, so that threads know where their results start, is worth it.
const SHARED: usize = 1 << 17;

/// A test that vectors can do. NaN differs from NaN, and the two zeros are equal.
trait Same: Copy + Send + Sync {
    fn differ(a: Self, b: Self) -> bool;
}
macro_rules! same {
    ($($t:ty)*) => { $(
        impl Same for $t {
            #[inline(always)]
            fn differ(a: Self, b: Self) -> bool { a != b }
        }
    )* };
}
same!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);
macro_rules! same_half {
    ($($t:ty)*) => { $(
        impl Same for $t {
            #[inline(always)]
            fn differ(a: Self, b: Self) -> bool {
                let (x, y) = (a.to_bits(), b.to_bits());
                ((x != y) & ((x | y) << 1 != 0)) | a.is_nan()
            }
        }
    )* };
}
same_half!(f16 bf16);
impl Same for Bool8 {
    #[inline(always)]
    fn differ(a: Self, b: Self) -> bool {
        (a.0 != 0) != (b.0 != 0)
    }
}

/// Where results go; null: not wanted. All are dense and have room for as many as there are elements.
#[derive(Clone, Copy)]
struct To<T> {
    values: *mut T,
    starts: *mut i64,
    run: *mut i64,
}

/// The elements `from..to`, with as many runs started before them as `slot` says, and at most `last` at
/// their end. How many runs have started by then.
struct Part<T> {
    x: *const T,
    from: usize,
    to: usize,
    slot: usize,
    last: usize,
    results: Option<To<T>>,
}

impl<T: Same> ArchKernel for Part<T> {
    type Out = usize;
    #[inline(always)]
    fn run<A: Arch>(self) -> usize {
        let Part { x, from, to, mut slot, last, results } = self;
        let mut new = [0u8; BLOCK];
        let mut i = from;
        while i < to {
            let m = BLOCK.min(to - i);
            // SAFETY: elements of the array; the first one has none before it.
            unsafe {
                let here = x.add(i);
                new[0] = if i == 0 { 1 } else { T::differ(*here.sub(1), *here) as u8 };
                for (j, d) in new[..m].iter_mut().enumerate().skip(1) {
                    *d = T::differ(*here.add(j - 1), *here.add(j)) as u8;
                }
            }
            let found = new[..m].iter().map(|d| *d as usize).sum::<usize>();
            if let Some(t) = results {
                // The array may be written to meanwhile, and other parts' results are theirs.
                let found = found.min(last - slot);
                // SAFETY: results `slot..slot + found`, and the runs of elements `i..i + m`.
                unsafe { block(x, i, &new[..m], slot, found, t) };
                slot += found;
            } else {
                slot += found;
            }
            i += m;
        }
        slot
    }
}

/// # Safety
/// `found` results from `slot` on belong to the caller, as do the runs of the elements from `i` on, of
/// which there are as many as `new` has.
#[inline(always)]
unsafe fn block<T: Same>(x: *const T, i: usize, new: &[u8], slot: usize, found: usize, t: To<T>) {
    let m = new.len();
    // SAFETY: the caller's promise.
    unsafe {
        if found == m {
            x.add(i).copy_to_nonoverlapping(t.values.add(slot), m);
            if !t.starts.is_null() {
                for j in 0..m {
                    *t.starts.add(slot + j) = (i + j) as i64;
                }
            }
            if !t.run.is_null() {
                for j in 0..m {
                    *t.run.add(i + j) = (slot + j) as i64;
                }
            }
            return;
        }
        if !t.run.is_null() {
            let mut s = slot as i64 - 1;
            for (j, d) in new.iter().enumerate() {
                s += *d as i64;
                *t.run.add(i + j) = s;
            }
        }
        if found == 0 {
            return;
        }
        // Written always, kept if a run starts there: no branch on random data.
        let mut kept = [const { MaybeUninit::<T>::uninit() }; BLOCK];
        let mut at = [0i64; BLOCK];
        let mut k = 0;
        for (j, d) in new.iter().enumerate() {
            kept[k].write(*x.add(i + j));
            at[k] = (i + j) as i64;
            k += *d as usize & (k + 1 < BLOCK) as usize;
        }
        // All of BLOCK are the case above; so `found` of them were kept, and written before.
        kept.as_ptr().cast::<T>().copy_to_nonoverlapping(t.values.add(slot), found);
        if !t.starts.is_null() {
            at.as_ptr().copy_to_nonoverlapping(t.starts.add(slot), found);
        }
    }
}

/// Of the dense vector `src`: the first element of each run into `values`, its length into `lengths`, and
/// for each element the number of its run into `run`; all as long as `src`, numbers torch.int64. How
/// many runs there are.
pub fn runs(src: Arr, values: Arr, lengths: Option<Arr>, run: Option<Arr>) -> Result<usize> {
    let k = find(src, values, lengths, run)?;
    if let Some(l) = lengths {
        // Positions become distances to the next one.
        // SAFETY: `find` left `k` positions, of which `k <= n`.
        let l = unsafe { std::slice::from_raw_parts_mut(l.ptr.cast::<i64>(), k) };
        dispatch(Distances { starts: l, end: src.numel() as i64 });
    }
    Ok(k)
}

struct Distances<'a> {
    starts: &'a mut [i64],
    end: i64,
}
impl ArchKernel for Distances<'_> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Distances { starts, end } = self;
        for j in 1..starts.len() {
            starts[j - 1] = starts[j] - starts[j - 1];
        }
        if let Some(last) = starts.last_mut() {
            *last = end - *last;
        }
    }
}

/// `runs`, with positions of starts in the place of lengths.
fn find(src: Arr, values: Arr, starts: Option<Arr>, run: Option<Arr>) -> Result<usize> {
    let n = src.numel();
    let dense = |a: &Arr, d: DType| a.dtype == d && a.shape == [n] && (n < 2 || a.strides == [1]);
    let fits = dense(&src, src.dtype)
        && dense(&values, src.dtype)
        && [&starts, &run].into_iter().flatten().all(|a| dense(a, DType::I64));
    if !fits {
        bail!(
            Shape,
            "unique_consecutive: expected dense vectors of {n} elements of {} and torch.int64",
            src.dtype
        );
    }
    if n == 0 {
        return Ok(0);
    }
    let place = |a: Option<Arr>| a.map_or(std::ptr::null_mut(), |a| a.ptr.cast::<i64>());
    match_dtype!(real, src.dtype, |T| {
        let results = Some(To { values: values.ptr.cast::<T>(), starts: place(starts), run: place(run) });
        let x = src.ptr.cast::<T>().cast_const();
        if n < SHARED || pool::num_threads() == 1 {
            return Ok(dispatch(Part { x, from: 0, to: n, slot: 0, last: n, results }));
        }
        let (parts, size) = pool::chunks(n, SHARED / 8);
        let range = |c: usize| (c * size, n.min((c + 1) * size));
        let shared = Shared((x, results));
        let mut counts = vec![0usize; parts + 1];
        let to = Shared(counts.as_mut_ptr());
        pool::parallel(parts, n as u64 / 8, &|c| {
            let ((from, to_), (x, _)) = (range(c), shared.get());
            let found = dispatch(Part { x, from, to: to_, slot: 0, last: 0, results: None::<To<T>> });
            // SAFETY: this part's entry.
            unsafe { *to.get().add(c + 1) = found };
        });
        for c in 0..parts {
            counts[c + 1] += counts[c];
        }
        let counts = &counts;
        pool::parallel(parts, n as u64 / 2, &|c| {
            let ((from, to), (x, results)) = (range(c), shared.get());
            dispatch(Part { x, from, to, slot: counts[c], last: counts[c + 1], results });
        });
        Ok(counts[parts])
    }, else bail!(NotImplemented, "\"unique\" is not implemented for '{}'", src.dtype.name()))
}
