//! Batch norm: statistics, normalisation and gradients per channel of [N, C, L].
//!
//! A *strip* is what the kernels walk: a dense stretch of one channel (NCHW), or a dense stretch of
//! all channels at one position (channels-last, and [N, C]). Any other layout is staged row by row.
//! Block statistics are merged in f64 (Chan's formula), so large means cost no digits.

mod apply;
mod sums;

use super::{pad, per_row, same_shape};
use crate::alloc::Block;
use crate::oom;
use crate::strided::{Compute, Ptr, gather, gather_flat, scatter_flat};
use apply::{Strips, apply, apply_to};
use pyrite_core::backend::Rowwise;
use pyrite_core::{Arr, DType, Result, bail};
use sums::sums;

const OP: &str = "batch_norm";

/// Bytes that are taken to stay in the last cache between two passes.
const CACHED: usize = 24 << 20;

pub fn run(r: Rowwise) -> Result<()> {
    match r {
        Rowwise::BatchStats { x, mean, var } => {
            let g = Grid::new(&x)?;
            per_row(OP, g.c, &[&mean, &var])?;
            crate::compute_of!(OP, x.dtype, |T| {
                let s = sums::<T>(&g, &x, None, None, None)?;
                let m = (g.n * g.l) as f64;
                put::<T>(&mean, g.c, &|c| s.get(0, c));
                put::<T>(&var, g.c, &|c| s.get(1, c) / m);
                Ok(())
            })
        }
        Rowwise::BatchNorm { x, mean, rstd, w, b, y } => {
            same_shape(OP, &x, &[&y])?;
            let g = Grid::new(&x)?;
            crate::compute_of!(OP, x.dtype, |T| {
                let chan = [
                    Chan::<T>::of(&g, Some(&mean), 0.0)?,
                    Chan::of(&g, Some(&rstd), 1.0)?,
                    Chan::of(&g, w.as_ref(), 1.0)?,
                    Chan::of(&g, b.as_ref(), 0.0)?,
                ];
                // mean, rstd * w, b
                for c in 0..g.c {
                    chan[1].set(c, T::of(chan[1].get(c).f64() * chan[2].get(c).f64()));
                }
                apply::<T, 2>(&g, [&x, &x], &y, [&chan[0], &chan[1], &chan[3], &chan[3]], false)
            })
        }
        Rowwise::BatchNormBackward { dy, x, mean, rstd, w, dx, dw, db, training } => {
            same_shape(OP, &x, &[&dy])?;
            let g = Grid::new(&x)?;
            crate::compute_of!(OP, x.dtype, |T| {
                let (mean, rstd) =
                    (Chan::<T>::of(&g, Some(&mean), 0.0)?, Chan::<T>::of(&g, Some(&rstd), 1.0)?);
                let w = Chan::<T>::of(&g, w.as_ref(), 1.0)?;
                // dx = a * dy + k * (x - mean) + m
                let (a, k, m) = (Chan::<T>::new(&g)?, Chan::<T>::new(&g)?, Chan::<T>::new(&g)?);
                let count = (g.n * g.l) as f64;
                let coefficients = |c: usize, s0: f64, s1: f64| {
                    let r = rstd.get(c).f64();
                    let scale = r * w.get(c).f64();
                    let (s0, s1) = if training { (s0 / count, s1 / count) } else { (0.0, 0.0) };
                    a.set(c, T::of(scale));
                    k.set(c, T::of(-scale * s1 * r * r));
                    m.set(c, T::of(-scale * s0));
                };
                if let Some(dx) = &dx {
                    same_shape(OP, &x, &[dx])?;
                }
                let need = dw.is_some() || db.is_some() || (training && dx.is_some());
                // Channel by channel where `x` and `dy` do not fit the caches: then a channel's strips are still there
                // when its sums are known. Where they fit, whole passes in the order of memory are faster.
                let large = 2 * x.numel() * x.dtype.size() > CACHED;
                let fused = need && large && !g.last && g.c >= 2 * crate::pool::num_threads();
                let failed = super::Failed::default();
                let (from, to) = ([View::new(&x), View::new(&dy)], dx.as_ref().map(View::new));
                let finish = |c: usize, s0: f64, s1: f64| {
                    coefficients(c, s0, s1);
                    if let Some(to) = to {
                        let strips = Strips { from: c, to: g.n * g.c, step: g.c };
                        if let Err(e) = apply_to(&g, from, to, [&mean, &a, &k, &m], true, strips) {
                            failed.set(e);
                        }
                    }
                };
                let then: Option<&(dyn Fn(usize, f64, f64) + Sync)> =
                    if fused { Some(&finish) } else { None };
                let s = if need { Some(sums::<T>(&g, &x, Some(&dy), Some(&mean), then)?) } else { None };
                failed.result()?;
                if let Some(s) = &s {
                    if let Some(dw) = &dw {
                        per_row(OP, g.c, &[dw])?;
                        put::<T>(dw, g.c, &|c| s.get(1, c) * rstd.get(c).f64());
                    }
                    if let Some(db) = &db {
                        per_row(OP, g.c, &[db])?;
                        put::<T>(db, g.c, &|c| s.get(0, c));
                    }
                }
                let (Some(dx), false) = (dx, fused) else { return Ok(()) };
                for c in 0..g.c {
                    let (s0, s1) = s.as_ref().map_or((0.0, 0.0), |s| (s.get(0, c), s.get(1, c)));
                    coefficients(c, s0, s1);
                }
                apply::<T, 2>(&g, [&x, &dy], &dx, [&mean, &a, &k, &m], true)
            })
        }
        _ => Ok(()),
    }
}

