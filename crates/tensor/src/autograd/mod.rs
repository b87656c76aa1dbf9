//! Reverse-mode differentiation: what a tensor remembers ([`Meta`]), the graph ([`node`]), what is
//! kept for backward ([`saved`]), running it ([`engine`]), views and in-place writes ([`inplace`]),
//! and whether anything is recorded at all ([`mode`]).

mod adding;
pub mod anomaly;
mod attach;
mod batch;
mod cell;
mod engine;
pub mod forward;
pub mod inplace;
pub mod mode;
pub mod node;
mod node_hooks;
mod reentry;
pub mod request;
pub mod runs;
pub mod saved;

pub(crate) use cell::MetaCell;
pub use mode::{GradMode, is_grad_enabled};
pub use node::{Ctx, Edge, Grads, Node, Rule, Save, Target, attach, attach_any, flows, needs_grad};
pub(crate) use reentry::check_cancelled;
pub use request::{backward, grad};

use crate::tensor::Tensor;
use pyrite_core::{Result, bail, ensure};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A callback on a gradient. `None` leaves it as it is.
pub trait Hook: Send + Sync {
    fn call(&self, grad: &Tensor) -> Result<Option<Tensor>>;
    /// Lets the binding find the Python object inside (for garbage collection).
    fn as_any(&self) -> &dyn std::any::Any;
}

/// A callback on a leaf after its gradient was accumulated.
pub trait PostAccumulateHook: Send + Sync {
    fn call(&self, leaf: &Tensor) -> Result<()>;
    fn as_any(&self) -> &dyn std::any::Any;
}

/// The autograd side of a tensor; absent until needed.
pub struct Meta {
    /// Set for leaves that want a gradient and for every tensor with a history.
    requires_grad: AtomicBool,
    /// It has, or once had, a history or a base: without the lock, nothing else can be told of a leaf.
    storied: AtomicBool,
    /// Weak pointer to the Python wrapper, owned by `py`: set and cleared with the GIL held.
    pub py: AtomicPtr<c_void>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub grad: Option<Tensor>,
    pub grad_fn: Option<Edge>,
    pub view: Option<View>,
    pub retains_grad: bool,
    pub dual: Option<forward::Dual>,
    /// Absent for almost every tensor: making and dropping one costs nothing for it.
    pub watched: Option<Box<Watched>>,
}

/// Who is told about the gradient of a leaf.
#[derive(Default, Clone)]
pub(crate) struct Watched {
    pub hooks: Vec<(u64, Arc<dyn Hook>)>,
    pub post_accumulate: Vec<(u64, Arc<dyn PostAccumulateHook>)>,
    pub accumulator: Option<Weak<Node>>,
}

impl Inner {
    pub(crate) fn watched(&mut self) -> &mut Watched {
        self.watched.get_or_insert_default()
    }
}

/// A view remembers the tensor it looks into (never another view: chains are flattened).
#[derive(Clone)]
pub struct View {
    pub base: Tensor,
    /// The storage version `grad_fn` belongs to; a newer one means the base was written to since.
    pub seen_version: u32,
    pub made: Made,
}

/// How a view came to be: some may not be written to while a graph is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Made {
    Plain,
    /// Without recording, so that its history can't be told from that of its base.
    NoGrad,
    /// As `NoGrad`, in inference mode.
    Inference,
    /// Result number n of an op that returns several views.
    Several(u32),
    /// Both.
    SeveralNoGrad,
    /// Inside a custom Function (or one of its inputs, returned): its backward must not be bypassed.
    Custom,
}

impl Default for Meta {
    fn default() -> Meta {
        Meta {
            requires_grad: AtomicBool::new(false),
            storied: AtomicBool::new(false),
            py: AtomicPtr::new(std::ptr::null_mut()),
            inner: Mutex::new(Inner::default()),
        }
    }
}

impl Meta {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
    #[inline]
    pub(crate) fn with_history(edge: Edge) -> Meta {
        Meta {
            requires_grad: AtomicBool::new(true),
            storied: AtomicBool::new(true),
            py: AtomicPtr::new(std::ptr::null_mut()),
            inner: Mutex::new(Inner { grad_fn: Some(edge), ..Inner::default() }),
        }
    }
    /// A leaf that was never anything else.
    #[inline]
    pub(crate) fn is_plain_leaf(&self) -> bool {
        self.requires() && !self.storied.load(Ordering::Acquire)
    }
    /// Call before it gets a history or a base.
    pub(crate) fn set_storied(&self) {
        self.storied.store(true, Ordering::Release);
    }
    pub(crate) fn set_requires(&self, on: bool) {
        self.requires_grad.store(on, Ordering::Release);
    }
    pub(crate) fn requires(&self) -> bool {
        self.requires_grad.load(Ordering::Acquire)
    }
}

