//! Sliding windows: `unfold` makes each window a column, `fold` adds columns up where they came from.
//! They are each other's gradients. Convolutions and pooling of dtypes without kernels of their own
//! (integers, complex numbers) are composed of them.

use super::nn_misc::{compute_type, signed, sizes};
use crate::autograd::{self, needs_grad};
use crate::op;
use crate::registry::{Args, Op};
use crate::tensor::Tensor;
use pyrite_core::backend::{WindowGeometry, Windows};
use pyrite_core::{DType, Dims, Result, Scalar, bail, ensure};
use smallvec::smallvec;

/// Windows of [N, C, D, H, W] as columns [N, C * taps, positions]; `out` positions per dimension.
pub fn columns(x: &Tensor, g: WindowGeometry, out: [usize; 3], fill: Scalar) -> Result<Tensor> {
    let s = x.shape();
    ensure!(s.len() == 5, Shape, "unfold: expected (N, C, D, H, W), got {s:?}");
    let taps: usize = g.kernel.iter().product();
    let (channels, positions) = (s[1].checked_mul(taps), product(out));
    let (Some(rows), Some(positions)) = (channels, positions) else {
        bail!(Runtime, "unfold: windows of {:?} over {s:?} are too many", g.kernel)
    };
    let y = Tensor::empty(&[s[0], rows, positions], x.dtype(), x.device())?;
    if y.numel() > 0 {
        let src = super::contiguous(&x.detach())?;
        let (xs, cs) = ([s[0] * s[1], s[2], s[3], s[4]], [s[0] * s[1], taps, out[0], out[1], out[2]]);
        let xl = pyrite_core::Layout::contiguous(&xs);
        let cl = pyrite_core::Layout::contiguous(&cs);
        y.backend()?.windows(
            &g,
            Windows::Unfold {
                x: pyrite_core::Arr { ptr: src.ptr(), dtype: src.dtype(), shape: &xs, strides: xl.strides() },
                cols: pyrite_core::Arr { ptr: y.ptr(), dtype: y.dtype(), shape: &cs, strides: cl.strides() },
                fill,
            },
        )?;
    }
    if needs_grad(&[x]) {
        let space = [s[2], s[3], s[4]];
        autograd::attach("Im2ColBackward0", &[x], &[&y], &[], move |cx| {
            Ok(smallvec![Some(add_columns(&cx.grad(0)?, g, out, space)?)])
        });
    }
    Ok(y)
}

/// The transpose of [`columns`]: [N, C * taps, positions] to [N, C, space].
pub fn add_columns(cols: &Tensor, g: WindowGeometry, out: [usize; 3], space: [usize; 3]) -> Result<Tensor> {
    let s = cols.shape();
    let taps: usize = g.kernel.iter().product();
    ensure!(
        s.len() == 3 && s[1].is_multiple_of(taps.max(1)) && product(out) == Some(s[2]),
        Shape,
        "fold: columns of shape {s:?} do not fit windows of {:?} at {out:?} positions",
        g.kernel
    );
    let c = s[1] / taps.max(1);
    let shape = crate::tensor::shape_arg("fold", &signed(&[s[0], c, space[0], space[1], space[2]]))?;
    // Halves are added up in f32.
    let half = cols.dtype().is_float() && compute_type(cols.dtype()) != cols.dtype();
    let src = if half { super::to_dtype(&cols.detach(), DType::F32)? } else { cols.detach() };
    let y = Tensor::zeros(&shape, src.dtype(), cols.device())?;
    if y.numel() > 0 && cols.numel() > 0 {
        let src = super::contiguous(&src)?;
        let (xs, cs) = ([s[0] * c, space[0], space[1], space[2]], [s[0] * c, taps, out[0], out[1], out[2]]);
        let xl = pyrite_core::Layout::contiguous(&xs);
        let cl = pyrite_core::Layout::contiguous(&cs);
        y.backend()?.windows(
            &g,
            Windows::Fold {
                cols: pyrite_core::Arr {
                    ptr: src.ptr(),
                    dtype: src.dtype(),
                    shape: &cs,
                    strides: cl.strides(),
                },
                x: pyrite_core::Arr { ptr: y.ptr(), dtype: y.dtype(), shape: &xs, strides: xl.strides() },
            },
        )?;
    }
    let y = if half { super::to_dtype(&y, cols.dtype())? } else { y };
    if needs_grad(&[cols]) {
        autograd::attach("Col2ImBackward0", &[cols], &[&y], &[], move |cx| {
            Ok(smallvec![Some(columns(&cx.grad(0)?, g, out, Scalar::Int(0))?)])
        });
    }
    Ok(y)
}

