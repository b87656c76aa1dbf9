//! View operators: a pure layout function forward, the inverse layout function backward.

use crate::autograd::{self, inplace, is_grad_enabled, needs_grad};
use crate::op;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::layout::{numel, wrap_dim};
use pyrite_core::{Dims, Layout, Result, bail, ensure};
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;

pub use super::strided::{Lens, as_strided_backward, as_strided_of, replace_slice};

pub(super) type LayoutFn = Arc<dyn Fn(&Layout) -> Result<Layout> + Send + Sync>;

/// The same elements under another layout, untracked: for use inside ops.
pub fn with_layout(t: &Tensor, layout: Layout) -> Tensor {
    t.with_layout(layout)
}

/// Wraps a view: its place in the graph and its base. `back` is told how many dimensions the gradient has in front of
/// the view's own (that of a batched backward, or none); its result has them too.
fn track(
    name: &'static str,
    t: &Tensor,
    layout: Layout,
    back: impl Fn(&Tensor, usize) -> Result<Tensor> + Send + Sync + 'static,
) -> Tensor {
    track_view(name, t, with_layout(t, layout), back)
}

/// As [`track`] for a view that reads its elements in another way: parts, pairs, conjugates.
pub(super) fn track_view(
    name: &'static str,
    t: &Tensor,
    v: Tensor,
    back: impl Fn(&Tensor, usize) -> Result<Tensor> + Send + Sync + 'static,
) -> Tensor {
    // A view's tangent is the view of the tangent, unless elements share memory (their tangents don't) or are
    // read in another way.
    let by_layout = autograd::forward::active()
        && v.dtype() == t.dtype()
        && v.lazy() == t.lazy()
        && !t.layout().may_self_overlap();
    if is_grad_enabled() && t.requires_grad() || autograd::forward::active() && !by_layout && needs_grad(&[t])
    {
        let _hidden = by_layout.then(|| autograd::forward::Below::new(0));
        autograd::attach_any(name, &[t], &[&v], &[], move |cx| {
            Ok(smallvec![Some(back(&cx.grad(0)?, cx.lead())?)])
        });
    }
    if by_layout {
        autograd::forward::view(t, &v);
    }
    if !t.storage().is_inference() {
        inplace::set_view(&v, t);
    }
    v
}

/// A view that shows some elements once: backward puts the gradient into zeros.
pub(super) fn inject(name: &'static str, t: &Tensor, f: LayoutFn) -> Result<Tensor> {
    let layout = f(t.layout())?;
    let shape: Dims = t.shape().into();
    Ok(track(name, t, layout, move |g, lead| match lead {
        0 => put_into_zeros(g, &shape, &f),
        _ => put_into_zeros(g, &in_front(g, &shape), &in_each_row(&f)),
    }))
}

/// `f` of a gradient; in a batch, of each row.
fn each_row(g: &Tensor, lead: usize, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    if lead == 0 {
        return f(g);
    }
    let rows = (0..g.shape()[0] as i64).map(|i| f(&select(g, 0, i)?)).collect::<Result<Vec<_>>>()?;
    match rows.first() {
        Some(_) => super::shape::stack(&rows, 0),
        None => {
            let one = f(&Tensor::zeros(&g.shape()[1..], g.dtype(), g.device())?)?;
            Tensor::zeros(&in_front(g, one.shape()), g.dtype(), g.device())
        }
    }
}

/// The first size of `g`, then `shape`.
fn in_front(g: &Tensor, shape: &[usize]) -> Dims {
    g.shape().iter().take(1).chain(shape).copied().collect()
}

