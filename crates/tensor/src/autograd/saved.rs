//! What an op keeps for its backward: a tensor without its history (no reference cycles), the
//! storage version it had, and where its gradient goes. Stale data is an error, not a wrong number.

use super::node::{Edge, Node, drop_later};
use super::{Meta, forward, mode};
use crate::tensor::{Impl, Tensor};
use pyrite_core::{Result, bail};
use std::sync::{Arc, OnceLock, Weak};

enum Origin {
    /// A leaf that requires grad: kept as it is (its history can't change), identity preserved.
    Leaf,
    /// An input with a history, or without gradient.
    Input(Option<Edge>),
    /// Result number n of the op itself: the edge would be a cycle, so only a weak one is kept.
    Output(u32, OnceLock<Weak<Node>>),
}

/// See the module text.
pub struct Saved {
    tensor: Tensor,
    version: u32,
    origin: Origin,
    duals: Option<forward::Shared>,
}

impl Saved {
    pub fn input(t: &Tensor) -> Saved {
        let version = t.storage().version();
        if t.meta().is_none() {
            return Saved { tensor: t.alias(), version, origin: Origin::Input(None), duals: None };
        }
        let duals = forward::saved(t);
        match t.grad_fn() {
            Some(e) => Saved { tensor: t.alias(), version, origin: Origin::Input(Some(e)), duals },
            None if t.requires_grad() => Saved { tensor: t.clone(), version, origin: Origin::Leaf, duals },
            None => Saved { tensor: t.alias(), version, origin: Origin::Input(None), duals },
        }
    }

    /// Result `nr` of the op being recorded; [`Saved::bind`] must follow once the node exists.
    pub fn output(t: &Tensor, nr: u32) -> Saved {
        Saved {
            tensor: t.alias(),
            version: t.storage().version(),
            origin: Origin::Output(nr, OnceLock::new()),
            duals: forward::saved_output(t),
        }
    }

    pub fn bind(&self, node: &Arc<Node>) {
        if let Origin::Output(_, w) = &self.origin {
            let _ = w.set(Arc::downgrade(node));
        }
    }

    /// The tensor, with its history if a graph of the backward is wanted.
    pub fn unpack(&self, op: &str) -> Result<Tensor> {
        let now = self.tensor.storage().version();
        if now != self.version {
            let role = match &self.origin {
                Origin::Output(nr, _) => format!(", which is output {nr} of {op},"),
                _ => String::new(),
            };
            bail!(
                Runtime,
                "one of the variables needed for gradient computation has been modified by an inplace operation: [{} {:?}]{role} is at version {now}; expected version {} instead. It was saved by {op}. Hint: replace the in-place operation by its out-of-place form, or clone the tensor before.",
                self.tensor.dtype(),
                self.tensor.shape(),
                self.version
            );
        }
        self.recorded().map(|t| if forward::active() { forward::restore(t, &self.duals) } else { t })
    }

    fn recorded(&self) -> Result<Tensor> {
        if !mode::is_grad_enabled() {
            return Ok(if let Origin::Leaf = self.origin {
                self.tensor.detach()
            } else {
                self.tensor.clone()
            });
        }
        let edge = match &self.origin {
            Origin::Leaf => return Ok(self.tensor.clone()),
            Origin::Input(e) => e.clone(),
            Origin::Output(nr, w) => w.get().and_then(Weak::upgrade).map(|node| Edge { node, nr: *nr }),
        };
        let Some(edge) = edge else { return Ok(self.tensor.clone()) };
        let meta = OnceLock::new();
        let _ = meta.set(Arc::new(Meta::with_history(edge)));
        let t = &self.tensor.0;
        Ok(Tensor(Arc::new(Impl {
            storage: t.storage.clone(),
            layout: t.layout.clone(),
            dtype: t.dtype,
            meta,
        })))
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        // A saved tensor can hold the rest of a long graph alive: hand it to the iterative drop.
        if let Origin::Input(e) = &mut self.origin
            && let Some(e) = e.take()
        {
            drop_later(e.node);
        }
    }
}
