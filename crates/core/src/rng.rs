//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the
//! counter-based generator behind every random op. Element `i` of a draw depends only on
//! (seed, offset, i), so results are the same on CPU and CUDA and with any number of threads.
//! `kernels/random.cuh` is its twin.
//!
//! **Stream layout.** A *block* is `philox(seed, counter)`, four 32-bit words; a *group* is 16
//! blocks with consecutive counters from a multiple of 16 after `offset`. Elements are dealt to a
//! group word by word, so that 16 counters side by side in a vector (or a half warp) store straight:
//! * one word per element, 64 elements per group: element `i` has the word `(i / 16) % 4` of the
//!   block `offset + i / 64 * 16 + i % 16` ([`word`]);
//! * two words per element, 32 elements per group: element `i` has the words `2h` (high half) and
//!   `2h + 1` (low half), `h = (i / 16) % 2`, of the block `offset + i / 32 * 16 + i % 16` ([`word64`]).
//!
//! **From words to values.** `fma` is one rounding, all other operations round once each; the
//! functions `ln`, `turn` (sine and cosine of a whole turn) and `exp` are the polynomials of
//! `cpu/src/random/math.rs`, term by term. `w` is the element's word, `x` its 64-bit word. "f32"
//! holds for f16 and bf16, too, which round at the end. `U = ((w >> 8) + 1) * 2^-24` is in (0, 1],
//! `T = (int(w) >> 8) * 2^-24` in [-1/2, 1/2); for f64 the same with `x >> 11` and `2^-53`.
//! * uniform: `min(fma(u, hi - lo, lo), greatest number below hi)`, `u = (w >> (32 - d)) * 2^-d`
//!   with `d` the significant bits of the dtype (24, f16 11, bf16 8; f64: `x`, 53);
//! * normal: elements `i` and `i + 16` of a group, `i / 16 % 2 == 0`, are a Box-Muller pair:
//!   `r = sqrt(-2 ln U)` of the first one's word, `(s, c) = turn(T)` of the second one's; the values
//!   `r * c` and `r * s`, then `fma(z, std, mean)`; log-normal: `exp` of that;
//! * exponential: `max(-ln U, 2^-25) / rate` (f64: `2^-54`); geometric: `max(ceil(ln U / ln(1 - p)), 1)`
//!   (integer dtypes as f64);
//! * cauchy: `(s, c) = turn(T / 2 + 2^-26)` (f64: `2^-55`), `fma(s / c, sigma, median)`;
//! * bernoulli, dropout: true where `w < round(p * 2^32)` (dropout drops there), one word for every dtype;
//! * integers, `n = hi - lo`: up to 2^16 `lo + (w * n >> 32)`, one word; below 2^32
//!   `lo + (x * n >> 64)`; above `lo + x % n`.

use crate::backend::Random;
use crate::dtype::DType;

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;

/// The block of four words at a 64-bit counter.
#[inline(always)]
pub fn philox(seed: u64, counter: u64) -> [u32; 4] {
    let mut c = [counter as u32, (counter >> 32) as u32, 0, 0];
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    for _ in 0..10 {
        let p0 = M0 as u64 * c[0] as u64;
        let p1 = M1 as u64 * c[2] as u64;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k1, p0 as u32];
        k0 = k0.wrapping_add(W0);
        k1 = k1.wrapping_add(W1);
    }
    c
}

/// The word of element `i` of a draw with one word per element.
pub fn word(seed: u64, offset: u64, i: u64) -> u32 {
    philox(seed, offset.wrapping_add(i / 64 * 16 + i % 16))[(i / 16 % 4) as usize]
}

/// The 64-bit word of element `i` of a draw with two words per element.
pub fn word64(seed: u64, offset: u64, i: u64) -> u64 {
    let b = philox(seed, offset.wrapping_add(i / 32 * 16 + i % 16));
    let h = (i / 16 % 2) as usize * 2;
    (b[h] as u64) << 32 | b[h + 1] as u64
}

/// How many blocks a draw of `n` elements with `words` (1 or 2) words each moves the stream.
pub fn blocks(n: usize, words: usize) -> u64 {
    (n as u64).div_ceil(64 / words as u64) * 16
}

/// Words per element of a distribution: 1 or 2.
pub fn words(dist: Random, dtype: DType) -> usize {
    match dist {
        Random::Bernoulli { .. } => 1,
        Random::Integers { lo, hi } => 1 + (hi.wrapping_sub(lo) as u64 > 1 << 16) as usize,
        _ => match dtype {
            DType::F32 | DType::F16 | DType::BF16 => 1,
            _ => 2,
        },
    }
}

/// How many blocks a draw of `n` elements moves the stream.
pub fn draws(dist: Random, dtype: DType, n: usize) -> u64 {
    blocks(n, words(dist, dtype))
}

/// `w < threshold` has probability `p`; the threshold minus one, or None where nothing is below.
pub fn below(p: f64) -> Option<u32> {
    let t = (p.clamp(0.0, 1.0) * 4294967296.0).round() as u64;
    t.checked_sub(1).map(|v| v as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' Random123 distribution (kat_vectors, philox4x32 10).
    #[test]
    fn known_answers() {
        assert_eq!(philox(0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    }

    /// No word of the stream is used twice, and all of a group are used.
    #[test]
    fn words_are_dealt_once() {
        let mut all: Vec<u32> = (0..32).flat_map(|b| philox(7, 100 + b)).collect();
        let mut one: Vec<u32> = (0..128).map(|i| word(7, 100, i)).collect();
        let mut two: Vec<u32> =
            (0..64).flat_map(|i| [(word64(7, 100, i) >> 32) as u32, word64(7, 100, i) as u32]).collect();
        for v in [&mut all, &mut one, &mut two] {
            v.sort_unstable();
        }
        assert_eq!(all, one);
        assert_eq!(all, two);
    }
}
