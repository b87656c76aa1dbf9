//! Convolutions whose groups have one channel on each side, with steps of one: no products of
//! matrices, but a few multiplications per pixel. Each plane is copied into a frame of zeros that stays
//! in the cache; then every vector of results sees its taps without a test for borders.

use super::Number;
use super::direct::Direct;
use super::dweight::Weight;
use super::image::Image;
use crate::alloc::OutOfMemory;
use crate::gemm::Shared;
use crate::pool;
use crate::simd::{Arch, ArchKernel, Base, Lanes, dispatch};
use pyrite_core::interrupt;
use std::sync::Mutex;

/// Vectors of results in one row that go together.
const WIDE: usize = 4;
/// Lanes of the widest vectors times `WIDE`: rows of a frame are padded to that.
const STRETCH: usize = 64;
/// Larger frames leave the cache, and products pay again.
const FRAME: usize = 64 << 10;
const TAPS: usize = 64;

/// A plane with the border that its taps reach.
struct Frame {
    /// Input position of the frame's first element.
    first: [isize; 2],
    rows: usize,
    cols: usize,
    /// Columns that results depend on; those behind them are zero.
    used: usize,
    /// Where each tap begins.
    at: [usize; TAPS],
    taps: usize,
}

impl Frame {
    fn new(taps: &[(isize, isize)], oh: usize, ow: usize) -> Option<Frame> {
        let (mut low, mut high) = ([isize::MAX; 2], [isize::MIN; 2]);
        for &(h, w) in taps {
            low = [low[0].min(h), low[1].min(w)];
            high = [high[0].max(h), high[1].max(w)];
        }
        if taps.is_empty() || taps.len() > TAPS {
            return None;
        }
        let rows = oh.checked_add_signed(high[0] - low[0])?;
        let used = ow.checked_add_signed(high[1] - low[1])?;
        let cols = ow.next_multiple_of(STRETCH).checked_add_signed(high[1] - low[1])?;
        if rows.checked_mul(cols)? > FRAME {
            return None;
        }
        let mut at = [0; TAPS];
        for (a, &(h, w)) in at.iter_mut().zip(taps) {
            *a = (h - low[0]) as usize * cols + (w - low[1]) as usize;
        }
        Some(Frame { first: low, rows, cols, used, at, taps: taps.len() })
    }

    /// Copies plane `c` of image `n`.
    ///
    /// # Safety
    /// The plane exists, rows are dense; `to` has room for the frame.
    #[inline(always)]
    unsafe fn fill<T: Number>(&self, x: &Image<T>, n: usize, c: usize, to: *mut T) {
        let src = x.p.wrapping_offset(n as isize * x.strides[0] + c as isize * x.strides[1]);
        let [top, left] = self.first;
        // Columns of the frame that exist in the plane.
        let from = (-left).clamp(0, self.used as isize) as usize;
        let end = (x.w as isize - left).clamp(from as isize, self.used as isize) as usize;
        for r in 0..self.rows {
            let h = r as isize + top;
            let row = to.wrapping_add(r * self.cols);
            // SAFETY: a row of the frame; `from..end` lie in the plane's row `h`.
            unsafe {
                if h < 0 || h >= x.h as isize {
                    row.write_bytes(0, self.cols);
                    continue;
                }
                let src = src.wrapping_offset(h * x.strides[2] + (left + from as isize) * x.strides[3]);
                row.write_bytes(0, from);
                if x.strides[3] == 1 {
                    row.add(from).copy_from_nonoverlapping(src, end - from);
                } else {
                    for i in 0..end - from {
                        *row.add(from + i) = *src.wrapping_offset(i as isize * x.strides[3]);
                    }
                }
                row.add(end).write_bytes(0, self.cols - end);
            }
        }
    }
}

/// Rows are dense, or one number each (the gradient of a sum).
fn suits(one: [usize; 2], step: [usize; 2], widths: [(usize, isize); 2]) -> bool {
    one == [1, 1] && step == [1, 1] && widths.iter().all(|(n, s)| *n == 1 || *s == 1 || *s == 0)
}

