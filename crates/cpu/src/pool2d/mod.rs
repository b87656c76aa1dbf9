//! 2-d pooling: maximum, average, adaptive average, and their gradients.
//!
//! Two ways through memory: *planes* (one n, c at a time; NCHW, and any other layout by staging the
//! plane), and *pixels* (all channels of one position side by side; channels-last). Chunks are
//! planes or images, so that gradients are summed in one order whatever the number of threads.

mod average;
mod max;
#[cfg(test)]
mod tests;

use crate::strided::{Compute, Ptr, gather, scatter};
use pyrite_core::backend::{Pool, PoolGeometry};
use pyrite_core::{Arr, DType, Result, bail};

pub fn run(g: &PoolGeometry, p: Pool) -> Result<()> {
    if g.stride.contains(&0) || g.kernel.contains(&0) || g.dilation.contains(&0) {
        bail!(
            Value,
            "pooling: kernel {:?}, stride {:?} and dilation {:?} must be positive",
            g.kernel,
            g.stride,
            g.dilation
        );
    }
    match p {
        Pool::Max { x, y, idx } => {
            check("max_pool2d", &x, &y, true)?;
            if let Some(i) = &idx {
                check_idx(i, &y)?;
            }
            crate::compute_of!("max_pool2d", x.dtype, |T| max::forward::<T>(g, &x, &y, idx.as_ref()))
        }
        Pool::MaxBackward { dy, idx, dx } => {
            check("max_pool2d backward", &dx, &dy, true)?;
            check_idx(&idx, &dy)?;
            crate::compute_of!("max_pool2d backward", dy.dtype, |T| max::backward::<T>(&dy, &idx, &dx))
        }
        Pool::Avg { x, y, count_pad, divisor } => {
            check("avg_pool2d", &x, &y, true)?;
            let w = average::Windows::fixed(g, &x, &y, count_pad, divisor);
            crate::compute_of!("avg_pool2d", x.dtype, |T| average::forward::<T>(&w, &x, &y))
        }
        Pool::AvgBackward { dy, dx, count_pad, divisor } => {
            check("avg_pool2d backward", &dx, &dy, true)?;
            let w = average::Windows::fixed(g, &dx, &dy, count_pad, divisor);
            crate::compute_of!("avg_pool2d backward", dy.dtype, |T| average::backward::<T>(&w, &dy, &dx))
        }
        Pool::AdaptiveAvg { x, y } => {
            check("adaptive_avg_pool2d", &x, &y, true)?;
            let w = average::Windows::adaptive(&x, &y);
            crate::compute_of!("adaptive_avg_pool2d", x.dtype, |T| average::forward::<T>(&w, &x, &y))
        }
        Pool::AdaptiveAvgBackward { dy, dx } => {
            check("adaptive_avg_pool2d backward", &dx, &dy, true)?;
            let w = average::Windows::adaptive(&dx, &dy);
            crate::compute_of!("adaptive_avg_pool2d backward", dy.dtype, |T| {
                average::backward::<T>(&w, &dy, &dx)
            })
        }
    }
}

/// `x` and `y` are N, C, H, W with equal N and C (and dtype).
fn check(op: &str, x: &Arr, y: &Arr, same_type: bool) -> Result<()> {
    let four = x.shape.len() == 4 && y.shape.len() == 4;
    if !four || x.shape[..2] != y.shape[..2] {
        bail!(Shape, "{op}: shapes {:?} and {:?} do not fit (N, C, H, W)", x.shape, y.shape);
    }
    if same_type && x.dtype != y.dtype {
        bail!(Type, "{op}: {} and {} differ", x.dtype, y.dtype);
    }
    Ok(())
}

fn check_idx(idx: &Arr, y: &Arr) -> Result<()> {
    if idx.dtype != DType::I64 || idx.shape != y.shape {
        bail!(
            Runtime,
            "max_pool2d: indices are {} {:?}, expected torch.int64 {:?}",
            idx.dtype,
            idx.shape,
            y.shape
        );
    }
    Ok(())
}

/// A tensor as planes.
#[derive(Clone, Copy)]
struct Planes {
    ptr: Ptr,
    dtype: DType,
    c: usize,
    h: usize,
    w: usize,
    s: [isize; 4],
}

impl Planes {
    fn new(a: &Arr) -> Planes {
        let s = [a.strides[0], a.strides[1], a.strides[2], a.strides[3]];
        Planes { ptr: Ptr(a.ptr), dtype: a.dtype, c: a.shape[1], h: a.shape[2], w: a.shape[3], s }
    }
    fn len(&self) -> usize {
        self.h * self.w
    }
    /// First element of plane `q` (counted over n and c).
    #[inline(always)]
    fn at(&self, q: usize) -> *mut u8 {
        let off = (q / self.c) as isize * self.s[0] + (q % self.c) as isize * self.s[1];
        self.ptr.get().wrapping_offset(off * self.dtype.size() as isize)
    }
    /// Is every plane one dense stretch?
    fn dense(&self) -> bool {
        (self.w == 1 || self.s[3] == 1) && (self.h == 1 || self.s[2] == self.w as isize)
    }
    fn direct<T: Compute>(&self) -> bool {
        self.dtype == T::DTYPE && self.dense()
    }
    /// Plane `q` as dense numbers: itself, or a copy in `scratch`.
    /// # Safety
    /// `q` is a plane; `scratch` has room for one unless `direct`.
    #[inline(always)]
    unsafe fn get<T: Compute>(&self, q: usize, scratch: *mut T) -> *const T {
        let p = self.at(q);
        if self.direct::<T>() {
            return p.cast();
        }
        let size = self.dtype.size() as isize;
        for i in 0..self.h {
            // SAFETY: row i of the plane, and of the scratch.
            unsafe {
                let row = p.offset(i as isize * self.s[2] * size);
                gather(self.dtype, row, self.s[3], self.w, scratch.add(i * self.w));
            }
        }
        scratch
    }
    /// Where to write plane `q`; followed by `put`.
    #[inline(always)]
    fn out<T: Compute>(&self, q: usize, scratch: *mut T) -> *mut T {
        if self.direct::<T>() { self.at(q).cast() } else { scratch }
    }
    /// # Safety
    /// As `get`; `scratch` holds the plane unless `direct`.
    #[inline(always)]
    unsafe fn put<T: Compute>(&self, q: usize, scratch: *const T) {
        if self.direct::<T>() {
            return;
        }
        let (p, size) = (self.at(q), self.dtype.size() as isize);
        for i in 0..self.h {
            // SAFETY: as in `get`.
            unsafe {
                let row = p.offset(i as isize * self.s[2] * size);
                scatter(self.dtype, row, self.s[3], self.w, scratch.add(i * self.w));
            }
        }
    }
    /// Do channels lie side by side, so that working across them pays?
    fn pixels<T: Compute>(&self) -> bool {
        self.dtype == T::DTYPE && self.s[1] == 1 && self.c > 1
    }
    /// First channel of position `(n, i, j)`.
    #[inline(always)]
    fn pixel<T: Compute>(&self, n: usize, i: usize, j: usize) -> *mut T {
        let off = n as isize * self.s[0] + i as isize * self.s[2] + j as isize * self.s[3];
        self.ptr.get().cast::<T>().wrapping_offset(off)
    }
}
