//! What PyTorch asks of `out=` per operator, beyond the common rules of `out.rs`: which results take their own
//! dtype alone, and which must not lie in their input's memory.

use pyrite_core::{DType, Result, bail, ensure};

/// Operators whose `out` must have exactly the result's dtype (sorted). The others take every dtype that the result
/// can be cast to.
#[rustfmt::skip]
const EXACT: &[&str] = &[
    "abs", "addbmm", "addmm", "addmv", "all", "amax", "amin", "aminmax", "any", "argmax", "argmin",
    "avg_pool2d", "baddbmm", "bitwise_not", "bmm", "bucketize", "ceil", "cholesky", "cholesky_ex", "complex",
    "conj_physical", "cross", "cummax", "cummin", "det", "diag", "dot", "eig", "eigh", "eigvals", "eigvalsh",
    "fft", "fft2", "fftn", "float_power", "floor", "frac", "frexp", "gather", "gelu", "hardshrink",
    "heaviside", "histc", "histogram", "ifft", "ifft2", "ifftn", "ihfft", "ihfft2", "ihfftn", "index_add",
    "index_copy", "index_reduce", "index_select", "inner", "inv", "inv_ex", "isin", "isneginf", "isposinf",
    "kthvalue", "ldl_factor", "ldl_factor_ex", "ldl_solve", "linear", "log_softmax", "logcumsumexp",
    "logsigmoid", "lu", "lu_factor", "lu_factor_ex", "lu_solve", "lu_unpack", "masked_select", "matmul",
    "matrix_norm", "mm", "mode", "msort", "multi_dot", "multinomial", "mv", "nan_to_num", "nanquantile",
    "neg", "negative", "nonzero", "norm", "ormqr", "polar", "qr", "quantile", "renorm", "rfft", "rfft2",
    "rfftn", "round", "scatter", "scatter_add", "scatter_reduce", "searchsorted", "sgn", "sign", "signbit",
    "slice_scatter", "slogdet", "softmax", "softplus", "softshrink", "solve", "solve_ex", "solve_triangular",
    "sort", "svd", "svdvals", "take", "take_along_dim", "tensordot", "topk", "triangular_solve", "tril",
    "triu", "trunc", "vdot", "vecdot", "vector_norm", "where",
];

/// Operators that write to `out` while they read their input (sorted).
const APART: &[&str] = &["cat", "concat", "concatenate", "gather", "index_select", "masked_select", "take"];

/// Operators that join tensors: an `out` they cannot write to is a TypeError.
const JOINING: &[&str] =
    &["cat", "column_stack", "concat", "concatenate", "dstack", "hstack", "row_stack", "stack", "vstack"];

/// Is this `out` of a dtype that the result may be written to?
pub(super) fn check_dtype(op: &str, result: DType, out: DType) -> Result<()> {
    if result == out {
        return Ok(());
    }
    if !result.can_cast(out) {
        if JOINING.contains(&op) {
            bail!(
                Type,
                "{op}(): input types can't be cast to the desired output type {} (they promote to {})",
                out.legacy_name(),
                result.legacy_name()
            )
        }
        bail!(
            Runtime,
            "{op}: result type {} can't be cast to the desired output type {}",
            result.legacy_name(),
            out.legacy_name()
        )
    }
    // `all` and `any` of bytes were bytes once.
    let other = matches!(op, "all" | "any") && out == DType::U8;
    // The magnitude of complex numbers may go back to where they were.
    let other = other || op == "abs" && out == result.complex();
    ensure!(
        other || EXACT.binary_search(&op).is_err(),
        Runtime,
        "{op}: Expected out tensor to have dtype {}, but got {} instead",
        result.name(),
        out.name()
    );
    Ok(())
}

/// Reductions and scans that compute in the dtype of `out`, their last argument being `dtype=`.
pub(super) fn computes_in_out(op: &str) -> bool {
    matches!(op, "sum" | "prod" | "mean" | "nansum" | "cumsum" | "cumprod")
}

/// Must `out` be other memory than the inputs?
pub(super) fn apart(op: &str) -> bool {
    APART.binary_search(&op).is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_that_are_searched_are_sorted() {
        assert!(super::EXACT.is_sorted() && super::APART.is_sorted());
    }
}
