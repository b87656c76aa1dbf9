//! The rules of in-place writes and views; the only file that knows them.
//!
//! * A leaf that requires grad can't be written to while recording.
//! * An in-place op on a plain tensor replaces its history by the op's node.
//! * An in-place op on a view rebases the *base*: its new history is a `CopySlices` node that lets
//!   the gradient outside the view pass and sends the part inside through the op.
//! * Other views of that base notice by the storage version that their history is stale and rebuild
//!   it (`AsStrided` of the base) when it is next asked for.

use super::node::{self, Ctx, Edge, Grads, Node, Rule};
use super::{Made, Meta, View, mode};
use crate::ops;
use crate::ops::view::Lens;
use crate::tensor::Tensor;
use pyrite_core::watch::Kept;
use pyrite_core::{DType, Layout, Result, Site, bail, ensure, err};
use smallvec::{SmallVec, smallvec};
use std::sync::{Arc, Mutex, PoisonError};

/// Does the base of this view (if it is one) have a history the view must share?
pub(super) fn view_requires_grad(meta: &Meta) -> bool {
    let base = match &meta.lock().view {
        Some(v) if v.base.storage().version() != v.seen_version => v.base.clone(),
        _ => return false,
    };
    base.requires_grad()
}

/// Remembers that `view` looks into `of` (or into what `of` is a view of).
pub fn set_view(view: &Tensor, of: &Tensor) {
    // The base needs an identity so that a later write through the view can give it a history.
    let parent = of.meta_or_new().lock().view.as_ref().map(|v| (v.base.clone(), v.made));
    let (base, made) = parent.unwrap_or_else(|| (of.clone(), Made::Plain));
    // A view of a view that may not be written to may not be written to either.
    let made = match made {
        Made::Plain if mode::is_inference() => Made::Inference,
        Made::Plain if !mode::is_grad_enabled() => Made::NoGrad,
        m => m,
    };
    let seen_version = view.storage().version();
    let meta = view.meta_or_new();
    meta.set_storied();
    meta.lock().view = Some(View { base, seen_version, made });
}

/// Marks the results of an op that returns several views: they refuse recorded writes, because one
/// node per view can't be rebased together.
pub fn mark_several(views: &[Tensor]) {
    for (i, v) in views.iter().enumerate() {
        let Some(m) = v.meta() else { continue };
        if let Some(view) = &mut m.lock().view {
            view.made = match view.made {
                Made::NoGrad | Made::Inference | Made::SeveralNoGrad => Made::SeveralNoGrad,
                _ => Made::Several(i as u32),
            };
        }
    }
}

/// Marks a result of a custom Function that looks into one of its inputs.
pub fn mark_custom(view: &Tensor) {
    if let Some(m) = view.meta()
        && let Some(v) = &mut m.lock().view
    {
        v.made = Made::Custom;
    }
}

/// For an in-place view: `new` takes the place of `old`, whose making counts, wherever this happens.
pub fn keep_made(old: &Tensor, new: &Tensor) {
    let made = old.meta().and_then(|m| m.lock().view.as_ref().map(|v| v.made)).unwrap_or(Made::Plain);
    if let Some(m) = new.meta()
        && let Some(v) = &mut m.lock().view
    {
        v.made = made;
    }
}

const CUSTOM: &str = "This view was created inside a custom Function (or because an input was returned as-is) and the autograd logic to handle view+inplace would override the custom backward associated with the custom Function, leading to incorrect gradients. This behavior is forbidden. You can fix this by cloning the output of the custom Function.";

/// `Output 0 of Exp`.
fn origin(e: &Edge) -> String {
    let name = e.node().name.to_string();
    let stem = name.strip_suffix("Backward0").or_else(|| name.strip_suffix("Backward")).unwrap_or(&name);
    format!("Output {} of {stem}", e.nr)
}

/// Refuses a write that is going to be recorded (`t` or another operand requires grad) to a view
/// whose making forbids it. [`check`] does this if `t` itself requires grad; ops with other
/// differentiable operands call it as well, before they write.
pub fn check_recorded(op: &str, t: &Tensor) -> Result<()> {
    if !mode::is_grad_enabled() {
        // Only tangents flow: they follow any write.
        return Ok(());
    }
    let Some(made) = t.meta().and_then(|m| m.lock().view.as_ref().map(|v| v.made)) else { return Ok(()) };
    let several = "This view is the output of a function that returns multiple views. Such functions do not allow the output views to be modified inplace. You should replace the inplace operation by an out-of-place one.";
    let no_grad = "A view was created in no_grad mode and is being modified inplace with grad mode enabled.";
    match made {
        Made::Plain => Ok(()),
        Made::NoGrad => bail!(
            Runtime,
            "{no_grad} Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both the view and the inplace either both inside the no_grad block (if you don't want the inplace to be tracked) or both outside (if you want the inplace to be tracked). ({op})"
        ),
        Made::Inference => bail!(
            Runtime,
            "A view was created in inference mode and is being modified inplace in normal mode. Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both the view and the inplace either both inside the inference_mode block (if you don't want the inplace to be tracked) or both outside (if you want the inplace to be tracked). ({op})"
        ),
        Made::Custom => bail!(
            Runtime,
            "{} is a view and is being modified inplace. {CUSTOM} ({op})",
            t.grad_fn().map_or_else(|| "This tensor".to_owned(), |e| origin(&e))
        ),
        Made::SeveralNoGrad => bail!(Runtime, "{no_grad} {several} ({op})"),
        Made::Several(i) => match t.grad_fn() {
            Some(e) => bail!(
                Runtime,
                "Output {i} of {} is a view and is being modified inplace. {several} ({op})",
                e.node().name.trim_end_matches("Backward0")
            ),
            None => bail!(Runtime, "A view is being modified inplace. {several} ({op})"),
        },
    }
}

