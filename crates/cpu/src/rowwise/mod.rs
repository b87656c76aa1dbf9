//! Fused kernels over rows: the softmax family, cross-entropy, layer, RMS and batch norm.
//!
//! Rows that lie dense in the compute type are worked on in place; all others (strides, f16, bf16)
//! go through dense scratch, row by row. Chunks are made by size, never by thread count.

mod batch;
mod columns;
mod entropy;
mod norm;
mod softmax;
#[cfg(test)]
mod tests;
mod vector;

use crate::pool::{chunks, parallel, with_scratch};
use crate::strided::{Compute, Rows};
use pyrite_core::backend::Rowwise;
use pyrite_core::{Arr, Error, Result, bail};
use std::sync::Mutex;

pub fn run(r: Rowwise) -> Result<()> {
    match r {
        Rowwise::Softmax { .. } | Rowwise::SoftmaxBackward { .. } | Rowwise::LogSumExp { .. } => {
            softmax::run(r)
        }
        Rowwise::CrossEntropy { .. } | Rowwise::CrossEntropyBackward { .. } => entropy::run(r),
        Rowwise::LayerNorm { .. } | Rowwise::LayerNormBackward { .. } => norm::run(r),
        Rowwise::BatchStats { .. } | Rowwise::BatchNorm { .. } | Rowwise::BatchNormBackward { .. } => {
            batch::run(r)
        }
    }
}

/// Arrays of one shape, or an error.
fn same_shape(op: &str, a: &Arr, others: &[&Arr]) -> Result<()> {
    for o in others {
        if o.shape != a.shape {
            bail!(Shape, "{op}: shapes {:?} and {:?} differ", a.shape, o.shape);
        }
    }
    Ok(())
}

/// A per-row array holds one number for each row.
fn per_row(op: &str, rows: usize, others: &[&Arr]) -> Result<()> {
    for o in others {
        if o.numel() != rows {
            bail!(Shape, "{op}: expected one number for each of {rows} rows but got shape {:?}", o.shape);
        }
    }
    Ok(())
}

/// The first error met by any chunk.
#[derive(Default)]
struct Failed(Mutex<Option<Error>>);

impl Failed {
    #[cold]
    fn set(&self, e: Error) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(e);
    }
    fn result(self) -> Result<()> {
        match self.0.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }
}

/// Runs `f(chunk, first row, end row, scratch)` over all rows, with `bufs` dense rows of scratch
/// (row `k` starts at `k * pad(n)` elements).
fn over_rows<T: Compute>(
    rows: usize,
    n: usize,
    bufs: usize,
    ns_per_element: f64,
    f: &(dyn Fn(usize, usize, *mut T) + Sync),
) -> Result<()> {
    let (k, each) = chunks(rows, (16384 / n.max(1)).max(1));
    let failed = Failed::default();
    parallel(k, ((rows * n) as f64 * ns_per_element) as u64, &|c| {
        let (a, b) = (c * each, rows.min((c + 1) * each));
        if bufs == 0 {
            return f(a, b, std::ptr::null_mut());
        }
        if let Err(e) = with_scratch(bufs * pad(n) * size_of::<T>(), |s| f(a, b, s.cast())) {
            failed.set(crate::oom(e));
        }
    });
    failed.result()
}

/// Row length in scratch: whole cache lines.
fn pad(n: usize) -> usize {
    n.next_multiple_of(16)
}

/// How many scratch rows the given arrays need (one each unless they can be used directly).
fn staged<T: Compute>(list: &[&Rows]) -> usize {
    if list.iter().all(|r| r.direct::<T>()) { 0 } else { list.len() }
}
