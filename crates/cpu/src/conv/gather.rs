//! Panels of im2col: for up to `nr` output pixels side by side, the inputs each tap sees, row by row.

use crate::gemm::vector::Vector;

/// A run of output pixels in one output row: where it starts in the image, in the panel, and its length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    pub src: isize,
    pub dst: usize,
    pub len: usize,
}

/// `dst[p * nr + s.dst + i] = src[offsets[p] + s.src + i]` for every segment s.
///
/// Whole vectors are copied, so up to a vector beyond each segment is read and written; segments come
/// in order of `dst`, which makes the right values land last.
pub struct Gather<'a, T> {
    pub src: *const T,
    pub offsets: &'a [isize],
    pub segments: &'a [Segment],
    pub dst: *mut T,
    pub nr: usize,
}

pub type GatherFn<T> = unsafe fn(&Gather<T>);

/// # Safety
/// `src` is readable for every offset and segment and one vector beyond, `dst` writable for
/// `offsets.len() * nr` elements and one vector beyond.
#[inline(always)]
pub unsafe fn gather<V: Vector>(g: &Gather<V::T>) {
    // SAFETY: by the contract.
    unsafe {
        for (p, &offset) in g.offsets.iter().enumerate() {
            let (src, dst) = (g.src.offset(offset), g.dst.add(p * g.nr));
            for s in g.segments {
                let mut i = 0;
                while i < s.len {
                    V::load(src.offset(s.src).add(i)).store(dst.add(s.dst + i));
                    i += V::LANES;
                }
            }
        }
    }
}
