//! softmax, log_softmax, their gradients, logsumexp.

use super::vector::{BLOCK, Dot, ExpSum, Make, Plain, greatest, map, sum};
use super::{columns, over_rows, pad, per_row, same_shape, staged};
use crate::simd::{Arch, ArchKernel, FloatLanes, dispatch};
use crate::strided::{Compute, Rows};
use pyrite_core::backend::Rowwise;
use pyrite_core::{Arr, Result};
use std::ptr::null;

pub fn run(r: Rowwise) -> Result<()> {
    match r {
        Rowwise::Softmax { x, y, log } => {
            same_shape("softmax", &x, &[&y])?;
            crate::compute_of!("softmax", x.dtype, |T| forward::<T>(x, y, log))
        }
        Rowwise::SoftmaxBackward { dy, y, dx, log } => {
            same_shape("softmax backward", &y, &[&dy, &dx])?;
            crate::compute_of!("softmax", y.dtype, |T| backward::<T>(dy, y, dx, log))
        }
        Rowwise::LogSumExp { x, y } => {
            let n = x.shape.last().copied().unwrap_or(1);
            per_row("logsumexp", x.numel() / n.max(1), &[&y])?;
            crate::compute_of!("logsumexp", x.dtype, |T| log_sum_exp::<T>(x, y))
        }
        _ => Ok(()),
    }
}

fn forward<T: Compute>(x: Arr, y: Arr, log: bool) -> Result<()> {
    if let Some(c) = columns::Columns::<T, 2>::new([&x, &y]) {
        columns::forward(&c, log);
        return Ok(());
    }
    let (x, y) = (Rows::new(&x), Rows::new(&y));
    over_rows::<T>(x.rows, x.n, staged::<T>(&[&x, &y]), 0.6, &|from, to, scratch| {
        dispatch(Forward { x: &x, y: &y, log, from, to, scratch });
    })
}

struct Forward<'a, T> {
    x: &'a Rows<'a>,
    y: &'a Rows<'a>,
    log: bool,
    from: usize,
    to: usize,
    scratch: *mut T,
}

impl<T: Compute> ArchKernel for Forward<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let n = self.x.n;
        for r in self.from..self.to {
            // SAFETY: rows of the arrays; `over_rows` gave two scratch rows if either is staged.
            unsafe {
                let x = self.x.get(r, self.scratch);
                let own = self.scratch.wrapping_add(pad(n));
                let y = self.y.out(r, own);
                row::<T, T::V<A>>(x, y, n, self.log);
                self.y.put(r, own);
            }
        }
    }
}

/// `log(sum(exp(x)))` as the maximum and the sum of exponentials less the maximum.
/// # Safety
/// `x` points to `n` readable elements.
#[inline(always)]
pub unsafe fn max_and_sum<T: Compute, V: FloatLanes<Elem = T>>(x: *const T, n: usize) -> (f64, f64) {
    // SAFETY: the caller's promise.
    unsafe {
        let m = greatest::<T, V>(x, n);
        (m, sum::<T, V, _>(ExpSum(V::lit(m)), x, x, n, f64::NEG_INFINITY))
    }
}

/// # Safety
/// `x` and `y` point to `n` elements; they may be the same.
#[inline(always)]
unsafe fn row<T: Compute, V: FloatLanes<Elem = T>>(x: *const T, y: *mut T, n: usize, log: bool) {
    // SAFETY: the caller's promise covers every loop.
    unsafe {
        if log {
            let (m, s) = max_and_sum::<T, V>(x, n);
            // Two subtractions: the maximum may be large, and its sum with the log would lose digits.
            map::<T, V, _>(Less(V::lit(m), V::lit(s.ln())), [x, null(), null(), null()], y, n);
            return;
        }
        let m = greatest::<T, V>(x, n);
        let shift = V::lit(m);
        let mut total = 0.0;
        let mut start = 0;
        while start < n {
            let end = n.min(start + BLOCK);
            let mut acc = [V::lit(0.0); 2];
            let mut i = start;
            while i + 2 * V::N <= end {
                for (k, s) in acc.iter_mut().enumerate() {
                    let j = i + k * V::N;
                    let e = (V::load(x.add(j)) - shift).exp();
                    e.store(y.add(j));
                    *s = *s + e;
                }
                i += 2 * V::N;
            }
            while i < end {
                let k = V::N.min(end - i);
                let e = (V::load_partial(x.add(i), k, T::of(f64::NEG_INFINITY)) - shift).exp();
                e.store_partial(y.add(i), k);
                acc[0] = acc[0] + e;
                i += V::N;
            }
            total += (acc[0] + acc[1]).reduce_add().f64();
            start = end;
        }
        map::<T, V, _>(Times(V::lit(1.0 / total)), [y, null(), null(), null()], y, n);
    }
}

