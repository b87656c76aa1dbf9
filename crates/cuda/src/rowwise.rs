//! The rowwise family: softmax, cross-entropy and layer norm, forward and backward.

use crate::args::Dense;
use crate::device::{BLOCK, Cuda};
use crate::map;
use crate::source::{self, Key};
use pyrite_core::backend::{Arr, Rowwise, unsupported};
use pyrite_core::{DType, Result, bail, ensure};

pub const FAMILY_ROWWISE: u8 = 6;

#[repr(C)]
struct RowArgs {
    ptr: [*mut u8; 8],
    prm: [f64; 4],
    rows: i64,
    n: i64,
    ignore: i64,
    lanes: u32,
    flag: i32,
}

const KERNELS: [&str; 8] = [
    "softmax",
    "softmax_backward",
    "logsumexp",
    "cross_entropy",
    "cross_entropy_backward",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_columns",
];

/// The module for rows of `t` with statistics of `l`: title, text, kernel names.
pub fn module(t: DType, l: DType) -> Result<(String, String, Vec<String>)> {
    let name = format!("rowwise_{}_{}", source::tag(t), source::tag(l));
    let mut text = source::begin(t.compute(), &[source::ROWWISE])?;
    text.push_str(&format!("ROW_KERNELS({name}, {}, {})\n", source::storage(t), source::storage(l)));
    let names = KERNELS.map(|k| format!("{name}_{k}")).to_vec();
    Ok((name, text, names))
}

/// One operand of a call: what the kernel gets is always dense.
struct Slot<'a> {
    arr: Option<Arr<'a>>,
    /// The dtype the kernel expects.
    dtype: DType,
    write: bool,
}

fn input<'a>(arr: Arr<'a>, dtype: DType) -> Slot<'a> {
    Slot { arr: Some(arr), dtype, write: false }
}
fn output<'a>(arr: Arr<'a>, dtype: DType) -> Slot<'a> {
    Slot { arr: Some(arr), dtype, write: true }
}
fn maybe<'a>(arr: Option<Arr<'a>>, dtype: DType, write: bool) -> Slot<'a> {
    Slot { arr, dtype, write }
}

struct Call<'a> {
    kernel: usize,
    rows: usize,
    n: usize,
    slots: Vec<Slot<'a>>,
    prm: f64,
    ignore: i64,
    flag: bool,
}

fn rows_of(x: &Arr) -> (usize, usize) {
    let n = x.shape.last().copied().unwrap_or(1);
    (x.shape[..x.shape.len().saturating_sub(1)].iter().product(), n)
}

fn run(c: &Cuda, t: DType, l: DType, call: Call) -> Result<()> {
    let name = KERNELS[call.kernel];
    if !t.is_float() || !l.is_float() {
        bail!(NotImplemented, "{name} of {t} is not implemented on CUDA");
    }
    if call.rows == 0 || call.n == 0 {
        return Ok(());
    }
    let key = Key { family: FAMILY_ROWWISE, op: call.kernel as u16, formula: 0, compute: t.compute() };
    let kernel = c.kernel(key.pack(&[t, l]), || {
        let (title, text, names) = module(t, l)?;
        Ok((title, text, vec![names[call.kernel].clone()]))
    })?[0];
    let columns = call.kernel == 7;
    let lanes = (call.n.div_ceil(4).next_power_of_two()).min(BLOCK as usize) as u32;
    let mut a = RowArgs {
        ptr: [std::ptr::null_mut(); 8],
        prm: [call.prm, 0.0, 0.0, 0.0],
        rows: call.rows as i64,
        n: call.n as i64,
        ignore: call.ignore,
        lanes,
        flag: call.flag as i32,
    };
    // Operands that are not dense, or of another dtype, pass through dense copies.
    let mut copies: Vec<(usize, Dense)> = Vec::new();
    for (i, s) in call.slots.iter().enumerate() {
        let Some(x) = &s.arr else { continue };
        if x.dtype == s.dtype && x.is_contiguous() {
            a.ptr[i] = x.ptr;
            continue;
        }
        let like = Arr { dtype: s.dtype, ..*x };
        let dense = Dense::like(c, &like)?;
        if !s.write {
            map::copy(c, dense.arr(&like), *x)?;
        }
        a.ptr[i] = dense.storage.ptr();
        copies.push((i, dense));
    }
    let blocks = if columns { call.n.div_ceil(32) } else { call.rows.div_ceil((BLOCK / lanes) as usize) };
    let grid = blocks.min(c.api.processors() as usize * 64).max(1) as u32;
    // SAFETY: RowArgs is what the kernels take; every operand is dense, of the dtype the kernel was
    // made for, and of the size checked by the caller.
    unsafe { c.launch(kernel, (grid, 1), &a)? };
    for (i, dense) in &copies {
        if let Some(Slot { arr: Some(x), dtype, write: true }) = call.slots.get(*i) {
            map::copy(c, *x, dense.arr(&Arr { dtype: *dtype, ..*x }))?;
        }
    }
    Ok(())
}

