//! The padded copy of an image batch that the convolution kernels read.
//!
//! Borders are zeros in memory, so that no kernel tests for them. With a stride, the columns of a row
//! lie apart by phase (`column % stride`), so that the pixels one tap sees in an output row are adjacent
//! whatever the stride. Any layout goes in; NCHW rows are copied, NHWC blocks transposed.

use crate::gemm::Shared;
use crate::gemm::transpose::transpose;
use crate::gemm::vector::Scalar;
use crate::pool;

/// Elements beyond the copy that kernels may read (never use).
pub const SLACK: usize = 64;

/// An image batch in memory; strides for N, C, H, W in elements.
#[derive(Clone, Copy, Debug)]
pub struct Image<T> {
    pub p: *const T,
    pub strides: [isize; 4],
    pub c: usize,
    pub h: usize,
    pub w: usize,
}

/// The geometry of the copy: a window of the (zero-extended) image, cut into column phases.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// First row and column of the window, relative to the image.
    top: isize,
    left: isize,
    height: usize,
    width: usize,
    /// Column step, number of phases.
    step: usize,
    /// Columns per phase.
    part: usize,
    pub row: usize,
    pub plane: usize,
    pub image: usize,
}

/// Rows and columns of an image; `whole` if they fill the window, so that it has no border.
pub struct Window {
    pub rows: std::ops::Range<usize>,
    pub cols: std::ops::Range<usize>,
    pub whole: bool,
}

impl Frame {
    /// The window that `oh` x `ow` outputs at the given steps see through `taps` (offsets in rows and columns).
    pub fn new(c: usize, taps: &[(isize, isize)], step: [usize; 2], oh: usize, ow: usize) -> Frame {
        let span = |f: fn(&(isize, isize)) -> isize| {
            let (mut lo, mut hi) = (isize::MAX, isize::MIN);
            for t in taps {
                lo = lo.min(f(t));
                hi = hi.max(f(t));
            }
            if lo > hi { (0, 0) } else { (lo, hi) }
        };
        let ((top, bottom), (left, right)) = (span(|t| t.0), span(|t| t.1));
        let height = (oh.max(1) - 1) * step[0] + (bottom - top) as usize + 1;
        let width = (ow.max(1) - 1) * step[1] + (right - left) as usize + 1;
        let part = width.div_ceil(step[1]);
        let row = part * step[1];
        let plane = height * row;
        Frame { top, left, height, width, step: step[1], part, row, plane, image: c * plane }
    }

    /// Offset in an image of the copy of channel `c` as a tap sees it for output pixel (0, 0).
    pub fn offset(&self, c: usize, tap: (isize, isize)) -> isize {
        let (r, q) = ((tap.0 - self.top) as usize, (tap.1 - self.left) as usize);
        (c * self.plane + r * self.row + q % self.step * self.part + q / self.step) as isize
    }

    /// The part of an image of `h` x `w` inside the window.
    pub fn window(&self, h: usize, w: usize) -> Window {
        let cut = |from: isize, len: usize, size: usize| {
            from.max(0) as usize..(from + len as isize).clamp(0, size as isize) as usize
        };
        let (rows, cols) = (cut(self.top, self.height, h), cut(self.left, self.width, w));
        let whole = rows.len() == self.height && cols.len() == self.row;
        Window { rows, cols, whole }
    }

    /// Where row `r`, column `c` of an image lies in its plane (column step 1).
    pub fn at(&self, r: usize, c: usize) -> usize {
        (r as isize - self.top) as usize * self.row + (c as isize - self.left) as usize
    }

    /// Copies images `first .. first + count` to `dst`, which holds `count * image + SLACK` elements.
    ///
    /// # Safety
    /// The images are readable, `dst` is as large as said.
    pub unsafe fn fill<T: Scalar>(&self, x: &Image<T>, first: usize, count: usize, dst: *mut T) {
        // Channels in blocks: a cache line of an NHWC pixel serves a whole block.
        const BLOCK: usize = 16;
        let blocks = x.c.div_ceil(BLOCK);
        let time = (count * self.image) as u64 / 3;
        let shared = Shared((x, dst));
        let frame = *self;
        pool::parallel(count * blocks, time, &|job| {
            let (x, dst) = shared.get();
            let (i, b) = (job / blocks, job % blocks);
            let c0 = b * BLOCK;
            let count = BLOCK.min(x.c - c0);
            let src = x.p.wrapping_offset((first + i) as isize * x.strides[0]);
            // SAFETY: the planes of this job lie in `dst` and belong to it alone.
            unsafe { frame.planes(x, src, c0, count, dst.add(i * frame.image + c0 * frame.plane)) }
        });
        for i in 0..SLACK {
            // SAFETY: `dst` holds the slack.
            unsafe { *dst.add(count * self.image + i) = T::ZERO };
        }
    }

    /// # Safety
    /// `src` is an image of `x`; `dst` holds `count` planes.
    unsafe fn planes<T: Scalar>(&self, x: &Image<T>, src: *const T, c0: usize, count: usize, dst: *mut T) {
        let [_, sc, sh, sw] = x.strides;
        let Window { rows, cols, whole: inner } = self.window(x.h, x.w);
        // SAFETY: windows rows and columns are inside both the image and the planes.
        unsafe {
            if !inner {
                for i in 0..count * self.plane {
                    *dst.add(i) = T::ZERO;
                }
            }
            for ih in rows {
                let line = src.wrapping_offset(ih as isize * sh + c0 as isize * sc);
                let out = dst.add((ih as isize - self.top) as usize * self.row);
                let n = cols.len();
                let first = cols.start;
                let at = (first as isize - self.left) as usize;
                if n == 0 {
                    continue;
                }
                if self.step == 1 && sw == 1 {
                    for c in 0..count {
                        let s = line.wrapping_offset(c as isize * sc).add(first);
                        copy_row(s, out.add(c * self.plane + at), n);
                    }
                } else if self.step == 1 && sc == 1 && sw >= 0 {
                    let s = line.wrapping_offset(first as isize * sw);
                    transpose(s, sw as usize, out.add(at), self.plane, n, count);
                } else {
                    for c in 0..count {
                        let s = line.wrapping_offset(c as isize * sc + first as isize * sw);
                        let d = out.add(c * self.plane);
                        for q in 0..n {
                            let v = at + q;
                            *d.add(v % self.step * self.part + v / self.step) = *s.offset(q as isize * sw);
                        }
                    }
                }
            }
        }
    }
}

/// Copies a short row without calling into the C library, which costs more than the copy.
///
/// # Safety
/// Both sides hold `n` elements and do not overlap.
#[inline(always)]
unsafe fn copy_row<T: Copy>(src: *const T, dst: *mut T, n: usize) {
    const STEP: usize = 4;
    // SAFETY: by the contract; the last piece overlaps the one before it.
    unsafe {
        if !(STEP..=64).contains(&n) {
            return std::ptr::copy_nonoverlapping(src, dst, n);
        }
        let mut i = 0;
        while i + STEP <= n {
            dst.add(i).cast::<[T; STEP]>().write_unaligned(src.add(i).cast::<[T; STEP]>().read_unaligned());
            i += STEP;
        }
        let i = n - STEP;
        dst.add(i).cast::<[T; STEP]>().write_unaligned(src.add(i).cast::<[T; STEP]>().read_unaligned());
    }
}
