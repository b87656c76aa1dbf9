//! 2-d convolution on the GEMM micro-kernels: forward, input gradient, weight and bias gradient.
//!
//! Sizes are logical NCHW, strides are the caller's, so NCHW and channels-last both go in and out.
//! conv1d is `h = 1`; transposed convolution is [`conv2d_dx`]. 1 x 1 kernels are plain products.
//! `direct.rs` holds forward and dx, `dweight.rs` the weight gradient, `image.rs` the padded copy they read.

mod depthwise;
mod direct;
mod dweight;
mod image;
mod pixels;
mod shift;
mod side;

use crate::alloc::OutOfMemory;
use crate::gemm::kernel::KernelScalar;
use crate::gemm::{Bias, Elem, Gemm, Isa, Num, Shared, gemm_with};
use crate::pool;
use image::Image;
pub(crate) use pixels::{Pixels, PixelsFn, pixels};
pub(crate) use shift::{Cross, CrossFn, Shift, ShiftFn, cross, shift};

/// Sizes of a convolution. `oh` and `ow` are the caller's: `(h + 2 pad - dil (r - 1) - 1) / stride + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvDesc {
    pub n: usize,
    /// Input channels, all groups.
    pub c: usize,
    pub h: usize,
    pub w: usize,
    /// Output channels, all groups.
    pub k: usize,
    pub r: usize,
    pub s: usize,
    pub stride: [usize; 2],
    pub pad: [usize; 2],
    pub dil: [usize; 2],
    pub groups: usize,
    pub oh: usize,
    pub ow: usize,
}

/// Types of the kernels: f32 and f64.
pub trait Number: KernelScalar + Elem<T = Self> + crate::strided::Compute {
    const NUM: Num;
}

impl Number for f32 {
    const NUM: Num = Num::F32;
}

impl Number for f64 {
    const NUM: Num = Num::F64;
}

fn first_error<E>(r: Result<Result<(), E>, E>) -> Result<(), E> {
    r.and_then(|inner| inner)
}

impl ConvDesc {
    fn cg(&self) -> usize {
        self.c / self.groups.max(1)
    }

    fn kg(&self) -> usize {
        self.k / self.groups.max(1)
    }

    /// Where each tap looks, relative to `output pixel * stride`.
    fn taps(&self) -> Vec<(isize, isize)> {
        let at = |i: usize, axis: usize| (i * self.dil[axis]) as isize - self.pad[axis] as isize;
        (0..self.r).flat_map(|r| (0..self.s).map(move |s| (at(r, 0), at(s, 1)))).collect()
    }

    /// A product per pixel, nothing else.
    fn pointwise(&self) -> bool {
        self.r * self.s == 1 && self.stride == [1, 1] && self.pad == [0, 0] && self.groups == 1
    }
}

/// True if a step from one row to the next is `width` steps within a row.
fn flat(strides: [isize; 4], h: usize, w: usize) -> bool {
    h == 1 || strides[2] == strides[3] * w as isize
}

/// `y = conv(x, w) + bias`. Strides are those of N, C, H, W (for `w`: K, C / groups, R, S), in elements.
/// `bias` may be null.
///
/// # Safety
/// The pointers cover sizes and strides; elements of `y` overlap neither each other nor the inputs;
/// `groups` divides `c` and `k`; strides, dilations are at least 1.
pub unsafe fn conv2d_forward<T: Number>(
    d: &ConvDesc,
    x: *const T,
    xs: [isize; 4],
    w: *const T,
    ws: [isize; 4],
    bias: *const T,
    y: *mut T,
    ys: [isize; 4],
) -> Result<(), OutOfMemory> {
    // SAFETY: passed on.
    unsafe { forward_with(d, x, xs, w, ws, bias, y, ys, crate::simd::isa()) }
}

/// # Safety
/// As for [`conv2d_forward`], on a machine with `isa`.
unsafe fn forward_with<T: Number>(
    d: &ConvDesc,
    x: *const T,
    xs: [isize; 4],
    w: *const T,
    ws: [isize; 4],
    bias: *const T,
    y: *mut T,
    ys: [isize; 4],
    isa: Isa,
) -> Result<(), OutOfMemory> {
    if d.pointwise() && flat(xs, d.h, d.w) && flat(ys, d.oh, d.ow) {
        let g = Gemm {
            batch: d.n,
            batch_b: xs[0],
            batch_c: ys[0],
            bias: if bias.is_null() { Bias::None } else { Bias::Rows(bias.cast()) },
            ..Gemm::new(
                T::NUM,
                (d.k, d.h * d.w, d.c),
                (w.cast(), ws[0], ws[1]),
                (x.cast(), xs[1], xs[3]),
                (y.cast(), ys[1], ys[3]),
            )
        };
        // SAFETY: the same extents, one product per image.
        return unsafe { gemm_with(&g, isa) };
    }
    let (cg, kg) = (d.cg(), d.kg());
    let taps = d.taps();
    let run = |w: *const T| {
        let task = direct::Direct {
            n: d.n,
            groups: d.groups,
            cg,
            kg,
            x: Image { p: x, strides: xs, c: d.c, h: d.h, w: d.w },
            taps: &taps,
            step: d.stride,
            oh: d.oh,
            ow: d.ow,
            w,
            bias,
            y,
            ys,
        };
        // SAFETY: the caller's contract, with contiguous weights.
        unsafe { direct::run(&task, T::kernels(isa)) }
    };
    if contiguous(ws, [d.k, cg, d.r, d.s]) {
        return run(w);
    }
    first_error(pool::with_scratch(d.k * cg * d.r * d.s * size_of::<T>(), |buf| {
        let buf = buf.cast::<T>();
        let mut i = 0;
        for k in 0..d.k {
            for c in 0..cg {
                for r in 0..d.r {
                    for s in 0..d.s {
                        // SAFETY: an element of the weights, and one of as many in the scratch.
                        unsafe { *buf.add(i) = *weight(w, ws, k, c, r, s) };
                        i += 1;
                    }
                }
            }
        }
        run(buf)
    }))
}

