//! The proc macros that read the op table: [`rows!`] for elementwise rows, [`reductions!`] for
//! reductions. No dependencies (no syn, no quote): the grammar is small, and the crate builds in
//! about a second.
//!
//! Why a proc macro and not `macro_rules!` (docs/internals.md has the comparison): literals must be
//! wrapped to be generic over SIMD registers, names must be joined and looked up (what a gradient
//! mentions is what is saved), and a word outside the vocabulary is reported at its own token.
//!
//! A row:
//! ```text
//! /// `x * sigmoid(x)`.
//! silu(x: float) = x / (1.0 + exp(-x));
//!     grad x: g * s * (1.0 + x * (1.0 - s)) where s = sigmoid(x);
//!     at "nn"; sample -4.0, 4.0;
//! ```

mod emit;
mod functions;
mod parse;

use proc_macro::TokenStream;

/// Elementwise rows: emits one module per row with its formulas as zero-sized types, the static
/// `ROWS`, the constants `id::NAME`, and the callback macro `for_each_row!`.
#[proc_macro]
pub fn rows(input: TokenStream) -> TokenStream {
    parse::rows(input).map(|r| emit::rows(&r)).unwrap_or_else(|e| e.into_compile_error())
}

/// Reduction rows: `name(x: class): start e; map e; combine e; finish e;`.
#[proc_macro]
pub fn reductions(input: TokenStream) -> TokenStream {
    parse::reductions(input).map(|r| emit::reductions(&r)).unwrap_or_else(|e| e.into_compile_error())
}

/// Scalar functions of f64, kept as they are and printed as C: `CUDA` is their text.
#[proc_macro]
pub fn functions(input: TokenStream) -> TokenStream {
    functions::functions(input).unwrap_or_else(|e| e.into_compile_error())
}
