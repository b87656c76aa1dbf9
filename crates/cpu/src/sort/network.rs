//! Sorting u32 in the vector registers of AVX-512: a quicksort whose partition step is a comparison
//! and two compressions, and whose last 256 elements are a bitonic network of minima and maxima. Both
//! have no branch that depends on the data. Equal numbers are the same number, so there is no order
//! among them to keep.

use crate::simd::{Isa, isa};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Numbers that fit the registers.
pub const SMALL: usize = 256;
/// What scratch needs beyond as many places as there are numbers.
pub const MARGIN: usize = 16;

/// Does this machine have the instructions?
#[inline]
pub fn available() -> bool {
    isa() == Isa::Avx512
}

/// Sorts `w`, which has numbers up to `most`; `spare` is scratch of as many places and [`MARGIN`] more.
///
/// # Safety
/// [`available`].
#[cfg(target_arch = "x86_64")]
#[inline]
pub unsafe fn sort(w: &mut [u32], spare: &mut [u32], most: u32) {
    let n = w.len();
    if n > SMALL && spare.len() < n + MARGIN {
        return w.sort_unstable();
    }
    let depth = 2 * n.max(2).ilog2();
    // SAFETY: the machine has AVX-512; `n` numbers, and scratch as asked for if there are more than SMALL.
    unsafe { quick(w.as_mut_ptr(), n, spare.as_mut_ptr(), depth, [0, most]) }
}

/// `range`: the numbers are about between these two, if it is not empty.
///
/// # Safety
/// The machine has AVX-512. `n` numbers at `a`, room for `n + MARGIN` at `spare` if `n > SMALL`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn quick(mut a: *mut u32, mut n: usize, spare: *mut u32, mut depth: u32, mut range: [u32; 2]) {
    // SAFETY: parts of the numbers, and as much scratch as the whole has.
    unsafe {
        while n > SMALL {
            if depth == 0 {
                // Pivots keep missing the middle.
                return std::slice::from_raw_parts_mut(a, n).sort_unstable();
            }
            depth -= 1;
            // Numbers inside a bucket are mostly spread evenly, and looking for the median takes longer
            // than parting them.
            let guess = range[0] < range[1];
            let pivot = if guess { range[0] + (range[1] - range[0]) / 2 } else { middle(a, n) };
            let low = partition(a, n, pivot, spare);
            let high = n - low;
            if guess && low.min(high) < n / 8 {
                range = [0; 2];
                if low == 0 || high == 0 {
                    continue;
                }
            } else if high == 0 {
                // The pivot is the greatest: what equals it goes to the end, and is in order there.
                match pivot.checked_sub(1) {
                    Some(below) => n = partition(a, n, below, spare),
                    None => return,
                }
                continue;
            }
            let halves =
                if range[0] < range[1] { [[range[0], pivot], [pivot, range[1]]] } else { [[0; 2]; 2] };
            if low < high {
                quick(a, low, spare, depth, halves[0]);
                (a, n, range) = (a.add(low), high, halves[1]);
            } else {
                quick(a.add(low), high, spare, depth, halves[1]);
                (n, range) = (low, halves[0]);
            }
        }
        small(a, n);
    }
}

/// About the median: the middle of 16 numbers, or of 64 of many.
///
/// # Safety
/// `n > SMALL` numbers at `a`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn middle(a: *const u32, n: usize) -> u32 {
    let mut sample = [0u32; 64];
    let k = if n > 2048 { 64 } else { 16 };
    let step = n / k;
    for (i, s) in sample[..k].iter_mut().enumerate() {
        // SAFETY: below n.
        *s = unsafe { *a.add(step / 2 + i * step) };
    }
    // SAFETY: k numbers.
    unsafe { small(sample.as_mut_ptr(), k) };
    sample[k / 2 - 1]
}