impl Meta {
    /// Takes a hook of the leaf away again.
    pub fn remove_hook(&self, id: u64) {
        let mut m = self.lock();
        let Some(w) = &mut m.watched else { return };
        let (gone, keep) = std::mem::take(&mut w.hooks).into_iter().partition(|h| h.0 == id);
        w.hooks = keep;
        let (gone2, keep) = std::mem::take(&mut w.post_accumulate).into_iter().partition(|h| h.0 == id);
        w.post_accumulate = keep;
        drop(m);
        // Dropped after the lock is gone, as everywhere.
        let gone: (Vec<_>, Vec<_>) = (gone, gone2);
        drop(gone);
    }
}

static NEXT_HOOK: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

/// A fresh id for a hook (its handle removes it by this).
pub fn hook_id() -> u64 {
    NEXT_HOOK.fetch_add(1, Ordering::Relaxed)
}

impl Tensor {
    #[inline]
    pub fn meta(&self) -> Option<&Arc<Meta>> {
        self.0.meta.get()
    }
    pub fn meta_or_new(&self) -> &Arc<Meta> {
        self.0.meta.get_or_init(|| Arc::new(Meta::default()))
    }

    /// A leaf that wants a gradient, or the result of a recorded op.
    #[inline]
    pub fn requires_grad(&self) -> bool {
        match self.meta() {
            None => false,
            Some(m) => m.requires() || inplace::view_requires_grad(m),
        }
    }

    /// Not made by a recorded op.
    pub fn is_leaf(&self) -> bool {
        !self.requires_grad() || self.grad_fn().is_none()
    }

    /// The op that made this tensor, refreshed if the base of this view was written to.
    pub fn grad_fn(&self) -> Option<Edge> {
        inplace::grad_fn(self)
    }

    /// Where this tensor's gradient goes: its history, or its accumulator if it is a leaf.
    pub fn edge(&self) -> Option<Edge> {
        if !self.requires_grad() {
            return None;
        }
        if let Some(e) = self.grad_fn() {
            return Some(e);
        }
        Some(Edge { to: Target::Leaf(self.clone()), nr: 0 })
    }

    /// The `AccumulateGrad` node of this leaf: always the same while somebody holds it.
    pub fn accumulator(&self) -> Arc<Node> {
        let meta = self.meta_or_new();
        let mut m = meta.lock();
        let known = m.watched.as_ref().and_then(|w| w.accumulator.as_ref()).and_then(Weak::upgrade);
        if let Some(node) = known {
            return node;
        }
        let node = node::accumulator(self);
        m.watched().accumulator = Some(Arc::downgrade(&node));
        node
    }

    pub fn set_requires_grad(&self, on: bool) -> Result<()> {
        if on {
            ensure!(
                self.dtype().is_differentiable(),
                Runtime,
                "only Tensors of floating point and complex dtype can require gradients (this one has dtype {})",
                self.dtype()
            );
            ensure!(
                !self.storage().is_inference() || mode::is_inference(),
                Runtime,
                "Setting requires_grad=True on inference tensor outside InferenceMode is not allowed."
            );
        } else if self.grad_fn().is_some() {
            bail!(
                Runtime,
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            );
        }
        if on || self.meta().is_some() {
            self.meta_or_new().set_requires(on);
        }
        Ok(())
    }

    pub fn grad(&self) -> Option<Tensor> {
        self.meta().and_then(|m| m.lock().grad.clone())
    }

    /// Sets or clears `.grad`, with PyTorch's checks.
    pub fn set_grad(&self, g: Option<Tensor>) -> Result<()> {
        if let Some(g) = &g {
            ensure!(!g.same(self), Runtime, "can't assign Variable as its own grad");
            ensure!(
                g.shape() == self.shape(),
                Runtime,
                "attempting to assign a gradient of size '{:?}' to a tensor of size '{:?}'. Please ensure that the gradient and the tensor are the same size",
                g.shape(),
                self.shape()
            );
            ensure!(
                g.dtype() == self.dtype(),
                Runtime,
                "attempting to assign a gradient with dtype '{}' to a tensor of dtype '{}'. The gradient must match the tensor's dtype",
                g.dtype(),
                self.dtype()
            );
            ensure!(
                g.device() == self.device(),
                Runtime,
                "assigned grad has data located on a different device: the tensor is on {}, the grad on {}",
                self.device(),
                g.device()
            );
        } else if self.meta().is_none() {
            return Ok(());
        }
        let g = g.map(|g| crate::ops::lazy::resolve(&g)).transpose()?;
        // The old gradient is dropped after the lock is gone: its graph may be long.
        let old = std::mem::replace(&mut self.meta_or_new().lock().grad, g);
        drop(old);
        Ok(())
    }

