//! `view(dtype)`: the same bytes read as elements of another dtype.

use super::view::with_layout;
use crate::tensor::Tensor;
use pyrite_core::layout::{Dims, Strides};
use pyrite_core::{DType, Layout, Result, bail, ensure};

/// The bytes as `dtype`; where its size differs, the last dimension shrinks or grows. No gradient flows.
pub fn view_dtype(t: &Tensor, dtype: DType) -> Result<Tensor> {
    ensure!(
        !t.is_lazy(),
        Runtime,
        "view(dtype): the tensor is a conjugate or negative view; call resolve_conj() or resolve_neg() first"
    );
    let (from, to) = (t.dtype().size(), dtype.size());
    let l = t.layout();
    if from == to {
        return Ok(retyped(t, l.clone(), dtype));
    }
    let what = format!("self.view {} as {} (different element sizes)", t.dtype().name(), dtype.name());
    let Some((last, _)) = l.shape().split_last() else { bail!(Runtime, "self.dim() cannot be 0 to {what}") };
    ensure!(
        l.strides().last() == Some(&1) || *last <= 1,
        Runtime,
        "self.stride(-1) must be 1 to {what}, but got {:?}",
        l.strides().last()
    );
    let n = l.ndim() - 1;
    let (mut shape, mut strides) = (Dims::from_slice(l.shape()), Strides::from_slice(l.strides()));
    let offset;
    if from > to {
        let k = from / to;
        let Some(size) = last.checked_mul(k) else {
            bail!(Runtime, "view: the result of {what} is too large")
        };
        shape[n] = size;
        strides.iter_mut().for_each(|s| *s *= k as isize);
        offset = l.offset() * k;
    } else {
        let k = to / from;
        ensure!(
            last.is_multiple_of(k),
            Runtime,
            "self.size(-1) must be divisible by {k} to {what}, but got {last}"
        );
        ensure!(
            l.offset().is_multiple_of(k),
            Runtime,
            "self.storage_offset() must be divisible by {k} to {what}, but got {}",
            l.offset()
        );
        for (d, s) in strides[..n].iter_mut().enumerate() {
            ensure!(
                *s % k as isize == 0,
                Runtime,
                "self.stride({d}) must be divisible by {k} to {what}, but got {s}"
            );
            *s /= k as isize;
        }
        shape[n] = last / k;
        offset = l.offset() / k;
    }
    strides[n] = 1;
    Ok(retyped(t, Layout::new(shape, strides, offset), dtype))
}

fn retyped(t: &Tensor, layout: Layout, dtype: DType) -> Tensor {
    Tensor::from_parts(with_layout(t, layout.clone()).storage().clone(), layout, dtype)
}
