//! The compiled reductions: for every row of the reduction table, dtype and instruction set one
//! function with the loops that the strategies in `reduce` are made of.

#[cfg(target_arch = "x86_64")]
use crate::simd::{F32x8, F32x16, F64x4, F64x8};
use crate::simd::{Isa, Lanes, S};
use pyrite_core::DType;
use pyrite_core::dtype::Complex;
use pyrite_core::rows::{Reduce, reductions};

/// What a kernel shall do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// `acc[..n]` = the reduction of nothing.
    Start,
    /// `acc[0]` = the reduction of `src[..n]`.
    Row,
    /// `acc[i]` takes in `src[r * stride + i]` for `rows` rows in order (stride in bytes).
    Cols,
    /// `acc[i]` = `acc[i]` combined with the partial result `src[i]`.
    Merge,
    /// `acc[i]` becomes the result; `rows` is the number of reduced elements.
    Finish,
}

/// See [`What`].
///
/// # Safety
/// `acc` and `src` are valid for what is asked and don't overlap; `params` holds 4 parameters in the
/// compute dtype, 16 bytes apart.
pub type Kernel = unsafe fn(
    what: What,
    n: usize,
    acc: *mut u8,
    src: *const u8,
    rows: usize,
    stride: isize,
    params: *const u64,
);

/// Columns of integers between two rounds of prefetches.
const STRETCH: usize = 128;

static ONES: [u8; 64] = [1; 64];

/// Asks for the line of memory at `p`, which need not exist.
#[inline(always)]
fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults; the instruction is part of every x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast())
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Lanes `H..2 * H` onto the lanes below them.
#[inline(always)]
fn fold<V: Lanes, R: Reduce<S<V::Elem>>, const H: usize>(lanes: &mut [S<V::Elem>; 16], p: &[S<V::Elem>; 4])
where
    S<V::Elem>: Lanes,
{
    for i in 0..H {
        lanes[i] = R::combine(lanes[i], lanes[i + H], p);
    }
}

