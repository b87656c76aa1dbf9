//! The iteration plan of elementwise work: what PyTorch calls TensorIterator. Built once per op from
//! operand layouts, walked by the CPU loop, and passed by value to the CUDA kernel.
//!
//! Building a plan broadcasts inputs to the output's shape, drops dimensions of size 1, flips
//! dimensions that every operand walks backwards, sorts dimensions by stride and merges neighbours,
//! so that two identically transposed operands become one long run.

use crate::dtype::DType;
use crate::layout::Layout;
use crate::{Result, bail, ensure};
use smallvec::SmallVec;

/// Operands of one plan: outputs first, then inputs.
pub const MAX_OPERANDS: usize = 6;
/// Dimensions left after merging. More raise an error; tensors may have up to 64 before merging.
pub const MAX_DIMS: usize = 12;

/// One operand: where its first element is, what it holds and how it lies.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    /// Address of the storage's first byte (the layout's offset is added here).
    pub ptr: *mut u8,
    pub dtype: DType,
    pub layout: &'a Layout,
}

/// See the module text. Strides are in **bytes**; dimension 0 is the innermost.
#[derive(Clone, Copy)]
pub struct Plan {
    pub ndim: usize,
    pub operands: usize,
    pub shape: [usize; MAX_DIMS],
    pub strides: [[isize; MAX_DIMS]; MAX_OPERANDS],
    pub ptrs: [*mut u8; MAX_OPERANDS],
    pub dtypes: [DType; MAX_OPERANDS],
    pub numel: usize,
    /// Bit i: operand i is one element in host memory (a Python number, or a 0-d CPU tensor among
    /// CUDA ones); its strides are 0. A device backend passes it by value.
    pub host: u8,
}

// SAFETY: the pointers are addresses; who dereferences them says why that is allowed, from whichever
// thread.
unsafe impl Send for Plan {}
// SAFETY: as above.
unsafe impl Sync for Plan {}

impl Plan {
    /// Nothing yet: [`Plan::build`] fills it in. (A plan is 700 bytes, too much to return by value
    /// from every elementwise op.)
    pub const EMPTY: Plan = Plan {
        ndim: 1,
        operands: 0,
        shape: [1; MAX_DIMS],
        strides: [[0; MAX_DIMS]; MAX_OPERANDS],
        ptrs: [std::ptr::null_mut(); MAX_OPERANDS],
        dtypes: [DType::F32; MAX_OPERANDS],
        numel: 0,
        host: 0,
    };

    /// A plan over `shape`; every operand's layout must broadcast to it.
    pub fn new(op: &str, shape: &[usize], operands: &[Operand]) -> Result<Plan> {
        let mut plan = Plan::EMPTY;
        plan.build(op, shape, operands)?;
        Ok(plan)
    }

    /// As [`Plan::new`], into an empty plan.
    pub fn build(&mut self, op: &str, shape: &[usize], operands: &[Operand]) -> Result<()> {
        debug_assert!(operands.len() <= MAX_OPERANDS && self.operands == 0);
        self.operands = operands.len();
        self.numel = shape.iter().product();
        for (k, o) in operands.iter().enumerate() {
            self.dtypes[k] = o.dtype;
            self.ptrs[k] = o.ptr.wrapping_add(o.layout.offset() * o.dtype.size());
        }
        if self.numel == 0 {
            self.shape[0] = 0;
            return Ok(());
        }
        if self.numel == 1 && operands.iter().all(|o| o.layout.numel() == 1) {
            for (k, o) in operands.iter().enumerate() {
                self.strides[k][0] = o.dtype.size() as isize;
            }
            return Ok(());
        }
        // The common case needs no sorting: everything contiguous and of one shape, or one element.
        if operands.iter().all(|o| o.layout.shape() == shape && o.layout.is_contiguous()) {
            self.shape[0] = self.numel;
            for (k, o) in operands.iter().enumerate() {
                self.strides[k][0] = o.dtype.size() as isize;
            }
            return Ok(());
        }
        self.fill(op, shape, operands)
    }

