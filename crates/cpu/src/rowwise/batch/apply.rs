//! Batch norm applied: a line per channel, or the gradient's two.

use super::super::vector::{Make, map};
use super::super::{Failed, pad};
use super::{Chan, Grid, View};
use crate::oom;
use crate::pool::{chunks, parallel};
use crate::simd::{Arch, ArchKernel, FloatLanes, Lanes, dispatch};
use crate::strided::{Compute, Ptr, scatter};
use pyrite_core::{Arr, Result};
use std::ptr::null;

/// `y = (x0 - m) * a + b` or (`grad`) `y = x1 * a + (x0 - m) * b + c`, numbers per channel.
pub(super) fn apply<T: Compute, const IN: usize>(
    g: &Grid,
    x: [&Arr; IN],
    y: &Arr,
    chan: [&Chan<T>; 4],
    grad: bool,
) -> Result<()> {
    let (strips, len) = g.strips();
    let (k, each) = chunks(strips, (16384 / len.max(1)).max(1));
    let (x, y) = ([View::new(x[0]), View::new(x[IN - 1])], View::new(y));
    let failed = Failed::default();
    parallel(k, (strips * len) as u64 / 2, &|j| {
        let part = Strips { from: j * each, to: strips.min((j + 1) * each), step: 1 };
        if let Err(e) = apply_to(g, x, y, chan, grad, part) {
            failed.set(e);
        }
    });
    failed.result()
}

/// Strips `from`, `from + step`, ... below `to`.
#[derive(Clone, Copy)]
pub(super) struct Strips {
    pub from: usize,
    pub to: usize,
    pub step: usize,
}

/// [`apply`] to some strips, in the calling thread.
pub(super) fn apply_to<T: Compute>(
    g: &Grid,
    x: [View; 2],
    y: View,
    chan: [&Chan<T>; 4],
    grad: bool,
    strips: Strips,
) -> Result<()> {
    let (_, len) = g.strips();
    let chan = chan.map(|c| Ptr(c.ptr()));
    crate::pool::with_scratch(3 * pad(len) * size_of::<T>(), |s| {
        dispatch(Apply { g, x, y, chan, grad, strips, s: s.cast::<T>() });
    })
    .map_err(oom)
}

struct Apply<'a, T> {
    g: &'a Grid,
    x: [View; 2],
    y: View,
    chan: [Ptr<T>; 4],
    grad: bool,
    strips: Strips,
    s: *mut T,
}

/// One channel's line: `(x - m) * a + b`.
#[derive(Clone, Copy)]
struct Line<V>(V, V, V);
impl<V: FloatLanes> Make<V> for Line<V> {
    #[inline(always)]
    fn at(self, x: [V; 4]) -> V {
        V::fma_(x[0] - self.0, self.1, self.2)
    }
}
/// One channel's gradient: `dy * a + (x - m) * b + c`.
#[derive(Clone, Copy)]
struct Slope<V>(V, V, V, V);
impl<V: FloatLanes> Make<V> for Slope<V> {
    #[inline(always)]
    fn at(self, x: [V; 4]) -> V {
        V::fma_(x[1], self.1, V::fma_(x[0] - self.0, self.2, self.3))
    }
}

impl<T: Compute> ArchKernel for Apply<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let g = self.g;
        let (_, len) = g.strips();
        let chan = self.chan.map(|c| c.get().cast_const());
        for s in (self.strips.from..self.strips.to).step_by(self.strips.step) {
            // SAFETY: strips of the arrays; three scratch rows; numbers of every channel.
            unsafe {
                let x = self.x[0].dense(g.at(&self.x[0], s), len, self.s);
                let dy = if self.grad {
                    self.x[1].dense(g.at(&self.x[1], s), len, self.s.add(pad(len)))
                } else {
                    x
                };
                let (yp, ys) = g.at(&self.y, s);
                let direct = self.y.dtype == T::DTYPE && (ys == 1 || len == 1);
                let out = if direct { yp.cast::<T>() } else { self.s.add(2 * pad(len)) };
                if g.last {
                    across::<T, T::V<A>>(x, dy, chan, self.grad, out, len);
                } else {
                    let c = s % g.c;
                    let v = |k: usize| T::V::<A>::splat(*chan[k].add(c));
                    if self.grad {
                        let f = Slope(v(0), v(1), v(2), v(3));
                        map::<T, T::V<A>, _>(f, [x, dy, null(), null()], out, len);
                    } else {
                        map::<T, T::V<A>, _>(Line(v(0), v(1), v(2)), [x, null(), null(), null()], out, len);
                    }
                }
                if !direct {
                    scatter(self.y.dtype, yp, ys, len, out.cast_const());
                }
            }
        }
    }
}

/// A strip of all channels.
/// # Safety
/// `n` elements in every row.
#[inline(always)]
unsafe fn across<T: Compute, V: FloatLanes<Elem = T>>(
    x: *const T,
    dy: *const T,
    chan: [*const T; 4],
    grad: bool,
    y: *mut T,
    n: usize,
) {
    let zero = T::of(0.0);
    let mut i = 0;
    while i < n {
        let k = V::N.min(n - i);
        // SAFETY: elements below n.
        unsafe {
            macro_rules! load {
                ($p:expr) => {
                    if k == V::N { V::load($p.add(i)) } else { V::load_partial($p.add(i), k, zero) }
                };
            }
            let h = load!(x) - load!(chan[0]);
            let v = if grad {
                V::fma_(load!(dy), load!(chan[1]), V::fma_(h, load!(chan[2]), load!(chan[3])))
            } else {
                V::fma_(h, load!(chan[1]), load!(chan[2]))
            };
            if k == V::N { v.store(y.add(i)) } else { v.store_partial(y.add(i), k) }
        }
        i += V::N;
    }
}
