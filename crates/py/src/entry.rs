//! C entry points of methods: one function per method number, because a method descriptor passes no closure.

use crate::bind::{Call, dispatch};
use pyo3::ffi;

/// The C entry point of method number `A * 256 + B * 16 + C`.
unsafe extern "C" fn entry<const A: usize, const B: usize, const C: usize>(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls this with the vectorcall convention and a receiver of type Tensor.
    unsafe { dispatch(A * 256 + B * 16 + C, slf, args, nargs, names) }
}

type Row = [Call; 16];

fn row<const A: usize, const B: usize>() -> Row {
    [
        entry::<A, B, 0>,
        entry::<A, B, 1>,
        entry::<A, B, 2>,
        entry::<A, B, 3>,
        entry::<A, B, 4>,
        entry::<A, B, 5>,
        entry::<A, B, 6>,
        entry::<A, B, 7>,
        entry::<A, B, 8>,
        entry::<A, B, 9>,
        entry::<A, B, 10>,
        entry::<A, B, 11>,
        entry::<A, B, 12>,
        entry::<A, B, 13>,
        entry::<A, B, 14>,
        entry::<A, B, 15>,
    ]
}

fn page<const A: usize>() -> [Row; 16] {
    [
        row::<A, 0>(),
        row::<A, 1>(),
        row::<A, 2>(),
        row::<A, 3>(),
        row::<A, 4>(),
        row::<A, 5>(),
        row::<A, 6>(),
        row::<A, 7>(),
        row::<A, 8>(),
        row::<A, 9>(),
        row::<A, 10>(),
        row::<A, 11>(),
        row::<A, 12>(),
        row::<A, 13>(),
        row::<A, 14>(),
        row::<A, 15>(),
    ]
}

/// The entry points by method number.
pub fn entries() -> Vec<Call> {
    [page::<0>(), page::<1>(), page::<2>(), page::<3>()].into_iter().flatten().flatten().collect()
}
