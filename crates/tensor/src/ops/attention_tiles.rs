//! Attention without the matrix of all scores: blocks of queries small enough for the cache, each
//! with all its keys, so that the softmax is exact. The backward computes the blocks again instead of
//! keeping them. Under `create_graph` the gradient is the same formula over whole tensors.
//!
//! Rejected: the online softmax over blocks of keys. Rows of scores of a block fit into the cache for
//! any length met in practice, and one pass over whole rows rescales nothing.

use super::matmul::{bmm, gemm_raw};
use super::nn_misc::signed;
use super::{Operand, mul};
use crate::autograd::{self, GradMode, Save, needs_grad};
use crate::tensor::Tensor;
use pyrite_core::backend::Rowwise;
use pyrite_core::{Dims, Result, Scalar};
use smallvec::smallvec;

/// Scores of one block: 1 MB of f32.
const BLOCK: usize = 1 << 18;

/// What all blocks share. `mask` is [L, S] (or broadcasts to it): bool, or added.
#[derive(Clone)]
pub struct Setup {
    pub scale: f64,
    pub causal: bool,
    pub mask: Option<Tensor>,
}

/// `q` [B, L, E], `k` [B, S, E], `v` [B, S, Ev], of one floating dtype -> [B, L, Ev].
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, s: Setup) -> Result<Tensor> {
    let y = {
        let _off = GradMode::new(false);
        forward(&q.detach(), &k.detach(), &v.detach(), &s)?
    };
    if needs_grad(&[q, k, v]) {
        let save = [Save::Input(q), Save::Input(k), Save::Input(v)];
        autograd::attach("ScaledDotProductAttentionBackward0", &[q, k, v], &[&y], &save, move |cx| {
            let (g, q, k, v) = (cx.grad(0)?, cx.saved(0)?, cx.saved(1)?, cx.saved(2)?);
            let [dq, dk, dv] =
                if cx.create_graph { whole(&g, q, k, v, &s)? } else { backward(&g, q, k, v, &s)? };
            Ok(smallvec![Some(dq), Some(dk), Some(dv)])
        });
    }
    Ok(y)
}

/// Batches and queries of a block: first and end of each, and the keys they see.
struct Block {
    b: (usize, usize),
    l: (usize, usize),
    keys: usize,
}

fn blocks(q: &Tensor, k: &Tensor, causal: bool) -> Vec<Block> {
    let (batch, l, s) = (q.shape()[0], q.shape()[1], k.shape()[1]);
    let most = (BLOCK / s.max(1)).max(16);
    // A causal block leaves out the keys after its last query: several blocks save half of them.
    let rows = if causal { l.div_ceil(8).clamp(64.min(l.max(1)), most) } else { l.clamp(1, most) };
    let each = (BLOCK / (rows * s.max(1)).max(1)).clamp(1, batch.max(1));
    let mut out = Vec::new();
    for b in (0..batch).step_by(each) {
        for i in (0..l).step_by(rows) {
            let end = l.min(i + rows);
            out.push(Block {
                b: (b, batch.min(b + each)),
                l: (i, end),
                keys: if causal { s.min(end) } else { s },
            });
        }
    }
    out
}

/// A stretch of batches and of the second dimension, as a view without history.
fn part(t: &Tensor, b: (usize, usize), r: (usize, usize)) -> Result<Tensor> {
    let l = t.layout().slice(0, b.0, b.1 - b.0, 1)?.slice(1, r.0, r.1 - r.0, 1)?;
    Ok(super::with_layout(t, l))
}

/// The weights of a block, [b, l, keys].
fn weights(q: &Tensor, k: &Tensor, s: &Setup, at: &Block) -> Result<Tensor> {
    let (q, k) = (part(q, at.b, at.l)?, part(k, at.b, (0, at.keys))?);
    let shape = [q.shape()[0], q.shape()[1], at.keys];
    let scores = Tensor::empty(&shape, q.dtype(), q.device())?;
    gemm_raw(&q, &super::transpose(&k, 1, 2)?, &scores, None, s.scale, 0.0)?;
    let scores = masked(scores, s, at)?;
    let p = Tensor::empty(&shape, q.dtype(), q.device())?;
    if p.numel() > 0 {
        p.backend()?.rowwise(Rowwise::Softmax { x: scores.arr(), y: p.arr(), log: false })?;
    }
    if s.mask.is_some() { dead_rows(&p, &scores) } else { Ok(p) }
}

fn masked(scores: Tensor, s: &Setup, at: &Block) -> Result<Tensor> {
    let never = Operand::Number(Scalar::Float(f64::NEG_INFINITY));
    if s.causal {
        let later = later(at.l, (0, at.keys), &scores)?;
        return super::masked_fill(&scores, &later, never);
    }
    let Some(m) = &s.mask else { return Ok(scores) };
    let shape = [m.shape()[0], m.shape()[1]];
    let rows = if shape[0] == 1 { (0, 1) } else { at.l };
    let m = super::narrow(&m.detach(), 0, rows.0 as i64, (rows.1 - rows.0) as i64)?;
    if m.dtype().is_bool() {
        return super::masked_fill(&scores, &super::logical_not(&m)?, never);
    }
    super::add(&scores, &super::to_dtype(&m, scores.dtype())?)
}

