//! Copies, casts, fills and moves between devices; resizing.

use crate::autograd::node::{self};
use crate::autograd::{self, inplace, needs_grad};
use crate::op;
use crate::registry::{Op, Value};
use crate::tensor::{MemoryFormat, Tensor, backend};
use pyrite_core::layout::contiguous_strides;
use pyrite_core::{DType, Device, Layout, Result, Scalar, ensure, interrupt};
use smallvec::smallvec;

/// `dst = src` without history or version: shapes broadcast, dtypes convert, devices may differ.
pub fn copy_raw(dst: &Tensor, src: &Tensor) -> Result<()> {
    if dst.numel() == 0 {
        return Ok(());
    }
    if dst.is_lazy() || src.is_lazy() {
        return super::lazy::copy_raw(dst, src);
    }
    let sizes: smallvec::SmallVec<[i64; 6]> = dst.shape().iter().map(|s| *s as i64).collect();
    if dst.device() == src.device() {
        let l = src.layout().expand(&sizes)?;
        let src_arr =
            pyrite_core::Arr { ptr: src.ptr(), dtype: src.dtype(), shape: l.shape(), strides: l.strides() };
        return dst.backend()?.copy(dst.arr(), src_arr);
    }
    // Between devices: dense bytes of one dtype travel, the rest happens on either side.
    let src = contiguous(&src.detach())?;
    let bytes = src.numel() * src.dtype().size();
    let direct = src.dtype() == dst.dtype() && src.shape() == dst.shape() && dst.is_contiguous();
    let staged = if direct { dst.clone() } else { Tensor::empty(src.shape(), src.dtype(), dst.device())? };
    match (src.device(), dst.device()) {
        // SAFETY: both tensors are contiguous and hold `bytes` bytes.
        (Device::Cpu, d) => unsafe { backend(d)?.transfer(src.ptr(), staged.ptr(), bytes, false)? },
        // SAFETY: as above.
        (s, Device::Cpu) => unsafe { backend(s)?.transfer(staged.ptr(), src.ptr(), bytes, true)? },
        (s, _) => {
            let mut host = vec![0u8; bytes];
            // SAFETY: `host` and both tensors hold `bytes` bytes.
            unsafe {
                backend(s)?.transfer(host.as_mut_ptr(), src.ptr(), bytes, true)?;
                staged.backend()?.transfer(host.as_mut_ptr(), staged.ptr(), bytes, false)?;
            }
        }
    }
    if direct { Ok(()) } else { copy_raw(dst, &staged) }
}

/// A copy with the same dimension order in memory.
pub fn clone(t: &Tensor) -> Result<Tensor> {
    clone_format(t, MemoryFormat::Preserve)
}

/// A copy, in row-major or channels-last order.
pub fn clone_format(t: &Tensor, format: MemoryFormat) -> Result<Tensor> {
    let y = match format {
        MemoryFormat::Preserve => t.empty_like_with(t.dtype())?,
        f => Tensor::empty_format(t.shape(), t.dtype(), t.device(), f)?,
    };
    interrupt::stoppable_if(t.numel() > 1 << 22, || copy_raw(&y, t))?;
    if needs_grad(&[t]) {
        autograd::attach_any("CloneBackward0", &[t], &[&y], &[], |cx| Ok(smallvec![Some(cx.grad(0)?)]));
    }
    Ok(y)
}

/// A copy of `t` in the dimension order of `like`, without history.
pub fn clone_like(t: &Tensor, like: &Tensor) -> Result<Tensor> {
    let l = Layout::new(t.shape(), super::format::like_strides(like.layout()), 0);
    let y = Tensor::empty_strided(l, t.dtype(), t.device())?;
    copy_raw(&y, t)?;
    Ok(y)
}

/// `t` itself if it is row-major without gaps, else a copy that is.
pub fn contiguous(t: &Tensor) -> Result<Tensor> {
    if t.is_contiguous() && !t.is_lazy() { Ok(t.clone()) } else { clone_format(t, MemoryFormat::Contiguous) }
}

