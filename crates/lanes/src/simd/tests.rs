//! Lane types against plain Rust: memory, masks, halves, basic operations, on every set.

use super::*;
use pyrite_core::expr::{Field, Int, Mask, Num, Ring};

fn all() -> Vec<Isa> {
    [Isa::Scalar, Isa::Avx2, Isa::Avx512].into_iter().filter(|i| *i <= detect()).collect()
}

struct Memory;
impl ArchKernel for Memory {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        memory::<A::F32>(|k| k as f32 + 0.5);
        memory::<A::F64>(|k| k as f64 + 0.5);
        memory::<S<i32>>(|k| k as i32);
    }
}

#[inline(always)]
fn memory<V: Lanes>(f: fn(usize) -> V::Elem)
where
    V::Elem: PartialEq + std::fmt::Debug,
{
    let src: Vec<V::Elem> = (0..V::N + 1).map(f).collect();
    for n in 0..=V::N {
        let mut out = vec![f(90); V::N + 2];
        // SAFETY: all slices are longer than N.
        unsafe {
            let v = V::load_partial(src.as_ptr(), n, f(50));
            v.store(out.as_mut_ptr().add(1));
            for k in 0..V::N {
                assert_eq!(out[k + 1], if k < n { f(k) } else { f(50) });
                assert_eq!(v.extract(k), out[k + 1]);
            }
            let mut out = vec![f(90); V::N + 1];
            V::load(src.as_ptr()).store_partial(out.as_mut_ptr(), n);
            for k in 0..=V::N {
                assert_eq!(out[k], if k < n { f(k) } else { f(90) });
            }
            for pattern in [0u32, 1, 0xffff, 0x5555, 0x8421, 0x1234] {
                let bits: Vec<u8> =
                    (0..V::N).map(|k| if pattern >> k & 1 == 1 { 1 + k as u8 * 7 } else { 0 }).collect();
                let m = V::load_mask(bits.as_ptr(), n);
                let mut back = vec![9u8; V::N + 1];
                V::store_mask(m, back.as_mut_ptr(), n);
                for k in 0..n {
                    assert_eq!(back[k], (bits[k] != 0) as u8);
                }
                assert_eq!(back[n], 9);
                assert_eq!(m.any(), bits[..n].iter().any(|b| *b != 0));
                let z = V::select(m, V::splat(f(1)), V::splat(f(2)));
                for k in 0..V::N {
                    assert_eq!(z.extract(k), f(if k < n && bits[k] != 0 { 1 } else { 2 }));
                }
            }
        }
    }
}

#[test]
fn memory_and_masks() {
    for isa in all() {
        dispatch_on(isa, Memory);
    }
}

/// One binary and one unary value table, computed by the chosen set through partial loads.
struct Two<F> {
    a: Vec<f32>,
    b: Vec<f32>,
    f: F,
}
trait Op2 {
    fn op<V: FloatLanes>(a: V, b: V) -> V;
}
impl<F: Op2> ArchKernel for Two<F> {
    type Out = (Vec<f32>, Vec<f64>);
    #[inline(always)]
    fn run<A: Arch>(self) -> Self::Out {
        let _ = &self.f;
        let b64: Vec<f64> = self.b.iter().map(|v| *v as f64).collect();
        let a64: Vec<f64> = self.a.iter().map(|v| *v as f64).collect();
        (each2::<A::F32, F>(&self.a, &self.b), each2::<A::F64, F>(&a64, &b64))
    }
}
#[inline(always)]
fn each2<V: FloatLanes, F: Op2>(a: &[V::Elem], b: &[V::Elem]) -> Vec<V::Elem> {
    let mut out = a.to_vec();
    let mut i = 0;
    while i < a.len() {
        let k = V::N.min(a.len() - i);
        // SAFETY: k elements are left from i on.
        unsafe {
            let x = V::load_partial(a.as_ptr().add(i), k, a[0]);
            let y = V::load_partial(b.as_ptr().add(i), k, a[0]);
            F::op(x, y).store_partial(out.as_mut_ptr().add(i), k);
        }
        i += k;
    }
    out
}

const VALUES: [f32; 24] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.0,
    -7.0,
    1e-40,
    -1e-40,
    1e10,
    -1e10,
    3.4e38,
    1e-38,
    7.25,
    0.1,
    -0.3,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    8388609.0,
];

