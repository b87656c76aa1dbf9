//! The order of dimensions in memory: what `torch.preserve_format` means for every layout.

use crate::tensor::{MemoryFormat, Tensor};
use pyrite_core::layout::{Strides, channels_last_strides, contiguous_strides};
use pyrite_core::{Layout, Result, bail};
use smallvec::SmallVec;

/// The strides of a new tensor that looks like `l`: the same where `l` has no gaps, else those of a tensor
/// without gaps whose dimensions follow each other in the same order.
pub fn like_strides(l: &Layout) -> Strides {
    if l.is_contiguous() {
        return contiguous_strides(l.shape());
    }
    if l.is_dense() && l.strides().iter().all(|s| *s >= 0) {
        return Strides::from_slice(l.strides());
    }
    // Dimensions from the innermost out. Sorted by insertion: an expanded dimension (stride 0) has no place
    // of its own and stays between its neighbours, which a comparison sort could not express.
    let (shape, strides, n) = (l.shape(), l.strides(), l.ndim());
    let mut order: SmallVec<[usize; 8]> = (0..n).rev().collect();
    for i in 1..n {
        let mut at = i;
        for j in (0..i).rev() {
            let (a, b) = (order[j], order[at]);
            let (sa, sb) = (strides[a].unsigned_abs(), strides[b].unsigned_abs());
            if sa == 0 || sb == 0 {
                continue;
            }
            if sa > sb || sa == sb && shape[a] > shape[b] {
                order.swap(j, at);
                at = j;
            } else if sa < sb {
                break;
            }
        }
    }
    let mut out: Strides = SmallVec::from_elem(1, n);
    let mut step = 1isize;
    for d in order {
        out[d] = step;
        step = step.wrapping_mul(shape[d].max(1) as isize);
    }
    out
}

/// A layout without gaps in the order of `t`'s dimensions.
pub fn like_layout(t: &Tensor) -> Layout {
    Layout::new(t.shape(), like_strides(t.layout()), 0)
}

/// The strides of `shape` in a format; `Preserve` needs a tensor to look at and is an error here.
pub fn format_strides(op: &str, shape: &[usize], f: MemoryFormat) -> Result<Strides> {
    Ok(match (f, shape.len()) {
        (MemoryFormat::Contiguous, _) => contiguous_strides(shape),
        (MemoryFormat::ChannelsLast, 4) | (MemoryFormat::ChannelsLast3d, 5) => channels_last_strides(shape),
        (MemoryFormat::ChannelsLast, n) => {
            bail!(Runtime, "{op}: required rank 4 tensor to use channels_last format, got rank {n}")
        }
        (MemoryFormat::ChannelsLast3d, n) => {
            bail!(Runtime, "{op}: required rank 5 tensor to use channels_last_3d format, got rank {n}")
        }
        (MemoryFormat::Preserve, _) => bail!(Runtime, "{op}: unsupported memory format Preserve"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(shape: &[usize], strides: &[isize]) -> Vec<isize> {
        like_strides(&Layout::new(shape, strides, 0)).to_vec()
    }

    #[test]
    fn order_is_kept_and_gaps_close() {
        assert_eq!(like(&[2, 3], &[3, 1]), [3, 1]);
        assert_eq!(like(&[2, 3], &[1, 2]), [1, 2]);
        assert_eq!(like(&[4, 2, 2], &[1, 12, 8]), [1, 8, 4]);
        assert_eq!(like(&[3, 4], &[1, 0]), [4, 1]);
        assert_eq!(like(&[2, 3], &[-3, -1]), [3, 1]);
    }
}
