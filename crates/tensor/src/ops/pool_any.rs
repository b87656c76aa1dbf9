//! Pooling of integers: windows as columns, then a reduction. No gradients, exact arithmetic.

use super::Operand;
use super::pool::{Divisor, Window, WithIndices};
use super::windows::{columns, deep, three};
use crate::tensor::Tensor;
use pyrite_core::backend::{ArgOp, Index, WindowGeometry};
use pyrite_core::{DType, Dims, Result, Scalar, ensure};
use smallvec::smallvec;

/// A window over `N` dimensions in three, the input and the result's sizes to match.
struct Setup {
    g: WindowGeometry,
    x: Tensor,
    space: [usize; 3],
    out: [usize; 3],
}

fn setup<const N: usize>(op: &str, x: &Tensor, w: Window<N>) -> Result<Setup> {
    let g = WindowGeometry {
        kernel: three(w.kernel, 1),
        stride: three(w.stride, 1),
        pad: three(w.pad, 0),
        dilation: three(w.dilation, 1),
    };
    let x = deep(&super::to_dtype(x, DType::I64)?, N)?;
    let space = [x.shape()[2], x.shape()[3], x.shape()[4]];
    let mut out = [1; 3];
    for i in 0..N {
        out[3 - N + i] = w.out(i, space[3 - N + i]);
    }
    ensure!(
        out.iter().all(|o| *o > 0),
        Runtime,
        "{op}: Given input size {:?}, the calculated output size {out:?} is too small",
        x.shape()
    );
    Ok(Setup { g, x, space, out })
}

impl Setup {
    /// The positions of the windows in row-major order.
    fn places(&self) -> impl Iterator<Item = [usize; 3]> {
        let [a, b, c] = self.out;
        (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| [i, j, k])))
    }
    /// Columns as [N, C, taps, positions].
    fn columns(&self, fill: i64) -> Result<Tensor> {
        let cols = columns(&self.x, self.g, self.out, Scalar::Int(fill))?;
        let taps: usize = self.g.kernel.iter().product();
        let s = self.x.shape();
        super::reshape_to(&cols, &[s[0], s[1], taps, cols.shape()[2]])
    }
    fn finish<const N: usize>(&self, t: &Tensor) -> Result<Tensor> {
        let mut shape: Dims = smallvec![self.x.shape()[0], self.x.shape()[1]];
        shape.extend_from_slice(&self.out[3 - N..]);
        super::reshape_to(t, &shape)
    }
}

/// Maxima of [N, C, space...] and their flat positions.
pub fn max<const N: usize>(op: &str, x: &Tensor, w: Window<N>, want_idx: bool) -> Result<WithIndices> {
    let s = setup(op, x, w)?;
    let cols = s.columns(i64::MIN)?;
    let (n, c, taps, len) = (cols.shape()[0], cols.shape()[1], cols.shape()[2], cols.shape()[3]);
    let new = || Tensor::empty(&[n, c, 1, len], DType::I64, x.device());
    let (values, tap) = (new()?, new()?);
    if values.numel() > 0 {
        values.backend()?.arg_reduce(ArgOp::Max, tap.arr(), Some(values.arr()), cols.arr(), 2)?;
    }
    let y = super::to_dtype(&s.finish::<N>(&values)?, x.dtype())?;
    if !want_idx {
        return Ok((y, None));
    }
    // Where tap t of each window lies.
    let [_, h, wide] = s.space;
    let mut table = Vec::with_capacity(taps * len);
    for t in 0..taps {
        let k = [t / (s.g.kernel[1] * s.g.kernel[2]), t / s.g.kernel[2] % s.g.kernel[1], t % s.g.kernel[2]];
        for o in s.places() {
            let at: [usize; 3] = std::array::from_fn(|d| {
                (o[d] * s.g.stride[d] + k[d] * s.g.dilation[d]).saturating_sub(s.g.pad[d]).min(s.space[d] - 1)
            });
            table.push(((at[0] * h + at[1]) * wide + at[2]) as i64);
        }
    }
    let table = super::expand_to(&Tensor::from_slice(&table, &[1, 1, taps, len])?, cols.shape())?;
    let idx = new()?;
    if idx.numel() > 0 {
        idx.backend()?.index(Index::Gather { dst: idx.arr(), src: table.arr(), idx: tap.arr(), dim: 2 })?;
    }
    Ok((y, Some(s.finish::<N>(&idx)?)))
}

/// Means, rounded towards zero as integer division does.
pub fn average<const N: usize>(op: &str, x: &Tensor, w: Window<N>, by: Divisor) -> Result<Tensor> {
    let s = setup(op, x, w)?;
    let sums = super::sum(&s.columns(0)?, Some(&[2]), false, None)?;
    let divisors: Vec<i64> = s
        .places()
        .map(|o| {
            if let Some(d) = by.fixed {
                return d as i64;
            }
            (0..3)
                .map(|d| {
                    let (pad, size) = (s.g.pad[d] as i64, s.space[d] as i64);
                    let from = (o[d] * s.g.stride[d]) as i64 - pad;
                    let to = (from + s.g.kernel[d] as i64).min(size + pad);
                    if by.count_pad { to - from } else { to.min(size) - from.max(0) }
                })
                .product::<i64>()
                .max(1)
        })
        .collect();
    let by = Tensor::from_slice(&divisors, &[1, 1, divisors.len()])?;
    // The divisor may be negative if the user gave it.
    let sign = super::mul(&super::sign(&sums)?, &super::sign(&by)?)?;
    let size = super::floor_divide(&super::abs(&sums)?, &super::abs(&by)?)?;
    let y = super::mul(&sign, Operand::Tensor(&size))?;
    super::to_dtype(&s.finish::<N>(&y)?, x.dtype())
}
