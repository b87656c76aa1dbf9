//! Discrete Fourier transforms along one dimension of arrays with any strides.
//!
//! Lines that lie densely in memory are transformed where they are. Other lines are taken in tiles of a
//! cache line's width: transposed into a thread's scratch, transformed there, and transposed back, so
//! that a transform along any dimension reads and writes whole cache lines. Padding, cutting, conversion
//! between real and complex, conjugation and the scale happen in the same passes.

mod plans;
mod tile;

use crate::pool;
use plans::Real;
use pyrite_core::backend::{Fft, FftKind};
use pyrite_core::{Arr, DType, Result, bail};
use rustfft::num_complex::Complex;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicBool, Ordering};
use tile::{Line, Put};

/// Runs one transform; see [`Fft`].
pub fn run(f: &Fft) -> Result<()> {
    let real = |a: &Arr| match a.dtype {
        DType::F32 | DType::C64 => Some(false),
        DType::F64 | DType::C128 => Some(true),
        _ => None,
    };
    let shapes = match f.kind {
        FftKind::Complex => true,
        FftKind::RealToHalf => f.src.dtype.is_float() && f.dst.dtype.is_complex(),
        FftKind::HalfToReal => f.src.dtype.is_complex() && f.dst.dtype.is_float(),
    };
    match (real(&f.src), real(&f.dst)) {
        (Some(false), Some(false)) if shapes => typed::<f32>(f),
        (Some(true), Some(true)) if shapes => typed::<f64>(f),
        _ => bail!(NotImplemented, "fft: from {} to {} is not implemented", f.src.dtype, f.dst.dtype),
    }
}

/// The lines of both arrays: every dimension but the transformed one, the most tightly spaced last.
struct Lines {
    shape: SmallVec<[usize; 8]>,
    src: SmallVec<[isize; 8]>,
    dst: SmallVec<[isize; 8]>,
    total: usize,
}

impl Lines {
    fn of(f: &Fft) -> Lines {
        let mut dims: SmallVec<[usize; 8]> = (0..f.dst.shape.len()).filter(|d| *d != f.dim).collect();
        dims.sort_by_key(|d| std::cmp::Reverse(f.dst.strides[*d].unsigned_abs()));
        Lines {
            shape: dims.iter().map(|d| f.dst.shape[*d]).collect(),
            src: dims.iter().map(|d| f.src.strides[*d]).collect(),
            dst: dims.iter().map(|d| f.dst.strides[*d]).collect(),
            total: dims.iter().map(|d| f.dst.shape[*d]).product(),
        }
    }
    /// Where line `i` starts in both arrays, in elements.
    fn at(&self, mut i: usize) -> (isize, isize) {
        let (mut s, mut d) = (0, 0);
        for k in (0..self.shape.len()).rev() {
            let x = (i % self.shape[k]) as isize;
            i /= self.shape[k];
            s += x * self.src[k];
            d += x * self.dst[k];
        }
        (s, d)
    }
}

/// Bytes of one tile that still stay in the first-level cache.
const SMALL_TILE: usize = 16 << 10;

