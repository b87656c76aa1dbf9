//! Callbacks of nodes: on the gradients of their outputs, before and after they run.

use super::node::{Grads, Node};
use super::{Hook, Meta};
use crate::tensor::Tensor;
use pyrite_core::Result;
use std::any::Any;
use std::sync::{Arc, PoisonError, Weak};

/// Callbacks of a node, in registration order.
#[derive(Default)]
pub(super) struct Hooks {
    tensor: Vec<(u64, u32, Arc<dyn Hook>)>,
    retained: Vec<(u32, Weak<Meta>)>,
    pre: Vec<(u64, Arc<dyn NodeHook>)>,
    post: Vec<(u64, Arc<dyn NodeHook>)>,
    /// What the binding keeps here (`metadata`, the traceback of anomaly mode).
    extra: Option<Arc<dyn Any + Send + Sync>>,
    /// Accumulators somebody asked for by way of this node.
    pub leaves: Vec<Arc<Node>>,
}

/// A callback on a node: before (`grads` are of the outputs) or after (`inputs` given as well).
pub trait NodeHook: Send + Sync {
    fn call(&self, inputs: Option<&Grads>, outputs: &Grads) -> Result<Option<Grads>>;
    fn as_any(&self) -> &dyn std::any::Any;
}

impl Node {
    pub fn extra(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        if !self.is_hooked() {
            return None;
        }
        self.hooks().extra.clone()
    }
    pub fn set_extra(&self, x: Arc<dyn Any + Send + Sync>) {
        let old = self.hooks().extra.replace(x);
        drop(old);
    }
    pub(super) fn hooks(&self) -> std::sync::MutexGuard<'_, Hooks> {
        self.hooks.get_or_init(Box::default).lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn is_hooked(&self) -> bool {
        self.hooks.get().is_some()
    }
    pub(super) fn add_tensor_hook(&self, nr: u32, id: u64, hook: Arc<dyn Hook>) {
        self.hooks().tensor.push((id, nr, hook));
    }
    pub(super) fn remove_tensor_hook(&self, id: u64) {
        self.hooks().tensor.retain(|h| h.0 != id);
    }
    pub(super) fn retain(&self, nr: u32, t: &Tensor) {
        let weak = Arc::downgrade(t.meta_or_new());
        let mut h = self.hooks();
        if !h.retained.iter().any(|r| r.0 == nr && r.1.ptr_eq(&weak)) {
            h.retained.push((nr, weak));
        }
    }
    pub fn register_prehook(&self, hook: Arc<dyn NodeHook>) -> u64 {
        let id = super::hook_id();
        self.hooks().pre.push((id, hook));
        id
    }
    pub fn register_hook(&self, hook: Arc<dyn NodeHook>) -> u64 {
        let id = super::hook_id();
        self.hooks().post.push((id, hook));
        id
    }
    pub fn remove_node_hook(&self, id: u64) {
        let mut h = self.hooks();
        h.tensor.retain(|x| x.0 != id);
        h.pre.retain(|x| x.0 != id);
        h.post.retain(|x| x.0 != id);
    }
    /// Shows every hook; never waits for the lock.
    pub fn visit_hooks(&self, f: &mut dyn FnMut(&dyn std::any::Any)) {
        if !self.is_hooked() {
            return;
        }
        if let Some(Ok(h)) = self.hooks.get().map(|h| h.try_lock()) {
            h.tensor.iter().for_each(|x| f(x.2.as_any()));
            h.pre.iter().chain(&h.post).for_each(|x| f(x.1.as_any()));
        }
    }
    pub fn clear_hooks(&self) {
        if self.is_hooked() {
            let old = std::mem::take(&mut *self.hooks());
            drop(old);
        }
    }
    /// Tensor hooks and retained gradients.
    pub(super) fn run_tensor_hooks(&self, grads: &mut Grads) -> Result<()> {
        let (tensor, retained) = {
            let h = self.hooks();
            (h.tensor.clone(), h.retained.clone())
        };
        for (_, nr, hook) in tensor {
            if let Some(g) = &grads[nr as usize]
                && let Some(new) = hook.call(g)?
            {
                grads[nr as usize] = Some(new);
            }
        }
        for (nr, meta) in retained {
            if let (Some(meta), Some(g)) = (meta.upgrade(), &grads[nr as usize]) {
                let have = meta.lock().grad.clone();
                let new = match have {
                    Some(have) => crate::ops::add(&have, g)?,
                    None => g.clone(),
                };
                let old = meta.lock().grad.replace(new);
                drop(old);
            }
        }
        Ok(())
    }
    /// Node prehooks.
    pub(super) fn run_pre(&self, grads: &mut Grads) -> Result<()> {
        let pre = self.hooks().pre.clone();
        for (_, hook) in pre {
            if let Some(new) = hook.call(None, grads)? {
                *grads = new;
            }
        }
        Ok(())
    }
    pub(super) fn run_post(&self, inputs: Grads, outputs: &Grads) -> Result<Grads> {
        let post = self.hooks().post.clone();
        let mut inputs = inputs;
        for (_, hook) in post {
            if let Some(new) = hook.call(Some(&inputs), outputs)? {
                inputs = new;
            }
        }
        Ok(inputs)
    }
    /// `retain_grad` follows the tensor to the history that took the place of this one.
    pub(super) fn move_retained_to(&self, nr: u32, other: &Node, other_nr: u32) {
        if !self.is_hooked() {
            return;
        }
        let moved: Vec<_> = {
            let mut h = self.hooks();
            let (take, keep) = h.retained.drain(..).partition(|r| r.0 == nr);
            h.retained = keep;
            take
        };
        other.hooks().retained.extend(moved.into_iter().map(|(_, m)| (other_nr, m)));
    }
}