/// See [`Tensor::grad_fn`].
pub(super) fn grad_fn(t: &Tensor) -> Option<Edge> {
    let meta = t.meta()?;
    let (base, now) = {
        let m = meta.lock();
        let now = t.storage().version();
        match &m.view {
            Some(v) if v.seen_version != now => (v.base.clone(), now),
            _ => return m.grad_fn.clone(),
        }
    };
    let Some(base_edge) = (base.requires_grad()).then(|| base.edge()).flatten() else {
        return meta.lock().grad_fn.clone();
    };
    // A base that is a leaf was written to without recording: the view's history still holds.
    if base.grad_fn().is_none() && meta.lock().grad_fn.is_some() {
        if let Some(v) = &mut meta.lock().view {
            v.seen_version = now;
        }
        return meta.lock().grad_fn.clone();
    }
    let custom = {
        let m = meta.lock();
        if m.view.as_ref().is_some_and(|v| v.made == Made::Custom) { m.grad_fn.clone() } else { None }
    };
    if let Some(e) = custom {
        mode::set_record_error(err!(
            Runtime,
            "{} is a view and its base or another view of its base has been modified inplace. {CUSTOM}",
            origin(&e)
        ));
        return Some(e);
    }
    let node = node::make(
        "AsStridedBackward0",
        smallvec![Some(base_edge)],
        smallvec![node::info(t)],
        AsStrided(Lens::new(&base, t)),
    );
    let edge = Edge::new(node, 0);
    keep_retaining(meta, &edge);
    meta.set_storied();
    let mut m = meta.lock();
    let old = m.grad_fn.replace(edge.clone());
    if let Some(v) = &mut m.view {
        v.seen_version = now;
    }
    drop(m);
    meta.set_requires(true);
    drop(old);
    Some(edge)
}

/// Before a tensor gets the history `new`: `retain_grad` stays in force.
fn keep_retaining(meta: &Meta, new: &Edge) {
    let old = {
        let m = meta.lock();
        if m.retains_grad { m.grad_fn.clone() } else { None }
    };
    if let (Some(old), Some(node)) = (old, new.made_by()) {
        old.node().move_retained_to(old.nr, node, new.nr);
    }
}

/// Is an in-place write to `t` allowed now? Call before writing.
pub fn check(op: &str, t: &Tensor) -> Result<()> {
    if t.layout().may_self_overlap() {
        bail!(
            Runtime,
            "{op}: unsupported operation: more than one element of the written-to tensor refers to a single memory location. Please clone() the tensor before performing the operation."
        );
    }
    check_write(op, t)
}

/// As [`check`], for writes that handle overlap themselves (`fill_`).
pub fn check_write(op: &str, t: &Tensor) -> Result<()> {
    ensure!(
        !t.storage().is_read_only(),
        Runtime,
        "{op}: the memory of this tensor is read-only (it came from a read-only buffer); clone() it first"
    );
    if t.storage().is_inference() {
        ensure!(
            mode::is_inference(),
            Runtime,
            "Inplace update to inference tensor outside InferenceMode is not allowed. You can make a clone to get a normal tensor before doing inplace update. ({op})"
        );
        return Ok(());
    }
    if t.meta().is_some() && mode::is_grad_enabled() {
        if let Some(b) = t.base() {
            let recorded = b.requires_grad();
            if recorded || t.requires_grad() {
                check_recorded(op, t)?;
            }
            ensure!(
                !(recorded && b.is_leaf()),
                Runtime,
                "a view of a leaf Variable that requires grad is being used in an in-place operation. ({op})"
            );
        }
        ensure!(
            !(t.requires_grad() && t.is_leaf()),
            Runtime,
            "a leaf Variable that requires grad is being used in an in-place operation. ({op})"
        );
    }
    before_write(op, t)
}