fn typed<T: Real>(f: &Fft) -> Result<()> {
    let n = f.n;
    if f.dst.shape.contains(&0) || n == 0 {
        return Ok(());
    }
    let lines = Lines::of(f);
    let job = Job::<T>::of(f);
    let dense = job.src.step == 1 && job.dst.step == 1;
    let point = size_of::<Complex<T>>();
    let width = if dense { 1 } else { (SMALL_TILE / (n * point)).clamp(64 / point, 32) }.min(lines.total);
    let tiles = lines.total.div_ceil(width);
    // About 0.3 ns per point and level in f32, twice that in f64.
    let line_ns = n as f64 * (2.0 + (n as f64).log2()) * 0.04 * point as f64;
    let work = (line_ns * lines.total as f64).min(1e15) as u64;
    // Chunks of at least 20 us, so that plans and scratch are fetched rarely.
    let per = ((20_000.0 / (line_ns * width as f64)) as usize).max(tiles / 64).max(1);
    let plan = Plan::<T>::get(f);
    // A dense line of a complex result is its own tile.
    let tile = if width == 1 && job.whole() && f.kind == FftKind::Complex { 0 } else { 2 * width * (n + 2) };
    let bytes = ((tile + plan.scratch()) * point).max(point);
    let short = AtomicBool::new(false);
    pool::parallel(tiles.div_ceil(per), work, &|c| {
        let range = c * per..((c + 1) * per).min(tiles);
        let done = pool::with_scratch(bytes, |p| {
            // SAFETY: the scratch holds `bytes` bytes, 64-byte aligned; all zero bits are valid numbers.
            let buffer = unsafe {
                p.write_bytes(0, bytes);
                std::slice::from_raw_parts_mut(p.cast::<Complex<T>>(), bytes / point)
            };
            for t in range {
                let first = t * width;
                let starts: SmallVec<[(isize, isize); 32]> =
                    (first..(first + width).min(lines.total)).map(|i| lines.at(i)).collect();
                job.tile(&plan, &starts, buffer);
            }
        });
        if done.is_err() {
            short.store(true, Ordering::Relaxed);
        }
    });
    if short.load(Ordering::Relaxed) {
        bail!(OutOfMemory, "fft: no memory for the {bytes} bytes that a transform of {n} points works in");
    }
    Ok(())
}

/// The plan of a kind of transform.
enum Plan<T: Real> {
    Complex(std::sync::Arc<dyn rustfft::Fft<T>>),
    ToHalf(std::sync::Arc<dyn realfft::RealToComplex<T>>),
    ToReal(std::sync::Arc<dyn realfft::ComplexToReal<T>>),
}

impl<T: Real> Plan<T> {
    fn get(f: &Fft) -> Plan<T> {
        match f.kind {
            FftKind::Complex => Plan::Complex(T::plans().complex(f.n, f.forward)),
            FftKind::RealToHalf => Plan::ToHalf(T::plans().real_to_half(f.n)),
            FftKind::HalfToReal => Plan::ToReal(T::plans().half_to_real(f.n)),
        }
    }
    fn scratch(&self) -> usize {
        match self {
            Plan::Complex(p) => p.get_inplace_scratch_len().max(p.get_immutable_scratch_len()),
            Plan::ToHalf(p) => p.get_scratch_len(),
            Plan::ToReal(p) => p.get_scratch_len(),
        }
    }
}

/// One transform with its arrays as typed lines.
struct Job<T> {
    n: usize,
    src: Line<T>,
    dst: Line<T>,
    /// The spectrum is conjugated: the transforms between real and half run the other way round.
    conj: bool,
    put: Put<T>,
}

// SAFETY: the pointers are to arrays that outlive the call; lines of different tiles do not overlap in
// `dst` (checked above the kernels), and `src` is only read.
unsafe impl<T> Sync for Job<T> {}

impl<T: Real> Job<T> {
    fn of(f: &Fft) -> Job<T> {
        let line = |a: &Arr| Line {
            ptr: a.ptr.cast::<T>(),
            parts: if a.dtype.is_complex() { 2 } else { 1 },
            len: a.shape[f.dim],
            step: if a.shape[f.dim] > 1 { a.strides[f.dim] } else { 1 },
        };
        let inner = T::of(if f.kind == FftKind::Complex { f.scale } else { f.scale * f.inner });
        Job {
            n: f.n,
            src: line(&f.src),
            dst: line(&f.dst),
            conj: match f.kind {
                FftKind::Complex => false,
                FftKind::RealToHalf => !f.forward,
                FftKind::HalfToReal => f.forward,
            },
            put: Put { edge: T::of(f.scale), inner, n: f.n },
        }
    }

    /// Is a line of the result complex, dense, and neither cut nor filled up?
    fn whole(&self) -> bool {
        self.dst.parts == 2 && self.dst.step == 1 && self.dst.len == self.n
    }

