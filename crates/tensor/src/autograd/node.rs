//! The backward graph: nodes, edges, recording, and a drop that never recurses.

pub use super::attach::*;
use super::mode;
use super::node_hooks::Hooks;
pub use super::node_hooks::NodeHook;
use super::saved::{Place, Saved};
use crate::tensor::Tensor;
use pyrite_core::{DType, Device, Dims, Result, Scalar, Site, bail};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Gradients in input order; `None` where none flows.
pub type Grads = SmallVec<[Option<Tensor>; 3]>;

/// Where a gradient goes.
#[derive(Clone)]
pub enum Target {
    Node(Arc<Node>),
    /// Into `.grad` of a leaf. Its `AccumulateGrad` node is made only if somebody asks for it.
    Leaf(Tensor),
}

/// Output `nr` of a node, or a leaf.
#[derive(Clone)]
pub struct Edge {
    pub to: Target,
    pub nr: u32,
}

impl Edge {
    pub fn new(node: Arc<Node>, nr: u32) -> Edge {
        Edge { to: Target::Node(node), nr }
    }
    /// The node; that of a leaf is made if need be and lives as long as somebody holds it.
    pub fn node(&self) -> Arc<Node> {
        match &self.to {
            Target::Node(n) => n.clone(),
            Target::Leaf(t) => t.accumulator(),
        }
    }
    /// The node, unless this leads to a leaf.
    pub fn made_by(&self) -> Option<&Arc<Node>> {
        match &self.to {
            Target::Node(n) => Some(n),
            Target::Leaf(_) => None,
        }
    }
    /// Shape, dtype and device of the gradient that belongs here.
    pub fn wants(&self) -> (&[usize], DType, Device) {
        match &self.to {
            Target::Node(n) => {
                let o = &n.outputs[self.nr as usize];
                (&o.shape, o.dtype, o.device)
            }
            Target::Leaf(t) => (t.shape(), t.dtype(), t.device()),
        }
    }
    pub(super) fn drop_later(self) {
        if let Target::Node(n) = self.to {
            drop_later(n);
        }
    }
}

impl Target {
    /// Tells targets apart while they live.
    #[inline]
    pub(super) fn key(&self) -> usize {
        match self {
            Target::Node(n) => Arc::as_ptr(n) as *const u8 as usize,
            Target::Leaf(t) => t.meta().map_or(0, |m| Arc::as_ptr(m) as usize),
        }
    }
}

/// Shape, dtype and device of one output, to make zeros and to check gradients.
#[derive(Clone)]
pub struct OutputInfo {
    pub shape: Dims,
    pub dtype: DType,
    pub device: Device,
}

/// A value that a node keeps.
pub enum KeptValue {
    Tensor(Tensor),
    Number(Scalar),
}

/// How a node turns gradients of its outputs into gradients of its inputs.
pub trait Rule: Send + Sync {
    fn backward(&self, cx: &mut Ctx) -> Result<Grads>;
    /// Does `backward` also take gradients with one more dimension in front ([`Ctx::batch`])?
    fn takes_batches(&self) -> bool {
        false
    }
    /// Forgets saved tensors (after a backward that does not retain the graph).
    fn release(&self) {}
    /// Shows what is saved, one by one, until `f` says true: the tensors by what they are to the node (`None`:
    /// not known), and numbers that stand for inputs. An error once they are released.
    fn visit_saved(&self, _node: &Arc<Node>, _f: &mut dyn FnMut(SavedItem) -> Result<bool>) -> Result<()> {
        Ok(())
    }
    /// The leaf tensor, for accumulators.
    fn leaf(&self) -> Option<Tensor> {
        None
    }
    /// The names of what it keeps for its backward, as PyTorch's after `_saved_`: "self", "result".
    fn kept_names(&self, _node: &Node) -> Vec<&'static str> {
        Vec::new()
    }
    /// One of these; an error if it was given back.
    fn kept(&self, _node: &Arc<Node>, _name: &str) -> Result<Option<KeptValue>> {
        Ok(None)
    }
    /// Lets the binding look inside (Python Functions).
    fn as_any(&self) -> Option<&dyn std::any::Any> {
        None
    }
}

/// What [`Rule::visit_saved`] shows.
pub enum SavedItem<'a> {
    Tensor(Option<Place>, &'a mut Saved),
    Number(u8, Scalar),
}

/// What a rule sees while it runs.
pub struct Ctx<'a> {
    pub node: &'a Arc<Node>,
    /// Gradients of the outputs.
    pub grads: &'a mut [Option<Tensor>],
    /// Bit i: a gradient for input i is wanted.
    pub needs: u64,
    /// A graph of this backward is being recorded.
    pub create_graph: bool,
    /// The graph is kept for another backward.
    pub keep_graph: bool,
    /// The gradients have a dimension of this size in front: a backward of so many at once.
    pub batch: Option<usize>,
    /// The saved tensors, unpacked, in the order they were given to [`attach`].
    pub saved: SmallVec<[Option<Tensor>; 4]>,
}

