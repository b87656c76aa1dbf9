//! Moving lines between strided arrays and dense tiles, converting on the way.

use super::plans::Real;
use rustfft::num_complex::Complex;

/// The lines of one array: where the array begins, and how a line runs. An element has 1 (real) or 2
/// (complex) parts.
pub struct Line<T> {
    pub ptr: *mut T,
    pub parts: usize,
    pub len: usize,
    /// Elements from one point of a line to the next.
    pub step: isize,
}

/// The factors at the store: `edge` for the points of a half spectrum that stand for themselves, `inner`
/// for those that also stand for their mirror image.
pub struct Put<T> {
    pub edge: T,
    pub inner: T,
    pub n: usize,
}

impl<T: Real> Put<T> {
    #[inline(always)]
    pub fn weight(&self, k: usize) -> T {
        if k == 0 || 2 * k == self.n { self.edge } else { self.inner }
    }
    pub fn scale(&self, line: &mut [Complex<T>]) {
        if self.edge != T::of(1.0) {
            for v in line {
                *v = Complex::new(v.re * self.edge, v.im * self.edge);
            }
        }
    }
}

/// The same memory as twice as many reals.
pub fn as_reals<T: Real>(c: &mut [Complex<T>]) -> &mut [T] {
    // SAFETY: `Complex<T>` is two `T` in C's layout.
    unsafe { std::slice::from_raw_parts_mut(c.as_mut_ptr().cast::<T>(), 2 * c.len()) }
}

/// Visits `b` lines of `m` points in the order that keeps the array's accesses together: `along` is true
/// where points of a line are the closer neighbours.
#[inline(always)]
fn visit(b: usize, m: usize, along: bool, mut f: impl FnMut(usize, usize)) {
    if along {
        for l in 0..b {
            for k in 0..m {
                f(l, k);
            }
        }
    } else {
        for k in 0..m {
            for l in 0..b {
                f(l, k);
            }
        }
    }
}

impl<T: Real> Line<T> {
    fn along(&self, starts: &[isize]) -> bool {
        match starts {
            [a, b, ..] => self.step.unsigned_abs() <= (b - a).unsigned_abs(),
            _ => true,
        }
    }

    /// # Safety
    /// The array is complex; `n` points lie densely from element `at` on.
    pub unsafe fn dense<'a>(&self, at: isize, n: usize) -> &'a [Complex<T>] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.ptr.cast::<Complex<T>>().offset(at), n) }
    }

    /// # Safety
    /// As for [`Line::dense`], and nobody else uses these points.
    pub unsafe fn dense_mut<'a>(&self, at: isize, n: usize) -> &'a mut [Complex<T>] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.cast::<Complex<T>>().offset(at), n) }
    }

    /// Lines from `starts` on into rows of `n` points: cut or filled with zeros, conjugated if asked.
    ///
    /// # Safety
    /// Each start is that of a line of the array; `tile` may be such a line only if it is the same one.
    pub unsafe fn gather(&self, starts: &[isize], tile: &mut [Complex<T>], n: usize, conj: bool) {
        let m = self.len.min(n);
        let along = self.along(starts);
        let (p, step, zero) = (self.ptr, self.step, T::of(0.0));
        match (self.parts, conj) {
            (1, _) => visit(starts.len(), m, along, |l, k| {
                // SAFETY: point k < len of line l.
                let re = unsafe { *p.offset(starts[l] + k as isize * step) };
                tile[l * n + k] = Complex::new(re, zero);
            }),
            (_, false) => visit(starts.len(), m, along, |l, k| {
                // SAFETY: point k < len of line l.
                tile[l * n + k] = unsafe { *p.cast::<Complex<T>>().offset(starts[l] + k as isize * step) };
            }),
            (_, true) => visit(starts.len(), m, along, |l, k| {
                // SAFETY: point k < len of line l.
                let v = unsafe { *p.cast::<Complex<T>>().offset(starts[l] + k as isize * step) };
                tile[l * n + k] = v.conj();
            }),
        }
        if m < n {
            for l in 0..starts.len() {
                tile[l * n + m..(l + 1) * n].fill(Complex::new(zero, zero));
            }
        }
    }

    /// Real lines as rows of `n`.
    ///
    /// # Safety
    /// As for [`Line::gather`]; the array is real.
    pub unsafe fn gather_real(&self, starts: &[isize], tile: &mut [T], n: usize) {
        let m = self.len.min(n);
        let (p, step) = (self.ptr, self.step);
        visit(starts.len(), m, self.along(starts), |l, k| {
            // SAFETY: point k < len of line l.
            tile[l * n + k] = unsafe { *p.offset(starts[l] + k as isize * step) };
        });
        if m < n {
            for l in 0..starts.len() {
                tile[l * n + m..(l + 1) * n].fill(T::of(0.0));
            }
        }
    }

    /// Rows of `have` points into lines: cut, or followed by zeros; `f(k, value)` is what is stored. A
    /// real array gets the real parts.
    ///
    /// # Safety
    /// Each start is that of a line of the array that nobody else uses.
    #[inline(always)]
    pub unsafe fn scatter(
        &self,
        starts: &[isize],
        tile: &[Complex<T>],
        have: usize,
        f: impl Fn(usize, Complex<T>) -> Complex<T>,
    ) {
        let m = self.len.min(have);
        let along = self.along(starts);
        let (p, step) = (self.ptr, self.step);
        if self.parts == 1 {
            visit(starts.len(), m, along, |l, k| {
                // SAFETY: point k < len of line l.
                unsafe { *p.offset(starts[l] + k as isize * step) = f(k, tile[l * have + k]).re };
            });
        } else {
            visit(starts.len(), m, along, |l, k| {
                let v = f(k, tile[l * have + k]);
                // SAFETY: point k < len of line l.
                unsafe { *p.cast::<Complex<T>>().offset(starts[l] + k as isize * step) = v };
            });
        }
        // SAFETY: passed on.
        unsafe { self.clear(starts, m) };
    }

    /// Real rows of `have` into lines of a real array, times `scale`.
    ///
    /// # Safety
    /// As for [`Line::scatter`].
    pub unsafe fn scatter_real(&self, starts: &[isize], tile: &[T], have: usize, scale: T) {
        let m = self.len.min(have);
        let (p, step) = (self.ptr, self.step);
        visit(starts.len(), m, self.along(starts), |l, k| {
            // SAFETY: point k < len of line l.
            unsafe { *p.offset(starts[l] + k as isize * step) = tile[l * have + k] * scale };
        });
        // SAFETY: passed on.
        unsafe { self.clear(starts, m) };
    }

    /// Zeros from point `m` of each line on.
    unsafe fn clear(&self, starts: &[isize], m: usize) {
        for s in starts {
            for k in m..self.len {
                for part in 0..self.parts {
                    let at = (s + k as isize * self.step) * self.parts as isize + part as isize;
                    // SAFETY: point k < len of this line.
                    unsafe { *self.ptr.offset(at) = T::of(0.0) };
                }
            }
        }
    }
}
