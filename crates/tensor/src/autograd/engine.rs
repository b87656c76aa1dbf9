//! Runs the graph backwards: dependency counts, youngest ready node first, no recursion. It runs in
//! the calling thread; gradients meet in a list that this call owns. A backward inside a backward
//! inside ... moves to a thread with a fresh stack now and then (`reentry.rs`).

use super::forward;
use super::mode::GradMode;
use super::node::{Ctx, Edge, Grads, Node, Target};
use super::{Watched, anomaly, inplace, reentry};
use crate::tensor::Tensor;
use crate::{check_interrupt, ops};
use pyrite_core::{Result, bail, ensure};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Hashes addresses: they are already well spread.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_usize(&mut self, n: usize) {
        self.0 = (n as u64 >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

type Map<V> = HashMap<usize, V, BuildHasherDefault<AddressHasher>>;

const NOWHERE: u32 = u32::MAX;

/// What the engine knows about one node or leaf.
struct Step {
    /// Taken when it runs: memory of finished parts is free early.
    target: Option<Target>,
    grads: Grads,
    /// Edges into this target that have not delivered yet.
    waiting: u32,
    /// Its edges are `links[first..][..count]`.
    first: u32,
    count: u32,
    /// The gradient that arrives here was asked for.
    captured: bool,
    /// Leads to such a target (only used when inputs are given).
    leads: bool,
}

/// The graph as this run sees it. Kept for the next run of the thread if it stayed small: a tiny
/// backward would spend a good part of its time allocating it.
#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
    /// (index of the step or `NOWHERE`, output number) per edge.
    links: Vec<(u32, u32)>,
    index: Map<u32>,
    /// (age, step): the youngest node first.
    ready: BinaryHeap<(u64, u32)>,
}

thread_local! {
    static SPARE: Cell<Option<Box<Plan>>> = const { Cell::new(None) };
}

/// The run this thread is in: its number, and what takes part in it if somebody wants to know.
struct Run {
    id: u64,
    reached: Option<HashSet<usize>>,
}

thread_local! {
    static RUNS: RefCell<Vec<Run>> = const { RefCell::new(Vec::new()) };
}

static NEXT_RUN: AtomicU64 = AtomicU64::new(1);
static CURIOUS: AtomicUsize = AtomicUsize::new(0);

/// The number of the backward that runs in this thread (the innermost); 0: none.
pub fn current_run() -> u64 {
    RUNS.with_borrow(|r| r.last().map_or(0, |r| r.id))
}

/// While somebody is curious, runs note what takes part in them. `true` begins, `false` ends it.
pub fn be_curious(on: bool) {
    if on {
        CURIOUS.fetch_add(1, Ordering::Relaxed);
    } else {
        CURIOUS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does a gradient arrive at this edge in the current run?
pub fn takes_part(e: &Edge) -> bool {
    let key = e.to.key();
    RUNS.with_borrow(|r| r.last().and_then(|r| r.reached.as_ref()).is_some_and(|s| s.contains(&key)))
}

struct InRun;

impl InRun {
    fn new(plan: &Plan, all: bool) -> InRun {
        let curious = CURIOUS.load(Ordering::Relaxed) > 0;
        let reached = curious.then(|| {
            let takes = |s: &&Step| all || s.captured || s.leads;
            plan.steps.iter().filter(takes).filter_map(|s| s.target.as_ref().map(Target::key)).collect()
        });
        let id = NEXT_RUN.fetch_add(1, Ordering::Relaxed);
        RUNS.with_borrow_mut(|r| r.push(Run { id, reached }));
        InRun
    }
}

impl Drop for InRun {
    fn drop(&mut self) {
        let gone = RUNS.with_borrow_mut(Vec::pop);
        drop(gone);
    }
}

struct Borrowed(Option<Box<Plan>>);

impl Borrowed {
    fn take() -> Borrowed {
        Borrowed(Some(SPARE.take().unwrap_or_default()))
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(mut p) = self.0.take() {
            let small = p.steps.len() <= 4096;
            // Nodes of a run that was stopped die here, iteratively.
            for s in p.steps.drain(..) {
                if let Some(Target::Node(n)) = s.target {
                    super::node::drop_later(n);
                }
            }
            p.links.clear();
            p.index.clear();
            p.ready.clear();
            if small {
                let _ = SPARE.try_with(|c| c.set(Some(p)));
            }
        }
    }
}

impl Plan {
    /// The step of a target, made if it is new.
    fn step(&mut self, t: &Target) -> u32 {
        match self.index.entry(t.key()) {
            Entry::Occupied(e) => *e.get(),
            Entry::Vacant(e) => {
                let i = self.steps.len() as u32;
                e.insert(i);
                self.steps.push(Step {
                    target: Some(t.clone()),
                    grads: Grads::new(),
                    waiting: 0,
                    first: 0,
                    count: 0,
                    captured: false,
                    leads: false,
                });
                i
            }
        }
    }

    /// Finds everything that can be reached from the steps made so far, and counts the ways.
    fn explore(&mut self) {
        let mut at = 0;
        while at < self.steps.len() {
            let first = self.links.len() as u32;
            if let Some(Target::Node(n)) = self.steps[at].target.clone() {
                for e in n.edges() {
                    let link = match e {
                        None => (NOWHERE, 0),
                        Some(e) => {
                            let i = self.step(&e.to);
                            self.steps[i as usize].waiting += 1;
                            (i, e.nr)
                        }
                    };
                    self.links.push(link);
                }
            }
            self.steps[at].first = first;
            self.steps[at].count = self.links.len() as u32 - first;
            at += 1;
        }
    }

    /// Marks what leads to a captured step. Edges lead from younger to older nodes, so one pass by
    /// age is enough.
    fn mark(&mut self) {
        let mut order: Vec<(u64, u32)> = Vec::with_capacity(self.steps.len());
        for (i, s) in self.steps.iter().enumerate() {
            if let Some(Target::Node(n)) = &s.target {
                order.push((n.seq, i as u32));
            }
        }
        order.sort_unstable();
        for (_, i) in order {
            let s = &self.steps[i as usize];
            let links = &self.links[s.first as usize..][..s.count as usize];
            let leads = links.iter().any(|l| {
                l.0 != NOWHERE && {
                    let t = &self.steps[l.0 as usize];
                    t.captured || t.leads
                }
            });
            self.steps[i as usize].leads = leads;
        }
    }

    fn push_ready(&mut self, i: u32) {
        if let Some(Target::Node(n)) = &self.steps[i as usize].target {
            self.ready.push((n.seq, i));
        }
    }
}

struct Options<'a> {
    keep_graph: bool,
    create_graph: bool,
    /// Where to stop and what to return; `None` runs to every leaf.
    inputs: Option<&'a [Edge]>,
    /// With `inputs`: add into the leaves' `.grad` instead of returning.
    accumulate: bool,
}

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
            ensure!(!list.is_empty(), Runtime, "'inputs' argument to backward() cannot be empty.");
            for t in list {
                // As PyTorch: an input with a history keeps its gradient as after `retain_grad()`.
                if t.requires_grad() {
                    t.retain_grad()?;
                }
            }
            Some(input_edges(list)?)
        }
    };
    let how = How { grads, keep_graph, create_graph, op: "backward" };
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
    ensure!(!inputs.is_empty(), Value, "grad requires non-empty inputs.");
    let how = How { grads, keep_graph, create_graph, op: "grad" };
    from_edges(&output_edges(outputs)?, &how, Some(&input_edges(inputs)?), false)
}

