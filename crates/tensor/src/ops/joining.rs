//! Joining tensors beyond `cat`: NumPy's stacks, block matrices, combinations.

use super::shape::cat;
use super::with_layout;
use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::{DType, Device, Result, bail, ensure};
use smallvec::SmallVec;

fn at_least(t: &Tensor, n: usize) -> Result<Tensor> {
    let mut y = t.clone();
    while y.ndim() < n {
        y = super::unsqueeze(&y, 0)?;
    }
    Ok(y)
}

fn at_least_3(t: &Tensor) -> Result<Tensor> {
    match t.ndim() {
        0 => super::reshape(t, &[1, 1, 1]),
        1 => super::unsqueeze(&super::unsqueeze(t, 0)?, -1),
        2 => super::unsqueeze(t, -1),
        _ => Ok(t.clone()),
    }
}

fn all_at_least(ts: &[Tensor], n: usize) -> Result<Vec<Tensor>> {
    ts.iter().map(|t| if n == 3 { at_least_3(t) } else { at_least(t, n) }).collect()
}

/// What every stack asks of its list.
fn some<'a>(name: &str, ts: &'a [Tensor]) -> Result<&'a [Tensor]> {
    ensure!(!ts.is_empty(), Runtime, "{name} expects a non-empty TensorList");
    Ok(ts)
}

pub fn hstack(ts: &[Tensor]) -> Result<Tensor> {
    let ts = all_at_least(some("hstack", ts)?, 1)?;
    cat(&ts, if ts[0].ndim() == 1 { 0 } else { 1 })
}

pub fn vstack(ts: &[Tensor]) -> Result<Tensor> {
    cat(&all_at_least(some("vstack", ts)?, 2)?, 0)
}

pub fn dstack(ts: &[Tensor]) -> Result<Tensor> {
    cat(&all_at_least(some("dstack", ts)?, 3)?, 2)
}

/// `hstack`, where vectors are columns.
pub fn column_stack(ts: &[Tensor]) -> Result<Tensor> {
    let column =
        |t: &Tensor| if t.ndim() <= 1 { super::reshape(t, &[t.numel() as i64, 1]) } else { Ok(t.clone()) };
    hstack(&some("column_stack", ts)?.iter().map(column).collect::<Result<Vec<_>>>()?)
}

/// The matrices along the diagonal of a larger one; vectors and numbers are rows.
pub fn block_diag(ts: &[Tensor]) -> Result<Tensor> {
    if ts.is_empty() {
        return Tensor::empty(&[1, 0], DType::default_float(), Device::Cpu);
    }
    let (mut height, mut width) = (0usize, 0usize);
    for (i, t) in ts.iter().enumerate() {
        ensure!(
            t.ndim() <= 2,
            Runtime,
            "torch.block_diag: Input tensors must have 2 or fewer dimensions. Input {i} has {} dimensions",
            t.ndim()
        );
        ensure!(
            t.device() == ts[0].device(),
            Runtime,
            "torch.block_diag: input tensors must all be on the same device. Input 0 is on device {} and input {i} is on device {}",
            ts[0].device(),
            t.device()
        );
    }
    let blocks = all_at_least(ts, 2)?;
    let dtype = ts[1..].iter().fold(ts[0].dtype(), |d, t| DType::promote(d, t.dtype()));
    let mut corners: SmallVec<[(usize, usize); 8]> = SmallVec::new();
    for b in &blocks {
        corners.push((height, width));
        (height, width) = (height.saturating_add(b.shape()[0]), width.saturating_add(b.shape()[1]));
    }
    let y = Tensor::zeros(&[height, width], dtype, ts[0].device())?;
    for (b, (i, j)) in blocks.iter().zip(&corners) {
        let at = y.layout().slice(0, *i, b.shape()[0], 1)?.slice(1, *j, b.shape()[1], 1)?;
        super::copy_raw(&with_layout(&y, at), b)?;
    }
    let inputs: SmallVec<[&Tensor; 8]> = blocks.iter().collect();
    if needs_grad(&inputs) {
        let sizes: Vec<(i64, i64)> =
            blocks.iter().map(|b| (b.shape()[0] as i64, b.shape()[1] as i64)).collect();
        autograd::attach("BlockDiagBackward0", &inputs, &[&y], &[], move |cx| {
            let g = cx.grad(0)?;
            let part = |i: usize| -> Result<Option<Tensor>> {
                if !cx.needs(i) {
                    return Ok(None);
                }
                let rows = super::narrow(&g, 0, corners[i].0 as i64, sizes[i].0)?;
                super::narrow(&rows, 1, corners[i].1 as i64, sizes[i].1).map(Some)
            };
            (0..sizes.len()).map(part).collect()
        });
    }
    Ok(y)
}

