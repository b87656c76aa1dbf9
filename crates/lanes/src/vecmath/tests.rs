//! Measured accuracy of every function on every instruction set this machine has.
//!
//! f32: a strided walk over all bit patterns against f64. f64: against the C library and `libm`
//! (themselves within one ulp). `PYRITE_ULP_TABLE=file` writes the table that is `docs/ulp.md`.

use super::scalar as reference;
use crate::simd::{Arch, ArchKernel, FloatLanes, Isa, detect, dispatch_on};
use pyrite_core::expr::{Float, Ring};

trait F1 {
    fn f<V: FloatLanes>(x: V) -> V;
}
trait F2 {
    fn f<V: FloatLanes>(a: V, b: V) -> V;
}

struct Map32<'a, F>(&'a [f32], &'a mut [f32], F);
impl<F: F1> ArchKernel for Map32<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let _ = self.2;
        map::<A::F32, F>(self.0, self.1)
    }
}
struct Map64<'a, F>(&'a [f64], &'a mut [f64], F);
impl<F: F1> ArchKernel for Map64<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let _ = self.2;
        map::<A::F64, F>(self.0, self.1)
    }
}
#[inline(always)]
fn map<V: FloatLanes, F: F1>(x: &[V::Elem], out: &mut [V::Elem]) {
    assert_eq!(x.len(), out.len());
    let mut i = 0;
    while i + V::N <= x.len() {
        // SAFETY: N elements are left from i on in both.
        unsafe { F::f(V::load(x.as_ptr().add(i))).store(out.as_mut_ptr().add(i)) };
        i += V::N;
    }
    if i < x.len() {
        let k = V::N.min(x.len() - i);
        // SAFETY: k elements are left from i on in both.
        unsafe {
            let v = V::load_partial(x.as_ptr().add(i), k, x[0]);
            F::f(v).store_partial(out.as_mut_ptr().add(i), k);
        }
    }
}
struct Map2_32<'a, F>(&'a [f32], &'a [f32], &'a mut [f32], F);
impl<F: F2> ArchKernel for Map2_32<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let _ = self.3;
        map2::<A::F32, F>(self.0, self.1, self.2)
    }
}
struct Map2_64<'a, F>(&'a [f64], &'a [f64], &'a mut [f64], F);
impl<F: F2> ArchKernel for Map2_64<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let _ = self.3;
        map2::<A::F64, F>(self.0, self.1, self.2)
    }
}
#[inline(always)]
fn map2<V: FloatLanes, F: F2>(a: &[V::Elem], b: &[V::Elem], out: &mut [V::Elem]) {
    let mut i = 0;
    while i < a.len() {
        let k = V::N.min(a.len() - i);
        // SAFETY: k elements are left from i on in all three.
        unsafe {
            let x = V::load_partial(a.as_ptr().add(i), k, a[0]);
            let y = V::load_partial(b.as_ptr().add(i), k, b[0]);
            F::f(x, y).store_partial(out.as_mut_ptr().add(i), k);
        }
        i += k;
    }
}

/// The distance in units of the last place of f32 at the exact value `want`.
fn ulp32(got: f32, want: f64) -> f64 {
    let near = want as f32;
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got == near {
        // Signs of zeros are part of the answer where the exact value is a zero.
        let zero_sign = want == 0.0 && got.is_sign_negative() != want.is_sign_negative();
        if zero_sign {
            return f64::INFINITY;
        }
        if got.is_infinite() {
            return 0.0;
        }
    }
    if got.is_infinite() {
        // One step past the greatest number.
        return if want.abs() > 3.4028234e38 && got.signum() as f64 == want.signum() {
            1.0
        } else {
            f64::INFINITY
        };
    }
    if near.is_infinite() {
        return if got.abs() == f32::MAX { 1.0 } else { f64::INFINITY };
    }
    let e = (near.abs().to_bits() >> 23).max(1) as i32 - 150;
    (got as f64 - want).abs() / 2f64.powi(e)
}

