//! What an op keeps for its backward: a tensor without its history (no reference cycles), where its
//! gradient goes, and a mark on its storage, so that a later write hands over the old bytes
//! (`inplace::before_write`). In strict mode stale data is an error, never a wrong number.

use super::node::{Edge, Node};
use super::{Meta, MetaCell, Target, forward, mode};
use crate::tensor::{Impl, Lazy, Tensor};
use pyrite_core::layout::contiguous_strides;
use pyrite_core::watch::{Kept, Part, State};
use pyrite_core::{DType, Layout, Result, Site, Storage, bail, ensure, err};
use smallvec::SmallVec;
use std::sync::Arc;

enum Origin {
    /// A leaf that requires grad.
    Leaf,
    /// An input without gradient.
    Nothing,
    /// An input with a history: this, or the same as that of the node's input number n.
    Edge(Edge),
    Nth(u8),
    /// Result number n of the op itself: its history is the node that unpacks it.
    Output(u32),
}

/// What is held.
enum Held {
    Nothing,
    /// The leaf as it is: its history can't change, and it keeps its identity.
    Leaf(Tensor),
    /// Its bytes. Not the tensor: a later in-place op may give that one a history which leads here, and the
    /// cycle would never be freed.
    Bytes(Storage),
    /// A hook took it; this stands for its dtype and device.
    Gone(Tensor),
}

/// Sizes up to this rank lie in the saved value itself.
const PLAIN: usize = 4;

/// A layout, without an allocation if it is an ordinary one.
struct Shape {
    /// Row-major from the start of the storage, unless there is a box.
    dims: [u32; PLAIN],
    ndim: u8,
    any: Option<Box<Layout>>,
}

impl Shape {
    const NONE: Shape = Shape { dims: [0; PLAIN], ndim: 0, any: None };

    /// Sets it (from [`Shape::NONE`]) in place.
    #[inline(always)]
    fn set(&mut self, l: &Layout) {
        const MOST: usize = u32::MAX as usize;
        match (l.shape(), l.strides()) {
            _ if l.offset() != 0 => self.set_any(l),
            ([], []) => {}
            ([a], [1]) if *a <= MOST => {
                self.ndim = 1;
                self.dims[0] = *a as u32;
            }
            ([a, b], [s, 1]) if *s == (*b).max(1) as isize && *a <= MOST && *b <= MOST => {
                self.ndim = 2;
                self.dims[0] = *a as u32;
                self.dims[1] = *b as u32;
            }
            _ => self.set_any(l),
        }
    }
    #[inline(never)]
    fn set_any(&mut self, l: &Layout) {
        let shape = l.shape();
        let plain = shape.len() <= PLAIN
            && l.offset() == 0
            && shape.iter().all(|n| *n <= u32::MAX as usize)
            && l.strides() == contiguous_strides(shape).as_slice();
        if !plain {
            self.any = Some(Box::new(l.clone()));
            return;
        }
        self.ndim = shape.len() as u8;
        for (d, n) in self.dims.iter_mut().zip(shape) {
            *d = *n as u32;
        }
    }
    fn layout(&self) -> Layout {
        if let Some(l) = &self.any {
            return (**l).clone();
        }
        let shape: SmallVec<[usize; 6]> =
            self.dims[..self.ndim as usize].iter().map(|d| *d as usize).collect();
        let strides = contiguous_strides(&shape);
        Layout::new(shape, strides, 0)
    }
}

/// How the bytes are watched.
enum Mark {
    Nothing,
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

/// Hands a tensor to a hook, which must not write to it.
fn pack(hook: &dyn PackHook, t: &Tensor) -> Result<Arc<dyn Packed>> {
    let version = t.storage().version();
    let packed = hook.pack(t)?;
    ensure!(
        t.storage().version() == version,
        Runtime,
        "A saved tensor pack hook is modifying its input in place. Tensors provided as input to pack hook can not be modified by in-place operations as this can lead to unexpected side-effects. Clone the tensor in the hook first."
    );
    Ok(packed)
}

/// What a saved tensor is to its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Input(u8),
    Output(u32),
}

/// See the module text. Saving allocates nothing for the tensors of most programs, and fills the value
/// where it lies: moving what was just written costs more than writing it.
pub struct Saved {
    held: Held,
    shape: Shape,
    dtype: DType,
    lazy: Lazy,
    version: u32,
    mark: Mark,
    origin: Origin,
    duals: Option<forward::Shared>,
}

#[cold]
fn inference() {
    mode::set_record_error(err!(
        Runtime,
        "Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode in computation tracked by autograd. To work around this, you can make a clone to get a normal tensor and use it in autograd, or use `no_grad()` instead of `inference_mode()`."
    ));
}

