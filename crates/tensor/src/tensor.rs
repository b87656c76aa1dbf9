//! `Tensor`: a cheap, shared handle on storage + layout + dtype, with autograd data only where
//! somebody asked for it. Creation, accessors and raw access for kernels; operators are in `ops/`.

use crate::autograd::{MetaCell, mode};
use pyrite_core::layout::{channels_last_strides, checked_shape, numel};
use pyrite_core::plan::Operand;
use pyrite_core::{Arr, Backend, DType, Device, Elem, Layout, Result, Scalar, Storage, bail, ensure};
use std::sync::Arc;

/// What is still to be done to a tensor's elements when they are read (`ops::lazy`): only complex tensors
/// are conjugated, only real views of their parts negated.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lazy {
    pub conj: bool,
    pub neg: bool,
}

impl Lazy {
    /// Both, one after the other.
    pub fn with(self, o: Lazy) -> Lazy {
        Lazy { conj: self.conj ^ o.conj, neg: self.neg ^ o.neg }
    }
}

pub(crate) struct Impl {
    pub storage: Storage,
    pub layout: Layout,
    pub dtype: DType,
    pub lazy: Lazy,
    pub meta: MetaCell,
}

/// An n-dimensional array. Clones share everything, including `grad` and history.
///
/// ```
/// use pyrite_tensor::{Tensor, ops};
/// let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0], &[3]).unwrap();
/// let y = ops::mul(&x, &x).unwrap();
/// assert_eq!(y.to_vec::<f32>().unwrap(), [1.0, 4.0, 9.0]);
/// ```
#[derive(Clone)]
pub struct Tensor(pub(crate) Arc<Impl>);

/// The order of a new tensor's dimensions in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MemoryFormat {
    #[default]
    Contiguous,
    Preserve,
    ChannelsLast,
    ChannelsLast3d,
}

/// The backend of a device, or a clear error.
pub fn backend(device: Device) -> Result<&'static dyn Backend> {
    match device {
        Device::Cpu => Ok(pyrite_cpu::cpu()),
        Device::Cuda(i) => pyrite_cuda::cuda(i),
    }
}

impl Tensor {
    /// Wraps parts. The layout must lie inside the storage; view functions guarantee it.
    pub fn from_parts(storage: Storage, layout: Layout, dtype: DType) -> Tensor {
        Tensor(Arc::new(Impl { storage, layout, dtype, lazy: Lazy::default(), meta: MetaCell::new() }))
    }

    /// The same memory under another mark, without history.
    pub fn marked(&self, lazy: Lazy) -> Tensor {
        let (storage, layout) = (self.0.storage.clone(), self.0.layout.clone());
        Tensor(Arc::new(Impl { storage, layout, dtype: self.0.dtype, lazy, meta: MetaCell::new() }))
    }

    /// The same memory and mark under another layout, without history.
    pub fn with_layout(&self, layout: Layout) -> Tensor {
        let (storage, dtype, lazy) = (self.0.storage.clone(), self.0.dtype, self.0.lazy);
        Tensor(Arc::new(Impl { storage, layout, dtype, lazy, meta: MetaCell::new() }))
    }

    /// The same autograd identity (grad, history, hooks) over other data: what `x.data = y` makes.
    pub fn with_data_of(&self, data: &Tensor) -> Tensor {
        let meta = MetaCell::with(self.meta_or_new().clone());
        Tensor(Arc::new(Impl {
            storage: data.0.storage.clone(),
            layout: data.0.layout.clone(),
            dtype: data.0.dtype,
            lazy: data.0.lazy,
            meta,
        }))
    }

    // ---- creation ------------------------------------------------------------------------------

    /// Uninitialised memory with the given layout order.
    pub fn empty_strided(layout: Layout, dtype: DType, device: Device) -> Result<Tensor> {
        let n = numel(layout.shape())?;
        let bytes = match n.checked_mul(dtype.size()) {
            Some(b) if b <= isize::MAX as usize => b,
            _ => bail!(
                OutOfMemory,
                "empty: a tensor of shape {:?} and dtype {dtype} does not fit in memory",
                layout.shape()
            ),
        };
        let storage = backend(device)?.alloc(bytes)?;
        if mode::is_inference() {
            storage.set_inference();
        }
        Ok(Tensor::from_parts(storage, layout, dtype))
    }

    pub fn empty(shape: &[usize], dtype: DType, device: Device) -> Result<Tensor> {
        Tensor::empty_strided(Layout::contiguous(shape), dtype, device)
    }

