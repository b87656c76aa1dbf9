//! Matrices in lanes: element (i, j) of as many matrices as there are lanes lies in one register's worth of
//! scratch memory. Moving batches in and out, and handing groups to the threads.

use super::{Batch, JOB, WIDEST};
use crate::gemm::transpose::transpose;
use crate::oom;
use crate::pool::{parallel, with_scratch};
use crate::real::{Failure, Real};
use crate::simd::{Arch, ArchKernel, FloatLanes, Lanes, dispatch};
use pyrite_core::{DType, Result, bail};
use std::marker::PhantomData;

/// A matrix of lanes in scratch memory; strides count registers.
pub(super) struct Wide<V: Lanes> {
    pub ptr: *mut V::Elem,
    pub rs: usize,
    pub cs: usize,
    of: PhantomData<V>,
}

impl<V: Lanes> Clone for Wide<V> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<V: Lanes> Copy for Wide<V> {}

impl<V: FloatLanes> Wide<V> {
    #[inline(always)]
    pub fn new(ptr: *mut V::Elem, rs: usize, cs: usize) -> Wide<V> {
        Wide { ptr, rs, cs, of: PhantomData }
    }
    #[inline(always)]
    pub fn at(self, i: usize, j: usize) -> *mut V::Elem {
        self.ptr.wrapping_add((i * self.rs + j * self.cs) * V::N)
    }
    /// # Safety
    /// (i, j) lies in the scratch memory that the matrix was made for.
    #[inline(always)]
    pub unsafe fn get(self, i: usize, j: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(self.at(i, j)) }
    }
    /// # Safety
    /// As [`Wide::get`].
    #[inline(always)]
    pub unsafe fn set(self, i: usize, j: usize, v: V) {
        // SAFETY: the caller's promise.
        unsafe { v.store(self.at(i, j)) }
    }

    /// Rows x cols of matrices `first .. first + lanes`; the other lanes become 0.
    ///
    /// # Safety
    /// `from` is valid for reading these elements, and the scratch holds the matrix.
    #[inline(always)]
    pub unsafe fn load(self, from: Batch, first: usize, lanes: usize, rows: usize, cols: usize) {
        let src = from.ptr.cast::<V::Elem>().wrapping_offset(first as isize * from.step).cast_const();
        // SAFETY: the caller's promise; blocks of `lanes` x n elements, with a step that is not negative where
        // it is used as a length.
        unsafe {
            if lanes < V::N {
                for i in 0..rows {
                    for j in 0..cols {
                        self.set(i, j, V::lit(0.0));
                    }
                }
            }
            let (rs, cs, step) = (from.rs, from.cs, from.step);
            if step >= 0 && cs == 1 && rs == cols as isize && self.cs == 1 && self.rs == cols {
                return transpose(src, step as usize, self.ptr, V::N, lanes, rows * cols);
            }
            if step >= 0 && rs == 1 && cs == rows as isize && self.rs == 1 && self.cs == rows {
                return transpose(src, step as usize, self.ptr, V::N, lanes, rows * cols);
            }
            if step >= 0 && cs == 1 {
                for i in 0..rows {
                    let at = src.offset(i as isize * rs);
                    transpose(at, step as usize, self.at(i, 0), self.cs * V::N, lanes, cols);
                }
                return;
            }
            if step >= 0 && rs == 1 {
                for j in 0..cols {
                    let at = src.offset(j as isize * cs);
                    transpose(at, step as usize, self.at(0, j), self.rs * V::N, lanes, rows);
                }
                return;
            }
            for i in 0..rows {
                for j in 0..cols {
                    let (at, to) = (src.offset(i as isize * rs + j as isize * cs), self.at(i, j));
                    for l in 0..lanes {
                        *to.add(l) = *at.offset(l as isize * step);
                    }
                }
            }
        }
    }

    /// Writes matrices `first .. first + lanes`, which are stored by columns without gaps.
    ///
    /// # Safety
    /// `to` is valid for writing these elements and stored so; the scratch holds the matrix.
    #[inline(always)]
    pub unsafe fn store(self, to: Batch, first: usize, lanes: usize, rows: usize, cols: usize) {
        let step = to.step as usize;
        let dst = to.ptr.cast::<V::Elem>().wrapping_add(first * step);
        // SAFETY: the caller's promise.
        unsafe {
            if self.rs == 1 && self.cs == rows {
                return transpose(self.ptr.cast_const(), V::N, dst, step, rows * cols, lanes);
            }
            for j in 0..cols {
                let at = self.at(0, j).cast_const();
                transpose(at, self.rs * V::N, dst.add(j * rows), step, rows, lanes);
            }
        }
    }
}