fn weight<T>(w: *const T, ws: [isize; 4], k: usize, c: usize, r: usize, s: usize) -> *const T {
    w.wrapping_offset(k as isize * ws[0] + c as isize * ws[1] + r as isize * ws[2] + s as isize * ws[3])
}

fn contiguous(strides: [isize; 4], shape: [usize; 4]) -> bool {
    let mut want = 1;
    for (s, n) in strides.iter().zip(shape).rev() {
        if n != 1 && *s != want {
            return false;
        }
        want *= n as isize;
    }
    true
}

/// `dx`: the gradient for the input, given `dy`. Also the forward pass of a transposed convolution
/// (then `d` describes the convolution it transposes). All of `dx` is written.
///
/// # Safety
/// As for [`conv2d_forward`], with `dx` in the place of `y`.
pub unsafe fn conv2d_dx<T: Number>(
    d: &ConvDesc,
    dy: *const T,
    dys: [isize; 4],
    w: *const T,
    ws: [isize; 4],
    dx: *mut T,
    dxs: [isize; 4],
) -> Result<(), OutOfMemory> {
    // SAFETY: passed on.
    unsafe { dx_with(d, dy, dys, w, ws, dx, dxs, crate::simd::isa()) }
}

/// # Safety
/// As for [`conv2d_dx`], on a machine with `isa`.
unsafe fn dx_with<T: Number>(
    d: &ConvDesc,
    dy: *const T,
    dys: [isize; 4],
    w: *const T,
    ws: [isize; 4],
    dx: *mut T,
    dxs: [isize; 4],
    isa: Isa,
) -> Result<(), OutOfMemory> {
    if d.pointwise() && flat(dxs, d.h, d.w) && flat(dys, d.oh, d.ow) {
        let g = Gemm {
            batch: d.n,
            batch_b: dys[0],
            batch_c: dxs[0],
            ..Gemm::new(
                T::NUM,
                (d.c, d.h * d.w, d.k),
                (w.cast(), ws[1], ws[0]),
                (dy.cast(), dys[1], dys[3]),
                (dx.cast(), dxs[1], dxs[3]),
            )
        };
        // SAFETY: the same extents, one product per image.
        return unsafe { gemm_with(&g, isa) };
    }
    let (cg, kg) = (d.cg(), d.kg());
    // Input pixels with the same remainder by the stride see the same taps: one stride-1 convolution each.
    first_error(pool::with_scratch(d.c * kg * d.r * d.s * size_of::<T>(), |buf| {
        let wt = buf.cast::<T>();
        for ph in 0..d.stride[0].min(d.h) {
            for pw in 0..d.stride[1].min(d.w) {
                let rows = phase_taps(d, 0, d.r, ph);
                let cols = phase_taps(d, 1, d.s, pw);
                let mut taps = Vec::with_capacity(rows.len() * cols.len());
                for &(_, dh) in &rows {
                    for &(_, dw) in &cols {
                        taps.push((dh, dw));
                    }
                }
                // SAFETY: the scratch holds c * kg * r * s weights, at least as many as this phase has.
                unsafe { flip(d, w, ws, &rows, &cols, wt) };
                let task = direct::Direct {
                    n: d.n,
                    groups: d.groups,
                    cg: kg,
                    kg: cg,
                    x: Image { p: dy, strides: dys, c: d.k, h: d.oh, w: d.ow },
                    taps: &taps,
                    step: [1, 1],
                    oh: (d.h - ph).div_ceil(d.stride[0]),
                    ow: (d.w - pw).div_ceil(d.stride[1]),
                    w: wt,
                    bias: std::ptr::null(),
                    y: dx.wrapping_offset(ph as isize * dxs[2] + pw as isize * dxs[3]),
                    ys: [dxs[0], dxs[1], dxs[2] * d.stride[0] as isize, dxs[3] * d.stride[1] as isize],
                };
                // SAFETY: the pixels of this phase lie in `dx`; weights are as many as said.
                unsafe { direct::run(&task, T::kernels(isa))? };
            }
        }
        Ok(())
    }))
}