/// Hands the bytes that are about to be overwritten to the graphs that kept them: every write to a
/// tensor that users can see passes here. Costs two loads if nobody keeps any.
#[inline]
pub fn before_write(op: &str, t: &Tensor) -> Result<()> {
    if t.storage().is_kept() { hand_over(op, t) } else { Ok(()) }
}

#[cold]
fn hand_over(op: &str, t: &Tensor) -> Result<()> {
    let storage = t.storage();
    let (whole, parts) = storage.keepers(t.layout(), t.dtype());
    let strict = mode::is_strict_inplace();
    let lost = || Kept::Lost(Arc::new((op.to_owned(), Site::here())));
    if whole {
        storage.leave_behind(if strict {
            lost()
        } else {
            let bytes = Layout::contiguous(&[storage.bytes()]);
            let all = Tensor::from_parts(storage.clone(), bytes, DType::U8);
            let copy = Tensor::empty(all.shape(), DType::U8, t.device())?;
            ops::copy_raw(&copy, &all)?;
            Kept::Copy(copy.storage().clone())
        });
    }
    for p in parts {
        p.put(if strict {
            lost()
        } else {
            let part = Tensor::from_parts(storage.clone(), p.layout.clone(), p.dtype);
            let copy = Tensor::empty(part.shape(), p.dtype, t.device())?;
            ops::copy_raw(&copy, &part)?;
            Kept::Copy(copy.storage().clone())
        });
    }
    Ok(())
}

/// Gives `t` (just written to, version bumped) the history `node`, whose first edge is the old
/// value of `t`. Handles views.
pub fn rebase(t: &Tensor, node: Arc<Node>) {
    rebase_at(t, node, 0);
}

/// As [`rebase`], where `t` is output number `nr` of the node. A view must be its only output.
pub fn rebase_at(t: &Tensor, node: Arc<Node>, nr: u32) {
    if !node::is_recorded(&node) {
        return;
    }
    let Some(base) = t.base() else {
        if let Some(old) = t.meta().and_then(|m| m.lock().grad_fn.clone()) {
            old.node().move_retained_to(old.nr, &node, nr);
        }
        node::set_history_at(&node, t, nr);
        return;
    };
    let mut edges: SmallVec<[Option<Edge>; 2]> = node.edges().iter().cloned().collect();
    let old_base = base.edge();
    if edges.is_empty() {
        edges.push(None);
    }
    // Edge 0 of the op led to the view's old value; now it leads to the base's old value.
    edges[0] = old_base;
    let copy = node::make(
        "CopySlices",
        edges,
        smallvec![node::info(&base)],
        CopySlices { lens: Lens::new(&base, t), inner: Mutex::new(Some(node)) },
    );
    if let Some(m) = base.meta() {
        keep_retaining(m, &Edge::new(copy.clone(), 0));
    }
    node::set_history(&copy, &[&base]);
    let now = t.storage().version();
    let view_node = node::make(
        "AsStridedBackward0",
        smallvec![Some(Edge::new(copy, 0))],
        smallvec![node::info(t)],
        AsStrided(Lens::new(&base, t)),
    );
    if let Some(m) = t.meta() {
        keep_retaining(m, &Edge::new(view_node.clone(), 0));
    }
    node::set_history(&view_node, &[t]);
    if let Some(m) = t.meta()
        && let Some(v) = &mut m.lock().view
    {
        v.seen_version = now;
    }
}

/// The gradient of `base.as_strided(view)`.
struct AsStrided(Lens);

impl Rule for AsStrided {
    fn backward(&self, cx: &mut Ctx) -> Result<Grads> {
        let g = cx.grad(0)?;
        Ok(smallvec![Some(self.0.back(&g)?)])
    }
}

/// See the module text.
struct CopySlices {
    lens: Lens,
    inner: Mutex<Option<Arc<Node>>>,
}

impl Rule for CopySlices {
    fn backward(&self, cx: &mut Ctx) -> Result<Grads> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(inner) = inner else { return node::second_backward(cx.node) };
        let g = cx.grad(0)?;
        let part = self.lens.of(&g)?;
        let mut grads: SmallVec<[Option<Tensor>; 3]> = smallvec![Some(part)];
        let mut sub = Ctx {
            node: &inner,
            grads: &mut grads,
            needs: cx.needs | 1,
            create_graph: cx.create_graph,
            keep_graph: cx.keep_graph,
            batch: None,
            saved: SmallVec::new(),
        };
        let mut out = inner.rule().backward(&mut sub)?;
        if out.is_empty() {
            out.push(None);
        }
        if cx.needs(0) {
            out[0] = Some(self.lens.replace(&g, out[0].as_ref())?);
        } else {
            out[0] = None;
        }
        Ok(out)
    }
    fn release(&self) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A graph of gradients may hold the inner node as a node of its own (it is the history of a result
        // that it saved): then it forgets when it runs there.
        if let Some(n) = inner
            && Arc::strong_count(&n) == 1
        {
            n.rule().release();
        }
    }
}
