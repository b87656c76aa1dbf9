//! Recording an operator whose backward is a closure: what it saves, and its outputs' place in the graph.

use super::node::{Ctx, Edge, Grads, KeptValue, Node, Rule, SavedItem, info, make};
use super::saved::{Place, Saved};
use super::{Meta, forward, mode};
use crate::tensor::Tensor;
use pyrite_core::{Result, bail};
use smallvec::SmallVec;
use std::sync::{Arc, Mutex, PoisonError};

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

/// `ANY`: takes batches.
struct Closure<F, const ANY: bool> {
    saved: Mutex<Option<SmallVec<[Option<Saved>; 3]>>>,
    f: F,
}

impl<F, const ANY: bool> Rule for Closure<F, ANY>
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
    fn takes_batches(&self) -> bool {
        ANY
    }
    fn kept_names(&self, node: &Node) -> Vec<&'static str> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let list = saved.iter().flatten().enumerate();
        list.filter_map(|(i, s)| name_of(node, i, s.as_ref()?)).collect()
    }
    fn kept(&self, node: &Arc<Node>, name: &str) -> Result<Option<KeptValue>> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = saved.as_ref() else { return second_backward(node) };
        for (i, s) in list.iter().enumerate() {
            if let Some(s) = s
                && name_of(node, i, s) == Some(name)
            {
                return s.unpack(node).map(|t| Some(KeptValue::Tensor(t)));
            }
        }
        Ok(None)
    }
    fn visit_saved(&self, node: &Arc<Node>, f: &mut dyn FnMut(SavedItem) -> Result<bool>) -> Result<()> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = saved.as_mut() else { return second_backward(node) };
        let mut places: SmallVec<[Option<Place>; 3]> =
            list.iter().map(|s| s.as_ref().and_then(|s| s.place(node))).collect();
        // Inputs without a gradient have no edge to tell them by: they fill the places that are left, in order.
        for k in 0..places.len() {
            if places[k].is_none() && list[k].is_some() {
                places[k] = (0..node.edges().len().max(list.len()) as u8)
                    .filter(|i| node.edges().get(*i as usize).is_none_or(Option::is_none))
                    .map(Place::Input)
                    .find(|p| !places.contains(&Some(*p)));
            }
        }
        for (s, place) in list.iter_mut().zip(places) {
            if let Some(s) = s
                && f(SavedItem::Tensor(place, s))?
            {
                break;
            }
        }
        Ok(())
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

/// PyTorch's name of saved tensor number `i`, where it has one.
fn name_of(node: &Node, i: usize, s: &Saved) -> Option<&'static str> {
    match &*node.name {
        _ if s.is_output() => Some("result"),
        "MmBackward0" | "BmmBackward0" => ["mat2", "self"].get(i).copied(),
        "ConvolutionBackward0" => ["input", "weight"].get(i).copied(),
        _ => None,
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
    let node = node_of::<F, false>(name, inputs, outputs, save, f);
    if is_recorded(&node) {
        set_history(&node, outputs);
    }
}

/// As [`attach`] for an `f` that also takes gradients with a batch dimension in front ([`Ctx::lead`]): what it returns
/// then has that dimension too. Saved tensors and constants have none.
pub fn attach_any<F>(name: &'static str, inputs: &[&Tensor], outputs: &[&Tensor], save: &[Save], f: F)
where
    F: Fn(&mut Ctx) -> Result<Grads> + Send + Sync + 'static,
{
    let node = node_of::<F, true>(name, inputs, outputs, save, f);
    if is_recorded(&node) {
        set_history(&node, outputs);
    }
}

/// In forward mode a node may exist for the tangents alone.
#[inline]
pub(super) fn is_recorded(node: &Node) -> bool {
    !forward::active() || mode::is_grad_enabled() && node.edges().iter().any(Option::is_some)
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
    node_of::<F, false>(name, inputs, outputs, save, f)
}

fn node_of<F, const ANY: bool>(
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
        Closure::<F, ANY> { saved: Mutex::new(Some(saved)), f },
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
            m.set_storied();
            let old = m.lock().grad_fn.replace(edge);
            m.set_requires(true);
            if let Some(e) = old {
                e.drop_later();
            }
        }
    }
}
