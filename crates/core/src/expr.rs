//! The vocabulary of the op table: the traits a row's formula is generic over.
//!
//! A row such as `silu(x: float) = x / (1.0 + exp(-x))` becomes one Rust function generic over a
//! *lane type* `V`. `cpu` instantiates it with SIMD registers and with scalars; the same tokens,
//! printed, are the CUDA source (`kernels/prelude.cuh` defines the same names), and
//! [`crate::text`] reads them again to run a formula on whole tensors.
//!
//! The class in the row picks the bound: `any` -> [`Any`], `num` -> [`Num`], `int` -> [`Int`],
//! `float` -> [`Float`]; rows with `flag complex` get the part of it that complex numbers have: [`Ring`]
//! for `num`, [`Field`] for `float`. Literals are wrapped by the macro (`V::lit(1.0)`), so formulas mix
//! freely.

use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Sub};

/// One truth value per lane.
pub trait Mask:
    Copy + BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self> + Not<Output = Self>
{
    fn splat(b: bool) -> Self;
    /// True where any lane is true.
    fn any(self) -> bool;
}

/// What every lane type can do, `bool` included.
pub trait Any: Copy {
    type M: Mask;
    /// The constant `v` in every lane, converted to the lane type.
    fn lit(v: f64) -> Self;
    /// `a` where the mask is true, else `b`.
    fn select(m: Self::M, a: Self, b: Self) -> Self;
    fn eq(a: Self, b: Self) -> Self::M;
    fn lt(a: Self, b: Self) -> Self::M;
    fn le(a: Self, b: Self) -> Self::M;
    /// 1 where the mask is true, else 0.
    #[inline(always)]
    fn from_mask(m: Self::M) -> Self {
        Self::select(m, Self::lit(1.0), Self::lit(0.0))
    }
}

/// Lane types with arithmetic, complex numbers among them. Integers wrap. Comparisons of complex lanes
/// (`lt`, `le`) look at the real part: formulas use them on what is real anyway.
pub trait Ring:
    Any + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Neg<Output = Self>
{
    /// The magnitude.
    fn abs(self) -> Self;
    /// The complex conjugate.
    #[inline(always)]
    fn conj(self) -> Self {
        self
    }
    /// `a` to the power `b`. Integers: by squaring; negative exponents give 0, 1 or -1 as PyTorch's.
    fn pow(a: Self, b: Self) -> Self;
}

/// Ordered lane types with arithmetic.
pub trait Num: Ring {
    /// The greater one; NaN if either is NaN (`torch.maximum`).
    fn maximum(a: Self, b: Self) -> Self;
    /// The smaller one; NaN if either is NaN.
    fn minimum(a: Self, b: Self) -> Self;
    /// C's remainder (sign of the dividend). Integers: `b == 0` gives 0, never a trap.
    fn fmod(a: Self, b: Self) -> Self;
    /// Quotient rounded towards zero. Integers: `b == 0` gives 0 here; the driver raises first.
    fn trunc_div(a: Self, b: Self) -> Self;
    /// Quotient rounded down.
    fn floor_div(a: Self, b: Self) -> Self;
    /// Python's remainder (sign of the divisor).
    fn remainder(a: Self, b: Self) -> Self;
}

/// Integer lane types (and `bool`, for which the operators are logical).
pub trait Int:
    Any + BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self> + Not<Output = Self>
{
    /// `a << b`; a shift by the width or more (or by a negative amount) gives 0.
    fn shl(a: Self, b: Self) -> Self;
    /// `a >> b`, arithmetic for signed types; over-wide shifts saturate.
    fn shr(a: Self, b: Self) -> Self;
    fn gcd(a: Self, b: Self) -> Self;
    /// The least common multiple, not negative; 0 if either is 0.
    fn lcm(a: Self, b: Self) -> Self;
}

/// Floating and complex lane types.
pub trait Field: Ring + Div<Output = Self> {
    fn sqrt(self) -> Self;
    fn exp(self) -> Self;
    fn exp2(self) -> Self;
    fn expm1(self) -> Self;
    fn log(self) -> Self;
    fn log2(self) -> Self;
    fn log10(self) -> Self;
    fn log1p(self) -> Self;
    fn sin(self) -> Self;
    fn cos(self) -> Self;
    fn tan(self) -> Self;
    fn asin(self) -> Self;
    fn acos(self) -> Self;
    fn atan(self) -> Self;
    fn sinh(self) -> Self;
    fn cosh(self) -> Self;
    fn tanh(self) -> Self;
    fn asinh(self) -> Self;
    fn acosh(self) -> Self;
    fn atanh(self) -> Self;
    /// `1 / (1 + exp(-x))`, without overflow.
    fn sigmoid(self) -> Self;
}

