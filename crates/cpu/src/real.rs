//! Real arithmetic for kernels written as plain loops over slices: `f32` and `f64`, which the compiler
//! vectorises for the instruction set that `dispatch` chose.

use crate::strided::Compute;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

pub trait Real:
    Compute
    + Default
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    fn floor(self) -> Self;
    /// To the nearest integer, ties to even.
    fn nearest(self) -> Self;
    /// Rounded towards zero; the nearest there is, or 0 for NaN, where it does not fit.
    fn int(self) -> i32;
    fn exp(self) -> Self;
    fn ln_1p(self) -> Self;
    fn ln(self) -> Self;
}

macro_rules! real {
    ($($t:ty),*) => { $(
        impl Real for $t {
            #[inline(always)]
            fn floor(self) -> $t { <$t>::floor(self) }
            #[inline(always)]
            fn nearest(self) -> $t { self.round_ties_even() }
            #[inline(always)]
            fn int(self) -> i32 { self as i32 }
            #[inline(always)]
            fn exp(self) -> $t { <$t>::exp(self) }
            #[inline(always)]
            fn ln_1p(self) -> $t { <$t>::ln_1p(self) }
            #[inline(always)]
            fn ln(self) -> $t { <$t>::ln(self) }
        }
    )* };
}
real!(f32, f64);

/// The first error of any chunk of a parallel region.
#[derive(Default)]
pub struct Failure(std::sync::Mutex<Option<pyrite_core::Error>>);

impl Failure {
    #[cold]
    pub fn set(&self, e: pyrite_core::Error) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(e);
    }
    pub fn result(self) -> pyrite_core::Result<()> {
        self.0.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
    }
}

/// `out[i] = sum over k of w[k] * src[k][i]`.
#[inline(always)]
pub fn combine<T: Real>(out: &mut [T], src: &[&[T]], w: &[T]) {
    match (src, w) {
        ([], _) | (_, []) => out.fill(T::default()),
        ([a], [u]) => {
            for (o, a) in out.iter_mut().zip(*a) {
                *o = *u * *a;
            }
        }
        ([a, b], [u, v]) => {
            for ((o, a), b) in out.iter_mut().zip(*a).zip(*b) {
                *o = *u * *a + *v * *b;
            }
        }
        ([a, b, c, d], [s, t, u, v]) => {
            for ((((o, a), b), c), d) in out.iter_mut().zip(*a).zip(*b).zip(*c).zip(*d) {
                *o = (*s * *a + *t * *b) + (*u * *c + *v * *d);
            }
        }
        _ => {
            combine(out, &src[..1], &w[..1]);
            for (s, w) in src[1..].iter().zip(&w[1..]) {
                for (o, s) in out.iter_mut().zip(*s) {
                    *o += *w * *s;
                }
            }
        }
    }
}
