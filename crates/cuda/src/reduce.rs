//! The reduce family: rows of the reduction table, variance, arg-extrema. Decides how a block's
//! threads are shared between outputs and the reduced dimension, and when two passes pay.

use crate::args::{Div, MAX_INDEX};
use crate::device::{BLOCK, Cuda};
use crate::source::{self, Fold, Key};
use pyrite_core::backend::Arr;
use pyrite_core::plan::MAX_DIMS;
use pyrite_core::{Result, Scalar, bail, ensure};

pub const FAMILY_REDUCE: u8 = 4;

#[repr(C)]
pub struct ReduceArgs {
    src: *const u8,
    dst: *mut u8,
    dst2: *mut u8,
    partial: *mut u8,
    prm: [u64; 4],
    outputs: u32,
    reduced: u32,
    chunk: u32,
    lanes: u32,
    inner: i32,
    odims: i32,
    rdims: i32,
    oshape: [Div; MAX_DIMS],
    rshape: [Div; MAX_DIMS],
    ostrides: [[i64; MAX_DIMS]; 3],
    rstrides: [i64; MAX_DIMS],
}

/// Dimensions with byte strides of src, dst, dst2; innermost first after `tidy`.
type Dim = (usize, [i64; 3]);

/// Sorts by the source's stride and merges neighbours.
fn tidy(mut dims: Vec<Dim>, sort: bool) -> Vec<Dim> {
    dims.reverse();
    if sort {
        dims.sort_by_key(|d| d.1[0].abs());
    }
    let mut out: Vec<Dim> = Vec::new();
    for d in dims {
        if let Some(last) = out.last_mut()
            && (0..3).all(|k| d.1[k] == last.1[k] * last.0 as i64)
        {
            last.0 *= d.0;
            continue;
        }
        out.push(d);
    }
    out
}

/// How the work is laid out: see reduce.cuh.
pub struct Shape {
    pub lanes: u32,
    pub inner: bool,
    pub grid: (u32, u32),
    pub chunk: u32,
}

pub fn arrange(outputs: usize, reduced: usize, inner: bool, processors: u32) -> Shape {
    let block = BLOCK as usize;
    // Each thread takes at least four elements before another one helps.
    let useful = reduced.div_ceil(4).next_power_of_two().clamp(1, block);
    let lanes = if inner {
        useful
    } else {
        // Warps walk the outputs; the rest of the block shares the reduced dimension where there are
        // too few outputs to fill the device.
        let room = if outputs >= processors as usize * 1024 {
            1
        } else if outputs >= 32 {
            block / 32
        } else {
            block / outputs.next_power_of_two()
        };
        useful.min(room)
    };
    let per_block = block / lanes;
    let blocks = outputs.div_ceil(per_block);
    let target = processors as usize * 4;
    let mut chunks = 1;
    if blocks < target && reduced >= lanes * 64 {
        chunks = (target / blocks).min(reduced / (lanes * 16)).clamp(1, 1024);
    }
    let chunk = reduced.div_ceil(chunks).max(1);
    let chunks = reduced.div_ceil(chunk).max(1);
    Shape {
        lanes: lanes as u32,
        inner,
        grid: (blocks.min(processors as usize * 64).max(1) as u32, chunks as u32),
        chunk: chunk as u32,
    }
}

