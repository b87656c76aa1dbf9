//! Gradients through arbitrary strides, and how a view looks at its base.

use super::view::with_layout;
use crate::autograd::{self, needs_grad};
use crate::tensor::{Lazy, Tensor};
use pyrite_core::{Layout, Result};
use smallvec::{SmallVec, smallvec};

/// A buffer that spans the memory of both layouts, zeroed, and the two layouts relative to it.
fn span(base: &Layout, view: &Layout, like: &Tensor) -> Result<(Tensor, Layout, Layout)> {
    let (blo, bhi) = base.extent().unwrap_or((0, -1));
    let (vlo, vhi) = view.extent().unwrap_or((blo, bhi));
    let (lo, hi) = if bhi < blo { (vlo, vhi) } else { (blo.min(vlo), bhi.max(vhi)) };
    let buf = Tensor::zeros(&[(hi - lo + 1).max(0) as usize], like.dtype(), like.device())?;
    let rel = |l: &Layout| Layout::new(l.shape(), l.strides(), (l.offset() as isize - lo).max(0) as usize);
    Ok((buf, rel(base), rel(view)))
}

/// The gradient of `base.as_strided(view)`: sums where the view shows an element several times.
pub fn as_strided_backward(g: &Tensor, base: &Layout, view: &Layout) -> Result<Tensor> {
    let (buf, b, v) = span(base, view, g)?;
    if v.may_self_overlap() {
        // Positions as data: add every element at its place.
        let at = positions(&v, g)?;
        let flat = super::contiguous(&g.detach())?;
        // (A gradient may be a part of something larger: it begins where it begins.)
        let flat = with_layout(&flat, Layout::of(&[flat.numel()], &[1], flat.layout().offset()));
        let how = pyrite_core::backend::Scatter::Add;
        buf.backend()?.index(pyrite_core::backend::Index::SelectInto {
            dst: buf.arr(),
            src: flat.arr(),
            idx: at.arr(),
            dim: 0,
            how,
        })?;
    } else {
        super::copy_raw(&with_layout(&buf, v), g)?;
    }
    let out = super::clone(&with_layout(&buf, b))?;
    if needs_grad(&[g]) {
        let (base, view) = (base.clone(), view.clone());
        autograd::attach("AsStridedBackwardBackward0", &[g], &[&out], &[], move |cx| {
            Ok(smallvec![Some(as_strided_of(&cx.grad(0)?, &base, &view)?)])
        });
    }
    Ok(out)
}

/// The flat position of every element of a layout, as an i64 tensor.
fn positions(l: &Layout, like: &Tensor) -> Result<Tensor> {
    let n = l.numel();
    let mut at = vec![0i64; n];
    let mut idx: SmallVec<[usize; 6]> = smallvec![0; l.ndim()];
    for p in at.iter_mut() {
        *p = l.offset() as i64 + idx.iter().zip(l.strides()).map(|(i, s)| *i as i64 * *s as i64).sum::<i64>();
        for d in (0..l.ndim()).rev() {
            idx[d] += 1;
            if idx[d] < l.shape()[d] {
                break;
            }
            idx[d] = 0;
        }
    }
    super::to_device(&Tensor::from_slice(&at, &[n])?, like.device())
}

/// What `as_strided(view)` shows of a tensor `g` that lies in memory like `base`.
pub fn as_strided_of(g: &Tensor, base: &Layout, view: &Layout) -> Result<Tensor> {
    let (buf, b, v) = span(base, view, g)?;
    super::copy_raw(&with_layout(&buf, b), g)?;
    let out = super::clone(&with_layout(&buf, v))?;
    if needs_grad(&[g]) {
        let (base, view) = (base.clone(), view.clone());
        autograd::attach("AsStridedBackward0", &[g], &[&out], &[], move |cx| {
            Ok(smallvec![Some(as_strided_backward(&cx.grad(0)?, &base, &view)?)])
        });
    }
    Ok(out)
}

