//! The compiled formulas: for every row of the op table, its gradients, every compute dtype and every
//! instruction set one loop over contiguous arrays.
//!
//! Float kernels run on SIMD lanes. Integer, bool and complex kernels are plain loops that the compiler
//! vectorises, for AVX2 and the baseline only: they are bound by memory (or by library functions), and
//! each set more costs build time. The modules below exist so that the compiler can work on them side by side.

use crate::simd::{B8, Isa, Lanes, S};
#[cfg(target_arch = "x86_64")]
use crate::simd::{F32x8, F32x16, F64x4, F64x8};
use pyrite_core::DType;
use pyrite_core::backend::Formula;
use pyrite_core::dtype::Complex;
use pyrite_core::expr::Ring;
use pyrite_core::rows::{Eval, EvalMask, table};

/// Runs a formula over `n` elements: output, inputs and parameters (16 bytes apart) are in the compute
/// dtype; the output of a mask row is bool.
///
/// # Safety
/// `out` and every input are valid for `n` elements, `params` for the row's parameters. An input may
/// be the output, but not overlap it otherwise.
pub type Kernel = unsafe fn(n: usize, out: *mut u8, ins: *const *const u8, params: *const u64);

/// A formula with either kind of result, so that the loops are written once.
trait Run<V: Lanes> {
    const INPUTS: usize;
    const PARAMS: usize;
    /// Bytes per result element.
    const OUT: usize;
    /// # Safety
    /// `out` has room for `n <= V::N` results.
    unsafe fn put(x: &[V; 4], p: &[V; 4], out: *mut u8, n: usize);
}

struct Same<F>(F);
struct Truth<F>(F);
/// A gradient formula `g * f'(x)` as `conj(conj(g) * f'(x))`: what PyTorch gives for complex numbers. The
/// incoming gradient is the first input.
struct Conjugate<F>(F);

impl<V: Lanes, F: Eval<V>> Run<V> for Same<F> {
    const INPUTS: usize = F::INPUTS;
    const PARAMS: usize = F::PARAMS;
    const OUT: usize = size_of::<V::Elem>();
    #[inline(always)]
    unsafe fn put(x: &[V; 4], p: &[V; 4], out: *mut u8, n: usize) {
        let y = F::eval(x, p);
        // SAFETY: the caller promises room for n results.
        unsafe { if n == V::N { y.store(out.cast()) } else { y.store_partial(out.cast(), n) } }
    }
}

impl<V: Lanes, F: EvalMask<V>> Run<V> for Truth<F> {
    const INPUTS: usize = F::INPUTS;
    const PARAMS: usize = F::PARAMS;
    const OUT: usize = 1;
    #[inline(always)]
    unsafe fn put(x: &[V; 4], p: &[V; 4], out: *mut u8, n: usize) {
        // SAFETY: the caller promises room for n results.
        unsafe { V::store_mask(F::eval(x, p), out, n) }
    }
}

impl<V: Lanes + Ring, F: Eval<V>> Run<V> for Conjugate<F> {
    const INPUTS: usize = F::INPUTS;
    const PARAMS: usize = F::PARAMS;
    const OUT: usize = size_of::<V::Elem>();
    #[inline(always)]
    unsafe fn put(x: &[V; 4], p: &[V; 4], out: *mut u8, n: usize) {
        let y = F::eval(&[x[0].conj(), x[1], x[2], x[3]], p).conj();
        // SAFETY: the caller promises room for n results.
        unsafe { y.store_partial(out.cast(), n) }
    }
}

#[inline(always)]
unsafe fn params_of<V: Lanes>(params: *const u64, n: usize) -> [V; 4] {
    let mut p = [V::lit(0.0); 4];
    for i in 0..n {
        // SAFETY: the caller promises n parameters, 16 bytes apart; reading a `bool` from the byte 0 or 1
        // that `Scalar::to_bytes` wrote is valid.
        p[i] = V::splat(unsafe { params.add(2 * i).cast::<V::Elem>().read() });
    }
    p
}

/// # Safety
/// As for [`Kernel`].
#[inline(always)]
unsafe fn wide<V: Lanes, R: Run<V>>(n: usize, out: *mut u8, ins: *const *const u8, params: *const u64) {
    // SAFETY: the caller's promises: INPUTS pointers valid for n elements, PARAMS parameters.
    unsafe {
        let p = params_of::<V>(params, R::PARAMS);
        let mut from = [*ins; 4];
        for k in 1..R::INPUTS {
            from[k] = *ins.add(k);
        }
        // One evaluation in the loop, short last group included: two would double the code.
        let mut i = 0;
        while i < n {
            let left = n - i;
            let mut x = [p[0]; 4];
            for k in 0..R::INPUTS {
                let at = from[k].cast::<V::Elem>().add(i);
                x[k] = if left >= V::N { V::load(at) } else { V::load_partial(at, left, *at) };
            }
            R::put(&x, &p, out.add(i * R::OUT), left.min(V::N));
            i += V::N;
        }
    }
}

