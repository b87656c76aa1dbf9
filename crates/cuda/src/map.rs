//! The map family: a row of the op table over a plan, forward or fused gradient; and with the same
//! launch code, conversion and filling.

use crate::api::Way;
use crate::args::{self, Div, MapArgs, StridedArgs};
use crate::device::Cuda;
use crate::source::{self, Key};
use pyrite_core::backend::{Arr, Formula};
use pyrite_core::plan::{MAX_DIMS, MAX_OPERANDS, Plan};
use pyrite_core::rows::{RowId, flag};
use pyrite_core::{DType, Result, Scalar, bail, ensure};

pub const FAMILY_MAP: u8 = 1;
pub const FAMILY_COPY: u8 = 2;
pub const FAMILY_FILL: u8 = 3;

fn formula_code(f: Formula) -> u8 {
    match f {
        Formula::Forward => 0,
        Formula::Grad(i) => i + 1,
    }
}

pub fn map_key(row: RowId, formula: Formula, compute: DType, dtypes: &[DType]) -> u64 {
    Key { family: FAMILY_MAP, op: row.0, formula: formula_code(formula), compute }.pack(dtypes)
}

pub fn map(
    c: &Cuda,
    id: RowId,
    formula: Formula,
    compute: DType,
    plan: &Plan,
    params: &[Scalar],
) -> Result<()> {
    c.check()?;
    let row = id.row();
    ensure!(
        params.len() == row.params.len() && params.len() <= 4,
        Runtime,
        "{}: {} parameters given, the op has {}",
        row.name,
        params.len(),
        row.params.len()
    );
    if plan.numel == 0 {
        return Ok(());
    }
    let dtypes = &plan.dtypes[..plan.operands];
    let kernels = c.kernel(map_key(id, formula, compute, dtypes), || {
        let name = source::map_name(row, formula, compute, dtypes);
        let mut text = source::begin(compute, &[source::MAP])?;
        if row.has(flag::RARE) {
            text.push_str(&pyrite_special::cuda());
        }
        text.push_str(&source::map_kernels(row, formula, compute, dtypes)?);
        Ok((name.clone(), text, vec![format!("{name}_c"), format!("{name}_s")]))
    })?;
    let mut prm = [0u64; 4];
    for (slot, p) in prm.iter_mut().zip(params) {
        *slot = first8(p.to_bytes(compute));
    }
    // SAFETY: the kernels were generated for exactly these operands, and the caller of the backend
    // vouches for the plan's pointers.
    unsafe { run(c, kernels, plan, prm) }
}

fn first8(b: [u8; 16]) -> u64 {
    let mut out = [0u8; 8];
    out.copy_from_slice(&b[..8]);
    u64::from_le_bytes(out)
}

/// Launches the contiguous or the strided kernel of a pair.
///
/// # Safety
/// The kernels must take the plan's operands and dtypes; its pointers must be valid.
unsafe fn run(c: &Cuda, kernels: [crate::api::Kernel; 2], plan: &Plan, prm: [u64; 4]) -> Result<()> {
    let dtypes = &plan.dtypes[..plan.operands];
    if plan.is_contiguous() {
        let width = source::width(dtypes);
        let aligned =
            dtypes.iter().zip(&plan.ptrs).all(|(d, p)| (*p as usize).is_multiple_of(d.size() * width));
        let args = MapArgs { ptr: plan.ptrs, prm, n: plan.numel as i64, vector: aligned as i32 };
        let work = if aligned { plan.numel.div_ceil(width) } else { plan.numel };
        // SAFETY: MapArgs is what the contiguous kernel takes.
        return unsafe { c.launch(kernels[0], (c.grid(work), 1), &args) };
    }
    args::split(plan, &mut |p| {
        let mut args = StridedArgs {
            ptr: p.ptrs,
            prm,
            n: p.numel as u32,
            ndim: p.ndim as i32,
            shape: [Div::default(); MAX_DIMS],
            strides: [[0; MAX_DIMS]; MAX_OPERANDS],
        };
        for d in 0..p.ndim {
            args.shape[d] = Div::new(p.shape[d]);
            for k in 0..p.operands {
                args.strides[k][d] = p.strides[k][d] as i64;
            }
        }
        // SAFETY: StridedArgs is what the strided kernel takes.
        unsafe { c.launch(kernels[1], (c.grid(p.numel), 1), &args) }
    })
}

/// Name and text of the conversion kernels for one pair of dtypes.
pub fn copy_source(dst: DType, src: DType) -> (String, String) {
    let name = format!("copy_{}_{}", source::tag(dst), source::tag(src));
    let (d, s) = (source::storage(dst), source::storage(src));
    // A comma in a macro argument would split it: the type gets a name first.
    let text = format!("typedef CopyOp<{d}, {s}> op_{name};\nMAP_KERNELS({name}, op_{name})\n");
    (name, text)
}

pub fn fill_source(dst: DType) -> (String, String) {
    let name = format!("fill_{}", source::tag(dst));
    let text =
        format!("typedef FillOp<{}> op_{name};\nMAP_KERNELS({name}, op_{name})\n", source::storage(dst));
    (name, text)
}

