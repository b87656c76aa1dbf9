//! Any-stride access for the families that work on rows: offsets of flat positions, staging of rows
//! into dense f32 or f64 scratch and back, and per-row numbers.

use crate::simd::{Arch, ArchKernel, F32Lanes, Lanes, dispatch};
use pyrite_core::half::{bf16, f16};
use pyrite_core::{Arr, DType, Result, bail};

/// A pointer that chunks of a parallel region share; each chunk writes its own part.
#[derive(Clone, Copy)]
pub struct Ptr<T = u8>(pub *mut T);
// SAFETY: whoever dereferences it answers for disjointness; the wrapper itself is a number.
unsafe impl<T> Send for Ptr<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Ptr<T> {}

impl<T> Ptr<T> {
    /// The pointer (a method, so that closures capture the wrapper and not its field).
    #[inline(always)]
    pub fn get(self) -> *mut T {
        self.0
    }
}

/// Element offset of flat row-major position `i`.
#[inline]
pub fn offset(shape: &[usize], strides: &[isize], mut i: usize) -> isize {
    let mut off = 0;
    for (&n, &s) in shape.iter().zip(strides).rev() {
        let n = n.max(1);
        off += (i % n) as isize * s;
        i /= n;
    }
    off
}

/// The one stride that walks all dimensions in row-major order, if there is one.
pub fn uniform(shape: &[usize], strides: &[isize]) -> Option<isize> {
    let mut found: Option<(isize, usize)> = None;
    for (&n, &s) in shape.iter().zip(strides).rev() {
        if n == 1 {
            continue;
        }
        match found {
            None => found = Some((s, n)),
            Some((step, len)) if s == step * len as isize => found = Some((step, len * n)),
            _ => return None,
        }
    }
    Some(found.map_or(0, |f| f.0))
}

/// Calls `f(offset, stride, count)` for stretches that cover the flat positions `start..start + len`
/// in order; offsets and strides count elements.
pub fn for_runs(
    shape: &[usize],
    strides: &[isize],
    start: usize,
    len: usize,
    mut f: impl FnMut(isize, isize, usize),
) {
    if len == 0 {
        return;
    }
    if let Some(step) = uniform(shape, strides) {
        return f(start as isize * step, step, len);
    }
    // More than one dimension here, or `uniform` had found the stride.
    let last = shape.len() - 1;
    let (n, s) = (shape[last], strides[last]);
    let (mut row, mut col, mut left) = (start / n, start % n, len);
    while left > 0 {
        let k = left.min(n - col);
        f(offset(&shape[..last], &strides[..last], row) + col as isize * s, s, k);
        left -= k;
        row += 1;
        col = 0;
    }
}

