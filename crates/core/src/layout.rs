//! Shape, signed strides and offset of a tensor over its storage, and every view operation as a
//! pure `Layout -> Result<Layout>` with checked arithmetic. Nothing here touches memory.
//!
//! Strides and offset count elements, not bytes. Strides may be negative (`x[::-1]` is a view) or
//! zero (expanded dimensions).

use crate::{Result, bail, ensure, err};
use smallvec::SmallVec;

/// Sizes and strides without heap allocation up to six dimensions.
pub type Dims = SmallVec<[usize; 6]>;
pub type Strides = SmallVec<[isize; 6]>;

/// The largest rank of a tensor.
pub const MAX_RANK: usize = 64;

/// See the module text.
#[derive(PartialEq, Eq, Debug)]
pub struct Layout {
    shape: Dims,
    strides: Strides,
    offset: usize,
}

/// The number of elements of a shape; an error if it does not fit in memory's address range.
pub fn numel(shape: &[usize]) -> Result<usize> {
    // A zero anywhere makes the product zero whatever the other sizes are, as in PyTorch.
    if shape.contains(&0) {
        return Ok(0);
    }
    let n = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
    match n {
        Some(n) if n <= isize::MAX as usize => Ok(n),
        _ => bail!(Runtime, "numel: integer multiplication overflow for a tensor of shape {shape:?}"),
    }
}

/// Row-major strides of a shape.
pub fn contiguous_strides(shape: &[usize]) -> Strides {
    match shape {
        [] => return Strides::new(),
        [_] => return Strides::from_slice(&[1]),
        [_, n] => return Strides::from_slice(&[(*n).max(1) as isize, 1]),
        _ => {}
    }
    let mut strides: Strides = SmallVec::from_elem(0, shape.len());
    let mut step = 1isize;
    for d in (0..shape.len()).rev() {
        strides[d] = step;
        step = step.wrapping_mul(shape[d].max(1) as isize);
    }
    strides
}

/// Turns sizes given by a user into sizes, rejecting negative ones.
pub fn checked_shape(op: &str, sizes: &[i64]) -> Result<Dims> {
    ensure!(
        sizes.len() <= MAX_RANK,
        Runtime,
        "{op}: a tensor has at most {MAX_RANK} dimensions, got {}",
        sizes.len()
    );
    let mut out = Dims::new();
    for &s in sizes {
        ensure!(s >= 0, Runtime, "{op}: Trying to create tensor with negative dimension {s}: {sizes:?}");
        out.push(s as usize);
    }
    numel(&out)?;
    Ok(out)
}

/// `dim` in `-ndim..ndim` as an index; 0-d tensors accept -1 and 0 (PyTorch's wrap rule).
pub fn wrap_dim(op: &str, dim: i64, ndim: usize) -> Result<usize> {
    let n = ndim.max(1) as i64;
    if dim < -n || dim >= n {
        bail!(
            Index,
            "{op}: Dimension out of range (expected to be in range of [{}, {}], but got {dim})",
            -n,
            n - 1
        );
    }
    Ok(if dim < 0 { dim + n } else { dim } as usize)
}

/// The shape two shapes broadcast to.
pub fn broadcast(op: &str, a: &[usize], b: &[usize]) -> Result<Dims> {
    let n = a.len().max(b.len());
    let mut out: Dims = SmallVec::from_elem(1, n);
    for i in 0..n {
        let x = if i + a.len() >= n { a[i + a.len() - n] } else { 1 };
        let y = if i + b.len() >= n { b[i + b.len() - n] } else { 1 };
        out[i] = match (x, y) {
            (x, y) if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            _ => bail!(
                Shape,
                "{op}: The size of tensor a ({x}) must match the size of tensor b ({y}) at non-singleton dimension {i} (shapes {a:?} and {b:?} do not broadcast)"
            ),
        };
    }
    Ok(out)
}

