//! Boolean masks: `masked_select`, `masked_scatter`, `nonzero`. Each counts per chunk first, so that
//! chunks know where their results start.

use super::elem::{check, move_run};
use crate::by_size;
use crate::pool::{chunks, parallel};
use crate::strided::{Ptr, for_runs};
use pyrite_core::backend::Scatter;
use pyrite_core::{Arr, DType, Result, bail};
use smallvec::SmallVec;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Elements handled at a time inside a chunk.
const BATCH: usize = 1024;

/// An array's parts that chunks share.
#[derive(Clone, Copy)]
struct View<'a> {
    ptr: Ptr,
    shape: &'a [usize],
    strides: &'a [isize],
    dense: bool,
}

impl<'a> View<'a> {
    fn new(a: &Arr<'a>) -> View<'a> {
        View { ptr: Ptr(a.ptr), shape: a.shape, strides: a.strides, dense: a.is_contiguous() }
    }
    /// `n` elements from flat position `start` on: where they lie, or a dense copy in `buf`.
    /// # Safety
    /// As `load`.
    #[inline(always)]
    unsafe fn at<T: Copy>(self, start: usize, n: usize, buf: *mut T) -> *const T {
        // SAFETY: the caller's promise.
        unsafe {
            if self.dense {
                return self.ptr.get().cast::<T>().add(start);
            }
            self.load(start, n, buf);
        }
        buf
    }
    /// `n` elements from flat position `start` on, as a dense copy.
    /// # Safety
    /// The positions are inside the array of `T`-sized elements, `out` has room for `n`.
    unsafe fn load<T: Copy>(self, start: usize, n: usize, mut out: *mut T) {
        for_runs(self.shape, self.strides, start, n, |off, stride, k| {
            // SAFETY: the runs stay inside the array and add up to `n`.
            unsafe {
                let p = self.ptr.get().cast::<T>().offset(off);
                move_run(out, 1, p, stride, k);
                out = out.add(k);
            }
        })
    }
}

/// Where each chunk's results start, and the number of all (one more entry).
fn starts(n_chunks: usize, total: usize, count: &(dyn Fn(usize) -> usize + Sync)) -> Vec<usize> {
    let found: Vec<AtomicUsize> = (0..n_chunks).map(|_| AtomicUsize::new(0)).collect();
    parallel(n_chunks, total as u64 / 2, &|c| found[c].store(count(c), Ordering::Relaxed));
    let mut out = Vec::with_capacity(n_chunks + 1);
    let mut sum = 0;
    out.push(0);
    for f in found {
        sum += f.into_inner();
        out.push(sum);
    }
    out
}

fn masked(op: &str, whole: &Arr, mask: &Arr, dense: &Arr) -> Result<()> {
    if whole.shape != mask.shape || dense.shape.len() != 1 {
        bail!(Shape, "{op}: the mask has shape {:?}, the tensor {:?}", mask.shape, whole.shape);
    }
    if mask.dtype.size() != 1 {
        bail!(Type, "{op}: the mask must be torch.bool, not {}", mask.dtype);
    }
    Ok(())
}

/// The number of true bytes among positions `from..to`.
fn count(mask: View, from: usize, to: usize) -> usize {
    let (mut sum, mut i, mut buf) = (0, from, [0u8; BATCH]);
    while i < to {
        let m = BATCH.min(to - i);
        // SAFETY: positions inside the mask, room for BATCH bytes.
        let bytes = unsafe { std::slice::from_raw_parts(mask.at(i, m, buf.as_mut_ptr()), m) };
        sum += bytes.iter().map(|&b| (b != 0) as u32).sum::<u32>() as usize;
        i += m;
    }
    sum
}

pub fn select(dst: Arr, src: Arr, mask: Arr) -> Result<()> {
    let op = "masked_select";
    check(op, &dst, &src, Scatter::Set)?;
    masked(op, &src, &mask, &dst)?;
    let total = src.numel();
    let (n, each) = chunks(total, 16384);
    let (m, s) = (View::new(&mask), View::new(&src));
    let starts = starts(n, total, &|c| count(m, c * each, total.min((c + 1) * each)));
    if starts[n] != dst.numel() {
        bail!(Runtime, "{op}: {} elements are selected but the result has {}", starts[n], dst.numel());
    }
    let (d, stride) = (Ptr(dst.ptr), dst.strides[0]);
    by_size!(dst.dtype.size(), |T| {
        parallel(n, total as u64, &|c| {
            let (mut mb, mut sb) = ([0u8; BATCH], [T::default(); BATCH]);
            let (mut i, end) = (c * each, total.min((c + 1) * each));
            let (mut at, last) = (starts[c], starts[c + 1]);
            while i < end && at < last {
                let k = BATCH.min(end - i);
                // SAFETY: positions inside both arrays. The chunk writes the results from its
                // start up to the next one's, whatever the mask holds by now.
                unsafe {
                    let hits = m.at(i, k, mb.as_mut_ptr());
                    let kept = sb.as_mut_ptr();
                    let all: *const T = s.at(i, k, kept);
                    let d = d.get().cast::<T>();
                    // Kept (in place, where that is a copy), written always: no branch on random masks.
                    let mut m = 0;
                    for j in 0..k {
                        kept.add(m).write_unaligned(all.add(j).read_unaligned());
                        m += (hits.add(j).read_volatile() != 0) as usize;
                    }
                    let m = m.min(last - at);
                    move_run(d.offset(at as isize * stride), stride, sb.as_ptr(), 1, m);
                    at += m;
                }
                i += k;
            }
        })
    });
    Ok(())
}

pub fn scatter(dst: Arr, src: Arr, mask: Arr) -> Result<()> {
    let op = "masked_scatter";
    check(op, &dst, &src, Scatter::Set)?;
    masked(op, &dst, &mask, &src)?;
    let total = dst.numel();
    let (n, each) = chunks(total, 16384);
    let m = View::new(&mask);
    let starts = starts(n, total, &|c| count(m, c * each, total.min((c + 1) * each)));
    if starts[n] > src.numel() {
        bail!(Runtime, "{op}: {} elements are to be set but the source has {}", starts[n], src.numel());
    }
    if starts[n] == 0 {
        return Ok(());
    }
    let (d, s, stride) = (View::new(&dst), Ptr(src.ptr), src.strides[0]);
    by_size!(dst.dtype.size(), |T| {
        parallel(n, total as u64, &|c| {
            let (mut mb, mut found) = ([0u8; BATCH], [0u16; BATCH]);
            let (mut i, end) = (c * each, total.min((c + 1) * each));
            let (mut at, last) = (starts[c], starts[c + 1]);
            while i < end {
                let k = BATCH.min(end - i);
                // SAFETY: positions inside the mask.
                unsafe { m.load(i, k, mb.as_mut_ptr()) };
                let mut j = 0;
                for_runs(d.shape, d.strides, i, k, |off, step, len| {
                    // Written always, kept if set: no branch on random masks.
                    let mut m = 0;
                    for (q, &hit) in mb[j..j + len].iter().enumerate() {
                        found[m] = q as u16;
                        m += (hit != 0) as usize;
                    }
                    let m = m.min(last - at);
                    for (t, &q) in found[..m].iter().enumerate() {
                        // SAFETY: a position of this chunk in dst, and one below `last`, which is at
                        // most the source's length.
                        unsafe {
                            let v = s.get().cast::<T>().offset((at + t) as isize * stride).read_unaligned();
                            let to = d.ptr.get().cast::<T>().offset(off + q as isize * step);
                            to.write_unaligned(v);
                        }
                    }
                    at += m;
                    j += len;
                });
                i += k;
            }
        })
    });
    Ok(())
}

/// Is any bit of an element set, sign bits of floats aside?
trait Bits: Copy + Default {
    fn set(self, no_sign: bool) -> bool;
}
macro_rules! bits {
    ($($t:ty),*) => { $(
        impl Bits for $t {
            #[inline(always)]
            fn set(self, no_sign: bool) -> bool { if no_sign { self << 1 != 0 } else { self != 0 } }
        }
    )* };
}
bits!(u8, u16, u32, u64);
impl Bits for [u64; 2] {
    #[inline(always)]
    fn set(self, no_sign: bool) -> bool {
        self[0].set(no_sign) | self[1].set(no_sign)
    }
}

pub fn nonzero(dst: Arr, src: Arr) -> Result<()> {
    let r = src.shape.len();
    if dst.dtype != DType::I64 || dst.shape.len() != 2 || dst.shape[1] != r {
        bail!(Shape, "nonzero: the result must be torch.int64 of shape [n, {r}]");
    }
    let total = src.numel();
    let (n, each) = chunks(total, 16384);
    let s = View::new(&src);
    // A pair of f32 is one u64 whose two sign bits don't count; the other floats have one.
    let pair = src.dtype == DType::C64;
    let no_sign = src.dtype.is_float() || src.dtype == DType::C128;
    let (d, sd) = (Ptr(dst.ptr.cast::<i64>()), [dst.strides[0], dst.strides[1]]);
    by_size!(src.dtype.size(), |T| {
        let hits = |i: usize, k: usize, out: &mut [u8; BATCH]| {
            let mut buf = [T::default(); BATCH];
            // SAFETY: positions inside src.
            unsafe { s.load(i, k, buf.as_mut_ptr()) };
            if pair {
                // SAFETY: here T is u64, and so is every element read.
                let words: &[u64; BATCH] = unsafe { &*buf.as_ptr().cast() };
                for j in 0..k {
                    out[j] = (words[j] & 0x7fff_ffff_7fff_ffff != 0) as u8;
                }
            } else {
                for j in 0..k {
                    out[j] = buf[j].set(no_sign) as u8;
                }
            }
        };
        let starts = starts(n, total, &|c| {
            let (mut sum, mut i, end) = (0, c * each, total.min((c + 1) * each));
            let mut h = [0; BATCH];
            while i < end {
                let k = BATCH.min(end - i);
                hits(i, k, &mut h);
                sum += h[..k].iter().map(|&b| b as u32).sum::<u32>() as usize;
                i += k;
            }
            sum
        });
        if starts[n] != dst.shape[0] {
            bail!(Runtime, "nonzero: {} elements are not zero, the result has {}", starts[n], dst.shape[0]);
        }
        let row = src.shape.last().copied().unwrap_or(1).max(1);
        let lead = &src.shape[..r.saturating_sub(1)];
        parallel(n, total as u64, &|c| {
            let (mut i, end) = (c * each, total.min((c + 1) * each));
            let (mut at, last) = (starts[c], starts[c + 1]);
            let mut h = [0; BATCH];
            let mut found = [0u16; BATCH];
            let mut pos: SmallVec<[i64; 6]> = SmallVec::from_elem(0, r);
            while i < end && at < last {
                // A stretch of one row: all coordinates but the last stand still.
                let k = BATCH.min(end - i).min(row - i % row);
                hits(i, k, &mut h);
                // Written always, kept if set: no branch on random data.
                let mut m = 0;
                for (j, &hit) in h[..k].iter().enumerate() {
                    found[m] = j as u16;
                    m += hit as usize;
                }
                let m = m.min(last - at);
                let mut flat = i / row;
                for (q, &len) in lead.iter().enumerate().rev() {
                    pos[q] = (flat % len) as i64;
                    flat /= len;
                }
                let col = (i % row) as i64;
                // SAFETY: rows `at..at + m` are this chunk's, of r columns each.
                unsafe {
                    let to = d.get().offset(at as isize * sd[0]);
                    if r == 1 && sd[0] == 1 {
                        for (t, &j) in found[..m].iter().enumerate() {
                            to.add(t).write_unaligned(col + j as i64);
                        }
                    } else if r > 0 {
                        for (t, &j) in found[..m].iter().enumerate() {
                            let to = to.offset(t as isize * sd[0]);
                            for (q, &v) in pos[..r - 1].iter().enumerate() {
                                to.offset(q as isize * sd[1]).write_unaligned(v);
                            }
                            to.offset((r - 1) as isize * sd[1]).write_unaligned(col + j as i64);
                        }
                    }
                }
                at += m;
                i += k;
            }
        })
    });
    Ok(())
}
