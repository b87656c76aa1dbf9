//! What every other crate stands on: dtypes, layouts, storage, plans, the op table, the Backend
//! trait. No kernels, no autograd, no Python here.

pub mod backend;
pub mod device;
pub mod dtype;
pub mod error;
pub mod expr;
pub mod interrupt;
pub mod layout;
pub mod plan;
pub mod rng;
pub mod rows;
pub mod site;
pub mod spatial;
pub mod storage;
pub mod text;
pub mod watch;

pub use backend::{Arr, Backend};
pub use device::Device;
pub use dtype::{DType, Elem, Promotion, Scalar};
pub use error::{Error, Kind, Result};
pub use half;
pub use layout::{Dims, Layout, Strides};
pub use site::Site;
pub use storage::Storage;
