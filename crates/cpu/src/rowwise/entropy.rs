//! Cross-entropy straight from logits, with class weights, label smoothing and ignored rows.

use super::softmax::max_and_sum;
use super::vector::{Dot, Make, Plain, map, sum};
use super::{Failed, over_rows, pad, per_row, same_shape};
use crate::simd::{Arch, ArchKernel, FloatLanes, dispatch};
use crate::strided::{Compute, Ptr, Rows, gather_flat};
use pyrite_core::backend::Rowwise;
use pyrite_core::expr::Any;
use pyrite_core::{Arr, DType, Result, bail, err};
use std::ptr::null;

const OP: &str = "cross_entropy";

pub fn run(r: Rowwise) -> Result<()> {
    match r {
        Rowwise::CrossEntropy { x, target, weight, ignore, smoothing, loss, lse } => {
            let setup = Setup { x, target, weight, ignore, smoothing };
            let rows = setup.check(&[&loss, &lse])?;
            crate::compute_of!(OP, x.dtype, |T| setup.run::<T>(rows, None, &loss, &lse))
        }
        Rowwise::CrossEntropyBackward { x, target, weight, ignore, smoothing, lse, scale, dx } => {
            let setup = Setup { x, target, weight, ignore, smoothing };
            let rows = setup.check(&[&scale, &lse])?;
            same_shape(OP, &x, &[&dx])?;
            crate::compute_of!(OP, x.dtype, |T| setup.run::<T>(rows, Some(&dx), &scale, &lse))
        }
        _ => Ok(()),
    }
}

struct Setup<'a> {
    x: Arr<'a>,
    target: Arr<'a>,
    weight: Option<Arr<'a>>,
    ignore: i64,
    smoothing: f64,
}

impl Setup<'_> {
    fn check(&self, others: &[&Arr]) -> Result<usize> {
        let n = self.x.shape.last().copied().unwrap_or(1);
        let rows = Rows::new(&self.x).rows;
        per_row(OP, rows, others)?;
        per_row(OP, rows, &[&self.target])?;
        if self.target.dtype != DType::I64 {
            bail!(Type, "{OP}: the targets must be torch.int64 class indices, not {}", self.target.dtype);
        }
        if let Some(w) = &self.weight
            && w.numel() != n
        {
            bail!(
                Shape,
                "{OP}: the weight has shape {:?}, expected one number for each of {n} classes",
                w.shape
            );
        }
        Ok(rows)
    }

    /// Forward (`a` is the loss, written) or backward (`a` is the scale, `dx` is written).
    fn run<T: Compute>(&self, rows: usize, dx: Option<&Arr>, a: &Arr, lse: &Arr) -> Result<()> {
        let x = Rows::new(&self.x);
        let n = x.n;
        // The weights as dense numbers, for all rows.
        let weight = match &self.weight {
            None => None,
            Some(w) => {
                let b = crate::alloc::Block::new(pad(n) * size_of::<T>()).map_err(crate::oom)?;
                // SAFETY: the weight has n elements, the block room for them.
                unsafe { gather_flat::<T>(w, 0, n, b.as_ptr().cast()) };
                Some(b)
            }
        };
        let w = Ptr(weight.as_ref().map_or(std::ptr::null_mut(), |b| b.as_ptr().cast::<T>()));
        let total_weight = if weight.is_some() {
            // SAFETY: n weights.
            (0..n).map(|i| unsafe { (*w.get().add(i)).f64() }).sum()
        } else {
            n as f64
        };
        let dx = dx.map(Rows::new);
        let (a, lse) = (Rows::scalars(a), Rows::scalars(lse));
        // Targets are read by flat position whatever their strides.
        let step = crate::strided::uniform(self.target.shape, self.target.strides);
        let (shape, strides) = (self.target.shape, self.target.strides);
        let (tp, failed) = (Ptr(self.target.ptr.cast::<i64>()), Failed::default());
        let direct = x.direct::<T>() && dx.as_ref().is_none_or(|d| d.direct::<T>());
        let (ignore, smoothing) = (self.ignore, self.smoothing);
        over_rows::<T>(rows, n, if direct { 0 } else { 2 }, 0.5, &|from, to, scratch| {
            for r in from..to {
                let off = match step {
                    Some(s) => r as isize * s,
                    None => crate::strided::offset(shape, strides, r),
                };
                // SAFETY: row r of the targets; read once, so that the value checked is the one used.
                let t = unsafe { tp.get().offset(off).read_volatile() };
                if t != ignore && (t < 0 || t as usize >= n) {
                    failed.set(err!(Index, "{OP}: target {t} is out of range for {n} classes"));
                    continue;
                }
                let target = if t == ignore { None } else { Some(t as usize) };
                let row = Row { r, target, w: w.get(), total_weight, smoothing, scratch };
                match &dx {
                    None => dispatch(Forward { x: &x, loss: &a, lse: &lse, row }),
                    Some(dx) => dispatch(Backward { x: &x, dx, scale: &a, lse: &lse, row }),
                }
            }
        })?;
        failed.result()
    }
}