impl Clone for Layout {
    /// By memcpy: SmallVec's own clone goes element by element.
    #[inline]
    fn clone(&self) -> Layout {
        Layout::of(&self.shape, &self.strides, self.offset)
    }
}

impl Layout {
    #[inline]
    pub fn contiguous(shape: &[usize]) -> Layout {
        Layout { shape: Dims::from_slice(shape), strides: contiguous_strides(shape), offset: 0 }
    }
    /// From parts, quickly.
    #[inline]
    pub fn of(shape: &[usize], strides: &[isize], offset: usize) -> Layout {
        debug_assert_eq!(shape.len(), strides.len());
        Layout { shape: Dims::from_slice(shape), strides: Strides::from_slice(strides), offset }
    }
    pub fn new(shape: impl Into<Dims>, strides: impl Into<Strides>, offset: usize) -> Layout {
        let l = Layout { shape: shape.into(), strides: strides.into(), offset };
        debug_assert_eq!(l.shape.len(), l.strides.len());
        l
    }
    #[inline]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    #[inline]
    pub fn strides(&self) -> &[isize] {
        &self.strides
    }
    #[inline]
    pub fn offset(&self) -> usize {
        self.offset
    }
    #[inline]
    pub fn ndim(&self) -> usize {
        self.shape.len()
    }
    /// Number of elements. Fits: every constructor checks it.
    #[inline]
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Lowest and highest element index reached (inclusive), or `None` for an empty layout.
    pub fn extent(&self) -> Option<(isize, isize)> {
        let (mut lo, mut hi) = (self.offset as isize, self.offset as isize);
        for (&n, &s) in self.shape.iter().zip(&self.strides) {
            if n == 0 {
                return None;
            }
            let reach = (n as isize - 1).checked_mul(s)?;
            if reach < 0 { lo = lo.checked_add(reach)? } else { hi = hi.checked_add(reach)? }
        }
        Some((lo, hi))
    }

