//! Table rows in the backward graph: what a run saves, and the one backward rule of all rows.

use super::Operand;
use super::elementwise::{Operands, Types, launch_new, result_layout};
use super::row_tangent::Run;
use crate::autograd::node::{self, Ctx, Edge, Grads, KeptValue, Node, Rule, SavedItem};
use crate::autograd::saved::{Place, Saved};
use crate::autograd::{forward, inplace, is_grad_enabled};
use crate::tensor::Tensor;
use pyrite_core::backend::Formula;
use pyrite_core::rows::{Row, Use};
use pyrite_core::{DType, Result, Scalar, bail};
use smallvec::{SmallVec, smallvec};
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub(super) fn tensors_of<'a>(ops: &[Operand<'a>]) -> SmallVec<[&'a Tensor; 4]> {
    ops.iter().filter_map(|o| if let Operand::Tensor(t) = o { Some(*t) } else { None }).collect()
}

pub(super) fn wants(o: &Operand) -> bool {
    matches!(o, Operand::Tensor(t) if t.meta().is_some() && t.requires_grad())
}

/// Is this operand the tensor that an in-place run writes to? (One that overlaps it otherwise is refused.)
fn is_written(o: &Operand, out: &Tensor) -> bool {
    matches!(o, Operand::Tensor(t) if t.storage().same(out.storage())
        && t.shape() == out.shape() && t.strides() == out.strides()
        && t.layout().offset() == out.layout().offset())
}

/// Do gradients of an in-place run need what is about to be overwritten?
pub(super) fn old_value_needed(row: &Row, ops: &[Operand]) -> bool {
    if let (Operand::Tensor(target), rest) = (&ops[0], &ops[1..])
        && rest.iter().any(|o| is_written(o, target))
    {
        return true;
    }
    let flows = |o: &Operand| wants(o) || matches!(o, Operand::Tensor(t) if forward::has(t));
    row.grads.iter().any(|g| flows(&ops[g.input as usize]) && g.uses.contains(&Use::Input(0)))
}

/// PyTorch's name of a row's node, made once.
fn node_name(row: &'static Row) -> &'static str {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        pyrite_core::rows::ROWS
            .iter()
            .map(|r| {
                let base = match r.name {
                    "gelu_erf" | "gelu_tanh" => "gelu",
                    "clamp_scalars" | "clamp_tensors" => "clamp",
                    "masked_fill_scalar" => "masked_fill",
                    "nan_to_num_scalars" => "nan_to_num",
                    "square" | "cube" => "pow",
                    n => n,
                };
                let camel: String = base.split('_').map(|w| w[..1].to_uppercase() + &w[1..]).collect();
                camel + "Backward0"
            })
            .collect()
    });
    &names[row.id.0 as usize]
}

/// Makes the node of a run. `inplace`: `None` for a new result, `Some(old)` for a written one.
pub(super) fn record(
    row: &'static Row,
    types: &Types,
    ops: &[Operand],
    params: &[Scalar],
    out: &Tensor,
    inplace: Option<Option<&Tensor>>,
) -> Result<()> {
    if forward::active() {
        return record_both(row, types, ops, params, out, inplace);
    }
    if !ops.iter().any(wants) || !types.out.is_differentiable() {
        return Ok(());
    }
    record_node(row, types, ops, params, out, inplace)
}

/// As [`record`], with tangents.
#[cold]
fn record_both(
    row: &'static Row,
    types: &Types,
    ops: &[Operand],
    params: &[Scalar],
    out: &Tensor,
    inplace: Option<Option<&Tensor>>,
) -> Result<()> {
    let flow = if types.out.is_differentiable() { forward::begin(&tensors_of(ops), &[out]) } else { None };
    if is_grad_enabled() && ops.iter().any(wants) && types.out.is_differentiable() {
        record_node(row, types, ops, params, out, inplace)?;
    }
    if let Some(flow) = flow {
        let old: Operands = match inplace {
            Some(Some(old)) => {
                ops.iter().map(|o| if is_written(o, out) { Operand::Tensor(old) } else { *o }).collect()
            }
            _ => ops.iter().copied().collect(),
        };
        Run { row, types, ops: &old, params, out }.propagate(&flow);
    }
    Ok(())
}