/// # Safety
/// As for [`Kernel`].
#[inline(always)]
unsafe fn body<V: Lanes, R: Reduce<V> + Reduce<S<V::Elem>>>(
    what: What,
    n: usize,
    acc: *mut u8,
    src: *const u8,
    rows: usize,
    stride: isize,
    params: *const u64,
) where
    S<V::Elem>: Lanes<Elem = V::Elem>,
{
    let (a, s) = (acc.cast::<V::Elem>(), src.cast::<V::Elem>());
    let w = V::N;
    // SAFETY: the caller's promises; every loop stays below n, tails are partial loads and stores.
    unsafe {
        let mut p = [V::lit(0.0); 4];
        for i in 0..4 {
            p[i] = V::splat(params.add(2 * i).cast::<V::Elem>().read());
        }
        let start = <R as Reduce<V>>::start(&p);
        match what {
            What::Start => {
                let mut i = 0;
                while i < n {
                    start.store_partial(a.add(i), w.min(n - i));
                    i += w;
                }
            }
            What::Row => {
                let mut t = start;
                let mut i = 0;
                if V::CHAINS {
                    // Several chains, because one addition takes longer than one load.
                    let (mut t1, mut t2, mut t3) = (start, start, start);
                    while i + 4 * w <= n {
                        t = R::combine(t, R::map(V::load(s.add(i)), &p), &p);
                        t1 = R::combine(t1, R::map(V::load(s.add(i + w)), &p), &p);
                        t2 = R::combine(t2, R::map(V::load(s.add(i + 2 * w)), &p), &p);
                        t3 = R::combine(t3, R::map(V::load(s.add(i + 3 * w)), &p), &p);
                        i += 4 * w;
                    }
                    t = R::combine(R::combine(t, t1, &p), R::combine(t2, t3, &p), &p);
                }
                while i + w <= n {
                    t = R::combine(t, R::map(V::load(s.add(i)), &p), &p);
                    i += w;
                }
                if i < n {
                    let left = n - i;
                    let x = R::map(V::load_partial(s.add(i), left, *s.add(i)), &p);
                    let x = V::select(V::load_mask(ONES.as_ptr(), left), x, start);
                    t = R::combine(t, x, &p);
                }
                // Fold the upper half of the lanes onto the lower: one by one, because a vector load of
                // half a vector just stored would wait for the store to leave the pipeline.
                if w > 1 {
                    let mut q = [S::splat(params.cast::<V::Elem>().read()); 4];
                    for i in 0..4 {
                        q[i] = S::splat(params.add(2 * i).cast::<V::Elem>().read());
                    }
                    let mut lanes = [S::splat(t.extract(0)); 16];
                    t.store(lanes.as_mut_ptr().cast());
                    if w == 16 {
                        fold::<V, R, 8>(&mut lanes, &q);
                    }
                    if w >= 8 {
                        fold::<V, R, 4>(&mut lanes, &q);
                    }
                    if w >= 4 {
                        fold::<V, R, 2>(&mut lanes, &q);
                    }
                    fold::<V, R, 1>(&mut lanes, &q);
                    return a.write_unaligned(lanes[0].extract(0));
                }
                a.write_unaligned(t.extract(0));
            }
            // One lane of integers: loops over columns, which the compiler makes vectors of.
            What::Cols if w == 1 && !V::CHAINS => {
                let mut r = 0;
                while r + 4 <= rows {
                    let row = |k: usize| s.wrapping_byte_offset((r + k) as isize * stride);
                    let (s0, s1, s2, s3) = (row(0), row(1), row(2), row(3));
                    let mut c = 0;
                    while c < n {
                        let end = n.min(c + STRETCH);
                        for k in 4..8 {
                            let mut b = c * size_of::<V::Elem>();
                            while b < end * size_of::<V::Elem>() {
                                prefetch(row(k).wrapping_byte_add(b));
                                b += 64;
                            }
                        }
                        for i in c..end {
                            let (x0, x1) = (V::load(s0.add(i)), V::load(s1.add(i)));
                            let (x2, x3) = (V::load(s2.add(i)), V::load(s3.add(i)));
                            let t = R::combine(V::load(a.add(i)), R::map(x0, &p), &p);
                            let t = R::combine(R::combine(t, R::map(x1, &p), &p), R::map(x2, &p), &p);
                            R::combine(t, R::map(x3, &p), &p).store(a.add(i));
                        }
                        c = end;
                    }
                    r += 4;
                }
                for r in r..rows {
                    let row = s.byte_offset(r as isize * stride);
                    for i in 0..n {
                        R::combine(V::load(a.add(i)), R::map(V::load(row.add(i)), &p), &p).store(a.add(i));
                    }
                }
            }
            What::Cols => {
                let mut i = 0;
                while i < n {
                    let m = w.min(n - i);
                    let full = m == w;
                    let mut t =
                        if full { V::load(a.add(i)) } else { V::load_partial(a.add(i), m, *a.add(i)) };
                    for r in 0..rows {
                        let at = s.byte_offset(r as isize * stride).add(i);
                        // The next rows, which the machine does not guess: each is a stream of its own.
                        prefetch(at.wrapping_byte_offset(rows as isize * stride));
                        let x = if full { V::load(at) } else { V::load_partial(at, m, *at) };
                        t = R::combine(t, R::map(x, &p), &p);
                    }
                    if full {
                        t.store(a.add(i))
                    } else {
                        t.store_partial(a.add(i), m)
                    }
                    i += w;
                }
            }
            What::Merge => {
                let mut i = 0;
                while i < n {
                    let m = w.min(n - i);
                    let x = V::load_partial(s.add(i), m, *s.add(i));
                    let t = V::load_partial(a.add(i), m, *a.add(i));
                    R::combine(t, x, &p).store_partial(a.add(i), m);
                    i += w;
                }
            }
            What::Finish => {
                let count = V::lit(rows as f64);
                let mut i = 0;
                while i < n {
                    let m = w.min(n - i);
                    let t = V::load_partial(a.add(i), m, *a.add(i));
                    R::finish(t, count, &p).store_partial(a.add(i), m);
                    i += w;
                }
            }
        }
    }
}

