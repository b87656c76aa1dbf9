//! Element types: one row each (name, size, kind, promotion order), promotion as PyTorch does it,
//! and `match_dtype!`, the only way from a run-time dtype to a Rust type.

use half::{bf16, f16};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// The families promotion goes by; the order is the promotion order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Category {
    Bool,
    Int,
    Float,
    Complex,
}

macro_rules! dtypes {
    ($($var:ident $name:literal $alias:literal $legacy:literal $ctype:literal $size:literal $cat:ident $signed:literal;)*) => {
        /// The type of a tensor's elements.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DType { $($var),* }

        impl DType {
            pub const ALL: &'static [DType] = &[$(DType::$var),*];
            /// PyTorch's name (`float32`).
            pub const fn name(self) -> &'static str { match self { $(DType::$var => $name),* } }
            /// PyTorch's short name (`float`), or the same as `name`.
            pub const fn alias(self) -> &'static str { match self { $(DType::$var => $alias),* } }
            /// The name in `torch.FloatTensor` and in many error messages (`Float`).
            pub const fn legacy_name(self) -> &'static str { match self { $(DType::$var => $legacy),* } }
            /// The type's name in CUDA sources (`kernels/prelude.cuh`).
            pub const fn cuda_name(self) -> &'static str { match self { $(DType::$var => $ctype),* } }
            /// Bytes per element.
            pub const fn size(self) -> usize { match self { $(DType::$var => $size),* } }
            pub const fn category(self) -> Category { match self { $(DType::$var => Category::$cat),* } }
            pub const fn is_signed(self) -> bool { match self { $(DType::$var => $signed),* } }
        }
    };
}

dtypes! {
    Bool "bool" "bool" "Bool" "bool" 1 Bool false;
    U8 "uint8" "uint8" "Byte" "unsigned char" 1 Int false;
    I8 "int8" "int8" "Char" "signed char" 1 Int true;
    I16 "int16" "short" "Short" "short" 2 Int true;
    I32 "int32" "int" "Int" "int" 4 Int true;
    I64 "int64" "long" "Long" "long long" 8 Int true;
    U16 "uint16" "uint16" "UInt16" "unsigned short" 2 Int false;
    U32 "uint32" "uint32" "UInt32" "unsigned int" 4 Int false;
    U64 "uint64" "uint64" "UInt64" "unsigned long long" 8 Int false;
    F16 "float16" "half" "Half" "f16" 2 Float true;
    BF16 "bfloat16" "bfloat16" "BFloat16" "bf16" 2 Float true;
    F32 "float32" "float" "Float" "float" 4 Float true;
    F64 "float64" "double" "Double" "double" 8 Float true;
    C64 "complex64" "cfloat" "ComplexFloat" "c64" 8 Complex true;
    C128 "complex128" "cdouble" "ComplexDouble" "c128" 16 Complex true;
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "torch.{}", self.name())
    }
}

static DEFAULT: AtomicU8 = AtomicU8::new(DType::F32 as u8);

impl DType {
    pub fn parse(name: &str) -> Option<DType> {
        DType::ALL.iter().copied().find(|d| d.name() == name || d.alias() == name)
    }
    /// The dtype new floating tensors get (`get_default_dtype`).
    pub fn default_float() -> DType {
        let code = DEFAULT.load(Ordering::Relaxed);
        DType::ALL.iter().copied().find(|d| *d as u8 == code).unwrap_or(DType::F32)
    }
    pub fn set_default_float(d: DType) {
        DEFAULT.store(d as u8, Ordering::Relaxed);
    }
    pub fn default_complex() -> DType {
        if DType::default_float() == DType::F64 { DType::C128 } else { DType::C64 }
    }
    pub const fn is_float(self) -> bool {
        matches!(self.category(), Category::Float)
    }
    pub const fn is_complex(self) -> bool {
        matches!(self.category(), Category::Complex)
    }
    /// Integers, without bool.
    pub const fn is_int(self) -> bool {
        matches!(self.category(), Category::Int)
    }
    pub const fn is_bool(self) -> bool {
        matches!(self, DType::Bool)
    }
    /// Floating or complex: can require a gradient.
    pub const fn is_differentiable(self) -> bool {
        matches!(self.category(), Category::Float | Category::Complex)
    }
    /// The type kernels compute in: f16 and bf16 are widened, the others compute as they are.
    pub const fn compute(self) -> DType {
        match self {
            DType::F16 | DType::BF16 => DType::F32,
            d => d,
        }
    }
    /// The real type of a complex dtype's parts; itself for the others.
    pub const fn real(self) -> DType {
        match self {
            DType::C64 => DType::F32,
            DType::C128 => DType::F64,
            d => d,
        }
    }
    /// The complex dtype whose parts have this precision.
    pub const fn complex(self) -> DType {
        match self {
            DType::F64 | DType::C128 => DType::C128,
            _ => DType::C64,
        }
    }
    /// What `float` rows turn an input of this dtype into.
    pub fn to_float(self) -> DType {
        if self.is_differentiable() { self } else { DType::default_float() }
    }

