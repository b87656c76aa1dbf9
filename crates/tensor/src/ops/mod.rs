//! Operators. One file per topic: shape rule, kernel family call, gradient and registry entries
//! stand together. This file holds what all of them use: operands, copies, and the registration.

pub mod advanced;
pub mod arith;
pub mod attention;
mod attention_tiles;
pub mod bag;
mod bins;
pub mod calculus;
pub mod complex;
pub mod conv;
mod conv_transposed;
pub mod copy;
pub mod counts;
pub mod create;
pub mod ctc;
pub mod diagonals;
pub mod draws;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod fft;
pub mod format;
pub mod formula;
mod gather;
pub mod getitem;
pub mod grid;
mod halves;
pub mod index;
pub mod joining;
pub mod lazy;
pub mod linalg;
pub mod logcumsumexp;
pub mod loss;
pub mod matmul;
pub mod moments;
mod multinomial;
pub mod nn_misc;
pub mod norm;
pub mod optim;
mod order;
pub mod out;
mod out_rules;
pub mod overlap;
pub mod pad;
pub mod pointwise;
pub mod pool;
mod pool_any;
mod positions;
pub mod rearrange;
mod record;
pub mod reduce;
pub mod resample;
mod row_tangent;
pub mod scan_sort;
mod scatter_reduce;
pub mod sections;
pub mod shape;
mod slice_write;
pub mod softmax;
pub mod special;
pub mod statistics;
pub mod stft;
pub mod strided;
mod unique;
pub mod view;
pub mod view_dtype;
pub mod windows;

pub use complex::{conj, conj_now};
pub use copy::*;
pub use diagonals::{tril, triu};
pub use format::like_layout;
pub use matmul::{linear, matmul};
pub use pointwise::*;
pub use reduce::{mean, sum, sum_to_size};
pub use sections::{chunk, split, split_sizes, tensor_split, unbind};
pub use view::*;

use crate::registry::Op;
use crate::tensor::Tensor;
use pyrite_core::Scalar;

/// A tensor or a Python number.
#[derive(Clone, Copy)]
pub enum Operand<'a> {
    Tensor(&'a Tensor),
    Number(Scalar),
}

impl<'a> From<&'a Tensor> for Operand<'a> {
    fn from(t: &'a Tensor) -> Operand<'a> {
        Operand::Tensor(t)
    }
}

impl From<f64> for Operand<'_> {
    fn from(v: f64) -> Self {
        Operand::Number(Scalar::Float(v))
    }
}

/// Every op of the library: `registry::ops` calls this once.
pub fn register() -> Vec<Op> {
    let mut list = Vec::with_capacity(512);
    pointwise::register(&mut list);
    complex::register(&mut list);
    lazy::register(&mut list);
    copy::register(&mut list);
    create::register(&mut list);
    draws::register(&mut list);
    counts::register(&mut list);
    view::register(&mut list);
    sections::register(&mut list);
    reduce::register(&mut list);
    moments::register(&mut list);
    matmul::register(&mut list);
    shape::register(&mut list);
    joining::register(&mut list);
    diagonals::register(&mut list);
    rearrange::register(&mut list);
    calculus::register(&mut list);
    statistics::register(&mut list);
    arith::register(&mut list);
    softmax::register(&mut list);
    norm::register(&mut list);
    loss::register(&mut list);
    fft::register(&mut list);
    conv::register(&mut list);
    special::register(&mut list);
    stft::register(&mut list);
    pool::register(&mut list);
    pad::register(&mut list);
    dropout::register(&mut list);
    embedding::register(&mut list);
    attention::register(&mut list);
    nn_misc::register(&mut list);
    resample::register(&mut list);
    windows::register(&mut list);
    grid::register(&mut list);
    ctc::register(&mut list);
    bag::register(&mut list);
    index::register(&mut list);
    scan_sort::register(&mut list);
    for room in [
        gather::register,
        scatter_reduce::register,
        slice_write::register,
        positions::register,
        order::register,
        unique::register,
        bins::register,
        multinomial::register,
    ] {
        room(&mut list);
    }
    linalg::register(&mut list);
    list
}
