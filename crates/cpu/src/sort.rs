//! Stable sort and top-k along one dimension, with positions.
//!
//! Elements become unsigned keys whose order is the wanted one (NaN above everything, -0 equal to 0;
//! all bits flipped for descending order). Keys of up to four bytes travel with their position in one
//! u64, so that a plain unstable sort of u64 is stable; wider keys go as a pair. Long lines take a
//! radix sort that skips digits in which all keys agree.

use crate::alloc::Block;
use crate::scan::Lines;
use crate::{copy, oom, pool};
use pyrite_core::dtype::Bool8;
use pyrite_core::half::{bf16, f16};
use pyrite_core::{Arr, Result, bail, match_dtype};

/// From here on radix sort beats comparison sort.
const RADIX: usize = 1024;
const GRAIN: usize = 4096;

/// An element as an unsigned number in the same order.
trait Key: Copy + Send + Sync + 'static {
    /// Bits of the key.
    const BITS: u32;
    fn key(self) -> u64;
    /// Back from a key; `None` where several elements share one (NaNs, the two zeros).
    fn element(key: u64) -> Option<Self>;
}

macro_rules! unsigned {
    ($($t:ty)*) => { $(
        impl Key for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn key(self) -> u64 { self as u64 }
            #[inline(always)]
            fn element(key: u64) -> Option<Self> { Some(key as $t) }
        }
    )* };
}
unsigned!(u8 u16 u32 u64);
macro_rules! signed {
    ($($t:ty, $u:ty;)*) => { $(
        impl Key for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn key(self) -> u64 { (self as $u ^ <$t>::MIN as $u) as u64 }
            #[inline(always)]
            fn element(key: u64) -> Option<Self> { Some((key as $u ^ <$t>::MIN as $u) as $t) }
        }
    )* };
}
signed!(i8, u8; i16, u16; i32, u32; i64, u64;);
macro_rules! float {
    ($($t:ty, $u:ty;)*) => { $(
        impl Key for $t {
            const BITS: u32 = <$u>::BITS;
            #[inline(always)]
            fn key(self) -> u64 {
                const TOP: $u = 1 << (<$u>::BITS - 1);
                let b = self.to_bits();
                let b = if b == TOP { 0 } else { b };
                // Negative numbers count downwards.
                let k = if b & TOP != 0 { !b } else { b | TOP };
                if self.is_nan() { <$u>::MAX as u64 } else { k as u64 }
            }
            #[inline(always)]
            fn element(key: u64) -> Option<Self> {
                const TOP: $u = 1 << (<$u>::BITS - 1);
                let k = key as $u;
                if k == TOP || k == <$u>::MAX {
                    return None;
                }
                Some(<$t>::from_bits(if k & TOP != 0 { k ^ TOP } else { !k }))
            }
        }
    )* };
}
float!(f16, u16; bf16, u16; f32, u32; f64, u64;);
impl Key for Bool8 {
    const BITS: u32 = 8;
    #[inline(always)]
    fn key(self) -> u64 {
        (self.0 != 0) as u64
    }
    #[inline(always)]
    fn element(key: u64) -> Option<Self> {
        Some(Bool8(key as u8))
    }
}

/// A key with its position, in one or two words.
trait Item: Copy + Ord + Default + Send + Sync {
    fn new(key: u64, at: usize) -> Self;
    fn key(self) -> u64;
    fn at(self) -> usize;
}
impl Item for u64 {
    #[inline(always)]
    fn new(key: u64, at: usize) -> u64 {
        key << 32 | at as u64
    }
    #[inline(always)]
    fn key(self) -> u64 {
        self >> 32
    }
    #[inline(always)]
    fn at(self) -> usize {
        self as u32 as usize
    }
}
impl Item for (u64, u64) {
    #[inline(always)]
    fn new(key: u64, at: usize) -> (u64, u64) {
        (key, at as u64)
    }
    #[inline(always)]
    fn key(self) -> u64 {
        self.0
    }
    #[inline(always)]
    fn at(self) -> usize {
        self.1 as usize
    }
}

