//! What an op keeps for its backward: a tensor without its history (no reference cycles), where its
//! gradient goes, and a mark on its storage, so that a later write hands over the old bytes
//! (`inplace::before_write`). In strict mode stale data is an error, never a wrong number.

use super::node::{Edge, Node};
use super::{Meta, forward, mode};
use crate::tensor::{Impl, Tensor};
use pyrite_core::watch::{Kept, Part, State};
use pyrite_core::{Layout, Result, Site, bail, err};
use std::sync::{Arc, OnceLock, Weak};

enum Origin {
    /// A leaf that requires grad: kept as it is (its history can't change), identity preserved.
    Leaf,
    /// An input with a history, or without gradient.
    Input(Option<Edge>),
    /// Result number n of the op itself: the edge would be a cycle, so only a weak one is kept.
    Output(u32, OnceLock<Weak<Node>>),
}

/// How the bytes are watched.
enum Mark {
    /// All of the storage, in this epoch.
    Whole(u32),
    Part(Arc<Part>),
    /// A hook took the tensor and gives it back later.
    Packed(Arc<dyn Packed>),
}

/// A tensor that a hook keeps in its own way.
pub trait Packed: Send + Sync {
    fn unpack(&self) -> Result<Tensor>;
}

/// What `saved_tensors_hooks` puts in force; see `mode::push_pack_hook`.
pub trait PackHook: Send + Sync {
    fn pack(&self, t: &Tensor) -> Result<Arc<dyn Packed>>;
}

/// See the module text.
pub struct Saved {
    tensor: Tensor,
    version: u32,
    mark: Mark,
    origin: Origin,
    duals: Option<forward::Shared>,
}

fn mark(t: &Tensor) -> Mark {
    if t.numel() * t.dtype().size() >= t.storage().bytes() {
        Mark::Whole(t.storage().keep_whole())
    } else {
        Mark::Part(t.storage().keep_part(t.layout(), t.dtype()))
    }
}

#[cold]
fn inference() {
    mode::set_record_error(err!(
        Runtime,
        "Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode in computation tracked by autograd. To work around this, you can make a clone to get a normal tensor and use it in autograd, or use `no_grad()` instead of `inference_mode()`."
    ));
}

impl Saved {
    #[inline]
    pub fn input(t: &Tensor) -> Saved {
        let origin = match t.meta() {
            None => Origin::Input(None),
            Some(_) => match t.grad_fn() {
                Some(e) => Origin::Input(Some(e)),
                None if t.requires_grad() => Origin::Leaf,
                None => Origin::Input(None),
            },
        };
        Saved::new(t, origin)
    }

    /// The data of `t` with a history of its own choosing.
    pub fn with_edge(t: &Tensor, edge: Option<Edge>) -> Saved {
        Saved::new(t, Origin::Input(edge))
    }

    /// Result `nr` of the op being recorded; [`Saved::bind`] must follow once the node exists.
    pub fn output(t: &Tensor, nr: u32) -> Saved {
        Saved::new(t, Origin::Output(nr, OnceLock::new()))
    }

    #[inline]
    fn new(t: &Tensor, origin: Origin) -> Saved {
        if mode::is_packing() {
            return Saved::packed(t, origin);
        }
        Saved::plain(t, origin)
    }

    #[inline]
    fn plain(t: &Tensor, origin: Origin) -> Saved {
        if t.storage().is_inference() {
            inference();
        }
        let tensor = if let Origin::Leaf = origin { t.clone() } else { t.alias() };
        let duals = match origin {
            Origin::Output(..) => forward::saved_output(t),
            _ => forward::saved(t),
        };
        Saved { tensor, version: t.storage().version(), mark: mark(t), origin, duals }
    }

    #[cold]
    fn packed(t: &Tensor, origin: Origin) -> Saved {
        let Some(hook) = mode::pack_hook() else { return Saved::plain(t, origin) };
        // The hook sees the tensor with its history, but what it does with it is nobody's graph. It gets
        // another handle where keeping this one would close a reference cycle.
        let packed = {
            let _off = mode::GradMode::new(false);
            match &origin {
                Origin::Leaf => hook.pack(t),
                Origin::Input(Some(e)) => hook.pack(&recorded_as(t, e.clone())),
                _ => hook.pack(&t.detach()),
            }
        };
        let made = packed.and_then(|p| Ok((p, Tensor::empty(&[0], t.dtype(), t.device())?)));
        match made {
            Ok((p, nothing)) => {
                let origin = match origin {
                    // Its bytes are the hook's now; the gradient still goes to the leaf.
                    Origin::Leaf => Origin::Input(t.edge()),
                    o => o,
                };
                Saved { tensor: nothing, version: 0, mark: Mark::Packed(p), origin, duals: forward::saved(t) }
            }
            Err(e) => {
                mode::set_record_error(e);
                Saved::plain(t, origin)
            }
        }
    }