/// Results of one block of [`narrow`]: they go through this buffer so that the compiler sees that
/// they do not overlap the inputs and vectorises also when an op works in place.
const BLOCK: usize = 512;

/// # Safety
/// As for [`Kernel`].
#[inline(always)]
unsafe fn narrow<V: Lanes, R: Run<V>>(n: usize, out: *mut u8, ins: *const *const u8, params: *const u64) {
    let mut buf = std::mem::MaybeUninit::<[u64; BLOCK]>::uninit();
    let b = buf.as_mut_ptr().cast::<u8>();
    let room = (BLOCK * 8 / R::OUT.max(1)).min(BLOCK);
    // SAFETY: the caller's promises: INPUTS pointers valid for n elements, PARAMS parameters; the
    // buffer has BLOCK * 8 bytes, which `room` results fit into.
    unsafe {
        let p = params_of::<V>(params, R::PARAMS);
        let mut from = [*ins; 4];
        for k in 1..R::INPUTS {
            from[k] = *ins.add(k);
        }
        let mut i = 0;
        while i < n {
            let m = room.min(n - i);
            for j in 0..m {
                let mut x = [p[0]; 4];
                for k in 0..R::INPUTS {
                    x[k] = V::load(from[k].cast::<V::Elem>().add(i + j));
                }
                R::put(&x, &p, b.add(j * R::OUT), 1);
            }
            b.copy_to_nonoverlapping(out.add(i * R::OUT), m * R::OUT);
            i += m;
        }
    }
}

/// A module whose `run::<V, R>` is the given loop compiled with the given features.
macro_rules! compiled {
    ($($name:ident $body:ident $($features:literal)?;)*) => { $(
        mod $name {
            use super::*;
            /// # Safety
            /// As for [`Kernel`]; the machine has the features.
            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn run<V: Lanes, R: Run<V>>(
                n: usize, out: *mut u8, ins: *const *const u8, params: *const u64,
            ) {
                // SAFETY: passed on.
                unsafe { $body::<V, R>(n, out, ins, params) }
            }
        }
    )* };
}
compiled! { plain_f32 wide; plain_f64 wide; plain_int narrow; plain_complex narrow; }
#[cfg(target_arch = "x86_64")]
compiled! {
    avx2_f32 wide "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt";
    avx2_f64 wide "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt";
    avx2_int narrow "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt";
    avx2_complex narrow "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt";
    avx512_f32 wide "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt";
    avx512_f64 wide "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt";
}

/// A formula that runs on every float lane type.
macro_rules! float_bound {
    ($name:ident: $($v:ty),*) => {
        trait $name: $(Run<$v> +)* {}
        impl<T: $(Run<$v> +)*> $name for T {}
    };
}
#[cfg(target_arch = "x86_64")]
float_bound!(Floats: S<f32>, S<f64>, F32x8, F32x16, F64x4, F64x8);
#[cfg(not(target_arch = "x86_64"))]
float_bound!(Floats: S<f32>, S<f64>);
float_bound!(Complexes: S<Complex<f32>>, S<Complex<f64>>);
float_bound!(Ints: S<u8>, S<i8>, S<i16>, S<i32>, S<i64>, S<u16>, S<u32>, S<u64>);

fn floats<R: Floats>(d: DType, isa: Isa) -> Option<Kernel> {
    Some(match (d, isa) {
        #[cfg(target_arch = "x86_64")]
        (DType::F32, Isa::Avx512) => avx512_f32::run::<F32x16, R>,
        #[cfg(target_arch = "x86_64")]
        (DType::F64, Isa::Avx512) => avx512_f64::run::<F64x8, R>,
        #[cfg(target_arch = "x86_64")]
        (DType::F32, Isa::Avx2) => avx2_f32::run::<F32x8, R>,
        #[cfg(target_arch = "x86_64")]
        (DType::F64, Isa::Avx2) => avx2_f64::run::<F64x4, R>,
        (DType::F32, _) => plain_f32::run::<S<f32>, R>,
        (DType::F64, _) => plain_f64::run::<S<f64>, R>,
        _ => return None,
    })
}