/// A view of every row of a batch.
fn in_each_row(f: &LayoutFn) -> LayoutFn {
    let f = f.clone();
    Arc::new(move |l: &Layout| {
        let (Some(&n), Some(&step)) = (l.shape().first(), l.strides().first()) else {
            bail!(Runtime, "a batched gradient has no batch dimension");
        };
        let row = f(&Layout::of(&l.shape()[1..], &l.strides()[1..], l.offset()))?;
        let shape: Dims = std::iter::once(n).chain(row.shape().iter().copied()).collect();
        let strides: SmallVec<[isize; 6]> =
            std::iter::once(step).chain(row.strides().iter().copied()).collect();
        Ok(Layout::of(&shape, &strides, row.offset()))
    })
}

/// Zeros of `shape` with `g` written where the view looks; differentiable (the view of it again).
pub(super) fn put_into_zeros(g: &Tensor, shape: &[usize], f: &LayoutFn) -> Result<Tensor> {
    let z = Tensor::zeros(shape, g.dtype(), g.device())?;
    super::copy_raw(&with_layout(&z, f(z.layout())?), g)?;
    if needs_grad(&[g]) {
        let f = f.clone();
        autograd::attach("ViewScatterBackward0", &[g], &[&z], &[], move |cx| {
            let gg = cx.grad(0)?;
            Ok(smallvec![Some(inject("ViewBackward0", &gg, f.clone())?)])
        });
    }
    Ok(z)
}

pub fn alias_view(t: &Tensor) -> Tensor {
    track("AliasBackward0", t, t.layout().clone(), |g, _| Ok(g.clone()))
}

pub fn permute(t: &Tensor, dims: &[i64]) -> Result<Tensor> {
    let layout = t.layout().permute(dims)?;
    let n = t.ndim() as i64;
    let mut inverse: SmallVec<[i64; 6]> = smallvec![0; dims.len()];
    for (i, d) in dims.iter().enumerate() {
        inverse[(if *d < 0 { *d + n } else { *d }) as usize] = i as i64;
    }
    Ok(track("PermuteBackward0", t, layout, move |g, lead| match lead {
        0 => permute(g, &inverse),
        _ => {
            let behind: SmallVec<[i64; 6]> =
                std::iter::once(0).chain(inverse.iter().map(|d| d + 1)).collect();
            permute(g, &behind)
        }
    }))
}

pub fn transpose(t: &Tensor, a: i64, b: i64) -> Result<Tensor> {
    let layout = t.layout().transpose(a, b)?;
    // From the end: that of a batch is in front.
    let n = t.ndim() as i64;
    let (a, b) = (if a < 0 { a } else { a - n }, if b < 0 { b } else { b - n });
    Ok(track(
        "TransposeBackward0",
        t,
        layout,
        move |g, _| if n == 0 { Ok(g.clone()) } else { transpose(g, a, b) },
    ))
}

/// `t.t()`: at most two dimensions.
pub fn t(x: &Tensor) -> Result<Tensor> {
    ensure!(x.ndim() <= 2, Runtime, "t() expects a tensor with <= 2 dimensions, but self is {}D", x.ndim());
    if x.ndim() < 2 {
        return Ok(alias_view(x));
    }
    let layout = x.layout().transpose(0, 1)?;
    Ok(track("TBackward0", x, layout, |g, lead| if lead == 0 { t(g) } else { transpose(g, -2, -1) }))
}

pub fn expand(t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    let layout = t.layout().expand(sizes)?;
    let shape: Dims = t.shape().into();
    Ok(track("ExpandBackward0", t, layout, move |g, lead| match lead {
        0 => super::sum_to_size(g, &shape),
        _ => super::reduce::sum_rows_to_size(g, g.shape()[0], &shape),
    }))
}

pub fn expand_to(t: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let sizes: SmallVec<[i64; 6]> = shape.iter().map(|s| *s as i64).collect();
    expand(t, &sizes)
}