#[derive(Clone, Copy)]
struct Times<V>(V);
impl<V: FloatLanes> Make<V> for Times<V> {
    #[inline(always)]
    fn at(self, x: [V; 4]) -> V {
        x[0] * self.0
    }
}
#[derive(Clone, Copy)]
struct Less<V>(V, V);
impl<V: FloatLanes> Make<V> for Less<V> {
    #[inline(always)]
    fn at(self, x: [V; 4]) -> V {
        (x[0] - self.0) - self.1
    }
}

fn backward<T: Compute>(dy: Arr, y: Arr, dx: Arr, log: bool) -> Result<()> {
    if let Some(c) = columns::Columns::<T, 3>::new([&y, &dy, &dx]) {
        columns::backward(&c, log);
        return Ok(());
    }
    let (dy, y, dx) = (Rows::new(&dy), Rows::new(&y), Rows::new(&dx));
    over_rows::<T>(y.rows, y.n, staged::<T>(&[&dy, &y, &dx]), 0.5, &|from, to, scratch| {
        dispatch(Backward { dy: &dy, y: &y, dx: &dx, log, from, to, scratch });
    })
}

struct Backward<'a, T> {
    dy: &'a Rows<'a>,
    y: &'a Rows<'a>,
    dx: &'a Rows<'a>,
    log: bool,
    from: usize,
    to: usize,
    scratch: *mut T,
}

/// `y * (dy - s)`
#[derive(Clone, Copy)]
struct Inner<V>(V);
impl<V: FloatLanes> Make<V> for Inner<V> {
    #[inline(always)]
    fn at(self, x: [V; 4]) -> V {
        x[0] * (x[1] - self.0)
    }
}
/// `dy - exp(y) * s`
#[derive(Clone, Copy)]
struct LogInner<V>(V);
impl<V: FloatLanes> Make<V> for LogInner<V> {
    #[inline(always)]
    fn at(self, x: [V; 4]) -> V {
        x[1] - x[0].exp() * self.0
    }
}

impl<T: Compute> ArchKernel for Backward<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let n = self.y.n;
        let buf = |k: usize| self.scratch.wrapping_add(k * pad(n));
        for r in self.from..self.to {
            // SAFETY: rows of the arrays; three scratch rows if any is staged.
            unsafe {
                let (y, dy) = (self.y.get(r, buf(0)), self.dy.get(r, buf(1)));
                let dx = self.dx.out(r, buf(2));
                let rows = [y, dy, null(), null()];
                if self.log {
                    let s = sum::<T, T::V<A>, _>(Plain, dy, dy, n, 0.0);
                    use pyrite_core::expr::Any;
                    map::<T, T::V<A>, _>(LogInner(T::V::<A>::lit(s)), rows, dx, n);
                } else {
                    let s = sum::<T, T::V<A>, _>(Dot, dy, y, n, 0.0);
                    use pyrite_core::expr::Any;
                    map::<T, T::V<A>, _>(Inner(T::V::<A>::lit(s)), rows, dx, n);
                }
                self.dx.put(r, buf(2));
            }
        }
    }
}

fn log_sum_exp<T: Compute>(x: Arr, y: Arr) -> Result<()> {
    let (x, y) = (Rows::new(&x), Rows::scalars(&y));
    over_rows::<T>(x.rows, x.n, staged::<T>(&[&x]), 0.4, &|from, to, scratch| {
        dispatch(Lse { x: &x, y: &y, from, to, scratch });
    })
}

struct Lse<'a, T> {
    x: &'a Rows<'a>,
    y: &'a Rows<'a>,
    from: usize,
    to: usize,
    scratch: *mut T,
}

impl<T: Compute> ArchKernel for Lse<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        for r in self.from..self.to {
            // SAFETY: rows of the arrays; a scratch row if x is staged.
            unsafe {
                let x = self.x.get(r, self.scratch);
                let n = self.x.n;
                let m = greatest::<T, T::V<A>>(x, n);
                // An infinite maximum would make inf - inf: without a shift the result is right.
                let m = if m.is_finite() { m } else { 0.0 };
                use pyrite_core::expr::Any;
                let s = sum::<T, T::V<A>, _>(ExpSum(T::V::<A>::lit(m)), x, x, n, f64::NEG_INFINITY);
                self.y.set(r, m + s.ln());
            }
        }
    }
}
