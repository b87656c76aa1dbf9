// What every kernel source begins with: storage types, conversions, the op table's vocabulary, index
// arithmetic. Header-free on purpose: NVRTC needs no include path and no CUDA header can break it.
//
// The host prepends one compute type per module: `typedef ... A;` and one of A_F32, A_F64, A_INT,
// A_BOOL; A_SIGNED, A_MAX and A_MIN for integers. emu.h, prepended instead on a machine without a
// GPU, gives the same text a meaning in plain C++.

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

#ifndef PYRITE_EMULATE
#define DEVICE static __device__ __forceinline__
#define METHOD static __device__ __forceinline__
#define METHOD_OP __device__ __forceinline__
// Every kernel takes one struct by value, so that launching needs no per-kernel code.
#define KERNEL(name, Args) extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ Args a)
#define KERNEL_SYNC(name, Args) KERNEL(name, Args)
#define SHARED __shared__
#endif

// ---- storage types: what lies in memory --------------------------------------------------------
struct b8 { u8 v; };
struct f16 { u16 bits; };
struct bf16 { u16 bits; };
struct c64 { float re, im; };
struct c128 { double re, im; };

template <class To, class From> DEVICE To bits_as(From v) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    union { From f; To t; } u;
    u.f = v;
    return u.t;
}

DEVICE float widen_f16(f16 h) {
#ifdef PYRITE_EMULATE
    u32 sign = (u32)(h.bits & 0x8000) << 16, e = (h.bits >> 10) & 31, m = h.bits & 1023;
    if (e == 31) return bits_as<float>(sign | 0x7f800000u | (m << 13));
    if (e == 0) {
        float v = (float)m * bits_as<float>(0x33800000u);  // m * 2^-24
        return sign ? -v : v;
    }
    return bits_as<float>(sign | ((e + 112) << 23) | (m << 13));
#else
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits));
    return f;
#endif
}

DEVICE f16 narrow_f16(float f) {
    f16 h;
#ifdef PYRITE_EMULATE
    u32 x = bits_as<u32>(f), sign = (x >> 16) & 0x8000;
    x &= 0x7fffffff;
    if (x > 0x7f800000u) h.bits = (u16)(sign | 0x7e00);
    else if (x >= 0x477ff000u) h.bits = (u16)(sign | 0x7c00);  // rounds to 65536 or more
    else if (x < 0x38800000u) {
        // Subnormal: adding 0.5 leaves the 10 bits that count, rounded to even by the addition.
        float t = bits_as<float>(x) + 0.5f;
        h.bits = (u16)(sign | (bits_as<u32>(t) - 0x3f000000u));
    } else {
        x += 0xc8000fffu + ((x >> 13) & 1);
        h.bits = (u16)(sign | (x >> 13));
    }
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(f));
#endif
    return h;
}

DEVICE float widen_bf16(bf16 h) { return bits_as<float>((u32)h.bits << 16); }

DEVICE bf16 narrow_bf16(float f) {
    u32 x = bits_as<u32>(f);
    bf16 h;
    if (f != f) h.bits = (u16)((x >> 16) | 0x40);
    else h.bits = (u16)((x + 0x7fff + ((x >> 16) & 1)) >> 16);
    return h;
}

// double -> float rounded to odd: a second rounding to a half type is then the only one that counts.
DEVICE float odd_f32(double d) {
    float f = (float)d;
    u32 b = bits_as<u32>(f);
    double back = (double)f;
    if (back != d && d == d && !(b << 1 == 0xff000000u)) {
        if ((back < 0 ? -back : back) > (d < 0 ? -d : d)) b -= 1;
        b |= 1;
    }
    return bits_as<float>(b);
}

// float -> integer as the CPU backend (and PyTorch on x86) does it: what does not fit, NaN included,
// gives the smallest value; types up to 32 bits go through int.
template <class F> DEVICE i64 to_i64(F v) {
    return (v < (F)9223372036854775808.0 && v > (F)-9223372036854775808.0) ? (i64)v : -0x7fffffffffffffffLL - 1;
}
template <class F> DEVICE int to_i32(F v) {
    return (v < (F)2147483648.0 && v > (F)-2147483648.0) ? (int)v : -0x7fffffff - 1;
}
template <class F> DEVICE u64 to_u64(F v) {
    if (v >= (F)18446744073709551616.0) return ~0ull;
    return v >= (F)9223372036854775808.0 ? (u64)v : (u64)to_i64(v);
}