/// Brings the numbers up to `pivot` to the front; how many they are.
///
/// # Safety
/// `n` numbers at `a`, room for `n + MARGIN` at `spare`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn partition(a: *mut u32, n: usize, pivot: u32, spare: *mut u32) -> usize {
    let p = _mm512_set1_epi32(pivot as i32);
    let (mut low, mut high, mut i) = (0, 0, 0);
    // SAFETY: whole vectors are written at `a + low`, which never passes what has been read, and at
    // `spare + high` with `high <= n`; the last vector is written lane by lane.
    unsafe {
        while i + 16 <= n {
            let v = _mm512_loadu_si512(a.add(i).cast());
            let above = _mm512_cmpgt_epu32_mask(v, p);
            _mm512_storeu_si512(a.add(low).cast(), _mm512_maskz_compress_epi32(!above, v));
            _mm512_storeu_si512(spare.add(high).cast(), _mm512_maskz_compress_epi32(above, v));
            let k = above.count_ones() as usize;
            (low, high) = (low + 16 - k, high + k);
            i += 16;
        }
        if i < n {
            let there = ((1u32 << (n - i)) - 1) as u16;
            let v = _mm512_maskz_loadu_epi32(there, a.add(i).cast());
            let above = _mm512_cmpgt_epu32_mask(v, p) & there;
            _mm512_mask_compressstoreu_epi32(a.add(low).cast(), there & !above, v);
            _mm512_storeu_si512(spare.add(high).cast(), _mm512_maskz_compress_epi32(above, v));
            high += above.count_ones() as usize;
            low = n - high;
        }
        a.add(low).copy_from_nonoverlapping(spare, high);
    }
    low
}

/// Sixteen numbers.
///
/// # Safety
/// The machine has AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
pub unsafe fn sixteen(w: &mut [u32; 16]) {
    // SAFETY: a register's worth of numbers.
    unsafe {
        let p = w.as_mut_ptr();
        _mm512_storeu_si512(p.cast(), sort16(_mm512_loadu_si512(p.cast())));
    }
}

/// Of sixteen elements of four or eight bytes those at the places `at`, the first `n` of them.
///
/// # Safety
/// The machine has AVX-512; 16 elements at `x`, room for `n <= 16` at `out`; places below 16.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
pub unsafe fn pick<T>(x: *const T, at: &[u32; 16], out: *mut T, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let at = _mm512_loadu_si512(at.as_ptr().cast());
        if size_of::<T>() == 4 {
            let v = _mm512_permutexvar_epi32(at, _mm512_loadu_si512(x.cast()));
            return _mm512_mask_storeu_epi32(out.cast(), lanes(n, 0), v);
        }
        let (lo, hi) = (_mm512_loadu_si512(x.cast()), _mm512_loadu_si512(x.add(8).cast()));
        let first = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(at));
        let second = _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64::<1>(at));
        let there = lanes(n, 0);
        _mm512_mask_storeu_epi64(out.cast(), there as u8, _mm512_permutex2var_epi64(lo, first, hi));
        let v = _mm512_permutex2var_epi64(lo, second, hi);
        _mm512_mask_storeu_epi64(out.wrapping_add(8).cast(), (there >> 8) as u8, v);
    }
}

/// Up to [`SMALL`] numbers.
///
/// # Safety
/// The machine has AVX-512; `n <= SMALL` numbers at `a`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
pub unsafe fn small(a: *mut u32, n: usize) {
    // SAFETY: the caller's promise; each case has room for n.
    unsafe {
        match n.div_ceil(16) {
            0 => (),
            1 => registers::<1>(a, n),
            2 => registers::<2>(a, n),
            3..=4 => registers::<4>(a, n),
            5..=8 => registers::<8>(a, n),
            _ => registers::<16>(a, n),
        }
    }
}

/// Runs a statement for each constant `$i` of 0..16 that is below `$n`. (Loops that the compiler leaves
/// as loops would keep the registers in memory.)
#[cfg(target_arch = "x86_64")]
macro_rules! unrolled {
    ($i:ident < $n:expr => $body:block) => {
        unrolled!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $i:ident, $n:expr, $body:block, $($k:literal)*) => {{
        $( if $k < $n { let $i: usize = $k; $body } )*
    }};
}

/// # Safety
/// Called where AVX-512 is enabled; `n <= 16 * R` numbers at `a`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn registers<const R: usize>(a: *mut u32, n: usize) {
    // SAFETY: lanes below n. What is not there counts as the greatest.
    unsafe {
        let mut v = [_mm512_set1_epi32(-1); R];
        unrolled!(r < R => {
            v[r] = _mm512_mask_loadu_epi32(v[r], lanes(n, r), a.wrapping_add(16 * r).cast());
        });
        match R {
            16 => sort_columns_16(&mut v),
            8 => sort_columns_8(&mut v),
            _ => unrolled!(r < R => { v[r] = sort16(v[r]) }),
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
        unrolled!(r < R => {
            _mm512_mask_storeu_epi32(a.wrapping_add(16 * r).cast(), lanes(n, r), v[r]);
        });
    }
}