    /// Uninitialised memory of this tensor's shape and dimension order.
    pub fn empty_like_with(&self, dtype: DType) -> Result<Tensor> {
        let l = crate::ops::like_layout(self);
        Tensor::empty_strided(l, dtype, self.device())
    }

    pub fn empty_format(
        shape: &[usize],
        dtype: DType,
        device: Device,
        format: MemoryFormat,
    ) -> Result<Tensor> {
        let l = match (format, shape.len()) {
            (MemoryFormat::ChannelsLast, 4) | (MemoryFormat::ChannelsLast3d, 5) => {
                Layout::new(shape, channels_last_strides(shape), 0)
            }
            (MemoryFormat::ChannelsLast, n) => {
                bail!(Runtime, "required rank 4 tensor to use channels_last format, got rank {n}")
            }
            (MemoryFormat::ChannelsLast3d, n) => {
                bail!(Runtime, "required rank 5 tensor to use channels_last_3d format, got rank {n}")
            }
            _ => Layout::contiguous(shape),
        };
        Tensor::empty_strided(l, dtype, device)
    }

    pub fn zeros(shape: &[usize], dtype: DType, device: Device) -> Result<Tensor> {
        let n = numel(shape)?;
        let Some(bytes) = n.checked_mul(dtype.size()).filter(|b| *b <= isize::MAX as usize) else {
            bail!(OutOfMemory, "zeros: a tensor of shape {shape:?} and dtype {dtype} does not fit in memory");
        };
        let storage = backend(device)?.alloc_zeroed(bytes)?;
        if mode::is_inference() {
            storage.set_inference();
        }
        Ok(Tensor::from_parts(storage, Layout::contiguous(shape), dtype))
    }

    pub fn full(shape: &[usize], value: Scalar, dtype: DType, device: Device) -> Result<Tensor> {
        crate::ops::complex::check_number("full", value, dtype)?;
        let t = Tensor::empty(shape, dtype, device)?;
        backend(device)?.fill(t.arr(), value)?;
        Ok(t)
    }

    /// A 0-d tensor.
    pub fn scalar(value: Scalar, dtype: DType, device: Device) -> Result<Tensor> {
        Tensor::full(&[], value, dtype, device)
    }

    /// A CPU tensor from host data.
    pub fn from_slice<T: Elem>(data: &[T], shape: &[usize]) -> Result<Tensor> {
        ensure!(
            numel(shape)? == data.len(),
            Shape,
            "from_slice: {} elements do not fill shape {shape:?}",
            data.len()
        );
        let t = Tensor::empty(shape, T::DTYPE, Device::Cpu)?;
        // SAFETY: the new storage holds exactly `data.len()` elements of T and nobody else sees it.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), t.ptr() as *mut T, data.len()) };
        Ok(t)
    }

    /// The elements in row-major order, on the host.
    pub fn to_vec<T: Elem>(&self) -> Result<Vec<T>> {
        ensure!(
            T::DTYPE == self.dtype(),
            Type,
            "to_vec: the tensor has dtype {}, asked for {}",
            self.dtype(),
            T::DTYPE
        );
        let c = crate::ops::to_device(&self.detach(), Device::Cpu)?;
        let c = crate::ops::contiguous(&c)?;
        let mut out = Vec::with_capacity(c.numel());
        // SAFETY: `c` is contiguous on the CPU with numel elements of T; the vector has that capacity.
        unsafe {
            std::ptr::copy_nonoverlapping(c.ptr() as *const T, out.as_mut_ptr(), c.numel());
            out.set_len(c.numel());
        }
        Ok(out)
    }

    // ---- accessors -----------------------------------------------------------------------------