// `wide`: a stored value as something C can compute with.
template <class T> DEVICE T wide(T v) { return v; }
DEVICE float wide(f16 v) { return widen_f16(v); }
DEVICE float wide(bf16 v) { return widen_bf16(v); }
DEVICE bool wide(b8 v) { return v.v != 0; }

template <class T> DEVICE T real_part(T v) { return v; }
DEVICE float real_part(c64 v) { return v.re; }
DEVICE double real_part(c128 v) { return v.re; }
template <class T> DEVICE T imag_part(T) { return T(0); }
DEVICE float imag_part(c64 v) { return v.im; }
DEVICE double imag_part(c128 v) { return v.im; }

// `Narrow<To>::of(w)`: a computable value as it is stored.
template <class To> struct Narrow {
    template <class W> METHOD To of(W w) { return (To)real_part(w); }
};
template <class To, bool WIDE> struct NarrowInt {
    template <class F> METHOD To real(F w) { return WIDE ? (To)to_i64(w) : (To)to_i32(w); }
    METHOD To of(float w) { return real(w); }
    METHOD To of(double w) { return real(w); }
    METHOD To of(c64 w) { return real(w.re); }
    METHOD To of(c128 w) { return real(w.re); }
    template <class W> METHOD To of(W w) { return (To)w; }
};
template <> struct Narrow<u8> : NarrowInt<u8, false> {};
template <> struct Narrow<signed char> : NarrowInt<signed char, false> {};
template <> struct Narrow<short> : NarrowInt<short, false> {};
template <> struct Narrow<int> : NarrowInt<int, false> {};
template <> struct Narrow<i64> : NarrowInt<i64, true> {};
template <> struct Narrow<u16> : NarrowInt<u16, false> {};
template <> struct Narrow<u32> : NarrowInt<u32, true> {};
template <> struct Narrow<u64> {
    METHOD u64 of(float w) { return to_u64(w); }
    METHOD u64 of(double w) { return to_u64(w); }
    METHOD u64 of(c64 w) { return to_u64(w.re); }
    METHOD u64 of(c128 w) { return to_u64(w.re); }
    template <class W> METHOD u64 of(W w) { return (u64)w; }
};
template <> struct Narrow<bool> {
    METHOD bool of(c64 w) { return w.re != 0 || w.im != 0; }
    METHOD bool of(c128 w) { return w.re != 0 || w.im != 0; }
    template <class W> METHOD bool of(W w) { return w != W(0); }
};
template <> struct Narrow<b8> {
    template <class W> METHOD b8 of(W w) { b8 r; r.v = Narrow<bool>::of(w) ? 1 : 0; return r; }
};
template <> struct Narrow<f16> {
    METHOD f16 of(double w) { return narrow_f16(odd_f32(w)); }
    METHOD f16 of(c128 w) { return narrow_f16(odd_f32(w.re)); }
    template <class W> METHOD f16 of(W w) { return narrow_f16((float)real_part(w)); }
};
template <> struct Narrow<bf16> {
    METHOD bf16 of(double w) { return narrow_bf16(odd_f32(w)); }
    METHOD bf16 of(c128 w) { return narrow_bf16(odd_f32(w.re)); }
    template <class W> METHOD bf16 of(W w) { return narrow_bf16((float)real_part(w)); }
};
template <> struct Narrow<c64> {
    template <class W> METHOD c64 of(W w) { c64 r; r.re = (float)real_part(w); r.im = (float)imag_part(w); return r; }
};
template <> struct Narrow<c128> {
    template <class W> METHOD c128 of(W w) { c128 r; r.re = (double)real_part(w); r.im = (double)imag_part(w); return r; }
};
template <class To, class From> DEVICE To cast(From v) { return Narrow<To>::of(wide(v)); }

// Kernel parameters travel as 8 bytes each; the first sizeof(T) are the value.
template <class T> DEVICE T param(const u64* p) { return *reinterpret_cast<const T*>(p); }

// ---- the vocabulary ----------------------------------------------------------------------------
// Row structs derive from this one, so that `exp` in a formula is this `exp` and not C's, whose
// `round` and `remainder` mean something else.
#if defined(A_F64)
#define FN(fn) ::fn
#define A_INF (bits_as<double>(0x7ff0000000000000ull))
#define A_NAN (bits_as<double>(0x7ff8000000000000ull))
#define A_NINF (-A_INF)
#elif defined(A_F32)
#define FN(fn) ::fn##f
#define A_INF (bits_as<float>(0x7f800000u))
#define A_NAN (bits_as<float>(0x7fc00000u))
#define A_NINF (-A_INF)
#else
#define A_INF A_MAX
#define A_NINF A_MIN
#define A_NAN A(0)
#endif
#define A_PI A(3.14159265358979323846)