    /// The common dtype of two dtypes of the same standing (`torch.promote_types`).
    pub fn promote(a: DType, b: DType) -> DType {
        use DType::*;
        if a == b {
            return a;
        }
        let (lo, hi) = if a.category() <= b.category() { (a, b) } else { (b, a) };
        if lo.category() < hi.category() {
            // A real float and a complex: the wider precision decides.
            if hi.is_complex() && lo.is_float() {
                return if hi == C128 || lo == F64 { C128 } else { C64 };
            }
            return hi;
        }
        match lo.category() {
            Category::Float => match (lo, hi) {
                (F64, _) | (_, F64) => F64,
                // f16 with bf16 has no common half type; with f32 it is f32 anyway.
                _ => F32,
            },
            Category::Complex => C128,
            _ => promote_ints(lo, hi),
        }
    }

    /// May a value of `self` be stored in `to` without leaving its category (`torch.can_cast`)?
    pub fn can_cast(self, to: DType) -> bool {
        let (f, t) = (self.category(), to.category());
        if f == Category::Complex && t != Category::Complex {
            return false;
        }
        if f == Category::Float && t < Category::Float {
            return false;
        }
        !(f != Category::Bool && t == Category::Bool)
    }
}

fn promote_ints(a: DType, b: DType) -> DType {
    use DType::*;
    let unsigned = |d: DType| !d.is_signed();
    match (unsigned(a), unsigned(b)) {
        (true, true) | (false, false) => {
            if a.size() >= b.size() {
                a
            } else {
                b
            }
        }
        (au, _) => {
            let (u, s) = if au { (a, b) } else { (b, a) };
            if s.size() > u.size() {
                return s;
            }
            // The next wider signed type; u64 with a signed type has none and becomes float.
            match u {
                U8 => I16,
                U16 => I32,
                U32 => I64,
                _ => F64,
            }
        }
    }
}

/// A Rust type that is some dtype's element.
///
/// # Safety
/// `DTYPE.size() == size_of::<Self>()`, and every bit pattern written through kernels is valid.
pub unsafe trait Elem: Copy + Send + Sync + 'static {
    const DTYPE: DType;
}

/// `bool` as stored: one byte, 0 or 1. Never Rust's `bool`, so that foreign memory holding other
/// bytes is not undefined behaviour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Bool8(pub u8);

/// A complex element as stored: two reals.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[repr(C)]
pub struct Complex<T> {
    pub re: T,
    pub im: T,
}

macro_rules! elems {
    ($($t:ty => $d:ident),*) => { $(
        // SAFETY: the sizes are checked by the assertion below; all are plain numbers.
        unsafe impl Elem for $t { const DTYPE: DType = DType::$d; }
        const _: () = assert!(size_of::<$t>() == DType::$d.size());
    )* };
}
elems!(Bool8 => Bool, u8 => U8, i8 => I8, i16 => I16, i32 => I32, i64 => I64, u16 => U16, u32 => U32,
    u64 => U64, f16 => F16, bf16 => BF16, f32 => F32, f64 => F64, Complex<f32> => C64, Complex<f64> => C128);

