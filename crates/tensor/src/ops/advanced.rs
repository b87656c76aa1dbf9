//! Advanced indexing: several index tensors or masks at once (`index`, `index_put`), positions of
//! non-zero elements, and selection by masks.

use super::Operand;
use super::index::{check_index_dtype, on_copy, pad_to, same_dtype};
use crate::autograd::node::closure;
use crate::autograd::{self, Ctx, Grads, Save, inplace, needs_grad};
use crate::tensor::Tensor;
use pyrite_core::backend::{Index, Scatter};
use pyrite_core::layout::broadcast;
use pyrite_core::{Arr, DType, Dims, Layout, Result, Scalar, bail, ensure};
use smallvec::{SmallVec, smallvec};

/// Negative indices counted from the end, for kernels that do not know them.
pub fn wrap_negative(idx: &Tensor, n: usize) -> Result<Tensor> {
    if idx.numel() == 0 || super::reduce::amin(&idx.detach(), None, false)?.item()?.i64() >= 0 {
        return Ok(idx.clone());
    }
    let _off = autograd::GradMode::new(false);
    super::where_(
        &super::lt(idx, Operand::Number(Scalar::Int(0)))?,
        &super::add(idx, Operand::Number(Scalar::Int(n as i64)))?,
        idx,
    )
}

/// The positions of non-zero elements, one row each.
pub fn nonzero(t: &Tensor) -> Result<Tensor> {
    let t = if t.dtype().is_bool() {
        t.detach()
    } else {
        super::ne(&t.detach(), Operand::Number(Scalar::Int(0)))?
    };
    let n = if t.numel() == 0 {
        0
    } else {
        super::sum(&t, None, false, Some(DType::I64))?.item()?.i64() as usize
    };
    let y = Tensor::empty(&[n, t.ndim()], DType::I64, t.device())?;
    if y.numel() > 0 {
        t.backend()?.index(Index::Nonzero { dst: y.arr(), src: t.arr() })?;
    }
    Ok(y)
}

/// Index tensors per dimension made ready: masks become positions, all broadcast to one shape (the
/// kernel knows negative ones). Gives the indexed dimensions and the index tensors.
struct Prepared {
    dims: SmallVec<[usize; 6]>,
    idx: Vec<Tensor>,
    shape: Dims,
}

fn prepare(t: &Tensor, indices: &[Option<Tensor>]) -> Result<Prepared> {
    let mut list: Vec<(usize, Tensor)> = Vec::new();
    let mut d = 0usize;
    for i in indices {
        let Some(i) = i else {
            d += 1;
            continue;
        };
        if matches!(i.dtype(), DType::Bool | DType::U8) {
            for k in 0..i.ndim() {
                ensure!(
                    d + k < t.ndim()
                        && (i.shape()[k] == t.shape()[d + k]
                            || i.shape()[k] == 0 && pyrite_core::dtype::standard()),
                    Index,
                    "The shape of the mask {:?} at index {k} does not match the shape of the indexed tensor {:?} at index {}",
                    i.shape(),
                    t.shape(),
                    d + k
                );
            }
            let nz = nonzero(i)?;
            for k in 0..i.ndim() {
                list.push((d + k, super::select(&nz, 1, k as i64)?));
            }
            d += i.ndim();
        } else {
            ensure!(
                matches!(i.dtype(), DType::I64 | DType::I32 | DType::I16 | DType::I8),
                Index,
                "tensors used as indices must be long, int, byte or bool tensors, got {}",
                i.dtype().name()
            );
            ensure!(d < t.ndim(), Index, "too many indices for tensor of dimension {}", t.ndim());
            list.push((d, super::to_dtype(i, DType::I64)?));
            d += 1;
        }
    }
    ensure!(d <= t.ndim(), Index, "too many indices for tensor of dimension {} (got {d})", t.ndim());
    let mut shape = Dims::new();
    for (k, (_, i)) in list.iter().enumerate() {
        shape = match (k, broadcast("index", &shape, i.shape())) {
            (0, _) => i.shape().into(),
            (_, Ok(s)) => s,
            _ => bail!(
                Index,
                "shape mismatch: indexing tensors could not be broadcast together with shapes {:?}",
                list.iter().map(|x| x.1.shape()).collect::<Vec<_>>()
            ),
        };
    }
    let mut p = Prepared { dims: SmallVec::new(), idx: Vec::new(), shape };
    for (d, i) in list {
        let i = super::to_device(&i, t.device())?;
        p.idx.push(super::expand_to(&i, &p.shape)?.detach());
        p.dims.push(d);
    }
    Ok(p)
}

