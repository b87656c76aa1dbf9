//! Every kernel the backend can ask for, as modules: what CI compiles for each architecture on a
//! machine without a GPU, so that no row and no dtype meets the compiler for the first time at a user's.

use crate::map;
use crate::nvrtc;
use crate::source::{self, Fold};
use crate::{optim, random, rowwise};
use pyrite_core::backend::{ArgOp, ReduceOp};
use pyrite_core::rows::REDUCTIONS;
use pyrite_core::{DType, Result};

/// A kernel source and the kernels in it.
pub struct Module {
    pub title: String,
    pub source: String,
    pub kernels: Vec<String>,
}

/// Reductions of one input dtype: every op with the result dtypes the tensor layer asks for.
pub fn reductions(t: DType) -> Vec<(Fold, DType, DType, DType)> {
    let mut out = Vec::new();
    for r in REDUCTIONS {
        let dst = match r.name {
            "count_nonzero" => DType::I64,
            "sum" | "prod" if !t.is_float() => DType::I64,
            _ => t,
        };
        let compute = source::reduce_compute(t, dst);
        if r.class.takes(compute) {
            out.push((Fold::Reduce(ReduceOp::Row(r.id)), compute, dst, dst));
        }
    }
    let compute = if t.is_bool() { DType::U8 } else { t.compute() };
    if t.is_float() {
        out.push((Fold::Reduce(ReduceOp::Var), compute, t, t));
        out.push((Fold::Reduce(ReduceOp::Std), compute, t, t));
    }
    out.push((Fold::Arg(ArgOp::Max), compute, DType::I64, t));
    out.push((Fold::Arg(ArgOp::Min), compute, DType::I64, t));
    out
}

pub fn modules() -> Result<Vec<Module>> {
    let mut out = Vec::new();
    let both = |n: &str, a: &str, b: &str| [format!("{n}_{a}"), format!("{n}_{b}")];
    for &d in DType::ALL {
        let mut text = source::begin(DType::F32, &[source::MAP, source::COPY])?;
        let (name, fill) = map::fill_source(d);
        text.push_str(&fill);
        let mut kernels = both(&name, "c", "s").to_vec();
        for &s in DType::ALL {
            let (name, copy) = map::copy_source(d, s);
            text.push_str(&copy);
            kernels.extend(both(&name, "c", "s"));
        }
        out.push(Module { title: format!("copy_all_{}", source::tag(d)), source: text, kernels });
        if d.is_complex() {
            continue;
        }
        let (title, source, kernels) = random::module(d)?;
        out.push(Module { title, source, kernels });
        let (text, rows) = map::all_rows(d)?;
        let kernels = rows.iter().flat_map(|(_, n)| both(n, "c", "s")).collect();
        out.push(Module { title: format!("map_all_{}", source::tag(d)), source: text, kernels });
        // One module per compute type: they share the vocabulary.
        let mut computes: Vec<DType> = reductions(d).iter().map(|r| r.1).collect();
        computes.sort();
        computes.dedup();
        for compute in computes {
            let mut text = source::begin(compute, &[source::REDUCE])?;
            let mut kernels = Vec::new();
            for (fold, _, dst, d2) in reductions(d).into_iter().filter(|r| r.1 == compute) {
                text.push_str(&source::reduce_kernels(fold, compute, d, dst, d2));
                kernels.extend(both(&source::reduce_name(fold, compute, d, dst, d2), "1", "2"));
            }
            let title = format!("reduce_all_{}_{}", source::tag(d), source::tag(compute));
            out.push(Module { title, source: text, kernels });
        }
        if d.is_float() {
            let (title, source, kernels) = optim::module(d)?;
            out.push(Module { title, source, kernels });
            let stats = if d.size() == 2 { vec![d, DType::F32] } else { vec![d] };
            for l in stats {
                let (title, source, kernels) = rowwise::module(d, l)?;
                out.push(Module { title, source, kernels });
            }
        }
    }
    Ok(out)
}

/// The two half types share everything but a conversion of two instructions: each architecture
/// compiles the largest module of one of them, which saves a quarter of the time.
fn skip(title: &str, arch: u32) -> bool {
    (arch < 90 && title == "map_all_bf16") || (arch >= 90 && title == "map_all_f16")
}

/// Compiles every module for `sm_<arch>` and checks that each promised kernel is in the cubin.
/// Returns the number of modules, kernels and bytes.
pub fn compile_all(arch: u32) -> Result<(usize, usize, usize)> {
    let (mut modules_done, mut kernels, mut bytes) = (0, 0, 0);
    for m in modules()? {
        if skip(&m.title, arch) {
            continue;
        }
        let cubin = nvrtc::cubin(&m.title, &m.source, arch)?;
        for k in &m.kernels {
            // A kernel's code lies in an ELF section named after it.
            let section = format!(".text.{k}\0");
            pyrite_core::ensure!(
                cubin.windows(section.len()).any(|w| w == section.as_bytes()),
                Runtime,
                "kernel {k} is missing from module {}",
                m.title
            );
        }
        modules_done += 1;
        kernels += m.kernels.len();
        bytes += cubin.len();
    }
    Ok((modules_done, kernels, bytes))
}
