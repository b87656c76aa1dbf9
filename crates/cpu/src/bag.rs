//! Sums, means and maxima over bags of embedding rows, without an array of all rows in between.

use crate::pool::{chunks, parallel};
use crate::real::Real;
use crate::simd::{Arch, ArchKernel, dispatch};
use crate::strided::Ptr;
use pyrite_core::backend::{Bag, BagMode};
use pyrite_core::{DType, Result, bail};

pub fn run(b: &Bag) -> Result<()> {
    match b.weight.dtype {
        DType::F32 => typed::<f32>(b),
        DType::F64 => typed::<f64>(b),
        d => {
            bail!(NotImplemented, "embedding_bag: not implemented for {d}; convert the weight with .float()")
        }
    }
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
