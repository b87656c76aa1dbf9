//! Layer norm and RMS norm: statistics by two passes over a cached row, gradients of the affine
//! parameters in a fixed order.

use super::vector::{Make, Plain, Spread, map, sum};
use super::{over_rows, pad, per_row, same_shape, staged};
use crate::alloc::Block;
use crate::oom;
use crate::pool::{chunks, parallel};
use crate::simd::{Arch, ArchKernel, FloatLanes, dispatch};
use crate::strided::{Compute, Ptr, Rows, gather_flat, scatter_flat};
use pyrite_core::backend::Rowwise;
use pyrite_core::expr::Any;
use pyrite_core::{Arr, Result, bail};
use std::ptr::null;

const OP: &str = "layer_norm";

pub fn run(r: Rowwise) -> Result<()> {
    match r {
        Rowwise::LayerNorm { x, w, b, y, mean, rstd, eps, rms } => {
            same_shape(OP, &x, &[&y])?;
            let rows = Rows::new(&x);
            per_row(OP, rows.rows, &[&rstd])?;
            if let Some(m) = &mean {
                per_row(OP, rows.rows, &[m])?;
            }
            crate::compute_of!(OP, x.dtype, |T| {
                let (w, b) = (affine::<T>(w.as_ref(), rows.n)?, affine::<T>(b.as_ref(), rows.n)?);
                let (y, mean, rstd) = (Rows::new(&y), mean.as_ref().map(Rows::scalars), Rows::scalars(&rstd));
                let bufs = staged::<T>(&[&rows, &y]);
                over_rows::<T>(rows.rows, rows.n, bufs, 0.5, &|from, to, scratch| {
                    let (w, b) = (ptr(&w), ptr(&b));
                    dispatch(Forward {
                        x: &rows,
                        y: &y,
                        w,
                        b,
                        mean: mean.as_ref(),
                        rstd: &rstd,
                        eps,
                        rms,
                        from,
                        to,
                        scratch,
                    })
                })
            })
        }
        Rowwise::LayerNormBackward { dy, x, w, mean, rstd, dx, dw, db, rms } => {
            same_shape(OP, &x, &[&dy])?;
            if let Some(d) = &dx {
                same_shape(OP, &x, &[d])?;
            }
            per_row(OP, Rows::new(&x).rows, &[&rstd])?;
            if !rms && mean.is_none() {
                bail!(Runtime, "{OP} backward: the mean is missing");
            }
            crate::compute_of!(OP, x.dtype, |T| backward::<T>(dy, x, w, mean, rstd, dx, dw, db, rms))
        }
        _ => Ok(()),
    }
}

/// A parameter of one row as dense numbers.
fn affine<T: Compute>(a: Option<&Arr>, n: usize) -> Result<Option<Block>> {
    let Some(a) = a else { return Ok(None) };
    if a.numel() != n {
        bail!(Shape, "{OP}: the weight or bias has shape {:?}, expected {n} elements", a.shape);
    }
    let block = Block::new(pad(n) * size_of::<T>()).map_err(oom)?;
    // SAFETY: n elements in the array and in the block.
    unsafe { gather_flat::<T>(a, 0, n, block.as_ptr().cast()) };
    Ok(Some(block))
}

fn ptr<T>(b: &Option<Block>) -> *const T {
    b.as_ref().map_or(null(), |b| b.as_ptr().cast_const().cast())
}

struct Forward<'a, T> {
    x: &'a Rows<'a>,
    y: &'a Rows<'a>,
    w: *const T,
    b: *const T,
    mean: Option<&'a Rows<'a>>,
    rstd: &'a Rows<'a>,
    eps: f64,
    rms: bool,
    from: usize,
    to: usize,
    scratch: *mut T,
}

/// `(x - mean) * rstd * w + b`
#[derive(Clone, Copy)]
struct Affine<V> {
    mean: V,
    rstd: V,
    w: bool,
}
impl<V: FloatLanes> Make<V> for Affine<V> {
    #[inline(always)]
    fn at(self, x: [V; 4]) -> V {
        let h = (x[0] - self.mean) * self.rstd;
        if self.w { V::fma_(h, x[1], x[2]) } else { h + x[2] }
    }
}

