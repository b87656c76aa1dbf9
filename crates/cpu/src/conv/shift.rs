//! Two kernels that read the padded image in place, without gathering panels. They win where there are
//! few output channels, so that gathering a panel costs as much as using it.

use crate::gemm::kernel::MAX_MR;
use crate::gemm::vector::{Scalar, Vector};

/// Most output channels of one call of either kernel.
pub const SHIFT_ROWS: usize = 8;
pub const CROSS_ROWS: usize = 6;

/// Forward: `rows` output channels for two runs of pixels, each within one output row.
pub struct Shift<'a, T> {
    pub weights: [*const T; SHIFT_ROWS],
    pub src: *const T,
    pub offsets: &'a [isize],
    /// For each run: its first pixel in the image and in the output, and its length (up to one vector).
    pub base: [isize; 2],
    pub out: [*mut T; 2],
    pub len: [usize; 2],
    /// Elements between output channels.
    pub channel: isize,
    /// One value per output channel, or null.
    pub bias: *const T,
}

pub type ShiftFn<T> = unsafe fn(&Shift<T>);

/// # Safety
/// `ROWS` weight rows of `offsets.len()` elements; the image is readable a vector beyond every
/// run at every offset; the runs lie in the output.
#[inline(always)]
pub unsafe fn shift<V: Vector, const ROWS: usize>(a: &Shift<V::T>) {
    // SAFETY: by the contract.
    unsafe {
        let mut acc = [[V::splat(V::T::ZERO); 2]; ROWS];
        let (x0, x1) = (a.src.offset(a.base[0]), a.src.offset(a.base[1]));
        for (p, &offset) in a.offsets.iter().enumerate() {
            let b = [V::load(x0.offset(offset)), V::load(x1.offset(offset))];
            for i in 0..ROWS {
                let w = V::splat(*a.weights[i].add(p));
                for v in 0..2 {
                    acc[i][v] = w.fma(b[v], acc[i][v]);
                }
            }
        }
        for i in 0..ROWS {
            let bias = if a.bias.is_null() { V::T::ZERO } else { *a.bias.add(i) };
            for v in 0..2 {
                let y = a.out[v].offset(i as isize * a.channel);
                acc[i][v].add(V::splat(bias)).store_n(y, a.len[v]);
            }
        }
    }
}

/// Weight gradient: `out[j * ldo + i] += sum over images and pixels of dy[i] * x[offset j]`.
pub struct Cross<T> {
    pub images: usize,
    pub dy: *const T,
    /// Elements between images, channels and rows of dy; pixels of a row are adjacent.
    pub dy_strides: [isize; 3],
    pub x: *const T,
    /// Elements between images and output rows of the padded image.
    pub x_strides: [isize; 2],
    pub offsets: [isize; MAX_MR],
    pub oh: usize,
    pub ow: usize,
    pub out: *mut T,
    pub ldo: usize,
    /// Offsets whose sums are stored (the rest repeat a valid one).
    pub count: usize,
}

pub type CrossFn<T> = unsafe fn(&Cross<T>);

/// # Safety
/// `K` channels of dy, `P` valid offsets, and sums for `count` of them.
#[inline(always)]
pub unsafe fn cross<V: Vector, const K: usize, const P: usize>(a: &Cross<V::T>) {
    // SAFETY: by the contract; both sides are masked at the end of a row, since lanes beyond may hold
    // infinities that a zero would turn into NaN.
    unsafe {
        let mut acc = [[V::splat(V::T::ZERO); P]; K];
        for n in 0..a.images as isize {
            for r in 0..a.oh as isize {
                let dy = a.dy.offset(n * a.dy_strides[0] + r * a.dy_strides[2]);
                let x = a.x.offset(n * a.x_strides[0] + r * a.x_strides[1]);
                let mut j = 0;
                while j < a.ow {
                    let len = V::LANES.min(a.ow - j);
                    let mut b = [V::splat(V::T::ZERO); P];
                    for p in 0..P {
                        b[p] = V::load_n(x.offset(a.offsets[p]).add(j), len);
                    }
                    for k in 0..K {
                        let g = V::load_n(dy.offset(k as isize * a.dy_strides[1]).add(j), len);
                        for p in 0..P {
                            acc[k][p] = g.fma(b[p], acc[k][p]);
                        }
                    }
                    j += len;
                }
            }
        }
        // Through memory: indexing `acc` by a loop variable would keep it out of registers above.
        let mut sums = [std::mem::MaybeUninit::<V>::uninit(); CROSS_ROWS * 4];
        let sums = sums.as_mut_ptr().cast::<V>();
        for k in 0..K {
            for p in 0..P {
                sums.add(k * P + p).write(acc[k][p]);
            }
        }
        for p in 0..a.count {
            for k in 0..K {
                let o = a.out.add(p * a.ldo + k);
                *o = (*o).add(sums.add(k * P + p).read().sum());
            }
        }
    }
}