/// Sorts by key, items with equal keys stay in order; `spare` is as long as `items`. The result is in
/// `items`.
fn radix<I: Item>(items: &mut [I], spare: &mut [I], bits: u32) {
    const DIGIT: u32 = 11;
    const SIZE: usize = 1 << DIGIT;
    let digits = bits.div_ceil(DIGIT) as usize;
    let mut counts = vec![[0u32; SIZE]; digits];
    for it in items.iter() {
        let k = it.key();
        for (d, c) in counts.iter_mut().enumerate() {
            c[(k >> (d as u32 * DIGIT)) as usize & (SIZE - 1)] += 1;
        }
    }
    let (mut from, mut to) = (&mut *items, &mut *spare);
    let mut swapped = false;
    for (d, c) in counts.iter_mut().enumerate() {
        let n = from.len() as u32;
        if c.contains(&n) {
            continue;
        }
        let mut sum = 0;
        for x in c.iter_mut() {
            (*x, sum) = (sum, sum + *x);
        }
        for it in from.iter() {
            let slot = &mut c[(it.key() >> (d as u32 * DIGIT)) as usize & (SIZE - 1)];
            // In range by construction (the counts sum up to the length), and checked all the same.
            to[*slot as usize] = *it;
            *slot += 1;
        }
        (from, to) = (to, from);
        swapped = !swapped;
    }
    if swapped {
        to.copy_from_slice(from);
    }
}

fn sort_items<I: Item>(items: &mut [I], spare: &mut Vec<I>, bits: u32) {
    if items.len() < RADIX {
        // Positions make every item different, so unstable is stable.
        return items.sort_unstable();
    }
    spare.resize(items.len(), I::default());
    radix(items, spare, bits);
}

/// Merges two sorted halves.
fn merge<I: Item>(a: &[I], b: &[I], out: &mut [I]) {
    let (mut i, mut j) = (0, 0);
    for o in out.iter_mut() {
        let left = j == b.len() || (i < a.len() && a[i] < b[j]);
        *o = if left { a[i] } else { b[j] };
        i += left as usize;
        j += !left as usize;
    }
}

/// One long line: pieces sorted side by side, then merged in pairs.
fn sort_long<I: Item>(items: &mut Vec<I>, bits: u32) {
    const PIECE: usize = 1 << 19;
    let n = items.len();
    let mut size = n.div_ceil(n.div_ceil(PIECE).min(8).next_power_of_two().max(1));
    let mut other = vec![I::default(); n];
    let pieces = n.div_ceil(size);
    {
        let (a, b) = (crate::gemm::Shared(items.as_mut_ptr()), crate::gemm::Shared(other.as_mut_ptr()));
        pool::parallel(pieces, n as u64 * 12, &|p| {
            let (start, end) = (p * size, n.min((p + 1) * size));
            // SAFETY: pieces are disjoint parts of both vectors.
            unsafe {
                let items = std::slice::from_raw_parts_mut(a.get().add(start), end - start);
                let spare = std::slice::from_raw_parts_mut(b.get().add(start), end - start);
                radix(items, spare, bits);
            }
        });
    }
    while size < n {
        let (a, b) = (crate::gemm::Shared(items.as_ptr()), crate::gemm::Shared(other.as_mut_ptr()));
        // Each pair in two tasks: the lower half of the result from the front, the upper from the back.
        let pairs = n.div_ceil(2 * size);
        pool::parallel(pairs * 2, n as u64 * 2, &|t| {
            let (p, upper) = (t / 2, t % 2);
            let (start, end) = (p * 2 * size, n.min((p + 1) * 2 * size));
            let mid = n.min(start + size);
            // SAFETY: pairs are disjoint; the two tasks of a pair write disjoint halves.
            unsafe {
                let x = std::slice::from_raw_parts(a.get().add(start), mid - start);
                let y = std::slice::from_raw_parts(a.get().add(mid), end - mid);
                let half = (end - start) / 2;
                let (i, j) = co_rank(half, x, y);
                if upper == 0 {
                    let out = std::slice::from_raw_parts_mut(b.get().add(start), half);
                    merge(&x[..i], &y[..j], out);
                } else {
                    let out = std::slice::from_raw_parts_mut(b.get().add(start + half), end - start - half);
                    merge(&x[i..], &y[j..], out);
                }
            }
        });
        std::mem::swap(items, &mut other);
        size *= 2;
    }
}

