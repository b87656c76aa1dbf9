//! Runs the graph backwards: dependency counts, youngest ready node first, no recursion. It runs in
//! the calling thread; gradients meet in a map that this call owns.

use super::forward;
use super::mode::GradMode;
use super::node::{Ctx, Edge, Grads, Node};
use crate::tensor::Tensor;
use crate::{check_interrupt, ops};
use pyrite_core::{Result, bail, ensure};
use smallvec::SmallVec;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Hashes node addresses: they are already well spread.
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

fn key(n: &Arc<Node>) -> usize {
    Arc::as_ptr(n) as *const u8 as usize
}

/// A node waiting to run, ordered by age.
struct Ready(Arc<Node>);

impl PartialEq for Ready {
    fn eq(&self, o: &Self) -> bool {
        self.0.seq == o.0.seq
    }
}
impl Eq for Ready {}
impl PartialOrd for Ready {
    fn partial_cmp(&self, o: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(o))
    }
}
impl Ord for Ready {
    fn cmp(&self, o: &Self) -> std::cmp::Ordering {
        self.0.seq.cmp(&o.0.seq)
    }
}

/// What one node knows while the engine runs.
#[derive(Default)]
struct State {
    /// Edges into this node that have not delivered yet.
    waiting: usize,
    grads: Grads,
    /// Leads to an input that was asked for (only used when inputs are given).
    needed: bool,
}

struct Options<'a> {
    keep_graph: bool,
    create_graph: bool,
    /// Where to stop and what to return; `None` runs to every leaf.
    inputs: Option<&'a [Edge]>,
    /// With `inputs`: add into their `.grad` instead of returning.
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
    let roots = roots("backward", outputs, grads, create_graph)?;
    let edges = match inputs {
        None => None,
        Some(list) => {
            ensure!(!list.is_empty(), Runtime, "'inputs' argument to backward() cannot be empty.");
            Some(input_edges(list)?)
        }
    };
    let accumulate = edges.is_some();
    let opts = Options { keep_graph, create_graph, inputs: edges.as_deref(), accumulate };
    let got = run(roots, &opts)?;
    if let Some(list) = inputs {
        for (t, g) in list.iter().zip(got) {
            // Leaves were accumulated by their own node; here are the non-leaf ones.
            if let (Some(g), false) = (g, t.is_leaf()) {
                self::accumulate(t, g, create_graph || forward::active())?;
            }
        }
    }
    Ok(())
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
    let roots = roots("grad", outputs, grads, create_graph)?;
    let edges = input_edges(inputs)?;
    run(roots, &Options { keep_graph, create_graph, inputs: Some(&edges), accumulate: false })
}

fn input_edges(list: &[Tensor]) -> Result<Vec<Edge>> {
    list.iter()
        .map(|t| match t.edge() {
            Some(e) => Ok(e),
            None => bail!(Runtime, "One of the differentiated Tensors does not require grad"),
        })
        .collect()
}

fn roots(
    op: &str,
    outputs: &[Tensor],
    grads: &[Option<Tensor>],
    create_graph: bool,
) -> Result<Vec<(Edge, Tensor)>> {
    ensure!(
        grads.is_empty() || grads.len() == outputs.len(),
        Runtime,
        "{op}: got {} tensors and {} gradients",
        outputs.len(),
        grads.len()
    );
    let mut roots = Vec::with_capacity(outputs.len());
    for (i, t) in outputs.iter().enumerate() {
        let Some(edge) = t.edge() else {
            bail!(Runtime, "element {i} of tensors does not require grad and does not have a grad_fn");
        };
        let g = match grads.get(i).and_then(Option::as_ref) {
            Some(g) => {
                ensure!(
                    g.shape() == t.shape(),
                    Runtime,
                    "Mismatch in shape: grad_output[{i}] has a shape of {:?} and output[{i}] has a shape of {:?}.",
                    g.shape(),
                    t.shape()
                );
                ensure!(
                    g.dtype().is_complex() == t.dtype().is_complex(),
                    Runtime,
                    "{op}: grad_output[{i}] has dtype {} and output[{i}] has dtype {}: both must be real or both complex",
                    g.dtype(),
                    t.dtype()
                );
                if g.dtype() == t.dtype() { g.clone() } else { ops::to_dtype(g, t.dtype())? }
            }
            None => {
                ensure!(t.numel() == 1, Runtime, "grad can be implicitly created only for scalar outputs");
                ensure!(
                    !t.dtype().is_complex(),
                    Runtime,
                    "grad can be implicitly created only for real scalar outputs but got {}",
                    t.dtype()
                );
                Tensor::full(t.shape(), 1.0.into(), t.dtype(), t.device())?
            }
        };
        let g = if create_graph {
            g
        } else if forward::active() {
            forward::detach(&g)
        } else {
            g.detach()
        };
        roots.push((edge, g));
    }
    Ok(roots)
}