/// Forward pass and input gradient; `None` if this is not their kind.
///
/// # Safety
/// As for `direct::run`.
pub unsafe fn run<T: Number>(d: &Direct<T>) -> Option<Result<(), OutOfMemory>> {
    if !suits([d.cg, d.kg], d.step, [(d.x.w, d.x.strides[3]), (d.ow, d.ys[3])]) {
        return None;
    }
    if d.ow > 1 && d.ys[3] != 1 {
        return None;
    }
    let frame = Frame::new(d.taps, d.oh, d.ow)?;
    let planes = d.n * d.groups;
    let each = (16384 / (d.oh * d.ow * frame.taps).max(1)).clamp(1, planes.max(1));
    let work = (planes * d.oh * d.ow * frame.taps) as u64 / 16;
    let failed = Mutex::new(None);
    let p = Shared((d.x.p, d.w, d.bias, d.y));
    let (f, sizes) = (&frame, (d.x.strides, d.x.c, d.x.h, d.x.w));
    let (groups, oh, ow, ys) = (d.groups, d.oh, d.ow, d.ys);
    pool::parallel(planes.div_ceil(each), work, &|job| {
        let (xp, w, bias, y) = p.get();
        let x = Image { p: xp, strides: sizes.0, c: sizes.1, h: sizes.2, w: sizes.3 };
        let done = pool::with_scratch(f.rows * f.cols * size_of::<T>(), |buf| {
            let buf = buf.cast::<T>();
            for q in job * each..planes.min((job + 1) * each) {
                interrupt::poll();
                let (n, c) = (q / groups, q % groups);
                // SAFETY: a plane of the input and of the results, its weights and its bias.
                unsafe {
                    f.fill(&x, n, c, buf);
                    dispatch(Forward {
                        f,
                        x: buf,
                        w: w.add(c * f.taps),
                        bias: if bias.is_null() { T::of(0.0) } else { *bias.add(c) },
                        y: y.wrapping_offset(n as isize * ys[0] + c as isize * ys[1]),
                        size: [oh, ow],
                        row: ys[2],
                    });
                }
            }
        });
        if let Err(e) = done {
            *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
        }
    });
    Some(failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err))
}

struct Forward<'a, T> {
    f: &'a Frame,
    x: *const T,
    w: *const T,
    bias: T,
    y: *mut T,
    size: [usize; 2],
    row: isize,
}

impl<T: Number> ArchKernel for Forward<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let lanes = <T::V<A> as Lanes>::N;
        let [oh, ow] = self.size;
        // SAFETY: rows of the frame reach STRETCH columns past the last tap's; results below `ow`.
        unsafe {
            for r in 0..oh {
                let x = self.x.add(r * self.f.cols);
                let y = self.y.wrapping_offset(r as isize * self.row);
                for c in (0..ow).step_by(WIDE * lanes) {
                    let mut t = [<T::V<A> as Lanes>::splat(self.bias); WIDE];
                    for k in 0..self.f.taps {
                        let w = <T::V<A> as Lanes>::splat(*self.w.add(k));
                        let x = x.add(self.f.at[k] + c);
                        for (i, t) in t.iter_mut().enumerate() {
                            *t = T::V::<A>::fma_(w, <T::V<A> as Lanes>::load(x.add(i * lanes)), *t);
                        }
                    }
                    for (i, t) in t.iter().enumerate() {
                        let at = c + i * lanes;
                        if at + lanes <= ow {
                            t.store(y.wrapping_add(at));
                        } else if at < ow {
                            t.store_partial(y.wrapping_add(at), ow - at);
                        }
                    }
                }
            }
        }
    }
}

