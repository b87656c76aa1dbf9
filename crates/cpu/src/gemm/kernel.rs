//! The micro-kernel: a tile of `MR` rows by `NV` vectors of C, kept in registers.
//!
//! A is not packed: each row is a pointer, and a step broadcasts one element of each row. With several
//! taps (convolution) the row pointers come from a table, `MR` of them per tap. B is a panel of
//! consecutive rows. The store applies alpha, beta, bias and activation.

use super::gemv;
use super::vector::{Quad, Scalar, Vector};
use crate::conv;
use crate::simd::Isa;

/// The most rows a tile has on any instruction set.
pub const MAX_MR: usize = 14;
/// The most columns a tile has, any type.
pub const MAX_NR: usize = 32;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    #[default]
    None,
    Relu,
}

/// One call of the micro-kernel:
/// `C[i][j] = act(alpha * sum_t sum_p rows[t][i][p * csa] * b[t * depth + p][j] + beta * C[i][j] + bias)`.
#[derive(Clone)]
pub struct Tile<T> {
    /// `taps` groups of row pointers, `tap_step` pointers apart; tap t adds `t * tap_add` elements to each.
    pub rows: *const *const T,
    pub tap_step: usize,
    pub tap_add: isize,
    pub taps: usize,
    /// Elements of each row per tap, and the stride between them.
    pub depth: usize,
    pub csa: isize,
    /// Rows of B, `bs` elements apart, each with a full panel's width readable.
    pub b: *const T,
    pub bs: isize,
    /// Rows of C, `rsc` elements apart, columns adjacent; `n` columns are stored.
    pub c: *mut T,
    pub rsc: isize,
    pub n: usize,
    pub alpha: T,
    /// Zero means that C is not read.
    pub beta: T,
    /// One value per column, or null.
    pub bias_n: *const T,
    /// One value per row, or null.
    pub bias_m: *const T,
    pub act: Activation,
}

pub type TileFn<T> = unsafe fn(&Tile<T>);

/// What one instruction set offers for one type.
pub struct Kernels<T: 'static> {
    pub mr: usize,
    pub nr: usize,
    pub lanes: usize,
    /// `tiles[v - 1][r - 1]`: `r` rows by `v` vectors, `r <= mr`, `v <= nr / lanes`.
    tiles: [[TileFn<T>; MAX_MR]; 2],
    /// Skinny products; see `gemv.rs`.
    pub axpy: gemv::AxpyFn<T>,
    pub dots: gemv::DotsFn<T>,
    /// As `tiles`, for the pixels of an image; see `conv/pixels.rs`.
    pixels: [[conv::PixelsFn<T>; MAX_MR]; 2],
    /// Convolution along rows, by number of output channels; see `conv/shift.rs`.
    pub shift: [conv::ShiftFn<T>; 8],
    pub cross: [conv::CrossFn<T>; 6],
    /// Offsets a call of `cross` takes.
    pub cross_width: usize,
}

impl<T> Kernels<T> {
    /// The kernel for `rows` rows and `cols` columns of a panel.
    #[inline]
    pub fn tile(&self, rows: usize, cols: usize) -> TileFn<T> {
        self.tiles[(cols > self.lanes) as usize][rows - 1]
    }

    /// The convolution kernel for `rows` pixels and `cols` output channels.
    #[inline]
    pub fn pixels(&self, rows: usize, cols: usize) -> conv::PixelsFn<T> {
        self.pixels[(cols > self.lanes) as usize][rows - 1]
    }
}

/// # Safety
/// All pointers of the tile cover what its documentation says, with `MR` rows and `NV` vectors per
/// panel row; C does not overlap A or B.
#[inline(always)]
unsafe fn tile<V: Vector, const MR: usize, const NV: usize>(t: &Tile<V::T>) {
    // SAFETY: the caller's contract; indices stay below MR, NV and the counts of the tile.
    unsafe {
        let mut acc = [[V::splat(V::T::ZERO); NV]; MR];
        let mut b = t.b;
        let mut rows = t.rows;
        let mut add = 0isize;
        for _ in 0..t.taps {
            let mut a = [std::ptr::null::<V::T>(); MR];
            for i in 0..MR {
                a[i] = (*rows.add(i)).wrapping_offset(add);
            }
            add += t.tap_add;
            rows = rows.wrapping_add(t.tap_step);
            let mut off = 0isize;
            for _ in 0..t.depth {
                let mut bv = [V::splat(V::T::ZERO); NV];
                for v in 0..NV {
                    bv[v] = V::load(b.add(v * V::LANES));
                }
                for i in 0..MR {
                    let x = V::splat(*a[i].offset(off));
                    for v in 0..NV {
                        acc[i][v] = x.fma(bv[v], acc[i][v]);
                    }
                }
                off += t.csa;
                b = b.wrapping_offset(t.bs);
            }
        }
        // Through memory: the loop below is too long to unroll, and indexing `acc` by a loop variable
        // would keep it out of registers in the loop above.
        let mut sums = [std::mem::MaybeUninit::<V>::uninit(); MAX_MR * 2];
        let sums = sums.as_mut_ptr().cast::<V>();
        for i in 0..MR {
            for v in 0..NV {
                sums.add(i * NV + v).write(acc[i][v]);
            }
        }
        let alpha = V::splat(t.alpha);
        let beta = V::splat(t.beta);
        let (scaled, reads_c) = (t.alpha != V::T::ONE, t.beta != V::T::ZERO);
        for v in 0..NV {
            let from = v * V::LANES;
            let n = t.n.saturating_sub(from).min(V::LANES);
            let full = n == V::LANES;
            let bias = match t.bias_n.is_null() {
                true => V::splat(V::T::ZERO),
                false => V::load_n(t.bias_n.add(from), n),
            };
            for i in 0..MR {
                let c = t.c.offset(i as isize * t.rsc).add(from);
                let mut x = sums.add(i * NV + v).read();
                if scaled {
                    x = x.mul(alpha);
                }
                if reads_c {
                    let old = if full { V::load(c) } else { V::load_n(c, n) };
                    x = old.fma(beta, x);
                }
                if !t.bias_n.is_null() {
                    x = x.add(bias);
                }
                if !t.bias_m.is_null() {
                    x = x.add(V::splat(*t.bias_m.add(i)));
                }
                if t.act == Activation::Relu {
                    x = x.relu();
                }
                if full { x.store(c) } else { x.store_n(c, n) }
            }
        }
    }
}

