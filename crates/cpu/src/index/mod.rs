//! Indexing: select, gather, scatter, advanced indices, masks, nonzero.
//!
//! Indices are copied in batches, checked there, and used from there: another thread that writes the
//! index tensor meanwhile costs a wrong value or an error, never memory safety.

mod beforehand;
pub(crate) mod elem;
mod gather;
mod line;
mod mask;
mod select;
mod take;
#[cfg(test)]
mod tests;

use crate::simd::{Arch, ArchKernel, dispatch};
use pyrite_core::backend::Index;
use pyrite_core::{Arr, DType, Kind, Result, bail};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering, compiler_fence};

pub fn run(i: Index) -> Result<()> {
    match i {
        Index::Select { dst, src, idx, dim } => select::select(dst, src, idx, dim),
        Index::SelectInto { dst, src, idx, dim, how } => select::into(dst, src, idx, dim, how),
        Index::Gather { dst, src, idx, dim } => gather::gather(dst, src, idx, dim),
        Index::Scatter { dst, src, idx, dim, how } => gather::scatter(dst, src, idx, dim, how),
        Index::Take { dst, src, idx, dims } => take::take(dst, src, idx, dims),
        Index::Put { dst, src, idx, dims, how } => take::put(dst, src, idx, dims, how),
        Index::MaskedSelect { dst, src, mask } => mask::select(dst, src, mask),
        Index::MaskedScatter { dst, src, mask } => mask::scatter(dst, src, mask),
        Index::Nonzero { dst, src } => mask::nonzero(dst, src),
    }
}

/// An index tensor's elements.
#[derive(Clone, Copy)]
struct Indices {
    ptr: crate::strided::Ptr,
    width: Width,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    I64,
    I32,
    /// What `beforehand::shortened` keeps; no tensor has such an index.
    U16,
}

impl Indices {
    fn new(op: &str, a: &Arr) -> Result<Indices> {
        match a.dtype {
            DType::I64 => Ok(Indices { ptr: crate::strided::Ptr(a.ptr), width: Width::I64 }),
            DType::I32 => Ok(Indices { ptr: crate::strided::Ptr(a.ptr), width: Width::I32 }),
            d => bail!(Index, "{op}: the index must be torch.int64 or torch.int32, not {d}"),
        }
    }
    /// `n <= BATCH` indices from an offset on, each read exactly once.
    /// # Safety
    /// They are inside the index tensor.
    #[inline(always)]
    unsafe fn read(self, off: isize, step: isize, n: usize, out: &mut Batch) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.width {
                Width::I64 => {
                    let p = self.ptr.get().cast::<i64>().offset(off);
                    if step == 1 {
                        std::ptr::copy_nonoverlapping(p.cast::<u8>(), out.as_mut_ptr().cast(), n * 8);
                    } else {
                        for (j, o) in out[..n].iter_mut().enumerate() {
                            *o = p.offset(j as isize * step).read_volatile();
                        }
                    }
                }
                Width::I32 => {
                    let p = self.ptr.get().cast::<i32>().offset(off);
                    for (j, o) in out[..n].iter_mut().enumerate() {
                        *o = p.offset(j as isize * step).read_volatile() as i64;
                    }
                }
                Width::U16 => {
                    let p = self.ptr.get().cast::<u16>().offset(off);
                    for (j, o) in out[..n].iter_mut().enumerate() {
                        *o = p.offset(j as isize * step).read_volatile() as i64;
                    }
                }
            }
        }
        // What is checked below is what was copied here, not what the tensor holds by then.
        compiler_fence(Ordering::SeqCst);
    }
}

/// Indices read, checked and used together.
const BATCH: usize = 256;
type Batch = [i64; BATCH];

/// A closure compiled for the machine's instruction set: checks of indices are vector comparisons.
struct Wide<F>(F);
impl<F: FnOnce()> ArchKernel for Wide<F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        (self.0)()
    }
}
#[inline(always)]
fn wide(f: impl FnOnce()) {
    dispatch(Wide(f))
}

