//! Runs the graph backwards: dependency counts, youngest ready node first, no recursion. It runs in
//! the calling thread; gradients meet in a list that this call owns. A backward inside a backward
//! inside ... moves to a thread with a fresh stack now and then (`reentry.rs`).

use super::adding::{accumulate, deliver};
use super::mode::{GradMode, PackHooks};
use super::node::{Ctx, Edge, Grads, Node, Target};
use super::runs::{InRun, run_callbacks};
use super::{Watched, anomaly, batch, forward, reentry};
use crate::tensor::Tensor;
use crate::{check_interrupt, ops};
use pyrite_core::{Result, bail, ensure};
use smallvec::SmallVec;
use std::cell::Cell;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

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

/// How a run goes; see `request.rs`.
pub(super) struct Options<'a> {
    pub keep_graph: bool,
    pub create_graph: bool,
    /// Where to stop and what to return; `None` runs to every leaf.
    pub inputs: Option<&'a [Edge]>,
    /// With `inputs`: add into the leaves' `.grad` instead of returning.
    pub accumulate: bool,
    /// Gradients have a dimension of this size in front.
    pub batch: Option<usize>,
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

pub(super) fn run(roots: SmallVec<[(Edge, Tensor); 1]>, opts: &Options) -> Result<Vec<Option<Tensor>>> {
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
    let all = opts.inputs.is_none();
    let _run = InRun::new(!all, || {
        let takes = |s: &&Step| all || s.captured || s.leads;
        plan.steps.iter().filter(takes).filter_map(|s| s.target.as_ref().map(Target::key)).collect()
    });
    let _mode = GradMode::new(opts.create_graph);
    let _hooks = PackHooks::here();
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
            let done = match opts.batch {
                None => node.run_tensor_hooks(&mut grads),
                Some(n) => batch::tensor_hooks(&node, &mut grads, n),
            };
            done.map_err(|e| anomaly::explain(&node, e))?;
        }
        if is_captured {
            for &(_, nr, place) in wanted.iter().filter(|w| w.0 == i) {
                captured[place] = grads[nr as usize].clone();
            }
        }
        // A result whose `.grad` was asked for counts as run: its prehooks see the gradient.
        if alive && stop && opts.accumulate && node.is_hooked() {
            node.run_pre(&mut grads).map_err(|e| anomaly::explain(&node, e))?;
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
    run_callbacks()?;
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
        let new = match opts.batch {
            None => h.call(&g)?,
            Some(n) => Some(batch::hook(&*h, &g, n)?),
        };
        if let Some(new) = new {
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
        accumulate(&leaf, g, opts.create_graph || forward::active(), 0)?;
        return post.into_iter().try_for_each(|(_, h)| h.call(&leaf));
    };
    let mut grads: Grads = std::iter::once(Some(g)).collect();
    node.run_pre(&mut grads)?;
    if let Some(g) = grads.first().cloned().flatten() {
        // The hooks that follow see the very tensor that `.grad` becomes.
        accumulate(&leaf, g, opts.create_graph || forward::active(), 1)?;
    }
    for (_, h) in post {
        h.call(&leaf)?;
    }
    node.run_post(Grads::new(), &grads).map(|_| ())
}

pub(super) fn run_node(node: &Arc<Node>, mut grads: Grads, needs: u64, opts: &Options) -> Result<Grads> {
    if let Some(n) = opts.batch
        && (node.is_hooked() || !node.rule().takes_batches())
    {
        return batch::row_by_row(node, &grads, needs, opts, n);
    }
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
        batch: opts.batch,
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
    check(node, &mut back, opts.batch)?;
    Ok(back)
}

/// A gradient must have the shape, dtype and device of what it is the gradient of.
fn check(node: &Node, back: &mut Grads, batch: Option<usize>) -> Result<()> {
    for (i, (g, e)) in back.iter_mut().zip(node.edges()).enumerate() {
        let (Some(t), Some(e)) = (g.as_ref(), e) else { continue };
        let (shape, dtype, _) = e.wants();
        let fits = match batch {
            None => t.shape() == shape,
            Some(n) => t.shape().split_first() == Some((&n, shape)),
        };
        if !fits {
            let summed = match batch {
                None => ops::sum_to_size(t, shape),
                Some(n) => ops::reduce::sum_rows_to_size(t, n, shape),
            };
            match summed {
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