impl Saved {
    /// An input of the op.
    pub fn input(t: &Tensor) -> Saved {
        Saved::new(t, origin(t, t.edge()))
    }

    /// As [`Saved::input`], for those who know the edge already.
    pub fn with_edge(t: &Tensor, edge: Option<Edge>) -> Saved {
        Saved::new(t, origin(t, edge))
    }

    /// Result `nr` of the op being recorded.
    pub fn output(t: &Tensor, nr: u32) -> Saved {
        Saved::new(t, Origin::Output(nr))
    }

    /// Is this a result of the op itself?
    pub fn is_output(&self) -> bool {
        matches!(self.origin, Origin::Output(_))
    }

    /// A place for a saved value.
    pub(crate) const NOTHING: Saved = Saved {
        held: Held::Nothing,
        shape: Shape::NONE,
        dtype: DType::Bool,
        lazy: Lazy { conj: false, neg: false },
        version: 0,
        mark: Mark::Nothing,
        origin: Origin::Nothing,
        duals: None,
    };

    /// Writes [`Saved::NOTHING`] to a place, field by field: as one value it would be copied from memory.
    ///
    /// # Safety
    /// `p` must be valid for writes. What was there is not dropped.
    #[inline(always)]
    pub(crate) unsafe fn write_nothing(p: *mut Saved) {
        // SAFETY: fields of a place that the caller vouches for; all of them are written.
        unsafe {
            (&raw mut (*p).held).write(Held::Nothing);
            (&raw mut (*p).shape.dims).write([0; PLAIN]);
            (&raw mut (*p).shape.ndim).write(0);
            (&raw mut (*p).shape.any).write(None);
            (&raw mut (*p).dtype).write(DType::Bool);
            (&raw mut (*p).lazy).write(Lazy::default());
            (&raw mut (*p).version).write(0);
            (&raw mut (*p).mark).write(Mark::Nothing);
            (&raw mut (*p).origin).write(Origin::Nothing);
            (&raw mut (*p).duals).write(None);
        }
    }

    /// Saves input number `i` of the node, to which this edge belongs, in an empty place.
    #[inline(always)]
    pub(crate) fn fill_nth(&mut self, t: &Tensor, i: u8, edge: &Option<Edge>) {
        let origin = match edge {
            None => Origin::Nothing,
            Some(Edge { to: Target::Leaf(leaf), .. }) if leaf.same(t) => Origin::Leaf,
            Some(_) => Origin::Nth(i),
        };
        self.fill(t, origin);
    }

    /// As [`Saved::output`], in an empty place.
    #[inline(always)]
    pub(crate) fn fill_output(&mut self, t: &Tensor, nr: u32) {
        self.fill(t, Origin::Output(nr));
    }

    #[inline]
    fn new(t: &Tensor, origin: Origin) -> Saved {
        let mut s = Saved::NOTHING;
        s.fill(t, origin);
        s
    }

    #[inline(always)]
    fn fill(&mut self, t: &Tensor, origin: Origin) {
        if mode::is_packing() {
            *self = Saved::packed(t, origin);
        } else {
            self.fill_plain(t, origin);
        }
    }

    #[inline(always)]
    fn fill_plain(&mut self, t: &Tensor, origin: Origin) {
        let storage = t.storage();
        if storage.is_inference() {
            inference();
        }
        if forward::active() {
            self.duals = match origin {
                Origin::Output(..) => forward::saved_output(t),
                _ => forward::saved(t),
            };
        }
        if let Origin::Leaf = origin {
            self.held = Held::Leaf(t.clone());
        } else {
            self.held = Held::Bytes(storage.clone());
            self.shape.set(t.layout());
            self.dtype = t.dtype();
            self.lazy = t.lazy();
        }
        self.origin = origin;
        self.version = storage.version();
        if t.numel() * t.dtype().size() >= storage.bytes() {
            self.mark = Mark::Whole(storage.keep_whole());
        } else {
            self.mark = Mark::Part(storage.keep_part(t.layout(), t.dtype()));
        }
    }

    #[inline]
    fn storage(&self) -> Option<&Storage> {
        match &self.held {
            Held::Leaf(t) | Held::Gone(t) => Some(t.storage()),
            Held::Bytes(storage) => Some(storage),
            Held::Nothing => None,
        }
    }

    /// The tensor; of a leaf, itself.
    fn tensor(&self) -> Result<Tensor> {
        Ok(match &self.held {
            Held::Leaf(t) | Held::Gone(t) => t.clone(),
            Held::Bytes(storage) => Tensor(Arc::new(Impl {
                storage: storage.clone(),
                layout: self.shape.layout(),
                dtype: self.dtype,
                lazy: self.lazy,
                meta: MetaCell::new(),
            })),
            Held::Nothing => bail!(Runtime, "a tensor needed for backward was not saved"),
        })
    }

