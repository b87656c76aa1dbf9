//! What a tensor prints as: PyTorch's rules for digits, widths, summaries and suffixes.

use crate::tensor::{Tensor, scalar_from_bytes};
use pyrite_core::{DType, Device, Result, Scalar};
use std::sync::{Mutex, PoisonError};

/// `set_printoptions`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Options {
    /// Digits after the point.
    pub precision: usize,
    /// Above this many elements only the edges are shown.
    pub threshold: usize,
    /// How many elements an edge has.
    pub edgeitems: usize,
    /// Where lines are broken.
    pub linewidth: usize,
    /// Scientific notation; `None` decides by the values.
    pub sci_mode: Option<bool>,
}

impl Options {
    pub const DEFAULT: Options =
        Options { precision: 4, threshold: 1000, edgeitems: 3, linewidth: 80, sci_mode: None };
}

static OPTIONS: Mutex<Options> = Mutex::new(Options::DEFAULT);

pub fn options() -> Options {
    *OPTIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn set_options(o: Options) {
    *OPTIONS.lock().unwrap_or_else(PoisonError::into_inner) = o;
}

/// A number with `digits` after the point, or in scientific notation as C writes it.
fn number(v: f64, digits: usize, sci: bool) -> String {
    if v.is_nan() {
        return "nan".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if !sci {
        return format!("{v:.digits$}");
    }
    let s = format!("{v:.digits$e}");
    match s.split_once('e') {
        Some((m, e)) => {
            let (sign, e) = match e.strip_prefix('-') {
                Some(e) => ('-', e),
                None => ('+', e),
            };
            format!("{m}e{sign}{e:0>2}")
        }
        None => s,
    }
}

/// How the elements of one tensor are written: all with the same width and notation.
struct Formatter {
    digits: usize,
    float: bool,
    /// All values are whole: no digits after the point.
    whole: bool,
    sci: bool,
    width: usize,
}

impl Formatter {
    fn new(values: &[f64], o: &Options) -> Formatter {
        let mut f = Formatter { digits: o.precision, float: true, whole: true, sci: false, width: 1 };
        let seen: Vec<f64> = values.iter().copied().filter(|v| v.is_finite() && *v != 0.0).collect();
        if seen.is_empty() {
            return f;
        }
        let low = seen.iter().fold(f64::INFINITY, |m, v| m.min(v.abs()));
        let high = seen.iter().fold(0f64, |m, v| m.max(v.abs()));
        f.whole = seen.iter().all(|v| v.fract() == 0.0);
        f.sci = o.sci_mode.unwrap_or(high / low > 1000.0 || high > 1.0e8 || low < 1.0e-4);
        for v in seen {
            let n = match (f.sci, f.whole) {
                (true, _) => number(v, f.digits, true).len(),
                (false, true) => number(v, 0, false).len() + 1,
                (false, false) => number(v, f.digits, false).len(),
            };
            f.width = f.width.max(n);
        }
        f
    }

    fn integers(texts: impl Iterator<Item = String>, o: &Options) -> Formatter {
        let width = texts.map(|t| t.len()).max().unwrap_or(1).max(1);
        Formatter { digits: o.precision, float: false, whole: true, sci: false, width }
    }

    fn text(&self, v: f64) -> String {
        if self.sci {
            return number(v, self.digits, true);
        }
        if !self.whole {
            return number(v, self.digits, false);
        }
        let mut s = number(v, 0, false);
        if v.is_finite() {
            s.push('.');
        }
        s
    }

    fn pad(&self, s: String) -> String {
        format!("{s:>width$}", width = self.width)
    }
}

/// An integer or a truth value.
fn exact(s: Scalar) -> String {
    match s {
        Scalar::Bool(true) => "True".into(),
        Scalar::Bool(false) => "False".into(),
        Scalar::UInt(i) => i.to_string(),
        Scalar::Int(i) => i.to_string(),
        s => number(s.f64(), 4, false),
    }
}

struct Printer<'a> {
    t: &'a Tensor,
    o: Options,
    summarize: bool,
    real: Formatter,
    imag: Option<Formatter>,
}

/// The element at an offset (in elements) from the first one.
fn element(t: &Tensor, at: isize) -> Scalar {
    let size = t.dtype().size();
    let mut b = [0u8; 16];
    // SAFETY: `t` is on the CPU and `at` is the sum of in-range indices times strides.
    unsafe { std::ptr::copy_nonoverlapping(t.ptr().offset(at * size as isize), b.as_mut_ptr(), size) };
    scalar_from_bytes(&b, t.dtype())
}

/// The indices of a dimension that are shown; `None` is the gap.
fn shown(n: usize, summarize: bool, edge: usize) -> Vec<Option<usize>> {
    if summarize && edge == 0 {
        return vec![None];
    }
    if summarize && n > 2 * edge {
        return (0..edge).map(Some).chain([None]).chain((n - edge..n).map(Some)).collect();
    }
    (0..n).map(Some).collect()
}

/// Calls `f` for every element that is shown.
fn visit(t: &Tensor, dim: usize, at: isize, summarize: bool, edge: usize, f: &mut dyn FnMut(Scalar)) {
    if dim == t.ndim() {
        return f(element(t, at));
    }
    for i in shown(t.shape()[dim], summarize, edge).into_iter().flatten() {
        visit(t, dim + 1, at + i as isize * t.strides()[dim], summarize, edge, f);
    }
}

impl Printer<'_> {
    fn scalar(&self, s: Scalar) -> String {
        match (&self.imag, s) {
            (Some(imag), Scalar::Complex(re, im)) => {
                let r = self.real.pad(self.real.text(re));
                let i = imag.pad(imag.text(im)).trim_start().to_owned() + "j";
                let plus = if i.starts_with(['+', '-']) { "" } else { "+" };
                format!("{r}{plus}{i}")
            }
            (_, s) if self.real.float => self.real.pad(self.real.text(s.f64())),
            (_, s) => self.real.pad(exact(s)),
        }
    }

    fn vector(&self, dim: usize, at: isize, indent: usize) -> String {
        let width = self.real.width + 2 + self.imag.as_ref().map_or(0, |f| f.width + 1);
        let per_line = (self.o.linewidth.saturating_sub(indent) / width).max(1);
        let stride = self.t.strides()[dim];
        let items: Vec<String> = shown(self.t.shape()[dim], self.summarize, self.o.edgeitems)
            .into_iter()
            .map(|i| match i {
                Some(i) => self.scalar(element(self.t, at + i as isize * stride)),
                None if self.o.edgeitems == 0 => "...".into(),
                None => " ...".into(),
            })
            .collect();
        let lines: Vec<String> = items.chunks(per_line).map(|l| l.join(", ")).collect();
        format!("[{}]", lines.join(&format!(",\n{}", " ".repeat(indent + 1))))
    }

    fn block(&self, dim: usize, at: isize, indent: usize) -> String {
        let left = self.t.ndim() - dim;
        match left {
            0 => self.scalar(element(self.t, at)),
            1 => self.vector(dim, at, indent),
            _ => {
                let stride = self.t.strides()[dim];
                let parts: Vec<String> = shown(self.t.shape()[dim], self.summarize, self.o.edgeitems)
                    .into_iter()
                    .map(|i| match i {
                        Some(i) => self.block(dim + 1, at + i as isize * stride, indent + 1),
                        None => "...".into(),
                    })
                    .collect();
                let gap = format!(",{}{}", "\n".repeat(left - 1), " ".repeat(indent + 1));
                format!("[{}]", parts.join(&gap))
            }
        }
    }
}

