//! Python's `x[...]` and `x[...] = v`: integers, slices, None, Ellipsis, masks and index tensors in
//! any mixture. Views are made first; what is left is advanced indexing.

use super::{Operand, index};
use crate::tensor::Tensor;
use pyrite_core::{DType, Result, Scalar, bail, ensure};
use smallvec::SmallVec;

/// One entry of an index.
#[derive(Clone)]
pub enum Idx {
    Int(i64),
    Slice { start: Option<i64>, stop: Option<i64>, step: Option<i64> },
    None,
    Ellipsis,
    Bool(bool),
    Tensor(Tensor),
}

/// A view of `t` and the tensor indices still to apply to it, one slot per dimension.
struct Split {
    view: Tensor,
    indices: Vec<Option<Tensor>>,
}

/// A truth value as an index: everything, or nothing, along a new dimension of size 1.
fn truth(b: bool) -> Result<Tensor> {
    if b { Tensor::from_slice(&[0i64], &[1]) } else { Tensor::from_slice::<i64>(&[], &[0]) }
}

fn split(t: &Tensor, idx: &[Idx]) -> Result<Split> {
    let consumed: usize = idx
        .iter()
        .map(|i| match i {
            Idx::Int(_) | Idx::Slice { .. } => 1,
            Idx::Tensor(m) if matches!(m.dtype(), DType::Bool | DType::U8) => m.ndim(),
            Idx::Tensor(_) => 1,
            _ => 0,
        })
        .sum();
    ensure!(
        consumed <= t.ndim(),
        Index,
        "too many indices for tensor of dimension {} (got {consumed})",
        t.ndim()
    );
    ensure!(
        idx.iter().filter(|i| matches!(i, Idx::Ellipsis)).count() <= 1,
        Index,
        "an index can only have a single ellipsis ('...')"
    );
    let mut view = t.clone();
    let mut indices: Vec<Option<Tensor>> = Vec::new();
    let mut d = 0i64;
    for i in idx {
        match i {
            Idx::Int(n) => {
                let size = view.shape()[d as usize];
                ensure!(
                    *n >= -(size as i64) && *n < size as i64,
                    Index,
                    "index {n} is out of bounds for dimension {} with size {size}",
                    indices.len()
                );
                view = super::select(&view, d, *n)?;
            }
            Idx::Slice { start, stop, step } => {
                let whole = start.is_none() && stop.is_none() && step.is_none();
                if !whole {
                    view = super::slice(&view, d, *start, *stop, step.unwrap_or(1))?;
                }
                indices.push(None);
                d += 1;
            }
            Idx::None => {
                view = super::unsqueeze(&view, d)?;
                indices.push(None);
                d += 1;
            }
            Idx::Ellipsis => {
                for _ in 0..t.ndim() - consumed {
                    indices.push(None);
                    d += 1;
                }
            }
            Idx::Bool(b) => {
                view = super::unsqueeze(&view, d)?;
                indices.push(Some(truth(*b)?));
                d += 1;
            }
            Idx::Tensor(m) if m.ndim() == 0 && matches!(m.dtype(), DType::Bool | DType::U8) => {
                view = super::unsqueeze(&view, d)?;
                indices.push(Some(truth(!m.item()?.is_zero())?));
                d += 1;
            }
            Idx::Tensor(m)
                if m.ndim() == 0
                    && m.dtype().is_int()
                    && !idx.iter().any(|o| matches!(o, Idx::Tensor(x) if x.ndim() > 0)) =>
            {
                view = super::select(&view, d, m.item()?.i64())?;
            }
            Idx::Tensor(m) => {
                ensure!(
                    m.dtype().is_int() || m.dtype().is_bool(),
                    Index,
                    "tensors used as indices must be long, int, byte or bool tensors, got {}",
                    m.dtype().name()
                );
                let n = if matches!(m.dtype(), DType::Bool | DType::U8) { m.ndim() } else { 1 };
                indices.push(Some(m.clone()));
                d += n as i64;
            }
        }
    }
    if indices.iter().all(Option::is_none) {
        indices.clear();
    }
    Ok(Split { view, indices })
}

/// `t[idx]`.
pub fn get(t: &Tensor, idx: &[Idx]) -> Result<Tensor> {
    // `x[i]`, the commonest of all.
    if let [Idx::Int(n)] = idx {
        ensure!(
            t.ndim() > 0,
            Index,
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python to convert a 0-dim tensor to a number"
        );
        let size = t.shape()[0];
        ensure!(
            *n >= -(size as i64) && *n < size as i64,
            Index,
            "index {n} is out of bounds for dimension 0 with size {size}"
        );
        return super::select(t, 0, *n);
    }
    let s = split(t, idx)?;
    if s.view.is_lazy() && !s.indices.is_empty() {
        return index::index(&super::lazy::resolve(&s.view)?, &s.indices);
    }
    if s.indices.is_empty() {
        return Ok(if s.view.same(t) { super::view::alias_view(t) } else { s.view });
    }
    index::index(&s.view, &s.indices)
}

/// `t[idx] = value`.
pub fn set(t: &Tensor, idx: &[Idx], value: Operand) -> Result<()> {
    if t.ndim() == 0
        && let [Idx::Int(_)] = idx
    {
        bail!(
            Index,
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python to convert a 0-dim tensor to a number"
        );
    }
    let s = split(t, idx)?;
    if t.is_lazy() && !s.indices.is_empty() {
        let plain = super::lazy::resolve(t)?;
        set(&plain, idx, value)?;
        return super::copy_(t, &plain);
    }
    let v = match value {
        Operand::Number(n) => {
            ensure!(
                t.dtype().is_complex() || !matches!(n, Scalar::Complex(..)),
                Runtime,
                "value cannot be converted to type {} without overflow",
                t.dtype().name()
            );
            if s.indices.is_empty() {
                return super::fill_(&s.view, n);
            }
            Tensor::full(&[], n, t.dtype(), t.device())?
        }
        Operand::Tensor(v) => super::lazy::resolve(v)?,
    };
    // Leading dimensions of size 1 of the value do not matter, as in NumPy.
    let mut lead = 0;
    while lead < v.ndim() && v.shape()[lead] == 1 {
        lead += 1;
    }
    if s.indices.is_empty() {
        let extra = v.ndim().saturating_sub(s.view.ndim()).min(lead);
        let v = if extra > 0 { super::reshape_to(&v, &v.shape()[extra..])? } else { v };
        return super::copy_(&s.view, &v);
    }
    ensure!(
        v.dtype() == t.dtype() || v.numel() == 1,
        Runtime,
        "Index put requires the source and destination dtypes match, got {} for the destination and {} for the source.",
        t.dtype().name(),
        v.dtype().name()
    );
    let v = super::to(&v, t.dtype(), t.device(), false, crate::MemoryFormat::Preserve)?;
    // A mask over everything with one number is a masked fill.
    if let ([Some(m)], Operand::Number(n)) = (&s.indices[..], value)
        && m.dtype().is_bool()
        && m.shape() == s.view.shape()
        && m.device() == t.device()
    {
        let row = pyrite_core::rows::table::id::MASKED_FILL_SCALAR.row();
        return super::elementwise::run_inplace(row, &[(&s.view).into(), m.into()], &[n]);
    }
    let mut v = v;
    while v.ndim() > 0 && v.shape()[0] == 1 {
        v = super::select(&v, 0, 0)?;
    }
    let idx: SmallVec<[Option<Tensor>; 6]> = s.indices.into_iter().collect();
    index::index_put_(&s.view, &idx, &v, false)
}
