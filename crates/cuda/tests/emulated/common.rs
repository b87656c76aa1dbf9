//! Buffers that exist on both devices, sample data, comparison.

use pyrite_core::backend::{Arr, Backend};
use pyrite_core::dtype::{Bool8, Complex, Elem};
use pyrite_core::half::{bf16, f16};
use pyrite_core::{DType, Layout, Storage, match_dtype};

/// The emulated device, or `None` (and a line of output) where there is no C++ compiler.
pub fn device() -> Option<&'static dyn Backend> {
    if !pyrite_cuda::emulate::available() {
        assert!(std::env::var_os("CI").is_none(), "no C++ compiler to emulate CUDA with");
        println!("skipped: no C++ compiler");
        return None;
    }
    pyrite_cuda::device::emulate();
    Some(pyrite_cuda::cuda(0).unwrap())
}

/// A linear congruential generator: the same data in every run.
pub struct Lcg(pub u64);

impl Lcg {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
    pub fn range(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * self.next()
    }
}

pub trait Number: Elem {
    fn from_f64(v: f64) -> Self;
    fn to_f64(self) -> f64;
}
macro_rules! numbers {
    ($($t:ty),*) => { $(impl Number for $t {
        fn from_f64(v: f64) -> Self { v as $t }
        fn to_f64(self) -> f64 { self as f64 }
    })* };
}
numbers!(u8, i8, i16, i32, i64, u16, u32, u64, f32, f64);
macro_rules! halves {
    ($($t:ty),*) => { $(impl Number for $t {
        fn from_f64(v: f64) -> Self { <$t>::from_f64(v) }
        fn to_f64(self) -> f64 { <$t>::to_f64(self) }
    })* };
}
halves!(f16, bf16);
impl Number for Bool8 {
    fn from_f64(v: f64) -> Self {
        Bool8((v != 0.0) as u8)
    }
    fn to_f64(self) -> f64 {
        self.0 as f64
    }
}
impl Number for Complex<f32> {
    fn from_f64(v: f64) -> Self {
        Complex { re: v as f32, im: 0.0 }
    }
    fn to_f64(self) -> f64 {
        self.re as f64
    }
}
impl Number for Complex<f64> {
    fn from_f64(v: f64) -> Self {
        Complex { re: v, im: 0.0 }
    }
    fn to_f64(self) -> f64 {
        self.re
    }
}

pub fn encode(values: &[f64], d: DType) -> Vec<u8> {
    match_dtype!(all, d, |T| {
        let v: Vec<T> = values.iter().map(|x| <T as Number>::from_f64(*x)).collect();
        // SAFETY: plain numbers as bytes.
        unsafe { std::slice::from_raw_parts(v.as_ptr().cast::<u8>(), std::mem::size_of_val(&v[..])) }.to_vec()
    })
}

pub fn decode(bytes: &[u8], d: DType) -> Vec<f64> {
    match_dtype!(all, d, |T| {
        bytes
            .chunks_exact(size_of::<T>())
            // SAFETY: the chunk has the element's size; every bit pattern is a number.
            .map(|c| unsafe { c.as_ptr().cast::<T>().read_unaligned() }.to_f64())
            .collect()
    })
}

/// One array on one device.
pub struct Array {
    pub storage: Storage,
    pub dtype: DType,
    pub layout: Layout,
    on: &'static dyn Backend,
}

impl Array {
    /// `values` fill the storage from its first byte; the layout says how they are seen.
    pub fn new(on: &'static dyn Backend, values: &[f64], dtype: DType, layout: Layout) -> Array {
        let mut bytes = encode(values, dtype);
        let storage = on.alloc(bytes.len()).unwrap();
        // SAFETY: both ranges have these many bytes.
        unsafe { on.transfer(bytes.as_mut_ptr(), storage.ptr(), bytes.len(), false).unwrap() };
        Array { storage, dtype, layout, on }
    }
    pub fn dense(on: &'static dyn Backend, values: &[f64], dtype: DType, shape: &[usize]) -> Array {
        Array::new(on, values, dtype, Layout::contiguous(shape))
    }
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0u8; self.storage.bytes()];
        // SAFETY: both ranges have these many bytes.
        unsafe { self.on.transfer(out.as_mut_ptr(), self.storage.ptr(), out.len(), true).unwrap() };
        out
    }
    /// Everything in the storage, in memory order.
    pub fn values(&self) -> Vec<f64> {
        decode(&self.bytes(), self.dtype)
    }
    pub fn arr(&self) -> Arr<'_> {
        Arr {
            ptr: self.storage.ptr().wrapping_add(self.layout.offset() * self.dtype.size()),
            dtype: self.dtype,
            shape: self.layout.shape(),
            strides: self.layout.strides(),
        }
    }
}

/// Equal up to `tol` relative to the larger of the value and 1; NaN equals NaN.
pub fn close(got: f64, want: f64, tol: f64) -> bool {
    got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= tol * want.abs().max(1.0)
}

#[track_caller]
pub fn assert_close(what: &str, got: &[f64], want: &[f64], tol: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(close(*g, *w, tol), "{what}: element {i} is {g}, expected {w}");
    }
}