    /// Row-major without gaps (sizes of 1 do not matter).
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1isize;
        for d in (0..self.ndim()).rev() {
            if self.shape[d] != 1 {
                if self.strides[d] != step {
                    return self.numel() == 0;
                }
                step *= self.shape[d] as isize;
            }
        }
        true
    }

    /// NHWC (or NDHWC) strides under a logical NCHW shape.
    pub fn is_channels_last(&self) -> bool {
        let n = self.ndim();
        if n != 4 && n != 5 {
            return false;
        }
        let mut step = 1isize;
        for d in std::iter::once(1).chain((2..n).rev()).chain(std::iter::once(0)) {
            if self.shape[d] != 1 {
                if self.strides[d] != step {
                    return false;
                }
                step *= self.shape[d] as isize;
            }
        }
        true
    }

    /// Some permutation of the dimensions is contiguous: every element once, no gaps.
    pub fn is_dense(&self) -> bool {
        let mut dims: SmallVec<[(isize, usize); 6]> =
            self.strides.iter().zip(&self.shape).filter(|(_, n)| **n != 1).map(|(s, n)| (*s, *n)).collect();
        dims.sort();
        let mut step = 1isize;
        for (s, n) in dims {
            if s != step {
                return false;
            }
            step *= n as isize;
        }
        true
    }

    /// Two indices may reach the same element (expanded tensors and some `as_strided` ones).
    pub fn may_self_overlap(&self) -> bool {
        let mut dims: SmallVec<[(usize, usize); 6]> = self
            .strides
            .iter()
            .zip(&self.shape)
            .filter(|(_, n)| **n > 1)
            .map(|(s, n)| (s.unsigned_abs(), *n))
            .collect();
        if self.numel() == 0 {
            return false;
        }
        dims.sort();
        let mut reach = 0usize;
        for (s, n) in dims {
            if s <= reach {
                return true;
            }
            reach += s * (n - 1);
        }
        false
    }

    // ---- views -------------------------------------------------------------------------------

    pub fn permute(&self, dims: &[i64]) -> Result<Layout> {
        let n = self.ndim();
        ensure!(
            dims.len() == n,
            Runtime,
            "permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired ordering of dimensions i.e. input.dim() = {n} is not equal to len(dims) = {}",
            dims.len()
        );
        let mut seen = [false; MAX_RANK];
        let (mut shape, mut strides) = (Dims::new(), Strides::new());
        for &d in dims {
            let d = wrap_dim("permute", d, n)?;
            ensure!(
                !std::mem::replace(&mut seen[d], true),
                Runtime,
                "permute(): duplicate dims are not allowed: {dims:?}"
            );
            shape.push(self.shape[d]);
            strides.push(self.strides[d]);
        }
        Ok(Layout { shape, strides, offset: self.offset })
    }

    pub fn transpose(&self, a: i64, b: i64) -> Result<Layout> {
        let (a, b) = (wrap_dim("transpose", a, self.ndim())?, wrap_dim("transpose", b, self.ndim())?);
        let mut out = self.clone();
        if self.ndim() > 0 {
            out.shape.swap(a, b);
            out.strides.swap(a, b);
        }
        Ok(out)
    }

    /// `x[start:start+len*step:step]` along `dim`. `start` may be any element (or one past it when
    /// `len == 0`); `step` may be negative.
    pub fn slice(&self, dim: usize, start: usize, len: usize, step: isize) -> Result<Layout> {
        let n = self.shape[dim];
        let last = start as isize + (len as isize - 1) * step;
        let ok = len == 0 || (start < n && last >= 0 && (last as usize) < n);
        ensure!(
            ok,
            Index,
            "slice: start {start} (length {len}, step {step}) is out of range for dimension {dim} of size {n}"
        );
        let mut out = self.clone();
        if len > 0 {
            out.offset = (self.offset as isize + start as isize * self.strides[dim]) as usize;
        }
        out.shape[dim] = len;
        out.strides[dim] = self.strides[dim]
            .checked_mul(step)
            .ok_or_else(|| err!(Value, "slice: step {step} is too large"))?;
        Ok(out)
    }

    /// `x[.., index, ..]`: the dimension goes away.
    pub fn select(&self, dim: usize, index: i64) -> Result<Layout> {
        let n = self.shape[dim] as i64;
        ensure!(
            index >= -n && index < n,
            Index,
            "select(): index {index} is out of bounds for dimension {dim} with size {n}"
        );
        let index = if index < 0 { index + n } else { index };
        let mut out = self.clone();
        out.offset = (self.offset as isize + index as isize * self.strides[dim]) as usize;
        out.shape.remove(dim);
        out.strides.remove(dim);
        Ok(out)
    }

    pub fn unsqueeze(&self, dim: usize) -> Result<Layout> {
        ensure!(self.ndim() < MAX_RANK, Runtime, "unsqueeze: a tensor has at most {MAX_RANK} dimensions");
        let mut out = self.clone();
        let stride = if dim < self.ndim() { self.shape[dim] as isize * self.strides[dim] } else { 1 };
        out.shape.insert(dim, 1);
        out.strides.insert(dim, stride);
        Ok(out)
    }

    /// Drops the given dimensions where their size is 1.
    pub fn squeeze(&self, drop: impl Fn(usize) -> bool) -> Layout {
        let mut out = Layout { shape: Dims::new(), strides: Strides::new(), offset: self.offset };
        for d in 0..self.ndim() {
            if !(self.shape[d] == 1 && drop(d)) {
                out.shape.push(self.shape[d]);
                out.strides.push(self.strides[d]);
            }
        }
        out
    }

    /// Broadcasts to `sizes`; -1 keeps a size.
    pub fn expand(&self, sizes: &[i64]) -> Result<Layout> {
        let n = self.ndim();
        ensure!(
            sizes.len() >= n && sizes.len() <= MAX_RANK,
            Runtime,
            "expand: the number of sizes provided ({}) must be greater or equal to the number of dimensions in the tensor ({n}); shape {:?} -> {sizes:?}",
            sizes.len(),
            &self.shape[..]
        );
        let lead = sizes.len() - n;
        let (mut shape, mut strides) = (Dims::new(), Strides::new());
        for (i, &want) in sizes.iter().enumerate() {
            if i < lead {
                ensure!(
                    want >= 0,
                    Runtime,
                    "expand: The expanded size of the tensor ({want}) isn't allowed in a leading, non-existing dimension {i}"
                );
                shape.push(want as usize);
                strides.push(0);
                continue;
            }
            let (have, stride) = (self.shape[i - lead], self.strides[i - lead]);
            if want == -1 || want == have as i64 {
                shape.push(have);
                strides.push(stride);
            } else {
                ensure!(
                    have == 1 && want >= 0,
                    Shape,
                    "expand: The expanded size of the tensor ({want}) must match the existing size ({have}) at non-singleton dimension {i}.  Target sizes: {sizes:?}.  Tensor sizes: {:?}",
                    &self.shape[..]
                );
                shape.push(want as usize);
                strides.push(0);
            }
        }
        numel(&shape)?;
        // A new dimension of size 1 is `unsqueeze`: its stride spans what lies inside it.
        for i in (0..lead).rev().filter(|i| sizes[*i] == 1) {
            strides[i] = match shape.get(i + 1) {
                Some(n) => (*n as isize).wrapping_mul(strides[i + 1]),
                None => 1,
            };
        }
        Ok(Layout { shape, strides, offset: self.offset })
    }

    /// The view with another shape over the same elements in the same order, if strides allow it.
    pub fn view(&self, shape: &[usize]) -> Option<Layout> {
        if self.numel() == 0 || self.is_contiguous() {
            let mut l = Layout::contiguous(shape);
            l.offset = self.offset;
            return Some(l);
        }
        // Walk both shapes from the back, chunk by chunk: a chunk of old dimensions that is
        // contiguous within itself can be cut anew.
        let mut strides: Strides = SmallVec::from_elem(0, shape.len());
        let mut new = shape.len();
        let mut old = self.ndim();
        while old > 0 {
            let base = self.strides[old - 1];
            let mut chunk = self.shape[old - 1];
            old -= 1;
            while old > 0 && (self.shape[old - 1] == 1 || self.strides[old - 1] == base * chunk as isize) {
                chunk *= self.shape[old - 1];
                old -= 1;
            }
            let mut step = base;
            let mut left = chunk;
            while new > 0 && (left > 1 || shape[new - 1] == 1) {
                let s = shape[new - 1];
                if !left.is_multiple_of(s) {
                    return None;
                }
                strides[new - 1] = step;
                step *= s as isize;
                left /= s;
                new -= 1;
            }
            if left != 1 {
                return None;
            }
        }
        (new == 0).then(|| Layout { shape: shape.into(), strides, offset: self.offset })
    }

    /// Dimensions `d1` and `d2` become one, the diagonal, at the end.
    pub fn diagonal(&self, offset: i64, d1: usize, d2: usize) -> Result<Layout> {
        ensure!(d1 != d2, Runtime, "diagonal dimensions cannot be identical {d1}, {d2}");
        let (h, w) = (self.shape[d1] as i64, self.shape[d2] as i64);
        let len = if offset >= 0 { h.min(w.saturating_sub(offset)) } else { w.min(h.saturating_add(offset)) }
            .max(0) as usize;
        let mut out = self.clone();
        if len > 0 {
            let start = if offset >= 0 {
                offset as isize * self.strides[d2]
            } else {
                -(offset as isize) * self.strides[d1]
            };
            out.offset = (self.offset as isize + start) as usize;
        }
        let stride = self.strides[d1] + self.strides[d2];
        let (hi, lo) = (d1.max(d2), d1.min(d2));
        for d in [hi, lo] {
            out.shape.remove(d);
            out.strides.remove(d);
        }
        out.shape.push(len);
        out.strides.push(stride);
        Ok(out)
    }

    /// Windows of `size` every `step` along `dim`, as a new last dimension.
    pub fn unfold(&self, dim: usize, size: usize, step: usize) -> Result<Layout> {
        let (n, stride) = if self.ndim() == 0 { (1, 1) } else { (self.shape[dim], self.strides[dim]) };
        ensure!(
            size <= n,
            Runtime,
            "unfold: maximum size for tensor at dimension {dim} is {n} but size is {size}"
        );
        ensure!(step > 0, Runtime, "unfold: step is {step} but must be > 0");
        let mut out = self.clone();
        if self.ndim() > 0 {
            out.shape[dim] = (n - size) / step + 1;
            out.strides[dim] = stride * step as isize;
        }
        out.shape.push(size);
        out.strides.push(stride);
        Ok(out)
    }

    /// Any shape, strides and offset, as long as it stays inside `capacity` elements.
    pub fn as_strided(shape: &[usize], strides: &[isize], offset: usize, capacity: usize) -> Result<Layout> {
        ensure!(
            shape.len() == strides.len(),
            Runtime,
            "as_strided: mismatch in length of strides and shape ({} and {})",
            strides.len(),
            shape.len()
        );
        numel(shape)?;
        let l = Layout { shape: shape.into(), strides: strides.into(), offset };
        if l.numel() > 0 {
            match l.extent() {
                Some((lo, hi)) if lo >= 0 && (hi as usize) < capacity => {}
                _ => bail!(
                    Runtime,
                    "as_strided: setStorage: sizes {shape:?}, strides {strides:?}, storage offset {offset} are out of bounds for storage of {capacity} elements"
                ),
            }
        }
        Ok(l)
    }

    /// Strides for a new tensor that keeps this layout's order of dimensions where it is dense
    /// (`torch.preserve_format`), else row-major.
    pub fn like_strides(&self) -> Strides {
        if self.is_contiguous() || !self.is_dense() || self.strides.iter().any(|s| *s < 0) {
            return contiguous_strides(&self.shape);
        }
        self.strides.clone()
    }
}