/// How to run; see [`from_edges`].
pub struct How<'a> {
    /// One per root, or none at all.
    pub grads: &'a [Option<Tensor>],
    pub keep_graph: bool,
    pub create_graph: bool,
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
    let opts = Options { keep_graph: how.keep_graph, create_graph: how.create_graph, inputs, accumulate };
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
                    g.shape() == shape,
                    Runtime,
                    "Mismatch in shape: grad_output[{i}] has a shape of {:?} and output[{i}] has a shape of {:?}.",
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

/// Asks whether the user wants to stop: every few nodes, and after long ones.
struct Patience(usize);

impl Patience {
    const BUDGET: usize = 1 << 20;

    fn check(&mut self, node: &Node) -> Result<()> {
        // A node costs about as much as ten thousand elements of an elementwise one.
        let elements = node.outputs.first().map_or(0, |o| o.shape.iter().product::<usize>());
        self.0 = self.0.saturating_add(elements.saturating_add(1 << 14));
        if self.0 > Patience::BUDGET {
            self.0 = 0;
            check_interrupt()?;
            reentry::check_cancelled()?;
        }
        Ok(())
    }
}

fn run(roots: SmallVec<[(Edge, Tensor); 1]>, opts: &Options) -> Result<Vec<Option<Tensor>>> {
    // Tangents pass through ops, not through the fused kernels of a plain backward.
    let through = opts.create_graph || forward::active();
    let mut borrowed = Borrowed::take();
    let Some(plan) = borrowed.0.as_deref_mut() else { return Ok(Vec::new()) };
    let mut starts: SmallVec<[u32; 4]> = SmallVec::new();
    for (e, _) in &roots {
        starts.push(plan.step(&e.to));
    }
    plan.explore();
    ensure!(plan.steps.len() < NOWHERE as usize, Runtime, "backward: the graph has more than 2^32 nodes");
    // (step, output, place in the result)
    let mut wanted: Vec<(u32, u32, usize)> = Vec::new();
    let mut captured: Vec<Option<Tensor>> = Vec::new();
    if let Some(inputs) = opts.inputs {
        captured.resize(inputs.len(), None);
        for (i, e) in inputs.iter().enumerate() {
            if let Some(&s) = plan.index.get(&e.to.key()) {
                plan.steps[s as usize].captured = true;
                wanted.push((s, e.nr, i));
            }
        }
        plan.mark();
    }
    let _run = InRun::new(plan, opts.inputs.is_none());
    let _mode = GradMode::new(opts.create_graph);
    let mut leaves: SmallVec<[u32; 4]> = SmallVec::new();
    for (n, (e, g)) in roots.into_iter().enumerate() {
        deliver(&mut plan.steps[starts[n] as usize].grads, e.nr, g, through)?;
    }
    for (n, &i) in starts.iter().enumerate() {
        let s = &plan.steps[i as usize];
        if s.waiting == 0 && !starts[..n].contains(&i) {
            if let Some(Target::Leaf(_)) = s.target { leaves.push(i) } else { plan.push_ready(i) }
        }
    }
    let mut patience = Patience(0);
    loop {
        for i in leaves.drain(..) {
            run_leaf(plan, i, opts, &wanted, &mut captured)?;
        }
        let Some((_, i)) = plan.ready.pop() else { break };
        let step = &mut plan.steps[i as usize];
        let Some(Target::Node(node)) = step.target.take() else { continue };
        let mut grads = std::mem::take(&mut step.grads);
        let (first, count) = (step.first as usize, step.count as usize);
        let (is_captured, stop) = (step.captured, opts.inputs.is_some() && !step.leads);
        patience.check(&node)?;
        grads.resize(node.outputs.len(), None);
        let alive = grads.iter().any(Option::is_some);
        if alive && node.is_hooked() {
            node.run_tensor_hooks(&mut grads).map_err(|e| anomaly::explain(&node, e))?;
        }
        if is_captured {
            for &(_, nr, place) in wanted.iter().filter(|w| w.0 == i) {
                captured[place] = grads[nr as usize].clone();
            }
        }
        let back = if alive && !stop {
            let mut needs = 0u64;
            for (k, l) in plan.links[first..][..count].iter().enumerate().take(64) {
                let wanted = l.0 != NOWHERE
                    && (opts.inputs.is_none() || {
                        let t = &plan.steps[l.0 as usize];
                        t.captured || t.leads
                    });
                needs |= (wanted as u64) << k;
            }
            run_node(&node, grads, needs, opts).map_err(|e| anomaly::explain(&node, e))?
        } else {
            Grads::new()
        };
        // Let go of the node before its successors run.
        super::node::drop_later(node);
        let mut back = back.into_iter();
        for k in first..first + count {
            let g = back.next().flatten();
            let (to, nr) = plan.links[k];
            if to == NOWHERE {
                continue;
            }
            let s = &mut plan.steps[to as usize];
            if opts.inputs.is_some() && !(s.captured || s.leads) {
                continue;
            }
            if let Some(g) = g {
                deliver(&mut s.grads, nr, g, through)?;
            }
            s.waiting -= 1;
            if s.waiting == 0 {
                if let Some(Target::Leaf(_)) = s.target { leaves.push(to) } else { plan.push_ready(to) }
            }
        }
    }
    Ok(captured)
}