/// Resolves one -1 and checks the number of elements.
pub fn infer_shape(op: &str, sizes: &[i64], n: usize, from: &[usize]) -> Result<Dims> {
    let mut known = 1usize;
    let mut hole = None;
    for (i, &s) in sizes.iter().enumerate() {
        if s == -1 {
            ensure!(hole.is_none(), Runtime, "{op}: only one dimension can be inferred");
            hole = Some(i);
        } else {
            ensure!(s >= 0, Runtime, "{op}: invalid shape dimension {s}");
            known = match known.checked_mul(s as usize) {
                Some(k) => k,
                None => bail!(Runtime, "{op}: shape {sizes:?} is invalid for input of size {n}"),
            };
        }
    }
    let mut shape: Dims = sizes.iter().map(|s| (*s).max(0) as usize).collect();
    if let Some(h) = hole {
        ensure!(
            known != 0,
            Runtime,
            "{op}: cannot reshape tensor of {n} elements into shape {sizes:?} because the unspecified dimension size -1 can be any value and is ambiguous"
        );
        shape[h] = n / known;
    }
    ensure!(
        numel(&shape).is_ok_and(|m| m == n),
        Shape,
        "{op}: shape '{sizes:?}' is invalid for input of size {n} (shape {from:?})"
    );
    Ok(shape)
}

/// `view`: never copies.
pub fn view(t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    let shape = infer_shape("view", sizes, t.numel(), t.shape())?;
    match t.layout().view(&shape) {
        Some(l) => Ok(view_layout(t, l)),
        None => bail!(
            Runtime,
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two contiguous subspaces). Use .reshape(...) instead. (shape {:?}, strides {:?} -> {:?})",
            t.shape(),
            t.strides(),
            &shape[..]
        ),
    }
}

/// The gradient in another shape, that of each row in a batch.
fn reshape_rows(g: &Tensor, lead: usize, shape: &[usize]) -> Result<Tensor> {
    if lead == 0 { reshape_to(g, shape) } else { reshape_to(g, &in_front(g, shape)) }
}

fn view_layout(t: &Tensor, l: Layout) -> Tensor {
    let shape: Dims = t.shape().into();
    track("ViewBackward0", t, l, move |g, lead| reshape_rows(g, lead, &shape))
}

/// `reshape`: a view where possible, else a copy.
pub fn reshape(t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    let shape = infer_shape("reshape", sizes, t.numel(), t.shape())?;
    match t.layout().view(&shape) {
        Some(l) => Ok(view_layout(t, l)),
        None => {
            let c = super::clone_format(t, crate::MemoryFormat::Contiguous)?;
            view(&c, &shape.iter().map(|s| *s as i64).collect::<SmallVec<[i64; 6]>>())
        }
    }
}

pub fn reshape_to(t: &Tensor, shape: &[usize]) -> Result<Tensor> {
    reshape(t, &shape.iter().map(|s| *s as i64).collect::<SmallVec<[i64; 6]>>())
}

pub fn flatten(t: &Tensor, start: i64, end: i64) -> Result<Tensor> {
    if t.ndim() == 0 {
        return reshape(t, &[1]);
    }
    let (s, e) = (wrap_dim("flatten", start, t.ndim())?, wrap_dim("flatten", end, t.ndim())?);
    ensure!(s <= e, Runtime, "flatten() has invalid args: start_dim cannot come after end_dim");
    if s == e {
        return Ok(t.clone());
    }
    let mut shape: SmallVec<[i64; 6]> = t.shape()[..s].iter().map(|x| *x as i64).collect();
    shape.push(t.shape()[s..=e].iter().product::<usize>() as i64);
    shape.extend(t.shape()[e + 1..].iter().map(|x| *x as i64));
    reshape(t, &shape)
}

pub fn unflatten(t: &Tensor, dim: i64, sizes: &[i64]) -> Result<Tensor> {
    let d = wrap_dim("unflatten", dim, t.ndim())?;
    ensure!(t.ndim() > 0 && !sizes.is_empty(), Runtime, "unflatten: sizes must be non-empty");
    let inner = infer_shape("unflatten", sizes, t.shape()[d], t.shape())?;
    let mut shape: SmallVec<[i64; 6]> = t.shape()[..d].iter().map(|x| *x as i64).collect();
    shape.extend(inner.iter().map(|x| *x as i64));
    shape.extend(t.shape()[d + 1..].iter().map(|x| *x as i64));
    view(t, &shape)
}

