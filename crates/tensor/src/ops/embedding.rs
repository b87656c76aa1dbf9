//! Embedding: rows of a table by index, and one-hot vectors. The gradient adds rows up; its own
//! gradient picks them again.

use super::nn_misc::{same_device, signed};
use super::{Operand, reduce};
use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::{Index, Scatter};
use pyrite_core::{DType, Dims, Layout, Result, Scalar, bail, ensure};
use smallvec::smallvec;

/// Which rows get no gradient, and whether rows share theirs among their uses.
#[derive(Clone, Copy)]
pub struct Rows {
    pub padding: Option<i64>,
    pub by_frequency: bool,
}

/// `weight[idx]`: `idx` of any shape, `weight` of two dimensions.
pub fn embedding(idx: &Tensor, weight: &Tensor, r: Rows) -> Result<Tensor> {
    ensure!(weight.ndim() == 2, Runtime, "'weight' must be 2-D, got shape {:?} (embedding)", weight.shape());
    ensure!(
        matches!(idx.dtype(), DType::I64 | DType::I32),
        Runtime,
        "Expected tensor for argument 'indices' to have one of the following scalar types: Long, Int; but got {} instead (while checking arguments for embedding)",
        idx.dtype().name()
    );
    same_device("embedding", &[idx, weight])?;
    let flat = flat_index(idx)?;
    let y = rows_of(weight, &flat, r)?;
    let mut shape = signed(idx.shape());
    shape.push(weight.shape()[1] as i64);
    super::reshape(&y, &shape)
}

/// The indices as a dense vector, untracked.
fn flat_index(idx: &Tensor) -> Result<Tensor> {
    let i = super::contiguous(&idx.detach())?;
    let l = Layout::new([i.numel()].as_slice(), [1isize].as_slice(), i.layout().offset());
    Ok(super::with_layout(&i, l))
}

fn rows_of(weight: &Tensor, idx: &Tensor, r: Rows) -> Result<Tensor> {
    let (n, d) = (weight.shape()[0], weight.shape()[1]);
    ensure!(
        n > 0 || idx.numel() == 0,
        Index,
        "embedding: index out of range: the weight of shape {:?} has no rows",
        weight.shape()
    );
    let y = Tensor::empty(&[idx.numel(), d], weight.dtype(), weight.device())?;
    if y.numel() > 0 {
        y.backend()?
            .index(Index::Select { dst: y.arr(), src: weight.arr(), idx: idx.arr(), dim: 0 })
            .map_err(|e| e.context("embedding: index out of range in self"))?;
    }
    if needs_grad(&[weight]) {
        let idx = idx.clone();
        let version = idx.storage().version();
        autograd::attach("EmbeddingBackward0", &[weight], &[&y], &[], move |cx| {
            ensure!(
                idx.storage().version() == version,
                Runtime,
                "one of the variables needed for gradient computation has been modified by an inplace operation: the indices of embedding {:?}",
                idx.shape()
            );
            Ok(smallvec![Some(rows_into(&cx.grad(0)?, &idx, n, r)?)])
        });
    }
    Ok(y)
}

/// Zeros of `n` rows with the rows of `g` added at `idx`.
pub(super) fn rows_into(g: &Tensor, idx: &Tensor, n: usize, r: Rows) -> Result<Tensor> {
    let mut g = g.clone();
    if let Some(p) = r.padding {
        let skip = super::eq(idx, Operand::Number(Scalar::Int(p)))?;
        g = super::masked_fill(&g, &super::unsqueeze(&skip, 1)?, Operand::Number(Scalar::Int(0)))?;
    }
    if r.by_frequency {
        let _off = autograd::GradMode::new(false);
        let one = Tensor::full(&[idx.numel()], Scalar::Int(1), g.dtype(), g.device())?;
        let uses = Tensor::zeros(&[n], g.dtype(), g.device())?;
        add_rows(&uses, &one, idx)?;
        let plain = Rows { padding: None, by_frequency: false };
        let own = rows_of(&super::unsqueeze(&uses, 1)?, idx, plain)?;
        drop(_off);
        g = super::div(&g, &own)?;
    }
    let dw = Tensor::zeros(&[n, g.shape()[1]], g.dtype(), g.device())?;
    add_rows(&dw, &g, idx)?;
    if needs_grad(&[&g]) {
        let idx = idx.clone();
        let plain = Rows { padding: None, by_frequency: false };
        autograd::attach("EmbeddingDenseBackward0", &[&g], &[&dw], &[], move |cx| {
            Ok(smallvec![Some(rows_of(&cx.grad(0)?, &idx, plain)?)])
        });
    }
    Ok(dw)
}

