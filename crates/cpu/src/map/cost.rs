//! What an element costs, roughly: decides whether an op is worth more than one thread.

use pyrite_core::backend::Formula;
use pyrite_core::rows::{ROWS, RowId, Text};
use std::sync::OnceLock;

/// Functions computed lane by lane or by long series.
const SLOW: &[&str] = &["pow", "lgamma", "digamma", "erfinv", "nextafter", "atan2", "hypot", "gcd"];
const FUNCTIONS: &[&str] = &[
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "sigmoid",
    "erf",
    "erfc",
    "fmod",
    "remainder",
    "floor_div",
];

fn of(t: &Text) -> u32 {
    let lets = t.lets.iter().map(|l| l.1);
    let words = lets.chain([t.body]).flat_map(|s| s.split(|c: char| !c.is_alphanumeric() && c != '_'));
    words.fold(40, |sum, w| {
        sum + if SLOW.contains(&w) {
            3000
        } else if FUNCTIONS.contains(&w) {
            300
        } else {
            0
        }
    })
}

/// Picoseconds per element of a row's formula, without the memory traffic.
pub fn ps_per_element(row: RowId, formula: Formula) -> u64 {
    static TABLE: OnceLock<Vec<(u32, u32)>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let grads = |r: &pyrite_core::rows::Row| r.grads.iter().map(|g| of(&g.text)).max().unwrap_or(0);
        ROWS.iter().map(|r| (of(&r.forward), grads(r))).collect()
    });
    let (forward, grad) = table[row.0 as usize];
    u64::from(if formula == Formula::Forward { forward } else { grad })
}
