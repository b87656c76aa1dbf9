//! Sums, means and maxima over bags of embedding rows, without an array of all rows in between.

use crate::pool::{chunks, parallel};
use crate::real::Real;
use crate::simd::{Arch, ArchKernel, dispatch};
use crate::strided::Ptr;
use pyrite_core::backend::{Bag, BagGradient, BagMode, Bags};
use pyrite_core::{DType, Result, bail};

pub fn run(b: Bags) -> Result<()> {
    let dtype = match &b {
        Bags::Forward(f) => f.weight.dtype,
        Bags::Backward(g) => g.dw.dtype,
    };
    match (dtype, b) {
        (DType::F32, Bags::Forward(f)) => typed::<f32>(&f),
        (DType::F64, Bags::Forward(f)) => typed::<f64>(&f),
        (DType::F32, Bags::Backward(g)) => gradient::<f32>(&g),
        (DType::F64, Bags::Backward(g)) => gradient::<f64>(&g),
        (d, _) => {
            bail!(NotImplemented, "embedding_bag: not implemented for {d}; convert the weight with .float()")
        }
    }
}

/// Every job owns a range of rows and looks for the entries that go there.
fn gradient<T: Real>(g: &BagGradient) -> Result<()> {
    let (&[rows, d], &[bags, _]) = (g.dw.shape, g.dy.shape) else {
        bail!(Shape, "embedding_bag backward: expected matrices, got {:?} and {:?}", g.dw.shape, g.dy.shape);
    };
    let n = g.row.len();
    let all = [Some(g.dy), Some(g.dw), g.coef];
    let fits = g.dy.shape[1] == d
        && g.bag.len() == n
        && g.scale.is_none_or(|s| s.len() == n)
        && g.coef.is_none_or(|c| c.shape == [n])
        && all.iter().flatten().all(|a| a.is_contiguous() && a.dtype == T::DTYPE)
        && g.row.iter().all(|r| (0..rows as i64).contains(r))
        && g.bag.iter().all(|b| (0..bags as i64).contains(b));
    if !fits {
        bail!(Shape, "embedding_bag backward: entries do not fit {:?} and {:?}", g.dw.shape, g.dy.shape);
    }
    let jobs = rows.clamp(1, 16);
    let each = rows.div_ceil(jobs);
    let (dy, dw) = (Ptr(g.dy.ptr.cast::<T>()), Ptr(g.dw.ptr.cast::<T>()));
    let coef = g.coef.map(|c| Ptr(c.ptr.cast::<T>()));
    let (row, bag, scale) = (g.row, g.bag, g.scale);
    parallel(jobs, ((n + rows) * d / 4 + jobs * n / 2) as u64, &|q| {
        let (from, to) = ((q * each).min(rows), rows.min((q + 1) * each));
        // SAFETY: rows `from..to` of the contiguous dw, which only this job writes.
        let own = unsafe { std::slice::from_raw_parts_mut(dw.get().add(from * d), (to - from) * d) };
        own.fill(T::default());
        for (i, r) in row.iter().enumerate() {
            let r = *r as usize;
            if r < from || r >= to {
                continue;
            }
            let mut f = T::of(scale.map_or(1.0, |s| s[i]));
            if let Some(c) = &coef {
                // SAFETY: one coefficient for each entry, checked above.
                f = f * unsafe { *c.get().add(i) };
            }
            // SAFETY: row `bag[i]` of the contiguous dy, checked above.
            let g = unsafe { std::slice::from_raw_parts(dy.get().add(bag[i] as usize * d).cast_const(), d) };
            for (o, g) in own[(r - from) * d..][..d].iter_mut().zip(g) {
                *o += f * *g;
            }
        }
    });
    Ok(())
}

