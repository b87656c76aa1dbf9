//! Indices of a write are checked before it: an error leaves the destination as it was.

use super::{BATCH, Bad, Batch, Indices, Width, wide};
use crate::alloc::Block;
use crate::pool::{chunks, parallel};
use crate::strided::{Ptr, for_runs, uniform};
use pyrite_core::{Arr, DType, Kind, Result};
use smallvec::SmallVec;

/// Are all elements of `idx` positions in a dimension of this size? With `wrap`, negative ones count from
/// the end. One vectorised pass over the index; what is read again later is checked again.
pub fn check(op: &str, kind: Kind, idx: &Arr, size: usize, dim: usize, wrap: bool) -> Result<()> {
    let ix = Indices::new(op, idx)?;
    let bad = Bad::new();
    // An expanded index repeats its elements: once is enough.
    let shape: SmallVec<[usize; 6]> =
        idx.shape.iter().zip(idx.strides).map(|(&n, &s)| if s == 0 { n.min(1) } else { n }).collect();
    let total: usize = shape.iter().product();
    let even = uniform(&shape, idx.strides);
    let (n, each) = chunks(total, 1 << 14);
    parallel(n, total as u64 / 4, &|c| {
        wide(
            #[inline(always)]
            || {
                let mut buf: Batch = [0; BATCH];
                let (mut at, end) = (c * each, total.min((c + 1) * each));
                while at < end {
                    let m = BATCH.min(end - at);
                    if let Some(step) = even {
                        // SAFETY: as below.
                        unsafe { ix.read(at as isize * step, step, m, &mut buf) };
                        bad.all(&mut buf[..m], size, dim, wrap);
                    } else {
                        for_runs(
                            &shape,
                            idx.strides,
                            at,
                            m,
                            #[inline(always)]
                            |off, stride, len| {
                                // SAFETY: runs stay inside the index tensor, and are no longer than the batch.
                                unsafe { ix.read(off, stride, len, &mut buf) };
                                bad.all(&mut buf[..len], size, dim, wrap);
                            },
                        );
                    }
                    at += m;
                }
            },
        )
    });
    bad.result(op, kind)
}

/// A smaller index stays in the caches from the check to the write.
const LARGE: usize = 1 << 17;

/// [`check`] of a large dense index into a short dimension, which keeps what it has read in two bytes each,
/// dense and in the same order: so the index comes from memory only once. `None`: nothing was checked.
pub fn shortened(
    op: &str,
    kind: Kind,
    idx: &Arr,
    size: usize,
    dim: usize,
) -> Result<Option<(Block, Indices)>> {
    let total = idx.numel();
    let fits = idx.dtype == DType::I64 && size <= 1 << 16 && total >= LARGE && idx.is_contiguous();
    // Without memory for it, reading the index twice still works.
    let Some(block) = fits.then(|| Block::new(2 * total).ok()).flatten() else {
        return Ok(None);
    };
    let ix = Indices { ptr: Ptr(block.as_ptr()), width: Width::U16 };
    let (from, to) = (Ptr(idx.ptr.cast::<i64>()), Ptr(block.as_ptr().cast::<u16>()));
    let bad = Bad::new();
    let (n, each) = chunks(total, 1 << 14);
    parallel(n, total as u64 / 4, &|c| {
        wide(
            #[inline(always)]
            || {
                let (from, to) = (from.get(), to.get());
                let (mut at, end) = (c * each, total.min((c + 1) * each));
                while at < end {
                    let m = BATCH.min(end - at);
                    let mut worst = 0;
                    for j in at..at + m {
                        // SAFETY: places of the index and of the block, of this chunk.
                        unsafe {
                            let i = from.add(j).read_unaligned();
                            *to.add(j) = i as u16;
                            worst = worst.max(i as u64);
                        }
                    }
                    if worst >= size as u64 {
                        let mut buf: Batch = [0; BATCH];
                        // SAFETY: places of the index. (If it was written to meanwhile and is right now,
                        // what was kept is still tested before it is used.)
                        unsafe { from.add(at).copy_to_nonoverlapping(buf.as_mut_ptr(), m) };
                        bad.all(&mut buf[..m], size, dim, false);
                    }
                    at += m;
                }
            },
        )
    });
    bad.result(op, kind).map(|()| Some((block, ix)))
}
