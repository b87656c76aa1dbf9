//! Scaled dot-product attention: `softmax(q k^T * scale + mask) v`. The common cases go in blocks
//! (`attention_tiles.rs`); dropout, masks per batch and masks with gradients are composed of library ops.

use super::nn_misc::{same_device, signed, want_float};
use super::{Operand, attention_tiles, reduce};
use crate::autograd;
use crate::op;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::{DType, Device, Result, Scalar, ensure};

/// Options of [`attention`].
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// bool (true: takes part) or floating (added to the scores).
    pub mask: Option<&'a Tensor>,
    pub dropout: f64,
    pub causal: bool,
    pub scale: Option<f64>,
    /// Fewer heads in key and value than in query: each serves a group.
    pub grouped: bool,
}

/// `q` [..., L, E], `k` [..., S, E], `v` [..., S, Ev] -> [..., L, Ev].
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, o: Attention) -> Result<Tensor> {
    const OP: &str = "scaled_dot_product_attention";
    ensure!(
        q.ndim() >= 2 && k.ndim() >= 2 && v.ndim() >= 2,
        Runtime,
        "{OP}: Expected query, key, and value to all be at least 2 dimensional, but got {:?}, {:?} and {:?}",
        q.shape(),
        k.shape(),
        v.shape()
    );
    ensure!(
        q.dtype() == k.dtype() && q.dtype() == v.dtype(),
        Runtime,
        "{OP}: Expected query, key, and value to have the same dtype, but got query.dtype: {} key.dtype: {} and value.dtype: {} instead.",
        q.dtype().name(),
        k.dtype().name(),
        v.dtype().name()
    );
    same_device(OP, &[q, k, v])?;
    want_float(OP, q)?;
    ensure!(
        !(o.causal && o.mask.is_some()),
        Runtime,
        "{OP}: Explicit attn_mask should not be set when is_causal=True"
    );
    let e = q.shape()[q.ndim() - 1];
    let (l, s) = (q.shape()[q.ndim() - 2], k.shape()[k.ndim() - 2]);
    ensure!(
        e == k.shape()[k.ndim() - 1] && s == v.shape()[v.ndim() - 2],
        Shape,
        "{OP}: query {:?}, key {:?} and value {:?} do not fit: query and key need one embedding size, key and value one length",
        q.shape(),
        k.shape(),
        v.shape()
    );
    let (k, v) =
        if o.grouped { (share_heads(OP, k, q)?, share_heads(OP, v, q)?) } else { (k.clone(), v.clone()) };
    let scale = o.scale.unwrap_or(1.0 / (e.max(1) as f64).sqrt());
    if let Some(y) = tiled(q, &k, &v, &o, scale)? {
        return Ok(y);
    }
    // The smaller factor is scaled, not the scores.
    let scores = super::matmul(&super::mul(q, scale)?, &super::transpose(&k, -2, -1)?)?;
    let never = Operand::Number(Scalar::Float(f64::NEG_INFINITY));
    let scores = match o.mask {
        _ if o.causal => super::masked_fill(&scores, &later(l, s, q)?, never)?,
        Some(m) if m.dtype().is_bool() => super::masked_fill(&scores, &super::logical_not(m)?, never)?,
        Some(m) => {
            ensure!(
                m.dtype() == q.dtype() || m.dtype() == DType::F32,
                Runtime,
                "{OP}: Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: {} and query.dtype: {} instead.",
                m.dtype().name(),
                q.dtype().name()
            );
            super::add(&scores, &super::to_dtype(m, q.dtype())?)?
        }
        None => scores,
    };
    let p = match o.mask {
        None => super::softmax::softmax(&scores, -1, None)?,
        Some(_) => {
            // Rows without any partner give 0, not NaN.
            let dead = {
                let _off = autograd::GradMode::new(false);
                super::eq(&reduce::amax(&scores.detach(), Some(&[-1]), true)?, f64::NEG_INFINITY)?
            };
            let zero = Operand::Number(Scalar::Float(0.0));
            let safe = super::masked_fill(&scores, &dead, zero)?;
            super::masked_fill(&super::softmax::softmax(&safe, -1, None)?, &dead, zero)?
        }
    };
    let p = super::dropout::dropout(&p, o.dropout, true)?;
    super::matmul(&p, &v)
}