fn check<F: Op2 + Copy>(f: F, want32: fn(f32, f32) -> f32, want64: fn(f64, f64) -> f64) {
    let (mut a, mut b) = (vec![], vec![]);
    for x in VALUES {
        for y in VALUES {
            a.push(x);
            b.push(y);
        }
    }
    for isa in all() {
        let (r32, r64) = dispatch_on(isa, Two { a: a.clone(), b: b.clone(), f });
        for k in 0..a.len() {
            let (x, y) = (a[k], b[k]);
            let w = want32(x, y);
            assert!(
                w.to_bits() == r32[k].to_bits() || w.is_nan() && r32[k].is_nan(),
                "{isa:?} {} f32 {x:e} {y:e}: {:e}, want {w:e}",
                std::any::type_name::<F>(),
                r32[k]
            );
            let w = want64(x as f64, y as f64);
            assert!(
                w.to_bits() == r64[k].to_bits() || w.is_nan() && r64[k].is_nan(),
                "{isa:?} {} f64 {x:e} {y:e}: {:e}, want {w:e}",
                std::any::type_name::<F>(),
                r64[k]
            );
        }
    }
}

macro_rules! case {
    ($test:ident, $op:expr, $w32:expr, $w64:expr) => {
        #[test]
        fn $test() {
            #[derive(Clone, Copy)]
            struct $test;
            impl Op2 for $test {
                #[inline(always)]
                fn op<V: FloatLanes>(a: V, b: V) -> V {
                    let f: fn(V, V) -> V = $op;
                    f(a, b)
                }
            }
            check($test, $w32, $w64);
        }
    };
}

macro_rules! max_of {
    () => {
        |a, b| {
            if a.is_nan() || b.is_nan() {
                a + b
            } else if a > b {
                a
            } else {
                b
            }
        }
    };
}
macro_rules! min_of {
    () => {
        |a, b| {
            if a.is_nan() || b.is_nan() {
                a + b
            } else if a < b {
                a
            } else {
                b
            }
        }
    };
}
macro_rules! py_mod {
    () => {
        |a, b| {
            let m = a % b;
            if m != 0.0 && (m < 0.0) != (b < 0.0) { m + b } else { m }
        }
    };
}
#[allow(non_camel_case_types)]
mod cases {
    use super::*;
    case!(fmod, |a, b| Num::fmod(a, b), |a, b| a % b, |a, b| a % b);
    case!(remainder, |a, b| Num::remainder(a, b), py_mod!(), py_mod!());
    case!(maximum, |a, b| Num::maximum(a, b), max_of!(), max_of!());
    case!(minimum, |a, b| Num::minimum(a, b), min_of!(), min_of!());
    case!(floor, |a, _| Float::floor(a), |a, _| a.floor(), |a, _| a.floor());
    case!(ceil, |a, _| Float::ceil(a), |a, _| a.ceil(), |a, _| a.ceil());
    case!(trunc, |a, _| Float::trunc(a), |a, _| a.trunc(), |a, _| a.trunc());
    case!(round, |a, _| Float::round(a), |a, _| a.round_ties_even(), |a, _| a.round_ties_even());
    case!(neg, |a, _| -a, |a, _| -a, |a, _| -a);
    case!(abs, |a, _| Ring::abs(a), |a, _| a.abs(), |a, _| a.abs());
    case!(sqrt, |a, _| Field::sqrt(a), |a, _| a.sqrt(), |a, _| a.sqrt());
    case!(copysign, |a, b| Float::copysign(a, b), |a, b| a.copysign(b), |a, b| a.copysign(b));
    case!(signbit, |a, b| V_select(a, b), |a, b| if a.is_sign_negative() { b } else { a }, |a, b| if a
        .is_sign_negative()
    {
        b
    } else {
        a
    });
    #[allow(non_snake_case)]
    #[inline(always)]
    fn V_select<V: FloatLanes>(a: V, b: V) -> V {
        V::select(a.signbit(), b, a)
    }
}