/// The weights of one phase with input and output channels exchanged: `[c][k in group][taps]`.
///
/// # Safety
/// `w` is readable at its strides, `wt` holds `c * kg * rows * cols` elements.
unsafe fn flip<T: Number>(
    d: &ConvDesc,
    w: *const T,
    ws: [isize; 4],
    rows: &[(usize, isize)],
    cols: &[(usize, isize)],
    wt: *mut T,
) {
    /// Input channels of a job, and output channels at a time: both sides are touched in whole lines.
    const BLOCK: usize = 16;
    let (cg, kg, taps) = (d.cg(), d.kg(), rows.len() * cols.len());
    let shared = Shared((w, wt));
    pool::parallel(d.c.div_ceil(BLOCK), (d.c * kg * taps) as u64 * 2, &|job| {
        let (w, wt) = shared.get();
        for k0 in (0..kg).step_by(BLOCK) {
            for c in job * BLOCK..((job + 1) * BLOCK).min(d.c) {
                for k in k0..(k0 + BLOCK).min(kg) {
                    let mut i = (c * kg + k) * taps;
                    for &(r, _) in rows {
                        for &(s, _) in cols {
                            // SAFETY: an element of the weights; i is below c * kg * taps.
                            unsafe { *wt.add(i) = *weight(w, ws, c / cg * kg + k, c % cg, r, s) };
                            i += 1;
                        }
                    }
                }
            }
        }
    });
}

/// The taps along one axis that reach input positions `phase + i * stride`: (tap, offset of the output
/// position it pairs with position `i`).
fn phase_taps(d: &ConvDesc, axis: usize, count: usize, phase: usize) -> Vec<(usize, isize)> {
    let stride = d.stride[axis] as isize;
    (0..count)
        .filter_map(|t| {
            let at = phase as isize + d.pad[axis] as isize - (t * d.dil[axis]) as isize;
            (at.rem_euclid(stride) == 0).then(|| (t, at.div_euclid(stride)))
        })
        .collect()
}

/// `dw` (contiguous `[k, c / groups, r, s]`) and, unless null, `db` (`k` values), given `x` and `dy`.
///
/// # Safety
/// As for [`conv2d_forward`]; `dw` and `db` overlap nothing else.
pub unsafe fn conv2d_dw<T: Number>(
    d: &ConvDesc,
    x: *const T,
    xs: [isize; 4],
    dy: *const T,
    dys: [isize; 4],
    dw: *mut T,
    db: *mut T,
) -> Result<(), OutOfMemory> {
    // SAFETY: passed on.
    unsafe { dw_with(d, x, xs, dy, dys, dw, db, crate::simd::isa()) }
}

/// # Safety
/// As for [`conv2d_dw`], on a machine with `isa`.
unsafe fn dw_with<T: Number>(
    d: &ConvDesc,
    x: *const T,
    xs: [isize; 4],
    dy: *const T,
    dys: [isize; 4],
    dw: *mut T,
    db: *mut T,
    isa: Isa,
) -> Result<(), OutOfMemory> {
    let dy = Image { p: dy, strides: dys, c: d.k, h: d.oh, w: d.ow };
    let taps = d.taps();
    // SAFETY: the caller's contract.
    unsafe {
        if !db.is_null() {
            dweight::bias(d.n, &dy, db);
        }
        if d.n * d.oh * d.ow == 0 {
            dw.write_bytes(0, d.k * d.cg() * d.r * d.s);
            return Ok(());
        }
        if d.pointwise() && flat(xs, d.h, d.w) && flat(dys, d.oh, d.ow) {
            let pixels = d.h * d.w;
            // Channels-last images follow each other without a gap: one product over all pixels.
            let whole = |s: [isize; 4]| d.n == 1 || s[0] == s[3] * pixels as isize;
            let all = whole(xs) && whole(dys);
            // One product per image reads and writes `dw` each time: only for large images.
            if all || pixels >= 512 {
                for i in 0..if all { 1 } else { d.n as isize } {
                    let g = Gemm {
                        beta: if i == 0 { 0.0 } else { 1.0 },
                        ..Gemm::new(
                            T::NUM,
                            (d.k, d.c, if all { d.n * pixels } else { pixels }),
                            (dy.p.wrapping_offset(i * dys[0]).cast(), dys[1], dys[3]),
                            (x.wrapping_offset(i * xs[0]).cast(), xs[3], xs[1]),
                            (dw.cast(), d.c as isize, 1),
                        )
                    };
                    gemm_with(&g, isa)?;
                }
                return Ok(());
            }
        }
        let task = dweight::Weight {
            n: d.n,
            groups: d.groups,
            cg: d.cg(),
            kg: d.kg(),
            x: Image { p: x, strides: xs, c: d.c, h: d.h, w: d.w },
            taps: &taps,
            step: d.stride,
            dy,
            dw,
        };
        match depthwise::weight(&task) {
            Some(done) => done,
            None => dweight::run(&task, T::kernels(isa)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