    #[inline]
    pub fn storage(&self) -> &Storage {
        &self.0.storage
    }
    #[inline]
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }
    #[inline]
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }
    #[inline]
    pub fn device(&self) -> Device {
        self.0.storage.device()
    }
    #[inline]
    pub fn shape(&self) -> &[usize] {
        self.0.layout.shape()
    }
    #[inline]
    pub fn strides(&self) -> &[isize] {
        self.0.layout.strides()
    }
    #[inline]
    pub fn ndim(&self) -> usize {
        self.0.layout.ndim()
    }
    #[inline]
    pub fn numel(&self) -> usize {
        self.0.layout.numel()
    }
    pub fn size(&self, dim: i64) -> Result<usize> {
        let d = pyrite_core::layout::wrap_dim("size", dim, self.ndim())?;
        match self.shape().get(d) {
            Some(s) => Ok(*s),
            None => bail!(Index, "Dimension specified as {dim} but tensor has no dimensions"),
        }
    }
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        self.0.layout.is_contiguous()
    }
    pub fn backend(&self) -> Result<&'static dyn Backend> {
        backend(self.device())
    }
    /// Do both handles stand for the same tensor (not merely equal data)?
    pub fn same(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
    /// Number of handles on this tensor.
    pub fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// What is still to be done to the elements.
    #[inline]
    pub fn lazy(&self) -> Lazy {
        self.0.lazy
    }
    /// Must the elements be conjugated or negated before a kernel sees them (`ops::lazy::resolve`)?
    #[inline]
    pub fn is_lazy(&self) -> bool {
        self.0.lazy != Lazy::default()
    }

    // ---- raw access for kernels ----------------------------------------------------------------

    /// The address of the first element (the layout's offset included).
    #[inline]
    pub fn ptr(&self) -> *mut u8 {
        self.0.storage.ptr().wrapping_add(self.0.layout.offset() * self.0.dtype.size())
    }
    /// This tensor as kernels see it.
    #[inline]
    pub fn arr(&self) -> Arr<'_> {
        debug_assert!(!self.is_lazy(), "a kernel would see a marked tensor");
        Arr { ptr: self.ptr(), dtype: self.0.dtype, shape: self.shape(), strides: self.strides() }
    }
    /// This tensor as an operand of a plan.
    #[inline]
    pub fn operand(&self) -> Operand<'_> {
        debug_assert!(!self.is_lazy(), "a kernel would see a marked tensor");
        Operand { ptr: self.0.storage.ptr(), dtype: self.0.dtype, layout: &self.0.layout }
    }

    /// The only element, as a number. An error if there is more than one.
    pub fn item(&self) -> Result<Scalar> {
        ensure!(
            self.numel() == 1,
            Runtime,
            "a Tensor with {} elements cannot be converted to Scalar",
            self.numel()
        );
        let mut bytes = [0u8; 16];
        let size = self.dtype().size();
        if self.device() == Device::Cpu {
            // SAFETY: the tensor has one element of `size` bytes at `ptr`.
            unsafe { std::ptr::copy_nonoverlapping(self.ptr(), bytes.as_mut_ptr(), size) };
        } else {
            // SAFETY: as above, through the device's copy.
            unsafe { self.backend()?.transfer(bytes.as_mut_ptr(), self.ptr(), size, true)? };
        }
        Ok(crate::ops::lazy::flip(scalar_from_bytes(&bytes, self.dtype()), self.lazy()))
    }
}

/// Reads one element.
pub fn scalar_from_bytes(b: &[u8; 16], d: DType) -> Scalar {
    macro_rules! get {
        ($t:ty) => {{
            let mut a = [0u8; size_of::<$t>()];
            a.copy_from_slice(&b[..size_of::<$t>()]);
            <$t>::from_le_bytes(a)
        }};
    }
    let f = |lo: usize| {
        let mut a = [0u8; 4];
        a.copy_from_slice(&b[lo..lo + 4]);
        f32::from_le_bytes(a) as f64
    };
    let g = |lo: usize| {
        let mut a = [0u8; 8];
        a.copy_from_slice(&b[lo..lo + 8]);
        f64::from_le_bytes(a)
    };
    match d {
        DType::Bool => Scalar::Bool(b[0] != 0),
        DType::U8 => Scalar::Int(b[0] as i64),
        DType::I8 => Scalar::Int(b[0] as i8 as i64),
        DType::I16 => Scalar::Int(get!(i16) as i64),
        DType::I32 => Scalar::Int(get!(i32) as i64),
        DType::I64 => Scalar::Int(get!(i64)),
        DType::U16 => Scalar::Int(get!(u16) as i64),
        DType::U32 => Scalar::Int(get!(u32) as i64),
        DType::U64 => Scalar::from(get!(u64)),
        DType::F16 => Scalar::Float(half::f16::from_bits(get!(u16)).to_f64()),
        DType::BF16 => Scalar::Float(half::bf16::from_bits(get!(u16)).to_f64()),
        DType::F32 => Scalar::Float(f(0)),
        DType::F64 => Scalar::Float(g(0)),
        DType::C64 => Scalar::Complex(f(0), f(4)),
        DType::C128 => Scalar::Complex(g(0), g(8)),
    }
}

/// Sizes from a user as a shape.
pub fn shape_arg(op: &str, sizes: &[i64]) -> Result<pyrite_core::Dims> {
    checked_shape(op, sizes)
}
