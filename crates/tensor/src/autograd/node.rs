//! The backward graph: nodes, edges, recording, and a drop that never recurses.

use super::saved::Saved;
use super::{Hook, Meta, forward, mode};
use crate::tensor::Tensor;
use pyrite_core::{DType, Device, Dims, Result, Site, bail};
use smallvec::SmallVec;
use std::any::Any;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

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

/// How a node turns gradients of its outputs into gradients of its inputs.
pub trait Rule: Send + Sync {
    fn backward(&self, cx: &mut Ctx) -> Result<Grads>;
    /// Forgets saved tensors (after a backward that does not retain the graph).
    fn release(&self) {}
    /// The leaf tensor, for accumulators.
    fn leaf(&self) -> Option<Tensor> {
        None
    }
    /// Lets the binding look inside (Python Functions).
    fn as_any(&self) -> Option<&dyn std::any::Any> {
        None
    }
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
    /// The saved tensors, unpacked, in the order they were given to [`attach`].
    pub saved: SmallVec<[Option<Tensor>; 4]>,
}

impl Ctx<'_> {
    #[inline]
    pub fn needs(&self, i: usize) -> bool {
        i >= 64 || self.needs >> i & 1 == 1
    }
    /// The gradient of output `i`; zeros if none arrived.
    pub fn grad(&self, i: usize) -> Result<Tensor> {
        match &self.grads[i] {
            Some(g) => Ok(g.clone()),
            None => {
                let o = &self.node.outputs[i];
                Tensor::zeros(&o.shape, o.dtype, o.device)
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
    hooks: OnceLock<Box<Mutex<Hooks>>>,
    rule: R,
}

/// Callbacks of a node, in registration order.
#[derive(Default)]
struct Hooks {
    tensor: Vec<(u64, u32, Arc<dyn Hook>)>,
    retained: Vec<(u32, Weak<Meta>)>,
    pre: Vec<(u64, Arc<dyn NodeHook>)>,
    post: Vec<(u64, Arc<dyn NodeHook>)>,
    /// What the binding keeps here (`metadata`, the traceback of anomaly mode).
    extra: Option<Arc<dyn Any + Send + Sync>>,
    /// Accumulators somebody asked for by way of this node.
    leaves: Vec<Arc<Node>>,
}

/// A callback on a node: before (`grads` are of the outputs) or after (`inputs` given as well).
pub trait NodeHook: Send + Sync {
    fn call(&self, inputs: Option<&Grads>, outputs: &Grads) -> Result<Option<Grads>>;
    fn as_any(&self) -> &dyn std::any::Any;
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
    fn hooks(&self) -> std::sync::MutexGuard<'_, Hooks> {
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
    pub(super) fn visit_hooks(&self, f: &mut dyn FnMut(&dyn std::any::Any)) {
        if !self.is_hooked() {
            return;
        }
        if let Some(Ok(h)) = self.hooks.get().map(|h| h.try_lock()) {
            h.tensor.iter().for_each(|x| f(x.2.as_any()));
            h.pre.iter().chain(&h.post).for_each(|x| f(x.1.as_any()));
        }
    }
    pub(super) fn clear_hooks(&self) {
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
    /// Moves the hooks of a replaced history to the node that took its place.
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

// ---- recording ----------------------------------------------------------------------------------

/// Is an op on these inputs recorded?
#[inline]
pub fn needs_grad(inputs: &[&Tensor]) -> bool {
    inputs.iter().any(|t| t.0.meta.get().is_some() && t.requires_grad()) && mode::is_grad_enabled()
        || forward::active() && inputs.iter().any(|t| forward::has(t))
}

/// Does anything flow through this input: a gradient back or a tangent on? Ops that save a factor only for
/// the other one's sake ask this.
#[inline]
pub fn flows(t: &Tensor) -> bool {
    t.requires_grad() || forward::has(t)
}

/// What to keep for backward.
pub enum Save<'a> {
    Input(&'a Tensor),
    Opt(Option<&'a Tensor>),
    /// Output number i.
    Output(usize),
}

struct Closure<F> {
    saved: Mutex<Option<SmallVec<[Option<Saved>; 3]>>>,
    f: F,
}

impl<F> Rule for Closure<F>
where
    F: Fn(&mut Ctx) -> Result<Grads> + Send + Sync,
{
    fn backward(&self, cx: &mut Ctx) -> Result<Grads> {
        {
            let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(list) = saved.as_ref() else { return second_backward(cx.node) };
            for s in list {
                cx.saved.push(match s {
                    Some(s) => Some(s.unpack(cx.node)?),
                    None => None,
                });
            }
        }
        (self.f)(cx)
    }
    fn release(&self) {
        let old = {
            let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
            // What saved nothing can run again.
            if saved.as_ref().is_some_and(|list| list.is_empty()) { None } else { saved.take() }
        };
        drop(old);
    }
}

/// PyTorch's message for a graph whose buffers are gone.
pub fn second_backward<T>(node: &Node) -> Result<T> {
    bail!(
        Runtime,
        "Trying to backward through the graph a second time (or directly access saved tensors after they have already been freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors after calling backward. (The op whose buffers are gone is {}{}.)",
        node.name,
        node.site.describe().map_or_else(String::new, |s| format!(", recorded at {s}"))
    )
}

/// Records an op: `outputs` get a history whose backward is `f`. Call only if [`needs_grad`].
/// `inputs` are the differentiable inputs in the order `f` returns gradients.
pub fn attach<F>(name: &'static str, inputs: &[&Tensor], outputs: &[&Tensor], save: &[Save], f: F)
where
    F: Fn(&mut Ctx) -> Result<Grads> + Send + Sync + 'static,
{
    let node = closure(name, inputs, outputs, save, f);
    if is_recorded(&node) {
        set_history(&node, outputs);
    }
}

/// In forward mode a node may exist for the tangents alone.
#[inline]
pub(super) fn is_recorded(node: &Node) -> bool {
    !forward::active() || mode::is_grad_enabled() && node.edges.iter().any(Option::is_some)
}

/// The node of [`attach`] without giving it to the outputs: in-place ops rebase with it.
pub fn closure<F>(
    name: &'static str,
    inputs: &[&Tensor],
    outputs: &[&Tensor],
    save: &[Save],
    f: F,
) -> Arc<Node>
where
    F: Fn(&mut Ctx) -> Result<Grads> + Send + Sync + 'static,
{
    let flow = forward::begin(inputs, outputs);
    let saved: SmallVec<[Option<Saved>; 3]> = save
        .iter()
        .map(|s| match s {
            Save::Input(t) => Some(Saved::input(t)),
            Save::Opt(t) => t.map(Saved::input),
            Save::Output(i) => Some(Saved::output(outputs[*i], *i as u32)),
        })
        .collect();
    let node = make(
        name,
        inputs.iter().map(|t| t.edge()).collect(),
        outputs.iter().map(|t| info(t)).collect(),
        Closure { saved: Mutex::new(Some(saved)), f },
    );
    if let Some(flow) = flow {
        forward::through(&flow, &node, outputs);
    }
    node
}

/// Gives the outputs their place in the graph.
pub fn set_history(node: &Arc<Node>, outputs: &[&Tensor]) {
    for (i, t) in outputs.iter().enumerate() {
        set_history_at(node, t, i as u32);
    }
}

/// Makes `t` output number `nr` of `node`.
pub fn set_history_at(node: &Arc<Node>, t: &Tensor, nr: u32) {
    if !t.dtype().is_differentiable() {
        return;
    }
    set_edge(t, Edge::new(node.clone(), nr));
}

/// Gives `t` this history.
#[inline]
pub(crate) fn set_edge(t: &Tensor, edge: Edge) {
    match t.0.meta.get() {
        None => {
            t.0.meta.set(Arc::new(Meta::with_history(edge)));
        }
        Some(m) => {
            let old = m.lock().grad_fn.replace(edge);
            m.set_requires(true);
            if let Some(e) = old {
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
        super::engine::accumulate(&self.leaf, g, cx.create_graph)?;
        Ok(Grads::new())
    }
    fn leaf(&self) -> Option<Tensor> {
        Some(self.leaf.clone())
    }
}