impl Prepared {
    /// `t`'s layout with the indexed dimensions first.
    fn front(&self, t: &Tensor) -> Result<Layout> {
        let order: SmallVec<[i64; 6]> = self
            .dims
            .iter()
            .copied()
            .chain((0..t.ndim()).filter(|d| !self.dims.contains(d)))
            .map(|d| d as i64)
            .collect();
        t.layout().permute(&order)
    }
    /// Where the index dimensions stand in the result: at the first indexed one if they are neighbours.
    fn place(&self) -> usize {
        if self.dims.windows(2).all(|w| w[1] == w[0] + 1) {
            self.dims.first().copied().unwrap_or(0)
        } else {
            0
        }
    }
    /// From (index dims, rest) to the result's order.
    fn order(&self, ndim: usize) -> SmallVec<[i64; 6]> {
        let (k, at) = (self.shape.len(), self.place());
        let rest = ndim - self.dims.len();
        (0..at)
            .map(|i| (k + i) as i64)
            .chain((0..k).map(|i| i as i64))
            .chain((at..rest).map(|i| (k + i) as i64))
            .collect()
    }
    fn arrs(&self) -> Vec<Arr<'_>> {
        self.idx.iter().map(Tensor::arr).collect()
    }
    fn check_not_empty(&self, t: &Tensor) -> Result<()> {
        for (d, i) in self.dims.iter().zip(&self.idx) {
            ensure!(
                t.shape()[*d] > 0 || i.numel() == 0,
                Index,
                "index is out of bounds for dimension {d} with size 0"
            );
        }
        Ok(())
    }
}

/// `t[indices]` where `None` stands for a whole dimension.
pub fn index(t: &Tensor, indices: &[Option<Tensor>]) -> Result<Tensor> {
    // One mask over everything needs no positions.
    if let [Some(m)] = indices
        && m.dtype().is_bool()
        && m.ndim() > 0
        && m.shape() == t.shape()
        && m.device() == t.device()
    {
        return masked_select(t, m);
    }
    let p = prepare(t, indices)?;
    index_prepared(t, p)
}

fn index_prepared(t: &Tensor, p: Prepared) -> Result<Tensor> {
    p.check_not_empty(t)?;
    let front = p.front(t)?;
    let mut shape: Dims = p.shape.clone();
    shape.extend(front.shape()[p.dims.len()..].iter().copied());
    let y = Tensor::empty(&shape, t.dtype(), t.device())?;
    if y.numel() > 0 {
        let src = super::with_layout(t, front);
        t.backend()?.index(Index::Take { dst: y.arr(), src: src.arr(), idx: &p.arrs(), dims: &p.dims })?;
    }
    let y = super::with_layout(&y, y.layout().permute(&p.order(t.ndim()))?);
    if needs_grad(&[t]) {
        let from: Dims = t.shape().into();
        autograd::attach("IndexBackward0", &[t], &[&y], &[], move |cx| {
            let g = cx.grad(0)?;
            let z = Tensor::zeros(&from, g.dtype(), g.device())?;
            Ok(smallvec![Some(put_recorded(&z, &p, &g, true)?)])
        });
    }
    Ok(y)
}

impl Clone for Prepared {
    fn clone(&self) -> Prepared {
        Prepared { dims: self.dims.clone(), idx: self.idx.clone(), shape: self.shape.clone() }
    }
}

