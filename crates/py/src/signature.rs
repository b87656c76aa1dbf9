//! Signature texts of the registry, read once at import into what the argument parser walks.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyrite_core::{DType, Device, Scalar};
use pyrite_tensor::MemoryFormat;
use pyrite_tensor::registry::{Arg, Call, Sig};

/// The types of the signature language (`registry.rs` describes them).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ty {
    Tensor,
    Tensors,
    Operand,
    Number,
    Numbers,
    Int,
    Ints,
    Size,
    Float,
    Bool,
    Str,
    DType,
    Device,
    Generator,
    MemoryFormat,
}

impl Ty {
    fn parse(s: &str) -> Option<Ty> {
        Some(match s {
            "Tensor" => Ty::Tensor,
            "Tensors" => Ty::Tensors,
            "Operand" => Ty::Operand,
            "Number" => Ty::Number,
            "numbers" => Ty::Numbers,
            "int" => Ty::Int,
            "ints" => Ty::Ints,
            "size" => Ty::Size,
            "float" => Ty::Float,
            "bool" => Ty::Bool,
            "str" => Ty::Str,
            "dtype" => Ty::DType,
            "device" => Ty::Device,
            "generator" => Ty::Generator,
            "memory_format" => Ty::MemoryFormat,
            _ => return None,
        })
    }
    /// As error messages name it.
    pub fn describe(self) -> &'static str {
        match self {
            Ty::Tensor => "Tensor",
            Ty::Tensors => "tuple of Tensors",
            Ty::Operand => "Tensor or Number",
            Ty::Number => "Number",
            Ty::Numbers => "tuple of Numbers",
            Ty::Int => "int",
            Ty::Ints | Ty::Size => "tuple of ints",
            Ty::Float => "float",
            Ty::Bool => "bool",
            Ty::Str => "str",
            Ty::DType => "torch.dtype",
            Ty::Device => "torch.device",
            Ty::Generator => "torch.Generator",
            Ty::MemoryFormat => "torch.memory_format",
        }
    }
}

pub struct Param {
    pub name: &'static str,
    /// Interned: keyword names in calls are the same object nearly always.
    pub key: Py<PyString>,
    pub ty: Ty,
    pub optional: bool,
    pub default: Option<Arg>,
    pub default_text: &'static str,
}

pub struct Parsed {
    pub params: Vec<Param>,
    /// The first so many may be given by position.
    pub positional: usize,
    pub call: Call,
    pub text: &'static str,
}

fn bad<T>(text: &str, why: &str) -> PyResult<T> {
    Err(PyRuntimeError::new_err(format!("registry signature {text:?}: {why}")))
}

/// Reads one overload.
pub fn parse(py: Python, sig: &Sig) -> PyResult<Parsed> {
    let text = sig.text;
    let mut params = Vec::new();
    let mut positional = None;
    for part in split(text) {
        let part = part.trim();
        if part.is_empty() || part == "/" {
            continue;
        }
        if part == "*" {
            positional = Some(params.len());
            continue;
        }
        let (head, default) = match part.split_once('=') {
            Some((h, d)) => (h.trim(), Some(d.trim())),
            None => (part, None),
        };
        let Some((name, ty)) = head.split_once(':') else { return bad(text, "an argument has no type") };
        let (name, ty) = (name.trim(), ty.trim());
        let (ty, optional) = match ty.strip_suffix('?') {
            Some(t) => (t, true),
            None => (ty, false),
        };
        let Some(ty) = Ty::parse(ty) else { return bad(text, &format!("unknown type {ty:?}")) };
        let value = match default {
            None => None,
            Some(d) => match constant(d, ty) {
                Some(a) => Some(a),
                None => return bad(text, &format!("default {d:?} does not fit its type")),
            },
        };
        params.push(Param {
            name,
            key: PyString::intern(py, name).unbind(),
            ty,
            optional,
            default: value,
            default_text: default.unwrap_or(""),
        });
    }
    Ok(Parsed { positional: positional.unwrap_or(params.len()), params, call: sig.call, text })
}

