//! `Backend::conv`: checks what the convolution's raw interface takes for granted and calls it. Half
//! types are converted to f32 and back around it.

use smallvec::SmallVec;

use crate::alloc::Block;
use crate::conv::{ConvDesc, Number, conv2d_dw, conv2d_dx, conv2d_forward};
use crate::{copy, oom};
use pyrite_core::backend::{Conv, ConvGeometry};
use pyrite_core::{Arr, DType, Result, bail, ensure};

pub fn run(geo: &ConvGeometry, c: Conv) -> Result<()> {
    let dtypes: SmallVec<[DType; 4]> = match &c {
        Conv::Forward { x, w, bias, y } => {
            [x, w, y].into_iter().chain(bias.as_ref()).map(|a| a.dtype).collect()
        }
        Conv::Input { dy, w, dx } => [dy, w, dx].into_iter().map(|a| a.dtype).collect(),
        Conv::Weight { dy, x, dw, db } => {
            [dy, x, dw].into_iter().chain(db.as_ref()).map(|a| a.dtype).collect()
        }
    };
    let first = dtypes[0];
    ensure!(
        dtypes.iter().all(|&d| d == first),
        Runtime,
        "convolution: input, weight, bias and output must share one dtype, not {dtypes:?}"
    );
    match first {
        DType::F32 => typed::<f32>(geo, c),
        DType::F64 => typed::<f64>(geo, c),
        DType::F16 | DType::BF16 => widened(geo, c),
        d => bail!(
            NotImplemented,
            "convolution: not implemented for {d} on the CPU; convert with .to() to a floating dtype"
        ),
    }
}

/// A dense copy of an operand, or room for a result.
struct Temp {
    block: Block,
    dtype: DType,
    shape: SmallVec<[usize; 4]>,
    strides: SmallVec<[isize; 4]>,
}

impl Temp {
    fn new(dtype: DType, shape: &[usize]) -> Result<Temp> {
        let mut step = 1isize;
        let mut strides: SmallVec<[isize; 4]> = shape
            .iter()
            .rev()
            .map(|&n| {
                let s = step;
                step *= n.max(1) as isize;
                s
            })
            .collect();
        strides.reverse();
        let block = Block::new(shape.iter().product::<usize>() * dtype.size()).map_err(oom)?;
        Ok(Temp { block, dtype, shape: shape.into(), strides })
    }

    fn of(src: Arr, dtype: DType) -> Result<Temp> {
        let t = Temp::new(dtype, src.shape)?;
        copy::copy(t.arr(), src)?;
        Ok(t)
    }

    fn arr(&self) -> Arr<'_> {
        Arr { ptr: self.block.as_ptr(), dtype: self.dtype, shape: &self.shape, strides: &self.strides }
    }
}

fn widened(geo: &ConvGeometry, c: Conv) -> Result<()> {
    let up = |a: Arr| Temp::of(a, DType::F32);
    match c {
        Conv::Forward { x, w, bias, y } => {
            let (x, w, out) = (up(x)?, up(w)?, Temp::new(DType::F32, y.shape)?);
            let bias = bias.map(up).transpose()?;
            let bias = bias.as_ref().map(Temp::arr);
            typed::<f32>(geo, Conv::Forward { x: x.arr(), w: w.arr(), bias, y: out.arr() })?;
            copy::copy(y, out.arr())
        }
        Conv::Input { dy, w, dx } => {
            let (dy, w, out) = (up(dy)?, up(w)?, Temp::new(DType::F32, dx.shape)?);
            typed::<f32>(geo, Conv::Input { dy: dy.arr(), w: w.arr(), dx: out.arr() })?;
            copy::copy(dx, out.arr())
        }
        Conv::Weight { dy, x, dw, db } => {
            let (dy, x, out) = (up(dy)?, up(x)?, Temp::new(DType::F32, dw.shape)?);
            let sums = db.map(|b| Temp::new(DType::F32, b.shape)).transpose()?;
            let b = sums.as_ref().map(Temp::arr);
            typed::<f32>(geo, Conv::Weight { dy: dy.arr(), x: x.arr(), dw: out.arr(), db: b })?;
            copy::copy(dw, out.arr())?;
            match (db, &sums) {
                (Some(db), Some(sums)) => copy::copy(db, sums.arr()),
                _ => Ok(()),
            }
        }
    }
}