/// Rows without any partner give 0, not NaN.
fn dead_rows(p: &Tensor, scores: &Tensor) -> Result<Tensor> {
    let dead = super::eq(&super::reduce::amax(&scores.detach(), Some(&[-1]), true)?, f64::NEG_INFINITY)?;
    super::masked_fill(p, &dead, Operand::Number(Scalar::Float(0.0)))
}

/// True where the key stands after the query.
fn later(l: (usize, usize), s: (usize, usize), like: &Tensor) -> Result<Tensor> {
    let _off = GradMode::new(false);
    let range = |r: (usize, usize)| -> Result<Tensor> {
        let v: Vec<i64> = (r.0 as i64..r.1 as i64).collect();
        super::to_device(&Tensor::from_slice(&v, &[v.len()])?, like.device())
    };
    super::lt(&super::unsqueeze(&range(l)?, 1)?, &range(s)?)
}

fn forward(q: &Tensor, k: &Tensor, v: &Tensor, s: &Setup) -> Result<Tensor> {
    let y = Tensor::empty(&[q.shape()[0], q.shape()[1], v.shape()[2]], q.dtype(), q.device())?;
    for at in blocks(q, k, s.causal) {
        let p = weights(q, k, s, &at)?;
        gemm_raw(&p, &part(v, at.b, (0, at.keys))?, &part(&y, at.b, at.l)?, None, 1.0, 0.0)?;
    }
    Ok(y)
}

fn backward(g: &Tensor, q: &Tensor, k: &Tensor, v: &Tensor, s: &Setup) -> Result<[Tensor; 3]> {
    let (q, k, v, g) = (q.detach(), k.detach(), v.detach(), g.detach());
    let dq = Tensor::empty(q.shape(), q.dtype(), q.device())?;
    let (dk, dv) =
        (Tensor::zeros(k.shape(), k.dtype(), k.device())?, Tensor::zeros(v.shape(), v.dtype(), v.device())?);
    for at in blocks(&q, &k, s.causal) {
        let keys = (0, at.keys);
        let p = weights(&q, &k, s, &at)?;
        let go = part(&g, at.b, at.l)?;
        gemm_raw(&super::transpose(&p, 1, 2)?, &go, &part(&dv, at.b, keys)?, None, 1.0, 1.0)?;
        let dp = Tensor::empty(p.shape(), p.dtype(), p.device())?;
        gemm_raw(&go, &super::transpose(&part(&v, at.b, keys)?, 1, 2)?, &dp, None, 1.0, 0.0)?;
        let ds = Tensor::empty(p.shape(), p.dtype(), p.device())?;
        if ds.numel() > 0 {
            ds.backend()?.rowwise(Rowwise::SoftmaxBackward {
                dy: dp.arr(),
                y: p.arr(),
                dx: ds.arr(),
                log: false,
            })?;
        }
        gemm_raw(&ds, &part(&k, at.b, keys)?, &part(&dq, at.b, at.l)?, None, s.scale, 0.0)?;
        let qb = part(&q, at.b, at.l)?;
        gemm_raw(&super::transpose(&ds, 1, 2)?, &qb, &part(&dk, at.b, keys)?, None, s.scale, 1.0)?;
    }
    Ok([dq, dk, dv])
}

/// The gradients in library ops over whole tensors.
fn whole(g: &Tensor, q: &Tensor, k: &Tensor, v: &Tensor, s: &Setup) -> Result<[Tensor; 3]> {
    let t = |x: &Tensor| super::transpose(x, 1, 2);
    let all = Block { b: (0, q.shape()[0]), l: (0, q.shape()[1]), keys: k.shape()[1] };
    let scores = masked(mul(&bmm(q, &t(k)?)?, s.scale)?, s, &all)?;
    let p = super::softmax::softmax(&scores, -1, None)?;
    let p = if s.mask.is_some() { dead_rows(&p, &scores)? } else { p };
    let dv = bmm(&t(&p)?, g)?;
    let dp = bmm(g, &t(v)?)?;
    let sum = super::sum(&mul(&dp, &p)?, Some(&[-1]), true, None)?;
    let ds = mul(&mul(&p, &super::sub(&dp, &sum)?)?, s.scale)?;
    Ok([bmm(&ds, k)?, bmm(&t(&ds)?, q)?, dv])
}

/// `t` [..., L, E] with its batch dimensions as one.
pub fn flat(t: &Tensor) -> Result<Tensor> {
    let s = t.shape();
    let n = s.len();
    let batch: usize = s[..n - 2].iter().product();
    super::reshape(t, &signed(&[batch, s[n - 2], s[n - 1]]))
}

/// [B, L, E] with the batch dimensions of `like`.
pub fn unflat(t: &Tensor, like: &Tensor) -> Result<Tensor> {
    let mut shape: Dims = like.shape()[..like.ndim() - 2].into();
    shape.extend_from_slice(&t.shape()[1..]);
    super::reshape_to(t, &shape)
}