    /// The same data without history: a tensor of its own, whose `requires_grad` is its own.
    pub fn detach(&self) -> Tensor {
        self.alias()
    }

    /// Cuts this tensor, which is no view, out of its graph.
    pub fn forget_history(&self) {
        let Some(meta) = self.meta() else { return };
        let old = {
            let mut m = meta.lock();
            m.retains_grad = false;
            m.grad_fn.take()
        };
        meta.set_requires(false);
        if let Some(e) = old {
            e.drop_later();
        }
    }

    /// A new tensor object over the same data, without history and without identity.
    pub fn alias(&self) -> Tensor {
        self.with_layout(self.layout().clone())
    }

    /// The tensor this one is a view of, if it is one.
    pub fn base(&self) -> Option<Tensor> {
        self.meta().and_then(|m| m.lock().view.as_ref().map(|v| v.base.clone()))
    }

    pub fn retain_grad(&self) -> Result<()> {
        ensure!(self.requires_grad(), Runtime, "can't retain_grad on Tensor that has requires_grad=False");
        if self.is_leaf() {
            return Ok(());
        }
        self.meta_or_new().lock().retains_grad = true;
        if let Some(e) = self.grad_fn() {
            e.node().retain(e.nr, self);
        }
        Ok(())
    }

    pub fn retains_grad(&self) -> bool {
        self.meta().is_some_and(|m| m.lock().retains_grad)
    }

    /// Registers a hook on the gradient; its id removes it again.
    pub fn register_hook(&self, hook: Arc<dyn Hook>) -> Result<u64> {
        ensure!(
            self.requires_grad(),
            Runtime,
            "cannot register a hook on a tensor that doesn't require gradient"
        );
        let id = hook_id();
        match self.grad_fn() {
            Some(e) => e.node().add_tensor_hook(e.nr, id, hook),
            None => self.meta_or_new().lock().watched().hooks.push((id, hook)),
        }
        Ok(id)
    }

    pub fn remove_hook(&self, id: u64) {
        if let Some(e) = self.grad_fn() {
            e.node().remove_tensor_hook(id);
        }
        if let Some(m) = self.meta() {
            m.remove_hook(id);
        }
    }

    pub fn register_post_accumulate_grad_hook(&self, hook: Arc<dyn PostAccumulateHook>) -> Result<u64> {
        ensure!(
            self.requires_grad(),
            Runtime,
            "cannot register a hook on a tensor that doesn't require gradient"
        );
        ensure!(
            self.is_leaf(),
            Runtime,
            "post accumulate grad hooks cannot be registered on non-leaf tensors"
        );
        let id = hook_id();
        self.meta_or_new().lock().watched().post_accumulate.push((id, hook));
        Ok(id)
    }

    /// Shows `f` every hook that dies with this handle, for the binding's garbage collection: those of
    /// the leaf, or of the history if nobody else holds it. Never waits for a lock.
    pub fn visit_owned_hooks(&self, f: &mut dyn FnMut(&dyn std::any::Any)) {
        let Some(meta) = self.meta() else { return };
        if self.handles() > 1 || Arc::strong_count(meta) > 1 {
            return;
        }
        let Ok(m) = meta.inner.try_lock() else { return };
        if let Some(w) = &m.watched {
            w.hooks.iter().for_each(|h| f(h.1.as_any()));
            w.post_accumulate.iter().for_each(|h| f(h.1.as_any()));
        }
        if let Some(n) = m.grad_fn.as_ref().and_then(Edge::made_by).filter(|n| Arc::strong_count(n) == 1) {
            n.visit_hooks(f);
            if let Some(rule) = n.rule().as_any() {
                f(rule);
            }
        }
    }

    /// Drops the hooks that [`Tensor::visit_owned_hooks`] shows.
    pub fn clear_owned_hooks(&self) {
        let Some(meta) = self.meta() else { return };
        let (hooks, edge) = {
            // A custom Function's ctx may hold this tensor: the history goes, which nobody can ask for any more.
            let mut m = meta.lock();
            let hooks = m
                .watched
                .as_mut()
                .map(|w| (std::mem::take(&mut w.hooks), std::mem::take(&mut w.post_accumulate)));
            let owned = m.grad_fn.as_ref().and_then(Edge::made_by).is_some_and(|n| Arc::strong_count(n) == 1);
            (hooks, if owned { m.grad_fn.take() } else { m.grad_fn.clone() })
        };
        // Dropped after the lock is gone: a hook's destructor may look at this tensor.
        drop(hooks);
        if let Some(n) = edge.as_ref().and_then(Edge::made_by) {
            n.clear_hooks();
        }
    }
}