fn run(roots: Vec<(Edge, Tensor)>, opts: &Options) -> Result<Vec<Option<Tensor>>> {
    // Tangents pass through ops, not through the fused kernels of a plain backward.
    let through = opts.create_graph || forward::active();
    let mut states: Map<State> = Map::default();
    let mut order: Vec<Arc<Node>> = Vec::new();
    // Count, for every reachable node, how many edges lead into it.
    for (e, _) in &roots {
        states.entry(key(&e.node)).or_insert_with(|| {
            order.push(e.node.clone());
            State::default()
        });
    }
    let mut at = 0;
    while at < order.len() {
        let node = order[at].clone();
        at += 1;
        node.with_edges(|edges| {
            for e in edges.iter().flatten() {
                let s = states.entry(key(&e.node)).or_insert_with(|| {
                    order.push(e.node.clone());
                    State::default()
                });
                s.waiting += 1;
            }
        });
    }
    let mut captured: Vec<Option<Tensor>> = vec![None; opts.inputs.map_or(0, <[_]>::len)];
    if let Some(inputs) = opts.inputs {
        mark_needed(&order, &mut states, inputs);
    }
    drop(order);

    let mut ready: BinaryHeap<Ready> = BinaryHeap::new();
    for (e, g) in roots {
        let Some(s) = states.get_mut(&key(&e.node)) else { continue };
        deliver(&mut s.grads, &e, g, through)?;
        if s.waiting == 0 && !ready.iter().any(|r| r.0.seq == e.node.seq) {
            ready.push(Ready(e.node));
        }
    }
    let _mode = GradMode::new(opts.create_graph);
    let mut ran = 0usize;
    while let Some(Ready(node)) = ready.pop() {
        ran += 1;
        if ran.is_multiple_of(64) {
            check_interrupt()?;
        }
        let Some(state) = states.remove(&key(&node)) else { continue };
        let mut grads = state.grads;
        grads.resize(node.outputs.len(), None);
        let alive = grads.iter().any(Option::is_some);
        if alive && node.is_hooked() {
            node.run_pre(&mut grads)?;
        }
        let mut stop = opts.inputs.is_some() && !state.needed;
        if let Some(inputs) = opts.inputs {
            for (slot, e) in captured.iter_mut().zip(inputs) {
                if Arc::ptr_eq(&e.node, &node) {
                    *slot = grads[e.nr as usize].clone();
                }
            }
            // A leaf that was asked for accumulates only in `backward(inputs=...)`.
            if node.rule().leaf().is_some()
                && !(opts.accumulate && inputs.iter().any(|e| Arc::ptr_eq(&e.node, &node)))
            {
                stop = true;
                if alive {
                    run_leaf_hooks(&node, &mut captured, inputs)?;
                }
            }
        }
        let back: Grads = if alive && !stop { run_node(&node, grads, &states, opts)? } else { Grads::new() };
        let edges = node.edges();
        // Let go of the node before its successors run: memory of finished parts is free early.
        drop(node);
        let mut back = back.into_iter();
        for e in edges {
            let g = back.next().flatten();
            let Some(e) = e else { continue };
            let Some(s) = states.get_mut(&key(&e.node)) else { continue };
            if let Some(g) = g {
                deliver(&mut s.grads, &e, g, through)?;
            }
            s.waiting -= 1;
            if s.waiting == 0 {
                ready.push(Ready(e.node));
            }
        }
    }
    Ok(captured)
}

