//! Sparse matrices along H and W of [A, H, W, C] (interpolation and its gradients): every output row
//! is first a combination of input rows, then its elements are combinations along it.

use crate::pool::{chunks, parallel, with_scratch};
use crate::real::{Failure, Real, combine};
use crate::simd::{Arch, ArchKernel, dispatch};
use crate::strided::{Ptr, gather, scatter};
use pyrite_core::backend::{Resample, Taps};
use pyrite_core::{Arr, DType, Result, bail};

pub fn run(r: &Resample) -> Result<()> {
    let (x, y) = (&r.x, &r.y);
    let fits = |t: Option<&Taps>, d: usize| match t {
        Some(t) => t.valid() && t.inputs == x.shape[d] && t.outputs() == y.shape[d],
        None => x.shape[d] == y.shape[d],
    };
    let four = x.shape.len() == 4 && y.shape.len() == 4;
    if !four || x.shape[0] != y.shape[0] || x.shape[3] != y.shape[3] || !fits(r.rows, 1) || !fits(r.cols, 2) {
        bail!(Shape, "interpolation: shapes {:?} and {:?} do not fit", x.shape, y.shape);
    }
    if !dense_rows(x) || !dense_rows(y) {
        bail!(Runtime, "interpolation: rows of {:?} and {:?} must be dense", x.strides, y.strides);
    }
    if y.numel() == 0 {
        return Ok(());
    }
    match (x.dtype, y.dtype) {
        (DType::U8, DType::U8) => bytes(r),
        (DType::F64, DType::F64) => real::<f64>(r),
        (a, b) if a.is_float() && b.is_float() && a != DType::F64 && b != DType::F64 => real::<f32>(r),
        (a, b) => bail!(NotImplemented, "interpolation: not implemented for {a} to {b}"),
    }
}

fn dense_rows(a: &Arr) -> bool {
    (a.shape[3] == 1 || a.strides[3] == 1) && (a.shape[2] == 1 || a.strides[2] == a.shape[3] as isize)
}

/// The taps with weights in the type of the computation.
struct Matrix<'a, T> {
    start: &'a [u32],
    index: &'a [u32],
    weight: Vec<T>,
    /// Entries per row, if all rows have as many.
    each: usize,
}