fn same(name: &str, a: &Arr, b: &Arr) -> Result<()> {
    ensure!(a.shape == b.shape, Shape, "{name}: shapes {:?} and {:?} differ", a.shape, b.shape);
    Ok(())
}

fn sized(name: &str, what: &str, a: &Arr, n: usize) -> Result<()> {
    ensure!(a.numel() == n, Shape, "{name}: {what} has {} elements, expected {n}", a.numel());
    Ok(())
}

pub fn rowwise(c: &Cuda, r: Rowwise) -> Result<()> {
    c.check()?;
    match r {
        Rowwise::Softmax { x, y, log } => {
            same("softmax", &x, &y)?;
            let ((rows, n), t) = (rows_of(&x), x.dtype);
            let slots = vec![input(x, t), output(y, t)];
            run(c, t, t, Call { kernel: 0, rows, n, slots, prm: 0.0, ignore: 0, flag: log })
        }
        Rowwise::SoftmaxBackward { dy, y, dx, log } => {
            same("softmax backward", &dy, &y)?;
            same("softmax backward", &dx, &y)?;
            let ((rows, n), t) = (rows_of(&y), y.dtype);
            let slots = vec![input(dy, t), input(y, t), output(dx, t)];
            run(c, t, t, Call { kernel: 1, rows, n, slots, prm: 0.0, ignore: 0, flag: log })
        }
        Rowwise::LogSumExp { x, y } => {
            let ((rows, n), t) = (rows_of(&x), x.dtype);
            sized("logsumexp", "result", &y, rows)?;
            let slots = vec![input(x, t), output(y, t)];
            run(c, t, t, Call { kernel: 2, rows, n, slots, prm: 0.0, ignore: 0, flag: false })
        }
        Rowwise::CrossEntropy { x, target, weight, ignore, smoothing, loss, lse } => {
            let ((rows, n), t, l) = (rows_of(&x), x.dtype, lse.dtype);
            for (what, a) in [("target", &target), ("loss", &loss), ("lse", &lse)] {
                sized("cross_entropy", what, a, rows)?;
            }
            if let Some(w) = &weight {
                sized("cross_entropy", "weight", w, n)?;
            }
            let slots = vec![
                input(x, t),
                input(target, DType::I64),
                maybe(weight, t, false),
                output(loss, l),
                output(lse, l),
            ];
            run(c, t, l, Call { kernel: 3, rows, n, slots, prm: smoothing, ignore, flag: false })
        }
        Rowwise::CrossEntropyBackward { x, target, weight, ignore, smoothing, lse, scale, dx } => {
            let ((rows, n), t, l) = (rows_of(&x), x.dtype, lse.dtype);
            same("cross_entropy backward", &x, &dx)?;
            for (what, a) in [("target", &target), ("scale", &scale), ("lse", &lse)] {
                sized("cross_entropy backward", what, a, rows)?;
            }
            let slots = vec![
                input(x, t),
                input(target, DType::I64),
                maybe(weight, t, false),
                input(lse, l),
                input(scale, l),
                output(dx, t),
            ];
            run(c, t, l, Call { kernel: 4, rows, n, slots, prm: smoothing, ignore, flag: false })
        }
        Rowwise::LayerNorm { x, w, b, y, mean, rstd, eps, rms } => {
            same("layer_norm", &x, &y)?;
            let ((rows, n), t, l) = (rows_of(&x), x.dtype, rstd.dtype);
            sized("layer_norm", "rstd", &rstd, rows)?;
            let slots = vec![
                input(x, t),
                maybe(w, t, false),
                maybe(b, t, false),
                output(y, t),
                maybe(mean, l, true),
                output(rstd, l),
            ];
            run(c, t, l, Call { kernel: 5, rows, n, slots, prm: eps, ignore: 0, flag: rms })
        }
        Rowwise::LayerNormBackward { dy, x, w, mean, rstd, dx, dw, db, rms } => {
            same("layer_norm backward", &dy, &x)?;
            let ((rows, n), t, l) = (rows_of(&x), x.dtype, rstd.dtype);
            if let Some(dx) = dx {
                let slots = vec![
                    input(dy, t),
                    input(x, t),
                    maybe(w, t, false),
                    maybe(mean, l, false),
                    input(rstd, l),
                    output(dx, t),
                ];
                run(c, t, l, Call { kernel: 6, rows, n, slots, prm: 0.0, ignore: 0, flag: rms })?;
            }
            if dw.is_some() || db.is_some() {
                let slots = vec![
                    input(dy, t),
                    input(x, t),
                    maybe(mean, l, false),
                    input(rstd, l),
                    maybe(dw, t, true),
                    maybe(db, t, true),
                ];
                run(c, t, l, Call { kernel: 7, rows, n, slots, prm: 0.0, ignore: 0, flag: rms })?;
            }
            Ok(())
        }
        Rowwise::BatchStats { .. } | Rowwise::BatchNorm { .. } | Rowwise::BatchNormBackward { .. } => {
            unsupported(c.device, "batch norm")
        }
    }
}