/// The tables of tile functions for one vector type, compiled with its features.
macro_rules! kernels {
    ($name:ident, $v:ty, $t:ty, $mr:literal, $nv:literal, [$($feature:literal),*], [$($r:literal)*], [$($fill:literal)*]) => {
        pub static $name: Kernels<$t> = {
            $(#[target_feature(enable = $feature)])*
            unsafe fn run<const MR: usize, const NV: usize>(t: &Tile<$t>) {
                // SAFETY: the contract of `tile`, passed on.
                unsafe { tile::<$v, MR, NV>(t) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn axpy(args: &gemv::Axpy<$t>) {
                // SAFETY: the contract of the generic function, passed on.
                unsafe { gemv::axpy::<$v>(args) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn dots(args: &gemv::Dots<$t>) {
                // SAFETY: the contract of the generic function, passed on.
                unsafe { gemv::dots::<$v>(args) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn pixels<const MR: usize, const NV: usize>(args: &conv::Pixels<$t>) {
                // SAFETY: the contract of the generic function, passed on.
                unsafe { conv::pixels::<$v, MR, NV>(args) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn shift<const ROWS: usize>(args: &conv::Shift<$t>) {
                // SAFETY: the contract of the generic function, passed on.
                unsafe { conv::shift::<$v, ROWS>(args) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn cross<const K: usize>(args: &conv::Cross<$t>) {
                // Four offsets need more registers than AVX2 has.
                // SAFETY: the contract of the generic function, passed on.
                unsafe { if $mr == 14 { conv::cross::<$v, K, 4>(args) } else { conv::cross::<$v, K, 2>(args) } }
            }
            Kernels {
                mr: $mr,
                nr: $nv * <$v as Vector>::LANES,
                lanes: <$v as Vector>::LANES,
                // Entries above `mr` are never asked for; they repeat the last one.
                tiles: [[$(run::<$r, 1>,)* $(run::<$fill, 1>,)*], [$(run::<$r, $nv>,)* $(run::<$fill, $nv>,)*]],
                axpy,
                dots,
                pixels: [
                    [$(pixels::<$r, 1>,)* $(pixels::<$fill, 1>,)*],
                    [$(pixels::<$r, $nv>,)* $(pixels::<$fill, $nv>,)*],
                ],
                shift: [shift::<1>, shift::<2>, shift::<3>, shift::<4>, shift::<5>, shift::<6>, shift::<7>, shift::<8>],
                cross: [cross::<1>, cross::<2>, cross::<3>, cross::<4>, cross::<5>, cross::<6>],
                cross_width: if $mr == 14 { 4 } else { 2 },
            }
        };
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::{__m256, __m256d, __m512, __m512d};
    kernels!(AVX512_F32, __m512, f32, 14, 2, ["avx512f"], [1 2 3 4 5 6 7 8 9 10 11 12 13 14], []);
    kernels!(AVX512_F64, __m512d, f64, 14, 2, ["avx512f"], [1 2 3 4 5 6 7 8 9 10 11 12 13 14], []);
    kernels!(AVX2_F32, __m256, f32, 6, 2, ["avx2", "fma"], [1 2 3 4 5 6], [6 6 6 6 6 6 6 6]);
    kernels!(AVX2_F64, __m256d, f64, 6, 2, ["avx2", "fma"], [1 2 3 4 5 6], [6 6 6 6 6 6 6 6]);
}
kernels!(PLAIN_F32, Quad<f32>, f32, 4, 1, [], [1 2 3 4], [4 4 4 4 4 4 4 4 4 4]);
kernels!(PLAIN_F64, Quad<f64>, f64, 4, 1, [], [1 2 3 4], [4 4 4 4 4 4 4 4 4 4]);

/// Types with micro-kernels.
pub trait KernelScalar: Scalar {
    fn kernels(isa: Isa) -> &'static Kernels<Self>;
}

macro_rules! kernel_scalar {
    ($t:ty, $plain:ident, $avx2:ident, $avx512:ident) => {
        impl KernelScalar for $t {
            fn kernels(isa: Isa) -> &'static Kernels<$t> {
                #[cfg(target_arch = "x86_64")]
                match isa {
                    Isa::Avx512 => return &x86::$avx512,
                    Isa::Avx2 => return &x86::$avx2,
                    Isa::Scalar => (),
                }
                let _ = isa;
                &$plain
            }
        }
    };
}
kernel_scalar!(f32, PLAIN_F32, AVX2_F32, AVX512_F32);
kernel_scalar!(f64, PLAIN_F64, AVX2_F64, AVX512_F64);