pub fn contiguous_format(t: &Tensor, f: MemoryFormat) -> Result<Tensor> {
    if is_contiguous_format(t, f) && !t.is_lazy() { Ok(t.clone()) } else { clone_format(t, f) }
}

pub fn is_contiguous_format(t: &Tensor, f: MemoryFormat) -> bool {
    match f {
        MemoryFormat::Preserve => true,
        MemoryFormat::Contiguous => t.is_contiguous(),
        MemoryFormat::ChannelsLast => t.ndim() == 4 && t.layout().is_channels_last(),
        MemoryFormat::ChannelsLast3d => t.ndim() == 5 && t.layout().is_channels_last(),
    }
}

/// `Tensor.to`: dtype and/or device; the same tensor if nothing changes and no copy is asked for.
pub fn to(t: &Tensor, dtype: DType, device: Device, copy: bool, format: MemoryFormat) -> Result<Tensor> {
    if t.dtype() == dtype
        && t.device() == device
        && !copy
        && (format == MemoryFormat::Preserve || is_contiguous_format(t, format))
    {
        return Ok(t.clone());
    }
    let layout = match format {
        MemoryFormat::Preserve => super::like_layout(t),
        MemoryFormat::Contiguous => Layout::contiguous(t.shape()),
        f => Tensor::empty_format(t.shape(), DType::Bool, Device::Cpu, f)?.layout().clone(),
    };
    let y = Tensor::empty_strided(layout, dtype, device)?;
    copy_raw(&y, t)?;
    if needs_grad(&[t]) && dtype.is_differentiable() {
        let (d, v) = (t.dtype(), t.device());
        autograd::attach_any("ToCopyBackward0", &[t], &[&y], &[], move |cx| {
            Ok(smallvec![Some(to(&cx.grad(0)?, d, v, false, MemoryFormat::Preserve)?)])
        });
    }
    Ok(y)
}

pub fn to_dtype(t: &Tensor, dtype: DType) -> Result<Tensor> {
    to(t, dtype, t.device(), false, MemoryFormat::Preserve)
}

pub fn to_device(t: &Tensor, device: Device) -> Result<Tensor> {
    to(t, t.dtype(), device, false, MemoryFormat::Preserve)
}

/// `dst.copy_(src)`: broadcasts, converts, records.
pub fn copy_(dst: &Tensor, src: &Tensor) -> Result<()> {
    inplace::check("copy_", dst)?;
    ensure!(
        pyrite_core::layout::broadcast("copy_", src.shape(), dst.shape())
            .is_ok_and(|s| s[..] == *dst.shape()),
        Shape,
        "copy_: output with shape {:?} doesn't match the broadcast shape of the source {:?}",
        dst.shape(),
        src.shape()
    );
    let same_bytes = dst.storage().same(src.storage());
    let recording = needs_grad(&[dst, src]);
    if recording {
        inplace::check_recorded("copy_", dst)?;
    }
    if same_bytes {
        copy_raw(dst, &clone(&src.detach())?)?;
    } else {
        copy_raw(dst, src)?;
    }
    dst.storage().bump_version();
    if recording && dst.dtype().is_differentiable() {
        let node = node::closure("CopyBackwards", &[dst, src], &[dst], &[], |cx| {
            // The old value is overwritten: nothing flows to it; the engine sums and casts for `src`.
            let g = cx.grad(0)?;
            let zero =
                if cx.needs(0) { Some(Tensor::zeros(g.shape(), g.dtype(), g.device())?) } else { None };
            Ok(smallvec![zero, cx.needs(1).then_some(g)])
        });
        inplace::rebase(dst, node);
    }
    Ok(())
}