impl<'a, T> Matrix<'a, T> {
    fn new(t: &'a Taps, to: impl Fn(f64) -> T) -> Matrix<'a, T> {
        let first = t.start.get(1).map_or(0, |e| *e as usize);
        let same = t.start.windows(2).all(|w| (w[1] - w[0]) as usize == first);
        Matrix {
            start: &t.start,
            index: &t.index,
            weight: t.weight.iter().map(|w| to(*w)).collect(),
            each: if same { first } else { 0 },
        }
    }
    #[inline(always)]
    fn row(&self, o: usize) -> (&[u32], &[T]) {
        let r = self.start[o] as usize..self.start[o + 1] as usize;
        (&self.index[r.clone()], &self.weight[r])
    }
}

fn real<T: Real>(r: &Resample) -> Result<()> {
    let rows = r.rows.map(|t| Matrix::new(t, T::of));
    let cols = r.cols.map(|t| Matrix::new(t, T::of));
    let (x, y) = (&r.x, &r.y);
    let (xn, yn) = (x.shape[2] * x.shape[3], y.shape[2] * y.shape[3]);
    let taps = |m: &Option<Matrix<T>>, n: usize| m.as_ref().map_or(1, |m| m.index.len() / n.max(1) + 1);
    let row_taps = taps(&rows, y.shape[1]);
    let per_row = xn * row_taps / 8 + yn * taps(&cols, y.shape[2]) / 2 + yn / 4;
    let total = y.shape[0] * y.shape[1];
    let (k, each) = chunks(total, (8192 / per_row.max(1)).max(1));
    let failure = Failure::default();
    let most =
        rows.as_ref().map_or(1, |m| m.start.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(1)) as usize;
    // A converted source row for every tap, the combined row, and the result before conversion.
    let staged = if x.dtype == T::DTYPE { 0 } else { most.max(1) };
    let len = (staged + 1) * xn + yn;
    let (x, y) = (Side::new(x), Side::new(y));
    parallel(k, (total * per_row) as u64, &|q| {
        let done = with_scratch(len.max(1) * size_of::<T>(), |s| {
            // SAFETY: the block holds `len` elements of plain numbers, aligned to a cache line.
            let scratch = unsafe {
                std::ptr::write_bytes(s, 0, len * size_of::<T>());
                std::slice::from_raw_parts_mut(s.cast::<T>(), len)
            };
            let (from, to) = (q * each, total.min((q + 1) * each));
            dispatch(Real2 { x, y, rows: &rows, cols: &cols, from, to, scratch });
        });
        if let Err(e) = done {
            failure.set(crate::oom(e));
        }
    });
    failure.result()
}

/// One array: where its rows lie.
#[derive(Clone, Copy)]
struct Side {
    ptr: Ptr,
    dtype: DType,
    a: isize,
    h: isize,
    rows: usize,
    n: usize,
    c: usize,
}

impl Side {
    fn new(a: &Arr) -> Side {
        Side {
            ptr: Ptr(a.ptr),
            dtype: a.dtype,
            a: a.strides[0],
            h: a.strides[1],
            rows: a.shape[1],
            n: a.shape[2] * a.shape[3],
            c: a.shape[3],
        }
    }
    #[inline(always)]
    fn row(&self, a: usize, h: usize) -> *mut u8 {
        let off = a as isize * self.a + h as isize * self.h;
        self.ptr.get().wrapping_offset(off * self.dtype.size() as isize)
    }
}

struct Real2<'a, 'b, T> {
    x: Side,
    y: Side,
    rows: &'a Option<Matrix<'b, T>>,
    cols: &'a Option<Matrix<'b, T>>,
    from: usize,
    to: usize,
    scratch: &'a mut [T],
}

impl<T: Real> ArchKernel for Real2<'_, '_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let (x, y) = (self.x, self.y);
        let (result, rest) = self.scratch.split_at_mut(y.n);
        let (row, stage) = rest.split_at_mut(x.n);
        for q in self.from..self.to {
            let (a, o) = (q / y.rows, q % y.rows);
            // SAFETY: row `o` of slice `a` of the output, which only this chunk writes.
            let direct = y.dtype == T::DTYPE;
            let out: &mut [T] = if direct {
                // SAFETY: as above; the row is dense and holds y.n elements of T.
                unsafe { std::slice::from_raw_parts_mut(y.row(a, o).cast(), y.n) }
            } else {
                &mut *result
            };
            let one = [o as u32];
            let unit = [T::of(1.0)];
            let (index, weight) = match self.rows {
                Some(m) => m.row(o),
                None => (&one[..], &unit[..]),
            };
            // Few taps at a time, so that the list of rows needs no memory of its own.
            let mut source = [&[][..]; 8];
            let plain = index.len() == 1 && weight[0] == T::of(1.0);
            let mut have = 0;
            let mut first = true;
            let target: &mut [T] = if self.cols.is_none() { &mut *out } else { &mut *row };
            let mut whole: Option<&[T]> = None;
            for (k, &i) in index.iter().enumerate() {
                let p = x.row(a, i as usize);
                source[have] = if x.dtype == T::DTYPE {
                    // SAFETY: `Taps::valid` says that row i exists; rows are dense.
                    unsafe { std::slice::from_raw_parts(p.cast(), x.n) }
                } else {
                    let at = &mut stage[k * x.n..(k + 1) * x.n];
                    // SAFETY: as above; `at` has room for the row. The slice lives in scratch, which
                    // nobody else touches until the next output row.
                    unsafe {
                        gather(x.dtype, p, 1, x.n, at.as_mut_ptr());
                        std::slice::from_raw_parts(at.as_ptr(), x.n)
                    }
                };
                have += 1;
                if plain {
                    whole = Some(source[0]);
                } else if have == source.len() || k + 1 == index.len() {
                    let w = &weight[k + 1 - have..k + 1];
                    if first {
                        combine(target, &source[..have], w);
                    } else {
                        for (s, w) in source[..have].iter().zip(w) {
                            for (o, s) in target.iter_mut().zip(*s) {
                                *o += *w * *s;
                            }
                        }
                    }
                    (first, have) = (false, 0);
                }
            }
            if index.is_empty() {
                target.fill(T::default());
            }
            match (self.cols, whole) {
                (None, Some(s)) => out.copy_from_slice(s),
                (None, None) => {}
                (Some(m), Some(s)) => along(m, s, out, x.c),
                (Some(m), None) => along(m, row, out, x.c),
            }
            if !direct {
                // SAFETY: the output row, as above.
                unsafe { scatter(y.dtype, y.row(a, o), 1, y.n, result.as_ptr()) };
            }
        }
    }
}