fn product(v: [usize; 3]) -> Option<usize> {
    v[0].checked_mul(v[1])?.checked_mul(v[2])
}

/// Two-dimensional arguments in the order kernel, dilation, padding, stride.
fn geometry(op: &str, a: &Args, first: usize) -> Result<WindowGeometry> {
    let three = |v: [usize; 2], one: usize| [one, v[0], v[1]];
    Ok(WindowGeometry {
        kernel: three(sizes::<2>(op, "kernel_size", a.ints(first)?, 1)?, 1),
        dilation: three(sizes::<2>(op, "dilation", a.ints(first + 1)?, 1)?, 1),
        pad: three(sizes::<2>(op, "padding", a.ints(first + 2)?, 0)?, 0),
        stride: three(sizes::<2>(op, "stride", a.ints(first + 3)?, 1)?, 1),
    })
}

/// Number of windows along dimension `d` of size `n`; not positive if none fits.
fn count(g: &WindowGeometry, d: usize, n: usize) -> i64 {
    let room = (n + 2 * g.pad[d]) as i64 - (g.dilation[d] * (g.kernel[d] - 1)) as i64 - 1;
    room.div_euclid(g.stride[d] as i64) + 1
}

/// `F.unfold`: (N, C, H, W) or (C, H, W) to (N, C * taps, L).
fn unfold(x: &Tensor, g: WindowGeometry) -> Result<Tensor> {
    let s = x.shape();
    let batched = s.len() == 4;
    ensure!(
        (batched || s.len() == 3) && s[s.len() - 3..].iter().all(|n| *n > 0),
        Runtime,
        "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, but got: {s:?}"
    );
    let (h, w) = (s[s.len() - 2], s[s.len() - 1]);
    let (a, b) = (count(&g, 1, h), count(&g, 2, w));
    ensure!(
        a > 0 && b > 0,
        Runtime,
        "Given input with spatial size ({h}, {w}), kernel_size={:?}, dilation={:?}, padding={:?}, calculated shape of the array of sliding blocks as ({a}, {b}), but its components must be at least one.",
        &g.kernel[1..],
        &g.dilation[1..],
        &g.pad[1..]
    );
    let x = if batched { x.clone() } else { super::unsqueeze(x, 0)? };
    let y = columns(&super::unsqueeze(&x, 2)?, g, [1, a as usize, b as usize], Scalar::Int(0))?;
    if batched { Ok(y) } else { super::squeeze(&y, Some(&[0])) }
}

/// `F.fold`: (N, C * taps, L) or (C * taps, L) to (N, C, H, W).
fn fold(cols: &Tensor, size: &[i64], g: WindowGeometry) -> Result<Tensor> {
    let [h, w] = sizes::<2>("fold", "output_size", size, 1)?;
    let s = cols.shape();
    let batched = s.len() == 3;
    ensure!(
        (batched || s.len() == 2) && s[s.len() - 2..].iter().all(|n| *n > 0),
        Runtime,
        "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions for input, but got: {s:?}"
    );
    let (rows, len) = (s[s.len() - 2], s[s.len() - 1]);
    let taps: usize = g.kernel.iter().product();
    ensure!(
        rows.is_multiple_of(taps),
        Runtime,
        "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got input.size(1)={rows} and kernel_size={:?}.",
        &g.kernel[1..]
    );
    let (a, b) = (count(&g, 1, h), count(&g, 2, w));
    ensure!(
        a > 0 && b > 0 && a.checked_mul(b) == Some(len as i64),
        Runtime,
        "Given output_size=({h}, {w}), kernel_size={:?}, dilation={:?}, padding={:?}, stride={:?}, expected size of input's dimension 2 to match the calculated number of sliding blocks {a} * {b} = {}, but got input.size(2)={len}.",
        &g.kernel[1..],
        &g.dilation[1..],
        &g.pad[1..],
        &g.stride[1..],
        a.saturating_mul(b)
    );
    let cols = if batched { cols.clone() } else { super::unsqueeze(cols, 0)? };
    let y = add_columns(&cols, g, [1, a as usize, b as usize], [1, h, w])?;
    let y = super::squeeze(&y, Some(&[2]))?;
    if batched { Ok(y) } else { super::squeeze(&y, Some(&[0])) }
}