/// Which lanes of register `r` hold some of `n` numbers.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn lanes(n: usize, r: usize) -> u16 {
    ((1u32 << n.saturating_sub(16 * r).min(16)) - 1) as u16
}

/// Smaller of `v` and its partners `s` in the lanes outside `MASK`, greater in those inside.
#[cfg(target_arch = "x86_64")]
macro_rules! exchange {
    ($v:expr, $s:expr, $mask:expr) => {{
        let (v, s) = ($v, $s);
        _mm512_mask_max_epu32(_mm512_min_epu32(v, s), $mask, v, s)
    }};
}

/// Lanes in the opposite order.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn turned(v: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let at = _mm512_set_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        _mm512_permutexvar_epi32(at, v)
    }
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
        unrolled!(p < R / 2 => {
            let (b, i) = (p / (K / 2) * K, p % (K / 2));
            let (x, y) = (old[b + i], turned(old[b + K - 1 - i]));
            v[b + i] = _mm512_min_epu32(x, y);
            v[b + K / 2 + i] = _mm512_max_epu32(x, y);
        });
    }
}

/// Bitonic sequences of `2 * D` registers to two of `D`, all of the first below all of the second.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn clean<const R: usize, const D: usize>(v: &mut [__m512i; R]) {
    // SAFETY: the caller's promise.
    unsafe {
        unrolled!(p < R / 2 => {
            let i = p / D * 2 * D + p % D;
            compare(v, i, i + D);
        });
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
    unsafe { (v[i], v[j]) = (_mm512_min_epu32(x, y), _mm512_max_epu32(x, y)) }
}

/// Sorts registers that hold bitonic sequences.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn finish<const R: usize>(v: &mut [__m512i; R]) {
    // SAFETY: the caller's promise.
    unsafe {
        unrolled!(r < R => {
            v[r] = finish_eights(exchange!(v[r], _mm512_shuffle_i32x4::<0b01_00_11_10>(v[r], v[r]), 0xff00));
        });
    }
}

/// Sorts the halves of a register, each of which holds a bitonic sequence.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn finish_eights(v: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { finish_fours(exchange!(v, _mm512_shuffle_i32x4::<0b10_11_00_01>(v, v), 0xf0f0)) }
}

/// Sorts the quarters of a register, each of which holds a bitonic sequence.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn finish_fours(v: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let v = exchange!(v, _mm512_shuffle_epi32::<0b01_00_11_10>(v), 0xcccc);
        exchange!(v, _mm512_shuffle_epi32::<0b10_11_00_01>(v), 0xaaaa)
    }
}

/// Sorted eights of a register in pairs to a sorted register.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn merge_eights(v: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { finish_eights(exchange!(v, turned(v), 0xff00)) }
}

/// Sorts one register: runs of two, four, eight and sixteen, each from two runs of which one is turned
/// round.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn sort16(v: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let v = exchange!(v, _mm512_shuffle_epi32::<0b10_11_00_01>(v), 0xaaaa);
        let v = exchange!(v, _mm512_shuffle_epi32::<0b00_01_10_11>(v), 0xcccc);
        let v = exchange!(v, _mm512_shuffle_epi32::<0b10_11_00_01>(v), 0xaaaa);
        let s = _mm512_shuffle_epi32::<0b00_01_10_11>(v);
        let v = exchange!(v, _mm512_shuffle_i32x4::<0b10_11_00_01>(s, s), 0xf0f0);
        merge_eights(finish_fours(v))
    }
}

/// Compares registers in the given pairs.
#[cfg(target_arch = "x86_64")]
macro_rules! compares {
    ($v:ident + $b:literal: $(($i:literal $j:literal))*) => { $( compare($v, $b + $i, $b + $j); )* };
}
/// Sorts eight registers lane by lane.
#[cfg(target_arch = "x86_64")]
macro_rules! eight {
    ($v:ident + $b:literal) => {
        compares!($v + $b:
            (0 1) (2 3) (4 5) (6 7) (0 2) (1 3) (4 6) (5 7) (1 2) (5 6)
            (0 4) (1 5) (2 6) (3 7) (2 4) (3 5) (1 2) (3 4) (5 6));
    };
}

