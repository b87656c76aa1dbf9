//! Fused optimizer steps over many parameters at once: one parallel region, one pass over memory.
//! The formulas and the order of operations are those of PyTorch's documentation.

use crate::pool::parallel;
use crate::simd::{Arch, ArchKernel, FloatLanes, dispatch};
use crate::strided::{Compute, Ptr, gather, scatter};
use pyrite_core::backend::{OptimParam, OptimStep};
use pyrite_core::{Arr, DType, Result, bail};

/// Elements per chunk of work; small parameters share one.
const CHUNK: usize = 16384;
/// Elements converted at a time for the half types.
const PIECE: usize = 256;

/// One parameter's pointers: p, g and up to three states (null where there is none).
#[derive(Clone, Copy)]
struct Param {
    ptr: [Ptr; 5],
    n: usize,
    /// Flat position of its first element among all parameters of its dtype.
    start: usize,
}

pub fn step(step: OptimStep, params: &[OptimParam]) -> Result<()> {
    let needed = states(&step);
    for p in params {
        check(p, needed)?;
    }
    for d in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let mut list = Vec::with_capacity(params.len());
        let mut total = 0;
        for p in params.iter().filter(|p| p.p.dtype == d) {
            let s = |k: usize| Ptr(p.state[k].filter(|_| needed[k]).map_or(std::ptr::null_mut(), |a| a.ptr));
            let n = p.p.numel();
            list.push(Param { ptr: [Ptr(p.p.ptr), Ptr(p.g.ptr), s(0), s(1), s(2)], n, start: total });
            total += n;
        }
        if total > 0 {
            match d {
                DType::F64 => update::<f64>(step, d, &list, total),
                _ => update::<f32>(step, d, &list, total),
            }
        }
    }
    Ok(())
}

/// Which states a step reads and writes.
fn states(step: &OptimStep) -> [bool; 3] {
    match *step {
        OptimStep::Sgd { momentum, .. } => [momentum != 0.0, false, false],
        OptimStep::Adam { amsgrad, .. } => [true, true, amsgrad],
        OptimStep::RmsProp { momentum, centered, .. } => [true, momentum > 0.0, centered],
    }
}

fn check(p: &OptimParam, needed: [bool; 3]) -> Result<()> {
    let n = p.p.numel();
    if !p.p.dtype.is_float() {
        bail!(NotImplemented, "optimizer step: parameters of {} are not supported", p.p.dtype);
    }
    let same = |a: &Arr, what: &str| {
        if a.dtype != p.p.dtype || a.numel() != n {
            bail!(
                Runtime,
                "optimizer step: {what} is {} {:?} but its parameter is {} {:?}",
                a.dtype,
                a.shape,
                p.p.dtype,
                p.p.shape
            );
        }
        // One flat order for all: the same strides over one dense block.
        let strides_fit = (0..a.shape.len())
            .all(|d| a.shape[d] == p.p.shape[d] && (a.shape[d] == 1 || a.strides[d] == p.p.strides[d]));
        if !(a.is_contiguous() && p.p.is_contiguous() || strides_fit && dense(a)) {
            bail!(Runtime, "optimizer step: {what} and its parameter must be dense with equal strides");
        }
        Ok(())
    };
    same(&p.p, "the parameter")?;
    same(&p.g, "the gradient")?;
    for (k, s) in p.state.iter().enumerate() {
        match s {
            Some(a) if needed[k] => same(a, "a state buffer")?,
            None if needed[k] && n > 0 => {
                bail!(Runtime, "optimizer step: state buffer {k} is missing")
            }
            _ => {}
        }
    }
    Ok(())
}

/// Do the strides cover one block without gaps, in some order of the dimensions?
fn dense(a: &Arr) -> bool {
    let mut dims: smallvec::SmallVec<[(isize, usize); 6]> =
        a.strides.iter().copied().zip(a.shape.iter().copied()).filter(|d| d.1 != 1).collect();
    dims.sort_unstable();
    let mut step = 1;
    for (s, n) in dims {
        if s != step {
            return false;
        }
        step *= n as isize;
    }
    true
}

