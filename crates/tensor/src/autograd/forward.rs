//! Forward mode: tangents that travel along with values. A level is one differentiation; a tensor
//! keeps, per level, the tangent it has there, and a tangent of an inner level may itself carry
//! tangents of outer ones, which is what nested derivatives are made of.
//!
//! Nothing is computed twice: an op first runs as always, then [`through`] (any op with a backward) or
//! the rows' own rule derives the output's tangent, level by level from the outermost. While a level
//! is worked out only the levels outside it are visible, so that derivatives are never confused.
//!
//! The general rule needs no formula of its own. A backward is linear in the incoming gradient, and the
//! derivative of a linear map is its transpose: differentiating the backward with respect to that
//! gradient gives the Jacobian-vector product.

use super::node::{Ctx, Grads, Node, Target};
use super::{GradMode, is_grad_enabled};
use crate::ops;
use crate::tensor::Tensor;
use pyrite_core::{Error, Layout, Result, bail, ensure};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pairs of a level's id and a tangent.
pub type Tangents = SmallVec<[(u64, Tensor); 1]>;
/// Shared between a tensor and what saved it for backward: tangents may be filled in later.
pub type Shared = Arc<Mutex<Tangents>>;

/// What [`super::Meta`] holds: the tangents and the storage version they belong to (a view of a base that
/// was written to since derives its tangents anew).
#[derive(Clone)]
pub struct Dual {
    cell: Shared,
    version: u32,
}