/// How many of the first `k` items of the merged sequence come from either side.
fn co_rank<I: Item>(k: usize, x: &[I], y: &[I]) -> (usize, usize) {
    let (mut lo, mut hi) = (k.saturating_sub(y.len()), k.min(x.len()));
    while lo < hi {
        let i = (lo + hi) / 2;
        if x[i] < y[k - i - 1] {
            lo = i + 1;
        } else {
            hi = i;
        }
    }
    (lo, k - lo)
}

/// Strides and sizes of one sort or top-k.
struct Job<T> {
    lines: Lines,
    src: *const T,
    values: *mut T,
    idx: *mut i64,
    /// Along the dimension: source, values, positions.
    along: [isize; 3],
    n: usize,
    /// Results per line.
    k: usize,
    /// Flips the order.
    flip: u64,
}

// SAFETY: lines are disjoint, each is written by one task.
unsafe impl<T> Sync for Job<T> {}

impl<T: Key> Job<T> {
    #[inline(always)]
    unsafe fn get(&self, o: isize, i: usize) -> T {
        // SAFETY: element i of a line.
        unsafe { *self.src.offset(o + i as isize * self.along[0]) }
    }
    #[inline(always)]
    unsafe fn key(&self, o: isize, i: usize) -> u64 {
        // SAFETY: element i of a line.
        unsafe { self.get(o, i) }.key() ^ self.flip
    }

    /// Writes the first `k` items as values and positions.
    unsafe fn write<I: Item>(&self, items: &[I], o: [isize; 3]) {
        for (j, it) in items[..self.k].iter().enumerate() {
            let at = it.at();
            // SAFETY: results j < k of this line; `at` is a position in it.
            unsafe {
                let v = T::element(it.key() ^ self.flip).unwrap_or_else(|| self.get(o[0], at));
                *self.values.offset(o[1] + j as isize * self.along[1]) = v;
                *self.idx.offset(o[2] + j as isize * self.along[2]) = at as i64;
            }
        }
    }

    fn sort<I: Item>(&self) {
        let n = self.n;
        let count = self.lines.count;
        if count == 1 && n >= 1 << 17 {
            let o = self.lines.at(0);
            let mut items = vec![I::default(); n];
            let (chunks, size) = pool::chunks(n, 16 << 10);
            let out = crate::gemm::Shared(items.as_mut_ptr());
            pool::parallel(chunks, n as u64, &|c| {
                for i in c * size..n.min((c + 1) * size) {
                    // SAFETY: item i is written here alone.
                    unsafe { *out.get().add(i) = I::new(self.key(o[0], i), i) };
                }
            });
            sort_long(&mut items, <T as Key>::BITS);
            // SAFETY: all results of the one line.
            unsafe { self.write(&items, o) };
            return;
        }
        let group = (GRAIN / n.max(1)).clamp(1, count);
        pool::parallel(count.div_ceil(group), (n * count) as u64 * 15, &|g| {
            let (mut items, mut spare) = (Vec::with_capacity(n), Vec::new());
            for l in g * group..count.min((g + 1) * group) {
                let o = self.lines.at(l);
                items.clear();
                // SAFETY: elements and results of line l.
                unsafe {
                    items.extend((0..n).map(|i| I::new(self.key(o[0], i), i)));
                    sort_items::<I>(&mut items, &mut spare, <T as Key>::BITS);
                    self.write(&items, o);
                }
            }
        });
    }