/// Floating lane types. Accuracy targets are in docs/internals.md (ulp table).
pub trait Float: Num + Field {
    /// `a * b + c` with one rounding where the machine has it.
    fn fma(a: Self, b: Self, c: Self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn trunc(self) -> Self;
    /// To the nearest integer, ties to even.
    fn round(self) -> Self;
    fn erf(self) -> Self;
    fn erfc(self) -> Self;
    fn erfinv(self) -> Self;
    fn lgamma(self) -> Self;
    fn digamma(self) -> Self;
    fn atan2(y: Self, x: Self) -> Self;
    fn hypot(a: Self, b: Self) -> Self;
    /// The magnitude of `a` with the sign of `b`.
    fn copysign(a: Self, b: Self) -> Self;
    fn nextafter(a: Self, b: Self) -> Self;
    /// True where the sign bit is set (also for -0.0 and negative NaN).
    fn signbit(self) -> Self::M;
    /// A function of one f64, lane by lane.
    fn each(self, f: fn(f64) -> f64) -> Self;
    /// A function of two.
    fn each2(a: Self, b: Self, f: fn(f64, f64) -> f64) -> Self;
}

/// The vocabulary as free functions: what a row's text calls. The names are the same in
/// `kernels/prelude.cuh`, in [`crate::text`] and here.
pub mod vocab {
    use super::{Any, Field, Float, Int, Mask, Num, Ring};

    macro_rules! unary {
        ($b:ident: $($f:ident)*) => { $(
            #[inline(always)]
            pub fn $f<V: $b>(x: V) -> V { V::$f(x) }
        )* };
    }
    macro_rules! binary {
        ($b:ident: $($f:ident)*) => { $(
            #[inline(always)]
            pub fn $f<V: $b>(a: V, b: V) -> V { V::$f(a, b) }
        )* };
    }
    macro_rules! rare {
        ($($f:ident)*; $($g:ident)*) => {
            $(
                #[inline(always)]
                pub fn $f<V: Float>(x: V) -> V { V::each(x, pyrite_special::$f) }
            )*
            $(
                #[inline(always)]
                pub fn $g<V: Float>(a: V, b: V) -> V { V::each2(a, b, pyrite_special::$g) }
            )*
        };
    }
    rare!(i0 i0e i1 i1e bessel_j0 bessel_j1 bessel_y0 bessel_y1 modified_bessel_k0 modified_bessel_k1
        scaled_modified_bessel_k0 scaled_modified_bessel_k1 airy_ai erfcx ndtr log_ndtr ndtri
        frexp_mantissa frexp_exponent power_of_two;
        zeta polygamma gammainc gammaincc chebyshev_polynomial_t chebyshev_polynomial_u
        chebyshev_polynomial_v chebyshev_polynomial_w shifted_chebyshev_polynomial_t
        shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w
        hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l legendre_polynomial_p);
    unary!(Ring: abs conj);
    binary!(Ring: pow);
    binary!(Num: maximum minimum fmod trunc_div floor_div remainder);
    binary!(Int: shl shr gcd lcm);
    unary!(Field: sqrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh
        asinh acosh atanh sigmoid);
    unary!(Float: floor ceil trunc round erf erfc erfinv lgamma digamma);
    binary!(Float: atan2 hypot copysign nextafter);

    #[inline(always)]
    pub fn fma<V: Float>(a: V, b: V, c: V) -> V {
        V::fma(a, b, c)
    }
    #[inline(always)]
    pub fn signbit<V: Float>(x: V) -> V::M {
        V::signbit(x)
    }
    #[inline(always)]
    pub fn select<V: Any>(m: V::M, a: V, b: V) -> V {
        V::select(m, a, b)
    }
    #[inline(always)]
    pub fn eq<V: Any>(a: V, b: V) -> V::M {
        V::eq(a, b)
    }
    #[inline(always)]
    pub fn ne<V: Any>(a: V, b: V) -> V::M {
        !V::eq(a, b)
    }
    #[inline(always)]
    pub fn lt<V: Any>(a: V, b: V) -> V::M {
        V::lt(a, b)
    }
    #[inline(always)]
    pub fn le<V: Any>(a: V, b: V) -> V::M {
        V::le(a, b)
    }
    #[inline(always)]
    pub fn gt<V: Any>(a: V, b: V) -> V::M {
        V::lt(b, a)
    }
    #[inline(always)]
    pub fn ge<V: Any>(a: V, b: V) -> V::M {
        V::le(b, a)
    }
    /// Both masks.
    #[inline(always)]
    pub fn both<M: Mask>(a: M, b: M) -> M {
        a & b
    }
    /// At least one of the masks.
    #[inline(always)]
    pub fn either<M: Mask>(a: M, b: M) -> M {
        a | b
    }
    /// Exactly one of the masks.
    #[inline(always)]
    pub fn differ<M: Mask>(a: M, b: M) -> M {
        a ^ b
    }
    #[inline(always)]
    pub fn negate<M: Mask>(a: M) -> M {
        !a
    }
}
