//! Do two tensors share memory? Exactly, where `plan::overlap` only compares the ranges they span.

use crate::tensor::Tensor;
use pyrite_core::Layout;
use pyrite_core::plan::{self, Overlap};
use smallvec::SmallVec;

/// How the memory of two tensors meets.
pub fn overlap(a: &Tensor, b: &Tensor) -> Overlap {
    if !a.storage().same(b.storage()) {
        return Overlap::No;
    }
    between(a.layout(), a.dtype().size(), b.layout(), b.dtype().size())
}

fn between(a: &Layout, asize: usize, b: &Layout, bsize: usize) -> Overlap {
    match plan::overlap(a, asize, b, bsize) {
        Overlap::Partial if !share_bytes(a, asize as isize, b, bsize as isize) => Overlap::No,
        o => o,
    }
}

/// Is there a byte that belongs to an element of both? Exact, unless the search would take long: then yes.
///
/// Byte `p` of element `x` of `a` meets byte `q` of element `y` of `b` where
/// `sum(sa_i x_i) + p - sum(sb_j y_j) - q = start_b - start_a`: a sum of bounded multiples, searched from the
/// largest stride down, where the strides of ordinary tensors leave one or two candidates each.
fn share_bytes(a: &Layout, asize: isize, b: &Layout, bsize: isize) -> bool {
    let mut target = (b.offset() as isize * bsize - a.offset() as isize * asize) as i128;
    let mut terms: SmallVec<[(i128, i128); 16]> = SmallVec::new();
    let mut add = |step: i128, most: i128| {
        if step == 0 || most == 0 {
            return;
        }
        if step < 0 {
            // x -> most - x turns the sign.
            target -= step * most;
        }
        match terms.iter_mut().find(|t| t.0 == step.abs()) {
            Some(t) => t.1 += most,
            None => terms.push((step.abs(), most)),
        }
    };
    for (s, n) in a.strides().iter().zip(a.shape()) {
        add(*s as i128 * asize as i128, *n as i128 - 1);
    }
    for (s, n) in b.strides().iter().zip(b.shape()) {
        add(-(*s as i128) * bsize as i128, *n as i128 - 1);
    }
    add(1, asize as i128 - 1);
    add(-1, bsize as i128 - 1);
    terms.sort_by_key(|t| -t.0);
    let mut budget = 4096;
    reachable(&terms, target, &mut budget)
}

/// Is `target` a sum of `step * x` with `0 <= x <= most`?
fn reachable(terms: &[(i128, i128)], target: i128, budget: &mut u32) -> bool {
    let Some(((step, most), rest)) = terms.split_first() else { return target == 0 };
    if *budget == 0 {
        return true;
    }
    *budget -= 1;
    let below: i128 = rest.iter().map(|(s, m)| s * m).sum();
    if target < 0 || target > step * most + below {
        return false;
    }
    let first = (target - below + step - 1).div_euclid(*step).max(0);
    let last = (target / step).min(*most);
    (first..=last).any(|x| reachable(rest, target - step * x, budget))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // In a test a panic is the report.
mod tests {
    use super::*;

    #[test]
    fn overlap_is_exact() {
        let base = Layout::contiguous(&[4, 6]);
        let cols = |first, n| base.slice(1, first, n, 1).unwrap();
        assert!(matches!(between(&cols(0, 3), 4, &cols(3, 3), 4), Overlap::No));
        assert!(matches!(between(&cols(0, 3), 4, &cols(2, 3), 4), Overlap::Partial));
        assert!(matches!(between(&cols(0, 3), 4, &cols(0, 3), 4), Overlap::Full));
        let even = base.slice(1, 0, 3, 2).unwrap();
        let odd_back = base.slice(1, 5, 3, -2).unwrap();
        assert!(matches!(between(&even, 4, &odd_back, 4), Overlap::No));
        assert!(matches!(between(&even, 4, &cols(1, 2), 4), Overlap::Partial));
        // Bytes 8..16 of the base as two elements of four bytes and as one of eight.
        let wide = Layout::contiguous(&[3]).slice(0, 1, 1, 1).unwrap();
        assert!(matches!(between(&cols(0, 2), 4, &wide, 8), Overlap::No));
        assert!(matches!(between(&cols(1, 2), 4, &wide, 8), Overlap::Partial));
    }
}
