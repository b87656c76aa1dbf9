//! Special functions of one or two f64, element by element: written once, in a part of Rust that the
//! macro [`pyrite_table::functions`] also prints as C. The CPU backend calls them in plain loops, the
//! CUDA backend compiles their text ([`cuda`]). f32 and the half types are computed through them, too,
//! and so are correctly rounded but for one case in millions.
//!
//! Series are Chebyshev expansions made by `tools/special_tables.py` from definitions in high precision;
//! `docs/ulp.md` says how far each function is from the true value.

// The text is also C, which has no `FRAC_1_SQRT_2`.
#![allow(clippy::approx_constant)]

mod bessel;
mod gamma;
mod math;
mod normal;
mod orthogonal;
mod tables;
mod zeta;

pub use bessel::*;
pub use gamma::*;
pub use math::{frexp_exponent, frexp_mantissa};
pub use normal::*;
pub use orthogonal::*;
pub use zeta::*;

/// What stands before the functions in C.
const HEAD: &str = "
#ifdef PYRITE_EMULATE
#define SP_TABLE static const
#define SP_FN static inline
#else
#define SP_TABLE static __device__ const
// Large and rare: one copy per module.
#define SP_FN static __device__ __noinline__
#endif
namespace sp {
#define INFINITE (bits_as<double>(0x7ff0000000000000ull))
#define UNDEFINED (bits_as<double>(0x7ff8000000000000ull))
// Clenshaw's sum of a Chebyshev series.
template <int N> SP_FN double series(double x, const double (&c)[N]) {
    double a = 0, b = 0;
    for (int i = N - 1; i > 0; i--) {
        double t = 2 * x * a - b + c[i];
        b = a;
        a = t;
    }
    return x * a - b + c[0];
}
DEVICE double frexp_mantissa(double x) { int e; return ::frexp(x, &e); }
DEVICE double frexp_exponent(double x) {
    int e;
    double m = ::frexp(x, &e);
    return (m != m || m - m != 0) ? 0.0 : (double)e;
}
";

/// Every public function and how many numbers it takes.
pub fn names() -> impl Iterator<Item = (&'static str, usize)> {
    [("frexp_mantissa", 1), ("frexp_exponent", 1)].into_iter().chain(
        [bessel::NAMES, gamma::NAMES, normal::NAMES, orthogonal::NAMES, zeta::NAMES]
            .into_iter()
            .flatten()
            .copied(),
    )
}

/// The text for CUDA: the functions, and `struct Special`, the op table's vocabulary with them. For
/// modules whose compute type `A` is a float.
pub fn cuda() -> String {
    let mut s = String::from(HEAD);
    for part in [tables::CUDA, zeta::CUDA, bessel::CUDA, normal::CUDA, gamma::CUDA, orthogonal::CUDA] {
        s.push_str(part);
    }
    s.push_str("}\nstruct Special : Vocab {\n");
    for (name, arity) in names() {
        s.push_str(&match arity {
            1 => format!("    METHOD A {name}(A a) {{ return (A)sp::{name}((double)a); }}\n"),
            _ => format!("    METHOD A {name}(A a, A b) {{ return (A)sp::{name}((double)a, (double)b); }}\n"),
        });
    }
    s.push_str("};\n");
    s
}

#[cfg(test)]
mod tests;