/// Channels-last strides for a logical N, C, spatial... shape.
pub fn channels_last_strides(shape: &[usize]) -> Strides {
    let n = shape.len();
    let mut strides: Strides = SmallVec::from_elem(0, n);
    let mut step = 1isize;
    for d in std::iter::once(1).chain((2..n).rev()).chain(std::iter::once(0)) {
        strides[d] = step;
        step = step.wrapping_mul(shape[d].max(1) as isize);
    }
    strides
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // In a test a panic is the report.
mod tests {
    use super::*;

    #[test]
    fn view_cuts_and_merges() {
        let l = Layout::contiguous(&[4, 6]).transpose(0, 1).unwrap();
        assert!(l.view(&[24]).is_none());
        assert_eq!(l.view(&[2, 3, 4]).unwrap().strides(), &[3, 1, 6]);
        assert_eq!(Layout::contiguous(&[4, 6]).view(&[2, 12]).unwrap().strides(), &[12, 1]);
        let flipped = Layout::contiguous(&[6]).slice(0, 5, 6, -1).unwrap();
        assert_eq!(flipped.view(&[2, 3]).unwrap().strides(), &[-3, -1]);
    }

    #[test]
    fn overlap() {
        assert!(Layout::contiguous(&[1, 3]).expand(&[4, 3]).unwrap().may_self_overlap());
        assert!(!Layout::contiguous(&[4, 3]).transpose(0, 1).unwrap().may_self_overlap());
    }

    #[test]
    fn huge_sizes_are_errors() {
        assert!(numel(&[1 << 40, 1 << 40]).is_err());
        assert!(Layout::contiguous(&[1]).expand(&[i64::MAX, i64::MAX]).is_err());
        assert_eq!(numel(&[1 << 62, 1 << 62, 0]).unwrap(), 0);
    }
}