pub fn reduce(
    c: &Cuda,
    fold: Fold,
    dst: Arr,
    dst2: Option<Arr>,
    src: Arr,
    reduced_dims: &[bool],
    params: &[f64],
) -> Result<()> {
    c.check()?;
    let name = fold.name();
    let n = src.shape.len();
    ensure!(
        dst.shape.len() == n && reduced_dims.len() == n,
        Shape,
        "{name}: result of shape {:?} for an input of shape {:?}",
        dst.shape,
        src.shape
    );
    let size = |a: &Arr| a.dtype.size() as i64;
    let (mut kept, mut gone) = (Vec::<Dim>::new(), Vec::<Dim>::new());
    let (mut outputs, mut reduced) = (1usize, 1usize);
    for d in 0..n {
        let ss = src.strides[d] as i64 * size(&src);
        if reduced_dims[d] {
            reduced = reduced.saturating_mul(src.shape[d]);
            if src.shape[d] != 1 {
                gone.push((src.shape[d], [ss, 0, 0]));
            }
        } else {
            outputs = outputs.saturating_mul(src.shape[d]);
            if src.shape[d] != 1 {
                let s2 = dst2.map_or(0, |a| a.strides[d] as i64 * size(&a));
                kept.push((src.shape[d], [ss, dst.strides[d] as i64 * size(&dst), s2]));
            }
        }
    }
    if outputs == 0 {
        return Ok(());
    }
    if outputs > MAX_INDEX || reduced > MAX_INDEX {
        bail!(
            NotImplemented,
            "{name}: {outputs} results of {reduced} elements each; at most {MAX_INDEX} of either are supported on CUDA, reduce in parts"
        );
    }
    // The position of an arg-extremum is counted in the tensor's own order.
    let gone = tidy(gone, matches!(fold, Fold::Reduce(_)));
    let kept = tidy(kept, true);
    if kept.len() > MAX_DIMS || gone.len() > MAX_DIMS {
        bail!(
            Runtime,
            "{name}: shape {:?} needs too many loop dimensions; call .contiguous() first",
            src.shape
        );
    }
    let inner = match (gone.first(), kept.first()) {
        (Some(g), Some(k)) => g.1[0].abs() <= k.1[0].abs(),
        _ => true,
    };
    let shape = arrange(outputs, reduced, inner, c.api.processors());
    let compute = source::reduce_compute(src.dtype, if dst2.is_some() { src.dtype } else { dst.dtype });
    let compute = match fold {
        Fold::Arg(_) if src.dtype.is_bool() => pyrite_core::DType::U8,
        Fold::Arg(_) => src.dtype.compute(),
        Fold::Reduce(_) => compute,
    };
    let d2 = dst2.map_or(dst.dtype, |a| a.dtype);
    let key = Key { family: FAMILY_REDUCE, op: fold.code(), formula: 0, compute };
    let kernels = c.kernel(key.pack(&[src.dtype, dst.dtype, d2]), || {
        let name = source::reduce_name(fold, compute, src.dtype, dst.dtype, d2);
        let mut text = source::begin(compute, &[source::REDUCE])?;
        text.push_str(&source::reduce_kernels(fold, compute, src.dtype, dst.dtype, d2));
        Ok((name.clone(), text, vec![format!("{name}_1"), format!("{name}_2")]))
    })?;
    let mut a = ReduceArgs {
        src: src.ptr,
        dst: dst.ptr,
        dst2: dst2.map_or(std::ptr::null_mut(), |a| a.ptr),
        partial: std::ptr::null_mut(),
        prm: [0; 4],
        outputs: outputs as u32,
        reduced: reduced as u32,
        chunk: shape.chunk,
        lanes: shape.lanes,
        inner: shape.inner as i32,
        odims: kept.len() as i32,
        rdims: gone.len() as i32,
        oshape: [Div::default(); MAX_DIMS],
        rshape: [Div::default(); MAX_DIMS],
        ostrides: [[0; MAX_DIMS]; 3],
        rstrides: [0; MAX_DIMS],
    };
    for (slot, p) in a.prm.iter_mut().zip(params) {
        let b = Scalar::Float(*p).to_bytes(compute);
        *slot = u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    }
    for (d, k) in kept.iter().enumerate() {
        a.oshape[d] = Div::new(k.0);
        for i in 0..3 {
            a.ostrides[i][d] = k.1[i];
        }
    }
    for (d, g) in gone.iter().enumerate() {
        a.rshape[d] = Div::new(g.0);
        a.rstrides[d] = g.1[0];
    }
    let mut _work = None;
    if shape.grid.1 > 1 {
        let bytes = outputs * shape.grid.1 as usize * fold.acc_size(compute);
        let s = c.allocate(bytes)?;
        a.partial = s.ptr();
        _work = Some(s);
    }
    // SAFETY: the kernel takes ReduceArgs, was generated for these dtypes, and the caller of the
    // backend vouches for the arrays. The workspace may be given back right after queueing: memory is
    // reused in stream order.
    unsafe {
        c.launch(kernels[0], shape.grid, &a)?;
        if shape.grid.1 > 1 {
            a.chunk = shape.grid.1;
            let blocks = outputs.min(c.api.processors() as usize * 64) as u32;
            c.launch(kernels[1], (blocks, 1), &a)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_covered_and_blocks_are_full() {
        for outputs in [1usize, 2, 31, 32, 1000, 1 << 20] {
            for reduced in [0usize, 1, 2, 10, 1000, 1 << 24] {
                for inner in [false, true] {
                    let s = arrange(outputs, reduced, inner, 132);
                    assert!(s.lanes.is_power_of_two() && s.lanes <= BLOCK);
                    assert!(s.grid.1 as usize * s.chunk as usize >= reduced);
                    assert!(s.grid.1 == 1 || (s.grid.1 as usize - 1) * (s.chunk as usize) < reduced);
                }
            }
        }
    }
}