/// Writes `values` (broadcast to the indexed shape) into `t`, no history.
fn put_raw(t: &Tensor, p: &Prepared, values: &Tensor, accumulate: bool) -> Result<()> {
    p.check_not_empty(t)?;
    let front = p.front(t)?;
    let mut shape: Dims = p.shape.clone();
    shape.extend(front.shape()[p.dims.len()..].iter().copied());
    if shape.contains(&0) {
        return Ok(());
    }
    // Values come in the result's order; the kernel wants the index dimensions first.
    let order = p.order(t.ndim());
    let result: Dims = order.iter().map(|d| shape[*d as usize]).collect();
    let fits = broadcast("index_put_", values.shape(), &result).is_ok_and(|s| s == result);
    ensure!(
        fits,
        Shape,
        "shape mismatch: value tensor of shape {:?} cannot be broadcast to indexing result of shape {:?}",
        values.shape(),
        &result[..]
    );
    let sizes: SmallVec<[i64; 6]> = result.iter().map(|s| *s as i64).collect();
    let wide = values.layout().expand(&sizes)?;
    let mut back: SmallVec<[i64; 6]> = smallvec![0; order.len()];
    for (i, d) in order.iter().enumerate() {
        back[*d as usize] = i as i64;
    }
    let src = super::with_layout(values, wide.permute(&back)?);
    let dst = super::with_layout(t, front);
    let how = if accumulate { Scatter::Add } else { Scatter::Set };
    t.backend()?.index(Index::Put { dst: dst.arr(), src: src.arr(), idx: &p.arrs(), dims: &p.dims, how })
}

/// The backward of `index_put`: gradients of the old values and of the new ones.
fn put_backward(cx: &mut Ctx, p: &Prepared, accumulate: bool) -> Result<Grads> {
    let g = cx.grad(0)?;
    let dt = match (cx.needs(0), accumulate) {
        (false, _) => None,
        (true, true) => Some(g.clone()),
        (true, false) => {
            let zero = Tensor::full(&[], Scalar::Int(0), g.dtype(), g.device())?;
            Some(put_recorded(&g, p, &zero, false)?)
        }
    };
    // The engine sums down to the values' shape.
    let dv = if cx.needs(1) { Some(index_prepared(&g, p.clone())?) } else { None };
    Ok(smallvec![dt, dv])
}

/// Out-of-place `index_put`.
fn put_recorded(t: &Tensor, p: &Prepared, values: &Tensor, accumulate: bool) -> Result<Tensor> {
    let y = on_copy(t, |y| put_raw(y, p, &values.detach(), accumulate))?;
    if needs_grad(&[t, values]) {
        let p = p.clone();
        autograd::attach("IndexPutBackward0", &[t, values], &[&y], &[], move |cx| {
            put_backward(cx, &p, accumulate)
        });
    }
    Ok(y)
}

fn put_values(op: &str, t: &Tensor, values: &Tensor) -> Result<Tensor> {
    ensure!(
        values.dtype() == t.dtype(),
        Runtime,
        "{op}: Index put requires the source and destination dtypes match, got {} for the destination and {} for the source.",
        t.dtype().name(),
        values.dtype().name()
    );
    super::to_device(values, t.device())
}

pub fn index_put(
    t: &Tensor,
    indices: &[Option<Tensor>],
    values: &Tensor,
    accumulate: bool,
) -> Result<Tensor> {
    put_recorded(t, &prepare(t, indices)?, &put_values("index_put", t, values)?, accumulate)
}

pub fn index_put_(t: &Tensor, indices: &[Option<Tensor>], values: &Tensor, accumulate: bool) -> Result<()> {
    inplace::check("index_put_", t)?;
    let p = prepare(t, indices)?;
    let values = put_values("index_put_", t, values)?;
    let recording = needs_grad(&[t, &values]);
    if recording {
        inplace::check_recorded("index_put_", t)?;
    }
    let source =
        if values.storage().same(t.storage()) { super::clone(&values.detach())? } else { values.detach() };
    put_raw(t, &p, &source, accumulate)?;
    t.storage().bump_version();
    if recording {
        let node = closure("IndexPutBackward0", &[t, &values], &[t], &[], move |cx| {
            put_backward(cx, &p, accumulate)
        });
        inplace::rebase(t, node);
    }
    Ok(())
}