fn ints<R: Ints>(d: DType, isa: Isa) -> Option<Kernel> {
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Scalar {
        match d {
            DType::U8 => return Some(avx2_int::run::<S<u8>, R>),
            DType::I8 => return Some(avx2_int::run::<S<i8>, R>),
            DType::I16 => return Some(avx2_int::run::<S<i16>, R>),
            DType::I32 => return Some(avx2_int::run::<S<i32>, R>),
            DType::I64 => return Some(avx2_int::run::<S<i64>, R>),
            _ => (),
        }
    }
    let _ = isa;
    Some(match d {
        DType::U8 => plain_int::run::<S<u8>, R>,
        DType::I8 => plain_int::run::<S<i8>, R>,
        DType::I16 => plain_int::run::<S<i16>, R>,
        DType::I32 => plain_int::run::<S<i32>, R>,
        DType::I64 => plain_int::run::<S<i64>, R>,
        DType::U16 => plain_int::run::<S<u16>, R>,
        DType::U32 => plain_int::run::<S<u32>, R>,
        DType::U64 => plain_int::run::<S<u64>, R>,
        _ => return None,
    })
}

fn bools<R: Run<B8>>(d: DType, isa: Isa) -> Option<Kernel> {
    if d != DType::Bool {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Scalar {
        return Some(avx2_int::run::<B8, R>);
    }
    let _ = isa;
    Some(plain_int::run::<B8, R>)
}

fn complexes<R: Complexes>(d: DType, isa: Isa) -> Option<Kernel> {
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Scalar {
        match d {
            DType::C64 => return Some(avx2_complex::run::<S<Complex<f32>>, R>),
            DType::C128 => return Some(avx2_complex::run::<S<Complex<f64>>, R>),
            _ => (),
        }
    }
    let _ = isa;
    Some(match d {
        DType::C64 => plain_complex::run::<S<Complex<f32>>, R>,
        DType::C128 => plain_complex::run::<S<Complex<f64>>, R>,
        _ => return None,
    })
}

/// The dtypes of a row's class.
macro_rules! class {
    (float $r:ty, $d:expr, $i:expr) => {
        floats::<$r>($d, $i)
    };
    (num $r:ty, $d:expr, $i:expr) => {
        floats::<$r>($d, $i).or_else(|| ints::<$r>($d, $i))
    };
    (int $r:ty, $d:expr, $i:expr) => {
        ints::<$r>($d, $i).or_else(|| bools::<$r>($d, $i))
    };
    (any $r:ty, $d:expr, $i:expr) => {
        floats::<$r>($d, $i).or_else(|| ints::<$r>($d, $i)).or_else(|| bools::<$r>($d, $i))
    };
}
/// Rows that call functions of `pyrite-special`: one plain loop per float type, since the call in it
/// takes longer than anything an instruction set could save.
fn rare<R: Run<S<f32>> + Run<S<f64>>>(d: DType) -> Option<Kernel> {
    match d {
        DType::F32 => Some(plain_f32::run::<S<f32>, R>),
        DType::F64 => Some(plain_f64::run::<S<f64>, R>),
        _ => None,
    }
}

macro_rules! forward {
    (float rare same $f:ty, $d:expr, $i:expr) => {
        rare::<Same<$f>>($d)
    };
    ($class:ident real same $f:ty, $d:expr, $i:expr) => {
        class!($class Same<$f>, $d, $i)
    };
    ($class:ident real mask $f:ty, $d:expr, $i:expr) => {
        class!($class Truth<$f>, $d, $i)
    };
    ($class:ident complex same $f:ty, $d:expr, $i:expr) => {
        class!($class Same<$f>, $d, $i).or_else(|| complexes::<Same<$f>>($d, $i))
    };
    ($class:ident complex mask $f:ty, $d:expr, $i:expr) => {
        class!($class Truth<$f>, $d, $i).or_else(|| complexes::<Truth<$f>>($d, $i))
    };
}
macro_rules! gradient {
    (rare $f:ty, $d:expr, $i:expr) => {
        rare::<Same<$f>>($d)
    };
    (real $f:ty, $d:expr, $i:expr) => {
        floats::<Same<$f>>($d, $i)
    };
    (complex $f:ty, $d:expr, $i:expr) => {
        floats::<Same<$f>>($d, $i).or_else(|| complexes::<Conjugate<$f>>($d, $i))
    };
}
macro_rules! kernels {
    ($([$m:ident $id:literal $class:ident $kind:ident $out:ident { $($g:ident $gi:literal)* }])*) => {
        /// The kernel of a row's formula in compute dtype `d`, if there is one.
        pub fn find(row: u16, formula: Formula, d: DType, isa: Isa) -> Option<Kernel> {
            match row {
                $($id => match formula {
                    Formula::Forward => forward!($class $kind $out table::$m::Fwd, d, isa),
                    $(Formula::Grad($gi) => gradient!($kind table::$m::$g, d, isa),)*
                    #[allow(unreachable_patterns)]
                    _ => None,
                },)*
                _ => None,
            }
        }
    };
}
pyrite_core::for_each_row!(kernels);