fn record_node(
    row: &'static Row,
    types: &Types,
    ops: &[Operand],
    params: &[Scalar],
    out: &Tensor,
    inplace: Option<Option<&Tensor>>,
) -> Result<()> {
    // Which inputs and whether the output must be kept: the union over the gradients wanted.
    let (mut keep, mut keep_out) = (0u8, false);
    for (i, _) in ops.iter().enumerate().filter(|o| wants(o.1)) {
        for u in row.grad(i).map_or(&[][..], |g| g.uses) {
            match u {
                Use::Input(k) => keep |= 1 << k,
                Use::Output => keep_out = true,
            }
        }
    }
    let run = Recording { row, compute: types.compute, ops, params, out, inplace };
    // One shape of node per number of kept values, so that they lie in the node itself.
    let first = keep.trailing_zeros() as u8;
    let last = 7 - keep.leading_zeros() as u8;
    let node = match (keep.count_ones(), keep_out) {
        (0, false) => run.make::<[Slot; 0]>(|_, _| {}),
        (0, true) => run.make::<[Slot; 1]>(|[a], _| run.keep_result(a)),
        (1, false) => run.make::<[Slot; 1]>(|[a], e| run.keep_input(a, first, e)),
        (1, true) => run.make::<[Slot; 2]>(|[a, b], e| {
            run.keep_input(a, first, e);
            run.keep_result(b);
        }),
        (2, false) => run.make::<[Slot; 2]>(|[a, b], e| {
            run.keep_input(a, first, e);
            run.keep_input(b, last, e);
        }),
        _ => run.many(keep, keep_out),
    };
    if inplace.is_some() {
        inplace::rebase(out, node);
    } else {
        node::set_edge(out, Edge::new(node, 0));
    }
    Ok(())
}

/// A run that is being recorded.
struct Recording<'a> {
    row: &'static Row,
    compute: DType,
    ops: &'a [Operand<'a>],
    params: &'a [Scalar],
    out: &'a Tensor,
    inplace: Option<Option<&'a Tensor>>,
}

impl Recording<'_> {
    #[inline(always)]
    fn make<S: Slots>(&self, fill: impl FnOnce(&mut S, &[Option<Edge>])) -> Arc<Node> {
        let inputs = self.ops.iter().map(|o| match o {
            Operand::Tensor(t) if t.meta().is_some() => Some(*t),
            _ => None,
        });
        let rule = RowRule {
            row: self.row,
            compute: self.compute,
            params: self.params.into(),
            saved: Mutex::new(Memory { kept: MaybeUninit::uninit(), filled: false, released: false }),
        };
        node::make_in_place(node_name(self.row), inputs, self.out, rule, |rule, edges| {
            fill(rule.saved.get_mut().unwrap_or_else(PoisonError::into_inner).empty(), edges)
        })
    }
    #[inline(always)]
    fn keep_input(&self, slot: &mut Slot, i: u8, edges: &[Option<Edge>]) {
        slot.at = i;
        let o = &self.ops[i as usize];
        match o {
            Operand::Number(s) => slot.number = Some(*s),
            Operand::Tensor(t) => {
                let t = match self.inplace {
                    // The history is still that of the old value: rebasing comes later.
                    Some(Some(old)) if is_written(o, self.out) => old,
                    _ => *t,
                };
                slot.saved.fill_nth(t, i, &edges[i as usize]);
            }
        }
    }
    #[inline(always)]
    fn keep_result(&self, slot: &mut Slot) {
        slot.at = OUTPUT;
        slot.saved.fill_output(self.out, 0);
    }
    #[cold]
    fn many(&self, keep: u8, keep_out: bool) -> Arc<Node> {
        self.make::<Vec<Slot>>(|slots, edges| {
            slots.resize_with(keep.count_ones() as usize + keep_out as usize, || Slot::EMPTY);
            let inputs = (0..8).filter(|i| keep >> i & 1 == 1).map(Some);
            for (slot, i) in slots.iter_mut().zip(inputs.chain([None])) {
                match i {
                    Some(i) => self.keep_input(slot, i, edges),
                    None => self.keep_result(slot),
                }
            }
        })
    }
}

/// The numbers given to a row, mostly none or one.
enum Numbers {
    None,
    One(Scalar),
    Many(Box<[Scalar]>),
}

impl From<&[Scalar]> for Numbers {
    #[inline(always)]
    fn from(list: &[Scalar]) -> Numbers {
        match list {
            [] => Numbers::None,
            [s] => Numbers::One(*s),
            _ => Numbers::Many(list.into()),
        }
    }
}

impl std::ops::Deref for Numbers {
    type Target = [Scalar];
    fn deref(&self) -> &[Scalar] {
        match self {
            Numbers::None => &[],
            Numbers::One(s) => std::slice::from_ref(s),
            Numbers::Many(list) => list,
        }
    }
}

