//! Sorting u64 in the vector registers of AVX-512: a quicksort whose partition step is a comparison
//! and two compressions, and whose last 128 elements are a bitonic network of minima and maxima. Both
//! have no branch that depends on the data. Order among equals is not kept: items are different.

use crate::simd::{Isa, isa};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Elements that fit the registers.
pub const SMALL: usize = 128;

/// Does this machine have the instructions?
#[inline]
pub fn available() -> bool {
    isa() == Isa::Avx512
}

/// Sorts, if the machine can; `spare` is scratch.
#[inline]
pub fn sort(items: &mut [u64], spare: &mut Vec<u64>) -> bool {
    if !available() {
        return false;
    }
    #[cfg(target_arch = "x86_64")]
    {
        let n = items.len();
        if n > SMALL && spare.len() < n + 8 {
            spare.resize(n + 8, 0);
        }
        let depth = 2 * n.max(2).ilog2();
        // SAFETY: the machine has AVX-512; `n` items, and scratch of `n + 8` if more than SMALL.
        unsafe { quick(items.as_mut_ptr(), n, spare.as_mut_ptr(), depth) };
        true
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (items, spare);
        false
    }
}

/// # Safety
/// The machine has AVX-512. `n` items at `a`, room for `n + 8` at `spare` if `n > SMALL`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn quick(mut a: *mut u64, mut n: usize, spare: *mut u64, mut depth: u32) {
    // SAFETY: parts of the items, and as much scratch as the whole has.
    unsafe {
        while n > SMALL {
            if depth == 0 {
                // Pivots keep missing the middle.
                return std::slice::from_raw_parts_mut(a, n).sort_unstable();
            }
            depth -= 1;
            let pivot = middle(a, n);
            let low = partition(a, n, pivot, spare);
            let high = n - low;
            if low < high {
                quick(a, low, spare, depth);
                (a, n) = (a.add(low), high);
            } else {
                quick(a.add(low), high, spare, depth);
                n = low;
            }
        }
        small(a, n);
    }
}

/// About the median: the middle of 64 elements, or of 8 of few.
///
/// # Safety
/// `n > SMALL` items at `a`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn middle(a: *const u64, n: usize) -> u64 {
    let mut sample = [0u64; 64];
    let k = if n > 2048 { 64 } else { 16 };
    let step = n / k;
    for (i, s) in sample[..k].iter_mut().enumerate() {
        // SAFETY: below n.
        *s = unsafe { *a.add(step / 2 + i * step) };
    }
    // SAFETY: k elements.
    unsafe { small(sample.as_mut_ptr(), k) };
    sample[k / 2 - 1]
}

/// Brings the items up to `pivot` to the front; how many they are.
///
/// # Safety
/// `n` items at `a`, room for `n + 8` at `spare`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn partition(a: *mut u64, n: usize, pivot: u64, spare: *mut u64) -> usize {
    let p = _mm512_set1_epi64(pivot as i64);
    let (mut low, mut high, mut i) = (0, 0, 0);
    // SAFETY: whole vectors are written at `a + low`, which never passes what has been read, and at
    // `spare + high` with `high <= n`; the last vector is written lane by lane.
    unsafe {
        while i + 8 <= n {
            let v = _mm512_loadu_si512(a.add(i).cast());
            let above = _mm512_cmpgt_epu64_mask(v, p);
            _mm512_storeu_si512(a.add(low).cast(), _mm512_maskz_compress_epi64(!above, v));
            _mm512_storeu_si512(spare.add(high).cast(), _mm512_maskz_compress_epi64(above, v));
            let k = above.count_ones() as usize;
            (low, high) = (low + 8 - k, high + k);
            i += 8;
        }
        if i < n {
            let there = (1u8 << (n - i)) - 1;
            let v = _mm512_maskz_loadu_epi64(there, a.add(i).cast());
            let above = _mm512_cmpgt_epu64_mask(v, p) & there;
            _mm512_mask_compressstoreu_epi64(a.add(low).cast(), there & !above, v);
            _mm512_storeu_si512(spare.add(high).cast(), _mm512_maskz_compress_epi64(above, v));
            high += above.count_ones() as usize;
            low = n - high;
        }
        a.add(low).copy_from_nonoverlapping(spare, high);
    }
    low
}

