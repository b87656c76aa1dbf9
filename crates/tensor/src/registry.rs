//! The list of everything callable: name, signature text, documentation and function. `py` binds
//! it, `tools/gen.py` writes stubs and docs from it, tests are generated from it.
//!
//! A signature is Python's own syntax with the types below, for example
//! `"input: Tensor, dim: ints? = None, keepdim: bool = False, *, dtype: dtype? = None"`.
//! Types: `Tensor`, `Tensors`, `Operand` (a tensor or a number), `Number`, `int`, `ints` (an int or
//! a sequence of ints), `numbers` (a sequence of numbers), `size` (ints that may also be given one by one: `x.view(2, 3)`), `float`,
//! `bool`, `str`, `dtype`, `device`, `generator`, `memory_format`; `?` allows None.
//! Arguments reach the function in signature order with defaults filled in.
//!
//! Several [`Sig`]s are overloads: the first whose arguments fit is taken.

use crate::tensor::{MemoryFormat, Tensor};
use pyrite_core::rows::RowId;
use pyrite_core::{DType, Device, Result, Scalar, bail};
use smallvec::SmallVec;
use std::sync::Arc;

/// A value given by the caller, converted by the binding.
#[derive(Clone)]
pub enum Arg {
    None,
    Tensor(Tensor),
    Tensors(Vec<Tensor>),
    Number(Scalar),
    Int(i64),
    Ints(SmallVec<[i64; 6]>),
    Numbers(Vec<Scalar>),
    Float(f64),
    Bool(bool),
    Str(Arc<str>),
    DType(DType),
    Device(Device),
    Generator(Arc<crate::random::Generator>),
    MemoryFormat(MemoryFormat),
}

/// Arguments in signature order.
pub struct Args<'a> {
    pub op: &'a str,
    pub v: SmallVec<[Arg; 6]>,
}

