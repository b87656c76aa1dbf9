//! softmax along a dimension that is not the dense one: whole vectors of neighbouring columns at a
//! time, so that every line of memory is read in full. Four vectors go together to hide latencies.

use crate::pool::parallel;
use crate::simd::{Arch, ArchKernel, FloatLanes, Lanes, dispatch};
use crate::strided::{Compute, Ptr, offset};
use pyrite_core::Arr;

/// Rows summed in one register before they join the total: keeps the error of long sums small.
const BLOCK: usize = 64;
/// Below this many neighbouring columns the row kernels do as well.
const FEW: usize = 8;

/// Arrays of one shape [outer..., inner..., n] whose `inner` columns lie side by side.
pub struct Columns<'a, T, const N: usize> {
    ptr: [Ptr<T>; N],
    strides: [&'a [isize]; N],
    shape: &'a [usize],
    /// Neighbouring columns.
    inner: usize,
    n: usize,
    /// From one row to the next.
    step: [isize; N],
}

impl<'a, T: Compute, const N: usize> Columns<'a, T, N> {
    /// `None` if the arrays are laid out otherwise.
    pub fn new(arrs: [&Arr<'a>; N]) -> Option<Columns<'a, T, N>> {
        let shape = arrs[0].shape;
        let (lead, n) = (shape.len().checked_sub(1)?, *shape.last()?);
        let (mut inner, mut first) = (1, lead);
        if n <= 1 || arrs.iter().any(|a| a.dtype != T::DTYPE || a.strides[lead] == 1) {
            return None;
        }
        while first > 0
            && arrs.iter().all(|a| shape[first - 1] == 1 || a.strides[first - 1] == inner as isize)
        {
            first -= 1;
            inner *= shape[first];
        }
        if inner < FEW {
            return None;
        }
        Some(Columns {
            ptr: arrs.map(|a| Ptr(a.ptr.cast())),
            strides: arrs.map(|a| &a.strides[..first]),
            shape: &shape[..first],
            inner,
            n,
            step: arrs.map(|a| a.strides[lead]),
        })
    }

    /// Runs `f` over stretches of columns: pointers to their first elements, and how many there are.
    fn each(&self, ns: f64, f: &(dyn Fn([*mut T; N], usize) + Sync)) {
        let outer: usize = self.shape.iter().product();
        // What one stretch reads and writes stays in the second-level cache.
        let lines = (262_144 / (self.n * N * 64)).clamp(1, 8);
        let width = (lines * 256 / size_of::<T>()).min(self.inner);
        let parts = self.inner.div_ceil(width);
        let work = (outer * self.inner * self.n) as f64 * ns;
        parallel(outer * parts, work as u64, &|q| {
            let (o, c) = (q / parts, q % parts * width);
            let at = std::array::from_fn(|i| {
                self.ptr[i].get().wrapping_offset(offset(self.shape, self.strides[i], o) + c as isize)
            });
            f(at, width.min(self.inner - c));
        });
    }
}

/// # Panics
/// Never: sizes were settled by [`Columns::new`].
pub fn forward<T: Compute>(c: &Columns<T, 2>, log: bool) {
    c.each(0.6, &|[x, y], width| dispatch(Forward { x, y, width, n: c.n, step: c.step, log }));
}

/// From `[y, dy, dx]`.
pub fn backward<T: Compute>(c: &Columns<T, 3>, log: bool) {
    c.each(0.5, &|[y, dy, dx], width| dispatch(Backward { y, dy, dx, width, n: c.n, step: c.step, log }));
}

struct Forward<T> {
    x: *const T,
    y: *mut T,
    width: usize,
    n: usize,
    step: [isize; 2],
    log: bool,
}

impl<T: Compute> ArchKernel for Forward<T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let lanes = T::V::<A>::N;
        let mut c = 0;
        // SAFETY: columns `c..` below `width` of both arrays.
        unsafe {
            while c + 4 * lanes <= self.width {
                self.group::<T::V<A>, 4>(c, lanes);
                c += 4 * lanes;
            }
            while c < self.width {
                self.group::<T::V<A>, 1>(c, lanes.min(self.width - c));
                c += lanes;
            }
        }
    }
}

