//! Products and inverses of tensors seen as matrices: `tensordot`, `tensorinv`, `tensorsolve`.

use super::*;
use crate::op;
use pyrite_core::layout::wrap_dim;
use smallvec::SmallVec;

type Sizes = SmallVec<[i64; 8]>;

fn sizes(s: impl IntoIterator<Item = usize>) -> Sizes {
    s.into_iter().map(|v| v as i64).collect()
}

/// Products summed over pairs of dimensions; a dimension of size 1 stretches.
pub(super) fn tensordot(a: &Tensor, b: &Tensor, da: &[i64], db: &[i64]) -> Result<Tensor> {
    let op = "tensordot";
    ensure!(da.len() == db.len(), Runtime, "both dimension lists should have same length");
    ensure!(
        a.dtype() == b.dtype(),
        Runtime,
        "tensordot: both inputs should have same dtype, got {} and {}",
        a.dtype().legacy_name(),
        b.dtype().legacy_name()
    );
    let wrap = |d: &[i64], t: &Tensor| -> Result<SmallVec<[usize; 8]>> {
        d.iter().map(|d| wrap_dim(op, *d, t.ndim())).collect()
    };
    let (da, db) = (wrap(da, a)?, wrap(db, b)?);
    let (mut a, mut b) = (a.clone(), b.clone());
    for (i, j) in da.iter().zip(&db) {
        let (sa, sb) = (a.shape()[*i], b.shape()[*j]);
        if sa == 1 {
            b = ops::sum(&b, Some(&[*j as i64]), true, Some(b.dtype()))?;
        } else if sb == 1 {
            a = ops::sum(&a, Some(&[*i as i64]), true, Some(a.dtype()))?;
        } else {
            ensure!(
                sa == sb,
                Shape,
                "contracted dimensions need to match, but first has size {sa} in dim {i} and second has size {sb} in dim {j}"
            );
        }
    }
    let free = |t: &Tensor, d: &[usize]| -> Result<Sizes> {
        let mut seen = SmallVec::<[bool; 8]>::from_elem(false, t.ndim());
        for i in d {
            ensure!(!seen[*i], Runtime, "dim {i} appears multiple times in the list of dims");
            seen[*i] = true;
        }
        Ok(sizes((0..t.ndim()).filter(|i| !seen[*i])))
    };
    let (fa, fb) = (free(&a, &da)?, free(&b, &db)?);
    let k: usize = da.iter().map(|i| a.shape()[*i]).product();
    let out: Sizes = fa
        .iter()
        .map(|i| a.shape()[*i as usize] as i64)
        .chain(fb.iter().map(|i| b.shape()[*i as usize] as i64))
        .collect();
    let rows: i64 = out[..fa.len()].iter().product();
    let cols: i64 = out[fa.len()..].iter().product();
    let order_a: Sizes = fa.iter().copied().chain(sizes(da)).collect();
    let order_b: Sizes = sizes(db).into_iter().chain(fb).collect();
    let left = ops::reshape(&ops::permute(&a, &order_a)?, &[rows, k as i64])?;
    let right = ops::reshape(&ops::permute(&b, &order_b)?, &[k as i64, cols])?;
    ops::reshape(&mm(&left, &right)?, &out)
}

fn tensorinv(a: &Tensor, ind: i64) -> Result<Tensor> {
    ensure!(ind > 0, Runtime, "Expected a strictly positive integer for 'ind', but got {ind}");
    let at = (ind as usize).min(a.ndim());
    let (head, tail) = a.shape().split_at(at);
    let (p, q): (usize, usize) = (head.iter().product(), tail.iter().product());
    ensure!(
        p == q,
        Runtime,
        "Expected self to satisfy the requirement prod(self.shape[ind:]) == prod(self.shape[:ind]), but got {q} != {p}"
    );
    let shape: Sizes = sizes(tail.iter().chain(head).copied());
    let y = solve::inv("inv", &ops::reshape(a, &[p as i64, p as i64])?)?;
    ops::reshape(&y, &shape)
}

fn tensorsolve(a: &Tensor, b: &Tensor, dims: Option<&[i64]>) -> Result<Tensor> {
    let mut a = a.clone();
    if let Some(d) = dims {
        let last: Sizes = (0..d.len()).map(|i| i as i64 - d.len() as i64).collect();
        a = ops::movedim(&a, d, &last)?;
    }
    let at = b.ndim().min(a.ndim());
    let p: usize = a.shape()[..at].iter().product();
    let q: usize = a.shape()[at..].iter().product();
    ensure!(
        p == q,
        Runtime,
        "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == prod(self.shape[:other.ndim]), but got {q} != {p}"
    );
    let shape = sizes(a.shape()[at..].iter().copied());
    let m = ops::reshape(&a, &[b.numel() as i64, q as i64])?;
    let x = solve::solve(&m, &ops::reshape(b, &[-1])?, true)?;
    ops::reshape(&x, &shape)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "_tensordot",
        FUNCTION | OUT,
        ns = "linalg",
        "Products summed over pairs of dimensions.",
        "a: Tensor, b: Tensor, dims_a: ints, dims_b: ints",
        |a| Ok(tensordot(a.tensor(0)?, a.tensor(1)?, a.ints(2)?, a.ints(3)?)?.into())
    );
    op!(
        list,
        "tensorinv",
        FUNCTION | OUT,
        ns = "linalg",
        "The inverse of `A` seen as a matrix whose rows are its first `ind` dimensions.",
        "A: Tensor, ind: int = 2",
        |a| Ok(tensorinv(a.tensor(0)?, a.int(1)?)?.into())
    );
    op!(
        list,
        "tensorsolve",
        FUNCTION | OUT,
        ns = "linalg",
        "The `X` with `tensordot(A, X, X.ndim) == B`; `dims` of `A` are moved to its end first.",
        "A: Tensor, B: Tensor, dims: ints? = None",
        |a| Ok(tensorsolve(a.tensor(0)?, a.tensor(1)?, a.ints_opt(2)?)?.into())
    );
}