    fn unhooked(t: &Tensor, origin: Origin) -> Saved {
        let mut s = Saved::NOTHING;
        s.fill_plain(t, origin);
        s
    }

    #[cold]
    fn packed(t: &Tensor, origin: Origin) -> Saved {
        let Some(hook) = mode::pack_hook() else { return Saved::unhooked(t, origin) };
        // The hook sees the tensor with its history, but what it does with it is nobody's graph. It gets
        // another handle where keeping this one would close a reference cycle.
        let packed = {
            let _off = mode::GradMode::new(false);
            match &origin {
                Origin::Leaf => pack(&*hook, t),
                Origin::Edge(e) => pack(&*hook, &recorded_as(t, e.clone())),
                Origin::Nth(_) => match t.edge() {
                    Some(e) => pack(&*hook, &recorded_as(t, e)),
                    None => pack(&*hook, &t.detach()),
                },
                Origin::Nothing | Origin::Output(_) => pack(&*hook, &t.detach()),
            }
        };
        let made = packed.and_then(|p| Ok((p, Tensor::empty(&[0], t.dtype(), t.device())?)));
        match made {
            Ok((p, nothing)) => {
                let origin = match origin {
                    // Its bytes are the hook's now; the gradient still goes to the leaf.
                    Origin::Leaf => t.edge().map_or(Origin::Nothing, Origin::Edge),
                    o => o,
                };
                let mut s = Saved::NOTHING;
                s.held = Held::Gone(nothing);
                s.mark = Mark::Packed(p);
                s.origin = origin;
                s.duals = forward::saved(t);
                s
            }
            Err(e) => {
                mode::set_record_error(e);
                Saved::unhooked(t, origin)
            }
        }
    }