struct Halves(Vec<f32>);
impl ArchKernel for Halves {
    type Out = (Vec<u16>, Vec<u16>);
    #[inline(always)]
    fn run<A: Arch>(self) -> Self::Out {
        let n = self.0.len();
        assert!(n.is_multiple_of(A::F32::N));
        let (mut h, mut b) = (vec![0u16; n], vec![0u16; n]);
        for i in (0..n).step_by(A::F32::N) {
            // SAFETY: n is a multiple of N.
            unsafe {
                let v = A::F32::load(self.0.as_ptr().add(i));
                v.store_f16(h.as_mut_ptr().add(i));
                v.store_bf16(b.as_mut_ptr().add(i));
                let (lo, hi) = (v.widen(0), v.widen(A::F32::PARTS - 1));
                let back = A::F32::narrow(lo, hi);
                for k in 0..A::F32::N {
                    assert_eq!(back.extract(k).to_bits(), v.extract(k).to_bits());
                }
                let (h, b) = (A::F32::load_f16(h.as_ptr().add(i)), A::F32::load_bf16(b.as_ptr().add(i)));
                for k in 0..A::F32::N {
                    let x = v.extract(k);
                    assert_eq!(h.extract(k).to_bits(), half::f16::from_f32(x).to_f32().to_bits());
                    assert_eq!(b.extract(k).to_bits(), half::bf16::from_f32(x).to_f32().to_bits());
                }
            }
        }
        (h, b)
    }
}

#[test]
fn halves() {
    // Quiet NaNs only: f32 -> f64 -> f32 quiets the others.
    let x: Vec<f32> = (0..1u64 << 16)
        .map(|k| f32::from_bits((k * 65539) as u32))
        .map(|v| if v.is_nan() { f32::NAN } else { v })
        .collect();
    for isa in all() {
        let (h, b) = dispatch_on(isa, Halves(x.clone()));
        for (k, v) in x.iter().enumerate() {
            assert_eq!(h[k], half::f16::from_f32(*v).to_bits(), "{isa:?} f16 {v:e}");
            assert_eq!(b[k], half::bf16::from_f32(*v).to_bits(), "{isa:?} bf16 {v:e}");
        }
    }
}

struct Reduce;
impl ArchKernel for Reduce {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let mut x: Vec<f32> = (0..A::F32::N).map(|k| (k as f32 - 3.0) * 0.5).collect();
        // SAFETY: x has N elements.
        let v = unsafe { A::F32::load(x.as_ptr()) };
        assert_eq!(v.reduce_add(), x.iter().sum::<f32>());
        assert_eq!(v.reduce_max(), x[A::F32::N - 1]);
        assert_eq!(v.reduce_min(), x[0]);
        x[A::F32::N / 2] = f32::NAN;
        // SAFETY: x has N elements.
        let v = unsafe { A::F32::load(x.as_ptr()) };
        assert!(v.reduce_max().is_nan() && v.reduce_min().is_nan());
    }
}

#[test]
fn reductions() {
    for isa in all() {
        dispatch_on(isa, Reduce);
    }
}

#[test]
fn integers() {
    let i = |v: i32| S(v);
    assert_eq!(S(i32::MAX) + i(1), S(i32::MIN));
    assert_eq!(Num::floor_div(i(-7), i(2)), i(-4));
    assert_eq!(Num::trunc_div(i(-7), i(2)), i(-3));
    assert_eq!(Num::remainder(i(-7), i(2)), i(1));
    assert_eq!(Num::fmod(i(-7), i(2)), i(-1));
    assert_eq!(Num::floor_div(i(i32::MIN), i(-1)), i(i32::MIN));
    assert_eq!(Num::floor_div(i(3), i(0)), i(0));
    assert_eq!(Ring::pow(i(3), i(5)), i(243));
    assert_eq!(Ring::pow(i(-1), i(-3)), i(-1));
    assert_eq!(Ring::pow(i(2), i(-1)), i(0));
    assert_eq!(Ring::pow(S(3u8), S(6u8)), S(217));
    assert_eq!(Int::shl(i(1), i(31)), i(i32::MIN));
    assert_eq!(Int::shl(i(1), i(32)), i(0));
    assert_eq!(Int::shl(S(1i8), S(9i8)), S(0));
    assert_eq!(Int::shr(i(-8), i(1)), i(-4));
    assert_eq!(Int::shr(i(-8), i(40)), i(-1));
    assert_eq!(Int::shr(S(200u8), S(9u8)), S(0));
    assert_eq!(Int::gcd(i(-12), i(18)), i(6));
    assert_eq!(S::<u8>::lit(-1.0), S(255));
    assert_eq!(S::<u64>::lit(-1.0), S(u64::MAX));
}