/// PyTorch's name of a kept value.
fn name_of(row: &Row, at: u8) -> &'static str {
    match (row.name, at) {
        (_, OUTPUT) => "result",
        ("where", 0) => "condition",
        ("where", 1) => "self",
        ("where", _) => "other",
        (_, 0) => "self",
        ("pow", _) => "exponent",
        ("lerp", 1) => "end",
        ("lerp", _) => "weight",
        ("addcmul" | "addcdiv", 1) => "tensor1",
        ("addcmul" | "addcdiv", _) => "tensor2",
        (_, 1) => "other",
        (_, k) => row.inputs.get(k as usize).copied().unwrap_or("other"),
    }
}

/// Stands for the output in a list of inputs.
const OUTPUT: u8 = u8::MAX;

/// A kept value: a tensor, or a number if there is one.
struct Slot {
    /// Which input this is, or [`OUTPUT`].
    at: u8,
    number: Option<Scalar>,
    saved: Saved,
}

impl Slot {
    const EMPTY: Slot = Slot { at: 0, number: None, saved: Saved::NOTHING };
}

/// The places of a node's kept values.
trait Slots: AsRef<[Slot]> + AsMut<[Slot]> + Send + 'static {
    /// Makes all of them empty.
    fn clear(place: &mut MaybeUninit<Self>) -> &mut Self
    where
        Self: Sized;
}

impl<const N: usize> Slots for [Slot; N] {
    #[inline(always)]
    fn clear(place: &mut MaybeUninit<Self>) -> &mut Self {
        let first = place.as_mut_ptr() as *mut Slot;
        // SAFETY: `first` is the beginning of an array of N slots that is borrowed here; every field of
        // every slot is written before the array counts as initialised.
        unsafe {
            for i in 0..N {
                let p = first.add(i);
                (&raw mut (*p).at).write(0);
                (&raw mut (*p).number).write(None);
                Saved::write_nothing(&raw mut (*p).saved);
            }
            place.assume_init_mut()
        }
    }
}

impl Slots for Vec<Slot> {
    fn clear(place: &mut MaybeUninit<Self>) -> &mut Self {
        place.write(Vec::new())
    }
}

/// The backward of a row: its gradient formulas as fused kernels, or over tensors when a graph of
/// the backward is wanted.
struct RowRule<S> {
    row: &'static Row,
    compute: DType,
    params: Numbers,
    saved: Mutex<Memory<S>>,
}

/// What a node keeps for its backward.
struct Memory<S> {
    /// Initialised if `filled`: the slots are written where they stay.
    kept: MaybeUninit<S>,
    filled: bool,
    /// Given back after a backward that did not retain the graph.
    released: bool,
}

impl<S: Slots> Memory<S> {
    /// Call once.
    #[inline(always)]
    fn empty(&mut self) -> &mut S {
        let kept = S::clear(&mut self.kept);
        self.filled = true;
        kept
    }
    fn slots(&self) -> &[Slot] {
        // SAFETY: `filled` says that `kept` is initialised.
        if self.filled { unsafe { self.kept.assume_init_ref() }.as_ref() } else { &[] }
    }
    fn slots_mut(&mut self) -> &mut [Slot] {
        // SAFETY: as above.
        if self.filled { unsafe { self.kept.assume_init_mut() }.as_mut() } else { &mut [] }
    }
}

impl<S> Drop for Memory<S> {
    #[inline]
    fn drop(&mut self) {
        if self.filled {
            // SAFETY: `filled` says that `kept` is initialised, and nothing uses it after this.
            unsafe { self.kept.assume_init_drop() };
        }
    }
}

/// An owned operand.
enum Owned {
    Nothing,
    Number(Scalar),
    Tensor(Tensor),
}

impl<S: Slots> RowRule<S> {
    /// The inputs that the formulas need, and the output. `history`: with what made them.
    fn unpack(&self, node: &Arc<Node>, history: bool) -> Result<(SmallVec<[Owned; 4]>, Option<Tensor>)> {
        let mut inputs: SmallVec<[Owned; 4]> = self.row.inputs.iter().map(|_| Owned::Nothing).collect();
        let mut output = None;
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if saved.released {
            return node::second_backward(node);
        }
        for slot in saved.slots() {
            let value = match slot.number {
                Some(s) => Owned::Number(s),
                None => {
                    Owned::Tensor(if history { slot.saved.unpack(node)? } else { slot.saved.values(node)? })
                }
            };
            match (slot.at, value) {
                (OUTPUT, Owned::Tensor(t)) => output = Some(t),
                (i, value) => inputs[i as usize] = value,
            }
        }
        Ok((inputs, output))
    }
}