/// `x[start:end:step]` along a dimension with Python's clamping; `step` may be negative.
pub fn slice(t: &Tensor, dim: i64, start: Option<i64>, end: Option<i64>, step: i64) -> Result<Tensor> {
    ensure!(t.ndim() > 0, Runtime, "slice() cannot be applied to a 0-dim tensor.");
    let d = wrap_dim("slice", dim, t.ndim())?;
    let (first, len) = slice_range(t.shape()[d] as i64, start, end, step)?;
    inject("SliceBackward0", t, Arc::new(move |l: &Layout| l.slice(d, first, len, step as isize)))
}

/// First index and length of a Python slice over `n` elements.
pub fn slice_range(n: i64, start: Option<i64>, end: Option<i64>, step: i64) -> Result<(usize, usize)> {
    ensure!(step != 0, Value, "slice step cannot be zero");
    let clamp = |v: i64, lo: i64, hi: i64| (if v < 0 { v.saturating_add(n) } else { v }).clamp(lo, hi);
    let (first, len) = if step > 0 {
        let s = clamp(start.unwrap_or(0), 0, n);
        let e = clamp(end.unwrap_or(i64::MAX), 0, n);
        (s, if e > s { (e - s - 1) / step + 1 } else { 0 })
    } else {
        let s = clamp(start.unwrap_or(i64::MAX), -1, n - 1);
        let e = end.map_or(-1, |e| clamp(e, -1, n - 1));
        (s, if s > e { (s - e - 1) / step.checked_neg().unwrap_or(i64::MAX) + 1 } else { 0 })
    };
    Ok((first.max(0) as usize, len as usize))
}

pub fn narrow(t: &Tensor, dim: i64, start: i64, length: i64) -> Result<Tensor> {
    ensure!(t.ndim() > 0, Runtime, "narrow() cannot be applied to a 0-dim tensor.");
    let d = wrap_dim("narrow", dim, t.ndim())?;
    let n = t.shape()[d] as i64;
    ensure!(length >= 0, Runtime, "narrow(): length must be non-negative.");
    ensure!(
        start >= -n && start <= n,
        Index,
        "narrow: start out of range (expected to be in range of [{}, {n}], but got {start})",
        -n
    );
    let start = if start < 0 { start + n } else { start };
    ensure!(
        start.checked_add(length).is_some_and(|e| e <= n),
        Runtime,
        "narrow: start ({start}) + length ({length}) exceeds dimension size ({n})."
    );
    slice(t, d as i64, Some(start), Some(start + length), 1)
}

pub fn select(t: &Tensor, dim: i64, index: i64) -> Result<Tensor> {
    ensure!(t.ndim() > 0, Index, "select() cannot be applied to a 0-dim tensor.");
    let d = wrap_dim("select", dim, t.ndim())?;
    inject("SelectBackward0", t, Arc::new(move |l: &Layout| l.select(d, index)))
}

pub fn unsqueeze(t: &Tensor, dim: i64) -> Result<Tensor> {
    let d = wrap_dim("unsqueeze", dim, t.ndim() + 1)?;
    let layout = t.layout().unsqueeze(d)?;
    Ok(track("UnsqueezeBackward0", t, layout, move |g, lead| squeeze(g, Some(&[(d + lead) as i64]))))
}