pub fn copy(c: &Cuda, dst: Arr, src: Arr) -> Result<()> {
    c.check()?;
    ensure!(
        dst.shape == src.shape,
        Shape,
        "copy: source has shape {:?}, destination {:?}",
        src.shape,
        dst.shape
    );
    let plan = args::plan("copy", dst.shape, &[dst, src])?;
    if plan.numel == 0 {
        return Ok(());
    }
    if dst.dtype == src.dtype && plan.is_contiguous() {
        // SAFETY: the caller of the backend vouches for both arrays; they are dense and of one size.
        return unsafe { c.api.copy(Way::Within, plan.ptrs[0], plan.ptrs[1], plan.numel * dst.dtype.size()) };
    }
    let key = Key { family: FAMILY_COPY, op: 0, formula: 0, compute: DType::F32 };
    let kernels = c.kernel(key.pack(&[dst.dtype, src.dtype]), || {
        let (name, text) = copy_source(dst.dtype, src.dtype);
        let mut s = source::begin(DType::F32, &[source::MAP, source::COPY])?;
        s.push_str(&text);
        Ok((name.clone(), s, vec![format!("{name}_c"), format!("{name}_s")]))
    })?;
    // SAFETY: the kernels convert exactly these dtypes; the caller vouches for the arrays.
    unsafe { run(c, kernels, &plan, [0; 4]) }
}

pub fn fill(c: &Cuda, dst: Arr, value: Scalar) -> Result<()> {
    c.check()?;
    let plan = args::plan("fill_", dst.shape, &[dst])?;
    if plan.numel == 0 {
        return Ok(());
    }
    let bytes = value.to_bytes(dst.dtype);
    if plan.is_contiguous() && bytes.iter().all(|b| *b == 0) {
        // SAFETY: the caller of the backend vouches for the array, which is dense.
        return unsafe { c.api.zero(plan.ptrs[0], plan.numel * dst.dtype.size()) };
    }
    let key = Key { family: FAMILY_FILL, op: 0, formula: 0, compute: DType::F32 };
    let kernels = c.kernel(key.pack(&[dst.dtype]), || {
        let (name, text) = fill_source(dst.dtype);
        let mut s = source::begin(DType::F32, &[source::MAP, source::COPY])?;
        s.push_str(&text);
        Ok((name.clone(), s, vec![format!("{name}_c"), format!("{name}_s")]))
    })?;
    let mut high = [0u8; 8];
    high.copy_from_slice(&bytes[8..]);
    // SAFETY: the kernels fill this dtype; the caller vouches for the array.
    unsafe { run(c, kernels, &plan, [first8(bytes), u64::from_le_bytes(high), 0, 0]) }
}

/// Compiles every row, forward and gradients, for operands of one dtype into one module (seconds,
/// once per machine: the result is cached on disk), so that no later call waits for the compiler.
pub fn warmup(c: &Cuda, dtype: DType) -> Result<usize> {
    c.check()?;
    let (text, kernels) = all_rows(dtype)?;
    if kernels.is_empty() {
        bail!(NotImplemented, "warmup: no elementwise operation computes in {dtype}");
    }
    let names: Vec<String> = kernels.iter().flat_map(|(_, n)| [format!("{n}_c"), format!("{n}_s")]).collect();
    let found = c.api.load(&format!("map_all_{}", source::tag(dtype)), &text, &names)?;
    for ((key, _), pair) in kernels.iter().zip(found.chunks_exact(2)) {
        c.remember(*key, [pair[0], pair[1]]);
    }
    Ok(found.len())
}

/// One module with every row and gradient for operands of `dtype`: its text, and key and name of
/// each pair of kernels.
pub fn all_rows(dtype: DType) -> Result<(String, Vec<(u64, String)>)> {
    let compute = dtype.compute();
    let mut text = source::begin(compute, &[source::MAP])?;
    if compute.is_float() {
        text.push_str(&pyrite_special::cuda());
    }
    let mut kernels = Vec::new();
    for row in pyrite_core::rows::ROWS {
        if !row.class.takes(compute) {
            continue;
        }
        let mut formulas = vec![(Formula::Forward, row.inputs.len())];
        if compute.is_float() {
            formulas.extend(row.grads.iter().map(|g| (Formula::Grad(g.input), g.uses.len() + 1)));
        }
        for (formula, inputs) in formulas {
            let mut dtypes = vec![dtype; inputs + 1];
            if row.bool_out && formula == Formula::Forward {
                dtypes[0] = DType::Bool;
            }
            // The drivers pass conditions as bool tensors.
            if row.has(flag::CONDITION) {
                let names: Vec<&str> = match formula {
                    Formula::Forward => row.inputs.to_vec(),
                    Formula::Grad(i) => std::iter::once("g")
                        .chain(row.grad(i as usize).into_iter().flat_map(|g| {
                            g.uses.iter().map(|u| match u {
                                pyrite_core::rows::Use::Input(k) => row.inputs[*k as usize],
                                pyrite_core::rows::Use::Output => "y",
                            })
                        }))
                        .collect(),
                };
                for (i, n) in names.iter().enumerate() {
                    if *n == "c" || *n == "m" {
                        dtypes[i + 1] = DType::Bool;
                    }
                }
            }
            text.push_str(&source::map_kernels(row, formula, compute, &dtypes)?);
            kernels.push((
                map_key(row.id, formula, compute, &dtypes),
                source::map_name(row, formula, compute, &dtypes),
            ));
        }
    }
    Ok((text, kernels))
}