fn update<T: Compute>(step: OptimStep, dtype: DType, list: &[Param], total: usize) {
    let n_chunks = total.div_ceil(CHUNK);
    parallel(n_chunks, total as u64 * 3 / 2, &|c| {
        let (from, to) = (c * CHUNK, total.min((c + 1) * CHUNK));
        // The last parameter that starts at or before `from`.
        let first = list.partition_point(|p| p.start <= from) - 1;
        dispatch(Run::<T> { step, dtype, list: &list[first..], from, to, marker: std::marker::PhantomData });
    });
}

struct Run<'a, T> {
    step: OptimStep,
    dtype: DType,
    list: &'a [Param],
    from: usize,
    to: usize,
    marker: std::marker::PhantomData<T>,
}

impl<T: Compute> ArchKernel for Run<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let consts = Consts::new(self.step);
        for p in self.list {
            if p.start >= self.to {
                break;
            }
            let (a, b) = (self.from.max(p.start) - p.start, self.to.min(p.start + p.n) - p.start);
            if b <= a {
                continue;
            }
            let size = self.dtype.size();
            let ptr = p.ptr.map(|q| if q.get().is_null() { q.get() } else { q.get().wrapping_add(a * size) });
            // SAFETY: `a..b` is inside the parameter and its buffers, all of which `check` found to
            // be of one length; chunks cover disjoint ranges.
            unsafe {
                if self.dtype == T::DTYPE {
                    span::<T::V<A>>(&consts, ptr.map(|q| q.cast()), b - a);
                } else {
                    converted::<A, T>(&consts, self.dtype, ptr, b - a);
                }
            }
        }
    }
}

/// Half-precision parameters: pieces through dense scratch.
/// # Safety
/// Non-null pointers have `n` elements of `d`.
#[inline(always)]
unsafe fn converted<A: Arch, T: Compute>(c: &Consts, d: DType, ptr: [*mut u8; 5], n: usize) {
    let mut buf = [[T::of(0.0); PIECE]; 5];
    let mut i = 0;
    while i < n {
        let m = PIECE.min(n - i);
        let mut local = [std::ptr::null_mut(); 5];
        for k in 0..5 {
            if !ptr[k].is_null() {
                local[k] = buf[k].as_mut_ptr();
                // SAFETY: `m` elements from `i` on are there; the buffer holds PIECE >= m.
                unsafe { gather(d, ptr[k].add(i * d.size()), 1, m, local[k]) };
            }
        }
        // SAFETY: `m` elements in each local buffer.
        unsafe { span::<T::V<A>>(c, local, m) };
        for k in [0, 2, 3, 4] {
            if !ptr[k].is_null() {
                // SAFETY: as for the gather above.
                unsafe { scatter(d, ptr[k].add(i * d.size()), 1, m, local[k]) };
            }
        }
        i += m;
    }
}

/// A step's numbers, derived once per chunk in f64.
#[derive(Clone, Copy)]
struct Consts {
    step: OptimStep,
    /// Adam: `lr / (1 - beta1^t)` and `sqrt(1 - beta2^t)`.
    step_size: f64,
    root: f64,
}

impl Consts {
    #[inline(always)]
    fn new(step: OptimStep) -> Consts {
        let (mut step_size, mut root) = (0.0, 0.0);
        if let OptimStep::Adam { lr, beta1, beta2, step: t, .. } = step {
            step_size = lr / (1.0 - beta1.powf(t as f64));
            root = (1.0 - beta2.powf(t as f64)).sqrt();
        }
        Consts { step, step_size, root }
    }
}

