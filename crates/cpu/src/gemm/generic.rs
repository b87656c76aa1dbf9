//! The plain product for integers (wrapping, as PyTorch's) and complex numbers.
//!
//! A row of C is summed in strips that stay in the first level cache; the inner loop runs over
//! adjacent columns, which the compiler vectorises.

use super::{Activation, Bias, Gemm, Shared, estimate};
use crate::alloc::OutOfMemory;
use crate::pool;
use pyrite_core::interrupt;

pub trait Ring: Copy + Send + Sync + PartialEq + 'static {
    const ZERO: Self;
    fn from_f64(x: f64) -> Self;
    fn add(self, o: Self) -> Self;
    fn mul(self, o: Self) -> Self;
    fn relu(self) -> Self;
}

macro_rules! int {
    ($($t:ty)*) => {$(
        impl Ring for $t {
            const ZERO: Self = 0;
            fn from_f64(x: f64) -> Self {
                // Through i64, so that -1 wraps for unsigned types instead of saturating at 0.
                x as i64 as $t
            }
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                self.wrapping_add(o)
            }
            #[inline(always)]
            fn mul(self, o: Self) -> Self {
                self.wrapping_mul(o)
            }
            #[allow(unused_comparisons)]
            fn relu(self) -> Self {
                if self < 0 { 0 } else { self }
            }
        }
    )*};
}
int!(u8 i8 i16 i32 i64);

/// A complex number as it lies in memory.
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(C)]
pub struct Complex<T> {
    pub re: T,
    pub im: T,
}

macro_rules! complex {
    ($t:ty) => {
        impl Ring for Complex<$t> {
            const ZERO: Self = Complex { re: 0.0, im: 0.0 };
            fn from_f64(x: f64) -> Self {
                Complex { re: x as $t, im: 0.0 }
            }
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                Complex { re: self.re + o.re, im: self.im + o.im }
            }
            #[inline(always)]
            fn mul(self, o: Self) -> Self {
                Complex { re: self.re * o.re - self.im * o.im, im: self.re * o.im + self.im * o.re }
            }
            fn relu(self) -> Self {
                // Complex numbers have no order; the tensor layer does not offer relu for them.
                self
            }
        }
    };
}
complex!(f32);
complex!(f64);

/// Columns summed at a time.
const STRIP: usize = 128;
/// Rows per job.
const ROWS: usize = 8;

/// # Safety
/// As for `gemm`, for one product.
pub unsafe fn run<T: Ring>(g: &Gemm) -> Result<(), OutOfMemory> {
    let (m, n) = (g.m, g.n);
    let (strips, bands) = (n.div_ceil(STRIP), m.div_ceil(ROWS));
    let time = estimate(g.num, m, n, g.k);
    let shared = Shared(g);
    pool::parallel(bands * strips, time, &|job| {
        let (strip, band) = (job / bands, job % bands);
        let (j0, i0) = (strip * STRIP, band * ROWS);
        // SAFETY: rows and columns lie inside; each job has its own block of C.
        unsafe { block::<T>(shared.get(), i0, ROWS.min(m - i0), j0, STRIP.min(n - j0)) }
    });
    Ok(())
}

/// # Safety
/// As for [`run`]; the block lies in C.
unsafe fn block<T: Ring>(g: &Gemm, i0: usize, rows: usize, j0: usize, cols: usize) {
    let (a, b, c) = (g.a.cast::<T>(), g.b.cast::<T>(), g.c.cast::<T>());
    let (alpha, beta) = (T::from_f64(g.alpha), T::from_f64(g.beta));
    for i in i0..i0 + rows {
        interrupt::poll();
        let mut acc = [T::ZERO; STRIP];
        // SAFETY: (i, p), (p, j) and (i, j) stay below m, n and k.
        unsafe {
            for p in 0..g.k {
                let x = *a.offset(i as isize * g.rsa + p as isize * g.csa);
                let b = b.offset(p as isize * g.rsb + j0 as isize * g.csb);
                if g.csb == 1 {
                    let b = std::slice::from_raw_parts(b, cols);
                    for (s, &y) in acc.iter_mut().zip(b) {
                        *s = s.add(x.mul(y));
                    }
                } else {
                    for (j, s) in acc.iter_mut().enumerate().take(cols) {
                        *s = s.add(x.mul(*b.offset(j as isize * g.csb)));
                    }
                }
            }
            for (j, s) in acc.iter().enumerate().take(cols) {
                let c = c.offset(i as isize * g.rsc + (j0 + j) as isize * g.csc);
                let mut x = s.mul(alpha);
                if beta != T::ZERO {
                    x = x.add((*c).mul(beta));
                }
                match g.bias {
                    Bias::None => (),
                    Bias::Cols(v) => x = x.add(*v.cast::<T>().add(j0 + j)),
                    Bias::Rows(v) => x = x.add(*v.cast::<T>().add(i)),
                }
                if g.act == Activation::Relu {
                    x = x.relu();
                }
                *c = x;
            }
        }
    }
}
