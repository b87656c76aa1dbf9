//! Table rows in the backward graph: what a run saves, and the one backward rule of all rows.

use super::Operand;
use super::elementwise::{Operands, Types, launch, result_layout};
use super::row_tangent::Run;
use crate::autograd::node::{self, Ctx, Edge, Grads, Node, Rule};
use crate::autograd::saved::Saved;
use crate::autograd::{forward, inplace, is_grad_enabled};
use crate::tensor::Tensor;
use pyrite_core::backend::Formula;
use pyrite_core::rows::{Row, Use};
use pyrite_core::{DType, Result, Scalar, bail};
use smallvec::{SmallVec, smallvec};
use std::borrow::Cow;
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
    let mut edges: SmallVec<[Option<Edge>; 2]> = SmallVec::new();
    // Which inputs and whether the output must be kept: the union over the gradients wanted.
    let mut keep = [false; 4];
    let mut keep_out = false;
    for (i, o) in ops.iter().enumerate() {
        let edge = match o {
            Operand::Tensor(t) if t.meta().is_some() => t.edge(),
            _ => None,
        };
        if edge.is_some() {
            for u in row.grad(i).map_or(&[][..], |g| g.uses) {
                match u {
                    Use::Input(k) => keep[*k as usize] = true,
                    Use::Output => keep_out = true,
                }
            }
        }
        edges.push(edge);
    }
    let count = keep.iter().filter(|k| **k).count() + keep_out as usize;
    let mut list = (0..ops.len()).filter(|i| keep[*i]).map(|i| {
        let kept = match &ops[i] {
            Operand::Number(s) => Kept::Number(*s),
            // The history is still that of the old value: rebasing comes later.
            Operand::Tensor(t) => Kept::Tensor(Saved::with_edge(
                match inplace {
                    Some(Some(old)) if is_written(&ops[i], out) => old,
                    _ => t,
                },
                edges[i].clone(),
            )),
        };
        (i as u8, kept)
    });
    let mut next = || list.next().unwrap_or_else(|| (OUTPUT, Kept::Tensor(Saved::output(out, 0))));
    let head = (row, types.compute, params);
    // One shape of node per number of kept values, so that they lie in the node itself.
    let node = match count {
        0 => make(head, [], &mut edges, out),
        1 => make(head, [next()], &mut edges, out),
        2 => make(head, [next(), next()], &mut edges, out),
        n => make(head, (0..n).map(|_| next()).collect::<Box<[_]>>(), &mut edges, out),
    };
    if inplace.is_some() {
        inplace::rebase(out, node);
    } else {
        node::set_edge(out, Edge::new(node, 0));
    }
    Ok(())
}

fn make<S: Slots>(
    (row, compute, params): (&'static Row, DType, &[Scalar]),
    kept: S,
    edges: &mut SmallVec<[Option<Edge>; 2]>,
    out: &Tensor,
) -> Arc<Node> {
    let rule = RowRule {
        row,
        compute,
        params: SmallVec::from_slice(params),
        saved: Mutex::new(Memory { kept, released: false }),
    };
    node::make(Cow::Borrowed(node_name(row)), std::mem::take(edges), smallvec![node::info(out)], rule)
}

/// Stands for the output in a list of inputs.
const OUTPUT: u8 = u8::MAX;

enum Kept {
    Nothing,
    Number(Scalar),
    Tensor(Saved),
}

/// The kept values with the numbers of the inputs they are.
trait Slots: AsRef<[(u8, Kept)]> + AsMut<[(u8, Kept)]> + Send + 'static {}
impl<T: AsRef<[(u8, Kept)]> + AsMut<[(u8, Kept)]> + Send + 'static> Slots for T {}

/// The backward of a row: its gradient formulas as fused kernels, or over tensors when a graph of
/// the backward is wanted.
struct RowRule<S> {
    row: &'static Row,
    compute: DType,
    params: SmallVec<[Scalar; 1]>,
    saved: Mutex<Memory<S>>,
}

/// What a node keeps for its backward.
struct Memory<S> {
    kept: S,
    /// Given back after a backward that did not retain the graph.
    released: bool,
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
        for (i, k) in saved.kept.as_ref() {
            match k {
                Kept::Nothing => {}
                Kept::Number(s) => inputs[*i as usize] = Owned::Number(*s),
                Kept::Tensor(s) => {
                    let t = if history { s.unpack(node)? } else { s.values(node)? };
                    match *i {
                        OUTPUT => output = Some(t),
                        i => inputs[i as usize] = Owned::Tensor(t),
                    }
                }
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
                launch(self.row, Formula::Grad(i as u8), compute, &r, &list, &self.params)?;
                r
            }));
        }
        Ok(out)
    }
    fn release(&self) {
        let mut old: SmallVec<[Kept; 2]> = SmallVec::new();
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        // What needs nothing but the incoming gradient can run any number of times.
        saved.released = !saved.kept.as_ref().is_empty();
        for (_, k) in saved.kept.as_mut() {
            old.push(std::mem::replace(k, Kept::Nothing));
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
