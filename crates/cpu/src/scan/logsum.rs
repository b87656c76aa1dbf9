//! Running log-sums of real numbers. A dense line goes block by block: exponentials of the distances
//! from the greatest element so far are added up, and logarithms taken of the sums, so that only
//! additions wait for each other. Columns take each row as vectors.

use super::Bundle;
use super::kinds::log_add;
use crate::simd::{Arch, ArchKernel, Base, FloatLanes, S};
use pyrite_core::expr::Field;

/// Elements of a block.
const BLOCK: usize = 256;
/// Sums of exponentials may be this small beside the block's greatest: f64 keeps all their digits.
const REACH: f64 = 600.0;

/// What goes through f64.
pub trait Real: Copy + Send + Sync + 'static {
    fn wide(self) -> f64;
    fn of(v: f64) -> Self;
}
impl Real for f32 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self as f64
    }
    #[inline(always)]
    fn of(v: f64) -> f32 {
        v as f32
    }
}
impl Real for f64 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn of(v: f64) -> f64 {
        v
    }
}

/// `from` holds each line's log-sum so far and takes the new one.
pub struct LogSums<'a, T> {
    pub b: Bundle<T>,
    pub from: &'a mut [f64],
}

impl<T: Real> ArchKernel for LogSums<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let LogSums { b, from } = self;
        // SAFETY: the caller's lines and elements exist.
        unsafe {
            if b.along == [1, 1] {
                for l in 0..b.lines as isize {
                    let (s, d) = (b.src.offset(l * b.across[0]), b.dst.offset(l * b.across[1]));
                    from[l as usize] = line::<T, A::F64>(s, d, b.n, from[l as usize]);
                }
            } else if b.across == [1, 1] {
                columns::<T, A::F64>(&b, from);
            } else {
                for l in 0..b.lines as isize {
                    let mut a = from[l as usize];
                    for i in 0..b.n as isize {
                        let x = *b.src.offset(l * b.across[0] + i * b.along[0]);
                        a = log_add(a, x.wide());
                        *b.dst.offset(l * b.across[1] + i * b.along[1]) = T::of(a);
                    }
                    from[l as usize] = a;
                }
            }
        }
    }
}

/// # Safety
/// `n` elements at `s` and `d`.
#[inline(always)]
unsafe fn line<T: Real, V: FloatLanes<Elem = f64>>(s: *const T, d: *mut T, n: usize, mut a: f64) -> f64 {
    let mut buffer = [0f64; BLOCK];
    let mut first = 0;
    while first < n {
        let m = BLOCK.min(n - first);
        // SAFETY: m elements from `first` on; the buffer has BLOCK, of which all are numbers.
        unsafe {
            let mut most = a;
            for (i, e) in buffer[..m].iter_mut().enumerate() {
                *e = (*s.add(first + i)).wide();
                most = if *e > most { *e } else { most };
            }
            // The first sum is the smallest. False for NaN, and where all begins with -inf.
            if most.is_finite() && (a >= most - REACH || a == f64::NEG_INFINITY && buffer[0] >= most - REACH)
            {
                let p = buffer.as_mut_ptr();
                let top = V::splat(most);
                for i in (0..BLOCK).step_by(V::N) {
                    (V::load(p.add(i)) - top).exp().store(p.add(i));
                }
                let mut sum = S(a - most).exp().0;
                for e in buffer[..m].iter_mut() {
                    sum += *e;
                    *e = sum;
                }
                for i in (0..BLOCK).step_by(V::N) {
                    (V::load(p.add(i)).log() + top).store(p.add(i));
                }
                a = buffer[m - 1];
            } else {
                for e in buffer[..m].iter_mut() {
                    a = log_add(a, *e);
                    *e = a;
                }
            }
            for (i, e) in buffer[..m].iter().enumerate() {
                *d.add(first + i) = T::of(*e);
            }
        }
        first += m;
    }
    a
}

/// # Safety
/// `b.lines` columns side by side.
#[inline(always)]
unsafe fn columns<T: Real, V: FloatLanes<Elem = f64>>(b: &Bundle<T>, from: &mut [f64]) {
    let mut row = [0f64; BLOCK];
    let zero = V::lit(0.0);
    for c in (0..b.lines).step_by(BLOCK) {
        let m = BLOCK.min(b.lines - c);
        let mut sums = [0f64; BLOCK];
        sums[..m].copy_from_slice(&from[c..c + m]);
        for i in 0..b.n as isize {
            // SAFETY: m columns of row i; both buffers have BLOCK numbers.
            unsafe {
                let (s, d) = (b.src.offset(i * b.along[0]).add(c), b.dst.offset(i * b.along[1]).add(c));
                for (j, e) in row[..m].iter_mut().enumerate() {
                    *e = (*s.add(j)).wide();
                }
                let (p, q) = (row.as_ptr(), sums.as_mut_ptr());
                for j in (0..m.next_multiple_of(V::N)).step_by(V::N) {
                    let (x, a) = (V::load(p.add(j)), V::load(q.add(j)));
                    let hi = <V as Base>::max_(a, x);
                    // Equal infinities: their difference is NaN.
                    let gap = V::select(V::eq(a, x), zero, <V as Base>::min_(a, x) - hi);
                    let r = hi + gap.exp().log1p();
                    // A sum with NaN is NaN, whatever the extrema made of it.
                    let r = V::select(a.is_nan_(), a, V::select(x.is_nan_(), x, r));
                    r.store(q.add(j));
                }
                for (j, e) in sums[..m].iter().enumerate() {
                    *d.add(j) = T::of(*e);
                }
            }
        }
        from[c..c + m].copy_from_slice(&sums[..m]);
    }
}