pub fn squeeze(t: &Tensor, dims: Option<&[i64]>) -> Result<Tensor> {
    let layout = match dims {
        None => t.layout().squeeze(|_| true),
        Some(list) => {
            let list: SmallVec<[usize; 6]> =
                list.iter().map(|d| wrap_dim("squeeze", *d, t.ndim())).collect::<Result<_>>()?;
            for (i, d) in list.iter().enumerate() {
                ensure!(
                    !list[..i].contains(d),
                    Runtime,
                    "squeeze: dim {d} appears multiple times in the list of dims"
                );
            }
            t.layout().squeeze(|d| list.contains(&d))
        }
    };
    let shape: Dims = t.shape().into();
    Ok(track("SqueezeBackward0", t, layout, move |g, lead| reshape_rows(g, lead, &shape)))
}

pub fn diagonal(t: &Tensor, offset: i64, dim1: i64, dim2: i64) -> Result<Tensor> {
    let (a, b) = (wrap_dim("diagonal", dim1, t.ndim())?, wrap_dim("diagonal", dim2, t.ndim())?);
    ensure!(t.ndim() >= 2, Runtime, "diagonal: the tensor needs at least 2 dimensions, got {}", t.ndim());
    inject("DiagonalBackward0", t, Arc::new(move |l: &Layout| l.diagonal(offset, a, b)))
}

pub fn unfold(t: &Tensor, dim: i64, size: i64, step: i64) -> Result<Tensor> {
    let d = wrap_dim("unfold", dim, t.ndim())?;
    ensure!(size >= 0, Runtime, "unfold: size is {size} but must be >= 0");
    ensure!(step > 0, Runtime, "unfold: step is {step} but must be > 0");
    let layout = t.layout().unfold(d, size as usize, step as usize)?;
    let base = Layout::contiguous(t.shape());
    Ok(track("UnfoldBackward0", t, layout, move |g, lead| {
        let view = base.unfold(d, size as usize, step as usize)?;
        each_row(g, lead, |g| as_strided_backward(g, &base, &view))
    }))
}

pub fn as_strided(t: &Tensor, size: &[i64], stride: &[i64], offset: Option<i64>) -> Result<Tensor> {
    let shape = pyrite_core::layout::checked_shape("as_strided", size)?;
    let strides: SmallVec<[isize; 6]> = stride.iter().map(|s| *s as isize).collect();
    ensure!(
        strides.iter().all(|s| *s >= 0),
        Runtime,
        "as_strided: Negative strides are not supported at the moment, got strides: {stride:?}"
    );
    let offset = offset.unwrap_or(t.layout().offset() as i64);
    ensure!(offset >= 0, Runtime, "as_strided: Tensor: invalid storage offset {offset}");
    let view = Layout::as_strided(&shape, &strides, offset as usize, t.storage().bytes() / t.dtype().size())?;
    let base = t.layout().clone();
    let v = view.clone();
    Ok(track("AsStridedBackward0", t, view, move |g, lead| {
        each_row(g, lead, |g| as_strided_backward(g, &base, &v))
    }))
}

/// `movedim` for lists of dimensions.
pub fn movedim(t: &Tensor, from: &[i64], to: &[i64]) -> Result<Tensor> {
    ensure!(
        from.len() == to.len(),
        Runtime,
        "movedim: Invalid source or destination dims: source ({from:?} dims) should contain the same number of dims as destination ({to:?} dims)"
    );
    let n = t.ndim();
    let wrap =
        |l: &[i64]| l.iter().map(|d| wrap_dim("movedim", *d, n)).collect::<Result<SmallVec<[usize; 6]>>>();
    let (from, to) = (wrap(from)?, wrap(to)?);
    let mut order: SmallVec<[i64; 6]> = smallvec![-1; n];
    for (f, t) in from.iter().zip(&to) {
        ensure!(order[*t] == -1, Runtime, "movedim: repeated dim in `destination`");
        order[*t] = *f as i64;
    }
    let mut rest = (0..n).filter(|d| !from.contains(d));
    for slot in order.iter_mut() {
        if *slot == -1 {
            match rest.next() {
                Some(d) => *slot = d as i64,
                None => bail!(Runtime, "movedim: repeated dim in `source`"),
            }
        }
    }
    if n == 0 {
        return Ok(alias_view(t));
    }
    permute(t, &order)
}

