//! Indexing: select, gather, scatter, advanced indices, masks, nonzero.
//!
//! Positions were checked by the caller, but another thread may write the index tensor meanwhile:
//! every index is read once and checked again before it becomes an address, so that such a race
//! costs a wrong value or an error, never memory safety.

mod elem;
mod gather;
mod mask;
mod select;
mod take;
#[cfg(test)]
mod tests;

use pyrite_core::backend::Index;
use pyrite_core::{Arr, DType, Result, bail, err};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

pub fn run(i: Index) -> Result<()> {
    match i {
        Index::Select { dst, src, idx, dim } => select::select(dst, src, idx, dim),
        Index::SelectInto { dst, src, idx, dim, how } => select::into(dst, src, idx, dim, how),
        Index::Gather { dst, src, idx, dim } => gather::gather(dst, src, idx, dim),
        Index::Scatter { dst, src, idx, dim, how } => gather::scatter(dst, src, idx, dim, how),
        Index::Take { dst, src, idx } => take::take(dst, src, idx),
        Index::Put { dst, src, idx, how } => take::put(dst, src, idx, how),
        Index::MaskedSelect { dst, src, mask } => mask::select(dst, src, mask),
        Index::MaskedScatter { dst, src, mask } => mask::scatter(dst, src, mask),
        Index::Nonzero { dst, src } => mask::nonzero(dst, src),
    }
}

/// An index tensor's elements.
#[derive(Clone, Copy)]
struct Indices {
    ptr: crate::strided::Ptr,
    wide: bool,
}

impl Indices {
    fn new(op: &str, a: &Arr) -> Result<Indices> {
        match a.dtype {
            DType::I64 | DType::I32 => {
                Ok(Indices { ptr: crate::strided::Ptr(a.ptr), wide: a.dtype == DType::I64 })
            }
            d => bail!(Index, "{op}: the index must be torch.int64 or torch.int32, not {d}"),
        }
    }
    /// The element at an offset, read exactly once.
    /// # Safety
    /// The offset is inside the index tensor.
    #[inline(always)]
    unsafe fn at(self, off: isize) -> i64 {
        // SAFETY: the caller's promise. Volatile: the value checked is the value used.
        unsafe {
            if self.wide {
                self.ptr.get().cast::<i64>().offset(off).read_volatile()
            } else {
                self.ptr.get().cast::<i32>().offset(off).read_volatile() as i64
            }
        }
    }
}

/// Collects the first bad index met by any chunk.
struct Bad {
    value: AtomicI64,
    size: AtomicUsize,
}

/// No index was bad yet (-1 can't mark it, being the most likely bad value).
const FINE: i64 = i64::MAX;

impl Bad {
    fn new() -> Bad {
        Bad { value: AtomicI64::new(FINE), size: AtomicUsize::new(0) }
    }
    /// Is the index a position? If not, remembers it.
    #[inline(always)]
    fn ok(&self, i: i64, size: usize) -> bool {
        let ok = (i as u64) < size as u64;
        if !ok {
            self.note(i, size);
        }
        ok
    }
    #[cold]
    fn note(&self, i: i64, size: usize) {
        self.size.store(size, Ordering::Relaxed);
        self.value.store(i.min(FINE - 1), Ordering::Relaxed);
    }
    fn result(self, op: &str) -> Result<()> {
        match self.value.into_inner() {
            FINE => Ok(()),
            i => {
                let n = self.size.into_inner();
                Err(err!(Index, "{op}: index {i} is out of range for a dimension of size {n}"))
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