    /// Transforms the lines that start at `starts`. `buffer` holds two tiles and the plan's scratch.
    fn tile(&self, plan: &Plan<T>, starts: &[(isize, isize)], buffer: &mut [Complex<T>]) {
        let (n, b) = (self.n, starts.len());
        match plan {
            Plan::Complex(p) => {
                if let ([(s, d)], true) = (starts, self.whole()) {
                    // SAFETY: a dense line of n points at `d`; nobody else writes to it.
                    let to = unsafe { self.dst.dense_mut(*d, n) };
                    let dense = self.src.parts == 2 && self.src.step == 1 && self.src.len >= n;
                    if std::ptr::eq(self.src.ptr, self.dst.ptr) {
                        // In place: the caller gives the same lines twice.
                        p.process_with_scratch(to, buffer);
                    } else if dense {
                        // SAFETY: a dense line of at least n points at `s`, disjoint from `to`.
                        let from = unsafe { self.src.dense(*s, n) };
                        p.process_immutable_with_scratch(from, to, buffer);
                    } else {
                        // SAFETY: a line of `src` as the caller gave it, disjoint from `to`.
                        unsafe { self.src.gather(&[*s], to, n, false) };
                        p.process_with_scratch(to, buffer);
                    }
                    self.put.scale(to);
                    return;
                }
                let (lines, scratch) = buffer.split_at_mut(b * n);
                let from: SmallVec<[isize; 32]> = starts.iter().map(|x| x.0).collect();
                // SAFETY: lines of `src` as the caller gave them.
                unsafe { self.src.gather(&from, lines, n, false) };
                p.process_with_scratch(lines, scratch);
                let to: SmallVec<[isize; 32]> = starts.iter().map(|x| x.1).collect();
                // SAFETY: lines of `dst` as the caller gave them.
                unsafe {
                    self.dst.scatter(&to, lines, n, |_, v| {
                        Complex::new(v.re * self.put.edge, v.im * self.put.edge)
                    })
                };
            }
            Plan::ToHalf(p) => {
                let half = n / 2 + 1;
                let (lines, rest) = buffer.split_at_mut(b * n.div_ceil(2));
                let reals = tile::as_reals(lines);
                let (spectra, scratch) = rest.split_at_mut(b * half);
                let from: SmallVec<[isize; 32]> = starts.iter().map(|x| x.0).collect();
                // SAFETY: lines of `src` as the caller gave them.
                unsafe { self.src.gather_real(&from, &mut reals[..b * n], n) };
                for (x, y) in reals[..b * n].chunks_exact_mut(n).zip(spectra.chunks_exact_mut(half)) {
                    // The sizes are the plan's: nothing else makes it fail.
                    let _ = p.process_with_scratch(x, y, scratch);
                }
                let to: SmallVec<[isize; 32]> = starts.iter().map(|x| x.1).collect();
                let conj = self.conj;
                // SAFETY: lines of `dst` as the caller gave them.
                unsafe {
                    self.dst.scatter(&to, spectra, half, |k, v| {
                        let w = self.put.weight(k);
                        Complex::new(v.re * w, if conj { -(v.im * w) } else { v.im * w })
                    })
                };
            }
            Plan::ToReal(p) => {
                let half = n / 2 + 1;
                let (spectra, rest) = buffer.split_at_mut(b * half);
                let (lines, scratch) = rest.split_at_mut(b * n.div_ceil(2));
                let reals = tile::as_reals(lines);
                let from: SmallVec<[isize; 32]> = starts.iter().map(|x| x.0).collect();
                // SAFETY: lines of `src` as the caller gave them.
                unsafe { self.src.gather(&from, spectra, half, self.conj) };
                let inner = self.put.inner / self.put.edge;
                for (x, y) in spectra.chunks_exact_mut(half).zip(reals[..b * n].chunks_exact_mut(n)) {
                    if self.put.inner != self.put.edge {
                        for v in &mut x[1..n.div_ceil(2).max(1)] {
                            *v = Complex::new(v.re * inner, v.im * inner);
                        }
                    }
                    // What the imaginary parts of these two say cannot be part of a real signal.
                    x[0].im = T::of(0.0);
                    if n % 2 == 0 {
                        x[n / 2].im = T::of(0.0);
                    }
                    let _ = p.process_with_scratch(x, y, scratch);
                }
                let to: SmallVec<[isize; 32]> = starts.iter().map(|x| x.1).collect();
                // SAFETY: lines of `dst` as the caller gave them.
                unsafe { self.dst.scatter_real(&to, &reals[..b * n], n, self.put.edge) };
            }
        }
    }
}

#[cfg(test)]
mod tests;