impl<S: Slots> Rule for RowRule<S> {
    fn backward(&self, cx: &mut Ctx) -> Result<Grads> {
        let g = cx.grad(0)?;
        let (inputs, output) = self.unpack(cx.node, cx.create_graph)?;
        let mut out = Grads::new();
        for i in 0..self.row.inputs.len() {
            let edge = cx.needs(i).then(|| cx.node.input_dtype(i)).flatten();
            let Some(want) = edge else {
                out.push(None);
                continue;
            };
            let Some(formula) = self.row.grad(i) else {
                bail!(
                    NotImplemented,
                    "{}: the derivative for argument '{}' is not implemented",
                    self.row.name,
                    self.row.inputs[i]
                );
            };
            let text = formula.text.body;
            let alpha_one = text == "alpha * g"
                && self.params.first().is_some_and(|a| a.f64() == 1.0 && !matches!(a, Scalar::Complex(..)));
            out.push(Some(if text == "g" || alpha_one {
                g.clone()
            } else if text == "0.0 * g" {
                Tensor::zeros(g.shape(), want, g.device())?
            } else if cx.create_graph {
                super::formula::eval(
                    self.row,
                    formula,
                    &g,
                    &inputs_view(&inputs),
                    output.as_ref(),
                    &self.params,
                    self.compute.is_complex(),
                )?
            } else {
                let mut list: Operands = smallvec![Operand::Tensor(&g)];
                for u in formula.uses {
                    match u {
                        Use::Output => match &output {
                            Some(y) => list.push(Operand::Tensor(y)),
                            None => bail!(Runtime, "{}: the output was not saved", self.row.name),
                        },
                        Use::Input(k) => match &inputs[*k as usize] {
                            Owned::Tensor(t) => list.push(Operand::Tensor(t)),
                            Owned::Number(s) => list.push(Operand::Number(*s)),
                            Owned::Nothing => bail!(Runtime, "{}: input {k} was not saved", self.row.name),
                        },
                    }
                }
                let compute =
                    if self.compute.is_differentiable() { self.compute } else { g.dtype().compute() };
                let r = Tensor::empty_strided(result_layout(g.shape(), &list), want, g.device())?;
                launch_new(self.row, Formula::Grad(i as u8), compute, &r, &list, &self.params)?;
                r
            }));
        }
        Ok(out)
    }
    fn kept_names(&self, _: &Node) -> Vec<&'static str> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        saved.slots().iter().map(|s| name_of(self.row, s.at)).collect()
    }
    fn kept(&self, node: &Arc<Node>, name: &str) -> Result<Option<KeptValue>> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = saved.slots().iter().find(|s| name_of(self.row, s.at) == name) else {
            return Ok(None);
        };
        if saved.released {
            return node::second_backward(node);
        }
        Ok(Some(match slot.number {
            Some(s) => KeptValue::Number(s),
            None => KeptValue::Tensor(slot.saved.unpack(node)?),
        }))
    }
    /// Formulas are elementwise: whatever is saved has the dimensions at the end.
    fn takes_batches(&self) -> bool {
        true
    }
    fn visit_saved(&self, node: &Arc<Node>, f: &mut dyn FnMut(SavedItem) -> Result<bool>) -> Result<()> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if saved.released {
            return node::second_backward(node);
        }
        for slot in saved.slots_mut() {
            let item = match (slot.at, slot.number) {
                (OUTPUT, _) => SavedItem::Tensor(Some(Place::Output(0)), &mut slot.saved),
                (i, Some(s)) => SavedItem::Number(i, s),
                (i, None) => SavedItem::Tensor(Some(Place::Input(i)), &mut slot.saved),
            };
            if f(item)? {
                break;
            }
        }
        Ok(())
    }
    fn release(&self) {
        let mut old: SmallVec<[Saved; 2]> = SmallVec::new();
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        // What needs nothing but the incoming gradient can run any number of times.
        saved.released = !saved.slots().is_empty();
        for slot in saved.slots_mut() {
            old.push(std::mem::replace(&mut slot.saved, Saved::NOTHING));
        }
        // Dropped after the lock is gone: a saved tensor can be the last handle on a long graph.
        drop(saved);
        drop(old);
    }
}

fn inputs_view(inputs: &[Owned]) -> SmallVec<[Option<Operand<'_>>; 4]> {
    inputs
        .iter()
        .map(|o| match o {
            Owned::Nothing => None,
            Owned::Number(s) => Some(Operand::Number(*s)),
            Owned::Tensor(t) => Some(Operand::Tensor(t)),
        })
        .collect()
}