/// Sorts each of eight registers (numbers may change registers): lanes are sorted across the
/// registers, where no shuffle is needed; what stands in a lane then becomes half a register.
///
/// # Safety
/// Called where AVX-512 is enabled; `R == 8`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn sort_columns_8<const R: usize>(v: &mut [__m512i; R]) {
    // SAFETY: the caller's promise.
    unsafe {
        eight!(v + 0);
        let (top, low) = (fours([v[0], v[1], v[2], v[3]]), fours([v[4], v[5], v[6], v[7]]));
        // Lanes 0 and 1 of both, and 2 and 3: each a column's first four and last four.
        let front = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
        let back = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
        unrolled!(i < 4 => {
            v[i] = merge_eights(_mm512_permutex2var_epi64(top[i], front, low[i]));
            v[i + 4] = merge_eights(_mm512_permutex2var_epi64(top[i], back, low[i]));
        });
    }
}

/// Transposes the 4 x 4 squares that four registers hold side by side.
///
/// # Safety
/// Called where AVX-512 is enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn fours(v: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
        let (c, d) = (_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
        [
            _mm512_unpacklo_epi64(a, c),
            _mm512_unpackhi_epi64(a, c),
            _mm512_unpacklo_epi64(b, d),
            _mm512_unpackhi_epi64(b, d),
        ]
    }
}

/// The same for sixteen registers: what stood in a lane becomes a register.
///
/// # Safety
/// Called where AVX-512 is enabled; `R == 16`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn sort_columns_16<const R: usize>(v: &mut [__m512i; R]) {
    // SAFETY: the caller's promise.
    unsafe {
        // Two eights, then a merge of odds and evens (Batcher): 63 comparisons.
        eight!(v + 0);
        eight!(v + 8);
        compares!(v + 0:
            (0 8) (1 9) (2 10) (3 11) (4 12) (5 13) (6 14) (7 15) (4 8) (5 9) (6 10) (7 11)
            (2 4) (3 5) (6 8) (7 9) (10 12) (11 13) (1 2) (3 4) (5 6) (7 8) (9 10) (11 12) (13 14));
        unrolled!(q < 4 => {
            [v[4 * q], v[4 * q + 1], v[4 * q + 2], v[4 * q + 3]] =
                fours([v[4 * q], v[4 * q + 1], v[4 * q + 2], v[4 * q + 3]]);
        });
        // Register 4 q + c holds rows 4 q .. 4 q + 4 of the columns c, c + 4, c + 8, c + 12.
        let old = *v;
        unrolled!(c < 4 => {
            let (a, b) = (old[c], old[c + 4]);
            let (d, e) = (old[c + 8], old[c + 12]);
            let (p, q) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
            let (r, s) = (_mm512_shuffle_i32x4::<0x88>(d, e), _mm512_shuffle_i32x4::<0xdd>(d, e));
            v[c] = _mm512_shuffle_i32x4::<0x88>(p, r);
            v[c + 4] = _mm512_shuffle_i32x4::<0x88>(q, s);
            v[c + 8] = _mm512_shuffle_i32x4::<0xdd>(p, r);
            v[c + 12] = _mm512_shuffle_i32x4::<0xdd>(q, s);
        });
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #[test]
    fn sorts_every_length() {
        if !super::available() {
            return;
        }
        let mut x = 1u64;
        for n in (0..=600).chain([1023, 4096, 30_000]) {
            let mut spare = vec![0; n + super::MARGIN];
            for kind in 0..6 {
                let v: Vec<u32> = (0..n as u32)
                    .map(|i| {
                        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        let r = (x >> 32) as u32;
                        match kind {
                            0 => r,
                            1 => r >> 28,
                            2 => i,
                            3 => u32::MAX - i,
                            // Mostly one number, which is the greatest or the least.
                            4 => r.saturating_mul(20),
                            _ => r.saturating_sub(0xf000_0000),
                        }
                    })
                    .collect();
                let mut want = v.clone();
                want.sort_unstable();
                let most = v.iter().copied().max().unwrap_or(0);
                // A range that is wrong costs time only.
                for most in [most, 0, u32::MAX] {
                    let mut v = v.clone();
                    // SAFETY: the machine has the instructions.
                    unsafe { super::sort(&mut v, &mut spare, most) };
                    assert_eq!(v, want, "{n} {kind} {most}");
                }
            }
        }
    }
}