/// The type a kernel computes in: f32 (also for the half types) or f64.
pub trait Compute: Copy + Send + Sync + PartialOrd + 'static {
    const DTYPE: DType;
    fn of(v: f64) -> Self;
    fn f64(self) -> f64;
    fn plus(a: Self, b: Self) -> Self;
    /// The lane type of an instruction set.
    type V<A: Arch>: crate::simd::FloatLanes<Elem = Self>;
}
impl Compute for f32 {
    const DTYPE: DType = DType::F32;
    #[inline(always)]
    fn of(v: f64) -> f32 {
        v as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self as f64
    }
    #[inline(always)]
    fn plus(a: f32, b: f32) -> f32 {
        a + b
    }
    type V<A: Arch> = A::F32;
}
impl Compute for f64 {
    const DTYPE: DType = DType::F64;
    #[inline(always)]
    fn of(v: f64) -> f64 {
        v
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn plus(a: f64, b: f64) -> f64 {
        a + b
    }
    type V<A: Arch> = A::F64;
}

/// Runs `$body` with `$T` the compute type of a floating dtype; another dtype is an error naming `$op`.
#[macro_export]
macro_rules! compute_of {
    ($op:expr, $d:expr, |$T:ident| $body:expr) => {
        match $d {
            pyrite_core::DType::F32 | pyrite_core::DType::F16 | pyrite_core::DType::BF16 => {
                type $T = f32;
                $body
            }
            pyrite_core::DType::F64 => {
                type $T = f64;
                $body
            }
            d => pyrite_core::bail!(
                NotImplemented,
                "{}: not implemented for {d}; convert the input to a floating dtype first",
                $op
            ),
        }
    };
}

/// One element as f64.
/// # Safety
/// `p` points to a readable element of `d`.
#[inline]
pub unsafe fn read(d: DType, p: *const u8) -> f64 {
    // SAFETY: the caller's promise.
    unsafe {
        match d {
            DType::F32 => p.cast::<f32>().read_unaligned() as f64,
            DType::F64 => p.cast::<f64>().read_unaligned(),
            DType::F16 => p.cast::<f16>().read_unaligned().to_f64(),
            DType::BF16 => p.cast::<bf16>().read_unaligned().to_f64(),
            _ => f64::NAN,
        }
    }
}

/// Writes one element, rounded from f64.
/// # Safety
/// `p` points to a writable element of `d`.
#[inline]
pub unsafe fn write(d: DType, p: *mut u8, v: f64) {
    // SAFETY: the caller's promise.
    unsafe {
        match d {
            DType::F32 => p.cast::<f32>().write_unaligned(v as f32),
            DType::F64 => p.cast::<f64>().write_unaligned(v),
            DType::F16 => p.cast::<f16>().write_unaligned(f16::from_f64(v)),
            DType::BF16 => p.cast::<bf16>().write_unaligned(bf16::from_f64(v)),
            _ => {}
        }
    }
}

/// Dense half-precision numbers to f32 or back.
struct Halves {
    half: *mut u16,
    full: *mut f32,
    n: usize,
    brain: bool,
    narrow: bool,
}

impl ArchKernel for Halves {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let step = A::F32::N;
        let mut i = 0;
        while i < self.n {
            // The tail goes through a buffer of one vector.
            let k = step.min(self.n - i);
            let (mut h, mut f) = ([0u16; 16], [0f32; 16]);
            // SAFETY: `k` elements from `i` on are inside both arrays (`Stage` made this with `n`
            // elements each); whole vectors are only touched if k == step, else the local buffers
            // of 16 >= step elements.
            unsafe {
                let (mut hp, mut fp) = (self.half.add(i), self.full.add(i));
                if k < step {
                    if self.narrow {
                        std::ptr::copy_nonoverlapping(fp, f.as_mut_ptr(), k);
                    } else {
                        std::ptr::copy_nonoverlapping(hp, h.as_mut_ptr(), k);
                    }
                    (hp, fp) = (h.as_mut_ptr(), f.as_mut_ptr());
                }
                match (self.narrow, self.brain) {
                    (false, false) => A::F32::load_f16(hp).store(fp),
                    (false, true) => A::F32::load_bf16(hp).store(fp),
                    (true, false) => A::F32::load(fp).store_f16(hp),
                    (true, true) => A::F32::load(fp).store_bf16(hp),
                }
                if k < step {
                    if self.narrow {
                        std::ptr::copy_nonoverlapping(hp, self.half.add(i), k);
                    } else {
                        std::ptr::copy_nonoverlapping(fp, self.full.add(i), k);
                    }
                }
            }
            i += step;
        }
    }
}

/// Reads `n` elements at `p` with a stride into dense scratch.
/// # Safety
/// All `n` elements are readable, `out` has room for `n`.
pub unsafe fn gather<T: Compute>(d: DType, p: *const u8, stride: isize, n: usize, out: *mut T) {
    // SAFETY: the caller's promise covers every element touched here; `out` is dense.
    unsafe {
        if d == T::DTYPE {
            let p = p.cast::<T>();
            if stride == 1 {
                std::ptr::copy_nonoverlapping(p, out, n);
            } else {
                for i in 0..n {
                    *out.add(i) = p.offset(i as isize * stride).read_unaligned();
                }
            }
        } else if stride == 1 && T::DTYPE == DType::F32 && d.size() == 2 {
            let half = p.cast_mut().cast();
            dispatch(Halves { half, full: out.cast(), n, brain: d == DType::BF16, narrow: false });
        } else {
            for i in 0..n {
                *out.add(i) = T::of(read(d, p.offset(i as isize * stride * d.size() as isize)));
            }
        }
    }
}

/// Writes `n` dense numbers to elements at `p` with a stride.
/// # Safety
/// All `n` elements are writable, `src` has `n` numbers.
pub unsafe fn scatter<T: Compute>(d: DType, p: *mut u8, stride: isize, n: usize, src: *const T) {
    // SAFETY: as in `gather`.
    unsafe {
        if d == T::DTYPE {
            let p = p.cast::<T>();
            if stride == 1 {
                std::ptr::copy_nonoverlapping(src, p, n);
            } else {
                for i in 0..n {
                    p.offset(i as isize * stride).write_unaligned(*src.add(i));
                }
            }
        } else if stride == 1 && T::DTYPE == DType::F32 && d.size() == 2 {
            let full = src.cast_mut().cast();
            dispatch(Halves { half: p.cast(), full, n, brain: d == DType::BF16, narrow: true });
        } else {
            for i in 0..n {
                write(d, p.offset(i as isize * stride * d.size() as isize), (*src.add(i)).f64());
            }
        }
    }
}

/// The flat positions `start..start + n` of an array into dense scratch.
/// # Safety
/// The positions are inside the array, whose memory is readable; `out` has room for `n`.
pub unsafe fn gather_flat<T: Compute>(a: &Arr, start: usize, n: usize, mut out: *mut T) {
    let size = a.dtype.size() as isize;
    for_runs(a.shape, a.strides, start, n, |off, stride, k| {
        // SAFETY: the runs stay inside the array, and their lengths add up to `n`.
        unsafe {
            gather(a.dtype, a.ptr.offset(off * size), stride, k, out);
            out = out.add(k);
        }
    });
}