/// The end of the way: hooks of the leaf, then into its `.grad` or into the result.
fn run_leaf(
    plan: &mut Plan,
    i: u32,
    opts: &Options,
    wanted: &[(u32, u32, usize)],
    captured: &mut [Option<Tensor>],
) -> Result<()> {
    let step = &mut plan.steps[i as usize];
    let Some(Target::Leaf(leaf)) = step.target.take() else { return Ok(()) };
    let Some(mut g) = std::mem::take(&mut step.grads).into_iter().next().flatten() else { return Ok(()) };
    if opts.inputs.is_some() && !step.captured {
        return Ok(());
    }
    let Some(meta) = leaf.meta() else { return Ok(()) };
    let watched = meta.lock().watched.clone();
    let Watched { hooks, post_accumulate: post, accumulator: node } =
        watched.map_or_else(Watched::default, |w| *w);
    for (_, h) in hooks {
        if let Some(new) = h.call(&g)? {
            g = new;
        }
    }
    if opts.inputs.is_some() && !opts.accumulate {
        for &(_, _, place) in wanted.iter().filter(|w| w.0 == i) {
            captured[place] = Some(g.clone());
        }
        return Ok(());
    }
    let node = node.and_then(|n| n.upgrade()).filter(|n| n.is_hooked());
    let Some(node) = node else {
        accumulate(&leaf, g, opts.create_graph || forward::active())?;
        return post.into_iter().try_for_each(|(_, h)| h.call(&leaf));
    };
    let mut grads: Grads = std::iter::once(Some(g)).collect();
    node.run_pre(&mut grads)?;
    if let Some(g) = grads.first().cloned().flatten() {
        accumulate(&leaf, g, opts.create_graph || forward::active())?;
    }
    for (_, h) in post {
        h.call(&leaf)?;
    }
    node.run_post(Grads::new(), &grads).map(|_| ())
}

