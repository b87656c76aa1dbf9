//! Sliding windows as columns (`unfold`) and columns added up again (`fold`), over three dimensions.

use crate::pool::{chunks, parallel};
use crate::strided::Ptr;
use pyrite_core::backend::{WindowGeometry, Windows};
use pyrite_core::{Arr, DType, Result, Scalar, bail};

pub fn run(g: &WindowGeometry, w: Windows) -> Result<()> {
    match w {
        Windows::Unfold { x, cols, fill } => {
            let s = Shape::new("unfold", g, &x, &cols)?;
            let fill = bits_of(x.dtype, fill);
            match x.dtype.size() {
                1 => unfold::<u8>(&s, &x, &cols, fill[0]),
                2 => unfold::<u16>(&s, &x, &cols, u16::from_ne_bytes([fill[0], fill[1]])),
                4 => unfold::<u32>(&s, &x, &cols, u32::from_ne_bytes([fill[0], fill[1], fill[2], fill[3]])),
                8 => unfold::<u64>(&s, &x, &cols, u64::from_ne_bytes(fill)),
                // Complex128 windows are filled with zero.
                _ => unfold::<[u64; 2]>(&s, &x, &cols, [0, 0]),
            }
            Ok(())
        }
        Windows::Fold { cols, x } => {
            let s = Shape::new("fold", g, &x, &cols)?;
            match x.dtype {
                DType::F32 => fold::<f32>(&s, &cols, &x),
                DType::F64 => fold::<f64>(&s, &cols, &x),
                DType::I64 | DType::U64 => fold::<i64>(&s, &cols, &x),
                DType::I32 | DType::U32 => fold::<i32>(&s, &cols, &x),
                DType::I16 | DType::U16 => fold::<i16>(&s, &cols, &x),
                DType::I8 | DType::U8 => fold::<i8>(&s, &cols, &x),
                DType::C64 => fold::<[f32; 2]>(&s, &cols, &x),
                DType::C128 => fold::<[f64; 2]>(&s, &cols, &x),
                DType::Bool => fold::<Either>(&s, &cols, &x),
                d => bail!(NotImplemented, "fold: not implemented for {d}; convert with .float()"),
            }
            Ok(())
        }
    }
}

/// The bytes of a value of `d` (up to eight).
fn bits_of(d: DType, v: Scalar) -> [u8; 8] {
    use pyrite_core::half::{bf16, f16};
    let mut out = [0; 8];
    let mut put = |b: &[u8]| out[..b.len()].copy_from_slice(b);
    let i = match v {
        Scalar::Int(i) => i,
        v => v.f64() as i64,
    };
    match d {
        DType::F32 => put(&(v.f64() as f32).to_ne_bytes()),
        DType::F64 => put(&v.f64().to_ne_bytes()),
        DType::F16 => put(&f16::from_f64(v.f64()).to_ne_bytes()),
        DType::BF16 => put(&bf16::from_f64(v.f64()).to_ne_bytes()),
        DType::C64 => put(&(v.f64() as f32).to_ne_bytes()),
        DType::C128 => {}
        // Little-endian, as every supported machine: the low bytes are the narrower integer.
        _ => put(&i.to_ne_bytes()),
    }
    out
}

/// Sizes of both sides, checked.
struct Shape {
    g: WindowGeometry,
    planes: usize,
    x: [usize; 3],
    out: [usize; 3],
    taps: usize,
}

impl Shape {
    fn new(op: &str, g: &WindowGeometry, x: &Arr, cols: &Arr) -> Result<Shape> {
        let taps: usize = g.kernel.iter().product();
        let fits = x.shape.len() == 4
            && cols.shape.len() == 5
            && x.shape[0] == cols.shape[0]
            && cols.shape[1] == taps
            && x.dtype == cols.dtype
            && x.is_contiguous()
            && cols.is_contiguous();
        if !fits {
            bail!(
                Shape,
                "{op}: shapes {:?} and {:?} do not fit a window of {:?}",
                x.shape,
                cols.shape,
                g.kernel
            );
        }
        Ok(Shape {
            g: *g,
            planes: x.shape[0],
            x: [x.shape[1], x.shape[2], x.shape[3]],
            out: [cols.shape[2], cols.shape[3], cols.shape[4]],
            taps,
        })
    }
    /// Position read by output `o` at tap `k` of dimension `d`, if it lies inside.
    #[inline(always)]
    fn at(&self, d: usize, o: usize, k: usize) -> Option<usize> {
        (o * self.g.stride[d] + k * self.g.dilation[d]).checked_sub(self.g.pad[d]).filter(|p| *p < self.x[d])
    }
    /// The outputs of a row whose tap `k` lies inside: first and end.
    #[inline(always)]
    fn range(&self, k: usize) -> (usize, usize) {
        let (s, n) = (self.g.stride[2], self.out[2]);
        let off = k * self.g.dilation[2];
        let lo = self.g.pad[2].saturating_sub(off).div_ceil(s).min(n);
        let hi = (self.x[2] + self.g.pad[2]).saturating_sub(off).div_ceil(s).min(n);
        (lo, hi.max(lo))
    }
    fn image(&self) -> usize {
        self.x.iter().product()
    }
    fn block(&self) -> usize {
        self.out.iter().product()
    }
    fn tap(&self, t: usize) -> [usize; 3] {
        let [_, kh, kw] = self.g.kernel;
        [t / (kh * kw), t / kw % kh, t % kw]
    }
}