/// Dense numbers to the flat positions `start..start + n`.
/// # Safety
/// The positions are inside the array, whose memory is writable; `src` has `n` numbers.
pub unsafe fn scatter_flat<T: Compute>(a: &Arr, start: usize, n: usize, mut src: *const T) {
    let size = a.dtype.size() as isize;
    for_runs(a.shape, a.strides, start, n, |off, stride, k| {
        // SAFETY: as in `gather_flat`.
        unsafe {
            scatter(a.dtype, a.ptr.offset(off * size), stride, k, src);
            src = src.add(k);
        }
    });
}

/// An array as rows along its last dimension (one row of one element for rank 0).
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    ptr: Ptr,
    pub dtype: DType,
    pub rows: usize,
    pub n: usize,
    /// Stride inside a row, in elements.
    pub stride: isize,
    step: Option<isize>,
    shape: &'a [usize],
    strides: &'a [isize],
}

impl<'a> Rows<'a> {
    pub fn new(a: &Arr<'a>) -> Rows<'a> {
        let (n, stride, lead) = match a.shape.len() {
            0 => (1, 1, 0),
            r => (a.shape[r - 1], a.strides[r - 1], r - 1),
        };
        let (shape, strides) = (&a.shape[..lead], &a.strides[..lead]);
        let rows = shape.iter().product();
        let stride = if n == 1 { 1 } else { stride };
        Rows {
            ptr: Ptr(a.ptr),
            dtype: a.dtype,
            rows,
            n,
            stride,
            step: uniform(shape, strides),
            shape,
            strides,
        }
    }
    /// Every element as a row of its own: per-row numbers such as a loss.
    pub fn scalars(a: &Arr<'a>) -> Rows<'a> {
        let step = uniform(a.shape, a.strides);
        let (shape, strides) = (a.shape, a.strides);
        Rows { ptr: Ptr(a.ptr), dtype: a.dtype, rows: a.numel(), n: 1, stride: 1, step, shape, strides }
    }
    /// First element of row `r`.
    #[inline]
    pub fn row(&self, r: usize) -> *mut u8 {
        let off = match self.step {
            Some(s) => r as isize * s,
            None => offset(self.shape, self.strides, r),
        };
        self.ptr.get().wrapping_offset(off * self.dtype.size() as isize)
    }
    /// Can a kernel of compute type `T` work on the rows where they lie?
    #[inline]
    pub fn direct<T: Compute>(&self) -> bool {
        self.dtype == T::DTYPE && self.stride == 1
    }
    /// Row `r` as dense `T`: itself, or a copy in `scratch` (`n` elements).
    /// # Safety
    /// `r < rows`, the array is readable, `scratch` has room for `n` unless `direct`.
    #[inline]
    pub unsafe fn get<T: Compute>(&self, r: usize, scratch: *mut T) -> *const T {
        let p = self.row(r);
        if self.direct::<T>() {
            return p.cast();
        }
        // SAFETY: the caller's promise.
        unsafe { gather(self.dtype, p, self.stride, self.n, scratch) };
        scratch
    }
    /// Where a kernel writes row `r`: the row, or `scratch`, to be followed by `put`.
    #[inline]
    pub fn out<T: Compute>(&self, r: usize, scratch: *mut T) -> *mut T {
        if self.direct::<T>() { self.row(r).cast() } else { scratch }
    }
    /// Stores what a kernel left in `scratch` (nothing to do if it wrote the row itself).
    /// # Safety
    /// `r < rows`, the array is writable, `scratch` holds `n` numbers unless `direct`.
    #[inline]
    pub unsafe fn put<T: Compute>(&self, r: usize, scratch: *const T) {
        if !self.direct::<T>() {
            // SAFETY: the caller's promise.
            unsafe { scatter(self.dtype, self.row(r), self.stride, self.n, scratch) };
        }
    }
    /// The number of row `r` (for `scalars`).
    /// # Safety
    /// `r < rows` and the array is readable.
    #[inline]
    pub unsafe fn num(&self, r: usize) -> f64 {
        // SAFETY: the caller's promise.
        unsafe { read(self.dtype, self.row(r)) }
    }
    /// # Safety
    /// `r < rows` and the array is writable.
    #[inline]
    pub unsafe fn set(&self, r: usize, v: f64) {
        // SAFETY: the caller's promise.
        unsafe { write(self.dtype, self.row(r), v) }
    }
}

/// The same dtype for arrays of one kernel, or an error that names the op.
pub fn same_dtype(op: &str, a: &Arr, others: &[&Arr]) -> Result<()> {
    for o in others {
        if o.dtype != a.dtype {
            bail!(
                Type,
                "{op}: expected {} for all inputs but found {}; convert one of them",
                a.dtype,
                o.dtype
            );
        }
    }
    Ok(())
}