fn add_rows(dst: &Tensor, src: &Tensor, idx: &Tensor) -> Result<()> {
    if src.numel() == 0 {
        return Ok(());
    }
    dst.backend()?.index(Index::SelectInto {
        dst: dst.arr(),
        src: src.arr(),
        idx: idx.arr(),
        dim: 0,
        how: Scatter::Add,
    })
}

/// 1 at each class index along a new last dimension, 0 elsewhere.
pub fn one_hot(t: &Tensor, classes: i64) -> Result<Tensor> {
    ensure!(
        t.dtype() == DType::I64,
        Runtime,
        "one_hot is only applicable to index tensor of type LongTensor, got {} of shape {:?}",
        t.dtype().name(),
        t.shape()
    );
    let n = if t.numel() == 0 {
        ensure!(classes > 0, Runtime, "Can not infer total number of classes from empty tensor.");
        classes as usize
    } else {
        let low = reduce::amin(&t.detach(), None, false)?.item()?.f64();
        let high = reduce::amax(&t.detach(), None, false)?.item()?.f64();
        ensure!(low >= 0.0, Runtime, "Class values must be non-negative.");
        match classes {
            -1 => high as usize + 1,
            c if c < 1 => bail!(Runtime, "num_classes should be positive, got {c}"),
            c => {
                ensure!(
                    high < c as f64,
                    Runtime,
                    "Class values must be smaller than num_classes: {high} is not smaller than {c}."
                );
                c as usize
            }
        }
    };
    let mut shape: Dims = t.shape().into();
    shape.push(n);
    let y = Tensor::zeros(&shape, DType::I64, t.device())?;
    if t.numel() > 0 {
        let one = super::expand_to(
            &Tensor::scalar(Scalar::Int(1), DType::I64, t.device())?,
            super::unsqueeze(&t.detach(), -1)?.shape(),
        )?;
        y.backend()?.index(Index::Scatter {
            dst: y.arr(),
            src: one.arr(),
            idx: super::unsqueeze(&t.detach(), -1)?.arr(),
            dim: t.ndim(),
            how: Scatter::Set,
        })?;
    }
    Ok(y)
}

fn call(a: &Args, idx: &Tensor, weight: &Tensor) -> Result<Value> {
    let padding = a.int(2)?;
    let r = Rows { padding: (padding >= 0).then_some(padding), by_frequency: a.bool(3)? };
    Ok(embedding(idx, weight, r)?.into())
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "embedding",
        FUNCTION,
        ns = "nn",
        "Rows of `weight` picked by `input`; the row `padding_idx` gets no gradient.",
        "input: Tensor, weight: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False",
        |a| call(a, a.tensor(0)?, a.tensor(1)?)
    );
    op!(
        list,
        "embedding",
        FUNCTION,
        "Rows of `weight` picked by `indices`; the row `padding_idx` gets no gradient.",
        "weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False",
        |a| {
            ensure!(
                !a.bool(4)?,
                NotImplemented,
                "embedding: sparse=True (sparse gradients) is not supported"
            );
            call(a, a.tensor(1)?, a.tensor(0)?)
        }
    );
    op!(
        list,
        "one_hot",
        FUNCTION,
        ns = "nn",
        "1 at each class index along a new last dimension, 0 elsewhere.",
        "tensor: Tensor, num_classes: int = -1",
        |a| Ok(one_hot(a.tensor(0)?, a.int(1)?)?.into())
    );
}