impl<T: Compute> Forward<T> {
    /// `K` vectors of columns from `c` on, of which the (only) last one has `k` elements.
    /// # Safety
    /// The columns exist.
    #[inline(always)]
    unsafe fn group<V: FloatLanes<Elem = T>, const K: usize>(&self, c: usize, k: usize) {
        let at =
            |r: usize, i: usize| self.x.wrapping_offset(r as isize * self.step[0]).wrapping_add(c + i * V::N);
        let to =
            |r: usize, i: usize| self.y.wrapping_offset(r as isize * self.step[1]).wrapping_add(c + i * V::N);
        // SAFETY: rows below n of columns the caller answers for.
        unsafe {
            let get = |p: *const T| if K == 1 { V::load_partial(p, k, T::of(0.0)) } else { V::load(p) };
            let put = |v: V, p: *mut T| if K == 1 { v.store_partial(p, k) } else { v.store(p) };
            let mut most = [V::lit(f64::NEG_INFINITY); K];
            for r in 0..self.n {
                for (i, m) in most.iter_mut().enumerate() {
                    // The second argument stays where either is NaN; the sum then shows it.
                    *m = V::max_(get(at(r, i)), *m);
                }
            }
            let mut total = [V::lit(0.0); K];
            let mut start = 0;
            while start < self.n {
                let end = self.n.min(start + BLOCK);
                let mut sum = [V::lit(0.0); K];
                for r in start..end {
                    for i in 0..K {
                        let e = (get(at(r, i)) - most[i]).exp();
                        if !self.log {
                            put(e, to(r, i));
                        }
                        sum[i] = sum[i] + e;
                    }
                }
                for i in 0..K {
                    total[i] = total[i] + sum[i];
                }
                start = end;
            }
            for i in 0..K {
                total[i] = if self.log { total[i].log() } else { V::lit(1.0) / total[i] };
            }
            for r in 0..self.n {
                for i in 0..K {
                    let v = if self.log {
                        (get(at(r, i)) - most[i]) - total[i]
                    } else {
                        get(to(r, i)) * total[i]
                    };
                    put(v, to(r, i));
                }
            }
        }
    }
}

struct Backward<T> {
    y: *const T,
    dy: *const T,
    dx: *mut T,
    width: usize,
    n: usize,
    step: [isize; 3],
    log: bool,
}

impl<T: Compute> ArchKernel for Backward<T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let lanes = T::V::<A>::N;
        let mut c = 0;
        // SAFETY: columns `c..` below `width` of all arrays.
        unsafe {
            while c + 4 * lanes <= self.width {
                self.group::<T::V<A>, 4>(c, lanes);
                c += 4 * lanes;
            }
            while c < self.width {
                self.group::<T::V<A>, 1>(c, lanes.min(self.width - c));
                c += lanes;
            }
        }
    }
}

impl<T: Compute> Backward<T> {
    /// As [`Forward::group`].
    /// # Safety
    /// The columns exist.
    #[inline(always)]
    unsafe fn group<V: FloatLanes<Elem = T>, const K: usize>(&self, c: usize, k: usize) {
        let [ys, gs, xs] = self.step;
        let y = |r: usize, i: usize| self.y.wrapping_offset(r as isize * ys).wrapping_add(c + i * V::N);
        let dy = |r: usize, i: usize| self.dy.wrapping_offset(r as isize * gs).wrapping_add(c + i * V::N);
        let dx = |r: usize, i: usize| self.dx.wrapping_offset(r as isize * xs).wrapping_add(c + i * V::N);
        // SAFETY: rows below n of columns the caller answers for.
        unsafe {
            let get = |p: *const T| if K == 1 { V::load_partial(p, k, T::of(0.0)) } else { V::load(p) };
            let put = |v: V, p: *mut T| if K == 1 { v.store_partial(p, k) } else { v.store(p) };
            let mut total = [V::lit(0.0); K];
            let mut start = 0;
            while start < self.n {
                let end = self.n.min(start + BLOCK);
                let mut sum = [V::lit(0.0); K];
                for r in start..end {
                    for (i, s) in sum.iter_mut().enumerate() {
                        let g = get(dy(r, i));
                        *s = *s + if self.log { g } else { g * get(y(r, i)) };
                    }
                }
                for i in 0..K {
                    total[i] = total[i] + sum[i];
                }
                start = end;
            }
            for r in 0..self.n {
                for (i, s) in total.iter().enumerate() {
                    let (y, g) = (get(y(r, i)), get(dy(r, i)));
                    let v = if self.log { g - y.exp() * *s } else { y * (g - *s) };
                    put(v, dx(r, i));
                }
            }
        }
    }
}
