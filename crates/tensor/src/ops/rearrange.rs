//! Copies with elements in other places: quarter turns and narrow copies.

use crate::op;
use crate::registry::Op;
use crate::tensor::MemoryFormat;
use crate::tensor::Tensor;
use pyrite_core::layout::wrap_dim;
use pyrite_core::{Result, ensure};

/// `k` quarter turns in the plane of two dimensions, from the first towards the second.
pub fn rot90(t: &Tensor, k: i64, dims: &[i64]) -> Result<Tensor> {
    let n = t.ndim() as i64;
    ensure!(dims.len() == 2, Runtime, "expected total rotation dims == 2, but got dims = {}", dims.len());
    ensure!(n >= 2, Runtime, "expected total dims >= 2, but got total dims = {n}");
    let (a, b) = (wrap_dim("rot90", dims[0], t.ndim())? as i64, wrap_dim("rot90", dims[1], t.ndim())? as i64);
    ensure!(
        a != b,
        Runtime,
        "expected rotation dims to be different, but got dim0 = {} and dim1 = {}",
        dims[0],
        dims[1]
    );
    let flip = super::shape::flip;
    match k.rem_euclid(4) {
        1 => super::transpose(&flip(t, &[b])?, a, b),
        2 => flip(t, &[a, b]),
        3 => super::transpose(&flip(t, &[a])?, a, b),
        _ => super::clone_format(t, MemoryFormat::Contiguous),
    }
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "rot90",
        FUNCTION | METHOD,
        "A copy turned by `k` times 90 degrees in the plane of two dimensions.",
        "input: Tensor, k: int = 1, dims: ints = (0, 1)",
        |a| Ok(rot90(a.tensor(0)?, a.int(1)?, a.ints(2)?)?.into())
    );
    op!(
        list,
        "narrow_copy",
        FUNCTION | METHOD | OUT,
        "A copy of the slice `start:start+length` along `dim`.",
        "input: Tensor, dim: int, start: int, length: int",
        |a| {
            let v = super::narrow(a.tensor(0)?, a.int(1)?, a.int(2)?, a.int(3)?)?;
            Ok(super::clone_format(&v, MemoryFormat::Contiguous)?.into())
        }
    );
}
