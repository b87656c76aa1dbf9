//! What `backward` and `grad` ask of the engine: roots with their gradients, inputs, and how to run.

use super::engine::{Options, run};
use super::node::Edge;
use super::{forward, reentry};
use crate::ops;
use crate::tensor::Tensor;
use pyrite_core::{Result, bail, ensure};
use smallvec::SmallVec;

/// `loss.backward()`: adds gradients into the leaves' `.grad`. With `inputs`, only into those.
pub fn backward(
    outputs: &[Tensor],
    grads: &[Option<Tensor>],
    keep_graph: bool,
    create_graph: bool,
    inputs: Option<&[Tensor]>,
) -> Result<()> {
    let edges = output_edges(outputs)?;
    let inputs = match inputs {
        None => None,
        Some(list) => {
            ensure!(!list.is_empty(), Runtime, "`inputs` argument to `backward()` cannot be empty.");
            for t in list {
                // As PyTorch: an input with a history keeps its gradient as after `retain_grad()`.
                if t.requires_grad() {
                    t.retain_grad()?;
                }
            }
            Some(input_edges(list)?)
        }
    };
    let how = How { grads, keep_graph, create_graph, batched: false, op: "backward" };
    from_edges(&edges, &how, inputs.as_deref(), true).map(|_| ())
}

/// `autograd.grad`: the gradients with respect to `inputs`, `None` where there is no path.
pub fn grad(
    outputs: &[Tensor],
    grads: &[Option<Tensor>],
    inputs: &[Tensor],
    keep_graph: bool,
    create_graph: bool,
) -> Result<Vec<Option<Tensor>>> {
    ensure!(!inputs.is_empty(), Runtime, "`inputs` argument to `grad()` cannot be empty.");
    let how = How { grads, keep_graph, create_graph, batched: false, op: "grad" };
    from_edges(&output_edges(outputs)?, &how, Some(&input_edges(inputs)?), false)
}

/// How to run; see [`from_edges`].
pub struct How<'a> {
    /// One per root, or none at all.
    pub grads: &'a [Option<Tensor>],
    pub keep_graph: bool,
    pub create_graph: bool,
    /// Every gradient has one more dimension, in front: as many backward passes in one (`batch.rs`).
    pub batched: bool,
    /// For messages.
    pub op: &'static str,
}

/// The general form: roots and inputs are edges (of tensors, or `GradientEdge`s). With `accumulate`
/// gradients go into `.grad` of the leaves, else those at `inputs` are returned.
pub fn from_edges(
    outputs: &[Edge],
    how: &How,
    inputs: Option<&[Edge]>,
    accumulate: bool,
) -> Result<Vec<Option<Tensor>>> {
    let roots = roots(how, outputs)?;
    let batch = if how.batched { Some(batch_size(how.grads)?) } else { None };
    let (keep_graph, create_graph) = (how.keep_graph, how.create_graph);
    let opts = Options { keep_graph, create_graph, inputs, accumulate, batch };
    reentry::enter(|| run(roots, &opts))
}

pub fn input_edges(list: &[Tensor]) -> Result<Vec<Edge>> {
    list.iter()
        .map(|t| match t.edge() {
            Some(e) => Ok(e),
            None => bail!(Runtime, "One of the differentiated Tensors does not require grad"),
        })
        .collect()
}

pub fn output_edges(list: &[Tensor]) -> Result<Vec<Edge>> {
    list.iter()
        .enumerate()
        .map(|(i, t)| match t.edge() {
            Some(e) => Ok(e),
            None => {
                bail!(Runtime, "element {i} of tensors does not require grad and does not have a grad_fn")
            }
        })
        .collect()
}

/// The size of the dimension in front, which all gradients must have.
fn batch_size(grads: &[Option<Tensor>]) -> Result<usize> {
    let mut sizes = grads.iter().map(|g| g.as_ref().and_then(|g| g.shape().first().copied()));
    let Some(Some(n)) = sizes.next() else {
        bail!(Runtime, "grad: is_grads_batched=True needs a gradient with a batch dimension for each output");
    };
    ensure!(
        sizes.all(|s| s == Some(n)),
        Runtime,
        "grad: with is_grads_batched=True all grad_outputs must have the same size {n} in dimension 0"
    );
    Ok(n)
}

fn roots(how: &How, outputs: &[Edge]) -> Result<SmallVec<[(Edge, Tensor); 1]>> {
    let (op, grads) = (how.op, how.grads);
    ensure!(
        grads.is_empty() || grads.len() == outputs.len(),
        Runtime,
        "{op}: got {} tensors and {} gradients",
        outputs.len(),
        grads.len()
    );
    let mut roots = SmallVec::new();
    for (i, edge) in outputs.iter().enumerate() {
        let (shape, dtype, device) = edge.wants();
        let g = match grads.get(i).and_then(Option::as_ref) {
            Some(g) => {
                ensure!(
                    !how.batched || g.shape().get(1..) == Some(shape),
                    Runtime,
                    "If `is_grads_batched=True`, we interpret the first dimension of each grad_output as the batch dimension. The sizes of the remaining dimensions are expected to match the shape of corresponding output, but a mismatch was detected: grad_output[{i}] has a shape of {:?} and output[{i}] has a shape of {:?}. If you only want some tensors in `grad_output` to be considered batched, consider using vmap.",
                    g.shape(),
                    shape
                );
                ensure!(
                    how.batched || g.shape() == shape,
                    Runtime,
                    "Mismatch in shape: grad_output[{i}] has a shape of torch.Size({:?}) and output[{i}] has a shape of torch.Size({:?}).",
                    g.shape(),
                    shape
                );
                ensure!(
                    g.dtype().is_complex() == dtype.is_complex(),
                    Runtime,
                    "{op}: grad_output[{i}] has dtype {} and output[{i}] has dtype {}: both must be real or both complex",
                    g.dtype(),
                    dtype
                );
                let g = ops::lazy::resolve(g)?;
                if g.dtype() == dtype { g } else { ops::to_dtype(&g, dtype)? }
            }
            None => {
                ensure!(
                    shape.iter().product::<usize>() == 1,
                    Runtime,
                    "grad can be implicitly created only for scalar outputs"
                );
                ensure!(
                    !dtype.is_complex(),
                    Runtime,
                    "grad can be implicitly created only for real scalar outputs but got {}",
                    dtype
                );
                Tensor::full(shape, 1.0.into(), dtype, device)?
            }
        };
        let g = if how.create_graph || g.meta().is_none() {
            g
        } else if forward::active() {
            forward::detach(&g)
        } else {
            g.detach()
        };
        roots.push((edge.clone(), g));
    }
    Ok(roots)
}