fn unfold<T: Copy + Sync>(s: &Shape, x: &Arr, cols: &Arr, fill: T) {
    let (image, block) = (s.image(), s.block());
    let total = s.planes * s.taps;
    let (src, dst) = (Ptr(x.ptr), Ptr(cols.ptr));
    let (k, each) = chunks(total, (16384 / block.max(1)).max(1));
    parallel(k, (total * block) as u64 / 2, &|q| {
        for job in q * each..total.min((q + 1) * each) {
            let (plane, t) = (job / s.taps, s.tap(job % s.taps));
            // SAFETY: plane `plane` of the contiguous x, and block `job` of the contiguous columns,
            // which only this chunk writes.
            let (image, block) = unsafe {
                (
                    std::slice::from_raw_parts(src.get().cast::<T>().add(plane * image), image),
                    std::slice::from_raw_parts_mut(dst.get().cast::<T>().add(job * block), block),
                )
            };
            let (lo, hi) = s.range(t[2]);
            for (r, row) in block.chunks_exact_mut(s.out[2].max(1)).enumerate() {
                let (d, h) = (s.at(0, r / s.out[1], t[0]), s.at(1, r % s.out[1], t[1]));
                let (Some(d), Some(h)) = (d, h) else {
                    row.fill(fill);
                    continue;
                };
                row[..lo].fill(fill);
                row[hi..].fill(fill);
                if lo == hi {
                    continue;
                }
                let line = &image[(d * s.x[1] + h) * s.x[2]..][..s.x[2]];
                let first = lo * s.g.stride[2] + t[2] * s.g.dilation[2] - s.g.pad[2];
                if s.g.stride[2] == 1 {
                    row[lo..hi].copy_from_slice(&line[first..first + hi - lo]);
                } else {
                    for (o, v) in row[lo..hi].iter_mut().zip(line[first..].iter().step_by(s.g.stride[2])) {
                        *o = *v;
                    }
                }
            }
        }
    });
}

/// What columns are added up with.
trait Sum: Copy + Send + Sync {
    const ZERO: Self;
    fn add(&mut self, v: Self);
}
macro_rules! sums {
    ($($t:ty: $zero:expr, |$a:ident, $b:ident| $add:expr);+ $(;)?) => { $(
        impl Sum for $t {
            const ZERO: $t = $zero;
            #[inline(always)]
            fn add(&mut self, $b: $t) { let $a = *self; *self = $add; }
        }
    )+ };
}
/// A boolean byte.
#[derive(Clone, Copy)]
struct Either(u8);
sums! {
    f32: 0.0, |a, b| a + b;
    f64: 0.0, |a, b| a + b;
    i64: 0, |a, b| a.wrapping_add(b);
    i32: 0, |a, b| a.wrapping_add(b);
    i16: 0, |a, b| a.wrapping_add(b);
    i8: 0, |a, b| a.wrapping_add(b);
    [f32; 2]: [0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]];
    [f64; 2]: [0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]];
    Either: Either(0), |a, b| Either(a.0 | b.0);
}

fn fold<T: Sum>(s: &Shape, cols: &Arr, x: &Arr) {
    let (image, block) = (s.image(), s.block());
    let (src, dst) = (Ptr(cols.ptr), Ptr(x.ptr));
    let (k, each) = chunks(s.planes, (16384 / (block * s.taps).max(1)).max(1));
    parallel(k, (s.planes * block * s.taps) as u64 / 2, &|q| {
        for plane in q * each..s.planes.min((q + 1) * each) {
            // SAFETY: plane `plane` of the contiguous x, which only this chunk writes.
            let image =
                unsafe { std::slice::from_raw_parts_mut(dst.get().cast::<T>().add(plane * image), image) };
            image.fill(T::ZERO);
            for tap in 0..s.taps {
                let t = s.tap(tap);
                let at = (plane * s.taps + tap) * block;
                // SAFETY: a block of the contiguous columns.
                let block = unsafe { std::slice::from_raw_parts(src.get().cast::<T>().add(at), block) };
                let (lo, hi) = s.range(t[2]);
                if lo == hi {
                    continue;
                }
                for (r, row) in block.chunks_exact(s.out[2].max(1)).enumerate() {
                    let (d, h) = (s.at(0, r / s.out[1], t[0]), s.at(1, r % s.out[1], t[1]));
                    let (Some(d), Some(h)) = (d, h) else { continue };
                    let line = &mut image[(d * s.x[1] + h) * s.x[2]..][..s.x[2]];
                    let first = lo * s.g.stride[2] + t[2] * s.g.dilation[2] - s.g.pad[2];
                    if s.g.stride[2] == 1 {
                        for (o, v) in line[first..].iter_mut().zip(&row[lo..hi]) {
                            o.add(*v);
                        }
                    } else {
                        for (o, v) in line[first..].iter_mut().step_by(s.g.stride[2]).zip(&row[lo..hi]) {
                            o.add(*v);
                        }
                    }
                }
            }
        }
    });
}
