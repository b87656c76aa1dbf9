//! Assembles kernel sources: one header line per compute type, prelude, family template, and the op
//! table's texts wrapped in structs. New rows need nothing here.

use pyrite_core::backend::{ArgOp, Formula, ReduceOp};
use pyrite_core::rows::{Row, Text, Use, flag};
use pyrite_core::{DType, Result, bail};
use std::fmt::Write;

pub const PRELUDE: &str = include_str!("../kernels/prelude.cuh");
pub const MAP: &str = include_str!("../kernels/map.cuh");
pub const COPY: &str = include_str!("../kernels/copy.cuh");
pub const REDUCE: &str = include_str!("../kernels/reduce.cuh");
pub const ROWWISE: &str = include_str!("../kernels/rowwise.cuh");
pub const RANDOM: &str = include_str!("../kernels/random.cuh");
pub const OPTIM: &str = include_str!("../kernels/optim.cuh");

/// The number of a compiled kernel: family, op, formula, compute type, operand dtypes.
#[derive(Clone, Copy)]
pub struct Key {
    pub family: u8,
    pub op: u16,
    pub formula: u8,
    pub compute: DType,
}

impl Key {
    /// 4 + 12 + 4 + 4 + 6 x 5 bits. A dtype takes 5 (0 is "no operand").
    pub fn pack(self, dtypes: &[DType]) -> u64 {
        let head = (self.family as u64) << 60
            | (self.op as u64 & 0xfff) << 48
            | (self.formula as u64 & 15) << 44
            | (self.compute as u64 & 15) << 40;
        dtypes.iter().enumerate().fold(head, |k, (i, d)| k | (*d as u64 + 1) << (5 * i))
    }
}

/// The name of a dtype's storage in kernels.
pub fn storage(d: DType) -> &'static str {
    // Not C's bool: reading a byte other than 0 and 1 as one is undefined.
    if d == DType::Bool { "b8" } else { d.cuda_name() }
}

/// A short tag for names.
pub fn tag(d: DType) -> &'static str {
    match d {
        DType::Bool => "b",
        DType::U8 => "u8",
        DType::I8 => "i8",
        DType::I16 => "i16",
        DType::I32 => "i32",
        DType::I64 => "i64",
        DType::U16 => "u16",
        DType::U32 => "u32",
        DType::U64 => "u64",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        DType::F32 => "f32",
        DType::F64 => "f64",
        DType::C64 => "c64",
        DType::C128 => "c128",
    }
}

/// Defines the compute type `A` and what the prelude asks about it.
pub fn header(compute: DType) -> Result<String> {
    let mut s = format!("typedef {} A;\n", compute.cuda_name());
    match compute {
        DType::F32 => s.push_str("#define A_F32 1\n"),
        DType::F64 => s.push_str("#define A_F64 1\n"),
        d if d.is_int() || d.is_bool() => {
            let bits = 8 * d.size();
            if d.is_bool() {
                s.push_str("#define A_BOOL 1\n#define A_MAX true\n#define A_MIN false\n");
            } else if d.is_signed() {
                let max = (1u64 << (bits - 1)) - 1;
                let _ = write!(
                    s,
                    "#define A_INT 1\n#define A_SIGNED 1\n#define A_MAX A({max}LL)\n#define A_MIN A(-{max}LL - 1)\n"
                );
            } else {
                let max = u64::MAX >> (64 - bits);
                let _ = write!(s, "#define A_INT 1\n#define A_MAX A({max}ULL)\n#define A_MIN A(0)\n");
            }
            let mask = u64::MAX >> (64 - bits);
            let _ = write!(s, "#define A_UNSIGNED {}\n#define A_MASK {mask}ULL\n", !d.is_signed() as u8);
        }
        d => bail!(NotImplemented, "elementwise operations on {d} are not implemented on CUDA"),
    }
    Ok(s)
}

/// Header, prelude and a template in one text.
pub fn begin(compute: DType, templates: &[&str]) -> Result<String> {
    let mut s = header(compute)?;
    s.push_str(PRELUDE);
    for t in templates {
        s.push_str(t);
    }
    Ok(s)
}

/// A formula's text for this compute type: Rust's `!` on integers is C's `~`; on bool it stays.
fn spell(text: &str, compute: DType) -> String {
    if compute.is_int() { text.replace('!', "~") } else { text.to_string() }
}

fn bindings(text: &Text, compute: DType) -> String {
    text.cuda_lets.iter().fold(String::new(), |mut s, (n, e)| {
        let _ = writeln!(s, "        const A {n} = {};", spell(e, compute));
        s
    })
}

/// How many elements a thread moves at once: 16 bytes of the widest operand, at most 8.
pub fn width(dtypes: &[DType]) -> usize {
    let widest = dtypes.iter().map(|d| d.size()).max().unwrap_or(1);
    (16 / widest).clamp(1, 8)
}