fn typed<T: Real>(b: &Bag) -> Result<()> {
    let &[rows, d] = b.weight.shape else {
        bail!(Shape, "embedding_bag: weight must be 2-D, got {:?}", b.weight.shape);
    };
    let bags = b.start.len().saturating_sub(1);
    let fits = b.y.shape == [bags, d]
        && b.y.is_contiguous()
        && b.y.dtype == T::DTYPE
        && (d <= 1 || b.weight.strides[1] == 1)
        && b.start.windows(2).all(|w| w[0] <= w[1])
        && b.start.last().is_some_and(|e| *e <= b.index.len())
        && b.coef.is_none_or(|c| c.shape == [b.index.len()] && c.is_contiguous() && c.dtype == T::DTYPE)
        && b.at.is_none_or(|a| a.shape == [bags, d] && a.is_contiguous() && a.dtype == DType::I64);
    if !fits {
        bail!(
            Shape,
            "embedding_bag: weight {:?}, {bags} bags and output {:?} do not fit",
            b.weight.shape,
            b.y.shape
        );
    }
    if let Some(bad) = b.index.iter().find(|i| !(0..rows as i64).contains(i)) {
        bail!(Index, "embedding_bag: index {bad} is out of range for a weight of {rows} rows");
    }
    let per_bag = (b.index.len() / bags.max(1) + 1) * d;
    let (k, each) = chunks(bags, (8192 / per_bag.max(1)).max(1));
    let job = Job::<T> {
        index: b.index,
        start: b.start,
        padding: b.padding,
        mode: b.mode,
        d,
        range: (0, 0),
        step: b.weight.strides[0],
        weight: Ptr(b.weight.ptr.cast()),
        coef: b.coef.map(|c| Ptr(c.ptr.cast())),
        y: Ptr(b.y.ptr.cast()),
        at: b.at.map(|a| Ptr(a.ptr.cast())),
    };
    parallel(k, (bags * per_bag) as u64 / 2, &|q| {
        let range = (q * each, bags.min((q + 1) * each));
        dispatch(Job { range, ..job });
    });
    Ok(())
}

#[derive(Clone, Copy)]
struct Job<'a, T> {
    index: &'a [i64],
    start: &'a [usize],
    padding: Option<i64>,
    mode: BagMode,
    step: isize,
    d: usize,
    range: (usize, usize),
    weight: Ptr<T>,
    coef: Option<Ptr<T>>,
    y: Ptr<T>,
    at: Option<Ptr<i64>>,
}

impl<T: Real> ArchKernel for Job<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let (b, d, step) = (&self, self.d, self.step);
        for bag in self.range.0..self.range.1 {
            // SAFETY: row `bag` of the contiguous outputs, which only this chunk writes.
            let y = unsafe { std::slice::from_raw_parts_mut(self.y.get().add(bag * d), d) };
            let mut at = self.at.map(|p| {
                // SAFETY: as above.
                unsafe { std::slice::from_raw_parts_mut(p.get().add(bag * d), d) }
            });
            y.fill(T::default());
            if let Some(at) = &mut at {
                at.fill(-1);
            }
            let mut count = 0;
            for i in b.start[bag]..b.start[bag + 1] {
                let row = b.index[i];
                if Some(row) == b.padding {
                    continue;
                }
                count += 1;
                // SAFETY: `typed` checked that the row exists and is dense.
                let w = unsafe {
                    let start = self.weight.get().wrapping_offset(row as isize * step);
                    std::slice::from_raw_parts(start.cast_const(), d)
                };
                match (b.mode, &self.coef) {
                    (BagMode::Max, _) => {
                        for (j, (y, w)) in y.iter_mut().zip(w).enumerate() {
                            if count == 1 || *w > *y {
                                *y = *w;
                                if let Some(at) = &mut at {
                                    at[j] = row;
                                }
                            }
                        }
                    }
                    (_, Some(c)) => {
                        // SAFETY: one coefficient for each index.
                        let c = unsafe { *c.get().add(i) };
                        for (y, w) in y.iter_mut().zip(w) {
                            *y += c * *w;
                        }
                    }
                    _ => {
                        for (y, w) in y.iter_mut().zip(w) {
                            *y += *w;
                        }
                    }
                }
            }
            if b.mode == BagMode::Mean && count > 1 {
                let f = T::of(1.0 / count as f64);
                for y in y.iter_mut() {
                    *y = *y * f;
                }
            }
        }
    }
}