/// Runs `$body` with `$T` bound to the element type of a run-time dtype.
/// Groups: `all`, `num` (no bool), `int` (bool excluded), `float`, `complex`, `real` (all but complex).
/// The last arm is what happens outside the group.
#[macro_export]
macro_rules! match_dtype {
    (@arms $d:expr, $T:ident, $body:expr, $else:expr, $($v:ident => $t:ty),*) => {
        match $d {
            $($crate::dtype::DType::$v => { #[allow(dead_code)] type $T = $t; $body })*
            #[allow(unreachable_patterns)]
            _ => $else,
        }
    };
    (all, $d:expr, |$T:ident| $body:expr) => { $crate::match_dtype!(@arms $d, $T, $body, unreachable!(),
        Bool => $crate::dtype::Bool8, U8 => u8, I8 => i8, I16 => i16, I32 => i32, I64 => i64, U16 => u16,
        U32 => u32, U64 => u64, F16 => $crate::half::f16, BF16 => $crate::half::bf16, F32 => f32, F64 => f64,
        C64 => $crate::dtype::Complex<f32>, C128 => $crate::dtype::Complex<f64>) };
    (real, $d:expr, |$T:ident| $body:expr, else $else:expr) => { $crate::match_dtype!(@arms $d, $T, $body, $else,
        Bool => $crate::dtype::Bool8, U8 => u8, I8 => i8, I16 => i16, I32 => i32, I64 => i64, U16 => u16,
        U32 => u32, U64 => u64, F16 => $crate::half::f16, BF16 => $crate::half::bf16, F32 => f32, F64 => f64) };
    (num, $d:expr, |$T:ident| $body:expr, else $else:expr) => { $crate::match_dtype!(@arms $d, $T, $body, $else,
        U8 => u8, I8 => i8, I16 => i16, I32 => i32, I64 => i64, U16 => u16, U32 => u32, U64 => u64,
        F32 => f32, F64 => f64) };
    (int, $d:expr, |$T:ident| $body:expr, else $else:expr) => { $crate::match_dtype!(@arms $d, $T, $body, $else,
        U8 => u8, I8 => i8, I16 => i16, I32 => i32, I64 => i64, U16 => u16, U32 => u32, U64 => u64) };
    (float, $d:expr, |$T:ident| $body:expr, else $else:expr) => { $crate::match_dtype!(@arms $d, $T, $body, $else,
        F32 => f32, F64 => f64) };
}

/// A Python number: weak in promotion, passed to kernels as an argument.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    /// An integer beyond `i64`: only uint64 (and floats) can hold it.
    UInt(u64),
    Float(f64),
    Complex(f64, f64),
}

impl Scalar {
    pub fn category(self) -> Category {
        match self {
            Scalar::Bool(_) => Category::Bool,
            Scalar::Int(_) | Scalar::UInt(_) => Category::Int,
            Scalar::Float(_) => Category::Float,
            Scalar::Complex(..) => Category::Complex,
        }
    }
    /// The dtype a tensor made from this number has.
    pub fn dtype(self) -> DType {
        match self {
            Scalar::Bool(_) => DType::Bool,
            Scalar::Int(_) => DType::I64,
            Scalar::UInt(_) => DType::U64,
            Scalar::Float(_) => DType::default_float(),
            Scalar::Complex(..) => DType::default_complex(),
        }
    }
    pub fn f64(self) -> f64 {
        match self {
            Scalar::Bool(b) => b as u8 as f64,
            Scalar::Int(i) => i as f64,
            Scalar::UInt(i) => i as f64,
            Scalar::Float(f) => f,
            Scalar::Complex(re, _) => re,
        }
    }
    pub fn i64(self) -> i64 {
        match self {
            Scalar::Bool(b) => b as i64,
            Scalar::Int(i) => i,
            Scalar::UInt(i) => i as i64,
            Scalar::Float(f) => f as i64,
            Scalar::Complex(re, _) => re as i64,
        }
    }
    pub fn is_zero(self) -> bool {
        match self {
            Scalar::Complex(a, b) => a == 0.0 && b == 0.0,
            Scalar::Int(i) => i == 0,
            s => s.f64() == 0.0,
        }
    }
    /// The bytes of this number as an element of `d`, in the first `d.size()` bytes.
    pub fn to_bytes(self, d: DType) -> [u8; 16] {
        let mut out = [0u8; 16];
        macro_rules! put {
            ($v:expr) => {{
                let b = $v.to_le_bytes();
                out[..b.len()].copy_from_slice(&b);
            }};
        }
        let (re, im) = match self {
            Scalar::Complex(a, b) => (a, b),
            s => (s.f64(), 0.0),
        };
        // Integers go through i64 so that no digit is lost; floats to unsigned types wrap as C's do.
        let int = match self {
            Scalar::Float(f) => f as i64,
            Scalar::Complex(a, _) => a as i64,
            s => s.i64(),
        };
        match d {
            DType::Bool => out[0] = !self.is_zero() as u8,
            DType::U8 => put!((int as u8)),
            DType::I8 => put!((int as i8)),
            DType::I16 => put!((int as i16)),
            DType::I32 => put!((int as i32)),
            DType::I64 => put!(int),
            DType::U16 => put!((int as u16)),
            DType::U32 => put!((int as u32)),
            DType::U64 => match self {
                Scalar::Float(f) if f >= 0.0 => put!((f as u64)),
                _ => put!((int as u64)),
            },
            DType::F16 => put!(f16::from_f64(re)),
            DType::BF16 => put!(bf16::from_f64(re)),
            DType::F32 => put!((re as f32)),
            DType::F64 => put!(re),
            DType::C64 => {
                out[..4].copy_from_slice(&(re as f32).to_le_bytes());
                out[4..8].copy_from_slice(&(im as f32).to_le_bytes());
            }
            DType::C128 => {
                out[..8].copy_from_slice(&re.to_le_bytes());
                out[8..16].copy_from_slice(&im.to_le_bytes());
            }
        }
        out
    }
}

impl From<f64> for Scalar {
    fn from(v: f64) -> Scalar {
        Scalar::Float(v)
    }
}
impl From<i64> for Scalar {
    fn from(v: i64) -> Scalar {
        Scalar::Int(v)
    }
}
impl From<u64> for Scalar {
    fn from(v: u64) -> Scalar {
        i64::try_from(v).map_or(Scalar::UInt(v), Scalar::Int)
    }
}
impl From<bool> for Scalar {
    fn from(v: bool) -> Scalar {
        Scalar::Bool(v)
    }
}

/// Whether operators follow the array API standard where PyTorch differs: 0-d tensors promote like any
/// other (PyTorch's rule is that they only count where no tensor with dimensions has their kind), and
/// `//` and `%` have the standard's special values; a mask of size 0 along a dimension selects nothing, as in NumPy.
static STANDARD: AtomicBool = AtomicBool::new(false);

/// Sets whether operators follow the array API standard; returns what it was.
pub fn set_standard(on: bool) -> bool {
    STANDARD.swap(on, Ordering::Relaxed)
}
/// Whether operators follow the array API standard.
#[inline]
pub fn standard() -> bool {
    STANDARD.load(Ordering::Relaxed)
}

/// Promotion over operands (`torch.result_type`): tensors with dimensions count first, then 0-d
/// tensors, then Python numbers; a lower group matters only if its category is higher.
#[derive(Clone, Copy, Default)]
pub struct Promotion {
    dims: Option<DType>,
    zero: Option<DType>,
    number: Option<DType>,
}

impl Promotion {
    #[inline]
    pub fn tensor(mut self, d: DType, ndim: usize) -> Self {
        let slot = if ndim > 0 || standard() { &mut self.dims } else { &mut self.zero };
        *slot = Some(slot.map_or(d, |e| DType::promote(e, d)));
        self
    }
    #[inline]
    pub fn number(mut self, s: Scalar) -> Self {
        // Whatever its size, an integer number is weak.
        let d = if let Scalar::UInt(_) = s { DType::I64 } else { s.dtype() };
        self.number = Some(self.number.map_or(d, |e| DType::promote(e, d)));
        self
    }
    #[inline]
    pub fn result(self) -> DType {
        let combine = |hi: Option<DType>, lo: Option<DType>| match (hi, lo) {
            (Some(h), Some(l)) if l.category() > h.category() => {
                // A weak complex next to a real float keeps the float's precision.
                if l.is_complex() && h.is_float() { Some(h.complex()) } else { Some(DType::promote(h, l)) }
            }
            (Some(h), _) => Some(h),
            (None, l) => l,
        };
        combine(combine(self.dims, self.zero), self.number).unwrap_or_else(DType::default_float)
    }
}