/// The distance of two doubles in steps.
fn steps64(got: f64, want: f64) -> f64 {
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if want == 0.0 && got == 0.0 {
        return if got.is_sign_negative() == want.is_sign_negative() { 0.0 } else { f64::INFINITY };
    }
    let key = |v: f64| {
        let b = v.to_bits() as i64;
        if b < 0 { i64::MIN.wrapping_sub(b) } else { b }
    };
    (key(got) as i128 - key(want) as i128).abs() as f64
}

fn sets() -> Vec<Isa> {
    [Isa::Scalar, Isa::Avx2, Isa::Avx512].into_iter().filter(|i| *i <= detect()).collect()
}

fn walk32(stride: u64) -> Vec<f32> {
    let mut x: Vec<f32> = (0..(1u64 << 32) / stride).map(|k| f32::from_bits((k * stride) as u32)).collect();
    x.extend(edges().iter().map(|v| *v as f32));
    x
}

fn edges() -> Vec<f64> {
    let mut e = vec![
        0.0,
        1.0,
        0.5,
        2.0,
        1e-300,
        5e-324,
        1e-40,
        1.4e-45,
        1e300,
        1e38,
        3.4028235e38,
        f64::MAX,
        f64::INFINITY,
        f64::NAN,
        88.72283,
        88.72284,
        87.33655,
        103.97207,
        103.97209,
        104.5,
        709.782712893384,
        709.7827128933841,
        745.1332191019411,
        745.1332191019412,
        127.99999,
        128.0,
        149.0,
        150.0,
        1023.9999999999999,
        1024.0,
        1074.0,
        1075.0,
        1e5,
        100001.0,
        std::f64::consts::PI,
        std::f64::consts::FRAC_PI_2,
        std::f64::consts::E,
        0.75,
        1.5,
        0.9999999,
        1.0000001,
        0.9999999999999999,
        1.0000000000000002,
        1.4616321449683623,
        3.0,
        10.0,
        26.5,
        27.2,
        20.0,
        22.0,
        40.0,
        9.0,
    ];
    // Next to the zeros of the circular functions.
    e.extend(
        [3, 4, 7, 22, 355, 710, 1001, 5040, 11111, 17762, 22679, 60000]
            .map(|k| k as f64 * std::f64::consts::FRAC_PI_2),
    );
    for k in 0..e.len() {
        e.push(-e[k]);
    }
    e
}