/// `g` with the part that `view` shows replaced by `part` (zeros if `None`).
pub fn replace_slice(g: &Tensor, base: &Layout, view: &Layout, part: Option<&Tensor>) -> Result<Tensor> {
    let (buf, b, v) = span(base, view, g)?;
    super::copy_raw(&with_layout(&buf, b.clone()), g)?;
    let window = with_layout(&buf, v);
    match part {
        Some(p) => super::copy_raw(&window, p)?,
        None => window.backend()?.fill(window.arr(), 0.0.into())?,
    }
    let out = super::clone(&with_layout(&buf, b))?;
    let inputs: SmallVec<[&Tensor; 2]> = std::iter::once(g).chain(part).collect();
    if needs_grad(&inputs) {
        let (base, view) = (base.clone(), view.clone());
        autograd::attach("ReplaceSliceBackward0", &inputs, &[&out], &[], move |cx| {
            let gg = cx.grad(0)?;
            let outside = replace_slice(&gg, &base, &view, None)?;
            Ok(smallvec![Some(outside), Some(as_strided_of(&gg, &base, &view)?)])
        });
    }
    Ok(out)
}

/// How a view looks at its base: the layouts of both, and which of them counts in complex numbers where
/// the other counts in their parts. Gradients go through it in both directions.
#[derive(Clone)]
pub struct Lens {
    base: Layout,
    view: Layout,
    base_parts: bool,
    view_parts: bool,
    base_lazy: Lazy,
    view_lazy: Lazy,
}

impl Lens {
    pub fn new(base: &Tensor, view: &Tensor) -> Lens {
        let differ = base.dtype().is_complex() != view.dtype().is_complex();
        let (base_parts, view_parts) =
            (differ && base.dtype().is_complex(), differ && view.dtype().is_complex());
        let layout = |t: &Tensor, parts: bool| {
            if parts { super::complex::parts_layout(t.layout()) } else { t.layout().clone() }
        };
        Lens {
            base: layout(base, base_parts),
            view: layout(view, view_parts),
            base_parts,
            view_parts,
            base_lazy: base.lazy(),
            view_lazy: view.lazy(),
        }
    }
    /// The base's gradient from the view's.
    pub fn back(&self, g: &Tensor) -> Result<Tensor> {
        let g = into_parts(g, self.view_parts, self.view_lazy)?;
        out_of_parts(as_strided_backward(&g, &self.base, &self.view)?, self.base_parts, self.base_lazy)
    }
    /// The part of the base's gradient that belongs to the view.
    pub fn of(&self, g: &Tensor) -> Result<Tensor> {
        let g = into_parts(g, self.base_parts, self.base_lazy)?;
        out_of_parts(as_strided_of(&g, &self.base, &self.view)?, self.view_parts, self.view_lazy)
    }
    /// The base's gradient `g` with the view's part replaced (by zeros if `None`).
    pub fn replace(&self, g: &Tensor, part: Option<&Tensor>) -> Result<Tensor> {
        let g = into_parts(g, self.base_parts, self.base_lazy)?;
        let part = part.map(|p| into_parts(p, self.view_parts, self.view_lazy)).transpose()?;
        let g = replace_slice(&g, &self.base, &self.view, part.as_ref())?;
        out_of_parts(g, self.base_parts, self.base_lazy)
    }
}

/// From values to what lies in memory; marks are undone by what made them.
fn into_parts(g: &Tensor, parts: bool, lazy: Lazy) -> Result<Tensor> {
    let g = super::lazy::apply(g, lazy)?;
    if parts { super::complex::view_as_real(&g) } else { Ok(g) }
}

fn out_of_parts(g: Tensor, parts: bool, lazy: Lazy) -> Result<Tensor> {
    let g = if parts { super::complex::to_complex(&g)? } else { g };
    super::lazy::apply(&g, lazy)
}
