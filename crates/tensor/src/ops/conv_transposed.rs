//! Transposed convolution: the input gradient of a convolution, as an operator. In three dimensions every tap in
//! depth is a 2-d one.

use super::conv::{check, fold_depth, has_other_path, input_grad, unbatch, unfold_depth, widened, window};
use super::nn_misc::{signed, sizes};
use super::windows;
use crate::tensor::Tensor;
use pyrite_core::backend::ConvGeometry;
use pyrite_core::{Result, bail, ensure};
use smallvec::{SmallVec, smallvec};

/// A batched transposed convolution over two dimensions, without bias.
fn transposed_nchw(x: &Tensor, w: &Tensor, geo: ConvGeometry, shape: &[usize]) -> Result<Tensor> {
    let [Some(wx), Some(ww), _] = widened([Some(x), Some(w), None])? else {
        bail!(Runtime, "conv_transpose: an operand is missing")
    };
    super::to_dtype(&input_grad(&wx, &ww, geo, shape)?, x.dtype())
}

/// The arguments of a transposed convolution.
#[derive(Clone, Copy)]
pub struct Transposed<'a> {
    pub stride: &'a [i64],
    pub padding: &'a [i64],
    pub output_padding: &'a [i64],
    pub groups: i64,
    pub dilation: &'a [i64],
}

/// Transposed convolution over `N` dimensions (1, 2 or 3).
pub fn conv_transpose<const N: usize>(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    t: Transposed,
) -> Result<Tensor> {
    let op = ["", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"][N.min(3)];
    let batched = check(op, N, x, w, bias, t.groups, true)?;
    let stride = sizes::<N>(op, "stride", t.stride, 1)?;
    let pad = sizes::<N>(op, "padding", t.padding, 0)?;
    let extra = sizes::<N>(op, "output_padding", t.output_padding, 0)?;
    let dilation = sizes::<N>(op, "dilation", t.dilation, 1)?;
    let x = if batched { x.clone() } else { super::unsqueeze(x, 0)? };
    let mut out = [0usize; N];
    for i in 0..N {
        ensure!(
            extra[i] < stride[i].max(dilation[i]),
            Runtime,
            "output padding must be smaller than either stride or dilation, but got output_padding: {extra:?}, stride: {stride:?}, dilation: {dilation:?}"
        );
        let full =
            (x.shape()[2 + i].max(1) - 1) * stride[i] + dilation[i] * (w.shape()[2 + i] - 1) + 1 + extra[i];
        ensure!(
            x.shape()[2 + i] > 0 && full > 2 * pad[i],
            Shape,
            "{op}: given input size per channel: {:?}, padding: {pad:?}: the calculated output size is too small",
            &x.shape()[2..]
        );
        out[i] = full - 2 * pad[i];
    }
    // Output padding of a whole stride or more (dilation allows it) is that many zeros after the input.
    let mut x = x;
    let mut extra = extra;
    for i in 0..N {
        if extra[i] >= stride[i] {
            let mut after: SmallVec<[i64; 6]> = smallvec![0; 2 * (N - i)];
            after[2 * (N - i) - 1] = (extra[i] / stride[i]) as i64;
            x = super::pad::pad(&x, &after, 0.0)?;
            extra[i] %= stride[i];
        }
    }
    let groups = t.groups as usize;
    let (n, k) = (x.shape()[0], w.shape()[1] * groups);
    let geo =
        |a: [usize; 2], p: [usize; 2], d: [usize; 2]| ConvGeometry { stride: a, pad: p, dilation: d, groups };
    let y = match N {
        _ if has_other_path(&x) => {
            let g = window(w, stride, pad, dilation);
            windows::conv_transposed(&x, w, g, groups, windows::three(out, 1))?
        }
        1 => {
            let g = geo([1, stride[0]], [0, pad[0]], [1, dilation[0]]);
            let y =
                transposed_nchw(&super::unsqueeze(&x, 2)?, &super::unsqueeze(w, 2)?, g, &[n, k, 1, out[0]])?;
            super::squeeze(&y, Some(&[2]))?
        }
        2 => {
            let g = geo([stride[0], stride[1]], [pad[0], pad[1]], [dilation[0], dilation[1]]);
            transposed_nchw(&x, w, g, &[n, k, out[0], out[1]])?
        }
        _ => {
            let g = geo([stride[1], stride[2]], [pad[1], pad[2]], [dilation[1], dilation[2]]);
            let d = Depth { stride: stride[0], pad: pad[0], extra: extra[0], dilation: dilation[0] };
            transposed_3d(&x, w, g, d, &[n * x.shape()[2], k, out[1], out[2]], out[0])?
        }
    };
    let y = match bias {
        Some(b) => {
            let mut shape: SmallVec<[i64; 6]> = smallvec![1; N + 2];
            shape[1] = -1;
            super::add(&y, &super::reshape(b, &shape)?)?
        }
        None => y,
    };
    unbatch(y, batched)
}

struct Depth {
    stride: usize,
    pad: usize,
    extra: usize,
    dilation: usize,
}

/// Every tap in depth is a transposed 2-d convolution of all slices, spread by the stride (zeros in
/// between, made by padding) and moved to its place; the sum is cropped by the padding.
fn transposed_3d(
    x: &Tensor,
    w: &Tensor,
    geo: ConvGeometry,
    d: Depth,
    shape: &[usize],
    out: usize,
) -> Result<Tensor> {
    let (n, slices) = (x.shape()[0], x.shape()[2]);
    let images = fold_depth(x)?;
    let taps = w.shape()[2];
    let mut sum: Option<Tensor> = None;
    for tap in 0..taps {
        let y = transposed_nchw(&images, &super::select(w, 2, tap as i64)?, geo, shape)?;
        let y = unfold_depth(&y, n)?;
        let s = signed(y.shape());
        let spread = super::pad::pad(&super::unsqueeze(&y, 3)?, &[0, 0, 0, 0, 0, d.stride as i64 - 1], 0.0)?;
        let spread = super::reshape(&spread, &[s[0], s[1], (slices * d.stride) as i64, s[3], s[4]])?;
        let before = (tap * d.dilation) as i64;
        let after = ((taps - 1 - tap) * d.dilation + d.extra) as i64;
        let placed = super::pad::pad(&spread, &[0, 0, 0, 0, before, after], 0.0)?;
        sum = Some(match sum {
            Some(t) => super::add(&t, &placed)?,
            None => placed,
        });
    }
    let Some(y) = sum else { bail!(Shape, "conv_transpose3d: empty kernel") };
    super::contiguous(&super::narrow(&y, 2, d.pad as i64, out as i64)?)
}