/// The name of a row's kernels for these dtypes.
pub fn map_name(row: &Row, formula: Formula, compute: DType, dtypes: &[DType]) -> String {
    let f = match formula {
        Formula::Forward => "f".to_string(),
        Formula::Grad(i) => format!("g{i}"),
    };
    let sig = dtypes.iter().map(|d| tag(*d)).collect::<Vec<_>>().join("_");
    format!("map_{}_{f}_{}_{sig}", row.name, tag(compute))
}

/// The struct and the two kernels of one row and formula. `dtypes[0]` is the output.
pub fn map_kernels(row: &Row, formula: Formula, compute: DType, dtypes: &[DType]) -> Result<String> {
    let (text, inputs): (&Text, Vec<&str>) = match formula {
        Formula::Forward => (&row.forward, row.inputs.to_vec()),
        Formula::Grad(i) => {
            let Some(g) = row.grad(i as usize) else {
                bail!(Runtime, "{}: no gradient formula for input {i}", row.name);
            };
            let uses = g.uses.iter().map(|u| match u {
                Use::Input(k) => row.inputs[*k as usize],
                Use::Output => "y",
            });
            (&g.text, std::iter::once("g").chain(uses).collect())
        }
    };
    if dtypes.len() != inputs.len() + 1 {
        bail!(Runtime, "{}: {} operands where {} were expected", row.name, dtypes.len(), inputs.len() + 1);
    }
    let name = map_name(row, formula, compute, dtypes);
    let n = dtypes.len();
    let mask = row.bool_out && formula == Formula::Forward;
    let base = if row.has(flag::RARE) { "Special" } else { "Vocab" };
    let mut s = format!("struct r_{name} : {base} {{\n");
    for (i, d) in dtypes.iter().enumerate() {
        let _ = writeln!(s, "    typedef {} T{i};", storage(*d));
    }
    let _ = writeln!(s, "    enum {{ OPERANDS = {n}, WIDTH = {} }};", width(dtypes));
    let list = |f: &dyn Fn(usize) -> String| (1..n).map(f).collect::<Vec<_>>().join(", ");
    let _ = writeln!(s, "    METHOD T0 eval({}, const u64* prm) {{", list(&|i| format!("const T{i}& v{i}")));
    for (i, input) in inputs.iter().enumerate() {
        let _ = writeln!(s, "        const A {input} = cast<A>(v{});", i + 1);
    }
    for (i, (p, _)) in row.params.iter().enumerate() {
        let _ = writeln!(s, "        const A {p} = param<A>(prm + {i});");
    }
    s.push_str(&bindings(text, compute));
    let _ = writeln!(
        s,
        "        return cast<T0>(({})({}));\n    }}",
        if mask { "bool" } else { "A" },
        spell(text.cuda, compute)
    );
    let _ = writeln!(
        s,
        "    METHOD void one(char* const* p, const i64* off, const u64* prm) {{\n        *(T0*)(p[0] + off[0]) = eval({}, prm);\n    }}",
        list(&|i| format!("*(const T{i}*)(p[{i}] + off[{i}])"))
    );
    s.push_str("    template <int V> METHOD void vec(char* const* p, u64 i, const u64* prm) {\n");
    for i in 1..n {
        let _ = writeln!(s, "        const Vec<T{i}, V> v{i} = ((const Vec<T{i}, V>*)p[{i}])[i];");
    }
    let _ = writeln!(
        s,
        "        Vec<T0, V> o;\n        for (int k = 0; k < V; k++) o.v[k] = eval({}, prm);\n        ((Vec<T0, V>*)p[0])[i] = o;\n    }}\n}};",
        list(&|i| format!("v{i}.v[k]"))
    );
    let _ = writeln!(s, "MAP_KERNELS({name}, r_{name})");
    Ok(s)
}

/// The dtype a reduction accumulates in.
pub fn reduce_compute(src: DType, dst: DType) -> DType {
    match (src, dst) {
        (s, _) if s.is_float() && !dst.is_float() => DType::F64, // counts: exact beyond 2^24
        (s, d) if s.is_float() => DType::promote(s.compute(), d.compute()),
        (DType::Bool, DType::Bool) => DType::U8,
        (s, DType::Bool) => s,
        (s, d) => DType::promote(s, d).compute(),
    }
}

/// What a reduction kernel computes.
#[derive(Clone, Copy, Debug)]
pub enum Fold {
    Reduce(ReduceOp),
    Arg(ArgOp),
}

impl Fold {
    pub fn name(self) -> String {
        match self {
            Fold::Reduce(ReduceOp::Row(id)) => id.row().name.to_string(),
            Fold::Reduce(ReduceOp::Var) => "var".into(),
            Fold::Reduce(ReduceOp::Std) => "std".into(),
            Fold::Arg(ArgOp::Max) => "argmax".into(),
            Fold::Arg(ArgOp::Min) => "argmin".into(),
        }
    }
    pub fn code(self) -> u16 {
        match self {
            Fold::Reduce(ReduceOp::Row(id)) => id.0,
            Fold::Reduce(ReduceOp::Var) => 0x400,
            Fold::Reduce(ReduceOp::Std) => 0x401,
            Fold::Arg(ArgOp::Max) => 0x402,
            Fold::Arg(ArgOp::Min) => 0x403,
        }
    }
    /// Bytes of one partial result.
    pub fn acc_size(self, compute: DType) -> usize {
        match self {
            Fold::Reduce(ReduceOp::Row(_)) => compute.size(),
            Fold::Reduce(_) => 3 * compute.size(),
            Fold::Arg(_) => compute.size().max(4) * 2,
        }
    }
}