fn run_node(node: &Arc<Node>, mut grads: Grads, needs: u64, opts: &Options) -> Result<Grads> {
    if node.is_hooked() {
        node.run_pre(&mut grads)?;
    }
    let kept = anomaly::before(&grads);
    let mut cx = Ctx {
        node,
        grads: &mut grads,
        needs,
        create_graph: opts.create_graph || forward::active(),
        keep_graph: opts.keep_graph,
        saved: SmallVec::new(),
    };
    let mut back = node.rule().backward(&mut cx)?;
    drop(cx);
    if let Some(kept) = kept {
        anomaly::after(node, &kept, &back)?;
    }
    if node.is_hooked() {
        back = node.run_post(back, &grads)?;
    }
    if !opts.keep_graph {
        node.rule().release();
    }
    check(node, &mut back)?;
    Ok(back)
}

/// A gradient must have the shape, dtype and device of what it is the gradient of.
fn check(node: &Node, back: &mut Grads) -> Result<()> {
    for (i, (g, e)) in back.iter_mut().zip(node.edges()).enumerate() {
        let (Some(t), Some(e)) = (g.as_ref(), e) else { continue };
        let (shape, dtype, _) = e.wants();
        if t.shape() != shape {
            match ops::sum_to_size(t, shape) {
                Ok(s) => *g = Some(s),
                Err(_) => bail!(
                    Runtime,
                    "Function {} returned an invalid gradient at index {i} - got {:?} but expected shape compatible with {:?}",
                    node.name,
                    t.shape(),
                    shape
                ),
            }
        }
        let Some(t) = g.as_ref() else { continue };
        if t.is_lazy() {
            *g = Some(ops::lazy::resolve(t)?);
        }
        let Some(t) = g.as_ref() else { continue };
        if t.dtype() != dtype {
            // The conversion takes the real part: the gradient of a real input of a complex result.
            *g = Some(ops::to_dtype(t, dtype)?);
        }
    }
    Ok(())
}

/// Adds a gradient into a node's slot.
fn deliver(grads: &mut Grads, nr: u32, g: Tensor, create_graph: bool) -> Result<()> {
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

/// Adds into `.grad` of a tensor.
pub(super) fn accumulate(t: &Tensor, g: Tensor, create_graph: bool) -> Result<()> {
    let meta = t.meta_or_new();
    let which = (Arc::as_ptr(meta) as usize >> 6) % ADDING.len();
    let adding = ADDING[which].lock().unwrap_or_else(PoisonError::into_inner);
    // Taken out while we work: the ops below must not meet the tensor's own lock.
    let have = meta.lock().grad.clone();
    let new = match have {
        None if create_graph => g,
        None => {
            // Keep the buffer if it is ours alone and as dense as the parameter, else copy.
            let own = g.handles() == 1 && g.storage().is_unique() && g.layout().is_dense();
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