macro_rules! compiled {
    ($($name:ident $($features:literal)?;)*) => { $(
        /// # Safety
        /// As for [`Kernel`]; the machine has the features.
        $(#[target_feature(enable = $features)])?
        unsafe fn $name<V: Lanes, R: Reduce<V> + Reduce<S<V::Elem>>>(
            what: What, n: usize, acc: *mut u8, src: *const u8, rows: usize, stride: isize, params: *const u64,
        )
        where
            S<V::Elem>: Lanes<Elem = V::Elem>,
        {
            // SAFETY: passed on.
            unsafe { body::<V, R>(what, n, acc, src, rows, stride, params) }
        }
    )* };
}
compiled! { plain; }
#[cfg(target_arch = "x86_64")]
compiled! {
    avx2 "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt";
    avx512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt";
}

macro_rules! bound {
    ($name:ident: $($v:ty),*) => {
        trait $name: $(Reduce<$v> +)* {}
        impl<T: $(Reduce<$v> +)*> $name for T {}
    };
}
#[cfg(target_arch = "x86_64")]
bound!(Floats: S<f32>, S<f64>, F32x8, F32x16, F64x4, F64x8);
#[cfg(not(target_arch = "x86_64"))]
bound!(Floats: S<f32>, S<f64>);
bound!(Complexes: S<Complex<f32>>, S<Complex<f64>>);
bound!(Ints: S<u8>, S<i8>, S<i16>, S<i32>, S<i64>, S<u16>, S<u32>, S<u64>);

fn floats<R: Floats>(d: DType, isa: Isa) -> Option<Kernel> {
    Some(match (d, isa) {
        #[cfg(target_arch = "x86_64")]
        (DType::F32, Isa::Avx512) => avx512::<F32x16, R>,
        #[cfg(target_arch = "x86_64")]
        (DType::F64, Isa::Avx512) => avx512::<F64x8, R>,
        #[cfg(target_arch = "x86_64")]
        (DType::F32, Isa::Avx2) => avx2::<F32x8, R>,
        #[cfg(target_arch = "x86_64")]
        (DType::F64, Isa::Avx2) => avx2::<F64x4, R>,
        (DType::F32, _) => plain::<S<f32>, R>,
        (DType::F64, _) => plain::<S<f64>, R>,
        _ => return None,
    })
}

fn ints<R: Ints>(d: DType, isa: Isa) -> Option<Kernel> {
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Scalar {
        return Some(match d {
            DType::U8 => avx2::<S<u8>, R>,
            DType::I8 => avx2::<S<i8>, R>,
            DType::I16 => avx2::<S<i16>, R>,
            DType::I32 => avx2::<S<i32>, R>,
            DType::I64 => avx2::<S<i64>, R>,
            DType::U16 => avx2::<S<u16>, R>,
            DType::U32 => avx2::<S<u32>, R>,
            DType::U64 => avx2::<S<u64>, R>,
            _ => return None,
        });
    }
    let _ = isa;
    Some(match d {
        DType::U8 => plain::<S<u8>, R>,
        DType::I8 => plain::<S<i8>, R>,
        DType::I16 => plain::<S<i16>, R>,
        DType::I32 => plain::<S<i32>, R>,
        DType::I64 => plain::<S<i64>, R>,
        DType::U16 => plain::<S<u16>, R>,
        DType::U32 => plain::<S<u32>, R>,
        DType::U64 => plain::<S<u64>, R>,
        _ => return None,
    })
}

fn complexes<R: Complexes>(d: DType, isa: Isa) -> Option<Kernel> {
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Scalar {
        return Some(match d {
            DType::C64 => avx2::<S<Complex<f32>>, R>,
            DType::C128 => avx2::<S<Complex<f64>>, R>,
            _ => return None,
        });
    }
    let _ = isa;
    Some(match d {
        DType::C64 => plain::<S<Complex<f32>>, R>,
        DType::C128 => plain::<S<Complex<f64>>, R>,
        _ => return None,
    })
}

macro_rules! class {
    (float real $r:ty, $d:expr, $i:expr) => {
        floats::<$r>($d, $i)
    };
    (num real $r:ty, $d:expr, $i:expr) => {
        floats::<$r>($d, $i).or_else(|| ints::<$r>($d, $i))
    };
    ($class:ident complex $r:ty, $d:expr, $i:expr) => {
        class!($class real $r, $d, $i).or_else(|| complexes::<$r>($d, $i))
    };
}
macro_rules! kernels {
    ($([$m:ident $id:literal $class:ident $kind:ident])*) => {
        /// The kernel of a reduction in compute dtype `d`, if there is one.
        pub fn find(row: u16, d: DType, isa: Isa) -> Option<Kernel> {
            match row {
                $($id => class!($class $kind reductions::$m::R, d, isa),)*
                _ => None,
            }
        }
    };
}
pyrite_core::for_each_reduction!(kernels);