/// What an op gives back.
pub enum Value {
    None,
    Tensor(Tensor),
    Tuple(Vec<Tensor>),
    /// A named tuple: its type's name and the field names.
    Named(&'static str, &'static [&'static str], Vec<Tensor>),
    Number(Scalar),
    Bool(bool),
    Int(i64),
    Ints(Vec<i64>),
    DType(DType),
    /// The first argument itself (in-place ops), so that the caller keeps its object.
    Receiver,
}

impl From<Tensor> for Value {
    fn from(t: Tensor) -> Value {
        Value::Tensor(t)
    }
}

/// How an overload runs.
#[derive(Clone, Copy)]
pub enum Call {
    Fn(fn(&Args) -> Result<Value>),
    /// A table row: function and method.
    Row(RowId),
    /// A table row writing into its first argument.
    RowInplace(RowId),
}

/// One overload.
pub struct Sig {
    pub text: &'static str,
    pub call: Call,
}

/// Where an op appears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forms(pub u8);

impl Forms {
    /// `pyrite.<namespace>.<name>`.
    pub const FUNCTION: u8 = 1;
    /// `Tensor.<name>`.
    pub const METHOD: u8 = 2;
    /// Accepts `out=`.
    pub const OUT: u8 = 4;
    /// A property of Tensor rather than a method.
    pub const PROPERTY: u8 = 8;
    pub fn has(self, f: u8) -> bool {
        self.0 & f != 0
    }
}

/// One entry of the registry.
pub struct Op {
    pub name: &'static str,
    /// "" (pyrite), "nn" (nn.functional), "linalg", "fft", "special", ...
    pub namespace: &'static str,
    pub forms: Forms,
    pub sigs: Vec<Sig>,
    pub doc: &'static str,
    pub aliases: Vec<&'static str>,
    /// The table row behind it, if it is one.
    pub row: Option<RowId>,
}

impl Args<'_> {
    fn wrong<T>(&self, i: usize, want: &str) -> Result<T> {
        bail!(Type, "{}(): argument {} must be {want}", self.op, i + 1)
    }
    pub fn is_none(&self, i: usize) -> bool {
        matches!(self.v.get(i), None | Some(Arg::None))
    }
    pub fn tensor(&self, i: usize) -> Result<&Tensor> {
        match self.v.get(i) {
            Some(Arg::Tensor(t)) => Ok(t),
            _ => self.wrong(i, "Tensor"),
        }
    }
    pub fn tensor_opt(&self, i: usize) -> Result<Option<&Tensor>> {
        if self.is_none(i) { Ok(None) } else { self.tensor(i).map(Some) }
    }
    pub fn tensors(&self, i: usize) -> Result<&[Tensor]> {
        match self.v.get(i) {
            Some(Arg::Tensors(t)) => Ok(t),
            Some(Arg::Tensor(t)) => Ok(std::slice::from_ref(t)),
            _ => self.wrong(i, "a tuple or list of Tensors"),
        }
    }
    pub fn number(&self, i: usize) -> Result<Scalar> {
        match self.v.get(i) {
            Some(Arg::Number(s)) => Ok(*s),
            Some(Arg::Int(v)) => Ok(Scalar::Int(*v)),
            Some(Arg::Float(v)) => Ok(Scalar::Float(*v)),
            Some(Arg::Bool(v)) => Ok(Scalar::Bool(*v)),
            Some(Arg::Tensor(t)) if t.ndim() == 0 => t.item(),
            _ => self.wrong(i, "Number"),
        }
    }
    pub fn number_opt(&self, i: usize) -> Result<Option<Scalar>> {
        if self.is_none(i) { Ok(None) } else { self.number(i).map(Some) }
    }
    /// A tensor or a number.
    pub fn operand(&self, i: usize) -> Result<crate::ops::Operand<'_>> {
        match self.v.get(i) {
            Some(Arg::Tensor(t)) => Ok(crate::ops::Operand::Tensor(t)),
            _ => match self.number(i) {
                Ok(s) => Ok(crate::ops::Operand::Number(s)),
                Err(_) => self.wrong(i, "Tensor or Number"),
            },
        }
    }
    pub fn int(&self, i: usize) -> Result<i64> {
        match self.v.get(i) {
            Some(Arg::Int(v)) => Ok(*v),
            _ => self.wrong(i, "int"),
        }
    }
    pub fn int_opt(&self, i: usize) -> Result<Option<i64>> {
        if self.is_none(i) { Ok(None) } else { self.int(i).map(Some) }
    }
    pub fn ints(&self, i: usize) -> Result<&[i64]> {
        match self.v.get(i) {
            Some(Arg::Ints(v)) => Ok(v),
            Some(Arg::Int(v)) => Ok(std::slice::from_ref(v)),
            _ => self.wrong(i, "a tuple of ints"),
        }
    }
    pub fn ints_opt(&self, i: usize) -> Result<Option<&[i64]>> {
        if self.is_none(i) { Ok(None) } else { self.ints(i).map(Some) }
    }
    pub fn numbers(&self, i: usize) -> Result<&[Scalar]> {
        match self.v.get(i) {
            Some(Arg::Numbers(v)) => Ok(v),
            _ => self.wrong(i, "a tuple of Numbers"),
        }
    }
    pub fn float(&self, i: usize) -> Result<f64> {
        match self.v.get(i) {
            Some(Arg::Float(v)) => Ok(*v),
            Some(Arg::Int(v)) => Ok(*v as f64),
            Some(Arg::Number(s)) => Ok(s.f64()),
            Some(Arg::Tensor(t)) if t.ndim() == 0 => Ok(t.item()?.f64()),
            _ => self.wrong(i, "float"),
        }
    }
    pub fn float_opt(&self, i: usize) -> Result<Option<f64>> {
        if self.is_none(i) { Ok(None) } else { self.float(i).map(Some) }
    }
    pub fn bool(&self, i: usize) -> Result<bool> {
        match self.v.get(i) {
            Some(Arg::Bool(v)) => Ok(*v),
            _ => self.wrong(i, "bool"),
        }
    }
    pub fn str(&self, i: usize) -> Result<&str> {
        match self.v.get(i) {
            Some(Arg::Str(s)) => Ok(s),
            _ => self.wrong(i, "str"),
        }
    }
    pub fn str_opt(&self, i: usize) -> Result<Option<&str>> {
        if self.is_none(i) { Ok(None) } else { self.str(i).map(Some) }
    }
    pub fn dtype_opt(&self, i: usize) -> Result<Option<DType>> {
        match self.v.get(i) {
            None | Some(Arg::None) => Ok(None),
            Some(Arg::DType(d)) => Ok(Some(*d)),
            _ => self.wrong(i, "torch.dtype"),
        }
    }
    pub fn device_opt(&self, i: usize) -> Result<Option<Device>> {
        match self.v.get(i) {
            None | Some(Arg::None) => Ok(None),
            Some(Arg::Device(d)) => Ok(Some(*d)),
            _ => self.wrong(i, "torch.device"),
        }
    }
    pub fn generator_opt(&self, i: usize) -> Result<Option<&Arc<crate::random::Generator>>> {
        match self.v.get(i) {
            None | Some(Arg::None) => Ok(None),
            Some(Arg::Generator(g)) => Ok(Some(g)),
            _ => self.wrong(i, "torch.Generator"),
        }
    }
    pub fn memory_format_opt(&self, i: usize) -> Result<Option<MemoryFormat>> {
        match self.v.get(i) {
            None | Some(Arg::None) => Ok(None),
            Some(Arg::MemoryFormat(m)) => Ok(Some(*m)),
            _ => self.wrong(i, "torch.memory_format"),
        }
    }
}