/// In blocks, where the batch dimensions agree and the mask (if any) is the same for all of them.
fn tiled(q: &Tensor, k: &Tensor, v: &Tensor, o: &Attention, scale: f64) -> Result<Option<Tensor>> {
    let n = q.ndim();
    let batch = &q.shape()[..n - 2];
    let (l, s) = (q.shape()[n - 2], k.shape()[k.ndim() - 2]);
    let same = |t: &Tensor| t.ndim() == n && t.shape()[..n - 2] == *batch;
    let plain = |m: &Tensor| {
        let (r, shape) = (m.ndim(), m.shape());
        let lead = r.saturating_sub(2);
        let fits = r >= 2
            && shape[..lead].iter().all(|d| *d == 1)
            && [1, l].contains(&shape[lead])
            && shape[r - 1] == s;
        let known = m.dtype().is_bool() || m.dtype() == q.dtype() || m.dtype() == DType::F32;
        fits && known && lead <= n - 2 && m.device() == q.device() && !autograd::flows(m)
    };
    let usable = o.dropout == 0.0
        && q.device() == Device::Cpu
        && same(k)
        && same(v)
        && q.numel() > 0
        && k.numel() > 0
        && v.numel() > 0
        && o.mask.is_none_or(plain);
    if !usable {
        return Ok(None);
    }
    let mask = match o.mask {
        Some(m) => {
            let lead = m.ndim() - 2;
            Some(super::reshape_to(&m.detach(), &m.shape()[lead..])?)
        }
        None => None,
    };
    // Halves are computed in f32.
    let wide = super::nn_misc::compute_type(q.dtype());
    let flat = |t: &Tensor| attention_tiles::flat(&super::to_dtype(t, wide)?);
    let setup = attention_tiles::Setup { scale, causal: o.causal, mask };
    let y = attention_tiles::attend(&flat(q)?, &flat(k)?, &flat(v)?, setup)?;
    Ok(Some(super::to_dtype(&attention_tiles::unflat(&y, q)?, q.dtype())?))
}

/// True where the key stands after the query.
fn later(l: usize, s: usize, like: &Tensor) -> Result<Tensor> {
    let _off = autograd::GradMode::new(false);
    let range = |n: usize| {
        super::create::arange(
            Scalar::Int(0),
            Scalar::Int(n as i64),
            Scalar::Int(1),
            DType::I64,
            like.device(),
        )
    };
    super::lt(&super::unsqueeze(&range(l)?, 1)?, &range(s)?)
}

/// Heads (dimension -3) of `t` repeated to those of `q`.
fn share_heads(op: &str, t: &Tensor, q: &Tensor) -> Result<Tensor> {
    ensure!(
        t.ndim() >= 3 && q.ndim() >= 3,
        Runtime,
        "{op}: enable_gqa=True needs a dimension of heads, got {:?} and {:?}",
        q.shape(),
        t.shape()
    );
    let (have, want) = (t.shape()[t.ndim() - 3], q.shape()[q.ndim() - 3]);
    if have == want {
        return Ok(t.clone());
    }
    ensure!(
        have > 0 && want % have == 0,
        Runtime,
        "{op}: enable_gqa=True needs the query's {want} heads to be a multiple of the {have} heads of key and value"
    );
    let at = t.ndim() - 2;
    let wide = super::unsqueeze(t, at as i64)?;
    let mut shape = signed(wide.shape());
    shape[at] = (want / have) as i64;
    let mut joined = signed(t.shape());
    joined[at - 1] = want as i64;
    super::reshape(&super::expand(&wide, &shape)?, &joined)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "scaled_dot_product_attention",
        FUNCTION,
        ns = "nn",
        "`softmax(query @ key.T * scale + mask) @ value` over the last two dimensions.",
        "query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor? = None, dropout_p: float = 0.0, is_causal: bool = False, *, scale: float? = None, enable_gqa: bool = False",
        |a| {
            let o = Attention {
                mask: a.tensor_opt(3)?,
                dropout: a.float(4)?,
                causal: a.bool(5)?,
                scale: a.float_opt(6)?,
                grouped: a.bool(7)?,
            };
            Ok(attention(a.tensor(0)?, a.tensor(1)?, a.tensor(2)?, o)?.into())
        }
    );
}