impl Ctx<'_> {
    #[inline]
    pub fn needs(&self, i: usize) -> bool {
        i >= 64 || self.needs >> i & 1 == 1
    }
    /// How many dimensions a gradient has in front of those of its output: 1 in a batch, else 0.
    #[inline]
    pub fn lead(&self) -> usize {
        self.batch.is_some() as usize
    }
    /// The shape of a gradient for a tensor of this shape.
    pub fn batched(&self, shape: &[usize]) -> Dims {
        self.batch.into_iter().chain(shape.iter().copied()).collect()
    }
    /// The gradient of output `i`; zeros if none arrived.
    pub fn grad(&self, i: usize) -> Result<Tensor> {
        match &self.grads[i] {
            Some(g) => Ok(g.clone()),
            None => {
                let o = &self.node.outputs[i];
                Tensor::zeros(&self.batched(&o.shape), o.dtype, o.device)
            }
        }
    }
    pub fn saved(&self, i: usize) -> Result<&Tensor> {
        match &self.saved[i] {
            Some(t) => Ok(t),
            None => bail!(Runtime, "{}: a tensor needed for backward was not saved", self.node.name),
        }
    }
    pub fn saved_opt(&self, i: usize) -> Option<&Tensor> {
        self.saved[i].as_ref()
    }
}

/// A function in the backward graph.
pub type Node = NodeOf<dyn Rule>;

/// One allocation per node: the rule lies inside (unsized) instead of behind another box.
pub struct NodeOf<R: ?Sized> {
    pub name: Cow<'static, str>,
    /// Creation order; the engine runs the youngest ready node first.
    pub seq: u64,
    /// The line of the forward operation.
    pub site: Site,
    edges: SmallVec<[Option<Edge>; 2]>,
    pub outputs: SmallVec<[OutputInfo; 1]>,
    /// Absent for almost every node: making and dropping one costs nothing for hooks.
    pub(super) hooks: OnceLock<Box<Mutex<Hooks>>>,
    rule: R,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Node {
    pub fn rule(&self) -> &dyn Rule {
        &self.rule
    }
    /// The functions this one hands gradients to.
    pub fn edges(&self) -> &[Option<Edge>] {
        &self.edges
    }
    /// The dtype a gradient for input `i` must have, if that input has an edge.
    pub fn input_dtype(&self, i: usize) -> Option<DType> {
        self.edges.get(i).and_then(Option::as_ref).map(|e| e.wants().1)
    }
    /// The nodes this one hands gradients to, with output numbers. Accumulators made for this stay
    /// alive as long as this node, hooks included.
    pub fn next_nodes(&self) -> Vec<Option<(Arc<Node>, u32)>> {
        let next: Vec<_> = self.edges().iter().map(|e| e.as_ref().map(|e| (e.node(), e.nr))).collect();
        for (n, _) in next.iter().flatten().filter(|n| n.0.rule().leaf().is_some()) {
            let mut h = self.hooks();
            if !h.leaves.iter().any(|l| Arc::ptr_eq(l, n)) {
                h.leaves.push(n.clone());
            }
        }
        next
    }
    /// An edge into output `nr` of this node (of the leaf, if it is an accumulator).
    pub fn edge_into(self: &Arc<Node>, nr: u32) -> Edge {
        match self.rule().leaf() {
            Some(t) => Edge { to: Target::Leaf(t), nr: 0 },
            None => Edge::new(self.clone(), nr),
        }
    }
}

/// Makes a node with a rule of any type.
pub fn make<R: Rule + 'static>(
    name: impl Into<Cow<'static, str>>,
    edges: SmallVec<[Option<Edge>; 2]>,
    outputs: SmallVec<[OutputInfo; 1]>,
    rule: R,
) -> Arc<Node> {
    let node: Arc<Node> = Arc::new(NodeOf {
        name: name.into(),
        seq: NEXT.fetch_add(1, Ordering::Relaxed),
        site: Site::here(),
        edges,
        outputs,
        hooks: OnceLock::new(),
        rule,
    });
    if mode::is_anomaly() {
        super::anomaly::remember(&node);
    }
    node
}

/// Appends [`Tensor::edge`]: at once for what is no view.
#[inline(always)]
fn push_edge(edges: &mut SmallVec<[Option<Edge>; 2]>, t: Option<&Tensor>) {
    let Some((t, meta)) = t.and_then(|t| Some((t, t.meta()?))) else { return edges.push(None) };
    if meta.is_plain_leaf() {
        return edges.push(Some(Edge { to: Target::Leaf(t.clone()), nr: 0 }));
    }
    if meta.requires() {
        let m = meta.lock();
        match (&m.view, &m.grad_fn) {
            (Some(_), _) => {}
            (None, Some(e)) => return edges.push(Some(e.clone())),
            (None, None) => return edges.push(Some(Edge { to: Target::Leaf(t.clone()), nr: 0 })),
        }
    }
    edges.push(t.edge());
}