/// Up to [`SMALL`] items.
///
/// # Safety
/// The machine has AVX-512; `n <= SMALL` items at `a`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
pub unsafe fn small(a: *mut u64, n: usize) {
    // SAFETY: the caller's promise; each case has room for n.
    unsafe {
        match n.div_ceil(8) {
            0 => (),
            1 => registers::<1>(a, n),
            2 => registers::<2>(a, n),
            3..=4 => registers::<4>(a, n),
            5..=8 => registers::<8>(a, n),
            _ => registers::<16>(a, n),
        }
    }
}

/// # Safety
/// Called where AVX-512 is enabled; `n <= 8 * R` items at `a`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn registers<const R: usize>(a: *mut u64, n: usize) {
    // SAFETY: lanes below n. What is not there counts as the greatest.
    unsafe {
        let mut v = [_mm512_set1_epi64(-1); R];
        for (r, v) in v.iter_mut().enumerate() {
            *v = _mm512_mask_loadu_epi64(*v, lanes(n, r), a.wrapping_add(8 * r).cast());
        }
        if R >= 8 {
            for b in (0..R).step_by(8) {
                sort64(&mut v, b);
            }
        } else {
            for v in v.iter_mut() {
                *v = sort8(*v);
            }
        }
        if R >= 2 {
            cross::<R, 2>(&mut v);
            finish(&mut v);
        }
        if R >= 4 {
            cross::<R, 4>(&mut v);
            clean::<R, 1>(&mut v);
            finish(&mut v);
        }
        if R >= 8 {
            cross::<R, 8>(&mut v);
            clean::<R, 2>(&mut v);
            clean::<R, 1>(&mut v);
            finish(&mut v);
        }
        if R >= 16 {
            cross::<R, 16>(&mut v);
            clean::<R, 4>(&mut v);
            clean::<R, 2>(&mut v);
            clean::<R, 1>(&mut v);
            finish(&mut v);
        }
        for (r, v) in v.iter().enumerate() {
            _mm512_mask_storeu_epi64(a.wrapping_add(8 * r).cast(), lanes(n, r), *v);
        }
    }
}

/// Which lanes of register `r` hold some of `n` elements.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn lanes(n: usize, r: usize) -> u8 {
    ((1u32 << n.saturating_sub(8 * r).min(8)) - 1) as u8
}

/// Smaller of `v` and its partners `s` in the lanes outside `MASK`, greater in those inside.
#[cfg(target_arch = "x86_64")]
macro_rules! exchange {
    ($v:expr, $s:expr, $mask:expr) => {{
        let (v, s) = ($v, $s);
        _mm512_mask_max_epu64(_mm512_min_epu64(v, s), $mask, v, s)
    }};
}

/// Sorted blocks of `K / 2` registers in pairs: the second is turned round, so that minima and maxima
/// are bitonic sequences of `K / 2` registers.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn cross<const R: usize, const K: usize>(v: &mut [__m512i; R]) {
    let old = *v;
    // SAFETY: the caller's promise.
    unsafe {
        let turned = _mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        for b in 0..R / K {
            for i in 0..K / 2 {
                let x = old[b * K + i];
                let y = _mm512_permutexvar_epi64(turned, old[b * K + K - 1 - i]);
                v[b * K + i] = _mm512_min_epu64(x, y);
                v[b * K + K / 2 + i] = _mm512_max_epu64(x, y);
            }
        }
    }
}

/// Bitonic sequences of `2 * D` registers to two of `D`, all of the first below all of the second.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn clean<const R: usize, const D: usize>(v: &mut [__m512i; R]) {
    for b in 0..R / (2 * D) {
        for i in 2 * D * b..2 * D * b + D {
            // SAFETY: the caller's promise.
            unsafe { compare(v, i, i + D) };
        }
    }
}

/// Puts the smaller of two registers first, lane by lane.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn compare<const R: usize>(v: &mut [__m512i; R], i: usize, j: usize) {
    let (x, y) = (v[i], v[j]);
    // SAFETY: the caller's promise.
    unsafe { (v[i], v[j]) = (_mm512_min_epu64(x, y), _mm512_max_epu64(x, y)) }
}