/// A number may be stored in a dtype if it is within the dtype's range; fractions are cut, infinities stay
/// infinite, and negative numbers wrap round in unsigned dtypes.
pub fn check_fits(value: Scalar, d: DType) -> Result<()> {
    let overflow = |why: &str| {
        pyrite_core::err!(Runtime, "value cannot be converted to type {} without overflow ({why})", d.name())
    };
    let v = match value {
        Scalar::Complex(_, im) if !d.is_complex() && im != 0.0 => return Err(overflow("it is complex")),
        Scalar::Bool(_) => return Ok(()),
        Scalar::Complex(re, im) => re.abs().max(im.abs()),
        s => s.f64(),
    };
    let (least, most) = match d {
        DType::Bool | DType::F64 | DType::C128 => return Ok(()),
        DType::U8 => (-(u8::MAX as f64), u8::MAX as f64),
        DType::U16 => (-(u16::MAX as f64), u16::MAX as f64),
        DType::U32 => (-(u32::MAX as f64), u32::MAX as f64),
        DType::U64 => (-(u64::MAX as f64), u64::MAX as f64),
        DType::I8 => (i8::MIN as f64, i8::MAX as f64),
        DType::I16 => (i16::MIN as f64, i16::MAX as f64),
        DType::I32 => (i32::MIN as f64, i32::MAX as f64),
        DType::I64 => (i64::MIN as f64, i64::MAX as f64),
        DType::F16 => (-65504.0, 65504.0),
        DType::BF16 => (-3.389_531_389_251_535_5e38, 3.389_531_389_251_535_5e38),
        DType::F32 | DType::C64 => (f32::MIN as f64, f32::MAX as f64),
    };
    let whole = d.is_int();
    if !whole && !v.is_finite() || v >= least && v <= most {
        return Ok(());
    }
    // A fraction beyond the last integer is cut to it.
    if whole && v.trunc() >= least && v.trunc() <= most {
        return Ok(());
    }
    Err(overflow("it is out of range"))
}

/// `t.fill_(value)`.
pub fn fill_(t: &Tensor, value: Scalar) -> Result<()> {
    inplace::check_write("fill_", t)?;
    check_fits(value, t.dtype())?;
    let recording = needs_grad(&[t]);
    if t.numel() > 0 {
        let plain = t.marked(crate::Lazy::default());
        t.backend()?.fill(plain.arr(), super::lazy::flip(value, t.lazy()))?;
    }
    t.storage().bump_version();
    if recording {
        forget(t);
    }
    Ok(())
}

/// `fill_` with a number or a 0-d tensor.
fn fill_with(t: &Tensor, value: super::Operand) -> Result<()> {
    match value {
        super::Operand::Number(s) => fill_(t, s),
        super::Operand::Tensor(v) => {
            ensure!(
                v.ndim() == 0,
                Runtime,
                "fill_ only supports 0-dimension value tensor but got tensor with {} dimensions.",
                v.ndim()
            );
            copy_(t, v)
        }
    }
}

/// The history of a tensor whose old value was overwritten by constants: its gradient is zero.
pub(super) fn forget(t: &Tensor) {
    let node = node::closure("FillBackward0", &[t], &[t], &[], |cx| {
        let g = cx.grad(0)?;
        Ok(smallvec![Some(Tensor::zeros(g.shape(), g.dtype(), g.device())?)])
    });
    inplace::rebase(t, node);
}

/// `a += b` without history: for gradients that are ours alone. `b` broadcasts.
pub fn add_assign_raw(a: &Tensor, b: &Tensor) -> Result<()> {
    let _off = autograd::GradMode::new(false);
    let one = [Scalar::Int(1)];
    super::elementwise::run_raw(pyrite_core::rows::table::id::ADD, a, &[a.into(), b.into()], &one)
}

/// `resize_`: the same storage if it is large enough, else a larger one with the old elements.
pub fn resize(t: &Tensor, shape: &[usize]) -> Result<Tensor> {
    resize_strided(t, shape, &contiguous_strides(shape))
}