    /// The bytes as they were when they were saved; `None`: they still are where they were.
    fn moved(&self, node: Option<&Node>) -> Result<Option<Tensor>> {
        let Some(storage) = self.storage() else { return Ok(None) };
        let now = storage.version();
        let kept = match &self.mark {
            Mark::Nothing => return Ok(None),
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
                let t = self.tensor()?;
                let layout = match &self.mark {
                    Mark::Part(_) => Layout::contiguous(t.shape()),
                    _ => t.layout().clone(),
                };
                let old = Tensor::from_parts(bytes, layout, t.dtype());
                Ok(Some(if t.is_lazy() { old.marked(t.lazy()) } else { old }))
            }
            Some(Kept::Lost(who)) => self.stale(node, now, Some((&who.0, who.1))),
            None => self.stale(node, now, None),
        }
    }

    #[cold]
    fn stale<T>(&self, node: Option<&Node>, now: u32, who: Option<(&str, Site)>) -> Result<T> {
        let op = node.map_or("a Function whose graph is gone", |n| &*n.name);
        let role = match &self.origin {
            Origin::Output(nr) => format!(", which is output {nr} of {op},"),
            _ => String::new(),
        };
        let writer = match who {
            Some((w, at)) => format!(" and overwritten by {w}{}", at.suffix()),
            None => String::new(),
        };
        let t = self.tensor()?;
        bail!(
            Runtime,
            "one of the variables needed for gradient computation has been modified by an inplace operation: [{} {:?}]{role} is at version {now}; expected version {} instead. It was saved by {op}{}{writer}. Hint: replace the in-place operation by its out-of-place form, or clone the tensor before; without set_strict_inplace(True) Pyrite keeps a copy by itself.",
            t.dtype(),
            t.shape(),
            self.version,
            node.map_or_else(String::new, |n| n.site.suffix())
        );
    }

    /// The tensor, with its history if a graph of the backward is wanted. `node` is the one it was saved for.
    pub fn unpack(&self, node: &Arc<Node>) -> Result<Tensor> {
        self.recorded(node).map(|t| if forward::active() { forward::restore(t, &self.duals) } else { t })
    }

    /// The values alone, for kernels.
    pub fn values(&self, node: &Node) -> Result<Tensor> {
        match self.moved(Some(node))? {
            Some(t) => Ok(t),
            None => self.tensor(),
        }
    }

    /// As [`Saved::unpack`], with its history whatever the mode: what users see. Without the node, a result of
    /// the operation has none.
    pub fn unpack_whole(&self, node: Option<&Arc<Node>>) -> Result<Tensor> {
        let t = self.with_history(node)?;
        Ok(if forward::active() { forward::restore(t, &self.duals) } else { t })
    }

    /// Is `t` what was saved, unchanged in its values and its history?
    pub fn is_still(&self, t: &Tensor) -> bool {
        let same = self.storage().is_some_and(|s| s.same(t.storage()) && s.version() == self.version)
            && !matches!(self.mark, Mark::Packed(_));
        same && match (&self.origin, &self.held) {
            (Origin::Leaf, Held::Leaf(leaf)) => leaf.same(t),
            (Origin::Edge(e), _) => t.edge().is_some_and(|now| now.nr == e.nr && now.to.key() == e.to.key()),
            (Origin::Nothing, _) => !t.requires_grad(),
            _ => false,
        }
    }

    /// Which input (of those the edges belong to) or result of the node this is; `None` if it can't be told.
    pub fn place(&self, node: &Node) -> Option<Place> {
        let find = |want: &Edge| {
            node.edges()
                .iter()
                .flatten()
                .position(|e| e.nr == want.nr && e.to.key() == want.to.key())
                .map(|i| Place::Input(i as u8))
        };
        match &self.origin {
            Origin::Output(nr) => Some(Place::Output(*nr)),
            Origin::Nth(i) => Some(Place::Input(*i)),
            Origin::Edge(e) => find(e),
            Origin::Leaf => match &self.held {
                Held::Leaf(t) => t.edge().as_ref().and_then(find),
                _ => None,
            },
            Origin::Nothing => None,
        }
    }

    /// Is there a tensor?
    pub fn is_empty(&self) -> bool {
        matches!(self.held, Held::Nothing)
    }

    /// Puts a pair of hooks on this saved tensor, once: it is handed to `hook` now.
    pub fn set_hook(&mut self, node: &Arc<Node>, hook: &dyn PackHook) -> Result<()> {
        ensure!(
            !matches!(self.mark, Mark::Packed(_)),
            Runtime,
            "Calling register_hooks on a saved tensor whose hooks have already been set. Hint: only one pair of hooks is allowed at a time."
        );
        let t = self.with_history(Some(node))?;
        let packed = pack(hook, &t)?;
        let nothing = Tensor::empty(&[0], t.dtype(), t.device())?;
        if let (Mark::Whole(epoch), Some(storage)) = (&self.mark, self.storage()) {
            storage.let_go(*epoch);
        }
        if let Origin::Leaf = self.origin {
            self.origin = t.edge().map_or(Origin::Nothing, Origin::Edge);
        }
        self.held = Held::Gone(nothing);
        self.mark = Mark::Packed(packed);
        Ok(())
    }

    fn recorded(&self, node: &Arc<Node>) -> Result<Tensor> {
        if !mode::is_grad_enabled() {
            return match (self.moved(Some(node))?, &self.held) {
                (Some(t), _) => Ok(t),
                (None, Held::Leaf(t)) => Ok(t.detach()),
                (None, _) => self.tensor(),
            };
        }
        self.with_history(Some(node))
    }

    fn with_history(&self, node: Option<&Arc<Node>>) -> Result<Tensor> {
        let old = self.moved(node.map(|n| &**n))?;
        let edge = match (&self.origin, &self.held) {
            (Origin::Leaf, Held::Leaf(t)) => match old {
                // A leaf that was written to since: its old value, with the gradient still going to the leaf.
                Some(_) => t.edge(),
                None => return Ok(t.clone()),
            },
            (Origin::Edge(e), _) => Some(e.clone()),
            (Origin::Nth(i), _) => node.and_then(|n| n.edges().get(*i as usize).cloned().flatten()),
            (Origin::Output(nr), _) => node.map(|n| Edge::new(n.clone(), *nr)),
            (Origin::Leaf | Origin::Nothing, _) => None,
        };
        let t = match old {
            Some(t) => t,
            None => self.tensor()?,
        };
        Ok(match edge {
            Some(edge) => recorded_as(&t, edge),
            None => t,
        })
    }
}

/// Where the gradient of input `t` goes.
#[inline]
fn origin(t: &Tensor, edge: Option<Edge>) -> Origin {
    match edge {
        Some(Edge { to: Target::Leaf(leaf), .. }) if leaf.same(t) => Origin::Leaf,
        Some(e) => Origin::Edge(e),
        None => Origin::Nothing,
    }
}

/// Another tensor over the data of `t` with this history.
fn recorded_as(t: &Tensor, edge: Edge) -> Tensor {
    let meta = MetaCell::with(Arc::new(Meta::with_history(edge)));
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
        if let (Mark::Whole(epoch), Some(storage)) = (&self.mark, self.storage()) {
            storage.let_go(*epoch);
        }
        // A saved tensor can hold the rest of a long graph alive: hand it to the iterative drop.
        if let Origin::Edge(e) = std::mem::replace(&mut self.origin, Origin::Nothing) {
            e.drop_later();
        }
    }
}