struct Row<T> {
    r: usize,
    target: Option<usize>,
    w: *const T,
    total_weight: f64,
    smoothing: f64,
    scratch: *mut T,
}

impl<T: Compute> Row<T> {
    /// Weight of the target class, less what smoothing takes, and the weight of every class.
    #[inline(always)]
    fn weights(&self, n: usize, t: usize) -> (f64, f64) {
        // SAFETY: t < n, and there are n weights.
        let w = if self.w.is_null() { 1.0 } else { unsafe { (*self.w.add(t)).f64() } };
        ((1.0 - self.smoothing) * w, self.smoothing / n as f64)
    }
}

struct Forward<'a, T> {
    x: &'a Rows<'a>,
    loss: &'a Rows<'a>,
    lse: &'a Rows<'a>,
    row: Row<T>,
}

impl<T: Compute> ArchKernel for Forward<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let (row, n, r) = (&self.row, self.x.n, self.row.r);
        // SAFETY: row r of all arrays; a scratch row if x is staged; n weights or none.
        unsafe {
            let x = self.x.get(r, row.scratch);
            let (m, s) = max_and_sum::<T, T::V<A>>(x, n);
            let log = s.ln();
            self.lse.set(r, m + log);
            let Some(t) = row.target else {
                return self.loss.set(r, 0.0);
            };
            let (own, each) = row.weights(n, t);
            // Less the maximum first: the digits of the sum would be lost next to a large one.
            let mut loss = own * (log - ((*x.add(t)).f64() - m));
            if row.smoothing != 0.0 {
                let dot = if row.w.is_null() {
                    sum::<T, T::V<A>, _>(Plain, x, x, n, 0.0)
                } else {
                    sum::<T, T::V<A>, _>(Dot, x, row.w, n, 0.0)
                };
                loss += each * (row.total_weight * (m + log) - dot);
            }
            self.loss.set(r, loss);
        }
    }
}

struct Backward<'a, T> {
    x: &'a Rows<'a>,
    dx: &'a Rows<'a>,
    scale: &'a Rows<'a>,
    lse: &'a Rows<'a>,
    row: Row<T>,
}

/// `exp(x - lse) * a - w * b`
#[derive(Clone, Copy)]
struct Grad<V> {
    lse: V,
    a: V,
    b: V,
    weighted: bool,
}
impl<V: FloatLanes> Make<V> for Grad<V> {
    #[inline(always)]
    fn at(self, x: [V; 4]) -> V {
        let p = (x[0] - self.lse).exp() * self.a;
        if self.weighted { p - x[1] * self.b } else { p - self.b }
    }
}

impl<T: Compute> ArchKernel for Backward<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let (row, n, r) = (&self.row, self.x.n, self.row.r);
        // SAFETY: row r of all arrays; two scratch rows if either is staged; n weights or none.
        unsafe {
            let own_row = row.scratch.wrapping_add(pad(n));
            let dx = self.dx.out(r, own_row);
            match row.target {
                None => {
                    for i in 0..n {
                        *dx.add(i) = T::of(0.0);
                    }
                }
                Some(t) => {
                    let x = self.x.get(r, row.scratch);
                    let scale = self.scale.num(r);
                    let (own, each) = row.weights(n, t);
                    let f = Grad {
                        lse: T::V::<A>::lit(self.lse.num(r)),
                        a: T::V::<A>::lit(scale * (own + each * row.total_weight)),
                        b: T::V::<A>::lit(scale * each),
                        weighted: !row.w.is_null(),
                    };
                    let at = (*x.add(t)).f64();
                    map::<T, T::V<A>, _>(f, [x, row.w, null(), null()], dx, n);
                    // The target's own term; where the probability is near 1, written as a whole
                    // in f64, because the difference of two near numbers is wanted.
                    let p = (at - self.lse.num(r)).exp();
                    let w = if row.w.is_null() { 1.0 } else { (*row.w.add(t)).f64() };
                    let v = scale * ((own + each * row.total_weight) * p - each * w - own);
                    *dx.add(t) = T::of(v);
                }
            }
            self.dx.put(r, own_row);
        }
    }
}