/// Sorts registers that hold bitonic sequences.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn finish<const R: usize>(v: &mut [__m512i; R]) {
    for v in v.iter_mut() {
        // SAFETY: the caller's promise.
        unsafe {
            let x = exchange!(*v, _mm512_shuffle_i64x2::<0b01_00_11_10>(*v, *v), 0b1111_0000);
            let x = exchange!(x, _mm512_permutex_epi64::<0b01_00_11_10>(x), 0b1100_1100);
            *v = exchange!(x, _mm512_permutex_epi64::<0b10_11_00_01>(x), 0b1010_1010);
        }
    }
}

/// Sorts one register: runs of two, four and eight, each from two runs of which one is turned round.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn sort8(v: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let turned = _mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        let v = exchange!(v, _mm512_permutex_epi64::<0b10_11_00_01>(v), 0b1010_1010);
        let v = exchange!(v, _mm512_permutex_epi64::<0b00_01_10_11>(v), 0b1100_1100);
        let v = exchange!(v, _mm512_permutex_epi64::<0b10_11_00_01>(v), 0b1010_1010);
        let v = exchange!(v, _mm512_permutexvar_epi64(turned, v), 0b1111_0000);
        let v = exchange!(v, _mm512_permutex_epi64::<0b01_00_11_10>(v), 0b1100_1100);
        exchange!(v, _mm512_permutex_epi64::<0b10_11_00_01>(v), 0b1010_1010)
    }
}

/// Sorts each of the eight registers from `b` on (elements may change registers): lanes are sorted
/// across the registers, where no shuffle is needed, and then turned into registers.
///
/// # Safety
/// Called where AVX-512 is enabled; `b + 8 <= R`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn sort64<const R: usize>(v: &mut [__m512i; R], b: usize) {
    const ODD_EVEN: [(usize, usize); 19] = [
        (0, 1),
        (2, 3),
        (4, 5),
        (6, 7),
        (0, 2),
        (1, 3),
        (4, 6),
        (5, 7),
        (1, 2),
        (5, 6),
        (0, 4),
        (1, 5),
        (2, 6),
        (3, 7),
        (2, 4),
        (3, 5),
        (1, 2),
        (3, 4),
        (5, 6),
    ];
    // SAFETY: the caller's promise.
    unsafe {
        for (i, j) in ODD_EVEN {
            compare(v, b + i, b + j);
        }
        let x: [__m512i; 8] = std::array::from_fn(|i| v[b + i]);
        macro_rules! half {
            ($unpack:ident, $to:expr) => {
                let (t0, t1) = ($unpack(x[0], x[1]), $unpack(x[2], x[3]));
                let (t2, t3) = ($unpack(x[4], x[5]), $unpack(x[6], x[7]));
                let (p, q) = (_mm512_shuffle_i64x2::<0x88>(t0, t1), _mm512_shuffle_i64x2::<0x88>(t2, t3));
                let (r, s) = (_mm512_shuffle_i64x2::<0xdd>(t0, t1), _mm512_shuffle_i64x2::<0xdd>(t2, t3));
                v[b + $to] = _mm512_shuffle_i64x2::<0x88>(p, q);
                v[b + $to + 4] = _mm512_shuffle_i64x2::<0xdd>(p, q);
                v[b + $to + 2] = _mm512_shuffle_i64x2::<0x88>(r, s);
                v[b + $to + 6] = _mm512_shuffle_i64x2::<0xdd>(r, s);
            };
        }
        half!(_mm512_unpacklo_epi64, 0);
        half!(_mm512_unpackhi_epi64, 1);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sorts_every_length() {
        let mut spare = Vec::new();
        let mut x = 1u64;
        for n in (0..=300).chain([511, 1000, 4097, 30_000]) {
            for kind in 0..4 {
                let mut v: Vec<u64> = (0..n as u64)
                    .map(|i| {
                        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        match kind {
                            0 => x,
                            1 => x >> 60,
                            2 => i,
                            _ => u64::MAX - i,
                        }
                    })
                    .collect();
                let mut want = v.clone();
                want.sort_unstable();
                if super::sort(&mut v, &mut spare) {
                    assert_eq!(v, want, "{n} {kind}");
                }
            }
        }
    }
}
