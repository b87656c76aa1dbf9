//! The structs kernels take by value, as their `.cuh` files declare them, and the index arithmetic
//! that fills them.

use crate::device::Cuda;
use pyrite_core::backend::Arr;
use pyrite_core::plan::{MAX_DIMS, MAX_OPERANDS, Operand, Plan};
use pyrite_core::{Layout, Result, Storage, bail};

/// Index arithmetic in kernels is 32 bits wide and right up to here.
pub const MAX_INDEX: usize = (1 << 31) - 1;

/// Twin of `Div` in prelude.cuh.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Div {
    pub d: u32,
    pub m: u32,
    pub s: u32,
}

impl Div {
    /// The multiplier and shift that divide by `d` (Granlund and Montgomery, PLDI 1994).
    pub fn new(d: usize) -> Div {
        let d = d.max(1) as u64;
        let s = 64 - (d - 1).leading_zeros();
        let s = if d == 1 { 0 } else { s };
        let m = ((1u64 << 32) * ((1u64 << s) - d)) / d + 1;
        Div { d: d as u32, m: m as u32, s }
    }
    #[cfg(test)]
    fn by(self, n: u32) -> u32 {
        let hi = (n as u64 * self.m as u64) >> 32;
        ((hi + n as u64) >> self.s) as u32
    }
}

#[repr(C)]
pub struct MapArgs {
    pub ptr: [*mut u8; MAX_OPERANDS],
    pub prm: [u64; 4],
    pub n: i64,
    pub vector: i32,
}

#[repr(C)]
pub struct StridedArgs {
    pub ptr: [*mut u8; MAX_OPERANDS],
    pub prm: [u64; 4],
    pub n: u32,
    pub ndim: i32,
    pub shape: [Div; MAX_DIMS],
    pub strides: [[i64; MAX_DIMS]; MAX_OPERANDS],
}

/// A plan over arrays that all have (or broadcast to) `shape`.
pub fn plan(op: &str, shape: &[usize], arrays: &[Arr]) -> Result<Plan> {
    let mut layouts: [Option<Layout>; MAX_OPERANDS] = [const { None }; MAX_OPERANDS];
    if arrays.len() > MAX_OPERANDS {
        bail!(Runtime, "{op}: too many operands");
    }
    for (l, a) in layouts.iter_mut().zip(arrays) {
        // The offset is in the pointer already; negative strides are relative to it.
        *l = Some(Layout::new(a.shape, a.strides, 0));
    }
    let mut operands = Vec::with_capacity(arrays.len());
    for (l, a) in layouts.iter().zip(arrays) {
        if let Some(layout) = l {
            operands.push(Operand { ptr: a.ptr, dtype: a.dtype, layout });
        }
    }
    Plan::new(op, shape, &operands)
}

/// Cuts a plan in two along its longest dimension until 32-bit indices reach everything.
pub fn split(plan: &Plan, f: &mut dyn FnMut(&Plan) -> Result<()>) -> Result<()> {
    if plan.numel <= MAX_INDEX {
        return f(plan);
    }
    let d = (0..plan.ndim).max_by_key(|d| plan.shape[*d]).unwrap_or(0);
    let half = plan.shape[d] / 2;
    let (mut a, mut b) = (*plan, *plan);
    a.shape[d] = half;
    b.shape[d] -= half;
    for p in [&mut a, &mut b] {
        p.numel = p.shape[..p.ndim].iter().product();
    }
    for k in 0..plan.operands {
        b.ptrs[k] = b.ptrs[k].wrapping_offset(half as isize * plan.strides[k][d]);
    }
    split(&a, f)?;
    split(&b, f)
}

/// A dense copy of an array, alive as long as its storage.
pub struct Dense {
    pub storage: Storage,
    strides: Vec<isize>,
}

pub fn dense_strides(shape: &[usize]) -> Vec<isize> {
    let mut out = vec![0; shape.len()];
    let mut step = 1isize;
    for (s, n) in out.iter_mut().zip(shape).rev() {
        *s = step;
        step *= (*n).max(1) as isize;
    }
    out
}

impl Dense {
    /// Uninitialised, of the shape and dtype of `like`.
    pub fn like(c: &Cuda, like: &Arr) -> Result<Dense> {
        Ok(Dense {
            storage: c.allocate(like.numel() * like.dtype.size())?,
            strides: dense_strides(like.shape),
        })
    }
    pub fn arr<'a>(&'a self, like: &Arr<'a>) -> Arr<'a> {
        Arr { ptr: self.storage.ptr(), dtype: like.dtype, shape: like.shape, strides: &self.strides }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_by_multiplication_is_exact() {
        let mut n = 1u64;
        for d in
            [1usize, 2, 3, 5, 7, 10, 12, 64, 100, 641, 1000, 65535, 65537, 1 << 20, MAX_INDEX - 1, MAX_INDEX]
        {
            let v = Div::new(d);
            for edge in [0u32, 1, 2, d as u32 - 1, d as u32, MAX_INDEX as u32] {
                assert_eq!(v.by(edge), edge / d as u32, "{edge} / {d}");
            }
            for _ in 0..1000 {
                n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let x = (n >> 33) as u32;
                assert_eq!(v.by(x), x / d as u32, "{x} / {d}");
            }
        }
    }
}
