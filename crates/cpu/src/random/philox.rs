//! Philox by the vector: one group of the stream layout (16 counters, 64 words) per call.

use crate::simd::{Arch, Isa};
use pyrite_core::rng::philox;

/// Words `[k][l]` = word `k` of the block at `counter + l`.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Group(pub [[u32; 16]; 4]);

impl Group {
    pub const ZERO: Group = Group([[0; 16]; 4]);
}

/// The group at `counter`.
#[inline(always)]
pub fn group<A: Arch>(seed: u64, counter: u64, out: &mut Group) {
    #[cfg(target_arch = "x86_64")]
    match A::ISA {
        // SAFETY: an `Arch` of this set only runs below `dispatch`, which detected the features.
        Isa::Avx512 => return unsafe { x86::group512(seed, counter, out) },
        // SAFETY: as above.
        Isa::Avx2 => return unsafe { x86::group256(seed, counter, out) },
        Isa::Scalar => {}
    }
    for l in 0..16 {
        let b = philox(seed, counter.wrapping_add(l as u64));
        for k in 0..4 {
            out.0[k][l] = b[k];
        }
    }
}

/// One counter per 64-bit lane. Only the low halves mean anything: the widening multiply reads only
/// those, so products and their upper halves need no masking between rounds.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Group;
    use std::arch::x86_64::*;

    const M0: i64 = 0xD251_1F53;
    const M1: i64 = 0xCD9E_8D57;
    const W0: u32 = 0x9E37_79B9;
    const W1: u32 = 0xBB67_AE85;

    /// # Safety
    /// AVX-512F must be there.
    #[inline(always)]
    unsafe fn half512(seed: u64, counter: __m512i) -> [__m512i; 4] {
        // SAFETY: register arithmetic with the features the caller promises.
        unsafe {
            let (m0, m1) = (_mm512_set1_epi64(M0), _mm512_set1_epi64(M1));
            let zero = _mm512_setzero_si512();
            let mut c = [counter, _mm512_srli_epi64::<32>(counter), zero, zero];
            let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
            for _ in 0..10 {
                let p0 = _mm512_mul_epu32(m0, c[0]);
                let p1 = _mm512_mul_epu32(m1, c[2]);
                let (v0, v1) = (_mm512_set1_epi64(k0 as i64), _mm512_set1_epi64(k1 as i64));
                // 0x96 is the exclusive or of three.
                c = [
                    _mm512_ternarylogic_epi64::<0x96>(_mm512_srli_epi64::<32>(p1), c[1], v0),
                    p1,
                    _mm512_ternarylogic_epi64::<0x96>(_mm512_srli_epi64::<32>(p0), c[3], v1),
                    p0,
                ];
                k0 = k0.wrapping_add(W0);
                k1 = k1.wrapping_add(W1);
            }
            c
        }
    }

    /// # Safety
    /// AVX-512F must be there.
    #[inline(always)]
    pub unsafe fn group512(seed: u64, counter: u64, out: &mut Group) {
        // SAFETY: features by the caller; each store covers one row of 16 words of the group.
        unsafe {
            let base = _mm512_set1_epi64(counter as i64);
            let lo = _mm512_add_epi64(base, _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
            let hi = _mm512_add_epi64(base, _mm512_setr_epi64(8, 9, 10, 11, 12, 13, 14, 15));
            let (a, b) = (half512(seed, lo), half512(seed, hi));
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            for k in 0..4 {
                let w = _mm512_permutex2var_epi32(a[k], even, b[k]);
                _mm512_storeu_si512(out.0[k].as_mut_ptr().cast(), w);
            }
        }
    }

    /// # Safety
    /// AVX2 must be there.
    #[inline(always)]
    unsafe fn quarter256(seed: u64, counter: __m256i) -> [__m256i; 4] {
        // SAFETY: register arithmetic with the features the caller promises.
        unsafe {
            let (m0, m1) = (_mm256_set1_epi64x(M0), _mm256_set1_epi64x(M1));
            let zero = _mm256_setzero_si256();
            let mut c = [counter, _mm256_srli_epi64::<32>(counter), zero, zero];
            let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
            for _ in 0..10 {
                let p0 = _mm256_mul_epu32(m0, c[0]);
                let p1 = _mm256_mul_epu32(m1, c[2]);
                let (v0, v1) = (_mm256_set1_epi64x(k0 as i64), _mm256_set1_epi64x(k1 as i64));
                c = [
                    _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64::<32>(p1), c[1]), v0),
                    p1,
                    _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64::<32>(p0), c[3]), v1),
                    p0,
                ];
                k0 = k0.wrapping_add(W0);
                k1 = k1.wrapping_add(W1);
            }
            c
        }
    }

    /// # Safety
    /// AVX2 must be there.
    #[inline(always)]
    pub unsafe fn group256(seed: u64, counter: u64, out: &mut Group) {
        for h in 0..2 {
            // SAFETY: features by the caller; each store covers 8 of the 16 words of a row.
            unsafe {
                let base = _mm256_set1_epi64x(counter.wrapping_add(h as u64 * 8) as i64);
                let lo = _mm256_add_epi64(base, _mm256_setr_epi64x(0, 1, 2, 3));
                let hi = _mm256_add_epi64(base, _mm256_setr_epi64x(4, 5, 6, 7));
                let (a, b) = (quarter256(seed, lo), quarter256(seed, hi));
                for k in 0..4 {
                    // Low halves of both, then the middle quarters swapped into order.
                    let (fa, fb) = (_mm256_castsi256_ps(a[k]), _mm256_castsi256_ps(b[k]));
                    let w = _mm256_castps_si256(_mm256_shuffle_ps::<0x88>(fa, fb));
                    let w = _mm256_permute4x64_epi64::<0xD8>(w);
                    _mm256_storeu_si256(out.0[k].as_mut_ptr().add(h * 8).cast(), w);
                }
            }
        }
    }
}