/// Marks what was no position.
const NOWHERE: i64 = -1;

/// Collects the first bad index met by any chunk.
struct Bad {
    value: AtomicI64,
    size: AtomicUsize,
    dim: AtomicUsize,
}

/// No index was bad yet (-1 can't mark it, being the most likely bad value).
const FINE: i64 = i64::MAX;

impl Bad {
    fn new() -> Bad {
        Bad { value: AtomicI64::new(FINE), size: AtomicUsize::new(0), dim: AtomicUsize::new(0) }
    }
    /// Are all positions in a dimension of this size? If not, remembers one that is none, and marks
    /// those with [`NOWHERE`]. With `wrap`, negative ones count from the end.
    #[inline(always)]
    fn all(&self, idx: &mut [i64], size: usize, dim: usize, wrap: bool) -> bool {
        let worst = idx.iter().fold(0, |m, &i| m.max(i as u64));
        worst < size as u64 || self.mend(idx, size, dim, wrap)
    }
    /// One index outside: the position it stands for, or [`NOWHERE`].
    #[cold]
    #[inline(never)]
    fn one(&self, at: i64, size: usize, dim: usize, wrap: bool) -> i64 {
        let mut at = [at];
        self.mend(&mut at, size, dim, wrap);
        at[0]
    }
    #[cold]
    fn mend(&self, idx: &mut [i64], size: usize, dim: usize, wrap: bool) -> bool {
        let mut fine = true;
        for i in idx.iter_mut() {
            let at = if wrap && *i < 0 { i.wrapping_add(size as i64) } else { *i };
            if (at as u64) < size as u64 {
                *i = at;
            } else {
                self.size.store(size, Ordering::Relaxed);
                self.dim.store(dim, Ordering::Relaxed);
                self.value.store((*i).min(FINE - 1), Ordering::Relaxed);
                *i = NOWHERE;
                fine = false;
            }
        }
        fine
    }
    fn result(self, op: &str, kind: Kind) -> Result<()> {
        match self.value.into_inner() {
            FINE => Ok(()),
            i => {
                let (n, d) = (self.size.into_inner(), self.dim.into_inner());
                let text = format!("{op}: index {i} is out of bounds for dimension {d} with size {n}");
                Err(pyrite_core::Error::new(kind, text))
            }
        }
    }
}

/// One loop dimension: its length and the strides of two arrays along it.
type Loop = (usize, [isize; 2]);

/// Loop nests over dimensions of two arrays, merged where both allow it.
#[derive(Default)]
struct Nest {
    dims: smallvec::SmallVec<[Loop; 6]>,
}

impl Nest {
    fn new(dims: impl Iterator<Item = Loop>) -> Nest {
        let mut out = Nest::default();
        for (n, s) in dims {
            if n == 1 {
                continue;
            }
            match out.dims.last_mut() {
                Some((m, t)) if (0..2).all(|k| t[k] == s[k] * n as isize) => {
                    *m *= n;
                    *t = s;
                }
                _ => out.dims.push((n, s)),
            }
        }
        out
    }
    fn len(&self) -> usize {
        self.dims.iter().map(|d| d.0).product()
    }
    /// Takes the innermost dimension off if both strides in it are 1: the length of dense stretches.
    fn pop_dense(&mut self) -> usize {
        match self.dims.last() {
            Some(&(n, [1, 1])) => {
                self.dims.pop();
                n
            }
            _ => 1,
        }
    }
    /// Both offsets of a flat position.
    #[inline]
    fn offset(&self, mut i: usize) -> [isize; 2] {
        let mut off = [0; 2];
        for &(n, s) in self.dims.iter().rev() {
            let at = (i % n.max(1)) as isize;
            i /= n.max(1);
            off[0] += at * s[0];
            off[1] += at * s[1];
        }
        off
    }
}

/// Estimated time of moving `n` pieces of `bytes` bytes.
fn cost(n: usize, bytes: usize) -> u64 {
    (n as u64).saturating_mul(2 + bytes as u64 / 8)
}