    fn fill(&mut self, op: &str, shape: &[usize], operands: &[Operand]) -> Result<()> {
        let n = shape.len();
        let k = operands.len();
        type Row = [isize; MAX_OPERANDS];
        let mut dims: SmallVec<[(usize, Row); 8]> = SmallVec::new();
        for d in 0..n {
            if shape[d] == 1 {
                continue;
            }
            let mut row: Row = [0; MAX_OPERANDS];
            for (i, o) in operands.iter().enumerate() {
                let lead = n - o.layout.ndim();
                if d < lead {
                    continue;
                }
                let (size, stride) = (o.layout.shape()[d - lead], o.layout.strides()[d - lead]);
                if size == shape[d] {
                    row[i] = stride * o.dtype.size() as isize;
                } else {
                    ensure!(
                        size == 1,
                        Shape,
                        "{op}: shape {:?} does not broadcast to {shape:?}",
                        o.layout.shape()
                    );
                }
            }
            // Walk forwards what every operand walks backwards (or stands still on).
            if row[..k].iter().all(|s| *s <= 0) && row[..k].iter().any(|s| *s < 0) {
                for i in 0..k {
                    self.ptrs[i] = self.ptrs[i].wrapping_offset(row[i] * (shape[d] as isize - 1));
                    row[i] = -row[i];
                }
            }
            dims.push((shape[d], row));
        }
        // Innermost last in `dims`; insertion sort by the first operand whose strides differ (the
        // output decides first), because rank is small and input is mostly sorted.
        for i in 1..dims.len() {
            let mut j = i;
            while j > 0 && Self::inner_of(&dims[j - 1].1, &dims[j].1, k) {
                dims.swap(j - 1, j);
                j -= 1;
            }
        }
        let mut merged: SmallVec<[(usize, Row); 8]> = SmallVec::new();
        for (size, row) in dims.into_iter().rev() {
            if let Some((prev_size, prev)) = merged.last_mut()
                && (0..k).all(|i| row[i] == prev[i] * *prev_size as isize)
            {
                *prev_size *= size;
                continue;
            }
            merged.push((size, row));
        }
        if merged.len() > MAX_DIMS {
            bail!(
                Runtime,
                "{op}: operands of shape {shape:?} need {} loop dimensions, at most {MAX_DIMS} are supported; call .contiguous() first",
                merged.len()
            );
        }
        self.ndim = merged.len().max(1);
        for (d, (size, row)) in merged.into_iter().enumerate() {
            self.shape[d] = size;
            for i in 0..k {
                self.strides[i][d] = row[i];
            }
        }
        Ok(())
    }

    /// Should the dimension with strides `a` lie inside the one with strides `b`?
    fn inner_of(a: &[isize; MAX_OPERANDS], b: &[isize; MAX_OPERANDS], k: usize) -> bool {
        for i in 0..k {
            let (x, y) = (a[i].unsigned_abs(), b[i].unsigned_abs());
            // A broadcast dimension says nothing about the order.
            if x == 0 || y == 0 || x == y {
                continue;
            }
            return x < y;
        }
        false
    }

    /// One dimension, every operand dense: kernels take their fastest path.
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        self.ndim == 1 && (0..self.operands).all(|i| self.strides[i][0] == self.dtypes[i].size() as isize)
    }

    /// Calls `f` with the operand pointers of each innermost run whose outer index is in `range`.
    /// Runs are numbered from 0 to [`Plan::runs`].
    #[inline]
    pub fn for_runs(&self, range: std::ops::Range<usize>, mut f: impl FnMut(&[*mut u8; MAX_OPERANDS])) {
        let mut ptrs = self.ptrs;
        let mut idx = [0usize; MAX_DIMS];
        let mut rest = range.start;
        for d in 1..self.ndim {
            idx[d] = rest % self.shape[d];
            rest /= self.shape[d];
            for i in 0..self.operands {
                ptrs[i] = ptrs[i].wrapping_offset(idx[d] as isize * self.strides[i][d]);
            }
        }
        for _ in range {
            f(&ptrs);
            for d in 1..self.ndim {
                idx[d] += 1;
                for i in 0..self.operands {
                    ptrs[i] = ptrs[i].wrapping_offset(self.strides[i][d]);
                }
                if idx[d] < self.shape[d] {
                    break;
                }
                for i in 0..self.operands {
                    ptrs[i] = ptrs[i].wrapping_offset(-(self.shape[d] as isize) * self.strides[i][d]);
                }
                idx[d] = 0;
            }
        }
    }

    /// The number of innermost runs.
    pub fn runs(&self) -> usize {
        self.shape[1..self.ndim].iter().product()
    }
}

