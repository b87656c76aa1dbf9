//! The optimizer family: one launch updates up to 24 parameters.

use crate::device::Cuda;
use crate::source::{self, Key};
use pyrite_core::backend::{OptimParam, OptimStep};
use pyrite_core::{DType, Result, bail, ensure};

pub const FAMILY_OPTIM: u8 = 5;
const TENSORS: usize = 24;

#[repr(C)]
struct OptimArgs {
    p: [*mut u8; TENSORS],
    g: [*const u8; TENSORS],
    s: [[*mut u8; TENSORS]; 3],
    n: [i64; TENSORS],
    prm: [f64; 8],
    flags: [i32; 4],
}

/// The module for one dtype: title, text, kernel names.
pub fn module(d: DType) -> Result<(String, String, Vec<String>)> {
    let name = format!("optim_{}", source::tag(d));
    let mut text = source::begin(d.compute(), &[source::OPTIM])?;
    text.push_str(&format!("OPTIM_KERNELS({name}, {})\n", source::storage(d)));
    let names = ["sgd", "adam", "rmsprop"].map(|k| format!("{name}_{k}")).to_vec();
    Ok((name, text, names))
}

pub fn optim(c: &Cuda, step: OptimStep, params: &[OptimParam]) -> Result<()> {
    c.check()?;
    let mut prm = [0.0; 8];
    let (which, flags, states, name) = match step {
        OptimStep::Sgd { lr, momentum, dampening, weight_decay, nesterov, maximize, first } => {
            prm[..4].copy_from_slice(&[lr, momentum, dampening, weight_decay]);
            let flags = [nesterov as i32, maximize as i32, first as i32, 0];
            (0, flags, if momentum != 0.0 { [true, false, false] } else { [false; 3] }, "sgd")
        }
        OptimStep::Adam { lr, beta1, beta2, eps, weight_decay, decoupled, amsgrad, maximize, step } => {
            let c1 = 1.0 - beta1.powf(step as f64);
            let c2 = (1.0 - beta2.powf(step as f64)).sqrt();
            prm[..7].copy_from_slice(&[
                lr / c1,
                beta1,
                beta2,
                eps,
                weight_decay,
                c2,
                1.0 - lr * weight_decay,
            ]);
            (1, [decoupled as i32, maximize as i32, amsgrad as i32, 0], [true, true, amsgrad], "adam")
        }
        OptimStep::RmsProp { lr, alpha, eps, weight_decay, momentum, centered, maximize } => {
            prm[..5].copy_from_slice(&[lr, alpha, eps, weight_decay, momentum]);
            (2, [centered as i32, maximize as i32, 0, 0], [true, momentum != 0.0, centered], "rmsprop")
        }
    };
    // Parameters of one dtype share launches, in the order they come.
    let mut dtypes: Vec<DType> = params.iter().map(|p| p.p.dtype).collect();
    dtypes.sort();
    dtypes.dedup();
    for d in dtypes {
        if !d.is_float() {
            bail!(NotImplemented, "{name}: parameters of {d} are not supported on CUDA");
        }
        let key = Key { family: FAMILY_OPTIM, op: which as u16, formula: 0, compute: d.compute() };
        let kernel = c.kernel(key.pack(&[d]), || {
            let (title, text, names) = module(d)?;
            Ok((title, text, vec![names[which].clone()]))
        })?[0];
        let mine: Vec<&OptimParam> = params.iter().filter(|p| p.p.dtype == d).collect();
        for chunk in mine.chunks(TENSORS) {
            let null = std::ptr::null_mut();
            let mut a = OptimArgs {
                p: [null; TENSORS],
                g: [null; TENSORS],
                s: [[null; TENSORS]; 3],
                n: [0; TENSORS],
                prm,
                flags,
            };
            let mut longest = 0;
            for (k, p) in chunk.iter().enumerate() {
                let n = p.p.numel();
                ensure!(
                    p.g.dtype == d && p.g.numel() == n && p.p.is_contiguous() && p.g.is_contiguous(),
                    Runtime,
                    "{name}: parameter of shape {:?} ({d}) and gradient of shape {:?} ({}) must be dense and alike",
                    p.p.shape,
                    p.g.shape,
                    p.g.dtype
                );
                a.p[k] = p.p.ptr;
                a.g[k] = p.g.ptr;
                a.n[k] = n as i64;
                longest = longest.max(n);
                for s in 0..3 {
                    if !states[s] {
                        continue;
                    }
                    match &p.state[s] {
                        Some(x) if x.dtype == d && x.numel() == n && x.is_contiguous() => a.s[s][k] = x.ptr,
                        Some(x) => bail!(
                            Runtime,
                            "{name}: state {s} of shape {:?} ({}) must be dense and like its parameter",
                            x.shape,
                            x.dtype
                        ),
                        None => bail!(Runtime, "{name}: state {s} is missing"),
                    }
                }
            }
            if longest > 0 {
                // SAFETY: OptimArgs is what the kernel takes; dtypes, sizes and density were checked.
                unsafe { c.launch(kernel, (c.grid(longest), chunk.len() as u32), &a)? };
            }
        }
    }
    Ok(())
}
