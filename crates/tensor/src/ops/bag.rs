//! `embedding_bag`: sums, means or maxima of embedding rows, and their gradients in library ops.

use super::embedding::{Rows, rows_into};
use super::nn_misc::{place, same_device, want_float};
use super::{Operand, index};
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::backend::{Bag, BagGradient, BagMode, Bags as Kernel};
use pyrite_core::{DType, Device, Dims, Result, Scalar, ensure};
use smallvec::{SmallVec, smallvec};

/// What goes into a bag, besides the weight.
pub struct Bags<'a> {
    pub indices: &'a Tensor,
    pub offsets: &'a Tensor,
    pub coef: Option<&'a Tensor>,
    pub mode: BagMode,
    pub by_frequency: bool,
    /// The last offset is the end of the last bag.
    pub last_offset: bool,
    pub padding: Option<i64>,
}

fn host(op: &str, t: &Tensor) -> Result<Vec<i64>> {
    ensure!(
        matches!(t.dtype(), DType::I64 | DType::I32),
        Runtime,
        "Expected tensor for argument '{op}' to have one of the following scalar types: Long, Int; but got {} instead (while checking arguments for embedding_bag)",
        t.dtype().name()
    );
    super::to_dtype(&t.detach(), DType::I64)?.to_vec::<i64>()
}

/// One row for each bag, and the positions of maxima.
pub fn embedding_bag(weight: &Tensor, b: Bags) -> Result<Tensor> {
    const OP: &str = "embedding_bag";
    ensure!(weight.ndim() == 2, Runtime, "{OP}: 'weight' must be 2-D, got shape {:?}", weight.shape());
    ensure!(
        b.indices.ndim() == 1 && b.offsets.ndim() == 1,
        Runtime,
        "{OP}: indices and offsets must be 1-D, got {:?} and {:?}",
        b.indices.shape(),
        b.offsets.shape()
    );
    want_float(OP, weight)?;
    same_device(OP, &[weight, b.indices, b.offsets])?;
    let (v, d) = (weight.shape()[0], weight.shape()[1]);
    let idx = host("indices", b.indices)?;
    let offsets = host("offsets", b.offsets)?;
    let n = idx.len();
    ensure!(
        !b.last_offset || !offsets.is_empty(),
        Runtime,
        "include_last_offset: number of offsets should be at least 1"
    );
    if let Some(first) = offsets.first() {
        ensure!(
            *first == 0,
            Runtime,
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0. However, got {first}"
        );
    }
    let mut start: Vec<usize> = Vec::with_capacity(offsets.len() + 1);
    for w in &offsets {
        ensure!(
            *w >= start.last().map_or(0, |s| *s as i64) && *w <= n as i64,
            Runtime,
            "offsets must not decrease nor exceed the number of indices {n}, but got offset {w}"
        );
        start.push(*w as usize);
    }
    if !b.last_offset {
        start.push(n);
    }
    if start.is_empty() {
        start.push(0);
    }
    if let Some(bad) = idx.iter().find(|i| !(0..v as i64).contains(i)) {
        pyrite_core::bail!(
            Runtime,
            "{OP}: Expected idx >= 0 && idx < num_embeddings but found idx to be {bad}, with num_embeddings {v}"
        );
    }
    if let Some(c) = b.coef {
        ensure!(
            c.shape() == b.indices.shape() && c.dtype() == weight.dtype(),
            Runtime,
            "{OP}: per_sample_weights must have the shape and dtype of input {:?} and weight {}, got {:?} {}",
            b.indices.shape(),
            weight.dtype(),
            c.shape(),
            c.dtype()
        );
        ensure!(b.mode == BagMode::Sum, NotImplemented, "{OP}: per_sample_weights needs mode='sum'");
    }
    // Halves are computed in f32.
    let wide = super::nn_misc::compute_type(weight.dtype());
    if weight.device() == Device::Cpu && wide != weight.dtype() {
        let c = b.coef.map(|c| super::to_dtype(c, wide)).transpose()?;
        let y = embedding_bag(&super::to_dtype(weight, wide)?, Bags { coef: c.as_ref(), ..b })?;
        return super::to_dtype(&y, weight.dtype());
    }
    let bags = start.len() - 1;
    let y = Tensor::empty(&[bags, d], weight.dtype(), weight.device())?;
    let track = needs_grad(&[weight]) || b.coef.is_some_and(|c| needs_grad(&[c]));
    let at = match b.mode {
        BagMode::Max if track => Some(Tensor::empty(&[bags, d], DType::I64, weight.device())?),
        _ => None,
    };
    let w = super::contiguous(&weight.detach())?;
    let coef = b.coef.map(|c| super::contiguous(&c.detach())).transpose()?;
    w.backend()?.bag(Kernel::Forward(Bag {
        weight: w.arr(),
        index: &idx,
        start: &start,
        coef: coef.as_ref().map(Tensor::arr),
        padding: b.padding,
        mode: b.mode,
        y: y.arr(),
        at: at.as_ref().map(Tensor::arr),
    }))?;
    if track {
        record(weight, &b, &y, at, idx, &start, v)?;
    }
    Ok(y)
}