    /// The `k` first of each line: candidates below the worst kept so far, thinned when they pile up.
    fn first<I: Item>(&self) {
        let (n, k, count) = (self.n, self.k, self.lines.count);
        if k == 0 {
            return;
        }
        let group = (GRAIN / n.max(1)).clamp(1, count);
        pool::parallel(count.div_ceil(group), (n * count) as u64, &|g| {
            let room = (2 * k + 256).min(n);
            let mut items: Vec<I> = Vec::with_capacity(room);
            for l in g * group..count.min((g + 1) * group) {
                let o = self.lines.at(l);
                items.clear();
                // Positions grow, so an item with the worst kept key can't get in any more.
                let mut worst = u64::MAX;
                let mut open = true;
                for i in 0..n {
                    // SAFETY: element i of line l.
                    let key = unsafe { self.key(o[0], i) };
                    if key < worst || open {
                        if items.len() == room {
                            items.select_nth_unstable(k - 1);
                            items.truncate(k);
                            worst = items[k - 1].key();
                            open = false;
                            if key >= worst {
                                continue;
                            }
                        }
                        items.push(I::new(key, i));
                    }
                }
                if items.len() > k {
                    items.select_nth_unstable(k - 1);
                    items.truncate(k);
                }
                items.sort_unstable();
                // SAFETY: results of line l.
                unsafe { self.write(&items, o) };
            }
        });
    }
}

fn run(values: Arr, idx: Arr, src: Arr, dim: usize, down: bool, all: bool) -> Result<()> {
    if src.dtype != values.dtype {
        // The driver sorts in the source's dtype; anything else goes through scratch.
        let strides = pyrite_core::layout::contiguous_strides(values.shape);
        let block = Block::new(values.numel() * src.dtype.size()).map_err(oom)?;
        let tmp = Arr { ptr: block.as_ptr(), dtype: src.dtype, shape: values.shape, strides: &strides };
        run(tmp, idx, src, dim, down, all)?;
        return copy::copy(values, tmp);
    }
    if values.numel() == 0 {
        return Ok(());
    }
    if src.dtype.is_complex() {
        bail!(NotImplemented, "sort: not implemented for dtype {} on the CPU", src.dtype);
    }
    let (n, k) = (src.shape[dim], values.shape[dim]);
    match_dtype!(real, src.dtype, |T| {
        let flip = if down { u64::MAX >> (64 - <T as Key>::BITS) } else { 0 };
        let job = Job::<T> {
            lines: Lines::new(src.shape, dim, [src.strides, values.strides, idx.strides]),
            src: src.ptr.cast(),
            values: values.ptr.cast(),
            idx: idx.ptr.cast(),
            along: [src.strides[dim], values.strides[dim], idx.strides[dim]],
            n,
            k,
            flip,
        };
        let narrow = <T as Key>::BITS <= 32 && n <= u32::MAX as usize;
        // Most of a line: sorting it all is cheaper.
        let all = all || k > n / 4;
        match (all, narrow) {
            (true, true) => job.sort::<u64>(),
            (true, false) => job.sort::<(u64, u64)>(),
            (false, true) => job.first::<u64>(),
            (false, false) => job.first::<(u64, u64)>(),
        }
        Ok(())
    }, else bail!(NotImplemented, "sort: not implemented for dtype {} on the CPU", src.dtype))
}

/// `Backend::sort`.
pub fn sort(values: Arr, idx: Arr, src: Arr, dim: usize, descending: bool) -> Result<()> {
    run(values, idx, src, dim, descending, true)
}