/// The weight gradient; `None` if this is not its kind.
///
/// # Safety
/// As for `dweight::run`.
pub unsafe fn weight<T: Number>(d: &Weight<T>) -> Option<Result<(), OutOfMemory>> {
    if !suits([d.cg, d.kg], d.step, [(d.x.w, d.x.strides[3]), (d.dy.w, d.dy.strides[3])]) {
        return None;
    }
    let frame = Frame::new(d.taps, d.dy.h, d.dy.w)?;
    let failed = Mutex::new(None);
    let work = (d.n * d.groups * d.dy.h * d.dy.w * frame.taps) as u64 / 16;
    let p = Shared((d.x.p, d.dy.p, d.dw));
    let (f, n) = (&frame, d.n);
    let sizes = [(d.x.strides, d.x.c, d.x.h, d.x.w), (d.dy.strides, d.dy.c, d.dy.h, d.dy.w)];
    let dense = d.dy.strides[3] == 1 || d.dy.w == 1;
    let plane = d.dy.h * d.dy.w;
    pool::parallel(d.groups, work, &|c| {
        let (xp, gp, dw) = p.get();
        let image =
            |p, s: ([isize; 4], usize, usize, usize)| Image { p, strides: s.0, c: s.1, h: s.2, w: s.3 };
        let (x, dy) = (image(xp, sizes[0]), image(gp, sizes[1]));
        let room = f.rows * f.cols + if dense { 0 } else { plane };
        let done = pool::with_scratch(room * size_of::<T>(), |buf| {
            let buf = buf.cast::<T>();
            let copy = buf.wrapping_add(f.rows * f.cols);
            let mut sums = [0f64; TAPS];
            for i in 0..n {
                interrupt::poll();
                let g = dy.p.wrapping_offset(i as isize * dy.strides[0] + c as isize * dy.strides[1]);
                // SAFETY: planes of input and gradient; the scratch has room for one of each.
                unsafe {
                    f.fill(&x, i, c, buf);
                    if !dense {
                        for h in 0..dy.h {
                            let row = g.wrapping_offset(h as isize * dy.strides[2]);
                            for w in 0..dy.w {
                                *copy.add(h * dy.w + w) = *row.wrapping_offset(w as isize * dy.strides[3]);
                            }
                        }
                    }
                    dispatch(Gradient {
                        f,
                        x: buf,
                        dy: if dense { g } else { copy.cast_const() },
                        size: [dy.h, dy.w],
                        row: if dense { dy.strides[2] } else { dy.w as isize },
                        sums: &mut sums,
                    });
                }
            }
            for (k, s) in sums[..f.taps].iter().enumerate() {
                // SAFETY: this channel's weights.
                unsafe { *dw.add(c * f.taps + k) = T::of(*s) };
            }
        });
        if let Err(e) = done {
            *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
        }
    });
    Some(failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err))
}

struct Gradient<'a, T> {
    f: &'a Frame,
    x: *const T,
    dy: *const T,
    size: [usize; 2],
    row: isize,
    sums: &'a mut [f64; TAPS],
}

impl<T: Number> ArchKernel for Gradient<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let lanes = <T::V<A> as Lanes>::N;
        let [oh, ow] = self.size;
        let zero = T::of(0.0);
        let mut sums = [<T::V<A> as Lanes>::splat(zero); TAPS];
        // SAFETY: as in `Forward`; lanes past the row are zero in `dy` and finite in the frame.
        unsafe {
            for r in 0..oh {
                let x = self.x.add(r * self.f.cols);
                let dy = self.dy.wrapping_offset(r as isize * self.row);
                for c in (0..ow).step_by(WIDE * lanes) {
                    let mut g = [<T::V<A> as Lanes>::splat(zero); WIDE];
                    for (i, g) in g.iter_mut().enumerate() {
                        let at = c + i * lanes;
                        if at + lanes <= ow {
                            *g = <T::V<A> as Lanes>::load(dy.wrapping_add(at));
                        } else if at < ow {
                            *g = <T::V<A> as Lanes>::load_partial(dy.wrapping_add(at), ow - at, zero);
                        }
                    }
                    for k in 0..self.f.taps {
                        let x = x.add(self.f.at[k] + c);
                        let mut t = sums[k];
                        for (i, g) in g.iter().enumerate() {
                            t = T::V::<A>::fma_(*g, <T::V<A> as Lanes>::load(x.add(i * lanes)), t);
                        }
                        sums[k] = t;
                    }
                }
            }
        }
        for (total, s) in self.sums.iter_mut().zip(&sums[..self.f.taps]) {
            *total += s.reduce_add().f64();
        }
    }
}