pub fn reduce_name(fold: Fold, compute: DType, t: DType, d: DType, d2: DType) -> String {
    format!("reduce_{}_{}_{}_{}_{}", fold.name(), tag(compute), tag(t), tag(d), tag(d2))
}

/// The struct and the two kernels of one reduction.
pub fn reduce_kernels(fold: Fold, compute: DType, t: DType, d: DType, d2: DType) -> String {
    let name = reduce_name(fold, compute, t, d, d2);
    let mut s = format!(
        "struct r_{name} : Vocab {{\n    typedef {} T;\n    typedef {} D;\n    typedef {} D2;\n",
        storage(t),
        storage(d),
        storage(d2)
    );
    match fold {
        Fold::Reduce(ReduceOp::Row(id)) => {
            let r = id.row();
            let params = r.params.iter().enumerate().fold(String::new(), |mut s, (i, p)| {
                let _ = write!(s, " const A {p} = param<A>(prm + {i});");
                s
            });
            // The least value of an integer type is not the negative of its greatest.
            let start = r.start.cuda.replace("-A_INF", "A_NINF");
            let (map, combine, finish) = (r.map.cuda, r.combine.cuda, r.finish.cuda);
            let _ = write!(
                s,
                "    typedef A Acc;
    METHOD A start() {{ return (A)({start}); }}
    METHOD A combine(A a, A b) {{ return (A)({combine}); }}
    METHOD A step(A acc, const T& v, u32, const u64* prm) {{{params} const A x = cast<A>(v); return combine(acc, (A)({map})); }}
    METHOD D finish(A a, u32 n_, const u64* prm) {{{params} const A n = (A)n_; return cast<D>((A)({finish})); }}
    METHOD D2 finish2(A a) {{ return cast<D2>(a); }}\n"
            );
        }
        Fold::Reduce(op) => {
            let root = if op == ReduceOp::Std { "sqrt" } else { "" };
            let _ = write!(
                s,
                "    struct Acc {{ A mean, m2, n; }};
    METHOD Acc start() {{ Acc r; r.mean = 0; r.m2 = 0; r.n = 0; return r; }}
    METHOD Acc step(Acc a, const T& v, u32, const u64*) {{
        const A x = cast<A>(v), d = x - a.mean;
        a.n += A(1);
        a.mean += d / a.n;
        a.m2 += d * (x - a.mean);
        return a;
    }}
    METHOD Acc combine(Acc a, Acc b) {{
        if (b.n == A(0)) return a;
        if (a.n == A(0)) return b;
        Acc r;
        const A d = b.mean - a.mean;
        r.n = a.n + b.n;
        r.mean = a.mean + d * (b.n / r.n);
        r.m2 = a.m2 + b.m2 + d * d * (a.n * (b.n / r.n));
        return r;
    }}
    METHOD D finish(Acc a, u32, const u64* prm) {{
        const A f = a.n - param<A>(prm);
        return cast<D>({root}(a.n == A(0) ? A_NAN : a.m2 / (f > A(0) ? f : A(0))));
    }}
    METHOD D2 finish2(Acc a) {{ return cast<D2>(a.n == A(0) ? A_NAN : a.mean); }}\n"
            );
        }
        Fold::Arg(op) => {
            let better = if op == ArgOp::Max { ">" } else { "<" };
            let _ = write!(
                s,
                "    struct Acc {{ A v; u32 i; }};
    METHOD Acc start() {{ Acc r; r.v = A(0); r.i = 0xffffffffu; return r; }}
    METHOD Acc combine(Acc a, Acc b) {{
        if (a.i == 0xffffffffu) return b;
        if (b.i == 0xffffffffu) return a;
        const bool an = a.v != a.v, bn = b.v != b.v;
        if (an != bn) return an ? a : b;
        if (!an && a.v != b.v) return a.v {better} b.v ? a : b;
        return a.i < b.i ? a : b;
    }}
    METHOD Acc step(Acc a, const T& v, u32 i, const u64*) {{ Acc x; x.v = cast<A>(v); x.i = i; return combine(a, x); }}
    METHOD D finish(Acc a, u32, const u64*) {{ return cast<D>((i64)a.i); }}
    METHOD D2 finish2(Acc a) {{ return cast<D2>(a.v); }}\n"
            );
        }
    }
    let _ = writeln!(s, "}};\nREDUCE_KERNELS({name}, r_{name})");
    s
}