struct Vocab {
    METHOD A select(bool m, A a, A b) { return m ? a : b; }
    METHOD bool eq(A a, A b) { return a == b; }
    METHOD bool ne(A a, A b) { return a != b; }
    METHOD bool lt(A a, A b) { return a < b; }
    METHOD bool le(A a, A b) { return a <= b; }
    METHOD bool gt(A a, A b) { return a > b; }
    METHOD bool ge(A a, A b) { return a >= b; }
    METHOD bool both(bool a, bool b) { return a & b; }
    METHOD bool either(bool a, bool b) { return a | b; }
    METHOD bool differ(bool a, bool b) { return a != b; }
    METHOD bool negate(bool a) { return !a; }
    METHOD A conj(A x) { return x; }

#if defined(A_F32) || defined(A_F64)
    METHOD A maximum(A a, A b) { return (a != a || a > b) ? a : b; }
    METHOD A minimum(A a, A b) { return (a != a || a < b) ? a : b; }
    METHOD A abs(A x) { return FN(fabs)(x); }
    METHOD A fma(A a, A b, A c) { return FN(fma)(a, b, c); }
    METHOD A sqrt(A x) { return FN(sqrt)(x); }
    METHOD A floor(A x) { return FN(floor)(x); }
    METHOD A ceil(A x) { return FN(ceil)(x); }
    METHOD A trunc(A x) { return FN(trunc)(x); }
    METHOD A round(A x) { return FN(rint)(x); }
    METHOD A exp(A x) { return FN(exp)(x); }
    METHOD A exp2(A x) { return FN(exp2)(x); }
    METHOD A expm1(A x) { return FN(expm1)(x); }
    METHOD A log(A x) { return FN(log)(x); }
    METHOD A log2(A x) { return FN(log2)(x); }
    METHOD A log10(A x) { return FN(log10)(x); }
    METHOD A log1p(A x) { return FN(log1p)(x); }
    METHOD A sin(A x) { return FN(sin)(x); }
    METHOD A cos(A x) { return FN(cos)(x); }
    METHOD A tan(A x) { return FN(tan)(x); }
    METHOD A asin(A x) { return FN(asin)(x); }
    METHOD A acos(A x) { return FN(acos)(x); }
    METHOD A atan(A x) { return FN(atan)(x); }
    METHOD A sinh(A x) { return FN(sinh)(x); }
    METHOD A cosh(A x) { return FN(cosh)(x); }
    METHOD A tanh(A x) { return FN(tanh)(x); }
    METHOD A asinh(A x) { return FN(asinh)(x); }
    METHOD A acosh(A x) { return FN(acosh)(x); }
    METHOD A atanh(A x) { return FN(atanh)(x); }
    METHOD A erf(A x) { return FN(erf)(x); }
    METHOD A erfc(A x) { return FN(erfc)(x); }
    METHOD A erfinv(A x) { return FN(erfinv)(x); }
    METHOD A lgamma(A x) { return FN(lgamma)(x); }
    METHOD A atan2(A y, A x) { return FN(atan2)(y, x); }
    METHOD A hypot(A a, A b) { return FN(hypot)(a, b); }
    METHOD A copysign(A a, A b) { return FN(copysign)(a, b); }
    METHOD A nextafter(A a, A b) { return FN(nextafter)(a, b); }
    METHOD A fmod(A a, A b) { return FN(fmod)(a, b); }
    METHOD A pow(A a, A b) { return FN(pow)(a, b); }
    METHOD bool signbit(A x) {
#ifdef A_F64
        return (bits_as<u64>(x) >> 63) != 0;
#else
        return (bits_as<u32>(x) >> 31) != 0;
#endif
    }
    // exp of a negative number only: no overflow on either side.
    METHOD A sigmoid(A x) {
        A e = FN(exp)(-FN(fabs)(x));
        return (x < A(0) ? e : A(1)) / (A(1) + e);
    }
    METHOD A trunc_div(A a, A b) { return FN(trunc)(a / b); }
    METHOD A remainder(A a, A b) {
        A m = FN(fmod)(a, b);
        return (m != A(0) && ((m < A(0)) != (b < A(0)))) ? m + b : m;
    }
    // Python's floor division: (a - remainder) / b, to the nearest integer because that division can
    // be off by an ulp.
    METHOD A floor_div(A a, A b) {
        if (b == A(0)) return a / b;
        A m = FN(fmod)(a, b);
        A d = (a - m) / b;
        if (m != A(0) && ((m < A(0)) != (b < A(0)))) d -= A(1);
        if (d == A(0)) return FN(copysign)(A(0), a / b);
        A f = FN(floor)(d);
        return d - f > A(0.5) ? f + A(1) : f;
    }
    // Reflection below 0, recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.3).
    METHOD A digamma(A x0) {
        double x = x0, r = 0;
        if (x == 0) return FN(copysign)(A_INF, -x0);
        if (x != x || x == A_INF) return x0;
        if (x < 0) {
            if (x == ::floor(x)) return A_NAN;
            double f = x - ::floor(x);
            r = -3.14159265358979323846 / ::tan(3.14159265358979323846 * f);
            x = 1 - x;
        }
        while (x < 10) {
            r -= 1 / x;
            x += 1;
        }
        double z = 1 / (x * x);
        double s = z * (1.0 / 12 - z * (1.0 / 120 - z * (1.0 / 252 - z * (1.0 / 240 - z * (1.0 / 132 - z * (691.0 / 32760 - z / 12))))));
        return (A)(r + ::log(x) - 0.5 / x - s);
    }
#else
    METHOD A maximum(A a, A b) { return a > b ? a : b; }
    METHOD A minimum(A a, A b) { return a < b ? a : b; }
#ifdef A_SIGNED
    METHOD A abs(A x) { return x < 0 ? A(0 - (u64)x) : x; }
    METHOD bool minus_one(A b) { return b == A(-1); }
#else
    METHOD A abs(A x) { return x; }
    METHOD bool minus_one(A) { return false; }
#endif
    // Division by zero gives 0; -1 is apart because MIN / -1 traps on some machines.
    METHOD A trunc_div(A a, A b) { return b == 0 ? A(0) : minus_one(b) ? A(0 - (u64)a) : A(a / b); }
    METHOD A fmod(A a, A b) { return (b == 0 || minus_one(b)) ? A(0) : A(a % b); }
    METHOD A remainder(A a, A b) {
        A m = fmod(a, b);
        return (m != 0 && ((m < 0) != (b < 0))) ? A(m + b) : m;
    }
    METHOD A floor_div(A a, A b) {
        A q = trunc_div(a, b), m = fmod(a, b);
        return (m != 0 && ((m < 0) != (b < 0))) ? A(q - 1) : q;
    }
    METHOD A pow(A a, A b) {
        if (b < 0) return a == 1 ? A(1) : minus_one(a) ? ((b & 1) ? a : A(1)) : A(0);
        u64 r = 1, x = (u64)a;
        for (u64 e = (u64)b; e; e >>= 1) {
            if (e & 1) r *= x;
            x *= x;
        }
        return A(r);
    }
    METHOD A shl(A a, A b) { return (b < 0 || (u64)b >= 8 * sizeof(A)) ? A(0) : A((u64)a << b); }
    METHOD A shr(A a, A b) {
        bool over = b < 0 || (u64)b >= 8 * sizeof(A);
        return A(a >> (over ? A(8 * sizeof(A) - 1) : b)) & (A_UNSIGNED && over ? A(0) : A(~u64(0)));
    }
    METHOD A gcd(A a, A b) {
        u64 x = (u64)abs(a) & A_MASK, y = (u64)abs(b) & A_MASK;
        while (y) {
            u64 t = x % y;
            x = y;
            y = t;
        }
        return A(x);
    }
    METHOD A lcm(A a, A b) {
        A g = gcd(a, b);
        return g == 0 ? g : A((u64)trunc_div(abs(a), g) * (u64)abs(b));
    }
#endif
};

// ---- index arithmetic --------------------------------------------------------------------------
// Division by a run-time constant through a multiplication (Granlund and Montgomery, PLDI 1994);
// right for numerators below 2^31, which is why the host splits larger plans.
struct Div {
    u32 d, m, s;
};
DEVICE u32 div_by(const Div& v, u32 n) {
#ifdef PYRITE_EMULATE
    u32 hi = (u32)(((u64)n * v.m) >> 32);
#else
    u32 hi = __umulhi(n, v.m);
#endif
    return (u32)(((u64)hi + n) >> v.s);
}

#define MAX_DIMS 12
#define MAX_OPERANDS 6

// A block's and a thread's number in one dimension, as 64 bits.
#define GLOBAL_THREAD ((u64)blockIdx.x * blockDim.x + threadIdx.x)
#define GLOBAL_SIZE ((u64)gridDim.x * blockDim.x)
