//! Blocked transposition, for packing a transposed B and for turning NCHW into NHWC.

#[cfg(target_arch = "x86_64")]
use crate::simd::{Isa, isa};

/// `dst[c * ldd + r] = src[r * lds + c]` for `r < rows`, `c < cols`.
///
/// # Safety
/// Both sides are valid for these extents and do not overlap.
pub unsafe fn transpose<T: Copy>(
    src: *const T,
    lds: usize,
    dst: *mut T,
    ldd: usize,
    rows: usize,
    cols: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if isa() != Isa::Scalar {
        // SAFETY: AVX is there (`isa` says at least AVX2), and only bits are moved, so that any 4 or 8 byte
        // type may travel as a float of that size.
        unsafe {
            match size_of::<T>() {
                4 => return x86::run32(src.cast(), lds, dst.cast(), ldd, rows, cols),
                8 => return x86::run64(src.cast(), lds, dst.cast(), ldd, rows, cols),
                _ => (),
            }
        }
    }
    // SAFETY: the whole extent.
    unsafe { plain(src, lds, dst, ldd, 0..rows, 0..cols) }
}

/// # Safety
/// As for [`transpose`], within the given ranges.
#[inline(always)]
unsafe fn plain<T: Copy>(
    src: *const T,
    lds: usize,
    dst: *mut T,
    ldd: usize,
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
) {
    for c in cols {
        for r in rows.clone() {
            // SAFETY: inside the extents by the contract.
            unsafe { *dst.add(c * ldd + r) = *src.add(r * lds + c) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::plain;
    use std::arch::x86_64::*;

    macro_rules! run {
        ($name:ident, $t:ty, $b:literal, $block:ident) => {
            /// # Safety
            /// As for `transpose`, on a machine with AVX.
            #[target_feature(enable = "avx")]
            pub unsafe fn $name(
                src: *const $t,
                lds: usize,
                dst: *mut $t,
                ldd: usize,
                rows: usize,
                cols: usize,
            ) {
                // SAFETY: full blocks lie inside the extents; the rims go element by element.
                unsafe {
                    let (fr, fc) = (rows / $b * $b, cols / $b * $b);
                    // Two blocks of columns at a time use whole cache lines of the source.
                    for c in (0..fc).step_by(2 * $b) {
                        for r in (0..fr).step_by($b) {
                            $block(src.add(r * lds + c), lds, dst.add(c * ldd + r), ldd);
                            if c + $b < fc {
                                let c = c + $b;
                                $block(src.add(r * lds + c), lds, dst.add(c * ldd + r), ldd);
                            }
                        }
                    }
                    plain(src, lds, dst, ldd, fr..rows, 0..fc);
                    plain(src, lds, dst, ldd, 0..rows, fc..cols);
                }
            }
        };
    }
    run!(run32, f32, 8, block8);
    run!(run64, f64, 4, block4);

    /// # Safety
    /// 8 x 8 elements on both sides.
    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn block8(src: *const f32, lds: usize, dst: *mut f32, ldd: usize) {
        // SAFETY: by the contract.
        unsafe {
            let r: [__m256; 8] = std::array::from_fn(|i| _mm256_loadu_ps(src.add(i * lds)));
            // Pairs, then quadruples within each 128-bit half, then the halves.
            let mut p = [r[0]; 8];
            for i in 0..4 {
                p[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                p[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut q = [r[0]; 8];
            for h in 0..2 {
                let o = 4 * h;
                q[o] = _mm256_shuffle_ps::<0x44>(p[o], p[o + 2]);
                q[o + 1] = _mm256_shuffle_ps::<0xee>(p[o], p[o + 2]);
                q[o + 2] = _mm256_shuffle_ps::<0x44>(p[o + 1], p[o + 3]);
                q[o + 3] = _mm256_shuffle_ps::<0xee>(p[o + 1], p[o + 3]);
            }
            for i in 0..4 {
                let lo = _mm256_permute2f128_ps::<0x20>(q[i], q[i + 4]);
                let hi = _mm256_permute2f128_ps::<0x31>(q[i], q[i + 4]);
                _mm256_storeu_ps(dst.add(i * ldd), lo);
                _mm256_storeu_ps(dst.add((i + 4) * ldd), hi);
            }
        }
    }

    /// # Safety
    /// 4 x 4 elements on both sides.
    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn block4(src: *const f64, lds: usize, dst: *mut f64, ldd: usize) {
        // SAFETY: by the contract.
        unsafe {
            let r: [__m256d; 4] = std::array::from_fn(|i| _mm256_loadu_pd(src.add(i * lds)));
            let a = _mm256_unpacklo_pd(r[0], r[1]);
            let b = _mm256_unpackhi_pd(r[0], r[1]);
            let c = _mm256_unpacklo_pd(r[2], r[3]);
            let d = _mm256_unpackhi_pd(r[2], r[3]);
            _mm256_storeu_pd(dst, _mm256_permute2f128_pd::<0x20>(a, c));
            _mm256_storeu_pd(dst.add(ldd), _mm256_permute2f128_pd::<0x20>(b, d));
            _mm256_storeu_pd(dst.add(2 * ldd), _mm256_permute2f128_pd::<0x31>(a, c));
            _mm256_storeu_pd(dst.add(3 * ldd), _mm256_permute2f128_pd::<0x31>(b, d));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Copy + PartialEq + std::fmt::Debug>(make: impl Fn(usize) -> T) {
        for rows in [0, 1, 3, 4, 7, 8, 9, 16, 33] {
            for cols in [0, 1, 4, 5, 8, 15, 16, 24, 31] {
                let (lds, ldd) = (cols + 3, rows + 2);
                let src: Vec<T> = (0..rows * lds + 1).map(&make).collect();
                let mut dst: Vec<T> = vec![make(0); cols * ldd + 1];
                // SAFETY: both vectors cover the extents.
                unsafe { transpose(src.as_ptr(), lds, dst.as_mut_ptr(), ldd, rows, cols) };
                for r in 0..rows {
                    for c in 0..cols {
                        assert_eq!(dst[c * ldd + r], src[r * lds + c]);
                    }
                }
            }
        }
    }

    #[test]
    fn every_size() {
        check(|i| i as f32);
        check(|i| i as f64);
        check(|i| i as i16);
    }
}
