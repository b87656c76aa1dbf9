//! Runs of equal elements in sorted lines (`mode`), and the order of whole rows.

use super::Job;
use super::bucket::{Form, Item, Sink};
use super::key::Key;
use crate::strided::Ptr;
use pyrite_core::{Arr, DType, Result, bail, match_dtype};

/// Collects positions in order.
struct Positions(Vec<usize>);

impl<I: Item> Sink<I> for Positions {
    fn put(&mut self, _: usize, items: &[I], form: Form, w: &[u32], mask: u32, _: Option<u64>) {
        self.0.extend(w.iter().map(|x| {
            let place = (x & mask) as usize;
            items[place].at(form, place)
        }));
    }
    // Only where positions were not asked for.
    fn keys(&mut self, _: usize, _: u64, _: Form, _: &[u32]) {}
}

impl<T: Key> Job<T> {
    /// The most frequent element (the smallest of several) and its last position. NaNs count as equal.
    pub fn mode(&self) {
        self.each_line(
            14,
            #[inline(always)]
            |s, o| {
                // SAFETY: elements and the result of one line.
                unsafe {
                    let mut order = Positions(Vec::with_capacity(self.n));
                    self.sorted(o[0], s, false, &mut order);
                    let (mut best, mut longest, mut start) = (0, 0, 0);
                    let key = |i: usize| self.key(o[0], order.0[i]);
                    for i in 0..self.n {
                        let last = i + 1 == self.n || key(i) != key(i + 1);
                        if last {
                            if i + 1 - start > longest {
                                (best, longest) = (order.0[i], i + 1 - start);
                            }
                            start = i + 1;
                        }
                    }
                    self.write_one(o, best);
                }
            },
        );
    }
}

/// The order of the rows of an [n, m] array by their elements from left to right; equal rows stay in
/// order. `idx` is a dense [n] array of i64.
pub fn rows(idx: Arr, src: Arr) -> Result<()> {
    if src.shape.len() != 2 || idx.shape != &src.shape[..1] || idx.dtype != DType::I64 {
        bail!(Shape, "sorting rows: the source must be [n, m] and the positions [n] of torch.int64");
    }
    let (n, m) = (src.shape[0], src.shape[1]);
    let (to, s) = (Ptr(idx.ptr.cast::<i64>()), [src.strides[0], src.strides[1]]);
    match_dtype!(real, src.dtype, |T| {
        let base = src.ptr.cast::<T>();
        // Keys once, densely: comparisons then read neighbours.
        let mut keys = Vec::with_capacity(n * m);
        for i in 0..n as isize {
            for j in 0..m as isize {
                // SAFETY: element (i, j) of the source.
                keys.push(Key::key(unsafe { *base.offset(i * s[0] + j * s[1]) }));
            }
        }
        let mut at: Vec<usize> = (0..n).collect();
        let row = |i: usize| &keys[i * m..(i + 1) * m];
        at.sort_by(|&a, &b| row(a).cmp(row(b)));
        for (i, a) in at.iter().enumerate() {
            // SAFETY: element i of the positions.
            unsafe { *to.get().offset(i as isize * idx.strides[0]) = *a as i64 };
        }
        Ok(())
    }, else bail!(NotImplemented, "unique: not implemented for dtype {} along a dimension", src.dtype))
}