// ---- masks ----------------------------------------------------------------------------------------

fn check_bool(op: &str, m: &Tensor) -> Result<()> {
    ensure!(m.dtype().is_bool(), Runtime, "{op}: expected BoolTensor for mask, got {}", m.dtype().name());
    Ok(())
}

pub fn masked_select(t: &Tensor, mask: &Tensor) -> Result<Tensor> {
    check_bool("masked_select", mask)?;
    let shape = broadcast("masked_select", t.shape(), mask.shape())?;
    let (x, m) = (super::expand_to(t, &shape)?, super::expand_to(mask, &shape)?);
    let n = if m.numel() == 0 {
        0
    } else {
        super::sum(&m, None, false, Some(DType::I64))?.item()?.i64() as usize
    };
    let y = Tensor::empty(&[n], t.dtype(), t.device())?;
    if n > 0 {
        t.backend()?.index(Index::MaskedSelect { dst: y.arr(), src: x.arr(), mask: m.arr() })?;
    }
    if needs_grad(&[&x]) {
        autograd::attach("MaskedSelectBackward0", &[&x], &[&y], &[Save::Input(&m)], move |cx| {
            let (g, m) = (cx.grad(0)?, cx.saved(0)?);
            let z = Tensor::zeros(m.shape(), g.dtype(), g.device())?;
            Ok(smallvec![Some(masked_scatter(&z, m, &g)?)])
        });
    }
    Ok(y)
}

pub fn masked_scatter(t: &Tensor, mask: &Tensor, src: &Tensor) -> Result<Tensor> {
    check_bool("masked_scatter", mask)?;
    same_dtype("masked_scatter", t, src)?;
    let shape = broadcast("masked_scatter", t.shape(), mask.shape())?;
    let (x, m) = (super::expand_to(t, &shape)?, super::expand_to(mask, &shape)?);
    let n = if m.numel() == 0 {
        0
    } else {
        super::sum(&m, None, false, Some(DType::I64))?.item()?.i64() as usize
    };
    ensure!(
        src.numel() >= n,
        Runtime,
        "masked_scatter: expected self and source to have same dtypes and the source to have at least {n} elements, got {}",
        src.numel()
    );
    let y = super::clone_format(&x.detach(), crate::MemoryFormat::Contiguous)?;
    if n > 0 {
        let flat = super::contiguous(&src.detach())?;
        let flat =
            super::with_layout(&flat, Layout::new([n].as_slice(), [1].as_slice(), flat.layout().offset()));
        y.backend()?.index(Index::MaskedScatter { dst: y.arr(), src: flat.arr(), mask: m.arr() })?;
    }
    if needs_grad(&[&x, src]) {
        let from: Dims = src.shape().into();
        autograd::attach("MaskedScatterBackward0", &[&x, src], &[&y], &[Save::Input(&m)], move |cx| {
            let (g, m) = (cx.grad(0)?, cx.saved(0)?);
            let dx = if cx.needs(0) {
                Some(super::masked_fill(&g, m, Operand::Number(Scalar::Int(0)))?)
            } else {
                None
            };
            let ds = if cx.needs(1) {
                let picked = masked_select(&g, m)?;
                Some(super::reshape_to(&pad_to(&picked, &[from.iter().product()])?, &from)?)
            } else {
                None
            };
            Ok(smallvec![dx, ds])
        });
    }
    Ok(y)
}

pub(super) fn take(t: &Tensor, idx: &Tensor) -> Result<Tensor> {
    check_index_dtype("take", idx)?;
    let flat = super::reshape(t, &[-1])?;
    ensure!(t.numel() > 0 || idx.numel() == 0, Index, "take(): tried to take from an empty tensor");
    index(&flat, &[Some(idx.clone())])
}
