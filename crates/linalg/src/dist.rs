//! Distances between the rows of two matrices in any p-norm, and their gradient.

use crate::{Mat, Num};

/// Which distance.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Distance {
    /// The number of differing components.
    Zero,
    One,
    Two,
    Infinity,
    P(f64),
}

impl Distance {
    pub fn new(p: f64) -> Distance {
        match p {
            0.0 => Distance::Zero,
            1.0 => Distance::One,
            2.0 => Distance::Two,
            f64::INFINITY => Distance::Infinity,
            p => Distance::P(p),
        }
    }
}

trait Real: Copy + PartialOrd + std::ops::Sub<Output = Self> + std::ops::Mul<Output = Self> {
    const ZERO: Self;
    const ONE: Self;
    fn add(self, b: Self) -> Self;
    fn size(self) -> Self;
    fn pow(self, p: Self) -> Self;
    fn root(self) -> Self;
    fn of(v: f64) -> Self;
    fn over(self, b: Self) -> Self;
    /// The larger one; NaN if either is NaN.
    fn most(self, b: Self) -> Self;
}

macro_rules! real {
    ($($t:ident),*) => { $(
        impl Real for $t {
            const ZERO: $t = 0.0;
            const ONE: $t = 1.0;
            #[inline(always)]
            fn add(self, b: $t) -> $t { self + b }
            #[inline(always)]
            fn size(self) -> $t { self.abs() }
            #[inline(always)]
            fn pow(self, p: $t) -> $t { self.powf(p) }
            #[inline(always)]
            fn root(self) -> $t { self.sqrt() }
            #[inline(always)]
            fn of(v: f64) -> $t { v as $t }
            #[inline(always)]
            fn over(self, b: $t) -> $t { self / b }
            #[inline(always)]
            fn most(self, b: $t) -> $t { if self > b || self.is_nan() { self } else { b } }
        }
    )* };
}
real!(f32, f64);

/// Folds the absolute differences of two rows; eight partial results keep the loop vectorisable and the
/// order fixed.
#[inline(always)]
fn fold<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T, join: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::ZERO; 8];
    let (ca, cb) = (a.chunks_exact(8), b.chunks_exact(8));
    let (ra, rb) = (ca.remainder(), cb.remainder());
    for (x, y) in ca.zip(cb) {
        for l in 0..8 {
            lanes[l] = f(lanes[l], (x[l] - y[l]).size());
        }
    }
    for (l, (x, y)) in ra.iter().zip(rb).enumerate() {
        lanes[l] = f(lanes[l], (*x - *y).size());
    }
    // Written out: a call of a closure here would keep the partial results in memory.
    let [a, b, c, d, e, f, g, h] = lanes;
    join(join(join(a, e), join(c, g)), join(join(b, f), join(d, h)))
}

#[inline(always)]
fn pair<T: Real>(kind: Distance, a: &[T], b: &[T]) -> T {
    match kind {
        // (x != 0), and NaN counts as different.
        Distance::Zero => fold(a, b, |s, d| if d == T::ZERO { s } else { s.add(T::ONE) }, T::add),
        Distance::One => fold(a, b, T::add, T::add),
        Distance::Two => fold(a, b, |s, d| s.add(d * d), T::add).root(),
        Distance::Infinity => fold(a, b, T::most, T::most),
        Distance::P(p) => {
            let q = T::of(p);
            fold(a, b, |s, d| s.add(d.pow(q)), T::add).pow(T::of(1.0 / p))
        }
    }
}

#[inline(always)]
unsafe fn forward<T: Real>(kind: Distance, x1: Mat, x2: Mat, out: Mat) {
    let row = |m: Mat, i: usize| {
        // SAFETY: rows of x1 and x2 are dense and valid by the caller's promise.
        unsafe { std::slice::from_raw_parts(m.at::<T>(i, 0), m.cols) }
    };
    for i in 0..out.rows {
        let a = row(x1, i);
        for j in 0..out.cols {
            let d = pair(kind, a, row(x2, j));
            // SAFETY: inside out.
            unsafe { *out.at::<T>(i, j) = d };
        }
    }
}