/// Integer loops as the compiler vectorises them. Not a check: `-- --ignored --nocapture integer_speed`.
#[test]
#[ignore = "prints timings"]
fn integer_speed() {
    struct Map<'a, V: Lanes, F>(&'a [V::Elem], &'a [V::Elem], &'a mut [V::Elem], F);
    trait Op {
        fn op<V: Lanes + Ops>(a: V, b: V) -> V;
    }
    trait Ops: Any {
        fn add(a: Self, b: Self) -> Self;
        fn mul(a: Self, b: Self) -> Self;
        fn max(a: Self, b: Self) -> Self;
    }
    macro_rules! ops {
        ($($t:ty)*) => { $(
            impl Ops for S<$t> {
                #[inline(always)]
                fn add(a: Self, b: Self) -> Self { a + b }
                #[inline(always)]
                fn mul(a: Self, b: Self) -> Self { a * b }
                #[inline(always)]
                fn max(a: Self, b: Self) -> Self { Num::maximum(a, b) }
            }
        )* };
    }
    ops!(u8 i16 i32 i64);
    impl Ops for B8 {
        #[inline(always)]
        fn add(a: Self, b: Self) -> Self {
            a | b
        }
        #[inline(always)]
        fn mul(a: Self, b: Self) -> Self {
            a & b
        }
        #[inline(always)]
        fn max(a: Self, b: Self) -> Self {
            a ^ b
        }
    }
    impl<V: Lanes + Ops, F: Op> ArchKernel for Map<'_, V, F> {
        type Out = ();
        #[inline(always)]
        fn run<A: Arch>(self) {
            let n = self.0.len();
            assert!(self.1.len() == n && self.2.len() == n);
            for i in 0..n {
                // SAFETY: one lane, i < n.
                unsafe {
                    F::op(V::load(self.0.as_ptr().add(i)), V::load(self.1.as_ptr().add(i)))
                        .store(self.2.as_mut_ptr().add(i))
                };
            }
        }
    }
    struct Less<'a, V: Lanes>(&'a [V::Elem], &'a [V::Elem], &'a mut [u8]);
    impl<V: Lanes> ArchKernel for Less<'_, V> {
        type Out = ();
        #[inline(always)]
        fn run<A: Arch>(self) {
            let n = self.0.len();
            assert!(self.1.len() == n && self.2.len() == n);
            for i in 0..n {
                // SAFETY: one lane, i < n.
                unsafe {
                    let m = V::lt(V::load(self.0.as_ptr().add(i)), V::load(self.1.as_ptr().add(i)));
                    V::store_mask(m, self.2.as_mut_ptr().add(i), 1);
                }
            }
        }
    }
    macro_rules! op {
        ($n:ident) => {{
            struct O;
            impl Op for O {
                #[inline(always)]
                fn op<V: Lanes + Ops>(a: V, b: V) -> V {
                    V::$n(a, b)
                }
            }
            O
        }};
    }
    fn least(mut f: impl FnMut()) -> f64 {
        (0..30)
            .map(|_| {
                let t = std::time::Instant::now();
                for _ in 0..10 {
                    f()
                }
                t.elapsed().as_nanos() as f64 / 40960.0
            })
            .fold(f64::MAX, f64::min)
    }
    macro_rules! time {
        ($v:ty, $e:ty, $f:expr) => {
            let a: Vec<$e> = (0..4096usize).map($f).collect();
            let b: Vec<$e> = (0..4096usize).map(|k| k * 7 % 101).map($f).collect();
            let mut o = a.clone();
            let mut m = vec![0u8; 4096];
            for isa in all() {
                println!("{:6} {isa:?}: add {:.3} mul {:.3} max {:.3} lt {:.3}", stringify!($e),
                    least(|| dispatch_on(isa, Map::<$v, _>(&a, &b, &mut o, op!(add)))),
                    least(|| dispatch_on(isa, Map::<$v, _>(&a, &b, &mut o, op!(mul)))),
                    least(|| dispatch_on(isa, Map::<$v, _>(&a, &b, &mut o, op!(max)))),
                    least(|| dispatch_on(isa, Less::<$v>(&a, &b, &mut m))));
            }
        };
    }
    time!(S<u8>, u8, |k| k as u8);
    time!(S<i16>, i16, |k| k as i16);
    time!(S<i32>, i32, |k| k as i32);
    time!(S<i64>, i64, |k| k as i64);
    time!(B8, bool, |k| k % 3 == 0);
}
