//! What every other crate stands on: dtypes, layouts, storage, plans, the op table, the Backend
//! trait. No kernels, no autograd, no Python here.
pub mod expr;
