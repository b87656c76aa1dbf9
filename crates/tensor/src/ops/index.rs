//! Indexing: gather and scatter by index tensors, Python indexing, masks.

use crate::tensor::Tensor;
use pyrite_core::Result;
use pyrite_core::backend::{Index, Scatter};

/// The gradient of picking values at `idx` along `d`: the picked places get `g`, the others 0.
pub fn value_selecting_backward(
    g: &Tensor,
    d: usize,
    idx: &Tensor,
    shape: &[usize],
    keepdim: bool,
) -> Result<Tensor> {
    if shape.is_empty() {
        return Ok(g.clone());
    }
    let (g, idx) = if keepdim {
        (g.clone(), idx.clone())
    } else {
        (super::unsqueeze(g, d as i64)?, super::unsqueeze(idx, d as i64)?)
    };
    let z = Tensor::zeros(shape, g.dtype(), g.device())?;
    if g.numel() > 0 {
        z.backend()?.index(Index::Scatter {
            dst: z.arr(),
            src: g.arr(),
            idx: idx.arr(),
            dim: d,
            how: Scatter::Set,
        })?;
    }
    Ok(z)
}