/// [`resize`] with the dimensions in an order of their own; the strides leave no gaps.
pub fn resize_strided(t: &Tensor, shape: &[usize], strides: &[isize]) -> Result<Tensor> {
    let n = pyrite_core::layout::numel(shape)?;
    let layout = Layout::new(shape, strides, t.layout().offset());
    let have = t.storage().bytes() / t.dtype().size();
    if t.layout().offset().checked_add(n).is_some_and(|end| end <= have) {
        return Ok(t.with_data_of(&Tensor::from_parts(t.storage().clone(), layout, t.dtype())));
    }
    let y = Tensor::empty_strided(Layout::new(shape, strides, 0), t.dtype(), t.device())?;
    let keep = (have - t.layout().offset().min(have)).min(n);
    let flat = |t: &Tensor, offset| {
        Tensor::from_parts(
            t.storage().clone(),
            Layout::new([keep].as_slice(), [1isize].as_slice(), offset),
            t.dtype(),
        )
    };
    copy_raw(&flat(&y, 0), &flat(t, t.layout().offset()))?;
    Ok(t.with_data_of(&y))
}

/// `dst.copy_(result)` for the in-place form of an op that computed its result elsewhere: the shape must be
/// the receiver's, the dtype castable.
pub fn assign(op: &str, dst: &Tensor, result: &Tensor) -> Result<()> {
    ensure!(
        result.shape() == dst.shape(),
        Shape,
        "{op}: output with shape {:?} doesn't match the broadcast shape {:?}",
        dst.shape(),
        result.shape()
    );
    ensure!(
        result.dtype().can_cast(dst.dtype()),
        Runtime,
        "result type {} can't be cast to the desired output type {} ({op})",
        result.dtype().legacy_name(),
        dst.dtype().legacy_name()
    );
    copy_(dst, result)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "clone",
        FUNCTION | METHOD,
        "A copy of the tensor; gradients flow through it.",
        "input: Tensor, *, memory_format: memory_format? = None",
        |a| {
            Ok(clone_format(a.tensor(0)?, a.memory_format_opt(1)?.unwrap_or(MemoryFormat::Preserve))?.into())
        }
    );
    op!(
        list,
        "contiguous",
        METHOD,
        "The tensor itself if it is contiguous in the given memory format, else a copy that is.",
        "input: Tensor, memory_format: memory_format? = None",
        |a| { Ok(contiguous_format(a.tensor(0)?, a.memory_format_opt(1)?.unwrap_or_default())?.into()) }
    );
    op!(
        list,
        "copy_",
        METHOD,
        "Copies the elements of `src` into this tensor, broadcasting and converting.",
        "input: Tensor, src: Operand, non_blocking: bool = False",
        |a| {
            a.bool(2)?; // A copy from pageable memory is synchronous either way.
            match a.operand(1)? {
                super::Operand::Number(s) => fill_(a.tensor(0)?, s)?,
                super::Operand::Tensor(t) => copy_(a.tensor(0)?, t)?,
            }
            Ok(Value::Receiver)
        }
    );
    op!(
        list,
        "fill_",
        FUNCTION | METHOD,
        "Fills the tensor with a number (or a 0-d tensor).",
        "input: Tensor, value: Operand",
        |a| {
            fill_with(a.tensor(0)?, a.operand(1)?)?;
            Ok(Value::Receiver)
        }
    );
    op!(list, "zero_", FUNCTION | METHOD, "Fills the tensor with zeros.", "input: Tensor", |a| {
        fill_(a.tensor(0)?, Scalar::Int(0))?;
        Ok(Value::Receiver)
    });
    op!(
        list,
        "fill",
        FUNCTION,
        "A tensor of the input's shape filled with a number.",
        "input: Tensor, value: Operand",
        |a| {
            let t = clone(a.tensor(0)?)?;
            fill_with(&t, a.operand(1)?)?;
            Ok(t.into())
        }
    );
}