#[inline(always)]
unsafe fn backward<T: Real>(kind: Distance, g: Mat, dist: Mat, x1: Mat, x2: Mat, dx: Mat) {
    for i in 0..x1.rows {
        // SAFETY: rows are dense and valid, and `dx` belongs to this call alone, by the caller's promise.
        let (a, out) = unsafe {
            (
                std::slice::from_raw_parts(x1.at::<T>(i, 0), x1.cols),
                std::slice::from_raw_parts_mut(dx.at::<T>(i, 0), x1.cols),
            )
        };
        out.fill(T::ZERO);
        for j in 0..x2.rows {
            // SAFETY: as above.
            let (b, g, r) = unsafe {
                (std::slice::from_raw_parts(x2.at::<T>(j, 0), x1.cols), *g.at::<T>(i, j), *dist.at::<T>(i, j))
            };
            let sign = |d: T| {
                if d > T::ZERO {
                    T::ONE
                } else if d < T::ZERO {
                    T::ZERO - T::ONE
                } else {
                    d * T::ZERO
                }
            };
            let mut each = |f: &dyn Fn(T) -> T| {
                for (o, (x, y)) in out.iter_mut().zip(a.iter().zip(b)) {
                    *o = o.add(f(*x - *y));
                }
            };
            match kind {
                Distance::Zero => {}
                Distance::One => each(&|d| g * sign(d)),
                Distance::Two if r == T::ZERO => {}
                Distance::Two => {
                    let s = g.over(r);
                    each(&|d| d * s);
                }
                Distance::Infinity => each(&|d| if d.size() == r { g * sign(d) } else { T::ZERO }),
                Distance::P(_) if r == T::ZERO => {}
                Distance::P(p) => {
                    let (q, s) = (T::of(p - 1.0), g.over(r.pow(T::of(p - 1.0))));
                    each(&|d| if d == T::ZERO { T::ZERO } else { sign(d) * d.size().pow(q) * s });
                }
            }
        }
    }
}

macro_rules! versions {
    ($name:ident, $wide:ident, $inner:ident, ($($a:ident: $t:ty),*)) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $wide<T: Real>($($a: $t),*) {
            // SAFETY: the caller's promise.
            unsafe { $inner::<T>($($a),*) }
        }
        unsafe fn $name<T: Real>($($a: $t),*) {
            #[cfg(target_arch = "x86_64")]
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                // SAFETY: the processor has what the version needs.
                return unsafe { $wide::<T>($($a),*) };
            }
            // SAFETY: the caller's promise.
            unsafe { $inner::<T>($($a),*) }
        }
    };
}
versions!(run_forward, forward_avx2, forward, (kind: Distance, x1: Mat, x2: Mat, out: Mat));
versions!(run_backward, backward_avx2, backward, (kind: Distance, g: Mat, dist: Mat, x1: Mat, x2: Mat, dx: Mat));

/// `out[i, j] = |x1[i] - x2[j]|_p`.
///
/// # Safety
/// The matrices are real of type `num`, valid for their shapes, with rows without gaps (`cs == 1`);
/// `out` is x1.rows x x2.rows of any strides and overlaps nothing.
pub unsafe fn distance(num: Num, kind: Distance, x1: Mat, x2: Mat, out: Mat) {
    // SAFETY: the caller's promise.
    unsafe {
        match num {
            Num::F32 => run_forward::<f32>(kind, x1, x2, out),
            Num::F64 => run_forward::<f64>(kind, x1, x2, out),
            _ => {}
        }
    }
}

/// The gradient with respect to `x1`, written to `dx`: `g` and `dist` are x1.rows x x2.rows.
///
/// # Safety
/// As [`distance`]; `dx` has the shape of `x1` and overlaps nothing.
pub unsafe fn distance_backward(num: Num, kind: Distance, g: Mat, dist: Mat, x1: Mat, x2: Mat, dx: Mat) {
    // SAFETY: the caller's promise.
    unsafe {
        match num {
            Num::F32 => run_backward::<f32>(kind, g, dist, x1, x2, dx),
            Num::F64 => run_backward::<f64>(kind, g, dist, x1, x2, dx),
            _ => {}
        }
    }
}