/// Splits at commas outside brackets and quotes.
fn split(text: &'static str) -> Vec<&'static str> {
    let mut out = Vec::new();
    let (mut depth, mut quote, mut start) = (0, false, 0);
    for (i, c) in text.char_indices() {
        match c {
            '"' | '\'' => quote = !quote,
            '(' | '[' if !quote => depth += 1,
            ')' | ']' if !quote => depth -= 1,
            ',' if depth == 0 && !quote => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

/// A default value.
fn constant(text: &str, ty: Ty) -> Option<Arg> {
    if text == "None" {
        return Some(Arg::None);
    }
    let boolean = match text {
        "True" | "true" => Some(true),
        "False" | "false" => Some(false),
        _ => None,
    };
    let float = || match text {
        "inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        "nan" => Some(f64::NAN),
        t => t.parse::<f64>().ok(),
    };
    Some(match ty {
        Ty::Bool => Arg::Bool(boolean?),
        Ty::Int => Arg::Int(text.parse().ok()?),
        Ty::Float => Arg::Float(float()?),
        Ty::Number | Ty::Operand => match (boolean, text.parse::<i64>()) {
            (Some(b), _) => Arg::Number(Scalar::Bool(b)),
            (None, Ok(i)) => Arg::Number(Scalar::Int(i)),
            _ => Arg::Number(Scalar::Float(float()?)),
        },
        Ty::Str => Arg::Str(text.trim_matches(['"', '\'']).into()),
        Ty::Ints | Ty::Size => {
            let inner = text.trim_matches(['(', ')', '[', ']']);
            let list = inner.split(',').map(str::trim).filter(|s| !s.is_empty());
            Arg::Ints(list.map(|s| s.parse().ok()).collect::<Option<_>>()?)
        }
        Ty::DType => Arg::DType(DType::parse(text)?),
        Ty::Device => Arg::Device(Device::parse(text).ok()?),
        Ty::MemoryFormat => Arg::MemoryFormat(match text {
            "contiguous_format" | "contiguous" => MemoryFormat::Contiguous,
            "preserve_format" | "preserve" => MemoryFormat::Preserve,
            "channels_last" => MemoryFormat::ChannelsLast,
            "channels_last_3d" => MemoryFormat::ChannelsLast3d,
            _ => return None,
        }),
        Ty::Tensor | Ty::Tensors | Ty::Numbers | Ty::Generator => return None,
    })
}

impl Parsed {
    /// As error messages show it: `(Tensor input, Tensor other, *, Number alpha = 1)`.
    pub fn show(&self, skip_self: bool) -> String {
        let mut parts: Vec<String> = Vec::new();
        for (i, p) in self.params.iter().enumerate().skip(skip_self as usize) {
            if i == self.positional {
                parts.push("*".into());
            }
            let mark = if p.optional { " or None" } else { "" };
            let default =
                if p.default_text.is_empty() { String::new() } else { format!(" = {}", p.default_text) };
            parts.push(format!("{}{mark} {}{default}", p.ty.describe(), p.name));
        }
        format!("({})", parts.join(", "))
    }

    /// As `__text_signature__` wants it: names and defaults only.
    pub fn python(&self, method: bool, out: bool) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut starred = false;
        for (i, p) in self.params.iter().enumerate() {
            if i == self.positional && !starred {
                parts.push("*".into());
                starred = true;
            }
            if method && i == 0 {
                parts.push("$self".into());
                parts.push("/".into());
            } else if p.ty == Ty::Size && i + 1 == self.positional {
                parts.push(format!("*{}", p.name));
                starred = true;
            } else if p.default_text.is_empty() {
                parts.push(p.name.to_owned());
            } else {
                parts.push(format!("{}={}", p.name, p.default_text));
            }
        }
        if out {
            if !starred {
                parts.push("*".into());
            }
            parts.push("out=None".into());
        }
        format!("({})", parts.join(", "))
    }
}