/// The node of an operation with one result, whose edges lead to `inputs` and whose rule is completed
/// last, in view of the edges. It is written where it stays: the parts of a node are small values just made, and to
/// move them once more takes longer than to make them.
#[inline(always)]
pub(crate) fn make_in_place<'a, R: Rule + 'static>(
    name: &'static str,
    inputs: impl Iterator<Item = Option<&'a Tensor>>,
    out: &Tensor,
    rule: R,
    fill: impl FnOnce(&mut R, &[Option<Edge>]),
) -> Arc<Node> {
    let place = Arc::<NodeOf<R>>::new_uninit();
    let p = Arc::as_ptr(&place) as *mut NodeOf<R>;
    // SAFETY: the memory is new and nobody else has a handle on it, so writing and borrowing its fields is
    // exclusive. Each field is written before it is borrowed, and all of them are before `assume_init`. (A
    // panic in between leaks what was written: `MaybeUninit` drops nothing.)
    let node: Arc<Node> = unsafe {
        (&raw mut (*p).name).write(Cow::Borrowed(name));
        (&raw mut (*p).site).write(Site::here());
        (&raw mut (*p).hooks).write(OnceLock::new());
        (&raw mut (*p).edges).write(SmallVec::new());
        let edges = &mut (*p).edges;
        for t in inputs {
            push_edge(edges, t);
        }
        // After the edges: asking a view for its history may make a node, which is then the older one.
        (&raw mut (*p).seq).write(NEXT.fetch_add(1, Ordering::Relaxed));
        (&raw mut (*p).outputs).write(SmallVec::new());
        let outputs = &mut (*p).outputs;
        outputs.push(OutputInfo { shape: Dims::new(), dtype: out.dtype(), device: out.device() });
        for n in out.shape() {
            outputs[0].shape.push(*n);
        }
        (&raw mut (*p).rule).write(rule);
        fill(&mut (*p).rule, edges);
        place.assume_init()
    };
    if mode::is_anomaly() {
        super::anomaly::remember(&node);
    }
    node
}

pub fn info(t: &Tensor) -> OutputInfo {
    OutputInfo { shape: Dims::from_slice(t.shape()), dtype: t.dtype(), device: t.device() }
}

// ---- dropping -----------------------------------------------------------------------------------

thread_local! {
    static PENDING: RefCell<Vec<Arc<Node>>> = const { RefCell::new(Vec::new()) };
    static DRAINING: Cell<bool> = const { Cell::new(false) };
}

/// Drops a node from a loop instead of from the stack: a chain of a million nodes unwinds flat.
pub(super) fn drop_later(node: Arc<Node>) {
    if Arc::strong_count(&node) > 1 {
        return;
    }
    // One that leads to leaves only has nothing to unwind.
    if !node.edges().iter().flatten().any(|e| matches!(e.to, Target::Node(_))) {
        return;
    }
    let mut slot = Some(node);
    // At thread exit the list may be gone; then the plain drop has to do.
    let _ = PENDING.try_with(|p| p.borrow_mut().extend(slot.take()));
    if slot.is_some() || DRAINING.try_with(|d| d.replace(true)).unwrap_or(true) {
        return;
    }
    loop {
        let next = PENDING.with(|p| p.borrow_mut().pop());
        match next {
            Some(n) => drop(n),
            None => break,
        }
    }
    DRAINING.with(|d| d.set(false));
}

impl<R: ?Sized> Drop for NodeOf<R> {
    fn drop(&mut self) {
        for e in &mut self.edges {
            if let Some(e) = e.take() {
                e.drop_later();
            }
        }
    }
}

// ---- leaves -------------------------------------------------------------------------------------

struct Accumulate {
    leaf: Tensor,
}

/// The object that stands for "adds gradients to a leaf's `.grad`". The engine does that itself; the
/// node carries hooks and a name for those who walk the graph.
pub(super) fn accumulator(leaf: &Tensor) -> Arc<Node> {
    make(
        "AccumulateGrad",
        SmallVec::new(),
        smallvec::smallvec![info(leaf)],
        Accumulate { leaf: leaf.clone() },
    )
}

impl Rule for Accumulate {
    fn backward(&self, cx: &mut Ctx) -> Result<Grads> {
        let g = cx.grad(0)?;
        super::adding::accumulate(&self.leaf, g, cx.create_graph, 0)?;
        Ok(Grads::new())
    }
    fn leaf(&self) -> Option<Tensor> {
        Some(self.leaf.clone())
    }
}
