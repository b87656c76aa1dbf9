//! `multinomial`: draws of categories with given weights.

use super::Operand;
use super::create::random;
use super::reduce::{amax, amin};
use crate::op;
use crate::random::Generator;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::backend::{Order, Random};
use pyrite_core::{DType, Result, Scalar, ensure};
use std::sync::Arc;

fn multinomial(p: &Tensor, n: i64, replacement: bool, g: Option<&Arc<Generator>>) -> Result<Tensor> {
    ensure!(
        matches!(p.ndim(), 1 | 2),
        Runtime,
        "multinomial: prob_dist must be 1 or 2 dim, got {} dimensions",
        p.ndim()
    );
    ensure!(
        p.dtype().is_float(),
        Runtime,
        "multinomial only supports floating-point dtypes for input, got: {}",
        p.dtype().name()
    );
    ensure!(n > 0, Runtime, "cannot sample n_sample <= 0 samples, got {n}");
    let k = p.shape()[p.ndim() - 1];
    ensure!(
        replacement || n as u64 <= k as u64,
        Runtime,
        "cannot sample n_sample > prob_dist.size(-1) samples without replacement ({n} of {k})"
    );
    ensure!(k <= 1 << 24, Runtime, "multinomial: number of categories cannot exceed 2^24, got {k}");
    let rows = p.numel().checked_div(k).unwrap_or(p.shape()[0]);
    let w = super::to_dtype(&super::reshape(&p.detach(), &[rows as i64, k as i64])?, DType::F64)?;
    let out = |t: &Tensor| if p.ndim() == 1 { super::select(t, 0, 0) } else { Ok(t.clone()) };
    if rows == 0 {
        return Tensor::empty(&[0, n as usize], DType::I64, p.device());
    }
    ensure!(k > 0, Runtime, "invalid multinomial distribution (no categories)");
    let (lo, hi) = (amin(&w, None, false)?.item()?.f64(), amax(&w, None, false)?.item()?.f64());
    ensure!(
        lo >= 0.0 && hi.is_finite(),
        Runtime,
        "probability tensor contains either `inf`, `nan` or element < 0"
    );
    let total = super::sum(&w, Some(&[1]), true, None)?;
    ensure!(
        amin(&total, None, false)?.item()?.f64() > 0.0,
        Runtime,
        "invalid multinomial distribution (sum of probabilities <= 0)"
    );
    if !replacement {
        // Exponential races: the n first to arrive, which need no renormalising in between.
        let e = random(&[rows, k], Random::Exponential { rate: 1.0 }, DType::F64, p.device(), g)?;
        return out(&super::scan_sort::topk(&super::div(&w, &e)?, n, 1, true)?.swap_remove(1));
    }
    let sums = super::scan_sort::cumsum(&w, 1, None)?;
    let last = super::narrow(&sums, 1, k as i64 - 1, 1)?;
    let u = random(&[rows, n as usize], Random::Uniform { lo: 0.0, hi: 1.0 }, DType::F64, p.device(), g)?;
    // Strictly below the last sum, so that the category found has a weight.
    let below = super::mul(&last, Operand::Number(Scalar::Float(1.0 - f64::EPSILON)))?;
    let v = super::minimum(&super::mul(&u, &last)?, &below)?;
    let y = Tensor::empty(&[rows, n as usize], DType::I64, p.device())?;
    let (dst, seq, values) = (y.arr(), sums.arr(), v.arr());
    y.backend()?.order(Order::Search { dst, seq, values, sorter: None, right: true })?;
    out(&y)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "multinomial",
        FUNCTION | METHOD | OUT,
        "`num_samples` categories per row of weights (not negative, not all 0), with or without replacement.",
        "input: Tensor, num_samples: int, replacement: bool = False, *, generator: generator? = None",
        |a| Ok(multinomial(a.tensor(0)?, a.int(1)?, a.bool(2)?, a.generator_opt(3)?)?.into())
    );
}