/// Runs one overload. `out`, if given, receives the result (resized if need be) and is returned.
pub fn call(call: Call, args: &Args, out: Option<&[Tensor]>) -> Result<Value> {
    let marked = |a: &Arg| match a {
        Arg::Tensor(t) => t.is_lazy(),
        Arg::Tensors(list) => list.iter().any(Tensor::is_lazy),
        _ => false,
    };
    if args.v.iter().any(marked) || out.is_some_and(|l| l.iter().any(Tensor::is_lazy)) {
        return crate::ops::lazy::call(call, args, out);
    }
    run(call, args, out)
}

/// [`call`] for arguments that need no look at their marks.
pub(crate) fn run(call: Call, args: &Args, out: Option<&[Tensor]>) -> Result<Value> {
    match (call, out) {
        (Call::Fn(f), None) => f(args),
        (Call::Row(r), None) => crate::ops::elementwise::call_row(r, args, None),
        (Call::RowInplace(r), None) => crate::ops::elementwise::call_row_inplace(r, args),
        (c, Some(outs)) => crate::ops::out::call(c, args, outs),
    }
}

/// Every op, built once: the table's rows first, then the structured ops of each `ops` file.
pub fn ops() -> &'static [Op] {
    static OPS: std::sync::OnceLock<Vec<Op>> = std::sync::OnceLock::new();
    OPS.get_or_init(crate::ops::register)
}

/// Declares registry entries next to their functions:
/// `op!(list, "softmax", FUNCTION | METHOD, "input: Tensor, dim: int", "Doc.", |a| Ok(softmax(a.tensor(0)?, a.int(1)?)?.into()))`.
/// Optional `ns = "nn"` and `alias = ["x"]` follow the forms; further overloads follow as
/// `; "signature", |a| ...`.
#[macro_export]
macro_rules! op {
    ($list:expr, $name:literal, $forms:ident $(| $more:ident)* $(, ns = $ns:literal)? $(, alias = [$($alias:literal),*])?,
     $doc:literal, $($sig:literal, $f:expr);+ $(;)?) => {
        $list.push($crate::registry::Op {
            name: $name,
            namespace: { #[allow(unused_mut, unused_assignments)] let mut ns = ""; $( ns = $ns; )? ns },
            forms: $crate::registry::Forms($crate::registry::Forms::$forms $(| $crate::registry::Forms::$more)*),
            sigs: vec![$($crate::registry::Sig { text: $sig, call: $crate::registry::Call::Fn($f) }),+],
            doc: $doc,
            aliases: vec![$($($alias),*)?],
            row: None,
        })
    };
}