/// # Safety
/// Non-null pointers have `n` elements; those of needed states are not null.
#[inline(always)]
unsafe fn span<V: FloatLanes>(c: &Consts, ptr: [*mut V::Elem; 5], n: usize) {
    let mut i = 0;
    while i < n {
        let k = V::N.min(n - i);
        // SAFETY: `k` elements from `i` on are there.
        unsafe {
            if k == V::N {
                one::<V, true>(c, ptr, i, k);
            } else {
                one::<V, false>(c, ptr, i, k);
            }
        }
        i += V::N;
    }
}

/// One vector of the update.
/// # Safety
/// Elements `i..i + k` are there behind every pointer the step uses; `k == V::N` if `FULL`.
#[inline(always)]
unsafe fn one<V: FloatLanes, const FULL: bool>(c: &Consts, ptr: [*mut V::Elem; 5], i: usize, k: usize) {
    let zero = V::lit(0.0).extract(0);
    macro_rules! load {
        ($j:literal) => {
            // SAFETY: the caller's promise.
            unsafe { if FULL { V::load(ptr[$j].add(i)) } else { V::load_partial(ptr[$j].add(i), k, zero) } }
        };
    }
    macro_rules! store {
        ($j:literal, $v:expr) => {
            // SAFETY: the caller's promise.
            unsafe {
                let v: V = $v;
                if FULL { v.store(ptr[$j].add(i)) } else { v.store_partial(ptr[$j].add(i), k) }
            }
        };
    }
    let (mut p, mut g): (V, V) = (load!(0), load!(1));
    let l = |v: f64| V::lit(v);
    match c.step {
        OptimStep::Sgd { lr, momentum, dampening, weight_decay, nesterov, maximize, first } => {
            if maximize {
                g = -g;
            }
            if weight_decay != 0.0 {
                g = V::fma_(p, l(weight_decay), g);
            }
            if momentum != 0.0 {
                let buf = if first {
                    g
                } else {
                    let old: V = load!(2);
                    V::fma_(g, l(1.0 - dampening), old * l(momentum))
                };
                store!(2, buf);
                g = if nesterov { V::fma_(buf, l(momentum), g) } else { buf };
            }
            store!(0, V::fma_(g, l(-lr), p));
        }
        OptimStep::Adam { lr, beta1, beta2, eps, weight_decay, decoupled, amsgrad, maximize, .. } => {
            if maximize {
                g = -g;
            }
            if weight_decay != 0.0 {
                if decoupled {
                    p = p * l(1.0 - lr * weight_decay);
                } else {
                    g = V::fma_(p, l(weight_decay), g);
                }
            }
            let (m, v): (V, V) = (load!(2), load!(3));
            let m = V::fma_(g - m, l(1.0 - beta1), m);
            let v = V::fma_(g * g, l(1.0 - beta2), v * l(beta2));
            store!(2, m);
            store!(3, v);
            let mut top = v;
            if amsgrad {
                top = V::maximum(load!(4), v);
                store!(4, top);
            }
            let denom = top.sqrt_() / l(c.root) + l(eps);
            store!(0, p - l(c.step_size) * (m / denom));
        }
        OptimStep::RmsProp { lr, alpha, eps, weight_decay, momentum, centered, maximize } => {
            if maximize {
                g = -g;
            }
            if weight_decay != 0.0 {
                g = V::fma_(p, l(weight_decay), g);
            }
            let sq: V = load!(2);
            let sq = V::fma_(g * g, l(1.0 - alpha), sq * l(alpha));
            store!(2, sq);
            let mut avg = sq;
            if centered {
                let mean: V = load!(4);
                let mean = V::fma_(g - mean, l(1.0 - alpha), mean);
                store!(4, mean);
                avg = sq - mean * mean;
            }
            let change = g / (avg.sqrt_() + l(eps));
            if momentum > 0.0 {
                let buf: V = load!(3);
                let buf = V::fma_(buf, l(momentum), change);
                store!(3, buf);
                store!(0, V::fma_(buf, l(-lr), p));
            } else {
                store!(0, V::fma_(change, l(-lr), p));
            }
        }
    }
}

#[cfg(test)]
#[path = "optim_tests.rs"]
mod tests;