/// Marks the nodes from which an asked-for input can be reached. `order` is a breadth-first order,
/// so a few sweeps from the back settle every path.
fn mark_needed(order: &[Arc<Node>], states: &mut Map<State>, inputs: &[Edge]) {
    for e in inputs {
        if let Some(s) = states.get_mut(&key(&e.node)) {
            s.needed = true;
        }
    }
    // Edges lead from younger to older nodes except into accumulators (no edges of their own), so
    // one sweep by age is enough.
    let mut by_age: Vec<&Arc<Node>> = order.iter().collect();
    by_age.sort_by_key(|n| n.seq);
    let mut changed = true;
    while changed {
        changed = false;
        for n in &by_age {
            let leads = n.with_edges(|edges| {
                edges.iter().flatten().any(|e| states.get(&key(&e.node)).is_some_and(|s| s.needed))
            });
            if let (true, Some(s)) = (leads, states.get_mut(&key(n))) {
                changed |= !std::mem::replace(&mut s.needed, true);
            }
        }
    }
}

/// Tensor hooks of a leaf run for `grad` too.
fn run_leaf_hooks(node: &Arc<Node>, captured: &mut [Option<Tensor>], inputs: &[Edge]) -> Result<()> {
    let Some(leaf) = node.rule().leaf() else { return Ok(()) };
    for h in leaf.leaf_hooks() {
        for (slot, e) in captured.iter_mut().zip(inputs) {
            if Arc::ptr_eq(&e.node, node)
                && let Some(g) = slot.clone()
                && let Some(new) = h.call(&g)?
            {
                *slot = Some(new);
            }
        }
    }
    Ok(())
}

fn run_node(node: &Arc<Node>, mut grads: Grads, states: &Map<State>, opts: &Options) -> Result<Grads> {
    let needs = node.with_edges(|edges| {
        let mut mask = 0u64;
        for (i, e) in edges.iter().enumerate().take(64) {
            if let Some(e) = e {
                let wanted = opts.inputs.is_none() || states.get(&key(&e.node)).is_some_and(|s| s.needed);
                mask |= (wanted as u64) << i;
            }
        }
        mask
    });
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
    if !opts.keep_graph {
        node.rule().release();
    }
    if node.is_hooked() {
        back = node.run_post(back, &grads)?;
    }
    check(node, &mut back)?;
    Ok(back)
}

/// A gradient must have the shape, dtype and device of what it is the gradient of.
fn check(node: &Node, back: &mut Grads) -> Result<()> {
    node.with_edges(|edges| {
        for (i, (g, e)) in back.iter_mut().zip(edges).enumerate() {
            let (Some(t), Some(e)) = (g.as_ref(), e) else { continue };
            let want = &e.node.outputs[e.nr as usize];
            if t.shape() != &want.shape[..] {
                match ops::sum_to_size(t, &want.shape) {
                    Ok(s) => *g = Some(s),
                    Err(_) => bail!(
                        Runtime, "Function {} returned an invalid gradient at index {i} - got {:?} but expected shape compatible with {:?}",
                        node.name, t.shape(), &want.shape[..]
                    ),
                }
            }
            let Some(t) = g.as_ref() else { continue };
            if t.dtype() != want.dtype {
                // The conversion takes the real part: the gradient of a real input of a complex result.
                *g = Some(ops::to_dtype(t, want.dtype)?);
            }
        }
        Ok(())
    })
}

/// Adds a gradient into a node's slot.
fn deliver(grads: &mut Grads, e: &Edge, g: Tensor, create_graph: bool) -> Result<()> {
    let nr = e.nr as usize;
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

/// Adds into `.grad` of a tensor.
pub(super) fn accumulate(t: &Tensor, g: Tensor, create_graph: bool) -> Result<()> {
    let meta = t.meta_or_new();
    // Taken out while we work: hooks and ops below may look at this tensor.
    let have = meta.lock().grad.clone();
    let new = match have {
        None if create_graph => g,
        None => {
            // Keep the buffer if it is ours alone and as dense as the parameter, else copy.
            let own = g.handles() == 1 && g.storage().is_unique() && g.layout().is_dense();
            if own && g.strides() == t.layout().like_strides().as_slice() {
                g.detach()
            } else {
                ops::clone_like(&g, t)?.detach()
            }
        }
        Some(have) if create_graph => ops::add(&have, &g)?,
        Some(have) => {
            let _off = GradMode::new(false);
            ops::add_assign_raw(&have.detach(), &g)?;
            have.storage().bump_version();
            return Ok(());
        }
    };
    let old = meta.lock().grad.replace(new);
    drop(old);
    Ok(())
}