impl<T: Compute> ArchKernel for Forward<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let n = self.x.n;
        let own = self.scratch.wrapping_add(pad(n));
        for r in self.from..self.to {
            // SAFETY: rows of the arrays; two scratch rows if either is staged; n weights and biases.
            unsafe {
                let x = self.x.get(r, self.scratch);
                let len = n as f64;
                let mean = if self.rms { 0.0 } else { sum::<T, T::V<A>, _>(Plain, x, x, n, 0.0) / len };
                // The mean as the lanes see it, so that it is the one subtracted.
                let mean = T::of(mean).f64();
                let m = T::V::<A>::lit(mean);
                let square = sum::<T, T::V<A>, _>(Spread(m), x, x, n, mean);
                let rstd = T::of(1.0 / (square / len + self.eps).sqrt()).f64();
                let f = Affine { mean: m, rstd: T::V::<A>::lit(rstd), w: !self.w.is_null() };
                let y = self.y.out(r, own);
                map::<T, T::V<A>, _>(f, [x, self.w, self.b, null()], y, n);
                self.y.put(r, own);
                if let Some(to) = self.mean {
                    to.set(r, mean);
                }
                self.rstd.set(r, rstd);
            }
        }
    }
}

/// Rows whose parameter gradients are added up in the compute type before they go to f64.
const FLUSH: usize = 64;

fn backward<T: Compute>(
    dy: Arr,
    x: Arr,
    w: Option<Arr>,
    mean: Option<Arr>,
    rstd: Arr,
    dx: Option<Arr>,
    dw: Option<Arr>,
    db: Option<Arr>,
    rms: bool,
) -> Result<()> {
    let (dyr, xr) = (Rows::new(&dy), Rows::new(&x));
    let (rows, n) = (xr.rows, xr.n);
    let w = affine::<T>(w.as_ref(), n)?;
    let (mean, rstd) = (mean.as_ref().map(Rows::scalars), Rows::scalars(&rstd));
    let dxr = dx.as_ref().map(Rows::new);
    let params = dw.is_some() || db.is_some();
    // Few chunks: each has its own sums of two rows. The number depends on the size alone.
    let each = rows.div_ceil(16).max((16384 / n.max(1)).max(1));
    let k = rows.div_ceil(each.max(1));
    let wide = 2 * pad(n);
    // Per chunk: f64 sums of dw and db, then the same in T, then three staging rows.
    let bytes = wide * (8 + size_of::<T>()) + 3 * pad(n) * size_of::<T>();
    let work = Block::new((k * bytes).max(64)).map_err(oom)?;
    let base = Ptr(work.as_ptr());
    let w_ptr = Ptr(ptr::<T>(&w).cast_mut());
    parallel(k, (rows * n) as u64, &|c| {
        let own = base.get().wrapping_add(c * bytes);
        dispatch(Backward {
            dy: &dyr,
            x: &xr,
            w: w_ptr.get(),
            mean: if rms { None } else { mean.as_ref() },
            rstd: &rstd,
            dx: dxr.as_ref(),
            params,
            from: c * each,
            to: rows.min((c + 1) * each),
            wide: own.cast::<f64>(),
            near: own.wrapping_add(wide * 8).cast::<T>(),
        });
    });
    if !params {
        return Ok(());
    }
    // The chunks' sums, in order.
    let (m, size) = chunks(n, 1024);
    for (which, out) in [dw, db].into_iter().enumerate() {
        let Some(out) = out else { continue };
        if out.numel() != n {
            bail!(
                Shape,
                "{OP} backward: a parameter's gradient has shape {:?}, expected {n} elements",
                out.shape
            );
        }
        let (p, d, shape, strides) = (Ptr(out.ptr), out.dtype, out.shape, out.strides);
        parallel(m, (n * k) as u64, &|c| {
            let (from, to) = (c * size, n.min((c + 1) * size));
            let arr = Arr { ptr: p.get(), dtype: d, shape, strides };
            for i in from..to {
                let mut s = 0.0;
                for q in 0..k {
                    // SAFETY: column i of chunk q's sums, which the region above has written.
                    s += unsafe { *base.get().add(q * bytes).cast::<f64>().add(which * pad(n) + i) };
                }
                let s = T::of(s);
                // SAFETY: position i of the gradient.
                unsafe { scatter_flat::<T>(&arr, i, 1, &s) };
            }
        });
    }
    Ok(())
}

struct Backward<'a, T> {
    dy: &'a Rows<'a>,
    x: &'a Rows<'a>,
    w: *const T,
    mean: Option<&'a Rows<'a>>,
    rstd: &'a Rows<'a>,
    dx: Option<&'a Rows<'a>>,
    params: bool,
    from: usize,
    to: usize,
    wide: *mut f64,
    near: *mut T,
}