// ---- convolution without a kernel of its own -----------------------------------------------------

/// A batched convolution over the last `n` dimensions as one matrix product over columns.
pub fn conv(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    g: WindowGeometry,
    groups: usize,
) -> Result<Tensor> {
    let n = x.ndim() - 2;
    let (batch, k) = (x.shape()[0], w.shape()[0]);
    let x5 = deep(x, n)?;
    let mut out = [1; 3];
    for d in 0..3 {
        out[d] = count(&g, d, x5.shape()[2 + d]).max(0) as usize;
    }
    let cols = columns(&x5, g, out, Scalar::Int(0))?;
    let (rows, len) = (cols.shape()[1], cols.shape()[2]);
    let cols = super::reshape(&cols, &signed(&[batch, groups, rows / groups, len]))?;
    let w = super::reshape(w, &signed(&[1, groups, k / groups, rows / groups]))?;
    let mut shape: Dims = smallvec![batch, k];
    shape.extend_from_slice(&out[3 - n..]);
    let y = super::reshape_to(&super::matmul(&w, &cols)?, &shape)?;
    with_bias(y, bias)
}

/// The transposed convolution to `space`.
pub fn conv_transposed(
    x: &Tensor,
    w: &Tensor,
    g: WindowGeometry,
    groups: usize,
    space: [usize; 3],
) -> Result<Tensor> {
    let n = x.ndim() - 2;
    let (batch, c) = (x.shape()[0], x.shape()[1]);
    let per = w.numel() / c.max(1);
    let mut out = [1; 3];
    out[3 - n..].copy_from_slice(&x.shape()[2..]);
    let len: usize = out.iter().product();
    let x = super::reshape(x, &signed(&[batch, groups, c / groups, len]))?;
    let w = super::reshape(w, &signed(&[1, groups, c / groups, per]))?;
    let cols = super::matmul(&super::transpose(&w, -2, -1)?, &x)?;
    let cols = super::reshape(&cols, &signed(&[batch, groups * per, len]))?;
    let y = add_columns(&cols, g, out, space)?;
    let mut shape: Dims = smallvec![y.shape()[0], y.shape()[1]];
    shape.extend_from_slice(&space[3 - n..]);
    super::reshape_to(&y, &shape)
}

fn with_bias(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let Some(b) = bias else { return Ok(y) };
    let mut shape: smallvec::SmallVec<[i64; 6]> = smallvec![1; y.ndim()];
    shape[1] = -1;
    super::add(&y, &super::reshape(b, &shape)?)
}

/// [N, C, space...] with three spatial dimensions.
pub fn deep(x: &Tensor, n: usize) -> Result<Tensor> {
    let mut x = x.clone();
    for _ in n..3 {
        x = super::unsqueeze(&x, 2)?;
    }
    Ok(x)
}

/// `N` values as three, unused dimensions in front.
pub fn three<const N: usize>(v: [usize; N], unused: usize) -> [usize; 3] {
    let mut out = [unused; 3];
    out[3 - N..].copy_from_slice(&v);
    out
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "unfold",
        FUNCTION,
        ns = "nn",
        "Sliding windows of (N, C, H, W) as columns (N, C * kernel, L).",
        "input: Tensor, kernel_size: ints, dilation: ints = 1, padding: ints = 0, stride: ints = 1",
        |a| Ok(unfold(a.tensor(0)?, geometry("unfold", a, 1)?)?.into())
    );
    op!(
        list,
        "fold",
        FUNCTION,
        ns = "nn",
        "Columns (N, C * kernel, L) added up where `unfold` takes them from: (N, C, H, W).",
        "input: Tensor, output_size: ints, kernel_size: ints, dilation: ints = 1, padding: ints = 0, stride: ints = 1",
        |a| Ok(fold(a.tensor(0)?, a.ints(1)?, geometry("fold", a, 2)?)?.into())
    );
}