    pub fn bind(&self, node: &Arc<Node>) {
        if let Origin::Output(_, w) = &self.origin {
            let _ = w.set(Arc::downgrade(node));
        }
    }

    /// The bytes as they were when they were saved; `None`: they still are where they were.
    fn data(&self, node: &Node) -> Result<Option<Tensor>> {
        let storage = self.tensor.storage();
        let now = storage.version();
        let kept = match &self.mark {
            Mark::Packed(p) => return p.unpack().map(Some),
            Mark::Whole(_) if now == self.version => return Ok(None),
            Mark::Whole(epoch) => storage.kept_in(*epoch),
            Mark::Part(p) => match p.state(now) {
                State::Intact => return Ok(None),
                State::Kept(k) => Some(k.clone()),
                State::Gone => None,
            },
        };
        match kept {
            Some(Kept::Copy(bytes)) => {
                let layout = match &self.mark {
                    Mark::Part(_) => Layout::contiguous(self.tensor.shape()),
                    _ => self.tensor.layout().clone(),
                };
                let old = Tensor::from_parts(bytes, layout, self.tensor.dtype());
                Ok(Some(if self.tensor.is_lazy() { old.marked(self.tensor.lazy()) } else { old }))
            }
            Some(Kept::Lost(who)) => self.stale(node, now, Some((&who.0, who.1))),
            None => self.stale(node, now, None),
        }
    }

    #[cold]
    fn stale<T>(&self, node: &Node, now: u32, who: Option<(&str, Site)>) -> Result<T> {
        let op = &node.name;
        let role = match &self.origin {
            Origin::Output(nr, _) => format!(", which is output {nr} of {op},"),
            _ => String::new(),
        };
        let writer = match who {
            Some((w, at)) => format!(" and overwritten by {w}{}", at.suffix()),
            None => String::new(),
        };
        bail!(
            Runtime,
            "one of the variables needed for gradient computation has been modified by an inplace operation: [{} {:?}]{role} is at version {now}; expected version {} instead. It was saved by {op}{}{writer}. Hint: replace the in-place operation by its out-of-place form, or clone the tensor before; without set_strict_inplace(True) Pyrite keeps a copy by itself.",
            self.tensor.dtype(),
            self.tensor.shape(),
            self.version,
            node.site.suffix()
        );
    }

    /// The tensor, with its history if a graph of the backward is wanted.
    pub fn unpack(&self, node: &Node) -> Result<Tensor> {
        self.recorded(node).map(|t| if forward::active() { forward::restore(t, &self.duals) } else { t })
    }

    fn recorded(&self, node: &Node) -> Result<Tensor> {
        let old = self.data(node)?;
        let t = old.as_ref().unwrap_or(&self.tensor);
        if !mode::is_grad_enabled() {
            return Ok(match (&old, &self.origin) {
                (None, Origin::Leaf) => t.detach(),
                _ => t.clone(),
            });
        }
        let edge = match &self.origin {
            // A leaf that was written to since: its old value, with the gradient still going to the leaf.
            Origin::Leaf if old.is_some() => self.tensor.edge(),
            Origin::Leaf => return Ok(self.tensor.clone()),
            Origin::Input(e) => e.clone(),
            Origin::Output(nr, w) => w.get().and_then(Weak::upgrade).map(|n| Edge::new(n, *nr)),
        };
        let Some(edge) = edge else { return Ok(t.clone()) };
        Ok(recorded_as(t, edge))
    }
}

/// Another tensor over the data of `t` with this history.
fn recorded_as(t: &Tensor, edge: Edge) -> Tensor {
    let meta = OnceLock::new();
    let _ = meta.set(Arc::new(Meta::with_history(edge)));
    let t = &t.0;
    Tensor(Arc::new(Impl {
        storage: t.storage.clone(),
        layout: t.layout.clone(),
        dtype: t.dtype,
        lazy: t.lazy,
        meta,
    }))
}

impl Drop for Saved {
    fn drop(&mut self) {
        if let Mark::Whole(epoch) = self.mark {
            self.tensor.storage().let_go(epoch);
        }
        // A saved tensor can hold the rest of a long graph alive: hand it to the iterative drop.
        if let Origin::Input(e) = &mut self.origin
            && let Some(e) = e.take()
        {
            e.drop_later();
        }
    }
}