/// How the memory of two layouts over one storage relates; in-place ops ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overlap {
    /// No common byte.
    No,
    /// The same elements in the same order: safe to read and write elementwise.
    Full,
    /// Anything else, or undecided: not safe.
    Partial,
}

/// Compares two layouts over the same storage, with element sizes in bytes.
pub fn overlap(a: &Layout, asize: usize, b: &Layout, bsize: usize) -> Overlap {
    let (Some((alo, ahi)), Some((blo, bhi))) = (a.extent(), b.extent()) else {
        return Overlap::No;
    };
    let (asize, bsize) = (asize as isize, bsize as isize);
    if (ahi + 1) * asize <= blo * bsize || (bhi + 1) * bsize <= alo * asize {
        return Overlap::No;
    }
    if asize == bsize && a.offset() == b.offset() && a.shape() == b.shape() && a.strides() == b.strides() {
        return Overlap::Full;
    }
    // Same strides, different start: disjoint columns or rows of one matrix do not meet.
    if asize == bsize && a.strides() == b.strides() {
        let shift = (b.offset() as isize - a.offset() as isize).unsigned_abs();
        let gcd = a.strides().iter().fold(0usize, |g, s| {
            let (mut x, mut y) = (g, s.unsigned_abs());
            while y != 0 {
                (x, y) = (y, x % y);
            }
            x
        });
        if gcd > 1 && !shift.is_multiple_of(gcd) {
            return Overlap::No;
        }
    }
    Overlap::Partial
}

/// Can an element of `a` and one of `b` share a byte? Exact for views of one tensor (their strides
/// nest), cautious (`true`) where finding out would take long.
pub fn meets(a: &Layout, asize: usize, b: &Layout, bsize: usize) -> bool {
    let (Some((alo, ahi)), Some((blo, bhi))) = (a.extent(), b.extent()) else { return false };
    let (sa, sb) = (asize as isize, bsize as isize);
    if (ahi + 1) * sa <= blo * sb || (bhi + 1) * sb <= alo * sa {
        return false;
    }
    if asize != bsize {
        return true;
    }
    // Do steps i of `a` and j of `b` exist with sum(i * stride) - sum(j * stride) = shift? One term per
    // stride, largest first: only few counts of a large step leave a rest that the small ones can reach.
    let mut terms: SmallVec<[(isize, isize, isize); 8]> = SmallVec::new();
    let mut add = |stride: isize, lo: isize, hi: isize| {
        let (s, lo, hi) = if stride < 0 { (-stride, -hi, -lo) } else { (stride, lo, hi) };
        match terms.iter_mut().find(|t| t.0 == s) {
            _ if s == 0 || lo == hi => {}
            Some(t) => (t.1, t.2) = (t.1 + lo, t.2 + hi),
            None => terms.push((s, lo, hi)),
        }
    };
    for (&n, &s) in a.shape().iter().zip(a.strides()) {
        add(s, 0, n as isize - 1);
    }
    for (&n, &s) in b.shape().iter().zip(b.strides()) {
        add(s, 1 - n as isize, 0);
    }
    terms.sort_unstable_by_key(|t| std::cmp::Reverse(t.0));
    let mut budget = 256;
    reaches(&terms, b.offset() as isize - a.offset() as isize, &mut budget)
}

