//! Indices of a write are checked before it: an error leaves the destination as it was.

use super::{BATCH, Bad, Batch, Indices, wide};
use crate::pool::{chunks, parallel};
use crate::strided::{for_runs, uniform};
use pyrite_core::{Arr, Kind, Result};
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