/// `rstd * (g - c1 - xhat * c2)`, `g = dy * w`, `xhat = (x - mean) * rstd`
#[derive(Clone, Copy)]
struct Grad<V> {
    mean: V,
    rstd: V,
    c1: V,
    c2: V,
    w: bool,
}
impl<V: FloatLanes> Make<V> for Grad<V> {
    #[inline(always)]
    fn at(self, x: [V; 4]) -> V {
        let g = if self.w { x[1] * x[2] } else { x[1] };
        let h = (x[0] - self.mean) * self.rstd;
        V::fma_(-h, self.c2, g - self.c1) * self.rstd
    }
}

impl<T: Compute> ArchKernel for Backward<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let n = self.x.n;
        let p = pad(n);
        let stage = |k: usize| self.near.wrapping_add((2 + k) * p);
        // SAFETY: the chunk's own block: 2 rows of f64, 2 + 3 rows of T.
        unsafe {
            for i in 0..2 * p {
                *self.wide.add(i) = 0.0;
                *self.near.add(i) = T::of(0.0);
            }
        }
        for r in self.from..self.to {
            // SAFETY: rows of the arrays and of the chunk's block; n weights or none.
            unsafe {
                let (x, dy) = (self.x.get(r, stage(0)), self.dy.get(r, stage(1)));
                let (mean, rstd) = (self.mean.map_or(0.0, |m| m.num(r)), self.rstd.num(r));
                let (m, s) = (T::V::<A>::lit(mean), T::V::<A>::lit(rstd));
                let (sg, sgh) = pass::<T, T::V<A>>(x, dy, self.w, m, s, self.near, p, n, self.params);
                if let Some(dx) = self.dx {
                    let len = n as f64;
                    let f = Grad {
                        mean: m,
                        rstd: s,
                        c1: T::V::<A>::lit(if self.mean.is_some() { sg / len } else { 0.0 }),
                        c2: T::V::<A>::lit(sgh / len),
                        w: !self.w.is_null(),
                    };
                    let out = dx.out(r, stage(2));
                    map::<T, T::V<A>, _>(f, [x, dy, self.w, null()], out, n);
                    dx.put(r, stage(2));
                }
                if self.params && ((r + 1 - self.from).is_multiple_of(FLUSH) || r + 1 == self.to) {
                    for i in 0..2 * p {
                        *self.wide.add(i) += (*self.near.add(i)).f64();
                        *self.near.add(i) = T::of(0.0);
                    }
                }
            }
        }
    }
}

/// One row's sums of `g` and `g * xhat`, and its terms of dw and db added to `acc` and `acc + p`.
/// # Safety
/// `n` elements in every row; `acc` has `2 * p` with `p >= n`.
#[inline(always)]
unsafe fn pass<T: Compute, V: FloatLanes<Elem = T>>(
    x: *const T,
    dy: *const T,
    w: *const T,
    mean: V,
    rstd: V,
    acc: *mut T,
    p: usize,
    n: usize,
    params: bool,
) -> (f64, f64) {
    let zero = T::of(0.0);
    let (mut tg, mut th) = (0.0, 0.0);
    let mut start = 0;
    while start < n {
        let end = n.min(start + super::vector::BLOCK);
        let (mut sg, mut sh) = (V::lit(0.0), V::lit(0.0));
        let mut i = start;
        while i < end {
            let k = V::N.min(end - i);
            // SAFETY: elements below n.
            unsafe {
                // Lanes past the end have dy = 0 and add nothing.
                let (vx, d) = if k == V::N {
                    (V::load(x.add(i)), V::load(dy.add(i)))
                } else {
                    (V::load_partial(x.add(i), k, zero), V::load_partial(dy.add(i), k, zero))
                };
                let h = (vx - mean) * rstd;
                let g = match (w.is_null(), k == V::N) {
                    (true, _) => d,
                    (false, true) => d * V::load(w.add(i)),
                    (false, false) => d * V::load_partial(w.add(i), k, zero),
                };
                sg = sg + g;
                sh = V::fma_(g, h, sh);
                if params {
                    let (aw, ab) = (acc.add(i), acc.add(p + i));
                    if k == V::N {
                        V::fma_(d, h, V::load(aw)).store(aw);
                        (V::load(ab) + d).store(ab);
                    } else {
                        V::fma_(d, h, V::load_partial(aw, k, zero)).store_partial(aw, k);
                        (V::load_partial(ab, k, zero) + d).store_partial(ab, k);
                    }
                }
            }
            i += V::N;
        }
        tg += sg.reduce_add().f64();
        th += sh.reduce_add().f64();
        start = end;
    }
    (tg, th)
}