pub fn broadcast_to(t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    expand(t, sizes)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "permute",
        FUNCTION | METHOD,
        "A view with the dimensions in another order.",
        "input: Tensor, dims: size",
        |a| Ok(permute(a.tensor(0)?, a.ints(1)?)?.into())
    );
    op!(
        list,
        "transpose",
        FUNCTION | METHOD,
        alias = ["swapaxes", "swapdims"],
        "A view with two dimensions swapped.",
        "input: Tensor, dim0: int, dim1: int",
        |a| Ok(transpose(a.tensor(0)?, a.int(1)?, a.int(2)?)?.into())
    );
    op!(list, "t", FUNCTION | METHOD, "The transposed matrix, as a view.", "input: Tensor", |a| Ok(t(
        a.tensor(0)?
    )?
    .into()));
    op!(list, "T", PROPERTY, "A view with all dimensions reversed.", "input: Tensor", |a| {
        let n = a.tensor(0)?.ndim() as i64;
        Ok(permute(a.tensor(0)?, &(0..n).rev().collect::<SmallVec<[i64; 6]>>())?.into())
    });
    op!(list, "mT", PROPERTY, "A view with the last two dimensions swapped.", "input: Tensor", |a| {
        ensure!(
            a.tensor(0)?.ndim() >= 2,
            Runtime,
            "tensor.mT is only supported on matrices or batches of matrices. Got {}-D tensor.",
            a.tensor(0)?.ndim()
        );
        Ok(transpose(a.tensor(0)?, -2, -1)?.into())
    });
    op!(
        list,
        "expand",
        METHOD,
        "A view with dimensions of size 1 repeated without copying; -1 keeps a size.",
        "input: Tensor, size: size, *, implicit: bool = False",
        |a| Ok(expand(a.tensor(0)?, a.ints(1)?)?.into())
    );
    op!(
        list,
        "expand_as",
        METHOD,
        "A view expanded to the shape of `other`.",
        "input: Tensor, other: Tensor",
        |a| Ok(expand_to(a.tensor(0)?, a.tensor(1)?.shape())?.into())
    );
    op!(
        list,
        "broadcast_to",
        FUNCTION | METHOD,
        "A view broadcast to `size`.",
        "input: Tensor, size: size",
        |a| Ok(broadcast_to(a.tensor(0)?, a.ints(1)?)?.into())
    );
    op!(list, "view", METHOD,
    "A view with another shape over the same elements (one size may be -1), or of the same bytes as another dtype.",
    "input: Tensor, size: size", |a| Ok(view(a.tensor(0)?, a.ints(1)?)?.into());
    "input: Tensor, dtype: dtype", |a| match a.dtype_opt(1)? {
        Some(d) => Ok(super::view_dtype::view_dtype(a.tensor(0)?, d)?.into()),
        None => bail!(Type, "view(): argument 'dtype' must be torch.dtype, not None"),
    });
    op!(list, "view_as", METHOD, "A view with the shape of `other`.", "input: Tensor, other: Tensor", |a| {
        Ok(view(
            a.tensor(0)?,
            &a.tensor(1)?.shape().iter().map(|s| *s as i64).collect::<SmallVec<[i64; 6]>>(),
        )?
        .into())
    });
    op!(
        list,
        "reshape",
        FUNCTION | METHOD,
        "The elements in another shape: a view where possible, else a copy.",
        "input: Tensor, shape: size",
        |a| Ok(reshape(a.tensor(0)?, a.ints(1)?)?.into())
    );
    op!(
        list,
        "reshape_as",
        METHOD,
        "`reshape` to the shape of `other`.",
        "input: Tensor, other: Tensor",
        |a| Ok(reshape_to(a.tensor(0)?, a.tensor(1)?.shape())?.into())
    );
    op!(
        list,
        "flatten",
        FUNCTION | METHOD,
        "Merges the dimensions from `start_dim` to `end_dim`.",
        "input: Tensor, start_dim: int = 0, end_dim: int = -1",
        |a| Ok(flatten(a.tensor(0)?, a.int(1)?, a.int(2)?)?.into())
    );
    op!(
        list,
        "unflatten",
        FUNCTION | METHOD,
        "Splits one dimension into several.",
        "input: Tensor, dim: int, sizes: ints",
        |a| Ok(unflatten(a.tensor(0)?, a.int(1)?, a.ints(2)?)?.into())
    );
    op!(list, "ravel", FUNCTION | METHOD, "The elements as one dimension.", "input: Tensor", |a| Ok(
        reshape(&super::contiguous(a.tensor(0)?)?, &[-1])?.into()
    ));
    op!(
        list,
        "narrow",
        FUNCTION | METHOD,
        "The slice `start:start+length` along `dim`, as a view.",
        "input: Tensor, dim: int, start: int, length: int",
        |a| Ok(narrow(a.tensor(0)?, a.int(1)?, a.int(2)?, a.int(3)?)?.into());
        "input: Tensor, dim: int, start: Tensor, length: int",
        |a| {
            let start = a.tensor(2)?;
            ensure!(
                start.ndim() == 0 && start.dtype().is_int(),
                Runtime,
                "start must be an 0-dim integral Tensor. (narrow: it is of shape {:?} and dtype {})",
                start.shape(),
                start.dtype().name()
            );
            Ok(narrow(a.tensor(0)?, a.int(1)?, start.item()?.i64(), a.int(3)?)?.into())
        }
    );
    op!(
        list,
        "select",
        FUNCTION | METHOD,
        "The slice at one index along `dim`, as a view without that dimension.",
        "input: Tensor, dim: int, index: int",
        |a| Ok(select(a.tensor(0)?, a.int(1)?, a.int(2)?)?.into())
    );
    op!(
        list,
        "unsqueeze",
        FUNCTION | METHOD,
        "A view with a dimension of size 1 inserted at `dim`.",
        "input: Tensor, dim: int",
        |a| Ok(unsqueeze(a.tensor(0)?, a.int(1)?)?.into())
    );
    op!(
        list,
        "squeeze",
        FUNCTION | METHOD,
        "A view without (the given) dimensions of size 1.",
        "input: Tensor, dim: ints? = None",
        |a| Ok(squeeze(a.tensor(0)?, a.ints_opt(1)?)?.into())
    );
    op!(
        list,
        "diagonal",
        FUNCTION | METHOD,
        "The diagonal of two dimensions, as a view.",
        "input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1",
        |a| Ok(diagonal(a.tensor(0)?, a.int(1)?, a.int(2)?, a.int(3)?)?.into())
    );
    op!(
        list,
        "unfold",
        METHOD,
        "Windows of `size` every `step` along a dimension, as a view with one more dimension.",
        "input: Tensor, dimension: int, size: int, step: int",
        |a| Ok(unfold(a.tensor(0)?, a.int(1)?, a.int(2)?, a.int(3)?)?.into())
    );
    op!(
        list,
        "as_strided",
        FUNCTION | METHOD,
        "A view with given sizes, strides and storage offset.",
        "input: Tensor, size: ints, stride: ints, storage_offset: int? = None",
        |a| Ok(as_strided(a.tensor(0)?, a.ints(1)?, a.ints(2)?, a.int_opt(3)?)?.into())
    );
    op!(
        list,
        "movedim",
        FUNCTION | METHOD,
        alias = ["moveaxis"],
        "A view with dimensions moved to other places.",
        "input: Tensor, source: ints, destination: ints",
        |a| Ok(movedim(a.tensor(0)?, a.ints(1)?, a.ints(2)?)?.into())
    );
}