/// Combinations along a row of elements of `c` numbers.
#[inline(always)]
fn along<T: Real>(m: &Matrix<T>, row: &[T], out: &mut [T], c: usize) {
    if c > 1 {
        for (j, o) in out.chunks_exact_mut(c).enumerate() {
            let (index, weight) = m.row(j);
            let at = |i: u32| &row[i as usize * c..(i as usize + 1) * c];
            match (index, weight) {
                ([a], [u]) => combine(o, &[at(*a)], &[*u]),
                ([a, b], [u, v]) => combine(o, &[at(*a), at(*b)], &[*u, *v]),
                ([e, f, g, h], [s, t, u, v]) => {
                    combine(o, &[at(*e), at(*f), at(*g), at(*h)], &[*s, *t, *u, *v])
                }
                _ => {
                    o.fill(T::default());
                    for (i, w) in index.iter().zip(weight) {
                        for (o, s) in o.iter_mut().zip(at(*i)) {
                            *o += *w * *s;
                        }
                    }
                }
            }
        }
        return;
    }
    match m.each {
        1 if m.weight.iter().all(|w| *w == T::of(1.0)) => {
            for (o, i) in out.iter_mut().zip(m.index) {
                *o = row[*i as usize];
            }
        }
        2 => {
            for ((o, i), w) in out.iter_mut().zip(m.index.chunks_exact(2)).zip(m.weight.chunks_exact(2)) {
                *o = w[0] * row[i[0] as usize] + w[1] * row[i[1] as usize];
            }
        }
        4 => {
            for ((o, i), w) in out.iter_mut().zip(m.index.chunks_exact(4)).zip(m.weight.chunks_exact(4)) {
                let v = |k: usize| w[k] * row[i[k] as usize];
                *o = (v(0) + v(1)) + (v(2) + v(3));
            }
        }
        _ => {
            for (j, o) in out.iter_mut().enumerate() {
                let (index, weight) = m.row(j);
                let mut s = T::default();
                for (i, w) in index.iter().zip(weight) {
                    s += *w * row[*i as usize];
                }
                *o = s;
            }
        }
    }
}

// ---- bytes ---------------------------------------------------------------------------------------

/// Fixed-point weights on u8: one dimension at a time is what `tensor` asks for, both work.
fn bytes(r: &Resample) -> Result<()> {
    let rows = r.rows.map(|t| Matrix::new(t, |w| w as i32));
    let cols = r.cols.map(|t| Matrix::new(t, |w| w as i32));
    if rows.is_some() && cols.is_some() {
        bail!(Runtime, "interpolation: bytes are resampled along one dimension at a time");
    }
    let (x, y) = (Side::new(&r.x), Side::new(&r.y));
    let total = r.y.shape[0] * r.y.shape[1];
    let (k, each) = chunks(total, (8192 / y.n.max(1)).max(1));
    let bits = r.bits.min(22);
    let half = if bits > 0 { 1i32 << (bits - 1) } else { 0 };
    let limit = |v: i32| (v >> bits).clamp(0, 255) as u8;
    parallel(k, (total * y.n * 2) as u64, &|q| {
        for job in q * each..total.min((q + 1) * each) {
            let (a, o) = (job / y.rows, job % y.rows);
            // SAFETY: a row of the output, which only this chunk writes.
            let out = unsafe { std::slice::from_raw_parts_mut(y.row(a, o), y.n) };
            // SAFETY: the index of a row that exists (`Taps::valid`, or equal sizes).
            let source = |i: usize| unsafe { std::slice::from_raw_parts(x.row(a, i).cast_const(), x.n) };
            match (&rows, &cols) {
                (Some(m), _) => {
                    let (index, weight) = m.row(o);
                    for (j, v) in out.iter_mut().enumerate() {
                        let taps = index.iter().zip(weight);
                        *v = limit(half + taps.map(|(i, w)| w * source(*i as usize)[j] as i32).sum::<i32>());
                    }
                }
                (None, Some(m)) => {
                    let row = source(o);
                    for (j, v) in out.iter_mut().enumerate() {
                        let (index, weight) = m.row(j / x.c);
                        let at = |i: u32| row[i as usize * x.c + j % x.c] as i32;
                        *v = limit(half + index.iter().zip(weight).map(|(i, w)| w * at(*i)).sum::<i32>());
                    }
                }
                (None, None) => out.copy_from_slice(source(o)),
            }
        }
    });
    Ok(())
}