thread_local! {
    /// The open levels, outermost first.
    static LEVELS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// How many of them count now.
    static VISIBLE: Cell<usize> = const { Cell::new(0) };
    /// An error where the caller of `attach` can't be told: raised when the op is done.
    static ERROR: RefCell<Option<Error>> = const { RefCell::new(None) };
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Does any tangent count in this thread now?
#[inline]
pub fn active() -> bool {
    VISIBLE.with(|v| v.get()) > 0
}

/// Limits the visible levels to the outermost `n` while it lives.
pub struct Below(usize);

impl Below {
    pub fn new(n: usize) -> Below {
        Below(VISIBLE.with(|v| v.replace(n)))
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        VISIBLE.with(|v| v.set(self.0));
    }
}

fn visible() -> SmallVec<[u64; 4]> {
    let n = VISIBLE.with(|v| v.get());
    LEVELS.with(|l| l.borrow().iter().take(n).copied().collect())
}

fn position(id: u64) -> Option<usize> {
    LEVELS.with(|l| l.borrow().iter().position(|x| *x == id))
}

/// Makes the outermost `n` levels visible.
pub fn show(n: usize) {
    let open = LEVELS.with(|l| l.borrow().len());
    VISIBLE.with(|v| v.set(n.min(open)));
}

/// Opens a level inside the open ones; its id is never used again.
pub fn enter_level() -> u64 {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let n = LEVELS.with(|l| {
        let mut l = l.borrow_mut();
        l.push(id);
        l.len()
    });
    VISIBLE.with(|v| v.set(n));
    id
}

/// Closes the innermost level: its tangents count no more.
pub fn exit_level(id: u64) -> Result<()> {
    let n = LEVELS.with(|l| {
        let mut l = l.borrow_mut();
        ensure!(
            l.last() == Some(&id),
            Runtime,
            "Trying to exit a forward AD level that was not the last one that was created. This is not supported."
        );
        l.pop();
        Ok(l.len())
    })?;
    VISIBLE.with(|v| v.set(n));
    Ok(())
}

/// Remembers an error for [`check`].
pub fn fail(e: Error) {
    ERROR.with(|s| {
        s.borrow_mut().get_or_insert(e);
    });
}

/// The error of a tangent since the last call.
pub fn check() -> Result<()> {
    match ERROR.with(|s| s.borrow_mut().take()) {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

fn lock(cell: &Shared) -> MutexGuard<'_, Tangents> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own(t: &Tensor) -> Option<Dual> {
    t.meta().and_then(|m| m.lock().dual.clone())
}

fn set_own(t: &Tensor, list: Tangents) {
    let dual = Dual { cell: Arc::new(Mutex::new(list)), version: t.storage().version() };
    let old = t.meta_or_new().lock().dual.replace(dual);
    drop(old);
}

/// The tangents of a tensor, renewed from the base if it is a view of something written to since.
fn current(t: &Tensor) -> Option<Shared> {
    t.meta()?;
    let mine = own(t);
    let Some(base) = t.base() else { return mine.map(|d| d.cell) };
    if let Some(d) = &mine
        && d.version == t.storage().version()
    {
        return mine.map(|d| d.cell);
    }
    let comparable = !base.layout().may_self_overlap();
    let Some(whole) = own(&base).filter(|_| comparable) else { return mine.map(|d| d.cell) };
    let whole: Tangents = lock(&whole.cell).clone();
    let mut list = Tangents::new();
    for (id, tangent) in whole {
        let Some(k) = position(id) else { continue };
        let _below = Below::new(k);
        match ops::view::Lens::new(&base, t).of(&tangent) {
            Ok(part) => list.push((id, part)),
            Err(e) => fail(e),
        }
    }
    set_own(t, list);
    own(t).map(|d| d.cell)
}

/// The tangents that count now.
pub fn tangents(t: &Tensor) -> Tangents {
    if t.meta().is_none() || !active() {
        return Tangents::new();
    }
    let ids = visible();
    match current(t) {
        Some(cell) => lock(&cell).iter().filter(|e| ids.contains(&e.0)).cloned().collect(),
        None => Tangents::new(),
    }
}

/// Has this tensor a tangent that counts now?
#[inline]
pub fn has(t: &Tensor) -> bool {
    active() && t.meta().is_some() && !tangents(t).is_empty()
}

/// Takes all tangents from a tensor.
pub fn forget(t: &Tensor) {
    let old = t.meta().and_then(|m| m.lock().dual.take());
    drop(old);
}

fn push(t: &Tensor, id: u64, tangent: Tensor) {
    let cell = match own(t) {
        Some(d) => d.cell,
        None => {
            set_own(t, Tangents::new());
            match own(t) {
                Some(d) => d.cell,
                None => return,
            }
        }
    };
    let mut list = lock(&cell);
    let old = list.iter().position(|e| e.0 == id).map(|i| list.swap_remove(i));
    list.push((id, tangent));
    drop(list);
    drop(old);
}

// ---- what is saved for backward ------------------------------------------------------------------

/// The tangents a saved tensor must keep.
#[inline]
pub fn saved(t: &Tensor) -> Option<Shared> {
    if !active() {
        return None;
    }
    current(t)
}

/// As [`saved`], for a result whose tangents are not known yet.
#[inline]
pub fn saved_output(t: &Tensor) -> Option<Shared> {
    if !active() {
        return None;
    }
    if own(t).is_none() {
        set_own(t, Tangents::new());
    }
    own(t).map(|d| d.cell)
}

/// Gives saved tangents back to an unpacked tensor.
pub fn restore(t: Tensor, cell: &Option<Shared>) -> Tensor {
    if let Some(cell) = cell
        && active()
        && own(&t).is_none()
        && !lock(cell).is_empty()
    {
        let dual = Dual { cell: cell.clone(), version: t.storage().version() };
        t.meta_or_new().lock().dual = Some(dual);
    }
    t
}

/// Lets `to`, another tensor of the same values, have the tangents of `from`.
pub fn share(from: &Tensor, to: &Tensor) {
    if active()
        && let Some(cell) = current(from)
    {
        let list = lock(&cell).clone();
        set_own(to, list);
    }
}

/// The same data without history but with its tangents.
pub fn detach(t: &Tensor) -> Tensor {
    let y = t.detach();
    share(t, &y);
    y
}

// ---- through ops -----------------------------------------------------------------------------------

/// Tangents on their way through an op.
pub struct Flow {
    ids: SmallVec<[u64; 4]>,
    inputs: SmallVec<[Tangents; 3]>,
    written: bool,
}

impl Flow {
    pub fn levels(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.ids.iter().copied().enumerate()
    }
    /// The inputs' tangents at a level.
    pub fn at(&self, id: u64) -> SmallVec<[Option<Tensor>; 3]> {
        self.inputs.iter().map(|l| l.iter().find(|e| e.0 == id).map(|e| e.1.clone())).collect()
    }
}

/// Collects the tangents of an op's inputs: `None` if there are none. Call before inputs or outputs are
/// saved; an output that is an input (in place) starts anew.
#[inline]
pub fn begin(inputs: &[&Tensor], outputs: &[&Tensor]) -> Option<Flow> {
    if active() { collect(inputs, outputs) } else { None }
}

fn collect(inputs: &[&Tensor], outputs: &[&Tensor]) -> Option<Flow> {
    let list: SmallVec<[Tangents; 3]> = inputs.iter().map(|t| tangents(t)).collect();
    if list.iter().all(SmallVec::is_empty) {
        return None;
    }
    let ids = visible();
    let mut written = false;
    for o in outputs {
        if inputs.iter().any(|i| i.same(o)) {
            written = true;
            // Levels inside the visible ones are not ours to forget.
            let rest =
                own(o).map(|d| lock(&d.cell).iter().filter(|e| !ids.contains(&e.0)).cloned().collect());
            set_own(o, rest.unwrap_or_default());
        }
    }
    Some(Flow { ids, inputs: list, written })
}

/// Derives the outputs' tangents from a node's backward.
pub fn through(flow: &Flow, node: &Arc<Node>, outputs: &[&Tensor]) {
    let outer = is_grad_enabled();
    each(flow, outputs, |_, ts| transpose(node, ts, outer));
}

/// Works out every level with `f` and hands the results to the outputs.
pub fn each(
    flow: &Flow,
    outputs: &[&Tensor],
    f: impl Fn(usize, &[Option<Tensor>]) -> Result<SmallVec<[Option<Tensor>; 1]>>,
) {
    for (k, id) in flow.levels() {
        let ts = flow.at(id);
        if ts.iter().all(Option::is_none) {
            continue;
        }
        let _below = Below::new(k);
        match f(k, &ts) {
            Ok(list) => {
                for (o, t) in outputs.iter().zip(list) {
                    if let Some(t) = t {
                        push(o, id, t);
                    }
                }
            }
            Err(e) => return fail(e),
        }
    }
    if flow.written {
        for o in outputs {
            if let Err(e) = into_base(o, &flow.ids) {
                return fail(e);
            }
        }
    }
}

/// A write to a view changes the tangents of its base.
fn into_base(t: &Tensor, ids: &[u64]) -> Result<()> {
    let Some(base) = t.base() else { return Ok(()) };
    let whole: Tangents = own(&base).map(|d| lock(&d.cell).clone()).unwrap_or_default();
    let parts: Tangents = own(t).map(|d| lock(&d.cell).clone()).unwrap_or_default();
    let find = |l: &Tangents, id: u64| l.iter().find(|e| e.0 == id).map(|e| e.1.clone());
    let mut list: Tangents = whole.iter().filter(|e| !ids.contains(&e.0)).cloned().collect();
    for (k, id) in ids.iter().enumerate() {
        let (old, part) = (find(&whole, *id), find(&parts, *id));
        if old.is_none() && part.is_none() {
            continue;
        }
        let _below = Below::new(k);
        let old = match old {
            Some(t) => t,
            None => Tensor::zeros(base.shape(), base.dtype(), base.device())?,
        };
        list.push((*id, ops::view::Lens::new(&base, t).replace(&old, part.as_ref())?));
    }
    set_own(&base, list);
    Ok(())
}

/// Is the tape wanted under a tangent made from these?
pub fn is_recorded(outer: bool, known: bool, ts: &[Option<Tensor>]) -> bool {
    outer && (known || ts.iter().flatten().any(Tensor::requires_grad))
}

/// The Jacobian-vector product of a node: see the module text.
fn transpose(node: &Arc<Node>, ts: &[Option<Tensor>], outer: bool) -> Result<SmallVec<[Option<Tensor>; 1]>> {
    let known = node.edges().iter().any(Option::is_some);
    let recorded = is_recorded(outer, known, ts);
    let create = recorded || active();
    let none = || node.outputs.iter().map(|_| None).collect();
    let made = {
        let _on = GradMode::new(true);
        let mut seeds = Grads::new();
        for o in &node.outputs {
            seeds.push(match o.dtype.is_differentiable() {
                true => {
                    let u = Tensor::zeros(&o.shape, o.dtype, o.device)?;
                    u.set_requires_grad(true)?;
                    Some(u)
                }
                false => None,
            });
        }
        let us: Vec<Tensor> = seeds.iter().flatten().cloned().collect();
        if us.is_empty() {
            return Ok(none());
        }
        let needs =
            ts.iter().enumerate().fold(0u64, |m, (i, t)| m | ((t.is_some() && i < 64) as u64) << (i & 63));
        let mut cx = Ctx {
            node,
            grads: &mut seeds.clone(),
            needs,
            create_graph: true,
            keep_graph: true,
            batch: None,
            saved: SmallVec::new(),
        };
        let back = node.rule().backward(&mut cx)?;
        drop(cx);
        let (mut roots, mut along) = (Vec::new(), Vec::new());
        for (t, g) in ts.iter().zip(back) {
            let (Some(t), Some(g)) = (t, g) else { continue };
            let g = if g.shape() == t.shape() { g } else { ops::sum_to_size(&g, t.shape())? };
            let g = ops::to_dtype(&g, t.dtype())?;
            if g.requires_grad() {
                roots.push(g);
                along.push(Some(t.clone()));
            } else if node.rule().as_any().is_some() {
                bail!(
                    NotImplemented,
                    "forward mode: the backward of {} is not differentiable, so its tangent can't be derived from it. You must implement the jvp function for custom autograd.Function to use it with forward mode AD.",
                    node.name
                );
            }
        }
        if roots.is_empty() {
            return Ok(none());
        }
        let mut got = super::grad(&roots, &along, &us, true, create)?.into_iter();
        seeds.iter().map(|s| s.as_ref().and_then(|_| got.next().flatten())).collect::<SmallVec<[_; 1]>>()
    };
    // Without a history outside there is only that of the seeds.
    Ok(if recorded { made } else { made.into_iter().map(|t| t.map(|t| detach(&t))).collect() })
}

/// The tangents of a view: views of the tangents where nothing is recorded, else what `as_strided` shows.
pub fn view(of: &Tensor, v: &Tensor) {
    let flow = tangents(of);
    for (id, tangent) in flow {
        let Some(k) = position(id) else { continue };
        let _below = Below::new(k);
        match look(&tangent, of, v) {
            Ok(t) => push(v, id, t),
            Err(e) => fail(e),
        }
    }
}

fn look(tangent: &Tensor, of: &Tensor, v: &Tensor) -> Result<Tensor> {
    if of.dtype().is_complex() != v.dtype().is_complex() || of.lazy() != v.lazy() {
        // Parts, pairs and conjugates: more than another layout.
        return ops::view::Lens::new(of, v).of(tangent);
    }
    let base = of.layout();
    let inside = match (base.extent(), v.layout().extent()) {
        (Some(b), Some(e)) => b.0 <= e.0 && e.1 <= b.1,
        _ => false,
    };
    let recorded = is_grad_enabled() && tangent.requires_grad();
    let plain = !(recorded || tangent.is_lazy() || has(tangent));
    if plain && inside && tangent.strides() == base.strides() && tangent.shape() == base.shape() {
        let at = v.layout().offset() as isize - base.offset() as isize + tangent.layout().offset() as isize;
        if let Ok(at) = usize::try_from(at) {
            return Ok(ops::view::with_layout(tangent, Layout::new(v.shape(), v.strides(), at)));
        }
    }
    ops::view::as_strided_of(tangent, base, v.layout())
}

// ---- from outside ----------------------------------------------------------------------------------

/// A tensor over `primal`'s data with `tangent` at a level.
pub fn make_dual(primal: &Tensor, tangent: &Tensor, id: u64) -> Result<Tensor> {
    ensure!(position(id).is_some(), Runtime, "make_dual: level {id} is not open");
    let y = fresh(primal);
    let mut list: Tangents = tangents(primal);
    list.retain(|e| e.0 != id);
    list.push((id, tangent.clone()));
    set_own(&y, list);
    Ok(y)
}

/// The value without its tangent at a level (and inside it), and that tangent.
pub fn unpack_dual(t: &Tensor, id: u64) -> Result<(Tensor, Option<Tensor>)> {
    let Some(k) = position(id) else { return Ok((fresh(t), None)) };
    let list = tangents(t);
    let tangent = list.iter().find(|e| e.0 == id).map(|e| e.1.clone());
    let outer: Tangents = list.into_iter().filter(|e| position(e.0).is_some_and(|p| p < k)).collect();
    let y = {
        let _below = Below::new(k);
        fresh(t)
    };
    if !outer.is_empty() {
        set_own(&y, outer);
    }
    Ok((y, tangent))
}

/// Another tensor object over the same data and history, which is no view.
fn fresh(t: &Tensor) -> Tensor {
    let y = t.alias();
    if is_grad_enabled() && t.requires_grad() {
        let _none = Below::new(0);
        super::attach("AliasBackward0", &[t], &[&y], &[], |cx| Ok(smallvec::smallvec![Some(cx.grad(0)?)]));
    }
    y
}

/// As `fresh`, with all tangents: how transforms tell their argument from the caller's tensor. Without
/// `history` it is a leaf that requires grad.
pub fn argument(t: &Tensor, history: bool) -> Result<Tensor> {
    let y = if history && is_grad_enabled() && t.requires_grad() {
        fresh(t)
    } else {
        let y = t.alias();
        y.set_requires_grad(true)?;
        y
    };
    share(t, &y);
    Ok(y)
}

/// Does the history of any of `outputs` reach something else than the leaves or results `ours`?
pub fn reaches_beyond(outputs: &[Tensor], ours: &[Tensor]) -> bool {
    use std::collections::HashSet;
    let stop: HashSet<usize> =
        ours.iter().filter(|t| t.grad_fn().is_none()).filter_map(|t| t.edge().map(|e| e.to.key())).collect();
    let mut seen: HashSet<usize> = HashSet::new();
    let mut todo: Vec<Target> = outputs.iter().filter_map(|t| t.edge().map(|e| e.to)).collect();
    while let Some(to) = todo.pop() {
        let at = to.key();
        if stop.contains(&at) || !seen.insert(at) {
            continue;
        }
        match to {
            Target::Leaf(_) => return true,
            Target::Node(n) => todo.extend(n.edges().iter().flatten().map(|e| e.to.clone())),
        }
    }
    false
}

/// The ids of the open levels, outermost first.
pub fn levels() -> Vec<u64> {
    visible().to_vec()
}