/// Adds `x * 0` for each element looked at: stays 0 in lanes that are finite.
#[inline(always)]
pub(super) fn spoil<V: FloatLanes>(sum: V, x: V) -> V {
    sum + x * V::lit(0.0)
}

/// Is a lane of what [`spoil`] collected still 0?
#[inline(always)]
pub(super) fn clean<V: FloatLanes>(sum: V) -> V::M {
    V::eq(sum, V::lit(0.0))
}

/// Each lane's power of two that brings `most` (not negative) near 1, as its exponent; 0 for 0.
#[inline(always)]
pub(super) fn exponent<V: FloatLanes>(most: V) -> V {
    let zero = V::lit(0.0);
    let some = V::lt(zero, most);
    let (_, e) = V::select(some, most, V::lit(1.0)).split_();
    V::select(some, e, zero)
}

/// Runs `job(from, to, scratch)` for ranges that cover `count` matrices, each with scratch memory of its own.
/// `ns` is the estimated time of one matrix.
fn groups(count: usize, bytes: usize, ns: f64, job: impl Fn(usize, usize, *mut u8) + Sync) -> Result<()> {
    let failure = Failure::default();
    parallel(count.div_ceil(JOB), (ns * count as f64).min(1e18) as u64, &|q| {
        let range = (q * JOB, count.min((q + 1) * JOB));
        if let Err(e) = with_scratch(bytes, |s| job(range.0, range.1, s)) {
            failure.set(oom(e));
        }
    });
    failure.result()
}

/// A factorisation in lockstep.
pub(super) trait Lockstep: Copy + Sync {
    /// What it is called in errors.
    const NAME: &'static str;
    /// Elements of scratch memory that one lane needs.
    fn registers(&self) -> usize;
    /// Estimated time of one matrix in nanoseconds.
    fn ns(&self) -> f64;
    /// Works on matrices `first .. first + lanes`.
    ///
    /// # Safety
    /// What the factorisation's own function asks of its pointers; `scratch` holds `registers()` registers.
    unsafe fn group<T: Real, V: FloatLanes<Elem = T>>(&self, first: usize, lanes: usize, scratch: *mut T);
}

struct Range<J, T> {
    job: J,
    from: usize,
    to: usize,
    scratch: *mut T,
}

impl<J: Lockstep, T: Real> ArchKernel for Range<J, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let n = <T::V<A> as Lanes>::N;
        for first in (self.from..self.to).step_by(n) {
            // SAFETY: the promise of `run`; the scratch holds the registers that `typed` counted.
            unsafe { self.job.group::<T, T::V<A>>(first, n.min(self.to - first), self.scratch) };
        }
    }
}

fn typed<T: Real>(count: usize, job: impl Lockstep) -> Result<()> {
    groups(count, job.registers() * WIDEST, job.ns(), |from, to, scratch| {
        dispatch(Range::<_, T> { job, from, to, scratch: scratch.cast() });
    })
}

/// Factorises `count` matrices.
///
/// # Safety
/// What the factorisation's own function asks of its pointers, for `count` matrices.
pub(super) unsafe fn run(dtype: DType, count: usize, job: impl Lockstep) -> Result<()> {
    fn name<J: Lockstep>(_: &J) -> &'static str {
        J::NAME
    }
    match dtype {
        DType::F32 => typed::<f32>(count, job),
        DType::F64 => typed::<f64>(count, job),
        d => bail!(NotImplemented, "{} in lockstep: not implemented for {d}", name(&job)),
    }
}