/// Sizes and which way the strips run.
struct Grid {
    n: usize,
    c: usize,
    l: usize,
    /// Strips hold channels (else positions of one channel).
    last: bool,
}

impl Grid {
    fn new(x: &Arr) -> Result<Grid> {
        let (n, c, l) = match *x.shape {
            [n, c] => (n, c, 1),
            [n, c, l] => (n, c, l),
            _ => bail!(Shape, "{OP}: expected [N, C, L] but got shape {:?}", x.shape),
        };
        let last = x.strides[1] == 1 && c > 1 || l < 4 && c >= 4;
        Ok(Grid { n, c, l, last })
    }
    /// Strips, their length, and elements of one.
    fn strips(&self) -> (usize, usize) {
        if self.last { (self.n * self.l, self.c) } else { (self.n * self.c, self.l) }
    }
    /// Pointer to strip `s` and its stride.
    #[inline(always)]
    fn at(&self, a: &View, s: usize) -> (*mut u8, isize) {
        let (per, inner) = if self.last { (self.l, a.strides[2]) } else { (self.c, a.strides[1]) };
        // Two divisions would cost more than the work on a short strip.
        let off = if per == 1 {
            s as isize * a.strides[0]
        } else if a.strides[0] == per as isize * inner {
            s as isize * inner
        } else {
            (s / per) as isize * a.strides[0] + (s % per) as isize * inner
        };
        let along = if self.last { a.strides[1] } else { a.strides[2] };
        (a.ptr.get().wrapping_offset(off * a.dtype.size() as isize), along)
    }
}

/// An array as strips need it.
#[derive(Clone, Copy)]
struct View {
    ptr: Ptr,
    dtype: DType,
    strides: [isize; 3],
}

impl View {
    fn new(a: &Arr) -> View {
        let s = |d: usize| a.strides.get(d).copied().unwrap_or(0);
        View { ptr: Ptr(a.ptr), dtype: a.dtype, strides: [s(0), s(1), s(2)] }
    }
    /// A strip as dense `T`: itself or a copy.
    /// # Safety
    /// `p` points to `n` readable elements with this stride; `scratch` has room for them.
    #[inline(always)]
    unsafe fn dense<T: Compute>(&self, (p, stride): (*mut u8, isize), n: usize, scratch: *mut T) -> *const T {
        if self.dtype == T::DTYPE && (stride == 1 || n == 1) {
            return p.cast();
        }
        // SAFETY: the caller's promise.
        unsafe { gather(self.dtype, p, stride, n, scratch) };
        scratch
    }
}

/// One number per channel, dense.
struct Chan<T> {
    block: Block,
    marker: std::marker::PhantomData<T>,
}
// SAFETY: plain memory; in a parallel region a channel's number is touched by one task, or only read.
unsafe impl<T> Sync for Chan<T> {}

impl<T: Compute> Chan<T> {
    fn new(g: &Grid) -> Result<Chan<T>> {
        let block = Block::zeroed((pad(g.c) * size_of::<T>()).max(64)).map_err(oom)?;
        Ok(Chan { block, marker: std::marker::PhantomData })
    }
    /// The numbers of an array, or one number for all.
    fn of(g: &Grid, a: Option<&Arr>, other: f64) -> Result<Chan<T>> {
        let out = Chan::new(g)?;
        match a {
            Some(a) => {
                per_row(OP, g.c, &[a])?;
                if !a.dtype.is_float() {
                    bail!(Type, "{OP}: statistics and weights must be floating, not {}", a.dtype);
                }
                // SAFETY: c elements in both.
                unsafe { gather_flat::<T>(a, 0, g.c, out.ptr()) };
            }
            None => (0..g.c).for_each(|c| out.set(c, T::of(other))),
        }
        Ok(out)
    }
    #[inline(always)]
    fn ptr(&self) -> *mut T {
        self.block.as_ptr().cast()
    }
    #[inline(always)]
    fn get(&self, c: usize) -> T {
        debug_assert!(c * size_of::<T>() < self.block.bytes());
        // SAFETY: c is a channel.
        unsafe { *self.ptr().add(c) }
    }
    fn set(&self, c: usize, v: T) {
        debug_assert!(c * size_of::<T>() < self.block.bytes());
        // SAFETY: c is a channel, and nobody else touches its number meanwhile.
        unsafe { *self.ptr().add(c) = v }
    }
}

fn put<T: Compute>(a: &Arr, n: usize, f: &dyn Fn(usize) -> f64) {
    for c in 0..n {
        let v = T::of(f(c));
        if a.dtype == DType::F64 && T::DTYPE == DType::F32 {
            let v = f(c);
            // SAFETY: position c of the array.
            unsafe { scatter_flat::<f64>(a, c, 1, &v) };
        } else {
            // SAFETY: as above.
            unsafe { scatter_flat::<T>(a, c, 1, &v) };
        }
    }
}