/// Is `rest` a sum of the terms' multiples? True as well when the budget ends.
fn reaches(terms: &[(isize, isize, isize)], rest: isize, budget: &mut usize) -> bool {
    let Some((&(s, lo, hi), inner)) = terms.split_first() else { return rest == 0 };
    let (below, above) = inner.iter().fold((0, 0), |(l, h), t| (l + t.0 * t.1, h + t.0 * t.2));
    // Counts d with below <= rest - d * s <= above.
    let first = (rest - above).div_euclid(s) + ((rest - above).rem_euclid(s) != 0) as isize;
    let last = (rest - below).div_euclid(s);
    for d in first.max(lo)..=last.min(hi) {
        *budget = budget.saturating_sub(1);
        if *budget == 0 || reaches(inner, rest - d * s, budget) {
            return true;
        }
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // In a test a panic is the report.
mod tests {
    use super::*;

    fn operand(l: &Layout) -> Operand<'_> {
        Operand { ptr: std::ptr::without_provenance_mut(1 << 20), dtype: DType::F32, layout: l }
    }

    /// The elements of a layout, one by one.
    fn elements(l: &Layout) -> std::collections::HashSet<isize> {
        let mut all = vec![l.offset() as isize];
        for (&n, &s) in l.shape().iter().zip(l.strides()) {
            all = all.iter().flat_map(|&o| (0..n as isize).map(move |i| o + i * s)).collect();
        }
        if l.numel() == 0 { Default::default() } else { all.into_iter().collect() }
    }

    #[test]
    fn meeting_views_are_told_exactly() {
        let base = Layout::contiguous(&[4, 5, 6]);
        let mut views = vec![base.clone(), base.transpose(0, 2).unwrap()];
        for (d, n) in [(0, 4), (1, 5), (2, 6)] {
            for i in 0..n as i64 {
                views.push(base.select(d, i).unwrap());
            }
            for start in 0..n {
                for (len, step) in [(1, 1), (2, 1), (2, 2), (0, 1)] {
                    if start + len * step <= n {
                        let size: Vec<usize> =
                            (0..3).map(|k| if k == d { len } else { base.shape()[k] }).collect();
                        let mut strides = base.strides().to_vec();
                        strides[d] *= step as isize;
                        let offset = start * base.strides()[d] as usize;
                        views.push(Layout::new(&size[..], &strides[..], offset));
                    }
                }
            }
        }
        for a in &views {
            for b in &views {
                let truth = !elements(a).is_disjoint(&elements(b));
                assert_eq!(meets(a, 4, b, 4), truth, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn transposed_twins_merge() {
        let a = Layout::contiguous(&[8, 4]).transpose(0, 1).unwrap();
        let p = Plan::new("t", a.shape(), &[operand(&a), operand(&a)]).unwrap();
        assert_eq!((p.ndim, p.shape[0]), (1, 32));
    }

    #[test]
    fn broadcast_keeps_zero_stride() {
        let (a, b) = (Layout::contiguous(&[3, 4]), Layout::contiguous(&[4]));
        let p = Plan::new("t", a.shape(), &[operand(&a), operand(&b)]).unwrap();
        assert_eq!((p.ndim, p.strides[1][0], p.strides[1][1]), (2, 4, 0));
    }

    #[test]
    fn negative_strides_flip() {
        let a = Layout::contiguous(&[5]).slice(0, 4, 5, -1).unwrap();
        let p = Plan::new("t", a.shape(), &[operand(&a), operand(&a)]).unwrap();
        assert!(p.is_contiguous());
        assert_eq!(p.ptrs[0] as usize, 1 << 20);
    }

    #[test]
    fn walks_every_element_once() {
        let a = Layout::contiguous(&[3, 5, 2]).permute(&[2, 0, 1]).unwrap();
        let c = Layout::contiguous(&[2, 3, 5]);
        let p = Plan::new("t", c.shape(), &[operand(&c), operand(&a)]).unwrap();
        let mut seen = Vec::new();
        p.for_runs(0..p.runs(), |ptrs| {
            for i in 0..p.shape[0] {
                let at = |k: usize| (ptrs[k] as isize + i as isize * p.strides[k][0] - (1 << 20)) / 4;
                seen.push((at(0), at(1)));
            }
        });
        seen.sort();
        let want: Vec<(isize, isize)> = (0..30)
            .map(|o: isize| {
                let (i, j, k) = (o / 15, o / 5 % 3, o % 5);
                (o, j * 10 + k * 2 + i)
            })
            .collect();
        assert_eq!(seen, want);
    }
}