/// Compares all sizes with one another; `x` and `y` may each be a gradient.
fn describe(geo: &ConvGeometry, x: &Arr, w: &Arr, y: &Arr) -> Result<ConvDesc> {
    let (&[n, c, h, width], &[k, cg, r, s], &[yn, yk, oh, ow]) = (x.shape, w.shape, y.shape) else {
        bail!(Shape, "convolution: input, weight and output must have 4 dimensions");
    };
    let out = |size: usize, taps: usize, axis: usize| {
        let reach = geo.dilation[axis].checked_mul(taps.checked_sub(1)?)?.checked_add(1)?;
        let room = size.checked_add(geo.pad[axis].checked_mul(2)?)?.checked_sub(reach)?;
        Some(room.checked_div(geo.stride[axis])? + 1)
    };
    ensure!(
        geo.groups > 0
            && geo.dilation.iter().all(|&d| d > 0)
            && c == cg.saturating_mul(geo.groups)
            && k % geo.groups == 0
            && (yn, yk) == (n, k)
            && out(h, r, 0) == Some(oh)
            && out(width, s, 1) == Some(ow),
        Shape,
        "convolution: input {:?}, weight {:?} and output {:?} do not fit together with {geo:?}",
        x.shape,
        w.shape,
        y.shape
    );
    Ok(ConvDesc {
        n,
        c,
        h,
        w: width,
        k,
        r,
        s,
        stride: geo.stride,
        pad: geo.pad,
        dil: geo.dilation,
        groups: geo.groups,
        oh,
        ow,
    })
}

fn four(a: &Arr) -> [isize; 4] {
    // `describe` has checked the rank.
    std::array::from_fn(|i| a.strides.get(i).copied().unwrap_or(0))
}

fn vector(a: &Arr, k: usize, what: &str) -> Result<()> {
    ensure!(a.shape == [k], Shape, "convolution: the {what} must have shape [{k}], not {:?}", a.shape);
    Ok(())
}

fn typed<T: Number>(geo: &ConvGeometry, c: Conv) -> Result<()> {
    match c {
        Conv::Forward { x, w, bias, y } => {
            let d = describe(geo, &x, &w, &y)?;
            let mut dense = None;
            let mut b = std::ptr::null();
            if let Some(bias) = bias {
                vector(&bias, d.k, "bias")?;
                b = bias.ptr.cast_const();
                if !bias.is_contiguous() {
                    let copy = Temp::of(bias, bias.dtype)?;
                    b = copy.block.as_ptr();
                    dense = Some(copy);
                }
            }
            // SAFETY: the driver hands over valid memory with an output of its own; sizes were compared.
            let done = unsafe {
                conv2d_forward::<T>(
                    &d,
                    x.ptr.cast(),
                    four(&x),
                    w.ptr.cast(),
                    four(&w),
                    b.cast(),
                    y.ptr.cast(),
                    four(&y),
                )
            };
            drop(dense);
            done.map_err(oom)
        }
        Conv::Input { dy, w, dx } => {
            let d = describe(geo, &dx, &w, &dy)?;
            // SAFETY: as above.
            unsafe {
                conv2d_dx::<T>(&d, dy.ptr.cast(), four(&dy), w.ptr.cast(), four(&w), dx.ptr.cast(), four(&dx))
            }
            .map_err(oom)
        }
        Conv::Weight { dy, x, dw, db } => {
            let d = describe(geo, &x, &dw, &dy)?;
            if let Some(db) = &db {
                vector(db, d.k, "bias gradient")?;
            }
            let contiguous = dw.is_contiguous() && db.as_ref().is_none_or(|b| b.is_contiguous());
            if !contiguous {
                let (out, sums) = (Temp::new(dw.dtype, dw.shape)?, Temp::new(dw.dtype, &[d.k])?);
                let b = db.as_ref().map(|_| sums.arr());
                typed::<T>(geo, Conv::Weight { dy, x, dw: out.arr(), db: b })?;
                copy::copy(dw, out.arr())?;
                return db.map_or(Ok(()), |db| copy::copy(db, sums.arr()));
            }
            let db = db.map_or(std::ptr::null_mut(), |b| b.ptr);
            // SAFETY: as above; both results are contiguous.
            unsafe {
                conv2d_dw::<T>(&d, x.ptr.cast(), four(&x), dy.ptr.cast(), four(&dy), dw.ptr.cast(), db.cast())
            }
            .map_err(oom)
        }
    }
}