/// Doubles of all magnitudes, more of them where functions happen.
fn walk64(n: usize) -> Vec<f64> {
    let mut x = edges();
    let mut s = 0x9e3779b97f4a7c15u64;
    let mut next = move || {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        s
    };
    for k in 0..n {
        let r = next();
        let unit = (r >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0;
        x.push(match k % 8 {
            0 => f64::from_bits(r),
            1 => unit,
            2 => unit * 10.0,
            3 => unit * 40.0,
            4 => unit * 1000.0,
            5 => unit * 1e-4,
            6 => 1.0 + unit * 0.01,
            _ => unit * 1e6,
        });
    }
    x
}

fn worst(e: f64, at: impl std::fmt::Debug, max: &mut (f64, String)) {
    if e > max.0 {
        *max = (e, format!("{at:?}"));
    }
}

struct Row {
    name: &'static str,
    isa: Isa,
    f32_ulp: f64,
    f64_steps: f64,
    at: String,
    bad: bool,
}

fn unary<F: F1 + Copy>(
    rows: &mut Vec<Row>,
    name: &'static str,
    f: F,
    want: fn(f64) -> f64,
    stride: u64,
    limit: (f64, f64),
) {
    let (x, y) = (walk32(stride), walk64(40_000));
    let exact: Vec<f64> = x.iter().map(|v| want(*v as f64)).collect();
    let (mut out, mut out64) = (vec![0f32; x.len()], vec![0f64; y.len()]);
    for isa in sets() {
        dispatch_on(isa, Map32(&x, &mut out, f));
        let (mut e32, mut e64) = ((0.0, String::new()), (0.0, String::new()));
        for k in 0..x.len() {
            worst(ulp32(out[k], exact[k]), (x[k], out[k], exact[k]), &mut e32);
        }
        dispatch_on(isa, Map64(&y, &mut out64, f));
        for k in 0..y.len() {
            worst(steps64(out64[k], want(y[k])), (y[k], out64[k], want(y[k])), &mut e64);
        }
        // Every position gives the same: the walk again, one element later.
        let mut again = vec![0f32; 1000];
        let from = x.len() / 3;
        dispatch_on(isa, Map32(&x[from + 1..from + 1001], &mut again, f));
        for k in 0..999 {
            assert_eq!(
                again[k].to_bits(),
                out[from + 1 + k].to_bits(),
                "{name} {isa:?} depends on the position"
            );
        }
        let bad = e32.0 > limit.0 || e64.0 > limit.1;
        rows.push(Row {
            name,
            isa,
            f32_ulp: e32.0,
            f64_steps: e64.0,
            at: format!("{} {}", e32.1, e64.1),
            bad,
        });
    }
}

fn binary<F: F2 + Copy>(
    rows: &mut Vec<Row>,
    name: &'static str,
    f: F,
    want: fn(f64, f64) -> f64,
    limit: (f64, f64),
) {
    let (mut a, mut b) = (vec![], vec![]);
    for x in edges() {
        for y in edges() {
            a.push(x);
            b.push(y);
        }
    }
    let base = walk64(400_000);
    for k in 0..base.len() {
        a.push(base[k]);
        b.push(base[(k * 7919 + 1) % base.len()]);
    }
    let (a32, b32): (Vec<f32>, Vec<f32>) =
        (a.iter().map(|v| *v as f32).collect(), b.iter().map(|v| *v as f32).collect());
    let (mut out, mut out64) = (vec![0f32; a.len()], vec![0f64; a.len()]);
    for isa in sets() {
        let (mut e32, mut e64) = ((0.0, String::new()), (0.0, String::new()));
        dispatch_on(isa, Map2_32(&a32, &b32, &mut out, f));
        for k in 0..a.len() {
            let w = want(a32[k] as f64, b32[k] as f64);
            worst(ulp32(out[k], w), (a32[k], b32[k], out[k], w), &mut e32);
        }
        dispatch_on(isa, Map2_64(&a, &b, &mut out64, f));
        for k in 0..a.len() {
            let w = want(a[k], b[k]);
            worst(steps64(out64[k], w), (a[k], b[k], out64[k], w), &mut e64);
        }
        let bad = e32.0 > limit.0 || e64.0 > limit.1;
        rows.push(Row {
            name,
            isa,
            f32_ulp: e32.0,
            f64_steps: e64.0,
            at: format!("{} {}", e32.1, e64.1),
            bad,
        });
    }
}

fn sigmoid(x: f64) -> f64 {
    if x < -700.0 { x.exp() } else { 1.0 / (1.0 + (-x).exp()) }
}

macro_rules! rows {
    ($rows:ident; $($f:ident = $want:expr, $stride:expr, $l32:expr, $l64:expr;)*) => { $( {
        #[derive(Clone, Copy)]
        struct Op;
        impl F1 for Op {
            #[inline(always)]
            fn f<V: FloatLanes>(x: V) -> V { V::$f(x) }
        }
        unary(&mut $rows, stringify!($f), Op, $want, $stride, ($l32, $l64));
    } )* };
}
macro_rules! rows2 {
    ($rows:ident; $($f:ident of $t:ident = $want:expr, $l32:expr, $l64:expr;)*) => { $( {
        #[derive(Clone, Copy)]
        struct Op;
        impl F2 for Op {
            #[inline(always)]
            fn f<V: FloatLanes>(a: V, b: V) -> V { <V as $t>::$f(a, b) }
        }
        binary(&mut $rows, stringify!($f), Op, $want, ($l32, $l64));
    } )* };
}

#[test]
fn ulp_table() {
    let mut rows = vec![];
    const STEP: u64 = 1543;
    rows!(rows;
        exp = reference::exp, STEP, 1.0, 2.0;
        exp2 = reference::exp2, STEP, 1.1, 2.0;
        expm1 = reference::expm1, STEP, 0.51, 2.0;
        log = reference::log, STEP, 1.0, 2.0;
        log2 = reference::log2, STEP, 0.51, 2.0;
        log10 = reference::log10, STEP, 0.51, 3.0;
        log1p = reference::log1p, STEP, 0.51, 2.0;
        sin = reference::sin, STEP, 0.8, 2.0;
        cos = reference::cos, STEP, 0.8, 2.0;
        tan = reference::tan, STEP, 0.51, 3.0;
        asin = reference::asin, STEP, 0.51, 3.0;
        acos = reference::acos, STEP, 0.51, 3.0;
        atan = reference::atan, STEP, 0.51, 3.0;
        sinh = reference::sinh, STEP, 0.51, 3.0;
        cosh = reference::cosh, STEP, 0.51, 3.0;
        tanh = reference::tanh, STEP, 1.0, 3.0;
        asinh = reference::asinh, STEP, 0.51, 4.0;
        acosh = reference::acosh, STEP, 0.51, 4.0;
        atanh = reference::atanh, STEP, 0.51, 4.0;
        sigmoid = sigmoid, STEP, 1.6, 3.0;
        erf = reference::erf, STEP, 1.5, 3.0;
        erfc = reference::erfc, STEP, 0.51, 6.0;
        erfinv = reference::erfinv, STEP * 16, 0.6, 0.0;
        lgamma = reference::lgamma, STEP * 64, 0.51, 0.0;
        digamma = reference::digamma, STEP * 64, 0.51, 0.0;
        sqrt = f64::sqrt, STEP, 0.51, 0.0;
    );
    rows2!(rows;
        pow of Ring = reference::pow, 0.51, 0.0;
        atan2 of Float = reference::atan2, 0.51, 3.0;
        hypot of Float = reference::hypot, 0.51, 0.0;
    );
    let mut text = String::new();
    for r in &rows {
        println!(
            "{:8} {:7} f32 {:.3} ulp, f64 {} steps",
            r.name,
            format!("{:?}", r.isa),
            r.f32_ulp,
            r.f64_steps
        );
    }
    for group in rows.chunk_by(|a, b| a.name == b.name) {
        let cell = |isa: Isa, f: fn(&Row) -> f64| {
            group.iter().find(|r| r.isa == isa).map_or("-".into(), |r| format!("{:.2}", f(r)))
        };
        text += &format!(
            "| {} | {} | {} | {} |\n",
            group[0].name,
            cell(Isa::Scalar, |r| r.f32_ulp),
            cell(Isa::Avx2, |r| r.f32_ulp),
            cell(Isa::Avx512, |r| r.f32_ulp)
        );
    }
    if let Ok(file) = std::env::var("PYRITE_ULP_TABLE") {
        std::fs::write(file, text).unwrap_or_else(|e| panic!("{e}"));
    }
    for r in rows.iter().filter(|r| r.bad) {
        println!("TOO FAR {} {:?}: {} {} {}", r.name, r.isa, r.f32_ulp, r.f64_steps, r.at);
    }
    assert!(!rows.iter().any(|r| r.bad));
}

/// Values of functions that have no second implementation here, from an independent computation in
/// 30 digits.
#[test]
fn digamma_and_erfinv_values() {
    for (x, want) in DIGAMMA {
        let got = reference::digamma(x);
        assert!((got - want).abs() <= 1e-14 * want.abs(), "digamma({x}) = {got}, want {want}");
    }
    for (x, want) in ERFINV {
        let got = reference::erfinv(x);
        assert!((got - want).abs() <= 6e-16 * want.abs(), "erfinv({x}) = {got}, want {want}");
    }
    assert_eq!(reference::erfinv(1.0), f64::INFINITY);
    assert_eq!(reference::erfinv(-1.0), f64::NEG_INFINITY);
    assert!(reference::erfinv(1.5).is_nan() && reference::erfinv(f64::NAN).is_nan());
    assert_eq!(reference::digamma(0.0), f64::NEG_INFINITY);
    assert_eq!(reference::digamma(-0.0), f64::INFINITY);
    assert!(reference::digamma(-3.0).is_nan());
    assert_eq!(reference::digamma(f64::INFINITY), f64::INFINITY);
    assert_eq!(reference::nextafter(0.0, -1.0), -5e-324);
    assert_eq!(reference::nextafter(1.0, 2.0), 1.0 + f64::EPSILON);
    assert_eq!(reference::nextafterf(-1.0, -2.0), -1.0 - f32::EPSILON);
    assert_eq!(reference::nextafter(f64::MAX, f64::INFINITY), f64::INFINITY);
}

const DIGAMMA: [(f64, f64); 24] = [
    (1e-08, -100000000.57721564),
    (0.1, -10.423754940411076),
    (0.5, -1.9635100260214235),
    (1.0, -0.5772156649015329),
    (1.25, -0.22745353337626542),
    (1.4, -0.06138454458511624),
    (1.46, -0.0015805619870834522),
    (1.461632144968362, -3.072790566546293e-16),
    (1.4616321449683625, 1.2245374622004068e-16),
    (1.47, 0.008066489011364869),
    (1.6, 0.12604745277347632),
    (1.72, 0.2242928871461575),
    (2.0, 0.42278433509846713),
    (3.5, 1.103156640645243),
    (9.5, 2.1977378764029494),
    (10.0, 2.251752589066721),
    (100.0, 4.600161852738087),
    (10000000000.0, 23.025850929890456),
    (-0.5, 0.03648997397857652),
    (-1.5, 0.7031566406452432),
    (-2.75, -1.959055264977997),
    (-10.3, 4.662403493582087),
    (-1e-05, 99999.42276788563),
    (-100.1, 14.279984365172156),
];
const ERFINV: [(f64, f64); 14] = [
    (1e-12, 8.86226925452758e-13),
    (1e-05, 8.862269254759594e-06),
    (0.1, 0.08885599049425769),
    (0.3, 0.2724627147267543),
    (0.5, 0.4769362762044699),
    (0.75, 0.8134198475976185),
    (0.9, 1.1630871536766743),
    (0.99, 1.8213863677184494),
    (0.9999, 2.75106390571208),
    (0.999999, 3.458910737275499),
    (0.9999999999, 4.572824958544925),
    (0.9999999999999999, 5.8635847487551676),
    (-0.2, -0.1791434546212917),
    (-0.95, -1.3859038243496777),
];

/// ns per element in L1, least of a few runs. Not a check: `cargo test -- --ignored --nocapture speed`.
#[test]
#[ignore = "prints timings"]
fn speed() {
    macro_rules! time {
        ($($f:ident)*) => { $( {
            #[derive(Clone, Copy)]
            struct Op;
            impl F1 for Op {
                #[inline(always)]
                fn f<V: FloatLanes>(x: V) -> V { V::$f(x) }
            }
            let x: Vec<f32> = (0..4096).map(|k| k as f32 * 0.002 - 4.0).collect();
            let y: Vec<f64> = x.iter().map(|v| *v as f64).collect();
            let (mut o, mut p) = (vec![0f32; 4096], vec![0f64; 4096]);
            print!("{:8}", stringify!($f));
            for isa in sets() {
                let (mut a, mut b) = (f64::MAX, f64::MAX);
                for _ in 0..30 {
                    let t = std::time::Instant::now();
                    for _ in 0..10 { dispatch_on(isa, Map32(&x, &mut o, Op)); }
                    a = a.min(t.elapsed().as_nanos() as f64 / 40960.0);
                    let t = std::time::Instant::now();
                    for _ in 0..10 { dispatch_on(isa, Map64(&y, &mut p, Op)); }
                    b = b.min(t.elapsed().as_nanos() as f64 / 40960.0);
                }
                print!("  {isa:?} {a:.3} {b:.3}");
            }
            println!();
        } )* };
    }
    time!(sqrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh sigmoid erf erfc erfinv);
}