/// The elements, without name and suffixes.
fn body(t: &Tensor, o: Options, indent: usize) -> Result<String> {
    if t.numel() == 0 {
        return Ok("[]".into());
    }
    let host = crate::ops::to_device(&crate::ops::lazy::resolve(&t.alias())?, Device::Cpu)?;
    let summarize = t.numel() > o.threshold;
    let mut seen = Vec::new();
    visit(&host, 0, 0, summarize, o.edgeitems, &mut |s| seen.push(s));
    let (real, imag) = if t.dtype().is_complex() {
        let part = |k: usize| -> Vec<f64> {
            seen.iter().map(|s| if let Scalar::Complex(a, b) = s { [*a, *b][k] } else { s.f64() }).collect()
        };
        (Formatter::new(&part(0), &o), Some(Formatter::new(&part(1), &o)))
    } else if t.dtype().is_float() {
        (Formatter::new(&seen.iter().map(|s| s.f64()).collect::<Vec<_>>(), &o), None)
    } else {
        (Formatter::integers(seen.iter().map(|s| exact(*s)), &o), None)
    };
    Ok(Printer { t: &host, o, summarize, real, imag }.block(0, 0, indent))
}

/// The tensor as Python's `repr` shows it.
pub fn repr(t: &Tensor) -> Result<String> {
    repr_as(t, "tensor")
}

/// As [`repr`], under the name of a subclass.
pub fn repr_as(t: &Tensor, name: &str) -> Result<String> {
    let o = options();
    let indent = name.chars().count() + 1;
    let mut text = format!("{name}({}", body(t, o, indent)?);
    let mut suffixes: Vec<String> = Vec::new();
    if t.device() != Device::Cpu {
        suffixes.push(format!("device='{}'", t.device()));
    }
    let d = t.dtype();
    let usual = if t.numel() == 0 {
        if t.ndim() != 1 {
            let dims: Vec<String> = t.shape().iter().map(usize::to_string).collect();
            suffixes.push(format!("size=({})", dims.join(", ")));
        }
        d == DType::default_float()
    } else {
        d == DType::default_float() || d == DType::default_complex() || d == DType::I64 || d == DType::Bool
    };
    if !usual {
        suffixes.push(format!("dtype={d}"));
    }
    match t.grad_fn() {
        Some(e) if t.requires_grad() => suffixes.push(format!("grad_fn=<{}>", e.node().name)),
        _ if t.requires_grad() => suffixes.push("requires_grad=True".into()),
        _ => {}
    }
    // PyTorch counts two characters more than the last line has.
    let mut line = text.len() - text.rfind('\n').map_or(0, |i| i + 1) + 2;
    for s in suffixes {
        if line + s.len() + 2 > o.linewidth {
            text += &format!(",\n{}{s}", " ".repeat(indent));
            line = indent + s.len();
        } else {
            text += &format!(", {s}");
            line += s.len() + 2;
        }
    }
    text.push(')');
    Ok(text)
}

impl std::fmt::Display for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&repr(self).map_err(|_| std::fmt::Error)?)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(1e10, 4, true), "1.0000e+10");
        assert_eq!(number(-2.5e-7, 2, true), "-2.50e-07");
        assert_eq!(number(f64::NAN, 4, false), "nan");
        assert_eq!(shown(10, true, 2), [Some(0), Some(1), None, Some(8), Some(9)]);
    }

    #[test]
    fn a_matrix() {
        let t = Tensor::from_slice(&[1.5f32, -2.0, 30.25, 4.0], &[2, 2]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(t.to_string(), "tensor([[ 1.5000, -2.0000],\n        [30.2500,  4.0000]])");
    }
}