/// `n` over `r`, or None where it is too large for any tensor.
fn choose(n: u128, r: u128) -> Option<u128> {
    if r > n {
        return Some(0);
    }
    let mut c = 1u128;
    for k in 0..r.min(n - r) {
        c = c.checked_mul(n - k)? / (k + 1);
        if c > isize::MAX as u128 {
            return None;
        }
    }
    Some(c)
}

/// All selections of `r` elements of a vector, one per row, in lexicographic order of positions.
pub fn combinations(t: &Tensor, r: i64, with_replacement: bool) -> Result<Tensor> {
    ensure!(t.ndim() == 1, Runtime, "Expect a 1D vector, but got shape {:?}", t.shape());
    ensure!(r >= 0, Runtime, "Expect a non-negative number, but got {r}");
    if r == 0 {
        return Tensor::empty(&[0], t.dtype(), t.device());
    }
    let (n, r) = (t.numel(), r as usize);
    let pool = if with_replacement { (n + r).saturating_sub(1) } else { n };
    let rows = if n == 0 { Some(0) } else { choose(pool as u128, r as u128) };
    let Some(total) = rows.and_then(|c| c.checked_mul(r as u128)).filter(|c| *c < 1 << 56) else {
        bail!(Runtime, "combinations: there are too many selections of {r} out of {n} elements")
    };
    let mut flat: Vec<i64> = Vec::new();
    ensure!(
        flat.try_reserve_exact(total as usize).is_ok(),
        OutOfMemory,
        "combinations: cannot allocate {total} indices"
    );
    if total > 0 {
        let step = !with_replacement as usize;
        let mut pick: Vec<usize> = (0..r).map(|i| i * step).collect();
        loop {
            flat.extend(pick.iter().map(|p| *p as i64));
            // The last position that can still move on; those after it follow.
            let Some(i) = (0..r).rev().find(|i| pick[*i] < n - 1 - (r - 1 - i) * step) else { break };
            let first = pick[i] + 1;
            for (k, p) in pick[i..].iter_mut().enumerate() {
                *p = first + k * step;
            }
        }
    }
    let index = super::to_device(&Tensor::from_slice(&flat, &[flat.len()])?, t.device())?;
    super::reshape(&super::index::index_select(t, 0, &index)?, &[(flat.len() / r) as i64, r as i64])
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "hstack",
        FUNCTION | OUT,
        "Joins along the second dimension (the first for vectors).",
        "tensors: Tensors",
        |a| Ok(hstack(a.tensors(0)?)?.into())
    );
    op!(
        list,
        "vstack",
        FUNCTION | OUT,
        alias = ["row_stack"],
        "Joins along the first dimension; vectors are rows.",
        "tensors: Tensors",
        |a| Ok(vstack(a.tensors(0)?)?.into())
    );
    op!(list, "dstack", FUNCTION | OUT, "Joins along the third dimension.", "tensors: Tensors", |a| Ok(
        dstack(a.tensors(0)?)?.into()
    ));
    op!(
        list,
        "column_stack",
        FUNCTION | OUT,
        "Joins along the second dimension; vectors are columns.",
        "tensors: Tensors",
        |a| Ok(column_stack(a.tensors(0)?)?.into())
    );
    op!(
        list,
        "block_diag",
        FUNCTION,
        "The matrices along the diagonal of a larger one that is 0 elsewhere.",
        "tensors: Tensors",
        |a| Ok(block_diag(a.tensors(0)?)?.into())
    );
    op!(
        list,
        "combinations",
        FUNCTION,
        "All selections of `r` elements of a vector, one per row.",
        "input: Tensor, r: int = 2, with_replacement: bool = False",
        |a| Ok(combinations(a.tensor(0)?, a.int(1)?, a.bool(2)?)?.into())
    );
}