fn record(
    weight: &Tensor,
    b: &Bags,
    y: &Tensor,
    at: Option<Tensor>,
    idx: Vec<i64>,
    start: &[usize],
    rows: usize,
) -> Result<()> {
    if let Some(at) = at {
        let shape: Dims = weight.shape().into();
        autograd::attach("EmbeddingBagBackward0", &[weight], &[y], &[Save::Input(&at)], move |cx| {
            let (g, at) = (cx.grad(0)?, cx.saved(0)?);
            let zero = Operand::Number(Scalar::Int(0));
            let none = super::lt(at, zero)?;
            let g = super::masked_fill(&g, &none, zero)?;
            let at = super::masked_fill(at, &none, zero)?;
            Ok(smallvec![Some(place(&g, &at, 0, &shape)?)])
        });
        return Ok(());
    }
    // The entries that count: position, row, bag, and what the gradient is scaled by.
    let (mut kept, mut row, mut bag, mut scale) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut uses = vec![0u32; if b.by_frequency { rows } else { 0 }];
    for (j, w) in start.windows(2).enumerate() {
        let inside = (w[0]..w[1]).filter(|i| Some(idx[*i]) != b.padding);
        let before = row.len();
        for i in inside {
            kept.push(i as i64);
            row.push(idx[i]);
            bag.push(j as i64);
            if b.by_frequency {
                uses[idx[i] as usize] += 1;
            }
        }
        let share = if b.mode == BagMode::Mean { 1.0 / (row.len() - before).max(1) as f64 } else { 1.0 };
        scale.resize(row.len(), share);
    }
    if b.by_frequency {
        for (s, r) in scale.iter_mut().zip(&row) {
            *s /= f64::from(uses[*r as usize].max(1));
        }
    }
    let n = row.len();
    let list = |v: &[i64]| Tensor::from_slice(v, &[n]);
    let plain = b.mode == BagMode::Sum && !b.by_frequency;
    let (rows_of, bag_of) = (row.clone(), bag.clone());
    let (kept, row, bag) = (list(&kept)?, list(&row)?, list(&bag)?);
    let factors = (!plain).then(|| scale.clone());
    let scale = if plain {
        None
    } else {
        Some(super::to_dtype(&Tensor::from_slice(&scale, &[n, 1])?, weight.dtype())?)
    };
    let inputs: SmallVec<[&Tensor; 2]> = std::iter::once(weight).chain(b.coef).collect();
    let count = b.indices.numel();
    let save = [Save::Opt(b.coef.map(|_| weight)), Save::Opt(b.coef)];
    autograd::attach("EmbeddingBagBackward0", &inputs, &[y], &save, move |cx| {
        let g = cx.grad(0)?;
        if !cx.create_graph && cx.needs(0) && !(cx.needs(1) && cx.saved_opt(1).is_some()) {
            // The common case in one kernel, without an array of all rows.
            let dw = Tensor::empty(&[rows, g.shape()[1]], g.dtype(), g.device())?;
            let g = super::contiguous(&g)?;
            let coef = match cx.saved_opt(1) {
                Some(c) => Some(super::contiguous(&index::index_select(c, 0, &kept)?)?),
                None => None,
            };
            dw.backend()?.bag(Kernel::Backward(BagGradient {
                dy: g.arr(),
                row: &rows_of,
                bag: &bag_of,
                scale: factors.as_deref(),
                coef: coef.as_ref().map(Tensor::arr),
                dw: dw.arr(),
            }))?;
            return Ok(if cx.saved_opt(1).is_some() {
                smallvec![Some(dw), None]
            } else {
                smallvec![Some(dw)]
            });
        }
        let mut g = index::index_select(&g, 0, &bag)?;
        let mut dw = None;
        if cx.needs(0) {
            let mut own = g.clone();
            if let Some(s) = &scale {
                own = super::mul(&own, s)?;
            }
            if let Some(c) = cx.saved_opt(1) {
                own = super::mul(&own, &super::unsqueeze(&index::index_select(c, 0, &kept)?, 1)?)?;
            }
            dw = Some(rows_into(&own, &row, rows, Rows { padding: None, by_frequency: false })?);
        }
        let mut dc = None;
        if cx.needs(1) && cx.saved_opt(1).is_some() {
            g = super::mul(&g, &index::index_select(cx.saved(0)?, 0, &row)?)?;
            dc = Some(place(&super::sum(&g, Some(&[1]), false, None)?, &kept, 0, &[count])?);
        }
        Ok(if cx.saved_opt(1).is_some() { smallvec![dw, dc] } else { smallvec![dw] })
    });
    Ok(())
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "embedding_bag",
        FUNCTION,
        ns = "nn",
        "Sum (mode 0), mean (1) or maximum (2) over bags of rows of `weight`; bag b is `indices[offsets[b]:offsets[b + 1]]`.",
        "weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool = False, mode: int = 0, per_sample_weights: Tensor? = None, include_last_offset: bool = False, padding_idx: int = -1",
        |a| {
            let mode = match a.int(4)? {
                0 => BagMode::Sum,
                1 => BagMode::Mean,
                2 => BagMode::Max,
                m => pyrite_core::bail!(Value, "embedding_bag: mode must be 0, 1 or 2, got {m}"),
            };
            let padding = a.int(7)?;
            let bags = Bags {
                indices: a.tensor(1)?,
                offsets: a.tensor(2)?,
                coef: a.tensor_opt(5)?,
                mode,
                by_frequency: a.bool(3)?,
                last_offset: a.bool(6)?,
                padding: (padding >= 0).then_some(padding),
            };
            Ok(embedding_bag(a.tensor(0)?, bags)?.into())
        }
    );
}
