//! A backward of many gradients at once: every gradient has one more dimension, in front. A rule that takes such
//! gradients ([`super::Rule::takes_batches`]) runs once; any other, and a node with hooks, once for each row.

use super::Hook;
use super::engine::{Options, run_node};
use super::node::{Grads, Node};
use crate::ops;
use crate::tensor::Tensor;
use pyrite_core::{Dims, Result};
use std::sync::Arc;

/// Row `i` of each gradient.
fn row(grads: &[Option<Tensor>], i: usize) -> Result<Grads> {
    grads.iter().map(|g| g.as_ref().map(|g| ops::select(g, 0, i as i64)).transpose()).collect()
}

/// Rows of one place as one gradient: zeros where a row has none, nothing if none has.
fn joined(rows: &[Grads], place: usize) -> Result<Option<Tensor>> {
    let Some(like) = rows.iter().find_map(|r| r.get(place).and_then(Option::as_ref)) else {
        return Ok(None);
    };
    let list: Vec<Tensor> = rows
        .iter()
        .map(|r| match r.get(place).and_then(Option::as_ref) {
            Some(g) => Ok(g.clone()),
            None => Tensor::zeros(like.shape(), like.dtype(), like.device()),
        })
        .collect::<Result<_>>()?;
    ops::shape::stack(&list, 0).map(Some)
}

fn all_joined(rows: &[Grads]) -> Result<Grads> {
    let places = rows.iter().map(|r| r.len()).max().unwrap_or(0);
    (0..places).map(|i| joined(rows, i)).collect()
}

/// One node, a row at a time.
pub(super) fn row_by_row(
    node: &Arc<Node>,
    grads: &Grads,
    needs: u64,
    opts: &Options,
    n: usize,
) -> Result<Grads> {
    if n == 0 {
        return nothing(node, needs);
    }
    let mut rows = Vec::with_capacity(n);
    for i in 0..n {
        // What the node saved is needed until the last row.
        let keep_graph = opts.keep_graph || i + 1 < n;
        let one = Options { keep_graph, batch: None, ..*opts };
        rows.push(run_node(node, row(grads, i)?, needs, &one)?);
        crate::check_interrupt()?;
    }
    all_joined(&rows)
}

/// The gradients of no rows.
fn nothing(node: &Node, needs: u64) -> Result<Grads> {
    let zero = |(i, e): (usize, &Option<super::Edge>)| match e {
        Some(e) if i >= 64 || needs >> i & 1 == 1 => {
            let (shape, dtype, device) = e.wants();
            let shape: Dims = std::iter::once(0).chain(shape.iter().copied()).collect();
            Tensor::zeros(&shape, dtype, device).map(Some)
        }
        _ => Ok(None),
    };
    node.edges().iter().enumerate().map(zero).collect()
}

/// Hooks see one gradient at a time, as in as many backward passes.
pub(super) fn tensor_hooks(node: &Node, grads: &mut Grads, n: usize) -> Result<()> {
    let mut rows = Vec::with_capacity(n);
    for i in 0..n {
        let mut one = row(grads, i)?;
        node.run_tensor_hooks(&mut one)?;
        rows.push(one);
    }
    if n > 0 {
        *grads = all_joined(&rows)?;
    }
    Ok(())
}

/// The same for one hook of a leaf.
pub(super) fn hook(h: &dyn Hook, g: &Tensor, n: usize) -> Result<Tensor> {
    let mut rows = Vec::with_capacity(n);
    for i in 0..n {
        let one = ops::select(g, 0, i as i64)?;
        rows.push(h.call(&one)?.unwrap_or(one));
    }
    if rows.is_empty() { Ok(g.clone()) } else { ops::shape::stack(&rows, 0) }
}