/// `Backend::topk`.
pub fn topk(values: Arr, idx: Arr, src: Arr, dim: usize, largest: bool) -> Result<()> {
    run(values, idx, src, dim, largest, false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::reduce::tests::{read, store};
    use pyrite_core::{DType, Layout};

    fn go(
        d: DType,
        l: &Layout,
        dim: usize,
        v: &[f64],
        down: bool,
        k: Option<usize>,
    ) -> (Vec<f64>, Vec<i64>, Vec<usize>) {
        let src = store(d, v);
        let mut shape = l.shape().to_vec();
        if let Some(k) = k {
            shape[dim] = k;
        }
        let n: usize = shape.iter().product();
        let (mut out, mut at) = (vec![0u8; n * d.size()], vec![0i64; n]);
        let dl = Layout::contiguous(&shape);
        let s = Arr { ptr: src.as_ptr().cast_mut(), dtype: d, shape: l.shape(), strides: l.strides() };
        let o = Arr { ptr: out.as_mut_ptr(), dtype: d, shape: &shape, strides: dl.strides() };
        let i = Arr { ptr: at.as_mut_ptr().cast(), dtype: DType::I64, ..o };
        match k {
            None => sort(o, i, s, dim, down).unwrap(),
            Some(_) => topk(o, i, s, dim, down).unwrap(),
        }
        (read(d, &out), at, shape)
    }

    #[test]
    fn sorts_are_stable_and_put_nan_last() {
        for (shape, dim) in [
            (vec![1usize], 0),
            (vec![100], 0),
            (vec![5000], 0),
            (vec![1 << 20], 0),
            (vec![30, 40], 0),
            (vec![30, 40], 1),
            (vec![3, 1500], 1),
            (vec![2000, 3], 0),
        ] {
            for d in [DType::F32, DType::F64, DType::F16, DType::I64, DType::I8, DType::Bool] {
                let l = Layout::contiguous(&shape);
                if shape[0] > 1 << 19 && !matches!(d, DType::F32 | DType::I64) {
                    continue;
                }
                let mut v: Vec<f64> = (0..l.numel()).map(|i| ((i * 7919) % 101) as f64 - 50.0).collect();
                if d.is_float() {
                    v.iter_mut().step_by(53).for_each(|x| *x = f64::NAN);
                    v.iter_mut().skip(1).step_by(59).for_each(|x| *x = -0.0);
                }
                if d.is_bool() {
                    v.iter_mut().for_each(|x| *x = (*x > 0.0) as u8 as f64);
                }
                for down in [false, true] {
                    let (got, at, _) = go(d, &l, dim, &v, down, None);
                    check(&shape, dim, &v, &got, &at, down, shape[dim]);
                    for k in [1, 3, 40] {
                        if k <= shape[dim] {
                            let (got, at, _) = go(d, &l, dim, &v, down, Some(k));
                            check(&shape, dim, &v, &got, &at, down, k);
                        }
                    }
                }
            }
        }
    }

    fn check(shape: &[usize], dim: usize, v: &[f64], got: &[f64], at: &[i64], down: bool, k: usize) {
        let n = shape[dim];
        let inner: usize = shape[dim + 1..].iter().product();
        for line in 0..v.len() / n {
            let (a, b) = (line / inner, line % inner);
            let x: Vec<f64> = (0..n).map(|i| v[(a * n + i) * inner + b]).collect();
            let mut want: Vec<usize> = (0..n).collect();
            let rank = |f: f64| if f.is_nan() { f64::INFINITY } else { f };
            want.sort_by(|i, j| {
                let o = rank(x[*i]).total_cmp(&(rank(x[*j]) + 0.0));
                let o = if rank(x[*i]) == rank(x[*j]) { std::cmp::Ordering::Equal } else { o };
                if down { o.reverse() } else { o }
            });
            for j in 0..k {
                let p = (a * k + j) * inner + b;
                assert_eq!(at[p] as usize, want[j], "{shape:?} dim {dim} down {down} k {k} at {j}");
                let w = x[want[j]];
                assert!(got[p].to_bits() == w.to_bits() || (got[p].is_nan() && w.is_nan()));
            }
        }
    }
}
