//! Gradients that meet: in a node's slot, and in `.grad` of a leaf.

use super::inplace;
use super::mode::GradMode;
use super::node::Grads;
use crate::ops;
use crate::tensor::Tensor;
use pyrite_core::{Result, interrupt};
use std::sync::{Arc, Mutex, PoisonError};

/// Adds a gradient into a node's slot.
pub(super) fn deliver(grads: &mut Grads, nr: u32, g: Tensor, create_graph: bool) -> Result<()> {
    let nr = nr as usize;
    if grads.len() <= nr {
        grads.resize(nr + 1, None);
    }
    grads[nr] = Some(match grads[nr].take() {
        None => g,
        Some(have) => add_grads(have, g, create_graph)?,
    });
    Ok(())
}

/// `a + b`, into `a`'s memory where nobody else can see it.
fn add_grads(a: Tensor, b: Tensor, create_graph: bool) -> Result<Tensor> {
    if !create_graph {
        for (x, y) in [(&a, &b), (&b, &a)] {
            if x.handles() == 1
                && x.storage().is_unique()
                && !x.layout().may_self_overlap()
                && x.dtype() == y.dtype()
            {
                ops::add_assign_raw(x, y)?;
                return Ok(x.clone());
            }
        }
    }
    ops::add(&a, &b)
}

/// Several threads may run backward into the same leaf: each adds under the lock of its address.
static ADDING: [Mutex<()>; 64] = [const { Mutex::new(()) }; 64];

/// Adds into `.grad` of a tensor. `others` handles on `g` don't mind that it becomes the gradient.
pub(super) fn accumulate(t: &Tensor, g: Tensor, create_graph: bool, others: usize) -> Result<()> {
    let meta = t.meta_or_new();
    let which = (Arc::as_ptr(meta) as usize >> 6) % ADDING.len();
    // A signal handler must not find this lock taken by its own thread.
    let _whole = interrupt::Hold::new();
    let adding = ADDING[which].lock().unwrap_or_else(PoisonError::into_inner);
    // Taken out while we work: the ops below must not meet the tensor's own lock.
    let have = meta.lock().grad.clone();
    let new = match have {
        None if create_graph => g,
        None => {
            // Keep the buffer if it is ours alone and as dense as the parameter, else copy.
            let own = g.handles() <= 1 + others && g.storage().is_unique() && g.layout().is_dense();
            match own && g.strides() == t.layout().like_strides().as_slice() {
                true if g.meta().is_none() => g,
                true => g.detach(),
                false => ops::clone_like(&g, t)?.detach(),
            }
        }
        Some(have) if create_graph => ops::add(&have, &g)?,
        Some(have) => {
            let _off = GradMode::new(false);
            inplace::before_write("backward", &have)?;
            ops::add_assign_raw(&have.detach(), &g)?;
            have.storage().bump_version();
            return Ok(());
        }
    };
    let old = meta.lock().grad.replace(new);
    // A gradient with a history may end here: not under the lock.
    drop(adding);
    drop(old);
    Ok(())
}
