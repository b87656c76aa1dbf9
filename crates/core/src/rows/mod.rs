//! What a table row is made of, for every reader of the table: `cpu` instantiates the formula types,
//! `cuda` prints the texts, `tensor` drives and differentiates, `py` binds, `tools/gen.py` documents.

pub mod reductions;
pub mod table;

use crate::dtype::DType;
use crate::expr::Any;

pub use reductions::REDUCTIONS;
pub use table::ROWS;

/// The position of a row in [`ROWS`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct RowId(pub u16);

/// The position of a reduction in [`REDUCTIONS`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ReduceId(pub u16);

/// Which dtypes a row computes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Every dtype, bool included.
    Any,
    /// Integers and floats; bool is an error or computes as the driver says.
    Num,
    /// Integers and bool.
    Int,
    /// Floats; integer and bool inputs are promoted to the default float.
    Float,
}

impl Class {
    pub const fn name(self) -> &'static str {
        match self {
            Class::Any => "any",
            Class::Num => "num",
            Class::Int => "int",
            Class::Float => "float",
        }
    }
    /// Can a row of this class compute in the real dtype `d` (a compute dtype: no half types)?
    pub fn takes(self, d: DType) -> bool {
        match self {
            Class::Any => !d.is_complex(),
            Class::Num => !d.is_complex() && !d.is_bool(),
            Class::Int => d.is_int() || d.is_bool(),
            Class::Float => d.is_float(),
        }
    }
}

/// A formula as text: `text`'s form (read by [`crate::text`]) and CUDA's.
pub struct Text {
    pub lets: &'static [(&'static str, &'static str)],
    pub body: &'static str,
    pub cuda_lets: &'static [(&'static str, &'static str)],
    pub cuda: &'static str,
}

/// What a gradient formula reads besides the incoming gradient: this is what is saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    Input(u8),
    Output,
}

/// The gradient with respect to one input.
pub struct Grad {
    pub input: u8,
    pub uses: &'static [Use],
    pub text: Text,
}

/// What a row's driver does differently. In the table: `flag name;`.
pub mod flag {
    /// The parameter is PyTorch's keyword-only `alpha`.
    pub const ALPHA: u32 = 1;
    /// Parameters are keyword-only.
    pub const KWPARAMS: u32 = 2;
    /// bool operands are an error.
    pub const NOBOOL: u32 = 4;
    /// A zero integer divisor is an error.
    pub const INTZERO: u32 = 8;
    /// Integer tensors are returned as they are.
    pub const INTSELF: u32 = 16;
    /// One operand only selects and takes no part in promotion.
    pub const CONDITION: u32 = 32;
    /// Integers are looked at as floats, the result stays bool.
    pub const KEEPINT: u32 = 64;
    /// bool tensors give bool: computed in bytes, stored as `!= 0`.
    pub const BOOLBYTES: u32 = 128;
    /// A formula calls a function of `pyrite-special`: set by the table's reader.
    pub const RARE: u32 = 256;
    /// Complex numbers are taken as well. Forward formulas are used as they are; gradients, which are
    /// written as `g * f'(x)`, become `conj(conj(g) * f'(x))`: PyTorch's convention.
    pub const COMPLEX: u32 = 512;
    /// Complex inputs are computed from their real and imaginary parts (`tensor/ops/complex.rs`).
    pub const PARTS: u32 = 1024;
}

/// One elementwise op.
pub struct Row {
    pub id: RowId,
    pub name: &'static str,
    pub doc: &'static str,
    pub class: Class,
    /// The result is a bool tensor.
    pub bool_out: bool,
    pub inputs: &'static [&'static str],
    /// Scalar arguments with their defaults; computed in the row's dtype.
    pub params: &'static [(&'static str, Option<f64>)],
    pub forward: Text,
    pub grads: &'static [Grad],
    /// "" for `pyrite.<name>`, "nn" for `pyrite.nn.functional.<name>`, "_" for internal rows.
    pub namespace: &'static str,
    pub aliases: &'static [&'static str],
    /// Where tests and benches draw inputs from.
    pub sample: (f64, f64),
    /// Deviations from the general driver: bits of [`flag`], read by `tensor/ops/elementwise.rs`.
    pub flags: u32,
}

impl Row {
    pub fn grad(&self, input: usize) -> Option<&'static Grad> {
        self.grads.iter().find(|g| g.input as usize == input)
    }
    #[inline]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// One reduction: `finish(combine over map(x), n)`.
pub struct Reduction {
    pub id: ReduceId,
    pub name: &'static str,
    pub doc: &'static str,
    pub class: Class,
    /// Complex numbers are taken as well.
    pub complex: bool,
    pub params: &'static [&'static str],
    pub start: Text,
    pub map: Text,
    pub combine: Text,
    pub finish: Text,
}

impl RowId {
    #[inline]
    pub fn row(self) -> &'static Row {
        &ROWS[self.0 as usize]
    }
}

impl ReduceId {
    #[inline]
    pub fn row(self) -> &'static Reduction {
        &REDUCTIONS[self.0 as usize]
    }
}

/// Finds a row by name.
pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|r| r.name == name)
}

/// A formula over lanes. Slots beyond `INPUTS` and `PARAMS` hold anything.
pub trait Eval<V: Any> {
    const INPUTS: usize;
    const PARAMS: usize;
    fn eval(x: &[V; 4], p: &[V; 4]) -> V;
}

/// A formula whose result is a truth value per lane.
pub trait EvalMask<V: Any> {
    const INPUTS: usize;
    const PARAMS: usize;
    fn eval(x: &[V; 4], p: &[V; 4]) -> V::M;
}

/// A reduction over lanes.
pub trait Reduce<V: Any> {
    fn start(p: &[V; 4]) -> V;
    fn map(x: V, p: &[V; 4]) -> V;
    fn combine(a: V, b: V, p: &[V; 4]) -> V;
    fn finish(a: V, n: V, p: &[V; 4]) -> V;
}
